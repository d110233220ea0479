//! What the kubelet is given (kubeadm.md section 5): config.yaml, instance-config.yaml, kubeadm-flags.env.

use serde_json::{Map, Value, json};

use super::component::{place, write_out_kubelet};
use super::configuration::{ClusterConfiguration, NodeRegistrationOptions, network_address, subnets};
use super::manifests::command_line;
use super::text;
use super::version::{self, Release};
use crate::failure::Result;

/// The kubelet's directory, mode 0700 where it is made.
pub const DIRECTORY: &str = "/var/lib/kubelet";
/// /var/lib/kubelet/config.yaml, mode 0644.
pub const CONFIGURATION_PATH: &str = "/var/lib/kubelet/config.yaml";
/// /var/lib/kubelet/instance-config.yaml, mode 0644.
pub const INSTANCE_CONFIGURATION_PATH: &str = "/var/lib/kubelet/instance-config.yaml";
/// /var/lib/kubelet/kubeadm-flags.env, mode 0644.
pub const FLAGS_PATH: &str = "/var/lib/kubelet/kubeadm-flags.env";

/// The resolver file of systemd-resolved that names the real servers.
const RESOLVED_FILE: &str = "/run/systemd/resolve/resolv.conf";

/// The address of the cluster's DNS: the 10th of the first service network.
pub fn dns_address(cluster: &ClusterConfiguration) -> String {
    subnets(&cluster.networking.service_subnet)
        .ok()
        .and_then(|networks| network_address(&networks[0], 10))
        .map_or_else(|| "10.96.0.10".to_owned(), |address| address.to_string())
}

/// A KubeletConfiguration with kubeadm's fields filled in (section 5.2): what is stored in the ConfigMap kubelet-config.
/// `given` is the document a person wrote; values in it stay and are warned about where kubeadm wants others.
#[derive(Debug, Clone, PartialEq)]
pub struct KubeletConfiguration {
    /// The document, with fields we do not know untouched.
    pub document: Value,
    /// Whether no person wrote any of it.
    pub generated: bool,
    /// One sentence each.
    pub warnings: Vec<String>,
}

/// Fills in kubeadm's fields.
pub fn configuration(given: Option<&Value>, cluster: &ClusterConfiguration) -> KubeletConfiguration {
    let mut document = match given {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    document.insert("apiVersion".into(), json!("kubelet.config.k8s.io/v1beta1"));
    document.insert("kind".into(), json!("KubeletConfiguration"));
    let ca_file = format!("{}/ca.crt", cluster.certificates_dir.trim_end_matches('/'));
    let fields: [(&str, Value); 11] = [
        ("authentication.anonymous.enabled", json!(false)),
        ("authentication.webhook.enabled", json!(true)),
        ("authentication.x509.clientCAFile", json!(ca_file)),
        ("authorization.mode", json!("Webhook")),
        ("clusterDNS", json!([dns_address(cluster)])),
        ("clusterDomain", json!(cluster.networking.dns_domain)),
        ("healthzBindAddress", json!("127.0.0.1")),
        ("healthzPort", json!(10248)),
        ("staticPodPath", json!("/etc/kubernetes/manifests")),
        ("cgroupDriver", json!("systemd")),
        ("rotateCertificates", json!(true)),
    ];
    let mut warnings = Vec::new();
    let mut document = Value::Object(document);
    for (name, wanted) in fields {
        let place = place(&mut document, name);
        match name {
            "rotateCertificates" => *place = wanted,
            _ if is_unset(place) => *place = wanted,
            "cgroupDriver" => {}
            _ if *place != wanted => {
                warnings.push(format!("KubeletConfiguration.{name} is {place}, kubeadm's value would be {wanted}"));
            }
            _ => {}
        }
    }
    if let Some(port) = document.get("readOnlyPort").filter(|port| port.as_i64().is_some_and(|port| port != 0)) {
        warnings.push(format!("KubeletConfiguration.readOnlyPort is {port}, kubeadm's value would be 0"));
    }
    write_out_kubelet(&mut document);
    KubeletConfiguration { document, generated: given.is_none(), warnings }
}

/// Null, absent and the empty text are "not set" to Kubernetes; false and 0 are values in the fields that have them.
fn is_unset(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

/// The text of config.yaml on one node (section 5.2): `shared` is the document of the ConfigMap kubelet-config.
/// `resolved_active` says that systemd-resolved runs here; `cri_socket` comes from instance-config.yaml and is `None`
/// where that file is not used.
///
/// A resolvConf that upstream leaked into the shared document from another host is dropped where systemd-resolved does
/// not run ('1.37 and corrections', F).
pub fn node_configuration(shared: &Value, resolved_active: bool, cri_socket: Option<&str>) -> Value {
    let mut document = shared.clone();
    let Some(fields) = document.as_object_mut() else { return document };
    let resolver = fields.get("resolvConf").and_then(Value::as_str).unwrap_or_default();
    if resolved_active && resolver.is_empty() {
        fields.insert("resolvConf".into(), json!(RESOLVED_FILE));
    } else if !resolved_active && resolver == RESOLVED_FILE {
        fields.remove("resolvConf");
    }
    if let Some(socket) = cri_socket {
        fields.insert("containerRuntimeEndpoint".into(), json!(socket));
    }
    write_out_kubelet(&mut document);
    document
}

/// The text of config.yaml.
pub fn configuration_text(document: &Value) -> String {
    text::yaml(document)
}

/// The text of instance-config.yaml: one line, no apiVersion and no kind (section 5.3).
pub fn instance_configuration_text(cri_socket: &str) -> String {
    format!("containerRuntimeEndpoint: {}\n", Value::String(cri_socket.to_owned()))
}

/// The text of kubeadm-flags.env (section 5.4). `hostname` is the host's own name in lower case; taints are registered
/// by flag on joining workers only (control planes are marked through the API).
///
/// # Errors
/// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not supported.
pub fn flags_text(
    cluster: &ClusterConfiguration,
    node: &NodeRegistrationOptions,
    hostname: &str,
    joining_worker: bool,
) -> Result<String> {
    let version = version::parse(&cluster.kubernetes_version)?;
    let release = Release::of(&version)?;
    let mut flags = Vec::new();
    if !release.uses_instance_config(cluster) {
        flags.push(("container-runtime-endpoint", node.cri_socket.clone()));
    }
    if release.pod_infra_container_image_flag {
        flags.push(("pod-infra-container-image", version::images(cluster)?.pause));
    }
    if node.name != hostname.trim().to_lowercase() {
        flags.push(("hostname-override", node.name.clone()));
    }
    let taints: Vec<String> = node.taints.iter().flatten().map(ToString::to_string).collect();
    if joining_worker && !taints.is_empty() {
        flags.push(("register-with-taints", taints.join(",")));
    }
    let flags = command_line(&flags, &node.kubelet_extra_args, release.argument_order(&version)).join(" ");
    // Go's %q; systemd reads the same escapes.
    Ok(format!("KUBELET_KUBEADM_ARGS={}\n", Value::String(flags)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kubernetes::configuration::{Arg, Taint};

    fn cluster(version: &str) -> ClusterConfiguration {
        let mut cluster = ClusterConfiguration { kubernetes_version: version.into(), ..Default::default() };
        cluster.complete(6443).unwrap();
        cluster
    }

    #[test]
    fn the_default_configuration_of_a_node() {
        let shared = configuration(None, &cluster("1.36.3"));
        assert!(shared.generated && shared.warnings.is_empty());
        let node = node_configuration(&shared.document, true, Some("unix:///var/run/containerd/containerd.sock"));
        insta::assert_snapshot!(configuration_text(&node), @r#"
        apiVersion: kubelet.config.k8s.io/v1beta1
        authentication:
          anonymous:
            enabled: false
          webhook:
            cacheTTL: 0s
            enabled: true
          x509:
            clientCAFile: /etc/kubernetes/pki/ca.crt
        authorization:
          mode: Webhook
          webhook:
            cacheAuthorizedTTL: 0s
            cacheUnauthorizedTTL: 0s
        cgroupDriver: systemd
        clusterDNS:
        - 10.96.0.10
        clusterDomain: cluster.local
        containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock
        cpuManagerReconcilePeriod: 0s
        crashLoopBackOff: {}
        evictionPressureTransitionPeriod: 0s
        fileCheckFrequency: 0s
        healthzBindAddress: 127.0.0.1
        healthzPort: 10248
        httpCheckFrequency: 0s
        imageMaximumGCAge: 0s
        imageMinimumGCAge: 0s
        kind: KubeletConfiguration
        logging:
          flushFrequency: 0
          options:
            json:
              infoBufferSize: "0"
            text:
              infoBufferSize: "0"
          verbosity: 0
        memorySwap: {}
        nodeStatusReportFrequency: 0s
        nodeStatusUpdateFrequency: 0s
        resolvConf: /run/systemd/resolve/resolv.conf
        rotateCertificates: true
        runtimeRequestTimeout: 0s
        shutdownGracePeriod: 0s
        shutdownGracePeriodCriticalPods: 0s
        staticPodPath: /etc/kubernetes/manifests
        streamingConnectionIdleTimeout: 0s
        syncFrequency: 0s
        volumeStatsAggPeriod: 0s
        "#);
    }

    #[test]
    fn what_a_person_gave_stays_with_a_warning() {
        let given = json!({"cgroupDriver": "cgroupfs", "failSwapOn": false, "rotateCertificates": false,
            "healthzPort": 0, "authentication": {"anonymous": {"enabled": true}}, "clusterDNS": ["10.0.0.1"]});
        let made = configuration(Some(&given), &cluster("1.36.3"));
        assert!(!made.generated);
        assert_eq!(made.document["cgroupDriver"], "cgroupfs");
        assert_eq!(made.document["failSwapOn"], false);
        assert_eq!(made.document["rotateCertificates"], true);
        assert_eq!(made.document["healthzPort"], 0);
        assert_eq!(
            made.warnings,
            [
                "KubeletConfiguration.authentication.anonymous.enabled is true, kubeadm's value would be false",
                r#"KubeletConfiguration.clusterDNS is ["10.0.0.1"], kubeadm's value would be ["10.96.0.10"]"#,
                "KubeletConfiguration.healthzPort is 0, kubeadm's value would be 10248"
            ]
        );
    }

    #[rstest]
    #[case(json!({"resolvConf": RESOLVED_FILE}), false, None)]
    #[case(json!({"resolvConf": RESOLVED_FILE}), true, Some(RESOLVED_FILE))]
    #[case(json!({"resolvConf": "/etc/own"}), false, Some("/etc/own"))]
    #[case(json!({"resolvConf": "/etc/own"}), true, Some("/etc/own"))]
    #[case(json!({}), false, None)]
    fn the_resolver_is_this_hosts(#[case] shared: Value, #[case] active: bool, #[case] written: Option<&str>) {
        let node = node_configuration(&shared, active, None);
        assert_eq!(node.get("resolvConf").and_then(Value::as_str), written);
        assert_eq!(node["containerRuntimeEndpoint"], "");
    }

    #[rstest]
    #[case("1.36.3", false, r#"KUBELET_KUBEADM_ARGS="""#)]
    #[case("1.36.3", true, r#"KUBELET_KUBEADM_ARGS="--register-with-taints=disk=ssd:NoSchedule --v=4 --a=b""#)]
    #[case("1.35.0", true, r#"KUBELET_KUBEADM_ARGS="--a=b --register-with-taints=disk=ssd:NoSchedule --v=4""#)]
    #[case("1.34.4", false, r#"KUBELET_KUBEADM_ARGS="--pod-infra-container-image=registry.k8s.io/pause:3.10.1""#)]
    #[case(
        "1.33.0",
        false,
        r#"KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///s --pod-infra-container-image=registry.k8s.io/pause:3.10""#
    )]
    fn flags(#[case] version: &str, #[case] full_worker: bool, #[case] line: &str) {
        let mut node =
            NodeRegistrationOptions { name: "w1".into(), cri_socket: "unix:///s".into(), ..Default::default() };
        if full_worker {
            node.taints = Some(vec![Taint {
                key: "disk".into(),
                value: "ssd".into(),
                effect: "NoSchedule".into(),
                ..Taint::default()
            }]);
            let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
            node.kubelet_extra_args = vec![arg("v", "4"), arg("a", "b")];
        }
        assert_eq!(flags_text(&cluster(version), &node, "W1", full_worker).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn another_name_than_the_hosts_is_told() {
        let node = NodeRegistrationOptions { name: "node-1".into(), ..Default::default() };
        let text = flags_text(&cluster("1.36.3"), &node, "w1", false).unwrap();
        assert_eq!(text, "KUBELET_KUBEADM_ARGS=\"--hostname-override=node-1\"\n");
        assert_eq!(instance_configuration_text("unix:///s"), "containerRuntimeEndpoint: \"unix:///s\"\n");
    }
}
