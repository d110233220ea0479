//! Waiting until something on this node answers its health path (kubeadm.md section 6.1).

use std::time::Duration;

use crate::api::wait::{Look, Wait};
use crate::api::{Access, Client, Identity, Trust};
use crate::failure::Result;

/// Time between two looks: a component that is up is noticed at once, and a look costs a local connection.
const EVERY: Duration = Duration::from_millis(100);

/// Longest time for one look; a component that accepts and does not answer is looked at again.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// One health path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    /// Name for people: `kube-scheduler`.
    pub(super) component: String,
    /// `http://127.0.0.1:10248`; nobody's certificate is checked, as nothing secret is sent.
    pub(super) server: String,
    /// `/healthz`.
    pub(super) path: String,
}

impl Probe {
    /// Waits until it answers 200.
    ///
    /// # Errors
    /// Kind `Cluster` after `limit`, with what the last look saw.
    pub(super) async fn wait(&self, limit: Duration) -> Result<()> {
        let access = Access { server: self.server.clone(), trust: Trust::Unverified, identity: Identity::Anonymous };
        let client = Client::new(&access).await?.hurried(LOOK_LIMIT).limited(64 << 10);
        let wait = Wait::new(&self.component, "become healthy", limit).every(EVERY);
        wait.until(async || match client.healthy(&self.path).await {
            Ok(()) => Ok(Look::There(())),
            Err(problem) => Ok(Look::NotYet(problem.to_string())),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Probe;

    #[tokio::test]
    async fn what_does_not_answer_is_named_with_the_reason() {
        // Port 1 is reserved and nobody listens there.
        let probe = Probe { component: "kubelet".into(), server: "http://127.0.0.1:1".into(), path: "/healthz".into() };
        let failure = probe.wait(Duration::from_millis(150)).await.unwrap_err();
        assert!(failure.sentence.starts_with("kubelet did not become healthy within"), "{failure}");
        assert!(failure.to_string().contains("refused"), "{failure}");
    }
}
