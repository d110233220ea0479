use rstest::rstest;

use super::*;
use crate::kubernetes::configuration::{Arg, ExternalEtcd, HostPathMount};

fn setting(version: &str, address: &str) -> (ClusterConfiguration, ApiEndpoint) {
    let mut cluster = ClusterConfiguration { kubernetes_version: version.into(), ..Default::default() };
    cluster.networking.pod_subnet = "10.244.0.0/16".into();
    cluster.complete(6443).unwrap();
    (cluster, ApiEndpoint { advertise_address: address.into(), bind_port: 6443 })
}

fn order<'a>(cluster: &'a ClusterConfiguration, local: &'a ApiEndpoint) -> ManifestOrder<'a> {
    ManifestOrder {
        cluster,
        local,
        node_name: "cp1",
        health_check: Duration::from_seconds(240),
        ca_directories: &[],
        external_ca: false,
        proxy_environment: &[],
        etcd_members: &[],
        etcd_tag: None,
    }
}

fn command(manifest: &Manifest) -> Vec<&str> {
    let list = manifest.pod["spec"]["containers"][0]["command"].as_array().unwrap();
    list.iter().map(|argument| argument.as_str().unwrap()).collect()
}

#[test]
fn the_defaults_of_1_36_3() {
    let (cluster, local) = setting("1.36.3", "10.0.0.11");
    let order = order(&cluster, &local);
    for manifest in control_plane(&order).unwrap().into_iter().chain([etcd(&order).unwrap()]) {
        insta::assert_snapshot!(format!("v1.36.3-{}", manifest.name), manifest.to_text());
    }
}

#[test]
fn what_is_older_differs_by_the_table() {
    let (cluster, local) = setting("1.33.5", "10.0.0.11");
    let order = order(&cluster, &local);
    let manager = controller_manager(&order).unwrap();
    let container = &manager.pod["spec"]["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["port"], 10257);
    assert!(container.get("ports").is_none());
    assert!(manager.to_text().contains("creationTimestamp: null"));
    assert!(manager.to_text().contains("flexvolume-dir"));
    let etcd = etcd(&order).unwrap();
    assert!(command(&etcd).contains(&"--experimental-initial-corrupt-check=true"));
    assert!(etcd.to_text().contains("registry.k8s.io/etcd:3.5.21-0"));
}

#[rstest]
#[case("1.33.13", "3.6.99-0", "--experimental-initial-corrupt-check=true")]
#[case("1.34.4", "3.6.99-0", "--feature-gates=InitialCorruptCheck=true")]
#[case("1.35.4", "3.5.24-0", "--experimental-initial-corrupt-check=true")]
#[case("1.36.3", "3.5.24-0", "--feature-gates=InitialCorruptCheck=true")]
fn flags_of_etcd_follow_the_minor_and_then_the_image(#[case] version: &str, #[case] tag: &str, #[case] flag: &str) {
    let (mut cluster, local) = setting(version, "10.0.0.11");
    let of_etcd = serde_json::json!({"etcd": {"local": {"imageTag": tag}}});
    cluster.etcd = serde_json::from_value(of_etcd["etcd"].clone()).unwrap();
    let etcd = etcd(&order(&cluster, &local)).unwrap();
    assert!(command(&etcd).contains(&flag), "{:?}", command(&etcd));
}

#[test]
fn ipv6_components_talk_over_the_ipv6_loopback() {
    let (cluster, local) = setting("1.36.3", "fd00::11");
    let order = order(&cluster, &local);
    let (server, etcd) = (api_server(&order).unwrap(), etcd(&order).unwrap());
    assert!(command(&server).contains(&"--etcd-servers=https://[::1]:2379"));
    let annotations = server.pod["metadata"]["annotations"].to_string();
    assert!(annotations.contains("[fd00::11]:6443"), "{annotations}");
    assert!(command(&etcd).contains(&"--listen-client-urls=https://[::1]:2379,https://[fd00::11]:2379"));
    assert!(command(&etcd).contains(&"--initial-cluster=cp1=https://[fd00::11]:2380"));
    assert_eq!(etcd.pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["host"], "::1");
}

#[test]
fn a_joining_member_names_all_and_keeps_their_release() {
    let (cluster, local) = setting("1.36.3", "10.0.0.12");
    let member = |name: &str, peer_url: &str| EtcdMember { name: name.into(), peer_url: peer_url.into() };
    let members = [member("cp1", "https://10.0.0.11:2380"), member("cp2", "https://10.0.0.12:2380")];
    let order = ManifestOrder { etcd_members: &members, etcd_tag: Some("3.6.6-0"), ..order(&cluster, &local) };
    let etcd = etcd(&order).unwrap();
    assert!(command(&etcd).contains(&"--initial-cluster=cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380"));
    assert!(command(&etcd).contains(&"--initial-cluster-state=existing"));
    assert_eq!(etcd.pod["spec"]["containers"][0]["image"], "registry.k8s.io/etcd:3.6.6-0");
}

#[test]
fn a_persons_settings_reach_the_components() {
    let (mut cluster, local) = setting("1.36.3", "0.0.0.0");
    let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
    let env = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into(), value_from: None };
    cluster.api_server.extra_args = vec![arg("authorization-config", "/a.yaml"), arg("v", "4")];
    cluster.api_server.extra_envs = vec![env("NO_PROXY", "own"), env("A", "b")];
    cluster.api_server.extra_volumes = vec![HostPathMount {
        name: "audit".into(),
        host_path: "/var/log/audit".into(),
        mount_path: "/audit".into(),
        ..Default::default()
    }];
    cluster.scheduler.extra_args = vec![arg("bind-address", "::")];
    let proxies = [env("NO_PROXY", "inherited"), env("HTTPS_PROXY", "http://p")];
    let directories = ["/usr/share/ca-certificates".to_owned()];
    let order = ManifestOrder {
        proxy_environment: &proxies,
        ca_directories: &directories,
        external_ca: true,
        health_check: Duration::from_seconds(241),
        ..order(&cluster, &local)
    };
    let server = api_server(&order).unwrap();
    assert!(command(&server).ends_with(&["--authorization-config=/a.yaml", "--v=4"]));
    assert!(!command(&server).iter().any(|argument| argument.starts_with("--authorization-mode")));
    let container = &server.pod["spec"]["containers"][0];
    assert_eq!(
        container["env"].to_string(),
        r#"[{"name":"A","value":"b"},{"name":"HTTPS_PROXY","value":"http://p"},{"name":"NO_PROXY","value":"own"}]"#
    );
    assert!(container["livenessProbe"]["httpGet"].get("host").is_none());
    assert_eq!(container["startupProbe"]["failureThreshold"], 25);
    let volumes = server.pod["spec"]["volumes"].as_array().unwrap();
    let names: Vec<_> = volumes.iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["audit", "ca-certs", "k8s-certs", "usr-share-ca-certificates"]);
    let manager = controller_manager(&order).unwrap();
    assert!(command(&manager).contains(&"--cluster-signing-key-file="));
    let scheduler = scheduler(&order).unwrap();
    assert!(scheduler.pod["spec"]["containers"][0]["livenessProbe"]["httpGet"].get("host").is_none());
}

#[test]
fn external_etcd_brings_its_directories_once() {
    let (mut cluster, local) = setting("1.36.3", "10.0.0.11");
    cluster.etcd.local = None;
    cluster.etcd.external = Some(ExternalEtcd {
        endpoints: vec!["https://e1:2379".into(), "https://e2:2379".into()],
        ca_file: "/etc/etcd/pki/ca/ca.crt".into(),
        cert_file: "/etc/etcd/pki/client.crt".into(),
        key_file: "/etc/kubernetes/pki/etcd.key".into(),
        ..Default::default()
    });
    let server = api_server(&order(&cluster, &local)).unwrap();
    assert!(command(&server).contains(&"--etcd-servers=https://e1:2379,https://e2:2379"));
    let volumes = server.pod["spec"]["volumes"].to_string();
    assert!(
        volumes.contains(r#"{"path":"/etc/etcd/pki","type":"DirectoryOrCreate"},"name":"etcd-certs-0""#),
        "{volumes}"
    );
    assert!(!volumes.contains("etcd-certs-1"));
}

#[test]
fn etcd_probes_follow_the_metrics_url() {
    let (mut cluster, local) = setting("1.36.3", "10.0.0.11");
    let urls = Arg { name: "listen-metrics-urls".into(), value: "https://[fd00::1]:2999/x,http://b".into() };
    cluster.etcd.local.as_mut().unwrap().extra_args = vec![urls];
    let etcd = etcd(&order(&cluster, &local)).unwrap();
    let container = &etcd.pod["spec"]["containers"][0];
    assert_eq!(
        container["startupProbe"]["httpGet"],
        serde_json::json!({"path": "/readyz", "port": "probe-port", "scheme": "HTTPS", "host": "fd00::1"})
    );
    assert_eq!(container["ports"][0]["containerPort"], 2999);
}
