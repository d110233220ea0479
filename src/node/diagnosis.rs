//! What to tell a person when a kubelet or a control plane does not come up: the failing container's last lines, the
//! kubelet's, and what they mean where that is known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, Kind};
use crate::host::{Command, Host, causes};

/// How many lines of a log are worth showing.
const LINES: usize = 40;

/// How many lines show that all is well, where there is nothing else.
const CALM_LINES: usize = 5;

/// No line is shown longer than this, in characters.
const LINE_CHARACTERS: usize = 400;

/// So many ends of a container while it is waited for are a loop. The kubelet waits 10, 20 and 40 seconds before the next
/// starts: a component that only waits for another one is there by then.
const ENDS: u32 = 3;

/// How often it is looked for containers that ended.
const LOOK: Duration = Duration::from_secs(1);

/// Returns when a container of one of these components has ended again and again since the call; else never.
pub(super) async fn crash_loop(host: &dyn Host, components: &[&str]) -> Failure {
    crash_loop_seen_every(LOOK, host, components).await
}

async fn crash_loop_seen_every(look: Duration, host: &dyn Host, components: &[&str]) -> Failure {
    let mut first: BTreeMap<PathBuf, u32> = BTreeMap::new();
    let mut looks = tokio::time::interval(look);
    loop {
        looks.tick().await;
        for component in components {
            for (folder, number) in starts(host, component) {
                let first = *first.entry(folder).or_insert(number);
                if number >= first + ENDS {
                    let sentence = format!("{component} ends again and again: {number} times so far");
                    return Failure::new(Kind::Cluster, sentence);
                }
            }
        }
    }
}

/// Adds to a failure what the logs of these components of kube-system and of the kubelet say. Components without a log have not
/// started: then the kubelet's journal tells why.
pub async fn explain(host: &dyn Host, failure: Failure, components: &[&str]) -> Failure {
    let mut sections = Vec::new();
    for component in components {
        if let Some(lines) = container_log(host, component).await {
            sections.push((format!("last lines of {component}"), lines));
        }
    }
    let journal =
        Command::new("journalctl", &["-u", "kubelet", "-n", "200", "--since", "-5min", "--no-pager", "-o", "cat"]);
    if let Some(lines) = output(host, journal).await {
        sections.push(("last lines of the kubelet".to_owned(), telling(lines)));
    }
    if sections.is_empty() {
        return failure;
    }
    let told: Vec<String> = sections.iter().map(|(title, lines)| format!("{title}:\n{}", lines.join("\n"))).collect();
    let text = told.join("\n\n");
    let advice = causes::advice(&text);
    let failure = failure.detailed(text);
    match advice {
        Some(advice) => failure.advise(advice),
        None if failure.advice.is_some() => failure,
        None => failure.advise("read the log lines above; `journalctl -u kubelet` on the host has more"),
    }
}

/// Last lines of the newest log of a component's container.
async fn container_log(host: &dyn Host, component: &str) -> Option<Vec<String>> {
    let mut newest: Option<(String, Vec<String>)> = None;
    for (folder, number) in starts(host, component) {
        let mut lines = None;
        // A container that was started this moment has said nothing yet: the one before it has.
        for number in [Some(number), number.checked_sub(1)].into_iter().flatten() {
            let log = folder.join(format!("{number}.log"));
            lines = output(host, Command::new("tail", &["-n", "200", "--", &log.to_string_lossy()])).await;
            if lines.is_some() {
                break;
            }
        }
        let Some(lines) = lines else { continue };
        // Lines of the runtime begin with their time, so the later log compares greater.
        let last = lines.last().cloned().unwrap_or_default();
        if newest.as_ref().is_none_or(|(time, _)| last > *time) {
            newest = Some((last, lines));
        }
    }
    newest.map(|(_, lines)| telling(lines.iter().map(|line| message(line).to_owned()).collect()))
}

/// The folder of logs of each pod of this component, and how often its container was started before the last time: its last log is
/// `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<that number>.log`.
fn starts(host: &dyn Host, component: &str) -> Vec<(PathBuf, u32)> {
    let root = Path::new("/var/log/pods");
    let beginning = format!("kube-system_{component}-");
    let pods = host.list(root).unwrap_or_default();
    let folders = pods.iter().filter(|pod| pod.starts_with(&beginning)).map(|pod| root.join(pod).join(component));
    let number = |name: &String| name.strip_suffix(".log").and_then(|number| number.parse::<u32>().ok());
    folders
        .filter_map(|folder| {
            let last = host.list(&folder).ok()?.iter().filter_map(number).max()?;
            Some((folder, last))
        })
        .collect()
}

/// A line of a container's log without the runtime's time, stream and tag.
fn message(line: &str) -> &str {
    let mut parts = line.splitn(4, ' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some("stdout" | "stderr"), Some("F" | "P"), Some(message)) => message,
        _ => line,
    }
}

/// Lines a program printed, bounded and without control characters; `None` where it failed or printed nothing.
async fn output(host: &dyn Host, command: Command) -> Option<Vec<String>> {
    let output = host.run(command.limit(Duration::from_secs(10))).await.ok()?;
    let text = output.text();
    let clean = |line: &str| -> String {
        line.chars().filter(|character| !character.is_control() || *character == '\t').take(LINE_CHARACTERS).collect()
    };
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
    (output.success() && !lines.is_empty()).then_some(lines)
}

/// The lines worth showing: what is not said in passing, else the last few of that.
fn telling(lines: Vec<String>) -> Vec<String> {
    let last = |lines: &[&String], count: usize| -> Vec<String> {
        lines.iter().skip(lines.len().saturating_sub(count)).map(|line| (*line).clone()).collect()
    };
    let loud: Vec<&String> = lines.iter().filter(|line| !in_passing(line)).collect();
    if loud.is_empty() { last(&lines.iter().collect::<Vec<_>>(), CALM_LINES) } else { last(&loud, LINES) }
}

/// Whether a component says a line of itself that nothing is wrong: klog's `I1123 12:56:31`, zap's `"level":"info"`.
fn in_passing(line: &str) -> bool {
    let klog = line.strip_prefix('I').is_some_and(|rest| rest.bytes().take(4).filter(u8::is_ascii_digit).count() == 4);
    klog || line.contains("\"level\":\"info\"") || line.ends_with("evaluates to an empty string: KUBELET_EXTRA_ARGS")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use std::path::Path;
    use std::time::Duration;

    use super::{crash_loop_seen_every, explain, message, telling};
    use crate::failure::{Failure, Kind};
    use crate::host::fake::FakeHost;

    #[rstest]
    #[case("2026-11-23T12:00:00.1Z stderr F {\"level\":\"fatal\"}", "{\"level\":\"fatal\"}")]
    #[case("plain words here", "plain words here")]
    fn the_runtimes_prefix_is_dropped(#[case] line: &str, #[case] plain: &str) {
        assert_eq!(message(line), plain);
    }

    #[test]
    fn what_is_said_in_passing_is_shown_only_where_there_is_nothing_else() {
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        let mixed = lines(&["I1123 12:56:31.6 calm", "E1123 12:56:32.0 broken", "{\"level\":\"info\"}", "Error: x"]);
        assert_eq!(telling(mixed), ["E1123 12:56:32.0 broken", "Error: x"]);
        assert_eq!(telling(lines(&["I1123 12:56:31.6 a"; 9])).len(), 5);
        assert_eq!(telling(vec!["E".to_owned(); 60]).len(), 40);
    }

    #[tokio::test]
    async fn the_newest_container_and_the_kubelet_are_quoted() {
        let pods = "/var/log/pods/kube-system_kube-apiserver-cp1";
        let host = FakeHost::new()
            .file(format!("{pods}_old/kube-apiserver/9.log"), "")
            .file(format!("{pods}_new/kube-apiserver/2.log"), "")
            .file(format!("{pods}_new/kube-apiserver/10.log"), "")
            .file(format!("{pods}_new/kube-apiserver/11.log"), "")
            .answer(&["tail", "-n", "200", "--", &format!("{pods}_new/kube-apiserver/11.log")], 0, "")
            .answer(
                &["tail", "-n", "200", "--", &format!("{pods}_old/kube-apiserver/9.log")],
                0,
                "2026-01-01 stderr F old\n",
            )
            .answer(
                &["tail", "-n", "200", "--", &format!("{pods}_new/kube-apiserver/10.log")],
                0,
                "2026-02-01T1 stderr F first\n2026-02-01T2 stderr F bind: address already in use\n",
            )
            .answer(&["journalctl"], 0, "kubelet says\u{1b}[31m so\n");
        let failure = explain(&host, Failure::new(Kind::Cluster, "no"), &["kube-apiserver", "etcd"]).await;
        assert_eq!(
            failure.detail.as_deref(),
            Some(
                "last lines of kube-apiserver:\nfirst\nbind: address already in use\n\n\
                 last lines of the kubelet:\nkubelet says[31m so"
            )
        );
        assert!(failure.advice.unwrap().starts_with("stop what listens"));
    }

    #[tokio::test]
    async fn a_component_that_ends_again_and_again_is_noticed() {
        let folder = "/var/log/pods/kube-system_etcd-cp1_0/etcd";
        // What it did before somebody waited counts for nothing.
        let host = FakeHost::new().file(format!("{folder}/7.log"), "");
        let more = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(30));
            ticks.tick().await;
            for number in 8..=10 {
                ticks.tick().await;
                host.put(Path::new(&format!("{folder}/{number}.log")), b"", 0o644);
            }
            std::future::pending::<()>().await;
        };
        let failure = tokio::select! {
            failure = crash_loop_seen_every(Duration::from_millis(1), &host, &["kube-apiserver", "etcd"]) => failure,
            () = more => panic!("it was not noticed"),
        };
        assert_eq!(failure.sentence, "etcd ends again and again: 10 times so far");
    }

    #[tokio::test]
    async fn a_host_without_logs_leaves_the_failure_as_it_is() {
        let failure = Failure::new(Kind::Cluster, "no");
        assert_eq!(explain(&FakeHost::new(), failure.clone(), &["etcd"]).await, failure);
    }
}
