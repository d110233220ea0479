//! Sending blobs to a host: announced, streamed as stored, reported back one by one.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::start::{Start, Started};
use crate::agent::{Incoming, Received};
use crate::bundle::{Blob, Bundle};
use crate::failure::{Failure, Kind, Result};
use crate::message::Wanted;
use crate::ssh::Chunk;

/// Bytes read and sent at a time (crates.md, 2e: what russh is fast with).
const CHUNK_BYTES: usize = 256 << 10;

/// Told (bytes sent so far, name of the blob under way).
pub type Progress<'a> = &'a (dyn Fn(u64, &str) + Send + Sync);

/// Sends blobs over a channel of their own and returns when the host has checked and stored all of them.
///
/// # Errors
/// The first blob that failed, or the broken connection; names the host.
pub async fn send(start: &Start, bundle: &Arc<Bundle>, blobs: &[Blob], progress: Progress<'_>) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    let Started { channel, first, .. } = start.agent("--receive").await?;
    let (mut writer, mut reader) = channel.split();
    let sent = AtomicU64::new(0);
    let sending = async {
        for blob in blobs {
            writer.send(announcement(blob)?).await?;
            let mut chunks = read_ahead(bundle.clone(), blob.clone());
            while let Some(chunk) = chunks.recv().await {
                let chunk = chunk?;
                let size = chunk.len() as u64;
                writer.send(chunk).await?;
                progress(sent.fetch_add(size, Ordering::Relaxed) + size, &blob.name);
            }
        }
        writer.finish().await
    };
    let receiving = async {
        let mut pending = first;
        let mut failed = None;
        let mut reports = 0;
        loop {
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                // The first line only says that the receiver runs.
                let Ok(received) = serde_json::from_slice::<Received>(&line) else { continue };
                reports += 1;
                if let (Err(failure), None) = (received.result, &failed) {
                    failed = Some(failure);
                }
            }
            match reader.recv().await {
                Ok(Some(Chunk::Stdout(bytes))) if pending.len() < 1 << 20 => pending.extend_from_slice(&bytes),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(failure) => return Err(failed.unwrap_or(failure)),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None if reports == blobs.len() => Ok(()),
            None => {
                let failure = Failure::new(Kind::Connection, "the transfer of blobs broke off").may_pass();
                let said = reader.stderr_tail();
                Err(if said.trim().is_empty() { failure } else { failure.detailed(said.trim()) })
            }
        }
    };
    // A receiver that fails ends the channel and with it the sending; its own reason is the better one.
    let (sent, received) = futures::join!(sending, receiving);
    received.and(sent).map_err(|failure| failure.on(&start.host))
}

fn announcement(blob: &Blob) -> Result<Bytes> {
    let incoming = Incoming { name: blob.name.clone(), wanted: wanted(blob), stored_size: blob.stored_size };
    let mut line = serde_json::to_vec(&incoming)
        .map_err(|error| Failure::new(Kind::Internal, "an announcement cannot be written").because(&error))?;
    line.push(b'\n');
    Ok(Bytes::from(line))
}

/// A blob as a host is asked about it.
pub fn wanted(blob: &Blob) -> Wanted {
    Wanted { sha256: blob.sha256.clone(), size: blob.size, place: blob.place.clone() }
}

/// Reads a blob in a thread of its own, a few chunks ahead.
fn read_ahead(bundle: Arc<Bundle>, blob: Blob) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let damaged = |error: std::io::Error| {
            Failure::new(Kind::Bundle, format!("cannot read {} from the bundle {}", blob.name, bundle.path().display()))
                .because(&error)
        };
        let mut stored = match bundle.stored(&blob) {
            Ok(stored) => stored,
            Err(failure) => {
                let _ = sender.blocking_send(Err(failure));
                return;
            }
        };
        let mut left = blob.stored_size;
        while left > 0 {
            let mut chunk = vec![0_u8; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
            let result = stored.read_exact(&mut chunk).map(|()| Bytes::from(chunk)).map_err(damaged);
            let (size, broken) = (result.as_ref().map_or(0, Bytes::len) as u64, result.is_err());
            if sender.blocking_send(result).is_err() || broken {
                return;
            }
            left -= size;
        }
    });
    receiver
}
