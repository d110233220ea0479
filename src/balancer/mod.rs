//! The built-in endpoint: a small TCP balancer on every node, in front of the API servers of all control planes.
//!
//! `cluster.endpoint: built-in` makes controlPlaneEndpoint [`BUILT_IN_ENDPOINT`](crate::inventory::BUILT_IN_ENDPOINT), a
//! port of every node's own loopback. `clusterctl balancer` listens there as a systemd unit. It is no static pod, because
//! a kubelet that asks for its first certificate starts no pods before it has it, and it asks through the endpoint; it is
//! no virtual address, because those need one network segment and fail in clouds.
//!
//! It passes bytes and takes no part in TLS: clients prove the API servers, and are proven, end to end. Which servers
//! there are stands in a file that is read again when it changes; which of them serve is found out all the time (`probe`,
//! `health`); `choose` decides between them; `serve` moves the bytes. `install` puts it all on a host.

mod choose;
mod health;
mod install;
mod list;
mod probe;
mod serve;
mod upstream;

pub use self::install::{UNIT, install};
pub use self::serve::serve;
