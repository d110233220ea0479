//! The API server that runs on this very host, with the administrator's rights.

use std::net::IpAddr;
use std::path::Path;

use super::files;
use crate::api::Client;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::configuration::join_host_port;
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::secret::Secret;

pub(super) const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

pub(super) const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// A client of it.
///
/// # Errors
/// Kind `Cluster` where this host has none, or what describes it cannot be used.
pub(super) async fn client(host: &dyn Host) -> Result<Client> {
    let missing = || Failure::new(Kind::Cluster, format!("{MANIFEST} and {ADMIN} do not tell of an API server here"));
    Client::from_kubeconfig(&own_kubeconfig(host).ok_or_else(missing)?).await
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
    use super::own_url;

    #[test]
    fn the_manifest_tells_where_the_api_server_listens() {
        let manifest = "    - --advertise-address=10.0.0.12\n    - --secure-port=7443\n";
        assert_eq!(own_url(manifest).as_deref(), Some("https://10.0.0.12:7443"));
        let quoted = "    - \"--advertise-address=fd00::2\"\n";
        assert_eq!(own_url(quoted).as_deref(), Some("https://[fd00::2]:6443"));
        assert_eq!(own_url("    - --secure-port=7443\n"), None);
    }
}
