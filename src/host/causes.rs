//! Known causes of what fails on a host, by the words that stand in its logs then.

/// Words in a log, what they mean, in the imperative. The first that fits counts; the more special stand first.
const CAUSES: &[(&str, &str)] = &[
    ("cgroup v1", "boot the host with cgroup v2, or set `failCgroupV1: false` in the KubeletConfiguration"),
    ("running with swap on is not supported", "turn swap off, or set `failSwapOn: false` in the KubeletConfiguration"),
    ("no space left on device", "free some space on the host's disk and run the same command again"),
    ("address already in use", "stop what listens on the port named in the log, then run the same command again"),
    ("failed to validate kubelet flags", "correct kubeletExtraArgs: the kubelet does not take one of them"),
    ("unknown flag", "correct extraArgs: the component does not know one of them"),
    ("failed to load kubelet config file", "correct the KubeletConfiguration: the kubelet does not take it"),
    ("cluster id mismatch", "remove etcd's data of an earlier cluster: run `clusterctl down`, then `up` again"),
    (
        "has already been bootstrapped",
        "remove etcd's data of an earlier cluster: run `clusterctl down`, then `up` again",
    ),
    ("failed to pull image", "bring the image named in the log with the bundle, or let the host reach its registry"),
    (
        "failed to pull and unpack image",
        "bring the image named in the log with the bundle, or let the host reach its registry",
    ),
    (
        "failed to resolve reference",
        "bring the image named in the log with the bundle, or let the host reach its registry",
    ),
    ("failed to resolve image", "bring the image named in the log with the bundle, or let the host reach its registry"),
    ("container runtime is not running", "see why the container runtime does not run: `systemctl status containerd`"),
    ("validate cri v1 runtime api", "see why the container runtime does not answer: `systemctl status containerd`"),
    ("/dev/kmsg", "give the host a /dev/kmsg: the kubelet reads the kernel's messages there"),
    ("certificate has expired", "set the host's clock, or renew the certificates in /etc/kubernetes/pki"),
    (
        "certificate signed by unknown authority",
        "remove certificates of an earlier cluster: run `clusterctl down`, then `up` again",
    ),
    ("too many open files", "raise fs.inotify.max_user_instances (8192) or the limit of open files on the host"),
    ("exec format error", "bring a bundle for the host's architecture: a program in it is for another one"),
    ("out of memory", "give the host more memory: the kernel ended a component for want of it"),
    ("read-only file system", "remount the file system named in the log writable, and look at the disk's health"),
    ("input/output error", "look at the host's disk: `dmesg` tells what it cannot read or write"),
    ("slow fdatasync", "give etcd a faster disk: its writes take too long"),
    ("apply request took too long", "give etcd a faster disk: its writes take too long"),
    ("clock difference", "set the clocks of the control planes by NTP: etcd's members disagree about the time"),
    ("certificate is not yet valid", "set the host's clock: it is behind that of the host that signs"),
    ("is not valid for any names", "add the name or address to apiServer.certSANs in cluster.kubeadm"),
    ("cannot allocate memory", "give the host more memory"),
    (
        "failed to reserve sandbox name",
        "wait a moment: the container runtime still works at an earlier try; then run the same command again",
    ),
    ("cni plugin not initialized", "bring a pod network: there is no configuration in /etc/cni/net.d"),
    (
        "permission denied",
        "see the log: a security module or the mode of a directory keeps the component from its files",
    ),
];

/// What to do about the first cause that a log knows, in the imperative.
pub fn advice(log: &str) -> Option<&'static str> {
    let log = log.to_lowercase();
    CAUSES.iter().find(|(words, _)| log.contains(words)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::advice;

    #[rstest]
    #[case("E1 listen tcp 0.0.0.0:6443: bind: address already in use", Some("stop what listens"))]
    #[case("kubelet is configured to not run on a host using cgroup v1.", Some("boot the host with cgroup v2"))]
    #[case("Running with swap on is not supported, please disable swap", Some("turn swap off"))]
    #[case("write /x: No space left on device", Some("free some space"))]
    #[case("{\"level\":\"warn\",\"msg\":\"slow fdatasync\"}", Some("give etcd a faster disk"))]
    #[case("open /x: read-only file system", Some("remount"))]
    #[case("nothing known", None)]
    fn known_causes_have_advice(#[case] log: &str, #[case] beginning: Option<&str>) {
        assert_eq!(advice(log).map(|advice| advice.starts_with(beginning.unwrap())), beginning.map(|_| true));
    }
}
