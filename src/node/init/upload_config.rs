//! Phase upload-config: what joining nodes read (kubeadm.md sections 7.1 and 7.2).

use super::plan::Plan;
use crate::api::{Client, create_or_update_all};
use crate::failure::Result;
use crate::kubernetes::kubelet::KubeletConfiguration;
use crate::kubernetes::{objects, rbac};
use crate::node::phase::Changes;

/// Writes kubeadm-config and kubelet-config, and who may read them.
pub(super) async fn upload(client: &Client, plan: &Plan, kubelet: &KubeletConfiguration) -> Result<(Changes, ())> {
    let mut wanted = Vec::new();
    if plan.phases.wants("upload-config/kubeadm") {
        wanted.push(objects::kubeadm_config(&plan.cluster));
        wanted.extend(rbac::kubeadm_config());
    }
    if plan.phases.wants("upload-config/kubelet") {
        // Never with what is special about this node: see '1.37 and corrections', F.
        wanted.push(objects::kubelet_config(&kubelet.document, kubelet.generated));
        wanted.extend(rbac::kubelet_config());
    }
    let changes = create_or_update_all(client, &wanted, plan.init.timeouts.kubernetes_api_call.0).await?;
    Ok((changes, ()))
}

#[cfg(test)]
mod tests {
    use super::upload;
    use crate::api::fake::FakeApi;
    use crate::kubernetes::kubelet;
    use crate::node::init::plan::tests::plan;

    #[tokio::test]
    async fn a_second_time_writes_nothing() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let plan = plan("");
        let kubelet = kubelet::configuration(None, &plan.cluster);
        assert_eq!(upload(&client, &plan, &kubelet).await.unwrap().0.len(), 6);
        assert!(upload(&client, &plan, &kubelet).await.unwrap().0.is_empty());
        let stored = api.object("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").unwrap();
        assert!(stored["data"]["ClusterConfiguration"].as_str().unwrap().contains("kubernetesVersion: v1.36.3"));
    }
}
