//! The end of `up`: all nodes Ready, labels as wanted, system pods running.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use super::board::Board;
use super::connect::Session;
use super::prune::strangers;
use crate::api;
use crate::cancel::Cancel;
use crate::event::{Events, Unit};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Host, Inventory, NetworkPlugin};
use crate::message::Request;

/// How long a node may take to appear with its pod network, or to become Ready.
pub const NODE_LIMIT: Duration = Duration::from_secs(240);

/// How often the API is asked while waiting.
const POLL: Duration = Duration::from_millis(150);

/// How often it is looked for pods to probe.
const PROBE_POLL: Duration = Duration::from_millis(300);

/// Sets the labels of the inventory on these nodes, where they lack them; returns how many were altered. Nodes that the
/// inventory does not name are named in a warning.
pub async fn label(
    api: &api::Client,
    inventory: &Inventory,
    nodes: &[api::NodeStatus],
    joined: &BTreeSet<String>,
    events: &Events,
) -> Result<u32> {
    for node in strangers(inventory, nodes) {
        events.warn(format!("the node {} is not in the inventory; `clusterctl up --prune` takes it out", node.name));
    }
    let mut changes = 0;
    for host in inventory.hosts.iter().filter(|host| joined.contains(&host.name)) {
        let Some(node) = nodes.iter().find(|node| node.name == host.name) else { continue };
        if !lacking_labels(host, node).is_empty() {
            api::label_node(api, &host.name, &host.labels).await.map_err(|failure| failure.on(&host.name))?;
            changes += 1;
        }
    }
    Ok(changes)
}

/// Labels of the inventory that a node does not carry, as `key=value`.
pub fn lacking_labels(host: &Host, node: &api::NodeStatus) -> Vec<String> {
    let lacking = host.labels.iter().filter(|(key, value)| node.labels.get(*key) != Some(value));
    lacking.map(|(key, value)| format!("{key}={value}")).collect()
}

/// Does `work`, and has kubelets probe the pods that run meanwhile, from the moment there is an API.
pub async fn while_probing<Done>(board: &Board, work: impl Future<Output = Done>) -> Done {
    let mut probes = api::Probes::default();
    let done = tokio::select! {
        done = work => done,
        never = probe(board, &mut probes) => match never {},
    };
    if let Some(Ok(api)) = board.api.kept() {
        probes.end(&api).await;
    }
    done
}

async fn probe(board: &Board, probes: &mut api::Probes) -> Infallible {
    let Ok(api) = board.api.wait().await else { return std::future::pending().await };
    let mut interval = tokio::time::interval(PROBE_POLL);
    loop {
        interval.tick().await;
        if let Ok(pods) = api::pods(&api, "kube-system").await {
            probes.ask(&api, &pods).await;
        }
    }
}

/// Waits until these nodes are Ready and the pods of kube-system run. Without a pod network of ours a node is not
/// waited for: it gets Ready when the user brings one. All nodes as they were seen last come back as well. Where nothing was
/// altered, what was seen `before` is as good as a look now: then it is the first one. What does not get ready comes with the
/// last lines of a host that it is about.
pub async fn settle(
    api: &api::Client,
    inventory: &Inventory,
    joined: &BTreeSet<String>,
    before: Option<(Vec<api::NodeStatus>, Vec<api::PodStatus>)>,
    sessions: &[Session],
    events: &Events,
    cancel: &Cancel,
) -> (Vec<api::NodeStatus>, Result<()>) {
    if inventory.cluster.network.plugin == NetworkPlugin::None {
        let nodes = match before {
            Some((nodes, _)) => Ok(nodes),
            None => api::nodes(api).await,
        };
        return match nodes {
            Ok(nodes) => (nodes, Ok(())),
            Err(failure) => (Vec::new(), Err(failure)),
        };
    }
    let step = events.step("ready", "wait until ready");
    let started = std::time::Instant::now();
    let mut interval = tokio::time::interval(POLL);
    let (mut seen, mut before, mut behind) = (Vec::new(), before, None);
    let mut last;
    let result = loop {
        interval.tick().await;
        if let Err(failure) = cancel.check() {
            break Err(failure);
        }
        let looked = match before.take() {
            Some(before) => Ok(before),
            None => futures::try_join!(api::nodes(api), api::pods(api, "kube-system")),
        };
        match looked {
            Ok((nodes, mut pods)) => {
                pods.retain(|pod| pod.node.is_empty() || joined.contains(&pod.node));
                let total = (joined.len() + pods.len()) as u64;
                let waiting = unready(&nodes, &pods, joined);
                behind = lagging(&nodes, &pods, joined);
                seen = nodes;
                step.progress(total - waiting.len() as u64, total, Unit::Items, waiting.first().map(String::as_str));
                if waiting.is_empty() {
                    break Ok(());
                }
                last = Failure::new(Kind::Cluster, format!("still not ready: {}", waiting.join(", ")))
                    .advise("look with `clusterctl status` and `clusterctl kubectl -- get pods -A`, then run the same command again")
                    .may_pass();
            }
            Err(failure) => last = failure,
        }
        if started.elapsed() > NODE_LIMIT {
            let session = |name: &str| sessions.iter().find(|session| session.host.name == name);
            break Err(match behind.and_then(|(host, components)| Some((session(&host)?, components))) {
                Some((session, components)) => explained(session, last, components).await.on(&session.host.name),
                None => last,
            });
        }
    };
    (seen, step.end(result))
}

/// A failure with what the logs of a host say of it, the containers' of kube-system and the kubelet's. As it is where the host does
/// not answer.
pub async fn explained(session: &Session, failure: Failure, components: Vec<String>) -> Failure {
    let request = Request::Explain { failure: failure.clone(), components };
    session.agent.ask(request).await.unwrap_or(failure)
}

/// The first host that something is missing of, and the containers of kube-system there that are not ready.
fn lagging(
    nodes: &[api::NodeStatus],
    pods: &[api::PodStatus],
    joined: &BTreeSet<String>,
) -> Option<(String, Vec<String>)> {
    let unsettled = || pods.iter().filter(|pod| !pod.settled() && !pod.node.is_empty());
    let ready = |name: &&String| nodes.iter().any(|node| node.name == **name && node.ready);
    let host = joined.iter().find(|name| !ready(name)).or_else(|| unsettled().map(|pod| &pod.node).next())?;
    let containers = unsettled().filter(|pod| pod.node == *host).flat_map(|pod| pod.unready.iter().cloned());
    Some((host.clone(), containers.collect::<BTreeSet<String>>().into_iter().collect()))
}

/// What is not ready yet, in words.
fn unready(nodes: &[api::NodeStatus], pods: &[api::PodStatus], joined: &BTreeSet<String>) -> Vec<String> {
    let ready = |name: &String| nodes.iter().any(|node| node.name == *name && node.ready);
    let mut waiting: Vec<String> =
        joined.iter().filter(|name| !ready(name)).map(|name| format!("node {name}")).collect();
    let unsettled = pods.iter().filter(|pod| !pod.settled());
    waiting.extend(unsettled.map(|pod| format!("pod {} ({})", pod.name, pod.reason)));
    waiting
}

#[cfg(test)]
mod tests {
    use super::{lagging, settle, unready};
    use crate::api::fake::FakeApi;
    use crate::api::{NodeStatus, PodStatus};
    use crate::cancel::Cancel;
    use crate::cluster::plan::tests::inventory;
    use crate::event::Events;

    fn node(name: &str, ready: bool) -> NodeStatus {
        NodeStatus {
            name: name.into(),
            ready,
            reason: String::new(),
            version: String::new(),
            pod_networks: Vec::new(),
            addresses: Vec::new(),
            roles: Vec::new(),
            taints: Vec::new(),
            labels: Default::default(),
        }
    }

    #[tokio::test]
    async fn nodes_that_were_ready_before_are_not_asked_for_again_where_nothing_was_altered() {
        let api = FakeApi::start().await;
        let (inventory, joined, events) = (inventory(), ["cp1".to_owned()].into(), Events::channel().0);
        let (client, cancel) = (api.client().await, Cancel::new());
        let settled = async |ready: bool| {
            let before = Some((vec![node("cp1", ready)], Vec::new()));
            settle(&client, &inventory, &joined, before, &[], &events, &cancel).await
        };
        // The API knows of no node now: it was not asked.
        assert_eq!(settled(true).await, (vec![node("cp1", true)], Ok(())));
        api.put(serde_json::json!({"kind": "Node", "metadata": {"name": "cp1"}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
        }}));
        assert_eq!(settled(false).await, (vec![node("cp1", true)], Ok(())));
    }

    #[test]
    fn nodes_and_pods_that_are_not_ready_are_named() {
        let pod = |name: &str, ready: bool| PodStatus {
            namespace: "kube-system".into(),
            name: name.into(),
            node: "cp1".into(),
            phase: if ready { "Running" } else { "Pending" }.into(),
            ready,
            reason: "ContainerCreating".into(),
            mirror: false,
            waiting: false,
            restarts: 0,
            unready: if ready { Vec::new() } else { vec!["coredns".into()] },
        };
        let joined = ["cp1", "w1", "w2"].map(str::to_owned).into();
        let nodes = [node("cp1", true), node("w1", false), node("other", false)];
        let pods = [pod("coredns-1", true), pod("coredns-2", false)];
        assert_eq!(unready(&nodes, &pods, &joined), ["node w1", "node w2", "pod coredns-2 (ContainerCreating)"]);
        assert!(unready(&nodes, &pods[..1], &["cp1".to_owned()].into()).is_empty());
        // Whose logs are read: of a node that is not ready before those of pods, which run nowhere without one.
        assert_eq!(lagging(&nodes, &pods, &joined), Some(("w1".into(), Vec::new())));
        let of_first = ["cp1".to_owned()].into();
        assert_eq!(lagging(&nodes, &pods, &of_first), Some(("cp1".into(), vec!["coredns".into()])));
        assert_eq!(lagging(&nodes, &pods[..1], &of_first), None);
    }
}
