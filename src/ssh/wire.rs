//! The stream that SSH is spoken through: TCP, a channel of a bastion, or a command.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::failure::{Failure, Kind};

use super::bastion::reach;
use super::connection::Connection;
use super::deadline::Deadline;
use super::dial::Refusal;
use super::local::{Complaint, Proxy};
use super::login::Sources;
use super::target::{Family, Prompt, Route, Target};
use super::tunnel::Tunnel;

/// A stream to a host.
pub(super) enum Wire {
    /// From here.
    Tcp(TcpStream),
    /// Through a bastion.
    Tunnel(Tunnel),
    /// Through a command.
    Command(Proxy),
}

/// A stream with what is known about it.
pub(super) struct Opened {
    /// The stream.
    pub(super) wire: Wire,
    /// The connection it goes through, which must live as long.
    pub(super) bastion: Option<Connection>,
    /// What the command says that it goes through.
    pub(super) complaint: Option<Complaint>,
}

/// Opens a stream to the target; the deadline does not run while a bastion is logged in to, which has its own.
pub(super) async fn open(
    target: &Arc<Target>,
    deadline: &mut Deadline,
    prompts: &dyn Prompt,
    sources: &Sources,
) -> Result<Opened, Refusal> {
    match &target.route {
        Route::Direct => {
            let deadline = &deadline.capped(target.dial_limit);
            let addresses = resolve(target, deadline).await.map_err(Refusal::Final)?;
            let stream = dial(target, &addresses, deadline).await.map_err(Refusal::Final)?;
            // Without it each request waits 40 ms for an acknowledgement (crates.md section 2a).
            stream.set_nodelay(true).map_err(|error| {
                let sentence = format!("cannot set up the connection to {}", target.place());
                Refusal::Final(unreachable(target, sentence).because(&error))
            })?;
            Ok(Opened { wire: Wire::Tcp(stream), bastion: None, complaint: None })
        }
        Route::Through { bastion, shared } => {
            let began = Instant::now();
            let connection = reach(bastion, shared, prompts, sources).await;
            deadline.extend(began.elapsed());
            let connection = connection.map_err(|failure| Refusal::Final(on_the_way(target, bastion, failure)))?;
            let opening = connection.direct_tcpip(&target.address, target.port);
            let opened = deadline.within(opening).await.unwrap_or_else(|| Err(late(target, bastion, deadline.limit())));
            match opened {
                Ok(tunnel) => Ok(Opened { wire: Wire::Tunnel(tunnel), bastion: Some(connection), complaint: None }),
                // The shared connection was lost: the next attempt makes another one.
                Err(failure) if connection.is_closed() => Err(Refusal::Busy(on_the_way(target, bastion, failure))),
                Err(failure) => Err(Refusal::Final(behind(target, bastion, failure))),
            }
        }
        Route::Command(command) => {
            let (proxy, complaint) = Proxy::start(command).map_err(|error| {
                let sentence = format!("cannot start the ProxyCommand of {}", target.own_place());
                Refusal::Final(Failure::new(Kind::Connection, sentence).on(&target.name).because(&error))
            })?;
            Ok(Opened { wire: Wire::Command(proxy), bastion: None, complaint: Some(complaint) })
        }
    }
}

/// A failure of a bastion is the failure of each host behind it; it names the hop.
fn on_the_way(target: &Target, bastion: &Target, failure: Failure) -> Failure {
    let sentence = match failure.sentence.starts_with("the bastion ") {
        true => failure.sentence,
        false => format!("the bastion {} on the way: {}", bastion.name, failure.sentence),
    };
    Failure { sentence, host: Some(target.name.clone()), ..failure }
}

/// The bastion is there, the host behind it is not.
fn behind(target: &Target, bastion: &Target, failure: Failure) -> Failure {
    let place = target.own_place();
    let sentence = format!("the bastion {} cannot open a connection to {place}", bastion.name);
    let advice = failure.advice.clone().unwrap_or_else(|| {
        "check that the host is running, its address and port as the bastion sees them, and firewalls between"
            .to_owned()
    });
    let cause = failure.sentence.clone();
    let mut causes = vec![cause];
    causes.extend(failure.causes);
    Failure { sentence, causes, host: Some(target.name.clone()), advice: Some(advice), ..failure }
}

fn late(target: &Target, bastion: &Target, limit: Duration) -> Failure {
    let sentence = format!("no answer from {} within {} seconds", target.own_place(), limit.as_secs());
    Failure::new(Kind::Connection, sentence).on(&bastion.name).may_pass()
}

fn unreachable(target: &Target, sentence: String) -> Failure {
    Failure::new(Kind::Connection, sentence).on(&target.name).may_pass()
}

async fn resolve(target: &Target, deadline: &Deadline) -> Result<Vec<SocketAddr>, Failure> {
    let unknown = || {
        unreachable(target, format!("cannot find the address of {}", target.address))
            .advise("correct the host's address in the inventory or in ~/.ssh/config, or the name service")
    };
    match deadline.within(tokio::net::lookup_host((target.address.as_str(), target.port))).await {
        Some(Ok(found)) => {
            let addresses: Vec<SocketAddr> = found
                .filter(|address| match target.family {
                    None => true,
                    Some(Family::Four) => address.is_ipv4(),
                    Some(Family::Six) => address.is_ipv6(),
                })
                .collect();
            match (addresses.is_empty(), target.family) {
                (false, _) => Ok(addresses),
                (true, None) => Err(unknown()),
                (true, Some(_)) => Err(unknown().caused_by("AddressFamily leaves none of those that it has")),
            }
        }
        Some(Err(error)) => Err(unknown().because(&error)),
        None => Err(unknown().caused_by(format!("no answer within {} seconds", deadline.limit().as_secs()))),
    }
}

/// Connects to the first address that answers; each may use its share of what time is left.
async fn dial(target: &Target, addresses: &[SocketAddr], deadline: &Deadline) -> Result<TcpStream, Failure> {
    let mut last = None;
    for (index, address) in addresses.iter().enumerate() {
        let share = deadline.remaining() / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, connect(target, *address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = last.or_else(|| Some(io::ErrorKind::TimedOut.into())),
        }
    }
    Err(not_reached(target, &last.unwrap_or_else(|| io::ErrorKind::TimedOut.into()), deadline.limit()))
}

async fn connect(target: &Target, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(name) = &target.bind_address else { return TcpStream::connect(address).await };
    let unusable = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("BindAddress {name} {why}"));
    let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| unusable(&error.to_string()))?;
    let same_family = found.into_iter().find(|from| from.is_ipv4() == address.is_ipv4());
    let from = same_family.ok_or_else(|| unusable("has no address of the host's family"))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(from)?;
    socket.connect(address).await
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

impl Wire {
    /// Sends the acknowledgement of what was received now instead of in 40 ms, where the way is TCP.
    pub(super) fn acknowledge(&self) {
        if let Self::Tcp(stream) = self {
            super::link::acknowledge(stream);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Command(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Command(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(context),
            Self::Command(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Command(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
