//! `clusterctl run`: a person's own playbook on the hosts.

use std::path::PathBuf;
use std::process::ExitCode;

use super::login::Patience;
use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Inventory;
use crate::ui::Summary;

/// Arguments of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The playbook
    #[arg(value_name = "PLAYBOOK", value_hint = clap::ValueHint::FilePath)]
    pub playbook: PathBuf,
    /// Only on these hosts; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Say what would change and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// What to do while another run holds the hosts.
    #[command(flatten)]
    pub patience: Patience,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Runs the playbook.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let mut inventory = login::inventory(context, &arguments.login).await?;
    select(&mut inventory, &arguments.hosts)?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let mut settings = login::settings(context, &arguments.login, &events);
    settings.patience = arguments.patience.duration();
    let result = cluster::run(&inventory, &arguments.playbook, arguments.dry_run, &settings).await;
    drop((events, settings));
    let run = display.finish().await;
    let done = result?;
    let mut summary = Summary::of(&run, &inventory);
    summary.headline = match (done.failures.is_empty(), arguments.dry_run) {
        (true, true) => "The playbook would do this; nothing was altered".to_owned(),
        (true, false) => "The playbook is done".to_owned(),
        (false, _) => "The playbook is not done everywhere".to_owned(),
    };
    summary.failed = done.failures;
    context.screen.summary(&summary);
    Ok(summary.exit_code())
}

/// Leaves only the named hosts; none named means all.
fn select(inventory: &mut Inventory, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| inventory.hosts.iter().all(|host| host.name != **name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::new(Kind::Usage, format!("the inventory has no host {}", unknown.join(", ")))
            .advise("name hosts as the inventory does"));
    }
    inventory.hosts.retain(|host| names.contains(&host.name));
    Ok(())
}
