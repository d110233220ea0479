//! Which ports must be reachable from which host on which, and what it means when one is not. Pure.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::cluster::findings::{Finding, WAY, unmet};
use crate::host::reach::{Dial, Dialled, Transport};
use crate::inventory::NetworkPlugin;

/// The kubelet's port.
const KUBELET: u16 = 10250;

/// etcd's ports: for clients, and for its members among themselves.
const ETCD: [u16; 2] = [2379, 2380];

/// The port of VXLAN, which carries pods' packets to hosts of other subnets.
const VXLAN: u16 = 4789;

/// A host as far as ways are concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The address the cluster knows it by.
    pub address: std::net::IpAddr,
    /// Its subnets.
    pub networks: Vec<IpNet>,
    /// Whether it is, or will be, a control plane.
    pub control_plane: bool,
    /// Ports somebody listens on there already.
    pub taken: Vec<u16>,
}

/// What of the configuration decides about ports.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The API server's.
    pub api: u16,
    /// Whether control planes have etcd.
    pub local_etcd: bool,
    /// Who makes the pod network.
    pub plugin: NetworkPlugin,
}

/// One way that must be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Index of the host that dials.
    pub from: usize,
    /// Index of the host that is dialled.
    pub to: usize,
    /// How.
    pub transport: Transport,
    /// Where.
    pub port: u16,
}

/// Every way that must be open between these hosts.
pub fn needs(places: &[Place], settings: Settings) -> Vec<Need> {
    let mut needs = Vec::new();
    for (from, own) in places.iter().enumerate() {
        for (to, other) in places.iter().enumerate().filter(|(to, _)| *to != from) {
            let mut need = |transport, port| needs.push(Need { from, to, transport, port });
            if other.control_plane {
                need(Transport::Tcp, settings.api);
            }
            if own.control_plane {
                need(Transport::Tcp, KUBELET);
            }
            if own.control_plane && other.control_plane && settings.local_etcd {
                ETCD.into_iter().for_each(|port| need(Transport::Tcp, port));
            }
            let neighbours = own.networks.iter().any(|network| network.contains(&other.address));
            if settings.plugin == NetworkPlugin::Bridge && !neighbours {
                need(Transport::Udp, VXLAN);
            }
        }
    }
    needs
}

/// The needs of hosts that are new: what is at work already is not disturbed, so nobody listens there in its place.
pub fn of_new(needs: Vec<Need>, places: &[Place], is_new: impl Fn(usize) -> bool) -> Vec<Need> {
    let concerns = |need: &Need| is_new(need.from) || is_new(need.to);
    needs.into_iter().filter(|need| concerns(need) && (is_new(need.to) || is_taken(need, places))).collect()
}

/// The ports a host has to listen on for it: nobody listens there yet.
pub fn listened(needs: &[Need], places: &[Place], host: usize) -> Vec<(Transport, u16)> {
    let free = |need: &&Need| need.to == host && !is_taken(need, places);
    let mut ports: Vec<_> = needs.iter().filter(free).map(|need| (need.transport, need.port)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Whether the component itself listens there. Who listens on a UDP port does not tell: VXLAN is the kernel's.
fn is_taken(need: &Need, places: &[Place]) -> bool {
    need.transport == Transport::Tcp && places[need.to].taken.contains(&need.port)
}

/// Whether we or a component listen where a need leads; where nobody does, nothing can be learned.
pub fn can_be_learned(need: &Need, places: &[Place], listening: impl Fn(usize, Transport, u16) -> bool) -> bool {
    listening(need.to, need.transport, need.port) || is_taken(need, places)
}

/// What a host has to dial, with the needs it is for. `listening` says whether a host could take a port.
pub fn dials(
    needs: &[Need],
    places: &[Place],
    host: usize,
    word: &str,
    listening: impl Fn(usize, Transport, u16) -> bool,
) -> Vec<(Need, Dial)> {
    let mut dials = Vec::new();
    for need in needs.iter().filter(|need| need.from == host) {
        if !can_be_learned(need, places, &listening) {
            continue;
        }
        let ours = listening(need.to, need.transport, need.port);
        let address = SocketAddr::new(places[need.to].address, need.port);
        let word = ours.then(|| word.to_owned());
        dials.push((need.clone(), Dial { address, transport: need.transport, word }));
    }
    dials
}

/// What it means that a way is not open; `None` when it is.
pub fn judge(need: &Need, places: &[Place], dialled: Dialled) -> Option<Finding> {
    let (from, to) = (&places[need.from], &places[need.to]);
    let transport = match need.transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    };
    let target = format!("{transport} port {} of {} ({})", need.port, to.name, to.address);
    let (sentence, advice) = match dialled {
        Dialled::Reached => return None,
        Dialled::Other => (
            format!("somebody else answers for {target}"),
            "look for an address that two machines have, or for a proxy in between",
        ),
        Dialled::Refused => {
            (format!("it is refused {target}"), "open the port in the firewall of that host, or of the network")
        }
        Dialled::Silent => (
            format!("it gets no answer from {target}"),
            "open the port in the firewall of that host, or of the network in between",
        ),
        Dialled::NoRoute => {
            (format!("it has no way to {target}"), "correct its routes, or the addresses in the inventory")
        }
    };
    Some(Finding::error(format!("{WAY}{}", need.port), unmet(sentence).advise(advice)).on(&from.name))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Need, Place, Settings, dials, judge, listened, needs, of_new};
    use crate::host::reach::{Dialled, Transport};
    use crate::inventory::NetworkPlugin;

    fn place(name: &str, address: &str, control_plane: bool) -> Place {
        let address: ipnet::IpNet = address.parse().unwrap();
        Place { name: name.into(), address: address.addr(), networks: vec![address], control_plane, taken: Vec::new() }
    }

    fn settings() -> Settings {
        Settings { api: 6443, local_etcd: true, plugin: NetworkPlugin::Bridge }
    }

    fn shown(needs: &[Need], places: &[Place]) -> Vec<String> {
        let line = |need: &Need| {
            let transport = if need.transport == Transport::Udp { "/udp" } else { "" };
            format!("{}>{} {}{transport}", places[need.from].name, places[need.to].name, need.port)
        };
        needs.iter().map(line).collect()
    }

    #[test]
    fn every_way_by_roles_and_subnets() {
        let places =
            [place("a", "10.0.0.1/24", true), place("b", "10.0.0.2/24", true), place("w", "10.9.0.1/24", false)];
        assert_eq!(
            shown(&needs(&places, settings()), &places),
            [
                "a>b 6443",
                "a>b 10250",
                "a>b 2379",
                "a>b 2380",
                "a>w 10250",
                "a>w 4789/udp",
                "b>a 6443",
                "b>a 10250",
                "b>a 2379",
                "b>a 2380",
                "b>w 10250",
                "b>w 4789/udp",
                "w>a 6443",
                "w>a 4789/udp",
                "w>b 6443",
                "w>b 4789/udp",
            ]
        );
        let elsewhere = Settings { local_etcd: false, plugin: NetworkPlugin::None, ..settings() };
        assert_eq!(shown(&needs(&places[1..], elsewhere), &places[1..]), ["b>w 10250", "w>b 6443"]);
    }

    #[test]
    fn only_what_is_new_is_tried_and_nobody_listens_for_a_member() {
        let mut places = [
            place("a", "10.0.0.1/24", true),
            place("b", "10.0.0.2/24", true),
            place("w", "10.9.0.1/24", false),
            place("n", "10.0.0.3/24", false),
        ];
        places[0].taken = vec![6443, 10250];
        // The API server of b does not run now; n is new.
        let new = of_new(needs(&places, settings()), &places, |host| host == 3);
        assert_eq!(shown(&new, &places), ["a>n 10250", "b>n 10250", "w>n 4789/udp", "n>a 6443"]);
        assert!((0..3).all(|member| listened(&new, &places, member).is_empty()));
        assert!(of_new(needs(&places, settings()), &places, |_| false).is_empty());
    }

    #[test]
    fn what_a_component_listens_on_is_dialled_as_it_is() {
        let mut places = [place("a", "10.0.0.1/24", true), place("w", "10.0.0.2/24", false)];
        places[0].taken = vec![6443];
        let needs = needs(&places, settings());
        assert!(listened(&needs, &places, 0).is_empty());
        assert_eq!(listened(&needs, &places, 1), [(Transport::Tcp, 10250)]);
        let of_worker = dials(&needs, &places, 1, "word", |_, _, _| false);
        assert_eq!(of_worker.len(), 1);
        assert_eq!(
            (of_worker[0].1.address.to_string().as_str(), of_worker[0].1.word.as_deref()),
            ("10.0.0.1:6443", None)
        );
        let of_control_plane = dials(&needs, &places, 0, "word", |host, _, port| (host, port) == (1, 10250));
        assert_eq!(of_control_plane[0].1.word.as_deref(), Some("word"));
        // It could not be taken, and nobody listens: nothing to learn.
        assert!(dials(&needs, &places, 0, "word", |_, _, _| false).is_empty());
    }

    #[rstest]
    #[case(Dialled::Reached, None)]
    #[case(Dialled::Refused, Some("w: [Reachable-6443] it is refused TCP port 6443 of a (10.0.0.1)"))]
    #[case(Dialled::Silent, Some("w: [Reachable-6443] it gets no answer from TCP port 6443 of a (10.0.0.1)"))]
    fn a_way_that_is_closed_is_told_from_where_it_was_tried(#[case] dialled: Dialled, #[case] sentence: Option<&str>) {
        let places = [place("a", "10.0.0.1/24", true), place("w", "10.0.0.2/24", false)];
        let need = Need { from: 1, to: 0, transport: Transport::Tcp, port: 6443 };
        let finding = judge(&need, &places, dialled);
        assert_eq!(finding.map(|finding| finding.sentence()).as_deref(), sentence);
    }
}
