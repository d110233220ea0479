//! Further channels for the program, where the way to a host is long: sshd takes 2 MiB of a channel in a round trip (crates.md
//! section 2c). They are opened beside the agent's own, before it is known whether the program lacks there, and go unused where it
//! does not. Each brings some members of the gzip stream, which are unpacked while they arrive; the agent's start-up command
//! gathers what came of it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::pipe::is_far;
use super::program::{Compressed, MEMBERS};
use super::start::{CHUNK_BYTES, Start};
use crate::agent::{DIRECTORY, SHARES};
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Channel, Chunk};

/// What the program is brought with: so many that all of it is under way at once. sshd's MaxSessions is 10 by default.
const CHANNELS: usize = MEMBERS;

/// The name of the pipe, beside the shares, by which their writers tell the command that gathers them.
pub(super) const TOLD: &str = "told";

/// What is told of a share that is there.
pub(super) const HAS: &str = "clusterctl-has";

/// What waits for its share ends so soon when there is none.
const ENDS: Duration = Duration::from_secs(5);

/// A login shell may greet with this much, in bytes.
const MAXIMUM_GREETING_BYTES: usize = 64 << 10;

/// What a channel runs; it works in every login shell that knows single quotes. It reads how many bytes come, the process that
/// gathers and the number of the share. The pipe is opened to be read as well: so nobody waits where that process is gone. It is
/// told first: nobody may listen to the channel any more.
fn script() -> String {
    let folder = format!(r#"{DIRECTORY}/{SHARES}."$process""#);
    format!(
        r#"read -r size process number || exit 0; umask 077; said=clusterctl-lacks; head -c "$size" | gzip -dc > {folder}/share-"$number" && said={HAS}; [ -p {folder}/{TOLD} ] && echo $said 1<> {folder}/{TOLD}; echo $said"#
    )
}

/// The channels that wait for their shares.
pub(super) struct Shares {
    channels: Vec<Channel>,
}

impl Shares {
    /// Opens them, where hosts most likely lack the program and the way is long. A host that opens none is none the worse.
    pub(super) async fn open(start: &Start) -> Option<Self> {
        let wanted = start.supply.is_expected_by_few()
            && is_far(start.connection.round_trip())
            && start.privilege.starts_at_once();
        if !wanted {
            return None;
        }
        let script = script();
        let opening = (0..CHANNELS).map(|_| start.privilege.start(&start.connection, &script, &[]));
        let channels: Vec<Channel> = futures::future::join_all(opening).await.into_iter().flatten().collect();
        (!channels.is_empty()).then_some(Self { channels })
    }

    /// How many shares there will be: none is empty.
    pub(super) fn count(&self, program: &Compressed) -> usize {
        self.channels.len().min(program.members.len())
    }

    /// They are not needed: returns when they are gone, so that a server that allows few has room for another, or after a limit.
    pub(super) async fn end(self) {
        let ending = self.channels.into_iter().map(|mut channel| async move {
            // How they end is of no interest.
            let _ = channel.finish().await;
            while let Ok(Some(_)) = channel.recv().await {}
        });
        let _ = tokio::time::timeout(ENDS, futures::future::join_all(ending)).await;
    }

    /// Sends everything to where the process `gatherer` of the host gathers it. Each share that is on its way is one more permit
    /// of `sent`; of each that is there `arrived` hears the size in bytes.
    ///
    /// # Errors
    /// Where the host does not take all of it; the program can still be sent in the usual way.
    pub(super) async fn bring(
        self,
        gatherer: u32,
        program: &Compressed,
        sent: &Semaphore,
        arrived: impl Fn(u64),
    ) -> Result<()> {
        let shares = divide(&program.members, self.count(program));
        let mut sending =
            self.channels.into_iter().zip(shares).enumerate().map(|(number, (channel, share))| async move {
                let bytes: u64 = share.iter().map(|member| member.len() as u64).sum();
                let channel = send(channel, format!("{bytes} {gatherer} {number}\n"), share).await?;
                sent.add_permits(1);
                Ok::<_, Failure>((channel, bytes))
            });
        let arrives = async |(channel, bytes): (Channel, u64)| {
            has(channel).await?;
            arrived(bytes);
            Ok(())
        };
        // The first one alone: what it tells of the line is told before the others arrive.
        let first = match sending.next() {
            Some(first) => first.await?,
            None => return Ok(()),
        };
        let others = sending.map(async |sending| arrives(sending.await?).await);
        futures::try_join!(arrives(first), futures::future::try_join_all(others)).map(drop)
    }
}

/// Members for so many channels, in order: as many for each as for the others, or one more.
fn divide(members: &[Bytes], channels: usize) -> Vec<Vec<Bytes>> {
    let ends = |channel: usize| members.len() * channel / channels;
    (0..channels).map(|channel| members[ends(channel)..ends(channel + 1)].to_vec()).collect()
}

/// Sends one share after the line that announces it.
async fn send(mut channel: Channel, line: String, share: Vec<Bytes>) -> Result<Channel> {
    channel.send(Bytes::from(line)).await?;
    for mut member in share {
        while !member.is_empty() {
            channel.send(member.split_to(member.len().min(CHUNK_BYTES))).await?;
        }
    }
    Ok(channel)
}

/// Waits until the host says that it has its share.
async fn has(mut channel: Channel) -> Result<()> {
    let mut said = Vec::new();
    while let Some(chunk) = channel.recv().await? {
        match chunk {
            Chunk::Stdout(bytes) => said.extend_from_slice(&bytes),
            Chunk::Stderr(_) => {}
            Chunk::Exit(_) => break,
        }
        if String::from_utf8_lossy(&said).lines().any(|line| line.trim_end() == HAS) {
            return Ok(());
        }
        if said.len() > MAXIMUM_GREETING_BYTES {
            break;
        }
    }
    Err(Failure::new(Kind::Host, "it did not take a share of the program"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;

    use super::{divide, script};

    #[test]
    fn the_script_holds_nothing_that_a_login_shell_would_take_for_its_own() {
        assert!(!script().contains(['\'', '!', '\n', '\\']), "{}", script());
    }

    #[rstest]
    #[case::one_each(6, "a|b|c|d|e|f")]
    #[case::fewer_channels(4, "a|bc|d|ef")]
    #[case::one_channel(1, "abcdef")]
    fn members_stay_in_order_whoever_brings_them(#[case] channels: usize, #[case] expected: &str) {
        let members: Vec<Bytes> = ["a", "b", "c", "d", "e", "f"].map(Bytes::from).to_vec();
        let shares = divide(&members, channels).into_iter().map(|share| share.concat());
        let shares: Vec<String> = shares.map(|share| String::from_utf8(share).unwrap()).collect();
        assert_eq!(shares.join("|"), expected);
    }
}
