//! What each host lacks and whether it may be touched: a pure function of inventory, facts and bundle.

mod endpoint;
mod source;
mod version;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::check::fleet;
use super::documents::{Documents, NodeAddress};
use super::findings::{Finding, divide, turn_down};
use crate::bundle::{Blob, Manifest};
use crate::fact::Facts;
use crate::failure::{Failure, Kind};
use crate::inventory::{Host, Inventory, Role};
use crate::message::{BalancerOrder, Place};
use crate::node::{self, Severity};

/// Blobs of the container runtime; a host that brings its own runtime does not get them.
const RUNTIME: &[&str] = &["bin/runc", "bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr"];

/// A host's way through `up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The cluster is made on it; where there is one, everything is asked of it.
    Source,
    /// It joins as a control plane.
    ControlPlane,
    /// It joins as a worker.
    Worker,
}

/// What one host is and gets.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPlan {
    /// Its name.
    pub name: String,
    /// The address the cluster knows it by.
    pub node: NodeAddress,
    /// Its way.
    pub way: Way,
    /// Whether it is a node of this cluster already; a control plane only if it works.
    pub member: bool,
    /// The balancer in front of all API servers, where the endpoint is ours.
    pub balancer: Option<BalancerOrder>,
    /// The blobs its role needs, in sending order.
    pub blobs: Vec<Blob>,
    /// What the playbooks are told.
    pub variables: BTreeMap<String, Value>,
}

/// The plans of all hosts in inventory order, and what a person should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// One for each host.
    pub hosts: Vec<HostPlan>,
    /// Sentences that stop nothing.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The name of the host whose way is [`Way::Source`].
    pub fn source(&self) -> Option<&str> {
        self.hosts.iter().find(|host| host.way == Way::Source).map(|host| host.name.as_str())
    }

    /// Whether hosts will join.
    pub fn joins(&self) -> bool {
        self.hosts.iter().any(|host| !host.member && host.way != Way::Source)
    }

    /// Whether control planes will join.
    pub fn control_planes_join(&self) -> bool {
        self.hosts.iter().any(|host| !host.member && host.way == Way::ControlPlane)
    }
}

/// A plan for the hosts that are fit for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Borne {
    /// The plan, without the others.
    pub plan: Plan,
    /// Why the others are not: one failure for each of them.
    pub unfit: Vec<Failure>,
}

/// Plans an `up` of the hosts that are fit for it: workers with findings of their own are left out. `tried` is what was found
/// besides what facts tell.
///
/// # Errors
/// Everything that was found, where any of it concerns a control plane or the cluster.
pub fn plan_of_the_fit(
    inventory: &Inventory,
    documents: &Documents,
    facts: &BTreeMap<String, Facts>,
    manifest: &Manifest,
    tried: Vec<Finding>,
) -> Result<Borne, Vec<Failure>> {
    let Assessment { mut hosts, mut findings } = assess(inventory, documents, facts, Some(manifest));
    findings.extend(tried);
    turn_down(&mut findings, &inventory.cluster.ignore_checks);
    let worker = |name: &String| inventory.workers().any(|host| host.name == *name);
    let alone = |finding: &Finding| finding.is_of_one_host() && finding.failure.host.as_ref().is_some_and(worker);
    let borne = findings.iter().filter(|finding| finding.severity == Severity::Error).all(alone);
    let (failures, warnings) = divide(findings);
    if !borne {
        return Err(failures);
    }
    let mut unfit: Vec<Failure> = Vec::new();
    for failure in failures {
        match unfit.iter_mut().find(|known| known.host == failure.host) {
            Some(known) => known.sentence.push_str(&format!("; {}", failure.sentence)),
            None => unfit.push(failure),
        }
    }
    hosts.retain(|host| !unfit.iter().any(|failure| failure.host.as_ref() == Some(&host.name)));
    Ok(Borne { plan: Plan { hosts, warnings }, unfit })
}

/// What is known of all hosts, and what is wrong with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    /// Plans of the hosts that can have one, in inventory order.
    pub hosts: Vec<HostPlan>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Judges all hosts by their facts; without a bundle, what depends on it is left out.
pub fn assess(
    inventory: &Inventory,
    documents: &Documents,
    facts: &BTreeMap<String, Facts>,
    manifest: Option<&Manifest>,
) -> Assessment {
    let mut findings = Vec::new();
    let mut hosts = Vec::new();
    let version = manifest.and_then(|manifest| wrong_version(inventory, manifest));
    findings.extend(version.map(|failure| Finding::error("Bundle", failure)));
    findings.extend(fleet::machine_ids(inventory, facts));
    findings.extend(fleet::hostnames(inventory, facts));
    let port = endpoint::port_of_api_servers(inventory, documents);
    findings.extend(port.map(|failure| Finding::error("Endpoint", failure)));
    let source = source::source(inventory, facts);
    let facts_of_source = source.and_then(|source| facts.get(&source.name));
    let nodes: BTreeMap<String, NodeAddress> = inventory
        .hosts
        .iter()
        .filter_map(|host| {
            let address = match facts.get(&host.name) {
                Some(facts) => node_address(host, facts).ok()?,
                // It was not reached: balancers keep what the inventory says of it.
                None => NodeAddress { address: host.node_address?, must_be_told: false },
            };
            Some((host.name.clone(), address))
        })
        .collect();
    for host in &inventory.hosts {
        let Some(own) = facts.get(&host.name) else { continue };
        let error = |check: &str, failure: Failure| Finding::error(check, failure).on(&host.name);
        let way = way(host, source);
        let member = match standing(inventory, own, way, facts_of_source) {
            Ok(member) => member,
            Err(failure) => {
                findings.push(error("Membership", failure));
                continue;
            }
        };
        findings.extend(unfit(own, manifest).into_iter().map(|(check, failure)| error(check, failure)));
        findings.extend(endpoint::changed(inventory, host, own).map(|failure| error("Endpoint", failure)));
        findings.extend(version::of_api_server(inventory, own).map(|failure| error("KubernetesVersion", failure)));
        if member {
            findings.extend(version::of_kubelet(inventory, own).map(|failure| error("KubeletVersion", failure)));
        }
        findings.extend(fleet::overlaps(inventory, host, own));
        if !member {
            let node = node_address(host, own).ok();
            let checks = checks(inventory, way, documents, own, node);
            findings.extend(checks.into_iter().map(|finding| finding.on(&host.name)));
            findings.extend(fleet::room(host, own));
            findings.extend(endpoint::port_taken(inventory, own).map(|failure| error("Port-6444", failure)));
        }
        match node_address(host, own) {
            Ok(node) => hosts.push(HostPlan {
                name: host.name.clone(),
                node,
                way,
                member,
                balancer: endpoint::balancer(inventory, documents, &nodes, &host.name),
                blobs: manifest.map(|manifest| blobs(host, own, manifest)).unwrap_or_default(),
                variables: manifest.map(|manifest| variables(inventory, documents, own, manifest)).unwrap_or_default(),
            }),
            Err(failure) => findings.push(error("NodeAddress", failure)),
        }
    }
    Assessment { hosts, findings }
}

fn wrong_version(inventory: &Inventory, manifest: &Manifest) -> Option<Failure> {
    let wanted = &inventory.cluster.kubernetes;
    (manifest.kubernetes != *wanted).then(|| {
        Failure::new(
            Kind::Bundle,
            format!("the bundle is for Kubernetes {}, the inventory wants {wanted}", manifest.kubernetes),
        )
        .advise(format!(
            "make a bundle with `clusterctl bundle create --kubernetes {wanted}`, or set cluster.kubernetes"
        ))
    })
}

fn way(host: &Host, source: Option<&Host>) -> Way {
    match host.role {
        _ if source.is_some_and(|source| source.name == host.name) => Way::Source,
        Role::ControlPlane => Way::ControlPlane,
        Role::Worker => Way::Worker,
    }
}

/// Whether a host is a member of this cluster; a failure if it is a member of another.
fn standing(inventory: &Inventory, facts: &Facts, way: Way, source: Option<&Facts>) -> Result<bool, Failure> {
    let state = &facts.kubernetes;
    let cluster_hash = source.and_then(|source| source.kubernetes.ca_hash.as_deref());
    let foreign = |whose: String| {
        Failure::new(Kind::Preflight, format!("it is a node of another cluster already ({whose})"))
            .advise("reset it there first (`clusterctl down` with that cluster's inventory, or `kubeadm reset`), or take it out of this inventory")
    };
    let ours = state.journal_cluster.as_deref() == Some(inventory.cluster.name.as_str());
    if let Some(other) = state.journal_cluster.as_deref().filter(|_| !ours) {
        return Err(foreign(format!("clusterctl's cluster {other}")));
    }
    let has_state = state.kubelet_conf || state.admin_conf || !state.manifests.is_empty();
    // With an external CA a person brings all kubeconfigs before `init` (kubeadm.md section 2.5). A worker of another
    // cluster has no admin.conf.
    let external_ca = state.ca_hash.is_some() && !state.ca_key;
    let brought = external_ca && state.admin_conf && state.manifests.is_empty() && way == Way::Source;
    if brought && !ours {
        return Ok(false);
    }
    if has_state && !ours {
        let server = state.server.clone().unwrap_or_else(|| "not made by clusterctl".to_owned());
        return Err(foreign(server));
    }
    if way != Way::Source
        && state.kubelet_conf
        && let (Some(here), Some(there)) = (state.ca_hash.as_deref(), cluster_hash)
        && here != there
    {
        return Err(foreign(format!("its CA is {here}, this cluster's is {there}")));
    }
    if way != Way::Source && state.kubelet_conf && source.is_some() && cluster_hash.is_none() {
        let sentence = "it is a node already, but no control plane of the inventory has a cluster (any more)";
        return Err(Failure::new(Kind::Preflight, sentence)
            .advise("run `clusterctl down` with this inventory first, then `clusterctl up`"));
    }
    // A control plane whose joining broke off, or that does not work, joins (again): that finishes and mends it.
    Ok(if way == Way::ControlPlane { state.serves } else { state.kubelet_conf })
}

/// What makes a host useless as a node, whatever its role.
fn unfit(facts: &Facts, manifest: Option<&Manifest>) -> Vec<(&'static str, Failure)> {
    let mut failures = Vec::new();
    if !facts.systemd {
        let failure = Failure::new(Kind::Preflight, "systemd is not its init system");
        failures.push(("Systemd", failure.advise("use a distribution with systemd")));
    }
    if manifest.is_some_and(|manifest| !manifest.has_architecture(&facts.architecture)) {
        let sentence = format!("its architecture is {}, and the bundle has nothing for it", facts.architecture);
        let failure = Failure::new(Kind::Bundle, sentence);
        failures.push(("Architecture", failure.advise("make a bundle for that architecture")));
    }
    failures
}

/// kubeadm's checks on the facts; without an address of the node, components count as listening on all.
fn checks(
    inventory: &Inventory,
    way: Way,
    documents: &Documents,
    facts: &Facts,
    node: Option<NodeAddress>,
) -> Vec<Finding> {
    let (purpose, kind) = match way {
        Way::Source => (node::Purpose::Init, "InitConfiguration"),
        Way::ControlPlane => (node::Purpose::JoinControlPlane, "JoinConfiguration"),
        Way::Worker => (node::Purpose::JoinWorker, "JoinConfiguration"),
    };
    let ignore = documents.ignored_checks(kind);
    let plan = node::Plan {
        purpose,
        cluster: &inventory.cluster.name,
        kubernetes: &inventory.cluster.kubernetes,
        bind_port: documents.bind_port(),
        listen: node.map(|node| documents.listen(node.address)).unwrap_or_default(),
        etcd_data: documents.etcd_data(),
        ignore: &ignore,
    };
    let finding = |found: node::Finding| {
        let failure = Failure::new(Kind::Preflight, found.message).advise(format!(
            "{}, or turn the check down: `{}` in cluster.ignore_checks",
            remedy(&found.name),
            found.name
        ));
        Finding { check: found.name, severity: found.severity, failure }
    };
    node::preflight(facts, &plan).into_iter().map(finding).collect()
}

/// What to do about a finding, by kubeadm's name of the check.
fn remedy(check: &str) -> &'static str {
    match check.split('-').next().unwrap_or_default() {
        "Port" => "stop that program",
        "FileAvailable" | "DirAvailable" => "move it away if nothing needs it any more",
        "FileExisting" => "install it",
        "NumCPU" | "Mem" => "take a larger machine",
        _ => "mend it",
    }
}

/// The address a node is known by: the one in the inventory, else that of the default route.
pub(super) fn node_address(host: &Host, facts: &Facts) -> Result<NodeAddress, Failure> {
    let by_default = default_address(facts);
    if let Some(address) = host.node_address {
        let on_host = facts.addresses.iter().any(|link| link.address.addr() == address);
        // Behind address translation the inventory's address is not on the host; then the host's own one counts.
        if on_host || by_default.is_none() {
            return Ok(NodeAddress { address, must_be_told: by_default.is_some_and(|default| default != address) });
        }
    }
    by_default.map(|address| NodeAddress { address, must_be_told: false }).ok_or_else(|| {
        Failure::new(Kind::Preflight, "it has no default route, so its node address cannot be known")
            .advise("write the host's IP address into the inventory as `node_address`")
    })
}

/// The address that the default route leaves from.
fn default_address(facts: &Facts) -> Option<IpAddr> {
    let route = facts.routes.iter().find(|route| route.destination.prefix_len() == 0)?;
    let same_family = |address: &IpAddr| address.is_ipv4() == route.destination.addr().is_ipv4();
    let on_link = facts.addresses.iter().filter(|link| link.link == route.link).map(|link| link.address);
    let mut candidates = on_link.filter(|address| same_family(&address.addr()));
    let reaches = |address: &ipnet::IpNet| route.via.is_none_or(|via| address.contains(&via));
    let first = candidates.clone().next();
    candidates.find(reaches).or(first).map(|address| address.addr())
}

fn brings_runtime(facts: &Facts) -> bool {
    facts.runtime.as_ref().is_some_and(|runtime| !runtime.ours)
}

/// The blobs a host needs, in sending order.
pub(super) fn blobs(host: &Host, facts: &Facts, manifest: &Manifest) -> Vec<Blob> {
    let own_runtime = brings_runtime(facts);
    manifest
        .for_host(host.role, &facts.architecture)
        .filter(|blob| !(own_runtime && RUNTIME.contains(&blob.name.as_str())))
        .cloned()
        .collect()
}

fn variables(
    inventory: &Inventory,
    documents: &Documents,
    facts: &Facts,
    manifest: &Manifest,
) -> BTreeMap<String, Value> {
    let repository = documents.image_repository();
    let pause = manifest.references().find(|reference| reference.contains("/pause:")).unwrap_or_default();
    let pause = pause.rsplit_once('/').map_or(pause.to_owned(), |(_, image)| format!("{repository}/{image}"));
    [
        ("cgroup_driver", json!(documents.cgroup_driver())),
        ("pause_image", json!(pause)),
        ("restrict_oom_score_adj", json!(inventory.cluster.containerd.restrict_oom_score_adj)),
        ("swap_off", json!(documents.fails_on_swap())),
        ("ipv6", json!(!inventory.cluster.network.pods.addr().is_ipv4())),
        ("containerd_ours", json!(!brings_runtime(facts))),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Whether a blob is a file (and not images).
pub fn is_file(blob: &Blob) -> bool {
    matches!(blob.place, Place::File { .. })
}

#[cfg(test)]
pub(super) mod tests;
