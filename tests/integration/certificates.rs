//! Certificates and configurations of ours in the hands of upstream kubeadm, and its in ours.

use std::path::Path;

use serde_json::Value;

use crate::bed::{Bed, bed};
use crate::program::{call, clusterctl};

/// Puts the program and upstream's kubeadm onto a bare host.
fn host_with_both() -> Bed {
    let bed_hosts = Bed::bare(1);
    let folder = bed(&["kubernetes"]).lines().last().unwrap_or_default().to_owned();
    let kubeadm = Path::new(&folder).join("upstream/kubeadm");
    let program = clusterctl();
    for from in [program.as_path(), kubeadm.as_path()] {
        let to = format!("root@{}:/usr/local/bin/", bed_hosts.hosts[0].address);
        let key = bed_hosts.key.to_str().unwrap();
        let options = ["-q", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
        let words = [options.as_slice(), &[from.to_str().unwrap(), &to]].concat();
        let copied = call(Path::new("scp"), &words, &[]);
        assert_eq!(copied.code, 0, "{}", copied.stderr);
    }
    bed_hosts
}

/// A configuration for certificates in a folder.
fn configuration(directory: &str, algorithm: &str) -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
         certificatesDir: {directory}\nencryptionAlgorithm: {algorithm}\napiServer: {{certSANs: [api.demo.example, 192.0.2.7]}}\n"
    )
}

fn put(bed: &Bed, path: &str, text: &str) {
    bed.sh(&bed.hosts[0].name, &format!("cat > {path} <<'END'\n{text}\nEND"));
}

fn checked(bed: &Bed, command: &str) -> Value {
    let text = bed.sh(&bed.hosts[0].name, &format!("{command} 2>/dev/null"));
    let start = text.find('{').unwrap_or_else(|| panic!("{command} printed {text}"));
    let mut document: Value = serde_json::from_str(&text[start..]).unwrap();
    for list in ["certificates", "certificateAuthorities"] {
        for one in document[list].as_array_mut().unwrap() {
            // Seconds pass between two looks.
            one["residualTime"] = Value::Bool(one["residualTime"].as_i64().unwrap() > 0);
        }
    }
    document
}

#[test]
fn kubeadm_takes_our_certificates_for_its_own_and_we_its() {
    let bed = host_with_both();
    let host = bed.hosts[0].name.clone();
    for (algorithm, first, second) in [
        ("RSA-2048", "clusterctl node", "kubeadm"),
        ("ECDSA-P256", "clusterctl node", "kubeadm"),
        ("ECDSA-P384", "kubeadm", "clusterctl node"),
        ("RSA-3072", "kubeadm", "clusterctl node"),
    ] {
        bed.sh(&host, "rm -rf /etc/kubernetes /tmp/pki");
        put(&bed, "/tmp/k.yaml", &configuration("/tmp/pki", algorithm));
        bed.sh(&host, &format!("{first} init phase certs all --config /tmp/k.yaml"));
        bed.sh(&host, &format!("{first} init phase kubeconfig all --config /tmp/k.yaml"));
        let sums = "find /tmp/pki /etc/kubernetes -type f | sort | xargs sha256sum";
        let before = bed.sh(&host, sums);
        bed.sh(&host, &format!("{second} init phase certs all --config /tmp/k.yaml"));
        bed.sh(&host, &format!("{second} init phase kubeconfig all --config /tmp/k.yaml"));
        assert_eq!(bed.sh(&host, sums), before, "{second} does not take what {first} made with {algorithm}");

        let check = "certs check-expiration --config /tmp/k.yaml -o json";
        let (ours, theirs) =
            (checked(&bed, &format!("clusterctl node {check}")), checked(&bed, &format!("kubeadm {check}")));
        assert_eq!(ours, theirs);

        bed.sh(&host, &format!("{second} certs renew all --config /tmp/k.yaml"));
        assert_ne!(bed.sh(&host, sums), before);
        let after = bed.sh(&host, sums);
        bed.sh(&host, &format!("{first} init phase certs all --config /tmp/k.yaml"));
        bed.sh(&host, &format!("{first} init phase kubeconfig all --config /tmp/k.yaml"));
        assert_eq!(bed.sh(&host, sums), after, "{first} does not take what {second} renewed");
    }
}

/// What openssl says of every request in a folder: that it is signed by the key it is for, its subject, names and
/// extensions, and of what sort the key is; and what stands in a kubeconfig besides its key.
fn requests(bed: &Bed, folder: &str) -> String {
    let script = format!(
        "cd {folder} && find . -type f | sort && for request in $(find . -name '*.csr' | sort); do echo \"== $request\"; \
         openssl req -in $request -noout -verify 2>&1 | grep -o 'verify OK' || exit 1; \
         openssl req -in $request -noout -text -reqopt no_pubkey,no_sigdump; \
         openssl req -in $request -noout -pubkey | openssl pkey -pubin -noout -text | grep -e Public-Key -e OID; done; \
         for key in $(find . -name '*.key' | sort); do \
         [ \"$(openssl pkey -in $key -pubout)\" = \"$(openssl req -in ${{key%.key}}.csr -noout -pubkey)\" ] || exit 1; \
         stat -c '%a %n' $key ${{key%.key}}.csr; done; \
         for kubeconfig in conf/*.conf; do echo \"== $kubeconfig\"; sed 's/client-key-data: .*/client-key-data: KEY/' $kubeconfig; \
         done"
    );
    bed.sh(&bed.hosts[0].name, &script)
}

#[test]
fn requests_to_an_authority_elsewhere_are_those_of_kubeadm() {
    let bed = host_with_both();
    let host = bed.hosts[0].name.clone();
    let init = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {name: cp1}\n\
                localAPIEndpoint: {advertiseAddress: 10.0.0.11}\n";
    for algorithm in ["RSA-2048", "ECDSA-P256", "ECDSA-P384"] {
        bed.sh(&host, "rm -rf /tmp/ours /tmp/theirs");
        put(&bed, "/tmp/k.yaml", &format!("{}{init}", configuration("/tmp/pki", algorithm)));
        for (program, folder) in [("clusterctl node", "/tmp/ours"), ("kubeadm", "/tmp/theirs")] {
            let folders = format!("--cert-dir {folder} --kubeconfig-dir {folder}/conf");
            bed.sh(&host, &format!("{program} certs generate-csr --config /tmp/k.yaml {folders}"));
        }
        let (ours, theirs) = (requests(&bed, "/tmp/ours"), requests(&bed, "/tmp/theirs"));
        assert_eq!(ours, theirs, "{algorithm}");
        assert!(ours.matches("verify OK").count() > 10 && ours.contains("DNS:api.demo.example"), "{ours}");
    }
}

const OLD: &str = r#"apiVersion: kubeadm.k8s.io/v1beta3
kind: InitConfiguration
bootstrapTokens:
- token: abcdef.0123456789abcdef
  ttl: 1h0m0s
localAPIEndpoint: {advertiseAddress: 10.0.0.11, bindPort: 6444}
nodeRegistration:
  name: cp1
  criSocket: unix:///var/run/containerd/containerd.sock
  imagePullPolicy: Always
  ignorePreflightErrors: [Swap]
  kubeletExtraArgs: {node-ip: 10.0.0.11, v: "2"}
  taints: []
certificateKey: e6a2eb8581237ab72a4f494f30285ec12a9694d750b9785706a83bfcbbbd2204
skipPhases: [addon/kube-proxy]
patches: {directory: /p}
---
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
clusterName: demo
controlPlaneEndpoint: api.demo.example:6444
certificatesDir: /etc/kubernetes/pki
imageRepository: registry.demo.example
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16, dnsDomain: demo.example}
apiServer:
  timeoutForControlPlane: 6m0s
  certSANs: [api.demo.example]
  extraArgs: {v: "4", audit-log-path: /x}
  extraVolumes: [{name: a, hostPath: /a, mountPath: /b, readOnly: true, pathType: File}]
controllerManager: {extraArgs: {bind-address: 0.0.0.0}}
scheduler: {extraArgs: {bind-address: 0.0.0.0}}
dns: {imageTag: v1.12.3}
etcd: {local: {dataDir: /e, extraArgs: {quota-backend-bytes: "1"}, serverCertSANs: [x.example]}}
"#;

const OLD_JOIN: &str = r#"apiVersion: kubeadm.k8s.io/v1beta3
kind: JoinConfiguration
caCertPath: /etc/kubernetes/pki/ca.crt
controlPlane: {localAPIEndpoint: {advertiseAddress: 10.0.0.12}}
discovery:
  bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: "10.0.0.11:6443", unsafeSkipCAVerification: true}
  timeout: 2m0s
nodeRegistration: {name: cp2, criSocket: unix:///var/run/containerd/containerd.sock, kubeletExtraArgs: {v: "2"}}
"#;

/// kubeadm 1.36 takes this limit from the v1beta3 field alone when it converts: of a v1beta4 file, `config migrate` loses it.
fn without_component_limit(text: &str) -> String {
    text.lines().filter(|line| !line.contains("controlPlaneComponentHealthCheck")).collect::<Vec<_>>().join("\n")
}

/// What kubeadm makes of an old file, and what it makes of our migration of that file, is the same.
#[test]
fn kubeadm_reads_our_migration_as_its_own() {
    let bed = host_with_both();
    let host = bed.hosts[0].name.clone();
    for text in [OLD, OLD_JOIN] {
        put(&bed, "/tmp/old.yaml", text);
        bed.sh(&host, "clusterctl node config migrate --old-config /tmp/old.yaml --new-config /tmp/ours.yaml");
        let theirs = bed.sh(&host, "kubeadm config migrate --old-config /tmp/old.yaml 2>/dev/null");
        let ours = bed.sh(&host, "kubeadm config migrate --old-config /tmp/ours.yaml 2>/dev/null");
        assert_eq!(without_component_limit(&ours), without_component_limit(&theirs));
        assert!(ours.contains("kubeadm.k8s.io/v1beta4"), "{ours}");
        if text == OLD {
            let moved = bed.sh(&host, "grep controlPlaneComponentHealthCheck /tmp/ours.yaml");
            assert_eq!(moved.trim(), "controlPlaneComponentHealthCheck: 6m0s");
        }
        let mode = bed.sh(&host, "stat -c %a /tmp/ours.yaml");
        assert_eq!(mode.trim(), "600");
    }
}

/// What the documents of [`OLDER`] come to, written as today.
const TODAY: &str = r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 1h0m0s}]
localAPIEndpoint: {advertiseAddress: 10.0.0.11, bindPort: 6444}
nodeRegistration:
  name: cp1
  criSocket: unix:///var/run/containerd/containerd.sock
  kubeletExtraArgs: [{name: node-ip, value: 10.0.0.11}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
clusterName: demo
controlPlaneEndpoint: api.demo.example:6444
imageRepository: registry.demo.example
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16, dnsDomain: demo.example}
apiServer:
  certSANs: [api.demo.example]
  extraArgs: [{name: audit-log-path, value: /x}, {name: v, value: "4"}]
  extraVolumes: [{name: a, hostPath: /a, mountPath: /b, readOnly: true, pathType: File}]
controllerManager: {extraArgs: [{name: bind-address, value: 0.0.0.0}]}
scheduler: {extraArgs: [{name: bind-address, value: 0.0.0.0}]}
etcd: {local: {dataDir: /e, extraArgs: [{name: quota-backend-bytes, value: "1"}]}}
"#;

/// A document of joining, the same for [`TODAY`].
const JOIN_TODAY: &str = r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: "10.0.0.11:6443", caCertHashes: [HASH]}
  tlsBootstrapToken: abcdef.0123456789abcdef
timeouts: {discovery: 2m0s}
nodeRegistration: {name: w1, criSocket: unix:///var/run/containerd/containerd.sock}
"#;

/// Versions that today's kubeadm does not read any more, each with its own places for the same: a cluster, and joining it.
/// What stands in several of them is put in for a word in capitals.
const OLDER: &[(&str, &str)] = &[
    (
        "apiVersion: kubeadm.k8s.io/v1alpha2\nkind: MasterConfiguration\nkubernetesVersion: v1.36.3\nclusterName: demo\n\
         api: {advertiseAddress: 10.0.0.11, bindPort: 6444, controlPlaneEndpoint: \"api.demo.example:6444\"}\nTOKENSNODE\
         kubeletConfiguration: {baseConfig: {maxPods: 50}}\nkubeProxy: {config: {mode: iptables}}\nWIDECOMPONENTS",
        "apiVersion: kubeadm.k8s.io/v1alpha2\nkind: NodeConfiguration\ntoken: abcdef.0123456789abcdef\n\
         discoveryTokenAPIServers: [\"10.0.0.11:6443\"]\ndiscoveryTokenCACertHashes: [HASH]\ndiscoveryTimeout: 2m0s\nWORKER",
    ),
    (
        "apiVersion: kubeadm.k8s.io/v1alpha3\nkind: InitConfiguration\napiEndpoint: {advertiseAddress: 10.0.0.11, bindPort: 6444}\n\
         TOKENSNODE---\napiVersion: kubeadm.k8s.io/v1alpha3\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
         clusterName: demo\ncontrolPlaneEndpoint: api.demo.example:6444\nWIDECOMPONENTS",
        "apiVersion: kubeadm.k8s.io/v1alpha3\nkind: JoinConfiguration\ntoken: abcdef.0123456789abcdef\n\
         discoveryTokenAPIServers: [\"10.0.0.11:6443\"]\ndiscoveryTokenCACertHashes: [HASH]\ndiscoveryTimeout: 2m0s\nWORKER",
    ),
    (
        "apiVersion: kubeadm.k8s.io/v1beta1\nkind: InitConfiguration\nENDPOINTTOKENSNODE---\n\
         apiVersion: kubeadm.k8s.io/v1beta1\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\nclusterName: demo\n\
         controlPlaneEndpoint: api.demo.example:6444\nuseHyperKubeImage: false\ndns: {type: CoreDNS}\nWIDEPARTS",
        "apiVersion: kubeadm.k8s.io/v1beta1\nkind: JoinConfiguration\nDISCOVERYWORKER",
    ),
    (
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nENDPOINTTOKENSNODE---\n\
         apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\nclusterName: demo\n\
         controlPlaneEndpoint: api.demo.example:6444\ndns: {type: CoreDNS}\nWIDEPARTS---\n\
         apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterStatus\napiEndpoints: {cp1: {advertiseAddress: 10.0.0.11}}\n",
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: JoinConfiguration\nDISCOVERYWORKER",
    ),
];

/// What the words in capitals stand for.
const SHARED: &[(&str, &str)] = &[
    ("ENDPOINT", "localAPIEndpoint: {advertiseAddress: 10.0.0.11, bindPort: 6444}\n"),
    ("TOKENS", "bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 1h0m0s}]\n"),
    (
        "NODE",
        "nodeRegistration: {name: cp1, criSocket: /var/run/containerd/containerd.sock, kubeletExtraArgs: {node-ip: 10.0.0.11}}\n",
    ),
    (
        "WIDE",
        "imageRepository: registry.demo.example\n\
         networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16, dnsDomain: demo.example}\n\
         etcd: {local: {dataDir: /e, extraArgs: {quota-backend-bytes: \"1\"}}}\n",
    ),
    (
        "COMPONENTS",
        "apiServerCertSANs: [api.demo.example]\napiServerExtraArgs: {v: \"4\", audit-log-path: /x}\n\
         apiServerExtraVolumes: [{name: a, hostPath: /a, mountPath: /b, pathType: File}]\n\
         controllerManagerExtraArgs: {bind-address: 0.0.0.0}\nschedulerExtraArgs: {bind-address: 0.0.0.0}\n",
    ),
    (
        "PARTS",
        "apiServer:\n  certSANs: [api.demo.example]\n  extraArgs: {v: \"4\", audit-log-path: /x}\n  \
         extraVolumes: [{name: a, hostPath: /a, mountPath: /b, readOnly: true, pathType: File}]\n\
         controllerManager: {extraArgs: {bind-address: 0.0.0.0}}\nscheduler: {extraArgs: {bind-address: 0.0.0.0}}\n",
    ),
    (
        "DISCOVERY",
        "discovery:\n  bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: \"10.0.0.11:6443\", caCertHashes: \
         [HASH]}\n  tlsBootstrapToken: abcdef.0123456789abcdef\n  timeout: 2m0s\n",
    ),
    ("WORKER", "nodeRegistration: {name: w1, criSocket: /var/run/containerd/containerd.sock}\n"),
    ("HASH", "\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\""),
];

/// What kubeadm does not read any more becomes what it accepts, and what it takes for the same as the document of today.
#[test]
fn kubeadm_accepts_what_we_make_of_versions_it_has_forgotten() {
    let bed = host_with_both();
    let host = bed.hosts[0].name.clone();
    let whole =
        |text: &str| SHARED.iter().fold(text.to_owned(), |text, (word, stands_for)| text.replace(word, stands_for));
    let read = |file: &str| bed.sh(&host, &format!("kubeadm config migrate --old-config {file} 2>/dev/null"));
    put(&bed, "/tmp/cluster-today.yaml", TODAY);
    put(&bed, "/tmp/join-today.yaml", &whole(JOIN_TODAY));
    for (cluster, join) in OLDER {
        for (text, today) in [(cluster, "/tmp/cluster-today.yaml"), (join, "/tmp/join-today.yaml")] {
            let text = whole(text);
            put(&bed, "/tmp/old.yaml", &text);
            // Of a kind it has never heard of it says that all is well, and reads nothing.
            let itself = bed.try_sh(&host, "kubeadm config migrate --old-config /tmp/old.yaml");
            assert!(itself.code != 0 || itself.stdout.trim().is_empty(), "{}", itself.stdout);
            bed.sh(&host, "clusterctl node config migrate --old-config /tmp/old.yaml --new-config /tmp/ours.yaml");
            bed.sh(&host, "kubeadm config validate --config /tmp/ours.yaml");
            assert_eq!(read("/tmp/ours.yaml"), read(today), "{text}");
        }
    }
}
