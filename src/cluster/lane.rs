//! One host's ordered steps during `up`. Lanes run side by side; what they wait for stands on the [`Board`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::access::Api;
use super::board::Board;
use super::connect::Session;
use super::documents::Documents;
use super::plan::{HostPlan, is_file};
use crate::api;
use crate::bundle::{Blob, Bundle};
use crate::cancel::Cancel;
use crate::event::Unit;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Inventory, NetworkPlugin};
use crate::message::{InitOrder, Initialised, JoinOrder, Joined, NetworkOrder, Peer, PlayOrder, PlayReport, Request};
use crate::playbook;
use crate::remote::{send, wanted};

/// The playbooks that prepare a host before kubeadm's part, in order.
const PREPARATION: &[(&str, &str)] = &[("prepare", "prepare host"), ("runtime", "start runtime")];

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
    /// Asked to stop by a person.
    pub cancel: &'a Cancel,
    /// How many hosts there are.
    pub hosts: usize,
    /// Whether any host will join.
    pub joins: bool,
}

impl Lane<'_> {
    /// The first control plane: supply, prepare, images, init, network.
    pub async fn first_control_plane(&self) -> Result<u32> {
        let result = self.initialise().await;
        if let Err(failure) = &result {
            let why = self.because_of(failure);
            self.board.control_plane_supplied.keep(Err(why.clone()));
            self.board.ticket.keep(Err(why.clone()));
            self.board.api.keep(Err(why));
        }
        self.board.tell_pod_network(&self.plan.name, None);
        result
    }

    async fn initialise(&self) -> Result<u32> {
        let mut changes = self.supply().await?;
        self.board.control_plane_supplied.keep(Ok(()));
        changes += self.init().await?;
        changes += self.network().await?;
        Ok(changes)
    }

    /// A worker: everything that needs no cluster first, then the ticket, then join and network.
    pub async fn worker(&self) -> Result<u32> {
        let result = self.join_when_possible().await;
        self.board.tell_pod_network(&self.plan.name, None);
        result
    }

    async fn join_when_possible(&self) -> Result<u32> {
        // The first control plane is what everybody waits for: the uplink is its alone until it has what it needs.
        self.board.control_plane_supplied.wait().await?;
        let mut changes = self.supply().await?;
        changes += self.join().await?;
        changes += self.network().await?;
        Ok(changes)
    }

    /// What another host's lane says when this one failed.
    fn because_of(&self, failure: &Failure) -> Failure {
        let kind = if failure.kind == Kind::Interrupted { Kind::Interrupted } else { Kind::Cluster };
        Failure::new(kind, format!("it could not go on because {} failed", self.plan.name)).may_pass()
    }

    fn proceed(&self) -> Result<()> {
        self.cancel.check().map_err(|failure| failure.on(&self.plan.name))
    }

    /// Files, preparation, images: all that a host needs before it can be a node.
    async fn supply(&self) -> Result<u32> {
        let wants: Vec<_> = self.plan.blobs.iter().map(wanted).collect();
        let lacking: Vec<String> = self.session.agent.ask(Request::Lacking { blobs: wants }).await?;
        let lacks = |blob: &&Blob| lacking.contains(&blob.sha256);
        let (files, images): (Vec<Blob>, Vec<Blob>) = self.plan.blobs.iter().filter(lacks).cloned().partition(is_file);
        let mut changes = self.transfer("files", "send files", &files).await?;
        if !files.is_empty() {
            let blobs = files.iter().map(wanted).collect();
            self.session.agent.ask::<u32>(Request::Place { blobs }).await?;
        }
        for (name, title) in PREPARATION {
            changes += self.play(name, title).await?;
        }
        changes += self.transfer("images", "import images", &images).await?;
        Ok(changes)
    }

    async fn transfer(&self, id: &str, title: &str, blobs: &[Blob]) -> Result<u32> {
        self.proceed()?;
        if blobs.is_empty() {
            return Ok(0);
        }
        let mut step = self.session.events.step(id, title);
        let total: u64 = blobs.iter().map(|blob| blob.stored_size).sum();
        let report = |sent: u64, name: &str| step.progress(sent, total, Unit::Bytes, Some(name));
        let result = send(&self.session.start, self.bundle, blobs, &report).await;
        for blob in blobs.iter().filter(|_| result.is_ok()) {
            step.changed(&blob.name);
        }
        let changes = step.changes();
        step.end(result.map(|()| changes))
    }

    async fn play(&self, name: &str, title: &str) -> Result<u32> {
        self.proceed()?;
        let mut step = self.session.events.step(name, title);
        let work = async {
            let builtin = playbook::builtin(name)?;
            let variables = self.plan.variables.clone();
            let order = PlayOrder { play: builtin.play, variables, files: builtin.files, dry_run: false };
            self.session.agent.ask::<PlayReport>(Request::Play(order)).await
        };
        let result = work.await;
        for change in result.iter().flat_map(|report| &report.changes) {
            step.changed(change);
        }
        let changes = step.changes();
        step.end(result.map(|_| changes))
    }

    async fn init(&self) -> Result<u32> {
        self.proceed()?;
        let step = self.session.events.step("init", "init");
        let work = async {
            let configuration = self.documents.for_init(self.inventory, &self.session.host, &self.plan.node)?;
            let order = InitOrder { configuration, issue_ticket: self.joins };
            let done: Initialised = self.session.agent.ask(Request::Init(order)).await?;
            self.board.ticket.keep(Ok(done.ticket));
            self.board.api.keep(Ok(Api::open(self.session).await?));
            Ok(done.joined.changes)
        };
        step.end(work.await)
    }

    async fn join(&self) -> Result<u32> {
        self.proceed()?;
        let ticket = self.board.ticket.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
        if self.plan.member {
            return Ok(0);
        }
        self.proceed()?;
        let step = self.session.events.step("join", "join");
        let work = async {
            let ticket = ticket.ok_or_else(|| Failure::new(Kind::Internal, "there is no ticket to join with"))?;
            let configuration = self.documents.for_join(&self.session.host, &self.plan.node, &ticket)?;
            let joined: Joined = self.session.agent.ask(Request::Join(JoinOrder { configuration })).await?;
            Ok(joined.changes)
        };
        step.end(work.await)
    }

    /// The pod network: first the node's own part, so that it gets Ready, then the ways to all others.
    async fn network(&self) -> Result<u32> {
        let network = &self.inventory.cluster.network;
        if network.plugin == NetworkPlugin::None {
            return Ok(0);
        }
        self.proceed()?;
        let api = self.board.api.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
        let step = self.session.events.step("network", "pod network");
        let work = async {
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
                changes += self.session.agent.ask::<u32>(Request::Network(order(Vec::new()))).await?;
            }
            self.board.tell_pod_network(&self.plan.name, Some(own));
            let all = self.board.pod_networks(self.hosts).await;
            let peers = self.peers(&api, &all).await?;
            changes += self.session.agent.ask::<u32>(Request::Network(order(peers))).await?;
            Ok(changes)
        };
        step.end(work.await)
    }

    /// Every other node the cluster knows, also those whose lane failed in this run.
    async fn peers(&self, api: &Api, told: &BTreeMap<String, ipnet::IpNet>) -> Result<Vec<Peer>> {
        let mut peers: Vec<Peer> = api::nodes(api)
            .await?
            .into_iter()
            .filter(|node| node.name != self.plan.name)
            .filter_map(|node| {
                let pod_network = told.get(&node.name).copied().or_else(|| node.pod_network())?;
                let address = node.addresses.first().copied()?;
                Some(Peer { address, pod_network })
            })
            .collect();
        peers.sort();
        Ok(peers)
    }
}
