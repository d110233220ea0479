//! One host from inside: the message loop, the lock, dispatch to what is below.
//!
//! `clusterctl agent` reads [`Envelope`]s from standard input and answers on standard output, one JSON document a line.
//! It lives exactly as long as its standard input: when the connection goes, the process ends and everything it holds
//! (the lock, child processes) goes with it.

mod brought;
mod evict;
mod fetch;
mod lines;
mod lock;
mod proof;
mod receive;
mod rehearse;
pub mod relay;
mod store;
mod stripe;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, mpsc, watch};
use tokio::time::MissedTickBehavior;

use self::brought::is_being_brought;
pub use self::fetch::FetchOrder;
use self::lines::{read_ahead, write_replies};
use self::lock::Pulse;
pub use self::lock::{Lock, PATIENCE, SIGN_OF_LIFE};
pub use self::receive::{Incoming, Instead, Purpose, Report, receive};
use self::relay::Giving;
pub use self::store::Store;
pub use self::stripe::{FRAME_HEAD_BYTES, Stripes, frame, join};
use crate::api::Probes;
use crate::event::{Events, What};
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::journal::Journal;
use crate::host::listing;
use crate::host::machine::Machine;
use crate::host::reach::Listeners;
use crate::host::{Command, Host};
use crate::message::{Envelope, Locked, PlayOrder, PlayReport, PlayStep, Ran, Reply, Request, RunOrder};
use crate::secret::Secret;
use crate::{balancer, host, node, playbook};

/// Everything the agent keeps on a host lies below this directory.
pub const DIRECTORY: &str = "/var/lib/clusterctl";

/// Where the shares of the program lie that a command gathers to start an agent: below [`DIRECTORY`], with a dot and the number of that
/// command's process behind it.
pub const SHARES: &str = "shares";

/// The file of the program that runs, also when its name is gone.
const PROGRAM: &str = "/proc/self/exe";

/// How often it is looked whether the laptop is still there.
const TICK: Duration = Duration::from_secs(1);

/// So many looks without a word end an agent that holds the lock: its laptop lost power or network, and TCP says nothing
/// of that for hours. The laptop speaks every [`lock::SIGN_OF_LIFE`].
const SILENT_TICKS: u32 = 45;

/// How long processes of a cluster that has gone may take to end.
const RESIDUE_LIMIT: Duration = Duration::from_secs(5);

/// One agent: the machine it works on and what it holds for its run.
struct Agent {
    machine: Machine,
    facts: Mutex<Option<Arc<Facts>>>,
    lock: Mutex<Option<Held>>,
    pulse: Pulse,
    journal: Mutex<Option<Journal>>,
    /// Handing blobs on to other hosts.
    giving: Mutex<Option<Giving>>,
    /// Listening for other hosts that try whether they reach this one.
    listeners: Mutex<Listeners>,
    /// What comes of the join that was asked for.
    joining: watch::Sender<Joining>,
    /// Pods that kubelets were asked to look at.
    probes: Mutex<Probes>,
    /// Whether it is waited until the cluster is ready.
    settling: watch::Sender<bool>,
    events: Events,
    /// What the laptop is told.
    replies: mpsc::UnboundedSender<Reply>,
}

/// A join, for what is to follow it.
#[derive(Debug, Default)]
enum Joining {
    /// None was asked for.
    #[default]
    Nothing,
    /// It was asked for.
    UnderWay,
    /// It has ended; the pod network of the Node, where it has seen one.
    Ended(Option<ipnet::IpNet>),
}

/// The host's lock and what for.
struct Held {
    _lock: Lock,
    cluster: String,
}

/// Serves one connection until `input` ends.
///
/// # Errors
/// Kind `Internal` when the input is no message; then nothing more can be understood.
pub async fn serve(
    input: impl AsyncRead + Unpin + Send + 'static,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<()> {
    let (events, mut happened) = Events::channel();
    let (replies, pending) = mpsc::unbounded_channel::<Reply>();
    let writer = tokio::spawn(write_replies(output, pending));
    let forward = replies.clone();
    let pulse = Pulse::default();
    let noted = pulse.clone();
    tokio::spawn(async move {
        while let Some(event) = happened.recv().await {
            if let What::StepStarted { title, .. } = &event.what {
                noted.doing(title);
            }
            let _ = forward.send(Reply::Event(event.what));
        }
    });
    let agent = Agent::new(events, replies.clone(), pulse.clone());
    let _ = replies.send(Reply::Ready);
    let mut lines = read_ahead(input, pulse.clone());
    // Requests are worked on side by side in this one task; commands and API calls are what they wait for.
    let mut work = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(TICK);
    // Counted, not measured: a host that stood still must first see what arrived meanwhile.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut silent, mut heard_before) = (0, 0);
    let ended = loop {
        tokio::select! {
            _ = ticks.tick() => {
                let heard = pulse.heard();
                silent = if heard == heard_before { silent + 1 } else { 0 };
                heard_before = heard;
                if silent > SILENT_TICKS && agent.is_locked() {
                    break Err(Failure::new(Kind::Connection, "the laptop shows no sign of life").may_pass());
                }
            }
            line = lines.recv() => match line {
                Some(Ok(line)) => match serde_json::from_slice::<Envelope>(&line) {
                    Ok(envelope) => {
                        // Known before anything that was asked for later is begun.
                        if matches!(envelope.request, Request::Join(_)) {
                            agent.joining.send_replace(Joining::UnderWay);
                        }
                        work.push(agent.numbered(envelope));
                    }
                    Err(error) => {
                        let failure = Failure::new(Kind::Internal, "the agent got a message it does not know");
                        break Err(failure.because(&error));
                    }
                },
                Some(Err(failure)) => break Err(failure),
                None => break Ok(()),
            },
            Some(reply) = work.next() => {
                let _ = replies.send(reply);
            }
        }
    };
    // The connection is gone: nobody waits for what is still under way. Dropped here, it stops at its next wait, and the
    // children of stopped commands are killed with it.
    drop(work);
    writer.abort();
    node::end_probing(&agent.machine, &agent.probes).await;
    agent.leave_no_trace().await;
    ended
}

impl Agent {
    fn new(events: Events, replies: mpsc::UnboundedSender<Reply>, pulse: Pulse) -> Self {
        Self {
            machine: Machine,
            facts: Mutex::new(None),
            lock: Mutex::new(None),
            pulse,
            journal: Mutex::new(None),
            giving: Mutex::new(None),
            joining: watch::Sender::default(),
            listeners: Mutex::default(),
            probes: Mutex::default(),
            settling: watch::Sender::new(false),
            events,
            replies,
        }
    }

    async fn numbered(&self, envelope: Envelope) -> Reply {
        Reply::Answer { id: envelope.id, result: self.answer(envelope.request).await }
    }

    /// Whether the lock is held; not while it is being taken.
    fn is_locked(&self) -> bool {
        self.lock.try_lock().is_ok_and(|held| held.is_some())
    }

    /// A run that only looked, or was refused before it changed anything, leaves the host as it was: without a journal
    /// there is nothing to put back, and the program is not kept either. Not while another run is at work, or brings the program:
    /// what it received lies there, too, before it writes its journal.
    async fn leave_no_trace(&self) {
        let store = Store::of_this_host();
        if self.lock.lock().await.is_some() {
            store.release();
        }
        if !store.there().is_empty() || fetch::has_begun(&fetch::downloads()) {
            // A transfer that broke off goes on from what is there, and so do the host's own downloads; what was pushed is
            // for a run to come.
            return;
        }
        if is_being_brought(&self.machine) {
            // Whoever brings it takes it away.
            return;
        }
        let changed = self.machine.entry(std::path::Path::new(host::journal::JOURNAL));
        let compared = matches!(proof::is_awaited(&self.machine), Ok(false));
        if matches!(changed, Ok(None)) && compared && (self.lock.lock().await.is_some() || lock::Lock::is_free()) {
            let _ = self.machine.remove_tree(Path::new(DIRECTORY));
        }
    }

    /// The listing of before the first change. Beside a journal it would be one of something half-made.
    async fn remember(&self) -> Result<bool> {
        if self.machine.entry(std::path::Path::new(host::journal::JOURNAL))?.is_some() {
            return Ok(false);
        }
        if proof::recall(&self.machine)? {
            return Ok(true);
        }
        // In a thread of its own: the host is looked through while other requests are worked on.
        let runtime = tokio::runtime::Handle::current();
        let looking = tokio::task::spawn_blocking(move || runtime.block_on(listing::take(&Machine)));
        let before = looking.await.map_err(|_| Failure::new(Kind::Internal, "listing the host ended early"))?;
        before.keep(&self.machine)?;
        Ok(true)
    }

    /// The journal, opened when it is first needed: `down` must get by with one that is damaged.
    async fn journal(&self) -> Result<MappedMutexGuard<'_, Journal>> {
        let unlocked = || Failure::new(Kind::Internal, "a change was asked for before the lock was taken");
        let cluster = self.lock.lock().await.as_ref().map(|held| held.cluster.clone()).ok_or_else(unlocked)?;
        let mut journal = self.journal.lock().await;
        if journal.is_none() {
            *journal = Some(Journal::open(&self.machine, &cluster)?);
        }
        MutexGuard::try_map(journal, Option::as_mut).map_err(|_| unlocked())
    }

    async fn answer(&self, request: Request) -> Result<Value> {
        match request {
            Request::Facts => {
                let mut facts = self.observe().await?;
                facts.kubernetes.serves = node::serves(&self.machine, &facts).await;
                let told = document(&facts);
                *self.facts.lock().await = Some(Arc::new(facts));
                told
            }
            Request::Lock(order) => {
                let patience = Duration::from_millis(order.patience_milliseconds);
                let mut held = self.lock.lock().await;
                let mut waited = false;
                if held.is_none() {
                    let tell = |busy: &Failure| {
                        self.events.send(What::Said { sentence: format!("waiting: {}", busy.sentence) });
                    };
                    let taken = Lock::take_alive(&order.holder, patience, &self.pulse, &tell).await?;
                    waited = taken.waited;
                    *held = Some(Held { _lock: taken.lock, cluster: order.holder.cluster });
                }
                if waited {
                    self.facts.lock().await.take();
                }
                document(&Locked { waited })
            }
            // Heard by whoever read it; an answer is what another sender may want.
            Request::Alive => document(&()),
            Request::Remember => document(&self.remember().await?),
            Request::Residue => document(&proof::compare(&self.machine, &self.events, RESIDUE_LIMIT).await?),
            Request::Lacking { blobs } => document(&host::blobs::lacking(&self.machine, &blobs).await?),
            Request::Fetch(order) => {
                let store = Store::of_this_host();
                document(&fetch::fetch(&self.machine, &store, &order, &self.events).await?)
            }
            Request::Fetched(order) => document(&fetch::fetched(&self.machine, &Store::of_this_host(), &order).await?),
            Request::Unavailable(order) => document(&fetch::unavailable(&order).await?),
            Request::Relay(order) => {
                let giving = Giving::open(&order, Store::of_this_host(), Path::new(PROGRAM)).await?;
                let address = giving.address();
                *self.giving.lock().await = Some(giving);
                document(&address)
            }
            Request::EndRelay => {
                self.giving.lock().await.take();
                document(&())
            }
            Request::Place { blobs } => {
                let placed = receive::place(&self.machine, &*self.journal().await?, &blobs)?;
                // Programs came: which ones there are, and of which version, is to be looked at anew.
                self.facts.lock().await.take();
                document(&placed)
            }
            Request::Sequence { requests } => {
                let mut answers = Vec::with_capacity(requests.len());
                for request in requests {
                    answers.push(Box::pin(self.answer(request)).await?);
                }
                document(&answers)
            }
            Request::Play(order) => document(&self.play(&order).await?),
            Request::Begin(order) => {
                document(&node::begin(&self.machine, &*self.facts().await?, &order, &self.events).await?)
            }
            Request::Complete(order) => {
                document(&node::complete(&self.machine, &*self.facts().await?, &order, &self.events).await?)
            }
            Request::Init(order) => {
                document(&node::init(&self.machine, &*self.facts().await?, &order, &self.events).await?)
            }
            Request::Join(order) => {
                let joined =
                    async { node::join(&self.machine, &*self.facts().await?, &order, &self.events).await }.await;
                let pod_network = joined.as_ref().ok().and_then(|joined| joined.pod_network);
                self.joining.send_replace(Joining::Ended(pod_network));
                document(&joined?)
            }
            Request::Refresh(order) => {
                document(&node::refresh(&self.machine, &*self.facts().await?, &order, &self.events).await?)
            }
            Request::Rehearse(order) => document(&self.rehearse(&order).await?),
            Request::Network(order) => {
                document(&node::network(&self.machine, &*self.facts().await?, &order, &self.events).await?)
            }
            Request::OwnNetwork(network) => {
                let mut joining = self.joining.subscribe();
                let ended = joining.wait_for(|joining| !matches!(joining, Joining::UnderWay)).await;
                let pod_network = ended.ok().and_then(|joining| match *joining {
                    Joining::Ended(pod_network) => pod_network,
                    Joining::Nothing | Joining::UnderWay => None,
                });
                let Some(pod_network) = pod_network else { return document(&None::<u32>) };
                let order = network.of(pod_network);
                let changes = node::network(&self.machine, &*self.facts().await?, &order, &self.events).await?;
                document(&Some(changes))
            }
            Request::Balancer(order) => {
                let program = std::env::current_exe().map_err(|error| {
                    Failure::new(Kind::Internal, "cannot find the agent's own file").because(&error)
                })?;
                let journal = self.journal().await?;
                document(&balancer::install(&self.machine, &journal, &order, &program, &self.events).await?)
            }
            Request::Probe => document(&node::probe(&self.machine, &self.probes, self.settling.subscribe()).await?),
            Request::Settle(order) => {
                self.settling.send_replace(true);
                // Told in order with the answer.
                let tell = |what| drop(self.replies.send(Reply::OfRun(what)));
                document(&node::settle(&self.machine, &order, &self.probes, &tell).await?)
            }
            Request::Explain { failure, components } => {
                let components: Vec<&str> = components.iter().map(String::as_str).collect();
                document(&node::explain(&self.machine, failure, &components).await)
            }
            Request::Reset(order) => document(&node::reset(&self.machine, &order, &self.events).await?),
            Request::RemoveLostMember(lost) => {
                document(&node::remove_lost_member(&self.machine, &lost, &self.events).await?)
            }
            Request::Restore => {
                self.journal.lock().await.take();
                document(&proof::restore(&self.machine, &self.events).await?)
            }
            Request::Measure(order) => document(&host::measure::measure(&self.machine, &order).await?),
            Request::Listen(order) => {
                let mut listeners = self.listeners.lock().await;
                // Those of before are gone first: the same ports may be wanted again.
                *listeners = Listeners::default();
                let (new, taken) = host::reach::listen(&order).await;
                *listeners = new;
                document(&taken)
            }
            Request::Dial { targets } => document(&host::reach::dial(&targets).await),
            Request::Run(order) => document(&self.run(order).await?),
            Request::AdminKubeconfig => document(&self.admin_kubeconfig()?),
        }
    }

    /// What was observed last; steps that alter the host do not depend on facts they alter.
    async fn facts(&self) -> Result<Arc<Facts>> {
        let mut known = self.facts.lock().await;
        match &*known {
            Some(facts) => Ok(Arc::clone(facts)),
            None => Ok(Arc::clone(known.insert(Arc::new(self.observe().await?)))),
        }
    }

    async fn observe(&self) -> Result<Facts> {
        host::observe::facts(&self.machine).await
    }

    async fn play(&self, order: &PlayOrder) -> Result<PlayReport> {
        let work = async {
            let journal = self.journal().await?;
            let facts = self.facts().await?;
            playbook::run(&self.machine, &facts, order, &journal, &self.events).await
        };
        let Some(PlayStep { id, title }) = &order.step else { return work.await };
        let mut step = self.events.step(id, title);
        let result = work.await;
        result.iter().flat_map(|report| &report.changes).for_each(|change| step.changed(change));
        step.end(result)
    }

    async fn run(&self, order: RunOrder) -> Result<Ran> {
        let mut arguments = order.arguments.into_iter();
        let program = arguments.next().ok_or_else(|| Failure::new(Kind::Usage, "there is no program to run"))?;
        let mut command = Command::new(program, &[]).limit(std::time::Duration::from_secs(order.limit_seconds));
        command.arguments = arguments.collect();
        command.environment = order.environment.into_iter().collect();
        command.input = order.input;
        let output = self.machine.run(command).await?;
        Ok(Ran { status: output.status, stdout: output.stdout, stderr: output.stderr })
    }

    fn admin_kubeconfig(&self) -> Result<Secret> {
        let path = std::path::Path::new("/etc/kubernetes/admin.conf");
        let content = self.machine.read(path)?.ok_or_else(|| {
            Failure::new(Kind::Cluster, "there is no /etc/kubernetes/admin.conf").advise("run `clusterctl up` first")
        })?;
        String::from_utf8(content)
            .map(Secret::new)
            .map_err(|_| Failure::new(Kind::Host, "/etc/kubernetes/admin.conf is not text"))
    }
}

fn document(answer: &impl Serialize) -> Result<Value> {
    serde_json::to_value(answer)
        .map_err(|error| Failure::new(Kind::Internal, "an answer cannot be written").because(&error))
}

#[cfg(test)]
mod tests;
