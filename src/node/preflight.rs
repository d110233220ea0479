//! kubeadm's preflight checks, under kubeadm's names (kubeadm.md section 1).
//!
//! [`preflight`] judges what was observed before a host is touched, so it leaves out what host preparation brings: the
//! runtime, the kubelet, forwarding. [`prepared`] checks those on the host itself, right before `init` and `join`;
//! [`surroundings`] what the configuration says of the world around: proxies, names, somebody else's etcd.

mod by_hand;
mod external_etcd;
mod listen;
mod proxies;
mod surroundings;
mod system_verification;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use semver::Version;

use crate::event::Events;
use crate::fact::{Facts, Listening};
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host};
use crate::kubernetes::configuration::ExternalEtcd;
use crate::kubernetes::version::Release;

/// What a host is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The first control plane.
    Init,
    /// Another control plane.
    JoinControlPlane,
    /// A worker.
    JoinWorker,
}

/// What checks depend on besides the host.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// What the host is to become.
    pub purpose: Purpose,
    /// The cluster's name; what its own earlier run left on a host is no finding.
    pub cluster: &'a str,
    /// The version that will run.
    pub kubernetes: &'a Version,
    /// The API server's port.
    pub bind_port: u16,
    /// What the components are told to listen on.
    pub listen: ListenAddresses,
    /// Where the control plane's own etcd keeps its data; `None` for one that is elsewhere.
    pub etcd_data: Option<&'a str>,
    /// Names of checks whose errors are only warnings; `all`.
    pub ignore: &'a [String],
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Stops everything before anything is touched.
    Error,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// kubeadm's name of the check.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence without a full stop.
    pub message: String,
}

/// Least RAM of a control plane (kubeadm.md section 1.2).
const LEAST_MEMORY_BYTES: u64 = 1700 << 20;

/// Least number of CPUs of a control plane.
const LEAST_CPUS: u32 = 2;

/// Programs that must be there (kubeadm.md section 1.5).
const PROGRAMS: &[&str] = &["mount", "losetup", "cp"];

/// By how many minors a kubelet may be older than the control plane.
const KUBELET_SKEW: u64 = 3;

const KUBELET_VERSION: &str = "KubeletVersion";

const MANIFESTS: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];

/// Judges a host by its facts, before anything is done to it. Pure.
pub fn preflight(facts: &Facts, plan: &Plan<'_>) -> Vec<Finding> {
    let mut found = Found::default();
    let control_plane = plan.purpose != Purpose::JoinWorker;
    system(facts, plan, &mut found);
    if control_plane {
        if facts.cpus < LEAST_CPUS {
            let message = format!("the host has {} CPU, a control plane needs {LEAST_CPUS}", facts.cpus);
            found.error("NumCPU", message);
        }
        if facts.memory_bytes < LEAST_MEMORY_BYTES {
            let megabytes = facts.memory_bytes >> 20;
            found.error("Mem", format!("the host has {megabytes} MB of memory, a control plane needs 1700 MB"));
        }
    }
    let ports = ports(plan, control_plane);
    if facts.services.get("firewalld").is_some_and(|service| service.active) {
        let ports: Vec<String> = ports.iter().map(|(port, _)| port.to_string()).collect();
        found.warning("Firewalld", format!("firewalld is active; ports {} must be open", ports.join(", ")));
    }
    if facts.kubernetes.journal_cluster.as_deref() != Some(plan.cluster) {
        let follows = Release::nearest(plan.kubernetes).port_checks_follow_address;
        for (port, address) in ports {
            port_free(facts, port, address.filter(|_| follows), &mut found);
        }
        untouched(facts, plan, control_plane, &mut found);
    }
    found.downgrade(plan.ignore)
}

/// The ports that will be used, with the address each will be listened on if it is only one.
fn ports(plan: &Plan<'_>, control_plane: bool) -> Vec<(u16, Option<IpAddr>)> {
    let mut ports = vec![(10250, None)];
    if control_plane {
        let listen = &plan.listen;
        ports.extend([
            (plan.bind_port, listen.api_server),
            (10259, listen.scheduler),
            (10257, listen.controller_manager),
        ]);
        if plan.etcd_data.is_some() {
            ports.extend([(2379, listen.etcd), (2380, listen.etcd)]);
        }
    }
    ports
}

/// Checks of the operating system, for every role.
fn system(facts: &Facts, plan: &Plan<'_>, found: &mut Found) {
    system_verification::check(facts, plan.kubernetes, found);
    for program in PROGRAMS.iter().filter(|program| !facts.programs.iter().any(|there| there == *program)) {
        found.error(format!("FileExisting-{program}"), format!("the program {program} is not on the host's PATH"));
    }
    if let Some(runtime) = facts.runtime.as_ref().filter(|runtime| !runtime.cri) {
        found.error(
            "CRI",
            format!(
                "{} on the host has its CRI plugin turned off; take \"cri\" out of disabled_plugins in \
                 /etc/containerd/config.toml and restart it, or remove that containerd",
                runtime.name
            ),
        );
    }
    // The call RuntimeConfig, which kubelets from 1.35 on ask for their control group driver, came with containerd 2.
    if let Some(runtime) = facts.runtime.as_ref().filter(|runtime| runtime.name == "containerd")
        && Release::nearest(plan.kubernetes).runtime_config_check
        && ["0.", "1."].iter().any(|old| runtime.version.starts_with(old))
    {
        let message = format!(
            "containerd {} does not tell kubelets its control group driver, which they will need one day; take \
             containerd 2 or newer",
            runtime.version
        );
        found.warning("ContainerRuntimeVersion", message);
    }
    if !facts.swap.is_empty() {
        let message = format!("swap is on ({}); kubelets refuse to start unless told otherwise", facts.swap.join(", "));
        found.warning("Swap", message);
    }
    if !is_name(&facts.hostname) {
        found.warning("Hostname", format!("the host's name {:?} is not a name a node can have", facts.hostname));
    }
}

/// RFC 1123.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn port_free(facts: &Facts, port: u16, address: Option<IpAddr>, found: &mut Found) {
    let in_the_way = |there: &&Listening| there.port == port && listen::meets(there.address, address);
    if let Some(listening) = facts.listening.iter().find(in_the_way) {
        let who = listening.process.as_deref().unwrap_or("another program");
        found.error(format!("Port-{port}"), format!("{who} listens on {} port {port}", listening.address));
    }
}

/// Checks that no other cluster has left something on the host.
fn untouched(facts: &Facts, plan: &Plan<'_>, control_plane: bool, found: &mut Found) {
    let there = &facts.kubernetes;
    let mut file = |path: &str| {
        let owner = match (&there.journal_cluster, &there.server) {
            (Some(cluster), _) => format!(": the host belongs to the cluster {cluster:?}"),
            (None, Some(server)) => format!(": the host is a node of the cluster at {server}"),
            (None, None) => String::new(),
        };
        found.error(format!("FileAvailable-{}", path.replace('/', "-")), format!("{path} is there already{owner}"));
    };
    if control_plane {
        for name in MANIFESTS.iter().map(|name| format!("{name}.yaml")) {
            if there.manifests.contains(&name) {
                file(&format!("/etc/kubernetes/manifests/{name}"));
            }
        }
    }
    // With an external CA a person puts kubelet.conf there before `init` (kubeadm.md section 2.5).
    if plan.purpose != Purpose::Init {
        if there.kubelet_conf {
            file("/etc/kubernetes/kubelet.conf");
        }
        if there.bootstrap_kubelet_conf {
            file("/etc/kubernetes/bootstrap-kubelet.conf");
        }
    }
    if plan.purpose == Purpose::JoinWorker && there.ca_hash.is_some() {
        file("/etc/kubernetes/pki/ca.crt");
    }
    if control_plane && plan.etcd_data == Some(ETCD_DATA) && there.etcd_data {
        found.error("DirAvailable--var-lib-etcd", "/var/lib/etcd is not empty");
    }
}

/// Where etcd keeps its data unless told otherwise; what is in there is among the facts.
pub(super) const ETCD_DATA: &str = "/var/lib/etcd";

/// kubeadm's check DirAvailable of a folder for etcd's data that a person chose, on the host itself. With etcd's static
/// pod the data is that of the member here.
///
/// # Errors
/// Kind `Host` when the host cannot be read.
pub(super) fn chosen_etcd_data(host: &dyn Host, folder: Option<&str>, ignore: &[String]) -> Result<Vec<Finding>> {
    let mut found = Found::default();
    if let Some(folder) = folder.filter(|folder| *folder != ETCD_DATA)
        && host.entry(Path::new("/etc/kubernetes/manifests/etcd.yaml"))?.is_none()
        && !host.list(Path::new(folder))?.is_empty()
    {
        found.error(format!("DirAvailable-{}", folder.replace('/', "-")), format!("{folder} is not empty"));
    }
    Ok(found.downgrade(ignore))
}

/// kubeadm's check ExternalEtcdClientCertificates of a control plane that joins: files that nobody downloads for it
/// (kubeadm.md section 1.4).
///
/// # Errors
/// Kind `Host` when the host cannot be read.
pub(super) fn external_etcd_files(host: &dyn Host, etcd: &ExternalEtcd, ignore: &[String]) -> Result<Vec<Finding>> {
    let mut found = Found::default();
    external_etcd::files_are_there(host, etcd, &mut found)?;
    Ok(found.downgrade(ignore))
}

pub(super) use by_hand::by_hand;
pub use listen::ListenAddresses;
pub(super) use surroundings::{Surroundings, surroundings};
pub(crate) use system_verification::options as kernel_options;

/// Checks, on the host itself, of what host preparation brings: forwarding, the runtime, the kubelet.
pub(super) async fn prepared(
    host: &dyn Host,
    kubernetes: Option<&Version>,
    socket: &str,
    addresses: &[IpAddr],
    ignore: &[String],
) -> Result<Vec<Finding>> {
    let mut found = Found::default();
    for (name, path, wanted) in [
        (
            "FileContent--proc-sys-net-ipv4-ip_forward",
            "/proc/sys/net/ipv4/ip_forward",
            addresses.iter().any(IpAddr::is_ipv4),
        ),
        (
            "FileContent--proc-sys-net-ipv6-conf-default-forwarding",
            "/proc/sys/net/ipv6/conf/default/forwarding",
            addresses.iter().any(IpAddr::is_ipv6),
        ),
    ] {
        let content = if wanted { host.read(Path::new(path))? } else { None };
        if wanted && content.is_none_or(|content| content.first() != Some(&b'1')) {
            found.error(name, format!("{path} does not say 1: the host does not forward packets"));
        }
    }
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    if host.entry(Path::new(path))?.is_none() {
        found.error("CRI", format!("there is no container runtime at {path}"));
    }
    kubelet_version(host, kubernetes, &mut found).await;
    Ok(found.downgrade(ignore))
}

/// How long a runtime may take to say what it can do.
const RUNTIME_LIMIT: Duration = Duration::from_secs(20);

/// kubeadm's check CRI beyond the socket, which stays where it was when the runtime behind it has died: whether
/// containerd answers and serves kubelets. For hosts that somebody else prepared; what `up` prepares has just been used.
async fn runtime_serves(host: &dyn Host, socket: &str, ignore: &[String]) -> Vec<Finding> {
    let mut found = Found::default();
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    // Another runtime has no client that could be asked; nor is a socket asked that is not there.
    let there = path.ends_with("/containerd.sock") && host.entry(Path::new(path)).is_ok_and(|entry| entry.is_some());
    if there && let Some(message) = containerd(host, path).await {
        found.error("CRI", message);
    }
    found.downgrade(ignore)
}

/// What keeps containerd from serving kubelets, as far as its own client tells.
async fn containerd(host: &dyn Host, path: &str) -> Option<String> {
    let words = ["--address", path, "--connect-timeout", "10s", "plugins", "ls"];
    // Without its client nothing more can be told; the kubelet will.
    let listed = host.run(Command::new("ctr", &words).limit(RUNTIME_LIMIT)).await.ok()?;
    if !listed.success() {
        return Some(format!("the container runtime at {path} does not answer: {}", listed.complaint("ctr")));
    }
    broken_cri(&listed.text()).map(|status| {
        format!("containerd at {path} does not serve CRI: its plugin has the status {status:?}; see its log")
    })
}

/// The status of containerd's CRI plugin among `ctr plugins ls`, when it is not ok. Columns are TYPE, ID, PLATFORMS and
/// STATUS.
fn broken_cri(listed: &str) -> Option<&str> {
    listed.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["io.containerd.grpc.v1", "cri", .., status] if *status != "ok" => Some(*status),
            _ => None,
        }
    })
}

async fn kubelet_version(host: &dyn Host, kubernetes: Option<&Version>, found: &mut Found) {
    let printed = match host.run(Command::new("kubelet", &["--version"])).await {
        Ok(output) if output.success() => output.text(),
        Ok(output) => return found.error(KUBELET_VERSION, format!("`kubelet --version` ends with {}", output.status)),
        Err(failure) => return found.error(KUBELET_VERSION, failure.to_string()),
    };
    let version = printed.trim().rsplit(' ').next().and_then(|word| Version::parse(word.strip_prefix('v')?).ok());
    let Some(kubelet) = version else {
        return found.error(KUBELET_VERSION, format!("`kubelet --version` says {:?}", printed.trim()));
    };
    let Some(kubernetes) = kubernetes else { return };
    if (kubelet.major, kubelet.minor) > (kubernetes.major, kubernetes.minor)
        || kubelet.minor + KUBELET_SKEW < kubernetes.minor
    {
        let (major, last) = (kubernetes.major, kubernetes.minor);
        let message = format!(
            "the kubelet is of version {kubelet}, and Kubernetes {kubernetes} takes kubelets from {major}.{} to {major}.{last}",
            last.saturating_sub(KUBELET_SKEW)
        );
        found.error(KUBELET_VERSION, message);
    }
}

/// Turns findings into events for warnings and one failure for errors.
///
/// # Errors
/// Kind `Preflight` when there is an error among them.
pub(super) fn judge(findings: &[Finding], events: &Events) -> Result<()> {
    let line = |finding: &Finding| format!("{}: {}", finding.name, finding.message);
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        events.warn(line(finding));
    }
    let errors: Vec<String> = findings.iter().filter(|finding| finding.severity == Severity::Error).map(line).collect();
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::new(Kind::Preflight, one.clone())),
        more => {
            Err(Failure::new(Kind::Preflight, format!("{} preflight checks failed", more.len()))
                .detailed(more.join("\n")))
        }
    }
    .map_err(|failure: Failure| {
        let of_kubelet = errors.iter().all(|error| error.starts_with(KUBELET_VERSION));
        failure.advise(match of_kubelet {
            true => "install a kubelet of the cluster's minor on this host, then run the same command again",
            false => "correct it, or name the check in nodeRegistration.ignorePreflightErrors of the kubeadm documents",
        })
    })
}

/// Findings while they are collected.
#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    fn error(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { name: name.into(), severity: Severity::Error, message: message.into() });
    }

    fn warning(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { name: name.into(), severity: Severity::Warning, message: message.into() });
    }

    /// Errors that a person chose to ignore become warnings.
    fn downgrade(mut self, ignore: &[String]) -> Vec<Finding> {
        for finding in &mut self.0 {
            let ignored = |name: &String| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(&finding.name);
            if ignore.iter().any(ignored) {
                finding.severity = Severity::Warning;
            }
        }
        self.0
    }
}

#[cfg(test)]
mod tests;
