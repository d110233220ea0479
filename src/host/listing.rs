//! What a host is, as a set of lines: taken before the first change, kept beside the journal, and compared when the cluster
//! has gone. Looks where a cluster leaves something, and is done in the time the first files take to arrive.

mod filters;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal::STATE_DIRECTORY;
use super::{Command, EntryKind, Host};
use crate::failure::{Failure, Kind, Result};

/// Where the listing of before is kept.
pub const BEFORE: &str = "/var/lib/clusterctl/before.json";

/// Where it waits on a host that was put back, until the two have been compared.
pub const AWAITED: &str = "/var/lib/clusterctl/compare.json";

/// Directories that are looked through, and how deep.
const ROOTS: &[(&str, usize)] = &[
    ("/", 1),
    ("/etc", 12),
    ("/opt", 4),
    ("/root", 1),
    ("/run", 1),
    ("/usr/libexec/kubernetes", 8),
    ("/usr/local", 8),
    ("/var/lib", 1),
    ("/var/log", 1),
];

/// What changes by itself, by the beginning of its path.
const RESTLESS: &[&str] = &[
    STATE_DIRECTORY,
    "/etc/ld.so.cache",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/root/.bash_history",
    "/root/.ssh",
    "/run/blkid",
    "/run/clusterctl",
    "/run/credentials",
    "/run/lock",
    "/run/log",
    "/run/motd",
    "/run/mount",
    "/run/ssh",
    "/run/sudo",
    "/run/systemd",
    "/run/tmpfiles.d",
    "/run/udev",
    "/run/user",
    "/run/utmp",
    "/run/xtables.lock",
    "/.",
];

/// No more entries are looked at; a host with more in these places is compared by the first of them.
const MOST_ENTRIES: usize = 50_000;

/// Files of /etc up to this size, in bytes, are known by their content, others by their size.
const HASHED_BYTES: u64 = 256 << 10;

/// Parameters of the kernel, by their place below /proc/sys, that kubelet and kube-proxy change by themselves: the kubelet's
/// protection of the kernel, kube-proxy's local node ports and connection tracking.
pub const CHANGED_BY_KUBERNETES: &[&str] = &[
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// And those that Kubernetes has us change.
const CHANGED_BY_US: &[&str] = &[
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
];

/// Modules that we may load. What the kernel loads by itself for a rule or a mount stays until the next boot.
const MODULES: &[&str] = &["br_netfilter", "overlay", "vxlan"];

/// How lines about kernel parameters begin.
const SYSCTL: &str = "sysctl ";

/// Processes of a cluster, by the names the kernel keeps of them (15 characters).
const PROCESSES: &[&str] = &[
    "clusterctl",
    "containerd",
    "containerd-shim",
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "pause",
];

/// Longest time for one of the programs that are asked.
const LIMIT: Duration = Duration::from_secs(10);

/// A host as lines, each with the kind of thing first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listing(pub BTreeSet<String>);

impl Listing {
    /// What is there now and was not, and what was there and is not, in words: `+ file /etc/x ...`. A kernel parameter that was
    /// not there came with a module, and means nothing by itself.
    pub fn difference(&self, after: &Self) -> Vec<String> {
        let key = |line: &str| line.strip_prefix(SYSCTL).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        let known: BTreeSet<String> = self.0.iter().filter_map(|line| key(line)).collect();
        let counts = |line: &&String| key(line).is_none_or(|key| known.contains(&key));
        let new = after.0.difference(&self.0).filter(counts).map(|line| format!("+ {line}"));
        let gone = self.0.difference(&after.0).map(|line| format!("- {line}"));
        new.chain(gone).collect()
    }

    /// The listing that was kept before the first change; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn kept(host: &dyn Host) -> Result<Option<Self>> {
        Self::read(host, BEFORE)
    }

    /// The listing that waits for the comparison; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn awaited(host: &dyn Host) -> Result<Option<Self>> {
        Self::read(host, AWAITED)
    }

    fn read(host: &dyn Host, path: &str) -> Result<Option<Self>> {
        let Some(content) = host.read(Path::new(path))? else { return Ok(None) };
        serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| Failure::new(Kind::Host, format!("{path} is damaged")).because(&error))
    }

    /// Keeps the listing on the host.
    ///
    /// # Errors
    /// When it does not reach the disk.
    pub fn keep(&self, host: &dyn Host) -> Result<()> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Failure::new(Kind::Internal, "a listing cannot be written").because(&error))?;
        host.create_directory(Path::new(STATE_DIRECTORY), 0o700)?;
        host.write(Path::new(BEFORE), &text, 0o600)
    }
}

/// Lists a host. What cannot be looked at is not in the list.
pub async fn take(host: &dyn Host) -> Listing {
    let mut lines = BTreeSet::new();
    files(host, &mut lines);
    users(host, &mut lines);
    mounts(host, &mut lines);
    kernel(host, &mut lines);
    processes(host, &mut lines);
    lines.extend(programs(host).await);
    // Where no containerd runs there are none. Names of an image's content come and go with those that people gave.
    let images = super::containerd::image_blobs(host).await.unwrap_or_default().into_keys();
    lines.extend(images.filter(|name| !name.starts_with("sha256:")).map(|name| format!("image {name}")));
    Listing(lines)
}

fn files(host: &dyn Host, lines: &mut BTreeSet<String>) {
    let mut left = MOST_ENTRIES;
    for (root, depth) in ROOTS {
        walk(host, Path::new(root), *depth, &mut left, lines);
    }
}

fn walk(host: &dyn Host, directory: &Path, depth: usize, left: &mut usize, lines: &mut BTreeSet<String>) {
    for name in host.list(directory).unwrap_or_default() {
        let path = directory.join(name);
        if *left == 0 || is_restless(&path) {
            continue;
        }
        *left -= 1;
        let Ok(Some(entry)) = host.entry(&path) else { continue };
        let owner = format!("{:04o} {}:{}", entry.mode, entry.uid, entry.gid);
        let shown = path.display();
        lines.insert(match &entry.kind {
            EntryKind::Directory => format!("directory {shown} {owner}"),
            EntryKind::Link(target) => format!("link {shown} -> {}", target.display()),
            EntryKind::Other => format!("special file {shown} {owner}"),
            EntryKind::File if entry.size <= HASHED_BYTES && path.starts_with("/etc") => {
                let hash = host.sha256(&path).ok().flatten().unwrap_or_default();
                format!("file {shown} {owner} {}", hash.get(..16).unwrap_or_default())
            }
            EntryKind::File if is_a_log(&path) => format!("file {shown} {owner}"),
            EntryKind::File => format!("file {shown} {owner} {} bytes", entry.size),
        });
        if entry.kind == EntryKind::Directory && depth > 1 {
            walk(host, &path, depth - 1, left, lines);
        }
    }
}

fn is_restless(path: &Path) -> bool {
    let text = path.to_string_lossy();
    RESTLESS.iter().any(|beginning| text.starts_with(beginning))
}

fn is_a_log(path: &Path) -> bool {
    path.starts_with("/var/log") || path.starts_with("/run")
}

fn text(host: &dyn Host, path: &str) -> String {
    host.read(Path::new(path))
        .ok()
        .flatten()
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .unwrap_or_default()
}

fn users(host: &dyn Host, lines: &mut BTreeSet<String>) {
    for (kind, path) in [("user", "/etc/passwd"), ("group", "/etc/group")] {
        let text = text(host, path);
        lines.extend(text.lines().filter_map(|line| line.split(':').next()).map(|name| format!("{kind} {name}")));
    }
}

fn mounts(host: &dyn Host, lines: &mut BTreeSet<String>) {
    let table = text(host, "/proc/self/mountinfo");
    for line in table.lines() {
        let Some((own, file_system)) = line.split_once(" - ") else { continue };
        let Some(place) = own.split(' ').nth(4) else { continue };
        if !is_restless(Path::new(place)) {
            lines.insert(format!("mount {place} {}", file_system.split(' ').next().unwrap_or_default()));
        }
    }
}

fn kernel(host: &dyn Host, lines: &mut BTreeSet<String>) {
    let links = host.list(Path::new("/sys/class/net")).unwrap_or_default();
    lines.extend(links.iter().map(|link| format!("network link {link}")));
    for place in CHANGED_BY_KUBERNETES.iter().chain(CHANGED_BY_US) {
        if let Ok(Some(value)) = host.read(&Path::new("/proc/sys").join(place)) {
            lines.insert(format!("{SYSCTL}{} {}", place.replace('/', "."), String::from_utf8_lossy(&value).trim()));
        }
    }
    let modules = text(host, "/proc/modules");
    let loaded = modules.lines().filter_map(|line| line.split(' ').next()).filter(|name| MODULES.contains(name));
    lines.extend(loaded.map(|name| format!("module {name}")));
}

fn processes(host: &dyn Host, lines: &mut BTreeSet<String>) {
    let numbers = host.list(Path::new("/proc")).unwrap_or_default();
    for number in numbers.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        let name = text(host, &format!("/proc/{number}/comm"));
        let name = name.trim();
        // Our own agent is among them: it is there only as long as somebody looks.
        if PROCESSES.contains(&name) && !is_agent(host, number) {
            lines.insert(format!("process {name}"));
        }
    }
}

fn is_agent(host: &dyn Host, number: &str) -> bool {
    text(host, &format!("/proc/{number}/cmdline")).split('\0').any(|word| word == "agent")
}

/// What a program says; one that is not there has nothing to tell.
async fn said(host: &dyn Host, program: &str, arguments: &[&str]) -> String {
    let output = host.run(Command::new(program, arguments).limit(LIMIT)).await;
    output.ok().filter(super::Output::success).map(|output| output.text()).unwrap_or_default()
}

/// What programs tell: routes, rules, packet filters, units.
async fn programs(host: &dyn Host) -> Vec<String> {
    let ask = async |program: &str, arguments: &[&str]| said(host, program, arguments).await;
    let units = ["list-units", "--all", "--plain", "--no-legend", "--no-pager"];
    let kinds = ["--type=service,socket,mount,swap,timer,path"];
    let units: Vec<&str> = units.into_iter().chain(kinds).collect();
    let (routes, routes6, rules, filters, units) = futures::join!(
        ask("ip", &["-4", "route", "show"]),
        ask("ip", &["-6", "route", "show"]),
        ask("ip", &["rule", "show"]),
        filters::lines(host),
        ask("systemctl", &units),
    );
    let routes = routes.lines().chain(routes6.lines()).filter_map(route).map(|line| format!("route {line}"));
    let rules = rules.lines().map(|line| format!("rule {}", words(line)));
    let units = units.lines().filter_map(unit);
    routes.chain(rules).chain(filters).chain(units).collect()
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A route without the time it has left; link-local ones come and go with links.
fn route(line: &str) -> Option<String> {
    let mut shown: Vec<&str> = line.split_whitespace().collect();
    if let Some(at) = shown.iter().position(|word| *word == "expires") {
        shown.drain(at..shown.len().min(at + 2));
    }
    (!shown.is_empty() && !line.starts_with("fe80")).then(|| shown.join(" "))
}

/// A unit that runs or failed; sessions and one-off helpers come and go.
fn unit(line: &str) -> Option<String> {
    const RESTLESS: &[&str] =
        &["user@", "user-runtime-dir@", "run-user-", "run-credentials", "session-", "ssh@", "sshd@"];
    let mut fields = line.split_whitespace().skip_while(|field| *field == "●");
    let (name, _, active) = (fields.next()?, fields.next()?, fields.next()?);
    let counts = matches!(active, "active" | "failed") && !RESTLESS.iter().any(|start| name.starts_with(start));
    let one_off = ["systemd-tmpfiles-clean.service", "systemd-userdbd.service", "systemd-hostnamed.service"];
    (counts && !one_off.contains(&name)).then(|| format!("unit {name} {active}"))
}

/// What is left on a host of what was not there before: lists it until nothing is, or until `limit`. Processes that are
/// told to end take a moment.
pub async fn residue(host: &dyn Host, before: &Listing, limit: Duration) -> Vec<String> {
    let began = std::time::Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(300));
    loop {
        looks.tick().await;
        let left = before.difference(&take(host).await);
        if left.is_empty() || began.elapsed() > limit {
            return left;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rstest::rstest;

    use super::{BEFORE, Listing, residue, route, take, unit};
    use crate::host::Host as _;
    use crate::host::fake::FakeHost;

    fn host() -> FakeHost {
        FakeHost::new()
            .file("/etc/hosts", "127.0.0.1 localhost\n")
            .file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
            .file("/var/lib/clusterctl/journal", "{}\n")
            .file(
                "/proc/self/mountinfo",
                "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /run/user/0 rw - tmpfs tmpfs rw\n",
            )
            .file("/proc/sys/kernel/keys/root_maxkeys", "1000000\n")
            .file("/proc/7/comm", "kubelet\n")
            .file("/proc/8/comm", "clusterctl\n")
            .file("/proc/8/cmdline", "/var/lib/clusterctl/bin/clusterctl-0\0agent\0")
            .answer(&["ip", "-4"], 0, "default via 10.0.0.1 dev eth0\n")
            .answer(&["ip", "-6"], 0, "")
            .answer(&["ip", "rule"], 0, "0:\tfrom all lookup local\n")
            .answer(
                &["iptables-save"],
                0,
                "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n",
            )
            .answer(&["ip6tables-save"], 1, "")
            .answer(&["nft", "list"], 0, "table ip nat\ntable inet mine\n")
            .answer(&["systemctl"], 0, "kubelet.service loaded active running The kubelet\n")
            .answer(
                &["ctr"],
                0,
                "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
                 a.example/b:1 application/vnd.oci.image.manifest.v1+json sha256:0 1.0 MiB linux/amd64 -\n\
                 sha256:0 application/vnd.oci.image.manifest.v1+json sha256:0 1.0 MiB linux/amd64 -\n",
            )
    }

    #[tokio::test]
    async fn a_host_is_lines_of_what_a_cluster_may_leave() {
        let listing = take(&host()).await;
        let lines: Vec<&str> = listing.0.iter().map(String::as_str).collect();
        for expected in [
            "user root",
            "mount / ext4",
            "process kubelet",
            "sysctl kernel.keys.root_maxkeys 1000000",
            "route default via 10.0.0.1 dev eth0",
            "rule 0: from all lookup local",
            "iptables nat chain KUBE-SERVICES",
            "iptables nat -A OUTPUT -j KUBE-SERVICES",
            "nft table inet mine",
            "unit kubelet.service active",
            "image a.example/b:1",
        ] {
            assert!(lines.contains(&expected), "no {expected} in {lines:#?}");
        }
        assert!(
            !lines
                .iter()
                .any(|line| ["clusterctl", "/run/user", "image sha256"].iter().any(|word| line.contains(word))),
            "{lines:#?}"
        );
        let files = lines.iter().filter_map(|line| line.strip_prefix("file ")?.split(' ').next());
        assert_eq!(files.collect::<Vec<_>>(), ["/etc/hosts", "/etc/passwd"]);
    }

    #[tokio::test]
    async fn what_is_left_is_told_and_what_is_as_it_was_is_not() {
        let host = host();
        let before = take(&host).await;
        assert_eq!(residue(&host, &before, Duration::ZERO).await, Vec::<String>::new());
        host.put(Path::new("/etc/hosts"), b"other\n", 0o644);
        host.put(Path::new("/etc/new"), b"", 0o600);
        let left = residue(&host, &before, Duration::ZERO).await;
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left[0].starts_with("+ file /etc/hosts") && left[1].starts_with("+ file /etc/new 0600"), "{left:?}");
        assert!(left[2].starts_with("- file /etc/hosts"), "{left:?}");
    }

    #[tokio::test]
    async fn a_parameter_that_came_with_a_module_is_no_difference_and_one_that_has_another_value_is() {
        let host = host();
        let before = take(&host).await;
        host.put(Path::new("/proc/sys/net/netfilter/nf_conntrack_max"), b"262144\n", 0o644);
        assert_eq!(residue(&host, &before, Duration::ZERO).await, Vec::<String>::new());
        host.put(Path::new("/proc/sys/kernel/keys/root_maxkeys"), b"200\n", 0o644);
        let left = residue(&host, &before, Duration::ZERO).await;
        assert_eq!(left, ["+ sysctl kernel.keys.root_maxkeys 200", "- sysctl kernel.keys.root_maxkeys 1000000"]);
    }

    #[tokio::test]
    async fn it_is_kept_beside_the_journal() {
        let host = host();
        assert_eq!(Listing::kept(&host), Ok(None));
        let listing = take(&host).await;
        listing.keep(&host).unwrap();
        assert_eq!(Listing::kept(&host), Ok(Some(listing)));
        host.write(Path::new(BEFORE), b"[", 0o600).unwrap();
        assert!(Listing::kept(&host).unwrap_err().sentence.contains("before.json"));
    }

    #[rstest]
    #[case(
        "default via fd00::1 dev eth0 expires 1790sec pref medium",
        Some("default via fd00::1 dev eth0 pref medium")
    )]
    #[case("fe80::/64 dev eth0 proto kernel", None)]
    #[case("", None)]
    fn routes_have_no_time_in_them(#[case] line: &str, #[case] expected: Option<&str>) {
        assert_eq!(route(line).as_deref(), expected);
    }

    #[rstest]
    #[case("ssh.service loaded active running OpenBSD", Some("unit ssh.service active"))]
    #[case("● a.service not-found failed failed a", Some("unit a.service failed"))]
    #[case("b.service loaded inactive dead b", None)]
    #[case("user@0.service loaded active running u", None)]
    fn units_that_run_or_failed_count(#[case] line: &str, #[case] expected: Option<&str>) {
        assert_eq!(unit(line).as_deref(), expected);
    }
}
