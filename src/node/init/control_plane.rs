//! Phases etcd and control-plane: the four static pods (kubeadm.md section 4).

use std::path::Path;

use super::plan::Plan;
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::configuration::EnvVar;
use crate::kubernetes::manifests::{self, CA_DIRECTORIES, ManifestOrder};
use crate::node::files;
use crate::node::phase::Changes;

/// The kubelet runs what lies here; files under way are made elsewhere and renamed into it.
const DIRECTORY: &str = "/etc/kubernetes/manifests";

/// Which static pods are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// etcd and the API server.
    ApiServer,
    /// Controller manager and scheduler. They are started when there is an API server to serve: one that starts before
    /// tries to become the leader every 2 to 4.4 seconds, and waits that long again after an attempt that came too
    /// early.
    Controllers,
}

impl Part {
    fn has(self, component: &str) -> bool {
        (self == Self::ApiServer) == matches!(component, "etcd.yaml" | "kube-apiserver.yaml")
    }
}

/// Writes the manifests of a part that are missing or differ. etcd's comes first, as the API server needs it first.
pub(super) fn write(host: &dyn Host, plan: &Plan, part: Part) -> Result<(Changes, ())> {
    let mut ca_directories = Vec::new();
    for directory in CA_DIRECTORIES {
        if host.entry(Path::new(directory))?.is_some() {
            ca_directories.push(directory.to_owned());
        }
    }
    let proxy_environment: Vec<EnvVar> =
        proxy_environment().into_iter().map(|(name, value)| EnvVar { name, value, value_from: None }).collect();
    let order = ManifestOrder {
        cluster: &plan.cluster,
        local: &plan.init.local_api_endpoint,
        node_name: plan.node_name(),
        health_check: plan.init.timeouts.control_plane_component_health_check,
        ca_directories: &ca_directories,
        external_ca: host.entry(&plan.pki("ca.key"))?.is_none(),
        proxy_environment: &proxy_environment,
        etcd_members: &[],
        etcd_tag: None,
    };
    let mut wanted = Vec::new();
    if let Some(etcd) = &plan.cluster.etcd.local {
        host.create_directory(Path::new(&etcd.data_dir), 0o700)?;
        wanted.push(manifests::etcd(&order)?);
    }
    wanted.extend(manifests::control_plane(&order)?);
    host.create_directory(Path::new(DIRECTORY), 0o700)?;
    let mut changes = Vec::new();
    for manifest in wanted.into_iter().filter(|manifest| part.has(&manifest.file_name())) {
        let path = Path::new(DIRECTORY).join(manifest.file_name());
        if files::ensure(host, &path, manifest.to_text().as_bytes(), 0o600)? {
            changes.push(format!("{} written", path.display()));
        }
    }
    Ok((changes, ()))
}

/// The proxy variables of our environment (kubeadm.md section 4.1), sorted by name.
pub(super) fn proxy_environment() -> Vec<(String, String)> {
    let is_proxy = |name: &str, value: &str| name.to_lowercase().ends_with("_proxy") && !value.is_empty();
    let mut found: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| is_proxy(name, value))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::{Part, write};
    use crate::host::fake::FakeHost;
    use crate::node::init::plan::tests::plan;

    #[test]
    fn four_pods_once_etcd_first() {
        let host = FakeHost::new();
        let plan = plan("");
        let (changes, ()) = write(&host, &plan, Part::ApiServer).unwrap();
        assert_eq!(
            changes,
            ["/etc/kubernetes/manifests/etcd.yaml written", "/etc/kubernetes/manifests/kube-apiserver.yaml written"]
        );
        assert_eq!(write(&host, &plan, Part::Controllers).unwrap().0.len(), 2);
        for part in [Part::ApiServer, Part::Controllers] {
            assert_eq!(write(&host, &plan, part).unwrap().0, Vec::<String>::new());
        }
    }
}
