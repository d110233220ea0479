//! Kubernetes' strategic merge patch: mappings are merged, lists are found by a key or replaced, `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList/...` and `$setElementOrder/...` direct it. The rules and the resulting order are those of
//! k8s.io/apimachinery's strategicpatch.

use serde_json::{Map, Value};

/// How the fields of a type are merged; those that are not named are merged as mappings and replaced as lists.
#[derive(Debug)]
pub(super) struct Schema {
    /// Lists that are merged: field, merge key of its items (none for plain values), type of its items.
    lists: &'static [(&'static str, Option<&'static str>, &'static Schema)],
    /// Mappings with fields of their own.
    fields: &'static [(&'static str, &'static Schema)],
}

/// A type none of whose lists are merged: KubeletConfiguration.
pub(super) const PLAIN: Schema = Schema { lists: &[], fields: &[] };

const METADATA: Schema =
    Schema { lists: &[("finalizers", None, &PLAIN), ("ownerReferences", Some("uid"), &PLAIN)], fields: &[] };

const CONTAINER: Schema = Schema {
    lists: &[
        ("ports", Some("containerPort"), &PLAIN),
        ("env", Some("name"), &PLAIN),
        ("volumeMounts", Some("mountPath"), &PLAIN),
        ("volumeDevices", Some("devicePath"), &PLAIN),
    ],
    fields: &[],
};

const POD_SPEC: Schema = Schema {
    lists: &[
        ("volumes", Some("name"), &PLAIN),
        ("initContainers", Some("name"), &CONTAINER),
        ("containers", Some("name"), &CONTAINER),
        ("ephemeralContainers", Some("name"), &CONTAINER),
        ("imagePullSecrets", Some("name"), &PLAIN),
        ("hostAliases", Some("ip"), &PLAIN),
        ("topologySpreadConstraints", Some("topologyKey"), &PLAIN),
        ("schedulingGates", Some("name"), &PLAIN),
        ("resourceClaims", Some("name"), &PLAIN),
    ],
    fields: &[],
};

/// Pod; also the template of a workload.
pub(super) const POD: Schema = Schema { lists: &[], fields: &[("metadata", &METADATA), ("spec", &POD_SPEC)] };

const WORKLOAD_SPEC: Schema = Schema { lists: &[], fields: &[("template", &POD)] };

/// Deployment.
pub(super) const DEPLOYMENT: Schema =
    Schema { lists: &[], fields: &[("metadata", &METADATA), ("spec", &WORKLOAD_SPEC)] };

/// DaemonSet.
pub(super) const DAEMON_SET: Schema = DEPLOYMENT;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER_OF: &str = "$setElementOrder/";

impl Schema {
    fn field(&self, name: &str) -> &'static Schema {
        self.fields.iter().find(|(field, _)| *field == name).map_or(&PLAIN, |(_, schema)| schema)
    }

    fn list(&self, name: &str) -> Option<(Option<&'static str>, &'static Schema)> {
        self.lists.iter().find(|(field, ..)| *field == name).map(|(_, key, schema)| (*key, *schema))
    }
}

/// Applies a patch.
///
/// # Errors
/// A sentence about what cannot be merged.
pub(super) fn apply(document: Value, patch: &Value, schema: &Schema) -> Result<Value, String> {
    match (document, patch) {
        (Value::Object(fields), Value::Object(patch)) => merge_map(fields, patch, schema).map(Value::Object),
        _ => Err("only a mapping can be merged into a mapping".to_owned()),
    }
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: &Schema,
) -> Result<Map<String, Value>, String> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            let mut replaced = patch.clone();
            replaced.shift_remove(DIRECTIVE);
            return Ok(replaced);
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(other) => return Err(format!("{DIRECTIVE} cannot be {other:?} in a mapping; write replace or delete")),
    }
    retain_keys(&mut original, patch)?;
    for (name, change) in patch {
        if name == RETAIN_KEYS || name.starts_with(ORDER_OF) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            let gone = change.as_array().ok_or_else(|| format!("{name} must be a list"))?;
            if let Some(Value::Array(items)) = original.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let merged = match (original.get_mut(name).map(Value::take), change) {
            (_, Value::Null) => None,
            (Some(Value::Object(there)), Value::Object(change)) => {
                Some(Value::Object(merge_map(there, change, schema.field(name))?))
            }
            (Some(Value::Array(there)), Value::Array(change)) => Some(Value::Array(match schema.list(name) {
                Some((key, items)) => {
                    merge_list(there, change, key, items).map_err(|reason| format!("{name}: {reason}"))?
                }
                None => change.clone(),
            })),
            (_, change) => without_directives(change),
        };
        match merged {
            Some(value) => {
                original.insert(name.clone(), value);
            }
            None => {
                original.shift_remove(name);
            }
        }
    }
    for (name, order) in patch.iter().filter_map(|(name, order)| Some((name.strip_prefix(ORDER_OF)?, order))) {
        let order = order.as_array().ok_or_else(|| format!("{ORDER_OF}{name} must be a list"))?;
        if let Some(Value::Array(items)) = original.get_mut(name) {
            let key = schema.list(name).and_then(|(key, _)| key);
            let before = std::mem::take(items);
            *items = ordered(before.clone(), order, &before, key);
        }
    }
    Ok(original)
}

/// `$retainKeys`: all other keys of the original go; what the patch sets must be among them.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    let Some(retained) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let retained = retained.as_array().ok_or_else(|| format!("{RETAIN_KEYS} must be a list of names"))?;
    let is_retained = |name: &str| retained.iter().any(|key| key == name);
    let lost = patch.iter().find(|(name, value)| !value.is_null() && !name.starts_with('$') && !is_retained(name));
    if let Some((name, _)) = lost {
        return Err(format!("the patch sets {name}, which {RETAIN_KEYS} does not name"));
    }
    original.retain(|name, _| is_retained(name));
    Ok(())
}

fn merge_list(
    mut original: Vec<Value>,
    patch: &[Value],
    key: Option<&'static str>,
    schema: &Schema,
) -> Result<Vec<Value>, String> {
    let Some(key) = key else {
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(ordered(merged, patch, &original, None));
    };
    let missing = || format!("an item has no {key}, by which items of this list are found");
    if original.iter().any(|item| item.get(key).is_none()) {
        return Err(missing());
    }
    let mut changes = Vec::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(fields) = item else { return Err(format!("an item is not a mapping: {item}")) };
        match fields.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
            None => changes.push(item.clone()),
            Some("delete") => {
                let value = fields.get(key).ok_or_else(missing)?;
                original.retain(|there| there.get(key) != Some(value));
            }
            Some("replace") => replace = true,
            Some(other) => return Err(format!("{DIRECTIVE} cannot be {other:?} in a list; write replace or delete")),
        }
    }
    if replace {
        return Ok(changes);
    }
    let mut merged = original.clone();
    for change in &changes {
        let value = change.get(key).ok_or_else(missing)?;
        let there = merged.iter().position(|item| item.get(key) == Some(value));
        match (there, change) {
            (Some(position), Value::Object(change)) => {
                let before = match merged[position].take() {
                    Value::Object(fields) => fields,
                    other => return Err(format!("an item is not a mapping: {other}")),
                };
                merged[position] = Value::Object(merge_map(before, change, schema)?);
            }
            _ => merged.extend(without_directives(change)),
        }
    }
    Ok(ordered(merged, &changes, &original, Some(key)))
}

/// What an item is known by.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> &'a Value {
    key.and_then(|key| item.get(key)).unwrap_or(item)
}

fn position(items: &[Value], wanted: &Value, key: Option<&str>) -> Option<usize> {
    items.iter().position(|item| identity(item, key) == identity(wanted, key))
}

/// Merged items in order: those of the patch in its order, the others in the original's, woven together by the original's
/// order where it knows both.
fn ordered(merged: Vec<Value>, patch: &[Value], original: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(patch, item, key).is_some());
    patched.sort_by_key(|item| position(patch, item, key));
    others.sort_by_key(|item| position(original, item, key));
    let mut woven = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let first = match (others.peek(), patched.peek()) {
            (None, None) => return woven,
            (Some(_), None) => others.next(),
            (None, Some(_)) => patched.next(),
            (Some(other), Some(item)) => match (position(original, other, key), position(original, item, key)) {
                (Some(other), Some(item)) if other < item => others.next(),
                _ => patched.next(),
            },
        };
        woven.extend(first);
    }
}

/// A value that is new where it comes to: nulls and directives in it mean nothing there. `None` if it is itself one.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !name.starts_with('$'));
            Some(Value::Object(
                kept.filter_map(|(name, value)| Some((name.clone(), without_directives(value)?))).collect(),
            ))
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(without_directives).collect())),
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{DEPLOYMENT, PLAIN, POD, Schema, apply};

    fn pod(container: Value) -> Value {
        json!({"spec": {"containers": [container]}})
    }

    #[rstest]
    #[case::containers_by_name(
        json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "b"}]}})
    )]
    #[case::a_new_item_comes_first(
        pod(json!({"name": "a", "env": [{"name": "x", "value": "1"}]})),
        pod(json!({"name": "a", "env": [{"name": "y", "value": "2"}]})),
        pod(json!({"name": "a", "env": [{"name": "y", "value": "2"}, {"name": "x", "value": "1"}]}))
    )]
    #[case::mounts_by_path_and_ports_by_number(
        pod(json!({"name": "a", "volumeMounts": [{"mountPath": "/m", "name": "v"}], "ports": [{"containerPort": 1}]})),
        pod(json!({"name": "a", "volumeMounts": [{"mountPath": "/m", "readOnly": true}],
            "ports": [{"containerPort": 1, "protocol": "TCP"}]})),
        pod(json!({"name": "a", "volumeMounts": [{"mountPath": "/m", "name": "v", "readOnly": true}],
            "ports": [{"containerPort": 1, "protocol": "TCP"}]}))
    )]
    #[case::other_lists_are_replaced(
        pod(json!({"name": "a", "command": ["x", "--y"]})),
        pod(json!({"name": "a", "command": ["z"]})),
        pod(json!({"name": "a", "command": ["z"]}))
    )]
    #[case::null_removes(
        json!({"spec": {"hostNetwork": true, "priority": 1}}),
        json!({"spec": {"hostNetwork": null, "none": null}}),
        json!({"spec": {"priority": 1}})
    )]
    #[case::an_item_is_deleted(
        json!({"spec": {"volumes": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"volumes": [{"name": "a", "$patch": "delete"}]}}),
        json!({"spec": {"volumes": [{"name": "b"}]}})
    )]
    #[case::a_list_is_replaced(
        json!({"spec": {"volumes": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"volumes": [{"$patch": "replace"}, {"name": "c"}]}}),
        json!({"spec": {"volumes": [{"name": "c"}]}})
    )]
    #[case::a_mapping_is_replaced(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
        json!({"metadata": {"labels": {"c": "3"}}})
    )]
    #[case::a_mapping_is_emptied(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"labels": {}}})
    )]
    #[case::only_these_keys_stay(
        json!({"spec": {"volumes": [{"name": "a", "hostPath": {"path": "/a"}}]}}),
        json!({"spec": {"volumes": [{"name": "a", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}})
    )]
    #[case::plain_values_are_united(
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}})
    )]
    #[case::plain_values_are_deleted(
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {"finalizers": ["b"]}})
    )]
    #[case::the_order_is_set(
        json!({"spec": {"volumes": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}),
        json!({"spec": {"$setElementOrder/volumes": [{"name": "c"}, {"name": "a"}]}}),
        json!({"spec": {"volumes": [{"name": "b"}, {"name": "c"}, {"name": "a"}]}})
    )]
    #[case::what_is_new_carries_no_directives(
        json!({"spec": {}}),
        json!({"spec": {"securityContext": {"a": null, "b": {"$patch": "delete"}, "c": 1}}}),
        json!({"spec": {"securityContext": {"c": 1}}})
    )]
    fn pods(#[case] document: Value, #[case] patch: Value, #[case] patched: Value) {
        assert_eq!(apply(document, &patch, &POD), Ok(patched));
    }

    #[rstest]
    #[case(&PLAIN, json!({"clusterDNS": ["a"]}), json!({"clusterDNS": ["b"]}), json!({"clusterDNS": ["b"]}))]
    #[case(
        &DEPLOYMENT,
        json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "coredns", "image": "i"}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "coredns", "args": []}]}}}}),
        json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "coredns", "image": "i", "args": []}]}}}})
    )]
    fn other_types(#[case] schema: &Schema, #[case] document: Value, #[case] patch: Value, #[case] patched: Value) {
        assert_eq!(apply(document, &patch, schema), Ok(patched));
    }

    #[rstest]
    #[case(json!({"spec": {"volumes": [{"hostPath": {}}]}}), "volumes: an item has no name")]
    #[case(json!({"spec": {"$patch": "merge"}}), "$patch cannot be")]
    #[case(json!({"spec": {"volumes": [{"name": "a", "$patch": "merge"}]}}), "volumes: $patch cannot be")]
    #[case(json!({"spec": {"volumes": ["a"]}}), "volumes: an item is not a mapping")]
    #[case(json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "the patch sets b")]
    fn mistakes(#[case] patch: Value, #[case] reason: &str) {
        let found = apply(json!({"spec": {"volumes": [{"name": "a"}]}}), &patch, &POD).unwrap_err();
        assert!(found.contains(reason), "{found}");
    }
}
