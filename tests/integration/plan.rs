//! What `plan` says, on bare hosts, on a finished cluster, and on one that has drifted: and that saying it alters nothing.

use std::path::Path;

use serde_json::Value;

use crate::bed::{Bed, difference};
use crate::program::{Finished, bundle, call, clusterctl, kubectl, run, succeeds, up};

/// The exit code for something to do.
const SOMETHING_TO_DO: i32 = 20;

fn plan(inventory: &Path, extra: &[&str]) -> Finished {
    let bundle = bundle();
    let mut arguments = vec!["--bundle", bundle.to_str().unwrap()];
    arguments.extend_from_slice(extra);
    run("plan", inventory, &arguments)
}

/// The plan as a document.
fn document(inventory: &Path, code: i32) -> Value {
    let finished = plan(inventory, &["--output", "json"]);
    assert_eq!(finished.code, code, "{}\n{}", finished.stdout, finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
}

/// `kind action subject detail` of every change on a host.
fn changes(document: &Value, host: &str) -> Vec<String> {
    let hosts = document["hosts"].as_array().unwrap();
    let host = hosts.iter().find(|there| there["name"] == host).unwrap_or_else(|| panic!("no {host} in {document}"));
    let steps = host["steps"].as_array().unwrap().iter();
    let changes = steps.flat_map(|step| step["changes"].as_array().unwrap().iter());
    let text = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
    changes.map(|change| ["kind", "action", "subject", "detail"].map(|key| text(change, key)).join(" ")).collect()
}

fn has(changes: &[String], beginning: &str) {
    assert!(changes.iter().any(|change| change.starts_with(beginning)), "no {beginning:?} in {changes:#?}");
}

#[test]
fn what_up_would_do_is_said_and_not_done() {
    let bed = Bed::bare(2);
    let inventory = bed.inventory();
    let (control_plane, worker) = (bed.hosts[0].name.as_str(), bed.hosts[1].name.as_str());
    bare_hosts(&bed, &inventory);
    succeeds(up(&inventory));
    a_finished_cluster(&inventory);

    bed.sh(worker, "rm /etc/sysctl.d/99-clusterctl.conf; sysctl -q -w net.ipv4.ip_forward=0; systemctl stop kubelet");
    bed.sh(worker, "echo '# mine' >> /var/lib/kubelet/config.yaml; chmod 0700 /usr/local/bin/kubelet");
    // A kubelet that runs will have to be restarted.
    bed.sh(control_plane, "echo '# mine' >> /var/lib/kubelet/config.yaml");
    bed.sh(control_plane, "ip route del $(ip route | grep '^10.244.*via' | cut -d' ' -f1)");
    bed.sh(control_plane, "ctr -n k8s.io images rm $(ctr -n k8s.io images ls -q | grep coredns:)");
    kubectl(&inventory, &["-n", "kube-system", "delete", "daemonset", "kube-proxy"]);
    drifted(&bed, &inventory);
    asked_on_a_terminal(&bed, &inventory);
    a_finished_cluster(&inventory);
    assert_eq!(bed.sh(worker, "systemctl is-active kubelet; sysctl -n net.ipv4.ip_forward"), "active\n1\n");
    assert_eq!(bed.sh(control_plane, "ip route | grep -c '^10.244.*via'").trim(), "1");
    bed.sh(control_plane, "ctr -n k8s.io images ls -q | grep coredns:");
    kubectl(&inventory, &["-n", "kube-system", "get", "daemonset", "kube-proxy"]);
    altered_programs(&bed, &inventory);
}

/// A program that is not the bundle's is replaced, and the process that runs by it starts anew.
fn altered_programs(bed: &Bed, inventory: &Path) {
    let worker = bed.hosts[1].name.as_str();
    let runs_by = |program: &str| bed.sh(worker, &format!("readlink /proc/$(pidof -s {program})/exe"));
    for program in ["kubelet", "containerd"] {
        bed.sh(worker, &format!("cd /usr/local/bin && cp {program} /new && echo >>/new && mv /new {program}"));
        assert!(runs_by(program).ends_with(" (deleted)\n"));
    }
    let would = changes(&document(inventory, SOMETHING_TO_DO), worker);
    for program in ["kubelet", "containerd"] {
        has(&would, &format!("package update /usr/local/bin/{program}"));
        has(&would, &format!("unit update {program}.service restart"));
    }
    succeeds(up(inventory));
    for program in ["kubelet", "containerd"] {
        assert_eq!(runs_by(program), format!("/usr/local/bin/{program}\n"));
    }
    a_finished_cluster(inventory);
}

/// What runs would be interrupted: a person is asked, no means no and yes yes. Where nothing is, nobody is asked.
fn asked_on_a_terminal(bed: &Bed, inventory: &Path) {
    let (program, bundle) = (clusterctl(), bundle());
    let typed = format!("{} up -i {} --bundle {}", program.display(), inventory.display(), bundle.display());
    let answered = |answer: &str| {
        // What is typed before the question is not the answer to it.
        let asked = format!("(while echo {answer}; do sleep 0.3; done) 2>/dev/null | script -qec '{typed}' /dev/null");
        call(Path::new("sh"), &["-c", &asked], &[("TERM", "xterm")])
    };
    let refused = answered("n");
    assert_eq!(refused.code, 130, "{}", refused.stdout);
    assert!(refused.stdout.contains("Apply? [y/N]"), "{}", refused.stdout);
    let kubelet = bed.sh(&bed.hosts[1].name, "grep -c '# mine' /var/lib/kubelet/config.yaml");
    assert_eq!(kubelet.trim(), "1");
    // A program that reads the events asks the person behind it as well, and shows what the question is about.
    let asked =
        format!("(while echo n; do sleep 0.3; done) 2>/dev/null | script -qec '{typed} --output json' /dev/null");
    let refused = call(Path::new("sh"), &["-c", &asked], &[("TERM", "xterm")]);
    assert_eq!(refused.code, 130, "{}", refused.stdout);
    let shown = refused.stdout.split("Apply? [y/N]").next().unwrap_or_default();
    assert!(shown.contains("-# mine") && shown.len() < refused.stdout.len(), "{}", refused.stdout);
    let done = succeeds(answered("y"));
    assert!(done.stdout.contains("Apply? [y/N]"), "{}", done.stdout);
    let nothing = succeeds(answered("n"));
    assert!(!nothing.stdout.contains("Apply?"), "{}", nothing.stdout);
}

fn bare_hosts(bed: &Bed, inventory: &Path) {
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    let document = document(inventory, SOMETHING_TO_DO);
    let (one, other) = (changes(&document, &bed.hosts[0].name), changes(&document, &bed.hosts[1].name));
    for host in [&one, &other] {
        has(host, "package create /usr/local/bin/kubelet 0755");
        has(host, "file create /etc/sysctl.d/99-clusterctl.conf 0644");
        has(host, "image create images/pause");
        has(host, "unit update containerd.service start");
        has(host, "phase run kubelet-start");
        has(host, "file create /var/lib/kubelet/config.yaml 0644");
    }
    has(&one, "phase run certs");
    has(&one, "file create /etc/kubernetes/manifests/kube-apiserver.yaml 0600");
    has(&one, "object create DaemonSet kube-system/kube-proxy");
    has(&other, "phase run kubelet-wait-bootstrap");
    let text = plan(inventory, &[]).stdout;
    assert!(text.contains(&format!("prepare host: {}, {}\n", bed.hosts[0].name, bed.hosts[1].name)), "{text}");
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    for (host, before) in bed.hosts.iter().zip(&before) {
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "plan altered {}:\n{}", host.name, difference(before, &after));
    }
}

fn a_finished_cluster(inventory: &Path) {
    let finished = plan(inventory, &[]);
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("nothing is to do"), "{}", finished.stdout);
    assert_eq!(document(inventory, 0)["changes"], 0);
}

fn drifted(bed: &Bed, inventory: &Path) {
    let (control_plane, worker) = (bed.hosts[0].name.as_str(), bed.hosts[1].name.as_str());
    // Addresses and what the kubelets log change by themselves; files and routes of ours do not.
    let look = "cat /var/lib/kubelet/config.yaml; ip route; ls /etc/sysctl.d /etc/kubernetes/manifests; systemctl is-active kubelet || true";
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.sh(&host.name, look)).collect();
    let document = document(inventory, SOMETHING_TO_DO);
    let (one, other) = (changes(&document, control_plane), changes(&document, worker));
    has(&one, "command run ip route replace 10.244.");
    has(&one, "unit update kubelet.service restart");
    assert_eq!(document["disrupts"], true);
    has(&one, "image create images/coredns");
    has(&one, "object create DaemonSet kube-system/kube-proxy");
    has(&other, "file update /usr/local/bin/kubelet mode 0700 to 0755");
    has(&other, "file create /etc/sysctl.d/99-clusterctl.conf");
    has(&other, "sysctl update net.ipv4.ip_forward from 0 to 1");
    has(&other, "file update /var/lib/kubelet/config.yaml");
    has(&other, "unit update kubelet.service restart");
    let dry = run("up", inventory, &["--dry-run", "--bundle", bundle().to_str().unwrap()]);
    assert_eq!(dry.code, SOMETHING_TO_DO, "{}", dry.stderr);
    assert!(dry.stdout.contains("-# mine\n"), "{}", dry.stdout);
    for (host, before) in bed.hosts.iter().zip(before) {
        assert_eq!(bed.sh(&host.name, look), before, "plan altered {}", host.name);
    }
}
