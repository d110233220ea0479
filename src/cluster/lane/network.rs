//! A host's part of the pod network during `up`: its own, and the ways to all others.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Lane;
use crate::api::NodeStatus;
use crate::cluster::finish::NODE_LIMIT;
use crate::failure::{Failure, Result};
use crate::inventory::NetworkPlugin;
use crate::message::{NetworkOrder, OwnNetwork, Peer, Request};

/// The ways from a node to the pods of every other node the cluster knows, also of those whose lane failed in this run;
/// `told` are pod networks that lanes know already.
pub(in crate::cluster) fn peers(nodes: &[NodeStatus], own: &str, told: &BTreeMap<String, IpNet>) -> Vec<Peer> {
    let others = nodes.iter().filter(|node| node.name != own);
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

/// Whether nodes as they were say of every host what its lane has told: one whose Node was lost has another now.
fn tell_of(nodes: &[NodeStatus], told: &BTreeMap<String, IpNet>) -> bool {
    let known = |(name, network): (&String, &IpNet)| {
        nodes.iter().any(|node| node.name == *name && node.pod_network() == Some(*network))
    };
    told.iter().all(known)
}

impl Lane<'_> {
    /// A node that was a member has its ways to the others, also a control plane that does not serve now and is to join again:
    /// taking them away for a moment would hurt.
    pub(super) fn is_new(&self) -> bool {
        !self.plan.member && !self.session.facts.kubernetes.kubelet_conf
    }

    /// The host's part of the pod network, with the ways to these nodes.
    pub(super) fn own_network(&self, peers: Vec<Peer>) -> OwnNetwork {
        OwnNetwork { cluster_network: self.inventory.cluster.network.pods, address: self.plan.node.address, peers }
    }

    /// The pod network: first the node's own part, so that it gets Ready, with the ways that are known; then those to all others.
    /// What was set up of it with the join has `begun`.
    pub(super) async fn network(&self, begun: Option<NetworkOrder>) -> Result<u32> {
        if self.inventory.cluster.network.plugin == NetworkPlugin::None {
            return Ok(0);
        }
        let own = match &begun {
            Some(begun) => begun.pod_network,
            None => self.pod_network().await?,
        };
        let order = |peers| self.own_network(peers).of(own);
        let first = match &begun {
            Some(_) => None,
            None => self.is_new().then(|| order(self.board.ways_besides(&self.plan.name))),
        };
        self.board.tell_way(&self.plan.name, Some(Peer { address: self.plan.node.address, pod_network: own }));
        let own_part = async {
            match first.clone() {
                Some(first) => self.ask::<u32>(Request::Network(first)).await,
                None => Ok(0),
            }
        };
        let (changes, peers) = futures::try_join!(own_part, self.peers())?;
        let wanted = order(peers);
        if begun.or(first).is_some_and(|there| there == wanted) {
            return Ok(changes);
        }
        Ok(changes + self.ask::<u32>(Request::Network(wanted)).await?)
    }

    /// The ways to all others, when all who join are there.
    async fn peers(&self) -> Result<Vec<Peer>> {
        let all = self.board.pod_networks(self.hosts).await;
        let before = self.board.nodes_before.kept().and_then(Result::ok);
        let nodes = match before.filter(|nodes| !self.newcomers && tell_of(nodes, &all)) {
            Some(nodes) => nodes,
            None => self.board.nodes_after().await.map_err(|failure| failure.on(&self.plan.name))?,
        };
        Ok(peers(&nodes, &self.plan.name, &all))
    }

    /// The pod network of the host's node; that of a member was known before this run.
    async fn pod_network(&self) -> Result<IpNet> {
        let of_host = |failure: Failure| failure.on(&self.plan.name);
        if self.is_old && self.plan.member {
            let nodes = self.board.nodes_before.wait().await.map_err(of_host)?;
            let own = nodes.iter().find(|node| node.name == self.plan.name).and_then(NodeStatus::pod_network);
            if let Some(own) = own {
                return Ok(own);
            }
        }
        let api = self.board.api.wait().await.map_err(of_host)?;
        api.pod_network(&self.plan.name, NODE_LIMIT).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::{peers, tell_of};
    use crate::api::NodeStatus;

    fn node(name: &str, address: &str, network: Option<&str>) -> NodeStatus {
        NodeStatus {
            pod_networks: network.map(|network| network.parse().unwrap()).into_iter().collect(),
            addresses: vec![address.parse().unwrap()],
            ..NodeStatus::plain(name, true)
        }
    }

    fn nodes() -> Vec<NodeStatus> {
        vec![
            node("cp1", "10.0.0.11", Some("10.244.0.0/24")),
            node("w1", "10.0.0.21", Some("10.244.1.0/24")),
            node("new", "10.0.0.22", None),
        ]
    }

    fn told(text: &str) -> BTreeMap<String, ipnet::IpNet> {
        let pair = |pair: &str| pair.split_once('=').map(|(name, network)| (name.into(), network.parse().unwrap()));
        text.split_whitespace().filter_map(pair).collect()
    }

    #[rstest]
    #[case::all_members("cp1=10.244.0.0/24 w1=10.244.1.0/24", true)]
    #[case::one_failed("cp1=10.244.0.0/24", true)]
    #[case::a_node_that_was_lost_and_came_again("cp1=10.244.0.0/24 w2=10.244.2.0/24", false)]
    #[case::with_another_network("w1=10.244.7.0/24", false)]
    #[case::that_had_none("new=10.244.2.0/24", false)]
    fn nodes_of_before_serve_as_long_as_they_are_the_same(#[case] lanes: &str, #[case] serve: bool) {
        assert_eq!(tell_of(&nodes(), &told(lanes)), serve);
    }

    #[test]
    fn ways_lead_to_all_other_nodes_also_to_those_that_no_lane_told_of() {
        let peers = |own: &str, lanes: &str| {
            let peers = peers(&nodes(), own, &told(lanes)).into_iter();
            peers.map(|peer| format!("{} by {}", peer.pod_network, peer.address)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(peers("cp1", ""), "10.244.1.0/24 by 10.0.0.21");
        assert_eq!(peers("w1", "new=10.244.2.0/24"), "10.244.0.0/24 by 10.0.0.11, 10.244.2.0/24 by 10.0.0.22");
    }
}
