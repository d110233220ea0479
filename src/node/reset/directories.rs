//! Directories that go. Where a link stands for one of those that kubeadm empties, what it leads to is emptied and both
//! stay, as with kubeadm: a person put the link there, often to a larger disk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::sweep::Sweep;
use crate::failure::{Failure, Kind, Result};
use crate::host::{EntryKind, Host};

/// Links that are followed one after the other; as many as the kernel follows.
const MAXIMUM_LINKS: usize = 40;

/// Directories of the root that are no node's alone, wherever a link leads.
const SHARED: &[&str] = &[
    "bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv",
    "sys", "tmp", "usr", "var",
];

/// Removes a directory that kubeadm empties, with what is in it; behind a link it is emptied.
pub(super) fn clean(host: &dyn Host, path: &Path, sweep: &mut Sweep) {
    match kind(host, path) {
        Ok(Some(EntryKind::Link(_))) => empty(host, path, sweep),
        Ok(_) => sweep.changes_of(remove(host, path), &format!("{} removed", path.display())),
        Err(failure) => sweep.resisted(failure),
    }
}

/// Removes what is in a directory, which stays, as does a link that leads to it.
pub(super) fn empty(host: &dyn Host, path: &Path, sweep: &mut Sweep) {
    sweep.changes_of(try_to_empty(host, path), &format!("{} emptied", path.display()));
}

fn try_to_empty(host: &dyn Host, path: &Path) -> Result<bool> {
    let target = real(host, path)?;
    let parent = real(host, path.parent().unwrap_or(Path::new("/")))?;
    if !may_be_emptied(&target, &parent) {
        let sentence =
            format!("{} is not emptied: it leads to {}, which others use, too", path.display(), target.display());
        return Err(Failure::new(Kind::Host, sentence).advise("remove by hand what Kubernetes has there"));
    }
    let filled = !host.list(path)?.is_empty();
    host.empty_tree(path)?;
    Ok(filled)
}

/// Whether the directory that a path leads to is one of its own: neither the root, nor one that every host has, nor one in
/// which the path itself lies. `parent` is that of the path.
fn may_be_emptied(target: &Path, parent: &Path) -> bool {
    !parent.starts_with(target) && !SHARED.iter().any(|name| target == Path::new("/").join(name))
}

/// Removes a directory with what is in it; one that is a mount point is emptied. Whether anything was altered.
pub(super) fn remove(host: &dyn Host, path: &Path) -> Result<bool> {
    if host.entry(path)?.is_none() {
        return Ok(false);
    }
    let filled = !host.list(path)?.is_empty();
    host.remove_tree(path)?;
    Ok(filled || host.entry(path)?.is_none())
}

/// Removes a directory in which nothing is. A link to one is somebody's.
pub(super) fn remove_if_empty(host: &dyn Host, path: &Path) -> Result<bool> {
    if kind(host, path)? != Some(EntryKind::Directory) || !host.list(path)?.is_empty() {
        return Ok(false);
    }
    host.remove(path)?;
    Ok(true)
}

fn kind(host: &dyn Host, path: &Path) -> Result<Option<EntryKind>> {
    Ok(host.entry(path)?.map(|entry| entry.kind))
}

/// Where an absolute path leads when all links in it are followed; what is not there leads nowhere else.
///
/// # Errors
/// Kind `Host` for links that lead to each other.
pub(super) fn real(host: &dyn Host, path: &Path) -> Result<PathBuf> {
    let reversed = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
    };
    let mut place = PathBuf::new();
    let mut rest = reversed(path);
    let mut followed = 0;
    while let Some(component) = rest.pop() {
        match component.to_str() {
            Some(".") => continue,
            Some("..") => {
                place.pop();
                continue;
            }
            // An absolute link begins with the root, which takes the place of all before.
            _ => place.push(component),
        }
        if let Some(EntryKind::Link(target)) = kind(host, &place)? {
            followed += 1;
            if followed > MAXIMUM_LINKS {
                return Err(Failure::new(
                    Kind::Host,
                    format!("{} leads from link to link without end", path.display()),
                )
                .advise("remove the link"));
            }
            place.pop();
            rest.extend(reversed(&target));
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{clean, empty, real, remove_if_empty};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::host::{EntryKind, Host as _};
    use crate::node::reset::sweep::Sweep;

    const ETCD: &str = "/var/lib/etcd";

    fn linked(target: &str) -> FakeHost {
        FakeHost::new()
            .symlink(ETCD, target)
            .file("/data/etcd/member/db", "")
            .symlink("/data/second", "etcd")
            .file("/outside/kept", "")
            .symlink("/data/etcd/link", "/outside")
            .symlink("/loop", ETCD)
            .file("/var/lib/other", "")
    }

    #[rstest]
    #[case::absolute("/data/etcd", "/data/etcd")]
    #[case::relative("../../data/etcd", "/data/etcd")]
    #[case::over_a_second_one("/data/./second", "/data/etcd")]
    #[case::of_the_root("/data", "/data")]
    fn what_a_link_leads_to_is_emptied(#[case] target: &str, #[case] emptied: &str) {
        let host = linked(target);
        assert_eq!(real(&host, Path::new(ETCD)).unwrap(), Path::new(emptied));
        for changes in [1, 0] {
            let mut sweep = Sweep::new(&Events::nowhere());
            clean(&host, Path::new(ETCD), &mut sweep);
            assert_eq!(sweep.finish(), Ok(changes));
        }
        assert_eq!(host.entry(Path::new(ETCD)).unwrap().unwrap().kind, EntryKind::Link(target.into()));
        assert_eq!(host.entry(Path::new(emptied)).unwrap().unwrap().kind, EntryKind::Directory);
        assert!(host.list(Path::new(emptied)).unwrap().is_empty());
        assert!(host.text("/outside/kept").is_some());
    }

    #[rstest]
    #[case::the_root("/", "/, which others use, too")]
    #[case::of_every_host("/var", "/var, which others use, too")]
    #[case::where_it_lies_itself(".", "/var/lib, which others use, too")]
    #[case::without_end("/loop", "without end")]
    fn what_is_not_the_nodes_alone_is_left(#[case] target: &str, #[case] said: &str) {
        let host = linked(target);
        let before = host.listing();
        for attempt in [clean, empty] {
            let mut sweep = Sweep::new(&Events::nowhere());
            attempt(&host, Path::new(ETCD), &mut sweep);
            let failure = sweep.finish().unwrap_err();
            assert!(failure.sentence.contains(said), "{failure}");
        }
        assert_eq!(host.listing(), before);
    }

    #[test]
    fn a_directory_goes_and_a_link_to_an_empty_one_stays() {
        let host = FakeHost::new().file("/var/lib/etcd/member/db", "").symlink("/etc/kubernetes", "/data/kubernetes");
        let host = host.directory("/data/kubernetes").directory("/empty");
        let mut sweep = Sweep::new(&Events::nowhere());
        clean(&host, Path::new(ETCD), &mut sweep);
        assert_eq!(sweep.finish(), Ok(1));
        assert_eq!(host.entry(Path::new(ETCD)), Ok(None));
        assert_eq!(remove_if_empty(&host, Path::new("/etc/kubernetes")), Ok(false));
        assert_eq!(remove_if_empty(&host, Path::new("/empty")), Ok(true));
        assert!(host.entry(Path::new("/etc/kubernetes")).unwrap().is_some());
    }
}
