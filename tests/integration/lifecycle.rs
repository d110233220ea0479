//! From bare hosts to a cluster and back, as a person does it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bed::{Bed, bed, difference};
use crate::program::{down, kubectl, run, succeeds, up, wait_for};

/// A pod that serves its own name over HTTP, and a Service in front of it. The image comes from the test bed.
const SERVER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: NODE
  containers:
  - name: server
    image: clusterctl.test/busybox:2
    imagePullPolicy: Never
    command: ["sh", "-c", "mkdir /tmp/www && echo served-by-a-pod > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
"#;

const CLIENT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: NODE
  restartPolicy: Never
  containers:
  - name: client
    image: clusterctl.test/busybox:2
    imagePullPolicy: Never
    command: ["sh", "-c", "for try in $(seq 60); do fetch server.default.svc.cluster.local 80 && exit 0; sleep 0.5; done; exit 1"]
"#;

fn apply(inventory: &Path, bed: &Bed, text: &str) {
    let encoded = text.replace('\'', "'\\''");
    bed.sh(&bed.hosts[0].name, &format!("printf '%s' '{encoded}' > /tmp/objects.yaml"));
    kubectl(inventory, &["apply", "-f", "/tmp/objects.yaml"]);
    bed.sh(&bed.hosts[0].name, "rm /tmp/objects.yaml");
}

/// A pod on one worker fetches from a pod on the other through a Service name: pod network, kube-proxy and DNS at once.
fn pods_reach_each_other(inventory: &Path, bed: &Bed) {
    let archive = crate::bed::bed(&["test-image"]);
    let (one, other) = (&bed.hosts[1].name, &bed.hosts[2].name);
    for host in [one, other] {
        crate::bed::bed(&["host", "import", host, archive.trim()]);
    }
    apply(inventory, bed, &SERVER.replace("NODE", one));
    a_client_is_served(inventory, bed);
    // exec goes through the API server to the kubelet: the kubelet client certificate and its right.
    assert_eq!(kubectl(inventory, &["exec", "server", "--", "cat", "/tmp/www/index.html"]).trim(), "served-by-a-pod");
}

/// Runs the client on the last worker, a new pod each time.
fn a_client_is_served(inventory: &Path, bed: &Bed) {
    kubectl(inventory, &["delete", "pod", "client", "--ignore-not-found", "--grace-period=0", "--force"]);
    apply(inventory, bed, &CLIENT.replace("NODE", &bed.hosts[2].name));
    let phase = || kubectl(inventory, &["get", "pod", "client", "-o", "jsonpath={.status.phase}"]);
    wait_for("the client's success", Duration::from_secs(90), || {
        let phase = phase();
        assert_ne!(phase, "Failed", "{}", kubectl(inventory, &["logs", "client"]));
        phase == "Succeeded"
    });
    // Tries before it was served are in the log too: after a reboot DNS comes a moment later than the nodes.
    let log = kubectl(inventory, &["logs", "client"]);
    assert_eq!(log.lines().next_back(), Some("served-by-a-pod"), "{log}");
}

fn listings(bed: &Bed) -> Vec<String> {
    bed.hosts.iter().map(|host| bed.listing(&host.name)).collect()
}

/// Nothing of ours is on any host: no process, mount, interface, rule, route, unit, file or setting.
fn all_is_as_it_was(bed: &Bed, before: &[String]) {
    for (host, before) in bed.hosts.iter().zip(before) {
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
    }
}

fn ready(inventory: &Path) -> usize {
    let nodes = kubectl(inventory, &["get", "nodes", "--no-headers"]);
    nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count()
}

#[test]
fn up_makes_a_cluster_and_down_leaves_nothing() {
    let bed = Bed::bare(3);
    let inventory = bed.inventory();
    let before = listings(&bed);

    succeeds(up(&inventory));
    assert_eq!(ready(&inventory), 3);
    let pods = kubectl(&inventory, &["get", "pods", "-A", "--no-headers"]);
    assert!(pods.lines().all(|line| line.split_whitespace().nth(3) == Some("Running")), "{pods}");

    let kubeconfig = bed.folder.path().join(format!("{}.kubeconfig", bed.name));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kubeconfig).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    pods_reach_each_other(&inventory, &bed);
    a_second_up_changes_nothing(&inventory);

    let status = succeeds(run("status", &inventory, &[]));
    for host in &bed.hosts {
        let line = status.stdout.lines().find(|line| line.contains(&host.name)).unwrap_or_default();
        assert!(line.contains("Ready"), "{}", status.stdout);
    }

    succeeds(down(&inventory));
    assert!(!kubeconfig.exists());
    all_is_as_it_was(&bed, &before);
    succeeds(down(&inventory));
    all_is_as_it_was(&bed, &before);
}

/// Routes do not cross a router: between hosts of two segments pods' packets travel in VXLAN.
#[test]
fn pods_reach_each_other_through_a_router() {
    let bed = Bed::in_two_subnets(3);
    let inventory = bed.inventory();
    let before = listings(&bed);
    succeeds(up(&inventory));
    assert_eq!(ready(&inventory), 3);
    // The server's host is behind the router, the client's is not.
    pods_reach_each_other(&inventory, &bed);
    let tunnels = |host: &str| bed.sh(host, "ip -o link show type vxlan | wc -l").trim().to_owned();
    assert!(bed.hosts.iter().all(|host| tunnels(&host.name) == "1"), "no tunnel");
    a_second_up_changes_nothing(&inventory);
    succeeds(down(&inventory));
    all_is_as_it_was(&bed, &before);
}

fn a_second_up_changes_nothing(inventory: &Path) {
    let bundle = crate::program::bundle();
    let second = run("up", inventory, &["--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json"]);
    let second = succeeds(second);
    let events: Vec<serde_json::Value> = second
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let changed: Vec<_> = events.iter().filter(|event| event["event"] == "changed").collect();
    assert!(changed.is_empty(), "the second up changed: {changed:?}");
    let end = events.iter().find(|event| event["event"] == "run-finished").expect("a run-finished event");
    assert_eq!(end["changes"], 0, "{end}");
}

/// One cluster through what happens to clusters in a year.
#[test]
fn a_cluster_grows_is_mended_outlives_a_reboot_and_goes_without_a_dead_host() {
    let bed = Bed::bare(3);
    let before = listings(&bed);
    let inventory = a_worker_is_added(&bed);
    pods_reach_each_other(&inventory, &bed);
    what_was_broken_is_mended(&inventory, &bed);
    all_hosts_are_rebooted(&inventory, &bed);
    a_dead_host_is_named(&inventory, &bed);
    all_is_as_it_was(&bed, &before);
}

/// The steps in which an `up` altered something on a host.
fn altered(inventory: &Path, host: &str) -> Vec<String> {
    let bundle = crate::program::bundle();
    let run = succeeds(run("up", inventory, &["--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json"]));
    let events = run.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let altering = events.filter(|event| event["event"] == "step-finished" && event["changes"] != 0);
    altering.filter(|event| event["host"] == host).map(|event| event["step"].as_str().unwrap().to_owned()).collect()
}

/// The others are left alone but for a route: their kubelet is not even restarted.
fn a_worker_is_added(bed: &Bed) -> PathBuf {
    let (worker, added) = (&bed.hosts[1].name, &bed.hosts[2].name);
    let text = bed.inventory_text("root");
    let without: String = text.lines().filter(|line| !line.contains(added)).map(|line| format!("{line}\n")).collect();
    let inventory = bed.write_inventory(&without);
    succeeds(up(&inventory));
    let started = || bed.sh(worker, "systemctl show -p ActiveEnterTimestampMonotonic kubelet");
    let before = started();
    let inventory = bed.write_inventory(&text);
    assert_eq!(altered(&inventory, worker), ["network"]);
    assert_eq!(started(), before);
    assert_eq!(ready(&inventory), 3);
    inventory
}

/// What a person may break on a node, `up` finds and mends.
fn what_was_broken_is_mended(inventory: &Path, bed: &Bed) {
    let (control_plane, one, other) = (&bed.hosts[0].name, &bed.hosts[1].name, &bed.hosts[2].name);
    bed.sh(control_plane, "ip route flush 10.244.0.0/16; ip route | grep -c via.*10.244 || true");
    bed.sh(one, "rm /etc/cni/net.d/*; systemctl stop kubelet");
    bed.sh(other, "systemctl stop containerd; rm /etc/sysctl.d/*clusterctl*; sysctl -q -w net.ipv4.ip_forward=0");
    // Typed on another laptop: inventory and hosts are enough.
    let kubeconfig = inventory.with_file_name(format!("{}.kubeconfig", bed.name));
    std::fs::remove_file(&kubeconfig).unwrap();
    succeeds(up(inventory));
    let kubeconfig = std::fs::metadata(&kubeconfig).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kubeconfig.permissions()) & 0o777, 0o600);
    assert_eq!(ready(inventory), 3);
    a_client_is_served(inventory, bed);
    assert_eq!(bed.sh(control_plane, "ip route | grep -c '^10.244.*via'").trim(), "2");
    a_second_up_changes_nothing(inventory);
}

fn all_hosts_are_rebooted(inventory: &Path, bed: &Bed) {
    for host in &bed.hosts {
        bed_host("restart", &host.name);
    }
    let answers = || run("kubectl", inventory, &["--", "get", "nodes", "--no-headers"]).code == 0;
    wait_for("an API server after the reboot", Duration::from_secs(120), answers);
    // What the nodes were before the reboot is still written there for a while; a lease of now tells.
    let leases = || {
        let path = "jsonpath={range .items[*]}{.spec.renewTime}{\"\\n\"}{end}";
        kubectl(inventory, &["get", "leases", "-n", "kube-node-lease", "-o", path])
    };
    let old: Vec<String> = leases().lines().map(str::to_owned).collect();
    wait_for("all nodes' life signs after the reboot", Duration::from_secs(120), || {
        let now = leases();
        old.iter().all(|old| !now.contains(old)) && ready(inventory) == 3
    });
    a_client_is_served(inventory, bed);
}

fn a_dead_host_is_named(inventory: &Path, bed: &Bed) {
    let dead = &bed.hosts[2].name;
    bed_host("stop", dead);
    let gone = down(inventory);
    assert_eq!(gone.code, 4, "{}\n{}", gone.stdout, gone.stderr);
    assert!(gone.stderr.contains(dead), "{}", gone.stderr);
    for host in &bed.hosts[..2] {
        assert_eq!(bed.try_sh(&host.name, "test -e /etc/kubernetes/kubelet.conf").code, 1);
    }
    bed_host("start", dead);
    succeeds(down(inventory));
}

fn bed_host(verb: &str, host: &str) {
    bed(&["host", verb, host]);
}
