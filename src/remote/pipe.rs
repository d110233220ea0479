//! Bytes into a receiver on a host: over one channel, or over several where the way is long.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::start::Start;
use crate::agent::frame;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::Writer;

/// Below this one channel does, in bytes.
const MUCH: u64 = 16 << 20;

/// One channel for each of these in a round trip (crates.md section 2c: 2 MiB a round trip and channel).
const ROUND_TRIP_SHARE: Duration = Duration::from_millis(5);

/// sshd's MaxSessions is 10 by default, and the agent has one.
const MAXIMUM_CHANNELS: usize = 8;

/// A shorter way than this, or one that only looks longer because the host is busy, takes one channel.
const LONG: Duration = Duration::from_millis(15);

/// Whether `bytes` may need several channels to a host: where opening one is quick, the way is not long.
pub(super) fn may_need_several(start: &Start, bytes: u64) -> bool {
    bytes >= MUCH && start.connection.shortest() >= LONG
}

/// How many channels carry much well where one round trip takes so long.
fn count_for(round_trip: Duration) -> usize {
    let shares = round_trip.as_micros() / ROUND_TRIP_SHARE.as_micros();
    match usize::try_from(shares).unwrap_or(MAXIMUM_CHANNELS) {
        _ if round_trip < LONG => 1,
        shares => shares.min(MAXIMUM_CHANNELS),
    }
}

/// The way into a receiver.
pub(super) enum Pipe {
    /// One channel.
    One(Writer),
    /// Several; see [`crate::agent::Stripes`].
    Striped(Striped),
}

/// Several channels that carry frames.
pub(super) struct Striped {
    sender: Option<mpsc::Sender<(u64, Bytes)>>,
    frames: Frames,
    number: u64,
    channels: JoinSet<Result<()>>,
}

type Frames = Arc<Mutex<mpsc::Receiver<(u64, Bytes)>>>;

impl Striped {
    /// Opens channels to the receiver of that name, as many as the way is found to need, beside the one that the receiver
    /// is started on meanwhile: each costs round trips, and they are not waited for one after the other. A host that opens
    /// fewer gets by with those.
    pub(super) fn begin(start: &Start, name: u32) -> Self {
        let (sender, receiver) = mpsc::channel(2);
        let frames = Arc::new(Mutex::new(receiver));
        let mut channels = JoinSet::new();
        let (start, taken) = (start.clone(), frames.clone());
        channels.spawn(async move {
            let count = count_for(start.connection.ping(LONG).await);
            let more = (1..count).map(|_| one_more(&start, name, taken.clone()));
            futures::future::try_join_all(more).await.map(|_| ())
        });
        Self { sender: Some(sender), frames, number: 0, channels }
    }

    /// With the receiver's own channel.
    pub(super) fn with(mut self, first: Writer) -> Self {
        self.channels.spawn(carry(first, self.frames.clone()));
        self
    }
}

/// Carries frames over one more channel, if the host opens it.
async fn one_more(start: &Start, name: u32, frames: Frames) -> Result<()> {
    let Ok(started) = start.agent(&format!("--stripe {name}")).await else { return Ok(()) };
    let (writer, mut reader) = started.channel.split();
    carry(writer, frames).await?;
    // It ends when everything was taken; only then may its reader go.
    while reader.recv().await?.is_some() {}
    Ok(())
}

impl Pipe {
    /// Sends bytes, at most 256 KiB.
    pub(super) async fn send(&mut self, bytes: Bytes) -> Result<()> {
        match self {
            Self::One(writer) => writer.send(bytes).await,
            Self::Striped(striped) => {
                let number = striped.number;
                striped.number += 1;
                let sent = match &striped.sender {
                    Some(sender) => sender.send((number, bytes)).await.is_ok(),
                    None => false,
                };
                // One of the channels failed and closed it for all.
                if sent { Ok(()) } else { Err(striped.why().await) }
            }
        }
    }

    /// Ends the input.
    pub(super) async fn finish(&mut self) -> Result<()> {
        match self {
            Self::One(writer) => writer.finish().await,
            Self::Striped(Striped { sender, channels, .. }) => {
                sender.take();
                while let Some(ended) = channels.join_next().await {
                    ended.unwrap_or_else(|_| Err(lost()))?;
                }
                Ok(())
            }
        }
    }
}

impl Striped {
    async fn why(&mut self) -> Failure {
        while let Some(ended) = self.channels.join_next().await {
            if let Err(failure) = ended.unwrap_or_else(|_| Err(lost())) {
                return failure;
            }
        }
        lost()
    }
}

fn lost() -> Failure {
    Failure::new(Kind::Connection, "a channel of several ended early").may_pass()
}

/// Takes frames and sends them, until there are no more.
async fn carry(mut writer: Writer, frames: Frames) -> Result<()> {
    loop {
        let next = frames.lock().await.recv().await;
        let Some((number, bytes)) = next else { return writer.finish().await };
        let head = frame(number, u32::try_from(bytes.len()).unwrap_or_default());
        let sent = async {
            writer.send(Bytes::copy_from_slice(&head)).await?;
            writer.send(bytes).await
        };
        if let Err(failure) = sent.await {
            frames.lock().await.close();
            return Err(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::count_for;

    #[rstest]
    #[case(0, 1)]
    #[case(14, 1)]
    #[case(15, 3)]
    #[case(20, 4)]
    #[case(50, 8)]
    #[case(300, 8)]
    fn a_long_way_takes_more_channels(#[case] milliseconds: u64, #[case] expected: usize) {
        assert_eq!(count_for(Duration::from_millis(milliseconds)), expected);
    }
}
