//! Upstream's kubeadm on what we made, and we on what it made: nobody is locked in.

use std::time::{Duration, Instant};

use rstest::rstest;

use crate::bed::Bed;
use crate::program::clusterctl;

const VERSION: &str = "1.36.3";
const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";

/// Whose program does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Upstream,
    Ours,
}

impl Side {
    fn program(self) -> &'static str {
        match self {
            Side::Upstream => "kubeadm",
            Side::Ours => "/root/clusterctl node",
        }
    }
}

/// A control plane and a prepared host.
fn cluster(by: Side) -> Bed {
    let bed = Bed::prepared(2, VERSION);
    let configuration = bed.folder.path().join("kubeadm.yaml");
    let networking = "networking: {podSubnet: 10.244.0.0/16}";
    let text = include_str!("golden/whole/defaults.yaml")
        .replace("kubernetesVersion: VERSION", &format!("kubernetesVersion: v{VERSION}\n{networking}"));
    std::fs::write(&configuration, text).unwrap();
    for host in &bed.hosts {
        bed.send(&host.name, &[&clusterctl(), &configuration], "/root");
    }
    let program = by.program();
    bed.sh(&bed.hosts[0].name, &format!("{program} init --config /root/kubeadm.yaml"));
    bed
}

/// The other host becomes a worker, with the command that the control plane's side prints.
fn join(bed: &Bed, printed_by: Side, by: Side) {
    let [control_plane, worker] = [0, 1].map(|at| bed.hosts[at].name.as_str());
    let printed = bed.sh(control_plane, &format!("{} token create --print-join-command", printed_by.program()));
    let words = printed.lines().rfind(|line| line.contains(" join ")).expect("a join command");
    let (_, arguments) = words.split_once(" join ").unwrap();
    let ignored = "--ignore-preflight-errors=SystemVerification";
    bed.sh(worker, &format!("{} join {} {ignored}", by.program(), arguments.trim().trim_end_matches('\\')));
}

fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(500));
    }
}

fn all_nodes_are_ready(bed: &Bed) {
    let nodes = || bed.sh(&bed.hosts[0].name, &format!("{KUBECTL} get nodes --no-headers || true"));
    wait_for("two nodes' readiness", Duration::from_secs(120), || {
        nodes().lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count() == 2
    });
}

/// Nothing of Kubernetes runs or lies there any more, and the host may be used again.
fn is_reset(bed: &Bed, host: &str) {
    let left = bed.sh(
        host,
        "ls /etc/kubernetes/manifests /etc/kubernetes/*.conf /etc/kubernetes/pki /var/lib/etcd 2>/dev/null | \
         grep -v : | grep . || true; pgrep -a 'kube|etcd' || true; grep /var/lib/kubelet/ /proc/mounts || true",
    );
    assert_eq!(left, "", "{host} is not reset");
}

#[rstest]
#[ignore = "takes minutes: make test-all"]
#[case::upstream_on_ours(Side::Ours, Side::Upstream)]
#[ignore = "takes minutes: make test-all"]
#[case::ours_on_upstreams(Side::Upstream, Side::Ours)]
fn a_worker_joins_and_everything_is_reset(#[case] made_by: Side, #[case] used_by: Side) {
    let bed = cluster(made_by);
    join(&bed, made_by, used_by);
    all_nodes_are_ready(&bed);
    if made_by == Side::Ours {
        upstreams_verbs_know_it(&bed);
    }
    for host in bed.hosts.iter().rev() {
        bed.sh(&host.name, &format!("{} reset --force", used_by.program()));
        is_reset(&bed, &host.name);
    }
    // What was reset can be used again.
    bed.sh(&bed.hosts[0].name, &format!("{} init --config /root/kubeadm.yaml", made_by.program()));
}

/// What a person who knows kubeadm types on a node of ours.
fn upstreams_verbs_know_it(bed: &Bed) {
    let control_plane = bed.hosts[0].name.as_str();
    let on = |command: &str| bed.sh(control_plane, command);
    let certificates = on("kubeadm certs check-expiration");
    for name in ["admin.conf", "apiserver", "apiserver-kubelet-client", "etcd-server", "super-admin.conf", "etcd-ca"] {
        let line = certificates.lines().find(|line| line.split_whitespace().next() == Some(name));
        let valid = line.is_some_and(|line| line.contains("364d") || line.contains("365d") || line.contains("9y"));
        assert!(valid, "{name}: {certificates}");
    }
    assert!(!certificates.contains("MISSING"), "{certificates}");

    let tokens = on("kubeadm token list");
    assert!(tokens.contains("abcdef.0123456789abcdef") && tokens.contains("authentication,signing"), "{tokens}");
    on("kubeadm token delete abcdef");
    on("kubeadm certs renew all");
    // It reads kubeadm-config, kubelet-config and kube-proxy's configuration, and writes them again.
    on("kubeadm init phase upload-config all --config /root/kubeadm.yaml");

    let plan = on(&format!("kubeadm upgrade plan v{VERSION} --ignore-preflight-errors=CreateJob"));
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "CoreDNS", "etcd"] {
        assert!(plan.lines().any(|line| line.starts_with(component)), "{component}: {plan}");
    }
}
