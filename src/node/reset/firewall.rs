//! Chains and tables that kube-proxy, the kubelet and CNI plugins leave in the firewall, and rules that lead there or that a
//! plugin's comment marks. Other rules are not touched.

use super::plugins::Plugins;
use super::sweep::Sweep;
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host};

/// Beginnings of the names of chains that are Kubernetes', the CNI plugins' and our pod network's own.
const OWN_CHAINS: &[&str] = &["KUBE-", "CNI-", "CLUSTERCTL-"];

/// nftables tables that are kube-proxy's and the CNI plugins' own.
const OWN_TABLES: &[&str] = &["kube-proxy", "cni_hostport", "cni_plugins_masquerade"];

/// Families of the two address families, and the programs that save and restore their rules. `iptables` itself is one
/// of the two variants under another name; it counts where neither variant has a name of its own.
const FAMILIES: &[(&str, &str)] = &[("ip", "iptables"), ("ip6", "ip6tables")];

/// Removes them from every variant of the firewall this host has.
pub(super) async fn remove(host: &dyn Host, plugins: &Plugins, sweep: &mut Sweep) {
    for (family, program) in FAMILIES {
        let mut emptied = Vec::new();
        let mut found = false;
        for variant in ["-nft", "-legacy", ""] {
            if variant.is_empty() && found {
                break;
            }
            let program = format!("{program}{variant}");
            match remove_chains(host, &program, plugins).await {
                Ok(None) => {}
                Ok(Some(tables)) => {
                    found = true;
                    for (table, chains) in tables {
                        let what = if chains == 0 { "rules".to_owned() } else { format!("{chains} chains") };
                        sweep.changed(format!("{what} removed from table {table} of {program}"));
                        if variant != "-legacy" {
                            emptied.push(table);
                        }
                    }
                }
                Err(failure) => sweep.resisted(failure),
            }
        }
        for table in emptied {
            let removed = remove_table_without_rules(host, family, &table).await;
            sweep.changes_of(removed, &format!("empty nftables table {family} {table} removed"));
        }
    }
    if let Err(failure) = remove_tables(host, plugins, sweep).await {
        sweep.resisted(failure);
    }
}

/// What `program`-restore must be told to take our chains out of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Removal {
    table: String,
    chains: usize,
    commands: String,
}

/// Removes our chains from all tables of one variant; `None` where the host does not have it. Answers with each table
/// that was altered and the number of chains that went.
async fn remove_chains(host: &dyn Host, program: &str, plugins: &Plugins) -> Result<Option<Vec<(String, usize)>>> {
    // A program that is not there is this host's way; so is a kernel without the variant.
    let Ok(saved) = host.run(Command::new(format!("{program}-save"), &[])).await else { return Ok(None) };
    if !saved.success() {
        return Ok(None);
    }
    let removals = removals(&saved.text(), plugins);
    let input: String = removals.iter().map(|removal| removal.commands.as_str()).collect();
    if input.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let restore = Command::new(format!("{program}-restore"), &["--noflush"]).input(input);
    let restored = host.run(restore).await?;
    if !restored.success() {
        let words = String::from_utf8_lossy(&restored.stderr).trim().to_owned();
        return Err(Failure::new(Kind::Host, format!("Kubernetes' chains cannot be removed with {program}-restore"))
            .caused_by(words)
            .may_pass());
    }
    Ok(Some(removals.into_iter().map(|removal| (removal.table, removal.chains)).collect()))
}

/// Reads what a `save` program printed.
fn removals(saved: &str, plugins: &Plugins) -> Vec<Removal> {
    let is_own = |chain: &str| OWN_CHAINS.iter().any(|own| chain.starts_with(own)) || plugins.own_chain(chain);
    let mut removals = Vec::new();
    let mut table = "";
    let mut chains: Vec<&str> = Vec::new();
    let mut jumps: Vec<&str> = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            (table, chains, jumps) = (name, Vec::new(), Vec::new());
        } else if let Some(chain) = line.strip_prefix(':') {
            chains.extend(chain.split(' ').next().filter(|name| is_own(name)));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let chain = rule.split(' ').next().unwrap_or_default();
            let is_marked = || comment(rule).is_some_and(|comment| plugins.own_comment(comment));
            if !is_own(chain) && (target(rule).is_some_and(is_own) || is_marked()) {
                jumps.push(rule);
            }
        } else if line == "COMMIT" && !(chains.is_empty() && jumps.is_empty()) {
            let mut commands = format!("*{table}\n");
            commands.extend(jumps.iter().map(|rule| format!("-D {rule}\n")));
            commands.extend(chains.iter().map(|chain| format!("-F {chain}\n")));
            commands.extend(chains.iter().map(|chain| format!("-X {chain}\n")));
            commands.push_str("COMMIT\n");
            removals.push(Removal { table: table.to_owned(), chains: chains.len(), commands });
        }
    }
    removals
}

/// The comment of a rule.
fn comment(rule: &str) -> Option<&str> {
    let (_, rest) = rule.split_once("--comment ")?;
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map(|(comment, _)| comment),
        None => rest.split(' ').next(),
    }
}

/// The chain a rule leads to: the word after the last `-j` or `-g` that is not inside a quoted comment.
fn target(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let mut words = Vec::new();
    let mut start = 0;
    for (position, byte) in rule.bytes().enumerate() {
        match byte {
            b'"' if rule.as_bytes().get(position.wrapping_sub(1)) != Some(&b'\\') => quoted = !quoted,
            b' ' if !quoted => {
                words.push(&rule[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    words.push(&rule[start..]);
    let jump = words.iter().rposition(|word| matches!(*word, "-j" | "-g"))?;
    words.get(jump + 1).copied()
}

/// Removes kube-proxy's and the plugins' nftables tables.
async fn remove_tables(host: &dyn Host, plugins: &Plugins, sweep: &mut Sweep) -> Result<()> {
    let Ok(listed) = host.run(Command::new("nft", &["list", "tables"])).await else { return Ok(()) };
    for line in listed.text().lines().filter(|_| listed.success()) {
        let mut words = line.split_whitespace();
        if let (Some("table"), Some(family), Some(name)) = (words.next(), words.next(), words.next())
            && (OWN_TABLES.contains(&name) || plugins.own_table(family, name))
        {
            delete_table(host, family, name).await?;
            sweep.changed(format!("nftables table {family} {name} removed"));
        }
    }
    Ok(())
}

/// Removes a table that iptables-nft made on the way and that says nothing: no rule, no chain but the base chains, all
/// of which accept. iptables makes it again when it is needed.
async fn remove_table_without_rules(host: &dyn Host, family: &str, table: &str) -> Result<bool> {
    let Ok(listed) = host.run(Command::new("nft", &["list", "table", family, table])).await else { return Ok(false) };
    if !listed.success() || !says_nothing(&listed.text()) {
        return Ok(false);
    }
    delete_table(host, family, table).await?;
    Ok(true)
}

/// A chain that hangs on no hook is somebody's, also while it is empty.
fn says_nothing(listing: &str) -> bool {
    let is_chain = |line: &&str| line.starts_with("chain ") && line.ends_with('{');
    let is_hook =
        |line: &&str| line.starts_with("type ") && line.contains(" hook ") && line.ends_with("policy accept;");
    let lines = || listing.lines().map(str::trim);
    let alone = lines().all(|line| {
        line.is_empty()
            || line == "}"
            || line.starts_with('#')
            || (line.starts_with("table ") && line.ends_with('{'))
            || is_chain(&line)
            || is_hook(&line)
    });
    alone && lines().filter(is_chain).count() == lines().filter(is_hook).count()
}

async fn delete_table(host: &dyn Host, family: &str, table: &str) -> Result<()> {
    let output = host.run(Command::new("nft", &["delete", "table", family, table])).await?;
    if output.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(Kind::Host, format!("nftables table {family} {table} cannot be removed")).caused_by(words))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{comment, removals, remove, says_nothing, target};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::node::reset::plugins::Plugins;
    use crate::node::reset::sweep::Sweep;

    const SAVED: &str = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
        :CNI-abc - [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A PREROUTING -j DOCKER\n-A POSTROUTING -s 10.244.1.2/32 -m comment --comment \"name: \\\"x\\\" -j KUBE-NO\" -j CNI-abc\n\
        -A KUBE-SERVICES -j RETURN\n-A CNI-abc -j MASQUERADE\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n\
        -A INPUT -m comment --comment \"see -j KUBE-X\" -j ACCEPT\nCOMMIT\n";

    #[test]
    fn own_chains_and_the_jumps_to_them_go_and_nothing_else() {
        let removals = removals(SAVED, &Plugins::read(&FakeHost::new()).unwrap());
        assert_eq!(removals.len(), 1);
        assert_eq!(
            removals[0].commands,
            "*nat\n-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -D POSTROUTING -s 10.244.1.2/32 -m comment --comment \"name: \\\"x\\\" -j KUBE-NO\" -j CNI-abc\n\
             -F KUBE-SERVICES\n-F CNI-abc\n-X KUBE-SERVICES\n-X CNI-abc\nCOMMIT\n"
        );
    }

    #[test]
    fn chains_and_marked_rules_of_plugins_go() {
        let saved = "*filter\n:FORWARD ACCEPT [0:0]\n:cali-FORWARD - [0:0]\n:DOCKER - [0:0]\n\
            -A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
            -A FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
            -A FORWARD -m comment --comment \"not cali:x\" -j ACCEPT\nCOMMIT\n\
            *nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE\nCOMMIT\n";
        let removals = removals(saved, &Plugins::read(&FakeHost::new()).unwrap());
        let commands: Vec<&str> = removals.iter().map(|removal| removal.commands.as_str()).collect();
        assert_eq!(
            commands,
            [
                "*filter\n-D FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
                 -D FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
                 -F cali-FORWARD\n-X cali-FORWARD\nCOMMIT\n",
                "*nat\n-D POSTROUTING -s 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE\nCOMMIT\n",
            ]
        );
    }

    #[rstest]
    #[case("INPUT -m comment --comment \"flanneld masq\" -j X", Some("flanneld masq"))]
    #[case("INPUT -m comment --comment cali:x -j X", Some("cali:x"))]
    #[case("INPUT -j X", None)]
    fn a_rule_says(#[case] rule: &str, #[case] expected: Option<&str>) {
        assert_eq!(comment(rule), expected);
    }

    #[rstest]
    #[case("INPUT -j KUBE-FIREWALL", Some("KUBE-FIREWALL"))]
    #[case("INPUT -p tcp -g CNI-x --more", Some("CNI-x"))]
    #[case("INPUT -m comment --comment \"-j KUBE-X\" -j ACCEPT", Some("ACCEPT"))]
    #[case("INPUT -p tcp", None)]
    fn a_rule_leads_to(#[case] rule: &str, #[case] chain: Option<&str>) {
        assert_eq!(target(rule), chain);
    }

    #[rstest]
    #[case("table ip nat {\n\tchain A {\n\t\ttype nat hook output priority dstnat; policy accept;\n\t}\n}\n", true)]
    #[case("table ip nat {\n\tchain A {\n\t\ttype nat hook output priority dstnat; policy drop;\n\t}\n}\n", false)]
    #[case("table ip nat {\n\tchain A {\n\t\tip saddr 10.0.0.1 drop\n\t}\n}\n", false)]
    #[case("table ip nat {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n}\n", false)]
    #[case("table ip nat {\n\tchain MINE {\n\t}\n}\n", false)]
    #[case("table ip nat {\n}\n", true)]
    fn a_table_says_nothing_only_without_rules(#[case] listing: &str, #[case] nothing: bool) {
        assert_eq!(says_nothing(listing), nothing);
    }

    #[tokio::test]
    async fn a_host_without_any_firewall_program_has_nothing_to_remove() {
        let mut sweep = Sweep::new(&Events::nowhere());
        let host = FakeHost::new();
        remove(&host, &Plugins::read(&host).unwrap(), &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(0));
    }

    #[tokio::test]
    async fn both_variants_and_tables_are_swept() {
        let host = FakeHost::new()
            .answer(&["iptables-nft-save"], 0, SAVED)
            .answer(&["iptables-legacy-save"], 0, "")
            .answer(&["iptables-nft-restore", "--noflush"], 0, "")
            .answer(&["nft", "list", "table", "ip", "nat"], 0, "table ip nat {\n}\n")
            .answer(&["nft", "list", "tables"], 0, "table ip mine\ntable ip6 kube-proxy\n")
            .answer(&["nft", "delete"], 0, "");
        let mut sweep = Sweep::new(&Events::nowhere());
        remove(&host, &Plugins::read(&host).unwrap(), &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(3));
        let done = host.done();
        assert!(done.contains(&"run nft delete table ip nat".to_owned()), "{done:?}");
        assert!(done.contains(&"run nft delete table ip6 kube-proxy".to_owned()), "{done:?}");
    }
}
