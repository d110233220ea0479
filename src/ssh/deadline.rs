//! The limit of connecting and logging in, which does not run while a person types.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::target::Prompt;

/// When connecting and logging in must have ended.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// A deadline `limit` from now.
    pub(super) fn new(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// The whole limit, for messages.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// What is left; zero when it has passed.
    pub(super) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The result of `work`, or `None` when the deadline came first.
    pub(super) async fn within<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at, work).await.ok()
    }

    /// Moves the deadline by time that must not count.
    pub(super) fn extend(&mut self, by: Duration) {
        self.at += by;
    }

    /// The same deadline, or an earlier one that is `limit` from now.
    pub(super) fn capped(&self, limit: Option<Duration>) -> Self {
        match limit {
            Some(limit) if limit < self.remaining() => Self::new(limit),
            _ => self.clone(),
        }
    }

    /// Asks a person; the deadline moves by the time the answer takes.
    pub(super) fn ask<T>(&mut self, prompts: &dyn Prompt, question: impl FnOnce(&dyn Prompt) -> T) -> T {
        use tokio::runtime::{Handle, RuntimeFlavor};
        let asked = Instant::now();
        // A prompt blocks its thread. On the one-thread runtime of a test there is no other thread to move work to.
        let several = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        let answer = if several { tokio::task::block_in_place(|| question(prompts)) } else { question(prompts) };
        self.at += asked.elapsed();
        answer
    }
}
