//! Keeps count of a reset: what was altered, what resisted.

use crate::event::{Events, Step};
use crate::failure::{Failure, Kind, Result};

/// A reset under way.
pub(super) struct Sweep {
    events: Events,
    step: Option<Step>,
    failed_in_step: usize,
    changes: u32,
    failures: Vec<Failure>,
    left: Vec<String>,
}

impl Sweep {
    pub(super) fn new(events: &Events) -> Self {
        Self {
            events: events.clone(),
            step: None,
            failed_in_step: 0,
            changes: 0,
            failures: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Ends the step under way and begins the next.
    pub(super) fn begin(&mut self, id: &str, title: &str) {
        self.end_step();
        self.step = Some(self.events.step(id, title));
    }

    /// One thing was altered.
    pub(super) fn changed(&mut self, change: impl Into<String>) {
        self.changes += 1;
        if let Some(step) = &mut self.step {
            step.changed(change);
        }
    }

    /// Takes the result of an attempt that alters something where it answers `true`.
    pub(super) fn changes_of(&mut self, result: Result<bool>, change: &str) {
        match result {
            Ok(true) => self.changed(change),
            Ok(false) => {}
            Err(failure) => self.resisted(failure),
        }
    }

    /// Something stays, which is no failure: the end says so.
    pub(super) fn leave(&mut self, sentence: impl Into<String>) {
        self.left.push(sentence.into());
    }

    /// What stays, so far.
    #[cfg(test)]
    pub(super) fn left(&self) -> &[String] {
        &self.left
    }

    /// Something could not be removed; the rest goes on.
    pub(super) fn resisted(&mut self, failure: Failure) {
        self.failed_in_step += 1;
        self.failures.push(failure);
    }

    /// Ends the step under way with the failure that ends the reset.
    pub(super) fn stop(&mut self, failure: Failure) -> Failure {
        match self.step.take() {
            Some(step) => step.fail(failure),
            None => failure,
        }
    }

    fn end_step(&mut self) {
        let Some(step) = self.step.take() else { return };
        match self.failures.last() {
            Some(failure) if std::mem::take(&mut self.failed_in_step) > 0 => {
                step.fail(failure.clone());
            }
            _ => step.finish(),
        }
    }

    /// Ends it: says what stays; the number of changes, or everything that resisted.
    pub(super) fn finish(mut self) -> Result<u32> {
        self.end_step();
        self.left.drain(..).for_each(|sentence| self.events.warn(sentence));
        match self.failures.len() {
            0 => Ok(self.changes),
            1 => Err(self.failures.remove(0)),
            count => {
                let lines: Vec<String> = self.failures.iter().map(ToString::to_string).collect();
                Err(Failure::new(Kind::Host, format!("{count} things of Kubernetes could not be removed"))
                    .detailed(lines.join("\n"))
                    .advise("see what holds them, or restart the host, and run the same command again")
                    .may_pass())
            }
        }
    }
}
