//! What dry runs say they would write to the API server, as objects. Upstream prints each of them into its log; of what it
//! does to a Node there are the lines of mark-control-plane alone.

use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;

/// What begins the log's line before an action, and the one before its object.
const ACTION: &str = "[dryrun] Would perform action ";
const OBJECT: &str = "[dryrun] Attached object:";

/// What begins the log's line about a Node's labels or taints.
const MARK: &str = "[mark-control-plane] Marking the node ";

/// What upstream's `init --dry-run` would write, out of its log.
pub fn of_upstream(log: &str) -> Snapshot {
    let mut objects: Vec<Value> = Vec::new();
    let mut marks: Vec<(&str, &str)> = Vec::new();
    let mut verb = "";
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix(ACTION) {
            verb = rest.split(' ').next().unwrap_or_default();
        } else if let Some(rest) = line.strip_prefix(MARK) {
            marks.push(rest.split_once(" as control-plane by adding the ").expect("a label or a taint"));
        } else if line == OBJECT {
            // No line of such a document begins with a bracket, and every other line of the log does.
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('[')) {
                text.push_str(&format!("{line}\n"));
            }
            put(&mut objects, verb, &text);
        }
    }
    for (node, what) in marks {
        let object = objects.iter_mut().find(|object| object["kind"] == "Node" && object["metadata"]["name"] == node);
        mark(object.unwrap_or_else(|| panic!("nobody looked at the node {node}")), what);
    }
    snapshot(objects)
}

/// Takes an object into those that are written; a Node is taken as it is before anything is written to it.
fn put(objects: &mut Vec<Value>, verb: &str, text: &str) {
    // What is not written may stand before the text of the end, which is no document.
    if !matches!(verb, "CREATE" | "UPDATE" | "GET") {
        return;
    }
    let mut documents = clusterctl::yaml::documents(text).unwrap_or_else(|finding| panic!("{finding:?} in:\n{text}"));
    let (_, object) = documents.swap_remove(0);
    let is_same = |other: &Value| {
        ["/kind", "/metadata/namespace", "/metadata/name"].iter().all(|at| other.pointer(at) == object.pointer(at))
    };
    match objects.iter_mut().find(|other| is_same(other)) {
        Some(_) if verb == "GET" => {}
        Some(earlier) => *earlier = object,
        None if verb != "GET" || object["kind"] == "Node" => objects.push(object),
        None => {}
    }
}

/// Adds `labels: [a b]` or `taints [key=value:effect key:effect]` to a Node.
fn mark(node: &mut Value, what: &str) {
    let (kind, list) = what.split_once(" [").expect("a list");
    for word in list.trim_end_matches(']').split_whitespace() {
        if kind == "labels:" {
            node["metadata"]["labels"][word] = json!("");
            continue;
        }
        let (name, effect) = word.rsplit_once(':').expect("a taint has an effect");
        let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value)));
        let mut taint = json!({ "key": key, "effect": effect });
        if let Some(value) = value {
            taint["value"] = json!(value);
        }
        match node["spec"]["taints"].as_array_mut() {
            Some(taints) => taints.push(taint),
            None => node["spec"]["taints"] = json!([taint]),
        }
    }
}

/// What our `node init --dry-run -o json` would write.
pub fn of_ours(document: &str) -> Snapshot {
    let told: Value = serde_json::from_str(document).unwrap_or_else(|error| panic!("{error} in {document}"));
    snapshot(told["objects"].as_array().cloned().unwrap_or_default())
}

fn snapshot(mut objects: Vec<Value>) -> Snapshot {
    objects.iter_mut().filter_map(Value::as_object_mut).for_each(settle);
    Snapshot::of_objects(&json!({ "items": objects }))
}

/// Takes out of an object what the other side does not tell in a dry run.
fn settle(object: &mut Map<String, Value>) {
    match object.get("kind").and_then(Value::as_str) {
        Some("Secret") => settle_secret(object),
        Some("Node") => {
            // Upstream's log does not tell the annotation that older minors write.
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("annotations");
            }
            if object.get("spec") == Some(&json!({})) {
                object.remove("spec");
            }
        }
        _ => {}
    }
}

/// We do not tell values of Secrets, and tokens of a run are random: a token is named by what it holds. The API server makes
/// `data` of `stringData`.
fn settle_secret(object: &mut Map<String, Value>) {
    let texts = object.remove("stringData").and_then(|texts| texts.as_object().cloned()).unwrap_or_default();
    let Some(data) = object.entry("data").or_insert(json!({})).as_object_mut() else { return };
    data.extend(texts);
    data.values_mut().for_each(|value| *value = json!(""));
    let mut keys: Vec<String> = data.keys().cloned().collect();
    keys.sort();
    if let Some(name) = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("name"))
        && name.as_str().is_some_and(|name| name.starts_with("bootstrap-token-"))
    {
        *name = json!(format!("bootstrap-token of {}", keys.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{of_ours, of_upstream};

    const LOG: &str = "[init] Using Kubernetes version: v1.36.3\n\
        [dryrun] Would perform action CREATE on resource \"configmaps\" in API group \"core/v1\"\n\
        [dryrun] Attached object:\napiVersion: v1\ndata:\n  a: |\n    one\n\n    two\nkind: ConfigMap\nmetadata:\n  name: m\n  namespace: n\n\n\
        [mark-control-plane] Marking the node cp1 as control-plane by adding the labels: [a b]\n\
        [mark-control-plane] Marking the node cp1 as control-plane by adding the taints [k=v:NoSchedule other:NoExecute]\n\
        [dryrun] Would perform action GET on resource \"nodes\" in API group \"core/v1\"\n\
        [dryrun] Resource name \"cp1\", namespace \"\"\n\
        [dryrun] Attached object:\napiVersion: v1\nkind: Node\nmetadata:\n  name: cp1\nspec: {}\nstatus:\n  x: 1\n\n\
        [dryrun] Would perform action PATCH on resource \"nodes\" in API group \"core/v1\"\n\
        [dryrun] Attached object:\napiVersion: v1\nkind: Node\nmetadata:\n  name: cp1\n\n\
        [dryrun] Would perform action CREATE on resource \"secrets\" in API group \"core/v1\"\n\
        [dryrun] Attached object:\napiVersion: v1\ndata:\n  token-id: YQ==\nkind: Secret\nmetadata:\n  name: bootstrap-token-aaaaaa\n\n\
        [addons] Applied essential addon: CoreDNS\n\nThe end\n";

    fn ours(map: &str, label: &str, taint: &str, key: &str) -> String {
        serde_json::json!({"host": [], "objects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": {"a": map}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "cp1", "labels": {"a": "", label: ""}, "annotations": {"x": "y"}},
                "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": taint, "effect": "NoExecute"}]}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bootstrap-token-bbbbbb"}, "data": {key: "***"}},
        ]})
        .to_string()
    }

    #[rstest]
    #[case::same("one\n\ntwo\n", "b", "other", "token-id", 0)]
    #[case::map("one\ntwo\n", "b", "other", "token-id", 1)]
    #[case::label("one\n\ntwo\n", "c", "other", "token-id", 2)]
    #[case::taint("one\n\ntwo\n", "b", "third", "token-id", 2)]
    #[case::secret("one\n\ntwo\n", "b", "other", "expiration", 2)]
    fn dry_runs_are_compared(
        #[case] map: &str,
        #[case] label: &str,
        #[case] taint: &str,
        #[case] key: &str,
        #[case] differences: usize,
    ) {
        let found = of_upstream(LOG).differences(&of_ours(&ours(map, label, taint, key)));
        assert_eq!(found.len(), differences, "{found:#?}");
    }
}
