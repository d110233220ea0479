//! `status`: hosts and nodes side by side.

use super::access::Api;
use super::connect::{Access, Settings, connect};
use crate::api;
use crate::failure::{Failure, Result};
use crate::inventory::{Inventory, Role};

/// A host of the inventory and the node it is, or a node without a host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostStatus {
    /// Name of the host, or of the node that is in no inventory.
    pub name: String,
    /// Where SSH reaches it; empty for a node without a host.
    pub address: String,
    /// Its role in the inventory.
    pub role: Option<Role>,
    /// Why the host cannot be reached, if so.
    pub unreachable: Option<Failure>,
    /// The operating system as it calls itself.
    pub system: String,
    /// The node, if the cluster has one of this name.
    pub node: Option<api::NodeStatus>,
}

/// Hosts and nodes of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Hosts in inventory order, then nodes without a host.
    pub hosts: Vec<HostStatus>,
    /// Pods of kube-system that are not running, in words.
    pub waiting: Vec<String>,
    /// Why the API could not be asked, if so.
    pub api: Option<Failure>,
}

/// Looks at all hosts and asks the API.
pub async fn status(inventory: &Inventory, settings: &Settings) -> Result<Status> {
    let (sessions, unreachable) = connect(inventory, settings, Access::Look).await?;
    let mut api_failure = None;
    let mut nodes = Vec::new();
    let mut waiting = Vec::new();
    let mut control_planes: Vec<_> = sessions.iter().filter(|session| session.facts.kubernetes.admin_conf).collect();
    // Those that serve first; of the others, one may still reach an API server that does.
    control_planes.sort_by_key(|session| !session.facts.kubernetes.serves);
    for session in control_planes {
        let asked = async {
            let api = Api::open(session).await?;
            futures::try_join!(api::nodes(&api), api::pods(&api, "kube-system"))
        };
        match asked.await {
            Ok((found, pods)) => {
                nodes = found;
                waiting = pods
                    .into_iter()
                    .filter(|pod| !pod.well())
                    .map(|pod| format!("{} ({})", pod.name, pod.reason))
                    .collect();
                api_failure = None;
                break;
            }
            Err(failure) => api_failure = api_failure.or(Some(failure)),
        }
    }
    let mut hosts: Vec<HostStatus> = inventory
        .hosts
        .iter()
        .map(|host| HostStatus {
            name: host.name.clone(),
            address: host.address.clone(),
            role: Some(host.role),
            unreachable: unreachable.iter().find(|failure| failure.host.as_deref() == Some(&host.name)).cloned(),
            system: sessions
                .iter()
                .find(|session| session.host.name == host.name)
                .map(|session| session.facts.system.pretty_name.clone())
                .unwrap_or_default(),
            node: nodes.iter().find(|node| node.name == host.name).cloned(),
        })
        .collect();
    let unknown = nodes.into_iter().filter(|node| inventory.hosts.iter().all(|host| host.name != node.name));
    hosts.extend(unknown.map(|node| HostStatus {
        name: node.name.clone(),
        address: String::new(),
        role: None,
        unreachable: None,
        system: String::new(),
        node: Some(node),
    }));
    Ok(Status { hosts, waiting, api: api_failure })
}
