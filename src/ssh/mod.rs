//! The only user of russh: authentication, known hosts, channels.
//!
//! ```text
//! configuration inventory and ssh_config -> Target                    (config: ssh_config itself)
//! connect       attempts until logged in or the limit has passed      (backoff, deadline)
//!   wire        TCP, a bastion's channel or a command                 (bastion: shared; local: commands)
//!   dial        greeting -> keys agreed                               (proposal, link, watcher)
//!     host_key  what known_hosts says about the host's key            (known_hosts, certificate, revocation: pure;
//!                                                                   lookup: where lines come from; remember: append)
//!   login       keys, agent, password in a fixed order                (identity: key files; signer)
//! revival       a lost link made again for whoever needs it next
//! scan          the keys that a host shows, for a person to compare
//! Connection    exec, run, terminal, direct_tcpip, closed
//!   Channel     Writer and Reader of one command; Tunnel for one TCP stream     (half; openssh: the user's own ssh instead)
//! ```
//!
//! Every wait has a limit and ends at once when the link is lost: a [`Failure`](crate::failure::Failure) says in which
//! phase and what to do. russh's own `check_known_hosts` is not used: it accepts keys that a file marks as revoked.

mod authentication;
mod backoff;
mod bastion;
mod certificate;
mod channel;
mod config;
mod configuration;
mod connection;
mod deadline;
mod dial;
mod half;
mod host_key;
mod identity;
mod known_hosts;
mod link;
mod local;
mod login;
mod lookup;
mod openssh;
mod output;
mod proposal;
mod remember;
mod revival;
mod revocation;
mod scan;
mod signer;
mod target;
mod terminal;
mod tunnel;
mod watcher;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use channel::{Channel, Reader, Writer};
pub use configuration::Configuration;
pub use connection::{Connection, by_openssh, connect, connect_lasting};
pub use identity::Unlocked;
pub use openssh::settle_by_openssh;
pub use output::{Chunk, Exit, Output};
pub use scan::{Known, Shown, pin, scan};
pub use target::{Family, Prompt, Target};
pub use terminal::Terminal;
pub use tunnel::Tunnel;
