//! One phase of a workflow as a step that a person sees.

use crate::event::Events;
use crate::failure::Result;

/// What a phase altered, one line each.
pub(super) type Changes = Vec<String>;

/// Runs a phase between the events of its beginning and its end.
pub(super) async fn phase<T>(
    events: &Events,
    id: &str,
    title: &str,
    work: impl Future<Output = Result<(Changes, T)>>,
) -> Result<(u32, T)> {
    let mut step = events.step(id, title);
    match work.await {
        Ok((changes, value)) => {
            for change in changes {
                step.changed(change);
            }
            let count = step.changes();
            step.finish();
            Ok((count, value))
        }
        Err(failure) => Err(step.fail(failure)),
    }
}
