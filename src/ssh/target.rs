//! What to connect to and how: everything that SSH needs of an inventory host and of what ssh_config says about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::inventory::HostKeys;
use crate::secret::Secret;

use super::bastion::WeakBastions;
use super::config::Algorithms;
use super::identity::Unlocked;

/// The default port.
pub(super) const PORT: u16 = 22;
/// A silent host is asked whether it lives this often...
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// ...and given up after so many questions without an answer.
const KEEPALIVES: usize = 3;

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
    /// Certificate files besides those that stand beside the keys.
    pub certificates: Vec<PathBuf>,
    /// Whether nothing but the key files is offered, even if an agent holds more.
    pub identities_only: bool,
    /// Whether a running ssh-agent is asked.
    pub agent: bool,
    /// The agent's socket; that of the environment when absent.
    pub agent_socket: Option<PathBuf>,
    /// The login password, when it is known already.
    pub password: Option<Secret>,
    /// Ways to log in, most wanted first: `publickey`, `keyboard-interactive`, `password`.
    pub ways: Vec<String>,
    /// Whether a person may be asked for passphrases and passwords.
    pub ask: bool,
    /// known_hosts files, the user's first: that one is written to by [`HostKeys::AcceptNew`].
    pub known_hosts: Vec<PathBuf>,
    /// A command that prints more lines of known_hosts, as words in which the tokens of a look-up still stand.
    pub(super) known_hosts_command: Option<Vec<String>>,
    /// A list of keys that no host may have.
    pub revoked_host_keys: Option<PathBuf>,
    /// Whether the first of the known_hosts files is the user's own and may be written to.
    pub remembers: bool,
    /// Whether the names of hosts are hashed when a key is remembered.
    pub hash_known_hosts: bool,
    /// The name looked up in known_hosts instead of address and port.
    pub host_key_alias: Option<String>,
    /// Fingerprints the host's key must have one of; when empty, known_hosts decides.
    pub host_key_pins: Vec<String>,
    /// What to do about an unknown host key.
    pub host_keys: HostKeys,
    /// Longest time to connect and log in, without the time a person takes to type.
    pub connect_limit: Duration,
    /// Longest time until keys are agreed; the whole limit when absent.
    pub dial_limit: Option<Duration>,
    /// How often a silent host is asked whether it lives, and how many questions may stay without an answer.
    pub keepalive: (Duration, usize),
    /// Lists of algorithms as ssh_config writes them.
    pub(super) algorithms: Algorithms,
    /// Addresses of this family only.
    pub family: Option<Family>,
    /// The address here that connections come from.
    pub bind_address: Option<String>,
    /// Variables for commands on the host, which sshd must accept (AcceptEnv).
    pub environment: Vec<(String, String)>,
    /// How the host is reached.
    pub(super) route: Route,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
}

/// How a host is reached.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// By TCP from here.
    Direct,
    /// Through a bastion, which has a route of its own.
    Through {
        /// The bastion next to the host.
        bastion: Arc<Target>,
        /// Where connections to bastions are shared.
        shared: WeakBastions,
    },
    /// Through the input and output of a command.
    Command(String),
}

impl Target {
    /// A target with nothing but defaults: known by no file, reached directly.
    pub(super) fn plain(name: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            port: PORT,
            user: String::new(),
            identities: Vec::new(),
            certificates: Vec::new(),
            identities_only: false,
            agent: true,
            agent_socket: None,
            password: None,
            ways: ["publickey", "keyboard-interactive", "password"].map(str::to_owned).to_vec(),
            ask: true,
            known_hosts: Vec::new(),
            known_hosts_command: None,
            revoked_host_keys: None,
            remembers: true,
            hash_known_hosts: false,
            host_key_alias: None,
            host_key_pins: Vec::new(),
            host_keys: HostKeys::Strict,
            connect_limit: Duration::from_secs(20),
            dial_limit: None,
            keepalive: (KEEPALIVE, KEEPALIVES),
            algorithms: Algorithms::default(),
            family: None,
            bind_address: None,
            environment: Vec::new(),
            route: Route::Direct,
        }
    }

    /// How a person reads the place: `10.0.0.11`, `10.0.0.11 port 2222 through bastion`.
    pub(super) fn place(&self) -> String {
        let here = self.own_place();
        match &self.route {
            Route::Direct => here,
            Route::Through { bastion, .. } => format!("{here} through {}", bastion.own_place()),
            Route::Command(_) => format!("{here} through its ProxyCommand"),
        }
    }

    /// The place without the way to it.
    pub(super) fn own_place(&self) -> String {
        if self.port == PORT { self.address.clone() } else { format!("{} port {}", self.address, self.port) }
    }

    /// `ssh`'s arguments for the same host, for advice: `-p 2222 ops@10.0.0.11`.
    pub(super) fn ssh_arguments(&self) -> String {
        let destination = format!("{}@{}", self.user, self.address);
        let port = if self.port == PORT { String::new() } else { format!("-p {} ", self.port) };
        match &self.route {
            Route::Through { .. } => {
                let hops: Vec<String> = self.bastions().iter().rev().map(|bastion| bastion.login()).collect();
                format!("-J {} {port}{destination}", hops.join(","))
            }
            Route::Direct | Route::Command(_) => format!("{port}{destination}"),
        }
    }

    /// `ops@10.0.0.11` or `ops@10.0.0.11:2222`.
    pub(super) fn login(&self) -> String {
        match (self.port, self.address.contains(':')) {
            (PORT, _) => format!("{}@{}", self.user, self.address),
            (port, false) => format!("{}@{}:{port}", self.user, self.address),
            (port, true) => format!("{}@[{}]:{port}", self.user, self.address),
        }
    }

    /// How long a host may be silent: the interval after the last question passes, too, as with OpenSSH.
    pub(super) fn patience(&self) -> Duration {
        let (interval, count) = self.keepalive;
        interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// The bastions on the way, the one next to the host first.
    pub fn bastions(&self) -> Vec<Arc<Target>> {
        let (mut all, mut route) = (Vec::new(), &self.route);
        while let Route::Through { bastion, .. } = route {
            all.push(Arc::clone(bastion));
            route = &bastion.route;
        }
        all
    }

    /// The name and port looked up in known_hosts.
    pub(super) fn known_as(&self) -> (&str, u16) {
        match &self.host_key_alias {
            Some(alias) => (alias, PORT),
            None => (&self.address, self.port),
        }
    }
}

/// Asks a person. Called from several connections at once: whoever implements it asks one thing at a time and remembers
/// passwords, so that ten hosts with one password ask once.
///
/// All may block; `None` means that nobody can be asked or nothing was typed.
pub trait Prompt: Send + Sync {
    /// The passphrase of a private key file, `again` where the last answer was wrong. Asked only after a host has said
    /// that it accepts the key.
    fn passphrase(&self, file: &Path, again: bool) -> Option<Secret>;

    /// Where keys are kept that were unlocked with passphrases of this person.
    fn unlocked(&self) -> &Unlocked;

    /// The login password of `user` on `host` (the inventory name). Asked only when the host allows passwords and no
    /// key was accepted.
    fn password(&self, user: &str, host: &str) -> Option<Secret>;

    /// The answer to another question that `host` asks `user` while logging in, such as a code, which must not be
    /// remembered: it is good for one login. `question` is untrusted.
    fn answer(&self, _user: &str, _host: &str, _question: &str) -> Option<Secret> {
        None
    }
}
