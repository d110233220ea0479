//! What a person needs besides the cluster: who is at work, what happened, what to send in, and what is left.

use std::path::Path;
use std::time::Duration;

use crate::bed::Bed;
use crate::program::{Running, bundle, call, clusterctl, run};

/// Every line is as the schema of events says.
#[track_caller]
fn fits_the_schema(lines: &str) {
    assert!(!lines.is_empty());
    for line in lines.lines() {
        assert_eq!(clusterctl::ui::schema::judge(line), Ok(Vec::new()), "{line}");
    }
}

/// One host through its life: a second run waits for the first, events fit their schema on the screen and in the log, a
/// report has logs and no secrets, and `down` says what is left.
#[test]
fn a_person_can_wait_read_report_and_see_what_is_left() {
    let bed = Bed::bare(1);
    let inventory = bed.inventory();
    let file = |name: &str| bed.folder.path().join(name).to_str().unwrap().to_owned();
    let (bundle, log) = (bundle(), file("events.jsonl"));
    let arguments = ["up", "-i", inventory.to_str().unwrap(), "--yes", "--bundle", bundle.to_str().unwrap()];
    let start = |more: &[&str]| {
        let words: Vec<&str> = arguments.iter().chain(more).copied().collect();
        Running::start(&clusterctl(), &words, &[])
    };
    let mut first = start(&["--output", "json"]);
    std::thread::park_timeout(Duration::from_millis(1500));
    let second = start(&["--output", "json", "--wait-lock", "5m", "--log", &log]).finish();
    let first = first.finish();
    assert_eq!((first.code, second.code), (0, 0), "{}\n{}\n{}", first.stderr, second.stdout, second.stderr);
    assert!(second.stdout.contains("is running `clusterctl up` for the cluster"), "{}", second.stdout);
    fits_the_schema(&first.stdout);
    fits_the_schema(&second.stdout);
    fits_the_schema(&std::fs::read_to_string(&log).unwrap());

    let report = file("report.tar.gz");
    let made = run("report", &inventory, &["--to", &report]);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    let texts = call(Path::new("tar"), &["-xzOf", &report], &[]).stdout;
    for expected in ["kubelet", "kube-apiserver", "clusterctl-balancer", "Ready", "ssh:"] {
        assert!(texts.contains(expected), "no {expected} in the report");
    }
    let keys = bed.sh(&bed.hosts[0].name, "grep -h -v -e ---- /etc/kubernetes/pki/*.key | head -c 40");
    for secret in ["PRIVATE KEY", "UFJJVkFURSBLRVk", keys.trim()] {
        assert!(!texts.contains(secret), "{secret} is in the report");
    }

    bed.sh(&bed.hosts[0].name, "touch /etc/left-behind");
    let down = run("down", &inventory, &["--yes"]);
    assert_eq!(down.code, 0, "{}\n{}", down.stdout, down.stderr);
    assert!(down.stderr.contains("+ file /etc/left-behind"), "{}", down.stderr);
    // Parameters of the whole machine are shared with the hosts of other tests.
    let shared = |line: &&str| line.contains("sysctl vm.") || line.contains("sysctl kernel.");
    let said = down.stderr.lines().filter(|line| line.contains("different from before the first up:"));
    assert_eq!(said.filter(|line| !shared(line)).count(), 1, "{}", down.stderr);
}
