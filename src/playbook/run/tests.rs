use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::run;
use crate::event::{Events, What};
use crate::fact::Facts;
use crate::failure::{Kind, Result};
use crate::host::fake::FakeHost;
use crate::host::journal::{Journal, restore};
use crate::host::{Host, Output};
use crate::message::PlayOrder;
use crate::playbook::{builtin, load};

/// A host where systemd remembers which units are enabled and active, in files of its own.
fn booted() -> FakeHost {
    let remembered = |unit: &str, what: &str| format!("/run/fake/{unit}.{what}");
    FakeHost::new()
        .directory("/var/lib")
        .directory("/etc/systemd/system")
        .file("/etc/fstab", "UUID=1 / ext4\n/dev/sda2 none swap sw\n")
        .file("/proc/sys/kernel/osrelease", "6.12.0\n")
        .file("/proc/modules", "overlay 1 0 - Live 0x0\n")
        .file("/proc/sys/net/ipv4/ip_forward", "0\n")
        .file("/proc/swaps", "head\n/dev/sda2 partition 1 0 -2\n")
        .answer_with(&["swapoff"], |host, _| {
            host.put(Path::new("/proc/swaps"), b"head\n", 0o644);
            Ok(Output::default())
        })
        .answer_with(&["swapon"], |host, _| {
            host.put(Path::new("/proc/swaps"), b"head\n/dev/sda2 partition 1 0 -2\n", 0o644);
            Ok(Output::default())
        })
        .answer_with(&["modprobe", "br_netfilter"], |host, _| {
            host.put(Path::new("/proc/modules"), b"overlay 1\nbr_netfilter 1\n", 0o644);
            for name in ["iptables", "ip6tables"] {
                let path = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
                host.put(Path::new(&path), b"0\n", 0o644);
            }
            Ok(Output::default())
        })
        .answer_with(&["modprobe", "-r"], |_, _| Ok(Output { status: 1, ..Output::default() }))
        .answer(&["systemctl", "daemon-reload"], 0, "")
        .answer_with(&["systemctl"], move |host, command| {
            let unit = command.arguments.last().cloned().unwrap_or_default();
            let set = |what: &str, on: bool| {
                let path = remembered(&unit, what);
                if on { host.put(Path::new(&path), b"", 0o644) } else { host.remove(Path::new(&path)).unwrap() }
            };
            match command.arguments[0].as_str() {
                "enable" => set("enabled", true),
                "disable" => set("enabled", false),
                "start" | "restart" => set("active", true),
                "stop" => set("active", false),
                _ => {}
            }
            let shown = |unit: &String| {
                let is = |what: &str| host.text(remembered(unit, what)).is_some();
                let loaded = host.text(format!("/etc/systemd/system/{unit}")).is_some();
                format!(
                    "LoadState={}\nActiveState={}\nUnitFileState={}\nNeedDaemonReload=no\n",
                    if loaded { "loaded" } else { "not-found" },
                    if is("active") { "active" } else { "inactive" },
                    if is("enabled") { "enabled" } else { "disabled" },
                )
            };
            let asked = command.arguments.iter().skip_while(|word| *word != "--").skip(1);
            let blocks: Vec<String> = asked.map(shown).collect();
            Ok(Output { stdout: blocks.join("\n").into_bytes(), ..Output::default() })
        })
}

fn variables() -> BTreeMap<String, Value> {
    let variables = json!({"swap_off": true, "containerd_ours": true, "cgroup_driver": "systemd",
        "pause_image": "registry.k8s.io/pause:3.10", "restrict_oom_score_adj": false});
    variables.as_object().unwrap().clone().into_iter().collect()
}

fn ours(name: &str) -> PlayOrder {
    let loaded = builtin(name).unwrap();
    PlayOrder { play: loaded.play, variables: variables(), files: loaded.files, dry_run: false, step: None }
}

fn order(text: &str) -> PlayOrder {
    let loaded = load(text, Path::new("play.yaml"), &|_| Err("there is none".to_owned())).unwrap();
    PlayOrder { play: loaded.play, variables: variables(), files: loaded.files, dry_run: false, step: None }
}

async fn changes(host: &FakeHost, order: &PlayOrder) -> Result<Vec<String>> {
    let journal = Journal::open(host, "demo")?;
    Ok(run(host, &Facts::default(), order, &journal, &Events::nowhere()).await?.changes)
}

/// What is on a host, apart from what systemd and the kernel keep.
fn files(host: &FakeHost) -> Vec<String> {
    let listing =
        host.listing().into_iter().filter(|(path, _)| !path.starts_with("/run") && !path.starts_with("/proc/modules"));
    let listing = listing.filter(|(path, _)| !path.starts_with("/proc/sys/net/bridge"));
    listing
        .map(|(path, (kind, mode, content))| {
            format!("{} {kind:?} {mode:o} {}", path.display(), String::from_utf8_lossy(&content).trim_end())
        })
        .collect()
}

#[tokio::test]
async fn our_plays_change_a_bare_host_once_and_the_journal_puts_it_back() {
    let host = booted();
    let before = files(&host);
    for name in ["prepare", "runtime"] {
        let dry = PlayOrder { dry_run: true, ..ours(name) };
        assert!(!changes(&host, &dry).await.unwrap().is_empty());
    }
    assert_eq!(files(&host), before, "a dry run alters nothing");
    for name in ["prepare", "runtime"] {
        assert!(!changes(&host, &ours(name)).await.unwrap().is_empty());
    }
    assert!(host.text("/etc/fstab").unwrap().contains("#clusterctl# /dev/sda2"));
    assert!(host.text("/etc/containerd/config.toml").unwrap().contains("SystemdCgroup = true"));
    host.put(Path::new("/var/lib/containerd/content"), b"an image", 0o600);
    for name in ["prepare", "runtime"] {
        assert_eq!(changes(&host, &ours(name)).await.unwrap(), [""; 0], "{name} a second time");
    }
    assert!(restore(&host, &Events::nowhere()).await.unwrap() > 0);
    assert_eq!(files(&host), before);
    assert_eq!(restore(&host, &Events::nowhere()).await.unwrap(), 0);
}

const WITH_RESTART: &str = "name: x\ntasks:\n  - {name: settings, file: {path: /etc/a.conf, content: \"{{ swap_off }}\"}}\n  \
                            - {unit: {name: a.service, state: started, restart_on: [settings]}}\n";

#[tokio::test]
async fn a_restart_that_a_broken_run_owes_is_made_up_for() {
    let host = booted().file("/etc/systemd/system/a.service", "").file("/run/fake/a.service.active", "");
    let failing =
        host.clone().answer_with(&["systemctl", "restart"], |_, _| Ok(Output { status: 1, ..Output::default() }));
    let failing = failing.answer(&["journalctl"], 0, "no\n");
    assert!(changes(&failing, &order(WITH_RESTART)).await.is_err());
    let mended = failing.answer(&["systemctl", "restart"], 0, "");
    assert_eq!(changes(&mended, &order(WITH_RESTART)).await.unwrap(), ["restart a.service"]);
    assert!(changes(&mended, &order(WITH_RESTART)).await.unwrap().is_empty());
}

#[tokio::test]
async fn units_are_asked_for_at_once_until_something_is_altered() {
    let host = booted();
    let three = "name: x\ntasks:\n  - loop: [a, b]\n    unit: {name: \"{{ item }}.service\", content: \"{{ item }}\", state: started}\n  \
                 - {unit: {name: c.service, content: c}, when: facts.hostname == 'nobody'}\n";
    let asked = || {
        let ran = host.ran().into_iter().map(|command| command.arguments.join(" "));
        let shown: Vec<String> = ran.filter(|words| words.starts_with("show ")).collect();
        host.forget();
        shown
    };
    assert!(!changes(&host, &order(three)).await.unwrap().is_empty());
    let first = asked();
    // The first unit is altered: what is known of the second is old.
    assert!(first[0].ends_with("-- a.service b.service") && first[1].ends_with("-- b.service"), "{first:?}");
    assert_eq!(changes(&host, &order(three)).await.unwrap(), [""; 0]);
    let second = asked();
    assert!(second.len() == 1 && second[0].ends_with("-- a.service b.service"), "{second:?}");
}

#[tokio::test]
async fn a_unit_of_ours_that_was_restarted_stays_stopped_when_the_host_is_put_back() {
    let host = booted();
    let first = order("name: x\ntasks:\n  - {unit: {name: a.service, content: one, state: started}}\n");
    let second = order("name: x\ntasks:\n  - {unit: {name: a.service, content: two, state: started}}\n");
    changes(&host, &first).await.unwrap();
    assert!(changes(&host, &second).await.unwrap().contains(&"restart a.service".to_owned()));
    restore(&host, &Events::nowhere()).await.unwrap();
    assert_eq!(host.text("/run/fake/a.service.active"), None);
}

#[tokio::test]
async fn conditions_see_the_item_of_a_loop() {
    let host = booted();
    let order = order("name: x\ntasks:\n  - {loop: [a, b], when: item == 'b', directory: {path: '/srv/{{ item }}'}}\n");
    assert_eq!(changes(&host, &order).await.unwrap(), ["make directory /srv/b"]);
}

#[tokio::test]
async fn a_failing_task_is_named_and_ends_the_play() {
    let host = booted().unwritable("/etc/full");
    let order = order(
        "name: x\ntasks:\n  - {name: fill it, file: {path: /etc/full/a, content: x}}\n  \
                       - {directory: {path: /srv/never}}\n",
    );
    let failure = changes(&host, &order).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Host);
    assert!(failure.sentence.starts_with("fill it: cannot write /etc/full/a"), "{failure}");
    assert!(host.entry(Path::new("/srv/never")).unwrap().is_none());
}

#[tokio::test]
async fn swap_that_is_not_of_fstab_is_warned_of() {
    let host = booted().file("/etc/fstab", "");
    let (events, mut receiver) = Events::channel();
    let journal = Journal::open(&host, "demo").unwrap();
    let order = order("name: x\ntasks:\n  - {swap: {state: \"off\"}}\n");
    run(&host, &Facts::default(), &order, &journal, &events).await.unwrap();
    let event = receiver.try_recv().unwrap();
    assert!(matches!(event.what, What::Warned { sentence } if sentence.contains("/dev/sda2")));
}
