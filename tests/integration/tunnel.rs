//! `tunnel`: the API from the laptop, where nothing but SSH is open.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bed::{Bed, bed};
use crate::program::{Finished, Running, call, clusterctl, run, up};

/// Tries until it succeeds.
#[track_caller]
fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let began = Instant::now();
    while !attempt() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// kubectl on the control plane, as if it were here; the API's port is closed.
fn kubectl_runs_there(hosts: &Bed, inventory: &Path) {
    let path = inventory.to_str().unwrap();
    let kubectl = |words: &[&str]| run("kubectl", inventory, &[&["--"][..], words].concat());
    let nodes = kubectl(&["get", "nodes", "--no-headers"]);
    assert!(nodes.code == 0 && nodes.stdout.contains(" Ready "), "{nodes:?}");
    let missing = kubectl(&["get", "configmap", "nowhere"]);
    assert!(missing.code == 1 && missing.stderr.contains("NotFound"), "{missing:?}");

    // A file of this machine, and not one of the same name there; then all of an output that is large.
    let file = hosts.folder.path().join("large.yaml");
    let mut text = String::new();
    for number in 0..6 {
        let value = "0123456789abcdef".repeat(900_000 / 16);
        let metadata = format!("metadata: {{name: large-{number}, labels: {{of: us}}}}");
        text.push_str(&format!("---\napiVersion: v1\nkind: ConfigMap\n{metadata}\ndata: {{value: \"{value}\"}}\n"));
    }
    std::fs::write(&file, &text).unwrap();
    hosts.sh(
        &hosts.hosts[0].name,
        &format!("mkdir -p {0} && echo wrong > {0}/large.yaml", hosts.folder.path().display()),
    );
    let applied = kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    assert!(applied.code == 0 && applied.stdout.matches("serverside-applied").count() == 6, "{applied:?}");
    let got = kubectl(&["get", "configmaps", "-l", "of=us", "-o", "jsonpath={.items[*].data.value}"]);
    assert_eq!((got.code, got.stdout.len()), (0, 6 * 900_000 + 5), "{}", got.stderr);
    let line = format!("{} kubectl -i {path} -- delete -f - < {}", clusterctl().display(), file.display());
    let deleted = call(Path::new("sh"), &["-c", &line], &[]);
    assert!(deleted.code == 0 && deleted.stdout.matches("deleted").count() == 6, "{deleted:?}");
    let folder = kubectl(&["apply", "-f", hosts.folder.path().to_str().unwrap()]);
    assert!(folder.code == 2 && folder.stderr.contains("is a folder on this machine"), "{folder:?}");

    // Lines come before the end, which is here only when it is asked for.
    for words in
        [["-n", "kube-system", "logs", "-f", "-l", "component=kube-apiserver"].as_slice(), &["get", "nodes", "-w"]]
    {
        let all = [&["kubectl", "-i", path, "--"][..], words].concat();
        let (mut running, lines) = Running::start_watched(&clusterctl(), &all, &[]);
        lines.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("{words:?} says nothing"));
        running.signal("INT");
        let ended = running.finish();
        assert!(ended.code == 130 && ended.elapsed < Duration::from_secs(60), "{words:?}: {ended:?}");
        assert_eq!(hosts.sh(&hosts.hosts[0].name, "pgrep -x kubectl || true").trim(), "", "{words:?} goes on");
    }

    // On a terminal where one is asked for, as whatever kubectl starts there sees it.
    let host = &hosts.hosts[0].name;
    hosts.sh(host, "printf '#!/bin/sh\\ntty >/tmp/tty\\n' >/usr/local/bin/vi; chmod +x /usr/local/bin/vi");
    let line = format!("{} kubectl -i {path} -- edit configmap kube-root-ca.crt", clusterctl().display());
    let edited = call(Path::new("script"), &["-qec", &line, "/dev/null"], &[]);
    assert!(edited.code == 0 && edited.stdout.contains("no changes made"), "{edited:?}");
    assert!(hosts.sh(host, "cat /tmp/tty; rm /tmp/tty /usr/local/bin/vi").starts_with("/dev/pts/"));
}

#[test]
fn the_api_is_reached_through_ssh_and_after_a_lost_link_again() {
    let hosts = Bed::bare(1);
    let (inventory, host) = (hosts.inventory(), &hosts.hosts[0].name);
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    hosts.sh(host, "iptables -I INPUT -i eth0 -p tcp --dport 6443 -j DROP");

    let kubectl = PathBuf::from(bed(&["kubernetes"]).trim()).join("bin/kubectl");
    let nodes = |kubeconfig: &Path| -> Finished {
        let kubeconfig = kubeconfig.to_str().unwrap();
        let words = ["--kubeconfig", kubeconfig, "--request-timeout=3s", "get", "nodes", "--no-headers"];
        call(&kubectl, &words, &[])
    };
    let direct = nodes(&hosts.folder.path().join(format!("{}.kubeconfig", hosts.name)));
    assert_ne!(direct.code, 0, "the port is open: {direct:?}");

    let beside = hosts.folder.path().join(format!("{}.tunnel.kubeconfig", hosts.name));
    let mut tunnel = Running::start(&clusterctl(), &["tunnel", "-i", inventory.to_str().unwrap()], &[]);
    eventually("the kubeconfig", || beside.exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&beside).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let through = nodes(&beside);
    assert!(through.code == 0 && through.stdout.contains(" Ready "), "{through:?}");

    // The same port leads there again.
    hosts.sh(host, "pkill -KILL -f '^sshd(-session)?: root'");
    eventually("the API after a lost link", || nodes(&beside).code == 0);
    tunnel.signal("INT");
    let ended = tunnel.finish();
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, 0, "{said}");
    assert!(said.contains("connecting again") && said.contains("leads to the API server through"), "{said}");
    assert!(!beside.exists(), "the kubeconfig stays");

    kubectl_runs_there(&hosts, &inventory);

    // Somebody's file is not written over.
    std::fs::write(&beside, "mine").unwrap();
    let refused = run("tunnel", &inventory, &["--kubeconfig", beside.to_str().unwrap()]);
    assert!(refused.code == 2 && refused.stderr.contains("is there already"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), "mine");
}
