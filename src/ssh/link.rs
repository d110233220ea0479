//! The TCP stream below russh, with two things russh lacks: what the server said before its greeting, and a limit on a
//! write that makes no progress (russh waits in the write for ever and then sends no keepalives either). It also answers
//! the first segments at once: sshd gathers small packets until its first command runs, and would otherwise wait 40 ms
//! for our delayed acknowledgement before it opens the first channel.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Interval;

/// How much of the beginning is kept; a greeting has at most 255 bytes (RFC 4253 section 4.2).
const KEPT: usize = 1024;

/// How many reads are acknowledged at once: more than a login has, with its first channel.
const PROMPT_READS: u32 = 64;

/// The first bytes a server sent, shared between the stream and whoever explains a failure.
#[derive(Debug, Clone, Default)]
pub(super) struct Beginning(Arc<Mutex<Vec<u8>>>);

/// What the first bytes of a server mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Nothing came.
    Nothing,
    /// SSH, with the software's name: `OpenSSH_9.2p1 Debian-2`.
    Ssh(String),
    /// sshd said in words that it is not taking connections now.
    Busy(String),
    /// Something else; its first line, made printable.
    Other(String),
}

impl Beginning {
    fn add(&self, bytes: &[u8]) -> usize {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        KEPT - kept.len()
    }

    /// What has been received means this.
    pub(super) fn greeting(&self) -> Greeting {
        greeting(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads the first bytes of a server. Lines before the one that starts with `SSH-` are allowed (RFC 4253 section 4.2).
fn greeting(bytes: &[u8]) -> Greeting {
    if bytes.is_empty() {
        return Greeting::Nothing;
    }
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        if let Some(version) = line.strip_prefix("SSH-2.0-").or_else(|| line.strip_prefix("SSH-1.99-")) {
            return Greeting::Ssh(printable(version));
        }
    }
    let first = printable(text.lines().next().unwrap_or_default());
    // OpenSSH 8.9 and 9.8 say these before they close (sshd.c, srclimit.c).
    if first.contains("Exceeded MaxStartups") || first.contains("Not allowed at this time") {
        return Greeting::Busy(first);
    }
    Greeting::Other(first)
}

/// At most 80 characters, with control characters replaced: the text goes to a terminal.
fn printable(text: &str) -> String {
    text.trim_end().chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A stream that keeps its beginning and fails a write that stands still.
#[derive(Debug)]
pub(super) struct Link<S> {
    stream: S,
    acknowledge: fn(&S),
    prompt_reads: u32,
    beginning: Beginning,
    listening: bool,
    stall: Interval,
    stall_limit: Duration,
    stalled: bool,
}

impl<S> Link<S> {
    /// Wraps a stream; a write without progress fails after `stall_limit`. `acknowledge` is called after each of the
    /// first reads.
    pub(super) fn new(stream: S, stall_limit: Duration, acknowledge: fn(&S)) -> Self {
        Self {
            stream,
            acknowledge,
            prompt_reads: PROMPT_READS,
            beginning: Beginning::default(),
            listening: true,
            stall: tokio::time::interval(stall_limit),
            stall_limit,
            stalled: false,
        }
    }

    /// The place where the first bytes are kept.
    pub(super) fn beginning(&self) -> Beginning {
        self.beginning.clone()
    }

    fn guard<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = false;
            return result;
        }
        if !self.stalled {
            self.stalled = true;
            self.stall.reset();
        }
        ready!(self.stall.poll_tick(context));
        let sentence = format!("the host took no data for {} seconds", self.stall_limit.as_secs());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, sentence)))
    }
}

/// Sends the acknowledgement of what was received now instead of in 40 ms, where the system can.
pub(super) fn acknowledge(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.prompt_reads > 0 {
            self.prompt_reads -= 1;
            (self.acknowledge)(&self.stream);
        }
        if self.listening {
            let room = self.beginning.add(&buffer.filled()[before..]);
            self.listening = room > 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.guard(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.guard(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.guard(context, result)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use tokio::io::AsyncWriteExt;

    use super::{Greeting, Link, greeting};

    #[rstest]
    #[case("", Greeting::Nothing)]
    #[case("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Greeting::Ssh("OpenSSH_9.2p1 Debian-2".into()))]
    #[case("welcome\r\nSSH-1.99-old\r\n", Greeting::Ssh("old".into()))]
    #[case("Exceeded MaxStartups\r\n", Greeting::Busy("Exceeded MaxStartups".into()))]
    #[case("HTTP/1.1 400 Bad Request\r\n\r\n", Greeting::Other("HTTP/1.1 400 Bad Request".into()))]
    #[case("\x1b[31mred", Greeting::Other("\u{fffd}[31mred".into()))]
    fn the_first_bytes_tell_what_answers(#[case] bytes: &str, #[case] expected: Greeting) {
        assert_eq!(greeting(bytes.as_bytes()), expected);
    }

    #[tokio::test]
    async fn a_write_that_stands_still_fails() {
        let (near, _far) = tokio::io::duplex(16);
        let mut link = Link::new(near, Duration::from_millis(50), |_| ());
        let error = link.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
