//! The laptop's end of one agent: requests out, answers and events in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::start::{Start, Started};
use crate::agent::SIGN_OF_LIFE;
use crate::api::READY;
use crate::event::{Events, What};
use crate::failure::{Failure, Kind, Result};
use crate::message::{Envelope, LockOrder, MAXIMUM_LINE_BYTES, Reply, Request};
use crate::ssh::{Chunk, Reader, Writer};

type Waiting = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Result<Value, Unanswered>>>,
    ended: Option<Unanswered>,
}

/// An agent at work on a host. Dropping it ends the agent. One whose connection is lost is started again, and what it was
/// asked is asked again: steps may be repeated.
pub struct Agent {
    start: Start,
    /// What concerns the whole run.
    of_run: Events,
    events: Events,
    live: Mutex<Arc<Live>>,
    /// Held while the agent is started again.
    revival: tokio::sync::Mutex<()>,
    /// How it got the host's lock, to be taken again.
    lock: Mutex<Option<LockOrder>>,
    next: AtomicU64,
    lives: Lives,
    /// Bytes of the program that had to be sent to start it.
    pub sent: u64,
}

/// How often the agent of a host was started anew during a run: what the one before held for other hosts is gone with it.
#[derive(Debug, Clone, Default)]
pub struct Lives(Arc<AtomicU64>);

impl Lives {
    /// The number of this life.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Another one begins.
    pub(super) fn begin_another(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// One agent process.
struct Live {
    writer: Arc<tokio::sync::Mutex<Writer>>,
    state: Waiting,
}

/// How often one request is repeated because the link was lost during it.
const REPEATS: usize = 3;

/// What an agent is asked with the command that starts it: on a long way each of these answers is there a round trip earlier.
#[derive(Default)]
pub struct Opening {
    state: Waiting,
    asked: Vec<Envelope>,
}

/// A request of an [`Opening`], to be given to [`Agent::answer`].
pub struct Asked {
    request: Request,
    answer: oneshot::Receiver<Result<Value, Unanswered>>,
}

impl Opening {
    /// Puts a request into it. It is seen by who looks at the host's processes: it must hold no secret.
    pub fn ask(&mut self, request: Request) -> Asked {
        let id = self.asked.len() as u64 + 1;
        let (sender, answer) = oneshot::channel();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.insert(id, sender);
        self.asked.push(Envelope { id, request: request.clone() });
        Asked { request, answer }
    }

    /// What the agent is started with; it works in every login shell.
    fn arguments(&self) -> Result<String> {
        if self.asked.is_empty() {
            return Ok(String::new());
        }
        let unwritten = |error| Failure::new(Kind::Internal, "a request cannot be written").because(&error);
        let mut lines = Vec::new();
        for envelope in &self.asked {
            serde_json::to_writer(&mut lines, envelope).map_err(unwritten)?;
            lines.push(b'\n');
        }
        Ok(format!("--asked {}", URL_SAFE_NO_PAD.encode(lines)))
    }
}

impl Agent {
    /// Starts the agent on a host; what happens there is sent to `of_run`, stamped with the host's name.
    pub async fn start(start: &Start, opening: Opening, of_run: &Events) -> Result<Self> {
        let events = of_run.of_host(&start.host);
        let next = AtomicU64::new(opening.asked.len() as u64 + 1);
        let (live, sent) = Live::start(start, opening, of_run, &events).await?;
        Ok(Self {
            start: start.clone(),
            of_run: of_run.clone(),
            events,
            live: Mutex::new(Arc::new(live)),
            revival: tokio::sync::Mutex::default(),
            lock: Mutex::default(),
            next,
            lives: Lives::default(),
            sent,
        })
    }

    /// The host's name in the inventory.
    pub fn host(&self) -> &str {
        &self.start.host
    }

    /// Counts how often it is started anew.
    pub fn lives(&self) -> Lives {
        self.lives.clone()
    }

    /// Asks, and waits for the answer. `T` is the type that the request's variant names.
    ///
    /// # Errors
    /// What the host says, or kind `Connection` when the agent is gone; both name the host.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        self.conclude(request, None).await
    }

    /// Waits for the answer to what this agent was started with.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub async fn answer<T: DeserializeOwned>(&self, asked: Asked) -> Result<T> {
        self.conclude(asked.request, Some(asked.answer)).await
    }

    /// Asks, unless that was done and the answer is awaited; where the link is lost, asks again.
    async fn conclude<T: DeserializeOwned>(
        &self,
        request: Request,
        mut awaited: Option<oneshot::Receiver<Result<Value, Unanswered>>>,
    ) -> Result<T> {
        // Programs that a person chose are not run twice.
        let repeats = if matches!(request, Request::Run(_)) { 0 } else { REPEATS };
        let order = if let Request::Lock(order) = &request { Some(order.clone()) } else { None };
        let mut lost = 0;
        let value = loop {
            let live = self.live();
            let answer = match awaited.take() {
                Some(awaited) => answered(awaited).await,
                None => self.ask_once(&live, &request).await,
            };
            let failure = match answer {
                Ok(value) => break value,
                Err(Unanswered::Refused(failure)) => return Err(failure.on(self.host())),
                Err(Unanswered::LinkLost(failure)) => failure.on(self.host()),
            };
            if lost == repeats {
                return Err(failure);
            }
            lost += 1;
            self.revive(&live, failure).await?;
        };
        if order.is_some() {
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = order;
            self.live().show_life();
        }
        serde_json::from_value(value).map_err(|error| {
            Failure::new(Kind::Internal, "the agent's answer has another shape than expected")
                .on(self.host())
                .because(&error)
        })
    }

    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask_once(&self, live: &Live, request: &Request) -> Result<Value, Unanswered> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        live.ask(&Envelope { id, request: request.clone() }).await
    }

    /// Starts the agent again in place of this one, with its lock; the connection is made again where it is needed.
    async fn revive(&self, lost: &Arc<Live>, failure: Failure) -> Result<()> {
        let _turn = self.revival.lock().await;
        if !Arc::ptr_eq(&self.live(), lost) {
            return Ok(());
        }
        self.lives.begin_another();
        self.events.warn(format!("{}; connecting again", failure.sentence));
        let (live, _) = Live::start(&self.start, Opening::default(), &self.of_run, &self.events).await?;
        let order = self.lock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(order) = order {
            self.ask_once(&live, &Request::Lock(order)).await.map_err(|unanswered| match unanswered {
                Unanswered::Refused(failure) | Unanswered::LinkLost(failure) => failure.on(self.host()),
            })?;
            live.show_life();
        }
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        Ok(())
    }
}

impl Live {
    /// Starts the process; also the bytes of the program that had to be sent.
    async fn start(start: &Start, opening: Opening, of_run: &Events, events: &Events) -> Result<(Self, u64)> {
        let Started { channel, first, sent } = start.agent(&opening.arguments()?).await?;
        let (writer, reader) = channel.split();
        let state = opening.state;
        tokio::spawn(read(start.host.clone(), reader, first, state.clone(), of_run.clone(), events.clone()));
        Ok((Self { writer: Arc::new(tokio::sync::Mutex::new(writer)), state }, sent))
    }

    /// From now on tells the agent all the time that we are here, as the holder of a lock must; ends with this process.
    fn show_life(&self) {
        let writer = Arc::downgrade(&self.writer);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SIGN_OF_LIFE);
            loop {
                ticks.tick().await;
                let Some(writer) = writer.upgrade() else { return };
                // Nobody waits for an answer under this number.
                let Ok(mut line) = serde_json::to_vec(&Envelope { id: 0, request: Request::Alive }) else { return };
                line.push(b'\n');
                if writer.lock().await.send(Bytes::from(line)).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn ask(&self, envelope: &Envelope) -> Result<Value, Unanswered> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            state.waiting.insert(envelope.id, sender);
        }
        let mut line = serde_json::to_vec(envelope).map_err(|error| {
            Unanswered::Refused(Failure::new(Kind::Internal, "a request cannot be written").because(&error))
        })?;
        line.push(b'\n');
        let sent = self.writer.lock().await.send(Bytes::from(line)).await;
        if let Err(failure) = sent {
            return Err(match failure.kind {
                Kind::Connection => Unanswered::LinkLost(failure),
                _ => Unanswered::Refused(failure),
            });
        }
        answered(answer).await
    }
}

async fn answered(answer: oneshot::Receiver<Result<Value, Unanswered>>) -> Result<Value, Unanswered> {
    let gone = || Err(Unanswered::Refused(Failure::new(Kind::Connection, "the agent is gone").may_pass()));
    answer.await.unwrap_or_else(|_| gone())
}

/// Why there is no answer.
#[derive(Debug, Clone)]
enum Unanswered {
    /// The host said no, or the agent ended.
    Refused(Failure),
    /// The connection was lost: nobody knows what became of the request.
    LinkLost(Failure),
}

/// What a host may tell of the whole run: how far that is which it waits for.
fn is_for_a_host_to_tell(what: &What) -> bool {
    matches!(what, What::StepProgressed { step, .. } if step.0 == READY)
}

/// Reads what the agent says until its channel ends.
async fn read(host: String, mut reader: Reader, first: Vec<u8>, state: Waiting, of_run: Events, events: Events) {
    let mut pending = first;
    let mut scanned = 0;
    let mut link_lost = false;
    let why = loop {
        while let Some(end) = pending[scanned..].iter().position(|byte| *byte == b'\n').map(|end| scanned + end) {
            let line: Vec<u8> = pending.drain(..=end).collect();
            scanned = 0;
            match serde_json::from_slice::<Reply>(&line) {
                Ok(Reply::Ready) => {}
                Ok(Reply::Event(what)) => events.send(what),
                Ok(Reply::OfRun(what)) => {
                    if is_for_a_host_to_tell(&what) {
                        of_run.send(what);
                    }
                }
                Ok(Reply::Answer { id, result }) => {
                    let waiting = state.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&id);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(result.map_err(Unanswered::Refused));
                    }
                }
                Err(error) => events.warn(format!("the agent said something that is no message: {error}")),
            }
        }
        scanned = pending.len();
        if pending.len() > MAXIMUM_LINE_BYTES {
            break Failure::new(Kind::Connection, "the agent sent a line without end");
        }
        match reader.recv().await {
            Ok(Some(Chunk::Stdout(bytes))) => pending.extend_from_slice(&bytes),
            Ok(Some(Chunk::Stderr(_) | Chunk::Exit(_))) => {}
            Ok(None) => break Failure::new(Kind::Connection, "the agent ended before it answered"),
            Err(failure) => {
                link_lost = failure.kind == Kind::Connection;
                break failure;
            }
        }
    };
    let mut why = why.on(&host).advise("run the same command again: it continues where this run stopped").may_pass();
    let said = reader.stderr_tail();
    if !said.trim().is_empty() {
        why = why.detailed(said.trim());
    }
    let why = if link_lost { Unanswered::LinkLost(why) } else { Unanswered::Refused(why) };
    let waiting = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended = Some(why.clone());
        std::mem::take(&mut state.waiting)
    };
    for (_, waiting) in waiting {
        let _ = waiting.send(Err(why.clone()));
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{Opening, is_for_a_host_to_tell};
    use crate::event::{Unit, What};
    use crate::message::{Envelope, Holder, LockOrder, Request};

    #[test]
    fn of_the_whole_run_a_host_tells_only_how_far_its_wait_is() {
        let progress =
            |step: &str| What::StepProgressed { step: step.into(), done: 1, total: 2, unit: Unit::Items, item: None };
        assert!(is_for_a_host_to_tell(&progress("ready")));
        assert!(!is_for_a_host_to_tell(&progress("connect")));
        let ended = What::RunFinished { milliseconds: 1, changes: 0, failed: Vec::new() };
        assert!(!is_for_a_host_to_tell(&ended));
    }

    #[test]
    fn an_agent_is_asked_with_its_start_in_words_that_every_shell_leaves_alone() {
        let mut opening = Opening::default();
        assert_eq!(opening.arguments().unwrap(), "");
        let who = "o'hara \"$(reboot)\"@laptop \\ !1".to_owned();
        let cluster = "demo".to_owned();
        let holder = Holder { who: who.clone(), verb: "up".to_owned(), since_seconds: 1, cluster, run: String::new() };
        let _facts = opening.ask(Request::Facts);
        let _lock = opening.ask(Request::Lock(LockOrder { holder, patience_milliseconds: 0 }));
        let arguments = opening.arguments().unwrap();
        let messages = arguments.strip_prefix("--asked ").unwrap();
        assert!(messages.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{messages}");
        let lines = URL_SAFE_NO_PAD.decode(messages).unwrap();
        let asked: Vec<Envelope> =
            lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert_eq!(asked.iter().map(|envelope| envelope.id).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(&asked[0].request, Request::Facts));
        assert!(matches!(&asked[1].request, Request::Lock(order) if order.holder.who == who));
    }
}
