//! Every Role and binding a kubeadm cluster has (kubeadm.md sections 3.3, 7, 8.4 and 8.5), by the phase that makes it.

use serde_json::{Value, json};

/// Group of whoever authenticates with a bootstrap token of kubeadm's.
pub const NODE_BOOTSTRAP_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// Group of all nodes.
const NODES: &str = "system:nodes";

/// Group of the administrators that kubeadm makes.
pub const ADMINISTRATORS: &str = "kubeadm:cluster-admins";

const API: &str = "rbac.authorization.k8s.io";

fn metadata(name: &str, namespace: Option<&str>) -> Value {
    match namespace {
        Some(namespace) => json!({ "name": name, "namespace": namespace }),
        None => json!({ "name": name }),
    }
}

fn group(name: &str) -> Value {
    json!({ "apiGroup": API, "kind": "Group", "name": name })
}

fn user(name: &str) -> Value {
    json!({ "apiGroup": API, "kind": "User", "name": name })
}

/// A subject for a binding: a ServiceAccount of kube-system.
pub fn service_account(name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" })
}

/// A Role that may get one ConfigMap or Secret.
fn get_one(name: &str, namespace: &str, resource: &str, object: &str) -> Value {
    json!({
        "apiVersion": format!("{API}/v1"),
        "kind": "Role",
        "metadata": metadata(name, Some(namespace)),
        "rules": [{ "apiGroups": [""], "resources": [resource], "resourceNames": [object], "verbs": ["get"] }],
    })
}

fn binding(name: &str, namespace: Option<&str>, role_kind: &str, role: &str, subjects: Vec<Value>) -> Value {
    json!({
        "apiVersion": format!("{API}/v1"),
        "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
        "metadata": metadata(name, namespace),
        "roleRef": { "apiGroup": API, "kind": role_kind, "name": role },
        "subjects": subjects,
    })
}

/// A ClusterRoleBinding of a ClusterRole.
pub fn cluster_binding(name: &str, role: &str, subjects: Vec<Value>) -> Value {
    binding(name, None, "ClusterRole", role, subjects)
}

/// A RoleBinding of the Role of the same name in the same namespace.
fn own_binding(name: &str, namespace: &str, subjects: Vec<Value>) -> Value {
    binding(name, Some(namespace), "Role", name, subjects)
}

/// Makes `kubeadm:cluster-admins` administrators; without it admin.conf has no power (section 3.3).
pub fn cluster_admins() -> Value {
    cluster_binding(ADMINISTRATORS, "cluster-admin", vec![group(ADMINISTRATORS)])
}

/// Who may read kubeadm-config: joining and joined nodes (section 7.1).
pub fn kubeadm_config() -> Vec<Value> {
    let name = "kubeadm:nodes-kubeadm-config";
    vec![
        get_one(name, "kube-system", "configmaps", "kubeadm-config"),
        own_binding(name, "kube-system", vec![group(NODE_BOOTSTRAP_GROUP), group(NODES)]),
    ]
}

/// Who may read kubelet-config (section 7.2).
pub fn kubelet_config() -> Vec<Value> {
    let name = "kubeadm:kubelet-config";
    vec![
        get_one(name, "kube-system", "configmaps", "kubelet-config"),
        own_binding(name, "kube-system", vec![group(NODES), group(NODE_BOOTSTRAP_GROUP)]),
    ]
}

/// Who may read the uploaded certificates (section 7.3).
pub fn kubeadm_certs() -> Vec<Value> {
    let name = "kubeadm:kubeadm-certs";
    vec![
        get_one(name, "kube-system", "secrets", "kubeadm-certs"),
        own_binding(name, "kube-system", vec![group(NODE_BOOTSTRAP_GROUP)]),
    ]
}

/// What lets a machine with a bootstrap token become a node (section 8.4), in kubeadm's order. The binding of the API
/// server's kubelet client is made for every minor: harmless before 1.36.1, and needed by control planes that a newer
/// kubeadm joins (section "1.37 and corrections", C).
pub fn bootstrap_token() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": "ClusterRole",
            "metadata": metadata("kubeadm:get-nodes", None),
            "rules": [{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] }],
        }),
        cluster_binding("kubeadm:get-nodes", "kubeadm:get-nodes", vec![group(NODE_BOOTSTRAP_GROUP)]),
        cluster_binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", vec![group(NODE_BOOTSTRAP_GROUP)]),
        cluster_binding(
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            vec![group(NODE_BOOTSTRAP_GROUP)],
        ),
        cluster_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            vec![group(NODES)],
        ),
        kubelet_client(),
    ]
}

/// What the API servers' kubelet client may do: its certificate has no group from 1.36.1 on ('1.37 and corrections', C).
pub fn kubelet_client() -> Value {
    let subjects = vec![user("kube-apiserver-kubelet-client")];
    cluster_binding("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", subjects)
}

/// Lets anybody read cluster-info (section 8.2).
pub fn cluster_info() -> Vec<Value> {
    let name = "kubeadm:bootstrap-signer-clusterinfo";
    vec![
        get_one(name, "kube-public", "configmaps", "cluster-info"),
        own_binding(name, "kube-public", vec![user("system:anonymous")]),
    ]
}

/// kube-proxy's rights, and who may read its configuration while joining (section 11.1).
pub fn kube_proxy() -> Vec<Value> {
    vec![
        cluster_binding("kubeadm:node-proxier", "system:node-proxier", vec![service_account("kube-proxy")]),
        get_one("kube-proxy", "kube-system", "configmaps", "kube-proxy"),
        own_binding("kube-proxy", "kube-system", vec![group(NODE_BOOTSTRAP_GROUP)]),
    ]
}

/// CoreDNS's rights (section 11.2).
pub fn coredns() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": "ClusterRole",
            "metadata": metadata("system:coredns", None),
            "rules": [
                { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        cluster_binding("system:coredns", "system:coredns", vec![service_account("coredns")]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 8.5, the complete list.
    #[test]
    fn the_names_are_kubeadms() {
        let all: Vec<Value> = [
            vec![cluster_admins()],
            kubeadm_config(),
            kubelet_config(),
            kubeadm_certs(),
            bootstrap_token(),
            cluster_info(),
            kube_proxy(),
            coredns(),
        ]
        .concat();
        let names: Vec<String> = all
            .iter()
            .map(|object| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let metadata = &object["metadata"];
                format!("{} {} {}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
            })
            .collect();
        assert_eq!(
            names,
            [
                "ClusterRoleBinding  kubeadm:cluster-admins",
                "Role kube-system kubeadm:nodes-kubeadm-config",
                "RoleBinding kube-system kubeadm:nodes-kubeadm-config",
                "Role kube-system kubeadm:kubelet-config",
                "RoleBinding kube-system kubeadm:kubelet-config",
                "Role kube-system kubeadm:kubeadm-certs",
                "RoleBinding kube-system kubeadm:kubeadm-certs",
                "ClusterRole  kubeadm:get-nodes",
                "ClusterRoleBinding  kubeadm:get-nodes",
                "ClusterRoleBinding  kubeadm:kubelet-bootstrap",
                "ClusterRoleBinding  kubeadm:node-autoapprove-bootstrap",
                "ClusterRoleBinding  kubeadm:node-autoapprove-certificate-rotation",
                "ClusterRoleBinding  kubeadm:apiserver-kubelet-client",
                "Role kube-public kubeadm:bootstrap-signer-clusterinfo",
                "RoleBinding kube-public kubeadm:bootstrap-signer-clusterinfo",
                "ClusterRoleBinding  kubeadm:node-proxier",
                "Role kube-system kube-proxy",
                "RoleBinding kube-system kube-proxy",
                "ClusterRole  system:coredns",
                "ClusterRoleBinding  system:coredns",
            ]
        );
    }
}
