//! Upstream's preflight checks and ours on one spoiled host, with one configuration: whoever ignores a check of kubeadm's by
//! its name ignores it here. A name that only one side has is a failure, or a row of [`INTENDED`] with its reason; a row that
//! is not needed fails, too.

use std::collections::BTreeSet;

use crate::bed::Bed;
use crate::both_ways::Side;
use crate::program::clusterctl;

/// What upstream finds and we do not: on which host, what, and why.
const INTENDED: &[(&str, &str, &str)] = &[
    ("unprepared", "ERROR ContainerRuntimeVersion", "of a runtime that does not answer CRI says it, once"),
    (
        "etcd of others",
        "ERROR ExternalEtcdVersion",
        "of an etcd that cannot be asked without its files ExternalEtcdClientCertificates says it, once",
    ),
    (
        "spoiled worker",
        "ERROR FileAvailable--etc-kubernetes-pki-ca.crt",
        "it may be of this very join, begun before: it is judged beside the cluster's own",
    ),
    (
        "spoiled worker",
        "ERROR FileContent--proc-sys-net-ipv4-ip_forward",
        "what a node has to be prepared with is judged when the cluster is found, with all that depends on it",
    ),
];

const VERSION: &str = "1.36.3";

/// Documents of `init`; `FIRST` and `MORE` are for fields of the one and of the other.
const INIT: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: ADDRESS}\n\
    FIRST---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nMORE";

/// A document of `join` for a worker.
const JOIN: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery: {bootstrapToken: {token: \
    abcdef.0123456789abcdef, apiServerEndpoint: \"ADDRESS:6443\", unsafeSkipCAVerification: true}}\n";

/// What somebody else's cluster leaves on a host. Its kubelet.conf is not in the way: with an authority elsewhere a person
/// brings one.
const SPOIL: &str = "mkdir -p /etc/kubernetes/manifests /etc/kubernetes/pki /var/lib/etcd/member; cd /etc/kubernetes; \
    touch manifests/kube-apiserver.yaml manifests/kube-controller-manager.yaml manifests/kube-scheduler.yaml \
    manifests/etcd.yaml kubelet.conf; echo 0 > /proc/sys/net/ipv4/ip_forward; systemd-run --quiet --unit=ports perl -e \
    'use IO::Socket::INET; my @taken = map { IO::Socket::INET->new(LocalPort => $_, Listen => 1, ReuseAddr => 1) or die } \
    6443, 10250, 10259, 2379; sleep 900'; timeout 20 sh -c 'until ss -Hltn | grep -q :2379; do sleep 0.1; done'";

/// Of that, what a worker minds.
const SPOIL_WORKER: &str =
    "rm -r /etc/kubernetes/manifests /etc/kubernetes/kubelet.conf; touch /etc/kubernetes/pki/ca.crt";

const MEND: &str = "systemctl stop ports; rm -r /etc/kubernetes /var/lib/etcd; echo 1 > /proc/sys/net/ipv4/ip_forward";

/// No runtime, a program less, and nobody who knows the name of the node.
const UNPREPARE: &str = "systemctl stop containerd; systemctl disable --quiet kubelet; mkdir /root/away; \
    mv $(command -v losetup) /root/away; cp /etc/resolv.conf /root/away; echo nameserver 127.0.0.1 > /etc/resolv.conf";

const PREPARE: &str = "cat /root/away/resolv.conf > /etc/resolv.conf; mv /root/away/losetup /usr/bin; \
    systemctl start containerd; systemctl enable --quiet kubelet";

/// Packets of neither family are forwarded.
const FORWARD_NOTHING: &str = "cd /proc/sys/net; echo 0 > ipv4/ip_forward; echo 0 > ipv6/conf/default/forwarding";

/// `ERROR NAME` or `WARNING NAME` in a line of upstream's.
fn of_upstream(line: &str) -> Option<String> {
    let (found, _) = line.trim_start().strip_prefix('[')?.split_once("]: ")?;
    (found.starts_with("ERROR ") || found.starts_with("WARNING ")).then(|| found.to_owned())
}

/// The same in a line of ours: a warning, one error, or one of several.
fn of_ours(line: &str) -> Option<String> {
    let severities = [("warning: ", "WARNING"), ("error: ", "ERROR"), ("  | ", "ERROR")];
    let (severity, rest) =
        severities.into_iter().find_map(|(start, severity)| Some((severity, line.strip_prefix(start)?)))?;
    let (name, _) = rest.split_once(": ")?;
    (!name.contains(' ')).then(|| format!("{severity} {name}"))
}

/// Both sides beside each other, host after host.
struct Comparison<'a> {
    bed: &'a Bed,
    different: Vec<String>,
    needed: BTreeSet<&'static str>,
}

impl Comparison<'_> {
    fn on(&self, command: &str) {
        self.bed.sh(&self.bed.hosts[0].name, command);
    }

    /// What a side finds.
    fn found(&self, side: Side, verb: &str, more: &str) -> BTreeSet<String> {
        let command = format!("{} {verb} phase preflight --config /root/preflight.yaml", side.program());
        let finished = self.bed.try_sh(&self.bed.hosts[0].name, &format!("{more} 2>&1").replace("PROGRAM", &command));
        let names = if side == Side::Ours { of_ours } else { of_upstream };
        let found: BTreeSet<String> = finished.stdout.lines().filter_map(names).collect();
        let code = match (found.iter().any(|one| one.starts_with("ERROR ")), side) {
            (false, _) => 0,
            (true, Side::Ours) => 8,
            (true, Side::Upstream) => 1,
        };
        assert_eq!(finished.code, code, "{side:?}, {verb}: {}\n{}", finished.stdout, finished.stderr);
        found
    }

    /// Compares them on a host that has a name here, where upstream finds at least `wanted`; `how` is a command with
    /// PROGRAM in it.
    fn judge(&mut self, host: &str, verb: &str, document: &str, how: &str, wanted: &[impl AsRef<str>]) {
        let document = document.replace("ADDRESS", &self.bed.hosts[0].address);
        self.on(&format!("printf '%s' '{document}' > /root/preflight.yaml"));
        let [theirs, ours] = [Side::Upstream, Side::Ours].map(|side| self.found(side, verb, how));
        // A comparison of nothing with nothing is no comparison.
        for name in wanted.iter().map(AsRef::as_ref) {
            assert!(theirs.contains(name), "{host}: upstream does not find {name}: {theirs:?}");
        }
        for name in theirs.symmetric_difference(&ours) {
            let row = INTENDED.iter().find(|(on, what, _)| *on == host && what == name && theirs.contains(name));
            match row {
                Some((_, _, reason)) => drop(self.needed.insert(*reason)),
                None => {
                    let side = if ours.contains(name) { "we have" } else { "upstream has" };
                    self.different.push(format!("{host}: only {side} {name}"));
                }
            }
        }
    }
}

/// What is in the way of `init` on a host that was spoiled.
const IN_THE_WAY: &[&str] = &[
    "Port-6443",
    "Port-10250",
    "Port-10259",
    "Port-2379",
    "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml",
    "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
    "DirAvailable--var-lib-etcd",
    "FileContent--proc-sys-net-ipv4-ip_forward",
];

fn init(first: &str, more: &str) -> String {
    INIT.replace("FIRST", first).replace("MORE", more)
}

fn a_host_that_somebody_used(comparison: &mut Comparison<'_>) {
    let usual = init("", &format!("kubernetesVersion: v{VERSION}\n"));
    comparison.judge("fit", "init", &usual, "PROGRAM", &[""; 0]);
    comparison.on(SPOIL);
    let [errors, warnings] = ["ERROR", "WARNING"]
        .map(|severity| IN_THE_WAY.iter().map(|name| format!("{severity} {name}")).collect::<Vec<_>>());
    comparison.judge("spoiled", "init", &usual, "PROGRAM", &errors);
    // Ignored by name, in any case of letters, or all at once: then images are looked at, too, which are all there.
    let names = IN_THE_WAY.join(",").to_lowercase();
    for ignored in [format!("SystemVerification,{names}"), "all".to_owned()] {
        let how = format!("PROGRAM --ignore-preflight-errors={ignored}");
        comparison.judge("spoiled", "init", &usual, &how, &warnings);
    }
    comparison.on(SPOIL_WORKER);
    comparison.judge("spoiled worker", "join", JOIN, "PROGRAM", &["ERROR Port-10250"]);
    comparison.on(MEND);
}

fn a_host_that_nobody_prepared(comparison: &mut Comparison<'_>) {
    comparison.on(UNPREPARE);
    let unknown = init("nodeRegistration: {name: nowhere}\n", &format!("kubernetesVersion: v{VERSION}\n"));
    let wanted = [
        "ERROR CRI",
        "ERROR FileExisting-losetup",
        "WARNING Service-kubelet",
        "WARNING HTTPProxy",
        "WARNING HTTPProxyCIDR",
        "WARNING Hostname",
    ];
    comparison.judge("unprepared", "init", &unknown, "HTTPS_PROXY=http://192.0.2.1:3128 PROGRAM", &wanted);
    comparison.on(PREPARE);
}

fn a_host_for_another_cluster(comparison: &mut Comparison<'_>) {
    comparison.on(FORWARD_NOTHING);
    let etcd = |what: &str| {
        // Older than the kubelet on the host.
        let networks = "{podSubnet: \"10.244.0.0/16,fd00:1::/64\", serviceSubnet: \"10.96.0.0/16,fd01::/112\"}";
        init("", &format!("kubernetesVersion: v1.35.4\nnetworking: {networks}\netcd: {what}\n"))
    };
    let wanted = [
        "ERROR KubeletVersion",
        "ERROR FileContent--proc-sys-net-ipv4-ip_forward",
        "ERROR FileContent--proc-sys-net-ipv6-conf-default-forwarding",
    ];
    comparison.on("mkdir -p /srv/data/member");
    let local = [&wanted[..], &["ERROR DirAvailable--srv-data"]].concat();
    comparison.judge("chosen folder", "init", &etcd("{local: {dataDir: /srv/data}}"), "PROGRAM", &local);
    let files = "caFile: /root/ca.crt, certFile: /root/client.crt, keyFile: /root/client.key";
    let external = format!("{{external: {{endpoints: [\"https://127.0.0.1:1\"], {files}}}}}");
    let of_others = [&wanted[..], &["ERROR ExternalEtcdClientCertificates"]].concat();
    comparison.judge("etcd of others", "init", &etcd(&external), "PROGRAM", &of_others);
}

#[test]
fn what_is_wrong_with_a_host_has_upstreams_names() {
    let bed = Bed::prepared(1, VERSION);
    bed.send(&bed.hosts[0].name, &[&clusterctl()], "/root");
    let mut comparison = Comparison { bed: &bed, different: Vec::new(), needed: BTreeSet::new() };
    a_host_that_somebody_used(&mut comparison);
    a_host_that_nobody_prepared(&mut comparison);
    a_host_for_another_cluster(&mut comparison);
    assert!(comparison.different.is_empty(), "{}", comparison.different.join("\n"));
    let idle: Vec<_> = INTENDED.iter().filter(|(_, _, reason)| !comparison.needed.contains(reason)).collect();
    assert!(idle.is_empty(), "not needed any more: {idle:?}");
}
