//! What kubeadm's defaults take from the host: its name, its address, its container runtime.

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::{EntryKind, Host};
use crate::kubernetes::configuration::{HostDefaults, NodeRegistrationOptions};

/// Sockets that are looked for, in kubeadm's order (kubeadm.md section 5.5).
const SOCKETS: &[&str] =
    &["/var/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock"];

/// Reads them.
///
/// # Errors
/// Kind `Host` when the sockets cannot be looked for.
pub(super) fn of(host: &dyn Host, facts: &Facts) -> Result<HostDefaults> {
    Ok(HostDefaults {
        hostname: facts.hostname.clone(),
        default_route_address: default_route_address(facts),
        cri_socket: socket(host)?,
    })
}

/// Settings of a node with what this host is filled in.
///
/// # Errors
/// Kind `Host` when the sockets cannot be looked for.
pub fn completed(host: &dyn Host, facts: &Facts, mut node: NodeRegistrationOptions) -> Result<NodeRegistrationOptions> {
    node.complete(&of(host, facts)?);
    Ok(node)
}

/// The first socket that is there. More than one is for a person to decide, and only then: with containerd among them
/// it is containerd, which is what clusterctl brings.
fn socket(host: &dyn Host) -> Result<Option<String>> {
    for path in SOCKETS {
        if host.entry(Path::new(path))?.is_some_and(|entry| matches!(entry.kind, EntryKind::Other | EntryKind::Link(_)))
        {
            return Ok(Some(format!("unix://{path}")));
        }
    }
    Ok(None)
}

/// The first address of the link of the default route.
fn default_route_address(facts: &Facts) -> Option<IpAddr> {
    let mut defaults: Vec<_> = facts.routes.iter().filter(|route| route.destination.prefix_len() == 0).collect();
    defaults.sort_by_key(|route| route.destination.addr().is_ipv6());
    defaults.iter().find_map(|route| {
        let of_link = facts.addresses.iter().filter(|address| address.link == route.link);
        of_link
            .map(|address| address.address.addr())
            .find(|address| address.is_ipv4() == route.destination.addr().is_ipv4() && !is_link_local(*address))
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The time by this host's clock, in seconds since the epoch.
pub(super) fn now_seconds() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map(|duration| duration.as_secs())
        .map_err(|_| Failure::new(Kind::Host, "the host's clock stands before 1970").advise("set the host's clock"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::default_route_address;
    use crate::fact::{Facts, LinkAddress, Route};

    #[rstest]
    #[case(&[("0.0.0.0/0", "eth1")], Some("10.0.1.5"))]
    #[case(&[("::/0", "eth1")], Some("fd00::5"))]
    #[case(&[("::/0", "eth1"), ("0.0.0.0/0", "eth0")], Some("10.0.0.5"))]
    #[case(&[("10.0.0.0/24", "eth0")], None)]
    fn the_address_of_the_default_route(#[case] routes: &[(&str, &str)], #[case] address: Option<&str>) {
        let link = |link: &str, address: &str| LinkAddress { link: link.into(), address: address.parse().unwrap() };
        let facts = Facts {
            addresses: vec![
                link("eth0", "10.0.0.5/24"),
                link("eth1", "fe80::1/64"),
                link("eth1", "10.0.1.5/24"),
                link("eth1", "fd00::5/64"),
            ],
            routes: routes
                .iter()
                .map(|(to, link)| Route { destination: to.parse().unwrap(), via: None, link: (*link).into() })
                .collect(),
            ..Facts::default()
        };
        assert_eq!(default_route_address(&facts), address.map(|address| address.parse().unwrap()));
    }
}
