//! Hosts that leave a cluster which goes on: their pods go first, as far as budgets let them; and those that are dead are
//! forgotten.

use std::path::Path;
use std::time::Duration;

use crate::bed::{Bed, difference};
use crate::program::{Running, clusterctl, down, kubectl, refused, run, succeeds, up, wait_for};

/// Two pods that anybody may run, one of which must always be there.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: clusterctl.test/busybox:2
        imagePullPolicy: Never
        command: ["sh", "-c", "mkdir /tmp/www && exec httpd -f -p 8080 -h /tmp/www"]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: web}}
"#;

fn apply(inventory: &Path, bed: &Bed, text: &str) {
    let host = &bed.hosts[0].name;
    bed.sh(host, &format!("printf '%s' '{text}' > /tmp/objects.yaml"));
    kubectl(inventory, &["apply", "-f", "/tmp/objects.yaml"]);
    bed.sh(host, "rm /tmp/objects.yaml");
}

fn ready_pods(inventory: &Path) -> usize {
    kubectl(inventory, &["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]).parse().unwrap_or(0)
}

/// The nodes that the pods are on.
fn places(inventory: &Path) -> String {
    kubectl(inventory, &["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"])
}

#[test]
fn the_pods_of_a_host_that_leaves_go_first() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let [control_plane, worker] = [0, 1].map(|at| bed.hosts[at].name.as_str());
    let before = bed.listing(worker);
    succeeds(up(&inventory));
    let image = crate::bed::bed(&["test-image"]);
    for host in &bed.hosts {
        crate::bed::bed(&["host", "import", &host.name, image.trim()]);
    }
    apply(&inventory, &bed, WEB);
    wait_for("a pod on the worker", Duration::from_secs(60), || ready_pods(&inventory) == 1);

    // There is no other place for it, and one must be there: nothing is taken away, the node stays in service.
    let log = bed.folder.path().join("events");
    let arguments = ["down", "-i", inventory.to_str().unwrap(), "--yes", "--host", worker, "--drain-limit", "12s"];
    let arguments = [&arguments[..], &["--log", log.to_str().unwrap()]].concat();
    let mut leaving = Running::start(&clusterctl(), &arguments, &[]);
    wait_for("the pods are asked to leave", Duration::from_secs(20), || {
        std::fs::read_to_string(&log).is_ok_and(|events| events.contains("\"step\":\"drain\""))
    });
    // A colleague whose inventory has no such line alters nothing meanwhile.
    let shorter = bed.folder.path().join("shorter.yaml");
    let text = std::fs::read_to_string(&inventory).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(&format!("{worker}:")));
    std::fs::write(&shorter, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    refused(&up(&shorter), 12, &[control_plane, "clusterctl down"]);
    let refused = leaving.finish();
    assert_eq!(refused.code, 11, "{}\n{}", refused.stdout, refused.stderr);
    for words in ["did not become empty within 12 seconds", "default/web-", "--no-drain", worker] {
        assert!(refused.stderr.contains(words), "no «{words}» in:\n{}", refused.stderr);
    }
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert_eq!((nodes.matches(" Ready ").count(), nodes.contains("SchedulingDisabled")), (2, false), "{nodes}");
    assert_eq!(ready_pods(&inventory), 1);

    // The control plane takes pods from now on, and one of two may be away.
    kubectl(&inventory, &["taint", "nodes", control_plane, "node-role.kubernetes.io/control-plane-"]);
    kubectl(&inventory, &["scale", "deployment", "web", "--replicas=2"]);
    wait_for("two pods", Duration::from_secs(60), || ready_pods(&inventory) == 2);
    let left = succeeds(run("down", &inventory, &["--yes", "--host", worker]));
    eprintln!("a worker with pods left: {:.1} s", left.elapsed.as_secs_f64());
    assert!(ready_pods(&inventory) >= 1, "the budget was broken");
    assert!(!places(&inventory).contains(worker), "{}", places(&inventory));
    assert_eq!(kubectl(&inventory, &["get", "nodes", "-o", "name"]).lines().count(), 1);
    assert_eq!(bed.listing(worker), before);
    wait_for("two pods elsewhere", Duration::from_secs(60), || ready_pods(&inventory) == 2);

    // What etcd knows stays for whoever wants to look into it, and nothing else; the next `down` takes that away, too.
    let kept = succeeds(run("down", &inventory, &["--yes", "--keep-data"]));
    assert!(!kept.stderr.contains("different from before"), "{}", kept.stderr);
    bed.sh(
        control_plane,
        "test -d /var/lib/etcd/member/wal && ! test -e /etc/kubernetes && ! test -e /var/lib/kubelet",
    );
    assert_eq!(bed.listing(worker), before);
    succeeds(down(&inventory));
    bed.sh(control_plane, "! test -e /var/lib/etcd/member");
}

/// What flannel, Calico and Cilium leave on a host, as far as the kernel of every machine can have it.
const OF_PLUGINS: &str = r#"
set -e
mkdir -p /etc/cni/net.d /run/flannel /var/lib/calico
echo '{}' > /etc/cni/net.d/10-flannel.conflist
echo '{}' > /etc/cni/net.d/10-calico.conflist
echo '{}' > /etc/cni/net.d/05-cilium.conflist
echo 'FLANNEL_NETWORK=10.244.0.0/16' > /run/flannel/subnet.env
echo host > /var/lib/calico/nodename
ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0
ip link add vxlan.calico type vxlan id 4096 dstport 4789 dev eth0
ip link add cilium_net type veth peer name cilium_host
ip link add cali0123456789a type veth peer name cali0123456789b
ip link add cni0 type bridge
ip address add 10.244.0.1/24 dev cni0 && ip link set cni0 up
ip route add blackhole 10.244.7.0/26 proto bird
iptables -N FLANNEL-FWD && iptables -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE
iptables -N cali-FORWARD && iptables -A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
iptables -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x10000/0x10000 -j ACCEPT
iptables -N CILIUM_FORWARD && iptables -A FORWARD -m comment --comment "cilium-feeder: CILIUM_FORWARD" -j CILIUM_FORWARD
nft add table ip flannel-ipv4
"#;

#[test]
fn a_reset_takes_what_plugins_left_and_names_what_stays() {
    let bed = Bed::bare(1);
    let host = bed.hosts[0].name.as_str();
    bed.send(host, &[&crate::program::clusterctl()], "/root");
    // Of a person: a chain, a link, and a plugin that nobody knows.
    bed.sh(host, "iptables -N MINE && iptables -A FORWARD -j MINE && ip link add mine type bridge");
    bed.sh(host, "mkdir -p /etc/cni/net.d && echo '{}' > /etc/cni/net.d/50-mine.conf");
    let before = bed.listing(host);
    bed.sh(host, OF_PLUGINS);
    assert_ne!(bed.listing(host), before);
    let reset = bed.try_sh(host, "/root/clusterctl node reset --yes");
    assert_eq!(reset.code, 0, "{}\n{}", reset.stdout, reset.stderr);
    let named: Vec<&str> = reset.stderr.lines().filter(|line| line.contains(" stays")).collect();
    assert!(named.len() == 1 && named[0].contains("/etc/cni/net.d/50-mine.conf"), "{}", reset.stderr);
    let after = bed.listing(host);
    assert_eq!(before, after, "{host} is not as it was:\n{}", difference(&before, &after));
}

fn members(inventory: &Path, from: &str) -> String {
    let pki = "/etc/kubernetes/pki/etcd";
    let pod = format!("etcd-{from}");
    let flags = [("cacert", "ca.crt"), ("cert", "healthcheck-client.crt"), ("key", "healthcheck-client.key")];
    let flags = flags.map(|(flag, file)| format!("--{flag}={pki}/{file}"));
    let mut words = vec!["exec", "-n", "kube-system", &pod, "--", "etcdctl"];
    words.extend(flags.iter().map(String::as_str));
    kubectl(inventory, &[&words[..], &["member", "list"]].concat())
}

#[test]
fn a_control_plane_that_is_dead_is_forgotten_and_a_fresh_one_joins() {
    let bed = Bed::bare(3);
    let text = crate::bed::bed(&["inventory", &bed.name, "--control-planes", "3"]);
    let (head, rest) = text.split_once("cluster:\n").expect("the bed's inventory has a cluster");
    let inventory = bed.write_inventory(&format!("{head}cluster:\n  endpoint: built-in\n{rest}"));
    let [first, dead] = [0, 2].map(|at| bed.hosts[at].name.as_str());
    succeeds(up(&inventory));

    // Its machine lives and only the way to it is broken: nobody takes it out behind its back.
    bed.sh(dead, "systemctl stop ssh.socket ssh 2>/dev/null; systemctl stop sshd 2>/dev/null; true");
    let alive = run("down", &inventory, &["--yes", "--host", dead]);
    assert_eq!(alive.code, 4, "{}\n{}", alive.stdout, alive.stderr);
    for words in [dead, "lives: it reports", "switch it off"] {
        assert!(alive.stderr.contains(words), "no «{words}» in:\n{}", alive.stderr);
    }
    assert_eq!(members(&inventory, first).matches("started").count(), 3);

    crate::bed::bed(&["host", "kill", dead]);
    let gone = succeeds(run("down", &inventory, &["--yes", "--host", dead]));
    eprintln!("a dead control plane was forgotten: {:.1} s", gone.elapsed.as_secs_f64());
    assert!(gone.stderr.contains("should it come back"), "{}", gone.stderr);
    let left = members(&inventory, first);
    assert_eq!((left.matches("started").count(), left.contains(dead)), (2, false), "{left}");
    assert_eq!(kubectl(&inventory, &["get", "nodes", "-o", "name"]).lines().count(), 2);

    // The machine was repaired and is taken back in: alone it is given back first, then it joins as a fresh one.
    crate::bed::bed(&["host", "start", dead]);
    let alone = bed.folder.path().join("alone.yaml");
    let others = |line: &&str| !bed.hosts[..2].iter().any(|host| line.contains(&format!("{}:", host.name)));
    let text: String =
        std::fs::read_to_string(&inventory).unwrap().lines().filter(others).map(|line| format!("{line}\n")).collect();
    std::fs::write(&alone, text).unwrap();
    succeeds(down(&alone));
    succeeds(up(&inventory));
    assert_eq!(members(&inventory, first).matches("started").count(), 3);
    succeeds(down(&inventory));
}
