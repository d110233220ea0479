//! A node that was Ready and changes is Ready again before the next one changes: a configuration with which nodes do not get
//! ready goes no further than the first of them.

use std::time::Duration;

use serde_json::Value;

use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Result};
use crate::kubernetes::moment::from_rfc3339;

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
    pub(super) when: String,
}

/// Which reports say nothing of now: those of before the kubelet was started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outdated {
    /// It was not.
    None,
    /// The report of this moment, in the kubelet's words.
    Same(String),
    /// All of before this second since the epoch, by the host's clock, which is the kubelet's.
    Before(u64),
}

impl Outdated {
    fn is(&self, when: &str) -> bool {
        match self {
            Self::None => false,
            Self::Same(before) => when == before,
            Self::Before(started) => from_rfc3339(when).is_none_or(|reported| reported < *started),
        }
    }
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

    /// Why a node with this report is not ready again; `None` when it is.
    fn lacks(&self, outdated: &Outdated) -> Option<String> {
        match self {
            Self { when, .. } if outdated.is(when) => {
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
pub(super) async fn ready_again(api: &Client, node: &str, outdated: &Outdated, limit: Duration) -> Result<()> {
    let wait = Wait::new(format!("the node {node}"), "get Ready again", limit).every(EVERY);
    let waited = wait.until(async || {
        Ok(match Report::of(api, node).await.lacks(outdated) {
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

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Outdated, READY_LIMIT, Report, ready_again};
    use crate::api::fake::FakeApi;

    const SILENT: &str = "its kubelet has not reported since it was started anew";

    fn node(ready: &str, when: &str) -> Value {
        let condition = json!({"type": "Ready", "status": ready, "message": "no network", "lastHeartbeatTime": when});
        json!({"kind": "Node", "metadata": {"name": "w1"}, "status": {"conditions": [{"type": "Other"}, condition]}})
    }

    #[rstest]
    #[case::a_new_kubelet_is_ready(("True", "2"), Outdated::Same("1".into()), None)]
    #[case::nothing_was_started(("True", "1"), Outdated::None, None)]
    #[case::it_was_so_before(("True", "1"), Outdated::Same("1".into()), Some(SILENT))]
    #[case::a_new_kubelet_is_not(("False", "2"), Outdated::Same("1".into()), Some("no network"))]
    #[case::it_was_lost(("Unknown", "1"), Outdated::None, Some("no network"))]
    #[case::it_was_so_ahead_of_that_second(("True", "2026-11-30T07:59:59Z"), Outdated::Before(1_796_025_600), Some(SILENT))]
    #[case::it_is_so_since(("True", "2026-11-30T08:00:00Z"), Outdated::Before(1_796_025_600), None)]
    #[case::it_never_was(("True", ""), Outdated::Before(1_796_025_600), Some(SILENT))]
    fn a_node_is_ready_again_when_its_new_kubelet_says_so(
        #[case] now: (&str, &str),
        #[case] outdated: Outdated,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(Report::read(&node(now.0, now.1)).lacks(&outdated).as_deref(), expected);
    }

    #[tokio::test]
    async fn a_node_is_waited_for_until_it_is_ready_again() {
        let api = FakeApi::start().await;
        api.put(node("True", "1"));
        let client = api.client().await;
        let outdated = Outdated::Same(Report::of(&client, "w1").await.when);
        api.put(node("False", "2"));
        let limit = Duration::from_secs(1);
        let failure = ready_again(&client, "w1", &outdated, limit).await.unwrap_err();
        assert_eq!(failure.to_string(), "the node w1 did not get Ready again within 1 second: no network");
        let (waited, ()) = futures::join!(ready_again(&client, "w1", &outdated, READY_LIMIT), async {
            tokio::task::yield_now().await;
            api.put(node("True", "3"));
        });
        assert_eq!(waited, Ok(()));
    }
}
