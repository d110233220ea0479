//! `clusterctl up`: make the cluster, or bring it to what the inventory says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::{Context, login};
use crate::bundle::{Bundle, Manifest};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Fetch, Inventory};
use crate::ui::Summary;

/// Arguments of `up`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Go on without asking
    #[arg(short, long)]
    pub yes: bool,
    /// The bundle with the Kubernetes version to install; instead of the one the inventory names
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// How hosts are reached; the same for all verbs that connect.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options for SSH")]
pub struct Login {
    /// Accept the keys of hosts that are not in known_hosts yet and remember them; a changed key is still refused
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// How many hosts to log in to at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub parallel: u16,
    /// Ask for the login password on the terminal, once for all hosts
    #[arg(long)]
    pub ask_password: bool,
    /// Ask for the password of sudo on the terminal, once for all hosts
    #[arg(long)]
    pub ask_become_password: bool,
}

/// Makes the cluster.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let bundle = Arc::new(match inventory.transfer.fetch {
        Fetch::Bundle => Bundle::open(&bundle_path(arguments.bundle.as_deref(), &inventory)?)?,
        Fetch::OnHost => Bundle::on_hosts(Manifest::empty(&inventory.cluster.kubernetes)),
    });
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let result = cluster::up(&inventory, bundle, &login::settings(context, &arguments.login, &events)).await;
    drop(events);
    let run = display.finish().await;
    let mut summary = Summary::of(&run, &inventory);
    match result {
        Ok(outcome) => {
            summary.headline = headline(&inventory, &outcome);
            summary.next = outcome
                .kubeconfig
                .as_ref()
                .map(|_| format!("clusterctl kubectl -i {} -- get nodes", context.inventory.display()));
            summary.kubeconfig = outcome.kubeconfig;
            summary.failed = outcome.failures;
        }
        Err(failures) => {
            summary.headline = format!("Cluster {} was not begun: no host was altered", inventory.cluster.name);
            summary.failed = failures;
        }
    }
    context.screen.summary(&summary);
    Ok(summary.exit_code())
}

fn headline(inventory: &Inventory, outcome: &cluster::Outcome) -> String {
    let name = &inventory.cluster.name;
    match (outcome.failures.is_empty(), outcome.changes()) {
        (true, 0) => format!("Cluster {name} is as the inventory wants it: nothing was to do"),
        (true, _) => format!("Cluster {name} is ready"),
        (false, _) => format!("Cluster {name} is not finished"),
    }
}

/// The bundle that was typed, else the inventory's.
pub(super) fn bundle_path(typed: Option<&Path>, inventory: &Inventory) -> Result<PathBuf> {
    typed.map(Path::to_owned).or_else(|| inventory.cluster.bundle.clone()).ok_or_else(|| {
        Failure::new(Kind::Bundle, "no bundle was named")
            .advise("name one with --bundle FILE or `cluster.bundle`, or make one with `clusterctl bundle create`")
    })
}
