//! Runs a play on this host, task by task.

use std::collections::{BTreeMap, BTreeSet};

use super::action::Action;
use super::apply::apply;
use super::observe::observe;
use super::plan::plan;
use super::render::Renderer;
use super::{Play, Task};
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::journal::Journal;
use crate::message::{PlayOrder, PlayReport};

/// Contents that a task writes, ready before it is planned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// Of the file of `file` or `template`.
    pub file: Option<Vec<u8>>,
    /// Of the file of `unit`.
    pub unit: Option<Vec<u8>>,
}

/// Runs a play. What it changes is in the report, in order; with `dry_run` that is what it would change.
///
/// # Errors
/// The first task that fails, named with its place in the playbook; tasks before it stay done.
pub async fn run(
    host: &dyn Host,
    facts: &Facts,
    order: &PlayOrder,
    journal: &Journal,
    events: &Events,
) -> Result<PlayReport> {
    let Play { tasks, .. } = &order.play;
    let renderer = Renderer::new(facts, &order.variables)?;
    let mut report = PlayReport::default();
    let mut changed: BTreeSet<String> = BTreeSet::new();
    for task in tasks {
        if !renderer.holds(task)? {
            continue;
        }
        let before = report.changes.len();
        for item in renderer.items(task)? {
            let with_item;
            let renderer = match &item {
                Some(item) => {
                    with_item = renderer.with_item(item);
                    &with_item
                }
                None => &renderer,
            };
            let mut step =
                Step { host, journal, renderer, files: &order.files, changed: &changed, dry_run: order.dry_run };
            step.task(task, &mut report).await?;
        }
        if report.changes.len() > before
            && let Some(name) = &task.name
        {
            changed.insert(name.clone());
        }
    }
    let _ = events;
    Ok(report)
}

/// One task, once.
struct Step<'a> {
    host: &'a dyn Host,
    journal: &'a Journal,
    renderer: &'a Renderer,
    files: &'a BTreeMap<String, Vec<u8>>,
    changed: &'a BTreeSet<String>,
    dry_run: bool,
}

impl Step<'_> {
    async fn task(&mut self, task: &Task, report: &mut PlayReport) -> Result<()> {
        let arguments = self.renderer.value(&task.arguments, &task.place)?;
        let action = Action::read(&task.kind, arguments).map_err(|reason| {
            Failure::new(Kind::Configuration, format!("{}: `{}`: {reason}", task.place, task.kind))
        })?;
        let named = |failure: Failure| {
            let title = task.name.clone().unwrap_or_else(|| format!("{} {}", task.kind, action.subject()));
            Failure { sentence: format!("{title}: {}", failure.sentence), ..failure }
        };
        let contents = self.contents(&action, &task.place).map_err(named)?;
        let seen = observe(self.host, &action, &contents).await.map_err(named)?;
        let restart =
            matches!(&action, Action::Unit(unit) if unit.restart_on.iter().any(|name| self.changed.contains(name)));
        for change in plan(&action, &seen, &contents, restart) {
            if !self.dry_run {
                apply(self.host, self.journal, &action, &change).await.map_err(named)?;
            }
            report.changes.push(change.to_string());
        }
        Ok(())
    }

    fn contents(&self, action: &Action, place: &str) -> Result<Contents> {
        let source = |name: &String| {
            self.files.get(name).ok_or_else(|| {
                Failure::new(Kind::Configuration, format!("{place}: the file {name} did not come with the play"))
            })
        };
        let template = |name: &String| -> Result<Vec<u8>> {
            let text = String::from_utf8_lossy(source(name)?).into_owned();
            Ok(self.renderer.text(&text, name)?.into_bytes())
        };
        Ok(match action {
            Action::File(file) => Contents {
                file: match (&file.content, &file.source) {
                    (Some(content), _) => Some(content.clone().into_bytes()),
                    (None, Some(name)) => Some(source(name)?.clone()),
                    (None, None) => None,
                },
                unit: None,
            },
            Action::Template(wanted) => Contents { file: Some(template(&wanted.source)?), unit: None },
            Action::Unit(unit) => Contents {
                file: None,
                unit: match (&unit.content, &unit.source) {
                    (Some(content), _) => Some(content.clone().into_bytes()),
                    (None, Some(name)) => Some(template(name)?),
                    (None, None) => None,
                },
            },
            _ => Contents::default(),
        })
    }
}
