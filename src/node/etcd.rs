//! etcd's members, as kubeadm handles them (kubeadm.md sections 10.4 and 12): a joining control plane becomes a learner and
//! is promoted, a leaving one is taken out while the others keep their quorum.
//!
//! ```text
//! gateway     etcd's JSON gateway: members, status; one request to one endpoint
//! membership  what is to be done, decided from the list of members
//! cluster     the members of a running etcd, whichever of them answer
//! enter       doing it for a host that joins
//! leave       doing it for a host that is reset
//! ```

mod cluster;
mod enter;
#[cfg(test)]
pub(in crate::node) mod fake;
mod gateway;
mod leave;
mod membership;

pub(super) use self::enter::{Entrant, Limits, check, enter, promote};
pub(super) use self::leave::{Left, Manner, Trace, expel, leave};
pub(super) use self::membership::Owner;

use crate::kubernetes::configuration::{ApiEndpoint, join_host_port};

/// Port that etcd's clients use on a control plane.
const CLIENT_PORT: u16 = 2379;

/// Port that etcd's members use among themselves.
const PEER_PORT: u16 = 2380;

/// The URL that the other members reach a control plane's member by; it tells whose member one is.
pub(super) fn peer_url(local: &ApiEndpoint) -> String {
    format!("https://{}", join_host_port(&local.advertise_address, PEER_PORT))
}
