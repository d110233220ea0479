use rstest::rstest;

use super::{host_and_port, network_address, subnets};
use crate::kubernetes::configuration::{ClusterConfiguration, HostDefaults, InitConfiguration, load};

#[rstest]
#[case("api.demo.example:6443", "api.demo.example", Some(6443))]
#[case("10.0.0.1", "10.0.0.1", None)]
#[case("[fd00::1]:6443", "fd00::1", Some(6443))]
#[case("[fd00::1]", "fd00::1", None)]
#[case("fd00::1", "fd00::1", None)]
fn endpoints_are_split(#[case] text: &str, #[case] host: &str, #[case] port: Option<u16>) {
    assert_eq!(host_and_port(text).unwrap(), (host.to_owned(), port));
}

#[rstest]
#[case("a b:1")]
#[case("host:0")]
#[case("host:70000")]
#[case("[fd00::1]x")]
#[case("")]
fn other_endpoints_are_refused(#[case] text: &str) {
    assert!(host_and_port(text).is_err());
}

#[test]
fn addresses_of_networks() {
    let network = "10.96.0.0/12".parse().unwrap();
    assert_eq!(network_address(&network, 10).unwrap().to_string(), "10.96.0.10");
    assert_eq!(network_address(&"fd00::/112".parse().unwrap(), 1).unwrap().to_string(), "fd00::1");
    assert_eq!(network_address(&"10.0.0.0/30".parse().unwrap(), 10), None);
    assert_eq!(subnets("10.96.0.0/12,fd00::/112").unwrap().len(), 2);
    assert!(subnets("10.96.0.0/12,10.0.0.0/8").is_err());
}

#[rstest]
#[case("", None)]
#[case("networking: {podSubnet: 10.244.0.0/16}", None)]
#[case("networking: {podSubnet: 10.0.0.0/7}", Some("more than 16 bits"))]
#[case("networking: {podSubnet: 10.0.0.0/25}", Some("smaller than the /24"))]
#[case("networking: {serviceSubnet: 10.0.0.0/8}", Some("4 to 20 host bits"))]
#[case("networking: {serviceSubnet: 10.0.0.0/29}", Some("4 to 20 host bits"))]
#[case("networking: {serviceSubnet: ten}", Some("is not a network"))]
#[case("networking: {dnsDomain: Cluster_Local}", Some("not a DNS name"))]
#[case("encryptionAlgorithm: RSA-1024", Some("RSA-1024"))]
#[case("encryptionAlgorithm: ECDSA-P384", None)]
#[case("kubernetesVersion: v1.33.0\nencryptionAlgorithm: ECDSA-P384", Some("came with Kubernetes 1.34"))]
#[case("featureGates: {EtcdLearnerMode: true}", Some("has no gate EtcdLearnerMode"))]
#[case("certificatesDir: pki", Some("not an absolute path"))]
#[case("etcd: {external: {endpoints: [\"http://e:2379\"], caFile: /x}}", Some("not an https URL"))]
#[case("apiServer: {certSANs: [\"a b\"]}", Some("no DNS name"))]
fn clusters_are_judged(#[case] text: &str, #[case] problem: Option<&str>) {
    let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{text}");
    let mut cluster: ClusterConfiguration = load(&text).unwrap().cluster.unwrap();
    cluster.complete(6443).unwrap();
    let failure = cluster.validate().err().map(|failure| failure.sentence);
    match problem {
        None => assert_eq!(failure, None),
        Some(problem) => assert!(failure.as_ref().is_some_and(|found| found.contains(problem)), "{failure:?}"),
    }
}

#[test]
fn init_is_completed_from_the_host() {
    let host = HostDefaults {
        hostname: "CP1".into(),
        default_route_address: Some("10.0.0.11".parse().unwrap()),
        cri_socket: None,
    };
    let mut init = InitConfiguration::default();
    init.complete(&host).unwrap();
    init.validate().unwrap();
    assert_eq!(init.node_registration.name, "cp1");
    assert_eq!(init.local_api_endpoint.url(), "https://10.0.0.11:6443");
    assert_eq!(
        init.node_registration.taints.unwrap()[0].to_string(),
        "node-role.kubernetes.io/control-plane:NoSchedule"
    );
    assert_eq!(init.bootstrap_tokens.len(), 1);
}
