//! Facts: what was observed on a host, in one piece, so that planning can be a pure function of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything the laptop learns about a host in its first round trip. Untrusted input: sizes are bounded by the agent
/// client, and texts are cleaned before they are shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", default)]
pub struct Facts {
    /// `/etc/os-release`.
    pub system: OperatingSystem,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// Go's name of the architecture: `amd64`, `arm64`.
    pub architecture: String,
    /// Options the kernel was built with, of those Kubernetes needs, without `CONFIG_`; absent when its configuration is
    /// nowhere to be found.
    pub kernel_options: Option<Vec<String>>,
    /// Controllers of control groups that are there: `cpu`, `memory`, `pids`...
    pub cgroup_controllers: Vec<String>,
    /// Version of the control group hierarchy: 1 or 2; 0 if none is mounted.
    pub cgroup_version: u8,
    /// Whether PID 1 is systemd.
    pub systemd: bool,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// Usable CPUs.
    pub cpus: u32,
    /// Filesystems behind the paths Kubernetes fills.
    pub disks: Vec<Disk>,
    /// Addresses of all links that are up, loopback left out.
    pub addresses: Vec<LinkAddress>,
    /// Addresses of the loopback link, IPv4 first: one that is no loopback address serves hosts whose links have none.
    pub loopback_addresses: Vec<std::net::IpAddr>,
    /// Routes of the main table.
    pub routes: Vec<Route>,
    /// The host's own name, lower case.
    pub hostname: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Swap devices or files in use.
    pub swap: Vec<String>,
    /// Kernel modules that are loaded or built in, of those Kubernetes wants.
    pub modules: Vec<String>,
    /// The sysctls Kubernetes cares about, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Units Kubernetes cares about (kubelet, containerd, crio, docker, firewalld, ufw, systemd-resolved, nftables...).
    pub services: BTreeMap<String, Service>,
    /// TCP ports somebody listens on, with the process where it is known.
    pub listening: Vec<Listening>,
    /// What Kubernetes is there already.
    pub kubernetes: KubernetesState,
    /// A container runtime that clusterctl did not bring, if one is there.
    pub runtime: Option<Runtime>,
    /// Seconds since the epoch by the host's clock.
    pub clock_seconds: u64,
    /// Programs on PATH of those that matter (mount, ip, iptables, nft, conntrack, modprobe, losetup, cp, ethtool...).
    pub programs: Vec<String>,
}

/// Which distribution.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatingSystem {
    /// `debian`, `ubuntu`, `rocky`...
    pub id: String,
    /// `13`.
    pub version: String,
    /// `Debian GNU/Linux 13 (trixie)`.
    pub pretty_name: String,
}

/// A filesystem behind a path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// The path asked about (`/var/lib/containerd`, or its nearest parent that exists).
    pub path: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free for root, in bytes.
    pub free_bytes: u64,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkAddress {
    /// The link's name.
    pub link: String,
    /// The address with its prefix length.
    pub address: IpNet,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where to; `0.0.0.0/0` is the default route.
    pub destination: IpNet,
    /// Next hop, absent for a directly connected network.
    pub via: Option<IpAddr>,
    /// Through which link.
    pub link: String,
}

/// State of a systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Runs, or is starting.
    pub active: bool,
    /// Starts at boot.
    pub enabled: bool,
}

/// A listening TCP socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listening {
    /// The local address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Name of the process, where it could be found out.
    pub process: Option<String>,
}

/// A container runtime on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// `containerd`, `crio`.
    pub name: String,
    /// Path of its program.
    pub path: String,
    /// Its version: `2.3.7`; empty if it does not say.
    pub version: String,
    /// Whether clusterctl's journal says that we installed it.
    pub ours: bool,
    /// Whether its configuration leaves the interface on that the kubelet talks to: packages of Docker turn it off.
    #[serde(default = "is_on")]
    pub cri: bool,
}

fn is_on() -> bool {
    true
}

/// What Kubernetes is on a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesState {
    /// File names in /etc/kubernetes/manifests, without directory.
    pub manifests: Vec<String>,
    /// Whether /etc/kubernetes/kubelet.conf is there.
    pub kubelet_conf: bool,
    /// Whether /etc/kubernetes/bootstrap-kubelet.conf is there (a join under way or broken off).
    pub bootstrap_kubelet_conf: bool,
    /// Whether /etc/kubernetes/admin.conf is there.
    pub admin_conf: bool,
    /// Server of admin.conf: what the cluster's endpoint was when it was written.
    pub admin_server: Option<String>,
    /// How etcd's member here came to be, by its manifest; `None` without one.
    pub etcd: Option<EtcdOrigin>,
    /// Whether the API server of this host is ready and the cluster knows the host as a control plane: a member that is
    /// finished and works.
    pub serves: bool,
    /// SHA-256 of the SubjectPublicKeyInfo of /etc/kubernetes/pki/ca.crt, as `sha256:<hex>`.
    pub ca_hash: Option<String>,
    /// Whether /etc/kubernetes/pki/ca.key is there: without it somebody else keeps the CA.
    pub ca_key: bool,
    /// Server of kubelet.conf: `https://10.0.0.11:6443`.
    pub server: Option<String>,
    /// The version that the API server's manifest here names, without the `v`; `None` without one, and for images whose tag is none.
    pub api_server_version: Option<String>,
    /// `kubelet --version` without the `v`.
    pub kubelet_version: Option<String>,
    /// Whether /var/lib/etcd has anything in it.
    pub etcd_data: bool,
    /// The name of the cluster that clusterctl's journal was written for.
    pub journal_cluster: Option<String>,
}

/// How a member of etcd came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EtcdOrigin {
    /// With the cluster.
    Made,
    /// It joined members that were there.
    Joined,
}
