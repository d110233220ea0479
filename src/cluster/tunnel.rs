//! `tunnel`: a port on the laptop that leads to the API server through SSH, with a kubeconfig for it.

use std::net::SocketAddr;

use super::access::server;
use super::connect::{Session, Settings, connect_to_control_plane};
use crate::cancel::Cancel;
use crate::failure::{Failure, Result};
use crate::inventory::Inventory;
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::message::Request;
use crate::remote;
use crate::secret::Secret;
use crate::ssh::Connection;

/// An open way to the API.
pub struct Tunnel {
    door: remote::Tunnel,
    connection: Connection,
    /// The administrator's kubeconfig, pointing to the port on the laptop.
    pub kubeconfig: Secret,
    /// The control plane it leads through.
    pub host: String,
}

impl Tunnel {
    /// Opens a port of 127.0.0.1, a free one where 0 is given, to the API server of a control plane that serves.
    ///
    /// # Errors
    /// As reaching a control plane; kind `Connection` when the port cannot be had.
    pub async fn open(inventory: &Inventory, settings: &Settings, port: u16) -> Result<Self> {
        let Session { host, agent, start, .. } = connect_to_control_plane(inventory, settings).await?;
        let open = async {
            let kubeconfig: Secret = agent.ask(Request::AdminKubeconfig).await?;
            let (address, remote_port) = server(kubeconfig.expose());
            let door = remote::Tunnel::open_at(port, start.connection.clone(), address, remote_port).await?;
            let kubeconfig = pointed(&kubeconfig, door.address())?;
            Ok(Self { door, connection: start.connection.clone(), kubeconfig, host: host.name.clone() })
        };
        open.await.map_err(|failure: Failure| failure.on(&host.name))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    /// Waits until the connection breaks, with the reason, or until the end is asked for.
    ///
    /// # Errors
    /// Kind `Interrupted` for the latter.
    pub async fn broken(&self, cancel: &Cancel) -> Result<Failure> {
        tokio::select! {
            failure = self.connection.closed() => Ok(failure),
            () = cancel.cancelled() => Err(Cancel::failure()),
        }
    }
}

/// The kubeconfig with the laptop's port as its server; the certificate is still checked against the name in it.
fn pointed(kubeconfig: &Secret, address: SocketAddr) -> Result<Secret> {
    let (name, _) = server(kubeconfig.expose());
    let mut changed = Kubeconfig::parse(kubeconfig.expose())?;
    changed.point_to(&format!("https://{address}"));
    changed.expect_name(&name);
    Ok(changed.to_text())
}

#[cfg(test)]
mod tests {
    use super::pointed;
    use crate::secret::Secret;

    #[test]
    fn the_certificate_is_checked_against_the_real_name() {
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: k\n  cluster:\n    server: https://10.0.0.11:6443\n\
                    contexts:\n- name: c\n  context: {cluster: k, user: u}\ncurrent-context: c\nusers: []\n";
        let pointed = pointed(&Secret::new(text), "127.0.0.1:7000".parse().unwrap()).unwrap();
        assert!(pointed.expose().contains("server: https://127.0.0.1:7000"), "{}", pointed.expose());
        assert!(pointed.expose().contains("tls-server-name: 10.0.0.11"), "{}", pointed.expose());
    }
}
