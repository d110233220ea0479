//! Clusters that become what the inventory says now: a changed configuration, a deleted line, a cluster of kubeadm's.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, bed};
use crate::program::{bundle, call, clusterctl, kubectl, refused, run, succeeds, up, wait_for};

fn nothing_is_to_do(inventory: &Path) {
    let plan = run("plan", inventory, &["--bundle", bundle().to_str().unwrap()]);
    assert_eq!(plan.code, 0, "{}\n{}", plan.stdout, plan.stderr);
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn a_changed_configuration_is_rolled_out_and_a_deleted_line_is_pruned() {
    let made = Bed::bare(3);
    let names: Vec<&str> = made.hosts.iter().map(|host| host.name.as_str()).collect();
    let text = bed(&["inventory", &made.name, "--control-planes", "2"])
        .replace("  network: {plugin: bridge}\n", "  network: {plugin: bridge}\n  endpoint: built-in\n");
    let inventory = made.write_inventory(&text);
    succeeds(up(&inventory));
    the_inventory_can_be_had_from_the_cluster(&made, &inventory);

    let changed = text.replace("oomScoreAdj: 0\n", "oomScoreAdj: 0\n    maxPods: 77\n").replacen(
        "    apiVersion: kubeadm.k8s.io/v1beta4\n    kind: InitConfiguration\n",
        "    apiVersion: kubeadm.k8s.io/v1beta4\n    kind: ClusterConfiguration\n    apiServer:\n      extraArgs:\n      \
         - {name: audit-log-maxage, value: '7'}\n    ---\n    apiVersion: kubeadm.k8s.io/v1beta4\n    kind: \
         InitConfiguration\n",
        1,
    );
    // kube-proxy has an oomScoreAdj, too, and no maxPods.
    let (kubelet, proxy) = changed.split_once("kind: KubeProxyConfiguration").unwrap();
    let changed = format!("{kubelet}kind: KubeProxyConfiguration{}", proxy.replace("    maxPods: 77\n", ""));
    let inventory = made.write_inventory(&changed);
    let (bundle, log) = (bundle(), made.folder.path().join("log"));
    let [bundle, log] = [&bundle, &log].map(|path| path.to_str().unwrap());
    let rolled_out = succeeds(run("up", &inventory, &["--bundle", bundle, "--yes", "--log", log]));
    eprintln!("a changed configuration was rolled out: {:.1} s", rolled_out.elapsed.as_secs_f64());
    let events = events_of(log);
    static_pods_come_before_the_kubelet(&events, &names[..2]);
    one_control_plane_after_the_other(&events, &names);
    let pods = "jsonpath={range .items[*]}{.status.allocatable.pods} {end}";
    // A kubelet tells of it a moment after it has started.
    wait_for("what the new kubelets allow", Duration::from_secs(60), || {
        kubectl(&inventory, &["get", "nodes", "-o", pods]).trim() == "77 77 77"
    });
    for name in &names[..2] {
        let running = "jsonpath={.spec.containers[0].command} {.status.phase}";
        let pod = format!("kube-apiserver-{name}");
        let running = kubectl(&inventory, &["-n", "kube-system", "get", "pod", &pod, "-o", running]);
        assert!(running.contains("--audit-log-maxage=7") && running.ends_with("Running"), "{running}");
    }
    nothing_is_to_do(&inventory);
    what_does_not_come_up_goes_no_further(&made, &changed);
    let inventory = made.write_inventory(&changed);
    succeeds(up(&inventory));
    nothing_is_to_do(&inventory);

    let pruned = names[2];
    let without: String =
        changed.lines().filter(|line| !line.contains(pruned)).map(|line| format!("{line}\n")).collect();
    let inventory = made.write_inventory(&without);
    let (arguments, clusterctl) = (["--bundle", bundle, "--yes", "--prune"], clusterctl());
    // Who is not told to prune only names it.
    let plan = run("plan", &inventory, &arguments[..2]);
    let named = format!("the node {pruned} is not in the inventory");
    assert!(plan.code == 0 && plan.stdout.contains(&named), "{}\n{}", plan.stdout, plan.stderr);
    let would = run("plan", &inventory, &[&arguments[..2], &["--prune", "--output", "json"]].concat());
    assert_eq!(would.code, 20, "{}\n{}", would.stdout, would.stderr);
    let would: Value = serde_json::from_str(&would.stdout).unwrap();
    let leaves = |change: &Value| {
        ["kind", "action", "subject"].map(|key| change[key].as_str()) == ["node", "remove", pruned].map(Some)
    };
    let mut of_nodes = would["whole"].as_array().unwrap().iter().flat_map(|step| step["changes"].as_array().unwrap());
    assert!(of_nodes.any(leaves), "{would:#}");
    // Nobody was asked, and nobody can be: then nobody goes.
    let mut words = vec!["--wait", clusterctl.to_str().unwrap(), "up", "-i", inventory.to_str().unwrap()];
    words.extend(["--bundle", bundle, "--prune"]);
    let unasked = call(Path::new("setsid"), &words, &[]);
    refused(&unasked, 2, &[&format!("no terminal to ask on whether {pruned} shall be taken out"), "--yes"]);
    assert!(kubectl(&inventory, &["get", "nodes", "-o", "name"]).contains(pruned));
    let left = succeeds(run("up", &inventory, &arguments));
    eprintln!("a node was pruned: {:.1} s", left.elapsed.as_secs_f64());
    assert!(left.stderr.contains(&named), "{}", left.stderr);
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert!(nodes.lines().count() == 2 && !nodes.contains(pruned), "{nodes}");
    assert_eq!(made.try_sh(pruned, "test -e /etc/kubernetes || test -e /var/lib/clusterctl").code, 1);
    // The others have lost their routes to it.
    nothing_is_to_do(&inventory);
}

/// A kubelet that was just started and loses the file of a pod it begins with waits two minutes for that pod's volumes.
fn static_pods_come_before_the_kubelet(events: &[Value], control_planes: &[&str]) {
    for host in control_planes {
        let begins = |step: &str| first(events, host, "step-started", step);
        assert!(begins("control-plane") < begins("kubelet-start"), "{host}: {events:#?}");
    }
}

fn events_of(log: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(log).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where in a log a step of a host begins or ends for the first time.
fn first(events: &[Value], host: &str, event: &str, step: &str) -> usize {
    let is = |there: &Value| there["host"] == host && there["event"] == event && there["step"] == step;
    events.iter().position(is).unwrap_or_else(|| panic!("{host}: no {event} of {step}: {events:#?}"))
}

/// The second control plane begins when the first is done with: its new pods run, its node is Ready. The worker begins when both
/// are.
fn one_control_plane_after_the_other(events: &[Value], names: &[&str]) {
    let ends = |host: &str| first(events, host, "step-finished", "wait-control-plane");
    let [back, again] = [names[0], names[1]].map(|name| first(events, name, "step-finished", "ready-again"));
    let next = first(events, names[1], "step-started", "control-plane");
    assert!(ends(names[0]) < next && back < next, "{events:#?}");
    assert!(ends(names[1]) < again && again < first(events, names[2], "step-started", "kubelet-start"), "{events:#?}");
}

/// A flag that no API server knows ends the first control plane's; the second one is left as it is and serves. A person reads the
/// last lines of what failed, and what they mean.
fn what_does_not_come_up_goes_no_further(made: &Bed, text: &str) {
    let other = made.hosts[1].name.as_str();
    let manifest = || made.sh(other, "sha256sum /etc/kubernetes/manifests/*.yaml");
    let before = manifest();
    let known = "      - {name: audit-log-maxage, value: '7'}\n";
    let wrong = text.replace(known, &format!("{known}      - {{name: no-such-flag, value: '1'}}\n"));
    assert_ne!(wrong, text);
    let inventory = made.write_inventory(&wrong);
    let failed = up(&inventory);
    let left = format!("its configuration is left as it was, because {} did not get through", made.hosts[0].name);
    let words = ["last lines of kube-apiserver", "unknown flag", "correct extraArgs", &left];
    refused(&failed, 11, &words);
    assert_eq!(manifest(), before);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "-o", "name"]).lines().count(), 3);
}

/// Who has lost the laptop has lost nothing: the hosts know the cluster.
fn the_inventory_can_be_had_from_the_cluster(made: &Bed, known: &Path) {
    let address = &made.hosts[0].address;
    let home = home(made);
    let environment = home.each_ref().map(|(name, value)| (*name, value.as_str()));
    let text = succeeds(call(&clusterctl(), &["inventory", "from-cluster", address], &environment)).stdout;
    let ssh = std::fs::read_to_string(known).unwrap().lines().find(|line| line.starts_with("ssh:")).unwrap().to_owned();
    // What only hosts of the bed need of their runtime no cluster tells.
    let text = text.replacen("cluster:\n", "cluster:\n  containerd: {restrict_oom_score_adj: true}\n", 1);
    let rebuilt = made.folder.path().join("rebuilt.yaml");
    std::fs::write(&rebuilt, format!("{ssh}\n{text}")).unwrap();
    nothing_is_to_do(&rebuilt);
}

/// A home whose ssh_config reaches the hosts.
fn home(made: &Bed) -> [(&'static str, String); 1] {
    let home = made.folder.path().join("home");
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    let options =
        format!("Host *\n  User root\n  IdentityFile {}\n  StrictHostKeyChecking accept-new\n", made.key.display());
    std::fs::write(home.join(".ssh/config"), options).unwrap();
    [("HOME", home.to_str().unwrap().to_owned())]
}

/// What upstream's kubeadm is told on the bed.
const KUBEADM: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
                       networking: {podSubnet: 10.244.0.0/16}\n---\n";

#[test]
#[ignore = "takes minutes: make test-all"]
fn a_cluster_of_kubeadms_is_taken_over() {
    let made = Bed::prepared(2, "1.36.3");
    let (control_plane, worker) = (made.hosts[0].name.as_str(), made.hosts[1].name.as_str());
    let configuration = made.folder.path().join("kubeadm.yaml");
    // What joins reads its own document.
    let settings = bed(&["settings"]);
    let of_init: Vec<&str> = settings.split("---\n").filter(|text| !text.contains("JoinConfiguration")).collect();
    std::fs::write(&configuration, format!("{KUBEADM}{}", of_init.join("---\n"))).unwrap();
    made.send(control_plane, &[&configuration], "/root");
    made.sh(
        control_plane,
        "kubeadm init --config /root/kubeadm.yaml >/root/init.log 2>&1 || { cat /root/init.log; exit 1; }",
    );
    let printed = made.sh(control_plane, "kubeadm token create --print-join-command");
    let join = printed.lines().rfind(|line| line.contains(" join ")).unwrap().trim().to_owned();
    made.sh(worker, &format!("{join} --ignore-preflight-errors=SystemVerification"));

    let known = made.inventory_text("root");
    let ssh = known.lines().find(|line| line.starts_with("ssh:")).unwrap();
    let home = home(&made);
    let environment = home.each_ref().map(|(name, value)| (*name, value.as_str()));
    let words = ["inventory", "from-cluster", &made.hosts[0].address];
    let text = succeeds(call(&clusterctl(), &words, &environment)).stdout;
    assert!(text.contains("adopt: sha256:") && text.contains(worker) && text.contains("plugin: none"), "{text}");

    // The same cluster without the line that takes it over is somebody else's.
    let foreign: String =
        text.lines().filter(|line| !line.contains("adopt:")).map(|line| format!("{line}\n")).collect();
    let inventory = made.write_inventory(&format!("{ssh}\n{foreign}"));
    assert_eq!(up(&inventory).code, 8);

    let inventory = made.write_inventory(&format!("{ssh}\n{text}"));
    let uid = |kind: &str| kubectl(&inventory, &["get", kind, "-o", "jsonpath={.metadata.uid}"]);
    let uids = || ["namespace/kube-system", &format!("node/{control_plane}"), &format!("node/{worker}")].map(uid);
    let before = uids();
    succeeds(up(&inventory));
    assert_eq!(uids(), before);
    nothing_is_to_do(&inventory);
    let ready = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert!(ready.lines().count() == 2 && !ready.contains("NotReady"), "{ready}");

    // Nobody has seen these hosts without a cluster: that they are as they were is not said.
    let gone = succeeds(run("down", &inventory, &["--yes", "--output", "json"]));
    let summary: Value = serde_json::from_str(gone.stdout.lines().next_back().unwrap()).unwrap();
    assert_eq!(summary["not_compared"], serde_json::json!([control_plane, worker]), "{summary}");
    assert_eq!(summary["residue"], 0, "{}", gone.stdout);
}
