//! `kubectl`: the cluster's own kubectl, run on a control plane through the connection.

use std::collections::BTreeMap;

use super::connect::{Settings, connect_to_control_plane};
use crate::failure::Result;
use crate::inventory::Inventory;
use crate::message::{Ran, Request, RunOrder};

/// A kubectl command may take this long, in seconds.
const LIMIT_SECONDS: u64 = 3600;

/// What kubectl learned about the API, on the control plane.
const CACHE: &str = "/var/lib/clusterctl/kubectl";

/// Runs kubectl with the admin's rights on a control plane that serves, else on one that is there.
///
/// # Errors
/// Kind `Connection` and its kin when no control plane can be reached; what kubectl says is in [`Ran`].
pub async fn kubectl(inventory: &Inventory, settings: &Settings, arguments: &[String], input: Vec<u8>) -> Result<Ran> {
    let session = connect_to_control_plane(inventory, settings).await?;
    let mut words = vec!["kubectl".to_owned()];
    words.extend_from_slice(arguments);
    // Its cache would stay in root's home after `down`; in our folder it goes with the rest.
    let environment = [("KUBECONFIG", "/etc/kubernetes/admin.conf"), ("KUBECACHEDIR", CACHE)];
    let environment = BTreeMap::from(environment.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let order = RunOrder { arguments: words, environment, input, limit_seconds: LIMIT_SECONDS };
    session.agent.ask(Request::Run(order)).await
}
