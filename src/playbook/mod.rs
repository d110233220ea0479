//! Our own typed task language: each task is a pure plan and a short apply.
//!
//! A play is YAML on the laptop ([`load`]), crosses to a host whole ([`PlayOrder`](crate::message::PlayOrder)) and runs there
//! ([`run`]). For each task the host is observed, `plan(task, observation)` gives the changes, and each change is recorded
//! in the journal and applied. No change is what idempotence is; a dry run ends after the plan.

pub mod builtin;
mod change;
mod load;
mod model;
mod run;
mod tasks;
mod template;

pub use change::Change;
pub use load::{load, order};
pub use model::{
    Action, Command, Directory, File, Image, Link, Mode, Module, Play, Repeat, Require, StateOfUnit, Swap, Sysctl, Task,
    Template, Unit, Unpack,
};
pub use run::run;
pub use tasks::{Observation, Seen, plan};
