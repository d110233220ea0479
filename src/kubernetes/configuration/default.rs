//! What kubeadm fills in (kubeadm.md section 13); what depends on the host comes as a parameter.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::validation::host_and_port;
use super::{
    ApiEndpoint, BootstrapToken, ClusterConfiguration, Duration, EnvVar, InitConfiguration, JoinConfiguration,
    LocalEtcd, NodeRegistrationOptions, ResetConfiguration, Taint, UpgradeConfiguration,
};
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::moment;
use crate::kubernetes::rbac::NODE_BOOTSTRAP_GROUP;
use crate::kubernetes::token::Token;
use crate::kubernetes::version;

/// What defaults need to know of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDefaults {
    /// The host's own name.
    pub hostname: String,
    /// The address of the interface of the default route.
    pub default_route_address: Option<IpAddr>,
    /// The socket of the container runtime that was found; containerd's when none was.
    pub cri_socket: Option<String>,
}

/// The socket that is assumed when no container runtime was found.
pub(super) const DEFAULT_CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

/// The taint that keeps ordinary pods off control planes.
pub fn control_plane_taint() -> Taint {
    Taint { key: "node-role.kubernetes.io/control-plane".into(), effect: "NoSchedule".into(), ..Taint::default() }
}

impl ClusterConfiguration {
    /// Fills in every default; `bind_port` completes a controlPlaneEndpoint without a port.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if kubernetesVersion is a label (labels would have to be looked up on the internet), not
    /// a version or not supported, or controlPlaneEndpoint is not `host[:port]`.
    pub fn complete(&mut self, bind_port: u16) -> Result<()> {
        self.kubernetes_version = resolved_version(&self.kubernetes_version)?;
        default_to(&mut self.networking.service_subnet, "10.96.0.0/12");
        default_to(&mut self.networking.dns_domain, "cluster.local");
        default_to(&mut self.certificates_dir, "/etc/kubernetes/pki");
        default_to(&mut self.image_repository, version::DEFAULT_IMAGE_REPOSITORY);
        default_to(&mut self.cluster_name, "kubernetes");
        default_to(&mut self.encryption_algorithm, "RSA-2048");
        self.certificate_validity_period.get_or_insert(Duration::from_hours(8760));
        self.ca_certificate_validity_period.get_or_insert(Duration::from_hours(87600));
        match &mut self.etcd.external {
            None => {
                let local = self.etcd.local.get_or_insert_with(LocalEtcd::default);
                default_to(&mut local.data_dir, "/var/lib/etcd");
            }
            Some(external) => {
                if external.http_endpoints.is_empty() && knows_http_endpoints(&self.kubernetes_version) {
                    external.http_endpoints.clone_from(&external.endpoints);
                }
                if let Some(local) = &mut self.etcd.local {
                    default_to(&mut local.data_dir, "/var/lib/etcd");
                }
            }
        }
        if !self.control_plane_endpoint.is_empty() {
            let (host, port) = host_and_port(&self.control_plane_endpoint)?;
            self.control_plane_endpoint = join_host_port(&host, port.unwrap_or(bind_port));
        }
        let lists = [&mut self.api_server.cert_sans];
        let etcd_lists =
            self.etcd.local.iter_mut().flat_map(|etcd| [&mut etcd.server_cert_sans, &mut etcd.peer_cert_sans]);
        for name in lists.into_iter().chain(etcd_lists).flatten() {
            *name = name.to_lowercase();
        }
        let components =
            [&mut self.api_server.extra_envs, &mut self.controller_manager.extra_envs, &mut self.scheduler.extra_envs];
        let etcd = self.etcd.local.iter_mut().map(|etcd| &mut etcd.extra_envs);
        components.into_iter().chain(etcd).flatten().for_each(EnvVar::complete);
        Ok(())
    }
}

impl EnvVar {
    /// Fills in the version of the API that a field of the pod is named in.
    pub fn complete(&mut self) {
        let field = self.value_from.as_mut().and_then(|source| source.get_mut("fieldRef"));
        if let Some(field) = field.and_then(Value::as_object_mut)
            && field.get("apiVersion").and_then(Value::as_str).unwrap_or_default().is_empty()
        {
            field.insert("apiVersion".to_owned(), json!("v1"));
        }
    }
}

impl InitConfiguration {
    /// Fills in every default; a missing bootstrap token is made from random bytes. It has no description: kubeadm describes
    /// the one of its flags alone.
    ///
    /// # Errors
    /// [`Kind::Preflight`] if no advertise address is given and the host has no default route;
    /// [`Kind::Internal`] if the system gives no random bytes.
    pub fn complete(&mut self, host: &HostDefaults) -> Result<()> {
        if self.bootstrap_tokens.is_empty() {
            self.bootstrap_tokens.push(BootstrapToken::default());
        }
        for token in &mut self.bootstrap_tokens {
            token.complete()?;
        }
        self.node_registration.complete(host);
        self.local_api_endpoint.complete(host)?;
        if self.node_registration.taints.is_none() {
            self.node_registration.taints = Some(vec![control_plane_taint()]);
        }
        Ok(())
    }
}

impl JoinConfiguration {
    /// Fills in every default.
    ///
    /// # Errors
    /// [`Kind::Preflight`] if the node becomes a control plane, no advertise address is given and the host has no
    /// default route.
    pub fn complete(&mut self, host: &HostDefaults) -> Result<()> {
        default_to(&mut self.ca_cert_path, "/etc/kubernetes/pki/ca.crt");
        if self.discovery.tls_bootstrap_token.is_none() {
            self.discovery.tls_bootstrap_token =
                self.discovery.bootstrap_token.as_ref().and_then(|discovery| discovery.token.clone());
        }
        if let Some(file) = &mut self.discovery.file
            && let Some(path) = file.kube_config_path.strip_prefix("file://")
        {
            file.kube_config_path = path.to_owned();
        }
        self.node_registration.complete(host);
        if let Some(control_plane) = &mut self.control_plane {
            control_plane.local_api_endpoint.complete(host)?;
            if self.node_registration.taints.is_none() {
                self.node_registration.taints = Some(vec![control_plane_taint()]);
            }
        }
        Ok(())
    }
}

impl ResetConfiguration {
    /// Fills in every default; the CRI socket stays empty if it is to be looked up.
    pub fn complete(&mut self) {
        default_to(&mut self.certificates_dir, "/etc/kubernetes/pki");
    }
}

impl UpgradeConfiguration {
    /// Fills in every default.
    pub fn complete(&mut self) {
        for (renewal, etcd, policy, serial) in [
            (
                &mut self.apply.certificate_renewal,
                &mut self.apply.etcd_upgrade,
                &mut self.apply.image_pull_policy,
                &mut self.apply.image_pull_serial,
            ),
            (
                &mut self.node.certificate_renewal,
                &mut self.node.etcd_upgrade,
                &mut self.node.image_pull_policy,
                &mut self.node.image_pull_serial,
            ),
        ] {
            renewal.get_or_insert(true);
            etcd.get_or_insert(true);
            default_to(policy, "IfNotPresent");
            serial.get_or_insert(true);
        }
        self.plan.etcd_upgrade.get_or_insert(true);
    }
}

impl BootstrapToken {
    /// Fills in lifetime, usages and groups, and a random token where there is none.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the system gives no random bytes.
    pub fn complete(&mut self) -> Result<()> {
        if self.token.is_none() {
            self.token = Some(Token::generate()?.text());
        }
        if self.expires.is_none() {
            self.ttl.get_or_insert(Duration::from_hours(24));
        }
        if self.usages.is_empty() {
            self.usages = vec!["signing".into(), "authentication".into()];
        }
        if self.groups.is_empty() {
            self.groups = vec![NODE_BOOTSTRAP_GROUP.into()];
        }
        Ok(())
    }
}

impl BootstrapToken {
    /// When the token expires, RFC 3339 in UTC; `None`: never. `expires` wins over `ttl`, and a `ttl` of zero is for
    /// ever (kubeadm.md section 8.1).
    pub fn expiration(&self, now_seconds: u64) -> Option<String> {
        match (&self.expires, self.ttl) {
            (Some(expires), _) => Some(expires.clone()),
            (None, Some(ttl)) if ttl != Duration::default() => Some(moment::rfc3339(now_seconds + ttl.0.as_secs())),
            _ => None,
        }
    }
}

impl NodeRegistrationOptions {
    /// Fills in every default.
    pub fn complete(&mut self, host: &HostDefaults) {
        let override_name = self.kubelet_extra_args.iter().rev().find(|arg| arg.name == "hostname-override");
        if let Some(name) = override_name {
            self.name = name.value.clone();
        }
        if self.name.is_empty() {
            self.name = host.hostname.clone();
        }
        self.name = self.name.trim().to_lowercase();
        match self.cri_socket.as_str() {
            "" => self.cri_socket = host.cri_socket.clone().unwrap_or_else(|| DEFAULT_CRI_SOCKET.into()),
            path if path.starts_with('/') => self.cri_socket = format!("unix://{path}"),
            _ => {}
        }
        default_to(&mut self.image_pull_policy, "IfNotPresent");
        self.image_pull_serial.get_or_insert(true);
    }
}

impl ApiEndpoint {
    fn complete(&mut self, host: &HostDefaults) -> Result<()> {
        if self.bind_port == 0 {
            self.bind_port = 6443;
        }
        if self.advertise_address.is_empty() {
            let address = host.default_route_address.ok_or_else(|| {
                Failure::new(Kind::Preflight, "the host has no default route, so its address is not known")
                    .advise("set localAPIEndpoint.advertiseAddress")
            })?;
            self.advertise_address = address.to_string();
        }
        Ok(())
    }

    /// `https://address:port`, IPv6 in brackets: the URL that this node's own components use.
    pub fn url(&self) -> String {
        format!("https://{}", self.host_and_port())
    }

    /// `address:port`, IPv6 in brackets.
    pub fn host_and_port(&self) -> String {
        join_host_port(&self.advertise_address, self.bind_port)
    }

    /// Whether the advertise address is IPv6, which decides which loopback address components use.
    pub fn is_ipv6(&self) -> bool {
        self.advertise_address.parse().is_ok_and(|address: IpAddr| address.is_ipv6())
    }
}

impl ClusterConfiguration {
    /// The URL that clients and nodes use: the control plane endpoint, or `local` when there is none
    /// (kubeadm.md section 3.1).
    ///
    /// # Errors
    /// [`Kind::Configuration`] if controlPlaneEndpoint is not `host[:port]`.
    pub fn control_plane_url(&self, local: &ApiEndpoint) -> Result<String> {
        if self.control_plane_endpoint.is_empty() {
            return Ok(local.url());
        }
        let (host, port) = host_and_port(&self.control_plane_endpoint)?;
        Ok(format!("https://{}", join_host_port(&host, port.unwrap_or(local.bind_port))))
    }
}

pub(crate) fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn default_to(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

fn knows_http_endpoints(version: &str) -> bool {
    let release = version::parse(version).and_then(|version| version::Release::of(&version));
    release.is_ok_and(|release| release.etcd_http_endpoints)
}

fn resolved_version(text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok(version::DEFAULT_VERSION.to_owned());
    }
    if text.starts_with(|first: char| first.is_ascii_alphabetic() && first != 'v') {
        let sentence = format!("kubernetesVersion {text:?} is a label that must be looked up on the internet");
        return Err(Failure::new(Kind::Configuration, sentence).advise("write an exact version, for example 1.36.3"));
    }
    let parsed = version::parse(text)?;
    version::Release::of(&parsed)?;
    Ok(format!("v{parsed}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{BootstrapToken, ClusterConfiguration, Duration, EnvVar, HostDefaults, InitConfiguration, LocalEtcd};

    #[rstest]
    #[case::missing(json!({"fieldRef": {"fieldPath": "status.hostIP"}}), json!({"fieldRef": {"fieldPath": "status.hostIP", "apiVersion": "v1"}}))]
    #[case::empty(json!({"fieldRef": {"apiVersion": "", "fieldPath": "a"}}), json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "a"}}))]
    #[case::given(json!({"fieldRef": {"apiVersion": "v2", "fieldPath": "a"}}), json!({"fieldRef": {"apiVersion": "v2", "fieldPath": "a"}}))]
    #[case::other(json!({"resourceFieldRef": {"resource": "limits.cpu"}}), json!({"resourceFieldRef": {"resource": "limits.cpu"}}))]
    fn a_field_of_the_pod_is_named_with_its_version(#[case] source: Value, #[case] expected: Value) {
        let variables = || vec![EnvVar { name: "A".into(), value_from: Some(source.clone()), ..EnvVar::default() }];
        let mut cluster = ClusterConfiguration::default();
        cluster.api_server.extra_envs = variables();
        cluster.controller_manager.extra_envs = variables();
        cluster.scheduler.extra_envs = variables();
        cluster.etcd.local = Some(LocalEtcd { extra_envs: variables(), ..LocalEtcd::default() });
        cluster.complete(6443).unwrap();
        let etcd = cluster.etcd.local.unwrap().extra_envs;
        for lists in
            [cluster.api_server.extra_envs, cluster.controller_manager.extra_envs, cluster.scheduler.extra_envs, etcd]
        {
            assert_eq!(lists[0].value_from.as_ref(), Some(&expected));
        }
    }

    #[test]
    fn the_token_of_a_document_without_one_has_no_description() {
        let host = HostDefaults {
            hostname: "cp1".into(),
            default_route_address: Some([10, 0, 0, 11].into()),
            cri_socket: None,
        };
        let mut init = InitConfiguration::default();
        init.complete(&host).unwrap();
        assert_eq!(init.bootstrap_tokens.len(), 1);
        assert_eq!(init.bootstrap_tokens[0].description, "");
    }

    #[rstest]
    #[case(None, Some(3600), Some("1970-01-01T01:00:10Z"))]
    #[case(None, Some(0), None)]
    #[case(None, None, None)]
    #[case(Some("2030-01-01T00:00:00Z"), Some(3600), Some("2030-01-01T00:00:00Z"))]
    fn tokens_expire(#[case] expires: Option<&str>, #[case] ttl: Option<u64>, #[case] expected: Option<&str>) {
        let token = BootstrapToken {
            expires: expires.map(str::to_owned),
            ttl: ttl.map(Duration::from_seconds),
            ..Default::default()
        };
        assert_eq!(token.expiration(10).as_deref(), expected);
    }
}
