//! The certificates of a cluster as a table (kubeadm.md sections 2.1 and 2.2).

use std::net::IpAddr;

use super::sign::Subject;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::{ApiEndpoint, ClusterConfiguration, host_and_port, network_address, subnets};

/// Who signs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// It signs itself: a CA.
    Itself,
    /// The CA with this base name.
    Authority(&'static str),
}

/// Extended key usages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// serverAuth.
    Server,
    /// clientAuth.
    Client,
}

impl Usage {
    /// Content of the object identifier.
    pub(super) fn identifier(self) -> &'static [u8] {
        match self {
            Usage::Server => &[0x2b, 6, 1, 5, 5, 7, 3, 1],
            Usage::Client => &[0x2b, 6, 1, 5, 5, 7, 3, 2],
        }
    }
}

/// Which names and addresses a certificate carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectNames {
    /// None.
    None,
    /// Those of the API server.
    ApiServer,
    /// Those of an etcd member for clients.
    EtcdServer,
    /// Those of an etcd member for its peers.
    EtcdPeer,
}

/// A row of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Path below certificatesDir without `.crt` and `.key`.
    pub base_name: &'static str,
    /// Who signs it.
    pub signer: Signer,
    /// Common name; `None` is the node's name.
    pub common_name: Option<&'static str>,
    /// Extended key usages.
    pub usages: &'static [Usage],
    /// Names and addresses.
    pub names: SubjectNames,
    /// Whether it is made only when etcd runs on the control planes.
    pub local_etcd: bool,
    /// What it is, in kubeadm's words.
    pub title: &'static str,
}

const fn authority(base_name: &'static str, common_name: &'static str, title: &'static str) -> Entry {
    let local_etcd = base_name.len() > 5 && base_name.as_bytes()[4] == b'/';
    Entry {
        base_name,
        signer: Signer::Itself,
        common_name: Some(common_name),
        usages: &[],
        names: SubjectNames::None,
        local_etcd,
        title,
    }
}

const CLIENT: &[Usage] = &[Usage::Client];
const SERVER: &[Usage] = &[Usage::Server];
/// An etcd server dials itself with its own certificate, so it must also be one of a client.
const BOTH: &[Usage] = &[Usage::Server, Usage::Client];

const CA: Signer = Signer::Authority("ca");
const FRONT_PROXY_CA: Signer = Signer::Authority("front-proxy-ca");
const ETCD_CA: Signer = Signer::Authority("etcd/ca");

/// All certificates, each CA before what it signs, in the order of kubeadm's phases.
#[rustfmt::skip]
pub const CATALOGUE: [Entry; 10] = [
    authority("ca", "kubernetes", "self-signed Kubernetes CA to provision identities for other Kubernetes components"),
    Entry { base_name: "apiserver", signer: CA, common_name: Some("kube-apiserver"), usages: SERVER, names: SubjectNames::ApiServer, local_etcd: false, title: "certificate for serving the Kubernetes API" },
    Entry { base_name: "apiserver-kubelet-client", signer: CA, common_name: Some("kube-apiserver-kubelet-client"), usages: CLIENT, names: SubjectNames::None, local_etcd: false, title: "certificate for the API server to connect to kubelet" },
    authority("front-proxy-ca", "front-proxy-ca", "self-signed CA to provision identities for front proxy"),
    Entry { base_name: "front-proxy-client", signer: FRONT_PROXY_CA, common_name: Some("front-proxy-client"), usages: CLIENT, names: SubjectNames::None, local_etcd: false, title: "certificate for the front proxy client" },
    authority("etcd/ca", "etcd-ca", "self-signed CA to provision identities for etcd"),
    Entry { base_name: "etcd/server", signer: ETCD_CA, common_name: None, usages: BOTH, names: SubjectNames::EtcdServer, local_etcd: true, title: "certificate for serving etcd" },
    Entry { base_name: "etcd/peer", signer: ETCD_CA, common_name: None, usages: BOTH, names: SubjectNames::EtcdPeer, local_etcd: true, title: "certificate for etcd nodes to communicate with each other" },
    Entry { base_name: "etcd/healthcheck-client", signer: ETCD_CA, common_name: Some("kube-etcd-healthcheck-client"), usages: CLIENT, names: SubjectNames::None, local_etcd: true, title: "certificate for liveness probes to healthcheck etcd" },
    Entry { base_name: "apiserver-etcd-client", signer: ETCD_CA, common_name: Some("kube-apiserver-etcd-client"), usages: CLIENT, names: SubjectNames::None, local_etcd: true, title: "certificate the apiserver uses to access etcd" },
];

impl Entry {
    /// The name in kubeadm's phases and verbs: `etcd-server`.
    pub fn name(&self) -> String {
        self.base_name.replace('/', "-")
    }

    /// What the certificate says of its holder on this node.
    ///
    /// # Errors
    /// See [`alternative_names`].
    pub fn subject(
        &self,
        cluster: &ClusterConfiguration,
        node_name: &str,
        local: &ApiEndpoint,
        organization: Option<&str>,
    ) -> Result<Subject> {
        let (dns_names, addresses) = alternative_names(self.names, cluster, node_name, local)?;
        Ok(Subject {
            common_name: self.common_name.unwrap_or(node_name).to_owned(),
            organizations: organization.map(str::to_owned).into_iter().collect(),
            usages: self.usages.to_vec(),
            dns_names,
            addresses,
        })
    }
}

/// Names and addresses in kubeadm's order of building (section 2.2).
///
/// # Errors
/// [`Kind::Configuration`] if the advertise address, the service network or the endpoint cannot be read.
pub fn alternative_names(
    names: SubjectNames,
    cluster: &ClusterConfiguration,
    node_name: &str,
    local: &ApiEndpoint,
) -> Result<(Vec<String>, Vec<IpAddr>)> {
    let local_etcd = cluster.etcd.local.as_ref();
    let (mut dns_names, mut addresses, extra) = match names {
        SubjectNames::None => return Ok((Vec::new(), Vec::new())),
        SubjectNames::ApiServer => {
            let domain = &cluster.networking.dns_domain;
            let mut dns_names =
                ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
            if !domain.is_empty() {
                dns_names.push(format!("kubernetes.default.svc.{domain}"));
            }
            let service = subnets(&cluster.networking.service_subnet)
                .ok()
                .and_then(|networks| network_address(&networks[0], 1))
                .ok_or_else(|| {
                    let subnet = &cluster.networking.service_subnet;
                    Failure::new(
                        Kind::Configuration,
                        format!("networking.serviceSubnet {subnet:?} has no first address"),
                    )
                })?;
            (dns_names, vec![service, advertise_address(local)?], Some(&cluster.api_server.cert_sans))
        }
        SubjectNames::EtcdServer | SubjectNames::EtcdPeer => {
            let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])];
            let addresses = [&[advertise_address(local)?], loopback.as_slice()].concat();
            let extra = local_etcd.map(|etcd| {
                if names == SubjectNames::EtcdServer { &etcd.server_cert_sans } else { &etcd.peer_cert_sans }
            });
            (vec!["localhost".to_owned()], addresses, extra)
        }
    };
    if !node_name.is_empty() {
        dns_names.insert(0, node_name.to_owned());
    }
    let mut add = |name: &str| match name.parse() {
        Ok(address) => addresses.push(address),
        Err(_) => dns_names.push(name.to_owned()),
    };
    if names == SubjectNames::ApiServer && !cluster.control_plane_endpoint.is_empty() {
        add(&host_and_port(&cluster.control_plane_endpoint)?.0);
    }
    for name in extra.into_iter().flatten() {
        // Validation has refused the others in a file; in a fetched configuration they are passed over, as upstream does.
        if crate::kubernetes::configuration::is_subject_name(name) {
            add(name);
        }
    }
    Ok((dns_names, addresses))
}

fn advertise_address(local: &ApiEndpoint) -> Result<IpAddr> {
    let text = &local.advertise_address;
    text.parse().map_err(|_| {
        Failure::new(Kind::Configuration, format!("localAPIEndpoint.advertiseAddress {text:?} is not an address"))
    })
}
