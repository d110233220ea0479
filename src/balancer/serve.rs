//! The balancer at work: connections come in on loopback, bytes go to an API server and back.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::upstream::Upstreams;
use super::{list, probe};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};

/// Connections at a time; more wait until one ends. A node has some tens. With [`BUFFER_BYTES`] this bounds the memory.
const MAXIMUM_CONNECTIONS: usize = 2048;

/// Bytes under way in each direction of a connection.
const BUFFER_BYTES: usize = 8 << 10;

/// How often the list is read again.
const LIST_INTERVAL: Duration = Duration::from_millis(500);

/// A list may be this long, in bytes.
const MAXIMUM_LIST_BYTES: u64 = 64 << 10;

/// The rest after a connection could not be taken: descriptors are used up, and get free.
const REST: Duration = Duration::from_millis(100);

/// Listens at `listen` and leads every connection to one of the API servers that `file` lists, without end.
///
/// # Errors
/// Kind `Configuration` for a list that cannot be used at the start (later the last good one stays in use); kind `Host`
/// when the address is taken.
pub async fn serve(listen: SocketAddr, file: &Path, events: &Events) -> Result<()> {
    let mut list = List::default();
    let upstreams = Upstreams::new("https", events);
    match list.read(file).await {
        Ok(Some(servers)) => upstreams.replace(&servers),
        Ok(None) => {}
        Err(why) => {
            return Err(Failure::new(Kind::Configuration, format!("{} is no list of API servers", file.display()))
                .caused_by(why));
        }
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let failure = Failure::new(Kind::Host, format!("cannot listen on {listen}")).because(&error);
        match error.kind() {
            ErrorKind::AddrInUse => failure.advise("stop the program that listens there"),
            _ => failure,
        }
    })?;
    tell_systemd();
    tokio::select! {
        () = accept(&listener, &upstreams, events) => Ok(()),
        () = follow(list, file, &upstreams, events) => Ok(()),
    }
}

/// The list as it was read last.
#[derive(Default)]
struct List {
    content: Option<Vec<u8>>,
    complaint: Option<String>,
}

impl List {
    /// Reads the list; `None` when it is as it was.
    async fn read(&mut self, file: &Path) -> std::result::Result<Option<Vec<crate::message::ApiServer>>, String> {
        let mut content = Vec::new();
        let open = tokio::fs::File::open(file).await.map_err(|error| error.to_string())?;
        open.take(MAXIMUM_LIST_BYTES + 1).read_to_end(&mut content).await.map_err(|error| error.to_string())?;
        if content.len() as u64 > MAXIMUM_LIST_BYTES {
            return Err(format!("it is longer than {MAXIMUM_LIST_BYTES} bytes"));
        }
        if self.content.as_ref() == Some(&content) {
            return Ok(None);
        }
        let text = std::str::from_utf8(&content).map_err(|_| "it is not text".to_owned())?;
        let servers = list::parse(text)?;
        self.content = Some(content);
        Ok(Some(servers))
    }
}

/// Takes over the list whenever it changes. One that cannot be used is said once, and the last good one stays.
async fn follow(mut list: List, file: &Path, upstreams: &Arc<Upstreams>, events: &Events) {
    let mut ticks = interval(LIST_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match list.read(file).await {
            Ok(servers) => {
                list.complaint = None;
                if let Some(servers) = servers {
                    upstreams.replace(&servers);
                }
            }
            Err(why) if list.complaint.as_ref() == Some(&why) => {}
            Err(why) => {
                events.warn(format!("{}: {why}; the former list stays in use", file.display()));
                list.complaint = Some(why);
            }
        }
    }
}

async fn accept(listener: &TcpListener, upstreams: &Arc<Upstreams>, events: &Events) {
    let slots = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    let mut rest = interval(REST);
    rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = false;
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                refused = false;
                let upstreams = Arc::clone(upstreams);
                tokio::spawn(async move {
                    lead(client, &upstreams).await;
                    drop(slot);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut refused, true) {
                    events.warn(format!("cannot take connections: {error}"));
                }
                rest.reset();
                rest.tick().await;
            }
        }
    }
}

/// Leads one connection. When no API server can be reached it is closed, as a refused one would be.
async fn lead(mut client: TcpStream, upstreams: &Upstreams) {
    let _ = client.set_nodelay(true);
    for upstream in upstreams.in_order() {
        let counted = upstream.count();
        let Some(mut server) = probe::connection(upstream.server.address).await else {
            upstreams.note(&upstream, |health| health.connected(false));
            continue;
        };
        let _ = server.set_nodelay(true);
        // Severed, both ends are closed: a client whose server died without a word would wait for minutes.
        let moving = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES);
        let _ = counted.severed.clone().run_until_cancelled(moving).await;
        return;
    }
}

/// Tells systemd that we listen, where it waits for that (`Type=notify`).
fn tell_systemd() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // Where it does not arrive, systemd gives up on us with a sentence of its own.
    let _ = notify(&path);
}

fn notify(path: &std::ffi::OsStr) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::SocketAddr;
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return socket.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name)?).map(drop);
    }
    socket.send_to_addr(b"READY=1", &SocketAddr::from_pathname(path)?).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{List, accept, follow, notify};
    use crate::api::fake::FakeApi;
    use crate::api::wait::{Look, Wait};
    use crate::balancer::health::State;
    use crate::balancer::upstream::Upstreams;
    use crate::event::Events;
    use crate::message::ApiServer;

    fn address(api: &FakeApi) -> SocketAddr {
        api.server().trim_start_matches("http://").parse().unwrap()
    }

    async fn balancer(servers: &[SocketAddr]) -> (Arc<Upstreams>, SocketAddr) {
        let upstreams = Upstreams::new("http", &Events::nowhere());
        upstreams
            .replace(&servers.iter().map(|address| ApiServer { address: *address, local: false }).collect::<Vec<_>>());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let accepting = Arc::clone(&upstreams);
        tokio::spawn(async move { accept(&listener, &accepting, &Events::nowhere()).await });
        (upstreams, listening)
    }

    async fn answers(address: SocketAddr) -> bool {
        let Ok(mut stream) = TcpStream::connect(address).await else { return false };
        let request = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut answer = [0; 12];
        stream.write_all(request).await.is_ok()
            && stream.read_exact(&mut answer).await.is_ok()
            && &answer == b"HTTP/1.1 200"
    }

    /// A server that takes connections and says nothing, until it is dropped.
    async fn mute() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn until(upstreams: &Arc<Upstreams>, at: SocketAddr, state: State) {
        let wait = Wait::new("the balancer", "notice", Duration::from_secs(20)).every(Duration::from_millis(10));
        let look = async || {
            let found = upstreams.in_order().into_iter().find(|upstream| upstream.server.address == at).unwrap();
            Ok(if found.state() == state { Look::There(()) } else { Look::NotYet(format!("{:?}", found.state())) })
        };
        wait.until(look).await.unwrap();
    }

    #[tokio::test]
    async fn bytes_go_to_a_server_that_serves_whatever_the_others_do() {
        let api = FakeApi::start().await;
        let (_listener, mute) = mute().await;
        let (upstreams, listening) = balancer(&["127.0.0.1:1".parse().unwrap(), mute, address(&api)]).await;
        until(&upstreams, address(&api), State::Ready).await;
        for _ in 0..6 {
            assert!(answers(listening).await);
        }
    }

    #[tokio::test]
    async fn a_server_nobody_knows_anything_of_is_tried_at_once() {
        let api = FakeApi::start().await;
        let (_, listening) = balancer(&["127.0.0.1:1".parse().unwrap(), address(&api)]).await;
        assert!(answers(listening).await);
        let (_, listening) = balancer(&["127.0.0.1:1".parse().unwrap()]).await;
        assert!(!answers(listening).await);
    }

    #[tokio::test]
    async fn a_connection_whose_server_died_without_a_word_is_closed() {
        let (listener, dying) = mute().await;
        let (upstreams, listening) = balancer(&[dying]).await;
        let mut client = TcpStream::connect(listening).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        // Its probes are connections as well: the one that brings something is ours, and is kept open.
        let mut kept = loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 5];
            if stream.read(&mut read).await.unwrap() == 5 && &read == b"hello" {
                break stream;
            }
        };
        drop(listener);
        until(&upstreams, dying, State::Dead).await;
        let api = FakeApi::start().await;
        upstreams.replace(&[dying, address(&api)].map(|address| ApiServer { address, local: false }));
        let closed = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        let _ = kept.write_all(b"too late").await;
    }

    #[tokio::test]
    async fn a_list_that_changes_is_followed_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer");
        std::fs::write(&file, "127.0.0.1:1\n").unwrap();
        let (events, mut said) = Events::channel();
        let upstreams = Upstreams::new("http", &Events::nowhere());
        let following = Arc::clone(&upstreams);
        let path = file.clone();
        tokio::spawn(async move { follow(List::default(), &path, &following, &events).await });
        let ports = async |expected: &[u16]| {
            let wait = Wait::new("the list", "be followed", Duration::from_secs(10));
            let look = async || {
                let list = upstreams.in_order();
                let mut ports: Vec<u16> = list.iter().map(|upstream| upstream.server.address.port()).collect();
                ports.sort_unstable();
                Ok(if ports == expected { Look::There(()) } else { Look::NotYet(format!("{ports:?}")) })
            };
            wait.until(look).await.unwrap();
        };
        ports(&[1]).await;
        std::fs::write(&file, "nonsense\n").unwrap();
        let warned = format!("{:?}", said.recv().await.unwrap());
        assert!(warned.contains("line 1: it does not begin with address:port"), "{warned}");
        ports(&[1]).await;
        std::fs::write(&file, "127.0.0.1:2\n127.0.0.1:3\n").unwrap();
        ports(&[2, 3]).await;
    }

    #[test]
    fn systemd_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str()).unwrap();
        let mut message = [0; 16];
        let length = socket.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"READY=1");
    }
}
