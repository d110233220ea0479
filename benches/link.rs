//! `link [--delay MS] [--rate BYTES] LISTEN:HOST:PORT...`: a line between this machine and others, for measurements.
//!
//! Every connection to 127.0.0.1:LISTEN goes on to HOST:PORT, MS milliseconds later in each direction; all of them together
//! send at most BYTES a second there. Prints `ready`, and the bytes that went there when its standard input ends. A connection
//! is answered by the kernel at once, so one round trip less is seen than on a real way.
//!
//! Nothing but the standard library: `rustc -O --edition 2024 benches/link.rs` makes it in a second. Threads, and large pieces
//! that are copied twice: what is measured is the tools, not this.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;
/// Pieces under way in one direction of one connection: what a line of 10 Gbit/s holds in 50 ms.
const LONG: usize = 256;
/// The same on a line that is slow: nobody's bytes wait long behind another's.
const SLOW: usize = 2;
/// Bytes that leave a slow line at once.
const PACKET: usize = 16 << 10;

/// The line that all connections share.
struct Line {
    delay: Duration,
    /// Bytes a second; any number if 0.
    rate: u64,
    /// When it is free again.
    free: Mutex<Instant>,
    sent: AtomicU64,
}

/// Waits for a moment; parked threads may wake early.
fn until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

impl Line {
    /// Waits for the turn of so many bytes.
    fn pass(&self, bytes: usize) {
        let time = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.rate);
        let due = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + time;
            *free
        };
        until(due);
    }

    /// One direction of a connection, to its end.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, outward: bool) {
        let limited = outward && self.rate > 0;
        let (sender, pieces) = mpsc::sync_channel::<(Instant, Vec<u8>)>(if limited { SLOW } else { LONG });
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = vec![0; PIECE];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    if sender.send((Instant::now() + self.delay, buffer[..count].to_vec())).is_err() {
                        break;
                    }
                }
            });
            for (due, bytes) in pieces {
                until(due);
                for packet in bytes.chunks(if limited { PACKET } else { PIECE }) {
                    if limited {
                        self.pass(packet.len());
                    }
                    if outward {
                        self.sent.fetch_add(packet.len() as u64, Ordering::Relaxed);
                    }
                    if to.write_all(packet).is_err() {
                        // Whoever still sends is told.
                        let _ = to.shutdown(Shutdown::Both);
                        return;
                    }
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    fn connect(&self, near: &TcpStream, far: &str) -> io::Result<()> {
        let far = TcpStream::connect(far)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_out, far_out) = (near.try_clone()?, far.try_clone()?);
        let back = near.try_clone()?;
        thread::scope(|scope| {
            scope.spawn(move || self.carry(near_out, far_out, true));
            self.carry(far, back, false);
        });
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut delay, mut rate, mut ways) = (0.0, 0, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--delay" => delay = arguments.next().ok_or("--delay takes milliseconds")?.parse::<f64>()?,
            "--rate" => rate = arguments.next().ok_or("--rate takes bytes a second")?.parse()?,
            way => {
                let (listen, far) = way.split_once(':').ok_or("a way is LISTEN:HOST:PORT")?;
                ways.push((listen.parse::<u16>()?, far.to_owned()));
            }
        }
    }
    let delay = Duration::from_secs_f64(delay / 1000.0);
    let line = Arc::new(Line { delay, rate, free: Mutex::new(Instant::now()), sent: AtomicU64::new(0) });
    for (listen, far) in ways {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen))?;
        let line = Arc::clone(&line);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (line, far) = (Arc::clone(&line), far.clone());
                // A host that is not there closes the connection, as it would.
                thread::spawn(move || line.connect(&near, &far));
            }
        });
    }
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    writeln!(out, "{}", line.sent.load(Ordering::Relaxed))?;
    Ok(())
}
