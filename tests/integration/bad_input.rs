//! What goes wrong before or while a cluster is made: each a sentence with the host and what to do, its exit code,
//! nothing half-made, other hosts not disturbed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bed::{Bed, BedHost, bed};
use crate::program::{bundle, call, kubectl, refused, run, up};

/// Nothing of ours may be on a host that was refused. The agent ends a moment after the program that was its other end.
#[track_caller]
fn untouched(bed: &Bed) {
    are_untouched(bed, &bed.hosts);
}

#[track_caller]
fn are_untouched(bed: &Bed, hosts: &[BedHost]) {
    const OURS: &str = "/etc/kubernetes /etc/containerd /etc/sysctl.d/*clusterctl* /usr/local/bin/kubelet \
                        /run/clusterctl.lock /var/lib/clusterctl";
    const LIMIT: Duration = Duration::from_secs(5);
    let began = Instant::now();
    for host in hosts {
        loop {
            let found = bed.sh(&host.name, &format!("ls -d {OURS} 2>/dev/null || true"));
            if found.trim().is_empty() {
                break;
            }
            assert!(began.elapsed() < LIMIT, "{} was touched: {found}", host.name);
        }
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, to)
}

#[test]
fn hosts_that_cannot_be_reached_are_all_named_and_the_others_left_alone() {
    let bed = Bed::bare(4);
    let text = bed.inventory_text("root");
    let text = replaced(&text, &format!("address: {}", bed.hosts[1].address), "address: 172.29.251.251");
    let text = replaced(
        &text,
        &format!("address: {}", bed.hosts[2].address),
        &format!("address: \"{}:2\"", bed.hosts[2].address),
    );
    let text = replaced(&text, "ssh: {", "ssh: {connect_limit_seconds: 4, ");
    // Whoever knocks there hears nothing at all: neither an answer nor a refusal.
    crate::bed::bed(&["host", "cut", &bed.hosts[3].name]);
    let bundle = bundle();
    let strict = ["--yes", "--max-failures", "1", "--bundle", bundle.to_str().unwrap()];
    let finished = run("up", &bed.write_inventory(&text), &strict);
    refused(&finished, 4, &[&bed.hosts[1].name, "172.29.251.251", &bed.hosts[2].name, "refuses connections"]);
    let silent = finished.stderr.lines().find(|line| line.contains(&bed.hosts[3].name)).unwrap_or_default();
    assert!(silent.contains("4 s") || silent.contains("4 seconds"), "{}", finished.stderr);
    assert!(finished.elapsed < Duration::from_secs(15), "it took {:?}", finished.elapsed);
    untouched(&bed);
}

/// A control plane that cannot be reached: nothing is begun. Workers that are not there or not fit: the others get their
/// cluster, the summary names who did not, and the next run finishes.
#[test]
fn workers_that_are_missing_do_not_keep_the_others_from_their_cluster() {
    let bed = Bed::bare(4);
    let text = replaced(&bed.inventory_text("root"), "ssh: {", "ssh: {connect_limit_seconds: 4, ");
    let inventory = bed.write_inventory(&text);
    crate::bed::bed(&["host", "kill", &bed.hosts[0].name]);
    refused(&up(&inventory), 4, &[&bed.hosts[0].name, "not begun"]);
    assert_eq!(bed.try_sh(&bed.hosts[1].name, "test -e /var/lib/clusterctl/journal").code, 1);
    crate::bed::bed(&["host", "start", &bed.hosts[0].name]);
    let (missing, unfit) = (&bed.hosts[2].name, &bed.hosts[3].name);
    crate::bed::bed(&["host", "kill", missing]);
    bed.sh(unfit, "mv /run/systemd/system /run/systemd/system.away");
    let strict = ["--yes", "--max-failures", "1", "--bundle", bundle().to_str().unwrap()].map(str::to_owned);
    let strict: Vec<&str> = strict.iter().map(String::as_str).collect();
    refused(&run("up", &inventory, &strict), 8, &[missing, unfit, "systemd", "not begun"]);
    // What is said before is what is done then.
    let planned = run("plan", &inventory, &strict[1..]);
    refused(&planned, 8, &[missing, unfit, "systemd"]);
    assert!(planned.stdout.is_empty(), "{}", planned.stdout);
    let planned = run("plan", &inventory, &strict[3..]);
    refused(&planned, 8, &[missing, unfit]);
    for (host, why) in [(missing, ""), (unfit, "systemd is not its init system")] {
        let said = planned.stdout.lines().find(|line| line.starts_with(&format!("left out: {host}: ")));
        assert!(said.is_some_and(|line| line.contains(why)), "{}", planned.stdout);
    }
    assert!(planned.stdout.contains("changes on 2 hosts"), "{}", planned.stdout);
    let finished = up(&inventory);
    let headline = format!("ready on 2 of 4 hosts; not done: {missing}, {unfit}");
    refused(&finished, 8, &[&headline, "not reached", "systemd is not its init system"]);
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");
    bed.sh(unfit, "mv /run/systemd/system.away /run/systemd/system");
    are_untouched(&bed, &bed.hosts[3..]);
    crate::bed::bed(&["host", "start", missing]);
    let finished = up(&inventory);
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.matches(" Ready ").count(), 4, "{nodes}");
}

#[test]
fn a_key_that_the_host_does_not_know_is_refused_with_what_was_tried() {
    let bed = Bed::bare(1);
    let key = bed.folder.path().join("other");
    let made =
        call(Path::new("/usr/bin/ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()], &[]);
    assert_eq!(made.code, 0);
    let text = replaced(&bed.inventory_text("root"), bed.key.to_str().unwrap(), key.to_str().unwrap());
    let finished = up(&bed.write_inventory(&text));
    refused(&finished, 5, &[&bed.hosts[0].name, "root", "other"]);
    untouched(&bed);
}

/// The bed's known_hosts file of an inventory, replaced by one of the test.
fn with_known_hosts(bed: &Bed, edit: impl Fn(&str) -> String) -> (PathBuf, PathBuf) {
    let text = bed.inventory_text("root");
    let file =
        text.split("known_hosts: ").nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap().trim().to_owned();
    let own = bed.folder.path().join("known_hosts");
    std::fs::write(&own, edit(&std::fs::read_to_string(&file).unwrap())).unwrap();
    (bed.write_inventory(&replaced(&text, &file, own.to_str().unwrap())), own)
}

#[test]
fn an_unknown_host_key_is_refused_until_a_person_accepts_it() {
    let bed = Bed::bare(1);
    let (inventory, known_hosts) = with_known_hosts(&bed, |_| String::new());
    let finished = up(&inventory);
    refused(&finished, 6, &[&bed.hosts[0].name, "SHA256:"]);
    assert_eq!(std::fs::read_to_string(&known_hosts).unwrap(), "");
    untouched(&bed);
    let accepted = run("status", &inventory, &["--accept-new-host-keys"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    // Debian's ssh_config has names hashed (HashKnownHosts), so the line is looked for by its key.
    let known = std::fs::read_to_string(&known_hosts).unwrap();
    assert_eq!((known.lines().count(), known.contains(" ssh-ed25519 AAAA")), (1, true), "{known}");
    let now_known = run("status", &inventory, &[]);
    assert_eq!(now_known.code, 0, "{}", now_known.stderr);
}

#[test]
fn a_changed_host_key_stops_that_host_even_when_new_keys_are_accepted() {
    let bed = Bed::bare(2);
    let other = bed.hosts[1].address.clone();
    // The first host's address with the second host's key.
    let (inventory, _) = with_known_hosts(&bed, |text| {
        let key = text.lines().find(|line| line.starts_with(&other)).unwrap();
        let wrong = key.replacen(&other, &bed.hosts[0].address, 1);
        format!("{wrong}\n{key}\n")
    });
    let finished = run("up", &inventory, &["--yes", "--accept-new-host-keys", "--bundle", bundle().to_str().unwrap()]);
    refused(&finished, 6, &[&bed.hosts[0].name, "SHA256:", "known_hosts:1", "ssh-keygen -R"]);
    untouched(&bed);
}

#[test]
fn a_host_that_runs_no_linux_or_an_unknown_architecture_is_refused() {
    let bed = Bed::bare(2);
    let pretend = |host: usize, option: &str, answer: &str| {
        let script = format!("[ \"$1\" = {option} ] && echo {answer} || exec /usr/bin/uname \"$@\"");
        let command = format!("echo '#!/bin/sh\n{script}' > /usr/local/bin/uname && chmod +x /usr/local/bin/uname");
        bed.sh(&bed.hosts[host].name, &command);
    };
    pretend(0, "-s", "Darwin");
    pretend(1, "-m", "riscv64");
    let finished = up(&bed.inventory());
    refused(&finished, 8, &[&bed.hosts[0].name, "Darwin", &bed.hosts[1].name, "riscv64"]);
    untouched(&bed);
}

#[test]
fn preflight_findings_of_all_hosts_arrive_together_and_nothing_is_touched() {
    let bed = Bed::bare(3);
    let [first, second, third] = [0, 1, 2].map(|index| bed.hosts[index].name.clone());
    bed.sh(&first, "systemd-run --quiet --unit squatter --socket-property ListenStream=6443 /bin/cat");
    bed.sh(&second, "mkdir -p /etc/foreign && mv /run/systemd/system /run/systemd/system.away");
    let id = bed.sh(&first, "cat /etc/machine-id");
    bed.sh(&third, &format!("echo {} > /etc/machine-id", id.trim()));
    let finished = up(&bed.inventory());
    refused(&finished, 8, &[&first, "6443", &second, "systemd", &third, "machine-id"]);
    bed.sh(&second, "mv /run/systemd/system.away /run/systemd/system");
    untouched(&bed);
}

#[test]
fn a_node_of_another_cluster_is_not_taken_over_by_up_or_down() {
    let bed = Bed::bare(2);
    let foreign = &bed.hosts[1].name;
    let kubeconfig =
        "apiVersion: v1\\nkind: Config\\nclusters:\\n- name: k\\n  cluster: {server: https://192.0.2.7:6443}\\n";
    bed.sh(foreign, &format!("mkdir -p /etc/kubernetes && printf '{kubeconfig}' > /etc/kubernetes/kubelet.conf"));
    let inventory = bed.inventory();
    let finished = up(&inventory);
    refused(&finished, 8, &[foreign, "another cluster", "192.0.2.7"]);
    let finished = run("down", &inventory, &["--yes"]);
    refused(&finished, 8, &[foreign, "did not make"]);
    assert!(bed.sh(foreign, "cat /etc/kubernetes/kubelet.conf").contains("192.0.2.7"));
}

#[test]
fn a_bundle_of_another_version_or_that_is_missing_or_cut_is_refused() {
    let bed = Bed::bare(1);
    let inventory =
        bed.write_inventory(&replaced(&bed.inventory_text("root"), "kubernetes: 1.36.3", "kubernetes: 1.35.4"));
    refused(&up(&inventory), 9, &["1.36.3", "1.35.4"]);
    let inventory = bed.inventory();
    let absent = bed.folder.path().join("absent.bundle");
    refused(&run("up", &inventory, &["--yes", "--bundle", absent.to_str().unwrap()]), 9, &["absent.bundle"]);
    let cut = bed.folder.path().join("cut.bundle");
    let mut source = std::fs::File::open(bundle()).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut source, 64 << 20), &mut std::fs::File::create(&cut).unwrap()).unwrap();
    refused(&run("up", &inventory, &["--yes", "--bundle", cut.to_str().unwrap()]), 9, &["cut.bundle", "damaged"]);
    untouched(&bed);
}

#[test]
fn a_corrupt_blob_is_noticed_on_the_host_before_it_is_used() {
    use std::os::unix::fs::FileExt as _;
    let bed = Bed::bare(1);
    let corrupt = bed.folder.path().join("corrupt.bundle");
    std::fs::copy(bundle(), &corrupt).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&corrupt).unwrap();
    // Somewhere inside the first blobs: behind the manifest, far before the images.
    let offset = 4 << 20;
    let mut bytes = [0_u8; 16];
    file.read_exact_at(&mut bytes, offset).unwrap();
    file.write_all_at(&bytes.map(|byte| !byte), offset).unwrap();
    let inventory = bed.inventory();
    let finished = run("up", &inventory, &["--yes", "--bundle", corrupt.to_str().unwrap()]);
    refused(&finished, 9, &[&bed.hosts[0].name, "sha256"]);
    // What waits to be put in place is whole.
    let waiting = bed.sh(&bed.hosts[0].name, "cd /var/lib/clusterctl/incoming && sha256sum -- * 2>/dev/null || true");
    for line in waiting.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        // A stream that was on its way when sending stopped goes on there, and is checked whole before it is used.
        if !name.ends_with(".part") {
            assert_eq!(sum, name, "a damaged blob was kept");
        }
    }
    assert_eq!(bed.try_sh(&bed.hosts[0].name, "test -e /usr/local/bin/kubelet").code, 1);
    let mended = up(&inventory);
    assert_eq!(mended.code, 0, "{}\n{}", mended.stdout, mended.stderr);
}

#[test]
fn a_disk_that_fills_up_while_bytes_arrive_is_a_sentence_and_the_next_run_goes_on() {
    let bed = Bed::bare(2);
    let full = &bed.hosts[1].name;
    let inventory = bed.inventory();
    // Too small for the agent: nothing is begun there, and no half of it stays. The others get their cluster.
    bed_fill(full, "/var/lib", Some("4M"));
    let finished = up(&inventory);
    refused(&finished, 10, &[full, "no space for the agent", "/var/lib/clusterctl"]);
    are_untouched(&bed, &bed.hosts[1..]);
    bed_fill(full, "/var/lib", None);
    // Large enough for the agent, too small for what comes then: only this host is left behind.
    bed_fill(full, "/var/lib", Some("60M"));
    let finished = up(&inventory);
    refused(&finished, 10, &[full, "No space left on device", "free"]);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 1);
    bed_fill(full, "/var/lib", None);
    let mended = up(&inventory);
    assert_eq!(mended.code, 0, "{}\n{}", mended.stdout, mended.stderr);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
}

fn bed_fill(host: &str, path: &str, free: Option<&str>) {
    match free {
        Some(free) => bed(&["host", "fill", host, path, free]),
        None => bed(&["host", "unfill", host, path]),
    };
}

#[test]
fn mistakes_in_the_inventory_arrive_together_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inventory.yaml");
    let text = "cluster:\n  name: demo\n  kubernets: 1.36.3\n  kubernetes: 1.36\n  network: {pods: 10.96.0.0/16, services: 10.96.0.0/12}\nhosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.1, role: wroker}\n";
    std::fs::write(&path, text).unwrap();
    let finished = run("up", &path, &["--yes"]);
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    for words in [
        "inventory.yaml:3:3",
        "kubernetes",
        "inventory.yaml:4:",
        "inventory.yaml:5:",
        "overlap",
        "inventory.yaml:8:",
        "worker",
        "192.0.2.1",
    ] {
        assert!(finished.stderr.contains(words), "no «{words}» in:\n{}", finished.stderr);
    }
}
