//! Whole inventories: what is understood, what is found wrong and where, how it is shown.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::{any, prop_oneof, proptest};
use rstest::rstest;

use super::{
    Become, EXAMPLE, HostKeys, Inventory, Judged, NetworkPlugin, Role, SecretSource, judge, load, load_with_warnings,
    parse,
};
use crate::failure::Kind;
use crate::yaml::Severity;

const HOME: &str = "/home/ops";

fn good(text: &str) -> Inventory {
    match parse(text, Path::new("/work/inventory.yaml"), Path::new(HOME)) {
        Ok(inventory) => inventory,
        Err(findings) => panic!("{findings:#?}"),
    }
}

/// Every finding as `line:column message`, warnings marked.
fn found(text: &str) -> Vec<String> {
    let judged = judge(text, Path::new("/work/inventory.yaml"), Path::new(HOME));
    let error = judged.findings.iter().any(|finding| finding.severity == Severity::Error);
    assert_eq!(judged.inventory.is_none(), error);
    judged
        .findings
        .iter()
        .map(|finding| {
            let mark = if finding.severity == Severity::Warning { "warning: " } else { "" };
            format!("{}:{} {mark}{}", finding.line, finding.column, finding.message)
        })
        .collect()
}

fn roles(inventory: &Inventory) -> Vec<(&str, Role)> {
    inventory.hosts.iter().map(|host| (host.name.as_str(), host.role)).collect()
}

#[rstest]
#[case("hosts: [a, b]")]
#[case("hosts:\n  - a\n  - b\n")]
#[case("hosts: {a: , b: {}}")]
#[case("hosts:\n  a:\n  b:\n")]
#[case("hosts:\n  b: {role: worker}\n  a: {role: control-plane}\n")]
#[case("hosts:\n  b:\n  a: {role: control-plane}\n")]
fn the_smallest_inventories(#[case] text: &str) {
    let inventory = good(text);
    assert_eq!(inventory.first_control_plane().name, "a");
    assert_eq!(inventory.workers().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn defaults_are_filled_in() {
    let inventory = good("ssh: {user: ops}\nhosts: [cp1]");
    let cluster = &inventory.cluster;
    assert_eq!((cluster.name.as_str(), cluster.kubernetes.to_string().as_str()), ("kubernetes", "1.36.3"));
    assert_eq!(cluster.network.pods.to_string(), "10.244.0.0/16");
    assert_eq!(cluster.network.services.to_string(), "10.96.0.0/12");
    assert_eq!((cluster.network.plugin, cluster.network.domain.as_str()), (NetworkPlugin::Bridge, "cluster.local"));
    assert_eq!((&cluster.endpoint, &cluster.kubeadm, &cluster.bundle), (&None, &None, &None));
    let host = &inventory.hosts[0];
    assert_eq!((host.address.as_str(), host.node_address, host.line), ("cp1", None, 2));
    assert_eq!((host.ssh.user.as_str(), host.ssh.port, host.ssh.agent), ("ops", 22, true));
    assert_eq!((host.ssh.become_root, host.ssh.host_keys), (Become::Sudo, HostKeys::Strict));
    assert_eq!(host.ssh.known_hosts, ["/home/ops/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"].map(PathBuf::from));
    assert_eq!((host.ssh.connect_limit_seconds, &host.ssh.password, &host.taints), (20, &None, &None));
    assert!(host.ssh.identities.is_empty());
}

#[test]
fn a_host_is_laid_over_the_defaults() {
    let inventory = good(concat!(
        "ssh: {user: ops, port: 2222, password: {command: pass show x}, host_keys: accept-new}\n",
        "hosts:\n",
        "  a: {address: 10.0.0.1, role: control-plane, labels: {gpu: true, v: 1.0, empty: }, taints: []}\n",
        "  b: {address: '10.0.0.2:22', taints: ['x=y:NoSchedule', z:NoExecute], ssh: {user: root}}\n",
        "  c: {address: '[fd00::3]:2201', ssh: {become_password: {ask: true}, become: sudo}}\n",
        "  d: {address: 127.0.0.1, node_address: 10.0.0.4, ssh: {port: 2200, known_hosts: known}}\n",
    ));
    let [a, b, c, d] = inventory.hosts.as_slice() else { panic!("{inventory:?}") };
    let command = Some(SecretSource::Command("pass show x".to_owned()));
    assert_eq!((a.ssh.port, a.ssh.become_root, a.ssh.host_keys), (2222, Become::Sudo, HostKeys::AcceptNew));
    assert_eq!((&a.ssh.password, &a.ssh.become_password), (&command, &command));
    assert_eq!(
        a.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        ["empty=", "gpu=true", "v=1.0"]
    );
    assert_eq!(a.taints, Some(vec![]));
    assert_eq!((b.ssh.user.as_str(), b.ssh.port, b.ssh.become_root), ("root", 22, Become::None));
    assert_eq!(b.taints.as_ref().map(Vec::len), Some(2));
    assert_eq!((c.address.as_str(), c.ssh.port, &c.ssh.become_password), ("fd00::3", 2201, &Some(SecretSource::Ask)));
    assert_eq!(c.node_address, Some("fd00::3".parse().unwrap()));
    assert_eq!((d.node_address, d.ssh.port), (Some("10.0.0.4".parse().unwrap()), 2200));
    assert_eq!(d.ssh.known_hosts, [PathBuf::from("/work/known")]);
    assert_eq!([a.line, b.line, c.line, d.line], [3, 4, 5, 6]);
}

#[test]
fn a_forwarded_port_is_no_address_of_a_node() {
    let inventory = good("hosts: {a: {address: '127.0.0.1:2222'}, b: {address: '127.0.0.1:2200'}}");
    assert!(inventory.hosts.iter().all(|host| host.node_address.is_none()));
}

#[rstest]
#[case("cluster: {kubernetes: 1.35.0}", "1.35.0")]
#[case("cluster: {kubernetes: v1.33.12}", "1.33.12")]
#[case("cluster: {kubernetes: \"1.37.0\"}", "1.37.0")]
fn versions(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(good(&format!("{text}\nhosts: [a]")).cluster.kubernetes.to_string(), expected);
}

#[rstest]
#[case("cluster:\n  kubeadm: |\n    kind: A\n    ---\n    kind: B\nhosts: [a]", "kind: A\n---\nkind: B\n", 3)]
#[case("cluster:\n  kubeadm: {kind: A, x: \"1\"}\nhosts: [a]", "kind: A\nx: \"1\"\n", 2)]
#[case("cluster:\n  kubeadm:\n    kind: A\nhosts: [a]", "kind: A\n", 3)]
#[case("cluster:\n  kubeadm:\n    - kind: A\n    - kind: B\nhosts: [a]", "kind: A\n---\nkind: B\n", 3)]
fn kubeadm_documents_written_inline(#[case] text: &str, #[case] expected: &str, #[case] line: usize) {
    let documents = good(text).cluster.kubeadm.unwrap();
    assert_eq!((documents.text.as_str(), documents.line), (expected, line));
    assert_eq!(documents.path, Path::new("/work/inventory.yaml"));
}

#[rstest]
// The shape of the whole.
#[case("", &["1:1 there are no hosts"])]
#[case("hosts:", &["1:1 there are no hosts"])]
#[case("cluster: {name: a}\nhosts: {}", &["2:1 there are no hosts"])]
#[case("hots: [a]", &["1:1 `hots` is no key of the inventory"])]
#[case("[a, b]", &["1:1 the inventory has to be a mapping, but this is a list"])]
#[case("hosts: a", &["1:8 `hosts` has to be a mapping of names or a list of names, but this is a text"])]
#[case("hosts: [a]\nhosts: [b]", &["2:1 the key `hosts` stands here twice"])]
#[case("hosts: [a]\n---\nhosts: [b]", &["3:1 a second document starts here, but there can be only one"])]
#[case("hosts: [a", &["1:8 this is not YAML: unclosed bracket '['"])]
#[case("hosts: [a]\nvars: {}\nClusters: {}", &["2:1 `vars` is no key of the inventory", "3:1 `Clusters` is no key of the inventory"])]
// Hosts.
#[case("hosts: [a, b, a]", &["1:15 two hosts are named `a`"])]
#[case("hosts: {a: , a: }", &["1:14 the key `a` stands here twice"])]
#[case("hosts: [{name: a}]", &["1:9 a list of hosts takes names only"])]
#[case("hosts: [a, true, [b]]", &[
    "1:12 the name of a host has to be a text, but this is a boolean",
    "1:18 the name of a host has to be a text, but this is a list",
])]
#[case("hosts: [Node_1]", &["1:9 the name of the host, `Node_1`, has to be DNS labels with dots between"])]
#[case("hosts: {a: 10.0.0.1}", &["1:12 `hosts.a` has to be a mapping, but this is a text"])]
#[case("hosts: {a: {adress: 10.0.0.1}}", &["1:13 `adress` is no key of `hosts.a`"])]
#[case("hosts: {a: {address: 10.0.0.256}}", &["1:22 `hosts.a.address`: `10.0.0.256` is no IPv4 address"])]
#[case("hosts: {a: {address: 'x:99999'}}", &["1:22 `hosts.a.address`: `x:99999` has the port `99999`"])]
#[case("hosts: {a: {address: [x]}}", &["1:22 `hosts.a.address` has to be a text, but this is a list"])]
#[case("hosts: {a: {node_address: 127.0.0.1}}", &["1:27 `hosts.a.node_address`: `127.0.0.1` is no address that other nodes"])]
#[case("hosts: {a: {role: master}}", &["1:19 `hosts.a.role` has to be `control-plane` or `worker`, but this is `master`"])]
#[case("hosts: {a: {labels: {'a b': x, c: 'd e', f: []}}}", &[
    "1:22 the label `a b` has to be at most 63 letters",
    "1:35 the value of the label `c`, `d e`, has to be at most 63 letters",
    "1:45 the value of the label `f` has to be a text, but this is a list",
])]
#[case("hosts: {a: {taints: [x, 'y:NoSchedul', 'z:NoExecute', 'z=1:NoExecute']}}", &[
    "1:22 the taint `x` is no taint; write `key=value:Effect`",
    "1:25 the taint `y:NoSchedul` has the effect `NoSchedul`, which is none: did you mean `NoSchedule`?",
    "1:55 two taints have the key `z` and the effect NoExecute",
])]
#[case("hosts: {a: {address: 'x:23', ssh: {port: 22}}}", &["1:22 the address says port 23, `hosts.a.ssh.port` says 22"])]
// Addresses.
#[case("hosts:\n  a: {address: 10.0.0.1}\n  b: {address: 10.0.0.1}", &["3:16 the hosts `a` and `b` have the same address, 10.0.0.1"])]
#[case("hosts:\n  a:\n  b: {address: A}", &["3:16 the hosts `a` and `b` have the same address, A"])]
#[case("hosts:\n  a: {address: 'fd00::1'}\n  b: {address: '[fd00:0::1]:22'}", &["3:16 the hosts `a` and `b` have the same address"])]
#[case("hosts:\n  a: {address: 10.0.0.1}\n  b: {address: x, node_address: 10.0.0.1}", &[
    "3:33 the nodes `a` and `b` have the same address, 10.0.0.1",
])]
// Roles.
#[case("hosts:\n  a: {role: worker}\n  b:", &["1:1 no host is a control plane"])]
#[case("hosts: {a: {role: control-plane}, b: {role: control-plane}, c: {role: control-plane}}", &[
    "1:45 3 control planes need `cluster.endpoint`",
])]
#[case("cluster: {endpoint: x}\nhosts: {a: {role: control-plane}, b: {role: control-plane}}", &[
    "2:45 warning: 2 control planes survive no more losses than 1",
])]
// The cluster.
#[case("cluster: {kubernetes: 1.30}\nhosts: [a]", &["1:23 Kubernetes version `1.30` needs three numbers"])]
#[case("cluster: {kubernetes: 1.32.1}\nhosts: [a]", &["1:23 Kubernetes version `1.32.1` is not supported"])]
#[case("cluster: {kubernetes: stable}\nhosts: [a]", &["1:23 Kubernetes version `stable` is no version: "])]
#[case("cluster: {kubernetes: [1]}\nhosts: [a]", &["1:23 `cluster.kubernetes` has to be a text, but this is a list"])]
#[case("cluster: {name: My Cluster}\nhosts: [a]", &["1:17 `cluster.name`: `My Cluster` has to be 1 to 63 lower case letters"])]
#[case("cluster: {endpoint: 'https://x'}\nhosts: [a]", &["1:21 `cluster.endpoint`: `https://x` has to be `host:port` without a scheme"])]
#[case("cluster: {network: {plugin: flannel}}\nhosts: [a]", &["1:29 `cluster.network.plugin` has to be `bridge` or `none`, but this is `flannel`"])]
#[case("cluster: {network: {domain: cluster_local}}\nhosts: [a]", &["1:29 `cluster.network.domain`: `cluster_local` has to be DNS labels"])]
#[case("cluster: {containerd: {restrict_oom_score_adj: yes}}\nhosts: [a]", &[
    "1:48 `cluster.containerd.restrict_oom_score_adj` has to be `true` or `false`, but this is a text",
])]
#[case("cluster: {kubeadm: [x]}\nhosts: [a]", &["1:21 `cluster.kubeadm` has to be a path, a text, a mapping or a list of mappings"])]
#[case("cluster: {kubeadm: no-such.yaml, bundle: no-such.bundle}\nhosts: [a]", &[
    "1:20 `cluster.kubeadm`: there is no file /work/no-such.yaml",
    "1:42 warning: `cluster.bundle`: there is no /work/no-such.bundle yet",
])]
#[case("cluster:\n  kubeadm: |\n    kind: A\n    kind: B\nhosts: [a]", &["4:5 the key `kind` stands here twice"])]
// Networks.
#[case("cluster: {network: {pods: 10.244.0.1/16, services: 10.96.0.0}}\nhosts: [a]", &[
    "1:27 `cluster.network.pods`: `10.244.0.1/16` has bits set after the first 16; write `10.244.0.0/16`",
    "1:52 `cluster.network.services`: `10.96.0.0` lacks the number of bits, as in `10.96.0.0/16`",
])]
#[case("cluster: {network: {pods: 10.96.0.0/16}}\nhosts: [a]", &["1:27 the networks of pods, 10.96.0.0/16, and services, 10.96.0.0/12, overlap"])]
#[case("cluster: {network: {pods: 10.0.0.0/16, services: 10.0.128.0/20}}\nhosts: [a]", &[
    "1:50 the networks of pods, 10.0.0.0/16, and services, 10.0.128.0/20, overlap",
])]
#[case("cluster: {network: {pods: 'fd00::/48'}}\nhosts: [a]", &["1:27 the networks of pods, fd00::/48, and services, 10.96.0.0/12, are of different"])]
#[case("cluster: {network: {pods: 192.168.0.0/25}}\nhosts: [a]", &["1:27 the network of pods, 192.168.0.0/25, has room for 0 nodes, each with a /24"])]
#[case("cluster: {network: {pods: 192.168.0.0/23}}\nhosts: [a, b, c]", &["1:27 the network of pods, 192.168.0.0/23, has room for 2 nodes, each with a /24"])]
#[case("cluster: {network: {services: 10.0.0.0/8}}\nhosts: [a]", &[
    "1:31 the networks of pods, 10.244.0.0/16, and services, 10.0.0.0/8, overlap",
    "1:31 the network of services, 10.0.0.0/8, is larger than Kubernetes takes",
])]
#[case("cluster: {network: {services: 10.96.0.0/29}}\nhosts: [a]", &["1:31 the network of services, 10.96.0.0/29, has room for fewer than ten services"])]
#[case("hosts: {a: {address: 10.96.0.7}}", &["1:22 the address of the host `a`, 10.96.0.7, lies in the network of services, 10.96.0.0/12"])]
#[case("hosts: {a: {address: x, node_address: 10.244.3.7}}", &["1:39 the address of the host `a`, 10.244.3.7, lies in the network of pods, 10.244.0.0/16"])]
#[case("cluster: {endpoint: 10.96.0.1}\nhosts: [a]", &["1:21 `cluster.endpoint`, 10.96.0.1, lies in the network of services"])]
// SSH.
#[case("ssh: {usr: ops}\nhosts: [a]", &["1:7 `usr` is no key of `ssh`"])]
#[case("ssh: {user: 'a b', port: 0, agent: no, become: su}\nhosts: [a]", &[
    "1:13 `ssh.user`: `a b` is no login name",
    "1:26 `ssh.port` has to be a number from 1 to 65535",
    "1:36 `ssh.agent` has to be `true` or `false`, but this is a text",
    "1:48 `ssh.become` has to be `sudo` or `none`, but this is `su`",
])]
#[case("ssh: {port: '22', connect_limit_seconds: 1.5, host_keys: accept}\nhosts: [a]", &[
    "1:13 `ssh.port` has to be a number from 1 to 65535, but this is a text",
    "1:42 `ssh.connect_limit_seconds` has to be a number from 1 to 3600",
    "1:58 `ssh.host_keys` has to be `strict` or `accept-new`, but this is `accept`",
])]
#[case("ssh: {password: hunter2}\nhosts: [a]", &["1:7 `ssh.password` has to say where the password comes from: an inventory is shared"])]
#[case("hosts: {a: {ssh: {become_password: 12345}}}", &["1:19 `hosts.a.ssh.become_password` has to say where"])]
#[case("ssh: {password: {ask: true, file: x}}\nhosts: [a]", &["1:17 `ssh.password` has to name one source of the password, but names 2"])]
#[case("ssh: {password: {asks: true}}\nhosts: [a]", &[
    "1:17 `ssh.password` has to name one source of the password, but names 0",
    "1:18 `asks` is no key of `ssh.password`",
])]
#[case("ssh: {password: {ask: false}, become_password: {command: ' '}}\nhosts: [a]", &[
    "1:23 `ssh.password.ask`: `false` says nothing",
    "1:58 `ssh.become_password.command`: ` ` is empty",
])]
#[case("ssh: {password: {file: no-such}, identity: [no-such, x.pub]}\nhosts: [a]", &[
    "1:24 `ssh.password.file`: there is no file /work/no-such",
    "1:45 `ssh.identity`: there is no file /work/no-such",
    "1:54 /work/x.pub is a public key",
])]
#[case("ssh: {identity: ~root/x, known_hosts: {}}\nhosts: [a]", &[
    "1:17 `ssh.identity`: `~root/x` names another user's home folder",
    "1:39 `ssh.known_hosts` has to be a path or a list of paths, but this is a mapping",
])]
#[case("ssh: {identity: /work, identities: /work}\nhosts: [a]", &["1:24 `identity` and `identities` are the same setting"])]
fn everything_wrong_is_found_at_its_place(#[case] text: &str, #[case] expected: &[&str]) {
    let found = found(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nshould start with\n{expected}");
    }
}

/// A folder with the files that the example names.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["home/.ssh", "keys"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["home/.ssh/id_ed25519", "keys/w2", "w2.password", "kubernetes-1.36.3.bundle"] {
        write(&folder.path().join(name), "x", 0o600);
    }
    folder
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_example_is_good_with_nothing_to_warn_of() {
    let folder = folder();
    let judged = judge(EXAMPLE, &folder.path().join("inventory.yaml"), &folder.path().join("home"));
    assert_eq!(judged.findings, []);
    let inventory = judged.inventory.unwrap();
    assert_eq!(roles(&inventory), [("cp1", Role::ControlPlane), ("w1", Role::Worker), ("w2", Role::Worker)]);
}

#[test]
fn the_example_is_good_with_everything_switched_on() {
    let folder = folder();
    let all: String = EXAMPLE
        .lines()
        .map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            match rest.strip_prefix('#') {
                // Below a switched off `kubeadm:` the lines go on with two blanks.
                Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => {
                    format!("{indent}{setting}\n")
                }
                Some(setting) if indent.len() == 2 && setting.starts_with("  ") && !setting.starts_with("   {") => {
                    format!("{indent}{setting}\n")
                }
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let judged = judge(&all, &folder.path().join("inventory.yaml"), &folder.path().join("home"));
    assert_eq!(judged.findings, [], "{all}");
    let inventory = judged.inventory.unwrap();
    assert!(inventory.cluster.kubeadm.unwrap().text.contains("audit-log-maxage"));
    assert_eq!(inventory.hosts[2].ssh.identities.len(), 2);
    assert_eq!(inventory.cluster.endpoint.as_deref(), Some("api.demo.example:6443"));
}

#[test]
fn files_that_others_may_read_are_refused() {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    write(&folder.path().join("key"), "x", 0o640);
    write(&folder.path().join("secret"), "x", 0o604);
    let text = "ssh: {identity: [key, keys/w2, keys], password: {file: secret}}\nhosts: [a]";
    let findings = parse(text, &path, folder.path()).unwrap_err();
    let messages: Vec<String> =
        findings.iter().map(|finding| finding.message.replace(&*folder.path().to_string_lossy(), "DIR")).collect();
    assert_eq!(
        messages,
        [
            "`ssh.identity`: others may read DIR/key (mode 0640)",
            "`ssh.identity`: DIR/keys is a folder, not a file",
            "`ssh.password.file`: others may read DIR/secret (mode 0604)",
        ]
    );
}

#[test]
fn a_kubeadm_file_is_read_and_judged() {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    let text = "cluster: {kubeadm: kubeadm.yaml}\nhosts: [a]";
    write(&folder.path().join("kubeadm.yaml"), "kind: ClusterConfiguration\n", 0o644);
    let documents = parse(text, &path, folder.path()).unwrap().cluster.kubeadm.unwrap();
    assert_eq!((documents.text.as_str(), documents.line), ("kind: ClusterConfiguration\n", 1));
    assert_eq!(documents.path, folder.path().join("kubeadm.yaml"));
    write(&folder.path().join("kubeadm.yaml"), "kind: A\nkind: B\n", 0o644);
    let findings = parse(text, &path, folder.path()).unwrap_err();
    assert!(findings[0].message.ends_with("kubeadm.yaml:2:1: the key `kind` stands here twice"), "{findings:?}");
    std::fs::write(folder.path().join("kubeadm.yaml"), [0xff, 0xfe]).unwrap();
    assert!(parse(text, &path, folder.path()).unwrap_err()[0].message.contains("is not UTF-8 text"));
}

/// What `load` says about a text, with the folder's name taken out.
fn shown(text: &str) -> (String, String) {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    write(&path, text, 0o644);
    let failure = load(&path).unwrap_err();
    assert_eq!((failure.kind, failure.kind.exit_code()), (Kind::Configuration, 3));
    let clean = |text: &str| text.replace(&format!("{}/", folder.path().display()), "");
    (clean(&failure.sentence), clean(failure.detail.as_deref().unwrap_or_default()))
}

#[test]
fn a_misspelt_key_is_shown() {
    let (sentence, detail) = shown("hosts:\n  cp1:\n    adress: 10.0.0.11   # the first\n    role: control_plane\n");
    assert_eq!(sentence, "inventory.yaml has 2 errors");
    insta::assert_snapshot!(detail, @r"
    error: `adress` is no key of `hosts.cp1`
     --> inventory.yaml:3:5
      |
    3 |     adress: 10.0.0.11   # the first
      |     ^^^^^^ unknown key
      |
      = help: did you mean `address`?

    error: `hosts.cp1.role` has to be `control-plane` or `worker`, but this is `control_plane`
     --> inventory.yaml:4:11
      |
    4 |     role: control_plane
      |           ^^^^^^^^^^^^^
      |
      = help: did you mean `control-plane`?
    ");
}

#[test]
fn two_hosts_at_one_address_are_shown_together() {
    let (sentence, detail) = shown(concat!(
        "cluster: {endpoint: api.example}\n",
        "hosts:\n",
        "  cp1: {address: 10.0.0.11, role: control-plane}\n",
        "  cp2: {address: 10.0.0.12, role: control-plane}\n",
        "  w1: {address: 10.0.0.21}\n",
        "  w2: {address: 10.0.0.11}\n",
    ));
    assert_eq!(sentence, "inventory.yaml has 1 error and 1 warning");
    insta::assert_snapshot!(detail, @r"
    warning: 2 control planes survive no more losses than 1
     --> inventory.yaml:4:35
      |
    4 |   cp2: {address: 10.0.0.12, role: control-plane}
      |                                   ^^^^^^^^^^^^^
      |
      = help: take an odd number of control planes

    error: the hosts `cp1` and `w2` have the same address, 10.0.0.11
     --> inventory.yaml:6:17
      |
    3 |   cp1: {address: 10.0.0.11, role: control-plane}
      |                  --------- first here
    ...
    6 |   w2: {address: 10.0.0.11}
      |                 ^^^^^^^^^ again
      |
      = help: one machine is one host
    ");
}

#[test]
fn a_password_is_refused_without_being_shown() {
    let (sentence, detail) = shown("ssh: {usr: ops, password: hunter2}\nhosts: [cp1]\n");
    assert_eq!(sentence, "inventory.yaml has 2 errors");
    assert!(!detail.contains("hunter2"));
    insta::assert_snapshot!(detail, @r#"
    error: `usr` is no key of `ssh`
     --> inventory.yaml:1:7
      |
    1 | ssh: {usr: ops, password: *******}
      |       ^^^ unknown key
      |
      = help: did you mean `user`?

    error: `ssh.password` has to say where the password comes from: an inventory is shared and kept, passwords are not
     --> inventory.yaml:1:17
      |
    1 | ssh: {usr: ops, password: *******}
      |                 ^^^^^^^^
      |
      = help: write `{ask: true}`, `{file: PATH}` or `{command: "..."}`
    "#);
}

#[test]
fn files_that_are_no_inventory_are_refused() {
    let folder = folder();
    let missing = load(&folder.path().join("none.yaml")).unwrap_err();
    assert!(missing.sentence.starts_with("cannot read the inventory") && missing.advice.is_some());
    assert_eq!(load(folder.path()).unwrap_err().kind, Kind::Configuration);
    let path = folder.path().join("binary");
    std::fs::write(&path, [0, 0xff]).unwrap();
    assert!(load(&path).unwrap_err().sentence.ends_with("is not UTF-8 text and is no inventory"));
    std::fs::write(&path, vec![b'a'; 5 << 20]).unwrap();
    assert!(load(&path).unwrap_err().sentence.ends_with("bytes and is no inventory"));
}

#[test]
fn warnings_come_with_a_good_inventory() {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    write(&path, "cluster: {bundle: later}\nhosts: [a]", 0o644);
    let loaded = load_with_warnings(&path).unwrap();
    assert_eq!((loaded.warnings.len(), loaded.inventory.hosts.len()), (1, 1));
    assert!(loaded.rendered_warnings.unwrap().starts_with("warning: `cluster.bundle`"));
    write(&path, "hosts: [a]", 0o644);
    assert_eq!(load_with_warnings(&path).unwrap().rendered_warnings, None);
}

#[test]
fn many_hosts_are_judged_quickly() {
    let hosts: String = (0..10_000)
        .map(|index| format!("  w{index}: {{address: 172.16.{}.{}, labels: {{rack: r1}}}}\n", index / 250, index % 250))
        .collect();
    let text = format!(
        "cluster: {{network: {{pods: 10.192.0.0/10, services: 10.96.0.0/12}}}}\nhosts:\n  cp: {{role: control-plane}}\n{hosts}"
    );
    let started = std::time::Instant::now();
    assert_eq!(good(&text).hosts.len(), 10_001);
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![
        any::<String>(),
        "((cluster|ssh|hosts|name|network|pods|password|labels|a|b): ?[-{\\[\\]},:'\"|>&*~a0./]{0,4}\n? {0,4}){0,12}",
    ]) {
        let Judged { inventory, findings } = judge(&text, Path::new("/nowhere/inventory.yaml"), Path::new(HOME));
        proptest::prop_assert!(inventory.is_some() || findings.iter().any(|finding| finding.severity == Severity::Error));
        if let Some(inventory) = inventory {
            let _ = inventory.first_control_plane();
        }
        let masked = super::mask::mask(&text);
        proptest::prop_assert_eq!(masked.chars().count(), text.chars().count());
        let _ = crate::yaml::render(&findings, &masked, Path::new("x"));
    }

    /// A good inventory with one random character replaced: still no panic, and places stay inside of the text.
    #[test]
    fn a_damaged_example_is_judged(index in 0..EXAMPLE.len(), letter in "[-{}\\[\\]:,'\"#&*!|>%@ \ta0\n]") {
        let mut text = EXAMPLE.to_owned();
        text.replace_range(index..=index, &letter);
        let lines = text.lines().count().max(1);
        for finding in judge(&text, Path::new("/nowhere/inventory.yaml"), Path::new(HOME)).findings {
            proptest::prop_assert!((1..=lines).contains(&finding.line) && finding.column > 0, "{finding:?}");
        }
    }
}
