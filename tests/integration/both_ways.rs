//! Upstream's kubeadm on what we made, and we on what it made: nobody is locked in.

use std::path::Path;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};

use crate::bed::{Bed, difference};
use crate::high_availability::changes_nothing;
use crate::program::{clusterctl, succeeds, up};

const VERSION: &str = "1.36.3";
const NEXT: &str = "1.37.2";
pub const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";

/// Whose program does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// kubeadm.
    Upstream,
    /// `clusterctl node`.
    Ours,
}

impl Side {
    /// How it is called on a host.
    pub fn program(self) -> &'static str {
        match self {
            Side::Upstream => "kubeadm",
            Side::Ours => "/root/clusterctl node",
        }
    }
}

/// What the other host becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Worker,
    ControlPlane,
}

/// The key of the uploaded certificates.
pub const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A control plane that others can join, and a prepared host.
pub fn cluster(by: Side) -> Bed {
    cluster_of(VERSION, by)
}

/// The same of another version.
fn cluster_of(version: &str, by: Side) -> Bed {
    let bed = Bed::prepared(2, version);
    let configuration = bed.folder.path().join("kubeadm.yaml");
    let endpoint = format!("controlPlaneEndpoint: {}:6443", bed.hosts[0].address);
    let more = format!("kubernetesVersion: v{version}\nnetworking: {{podSubnet: 10.244.0.0/16}}\n{endpoint}");
    let text = include_str!("golden/whole/defaults.yaml")
        .replace("kubernetesVersion: VERSION", &more)
        .replace("bootstrapTokens:", &format!("certificateKey: {KEY}\nbootstrapTokens:"));
    std::fs::write(&configuration, text).unwrap();
    for host in &bed.hosts {
        bed.send(&host.name, &[&clusterctl(), &configuration], "/root");
    }
    init(&bed, by);
    bed
}

fn init(bed: &Bed, by: Side) {
    bed.sh(&bed.hosts[0].name, &format!("{} init --upload-certs --config /root/kubeadm.yaml", by.program()));
}

/// The other host joins, with the command that this side's program prints.
fn join(bed: &Bed, printed_by: Side, by: Side, role: Role) {
    let [control_plane, other] = [0, 1].map(|at| bed.hosts[at].name.as_str());
    let key = if role == Role::ControlPlane { format!("--certificate-key {KEY}") } else { String::new() };
    let print = format!("{} token create --print-join-command {key}", printed_by.program());
    bed.sh(other, &join_command(by, &bed.sh(control_plane, &print)));
}

/// What joins a host, out of what was printed for it.
fn join_command(by: Side, printed: &str) -> String {
    let words = printed.lines().rfind(|line| line.contains(" join ")).expect("a join command");
    let (_, arguments) = words.split_once(" join ").unwrap();
    let ignored = "--ignore-preflight-errors=SystemVerification";
    format!("{} join {} {ignored}", by.program(), arguments.trim().trim_end_matches('\\'))
}

/// Both members of etcd vote.
fn both_members_vote(bed: &Bed) {
    let certificates = "--cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt \
                        --key /etc/kubernetes/pki/etcd/server.key";
    let (host, pods) = (&bed.hosts[1].name, "-n kube-system");
    let list = format!("{KUBECTL} {pods} exec etcd-{host} -- etcdctl {certificates} member list");
    // The node is ready a moment before the API server shows the pod that has long run.
    wait_for("etcd's answer through its pod", Duration::from_secs(60), || {
        bed.try_sh(&bed.hosts[0].name, &list).code == 0
    });
    let members = bed.sh(&bed.hosts[0].name, &list);
    let votes = |line: &&str| line.contains(", started, ") && line.ends_with(", false");
    assert_eq!(members.lines().filter(votes).count(), 2, "{members}");
}

pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
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
pub fn is_reset(bed: &Bed, host: &str) {
    let left = bed.sh(
        host,
        "ls /etc/kubernetes/manifests /etc/kubernetes/*.conf /etc/kubernetes/pki /var/lib/etcd 2>/dev/null | \
         grep -v : | grep . || true; pgrep -a 'kube|etcd' || true; grep /var/lib/kubelet/ /proc/mounts || true",
    );
    assert_eq!(left, "", "{host} is not reset");
}

/// What a host has in its kernel and in its folders of the runtime: what a cluster alters and only our reset cleans.
pub fn network_and_mounts(bed: &Bed, host: &str) -> String {
    const KINDS: &[&str] = &["link", "address", "route", "rule", "netns", "ip", "nft", "mount"];
    // The host came with a plugin of its own, whose bridge stays as its file does: nobody knows whose it is.
    let counts = |line: &&str| KINDS.iter().any(|kind| line.starts_with(kind)) && !line.contains("cni0");
    bed.listing(host).lines().filter(counts).map(|line| format!("{line}\n")).collect()
}

/// The same before a join and after a reset of ours.
pub fn is_as_it_was(bed: &Bed, host: &str, before: &str) {
    let after = network_and_mounts(bed, host);
    assert_eq!(before, after, "{host} is not as it was:\n{}", difference(before, &after));
}

#[rstest]
#[ignore = "takes minutes: make test-all"]
#[case::upstreams_worker(VERSION, Side::Ours, Role::Worker)]
#[ignore = "takes minutes: make test-all"]
#[case::upstreams_control_plane(VERSION, Side::Ours, Role::ControlPlane)]
#[ignore = "takes minutes: make test-all"]
#[case::our_worker(VERSION, Side::Upstream, Role::Worker)]
#[ignore = "takes minutes: make test-all"]
#[case::our_control_plane(VERSION, Side::Upstream, Role::ControlPlane)]
#[ignore = "takes minutes: make test-all"]
#[case::upstreams_control_plane_of_the_next_minor(NEXT, Side::Ours, Role::ControlPlane)]
fn a_node_joins_and_everything_is_reset(#[case] version: &str, #[case] made_by: Side, #[case] role: Role) {
    let used_by = if made_by == Side::Ours { Side::Upstream } else { Side::Ours };
    let bed = cluster_of(version, made_by);
    let before = network_and_mounts(&bed, &bed.hosts[1].name);
    // Of a cluster that the other side made, a worker joins by what its own side prints there.
    let printed_by = if role == Role::Worker { used_by } else { made_by };
    join(&bed, printed_by, used_by, role);
    all_nodes_are_ready(&bed);
    match role {
        Role::ControlPlane => {
            both_members_vote(&bed);
            certificates_are_known(&bed, &bed.hosts[1].name, &["admin.conf", "apiserver", "etcd-server", "etcd-ca"]);
        }
        Role::Worker => {
            our_verbs_say_what_upstreams_do(&bed);
            if made_by == Side::Ours {
                upstreams_verbs_know_it(&bed);
            }
        }
    }
    for host in bed.hosts.iter().rev() {
        bed.sh(&host.name, &format!("{} reset --force", used_by.program()));
        is_reset(&bed, &host.name);
    }
    if used_by == Side::Ours {
        is_as_it_was(&bed, &bed.hosts[1].name, &before);
    }
    // What was reset can be used again.
    init(&bed, made_by);
}

/// Upstream's kubeadm finds these certificates on a host, fresh.
fn certificates_are_known(bed: &Bed, host: &str, names: &[&str]) -> String {
    let certificates = bed.sh(host, "kubeadm certs check-expiration");
    for &name in names {
        let line = certificates.lines().find(|line| line.split_whitespace().next() == Some(name));
        let valid = line.is_some_and(|line| line.contains("364d") || line.contains("365d") || line.contains("9y"));
        assert!(valid, "{name}: {certificates}");
    }
    certificates
}

/// What a person who knows kubeadm types on a node of ours.
fn upstreams_verbs_know_it(bed: &Bed) {
    let control_plane = bed.hosts[0].name.as_str();
    let on = |command: &str| bed.sh(control_plane, command);
    let names = ["admin.conf", "apiserver", "apiserver-kubelet-client", "etcd-server", "super-admin.conf", "etcd-ca"];
    let certificates = certificates_are_known(bed, control_plane, &names);
    assert!(!certificates.contains("MISSING"), "{certificates}");

    let tokens = on("kubeadm token list");
    assert!(tokens.contains("abcdef.0123456789abcdef") && tokens.contains("authentication,signing"), "{tokens}");
    on("kubeadm token delete abcdef");
    on("kubeadm certs renew all");
    // kubeadm lost `config view` with 1.21 and names this command in its place; what we stored is judged by it.
    let stored = format!("{KUBECTL} -n kube-system get cm kubeadm-config -o jsonpath='{{.data.ClusterConfiguration}}'");
    on(&format!("{stored} >/tmp/stored.yaml && kubeadm config validate --config /tmp/stored.yaml"));
    // It writes kubeadm-config and kubelet-config again, out of the file that we made the cluster with.
    on("kubeadm init phase upload-config all --config /root/kubeadm.yaml");
    // The way in for whoever has locked everybody out.
    let who = on("kubectl --kubeconfig /etc/kubernetes/super-admin.conf auth whoami");
    assert!(who.contains("system:masters"), "{who}");

    bed.send(control_plane, &[Path::new(crate::bed::bed(&["kubeadm", NEXT]).trim())], "/root/next");
    an_upgrade_is_planned(bed, "/root/next/kubeadm", NEXT, "v1.14.6", "3.7.0-0");
}

/// A kubeadm plans an upgrade to a version: it takes the work, all is healthy, and all versions are found.
fn an_upgrade_is_planned(bed: &Bed, kubeadm: &str, version: &str, dns: &str, etcd: &str) {
    let plan = format!("{kubeadm} upgrade plan v{version} --ignore-preflight-errors=SystemVerification");
    let plan = bed.sh(&bed.hosts[0].name, &plan);
    // Those that run once in the cluster have no host in their line.
    let version = format!("v{version}");
    for (component, words, target) in [
        ("kube-apiserver", 4, version.as_str()),
        ("kube-controller-manager", 4, &version),
        ("kube-scheduler", 4, &version),
        ("kube-proxy", 3, &version),
        ("CoreDNS", 3, dns),
        ("etcd", 4, etcd),
    ] {
        let lines = plan.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.into_iter().find(|line| line.first() == Some(&component)).unwrap_or_default();
        assert!(line.len() == words && line.last() == Some(&target), "{component}: {plan}");
    }
}

/// The tokens of a cluster as a program lists them.
fn tokens(bed: &Bed, of: Side) -> Vec<Value> {
    let listed = bed.sh(&bed.hosts[0].name, &format!("{} token list -o json", of.program()));
    let documents = serde_json::Deserializer::from_str(&listed).into_iter::<Value>();
    documents.map(|document| document.unwrap_or_else(|error| panic!("{error} in {listed}"))).collect()
}

/// Whoever made the cluster and a token in it: both list the same, what we remove is gone for both, and whoever gets a
/// kubeconfig is who it says.
fn our_verbs_say_what_upstreams_do(bed: &Bed) {
    let on = |command: &str| bed.sh(&bed.hosts[0].name, command);
    let [theirs, ours] = [Side::Upstream, Side::Ours].map(Side::program);
    let usages = "--usages authentication --groups system:bootstrappers:blue --description 'of theirs' --ttl 0";
    on(&format!("{theirs} token create theirs.0123456789abcdef {usages}"));
    on(&format!("{ours} token create ofours.0123456789abcdef --ttl 1h"));
    let listed = tokens(bed, Side::Upstream);
    assert_eq!(tokens(bed, Side::Ours), listed);
    // Beside them that of the configuration and that of the uploaded certificates.
    assert!(listed.len() >= 4, "{listed:#?}");
    let deleted = on(&format!("{ours} token delete ofours theirs.0123456789abcdef"));
    assert_eq!(deleted, "bootstrap token ofours deleted\nbootstrap token theirs deleted\n");
    let left = tokens(bed, Side::Upstream);
    assert_eq!(left.len(), listed.len() - 2, "{left:#?}");
    assert_eq!(tokens(bed, Side::Ours), left);

    for program in [theirs, ours] {
        on(&format!("{program} kubeconfig user --client-name jane --org team-a,team-b > /root/jane.conf"));
        let who = on("kubectl --kubeconfig /root/jane.conf auth whoami -o json");
        let who: Value = serde_json::from_str(&who).unwrap_or_else(|error| panic!("{error} in {who}"));
        let user = &who["status"]["userInfo"];
        let expected = json!(["team-a", "team-b", "system:authenticated"]);
        assert_eq!((&user["username"], &user["groups"]), (&json!("jane"), &expected), "{program}");
    }
}

/// A cluster that `up` made is one that kubeadm knows: a host that has never heard of us joins it by kubeadm alone, and leaves
/// it.
#[test]
fn a_cluster_of_ups_is_one_of_kubeadms() {
    let bed = Bed::bare(1);
    let control_plane = bed.hosts[0].name.as_str();
    let inventory = bed.inventory();
    let other = std::thread::scope(|scope| {
        let made = scope.spawn(|| succeeds(up(&inventory)));
        let other = Bed::prepared(1, VERSION);
        made.join().unwrap();
        other
    });
    let host = other.hosts[0].name.as_str();
    bed.send(control_plane, &[Path::new(crate::bed::bed(&["kubeadm", VERSION]).trim())], "/usr/local/bin");
    let on = |command: &str| bed.sh(control_plane, command);
    let names = ["admin.conf", "apiserver", "apiserver-kubelet-client", "etcd-server", "super-admin.conf", "etcd-ca"];
    let certificates = certificates_are_known(&bed, control_plane, &names);
    assert!(!certificates.contains("MISSING"), "{certificates}");
    on("kubeadm token create abcdef.0123456789abcdef --ttl 1h");
    let tokens = on("kubeadm token list");
    assert!(tokens.contains("abcdef.0123456789abcdef") && tokens.contains("authentication,signing"), "{tokens}");
    on("kubeadm token delete abcdef");

    let printed = on("kubeadm token create --print-join-command");
    other.sh(host, &join_command(Side::Upstream, &printed));
    all_nodes_are_ready(&bed);
    // With a patch release that nobody has to fetch: it would write our static pods as they are, but for their images.
    an_upgrade_is_planned(&bed, "kubeadm", "1.36.4", "v1.14.2", "3.6.8-0");
    let written = on("kubeadm upgrade diff v1.36.4");
    let is_changed = |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---");
    let changed: Vec<&str> = written.lines().filter(is_changed).map(|line| line[1..].trim_start()).collect();
    let images = changed.iter().filter(|line| line.starts_with("image: registry.k8s.io/kube-")).count();
    assert_eq!((changed.len(), images), (6, 6), "{written}");

    other.sh(host, "kubeadm reset --force");
    is_reset(&other, host);
    on(&format!("{KUBECTL} delete node {host}"));
    on("rm /usr/local/bin/kubeadm");
    changes_nothing(&inventory);
}
