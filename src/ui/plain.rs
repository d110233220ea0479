//! Events as lines of text: all there is without a terminal, and what stands above the moving lines with one.

use std::time::Duration;

use super::Settings;
use super::look::{Look, Paint};
use super::run::{Open, Run};
use super::text::{bytes, clean, count, duration, pad, width};
use crate::event::{Event, Unit, What};

/// How often a step that takes long says how far it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// A step without changes that took at least this long is said all the same.
const NOTABLE_MILLISECONDS: u64 = 500;

/// The line that an event is worth, if any; `run` is what was known before the event.
pub fn line(event: &Event, run: &Run, settings: &Settings, look: Look) -> Option<String> {
    let host = event.host.as_deref();
    let steps = !settings.quiet && !look.live;
    let (text, paint) = match &event.what {
        What::Warned { sentence } => (format!("warning: {}", clean(sentence)), Paint::Attention),
        What::StepFailed { step, failure } => {
            (format!("failed: {}: {}", clean(&run.title(host, step)), clean(&failure.sentence)), Paint::Bad)
        }
        What::Said { sentence } if !settings.quiet => (clean(sentence), Paint::Plain),
        What::Changed { change, .. } if settings.verbose => (format!("* {}", clean(change)), Paint::Faint),
        What::StepStarted { title, .. } if settings.verbose && steps => (format!("{} ...", clean(title)), Paint::Faint),
        // A step that altered nothing and took no time is not worth a line: a second run is short to read.
        What::StepFinished { changes: 0, milliseconds, .. }
            if *milliseconds < NOTABLE_MILLISECONDS && !settings.verbose =>
        {
            return None;
        }
        What::StepFinished { step, changes, milliseconds } if steps => {
            let took = duration(Duration::from_millis(*milliseconds));
            let changes =
                if *changes == 0 { String::new() } else { format!("{} in ", count(u64::from(*changes), "change")) };
            (format!("{}: {changes}{took}", clean(&run.title(host, step))), Paint::Plain)
        }
        What::HostFinished { state } if steps => (clean(state), Paint::Good),
        What::RunStarted { verb, cluster, hosts } if steps => {
            let hosts = count(hosts.len() as u64, "host");
            (format!("clusterctl {}: cluster {}, {hosts}", clean(verb), clean(cluster)), Paint::Strong)
        }
        _ => return None,
    };
    Some(format!("{}{}", prefix(host, run, look), look.paint(paint, &text)))
}

/// The host's name, padded so that the texts of all hosts begin in one column.
fn prefix(host: Option<&str>, run: &Run, look: Look) -> String {
    let Some(host) = host else { return String::new() };
    let names = run.hosts.iter().map(|lane| width(&clean(&lane.name))).max().unwrap_or(0).min(24);
    format!("{}  ", look.paint(Paint::Strong, &pad(&clean(host), names)))
}

/// Lines about steps that have been going for another ten seconds since `before`.
pub fn patience(run: &Run, before: Duration, at: Duration, look: Look) -> Vec<String> {
    let due = |step: &Open| {
        let periods = |when: Duration| when.saturating_sub(step.began).as_secs() / PATIENCE.as_secs();
        at > step.began && periods(at) > periods(before.max(step.began))
    };
    let lanes = run.hosts.iter().map(|lane| (Some(lane.name.as_str()), lane)).chain([(None, &run.whole)]);
    lanes
        .flat_map(|(host, lane)| lane.open.iter().filter(|step| due(step)).map(move |step| (host, step)))
        .map(|(host, step)| format!("{}{}", prefix(host, run, look), going(step, at)))
        .collect()
}

/// `Import images: 45 %, 120 of 268 MB, 35.0 MB/s, 4.2 s left, since 10 s`
fn going(step: &Open, at: Duration) -> String {
    let mut parts = Vec::new();
    if let Some(progress) = &step.progress {
        parts.push(format!("{:.0} %", (progress.part() * 100.0).floor()));
        match progress.unit {
            Unit::Bytes => {
                parts.push(format!("{} of {}", bytes(progress.done), bytes(progress.total)));
                parts.extend(progress.rate(at).map(|rate| format!("{}/s", bytes(rate as u64))));
            }
            Unit::Items => parts.push(format!("{} of {}", progress.done, progress.total)),
        }
        parts.extend(progress.left(at).map(|left| format!("{} left", duration(left))));
    }
    parts.push(format!("for {} now", duration(at.saturating_sub(step.began))));
    format!("{}: {}", clean(&step.title), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::ui::rehearsal;

    fn told(settings: &Settings, live: bool) -> String {
        let look = Look { live, color: false, unicode: false };
        let mut run = Run::default();
        let mut text = Vec::new();
        let mut before = Duration::ZERO;
        for (at, event) in rehearsal::small() {
            if !live && !settings.quiet {
                text.extend(patience(&run, before, at, look));
            }
            before = at;
            text.extend(line(&event, &run, settings, look));
            run.record(&event, at);
        }
        text.join("\n")
    }

    #[test]
    fn without_a_terminal_every_end_that_matters_is_a_line() {
        assert_snapshot!(told(&Settings::default(), false), @r"
        clusterctl up: cluster demo, 3 hosts
        w1        warning: w1 has cgroup v1, which Kubernetes will stop supporting
        cp1       Prepare the host: 1 change in 0.5 s
        worker-2  failed: Connect: port 22 refuses the connection
        cp1       Import images: 98 %, 404 MB of 412 MB, 40.4 MB/s, 0.2 s left, for 10 s now
        w1        Import images: 99 %, 265 MB of 268 MB, 26.3 MB/s, 0.1 s left, for 10 s now
        w1        Import images: 7 changes in 10 s
        cp1       Import images: 11 changes in 11 s
        cp1       Start the control plane: 43 changes in 8.0 s
        cp1       ready
        w1        Join: for 14 s now
        w1        Join: 9 changes in 14 s
        w1        ready
        ");
    }

    #[test]
    fn above_moving_lines_stand_warnings_and_failures() {
        assert_snapshot!(told(&Settings::default(), true), @"
        w1        warning: w1 has cgroup v1, which Kubernetes will stop supporting
        worker-2  failed: Connect: port 22 refuses the connection
        ");
    }

    #[test]
    fn quiet_leaves_warnings_and_failures() {
        let quiet = Settings { quiet: true, ..Settings::default() };
        assert_eq!(told(&quiet, false), told(&Settings::default(), true));
    }

    #[test]
    fn verbose_adds_beginnings_changes_and_what_took_no_time() {
        let verbose = Settings { verbose: true, ..Settings::default() };
        let text = told(&verbose, false);
        assert!(text.contains("cp1       * file /etc/modules-load.d/kubernetes.conf created"), "{text}");
        assert!(text.contains("cp1       Connect: 0.3 s"), "{text}");
        assert!(text.contains("cp1       Start the control plane ..."), "{text}");
    }
}
