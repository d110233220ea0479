//! Where official releases lie, and how they are published: pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Order;
use crate::https::shown;

/// containerd, if nobody asks for another.
pub const CONTAINERD: semver::Version = semver::Version::new(2, 3, 7);

/// runc, if nobody asks for another.
pub const RUNC: semver::Version = semver::Version::new(1, 4, 3);

/// The CNI plugins, if nobody asks for others.
pub const CNI_PLUGINS: semver::Version = semver::Version::new(1, 9, 1);

/// The programs of containerd that a node needs.
const CONTAINERD_FILES: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr"];

/// The CNI plugins that our pod network and the usual ones call.
const CNI_FILES: &[&str] = &["bridge", "host-local", "loopback", "portmap", "ptp", "bandwidth", "firewall", "tuning"];

/// Where releases and images come from: the official servers, or mirrors with the same paths below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Kubernetes' programs.
    pub kubernetes: String,
    /// containerd's releases.
    pub containerd: String,
    /// runc's releases.
    pub runc: String,
    /// The releases of the CNI plugins.
    pub cni: String,
    /// Registries by the name that references have, for those that have a mirror.
    pub registries: BTreeMap<String, String>,
}

impl Default for Sources {
    fn default() -> Self {
        let github = |project: &str| format!("https://github.com/{project}/releases/download");
        Self {
            kubernetes: "https://dl.k8s.io".to_owned(),
            containerd: github("containerd/containerd"),
            runc: github("opencontainers/runc"),
            cni: github("containernetworking/plugins"),
            registries: BTreeMap::new(),
        }
    }
}

impl Sources {
    /// Takes `kubernetes=URL`, `containerd=URL`, `runc=URL`, `cni=URL` or `REGISTRY=URL`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn mirror(&mut self, text: &str) -> Result<(), String> {
        let (name, url) = text.split_once('=').ok_or("has to be NAME=URL, as in registry.k8s.io=https://mirror.lan")?;
        let url = url.trim_end_matches('/');
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err("has to name a URL that begins with https:// or http://".to_owned());
        }
        let place = match name {
            "kubernetes" => &mut self.kubernetes,
            "containerd" => &mut self.containerd,
            "runc" => &mut self.runc,
            "cni" => &mut self.cni,
            registry if registry.contains(['.', ':']) => self.registries.entry(registry.to_owned()).or_default(),
            _ => return Err("has to name kubernetes, containerd, runc, cni or a registry".to_owned()),
        };
        *place = url.to_owned();
        Ok(())
    }

    /// What a person should know of them: one sentence for each that is not encrypted.
    pub fn warnings(&self) -> Vec<String> {
        let plain = self.plain().into_iter().map(shown);
        plain
            .map(|url| format!("{url} is not encrypted: whoever sits on the way can replace what comes from there"))
            .collect()
    }

    /// The URL of a registry.
    pub fn registry(&self, name: &str) -> String {
        self.registries.get(name).cloned().unwrap_or_else(|| match name {
            "docker.io" => "https://registry-1.docker.io".to_owned(),
            name => format!("https://{name}"),
        })
    }

    /// Those that are not encrypted on the way.
    pub fn plain(&self) -> Vec<&str> {
        let fixed = [&self.kubernetes, &self.containerd, &self.runc, &self.cni];
        let all = fixed.into_iter().chain(self.registries.values());
        all.filter(|url| url.starts_with("http://")).map(String::as_str).collect()
    }
}

/// One file that is downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    /// For messages.
    pub(super) name: String,
    /// The file.
    pub(super) url: String,
    /// The file with its checksum.
    pub(super) checksums: String,
    /// What it is.
    pub(super) form: Form,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// The program itself.
    Program {
        /// Its name.
        name: &'static str,
    },
    /// A gzipped tar archive.
    Archive {
        /// The folder for what is taken out of it.
        into: &'static str,
        /// What is taken out of it, wherever it lies in it.
        files: &'static [&'static str],
    },
}

/// The files of an order.
pub(super) fn releases(order: &Order) -> Vec<Release> {
    let Order { architecture, sources, .. } = order;
    let program = |name: &'static str| {
        let url = format!("{}/release/v{}/bin/linux/{architecture}/{name}", sources.kubernetes, order.kubernetes);
        Release { name: name.to_owned(), checksums: format!("{url}.sha256"), url, form: Form::Program { name } }
    };
    let containerd = {
        let version = &order.containerd;
        let url = format!("{}/v{version}/containerd-{version}-linux-{architecture}.tar.gz", sources.containerd);
        Release {
            name: "containerd".to_owned(),
            checksums: format!("{url}.sha256sum"),
            url,
            form: Form::Archive { into: "bin", files: CONTAINERD_FILES },
        }
    };
    let runc = {
        let folder = format!("{}/v{}", sources.runc, order.runc);
        Release {
            name: "runc".to_owned(),
            checksums: format!("{folder}/runc.sha256sum"),
            url: format!("{folder}/runc.{architecture}"),
            form: Form::Program { name: "runc" },
        }
    };
    let plugins = {
        let version = &order.cni_plugins;
        let url = format!("{}/v{version}/cni-plugins-linux-{architecture}-v{version}.tgz", sources.cni);
        Release {
            name: "CNI plugins".to_owned(),
            checksums: format!("{url}.sha256"),
            url,
            form: Form::Archive { into: "cni", files: CNI_FILES },
        }
    };
    let kubectl = order.kubectl.then(|| program("kubectl"));
    [program("kubelet"), containerd, runc, plugins].into_iter().chain(kubectl).collect()
}

/// The sha256 of `file` in a file of checksums: `HEX`, or lines of `HEX  NAME`.
pub(super) fn checksum(text: &str, file: &str) -> Option<String> {
    let is_sha256 = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let sum = words.next().filter(is_sha256)?;
        match words.next() {
            None => Some(sum.to_ascii_lowercase()),
            Some(name) => {
                let name = name.trim_start_matches('*').rsplit('/').next();
                (name == Some(file)).then(|| sum.to_ascii_lowercase())
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Sources, checksum};

    #[rstest]
    #[case("HASH", "kubelet", true)]
    #[case("HASH\n", "kubelet", true)]
    #[case("HASH  kubelet\n", "kubelet", true)]
    #[case("HASH *./kubelet\n", "kubelet", true)]
    #[case("0000  other\nHASH  kubelet", "kubelet", true)]
    #[case("HASH  other", "kubelet", false)]
    #[case("<html>not found</html>", "kubelet", false)]
    #[case("", "kubelet", false)]
    fn checksums_are_published_in_some_forms(#[case] text: &str, #[case] file: &str, #[case] found: bool) {
        let hash = "Ab".repeat(32);
        let expected = found.then(|| hash.to_ascii_lowercase());
        assert_eq!(checksum(&text.replace("HASH", &hash), file), expected);
    }

    #[rstest]
    #[case("kubernetes=https://mirror.lan/k8s/", true)]
    #[case("registry.k8s.io=http://10.0.0.5:5000/k8s", true)]
    #[case("kubernets=https://mirror.lan", false)]
    #[case("registry.k8s.io=mirror.lan", false)]
    #[case("https://mirror.lan", false)]
    fn mirrors_have_names(#[case] text: &str, #[case] good: bool) {
        assert_eq!(Sources::default().mirror(text).is_ok(), good);
    }

    #[test]
    fn a_mirror_takes_the_place_of_the_official_server() {
        let mut sources = Sources::default();
        assert_eq!(sources.registry("registry.k8s.io"), "https://registry.k8s.io");
        sources.mirror("registry.k8s.io=http://10.0.0.5:5000/k8s/").unwrap();
        sources.mirror("runc=https://mirror.lan/runc").unwrap();
        assert_eq!(sources.registry("registry.k8s.io"), "http://10.0.0.5:5000/k8s");
        assert_eq!(sources.runc, "https://mirror.lan/runc");
        assert_eq!(sources.plain(), ["http://10.0.0.5:5000/k8s"]);
    }
}
