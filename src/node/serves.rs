//! Whether a host is a control plane that does its work: what no file tells.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::files;
use crate::api::{self, Client};
use crate::fact::Facts;
use crate::host::Host;
use crate::kubernetes::configuration::join_host_port;
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::secret::Secret;

/// Longest time for one of the two questions: facts are waited for.
const LIMIT: Duration = Duration::from_secs(2);

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// The role a finished control plane is marked with.
const ROLE: &str = "control-plane";

/// Whether this host's own API server is ready (with it its etcd) and the cluster has a Node here that is marked as a
/// control plane, which is the last thing that init and join do. Whatever prevents the answer is a no.
pub async fn serves(host: &dyn Host, facts: &Facts) -> bool {
    let Some(own) = own_kubeconfig(host) else { return false };
    let Ok(client) = Client::from_kubeconfig(&own).await else { return false };
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

/// The administrator's kubeconfig, pointed to the API server that the manifest of this host describes.
fn own_kubeconfig(host: &dyn Host) -> Option<Secret> {
    let manifest = files::text(host, Path::new(MANIFEST)).ok()??;
    let mut kubeconfig = Kubeconfig::parse(&files::text(host, Path::new(ADMIN)).ok()??).ok()?;
    kubeconfig.point_to(&own_url(&manifest)?);
    Some(kubeconfig.to_text())
}

/// `https://10.0.0.11:6443` of the manifest's flags.
fn own_url(manifest: &str) -> Option<String> {
    let flag = |flag: &str| {
        let lines = manifest.lines().map(|line| line.trim().trim_start_matches("- ").trim_matches(['"', '\'']));
        lines.filter_map(|line| line.strip_prefix(flag)).next().map(str::to_owned)
    };
    let address: IpAddr = flag("--advertise-address=")?.parse().ok()?;
    let port = flag("--secure-port=").and_then(|port| port.parse().ok()).unwrap_or(6443);
    Some(format!("https://{}", join_host_port(&address.to_string(), port)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{own_url, serves};
    use crate::api::fake::FakeApi;
    use crate::fact::{Facts, LinkAddress};
    use crate::host::fake::FakeHost;

    #[test]
    fn the_manifest_tells_where_the_api_server_listens() {
        let manifest = "    - --advertise-address=10.0.0.12\n    - --secure-port=7443\n";
        assert_eq!(own_url(manifest).as_deref(), Some("https://10.0.0.12:7443"));
        let quoted = "    - \"--advertise-address=fd00::2\"\n";
        assert_eq!(own_url(quoted).as_deref(), Some("https://[fd00::2]:6443"));
        assert_eq!(own_url("    - --secure-port=7443\n"), None);
    }

    #[tokio::test]
    async fn a_host_without_a_cluster_serves_nothing() {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "Node", "metadata": {"name": "cp1"}}));
        let addresses = vec![LinkAddress { link: "eth0".into(), address: "10.0.0.11/24".parse().unwrap() }];
        let facts = Facts { addresses, ..Facts::default() };
        assert!(!serves(&FakeHost::new(), &facts).await);
        let manifest = "    - --advertise-address=127.0.0.1\n    - --secure-port=1\n";
        let host = FakeHost::new().file(super::MANIFEST, manifest).file(super::ADMIN, "clusters: []\n");
        assert!(!serves(&host, &facts).await);
    }
}
