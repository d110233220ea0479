//! kubeadm.k8s.io/v1beta3, accepted as upstream does up to 1.36 (kubeadm.md section 13.7): rewritten to v1beta4 before
//! it is read. Clusters last touched by kubeadm 1.30 or older store their configuration in it.

use serde_json::{Map, Value, json};

/// Rewrites a v1beta3 document of `kind` to v1beta4. A timeout that moved to another document (the API server's, which
/// now stands in InitConfiguration) is returned.
pub(super) fn to_v1beta4(kind: &str, document: &mut Value) -> Option<Value> {
    let fields = document.as_object_mut()?;
    fields.insert("apiVersion".into(), "kubeadm.k8s.io/v1beta4".into());
    match kind {
        "ClusterConfiguration" => cluster(fields),
        "InitConfiguration" => {
            node_registration(fields);
            None
        }
        "JoinConfiguration" => {
            node_registration(fields);
            let timeout = object(fields, "discovery").and_then(|discovery| discovery.remove("timeout"));
            if let Some(timeout) = timeout {
                fields.insert("timeouts".into(), json!({ "discovery": timeout }));
            }
            None
        }
        _ => None,
    }
}

fn object<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    fields.get_mut(name).and_then(Value::as_object_mut)
}

fn cluster(fields: &mut Map<String, Value>) -> Option<Value> {
    for component in ["apiServer", "controllerManager", "scheduler"] {
        if let Some(component) = object(fields, component) {
            list_arguments(component, "extraArgs");
        }
    }
    if let Some(local) = object(fields, "etcd").and_then(|etcd| object(etcd, "local")) {
        list_arguments(local, "extraArgs");
    }
    // The gate was the only way to choose ECDSA keys.
    let gate = object(fields, "featureGates").and_then(|gates| gates.remove("PublicKeysECDSA"));
    if gate == Some(Value::Bool(true)) {
        fields.insert("encryptionAlgorithm".into(), "ECDSA-P256".into());
    }
    object(fields, "apiServer").and_then(|api_server| api_server.remove("timeoutForControlPlane"))
}

fn node_registration(fields: &mut Map<String, Value>) {
    if let Some(node) = object(fields, "nodeRegistration") {
        list_arguments(node, "kubeletExtraArgs");
    }
}

/// Turns a map of arguments into a list sorted by name.
fn list_arguments(fields: &mut Map<String, Value>, name: &str) {
    if let Some(Value::Object(arguments)) = fields.get(name) {
        let mut list: Vec<_> = arguments.iter().collect();
        list.sort_by_key(|(name, _)| name.as_str());
        let list = list.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        fields.insert(name.to_owned(), Value::Array(list));
    }
}
