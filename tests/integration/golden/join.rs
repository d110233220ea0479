//! A worker and a control plane that join one cluster, first by upstream's kubeadm and then, on the same host, by our
//! engine: files, certificates, manifests, and what the API has of the Node.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;

use super::intended::{Part, Verdicts};
use super::snapshot::Snapshot;
use super::{folder, object};
use crate::bed::Bed;
use crate::both_ways::{KEY, KUBECTL, Side, wait_for};
use crate::program::clusterctl;

/// What the cluster's own configuration says; everything else is kubeadm's default.
const CLUSTER: &str = "kubernetesVersion: VERSION\ncontrolPlaneEndpoint: ADDRESS:6443\nencryptionAlgorithm: ECDSA-P256\n\
    apiServer: {extraArgs: [{name: v, value: \"2\"}]}\netcd: {local: {extraArgs: [{name: quota-backend-bytes, value: \"4294967296\"}]}}\n";

/// One configuration of joining, for both programs; `MORE` is the control plane's part.
const JOIN: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n\
    discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: \"ADDRESS:6443\", unsafeSkipCAVerification: true}}\n\
    patches: {directory: /root/golden/join/patches}\n\
    nodeRegistration:\n  ignorePreflightErrors: [SystemVerification]\n  \
    kubeletExtraArgs: [{name: node-labels, value: disk=ssd}]\nMORE";

const PATCHES: &[(&str, &str)] = &[
    ("kubeletconfiguration+json.yaml", "- {op: add, path: /maxParallelImagePulls, value: 2}\n"),
    ("kube-apiserver+merge.yaml", "metadata: {labels: {patched: merge}}\n"),
    ("etcd+json.json", r#"[{"op": "add", "path": "/metadata/labels/a~1b", "value": "c"}]"#),
];

/// What is not compared: the kubelet's own notes of pods and sockets.
const OF_PODS: &[&str] = &[
    "pods",
    "plugins",
    "plugins_registry",
    "pod-resources",
    "device-plugins",
    "*_state",
    // What is being written at the moment.
    ".[0-9]*",
];

/// The first host with a control plane by upstream's kubeadm, the second prepared to join it with `more` in its document.
fn prepare(version: &str, more: &str) -> Bed {
    let bed = Bed::prepared(2, version);
    let written = bed.folder.path().join("join");
    std::fs::create_dir_all(written.join("patches")).unwrap();
    let address = &bed.hosts[0].address;
    let cluster = CLUSTER.replace("VERSION", &format!("v{version}")).replace("ADDRESS", address);
    let cluster = std::fs::read_to_string(folder().join("whole/defaults.yaml"))
        .unwrap()
        .replace("kubernetesVersion: VERSION\n", &cluster)
        .replace("bootstrapTokens:", &format!("certificateKey: {KEY}\nbootstrapTokens:"));
    std::fs::write(written.join("cluster.yaml"), cluster).unwrap();
    std::fs::write(written.join("join.yaml"), JOIN.replace("ADDRESS", address).replace("MORE", more)).unwrap();
    for (name, text) in PATCHES {
        std::fs::write(written.join("patches").join(name), text).unwrap();
    }
    for host in &bed.hosts {
        bed.send(&host.name, &[&clusterctl(), &written], "/root/golden");
    }
    bed.sh(&bed.hosts[0].name, "kubeadm init --upload-certs --config /root/golden/join/cluster.yaml");
    bed
}

/// The second host joins by one side, and all that this left is taken; then it leaves again.
fn joined(bed: &Bed, by: Side) -> Snapshot {
    let [control_plane, other] = [0, 1].map(|at| bed.hosts[at].name.as_str());
    let program = if by == Side::Ours { "/root/golden/clusterctl node" } else { "kubeadm" };
    bed.sh(other, &format!("{program} join --config /root/golden/join/join.yaml"));
    let pods_of_node =
        format!("{KUBECTL} get pods -A -o name --field-selector spec.nodeName={other},status.phase=Running");
    let ready = format!("{KUBECTL} get node {other} --no-headers");
    // kube-proxy and, on a control plane, four static pods: then the kubelet has registered and written all it does.
    let is_control_plane = bed.try_sh(other, "test -e /etc/kubernetes/manifests/etcd.yaml").code == 0;
    let pods = if is_control_plane { 5 } else { 1 };
    wait_for("the node's readiness", Duration::from_secs(120), || {
        // Upstream's join ends before the kubelet has made its Node.
        bed.try_sh(control_plane, &ready).stdout.contains(" Ready ")
            && bed.sh(control_plane, &pods_of_node).lines().count() == pods
    });
    let excluded: Vec<String> = OF_PODS.iter().map(|part| format!("--exclude='var/lib/kubelet/{part}'")).collect();
    let pack = format!("tar -C / -c {} etc/kubernetes var/lib/kubelet | base64 --wrap 0", excluded.join(" "));
    let archive = STANDARD.decode(bed.sh(other, &pack).trim()).unwrap();
    let objects = bed.sh(control_plane, &format!("{KUBECTL} get {} -A -o json", object::KINDS));
    bed.sh(other, &format!("{program} reset --force && rm -rf /etc/kubernetes /var/lib/kubelet /var/lib/etcd"));
    bed.sh(control_plane, &format!("{KUBECTL} delete node {other}"));
    Snapshot::of_archive(&archive).join(Snapshot::of_objects(&serde_json::from_str(&objects).unwrap()))
}

#[rstest]
#[ignore = "takes minutes: make test-all"]
fn hosts_that_join_are_as_kubeadms(
    #[values("1.36.3", "1.37.2")] version: &str,
    #[values("worker", "control plane")] role: &str,
) {
    let more = match role {
        "worker" => String::new(),
        _ => format!("controlPlane: {{certificateKey: {KEY}}}\n"),
    };
    let bed = prepare(version, &more);
    let [upstream, ours] = [Side::Upstream, Side::Ours].map(|by| joined(&bed, by));
    // A comparison of nothing with nothing is no comparison.
    let mut wanted = vec![
        "/etc/kubernetes/kubelet.conf".to_owned(),
        "/var/lib/kubelet/pki/kubelet-client-current.pem".to_owned(),
        format!("Node /{}", bed.hosts[1].name),
    ];
    if role != "worker" {
        wanted.push("/etc/kubernetes/manifests/etcd.yaml".to_owned());
    }
    for name in wanted {
        assert!(upstream.names().any(|there| there == name), "there is no {name}");
    }
    let mut verdicts = Verdicts::of(Part::Joins);
    verdicts.judge(role, upstream.differences(&ours));
    verdicts.finish(version, 1, true);
}
