//! Runs a play on this host, task by task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::action::Action;
use super::apply::apply;
use super::archive;
use super::observe::observe;
use super::plan::{Change, plan};
use super::render::Renderer;
use super::units::Units;
use super::{Play, Task};
use crate::bundle::digest::sha256;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::journal::{Journal, STATE_DIRECTORY};
use crate::host::{Host, systemd};
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
    let marks = Marks::read(host, &order.play)?;
    let mut course = Course { marks, unread: false, units: Units::of(host, &order.play, &renderer).await };
    for task in tasks {
        for item in renderer.items(task)? {
            let with_item;
            let renderer = match &item {
                Some(item) => {
                    with_item = renderer.with_item(item);
                    &with_item
                }
                None => &renderer,
            };
            if !renderer.holds(task)? {
                continue;
            }
            let step = Step { host, journal, renderer, files: &order.files, dry_run: order.dry_run, events };
            step.task(task, &mut course, &mut report).await?;
        }
    }
    if course.unread {
        systemd::daemon_reload(host).await?;
    }
    if !order.dry_run {
        course.marks.remove(host)?;
    }
    Ok(report)
}

/// What a play's tasks leave to those after them.
struct Course {
    marks: Marks,
    /// Whether there are unit files that systemd has not read.
    unread: bool,
    units: Units,
}

/// Names of tasks that altered something and that a `restart_on` waits for. They are on the disk from before the change
/// until the play has ended, so that a restart is made up for when a run was broken off in between.
struct Marks {
    path: PathBuf,
    awaited: BTreeSet<String>,
    changed: BTreeSet<String>,
}

impl Marks {
    fn read(host: &dyn Host, play: &Play) -> Result<Self> {
        let named = sha256(play.name.as_bytes());
        let path = Path::new(STATE_DIRECTORY).join(format!("changed-{}", &named[..16]));
        let content = host.read(&path)?.unwrap_or_default();
        // One that cannot be read was being written: the change it is about did not happen.
        let changed = serde_json::from_slice(&content).unwrap_or_default();
        let awaited = play.tasks.iter().filter_map(|task| task.arguments.get("restart_on")?.as_array()).flatten();
        let awaited = awaited.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self { path, awaited, changed })
    }

    /// Notes that a task is about to alter something.
    fn add(&mut self, host: &dyn Host, task: &Task, dry_run: bool) -> Result<()> {
        let Some(name) = task.name.as_ref().filter(|name| self.awaited.contains(*name)) else { return Ok(()) };
        if !self.changed.insert(name.clone()) || dry_run {
            return Ok(());
        }
        let content = serde_json::to_vec(&self.changed)
            .map_err(|error| Failure::new(Kind::Internal, "the names of tasks cannot be written").because(&error))?;
        host.create_directory(Path::new(STATE_DIRECTORY), 0o700)?;
        host.write(&self.path, &content, 0o600)
    }

    fn remove(&self, host: &dyn Host) -> Result<()> {
        if self.changed.is_empty() { Ok(()) } else { host.remove(&self.path) }
    }
}

/// One task, once.
struct Step<'a> {
    host: &'a dyn Host,
    journal: &'a Journal,
    renderer: &'a Renderer,
    files: &'a BTreeMap<String, Vec<u8>>,
    dry_run: bool,
    events: &'a Events,
}

impl Step<'_> {
    async fn task(&self, task: &Task, course: &mut Course, report: &mut PlayReport) -> Result<()> {
        let arguments = self.renderer.value(&task.arguments, &task.place)?;
        let action = Action::read(&task.kind, arguments).map_err(|reason| {
            Failure::new(Kind::Configuration, format!("{}: `{}`: {reason}", task.place, task.kind))
        })?;
        let named = |failure: Failure| {
            let title = task.name.clone().unwrap_or_else(|| format!("{} {}", task.kind, action.subject()));
            Failure { sentence: format!("{title}: {}", failure.sentence), ..failure }
        };
        let contents = self.contents(&action, &task.place).map_err(named)?;
        let seen = observe(self.host, &action, &contents, &course.units).await.map_err(named)?;
        let restart = matches!(&action, Action::Unit(unit) if unit.restart_on.iter().any(|name| course.marks.changed.contains(name)));
        let changes = plan(&action, &seen, &contents, restart);
        if matches!(&action, Action::Swap(_)) && !seen.swap.is_empty() && !seen.fstab_swap {
            let devices = seen.swap.join(", ");
            let sentence =
                format!("swap on {devices} is not of /etc/fstab: what turns it on may do so at the next boot");
            self.events.warn(sentence);
        }
        if changes.iter().any(Change::counts) {
            course.marks.add(self.host, task, self.dry_run)?;
        }
        if !changes.is_empty() {
            course.units.forget();
        }
        if let (Action::Unpack(unpack), false) = (&action, self.dry_run) {
            archive::install(self.host, self.journal, unpack, &seen.lacking).map_err(named)?;
        }
        for change in &changes {
            if !self.dry_run {
                self.make(change, &mut course.unread).await.map_err(named)?;
            }
            report.changes.extend(change.counts().then(|| change.to_string()));
        }
        Ok(())
    }

    /// Makes a change. That systemd reads its files takes longer than starting a unit: it is put off until the next unit
    /// is started or the play has ended. `unread` says whether there are files it has not read.
    async fn make(&self, change: &Change, unread: &mut bool) -> Result<()> {
        match change {
            Change::Unpack { .. } => Ok(()),
            Change::Reload { .. } => {
                *unread = true;
                Ok(())
            }
            change => {
                if matches!(change, Change::Turn { .. }) && std::mem::take(unread) {
                    systemd::daemon_reload(self.host).await?;
                }
                apply(self.host, self.journal, change).await
            }
        }
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

#[cfg(test)]
mod tests;
