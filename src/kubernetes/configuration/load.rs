//! Loading kubeadm's documents from a text of one or more YAML or JSON documents.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cluster::ClusterConfiguration;
use super::init::InitConfiguration;
use super::join::{JoinConfiguration, ResetConfiguration};
use super::migrate::lifted;
use super::shape::{self, Fault};
use super::upgrade::UpgradeConfiguration;
use super::validity;
use crate::failure::{Failure, Kind, Result};
use crate::yaml::{self, Finding, Node};

/// What a configuration text holds, not completed and not validated yet: see `complete` and `validate` of each type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    /// InitConfiguration.
    pub init: Option<InitConfiguration>,
    /// ClusterConfiguration.
    pub cluster: Option<ClusterConfiguration>,
    /// JoinConfiguration.
    pub join: Option<JoinConfiguration>,
    /// ResetConfiguration.
    pub reset: Option<ResetConfiguration>,
    /// UpgradeConfiguration; read and judged, used by nothing yet.
    pub upgrade: Option<UpgradeConfiguration>,
    /// KubeletConfiguration, kubelet.config.k8s.io/v1beta1, as written: it may hold fields we do not know.
    pub kubelet: Option<Value>,
    /// KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1, as written.
    pub kube_proxy: Option<Value>,
    /// What a person should know: unknown kinds and fields, one sentence each.
    pub warnings: Vec<String>,
}

/// The documents of a text; empty ones are left out.
///
/// # Errors
/// [`Kind::Configuration`] with line and column if the text is not YAML or a key stands twice.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    Ok(nodes(text)?.iter().filter(|node| !node.is_null()).map(Node::to_value).collect())
}

/// The documents with their places.
fn nodes(text: &str) -> Result<Vec<Node>> {
    // The line itself is not repeated: configurations and kubeconfigs hold tokens and keys.
    let sentence = |finding: &Finding| {
        let span = finding.span();
        format!("line {}, column {}: {}", span.line, span.column, finding.message)
    };
    let (nodes, findings) = yaml::trees(text).unwrap_or_else(|finding| (Vec::new(), vec![finding]));
    let broken = || Failure::new(Kind::Configuration, "the configuration is not YAML");
    match findings.as_slice() {
        [] => Ok(nodes),
        [only] => Err(broken().caused_by(sentence(only))),
        several => Err(broken().detailed(several.iter().map(sentence).collect::<Vec<_>>().join("\n"))),
    }
}

/// Reads the documents that concern kubeadm. Unknown kinds and fields are warned about, as upstream does, and so are
/// unwise values.
///
/// # Errors
/// [`Kind::Configuration`]: not YAML, no `kind`, a kind twice, values of a wrong type (all of them, each with its place), an
/// API version that is too old or too new.
pub fn load(text: &str) -> Result<Documents> {
    let mut loaded = read(text)?;
    if let Some(cluster) = &loaded.cluster {
        loaded.warnings.extend(validity::unwise(cluster));
    }
    Ok(loaded)
}

fn read(text: &str) -> Result<Documents> {
    let mut loaded = Documents::default();
    let mut wrong = Vec::new();
    let nodes: Vec<Node> = nodes(text)?.into_iter().filter(|node| !node.is_null()).collect();
    for (position, node) in lifted(nodes, &mut loaded.warnings).iter().enumerate() {
        let document = node.to_value();
        let header = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (header("apiVersion"), header("kind"));
        if version.is_empty() || kind.is_empty() {
            let sentence = format!("document {} of the configuration has no apiVersion or no kind", position + 1);
            return Err(Failure::new(Kind::Configuration, sentence)
                .advise("begin each document with apiVersion and kind, for example kubeadm.k8s.io/v1beta4 and ClusterConfiguration"));
        }
        let (group, api_version) = version.split_once('/').unwrap_or(("", &version));
        let component = shape::of_component(&kind).filter(|(known, ..)| *known == group);
        let shape = match (group, component) {
            ("kubeadm.k8s.io", _) => {
                accept_version(api_version, &kind)?;
                shape::of(&kind)
            }
            (_, Some((_, known, shape))) if api_version == known => Some(shape),
            (_, Some((_, known, _))) => {
                return Err(Failure::new(Kind::Configuration, format!("{kind} has the unknown version {version}"))
                    .advise(format!("write it in {group}/{known}")));
            }
            _ => None,
        };
        let Some(shape) = shape else {
            let of = if group == "kubeadm.k8s.io" { group } else { &version };
            loaded.warnings.push(format!("{kind} of {of} is not known here and is ignored"));
            continue;
        };
        let before = wrong.len();
        for finding in shape::findings(node, shape) {
            match finding.fault {
                Fault::Unknown => loaded.warnings.push(format!("{}; it is ignored", finding.sentence(&kind))),
                Fault::Wrong(_) => wrong.push(finding.sentence(&kind)),
            }
        }
        if wrong.len() == before {
            loaded.take(&kind, document)?;
        }
    }
    match wrong.as_slice() {
        [] => Ok(loaded),
        [only] => Err(Failure::new(Kind::Configuration, only)),
        several => {
            let sentence = format!("{} fields of the configuration have a wrong value", several.len());
            Err(Failure::new(Kind::Configuration, sentence).detailed(several.join("\n")))
        }
    }
}

impl Documents {
    /// Takes a document whose fields are of their types.
    fn take(&mut self, kind: &str, document: Value) -> Result<()> {
        match kind {
            "InitConfiguration" => once(&mut self.init, typed(document, kind)?, kind),
            "ClusterConfiguration" => once(&mut self.cluster, typed(document, kind)?, kind),
            "JoinConfiguration" => once(&mut self.join, typed(document, kind)?, kind),
            "ResetConfiguration" => once(&mut self.reset, typed(document, kind)?, kind),
            "KubeletConfiguration" => once(&mut self.kubelet, document, kind),
            "KubeProxyConfiguration" => once(&mut self.kube_proxy, document, kind),
            _ => once(&mut self.upgrade, typed(document, kind)?, kind),
        }
    }
}

impl ClusterConfiguration {
    /// Reads the text stored in kubeadm-config, with warnings about what is not known here. The values are the
    /// cluster's: nothing is validated (kubeadm.md sections 0.2 and 16.2).
    ///
    /// # Errors
    /// [`Kind::Cluster`] if it is not a ClusterConfiguration.
    pub fn from_stored(text: &str) -> Result<(Self, Vec<String>)> {
        let broken = |sentence: &str| Failure::new(Kind::Cluster, sentence);
        let loaded = read(text).map_err(|failure| {
            let broken = broken("the ConfigMap kubeadm-config cannot be read").caused_by(failure.to_string());
            Failure { detail: failure.detail, ..broken }
        })?;
        match loaded.cluster {
            Some(cluster) => Ok((cluster, loaded.warnings)),
            None => Err(broken("the ConfigMap kubeadm-config holds no ClusterConfiguration")),
        }
    }
}

/// What could not be lifted is of a version that upstream does not read either.
fn accept_version(version: &str, kind: &str) -> Result<()> {
    if version == "v1beta4" {
        return Ok(());
    }
    Err(Failure::new(Kind::Configuration, format!("{kind} has the unknown version kubeadm.k8s.io/{version}"))
        .advise("`clusterctl node config migrate --old-config FILE` writes it in kubeadm.k8s.io/v1beta4"))
}

fn typed<T: DeserializeOwned>(mut document: Value, kind: &str) -> Result<T> {
    // Upstream reads `null` as "not given".
    remove_nulls(&mut document);
    serde_json::from_value(document)
        .map_err(|error| Failure::new(Kind::Configuration, format!("{kind} has a wrong value")).because(&error))
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, below| !below.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn once<T>(place: &mut Option<T>, value: T, kind: &str) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Failure::new(Kind::Configuration, format!("{kind} occurs more than once in the configuration"))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{ClusterConfiguration, load};
    use crate::kubernetes::configuration::{Arg, Duration};

    const ALL: &str = r#"
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: abcdef.0123456789abcdef
  ttl: 1h
nodeRegistration:
  taints: []
  kubeletExtraArgs: [{name: v, value: "4"}]
localAPIEndpoint: {advertiseAddress: 10.0.0.11}
timeouts: {tlsBootstrap: 90s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: 1.36.3
apiServer:
  certSANs: [api.demo.example]
  extraArg: []
etcd: {local: {extraArgs: [{name: quota-backend-bytes, value: "8589934592"}], serverCertSans: []}}
---
---
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
maxPods: 50
---
kind: Thing
apiVersion: example.com/v1
"#;

    #[test]
    fn documents_of_all_kinds_are_told_apart() {
        let loaded = load(ALL).unwrap();
        let init = loaded.init.unwrap();
        assert_eq!(init.bootstrap_tokens[0].token.as_ref().unwrap().expose(), "abcdef.0123456789abcdef");
        assert_eq!(init.node_registration.taints, Some(vec![]));
        assert_eq!(init.timeouts.tls_bootstrap, Duration::from_seconds(90));
        assert_eq!(init.timeouts.discovery, Duration::from_seconds(300));
        assert_eq!(loaded.cluster.unwrap().kubernetes_version, "1.36.3");
        assert_eq!(loaded.kubelet.unwrap()["maxPods"], 50);
        assert_eq!(
            loaded.warnings,
            [
                "ClusterConfiguration has no field apiServer.extraArg (line 18, column 3); it is ignored",
                "ClusterConfiguration has no field etcd.local.serverCertSans (line 19, column 79); it is ignored",
                "Thing of example.com/v1 is not known here and is ignored"
            ]
        );
    }

    #[rstest]
    #[case("kind: ClusterConfiguration", "has no apiVersion")]
    #[case("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration", "unknown version kubeadm.k8s.io/v1beta2")]
    #[case("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: [1]", "wrong value")]
    #[case(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ntimeouts: {discovery: 5}",
        "JoinConfiguration has a wrong value: timeouts.discovery must be a duration such as 4m0s, and is a number (line 3, \
         column 23)"
    )]
    #[case(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: many",
        "KubeletConfiguration has a wrong value: maxPods must be a whole number, and is a text (line 3, column 10)"
    )]
    #[case(
        "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration",
        "KubeProxyConfiguration has the unknown version kubeproxy.config.k8s.io/v1"
    )]
    #[case("a: {b", "not YAML")]
    fn what_cannot_be_read_is_refused(#[case] text: &str, #[case] sentence: &str) {
        assert!(load(text).unwrap_err().sentence.contains(sentence));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let failure = load("a: 1\na: 2\nb: {c: 1, c: 2}\n").unwrap_err();
        assert_eq!(failure.sentence, "the configuration is not YAML");
        let detail = failure.detail.unwrap();
        let lines: Vec<_> = detail.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("line 2, column 1: ") && lines[1].starts_with("line 3, column 11: "), "{lines:?}");

        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: 1\n---\n\
                    apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\noomScoreAdj: x\n";
        let failure = load(text).unwrap_err();
        assert_eq!(failure.sentence, "2 fields of the configuration have a wrong value");
        let detail = failure.detail.unwrap();
        assert!(detail.contains("clusterName must be") && detail.contains("oomScoreAdj must be"), "{detail}");
    }

    #[test]
    fn fields_that_a_component_does_not_have_are_warned_about() {
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPod: 42\n---\n\
                    apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nipvs:\n  strictArp: true\n";
        let loaded = load(text).unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "KubeletConfiguration has no field maxPod (line 3, column 1); it is ignored",
                "KubeProxyConfiguration has no field ipvs.strictArp (line 8, column 3); it is ignored",
            ]
        );
        // It stays in the document: a component newer than we are may have it.
        assert_eq!(loaded.kubelet.unwrap()["maxPod"], 42);
    }

    #[test]
    fn a_kind_must_not_come_twice() {
        let twice = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n---\n".repeat(2);
        assert!(load(&twice).unwrap_err().sentence.contains("more than once"));
    }

    #[test]
    fn version_1_beta_3_is_lifted() {
        let text = r#"
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
kubernetesVersion: v1.33.0
featureGates: {PublicKeysECDSA: true}
apiServer: {timeoutForControlPlane: 6m0s, extraArgs: {v: "4", audit-log-path: /x}}
"#;
        let loaded = load(text).unwrap();
        let cluster = loaded.cluster.unwrap();
        let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
        assert_eq!(cluster.api_server.extra_args, [arg("audit-log-path", "/x"), arg("v", "4")]);
        assert_eq!(cluster.encryption_algorithm, "ECDSA-P256");
        assert_eq!(loaded.init.unwrap().timeouts.control_plane_component_health_check, Duration::from_seconds(360));
        assert_eq!(
            loaded.warnings,
            ["ClusterConfiguration is written in kubeadm.k8s.io/v1beta3, which Kubernetes 1.37 no longer accepts"]
        );
    }

    #[rstest]
    // The kubeadm of that time did not know the field: to heed it now would be another meaning.
    #[case(
        "kind: ClusterConfiguration\nencryptionAlgorithm: RSA-4096",
        Ok("has no field encryptionAlgorithm, and so it is left out (line 3")
    )]
    #[case(
        "kind: JoinConfiguration\ntimeouts: {discovery: 1m0s}",
        Ok("has no field timeouts, and so it is left out (line 3")
    )]
    // As upstream, whose map is one of texts.
    #[case("kind: ClusterConfiguration\napiServer: {extraArgs: {v: 4}}", Err("wrong value"))]
    #[case("kind: Thing", Err("unknown version kubeadm.k8s.io/v1beta3"))]
    fn version_1_beta_3_is_read_by_its_own_rules(#[case] text: &str, #[case] said: Result<&str, &str>) {
        match (load(&format!("apiVersion: kubeadm.k8s.io/v1beta3\n{text}\n")), said) {
            (Ok(loaded), Ok(warned)) => {
                assert!(loaded.warnings.iter().any(|warning| warning.contains(warned)), "{:?}", loaded.warnings);
                assert_eq!(loaded.cluster.unwrap_or_default().encryption_algorithm, "");
            }
            (Err(failure), Err(sentence)) => assert!(failure.sentence.contains(sentence), "{failure}"),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_that_join_brought_are_a_list_too() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: JoinConfiguration\nnodeRegistration: {kubeletExtraArgs: {v: \"4\"}}\n\
                    discovery: {timeout: 9m0s, file: {kubeConfigPath: /f}}\n";
        let join = load(text).unwrap().join.unwrap();
        assert_eq!(join.node_registration.kubelet_extra_args, [Arg { name: "v".into(), value: "4".into() }]);
        assert_eq!(join.timeouts.discovery, Duration::from_seconds(540));
    }

    #[test]
    fn what_kubeadm_stores_is_what_we_store() {
        let mut cluster = ClusterConfiguration { kubernetes_version: "1.36.3".into(), ..Default::default() };
        cluster.networking.pod_subnet = "10.244.0.0/16".into();
        cluster.control_plane_endpoint = "api.demo.example".into();
        cluster.complete(6443).unwrap();
        insta::assert_snapshot!(cluster.stored(), @r"
        apiServer: {}
        apiVersion: kubeadm.k8s.io/v1beta4
        caCertificateValidityPeriod: 87600h0m0s
        certificateValidityPeriod: 8760h0m0s
        certificatesDir: /etc/kubernetes/pki
        clusterName: kubernetes
        controlPlaneEndpoint: api.demo.example:6443
        controllerManager: {}
        dns: {}
        encryptionAlgorithm: RSA-2048
        etcd:
          local:
            dataDir: /var/lib/etcd
        imageRepository: registry.k8s.io
        kind: ClusterConfiguration
        kubernetesVersion: v1.36.3
        networking:
          dnsDomain: cluster.local
          podSubnet: 10.244.0.0/16
          serviceSubnet: 10.96.0.0/12
        proxy: {}
        scheduler: {}
        ");
        let (read, warnings) = ClusterConfiguration::from_stored(&cluster.stored()).unwrap();
        assert_eq!((read, warnings), (cluster, vec![]));
    }
}
