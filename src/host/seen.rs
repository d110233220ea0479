//! What large files were when they were looked at: as long as a file has not been touched since, its content is not looked
//! at again, and a program is not asked again which version it is. Kept in /run, so that it ends with the boot: what a
//! power cut took from a file is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Host;
use crate::failure::Result;

/// Where it is kept. [`crate::host::listing`] knows that what begins so is ours.
pub const PATH: &str = "/run/clusterctl.seen";

/// A program that is smaller, in bytes, may be a script: what that says depends on other files, too.
const SMALLEST_PROGRAM: u64 = 1 << 20;

/// A file that was touched so shortly before it was looked at may be touched again within one tick of the clock, in
/// seconds.
const TOO_RECENT: i64 = 2;

/// What tells that a file was touched: nobody but the kernel sets the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Device of the filesystem.
    pub device: u64,
    /// Number of the file there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was altered last, in seconds since the epoch and nanoseconds.
    pub modified: (i64, i64),
    /// When anything of it was altered last.
    pub changed: (i64, i64),
}

/// What is known.
#[derive(Debug)]
pub struct Seen {
    path: PathBuf,
    known: Known,
    altered: bool,
}

/// Of each file, what it was when it was looked at.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// SHA-256 of contents, as hex.
    contents: BTreeMap<PathBuf, (Stamp, String)>,
    /// What programs say of their version.
    versions: BTreeMap<PathBuf, (Stamp, String)>,
}

impl Stamp {
    /// Whether the file will have another stamp when it is touched again.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.changed.0.max(self.modified.0).saturating_add(TOO_RECENT) < now
    }
}

impl Seen {
    /// What is known on a host; nothing, where that cannot be read.
    pub fn on(host: &dyn Host) -> Self {
        Self::kept_at(host, Path::new(PATH))
    }

    fn kept_at(host: &dyn Host, path: &Path) -> Self {
        let content = host.read(path).ok().flatten().unwrap_or_default();
        Self { path: path.to_owned(), known: serde_json::from_slice(&content).unwrap_or_default(), altered: false }
    }

    /// SHA-256 of a file's content as hex; `None` where there is no file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sha256(&mut self, host: &dyn Host, path: &Path) -> Result<Option<String>> {
        let stamp = host.stamp(path)?;
        if let (Some(stamp), Some((known, sha256))) = (stamp, self.known.contents.get(path))
            && stamp == *known
        {
            return Ok(Some(sha256.clone()));
        }
        let sha256 = host.sha256(path)?;
        match (stamp, &sha256) {
            // One that is touched while it is read has another stamp the next time.
            (Some(stamp), Some(sha256)) if stamp.is_settled() => {
                self.known.contents.insert(path.to_owned(), (stamp, sha256.clone()));
                self.altered = true;
            }
            _ => self.altered |= self.known.contents.remove(path).is_some(),
        }
        Ok(sha256)
    }

    /// What a program said of its version when it was asked last, if nobody touched it since.
    pub fn version(&self, host: &dyn Host, program: &Path) -> Option<String> {
        let stamp = host.stamp(program).ok().flatten()?;
        let (known, said) = self.known.versions.get(program)?;
        (stamp == *known).then(|| said.clone())
    }

    /// Takes in what a program says of its version. `asked` is what it was before it was asked.
    pub fn learn_version(&mut self, program: &Path, asked: Option<Stamp>, said: &str) {
        if let Some(stamp) = asked.filter(|stamp| stamp.is_settled() && stamp.size >= SMALLEST_PROGRAM) {
            self.known.versions.insert(program.to_owned(), (stamp, said.to_owned()));
            self.altered = true;
        }
    }

    /// Keeps what is known for the next time; where that fails, everything is looked at again then.
    pub fn keep(&self, host: &dyn Host) {
        if self.altered
            && let Ok(content) = serde_json::to_vec(&self.known)
        {
            let _ = host.write(&self.path, &content, 0o600);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{Seen, Stamp};
    use crate::failure::Result;
    use crate::host::fake::FakeHost;
    use crate::host::machine::Machine;
    use crate::host::{Host, sha256_hex};

    /// A stamp of long ago.
    fn stamp(inode: u64) -> Stamp {
        Stamp { device: 1, inode, size: 1, modified: (1_000, 0), changed: (1_000, 5) }
    }

    #[test]
    fn a_file_that_nobody_touched_is_looked_at_once() {
        let (path, kept) = (Path::new("/bin/kubelet"), Path::new("/run/seen"));
        let host = FakeHost::new().directory("/run").file("/bin/kubelet", "x");
        host.stamped(path, Some(stamp(1)));
        let ask = || -> Result<Option<String>> {
            let mut seen = Seen::kept_at(&host, kept);
            let sha256 = seen.sha256(&host, path);
            seen.keep(&host);
            sha256
        };
        let of = |content: &str| Some(sha256_hex(content.as_bytes()));
        assert_eq!(ask().unwrap(), of("x"));
        // Only a test can alter a file behind its stamp; that shows who is asked.
        host.put(path, b"y", 0o755);
        assert_eq!(ask().unwrap(), of("x"));
        for touched in [
            stamp(2),
            Stamp { device: 2, ..stamp(1) },
            Stamp { size: 2, ..stamp(1) },
            Stamp { modified: (1_000, 1), ..stamp(1) },
            Stamp { changed: (1_001, 5), ..stamp(1) },
        ] {
            host.put(path, b"x", 0o755);
            host.stamped(path, Some(stamp(1)));
            host.remove(kept).unwrap();
            assert_eq!(ask().unwrap(), of("x"));
            host.put(path, b"y", 0o755);
            host.stamped(path, Some(touched));
            assert_eq!(ask().unwrap(), of("y"), "{touched:?}");
        }
        host.remove(path).unwrap();
        host.stamped(path, None);
        assert_eq!(ask().unwrap(), None);
    }

    #[test]
    fn a_program_is_asked_for_its_version_until_it_is_touched() {
        let (path, kept) = (Path::new("/bin/kubelet"), Path::new("/run/seen"));
        let host = FakeHost::new().directory("/run").file("/bin/kubelet", "x");
        let large = Stamp { size: 1 << 20, ..stamp(1) };
        let knows = |stamped: Stamp| {
            host.stamped(path, Some(stamped));
            Seen::kept_at(&host, kept).version(&host, path)
        };
        let learn = |stamp: Stamp| {
            let mut seen = Seen::kept_at(&host, kept);
            seen.learn_version(path, Some(stamp), "v1");
            seen.keep(&host);
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        // A script may say another thing tomorrow, a file of this moment may be another one in a moment.
        for unreliable in [Stamp { size: (1 << 20) - 1, ..large }, Stamp { changed: (now, 0), ..large }] {
            learn(unreliable);
            assert_eq!(knows(unreliable), None, "{unreliable:?}");
        }
        learn(large);
        assert_eq!(knows(large).as_deref(), Some("v1"));
        assert_eq!(knows(Stamp { inode: 2, ..large }), None);
    }

    #[test]
    fn a_file_of_this_moment_is_not_relied_on_and_damage_is_no_knowledge() {
        let (path, kept) = (Path::new("/bin/kubelet"), Path::new("/run/seen"));
        let host = FakeHost::new().directory("/run").file("/bin/kubelet", "x").file("/run/seen", "{\"/bin");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        host.stamped(path, Some(Stamp { changed: (now, 0), ..stamp(1) }));
        let mut seen = Seen::kept_at(&host, kept);
        assert_eq!(seen.sha256(&host, path).unwrap(), Some(sha256_hex(b"x")));
        seen.keep(&host);
        assert_eq!(host.text("/run/seen").as_deref(), Some("{\"/bin"));
    }

    #[test]
    fn a_machine_tells_when_a_file_was_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let before = Machine.stamp(&path).unwrap().unwrap();
        assert_eq!((before.size, Machine.stamp(&path).unwrap()), (1, Some(before)));
        // Whoever sets the time of the content back is found out by the time of the change.
        let hour_ago = SystemTime::now().checked_sub(Duration::from_secs(3600)).unwrap();
        File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(hour_ago)).unwrap();
        let after = Machine.stamp(&path).unwrap().unwrap();
        assert!(after.modified < before.modified && after.changed >= before.changed && after != before);
        assert_eq!(Machine.stamp(&folder.path().join("none")).unwrap(), None);
    }
}
