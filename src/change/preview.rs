//! All that a run would do, on all hosts: what `plan` shows. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Action, Kind, Section};
use crate::failure::Failure;

/// What a run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The cluster's name.
    pub cluster: String,
    /// The hosts in inventory order.
    pub hosts: Vec<HostPreview>,
    /// What concerns the cluster as a whole.
    pub whole: Vec<Section>,
    /// Hosts that are left out, each with the reason: it cannot be reached, or is not fit.
    pub missing: Vec<Failure>,
    /// Sentences that stop nothing.
    pub warnings: Vec<String>,
}

/// What a run would do on one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPreview {
    /// Its name.
    pub name: String,
    /// Where SSH reaches it.
    pub address: String,
    /// `control-plane` or `worker`.
    pub role: String,
    /// Its steps in order; those with nothing in them are left out.
    pub steps: Vec<Section>,
}

/// A step, and what it does on the hosts: hosts that agree stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouped<'a> {
    /// Its id.
    pub step: &'a str,
    /// Its title.
    pub title: &'a str,
    /// Names of hosts and what all of them get.
    pub groups: Vec<(Vec<&'a str>, &'a Section)>,
}

impl Preview {
    /// How many things would be altered.
    pub fn changes(&self) -> usize {
        self.sections().map(|section| section.changes.len()).sum()
    }

    /// Whether something that runs would be interrupted.
    pub fn disrupts(&self) -> bool {
        self.sections().any(|section| section.changes.iter().any(|change| change.disrupts))
    }

    /// Names of the nodes that would be taken out of the cluster.
    pub fn leaving(&self) -> BTreeSet<String> {
        let changes = self.whole.iter().flat_map(|section| &section.changes);
        let gone = changes.filter(|change| change.kind == Kind::Node && change.action == Action::Remove);
        gone.map(|change| change.subject.clone()).collect()
    }

    fn sections(&self) -> impl Iterator<Item = &Section> {
        self.hosts.iter().flat_map(|host| &host.steps).chain(&self.whole)
    }

    /// The steps in order, each with the hosts it does something on.
    pub fn grouped(&self) -> Vec<Grouped<'_>> {
        let order = order(self.hosts.iter().map(|host| host.steps.iter().map(|step| step.step.as_str()).collect()));
        let of_step = |step: &'_ str| {
            let mut groups: Vec<(Vec<&str>, &Section)> = Vec::new();
            for host in &self.hosts {
                let Some(section) = host.steps.iter().find(|section| section.step == step) else { continue };
                match groups.iter_mut().find(|(_, there)| *there == section) {
                    Some((names, _)) => names.push(&host.name),
                    None => groups.push((vec![&host.name], section)),
                }
            }
            groups
        };
        order
            .into_iter()
            .filter_map(|step| {
                let groups = of_step(step);
                let title = groups.first()?.1.title.as_str();
                Some(Grouped { step, title, groups })
            })
            .collect()
    }
}

/// One order for the steps of all hosts in which each host's own order is kept, as far as they agree.
fn order<'a>(hosts: impl Iterator<Item = Vec<&'a str>>) -> Vec<&'a str> {
    let mut merged: Vec<&str> = Vec::new();
    for steps in hosts {
        let known: BTreeSet<&str> = merged.iter().copied().collect();
        // From the end: what only one host does comes right before what it does next.
        let mut at = merged.len();
        for step in steps.into_iter().rev() {
            match merged.iter().position(|there| *there == step).filter(|_| known.contains(step)) {
                Some(place) => at = place,
                None => merged.insert(at, step),
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{HostPreview, Preview, order};
    use crate::change::{Action, Change, Kind, Section};

    #[rstest]
    #[case(&["a b c", "a b c"], "a b c")]
    #[case(&["a c", "a b c"], "a b c")]
    #[case(&["a init z", "a join z"], "a init join z")]
    #[case(&["", "x"], "x")]
    fn steps_keep_their_order(#[case] hosts: &[&str], #[case] expected: &str) {
        let merged = order(hosts.iter().map(|steps| steps.split_whitespace().collect()));
        assert_eq!(merged.join(" "), expected);
    }

    fn host(name: &str, steps: &[(&str, &str)]) -> HostPreview {
        let section = |(step, file): &(&str, &str)| Section {
            changes: vec![Change::new(Kind::File, Action::Create, *file)],
            ..Section::new(*step, step.to_uppercase())
        };
        HostPreview { name: name.into(), steps: steps.iter().map(section).collect(), ..HostPreview::default() }
    }

    #[test]
    fn hosts_that_agree_stand_together() {
        let preview = Preview {
            hosts: vec![
                host("cp1", &[("prepare", "/a"), ("init", "/i")]),
                host("w1", &[("prepare", "/a"), ("join", "/j")]),
                host("w2", &[("prepare", "/b"), ("join", "/j")]),
            ],
            ..Preview::default()
        };
        let grouped = preview.grouped();
        let shown: Vec<String> = grouped
            .iter()
            .flat_map(|step| step.groups.iter().map(|(names, _)| format!("{}: {}", step.title, names.join("+"))))
            .collect();
        assert_eq!(shown, ["PREPARE: cp1+w1", "PREPARE: w2", "INIT: cp1", "JOIN: w1+w2"]);
        assert_eq!(preview.changes(), 6);
        assert!(!preview.disrupts());
    }
}
