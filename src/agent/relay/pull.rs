//! The asker: a stream that another host gives, as a reader that gives up rather than wait for ever.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{Ask, FRAME_BYTES, Giver, Identity, server_name};

/// A host in reach answers within a round trip; a firewall that drops packets is not waited for.
const CONNECT: Duration = Duration::from_secs(2);

/// A giver that waits says so every second.
const SILENCE: Duration = Duration::from_secs(5);

/// From when on the rate counts.
const GRACE: Duration = Duration::from_secs(10);

/// A giver that has bytes and hands them on slower than this, in bytes a second, is slow.
const LEAST_RATE: u64 = 256 << 10;

/// What is taken from the socket at a time, in bytes: rustls alone would take 4 KiB.
const PIECE_BYTES: usize = 256 << 10;

/// A socket that is read in large pieces.
struct Socket(BufReader<TcpStream>);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

/// What this host is to those that give: made ready once, so that TLS goes on with sessions where a host gives again.
#[derive(Default)]
pub struct Asker(Option<(Identity, Arc<ClientConfig>)>);

impl Asker {
    fn settings(&mut self, identity: &Identity) -> io::Result<Arc<ClientConfig>> {
        if let Some((_, settings)) = self.0.as_ref().filter(|(known, _)| known == identity) {
            return Ok(settings.clone());
        }
        let settings = identity.client().map_err(io::Error::other)?;
        self.0 = Some((identity.clone(), settings.clone()));
        Ok(settings)
    }
}

/// A stream from another host.
pub struct Pull {
    stream: StreamOwned<ClientConnection, Socket>,
    pace: Pace,
    frame: usize,
    left: u64,
}

impl Pull {
    /// Asks for the stream `sha256` from byte `from` on; it has `size` bytes in all.
    ///
    /// # Errors
    /// Why not, in words: refused, silent, not who it should be.
    pub fn open(asker: &mut Asker, giver: &Giver, sha256: &str, from: u64, size: u64) -> io::Result<Self> {
        let settings = asker.settings(&giver.identity)?;
        let name = ServerName::try_from(server_name(&giver.host)).map_err(io::Error::other)?;
        let connection = ClientConnection::new(settings, name).map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&giver.address, CONNECT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        let mut stream = StreamOwned::new(connection, Socket(BufReader::with_capacity(PIECE_BYTES, socket)));
        let mut line = serde_json::to_vec(&Ask { sha256: sha256.to_owned(), from })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        stream.flush()?;
        Ok(Self { stream, pace: Pace::begin(Instant::now()), frame: 0, left: size.saturating_sub(from) })
    }

    fn length(&mut self) -> io::Result<usize> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        Ok(u32::from_be_bytes(length) as usize)
    }
}

impl Read for Pull {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frame == 0 {
            if self.left == 0 {
                return Ok(0);
            }
            self.frame = self.length()?;
            if self.frame == 0 {
                self.pace.waited(Instant::now());
            }
            if self.frame > FRAME_BYTES || self.frame as u64 > self.left {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it sends more than was asked for"));
            }
        }
        // As much as there is room for: TLS gives 16 KiB at a time, and each piece is written and hashed by itself.
        let count = self.frame.min(buffer.len());
        self.stream.read_exact(&mut buffer[..count])?;
        self.frame -= count;
        self.left -= count as u64;
        match self.pace.received(count as u64, Instant::now()) {
            true => Ok(count),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "it is too slow")),
        }
    }
}

/// How fast a giver gives, not counting the time in which it waits itself.
#[derive(Debug)]
struct Pace {
    last: Instant,
    busy: Duration,
    bytes: u64,
}

impl Pace {
    fn begin(now: Instant) -> Self {
        Self { last: now, busy: Duration::ZERO, bytes: 0 }
    }

    /// The giver said that it waits: the time since it last said something counts for nothing.
    fn waited(&mut self, now: Instant) {
        self.last = now;
    }

    /// Bytes came; whether that is fast enough.
    fn received(&mut self, bytes: u64, now: Instant) -> bool {
        self.busy += now.saturating_duration_since(self.last);
        self.last = now;
        self.bytes += bytes;
        self.busy < GRACE || u128::from(self.bytes) * 1000 >= u128::from(LEAST_RATE) * self.busy.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{LEAST_RATE, Pace};

    #[test]
    fn only_a_giver_that_has_bytes_can_be_slow() {
        let start = Instant::now();
        let second = |count: u64| start + Duration::from_secs(count);
        let mut slow = Pace::begin(start);
        assert!((1..10).all(|at| slow.received(1000, second(at))));
        assert!(!slow.received(1000, second(11)));
        let mut waiting = Pace::begin(start);
        for at in 1..60 {
            waiting.waited(second(at));
            assert!(waiting.received(1000, second(at)));
        }
        let mut steady = Pace::begin(start);
        assert!((1..60).all(|at| steady.received(LEAST_RATE, second(at))));
    }
}
