//! JSON Patch (RFC 6902).

use serde_json::Value;

use crate::yaml::{Content, Finding, Node};

/// What an operation of this name needs besides `path`.
const NEEDS: [(&str, &[&str]); 6] = [
    ("add", &["value"]),
    ("remove", &[]),
    ("replace", &["value"]),
    ("move", &["from"]),
    ("copy", &["from"]),
    ("test", &["value"]),
];

/// Checks that a list holds operations, each with what it needs.
///
/// # Errors
/// The first mistake, where it stands.
pub(super) fn check(list: &Node) -> Result<(), Finding> {
    let Content::List(items) = &list.content else { return Ok(()) };
    for item in items {
        let Content::Map(entries) = &item.content else {
            return Err(Finding::error(item.span, format!("an operation is a mapping, and here is {}", item.what())));
        };
        let entry = |name: &str| entries.iter().find(|entry| entry.key.text == name).map(|entry| &entry.value);
        let text = |name: &str| entry(name).and_then(|node| node.to_value().as_str().map(str::to_owned));
        let Some(operation) = text("op") else {
            return Err(Finding::error(item.span, "the operation has no `op`").help(known()));
        };
        let Some((_, needs)) = NEEDS.iter().find(|(name, _)| *name == operation) else {
            let span = entry("op").map_or(item.span, |node| node.span);
            return Err(Finding::error(span, format!("there is no operation {operation:?}")).help(known()));
        };
        for name in std::iter::once(&"path").chain(needs.iter()) {
            let missing = || Finding::error(item.span, format!("the operation {operation} needs `{name}`"));
            let node = entry(name).ok_or_else(missing)?;
            if *name != "value" {
                let pointer = text(name).unwrap_or_default();
                if !pointer.is_empty() && !pointer.starts_with('/') || text(name).is_none() {
                    return Err(Finding::error(
                        node.span,
                        format!("{name} must be a JSON pointer such as /spec/nodeName"),
                    ));
                }
            }
        }
    }
    Ok(())
}

fn known() -> String {
    let names: Vec<&str> = NEEDS.iter().map(|(name, _)| *name).collect();
    format!("write one of {}", names.join(", "))
}

/// Applies checked operations in order.
///
/// # Errors
/// A sentence about the first one that does not fit.
pub(super) fn apply(mut document: Value, operations: &Value) -> Result<Value, String> {
    for operation in operations.as_array().into_iter().flatten() {
        let text = |name: &str| operation[name].as_str().unwrap_or_default();
        let path = text("path");
        match text("op") {
            "add" => add(&mut document, path, operation["value"].clone())?,
            "remove" => remove(&mut document, path).map(drop)?,
            "replace" => {
                let place = document.pointer_mut(path).ok_or_else(|| nothing(path))?;
                *place = operation["value"].clone();
            }
            "move" => {
                let value = remove(&mut document, text("from"))?;
                add(&mut document, path, value)?;
            }
            "copy" => {
                let value = document.pointer(text("from")).cloned().ok_or_else(|| nothing(text("from")))?;
                add(&mut document, path, value)?;
            }
            _ => {
                let there = document.pointer(path).unwrap_or(&Value::Null);
                if *there != operation["value"] {
                    return Err(format!("{path} is not what the test wants"));
                }
            }
        }
    }
    Ok(document)
}

fn nothing(path: &str) -> String {
    format!("there is nothing at {path}")
}

/// The parent of a place and its last word, unescaped.
fn split<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| "the whole document cannot be its place".to_owned())?;
    let parent = document.pointer_mut(parent).ok_or_else(|| nothing(parent))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

/// A place in a list: digits, or `-` for its end where `end` says so.
fn index(word: &str, length: usize, end: bool, path: &str) -> Result<usize, String> {
    if end && word == "-" {
        return Ok(length);
    }
    let number = word.parse().ok().filter(|number| *number < length + usize::from(end));
    number.ok_or_else(|| nothing(path))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    match split(document, path)? {
        (Value::Object(fields), name) => {
            fields.insert(name, value);
        }
        (Value::Array(items), word) => {
            let at = index(&word, items.len(), true, path)?;
            items.insert(at, value);
        }
        _ => return Err(format!("{path} lies in what is neither a mapping nor a list")),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, String> {
    match split(document, path)? {
        (Value::Object(fields), name) => fields.shift_remove(&name).ok_or_else(|| nothing(path)),
        (Value::Array(items), word) => {
            let at = index(&word, items.len(), false, path)?;
            Ok(items.remove(at))
        }
        _ => Err(nothing(path)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::apply;

    #[rstest]
    #[case(json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), json!({"a": 1, "b": 2}))]
    #[case(json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]}))]
    #[case(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]}))]
    #[case(json!({"a": {"b/c": 1}}), json!([{"op": "remove", "path": "/a/b~1c"}]), json!({"a": {}}))]
    #[case(json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": null}]), json!({"a": null}))]
    #[case(json!({"a": {"b": 1}, "c": {}}), json!([{"op": "move", "from": "/a/b", "path": "/c/d"}]), json!({"a": {}, "c": {"d": 1}}))]
    #[case(json!({"a": [1]}), json!([{"op": "copy", "from": "/a/0", "path": "/b"}]), json!({"a": [1], "b": 1}))]
    #[case(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1}))]
    #[case(json!({"a": 1}), json!([{"op": "replace", "path": "", "value": 2}]), json!(2))]
    fn operations(#[case] document: Value, #[case] patch: Value, #[case] patched: Value) {
        assert_eq!(apply(document, &patch), Ok(patched));
    }

    #[rstest]
    #[case(json!([{"op": "remove", "path": "/b"}]))]
    #[case(json!([{"op": "replace", "path": "/b", "value": 1}]))]
    #[case(json!([{"op": "add", "path": "/a/x", "value": 1}]))]
    #[case(json!([{"op": "add", "path": "/a/3", "value": 1}]))]
    #[case(json!([{"op": "remove", "path": "/a/-"}]))]
    #[case(json!([{"op": "add", "path": "/b/c", "value": 1}]))]
    #[case(json!([{"op": "test", "path": "/a/0", "value": 2}]))]
    fn what_does_not_fit_is_refused(#[case] patch: Value) {
        assert!(apply(json!({"a": [1]}), &patch).is_err());
    }
}
