//! How many hosts may be missing before a run is worth nothing: a few dead machines must not keep the others from their
//! cluster. Pure, apart from the count that lanes share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Inventory, Role};

/// How many hosts may fail (`--max-failures`). Without a number: any number of workers, and no control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// The number of hosts of any role that may fail, where a person gave one.
    pub most: Option<usize>,
}

impl Tolerance {
    /// Whether a run goes on when these hosts are not part of it.
    pub fn bears(self, inventory: &Inventory, failed: &BTreeSet<String>) -> bool {
        match self.most {
            Some(most) => failed.len() <= most,
            None => inventory.control_planes().all(|host| !failed.contains(&host.name)),
        }
    }
}

/// Whether a failure to reach a host, or its own to download what it needs, concerns that host alone. What a preflight
/// check, a lock or a person says concerns the run: then nothing is begun.
fn concerns_one_host(failure: &Failure) -> bool {
    let alone = [Kind::Connection, Kind::Authentication, Kind::HostKey, Kind::Privilege, Kind::Host, Kind::Bundle];
    failure.host.is_some() && alone.contains(&failure.kind)
}

/// Whether a run may begin without the hosts that these failures are about. `serving` is a control plane that was reached
/// and does its work: without one, a control plane that was not reached may be where the cluster lives, and a second one
/// must never be made beside it.
///
/// # Errors
/// Why not, besides the failures themselves, where that is not plain.
pub fn may_begin(
    tolerance: Tolerance,
    inventory: &Inventory,
    unreachable: &[Failure],
    serving: Option<&str>,
) -> Result<bool> {
    if unreachable.is_empty() {
        return Ok(true);
    }
    let names: BTreeSet<String> = unreachable.iter().filter_map(|failure| failure.host.clone()).collect();
    let borne = tolerance.bears(inventory, &names) && names.len() < inventory.hosts.len();
    if !borne || !unreachable.iter().all(concerns_one_host) {
        return Ok(false);
    }
    let missing = inventory.hosts.iter().find(|host| host.role == Role::ControlPlane && names.contains(&host.name));
    match missing {
        Some(host) if serving.is_none() => {
            let sentence = "the cluster may live on it, and no other control plane serves one";
            Err(Failure::new(Kind::Cluster, sentence)
                .on(&host.name)
                .advise("bring it back, or take it out of the inventory if it is lost for good")
                .may_pass())
        }
        _ => Ok(true),
    }
}

/// The hosts of a run that failed so far, and by what kind of failure.
#[derive(Debug)]
pub struct Casualties<'a> {
    tolerance: Tolerance,
    inventory: &'a Inventory,
    failed: Mutex<BTreeMap<String, Kind>>,
}

impl<'a> Casualties<'a> {
    /// A count that begins with the hosts that were not reached.
    pub fn new(tolerance: Tolerance, inventory: &'a Inventory, unreachable: &[Failure]) -> Self {
        let failed = unreachable.iter().filter_map(|failure| Some((failure.host.clone()?, failure.kind))).collect();
        Self { tolerance, inventory, failed: Mutex::new(failed) }
    }

    /// A host failed.
    pub fn add(&self, name: &str, kind: Kind) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), kind);
    }

    /// For the places between two steps: a failure once more hosts failed than the run may lose. It is of the kind of the
    /// worst of theirs: what follows from a failure must not outweigh it in the exit code.
    pub fn check(&self) -> Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<String> = failed.keys().cloned().collect();
        if self.tolerance.bears(self.inventory, &names) {
            return Ok(());
        }
        let kind = failed.values().copied().max().unwrap_or(Kind::Cluster);
        let sentence = format!("stopped after the step in hand, because {} failed", Vec::from_iter(names).join(", "));
        Err(Failure::new(kind, sentence)
            .advise("see why, then run the same command again; --max-failures says how many hosts may fail")
            .may_pass())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{Casualties, Tolerance, may_begin};
    use crate::failure::{Failure, Kind};
    use crate::inventory::{self, Inventory};

    fn inventory() -> Inventory {
        let text = "cluster: {endpoint: built-in}\nssh: {user: root}\nhosts: {c1: {role: control-plane}, c2: {role: control-plane}, c3: {role: control-plane}, w1: , w2: }\n";
        inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"))
    }

    fn unreachable(names: &str, kind: Kind) -> Vec<Failure> {
        names.split_whitespace().map(|name| Failure::new(kind, "no").on(name)).collect()
    }

    #[rstest]
    #[case::all_there("", None, None, Ok(true))]
    #[case::a_worker("w1", None, None, Ok(true))]
    #[case::all_workers("w1 w2", None, None, Ok(true))]
    #[case::a_control_plane("c1", None, Some("c2"), Ok(false))]
    #[case::too_many("w1 w2", Some(1), None, Ok(false))]
    #[case::as_many_as_allowed("w1 w2", Some(2), None, Ok(true))]
    #[case::none_allowed("w1", Some(0), None, Ok(false))]
    #[case::a_control_plane_of_a_cluster_that_lives("c1", Some(1), Some("c2"), Ok(true))]
    #[case::a_control_plane_that_may_be_all("c1", Some(1), None, Err("c1"))]
    #[case::nobody_there("c1 c2 c3 w1 w2", Some(9), None, Ok(false))]
    fn who_may_be_missing_at_the_start(
        #[case] names: &str,
        #[case] most: Option<usize>,
        #[case] serving: Option<&str>,
        #[case] expected: Result<bool, &str>,
    ) {
        let answer = may_begin(Tolerance { most }, &inventory(), &unreachable(names, Kind::Connection), serving);
        assert_eq!(answer.map_err(|failure| failure.host.unwrap_or_default()), expected.map_err(str::to_owned));
    }

    #[rstest]
    #[case(Kind::Authentication, true)]
    #[case(Kind::HostKey, true)]
    #[case(Kind::Privilege, true)]
    #[case(Kind::Host, true)]
    #[case(Kind::Bundle, true)]
    #[case(Kind::Preflight, false)]
    #[case(Kind::Busy, false)]
    #[case(Kind::Interrupted, false)]
    fn only_what_concerns_one_host_is_borne(#[case] kind: Kind, #[case] borne: bool) {
        let answer = may_begin(Tolerance::default(), &inventory(), &unreachable("w1", kind), None);
        assert_eq!(answer, Ok(borne));
    }

    #[rstest]
    #[case(None, "w1 w2", true)]
    #[case(None, "c2", false)]
    #[case(Some(1), "c2", true)]
    #[case(Some(1), "w1 w2", false)]
    fn who_may_fail_on_the_way(#[case] most: Option<usize>, #[case] names: &str, #[case] goes_on: bool) {
        let inventory = inventory();
        let casualties = Casualties::new(Tolerance { most }, &inventory, &[]);
        names.split_whitespace().for_each(|name| casualties.add(name, Kind::Preflight));
        let stopped = casualties.check().err();
        assert_eq!(stopped.is_none(), goes_on);
        assert!(stopped.as_ref().is_none_or(|failure| failure.kind == Kind::Preflight));
        assert!(stopped.is_none_or(|failure| failure.sentence.contains(&names.replace(' ', ", "))));
    }
}
