//! The real host: this machine.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;

use super::seen::Stamp;
use super::{Command, Entry, EntryKind, Host, Input, NewFile, Output, Space, process, tree};
use crate::failure::{Failure, Kind, Result};

/// Files above this are not read whole.
const MAXIMUM_FILE_BYTES: u64 = 64 << 20;

/// This machine. Holds nothing: it may be made wherever it is needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

/// A failure about a path, with advice where the cause has an ordinary remedy.
fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Kind::Host, format!("cannot {doing} {}", path.display())).because(error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.advise("free some space on that filesystem and run the same command again")
        }
        io::ErrorKind::ReadOnlyFilesystem => failure.advise("make that filesystem writable"),
        _ => failure,
    }
}

/// `None` for what is not there.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fine when it is gone already.
fn gone(result: io::Result<()>) -> io::Result<()> {
    present(result).map(|_| ())
}

/// A name beside a path that nobody else uses: the process id tells two agents apart.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.clusterctl-{}", std::process::id()))
}

/// Whether a name is one that an agent gave to what it made beside a file called `file`. Found later, that agent was killed.
pub fn is_beside(name: &str, file: &str) -> bool {
    let number = name.strip_prefix('.').and_then(|name| name.strip_prefix(file)?.strip_prefix(".clusterctl-"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Makes a file beside `path` by `fill`, brings it to the disk and renames it into place; nothing stays behind on failure.
fn replace(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let begun = Temporary::make(path, mode, fill)?;
    begun.file.sync_all()?;
    begun.put()
}

/// Where something is mounted, in the kernel's words.
fn mount_table(machine: &Machine) -> Result<String> {
    let table = machine.read(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&table).into_owned())
}

/// A file beside the place it is meant for. Dropping it removes it, unless it was put there.
struct Temporary<'a> {
    place: &'a Path,
    path: PathBuf,
    file: File,
}

impl<'a> Temporary<'a> {
    fn make(place: &'a Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let path = beside(place);
        // Left behind by a process of the same id that was killed.
        gone(fs::remove_file(&path))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut made = Self { place, path, file };
        fill(&mut made.file)?;
        made.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(made)
    }

    fn put(self) -> io::Result<()> {
        fs::rename(&self.path, self.place)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Host for Machine {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let Some(file) = present(File::open(path))? else { return Ok(None) };
            let mut content = Vec::new();
            // Files of /proc claim a size of 0, so the size is not asked.
            file.take(MAXIMUM_FILE_BYTES + 1).read_to_end(&mut content)?;
            Ok(Some(content))
        };
        let content = read().map_err(|error| failed("read", path, &error))?;
        if content.as_ref().is_some_and(|content| content.len() as u64 > MAXIMUM_FILE_BYTES) {
            return Err(Failure::new(Kind::Host, format!("{} is larger than 64 MiB", path.display())));
        }
        Ok(content)
    }

    fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        let look = || -> io::Result<Option<Entry>> {
            let Some(metadata) = present(fs::symlink_metadata(path))? else { return Ok(None) };
            let kind = match metadata.file_type() {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_dir() => EntryKind::Directory,
                kind if kind.is_symlink() => EntryKind::Link(fs::read_link(path)?),
                _ => EntryKind::Other,
            };
            Ok(Some(Entry {
                kind,
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
                size: metadata.size(),
            }))
        };
        look().map_err(|error| failed("look at", path, &error))
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in present(fs::read_dir(directory))?.into_iter().flatten() {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|error| failed("list", directory, &error))
    }

    fn sha256(&self, path: &Path) -> Result<Option<String>> {
        let digest = || -> io::Result<Option<String>> {
            let Some(mut file) = present(File::open(path))? else { return Ok(None) };
            let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
            let mut buffer = vec![0; 256 << 10];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok(Some(super::hex(context.finish().as_ref()))),
                    Ok(length) => context.update(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        digest().map_err(|error| failed("read", path, &error))
    }

    fn stamp(&self, path: &Path) -> Result<Option<Stamp>> {
        let metadata = present(fs::symlink_metadata(path)).map_err(|error| failed("look at", path, &error))?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|metadata| Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }))
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        replace(path, mode, |file| file.write_all(content)).map_err(|error| failed("write", path, &error))
    }

    fn write_together(&self, files: &[NewFile<'_>]) -> Result<()> {
        let mut begun = Vec::with_capacity(files.len());
        for NewFile { path, content, mode } in files {
            let made = Temporary::make(path, *mode, |file| file.write_all(content));
            begun.push(made.map_err(|error| failed("write", path, &error))?);
        }
        // The first has the filesystem write what it knows of all of them.
        for file in &begun {
            file.file.sync_all().map_err(|error| failed("write", file.place, &error))?;
        }
        for file in begun {
            let place = file.place;
            file.put().map_err(|error| failed("write", place, &error))?;
        }
        Ok(())
    }

    fn poke(&self, path: &Path, content: &[u8]) -> Result<()> {
        let poke = || OpenOptions::new().write(true).truncate(true).open(path)?.write_all(content);
        poke().map_err(|error| failed("write", path, &error))
    }

    fn append(&self, path: &Path, content: &[u8]) -> Result<()> {
        let append = || -> io::Result<()> {
            let new = present(fs::symlink_metadata(path))?.is_none();
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            file.write_all(content)?;
            file.sync_all()?;
            if new && let Some(parent) = path.parent() {
                // Without this the name itself may be lost in a crash.
                File::open(parent)?.sync_all()?;
            }
            Ok(())
        };
        append().map_err(|error| failed("write", path, &error))
    }

    fn space(&self, path: &Path) -> Result<Option<Space>> {
        match rustix::fs::statvfs(path) {
            Ok(stat) => Ok(Some(Space {
                total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                free_bytes: stat.f_bfree.saturating_mul(stat.f_frsize),
            })),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("look at the filesystem of", path, &error.into())),
        }
    }

    fn create_directory(&self, path: &Path, mode: u32) -> Result<()> {
        let create = || -> io::Result<()> {
            // A link to a directory counts as one, as mkdir -p has it.
            if present(fs::metadata(path))?.is_some_and(|metadata| metadata.is_dir()) {
                return Ok(());
            }
            if let Some(parent) = path.parent() {
                let missing: Vec<&Path> = parent.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
                for directory in missing.into_iter().rev() {
                    fs::create_dir(directory)?;
                    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
                }
            }
            fs::create_dir(path)?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        };
        create().map_err(|error| failed("make the directory", path, &error))
    }

    fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|error| failed("set the permissions of", path, &error))
    }

    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        let link = || -> io::Result<()> {
            let temporary = beside(path);
            gone(fs::remove_file(&temporary))?;
            std::os::unix::fs::symlink(target, &temporary)?;
            fs::rename(&temporary, path).inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
        };
        link().map_err(|error| failed("make the link", path, &error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let across = || -> io::Result<()> {
            let mut source = File::open(from)?;
            let mode = source.metadata()?.mode() & 0o7777;
            replace(to, mode, |file| io::copy(&mut source, file).map(|_| ()))?;
            fs::remove_file(from)
        };
        let moved = match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => across(),
            other => other,
        };
        moved.map_err(|error| failed(&format!("move {} to", from.display()), to, &error))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let remove = || -> io::Result<()> {
            match present(fs::symlink_metadata(path))? {
                None => Ok(()),
                Some(metadata) if metadata.is_dir() => gone(fs::remove_dir(path)),
                Some(_) => gone(fs::remove_file(path)),
            }
        };
        remove().map_err(|error| failed("remove", path, &error))
    }

    fn remove_tree(&self, path: &Path) -> Result<()> {
        tree::remove(path, &mount_table(self)?)
    }

    fn empty_tree(&self, path: &Path) -> Result<()> {
        tree::clear(path, &mount_table(self)?)
    }

    #[cfg(target_os = "linux")]
    fn unmount(&self, path: &Path) -> Result<()> {
        use rustix::mount::{UnmountFlags, unmount};
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("unmount", path, &error.into())),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn unmount(&self, path: &Path) -> Result<()> {
        Err(failed("unmount", path, &io::ErrorKind::Unsupported.into()))
    }

    fn run(&self, command: Command) -> BoxFuture<'_, Result<Output>> {
        Box::pin(process::run(command, None))
    }

    fn run_fed<'a>(&'a self, command: Command, input: Input<'a>) -> BoxFuture<'a, Result<Output>> {
        Box::pin(process::run(command, Some(input)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::Machine;
    use crate::host::{Command, EntryKind, Host, NewFile};

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Machine.write(&path, b"one", 0o600).unwrap();
        Machine.write(&path, b"two", 0o640).unwrap();
        assert_eq!(Machine.read(&path).unwrap().unwrap(), b"two");
        assert_eq!(Machine.entry(&path).unwrap().unwrap().mode, 0o640);
        assert_eq!(Machine.list(folder.path()).unwrap(), ["file"]);
        assert_eq!(Machine.sha256(&path).unwrap().unwrap(), crate::host::sha256_hex(b"two"));
    }

    #[test]
    fn files_that_belong_together_come_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let missing = folder.path().join("none/file");
        let file = |path| NewFile { path, content: b"new", mode: 0o600 };
        assert!(Machine.write_together(&[file(&one), file(&missing)]).is_err());
        assert!(Machine.list(folder.path()).unwrap().is_empty());
        Machine.write(&one, b"old", 0o644).unwrap();
        Machine.write_together(&[file(&one), file(&other)]).unwrap();
        assert_eq!(Machine.list(folder.path()).unwrap(), ["one", "other"]);
        assert_eq!(Machine.read(&one).unwrap().unwrap(), b"new");
        assert_eq!(Machine.entry(&one).unwrap().unwrap().mode, 0o600);
    }

    #[test]
    fn what_is_not_there_is_nothing_and_no_failure() {
        let missing = Path::new("/nonexistent/file");
        assert_eq!(Machine.read(missing).unwrap(), None);
        assert_eq!(Machine.entry(missing).unwrap(), None);
        assert_eq!(Machine.sha256(missing).unwrap(), None);
        assert!(Machine.list(missing).unwrap().is_empty());
        assert_eq!(Machine.space(missing).unwrap(), None);
        Machine.remove(missing).unwrap();
        Machine.remove_tree(missing).unwrap();
        assert!(Machine.write(missing, b"", 0o644).unwrap_err().sentence.contains("/nonexistent/file"));
    }

    #[test]
    fn directories_get_their_mode_and_parents_0755() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        Machine.create_directory(&path, 0o700).unwrap();
        Machine.create_directory(&path, 0o755).unwrap();
        assert_eq!(Machine.entry(&path).unwrap().unwrap().mode, 0o700);
        assert_eq!(Machine.entry(&folder.path().join("a")).unwrap().unwrap().mode, 0o755);
    }

    #[test]
    fn a_link_is_made_and_replaced_and_what_it_replaced_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        std::fs::write(&path, "was a file").unwrap();
        Machine.link(&path, Path::new("/first")).unwrap();
        Machine.link(&path, Path::new("/second")).unwrap();
        assert_eq!(Machine.entry(&path).unwrap().unwrap().kind, EntryKind::Link("/second".into()));
    }

    #[test]
    fn moving_keeps_mode_and_content_across_filesystems() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (Path::new("/dev/shm").join(format!("move-{}", std::process::id())), folder.path().join("to"));
        std::fs::write(&from, "content").unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o755)).unwrap();
        Machine.rename(&from, &to).unwrap();
        assert!(!from.exists());
        assert_eq!(Machine.read(&to).unwrap().unwrap(), b"content");
        assert_eq!(Machine.entry(&to).unwrap().unwrap().mode, 0o755);
    }

    #[test]
    fn appending_makes_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        Machine.append(&path, b"a\n").unwrap();
        Machine.append(&path, b"b\n").unwrap();
        assert_eq!(Machine.read(&path).unwrap().unwrap(), b"a\nb\n");
        assert_eq!(Machine.entry(&path).unwrap().unwrap().mode, 0o600);
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_a_small_environment() {
        let output = Machine.run(Command::new("sh", &["-c", "cat; echo $LC_ALL; exit 3"]).input("in ")).await.unwrap();
        assert_eq!((output.status, output.text().as_str()), (3, "in C\n"));
        let killed = Machine.run(Command::new("sh", &["-c", "kill -9 $$"])).await.unwrap();
        assert_eq!(killed.status, 137);
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_its_input_ends_all_the_same() {
        let output = Machine.run_fed(Command::new("true", &[]), Box::new(tokio::io::repeat(b'x'))).await.unwrap();
        assert!(output.success());
        let output = Machine.run(Command::new("true", &[]).input(vec![0; 1 << 20])).await.unwrap();
        assert!(output.success());
    }

    #[tokio::test]
    async fn past_the_limit_the_whole_group_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!("(sleep 1; touch {}) & sleep 30", mark.display());
        let started = Instant::now();
        let command = Command::new("sh", &["-c", &script]).limit(Duration::from_millis(200));
        let failure = Machine.run(command).await.unwrap_err();
        assert!(failure.sentence.contains("sh did not end within 0.2 s"), "{failure}");
        assert!(started.elapsed() < Duration::from_secs(1));
        let probe = Command::new("sh", &["-c", "command -v sleep >/dev/null && sleep 1.2"]);
        Machine.run(probe).await.unwrap();
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn a_program_left_in_the_background_does_not_hold_us() {
        let started = Instant::now();
        let output = Machine.run(Command::new("sh", &["-c", "sleep 5 & echo done"])).await.unwrap();
        assert_eq!(output.text(), "done\n");
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn output_is_cut_and_a_missing_program_is_named() {
        let output = Machine.run(Command::new("sh", &["-c", "head -c 6000000 /dev/zero"])).await.unwrap();
        assert_eq!(output.stdout.len(), 4 << 20);
        let failure = Machine.run(Command::new("no-such-program", &[])).await.unwrap_err();
        assert_eq!(failure.sentence, "the program no-such-program is not installed");
    }
}
