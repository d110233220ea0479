//! The limit of connecting and logging in, which does not run while a person types.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::target::Prompt;

/// When connecting and logging in must have ended.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

/// Time that does not count because a person is waited for. Whoever waits stops the clock of whoever looks at it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pause(watch::Sender<Paused>);

#[derive(Debug, Clone, Copy, Default)]
struct Paused {
    since: Option<Instant>,
    spent: Duration,
}

/// Stands for the time that does not count; it ends with this value.
#[must_use]
pub(super) struct Waiting<'a>(&'a Pause);

impl Pause {
    /// Stops the clock.
    pub(super) fn begin(&self) -> Waiting<'_> {
        self.0.send_modify(|paused| paused.since = Some(Instant::now()));
        Waiting(self)
    }

    /// How long the clock stood still until now.
    pub(super) fn spent(&self) -> Duration {
        let paused = self.0.borrow();
        paused.spent + paused.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|paused| {
            paused.spent += paused.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        });
    }
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

    /// As [`Deadline::within`]; the deadline moves by the time in which `pause` stops the clock.
    pub(super) async fn within_but_for<F: Future>(&mut self, pause: &Pause, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        let mut changes = pause.0.subscribe();
        loop {
            let Paused { since, spent } = *changes.borrow_and_update();
            let end = self.at + spent;
            let late = async move {
                match since {
                    Some(_) => std::future::pending().await,
                    None => tokio::time::sleep_until(end).await,
                }
            };
            tokio::select! {
                biased;
                output = &mut work => {
                    self.at += pause.spent();
                    return Some(output);
                }
                _ = changes.changed() => {}
                () = late => return None,
            }
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Deadline, Pause};

    #[tokio::test]
    async fn what_a_person_takes_does_not_count() {
        let tenth = Duration::from_millis(100);
        let passes = |time| async move { tokio::time::sleep_until(tokio::time::Instant::now() + time).await };
        let (mut deadline, pause) = (Deadline::new(20 * tenth), Pause::default());
        let touched = async {
            passes(tenth).await;
            let waiting = pause.begin();
            passes(30 * tenth).await;
            drop(waiting);
            passes(tenth).await;
        };
        assert_eq!(deadline.within_but_for(&pause, touched).await, Some(()));
        assert!(pause.spent() >= 30 * tenth && deadline.remaining() <= 18 * tenth);
        assert_eq!(deadline.within_but_for(&Pause::default(), std::future::pending::<()>()).await, None);
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }
}
