//! One host's ordered steps during `up`. Lanes run side by side; what they wait for stands on the [`Board`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::access::Api;
use super::board::{Board, Promise};
use super::connect::Session;
use super::documents::Documents;
use super::plan::{HostPlan, Way, is_file};
use super::rollout::{Rollout, Turn};
use super::spread::Spreading;
use super::tolerance::Casualties;
use crate::api::{self, NodeStatus};
use crate::bundle::{Blob, Bundle};
use crate::cancel::Cancel;
use crate::event::Unit;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Inventory, NetworkPlugin};
use crate::message::{
    Foreseen, InitOrder, Initialised, JoinOrder, Joined, NetworkOrder, Peer, PlayOrder, PlayReport, RehearseOrder,
    Request,
};
use crate::playbook;
use crate::remote::{send, wanted};

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
pub(super) fn preparation(name: &str, plan: &HostPlan) -> Result<PlayOrder> {
    let builtin = playbook::builtin(name)?;
    Ok(PlayOrder { play: builtin.play, variables: plan.variables.clone(), files: builtin.files, dry_run: false })
}

/// The ways from a node to the pods of every other node the cluster knows, also of those whose lane failed in this run;
/// `told` are pod networks that lanes know already.
pub(super) fn peers(nodes: Vec<NodeStatus>, own: &str, told: &BTreeMap<String, ipnet::IpNet>) -> Vec<Peer> {
    let others = nodes.into_iter().filter(|node| node.name != own);
    let mut peers: Vec<Peer> = others
        .filter_map(|node| {
            let pod_network = told.get(&node.name).copied().or_else(|| node.pod_network())?;
            let address = node.addresses.first().copied()?;
            Some(Peer { address, pod_network })
        })
        .collect();
    peers.sort();
    peers
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
    /// Whether any control plane will join.
    pub control_planes_join: bool,
}

impl Lane<'_> {
    /// The way of the plan.
    pub async fn go(&self) -> Result<u32> {
        match self.plan.way {
            Way::Source => self.source().await,
            Way::ControlPlane | Way::Worker => self.joining().await,
        }
    }

    /// The control plane the cluster is made on: files, preparation, images beside certificates and kubelet, init
    /// beside the images of add-ons, the network beside both. Where the cluster is there, all of that finds that nothing is to do.
    async fn source(&self) -> Result<u32> {
        let result = self.initialise().await;
        if let Err(failure) = &result {
            self.rollout.failed(&self.plan.name);
            let why = self.because_of(failure);
            self.spreading.others.keep(Err(why.clone()));
            self.spreading.leave(self.session).await;
            self.board.ticket.keep(Err(why.clone()));
            self.board.api.keep(Err(why));
        }
        self.board.tell_pod_network(&self.plan.name, None);
        result
    }

    async fn initialise(&self) -> Result<u32> {
        let configuration = self.documents.for_init(self.inventory, &self.session.host, &self.plan.node)?;
        let order =
            InitOrder { configuration, issue_ticket: self.joins, upload_certificates: self.control_planes_join };
        let lacking = self.lacking().await?;
        let (early, late): (Vec<Blob>, Vec<Blob>) =
            lacking.into_iter().partition(|blob| !COMPLETES.contains(&blob.name.as_str()));
        let (files, images) = split(early);
        let mut changes = self.send_files(&files, true).await?;
        changes += self.prepare().await?;
        // Keys take the processor, images the disk and the network.
        let begun = self.ask::<u32>(Request::Begin(order.clone()));
        let images = self.transfer("images", "import images", &images);
        let (begun, balancer, images) = futures::try_join!(begun, self.balance(), images)?;
        changes += begun + balancer + images;
        self.spreading.first_share_is_done();
        let (started, network) = futures::try_join!(self.start(order, late), self.network())?;
        Ok(changes + started + network)
    }

    /// The control plane and its add-ons.
    async fn start(&self, order: InitOrder, late: Vec<Blob>) -> Result<u32> {
        // What only the add-ons need arrives while the control plane starts.
        let (started, late) = futures::try_join!(self.init(order.clone()), self.send_late(late))?;
        self.spreading.first_is_done();
        let completed: u32 = self.ask(Request::Complete(order)).await?;
        self.rollout.done(&self.plan.name);
        Ok(started + late + completed)
    }

    async fn send_late(&self, late: Vec<Blob>) -> Result<u32> {
        let (files, images) = split(late);
        // Blobs come in the same order everywhere: hosts that hand them on to each other must not wait in a circle.
        let changes = self.transfer("addon-images", "import images of add-ons", &images).await?;
        Ok(changes + self.send_files(&files, false).await?)
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
        self.board.tell_pod_network(&self.plan.name, None);
        result
    }

    async fn join_when_possible(&self) -> Result<u32> {
        let lacking = self.lacking().await?;
        self.waiting(&self.spreading.others).await?;
        let (late, early): (Vec<Blob>, Vec<Blob>) =
            lacking.into_iter().partition(|blob| is_file(blob) && COMPLETES.contains(&blob.name.as_str()));
        let (files, images) = split(early);
        let mut changes = self.send_files(&files, false).await?;
        if self.plan.member {
            changes += self.bring_up_to_date(&images).await? + self.send_files(&late, false).await?;
        } else {
            changes += self.prepare().await?;
            let images = self.transfer("images", "import images", &images);
            let (balancer, images) = futures::try_join!(self.balance(), images)?;
            changes += balancer + images + self.send_files(&late, false).await? + self.join().await?;
        }
        changes += self.network().await?;
        Ok(changes)
    }

    /// A member is brought to the configuration as it is now, where it differs: in its turn, for its runtime and its kubelet may
    /// start anew, and until it works again. (That the node is Ready may want the pod network, which comes later.)
    async fn bring_up_to_date(&self, images: &[Blob]) -> Result<u32> {
        let order = self.documents.for_refresh(self.inventory, &self.session.host, &self.plan.node)?;
        let mut requests = Vec::new();
        for (name, _) in PREPARATION {
            requests.push(Request::Play(preparation(name, self.plan)?));
        }
        requests.push(Request::Refresh(order.clone()));
        let rehearsal = RehearseOrder { cluster: self.inventory.cluster.name.clone(), requests };
        let foreseen: Vec<Foreseen> = self.ask(Request::Rehearse(rehearsal)).await?;
        let differs = foreseen.iter().any(|foreseen| !foreseen.changes.is_empty());
        let turn = if differs { Some(self.turn().await?) } else { None };
        let mut changes = if differs { self.prepare().await? } else { 0 };
        // A runtime that did not run could not tell which images it has.
        let images = if differs { split(self.lacking().await?).1 } else { images.to_vec() };
        let images = self.transfer("images", "import images", &images);
        let (balancer, images) = futures::try_join!(self.balance(), images)?;
        changes += balancer + images;
        if differs {
            changes += self.ask::<u32>(Request::Refresh(order)).await?;
        }
        drop(turn);
        self.rollout.done(&self.plan.name);
        Ok(changes)
    }

    /// Waits for this host's turn to change.
    async fn turn(&self) -> Result<Turn<'_>> {
        let step = self.session.events.step("turn", "wait for its turn to change");
        let turn = self.rollout.turn(self.session.host.role).await;
        step.end(turn.map_err(|failure| failure.on(&self.plan.name)))
    }

    /// A wait that a person sees.
    async fn waiting<T: Clone>(&self, promise: &Promise<T>) -> Result<T> {
        if promise.is_kept() {
            return promise.wait().await.map_err(|failure| failure.on(&self.plan.name));
        }
        let step = self.session.events.step("wait", "wait for the first control plane");
        step.end(promise.wait().await.map_err(|failure| failure.on(&self.plan.name)))
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T> {
        self.proceed()?;
        self.session.agent.ask(request).await
    }

    /// What another host's lane says when this one failed. It is of the same kind: the exit code tells what went wrong, not
    /// what followed from it.
    fn because_of(&self, failure: &Failure) -> Failure {
        Failure::new(failure.kind, format!("it could not go on because {} failed", self.plan.name)).may_pass()
    }

    fn proceed(&self) -> Result<()> {
        let both = self.cancel.check().and_then(|()| self.casualties.check());
        both.map_err(|failure| failure.on(&self.plan.name))
    }

    /// The blobs that the host lacks, in sending order.
    async fn lacking(&self) -> Result<Vec<Blob>> {
        let blobs = self.plan.blobs.iter().map(wanted).collect();
        let lacking: Vec<String> = self.ask(Request::Lacking { blobs }).await?;
        let lacking: Vec<Blob> =
            self.plan.blobs.iter().filter(|blob| lacking.contains(&blob.sha256)).cloned().collect();
        self.spreading.lacks(&self.plan.name, &lacking);
        Ok(lacking)
    }

    /// Sends files and puts them in place. The first files of the first host show how fast the uplink is.
    async fn send_files(&self, files: &[Blob], first: bool) -> Result<u32> {
        let began = Instant::now();
        // What the host is before the first change, for the comparison after `down`: looked at while bytes arrive.
        let remembering = self.ask::<bool>(Request::Remember);
        let (changes, _) = futures::try_join!(self.transfer("files", "send files", files), remembering)?;
        if first {
            let bytes: u64 = files.iter().map(|blob| blob.stored_size).sum();
            self.spreading.measured(&self.plan.name, bytes, true, began);
        }
        if !files.is_empty() {
            let blobs = files.iter().map(wanted).collect();
            self.ask::<u32>(Request::Place { blobs }).await?;
        }
        Ok(changes)
    }

    /// The playbooks before kubeadm's part.
    async fn prepare(&self) -> Result<u32> {
        let mut changes = 0;
        for (name, title) in PREPARATION {
            changes += self.play(name, title).await?;
        }
        Ok(changes)
    }

    async fn transfer(&self, id: &str, title: &str, blobs: &[Blob]) -> Result<u32> {
        self.proceed()?;
        if blobs.is_empty() {
            return Ok(0);
        }
        let mut step = self.session.events.step(id, title);
        let total: u64 = blobs.iter().map(|blob| blob.stored_size).sum();
        let (first, began) = (self.plan.way == Way::Source, Instant::now());
        let report = |sent: u64, name: &str| {
            step.progress(sent, total, Unit::Bytes, Some(name));
            if first {
                self.spreading.measured(&self.plan.name, sent, false, began);
            }
        };
        let sending = async {
            let delivery = || self.spreading.delivery(self.session, self.bundle, first);
            let mut result = send(delivery(), blobs, &report).await;
            // A lost link: the connection is made again, and what the host still lacks is sent.
            for _ in 0..TRANSFER_REPEATS {
                let Err(failure) = &result else { break };
                if failure.kind != Kind::Connection || self.cancel.requested() {
                    break;
                }
                let lacking = self.still_lacking(blobs).await?;
                result = send(delivery(), &lacking, &report).await;
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

    /// Which of these blobs the host lacks now.
    async fn still_lacking(&self, blobs: &[Blob]) -> Result<Vec<Blob>> {
        let lacking: Vec<String> = self.ask(Request::Lacking { blobs: blobs.iter().map(wanted).collect() }).await?;
        Ok(blobs.iter().filter(|blob| lacking.contains(&blob.sha256)).cloned().collect())
    }

    async fn play(&self, name: &str, title: &str) -> Result<u32> {
        self.proceed()?;
        let mut step = self.session.events.step(name, title);
        let work = async {
            let order = preparation(name, self.plan)?;
            self.session.agent.ask::<PlayReport>(Request::Play(order)).await
        };
        let result = work.await;
        for change in result.iter().flat_map(|report| &report.changes) {
            step.changed(change);
        }
        let changes = step.changes();
        step.end(result.map(|_| changes))
    }

    /// The built-in endpoint, where it is wanted: the way to the API servers must be there before anything asks for it.
    async fn balance(&self) -> Result<u32> {
        match &self.plan.balancer {
            Some(order) => self.ask(Request::Balancer(order.clone())).await,
            None => Ok(0),
        }
    }

    /// The control plane, until others can join it.
    async fn init(&self, order: InitOrder) -> Result<u32> {
        let done: Initialised = self.ask(Request::Init(order)).await?;
        self.board.ticket.keep(Ok(done.ticket));
        self.board.api.keep(Ok(Api::open(self.session).await?));
        Ok(done.joined.changes)
    }

    async fn join(&self) -> Result<u32> {
        let ticket = self.waiting(&self.board.ticket).await?;
        let ticket = ticket.ok_or_else(|| Failure::new(Kind::Internal, "there is no ticket to join with"))?;
        let forgotten = self.forget_former_node().await?;
        let (host, node) = (&self.session.host, &self.plan.node);
        let configuration = match self.plan.way {
            Way::ControlPlane => self.documents.for_control_plane(host, node, &ticket)?,
            Way::Source | Way::Worker => self.documents.for_worker(host, node, &ticket)?,
        };
        let joined: Joined = self.ask(Request::Join(JoinOrder { configuration })).await?;
        Ok(forgotten + joined.changes)
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

    /// The pod network: first the node's own part, so that it gets Ready, then the ways to all others.
    async fn network(&self) -> Result<u32> {
        let network = &self.inventory.cluster.network;
        if network.plugin == NetworkPlugin::None {
            return Ok(0);
        }
        let api = self.board.api.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
        let own = api.pod_network(&self.plan.name, super::finish::NODE_LIMIT).await?;
        let order = |peers| NetworkOrder {
            pod_network: own,
            cluster_network: network.pods,
            address: self.plan.node.address,
            peers,
        };
        // A node that is a member already has its ways to the others: taking them away for a moment would hurt.
        let mut changes = 0;
        if !self.plan.member {
            changes += self.ask::<u32>(Request::Network(order(Vec::new()))).await?;
        }
        self.board.tell_pod_network(&self.plan.name, Some(own));
        let all = self.board.pod_networks(self.hosts).await;
        let peers = peers(api::nodes(&api).await?, &self.plan.name, &all);
        changes += self.ask::<u32>(Request::Network(order(peers))).await?;
        Ok(changes)
    }
}
