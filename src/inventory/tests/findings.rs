//! Every finding with its place, as a table.

use std::path::Path;

use rstest::rstest;

use super::HOME;
use crate::inventory::judge;
use crate::yaml::Severity;

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
#[case("cluster: {endpoint: built-in}\nhosts: {a: {role: control-plane}, b: {role: control-plane}}", &[
    "2:45 warning: 2 control planes survive no more losses than 1",
])]
#[case("cluster: {endpoint: builtin}\nhosts: [a]", &["1:21 `cluster.endpoint`: `builtin` is neither `built-in` nor `host:port`; did you mean"])]
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
    "1:48 `ssh.become` has to be `sudo` or `doas` or `none`, but this is `su`",
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
    "1:54 `ssh.identity`: there is no file /work/x.pub",
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
