//! Phase mark-control-plane: labels and taints of the Node (kubeadm.md section 7.4), and kubelet-finalize: the kubelet
//! follows the certificate it rotates (section 3.2).

use std::path::Path;

use serde_json::{Map, Value, json};

use super::kubeconfigs;
use super::plan::Plan;
use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::configuration::Taint;
use crate::kubernetes::kubeconfig::{KUBELET, Kubeconfig};
use crate::node::files;
use crate::node::phase::Changes;

const LABELS: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"];

/// Where older versions keep the socket of the container runtime (kubeadm.md section 5.5).
pub(in crate::node) const SOCKET_ANNOTATION: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

/// The link to the certificate a kubelet rotates.
pub(in crate::node) const ROTATED: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Waits for the Node and marks it.
pub(in crate::node) async fn mark(client: &Client, plan: &Plan) -> Result<(Changes, ())> {
    let name = plan.node_name();
    let node = &plan.init.node_registration;
    let annotation = (!plan.release.uses_instance_config(&plan.cluster)).then_some(node.cri_socket.as_str());
    let wait =
        Wait::new(format!("Node {name}"), "appear and take its labels", plan.init.timeouts.kubernetes_api_call.0);
    let changed = wait
        .until(async || {
            let there = match client.get("Node", None, name).await {
                Ok(Some(node)) if node.pointer("/metadata/labels/kubernetes.io~1hostname").is_some() => node,
                Ok(_) => return Ok(Look::NotYet("the kubelet has not registered it".to_owned())),
                Err(problem) => return Ok(Look::NotYet(problem.to_string())),
            };
            let Some(patch) = patch(&there, node.taints.as_deref().unwrap_or_default(), annotation) else {
                return Ok(Look::There(false));
            };
            match client.merge("Node", None, name, &patch).await {
                Ok(_) => Ok(Look::There(true)),
                // Retried on any error, as from 1.36 on: the Node is altered by others at the same time.
                Err(problem) => Ok(Look::NotYet(problem.to_string())),
            }
        })
        .await?;
    Ok((changed.then(|| format!("Node {name} marked as control plane")).into_iter().collect(), ()))
}

/// What is missing on the Node; `None` when nothing is. Its own taints are kept.
fn patch(node: &Value, taints: &[Taint], annotation: Option<&str>) -> Option<Value> {
    let empty = Map::new();
    let object = |pointer: &str| node.pointer(pointer).and_then(Value::as_object).unwrap_or(&empty);
    let labelled = LABELS.iter().all(|label| object("/metadata/labels").get(*label) == Some(&json!("")));
    let annotated =
        annotation.is_none_or(|socket| object("/metadata/annotations").get(SOCKET_ANNOTATION) == Some(&json!(socket)));
    let there = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let is =
        |taint: &Taint, other: &Value| other["key"] == taint.key.as_str() && other["effect"] == taint.effect.as_str();
    let missing: Vec<Value> =
        taints.iter().filter(|taint| !there.iter().any(|other| is(taint, other))).map(|taint| json!(taint)).collect();
    if labelled && annotated && missing.is_empty() {
        return None;
    }
    let labels: Map<String, Value> = LABELS.iter().map(|label| ((*label).to_owned(), json!(""))).collect();
    let mut metadata = json!({ "labels": labels });
    if let Some(socket) = annotation {
        metadata["annotations"] = json!({ SOCKET_ANNOTATION: socket });
    }
    if missing.is_empty() {
        return Some(json!({ "metadata": metadata }));
    }
    // Lists are replaced by a merge: the version guards what others wrote meanwhile.
    metadata["resourceVersion"] = node["metadata"]["resourceVersion"].clone();
    let taints = [there, missing].concat();
    Some(json!({ "metadata": metadata, "spec": { "taints": taints } }))
}

/// Points kubelet.conf to the certificate that the kubelet rotates, once there is one.
///
/// Unlike kubeadm it does not restart the kubelet, which holds that certificate already: a kubelet looks at the readiness
/// of pods only after a random part of 10 seconds while it is itself younger than that, and CoreDNS would come up later.
pub(super) fn follow_rotation(host: &dyn Host) -> Result<Changes> {
    let path = kubeconfigs::path(&KUBELET);
    let Some(text) = files::text(host, &path)?.filter(|_| host.entry(Path::new(ROTATED)).is_ok_and(|it| it.is_some()))
    else {
        return Ok(Vec::new());
    };
    let Ok(mut kubeconfig) = Kubeconfig::parse(&text) else { return Ok(Vec::new()) };
    if !kubeconfig.follow_rotation(ROTATED) {
        return Ok(Vec::new());
    }
    files::ensure(host, &path, kubeconfig.to_text().expose().as_bytes(), 0o600)?;
    Ok(vec![format!("{} follows the rotated certificate", path.display())])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Kubeconfig, LABELS, ROTATED, follow_rotation, mark, patch};
    use crate::api::fake::FakeApi;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::control_plane_taint;
    use crate::node::init::plan::tests::plan;
    use crate::secret::Secret;

    #[rstest]
    #[case(json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}), None,
           Some(json!({"metadata": {"labels": {LABELS[0]: "", LABELS[1]: ""}, "resourceVersion": "7"},
                       "spec": {"taints": [{"key": "a", "effect": "NoExecute"},
                                           {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}})))]
    #[case(json!({"metadata": {"labels": {LABELS[0]: "", LABELS[1]: ""}},
                  "spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}}), None, None)]
    #[case(json!({"spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}}), Some("s"),
           Some(json!({"metadata": {"labels": {LABELS[0]: "", LABELS[1]: ""},
                                    "annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": "s"}}})))]
    fn only_what_is_missing(#[case] node: Value, #[case] annotation: Option<&str>, #[case] wanted: Option<Value>) {
        assert_eq!(patch(&node, &[control_plane_taint()], annotation), wanted);
    }

    #[test]
    fn kubelet_conf_follows_the_rotated_certificate_once_there_is_one() {
        let mut kubeconfig = Kubeconfig::bootstrap("https://x:6443", "c", "CA", &Secret::new("t"));
        kubeconfig.users[0].name = "system:node:cp1".into();
        let host = FakeHost::new().file("/etc/kubernetes/kubelet.conf", kubeconfig.to_text().expose());
        assert!(follow_rotation(&host).unwrap().is_empty());
        let host = host.file(ROTATED, "");
        assert_eq!(follow_rotation(&host).unwrap().len(), 1);
        assert!(host.text("/etc/kubernetes/kubelet.conf").unwrap().contains(ROTATED));
        assert!(follow_rotation(&host).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_node_is_marked_once() {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "Node", "metadata": {"name": "cp1", "labels": {"kubernetes.io/hostname": "cp1"}}}));
        let client = api.client().await;
        assert_eq!(mark(&client, &plan("")).await.unwrap().0, ["Node cp1 marked as control plane"]);
        assert!(mark(&client, &plan("")).await.unwrap().0.is_empty());
    }
}
