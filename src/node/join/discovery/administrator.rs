//! Discovery by admin.conf, on a host that is a control plane in part already (kubeadm.md section 9.3): one phase after the
//! other works there without a token that still holds.

use std::path::Path;

use super::{Found, in_time, pins};
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::certificates::public_key_hash;
use crate::kubernetes::configuration::Discovery;
use crate::kubernetes::kubeconfig::{ADMIN, Kubeconfig};
use crate::node::init::kubeconfigs;
use crate::node::{defaults, files};
use crate::secret::Secret;

/// The cluster that this host's admin.conf leads to, when discovery is told of no other: by admin.conf itself, or by a hash
/// of its CA. `None` where the cluster must be looked for.
///
/// # Errors
/// Kind `Cluster` for a CA that is out of its time; `Configuration` for hashes that are none.
pub(in crate::node::join) fn administrator(host: &dyn Host, discovery: &Discovery) -> Result<Option<Found>> {
    let path = kubeconfigs::path(&ADMIN);
    let Some(text) = files::text(host, &path)? else { return Ok(None) };
    // One that cannot be read is judged where kubeconfigs are.
    let Some(cluster) = Kubeconfig::parse(&text).ok().and_then(|read| read.current_cluster().cloned()) else {
        return Ok(None);
    };
    let Ok(ca_pem) = cluster.ca_pem() else { return Ok(None) };
    let meant = match (&discovery.bootstrap_token, &discovery.file) {
        (Some(by_token), _) => {
            let pins = pins(&by_token.ca_cert_hashes)?;
            public_key_hash(&ca_pem).unwrap_or_default().iter().any(|hash| pins.contains(hash))
        }
        (None, Some(by_file)) => Path::new(&by_file.kube_config_path) == path,
        (None, None) => false,
    };
    if !meant {
        return Ok(None);
    }
    in_time(&ca_pem, defaults::now_seconds()?)?;
    Ok(Some(Found { server: cluster.server, ca_pem, credentials: Some(Secret::new(text)) }))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::administrator;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::certificates::public_key_hash;
    use crate::kubernetes::configuration::{BootstrapTokenDiscovery, Discovery, FileDiscovery};
    use crate::node::init::tests::{facts, order};
    use crate::node::init::{ByHand, init_by_hand};

    /// A host with a CA and the kubeconfig of its administrator.
    async fn host() -> FakeHost {
        let host = FakeHost::new();
        for phase in ["certs/ca", "kubeconfig/admin"] {
            let by_hand = ByHand { only: Some(phase), ..ByHand::default() };
            init_by_hand(&host, &facts(), &order(""), by_hand, &Events::nowhere()).await.unwrap();
        }
        host
    }

    fn by_token(hash: String) -> Discovery {
        let by_token = BootstrapTokenDiscovery { ca_cert_hashes: vec![hash], ..Default::default() };
        Discovery { bootstrap_token: Some(by_token), ..Discovery::default() }
    }

    fn by_file(path: &str) -> Discovery {
        Discovery { file: Some(FileDiscovery { kube_config_path: path.into() }), ..Discovery::default() }
    }

    #[rstest]
    #[case("/etc/kubernetes/admin.conf", true)]
    #[case("/root/another", false)]
    #[tokio::test]
    async fn admin_conf_is_taken_when_it_is_named(#[case] path: &str, #[case] taken: bool) {
        let host = host().await;
        let found = administrator(&host, &by_file(path)).unwrap();
        assert_eq!(found.is_some(), taken);
        if let Some(found) = found {
            assert_eq!(found.server, "https://10.0.0.11:6443");
            assert_eq!(Some(found.ca_pem.trim()), host.text("/etc/kubernetes/pki/ca.crt").as_deref().map(str::trim));
            assert!(found.credentials.is_some());
        }
        assert_eq!(administrator(&FakeHost::new(), &by_file(path)), Ok(None));
    }

    #[tokio::test]
    async fn admin_conf_is_taken_when_its_ca_is_the_one_that_is_looked_for() {
        let host = host().await;
        let hashes = public_key_hash(&host.text("/etc/kubernetes/pki/ca.crt").unwrap()).unwrap();
        assert!(administrator(&host, &by_token(hashes[0].clone())).unwrap().is_some());
        assert_eq!(administrator(&host, &by_token(format!("sha256:{}", "0".repeat(64)))), Ok(None));
    }
}
