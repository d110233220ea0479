//! Made-up runs for tests: a small one with everything in it, and one with any number of hosts.

use std::time::Duration;

use crate::event::{Event, Unit, What};
use crate::failure::{Failure, Kind};

/// Events with the time they happen at.
pub type Script = Vec<(Duration, Event)>;

struct Writer(Script);

impl Writer {
    fn at(&mut self, seconds: f64, host: Option<&str>, what: What) {
        self.0.push((Duration::from_secs_f64(seconds), Event { host: host.map(str::to_owned), what }));
    }

    fn started(&mut self, seconds: f64, host: &str, step: &str, title: &str) {
        self.at(seconds, Some(host), What::StepStarted { step: step.into(), title: title.to_owned() });
    }

    fn progressed(&mut self, seconds: f64, host: &str, step: &str, done: u64, total: u64, item: &str) {
        let item = Some(item.to_owned());
        self.at(seconds, Some(host), What::StepProgressed { step: step.into(), done, total, unit: Unit::Bytes, item });
    }

    fn finished(&mut self, seconds: f64, host: &str, step: &str, changes: u32, milliseconds: u64) {
        self.at(seconds, Some(host), What::StepFinished { step: step.into(), changes, milliseconds });
    }
}

/// Three hosts: one becomes ready slowly, one quickly, one cannot be reached.
pub fn small() -> Script {
    let mut script = Writer(Vec::new());
    let hosts = ["cp1", "w1", "worker-2"].map(str::to_owned).to_vec();
    script.at(0.0, None, What::RunStarted { verb: "up".to_owned(), cluster: "demo".to_owned(), hosts });
    script.started(0.1, "cp1", "connect", "Connect");
    script.started(0.1, "w1", "connect", "Connect");
    script.started(0.1, "worker-2", "connect", "Connect");
    script.finished(0.4, "cp1", "connect", 0, 300);
    script.finished(0.5, "w1", "connect", 0, 400);
    script.started(0.5, "cp1", "prepare", "Prepare the host");
    let change = "file /etc/modules-load.d/kubernetes.conf created".to_owned();
    script.at(0.6, Some("cp1"), What::Changed { step: "prepare".into(), change });
    let sentence = "w1 has cgroup v1, which Kubernetes will stop supporting".to_owned();
    script.at(0.7, Some("w1"), What::Warned { sentence });
    script.finished(1.0, "cp1", "prepare", 1, 500);
    script.started(1.0, "cp1", "images", "Import images");
    script.started(1.1, "w1", "images", "Import images");
    for tenth in 0..=100_u64 {
        let seconds = 1.1 + tenth as f64 / 10.0;
        script.progressed(seconds, "w1", "images", tenth * 2_680_000, 268_000_000, "images/kube-proxy");
        script.progressed(seconds, "cp1", "images", tenth * 4_120_000, 412_000_000, "images/kube-\x1b[2Japiserver");
    }
    let failure = Failure::new(Kind::Connection, "port 22 refuses the connection")
        .on("worker-2")
        .advise("start sshd on worker-2, or correct `ssh.port` in the inventory")
        .may_pass();
    let step = "connect".into();
    script.at(2.0, Some("worker-2"), What::StepFailed { step, failure: failure.clone() });
    script.finished(12.0, "w1", "images", 7, 10_900);
    script.finished(12.0, "cp1", "images", 11, 11_000);
    script.started(12.0, "w1", "join", "Join");
    script.started(12.0, "cp1", "init", "Start the control plane");
    script.finished(20.0, "cp1", "init", 43, 8000);
    script.at(20.0, Some("cp1"), What::HostFinished { state: "ready".to_owned() });
    script.finished(26.0, "w1", "join", 9, 14_000);
    script.at(26.0, Some("w1"), What::HostFinished { state: "ready".to_owned() });
    script.at(26.1, None, What::RunFinished { milliseconds: 26_100, changes: 71, failed: vec![failure] });
    script.0.sort_by_key(|(at, _)| *at);
    script.0
}

/// Any number of hosts, each uploading for a few seconds, begun one after the other.
pub fn many(hosts: usize) -> Script {
    let mut script = Writer(Vec::new());
    let names: Vec<String> = (1..=hosts).map(|number| format!("node-{number:03}")).collect();
    let what = What::RunStarted { verb: "up".to_owned(), cluster: "large".to_owned(), hosts: names.clone() };
    script.at(0.0, None, what);
    for (number, name) in names.iter().enumerate() {
        let begin = number as f64 * 0.1;
        script.started(begin, name, "upload", "Receive blobs");
        for tenth in 1..=40_u64 {
            let seconds = begin + tenth as f64 / 10.0;
            script.progressed(seconds, name, "upload", tenth * 3_000_000, 120_000_000, "kubelet");
        }
        script.finished(begin + 4.0, name, "upload", 12, 4000);
        script.at(begin + 4.1, Some(name), What::HostFinished { state: "ready".to_owned() });
    }
    let seconds = hosts as f64 * 0.1 + 4.2;
    let milliseconds = Duration::from_secs_f64(seconds).as_millis() as u64;
    let changes = hosts as u32 * 12;
    script.at(seconds, None, What::RunFinished { milliseconds, changes, failed: Vec::new() });
    script.0.sort_by_key(|(at, _)| *at);
    script.0
}

/// The hosts of [`small`] as an inventory.
pub fn inventory() -> crate::inventory::Inventory {
    use crate::inventory::*;
    let ssh = Ssh {
        written: Default::default(),
        jump: Vec::new(),
        host_key: Vec::new(),
        user: "root".to_owned(),
        port: 22,
        identities: Vec::new(),
        agent: true,
        password: None,
        become_root: Become::None,
        become_password: None,
        known_hosts: Vec::new(),
        host_keys: HostKeys::Strict,
        connect_limit_seconds: 20,
    };
    let host = |name: &str, address: &str, role| Host {
        name: name.to_owned(),
        address: address.to_owned(),
        node_address: None,
        role,
        labels: Default::default(),
        groups: Default::default(),
        taints: None,
        ssh: ssh.clone(),
        line: 1,
    };
    Inventory {
        path: "inventory.yaml".into(),
        cluster: Cluster {
            name: "demo".to_owned(),
            kubernetes: semver::Version::new(1, 36, 3),
            endpoint: None,
            network: Network {
                pods: ipnet::Ipv4Net::new_assert([10, 244, 0, 0].into(), 16).into(),
                services: ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 12).into(),
                plugin: NetworkPlugin::Bridge,
                domain: "cluster.local".to_owned(),
            },
            kubeadm: None,
            bundle: None,
            containerd: Containerd::default(),
            ignore_checks: Vec::new(),
            adopt: None,
        },
        hosts: vec![
            host("cp1", "10.0.0.11", Role::ControlPlane),
            host("w1", "10.0.0.21", Role::Worker),
            host("worker-2", "10.0.0.22", Role::Worker),
        ],
        transfer: Default::default(),
    }
}
