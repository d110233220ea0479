//! The only user of russh: authentication, known hosts, channels.
//!
//! ```text
//! connect       attempts until logged in or the limit has passed      (backoff, deadline)
//!   dial        name -> TCP -> greeting -> keys agreed                (link, watcher)
//!     host_key  what known_hosts says about the host's key            (known_hosts: pure; remember: append)
//!   login       keys, agent, password in a fixed order                (identity: key files)
//! Connection    exec, run, direct_tcpip, closed
//!   Channel     Writer and Reader of one command; Tunnel for one TCP stream
//! ```
//!
//! Every wait has a limit and ends at once when the link is lost: a [`Failure`](crate::failure::Failure) says in which
//! phase and what to do. russh's own `check_known_hosts` is not used: it accepts keys that a file marks as revoked.

mod authentication;
mod backoff;
mod channel;
mod connection;
mod deadline;
mod dial;
mod host_key;
mod identity;
mod known_hosts;
mod link;
mod login;
mod remember;
mod target;
mod tunnel;
mod watcher;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use channel::{Channel, Chunk, Exit, Output, Reader, Writer};
pub use connection::{Connection, connect};
pub use target::{Prompt, Target};
pub use tunnel::Tunnel;
