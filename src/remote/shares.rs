//! Further channels for the program, where the way to a host is long: sshd takes 2 MiB of a channel in a round trip (crates.md
//! section 2c). They are opened beside the agent's own, before it is known whether the program lacks there, and go unused where it
//! does not. Each brings a part of the gzip stream into a file; the agent's start-up command puts them together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::pipe::is_far;
use super::start::{CHUNK_BYTES, Start};
use crate::agent::DIRECTORY;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Channel, Chunk};

/// What the program is brought with: so much of it that all of it is under way at once. sshd's MaxSessions is 10 by default.
const CHANNELS: usize = 6;

/// Where the parts lie, each under a name of this run and its number.
pub(super) const FOLDER: &str = "shares";

/// What a host says that has its part.
const HAS: &str = "clusterctl-has";

/// What waits for its part ends so soon when there is none.
const ENDS: Duration = Duration::from_secs(5);

/// A login shell may greet with this much, in bytes.
const MAXIMUM_GREETING_BYTES: usize = 64 << 10;

/// What a channel runs; it works in every login shell that knows single quotes. Where the part does not come whole it leaves
/// nothing.
fn script() -> String {
    let folder = format!("{DIRECTORY}/{FOLDER}");
    let part = format!(r#"{folder}/"$name""#);
    format!(
        r#"read -r size name || exit 0; umask 077; mkdir -p {folder} && head -c "$size" > {part} && [ "$(wc -c < {part})" -eq "$size" ] && echo {HAS} || {{ rm -f {part}; rmdir {folder} {DIRECTORY} 2>/dev/null; }}"#
    )
}

/// The channels that wait for their parts.
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

    /// They are not needed: returns when they are gone, so that a server that allows few has room for another, or after a limit.
    pub(super) async fn end(self) {
        let ending = self.channels.into_iter().map(|mut channel| async move {
            // How they end is of no interest.
            let _ = channel.finish().await;
            while let Ok(Some(_)) = channel.recv().await {}
        });
        let _ = tokio::time::timeout(ENDS, futures::future::join_all(ending)).await;
    }

    /// Sends everything; the name under which the host has it. `moved` hears how many bytes were sent so far.
    ///
    /// # Errors
    /// Where the host does not have all of it; the program can still be sent in the usual way.
    pub(super) async fn send(self, bytes: &Bytes, moved: impl Fn(u64)) -> Result<String> {
        let name = fresh_name()?;
        let size = bytes.len().div_ceil(self.channels.len()).max(1);
        let parts = (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..bytes.len().min(at + size)));
        let sent = AtomicU64::new(0);
        let tell = |count: usize| moved(sent.fetch_add(count as u64, Ordering::Relaxed) + count as u64);
        let sending = self.channels.into_iter().zip(parts).enumerate();
        let sending = sending.map(|(number, (channel, part))| bring(channel, format!("{name}-{number}"), part, &tell));
        futures::future::try_join_all(sending).await?;
        Ok(name)
    }
}

/// Sends one part, until the host says that it has it.
async fn bring(mut channel: Channel, name: String, mut part: Bytes, tell: &impl Fn(usize)) -> Result<()> {
    channel.send(Bytes::from(format!("{} {name}\n", part.len()))).await?;
    while !part.is_empty() {
        let chunk = part.split_to(part.len().min(CHUNK_BYTES));
        let count = chunk.len();
        channel.send(chunk).await?;
        tell(count);
    }
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
    Err(Failure::new(Kind::Host, "it did not take a part of the program"))
}

/// A name that no other run has.
fn fresh_name() -> Result<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn the_script_holds_nothing_that_a_login_shell_would_take_for_its_own() {
        assert!(!script().contains(['\'', '!', '\n', '\\']), "{}", script());
    }
}
