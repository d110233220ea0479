//! From a stream to a connection with agreed keys: greeting and key exchange, each with its own failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, Config, Handle};

use crate::failure::{Failure, Kind};

use super::connection::Connection;
use super::deadline::Deadline;
use super::link::{Greeting, Link};
use super::local::Complaint;
use super::login::Sources;
use super::proposal::{Proposal, proposal};
use super::target::{Prompt, Target};
use super::watcher::{Banner, LostReceiver, Stop, Watcher};
use super::wire::{Opened, Wire, open};

/// A write to the network that makes no progress for this long breaks the connection.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(60);
/// Messages russh keeps for a channel before it stops reading from the network for all channels. Our pumps empty the
/// queue at once, so this is only slack for a busy scheduler (crates.md section 2e.6).
const CHANNEL_MESSAGES: usize = 20_000;
/// Kinds of host key: ed25519, ECDSA, RSA.
const KINDS: usize = 3;

/// Why an attempt did not lead to a connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server is busy; it may take us a moment later.
    Busy(Failure),
    /// Another attempt would end the same way.
    Final(Failure),
}

impl Refusal {
    fn detailed(self, text: String) -> Self {
        match self {
            Self::Busy(failure) => Self::Busy(failure.detailed(text)),
            Self::Final(failure) => Self::Final(failure.detailed(text)),
        }
    }
}

/// A connection with agreed keys and a trusted host, not logged in yet.
pub(super) struct Dialled {
    /// russh's end.
    pub(super) handle: Handle<Watcher>,
    /// What the server shows before a login.
    pub(super) banner: Banner,
    /// Resolves when the connection ends.
    pub(super) lost: LostReceiver,
    /// About the time of one round trip.
    pub(super) round_trip: Duration,
    /// The server's software: `OpenSSH_9.2p1 Debian-2`.
    pub(super) server_version: String,
    /// The connection it goes through.
    pub(super) bastion: Option<Connection>,
}

/// Dials the target.
///
/// A pin does not say what kind of key it is of, and a host shows one kind at a time: a host that showed another key is
/// asked for those of the other kinds before it is refused.
pub(super) async fn dial(
    target: &Arc<Target>,
    deadline: &mut Deadline,
    prompts: &dyn Prompt,
    sources: &Sources,
) -> Result<Dialled, Refusal> {
    let mut first = None;
    let kinds = if target.host_key_pins.is_empty() { 1 } else { KINDS };
    for kind in 0..kinds {
        match dial_for(target, kind, deadline, prompts, sources).await {
            Err(Refusal::Final(failure)) if first.is_some() || failure.kind == Kind::HostKey => {
                let first = first.get_or_insert(failure);
                if kind + 1 == kinds {
                    return Err(Refusal::Final(first.clone()));
                }
            }
            ended => return ended,
        }
    }
    Err(Refusal::Final(Failure::new(Kind::Internal, "no kind of host key was asked for").on(&target.name)))
}

/// Dials the target, leaving out the first kinds of host key: ed25519, ECDSA.
async fn dial_for(
    target: &Arc<Target>,
    kind: usize,
    deadline: &mut Deadline,
    prompts: &dyn Prompt,
    sources: &Sources,
) -> Result<Dialled, Refusal> {
    let proposal = proposal(target).await.map_err(Refusal::Final)?.without(kind);
    let Opened { wire, bastion, complaint } = open(target, deadline, prompts, sources).await?;
    let deadline = deadline.capped(target.dial_limit);
    let link = Link::new(wire, WRITE_STALL, Wire::acknowledge);
    let beginning = link.beginning();
    let (watcher, banner, lost) = Watcher::new(Arc::clone(target));
    let began = Instant::now();
    match deadline.within(client::connect_stream(Arc::new(config(target, proposal)), link, watcher)).await {
        Some(Ok(handle)) => {
            let server_version = match beginning.greeting() {
                Greeting::Ssh(version) => version,
                _ => String::new(),
            };
            // Greetings and keys took two. TCP's own beginning may be answered by a forwarder that is near.
            let round_trip = began.elapsed() / 2;
            Ok(Dialled { handle, banner, lost, round_trip, server_version, bastion })
        }
        Some(Err(Stop::Refused(failure))) => Err(Refusal::Final(*failure)),
        Some(Err(Stop::Transport(error))) => {
            Err(said_by(complaint, explain(target, &beginning.greeting(), &error)).await)
        }
        None => {
            let refusal = Refusal::Final(silent(target, &beginning.greeting(), deadline.limit()));
            Err(said_by(complaint, refusal).await)
        }
    }
}

/// Adds what the ProxyCommand says.
async fn said_by(complaint: Option<Complaint>, refusal: Refusal) -> Refusal {
    match complaint {
        None => refusal,
        Some(complaint) => match complaint.text().await {
            said if said.is_empty() => refusal,
            said => refusal.detailed(said),
        },
    }
}

/// The failure of a handshake that broke off.
pub(super) fn explain(target: &Target, greeting: &Greeting, error: &russh::Error) -> Refusal {
    let place = target.place();
    let closed =
        matches!(error, russh::Error::Disconnect | russh::Error::HUP | russh::Error::IO(_) | russh::Error::Join(_));
    let busy_advice = "try again later, or raise MaxStartups in the host's sshd_config";
    match (greeting, error) {
        (Greeting::Busy(said), _) => Refusal::Busy(
            unreachable(target, format!("sshd at {place} takes no connection now")).caused_by(said).advise(busy_advice),
        ),
        (Greeting::Other(said), _) => Refusal::Final(
            Failure::new(Kind::Connection, format!("what answers at {place} is not SSH: it says \"{said}\""))
                .on(&target.name)
                .advise("correct the host's address or port in the inventory"),
        ),
        (Greeting::Nothing, _) if closed => Refusal::Busy(
            unreachable(target, format!("{place} closes the connection before sshd's greeting"))
                .because(error)
                .advise(busy_advice),
        ),
        (_, russh::Error::NoCommonAlgo { kind, theirs, .. }) => Refusal::Final(
            Failure::new(Kind::Connection, format!("{place} and clusterctl share no {kind:?} algorithm"))
                .on(&target.name)
                .caused_by(format!("the host offers {}", theirs.join(", ")))
                .advise("update sshd on the host, or loosen its sshd_config"),
        ),
        (_, russh::Error::WrongServerSig) => Refusal::Final(
            Failure::new(Kind::HostKey, format!("{place} does not hold the host key it shows"))
                .on(&target.name)
                .advise("find out who answers at this address before anything else"),
        ),
        _ if closed => Refusal::Busy(
            unreachable(target, format!("{place} closes the connection during the key exchange"))
                .because(error)
                .advise("read sshd's log on the host (journalctl -u ssh)"),
        ),
        _ => Refusal::Final(
            unreachable(target, format!("the key exchange with {place} failed"))
                .because(error)
                .advise("read sshd's log on the host (journalctl -u ssh)"),
        ),
    }
}

/// The failure of a handshake that took too long.
pub(super) fn silent(target: &Target, greeting: &Greeting, limit: Duration) -> Failure {
    let (place, seconds) = (target.place(), limit.as_secs());
    let sentence = match greeting {
        Greeting::Ssh(_) => format!("the key exchange with {place} did not end within {seconds} seconds"),
        Greeting::Nothing => format!("{place} took the connection but sent no SSH greeting within {seconds} seconds"),
        Greeting::Busy(said) | Greeting::Other(said) => {
            format!("{place} sent no SSH greeting within {seconds} seconds, only \"{said}\"")
        }
    };
    unreachable(target, sentence).advise("check that sshd answers at this port and that the host is not overloaded")
}

fn unreachable(target: &Target, sentence: String) -> Failure {
    Failure::new(Kind::Connection, sentence).on(&target.name).may_pass()
}

/// What russh works with.
pub(super) fn config(target: &Target, proposal: Proposal) -> Config {
    let (interval, count) = target.keepalive;
    Config {
        nodelay: true,
        keepalive_interval: Some(interval),
        keepalive_max: count,
        channel_buffer_size: CHANNEL_MESSAGES,
        preferred: proposal.0,
        ..Config::default()
    }
}
