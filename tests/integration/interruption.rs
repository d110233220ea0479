//! Stopped in the middle: by Ctrl-C, by SIGKILL, by the end of an agent. The same command finishes; `down` cleans a
//! half-made cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bed::{Bed, difference};
use crate::program::{Running, bundle, clusterctl, down, kubectl, run, succeeds, up};

fn start(inventory: &Path) -> Running {
    let bundle = bundle();
    let arguments =
        ["up", "-i", inventory.to_str().unwrap(), "--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json"];
    Running::start(&clusterctl(), &arguments, &[])
}

/// Lets a run get as far as `milliseconds`.
fn start_and_wait(inventory: &Path, milliseconds: u64) -> Running {
    let running = start(inventory);
    std::thread::park_timeout(Duration::from_millis(milliseconds));
    running
}

/// Ctrl-C, the end of an agent, two runs at once, a kill, each further on in the same cluster; then it is done. None of the
/// moments is so late that a run could have ended before.
#[test]
fn whatever_ends_a_run_the_same_command_finishes() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let worker = &bed.hosts[1].name;

    interrupt(&mut start_and_wait(&inventory, 150));

    let mut bereft = start_and_wait(&inventory, 3_000);
    bed.sh(worker, "pkill -KILL -f 'bin/clusterctl-[0-9a-f]* agent'");
    let finished = bereft.finish();
    assert_eq!(finished.code, 4, "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains(worker) || finished.stdout.contains(worker));

    let mut first = start_and_wait(&inventory, 1_000);
    // One that only looks goes beside it, and disturbs nothing when it ends.
    run("status", &inventory, &[]);
    let second = up(&inventory);
    assert_eq!(second.code, 12, "{}\n{}", second.stdout, second.stderr);
    assert!(second.stderr.contains("clusterctl up"), "{}", second.stderr);
    interrupt(&mut first);

    let mut killed = start_and_wait(&inventory, 3_000);
    killed.signal("KILL");
    killed.finish();

    succeeds(&up(&inventory));
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
}

/// Ctrl-C ends a run with its code and a word on how to go on.
fn interrupt(run: &mut Running) {
    run.signal("INT");
    let finished = run.finish();
    assert_eq!(finished.code, 130, "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains("same command again") || finished.stdout.contains("same command again"));
}

#[test]
fn down_cleans_what_a_killed_run_left() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    let clean = |what: &str| {
        succeeds(&down(&inventory));
        for (host, before) in bed.hosts.iter().zip(&before) {
            let after = bed.listing(&host.name);
            assert_eq!(*before, after, "{what}, {} is not as it was:\n{}", host.name, difference(before, &after));
        }
    };
    for moment in [1_500, 5_000, 11_000] {
        let mut killed = start_and_wait(&inventory, moment);
        killed.signal("KILL");
        killed.finish();
        clean(&format!("killed after {moment} ms"));
    }
    // The next cluster finds bare machines.
    succeeds(&up(&inventory));
    clean("after a whole cluster");
}

/// Drops whatever goes through the connections to sshd that are there now.
const CUT: &str = "for port in $(ss -Htn state established '( sport = :22 )' | awk '{ sub(\".*:\", \"\", $4); print $4 }'); do \
                   iptables -I INPUT -p tcp --dport 22 --sport $port -j DROP; \
                   iptables -I OUTPUT -p tcp --sport 22 --dport $port -j DROP; done; iptables -S | grep -c DROP";

/// A laptop that loses power says nothing, and TCP does not either. Somebody else's run goes on in its place: within 15 s of the
/// last sign of life, the first time, and without `--wait-lock`.
#[test]
fn a_laptop_that_vanishes_holds_up_nobody() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let mut vanishing = start_and_wait(&inventory, 4_000);
    for host in &bed.hosts {
        assert_ne!(bed.sh(&host.name, CUT).trim(), "0", "{} has no connection to cut", host.name);
    }
    vanishing.signal("KILL");
    vanishing.finish();
    let began = Instant::now();
    let bundle = bundle();
    let arguments =
        ["up", "-i", inventory.to_str().unwrap(), "--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json"];
    let (mut next, lines) = Running::start_watched(&clusterctl(), &arguments, &[]);
    let connected = |line: &String| line.contains("\"step-finished\"") && line.contains("\"step\":\"connect\"");
    let waited: Vec<String> = lines.iter().take_while(|line| !connected(line)).collect();
    let until_connected = began.elapsed();
    let finished = next.finish();
    succeeds(&finished);
    assert!(waited.iter().any(|line| line.contains("is running `clusterctl up`")), "nobody held the lock: {waited:#?}");
    assert!(until_connected < Duration::from_secs(20), "{until_connected:?}");
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
}

/// Links that are lost in the middle, of both kinds of host: they are made again, and the same run goes on.
#[test]
fn a_lost_link_is_made_again_and_the_run_goes_on() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let mut run = start_and_wait(&inventory, 2_000);
    for host in &bed.hosts {
        // A busy machine needs longer than that until work has begun everywhere.
        bed.sh(&host.name, "timeout 60 sh -c 'until pgrep -f \"[c]lusterctl.* agent\" >&2; do sleep 0.1; done'");
    }
    std::thread::park_timeout(Duration::from_secs(1));
    for host in &bed.hosts {
        bed.sh(&host.name, "pkill -KILL -f '^sshd(-session)?: root'");
    }
    std::thread::park_timeout(Duration::from_secs(4));
    bed.sh(&bed.hosts[0].name, "pkill -KILL -f '^sshd(-session)?: root' || true");
    let finished = run.finish();
    succeeds(&finished);
    assert!(finished.stdout.contains("connecting again"), "{}", finished.stdout);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
}
