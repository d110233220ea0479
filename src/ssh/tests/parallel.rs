//! No more logins at a time than were asked for, whichever verb makes them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rstest::rstest;

use crate::cancel::Cancel;
use crate::cluster::exec::{Order, Told, exec};
use crate::cluster::{Settings, Transport, status};
use crate::event::Events;
use crate::inventory::{self, Inventory, SecretSource};
use crate::remote::Command;
use crate::secret::Secret;
use crate::ssh::testing::{Answers, FalseServer, Ways, false_server};

const HOSTS: usize = 20;

/// So many hosts of an inventory that are all this server.
fn inventory(server: &FalseServer) -> Inventory {
    let known = server.known_hosts();
    let ssh = format!("user: ops, port: {}, agent: false, jump: none, known_hosts: {}", server.port, known.display());
    let text = format!("ssh: {{{ssh}}}\nhosts: {{cp1: {{address: 127.0.0.1}}}}\n");
    let mut inventory = inventory::parse(&text, Path::new("/i.yaml"), Path::new("/nowhere")).expect("a good inventory");
    let mut one = inventory.hosts.remove(0);
    one.ssh.password = Some(SecretSource::Known(Secret::new("secret")));
    inventory.hosts =
        (1..=HOSTS).map(|number| inventory::Host { name: format!("cp{number}"), ..one.clone() }).collect();
    inventory
}

fn settings(parallel: usize) -> Settings {
    Settings {
        transport: Transport::BuiltIn,
        parallel,
        prompts: Arc::new(Answers::default()),
        patience: Duration::ZERO,
        cancel: Cancel::new(),
        events: Events::nowhere(),
    }
}

/// A command, which limits logins alone.
async fn by_exec(inventory: &Inventory, settings: &Settings) -> usize {
    let command = Command { words: vec!["true".to_owned()], root: false, alone: true };
    let mut told = exec(&inventory.hosts, &Order { command, limit: None }, None, settings).expect("started");
    let mut ended = 0;
    while let Some(told) = told.recv().await {
        if let Told::Ended(one) = told {
            let failure = one.result.expect_err("no command starts there");
            assert!(failure.sentence.contains("refused to start the command"), "{failure}");
            ended += 1;
        }
    }
    ended
}

/// What all verbs do that need an agent.
async fn by_agents(inventory: &Inventory, settings: &Settings) -> usize {
    let looked = status(inventory, settings).await.expect("looked");
    looked.hosts.iter().filter(|host| host.unreachable.is_some()).count()
}

#[rstest]
#[case::three(3)]
#[case::all(HOSTS)]
#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_logins_at_a_time_than_were_asked_for(#[case] parallel: usize) {
    let of = async |by_agent: bool| {
        let server = false_server(Ways::Slow, 0).await;
        let (inventory, settings) = (inventory(&server), settings(parallel));
        let ended = match by_agent {
            true => by_agents(&inventory, &settings).await,
            false => by_exec(&inventory, &settings).await,
        };
        let (most, all) = (server.logins.most.load(Ordering::Acquire), server.logins.all.load(Ordering::Acquire));
        assert_eq!((ended, all), (HOSTS, HOSTS), "agents: {by_agent}");
        most
    };
    for by_agent in [false, true] {
        let most = of(by_agent).await;
        match parallel {
            3 => assert_eq!(most, 3, "agents: {by_agent}"),
            // The same server sees them come all at once where nothing holds them back.
            _ => assert!(most > 3, "{most}, agents: {by_agent}"),
        }
    }
}
