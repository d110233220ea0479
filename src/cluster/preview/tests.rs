//! What is said of nodes and pod networks.

use std::path::Path;

use super::{Plan, Way, network, of_nodes, told};
use crate::api::NodeStatus;
use crate::change::Change;
use crate::cluster::documents::NodeAddress;
use crate::cluster::plan::HostPlan;
use crate::failure::{Failure, Kind};
use crate::inventory::{self, Inventory};

fn inventory() -> Inventory {
    let text = "cluster: {name: demo}\nssh: {user: root}\nhosts:\n  cp1: {address: 10.0.0.11, role: control-plane}\n  \
                w1: {address: 10.0.0.21, labels: {disk: ssd}}\n";
    inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
        .unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn host(name: &str, way: Way, member: bool) -> HostPlan {
    HostPlan {
        name: name.into(),
        node: NodeAddress { address: "10.0.0.11".parse().unwrap(), must_be_told: false },
        way,
        member,
        balancer: None,
        blobs: Vec::new(),
        variables: Default::default(),
    }
}

fn plan(joined: bool) -> Plan {
    Plan { hosts: vec![host("cp1", Way::Source, true), host("w1", Way::Worker, joined)], warnings: Vec::new() }
}

fn node(name: &str, address: &str, pods: &str) -> NodeStatus {
    NodeStatus {
        version: "v1.36.3".into(),
        pod_networks: vec![pods.parse().unwrap()],
        addresses: vec![address.parse().unwrap()],
        ..NodeStatus::plain(name, true)
    }
}

fn line(change: &Change) -> String {
    format!("{:?} {} {}", change.action, change.subject, change.detail)
}

#[test]
fn nodes_come_get_labels_and_go_only_when_told() {
    let nodes = [node("cp1", "10.0.0.11", "10.244.0.0/24"), node("old", "10.0.0.99", "10.244.9.0/24")];
    let section = of_nodes(&inventory(), &plan(false), &nodes, false);
    assert_eq!(section.changes.iter().map(line).collect::<Vec<_>>(), ["Create w1 worker", "Update w1 label disk=ssd"]);
    assert!(section.unknown[0].starts_with("the node old is not in the inventory"), "{section:?}");
    let section = of_nodes(&inventory(), &plan(false), &nodes, true);
    assert_eq!(section.changes.last().map(line).as_deref(), Some("Remove old not in the inventory"));
    assert!(section.changes.last().unwrap().disrupts && section.unknown.is_empty());
}

#[test]
fn a_cluster_that_cannot_be_asked_has_not_no_nodes() {
    let refused = || Err(Failure::new(Kind::Cluster, "it refuses"));
    assert_eq!(told(refused(), false).1.as_deref(), Some("the cluster cannot be asked: it refuses"));
    let (nodes, sentence) = told(refused(), true);
    let expected =
        "the cluster cannot be asked; nodes that are not in the inventory are named when it can be: it refuses";
    assert_eq!((nodes, sentence.as_deref()), (Vec::new(), Some(expected)));
    let nodes = vec![node("cp1", "10.0.0.11", "10.244.0.0/24")];
    assert_eq!(told(Ok(nodes.clone()), true), (nodes, None));
}

#[test]
fn nothing_is_to_do_with_nodes_that_are_as_wanted() {
    let mut worker = node("w1", "10.0.0.21", "10.244.1.0/24");
    worker.labels.insert("disk".into(), "ssd".into());
    let nodes = [node("cp1", "10.0.0.11", "10.244.0.0/24"), worker];
    assert!(of_nodes(&inventory(), &plan(true), &nodes, false).is_empty());
}

#[test]
fn the_network_of_a_member_is_known_and_that_of_a_newcomer_is_not() {
    let nodes = [node("cp1", "10.0.0.11", "10.244.0.0/24")];
    let plan = plan(false);
    let of = |index: usize| network(&inventory(), &plan, &plan.hosts[index], &nodes);
    assert_eq!(of(0).order.unwrap().pod_network.to_string(), "10.244.0.0/24");
    assert_eq!(of(0).unknown, ["a route to the pods of w1 is added when it has joined"]);
    assert!(of(1).order.is_none() && of(1).unknown.len() == 1);
}
