//! One host from the laptop: starting the agent, talking to it, sending blobs, a tunnel to the API.

mod agent;
mod program;
mod start;
mod transfer;
mod tunnel;

pub use self::agent::Agent;
pub use self::program::Programs;
pub use self::start::{Privilege, Start};
pub use self::transfer::{Progress, send, wanted};
pub use self::tunnel::Tunnel;
