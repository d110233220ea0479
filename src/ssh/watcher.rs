//! What russh tells us while a connection lives: the host's key, its banner, and why it ended.

use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyBase64 as _;
use russh::keys::PublicKeyOrCertificate;
use tokio::sync::watch;

use crate::failure::{Failure, Kind};

use super::host_key::{self, Shown};
use super::known_hosts::HostKey;
use super::target::Target;

/// How much of a server's banner is kept for a failed login.
const BANNER: usize = 4096;

/// The reason when a host refused a login and names no way that is left.
pub(super) const NOTHING_ALLOWED: &str = "the host allows no other way to log in";

/// Why a handshake ended: a refusal of ours, or the transport's error.
#[derive(Debug)]
pub(super) enum Stop {
    /// We refuse to go on.
    Refused(Box<Failure>),
    /// russh or the network.
    Transport(russh::Error),
}

impl From<russh::Error> for Stop {
    fn from(error: russh::Error) -> Self {
        Self::Transport(error)
    }
}

/// Why a connection that stood has ended, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost(pub(super) String);

/// Resolves when the connection has ended.
pub(super) type LostReceiver = watch::Receiver<Option<Lost>>;

/// Waits until the connection has ended and says why.
pub(super) async fn lost(receiver: &LostReceiver) -> Lost {
    let mut receiver = receiver.clone();
    // An error means that the sender was dropped with the session, which is an end too.
    let reason = receiver.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    reason.unwrap_or_else(|| Lost("the connection was closed".to_owned()))
}

/// The handler of one connection.
#[derive(Debug)]
pub(super) struct Watcher {
    target: Arc<Target>,
    trusted: Option<HostKey>,
    banner: Banner,
    lost: watch::Sender<Option<Lost>>,
}

/// What the server shows before a login: a legal notice, or the name of the user to use.
#[derive(Debug, Clone, Default)]
pub(super) struct Banner(Arc<Mutex<String>>);

impl Banner {
    /// The text so far; untrusted.
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, text: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BANNER.saturating_sub(kept.len());
        kept.extend(text.chars().take(room));
    }
}

impl Watcher {
    /// The handler, with the places where it leaves the banner and the end.
    pub(super) fn new(target: Arc<Target>) -> (Self, Banner, LostReceiver) {
        let (lost, receiver) = watch::channel(None);
        let banner = Banner::default();
        (Self { target, trusted: None, banner: banner.clone(), lost }, banner, receiver)
    }
}

/// In words, why the transport ended.
fn reason(error: &russh::Error, target: &Target) -> String {
    match error {
        russh::Error::KeepaliveTimeout => {
            format!("the host has not answered for {} seconds", target.patience().as_secs_f32())
        }
        russh::Error::HUP | russh::Error::Disconnect => "the host closed the connection".to_owned(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the host closed the connection".to_owned()
        }
        russh::Error::NoAuthMethod => NOTHING_ALLOWED.to_owned(),
        other => other.to_string(),
    }
}

impl Handler for Watcher {
    type Error = Stop;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Stop> {
        let Some(key) = HostKey::from_blob(shown.public_key().public_key_bytes()) else { return Ok(false) };
        // The exchange is repeated after each GiB; the key that was good at the login is good then.
        if self.trusted.as_ref() == Some(&key) {
            return Ok(true);
        }
        let shown = Shown { key: key.clone(), certificate: shown.certificate().cloned() };
        let target = Arc::clone(&self.target);
        let verdict = tokio::task::spawn_blocking(move || host_key::check(&target, &shown)).await;
        match verdict {
            Ok(Ok(())) => {
                self.trusted = Some(key);
                Ok(true)
            }
            Ok(Err(failure)) => Err(Stop::Refused(Box::new(failure))),
            Err(defect) => {
                let failure = Failure::new(Kind::Internal, "the check of the host key did not finish");
                Err(Stop::Refused(Box::new(failure.on(&self.target.name).because(&defect))))
            }
        }
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), Stop> {
        self.banner.add(banner);
        Ok(())
    }

    async fn disconnected(&mut self, reason_given: DisconnectReason<Stop>) -> Result<(), Stop> {
        let (said, result) = match reason_given {
            DisconnectReason::ReceivedDisconnect(info) => {
                let message: String = info.message.chars().filter(|c| !c.is_control()).take(200).collect();
                (format!("the host ended it: {message}"), Ok(()))
            }
            DisconnectReason::Error(Stop::Transport(error)) => {
                (reason(&error, &self.target), Err(Stop::Transport(error)))
            }
            DisconnectReason::Error(Stop::Refused(failure)) => (failure.sentence.clone(), Err(Stop::Refused(failure))),
        };
        self.lost.send_replace(Some(Lost(said)));
        result
    }

    // A host has no business opening channels towards us: dropping the reply refuses (russh's default accepts).

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: russh::Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: russh::Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: russh::Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: russh::Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: russh::Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: russh::Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: russh::Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }
}
