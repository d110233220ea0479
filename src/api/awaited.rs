//! What a cluster that comes up is waited for: pure, of nodes and pods as they were seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::nodes::NodeStatus;
use super::pods::PodStatus;
use crate::event::{Unit, What};

/// The step of a run that it is.
pub const READY: &str = "ready";

/// What has to be there: nodes that are Ready, and the pods of kube-system on them, or on none yet, that run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// Static pods, and the node of each. A kubelet shows them when it comes to it: one that is not shown yet is missing, too.
    pub static_pods: BTreeMap<String, String>,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// What is not there yet, in words: nodes before pods.
    pub what: Vec<String>,
    /// How many things are waited for in all.
    pub total: u64,
    /// Those static pods of it that are not shown.
    pub hidden: Vec<String>,
    /// The first node that something is missing of.
    pub behind: Option<Behind>,
}

impl Missing {
    /// Whether at most static pods are missing that are not shown. That is not what they do: they may run unseen, where a policy of
    /// the cluster does not let a kubelet show them.
    pub fn at_most_hidden(&self) -> bool {
        self.what.len() == self.hidden.len()
    }

    /// It, as it is told of the step [`READY`].
    pub fn progress(&self) -> What {
        let done = self.total.saturating_sub(self.what.len() as u64);
        let item = self.what.first().cloned();
        What::StepProgressed { step: READY.into(), done, total: self.total, unit: Unit::Items, item }
    }
}

/// A node that something is missing of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Its name.
    pub node: String,
    /// The containers of kube-system there that are not ready.
    pub containers: Vec<String>,
}

impl Awaited {
    /// What of it these nodes and these pods of kube-system lack.
    pub fn missing(&self, nodes: &[NodeStatus], pods: &[PodStatus]) -> Missing {
        let is_ready = |name: &&String| nodes.iter().any(|node| node.name == **name && node.ready);
        let concerned = || pods.iter().filter(|pod| pod.node.is_empty() || self.nodes.contains(&pod.node));
        let unsettled = || concerned().filter(|pod| !pod.settled());
        let is_shown = |name: &String| concerned().any(|pod| pod.name == *name);
        let unready = || self.nodes.iter().filter(|name| !is_ready(name));
        let hidden = || self.static_pods.iter().filter(|(name, _)| !is_shown(name));

        let what = unready().map(|name| format!("node {name}"));
        let what = what.chain(hidden().map(|(name, _)| format!("pod {name} (its kubelet has not shown it yet)")));
        let what = what.chain(unsettled().map(|pod| format!("pod {} ({})", pod.name, pod.reason)));
        // A node that is not ready comes before pods, which run nowhere without one.
        let of_pods = unsettled().map(|pod| &pod.node).filter(|node| !node.is_empty());
        let of_hidden = hidden().map(|(_, node)| node);
        let behind = unready().chain(of_pods).chain(of_hidden).next().map(|node| {
            let containers = unsettled().filter(|pod| pod.node == *node).flat_map(|pod| pod.unready.iter().cloned());
            let containers: BTreeSet<String> = containers.collect();
            Behind { node: node.clone(), containers: containers.into_iter().collect() }
        });
        let total = self.nodes.len() + hidden().count() + concerned().count();
        let hidden = hidden().map(|(name, _)| name.clone()).collect();
        Missing { what: what.collect(), total: total as u64, hidden, behind }
    }
}

#[cfg(test)]
mod tests {
    use super::{Awaited, Behind, NodeStatus, PodStatus};

    fn pod(name: &str, node: &str, ready: bool) -> PodStatus {
        PodStatus {
            namespace: "kube-system".into(),
            name: name.into(),
            node: node.into(),
            phase: if ready { "Running" } else { "Pending" }.into(),
            ready,
            reason: "ContainerCreating".into(),
            mirror: false,
            waiting: false,
            restarts: 0,
            unready: if ready { Vec::new() } else { vec![name.split('-').next().unwrap_or(name).into()] },
            marked: false,
        }
    }

    fn awaited(nodes: &[&str], static_pods: &[(&str, &str)]) -> Awaited {
        let nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
        let static_pods = static_pods.iter().map(|(pod, node)| ((*pod).to_owned(), (*node).to_owned())).collect();
        Awaited { nodes, static_pods }
    }

    fn behind(node: &str, containers: &[&str]) -> Option<Behind> {
        Some(Behind { node: node.into(), containers: containers.iter().map(|name| (*name).to_owned()).collect() })
    }

    #[test]
    fn nodes_and_pods_that_are_not_ready_are_named_and_others_do_not_count() {
        let nodes = [NodeStatus::plain("cp1", true), NodeStatus::plain("w1", false), NodeStatus::plain("other", false)];
        let pods = [pod("coredns-1", "cp1", true), pod("coredns-2", "cp1", false), pod("proxy", "other", false)];
        let missing = awaited(&["cp1", "w1", "w2"], &[]).missing(&nodes, &pods);
        assert_eq!(missing.what, ["node w1", "node w2", "pod coredns-2 (ContainerCreating)"]);
        assert_eq!((missing.total, missing.behind), (5, behind("w1", &[])));
        let missing = awaited(&["cp1"], &[]).missing(&nodes, &pods);
        assert_eq!((missing.total, missing.behind), (3, behind("cp1", &["coredns"])));
        let missing = awaited(&["cp1"], &[]).missing(&nodes, &pods[..1]);
        assert_eq!((missing.what.len(), missing.behind), (0, None));
    }

    #[test]
    fn a_pod_that_has_no_node_yet_is_waited_for() {
        let missing = awaited(&["cp1"], &[]).missing(&[NodeStatus::plain("cp1", true)], &[pod("coredns-1", "", false)]);
        assert_eq!((missing.what.len(), missing.total, missing.behind), (1, 2, None));
    }

    #[test]
    fn a_static_pod_that_its_kubelet_has_not_shown_is_missing() {
        let nodes = [NodeStatus::plain("1", true), NodeStatus::plain("cp-1", true)];
        let (first, second) = (pod("etcd-1", "1", true), pod("etcd-cp-1", "cp-1", true));
        let both = awaited(&["1", "cp-1"], &[("etcd-1", "1"), ("etcd-cp-1", "cp-1")]);
        let missing = both.missing(&nodes, std::slice::from_ref(&first));
        assert_eq!(missing.what, ["pod etcd-cp-1 (its kubelet has not shown it yet)"]);
        assert_eq!((missing.total, missing.at_most_hidden()), (4, true));
        assert_eq!(
            (missing.hidden.as_slice(), missing.behind),
            (["etcd-cp-1".to_owned()].as_slice(), behind("cp-1", &[]))
        );
        let missing = both.missing(&nodes, &[first.clone(), pod("coredns-1", "", false)]);
        assert!(!missing.at_most_hidden());
        let missing = both.missing(&nodes, &[first, second]);
        assert_eq!((missing.what.len(), missing.at_most_hidden()), (0, true));
    }
}
