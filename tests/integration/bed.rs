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

fn script() -> PathBuf {
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
        Self::create(count, "bare")
    }

    /// `count` hosts that bring Debian's containerd.
    pub fn with_containerd(count: usize) -> Self {
        let bed = Self::create(count, "containerd");
        for host in &bed.hosts {
            // sshd answers before containerd has made its folders. A unit that has started is left as it is.
            bed.sh(&host.name, "systemctl start containerd");
        }
        bed
    }

    fn create(count: usize, image: &str) -> Self {
        let name = format!("t{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let count = count.to_string();
        let text = bed(&["hosts", "create", "--name", &name, "--count", &count, "--image", image, "--json"]);
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
