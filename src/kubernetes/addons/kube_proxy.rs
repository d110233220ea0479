//! kube-proxy (kubeadm.md section 11.1).

use serde_json::{Map, Value, json};

use crate::kubernetes::component::write_out_kube_proxy;
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
    write_out_kube_proxy(&mut document);
    document
}

/// Upstream's template, with its order of keys.
fn kubeconfig(server: &str) -> String {
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let lines = [
        "apiVersion: v1",
        "kind: Config",
        "clusters:",
        "- cluster:",
        &format!("    certificate-authority: {account}/ca.crt"),
        &format!("    server: {server}"),
        "  name: default",
        "contexts:",
        "- context:",
        "    cluster: default",
        "    namespace: default",
        "    user: default",
        "  name: default",
        "current-context: default",
        "users:",
        "- name: default",
        "  user:",
        &format!("    tokenFile: {account}/token"),
    ];
    lines.join("\n")
}

/// All objects of kube-proxy: ServiceAccount, rights, ConfigMap, DaemonSet.
pub fn kube_proxy(settings: &KubeProxy<'_>) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
    })];
    objects.extend(rbac::kube_proxy());
    // Upstream's template cuts the last newline off, and the hash is made over the text.
    let texts = (kubeconfig(settings.server), yaml(settings.configuration));
    let texts = [("kubeconfig.conf", texts.0.as_str()), ("config.conf", texts.1.trim_end())];
    let mut stored = config_map("kube-proxy", "kube-system", &texts);
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
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/conntrack/maxPerCore", json!(0))]
    #[case("/mode", json!("nftables"))]
    #[case("/bindAddress", json!("0.0.0.0"))]
    #[case("/clusterCIDR", json!("10.244.0.0/16"))]
    #[case("/clientConnection/kubeconfig", json!("/var/lib/kube-proxy/kubeconfig.conf"))]
    #[case("/ipvs/syncPeriod", json!("0s"))]
    fn what_a_person_gave_stays_and_kubeadms_fields_are_filled_in(#[case] field: &str, #[case] expected: Value) {
        let given = json!({ "conntrack": { "maxPerCore": 0 }, "mode": "nftables" });
        let written = configuration(Some(&given), "10.244.0.0/16", false, true);
        assert_eq!(written.pointer(field), Some(&expected));
    }

    #[rstest]
    #[case(true, "iptables")]
    #[case(false, "")]
    fn what_is_empty_is_written_too(#[case] write_mode: bool, #[case] mode: &str) {
        let written = configuration(None, "", true, write_mode);
        assert_eq!(
            (&written["mode"], &written["clusterCIDR"], &written["bindAddress"]),
            (&json!(mode), &json!(""), &json!("::"))
        );
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
