//! kubeadm's phases on one host: init, join, reset; preflight checks; the pod network.

mod diagnosis;
mod files;
mod health;
mod network;
mod preflight;
mod reset;
mod unit;

pub use self::network::network;
pub use self::preflight::{Finding, Plan, Purpose, Severity, preflight};
pub use self::reset::reset;
