//! `clusterctl kubectl`: kubectl on a control plane, through the connection.

use super::up::Login;

/// Arguments of `kubectl`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
    /// What kubectl is to do: clusterctl kubectl -- get nodes
    #[arg(last = true, required = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}
