//! Blobs arriving on a host: a header line, then the zstd stream, checked while it is unpacked.
//!
//! `clusterctl agent --receive` is a process of its own on a channel of its own, so that messages never wait behind
//! bytes. Files are unpacked into the incoming folder and put in place by the agent (which keeps the journal); image
//! archives are piped into the container runtime while they arrive.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, mpsc};

use super::DIRECTORY;
use crate::bundle::digest::Hashing;
use crate::failure::{Failure, Kind, Result};
use crate::host;
use crate::host::Host;
use crate::host::containerd::ImportOptions;
use crate::host::journal::Journal;
use crate::host::machine::Machine;
use crate::message::{MAXIMUM_LINE_BYTES, Place, Wanted};

/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Announces a blob; `stored_size` bytes of zstd stream follow its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// A short name for messages: `bin/kubelet`.
    pub name: String,
    /// What it is and where it belongs.
    pub wanted: Wanted,
    /// Size of the stream in bytes.
    pub stored_size: u64,
}

/// What became of a blob, one line each, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// SHA-256 of its content, hex.
    pub sha256: String,
    /// Whether it is whole and, for images, imported.
    pub result: std::result::Result<(), Failure>,
}

/// Receives blobs from standard input until it ends, and reports on `output`.
///
/// # Errors
/// When the input breaks off or is no announcement. A blob that fails is reported and does not stop the next.
pub fn receive(input: impl Read, mut output: impl Write, machine: &Machine) -> Result<()> {
    let mut input = BufReader::with_capacity(CHUNK_BYTES, input);
    let broke =
        |error: std::io::Error| Failure::new(Kind::Connection, "the connection broke").because(&error).may_pass();
    // Says that the receiver runs, as the agent's `Ready` does.
    output.write_all(b"{\"receiver\":\"ready\"}\n").and_then(|()| output.flush()).map_err(broke)?;
    let options = OnceCell::new();
    loop {
        let mut line = Vec::new();
        let count = (&mut input).take(MAXIMUM_LINE_BYTES as u64).read_until(b'\n', &mut line).map_err(broke)?;
        if count == 0 {
            return Ok(());
        }
        let incoming: Incoming = serde_json::from_slice(&line).map_err(|error| {
            Failure::new(Kind::Internal, "what arrived is no announcement of a blob").because(&error)
        })?;
        let mut stored = (&mut input).take(incoming.stored_size);
        let result = unpack(&incoming, &mut stored, machine, &options);
        // Whatever a failed blob left unread must not be taken for the next announcement.
        std::io::copy(&mut stored, &mut std::io::sink()).map_err(broke)?;
        if stored.limit() > 0 {
            return Err(Failure::new(Kind::Connection, "the connection broke while a blob arrived").may_pass());
        }
        if result.is_err() {
            discard(&incoming, machine);
        }
        let mut report = serde_json::to_vec(&Received { sha256: incoming.wanted.sha256, result })
            .map_err(|error| Failure::new(Kind::Internal, "a report cannot be written").because(&error))?;
        report.push(b'\n');
        output.write_all(&report).and_then(|()| output.flush()).map_err(broke)?;
    }
}

fn corrupt(incoming: &Incoming) -> Failure {
    Failure::new(Kind::Bundle, format!("{} arrived with another content than its sha256 says", incoming.name))
        .advise("check the bundle with `clusterctl bundle verify`, then run the same command again")
        .may_pass()
}

/// Where a blob that belongs into a file waits to be put in place.
fn waiting(sha256: &str) -> Result<PathBuf> {
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(Kind::Internal, "a blob's sha256 is not 64 hexadecimal digits"));
    }
    Ok(Path::new(DIRECTORY).join("incoming").join(sha256))
}

/// Unpacks one blob to where it belongs, checking content hash and size.
fn unpack(
    incoming: &Incoming,
    stored: &mut impl Read,
    machine: &Machine,
    options: &OnceCell<ImportOptions>,
) -> Result<()> {
    let decoder = zstd::Decoder::new(stored).map_err(|error| corrupt(incoming).because(&error))?;
    // One byte more than announced is enough to notice a stream that is too long.
    let mut content = Hashing::new(decoder.take(incoming.wanted.size + 1));
    match &incoming.wanted.place {
        Place::File { .. } => unpack_file(incoming, &mut content, machine)?,
        Place::Images { references } => import(incoming, references, &mut content, machine, options)?,
    }
    let digest = content.finish();
    if digest.sha256 != incoming.wanted.sha256 || digest.size != incoming.wanted.size {
        return Err(corrupt(incoming));
    }
    Ok(())
}

fn unpack_file(incoming: &Incoming, content: &mut impl Read, machine: &Machine) -> Result<()> {
    let path = waiting(&incoming.wanted.sha256)?;
    let failed = |error: std::io::Error| {
        let failure =
            Failure::new(Kind::Host, format!("cannot write {} ({})", path.display(), incoming.name)).because(&error);
        if error.kind() == std::io::ErrorKind::StorageFull {
            return failure.advise("free space on the filesystem of /var/lib, then run the same command again");
        }
        failure
    };
    machine.create_directory(path.parent().unwrap_or(Path::new(DIRECTORY)), 0o700)?;
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
    machine: &Machine,
    options: &OnceCell<ImportOptions>,
) -> Result<()> {
    let (sender, chunks) = mpsc::channel::<std::io::Result<Bytes>>(4);
    let stream =
        futures::stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    let archive = tokio_util::io::StreamReader::new(Box::pin(stream));
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| {
            let sha256 = &incoming.wanted.sha256;
            runtime.block_on(host::blobs::import_images(machine, options, archive, references, sha256))
        });
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
fn discard(incoming: &Incoming, machine: &Machine) {
    if let (Place::File { .. }, Ok(path)) = (&incoming.wanted.place, waiting(&incoming.wanted.sha256)) {
        let _ = machine.remove(&path);
    }
    if let Place::Images { references } = &incoming.wanted.place {
        let runtime = tokio::runtime::Handle::current();
        let _ = runtime.block_on(host::blobs::remove_images(machine, references));
    }
}

/// Puts files that were received into place; images are in place already. Returns how many were placed.
///
/// # Errors
/// Kind `Host` when a file is not there (it was never received) or cannot be moved.
pub fn place(machine: &Machine, journal: &Journal, blobs: &[Wanted]) -> Result<u32> {
    let mut placed = 0;
    for blob in blobs {
        if let Place::File { path, mode } = &blob.place {
            host::blobs::install_file(machine, journal, &waiting(&blob.sha256)?, Path::new(path), *mode)?;
            placed += 1;
        }
    }
    Ok(placed)
}
