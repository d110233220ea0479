//! From a name to a connection with agreed keys: name service, TCP, greeting, key exchange, each with its own failure.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, Config, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher};
use tokio::net::TcpStream;

use crate::failure::{Failure, Kind};

use super::deadline::Deadline;
use super::known_hosts;
use super::link::{Greeting, Link, acknowledge};
use super::target::Target;
use super::watcher::{Banner, LostReceiver, Stop, Watcher};

/// A write to the network that makes no progress for this long breaks the connection.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// A silent host is asked whether it lives this often...
const KEEPALIVE: Duration = Duration::from_secs(15);
/// ...and given up after so many questions without an answer.
const KEEPALIVES: usize = 3;
/// Messages russh keeps for a channel before it stops reading from the network for all channels. Our pumps empty the
/// queue at once, so this is only slack for a busy scheduler (crates.md section 2e.6).
const CHANNEL_MESSAGES: usize = 20_000;

/// Why an attempt did not lead to a connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server is busy; it may take us a moment later.
    Busy(Failure),
    /// Another attempt would end the same way.
    Final(Failure),
}

/// A connection with agreed keys and a trusted host, not logged in yet.
pub(super) struct Dialled {
    /// russh's end.
    pub(super) handle: Handle<Watcher>,
    /// What the server shows before a login.
    pub(super) banner: Banner,
    /// Resolves when the connection ends.
    pub(super) lost: LostReceiver,
    /// Time of one round trip, measured by TCP's handshake.
    pub(super) round_trip: Duration,
    /// The server's software: `OpenSSH_9.2p1 Debian-2`.
    pub(super) server_version: String,
}

/// Dials the target.
pub(super) async fn dial(target: &Arc<Target>, deadline: &Deadline) -> Result<Dialled, Refusal> {
    let addresses = resolve(target, deadline).await.map_err(Refusal::Final)?;
    let (stream, round_trip) = reach(target, &addresses, deadline).await.map_err(Refusal::Final)?;
    // Without it each request waits 40 ms for an acknowledgement (crates.md section 2a).
    stream.set_nodelay(true).map_err(|error| {
        Refusal::Final(
            unreachable(target, format!("cannot set up the connection to {}", target.place())).because(&error),
        )
    })?;

    let link = Link::new(stream, WRITE_STALL, acknowledge);
    let beginning = link.beginning();
    let (watcher, banner, lost) = Watcher::new(Arc::clone(target));
    let config = Arc::new(config(known_algorithms(target).await));
    match deadline.within(client::connect_stream(config, link, watcher)).await {
        Some(Ok(handle)) => {
            let server_version = match beginning.greeting() {
                Greeting::Ssh(version) => version,
                _ => String::new(),
            };
            Ok(Dialled { handle, banner, lost, round_trip, server_version })
        }
        Some(Err(Stop::Refused(failure))) => Err(Refusal::Final(*failure)),
        Some(Err(Stop::Transport(error))) => Err(explain(target, &beginning.greeting(), &error)),
        None => Err(Refusal::Final(silent(target, &beginning.greeting(), deadline.limit()))),
    }
}

async fn resolve(target: &Target, deadline: &Deadline) -> Result<Vec<SocketAddr>, Failure> {
    let unknown = || {
        unreachable(target, format!("cannot find the address of {}", target.address))
            .advise("correct the host's address in the inventory, or the name service")
    };
    match deadline.within(tokio::net::lookup_host((target.address.as_str(), target.port))).await {
        Some(Ok(found)) => {
            let addresses: Vec<SocketAddr> = found.collect();
            if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
        }
        Some(Err(error)) => Err(unknown().because(&error)),
        None => Err(unknown().caused_by(format!("no answer within {} seconds", deadline.limit().as_secs()))),
    }
}

/// Connects to the first address that answers; each may use its share of what time is left.
async fn reach(
    target: &Target,
    addresses: &[SocketAddr],
    deadline: &Deadline,
) -> Result<(TcpStream, Duration), Failure> {
    let mut last = None;
    for (index, address) in addresses.iter().enumerate() {
        let share = deadline.remaining() / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let began = Instant::now();
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, began.elapsed())),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = last.or_else(|| Some(io::ErrorKind::TimedOut.into())),
        }
    }
    Err(not_reached(target, &last.unwrap_or_else(|| io::ErrorKind::TimedOut.into()), deadline.limit()))
}

/// The failure of a TCP connection that did not come about.
fn not_reached(target: &Target, error: &io::Error, limit: Duration) -> Failure {
    let place = target.place();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => unreachable(target, format!("{place} refuses connections"))
            .advise("start sshd on the host, or correct its address or port in the inventory"),
        io::ErrorKind::TimedOut => {
            unreachable(target, format!("{place} does not answer within {} seconds", limit.as_secs()))
                .advise("check that the host is running, its address and port in the inventory, and firewalls between")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            unreachable(target, format!("there is no route to {place}"))
                .because(error)
                .advise("check that the host is running, its address in the inventory, and this machine's network")
        }
        _ => unreachable(target, format!("cannot connect to {place}"))
            .because(error)
            .advise("check the host's address and port in the inventory"),
    }
}

/// The failure of a handshake that broke off.
fn explain(target: &Target, greeting: &Greeting, error: &russh::Error) -> Refusal {
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
fn silent(target: &Target, greeting: &Greeting, limit: Duration) -> Failure {
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

async fn known_algorithms(target: &Arc<Target>) -> Vec<String> {
    let target = Arc::clone(target);
    let reading = tokio::task::spawn_blocking(move || {
        // A file that cannot be read is reported by the check of the key itself.
        let files = known_hosts::read(&target.known_hosts).unwrap_or_default();
        known_hosts::algorithms(&files, &target.address, target.port)
    });
    reading.await.unwrap_or_default()
}

fn config(known: Vec<String>) -> Config {
    Config {
        nodelay: true,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        channel_buffer_size: CHANNEL_MESSAGES,
        preferred: Preferred {
            key: Cow::Owned(host_key_algorithms(&known)),
            cipher: Cow::Borrowed(ciphers(has_aes())),
            ..Preferred::DEFAULT
        },
        ..Config::default()
    }
}

/// The host key algorithms we take, those of the keys we know the host by first: a host known by its RSA key only must
/// not show another one, which would look unknown. `ssh-rsa` with SHA-1 signatures is not taken.
fn host_key_algorithms(known: &[String]) -> Vec<Algorithm> {
    let mut algorithms = vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    let is_known = |algorithm: &Algorithm| match algorithm {
        Algorithm::Rsa { .. } => known.iter().any(|name| name == "ssh-rsa"),
        other => known.iter().any(|name| name == other.as_str()),
    };
    algorithms.sort_by_key(|algorithm| !is_known(algorithm));
    algorithms
}

/// AES-GCM first where the processor has instructions for it, else ChaCha20 (crates.md section 2b).
fn ciphers(aes: bool) -> &'static [cipher::Name] {
    const AES: &[cipher::Name] = &[
        cipher::AES_256_GCM,
        cipher::AES_128_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ];
    const NO_AES: &[cipher::Name] = &[
        cipher::CHACHA20_POLY1305,
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::AES_128_CTR,
        cipher::AES_192_CTR,
        cipher::AES_256_CTR,
    ];
    if aes { AES } else { NO_AES }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use russh::cipher;

    use super::{ciphers, host_key_algorithms};

    #[rstest]
    #[case(&[], "ssh-ed25519")]
    #[case(&["ssh-rsa"], "rsa-sha2-512")]
    #[case(&["ecdsa-sha2-nistp384"], "ecdsa-sha2-nistp384")]
    #[case(&["ssh-rsa", "ecdsa-sha2-nistp256"], "ecdsa-sha2-nistp256")]
    #[case(&["ssh-dss"], "ssh-ed25519")]
    fn what_is_known_is_asked_for_first(#[case] known: &[&str], #[case] first: &str) {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        let algorithms = host_key_algorithms(&known);
        assert_eq!(algorithms[0].as_str(), first);
        assert_eq!(algorithms.len(), 6);
    }

    #[test]
    fn gcm_comes_first_where_the_processor_helps() {
        assert_eq!(ciphers(true)[0], cipher::AES_256_GCM);
        assert_eq!(ciphers(false)[0], cipher::CHACHA20_POLY1305);
    }
}
