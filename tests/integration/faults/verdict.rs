//! What must hold after any fault: the same command ends green, nothing is lost, nothing is doubled.

use std::time::{Duration, Instant};

use crate::faults::ground::{Ground, tail};

/// How long the list of pods may take to be complete.
const SETTLE: Duration = Duration::from_secs(30);

/// What a cluster is known by: if one of these changes, something was lost and made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// UIDs of the nodes.
    nodes: Vec<String>,
    /// UID of an object that was put there.
    marker: String,
}

/// Puts a mark into a cluster and tells what it is known by.
pub fn mark(ground: &Ground) -> Result<Identity, String> {
    ground.kubectl(&["create", "configmap", "marker", "--from-literal=a=b"])?;
    identity(ground)
}

/// What a cluster is known by.
pub fn identity(ground: &Ground) -> Result<Identity, String> {
    let path = "jsonpath={range .items[*]}{.metadata.name}={.metadata.uid}{\"\\n\"}{end}";
    let nodes = ground.kubectl(&["get", "nodes", "-o", path])?;
    let marker = ground.kubectl(&["get", "configmap", "marker", "-o", "jsonpath={.metadata.uid}"])?;
    Ok(Identity { nodes: nodes.lines().map(str::to_owned).collect(), marker })
}

/// The authority of the cluster on the control plane, where there is one.
pub fn authority(ground: &Ground) -> String {
    ground.bed.try_sh(ground.host(0), "sha256sum /etc/kubernetes/pki/ca.crt /etc/kubernetes/admin.conf").stdout
}

/// `up` again ends green, a cluster with every part once is there, and one more `up` finds nothing to do. Returns how
/// long the `up` took, in seconds.
pub fn whole(ground: &Ground) -> Result<f64, String> {
    let again = ground.run("up");
    if again.code != 0 {
        return Err(format!("up again: {}", tail(&again)));
    }
    let nodes = ground.kubectl(&["get", "nodes", "--no-headers"])?;
    if nodes.lines().count() != 2 || nodes.matches(" Ready ").count() != 2 {
        return Err(format!("nodes:\n{nodes}"));
    }
    let began = Instant::now();
    loop {
        // The kubelet tells of static pods, which run already, a moment later.
        match every_pod_once(&ground.kubectl(&["get", "pods", "-A", "--no-headers"])?) {
            Ok(()) => break,
            Err(pods) if began.elapsed() > SETTLE => return Err(pods),
            Err(_) => std::thread::park_timeout(Duration::from_millis(500)),
        }
    }
    for host in 0..2 {
        let routes = ground.bed.try_sh(ground.host(host), "ip route | grep -c '^10.244.*via'").stdout;
        if routes.trim() != "1" {
            return Err(format!("{} has {} routes to pods of others", ground.host(host), routes.trim()));
        }
    }
    let last = ground.run("up");
    let changes = last.stdout.lines().filter(|line| line.contains("\"event\":\"changed\"")).collect::<Vec<_>>();
    if last.code != 0 || !changes.is_empty() {
        return Err(format!("one more up changed {changes:?}: {}", tail(&last)));
    }
    Ok(again.elapsed.as_secs_f64())
}

/// The pods of a cluster of two: all run, and none is there twice.
fn every_pod_once(pods: &str) -> Result<(), String> {
    const EXPECTED: &[(&str, usize)] = &[
        ("coredns-", 2),
        ("etcd-", 1),
        ("kube-apiserver-", 1),
        ("kube-controller-manager-", 1),
        ("kube-proxy-", 2),
        ("kube-scheduler-", 1),
    ];
    let running = pods.lines().filter(|line| line.split_whitespace().nth(3) == Some("Running")).count();
    let right = EXPECTED.iter().all(|(name, count)| pods.matches(&format!(" {name}")).count() == *count);
    if right && running == EXPECTED.iter().map(|(_, count)| count).sum::<usize>() {
        Ok(())
    } else {
        Err(format!("pods:\n{pods}"))
    }
}
