//! The wish to stop: asked for once by a person, seen by everything that works or waits.

use tokio::sync::watch;

use crate::failure::{Failure, Kind, Result};

/// Asks a run to end after the step in hand. Cheap to clone; all clones are one wish.
#[derive(Debug, Clone)]
pub struct Cancel {
    sender: watch::Sender<bool>,
}

impl Cancel {
    /// Nothing asked for yet.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(false) }
    }

    /// Asks for the end. Asking again changes nothing.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the end was asked for.
    pub fn requested(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns as soon as the end is asked for; at once if it was already.
    pub async fn cancelled(&self) {
        // The sender lives in `self`, so the wait cannot end by its loss.
        let _ = self.sender.subscribe().wait_for(|requested| *requested).await;
    }

    /// For the places between two steps: a failure of kind [`Kind::Interrupted`] once the end was asked for.
    pub fn check(&self) -> Result<()> {
        if self.requested() { Err(Self::failure()) } else { Ok(()) }
    }

    /// What a run that was asked to end returns.
    pub fn failure() -> Failure {
        Failure::new(Kind::Interrupted, "interrupted before everything was done")
            .advise("run the same command again to go on from here")
            .may_pass()
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Cancel;
    use crate::failure::Kind;

    #[tokio::test]
    async fn every_clone_sees_the_wish() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert!(!clone.requested());
        assert!(clone.check().is_ok());
        let waiting = tokio::spawn({
            let clone = clone.clone();
            async move { clone.cancelled().await }
        });
        cancel.request();
        cancel.request();
        waiting.await.expect("the wait ends without a panic");
        clone.cancelled().await;
        assert_eq!(clone.check().map_err(|failure| failure.kind), Err(Kind::Interrupted));
    }
}
