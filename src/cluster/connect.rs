//! Reaching all hosts at once: one connection, one agent, its facts and its lock each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::kubeconfig;
use super::plan::node_address;
use super::spread::relays_program;
use crate::cancel::Cancel;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Host, Inventory, SecretSource};
use crate::message::{Holder, LockOrder, Locked, Request};
use crate::remote::{Agent, Asked, Opening, Privilege, Program, Programs, Relay, Start, Supply};
use crate::secret::Secret;
use crate::ssh;

/// How long a control plane may take to answer before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_secs(2);

/// Who makes the connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// clusterctl itself
    #[default]
    BuiltIn,
    /// Your own ssh, with all that it can do
    Openssh,
}

/// How hosts are reached.
#[derive(Clone)]
pub struct Settings {
    /// Who makes the connections.
    pub transport: Transport,
    /// How many connections are set up at once.
    pub parallel: usize,
    /// Asks a person for what is missing.
    pub prompts: Arc<dyn ssh::Prompt>,
    /// How long to wait for the end of another run that holds a host's lock.
    pub patience: Duration,
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
    // Whoever only looks opens no ports.
    let supply = match access {
        Access::Look => Supply::of_the_laptop(),
        Access::Alter(_) => Supply::new(hosts.len(), relays_program(inventory.transfer.relay)),
    };
    let supply = match kubeconfig::path(inventory).exists() || access == Access::Look {
        true => Arc::new(supply),
        false => {
            prepare_to_send(programs.likely()?);
            Arc::new(supply.expected())
        }
    };
    let order: BTreeMap<&str, usize> =
        hosts.iter().enumerate().map(|(index, host)| (host.name.as_str(), index)).collect();
    let gate = &Gate::new();
    let attempts = hosts.iter().enumerate().map(|(index, host)| {
        let (programs, configuration) = (programs.clone(), configuration.clone());
        let turn = holder.clone().map(|holder| Turn { holder, gate, first: index == 0 });
        let supply = Arc::clone(&supply);
        async move {
            let reached = reach(host, programs, Arc::clone(&supply), turn, configuration, settings).await;
            supply.done(&host.name);
            if index == 0 {
                gate.open(reached.as_ref().is_err_and(|failure| failure.kind == Kind::Busy));
            }
            reached
        }
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
    let gave = supply.end();
    if let Some(session) = sessions.iter().find(|session: &&Session| Some(&session.host.name) == gave.as_ref()) {
        Relay::end(&session.agent).await;
    }
    sessions.sort_by_key(|session| order.get(session.host.name.as_str()).copied());
    failures.sort_by_key(|failure| failure.host.as_deref().and_then(|host| order.get(host)).copied());
    Ok((sessions, failures))
}

/// Makes the program ready to be sent while hosts are being reached. Without it the first of them waits for that. Hosts of a
/// cluster whose kubeconfig is here have it, most likely.
fn prepare_to_send(program: Arc<Program>) {
    tokio::spawn(async move {
        // Whoever needs it is told what went wrong.
        let _ = program.compressed().await;
    });
}

/// Takes the lock of a host that was only looked at so far, for what is done to the cluster through it.
///
/// # Errors
/// Kind `Busy` where another run holds it, for longer than a person waits.
pub(super) async fn hold(session: &Session, verb: &str, inventory: &Inventory, settings: &Settings) -> Result<()> {
    let gate = Gate::new();
    let turn = Turn { holder: holder(verb, &inventory.cluster.name), gate: &gate, first: true };
    turn.lock(&session.agent, None, settings).await.map(drop).map_err(|failure| failure.on(&session.host.name))
}

/// Reaches one control plane of the cluster: the first that serves, else one that has the administrator's credentials.
/// They are tried in inventory order, the next one as well when one takes long: a dead one holds nobody up.
///
/// # Errors
/// Why the last of them is of no use.
pub async fn connect_to_control_plane(inventory: &Inventory, settings: &Settings) -> Result<Session> {
    let programs = Programs::find()?;
    let configuration = ssh::Configuration::of_this_machine()?;
    let mut waiting = inventory.control_planes();
    let mut attempts = FuturesUnordered::new();
    let mut ended = Vec::new();
    let mut second_best = None;
    loop {
        if let Some(host) = waiting.next() {
            let supply = Arc::new(Supply::of_the_laptop());
            attempts.push(reach(host, programs.clone(), supply, None, configuration.clone(), settings));
        }
        let next = if waiting.clone().next().is_some() {
            tokio::time::timeout(HEAD_START, attempts.next()).await
        } else {
            Ok(attempts.next().await)
        };
        match next {
            // It takes long: the next one, too.
            Err(_) => {}
            Ok(None) => break,
            Ok(Some(Ok(session))) if session.facts.kubernetes.serves => return Ok(session),
            Ok(Some(Ok(session))) if session.facts.kubernetes.admin_conf => {
                second_best.get_or_insert(session);
            }
            Ok(Some(Ok(session))) => ended.push(
                Failure::new(Kind::Cluster, "there is no cluster on it")
                    .on(&session.host.name)
                    .advise("run `clusterctl up` first"),
            ),
            Ok(Some(Err(failure))) => ended.push(failure),
        }
    }
    match second_best {
        Some(session) => Ok(session),
        None => {
            Err(ended.pop().unwrap_or_else(|| Failure::new(Kind::Configuration, "the inventory has no control plane")))
        }
    }
}

async fn reach(
    host: &Host,
    programs: Programs,
    supply: Arc<Supply>,
    turn: Option<Turn<'_>>,
    configuration: ssh::Configuration,
    settings: &Settings,
) -> Result<Session> {
    let events = settings.events.of_host(&host.name);
    settings.cancel.check().map_err(|failure| failure.on(&host.name))?;
    let step = events.step("connect", "connect");
    let work = async {
        let connection = open(host, &configuration, settings).await?;
        let privilege = privilege(host);
        let start = Start { host: host.name.clone(), connection, programs, privilege, supply: Arc::clone(&supply) };
        let mut opening = Opening::default();
        let facts = opening.ask(Request::Facts);
        // The others' turn is when the first host is locked.
        let locking = turn.as_ref().filter(|turn| turn.first).map(|turn| opening.ask(turn.order(settings.patience)));
        let agent = Agent::start(&start, opening, &settings.events).await?;
        start.prepare_way();
        let facts = async {
            let facts = agent.answer::<Facts>(facts).await?;
            // Before anything that may take long: others may wait for it.
            let address = node_address(host, &facts).ok().map(|node| node.address);
            supply.runs(&agent, address).await;
            Ok(facts)
        };
        let facts = match turn {
            None => facts.await?,
            Some(turn) => match futures::try_join!(facts, turn.lock(&agent, locking, settings))? {
                (facts, Locked { waited: false }) => facts,
                // What was observed while another run was at work is old.
                (_, Locked { waited: true }) => agent.ask(Request::Facts).await?,
            },
        };
        Ok(Session { host: host.clone(), facts, agent, start, events: events.clone() })
    };
    step.end(work.await.map_err(|failure: Failure| failure.on(&host.name)))
}

/// The connection to a host, logged in.
pub(super) async fn open(
    host: &Host,
    configuration: &ssh::Configuration,
    settings: &Settings,
) -> Result<ssh::Connection> {
    if settings.transport == Transport::Openssh {
        return ssh::by_openssh(host);
    }
    let target = configuration.find(host, known(host.ssh.password.as_ref())).await?;
    ssh::connect_lasting(&target, Arc::clone(&settings.prompts), &settings.cancel).await
}

/// How to become root on a host.
pub(super) fn privilege(host: &Host) -> Privilege {
    let password = known(host.ssh.become_password.as_ref()).or_else(|| known(host.ssh.password.as_ref()));
    Privilege::new(host.ssh.become_root, password)
}

/// The first host's lock is taken before those of the others: two runs that begin together must not each hold what the
/// other one waits for.
struct Gate(tokio::sync::watch::Sender<Option<bool>>);

impl Gate {
    fn new() -> Self {
        Self(tokio::sync::watch::Sender::new(None))
    }

    /// The first host is done with; only the first call counts.
    fn open(&self, busy: bool) {
        self.0.send_if_modified(|open| open.is_none() && open.replace(busy).is_none());
    }

    /// Waits for the first host and tells whether another run holds it.
    async fn busy(&self) -> bool {
        let mut receiver = self.0.subscribe();
        receiver.wait_for(Option::is_some).await.is_ok_and(|open| open.unwrap_or(false))
    }
}

/// A host's turn to be locked.
struct Turn<'a> {
    holder: Holder,
    gate: &'a Gate,
    first: bool,
}

impl Turn<'_> {
    /// The request for it.
    fn order(&self, patience: Duration) -> Request {
        let patience_milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Request::Lock(LockOrder { holder: self.holder.clone(), patience_milliseconds })
    }

    /// Takes it, unless that was asked for already.
    async fn lock(self, agent: &Agent, asked: Option<Asked>, settings: &Settings) -> Result<Locked> {
        let locking = async {
            if let Some(asked) = asked {
                return agent.answer(asked).await;
            }
            // Where the first host is another run's, the others need not be waited for.
            let patience = if !self.first && self.gate.busy().await { Duration::ZERO } else { settings.patience };
            agent.ask(self.order(patience)).await
        };
        let locked = tokio::select! {
            locked = locking => locked?,
            () = settings.cancel.cancelled() => return Err(Cancel::failure()),
        };
        if self.first {
            self.gate.open(false);
        }
        Ok(locked)
    }
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
    Holder {
        who: format!("{user}@{machine}"),
        verb: verb.to_owned(),
        since_seconds,
        cluster: cluster.to_owned(),
        run: run(),
    }
}

/// Another number for each run; without randomness none, and then a lost agent keeps its lock until it notices.
fn run() -> String {
    let mut bytes = [0_u8; 16];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;

    #[tokio::test]
    async fn the_first_host_is_waited_for_and_only_its_first_word_counts() {
        let gate = Gate::new();
        let waits = gate.busy();
        gate.open(true);
        gate.open(false);
        assert!(waits.await);
        assert!(gate.busy().await);
    }
}
