//! What receives blobs on a host, from the laptop: a process that takes announcements and bytes over one channel or several,
//! and reports.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pipe::{Pipe, Striped, may_need_several};
use super::start::{Start, Started};
use crate::agent::Report;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Chunk, Reader};

/// A line of a report may be this long, in bytes.
const MAXIMUM_REPORT_BYTES: usize = 1 << 20;

/// A receiver that runs.
pub(super) struct Receiver {
    /// The way into it.
    pub(super) pipe: Pipe,
    /// How many bytes of which streams were there from a former transfer when it was started.
    pub(super) there: BTreeMap<String, u64>,
    reports: mpsc::Receiver<Report>,
    reading: Option<JoinHandle<Result<()>>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

impl Receiver {
    /// Starts it, for so many bytes in all. `sharers` hosts share the laptop's line; one that `takes` what the laptop has gets its
    /// further channels at once.
    pub(super) async fn open(start: &Start, bytes: u64, sharers: usize, takes: bool) -> Result<Self> {
        let name = if may_need_several(start, bytes) { Some(fresh_name()?) } else { None };
        let mut striped = name.map(|name| Striped::new(start, name, sharers));
        if let Some(striped) = striped.as_mut().filter(|_| takes) {
            striped.widen();
        }
        let arguments = name.map_or_else(|| "--receive".to_owned(), |name| format!("--receive --striped {name}"));
        let Started { channel, first, .. } = start.agent(&arguments).await?;
        let (writer, reader) = channel.split();
        let (sender, mut reports) = mpsc::channel(256);
        let mut reading = Some(tokio::spawn(read(reader, first, sender)));
        let Some(Report::Ready { there }) = reports.recv().await else {
            return Err(why(&mut reading).await.unwrap_or_else(broken_off));
        };
        let pipe = match striped {
            Some(striped) => Pipe::Striped(striped.with(writer)),
            None => Pipe::One(writer),
        };
        Ok(Self { pipe, there, reports, reading })
    }

    /// What it has said meanwhile, one report after the other.
    pub(super) fn said(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// What it says next.
    ///
    /// # Errors
    /// Why it says nothing more.
    pub(super) async fn report(&mut self) -> Result<Report> {
        match self.reports.recv().await {
            Some(report) => Ok(report),
            None => Err(why(&mut self.reading).await.unwrap_or_else(broken_off)),
        }
    }

    /// All that it still says, told to `hear`; why it ended, unless that was said before.
    pub(super) async fn last_words(&mut self, mut hear: impl FnMut(Report)) -> Option<Failure> {
        while let Some(report) = self.reports.recv().await {
            hear(report);
        }
        why(&mut self.reading).await
    }

    /// Ends it, when it has taken everything.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.pipe.finish().await
    }
}

/// A name for a receiver that several channels join.
fn fresh_name() -> Result<u32> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(u32::from_be_bytes(bytes))
}

fn broken_off() -> Failure {
    Failure::new(Kind::Connection, "the transfer of blobs broke off").may_pass()
}

/// Why there are no more reports; whoever asks again hears nothing.
async fn why(reading: &mut Option<JoinHandle<Result<()>>>) -> Option<Failure> {
    reading.take()?.await.ok().and_then(Result::err)
}

/// Reads reports until the channel ends.
async fn read(mut reader: Reader, first: Vec<u8>, reports: mpsc::Sender<Report>) -> Result<()> {
    let mut pending = first;
    loop {
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let Ok(report) = serde_json::from_slice::<Report>(&line) else { continue };
            if reports.send(report).await.is_err() {
                return Ok(());
            }
        }
        if pending.len() > MAXIMUM_REPORT_BYTES {
            return Err(Failure::new(Kind::Connection, "the receiver sent a line without end"));
        }
        match reader.recv().await? {
            Some(Chunk::Stdout(bytes)) => pending.extend_from_slice(&bytes),
            Some(_) => {}
            None => {
                let said = reader.stderr_tail();
                return Err(if said.trim().is_empty() { broken_off() } else { broken_off().detailed(said.trim()) });
            }
        }
    }
}
