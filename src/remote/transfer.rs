//! Sending blobs to a host: announced, streamed as stored (from the laptop or by another host), reported back one by one.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::pipe::MUCH;
use super::receiver::Receiver;
use super::relay::Relay;
use super::start::Start;
use super::uplink::Uplink;
use crate::agent::relay::Giver;
use crate::agent::{Incoming, Instead, Purpose, Report};
use crate::bundle::{Blob, Bundle};
use crate::failure::{Failure, Kind, Result};
use crate::message::{Place, Wanted};

/// Bytes read and sent at a time (crates.md, 2e: what russh is fast with).
const CHUNK_BYTES: usize = 256 << 10;

/// What a receiver said of its own end must be there so soon after its channel broke.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Told (bytes the host has so far, name of the blob under way).
pub type Progress<'a> = &'a (dyn Fn(u64, &str) + Send + Sync);

/// How blobs get to one host.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// Starts the receiver.
    pub start: &'a Start,
    /// Where the blobs are.
    pub bundle: &'a Arc<Bundle>,
    /// The laptop's way out.
    pub uplink: &'a Uplink,
    /// The hosts that hand blobs on, if they do.
    pub relay: Option<&'a Relay>,
    /// What becomes of the streams on the host.
    pub purpose: Purpose,
}

/// What receives on one host during a run: started when it is first needed, and there for what is sent later.
#[derive(Default)]
pub struct Receiving {
    receiver: Option<Receiver>,
}

impl Receiving {
    /// Starts what receives `bytes` in all before anything is known to be sent: on a long way that takes several round trips.
    /// `sharers` hosts share the laptop's line, where the host `takes` what the laptop has.
    ///
    /// # Errors
    /// As [`Receiving::send`].
    pub async fn ahead(start: &Start, bytes: u64, sharers: usize, takes: bool) -> Result<Self> {
        let receiver = Receiver::open(start, bytes, sharers, takes).await.map_err(|failure| failure.on(&start.host))?;
        Ok(Self { receiver: Some(receiver) })
    }

    /// Brings blobs to the host and returns when it has checked and stored all of them. What a former transfer left there is
    /// gone on from. `lacking` bytes are to be sent in all, now and later.
    ///
    /// # Errors
    /// The first blob that failed, or the broken connection; names the host.
    pub async fn send(
        &mut self,
        delivery: Delivery<'_>,
        blobs: &[Blob],
        lacking: u64,
        progress: Progress<'_>,
    ) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let start = delivery.start;
        // Where hosts hand on, one of them at a time takes what the laptop has; the others may never take anything.
        let sharers = if delivery.relay.is_some() { 1 } else { delivery.uplink.receivers() };
        let takes = delivery.relay.is_none_or(|relay| relay.is_first(&start.host));
        let mut receiver = match self.receiver.take() {
            Some(mut receiver) => {
                receiver.pipe.share(sharers);
                if takes {
                    receiver.pipe.widen();
                }
                receiver
            }
            None => Receiver::open(start, lacking, sharers, takes).await.map_err(|failure| failure.on(&start.host))?,
        };
        Transfer::new(delivery, &mut receiver, blobs, progress)
            .run(blobs)
            .await
            .map_err(|failure| failure.on(&start.host))?;
        self.receiver = Some(receiver);
        Ok(())
    }

    /// Whether a receiver is there.
    pub fn has_begun(&self) -> bool {
        self.receiver.is_some()
    }

    /// Nothing more is to be sent: the receiver ends, and nobody waits for that.
    pub fn end(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            // It has stored everything: how it ends is of no interest.
            tokio::spawn(receiver.finish());
        }
    }
}

/// A blob that is to be sent.
#[derive(Clone)]
struct Job<'a> {
    blob: &'a Blob,
    /// It may only come from the laptop, and from its first byte.
    plainly: bool,
}

/// A blob that was announced and not reported back yet.
struct Announced<'a> {
    blob: &'a Blob,
    /// It came through other hosts, or from a former run: if it is damaged, it is sent once more.
    again: bool,
    /// The host that gives it; the laptop if absent.
    giver: Option<Giver>,
}

struct Transfer<'a> {
    delivery: Delivery<'a>,
    progress: Progress<'a>,
    receiver: &'a mut Receiver,
    announced: VecDeque<Announced<'a>>,
    queue: VecDeque<Job<'a>>,
    /// The receiver waits to hear who gives the rest, from this byte on, of the blob that was announced first.
    needed: Option<u64>,
    /// Bytes of blobs that were reported back.
    done: u64,
    failed: Option<Failure>,
}

impl<'a> Transfer<'a> {
    fn new(delivery: Delivery<'a>, receiver: &'a mut Receiver, blobs: &'a [Blob], progress: Progress<'a>) -> Self {
        let queue = once(blobs).map(|blob| Job { blob, plainly: false }).collect();
        let announced = VecDeque::new();
        Self { delivery, progress, receiver, announced, queue, needed: None, done: 0, failed: None }
    }

    async fn run(mut self, blobs: &[Blob]) -> Result<()> {
        let sent = self.all().await;
        if let Err(failure) = sent {
            if let Some(failed) = self.failed.take() {
                return Err(failed);
            }
            // The receiver's own reason is the better one; that of its end, too, where all we know is that it takes no more.
            let mut said = Vec::new();
            let last_words = self.receiver.last_words(|report| said.push(report));
            let ended = tokio::time::timeout(LAST_WORDS, last_words).await.ok().flatten();
            said.into_iter().for_each(|report| self.note(report));
            let ended = ended.filter(|_| failure.kind == Kind::Host);
            return Err(self.failed.take().or(ended).unwrap_or(failure));
        }
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        (self.progress)(blobs.iter().map(|blob| blob.stored_size).sum(), "");
        Ok(())
    }

    async fn all(&mut self) -> Result<()> {
        loop {
            self.hear()?;
            if let Some(from) = self.needed.take() {
                self.give_rest(from).await?;
            } else if let Some(job) = self.queue.pop_front() {
                self.one(job).await?;
            } else if self.announced.is_empty() {
                return Ok(());
            } else {
                let report = self.receiver.report().await?;
                self.note(report);
            }
        }
    }

    /// Takes note of what the receiver has said meanwhile.
    ///
    /// # Errors
    /// Where a blob failed: the host will not be whole, and what is still to be sent is sent for nothing.
    fn hear(&mut self) -> Result<()> {
        while let Some(report) = self.receiver.said() {
            self.note(report);
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Takes note of what the receiver said about the oldest blob that was announced.
    fn note(&mut self, report: Report) {
        let result = match report {
            Report::Received { result, .. } => result,
            Report::Moved { at } => {
                if let Some(Announced { blob, .. }) = self.announced.front() {
                    (self.progress)(self.done + at.min(blob.stored_size), &blob.name);
                }
                return;
            }
            Report::Need { from, why: _ } => {
                self.needed = Some(from);
                return;
            }
            Report::Ready { .. } => return,
        };
        let Some(announced) = self.announced.pop_front() else { return };
        let Err(failure) = result else {
            self.done += announced.blob.stored_size;
            return;
        };
        let blob = announced.blob;
        if announced.again && failure.kind == Kind::Bundle {
            if let Some(relay) = self.delivery.relay {
                relay.damaged(&self.delivery.start.host, &blob.stored_sha256);
            }
            self.queue.push_back(Job { blob, plainly: true });
            return;
        }
        self.failed.get_or_insert(failure);
    }

    /// Announces a blob, and sends its bytes unless another host gives them: then what comes next is announced meanwhile.
    async fn one(&mut self, job: Job<'a>) -> Result<()> {
        let blob = job.blob;
        let there = self.receiver.there.remove(&blob.stored_sha256).unwrap_or(0);
        let from = if job.plainly { 0 } else { there.min(blob.stored_size) };
        let giver = if job.plainly { None } else { self.giver(blob).await?.filter(|_| from < blob.stored_size) };
        while giver.is_none() && self.announced.iter().any(|announced| announced.giver.is_some()) {
            // Bytes may only follow when nobody asks any more who gives the rest of another blob.
            // Nobody waits in a circle: all hosts take blobs in the bundle's order, and this waits for earlier ones alone.
            let report = self.receiver.report().await?;
            self.answer(report).await?;
        }
        let incoming = Incoming {
            name: blob.name.clone(),
            wanted: wanted(blob),
            stored_sha256: blob.stored_sha256.clone(),
            stored_size: blob.stored_size,
            from,
            purpose: self.delivery.purpose,
            giver: giver.clone(),
        };
        self.line(&incoming).await?;
        let again = !job.plainly && (giver.is_some() || from > 0);
        let is_given = giver.is_some();
        self.announced.push_back(Announced { blob, again, giver });
        if is_given { Ok(()) } else { self.bytes(blob, from).await }
    }

    /// Whom the host takes a blob from, `None` for the laptop. What the receiver says meanwhile is answered.
    async fn giver(&mut self, blob: &'a Blob) -> Result<Option<Giver>> {
        let Some(relay) = self.delivery.relay else { return Ok(None) };
        let asking = relay.giver(&self.delivery.start.host, &blob.stored_sha256);
        tokio::pin!(asking);
        loop {
            let report = tokio::select! {
                biased;
                giver = &mut asking => return giver,
                report = self.receiver.report() => report?,
            };
            self.answer(report).await?;
        }
    }

    /// Takes note of a report, and says who gives the rest where it asks for that.
    async fn answer(&mut self, report: Report) -> Result<()> {
        self.note(report);
        self.hear()?;
        // While one rest was sent, the next may have been asked for.
        while let Some(from) = self.needed.take() {
            self.give_rest(from).await?;
        }
        Ok(())
    }

    /// Names another host that gives the rest of the blob that was announced first, or sends it.
    async fn give_rest(&mut self, from: u64) -> Result<()> {
        let host = &self.delivery.start.host;
        let Some(first) = self.announced.front_mut() else { return Ok(()) };
        let blob = first.blob;
        let former = first.giver.take();
        let giver = match self.delivery.relay {
            Some(relay) => {
                if let Some(former) = &former {
                    relay.unreachable(host, &former.host);
                }
                relay.giver(host, &blob.stored_sha256).await?
            }
            None => None,
        };
        first.giver.clone_from(&giver);
        let is_given = giver.is_some();
        self.line(&Instead { giver }).await?;
        if is_given { Ok(()) } else { self.bytes(blob, from).await }
    }

    /// Bytes of the blobs before this one that the host has or will have first.
    fn before(&self, blob: &Blob) -> u64 {
        let before = self.announced.iter().take_while(|announced| !std::ptr::eq(announced.blob, blob));
        self.done + before.map(|announced| announced.blob.stored_size).sum::<u64>()
    }

    async fn line(&mut self, what: &impl serde::Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what)
            .map_err(|error| Failure::new(Kind::Internal, "an announcement cannot be written").because(&error))?;
        line.push(b'\n');
        self.receiver.pipe.send(Bytes::from(line)).await
    }

    /// The bytes of a blob from `from` on.
    async fn bytes(&mut self, blob: &Blob, from: u64) -> Result<()> {
        if from >= blob.stored_size {
            return Ok(());
        }
        let _place = self.delivery.uplink.place().await;
        if blob.stored_size - from >= MUCH {
            self.receiver.pipe.widen();
        }
        let mut at = from;
        let mut chunks = read_ahead(self.delivery.bundle.clone(), blob.clone(), from);
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            let size = chunk.len() as u64;
            self.delivery.uplink.pass(size).await;
            self.receiver.pipe.send(chunk).await?;
            at += size;
            (self.progress)(self.before(blob) + at, &blob.name);
            self.hear()?;
        }
        Ok(())
    }
}

/// Content that belongs into several files is sent once: the host copies it.
fn once(blobs: &[Blob]) -> impl Iterator<Item = &Blob> {
    let mut seen = BTreeSet::new();
    blobs.iter().filter(move |blob| !matches!(blob.place, Place::File { .. }) || seen.insert(blob.sha256.as_str()))
}

/// A blob as a host is asked about it.
pub fn wanted(blob: &Blob) -> Wanted {
    Wanted { sha256: blob.sha256.clone(), size: blob.size, place: blob.place.clone() }
}

/// Reads a blob in a thread of its own, a few chunks ahead.
fn read_ahead(bundle: Arc<Bundle>, blob: Blob, from: u64) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let damaged = |error: std::io::Error| {
            Failure::new(Kind::Bundle, format!("cannot read {} from the bundle {}", blob.name, bundle.path().display()))
                .because(&error)
        };
        let mut stored = match bundle.stored_from(&blob, from) {
            Ok(stored) => stored,
            Err(failure) => {
                let _ = sender.blocking_send(Err(failure));
                return;
            }
        };
        let mut left = blob.stored_size - from;
        while left > 0 {
            let size = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES));
            // Into room that is not zeroed first.
            let mut chunk = Vec::with_capacity(size);
            let result = match stored.by_ref().take(size as u64).read_to_end(&mut chunk) {
                Ok(count) if count < size => Err(damaged(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => Ok(Bytes::from(chunk)),
                Err(error) => Err(damaged(error)),
            };
            let (size, broken) = (result.as_ref().map_or(0, Bytes::len) as u64, result.is_err());
            if sender.blocking_send(result).is_err() || broken {
                return;
            }
            left -= size;
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::{Blob, Place, once};

    fn blob(name: &str, sha256: &str, place: Place) -> Blob {
        Blob {
            name: name.to_owned(),
            sha256: sha256.to_owned(),
            size: 1,
            stored_sha256: String::new(),
            stored_size: 1,
            architecture: "amd64".to_owned(),
            roles: Vec::new(),
            place,
        }
    }

    #[test]
    fn content_of_several_files_is_sent_once() {
        let file =
            |name: &str, sha256: &str| blob(name, sha256, Place::File { path: format!("/opt/{name}"), mode: 0o755 });
        let images = |name: &str| blob(name, "same", Place::Images { references: Vec::new() });
        let blobs = [file("a", "same"), file("b", "other"), file("c", "same"), images("d"), images("e")];
        let names: Vec<&str> = once(&blobs).map(|blob| blob.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "d", "e"]);
    }
}
