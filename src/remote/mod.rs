//! One host from the laptop: starting the agent, talking to it, sending blobs (or having other hosts hand them on), a
//! tunnel to the API, and commands of a person without an agent.

mod agent;
mod command;
mod file;
mod pipe;
mod privilege;
mod program;
mod quote;
mod receiver;
mod relay;
mod shares;
mod start;
mod supply;
mod terminal;
mod transfer;
mod tunnel;
mod uplink;

pub use self::agent::{Agent, Asked, Lives, Opening};
pub use self::command::{Begun, Command, Started, interrupt};
pub use self::file::{Download, Kept, Upload};
pub use self::pipe::is_far;
pub use self::privilege::Privilege;
pub use self::program::{Program, Programs};
pub use self::quote::quote;
pub use self::relay::Relay;
pub use self::start::Start;
pub use self::supply::{Supply, Worth};
pub use self::transfer::{Delivery, Progress, Receiving, wanted};
pub use self::tunnel::Tunnel;
pub use self::uplink::Uplink;
