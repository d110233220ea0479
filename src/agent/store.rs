//! The streams of blobs on a host's disk, as they arrived: what a broken transfer left and the next one goes on from, and
//! what is handed on to other hosts while it still arrives.
//!
//! `<sha256 of the stream>.part` grows while a stream arrives. Checked as a whole it goes, or stays as `<sha256>.held` for
//! as long as the run hands it on, or as `<sha256>.zst` for a run to come. Files of other names are blobs that wait to be
//! put in place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::DIRECTORY;
use crate::failure::{Failure, Kind, Result};

/// What nobody touched for this long is of no use to anybody.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a stream's file may end in.
const PART: &str = "part";
const HELD: &str = "held";
const STAGED: &str = "zst";

/// The folder of arriving streams.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// What becomes of a stream that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It goes.
    No,
    /// It stays while its run hands it on.
    Held,
    /// It stays for a run to come.
    Staged,
}

/// A stream that arrives: what is there of it, and where the rest goes.
#[derive(Debug)]
pub struct Arriving {
    file: Option<File>,
    part: PathBuf,
    /// Bytes that are there already.
    pub there: u64,
}

impl Store {
    /// The store of this host.
    pub fn of_this_host() -> Self {
        Self::at(Path::new(DIRECTORY).join("incoming"))
    }

    /// A store in another folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, sha256: &str, end: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.{end}"))
    }

    /// How many bytes are there of each stream, by the sha256 of the stream; what is old is removed.
    pub fn there(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(sha256) = name_of_stream(&path) else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if is_stale(&metadata) {
                let _ = fs::remove_file(&path);
            } else if metadata.is_file() {
                let bytes = found.entry(sha256.to_owned()).or_insert(0);
                *bytes = metadata.len().max(*bytes);
            }
        }
        found
    }

    /// Opens a stream to write on from its end. `from` is how much the sender leaves out; where less than that is there,
    /// it cannot go on. Bytes beyond `from` are cut off.
    ///
    /// # Errors
    /// Kind `Host` when the folder cannot be written to, kind `Connection` when less is there than the sender believes.
    pub fn open(&self, sha256: &str, from: u64) -> Result<Arriving> {
        check(sha256)?;
        let part = self.file(sha256, PART);
        let failed = |error: io::Error| {
            let failure = Failure::new(Kind::Host, format!("cannot write {}", part.display())).because(&error);
            match error.kind() {
                io::ErrorKind::StorageFull => {
                    failure.advise("free space on the filesystem of /var/lib, then run the same command again")
                }
                _ => failure,
            }
        };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        for whole in [self.file(sha256, HELD), self.file(sha256, STAGED)] {
            if fs::metadata(&whole).is_ok() {
                // It goes through all checks once more.
                fs::rename(&whole, &part).map_err(failed)?;
            }
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&part)
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            // The receiver of a run that was killed has not noticed yet: it keeps its file, without a name.
            fs::remove_file(&part).map_err(failed)?;
            file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        }
        if file.metadata().map_err(failed)?.len() < from {
            return Err(Failure::new(Kind::Connection, "less of a blob is there than the sender believes").may_pass());
        }
        file.set_len(from).map_err(failed)?;
        Ok(Arriving { file: Some(file), part, there: from })
    }

    /// Ends a stream that is whole and checked.
    pub fn finish(&self, sha256: &str, keep: Keep) {
        let part = self.file(sha256, PART);
        // What stays by mistake does no harm: the next run uses it or removes it.
        let _ = match keep {
            Keep::No => fs::remove_file(&part),
            Keep::Held => fs::rename(&part, self.file(sha256, HELD)),
            Keep::Staged => fs::rename(&part, self.file(sha256, STAGED)),
        };
    }

    /// Removes a stream that is not what its name says. Who reads it sees that it has no name any more.
    pub fn discard(&self, sha256: &str) {
        for end in [PART, HELD, STAGED] {
            let _ = fs::remove_file(self.file(sha256, end));
        }
    }

    /// Removes what was held to be handed on: the run is over.
    pub fn release(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == HELD) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Opens a stream to read it, also while it arrives.
    pub fn read(&self, sha256: &str) -> Option<File> {
        check(sha256).ok()?;
        // In the order in which a stream changes its name, so that none is missed.
        [PART, HELD, STAGED].iter().find_map(|end| File::open(self.file(sha256, end)).ok())
    }
}

/// Whether nobody touched a file for so long that it is of no use to anybody.
pub fn is_stale(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
    age > STALE
}

/// Whether a file that was opened still has a name: one that was discarded has none.
pub fn has_name(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

impl Arriving {
    /// A reader of what is there, which ends where that ends.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn replay(&self) -> io::Result<io::Take<File>> {
        Ok(File::open(&self.part)?.take(self.there))
    }

    /// Keeps bytes that follow what is there. A full disk ends the keeping, not the transfer.
    pub fn keep(&mut self, bytes: &[u8]) {
        let Some(file) = &self.file else { return };
        if file.write_all_at(bytes, self.there).is_ok() {
            self.there += bytes.len() as u64;
        } else {
            self.file = None;
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// The sha256 that a file's name is, where it is a stream.
fn name_of_stream(path: &Path) -> Option<&str> {
    let end = path.extension()?;
    let sha256 = path.file_stem()?.to_str()?;
    ([PART, HELD, STAGED].iter().any(|known| end == *known) && check(sha256).is_ok()).then_some(sha256)
}

/// A name that a peer may ask for: nothing but a sha256.
pub fn check(sha256: &str) -> Result<()> {
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(Kind::Internal, "a blob's sha256 is not 64 hexadecimal digits"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Keep, Store, has_name};

    fn store() -> (tempfile::TempDir, Store, String) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("incoming"));
        (folder, store, "ab".repeat(32))
    }

    #[test]
    fn a_broken_stream_goes_on_at_its_last_byte() {
        let (_folder, store, sha256) = store();
        assert!(store.there().is_empty());
        let mut arriving = store.open(&sha256, 0).unwrap();
        arriving.keep(b"abc");
        drop(arriving);
        assert_eq!(store.there()[&sha256], 3);
        // The sender may know less than there is.
        let mut arriving = store.open(&sha256, 2).unwrap();
        let mut replayed = String::new();
        arriving.replay().unwrap().read_to_string(&mut replayed).unwrap();
        assert_eq!(replayed, "ab");
        arriving.keep(b"xyz");
        store.finish(&sha256, Keep::Staged);
        store.release();
        let mut whole = String::new();
        store.read(&sha256).unwrap().read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "abxyz");
        drop(arriving);
        assert_eq!(store.there()[&sha256], 5);
        assert!(store.open(&sha256, 6).is_err());
        store.finish(&sha256, Keep::Held);
        store.release();
        assert!(store.there().is_empty());
    }

    #[test]
    fn the_file_of_a_receiver_that_hangs_is_left_to_it() {
        let (_folder, store, sha256) = store();
        let mut hanging = store.open(&sha256, 0).unwrap();
        hanging.keep(b"old");
        let mut arriving = store.open(&sha256, 0).unwrap();
        arriving.keep(b"new one");
        hanging.keep(b"older");
        assert_eq!(store.there()[&sha256], 7);
    }

    #[test]
    fn a_reader_sees_that_a_stream_was_discarded_and_names_are_hashes() {
        let (_folder, store, sha256) = store();
        let mut arriving = store.open(&sha256, 0).unwrap();
        arriving.keep(b"abc");
        let reader = store.read(&sha256).unwrap();
        assert!(has_name(&reader));
        store.discard(&sha256);
        assert!(!has_name(&reader));
        for name in ["../../../etc/shadow", "", &"x".repeat(64)] {
            assert!(store.open(name, 0).is_err());
            assert!(store.read(name).is_none());
        }
    }
}
