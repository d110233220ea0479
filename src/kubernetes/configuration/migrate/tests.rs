use rstest::rstest;
use serde_json::{Value, json};

use super::super::{documents, load};
use super::{Migrated, migrate};
use crate::yaml::Severity;

fn good(text: &str) -> Migrated {
    migrate(text).unwrap_or_else(|findings| panic!("{findings:?}"))
}

/// The documents of a result, by kind.
fn of(migrated: &Migrated, kind: &str) -> Value {
    let all = documents(migrated.text.expose()).unwrap();
    all.into_iter().find(|document| document["kind"] == kind).unwrap_or(Value::Null)
}

/// `line:column message` of each warning.
fn warnings(migrated: &Migrated) -> Vec<String> {
    let line = |finding: &crate::yaml::Finding| {
        assert_eq!(finding.severity, Severity::Warning);
        format!("{}:{} {}", finding.line, finding.column, finding.message)
    };
    migrated.warnings.iter().map(line).collect()
}

const V1ALPHA2: &str = r#"apiVersion: kubeadm.k8s.io/v1alpha2
kind: MasterConfiguration
api:
  advertiseAddress: 10.0.0.11
  bindPort: 6443
  controlPlaneEndpoint: api.demo.example
apiServerCertSANs: [extra.demo.example]
apiServerExtraArgs:
  v: 4
  authorization-mode: "Node,RBAC"
apiServerExtraVolumes:
- {name: audit, hostPath: /a, mountPath: /b, writable: true, pathType: DirectoryOrCreate}
- {name: tokens, hostPath: /c, mountPath: /d}
auditPolicy:
  logDir: /var/log/kubernetes/audit
  logMaxAge: 2
  path: ""
bootstrapTokens:
- token: abcdef.0123456789abcdef
  ttl: 24h0m0s
  usages: [signing, authentication]
clusterName: old
etcd:
  local:
    dataDir: /var/lib/etcd
    image: "k8s.gcr.io/etcd-amd64:3.2.18"
    extraArgs: {quota-backend-bytes: "4294967296"}
featureGates: {CoreDNS: true, SelfHosting: false}
imageRepository: k8s.gcr.io
kubeProxy:
  config:
    mode: ipvs
kubeletConfiguration:
  baseConfig:
    maxPods: 50
kubernetesVersion: v1.11.3
networking: {podSubnet: 10.244.0.0/16}
nodeRegistration:
  criSocket: /var/run/dockershim.sock
  kubeletExtraArgs: {node-ip: 10.0.0.11}
  taints:
  - {effect: NoSchedule, key: node-role.kubernetes.io/master}
unifiedControlPlaneImage: ""
"#;

#[test]
fn a_master_configuration_of_1_11_becomes_four_documents() {
    let migrated = good(V1ALPHA2);
    assert!(migrated.changed);
    assert_eq!(
        of(&migrated, "InitConfiguration"),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "bootstrapTokens": [
                {"token": "abcdef.0123456789abcdef", "ttl": "24h0m0s", "usages": ["signing", "authentication"]}
            ],
            "localAPIEndpoint": {"advertiseAddress": "10.0.0.11", "bindPort": 6443},
            "nodeRegistration": {
                "kubeletExtraArgs": [{"name": "node-ip", "value": "10.0.0.11"}],
                "taints": [{"effect": "NoSchedule", "key": "node-role.kubernetes.io/master"}],
            },
        })
    );
    assert_eq!(
        of(&migrated, "ClusterConfiguration"),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "apiServer": {
                "certSANs": ["extra.demo.example"],
                "extraArgs": [
                    {"name": "authorization-mode", "value": "Node,RBAC"},
                    {"name": "v", "value": "4"},
                ],
                "extraVolumes": [
                    {"name": "audit", "hostPath": "/a", "mountPath": "/b", "pathType": "DirectoryOrCreate"},
                    {"name": "tokens", "hostPath": "/c", "mountPath": "/d", "readOnly": true},
                ],
            },
            "clusterName": "old",
            "controlPlaneEndpoint": "api.demo.example",
            "etcd": {
                "local": {
                    "dataDir": "/var/lib/etcd",
                    "extraArgs": [{"name": "quota-backend-bytes", "value": "4294967296"}],
                },
            },
            "imageRepository": "k8s.gcr.io",
            "kubernetesVersion": "v1.11.3",
            "networking": {"podSubnet": "10.244.0.0/16"},
        })
    );
    assert_eq!(
        of(&migrated, "KubeletConfiguration"),
        json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPods": 50})
    );
    assert_eq!(
        of(&migrated, "KubeProxyConfiguration"),
        json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "ipvs"})
    );
    let warnings = warnings(&migrated);
    let starts: Vec<_> =
        warnings.iter().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        starts,
        [
            "14:1 auditPolicy",
            "26:5 etcd.local.image",
            "28:16 the",
            "28:31 the",
            "29:18 imageRepository",
            "36:20 Kubernetes",
            "39:14 the",
            "42:31 this",
        ],
        "{warnings:#?}"
    );
}

#[test]
fn joining_of_1_11_and_1_12_finds_its_places() {
    let text = "apiVersion: kubeadm.k8s.io/v1alpha2\nkind: NodeConfiguration\ntoken: abcdef.0123456789abcdef\n\
                discoveryTokenAPIServers: ['10.0.0.1:6443', '10.0.0.2:6443']\ndiscoveryTokenCACertHashes: ['sha256:1']\n\
                discoveryTokenUnsafeSkipCAVerification: false\ndiscoveryTimeout: 5m0s\nclusterName: x\ncaCertPath: /ca.crt\n";
    let migrated = good(text);
    assert_eq!(
        of(&migrated, "JoinConfiguration"),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "caCertPath": "/ca.crt",
            "discovery": {
                "bootstrapToken": {
                    "apiServerEndpoint": "10.0.0.1:6443",
                    "caCertHashes": ["sha256:1"],
                    "token": "abcdef.0123456789abcdef",
                    "unsafeSkipCAVerification": false,
                },
                "tlsBootstrapToken": "abcdef.0123456789abcdef",
            },
            "timeouts": {"discovery": "5m0s"},
        })
    );
    assert_eq!(
        warnings(&migrated),
        [
            "4:45 only one API server is asked for discovery, and the first one is taken",
            "8:1 clusterName has no place any more: the name comes from the cluster that is joined",
        ]
    );

    let text = "apiVersion: kubeadm.k8s.io/v1alpha3\nkind: JoinConfiguration\ncontrolPlane: true\n\
                apiEndpoint: {advertiseAddress: 10.0.0.12}\ndiscoveryFile: /f.conf\ntoken: abcdef.0123456789abcdef\n\
                discoveryTokenUnsafeSkipCAVerification: true\n";
    let document = of(&good(text), "JoinConfiguration");
    assert_eq!(document["controlPlane"], json!({"localAPIEndpoint": {"advertiseAddress": "10.0.0.12"}}));
    assert_eq!(
        document["discovery"],
        json!({"file": {"kubeConfigPath": "/f.conf"}, "tlsBootstrapToken": "abcdef.0123456789abcdef"})
    );
}

#[test]
fn the_versions_between_lose_what_was_taken_away() {
    let text = "apiVersion: kubeadm.k8s.io/v1beta1\nkind: ClusterConfiguration\nuseHyperKubeImage: true\n\
                dns: {type: kube-dns, imageTag: 1.14.13}\ncertificateValidityPeriod: 1h\ncontrolerManager: {}\n\
                schedular: {extraArgs: {v: '2'}}\n---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterStatus\n\
                apiEndpoints: {}\n---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nskipPhases: [addon]\n\
                certificateKey: 'aa'\n---\napiVersion: example.com/v1\nkind: Thing\nx: 1\n";
    let migrated = good(text);
    assert_eq!(
        warnings(&migrated),
        [
            "3:1 useHyperKubeImage has no place any more: there are no images any more that hold all components",
            "4:7 dns.type kube-dns has no place any more: the cluster's DNS is CoreDNS",
            "4:23 dns.imageTag is left out: it is that of kube-dns",
            "5:1 v1beta1 has no field certificateValidityPeriod, and so it is left out",
            "7:1 schedular is not known and is left out",
            "9:1 ClusterStatus has no place any more: the addresses of API servers are kept at their Pods",
            "15:1 v1beta2 has no field skipPhases, and so it is left out",
        ]
    );
    assert_eq!(migrated.warnings[4].help.as_deref(), Some("did you mean `scheduler`?"));
    assert_eq!(of(&migrated, "InitConfiguration")["certificateKey"], "aa");
    assert_eq!(of(&migrated, "ClusterStatus"), Value::Null);
    assert_eq!(of(&migrated, "Thing")["x"], 1);
}

#[test]
fn v1beta3_becomes_what_init_itself_makes_of_it() {
    let text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
                featureGates: {PublicKeysECDSA: true, RootlessControlPlane: false}\napiServer:\n  \
                timeoutForControlPlane: 6m0s\n  extraArgs: {v: '4', audit-log-path: /x}\nscheduler: {extraArgs: {v: '2'}}\n\
                etcd: {local: {extraArgs: {a: b}}}\n---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: JoinConfiguration\n\
                nodeRegistration: {taints: [], kubeletExtraArgs: {z: '1'}}\ndiscovery: {timeout: 2m}\n";
    let migrated = good(text);
    assert!(migrated.warnings.is_empty(), "{:?}", migrated.warnings);
    let (direct, lifted) = (load(text).unwrap(), load(migrated.text.expose()).unwrap());
    assert_eq!(lifted.warnings, Vec::<String>::new());
    assert_eq!((direct.init, direct.cluster, direct.join), (lifted.init, lifted.cluster, lifted.join));
}

#[test]
fn what_is_new_already_stays() {
    let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\n";
    let migrated = good(text);
    assert!(!migrated.changed && migrated.warnings.is_empty());
    assert_eq!(of(&migrated, "ResetConfiguration")["force"], true);
}

#[rstest]
#[case("kind: X\n", "1:1 this document has no apiVersion or no kind")]
#[case(
    "kind: MasterConfiguration\napiVersion: kubeadm.k8s.io/v1alpha1\n",
    "2:13 kubeadm.k8s.io/v1alpha1 is not a version that can be read"
)]
#[case(
    "apiVersion: kubeadm.k8s.io/v1beta1\nkind: MasterConfiguration\n",
    "2:7 kubeadm.k8s.io/v1beta1 has no kind MasterConfiguration"
)]
#[case(
    "apiVersion: kubeadm.k8s.io/v1beta3\nkind: JoinConfiguration\na: 1\na: 2\n",
    "4:1 the key `a` stands here twice"
)]
#[case("a: {b", "1:4 this is not YAML")]
#[case(
    "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nclusterName: [1]\n",
    "3:14 ClusterConfiguration has a wrong value: clusterName must be a text, and is a list"
)]
#[case(
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: many\n",
    "3:10 KubeletConfiguration has a wrong value: maxPods must be a whole number, and is a text"
)]
fn what_cannot_be_read_is_named_with_its_place(#[case] text: &str, #[case] expected: &str) {
    let findings = migrate(text).unwrap_err();
    let first = format!("{}:{} {}", findings[0].line, findings[0].column, findings[0].message);
    assert!(first.starts_with(expected), "{first}");
}
