//! InitConfiguration (kubeadm.md section 13.1) and the types it shares with joining.

use serde::{Deserialize, Serialize};

use super::cluster::Arg;
use super::{Duration, is_default};
use crate::secret::Secret;

/// A token that nodes join with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootstrapToken {
    /// `<id>.<secret>`; made when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub token: Option<Secret>,
    /// What it is for.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
    /// How long it is valid; zero is for ever. `expires` wins.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: Option<Duration>,
    /// Until when it is valid, RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: Option<String>,
    /// `signing`, `authentication`.
    #[serde(skip_serializing_if = "is_default")]
    pub usages: Vec<String>,
    /// Groups of whoever authenticates with it.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
}

/// A taint of a node, as core/v1 Taint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, often empty.
    #[serde(skip_serializing_if = "is_default")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: String,
    /// Since when, RFC 3339; only for `NoExecute`.
    #[serde(skip_serializing_if = "is_default")]
    pub time_added: Option<String>,
}

impl std::fmt::Display for Taint {
    /// As the kubelet's `--register-with-taints` takes it: `key=value:effect`, `key:effect`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.value.is_empty(), self.effect.is_empty()) {
            (true, true) => formatter.write_str(&self.key),
            (true, false) => write!(formatter, "{}:{}", self.key, self.effect),
            (false, true) => write!(formatter, "{}={}:", self.key, self.value),
            (false, false) => write!(formatter, "{}={}:{}", self.key, self.value, self.effect),
        }
    }
}

/// How a node registers itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRegistrationOptions {
    /// Name of the Node; the host's name when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Socket of the container runtime: `unix:///var/run/containerd/containerd.sock`.
    #[serde(skip_serializing_if = "is_default")]
    pub cri_socket: String,
    /// Taints; `None` is the default of the role, an empty list is no taint.
    pub taints: Option<Vec<Taint>>,
    /// Arguments of the kubelet.
    #[serde(skip_serializing_if = "is_default")]
    pub kubelet_extra_args: Vec<Arg>,
    /// Preflight checks whose errors are only warnings; `all`.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_preflight_errors: Vec<String>,
    /// `IfNotPresent`, `Always`, `Never`.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_policy: String,
    /// Whether images are pulled one after the other; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_serial: Option<bool>,
}

/// Where this node's API server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiEndpoint {
    /// Address it announces; that of the default route when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub advertise_address: String,
    /// Port; 6443 when 0.
    #[serde(skip_serializing_if = "is_default")]
    pub bind_port: u16,
}

/// Patches for the manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Patches {
    /// Directory they lie in.
    #[serde(skip_serializing_if = "is_default")]
    pub directory: String,
}

/// Limits of waiting (kubeadm.md section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// For a control plane component to become healthy; also sets the startup probes.
    pub control_plane_component_health_check: Duration,
    /// For the kubelet to become healthy.
    pub kubelet_health_check: Duration,
    /// For a call of the API, retries included.
    #[serde(rename = "kubernetesAPICall")]
    pub kubernetes_api_call: Duration,
    /// For an operation on etcd's members, retries included.
    #[serde(rename = "etcdAPICall")]
    pub etcd_api_call: Duration,
    /// For the kubelet to get its certificate.
    pub tls_bootstrap: Duration,
    /// For the cluster's information.
    pub discovery: Duration,
    /// For a static pod to be replaced.
    pub upgrade_manifests: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            control_plane_component_health_check: Duration::from_seconds(240),
            kubelet_health_check: Duration::from_seconds(240),
            kubernetes_api_call: Duration::from_seconds(60),
            etcd_api_call: Duration::from_seconds(120),
            tls_bootstrap: Duration::from_seconds(300),
            discovery: Duration::from_seconds(300),
            upgrade_manifests: Duration::from_seconds(300),
        }
    }
}

/// How the first control plane is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitConfiguration {
    /// Tokens to create; one random when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub bootstrap_tokens: Vec<BootstrapToken>,
    /// Nothing is changed.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// How the node registers.
    pub node_registration: NodeRegistrationOptions,
    /// Where its API server listens.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: ApiEndpoint,
    /// Key of the uploaded certificates, 64 hex digits.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate_key: Option<Secret>,
    /// Phases to leave out.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_phases: Vec<String>,
    /// Patches for the manifests.
    #[serde(skip_serializing_if = "is_default")]
    pub patches: Option<Patches>,
    /// Limits of waiting.
    pub timeouts: Timeouts,
}
