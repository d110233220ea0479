//! kubeadm's phases on one host: init, join, reset; preflight checks; the pod network.

mod defaults;
mod diagnosis;
mod etcd;
mod files;
mod health;
mod images;
mod init;
mod join;
mod kubelet;
mod network;
mod phase;
pub mod phases;
mod preflight;
mod reset;
mod serves;
mod sysctls;
mod unit;

pub use self::images::fetch as fetch_images;
pub use self::init::{certify, complete, init, init_by_hand};
pub use self::join::join;
pub use self::network::network;
pub use self::preflight::{Finding, Plan, Purpose, Severity, preflight};
pub use self::reset::reset;
pub use self::serves::serves;
