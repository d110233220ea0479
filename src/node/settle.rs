//! The end of `up`, beside an API server: all nodes Ready, system pods running, labels as wanted. What is looked at several
//! times a second, and every look at a pod that a kubelet is asked for, would cost a round trip each from the laptop.

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

use super::own_server;
use crate::api::{self, Awaited, Client, NodeStatus, Probes};
use crate::event::What;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::message::{SettleOrder, Settled, Unsettled};

/// Where the pods that are waited for are.
const NAMESPACE: &str = "kube-system";

/// How often it is looked while waiting.
const POLL: Duration = Duration::from_millis(150);

/// How often it is looked for pods to probe while other things are done.
const PROBE_POLL: Duration = Duration::from_millis(300);

/// The longest pause between two looks: one that failed by its own limit says nothing of how much it is.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a static pod that is not shown is waited for when all else is ready. A kubelet that was refused it shows it within seconds.
const HIDDEN_LIMIT: Duration = Duration::from_secs(30);

/// How long taking annotations away may take when nobody waits for it.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Has kubelets look at the pods of kube-system that are not ready, until `settling`: a look that was begun is finished.
///
/// # Errors
/// Kind `Cluster` where this host has no API server.
pub async fn probe(host: &dyn Host, probes: &Mutex<Probes>, settling: watch::Receiver<bool>) -> Result<()> {
    let client = own_server::client(host).await?;
    probe_with(&client, probes, settling).await;
    Ok(())
}

async fn probe_with(client: &Client, probes: &Mutex<Probes>, mut settling: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(PROBE_POLL);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = settling.wait_for(|settling| *settling) => return,
        }
        let mut probes = probes.lock().await;
        if *settling.borrow() {
            return;
        }
        let began = Instant::now();
        if let Ok(pods) = api::pods(client, NAMESPACE).await {
            probes.ask(client, &pods).await;
        }
        looks.reset_after(pause(PROBE_POLL, began));
    }
}

/// Until the next look after one that `began` then: a server for which a look is much is not asked all the time.
fn pause(least: Duration, began: Instant) -> Duration {
    least.max((3 * began.elapsed()).min(LONGEST_PAUSE))
}

/// Takes the annotations of [`probe`] away where nothing was waited for in the end.
pub async fn end_probing(host: &dyn Host, probes: &Mutex<Probes>) {
    let mut probes = probes.lock().await;
    if probes.have_asked()
        && let Ok(client) = own_server::client(host).await
    {
        probes.end(&client.hurried(END_LIMIT)).await;
    }
}

/// Waits for what is ordered, and labels nodes.
///
/// # Errors
/// Kind `Cluster` where this host has no API server, or it does not answer. What does not get ready is part of the answer.
pub async fn settle(
    host: &dyn Host,
    order: &SettleOrder,
    probes: &Mutex<Probes>,
    tell: &(dyn Fn(What) + Sync),
) -> Result<Settled> {
    settle_with(&own_server::client(host).await?, order, probes, tell).await
}

async fn settle_with(
    client: &Client,
    order: &SettleOrder,
    probes: &Mutex<Probes>,
    tell: &(dyn Fn(What) + Sync),
) -> Result<Settled> {
    let mut probes = probes.lock().await;
    let Ended { nodes, hidden, mut unsettled } = match &order.awaited {
        None => {
            let (nodes, pods) = futures::try_join!(api::nodes(client), api::pods(client, NAMESPACE))?;
            probes.note(&pods);
            Ended { nodes, ..Ended::default() }
        }
        Some(awaited) => wait(client, awaited, Duration::from_secs(order.limit_seconds), &mut probes, tell).await,
    };
    probes.end(client).await;
    let mut changes = 0;
    for (name, labels) in &order.labels {
        if !nodes.iter().any(|node| node.name == *name && !node.carries(labels)) {
            continue;
        }
        match api::label_node(client, name, labels).await {
            Ok(labelled) => changes += u32::from(labelled),
            Err(failure) => {
                // It is about that host, not about the one that says it. What comes after it would most likely fail as well.
                unsettled.get_or_insert(Unsettled { failure: failure.on(name), behind: None });
                break;
            }
        }
    }
    Ok(Settled { nodes: nodes.into_iter().map(|node| node.name).collect(), changes, hidden, unsettled })
}

/// How a wait ended.
#[derive(Default)]
struct Ended {
    /// All nodes as they were seen last.
    nodes: Vec<NodeStatus>,
    /// Static pods that nobody waited for any more.
    hidden: Vec<String>,
    /// What was still missing.
    unsettled: Option<Unsettled>,
}

/// Waits until nothing is missing.
async fn wait(
    client: &Client,
    awaited: &Awaited,
    limit: Duration,
    probes: &mut Probes,
    tell: &(dyn Fn(What) + Sync),
) -> Ended {
    let started = Instant::now();
    let mut ended = Ended::default();
    let (mut behind, mut told, mut hidden_since) = (None, None, None);
    let mut looks = tokio::time::interval(POLL);
    loop {
        looks.tick().await;
        let began = Instant::now();
        let failure = match futures::try_join!(api::nodes(client), api::pods(client, NAMESPACE)) {
            Ok((nodes, pods)) => {
                let missing = awaited.missing(&nodes, &pods);
                ended.nodes = nodes;
                let now = missing.progress();
                if told.as_ref() != Some(&now) {
                    tell(now.clone());
                    told = Some(now);
                }
                probes.note(&pods);
                if missing.what.is_empty() {
                    return ended;
                }
                let since = *hidden_since.get_or_insert(began);
                if !missing.at_most_hidden() {
                    hidden_since = None;
                } else if since.elapsed() >= HIDDEN_LIMIT || started.elapsed() >= limit {
                    return Ended { hidden: missing.hidden, ..ended };
                }
                probes.ask(client, &pods).await;
                behind = missing.behind;
                Failure::new(Kind::Cluster, format!("still not ready: {}", missing.what.join(", ")))
                    .advise("look with `clusterctl status` and `clusterctl kubectl -- get pods -A`, then run the same command again")
                    .may_pass()
            }
            Err(failure) => failure,
        };
        if started.elapsed() > limit {
            return Ended { unsettled: Some(Unsettled { failure, behind }), ..ended };
        }
        looks.reset_after(pause(POLL, began));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::sync::{Mutex, watch};

    use super::{pause, probe_with, settle_with};
    use crate::api::fake::FakeApi;
    use crate::api::{Awaited, Probes};
    use crate::event::What;
    use crate::message::SettleOrder;

    fn node(ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({"kind": "Node", "metadata": {"name": "cp1"}, "status": {"conditions": [{"type": "Ready", "status": status}]}})
    }

    fn pod(ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "coredns", "namespace": "kube-system"},
            "spec": {"nodeName": "cp1"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}],
                "containerStatuses": [{"name": "coredns", "ready": ready, "state": {"running": {}}}]}})
    }

    fn order(limit_seconds: u64) -> SettleOrder {
        let awaited = Awaited { nodes: ["cp1".to_owned()].into(), ..Awaited::default() };
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        let labels = [("cp1".to_owned(), labels), ("w9".to_owned(), [("a".to_owned(), "b".to_owned())].into())];
        SettleOrder { awaited: Some(awaited), labels: labels.into(), limit_seconds }
    }

    #[tokio::test]
    async fn it_is_waited_until_nothing_is_missing_and_nodes_that_are_there_are_labelled() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        api.put(node(false));
        api.put(pod(false));
        let (sender, mut happened) = tokio::sync::mpsc::unbounded_channel();
        let tell = |what| drop(sender.send(what));
        let probes = Mutex::default();
        let order = order(60);
        let becoming = async {
            let mut told = Vec::new();
            while let Some(event) = happened.recv().await {
                let What::StepProgressed { done, total, item, .. } = event else { continue };
                match (told.len(), &item) {
                    (0, _) => api.put(node(true)),
                    (1, _) => api.put(pod(true)),
                    _ => {}
                }
                told.push((done, total, item));
                if told.len() == 3 {
                    break;
                }
            }
            told
        };
        let (settled, told) = tokio::join!(settle_with(&client, &order, &probes, &tell), becoming);
        let item = |text: &str| Some(text.to_owned());
        let pod = item("pod coredns (not reported yet)");
        assert_eq!(told, [(0, 2, item("node cp1")), (1, 2, pod), (2, 2, None)]);
        let settled = settled.unwrap();
        assert_eq!((settled.nodes, settled.changes, settled.unsettled), (vec!["cp1".to_owned()], 1, None));
        assert_eq!(api.object("/api/v1/nodes/cp1").unwrap()["metadata"]["labels"]["disk"], "ssd");
    }

    #[tokio::test]
    async fn what_is_missing_after_the_limit_is_told_with_the_node_it_is_missing_of() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        api.put(node(true));
        api.put(pod(false));
        let settled = settle_with(&client, &order(0), &Mutex::default(), &|_| {}).await.unwrap();
        let unsettled = settled.unsettled.unwrap();
        let sentence = "still not ready: pod coredns (not reported yet)";
        assert_eq!(unsettled.failure.sentence, sentence);
        let behind = unsettled.behind.unwrap();
        assert_eq!((behind.node.as_str(), behind.containers), ("cp1", vec!["coredns".to_owned()]));
        assert_eq!((settled.nodes.len(), settled.changes), (1, 1));
    }

    #[tokio::test]
    async fn a_static_pod_that_is_never_shown_is_told_and_holds_up_nobody_for_ever() {
        let api = FakeApi::start().await;
        api.put(node(true));
        let mut order = order(0);
        let awaited = order.awaited.as_mut().unwrap();
        awaited.static_pods = [("etcd-cp1".to_owned(), "cp1".to_owned())].into();
        let settled = settle_with(&api.client().await, &order, &Mutex::default(), &|_| {}).await.unwrap();
        assert_eq!((settled.hidden, settled.unsettled), (vec!["etcd-cp1".to_owned()], None));
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_labelled_is_the_one_that_is_named() {
        let api = FakeApi::start().await;
        api.put(node(true));
        let order = SettleOrder { awaited: None, ..order(0) };
        let client = api.client().await;
        let refusing = api.clone();
        // The lists are answered, what follows is not.
        let probes = Mutex::default();
        let settling = settle_with(&client, &order, &probes, &|_| {});
        let refuse = async {
            while refusing.requests().len() < 2 {
                tokio::task::yield_now().await;
            }
            refusing.refuse_next(1, 403, "Forbidden");
        };
        let (settled, ()) = tokio::join!(settling, refuse);
        let unsettled = settled.unwrap().unsettled.unwrap();
        assert_eq!(unsettled.failure.host.as_deref(), Some("cp1"));
    }

    #[tokio::test]
    async fn where_nobody_waits_nodes_are_labelled_as_they_are() {
        let api = FakeApi::start().await;
        api.put(node(false));
        let order = SettleOrder { awaited: None, ..order(0) };
        let client = api.client().await;
        let settled = settle_with(&client, &order, &Mutex::default(), &|_| {}).await.unwrap();
        assert_eq!((settled.changes, settled.unsettled), (1, None));
    }

    #[tokio::test]
    async fn kubelets_are_asked_to_look_until_the_wait_begins_which_takes_the_marks_away() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        api.put(node(true));
        api.put(pod(false));
        let mark = || {
            let pod = api.object("/api/v1/namespaces/kube-system/pods/coredns").unwrap();
            pod["metadata"]["annotations"]["clusterctl/look"].as_str().map(str::to_owned)
        };
        let probes: Mutex<Probes> = Mutex::default();
        let (settling, seen) = watch::channel(false);
        let probing = probe_with(&client, &probes, seen);
        let marked = async {
            while mark().is_none() {
                tokio::task::yield_now().await;
            }
            settling.send_replace(true);
        };
        tokio::join!(probing, marked);
        assert!(probes.lock().await.have_asked());
        let client = api.client().await;
        settle_with(&client, &order(0), &probes, &|_| {}).await.unwrap();
        assert_eq!(mark(), None);
        assert!(!probes.lock().await.have_asked());
    }

    #[test]
    fn a_server_for_which_a_look_is_much_is_asked_less_often() {
        let ago = |seconds| std::time::Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let least = Duration::from_millis(150);
        assert_eq!(pause(least, std::time::Instant::now()), least);
        assert!(pause(least, ago(1)) >= Duration::from_secs(3));
        assert_eq!(pause(least, ago(10)), Duration::from_secs(5));
    }
}
