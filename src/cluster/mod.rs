//! Many hosts: `up`, `down` and what belongs to them, as literal tables of steps.

mod access;
mod adopt;
mod board;
mod check;
mod connect;
mod documents;
mod down;
mod findings;
mod finish;
mod kubectl;
mod lane;
mod lost;
mod plan;
mod play;
mod preview;
mod prune;
mod remove;
mod report;
mod rollout;
mod status;
mod tolerance;
mod up;

pub use self::adopt::from_cluster;
pub use self::check::{Verdict, check};
pub use self::connect::{Session, Settings};
pub use self::down::{Down, down};
pub use self::findings::Finding;
pub use self::kubectl::kubectl;
pub use self::play::run;
pub use self::preview::preview;
pub use self::prune::prune;
pub use self::remove::remove;
pub use self::report::{Report, report};
pub use self::status::{HostStatus, Status, status};
pub use self::tolerance::Tolerance;
pub use self::up::{Approve, HostOutcome, Options, Outcome, State, up};
