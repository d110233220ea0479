//! One host from the laptop: starting the agent, talking to it, sending blobs (or having other hosts hand them on), a
//! tunnel to the API.

mod agent;
mod pipe;
mod program;
mod relay;
mod start;
mod transfer;
mod tunnel;
mod uplink;

pub use self::agent::Agent;
pub use self::program::Programs;
pub use self::relay::Relay;
pub use self::start::{Privilege, Start};
pub use self::transfer::{Delivery, Progress, send, wanted};
pub use self::tunnel::Tunnel;
pub use self::uplink::Uplink;
