//! The static pods of a control plane (kubeadm.md section 4): kubelets run what lies in /etc/kubernetes/manifests.

mod arguments;
mod components;
mod etcd;
mod pod;
mod volumes;

use serde_json::Value;

pub use arguments::command_line;
pub use components::{api_server, controller_manager, scheduler};
pub use etcd::{EtcdMember, etcd};
pub use volumes::CA_DIRECTORIES;

use super::configuration::{ApiEndpoint, ClusterConfiguration, Duration, EnvVar};
use super::text;
use super::version::{self, ArgumentOrder, Images, Release};
use crate::failure::Result;

/// What the manifests of a node are made of.
#[derive(Debug, Clone, Copy)]
pub struct ManifestOrder<'a> {
    /// The completed configuration.
    pub cluster: &'a ClusterConfiguration,
    /// Where this node's API server listens.
    pub local: &'a ApiEndpoint,
    /// Name of the Node.
    pub node_name: &'a str,
    /// How long a component may take to become healthy: sets the startup probes.
    pub health_check: Duration,
    /// Those of [`CA_DIRECTORIES`] that exist on the host.
    pub ca_directories: &'a [String],
    /// Whether ca.key is not on this host, so that nothing can be signed here.
    pub external_ca: bool,
    /// Variables of our environment whose name ends in `_proxy`, whatever its case, and that are not empty; they reach
    /// all components but etcd.
    pub proxy_environment: &'a [EnvVar],
    /// etcd's members, the new one included, when this node joins; empty on the first control plane.
    pub etcd_members: &'a [EtcdMember],
    /// Tag of the etcd that runs already, when this node joins a cluster whose members are of another release.
    pub etcd_tag: Option<&'a str>,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Name of the component: `kube-apiserver`; the file is `<name>.yaml`, mode 0600.
    pub name: &'static str,
    /// The pod.
    pub pod: Value,
}

impl Manifest {
    /// File name in /etc/kubernetes/manifests.
    pub fn file_name(&self) -> String {
        format!("{}.yaml", self.name)
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        text::yaml(&self.pod)
    }
}

/// API server, controller manager and scheduler, in kubeadm's order. etcd is made apart, because a joining node writes
/// its manifest later: see [`etcd`].
///
/// # Errors
/// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not supported.
pub fn control_plane(order: &ManifestOrder<'_>) -> Result<Vec<Manifest>> {
    Ok(vec![api_server(order)?, controller_manager(order)?, scheduler(order)?])
}

impl ManifestOrder<'_> {
    fn release(&self) -> Result<&'static Release> {
        Release::of(&version::parse(&self.cluster.kubernetes_version)?)
    }

    fn argument_order(&self) -> Result<ArgumentOrder> {
        let version = version::parse(&self.cluster.kubernetes_version)?;
        Release::of(&version).map(|release| release.argument_order(&version))
    }

    fn images(&self) -> Result<Images> {
        version::images(self.cluster)
    }

    /// A path below certificatesDir.
    fn pki(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster.certificates_dir.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests;
