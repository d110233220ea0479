//! `up`: from bare hosts, or from whatever a former run left, to a cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use super::adopt::facts_of;
use super::ahead::{Ahead, look_ahead};
use super::board::Board;
use super::check::{self, Tried};
use super::connect::{Access, Session, Settings, connect};
use super::documents::Documents;
use super::finish::{self, End};
use super::kubeconfig;
use super::lane::Lane;
use super::muster::{Absent, Muster};
use super::plan::{Plan, Way};
use super::preview::Sight;
use super::rollout::Rollout;
use super::spread::Spreading;
use super::tolerance::{Casualties, Tolerance};
use crate::bundle::Bundle;
use crate::change::Preview;
use crate::event::{What, elapsed_milliseconds};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Fetch, Inventory, Role};
use crate::remote::Receiving;

/// How a host came out of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It is a node and Ready.
    Ready,
    /// It is a node; nobody waited for it to be Ready.
    Joined,
    /// It did not finish.
    Failed(Failure),
}

/// One host's outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct HostOutcome {
    /// Its name.
    pub name: String,
    /// Where SSH reached it.
    pub address: String,
    /// What it is.
    pub role: Role,
    /// How it came out.
    pub state: State,
    /// Things altered on it.
    pub changes: u32,
    /// How long its lane took, in milliseconds.
    pub milliseconds: u64,
}

/// What an `up` came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// All hosts in inventory order.
    pub hosts: Vec<HostOutcome>,
    /// Where the admin kubeconfig lies; absent when there is no cluster yet.
    pub kubeconfig: Option<PathBuf>,
    /// How long it all took, in milliseconds.
    pub milliseconds: u64,
    /// Failures of hosts and of the cluster as a whole.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Things altered on all hosts.
    pub fn changes(&self) -> u32 {
        self.hosts.iter().map(|host| host.changes).sum()
    }
}

/// Asked before something that runs is interrupted, with all that would be done: whether to go on.
pub type Approve<'a> = dyn Fn(Preview) -> BoxFuture<'a, bool> + Send + Sync + 'a;

/// How `up` goes about it.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// How many hosts may fail.
    pub tolerance: Tolerance,
    /// How many workers change at a time; a fifth of them where nobody says.
    pub batch: Option<usize>,
    /// Whom to ask; without it nobody is asked.
    pub approve: Option<&'a Approve<'a>>,
    /// Whether nodes that the inventory does not name will be taken out afterwards: what is asked names them.
    pub prune: bool,
}

/// Makes the cluster of an inventory, or finishes it, or finds that nothing is to do. Hosts that cannot be reached or fail
/// do not keep the others from it, as far as the tolerance goes.
///
/// # Errors
/// All failures found before anything was touched (more hosts that cannot be reached than are borne, a failed preflight).
/// What fails later is part of the [`Outcome`].
pub async fn up(
    inventory: &Inventory,
    bundle: Arc<Bundle>,
    options: Options<'_>,
    settings: &Settings,
) -> Result<Outcome, Vec<Failure>> {
    let started = Instant::now();
    let events = &settings.events;
    events.send(What::RunStarted {
        verb: "up".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let Begun { documents, sessions, plan, bundle, missing, listening, mut ahead } =
        match begin(inventory, bundle, options, settings).await {
            Ok(begun) => begun,
            Err(failures) => {
                let failed = |name: &str| failures.iter().any(|failure| failure.host.as_deref() == Some(name));
                for host in inventory.hosts.iter().filter(|host| !failed(&host.name)) {
                    events.of_host(&host.name).send(What::HostFinished { state: "untouched".to_owned() });
                }
                let milliseconds = elapsed_milliseconds(started.elapsed());
                events.send(What::RunFinished { milliseconds, changes: 0, failed: failures.clone() });
                return Err(failures);
            }
        };
    plan.warnings.iter().for_each(|warning| events.warn(warning));
    let (joins, control_planes_join) = (plan.joins(), plan.control_planes_join());
    let newcomers = plan.hosts.iter().any(|host| !host.member);
    let is_old = plan.hosts.iter().any(|host| host.way == Way::Source && host.member);
    let board = Board::new();
    let spreading = Spreading::new(&inventory.transfer, sessions.len(), plan.source(), plan.source().is_some())
        .map_err(|failure| vec![failure])?;
    let rollout = Rollout::of(&plan, options.batch);
    let casualties = Casualties::new(options.tolerance, inventory, &missing);
    let lanes = sessions.iter().zip(&plan.hosts).map(|(session, plan)| {
        let ahead = ahead.take_if(|ahead| ahead.host == plan.name);
        let (known_to_lack, receiving) = match ahead {
            Some(Ahead { lacking, receiving, .. }) => (Some(lacking), receiving),
            None => (None, Receiving::default()),
        };
        let lane = Lane {
            inventory,
            documents: &documents,
            session,
            plan,
            bundle: &bundle,
            board: &board,
            spreading: &spreading,
            rollout: &rollout,
            cancel: &settings.cancel,
            casualties: &casualties,
            hosts: sessions.len(),
            is_old,
            newcomers,
            joins,
            control_planes_join,
            known_to_lack: Mutex::new(known_to_lack),
            receiving: Mutex::new(receiving),
        };
        let casualties = &casualties;
        async move {
            let began = Instant::now();
            let result = lane.go().await;
            if let Err(failure) = &result {
                casualties.add(&session.host.name, failure.kind);
            }
            outcome(session, result, began)
        }
    });
    let lanes: Vec<_> = lanes.collect();
    // Of a host that takes no part.
    drop(ahead);
    let work = async {
        // Long before anything there needs the ports: nobody waits for it.
        let quiet = check::be_quiet(&sessions, &listening);
        let ((), mut hosts) = futures::join!(quiet, futures::future::join_all(lanes));
        let leaving = futures::future::join_all(sessions.iter().map(|session| spreading.leave(session)));
        let concluding = conclude(inventory, &plan, &documents, &sessions, &board, &mut hosts, settings);
        let (_, concluded) = futures::join!(leaving, concluding);
        (hosts, concluded)
    };
    let source = sessions.iter().find(|session| Some(session.host.name.as_str()) == plan.source());
    let (hosts, concluded) = finish::while_probing(&board, source, work).await;
    let hosts = with_missing(inventory, hosts, missing);
    let mut failures: Vec<Failure> = hosts
        .iter()
        .filter_map(|host| match &host.state {
            State::Failed(failure) => Some(failure.clone()),
            State::Ready | State::Joined => None,
        })
        .collect();
    let kubeconfig = concluded.unwrap_or_else(|failure| {
        failures.push(failure);
        None
    });
    let milliseconds = elapsed_milliseconds(started.elapsed());
    let outcome = Outcome { hosts, kubeconfig, milliseconds, failures };
    events.send(What::RunFinished { milliseconds, changes: outcome.changes(), failed: outcome.failures.clone() });
    Ok(outcome)
}

/// What an `up` begins with.
struct Begun {
    documents: Documents,
    sessions: Vec<Session>,
    plan: Plan,
    /// The one that was given, or what the hosts fetched.
    bundle: Arc<Bundle>,
    /// Hosts that the run goes on without: those that were not reached and those that are not fit.
    missing: Vec<Failure>,
    /// Hosts that listen in the place of what is to come.
    listening: BTreeSet<String>,
    ahead: Option<Ahead>,
}

/// Reaches all hosts and judges them. What is wrong with those that were reached is said together with those that were
/// not. A worker that is not fit is borne like one that is not there.
async fn begin(
    inventory: &Inventory,
    bundle: Arc<Bundle>,
    options: Options<'_>,
    settings: &Settings,
) -> Result<Begun, Vec<Failure>> {
    let documents = Documents::read(inventory).map_err(|failure| vec![failure])?;
    let (mut sessions, unreachable) =
        connect(inventory, settings, Access::Alter("up")).await.map_err(|failure| vec![failure])?;
    let mut facts = facts_of(inventory, &sessions);
    let mut absent = Absent::of(inventory, options.tolerance, &facts, unreachable);
    let bundle = match inventory.transfer.fetch {
        Fetch::OnHost if absent.borne => {
            let (bundle, failures) = super::fetch::fetch(inventory, &sessions, &settings.events).await;
            // Who has nothing to run is as good as not there.
            let has_failed = |name: &str| failures.iter().any(|failure| failure.host.as_deref() == Some(name));
            sessions.retain(|session| !has_failed(&session.host.name));
            facts.retain(|name, _| !has_failed(name));
            let failures = absent.failures.into_iter().chain(failures).collect();
            absent = Absent::of(inventory, options.tolerance, &facts, failures);
            if !absent.borne {
                return Err(absent.failures);
            }
            bundle
        }
        Fetch::OnHost => return Err(absent.failures),
        Fetch::Bundle => bundle,
    };
    let (Tried { findings: tried, listening }, ahead) = futures::join!(
        check::of_newcomers(inventory, &documents, &facts, &sessions),
        look_ahead(inventory, &sessions, bundle.manifest())
    );
    let muster = Muster::of(inventory, options.tolerance, &documents, &facts, bundle.manifest(), tried, absent)?;
    let sessions = muster.take(sessions);
    let Muster { plan, missing, .. } = muster;
    let sight = Sight {
        inventory,
        documents: &documents,
        sessions: &sessions,
        plan: &plan,
        missing: &missing,
        prune: options.prune,
        // It is there by now.
        downloading: &BTreeSet::new(),
    };
    approved(sight, &listening, options).await?;
    Ok(Begun { documents, sessions, plan, bundle, missing, listening, ahead })
}

/// Asks, where something that runs would be interrupted. On hosts that are no nodes nothing of a cluster runs; swap that is on may
/// be what other programs there live on.
async fn approved(sight: Sight<'_>, listening: &BTreeSet<String>, options: Options<'_>) -> Result<(), Vec<Failure>> {
    let may_disrupt = sight.plan.hosts.iter().any(|host| host.member)
        || sight.sessions.iter().any(|session| !session.facts.swap.is_empty());
    let Some(approve) = options.approve.filter(|_| may_disrupt) else { return Ok(()) };
    // What is rehearsed looks at the ports as well.
    check::be_quiet(sight.sessions, listening).await;
    let preview = sight.preview().await?;
    if !preview.disrupts() || approve(preview).await {
        return Ok(());
    }
    Err(vec![Failure::new(Kind::Interrupted, "nothing was altered, as you said")])
}

/// All hosts in inventory order, those too that the run went on without.
fn with_missing(inventory: &Inventory, done: Vec<HostOutcome>, missing: Vec<Failure>) -> Vec<HostOutcome> {
    let missing = missing.into_iter().filter_map(|failure| {
        let host = inventory.hosts.iter().find(|host| Some(&host.name) == failure.host.as_ref())?;
        Some(HostOutcome {
            name: host.name.clone(),
            address: host.address.clone(),
            role: host.role,
            state: State::Failed(failure),
            changes: 0,
            milliseconds: 0,
        })
    });
    let mut hosts: Vec<HostOutcome> = done.into_iter().chain(missing).collect();
    hosts.sort_by_key(|outcome| inventory.hosts.iter().position(|host| host.name == outcome.name));
    hosts
}

fn outcome(session: &Session, result: Result<u32>, began: Instant) -> HostOutcome {
    if result.is_ok() {
        session.events.send(What::HostFinished { state: "joined".to_owned() });
    }
    let (state, changes) = match result {
        Ok(changes) => (State::Joined, changes),
        Err(failure) => (State::Failed(failure.on(&session.host.name)), 0),
    };
    HostOutcome {
        name: session.host.name.clone(),
        address: session.host.address.clone(),
        role: session.host.role,
        state,
        changes,
        milliseconds: elapsed_milliseconds(began.elapsed()),
    }
}

/// Everything after the lanes; does nothing where the control plane failed that all is asked of.
async fn conclude(
    inventory: &Inventory,
    plan: &Plan,
    documents: &Documents,
    sessions: &[Session],
    board: &Board,
    hosts: &mut [HostOutcome],
    settings: &Settings,
) -> Result<Option<PathBuf>> {
    let joined: BTreeSet<String> =
        hosts.iter().filter(|host| host.state == State::Joined).map(|host| host.name.clone()).collect();
    let source = plan.source().filter(|name| joined.contains(*name));
    let Some(session) = sessions.iter().find(|session| Some(session.host.name.as_str()) == source) else {
        return Ok(None);
    };
    let api = board.api.wait().await?;
    let server = kubeconfig::server_for_laptop(inventory, plan, &joined, documents.bind_port());
    let kubeconfig_changed = kubeconfig::write(inventory, api.kubeconfig(), server.as_deref())?;
    let unaltered = hosts.iter().all(|host| host.state == State::Joined && host.changes == 0);
    let before = board.seen_before().filter(|_| unaltered);
    let components = documents.static_pods();
    let end = End { inventory, joined: &joined, components: &components };
    let (labelled, settled) = end.settle(session, before, sessions, &settings.events, &settings.cancel).await;
    if let Some(host) = hosts.iter_mut().find(|host| host.name == session.host.name) {
        host.changes += labelled + u32::from(kubeconfig_changed);
    }
    settled?;
    for host in hosts.iter_mut().filter(|host| host.state == State::Joined) {
        host.state = State::Ready;
        settings.events.of_host(&host.name).send(What::HostFinished { state: "ready".to_owned() });
    }
    Ok(Some(kubeconfig::path(inventory)))
}
