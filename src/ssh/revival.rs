//! Making a lost connection again, within a limit and until a person asks for the end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::cancel::Cancel;
use crate::failure::{Kind, Result, Retry};

use super::backoff::Backoff;
use super::bastion::Bastions;
use super::connection::{Connection, connect_with};
use super::deadline::Deadline;
use super::login::Sources;
use super::target::{Prompt, Route, Target};

/// A lost connection is tried to be made again for this long.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a connection is made again: a link that keeps breaking is a failure to be told.
const TIMES: u32 = 20;

/// What it takes to make a lost connection again.
pub(super) struct Revival {
    prompts: Arc<dyn Prompt>,
    sources: Sources,
    /// Hosts that lose a bastion find its next connection here, however long ago the configuration was dropped.
    _bastions: Option<Bastions>,
    /// Ends the wait for a host that does not come back.
    cancel: Cancel,
    /// How often the connection was made again.
    turn: tokio::sync::Mutex<u32>,
}

/// The turn to make the connection again: one at a time, all others wait for it.
pub(super) struct Turn<'a> {
    revival: &'a Revival,
    times: tokio::sync::MutexGuard<'a, u32>,
}

impl Revival {
    /// For a target that was just reached.
    pub(super) fn new(target: &Target, prompts: Arc<dyn Prompt>, sources: &Sources, cancel: &Cancel) -> Self {
        let (sources, cancel) = (sources.clone(), cancel.clone());
        let _bastions = match &target.route {
            Route::Through { shared, .. } => shared.keep(),
            Route::Direct | Route::Command(_) => None,
        };
        Self { prompts, sources, _bastions, cancel, turn: tokio::sync::Mutex::new(0) }
    }

    /// Waits for the turn.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn { revival: self, times: self.turn.lock().await }
    }

    /// As [`connect_with`]; boxed, because a connection may lead through one that is made again.
    fn attempt<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(connect_with(target, self.prompts.as_ref(), &self.sources))
    }

    /// Attempts until one succeeds, the limit has passed, or what went wrong does not pass: sshd may be on its way back, a
    /// refused key will not be taken later. Where the end was asked for before, one attempt is made: what is in hand may
    /// still be finished.
    async fn attempts(&self, target: &Target) -> Result<Connection> {
        let deadline = Deadline::new(LIMIT);
        let mut backoff = Backoff::default();
        loop {
            let failure = match self.attempt(target).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => failure,
            };
            let may_pass = failure.kind == Kind::Connection && failure.retry == Retry::MayHelp;
            if !may_pass || self.cancel.requested() || !backoff.wait(deadline.remaining()).await {
                return Err(failure);
            }
        }
    }
}

impl Turn<'_> {
    /// Whether the link broke too often to be made again.
    pub(super) fn exhausted(&self) -> bool {
        *self.times >= TIMES
    }

    /// The connection, made again.
    ///
    /// # Errors
    /// What the last attempt failed with; [`Kind::Interrupted`] as soon as the end is asked for while this waits.
    pub(super) async fn connect(&mut self, target: &Target) -> Result<Connection> {
        let Revival { cancel, .. } = self.revival;
        let asked_before = cancel.requested();
        let connection = tokio::select! {
            connection = self.revival.attempts(target) => connection?,
            () = cancel.cancelled(), if !asked_before => return Err(Cancel::failure().on(&target.name)),
        };
        *self.times += 1;
        Ok(connection)
    }
}
