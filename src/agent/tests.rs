//! What an agent answers, as far as it needs no host of its own.

use serde_json::json;

use super::lock::Pulse;
use super::{Agent, PlayOrder, PlayStep, Request, is_being_brought};
use crate::event::{Events, What};
use crate::failure::Kind;
use crate::host::fake::FakeHost;
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

#[test]
fn a_program_that_another_run_brings_is_seen_by_the_shell_that_writes_it() {
    let bin = std::path::Path::new(super::DIRECTORY).join("bin");
    let host = FakeHost::new().file(bin.join("clusterctl-f00"), "").file(bin.join("clusterctl-f00.part.41"), "");
    assert!(!is_being_brought(&host) && !is_being_brought(&FakeHost::new()));
    let host = host.file(bin.join("clusterctl-f00.part.42"), "").directory("/proc/42");
    assert!(is_being_brought(&host));
}
