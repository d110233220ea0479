//! The pod network out of the box: the CNI plugin `bridge` on each node, routes between the nodes.
//!
//! Nodes on one subnet get a plain route to each other's pods. Nodes on other subnets are reached through one VXLAN link
//! with static entries: no daemon, no image, no learning. A systemd unit sets the same up again after a reboot.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::fact::LinkAddress;
use crate::message::{NetworkOrder, Peer};

/// File name of the CNI configuration in /etc/cni/net.d.
pub const CNI_FILE: &str = "10-clusterctl.conflist";

/// Name of the bridge on each node.
pub const BRIDGE: &str = "cni0";

/// Name of the VXLAN link.
pub const VXLAN: &str = "clusterctl-vx";

/// The unit that sets the routes up again at boot.
pub const UNIT: &str = "clusterctl-routes.service";

/// How the unit's scripts begin.
const SCRIPT_HEAD: &str = "#!/bin/sh\n# Written by clusterctl: the ways to the pods of the other nodes.\n";

/// VXLAN network identifier; above 4096, so that it meets no VLAN number.
const VXLAN_ID: u32 = 4289;

/// UDP port of VXLAN as IANA assigned it.
const VXLAN_PORT: u16 = 4789;

/// Bytes that VXLAN takes of each packet over IPv4 (IP, UDP, VXLAN, inner Ethernet); IPv6 takes 20 more.
const VXLAN_OVERHEAD: u32 = 50;

/// A command, as program and arguments.
pub type Arguments = Vec<String>;

/// The CNI configuration of one node.
pub fn cni_configuration(order: &NetworkOrder) -> Value {
    let everywhere = if order.pod_network.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    json!({
        "cniVersion": "1.0.0",
        "name": "clusterctl",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "promiscMode": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": order.pod_network.to_string() }]],
                    "routes": [{ "dst": everywhere }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// Whether a peer is on a subnet of this host, so that a plain route reaches it.
fn is_neighbour(peer: &Peer, addresses: &[LinkAddress]) -> bool {
    addresses.iter().any(|link| link.address.contains(&peer.address))
}

/// A hardware address made from the node's address, the same on every node that computes it: locally administered.
fn hardware_address(address: IpAddr) -> String {
    let tail = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let octets = address.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    };
    format!("0e:c1:{:02x}:{:02x}:{:02x}:{:02x}", tail[0], tail[1], tail[2], tail[3])
}

fn words(text: &str) -> Arguments {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What sets the network up, in order. Each command may be run again: what is there is replaced; only `ip link add`
/// fails with "File exists" when the link is there, which is success.
///
/// Traffic from pods to the outside leaves under the node's address; traffic between pods, and to the nodes, keeps its
/// own, so that network policies and logs see the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Commands, in order.
    pub setup: Vec<Arguments>,
    /// Commands that undo them, in order; each may fail when there is nothing to undo.
    pub teardown: Vec<Arguments>,
    /// Whether a VXLAN link is needed.
    pub vxlan: bool,
}

/// Works out the network of a host with these link addresses. `mtu` is that of the link to the other nodes, in bytes.
pub fn network(order: &NetworkOrder, addresses: &[LinkAddress], mtu: u32) -> Network {
    let (neighbours, distant): (Vec<&Peer>, Vec<&Peer>) =
        order.peers.iter().partition(|peer| is_neighbour(peer, addresses));
    let mut setup = Vec::new();
    let mut teardown = Vec::new();
    for peer in neighbours {
        setup.push(words(&format!("ip route replace {} via {}", peer.pod_network, peer.address)));
        teardown.push(words(&format!("ip route del {} via {}", peer.pod_network, peer.address)));
    }
    let vxlan = !distant.is_empty();
    if vxlan {
        let own = hardware_address(order.address);
        let overhead = if order.address.is_ipv4() { VXLAN_OVERHEAD } else { VXLAN_OVERHEAD + 20 };
        let mtu = mtu.saturating_sub(overhead);
        setup.push(words(&format!(
            "ip link add {VXLAN} address {own} mtu {mtu} type vxlan id {VXLAN_ID} local {} dstport {VXLAN_PORT} nolearning",
            order.address
        )));
        // Without an address of its own the link would send under that of another link, and a peer that filters by the
        // way back (rp_filter=1) would drop it: the API server could not reach a webhook's pod on a distant node.
        let source = ipnet::IpNet::from(order.pod_network.network());
        setup.push(words(&format!("ip address replace {source} dev {VXLAN}")));
        setup.push(words(&format!("ip link set {VXLAN} up")));
        for peer in distant {
            let theirs = hardware_address(peer.address);
            let gateway = peer.pod_network.network();
            setup.push(words(&format!("bridge fdb replace {theirs} dev {VXLAN} dst {} self permanent", peer.address)));
            setup.push(words(&format!("ip neigh replace {gateway} lladdr {theirs} dev {VXLAN} nud permanent")));
            setup.push(words(&format!("ip route replace {} via {gateway} dev {VXLAN} onlink", peer.pod_network)));
        }
        teardown.push(words(&format!("ip link del {VXLAN}")));
    }
    Network { setup, teardown, vxlan }
}

/// Chain of ours in the table nat that hides pods behind their node.
pub const MASQUERADE_CHAIN: &str = "CLUSTERCTL-MASQ";

/// The rules that let pods reach the outside: masquerade what leaves the pod network of the cluster from this node's
/// pods, unless it goes to another pod. Commands for `iptables` (or `ip6tables`), each safe to run again through `-C`
/// first: (check, add).
pub fn masquerade(order: &NetworkOrder) -> Vec<(Option<Arguments>, Arguments)> {
    let program = if order.pod_network.addr().is_ipv4() { "iptables" } else { "ip6tables" };
    let own = order.pod_network;
    let all = order.cluster_network;
    let multicast = if own.addr().is_ipv4() { "224.0.0.0/4" } else { "ff00::/8" };
    let rule = |chain: &str, match_and_target: &str| {
        let check = words(&format!("{program} -w -t nat -C {chain} {match_and_target}"));
        let add = words(&format!("{program} -w -t nat -A {chain} {match_and_target}"));
        (Some(check), add)
    };
    vec![
        (
            Some(words(&format!("{program} -w -t nat -n -L {MASQUERADE_CHAIN}"))),
            words(&format!("{program} -w -t nat -N {MASQUERADE_CHAIN}")),
        ),
        rule(MASQUERADE_CHAIN, &format!("-d {all} -j RETURN")),
        rule(MASQUERADE_CHAIN, &format!("-d {multicast} -j RETURN")),
        rule(MASQUERADE_CHAIN, "-j MASQUERADE"),
        rule("POSTROUTING", &format!("-s {own} -j {MASQUERADE_CHAIN}")),
    ]
}

/// What removes the masquerading again; each may fail when there is nothing to remove.
pub fn masquerade_teardown(pod_network: &ipnet::IpNet) -> Vec<Arguments> {
    let program = if pod_network.addr().is_ipv4() { "iptables" } else { "ip6tables" };
    vec![
        words(&format!("{program} -w -t nat -D POSTROUTING -s {pod_network} -j {MASQUERADE_CHAIN}")),
        words(&format!("{program} -w -t nat -F {MASQUERADE_CHAIN}")),
        words(&format!("{program} -w -t nat -X {MASQUERADE_CHAIN}")),
    ]
}

/// What undoes a command of [`masquerade`]: the jump to our chain is deleted, then the chain, which takes its rules along.
fn undo(add: &Arguments) -> Vec<Arguments> {
    let text = add.join(" ");
    if text.contains(" -A POSTROUTING ") {
        vec![words(&text.replace(" -A ", " -D "))]
    } else if text.contains(" -N ") {
        vec![words(&text.replace(" -N ", " -F ")), words(&text.replace(" -N ", " -X "))]
    } else {
        Vec::new()
    }
}

/// A shell script that sets routes and masquerading up, for the boot. One way that fails does not keep the others from being
/// set; it ends with 1 then. `path` finds a program's absolute path.
pub fn setup_script(
    network: &Network,
    masquerade: &[(Option<Arguments>, Arguments)],
    path: &dyn Fn(&str) -> String,
) -> String {
    let mut text = format!("{SCRIPT_HEAD}failed=0\n");
    for arguments in &network.setup {
        let command = line(arguments, path);
        text.push_str(&match is_link(arguments) {
            // After a restart of the unit the link is there already.
            true => format!("{command} || true\n"),
            false => format!("{command} || failed=1\n"),
        });
    }
    for (check, add) in masquerade {
        let add = line(add, path);
        text.push_str(&match check {
            Some(check) => format!("{} >/dev/null 2>&1 || {add} || failed=1\n", line(check, path)),
            None => format!("{add} || failed=1\n"),
        });
    }
    text.push_str("exit $failed\n");
    text
}

/// A shell script that undoes what [`setup_script`] does: one command a line, each of which may find nothing to undo.
pub fn teardown_script(
    network: &Network,
    masquerade: &[(Option<Arguments>, Arguments)],
    path: &dyn Fn(&str) -> String,
) -> String {
    let rules = masquerade.iter().rev().flat_map(|(_, add)| undo(add));
    let commands = network.teardown.iter().cloned().chain(rules);
    commands.fold(SCRIPT_HEAD.to_owned(), |text, arguments| format!("{text}{}\n", line(&arguments, path)))
}

/// The commands of a [`teardown_script`].
pub fn teardown_commands(script: &str) -> Vec<Arguments> {
    script.lines().filter(|line| !line.starts_with('#')).map(words).filter(|words| !words.is_empty()).collect()
}

/// The unit that runs these scripts at boot and at its end. It is the same whatever nodes there are: systemd need not read it
/// again when one comes or goes, which takes a tenth of a second of each node's processor.
pub fn unit(setup: &Path, teardown: &Path) -> String {
    let (setup, teardown) = (setup.display(), teardown.display());
    format!(
        "# Written by clusterctl: the ways to the pods of the other nodes.\n\
         [Unit]\n\
         Description=Routes between the pods of this cluster's nodes\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         RequiresMountsFor={setup}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/sh {setup}\n\
         ExecStop=-/bin/sh {teardown}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

fn is_link(arguments: &Arguments) -> bool {
    arguments.starts_with(&words("ip link add"))
}

fn line(arguments: &Arguments, path: &dyn Fn(&str) -> String) -> String {
    format!("{} {}", path(&arguments[0]), arguments[1..].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn addresses() -> Vec<LinkAddress> {
        vec![LinkAddress { link: "eth0".into(), address: "10.0.0.11/24".parse().unwrap() }]
    }

    fn lines(commands: &[Arguments]) -> Vec<String> {
        commands.iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn neighbours_get_a_plain_route() {
        let network = network(&order(&[("10.0.0.21", "10.244.1.0/24")]), &addresses(), 1500);
        assert!(!network.vxlan);
        assert_eq!(lines(&network.setup), ["ip route replace 10.244.1.0/24 via 10.0.0.21"]);
        assert_eq!(lines(&network.teardown), ["ip route del 10.244.1.0/24 via 10.0.0.21"]);
    }

    #[test]
    fn distant_nodes_are_reached_through_vxlan_with_static_entries() {
        let network = network(&order(&[("10.9.0.21", "10.244.1.0/24")]), &addresses(), 1500);
        assert!(network.vxlan);
        assert_eq!(
            lines(&network.setup),
            [
                "ip link add clusterctl-vx address 0e:c1:0a:00:00:0b mtu 1450 type vxlan id 4289 local 10.0.0.11 dstport 4789 nolearning",
                "ip address replace 10.244.0.0/32 dev clusterctl-vx",
                "ip link set clusterctl-vx up",
                "bridge fdb replace 0e:c1:0a:09:00:15 dev clusterctl-vx dst 10.9.0.21 self permanent",
                "ip neigh replace 10.244.1.0 lladdr 0e:c1:0a:09:00:15 dev clusterctl-vx nud permanent",
                "ip route replace 10.244.1.0/24 via 10.244.1.0 dev clusterctl-vx onlink",
            ]
        );
        assert_eq!(lines(&network.teardown), ["ip link del clusterctl-vx"]);
    }

    #[test]
    fn the_plugin_gets_the_nodes_own_network() {
        let configuration = cni_configuration(&order(&[]));
        assert_eq!(configuration["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
        assert_eq!(configuration["plugins"][0]["ipam"]["routes"][0]["dst"], "0.0.0.0/0");
    }

    #[test]
    fn pods_keep_their_address_among_themselves() {
        let rules = masquerade(&order(&[]));
        let added: Vec<String> = rules.iter().map(|(_, add)| add.join(" ")).collect();
        assert_eq!(added[1], "iptables -w -t nat -A CLUSTERCTL-MASQ -d 10.244.0.0/16 -j RETURN");
        assert_eq!(added[4], "iptables -w -t nat -A POSTROUTING -s 10.244.0.0/24 -j CLUSTERCTL-MASQ");
    }

    fn scripts(order: &NetworkOrder) -> (String, String) {
        let (network, masquerade) = (network(order, &addresses(), 1500), masquerade(order));
        let path = |name: &str| format!("/usr/sbin/{name}");
        (setup_script(&network, &masquerade, &path), teardown_script(&network, &masquerade, &path))
    }

    #[test]
    fn the_scripts_name_programs_by_their_absolute_path() {
        let (setup, teardown) = scripts(&order(&[("10.0.0.21", "10.244.1.0/24")]));
        assert!(setup.contains("\n/usr/sbin/ip route replace 10.244.1.0/24 via 10.0.0.21 || failed=1\n"));
        assert!(
            setup.contains(
                "\n/usr/sbin/iptables -w -t nat -C POSTROUTING -s 10.244.0.0/24 -j CLUSTERCTL-MASQ >/dev/null"
            )
        );
        assert!(setup.ends_with("\nexit $failed\n"));
        assert_eq!(
            lines(&teardown_commands(&teardown)),
            [
                "/usr/sbin/ip route del 10.244.1.0/24 via 10.0.0.21",
                "/usr/sbin/iptables -w -t nat -D POSTROUTING -s 10.244.0.0/24 -j CLUSTERCTL-MASQ",
                "/usr/sbin/iptables -w -t nat -F CLUSTERCTL-MASQ",
                "/usr/sbin/iptables -w -t nat -X CLUSTERCTL-MASQ",
            ]
        );
    }

    /// The scripts as a shell runs them, with programs that only say what they are called with; `refused` fails.
    #[expect(clippy::disallowed_methods, reason = "a shell judges what is written for one")]
    fn said_by_a_shell(script: &str, refused: &str) -> (Option<i32>, String) {
        let functions = format!("told() {{ echo \"$@\"; case \"$*\" in *'{refused}'*) return 2;; esac; }}\n");
        let script = functions + &script.replace("/usr/sbin/", "told ");
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_way_that_cannot_be_set_keeps_nobody_from_the_others_and_is_told() {
        let (setup, teardown) = scripts(&order(&[("10.0.0.21", "10.244.1.0/24"), ("10.9.0.22", "10.244.2.0/24")]));
        let all = ["ip route replace 10.244.1.0/24", "ip link add", "bridge fdb", "ip route replace 10.244.2.0/24"];
        for (refused, code) in [("nothing", 0), ("ip link add", 0), ("ip route replace 10.244.1.0", 1), ("bridge", 1)] {
            let (ended, said) = said_by_a_shell(&setup, refused);
            assert_eq!(ended, Some(code), "{refused}");
            assert!(all.iter().all(|command| said.contains(command)), "{refused}: {said}");
        }
        // What is there is not added: the shell's functions are silent about checks.
        assert!(!said_by_a_shell(&setup, "nothing").1.contains("-A CLUSTERCTL-MASQ"));
        assert!(said_by_a_shell(&setup, "-C CLUSTERCTL-MASQ").1.contains("-A CLUSTERCTL-MASQ -j MASQUERADE"));
        let (_, undone) = said_by_a_shell(&teardown, "ip ");
        assert_eq!(undone.lines().count(), teardown_commands(&teardown).len(), "{undone}");
    }

    #[test]
    fn the_unit_is_the_same_for_all_nodes() {
        let text = unit(Path::new("/a/up.sh"), Path::new("/a/down.sh"));
        assert!(text.contains("\nExecStart=/bin/sh /a/up.sh\nExecStop=-/bin/sh /a/down.sh\n"));
        assert!(text.contains("\nRequiresMountsFor=/a/up.sh\n") && text.contains("WantedBy=multi-user.target"));
    }
}
