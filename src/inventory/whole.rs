//! What no single key can be blamed for: roles, addresses and networks that do not fit together.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::cluster;
use super::hosts::Draft;
use super::walk::Walk;
use super::{Endpoint, Role};
use crate::yaml::{Finding, Span};

/// All checks of the whole. `hosts_key` is where `hosts` stands.
pub(super) fn check(walk: &mut Walk, cluster: &cluster::Draft, hosts: &[Draft], hosts_key: Span) {
    addresses(walk, hosts);
    roles(walk, cluster, hosts, hosts_key);
    if cluster.networks_known {
        networks(walk, cluster, hosts);
    }
}

/// Two hosts at one address are one machine written twice, or a mistake of copying.
fn addresses(walk: &mut Walk, hosts: &[Draft]) {
    let mut reached: HashMap<(String, u16, Vec<String>), &Draft> = HashMap::new();
    let mut nodes: HashMap<IpAddr, &Draft> = HashMap::new();
    for draft in hosts {
        let host = &draft.host;
        let canonical = host.address.parse::<IpAddr>().map_or_else(
            |_| host.address.trim_end_matches('.').to_ascii_lowercase(),
            |address| address.to_canonical().to_string(),
        );
        // Behind another bastion the same address is another machine.
        let jump = host.ssh.jump.iter().map(ToString::to_string).collect();
        let place = (canonical, host.ssh.port, jump);
        if let Some(first) = reached.get(&place) {
            let (one, two) = (&first.host.name, &host.name);
            let message = format!("the hosts `{one}` and `{two}` have the same address, {}", host.address);
            let finding = Finding::error(draft.address, message).label("again");
            walk.find(finding.related(first.address, "first here").help("one machine is one host"));
            continue;
        }
        reached.insert(place, draft);
        let Some(address) = host.node_address.map(|address| address.to_canonical()) else { continue };
        if let Some(first) = nodes.get(&address) {
            let (one, two) = (&first.host.name, &host.name);
            let message = format!("the nodes `{one}` and `{two}` have the same address, {address}");
            let finding =
                Finding::error(draft.node_address, message).label("again").related(first.node_address, "first here");
            walk.find(finding.help("give each host the `node_address` that the other nodes reach it by"));
            continue;
        }
        nodes.insert(address, draft);
    }
}

fn roles(walk: &mut Walk, cluster: &cluster::Draft, hosts: &[Draft], hosts_key: Span) {
    // A role that is no role is found already; what it was meant to be is unknown.
    if hosts.iter().any(|draft| draft.role_unknown) {
        return;
    }
    let control_planes: Vec<&Draft> = hosts.iter().filter(|draft| draft.host.role == Role::ControlPlane).collect();
    match control_planes.as_slice() {
        [] if hosts.is_empty() => {}
        [] => {
            let finding = Finding::error(hosts_key, "no host is a control plane");
            walk.find(finding.help("give one host `role: control-plane`"));
        }
        [_] => {}
        [first, second, ..] => {
            if cluster.endpoint.is_none() {
                let message = format!("{} control planes need `cluster.endpoint`", control_planes.len());
                let finding = Finding::error(second.role, message).label("the second control plane");
                walk.find(finding.related(first.role, "the first").help(
                    "write `endpoint: built-in` for a balancer on every node, or the `host:port` of one you have, \
                     which stays when a control plane is lost: a load balancer, a virtual address or a DNS name",
                ));
            }
            if control_planes.len().is_multiple_of(2)
                && let Some(last) = control_planes.last()
            {
                let count = control_planes.len();
                let message = format!("{count} control planes survive no more losses than {}", count - 1);
                walk.find(Finding::warning(last.role, message).help("take an odd number of control planes"));
            }
        }
    }
}

fn networks(walk: &mut Walk, draft: &cluster::Draft, hosts: &[Draft]) {
    let (pods, services) = (draft.cluster.network.pods, draft.cluster.network.services);
    if overlap(&pods, &services) {
        // One of them is written: the defaults do not overlap.
        let (here, there) = match (draft.services, draft.pods) {
            (Some(services), pods) => (services, pods),
            (None, pods) => (pods.unwrap_or(Span::new(1, 1, 1)), None),
        };
        let mut finding =
            Finding::error(here, format!("the networks of pods, {pods}, and services, {services}, overlap"));
        if let Some(there) = there {
            finding = finding.related(there, "overlaps with this");
        }
        walk.find(finding.help("choose two private networks that no machine is in"));
    }
    if pods.addr().is_ipv4() != services.addr().is_ipv4() {
        let here = draft.services.or(draft.pods).unwrap_or(Span::new(1, 1, 1));
        let message =
            format!("the networks of pods, {pods}, and services, {services}, are of different address families");
        walk.find(Finding::error(here, message).help("make both IPv4 or both IPv6"));
    }
    sizes(walk, draft, hosts.len());
    for host in hosts {
        let Some(address) = host.host.node_address else { continue };
        for (name, key, network, span) in
            [("pods", "pods", pods, draft.pods), ("services", "services", services, draft.services)]
        {
            if !network.contains(&address) {
                continue;
            }
            let message = format!(
                "the address of the host `{}`, {address}, lies in the network of {name}, {network}",
                host.host.name
            );
            let mut finding = Finding::error(host.node_address, message);
            if let Some(span) = span {
                finding = finding.related(span, "this network");
            }
            walk.find(finding.help(format!("set `cluster.network.{key}` to a network that no machine is in")));
        }
    }
    if let (Some(span), Some(address)) = (draft.endpoint, endpoint_address(draft)) {
        for (name, network) in [("pods", pods), ("services", services)] {
            if network.contains(&address) {
                let message = format!("`cluster.endpoint`, {address}, lies in the network of {name}, {network}");
                walk.find(
                    Finding::error(span, message).help("the endpoint is reached before the cluster has networks"),
                );
            }
        }
    }
}

/// What the API server and the controller manager refuse at their start (kubeadm's validation has the same limits).
fn sizes(walk: &mut Walk, draft: &cluster::Draft, hosts: usize) {
    let (pods, services) = (draft.cluster.network.pods, draft.cluster.network.services);
    if let Some(span) = draft.services {
        let bits = services.max_prefix_len() - services.prefix_len();
        if bits > 20 {
            let message = format!("the network of services, {services}, is larger than Kubernetes takes");
            let least = services.max_prefix_len() - 20;
            walk.find(Finding::error(span, message).help(format!("take /{least} or a smaller network")));
        }
        if bits < 4 {
            let message = format!("the network of services, {services}, has room for fewer than ten services");
            walk.find(Finding::error(span, message).help("take a larger network, such as a /16"));
        }
    }
    // Each node gets a piece of the pod network; kubeadm's documents may set another size of the pieces.
    if let Some(span) = draft.pods.filter(|_| draft.cluster.kubeadm.is_none()) {
        let piece: u8 = if pods.addr().is_ipv4() { 24 } else { 64 };
        let bits = piece.checked_sub(pods.prefix_len());
        let room = bits.map_or(0, |bits| 1_usize.checked_shl(u32::from(bits)).unwrap_or(usize::MAX));
        if room < hosts.max(1) {
            let message = format!("the network of pods, {pods}, has room for {room} nodes, each with a /{piece}");
            walk.find(
                Finding::error(span, message).help(format!("{hosts} hosts need a larger network, such as a /16")),
            );
        } else if bits.is_some_and(|bits| bits > 16) {
            let message = format!("the network of pods, {pods}, is larger than Kubernetes takes");
            walk.find(Finding::error(span, message).help(format!("take /{} or a smaller network", piece - 16)));
        }
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn endpoint_address(draft: &cluster::Draft) -> Option<IpAddr> {
    let Some(Endpoint::Address(endpoint)) = &draft.cluster.endpoint else { return None };
    let (host, _) = endpoint.rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
