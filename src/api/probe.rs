//! Asking kubelets to look at a pod now.
//!
//! Three waits of a kubelet are longer than they need be when a cluster starts. A kubelet that could not start a pod, because
//! it has not read the cluster's services yet, tries again after 10 to 15 seconds. It runs a readiness probe when the container
//! starts, which is too early for CoreDNS by half a second, and then after the probe's whole period of 10 seconds. And a static
//! pod that it shows late is shown without its state, which follows after up to 10 seconds. But
//! it looks at a pod when its annotations change (kubelet, `HandlePodUpdates`), and whenever it looks at one that is not
//! ready it probes it (kubelet/prober, `UpdatePodStatus`). So an annotation on the Pod, which is taken away afterwards,
//! makes a pod Ready when it can be, not 10 seconds later. Nothing depends on it: where a kubelet does otherwise, the pod
//! gets Ready by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::pods::PodStatus;

/// The annotation; its value counts up.
pub(super) const ANNOTATION: &str = "clusterctl/look";

/// Between two requests for one pod, and between a pod's start and the first: the probe made at the start comes first.
const PERIOD: Duration = Duration::from_millis(600);

/// Requests for one pod. What is not ready after that many has another reason.
const LIMIT: u32 = 20;

/// The pods whose kubelets were asked.
#[derive(Debug, Default)]
pub struct Probes {
    asked: BTreeMap<(String, String), Asked>,
}

#[derive(Debug)]
struct Asked {
    last: Instant,
    count: u32,
}

impl Probes {
    /// Asks for those of these pods that a kubelet has and that are not ready, unless it was asked a moment ago. A request that fails
    /// is as good as none.
    pub async fn ask(&mut self, client: &Client, pods: &[PodStatus]) {
        let due = self.due(pods, Instant::now());
        let requests = due.iter().map(|(namespace, name, count)| annotate(client, namespace, name, json!(count)));
        futures::future::join_all(requests).await;
    }

    /// Notes those of these pods whose annotation a former run, or an agent that was killed, has left.
    pub fn note(&mut self, pods: &[PodStatus]) {
        for pod in pods.iter().filter(|pod| pod.marked) {
            let key = (pod.namespace.clone(), pod.name.clone());
            let asked = self.asked.entry(key).or_insert(Asked { last: Instant::now(), count: 1 });
            asked.count = asked.count.max(1);
        }
    }

    /// Whether any pod was asked for whose annotation has not been taken away.
    pub fn have_asked(&self) -> bool {
        self.asked.values().any(|asked| asked.count > 0)
    }

    /// Takes the annotations away.
    pub async fn end(&mut self, client: &Client) {
        let asked = std::mem::take(&mut self.asked);
        let marked = asked.iter().filter(|(_, asked)| asked.count > 0);
        let requests = marked.map(|((namespace, name), _)| annotate(client, namespace, name, Value::Null));
        futures::future::join_all(requests).await;
    }

    /// Which pods to ask for now: namespace, name, and the how manieth request it is.
    fn due(&mut self, pods: &[PodStatus], now: Instant) -> Vec<(String, String, String)> {
        let mut due = Vec::new();
        let stuck = |pod: &&PodStatus| matches!(pod.phase.as_str(), "Pending" | "Running") && !pod.ready;
        // Of a static pod that runs nobody waits for its probe.
        let waited_for = |pod: &&PodStatus| !pod.node.is_empty() && (!pod.mirror || pod.phase == "Pending");
        for pod in pods.iter().filter(stuck).filter(waited_for) {
            let key = (pod.namespace.clone(), pod.name.clone());
            let asked = self.asked.entry(key).or_insert(Asked { last: now, count: 0 });
            if now.duration_since(asked.last) >= PERIOD && asked.count < LIMIT {
                asked.last = now;
                asked.count += 1;
                due.push((pod.namespace.clone(), pod.name.clone(), asked.count.to_string()));
            }
        }
        due
    }
}

async fn annotate(client: &Client, namespace: &str, name: &str, value: Value) {
    let patch = json!({ "metadata": { "annotations": { ANNOTATION: value } } });
    // The pod may be gone by now, or the API busy: the kubelet's own time comes anyway.
    let _ = client.merge("Pod", Some(namespace), name, &patch).await;
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::{ANNOTATION, LIMIT, PERIOD, Probes};
    use crate::api::PodStatus;
    use crate::api::fake::FakeApi;

    fn pod(name: &str, phase: &str, ready: bool, mirror: bool) -> PodStatus {
        PodStatus {
            namespace: "kube-system".into(),
            name: name.into(),
            node: "cp1".into(),
            phase: phase.into(),
            ready,
            reason: String::new(),
            mirror,
            waiting: false,
            restarts: 0,
            unready: Vec::new(),
            marked: false,
        }
    }

    #[test]
    fn only_pods_that_a_kubelet_has_and_that_are_not_ready_are_asked_for_and_not_too_often() {
        let pods = [
            pod("coredns", "Running", false, false),
            pod("well", "Running", true, false),
            pod("etcd-cp1", "Running", false, true),
            pod("etcd-cp2", "Pending", false, true),
            pod("done", "Succeeded", false, false),
            PodStatus { node: String::new(), ..pod("new", "Pending", false, false) },
        ];
        let mut probes = Probes::default();
        let start = Instant::now();
        assert!(probes.due(&pods, start).is_empty(), "the probe at the start of the container comes first");
        let due = probes.due(&pods, start + PERIOD);
        let first = |name: &str| ("kube-system".to_owned(), name.to_owned(), "1".to_owned());
        assert_eq!(due, [first("coredns"), first("etcd-cp2")]);
        assert!(probes.due(&pods, start + PERIOD + Duration::from_millis(1)).is_empty());
        let later = (2..100).map(|period| probes.due(&pods, start + PERIOD * period).len()).sum::<usize>();
        assert_eq!(later as u32, 2 * (LIMIT - 1));
    }

    #[tokio::test]
    async fn an_annotation_that_another_left_is_taken_away_as_well() {
        let api = FakeApi::start().await;
        let pod = |annotations| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "coredns",
            "namespace": "kube-system", "annotations": annotations}})
        };
        api.put(pod(json!({ANNOTATION: "3", "other": "x"})));
        let client = api.client().await;
        let mut probes = Probes::default();
        probes.note(&crate::api::pods(&client, "kube-system").await.unwrap());
        assert!(probes.have_asked());
        probes.end(&client).await;
        let there = api.object("/api/v1/namespaces/kube-system/pods/coredns").unwrap();
        assert_eq!(there["metadata"]["annotations"], json!({"other": "x"}));
        probes.note(&crate::api::pods(&client, "kube-system").await.unwrap());
        assert!(!probes.have_asked());
    }

    #[tokio::test]
    async fn the_annotation_is_taken_away_at_the_end() {
        let api = FakeApi::start().await;
        api.put(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "coredns", "namespace": "kube-system"}}),
        );
        let client = api.client().await;
        let pods = [pod("coredns", "Running", false, false)];
        let mut probes = Probes::default();
        probes.due(&pods, Instant::now() - PERIOD);
        probes.ask(&client, &pods).await;
        let path = "/api/v1/namespaces/kube-system/pods/coredns";
        assert_eq!(api.object(path).unwrap()["metadata"]["annotations"][ANNOTATION], "1");
        probes.end(&client).await;
        assert!(api.object(path).unwrap()["metadata"]["annotations"].get(ANNOTATION).is_none());
    }
}
