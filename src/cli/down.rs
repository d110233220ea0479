//! `clusterctl down`: take the cluster away and give the machines back.

use std::process::ExitCode;

use super::login::Patience;
use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::Duration;
use crate::ui::Summary;
use crate::ui::text::count;

/// Arguments of `down`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Do not ask; needed without a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Take only this host out, of a cluster that goes on; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// With --host: how long pods may take to leave the host, as far as their disruption budgets let them
    #[arg(long, value_name = "DURATION", value_parser = str::parse::<Duration>, default_value = "5m0s", requires = "hosts")]
    pub drain_limit: Duration,
    /// With --host: let the host's pods end with it, instead of having them leave first
    #[arg(long, conflicts_with = "drain_limit", requires = "hosts")]
    pub no_drain: bool,
    /// Leave etcd's data in /var/lib/etcd
    #[arg(long, conflicts_with = "hosts")]
    pub keep_data: bool,
    /// What to do while another run holds the hosts.
    #[command(flatten)]
    pub patience: Patience,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

impl Arguments {
    /// How long pods may take to leave; `None` when they need not.
    fn drain(&self) -> Option<std::time::Duration> {
        (!self.no_drain).then_some(self.drain_limit.0)
    }
}

/// Asks whether the cluster shall really go; returns if so.
///
/// # Errors
/// Kind [`Kind::Usage`] without a terminal to ask on; kind [`Kind::Interrupted`] if the answer is no.
pub async fn confirm(arguments: &Arguments, context: &Context, cluster: &str, hosts: usize) -> Result<()> {
    if arguments.yes {
        return Ok(());
    }
    let question = match arguments.hosts.as_slice() {
        [] => format!("Remove cluster {cluster} and all its data from {hosts} hosts?"),
        some => format!("Take {} out of cluster {cluster}?", some.join(", ")),
    };
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
    let mut settings = login::settings(context, &arguments.login, &events);
    settings.patience = arguments.patience.duration();
    let result = match arguments.hosts.as_slice() {
        [] => cluster::down(&inventory, arguments.keep_data, &settings).await,
        some => cluster::remove(&inventory, some, arguments.drain(), &settings).await,
    };
    drop((events, settings));
    let run = display.finish().await;
    let down = result?;
    let mut summary = Summary::of(&run, &inventory);
    let name = &inventory.cluster.name;
    let some = arguments.hosts.join(", ");
    summary.headline = match (down.failures.is_empty(), some.is_empty()) {
        (true, true) if down.residue > 0 => {
            format!(
                "Cluster {name} is gone; different from before on its hosts: {}",
                count(down.residue as u64, "thing")
            )
        }
        (true, true) => format!("Cluster {name} is gone: its hosts are as they were"),
        (false, true) => format!("Cluster {name} is not gone everywhere"),
        (true, false) => format!("Cluster {name} goes on without {some}"),
        (false, false) => format!("Cluster {name} still has some of {some}"),
    };
    summary.failed = down.failures;
    context.screen.summary(&summary);
    Ok(summary.exit_code())
}
