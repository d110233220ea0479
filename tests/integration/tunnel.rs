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

    // Somebody's file is not written over.
    std::fs::write(&beside, "mine").unwrap();
    let refused = run("tunnel", &inventory, &["--kubeconfig", beside.to_str().unwrap()]);
    assert!(refused.code == 2 && refused.stderr.contains("is there already"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), "mine");
}
