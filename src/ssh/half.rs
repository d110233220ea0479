//! The sending end of a channel: russh's, or the input of an `ssh` process.

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::{Mutex, watch};

use super::watcher::Lost;

/// Where input goes to.
#[derive(Debug)]
pub(super) enum Half {
    /// A channel of ours.
    Ours(ChannelWriteHalf<Msg>),
    /// A process of the user's own ssh.
    Process {
        /// Its input, until it is ended.
        stdin: Mutex<Option<ChildStdin>>,
        /// Told when the channel is over.
        over: watch::Sender<bool>,
        /// Its links are ssh's own business: as long as this is there, none counts as lost.
        _never_lost: watch::Sender<Option<Lost>>,
    },
}

impl Half {
    /// The input of a process; `None` where somebody else has it.
    pub(super) fn process(stdin: Option<ChildStdin>, never_lost: watch::Sender<Option<Lost>>) -> Self {
        Self::Process { stdin: Mutex::new(stdin), over: watch::Sender::new(false), _never_lost: never_lost }
    }

    /// Hands over a piece of input.
    pub(super) async fn data_bytes(&self, piece: Bytes) -> Result<(), russh::Error> {
        match self {
            Self::Ours(half) => half.data_bytes(piece).await,
            Self::Process { stdin, .. } => match stdin.lock().await.as_mut() {
                Some(stdin) => {
                    stdin.write_all(&piece).await?;
                    Ok(stdin.flush().await?)
                }
                None => Ok(()),
            },
        }
    }

    /// Ends the input.
    pub(super) async fn eof(&self) -> Result<(), russh::Error> {
        match self {
            Self::Ours(half) => half.eof().await,
            Self::Process { stdin, .. } => {
                stdin.lock().await.take();
                Ok(())
            }
        }
    }

    /// Ends the channel.
    pub(super) async fn close(&self) -> Result<(), russh::Error> {
        match self {
            Self::Ours(half) => half.close().await,
            Self::Process { over, .. } => {
                over.send_replace(true);
                Ok(())
            }
        }
    }

    /// What only a channel of ours can be asked for; an `ssh` process was told when it was started.
    pub(super) fn ours(&self) -> Option<&ChannelWriteHalf<Msg>> {
        match self {
            Self::Ours(half) => Some(half),
            Self::Process { .. } => None,
        }
    }
}
