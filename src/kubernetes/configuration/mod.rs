//! kubeadm's configuration API, kubeadm.k8s.io/v1beta4 (kubeadm.md section 13): types, loading, defaults, validation.

mod cluster;
mod default;
mod duration;
mod init;
mod join;
mod judge;
mod load;
mod migrate;
mod print;
mod repository;
mod shape;
mod upgrade;
mod validation;
mod validity;
#[cfg(test)]
mod verdict_tests;
mod write;

pub use cluster::{
    ApiServer, Arg, ClusterConfiguration, ControlPlaneComponent, Dns, EnvVar, Etcd, ExternalEtcd, HostPathMount,
    LocalEtcd, Networking, Proxy,
};
pub use default::{HostDefaults, control_plane_taint};
pub(crate) use default::{is_global_unicast, join_host_port};
pub use duration::Duration;
pub use init::{ApiEndpoint, BootstrapToken, InitConfiguration, NodeRegistrationOptions, Patches, Taint, Timeouts};
pub use join::{
    BootstrapTokenDiscovery, Discovery, FileDiscovery, JoinConfiguration, JoinControlPlane, ResetConfiguration,
};
pub use judge::{Judged, judge};
pub use load::{Documents, documents, load};
pub use migrate::{Migrated, migrate};
pub use print::{init_defaults, join_defaults, reset_defaults, upgrade_defaults};
pub use upgrade::{UpgradeApply, UpgradeConfiguration, UpgradeDiff, UpgradeNode, UpgradePlan};
pub(crate) use validation::is_subject_name;
pub use validation::{Subnets, host_and_port, network_address, subnets};

/// Whether a value is its type's default; such fields are left out, as upstream's `omitempty` does.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
