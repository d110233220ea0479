//! The pauses between attempts to connect to a server that turned us away before its greeting.
//!
//! sshd's MaxStartups counts connections that have not logged in yet and drops new ones at random above a limit
//! (crates.md section 2d: 14 of 50 at once). There is no state to watch from outside, so the only cure is to come again
//! later, and not together with everybody else.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(150);
const LONGEST: Duration = Duration::from_secs(3);

/// The pause after attempt number `attempt` (from 0), doubled each time and spread to 50-150 % by `chance` (0 to 1).
fn pause(attempt: u32, chance: f64) -> Duration {
    let nominal = FIRST.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(LONGEST);
    nominal.mul_f64(0.5 + chance.clamp(0.0, 1.0))
}

/// A number from 0 to 1; 0.5 if there is no randomness to be had, which costs only the spread.
fn chance() -> f64 {
    let mut bytes = [0_u8; 2];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

/// Counts the attempts and waits between them.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How many attempts were turned away so far.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Waits before the next attempt; `false`, without waiting, when the pause would not leave half of `remaining`.
    pub(super) async fn wait(&mut self, remaining: Duration) -> bool {
        let pause = pause(self.attempts, chance());
        self.attempts += 1;
        if pause * 2 > remaining {
            return false;
        }
        // Nothing to watch: the pause itself is the cure (see above), bounded by the connect limit.
        let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::{Backoff, pause};

    #[rstest]
    #[case(0, 0.5, 150)]
    #[case(1, 0.5, 300)]
    #[case(1, 0.0, 150)]
    #[case(1, 1.0, 450)]
    #[case(10, 0.5, 3000)]
    #[case(4_000_000, 0.5, 3000)]
    fn pauses_double_up_to_a_limit(#[case] attempt: u32, #[case] chance: f64, #[case] milliseconds: u64) {
        assert_eq!(pause(attempt, chance), Duration::from_millis(milliseconds));
    }

    #[tokio::test]
    async fn a_pause_that_does_not_fit_is_not_begun() {
        let mut backoff = Backoff::default();
        assert!(!backoff.wait(Duration::from_millis(100)).await);
        assert_eq!(backoff.attempts(), 1);
    }
}
