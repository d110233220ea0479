//! `clusterctl run`: a person's own playbook on the hosts.

use std::path::PathBuf;

use super::up::Login;

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
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}
