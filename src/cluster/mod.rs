//! Many hosts: `up`, `down` and what belongs to them, as literal tables of steps.

mod access;
mod board;
mod connect;
mod documents;
mod down;
mod fetch;
mod finish;
mod kubectl;
mod lane;
mod plan;
mod play;
mod push;
mod remove;
mod spread;
mod status;
mod up;

pub use self::connect::{Session, Settings};
pub use self::down::{Down, down};
pub use self::kubectl::kubectl;
pub use self::play::run;
pub use self::push::{Pushed, push};
pub use self::remove::remove;
pub use self::status::{HostStatus, Status, status};
pub use self::up::{HostOutcome, Outcome, State, up};
