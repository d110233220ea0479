//! kube-proxy (kubeadm.md section 11.1).

use serde_json::{Map, Value, json};

use crate::kubernetes::objects::{config_map, mark_generated};
use crate::kubernetes::rbac;
use crate::kubernetes::text::yaml;

/// Where the DaemonSet mounts its ConfigMap.
const FOLDER: &str = "/var/lib/kube-proxy";

/// What kube-proxy is deployed with.
#[derive(Debug, Clone)]
pub struct KubeProxy<'a> {
    /// Full image reference.
    pub image: &'a str,
    /// URL of the API server for all nodes.
    pub server: &'a str,
    /// The KubeProxyConfiguration document, completed by [`configuration`].
    pub configuration: &'a Value,
    /// Whether no document was given by a person.
    pub generated: bool,
    /// Proxy variables of the environment (names that end in `_proxy`), sorted.
    pub proxy_environment: &'a [(String, String)],
}

/// The KubeProxyConfiguration that kubeadm would write: what a person gave, with kubeadm's own fields where they are
/// empty. `ipv6` says the family of the advertise address; `write_mode` that an empty mode is written out (1.37).
pub fn configuration(given: Option<&Value>, pod_networks: &str, ipv6: bool, write_mode: bool) -> Value {
    let mut document = given.cloned().unwrap_or_else(|| json!({}));
    if !document.is_object() {
        document = Value::Object(Map::new());
    }
    document["apiVersion"] = json!("kubeproxy.config.k8s.io/v1alpha1");
    document["kind"] = json!("KubeProxyConfiguration");
    let empty = |value: Option<&Value>| value.and_then(Value::as_str).is_none_or(str::is_empty);
    if empty(document.get("bindAddress")) {
        document["bindAddress"] = json!(if ipv6 { "::" } else { "0.0.0.0" });
    }
    if empty(document.get("clusterCIDR")) && !pod_networks.is_empty() {
        document["clusterCIDR"] = json!(pod_networks);
    }
    if !document.get("clientConnection").is_some_and(Value::is_object) {
        document["clientConnection"] = json!({});
    }
    if empty(document["clientConnection"].get("kubeconfig")) {
        document["clientConnection"]["kubeconfig"] = json!(format!("{FOLDER}/kubeconfig.conf"));
    }
    if write_mode && empty(document.get("mode")) {
        document["mode"] = json!("iptables");
    }
    document
}

fn kubeconfig(server: &str) -> Value {
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "cluster": { "certificate-authority": format!("{account}/ca.crt"), "server": server }, "name": "default" }],
        "contexts": [{ "context": { "cluster": "default", "namespace": "default", "user": "default" }, "name": "default" }],
        "current-context": "default",
        "users": [{ "name": "default", "user": { "tokenFile": format!("{account}/token") } }],
    })
}

/// All objects of kube-proxy: ServiceAccount, rights, ConfigMap, DaemonSet.
pub fn kube_proxy(settings: &KubeProxy<'_>) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
    })];
    objects.extend(rbac::kube_proxy());
    let texts = (yaml(&kubeconfig(settings.server)), yaml(settings.configuration));
    let mut stored =
        config_map("kube-proxy", "kube-system", &[("kubeconfig.conf", &texts.0), ("config.conf", &texts.1)]);
    stored["metadata"]["labels"] = json!({ "app": "kube-proxy" });
    if settings.generated {
        mark_generated(&mut stored);
    }
    objects.push(stored);
    objects.push(daemon_set(settings));
    objects
}

fn daemon_set(settings: &KubeProxy<'_>) -> Value {
    let mut environment =
        vec![json!({ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } })];
    environment.extend(settings.proxy_environment.iter().map(|(name, value)| json!({ "name": name, "value": value })));
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system", "labels": { "k8s-app": "kube-proxy" } },
        "spec": {
            "selector": { "matchLabels": { "k8s-app": "kube-proxy" } },
            "updateStrategy": { "type": "RollingUpdate" },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-proxy" } },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "containers": [{
                        "name": "kube-proxy",
                        "image": settings.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": [
                            "/usr/local/bin/kube-proxy",
                            format!("--config={FOLDER}/config.conf"),
                            "--hostname-override=$(NODE_NAME)",
                        ],
                        "securityContext": { "privileged": true },
                        "volumeMounts": [
                            { "mountPath": FOLDER, "name": "kube-proxy" },
                            { "mountPath": "/run/xtables.lock", "name": "xtables-lock", "readOnly": false },
                            { "mountPath": "/lib/modules", "name": "lib-modules", "readOnly": true },
                        ],
                        "env": environment,
                    }],
                    "hostNetwork": true,
                    "serviceAccountName": "kube-proxy",
                    "volumes": [
                        { "name": "kube-proxy", "configMap": { "name": "kube-proxy" } },
                        { "name": "xtables-lock", "hostPath": { "path": "/run/xtables.lock", "type": "FileOrCreate" } },
                        { "name": "lib-modules", "hostPath": { "path": "/lib/modules" } },
                    ],
                    "tolerations": [{ "operator": "Exists" }],
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_gave_stays_and_kubeadms_fields_are_filled_in() {
        let given = json!({ "conntrack": { "maxPerCore": 0 }, "mode": "nftables" });
        let written = configuration(Some(&given), "10.244.0.0/16", false, true);
        assert_eq!(
            written,
            json!({
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "bindAddress": "0.0.0.0",
                "clusterCIDR": "10.244.0.0/16",
                "clientConnection": { "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf" },
                "conntrack": { "maxPerCore": 0 },
                "mode": "nftables",
            })
        );
    }

    #[test]
    fn without_a_pod_network_there_is_no_cluster_cidr() {
        let written = configuration(None, "", true, false);
        assert!(written.get("clusterCIDR").is_none());
        assert!(written.get("mode").is_none());
        assert_eq!(written["bindAddress"], "::");
    }

    #[test]
    fn the_config_map_is_hashed_only_when_generated() {
        let configuration = configuration(None, "", false, false);
        let stored = |generated| {
            let settings = KubeProxy {
                image: "i",
                server: "https://h:6443",
                configuration: &configuration,
                generated,
                proxy_environment: &[],
            };
            kube_proxy(&settings).into_iter().find(|object| object["kind"] == "ConfigMap").unwrap()
        };
        assert!(stored(true)["metadata"]["annotations"].is_object());
        assert!(stored(false)["metadata"].get("annotations").is_none());
    }
}
