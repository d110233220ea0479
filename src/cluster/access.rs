//! Access to the cluster's API through the connection to a control plane: port 6443 need not be open to the laptop.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::connect::Session;
use crate::api::wait::{Look, Wait};
use crate::api::{self, Client};
use crate::failure::{Failure, Kind, Result};
use crate::message::Request;
use crate::remote::Tunnel;
use crate::secret::Secret;

/// The API server's port on a control plane, where its kubeconfig names none.
const DEFAULT_PORT: u16 = 6443;

/// A client of the API with its tunnel.
#[derive(Clone)]
pub struct Api {
    client: Client,
    kubeconfig: Secret,
    _tunnel: Arc<Tunnel>,
}

impl Deref for Api {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Api {
    /// Opens a tunnel to the API server of this control plane, with the administrator's rights.
    pub async fn open(session: &Session) -> Result<Self> {
        Self::open_with(session, session.agent.ask(Request::AdminKubeconfig).await?).await
    }

    /// The same with the administrator's kubeconfig as it lies there.
    pub async fn open_with(session: &Session, kubeconfig: Secret) -> Result<Self> {
        let open = async {
            let (host, port) = server(kubeconfig.expose());
            let tunnel = Tunnel::open(session.start.connection.clone(), host, port).await?;
            let client = Client::through(&kubeconfig, tunnel.address()).await?;
            Ok(Self { client, kubeconfig, _tunnel: Arc::new(tunnel) })
        };
        open.await.map_err(|failure: Failure| failure.on(&session.host.name))
    }

    /// The administrator's kubeconfig as it lies on the control plane.
    pub fn kubeconfig(&self) -> &Secret {
        &self.kubeconfig
    }

    /// Waits until the controller manager has given a node its pod network.
    pub async fn pod_network(&self, node: &str, limit: Duration) -> Result<IpNet> {
        let wait = Wait::new(format!("the node {node}"), "get a pod network", limit);
        wait.until(async || {
            let found = match api::node(self, node).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(Look::NotYet("there is no such node".to_owned())),
                Err(failure) => return Ok(Look::NotYet(failure.to_string())),
            };
            Ok(found.pod_network().map_or_else(|| Look::NotYet("it has none yet".to_owned()), Look::There))
        })
        .await
        .map_err(|failure| {
            Failure { kind: Kind::Cluster, ..failure }
                .advise("look at the controller manager's log: `clusterctl kubectl -- -n kube-system logs -l component=kube-controller-manager`")
        })
    }
}

/// Host and port of the first `server:` of a kubeconfig.
pub(super) fn server(kubeconfig: &str) -> (String, u16) {
    let url = kubeconfig.lines().find_map(|line| line.trim().trim_start_matches("- ").strip_prefix("server:"));
    let authority =
        url.unwrap_or_default().trim().trim_matches('"').trim_start_matches("https://").trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (if host.is_empty() { "127.0.0.1".to_owned() } else { host.to_owned() }, port.parse().unwrap_or(DEFAULT_PORT))
}

#[cfg(test)]
mod tests {
    use super::server;

    #[test]
    fn the_tunnel_leads_to_where_the_kubeconfig_points() {
        assert_eq!(server("clusters:\n- cluster:\n    server: https://10.0.0.11:6443\n"), ("10.0.0.11".into(), 6443));
        assert_eq!(server("    server: https://[fd00::1]:7443\n"), ("fd00::1".into(), 7443));
        assert_eq!(server(""), ("127.0.0.1".into(), 6443));
    }
}
