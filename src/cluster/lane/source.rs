//! The lane of the control plane that the cluster is made on, and that everything is asked of where there is one.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::ready::Outdated;
use super::{COMPLETES, Lane, PREPARATION, changes_of, split};
use crate::api;
use crate::bundle::Blob;
use crate::cluster::access::Api;
use crate::failure::{Failure, Kind, Result};
use crate::message::{Begun, InitOrder, Initialised, PlayReport, Request};
use crate::secret::Secret;

impl Lane<'_> {
    /// The control plane the cluster is made on: files, preparation, images beside certificates and kubelet, init
    /// beside the images of add-ons, the network beside both. Where the cluster is there, all of that finds that nothing is to do.
    pub(super) async fn source(&self) -> Result<u32> {
        let early = OnceLock::new();
        let looking = async {
            if let Some(api) = self.look_early().await {
                let _ = early.set(api);
            }
            std::future::pending::<Infallible>().await
        };
        let result = tokio::select! {
            result = self.initialise(&early) => result,
            never = looking => match never {},
        };
        if let Err(failure) = &result {
            self.rollout.failed(&self.plan.name);
            let why = self.because_of(failure);
            self.spreading.others.keep(Err(why.clone()));
            self.spreading.leave(self.session).await;
            self.board.ticket.keep(Err(why.clone()));
            self.board.api.keep(Err(why.clone()));
            self.board.nodes_before.keep(Err(why));
        }
        self.board.tell_way(&self.plan.name, None);
        result
    }

    /// Where the cluster serves, its members learn of its nodes before anything is altered, and nobody waits for the way to its
    /// API later. Nothing is lost where that does not succeed.
    async fn look_early(&self) -> Option<Api> {
        if !(self.plan.member && self.session.facts.kubernetes.serves) {
            return None;
        }
        let api = Api::open(self.session).await.ok()?;
        // Two questions, one round trip.
        let (nodes, pods) = futures::try_join!(api::nodes(&api), api::pods(&api, "kube-system")).ok()?;
        let _ = self.board.pods_before.set(pods);
        self.board.nodes_before.keep(Ok(Arc::new(nodes)));
        Some(api)
    }

    async fn initialise(&self, early: &OnceLock<Api>) -> Result<u32> {
        let configuration = self.documents.for_init(self.inventory, &self.session.host, &self.plan.node)?;
        let order =
            InitOrder { configuration, issue_ticket: self.joins, upload_certificates: self.control_planes_join };
        let lacking = self.lacking().await?;
        let ours = self.session.facts.kubernetes.journal_cluster.is_some();
        if self.plan.member && ours && !self.newcomers && lacking.is_empty() {
            let (done, network) = futures::try_join!(self.look_through(order, early), self.network(None))?;
            return Ok(done + network);
        }
        let (begun, late) = self.up_to_init(&order, lacking).await?;
        // A way to the API with credentials of before serves on where nothing was altered.
        let early = Some(early).filter(|_| begun.changes == 0);
        let (started, network) = futures::try_join!(self.start(order, late, early, begun), self.network(None))?;
        Ok(begun.changes + started + network)
    }

    /// Everything before the control plane starts: what was altered, and the blobs that are still to be sent.
    async fn up_to_init(&self, order: &InitOrder, lacking: Vec<Blob>) -> Result<(Begun, Vec<Blob>)> {
        let (early, late): (Vec<Blob>, Vec<Blob>) =
            lacking.into_iter().partition(|blob| !COMPLETES.contains(&blob.name.as_str()));
        let (files, images) = split(early);
        let mut changes = self.send_first_files(&files).await?;
        changes += self.prepare(&files).await?;
        // Keys take the processor, images the disk and the network. Where no image comes, `init` does it all.
        let begun = async {
            if images.is_empty() { Ok(Begun::default()) } else { self.ask(Request::Begin(order.clone())).await }
        };
        let images = self.transfer("images", "import images", &images);
        let (begun, balancer, images) = futures::try_join!(begun, self.balance(), images)?;
        self.spreading.first_share_is_done();
        let changes = changes + begun.changes + balancer + images;
        Ok((Begun { changes, kubelet_started: begun.kubelet_started }, late))
    }

    /// The control plane and its add-ons.
    async fn start(
        &self,
        order: InitOrder,
        late: Vec<Blob>,
        early: Option<&OnceLock<Api>>,
        begun: Begun,
    ) -> Result<u32> {
        // What only the add-ons need arrives while the control plane starts.
        let (started, late) = futures::try_join!(self.init(order.clone(), early), self.send_late(late))?;
        self.spreading.first_is_done();
        let completed: u32 = self.ask(Request::Complete(order)).await?;
        let changes = started.changes + late + completed;
        let kubelet_started = started.kubelet_started.or(begun.kubelet_started);
        let network = self.end_turn(Begun { changes: begun.changes + changes, kubelet_started }).await?;
        Ok(changes + network)
    }

    /// The others may change when this host's node, if it was Ready and something was altered, is Ready again: a configuration
    /// with which it does not get ready goes no further. Returns how many more changes that took.
    async fn end_turn(&self, done: Begun) -> Result<u32> {
        let nodes = self.board.nodes_before.kept().and_then(Result::ok);
        let before = nodes.iter().flat_map(|nodes| nodes.iter()).find(|node| node.name == self.plan.name);
        let mut changes = 0;
        if before.is_some_and(|before| before.ready && done.changes > 0) {
            // Without its network no node is. Where others join, these are not all the ways: their lanes are waited for then.
            if !self.newcomers {
                changes += self.network_of_before().await?;
            }
            let api = self.board.api.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
            let outdated = done.kubelet_started.map_or(Outdated::None, Outdated::Before);
            self.ready_again(&api, &outdated).await?;
        }
        self.rollout.done(&self.plan.name);
        Ok(changes)
    }

    async fn send_late(&self, late: Vec<Blob>) -> Result<u32> {
        let (files, images) = split(late);
        // Blobs come in the same order everywhere: hosts that hand them on to each other must not wait in a circle.
        let changes = self.transfer("addon-images", "import images of add-ons", &images).await?;
        let changes = changes + self.send_files(&files).await?;
        self.nothing_more_to_send().await;
        Ok(changes)
    }

    /// A member that lacks nothing and that nobody waits for is asked for everything at once: most often nothing is to do.
    async fn look_through(&self, order: InitOrder, early: &OnceLock<Api>) -> Result<u32> {
        self.spreading.first_is_done();
        let mut requests = self.plays()?;
        requests.extend(self.plan.balancer.clone().map(Request::Balancer));
        requests.extend([Request::Init(order.clone()), Request::Complete(order)]);
        let of_plays = PREPARATION.len();
        let answers: Vec<Value> = self.ask(Request::Sequence { requests }).await?;
        let mut answers = answers.into_iter();
        let mut next = || {
            let missing = || Failure::new(Kind::Internal, "an answer of the agent is missing").on(&self.plan.name);
            answers.next().ok_or_else(missing)
        };
        let mut changes = 0;
        for _ in 0..of_plays {
            changes += changes_of(&self.answer::<PlayReport>(next()?)?);
        }
        if self.plan.balancer.is_some() {
            changes += self.answer::<u32>(next()?)?;
        }
        let done: Initialised = self.answer(next()?)?;
        let completed: u32 = self.answer(next()?)?;
        let made = self.made(done, Some(early), None).await?;
        let changes = changes + made.changes + completed;
        Ok(changes + self.end_turn(Begun { changes, ..made }).await?)
    }

    /// The control plane, until others can join it.
    async fn init(&self, order: InitOrder, early: Option<&OnceLock<Api>>) -> Result<Begun> {
        // Two questions, one round trip.
        let requests = vec![Request::Init(order), Request::AdminKubeconfig];
        let answers: Vec<Value> = self.ask(Request::Sequence { requests }).await?;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let (done, kubeconfig) = (self.answer(next())?, self.answer(next())?);
        self.made(done, early, Some(kubeconfig)).await
    }

    /// Tells the other lanes of a control plane that works.
    async fn made(
        &self,
        done: Initialised,
        early: Option<&OnceLock<Api>>,
        kubeconfig: Option<Secret>,
    ) -> Result<Begun> {
        self.board.ticket.keep(Ok(done.ticket));
        let early = early.and_then(OnceLock::get).filter(|_| done.joined.changes == 0);
        let api = match (early, kubeconfig) {
            (Some(api), _) => api.clone(),
            (None, Some(kubeconfig)) => Api::open_with(self.session, kubeconfig).await?,
            (None, None) => Api::open(self.session).await?,
        };
        self.board.api.keep(Ok(api.clone()));
        if self.is_old && !self.board.nodes_before.is_kept() {
            self.board.nodes_before.keep(Ok(Arc::new(api::nodes(&api).await?)));
        }
        Ok(Begun { changes: done.joined.changes, kubelet_started: done.kubelet_started })
    }

    /// What another host's lane says when this one failed. It is of the same kind: the exit code tells what went wrong, not
    /// what followed from it.
    fn because_of(&self, failure: &Failure) -> Failure {
        Failure::new(failure.kind, format!("it could not go on because {} failed", self.plan.name)).may_pass()
    }
}
