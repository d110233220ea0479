//! Mounts that pods leave behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::directories;
use super::sweep::Sweep;
use crate::failure::Result;
use crate::host::Host;

/// Everything mounted below these belongs to pods: volumes, the sandboxes' shared memory, the containers' roots.
const BELOW: &[&str] = &[
    "/var/lib/kubelet",
    "/run/containerd/io.containerd.grpc.v1.cri",
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
    "/run/containerd/io.containerd.sandbox.controller.v1.shim",
];

/// The network namespaces that the runtime makes for pods.
const NAMESPACE_PREFIX: &str = "/run/netns/cni-";

/// Unmounts them, the deepest first.
pub(super) fn remove(host: &dyn Host, sweep: &mut Sweep) {
    match of_pods(host) {
        Ok(points) => {
            for point in points {
                match host.unmount(&point) {
                    Ok(()) => sweep.changed(format!("{} unmounted", point.display())),
                    Err(failure) => sweep.resisted(failure),
                }
            }
        }
        Err(failure) => sweep.resisted(failure),
    }
    namespaces(host, sweep);
}

/// The files the namespaces were mounted on.
fn namespaces(host: &dyn Host, sweep: &mut Sweep) {
    let names = match host.list(Path::new("/run/netns")) {
        Ok(names) => names,
        Err(failure) => return sweep.resisted(failure),
    };
    for name in names.iter().filter(|name| name.starts_with("cni-")) {
        let path = Path::new("/run/netns").join(name);
        let removed = host.remove(&path).map(|()| true);
        sweep.changes_of(removed, &format!("{} removed", path.display()));
    }
}

fn of_pods(host: &dyn Host) -> Result<Vec<PathBuf>> {
    let table = host.read(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    // kubeadm resolves a /var/lib/kubelet that is a link; the mount table has real paths.
    let mut below: Vec<PathBuf> = BELOW.iter().map(PathBuf::from).collect();
    // Links without end are told where what they lead to should be emptied.
    if let Ok(kubelet) = directories::real(host, Path::new(BELOW[0])) {
        below.push(kubelet);
    }
    Ok(points(&table, &below))
}

/// Mount points strictly below one of `below` or of a pod's network namespace, deepest first.
fn points(table: &[u8], below: &[PathBuf]) -> Vec<PathBuf> {
    let ours = |point: &PathBuf| {
        below.iter().any(|parent| point.starts_with(parent) && point != parent)
            || point.as_os_str().as_bytes().starts_with(NAMESPACE_PREFIX.as_bytes())
    };
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let mut points: Vec<PathBuf> = fields.map(unescaped).filter(ours).collect();
    // The last mounted comes last in the table and lies on top.
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// A path without the kernel's octal escapes (`\040` for a blank).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{BELOW, points};

    #[test]
    fn only_what_pods_mounted_goes_deepest_first() {
        let table = b"1 0 0:1 / / rw - overlay overlay rw\n\
            2 1 0:2 / /var/lib/kubelet rw - ext4 /dev/vda rw\n\
            3 2 0:3 / /var/lib/kubelet/pods/1/volumes/a\\040b rw - tmpfs tmpfs rw\n\
            4 2 0:4 / /var/lib/kubelet/x rw - tmpfs tmpfs rw\n\
            5 1 0:5 / /run/netns/cni-1 rw - nsfs nsfs rw\n\
            6 1 0:6 / /run/netns/mine rw - nsfs nsfs rw\n\
            7 1 0:7 / /run/containerd/io.containerd.runtime.v2.task/moby/1/rootfs rw - overlay overlay rw\n\
            8 1 0:8 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs rw - overlay overlay rw\n";
        let below: Vec<PathBuf> = BELOW.iter().map(PathBuf::from).collect();
        assert_eq!(
            points(table, &below),
            [
                "/var/lib/kubelet/pods/1/volumes/a b",
                "/run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs",
                "/var/lib/kubelet/x",
                "/run/netns/cni-1",
            ]
            .map(PathBuf::from)
        );
    }
}
