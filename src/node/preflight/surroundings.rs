//! Checks that need the configuration and the world around: proxies, the node's name, somebody else's etcd.

use std::path::Path;

use ipnet::IpNet;
use semver::Version;

use super::{Finding, Found, external_etcd, is_name, proxies};
use crate::failure::Result;
use crate::host::Host;
use crate::host::measure::lacks_address;
use crate::kubernetes::configuration::{ExternalEtcd, network_address, subnets};

/// What the configuration says of the world around.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct Surroundings<'a> {
    /// Name of the node.
    pub(in crate::node) node_name: &'a str,
    /// Hosts that connections must reach directly: API servers.
    pub(in crate::node) direct_hosts: Vec<&'a str>,
    /// Lists of networks whose addresses connections must reach directly: services, pods.
    pub(in crate::node) direct_networks: Vec<&'a str>,
    /// Somebody else's etcd, with the version of Kubernetes it is for.
    pub(in crate::node) external_etcd: Option<(&'a ExternalEtcd, &'a Version)>,
}

/// Judges them; what `ignore` names is only warned about.
///
/// # Errors
/// Kind `Host` when a file that is there cannot be read.
pub(in crate::node) async fn surroundings(
    host: &dyn Host,
    wanted: &Surroundings<'_>,
    ignore: &[String],
) -> Result<Vec<Finding>> {
    let mut found = Found::default();
    let environment = proxies::environment(&host.read(Path::new("/proc/self/environ"))?.unwrap_or_default());
    for direct in &wanted.direct_hosts {
        if let Some(proxy) = proxies::proxy_of(&environment, direct.trim_matches(['[', ']'])) {
            let message = format!("connections to {direct} would go through the proxy {proxy}; add it to NO_PROXY");
            found.warning("HTTPProxy", message);
        }
    }
    for list in wanted.direct_networks.iter().filter(|list| !list.is_empty()) {
        match subnets(list) {
            Err(problem) => found.error("HTTPProxyCIDR", problem.to_string()),
            Ok(networks) => networks.into_iter().for_each(|network| through_proxy(&environment, &network, &mut found)),
        }
    }
    hostname(host, wanted.node_name, &mut found).await;
    if let Some((etcd, kubernetes)) = wanted.external_etcd {
        external_etcd::check(host, etcd, kubernetes, &mut found).await?;
    }
    Ok(found.downgrade(ignore))
}

fn through_proxy(environment: &std::collections::BTreeMap<String, String>, network: &IpNet, found: &mut Found) {
    let first = network_address(network, 1).map(|address| address.to_string());
    if let Some(proxy) = first.and_then(|first| proxies::proxy_of(environment, &first)) {
        let message = format!("connections to {network} would go through the proxy {proxy}; add it to NO_PROXY");
        found.warning("HTTPProxyCIDR", message);
    }
}

/// Never an error, as with upstream: components reach nodes by their addresses.
async fn hostname(host: &dyn Host, name: &str, found: &mut Found) {
    if !is_name(name) {
        // Said by the checks of facts, and by the configuration's own.
        return;
    }
    if lacks_address(host, name).await {
        found.warning("Hostname", format!("the name of the node {name:?} has no address on this host"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    /// Names of what is found where all is wrong.
    pub(in crate::node::preflight) async fn of_a_hopeless_host() -> Vec<String> {
        let host = FakeHost::new()
            .file("/proc/self/environ", "HTTPS_PROXY=http://proxy:3128\0NO_PROXY=127.0.0.0/8\0")
            .answer(&["getent", "ahosts", "cp1"], 2, "");
        let kubernetes = Version::new(1, 36, 3);
        let mut names = Vec::new();
        for file in ["", "/nowhere/ca.crt"] {
            let etcd = ExternalEtcd {
                endpoints: vec!["https://127.0.0.1:1".into()],
                ca_file: file.into(),
                // A text that is no version at once, instead of nobody who listens.
                http_endpoints: vec![old_etcd().await],
                ..ExternalEtcd::default()
            };
            let wanted = Surroundings {
                node_name: "cp1",
                direct_hosts: vec!["10.0.0.11"],
                direct_networks: vec!["10.96.0.0/12,fd00::/112", ""],
                external_etcd: Some((&etcd, &kubernetes)),
            };
            let found = surroundings(&host, &wanted, &[]).await.unwrap();
            names.extend(found.into_iter().map(|finding| finding.name));
        }
        names
    }

    /// An etcd too old for anything; its URL.
    async fn old_etcd() -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let body = r#"{"etcdserver":"3.4.0","etcdcluster":"3.4.0"}"#;
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn what_is_wrong_around_a_host_is_said() {
        let names = of_a_hopeless_host().await;
        assert_eq!(
            names,
            [
                "HTTPProxy",
                "HTTPProxyCIDR",
                "HTTPProxyCIDR",
                "Hostname",
                "ExternalEtcdVersion",
                "HTTPProxy",
                "HTTPProxyCIDR",
                "HTTPProxyCIDR",
                "Hostname",
                "ExternalEtcdClientCertificates",
            ]
        );
    }

    #[tokio::test]
    async fn a_host_without_proxy_and_with_a_name_is_fine() {
        let host = FakeHost::new().answer(&["getent", "ahosts", "cp1"], 0, "10.0.0.11 STREAM cp1\n");
        let wanted = Surroundings { node_name: "cp1", direct_hosts: vec!["10.0.0.11"], ..Surroundings::default() };
        assert_eq!(surroundings(&host, &wanted, &[]).await, Ok(Vec::new()));
    }
}
