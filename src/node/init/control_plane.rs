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

/// Writes the manifests that are missing or differ. etcd's comes first, as the API server needs it first.
pub(super) fn write(host: &dyn Host, plan: &Plan) -> Result<(Changes, ())> {
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
    for manifest in wanted {
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
    use super::write;
    use crate::host::fake::FakeHost;
    use crate::node::init::plan::tests::plan;

    #[test]
    fn four_pods_once_etcd_first() {
        let host = FakeHost::new();
        let plan = plan("");
        let (changes, ()) = write(&host, &plan).unwrap();
        assert_eq!(changes.len(), 4);
        assert_eq!(changes[0], "/etc/kubernetes/manifests/etcd.yaml written");
        assert_eq!(write(&host, &plan).unwrap().0, Vec::<String>::new());
    }
}
