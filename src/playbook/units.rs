//! States of the units a play is about: asked for in one go, and good as long as the play has altered nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::render::Renderer;
use super::{Play, Task};
use crate::failure::Result;
use crate::host::Host;
use crate::host::systemd::{self, Unit};

/// The kind of the tasks that are about units.
const KIND: &str = "unit";

/// States by name, as written in the play.
#[derive(Debug, Default)]
pub struct Units(BTreeMap<String, Unit>);

impl Units {
    /// Asks for all units of a play, where there are several: to start a program for each takes longer than what it answers.
    pub async fn of(host: &dyn Host, play: &Play, renderer: &Renderer) -> Self {
        let tasks = play.tasks.iter().filter(|task| task.kind == KIND);
        // What cannot be worked out is told by the task itself, in its turn.
        let names: BTreeSet<String> = tasks.flat_map(|task| names(task, renderer).unwrap_or_default()).collect();
        if names.len() < 2 {
            return Self::default();
        }
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let states = systemd::show(host, &asked).await.unwrap_or_default();
        Self(names.into_iter().zip(states).collect())
    }

    /// Something was altered: what is asked for from now on is looked at anew.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// State of one unit.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub async fn state(&self, host: &dyn Host, name: &str) -> Result<Unit> {
        match self.0.get(name) {
            Some(known) => Ok(known.clone()),
            None => systemd::state(host, name).await,
        }
    }
}

/// The units that a task is about, once for each item of its loop.
fn names(task: &Task, renderer: &Renderer) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for item in renderer.items(task)? {
        let with_item = item.as_ref().map(|item| renderer.with_item(item));
        let renderer = with_item.as_ref().unwrap_or(renderer);
        if let (true, Some(name)) = (renderer.holds(task)?, task.arguments.get("name")) {
            let name = renderer.value(name, &task.place)?;
            names.extend(name.as_str().map(str::to_owned));
        }
    }
    Ok(names)
}
