//! A connection that is logged in: commands, tunnels, and the news when it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use russh::client::{Handle, Msg};
use russh::{ChannelOpenFailure, Disconnect};

use crate::failure::{Failure, Kind, Result};

use super::backoff::Backoff;
use super::channel::{Channel, Chunk, Exit, Output, Unsent};
use super::deadline::Deadline;
use super::dial::{Dialled, Refusal, dial};
use super::login::{Sources, log_in};
use super::target::{Prompt, Target};
use super::tunnel::Tunnel;
use super::watcher::{LostReceiver, Watcher, lost};

/// Opening a channel is one round trip; a host that needs longer is overloaded or stopped.
const OPEN: Duration = Duration::from_secs(30);
/// Saying goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Standard output that [`Connection::run`] keeps.
const OUTPUT: usize = 16 << 20;

/// Connects to a host and logs in, within the target's limit.
///
/// A server that is too busy to greet (sshd's MaxStartups) is tried again with growing pauses; nothing else is.
///
/// # Errors
/// [`Kind::Connection`] for an address that is not found, a refused port, no route, silence, something that is not SSH;
/// [`Kind::HostKey`] for a host key that is unknown, changed or revoked; [`Kind::Authentication`] when no key and no
/// password was accepted, with what was tried. All name the host and carry advice.
pub async fn connect(target: &Target, prompts: &dyn Prompt) -> Result<Connection> {
    connect_with(target, prompts, &Sources::of_environment()).await
}

pub(super) async fn connect_with(target: &Target, prompts: &dyn Prompt, sources: &Sources) -> Result<Connection> {
    let target = Arc::new(target.clone());
    let mut deadline = Deadline::new(target.connect_limit);
    let mut backoff = Backoff::default();
    loop {
        let failure = match attempt(&target, prompts, sources, &mut deadline).await {
            Ok(connection) => return Ok(connection),
            Err(Refusal::Final(failure)) => return Err(failure),
            Err(Refusal::Busy(failure)) => failure,
        };
        if !backoff.wait(deadline.remaining()).await {
            let (attempts, seconds) = (backoff.attempts(), deadline.limit().as_secs());
            return Err(failure.caused_by(format!("so it went {attempts} times within {seconds} seconds")));
        }
    }
}

async fn attempt(
    target: &Arc<Target>,
    prompts: &dyn Prompt,
    sources: &Sources,
    deadline: &mut Deadline,
) -> Result<Connection, Refusal> {
    let mut dialled = dial(target, deadline, prompts, sources).await?;
    log_in(&mut dialled, target, prompts, deadline, sources).await?;
    Ok(Connection::new(Arc::clone(target), dialled))
}

/// A connection to one host. Cheap to clone; it ends when the last clone and the last channel are dropped, or with
/// [`Connection::close`].
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    target: Arc<Target>,
    handle: Handle<Watcher>,
    /// What it goes through must live as long.
    _bastion: Option<Connection>,
    lost: LostReceiver,
    closing: AtomicBool,
    round_trip: Duration,
    server_version: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("host", &self.0.target.name)
            .field("place", &self.0.target.place())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn new(target: Arc<Target>, dialled: Dialled) -> Self {
        let Dialled { handle, lost, round_trip, server_version, bastion: _bastion, banner: _ } = dialled;
        let closing = AtomicBool::new(false);
        Self(Arc::new(Inner { target, handle, _bastion, lost, closing, round_trip, server_version }))
    }

    /// The host's name in the inventory.
    pub fn host(&self) -> &str {
        &self.0.target.name
    }

    /// The time of one round trip, measured when the connection was made.
    pub fn round_trip(&self) -> Duration {
        self.0.round_trip
    }

    /// The time of one round trip through the connection now: the least of three, or the first one that is below `enough`.
    /// Behind a forwarder the connection's own [`Connection::round_trip`] is that to the forwarder.
    pub async fn ping(&self, enough: Duration) -> Duration {
        let mut least = OPEN;
        for _ in 0..3 {
            let began = Instant::now();
            // A connection that is lost answers at once; whoever uses it next is told why.
            if !matches!(tokio::time::timeout(OPEN, self.0.handle.send_ping()).await, Ok(Ok(()))) {
                break;
            }
            least = least.min(began.elapsed());
            if least < enough {
                break;
            }
        }
        least
    }

    /// The server's software, `OpenSSH_9.2p1 Debian-2`; untrusted.
    pub fn server_version(&self) -> String {
        self.0.server_version.clone()
    }

    /// Starts a command; the host hands it to the user's login shell. One round trip.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost or the host opens no more channels.
    pub async fn exec(&self, command: &str) -> Result<Channel> {
        let shown: String = command.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let what = format!("the command \"{shown}{}\"", if command.chars().count() > 60 { "..." } else { "" });
        let opened = self.open(&what, self.0.handle.channel_open_session()).await?;
        let opened = opened.map_err(|refusal| {
            self.failure(format!("sshd opens no channel for {what}"))
                .caused_by(format!("{refusal:?}"))
                .advise("raise MaxSessions in the host's sshd_config")
        })?;
        let channel = Channel::new(opened, &self.0.target.name, what, self.0.lost.clone());
        channel.start(&self.0.target.environment, command).await?;
        Ok(channel)
    }

    /// Runs a command to its end: gives it `input`, takes its output.
    ///
    /// A status other than 0 is a result, not an error, and so is input that the command did not want.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost; [`Kind::Host`] when the command takes longer than `limit`, prints
    /// more than 16 MiB, or ends without a status.
    pub async fn run(&self, command: &str, input: Bytes, limit: Duration) -> Result<Output> {
        let (mut writer, mut reader) = self.exec(command).await?.split();
        let feeding = async {
            match writer.try_send(input).await {
                Ok(()) => writer.finish().await,
                Err(Unsent::Ended) => Ok(()),
                Err(Unsent::Failed(failure)) => Err(failure),
            }
        };
        let taking = async {
            let (mut stdout, mut status) = (BytesMut::new(), None::<Exit>);
            while let Some(chunk) = reader.recv().await? {
                match chunk {
                    Chunk::Stdout(bytes) if stdout.len() + bytes.len() > OUTPUT => {
                        let sentence = format!("a command printed more than 16 MiB: {command}");
                        return Err(Failure::new(Kind::Host, sentence).on(self.host()));
                    }
                    Chunk::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                    Chunk::Stderr(_) => {}
                    Chunk::Exit(exit) => status = Some(exit),
                }
            }
            let stderr = reader.stderr_tail();
            let Some(status) = status else {
                let failure = Failure::new(Kind::Host, format!("a command ended without a status: {command}"));
                return Err(failure.on(self.host()).detailed(stderr));
            };
            Ok(Output { status, stdout: stdout.freeze(), stderr })
        };
        match tokio::time::timeout(limit, futures::future::try_join(feeding, taking)).await {
            Ok(result) => result.map(|((), output)| output),
            Err(_) => {
                let seconds = limit.as_secs_f32();
                let sentence = format!("a command did not end within {seconds} seconds: {command}");
                Err(Failure::new(Kind::Host, sentence).on(self.host()).may_pass().advise("check the host's load"))
            }
        }
    }

    /// A TCP stream from the host to `host:port` as the host sees them.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost, the host allows no forwarding, or nothing answers there.
    pub async fn direct_tcpip(&self, host: &str, port: u16) -> Result<Tunnel> {
        let what = format!("the tunnel to {host} port {port}");
        let opening = self.0.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let opened = self.open(&what, opening).await?.map_err(|refusal| match refusal {
            ChannelOpenFailure::AdministrativelyProhibited => self
                .failure("sshd allows no tunnel".to_owned())
                .caused_by(format!("while opening {what}"))
                .advise("set AllowTcpForwarding yes in the host's sshd_config"),
            _ => self.failure(format!("nothing answers at {host} port {port} on the host")).may_pass(),
        })?;
        let writer = Box::pin(opened.make_writer());
        let channel = Channel::new(opened, &self.0.target.name, what, self.0.lost.clone());
        let (_, reader) = channel.split();
        Ok(Tunnel::new(reader, writer))
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.handle.is_closed()
    }

    /// Resolves when the connection has ended, with the failure to report for whatever was under way.
    pub async fn closed(&self) -> Failure {
        let reason = lost(&self.0.lost).await;
        self.lost_failure(&reason.0)
    }

    /// Ends the connection and all its channels; waits two seconds at most.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        let goodbye = async {
            let _ = self.0.handle.disconnect(Disconnect::ByApplication, "", "").await;
            lost(&self.0.lost).await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    async fn open<F>(&self, what: &str, opening: F) -> Result<Result<russh::Channel<Msg>, ChannelOpenFailure>>
    where
        F: Future<Output = std::result::Result<russh::Channel<Msg>, russh::Error>>,
    {
        let opened = tokio::select! {
            biased;
            reason = lost(&self.0.lost) => return Err(self.lost_failure(&reason.0)),
            opened = tokio::time::timeout(OPEN, opening) => opened,
        };
        match opened {
            Ok(Ok(channel)) => Ok(Ok(channel)),
            Ok(Err(russh::Error::ChannelOpenFailure(refusal))) => Ok(Err(refusal)),
            Ok(Err(error)) => {
                let reason = tokio::time::timeout(Duration::from_secs(1), lost(&self.0.lost)).await;
                Err(self.lost_failure(&reason.map_or_else(|_| error.to_string(), |lost| lost.0)))
            }
            Err(_) => {
                let sentence = format!("the host opened no channel for {what} within {} seconds", OPEN.as_secs());
                Err(self.failure(sentence).may_pass().advise("check the load of the host"))
            }
        }
    }

    fn failure(&self, sentence: String) -> Failure {
        Failure::new(Kind::Connection, sentence).on(&self.0.target.name)
    }

    fn lost_failure(&self, reason: &str) -> Failure {
        let place = self.0.target.place();
        if self.0.closing.load(Ordering::Acquire) {
            return self.failure(format!("the connection to {place} was closed by clusterctl"));
        }
        self.failure(format!("the connection to {place} broke"))
            .caused_by(reason)
            .advise("check the host and the network, then run the same command again")
            .may_pass()
    }
}
