//! Emptying a node: nothing new is put on it, and its pods are evicted as far as their disruption budgets allow, so that
//! whoever watches over them makes them elsewhere first.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::problem::Problem;
use super::wait::{Look, Wait};
use crate::failure::{Failure, Result};

/// Time between two tries: a budget allows the next eviction when a pod elsewhere is ready.
const EVERY: Duration = Duration::from_millis(500);

/// So many pods are named where all cannot be.
const NAMED: usize = 5;

/// Empties a node; answers with what was altered, one line each. A node that is not there is empty. Pods that come with
/// every node (of DaemonSets and from files) stay, and so do those that have ended.
///
/// # Errors
/// Kind `Cluster`: after `limit`, naming the pods that are left; then the node takes pods again, if it did before.
pub async fn drain(client: &Client, node: &str, limit: Duration) -> Result<Vec<String>> {
    let Some(cordoned) = cordon(client, node).await? else { return Ok(Vec::new()) };
    match empty(client, node, limit).await {
        Ok(evicted) => {
            let cordoned = cordoned.then(|| format!("Node {node} takes no more pods"));
            Ok(cordoned.into_iter().chain(evicted.into_iter().map(|pod| format!("Pod {pod} evicted"))).collect())
        }
        Err(failure) => {
            if cordoned {
                // The node stays: it is of use again. That this fails, too, makes nothing worse.
                let _ = schedulable(client, node, true).await;
            }
            Err(failure)
        }
    }
}

/// Whether it had to be told; `None` where there is no such node.
async fn cordon(client: &Client, node: &str) -> Result<Option<bool>> {
    let failed = |problem: Problem| problem.failure(format!("Node {node} cannot be cordoned"));
    match client.get("Node", None, node).await.map_err(failed)? {
        None => Ok(None),
        Some(there) if there["spec"]["unschedulable"] == true => Ok(Some(false)),
        Some(_) => schedulable(client, node, false).await.map(|()| Some(true)).map_err(failed),
    }
}

async fn schedulable(client: &Client, node: &str, yes: bool) -> Result<(), Problem> {
    let unschedulable = if yes { Value::Null } else { json!(true) };
    client.merge("Node", None, node, &json!({ "spec": { "unschedulable": unschedulable } })).await.map(drop)
}

/// A pod that has to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    namespace: String,
    name: String,
    uid: String,
    /// It was told to end, and does.
    leaving: bool,
}

impl Guest {
    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Those of a node's pods that have to leave. Pure.
fn guests(pods: &[Value]) -> Vec<Guest> {
    pods.iter().filter(|pod| has_to_leave(pod)).map(guest).collect()
}

fn has_to_leave(pod: &Value) -> bool {
    let metadata = &pod["metadata"];
    let from_file = metadata["annotations"].get("kubernetes.io/config.mirror").is_some();
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let of_daemon_set = owners.any(|owner| owner["controller"] == true && owner["kind"] == "DaemonSet");
    let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    // One that was told to end is there until its kubelet says that it is gone.
    !from_file && !of_daemon_set && (!ended || is_leaving(pod))
}

fn is_leaving(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null())
}

fn guest(pod: &Value) -> Guest {
    let metadata = &pod["metadata"];
    let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
    Guest { namespace: text("namespace"), name: text("name"), uid: text("uid"), leaving: is_leaving(pod) }
}

/// Evicts until nobody is left; answers with those that were told to leave.
async fn empty(client: &Client, node: &str, limit: Duration) -> Result<BTreeSet<String>> {
    let told = Mutex::new(BTreeSet::new());
    let wait = Wait::new(format!("Node {node}"), "become empty", limit).every(EVERY);
    let emptied = wait
        .until(async || {
            let pods = match client.pods_on(node).await {
                Ok(pods) => pods,
                Err(problem) if problem.may_pass() => return Ok(Look::NotYet(problem.to_string())),
                Err(problem) => return Err(problem.failure(format!("the pods on Node {node} cannot be listed"))),
            };
            let mut left = Vec::new();
            for guest in guests(&pods) {
                match ask_to_leave(client, &guest).await? {
                    Answer::Gone => {}
                    Answer::Leaves => {
                        told.lock().unwrap_or_else(PoisonError::into_inner).insert(guest.path());
                        left.push(format!("{} is ending", guest.path()));
                    }
                    Answer::Stays(why) => left.push(format!("{} cannot leave: {why}", guest.path())),
                }
            }
            Ok(if left.is_empty() { Look::There(()) } else { Look::NotYet(in_words(&left)) })
        })
        .await;
    emptied.map_err(|failure| {
        failure.advise(
            "see `kubectl get poddisruptionbudgets -A` for who holds them; give it longer with --drain-limit, or \
             --no-drain to let them end with the node",
        )
    })?;
    Ok(told.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What a pod does when it is to leave.
enum Answer {
    Gone,
    Leaves,
    Stays(String),
}

async fn ask_to_leave(client: &Client, guest: &Guest) -> Result<Answer> {
    if guest.leaving {
        return Ok(Answer::Leaves);
    }
    match client.evict(&guest.namespace, &guest.name, &guest.uid).await {
        Ok(()) => Ok(Answer::Leaves),
        // Gone, or somebody else of that name by now.
        Err(problem) if problem.is_not_found() || problem.is_conflict() => Ok(Answer::Gone),
        // 429 is a budget's no; what else may pass is a server that is busy.
        Err(problem) if problem.may_pass() => Ok(Answer::Stays(problem.to_string())),
        // A namespace that is being removed takes its pods with it.
        Err(problem) if problem.is_forbidden() => Ok(Answer::Stays(problem.to_string())),
        Err(problem) => {
            let failure: Failure = problem.failure(format!("Pod {} cannot be evicted", guest.path()));
            Err(failure)
        }
    }
}

/// Some of them by name.
fn in_words(left: &[String]) -> String {
    let more = left.len().saturating_sub(NAMED);
    let named: Vec<&str> = left.iter().take(NAMED).map(String::as_str).collect();
    match more {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{drain, guests, in_words};
    use crate::api::fake::FakeApi;

    const LIMIT: Duration = Duration::from_millis(900);

    fn pod(name: &str, node: &str) -> Value {
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"nodeName": node}})
    }

    #[rstest]
    #[case(json!({}), json!({"phase": "Running"}), true)]
    #[case(json!({"ownerReferences": [{"kind": "ReplicaSet", "controller": true}]}), json!({}), true)]
    #[case(json!({"ownerReferences": [{"kind": "DaemonSet", "controller": true}]}), json!({}), false)]
    #[case(json!({"ownerReferences": [{"kind": "DaemonSet"}]}), json!({}), true)]
    #[case(json!({"annotations": {"kubernetes.io/config.mirror": "x"}}), json!({}), false)]
    #[case(json!({}), json!({"phase": "Succeeded"}), false)]
    #[case(json!({}), json!({"phase": "Failed"}), false)]
    #[case(json!({"deletionTimestamp": "2026-11-23T18:00:00Z"}), json!({"phase": "Failed"}), true)]
    #[case(json!({}), json!({"phase": "Pending"}), true)]
    fn who_has_to_leave(#[case] metadata: Value, #[case] status: Value, #[case] leaves: bool) {
        assert_eq!(guests(&[json!({"metadata": metadata, "status": status})]).len(), usize::from(leaves));
    }

    async fn cluster() -> FakeApi {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "Node", "metadata": {"name": "w1"}, "spec": {}}));
        api
    }

    fn takes_pods(api: &FakeApi) -> bool {
        api.object("/api/v1/nodes/w1").unwrap()["spec"].get("unschedulable").is_none()
    }

    #[tokio::test]
    async fn a_node_is_emptied_and_takes_no_more() {
        let api = cluster().await;
        for pod in [pod("a", "w1"), pod("b", "w1"), pod("c", "w2")] {
            api.put(pod);
        }
        let altered = drain(&api.client().await, "w1", LIMIT).await.unwrap();
        assert_eq!(altered, ["Node w1 takes no more pods", "Pod default/a evicted", "Pod default/b evicted"]);
        assert!(!takes_pods(&api));
        let left: Vec<String> = api.paths().into_iter().filter(|path| path.contains("/pods/")).collect();
        assert_eq!(left, ["/api/v1/namespaces/default/pods/c"]);
        assert_eq!(drain(&api.client().await, "w1", LIMIT).await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn a_budget_is_respected_and_the_node_stays_in_service() {
        let api = cluster().await;
        let mut held = pod("a", "w1");
        held["metadata"]["annotations"] = json!({"budget": "exhausted"});
        api.put(held);
        let failure = drain(&api.client().await, "w1", LIMIT).await.unwrap_err();
        assert_eq!(failure.sentence, "Node w1 did not become empty within 900 milliseconds");
        assert!(failure.causes[0].starts_with("default/a cannot leave: "), "{failure}");
        assert!(failure.advice.unwrap().contains("--no-drain"));
        assert!(takes_pods(&api));
        assert!(api.object("/api/v1/namespaces/default/pods/a").is_some());
    }

    #[tokio::test]
    async fn a_node_that_a_person_cordoned_stays_so() {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "Node", "metadata": {"name": "w1"}, "spec": {"unschedulable": true}}));
        let mut held = pod("a", "w1");
        held["metadata"]["annotations"] = json!({"budget": "exhausted"});
        api.put(held);
        assert!(drain(&api.client().await, "w1", LIMIT).await.is_err());
        assert!(!takes_pods(&api));
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_empty() {
        let api = FakeApi::start().await;
        assert_eq!(drain(&api.client().await, "w1", LIMIT).await.unwrap(), [""; 0]);
    }

    #[test]
    fn not_all_pods_are_named() {
        let many: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        assert_eq!(in_words(&many), "0; 1; 2; 3; 4; and 3 more");
        assert_eq!(in_words(&many[..2]), "0; 1");
    }
}
