//! What to connect to and how: everything of an inventory host that SSH needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::inventory::{Host, HostKeys};
use crate::secret::Secret;

/// One host to connect to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The host's name in the inventory; every failure carries it.
    pub name: String,
    /// IP address or DNS name that is dialled; also the name looked up in known_hosts.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// Private key files in the order to try; empty means the agent and the usual files of ~/.ssh.
    pub identities: Vec<PathBuf>,
    /// Whether a running ssh-agent is asked.
    pub agent: bool,
    /// The login password, when it is known already.
    pub password: Option<Secret>,
    /// known_hosts files, the user's first: that one is written to by [`HostKeys::AcceptNew`].
    pub known_hosts: Vec<PathBuf>,
    /// What to do about an unknown host key.
    pub host_keys: HostKeys,
    /// Longest time to connect and log in, without the time a person takes to type.
    pub connect_limit: Duration,
}

impl Target {
    /// The target of an inventory host, with its login password when one was configured and found out.
    pub fn from_host(host: &Host, password: Option<Secret>) -> Self {
        Self {
            name: host.name.clone(),
            address: host.address.clone(),
            port: host.ssh.port,
            user: host.ssh.user.clone(),
            identities: host.ssh.identities.clone(),
            agent: host.ssh.agent,
            password,
            known_hosts: host.ssh.known_hosts.clone(),
            host_keys: host.ssh.host_keys,
            connect_limit: Duration::from_secs(host.ssh.connect_limit_seconds),
        }
    }

    /// How a person reads the place: `10.0.0.11` or `10.0.0.11 port 2222`.
    pub(super) fn place(&self) -> String {
        if self.port == 22 { self.address.clone() } else { format!("{} port {}", self.address, self.port) }
    }

    /// `ssh`'s arguments for the same host, for advice: `-p 2222 ops@10.0.0.11`.
    pub(super) fn ssh_arguments(&self) -> String {
        let destination = format!("{}@{}", self.user, self.address);
        if self.port == 22 { destination } else { format!("-p {} {destination}", self.port) }
    }
}

/// Asks a person. Called from several connections at once: whoever implements it asks one thing at a time and remembers
/// the answers, so that ten hosts with one password ask once.
///
/// Both may block; `None` means that nobody can be asked or nothing was typed.
pub trait Prompt: Send + Sync {
    /// The passphrase of a private key file. Asked only after the host has said that it accepts the key.
    fn passphrase(&self, file: &Path) -> Option<Secret>;

    /// The login password of `user` on `host` (the inventory name). Asked only when the host allows passwords and no
    /// key was accepted.
    fn password(&self, user: &str, host: &str) -> Option<Secret>;
}
