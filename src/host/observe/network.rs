//! Addresses, routes and listening sockets, from what the kernel and `ip` print.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::fact::{LinkAddress, Listening, Route};
use crate::failure::Result;
use crate::host::{EntryKind, Host};

/// Routes beyond this many are left out; a host with a full table of the internet has a million.
const MAXIMUM_ROUTES: usize = 4096;

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    family: String,
    local: Option<IpAddr>,
    #[serde(default)]
    prefixlen: u8,
}

/// The loopback link.
const LOOPBACK: &str = "lo";

/// What `ip -json address show up` prints, loopback left out.
pub(super) fn addresses(json: &str) -> Vec<LinkAddress> {
    of_links(json, |link| link != LOOPBACK)
}

/// The addresses of the loopback link in what `ip -json address show up` prints, IPv4 first.
pub(super) fn loopback_addresses(json: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        of_links(json, |link| link == LOOPBACK).iter().map(|found| found.address.addr()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

fn of_links(json: &str, wanted: impl Fn(&str) -> bool) -> Vec<LinkAddress> {
    // Links without addresses come as empty objects.
    let links: Vec<Link> = serde_json::from_str(json).unwrap_or_default();
    let mut addresses = Vec::new();
    for link in links.into_iter().filter(|link| wanted(&link.ifname)) {
        for address in link.addr_info.iter().filter(|address| address.family.starts_with("inet")) {
            let network = address.local.and_then(|local| IpNet::new(local, address.prefixlen).ok());
            if let Some(network) = network {
                addresses.push(LinkAddress { link: link.ifname.clone(), address: network });
            }
        }
    }
    addresses
}

/// /proc/net/route: hexadecimal numbers in the machine's byte order.
pub(super) fn routes(text: &str) -> Vec<Route> {
    let hexadecimal = |field: &str| u32::from_str_radix(field, 16).ok().map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
    let route = |line: &str| -> Option<Route> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [link, destination, via, flags, _, _, _, mask, ..] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let up = flags & 1 != 0;
        let refused = flags & 0x200 != 0;
        let destination = Ipv4Net::with_netmask(hexadecimal(destination)?, hexadecimal(mask)?).ok()?;
        let via = hexadecimal(via).filter(|via| !via.is_unspecified()).map(IpAddr::V4);
        (up && !refused).then(|| Route { destination: IpNet::V4(destination), via, link: (*link).to_owned() })
    };
    text.lines().skip(1).filter_map(route).take(MAXIMUM_ROUTES).collect()
}

/// /proc/net/ipv6_route, without what is the host itself, loopback, multicast and refused.
pub(super) fn routes6(text: &str) -> Vec<Route> {
    let hexadecimal = |field: &str| u128::from_str_radix(field, 16).ok().map(Ipv6Addr::from);
    let route = |line: &str| -> Option<Route> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, _, _, via, _, _, _, flags, link] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let local = flags & 0x8000_0000 != 0 || flags & 0x0020_0000 != 0;
        let refused = flags & 0x0200 != 0;
        let destination = Ipv6Net::new(hexadecimal(destination)?, u8::from_str_radix(length, 16).ok()?).ok()?;
        let uninteresting = local || refused || *link == LOOPBACK || destination.addr().is_multicast();
        let via = hexadecimal(via).filter(|via| !via.is_unspecified()).map(IpAddr::V6);
        (!uninteresting).then(|| Route { destination: IpNet::V6(destination), via, link: (*link).to_owned() })
    };
    text.lines().filter_map(route).take(MAXIMUM_ROUTES).collect()
}

/// A socket that listens.
#[derive(Debug, PartialEq)]
pub(super) struct Socket {
    pub address: IpAddr,
    pub port: u16,
    pub inode: u64,
}

/// /proc/net/tcp or tcp6: sockets in the state LISTEN (0A).
pub(super) fn sockets(text: &str) -> Vec<Socket> {
    let socket = |line: &str| -> Option<Socket> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
        let (address, port) = local.split_once(':')?;
        let address = match address.len() {
            8 => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes())),
            32 => {
                let mut bytes = [0; 16];
                for (word, into) in bytes.chunks_exact_mut(4).enumerate() {
                    let digits = address.get(word * 8..word * 8 + 8)?;
                    into.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
                }
                IpAddr::V6(Ipv6Addr::from(bytes))
            }
            _ => return None,
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        (*state == "0A").then(|| inode.parse().ok().map(|inode| Socket { address, port, inode }))?
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// Finds the processes that hold sockets, by the links in /proc/PID/fd; it ends when all are found.
pub(super) fn with_processes(host: &dyn Host, sockets: Vec<Socket>) -> Result<Vec<Listening>> {
    let mut wanted: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, socket) in sockets.iter().enumerate() {
        wanted.entry(format!("socket:[{}]", socket.inode)).or_default().push(index);
    }
    let mut names: Vec<Option<String>> = vec![None; sockets.len()];
    let processes = host.list(Path::new("/proc"))?.into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    for process in processes {
        if wanted.is_empty() {
            break;
        }
        let descriptors = Path::new("/proc").join(&process).join("fd");
        // A process may be gone by now, or not be ours to look at.
        for descriptor in host.list(&descriptors).unwrap_or_default() {
            let Ok(Some(entry)) = host.entry(&descriptors.join(descriptor)) else { continue };
            let EntryKind::Link(target) = entry.kind else { continue };
            if let Some(indexes) = target.to_str().and_then(|target| wanted.remove(target)) {
                let name = super::text(host, &format!("/proc/{process}/comm")).unwrap_or_default();
                for index in indexes {
                    names[index] = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
                }
            }
        }
    }
    let listening = sockets.into_iter().zip(names);
    Ok(listening.map(|(socket, process)| Listening { address: socket.address, port: socket.port, process }).collect())
}
