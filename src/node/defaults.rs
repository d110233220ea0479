//! What kubeadm's defaults take from the host: its name, its address, its container runtime.

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::{EntryKind, Host};
use crate::kubernetes::configuration::{HostDefaults, NodeRegistrationOptions, is_global_unicast};

/// Sockets that are looked for, in kubeadm's order (kubeadm.md section 5.5).
const SOCKETS: &[&str] =
    &["/var/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock"];

/// The sockets somebody listens on, among others.
const LISTENERS: &str = "/proc/net/unix";

/// Reads them.
///
/// # Errors
/// Kind `Host` when the sockets cannot be looked for.
pub(super) fn of(host: &dyn Host, facts: &Facts) -> Result<HostDefaults> {
    Ok(HostDefaults { cri_sockets: sockets(host)?, ..without_runtime(facts) })
}

/// Them without the container runtime, for work that needs none and must not fail for two.
pub(super) fn without_runtime(facts: &Facts) -> HostDefaults {
    HostDefaults {
        hostname: facts.hostname.clone(),
        default_route_addresses: default_route_addresses(facts),
        loopback_addresses: facts.loopback_addresses.clone(),
        cri_sockets: Vec::new(),
    }
}

/// Settings of a node with what this host is filled in.
///
/// # Errors
/// Kind `Host` when the sockets cannot be looked for; `Preflight` when there are several and none is chosen.
pub fn completed(host: &dyn Host, facts: &Facts, mut node: NodeRegistrationOptions) -> Result<NodeRegistrationOptions> {
    node.complete(&of(host, facts)?)?;
    Ok(node)
}

/// The sockets of the container runtimes of this host, as URLs: those that are there; where several are, those of them that
/// somebody listens on, since a runtime that is stopped or removed may leave its own behind.
fn sockets(host: &dyn Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in SOCKETS {
        if host.entry(Path::new(path))?.is_some_and(|entry| matches!(entry.kind, EntryKind::Other | EntryKind::Link(_)))
        {
            found.push(*path);
        }
    }
    if found.len() > 1 {
        let listeners = host.read(Path::new(LISTENERS))?.unwrap_or_default();
        found.retain(|path| is_listened_on(&String::from_utf8_lossy(&listeners), path));
    }
    Ok(found.into_iter().map(|path| format!("unix://{path}")).collect())
}

/// Whether /proc/net/unix has a listener for a path below /var/run, which is a link to /run.
fn is_listened_on(listeners: &str, path: &str) -> bool {
    listeners.lines().any(|line| {
        // Number, references, protocol, flags, type, state, inode, path.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, flags, _, _, _, bound] = fields.as_slice() else { return false };
        *flags == "00010000" && (*bound == path || path.strip_prefix("/var") == Some(*bound))
    })
}

/// The first addresses of the links of the default routes, at most one of each family, IPv4 first. Where such a link has
/// only link-local addresses, as between routers, the host's own is on the loopback link.
fn default_route_addresses(facts: &Facts) -> Vec<IpAddr> {
    let of_family = |ipv6: bool| {
        let fits = |address: &IpAddr| address.is_ipv6() == ipv6 && is_global_unicast(*address);
        let mut routes = facts
            .routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0 && route.destination.addr().is_ipv6() == ipv6);
        routes.find_map(|route| {
            let of_link = facts.addresses.iter().filter(|address| address.link == route.link);
            let loopback = facts.loopback_addresses.iter().copied();
            of_link.map(|address| address.address.addr()).chain(loopback).find(fits)
        })
    };
    [false, true].into_iter().filter_map(of_family).collect()
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

    use super::{default_route_addresses, is_listened_on, of};
    use crate::fact::{Facts, LinkAddress, Route};
    use crate::host::fake::FakeHost;

    #[rstest]
    #[case(&[("0.0.0.0/0", "eth1")], &["10.0.1.5"])]
    #[case(&[("::/0", "eth1")], &["fd00::5"])]
    #[case(&[("::/0", "eth1"), ("0.0.0.0/0", "eth0")], &["10.0.0.5", "fd00::5"])]
    #[case(&[("10.0.0.0/24", "eth0")], &[])]
    // A link between routers: the host's own address is on the loopback link.
    #[case(&[("0.0.0.0/0", "swp1")], &["192.0.2.7"])]
    #[case(&[("::/0", "swp1")], &[])]
    fn the_addresses_of_the_default_routes(#[case] routes: &[(&str, &str)], #[case] expected: &[&str]) {
        let link = |link: &str, address: &str| LinkAddress { link: link.into(), address: address.parse().unwrap() };
        let facts = Facts {
            addresses: vec![
                link("eth0", "10.0.0.5/24"),
                link("eth1", "fe80::1/64"),
                link("eth1", "10.0.1.5/24"),
                link("eth1", "fd00::5/64"),
                link("swp1", "169.254.0.1/16"),
                link("swp1", "fe80::2/64"),
            ],
            loopback_addresses: ["127.0.0.1", "192.0.2.7", "::1"].map(|address| address.parse().unwrap()).into(),
            routes: routes
                .iter()
                .map(|(to, link)| Route { destination: to.parse().unwrap(), via: None, link: (*link).into() })
                .collect(),
            ..Facts::default()
        };
        let found: Vec<String> = default_route_addresses(&facts).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    const LISTENERS: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        ffff8d3a: 00000002 00000000 00010000 0001 01 31415 /run/containerd/containerd.sock\n\
        ffff8d3b: 00000003 00000000 00000000 0001 03 31416 /var/run/crio/crio.sock\n\
        ffff8d3c: 00000003 00000000 00000000 0001 03 31417\n";

    #[rstest]
    #[case("/var/run/containerd/containerd.sock", true)]
    #[case("/var/run/crio/crio.sock", false)]
    #[case("/var/run/cri-dockerd.sock", false)]
    fn a_runtime_listens_on_its_socket(#[case] path: &str, #[case] expected: bool) {
        assert_eq!(is_listened_on(LISTENERS, path), expected);
    }

    /// One is taken as it is; of several those that are alive.
    #[rstest]
    #[case(&[], &[])]
    #[case(&["/var/run/crio/crio.sock"], &["unix:///var/run/crio/crio.sock"])]
    #[case(
        &["/var/run/containerd/containerd.sock", "/var/run/crio/crio.sock"],
        &["unix:///var/run/containerd/containerd.sock"],
    )]
    fn sockets_are_found(#[case] there: &[&str], #[case] expected: &[&str]) {
        let host = FakeHost::new().file("/proc/net/unix", LISTENERS);
        let host = there.iter().fold(host, |host, path| host.symlink(path, "/somewhere"));
        assert_eq!(of(&host, &Facts::default()).unwrap().cri_sockets, expected);
    }
}
