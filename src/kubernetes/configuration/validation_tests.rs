use rstest::rstest;

use super::{host_and_port, network_address, subnets};
use crate::kubernetes::configuration::{BootstrapToken, ClusterConfiguration, HostDefaults, InitConfiguration, load};

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
#[case("imageRepository: localhost:5000/k8s", None)]
#[case("imageRepository: https://mirror.example/k8s", Some("imageRepository: \"https://mirror.example/k8s\" is not a"))]
#[case("dns: {imageRepository: mirror.example/K8s}", Some("dns.imageRepository: "))]
#[case("etcd: {local: {imageRepository: mirror.example/}}", Some("etcd.local.imageRepository: "))]
#[case("apiServer: {extraArgs: [{value: a}]}", Some("apiServer.extraArgs[0]: has no name"))]
#[case("scheduler: {extraVolumes: [{name: a, hostPath: /a}]}", Some("scheduler.extraVolumes[0]: needs name, hostPath"))]
#[case("etcd: {local: {extraEnvs: [{value: a}]}}", Some("etcd.local.extraEnvs[0]: has no name"))]
#[case("certificateValidityPeriod: 0s", Some("certificateValidityPeriod: must be longer than 0s"))]
#[case("caCertificateValidityPeriod: 0s", Some("caCertificateValidityPeriod: must be longer than 0s"))]
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
        default_route_addresses: vec!["10.0.0.11".parse().unwrap()],
        loopback_addresses: Vec::new(),
        cri_sockets: Vec::new(),
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

#[rstest]
#[case("{ttl: 1h}", None)]
#[case("{expires: 2030-01-01T00:00:00+02:00}", None)]
#[case("{expires: 2030-01-01T00:00:00Z, ttl: 1h}", Some("bootstrapTokens[0]: ttl and expires exclude each other"))]
#[case("{usages: [signing], groups: [\"system:bootstrappers:a\"]}", Some("groups need the usage authentication"))]
fn tokens_are_judged(#[case] token: &str, #[case] problem: Option<&str>) {
    let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens: [{token}]");
    let mut init = load(&text).unwrap().init.unwrap();
    init.bootstrap_tokens[0].complete().unwrap();
    let failure = init.validate_tokens().err().map(|failure| failure.sentence);
    assert_eq!(failure.is_some(), problem.is_some(), "{failure:?}");
    assert!(failure.unwrap_or_default().contains(problem.unwrap_or_default()));
}

/// A moment that no document brought.
#[test]
fn an_end_that_is_no_moment_is_refused() {
    let token = BootstrapToken { expires: Some("tomorrow".into()), ..Default::default() };
    let init = InitConfiguration { bootstrap_tokens: vec![token], ..Default::default() };
    let failure = init.validate_tokens().unwrap_err();
    assert!(failure.sentence.contains("bootstrapTokens[0].expires: is not a moment"), "{failure}");
}

#[rstest]
#[case("10.0.0.11", true)]
#[case("fd00::1", true)]
#[case("169.254.1.1", false)]
#[case("fe80::1", false)]
#[case("224.0.0.1", false)]
#[case("255.255.255.255", false)]
#[case("ten", false)]
fn an_address_is_one_that_others_reach(#[case] address: &str, #[case] valid: bool) {
    let mut init = InitConfiguration::default();
    init.local_api_endpoint.advertise_address = address.into();
    let host = HostDefaults {
        hostname: "cp1".into(),
        default_route_addresses: Vec::new(),
        loopback_addresses: Vec::new(),
        cri_sockets: Vec::new(),
    };
    init.complete(&host).unwrap();
    assert_eq!(init.validate().is_ok(), valid);
}

#[rstest]
#[case("", None)]
#[case("criSocket: unix:///run/crio/crio.sock", None)]
#[case("criSocket: /run/crio/crio.sock", None)]
#[case("criSocket: npipe:////./pipe/containerd", Some("criSocket: \"npipe:////./pipe/containerd\" is not a socket"))]
#[case("unmountFlags: [MNT_FORCE]", Some("every mount is detached"))]
fn resets_are_judged(#[case] text: &str, #[case] problem: Option<&str>) {
    let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\n{text}");
    let mut reset = load(&text).unwrap().reset.unwrap();
    reset.complete();
    let failure = reset.validate().err().map(|failure| failure.sentence);
    assert_eq!(failure.is_some(), problem.is_some(), "{failure:?}");
    assert!(failure.unwrap_or_default().contains(problem.unwrap_or_default()));
}
