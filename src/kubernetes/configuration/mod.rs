//! kubeadm's configuration API, kubeadm.k8s.io/v1beta4 (kubeadm.md section 13): types, loading, defaults, validation.

mod cluster;
mod default;
mod duration;
mod init;
mod join;
mod load;
mod older;
mod shape;
mod validation;
mod write;

pub use cluster::{
    ApiServer, Arg, ClusterConfiguration, ControlPlaneComponent, Dns, EnvVar, Etcd, ExternalEtcd, HostPathMount,
    LocalEtcd, Networking, Proxy,
};
pub(crate) use default::join_host_port;
pub use default::{HostDefaults, control_plane_taint};
pub use duration::Duration;
pub use init::{ApiEndpoint, BootstrapToken, InitConfiguration, NodeRegistrationOptions, Patches, Taint, Timeouts};
pub use join::{
    BootstrapTokenDiscovery, Discovery, FileDiscovery, JoinConfiguration, JoinControlPlane, ResetConfiguration,
};
pub use load::{Documents, documents, load};
pub(crate) use validation::is_subject_name;
pub use validation::{Subnets, host_and_port, network_address, subnets};

/// Whether a value is its type's default; such fields are left out, as upstream's `omitempty` does.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
