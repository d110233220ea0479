//! Packet filters as lines: rules of iptables in both of its kinds, and tables of nftables.

use super::{said, words};
use crate::host::{Host, sha256_hex};

/// The programs that tell rules. A host may have rules of both kinds, whichever of them is its usual one.
const SAVES: &[(&str, [&str; 3])] = &[
    ("iptables", ["iptables-save", "iptables-nft-save", "iptables-legacy-save"]),
    ("ip6tables", ["ip6tables-save", "ip6tables-nft-save", "ip6tables-legacy-save"]),
];

/// All of a host's.
pub(super) async fn lines(host: &dyn Host) -> Vec<String> {
    let saved = SAVES.iter().flat_map(|(kind, programs)| programs.iter().map(move |program| (*kind, *program)));
    let saved = saved.map(|(kind, program)| async move { rules(&said(host, program, &[]).await, kind) });
    let (saved, tables, ruleset) = futures::join!(
        futures::future::join_all(saved),
        said(host, "nft", &["list", "tables"]),
        // Counters and the contents of sets change by themselves.
        said(host, "nft", &["--stateless", "--terse", "list", "ruleset"]),
    );
    saved.into_iter().flatten().chain(own_tables(&tables, &ruleset)).collect()
}

/// Rules, and chains that somebody made; the kernel's own chains are there or not without meaning anything.
fn rules(saved: &str, kind: &str) -> Vec<String> {
    let mut table = "";
    let mut lines = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':').filter(|chain| chain.contains(" - ")) {
            lines.push(format!("{kind} {table} chain {}", chain.split(' ').next().unwrap_or_default()));
        } else if line.starts_with("-A") {
            lines.push(format!("{kind} {table} {line}"));
        }
    }
    lines
}

/// Tables of nftables that somebody made, by name, and by what is in them where that is told.
fn own_tables(tables: &str, ruleset: &str) -> Vec<String> {
    let content = |head: &str| {
        let text = ruleset.split_once(&format!("{head} {{\n"))?.1.split("\n}").next()?;
        Some(sha256_hex(text.as_bytes()).get(..16)?.to_owned())
    };
    let own = tables.lines().map(words).filter(|line| is_own_table(line));
    own.map(|line| match content(&line) {
        Some(content) => format!("nft {line} {content}"),
        None => format!("nft {line}"),
    })
    .collect()
}

/// Whether a table of nftables is more than what any use of iptables leaves.
fn is_own_table(line: &str) -> bool {
    let name = line.split_whitespace().last().unwrap_or_default();
    !name.is_empty() && !["filter", "nat", "mangle", "raw", "security"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{lines, own_tables, rules};
    use crate::host::fake::FakeHost;

    #[test]
    fn tables_that_any_use_of_iptables_makes_are_nobodys() {
        let told = own_tables("table inet firewalld\ntable ip filter\n", "");
        assert_eq!(told, ["nft table inet firewalld"]);
        assert_eq!(rules("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "iptables"), Vec::<String>::new());
    }

    #[test]
    fn a_table_that_has_other_rules_is_another() {
        let ruleset =
            |rule: &str| format!("table ip nat {{\n}}\ntable inet mine {{\n\tchain in {{\n\t\t{rule}\n\t}}\n}}\n");
        let told = |rule: &str| own_tables("table ip nat\ntable inet mine\n", &ruleset(rule));
        let before = told("accept");
        assert!(before.len() == 1 && before[0].starts_with("nft table inet mine "), "{before:?}");
        assert_eq!(told("accept"), before);
        assert_ne!(told("drop"), before);
    }

    #[tokio::test]
    async fn rules_of_both_kinds_of_iptables_are_seen_and_each_once() {
        let usual = "*nat\n-A OUTPUT -j ONE\nCOMMIT\n";
        let host = FakeHost::new()
            .answer(&["iptables-save"], 0, usual)
            .answer(&["iptables-nft-save"], 0, usual)
            .answer(&["iptables-legacy-save"], 0, "*filter\n-A INPUT -j OTHER\nCOMMIT\n");
        let lines: std::collections::BTreeSet<String> = lines(&host).await.into_iter().collect();
        let expected = ["iptables filter -A INPUT -j OTHER", "iptables nat -A OUTPUT -j ONE"];
        assert_eq!(lines.into_iter().collect::<Vec<_>>(), expected);
    }
}
