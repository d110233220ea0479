//! The pod network of one host: the CNI configuration, the ways to the other nodes' pods now, and a unit with two scripts
//! that makes them again at boot. What it is made of is decided in `kubernetes::podnetwork`.

use std::path::{Path, PathBuf};

use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host, systemd};
use crate::kubernetes::podnetwork::{self, Arguments, UNIT};
use crate::message::NetworkOrder;

use super::{files, unit};

mod there;

/// Where the container runtime looks for its network; the name sorts before what distributions bring.
const CNI_DIRECTORY: &str = "/etc/cni/net.d";

/// Where a person's own units live.
const UNIT_DIRECTORY: &str = "/etc/systemd/system";

/// Where the unit's scripts lie.
pub(super) const SCRIPT_DIRECTORY: &str = "/var/lib/clusterctl/pod-network";

/// Where programs are looked for when the unit needs their absolute paths.
const PROGRAM_DIRECTORIES: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Size of packets where the link does not tell, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// Path of our CNI configuration.
pub(super) fn cni_file() -> PathBuf {
    Path::new(CNI_DIRECTORY).join(podnetwork::CNI_FILE)
}

/// Path of our unit.
pub(super) fn unit_file() -> PathBuf {
    Path::new(UNIT_DIRECTORY).join(UNIT)
}

/// The script that our unit runs at its start.
pub(super) fn setup_file() -> PathBuf {
    Path::new(SCRIPT_DIRECTORY).join("up.sh")
}

/// The script that our unit runs at its end.
pub(super) fn teardown_file() -> PathBuf {
    Path::new(SCRIPT_DIRECTORY).join("down.sh")
}

/// Sets up the pod network of this host; returns how many things were altered. Safe to run again, also to repair routes
/// that somebody removed.
///
/// # Errors
/// Kind `Host`, naming the file or the command.
pub async fn network(host: &dyn Host, facts: &Facts, order: &NetworkOrder, events: &Events) -> Result<u32> {
    let mut step = events.step("network", "Set up the pod network");
    let changes = set_up(host, facts, order).await;
    if let Ok(changes) = &changes {
        for change in changes {
            step.changed(change);
        }
    }
    let count = step.changes();
    step.end(changes)?;
    Ok(count)
}

async fn set_up(host: &dyn Host, facts: &Facts, order: &NetworkOrder) -> Result<Vec<String>> {
    let mut changes = Vec::new();
    // First, because the node is not ready before: the rest is made while the kubelet notices.
    let configuration = format!("{:#}\n", podnetwork::cni_configuration(order));
    if files::ensure(host, &cni_file(), configuration.as_bytes(), 0o644)? {
        changes.push(format!("{} written", cni_file().display()));
    }

    let network = podnetwork::network(order, &facts.addresses, mtu(host, facts, order)?);
    let masquerade = podnetwork::masquerade(order);
    let programs = Programs::find(host)?;
    let path = |program: &str| programs.path(program);
    let setup = podnetwork::setup_script(&network, &masquerade, &path);
    let teardown = podnetwork::teardown_script(&network, &masquerade, &path);
    let there = there::look(host, network.vxlan).await?;
    let old = files::text(host, &teardown_file())?.unwrap_or_default();
    for arguments in obsolete(&old, &teardown) {
        // It may be gone by itself.
        run(host, &arguments).await?;
    }
    for arguments in network.setup.iter().filter(|arguments| !there.has(arguments)) {
        apply(host, arguments).await?;
        changes.push(format!("`{}`", arguments.join(" ")));
    }
    for (check, add) in &masquerade {
        let there = match check {
            Some(check) => run(host, check).await?.success(),
            None => false,
        };
        if !there {
            succeed(add, run(host, add).await?)?;
            changes.push(format!("`{}`", add.join(" ")));
        }
    }
    // What the unit does at its end is not written before what it does at its start: that names more.
    host.create_directory(Path::new(SCRIPT_DIRECTORY), 0o755)?;
    let unit = podnetwork::unit(&setup_file(), &teardown_file());
    let mut rewritten = false;
    for (path, text) in [(setup_file(), setup), (teardown_file(), teardown), (unit_file(), unit)] {
        rewritten = files::ensure(host, &path, text.as_bytes(), 0o644)?;
        changes.extend(rewritten.then(|| format!("{} written", path.display())));
    }
    let unit = systemd::state(host, UNIT).await?;
    // What it does is done already; started, it also undoes it when it is stopped.
    if !unit.active || !unit.enabled {
        unit::restart(host, UNIT).await?;
        changes.push(format!("{UNIT} started"));
    } else if rewritten || unit.needs_reload {
        // Started anew it would take all ways away for a moment.
        systemd::daemon_reload(host).await?;
        changes.extend(rewritten.then(|| format!("{UNIT} read again")));
    }
    Ok(changes)
}

/// Packet size of the link that has the address the other nodes know this host by.
fn mtu(host: &dyn Host, facts: &Facts, order: &NetworkOrder) -> Result<u32> {
    let Some(link) = facts.addresses.iter().find(|link| link.address.addr() == order.address) else {
        return Ok(DEFAULT_MTU);
    };
    let content = files::text(host, &Path::new("/sys/class/net").join(&link.link).join("mtu"))?;
    Ok(content.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_MTU))
}

/// Absolute paths of the programs a unit names.
struct Programs(Vec<(String, String)>);

impl Programs {
    fn find(host: &dyn Host) -> Result<Self> {
        let mut found = Vec::new();
        for program in ["ip", "bridge", "iptables", "ip6tables"] {
            for directory in PROGRAM_DIRECTORIES {
                let path = Path::new(directory).join(program);
                if host.entry(&path)?.is_some() {
                    found.push((program.to_owned(), path.to_string_lossy().into_owned()));
                    break;
                }
            }
        }
        Ok(Self(found))
    }

    fn path(&self, program: &str) -> String {
        let found = self.0.iter().find(|(name, _)| name == program);
        found.map_or_else(|| format!("/usr/sbin/{program}"), |(_, path)| path.clone())
    }
}

/// What an older script undoes and the new one does not know any more: routes to nodes that left.
fn obsolete(old: &str, new: &str) -> Vec<Arguments> {
    let known = podnetwork::teardown_commands(new);
    podnetwork::teardown_commands(old).into_iter().filter(|arguments| !known.contains(arguments)).collect()
}

async fn run(host: &dyn Host, arguments: &Arguments) -> Result<crate::host::Output> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((program, rest)) => host.run(Command::new(*program, rest)).await,
        None => Ok(crate::host::Output::default()),
    }
}

async fn apply(host: &dyn Host, arguments: &Arguments) -> Result<()> {
    let output = run(host, arguments).await?;
    let is_link = arguments.iter().take(3).map(String::as_str).eq(["ip", "link", "add"]);
    if is_link && String::from_utf8_lossy(&output.stderr).contains("File exists") {
        return Ok(());
    }
    succeed(arguments, output)
}

fn succeed(arguments: &Arguments, output: crate::host::Output) -> Result<()> {
    if output.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(Kind::Host, format!("`{}` failed", arguments.join(" "))).caused_by(words))
}

#[cfg(test)]
mod tests {
    use super::{cni_file, network, obsolete, setup_file};
    use crate::event::Events;
    use crate::fact::{Facts, LinkAddress};
    use crate::host::fake::FakeHost;
    use crate::message::{NetworkOrder, Peer};

    fn order(peers: &[(&str, &str)]) -> NetworkOrder {
        NetworkOrder {
            pod_network: "10.244.0.0/24".parse().unwrap(),
            cluster_network: "10.244.0.0/16".parse().unwrap(),
            address: "10.0.0.11".parse().unwrap(),
            peers: peers
                .iter()
                .map(|(address, pods)| Peer { address: address.parse().unwrap(), pod_network: pods.parse().unwrap() })
                .collect(),
        }
    }

    fn facts() -> Facts {
        let addresses = vec![LinkAddress { link: "eth0".into(), address: "10.0.0.11/24".parse().unwrap() }];
        Facts { addresses, ..Facts::default() }
    }

    fn host() -> FakeHost {
        FakeHost::new()
            .directory("/etc/systemd/system")
            .file("/usr/bin/ip", "")
            .answer(&["ip"], 0, "")
            .answer(&["ip", "route", "show"], 0, "")
            .answer(&["/usr/bin/ip"], 0, "")
            .answer(&["iptables"], 0, "")
            .answer(&["systemctl"], 0, "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n")
    }

    const ROUTE: &str = "run ip route replace 10.244.1.0/24 via 10.0.0.21";

    #[tokio::test]
    async fn a_second_time_changes_nothing_and_a_lost_route_is_set_again() {
        let host = host();
        let order = order(&[("10.0.0.21", "10.244.1.0/24")]);
        // The configuration, the route, both scripts, the unit, which is read.
        assert_eq!(network(&host, &facts(), &order, &Events::nowhere()).await, Ok(6));
        assert!(host.text(cni_file()).unwrap().contains("\"10.244.0.0/24\""));
        assert!(host.text(setup_file()).unwrap().contains("\n/usr/bin/ip route replace 10.244.1.0/24"));
        let done = host.done();
        assert!(done.contains(&ROUTE.to_owned()), "{done:?}");
        // A unit that runs has its ways taken away when it is started anew: it is only read.
        let restarts = done.iter().any(|line| line.contains("systemctl") && line.contains("start "));
        assert!(done.contains(&"run systemctl daemon-reload".to_owned()) && !restarts, "{done:?}");
        let routes = "default via 10.0.0.1 dev eth0\n10.244.1.0/24 via 10.0.0.21 dev eth0\n";
        let host = host.answer(&["ip", "route", "show"], 0, routes);
        host.forget();
        assert_eq!(network(&host, &facts(), &order, &Events::nowhere()).await, Ok(0));
        let done = host.done();
        let alters = |done: &&String| done.starts_with("write") || done.contains("restart") || done.contains("replace");
        assert_eq!(done.iter().find(alters), None, "{done:?}");
        let host = host.answer(&["ip", "route", "show"], 0, "default via 10.0.0.1 dev eth0\n");
        assert_eq!(network(&host, &facts(), &order, &Events::nowhere()).await, Ok(1));
    }

    #[tokio::test]
    async fn a_unit_that_does_not_run_is_started() {
        let host = host().answer(&["systemctl", "show"], 0, "LoadState=loaded\nActiveState=inactive\n");
        network(&host, &facts(), &order(&[("10.0.0.21", "10.244.1.0/24")]), &Events::nowhere()).await.unwrap();
        let started = "run systemctl restart clusterctl-routes.service".to_owned();
        assert!(host.done().contains(&started), "{:?}", host.done());
    }

    #[tokio::test]
    async fn the_way_to_a_node_that_left_is_removed() {
        let host = host();
        let both = order(&[("10.0.0.21", "10.244.1.0/24"), ("10.0.0.22", "10.244.2.0/24")]);
        network(&host, &facts(), &both, &Events::nowhere()).await.unwrap();
        host.forget();
        network(&host, &facts(), &order(&[("10.0.0.22", "10.244.2.0/24")]), &Events::nowhere()).await.unwrap();
        let done = host.done();
        assert!(done.contains(&"run /usr/bin/ip route del 10.244.1.0/24 via 10.0.0.21".to_owned()), "{done:?}");
        // systemd has nothing new to read when a node comes or goes.
        assert!(!done.iter().any(|line| line.contains("daemon-reload")), "{done:?}");
    }

    #[test]
    fn only_what_the_new_script_does_not_undo_is_undone_now() {
        let old = "#!/bin/sh\n/bin/ip route del a\n/bin/ip link del x\n";
        assert_eq!(obsolete(old, "#!/bin/sh\n/bin/ip link del x\n"), [["/bin/ip", "route", "del", "a"]]);
    }
}
