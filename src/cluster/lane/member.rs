//! The part of a lane in which a node that is there already is brought up to date.

use std::collections::BTreeMap;

use super::ready::{Outdated, READY_LIMIT, Report, ready_again};
use super::{Lane, peers, split};
use crate::api::{Client, NodeStatus};
use crate::bundle::Blob;
use crate::cancel::Cancel;
use crate::change::{self, Change};
use crate::cluster::finish::explained;
use crate::cluster::rollout::Turn;
use crate::failure::{Kind, Result};
use crate::inventory::NetworkPlugin;
use crate::message::{Foreseen, NetworkOrder, RefreshOrder, RehearseOrder, Request};

impl Lane<'_> {
    /// A member is brought to the configuration as it is now, where it differs: in its turn, for its runtime and its kubelet may
    /// start anew, and until it works again.
    pub(super) async fn bring_up_to_date(&self, images: &[Blob]) -> Result<u32> {
        let order = self.documents.for_refresh(self.inventory, &self.session.host, &self.plan.node)?;
        let mut requests = self.plays()?;
        requests.push(Request::Refresh(order.clone()));
        let rehearsal = RehearseOrder { cluster: self.inventory.cluster.name.clone(), requests };
        let foreseen: Vec<Foreseen> = self.ask(Request::Rehearse(rehearsal)).await?;
        let differs = foreseen.iter().any(|foreseen| !foreseen.changes.is_empty());
        let changes = if differs {
            let turn = self.turn().await?;
            let restarts = foreseen.iter().flat_map(|foreseen| &foreseen.changes).any(is_start_of_kubelet);
            self.rollout.in_turn(&self.plan.name, turn, self.change(order, restarts)).await?
        } else {
            let images = self.transfer("images", "import images", images);
            let (balancer, images) = futures::try_join!(self.balance(), images)?;
            balancer + images
        };
        self.rollout.done(&self.plan.name);
        Ok(changes)
    }

    /// What a member does in its turn. It ends when the node is Ready again, if it was: others of its kind may not be so lucky.
    async fn change(&self, order: RefreshOrder, restarts: bool) -> Result<u32> {
        let api = self.board.api.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
        let before = Report::of(&api, &self.plan.name).await;
        let mut changes = self.prepare(&[]).await?;
        // A runtime that did not run could not tell which images it has.
        let images = split(self.lacking().await?).1;
        let images = self.transfer("images", "import images", &images);
        let (balancer, images) = futures::try_join!(self.balance(), images)?;
        changes += balancer + images + self.ask::<u32>(Request::Refresh(order)).await?;
        if before.ready {
            // Without its network no node is: one that lost it gets it before it is waited for.
            changes += self.network_of_before().await?;
            let outdated = if restarts { Outdated::Same(before.when) } else { Outdated::None };
            self.ready_again(&api, &outdated).await?;
        }
        Ok(changes)
    }

    /// Waits until this host's node, which was Ready, is so again.
    pub(super) async fn ready_again(&self, api: &Client, outdated: &Outdated) -> Result<()> {
        let step = self.session.events.step("ready-again", "wait until the node is ready again");
        let again = tokio::select! {
            again = ready_again(api, &self.plan.name, outdated, READY_LIMIT) => again,
            () = self.cancel.cancelled() => Err(Cancel::failure()),
        };
        let again = match again {
            Err(failure) if failure.kind == Kind::Cluster => Err(explained(self.session, failure, Vec::new()).await),
            again => again,
        };
        step.end(again.map_err(|failure| failure.on(&self.plan.name)))
    }

    /// The pod network of a member as it was before this run.
    pub(super) async fn network_of_before(&self) -> Result<u32> {
        let network = &self.inventory.cluster.network;
        let nodes = self.board.nodes_before.wait().await.map_err(|failure| failure.on(&self.plan.name))?;
        let own = nodes.iter().find(|node| node.name == self.plan.name).and_then(NodeStatus::pod_network);
        let Some(own) = own.filter(|_| network.plugin != NetworkPlugin::None) else { return Ok(0) };
        let order = NetworkOrder {
            pod_network: own,
            cluster_network: network.pods,
            address: self.plan.node.address,
            peers: peers(&nodes, &self.plan.name, &BTreeMap::new()),
        };
        self.ask(Request::Network(order)).await
    }

    /// Waits for this host's turn to change.
    async fn turn(&self) -> Result<Turn<'_>> {
        let step = self.session.events.step("turn", "wait for its turn to change");
        let turn = self.rollout.turn(self.session.host.role).await;
        step.end(turn.map_err(|failure| failure.on(&self.plan.name)))
    }
}

/// Whether a change has the kubelet start anew.
fn is_start_of_kubelet(change: &Change) -> bool {
    let starts = ["start", "restart"].contains(&change.detail.as_str());
    change.kind == change::Kind::Unit && change.subject == "kubelet.service" && starts
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::is_start_of_kubelet;
    use crate::change::{Action, Change, Kind};

    #[rstest]
    #[case(Kind::Unit, "kubelet.service", "restart", true)]
    #[case(Kind::Unit, "kubelet.service", "start", true)]
    #[case(Kind::Unit, "kubelet.service", "enable", false)]
    #[case(Kind::Unit, "containerd.service", "restart", false)]
    #[case(Kind::Phase, "kubelet-start", "", false)]
    fn a_kubelet_that_starts_anew(#[case] kind: Kind, #[case] what: &str, #[case] how: &str, #[case] expected: bool) {
        assert_eq!(is_start_of_kubelet(&Change::new(kind, Action::Update, what).detailed(how)), expected);
    }
}
