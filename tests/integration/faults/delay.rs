//! A way to a host that takes longer: a forwarder in front of its sshd that holds every byte back for a while.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Listens on this machine and forwards to `to`, each direction later by `delay`. Lives as long as the process: its
/// threads wait in the kernel.
pub fn forward(to: SocketAddr, delay: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
            if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                pump(near, far, delay);
                pump(far_too, near_too, delay);
            }
        }
    });
    Ok(address)
}

/// Copies one direction: read at once, written when its time has come.
fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, arrived) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in arrived {
            while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                std::thread::park_timeout(left);
            }
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
