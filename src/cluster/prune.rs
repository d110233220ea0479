//! `up --prune`: nodes whose line was deleted from the inventory leave the cluster.

use std::time::Duration;

use super::access::Api;
use super::connect::{Settings, connect_to_control_plane};
use super::down::Down;
use super::remove::remove;
use crate::api::{self, NodeStatus};
use crate::failure::Result;
use crate::inventory::{Host, Inventory, Role};

/// Takes nodes that the inventory does not name out of the cluster, as `down --host` does it with those it names: emptied,
/// within `drain`, reset, forgotten. They are reached at their node's address as the inventory's first host is. `None`
/// when there is none.
///
/// # Errors
/// As [`remove`].
pub async fn prune(inventory: &Inventory, drain: Option<Duration>, settings: &Settings) -> Result<Option<Down>> {
    let nodes = {
        let session = connect_to_control_plane(inventory, settings).await?;
        let api = Api::open(&session).await?;
        api::nodes(&api).await?
    };
    let leaving: Vec<Host> = strangers(inventory, &nodes).filter_map(|node| host(inventory, node)).collect();
    if leaving.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = leaving.iter().map(|host| host.name.clone()).collect();
    let mut whole = inventory.clone();
    whole.hosts.extend(leaving);
    remove(&whole, &names, drain, settings).await.map(Some)
}

/// Nodes of the cluster that the inventory does not name.
pub(super) fn strangers<'a>(inventory: &'a Inventory, nodes: &'a [NodeStatus]) -> impl Iterator<Item = &'a NodeStatus> {
    nodes.iter().filter(|node| inventory.hosts.iter().all(|host| host.name != node.name))
}

/// The line that a node would have in the inventory.
fn host(inventory: &Inventory, node: &NodeStatus) -> Option<Host> {
    let address = *node.addresses.first()?;
    let first = inventory.hosts.first()?;
    let mut ssh = first.ssh.clone();
    // That key is the first host's own.
    ssh.host_key.clear();
    let control_plane = node.roles.iter().any(|role| role == "control-plane");
    Some(Host {
        name: node.name.clone(),
        address: address.to_string(),
        node_address: Some(address),
        role: if control_plane { Role::ControlPlane } else { Role::Worker },
        labels: Default::default(),
        groups: Default::default(),
        taints: None,
        ssh,
        line: first.line,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{host, strangers};
    use crate::api::NodeStatus;
    use crate::inventory::{self, Role};

    fn node(name: &str, roles: &[&str]) -> NodeStatus {
        NodeStatus {
            name: name.into(),
            ready: true,
            reason: String::new(),
            version: String::new(),
            pod_networks: Vec::new(),
            addresses: vec!["10.0.0.99".parse().unwrap()],
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            taints: Vec::new(),
            labels: Default::default(),
        }
    }

    #[test]
    fn nodes_without_a_line_are_reached_as_the_others() {
        let text = "ssh: {user: ops, port: 2222}\nhosts: {cp1: {address: 10.0.0.11, role: control-plane}, w1: }\n";
        let inventory = inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"));
        let nodes = [node("cp1", &["control-plane"]), node("old", &[]), node("cp9", &["control-plane"])];
        let hosts: Vec<_> = strangers(&inventory, &nodes).filter_map(|node| host(&inventory, node)).collect();
        assert_eq!(
            hosts.iter().map(|host| (host.name.as_str(), host.role)).collect::<Vec<_>>(),
            [("old", Role::Worker), ("cp9", Role::ControlPlane)]
        );
        assert_eq!(
            (hosts[0].address.as_str(), hosts[0].ssh.user.as_str(), hosts[0].ssh.port),
            ("10.0.0.99", "ops", 2222)
        );
    }
}
