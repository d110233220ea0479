//! One host's ordered steps during `up`. Lanes run side by side; what they wait for stands on the [`Board`].

mod member;
mod network;
mod ready;
mod source;

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

pub(super) use self::network::peers;
use super::board::{Board, Promise};
use super::connect::Session;
use super::documents::Documents;
use super::plan::{HostPlan, Way, is_file};
use super::rollout::Rollout;
use super::spread::Spreading;
use super::tolerance::Casualties;
use crate::api;
use crate::bundle::{Blob, Bundle};
use crate::cancel::Cancel;
use crate::event::Unit;
use crate::fact::KubernetesState;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Inventory, NetworkPlugin};
use crate::message::{JoinOrder, Joined, NetworkOrder, Peer, PlayOrder, PlayReport, PlayStep, Request};
use crate::playbook;
use crate::remote::{Receiving, is_far, wanted};

/// The playbooks that prepare a host before kubeadm's part, in order.
pub(super) const PREPARATION: &[(&str, &str)] = &[("prepare", "prepare host"), ("runtime", "start runtime")];

/// Blobs that the first control plane needs only when its API server runs already: add-ons and the person's tool.
const COMPLETES: &[&str] = &["images/kube-proxy", "images/coredns", "bin/kubectl"];

/// How often a transfer goes on after its link was lost.
const TRANSFER_REPEATS: usize = 5;

/// Files and images.
pub(super) fn split(blobs: Vec<Blob>) -> (Vec<Blob>, Vec<Blob>) {
    blobs.into_iter().partition(is_file)
}

/// The order for one of [`PREPARATION`].
pub(super) fn preparation((id, title): &(&str, &str), plan: &HostPlan) -> Result<PlayOrder> {
    let builtin = playbook::builtin(id)?;
    let step = Some(PlayStep { id: (*id).to_owned(), title: (*title).to_owned() });
    Ok(PlayOrder { play: builtin.play, variables: plan.variables.clone(), files: builtin.files, dry_run: false, step })
}

/// The request to put files in place, where there are any.
fn place(files: &[Blob]) -> Option<Request> {
    (!files.is_empty()).then(|| Request::Place { blobs: files.iter().map(wanted).collect() })
}

/// How many things a play altered.
fn changes_of(report: &PlayReport) -> u32 {
    u32::try_from(report.changes.len()).unwrap_or(u32::MAX)
}

/// Whether a host, a `member` or not, is a machine that no cluster is on, ours or another. Kubeconfigs alone make none: a person
/// brings them where the authority's key is elsewhere.
pub(super) fn is_of_no_cluster(state: &KubernetesState, member: bool) -> bool {
    state.journal_cluster.is_none() && !member && state.manifests.is_empty()
}

/// One host's way through `up`.
pub struct Lane<'a> {
    /// The whole inventory.
    pub inventory: &'a Inventory,
    /// kubeadm documents of the inventory.
    pub documents: &'a Documents,
    /// The host's session.
    pub session: &'a Session,
    /// What it gets.
    pub plan: &'a HostPlan,
    /// The bundle.
    pub bundle: &'a Arc<Bundle>,
    /// What lanes tell each other.
    pub board: &'a Board,
    /// How blobs get to the hosts.
    pub spreading: &'a Spreading,
    /// Whose turn it is to change.
    pub rollout: &'a Rollout,
    /// Asked to stop by a person.
    pub cancel: &'a Cancel,
    /// The hosts that failed so far: with too many, all stop.
    pub casualties: &'a Casualties<'a>,
    /// How many hosts there are.
    pub hosts: usize,
    /// Whether any host will join.
    pub joins: bool,
    /// Whether the cluster was there before this run.
    pub is_old: bool,
    /// Whether any host is no node of the cluster yet.
    pub newcomers: bool,
    /// Whether any control plane will join.
    pub control_planes_join: bool,
    /// The blobs that the host is known to lack when its lane begins.
    pub known_to_lack: Mutex<Option<Vec<String>>>,
    /// What receives blobs on the host.
    pub receiving: Mutex<Receiving>,
}

impl Lane<'_> {
    /// The way of the plan.
    pub async fn go(&self) -> Result<u32> {
        match self.plan.way {
            Way::Source => self.source().await,
            Way::ControlPlane | Way::Worker => self.joining().await,
        }
    }

    /// A worker or a further control plane: everything that needs no cluster first, then the ticket, then join and
    /// network. Nobody waits for a further control plane.
    async fn joining(&self) -> Result<u32> {
        let result = self.join_when_possible().await;
        if result.is_err() {
            self.spreading.leave(self.session).await;
        }
        match &result {
            Ok(_) => self.rollout.done(&self.plan.name),
            // Who is no node yet holds up nobody who is.
            Err(_) if self.plan.member => self.rollout.failed(&self.plan.name),
            Err(_) => {}
        }
        self.board.tell_way(&self.plan.name, None);
        result
    }

    async fn join_when_possible(&self) -> Result<u32> {
        let lacking = self.lacking().await?;
        if !lacking.is_empty() {
            futures::join!(self.waiting(&self.spreading.others), self.begin_to_receive(&lacking)).0?;
        }
        let (late, early): (Vec<Blob>, Vec<Blob>) =
            lacking.into_iter().partition(|blob| is_file(blob) && COMPLETES.contains(&blob.name.as_str()));
        let (files, images) = split(early);
        let mut changes = self.send_first_files(&files).await?;
        let mut begun = None;
        if self.plan.member {
            if let Some(place) = place(&files) {
                self.ask::<u32>(place).await?;
            }
            changes += self.bring_up_to_date(&images).await? + self.send_files(&late).await?;
        } else {
            changes += self.prepare(&files).await?;
            let images = self.transfer("images", "import images", &images);
            let (balancer, images) = futures::try_join!(self.balance(), images)?;
            changes += balancer + images + self.send_files(&late).await?;
            self.nothing_more_to_send().await;
            let (altered, network) = self.join().await?;
            changes += altered;
            begun = network;
        }
        changes += self.network(begun).await?;
        Ok(changes)
    }

    /// A wait that a person sees.
    async fn waiting<T: Clone>(&self, promise: &Promise<T>) -> Result<T> {
        if promise.is_kept() {
            return promise.wait().await.map_err(|failure| failure.on(&self.plan.name));
        }
        let step = self.session.events.step("wait", "wait for the first control plane");
        step.end(promise.wait().await.map_err(|failure| failure.on(&self.plan.name)))
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        self.proceed()?;
        self.session.agent.ask(request).await
    }

    fn proceed(&self) -> Result<()> {
        let both = self.cancel.check().and_then(|()| self.casualties.check());
        both.map_err(|failure| failure.on(&self.plan.name))
    }

    /// The blobs that the host lacks, in sending order.
    async fn lacking(&self) -> Result<Vec<Blob>> {
        let known = self.known_to_lack.lock().await.take();
        let lacking: Vec<String> = match known {
            Some(lacking) => lacking,
            None => self.ask(Request::Lacking { blobs: self.plan.blobs.iter().map(wanted).collect() }).await?,
        };
        let lacking: Vec<Blob> =
            self.plan.blobs.iter().filter(|blob| lacking.contains(&blob.sha256)).cloned().collect();
        self.spreading.lacks(self.session, &lacking);
        Ok(lacking)
    }

    /// Sends the first files of all; they are still to be put in place. What the host is before the first change, for the
    /// comparison after `down`, is looked at while they arrive; those of the source show how fast the uplink is.
    async fn send_first_files(&self, files: &[Blob]) -> Result<u32> {
        let sending = async {
            let began = Instant::now();
            let changes = self.transfer("files", "send files", files).await?;
            if self.plan.way == Way::Source {
                let bytes: u64 = files.iter().map(|blob| blob.stored_size).sum();
                self.measured(bytes, true, began);
            }
            Ok(changes)
        };
        let remembering = async {
            // Where there is a journal there was a first change, and what kubeadm made is no machine as it was: not asked.
            if is_of_no_cluster(&self.session.facts.kubernetes, self.plan.member) {
                self.ask::<bool>(Request::Remember).await?;
            }
            Ok(())
        };
        let (changes, ()) = futures::try_join!(sending, remembering)?;
        Ok(changes)
    }

    /// So many bytes have arrived since `began`.
    fn measured(&self, bytes: u64, all: bool, began: Instant) {
        let far = is_far(self.session.start.connection.shortest());
        self.spreading.measured(&self.plan.name, far, bytes, all, began);
    }

    /// Sends files and puts them in place.
    async fn send_files(&self, files: &[Blob]) -> Result<u32> {
        let changes = self.transfer("files", "send files", files).await?;
        if let Some(place) = place(files) {
            self.ask::<u32>(place).await?;
        }
        Ok(changes)
    }

    /// Files that were received are put in place, and the playbooks before kubeadm's part are run.
    async fn prepare(&self, files: &[Blob]) -> Result<u32> {
        let requests: Vec<Request> = place(files).into_iter().chain(self.plays()?).collect();
        let answers: Vec<Value> = self.ask(Request::Sequence { requests }).await?;
        let mut changes = 0;
        for answer in answers.into_iter().rev().take(PREPARATION.len()) {
            changes += changes_of(&self.answer::<PlayReport>(answer)?);
        }
        Ok(changes)
    }

    /// The playbooks before kubeadm's part, as steps of their own.
    fn plays(&self) -> Result<Vec<Request>> {
        PREPARATION.iter().map(|step| Ok(Request::Play(preparation(step, self.plan)?))).collect()
    }

    /// One of the answers to a sequence.
    fn answer<T: DeserializeOwned>(&self, answer: Value) -> Result<T> {
        serde_json::from_value(answer).map_err(|error| {
            Failure::new(Kind::Internal, "an answer of the agent has another shape than expected")
                .on(&self.plan.name)
                .because(&error)
        })
    }

    async fn transfer(&self, id: &str, title: &str, blobs: &[Blob]) -> Result<u32> {
        self.proceed()?;
        if blobs.is_empty() {
            return Ok(0);
        }
        let mut step = self.session.events.step(id, title);
        let total: u64 = blobs.iter().map(|blob| blob.stored_size).sum();
        // What an outage took tells nothing of the line.
        let (first, began) = (self.plan.way == Way::Source, std::sync::Mutex::new(Instant::now()));
        let report = |sent: u64, name: &str| {
            step.progress(sent, total, Unit::Bytes, Some(name));
            if first {
                self.measured(sent, false, *began.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        let sending = async {
            let delivery = || self.spreading.delivery(self.session, self.bundle, first);
            let mut receiving = self.receiving.lock().await;
            let all = self.spreading.lacking(&self.plan.name);
            let mut result = receiving.send(delivery(), blobs, all, &report).await;
            // A lost link: the connection is made again, and what the host still lacks is sent.
            for _ in 0..TRANSFER_REPEATS {
                let Err(failure) = &result else { break };
                if failure.kind != Kind::Connection || self.cancel.requested() {
                    break;
                }
                let lacking = self.still_lacking(blobs).await?;
                *began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                result = receiving.send(delivery(), &lacking, all, &report).await;
            }
            result
        };
        let result = self.spreading.open_beside(self.session, self.plan.node.address, self.bundle, sending).await;
        for blob in blobs.iter().filter(|_| result.is_ok()) {
            step.changed(&blob.name);
        }
        let changes = step.changes();
        step.end(result.map(|()| changes))
    }

    /// Starts what receives while there is something to wait for, where the way is long: that takes round trips.
    async fn begin_to_receive(&self, lacking: &[Blob]) {
        let start = &self.session.start;
        if self.spreading.others.is_kept() || !is_far(start.connection.shortest()) {
            return;
        }
        let mut receiving = self.receiving.lock().await;
        if receiving.has_begun() {
            return;
        }
        let bytes = lacking.iter().map(|blob| blob.stored_size).sum();
        // Where it does not start it is started when it is needed, and that is told. Who shares the line is not known yet.
        if let Ok(begun) = Receiving::ahead(start, bytes, self.hosts, false).await {
            *receiving = begun;
        }
    }

    /// What receives blobs on the host is not needed any more.
    async fn nothing_more_to_send(&self) {
        self.receiving.lock().await.end();
    }

    /// Which of these blobs the host lacks now.
    async fn still_lacking(&self, blobs: &[Blob]) -> Result<Vec<Blob>> {
        let lacking: Vec<String> = self.ask(Request::Lacking { blobs: blobs.iter().map(wanted).collect() }).await?;
        Ok(blobs.iter().filter(|blob| lacking.contains(&blob.sha256)).cloned().collect())
    }

    /// The built-in endpoint, where it is wanted: the way to the API servers must be there before anything asks for it.
    async fn balance(&self) -> Result<u32> {
        match &self.plan.balancer {
            Some(order) => self.ask(Request::Balancer(order.clone())).await,
            None => Ok(0),
        }
    }

    /// Joins; how many things were altered, and the pod network that was set up with it.
    async fn join(&self) -> Result<(u32, Option<NetworkOrder>)> {
        let ticket = self.waiting(&self.board.ticket).await?;
        let ticket = ticket.ok_or_else(|| Failure::new(Kind::Internal, "there is no ticket to join with"))?;
        let forgotten = self.forget_former_node().await?;
        let (host, node) = (&self.session.host, &self.plan.node);
        let configuration = match self.plan.way {
            Way::ControlPlane => self.documents.for_control_plane(host, node, &ticket)?,
            Way::Source | Way::Worker => self.documents.for_worker(host, node, &ticket)?,
        };
        let (joins, mut joined) = tokio::sync::watch::channel(false);
        let joining = async {
            let answered: Joined = self.ask(Request::Join(JoinOrder { configuration })).await?;
            if let Some(pod_network) = answered.pod_network {
                self.board.tell_way(&self.plan.name, Some(Peer { address: node.address, pod_network }));
            }
            joins.send_replace(true);
            Ok(answered)
        };
        // Ordered while it joins: so it follows without a word of the laptop. With the first way that is known most often no
        // other order has to.
        let own_part = async {
            if !self.is_new() || self.inventory.cluster.network.plugin == NetworkPlugin::None {
                return Ok(None);
            }
            tokio::select! {
                () = self.board.first_way() => {}
                _ = joined.wait_for(|joined| *joined) => {}
            }
            if self.proceed().is_err() {
                // The join in hand is finished; nothing that was not ordered with it is begun.
                return Ok(None);
            }
            let network = self.own_network(self.board.ways_besides(&self.plan.name));
            let changes: Option<u32> = self.session.agent.ask(Request::OwnNetwork(network.clone())).await?;
            Ok(changes.map(|changes| (changes, network)))
        };
        let (joined, own_part) = futures::try_join!(joining, own_part)?;
        let changes = forgotten + joined.changes;
        Ok(match own_part.zip(joined.pod_network) {
            Some(((own_changes, network), pod_network)) => (changes + own_changes, Some(network.of(pod_network))),
            None => (changes, None),
        })
    }

    /// A Node of this host's name in a cluster that this host is no part of is what the machine was before it was given back
    /// or replaced: it would count as ready until its life signs are missed.
    async fn forget_former_node(&self) -> Result<u32> {
        if !self.is_old || self.session.facts.kubernetes.kubelet_conf {
            return Ok(0);
        }
        let api = self.board.api.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
        Ok(u32::from(api::delete_node(&api, &self.plan.name).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_no_cluster;
    use crate::fact::KubernetesState;

    #[test]
    fn only_a_machine_without_a_cluster_is_listed_as_what_it_was_before() {
        let mut state = KubernetesState::default();
        assert!(is_of_no_cluster(&state, false));
        // A node of kubeadm's, which is taken over.
        assert!(!is_of_no_cluster(&state, true));
        // What a person brought.
        (state.kubelet_conf, state.admin_conf) = (true, true);
        assert!(is_of_no_cluster(&state, false));
        // A control plane of kubeadm's that does not serve now.
        state.manifests = vec!["etcd.yaml".into()];
        assert!(!is_of_no_cluster(&state, false));
        let ours = KubernetesState { journal_cluster: Some("demo".into()), ..KubernetesState::default() };
        assert!(!is_of_no_cluster(&ours, false));
    }
}
