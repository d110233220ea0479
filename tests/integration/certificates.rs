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
