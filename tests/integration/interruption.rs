//! Stopped in the middle: by Ctrl-C, by SIGKILL. The same command finishes; `down` cleans a half-made cluster.

use std::time::Duration;

use crate::bed::{Bed, difference};
use crate::program::{Running, bundle, clusterctl, down, kubectl, up};

fn start(inventory: &std::path::Path) -> Running {
    let bundle = bundle();
    let arguments =
        ["up", "-i", inventory.to_str().unwrap(), "--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json"];
    Running::start(&clusterctl(), &arguments, &[])
}

/// Lets a run get as far as `milliseconds`; the moments are spread over a whole `up`.
fn after(milliseconds: u64) {
    std::thread::park_timeout(Duration::from_millis(milliseconds));
}

#[test]
fn ctrl_c_ends_with_its_code_and_the_same_command_finishes() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    for moment in [150, 1_500, 4_000, 9_000] {
        let mut run = start(&inventory);
        after(moment);
        run.signal("INT");
        let finished = run.finish();
        assert_eq!(finished.code, 130, "after {moment} ms:\n{}\n{}", finished.stdout, finished.stderr);
        assert!(finished.stderr.contains("same command again") || finished.stdout.contains("same command again"));
    }
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
}

#[test]
fn a_killed_run_is_finished_by_the_same_command() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    for moment in [800, 3_000, 7_000, 12_000] {
        let mut run = start(&inventory);
        after(moment);
        run.signal("KILL");
        run.finish();
    }
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
}

#[test]
fn down_cleans_what_a_killed_run_left() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    for moment in [2_500, 8_000] {
        let mut run = start(&inventory);
        after(moment);
        run.signal("KILL");
        run.finish();
        let gone = down(&inventory);
        assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
        for (host, before) in bed.hosts.iter().zip(&before) {
            let after = bed.listing(&host.name);
            assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
        }
    }
}

#[test]
fn two_runs_at_once_do_not_meet() {
    let bed = Bed::bare(1);
    let inventory = bed.inventory();
    let mut first = start(&inventory);
    after(2_000);
    let second = up(&inventory);
    assert_eq!(second.code, 12, "{}\n{}", second.stdout, second.stderr);
    assert!(second.stderr.contains("clusterctl up"), "{}", second.stderr);
    let first = first.finish();
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
}
