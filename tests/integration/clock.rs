//! A host whose clock jumps: every kind of program on it reads the other time, and `check` finds the host.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::bed::{Bed, bed};
use crate::program::{bundle, run, wait_for};

/// Commands that print the time as programs of each kind read it.
const READERS: &[(&str, &str)] = &[
    ("a program with libc", "date +%s"),
    ("a shell itself", "bash -c 'printf \"%(%s)T\" -1'"),
    ("one that a service manager starts", "systemd-run --quiet --pipe date +%s"),
    // Certificates of kubeadm, a static Go program, begin five minutes before they are made.
    (
        "a static program in Go",
        "rm -rf /run/clock; /root/kubeadm init phase certs ca --cert-dir /run/clock >&2; \
         echo $(($(date +%s -d \"$(openssl x509 -noout -startdate -in /run/clock/ca.crt | cut -d= -f2)\") + 300))",
    ),
    ("one that runs all the time", "cat /run/ticks"),
];

const TICK: &str = "systemd-run --quiet --unit ticks bash -c \
    'while :; do printf \"%(%s)T\\n\" -1 >/run/ticks.new; mv /run/ticks.new /run/ticks; sleep 0.1; done'";

/// How far the time is from ours that a command on a host prints, in seconds.
fn distance(made: &Bed, host: &str, command: &str) -> i64 {
    let printed = made.sh(host, command);
    let theirs: i64 = printed.trim().parse().unwrap_or_else(|error| panic!("{error}: {command} printed {printed}"));
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    theirs - i64::try_from(ours).unwrap()
}

#[track_caller]
fn everybody_reads(made: &Bed, host: &str, seconds: i64) {
    for (reader, command) in READERS {
        let read = distance(made, host, command);
        // A reader takes its time on a busy machine.
        assert!((seconds - 10..=seconds + 1).contains(&read), "{reader} is {read} s off, not {seconds}");
    }
}

/// What `check` says of clocks: host, weight and sentence.
fn skews(inventory: &Path) -> Vec<(String, String, String)> {
    let bundle = bundle();
    let finished = run("check", inventory, &["--output", "json", "--bundle", bundle.to_str().unwrap()]);
    let document: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let findings = document["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_clocks = findings.filter(|finding| finding["check"] == "ClockSkew");
    of_clocks.map(|finding| (text(&finding["host"]), text(&finding["result"]), finding.to_string())).collect()
}

#[test]
fn a_clock_that_jumps_is_read_by_every_program_and_found() {
    let made = Bed::bare(3);
    let inventory = made.inventory();
    let [other, _, host] = [0, 1, 2].map(|at: usize| made.hosts[at].name.as_str());
    let kubernetes = bed(&["kubernetes"]);
    made.send(host, &[&Path::new(kubernetes.trim()).join("upstream/kubeadm")], "/root");
    made.sh(host, TICK);
    wait_for("the first tick", Duration::from_secs(10), || made.try_sh(host, "cat /run/ticks").code == 0);
    everybody_reads(&made, host, 0);
    assert_eq!(skews(&inventory), []);

    for (seconds, sentence) in [(-3600, "s behind that of"), (240, "s ahead of that of")] {
        bed(&["host", "clock", host, &seconds.to_string()]);
        everybody_reads(&made, host, seconds);
        assert!(distance(&made, other, "date +%s") >= -10);
        // Our own program there is static, too, and is started by sshd.
        let found = skews(&inventory);
        let [(named, result, text)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((named.as_str(), result.as_str()), (host, "error"));
        assert!(text.contains(sentence), "{text}");
    }

    bed(&["host", "clock", host, "0"]);
    everybody_reads(&made, host, 0);
    assert_eq!(skews(&inventory), []);

    // A clock is right after a start, and nobody is left who would move it.
    bed(&["host", "clock", host, "-3600"]);
    bed(&["host", "kill", host]);
    bed(&["host", "start", host]);
    assert!(distance(&made, host, "date +%s") >= -10);
}
