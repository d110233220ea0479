//! The same through Vagrant's own machines, as `vagrant up` makes them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bed::bed;
use crate::program::{Finished, call, down, kubectl, up};

/// Vagrant's machines, destroyed when dropped.
struct Machines;

fn vagrant(arguments: &[&str]) -> Finished {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vagrant");
    let environment = [("HOSTS", "3"), ("VAGRANT_CWD", folder.to_str().unwrap()), ("VAGRANT_CHECKPOINT_DISABLE", "1")];
    call(&PathBuf::from("vagrant"), arguments, &environment)
}

impl Drop for Machines {
    fn drop(&mut self) {
        let _ = vagrant(&["destroy", "--force"]);
    }
}

/// Does something while containers that are not Vagrant's are made and removed beside it, as other tests do all the time.
fn while_containers_come_and_go<T>(doing: impl FnOnce() -> T) -> T {
    let settings = bed(&["vagrant", "settings"]);
    let image = settings.lines().find_map(|line| line.strip_prefix("image=")).unwrap();
    let name = format!("clusterctl-passing-{}", std::process::id());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = call(Path::new("docker"), &["create", "--name", &name, image], &[]);
                let _ = call(Path::new("docker"), &["rm", "--force", &name], &[]);
            }
        });
        let result = doing();
        done.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn vagrants_machines_become_a_cluster_and_are_given_back() {
    bed(&["vagrant", "install"]);
    let _ = vagrant(&["destroy", "--force"]);
    let machines = Machines;
    let started = while_containers_come_and_go(|| vagrant(&["up", "--provider=docker"]));
    assert_eq!(started.code, 0, "{}\n{}", started.stdout, started.stderr);
    let folder = tempfile::tempdir().unwrap();
    let inventory = folder.path().join("inventory.yaml");
    std::fs::write(&inventory, bed(&["vagrant", "inventory"])).unwrap();
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    for machine in ["cp1", "w1", "w2"] {
        let left = vagrant(&["ssh", machine, "--", "ls", "/etc/kubernetes", "/usr/local/bin", "/var/lib/clusterctl"]);
        assert!(!left.stdout.contains("kube") && !left.stdout.contains("pki"), "{machine}: {}", left.stdout);
    }
    drop(machines);
}
