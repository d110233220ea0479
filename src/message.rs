//! What laptop and agent say to each other: one JSON document a line, on the agent's stdin and stdout.
//!
//! Both ends are the same file (the upload is checked by its hash), so the types need no versions.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Awaited, Behind};
use crate::change::Change;
use crate::event::What;
use crate::fact::Facts;
use crate::failure::Failure;
use crate::host::measure::Measure;
use crate::host::reach::{Dial, Listen};
use crate::secret::Secret;

/// No line may be longer, in bytes: facts and kubeconfigs are a few KiB, a play a few hundred.
pub const MAXIMUM_LINE_BYTES: usize = 16 << 20;

/// A request under a number; the answer carries the same number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// Counts up from 1 within a connection.
    pub id: u64,
    /// What is wanted.
    pub request: Request,
}

/// What the laptop asks of an agent. The type of the answer is named at each variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Request {
    /// Observe everything: [`Facts`].
    Facts,
    /// Take the host's lock for this run, or say who holds it: [`Locked`].
    Lock(LockOrder),
    /// A sign of life of the laptop, while it holds the lock: `()`.
    Alive,
    /// Keep a listing of the host beside the journal, before anything is altered; where that was done, or it is too late,
    /// nothing happens: `bool`, whether it was kept.
    Remember,
    /// After [`Request::Restore`]: what is on the host that was not there before the first change, and what is missing:
    /// `Option<Vec<String>>`, nothing where no listing was kept. One that was not answered may be sent again by another run.
    Residue,
    /// Which of these blobs the host lacks: `Vec<String>` of their sha256.
    Lacking {
        /// What is wanted on the host.
        blobs: Vec<Wanted>,
    },
    /// Download the official releases on the host itself: [`crate::bundle::Manifest`] of what it has then.
    Fetch(crate::agent::FetchOrder),
    /// What a former [`Request::Fetch`] brought, if all of it is still there: `Option<`[`crate::bundle::Manifest`]`>`.
    Fetched(crate::agent::FetchOrder),
    /// What of it this host could not download: `Vec<`[`Failure`]`>`.
    Unavailable(crate::agent::FetchOrder),
    /// Open a port to hand blobs on to other hosts of the run: its `SocketAddr`.
    Relay(crate::agent::relay::RelayOrder),
    /// Close that port: `()`.
    EndRelay,
    /// Put files that were received into place: `u32`, how many.
    Place {
        /// What was received.
        blobs: Vec<Wanted>,
    },
    /// Several requests, one after the other, up to the first that fails: `Vec<Value>`, their answers in order. What needs no
    /// word of the laptop in between costs one round trip.
    Sequence {
        /// The requests.
        requests: Vec<Request>,
    },
    /// Run a play: [`PlayReport`].
    Play(PlayOrder),
    /// Make what the first control plane needs no image for, while its images still arrive: [`Begun`].
    Begin(InitOrder),
    /// Make the first control plane, until hosts can join: [`Initialised`].
    Init(InitOrder),
    /// What `init` leaves for when all images are there: add-ons, and all components healthy: `u32`, the number of
    /// changes.
    Complete(InitOrder),
    /// Join this host: [`Joined`].
    Join(JoinOrder),
    /// Bring a node to what the cluster's configuration says now: `u32`, the number of changes.
    Refresh(RefreshOrder),
    /// Say what these requests would alter, one after the other, and alter nothing: `Vec<Foreseen>`, one for each.
    Rehearse(RehearseOrder),
    /// Put the balancer on this host that leads to all API servers: `u32`, the number of changes.
    Balancer(BalancerOrder),
    /// Set up the pod network on this host: `u32`, the number of changes.
    Network(NetworkOrder),
    /// The same as soon as the join that was asked for before it is done: `Option<u32>`, nothing where there was none or where it
    /// did not see a pod network of the Node.
    OwnNetwork(OwnNetwork),
    /// On a control plane: have kubelets look at system pods that are not ready, until [`Request::Settle`] does: `()`. Where none
    /// comes, the marks this leaves on pods go with the agent.
    Probe,
    /// On a control plane: wait until a cluster is ready, and label nodes: [`Settled`]. How far it is is told as
    /// [`Reply::OfRun`].
    Settle(SettleOrder),
    /// Add to a failure what logs of this host say of it: [`Failure`].
    Explain {
        /// What is to be explained.
        failure: Failure,
        /// Containers of kube-system that are concerned; the kubelet always is.
        components: Vec<String>,
    },
    /// Undo kubeadm's part: `u32`, the number of changes.
    Reset(ResetOrder),
    /// On a control plane that stays: take the etcd member of a host that is lost out: `u32`, the number of changes.
    RemoveLostMember(LostMember),
    /// Put back what the journal recorded and remove everything of ours: `u32`, the number of changes.
    Restore,
    /// Measure what facts do not tell: [`Measured`](crate::host::measure::Measured).
    Measure(Measure),
    /// Listen on ports until the next such request or the end of the connection; no ports end it: `Vec<(Transport, u16)>`,
    /// those that could be taken.
    Listen(Listen),
    /// Dial ports of other hosts: `Vec<Dialled>`, in their order.
    Dial {
        /// The ports.
        targets: Vec<Dial>,
    },
    /// Run a program and return what it printed: [`Ran`].
    Run(RunOrder),
    /// The text of a file of the cluster that the laptop may keep: the admin kubeconfig: [`Secret`].
    AdminKubeconfig,
}

/// Who holds a host's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// `user@machine` of the laptop.
    pub who: String,
    /// What it does: `up`.
    pub verb: String,
    /// Since when, seconds since the epoch by the laptop's clock.
    pub since_seconds: u64,
    /// The cluster's name; it goes into the journal.
    pub cluster: String,
    /// Another number for each run: an agent of the same run whose connection was lost makes room. Empty: it never does.
    #[serde(default)]
    pub run: String,
}

/// The lock of a host for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockOrder {
    /// Who takes it.
    pub holder: Holder,
    /// How long to wait for another run's end, in milliseconds.
    pub patience_milliseconds: u64,
}

/// The lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Another run ended only now: what was observed before may be different.
    pub waited: bool,
}

/// A blob that should be on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// SHA-256 of its content, hex.
    pub sha256: String,
    /// Size of its content in bytes.
    pub size: u64,
    /// Where it belongs.
    pub place: Place,
}

/// Where a blob belongs on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "kebab-case")]
pub enum Place {
    /// A file.
    File {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Images in the container runtime.
    Images {
        /// The references the archive brings.
        references: Vec<String>,
    },
}

/// A play to run: the whole of it, with everything its tasks refer to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlayOrder {
    /// The play.
    pub play: crate::playbook::Play,
    /// Variables that templates and conditions see, besides `facts`.
    pub variables: BTreeMap<String, Value>,
    /// Texts of the template and source files the play names, by the name it uses.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What would change is reported, nothing is altered.
    pub dry_run: bool,
    /// The step that the host makes of it; without one whoever asks does.
    #[serde(default)]
    pub step: Option<PlayStep>,
}

/// A step that is a play.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayStep {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
}

/// What a play did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlayReport {
    /// Changes, in order, one line each.
    pub changes: Vec<String>,
}

/// `init` on the first control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InitOrder {
    /// kubeadm documents: InitConfiguration, ClusterConfiguration and, if wanted, KubeletConfiguration and
    /// KubeProxyConfiguration. Secret because it holds the bootstrap token.
    pub configuration: Secret,
    /// Whether hosts are waiting to join: without it no bootstrap token is made, and the ticket is absent.
    pub issue_ticket: bool,
    /// Whether control planes are waiting to join: the certificates all control planes share are uploaded under a fresh
    /// key (or `certificateKey` of the InitConfiguration), and the ticket carries it. Also on a finished control plane.
    pub upload_certificates: bool,
}

/// What of `init` needs no image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// How many things were altered.
    pub changes: u32,
    /// When the kubelet was started (anew), where it was: seconds since the epoch by the host's clock.
    pub kubelet_started: Option<u64>,
}

/// What `init` left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialised {
    /// The node the host became.
    pub joined: Joined,
    /// When the kubelet was started (anew), where it was: seconds since the epoch by the host's clock.
    pub kubelet_started: Option<u64>,
    /// What hosts join with, if it was asked for.
    pub ticket: Option<Ticket>,
    /// The key of the certificates that were uploaded, also where no ticket was asked for; the ticket has it too.
    pub certificate_key: Option<Secret>,
}

/// What `init` hands to `join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// `host:port` of the API server for joining.
    pub endpoint: String,
    /// The bootstrap token.
    pub token: Secret,
    /// `sha256:<hex>` over the SubjectPublicKeyInfo of the cluster's CA certificates.
    pub ca_hashes: Vec<String>,
    /// The key of the uploaded certificates, if they were uploaded.
    pub certificate_key: Option<Secret>,
}

/// `join` on a host. A JoinConfiguration with `controlPlane` makes it a control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinOrder {
    /// kubeadm documents: JoinConfiguration (with the ticket filled in). The kubelet's configuration is the cluster's.
    pub configuration: Secret,
}

/// What a member, or a host that will become one, gets of the cluster's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefreshOrder {
    /// kubeadm documents: the JoinConfiguration of the host. What it says of discovery is not used.
    pub node: Secret,
    /// kubeadm documents: ClusterConfiguration and, if wanted, KubeletConfiguration.
    pub cluster: Secret,
}

/// Requests that are only rehearsed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RehearseOrder {
    /// The cluster's name.
    pub cluster: String,
    /// What would be asked, in order: of those that alter a host.
    pub requests: Vec<Request>,
}

/// What a request would alter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Its changes, in order.
    pub changes: Vec<Change>,
    /// What is not known before it is done; sentences without a full stop.
    pub unknown: Vec<String>,
}

/// The node a host became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Name of the Node object.
    pub node: String,
    /// How many things were altered; 0 when the host was a member already.
    pub changes: u32,
    /// The first pod network of the Node, where a host that joined has seen it.
    pub pod_network: Option<ipnet::IpNet>,
}

/// The built-in endpoint on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerOrder {
    /// Where it listens: `127.0.0.1:6444`.
    pub listen: SocketAddr,
    /// The API servers of all control planes, in inventory order, those included that are still to be made.
    pub servers: Vec<ApiServer>,
}

/// An API server, as the balancer of a host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiServer {
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether it runs on the host itself.
    pub local: bool,
}

/// The pod network of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOrder {
    /// This node's pod network, `10.244.1.0/24`.
    pub pod_network: ipnet::IpNet,
    /// The whole cluster's pod network, `10.244.0.0/16`.
    pub cluster_network: ipnet::IpNet,
    /// The address of this host that the others reach it by.
    pub address: std::net::IpAddr,
    /// The other nodes: address and pod network.
    pub peers: Vec<Peer>,
}

/// The pod network of a host that joins: a [`NetworkOrder`] without what only its Node tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNetwork {
    /// The whole cluster's pod network.
    pub cluster_network: ipnet::IpNet,
    /// The address of this host that the others reach it by.
    pub address: std::net::IpAddr,
    /// The other nodes, as far as they are known.
    pub peers: Vec<Peer>,
}

impl OwnNetwork {
    /// The order for a node with this pod network.
    pub fn of(self, pod_network: ipnet::IpNet) -> NetworkOrder {
        let Self { cluster_network, address, peers } = self;
        NetworkOrder { pod_network, cluster_network, address, peers }
    }
}

/// Another node, as the pod network sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// Address of the host.
    pub address: std::net::IpAddr,
    /// Its pod network.
    pub pod_network: ipnet::IpNet,
}

/// What a cluster is to be at the end of `up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleOrder {
    /// What is waited for; nothing where it comes from elsewhere, as with a pod network of the user's.
    pub awaited: Option<Awaited>,
    /// Labels of nodes, by the node's name. A node that is not there gets none.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    /// How long it is waited, in seconds.
    pub limit_seconds: u64,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Names of all nodes.
    pub nodes: Vec<String>,
    /// How many nodes were labelled.
    pub changes: u32,
    /// Static pods that were still not shown when all else was ready for a while.
    pub hidden: Vec<String>,
    /// What did not get ready, or was not labelled.
    pub unsettled: Option<Unsettled>,
}

/// Why a cluster is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// All that is missing.
    pub failure: Failure,
    /// The first node it is missing of.
    pub behind: Option<Behind>,
}

/// What `reset` is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetOrder {
    /// Keep etcd's data, which the phase remove-etcd-member removes otherwise.
    pub keep_data: bool,
    /// Take the host's member out of etcd, or give it up, although etcd loses its quorum by it or does not answer.
    pub force: bool,
    /// The whole cluster goes, all hosts at once: etcd's members are not taken out one by one, nobody needs them.
    pub whole_cluster: bool,
    /// Only this phase.
    pub only: Option<String>,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// A directory of certificates to remove, besides the one the manifests name.
    pub certificates: Option<String>,
    /// Keep what others put into /etc/kubernetes/tmp.
    pub keep_temporary: bool,
    /// The kubeconfig to ask the cluster where its etcd is with; admin.conf of the host when absent.
    pub kubeconfig: Option<String>,
    /// The socket of the container runtime, `unix:///run/containerd/containerd.sock`; the usual one when absent.
    pub cri_socket: Option<String>,
    /// How long taking the member out of etcd is tried, in seconds; a minute when absent.
    pub etcd_limit_seconds: Option<u64>,
}

/// The etcd member of a host that cannot be reached any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostMember {
    /// The lost node's name.
    pub node: String,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<std::net::IpAddr>,
}

/// A program to run on the host, without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// Environment to add.
    pub environment: BTreeMap<String, String>,
    /// What it reads from standard input.
    pub input: Vec<u8>,
    /// Longest time, in seconds.
    pub limit_seconds: u64,
}

/// What a program printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Exit status; 128 + signal when it was killed.
    pub status: i32,
    /// Standard output, cut at 4 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, cut at 4 MiB.
    pub stderr: Vec<u8>,
}

/// What an agent says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reply {
    /// The agent is up.
    Ready,
    /// Something happened.
    Event(What),
    /// The step [`READY`](crate::api::READY) of the whole run moved on, not one of this host: [`What::StepProgressed`].
    OfRun(What),
    /// The answer to a request.
    Answer {
        /// Number of the request.
        id: u64,
        /// The answer's document, or why there is none.
        result: Result<Value, Failure>,
    },
}

/// Facts travel as the answer to [`Request::Facts`]; named here so that readers of this file find the type.
pub type FactsAnswer = Facts;
