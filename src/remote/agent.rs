//! The laptop's end of one agent: requests out, answers and events in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::start::{Start, Started};
use crate::agent::SIGN_OF_LIFE;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::message::{Envelope, MAXIMUM_LINE_BYTES, Reply, Request};
use crate::ssh::{Chunk, Reader, Writer};

type Waiting = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Result<Value>>>,
    ended: Option<Failure>,
}

/// An agent at work on a host. Dropping it ends the agent.
pub struct Agent {
    host: String,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    state: Waiting,
    next: AtomicU64,
    /// Bytes of the program that had to be sent to start it.
    pub sent: u64,
}

impl Agent {
    /// Starts the agent on a host; what happens there is sent to `events`, stamped with the host's name.
    pub async fn start(start: &Start, events: &Events) -> Result<Self> {
        let Started { channel, first, sent } = start.agent("").await?;
        let (writer, reader) = channel.split();
        let state = Waiting::default();
        let events = events.of_host(&start.host);
        tokio::spawn(read(start.host.clone(), reader, first, state.clone(), events));
        Ok(Self {
            host: start.host.clone(),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            state,
            next: AtomicU64::new(1),
            sent,
        })
    }

    /// The host's name in the inventory.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// From now on tells the agent all the time that we are here, as the holder of a lock must; ends with this agent.
    pub fn show_life(&self) {
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

    /// Asks, and waits for the answer. `T` is the type that the request's variant names.
    ///
    /// # Errors
    /// What the host says, or kind `Connection` when the agent is gone; both name the host.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            state.waiting.insert(id, sender);
        }
        let mut line = serde_json::to_vec(&Envelope { id, request }).map_err(|error| {
            Failure::new(Kind::Internal, "a request cannot be written").on(&self.host).because(&error)
        })?;
        line.push(b'\n');
        self.writer.lock().await.send(Bytes::from(line)).await.map_err(|failure| failure.on(&self.host))?;
        let answer =
            answer.await.unwrap_or_else(|_| Err(Failure::new(Kind::Connection, "the agent is gone").may_pass()));
        let value = answer.map_err(|failure| failure.on(&self.host))?;
        serde_json::from_value(value).map_err(|error| {
            Failure::new(Kind::Internal, "the agent's answer has another shape than expected")
                .on(&self.host)
                .because(&error)
        })
    }
}

/// Reads what the agent says until its channel ends.
async fn read(host: String, mut reader: Reader, first: Vec<u8>, state: Waiting, events: Events) {
    let mut pending = first;
    let mut scanned = 0;
    let why = loop {
        while let Some(end) = pending[scanned..].iter().position(|byte| *byte == b'\n').map(|end| scanned + end) {
            let line: Vec<u8> = pending.drain(..=end).collect();
            scanned = 0;
            match serde_json::from_slice::<Reply>(&line) {
                Ok(Reply::Ready) => {}
                Ok(Reply::Event(what)) => events.send(what),
                Ok(Reply::Answer { id, result }) => {
                    let waiting = state.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&id);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(result);
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
            Err(failure) => break failure,
        }
    };
    let mut why = why.on(&host).advise("run the same command again: it continues where this run stopped").may_pass();
    let said = reader.stderr_tail();
    if !said.trim().is_empty() {
        why = why.detailed(said.trim());
    }
    let waiting = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended = Some(why.clone());
        std::mem::take(&mut state.waiting)
    };
    for (_, waiting) in waiting {
        let _ = waiting.send(Err(why.clone()));
    }
}
