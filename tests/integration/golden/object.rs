//! An object of the API as lines of text, without what every cluster has its own of.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::snapshot::lines_of;

/// Kinds that are compared. Not there: what controllers make out of these (pods, replica sets, endpoints, leases, events).
pub const KINDS: &str = "namespaces,configmaps,secrets,serviceaccounts,roles,rolebindings,clusterroles,\
                         clusterrolebindings,daemonsets,deployments,services,nodes,priorityclasses,storageclasses,\
                         customresourcedefinitions,apiservices,csidrivers,validatingwebhookconfigurations";

/// Metadata that the API server or a controller gives.
const OWN_METADATA: &[&str] = &["uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink"];

/// What kubeadm says of the token whose end is that of the uploaded certificates, in base64, and the name it gets here.
const KEEPER: &str = "UHJveHkgZm9yIG1hbmFnaW5nIFRUTCBmb3IgdGhlIGt1YmVhZG0tY2VydHMgc2VjcmV0";
const KEEPER_NAME: &str = "bootstrap-token-of-kubeadm-certs";

/// Name and lines of an object; `None` for one without a name.
pub fn lines(object: &Value) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let (kind, namespace, name) = (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
    if name.is_empty() {
        return None;
    }
    // The token that keeps the uploaded certificates alive has a random name.
    let keeper = object["data"]["description"].as_str() == Some(KEEPER);
    let name = if keeper { KEEPER_NAME.to_owned() } else { name };
    let mut object = object.clone();
    let fields = object.as_object_mut()?;
    fields.remove("status");
    let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut)?;
    OWN_METADATA.iter().for_each(|field| drop(metadata.remove(*field)));
    if let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
        owners.iter_mut().for_each(|owner| {
            owner["uid"] = Value::Null;
            if owner["name"].as_str().is_some_and(|name| name.starts_with("bootstrap-token-")) {
                owner["name"] = KEEPER_NAME.into();
            }
        });
    }
    if keeper {
        metadata.insert("name".to_owned(), KEEPER_NAME.into());
    }
    // kubeadm prints up to 1.33 that the pods of a template were never created; the API server drops it.
    if let Some(template) = fields.get_mut("spec").and_then(|spec| spec.pointer_mut("/template/metadata")) {
        let template = template.as_object_mut()?;
        if template.get("creationTimestamp").is_some_and(Value::is_null) {
            template.remove("creationTimestamp");
        }
    }
    match kind.as_str() {
        "Secret" if name == "kubeadm-certs" => measure(fields),
        "Secret" => decode(fields, keeper),
        "Node" => settle_node(fields),
        _ => {}
    }
    let mut lines = String::new();
    write(&mut lines, "", &object);
    Some((format!("{kind} {namespace}/{name}"), lines))
}

/// Encrypted files: as long as each other, but for a few bytes of a key.
fn measure(fields: &mut Map<String, Value>) {
    let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) else { return };
    for value in data.values_mut() {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        *value = Value::String(format!("{} bytes", (bytes.len() + 32) / 64 * 64));
    }
}

fn decode(fields: &mut Map<String, Value>, random: bool) {
    let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) else { return };
    for (key, value) in data {
        let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        let text = String::from_utf8_lossy(&decoded.unwrap_or_default()).into_owned();
        // The configuration gives the token, the moment of the run when it ends.
        let text = match key.as_str() {
            "expiration" => moment(&text),
            "token-id" | "token-secret" if random => format!("{} characters", text.len()),
            _ => text,
        };
        *value = Value::String(text);
    }
}

/// The form of a moment: `2026-11-23T15:00:00Z` becomes `0000-00-00T00:00:00Z`.
fn moment(text: &str) -> String {
    text.chars().map(|one| if one.is_ascii_digit() { '0' } else { one }).collect()
}

/// Taints that come and go with the node's readiness are the node controller's.
fn settle_node(fields: &mut Map<String, Value>) {
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut) {
        taints.retain(|taint| !taint["key"].as_str().unwrap_or_default().starts_with("node.kubernetes.io/"));
        if taints.is_empty() {
            spec.remove("taints");
        }
    }
}

/// One line a value, named by its path; texts of several lines follow theirs. Fields are sorted, lists are not.
fn write(out: &mut String, path: &str, value: &Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            names.into_iter().for_each(|name| write(out, &format!("{path}.{name}"), &fields[name]));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(at, item)| write(out, &format!("{path}[{at}]"), item));
        }
        // A signature is made with the cluster's own certificate in it; that it fits is the join's test.
        Value::String(_) if path.starts_with(".data.jws-kubeconfig-") => out.push_str(&format!("{path}: signature\n")),
        Value::String(text) if text.contains('\n') => {
            out.push_str(&format!("{path}:\n"));
            lines_of(text).lines().for_each(|line| out.push_str(&format!("    {line}\n")));
        }
        scalar => out.push_str(&format!("{path}: {scalar}\n")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::lines;

    #[rstest]
    #[case::metadata(
        json!({"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b", "uid": "1", "labels": {"x": "y"}},
            "data": {"text": "one\ntwo"}}),
        "ConfigMap b/a",
        ".data.text:\n    one\n    two\n    (no newline at the end)\n.kind: \"ConfigMap\"\n.metadata.labels.x: \"y\"\n\
         .metadata.name: \"a\"\n.metadata.namespace: \"b\"\n"
    )]
    #[case::secret(
        json!({"kind": "Secret", "metadata": {"name": "a"}, "data": {"expiration": "MjAyNi0xMS0yM1QxMjozNDo1Nlo=", "b": "eA=="}}),
        "Secret /a",
        ".data.b: \"x\"\n.data.expiration: \"0000-00-00T00:00:00Z\"\n.kind: \"Secret\"\n.metadata.name: \"a\"\n"
    )]
    #[case::node(
        json!({"kind": "Node", "metadata": {"name": "a"}, "status": {"x": 1},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, {"key": "k"}]}}),
        "Node /a",
        ".kind: \"Node\"\n.metadata.name: \"a\"\n.spec.taints[0].key: \"k\"\n"
    )]
    fn what_is_the_clusters_own_is_left_out(#[case] object: Value, #[case] name: &str, #[case] expected: &str) {
        assert_eq!(lines(&object), Some((name.to_owned(), expected.to_owned())));
    }
}
