//! `clusterctl agent`: our process on a host, started by another clusterctl through SSH.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::AsyncReadExt as _;

use crate::agent::{self, Store, Stripes};
use crate::failure::{Failure, Kind, Result};
use crate::host::machine::Machine;

/// Arguments of `agent`; everything else comes in messages on standard input.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Messages to answer before those on standard input, in base64
    #[arg(long, value_name = "MESSAGES", conflicts_with_all = ["receive", "stripe"])]
    pub asked: Option<String>,
    /// Receive blobs instead of messages
    #[arg(long)]
    pub receive: bool,
    /// Receive them on several channels, which join under this name
    #[arg(long, value_name = "NAME", requires = "receive")]
    pub striped: Option<u32>,
    /// Be one more channel of the receiver of this name
    #[arg(long, value_name = "NAME", conflicts_with = "receive")]
    pub stripe: Option<u32>,
}

/// Serves until standard input ends.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.receive && arguments.stripe.is_none() {
        let asked = arguments.asked.as_deref().unwrap_or_default();
        let asked = URL_SAFE_NO_PAD.decode(asked).map_err(|error| {
            Failure::new(Kind::Internal, "the agent was started with messages that are none").because(&error)
        })?;
        agent::serve(std::io::Cursor::new(asked).chain(tokio::io::stdin()), tokio::io::stdout()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let (striped, stripe) = (arguments.striped, arguments.stripe);
    // In a thread of its own: bytes go through no task of the runtime.
    let receiving = tokio::task::spawn_blocking(move || {
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let store = Store::of_this_host();
        match (stripe, striped) {
            (Some(name), _) => agent::join(name, stdin, stdout.lock()),
            (None, Some(name)) => agent::receive(Stripes::open(name, stdin)?, stdout.lock(), &Machine, &store),
            (None, None) => agent::receive(stdin.lock(), stdout.lock(), &Machine, &store),
        }
    });
    receiving.await.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "receiving ended early")))?;
    Ok(ExitCode::SUCCESS)
}
