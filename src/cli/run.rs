//! `clusterctl run`: a person's own playbook on the hosts.

use std::path::PathBuf;
use std::process::ExitCode;

use super::exec::On;
use super::login::Patience;
use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::Result;
use crate::ui::Summary;

/// Arguments of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The playbook
    #[arg(value_name = "PLAYBOOK", value_hint = clap::ValueHint::FilePath)]
    pub playbook: PathBuf,
    /// Which hosts.
    #[command(flatten)]
    pub on: On,
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
    let inventory = login::chosen(context, &arguments.login, &arguments.on.selector(), true).await?;
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
