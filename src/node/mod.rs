//! kubeadm's phases on one host: init, join, reset; preflight checks; the pod network.

pub mod certs;
mod defaults;
mod diagnosis;
mod etcd;
mod files;
mod health;
mod images;
mod init;
mod join;
mod kubelet;
mod manifest;
mod network;
mod patches;
mod phase;
pub mod phases;
mod preflight;
mod rehearse;
mod reset;
mod serves;
mod sysctls;
pub mod token;
mod unit;
mod user_kubeconfig;

pub use self::defaults::completed;
pub use self::images::fetch as fetch_images;
pub use self::init::{ByHand, addon_manifests, begin, complete, init, init_by_hand, rehearse_init};
pub use self::join::{join, join_by_hand, rehearse_join};
pub use self::network::network;
pub(crate) use self::preflight::kernel_options;
pub use self::preflight::{Finding, Plan, Purpose, Severity, preflight};
pub use self::rehearse::Rehearsed;
pub use self::reset::{rehearse as rehearse_reset, remove_lost_member, reset};
pub use self::serves::serves;
pub use self::user_kubeconfig::{UserKubeconfig, user_kubeconfig};
