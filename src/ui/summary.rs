//! The end of a run, in a form a person enjoys and a program can read.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::look::{Look, Paint};
use super::run::{Run, State};
use super::table::table;
use super::text::{clean, count, duration, pad, pad_left, width};
use crate::event::elapsed_milliseconds;
use crate::failure::{Failure, Kind};
use crate::inventory::{Inventory, Role};

/// How many of the slowest steps are named.
const SLOWEST_STEPS: usize = 5;
/// Tables longer than this name only the hosts that are not where they should be.
const TABLE_ROWS: usize = 40;

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// One sentence: `Cluster demo is ready`.
    pub headline: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// How many things were altered on all hosts.
    pub changes: u32,
    /// The hosts in inventory order.
    pub hosts: Vec<SummaryHost>,
    /// The slowest steps, slowest first.
    pub slowest: Vec<SlowStep>,
    /// Where the kubeconfig was written.
    pub kubeconfig: Option<PathBuf>,
    /// The command a person would type next.
    pub next: Option<String>,
    /// How many things differ on hosts that were given back from what was there before the first `up`; nothing where none was.
    pub residue: Option<u64>,
    /// Hosts that were given back and not compared with what they were: nobody knows that.
    pub not_compared: Vec<String>,
    /// Why hosts did not finish.
    pub failed: Vec<Failure>,
}

/// A host in a summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SummaryHost {
    /// Inventory name.
    pub name: String,
    /// What SSH connected to.
    pub address: String,
    /// `control-plane` or `worker`.
    pub role: String,
    /// `ready`, `failed`, `not reached`...
    pub state: String,
    /// How long it was worked on, in milliseconds.
    pub milliseconds: u64,
    /// How many things were altered.
    pub changes: u32,
}

/// A step in a summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SlowStep {
    /// Host, or nothing for the whole run.
    pub host: Option<String>,
    /// The step's title.
    pub title: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

impl Summary {
    /// Gathers a run that has ended; headline, kubeconfig and next command are the verb's to set.
    pub fn of(run: &Run, inventory: &Inventory) -> Self {
        let hosts = run.hosts.iter().map(|lane| {
            let host = inventory.hosts.iter().find(|host| host.name == lane.name);
            SummaryHost {
                name: lane.name.clone(),
                address: host.map(|host| host.address.clone()).unwrap_or_default(),
                role: host.map(|host| role(host.role).to_owned()).unwrap_or_default(),
                state: match &lane.state {
                    State::Waiting => "untouched".to_owned(),
                    State::Working => "unfinished".to_owned(),
                    State::Finished(state) => state.clone(),
                    State::Failed(_) if lane.done.is_empty() => "not reached".to_owned(),
                    State::Failed(_) => "failed".to_owned(),
                },
                milliseconds: elapsed_milliseconds(lane.took(Duration::ZERO)),
                changes: lane.changes,
            }
        });
        let ended = run.ended.as_ref();
        Self {
            headline: format!("{} of cluster {} has ended", run.verb, run.cluster),
            milliseconds: ended.map_or(0, |ended| elapsed_milliseconds(ended.took)),
            changes: ended.map_or(0, |ended| ended.changes),
            hosts: hosts.collect(),
            slowest: slowest(run),
            kubeconfig: None,
            next: None,
            residue: None,
            not_compared: Vec::new(),
            failed: ended.map(|ended| ended.failed.clone()).unwrap_or_default(),
        }
    }

    /// Success, or the code of the worst failure.
    pub fn exit_code(&self) -> ExitCode {
        let worst = self.failed.iter().map(|failure| failure.kind).max();
        worst.map(Kind::exit_code).map_or(ExitCode::SUCCESS, ExitCode::from)
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
    }
}

fn slowest(run: &Run) -> Vec<SlowStep> {
    let lanes = run.hosts.iter().map(|lane| (Some(lane.name.clone()), lane)).chain([(None, &run.whole)]);
    let mut steps: Vec<SlowStep> = lanes
        .flat_map(|(host, lane)| lane.done.iter().map(move |done| (host.clone(), done)))
        .map(|(host, done)| SlowStep { host, title: done.title.clone(), milliseconds: elapsed_milliseconds(done.took) })
        .collect();
    steps.sort_by_key(|step| std::cmp::Reverse(step.milliseconds));
    steps.truncate(SLOWEST_STEPS);
    steps
}

/// The summary as text for so many columns, ending with a line break. Failures are not in it: see [`failures`](super::failures).
pub fn summary(summary: &Summary, look: Look, columns: usize) -> String {
    let mut text = String::from("\n");
    let paint = if summary.failed.is_empty() { Paint::Good } else { Paint::Bad };
    let took = duration(Duration::from_millis(summary.milliseconds));
    let changes = if summary.changes == 0 { "no change".to_owned() } else { count(summary.changes.into(), "change") };
    let headline = look.paint(paint, &clean(&summary.headline));
    text.push_str(&format!("{headline} ({took}, {changes})\n"));
    if !summary.hosts.is_empty() {
        text.push('\n');
        text.push_str(&hosts_table(&summary.hosts));
    }
    if !summary.slowest.is_empty() {
        text.push_str("\nslowest steps\n");
        text.push_str(&slowest_lines(&summary.slowest, look, columns));
    }
    let labelled = [
        ("kubeconfig", summary.kubeconfig.as_ref().map(|path| path.display().to_string())),
        ("next", summary.next.clone()),
    ];
    let labelled: Vec<_> = labelled.into_iter().filter_map(|(label, value)| Some((label, value?))).collect();
    if !labelled.is_empty() {
        text.push('\n');
        for (label, value) in labelled {
            text.push_str(&format!("{}  {}\n", look.paint(Paint::Faint, &pad(label, 10)), clean(&value)));
        }
    }
    text
}

/// The hosts; of very many only those that are not like the most.
fn hosts_table(hosts: &[SummaryHost]) -> String {
    let row = |host: &SummaryHost| {
        let seconds = Duration::from_millis(host.milliseconds).as_secs_f64();
        let seconds = if host.milliseconds == 0 { "-".to_owned() } else { format!("{seconds:.1}") };
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let texts = [&host.name, &host.address, &host.role, &host.state].map(|text| or_dash(text));
        texts.into_iter().chain([seconds, host.changes.to_string()]).collect::<Vec<String>>()
    };
    let headings = ["NAME", "ADDRESS", "ROLE", "STATE", "SECONDS", "CHANGES"];
    if hosts.len() <= TABLE_ROWS {
        return table(&headings, &hosts.iter().map(row).collect::<Vec<_>>());
    }
    let usual = most_frequent(hosts);
    let unusual: Vec<_> = hosts.iter().filter(|host| host.state != usual).collect();
    let rest = count((hosts.len() - unusual.len()) as u64, "host");
    let rows: Vec<_> = unusual.iter().take(TABLE_ROWS).map(|host| row(host)).collect();
    let more = unusual.len().saturating_sub(TABLE_ROWS);
    let mut text = if rows.is_empty() { String::new() } else { table(&headings, &rows) };
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text.push_str(&format!("{rest} {}\n", clean(usual)));
    text
}

fn most_frequent(hosts: &[SummaryHost]) -> &str {
    let times = |state: &str| hosts.iter().filter(|host| host.state == state).count();
    hosts.iter().map(|host| host.state.as_str()).max_by_key(|state| times(state)).unwrap_or_default()
}

fn slowest_lines(steps: &[SlowStep], look: Look, columns: usize) -> String {
    let most = steps.first().map_or(1, |step| step.milliseconds).max(1);
    let name = |step: &SlowStep| step.host.as_deref().map(clean).unwrap_or_else(|| "all".to_owned());
    let names = steps.iter().map(|step| width(&name(step))).max().unwrap_or(0);
    let titles = steps.iter().map(|step| width(&clean(&step.title))).max().unwrap_or(0);
    let bar = if look.unicode { "━" } else { "=" };
    // Where the bars have no room, the numbers do.
    let room = Some(columns.saturating_sub(names + titles + 19).min(20)).filter(|room| *room >= 5).unwrap_or(0);
    let line = |step: &SlowStep| {
        let length = usize::try_from((step.milliseconds * room as u64).div_ceil(most)).unwrap_or(room);
        let took = pad_left(&duration(Duration::from_millis(step.milliseconds)), 11);
        let bar = look.paint(Paint::Active, &bar.repeat(length));
        let line = format!("  {}  {}  {took}  {bar}", pad(&name(step), names), pad(&clean(&step.title), titles));
        format!("{}\n", line.trim_end())
    };
    steps.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::ui::rehearsal;

    fn small() -> Summary {
        let mut run = Run::default();
        for (at, event) in rehearsal::small() {
            run.record(&event, at);
        }
        Summary {
            headline: "Cluster demo is not complete".to_owned(),
            kubeconfig: Some("/home/ops/demo.kubeconfig".into()),
            next: Some("kubectl --kubeconfig /home/ops/demo.kubeconfig get nodes".to_owned()),
            ..Summary::of(&run, &rehearsal::inventory())
        }
    }

    #[test]
    fn the_end_of_a_small_run() {
        let look = Look { live: false, color: false, unicode: true };
        assert_snapshot!(summary(&small(), look, 80), @r"

        Cluster demo is not complete (26 s, 71 changes)

        NAME      ADDRESS    ROLE           STATE        SECONDS  CHANGES
        cp1       10.0.0.11  control-plane  ready           19.9       55
        w1        10.0.0.21  worker         ready           25.9       16
        worker-2  10.0.0.22  worker         not reached      1.9        0

        slowest steps
          w1   Join                            14 s  ━━━━━━━━━━━━━━━━━━━━
          cp1  Import images                   11 s  ━━━━━━━━━━━━━━━━
          w1   Import images                   10 s  ━━━━━━━━━━━━━━━━
          cp1  Start the control plane        8.0 s  ━━━━━━━━━━━━
          cp1  Prepare the host               0.5 s  ━

        kubeconfig  /home/ops/demo.kubeconfig
        next        kubectl --kubeconfig /home/ops/demo.kubeconfig get nodes
        ");
    }

    #[test]
    fn of_many_hosts_only_the_odd_ones_are_listed() {
        let host = |number: usize| SummaryHost {
            name: format!("node-{number:03}"),
            address: format!("10.0.1.{}", number % 250),
            role: "worker".to_owned(),
            state: if number == 42 { "failed" } else { "ready" }.to_owned(),
            milliseconds: 4100,
            changes: 12,
        };
        let many = Summary {
            headline: "Cluster large is not complete".to_owned(),
            milliseconds: 34_200,
            changes: 3600,
            hosts: (1..=300).map(host).collect(),
            ..Summary::default()
        };
        let look = Look { live: false, color: false, unicode: false };
        assert_snapshot!(summary(&many, look, 80), @"

        Cluster large is not complete (34 s, 3600 changes)

        NAME      ADDRESS    ROLE    STATE   SECONDS  CHANGES
        node-042  10.0.1.42  worker  failed  4.1      12
        299 hosts ready
        ");
    }

    #[test]
    fn the_worst_failure_decides_the_exit_code() {
        assert_eq!(format!("{:?}", small().exit_code()), format!("{:?}", ExitCode::from(4)));
        assert_eq!(format!("{:?}", Summary::default().exit_code()), format!("{:?}", ExitCode::SUCCESS));
    }
}
