//! Who takes part in a run: the hosts that were reached and are fit, as far as the run bears that the others are missing.
//! `plan` and `up` ask here alike, so that the one says what the other does. Pure, apart from what is said of the unfit.

use std::collections::{BTreeMap, BTreeSet};

use super::connect::Session;
use super::documents::Documents;
use super::findings::Finding;
use super::plan::{Borne, Plan, plan_of_the_fit};
use super::tolerance::{Tolerance, may_begin};
use crate::bundle::Manifest;
use crate::fact::Facts;
use crate::failure::Failure;
use crate::inventory::Inventory;

/// The hosts that were not reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Absent {
    /// Why each of them was not, and why the run cannot do without them where that is not plain.
    pub failures: Vec<Failure>,
    /// Whether the run may begin without them.
    pub borne: bool,
}

impl Absent {
    /// Judges the failures to reach hosts; `facts` are those of the hosts that were reached.
    pub fn of(
        inventory: &Inventory,
        tolerance: Tolerance,
        facts: &BTreeMap<String, Facts>,
        mut failures: Vec<Failure>,
    ) -> Self {
        let mut serving = inventory.control_planes().map(|host| host.name.as_str());
        let serving = serving.find(|name| facts.get(*name).is_some_and(|facts| facts.kubernetes.serves));
        let borne = may_begin(tolerance, inventory, &failures, serving).unwrap_or_else(|failure| {
            failures.push(failure);
            false
        });
        Self { failures, borne }
    }
}

/// Those that take part, and those that do not.
#[derive(Debug, Clone, PartialEq)]
pub struct Muster {
    /// The plan of those that do.
    pub plan: Plan,
    /// Why the others do not, each under its host: it was not reached, or is not fit.
    pub missing: Vec<Failure>,
    unfit: Vec<Failure>,
}

impl Muster {
    /// Judges the hosts that were reached, by their facts and by what was `tried` on them. A worker that is not fit is borne
    /// like one that is not there.
    ///
    /// # Errors
    /// Everything that was found, on hosts and in reaching them, where the run cannot begin.
    pub fn of(
        inventory: &Inventory,
        tolerance: Tolerance,
        documents: &Documents,
        facts: &BTreeMap<String, Facts>,
        manifest: &Manifest,
        tried: Vec<Finding>,
        absent: Absent,
    ) -> Result<Self, Vec<Failure>> {
        let Absent { failures: mut missing, borne } = absent;
        let Borne { plan, unfit } = match plan_of_the_fit(inventory, documents, facts, manifest, tried) {
            Ok(borne) => borne,
            Err(findings) => return Err(missing.into_iter().chain(findings).collect()),
        };
        missing.extend(unfit.iter().cloned());
        let names: BTreeSet<String> = missing.iter().filter_map(|failure| failure.host.clone()).collect();
        if !borne || !tolerance.bears(inventory, &names) {
            return Err(missing);
        }
        Ok(Self { plan, missing, unfit })
    }

    /// The sessions of those that take part; of each other one it is said why it does not.
    pub fn take(&self, mut sessions: Vec<Session>) -> Vec<Session> {
        let of_unfit = |name: &str| self.unfit.iter().find(|failure| failure.host.as_deref() == Some(name));
        for session in &sessions {
            if let Some(failure) = of_unfit(&session.host.name) {
                let step = session.events.step("preflight", "judge whether it is fit");
                drop(step.fail(failure.clone()));
            }
        }
        sessions.retain(|session| of_unfit(&session.host.name).is_none());
        sessions
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Absent, Finding, Muster};
    use crate::cluster::documents::Documents;
    use crate::cluster::findings::unmet;
    use crate::cluster::plan::tests::{facts, inventory, manifest};
    use crate::cluster::tolerance::Tolerance;
    use crate::failure::{Failure, Kind};

    /// What becomes of a run whose hosts `gone` were not reached and whose hosts `unfit` have no systemd: who takes part and
    /// who is missing, or of whom all it is said that nothing is begun.
    fn muster(gone: &str, unfit: &str, most: Option<usize>) -> Result<(String, String), String> {
        muster_when(gone, unfit, most, Vec::new())
    }

    /// The same, when something was found besides.
    fn muster_when(
        gone: &str,
        unfit: &str,
        most: Option<usize>,
        tried: Vec<Finding>,
    ) -> Result<(String, String), String> {
        let (inventory, mut facts) = (inventory(), facts());
        let names = |failures: Vec<Failure>| {
            failures.into_iter().filter_map(|failure| failure.host).collect::<Vec<_>>().join(" ")
        };
        unfit.split_whitespace().for_each(|name| facts.get_mut(name).unwrap().systemd = false);
        let gone: Vec<&str> = gone.split_whitespace().collect();
        facts.retain(|name, _| !gone.contains(&name.as_str()));
        let failures = gone.iter().map(|name| Failure::new(Kind::Connection, "no").on(*name)).collect();
        let tolerance = Tolerance { most };
        let absent = Absent::of(&inventory, tolerance, &facts, failures);
        let muster = Muster::of(&inventory, tolerance, &Documents::default(), &facts, &manifest(), tried, absent);
        let muster = muster.map_err(names)?;
        let there: Vec<String> = muster.plan.hosts.iter().map(|host| host.name.clone()).collect();
        Ok((there.join(" "), names(muster.missing)))
    }

    #[rstest]
    #[case::a_worker_with_a_wrong_clock("w1", "ClockSkew", Ok(("cp1", "w1")))]
    #[case::a_control_plane_with_one("cp1", "ClockSkew", Err("cp1"))]
    #[case::a_way_that_is_closed("w1", "Reachable-6443", Err("w1"))]
    fn what_was_tried_counts_as_what_facts_tell(
        #[case] host: &str,
        #[case] check: &str,
        #[case] expected: Result<(&str, &str), &str>,
    ) {
        let found = muster_when("", "", None, vec![Finding::error(check, unmet("no")).on(host)]);
        let found = found.as_ref().map(|(there, missing)| (there.as_str(), missing.as_str())).map_err(String::as_str);
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case::all_there("", "", None, Ok(("cp1 w1", "")))]
    #[case::an_unfit_worker("", "w1", None, Ok(("cp1", "w1")))]
    #[case::one_that_was_not_reached("w1", "", None, Ok(("cp1", "w1")))]
    #[case::as_many_as_may_be_missing("", "w1", Some(1), Ok(("cp1", "w1")))]
    #[case::none_may_be_missing("", "w1", Some(0), Err("w1"))]
    #[case::none_may_be_out_of_reach("w1", "", Some(0), Err("w1"))]
    #[case::an_unfit_control_plane("", "cp1", None, Err("cp1"))]
    #[case::all_that_is_wrong_at_once("w1", "cp1", None, Err("w1 cp1"))]
    #[case::a_control_plane_out_of_reach("cp1", "w1", None, Err("cp1 w1"))]
    fn who_takes_part(
        #[case] gone: &str,
        #[case] unfit: &str,
        #[case] most: Option<usize>,
        #[case] expected: Result<(&str, &str), &str>,
    ) {
        let found = muster(gone, unfit, most);
        let found = found.as_ref().map(|(there, missing)| (there.as_str(), missing.as_str())).map_err(String::as_str);
        assert_eq!(found, expected);
    }
}
