//! Many hosts: `up`, `down` and what belongs to them, as literal tables of steps.

mod access;
mod board;
mod connect;
pub mod copy;
mod documents;
mod down;
pub mod exec;
mod finish;
mod kubectl;
mod lane;
mod plan;
mod play;
mod remove;
mod shell;
mod status;
mod tunnel;
mod up;

pub use self::connect::{Session, Settings, Transport};
pub use self::down::{Down, down};
pub use self::kubectl::kubectl;
pub use self::play::run;
pub use self::remove::remove;
pub use self::shell::shell;
pub use self::status::{HostStatus, Status, status};
pub use self::tunnel::Tunnel;
pub use self::up::{HostOutcome, Outcome, State, up};
