use rstest::rstest;
use semver::Version;

use super::{Finding, ListenAddresses, Plan, Purpose, Severity, judge, preflight, prepared, runtime_serves};
use crate::event::Events;
use crate::fact::{Facts, Listening, Service};
use crate::failure::Kind;
use crate::host::fake::FakeHost;
use crate::kubernetes::version::Release;

/// Options of a kernel that suits both versions of control groups.
const OPTIONS: [&str; 19] = [
    "NAMESPACES",
    "NET_NS",
    "PID_NS",
    "IPC_NS",
    "UTS_NS",
    "CPUSETS",
    "MEMCG",
    "INET",
    "EXT4_FS",
    "PROC_FS",
    "IP_NF_TARGET_REDIRECT",
    "NETFILTER_XT_MATCH_COMMENT",
    "FAIR_GROUP_SCHED",
    "CGROUPS",
    "CGROUP_BPF",
    "CGROUP_PIDS",
    "CGROUP_SCHED",
    "CGROUP_DEVICE",
    "CGROUP_FREEZER",
];

fn good() -> Facts {
    Facts {
        kernel: "6.12.0-1-amd64".into(),
        systemd: true,
        cgroup_version: 2,
        kernel_options: Some(OPTIONS.map(str::to_owned).to_vec()),
        cgroup_controllers: ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].map(str::to_owned).to_vec(),
        cpus: 2,
        memory_bytes: 4 << 30,
        hostname: "cp1".into(),
        programs: ["mount", "losetup", "cp"].map(str::to_owned).to_vec(),
        ..Facts::default()
    }
}

fn findings(facts: &Facts, purpose: Purpose, ignore: &[&str]) -> Vec<String> {
    let ignore: Vec<String> = ignore.iter().map(|name| (*name).to_owned()).collect();
    let kubernetes = Version::new(1, 36, 3);
    let plan = Plan {
        purpose,
        cluster: "demo",
        kubernetes: &kubernetes,
        bind_port: 6443,
        listen: ListenAddresses::default(),
        etcd_data: Some("/var/lib/etcd"),
        ignore: &ignore,
    };
    let short = |finding: Finding| match finding.severity {
        Severity::Error => format!("E {}", finding.name),
        Severity::Warning => format!("W {}", finding.name),
    };
    preflight(facts, &plan).into_iter().map(short).collect()
}

#[test]
fn a_good_host_has_no_findings() {
    assert!(findings(&good(), Purpose::Init, &[]).is_empty());
}

fn containerd(version: &str) -> crate::fact::Runtime {
    let path = "/usr/bin/containerd".to_owned();
    crate::fact::Runtime { name: "containerd".into(), path, version: version.into(), ours: false, cri: true }
}

fn without_cri() -> crate::fact::Runtime {
    crate::fact::Runtime { cri: false, ..containerd("2.3.7") }
}

type Change = fn(&mut Facts);

#[rstest]
#[case(|facts: &mut Facts| facts.cpus = 1, Purpose::Init, &["E NumCPU"])]
#[case(|facts: &mut Facts| facts.cpus = 1, Purpose::JoinWorker, &[])]
#[case(|facts: &mut Facts| facts.memory_bytes = 1 << 30, Purpose::JoinControlPlane, &["E Mem"])]
#[case(|facts: &mut Facts| facts.memory_bytes = 1 << 30, Purpose::JoinWorker, &[])]
#[case(|facts: &mut Facts| facts.cgroup_version = 0, Purpose::JoinWorker, &["E SystemVerification"])]
#[case(|facts: &mut Facts| facts.kernel_options = None, Purpose::JoinWorker, &["E SystemVerification"])]
#[case(|facts: &mut Facts| facts.cgroup_controllers.clear(), Purpose::JoinWorker, &["E SystemVerification", "W SystemVerification"])]
#[case(|facts: &mut Facts| facts.runtime = Some(containerd("1.7.28")), Purpose::JoinWorker, &["W ContainerRuntimeVersion"])]
#[case(|facts: &mut Facts| facts.runtime = Some(containerd("2.3.7")), Purpose::JoinWorker, &[])]
#[case(|facts: &mut Facts| facts.kernel = "4.18.0".into(), Purpose::JoinWorker, &["W SystemVerification"])]
#[case(|facts: &mut Facts| facts.kernel = "5.15.9".into(), Purpose::JoinWorker, &[])]
#[case(|facts: &mut Facts| { facts.programs.remove(0); }, Purpose::JoinWorker, &["E FileExisting-mount"])]
#[case(|facts: &mut Facts| facts.runtime = Some(without_cri()), Purpose::JoinWorker, &["E CRI"])]
#[case(|facts: &mut Facts| facts.swap.push("/dev/sda2".into()), Purpose::JoinWorker, &["W Swap"])]
#[case(|facts: &mut Facts| facts.hostname = "my_host".into(), Purpose::JoinWorker, &["W Hostname"])]
#[case(
    |facts: &mut Facts| {
        facts.services.insert("firewalld".into(), Service { active: true, enabled: true });
    },
    Purpose::JoinWorker,
    &["W Firewalld"]
)]
#[case(
    |facts: &mut Facts| facts.listening.push(Listening { address: [0, 0, 0, 0].into(), port: 6443, process: None }),
    Purpose::Init,
    &["E Port-6443"]
)]
#[case(
    |facts: &mut Facts| facts.listening.push(Listening { address: [0, 0, 0, 0].into(), port: 6443, process: None }),
    Purpose::JoinWorker,
    &[]
)]
#[case(
    |facts: &mut Facts| facts.kubernetes.manifests.push("etcd.yaml".into()),
    Purpose::Init,
    &["E FileAvailable--etc-kubernetes-manifests-etcd.yaml"]
)]
#[case(
    |facts: &mut Facts| facts.kubernetes.kubelet_conf = true,
    Purpose::JoinWorker,
    &["E FileAvailable--etc-kubernetes-kubelet.conf"]
)]
#[case::brought_with_an_external_ca(
    |facts: &mut Facts| (facts.kubernetes.kubelet_conf, facts.kubernetes.admin_conf) = (true, true),
    Purpose::Init,
    &[]
)]
#[case(|facts: &mut Facts| facts.kubernetes.etcd_data = true, Purpose::Init, &["E DirAvailable--var-lib-etcd"])]
#[case(
    |facts: &mut Facts| {
        facts.kubernetes.etcd_data = true;
        facts.kubernetes.manifests.push("etcd.yaml".into());
        facts.listening.push(Listening { address: [0, 0, 0, 0].into(), port: 6443, process: None });
        facts.kubernetes.journal_cluster = Some("demo".into());
    },
    Purpose::Init,
    &[]
)]
fn checks(#[case] change: Change, #[case] purpose: Purpose, #[case] found: &[&str]) {
    let mut facts = good();
    change(&mut facts);
    assert_eq!(findings(&facts, purpose, &[]), found);
}

#[rstest]
#[case(36, "127.0.0.1", &["Port-6443"])]
#[case(37, "127.0.0.1", &[])]
#[case(37, "10.0.0.11", &["Port-6443"])]
#[case(37, "0.0.0.0", &["Port-6443"])]
fn from_1_37_on_a_port_is_free_on_the_address_it_is_listened_on(
    #[case] minor: u64,
    #[case] there: &str,
    #[case] names: &[&str],
) {
    let mut facts = good();
    facts.listening.push(Listening { address: there.parse().unwrap(), port: 6443, process: None });
    let api_server = Some("10.0.0.11".parse().unwrap());
    let plan = Plan {
        purpose: Purpose::Init,
        cluster: "demo",
        kubernetes: &Version::new(1, minor, 0),
        bind_port: 6443,
        listen: ListenAddresses { api_server, ..ListenAddresses::default() },
        etcd_data: Some("/var/lib/etcd"),
        ignore: &[],
    };
    let found = preflight(&facts, &plan);
    assert_eq!(found.iter().map(|finding| finding.name.as_str()).collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn a_kubelet_that_does_not_suit_is_told_which_do() {
    let host = FakeHost::new().file("/run/containerd/containerd.sock", "").answer(
        &["kubelet", "--version"],
        0,
        "Kubernetes v1.32.9\n",
    );
    let socket = "unix:///run/containerd/containerd.sock";
    let found = prepared(&host, Some(&Version::new(1, 36, 3)), socket, &[], &[]).await.unwrap();
    let failure = judge(&found, &Events::nowhere()).unwrap_err();
    assert!(failure.sentence.ends_with("Kubernetes 1.36.3 takes kubelets from 1.33 to 1.36"), "{failure}");
    assert!(failure.advice.unwrap().starts_with("install a kubelet of the cluster's minor"));
}

#[rstest]
#[case("systemverification")]
#[case("ALL")]
fn an_ignored_error_is_a_warning(#[case] ignored: &str) {
    let facts = Facts { cgroup_version: 0, ..good() };
    assert_eq!(findings(&facts, Purpose::Init, &[ignored]), ["W SystemVerification"]);
}

#[test]
fn a_node_of_another_cluster_says_of_which() {
    let mut facts = good();
    facts.kubernetes.kubelet_conf = true;
    facts.kubernetes.server = Some("https://10.9.9.9:6443".into());
    let kubernetes = Version::new(1, 36, 3);
    let plan = Plan {
        purpose: Purpose::JoinWorker,
        cluster: "demo",
        kubernetes: &kubernetes,
        bind_port: 6443,
        listen: ListenAddresses::default(),
        etcd_data: Some("/var/lib/etcd"),
        ignore: &[],
    };
    let failure = judge(&preflight(&facts, &plan), &Events::nowhere()).unwrap_err();
    assert_eq!(failure.kind, Kind::Preflight);
    assert!(failure.sentence.ends_with("the host is a node of the cluster at https://10.9.9.9:6443"), "{failure}");
}

#[rstest]
#[case("1", "Kubernetes v1.36.3\n", &[])]
#[case("1", "Kubernetes v1.33.0\n", &[])]
#[case("0", "Kubernetes v1.36.3\n", &["FileContent--proc-sys-net-ipv4-ip_forward"])]
#[case("1", "Kubernetes v1.37.0\n", &["KubeletVersion"])]
#[case("1", "Kubernetes v1.32.9\n", &["KubeletVersion"])]
#[case("1", "banana\n", &["KubeletVersion"])]
#[tokio::test]
async fn a_prepared_host_is_checked(#[case] forward: &str, #[case] kubelet: &str, #[case] names: &[&str]) {
    let host = FakeHost::new()
        .file("/proc/sys/net/ipv4/ip_forward", forward)
        .file("/run/containerd/containerd.sock", "")
        .answer(&["kubelet", "--version"], 0, kubelet);
    let (kubernetes, addresses) = (Version::new(1, 36, 3), ["10.0.0.1".parse().unwrap()]);
    let socket = "unix:///run/containerd/containerd.sock";
    let found = prepared(&host, Some(&kubernetes), socket, &addresses, &[]).await.unwrap();
    let found: Vec<String> = found.into_iter().map(|finding| finding.name).collect();
    assert_eq!(found, names);
}

/// kubeadm's checks of kubeadm.md sections 1.2 to 1.4 and who has them here.
const CHECKS: [(&str, &str); 33] = [
    ("IsPrivilegedUser", "cli::node::here: nothing is begun as another user; the agent runs as root"),
    ("NumCPU", "preflight"),
    ("Mem", "preflight"),
    ("KubernetesVersion", "kubernetes::version::Release: a minor that is not known is refused"),
    ("Firewalld", "preflight"),
    ("Port-6443", "preflight"),
    ("Port-10259", "preflight"),
    ("Port-10257", "preflight"),
    ("FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml", "preflight"),
    ("FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml", "preflight"),
    ("FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml", "preflight"),
    ("FileAvailable--etc-kubernetes-manifests-etcd.yaml", "preflight"),
    ("HTTPProxy", "surroundings"),
    ("HTTPProxyCIDR", "surroundings"),
    ("CRI", "prepared"),
    ("ContainerRuntimeVersion", "preflight"),
    ("Swap", "preflight"),
    ("FileExisting-mount", "preflight"),
    ("FileExisting-losetup", "preflight"),
    ("FileExisting-cp", "preflight"),
    ("SystemVerification", "preflight"),
    ("Hostname", "surroundings"),
    ("KubeletVersion", "prepared"),
    ("Service-kubelet", "by_hand"),
    ("Port-10250", "preflight"),
    ("FileContent--proc-sys-net-ipv4-ip_forward", "prepared"),
    ("FileContent--proc-sys-net-ipv6-conf-default-forwarding", "prepared"),
    ("ExternalEtcdVersion", "surroundings"),
    ("Port-2379", "preflight"),
    ("DirAvailable--var-lib-etcd", "preflight"),
    ("ExternalEtcdClientCertificates", "surroundings"),
    ("FileAvailable--etc-kubernetes-kubelet.conf", "preflight"),
    ("FileAvailable--etc-kubernetes-pki-ca.crt", "preflight"),
];

/// A host on which everything is wrong that checks of facts can find.
fn hopeless() -> Facts {
    let listening = |port| Listening { address: [0, 0, 0, 0].into(), port, process: None };
    let mut facts =
        Facts { cpus: 1, memory_bytes: 1, hostname: "my_host".into(), swap: vec!["/s".into()], ..Facts::default() };
    facts.services.insert("firewalld".into(), Service { active: true, enabled: true });
    facts.listening = [6443, 10259, 10257, 10250, 2379, 2380].map(listening).to_vec();
    facts.runtime = Some(containerd("1.7.28"));
    facts.kubernetes.manifests = super::MANIFESTS.iter().map(|name| format!("{name}.yaml")).collect();
    facts.kubernetes.kubelet_conf = true;
    facts.kubernetes.ca_hash = Some("sha256:00".into());
    facts.kubernetes.etcd_data = true;
    facts
}

#[rstest]
#[case(0, "io.containerd.cri.v1 runtime linux/amd64 ok\nio.containerd.grpc.v1 cri - ok\n", None)]
#[case(0, "TYPE ID PLATFORMS STATUS\n", None)]
#[case(0, "io.containerd.grpc.v1 cri - error\n", Some("does not serve CRI: its plugin has the status \"error\""))]
#[case(0, "io.containerd.grpc.v1 cri linux/amd64 skip\n", Some("has the status \"skip\""))]
#[case(1, "", Some("does not answer: ctr ended with 1"))]
#[tokio::test]
async fn a_runtime_that_does_not_serve_is_found_behind_its_socket(
    #[case] status: i32,
    #[case] plugins: &str,
    #[case] message: Option<&str>,
) {
    let host = FakeHost::new().file("/run/containerd/containerd.sock", "").answer(&["ctr"], status, plugins);
    let found = runtime_serves(&host, "unix:///run/containerd/containerd.sock", &[]).await;
    match message {
        Some(message) => assert!(found[0].name == "CRI" && found[0].message.contains(message), "{found:?}"),
        None => assert!(found.is_empty(), "{found:?}"),
    }
}

#[rstest]
#[case(Some("/data/etcd"), FakeHost::new().file("/data/etcd/member/snap/db", ""), &["DirAvailable--data-etcd"])]
#[case(Some("/data/etcd"), FakeHost::new().directory("/data/etcd"), &[])]
#[case(Some("/data/etcd"), FakeHost::new(), &[])]
// It is a member that runs here already.
#[case(Some("/data/etcd"), FakeHost::new().file("/data/etcd/member/snap/db", "").file("/etc/kubernetes/manifests/etcd.yaml", ""), &[])]
// Among the facts.
#[case(Some("/var/lib/etcd"), FakeHost::new().file("/var/lib/etcd/member/snap/db", ""), &[])]
#[case(None, FakeHost::new(), &[])]
fn a_folder_that_a_person_chose_for_etcd_is_empty(
    #[case] folder: Option<&str>,
    #[case] host: FakeHost,
    #[case] expected: &[&str],
) {
    let found = super::chosen_etcd_data(&host, folder, &[]).unwrap();
    assert_eq!(found.iter().map(|finding| finding.name.as_str()).collect::<Vec<_>>(), expected);
    let ignored = super::chosen_etcd_data(&host, folder, &["all".to_owned()]).unwrap();
    assert!(ignored.iter().all(|finding| finding.severity == Severity::Warning));
}

#[tokio::test]
async fn every_check_of_kubeadm_has_its_place() {
    let mut names: Vec<String> = [Purpose::Init, Purpose::JoinControlPlane, Purpose::JoinWorker]
        .into_iter()
        .flat_map(|purpose| findings(&hopeless(), purpose, &[]))
        .map(|finding| format!("preflight {}", &finding[2..]))
        .collect();
    let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let found = prepared(&FakeHost::new(), None, "unix:///run/none.sock", &addresses, &[]).await.unwrap();
    names.extend(found.into_iter().map(|finding| format!("prepared {}", finding.name)));
    names.extend(
        super::surroundings::tests::of_a_hopeless_host().await.into_iter().map(|name| format!("surroundings {name}")),
    );
    let host = FakeHost::new().answer(&["systemctl"], 0, "").every_unit("LoadState=not-found\n");
    let release = Release::of(&Version::new(1, 36, 3)).unwrap();
    let found = super::by_hand(&host, release, "unix:///run/none.sock", &[]).await;
    names.extend(found.into_iter().map(|finding| format!("by_hand {}", finding.name)));
    for (check, place) in CHECKS {
        let known = ["preflight", "prepared", "surroundings", "by_hand"].contains(&place);
        assert!(!known || names.contains(&format!("{place} {check}")), "{check} is not found by {place}");
    }
}
