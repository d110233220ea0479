//! Conditions that concern several hosts, or a host and the inventory's networks, by what was observed. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::cluster::findings::{Finding, unmet};
use crate::fact::Facts;
use crate::host::measure::Measured;
use crate::inventory::{Host, Inventory, Role};

/// Name of the check of clocks.
pub const CLOCK: &str = "ClockSkew";

/// Clocks further apart than this are said: etcd warns of them, and logs get hard to read.
const NOTABLE_SKEW: Duration = Duration::from_secs(1);

/// Clocks further apart than this keep certificates and tokens from being valid everywhere.
const HARMFUL_SKEW: Duration = Duration::from_secs(60);

/// A clock whose answer took no longer than this, in milliseconds, is known well.
const WELL_KNOWN: u64 = 50;

/// Longer than this for 99 of 100 writes, in microseconds, and etcd is not at its ease (its own recommendation).
const NOTABLE_SYNC: u64 = 10_000;

/// Longer than this, in microseconds, and etcd loses its leader under load: a heartbeat is 100 ms.
const HARMFUL_SYNC: u64 = 100_000;

/// Less room than this is said, in bytes.
const NOTABLE_ROOM: u64 = 10 << 30;

/// Less room than this does not do, in bytes: binaries, images and logs of Kubernetes itself.
const HARMFUL_ROOM: u64 = 2 << 30;

/// Machines cloned from one image keep its machine-id, and then share pod networks and leases.
pub fn machine_ids(inventory: &Inventory, facts: &BTreeMap<String, Facts>) -> Vec<Finding> {
    let twice = shared(inventory, facts, |facts| &facts.machine_id);
    twice
        .into_iter()
        .map(|(_, names)| {
            let failure = unmet(format!("{} have the same /etc/machine-id", names.join(" and "))).advise(
                "give the copy one of its own: `rm /etc/machine-id && systemd-machine-id-setup`, then reboot it",
            );
            Finding::error("MachineID", failure).on(names[1])
        })
        .collect()
}

/// Nodes are named by the inventory; who reads logs goes by the host's own name.
pub fn hostnames(inventory: &Inventory, facts: &BTreeMap<String, Facts>) -> Vec<Finding> {
    let twice = shared(inventory, facts, |facts| &facts.hostname);
    twice
        .into_iter()
        .map(|(name, hosts)| {
            let failure = unmet(format!("{} call themselves {name}", hosts.join(" and ")))
                .advise("give each host a name of its own with `hostnamectl set-hostname`");
            Finding::warning("HostnameUnique", failure).on(hosts[1])
        })
        .collect()
}

/// Values that several hosts have, with those hosts' names in inventory order.
fn shared<'a>(
    inventory: &'a Inventory,
    facts: &'a BTreeMap<String, Facts>,
    value: impl Fn(&'a Facts) -> &'a String,
) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut by_value: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in &inventory.hosts {
        if let Some(value) = facts.get(&host.name).map(&value).filter(|value| !value.is_empty()) {
            by_value.entry(value).or_default().push(&host.name);
        }
    }
    by_value.into_iter().filter(|(_, names)| names.len() > 1).collect()
}

/// Networks of the cluster that a host needs for something else: its own addresses and routes. On a member the ways to pods
/// are the cluster's own.
pub fn overlaps(inventory: &Inventory, host: &Host, facts: &Facts) -> Vec<Finding> {
    if facts.kubernetes.journal_cluster.as_deref() == Some(inventory.cluster.name.as_str())
        || facts.kubernetes.kubelet_conf
    {
        return Vec::new();
    }
    let network = &inventory.cluster.network;
    let mut found = Vec::new();
    for (key, wanted) in [("pods", network.pods), ("services", network.services)] {
        let address = facts.addresses.iter().find(|link| meet(&wanted, &link.address));
        let route =
            facts.routes.iter().find(|route| route.destination.prefix_len() > 0 && meet(&wanted, &route.destination));
        let there = address
            .map(|link| format!("its address {} on {}", link.address, link.link))
            .or_else(|| route.map(|route| format!("its route to {} through {}", route.destination, route.link)));
        if let Some(there) = there {
            let failure = unmet(format!("the network {wanted} of {key} overlaps {there}"))
                .advise(format!("choose another cluster.network.{key}"));
            found.push(Finding::error("NetworkOverlap", failure).on(&host.name));
        }
    }
    found
}

fn meet(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.trunc()) || other.contains(&one.trunc())
}

/// Room for what Kubernetes brings: on the filesystems it fills.
pub fn room(host: &Host, facts: &Facts) -> Vec<Finding> {
    // What was brought to a host by a run that broke off is counted twice otherwise.
    let begun = facts.kubernetes.kubelet_conf || facts.kubernetes.journal_cluster.is_some();
    let of_role = |path: &str| host.role == Role::ControlPlane || path != "/var/lib/etcd";
    let tight = facts.disks.iter().filter(|disk| of_role(&disk.path) && disk.free_bytes < NOTABLE_ROOM);
    // Several of the paths are often on one filesystem: it is named once.
    let mut said: Vec<(u64, u64)> = Vec::new();
    let mut found = Vec::new();
    for disk in tight {
        if said.contains(&(disk.total_bytes, disk.free_bytes)) {
            continue;
        }
        said.push((disk.total_bytes, disk.free_bytes));
        let gigabytes = disk.free_bytes as f64 / f64::from(1 << 30);
        let failure = unmet(format!("there are {gigabytes:.1} GiB free for {}", disk.path))
            .advise("free some space, or mount a larger disk there");
        let harmful = disk.free_bytes < HARMFUL_ROOM && !begun;
        let finding =
            if harmful { Finding::error("DiskSpace", failure) } else { Finding::warning("DiskSpace", failure) };
        found.push(finding.on(&host.name));
    }
    found
}

/// How far a host's clock is from the laptop's: somewhere between these two, because the answer took its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds ahead at least; negative when behind.
    pub least: i64,
    /// Milliseconds ahead at most.
    pub most: i64,
}

impl Clock {
    /// From the host's answer and the laptop's clock right before and after it was asked, all in milliseconds.
    pub fn of(answer: u64, before: u64, after: u64) -> Self {
        let difference = |own: u64| i64::try_from(i128::from(answer) - i128::from(own)).unwrap_or(i64::MAX);
        Self { least: difference(after), most: difference(before) }
    }

    /// How well it is known: milliseconds between least and most.
    fn width(self) -> u64 {
        self.most.abs_diff(self.least)
    }

    /// By how much two clocks differ at least.
    fn apart(self, other: Self) -> u64 {
        let gap = (self.least - other.most).max(other.least - self.most);
        u64::try_from(gap).unwrap_or(0)
    }
}

/// Clocks of hosts against each other: each is compared with the clock that most others agree with.
pub fn clocks(clocks: &BTreeMap<String, Clock>) -> Vec<Finding> {
    let agrees = |one: &Clock| {
        clocks.values().filter(|other| u128::from(one.apart(**other)) <= NOTABLE_SKEW.as_millis()).count()
    };
    // An answer that took long agrees with everybody: those that are known well count.
    let narrow = clocks.values().map(|clock| clock.width()).min().unwrap_or(0).max(WELL_KNOWN) * 2;
    let known = clocks.iter().rev().filter(|(_, clock)| clock.width() <= narrow);
    let Some((reference, right)) = known.max_by_key(|(_, clock)| agrees(clock)) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, clock) in clocks {
        let apart = Duration::from_millis(clock.apart(*right));
        if apart <= NOTABLE_SKEW {
            continue;
        }
        let way = if clock.least > right.most { "ahead of" } else { "behind" };
        let seconds = apart.as_secs_f64();
        let failure = unmet(format!("its clock is {seconds:.1} s {way} that of {reference}"))
            .advise("let a time service such as chrony or systemd-timesyncd set the clocks of all hosts");
        let finding =
            if apart > HARMFUL_SKEW { Finding::error(CLOCK, failure) } else { Finding::warning(CLOCK, failure) };
        found.push(finding.on(name));
    }
    found
}

/// What was measured on one host.
pub fn measured(host: &str, measured: &Measured) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(microseconds) = measured.sync_microseconds.filter(|sync| *sync > NOTABLE_SYNC) {
        let milliseconds = microseconds as f64 / 1000.0;
        let sentence =
            format!("its disk takes {milliseconds:.1} ms to sync a write (of 100, 99 are faster); etcd wants 10");
        let failure = unmet(sentence).advise("put /var/lib/etcd on a faster disk, such as a local SSD");
        let harmful = microseconds > HARMFUL_SYNC;
        found.push(if harmful { Finding::error("EtcdDisk", failure) } else { Finding::warning("EtcdDisk", failure) });
    }
    let loopback = |server: &&String| server.parse::<IpAddr>().is_ok_and(|server| server.is_loopback());
    if let Some(server) = measured.name_servers.iter().find(loopback) {
        let path = &measured.resolv_conf;
        let sentence = format!("{path} names {server}: CoreDNS would ask itself, see the loop and end");
        let failure = unmet(sentence).advise(format!(
            "write a server that pods can reach into {path}, or name another file in resolvConf of the \
             KubeletConfiguration"
        ));
        found.push(Finding::error("Resolver", failure));
    } else if measured.name_servers.is_empty() {
        let sentence =
            format!("{} names no server: pods look up no names outside of the cluster", measured.resolv_conf);
        found.push(Finding::warning("Resolver", unmet(sentence).advise("write a name server into it")));
    }
    for name in &measured.unknown_names {
        let failure = unmet(format!("{name} has no address here"))
            .advise(format!("let DNS or /etc/hosts know {name} on this host"));
        found.push(Finding::error("NameResolution", failure));
    }
    found.into_iter().map(|finding| finding.on(host)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use rstest::rstest;

    use super::{Clock, clocks, hostnames, machine_ids, measured, overlaps, room};
    use crate::cluster::findings::Finding;
    use crate::fact::{Disk, Facts, LinkAddress, Route};
    use crate::host::measure::Measured;
    use crate::inventory::{self, Inventory};

    fn inventory() -> Inventory {
        let text = "cluster: {name: demo}\nssh: {user: root}\nhosts: {cp1: {role: control-plane}, w1: , w2: }\n";
        inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"))
    }

    fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| format!("{:?} {}", finding.severity, finding.sentence())).collect()
    }

    #[test]
    fn clones_are_told() {
        let of = |id: &str, name: &str| Facts { machine_id: id.into(), hostname: name.into(), ..Facts::default() };
        let facts = BTreeMap::from([
            ("cp1".to_owned(), of("a", "debian")),
            ("w1".to_owned(), of("b", "w1")),
            ("w2".to_owned(), of("a", "debian")),
        ]);
        let found = machine_ids(&inventory(), &facts);
        assert_eq!(lines(&found), ["Error w2: [MachineID] cp1 and w2 have the same /etc/machine-id"]);
        let found = hostnames(&inventory(), &facts);
        assert_eq!(lines(&found), ["Warning w2: [HostnameUnique] cp1 and w2 call themselves debian"]);
    }

    #[rstest]
    #[case("192.168.0.5/24", "192.168.0.0/24", &[])]
    #[case("10.244.3.5/24", "192.168.0.0/24", &["its address 10.244.3.5/24 on eth0"])]
    #[case("192.168.0.5/24", "10.0.0.0/8", &["its route to 10.0.0.0/8 through eth0", "its route to 10.0.0.0/8 through eth0"])]
    #[case("10.96.0.7/16", "0.0.0.0/0", &["its address 10.96.0.7/16 on eth0"])]
    fn networks_that_a_host_needs_itself(#[case] address: &str, #[case] route: &str, #[case] words: &[&str]) {
        let facts = Facts {
            addresses: vec![LinkAddress { link: "eth0".into(), address: address.parse().unwrap() }],
            routes: vec![Route { destination: route.parse().unwrap(), via: None, link: "eth0".into() }],
            ..Facts::default()
        };
        let inventory = inventory();
        let found = overlaps(&inventory, &inventory.hosts[1], &facts);
        assert_eq!(found.len(), words.len(), "{found:?}");
        for (finding, words) in found.iter().zip(words) {
            assert!(finding.failure.sentence.ends_with(words), "{finding:?}");
        }
        let mut member = facts;
        member.kubernetes.kubelet_conf = true;
        assert!(overlaps(&inventory, &inventory.hosts[1], &member).is_empty());
    }

    #[test]
    fn room_is_judged_once_a_filesystem_and_by_role() {
        let disk = |path: &str, total: u64, free: u64| Disk { path: path.into(), total_bytes: total, free_bytes: free };
        let facts = Facts {
            disks: vec![
                disk("/var/lib/containerd", 100 << 30, 5 << 30),
                disk("/var/lib/kubelet", 100 << 30, 5 << 30),
                disk("/var/lib/etcd", 8 << 30, 1 << 30),
            ],
            ..Facts::default()
        };
        let inventory = inventory();
        assert_eq!(
            lines(&room(&inventory.hosts[0], &facts)),
            [
                "Warning cp1: [DiskSpace] there are 5.0 GiB free for /var/lib/containerd",
                "Error cp1: [DiskSpace] there are 1.0 GiB free for /var/lib/etcd",
            ]
        );
        assert_eq!(room(&inventory.hosts[1], &facts).len(), 1);
        let mut begun = facts;
        begun.kubernetes.journal_cluster = Some("demo".into());
        assert!(lines(&room(&inventory.hosts[0], &begun)).iter().all(|line| line.starts_with("Warning")));
    }

    #[test]
    fn a_slow_answer_is_no_skew() {
        let of = |answer, before, after| Clock::of(answer, before, after);
        let all = BTreeMap::from([
            // Asked at 1000, answered at 9000: anything between is right.
            ("a".to_owned(), of(8000, 1000, 9000)),
            ("b".to_owned(), of(1050, 1000, 1100)),
            ("c".to_owned(), of(6050, 1000, 1100)),
            ("d".to_owned(), of(1_000_150, 1000, 1100)),
            ("e".to_owned(), of(1050, 1000, 1100)),
        ]);
        assert_eq!(
            lines(&clocks(&all)),
            [
                "Warning c: [ClockSkew] its clock is 4.9 s ahead of that of b",
                "Error d: [ClockSkew] its clock is 999.0 s ahead of that of b",
            ]
        );
        assert!(clocks(&BTreeMap::new()).is_empty());
    }

    #[rstest]
    #[case(Some(9_000), &["10.0.0.1"], &[], &[])]
    #[case(Some(20_000), &["10.0.0.1"], &[], &["Warning w1: [EtcdDisk] its disk takes 20.0 ms"])]
    #[case(Some(200_000), &["10.0.0.1"], &[], &["Error w1: [EtcdDisk] its disk takes 200.0 ms"])]
    #[case(None, &["10.0.0.1", "127.0.0.53"], &[], &["Error w1: [Resolver] /etc/resolv.conf names 127.0.0.53"])]
    #[case(None, &["::1"], &[], &["Error w1: [Resolver] /etc/resolv.conf names ::1"])]
    #[case(None, &[], &["api.demo"], &["Warning w1: [Resolver] /etc/resolv.conf names no server", "Error w1: [NameResolution] api.demo"])]
    fn what_was_measured_is_judged(
        #[case] sync: Option<u64>,
        #[case] servers: &[&str],
        #[case] unknown: &[&str],
        #[case] expected: &[&str],
    ) {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let found = Measured {
            clock_milliseconds: 0,
            sync_microseconds: sync,
            resolv_conf: "/etc/resolv.conf".into(),
            name_servers: texts(servers),
            unknown_names: texts(unknown),
        };
        let lines = lines(&measured("w1", &found));
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        assert!(lines.iter().zip(expected).all(|(line, beginning)| line.starts_with(beginning)), "{lines:?}");
    }
}
