//! `up --prune`: nodes whose line was deleted from the inventory leave the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;

use super::access::Api;
use super::connect::{Settings, connect_to_control_plane};
use super::down::Down;
use super::remove::remove;
use crate::api::{self, NodeStatus};
use crate::failure::Result;
use crate::inventory::{Host, Inventory, Role};

/// Asked whether these nodes may go.
pub type Ask<'a> = dyn Fn(Vec<String>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'a;

/// Which nodes a person lets go.
#[derive(Clone, Copy)]
pub struct Consent<'a> {
    /// Names that were shown and agreed to.
    pub given: &'a BTreeSet<String>,
    /// Asks for others, and says why not; without it all may go.
    pub ask: Option<&'a Ask<'a>>,
}

impl Consent<'_> {
    /// Sees that nobody goes whom a person was not told of: what the cluster says of its nodes may be more than it said, or
    /// could say, when the run began.
    async fn to(self, names: &[String]) -> Result<()> {
        let unnamed: Vec<String> = names.iter().filter(|name| !self.given.contains(*name)).cloned().collect();
        match self.ask {
            Some(ask) if !unnamed.is_empty() => ask(unnamed).await,
            _ => Ok(()),
        }
    }
}

/// Takes nodes that the inventory does not name out of the cluster, as `down --host` does it with those it names: emptied,
/// within `drain`, reset, forgotten. They are reached at their node's address as the inventory's first host is. `None`
/// when there is none.
///
/// # Errors
/// As [`remove`], and why a node that nobody agreed to may not go: then none does.
pub async fn prune(
    inventory: &Inventory,
    consent: Consent<'_>,
    drain: Option<Duration>,
    settings: &Settings,
) -> Result<Option<Down>> {
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
    consent.to(&names).await?;
    let mut whole = inventory.clone();
    whole.hosts.extend(leaving);
    remove(&whole, &names, drain, settings).await.map(Some)
}

/// Nodes of the cluster that the inventory does not name.
pub(super) fn strangers<'a>(inventory: &'a Inventory, nodes: &'a [NodeStatus]) -> impl Iterator<Item = &'a NodeStatus> {
    nodes.iter().filter(|node| is_strange(inventory, &node.name))
}

/// Whether the inventory does not name a node.
pub(super) fn is_strange(inventory: &Inventory, node: &str) -> bool {
    inventory.hosts.iter().all(|host| host.name != node)
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

    use rstest::rstest;

    use super::{Ask, Consent, host, strangers};
    use crate::api::NodeStatus;
    use crate::failure::{Failure, Kind, Result};
    use crate::inventory::{self, Role};

    #[rstest]
    #[case::all_were_named("a b", "a b", None)]
    #[case::fewer_are_there("a b", "a", None)]
    #[case::nobody_could_be_named("", "a b", Some("a b"))]
    #[case::one_came_since("a", "a b", Some("b"))]
    #[tokio::test]
    async fn nobody_goes_who_was_not_named(#[case] given: &str, #[case] names: &str, #[case] asked: Option<&str>) {
        let given = given.split_whitespace().map(str::to_owned).collect();
        let refuse = |names: Vec<String>| -> futures::future::BoxFuture<'_, Result<()>> {
            Box::pin(async move { Err(Failure::new(Kind::Interrupted, names.join(" "))) })
        };
        let ask: &Ask<'_> = &refuse;
        let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        let consent = Consent { given: &given, ask: Some(ask) };
        let refused = consent.to(&names).await.err().map(|failure| failure.sentence);
        assert_eq!(refused.as_deref(), asked);
        // Who is not to be asked has said yes to all of them.
        assert_eq!(Consent { ask: None, ..consent }.to(&names).await, Ok(()));
    }

    fn node(name: &str, roles: &[&str]) -> NodeStatus {
        NodeStatus {
            addresses: vec!["10.0.0.99".parse().unwrap()],
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..NodeStatus::plain(name, true)
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
