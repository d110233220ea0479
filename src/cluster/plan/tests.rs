//! A table of hosts and what is planned for them.

use std::collections::BTreeMap;
use std::path::Path;

use rstest::rstest;

use super::{Assessment, Borne, Plan, Way, assess, default_address, node_address, plan_of_the_fit};
use crate::bundle::{Blob, FORMAT, Manifest};
use crate::cluster::documents::Documents;
use crate::cluster::findings::{divide, turn_down};
use crate::fact::{Disk, EtcdOrigin, Facts, KubernetesState, LinkAddress, Listening, Route, Runtime};
use crate::failure::{Failure, Kind};
use crate::inventory::{self, Inventory, Role};
use crate::message::Place;

pub(in crate::cluster) fn inventory() -> Inventory {
    let text = "cluster:\n  name: demo\n  kubernetes: 1.36.3\nssh: {user: root}\nhosts:\n  cp1: {address: 10.0.0.11, role: control-plane}\n  w1: {address: 10.0.0.21}\n";
    inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
        .unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn link(name: &str, address: &str) -> LinkAddress {
    LinkAddress { link: name.into(), address: address.parse().unwrap() }
}

fn route(destination: &str, via: Option<&str>, link: &str) -> Route {
    Route { destination: destination.parse().unwrap(), via: via.map(|via| via.parse().unwrap()), link: link.into() }
}

/// A host that nothing is wrong with.
fn good(address: &str, machine_id: &str) -> Facts {
    Facts {
        architecture: "amd64".into(),
        cgroup_version: 2,
        cgroup_controllers: ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].map(str::to_owned).to_vec(),
        kernel_options: Some(crate::node::kernel_options().map(str::to_owned).collect()),
        systemd: true,
        memory_bytes: 8 << 30,
        cpus: 4,
        addresses: vec![link("eth0", &format!("{address}/24"))],
        routes: vec![route("0.0.0.0/0", Some("10.0.0.1"), "eth0")],
        hostname: machine_id.into(),
        machine_id: machine_id.into(),
        kernel: "6.12.0".into(),
        programs: ["mount", "losetup", "cp", "ip", "iptables", "modprobe"].map(str::to_owned).to_vec(),
        ..Facts::default()
    }
}

pub(in crate::cluster) fn facts() -> BTreeMap<String, Facts> {
    BTreeMap::from([("cp1".into(), good("10.0.0.11", "a")), ("w1".into(), good("10.0.0.21", "b"))])
}

fn blob(name: &str, roles: &[Role], place: Place) -> Blob {
    Blob {
        name: name.into(),
        sha256: format!("{name:0>64}"),
        size: 1,
        stored_sha256: String::new(),
        stored_size: 1,
        architecture: "amd64".into(),
        roles: roles.to_vec(),
        place,
    }
}

pub(in crate::cluster) fn manifest() -> Manifest {
    let file = |path: &str| Place::File { path: path.into(), mode: 0o755 };
    let pause = Place::Images { references: vec!["registry.k8s.io/pause:3.10.2".into()] };
    let both = [Role::ControlPlane, Role::Worker];
    Manifest {
        format: FORMAT,
        kubernetes: semver::Version::new(1, 36, 3),
        blobs: vec![
            blob("bin/containerd", &both, file("/usr/local/bin/containerd")),
            blob("bin/kubelet", &both, file("/usr/local/bin/kubelet")),
            blob("images/control-plane", &[Role::ControlPlane], Place::Images { references: vec![] }),
            blob("images/pause", &both, pause),
        ],
    }
}

/// The plan of all hosts, or every reason on every host why it must not begin.
fn plan(
    inventory: &Inventory,
    documents: &Documents,
    facts: &BTreeMap<String, Facts>,
    manifest: &Manifest,
) -> Result<Plan, Vec<Failure>> {
    let Assessment { hosts, mut findings } = assess(inventory, documents, facts, Some(manifest));
    turn_down(&mut findings, &inventory.cluster.ignore_checks);
    let (failures, warnings) = divide(findings);
    if failures.is_empty() { Ok(Plan { hosts, warnings }) } else { Err(failures) }
}

fn failures(facts: &BTreeMap<String, Facts>) -> Vec<(Kind, String)> {
    let inventory = inventory();
    let failures = plan(&inventory, &Documents::default(), facts, &manifest()).unwrap_err();
    failures.into_iter().map(|failure| (failure.kind, failure.to_string())).collect()
}

#[test]
fn bare_hosts_get_what_their_role_needs() {
    let inventory = inventory();
    let plan = plan(&inventory, &Documents::default(), &facts(), &manifest()).unwrap();
    let names = |index: usize| plan.hosts[index].blobs.iter().map(|blob| blob.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names(0), ["bin/containerd", "bin/kubelet", "images/control-plane", "images/pause"]);
    assert_eq!(names(1), ["bin/containerd", "bin/kubelet", "images/pause"]);
    assert!(plan.hosts.iter().all(|host| !host.member && !host.node.must_be_told));
    assert_eq!(plan.hosts[0].variables["pause_image"], "registry.k8s.io/pause:3.10.2");
    assert_eq!(plan.hosts[0].variables["containerd_ours"], true);
}

#[test]
fn a_host_that_brings_its_runtime_keeps_it() {
    let mut facts = facts();
    let runtime = Runtime {
        name: "containerd".into(),
        path: "/usr/bin/containerd".into(),
        version: "1.7.24".into(),
        ours: false,
        cri: true,
    };
    facts.get_mut("w1").unwrap().runtime = Some(runtime);
    let plan = plan(&inventory(), &Documents::default(), &facts, &manifest()).unwrap();
    assert!(plan.hosts[1].blobs.iter().all(|blob| blob.name != "bin/containerd"));
    assert_eq!(plan.hosts[1].variables["containerd_ours"], false);
}

#[rstest]
#[case::no_systemd(|facts: &mut Facts| facts.systemd = false, Kind::Preflight, "systemd")]
#[case::architecture(|facts: &mut Facts| facts.architecture = "arm64".into(), Kind::Bundle, "arm64")]
#[case::cloned(|facts: &mut Facts| facts.machine_id = "a".into(), Kind::Preflight, "cp1 and w1 have the same /etc/machine-id")]
#[case::other_cluster(|facts: &mut Facts| facts.kubernetes.journal_cluster = Some("other".into()), Kind::Preflight, "clusterctl's cluster other")]
#[case::other_tool(|facts: &mut Facts| { facts.kubernetes.kubelet_conf = true; facts.kubernetes.server = Some("https://192.0.2.7:6443".into()); }, Kind::Preflight, "https://192.0.2.7:6443")]
fn a_host_that_must_not_be_touched_is_refused(#[case] spoil: fn(&mut Facts), #[case] kind: Kind, #[case] words: &str) {
    let mut facts = facts();
    spoil(facts.get_mut("w1").unwrap());
    let found = failures(&facts);
    assert!(
        found.iter().any(|(found, text)| *found == kind && text.starts_with("w1: ") && text.contains(words)),
        "{found:?}"
    );
}

/// From 1.37 on a port is taken only where the component is told to listen: kubeadm.md, "1.37 and corrections", D.
#[rstest]
#[case::before(36, "10.9.9.9", 2379, true)]
#[case::etcd_listens_elsewhere(37, "10.9.9.9", 2379, false)]
#[case::etcd_listens_there(37, "10.0.0.11", 2379, true)]
#[case::as_an_argument_says(37, "127.0.0.1", 6443, false)]
#[case::on_all_addresses(37, "127.0.0.1", 10259, true)]
fn a_port_is_taken_where_a_component_is_told_to_listen(
    #[case] minor: u64,
    #[case] there: &str,
    #[case] port: u16,
    #[case] taken: bool,
) {
    let kubeadm = "apiVersion: kubeadm.k8s.io/v1beta4\n    kind: ClusterConfiguration\n    apiServer: {extraArgs: \
                   [{name: bind-address, value: 10.0.0.11}]}";
    let text = format!(
        "cluster:\n  name: demo\n  kubernetes: 1.{minor}.2\n  kubeadm: |\n    {kubeadm}\nssh: {{user: root}}\nhosts:\n  \
         cp1: {{address: 10.0.0.11, role: control-plane}}\n"
    );
    let inventory = inventory::parse(&text, Path::new("inventory.yaml"), Path::new("/home/ann")).unwrap();
    let documents = Documents::read(&inventory).unwrap();
    let mut facts = facts();
    let own = facts.get_mut("cp1").unwrap();
    own.listening = vec![Listening { address: there.parse().unwrap(), port, process: Some("nginx".into()) }];
    let found = assess(&inventory, &documents, &facts, None).findings;
    assert_eq!(found.iter().any(|finding| finding.check == format!("Port-{port}")), taken, "{found:?}");
}

#[test]
fn all_reasons_on_all_hosts_come_at_once() {
    let mut facts = facts();
    facts.get_mut("cp1").unwrap().systemd = false;
    facts.get_mut("w1").unwrap().architecture = "arm64".into();
    let hosts: Vec<String> = failures(&facts).into_iter().map(|(_, text)| text[..3].to_owned()).collect();
    assert!(hosts.iter().any(|host| host == "cp1") && hosts.iter().any(|host| host == "w1:"), "{hosts:?}");
}

#[rstest]
#[case::a_worker("w1", |facts: &mut Facts| facts.systemd = false, Some("w1"))]
#[case::without_room("w1", |facts: &mut Facts| facts.disks = vec![Disk { path: "/var/lib".into(), total_bytes: 4 << 30, free_bytes: 1 << 30 }], Some("w1"))]
#[case::for_two_reasons("w1", |facts: &mut Facts| { facts.systemd = false; facts.architecture = "arm64".into(); }, Some("w1"))]
#[case::nobody("w1", |_: &mut Facts| (), None)]
fn a_worker_that_is_not_fit_is_left_out(
    #[case] host: &str,
    #[case] spoil: fn(&mut Facts),
    #[case] left_out: Option<&str>,
) {
    let mut facts = facts();
    spoil(facts.get_mut(host).unwrap());
    let Borne { plan, unfit } =
        plan_of_the_fit(&inventory(), &Documents::default(), &facts, &manifest(), Vec::new()).unwrap();
    let names: Vec<_> = unfit.iter().filter_map(|failure| failure.host.as_deref()).collect();
    assert_eq!(names, left_out.into_iter().collect::<Vec<_>>());
    assert!(plan.hosts.iter().all(|host| Some(host.name.as_str()) != left_out) && plan.source() == Some("cp1"));
}

#[rstest]
#[case::a_control_plane("cp1", |facts: &mut Facts| facts.systemd = false)]
#[case::between_hosts("w1", |facts: &mut Facts| facts.machine_id = "a".into())]
#[case::of_another_cluster("w1", |facts: &mut Facts| facts.kubernetes.journal_cluster = Some("other".into()))]
fn what_concerns_all_hosts_stops_the_run(#[case] host: &str, #[case] spoil: fn(&mut Facts)) {
    let mut facts = facts();
    spoil(facts.get_mut(host).unwrap());
    assert!(plan_of_the_fit(&inventory(), &Documents::default(), &facts, &manifest(), Vec::new()).is_err());
}

#[test]
fn members_of_this_cluster_are_recognised_by_its_ca() {
    let mut facts = facts();
    for name in ["cp1", "w1"] {
        let state = &mut facts.get_mut(name).unwrap().kubernetes;
        state.journal_cluster = Some("demo".into());
        state.kubelet_conf = true;
        state.ca_hash = Some("sha256:1".into());
    }
    let planned = plan(&inventory(), &Documents::default(), &facts, &manifest()).unwrap();
    assert!(planned.hosts.iter().all(|host| host.member));
    facts.get_mut("w1").unwrap().kubernetes.ca_hash = Some("sha256:2".into());
    assert!(failures(&facts)[0].1.contains("another cluster"));
}

#[rstest]
#[case::external_ca(|_: &mut KubernetesState| (), true)]
#[case::its_key_is_here(|state: &mut KubernetesState| state.ca_key = true, false)]
#[case::a_worker_of_another_cluster(|state: &mut KubernetesState| state.admin_conf = false, false)]
#[case::a_control_plane_of_another_cluster(
    |state: &mut KubernetesState| state.manifests = vec!["kube-apiserver.yaml".into()],
    false
)]
fn kubeconfigs_that_a_person_brought_with_an_external_ca_are_no_other_cluster(
    #[case] change: fn(&mut KubernetesState),
    #[case] accepted: bool,
) {
    let mut facts = facts();
    let state = &mut facts.get_mut("cp1").unwrap().kubernetes;
    (state.kubelet_conf, state.admin_conf, state.ca_hash) = (true, true, Some("sha256:1".into()));
    change(state);
    match plan(&inventory(), &Documents::default(), &facts, &manifest()) {
        Ok(plan) => assert!(accepted && !plan.hosts[0].member),
        Err(failures) => assert!(!accepted && failures[0].sentence.contains("another cluster"), "{failures:?}"),
    }
}

#[test]
fn a_bundle_of_another_version_is_refused() {
    let manifest = Manifest { kubernetes: semver::Version::new(1, 35, 4), ..manifest() };
    let found = plan(&inventory(), &Documents::default(), &facts(), &manifest).unwrap_err();
    assert_eq!(found[0].kind, Kind::Bundle);
}

#[test]
fn the_default_route_tells_the_address() {
    let facts = Facts {
        addresses: vec![link("eth1", "192.168.9.5/24"), link("eth0", "10.0.0.99/32"), link("eth0", "10.0.0.11/24")],
        routes: vec![route("10.0.0.0/24", None, "eth0"), route("0.0.0.0/0", Some("10.0.0.1"), "eth0")],
        ..Facts::default()
    };
    assert_eq!(default_address(&facts), Some("10.0.0.11".parse().unwrap()));
    assert_eq!(default_address(&Facts::default()), None);
}

#[test]
fn an_address_other_than_the_default_routes_must_be_told_to_the_kubelet() {
    let mut host = inventory().hosts[0].clone();
    let mut facts = good("10.0.2.15", "a");
    facts.addresses.push(link("eth1", "10.0.0.11/24"));
    host.node_address = Some("10.0.0.11".parse().unwrap());
    let node = node_address(&host, &facts).unwrap();
    assert_eq!((node.address.to_string().as_str(), node.must_be_told), ("10.0.0.11", true));
    // Behind address translation: the host does not have the inventory's address.
    host.node_address = Some("203.0.113.9".parse().unwrap());
    let node = node_address(&host, &facts).unwrap();
    assert_eq!((node.address.to_string().as_str(), node.must_be_told), ("10.0.2.15", false));
}

/// Three control planes and a worker, the endpoint built in.
fn three() -> Inventory {
    let text = "cluster:\n  name: demo\n  kubernetes: 1.36.3\n  endpoint: built-in\nssh: {user: root}\nhosts:\n  cp1: {address: 10.0.0.11, role: control-plane}\n  cp2: {address: 10.0.0.12, role: control-plane}\n  cp3: {address: 10.0.0.13, role: control-plane}\n  w1: {address: 10.0.0.21}\n";
    inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
        .unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn facts_of_three() -> BTreeMap<String, Facts> {
    let hosts = [("cp1", "10.0.0.11"), ("cp2", "10.0.0.12"), ("cp3", "10.0.0.13"), ("w1", "10.0.0.21")];
    hosts.map(|(name, address)| (name.to_owned(), good(address, name))).into()
}

/// Makes the hosts members that work.
fn members(facts: &mut BTreeMap<String, Facts>, names: &[&str]) {
    for name in names {
        let state = &mut facts.get_mut(*name).unwrap().kubernetes;
        state.journal_cluster = Some("demo".into());
        state.kubelet_conf = true;
        state.ca_hash = Some("sha256:1".into());
        state.serves = name.starts_with("cp");
        state.admin_server = state.serves.then(|| "https://127.0.0.1:6444".into());
        state.etcd = state.serves.then_some(EtcdOrigin::Joined);
    }
}

#[rstest]
#[case::bare(&[], [Way::Source, Way::ControlPlane, Way::ControlPlane, Way::Worker], [false; 4], (true, true))]
#[case::all(&["cp1", "cp2", "cp3", "w1"], [Way::Source, Way::ControlPlane, Way::ControlPlane, Way::Worker], [true; 4], (false, false))]
#[case::worker_is_new(&["cp1", "cp2", "cp3"], [Way::Source, Way::ControlPlane, Way::ControlPlane, Way::Worker], [true, true, true, false], (true, false))]
#[case::third_is_new(&["cp1", "cp2", "w1"], [Way::Source, Way::ControlPlane, Way::ControlPlane, Way::Worker], [true, true, false, true], (true, true))]
#[case::first_was_replaced(&["cp2", "cp3", "w1"], [Way::ControlPlane, Way::Source, Way::ControlPlane, Way::Worker], [false, true, true, true], (true, true))]
fn every_host_has_its_way(
    #[case] there: &[&str],
    #[case] ways: [Way; 4],
    #[case] member: [bool; 4],
    #[case] joins: (bool, bool),
) {
    let mut facts = facts_of_three();
    members(&mut facts, there);
    let plan = plan(&three(), &Documents::default(), &facts, &manifest()).unwrap();
    assert_eq!(plan.hosts.iter().map(|host| host.way).collect::<Vec<_>>(), ways);
    assert_eq!(plan.hosts.iter().map(|host| host.member).collect::<Vec<_>>(), member);
    assert_eq!((plan.joins(), plan.control_planes_join()), joins);
}

#[test]
fn every_host_gets_a_balancer_in_front_of_all_control_planes() {
    let plan = plan(&three(), &Documents::default(), &facts_of_three(), &manifest()).unwrap();
    let servers = |index: usize| {
        let order = plan.hosts[index].balancer.as_ref().unwrap();
        order.servers.iter().map(|server| (server.address.to_string(), server.local)).collect::<Vec<_>>()
    };
    let all = |own: usize| {
        let names = ["10.0.0.11:6443", "10.0.0.12:6443", "10.0.0.13:6443"].iter().enumerate();
        names.map(|(index, name)| ((*name).to_owned(), index == own)).collect::<Vec<_>>()
    };
    assert_eq!(servers(1), all(1));
    assert_eq!(servers(3), all(3));
    let single = self::plan(&inventory(), &Documents::default(), &facts(), &manifest()).unwrap();
    assert!(single.hosts.iter().all(|host| host.balancer.is_none()));
}

#[test]
fn a_control_plane_of_another_cluster_is_refused() {
    let mut facts = facts_of_three();
    members(&mut facts, &["cp1", "cp2", "cp3"]);
    facts.get_mut("cp3").unwrap().kubernetes.ca_hash = Some("sha256:2".into());
    let found = plan(&three(), &Documents::default(), &facts, &manifest()).unwrap_err();
    assert!(
        found[0].to_string().starts_with("cp3: [Membership] it is a node of another cluster already (its CA is"),
        "{found:?}"
    );
}

#[test]
fn workers_of_a_cluster_that_is_gone_are_not_taken_over() {
    let mut facts = facts_of_three();
    members(&mut facts, &["w1"]);
    let found = plan(&three(), &Documents::default(), &facts, &manifest()).unwrap_err();
    assert!(
        found[0].to_string().starts_with("w1: [Membership] it is a node already, but no control plane"),
        "{found:?}"
    );
}
