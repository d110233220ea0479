//! The end of `up`: all nodes Ready, labels as wanted, system pods running.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use super::board::Board;
use super::connect::Session;
use super::prune::is_strange;
use crate::api::{Awaited, Missing, NodeStatus, PodStatus, READY};
use crate::cancel::Cancel;
use crate::event::Events;
use crate::failure::{Failure, Result};
use crate::inventory::{Host, Inventory, NetworkPlugin};
use crate::message::{Request, SettleOrder, Settled, Unsettled};

/// How long a node may take to appear with its pod network, or to become Ready.
pub const NODE_LIMIT: Duration = Duration::from_secs(240);

/// Labels of the inventory that a node does not carry, as `key=value`.
pub fn lacking_labels(host: &Host, node: &NodeStatus) -> Vec<String> {
    node.lacking(&host.labels).map(|(key, value)| format!("{key}={value}")).collect()
}

/// Does `work`, and has kubelets probe the pods that run meanwhile, from the moment there is an API, by the agent that is beside it.
pub async fn while_probing<Done>(board: &Board, source: Option<&Session>, work: impl Future<Output = Done>) -> Done {
    let probing = async {
        if let (Some(session), Ok(_)) = (source, board.api.wait().await) {
            // Where it does not go on pods get Ready by themselves.
            let _ = session.agent.ask::<()>(Request::Probe).await;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        done = work => done,
        never = probing => match never {},
    }
}

/// What is wanted in the end.
pub struct End<'a> {
    /// The inventory.
    pub inventory: &'a Inventory,
    /// The hosts that are nodes.
    pub joined: &'a BTreeSet<String>,
    /// The static pods of a control plane.
    pub components: &'a [&'static str],
}

impl End<'_> {
    /// Nodes and pods that are waited for. Without a pod network of ours none is: a node gets Ready when the user brings one.
    fn awaited(&self) -> Option<Awaited> {
        if self.inventory.cluster.network.plugin == NetworkPlugin::None {
            return None;
        }
        let control_planes = self.inventory.control_planes().filter(|host| self.joined.contains(&host.name));
        let static_pods = control_planes.flat_map(|host| {
            self.components.iter().map(move |component| (format!("{component}-{}", host.name), host.name.clone()))
        });
        Some(Awaited { nodes: self.joined.clone(), static_pods: static_pods.collect() })
    }

    /// The labels of nodes, where they may lack them.
    fn labels(&self, nodes: Option<&[NodeStatus]>) -> BTreeMap<String, BTreeMap<String, String>> {
        let node = |host: &Host| nodes.into_iter().flatten().find(|node| node.name == host.name);
        // Of what nobody has seen nothing is known.
        let lacks = |host: &Host| !host.labels.is_empty() && node(host).is_none_or(|node| !node.carries(&host.labels));
        let hosts = self.inventory.hosts.iter().filter(|host| self.joined.contains(&host.name) && lacks(host));
        hosts.map(|host| (host.name.clone(), host.labels.clone())).collect()
    }

    /// How far it is, where nothing is left to do or to wait for. A static pod that is not shown where nothing was altered is not
    /// waited for: most likely it never will be.
    fn is_there(&self, nodes: &[NodeStatus], pods: &[PodStatus]) -> Option<Missing> {
        let missing = self.awaited().map(|awaited| awaited.missing(nodes, pods)).unwrap_or_default();
        let is_marked = pods.iter().any(|pod| pod.marked);
        (missing.at_most_hidden() && !is_marked && self.labels(Some(nodes)).is_empty()).then_some(missing)
    }

    /// Waits until all nodes are Ready and the pods of kube-system run, and labels nodes; how many were labelled, and what did not
    /// get ready, with the last lines of a host that it is about. The agent of the control plane that everything is asked of does
    /// that, beside its API server. Where nothing was altered, what was seen `before` is as good as a look now: where that is well
    /// nobody is asked. Nodes that the inventory does not name are named in a warning.
    pub async fn settle(
        &self,
        source: &Session,
        before: Option<(Vec<NodeStatus>, Vec<PodStatus>)>,
        sessions: &[Session],
        events: &Events,
        cancel: &Cancel,
    ) -> (u32, Result<()>) {
        let awaited = self.awaited();
        let step = awaited.is_some().then(|| events.step(READY, "wait until ready"));
        let end = |result| match step {
            Some(step) => step.end(result),
            None => result,
        };
        let seen = before.as_ref().map(|(nodes, _)| nodes.as_slice());
        if let Some((nodes, pods)) = &before
            && let Some(missing) = self.is_there(nodes, pods)
        {
            if awaited.is_some() {
                events.send(missing.progress());
            }
            warn_of_hidden(&missing.hidden, events);
            self.warn_of_strangers(nodes.iter().map(|node| node.name.as_str()), events);
            return (0, end(Ok(())));
        }
        let order = SettleOrder { awaited, labels: self.labels(seen), limit_seconds: NODE_LIMIT.as_secs() };
        let settled = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Cancel::failure()),
            settled = source.agent.ask::<Settled>(Request::Settle(order)) => settled,
        };
        let Settled { nodes, changes, hidden, unsettled } = match settled {
            Ok(settled) => settled,
            Err(failure) => return (0, end(Err(failure))),
        };
        self.warn_of_strangers(nodes.iter().map(String::as_str), events);
        warn_of_hidden(&hidden, events);
        let Some(Unsettled { failure, behind }) = unsettled else { return (changes, end(Ok(()))) };
        let session = |name: &str| sessions.iter().find(|session| session.host.name == name);
        let failure = match behind.and_then(|behind| Some((session(&behind.node)?, behind.containers))) {
            Some((session, containers)) => explained(session, failure, containers).await.on(&session.host.name),
            None => failure,
        };
        (changes, end(Err(failure)))
    }

    fn warn_of_strangers<'a>(&self, nodes: impl Iterator<Item = &'a str>, events: &Events) {
        for name in nodes.filter(|name| is_strange(self.inventory, name)) {
            events.warn(format!("the node {name} is not in the inventory; `clusterctl up --prune` takes it out"));
        }
    }
}

/// Static pods that run unseen: whether they work was asked of themselves.
fn warn_of_hidden(pods: &[String], events: &Events) {
    if !pods.is_empty() {
        let pods = pods.join(", ");
        events.warn(format!(
            "the API does not show {pods} yet; where it stays so, a policy of the cluster refuses such pods"
        ));
    }
}

/// A failure with what the logs of a host say of it, the containers' of kube-system and the kubelet's. As it is where the host does
/// not answer.
pub async fn explained(session: &Session, failure: Failure, components: Vec<String>) -> Failure {
    let request = Request::Explain { failure: failure.clone(), components };
    session.agent.ask(request).await.unwrap_or(failure)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{End, NodeStatus, PodStatus};
    use crate::cluster::plan::tests::inventory;
    use crate::inventory::NetworkPlugin;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn node(name: &str, ready: bool, labels: &[(&str, &str)]) -> NodeStatus {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NodeStatus { labels, ..NodeStatus::plain(name, ready) }
    }

    fn static_pod(component: &str) -> PodStatus {
        PodStatus {
            namespace: "kube-system".into(),
            name: format!("{component}-cp1"),
            node: "cp1".into(),
            phase: "Running".into(),
            ready: true,
            reason: String::new(),
            mirror: true,
            waiting: false,
            restarts: 0,
            unready: Vec::new(),
            marked: false,
        }
    }

    const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

    #[test]
    fn the_static_pods_of_control_planes_that_joined_are_waited_for() {
        let mut inventory = inventory();
        let end = |joined: BTreeSet<String>, components| {
            End { inventory: &inventory, joined: &joined, components }.awaited().unwrap()
        };
        let both = end(names(&["cp1", "w1"]), &COMPONENTS);
        assert_eq!(both.nodes, names(&["cp1", "w1"]));
        let pods = COMPONENTS.map(|component| (format!("{component}-cp1"), "cp1".to_owned()));
        assert_eq!(both.static_pods, pods.into());
        assert!(!end(names(&["cp1"]), &COMPONENTS[1..]).static_pods.contains_key("etcd-cp1"));
        assert!(end(names(&["w1"]), &COMPONENTS).static_pods.is_empty());
        // The user's pod network comes when it comes.
        inventory.cluster.network.plugin = NetworkPlugin::None;
        let joined = names(&["cp1"]);
        assert_eq!(End { inventory: &inventory, joined: &joined, components: &COMPONENTS }.awaited(), None);
    }

    #[test]
    fn nobody_is_asked_where_what_was_seen_before_is_well() {
        let mut inventory = inventory();
        inventory.hosts[1].labels = [("disk".to_owned(), "ssd".to_owned())].into();
        let joined = names(&["cp1", "w1"]);
        let end = End { inventory: &inventory, joined: &joined, components: &COMPONENTS };
        let pods = COMPONENTS.map(static_pod);
        let nodes = |ready, labels| [node("cp1", true, &[]), node("w1", ready, labels)];
        let well = nodes(true, &[("disk", "ssd")]);
        assert_eq!(end.is_there(&well, &pods).map(|missing| missing.total), Some(6));
        assert_eq!(end.is_there(&nodes(false, &[("disk", "ssd")]), &pods), None);
        assert!(end.is_there(&well, &pods[1..]).is_some(), "a static pod that is never shown");
        let mut marked = pods.clone();
        marked[0].marked = true;
        assert_eq!(end.is_there(&well, &marked), None, "a mark that a killed agent left");
        assert_eq!(end.is_there(&nodes(true, &[("disk", "hdd")]), &pods), None);
        let lacking = end.labels(Some(&nodes(true, &[])));
        assert_eq!(lacking, [("w1".to_owned(), inventory.hosts[1].labels.clone())].into());
        assert!(end.labels(Some(&well)).is_empty());
        assert_eq!(end.labels(Some(&well[..1])).len(), 1, "it was not there then");
        assert_eq!(end.labels(None).len(), 1, "nobody has looked");
    }
}
