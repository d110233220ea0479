//! Whether hosts reach each other: one listens on a port for a moment, the other dials it. What the listener says proves
//! that it is the one that was meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// How long a listener stays at most, also when nobody tells it to go.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);

/// Longest time for a connection to be made, and for an answer to come.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// A datagram may be lost: so often one is sent.
const DATAGRAMS: u32 = 3;

/// How many ports are dialled at once.
const DIALS: usize = 64;

/// Hosts are told to listen and to dial at the same time: a listener that is expected may come later than who dials it. So long
/// it is waited before each further try; no more of them, as Linux answers only the first six datagrams of a second (icmp_ratelimit),
/// and firewalls count.
const COMES: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(40), Duration::from_millis(80), Duration::from_millis(160)];

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports to listen on for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// The ports.
    pub ports: Vec<(Transport, u16)>,
    /// What callers are told.
    pub word: String,
    /// Whether over IPv6.
    pub ipv6: bool,
}

/// A port of another host to dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// What the listener says; without it any answer to the connection will do.
    pub word: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialled {
    /// It was the one that was meant.
    Reached,
    /// Somebody else answered.
    Other,
    /// The port is refused: a firewall that rejects, or nobody who listens.
    Refused,
    /// No answer at all: a firewall that drops, or no way there.
    Silent,
    /// There is no way there.
    NoRoute,
}

/// Listeners; dropped, they are gone.
#[derive(Debug, Default)]
pub struct Listeners {
    tasks: JoinSet<()>,
}

/// Listens; answers with the ports that could be taken. A port that somebody listens on already is not among them.
pub async fn listen(order: &Listen) -> (Listeners, Vec<(Transport, u16)>) {
    let any: IpAddr = if order.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let word: Arc<[u8]> = order.word.as_bytes().into();
    let mut listeners = Listeners::default();
    let mut taken = Vec::new();
    for (transport, port) in &order.ports {
        let address = SocketAddr::new(any, *port);
        let word = word.clone();
        let bound = match transport {
            Transport::Tcp => TcpListener::bind(address).await.map(|listener| {
                listeners.tasks.spawn(within_limit(answer_connections(listener, word)));
            }),
            Transport::Udp => UdpSocket::bind(address).await.map(|socket| {
                listeners.tasks.spawn(within_limit(answer_datagrams(socket, word)));
            }),
        };
        if bound.is_ok() {
            taken.push((*transport, *port));
        }
    }
    (listeners, taken)
}

async fn within_limit(work: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(LISTEN_LIMIT, work).await;
}

async fn answer_connections(listener: TcpListener, word: Arc<[u8]>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // The word fits into the send buffer: nobody can hold this up.
        let _ = tokio::time::timeout(DIAL_LIMIT, stream.write_all(&word)).await;
    }
}

async fn answer_datagrams(socket: UdpSocket, word: Arc<[u8]>) {
    let mut question = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut question).await {
        let _ = socket.send_to(&word, from).await;
    }
}

/// Dials all of them, many at once; the results are in their order.
pub async fn dial(targets: &[Dial]) -> Vec<Dialled> {
    use futures::StreamExt as _;
    let dials: Vec<_> = targets.iter().map(dial_one).collect();
    futures::stream::iter(dials).buffered(DIALS).collect().await
}

/// Dials one; where a listener of ours is refused, again until it may have come.
async fn dial_one(target: &Dial) -> Dialled {
    let mut dialled = dial_once(target).await;
    for pause in COMES {
        if dialled != Dialled::Refused || target.word.is_none() {
            break;
        }
        // Nothing tells that somebody listens but dialling.
        let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        dialled = dial_once(target).await;
    }
    dialled
}

async fn dial_once(target: &Dial) -> Dialled {
    match target.transport {
        Transport::Tcp => connect(target).await,
        Transport::Udp => ask(target).await.unwrap_or(Dialled::NoRoute),
    }
}

async fn connect(target: &Dial) -> Dialled {
    let connected = tokio::time::timeout(DIAL_LIMIT, TcpStream::connect(target.address)).await;
    let mut stream = match connected {
        Err(_) => return Dialled::Silent,
        Ok(Err(error)) => return of_error(&error),
        Ok(Ok(stream)) => stream,
    };
    let Some(word) = &target.word else { return Dialled::Reached };
    let mut said = vec![0; word.len()];
    match tokio::time::timeout(DIAL_LIMIT, stream.read_exact(&mut said)).await {
        Ok(Ok(_)) if said == word.as_bytes() => Dialled::Reached,
        _ => Dialled::Other,
    }
}

fn of_error(error: &std::io::Error) -> Dialled {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => Dialled::Refused,
        std::io::ErrorKind::TimedOut => Dialled::Silent,
        _ => Dialled::NoRoute,
    }
}

async fn ask(target: &Dial) -> std::io::Result<Dialled> {
    let any: IpAddr =
        if target.address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(target.address).await?;
    let word = target.word.clone().unwrap_or_default();
    let mut said = [0; 256];
    for _ in 0..DATAGRAMS {
        socket.send(b"?").await?;
        match tokio::time::timeout(DIAL_LIMIT / DATAGRAMS, socket.recv(&mut said)).await {
            Ok(Ok(count)) if said.get(..count) == Some(word.as_bytes()) => return Ok(Dialled::Reached),
            Ok(Ok(_)) => return Ok(Dialled::Other),
            Ok(Err(error)) => return Ok(of_error(&error)),
            Err(_) => {}
        }
    }
    Ok(Dialled::Silent)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Dial, Dialled, Listen, Transport, dial, listen};

    /// A port that nobody has.
    async fn free_port() -> u16 {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    fn target(port: u16, transport: Transport, word: Option<&str>) -> Dial {
        Dial { address: SocketAddr::from(([127, 0, 0, 1], port)), transport, word: word.map(str::to_owned) }
    }

    #[tokio::test]
    async fn a_listener_says_its_word_and_is_gone_when_it_is_dropped() {
        let port = free_port().await;
        let ports = vec![(Transport::Tcp, port), (Transport::Udp, port)];
        let order = Listen { ports: ports.clone(), word: "word".into(), ipv6: false };
        let (listeners, taken) = listen(&order).await;
        assert_eq!(taken, ports);
        // The port is taken: nobody else gets it.
        assert!(listen(&order).await.1.is_empty());
        let targets = [
            target(port, Transport::Tcp, Some("word")),
            target(port, Transport::Tcp, Some("other")),
            target(port, Transport::Tcp, None),
            target(port, Transport::Udp, Some("word")),
        ];
        let dialled = dial(&targets).await;
        assert_eq!(dialled, [Dialled::Reached, Dialled::Other, Dialled::Reached, Dialled::Reached]);
        drop(listeners);
        let refused = async || dial(&targets[..1]).await == [Dialled::Refused];
        let gone = async {
            while !refused().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_listener_may_come_a_moment_later() {
        let port = free_port().await;
        let ports = vec![(Transport::Tcp, port), (Transport::Udp, port)];
        let both = [target(port, Transport::Tcp, Some("word")), target(port, Transport::Udp, Some("word"))];
        let coming = async {
            // Who dials is refused at first.
            let nobody = [target(port, Transport::Tcp, None)];
            assert_eq!(dial(&nobody).await, [Dialled::Refused]);
            listen(&Listen { ports, word: "word".into(), ipv6: false }).await
        };
        let (dialled, (_listeners, taken)) = tokio::join!(dial(&both), coming);
        assert_eq!((dialled, taken.len()), (vec![Dialled::Reached, Dialled::Reached], 2));
    }

    #[tokio::test]
    async fn nobody_who_listens_refuses() {
        let port = free_port().await;
        let both = [target(port, Transport::Tcp, Some("word")), target(port, Transport::Udp, Some("word"))];
        assert_eq!(dial(&both).await, [Dialled::Refused, Dialled::Refused]);
    }
}
