//! A node that was Ready and changes is Ready again before the next one changes: a configuration with which nodes do not get
//! ready goes no further than the first of them.

use std::time::Duration;

use serde_json::Value;

use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Result};

/// How long a kubelet may take to report that its node is Ready, in its turn. It does so when it starts.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(120);

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// What a node's kubelet said of it last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Whether it is Ready.
    pub(super) ready: bool,
    /// Why not.
    reason: String,
    /// When that was, in the kubelet's words.
    when: String,
}

impl Report {
    /// The last report of a node; one of a node that is not ready where there is none, or nobody can be asked.
    pub(super) async fn of(api: &Client, node: &str) -> Self {
        match api.get("Node", None, node).await {
            Ok(Some(node)) => Self::read(&node),
            Ok(None) => Self { reason: "there is no such node".to_owned(), ..Self::default() },
            Err(problem) => Self { reason: problem.to_string(), ..Self::default() },
        }
    }

    fn read(node: &Value) -> Self {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        let text = |key: &str| found.and_then(|condition| condition[key].as_str()).unwrap_or_default().to_owned();
        Self { ready: text("status") == "True", reason: text("message"), when: text("lastHeartbeatTime") }
    }

    /// Why a node with this report is not ready again; `None` when it is. What a kubelet said before it was started anew says
    /// nothing of now.
    fn lacks(&self, before: &Self, started_anew: bool) -> Option<String> {
        match self {
            Self { when, .. } if started_anew && *when == before.when => {
                Some("its kubelet has not reported since it was started anew".to_owned())
            }
            Self { ready: false, reason, .. } => Some(reason.clone()),
            _ => None,
        }
    }
}

/// Waits until a node that was Ready is Ready again.
///
/// # Errors
/// Kind `Cluster` when it is not within `limit`.
pub(super) async fn ready_again(
    api: &Client,
    node: &str,
    before: &Report,
    started_anew: bool,
    limit: Duration,
) -> Result<()> {
    let wait = Wait::new(format!("the node {node}"), "get Ready again", limit).every(EVERY);
    let waited = wait.until(async || {
        Ok(match Report::of(api, node).await.lacks(before, started_anew) {
            Some(reason) => Look::NotYet(reason),
            None => Look::There(()),
        })
    });
    waited.await.map_err(|failure: Failure| {
        failure.advise(
            "look at `journalctl -u kubelet` there; correct the configuration, or what is wrong on the host, and run the same \
             command again",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{Report, ready_again};
    use crate::api::fake::FakeApi;

    fn node(ready: &str, when: &str) -> Value {
        let condition = json!({"type": "Ready", "status": ready, "message": "no network", "lastHeartbeatTime": when});
        json!({"kind": "Node", "metadata": {"name": "w1"}, "status": {"conditions": [{"type": "Other"}, condition]}})
    }

    /// What a wait for a node says that reported as `now`, after `before` at the time `1`.
    async fn wait(now: Option<(&str, &str)>, started_anew: bool) -> Result<(), String> {
        let api = FakeApi::start().await;
        if let Some((ready, when)) = now {
            api.put(node(ready, when));
        }
        let before = Report::read(&node("True", "1"));
        let limit = Duration::from_millis(50);
        let waited = ready_again(&api.client().await, "w1", &before, started_anew, limit).await;
        waited.map_err(|failure| failure.causes.join(" "))
    }

    #[tokio::test]
    async fn a_node_is_ready_again_when_its_new_kubelet_says_so() {
        assert_eq!(wait(Some(("True", "2")), true).await, Ok(()));
        assert_eq!(wait(Some(("True", "1")), false).await, Ok(()));
        let silent = "its kubelet has not reported since it was started anew";
        assert_eq!(wait(Some(("True", "1")), true).await, Err(silent.to_owned()));
        assert_eq!(wait(Some(("False", "2")), true).await, Err("no network".to_owned()));
        assert_eq!(wait(Some(("Unknown", "1")), false).await, Err("no network".to_owned()));
        assert_eq!(wait(None, false).await, Err("there is no such node".to_owned()));
    }
}
