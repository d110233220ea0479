//! The inventory after loading: defaults filled in, references resolved, everything valid.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// A whole inventory.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// The file it was read from.
    pub path: PathBuf,
    /// What cluster the hosts shall be.
    pub cluster: Cluster,
    /// The hosts in the order they were written.
    pub hosts: Vec<Host>,
    /// How bytes get to the hosts.
    pub transfer: Transfer,
}

impl Inventory {
    /// The control planes in inventory order.
    pub fn control_planes(&self) -> impl Iterator<Item = &Host> + Clone {
        self.hosts.iter().filter(|host| host.role == Role::ControlPlane)
    }

    /// The workers in inventory order.
    pub fn workers(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.role == Role::Worker)
    }
}

/// The `cluster:` part.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// A DNS label; names the kubeconfig and the records on the hosts.
    pub name: String,
    /// Kubernetes version without `v`: `1.36.3`.
    pub kubernetes: semver::Version,
    /// What all nodes reach the API by; the first control plane's address when absent.
    pub endpoint: Option<Endpoint>,
    /// Networks and the plugin.
    pub network: Network,
    /// kubeadm documents, passed through: the text of the file named by `kubeadm:` or written inline. `None` if absent.
    pub kubeadm: Option<KubeadmDocuments>,
    /// Bundle file or folder; absolute, resolved against the inventory's folder.
    pub bundle: Option<PathBuf>,
    /// Settings of the container runtime.
    pub containerd: Containerd,
    /// Names of checks whose errors only warn; `all`.
    pub ignore_checks: Vec<String>,
    /// The CA of a cluster that another tool made and that is taken over: `sha256:<hex>` over its public key.
    pub adopt: Option<String>,
}

/// The `transfer:` part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Whether hosts hand blobs on to each other.
    pub relay: RelayUse,
    /// Bytes a second that leave this machine at most; `None` for no limit.
    pub bandwidth: Option<u64>,
    /// How many blobs leave this machine at a time at most; default 16.
    pub uploads: usize,
    /// Where blobs come from.
    pub fetch: Fetch,
    /// Where hosts that download take releases from instead of the official servers: `NAME=URL`.
    pub mirrors: Vec<String>,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { relay: RelayUse::Auto, bandwidth: None, uploads: 16, fetch: Fetch::Bundle, mirrors: Vec::new() }
    }
}

/// Where blobs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fetch {
    /// From a bundle on this machine.
    Bundle,
    /// Hosts download the official releases themselves.
    OnHost,
}

/// Whether hosts hand blobs on to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayUse {
    /// Where it saves time.
    Auto,
    /// Always, where there are two hosts or more.
    On,
    /// Never.
    Off,
}

/// What all nodes reach the API by, whichever control plane is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port` of what the user has: a load balancer, a virtual address, a DNS name.
    Address(String),
    /// A balancer of ours on every node.
    BuiltIn,
}

/// Where the built-in balancer of a node listens.
pub const BUILT_IN_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6444);

impl Endpoint {
    /// `host:port`, as kubeadm's controlPlaneEndpoint.
    pub fn address(&self) -> String {
        match self {
            Self::Address(address) => address.clone(),
            Self::BuiltIn => BUILT_IN_ENDPOINT.to_string(),
        }
    }
}

impl std::fmt::Display for Endpoint {
    /// As it is written in an inventory.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => formatter.write_str(address),
            Self::BuiltIn => formatter.write_str("built-in"),
        }
    }
}

/// kubeadm documents a person wrote, with where they stand, for messages.
#[derive(Debug, Clone, PartialEq)]
pub struct KubeadmDocuments {
    /// The YAML text, one or more documents.
    pub text: String,
    /// The file it stands in.
    pub path: PathBuf,
    /// The line of the file the text starts at, counted from 1.
    pub line: usize,
}

/// `cluster.network`.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Pod network; default 10.244.0.0/16.
    pub pods: IpNet,
    /// Service network; default 10.96.0.0/12.
    pub services: IpNet,
    /// Who makes the pod network; default `bridge`.
    pub plugin: NetworkPlugin,
    /// DNS domain of the cluster; default cluster.local.
    pub domain: String,
}

/// Who makes the pod network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkPlugin {
    /// Ours: the CNI bridge plugin with routes between the hosts.
    Bridge,
    /// The user brings one.
    None,
}

/// `cluster.containerd`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Containerd {
    /// Do not let containers be less likely killed than containerd itself (needed where CAP_SYS_RESOURCE is missing).
    pub restrict_oom_score_adj: bool,
}

/// One machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Name in the inventory; also the node's name unless kubeadm documents say otherwise. RFC 1123.
    pub name: String,
    /// What SSH connects to: address or name; the host's name when absent.
    pub address: String,
    /// The address the cluster knows the node by; `address` when that is an IP address, else found out from the facts.
    pub node_address: Option<IpAddr>,
    /// What it becomes.
    pub role: Role,
    /// Labels for the node.
    pub labels: BTreeMap<String, String>,
    /// Groups it belongs to, for selectors; Kubernetes does not hear of them.
    pub groups: BTreeSet<String>,
    /// Taints for the node; `None` leaves kubeadm's default.
    pub taints: Option<Vec<Taint>>,
    /// How to reach it: defaults of `ssh:` with the host's own `ssh:` over them.
    pub ssh: Ssh,
    /// Line of the host in the file, counted from 1; for messages.
    pub line: usize,
}

/// What a host becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the API server, etcd and the controllers.
    ControlPlane,
    /// Runs workloads.
    Worker,
}

/// A taint, as `key=value:effect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    pub value: String,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

/// `ssh:` after merging.
#[derive(Debug, Clone, PartialEq)]
pub struct Ssh {
    /// The keys of `ssh:` that somebody wrote, here or as an option; the others have their defaults, for which
    /// ~/.ssh/config may have something better.
    pub written: BTreeSet<&'static str>,
    /// Login name; the local user's name when absent.
    pub user: String,
    /// TCP port; default 22.
    pub port: u16,
    /// The bastions on the way, the one that is reached from here first; empty for none.
    pub jump: Vec<Hop>,
    /// Fingerprints (`SHA256:...`) that the host's key must have one of; when empty, known_hosts decides.
    pub host_key: Vec<String>,
    /// Private key files, `~` expanded; empty means the agent and the usual files in ~/.ssh.
    pub identities: Vec<PathBuf>,
    /// Whether a running ssh-agent is asked; default true.
    pub agent: bool,
    /// Where the login password comes from, if one is used.
    pub password: Option<SecretSource>,
    /// How to become root.
    pub become_root: Become,
    /// Where the password of `become_root` comes from, if one is needed; the login password's source when absent.
    pub become_password: Option<SecretSource>,
    /// known_hosts files; default ~/.ssh/known_hosts, and /etc/ssh/ssh_known_hosts read only.
    pub known_hosts: Vec<PathBuf>,
    /// What to do about an unknown host key.
    pub host_keys: HostKeys,
    /// Longest time to connect and log in, in seconds; default 20.
    pub connect_limit_seconds: u64,
}

impl Ssh {
    /// Whether somebody wrote this key of `ssh:`.
    pub fn is_written(&self, key: &str) -> bool {
        self.written.contains(key)
    }
}

/// A bastion: `[user@]host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The user, if one is written; else ~/.ssh/config decides, else it is the local user.
    pub user: Option<String>,
    /// What would be typed after `ssh`.
    pub host: String,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl std::fmt::Display for Hop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(user) = &self.user {
            write!(formatter, "{user}@")?;
        }
        match (self.port, self.host.contains(':')) {
            (None, _) => write!(formatter, "{}", self.host),
            (Some(port), false) => write!(formatter, "{}:{port}", self.host),
            (Some(port), true) => write!(formatter, "[{}]:{port}", self.host),
        }
    }
}

/// How to become root on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Become {
    /// The login user is root already.
    None,
    /// `sudo`, with a password when it asks for one.
    Sudo,
    /// `doas`, with a password when it asks for one.
    Doas,
}

/// Where a password comes from. Never argv, never the inventory itself.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretSource {
    /// Asked once on the terminal.
    Ask,
    /// First line of a file that only its owner may read.
    File(PathBuf),
    /// First line that a command prints; run once, by `sh -c`.
    Command(String),
    /// Known already.
    Known(Secret),
}

/// What to do about an unknown host key; a changed or revoked key is refused by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeys {
    /// Refuse.
    Strict,
    /// Accept and remember.
    AcceptNew,
}
