//! Our own typed task language: what a host shall be, as a list of tasks.
//!
//! A task is observed, planned and applied: `observe` looks at what the task is about, `plan` is a pure function from the
//! task and what was seen to the changes that are missing (none: it is so already), `apply` makes one change and records
//! in the journal what was there before. A whole play crosses to a host in one message.
//!
//! ```text
//! load      YAML -> Play, every mistake at its line and column
//! builtin   the plays that `up` runs, and their templates
//! action    the kinds of task and their arguments
//! render    {{ expressions }} in arguments, `when`, `loop`
//! observe   what is there                plan    what is missing (pure)
//! apply     one change                   run     a play on this host
//! ```

mod action;
mod apply;
mod archive;
mod builtin;
#[cfg(test)]
mod cases;
mod load;
mod observe;
mod plan;
mod render;
mod run;
mod units;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::action::{Action, KINDS};
pub use self::builtin::builtin;
pub use self::load::{Loaded, load, load_file};
pub use self::run::run;

/// A play: tasks in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Play {
    /// What it is for, in one line.
    pub name: String,
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// One task, as written: expressions are not evaluated yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What it is for; its kind and subject when absent.
    pub name: Option<String>,
    /// An expression; the task is left out where it is false.
    pub when: Option<String>,
    /// Run once for each, as `item`.
    pub repeat: Option<Repeat>,
    /// Name of the kind: `file`, `unit`...
    pub kind: String,
    /// The arguments as written.
    pub arguments: Value,
    /// Where it stands: `playbooks/prepare.yaml:12`.
    pub place: String,
}

/// What a task is repeated for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// These values.
    Items(Vec<Value>),
    /// The list that an expression gives.
    Expression(String),
}
