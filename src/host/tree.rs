//! Removing a directory with everything below it, or only what is below it, by file descriptors, so that nobody can lead
//! it elsewhere.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::failure::{Failure, Kind, Result};

/// Deeper nesting than this is refused: each level keeps a descriptor open.
const MAXIMUM_DEPTH: usize = 200;

/// Where something is mounted, of a text such as /proc/self/mountinfo.
pub(super) fn mount_points(mountinfo: &str) -> BTreeSet<PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

/// Takes the kernel's octal escapes (`\040` for a blank) out of a path.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&plain))
}

/// What could not be removed, and why.
struct Left {
    path: PathBuf,
    why: String,
}

/// Removes a directory with everything below it. Links are removed, not followed. A mount below is left alone and named in
/// the failure; a directory that is itself a mount point is emptied and stays, since it cannot be removed.
pub(super) fn remove(path: &Path, mountinfo: &str) -> Result<()> {
    let cannot = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Kind::Host, format!("cannot remove {}", path.display())).because(error)
    };
    let Some(name) = path.file_name() else {
        return Err(Failure::new(Kind::Host, format!("{} is not removed: it has no name", path.display())));
    };
    // The mount table has real paths, ours may lead through a link such as /var/run.
    let parent = match path.parent().unwrap_or(Path::new("/")).canonicalize() {
        Ok(parent) => parent,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(&error)),
    };
    let real = parent.join(name);
    let mounts = mount_points(mountinfo);
    let directory = match open_directory(CWD, &real) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        // Not a directory, or a link: that one entry is the whole tree.
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(&real).map_err(|error| cannot(&error)),
        Err(error) => return Err(cannot(&error)),
    };
    let mut left = Vec::new();
    empty(directory, &real, &mounts, 0, &mut left).map_err(|error| cannot(&error))?;
    all_went(path, &left)?;
    if mounts.contains(&real) {
        return Ok(());
    }
    std::fs::remove_dir(&real).map_err(|error| cannot(&error))
}

/// Removes everything below a directory, which stays. It may be reached by links; those below it are removed, not followed.
/// A mount below is left alone and named in the failure.
pub(super) fn clear(path: &Path, mountinfo: &str) -> Result<()> {
    let cannot = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Kind::Host, format!("cannot empty {}", path.display())).because(error)
    };
    // The mount table has real paths.
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(&error)),
    };
    if real.file_name().is_none() {
        return Err(Failure::new(Kind::Host, format!("{} is not emptied: it leads to /", path.display())));
    }
    let directory = match open_directory(CWD, &real) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(cannot(&error)),
    };
    let mut left = Vec::new();
    empty(directory, &real, &mount_points(mountinfo), 0, &mut left).map_err(|error| cannot(&error))?;
    all_went(path, &left)
}

/// A failure that names what was left.
fn all_went(path: &Path, left: &[Left]) -> Result<()> {
    let Some(first) = left.first() else { return Ok(()) };
    let detail: Vec<String> = left.iter().map(|one| format!("{}: {}", one.path.display(), one.why)).collect();
    let sentence = format!("cannot remove all of {}: {} is left", path.display(), first.path.display());
    Err(Failure::new(Kind::Host, sentence).detailed(detail.join("\n")).may_pass())
}

fn open_directory<Fd: std::os::fd::AsFd, P: rustix::path::Arg>(at: Fd, path: P) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes everything in an open directory. Single entries that resist are collected, so that the rest goes.
fn empty(
    directory: OwnedFd,
    path: &Path,
    mounts: &BTreeSet<PathBuf>,
    depth: usize,
    left: &mut Vec<Left>,
) -> Result<(), Errno> {
    if depth > MAXIMUM_DEPTH {
        left.push(Left { path: path.to_owned(), why: "is nested too deeply".to_owned() });
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entries.push((name.to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in entries {
        let child = path.join(OsStr::from_bytes(name.to_bytes()));
        if mounts.contains(&child) {
            left.push(Left { path: child, why: "something is mounted there".to_owned() });
            continue;
        }
        if let Err(error) = remove_entry(&directory, &name, kind, &child, mounts, depth, left) {
            left.push(Left { path: child, why: error.to_string() });
        }
    }
    Ok(())
}

fn remove_entry(
    directory: &OwnedFd,
    name: &CStr,
    kind: FileType,
    child: &Path,
    mounts: &BTreeSet<PathBuf>,
    depth: usize,
    left: &mut Vec<Left>,
) -> Result<(), Errno> {
    let gone = |result: Result<(), Errno>| match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    if matches!(kind, FileType::Directory | FileType::Unknown) {
        match open_directory(directory, name) {
            Ok(inner) => {
                let before = left.len();
                empty(inner, child, mounts, depth + 1, left)?;
                // A directory that still holds something is explained by what it holds.
                if left.len() > before {
                    return Ok(());
                }
                return gone(unlinkat(directory, name, AtFlags::REMOVEDIR));
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
    }
    gone(unlinkat(directory, name, AtFlags::empty()))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rstest::rstest;

    use super::{clear, mount_points, remove};

    #[test]
    fn mount_points_are_the_fifth_field_without_escapes() {
        let text = "22 1 0:20 / / rw - overlay overlay rw\n23 22 0:21 / /mnt/a\\040b rw shared:1 - tmpfs tmpfs rw\n";
        let points = mount_points(text);
        assert!(points.contains(Path::new("/")));
        assert!(points.contains(Path::new("/mnt/a b")));
        assert_eq!(points.len(), 2);
    }

    #[test]
    fn a_tree_goes_but_what_its_links_point_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        remove(&tree, "").unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove(&tree, "").unwrap();
    }

    #[test]
    fn what_a_link_leads_to_is_emptied_and_stays_with_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let (target, outside) = (folder.path().join("target"), folder.path().join("outside"));
        std::fs::create_dir_all(target.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(target.join("a/b/file"), "x").unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, target.join("a/link")).unwrap();
        let (link, second) = (folder.path().join("link"), folder.path().join("second"));
        std::os::unix::fs::symlink("target", &link).unwrap();
        std::os::unix::fs::symlink("link", &second).unwrap();
        clear(&second, "").unwrap();
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        assert!(link.is_symlink() && second.is_symlink() && outside.join("kept").exists());
        clear(&target, "").unwrap();
        assert!(target.is_dir());
    }

    #[rstest]
    #[case::nothing("none", Ok(()))]
    #[case::dangling("dangling", Ok(()))]
    #[case::a_file("file", Err("cannot empty "))]
    #[case::the_root("root", Err("is not emptied: it leads to /"))]
    fn only_directories_are_emptied(#[case] name: &str, #[case] expected: Result<(), &str>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/nonexistent", folder.path().join("dangling")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        let cleared = clear(&folder.path().join(name), "");
        match expected {
            Ok(()) => assert_eq!(cleared, Ok(())),
            Err(sentence) => assert!(cleared.unwrap_err().sentence.contains(sentence)),
        }
        assert!(folder.path().join("file").exists());
    }

    #[test]
    fn a_mount_below_what_is_emptied_is_left_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().canonicalize().unwrap().join("target");
        std::fs::create_dir_all(target.join("mounted")).unwrap();
        std::fs::write(target.join("mounted/data"), "x").unwrap();
        std::fs::write(target.join("file"), "x").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let table = format!("1 0 0:1 / {} rw - tmpfs tmpfs rw\n", target.join("mounted").display());
        let failure = clear(&link, &table).unwrap_err();
        assert!(failure.sentence.contains("mounted is left"), "{failure}");
        assert!(target.join("mounted/data").exists() && !target.join("file").exists());
    }

    #[test]
    fn a_mount_below_is_left_and_named_while_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().canonicalize().unwrap().join("tree");
        std::fs::create_dir_all(tree.join("mounted")).unwrap();
        std::fs::write(tree.join("mounted/data"), "x").unwrap();
        std::fs::write(tree.join("file"), "x").unwrap();
        let table = format!("1 0 0:1 / {} rw - tmpfs tmpfs rw\n", tree.join("mounted").display());
        let failure = remove(&tree, &table).unwrap_err();
        assert!(failure.sentence.contains("mounted is left"), "{failure}");
        assert!(tree.join("mounted/data").exists());
        assert!(!tree.join("file").exists());
    }

    #[test]
    fn a_mount_point_is_emptied_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().canonicalize().unwrap().join("volume");
        std::fs::create_dir_all(tree.join("a")).unwrap();
        let table = format!("1 0 0:1 / {} rw - ext4 /dev/vda rw\n", tree.display());
        remove(&tree, &table).unwrap();
        assert!(tree.exists());
        assert_eq!(std::fs::read_dir(&tree).unwrap().count(), 0);
        let _: PathBuf = tree;
    }
}
