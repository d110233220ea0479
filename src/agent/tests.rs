//! What an agent answers, as far as it needs no host of its own.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::lock::Pulse;
use super::{Agent, Joining, PlayOrder, PlayStep, Request, is_being_brought};
use crate::event::{Events, What};
use crate::failure::Kind;
use crate::host::fake::FakeHost;
use crate::message::{Envelope, JoinOrder, OwnNetwork, Reply};
use crate::playbook;
use crate::secret::Secret;

#[tokio::test]
async fn a_sequence_is_answered_in_order_and_ends_with_the_first_request_that_fails() {
    let (events, mut happened) = Events::channel();
    let agent = Agent::new(events, tokio::sync::mpsc::unbounded_channel().0, Pulse::default());
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

fn own_network() -> Request {
    let (cluster_network, address) = ("10.244.0.0/16".parse().unwrap(), "10.0.0.21".parse().unwrap());
    Request::OwnNetwork(OwnNetwork { cluster_network, address, peers: Vec::new() })
}

#[tokio::test]
async fn a_node_s_network_is_not_set_up_without_its_join() {
    let (events, _happened) = Events::channel();
    let agent = Agent::new(events, tokio::sync::mpsc::unbounded_channel().0, Pulse::default());
    // A former agent's join: whoever asks knows the rest.
    assert_eq!(agent.answer(own_network()).await.unwrap(), json!(null));
    agent.joining.send_replace(Joining::UnderWay);
    let mut waiting = std::pin::pin!(agent.answer(own_network()));
    assert!(futures::poll!(&mut waiting).is_pending());
    // It saw no pod network.
    agent.joining.send_replace(Joining::Ended(None));
    assert_eq!(waiting.await.unwrap(), json!(null));
}

#[tokio::test]
async fn a_node_s_network_that_is_ordered_behind_a_join_is_answered_after_it() {
    let (mut laptop, host) = tokio::io::duplex(1 << 20);
    let (input, output) = tokio::io::split(host);
    let serving = super::serve(input, output);
    let join = Request::Join(JoinOrder { configuration: Secret::new("kind: JoinConfiguration\n") });
    // Answered in the order in which they end.
    for (id, request) in [(1, join), (2, own_network())] {
        let mut line = serde_json::to_vec(&Envelope { id, request }).unwrap();
        line.push(b'\n');
        laptop.write_all(&line).await.unwrap();
    }
    let asking = async {
        let mut lines = BufReader::new(laptop).lines();
        let mut answers = Vec::new();
        while answers.len() < 2 {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Reply::Answer { id, result } = serde_json::from_str(&line).unwrap() {
                answers.push((id, result.map_err(|failure| failure.kind)));
            }
        }
        answers
    };
    let answers = tokio::select! {
        answers = asking => answers,
        served = serving => panic!("it ended: {served:?}"),
    };
    assert_eq!(answers, [(1, Err(Kind::Configuration)), (2, Ok(json!(null)))]);
}

#[test]
fn a_program_that_another_run_brings_is_seen_by_the_shell_that_writes_it() {
    let bin = std::path::Path::new(super::DIRECTORY).join("bin");
    let host = FakeHost::new().file(bin.join("clusterctl-f00"), "").file(bin.join("clusterctl-f00.part.41"), "");
    assert!(!is_being_brought(&host) && !is_being_brought(&FakeHost::new()));
    let host = host.file(bin.join("clusterctl-f00.part.42"), "").directory("/proc/42");
    assert!(is_being_brought(&host));
    let shares = std::path::Path::new(super::DIRECTORY).join("shares.43");
    let host = FakeHost::new().file(shares.join("told"), "").directory("/proc/43");
    assert!(!is_being_brought(&host));
    let host = host.file(shares.join("share-0"), "");
    assert!(is_being_brought(&host));
}
