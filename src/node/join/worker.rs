//! A host becomes a worker (kubeadm.md section 10.3).

use std::path::Path;

use super::discovery::Found;
use super::{BOOTSTRAP_KUBECONFIG, Membership, trust};
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::configuration::JoinConfiguration;
use crate::node::kubelet;
use crate::node::phase::Changes;

/// Writes what the kubelet trusts and asks for its certificate with, and starts it. Patches that do not fit leave the host
/// as it was; and whatever happens later, no token stays on the disk that nobody will use.
pub(super) async fn start(
    host: &dyn Host,
    configuration: &JoinConfiguration,
    settings: &kubelet::Settings<'_>,
    found: &Found,
    member: Membership,
) -> Result<(Changes, ())> {
    let prepared = kubelet::prepare(host, settings).await?;
    let started = async {
        let mut changes = trust(host, configuration, &settings.cluster.cluster_name, found, member)?;
        let restart = !changes.is_empty();
        changes.extend(kubelet::begin(host, prepared, restart).await?);
        Ok((changes, ()))
    };
    let started = started.await;
    if started.is_err() {
        host.remove(Path::new(BOOTSTRAP_KUBECONFIG))?;
    }
    started
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::start;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::ClusterConfiguration;
    use crate::kubernetes::patches::Patches;
    use crate::kubernetes::version::Release;
    use crate::node::init::tests::facts;
    use crate::node::join::tests::{found, order};
    use crate::node::join::{Membership, load};
    use crate::node::kubelet;

    /// Starts a worker's kubelet with a patch; the sentence it failed with, if it did.
    async fn started(host: &FakeHost, patch: &str) -> Option<String> {
        let configuration = load(host, &facts(), &order(""), &Events::nowhere()).unwrap();
        let cluster = ClusterConfiguration { kubernetes_version: "v1.36.3".into(), ..Default::default() };
        let release = Release::of(&semver::Version::new(1, 36, 3)).unwrap();
        let texts = [("/p/kubeletconfiguration+json.yaml".to_owned(), patch.to_owned())];
        let (patches, _) = Patches::read(&texts, release).unwrap();
        let settings = kubelet::Settings {
            cluster: &cluster,
            release,
            node: &configuration.node_registration,
            hostname: "w1",
            shared: &json!({"kind": "KubeletConfiguration", "maxPods": 110}),
            joining_worker: true,
            patches: &patches,
        };
        start(host, &configuration, &settings, &found(), Membership::None).await.err().map(|failure| failure.sentence)
    }

    fn host() -> FakeHost {
        FakeHost::new().answer(&["systemctl"], 0, "").every_unit("LoadState=loaded\nActiveState=inactive\n")
    }

    #[tokio::test]
    async fn patches_that_do_not_fit_leave_no_token_and_no_ca() {
        let host = host();
        let failed = started(&host, "[{op: remove, path: /none}]").await;
        assert!(failed.is_some());
        assert!(host.text("/etc/kubernetes/bootstrap-kubelet.conf").is_none());
        assert!(host.text("/etc/kubernetes/pki/ca.crt").is_none());
        assert_eq!(started(&host, "[{op: remove, path: /maxPods}]").await, None);
        assert!(host.text("/etc/kubernetes/bootstrap-kubelet.conf").is_some());
    }

    #[tokio::test]
    async fn a_kubelet_that_cannot_be_started_leaves_no_token() {
        let host = host().answer(&["systemctl", "restart"], 1, "");
        assert!(started(&host, "[]").await.is_some());
        assert!(host.text("/etc/kubernetes/bootstrap-kubelet.conf").is_none());
    }
}
