//! Tables of tasks, what was seen, and what is planned: `cases/<kind>.yaml`. A new case needs no code.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::action::{Action, KINDS};
use super::observe::Observation;
use super::plan::plan;
use super::run::Contents;
use crate::yaml;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case shows.
    name: String,
    /// Arguments of the task.
    arguments: Value,
    /// What was seen.
    #[serde(default)]
    given: Observation,
    /// Content of the file that the task writes, ready.
    content: Option<String>,
    /// Whether a task named in `restart_on` changed something.
    #[serde(default)]
    restart: bool,
    /// The changes, as a person reads them.
    expect: Vec<String>,
}

/// Every kind has cases, and every case holds.
#[test]
fn plans_are_as_the_tables_say() {
    for (kind, _) in KINDS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/playbook/cases/{kind}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cases: Vec<Case> = yaml::typed(&text).unwrap_or_else(|finding| panic!("{}", finding.one_line(&path)));
        assert!(cases.len() >= 2, "{kind} has too few cases");
        for case in cases {
            let action =
                Action::read(kind, case.arguments).unwrap_or_else(|reason| panic!("{kind}, {}: {reason}", case.name));
            let content = case.content.map(String::into_bytes);
            let contents = Contents { file: content.clone(), unit: content };
            let changes: Vec<String> =
                plan(&action, &case.given, &contents, case.restart).iter().map(ToString::to_string).collect();
            assert_eq!(changes, case.expect, "{kind}: {}", case.name);
        }
    }
}
