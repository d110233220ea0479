//! An inventory out of what a cluster says of itself. Pure.

use serde_json::{Map, Value, json};

use crate::api::NodeStatus;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::BUILT_IN_ENDPOINT;
use crate::yaml;

/// The taint of every control plane that nobody gave others.
const USUAL_TAINT: &str = "node-role.kubernetes.io/control-plane:NoSchedule";

/// The role that makes a node a control plane.
const CONTROL_PLANE: &str = "control-plane";

/// Parts of the ClusterConfiguration that stand in the inventory itself.
const OF_INVENTORY: &[&str] = &["kubernetesVersion", "clusterName", "controlPlaneEndpoint"];

/// The same within `networking`.
const OF_NETWORK: &[&str] = &["podSubnet", "serviceSubnet", "dnsDomain"];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The ClusterConfiguration of the ConfigMap kubeadm-config.
    pub cluster: Value,
    /// The KubeletConfiguration, unless kubeadm made it up.
    pub kubelet: Option<Value>,
    /// The KubeProxyConfiguration, unless kubeadm made it up.
    pub kube_proxy: Option<Value>,
    /// The nodes.
    pub nodes: Vec<NodeStatus>,
    /// The CA's public key, where another tool made the cluster.
    pub adopt: Option<String>,
    /// Whether the pod network is ours.
    pub bridge: bool,
    /// The login name, where one was typed.
    pub user: Option<String>,
    /// The port, where one was typed.
    pub port: Option<u16>,
}

/// The inventory as text, and sentences about what it cannot say.
///
/// # Errors
/// Kind `Cluster` for a cluster that an inventory cannot describe: two pod networks, no nodes.
pub fn draft(found: &Found) -> Result<(String, Vec<String>)> {
    let text = |path: &[&str]| {
        let value = path.iter().try_fold(&found.cluster, |value, key| value.get(key));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut warnings = Vec::new();
    let mut network = Map::new();
    for (key, path) in [("pods", "podSubnet"), ("services", "serviceSubnet"), ("domain", "dnsDomain")] {
        let value = text(&["networking", path]);
        if value.contains(',') {
            let sentence = format!("the cluster has two networks of {key} ({value}), and an inventory names one");
            return Err(Failure::new(Kind::Cluster, sentence).advise("go on with the tool that made the cluster"));
        }
        if !value.is_empty() {
            network.insert(key.to_owned(), json!(value));
        }
    }
    if !network.contains_key("pods") {
        warnings.push(
            "the cluster was made without a pod network; write into cluster.network.pods what its plugin uses"
                .to_owned(),
        );
    }
    network.insert("plugin".to_owned(), json!(if found.bridge { "bridge" } else { "none" }));
    let mut cluster = Map::new();
    cluster.insert("name".to_owned(), json!(text(&["clusterName"])));
    cluster.insert("kubernetes".to_owned(), json!(text(&["kubernetesVersion"]).trim_start_matches('v')));
    let endpoint = text(&["controlPlaneEndpoint"]);
    if !endpoint.is_empty() {
        let built_in = endpoint == BUILT_IN_ENDPOINT.to_string();
        cluster.insert("endpoint".to_owned(), json!(if built_in { "built-in" } else { &endpoint }));
    }
    cluster.insert("network".to_owned(), Value::Object(network));
    if let Some(hash) = &found.adopt {
        cluster.insert("adopt".to_owned(), json!(hash));
    }
    let documents = documents(found);
    if !documents.is_empty() {
        cluster.insert("kubeadm".to_owned(), Value::Array(documents));
    }
    let hosts: Map<String, Value> = ordered(&found.nodes).map(|node| (node.name.clone(), host(node))).collect();
    if hosts.is_empty() {
        return Err(Failure::new(Kind::Cluster, "the cluster has no nodes"));
    }
    let mut document = json!({ "cluster": cluster });
    let mut ssh = Map::new();
    ssh.extend(found.user.as_ref().map(|user| ("user".to_owned(), json!(user))));
    ssh.extend(found.port.map(|port| ("port".to_owned(), json!(port))));
    if !ssh.is_empty() {
        document["ssh"] = Value::Object(ssh);
    }
    document["hosts"] = Value::Object(hosts);
    Ok((yaml::to_text(&document), warnings))
}

/// Control planes first, each kind by name.
fn ordered(nodes: &[NodeStatus]) -> impl Iterator<Item = &NodeStatus> {
    let (control_planes, workers): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| is_control_plane(node));
    control_planes.into_iter().chain(workers)
}

fn is_control_plane(node: &NodeStatus) -> bool {
    node.roles.iter().any(|role| role == CONTROL_PLANE)
}

fn host(node: &NodeStatus) -> Value {
    let control_plane = is_control_plane(node);
    let mut host = Map::new();
    if let Some(address) = node.addresses.first() {
        host.insert("address".to_owned(), json!(address.to_string()));
    }
    host.insert("role".to_owned(), json!(if control_plane { CONTROL_PLANE } else { "worker" }));
    let labels: Map<String, Value> = node
        .labels
        .iter()
        .filter(|(key, _)| is_a_persons(key))
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    if !labels.is_empty() {
        host.insert("labels".to_owned(), Value::Object(labels));
    }
    // What the cluster itself says of a node that is not well comes and goes.
    let taints: Vec<&String> = node.taints.iter().filter(|taint| !taint.starts_with("node.kubernetes.io/")).collect();
    let usual = if control_plane { vec![USUAL_TAINT] } else { Vec::new() };
    if taints.iter().map(|taint| taint.as_str()).ne(usual) {
        host.insert("taints".to_owned(), json!(taints));
    }
    Value::Object(host)
}

/// Whether a person chose a label, and not a component.
fn is_a_persons(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    !is("kubernetes.io") && !is("k8s.io")
}

/// kubeadm's documents without what the inventory says itself.
fn documents(found: &Found) -> Vec<Value> {
    let mut cluster = found.cluster.clone();
    if let Some(fields) = cluster.as_object_mut() {
        OF_INVENTORY.iter().for_each(|key| drop(fields.shift_remove(*key)));
        if let Some(network) = fields.get_mut("networking").and_then(Value::as_object_mut) {
            OF_NETWORK.iter().for_each(|key| drop(network.shift_remove(*key)));
        }
        fields.retain(|_, value| value.as_object().is_none_or(|fields| !fields.is_empty()));
    }
    let says_something =
        cluster.as_object().is_some_and(|fields| fields.keys().any(|key| key != "apiVersion" && key != "kind"));
    let cluster = says_something.then_some(cluster);
    cluster.into_iter().chain(found.kubelet.clone()).chain(found.kube_proxy.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;
    use serde_json::json;

    use super::{Found, draft, is_a_persons};
    use crate::api::NodeStatus;
    use crate::cluster::documents::Documents;
    use crate::inventory;

    fn node(name: &str, address: &str, roles: &[&str], taints: &[&str]) -> NodeStatus {
        NodeStatus {
            version: "v1.36.3".into(),
            addresses: vec![address.parse().unwrap()],
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            taints: taints.iter().map(|taint| (*taint).to_owned()).collect(),
            labels: [("disk", "ssd"), ("kubernetes.io/os", "linux")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..NodeStatus::plain(name, true)
        }
    }

    fn found() -> Found {
        Found {
            cluster: json!({
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "ClusterConfiguration",
                "kubernetesVersion": "v1.36.3",
                "clusterName": "kubernetes",
                "networking": {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12", "dnsDomain": "cluster.local"},
                "apiServer": {},
                "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
            }),
            kubelet: Some(
                json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPods": 50}),
            ),
            kube_proxy: None,
            nodes: vec![
                node("w1", "10.0.0.21", &[], &["node.kubernetes.io/not-ready:NoExecute"]),
                node("cp1", "10.0.0.11", &["control-plane"], &["node-role.kubernetes.io/control-plane:NoSchedule"]),
                node("cp2", "10.0.0.12", &["control-plane"], &[]),
            ],
            adopt: Some(format!("sha256:{}", "0".repeat(64))),
            bridge: false,
            user: Some("ops".into()),
            port: None,
        }
    }

    #[test]
    fn what_is_found_is_an_inventory() {
        let mut found = found();
        found.cluster["controlPlaneEndpoint"] = json!("api.example:6443");
        let (text, warnings) = draft(&found).unwrap();
        assert!(warnings.is_empty());
        assert_snapshot!(text, @r#"
        cluster:
          name: kubernetes
          kubernetes: "1.36.3"
          endpoint: api.example:6443
          network:
            pods: 10.244.0.0/16
            services: 10.96.0.0/12
            domain: cluster.local
            plugin: none
          adopt: sha256:0000000000000000000000000000000000000000000000000000000000000000
          kubeadm:
          - apiVersion: kubeadm.k8s.io/v1beta4
            kind: ClusterConfiguration
            etcd:
              local:
                dataDir: /var/lib/etcd
          - apiVersion: kubelet.config.k8s.io/v1beta1
            kind: KubeletConfiguration
            maxPods: 50
        ssh:
          user: ops
        hosts:
          cp1:
            address: "10.0.0.11"
            role: control-plane
            labels:
              disk: ssd
          cp2:
            address: "10.0.0.12"
            role: control-plane
            labels:
              disk: ssd
            taints: []
          w1:
            address: "10.0.0.21"
            role: worker
            labels:
              disk: ssd
        "#);
        let inventory = inventory::parse(&text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"));
        assert_eq!(inventory.cluster.adopt, found.adopt);
        assert_eq!(Documents::read(&inventory).unwrap().field("KubeletConfiguration", &["maxPods"]), Some(&json!(50)));
    }

    #[test]
    fn the_built_in_endpoint_is_named_as_one_writes_it() {
        let mut found = found();
        found.cluster["controlPlaneEndpoint"] = json!("127.0.0.1:6444");
        assert!(draft(&found).unwrap().0.contains("endpoint: built-in\n"));
    }

    #[test]
    fn what_an_inventory_cannot_say_is_told() {
        let mut found = found();
        found.cluster["networking"]["podSubnet"] = json!("10.244.0.0/16,fd00::/56");
        assert!(draft(&found).unwrap_err().sentence.starts_with("the cluster has two networks of pods"));
        found.cluster["networking"] = json!({});
        assert!(draft(&found).unwrap().1[0].starts_with("the cluster was made without a pod network"));
        let empty = Found { nodes: Vec::new(), ..found };
        assert_eq!(draft(&empty).unwrap_err().sentence, "the cluster has no nodes");
    }

    #[test]
    fn labels_of_components_are_left_to_them() {
        let persons = ["disk", "example.com/a", "mykubernetes.io/a", "node-role.kubernetes.io/x", "k8s.io/a"];
        assert_eq!(persons.map(is_a_persons), [true, true, true, false, false]);
    }
}
