//! UpgradeConfiguration (kubeadm.md section 13.5).

use serde::{Deserialize, Serialize};

use super::init::{Patches, Timeouts};
use super::is_default;

/// How a cluster is upgraded, from its first control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeApply {
    /// The version to upgrade to.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes_version: String,
    /// Whether alpha and beta versions may be upgraded to.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_experimental_upgrades: Option<bool>,
    /// Whether release candidates may be upgraded to.
    #[serde(rename = "allowRCUpgrades", skip_serializing_if = "is_default")]
    pub allow_rc_upgrades: Option<bool>,
    /// Whether certificates are renewed; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate_renewal: Option<bool>,
    /// Nothing is changed.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: Option<bool>,
    /// Whether etcd is upgraded, too; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub etcd_upgrade: Option<bool>,
    /// No question is asked and some rules are broken.
    #[serde(skip_serializing_if = "is_default")]
    pub force_upgrade: Option<bool>,
    /// Preflight checks whose errors are only warnings.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_preflight_errors: Vec<String>,
    /// Patches for what is made.
    #[serde(skip_serializing_if = "is_default")]
    pub patches: Option<Patches>,
    /// The configuration is printed.
    #[serde(skip_serializing_if = "is_default")]
    pub print_config: Option<bool>,
    /// Phases to leave out.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_phases: Vec<String>,
    /// `IfNotPresent`, `Always`, `Never`.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_policy: String,
    /// Whether images are pulled one after the other; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_serial: Option<bool>,
}

/// How another node is upgraded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeNode {
    /// Whether certificates are renewed; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate_renewal: Option<bool>,
    /// Nothing is changed.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: Option<bool>,
    /// Whether etcd is upgraded, too; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub etcd_upgrade: Option<bool>,
    /// Preflight checks whose errors are only warnings.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_phases: Vec<String>,
    /// Patches for what is made.
    #[serde(skip_serializing_if = "is_default")]
    pub patches: Option<Patches>,
    /// `IfNotPresent`, `Always`, `Never`.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_policy: String,
    /// Whether images are pulled one after the other; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_serial: Option<bool>,
}

/// What `upgrade plan` looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradePlan {
    /// The version to upgrade to.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes_version: String,
    /// Whether alpha and beta versions are shown.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_experimental_upgrades: Option<bool>,
    /// Whether release candidates are shown.
    #[serde(rename = "allowRCUpgrades", skip_serializing_if = "is_default")]
    pub allow_rc_upgrades: Option<bool>,
    /// Nothing is changed.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: Option<bool>,
    /// Whether etcd is looked at, too; true when absent.
    #[serde(skip_serializing_if = "is_default")]
    pub etcd_upgrade: Option<bool>,
    /// Preflight checks whose errors are only warnings.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_preflight_errors: Vec<String>,
    /// The configuration is printed.
    #[serde(skip_serializing_if = "is_default")]
    pub print_config: Option<bool>,
}

/// What `upgrade diff` compares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeDiff {
    /// The version to compare with.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes_version: String,
    /// Lines around a difference.
    #[serde(rename = "contextLines", skip_serializing_if = "is_default")]
    pub context_lines: u32,
}

/// How kubeadm upgrades. Read so that it can be judged; used by nothing yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeConfiguration {
    /// For `upgrade apply`.
    pub apply: UpgradeApply,
    /// For `upgrade diff`.
    pub diff: UpgradeDiff,
    /// For `upgrade node`.
    pub node: UpgradeNode,
    /// For `upgrade plan`.
    pub plan: UpgradePlan,
    /// Limits of waiting.
    pub timeouts: Timeouts,
}
