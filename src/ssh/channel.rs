//! One command on a host: what goes into it, what comes out, how it ended.
//!
//! russh replenishes a channel's window as data arrives, whether or not anybody reads, and stops reading from the
//! network for *all* channels when one channel's queue is full. So each channel has a pump: a task that empties russh's
//! queue at once into a queue of ours, whose bytes are counted. A channel whose reader falls more than
//! [`QUEUED`] behind is ended with a failure; the other channels do not notice.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};

use crate::failure::{Failure, Kind, Result};

use super::half::Half;
use super::openssh;
use super::output::{Chunk, Exit};
use super::watcher::{LostReceiver, lost};

/// Bytes that may wait for a reader.
const QUEUED: usize = 64 << 20;
/// What a queued message costs besides its bytes.
const MESSAGE: usize = 128;
/// Bytes of standard error that are kept for failures.
const TAIL: usize = 64 << 10;
/// What is handed to russh at once (crates.md section 2e.3).
const PIECE: usize = 256 << 10;
/// A command that takes none of its input for this long is given up.
const STALL: Duration = Duration::from_secs(120);
/// Handing a request to the connection's task.
const HAND_OVER: Duration = Duration::from_secs(30);

/// What the pump hands on.
#[derive(Debug)]
pub(super) enum Item {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Standard output has ended; standard error and the status may still come.
    Eof,
    Exit(Exit),
    /// It did not end well; the last item.
    Broken(Broken),
}

/// How a channel breaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Broken {
    /// The host refused to start the command.
    Refused,
    /// The reader fell too far behind.
    Overflow,
    /// The connection ended before the channel did.
    Lost,
    /// The user's own ssh gave up; why is on its standard error.
    Openssh,
}

/// What the two halves and the pump share.
#[derive(Debug)]
pub(super) struct Shared {
    host: String,
    /// What the channel is, for sentences: `the command "true"`.
    what: String,
    pub(super) queued: AtomicUsize,
    tail: Mutex<VecDeque<u8>>,
    pub(super) ended: watch::Sender<bool>,
    lost: LostReceiver,
    pub(super) half: Half,
}

impl Shared {
    pub(super) fn keep_tail(&self, bytes: &[u8]) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }

    pub(super) fn stderr_tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn failure(&self, kind: Kind, sentence: String) -> Failure {
        let failure = Failure::new(kind, sentence).on(&self.host);
        let tail = self.stderr_tail();
        if tail.trim().is_empty() { failure } else { failure.detailed(tail) }
    }

    /// The failure of a connection that ended under this channel.
    fn lost_failure(&self, reason: &str) -> Failure {
        self.failure(Kind::Connection, format!("the connection broke during {}", self.what))
            .caused_by(reason)
            .advise("check the host and the network, then run the same command again")
            .may_pass()
    }
}

/// A command under way. Dropping it, or its [`Reader`], closes the channel: the command's input ends and sshd forgets it.
#[derive(Debug)]
pub struct Channel {
    pub(super) writer: Writer,
    pub(super) reader: Reader,
}

impl Channel {
    /// Takes over a channel that russh has opened; must be called inside a runtime.
    pub(super) fn new(channel: russh::Channel<Msg>, host: &str, what: String, lost: LostReceiver) -> Self {
        let (read, half) = channel.split();
        let (channel, sender, shared) = Self::over(Half::Ours(half), host, what, lost);
        tokio::spawn(pump(read, sender, shared));
        channel
    }

    /// A channel over what takes its input; whoever pumps puts its output where the sender leads.
    pub(super) fn over(
        half: Half,
        host: &str,
        what: String,
        lost: LostReceiver,
    ) -> (Self, mpsc::UnboundedSender<Item>, Arc<Shared>) {
        let (sender, items) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            what,
            queued: AtomicUsize::new(0),
            tail: Mutex::new(VecDeque::new()),
            ended: watch::Sender::new(false),
            lost,
            half,
        });
        let (returned, rest) = (VecDeque::new(), Bytes::new());
        let reader = Reader { returned, items, shared: Arc::clone(&shared), rest, eof: false, exit: None };
        (Self { writer: Writer { shared: Arc::clone(&shared) }, reader }, sender, shared)
    }

    /// Asks the host to start the command; a refusal comes out of the [`Reader`], which saves a round trip.
    pub(super) async fn start(&self, environment: &[(String, String)], command: &str) -> Result<()> {
        let Some(half) = self.writer.shared.half.ours() else { return Ok(()) };
        for (name, value) in environment {
            // Whether sshd takes it (AcceptEnv) is not asked for, as OpenSSH does.
            self.writer.hand_over(half.set_env(false, name.as_str(), value.as_str())).await?;
        }
        self.writer.hand_over(half.exec(true, command)).await
    }

    /// The two directions, to be used side by side.
    pub fn split(self) -> (Writer, Reader) {
        (self.writer, self.reader)
    }

    /// The next chunk of output; see [`Reader::recv`].
    ///
    /// # Errors
    /// As [`Reader::recv`].
    pub async fn recv(&mut self) -> Result<Option<Chunk>> {
        self.reader.recv().await
    }

    /// Gives chunks back that were read, for whoever reads next, before all that still comes.
    pub fn give_back(&mut self, chunks: Vec<Chunk>) {
        let items = chunks.into_iter().map(|chunk| match chunk {
            Chunk::Stdout(bytes) => Item::Stdout(bytes),
            Chunk::Stderr(bytes) => Item::Stderr(bytes),
            Chunk::Exit(exit) => Item::Exit(exit),
        });
        self.reader.returned.extend(items);
    }

    /// Asks sshd to kill the command, as far as its processes are the login user's own; the user's own ssh cannot be asked.
    pub async fn kill(&self) {
        if let Some(half) = self.writer.shared.half.ours() {
            let _ = self.writer.hand_over(half.signal(Sig::KILL)).await;
        }
    }

    /// Sends input; see [`Writer::send`].
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.writer.send(bytes).await
    }

    /// Ends the input; see [`Writer::finish`].
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub async fn finish(&mut self) -> Result<()> {
        self.writer.finish().await
    }
}

/// Empties russh's queue until the channel ends or nobody reads any more. Never waits for a reader.
async fn pump(mut read: ChannelReadHalf, items: mpsc::UnboundedSender<Item>, shared: Arc<Shared>) {
    let mut exit = None;
    loop {
        let message = tokio::select! {
            message = read.wait() => message,
            () = items.closed() => {
                close(&shared).await;
                break;
            }
        };
        let item = match message {
            Some(ChannelMsg::Data { data }) => Item::Stdout(data),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                shared.keep_tail(&data);
                Item::Stderr(data)
            }
            Some(ChannelMsg::Eof) => Item::Eof,
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                exit = Some(Exit::Status(exit_status));
                continue;
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                exit = Some(Exit::Signal(signal(signal_name)));
                continue;
            }
            Some(ChannelMsg::Failure) => {
                let _ = items.send(Item::Broken(Broken::Refused));
                close(&shared).await;
                break;
            }
            Some(ChannelMsg::Close) => {
                if let Some(exit) = exit {
                    let _ = items.send(Item::Exit(exit));
                }
                break;
            }
            None => {
                let _ = items.send(Item::Broken(Broken::Lost));
                break;
            }
            Some(_) => continue,
        };
        let weight = weight(&item);
        if shared.queued.fetch_add(weight, Ordering::AcqRel) + weight > QUEUED {
            let _ = items.send(Item::Broken(Broken::Overflow));
            close(&shared).await;
            break;
        }
        let _ = items.send(item);
    }
    shared.ended.send_replace(true);
}

/// Tells the host that the channel is over; the connection's task may be busy, but not for ever.
async fn close(shared: &Shared) {
    let _ = tokio::time::timeout(HAND_OVER, shared.half.close()).await;
}

/// What an item counts for; the last item of a channel is not counted, so that it always fits.
pub(super) fn weight(item: &Item) -> usize {
    match item {
        Item::Stdout(bytes) | Item::Stderr(bytes) => bytes.len() + MESSAGE,
        Item::Eof | Item::Exit(_) | Item::Broken(_) => 0,
    }
}

fn signal(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name.chars().filter(|c| !c.is_control()).take(20).collect(),
        known => format!("{known:?}"),
    }
}

/// Why input could not be sent.
pub(super) enum Unsent {
    /// The command ended first.
    Ended,
    /// Something went wrong.
    Failed(Failure),
}

/// The input of a command.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    /// Sends input. Returns when russh has taken all of it, at most about 2 MiB before the host has it.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost; [`Kind::Host`] when the command ended before it took all, or took
    /// nothing for two minutes.
    pub async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.try_send(bytes).await.map_err(|unsent| match unsent {
            Unsent::Failed(failure) => failure,
            Unsent::Ended => {
                let sentence = format!("{} ended before it took all of its input", self.shared.what);
                self.shared.failure(Kind::Host, sentence)
            }
        })
    }

    /// Sends input to a command that need not want it: `false` when it ended before it took all.
    ///
    /// # Errors
    /// As [`Writer::send`], but for the end of the command.
    pub async fn offer(&mut self, bytes: Bytes) -> Result<bool> {
        match self.try_send(bytes).await {
            Ok(()) => Ok(true),
            Err(Unsent::Ended) => Ok(false),
            Err(Unsent::Failed(failure)) => Err(failure),
        }
    }

    pub(super) async fn try_send(&mut self, mut bytes: Bytes) -> Result<(), Unsent> {
        let shared = &self.shared;
        let mut ended = shared.ended.subscribe();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            // The end of the link is looked at first: russh waits for ever for the window of a channel that is gone.
            let sent = tokio::select! {
                biased;
                reason = lost(&shared.lost) => return Err(Unsent::Failed(shared.lost_failure(&reason.0))),
                _ = ended.wait_for(|&ended| ended) => return Err(Unsent::Ended),
                sent = tokio::time::timeout(STALL, shared.half.data_bytes(piece)) => sent,
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Unsent::Failed(self.not_handed_over(&error).await)),
                Err(_) => {
                    let sentence = format!("{} took no input for {} seconds", shared.what, STALL.as_secs());
                    let failure = shared.failure(Kind::Host, sentence).may_pass();
                    return Err(Unsent::Failed(failure.advise("check the host's load and its disks")));
                }
            }
        }
        Ok(())
    }

    /// Ends the input: the command reads end of file. What it prints still comes.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost. A command that has ended already is no error.
    pub async fn finish(&mut self) -> Result<()> {
        if *self.shared.ended.borrow() {
            return Ok(());
        }
        self.hand_over(self.shared.half.eof()).await
    }

    pub(super) async fn hand_over(
        &self,
        request: impl Future<Output = std::result::Result<(), russh::Error>>,
    ) -> Result<()> {
        match tokio::time::timeout(HAND_OVER, request).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.not_handed_over(&error).await),
            Err(_) => {
                let sentence = format!("the connection stands still before {}", self.shared.what);
                Err(self.shared.failure(Kind::Connection, sentence).may_pass())
            }
        }
    }

    /// The failure of a request that the connection's task did not take: the connection has ended, and says why soon.
    async fn not_handed_over(&self, error: &russh::Error) -> Failure {
        match tokio::time::timeout(Duration::from_secs(1), lost(&self.shared.lost)).await {
            Ok(reason) => self.shared.lost_failure(&reason.0),
            Err(_) => self.shared.lost_failure(&error.to_string()),
        }
    }
}

/// The output of a command: chunks by [`Reader::recv`], or standard output alone as [`AsyncRead`].
#[derive(Debug)]
pub struct Reader {
    /// What was read and given back.
    returned: VecDeque<Item>,
    items: mpsc::UnboundedReceiver<Item>,
    shared: Arc<Shared>,
    rest: Bytes,
    eof: bool,
    exit: Option<Exit>,
}

impl Reader {
    /// The next chunk; `None` after the last one. A command that ends without telling how has no [`Chunk::Exit`].
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost, [`Kind::Host`] when the host refused to start the command or sent
    /// more than 64 MiB that nobody read.
    pub async fn recv(&mut self) -> Result<Option<Chunk>> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    /// Reads on to the end, passing over what comes; how the command ended, if it told.
    ///
    /// # Errors
    /// As [`Reader::recv`].
    pub async fn exit(&mut self) -> Result<Option<Exit>> {
        while self.exit.is_none() {
            match self.recv().await? {
                Some(Chunk::Exit(exit)) => self.exit = Some(exit),
                Some(_) => {}
                None => break,
            }
        }
        Ok(self.exit.clone())
    }

    /// The last 64 KiB of standard error so far, also of what was read as chunks; untrusted.
    pub fn stderr_tail(&self) -> String {
        self.shared.stderr_tail()
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Chunk>>> {
        loop {
            return Poll::Ready(match ready!(self.poll_item(context)) {
                Some(Item::Stdout(bytes)) => Ok(Some(Chunk::Stdout(bytes))),
                Some(Item::Stderr(bytes)) => Ok(Some(Chunk::Stderr(bytes))),
                Some(Item::Exit(exit)) => Ok(Some(Chunk::Exit(exit))),
                Some(Item::Eof) => continue,
                Some(Item::Broken(broken)) => Err(self.broken(broken)),
                None => Ok(None),
            });
        }
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(item) = self.returned.pop_front() {
            return Poll::Ready(Some(item));
        }
        let item = ready!(self.items.poll_recv(context));
        if let Some(item) = &item {
            self.shared.queued.fetch_sub(weight(item), Ordering::AcqRel);
        }
        Poll::Ready(item)
    }

    fn broken(&self, broken: Broken) -> Failure {
        let (shared, what) = (&self.shared, &self.shared.what);
        match broken {
            Broken::Refused => shared
                .failure(Kind::Host, format!("sshd refused to start {what}"))
                .advise("check ForceCommand and the login shell of the user on the host"),
            Broken::Openssh => openssh::explained(&shared.stderr_tail())
                .unwrap_or_else(|| Failure::new(Kind::Connection, "ssh has no connection to the host"))
                .on(&shared.host),
            Broken::Overflow => shared.failure(Kind::Host, format!("{what} sends more than can be taken")),
            Broken::Lost => {
                let reason = shared.lost.borrow().clone();
                shared.lost_failure(&reason.map_or_else(|| "the connection was closed".to_owned(), |lost| lost.0))
            }
        }
    }
}

impl AsyncRead for Reader {
    /// Standard output; standard error is passed over (see [`Reader::stderr_tail`]), the exit is kept for
    /// [`Reader::exit`]. A lost link is an error, never an end of file; the error's inner one is the [`Failure`].
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.eof {
            match ready!(self.poll_item(context)) {
                Some(Item::Stdout(bytes)) => self.rest = bytes,
                Some(Item::Stderr(_)) => {}
                Some(Item::Exit(exit)) => self.exit = Some(exit),
                Some(Item::Eof) | None => self.eof = true,
                Some(Item::Broken(broken)) => return Poll::Ready(Err(io::Error::other(self.broken(broken)))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}
