//! `clusterctl down`: take the cluster away and give the machines back.

use std::process::ExitCode;

use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::ui::Summary;

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

/// Takes the cluster away.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    confirm(arguments, context, &inventory.cluster.name, inventory.hosts.len()).await?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let result = cluster::down(&inventory, &login::settings(context, &arguments.login, &events)).await;
    drop(events);
    let run = display.finish().await;
    let down = result?;
    let mut summary = Summary::of(&run, &inventory);
    let name = &inventory.cluster.name;
    summary.headline = if down.failures.is_empty() {
        format!("Cluster {name} is gone: its hosts are as they were")
    } else {
        format!("Cluster {name} is not gone everywhere")
    };
    summary.failed = down.failures;
    context.screen.summary(&summary);
    Ok(summary.exit_code())
}
