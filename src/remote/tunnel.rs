//! A door on the laptop's loopback that leads through the SSH connection to a port on the host's side.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Kind, Result};
use crate::ssh::Connection;

/// A door that nobody can enter just now is tried again this often.
const PAUSE: Duration = Duration::from_millis(100);

/// An open tunnel; it closes when dropped.
#[derive(Debug)]
pub struct Tunnel {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Listens on a free port of 127.0.0.1 and leads every connection to `host:port` as the remote host sees it.
    pub async fn open(connection: Connection, host: impl Into<String>, port: u16) -> Result<Self> {
        Self::open_at(0, connection, host, port).await
    }

    /// As [`Tunnel::open`], on this port of 127.0.0.1; 0 for a free one.
    pub async fn open_at(at: u16, connection: Connection, host: impl Into<String>, port: u16) -> Result<Self> {
        let host = host.into();
        let failed = |error: std::io::Error| {
            let place = if at == 0 { String::new() } else { format!(" port {at}") };
            Failure::new(Kind::Connection, format!("cannot listen on 127.0.0.1{place}"))
                .because(&error)
                .advise("name another port, or none for a free one")
        };
        let listener = TcpListener::bind(("127.0.0.1", at)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let mut pauses = tokio::time::interval(PAUSE);
            loop {
                let Ok((mut local, _)) = listener.accept().await else {
                    // One that went before it was taken, or no file left to open: neither is the end of the tunnel.
                    pauses.tick().await;
                    continue;
                };
                let (connection, host) = (connection.clone(), host.clone());
                connections.spawn(async move {
                    let _ = local.set_nodelay(true);
                    // A refused channel shows at the other end as a closed connection, as a refused port would.
                    if let Ok(mut remote) = connection.direct_tcpip(&host, port).await {
                        let _ = copy_bidirectional(&mut local, &mut remote).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}
