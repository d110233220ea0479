//! Paths of the host inside static pods (kubeadm.md sections 4.1 to 4.3).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ManifestOrder;
use crate::kubernetes::configuration::HostPathMount;

/// Where distributions keep the certificates that /etc/ssl/certs links to: mounted where they exist.
pub const CA_DIRECTORIES: [&str; 5] = [
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

const SSL_CERTIFICATES: &str = "/etc/ssl/certs";

/// A path of the host in a container.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub(super) name: String,
    host_path: String,
    mount_path: String,
    read_only: bool,
    path_type: String,
}

impl Volume {
    /// A path that is the same inside.
    pub(super) fn same(name: &str, path: &str, read_only: bool, path_type: &str) -> Self {
        Self {
            name: name.to_owned(),
            host_path: path.to_owned(),
            mount_path: path.to_owned(),
            read_only,
            path_type: path_type.to_owned(),
        }
    }

    pub(super) fn mount(&self) -> Value {
        let mut mount = json!({ "mountPath": self.mount_path, "name": self.name });
        if self.read_only {
            mount["readOnly"] = json!(true);
        }
        mount
    }

    pub(super) fn source(&self) -> Value {
        json!({ "hostPath": { "path": self.host_path, "type": self.path_type }, "name": self.name })
    }
}

impl From<&HostPathMount> for Volume {
    fn from(given: &HostPathMount) -> Self {
        Self {
            name: given.name.clone(),
            host_path: given.host_path.clone(),
            mount_path: given.mount_path.clone(),
            read_only: given.read_only,
            path_type: given.path_type.clone(),
        }
    }
}

/// Certificates of the cluster and of the system: what the API server and the controller manager both read.
pub(super) fn certificates(order: &ManifestOrder<'_>) -> Vec<Volume> {
    let directory = |name: &str, path: &str| Volume::same(name, path, true, "DirectoryOrCreate");
    let mut volumes =
        vec![directory("ca-certs", SSL_CERTIFICATES), directory("k8s-certs", &order.cluster.certificates_dir)];
    for path in CA_DIRECTORIES.iter().filter(|path| order.ca_directories.iter().any(|there| there == *path)) {
        volumes.push(directory(&path[1..].replace('/', "-"), path));
    }
    volumes
}

/// Directories of an external etcd's certificates that no other volume brings, `etcd-certs-0` and on.
pub(super) fn external_etcd(order: &ManifestOrder<'_>) -> Vec<Volume> {
    let Some(external) = &order.cluster.etcd.external else { return Vec::new() };
    let mut directories: Vec<&str> = Vec::new();
    for file in [&external.ca_file, &external.cert_file, &external.key_file] {
        let Some((directory, _)) = file.rsplit_once('/').filter(|(directory, _)| !directory.is_empty()) else {
            continue;
        };
        let covered = CA_DIRECTORIES.iter().copied().chain([SSL_CERTIFICATES, &order.cluster.certificates_dir]);
        if covered.into_iter().any(|path| is_below(directory, path)) {
            continue;
        }
        if directories.iter().any(|there| is_below(directory, there)) {
            continue;
        }
        directories.retain(|there| !is_below(there, directory));
        directories.push(directory);
    }
    directories.sort_unstable();
    let volume = |(position, path): (usize, &&str)| {
        Volume::same(&format!("etcd-certs-{position}"), path, true, "DirectoryOrCreate")
    };
    directories.iter().enumerate().map(volume).collect()
}

fn is_below(path: &str, parent: &str) -> bool {
    path == parent || path.strip_prefix(parent.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// The default volumes and those a person gave, which replace defaults of the same name, sorted by name.
pub(super) fn merged(defaults: Vec<Volume>, extra: &[HostPathMount]) -> Vec<Volume> {
    let given = extra.iter().map(Volume::from);
    let by_name: BTreeMap<String, Volume> =
        defaults.into_iter().chain(given).map(|volume| (volume.name.clone(), volume)).collect();
    by_name.into_values().collect()
}
