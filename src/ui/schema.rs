//! The JSON Schema of events (`events.schema.json` beside this file), and the part of JSON Schema that judges by it.

use serde_json::Value;

use crate::failure::{Failure, Kind, Result};

/// The schema, as text.
pub const EVENTS: &str = include_str!("events.schema.json");

/// What is wrong with a line of events, by the schema; nothing if it is right.
///
/// # Errors
/// Kind `Internal` when the schema itself cannot be read.
pub fn judge(line: &str) -> Result<Vec<String>> {
    let schema: Value = serde_json::from_str(EVENTS)
        .map_err(|error| Failure::new(Kind::Internal, "the schema of events is no JSON").because(&error))?;
    Ok(match serde_json::from_str(line) {
        Ok(value) => problems(&schema, &schema, &value, "line"),
        Err(error) => vec![format!("it is no JSON: {error}")],
    })
}

/// Words about a constant that is not met.
const NOT: &str = "it is not";

/// What a schema says against a value. Knows `type`, `const`, `enum`, `required`, `properties`, `items`, `minimum`,
/// `oneOf` and `$ref` into `$defs`: what the schema of events is written with.
fn problems(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return match root.pointer(name.trim_start_matches('#')) {
            Some(schema) => problems(root, schema, value, place),
            None => vec![format!("{place}: the schema has no {name}")],
        };
    }
    let mut found = Vec::new();
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(value, kind)) {
        found.push(format!("{place}: it is no {}", kinds.join(" or ")));
    }
    if schema.get("const").is_some_and(|constant| constant != value) {
        found.push(format!("{place}: {NOT} {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
        found.push(format!("{place}: it is none of {}", schema["enum"]));
    }
    if let (Some(minimum), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < minimum
    {
        found.push(format!("{place}: it is below {minimum}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{place}: {name} is missing"));
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            found.extend(problems(root, schema, value, &format!("{place}.{name}")));
        }
    }
    if let (Some(_), Some(items)) = (schema.get("items"), value.as_array()) {
        let each = items.iter().enumerate();
        found.extend(each.flat_map(|(at, item)| problems(root, &schema["items"], item, &format!("{place}[{at}]"))));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let judged: Vec<Vec<String>> = choices.iter().map(|choice| problems(root, choice, value, place)).collect();
        match judged.iter().filter(|problems| problems.is_empty()).count() {
            1 => {}
            // What is wrong with the nearest is what a person wants to know: one whose constants are met.
            0 => {
                let far = |problems: &Vec<String>| (problems.iter().any(|one| one.contains(NOT)), problems.len());
                found.extend(judged.into_iter().min_by_key(far).unwrap_or_default());
            }
            count => found.push(format!("{place}: {count} descriptions fit")),
        }
    }
    found
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use rstest::rstest;
    use serde_json::Value;

    use super::{EVENTS, judge};
    use crate::event::{Event, What};
    use crate::failure::{Failure, Kind};
    use crate::ui::{Run, Summary, json, rehearsal};

    fn right(line: &str) {
        assert_eq!(judge(line), Ok(Vec::new()), "{line}");
    }

    #[test]
    fn everything_that_is_written_fits() {
        let now = SystemTime::now();
        let mut run = Run::default();
        for (at, event) in rehearsal::small() {
            right(&json::event(&event, now));
            run.record(&event, at);
        }
        let differences = vec!["/etc/left (file) is there now".to_owned()];
        right(&json::event(&Event { host: Some("w1".to_owned()), what: What::Differs { differences } }, now));
        right(&json::event(&Event { host: None, what: What::Said { sentence: "waiting".to_owned() } }, now));
        right(&json::failure(&Failure::new(Kind::Usage, "no").detailed("more"), now));
        right(&json::summary(&Summary::of(&run, &rehearsal::inventory()), now));
    }

    #[rstest]
    #[case("nothing", "it is no JSON")]
    #[case(r#"{"host":null,"event":"said","sentence":"x"}"#, "line: time is missing")]
    #[case(r#"{"time":"","host":1,"event":"said","sentence":"x"}"#, "line.host: it is no string or null")]
    #[case(r#"{"time":"","host":null,"event":"said"}"#, "line: sentence is missing")]
    #[case(r#"{"time":"","host":"a","event":"step-finished","step":"x","changes":-1,"milliseconds":1}"#, "below 0")]
    #[case(
        r#"{"time":"","host":null,"event":"run-finished","milliseconds":1,"changes":1,"failed":[{"kind":"host"}]}"#,
        "line.failed[0]: host is missing"
    )]
    fn what_is_wrong_is_named(#[case] line: &str, #[case] words: &str) {
        let problems = judge(line).unwrap().join("\n");
        assert!(problems.contains(words), "{problems}");
    }

    #[test]
    fn the_readme_and_the_schema_know_the_same_events() {
        let schema: Value = serde_json::from_str(EVENTS).unwrap();
        let choices = schema["oneOf"].as_array().unwrap();
        let known: BTreeSet<&str> =
            choices.iter().filter_map(|choice| choice["properties"]["event"]["const"].as_str()).collect();
        let readme = include_str!("../../README.md");
        let section = readme.split("## JSON output").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.flat_map(|line| line.split('|').nth(1).unwrap_or_default().split(','));
        let told = cells.map(|cell| cell.trim().trim_matches('`'));
        // The table's heading is one of the rows.
        let told: BTreeSet<&str> = told.filter(|name| *name != "event").collect();
        assert_eq!(known, told);
    }
}
