//! What an agent answers, as far as it needs no host of its own.

use serde_json::json;

use super::lock::Pulse;
use super::{Agent, PlayOrder, PlayStep, Request};
use crate::event::{Events, What};
use crate::failure::Kind;
use crate::playbook;

#[tokio::test]
async fn a_sequence_is_answered_in_order_and_ends_with_the_first_request_that_fails() {
    let (events, mut happened) = Events::channel();
    let agent = Agent::new(events, Pulse::default());
    let dial = || Request::Dial { targets: Vec::new() };
    let both = Request::Sequence { requests: vec![Request::Alive, dial()] };
    assert_eq!(agent.answer(both).await.unwrap(), json!([null, []]));

    // Without the lock nothing is altered.
    let play = |id: &str| {
        let builtin = playbook::builtin("prepare").unwrap();
        let step = Some(PlayStep { id: id.to_owned(), title: "a play".to_owned() });
        let order =
            PlayOrder { play: builtin.play, variables: Default::default(), files: builtin.files, dry_run: true, step };
        Request::Play(order)
    };
    let requests = vec![dial(), play("first"), play("second")];
    let failure = agent.answer(Request::Sequence { requests }).await.unwrap_err();
    assert_eq!((failure.kind, failure.sentence.contains("before the lock was taken")), (Kind::Internal, true));
    let begun = std::iter::from_fn(|| happened.try_recv().ok()).filter_map(|event| match event.what {
        What::StepStarted { step, .. } => Some(format!("{} begins", step.0)),
        What::StepFailed { step, .. } => Some(format!("{} fails", step.0)),
        _ => None,
    });
    assert_eq!(begun.collect::<Vec<_>>(), ["first begins", "first fails"]);
}
