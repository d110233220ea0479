//! `clusterctl status`: hosts and nodes side by side.

use super::up::Login;

/// Arguments of `status`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}
