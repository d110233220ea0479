//! The control groups of pods, which the kubelet leaves when it is stopped.

use std::path::{Path, PathBuf};

use super::sweep::Sweep;
use crate::failure::Result;
use crate::host::{EntryKind, Host};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Names of the top group of all pods: with the cgroupfs driver and with systemd's.
const TOPS: &[&str] = &["kubepods", "kubepods.slice"];

/// Nested deeper than pods ever are; a bound for what is read from a host.
const MAXIMUM_DEPTH: usize = 32;

/// Removes the groups of pods from every hierarchy. They are empty of processes by now; one that is not stays, and says
/// so.
pub(super) fn remove(host: &dyn Host, sweep: &mut Sweep) {
    match tops(host) {
        Ok(tops) => {
            for top in tops {
                sweep.changes_of(remove_group(host, &top, 0).map(|()| true), &format!("{} removed", top.display()));
            }
        }
        Err(failure) => sweep.resisted(failure),
    }
}

/// Groups of pods in the one hierarchy of version 2 or in the many of version 1.
fn tops(host: &dyn Host) -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    let mut parents = vec![root.to_owned()];
    parents.extend(host.list(root)?.iter().map(|name| root.join(name)));
    let mut tops = Vec::new();
    for parent in parents {
        for top in TOPS.iter().map(|name| parent.join(name)) {
            if host.entry(&top)?.is_some_and(|entry| entry.kind == EntryKind::Directory) {
                tops.push(top);
            }
        }
    }
    Ok(tops)
}

/// Removes a group after those below it; the files in it are the kernel's and go with it.
fn remove_group(host: &dyn Host, group: &Path, depth: usize) -> Result<()> {
    if depth < MAXIMUM_DEPTH {
        for name in host.list(group)? {
            let child = group.join(name);
            if host.entry(&child)?.is_some_and(|entry| entry.kind == EntryKind::Directory) {
                remove_group(host, &child, depth + 1)?;
            }
        }
    }
    host.remove(group)
}

#[cfg(test)]
mod tests {
    use super::remove;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::node::reset::sweep::Sweep;

    #[test]
    fn groups_go_from_the_leaves_up_in_every_hierarchy() {
        let host = FakeHost::new()
            .directory("/sys/fs/cgroup/memory/kubepods/burstable/pod1")
            .directory("/sys/fs/cgroup/memory/system.slice")
            .directory("/sys/fs/cgroup/kubepods.slice");
        let mut sweep = Sweep::new(&Events::nowhere());
        remove(&host, &mut sweep);
        assert_eq!(sweep.finish(), Ok(2));
        assert_eq!(
            host.done(),
            [
                "remove /sys/fs/cgroup/kubepods.slice",
                "remove /sys/fs/cgroup/memory/kubepods/burstable/pod1",
                "remove /sys/fs/cgroup/memory/kubepods/burstable",
                "remove /sys/fs/cgroup/memory/kubepods",
            ]
        );
    }
}
