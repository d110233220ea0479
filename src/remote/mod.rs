//! One host from the laptop: starting the agent, talking to it, sending blobs, a tunnel to the API, and commands of a
//! person without an agent.

mod agent;
mod command;
mod file;
mod privilege;
mod program;
mod quote;
mod start;
mod terminal;
mod transfer;
mod tunnel;

pub use self::agent::Agent;
pub use self::command::{Begun, Command, interrupt};
pub use self::file::{Download, Kept, Upload};
pub use self::privilege::Privilege;
pub use self::program::Programs;
pub use self::quote::quote;
pub use self::start::Start;
pub use self::transfer::{Progress, send, wanted};
pub use self::tunnel::Tunnel;
