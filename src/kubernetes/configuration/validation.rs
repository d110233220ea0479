//! What kubeadm refuses (kubeadm.md section 13): all findings of a document at once, each with the path of its field.

use std::net::IpAddr;

use ipnet::IpNet;

use super::default::is_global_unicast;
use super::repository::is_repository;
use super::validity;
use super::{
    ApiEndpoint, Arg, ClusterConfiguration, Discovery, EnvVar, Etcd, HostPathMount, InitConfiguration,
    JoinConfiguration, NodeRegistrationOptions, ResetConfiguration,
};
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::certificates::KeyAlgorithm;
use crate::kubernetes::moment;
use crate::kubernetes::token::Token;

/// One or two networks, the first of which counts where only one can be used.
pub type Subnets = Vec<IpNet>;

/// The networks of a comma list: one, or one of each address family.
///
/// # Errors
/// A sentence about what is wrong.
pub fn subnets(list: &str) -> Result<Subnets, String> {
    let mut networks = Vec::new();
    for text in list.split(',') {
        let network: IpNet =
            text.trim().parse().map_err(|_| format!("{text:?} is not a network such as 10.96.0.0/12"))?;
        networks.push(network);
    }
    let families = (networks.first(), networks.get(1));
    match families {
        (_, None) => Ok(networks),
        (Some(first), Some(second)) if networks.len() == 2 && first.addr().is_ipv4() != second.addr().is_ipv4() => {
            Ok(networks)
        }
        _ => Err(format!("{list:?} must be one network, or one of IPv4 and one of IPv6")),
    }
}

/// The `index`th address of a network: 1 is the API server's service, 10 the cluster's DNS.
pub fn network_address(network: &IpNet, index: u32) -> Option<IpAddr> {
    let address = match network.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).checked_add(index)?.into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(index.into())?.into()),
    };
    network.contains(&address).then_some(address)
}

/// Splits `host`, `host:port`, `[v6]:port` and `v6`; the host is an address or a DNS name.
///
/// # Errors
/// [`Kind::Configuration`] with the text.
pub fn host_and_port(text: &str) -> Result<(String, Option<u16>)> {
    let invalid = || {
        Failure::new(Kind::Configuration, format!("{text:?} is not host:port"))
            .advise("write an address or a DNS name and a port, for example api.demo.example:6443 or [fd00::1]:6443")
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(invalid)?;
        (host, rest.strip_prefix(':').map(Some).or((rest.is_empty()).then_some(None)).ok_or_else(invalid)?)
    } else if text.matches(':').count() == 1 {
        text.split_once(':').map(|(host, port)| (host, Some(port))).ok_or_else(invalid)?
    } else {
        (text, None)
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid)?),
    };
    if host.parse::<IpAddr>().is_ok() || is_dns_name(host) { Ok((host.to_owned(), port)) } else { Err(invalid()) }
}

/// Whether the text is a DNS name of RFC 1123 in lower case.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether the text can stand in a certificate: an address, a DNS name, or a wildcard such as `*.demo.example`.
pub(crate) fn is_subject_name(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_dns_name(text.strip_prefix("*.").unwrap_or(text))
}

/// Findings, each with its field.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, field: &str, problem: impl std::fmt::Display) {
        self.0.push(format!("{field}: {problem}"));
    }

    fn refuse_unless(&mut self, holds: bool, field: &str, problem: impl std::fmt::Display) {
        if !holds {
            self.add(field, problem);
        }
    }

    fn absolute(&mut self, field: &str, path: &str) {
        self.refuse_unless(path.starts_with('/'), field, format_args!("{path:?} is not an absolute path"));
    }

    /// Where it is not given it is another field's.
    fn repository(&mut self, field: &str, repository: &str) {
        let message = format!("{repository:?} is not a repository such as registry.k8s.io or mirror.example:5000/k8s");
        self.refuse_unless(repository.is_empty() || is_repository(repository), field, message);
    }

    fn socket(&mut self, field: &str, socket: &str) {
        let message = format!("{socket:?} is not a socket such as unix:///var/run/containerd/containerd.sock");
        self.refuse_unless(socket.starts_with("unix:///"), field, message);
    }

    fn arguments(&mut self, field: &str, arguments: &[Arg]) {
        for (position, argument) in arguments.iter().enumerate() {
            self.refuse_unless(!argument.name.is_empty(), &format!("{field}[{position}]"), "has no name");
        }
    }

    fn volumes(&mut self, field: &str, volumes: &[HostPathMount]) {
        for (position, volume) in volumes.iter().enumerate() {
            let whole = ![&volume.name, &volume.host_path, &volume.mount_path].iter().any(|part| part.is_empty());
            self.refuse_unless(whole, &format!("{field}[{position}]"), "needs name, hostPath and mountPath");
        }
    }

    fn environment(&mut self, field: &str, variables: &[EnvVar]) {
        for (position, variable) in variables.iter().enumerate() {
            self.refuse_unless(!variable.name.is_empty(), &format!("{field}[{position}]"), "has no name");
        }
    }

    fn component(&mut self, name: &str, arguments: &[Arg], volumes: &[HostPathMount], variables: &[EnvVar]) {
        self.arguments(&format!("{name}.extraArgs"), arguments);
        self.volumes(&format!("{name}.extraVolumes"), volumes);
        self.environment(&format!("{name}.extraEnvs"), variables);
    }

    fn names(&mut self, field: &str, names: &[String]) {
        for name in names {
            self.refuse_unless(is_subject_name(name), field, format_args!("{name:?} is no address and no DNS name"));
        }
    }

    fn into_result(self, kind: &str) -> Result<()> {
        match self.0.as_slice() {
            [] => Ok(()),
            [only] => Err(Failure::new(Kind::Configuration, format!("{kind}: {only}"))),
            several => Err(Failure::new(Kind::Configuration, format!("{kind} has {} errors", several.len()))
                .detailed(several.join("\n"))),
        }
    }
}

impl ClusterConfiguration {
    /// Checks a completed configuration as kubeadm does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] with all findings.
    pub fn validate(&self) -> Result<()> {
        let mut findings = Findings::default();
        self.validate_networking(&mut findings);
        findings.names("apiServer.certSANs", &self.api_server.cert_sans);
        let server = &self.api_server;
        findings.component("apiServer", &server.extra_args, &server.extra_volumes, &server.extra_envs);
        for (name, part) in [("controllerManager", &self.controller_manager), ("scheduler", &self.scheduler)] {
            findings.component(name, &part.extra_args, &part.extra_volumes, &part.extra_envs);
        }
        findings.absolute("certificatesDir", &self.certificates_dir);
        findings.repository("imageRepository", &self.image_repository);
        findings.repository("dns.imageRepository", &self.dns.image_repository);
        for field in validity::impossible(self) {
            findings.add(field, "must be longer than 0s: such certificates would have expired when they are made");
        }
        self.validate_feature_gates(&mut findings);
        if !self.control_plane_endpoint.is_empty()
            && let Err(failure) = host_and_port(&self.control_plane_endpoint)
        {
            findings.add("controlPlaneEndpoint", failure.sentence);
        }
        match self.encryption_algorithm.parse::<KeyAlgorithm>() {
            Err(failure) => findings.add("encryptionAlgorithm", failure.sentence),
            Ok(KeyAlgorithm::EcdsaP384) if self.release().is_ok_and(|release| !release.ecdsa_p384) => {
                findings.add("encryptionAlgorithm", "ECDSA-P384 came with Kubernetes 1.34");
            }
            Ok(_) => {}
        }
        validate_etcd(&self.etcd, &mut findings);
        findings.into_result("ClusterConfiguration")
    }

    fn validate_networking(&self, findings: &mut Findings) {
        let networking = &self.networking;
        findings.refuse_unless(
            is_dns_name(&networking.dns_domain),
            "networking.dnsDomain",
            format_args!("{:?} is not a DNS name", networking.dns_domain),
        );
        match subnets(&networking.service_subnet) {
            Err(problem) => findings.add("networking.serviceSubnet", problem),
            Ok(networks) => {
                for network in networks {
                    let host_bits = network.max_prefix_len() - network.prefix_len();
                    let message = format!("{network} must have 4 to 20 host bits, and has {host_bits}");
                    findings.refuse_unless((4..=20).contains(&host_bits), "networking.serviceSubnet", message);
                }
            }
        }
        if networking.pod_subnet.is_empty() {
            return;
        }
        let field = "networking.podSubnet";
        let networks = match subnets(&networking.pod_subnet) {
            Err(problem) => return findings.add(field, problem),
            Ok(networks) => networks,
        };
        let argument = |name: &str| {
            self.controller_manager.extra_args.iter().rev().find(|arg| arg.name == name).map(|arg| arg.value.as_str())
        };
        for network in networks {
            let host_bits = network.max_prefix_len() - network.prefix_len();
            findings.refuse_unless(host_bits >= 4, field, format_args!("{network} is smaller than 14 addresses"));
            if argument("allocate-node-cidrs") == Some("false") {
                continue;
            }
            let (flag, default) = match network {
                IpNet::V4(_) => ("node-cidr-mask-size-ipv4", 24),
                IpNet::V6(_) => ("node-cidr-mask-size-ipv6", 64),
            };
            let single = if self.networking.pod_subnet.contains(',') { None } else { argument("node-cidr-mask-size") };
            let node_mask: u8 = match argument(flag).or(single).map(str::parse) {
                None => default,
                Some(Ok(mask)) => mask,
                Some(Err(_)) => {
                    findings.add("controllerManager.extraArgs", format_args!("{flag} is not a number"));
                    continue;
                }
            };
            if network.prefix_len() > node_mask {
                findings.add(field, format_args!("{network} is smaller than the /{node_mask} that each node gets"));
            } else if node_mask - network.prefix_len() > 16 {
                findings
                    .add(field, format_args!("{network} is more than 16 bits larger than the /{node_mask} of a node"));
            }
        }
    }

    /// An unknown gate is an error in a file (kubeadm.md section 0.2).
    fn validate_feature_gates(&self, findings: &mut Findings) {
        let rootless = self.feature_gates.get("RootlessControlPlane") == Some(&true);
        let message = "RootlessControlPlane is not supported: the control plane's static pods run as root";
        findings.refuse_unless(!rootless, "featureGates", message);
        // Another version than those we know is a finding of its own.
        let Ok(release) = self.release() else {
            return;
        };
        for gate in self.feature_gates.keys() {
            let (known, minor) = (release.feature_gates.contains(&gate.as_str()), release.minor);
            findings.refuse_unless(known, "featureGates", format_args!("Kubernetes 1.{minor} has no gate {gate}"));
        }
    }
}

fn validate_etcd(etcd: &Etcd, findings: &mut Findings) {
    if let Some(local) = &etcd.local {
        findings.refuse_unless(etcd.external.is_none(), "etcd", "local and external exclude each other");
        findings.absolute("etcd.local.dataDir", &local.data_dir);
        findings.repository("etcd.local.imageRepository", &local.image_repository);
        findings.names("etcd.local.serverCertSANs", &local.server_cert_sans);
        findings.names("etcd.local.peerCertSANs", &local.peer_cert_sans);
        findings.component("etcd.local", &local.extra_args, &[], &local.extra_envs);
    }
    let Some(external) = &etcd.external else { return };
    let field = "etcd.external";
    let files = [&external.ca_file, &external.cert_file, &external.key_file];
    let any_file = files.iter().any(|file| !file.is_empty());
    findings.refuse_unless(
        external.cert_file.is_empty() == external.key_file.is_empty(),
        field,
        "certFile and keyFile must be set together",
    );
    findings.refuse_unless(
        external.cert_file.is_empty() || !external.ca_file.is_empty(),
        field,
        "certFile and keyFile need caFile",
    );
    findings.refuse_unless(!external.endpoints.is_empty(), "etcd.external.endpoints", "must not be empty");
    for endpoint in &external.endpoints {
        let accepted = endpoint.starts_with("https://") || !any_file && endpoint.starts_with("http://");
        findings.refuse_unless(accepted, "etcd.external.endpoints", format_args!("{endpoint:?} is not an https URL"));
    }
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        findings.absolute(field, file);
    }
}

impl InitConfiguration {
    /// Checks a completed configuration as kubeadm does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] with all findings.
    pub fn validate(&self) -> Result<()> {
        let mut findings = Findings::default();
        self.judge_tokens(&mut findings);
        validate_node(&self.node_registration, &mut findings);
        validate_endpoint(&self.local_api_endpoint, "localAPIEndpoint", &mut findings);
        validate_certificate_key(self.certificate_key.as_ref(), "certificateKey", &mut findings);
        findings.into_result("InitConfiguration")
    }

    /// Checks the bootstrap tokens alone.
    ///
    /// # Errors
    /// [`Kind::Configuration`] with all findings.
    pub fn validate_tokens(&self) -> Result<()> {
        let mut findings = Findings::default();
        self.judge_tokens(&mut findings);
        findings.into_result("InitConfiguration")
    }

    fn judge_tokens(&self, findings: &mut Findings) {
        for (position, token) in self.bootstrap_tokens.iter().enumerate() {
            let field = format!("bootstrapTokens[{position}]");
            if let Some(Err(failure)) = token.token.as_ref().map(|token| Token::parse(token.expose())) {
                findings.add(&format!("{field}.token"), failure.sentence);
            }
            if token.expires.as_deref().is_some_and(|expires| moment::from_rfc3339(expires).is_none()) {
                findings.add(&format!("{field}.expires"), "is not a moment such as 2030-01-31T12:00:00Z");
            }
            let one_end = token.expires.is_none() || token.ttl.is_none();
            findings.refuse_unless(one_end, &field, "ttl and expires exclude each other");
            for usage in &token.usages {
                let known = ["signing", "authentication"].contains(&usage.as_str());
                findings.refuse_unless(known, &format!("{field}.usages"), format_args!("{usage:?} is not known"));
            }
            let authenticates = token.usages.iter().any(|usage| usage == "authentication");
            findings.refuse_unless(
                authenticates || token.groups.is_empty(),
                &format!("{field}.groups"),
                "groups need the usage authentication",
            );
            for group in &token.groups {
                let message = format!("{group:?} does not begin with system:bootstrappers: or has other characters");
                findings.refuse_unless(is_bootstrap_group(group), &format!("{field}.groups"), message);
            }
        }
    }
}

impl JoinConfiguration {
    /// Checks a completed configuration as kubeadm does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] with all findings.
    pub fn validate(&self) -> Result<()> {
        let mut findings = Findings::default();
        validate_node(&self.node_registration, &mut findings);
        findings.absolute("caCertPath", &self.ca_cert_path);
        findings.refuse_unless(self.ca_cert_path.ends_with(".crt"), "caCertPath", "must end in .crt");
        validate_discovery(&self.discovery, &mut findings);
        if let Some(control_plane) = &self.control_plane {
            validate_endpoint(&control_plane.local_api_endpoint, "controlPlane.localAPIEndpoint", &mut findings);
            let key = control_plane.certificate_key.as_ref();
            validate_certificate_key(key, "controlPlane.certificateKey", &mut findings);
        }
        findings.into_result("JoinConfiguration")
    }
}

impl ResetConfiguration {
    /// Checks a completed configuration as kubeadm does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] with all findings.
    pub fn validate(&self) -> Result<()> {
        let mut findings = Findings::default();
        findings.absolute("certificatesDir", &self.certificates_dir);
        if !self.cri_socket.is_empty() {
            findings.socket("criSocket", &self.cri_socket);
        }
        for flag in &self.unmount_flags {
            let known = ["MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW"].contains(&flag.as_str());
            findings.refuse_unless(known, "unmountFlags", format_args!("{flag:?} is not known"));
            let done = !known || ["MNT_DETACH", "UMOUNT_NOFOLLOW"].contains(&flag.as_str());
            let message = format!("{flag} is not used here: every mount is detached, without following links");
            findings.refuse_unless(done, "unmountFlags", message);
        }
        findings.into_result("ResetConfiguration")
    }
}

fn is_bootstrap_group(group: &str) -> bool {
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        (1..=256).contains(&rest.len())
            && rest.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || matches!(one, b':' | b'-'))
            && rest.ends_with(|last: char| last.is_ascii_alphanumeric())
    })
}

fn validate_node(node: &NodeRegistrationOptions, findings: &mut Findings) {
    let field = "nodeRegistration";
    let name = &node.name;
    findings.refuse_unless(is_dns_name(name), &format!("{field}.name"), format_args!("{name:?} is not a DNS name"));
    findings.socket(&format!("{field}.criSocket"), &node.cri_socket);
    findings.arguments(&format!("{field}.kubeletExtraArgs"), &node.kubelet_extra_args);
    let policy = &node.image_pull_policy;
    findings.refuse_unless(
        ["", "IfNotPresent", "Always", "Never"].contains(&policy.as_str()),
        &format!("{field}.imagePullPolicy"),
        format_args!("{policy:?} is not known"),
    );
    let ignored = &node.ignore_preflight_errors;
    findings.refuse_unless(
        ignored.len() < 2 || !ignored.iter().any(|name| name.eq_ignore_ascii_case("all")),
        &format!("{field}.ignorePreflightErrors"),
        "all must stand alone",
    );
    for taint in node.taints.iter().flatten() {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str());
        let message = format!("the effect {:?} is not known", taint.effect);
        findings.refuse_unless(known && !taint.key.is_empty(), &format!("{field}.taints"), message);
    }
}

fn validate_endpoint(endpoint: &ApiEndpoint, field: &str, findings: &mut Findings) {
    let address = &endpoint.advertise_address;
    match address.parse::<IpAddr>() {
        Err(_) => findings.add(field, format_args!("advertiseAddress {address:?} is not an address")),
        Ok(parsed) => findings.refuse_unless(
            is_global_unicast(parsed),
            field,
            format_args!("advertiseAddress {address} is not an address others can reach"),
        ),
    }
    findings.refuse_unless(endpoint.bind_port > 0, field, "bindPort must not be 0");
}

fn validate_certificate_key(key: Option<&crate::secret::Secret>, field: &str, findings: &mut Findings) {
    let fits = |text: &str| text.len() == 64 && text.bytes().all(|one| one.is_ascii_hexdigit());
    findings.refuse_unless(key.is_none_or(|key| fits(key.expose())), field, "must be 64 hexadecimal digits");
}

fn validate_discovery(discovery: &Discovery, findings: &mut Findings) {
    let field = "discovery";
    findings.refuse_unless(
        discovery.bootstrap_token.is_some() != discovery.file.is_some(),
        field,
        "needs exactly one of bootstrapToken and file",
    );
    if let Some(token) = &discovery.bootstrap_token {
        match &token.token {
            None => findings.add("discovery.bootstrapToken.token", "is missing"),
            Some(text) => {
                if let Err(failure) = Token::parse(text.expose()) {
                    findings.add("discovery.bootstrapToken.token", failure.sentence);
                }
            }
        }
        let endpoint = &token.api_server_endpoint;
        findings.refuse_unless(
            matches!(host_and_port(endpoint), Ok((_, Some(_)))),
            "discovery.bootstrapToken.apiServerEndpoint",
            format_args!("{endpoint:?} is not host:port"),
        );
        findings.refuse_unless(
            !token.ca_cert_hashes.is_empty() || token.unsafe_skip_ca_verification,
            "discovery.bootstrapToken.caCertHashes",
            "is missing; without it anybody on the way can pose as the cluster",
        );
    }
    if let Some(file) = &discovery.file {
        let path = &file.kube_config_path;
        let accepted = !path.is_empty() && (path.starts_with("https://") || !path.contains("://"));
        findings.refuse_unless(accepted, "discovery.file", format_args!("{path:?} is no path and no https URL"));
    }
    if let Some(Err(failure)) = discovery.tls_bootstrap_token.as_ref().map(|token| Token::parse(token.expose())) {
        findings.add("discovery.tlsBootstrapToken", failure.sentence);
    }
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
