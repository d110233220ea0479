//! Pods as a person sees them.

use serde_json::Value;

use super::client::Client;
use super::probe::ANNOTATION;
use crate::failure::Result;

/// One Pod in the parts that matter to us. Texts come from the cluster and are untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is bound to; empty when it is not.
    pub node: String,
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: String,
    /// Whether condition Ready is True.
    pub ready: bool,
    /// Why it is not ready: a container's waiting or ending reason, or why it is not scheduled; empty when ready.
    pub reason: String,
    /// Whether the kubelet runs it from a file and the API only mirrors it: the control plane's pods.
    pub mirror: bool,
    /// Whether a container of it is to be started and does not run.
    pub waiting: bool,
    /// Restarts of its containers together.
    pub restarts: u64,
    /// Names of its containers that are not ready.
    pub unready: Vec<String>,
    /// Whether it carries the mark by which its kubelet is asked to look at it (see [`super::Probes`]).
    pub marked: bool,
}

impl PodStatus {
    /// Whether it runs with all its containers ready, or has done its work.
    pub fn well(&self) -> bool {
        self.phase == "Succeeded" || (self.phase == "Running" && self.ready)
    }

    /// Whether a cluster that comes up need not wait for it any more. A static pod has to run: that it works is asked of
    /// the component itself, while a kubelet that has just started takes 10 to 20 seconds for its first probe. A pod whose
    /// container ended, and is not started again, is still Running.
    pub fn settled(&self) -> bool {
        self.well() || (self.mirror && self.phase == "Running" && !self.waiting)
    }

    fn of(pod: &Value) -> Self {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ready = conditions(pod).any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            node: text("/spec/nodeName"),
            phase: text("/status/phase"),
            ready,
            reason: if ready { String::new() } else { reason(pod) },
            mirror: pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some(),
            marked: pod["metadata"]["annotations"].get(ANNOTATION).is_some(),
            waiting: containers(pod).any(|container| container.pointer("/state/waiting").is_some()),
            restarts: containers(pod).filter_map(|container| container["restartCount"].as_u64()).sum(),
            unready: containers(pod)
                .filter(|container| container["ready"] != true)
                .filter_map(|container| container["name"].as_str().map(str::to_owned))
                .collect(),
        }
    }
}

fn conditions(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .filter_map(|pointer| pod.pointer(pointer).and_then(Value::as_array))
        .flatten()
}

/// The most telling reason first: what a container waits for or died of, then why the pod has no node, then a condition.
fn reason(pod: &Value) -> String {
    let state = |container: &Value| {
        let name = container["name"].as_str().unwrap_or_default();
        ["waiting", "terminated"].iter().find_map(|kind| {
            let state = container.get("state")?.get(*kind)?;
            let word = state["reason"].as_str()?;
            match state["message"].as_str() {
                Some(message) if !message.is_empty() => Some(format!("{name}: {word}: {message}")),
                _ => Some(format!("{name}: {word}")),
            }
        })
    };
    let of_container = containers(pod).filter(|container| container["ready"] != true).find_map(state);
    let of_condition = || {
        conditions(pod)
            .filter(|condition| condition["status"] == "False")
            .find_map(|condition| condition["message"].as_str().or(condition["reason"].as_str()))
            .map(str::to_owned)
    };
    of_container.or_else(of_condition).unwrap_or_else(|| "not reported yet".to_owned())
}

/// The pods of a namespace, by name.
///
/// # Errors
/// Kind `Cluster`.
pub async fn pods(client: &Client, namespace: &str) -> Result<Vec<PodStatus>> {
    let list = client.list("Pod", Some(namespace), "").await;
    let list =
        list.map_err(|problem| problem.failure(format!("{} does not list the pods of {namespace}", client.server())))?;
    let mut pods: Vec<PodStatus> = list.iter().map(PodStatus::of).collect();
    pods.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::PodStatus;

    #[rstest]
    #[case(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                  "containerStatuses": [{"name": "a", "ready": true, "restartCount": 2}]}), true, "")]
    #[case(json!({"phase": "Pending", "containerStatuses": [{"name": "coredns", "ready": false,
                  "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}}]}),
           false, "coredns: ImagePullBackOff: no such host")]
    #[case(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                  "message": "0/1 nodes are available"}]}), false, "0/1 nodes are available")]
    #[case(json!({"phase": "Succeeded", "containerStatuses": [{"name": "job", "ready": false,
                  "state": {"terminated": {"reason": "Completed"}}}]}), true, "job: Completed")]
    #[case(json!({}), false, "not reported yet")]
    fn a_pod_says_how_it_is(#[case] status: Value, #[case] well: bool, #[case] reason: &str) {
        let pod = PodStatus::of(&json!({"metadata": {"name": "p", "namespace": "kube-system"}, "status": status}));
        assert_eq!((pod.well(), pod.reason.as_str()), (well, reason));
    }

    #[rstest]
    #[case(json!({"kubernetes.io/config.mirror": "x"}), "Running", json!({"running": {}}), true)]
    #[case(json!({"kubernetes.io/config.mirror": "x"}), "Running", json!({"waiting": {"reason": "CreateContainerError"}}), false)]
    #[case(json!({"kubernetes.io/config.mirror": "x"}), "Pending", json!({"running": {}}), false)]
    #[case(json!({}), "Running", json!({"running": {}}), false)]
    fn a_static_pod_has_to_run_any_other_to_be_ready(
        #[case] annotations: Value,
        #[case] phase: &str,
        #[case] state: Value,
        #[case] settled: bool,
    ) {
        let status = json!({"phase": phase, "containerStatuses": [{"name": "a", "ready": false, "state": state}]});
        let pod = PodStatus::of(&json!({"metadata": {"annotations": annotations}, "status": status}));
        assert_eq!(pod.settled(), settled);
    }
}
