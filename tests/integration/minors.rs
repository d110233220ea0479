//! Other minors of Kubernetes than the one that all other tests run, and another mode of kube-proxy.

use rstest::rstest;

use crate::bed::{Bed, difference};
use crate::program::{bundle_of, kubectl, run};

/// One control plane and one worker of that version, and away again.
#[rstest]
#[ignore = "takes minutes: make test-all"]
#[case::next_minor("1.37.2", "iptables")]
#[ignore = "takes minutes: make test-all"]
#[case::nftables("1.36.3", "nftables")]
fn a_cluster_of_another_minor_comes_and_goes(#[case] version: &str, #[case] mode: &str) {
    let bed = Bed::bare(2);
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    let text = bed.inventory_text("root");
    let line = text.lines().find(|line| line.trim_start().starts_with("kubernetes: 1.")).expect("a version");
    let kind = "    kind: KubeProxyConfiguration\n";
    assert!(text.contains(kind), "{text}");
    let text =
        text.replace(line, &format!("  kubernetes: {version}")).replace(kind, &format!("{kind}    mode: {mode}\n"));
    let inventory = bed.write_inventory(&text);

    let made = run("up", &inventory, &["--yes", "--bundle", bundle_of(version).to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    let wanted = format!("v{version}");
    let ready = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"Ready") && words.get(4) == Some(&wanted.as_str())
    };
    assert!(nodes.lines().count() == 2 && nodes.lines().all(ready), "{nodes}");
    let pods = kubectl(&inventory, &["get", "pods", "-A", "--no-headers"]);
    assert!(pods.lines().all(|line| line.split_whitespace().nth(3) == Some("Running")), "{pods}");

    let tables = bed.sh(&bed.hosts[1].name, "nft list tables");
    assert_eq!(tables.contains("table ip kube-proxy"), mode == "nftables", "{tables}");

    let gone = run("down", &inventory, &["--yes"]);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    for (host, before) in bed.hosts.iter().zip(&before) {
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
    }
}
