//! Documents as a text again: what flags and a file come to is read by everybody the same way.

use serde::Serialize;
use serde_json::{Value, json};

use super::Documents;
use crate::kubernetes::text::yaml;
use crate::secret::Secret;

/// Between two documents.
const SEPARATOR: &str = "---\n";

impl Documents {
    /// The documents as kubeadm.k8s.io/v1beta4 and the components' own kinds. Secret because tokens stand in it.
    pub fn to_text(&self) -> Secret {
        let documents = [
            self.init.as_ref().map(|document| kubeadm("InitConfiguration", document)),
            self.cluster.as_ref().map(|document| kubeadm("ClusterConfiguration", document)),
            self.join.as_ref().map(|document| kubeadm("JoinConfiguration", document)),
            self.reset.as_ref().map(|document| kubeadm("ResetConfiguration", document)),
            self.upgrade.as_ref().map(|document| kubeadm("UpgradeConfiguration", document)),
            self.kubelet.clone(),
            self.kube_proxy.clone(),
        ];
        let texts: Vec<String> = documents.iter().flatten().map(yaml).collect();
        Secret::new(texts.join(SEPARATOR))
    }
}

/// A document of kubeadm's with its header.
fn kubeadm(kind: &str, document: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(document).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".into(), json!("kubeadm.k8s.io/v1beta4"));
        fields.insert("kind".into(), json!(kind));
    }
    value
}

#[cfg(test)]
mod tests {
    use crate::kubernetes::configuration::load;

    #[test]
    fn what_was_read_is_read_again() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
                    bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 1h0m0s}]\n\
                    nodeRegistration: {name: cp1, taints: []}\nskipPhases: [addon/kube-proxy]\n---\n\
                    apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n\
                    apiServer: {extraArgs: [{name: v, value: '2'}]}\nfeatureGates: {RootlessControlPlane: false}\n---\n\
                    apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n\
                    discovery: {file: {kubeConfigPath: /tmp/x}}\ncontrolPlane: {localAPIEndpoint: {bindPort: 7443}}\n---\n\
                    apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\n---\n\
                    apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 20\n";
        let read = load(text).unwrap();
        assert_eq!(load(read.to_text().expose()).unwrap(), read);
    }
}
