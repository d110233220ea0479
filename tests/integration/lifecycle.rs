//! From bare hosts to a cluster and back, as a person does it.

use std::time::{Duration, Instant};

use crate::bed::{Bed, bed, difference};
use crate::program::{down, kubectl, run, up};

/// A pod that serves its own name over HTTP, and a Service in front of it. The image comes from the test bed.
const SERVER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: NODE
  containers:
  - name: server
    image: clusterctl.test/busybox:1
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
    image: clusterctl.test/busybox:1
    imagePullPolicy: Never
    command: ["sh", "-c", "for try in $(seq 60); do wget -q -T 2 -O - http://server.default.svc.cluster.local && exit 0; sleep 1; done; exit 1"]
"#;

fn apply(inventory: &std::path::Path, bed: &Bed, text: &str) {
    let file = bed.folder.path().join("objects.yaml");
    std::fs::write(&file, text).unwrap();
    let encoded = text.replace('\'', "'\\''");
    let control_plane = &bed.hosts[0].name;
    bed.sh(control_plane, &format!("printf '%s' '{encoded}' > /tmp/objects.yaml"));
    kubectl(inventory, &["apply", "-f", "/tmp/objects.yaml"]);
}

fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(300));
    }
}

/// A pod on one worker fetches from a pod on the other through a Service name: pod network, kube-proxy and DNS at once.
fn pods_reach_each_other(inventory: &std::path::Path, bed: &Bed) {
    let archive = crate::bed::bed(&["test-image"]);
    let (one, other) = (&bed.hosts[1].name, &bed.hosts[2].name);
    for host in [one, other] {
        crate::bed::bed(&["host", "import", host, archive.trim()]);
    }
    apply(inventory, bed, &SERVER.replace("NODE", one));
    apply(inventory, bed, &CLIENT.replace("NODE", other));
    let phase = || kubectl(inventory, &["get", "pod", "client", "-o", "jsonpath={.status.phase}"]);
    wait_for("the client's success", Duration::from_secs(90), || {
        let phase = phase();
        assert_ne!(phase, "Failed", "{}", kubectl(inventory, &["logs", "client"]));
        phase == "Succeeded"
    });
    assert_eq!(kubectl(inventory, &["logs", "client"]).trim(), "served-by-a-pod");
    // exec goes through the API server to the kubelet: the kubelet client certificate and its right.
    assert_eq!(kubectl(inventory, &["exec", "server", "--", "cat", "/tmp/www/index.html"]).trim(), "served-by-a-pod");
}

#[test]
fn up_makes_a_cluster_and_down_leaves_nothing() {
    let bed = Bed::bare(3);
    let inventory = bed.inventory();
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();

    let first = up(&inventory);
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    let ready = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert_eq!(ready.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count(), 3, "{ready}");
    let pods = kubectl(&inventory, &["get", "pods", "-A", "--no-headers"]);
    assert!(pods.lines().all(|line| line.split_whitespace().nth(3) == Some("Running")), "{pods}");

    let kubeconfig = bed.folder.path().join(format!("{}.kubeconfig", bed.name));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kubeconfig).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    pods_reach_each_other(&inventory, &bed);

    let second =
        run("up", &inventory, &["--yes", "--bundle", crate::program::bundle().to_str().unwrap(), "--output", "json"]);
    assert_eq!(second.code, 0, "{}\n{}", second.stdout, second.stderr);
    let events: Vec<serde_json::Value> = second
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let changed: Vec<_> = events.iter().filter(|event| event["event"] == "changed").collect();
    assert!(changed.is_empty(), "the second up changed: {changed:?}");
    let end = events.iter().find(|event| event["event"] == "run-finished").expect("a run-finished event");
    assert_eq!(end["changes"], 0, "{end}");

    let status = run("status", &inventory, &[]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    for host in &bed.hosts {
        let line = status.stdout.lines().find(|line| line.contains(&host.name)).unwrap_or_default();
        assert!(line.contains("Ready"), "{}", status.stdout);
    }

    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    assert!(!kubeconfig.exists());
    for (host, before) in bed.hosts.iter().zip(&before) {
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
    }
    let again = down(&inventory);
    assert_eq!(again.code, 0, "{}\n{}", again.stdout, again.stderr);
}

#[test]
fn a_second_cluster_can_be_made_where_the_first_one_was() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    for _ in 0..2 {
        let made = up(&inventory);
        assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
        let gone = down(&inventory);
        assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    }
}

#[test]
fn a_worker_added_later_joins_and_the_others_are_left_alone() {
    let bed = Bed::bare(3);
    let text = bed.inventory_text("root");
    let without_last: String =
        text.lines().filter(|line| !line.contains(&bed.hosts[2].name)).map(|line| format!("{line}\n")).collect();
    let inventory = bed.write_inventory(&without_last);
    let first = up(&inventory);
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    let started = bed.sh(&bed.hosts[1].name, "systemctl show -p ActiveEnterTimestampMonotonic kubelet");
    let inventory = bed.write_inventory(&text);
    let second = up(&inventory);
    assert_eq!(second.code, 0, "{}\n{}", second.stdout, second.stderr);
    assert_eq!(started, bed.sh(&bed.hosts[1].name, "systemctl show -p ActiveEnterTimestampMonotonic kubelet"));
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).lines().count(), 3);
}

#[test]
fn down_without_a_dead_host_names_it_and_frees_the_others() {
    let bed = Bed::bare(3);
    let inventory = bed.inventory();
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    let dead = &bed.hosts[2].name;
    bed_host("stop", dead);
    let gone = down(&inventory);
    assert_eq!(gone.code, 4, "{}\n{}", gone.stdout, gone.stderr);
    assert!(gone.stderr.contains(dead), "{}", gone.stderr);
    for host in &bed.hosts[..2] {
        assert_eq!(bed.try_sh(&host.name, "test -e /etc/kubernetes/kubelet.conf").code, 1);
    }
    bed_host("start", dead);
    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
}

fn bed_host(verb: &str, host: &str) {
    bed(&["host", verb, host]);
}
