//! Watching for a state inside a deadline, instead of sleeping and hoping.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::failure::{Failure, Kind, Result};

/// What one look at the awaited state says.
#[derive(Debug)]
pub enum Look<T> {
    /// It is there.
    There(T),
    /// Not yet, and why not.
    NotYet(String),
}

/// What is waited for.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Completes "... did not": `the API server`.
    pub subject: String,
    /// Completes the sentence: `become ready`.
    pub verb: String,
    /// How long at most.
    pub limit: Duration,
    /// Time between two looks.
    pub every: Duration,
}

impl Wait {
    /// A wait that looks ten times a second.
    pub fn new(subject: impl Into<String>, verb: impl Into<String>, limit: Duration) -> Self {
        Self { subject: subject.into(), verb: verb.into(), limit, every: Duration::from_millis(100) }
    }

    /// With another time between two looks.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Looks until the state is there.
    ///
    /// # Errors
    /// What a look fails with at once; after the limit a failure of kind `Cluster` that says what the last look saw.
    pub async fn until<T, F>(&self, look: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Look<T>>>,
    {
        let deadline = Instant::now() + self.limit;
        let mut looks = interval(self.every.max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        while timeout_at(deadline, looks.tick()).await.is_ok() {
            match timeout_at(deadline, look()).await {
                Ok(Ok(Look::There(value))) => return Ok(value),
                Ok(Ok(Look::NotYet(reason))) => last = Some(reason),
                Ok(Err(failure)) => return Err(failure),
                Err(_) => break,
            }
        }
        let sentence = format!("{} did not {} within {}", self.subject, self.verb, spoken(self.limit));
        let failure = Failure::new(Kind::Cluster, sentence).may_pass();
        Err(match last {
            Some(reason) => failure.caused_by(reason),
            None => failure,
        })
    }
}

/// `4 minutes`, `90 seconds`, `350 milliseconds`.
fn spoken(duration: Duration) -> String {
    let plural = |count: u128, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match duration.as_millis() {
        milliseconds if milliseconds % 1000 != 0 => plural(milliseconds, "millisecond"),
        milliseconds if milliseconds % 60_000 != 0 => plural(milliseconds / 1000, "second"),
        milliseconds => plural(milliseconds / 60_000, "minute"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::{Look, Wait};

    #[tokio::test]
    async fn a_state_that_comes_is_returned() {
        let looks = AtomicU32::new(0);
        let wait = Wait::new("it", "come", Duration::from_secs(5)).every(Duration::from_millis(1));
        let seen = wait
            .until(async || {
                let looks = looks.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(if looks == 3 { Look::There(looks) } else { Look::NotYet("too early".into()) })
            })
            .await;
        assert_eq!(seen, Ok(3));
    }

    #[tokio::test]
    async fn a_state_that_does_not_come_is_a_failure_with_the_last_reason() {
        let wait = Wait::new("the Node w1", "appear", Duration::from_millis(20)).every(Duration::from_millis(1));
        let failure = wait.until(async || Ok(Look::<()>::NotYet("there is none".into()))).await.unwrap_err();
        assert_eq!(failure.to_string(), "the Node w1 did not appear within 20 milliseconds: there is none");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlive_the_limit() {
        let wait = Wait::new("it", "answer", Duration::from_millis(20));
        let failure = wait.until(async || std::future::pending::<crate::failure::Result<Look<()>>>().await).await;
        assert_eq!(failure.unwrap_err().sentence, "it did not answer within 20 milliseconds");
    }
}
