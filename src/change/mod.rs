//! Changes: what a step would alter, one thing each, in a form that a person and a program can read before it is made.
//!
//! They are gathered from dry runs (the overlay host, the played API server) and cross from a host to the laptop inside
//! messages; what is secret in them has been masked before ([`crate::mask`]).

mod diff;
mod preview;

use serde::{Deserialize, Serialize};

pub use self::diff::{Difference, difference};
pub use self::preview::{Grouped, HostPreview, Preview};

/// What sort of thing a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A phase of the node engine, under kubeadm's name.
    Phase,
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A kernel parameter.
    Sysctl,
    /// A kernel module.
    Module,
    /// A unit of systemd.
    Unit,
    /// A file of the bundle.
    Package,
    /// Images of the bundle.
    Image,
    /// A program that is run.
    Command,
    /// An object of the cluster's API.
    Object,
    /// A node of the cluster.
    Node,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is altered.
    Update,
    /// It goes.
    Remove,
    /// It is done: a phase, a program.
    Run,
}

/// One thing that would be altered. Texts may come from hosts and are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// What sort of thing.
    pub kind: Kind,
    /// What becomes of it.
    pub action: Action,
    /// Which: a path, a unit's name, `ConfigMap kube-system/kubeadm-config`.
    pub subject: String,
    /// More in a few words: permission bits, a size, `from 0 to 1`; empty where there is nothing to say.
    pub detail: String,
    /// Unified diff of its text; absent where there is no text, or nothing of it may be shown.
    pub diff: Option<String>,
    /// Whether something that runs is interrupted by it.
    pub disrupts: bool,
}

impl Change {
    /// A change that disrupts nothing and has no diff.
    pub fn new(kind: Kind, action: Action, subject: impl Into<String>) -> Self {
        Self { kind, action, subject: subject.into(), detail: String::new(), diff: None, disrupts: false }
    }

    /// With more in a few words.
    pub fn detailed(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With a difference of texts: its diff, or in words why there is none.
    pub fn with(mut self, difference: Difference) -> Self {
        match difference {
            Difference::Text(diff) => self.diff = Some(diff),
            Difference::Words(words) if self.detail.is_empty() => self.detail = words,
            Difference::Words(words) => self.detail = format!("{}, {words}", self.detail),
            Difference::None => {}
        }
        self
    }

    /// Interrupting something that runs, if so.
    pub fn disrupting(mut self, disrupts: bool) -> Self {
        self.disrupts = disrupts;
        self
    }
}

/// The changes of one step, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Section {
    /// The step's id, that of the events of a real run.
    pub step: String,
    /// Its title.
    pub title: String,
    /// What it would alter.
    pub changes: Vec<Change>,
    /// What is not known before it is done; sentences without a full stop.
    pub unknown: Vec<String>,
}

impl Section {
    /// A step with nothing in it yet.
    pub fn new(step: impl Into<String>, title: impl Into<String>) -> Self {
        Self { step: step.into(), title: title.into(), ..Self::default() }
    }

    /// With what a request would do.
    pub fn with(mut self, changes: Vec<Change>, unknown: Vec<String>) -> Self {
        self.changes.extend(changes);
        self.unknown.extend(unknown);
        self
    }

    /// Whether there is nothing to say about it.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.unknown.is_empty()
    }
}
