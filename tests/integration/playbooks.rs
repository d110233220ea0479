//! A person's own playbook on all hosts: `clusterctl run`.

use crate::bed::{Bed, difference};
use crate::program::{call, clusterctl, down};

const PLAY: &str = r#"
name: message of the day
tasks:
  - name: greet
    file: {path: /etc/motd.d/greeting, content: "hello from {{ facts.hostname }}\n", mode: "0644"}
  - directory: {path: /srv/data, mode: "0750"}
  - link: {path: /srv/current, target: /srv/data}
  - command: {argv: [touch, /srv/data/made], creates: /srv/data/made}
"#;

#[test]
fn a_play_runs_once_and_down_undoes_it() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let play = bed.folder.path().join("play.yaml");
    std::fs::write(&play, PLAY).unwrap();
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    let run = |extra: &[&str]| {
        let mut arguments = vec!["run", play.to_str().unwrap(), "-i", inventory.to_str().unwrap(), "--output", "json"];
        arguments.extend_from_slice(extra);
        let finished = call(&clusterctl(), &arguments, &[]);
        assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
        let end = finished.stdout.lines().find(|line| line.contains("run-finished")).unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&end).unwrap()["changes"].as_u64().unwrap()
    };
    let would = run(&["--dry-run"]);
    assert!(would > 0);
    assert_eq!(bed.try_sh(&bed.hosts[0].name, "test -e /srv/data").code, 1);
    assert_eq!(run(&[]), would);
    assert_eq!(run(&[]), 0);
    let greeting = bed.sh(&bed.hosts[1].name, "cat /etc/motd.d/greeting");
    assert_eq!(greeting.trim(), format!("hello from {}", bed.hosts[1].name));
    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    // The hosts were looked at before the first play altered them.
    let said = gone.stdout + &gone.stderr;
    assert!(!said.contains("not compared"), "{said}");
    for (host, before) in bed.hosts.iter().zip(&before) {
        // What a command made is the person's own: it stays, and the directory it lies in.
        bed.sh(&host.name, "rm /srv/data/made && rmdir /srv/data");
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
    }
}

#[test]
fn a_mistake_in_a_play_is_found_before_any_host_is_reached() {
    let bed = Bed::bare(1);
    let play = bed.folder.path().join("play.yaml");
    std::fs::write(&play, "name: broken\ntasks:\n  - fiel: {path: /etc/x}\n").unwrap();
    let finished = call(&clusterctl(), &["run", play.to_str().unwrap(), "-i", bed.inventory().to_str().unwrap()], &[]);
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    assert!(finished.stderr.contains("play.yaml:3:") && finished.stderr.contains("file"), "{}", finished.stderr);
}
