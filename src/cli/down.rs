//! `clusterctl down`: take the cluster away and give the machines back.

use super::Context;
use super::up::Login;
use crate::failure::{Failure, Kind, Result};

/// Arguments of `down`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Do not ask; needed without a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Asks whether the cluster shall really go; returns if so.
///
/// # Errors
/// Kind [`Kind::Usage`] without a terminal to ask on; kind [`Kind::Interrupted`] if the answer is no.
pub async fn confirm(arguments: &Arguments, context: &Context, cluster: &str, hosts: usize) -> Result<()> {
    if arguments.yes {
        return Ok(());
    }
    let question = format!("Remove cluster {cluster} and all its data from {hosts} hosts?");
    match context.prompts.confirm(&question).await {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Kind::Interrupted, format!("cluster {cluster} is left as it is"))),
        None => {
            context.cancel.check()?;
            Err(Failure::new(Kind::Usage, "there is no terminal to ask on whether the cluster shall be removed")
                .advise("add --yes if it shall"))
        }
    }
}
