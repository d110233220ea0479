//! Bytes to hosts: from host to host, resumed, limited; with `bundle push`, which does nothing else, and then with `up`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clusterctl::bundle::Bundle;
use clusterctl::inventory::Role;

use crate::bed::{Bed, bed};
use crate::program::{Finished, Running, bundle, clusterctl, run, succeeds, up, wait_for};

/// The bed's inventory with a `transfer:` of its own.
fn inventory(bed: &Bed, transfer: &str) -> PathBuf {
    bed.write_inventory(&format!("transfer: {{{transfer}}}\n{}", bed.inventory_text("root")))
}

fn arguments<'a>(inventory: &'a Path, bundle: &'a Path) -> Vec<&'a str> {
    vec!["bundle", "push", "-i", inventory.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()]
}

fn push(inventory: &Path) -> Finished {
    let bundle = bundle();
    let mut running = Running::start(&clusterctl(), &arguments(inventory, &bundle), &[]);
    running.finish()
}

/// Bytes in `12.3 MB left this machine`.
fn left(finished: &Finished) -> u64 {
    let text = format!("{}{}", finished.stdout, finished.stderr);
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.windows(3).position(|words| words == ["left", "this", "machine"]);
    let at = at.unwrap_or_else(|| panic!("it does not say what left:\n{text}"));
    let number: f64 = words[at - 2].parse().unwrap();
    let unit = match words[at - 1] {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        unit => panic!("unit {unit}"),
    };
    (number * f64::from(unit)) as u64
}

/// Bytes that a host of this role lacks.
fn share(role: Role) -> u64 {
    let bundle = Bundle::open(&bundle()).unwrap();
    bundle.manifest().for_host(role, "amd64").map(|blob| blob.stored_size).sum()
}

/// Every stream of the role is there, and is what its name says; no port but those of a bare host is open.
fn has_everything(bed: &Bed, host: &str, role: Role) {
    let listed = bed.sh(host, "cd /var/lib/clusterctl/incoming && sha256sum -- *.zst");
    let mut sums: Vec<&str> = Vec::new();
    for line in listed.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(format!("{sum}.zst"), name);
        sums.push(sum);
    }
    let bundle = Bundle::open(&bundle()).unwrap();
    for blob in bundle.manifest().for_host(role, "amd64") {
        assert!(sums.contains(&blob.stored_sha256.as_str()), "{host} lacks {}", blob.name);
    }
    let listening = bed.sh(host, "ss -Hltn | awk '{print $4}' | grep -v ':22$' | grep -v '^127' || true");
    assert_eq!(listening.trim(), "", "{host} still listens");
}

fn role(at: usize) -> Role {
    if at == 0 { Role::ControlPlane } else { Role::Worker }
}

/// From now on hosts count the bytes that reach their sshd.
fn count_what_ssh_brings(bed: &Bed) {
    for host in &bed.hosts {
        bed.sh(&host.name, "iptables -I INPUT -p tcp --dport 22 -m comment --comment counted");
    }
}

/// How many bytes reached the sshd of each host since [`count_what_ssh_brings`].
fn what_ssh_brought(bed: &Bed) -> Vec<u64> {
    let through_ssh = |host: &str| {
        let counted = bed.sh(
            host,
            "iptables -nvxL INPUT | awk '/counted/ {print $2}'; \
             iptables -D INPUT -p tcp --dport 22 -m comment --comment counted",
        );
        counted.trim().parse::<u64>().unwrap()
    };
    bed.hosts.iter().map(|host| through_ssh(&host.name)).collect()
}

/// With a verb that sends nothing but the program, and takes it away again.
fn the_program_is_handed_on(bed: &Bed) {
    count_what_ssh_brings(bed);
    succeeds(run("down", &inventory(bed, "relay: on"), &["--yes"]));
    let counted = what_ssh_brought(bed);
    let program = std::fs::metadata(clusterctl()).unwrap().len();
    assert_eq!(counted.iter().filter(|bytes| **bytes > program / 5).count(), 1, "{counted:?}, for {program}");
    for host in &bed.hosts {
        let left =
            bed.sh(&host.name, "ls -A /var/lib/clusterctl 2>/dev/null; ss -Hltn | grep -v -e :22 -e 127.0.0 || true");
        assert_eq!(left.trim(), "", "{}", host.name);
    }
}

/// From now on hosts reach nobody but each other and this machine, and what they ask of anybody else is counted. (The bed's
/// router answers "unreachable" for the rest of the world, but only where this machine's packet filter can be changed.)
fn without_internet(bed: &Bed) {
    let subnet = format!("{}.0.0/16", bed.hosts[0].address.splitn(3, '.').take(2).collect::<Vec<_>>().join("."));
    let rule = "-o eth0 -m comment --comment internet -j REJECT --reject-with icmp-net-unreachable";
    for host in &bed.hosts {
        bed.sh(&host.name, &format!("iptables -I OUTPUT ! -d {subnet} {rule}"));
        // Nobody answers there: a rule that does not hold would let this wait.
        let asked = bed.try_sh(&host.name, "timeout 5 bash -c ': </dev/tcp/192.0.2.1/443'");
        assert_eq!(asked.code, 1, "{}: {}", host.name, asked.stderr);
        bed.sh(&host.name, "iptables -Z OUTPUT");
    }
}

/// How many packets a host had for the rest of the world since [`without_internet`].
fn asked_of_the_internet(bed: &Bed, host: &str) -> u64 {
    bed.sh(host, "iptables -nvxL OUTPUT | awk '/internet/ {print $1}'").trim().parse().unwrap()
}

#[test]
fn bytes_leave_once_and_up_then_sends_nothing() {
    let bed = Bed::bare(3);
    without_internet(&bed);
    the_program_is_handed_on(&bed);
    let pushed = push(&inventory(&bed, "relay: on"));
    succeeds(&pushed);
    for (at, host) in bed.hosts.iter().enumerate() {
        has_everything(&bed, &host.name, role(at));
    }
    let (sent, share) = (left(&pushed), share(Role::ControlPlane));
    assert!(sent <= share + share / 10, "{sent} bytes left, for {share}");
    // Looking takes nothing away, and a second push finds everything there.
    run("status", &inventory(&bed, "relay: on"), &[]);
    let again = push(&inventory(&bed, "relay: off"));
    succeeds(&again);
    assert_eq!(left(&again), 0);
    // On a line on which it would take an hour.
    let slow = inventory(&bed, "bandwidth: 50K");
    let began = Instant::now();
    let made = up(&slow);
    succeeds(&made);
    assert!(began.elapsed() < Duration::from_secs(240));
    for host in &bed.hosts {
        assert_eq!(asked_of_the_internet(&bed, &host.name), 0, "{} asks the internet", host.name);
    }
    // Agents take away what they held as they end, which may be a moment after `up`.
    for host in &bed.hosts {
        let kept = || bed.sh(&host.name, "ls /var/lib/clusterctl/incoming 2>/dev/null || true");
        wait_for("the end of what was held", Duration::from_secs(30), || !kept().contains('.'));
    }
}

#[test]
fn a_run_that_was_killed_goes_on_at_the_byte() {
    let bed = Bed::bare(1);
    let limited = inventory(&bed, "bandwidth: 16M");
    let bundle = bundle();
    let mut killed = Running::start(&clusterctl(), &arguments(&limited, &bundle), &[]);
    // As soon as there is much of it.
    let host = &bed.hosts[0].name;
    let there = || {
        let bytes = bed.try_sh(host, "cat /var/lib/clusterctl/incoming/* 2>/dev/null | wc -c").stdout;
        bytes.trim().parse::<u64>().unwrap_or(0)
    };
    let began = Instant::now();
    while there() < 30 << 20 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing arrives");
    }
    killed.signal("KILL");
    killed.finish();
    let kept = there();
    assert!(kept >= 30 << 20, "{kept}");
    let rest = push(&inventory(&bed, "relay: auto"));
    succeeds(&rest);
    has_everything(&bed, host, Role::ControlPlane);
    let share = share(Role::ControlPlane);
    // What the printed numbers are rounded by, and what was under way when it ended.
    assert!(left(&rest) <= share - kept + (1 << 20), "{} left, {kept} of {share} were there", left(&rest));
}

/// `sh -c CUT sh FILE BYTES`: breaks all links as soon as the file is so long, and prints how long it is then.
const CUT: &str = r#"
until [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -ge "$2" ]; do :; done
pkill -KILL -f '^sshd(-session)?: root'
stat -c %s "$1"
"#;

#[test]
fn a_link_that_breaks_in_the_middle_of_a_blob_is_made_again_and_nothing_is_sent_twice() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0].name;
    let bundle = bundle();
    let opened = Bundle::open(&bundle).unwrap();
    let large = opened.manifest().for_host(Role::ControlPlane, "amd64").max_by_key(|blob| blob.stored_size).unwrap();
    let part = format!("/var/lib/clusterctl/incoming/{}.part", large.stored_sha256);
    let limited = inventory(&bed, "bandwidth: 16M");
    let mut running = Running::start(&clusterctl(), &arguments(&limited, &bundle), &[]);
    for percent in [1, 50, 99] {
        let (at, end) = (large.stored_size * percent / 100, large.stored_size);
        let words = ["host", "sh", host, "--", "timeout", "120", "sh", "-c", CUT, "sh", &part, &at.to_string()];
        let there: u64 = crate::bed::bed(&words).trim().parse().unwrap();
        assert!((at..end).contains(&there), "cut at {there} of {end} bytes, and not at {percent} %");
    }
    let finished = running.finish();
    succeeds(&finished);
    has_everything(&bed, host, Role::ControlPlane);
    let (sent, share) = (left(&finished), share(Role::ControlPlane));
    // What was on its way when the links broke is sent once more.
    assert!(sent <= share + (24 << 20), "{sent} bytes left, for {share}");
    // And not faster than the limit.
    let at_least = sent as f64 / f64::from(16 << 20) * 0.9;
    assert!(finished.elapsed.as_secs_f64() >= at_least, "{:?}, for at least {at_least} s", finished.elapsed);
}

/// On a line that is neither fast nor slow the first host keeps what it gets, and opens no port yet. Its agent that is lost then takes
/// along what it kept: nobody waits for it to hand that on.
#[test]
fn what_an_agent_that_is_gone_kept_for_others_is_not_waited_for() {
    let bed = Bed::bare(2);
    let host = &bed.hosts[0].name;
    let bundle = bundle();
    let opened = Bundle::open(&bundle).unwrap();
    let image =
        opened.manifest().for_host(Role::ControlPlane, "amd64").find(|blob| blob.name == "images/etcd").unwrap();
    let part = format!("/var/lib/clusterctl/incoming/{}.part", image.stored_sha256);
    let limited = inventory(&bed, "bandwidth: 20M");
    let words =
        ["up", "-i", limited.to_str().unwrap(), "--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json"];
    let mut running = Running::start(&clusterctl(), &words, &[]);
    let cut = ["host", "sh", host, "--", "timeout", "120", "sh", "-c", CUT, "sh", &part, "1000000"];
    crate::bed::bed(&cut);
    let finished = running.finish();
    succeeds(&finished);
    assert!(finished.stdout.contains("connecting again"), "{}", finished.stdout);
    assert!(finished.elapsed < Duration::from_secs(150), "{:?}", finished.elapsed);
}

/// The bed's inventory, with the first host behind a forwarder that holds every byte back for this long.
fn far_inventory(bed: &Bed, delay: Duration) -> PathBuf {
    let address = &bed.hosts[0].address;
    let near = crate::faults::delay::forward(format!("{address}:22").parse().unwrap(), delay).unwrap();
    let text = bed.inventory_text("root");
    let known = text.split("known_hosts: ").nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap().trim();
    let keys = std::fs::read_to_string(known).unwrap();
    let key = keys.lines().find_map(|line| line.strip_prefix(&format!("{address} "))).unwrap();
    let own = bed.folder.path().join("known_hosts.far");
    std::fs::write(&own, format!("{keys}\n[{}]:{} {key}\n", near.ip(), near.port())).unwrap();
    let there = format!("{{address: \"{near}\", node_address: {address},");
    let text = text.replace(&format!("{{address: {address},"), &there);
    bed.write_inventory(&text.replace(known, own.to_str().unwrap()))
}

#[test]
fn a_long_way_takes_several_channels_as_many_as_the_host_opens() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0].name;
    let far = far_inventory(&bed, Duration::from_millis(20));
    let bundle = bundle();
    let most = || {
        let mut running = Running::start(&clusterctl(), &arguments(&far, &bundle), &[]);
        let (mut most, began) = (0, Instant::now());
        while !running.ends_within(Duration::from_millis(100)) {
            let count = bed.sh(host, "pgrep -fc 'clusterctl-[0-9a-f]* agent --stripe' || true");
            most = most.max(count.trim().parse::<usize>().unwrap_or(0));
            assert!(began.elapsed() < Duration::from_secs(300), "it does not end");
        }
        succeeds(&running.finish());
        has_everything(&bed, host, Role::ControlPlane);
        most
    };
    let many = most();
    assert!(many > 1, "{many} channels beside the first");
    bed.sh(
        host,
        "rm -rf /var/lib/clusterctl; echo MaxSessions 3 > /etc/ssh/sshd_config.d/few.conf; systemctl reload ssh",
    );
    let few = most();
    assert!(few <= 1, "{few} channels beside the first, where 3 are all");
}

#[test]
fn over_a_long_way_the_program_comes_in_parts_and_in_one_where_they_do_not_arrive() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0].name;
    let far = far_inventory(&bed, Duration::from_millis(20));
    // The sizes that were read of it, by a `head` that tells and does what it is told first.
    let come = |first: &str| {
        let lines = ["#!/bin/sh", "[ $1 != -c ] || echo $2 >> /root/read", first, r#"exec /usr/bin/head.real "$@""#];
        let lines: Vec<String> = lines.iter().map(|line| format!("'{line}'")).collect();
        bed.sh(host, "[ -e /usr/bin/head.real ] || cp /usr/bin/head /usr/bin/head.real; rm -f /usr/bin/head");
        bed.sh(host, &format!("printf '%s\\n' {} > /usr/bin/head; chmod 0755 /usr/bin/head", lines.join(" ")));
        // A verb that sends nothing but the program, and takes it away again.
        succeeds(&run("down", &far, &["--yes"]));
        assert_eq!(bed.sh(host, "ls -A /var/lib/clusterctl 2>/dev/null || true").trim(), "");
        let read = bed.sh(host, "cat /root/read; rm /root/read");
        read.lines().filter_map(|size| size.parse::<u64>().ok()).collect::<Vec<u64>>()
    };
    // A host that says something meanwhile.
    let noisy = "cp /usr/bin/timeout /usr/bin/timeout.real; rm /usr/bin/timeout; printf '%s\\n' '#!/bin/sh' 'echo noise >&2' \
        'exec /usr/bin/timeout.real \"$@\"' > /usr/bin/timeout; chmod 0755 /usr/bin/timeout";
    bed.sh(host, noisy);
    let parts = come("");
    assert!(parts.len() > 1 && parts.iter().all(|part| *part < 2 << 20), "{parts:?}");
    let whole: u64 = parts.iter().sum();
    let of_a_part = |what: &str| format!("[ $1 != -c ] || [ $2 -gt 4000000 ] || {what}");
    for (how, what) in [("refused", "exit 1"), ("cut", "set -- -c 1000")] {
        let began = Instant::now();
        let of_none = come(&of_a_part(what));
        // It is told that it lacks a part; there is a limit of 15 seconds for those of which nothing is told.
        assert!(began.elapsed() < Duration::from_secs(12), "{how}: {:?}", began.elapsed());
        assert_eq!(of_none.iter().filter(|size| **size == whole).count(), 1, "{how}: {of_none:?}, for {whole}");
    }
}

#[test]
fn hosts_that_cannot_reach_each_other_get_everything_from_the_laptop() {
    let bed = Bed::bare(3);
    let [first, second, third] = [0, 1, 2].map(|at| bed.hosts[at].name.clone());
    // Two answer nobody, one refuses.
    bed.sh(&first, "iptables -I INPUT -p tcp --syn ! --dport 22 -j DROP");
    bed.sh(&second, "iptables -I INPUT -p tcp --syn ! --dport 22 -j REJECT --reject-with tcp-reset");
    bed.sh(&third, "iptables -I INPUT -p tcp --syn ! --dport 22 -j DROP");
    let pushed = push(&inventory(&bed, "relay: on"));
    succeeds(&pushed);
    for (at, host) in [first, second, third].iter().enumerate() {
        has_everything(&bed, host, role(at));
    }
    assert!(left(&pushed) > share(Role::ControlPlane) + share(Role::Worker));
}

#[test]
fn a_host_that_the_others_do_not_reach_gets_everything_from_the_laptop_and_they_still_hand_on() {
    let bed = Bed::bare(3);
    let [first, second, third] = [0, 1, 2].map(|at| bed.hosts[at].name.as_str());
    for other in [first, third] {
        crate::bed::bed(&["host", "cut", second, "--from", other]);
    }
    let pushed = push(&inventory(&bed, "relay: on"));
    succeeds(&pushed);
    for (at, host) in [first, second, third].into_iter().enumerate() {
        has_everything(&bed, host, role(at));
    }
    // The first host's share and that of the lonely one; the third has its own from the first.
    let (sent, two) = (left(&pushed), share(Role::ControlPlane) + share(Role::Worker));
    assert!((two - two / 10..=two + two / 10).contains(&sent), "{sent} bytes left, where two shares are {two}");
}

#[test]
fn a_host_that_dies_while_it_hands_on_takes_nobody_with_it() {
    let bed = Bed::bare(3);
    let limited = inventory(&bed, "relay: on, bandwidth: 16M");
    let bundle = bundle();
    let mut running = Running::start(&clusterctl(), &arguments(&limited, &bundle), &[]);
    let [first, second, third] = [0, 1, 2].map(|at| bed.hosts[at].name.clone());
    let began = Instant::now();
    while bed.try_sh(&third, "cat /var/lib/clusterctl/incoming/* 2>/dev/null | wc -c").stdout.trim().len() < 8 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing arrives");
    }
    bed_kill(&first);
    let finished = running.finish();
    assert_eq!(finished.code, 4, "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains(&first) || finished.stdout.contains(&first));
    for host in [second, third] {
        has_everything(&bed, &host, Role::Worker);
    }
}

fn bed_kill(host: &str) {
    bed(&["host", "kill", host]);
}

#[test]
fn up_hands_on_where_the_line_is_slow() {
    let bed = Bed::bare(3);
    count_what_ssh_brings(&bed);
    succeeds(up(&inventory(&bed, "bandwidth: 12M")));
    let brought: u64 = what_ssh_brought(&bed).iter().sum();
    // The agent takes away what it held as it ends, which may be a moment after `up`.
    let empty = r#"until [ -z "$(ls /var/lib/clusterctl/incoming 2>/dev/null)" ]; do sleep 0.1; done"#;
    bed.sh(&bed.hosts[0].name, &format!("timeout 30 sh -c '{empty}'"));
    // From here alone each worker would have got its share, too.
    let most = share(Role::ControlPlane) + share(Role::Worker);
    assert!(brought < most, "{brought} bytes left, and {most} are too many");
}
