//! Removing a directory with everything below it, by file descriptors, so that nobody can lead it elsewhere.

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
    if !left.is_empty() {
        let detail = left.iter().map(|one| format!("{}: {}", one.path.display(), one.why)).collect::<Vec<_>>();
        let first = left[0].path.display();
        return Err(Failure::new(Kind::Host, format!("cannot remove all of {}: {first} is left", path.display()))
            .detailed(detail.join("\n"))
            .may_pass());
    }
    if mounts.contains(&real) {
        return Ok(());
    }
    std::fs::remove_dir(&real).map_err(|error| cannot(&error))
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

    use super::{mount_points, remove};

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
