//! Where the objects of a kind live on an API server.

use serde_json::Value;

use super::problem::Problem;

/// The kinds we handle: kind, path of its group and version, plural, whether it lives in a namespace.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("Namespace", "/api/v1", "namespaces", false),
    ("Node", "/api/v1", "nodes", false),
    ("Pod", "/api/v1", "pods", true),
    ("ConfigMap", "/api/v1", "configmaps", true),
    ("Secret", "/api/v1", "secrets", true),
    ("Service", "/api/v1", "services", true),
    ("ServiceAccount", "/api/v1", "serviceaccounts", true),
    ("Deployment", "/apis/apps/v1", "deployments", true),
    ("DaemonSet", "/apis/apps/v1", "daemonsets", true),
    ("Role", "/apis/rbac.authorization.k8s.io/v1", "roles", true),
    ("RoleBinding", "/apis/rbac.authorization.k8s.io/v1", "rolebindings", true),
    ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("PriorityClass", "/apis/scheduling.k8s.io/v1", "priorityclasses", false),
    ("ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
    ("Lease", "/apis/coordination.k8s.io/v1", "leases", true),
    ("CertificateSigningRequest", "/apis/certificates.k8s.io/v1", "certificatesigningrequests", false),
];

/// One object's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: String,
    group: &'static str,
    plural: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl Resource {
    /// The place of an object by kind and names; an empty name stands for the whole collection.
    pub(super) fn named(kind: &str, namespace: Option<&str>, name: &str) -> Result<Self, Problem> {
        let Some((_, group, plural, namespaced)) = KINDS.iter().find(|(known, ..)| *known == kind) else {
            return Err(Problem::Unreadable(format!("objects of kind {kind} are not known here")));
        };
        // Names come from hosts and inventories: none may lead to another path.
        let safe = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
        if !safe(name) || !namespace.is_none_or(safe) || name == ".." || name == "." {
            return Err(Problem::Unreadable(format!("{name:?} is no name of a {kind}")));
        }
        let namespace = namespace.filter(|_| *namespaced).map(str::to_owned);
        Ok(Self { kind: kind.to_owned(), group, plural, namespace, name: name.to_owned() })
    }

    /// The place of an object that carries its kind and names.
    pub(super) fn of(object: &Value) -> Result<Self, Problem> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let name = text("/metadata/name").unwrap_or_default();
        if name.is_empty() {
            return Err(Problem::Unreadable(format!("an object of kind {kind:?} has no name")));
        }
        Self::named(kind, text("/metadata/namespace"), name)
    }

    /// Path of all objects of the kind (in the namespace, if there is one).
    pub(super) fn collection(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.group, self.plural),
            None => format!("{}/{}", self.group, self.plural),
        }
    }

    /// Whether a path is that of all objects of a kind, in a namespace or everywhere.
    pub(super) fn is_collection(path: &str) -> bool {
        KINDS.iter().any(|(_, group, plural, namespaced)| {
            let rest = path.strip_prefix(group).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
            let words: Vec<&str> = rest.split('/').collect();
            match words.as_slice() {
                [kind] => kind == plural,
                ["namespaces", _, kind] => *namespaced && kind == plural,
                _ => false,
            }
        })
    }

    /// Path of the object.
    pub(super) fn item(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }
}

impl std::fmt::Display for Resource {
    /// `ConfigMap kube-system/kubeadm-config`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(formatter, "{} {namespace}/{}", self.kind, self.name),
            None => write!(formatter, "{} {}", self.kind, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::Resource;

    #[rstest]
    #[case("ConfigMap", Some("kube-public"), "cluster-info", "/api/v1/namespaces/kube-public/configmaps/cluster-info")]
    #[case("Node", None, "w1", "/api/v1/nodes/w1")]
    #[case("Node", Some("ignored"), "w1", "/api/v1/nodes/w1")]
    #[case(
        "ClusterRoleBinding",
        None,
        "kubeadm:get-nodes",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:get-nodes"
    )]
    #[case(
        "DaemonSet",
        Some("kube-system"),
        "kube-proxy",
        "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"
    )]
    fn paths(#[case] kind: &str, #[case] namespace: Option<&str>, #[case] name: &str, #[case] path: &str) {
        assert_eq!(Resource::named(kind, namespace, name).unwrap().item(), path);
    }

    #[rstest]
    #[case(json!({"kind": "Node", "metadata": {"name": "../secrets"}}))]
    #[case(json!({"kind": "Node", "metadata": {"name": ".."}}))]
    #[case(json!({"kind": "Node", "metadata": {}}))]
    #[case(json!({"kind": "Banana", "metadata": {"name": "b"}}))]
    fn what_is_no_object_of_ours_is_refused(#[case] object: serde_json::Value) {
        assert!(Resource::of(&object).is_err());
    }
}
