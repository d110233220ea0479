//! What happened, typed: the only contract between the work and whoever shows it.
//!
//! Layers that work send [`Event`]s into an [`Events`]; `ui` is the only consumer. On a host the agent forwards them as
//! messages; the laptop stamps the host's name on them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// The unit a person sees, with an id that does not change between runs: `connect`, `prepare`, `images`, `init`...
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl From<&str> for StepId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The inventory name of the host, or `None` for what concerns the whole run.
    pub host: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of event. Names are in the past tense: it has happened when it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// The run began: the verb and the hosts in inventory order.
    RunStarted {
        /// `up`, `down`, `run`...
        verb: String,
        /// The cluster's name.
        cluster: String,
        /// Inventory names.
        hosts: Vec<String>,
    },
    /// A step began.
    StepStarted {
        /// The step.
        step: StepId,
        /// The title a person reads: `Import images`.
        title: String,
    },
    /// Bytes or items moved on inside a step.
    StepProgressed {
        /// The step.
        step: StepId,
        /// Done so far.
        done: u64,
        /// How much there is in all, in the same unit.
        total: u64,
        /// What is counted.
        unit: Unit,
        /// What is being worked on right now: a file's or an image's name.
        item: Option<String>,
    },
    /// A step ended well.
    StepFinished {
        /// The step.
        step: StepId,
        /// How many things were altered; 0 means it was so already.
        changes: u32,
        /// How long it took, in milliseconds.
        milliseconds: u64,
    },
    /// A step ended badly.
    StepFailed {
        /// The step.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// One thing was altered: `file /etc/modules-load.d/kubernetes.conf created`.
    Changed {
        /// The step.
        step: StepId,
        /// What was altered, in one line.
        change: String,
    },
    /// A host is where the verb wants it; nothing more happens on it. (A host that fails ends with `StepFailed`.)
    HostFinished {
        /// In one word: `ready`, `removed`.
        state: String,
    },
    /// Something that a person should know and that stops nothing.
    Warned {
        /// In one sentence.
        sentence: String,
    },
    /// What is different on a host that was given back: all of it, where a person is warned of the first of it.
    Differs {
        /// Each in one line.
        differences: Vec<String>,
    },
    /// Something worth saying: one line.
    Said {
        /// In one line.
        sentence: String,
    },
    /// The run ended.
    RunFinished {
        /// How long it took, in milliseconds.
        milliseconds: u64,
        /// How many things were altered on all hosts.
        changes: u32,
        /// Hosts that did not finish, with the reason.
        failed: Vec<Failure>,
    },
}

/// What progress is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: files, images, nodes.
    Items,
}

/// Where events go. Cheap to clone; sending never blocks and never fails (a consumer that is gone misses them).
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::UnboundedSender<Event>,
    host: Option<String>,
}

impl Events {
    /// A pair: the place to send to, and the receiver for the consumer.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, host: None }, receiver)
    }

    /// A place nobody listens to, for callers that do not care.
    pub fn nowhere() -> Self {
        Self::channel().0
    }

    /// The same place with the host's name stamped on everything.
    pub fn of_host(&self, host: impl Into<String>) -> Self {
        Self { sender: self.sender.clone(), host: Some(host.into()) }
    }

    /// Sends what happened.
    pub fn send(&self, what: What) {
        let _ = self.sender.send(Event { host: self.host.clone(), what });
    }

    /// Begins a step; the returned value ends it.
    pub fn step(&self, id: &str, title: &str) -> Step {
        self.send(What::StepStarted { step: id.into(), title: title.to_owned() });
        Step { events: self.clone(), id: id.into(), started: std::time::Instant::now(), changes: 0 }
    }

    /// Says something that stops nothing.
    pub fn warn(&self, sentence: impl Into<String>) {
        self.send(What::Warned { sentence: sentence.into() });
    }
}

/// A step under way. End it with [`Step::finish`] or [`Step::fail`].
#[derive(Debug)]
pub struct Step {
    events: Events,
    id: StepId,
    started: std::time::Instant,
    changes: u32,
}

impl Step {
    /// Reports one thing that was altered.
    pub fn changed(&mut self, change: impl Into<String>) {
        self.changes += 1;
        self.events.send(What::Changed { step: self.id.clone(), change: change.into() });
    }

    /// Reports progress.
    pub fn progress(&self, done: u64, total: u64, unit: Unit, item: Option<&str>) {
        let item = item.map(str::to_owned);
        self.events.send(What::StepProgressed { step: self.id.clone(), done, total, unit, item });
    }

    /// How many things were altered so far.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Ends the step well.
    pub fn finish(self) {
        let milliseconds = elapsed_milliseconds(self.started.elapsed());
        self.events.send(What::StepFinished { step: self.id, changes: self.changes, milliseconds });
    }

    /// Ends the step badly and hands the failure back for `?`.
    pub fn fail(self, failure: Failure) -> Failure {
        self.events.send(What::StepFailed { step: self.id, failure: failure.clone() });
        failure
    }

    /// Ends the step by the result of its work.
    pub fn end<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Ok(value) => {
                self.finish();
                Ok(value)
            }
            Err(failure) => Err(self.fail(failure)),
        }
    }
}

/// Whole milliseconds of a duration.
pub fn elapsed_milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
