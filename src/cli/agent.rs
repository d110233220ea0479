//! `clusterctl agent`: our process on a host, started by another clusterctl through SSH.

use std::process::ExitCode;

use crate::agent;
use crate::failure::{Failure, Kind, Result};
use crate::host::machine::Machine;

/// Arguments of `agent`; everything else comes in messages on standard input.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Receive blobs instead of messages
    #[arg(long)]
    pub receive: bool,
}

/// Serves until standard input ends.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.receive {
        // Locked once in its own thread: bytes go through no task of the runtime.
        let receiving =
            tokio::task::spawn_blocking(|| agent::receive(std::io::stdin().lock(), std::io::stdout().lock(), &Machine));
        receiving.await.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "receiving ended early")))?;
    } else {
        agent::serve(tokio::io::stdin(), tokio::io::stdout()).await?;
    }
    Ok(ExitCode::SUCCESS)
}
