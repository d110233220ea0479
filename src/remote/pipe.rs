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
pub(super) const MUCH: u64 = 16 << 20;

/// One channel for each of these in a round trip (crates.md section 2c: 2 MiB a round trip and channel).
const ROUND_TRIP_SHARE: Duration = Duration::from_millis(5);

/// sshd's MaxSessions is 10 by default, and the agent has one.
const MAXIMUM_CHANNELS: usize = 8;

/// A shorter way than this, or one that only looks longer because the host is busy, takes one channel.
const LONG: Duration = Duration::from_millis(15);

/// Whether a round trip of this length is one over a long way.
pub fn is_far(round_trip: Duration) -> bool {
    round_trip >= LONG
}

/// Finds out how long the way to a host is, for when it will be of interest: that takes a round trip or more.
pub(super) async fn look_at_way(start: &Start) {
    start.connection.ping(LONG).await;
}

/// Whether `bytes` may need several channels to a host: where opening one is quick, the way is not long.
pub(super) fn may_need_several(start: &Start, bytes: u64) -> bool {
    bytes >= MUCH && is_far(start.connection.shortest())
}

/// What all hosts together can take at best, in bytes a second: 10 Gbit/s. More channels than fill that cost a process each
/// and bring nothing.
const LINE: u128 = 1_250_000_000;

/// What sshd takes of a channel in a round trip, in bytes.
const CHANNEL: u128 = 2 << 20;

/// How many channels carry much well where one round trip takes so long and so many hosts receive at once.
fn count_for(round_trip: Duration, receivers: usize) -> usize {
    if !is_far(round_trip) {
        return 1;
    }
    let under_way = LINE * round_trip.as_micros() / 1_000_000;
    let share = under_way.div_ceil(CHANNEL).div_ceil(receivers.max(1) as u128);
    let needed = share.min(round_trip.as_micros() / ROUND_TRIP_SHARE.as_micros());
    usize::try_from(needed).unwrap_or(MAXIMUM_CHANNELS).clamp(2, MAXIMUM_CHANNELS)
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
    /// What opens more channels, until they are wanted.
    narrow: Option<Narrow>,
}

/// A pipe that has the receiver's own channel alone.
struct Narrow {
    start: Start,
    name: u32,
    receivers: usize,
}

type Frames = Arc<Mutex<mpsc::Receiver<(u64, Bytes)>>>;

impl Striped {
    /// A pipe to the receiver of that name, which gets further channels when they are wanted. `receivers` hosts share the
    /// laptop's line.
    pub(super) fn new(start: &Start, name: u32, receivers: usize) -> Self {
        let (sender, receiver) = mpsc::channel(2);
        let frames = Arc::new(Mutex::new(receiver));
        let narrow = Some(Narrow { start: start.clone(), name, receivers });
        Self { sender: Some(sender), frames, number: 0, channels: JoinSet::new(), narrow }
    }

    /// Opens as many channels as the way is found to need, beside the receiver's own, which may only be starting: each costs
    /// round trips, and they are not waited for one after the other. A host that opens fewer gets by with those.
    pub(super) fn widen(&mut self) {
        let Some(Narrow { start, name, receivers }) = self.narrow.take() else { return };
        let taken = self.frames.clone();
        self.channels.spawn(async move {
            let count = count_for(start.connection.ping(LONG).await, receivers);
            let more = (1..count).map(|_| one_more(&start, name, taken.clone()));
            futures::future::try_join_all(more).await.map(|_| ())
        });
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
    /// So many hosts share the laptop's line, unless it has its channels already.
    pub(super) fn share(&mut self, sharers: usize) {
        if let Self::Striped(Striped { narrow: Some(narrow), .. }) = self {
            narrow.receivers = sharers;
        }
    }

    /// Much is to be sent.
    pub(super) fn widen(&mut self) {
        if let Self::Striped(striped) = self {
            striped.widen();
        }
    }

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
    #[case(0, 1, 1)]
    #[case(14, 1, 1)]
    #[case(15, 1, 3)]
    #[case(20, 1, 4)]
    #[case(50, 1, 8)]
    #[case(300, 1, 8)]
    #[case(14, 8, 1)]
    #[case(15, 8, 2)]
    #[case(50, 4, 8)]
    #[case(50, 8, 4)]
    #[case(50, 100, 2)]
    #[case(200, 8, 8)]
    fn a_long_way_takes_more_channels_and_many_hosts_fewer_each(
        #[case] milliseconds: u64,
        #[case] receivers: usize,
        #[case] expected: usize,
    ) {
        assert_eq!(count_for(Duration::from_millis(milliseconds), receivers), expected);
    }
}
