//! The asker: a stream that another host gives, as a reader that gives up rather than wait for ever.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::{Ask, FRAME_BYTES, Giver, server_name};

/// A host in reach answers within a round trip; a firewall that drops packets is not waited for.
const CONNECT: Duration = Duration::from_secs(2);

/// A giver that waits says so every second.
const SILENCE: Duration = Duration::from_secs(5);

/// From when on the rate counts.
const GRACE: Duration = Duration::from_secs(10);

/// A giver that has bytes and hands them on slower than this, in bytes a second, is slow.
const LEAST_RATE: u64 = 256 << 10;

/// A stream from another host.
pub struct Pull {
    stream: StreamOwned<ClientConnection, TcpStream>,
    pace: Pace,
    frame: usize,
    left: u64,
}

impl Pull {
    /// Asks for the stream `sha256` from byte `from` on; it has `size` bytes in all.
    ///
    /// # Errors
    /// Why not, in words: refused, silent, not who it should be.
    pub fn open(giver: &Giver, sha256: &str, from: u64, size: u64) -> io::Result<Self> {
        let settings = giver.identity.client().map_err(io::Error::other)?;
        let name = ServerName::try_from(server_name(&giver.host)).map_err(io::Error::other)?;
        let connection = ClientConnection::new(settings, name).map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&giver.address, CONNECT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
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
        let room = self.frame.min(buffer.len());
        let count = self.stream.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
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
