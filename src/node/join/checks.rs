//! Preflight of a host that joins, beyond its facts: what host preparation brings, and the world around it (kubeadm.md
//! sections 1.3 and 1.4).

use std::net::IpAddr;

use super::{Images, cluster};
use crate::event::Events;
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::configuration::{self, Discovery, JoinConfiguration};
use crate::node::preflight;

/// Judges the host and the world around it.
///
/// # Errors
/// Kind `Preflight` for what does not fit, `Host` when the host cannot be read.
pub(super) async fn check(
    host: &dyn Host,
    configuration: &JoinConfiguration,
    settings: &cluster::Settings,
    images: Images,
    events: &Events,
) -> Result<()> {
    let node = &configuration.node_registration;
    let endpoint = endpoint(&configuration.discovery);
    // Only a control plane's components talk to services and pods, and all nodes to its API server.
    let control_plane = configuration.control_plane.as_ref();
    let own = control_plane.map(|control_plane| control_plane.local_api_endpoint.advertise_address.as_str());
    let networking = control_plane.map(|_| &settings.cluster.networking);
    let around = preflight::Surroundings {
        node_name: &node.name,
        direct_hosts: endpoint.as_deref().into_iter().chain(own).collect(),
        direct_networks: networking
            .map(|of| vec![of.service_subnet.as_str(), of.pod_subnet.as_str()])
            .unwrap_or_default(),
        external_etcd: None,
    };
    let ignore = &node.ignore_preflight_errors;
    let forwarding: Vec<IpAddr> = endpoint.iter().filter_map(|endpoint| endpoint.parse().ok()).collect();
    let (mut findings, around) = tokio::try_join!(
        preflight::prepared(host, Some(&settings.version), &node.cri_socket, &forwarding, ignore),
        preflight::surroundings(host, &around, ignore)
    )?;
    findings.extend(around);
    if images == Images::Fetched {
        let by_hand = preflight::by_hand(host, settings.release, &node.cri_socket, ignore);
        findings.extend(by_hand.await);
    }
    preflight::judge(&findings, events)
}

/// The host of the API server that a token finds the cluster by. If it is an address, the node forwards its family; of a
/// name, or another way to find the cluster, nothing is known.
fn endpoint(discovery: &Discovery) -> Option<String> {
    let endpoint = &discovery.bootstrap_token.as_ref()?.api_server_endpoint;
    configuration::host_and_port(endpoint).ok().map(|(host, _)| host)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use semver::Version;
    use serde_json::json;

    use super::{Images, check, cluster};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::{
        BootstrapTokenDiscovery, ClusterConfiguration, FileDiscovery, JoinConfiguration, JoinControlPlane,
    };
    use crate::kubernetes::version::Release;

    fn settings() -> cluster::Settings {
        let version = Version::new(1, 36, 3);
        let release = Release::of(&version).unwrap();
        cluster::Settings { cluster: ClusterConfiguration::default(), version, release, kubelet: json!({}) }
    }

    fn host() -> FakeHost {
        FakeHost::new()
            .file("/run/containerd/containerd.sock", "")
            .answer(&["kubelet", "--version"], 0, "Kubernetes v1.36.3\n")
            .answer(&["getent"], 0, "10.0.0.21 STREAM w1\n")
    }

    fn configuration(endpoint: Option<&str>) -> JoinConfiguration {
        let mut configuration = JoinConfiguration::default();
        configuration.node_registration.name = "w1".into();
        configuration.node_registration.cri_socket = "unix:///run/containerd/containerd.sock".into();
        configuration.discovery.bootstrap_token = endpoint
            .map(|endpoint| BootstrapTokenDiscovery { api_server_endpoint: endpoint.into(), ..Default::default() });
        if endpoint.is_none() {
            configuration.discovery.file = Some(FileDiscovery { kube_config_path: "/root/found".into() });
        }
        configuration
    }

    #[rstest]
    #[case::of_version_4(Some("10.0.0.11:6443"), Some("FileContent--proc-sys-net-ipv4-ip_forward"))]
    #[case::of_version_6(Some("[fd00::11]:6443"), Some("FileContent--proc-sys-net-ipv6-conf-default-forwarding"))]
    #[case::a_name(Some("api.demo.example:6443"), None)]
    #[case::found_by_a_file(None, None)]
    #[tokio::test]
    async fn the_family_of_the_endpoint_is_forwarded(#[case] endpoint: Option<&str>, #[case] name: Option<&str>) {
        // Neither family is.
        let checked =
            check(&host(), &configuration(endpoint), &settings(), Images::FromBundle, &Events::nowhere()).await;
        match name {
            None => assert_eq!(checked, Ok(())),
            Some(name) => assert!(checked.unwrap_err().sentence.starts_with(&format!("{name}: "))),
        }
    }

    #[tokio::test]
    async fn a_control_plane_is_reached_without_a_proxy() {
        let host = host().file("/proc/self/environ", "HTTPS_PROXY=http://proxy:3128\0NO_PROXY=10.0.0.11\0");
        let (events, mut heard) = Events::channel();
        let mut configuration = configuration(Some("api.demo.example:6443"));
        let mut control_plane = JoinControlPlane::default();
        control_plane.local_api_endpoint.advertise_address = "10.0.0.12".into();
        configuration.control_plane = Some(control_plane);
        check(&host, &configuration, &settings(), Images::FromBundle, &events).await.unwrap();
        drop(events);
        let mut warnings = Vec::new();
        while let Some(event) = heard.recv().await {
            warnings.push(format!("{event:?}"));
        }
        let about =
            |host: &str| warnings.iter().any(|warning| warning.contains(&format!("HTTPProxy: connections to {host} ")));
        assert!(about("10.0.0.12") && about("api.demo.example"), "{warnings:?}");
    }
}
