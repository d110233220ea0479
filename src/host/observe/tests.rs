use std::net::IpAddr;

use rstest::rstest;

use super::network::{Socket, addresses, loopback_addresses, routes, routes6, sockets};
use super::{Unknown, architecture, facts, kernel, name_card, operating_system, runtime_version};
use crate::fact::Service;
use crate::host::fake::FakeHost;

#[rstest]
#[case("x86_64", "amd64")]
#[case("aarch64", "arm64")]
#[case("riscv64", "riscv64")]
fn architectures_have_their_go_names(#[case] rust: &str, #[case] go: &str) {
    assert_eq!(architecture(rust), go);
}

#[test]
fn a_distribution_by_its_file() {
    let text = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nID=debian\nID_LIKE=x\n";
    let system = operating_system(text);
    assert_eq!((system.id.as_str(), system.version.as_str()), ("debian", "13"));
    assert_eq!(system.pretty_name, "Debian GNU/Linux 13 (trixie)");
}

#[rstest]
#[case("containerd github.com/containerd/containerd/v2 v2.3.7 77c8424\n", "2.3.7")]
#[case("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6\n", "1.7.24~ds1")]
#[case("crio version 1.36.0\nGitCommit: 1.2\n", "1.36.0")]
#[case("", "")]
fn versions_of_runtimes(#[case] text: &str, #[case] version: &str) {
    assert_eq!(runtime_version(text), version);
}

#[rstest]
#[case("Name:\tx\nCpus_allowed_list:\t0-1\n", 2)]
#[case("Cpus_allowed_list:\t0,2-5,9\n", 6)]
#[case("Cpus_allowed_list:\t3-1\n", 0)]
#[case("", 0)]
fn cpus_that_may_be_used(#[case] status: &str, #[case] count: u32) {
    assert_eq!(kernel::allowed_cpus(status), count);
}

#[rstest]
#[case(true, "", 2)]
#[case(false, "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", 1)]
#[case(false, "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n", 0)]
fn versions_of_control_groups(#[case] unified: bool, #[case] mounts: &str, #[case] version: u8) {
    assert_eq!(kernel::cgroup_version(unified, mounts), version);
}

#[test]
fn memory_and_swap() {
    assert_eq!(kernel::memory_bytes("MemTotal:       24592304 kB\nMemFree: 1 kB\n"), 24_592_304 * 1024);
    let swaps = "Filename\t\t\t\tType\t\tSize\n/dev/sda2                               partition\t999\n";
    assert_eq!(kernel::swap(swaps), ["/dev/sda2"]);
    assert!(kernel::swap("").is_empty());
}

#[test]
fn addresses_without_loopback_and_empty_links() {
    let json = r#"[{},{"ifname":"lo","addr_info":[{"family":"inet6","local":"::1","prefixlen":128},
        {"family":"inet","local":"127.0.0.1","prefixlen":8},{"family":"inet","local":"192.0.2.7","prefixlen":32}]},
        {"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.11","prefixlen":24},
        {"family":"inet6","local":"fd00::b","prefixlen":64}]}]"#;
    let found: Vec<String> = addresses(json).iter().map(|found| format!("{} {}", found.link, found.address)).collect();
    assert_eq!(found, ["eth0 10.0.0.11/24", "eth0 fd00::b/64"]);
    assert!(addresses("nonsense").is_empty());
    let found: Vec<String> = loopback_addresses(json).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["127.0.0.1", "192.0.2.7", "::1"]);
}

#[test]
fn routes_of_both_families() {
    let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                eth0\t00000000\t01001DAC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                eth0\t00001DAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                *\t0000FF0A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    let shown: Vec<String> =
        routes(text).iter().map(|route| format!("{} {:?} {}", route.destination, route.via, route.link)).collect();
    assert_eq!(shown, ["0.0.0.0/0 Some(172.29.0.1) eth0", "172.29.0.0/16 None eth0"]);
    let text = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
                00000000000000000000000000000001 80 00000000000000000000000000000000 00 \
                00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo\n";
    let found = routes6(text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].destination.to_string(), "fd00::/64");
}

#[test]
fn only_listening_sockets_count() {
    let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
                1: 0100007F:0016 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
                2: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A \
                00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    let any: IpAddr = "::".parse().unwrap();
    let expected =
        [Socket { address: local, port: 8080, inode: 4711 }, Socket { address: any, port: 6443, inode: 4713 }];
    assert_eq!(sockets(text), expected);
}

#[tokio::test]
async fn a_bare_host_has_facts_and_nothing_is_altered() {
    let host = FakeHost::new()
        .file("/etc/os-release", "ID=debian\nVERSION_ID=13\n")
        .file("/proc/sys/kernel/osrelease", "6.12.0\n")
        .file("/proc/sys/kernel/hostname", "CP1\n")
        .file("/proc/filesystems", "nodev\toverlay\n")
        .file("/proc/sys/net/ipv4/ip_forward", "0\n")
        .file("/proc/net/tcp", "head\n 0: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 77 1 0\n")
        .file("/proc/812/comm", "sshd\n")
        .symlink("/proc/812/fd/3", "socket:[77]")
        .file("/usr/bin/ip", "")
        .directory("/run/systemd/system")
        .answer_with(&["systemctl", "show"], |_, command| {
            let blocks = command.arguments[4..].iter().map(|unit| match unit.as_str() {
                "ufw.service" => "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n",
                _ => "LoadState=not-found\nActiveState=inactive\n",
            });
            let stdout = blocks.collect::<Vec<_>>().join("\n").into_bytes();
            Ok(crate::host::Output { stdout, ..Default::default() })
        })
        .answer(&["ip"], 0, "[]");
    let facts = facts(&host).await.unwrap();
    assert_eq!((facts.system.id.as_str(), facts.hostname.as_str(), facts.kernel.as_str()), ("debian", "cp1", "6.12.0"));
    assert_eq!(facts.modules, ["overlay"]);
    assert_eq!(facts.sysctls.get("net.ipv4.ip_forward").map(String::as_str), Some("0"));
    assert_eq!(facts.services.get("ufw"), Some(&Service { active: true, enabled: true }));
    assert_eq!(facts.services.len(), 1);
    assert_eq!(facts.listening[0].process.as_deref(), Some("sshd"));
    assert_eq!(facts.disks[0].path, "/");
    assert_eq!(facts.runtime, None);
    assert!(host.done().iter().all(|done| done.starts_with("run ")), "{:?}", host.done());
}

#[tokio::test]
async fn a_host_with_its_own_containerd_is_told_from_one_with_ours() {
    let journal = concat!(
        r#"{"format":1,"cluster":"demo","since_seconds":1}"#,
        "\n",
        r#"{"entry":"created","path":"/usr/local/bin/containerd"}"#,
        "\n"
    );
    let host = FakeHost::new().answer(&["/usr/local/bin/containerd", "--version"], 0, "containerd x v2.3.7 y\n");
    let host = host.file("/usr/local/bin/containerd", "").file("/var/lib/clusterctl/journal", journal);
    let found = facts(&host).await.unwrap();
    let runtime = found.runtime.unwrap();
    assert_eq!((runtime.version.as_str(), runtime.ours, runtime.cri), ("2.3.7", true, true));
    assert_eq!(found.kubernetes.journal_cluster.as_deref(), Some("demo"));

    let host = FakeHost::new()
        .answer(&["/usr/bin/containerd", "--version"], 0, "containerd x 1.7.24 y\n")
        .file("/usr/bin/containerd", "")
        .file("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n");
    let runtime = facts(&host).await.unwrap().runtime.unwrap();
    assert_eq!((runtime.ours, runtime.cri), (false, false));
}

#[tokio::test]
async fn a_name_card_starts_no_program_for_what_is_known() {
    let ip = r#"[{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.11","prefixlen":24}]}]"#;
    let host = FakeHost::new().file("/proc/sys/kernel/hostname", "CP1\n").answer(&["ip"], 0, ip).answer(
        &["kubelet", "--version"],
        0,
        "Kubernetes v1.36.3\n",
    );
    let known = name_card(&host, Unknown { address: false, kubelet: false }).await.unwrap();
    assert_eq!((known.hostname.as_str(), known.addresses.len()), ("cp1", 0));
    assert!(host.done().is_empty(), "{:?}", host.done());
    let asked = name_card(&host, Unknown { address: true, kubelet: true }).await.unwrap();
    assert_eq!(asked.addresses.len(), 1);
    assert_eq!(asked.kubernetes.kubelet_version.as_deref(), Some("1.36.3"));
}
