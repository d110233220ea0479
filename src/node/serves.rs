//! Whether a host is a control plane that does its work: what no file tells.

use std::net::IpAddr;
use std::time::Duration;

use super::own_server;
use crate::api;
use crate::fact::Facts;
use crate::host::Host;

/// Longest time for one of the two questions: facts are waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// The role a finished control plane is marked with.
const ROLE: &str = "control-plane";

/// Whether this host's own API server is ready (with it its etcd) and the cluster has a Node here that is marked as a
/// control plane, which is the last thing that init and join do. Whatever prevents the answer is a no.
pub async fn serves(host: &dyn Host, facts: &Facts) -> bool {
    let Ok(client) = own_server::client(host).await else { return false };
    let client = client.hurried(LIMIT);
    if client.healthy("/readyz").await.is_err() {
        return false;
    }
    let here: Vec<IpAddr> = facts.addresses.iter().map(|link| link.address.addr()).collect();
    let nodes = api::nodes(&client).await.unwrap_or_default();
    nodes.iter().any(|node| {
        node.roles.iter().any(|role| role == ROLE) && node.addresses.iter().any(|address| here.contains(address))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::serves;
    use crate::api::fake::FakeApi;
    use crate::fact::{Facts, LinkAddress};
    use crate::host::fake::FakeHost;
    use crate::node::own_server::{ADMIN, MANIFEST};

    #[tokio::test]
    async fn a_host_without_a_cluster_serves_nothing() {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "Node", "metadata": {"name": "cp1"}}));
        let addresses = vec![LinkAddress { link: "eth0".into(), address: "10.0.0.11/24".parse().unwrap() }];
        let facts = Facts { addresses, ..Facts::default() };
        assert!(!serves(&FakeHost::new(), &facts).await);
        let manifest = "    - --advertise-address=127.0.0.1\n    - --secure-port=1\n";
        let host = FakeHost::new().file(MANIFEST, manifest).file(ADMIN, "clusters: []\n");
        assert!(!serves(&host, &facts).await);
    }
}
