//! `check` on hosts with something wrong: each fault is found under its name, from where it hurts, and nothing is changed.

use std::path::Path;

use serde_json::Value;

use crate::bed::{Bed, bed, difference};
use crate::program::{bundle, run};

fn check(inventory: &Path, extra: &[&str], code: i32) -> Value {
    let bundle = bundle();
    let mut arguments = vec!["--output", "json", "--bundle", bundle.to_str().unwrap()];
    arguments.extend_from_slice(extra);
    let finished = run("check", inventory, &arguments);
    assert_eq!(finished.code, code, "{}\n{}", finished.stdout, finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
}

/// `host check` of every error.
fn errors(document: &Value) -> Vec<String> {
    let findings = document["findings"].as_array().unwrap().iter();
    let errors = findings.filter(|finding| finding["result"] == "error");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    errors.map(|finding| format!("{} {}", text(&finding["host"]), text(&finding["check"]))).collect()
}

#[test]
fn faults_between_hosts_and_on_them_are_found_before_anything_is_changed() {
    let made = Bed::bare(3);
    let names: Vec<&str> = made.hosts.iter().map(|host| host.name.as_str()).collect();
    let inventory = made.write_inventory(&bed(&["inventory", &made.name, "--control-planes", "1"]));
    for name in &names {
        // A packet filter that was used once shows its tables from then on.
        made.sh(name, "iptables -I INPUT -p tcp --dport 1 -j DROP; iptables -D INPUT 1");
    }
    let before: Vec<String> = names.iter().map(|name| made.listing(name)).collect();
    // The bed's disk may be slow, and full.
    let bed_is_small = ["--ignore", "EtcdDisk", "--ignore", "DiskSpace"];
    let fine = check(&inventory, &bed_is_small, 0);
    assert_eq!(errors(&fine), [""; 0]);
    // Each worker to the API server, and the control plane to each kubelet.
    assert_eq!(fine["ways"], 4);

    made.sh(names[0], &format!("iptables -I INPUT -p tcp --dport 6443 -s {} -j REJECT", made.hosts[1].address));
    made.sh(names[2], "iptables -I INPUT -p tcp --dport 10250 -j DROP");
    made.sh(names[1], "cp -p /etc/resolv.conf /root/resolv.conf; echo nameserver 127.0.0.53 > /etc/resolv.conf");
    made.sh(names[2], "ip route add 10.244.128.0/20 dev eth0");
    let found = errors(&check(&inventory, &bed_is_small, 8));
    for expected in [
        format!("{} Reachable-6443", names[1]),
        format!("{} Reachable-10250", names[0]),
        format!("{} Resolver", names[1]),
        format!("{} NetworkOverlap", names[2]),
    ] {
        assert!(found.contains(&expected), "no {expected} in {found:?}");
    }
    assert_eq!(found.len(), 4, "{found:?}");
    let all = ["--ignore", "all"];
    assert_eq!(errors(&check(&inventory, &all, 0)), [""; 0]);

    made.sh(names[0], "iptables -D INPUT 1");
    made.sh(names[2], "iptables -D INPUT 1; ip route del 10.244.128.0/20 dev eth0");
    made.sh(names[1], "cat /root/resolv.conf > /etc/resolv.conf; rm /root/resolv.conf");
    for (name, before) in names.iter().zip(&before) {
        let after = made.listing(name);
        assert_eq!(*before, after, "check altered {name}:\n{}", difference(before, &after));
    }
}
