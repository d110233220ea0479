//! Documents to begin with, as `kubeadm config print` has them: every default, placeholders for what cannot be one.

use super::{
    BootstrapTokenDiscovery, Documents, HostDefaults, JoinConfiguration, ResetConfiguration, UpgradeConfiguration,
};
use crate::failure::Result;
use crate::kubernetes::version;
use crate::secret::Secret;

/// Stands where a token must stand.
const TOKEN: &str = "abcdef.0123456789abcdef";

/// Stands where a host must say what it is.
fn placeholders(hostname: &str) -> HostDefaults {
    let address = std::net::Ipv4Addr::new(1, 2, 3, 4);
    HostDefaults {
        hostname: hostname.to_owned(),
        default_route_addresses: vec![address.into()],
        loopback_addresses: Vec::new(),
        cri_sockets: Vec::new(),
    }
}

/// InitConfiguration and ClusterConfiguration with every default.
///
/// # Errors
/// Kind `Internal`: defaults are valid.
pub fn init_defaults() -> Result<Documents> {
    let mut documents = Documents::default();
    let init = documents.init.get_or_insert_default();
    init.bootstrap_tokens.push(super::BootstrapToken { token: Some(Secret::new(TOKEN)), ..Default::default() });
    init.complete(&placeholders("node"))?;
    // The default depends on what the node becomes.
    init.node_registration.taints = None;
    let port = init.local_api_endpoint.bind_port;
    let cluster = documents.cluster.get_or_insert_default();
    version::DEFAULT_VERSION.clone_into(&mut cluster.kubernetes_version);
    cluster.complete(port)?;
    Ok(documents)
}

/// JoinConfiguration with every default, for a host of this name.
///
/// # Errors
/// Kind `Internal`: defaults are valid.
pub fn join_defaults(hostname: &str) -> Result<Documents> {
    let mut join = JoinConfiguration::default();
    join.discovery.bootstrap_token = Some(BootstrapTokenDiscovery {
        token: Some(Secret::new(TOKEN)),
        api_server_endpoint: "kube-apiserver:6443".to_owned(),
        // Without a hash, which nobody can know before there is a cluster, the document would not be valid.
        unsafe_skip_ca_verification: true,
        ..Default::default()
    });
    join.complete(&placeholders(hostname))?;
    Ok(Documents { join: Some(join), ..Documents::default() })
}

/// ResetConfiguration with every default.
pub fn reset_defaults() -> Documents {
    let mut reset = ResetConfiguration::default();
    reset.complete();
    super::default::DEFAULT_CRI_SOCKET.clone_into(&mut reset.cri_socket);
    Documents { reset: Some(reset), ..Documents::default() }
}

/// UpgradeConfiguration with every default.
pub fn upgrade_defaults() -> Documents {
    let mut upgrade = UpgradeConfiguration::default();
    upgrade.complete();
    Documents { upgrade: Some(upgrade), ..Documents::default() }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{init_defaults, join_defaults, reset_defaults, upgrade_defaults};
    use crate::kubernetes::configuration::load;

    #[test]
    fn init_begins_as_upstreams_does() {
        let documents = init_defaults().unwrap();
        assert_eq!(load(documents.to_text().expose()).unwrap(), documents);
        assert_snapshot!(documents.to_text().expose(), @r"
        apiVersion: kubeadm.k8s.io/v1beta4
        bootstrapTokens:
        - groups:
          - system:bootstrappers:kubeadm:default-node-token
          token: abcdef.0123456789abcdef
          ttl: 24h0m0s
          usages:
          - signing
          - authentication
        kind: InitConfiguration
        localAPIEndpoint:
          advertiseAddress: 1.2.3.4
          bindPort: 6443
        nodeRegistration:
          criSocket: unix:///var/run/containerd/containerd.sock
          imagePullPolicy: IfNotPresent
          imagePullSerial: true
          name: node
          taints: null
        timeouts:
          controlPlaneComponentHealthCheck: 4m0s
          discovery: 5m0s
          etcdAPICall: 2m0s
          kubeletHealthCheck: 4m0s
          kubernetesAPICall: 1m0s
          tlsBootstrap: 5m0s
          upgradeManifests: 5m0s
        ---
        apiServer: {}
        apiVersion: kubeadm.k8s.io/v1beta4
        caCertificateValidityPeriod: 87600h0m0s
        certificateValidityPeriod: 8760h0m0s
        certificatesDir: /etc/kubernetes/pki
        clusterName: kubernetes
        controllerManager: {}
        dns: {}
        encryptionAlgorithm: RSA-2048
        etcd:
          local:
            dataDir: /var/lib/etcd
        imageRepository: registry.k8s.io
        kind: ClusterConfiguration
        kubernetesVersion: v1.36.3
        networking:
          dnsDomain: cluster.local
          serviceSubnet: 10.96.0.0/12
        proxy: {}
        scheduler: {}
        ");
    }

    #[test]
    fn upgrade_begins_as_upstreams_does() {
        let documents = upgrade_defaults();
        assert_eq!(load(documents.to_text().expose()).unwrap(), documents);
        assert_snapshot!(documents.to_text().expose(), @r"
        apiVersion: kubeadm.k8s.io/v1beta4
        apply:
          certificateRenewal: true
          etcdUpgrade: true
          imagePullPolicy: IfNotPresent
          imagePullSerial: true
        diff: {}
        kind: UpgradeConfiguration
        node:
          certificateRenewal: true
          etcdUpgrade: true
          imagePullPolicy: IfNotPresent
          imagePullSerial: true
        plan:
          etcdUpgrade: true
        timeouts:
          controlPlaneComponentHealthCheck: 4m0s
          discovery: 5m0s
          etcdAPICall: 2m0s
          kubeletHealthCheck: 4m0s
          kubernetesAPICall: 1m0s
          tlsBootstrap: 5m0s
          upgradeManifests: 5m0s
        ");
    }

    #[test]
    fn join_and_reset_begin_as_upstreams_do() {
        let join = join_defaults("w1").unwrap();
        let text = join.to_text();
        assert!(text.expose().contains("unsafeSkipCAVerification: true\n"), "{}", text.expose());
        assert!(text.expose().contains("  name: w1\n  taints: null\n"), "{}", text.expose());
        let reset = reset_defaults().to_text();
        assert!(
            reset.expose().contains("certificatesDir: /etc/kubernetes/pki\ncriSocket: unix:///"),
            "{}",
            reset.expose()
        );
    }
}
