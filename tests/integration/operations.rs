//! What a person needs besides the cluster: who is at work, what happened, what to send in, and what is left.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

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
    the_holder_is_named(&second.stdout, &bed.name);
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

    what_is_left_is_told(&bed, &inventory);
}

/// Who waits is told who is at work, since when, and at what.
fn the_holder_is_named(events: &str, cluster: &str) {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said: Vec<String> = events.filter_map(|event| event["sentence"].as_str().map(str::to_owned)).collect();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "somebody".to_owned());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let holder =
        format!("waiting: {user}@{} is running `clusterctl up` for the cluster {cluster} here, since ", machine.trim());
    let since_and_step = said.iter().find_map(|sentence| sentence.strip_prefix(&holder));
    let (since, step) = since_and_step.and_then(|rest| rest.split_once(", at ")).unwrap_or_else(|| panic!("{said:#?}"));
    assert!(since == "0 min" || since == "1 min", "{since}");
    assert!(step.len() > 2 && step.starts_with('"') && step.ends_with('"'), "{step}");
}

/// `down` says what is different from before, one by one to a person and counted to a program; also where the agent of a former
/// `down` ended before it had looked.
fn what_is_left_is_told(bed: &Bed, inventory: &Path) {
    let host = &bed.hosts[0].name;
    bed.sh(host, "touch /etc/left-behind && ip link add left0 type bridge && ip route add blackhole 192.0.2.0/24");
    bed.sh(host, "iptables -N LEFT && echo left:x:4999:4999::/:/bin/false >>/etc/passwd");
    let arguments = ["down", "-i", inventory.to_str().unwrap(), "--yes", "--output", "json"];
    let (mut bereft, lines) = Running::start_watched(&clusterctl(), &arguments, &[]);
    let compares = |line: &String| line.contains("\"step-started\"") && line.contains("\"step\":\"compare\"");
    assert!(lines.iter().any(|line| compares(&line)), "nothing was compared");
    // With something left it looks for a while whether that goes.
    bed.sh(host, "pkill -KILL -f 'bin/clusterctl-[0-9a-f]* agent'");
    let bereft = bereft.finish();
    assert_eq!(bereft.code, 4, "{}\n{}", bereft.stdout, bereft.stderr);
    let down = run("down", inventory, &["--yes", "--output", "json"]);
    assert_eq!(down.code, 0, "{}\n{}", down.stdout, down.stderr);
    fits_the_schema(&down.stdout);
    let events: Vec<Value> = down.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |event: &Value| {
        event["sentence"].as_str()?.strip_prefix("different from before the first up: ").map(str::to_owned)
    };
    let told: Vec<String> = events.iter().filter_map(told).collect();
    let left = [
        ("+ file /etc/left-behind", ""),
        ("+ network link left0", ""),
        ("+ route ", "192.0.2.0/24"),
        ("+ iptables", "chain LEFT"),
        ("+ user left", ""),
        ("- file /etc/passwd ", ""),
        ("+ file /etc/passwd ", ""),
    ];
    let is_left = |line: &String| left.iter().find(|(begin, end)| line.starts_with(begin) && line.contains(end));
    for one in &left {
        assert!(told.iter().any(|line| is_left(line) == Some(one)), "{one:?}: {told:#?}");
    }
    // Parameters of the whole machine are shared with the hosts of other tests.
    let shared = |line: &&String| ["sysctl vm.", "sysctl kernel.", "module "].iter().any(|kind| line.contains(kind));
    assert!(told.iter().filter(|line| !shared(line)).all(|line| is_left(line).is_some()), "{told:#?}");
    let differs = events.iter().find(|event| event["event"] == "differs").unwrap();
    assert_eq!(differs["differences"], Value::from(told.clone()), "{differs}");
    let summary = events.last().unwrap();
    assert_eq!(
        (&summary["residue"], &summary["not_compared"]),
        (&told.len().into(), &Value::Array(Vec::new())),
        "{summary}"
    );
}
