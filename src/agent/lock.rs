//! One run at a time on a host: a flock that dies with the agent, and a note of who holds it.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::evict::evict;
use crate::failure::{Failure, Kind, Result};
use crate::message::Holder;

/// The lock file. In /run, so that a reboot clears it; it is only a note, the lock itself is the kernel's.
const PATH: &str = "/run/clusterctl.lock";

/// How long the end of another run is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the lock is tried meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);

/// A note may be this long, in bytes.
const MAXIMUM_NOTE_BYTES: u64 = 4096;

/// The lock, held until dropped. Dropping removes the note.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock. A run that was killed a moment ago may still hold it until its agent notices, so that is waited
    /// for a little.
    ///
    /// # Errors
    /// Kind `Busy`, saying who holds it, since when and what they do.
    pub async fn take(holder: &Holder) -> Result<Self> {
        Self::take_within(Path::new(PATH), holder, PATIENCE).await
    }

    /// Whether nobody holds the lock.
    pub fn is_free() -> bool {
        File::open(PATH).map_or(true, |file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
    }

    async fn take_within(path: &Path, holder: &Holder, patience: Duration) -> Result<Self> {
        let attempts = async {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                match Self::take_at(path, holder) {
                    Err(failure) if failure.kind == Kind::Busy => {
                        if let Some(old) = former_self(path, holder) {
                            evict(old);
                        }
                    }
                    other => return other,
                }
            }
        };
        match tokio::time::timeout(patience, attempts).await {
            Ok(taken) => taken,
            Err(_) => Self::take_at(path, holder),
        }
    }

    fn take_at(path: &Path, holder: &Holder) -> Result<Self> {
        let failed =
            |error: std::io::Error| Failure::new(Kind::Host, format!("cannot lock {}", path.display())).because(&error);
        loop {
            let mut file =
                File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(busy(&mut file));
            }
            // The file may have been removed by the run that held it between our open and our lock.
            if !is_current(&file, path) {
                continue;
            }
            let note = Note { holder: holder.clone(), process: std::process::id() };
            let note = serde_json::to_vec(&note).unwrap_or_default();
            file.set_len(0).and_then(|()| file.write_all(&note)).map_err(failed)?;
            return Ok(Self { _file: file, path: path.to_owned() });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_current(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

/// What stands in the lock file.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    holder: Holder,
    /// The process that holds the lock.
    process: u32,
}

fn note(file: &mut File) -> Option<Note> {
    let mut note = Vec::new();
    let _ = file.rewind();
    let _ = file.take(MAXIMUM_NOTE_BYTES).read_to_end(&mut note);
    serde_json::from_slice(&note).ok()
}

/// The process that holds the lock, if it is an agent of this very run: its connection was lost, or nobody would ask
/// again.
fn former_self(path: &Path, holder: &Holder) -> Option<i32> {
    let note = note(&mut File::open(path).ok()?)?;
    let same = !holder.run.is_empty() && note.holder.run == holder.run && note.process != std::process::id();
    same.then(|| i32::try_from(note.process).ok()).flatten()
}

fn busy(file: &mut File) -> Failure {
    let sentence = match note(file) {
        Some(Note { holder, .. }) => {
            let now =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            let minutes = now.saturating_sub(holder.since_seconds) / 60;
            format!("{} is running `clusterctl {}` here, since {minutes} min", holder.who, holder.verb)
        }
        None => "another clusterctl is at work here".to_owned(),
    };
    Failure::new(Kind::Busy, sentence).advise("wait until it is done, then run the same command again").may_pass()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Lock;
    use crate::failure::Kind;
    use crate::message::Holder;

    #[test]
    fn the_second_run_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holder = Holder {
            who: "ann@desk".into(),
            verb: "up".into(),
            since_seconds: 0,
            cluster: "demo".into(),
            run: String::new(),
        };
        let held = Lock::take_at(&path, &holder).unwrap();
        let failure = Lock::take_at(&path, &holder).unwrap_err();
        assert_eq!(failure.kind, Kind::Busy);
        assert!(failure.sentence.contains("ann@desk is running `clusterctl up`"), "{failure}");
        drop(held);
        Lock::take_at(&path, &holder).unwrap();
    }

    #[tokio::test]
    async fn a_run_that_ends_in_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holder = Holder {
            who: "ann@desk".into(),
            verb: "up".into(),
            since_seconds: 0,
            cluster: "demo".into(),
            run: String::new(),
        };
        let held = Lock::take_at(&path, &holder).unwrap();
        let ends = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let waits = Lock::take_within(&path, &holder, Duration::from_secs(30));
        let (taken, ()) = tokio::join!(waits, ends);
        taken.unwrap();
    }
}
