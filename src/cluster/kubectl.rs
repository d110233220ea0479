//! `kubectl`: the cluster's own kubectl, run on a control plane through the connection.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::connect::{Session, Settings, connect_to_control_plane};
use super::exec::{Order, conduct};
use super::shell::line;
use crate::failure::{Failure, Result};
use crate::inventory::Inventory;
use crate::remote::Command;
use crate::ssh::{Channel, Chunk, Exit, Terminal};

/// Where kubectl is looked for, how it logs in, and where it keeps what it learned about the API: its cache would stay in
/// root's home after `down`; in our folder it goes with the rest.
const SURROUNDINGS: [&str; 4] = [
    "env",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin",
    "KUBECONFIG=/etc/kubernetes/admin.conf",
    "KUBECACHEDIR=/var/lib/clusterctl/kubectl",
];

fn words(arguments: &[String]) -> Vec<String> {
    SURROUNDINGS.iter().copied().chain(["kubectl"]).map(str::to_owned).chain(arguments.iter().cloned()).collect()
}

/// Runs kubectl with the admin's rights on a control plane that serves, else on one that is there. Input goes to it as it
/// comes, and what it prints to `told`. When the end is asked for (`settings.cancel`), it is ended there.
///
/// # Errors
/// Kind `Connection` and its kin when no control plane can be reached; kind `Interrupted`.
pub async fn kubectl(
    inventory: &Inventory,
    settings: &Settings,
    arguments: &[String],
    input: mpsc::Receiver<Bytes>,
    told: mpsc::Sender<Chunk>,
) -> Result<Exit> {
    let session = connect_to_control_plane(inventory, settings).await?;
    // The agent runs beside it, and takes what kubectl keeps away where there is no cluster of ours.
    let order = Order { command: Command { words: words(arguments), root: true, alone: false }, limit: None };
    let start = &session.start;
    conduct(&start.connection, &start.privilege, &order, input, &settings.cancel, (&told, &|chunk| chunk))
        .await
        .map_err(|failure: Failure| failure.on(&session.host.name))
}

/// As [`kubectl`], on a terminal there. The session ends when kubectl has.
///
/// # Errors
/// As [`kubectl`].
pub async fn kubectl_on_terminal(
    inventory: &Inventory,
    settings: &Settings,
    arguments: &[String],
    terminal: &Terminal,
) -> Result<(Channel, Session)> {
    let session = connect_to_control_plane(inventory, settings).await?;
    let command = line(&words(arguments), session.host.ssh.become_root);
    let channel = session.start.connection.terminal(terminal, command.as_deref()).await?;
    Ok((channel, session))
}
