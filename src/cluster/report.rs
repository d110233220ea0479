//! Everything a bug report needs, gathered from all hosts that can be reached, without secrets.

use std::collections::BTreeMap;

use super::connect::{Access, Session, Settings, connect};
use crate::failure::{Failure, Result};
use crate::inventory::Inventory;
use crate::mask::mask;
use crate::message::{Ran, Request, RunOrder};

/// Longest time for one question to a host, in seconds.
const LIMIT_SECONDS: u64 = 20;

/// No answer is kept beyond this, in bytes: its end says most.
const MOST_BYTES: usize = 1 << 20;

/// What each host is asked: the file its answer goes to, and the program.
const QUESTIONS: &[(&str, &[&str])] = &[
    ("kubelet.log", &["journalctl", "-q", "--no-pager", "-o", "short-iso", "-n", "2000", "-u", "kubelet"]),
    ("containerd.log", &["journalctl", "-q", "--no-pager", "-o", "short-iso", "-n", "1000", "-u", "containerd"]),
    ("balancer.log", &["journalctl", "-q", "--no-pager", "-o", "short-iso", "-n", "500", "-u", "clusterctl-balancer"]),
    ("kernel.log", &["journalctl", "-q", "--no-pager", "-o", "short-iso", "-n", "500", "-k"]),
    (
        "units.txt",
        &["systemctl", "--no-pager", "--full", "status", "kubelet", "containerd", "crio", "clusterctl-balancer"],
    ),
    ("failed-units.txt", &["systemctl", "--no-pager", "--failed"]),
    (
        "containers.log",
        &[
            "sh",
            "-c",
            "ls -t /var/log/pods/*/*/*.log 2>/dev/null | head -n 40 | while read -r file; do echo \"== $file\"; tail -n 100 \"$file\"; done",
        ],
    ),
    ("tasks.txt", &["ctr", "-n", "k8s.io", "tasks", "ls"]),
    ("images.txt", &["ctr", "-n", "k8s.io", "images", "ls", "-q"]),
    ("network.txt", &["sh", "-c", "ip address; ip route; ip -6 route; ip rule; ss -Htlnp"]),
    ("filters.txt", &["iptables-save"]),
    ("disks.txt", &["sh", "-c", "df -h; df -i; findmnt --real"]),
    (
        "files.txt",
        &["find", "/etc/kubernetes", "/etc/cni", "/var/lib/kubelet", "/var/lib/clusterctl", "-maxdepth", "3", "-ls"],
    ),
    (
        "configuration.txt",
        &[
            "sh",
            "-c",
            "tail -n +1 /etc/kubernetes/manifests/*.yaml /var/lib/kubelet/config.yaml /var/lib/kubelet/*.env /etc/containerd/config.toml /etc/cni/net.d/* /etc/systemd/system/kubelet.service.d/* 2>/dev/null",
        ],
    ),
    ("journal.jsonl", &["cat", "/var/lib/clusterctl/journal"]),
];

/// What is asked of the cluster, on one control plane.
const OF_CLUSTER: &[(&str, &[&str])] = &[
    ("nodes.txt", &["get", "nodes", "-o", "wide"]),
    ("nodes-described.txt", &["describe", "nodes"]),
    ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
    ("system-pods-described.txt", &["-n", "kube-system", "describe", "pods"]),
    ("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
    ("configmaps.txt", &["-n", "kube-system", "get", "configmaps", "-o", "yaml"]),
];

/// A report: texts by the path they have in its archive. All of them are free of secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The texts.
    pub texts: BTreeMap<String, String>,
    /// Hosts that could not be asked.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Adds a text, without its secrets, and only the end of one that is too long.
    pub fn add(&mut self, path: impl Into<String>, text: &str) {
        let start = text.len().saturating_sub(MOST_BYTES);
        let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.texts.insert(path.into(), mask(&text[start..]));
    }
}

/// Gathers a report. Looks only; a host that cannot be reached or asked is named in it.
///
/// # Errors
/// Only what prevents the attempt.
pub async fn report(inventory: &Inventory, settings: &Settings) -> Result<Report> {
    let (sessions, failures) = connect(inventory, settings, Access::Look).await?;
    let mut report = Report::default();
    let asked = futures::future::join_all(sessions.iter().map(|session| of_host(session, settings))).await;
    for (path, text) in asked.into_iter().flatten() {
        report.add(path, &text);
    }
    let mut control_planes: Vec<&Session> =
        sessions.iter().filter(|session| session.facts.kubernetes.admin_conf).collect();
    control_planes.sort_by_key(|session| !session.facts.kubernetes.serves);
    if let Some(session) = control_planes.first() {
        for (name, words) in OF_CLUSTER {
            let words = ["kubectl"].iter().chain(*words).copied();
            let text = answer(session, words.map(str::to_owned).collect()).await;
            report.add(format!("cluster/{name}"), &text);
        }
    }
    let told: Vec<String> = failures.iter().map(told).collect();
    if !told.is_empty() {
        report.add("not-reached.txt", &told.join("\n"));
    }
    report.failures = failures;
    Ok(report)
}

fn told(failure: &Failure) -> String {
    let detail = failure.detail.as_deref().map(|detail| format!("\n{detail}")).unwrap_or_default();
    format!("{failure}{detail}\n")
}

async fn of_host(session: &Session, settings: &Settings) -> Vec<(String, String)> {
    let name = &session.host.name;
    let facts = serde_json::to_string_pretty(&session.facts).unwrap_or_default();
    let mut texts = vec![(format!("hosts/{name}/facts.json"), facts)];
    let step = session.events.step("report", "gather");
    for (done, (file, words)) in QUESTIONS.iter().enumerate() {
        if settings.cancel.requested() {
            break;
        }
        step.progress(done as u64, QUESTIONS.len() as u64, crate::event::Unit::Items, Some(file));
        let text = answer(session, words.iter().map(|word| (*word).to_owned()).collect()).await;
        texts.push((format!("hosts/{name}/{file}"), text));
    }
    step.finish();
    texts
}

/// What a program on a host says, with how it ended where that was not well.
async fn answer(session: &Session, arguments: Vec<String>) -> String {
    let environment = [("KUBECONFIG", "/etc/kubernetes/admin.conf"), ("KUBECACHEDIR", "/var/lib/clusterctl/kubectl")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let order = RunOrder {
        arguments,
        environment: BTreeMap::from(environment),
        input: Vec::new(),
        limit_seconds: LIMIT_SECONDS,
    };
    match session.agent.ask::<Ran>(Request::Run(order)).await {
        Ok(ran) => {
            let mut text = String::from_utf8_lossy(&ran.stdout).into_owned();
            if ran.status != 0 {
                text.push_str(&format!("\n(ended with {})\n{}", ran.status, String::from_utf8_lossy(&ran.stderr)));
            }
            text
        }
        Err(failure) => told(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_BYTES, Report};

    #[test]
    fn a_text_comes_in_without_secrets_and_not_without_end() {
        let mut report = Report::default();
        report.add("a", "token: abcdef.0123456789abcdef\n");
        report.add("b", &"ä".repeat(MOST_BYTES));
        assert_eq!(report.texts["a"], "token: ***\n");
        assert_eq!(report.texts["b"].len(), MOST_BYTES);
    }
}
