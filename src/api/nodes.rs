//! Nodes as a person sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::client::Client;
use super::problem::Problem;
use crate::failure::Result;

/// One Node object in the parts that matter to us. Texts come from the cluster and are untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Whether condition Ready is True.
    pub ready: bool,
    /// Why it is not ready; empty when it is.
    pub reason: String,
    /// The kubelet's version, `v1.36.3`.
    pub version: String,
    /// Pod networks the controller manager gave it, IPv4 or IPv6.
    pub pod_networks: Vec<IpNet>,
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Roles: what follows `node-role.kubernetes.io/` in its labels, sorted.
    pub roles: Vec<String>,
    /// Taints as `key=value:effect` or `key:effect`.
    pub taints: Vec<String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeStatus {
    /// The first pod network.
    pub fn pod_network(&self) -> Option<IpNet> {
        self.pod_networks.first().copied()
    }

    /// Those of these labels that it does not carry.
    pub fn lacking<'a>(
        &self,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'a String, &'a String)> + use<'a, '_> {
        labels.iter().filter(|(key, value)| self.labels.get(*key) != Some(value))
    }

    /// Whether it carries all of these labels.
    pub fn carries(&self, labels: &BTreeMap<String, String>) -> bool {
        self.lacking(labels).next().is_none()
    }

    /// What a Node object says.
    pub fn of(node: &Value) -> Self {
        let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels: BTreeMap<String, String> = entries(node.pointer("/metadata/labels"));
        let roles = labels.keys().filter_map(|key| key.strip_prefix("node-role.kubernetes.io/")).map(str::to_owned);
        let (ready, reason) = readiness(node);
        let mut pod_networks: Vec<IpNet> =
            items(node.pointer("/spec/podCIDRs")).filter_map(|network| network.as_str()?.parse().ok()).collect();
        if pod_networks.is_empty() {
            pod_networks.extend(text("/spec/podCIDR").parse::<IpNet>().ok());
        }
        Self {
            name: text("/metadata/name"),
            ready,
            reason,
            version: text("/status/nodeInfo/kubeletVersion"),
            pod_networks,
            addresses: items(node.pointer("/status/addresses"))
                .filter(|address| address["type"] == "InternalIP")
                .filter_map(|address| address["address"].as_str()?.parse().ok())
                .collect(),
            roles: roles.collect(),
            taints: items(node.pointer("/spec/taints")).map(taint).collect(),
            labels,
        }
    }
}

#[cfg(test)]
impl NodeStatus {
    /// A node of which nothing else is known.
    pub(crate) fn plain(name: &str, ready: bool) -> Self {
        Self {
            name: name.to_owned(),
            ready,
            reason: String::new(),
            version: String::new(),
            pod_networks: Vec::new(),
            addresses: Vec::new(),
            roles: Vec::new(),
            taints: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn entries(map: Option<&Value>) -> BTreeMap<String, String> {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn readiness(node: &Value) -> (bool, String) {
    match items(node.pointer("/status/conditions")).find(|condition| condition["type"] == "Ready") {
        Some(condition) if condition["status"] == "True" => (true, String::new()),
        Some(condition) => {
            let message = condition["message"].as_str().or(condition["reason"].as_str()).unwrap_or("not ready");
            (false, message.to_owned())
        }
        None => (false, "the kubelet has not reported yet".to_owned()),
    }
}

fn taint(taint: &Value) -> String {
    let text = |key: &str| taint[key].as_str().unwrap_or_default();
    match text("value") {
        "" => format!("{}:{}", text("key"), text("effect")),
        value => format!("{}={value}:{}", text("key"), text("effect")),
    }
}

/// All nodes, by name.
///
/// # Errors
/// Kind `Cluster`.
pub async fn nodes(client: &Client) -> Result<Vec<NodeStatus>> {
    let list = client.list("Node", None, "").await;
    let list = list.map_err(|problem| problem.failure(format!("{} does not list its nodes", client.server())))?;
    let mut nodes: Vec<NodeStatus> = list.iter().map(NodeStatus::of).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nodes)
}

/// One node; `None` where there is none of that name.
///
/// # Errors
/// Kind `Cluster`.
pub async fn node(client: &Client, name: &str) -> Result<Option<NodeStatus>> {
    let node = client.get("Node", None, name).await;
    let node = node.map_err(|problem| problem.failure(format!("{} does not show Node {name}", client.server())))?;
    Ok(node.as_ref().map(NodeStatus::of))
}

/// Sets labels on a node; `false` when it carries them already.
///
/// # Errors
/// Kind `Cluster`, also when there is no such node.
pub async fn label_node(client: &Client, name: &str, labels: &BTreeMap<String, String>) -> Result<bool> {
    let failed = |problem: Problem| problem.failure(format!("Node {name} cannot be labelled"));
    let node = client.get("Node", None, name).await.map_err(failed)?;
    let node = node.ok_or_else(|| {
        failed(Problem::Refused { code: 404, reason: "NotFound".into(), message: "there is no such Node".into() })
    })?;
    if NodeStatus::of(&node).carries(labels) {
        return Ok(false);
    }
    client.merge("Node", None, name, &json!({ "metadata": { "labels": labels } })).await.map_err(failed)?;
    Ok(true)
}

/// Removes a Node object; `false` when there was none.
///
/// # Errors
/// Kind `Cluster`.
pub async fn delete_node(client: &Client, name: &str) -> Result<bool> {
    let deleted = client.delete("Node", None, name).await;
    deleted.map_err(|problem| problem.failure(format!("Node {name} cannot be removed")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{NodeStatus, delete_node, label_node, node, nodes};
    use crate::api::fake::FakeApi;

    #[test]
    fn a_node_is_read_in_the_parts_that_matter() {
        let node = NodeStatus::of(&json!({
            "metadata": {"name": "cp1", "labels": {"node-role.kubernetes.io/control-plane": "", "disk": "ssd"}},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"],
                     "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "value": "c", "effect": "NoExecute"}]},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.11"}, {"type": "Hostname", "address": "cp1"}],
                       "nodeInfo": {"kubeletVersion": "v1.36.3"},
                       "conditions": [{"type": "Ready", "status": "False", "message": "cni plugin not initialized"}]}
        }));
        assert!(!node.ready);
        assert_eq!(node.reason, "cni plugin not initialized");
        assert_eq!(node.roles, ["control-plane"]);
        assert_eq!(node.taints, ["a:NoSchedule", "b=c:NoExecute"]);
        assert_eq!(node.pod_network().unwrap().to_string(), "10.244.0.0/24");
        assert_eq!(node.addresses, ["10.0.0.11".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(node.version, "v1.36.3");
    }

    #[test]
    fn an_empty_node_is_not_ready() {
        assert_eq!(NodeStatus::of(&json!({})).reason, "the kubelet has not reported yet");
    }

    #[tokio::test]
    async fn nodes_are_listed_labelled_and_removed() {
        let api = FakeApi::start().await;
        for name in ["w2", "w1"] {
            api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
        }
        let client = api.client().await;
        let names: Vec<String> = nodes(&client).await.unwrap().into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["w1", "w2"]);
        assert_eq!(node(&client, "w2").await.unwrap().map(|node| node.name).as_deref(), Some("w2"));
        assert_eq!(node(&client, "w9").await, Ok(None));
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        assert_eq!(label_node(&client, "w1", &labels).await, Ok(true));
        assert_eq!(label_node(&client, "w1", &labels).await, Ok(false));
        assert!(label_node(&client, "w9", &labels).await.is_err());
        assert_eq!(delete_node(&client, "w2").await, Ok(true));
        assert_eq!(delete_node(&client, "w2").await, Ok(false));
    }
}
