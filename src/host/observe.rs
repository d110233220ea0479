//! Facts of this host, gathered in one go: files of /proc and /sys, and four programs side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::seen::{Seen, Stamp};
use super::{Command, EntryKind, Host, Output, containerd, journal, process, sha256_hex, systemd};
use crate::fact::{Disk, Facts, Listening, OperatingSystem, Route, Runtime, Service};
use crate::failure::Result;

mod kernel;
pub(crate) use kernel::{Kernel, swap};
mod kubernetes;
mod network;

/// Units that matter to Kubernetes or may stand in its way.
const UNITS: &[&str] = &[
    "kubelet.service",
    "containerd.service",
    "crio.service",
    "docker.service",
    "firewalld.service",
    "ufw.service",
    "nftables.service",
    "systemd-resolved.service",
    "chronyd.service",
    "systemd-timesyncd.service",
    "apparmor.service",
];

/// Paths that Kubernetes fills.
const FILLED_PATHS: &[&str] = &["/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd", "/var/lib/clusterctl"];

/// Kernel parameters Kubernetes cares about (kubeadm.md section 15.2, and the kubelet's protectKernelDefaults).
const SYSCTLS: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.conf.all.rp_filter",
    "net.netfilter.nf_conntrack_max",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
];

/// Programs that kubeadm's preflight looks for (kubeadm.md section 1.5), and those our own tasks start.
const PROGRAMS: &[&str] = &[
    "conntrack",
    "containerd",
    "cp",
    "crictl",
    "crio",
    "ctr",
    "ebtables",
    "ethtool",
    "ip",
    "iptables",
    "iptables-save",
    "ip6tables",
    "kubeadm",
    "kubectl",
    "kubelet",
    "losetup",
    "modprobe",
    "mount",
    "nft",
    "nsenter",
    "runc",
    "socat",
    "swapoff",
    "sysctl",
    "systemctl",
    "tar",
    "tc",
    "touch",
    "umount",
];

/// Longest time for one of the programs asked; a slow disk makes a first start of the kubelet take seconds.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20);

/// Gathers everything that is known of this host before anything is planned. Alters nothing.
///
/// What cannot be found out (a program is missing, a file cannot be parsed) is left at its default, because planning and
/// preflight judge what is there; the reasons are theirs to give.
///
/// # Errors
/// When a file that is there cannot be read.
pub async fn facts(host: &dyn Host) -> Result<Facts> {
    let systemd = host.entry(Path::new("/run/systemd/system"))?.is_some();
    let programs = programs(host)?;
    let has = |name: &str| programs.iter().any(|program| program == name);
    let mut seen = Seen::on(host);
    let kubelet = async { if has("kubelet") { version(host, &seen, "kubelet").await } else { Ok(None) } };
    let services = async { if systemd { services(host).await } else { BTreeMap::new() } };
    let addresses = asked(host, ADDRESSES);
    let runtime = runtime(host, &programs, &seen);
    let (kubelet, services, addresses, runtime) = futures::join!(kubelet, services, addresses, runtime);
    let (kubelet, (runtime, runtime_said)) = (kubelet?, runtime?);

    let text = |path: &str| text(host, path);
    let release = text("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut kubernetes = kubernetes::state(host)?;
    kubernetes.kubelet_version = kubelet.as_ref().and_then(|said| kubernetes::kubelet_version(&said.text));
    // Looking leaves nothing behind on a host that is not ours.
    if kubernetes.journal_cluster.is_some() {
        [kubelet, runtime_said].iter().flatten().for_each(|said| said.learnt_by(&mut seen));
        seen.keep(host);
    }
    Ok(Facts {
        system: operating_system(&match text("/etc/os-release")? {
            empty if empty.is_empty() => text("/usr/lib/os-release")?,
            there => there,
        }),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
        cgroup_version: kernel::cgroup_version(
            host.entry(Path::new("/sys/fs/cgroup/cgroup.controllers"))?.is_some(),
            &text("/proc/self/mounts")?,
        ),
        kernel_options: kernel::options(host, &release)?,
        cgroup_controllers: kernel::cgroup_controllers(
            &text("/sys/fs/cgroup/cgroup.controllers")?,
            &text("/proc/cgroups")?,
        ),
        systemd,
        memory_bytes: kernel::memory_bytes(&text("/proc/meminfo")?),
        cpus: kernel::allowed_cpus(&text("/proc/self/status")?),
        disks: disks(host)?,
        addresses: addresses.as_deref().map(network::addresses).unwrap_or_default(),
        loopback_addresses: addresses.as_deref().map(network::loopback_addresses).unwrap_or_default(),
        routes: routes(host)?,
        hostname: hostname(host)?,
        machine_id: text("/etc/machine-id")?.trim().to_owned(),
        swap: kernel::swap(&text("/proc/swaps")?),
        modules: kernel::modules(host)?,
        kernel: release,
        sysctls: sysctls(host)?,
        services,
        listening: listening(host)?,
        kubernetes,
        runtime,
        clock_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        programs,
    })
}

/// What of a host's name card is not given otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown {
    /// The address the host is reached at.
    pub address: bool,
    /// The version of its kubelet.
    pub kubelet: bool,
}

/// What kubeadm's defaults take from a host, and nothing else: its name; its addresses and routes, and the version of its
/// kubelet, where they are `unknown`. For work that checks nothing, such as making certificates: to look at everything
/// takes as long as making them.
///
/// # Errors
/// When a file that is there cannot be read.
pub async fn name_card(host: &dyn Host, unknown: Unknown) -> Result<Facts> {
    let addresses = async { if unknown.address { asked(host, ADDRESSES).await } else { None } };
    let kubelet = async { if unknown.kubelet { asked(host, KUBELET_VERSION).await } else { None } };
    let (addresses, kubelet) = futures::join!(addresses, kubelet);
    let mut facts = Facts { hostname: hostname(host)?, ..Facts::default() };
    if unknown.address {
        facts.addresses = addresses.as_deref().map(network::addresses).unwrap_or_default();
        facts.loopback_addresses = addresses.as_deref().map(network::loopback_addresses).unwrap_or_default();
        facts.routes = routes(host)?;
    }
    facts.kubernetes.kubelet_version = kubelet.as_deref().and_then(kubernetes::kubelet_version);
    Ok(facts)
}

/// The command that tells the kubelet's version.
const KUBELET_VERSION: &[&str] = &["kubelet", "--version"];

/// The command that tells the addresses of links that are up.
const ADDRESSES: &[&str] = &["ip", "-json", "address", "show", "up"];

/// What a program said of its version, now or before.
struct Said {
    program: PathBuf,
    /// What the program was before it was asked; `None` where it was not asked now.
    asked: Option<Stamp>,
    text: String,
}

impl Said {
    fn learnt_by(&self, seen: &mut Seen) {
        seen.learn_version(&self.program, self.asked, &self.text);
    }
}

/// What a program says of its version: to start one of these takes more of the processor than all else that is looked at.
/// Whatever goes wrong with it is one fact less, not a failure.
async fn version(host: &dyn Host, seen: &Seen, name: &str) -> Result<Option<Said>> {
    let Some(program) = find(host, name)? else { return Ok(None) };
    let program = PathBuf::from(program);
    if let Some(text) = seen.version(host, &program) {
        return Ok(Some(Said { program, asked: None, text }));
    }
    let before = host.stamp(&program)?;
    let text = asked(host, &[&program.to_string_lossy(), "--version"]).await;
    Ok(text.map(|text| Said { program, asked: before, text }))
}

/// What a program prints. Whatever goes wrong with it is one fact less, not a failure.
async fn asked(host: &dyn Host, words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let answer = host.run(Command::new(*program, arguments).limit(PROGRAM_LIMIT)).await;
    answer.ok().filter(Output::success).map(|output| output.text())
}

fn hostname(host: &dyn Host) -> Result<String> {
    Ok(text(host, "/proc/sys/kernel/hostname")?.trim().to_lowercase())
}

fn text(host: &dyn Host, path: &str) -> Result<String> {
    Ok(host.read(Path::new(path))?.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default())
}

/// Go's name of an architecture, from Rust's.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/etc/os-release`: assignments as a shell has them.
fn operating_system(text: &str) -> OperatingSystem {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    OperatingSystem { id: field("ID"), version: field("VERSION_ID"), pretty_name: field("PRETTY_NAME") }
}

async fn services(host: &dyn Host) -> BTreeMap<String, Service> {
    // Without an answer there are no facts about units; starting one will tell why.
    let states = systemd::show(host, UNITS).await.unwrap_or_default();
    let known = UNITS.iter().zip(states).filter(|(_, unit)| unit.loaded);
    known
        .map(|(name, unit)| {
            let name = name.trim_end_matches(".service").to_owned();
            (name, Service { active: unit.active, enabled: unit.enabled })
        })
        .collect()
}

fn disks(host: &dyn Host) -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for path in FILLED_PATHS {
        for ancestor in Path::new(path).ancestors() {
            if let Some(space) = host.space(ancestor)? {
                let path = ancestor.display().to_string();
                disks.push(Disk { path, total_bytes: space.total_bytes, free_bytes: space.free_bytes });
                break;
            }
        }
    }
    disks.dedup_by(|one, other| one.path == other.path);
    Ok(disks)
}

fn routes(host: &dyn Host) -> Result<Vec<Route>> {
    let mut routes = network::routes(&text(host, "/proc/net/route")?);
    routes.extend(network::routes6(&text(host, "/proc/net/ipv6_route")?));
    Ok(routes)
}

fn listening(host: &dyn Host) -> Result<Vec<Listening>> {
    let mut sockets = network::sockets(&text(host, "/proc/net/tcp")?);
    sockets.extend(network::sockets(&text(host, "/proc/net/tcp6")?));
    network::with_processes(host, sockets)
}

fn sysctls(host: &dyn Host) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for key in SYSCTLS {
        if let Some(value) = host.read(&super::sysctl_path(key))? {
            values.insert((*key).to_owned(), String::from_utf8_lossy(&value).trim_end().to_owned());
        }
    }
    Ok(values)
}

/// Which of the programs that matter are on the path we give to what we start.
fn programs(host: &dyn Host) -> Result<Vec<String>> {
    let mut programs = Vec::new();
    for name in PROGRAMS {
        if find(host, name)?.is_some() {
            programs.push((*name).to_owned());
        }
    }
    Ok(programs)
}

fn find(host: &dyn Host, name: &str) -> Result<Option<String>> {
    for directory in process::PATH.split(':') {
        let path = Path::new(directory).join(name);
        let entry = host.entry(&path)?;
        if entry.is_some_and(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Link(_))) {
            return Ok(Some(path.display().to_string()));
        }
    }
    Ok(None)
}

/// The container runtime that is there, and what it said of its version. containerd is taken before CRI-O where both are, as it is the one we know best.
async fn runtime(host: &dyn Host, programs: &[String], seen: &Seen) -> Result<(Option<Runtime>, Option<Said>)> {
    let Some(name) = ["containerd", "crio"].into_iter().find(|name| programs.iter().any(|program| program == name))
    else {
        return Ok((None, None));
    };
    let Some(path) = find(host, name)? else { return Ok((None, None)) };
    let said = version(host, seen, name).await?;
    let version = said.as_ref().map(|said| runtime_version(&said.text)).unwrap_or_default();
    let ours = journal::is_ours(host, Path::new(&path))?;
    let cri = name != "containerd" || containerd::has_cri(host)?;
    Ok((Some(Runtime { name: name.to_owned(), path, version, ours, cri }), said))
}

/// The first word of a program's answer that is a version: `containerd github.com/containerd/containerd/v2 v2.3.7 abc`,
/// `crio version 1.36.0`.
fn runtime_version(text: &str) -> String {
    let version = |word: &str| {
        let word = word.strip_prefix('v').unwrap_or(word);
        (word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')).then(|| word.to_owned())
    };
    text.split_whitespace().find_map(version).unwrap_or_default()
}

/// `sha256:<hex>` of a certificate's SubjectPublicKeyInfo, as kubeadm prints it (kubeadm.md section 9.1).
fn public_key_hash(pem: &[u8]) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(format!("sha256:{}", sha256_hex(certificate.tbs_certificate.subject_pki.raw)))
}

#[cfg(test)]
mod tests;
