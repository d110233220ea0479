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
    /// etcd and the API server, which need nobody.
    Server,
    /// The controller manager. Started before the API server takes requests it only takes processor time from it, and is
    /// refused its lease for seconds.
    ControllerManager,
    /// The scheduler, likewise. It is needed later, and asks more slowly again for all that it was refused.
    Scheduler,
}

/// Whether the last manifest of a part is there.
pub(super) fn there(host: &dyn Host, part: Part) -> Result<bool> {
    let name = match part {
        Part::Server => "kube-apiserver",
        Part::ControllerManager => "kube-controller-manager",
        Part::Scheduler => "kube-scheduler",
    };
    Ok(host.entry(&Path::new(DIRECTORY).join(format!("{name}.yaml")))?.is_some())
}

/// Makes the folder that the kubelet watches.
pub(super) fn make_room(host: &dyn Host) -> Result<()> {
    host.create_directory(Path::new(DIRECTORY), 0o700).map(drop)
}

/// Writes the manifests of a part that are missing or differ.
pub(super) fn write(host: &dyn Host, plan: &Plan, part: Part) -> Result<Changes> {
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
    let wanted = match (part, &plan.cluster.etcd.local) {
        (Part::Server, Some(etcd)) => {
            host.create_directory(Path::new(&etcd.data_dir), 0o700)?;
            vec![manifests::etcd(&order)?, manifests::api_server(&order)?]
        }
        (Part::Server, None) => vec![manifests::api_server(&order)?],
        (Part::ControllerManager, _) => vec![manifests::controller_manager(&order)?],
        (Part::Scheduler, _) => vec![manifests::scheduler(&order)?],
    };
    make_room(host)?;
    let mut changes = Vec::new();
    for manifest in wanted {
        let path = Path::new(DIRECTORY).join(manifest.file_name());
        if files::ensure(host, &path, manifest.to_text().as_bytes(), 0o600)? {
            changes.push(format!("{} written", path.display()));
        }
    }
    Ok(changes)
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

    const PARTS: [Part; 3] = [Part::Server, Part::ControllerManager, Part::Scheduler];

    #[test]
    fn four_pods_once_etcd_first() {
        let host = FakeHost::new();
        let plan = plan("");
        let changes = PARTS.map(|part| write(&host, &plan, part).unwrap()).concat();
        let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        assert_eq!(changes, names.map(|name| format!("/etc/kubernetes/manifests/{name}.yaml written")));
        for part in PARTS {
            assert!(write(&host, &plan, part).unwrap().is_empty());
        }
    }
}
