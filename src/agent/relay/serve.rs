//! The giver: an open port for the length of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Ask, FRAME_BYTES, RelayOrder, SIGN_OF_LIFE, ask_for_program};
use crate::agent::store::{Store, has_name};
use crate::failure::{Failure, Kind, Result};

/// So many are served at a time; the laptop's plan sends two, and falls back come on top.
const MAXIMUM_ASKERS: usize = 32;

/// Greeting and question take a few round trips.
const GREETING: Duration = Duration::from_secs(5);

/// An asker that takes nothing for this long is gone.
const STALL: Duration = Duration::from_secs(30);

/// Where nothing at all has come to this host for so long nothing will: the asker is better off with the laptop, which brought this
/// host elsewhere, or nowhere. Longer than a lost link takes to be noticed and made again.
const STANDSTILL: Duration = Duration::from_secs(180);

/// How often it is looked whether a stream grew: what waits for it is a hop of a chain, and waits at most as long.
const LOOK: Duration = Duration::from_millis(10);

/// A question is a hash and a number.
const MAXIMUM_ASK_BYTES: u64 = 512;

/// A port that gives blobs to other hosts of the run; closed when dropped.
#[derive(Debug)]
pub struct Giving {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Giving {
    /// Listens on a free port of the host's address; `program` is the file of the program that runs here.
    ///
    /// # Errors
    /// Kind `Host` when the address cannot be listened on, `Internal` when the certificates cannot be used.
    pub async fn open(order: &RelayOrder, store: Store, program: &Path) -> Result<Self> {
        Self::open_for(order, store, program, STANDSTILL).await
    }

    /// As [`Giving::open`]; an asker is let go when nothing has come to this host for as long as `standstill`.
    pub(super) async fn open_for(
        order: &RelayOrder,
        store: Store,
        program: &Path,
        standstill: Duration,
    ) -> Result<Self> {
        let acceptor = TlsAcceptor::from(order.identity.server()?);
        let failed = |error: io::Error| {
            Failure::new(Kind::Host, format!("cannot listen on {} to hand blobs on", order.address)).because(&error)
        };
        let listener = TcpListener::bind((order.address, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let offer = Arc::new(Offer {
            streams: order.streams.clone(),
            program: order.program.as_deref().map(|sha256| (ask_for_program(sha256), program.to_owned())),
            store,
            standstill,
        });
        let task = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MAXIMUM_ASKERS));
            let mut askers = JoinSet::new();
            while let Ok(place) = places.clone().acquire_owned().await {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, offer) = (acceptor.clone(), offer.clone());
                askers.spawn(async move {
                    // Why an asker went away is its own affair: it takes the blob from elsewhere.
                    let _ = give(stream, acceptor, &offer).await;
                    drop(place);
                });
                while askers.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What there is to be had.
struct Offer {
    streams: BTreeMap<String, u64>,
    /// How the program is asked for, and its file.
    program: Option<(String, PathBuf)>,
    store: Store,
    standstill: Duration,
}

/// Serves one asker.
async fn give(stream: TcpStream, acceptor: TlsAcceptor, offer: &Offer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(within(GREETING, acceptor.accept(stream)).await?);
    let mut line = Vec::new();
    within(GREETING, (&mut stream).take(MAXIMUM_ASK_BYTES).read_until(b'\n', &mut line)).await?;
    if let Some((_, program)) = offer.program.as_ref().filter(|(asked, _)| line.trim_ascii() == asked.as_bytes()) {
        return give_program(stream.get_mut(), program).await;
    }
    let ask: Ask = serde_json::from_slice(&line)?;
    let size = *offer.streams.get(&ask.sha256).ok_or(io::ErrorKind::NotFound)?;
    let mut at = ask.from;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut file: Option<Arc<File>> = None;
    let mut frame = Vec::new();
    let mut said = Instant::now();
    let (mut there, mut came) = (None, Instant::now());
    while at < size {
        if file.is_none() {
            file = offer.store.read(&ask.sha256).map(Arc::new);
        }
        let mut count = 0;
        if let Some(file) = &file {
            (frame, count) = read_at(file.clone(), at, size - at, frame).await?;
        }
        if count > 0 {
            at += count as u64;
            within(STALL, write(stream.get_mut(), &frame[..4 + count])).await?;
            said = Instant::now();
            continue;
        }
        if file.as_ref().is_some_and(|file| !has_name(file)) {
            // It was not what its name says.
            return Ok(());
        }
        if said.elapsed() >= SIGN_OF_LIFE {
            let now = Some(offer.store.there());
            if there != now {
                (there, came) = (now, Instant::now());
            } else if came.elapsed() >= offer.standstill {
                return Ok(());
            }
            within(STALL, write(stream.get_mut(), &[0; 4])).await?;
            said = Instant::now();
        }
        looks.tick().await;
    }
    within(STALL, stream.get_mut().shutdown()).await
}

/// The bytes of a file and nothing else.
async fn give_program(stream: &mut (impl tokio::io::AsyncWrite + Unpin), program: &Path) -> io::Result<()> {
    let file = Arc::new(File::open(program)?);
    let (mut at, size, mut frame) = (0, file.metadata()?.len(), Vec::new());
    while at < size {
        let count;
        (frame, count) = read_at(file.clone(), at, size - at, frame).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        within(STALL, write(stream, &frame[4..4 + count])).await?;
        at += count as u64;
    }
    within(STALL, stream.shutdown()).await
}

async fn write(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// A frame of what is there from `at` on, and how many bytes that is; 0 where nothing is. The frame's room is used again and
/// again: what is allocated anew for each costs more than to fill it.
async fn read_at(file: Arc<File>, at: u64, left: u64, mut frame: Vec<u8>) -> io::Result<(Vec<u8>, usize)> {
    let reading = tokio::task::spawn_blocking(move || {
        let room = FRAME_BYTES.min(usize::try_from(left).unwrap_or(FRAME_BYTES));
        if frame.len() < 4 + room {
            frame.resize(4 + room, 0);
        }
        let count = file.read_at(&mut frame[4..4 + room], at)?;
        frame[..4].copy_from_slice(&u32::try_from(count).unwrap_or_default().to_be_bytes());
        Ok((frame, count))
    });
    reading.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}
