//! A connection that is logged in: commands, tunnels, and the news when it breaks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use russh::client::{Handle, Msg};
use russh::{ChannelOpenFailure, Disconnect};

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Host;

use super::backoff::Backoff;
use super::channel::Channel;
use super::deadline::Deadline;
use super::dial::{Dialled, Refusal, dial};
use super::login::{Sources, log_in};
use super::openssh::Openssh;
use super::output::{Chunk, Exit, Output};
use super::revival::Revival;
use super::target::{Prompt, Target};
use super::terminal::Terminal;
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

/// As [`connect`]; when the link is lost later, whatever needs the connection next makes it again, within a limit and
/// until `cancel` asks for the end.
///
/// # Errors
/// As [`connect`].
pub async fn connect_lasting(target: &Target, prompts: Arc<dyn Prompt>, cancel: &Cancel) -> Result<Connection> {
    connect_lasting_with(target, prompts, &Sources::of_environment(), cancel).await
}

pub(super) async fn connect_lasting_with(
    target: &Target,
    prompts: Arc<dyn Prompt>,
    sources: &Sources,
    cancel: &Cancel,
) -> Result<Connection> {
    let connection = connect_with(target, prompts.as_ref(), sources).await?;
    let Some(life) = connection.life() else { return Ok(connection) };
    let again = Some(Revival::new(target, prompts, sources, cancel));
    let target = Arc::clone(&connection.0.target);
    Ok(Connection::by(target, Way::Ours { life: Mutex::new(life), again }))
}

/// Whether two times are the same, give or take a quarter.
fn agree(one: Duration, other: Duration) -> bool {
    one.max(other) <= one.min(other).saturating_mul(5) / 4
}

/// A connection that the user's own `ssh` makes, with a process for each channel; nothing is connected yet.
///
/// # Errors
/// [`Kind::Configuration`] for what the inventory says and `ssh` cannot be told.
pub fn by_openssh(host: &Host) -> Result<Connection> {
    let mut target = Target::plain(&host.name, &host.address);
    (target.port, target.user) = (host.ssh.port, host.ssh.user.clone());
    Ok(Connection::by(Arc::new(target), Way::Openssh(Openssh::new(host)?)))
}

/// A connection to one host. Cheap to clone; it ends when the last clone and the last channel are dropped, or with
/// [`Connection::close`].
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    target: Arc<Target>,
    closing: AtomicBool,
    way: Way,
}

/// Who makes the connection.
enum Way {
    /// We.
    Ours {
        /// The link there is, or that was lost last.
        life: Mutex<Arc<Life>>,
        /// Where it is to last.
        again: Option<Revival>,
    },
    /// The user's own ssh, anew for each channel.
    Openssh(Openssh),
}

/// One link, from its login to its end.
struct Life {
    handle: Handle<Watcher>,
    /// What it goes through must live as long.
    _bastion: Option<Connection>,
    lost: LostReceiver,
    round_trip: Duration,
    /// The shortest time that opening a channel took, in microseconds: a round trip to sshd, also behind a forwarder.
    shortest: AtomicU64,
    /// Whether that was found to be true.
    confirmed: AtomicBool,
    /// A session that was opened ahead; locked while it is being opened.
    spare: tokio::sync::Mutex<Option<russh::Channel<Msg>>>,
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
        let (shortest, confirmed, spare) =
            (AtomicU64::new(u64::MAX), AtomicBool::new(false), tokio::sync::Mutex::default());
        let life = Life { handle, _bastion, lost, round_trip, shortest, confirmed, spare, server_version };
        Self::by(target, Way::Ours { life: Mutex::new(Arc::new(life)), again: None })
    }

    fn by(target: Arc<Target>, way: Way) -> Self {
        Self(Arc::new(Inner { target, closing: AtomicBool::new(false), way }))
    }

    /// The link there is, where it is ours.
    fn life(&self) -> Option<Arc<Life>> {
        match &self.0.way {
            Way::Ours { life, .. } => Some(Arc::clone(&life.lock().unwrap_or_else(PoisonError::into_inner))),
            Way::Openssh(_) => None,
        }
    }

    /// The link to use: the one that is there, or a new one where the connection is to last. One that cannot be made
    /// again stays lost, and says so to whoever uses it.
    async fn living(&self, held: &Mutex<Arc<Life>>, again: Option<&Revival>) -> Result<Arc<Life>> {
        let current = || Arc::clone(&held.lock().unwrap_or_else(PoisonError::into_inner));
        let life = current();
        let Some(revival) = again.filter(|_| life.handle.is_closed()) else { return Ok(life) };
        // All who need it wait for one attempt.
        let mut turn = revival.turn().await;
        let life = current();
        if !life.handle.is_closed() || self.0.closing.load(Ordering::Acquire) || turn.exhausted() {
            return Ok(life);
        }
        let reason = lost(&life.lost).await;
        let made = turn.connect(&self.0.target).await;
        let made = made.map_err(|failure| failure.caused_by(format!("the connection broke before: {}", reason.0)))?;
        let life = made.life().unwrap_or(life);
        *held.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&life);
        Ok(life)
    }

    /// The host's name in the inventory.
    pub fn host(&self) -> &str {
        &self.0.target.name
    }

    /// About the time of one round trip, as it was when the connection was made; a host that is busy makes it longer. Zero where it
    /// is not known, because the user's own ssh makes the connection.
    pub fn round_trip(&self) -> Duration {
        self.life().map_or(Duration::ZERO, |life| life.round_trip)
    }

    /// The shortest time that opening a channel took so far: at least one round trip through the connection. Zero where it is
    /// not known, because the user's own ssh makes the connection.
    pub fn shortest(&self) -> Duration {
        self.life().map_or(Duration::ZERO, |life| Duration::from_micros(life.shortest.load(Ordering::Relaxed)))
    }

    /// The time of one round trip through the connection, or the first time that is below `enough`. What makes one look
    /// longer, a host that is busy, does so by chance: two times that agree are believed, from then on, else the least of four.
    /// Zero where it is not known, because the user's own ssh makes the connection.
    pub async fn ping(&self, enough: Duration) -> Duration {
        let Some(life) = self.life() else { return Duration::ZERO };
        let mut least = self.shortest();
        for _ in 0..3 {
            if least < enough || life.confirmed.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            // A connection that is lost answers at once; whoever uses it next is told why.
            if !matches!(tokio::time::timeout(OPEN, life.handle.send_ping()).await, Ok(Ok(()))) {
                break;
            }
            let (before, now) = (least, began.elapsed());
            least = before.min(now);
            life.shortest.fetch_min(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            if agree(before, now) {
                life.confirmed.store(true, Ordering::Relaxed);
            }
        }
        least.min(OPEN)
    }

    /// The server's software, `OpenSSH_9.2p1 Debian-2`; untrusted.
    pub fn server_version(&self) -> String {
        self.life().map_or_else(String::new, |life| life.server_version.clone())
    }

    /// Starts a command; the host hands it to the user's login shell. One round trip.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the link is lost or the host opens no more channels.
    pub async fn exec(&self, command: &str) -> Result<Channel> {
        let what = described(command);
        let (life, again) = match &self.0.way {
            Way::Ours { life, again } => (life, again.as_ref()),
            Way::Openssh(openssh) => return openssh.exec(what, command).await,
        };
        let life = self.living(life, again).await?;
        let channel = self.session(&life, what).await?;
        channel.start(&self.0.target.environment, command).await?;
        Ok(channel)
    }

    /// Starts a command, or the user's login shell where none is named, on a terminal of its own on the host.
    ///
    /// # Errors
    /// As [`Connection::exec`].
    pub async fn terminal(&self, terminal: &Terminal, command: Option<&str>) -> Result<Channel> {
        let what = command.map_or_else(|| "the login shell".to_owned(), described);
        let (life, again) = match &self.0.way {
            Way::Ours { life, again } => (life, again.as_ref()),
            Way::Openssh(openssh) => return openssh.terminal(what, terminal, command).await,
        };
        let life = self.living(life, again).await?;
        let channel = self.session(&life, what).await?;
        channel.start_on(terminal, &self.0.target.environment, command).await?;
        Ok(channel)
    }

    /// Opens a session for the next command that will be started, which then takes no round trip to start. Where the host
    /// opens none, that command is told.
    pub async fn open_ahead(&self) {
        let Some(life) = self.life() else { return };
        let mut spare = life.spare.lock().await;
        if spare.is_some() {
            return;
        }
        if let Ok(Ok(opened)) = self.open(&life, "the next command", life.handle.channel_open_session()).await {
            *spare = Some(opened);
        }
    }

    async fn session(&self, life: &Life, what: String) -> Result<Channel> {
        if let Some(spare) = life.spare.lock().await.take() {
            return Ok(Channel::new(spare, &self.0.target.name, what, life.lost.clone()));
        }
        let began = Instant::now();
        let opened = self.open(life, &what, life.handle.channel_open_session()).await?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        life.shortest.fetch_min(took, Ordering::Relaxed);
        let opened = opened.map_err(|refusal| {
            self.failure(format!("sshd opens no channel for {what}"))
                .caused_by(format!("{refusal:?}"))
                .advise("raise MaxSessions in the host's sshd_config")
        })?;
        Ok(Channel::new(opened, &self.0.target.name, what, life.lost.clone()))
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
            match writer.offer(input).await? {
                true => writer.finish().await,
                false => Ok(()),
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
        let (life, again) = match &self.0.way {
            Way::Ours { life, again } => (life, again.as_ref()),
            Way::Openssh(openssh) => return openssh.stream(what, host, port).await,
        };
        let life = self.living(life, again).await?;
        let opening = life.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let opened = self.open(&life, &what, opening).await?.map_err(|refusal| match refusal {
            ChannelOpenFailure::AdministrativelyProhibited => self
                .failure("sshd allows no tunnel".to_owned())
                .caused_by(format!("while opening {what}"))
                .advise("set AllowTcpForwarding yes in the host's sshd_config"),
            _ => self.failure(format!("nothing answers at {host} port {port} on the host")).may_pass(),
        })?;
        let writer = Box::pin(opened.make_writer());
        let channel = Channel::new(opened, &self.0.target.name, what, life.lost.clone());
        let (_, reader) = channel.split();
        Ok(Tunnel::new(reader, writer))
    }

    /// Whether all commands of this connection are children of one sshd on the host, as those of a later command are.
    pub fn finds_its_commands(&self) -> bool {
        matches!(self.0.way, Way::Ours { .. })
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match self.life() {
            Some(life) => life.handle.is_closed(),
            None => self.0.closing.load(Ordering::Acquire),
        }
    }

    /// Resolves when the connection has ended (one by the user's own ssh never does), with the failure to report for whatever was under way.
    pub async fn closed(&self) -> Failure {
        let Some(life) = self.life() else { return std::future::pending().await };
        let reason = lost(&life.lost).await;
        self.lost_failure(&reason.0)
    }

    /// Ends the connection and all its channels; waits two seconds at most.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        let Some(life) = self.life() else { return };
        let goodbye = async {
            let _ = life.handle.disconnect(Disconnect::ByApplication, "", "").await;
            lost(&life.lost).await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    async fn open<F>(
        &self,
        life: &Life,
        what: &str,
        opening: F,
    ) -> Result<Result<russh::Channel<Msg>, ChannelOpenFailure>>
    where
        F: Future<Output = std::result::Result<russh::Channel<Msg>, russh::Error>>,
    {
        let opened = tokio::select! {
            biased;
            reason = lost(&life.lost) => return Err(self.lost_failure(&reason.0)),
            opened = tokio::time::timeout(OPEN, opening) => opened,
        };
        match opened {
            Ok(Ok(channel)) => Ok(Ok(channel)),
            Ok(Err(russh::Error::ChannelOpenFailure(refusal))) => Ok(Err(refusal)),
            Ok(Err(error)) => {
                let reason = tokio::time::timeout(Duration::from_secs(1), lost(&life.lost)).await;
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

/// A command in a sentence: `the command "true"`.
fn described(command: &str) -> String {
    let shown: String = command.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("the command \"{shown}{}\"", if command.chars().count() > 60 { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::agree;

    #[rstest]
    #[case(50, 50, true)]
    #[case(50, 62, true)]
    #[case(62, 50, true)]
    #[case(50, 63, false)]
    #[case(u64::MAX, 50, false)]
    fn times_that_differ_by_a_quarter_are_the_same(#[case] one: u64, #[case] other: u64, #[case] expected: bool) {
        assert_eq!(agree(Duration::from_millis(one), Duration::from_millis(other)), expected);
    }
}
