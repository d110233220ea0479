//! What kubeadm fills in (kubeadm.md section 13); what depends on the host comes as a parameter.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::validation::host_and_port;
use super::validity;
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
    /// The addresses of the interfaces of the default routes: at most one of each family, IPv4 first.
    pub default_route_addresses: Vec<IpAddr>,
    /// The addresses of the loopback interface, IPv4 first.
    pub loopback_addresses: Vec<IpAddr>,
    /// The sockets of container runtimes that were found; containerd's is taken when there is none.
    pub cri_sockets: Vec<String>,
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
        self.certificate_validity_period.get_or_insert(validity::CERTIFICATES);
        self.ca_certificate_validity_period.get_or_insert(validity::AUTHORITIES);
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
    /// [`Kind::Preflight`] if the host does not tell what is not given: its address, or one container runtime;
    /// [`Kind::Internal`] if the system gives no random bytes.
    pub fn complete(&mut self, host: &HostDefaults) -> Result<()> {
        if self.bootstrap_tokens.is_empty() {
            self.bootstrap_tokens.push(BootstrapToken::default());
        }
        for token in &mut self.bootstrap_tokens {
            token.complete()?;
        }
        self.node_registration.complete(host)?;
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
    /// [`Kind::Preflight`] if the host does not tell what is not given: one container runtime; its address, if it becomes a
    /// control plane.
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
        self.node_registration.complete(host)?;
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
        with_scheme(&mut self.cri_socket);
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
    /// Fills in lifetime, usages and groups, and a random token where there is none; its end is written in UTC, which is how
    /// Secrets have it.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the system gives no random bytes.
    pub fn complete(&mut self) -> Result<()> {
        if self.token.is_none() {
            self.token = Some(Token::generate()?.text());
        }
        match &mut self.expires {
            None => {
                self.ttl.get_or_insert(Duration::from_hours(24));
            }
            // What is no moment is for the validation to refuse.
            Some(expires) => {
                if let Some(seconds) = moment::from_rfc3339(expires) {
                    *expires = moment::rfc3339(seconds);
                }
            }
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
    /// When a token that is completed and valid expires, RFC 3339 in UTC; `None`: never. A `ttl` of zero is for ever
    /// (kubeadm.md section 8.1).
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
    ///
    /// # Errors
    /// [`Kind::Preflight`] if no socket is given and the host has several container runtimes (kubeadm.md section 5.5).
    pub fn complete(&mut self, host: &HostDefaults) -> Result<()> {
        let override_name = self.kubelet_extra_args.iter().rev().find(|arg| arg.name == "hostname-override");
        if let Some(name) = override_name {
            self.name = name.value.clone();
        }
        if self.name.is_empty() {
            self.name = host.hostname.clone();
        }
        self.name = self.name.trim().to_lowercase();
        with_scheme(&mut self.cri_socket);
        if self.cri_socket.is_empty() {
            self.cri_socket = match host.cri_sockets.as_slice() {
                [] => DEFAULT_CRI_SOCKET.to_owned(),
                [only] => only.clone(),
                several => {
                    let sentence = format!("the host has several container runtimes: {}", several.join(", "));
                    return Err(Failure::new(Kind::Preflight, sentence)
                        .advise("say which one Kubernetes is to use in nodeRegistration.criSocket"));
                }
            };
        }
        default_to(&mut self.image_pull_policy, "IfNotPresent");
        self.image_pull_serial.get_or_insert(true);
        Ok(())
    }
}

impl ApiEndpoint {
    fn complete(&mut self, host: &HostDefaults) -> Result<()> {
        if self.bind_port == 0 {
            self.bind_port = 6443;
        }
        let address = match self.advertise_address.parse::<IpAddr>() {
            Ok(given) if given.is_loopback() => {
                host.loopback_addresses.iter().find(|address| is_global_unicast(**address))
            }
            Ok(given) if given.is_unspecified() => {
                let addresses = &host.default_route_addresses;
                addresses.iter().find(|address| address.is_ipv4() == given.is_ipv4()).or(addresses.first())
            }
            Ok(given) => {
                self.advertise_address = given.to_canonical().to_string();
                return Ok(());
            }
            Err(_) if self.advertise_address.is_empty() => host.default_route_addresses.first(),
            // For the validation to refuse.
            Err(_) => return Ok(()),
        };
        let address = address.ok_or_else(|| {
            let given = &self.advertise_address;
            let sentence = match given.parse::<IpAddr>() {
                Ok(address) if address.is_loopback() => format!(
                    "advertiseAddress {given} stands for an address of the loopback link that others reach, and it has none"
                ),
                _ => "the host has no default route, so its address is not known".to_owned(),
            };
            Failure::new(Kind::Preflight, sentence).advise("set localAPIEndpoint.advertiseAddress to the host's address")
        })?;
        self.advertise_address = address.to_string();
        Ok(())
    }

    /// Whether [`InitConfiguration::complete`] takes the address from the host: where none is given, and where the one that
    /// is given stands for one that is to be found there.
    pub fn is_told_by_host(&self) -> bool {
        let given = self.advertise_address.parse::<IpAddr>();
        self.advertise_address.is_empty()
            || given.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
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

/// Whether other hosts can reach an address, as Go's IsGlobalUnicast has it: private networks count.
pub(crate) fn is_global_unicast(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !special && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// A path becomes a URL, as upstream has it for old configurations.
fn with_scheme(socket: &mut String) {
    if socket.starts_with('/') {
        socket.insert_str(0, "unix://");
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

    use super::{
        ApiEndpoint, BootstrapToken, ClusterConfiguration, Duration, EnvVar, HostDefaults, InitConfiguration,
        LocalEtcd, NodeRegistrationOptions,
    };

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
        let mut init = InitConfiguration::default();
        init.complete(&host(&["10.0.0.11"], &[])).unwrap();
        assert_eq!(init.bootstrap_tokens.len(), 1);
        assert_eq!(init.bootstrap_tokens[0].description, "");
    }

    #[rstest]
    #[case(None, Some(3600), Some("1970-01-01T01:00:10Z"))]
    #[case(None, Some(0), None)]
    #[case(None, None, Some("1970-01-02T00:00:10Z"))]
    #[case(Some("2030-01-01T00:00:00Z"), None, Some("2030-01-01T00:00:00Z"))]
    #[case(Some("2030-01-01T00:00:00+02:00"), None, Some("2029-12-31T22:00:00Z"))]
    #[case(Some("2030-01-01T00:00:00.5-01:30"), None, Some("2030-01-01T01:30:00Z"))]
    fn tokens_expire(#[case] expires: Option<&str>, #[case] ttl: Option<u64>, #[case] expected: Option<&str>) {
        let mut token = BootstrapToken {
            expires: expires.map(str::to_owned),
            ttl: ttl.map(Duration::from_seconds),
            ..Default::default()
        };
        token.complete().unwrap();
        assert_eq!(token.expiration(10).as_deref(), expected);
    }

    fn host(default_route: &[&str], loopback: &[&str]) -> HostDefaults {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        HostDefaults {
            hostname: "cp1".into(),
            default_route_addresses: addresses(default_route),
            loopback_addresses: addresses(loopback),
            cri_sockets: Vec::new(),
        }
    }

    #[rstest]
    #[case("", &["10.0.0.11", "fd00::b"], &[], Ok("10.0.0.11"))]
    #[case("", &[], &["127.0.0.1"], Err("no default route"))]
    #[case("0.0.0.0", &["10.0.0.11", "fd00::b"], &[], Ok("10.0.0.11"))]
    #[case("::", &["10.0.0.11", "fd00::b"], &[], Ok("fd00::b"))]
    #[case("::", &["10.0.0.11"], &[], Ok("10.0.0.11"))]
    #[case("0.0.0.0", &[], &[], Err("no default route"))]
    #[case("127.0.0.1", &["10.0.0.11"], &["127.0.0.1", "192.0.2.7", "::1"], Ok("192.0.2.7"))]
    #[case("::1", &["10.0.0.11"], &["127.0.0.1", "::1", "fd00::7"], Ok("fd00::7"))]
    #[case("127.0.0.1", &["10.0.0.11"], &["127.0.0.1", "::1", "fe80::7"], Err("127.0.0.1 stands for an address of the loopback"))]
    #[case("192.0.2.1", &[], &[], Ok("192.0.2.1"))]
    #[case("FD00:0::0001", &[], &[], Ok("fd00::1"))]
    #[case("ten", &[], &[], Ok("ten"))]
    fn the_address_to_announce(
        #[case] given: &str,
        #[case] default_route: &[&str],
        #[case] loopback: &[&str],
        #[case] expected: Result<&str, &str>,
    ) {
        let mut endpoint = ApiEndpoint { advertise_address: given.into(), ..Default::default() };
        let asked = endpoint.is_told_by_host();
        match (endpoint.complete(&host(default_route, loopback)), expected) {
            (Ok(()), Ok(expected)) => assert_eq!(endpoint.advertise_address, expected),
            (Err(failure), Err(part)) => assert!(failure.sentence.contains(part), "{failure}"),
            (other, _) => panic!("{other:?}"),
        }
        assert_eq!(asked, !["192.0.2.1", "FD00:0::0001", "ten"].contains(&given));
    }

    #[rstest]
    #[case("", &[], Ok("unix:///var/run/containerd/containerd.sock"))]
    #[case("", &["unix:///var/run/crio/crio.sock"], Ok("unix:///var/run/crio/crio.sock"))]
    #[case("", &["unix:///a", "unix:///b"], Err("the host has several container runtimes: unix:///a, unix:///b"))]
    #[case("/b", &["unix:///a", "unix:///b"], Ok("unix:///b"))]
    fn the_container_runtime_to_use(#[case] given: &str, #[case] found: &[&str], #[case] expected: Result<&str, &str>) {
        let mut node = NodeRegistrationOptions { cri_socket: given.into(), ..Default::default() };
        let host = HostDefaults { cri_sockets: found.iter().map(|&it| it.into()).collect(), ..host(&[], &[]) };
        let completed = node.complete(&host).map(|()| node.cri_socket.as_str());
        assert_eq!(completed.map_err(|failure| failure.sentence), expected.map_err(str::to_owned));
    }
}
