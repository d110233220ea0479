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

/// `[check] sentence` of every error.
fn sentences(document: &Value) -> Vec<String> {
    let findings = document["findings"].as_array().unwrap().iter();
    let errors = findings.filter(|finding| finding["result"] == "error");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    errors.map(|finding| format!("[{}] {}", text(&finding["check"]), text(&finding["sentence"]))).collect()
}

#[test]
fn faults_between_hosts_and_on_them_are_found_before_anything_is_changed() {
    // The second host is behind a router.
    let made = Bed::in_two_subnets(3);
    let names: Vec<&str> = made.hosts.iter().map(|host| host.name.as_str()).collect();
    let text = bed(&["inventory", &made.name, "--control-planes", "1"]);
    let inventory = made.write_inventory(&text);
    for name in &names {
        // A packet filter that was used once shows its tables from then on.
        made.sh(name, "iptables -I INPUT -p tcp --dport 1 -j DROP; iptables -D INPUT 1");
    }
    let before: Vec<String> = names.iter().map(|name| made.listing(name)).collect();
    let fine = check(&inventory, &[], 0);
    assert_eq!(errors(&fine), [""; 0]);
    // Each worker to the API server, the control plane to each kubelet, and VXLAN through the router, both ways.
    assert_eq!(fine["ways"], 8);

    made.sh(names[0], &format!("iptables -I INPUT -p tcp --dport 6443 -s {} -j REJECT", made.hosts[1].address));
    made.sh(names[1], "iptables -I INPUT -p udp --dport 4789 -j DROP");
    made.sh(names[2], "iptables -I INPUT -p tcp --dport 10250 -j DROP");
    made.sh(names[1], "cp -p /etc/resolv.conf /root/resolv.conf; echo nameserver 127.0.0.53 > /etc/resolv.conf");
    made.sh(names[2], "ip route add 10.244.128.0/20 dev eth0");
    let twin = made.sh(names[0], "cat /etc/machine-id");
    made.sh(names[2], &format!("cp -p /etc/machine-id /root/machine-id; echo {} > /etc/machine-id", twin.trim()));
    let found = check(&inventory, &[], 8);
    let errors_now = errors(&found);
    for expected in [
        format!("{} Reachable-6443", names[1]),
        format!("{} Reachable-10250", names[0]),
        format!("{} Reachable-4789", names[0]),
        format!("{} Reachable-4789", names[2]),
        format!("{} Resolver", names[1]),
        format!("{} NetworkOverlap", names[2]),
        format!("{} MachineID", names[2]),
    ] {
        assert!(errors_now.contains(&expected), "no {expected} in {errors_now:?}");
    }
    assert_eq!(errors_now.len(), 7, "{errors_now:?}");
    let all = ["--ignore", "all"];
    assert_eq!(errors(&check(&inventory, &all, 0)), [""; 0]);
    up_says_all_of_it_and_begins_nothing(&inventory, &sentences(&found));

    made.sh(names[0], "iptables -D INPUT 1");
    made.sh(names[1], "iptables -D INPUT 1; cat /root/resolv.conf > /etc/resolv.conf; rm /root/resolv.conf");
    made.sh(names[2], "iptables -D INPUT 1; ip route del 10.244.128.0/20 dev eth0");
    made.sh(names[2], "cat /root/machine-id > /etc/machine-id; rm /root/machine-id");
    a_clock_that_is_wrong(&inventory, names[1]);
    two_hosts_of_one_name(&made, &inventory, names[0], names[2]);
    an_endpoint_that_nobody_knows(&made, &text);
    a_disk_that_is_too_small(&made, &text, names[2]);
    for (name, before) in names.iter().zip(&before) {
        let after = made.listing(name);
        assert_eq!(*before, after, "it was altered: {name}:\n{}", difference(before, &after));
    }
}

/// What `check` finds stops `up` before the first change, in one report.
fn up_says_all_of_it_and_begins_nothing(inventory: &Path, sentences: &[String]) {
    let bundle = bundle();
    let refused = run("up", inventory, &["--yes", "--output", "json", "--bundle", bundle.to_str().unwrap()]);
    assert_eq!(refused.code, 8, "{}\n{}", refused.stdout, refused.stderr);
    let events = refused.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let end = events.into_iter().find(|event| event["event"] == "run-finished").expect("the end of the run");
    let failed = end["failed"].as_array().unwrap().iter();
    let said: Vec<&str> = failed.filter_map(|failure| failure["sentence"].as_str()).collect();
    for sentence in sentences {
        assert!(said.contains(&sentence.as_str()), "no «{sentence}» in {said:#?}");
    }
    assert_eq!(said.len(), sentences.len(), "{said:#?}");
    assert_eq!(end["changes"], 0);
}

/// Two agree and the third is three minutes ahead of them.
fn a_clock_that_is_wrong(inventory: &Path, host: &str) {
    bed(&["host", "clock", host, "180"]);
    let found = errors(&check(inventory, &[], 8));
    bed(&["host", "clock", host, "0"]);
    assert_eq!(found, [format!("{host} ClockSkew")]);
    assert_eq!(errors(&check(inventory, &[], 0)), [""; 0]);
}

/// Nodes have the inventory's names, so two hosts that call themselves the same are worth a word and no more.
fn two_hosts_of_one_name(made: &Bed, inventory: &Path, one: &str, other: &str) {
    let [first, second] = [one, other].map(|host| made.sh(host, "hostname").trim().to_owned());
    made.sh(other, &format!("hostname {first}"));
    let found = check(inventory, &[], 0);
    made.sh(other, &format!("hostname {second}"));
    let named = |finding: &&Value| finding["host"] == other && finding["check"] == "HostnameUnique";
    let finding = found["findings"].as_array().unwrap().iter().find(named).unwrap_or_else(|| panic!("{found}"));
    let sentence = finding["sentence"].as_str().unwrap_or_default();
    assert!(finding["result"] == "warning" && sentence.contains(one) && sentence.contains(&first), "{finding}");
}

/// The name of an endpoint must be known on every host.
fn an_endpoint_that_nobody_knows(made: &Bed, text: &str) {
    let network = "  network: {plugin: bridge}\n";
    let endpoint = text.replace(network, &format!("{network}  endpoint: api.nowhere.invalid:6443\n"));
    let found = errors(&check(&made.write_inventory(&endpoint), &[], 8));
    let expected: Vec<String> = made.hosts.iter().map(|host| format!("{} NameResolution", host.name)).collect();
    assert_eq!(found, expected);
}

/// The bed's own disk may be full as well: the finding is known by its size.
fn a_disk_that_is_too_small(made: &Bed, text: &str, host: &str) {
    made.sh(host, "mount -t tmpfs -o size=1g,mode=0755 small /var/lib");
    let strict = text.replace("ignore_checks: [EtcdDisk, DiskSpace]", "ignore_checks: [EtcdDisk]");
    assert_ne!(strict, text);
    let found = check(&made.write_inventory(&strict), &[], 8);
    made.sh(host, "umount --lazy /var/lib");
    let disk = |finding: &&Value| finding["host"] == host && finding["check"] == "DiskSpace";
    let finding = found["findings"].as_array().unwrap().iter().find(disk).unwrap_or_else(|| panic!("{found}"));
    let sentence = finding["sentence"].as_str().unwrap_or_default();
    assert!(finding["result"] == "error" && sentence.starts_with("there are 1.0 GiB free for /var/lib"), "{finding}");
}
