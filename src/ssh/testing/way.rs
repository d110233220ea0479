//! A way to a server that breaks when it is told to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Sshd, Target};

/// A TCP way to a server that breaks when it is told to, or after so many bytes on their way to the server.
pub(in crate::ssh) struct Way {
    pub(in crate::ssh) port: u16,
    /// Where new connections lead to.
    pub(in crate::ssh) server: Arc<std::sync::atomic::AtomicU16>,
    /// Bytes that may still pass.
    pub(in crate::ssh) allowance: Arc<std::sync::atomic::AtomicU64>,
    cut: tokio::sync::watch::Sender<()>,
}

impl Way {
    /// Leads to a port of this machine.
    pub(in crate::ssh) async fn to(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Arc::new(std::sync::atomic::AtomicU16::new(server));
        let allowance = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
        let cut = tokio::sync::watch::Sender::new(());
        let (leads, allowed, cuts) = (Arc::clone(&server), Arc::clone(&allowance), cut.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (allowed, mut broken) = (Arc::clone(&allowed), cuts.subscribe());
                let server = leads.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    let Ok(far) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { return };
                    tokio::select! {
                        () = pass(near, far, &allowed) => {}
                        _ = broken.changed() => {}
                    }
                });
            }
        });
        Self { port, server, allowance, cut }
    }

    /// Breaks all connections.
    pub(in crate::ssh) fn cut(&self) {
        self.cut.send_replace(());
    }

    /// The same target by this way, with the same host key.
    pub(in crate::ssh) fn target(&self, sshd: &Sshd, identity: &Path) -> Target {
        let known = sshd.folder.path().join(format!("known_{}", self.port));
        let line = sshd.known_line("ed25519").replace(&format!(":{} ", sshd.port), &format!(":{} ", self.port));
        std::fs::write(&known, line).expect("written");
        Target { port: self.port, known_hosts: vec![known], ..sshd.target(Some(identity)) }
    }
}

async fn pass(near: tokio::net::TcpStream, far: tokio::net::TcpStream, allowance: &std::sync::atomic::AtomicU64) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let there = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from_near.read(&mut buffer).await {
            let before = allowance.fetch_sub(length as u64, Ordering::Relaxed);
            if before < length as u64 {
                allowance.store(u64::MAX, Ordering::Relaxed);
                return;
            }
            if to_far.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_far, &mut to_near).await;
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
