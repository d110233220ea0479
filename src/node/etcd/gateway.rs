//! etcd's JSON gateway: its gRPC calls as POST requests, numbers of 64 bits as texts, empty fields left out.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::https::Https;
use crate::secret::Secret;

/// Longest time for one request: a change of members waits for the leader to have it agreed on, a promotion is handed on
/// to the leader for up to 7 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Lists of members are a few KiB.
const ANSWER_BYTES: usize = 1 << 20;

/// A member of etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    /// Its identifier.
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: u64,
    /// Its name; empty while it was added and has never started.
    pub(super) name: String,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub(super) peer_urls: Vec<String>,
    /// Where clients reach it; empty while it has never started.
    #[serde(rename = "clientURLs")]
    pub(super) client_urls: Vec<String>,
    /// Whether it only listens and has no vote.
    #[serde(rename = "isLearner")]
    pub(super) is_learner: bool,
}

impl Member {
    /// Whether it has ever started.
    pub(super) fn has_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Its name, or its identifier in hexadecimal digits while it has none.
    pub(super) fn label(&self) -> String {
        if self.has_started() { self.name.clone() } else { format!("{:x}", self.id) }
    }
}

/// How a member is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// Identifier of the leader it knows; 0 for none.
    #[serde(deserialize_with = "number")]
    pub(super) leader: u64,
    /// What is wrong with it: `NO_SPACE`, `CORRUPT`.
    pub(super) errors: Vec<String>,
    /// Whether it is a learner.
    #[serde(rename = "isLearner")]
    pub(super) is_learner: bool,
}

impl Status {
    /// Whether it serves: it knows a leader and has no alarm.
    pub(super) fn is_healthy(&self) -> bool {
        self.leader != 0 && self.errors.is_empty()
    }
}

/// 64-bit numbers are texts in the gateway's answers; a number is taken too.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().map_err(serde::de::Error::custom),
        Value::Number(number) => number.as_u64().ok_or_else(|| serde::de::Error::custom("not a 64-bit number")),
        Value::Null => Ok(0),
        _ => Err(serde::de::Error::custom("neither a number nor a text")),
    }
}

/// Why etcd did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No answer that can be used; another member may have one.
    Unreachable(String),
    /// It answered, and refuses.
    Refused(String),
}

impl Refusal {
    /// Whether somebody else has added the member meanwhile.
    pub(super) fn peer_is_there(&self) -> bool {
        matches!(self, Refusal::Refused(message) if message.contains("Peer URLs already exists"))
    }

    /// Whether the member is not there any more.
    pub(super) fn member_is_gone(&self) -> bool {
        matches!(self, Refusal::Refused(message) if message.contains("member not found"))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Unreachable(text) => formatter.write_str(text),
            Refusal::Refused(message) => write!(formatter, "etcd answered {message:?}"),
        }
    }
}

/// Asks single endpoints of etcd.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    https: Https,
}

impl Gateway {
    /// A gateway with etcd's CA and a client certificate signed by it, all PEM.
    ///
    /// # Errors
    /// Kind `Configuration` when they cannot be used.
    pub(super) fn new(ca_pem: &str, certificate_pem: &str, key: &Secret) -> Result<Self> {
        Ok(Self { https: Https::new(ca_pem, certificate_pem, key, REQUEST_LIMIT, ANSWER_BYTES)? })
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { https: Https::plain(REQUEST_LIMIT, ANSWER_BYTES) }
    }

    /// All members, as the leader knows them.
    pub(super) async fn members(&self, endpoint: &str) -> std::result::Result<Vec<Member>, Refusal> {
        members(self.call(endpoint, "cluster/member/list", &json!({ "linearizable": true })).await?)
    }

    /// All members, as the one behind the endpoint knew them last; it tells without a quorum, too.
    pub(super) async fn remembered(&self, endpoint: &str) -> std::result::Result<Vec<Member>, Refusal> {
        members(self.call(endpoint, "cluster/member/list", &json!({ "linearizable": false })).await?)
    }

    /// Adds a member that listens only.
    pub(super) async fn add_learner(&self, endpoint: &str, peer_url: &str) -> std::result::Result<(), Refusal> {
        self.call(endpoint, "cluster/member/add", &json!({ "peerURLs": [peer_url], "isLearner": true })).await.map(drop)
    }

    /// Gives a learner its vote.
    pub(super) async fn promote(&self, endpoint: &str, id: u64) -> std::result::Result<(), Refusal> {
        self.call(endpoint, "cluster/member/promote", &json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// Takes a member out.
    pub(super) async fn remove(&self, endpoint: &str, id: u64) -> std::result::Result<(), Refusal> {
        self.call(endpoint, "cluster/member/remove", &json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// How the member behind an endpoint is.
    pub(super) async fn status(&self, endpoint: &str) -> std::result::Result<Status, Refusal> {
        read(self.call(endpoint, "maintenance/status", &json!({})).await?)
    }

    async fn call(&self, endpoint: &str, path: &str, body: &Value) -> std::result::Result<Value, Refusal> {
        let unreachable = |reason: String| Refusal::Unreachable(format!("{endpoint}: {reason}"));
        let answer = self.https.post(&format!("{endpoint}/v3/{path}"), body).await.map_err(unreachable)?;
        let document: Option<Value> = serde_json::from_slice(&answer.body).ok();
        match (answer.status, document) {
            (200, Some(document)) => Ok(document),
            // Whoever has no leader, or is about to end, cannot serve; another may.
            (503 | 504, document) => Err(unreachable(message(document.as_ref(), answer.status))),
            (status, document @ Some(_)) => Err(Refusal::Refused(message(document.as_ref(), status))),
            (status, None) => Err(unreachable(format!("it answered {status}, and no JSON"))),
        }
    }
}

/// The gateway's sentence; bounded, because it is untrusted.
fn message(document: Option<&Value>, status: u16) -> String {
    let text = document.and_then(|document| document["message"].as_str().or_else(|| document["error"].as_str()));
    text.map_or_else(|| format!("it answered {status}"), |text| text.chars().take(400).collect())
}

fn members(mut document: Value) -> std::result::Result<Vec<Member>, Refusal> {
    read(document.get_mut("members").map(Value::take).unwrap_or_default())
}

fn read<T: for<'de> Deserialize<'de>>(document: Value) -> std::result::Result<T, Refusal> {
    serde_json::from_value(document)
        .map_err(|error| Refusal::Unreachable(format!("etcd's answer cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Member, Status, members, read};

    /// As etcd 3.6.8 answers.
    #[test]
    fn members_are_read_as_the_gateway_writes_them() {
        let answer = json!({
        "header": {"cluster_id": "14841639068965178418", "member_id": "10276657743932975437", "raft_term": "2"},
        "members": [
            {"ID": "10276657743932975437", "name": "cp1", "peerURLs": ["https://10.0.0.11:2380"],
             "clientURLs": ["https://10.0.0.11:2379"]},
            {"ID": "17", "peerURLs": ["https://10.0.0.12:2380"], "isLearner": true},
        ]});
        let members = members(answer).unwrap();
        assert_eq!(members[0].id, 10_276_657_743_932_975_437);
        assert_eq!((members[0].label(), members[0].is_learner), ("cp1".into(), false));
        let waiting =
            Member { id: 17, peer_urls: vec!["https://10.0.0.12:2380".into()], is_learner: true, ..Member::default() };
        assert_eq!(members[1], waiting);
        assert_eq!((waiting.label(), waiting.has_started()), ("11".into(), false));
    }

    #[test]
    fn a_member_without_a_leader_or_with_an_alarm_is_not_healthy() {
        let status = |document| read::<Status>(document).unwrap().is_healthy();
        assert!(status(json!({"version": "3.6.8", "dbSize": "20480", "leader": "7", "raftTerm": "2"})));
        assert!(!status(json!({"version": "3.6.8"})));
        assert!(!status(json!({"leader": "7", "errors": ["memberID:7 alarm:NOSPACE"]})));
    }

    #[test]
    fn another_answer_is_no_list() {
        assert!(members(json!({"members": [{"ID": {}}]})).is_err());
        assert!(members(json!([])).is_err());
    }
}
