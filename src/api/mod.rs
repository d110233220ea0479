//! The only user of kube: a client for one API server, create-or-update, nodes and pods as a person sees them, waiting.
//!
//! Objects are JSON documents here: the builders of `kubernetes` make them, upstream's names are kept, and no typed copy
//! of the API has to follow each Kubernetes version. Every request has a time limit, every answer a size limit.

mod access;
mod awaited;
mod client;
mod drain;
mod nodes;
mod pods;
mod probe;
mod problem;
mod rehearsal;
mod resource;
pub mod wait;
mod write;

#[cfg(test)]
pub(crate) mod fake;

pub use self::access::{Access, Identity, Trust};
pub use self::awaited::{Awaited, Behind, Missing, READY};
pub use self::client::Client;
pub use self::drain::drain;
pub use self::nodes::{NodeStatus, delete_node, label_node, node, nodes};
pub use self::pods::{PodStatus, pods};
pub use self::probe::Probes;
pub use self::problem::Problem;
pub use self::rehearsal::{Rehearsal, Written};
pub use self::write::{Outcome, create_or_update, create_or_update_all};
