//! Fresh hosts from the test bed, and the faults it can inject. Dropping a [`Bed`] removes its hosts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

use crate::program::{Finished, call};

static COUNTER: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Deserialize)]
struct Created {
    key: PathBuf,
    hosts: Vec<BedHost>,
}

/// One host of the bed.
#[derive(Debug, Clone, Deserialize)]
pub struct BedHost {
    /// Its name: host name, container name and name in the inventory.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// Some fresh hosts and a folder for the test's own files.
pub struct Bed {
    /// Name of the set; also the cluster's name.
    pub name: String,
    /// The hosts in order; the first is the control plane.
    pub hosts: Vec<BedHost>,
    /// Private key that root and all users of the hosts accept.
    pub key: PathBuf,
    /// For inventories and whatever else the test writes.
    pub folder: tempfile::TempDir,
}

/// `bash -c SEND BED HOST FOLDER FILE...`
const SEND: &str = r#"
set -euo pipefail
host=$1 folder=$2
shift 2
places=()
for file in "$@"; do places+=(-C "$(dirname "$file")" "$(basename "$file")"); done
tar --dereference -c "${places[@]}" | "$0" host sh "$host" -- sh -c "mkdir -p $folder && tar -C $folder -x"
"#;

/// The program of the test bed.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vagrant/bed")
}

/// Calls the test bed; a failure of the bed is the test's failure.
pub fn bed(arguments: &[&str]) -> String {
    let finished = call(&script(), arguments, &[]);
    assert_eq!(finished.code, 0, "bed {arguments:?} failed:\n{}\n{}", finished.stdout, finished.stderr);
    finished.stdout
}

impl Bed {
    /// `count` bare hosts.
    pub fn bare(count: usize) -> Self {
        Self::create(count, &["--image", "bare"])
    }

    /// `count` bare hosts, every second one behind a router: the second, the fourth...
    pub fn in_two_subnets(count: usize) -> Self {
        Self::create(count, &["--subnet", "both"])
    }

    /// `count` hosts that bring Debian's containerd.
    pub fn with_containerd(count: usize) -> Self {
        let bed = Self::create(count, &["--image", "containerd"]);
        for host in &bed.hosts {
            // sshd answers before containerd has made its folders. A unit that has started is left as it is.
            bed.sh(&host.name, "systemctl start containerd");
        }
        bed
    }

    /// `count` hosts that kubeadm may be run on: runtime, kubelet, images, and a pod network of each host's own. Upstream's
    /// kubeadm is on their PATH.
    pub fn prepared(count: usize, version: &str) -> Self {
        let made = Self::bare(count);
        let kubernetes = PathBuf::from(bed(&["kubernetes", version]).trim());
        let folders = ["bin", "cni", "images", "upstream"].map(|name| kubernetes.join(name));
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/prepare.sh");
        std::thread::scope(|scope| {
            for (at, host) in made.hosts.iter().enumerate() {
                let (made, folders, script) = (&made, &folders, &script);
                scope.spawn(move || {
                    made.send(&host.name, folders, "/root/prepare/kubernetes");
                    made.send(&host.name, &[script], "/root/prepare");
                    made.sh(&host.name, &format!("bash /root/prepare/prepare.sh 10.244.{at}.0/24"));
                });
            }
        });
        made
    }

    /// `count` hosts with fish, tcsh and doas.
    pub fn with_shells(count: usize) -> Self {
        Self::create(count, &["--image", "shells"])
    }

    fn create(count: usize, options: &[&str]) -> Self {
        let name = format!("t{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let count = count.to_string();
        let text = bed(&[&["hosts", "create", "--name", &name, "--count", &count, "--json"], options].concat());
        let created: Created = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        Self { name, hosts: created.hosts, key: created.key, folder: tempfile::tempdir().unwrap() }
    }

    /// The bed's inventory for a login user (`root`, `ops` with a sudo password, `free` without, `plain` without right).
    pub fn inventory_text(&self, user: &str) -> String {
        bed(&["inventory", &self.name, "--user", user])
    }

    /// Writes an inventory into the test's folder.
    pub fn write_inventory(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("inventory.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The usual inventory, as root.
    pub fn inventory(&self) -> PathBuf {
        self.write_inventory(&self.inventory_text("root"))
    }

    /// Runs a shell command on a host, past its network; it must succeed.
    pub fn sh(&self, host: &str, command: &str) -> String {
        bed(&["host", "sh", host, "--", "sh", "-c", command])
    }

    /// Runs a shell command on a host, past its network.
    pub fn try_sh(&self, host: &str, command: &str) -> Finished {
        call(&script(), &["host", "sh", host, "--", "sh", "-c", command], &[])
    }

    /// Copies files and folders of this machine into a folder of a host; links are followed.
    pub fn send(&self, host: &str, files: &[&Path], folder: &str) {
        let script = script();
        let mut words = vec!["-c", SEND, script.to_str().unwrap(), host, folder];
        words.extend(files.iter().map(|file| file.to_str().unwrap()));
        let finished = call(Path::new("bash"), &words, &[]);
        assert_eq!(finished.code, 0, "sending {files:?} to {host}: {}", finished.stderr);
    }

    /// Everything on a host that a visitor must leave as it was.
    pub fn listing(&self, host: &str) -> String {
        bed(&["listing", host])
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = call(&script(), &["hosts", "destroy", &self.name], &[]);
    }
}

/// The lines in which two listings differ, for a message a person can act on.
pub fn difference(before: &str, after: &str) -> String {
    let before_lines: std::collections::BTreeSet<&str> = before.lines().collect();
    let after_lines: std::collections::BTreeSet<&str> = after.lines().collect();
    let gone = before_lines.difference(&after_lines).map(|line| format!("- {line}"));
    let new = after_lines.difference(&before_lines).map(|line| format!("+ {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}
