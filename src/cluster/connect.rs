//! Reaching all hosts at once: one connection, one agent, its facts and its lock each.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;

use crate::cancel::Cancel;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Result};
use crate::inventory::{Host, Inventory, SecretSource};
use crate::message::{Holder, Request};
use crate::remote::{Agent, Privilege, Programs, Start};
use crate::secret::Secret;
use crate::ssh;

/// How hosts are reached.
#[derive(Clone)]
pub struct Settings {
    /// How many connections are set up at once.
    pub parallel: usize,
    /// Asks a person for what is missing.
    pub prompts: Arc<dyn ssh::Prompt>,
    /// Asked to stop by a person.
    pub cancel: Cancel,
    /// Where events go.
    pub events: Events,
}

/// A host with its agent at work.
pub struct Session {
    /// The host.
    pub host: Host,
    /// What was observed on it.
    pub facts: Facts,
    /// Its agent.
    pub agent: Agent,
    /// Starts more channels to it.
    pub start: Start,
    /// Events with the host's name on them.
    pub events: Events,
}

/// Whether the hosts' locks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only looks.
    Look,
    /// Alters: takes the lock, under this verb.
    Alter(&'static str),
}

/// Reaches every host; those that cannot be reached are the failures, in inventory order like the sessions.
pub async fn connect(
    inventory: &Inventory,
    settings: &Settings,
    access: Access,
) -> Result<(Vec<Session>, Vec<Failure>)> {
    connect_to(inventory, inventory.hosts.iter().collect(), settings, access).await
}

/// Reaches some hosts of the inventory.
pub async fn connect_to(
    inventory: &Inventory,
    hosts: Vec<&Host>,
    settings: &Settings,
    access: Access,
) -> Result<(Vec<Session>, Vec<Failure>)> {
    let programs = Programs::find()?;
    let configuration = ssh::Configuration::of_this_machine()?;
    let holder = match access {
        Access::Look => None,
        Access::Alter(verb) => Some(holder(verb, &inventory.cluster.name)),
    };
    let order: BTreeMap<&str, usize> =
        hosts.iter().enumerate().map(|(index, host)| (host.name.as_str(), index)).collect();
    let attempts = hosts.iter().map(|host| {
        let (programs, holder, configuration) = (programs.clone(), holder.clone(), configuration.clone());
        async move { reach(host, programs, holder, configuration, settings).await }
    });
    let results: Vec<Result<Session>> =
        futures::stream::iter(attempts).buffer_unordered(settings.parallel.max(1)).collect().await;
    let (mut sessions, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(session) => sessions.push(session),
            Err(failure) => failures.push(failure),
        }
    }
    sessions.sort_by_key(|session| order.get(session.host.name.as_str()).copied());
    failures.sort_by_key(|failure| failure.host.as_deref().and_then(|host| order.get(host)).copied());
    Ok((sessions, failures))
}

async fn reach(
    host: &Host,
    programs: Programs,
    holder: Option<Holder>,
    configuration: ssh::Configuration,
    settings: &Settings,
) -> Result<Session> {
    let events = settings.events.of_host(&host.name);
    settings.cancel.check().map_err(|failure| failure.on(&host.name))?;
    let step = events.step("connect", "connect");
    let work = async {
        let target = configuration.find(host, known(host.ssh.password.as_ref())).await?;
        let connection = ssh::connect(&target, settings.prompts.as_ref()).await?;
        let password = known(host.ssh.become_password.as_ref()).or_else(|| known(host.ssh.password.as_ref()));
        let privilege = Privilege { way: host.ssh.become_root, password };
        let start = Start { host: host.name.clone(), connection, programs, privilege };
        let agent = Agent::start(&start, &settings.events).await?;
        let facts: Facts = agent.ask(Request::Facts).await?;
        if let Some(holder) = holder {
            agent.ask::<()>(Request::Lock(holder)).await?;
        }
        Ok(Session { host: host.clone(), facts, agent, start, events: events.clone() })
    };
    step.end(work.await.map_err(|failure: Failure| failure.on(&host.name)))
}

/// The secret, where it is known already; asking and reading is done before hosts are reached.
fn known(source: Option<&SecretSource>) -> Option<Secret> {
    match source {
        Some(SecretSource::Known(secret)) => Some(secret.clone()),
        _ => None,
    }
}

fn holder(verb: &str, cluster: &str) -> Holder {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "somebody".to_owned());
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let since_seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    Holder { who: format!("{user}@{machine}"), verb: verb.to_owned(), since_seconds, cluster: cluster.to_owned() }
}
