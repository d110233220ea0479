//! JoinConfiguration and ResetConfiguration (kubeadm.md sections 13.3 and 13.4).

use serde::{Deserialize, Serialize};

use super::init::{ApiEndpoint, NodeRegistrationOptions, Patches, Timeouts};
use super::is_default;
use crate::secret::Secret;

/// Finding the cluster with a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootstrapTokenDiscovery {
    /// `<id>.<secret>`; required.
    pub token: Option<Secret>,
    /// `host:port` of an API server.
    #[serde(skip_serializing_if = "is_default")]
    pub api_server_endpoint: String,
    /// `sha256:<hex>` of acceptable CAs.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_cert_hashes: Vec<String>,
    /// Whether the token alone is trusted.
    #[serde(rename = "unsafeSkipCAVerification", skip_serializing_if = "is_default")]
    pub unsafe_skip_ca_verification: bool,
}

/// Finding the cluster with a kubeconfig.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileDiscovery {
    /// Path, `file://` or `https://` URL.
    pub kube_config_path: String,
}

/// How the cluster is found; exactly one of the two ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Discovery {
    /// With a token.
    #[serde(skip_serializing_if = "is_default")]
    pub bootstrap_token: Option<BootstrapTokenDiscovery>,
    /// With a kubeconfig.
    #[serde(skip_serializing_if = "is_default")]
    pub file: Option<FileDiscovery>,
    /// Token the kubelet gets its certificate with; the discovery token when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_bootstrap_token: Option<Secret>,
}

/// What makes a joining node a control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinControlPlane {
    /// Where its API server listens.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: ApiEndpoint,
    /// Key of the uploaded certificates, 64 hex digits.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate_key: Option<Secret>,
}

/// How a node joins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinConfiguration {
    /// Nothing is changed.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// How the node registers.
    pub node_registration: NodeRegistrationOptions,
    /// Where the cluster's CA certificate goes.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_cert_path: String,
    /// How the cluster is found.
    pub discovery: Discovery,
    /// Present on control planes.
    #[serde(skip_serializing_if = "is_default")]
    pub control_plane: Option<JoinControlPlane>,
    /// Phases to leave out.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_phases: Vec<String>,
    /// Patches for the manifests.
    #[serde(skip_serializing_if = "is_default")]
    pub patches: Option<Patches>,
    /// Limits of waiting.
    pub timeouts: Timeouts,
}

/// How a node is taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetConfiguration {
    /// Whether /etc/kubernetes/tmp is emptied.
    #[serde(skip_serializing_if = "is_default")]
    pub cleanup_tmp_dir: bool,
    /// Directory of certificates and keys; /etc/kubernetes/pki when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub certificates_dir: String,
    /// Socket of the container runtime; found when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub cri_socket: String,
    /// Nothing is changed.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// No question is asked.
    #[serde(skip_serializing_if = "is_default")]
    pub force: bool,
    /// Preflight checks whose errors are only warnings.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_phases: Vec<String>,
    /// `MNT_FORCE`, `MNT_DETACH`, `MNT_EXPIRE`, `UMOUNT_NOFOLLOW`.
    #[serde(skip_serializing_if = "is_default")]
    pub unmount_flags: Vec<String>,
    /// Limits of waiting.
    pub timeouts: Timeouts,
}
