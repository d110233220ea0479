//! `clusterctl balancer`: the way from a node to the API servers, started by systemd.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use crate::balancer;
use crate::event::{Events, What};
use crate::failure::Result;

/// Arguments of `balancer`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// The list of API servers, one address:port a line; read again when it changes
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub servers: PathBuf,
}

/// Serves until it is told to end.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let (events, mut happened) = Events::channel();
    let said = async {
        // Written down one by one and forgotten: it runs for years.
        while let Some(event) = happened.recv().await {
            match event.what {
                What::Warned { sentence } => context.screen.warn(&sentence),
                What::Said { sentence } => context.screen.say(&sentence),
                _ => {}
            }
        }
    };
    tokio::select! {
        served = balancer::serve(arguments.listen, &arguments.servers, &events) => served?,
        () = said => {}
        () = context.cancel.cancelled() => {}
    }
    Ok(ExitCode::SUCCESS)
}
