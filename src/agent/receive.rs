//! Blobs arriving on a host: a header line, then the zstd stream, checked while it is unpacked.
//!
//! `clusterctl agent --receive` is a process of its own on a channel of its own, so that messages never wait behind
//! bytes. Files are unpacked into the incoming folder and put in place by the agent (which keeps the journal); image
//! archives from the laptop are piped into the container runtime while they arrive, and are labelled, which is what makes
//! them count, when their hash has been seen to be right. What another host gives, or a former transfer has left, is
//! checked as a whole before the runtime sees any of it. The stream itself is kept meanwhile (see `store`), so
//! that a broken transfer goes on where it stopped, and comes from another host where the laptop says so (see `relay`).

mod laptop;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, mpsc};

use self::laptop::{Laptop, broke};
use super::relay::{Giver, Pull};
use super::store::{Arriving, Keep, Store, check};
use crate::bundle::digest::Hashing;
use crate::failure::{Failure, Kind, Result};
use crate::host;
use crate::host::Host;
use crate::host::containerd::ImportOptions;
use crate::host::journal::Journal;
use crate::host::machine::Machine;
use crate::message::{Place, Wanted};

/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// How often it is said how far a stream from another host is.
const TELL: Duration = Duration::from_millis(200);

/// Announces a blob. Where no other host gives it, the last `stored_size - from` bytes of its zstd stream follow the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// A short name for messages: `bin/kubelet`.
    pub name: String,
    /// What it is and where it belongs.
    pub wanted: Wanted,
    /// SHA-256 of the stream, hex.
    pub stored_sha256: String,
    /// Size of the stream in bytes.
    pub stored_size: u64,
    /// So many bytes of the stream are there from a former transfer.
    pub from: u64,
    /// What becomes of the stream.
    pub purpose: Purpose,
    /// The host that gives the stream; the laptop if absent.
    pub giver: Option<Giver>,
}

/// What becomes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// It is unpacked, then it may go.
    Unpack,
    /// It is unpacked, and kept for other hosts until the run is over.
    HandOn,
    /// It is only kept, for a run to come.
    Stage,
}

impl Purpose {
    fn keep(self) -> Keep {
        match self {
            Self::Unpack => Keep::No,
            Self::HandOn => Keep::Held,
            Self::Stage => Keep::Staged,
        }
    }
}

impl Incoming {
    /// Whether the stream goes into the container runtime and other bytes may have got into it than the laptop sent on this
    /// connection.
    fn is_vouched_for_by_nobody(&self) -> bool {
        matches!(self.wanted.place, Place::Images { .. }) && (self.giver.is_some() || self.from > 0)
    }
}

/// Who gives the rest of a stream that another host gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instead {
    /// A host; if absent the bytes follow the line.
    pub giver: Option<Giver>,
}

/// What the receiver says, one line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// It runs.
    Ready {
        /// How many bytes of which streams are there from a former transfer.
        there: BTreeMap<String, u64>,
    },
    /// The stream that another host gives is so far.
    Moved {
        /// Bytes.
        at: u64,
    },
    /// The host that was named gives nothing (more): an [`Instead`] is waited for.
    Need {
        /// The first byte that is missing.
        from: u64,
        /// Why the host gives nothing.
        why: String,
    },
    /// A blob came to its end; in the order of the announcements.
    Received {
        /// SHA-256 of its content, hex.
        sha256: String,
        /// Whether it is whole and, for images, imported.
        result: std::result::Result<(), Failure>,
    },
}

/// Receives blobs from `input` until it ends, and reports on `output`.
///
/// # Errors
/// When the input breaks off or is no announcement. A blob that fails is reported and does not stop the next.
pub fn receive(input: impl Read, output: impl Write, machine: &dyn Host, store: &Store) -> Result<()> {
    let mut laptop = Laptop::new(input, output);
    // Says that the receiver runs, as the agent's `Ready` does.
    laptop.tell(&Report::Ready { there: store.there() }).map_err(broke)?;
    let options = OnceCell::new();
    while let Some(incoming) = laptop.announcement()? {
        let result = receive_one(&incoming, &mut laptop, machine, store, &options)?;
        match &result {
            Ok(()) => store.finish(&incoming.stored_sha256, incoming.purpose.keep()),
            Err(_) => {
                store.discard(&incoming.stored_sha256);
                discard(&incoming, machine, store, &options);
            }
        }
        laptop.tell(&Report::Received { sha256: incoming.wanted.sha256, result }).map_err(broke)?;
    }
    Ok(())
}

/// One blob. The outer failure ends the channel, the inner one is the blob's.
fn receive_one<I: Read, O: Write>(
    incoming: &Incoming,
    laptop: &mut Laptop<I, O>,
    machine: &dyn Host,
    store: &Store,
    options: &OnceCell<ImportOptions>,
) -> Result<Result<()>> {
    check(&incoming.stored_sha256)?;
    let opened = machine
        .create_directory(store.folder(), 0o700)
        .and_then(|()| store.open(&incoming.stored_sha256, incoming.from));
    let arriving = match opened {
        Ok(arriving) => arriving,
        Err(failure) => {
            if incoming.giver.is_none() {
                // They must not be taken for the next announcement.
                let bytes = incoming.stored_size.saturating_sub(incoming.from);
                io::copy(&mut (&mut laptop.input).take(bytes), &mut io::sink()).map_err(broke)?;
            }
            return Ok(Err(failure));
        }
    };
    let mut stored = Stream::open(incoming, laptop, arriving).map_err(broke)?;
    let result = match incoming.purpose {
        Purpose::Stage => verify(incoming, &mut stored),
        _ if incoming.is_vouched_for_by_nobody() => verify(incoming, &mut stored)
            .and_then(|()| stored.kept())
            .and_then(|mut kept| unpack(incoming, &mut kept, machine, store, options)),
        // The content's hash decides; that of the stream would say the same again.
        Purpose::Unpack | Purpose::HandOn => unpack(incoming, &mut stored, machine, store, options),
    };
    // Whatever a failed blob left unread must not be taken for the next announcement.
    if result.is_ok() || stored.is_from_laptop() {
        io::copy(&mut stored, &mut io::sink()).map_err(broke)?;
    }
    if stored.broken {
        discard(incoming, machine, store, options);
        return Err(Failure::new(Kind::Connection, "the connection broke while a blob arrived").may_pass());
    }
    Ok(result)
}

/// Compares a stream with its own hash, where it is not unpacked yet.
fn verify(incoming: &Incoming, stored: &mut impl Read) -> Result<()> {
    let mut stored = Hashing::new(stored);
    let mut buffer = vec![0_u8; CHUNK_BYTES];
    while stored.read(&mut buffer).map_err(|error| corrupt(incoming).because(&error))? > 0 {}
    let digest = stored.finish();
    match digest.sha256 == incoming.stored_sha256 && digest.size == incoming.stored_size {
        true => Ok(()),
        false => Err(corrupt(incoming)),
    }
}

/// The stream of a blob: what is there of it already, then what the laptop or another host gives; all of it is kept.
struct Stream<'a, I, O> {
    incoming: &'a Incoming,
    laptop: &'a mut Laptop<I, O>,
    replay: io::Take<File>,
    arriving: Arriving,
    /// The host that gives; the laptop if absent.
    pull: Option<Pull>,
    /// Where the host that gave last is.
    giver: Option<SocketAddr>,
    at: u64,
    told: Instant,
    /// The laptop is gone.
    broken: bool,
}

impl<'a, I: Read, O: Write> Stream<'a, I, O> {
    fn open(incoming: &'a Incoming, laptop: &'a mut Laptop<I, O>, arriving: Arriving) -> io::Result<Self> {
        let replay = arriving.replay()?;
        let mut stream = Self {
            incoming,
            laptop,
            replay,
            arriving,
            pull: None,
            giver: None,
            at: 0,
            told: Instant::now(),
            broken: false,
        };
        if let Some(giver) = &incoming.giver {
            stream.pull_from(giver.clone(), incoming.from)?;
        }
        Ok(stream)
    }

    /// The whole stream once more, from the disk.
    fn kept(&self) -> Result<io::Take<File>> {
        self.arriving.replay().map_err(|error| {
            Failure::new(Kind::Host, format!("{} could not be kept while it arrived", self.incoming.name))
                .because(&error)
                .advise("free space on the filesystem of /var/lib, then run the same command again")
        })
    }

    fn is_from_laptop(&self) -> bool {
        self.pull.is_none()
    }

    /// Turns to another host, or to the one the laptop names instead, or to the laptop.
    fn pull_from(&mut self, giver: Giver, from: u64) -> io::Result<()> {
        let mut next = Some(giver);
        self.pull = None;
        while let Some(giver) = next.take() {
            self.giver = Some(giver.address);
            let Incoming { stored_sha256, stored_size, .. } = self.incoming;
            let opened = match self.laptop.silent.contains(&giver.address) {
                false => Pull::open(&mut self.laptop.asker, &giver, stored_sha256, from, *stored_size),
                true => Err(io::ErrorKind::HostUnreachable.into()),
            };
            match opened {
                Ok(pull) => self.pull = Some(pull),
                Err(error) => next = self.instead(from, &error)?,
            }
        }
        Ok(())
    }

    /// Asks who gives the rest.
    fn instead(&mut self, from: u64, error: &io::Error) -> io::Result<Option<Giver>> {
        self.laptop.silent.extend(self.giver);
        self.laptop.tell(&Report::Need { from, why: error.to_string() })?;
        let Some(instead) = self.laptop.instead()? else {
            self.broken = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        Ok(instead.giver)
    }

    fn arrive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(pull) = &mut self.pull else {
                let left = self.incoming.stored_size - self.at;
                let count = (&mut self.laptop.input).take(left).read(buffer);
                self.broken = !matches!(count, Ok(count) if count > 0);
                return count;
            };
            let error = match pull.read(buffer) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(count) => {
                    if self.told.elapsed() >= TELL {
                        self.told = Instant::now();
                        self.laptop.tell(&Report::Moved { at: self.at + count as u64 })?;
                    }
                    return Ok(count);
                }
                Err(error) => error,
            };
            if let Some(giver) = self.instead(self.at, &error)? {
                self.pull_from(giver, self.at)?;
            } else {
                self.pull = None;
            }
        }
    }
}

impl<I: Read, O: Write> Read for Stream<'_, I, O> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.at >= self.incoming.stored_size {
            return Ok(0);
        }
        let replayed = self.replay.read(buffer)?;
        if replayed > 0 {
            self.at += replayed as u64;
            return Ok(replayed);
        }
        let count = self.arrive(buffer)?;
        self.arriving.keep(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

fn corrupt(incoming: &Incoming) -> Failure {
    Failure::new(Kind::Bundle, format!("{} arrived with another content than its sha256 says", incoming.name))
        .advise("check the bundle with `clusterctl bundle verify`, then run the same command again")
        .may_pass()
}

/// Where a blob that belongs into a file waits to be put in place.
fn waiting(store: &Store, sha256: &str) -> Result<PathBuf> {
    check(sha256)?;
    Ok(store.folder().join(sha256))
}

/// Unpacks one blob to where it belongs, checking content hash and size.
fn unpack(
    incoming: &Incoming,
    stored: &mut impl Read,
    machine: &dyn Host,
    store: &Store,
    options: &OnceCell<ImportOptions>,
) -> Result<()> {
    let decoder = zstd::Decoder::new(stored).map_err(|error| corrupt(incoming).because(&error))?;
    // One byte more than announced is enough to notice a stream that is too long.
    let mut content = Hashing::new(decoder.take(incoming.wanted.size + 1));
    match &incoming.wanted.place {
        Place::File { .. } => unpack_file(incoming, &mut content, store)?,
        Place::Images { references } => import(incoming, references, &mut content, machine, options)?,
    }
    let digest = content.finish();
    if digest.sha256 != incoming.wanted.sha256 || digest.size != incoming.wanted.size {
        return Err(corrupt(incoming));
    }
    if let Place::Images { references } = &incoming.wanted.place {
        let accepting = host::blobs::accept_images(machine, references, &incoming.wanted.sha256);
        tokio::runtime::Handle::current().block_on(accepting)?;
    }
    Ok(())
}

fn unpack_file(incoming: &Incoming, content: &mut impl Read, store: &Store) -> Result<()> {
    let path = waiting(store, &incoming.wanted.sha256)?;
    let failed = |error: std::io::Error| {
        let failure =
            Failure::new(Kind::Host, format!("cannot write {} ({})", path.display(), incoming.name)).because(&error);
        if error.kind() == std::io::ErrorKind::StorageFull {
            return failure.advise("free space on the filesystem of /var/lib, then run the same command again");
        }
        failure
    };
    let mut file = File::create(&path).map_err(failed)?;
    let mut buffer = vec![0_u8; CHUNK_BYTES];
    loop {
        let count = content.read(&mut buffer).map_err(|error| corrupt(incoming).because(&error))?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
    file.sync_data().map_err(failed)
}

/// Pipes the archive into the runtime while it is unpacked.
fn import(
    incoming: &Incoming,
    references: &[String],
    content: &mut impl Read,
    machine: &dyn Host,
    options: &OnceCell<ImportOptions>,
) -> Result<()> {
    let (sender, chunks) = mpsc::channel::<std::io::Result<Bytes>>(4);
    let stream =
        futures::stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    let archive = tokio_util::io::StreamReader::new(Box::pin(stream));
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let importing =
            scope.spawn(|| runtime.block_on(host::blobs::import_images(machine, options, archive, references)));
        let mut damaged = None;
        loop {
            let mut buffer = vec![0_u8; CHUNK_BYTES];
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    buffer.truncate(count);
                    if sender.blocking_send(Ok(Bytes::from(buffer))).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    // The runtime must see a broken archive, not a short one.
                    let _ = sender.blocking_send(Err(std::io::Error::other("the stream is damaged")));
                    damaged = Some(corrupt(incoming).because(&error));
                    break;
                }
            }
        }
        drop(sender);
        let imported =
            importing.join().map_err(|_| Failure::new(Kind::Internal, "the import of an image ended early"))?;
        damaged.map_or(imported, Err)
    })
}

/// Nothing of a blob that failed may stay.
fn discard(incoming: &Incoming, machine: &dyn Host, store: &Store, options: &OnceCell<ImportOptions>) {
    if incoming.purpose == Purpose::Stage {
        return;
    }
    if let (Place::File { .. }, Ok(path)) = (&incoming.wanted.place, waiting(store, &incoming.wanted.sha256)) {
        let _ = machine.remove(&path);
    }
    if let Place::Images { references } = &incoming.wanted.place {
        let runtime = tokio::runtime::Handle::current();
        let _ = runtime.block_on(host::blobs::discard_images(machine, options, references));
    }
}

/// Puts files that were received into place; images are in place already. Returns how many were placed.
///
/// # Errors
/// Kind `Host` when a file is not there (it was never received) or cannot be moved.
pub fn place(machine: &Machine, journal: &Journal, blobs: &[Wanted]) -> Result<u32> {
    let store = Store::of_this_host();
    let mut placed = 0;
    for (at, blob) in blobs.iter().enumerate() {
        if matches!(blob.place, Place::File { .. }) {
            let received = waiting(&store, &blob.sha256)?;
            let ready = if is_wanted_again(blobs, at) { copy(&received)? } else { received };
            placed += u32::from(host::blobs::install_file(machine, journal, &ready, blob)?);
        }
    }
    Ok(placed)
}

/// Whether the same content belongs into another file as well, so that it must not be moved away yet.
fn is_wanted_again(blobs: &[Wanted], at: usize) -> bool {
    let is_same = |other: &Wanted| other.sha256 == blobs[at].sha256 && matches!(other.place, Place::File { .. });
    blobs.iter().skip(at + 1).any(is_same)
}

/// A copy beside a file that was received.
fn copy(received: &Path) -> Result<PathBuf> {
    let copy = received.with_extension("copy");
    match std::fs::copy(received, &copy) {
        Ok(_) => Ok(copy),
        // Whoever puts it in place says what it means.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(copy),
        Err(error) => Err(Failure::new(Kind::Host, format!("cannot write {}", copy.display())).because(&error)),
    }
}

#[cfg(test)]
mod tests;
