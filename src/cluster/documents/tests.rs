//! What each host's kubeadm documents say.

use std::path::Path;

use serde_json::json;

use super::{Documents, NodeAddress};
use crate::failure::Kind;
use crate::inventory::{self, Inventory};
use crate::message::Ticket;
use crate::secret::Secret;
use crate::yaml;

fn inventory(kubeadm: &str) -> Inventory {
    let indented: String = kubeadm.lines().map(|line| format!("    {line}\n")).collect();
    let kubeadm = if kubeadm.is_empty() { String::new() } else { format!("  kubeadm: |\n{indented}") };
    let text = format!(
        "cluster:\n  name: demo\n  kubernetes: 1.36.3\n  network: {{pods: 10.128.0.0/16}}\n{kubeadm}ssh: {{user: root}}\nhosts:\n  cp1: {{address: 10.0.0.11, role: control-plane}}\n  w1: {{address: 10.0.0.21, taints: ['dedicated=db:NoSchedule']}}\n"
    );
    inventory::parse(&text, Path::new("inventory.yaml"), Path::new("/home/ann"))
        .unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn address(text: &str, must_be_told: bool) -> NodeAddress {
    NodeAddress { address: text.parse().unwrap(), must_be_told }
}

fn parsed(text: &Secret) -> Vec<serde_json::Value> {
    yaml::documents(text.expose()).unwrap().into_iter().map(|(_, document)| document).collect()
}

#[test]
fn the_inventory_fills_in_what_kubeadm_must_know() {
    let inventory = inventory("");
    let documents = Documents::read(&inventory).unwrap();
    let text = documents.for_init(&inventory, &inventory.hosts[0], &address("10.0.0.11", false)).unwrap();
    let written = parsed(&text);
    assert_eq!(written.len(), 2);
    assert_eq!(written[0]["localAPIEndpoint"]["advertiseAddress"], "10.0.0.11");
    assert_eq!(written[0]["nodeRegistration"]["name"], "cp1");
    assert!(written[0]["nodeRegistration"].get("kubeletExtraArgs").is_none());
    assert_eq!(written[1]["kubernetesVersion"], "v1.36.3");
    assert_eq!(written[1]["clusterName"], "demo");
    assert_eq!(written[1]["networking"]["podSubnet"], "10.128.0.0/16");
    assert!(written[1].get("controlPlaneEndpoint").is_none());
}

#[test]
fn what_a_person_wrote_for_kubeadm_stays() {
    let inventory = inventory(
        "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\napiServer: {certSANs: [api.demo]}\n---\nkind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\ncgroupDriver: cgroupfs\nfailSwapOn: false\n---\nkind: InitConfiguration\nnodeRegistration: {ignorePreflightErrors: [Mem], kubeletExtraArgs: [{name: v, value: '2'}]}\n",
    );
    let documents = Documents::read(&inventory).unwrap();
    assert_eq!(documents.cgroup_driver(), "cgroupfs");
    assert!(!documents.fails_on_swap());
    assert_eq!(documents.ignored_checks("InitConfiguration"), ["Mem"]);
    let text = documents.for_init(&inventory, &inventory.hosts[0], &address("10.0.0.11", true)).unwrap();
    let written = parsed(&text);
    assert_eq!(written[1]["apiServer"]["certSANs"], json!(["api.demo"]));
    assert_eq!(
        written[0]["nodeRegistration"]["kubeletExtraArgs"],
        json!([{ "name": "v", "value": "2" }, { "name": "node-ip", "value": "10.0.0.11" }])
    );
    assert_eq!(written[2]["kind"], "KubeletConfiguration");
}

#[test]
fn a_value_said_twice_must_be_the_same() {
    let contradiction =
        "kind: ClusterConfiguration\nkubernetesVersion: v1.35.0\nnetworking: {podSubnet: 10.1.0.0/16}\n";
    let failure = Documents::read(&inventory(contradiction)).unwrap_err();
    assert_eq!(failure.kind, Kind::Configuration);
    assert!(failure.sentence.contains("kubernetesVersion is v1.35.0"), "{failure}");
    assert!(failure.sentence.contains("networking.podSubnet is 10.1.0.0/16"), "{failure}");
    let agreeing = "kind: ClusterConfiguration\nkubernetesVersion: 1.36.3\nnetworking: {podSubnet: 10.128.0.0/16}\n";
    Documents::read(&inventory(agreeing)).unwrap();
    let twice = Documents::read(&inventory("kind: InitConfiguration\n---\nkind: InitConfiguration\n")).unwrap_err();
    assert!(twice.sentence.contains("two documents of kind InitConfiguration"), "{twice}");
}

#[test]
fn a_worker_joins_with_the_ticket_and_its_own_taints() {
    let inventory = inventory("");
    let documents = Documents::read(&inventory).unwrap();
    let ticket = Ticket {
        endpoint: "10.0.0.11:6443".into(),
        token: Secret::new("abcdef.0123456789abcdef"),
        ca_hashes: vec!["sha256:00".into()],
        certificate_key: None,
    };
    let text = documents.for_worker(&inventory.hosts[1], &address("10.0.0.21", false), &ticket).unwrap();
    assert_eq!(format!("{text:?}"), "***");
    let written = parsed(&text);
    assert_eq!(
        written[0]["discovery"]["bootstrapToken"],
        json!({ "token": "abcdef.0123456789abcdef", "apiServerEndpoint": "10.0.0.11:6443", "caCertHashes": ["sha256:00"] })
    );
    assert_eq!(
        written[0]["nodeRegistration"]["taints"],
        json!([{ "key": "dedicated", "value": "db", "effect": "NoSchedule" }])
    );
}

#[test]
fn a_control_plane_joins_with_its_address_and_the_key_of_the_certificates() {
    let inventory = inventory(
        "kind: JoinConfiguration\ncontrolPlane: {localAPIEndpoint: {bindPort: 7443}}\n---\nkind: InitConfiguration\nlocalAPIEndpoint: {bindPort: 7443}\n",
    );
    let documents = Documents::read(&inventory).unwrap();
    let mut ticket = Ticket {
        endpoint: "127.0.0.1:6444".into(),
        token: Secret::new("abcdef.0123456789abcdef"),
        ca_hashes: vec!["sha256:00".into()],
        certificate_key: Some(Secret::new("00ff")),
    };
    let (host, node) = (&inventory.hosts[1], address("10.0.0.12", false));
    let text = documents.for_control_plane(host, &node, &ticket).unwrap();
    let written = parsed(&text);
    assert_eq!(
        written[0]["controlPlane"],
        json!({ "localAPIEndpoint": { "advertiseAddress": "10.0.0.12", "bindPort": 7443 }, "certificateKey": "00ff" })
    );
    // Workers have no such part, whatever a person wrote for control planes.
    assert!(parsed(&documents.for_worker(host, &node, &ticket).unwrap())[0].get("controlPlane").is_none());
    ticket.certificate_key = None;
    assert_eq!(documents.for_control_plane(host, &node, &ticket).unwrap_err().kind, Kind::Internal);
}

#[test]
fn all_api_servers_listen_on_one_port() {
    let failure =
        Documents::read(&inventory("kind: JoinConfiguration\ncontrolPlane: {localAPIEndpoint: {bindPort: 7443}}\n"))
            .unwrap_err();
    assert!(
        failure.sentence.contains("bindPort is 7443, and InitConfiguration.localAPIEndpoint.bindPort is 6443"),
        "{failure}"
    );
}

#[test]
fn what_init_leaves_out_is_no_static_pod_of_a_control_plane() {
    let pods = |kubeadm: &str| Documents::read(&inventory(kubeadm)).unwrap().static_pods();
    assert_eq!(pods(""), ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    let of = |kind: &str, field: &str| pods(&format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}\n{field}\n"));
    let external = "etcd: {external: {endpoints: ['https://10.0.0.9:2379'], caFile: /a, certFile: /b, keyFile: /c}}";
    assert_eq!(of("ClusterConfiguration", external)[0], "kube-apiserver");
    let own = of("InitConfiguration", "skipPhases: [control-plane/scheduler, addon/kube-proxy]");
    assert_eq!(own, ["etcd", "kube-apiserver", "kube-controller-manager"]);
    assert_eq!(of("InitConfiguration", "skipPhases: [control-plane]"), ["etcd"]);
    assert_eq!(of("InitConfiguration", "skipPhases: [control-plane/all, etcd/local]"), [""; 0]);
}
