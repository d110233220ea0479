//! Connections to bastions, one for all hosts behind each: sshd's MaxStartups counts logins, and a login costs time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use crate::failure::{Failure, Result};

use super::connection::{Connection, connect_with};
use super::login::Sources;
use super::target::{Prompt, Route, Target};

/// A bastion that could not be reached is not tried again for this long: all hosts behind it wait for the same answer.
const KEPT: Duration = Duration::from_secs(5);

/// The connections, by what makes two hops the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Bastions(Arc<All>);

type All = Mutex<HashMap<String, Arc<tokio::sync::Mutex<State>>>>;

/// As [`Bastions`], without keeping the connections.
#[derive(Debug, Clone, Default)]
pub(super) struct WeakBastions(Weak<All>);

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Open(Connection),
    Failed(Failure, Instant),
}

impl Bastions {
    /// For a route: the connections are kept by the owners of this value, and by whoever uses them.
    pub(super) fn weak(&self) -> WeakBastions {
        WeakBastions(Arc::downgrade(&self.0))
    }
}

impl WeakBastions {
    /// For whoever may have to come through them again, if they are still shared. A bastion must not hold it: those
    /// connections hold bastions.
    pub(super) fn keep(&self) -> Option<Bastions> {
        self.0.upgrade().map(Bastions)
    }
}

/// What makes two hops the same connection.
fn key(bastion: &Target) -> String {
    let way = match &bastion.route {
        Route::Direct => String::new(),
        Route::Command(command) => command.clone(),
        Route::Through { bastion, .. } => key(bastion),
    };
    format!("{} {:?} {way}", bastion.login(), bastion.identities)
}

/// The connection to a bastion: the one that is there, or a new one.
///
/// The result is boxed because a bastion may be behind a bastion.
///
/// # Errors
/// As [`connect_with`], with the bastion's own name.
pub(super) fn reach<'a>(
    bastion: &'a Target,
    shared: &'a WeakBastions,
    prompts: &'a dyn Prompt,
    sources: &'a Sources,
) -> BoxFuture<'a, Result<Connection>> {
    Box::pin(async move {
        let Some(all) = shared.0.upgrade() else { return connect_with(bastion, prompts, sources).await };
        let state = {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key(bastion)).or_default())
        };
        // Held while connecting: the others wait for this attempt instead of making their own.
        let mut state = state.lock().await;
        match &*state {
            State::Open(connection) if !connection.is_closed() => return Ok(connection.clone()),
            State::Failed(failure, at) if at.elapsed() < KEPT => return Err(failure.clone()),
            _ => {}
        }
        match connect_with(bastion, prompts, sources).await {
            Ok(connection) => {
                *state = State::Open(connection.clone());
                Ok(connection)
            }
            Err(failure) => {
                *state = State::Failed(failure.clone(), Instant::now());
                Err(failure)
            }
        }
    })
}
