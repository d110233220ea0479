//! What the lanes of one `up` tell each other. Each value is set once and can be waited for; that is all the
//! dependency there is between hosts.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use tokio::sync::{OnceCell, watch};

use super::access::Api;
use crate::api::{self, NodeStatus, PodStatus};
use crate::cancel::Cancel;
use crate::failure::{Failure, Result};
use crate::message::{Peer, Ticket};

/// A value that somebody sets once and others wait for.
pub struct Promise<T> {
    sender: watch::Sender<Option<std::result::Result<T, Failure>>>,
}

impl<T: Clone> Promise<T> {
    /// A value that nobody has set yet.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(None) }
    }

    /// Sets the value; only the first call counts.
    pub fn keep(&self, value: std::result::Result<T, Failure>) {
        self.sender.send_if_modified(|held| {
            if held.is_some() {
                return false;
            }
            *held = Some(value);
            true
        });
    }

    /// Whether waiting returns at once.
    pub fn is_kept(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// The value, if it is there.
    pub fn kept(&self) -> Option<std::result::Result<T, Failure>> {
        self.sender.borrow().clone()
    }

    /// Waits for the value, or for the failure of the lane that should have set it.
    pub async fn wait(&self) -> Result<T> {
        let mut receiver = self.sender.subscribe();
        let held = receiver.wait_for(Option::is_some).await;
        match held.ok().and_then(|held| held.clone()) {
            Some(value) => value,
            None => Err(Cancel::failure()),
        }
    }
}

/// The promises of one `up`.
pub struct Board {
    /// What hosts join with; `None` where nobody has to.
    pub ticket: Promise<Option<Ticket>>,
    /// Access to the API of the cluster.
    pub api: Promise<Api>,
    /// The nodes of a cluster that was there before this run, as they were at its beginning: what its members need to know,
    /// asked once for all of them.
    pub nodes_before: Promise<Arc<Vec<NodeStatus>>>,
    /// The pods of kube-system, seen together with them.
    pub pods_before: OnceLock<Vec<PodStatus>>,
    nodes_after: OnceCell<Arc<Vec<NodeStatus>>>,
    ways: watch::Sender<BTreeMap<String, Option<Peer>>>,
}

impl Board {
    /// A board with nothing on it.
    pub fn new() -> Self {
        Self {
            ticket: Promise::new(),
            api: Promise::new(),
            nodes_before: Promise::new(),
            pods_before: OnceLock::new(),
            nodes_after: OnceCell::new(),
            ways: watch::Sender::new(BTreeMap::new()),
        }
    }

    /// The nodes of the cluster when all that join have a pod network; the first lane that wants them asks for all.
    ///
    /// # Errors
    /// When the cluster cannot be asked; the next lane tries again.
    pub async fn nodes_after(&self) -> Result<Arc<Vec<NodeStatus>>> {
        let asked = self.nodes_after.get_or_try_init(|| async {
            let api = self.api.wait().await?;
            api::nodes(&api).await.map(Arc::new)
        });
        asked.await.cloned()
    }

    /// Nodes and pods as they were at the beginning of this run, where both were looked at.
    pub fn seen_before(&self) -> Option<(Vec<NodeStatus>, Vec<PodStatus>)> {
        let nodes = self.nodes_before.kept()?.ok()?;
        Some((nodes.to_vec(), self.pods_before.get()?.clone()))
    }

    /// A lane tells the way to its node's pods, or `None` when it failed and nobody shall wait for it.
    pub fn tell_way(&self, host: &str, way: Option<Peer>) {
        self.ways.send_if_modified(|known| {
            if known.contains_key(host) {
                return false;
            }
            known.insert(host.to_owned(), way);
            true
        });
    }

    /// The ways that lanes have told so far, without that of one host.
    pub fn ways_besides(&self, host: &str) -> Vec<Peer> {
        let known = self.ways.borrow();
        let mut ways: Vec<Peer> =
            known.iter().filter(|(name, _)| *name != host).filter_map(|(_, way)| way.clone()).collect();
        ways.sort();
        ways
    }

    /// Waits until any host has told a way.
    pub async fn first_way(&self) {
        // The sender lives as long as the board.
        let _ = self.ways.subscribe().wait_for(|known| known.values().any(Option::is_some)).await;
    }

    /// Waits until `count` hosts have told, and returns the pod networks of those that have one.
    pub async fn pod_networks(&self, count: usize) -> BTreeMap<String, IpNet> {
        let mut receiver = self.ways.subscribe();
        let known =
            receiver.wait_for(|known| known.len() >= count).await.map(|known| known.clone()).unwrap_or_default();
        known.into_iter().filter_map(|(host, way)| way.map(|way| (host, way.pod_network))).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::{Board, Cancel, Peer};

    #[tokio::test]
    async fn waiting_ends_when_the_promise_is_kept_and_only_the_first_value_counts() {
        let board = Board::new();
        let wait = board.ticket.wait();
        board.ticket.keep(Ok(None));
        board.ticket.keep(Err(Cancel::failure()));
        assert_eq!(wait.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_failed_lane_is_not_waited_for() {
        let board = Board::new();
        let way = |number: u8| Peer {
            address: [10, 0, 0, number].into(),
            pod_network: format!("10.244.{number}.0/24").parse().unwrap(),
        };
        let first = board.first_way();
        board.tell_way("b", None);
        assert!(first.now_or_never().is_none());
        board.tell_way("a", Some(way(1)));
        board.first_way().await;
        board.tell_way("a", Some(way(2)));
        let networks = board.pod_networks(2).await;
        assert_eq!(networks.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!((board.ways_besides("b"), board.ways_besides("a")), (vec![way(1)], Vec::new()));
    }
}
