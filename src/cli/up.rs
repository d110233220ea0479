//! `clusterctl up`: make the cluster, or bring it to what the inventory says.

use std::path::PathBuf;

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
