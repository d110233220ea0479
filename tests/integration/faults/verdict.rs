//! What must hold after any fault: the same command ends green, nothing is lost, nothing is doubled.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::faults::boundary::Second;
use crate::faults::ground::{Ground, tail};
use crate::program::Finished;

/// How long the list of pods may take to be complete.
const SETTLE: Duration = Duration::from_secs(30);

/// The object by which it is known whether a cluster's objects were lost.
const MARKER: &str = "faults-marker";

/// What a cluster is known by: if one of these changes, something was lost and made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Names and UIDs of the nodes.
    nodes: Vec<(String, String)>,
    /// UID of an object that was put there.
    marker: Option<String>,
}

/// A cluster as it was judged.
pub struct Whole {
    /// How long the `up` took that made it so, in seconds.
    pub again: f64,
    /// What it is known by.
    pub identity: Identity,
}

/// The authority of the cluster on the control plane, where there is one.
pub fn authority(ground: &Ground) -> String {
    ground.bed.try_sh(ground.host(0), "sha256sum /etc/kubernetes/pki/ca.crt /etc/kubernetes/admin.conf").stdout
}

/// `up` again ends green, a cluster with every part once is there, and one more `up` finds nothing to do. A cluster without
/// a mark gets one.
pub fn whole(ground: &Ground) -> Result<Whole, String> {
    let again = ground.run("up");
    if again.code != 0 {
        return Err(format!("up again: {}", tail(&again)));
    }
    let began = Instant::now();
    let mut identity = loop {
        // The kubelet tells of static pods, which run already, a moment later.
        match every_part_once(&look(ground)?, ground.second) {
            Ok(identity) => break identity,
            Err(wrong) if began.elapsed() > SETTLE => return Err(wrong),
            Err(_) => std::thread::park_timeout(Duration::from_millis(500)),
        }
    };
    if ground.second == Second::ControlPlane {
        two_members(ground)?;
    }
    for host in 0..2 {
        let routes = ground.bed.try_sh(ground.host(host), "ip route | grep -c '^10.244.*via'").stdout;
        if routes.trim() != "1" {
            return Err(format!("{} has {} routes to pods of others", ground.host(host), routes.trim()));
        }
    }
    let mut last = ground.run("up");
    let mut changes = changes_of(&last);
    // containerd 2.3.7 ends by itself (a nil pointer in its NRI part) when the kubelet stops a sandbox whose shim was killed,
    // up to some seconds after the `up`: then the next one starts it, and the one after that finds nothing to do.
    if last.code == 0 && !changes.is_empty() && changes.iter().all(|change| change == "start containerd.service") {
        println!("containerd had ended by itself and was started again");
        last = ground.run("up");
        changes = changes_of(&last);
    }
    if last.code != 0 || !changes.is_empty() {
        return Err(format!("one more up changed {changes:?}: {}", tail(&last)));
    }
    if identity.marker.is_none() {
        let path = "jsonpath={.metadata.uid}";
        let made = ground.kubectl(&["create", "configmap", MARKER, "--from-literal=a=b", "-o", path])?;
        identity.marker = Some(made.trim().to_owned());
    }
    Ok(Whole { again: again.elapsed.as_secs_f64(), identity })
}

/// etcd has both members, each with its vote, and none besides.
fn two_members(ground: &Ground) -> Result<(), String> {
    let folder = "/etc/kubernetes/pki/etcd";
    let certificates = ["cacert ca.crt", "cert peer.crt", "key peer.key"]
        .map(|pair| format!("--{}", pair.replace(' ', &format!("={folder}/"))));
    let pod = format!("etcd-{}", ground.host(0));
    let mut words = vec!["exec", "-n", "kube-system", &pod, "--", "etcdctl"];
    words.extend(certificates.iter().map(String::as_str));
    words.extend(["member", "list"]);
    let list = ground.kubectl(&words)?;
    // ID, status, name, peer addresses, client addresses, is learner.
    let votes = list.lines().filter(|line| line.contains(", started, ") && line.ends_with(", false")).count();
    if (votes, list.lines().count()) == (2, 2) { Ok(()) } else { Err(format!("etcd's members:\n{list}")) }
}

/// What a run altered.
fn changes_of(finished: &Finished) -> Vec<String> {
    let events = finished.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let changed = events.filter(|event| event["event"] == "changed");
    changed.filter_map(|event| Some(event["change"].as_str()?.to_owned())).collect()
}

/// Nodes, pods and the mark.
fn look(ground: &Ground) -> Result<Vec<Value>, String> {
    let text = ground.kubectl(&["get", "nodes,pods,configmaps", "-A", "-o", "json"])?;
    let mut list: Value = serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        other => Err(format!("no list: {other}")),
    }
}

/// The cluster of two hosts: both nodes are Ready, all pods run, and none is there twice.
fn every_part_once(items: &[Value], second: Second) -> Result<Identity, String> {
    let control_planes = if second == Second::ControlPlane { 2 } else { 1 };
    let expected = [
        ("coredns-", 2),
        ("etcd-", control_planes),
        ("kube-apiserver-", control_planes),
        ("kube-controller-manager-", control_planes),
        ("kube-proxy-", 2),
        ("kube-scheduler-", control_planes),
    ];
    let of_kind = |kind: &'static str| items.iter().filter(move |item| item["kind"] == kind);
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let identifier = |item: &Value| item["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    if of_kind("Node").count() != 2 || !of_kind("Node").all(is_ready) {
        let nodes: Vec<_> = of_kind("Node").map(|node| (name(node), is_ready(node))).collect();
        return Err(format!("nodes: {nodes:?}"));
    }
    // A pod whose container ended, and is not started again, is still Running.
    let waits = |pod: &Value| {
        let mut containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        containers.any(|container| container["state"]["waiting"].is_object())
    };
    let runs = |pod: &Value| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null() && !waits(pod)
    };
    // What a kubelet evicted for want of room stays on record for a while, and somebody else took its place.
    let evicted = |pod: &&Value| pod["status"]["reason"] == "Evicted";
    let pods: Vec<(String, bool)> =
        of_kind("Pod").filter(|pod| !evicted(pod)).map(|pod| (name(pod), runs(pod))).collect();
    let count = |of: &str| pods.iter().filter(|(pod, runs)| *runs && pod.starts_with(of)).count();
    let all = expected.iter().map(|(_, count)| count).sum::<usize>();
    if pods.len() != all || expected.iter().any(|(of, expected)| count(of) != *expected) {
        return Err(format!("pods: {pods:?}"));
    }
    Ok(Identity {
        nodes: of_kind("Node").map(|node| (name(node), identifier(node))).collect(),
        marker: of_kind("ConfigMap").find(|item| name(item) == MARKER).map(identifier),
    })
}
