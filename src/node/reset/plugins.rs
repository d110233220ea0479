//! What CNI plugins of others leave on a host, by a table of those that are known. kubeadm leaves all of it where it is and
//! tells the reader to remove it. What was there before our first `up` stays, and so does what no row of the table knows:
//! the end names it.

use std::path::Path;

use super::sweep::Sweep;
use crate::failure::Result;
use crate::host::listing::Listing;
use crate::host::{Command, Host};

/// Where plugins are configured.
const DIRECTORY: &str = "/etc/cni/net.d";

/// A plugin that is known. In names of files and links, a `*` at the end stands for the rest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plugin {
    /// Its files in /etc/cni/net.d: where one lies, the plugin was here.
    files: &'static [&'static str],
    /// Its own links.
    links: &'static [&'static str],
    /// Links that others make, too: they are the plugin's only where it was.
    shared_links: &'static [&'static str],
    /// Links of the kernel's own, that cannot be removed: where the plugin was, they lose their addresses and go down.
    lowered_links: &'static [&'static str],
    /// Beginnings of the names of its chains in the firewall.
    chains: &'static [&'static str],
    /// Beginnings of the comments of its rules in chains of others.
    comments: &'static [&'static str],
    /// Its nftables tables.
    tables: &'static [&'static str],
    /// Beginnings of the names of its ipsets.
    sets: &'static [&'static str],
    /// What its routes are marked with (`proto`); others mark theirs so, too: they are the plugin's only where it was.
    route_protocols: &'static [&'static str],
    /// Its folders, where it was.
    directories: &'static [&'static str],
}

const NOTHING: Plugin = Plugin {
    files: &[],
    links: &[],
    shared_links: &[],
    lowered_links: &[],
    chains: &[],
    comments: &[],
    tables: &[],
    sets: &[],
    route_protocols: &[],
    directories: &[],
};

/// All that are known. Canal is Calico's rules over flannel's links.
const KNOWN: &[Plugin] = &[
    Plugin {
        files: &["10-flannel.conf*", "10-canal.conf*"],
        links: &["flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6"],
        shared_links: &["cni0"],
        chains: &["FLANNEL-"],
        comments: &["flanneld "],
        tables: &["flannel-ipv4", "flannel-ipv6"],
        directories: &["/run/flannel"],
        ..NOTHING
    },
    Plugin {
        files: &["10-calico.conf*", "10-canal.conf*", "calico-kubeconfig"],
        links: &[
            "cali*",
            "vxlan.calico",
            "vxlan-v6.calico",
            "wireguard.cali",
            "wg-v6.cali",
            "bpfin.cali",
            "bpfout.cali",
        ],
        lowered_links: &["tunl0"],
        chains: &["cali-"],
        comments: &["cali:"],
        tables: &["calico"],
        sets: &["cali40", "cali60"],
        route_protocols: &["bird", "80"],
        directories: &["/var/lib/calico"],
        ..NOTHING
    },
    Plugin {
        files: &["05-cilium.conf*"],
        links: &["cilium_*", "lxc_health"],
        chains: &["CILIUM_", "OLD_CILIUM_"],
        comments: &["cilium: "],
        sets: &["cilium_"],
        ..NOTHING
    },
    Plugin {
        files: &["10-weave.conf*"],
        links: &["vethwe*", "vxlan-6784"],
        shared_links: &["weave", "datapath"],
        chains: &["WEAVE"],
        sets: &["weave-"],
        ..NOTHING
    },
    Plugin {
        files: &["10-kuberouter.conf*"],
        links: &["kube-bridge", "kube-dummy-if"],
        sets: &["kube-router-", "inet6:kube-router-"],
        ..NOTHING
    },
    Plugin { files: &["10-antrea.conf*"], links: &["antrea-*"], chains: &["ANTREA-"], sets: &["ANTREA-"], ..NOTHING },
];

/// What packages of runtimes bring into the folder: no cluster left it.
const OF_RUNTIMES: &[&str] =
    &["10-containerd-net*", "10-crio*", "11-crio*", "100-crio*", "87-podman*", "200-loopback*", "99-loopback*", ".*"];

/// What a host was before our first `up`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Before {
    /// Nobody noted it: no `up` has been here.
    Unknown,
    Noted(Listing),
    /// It was noted and cannot be read: anything may have been there.
    Unreadable,
}

/// The plugins of a host; read before anything is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plugins {
    here: Vec<&'static Plugin>,
    before: Before,
}

impl Plugins {
    /// Looks which of them were here.
    ///
    /// # Errors
    /// When /etc/cni/net.d cannot be read.
    pub(super) fn read(host: &dyn Host) -> Result<Self> {
        let before = match Listing::kept(host) {
            Ok(None) => Before::Unknown,
            Ok(Some(listing)) => Before::Noted(listing),
            Err(_) => Before::Unreadable,
        };
        let mut plugins = Self { here: Vec::new(), before };
        let names = host.list(Path::new(DIRECTORY))?;
        let is_here = |plugin: &&Plugin| names.iter().any(|name| fits(plugin.files, name) && !plugins.had_file(name));
        plugins.here = KNOWN.iter().filter(is_here).collect();
        Ok(plugins)
    }

    /// Whether a line of the listing of before begins so.
    fn had(&self, beginning: &str) -> bool {
        match &self.before {
            Before::Unknown => false,
            Before::Noted(listing) => listing.0.iter().any(|line| line.starts_with(beginning)),
            Before::Unreadable => true,
        }
    }

    fn had_file(&self, name: &str) -> bool {
        ["file", "link"].iter().any(|kind| self.had(&format!("{kind} {DIRECTORY}/{name} ")))
    }

    fn had_link(&self, name: &str) -> bool {
        match &self.before {
            Before::Noted(listing) => listing.0.contains(&format!("network link {name}")),
            _ => self.had(""),
        }
    }

    /// Whether a chain in the firewall is a plugin's.
    pub(super) fn own_chain(&self, chain: &str) -> bool {
        KNOWN.iter().any(|plugin| begins(plugin.chains, chain)) && !self.had_in_firewall(&format!("chain {chain}"))
    }

    /// Whether a rule with this comment is a plugin's, in whatever chain it stands.
    pub(super) fn own_comment(&self, comment: &str) -> bool {
        KNOWN.iter().any(|plugin| begins(plugin.comments, comment)) && !self.had_in_firewall(comment)
    }

    fn had_in_firewall(&self, words: &str) -> bool {
        match &self.before {
            Before::Noted(listing) => {
                listing.0.iter().any(|line| line.starts_with("ip") && line.contains("tables ") && line.contains(words))
            }
            _ => self.had(""),
        }
    }

    /// Whether an nftables table is a plugin's.
    pub(super) fn own_table(&self, family: &str, table: &str) -> bool {
        KNOWN.iter().any(|plugin| plugin.tables.contains(&table)) && !self.had(&format!("nft table {family} {table}"))
    }

    /// Whether a link is a plugin's and can be removed.
    pub(super) fn own_link(&self, name: &str) -> bool {
        let own = KNOWN.iter().any(|plugin| fits(plugin.links, name));
        let shared = self.here.iter().any(|plugin| fits(plugin.shared_links, name));
        (own || shared) && !self.had_link(name)
    }

    /// Whether a link was used by a plugin and can only be set down.
    pub(super) fn lowers(&self, name: &str) -> bool {
        self.here.iter().any(|plugin| plugin.lowered_links.contains(&name)) && !self.had_link(name)
    }

    /// Whether an ipset is a plugin's. Listings have none; a set belongs to chains, and those are listed.
    pub(super) fn own_set(&self, name: &str) -> bool {
        let is_own = |plugin: &&Plugin| begins(plugin.sets, name);
        KNOWN.iter().filter(is_own).any(|plugin| {
            !plugin.chains.iter().any(|chain| self.had_in_firewall(&format!("chain {chain}")))
                && self.before != Before::Unreadable
        })
    }

    /// Removes the routes of plugins that were here.
    pub(super) async fn remove_routes(&self, host: &dyn Host, sweep: &mut Sweep) {
        for &protocol in self.here.iter().flat_map(|plugin| plugin.route_protocols) {
            for family in ["-4", "-6"] {
                let list = Command::new("ip", &[family, "route", "show", "proto", protocol]);
                let Ok(listed) = host.run(list).await else { continue };
                let text = listed.text();
                for route in text.lines().filter(|line| listed.success() && !line.trim().is_empty()) {
                    let words: Vec<&str> = route.split_whitespace().collect();
                    if self.had(&format!("route {}", words.join(" "))) {
                        continue;
                    }
                    // Its destination, and what kind it is where a word says so: `blackhole 10.244.1.0/26`.
                    let is_kind = |word: &&str| matches!(*word, "blackhole" | "unreachable" | "prohibit");
                    let end = if words.first().is_some_and(is_kind) { 2 } else { 1 };
                    let Some(destination) = words.get(..end) else { continue };
                    let arguments =
                        [[family, "route", "delete"].as_slice(), destination, &["proto", protocol]].concat();
                    let removed = host.run(Command::new("ip", &arguments)).await;
                    let removed = removed.map(|output| output.success());
                    sweep.changes_of(removed, &format!("route to {} removed", destination.join(" ")));
                }
            }
        }
    }

    /// Files and folders of plugins that are not ours: those that are known, and those that stay, to be named.
    ///
    /// # Errors
    /// When /etc/cni/net.d cannot be read.
    pub(super) fn files(&self, host: &dyn Host) -> Result<Files> {
        let mut files = Files::default();
        for name in host.list(Path::new(DIRECTORY))? {
            let path = format!("{DIRECTORY}/{name}");
            if self.had_file(&name) || self.had(&format!("directory {path} ")) || fits(OF_RUNTIMES, &name) {
                continue;
            }
            let known = KNOWN.iter().any(|plugin| fits(plugin.files, &name));
            if known { files.files.push(path) } else { files.left.push(path) }
        }
        let directories = self.here.iter().flat_map(|plugin| plugin.directories);
        let new = directories.filter(|directory| !self.had(&format!("directory {directory} ")));
        files.directories = new.map(|directory| (*directory).to_owned()).collect();
        Ok(files)
    }
}

/// See [`Plugins::files`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// Of plugins that are known.
    pub(super) files: Vec<String>,
    /// Folders of plugins that were here.
    pub(super) directories: Vec<String>,
    /// Files of /etc/cni/net.d that no row knows.
    pub(super) left: Vec<String>,
}

fn begins(beginnings: &[&str], name: &str) -> bool {
    beginnings.iter().any(|beginning| name.starts_with(beginning))
}

fn fits(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => *pattern == name,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Files, Plugins};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::host::listing::Listing;
    use crate::node::reset::sweep::Sweep;

    fn with(file: &str, before: &[&str]) -> (FakeHost, Plugins) {
        let host = FakeHost::new().file(format!("/etc/cni/net.d/{file}"), "{}");
        if !before.is_empty() {
            Listing(before.iter().map(|line| (*line).to_owned()).collect()).keep(&host).unwrap();
        }
        let plugins = Plugins::read(&host).unwrap();
        (host, plugins)
    }

    #[rstest]
    #[case::its_own_link("10-flannel.conflist", &[], "flannel.1", true)]
    #[case::its_own_link_after_its_file("other.conf", &[], "flannel.1", true)]
    #[case::a_link_of_many("10-flannel.conflist", &[], "cni0", true)]
    #[case::of_another("10-bridge.conflist", &[], "cni0", false)]
    #[case::by_its_beginning("10-calico.conflist", &[], "cali0123456789a", true)]
    #[case::the_hosts("10-calico.conflist", &[], "eth0", false)]
    #[case::of_before("10-flannel.conflist", &["network link flannel.1"], "flannel.1", false)]
    #[case::plugin_of_before("10-flannel.conflist", &["file /etc/cni/net.d/10-flannel.conflist 0644 0:0 x"], "cni0", false)]
    fn a_link_goes(#[case] file: &str, #[case] before: &[&str], #[case] link: &str, #[case] expected: bool) {
        assert_eq!(with(file, before).1.own_link(link), expected);
    }

    #[rstest]
    #[case("cali-FORWARD", &[], true)]
    #[case("DOCKER", &[], false)]
    #[case("CILIUM_INPUT", &["iptables filter chain CILIUM_INPUT"], false)]
    #[case("CILIUM_INPUT", &["iptables filter chain cali-INPUT"], true)]
    fn a_chain_goes(#[case] chain: &str, #[case] before: &[&str], #[case] expected: bool) {
        assert_eq!(with("x", before).1.own_chain(chain), expected);
    }

    #[rstest]
    #[case("cali40s:abc", &[], true)]
    #[case("cali40s:abc", &["iptables filter chain cali-INPUT"], false)]
    #[case("mine", &[], false)]
    fn a_set_goes(#[case] set: &str, #[case] before: &[&str], #[case] expected: bool) {
        assert_eq!(with("x", before).1.own_set(set), expected);
    }

    #[test]
    fn a_tunnel_of_the_kernel_is_lowered_only_where_the_plugin_was() {
        assert!(with("10-calico.conflist", &[]).1.lowers("tunl0"));
        assert!(!with("10-flannel.conflist", &[]).1.lowers("tunl0"));
        assert!(!with("10-calico.conflist", &["network link tunl0"]).1.lowers("tunl0"));
    }

    #[test]
    fn files_that_nobody_knows_are_named_and_those_of_before_are_not() {
        let (host, plugins) = with("10-flannel.conflist", &["file /etc/cni/net.d/mine.conf 0644 0:0 x"]);
        let host = ["mine.conf", "50-new.conf", "200-loopback.conf"]
            .into_iter()
            .fold(host, |host, name| host.file(format!("/etc/cni/net.d/{name}"), "{}"));
        let expected = Files {
            files: vec!["/etc/cni/net.d/10-flannel.conflist".into()],
            directories: vec!["/run/flannel".into()],
            left: vec!["/etc/cni/net.d/50-new.conf".into()],
        };
        assert_eq!(plugins.files(&host), Ok(expected));
    }

    #[test]
    fn where_the_listing_of_before_is_damaged_nothing_is_a_plugins() {
        let host =
            FakeHost::new().file("/etc/cni/net.d/10-calico.conflist", "").file(crate::host::listing::BEFORE, "{");
        let plugins = Plugins::read(&host).unwrap();
        assert!(!plugins.own_link("cali0") && !plugins.own_chain("cali-x") && !plugins.own_set("cali40x"));
        assert_eq!(plugins.files(&host), Ok(Files::default()));
    }

    #[tokio::test]
    async fn routes_of_a_plugin_go_and_those_of_before_stay() {
        let (host, plugins) = with("10-calico.conflist", &["route 10.9.0.0/16 via 10.0.0.9 dev eth0"]);
        let host = host
            .answer(&["ip", "-4", "route", "show"], 0, "")
            .answer(
                &["ip", "-4", "route", "show", "proto", "bird"],
                0,
                "blackhole 10.244.1.0/26\n10.244.2.0/26 via 10.0.0.12 dev eth0\n10.9.0.0/16 via 10.0.0.9 dev eth0\n",
            )
            .answer(&["ip", "-6", "route", "show"], 0, "")
            .answer(&["ip", "-4", "route", "delete"], 0, "");
        let mut sweep = Sweep::new(&Events::nowhere());
        plugins.remove_routes(&host, &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(2));
        let done = host.done();
        let deleted: Vec<&String> = done.iter().filter(|line| line.contains("delete")).collect();
        assert_eq!(
            deleted,
            [
                "run ip -4 route delete blackhole 10.244.1.0/26 proto bird",
                "run ip -4 route delete 10.244.2.0/26 proto bird"
            ]
        );
    }
}
