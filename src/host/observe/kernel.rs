//! What the kernel tells of itself: memory, CPUs, control groups, options, modules, swap.

use std::io::Read;
use std::path::Path;

use crate::failure::Result;
use crate::host::Host;

/// Modules Kubernetes, its proxies and pod networks want, with a path that is there when their feature is: a built-in
/// feature need not be listed as a module anywhere.
const MODULES: &[(&str, Option<&str>)] = &[
    ("overlay", None),
    ("br_netfilter", Some("/proc/sys/net/bridge")),
    ("nf_conntrack", Some("/proc/sys/net/netfilter/nf_conntrack_max")),
    ("ip_tables", Some("/proc/net/ip_tables_names")),
    ("nf_tables", None),
    ("ip_vs", Some("/proc/net/ip_vs")),
    ("ip_set", None),
    ("vxlan", None),
    ("wireguard", None),
    ("xt_comment", None),
    ("xt_conntrack", None),
    ("xt_statistic", None),
];

/// What tells whether modules are there, read once.
pub(crate) struct Kernel {
    loaded: String,
    built_in: String,
    filesystems: String,
}

impl Kernel {
    /// Reads the lists.
    pub(crate) fn read(host: &dyn Host) -> Result<Self> {
        let release = super::text(host, "/proc/sys/kernel/osrelease")?;
        let release = release.trim();
        Ok(Self {
            loaded: super::text(host, "/proc/modules")?,
            built_in: super::text(host, &format!("/lib/modules/{release}/modules.builtin"))?,
            filesystems: super::text(host, "/proc/filesystems")?,
        })
    }

    /// Whether a module is loaded, built in, or its feature is there all the same.
    pub(crate) fn has(&self, host: &dyn Host, module: &str) -> Result<bool> {
        if self.lists(module) || host.entry(&Path::new("/sys/module").join(underscored(module)))?.is_some() {
            return Ok(true);
        }
        match MODULES.iter().find(|(name, _)| *name == underscored(module)) {
            Some((_, Some(feature))) => Ok(host.entry(Path::new(feature))?.is_some()),
            _ => Ok(false),
        }
    }

    fn lists(&self, module: &str) -> bool {
        let module = underscored(module);
        let loaded = self.loaded.lines().filter_map(|line| line.split_whitespace().next());
        let built_in = self.built_in.lines().filter_map(|line| line.rsplit('/').next()?.split('.').next());
        let filesystems = self.filesystems.lines().filter_map(|line| line.split_whitespace().next_back());
        loaded.chain(built_in).chain(filesystems).any(|name| underscored(name) == module)
    }
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn underscored(module: &str) -> String {
    module.replace('-', "_")
}

/// Which of the modules that matter are there.
pub(super) fn modules(host: &dyn Host) -> Result<Vec<String>> {
    let kernel = Kernel::read(host)?;
    let mut there = Vec::new();
    for (module, _) in MODULES {
        if kernel.has(host, module)? {
            there.push((*module).to_owned());
        }
    }
    Ok(there)
}

/// RAM in bytes, of /proc/meminfo.
pub(super) fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// How many CPUs we may use, of /proc/self/status: what Go's runtime.NumCPU counts, and with it kubeadm.
pub(super) fn allowed_cpus(status: &str) -> u32 {
    let Some(list) = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")) else { return 0 };
    let count = |range: &str| -> Option<u32> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.trim().parse::<u32>().ok()?.checked_sub(first.trim().parse().ok()?)?.checked_add(1)
    };
    list.split(',').filter_map(count).fold(0, u32::saturating_add)
}

/// 2 for the unified hierarchy, 1 for the old ones, 0 for none.
pub(super) fn cgroup_version(unified: bool, mounts: &str) -> u8 {
    if unified {
        return 2;
    }
    let old = mounts.lines().any(|line| line.split_whitespace().nth(2) == Some("cgroup"));
    u8::from(old)
}

/// Controllers of the unified hierarchy, else those that are enabled in /proc/cgroups.
pub(super) fn cgroup_controllers(unified: &str, old: &str) -> Vec<String> {
    if !unified.trim().is_empty() {
        return unified.split_whitespace().map(str::to_owned).collect();
    }
    let enabled = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        (!line.starts_with('#') && words.len() >= 4 && words[3] != "0").then(|| words[0].to_owned())
    };
    old.lines().filter_map(enabled).collect()
}

/// A kernel's configuration is some 300 KiB.
const CONFIGURATION_BYTES: u64 = 4 << 20;

/// Which of the options that matter the kernel was built with, of the places where upstream looks for its configuration;
/// `None` when it is in none of them.
pub(super) fn options(host: &dyn Host, release: &str) -> Result<Option<Vec<String>>> {
    let plain = [
        format!("/boot/config-{release}"),
        format!("/usr/src/linux-{release}/.config"),
        "/usr/src/linux/.config".to_owned(),
        format!("/usr/lib/modules/{release}/config"),
        format!("/usr/lib/ostree-boot/config-{release}"),
        format!("/usr/lib/kernel/config-{release}"),
        format!("/usr/src/linux-headers-{release}/.config"),
        format!("/lib/modules/{release}/build/.config"),
    ];
    if let Some(packed) = host.read(Path::new("/proc/config.gz"))? {
        let mut text = String::new();
        let unpacked =
            flate2::read::GzDecoder::new(packed.as_slice()).take(CONFIGURATION_BYTES).read_to_string(&mut text);
        return Ok(unpacked.is_ok().then(|| enabled(&text)));
    }
    for path in plain {
        if let Some(text) = host.read(Path::new(&path))? {
            return Ok(Some(enabled(&String::from_utf8_lossy(&text))));
        }
    }
    Ok(None)
}

/// The options that matter among those built in or as a module.
fn enabled(configuration: &str) -> Vec<String> {
    let known: Vec<_> = crate::node::kernel_options().collect();
    let option = |line: &str| {
        let (name, value) = line.trim().strip_prefix("CONFIG_")?.split_once('=')?;
        (known.contains(&name) && value.starts_with(['y', 'm'])).then(|| name.to_owned())
    };
    configuration.lines().filter_map(option).collect()
}

/// Devices and files of /proc/swaps.
pub(crate) fn swap(swaps: &str) -> Vec<String> {
    swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{cgroup_controllers, options};
    use crate::host::fake::FakeHost;

    const CONFIGURATION: &str =
        "# CONFIG_X is not set\nCONFIG_MEMCG=y\nCONFIG_EXT4_FS=m\nCONFIG_INET=n\nCONFIG_FOO=y\n";

    #[test]
    fn options_are_read_where_they_lie() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(CONFIGURATION.as_bytes()).unwrap();
        let packed = FakeHost::new().file("/proc/config.gz", packer.finish().unwrap());
        let plain = FakeHost::new().file("/boot/config-6.1.0", CONFIGURATION);
        for host in [packed, plain] {
            assert_eq!(options(&host, "6.1.0").unwrap().unwrap(), ["MEMCG", "EXT4_FS"]);
        }
        assert_eq!(options(&FakeHost::new(), "6.1.0"), Ok(None));
    }

    #[test]
    fn controllers_of_both_hierarchies() {
        assert_eq!(cgroup_controllers("cpuset cpu io\n", ""), ["cpuset", "cpu", "io"]);
        let old = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\nmemory\t0\t1\t0\n";
        assert_eq!(cgroup_controllers("", old), ["cpu"]);
    }
}
