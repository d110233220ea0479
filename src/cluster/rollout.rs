//! A changed configuration reaches the nodes that are there in turn: first the control plane that the cluster is asked of,
//! then the other control planes one by one, then the workers by batches. After a failure nobody else gets a turn.

use std::collections::BTreeSet;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit, watch};

use super::plan::{Plan, Way};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Role;

/// Of so many workers one may change at a time, and one more for each further so many.
const WORKERS_IN_A_BATCH: usize = 5;

/// Whose turn it is.
pub struct Rollout {
    /// Control planes that have not had theirs.
    waiting: watch::Sender<BTreeSet<String>>,
    source: String,
    /// The host that failed.
    failed: watch::Sender<Option<String>>,
    control_planes: Mutex<()>,
    workers: Semaphore,
}

/// A turn; it ends when this is dropped.
pub enum Turn<'a> {
    /// Of a control plane.
    ControlPlane {
        /// Keeps the others waiting.
        _alone: MutexGuard<'a, ()>,
    },
    /// Of a worker.
    Worker {
        /// A place in the batch.
        _place: SemaphorePermit<'a>,
    },
}

impl Rollout {
    /// The turns of a plan; `at_once` says how many workers change at a time where a person does.
    pub fn of(plan: &Plan, at_once: Option<usize>) -> Self {
        let changes = |way: Way, member: bool| way == Way::Source || (way == Way::ControlPlane && member);
        let waiting = plan.hosts.iter().filter(|host| changes(host.way, host.member));
        let workers = plan.hosts.iter().filter(|host| host.way == Way::Worker && host.member).count();
        Self {
            waiting: watch::Sender::new(waiting.map(|host| host.name.clone()).collect()),
            source: plan.source().unwrap_or_default().to_owned(),
            failed: watch::Sender::new(None),
            control_planes: Mutex::new(()),
            workers: Semaphore::new(at_once.unwrap_or_else(|| batch(workers)).clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    /// A host has had its turn, or needs none.
    pub fn done(&self, host: &str) {
        self.waiting.send_if_modified(|waiting| waiting.remove(host));
    }

    /// A host did not get through: nobody waits for it, and nobody after it changes.
    pub fn failed(&self, host: &str) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| host.to_owned());
            first
        });
        self.done(host);
    }

    /// Does a member's work in its turn. That it failed is known before the turn ends: whoever waits for it does not begin.
    ///
    /// # Errors
    /// As the work.
    pub async fn in_turn<T>(&self, host: &str, turn: Turn<'_>, work: impl Future<Output = Result<T>>) -> Result<T> {
        let result = work.await;
        if result.is_err() {
            self.failed(host);
        }
        drop(turn);
        result
    }

    /// Waits for the turn of a member.
    ///
    /// # Errors
    /// Kind `Cluster` when a host before it failed.
    pub async fn turn(&self, role: Role) -> Result<Turn<'_>> {
        let mut waiting = self.waiting.subscribe();
        let turn = match role {
            Role::ControlPlane => {
                let _ = waiting.wait_for(|waiting| !waiting.contains(&self.source)).await;
                Turn::ControlPlane { _alone: self.control_planes.lock().await }
            }
            Role::Worker => {
                let _ = waiting.wait_for(BTreeSet::is_empty).await;
                let place = self.workers.acquire().await;
                let place = place.map_err(|_| Failure::new(Kind::Internal, "there are no turns any more"))?;
                Turn::Worker { _place: place }
            }
        };
        let failed = self.failed.borrow().clone();
        match failed {
            None => Ok(turn),
            Some(host) => Err(Failure::new(
                Kind::Cluster,
                format!("its configuration is left as it was, because {host} did not get through"),
            )
            .advise("see what failed there, then run the same command again")
            .may_pass()),
        }
    }
}

/// How many of so many workers change at a time.
fn batch(workers: usize) -> usize {
    workers.div_ceil(WORKERS_IN_A_BATCH).max(1)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use rstest::rstest;

    use super::{Rollout, batch};
    use crate::cluster::documents::NodeAddress;
    use crate::cluster::plan::{HostPlan, Plan, Way};
    use crate::failure::{Failure, Kind};
    use crate::inventory::Role;

    fn rollout(at_once: Option<usize>) -> Rollout {
        let host = |name: &str, way: Way| HostPlan {
            name: name.into(),
            node: NodeAddress { address: "10.0.0.1".parse().unwrap(), must_be_told: false },
            way,
            member: true,
            balancer: None,
            blobs: Vec::new(),
            variables: Default::default(),
        };
        let hosts = vec![
            host("cp1", Way::Source),
            host("cp2", Way::ControlPlane),
            host("cp3", Way::ControlPlane),
            host("w1", Way::Worker),
            host("w2", Way::Worker),
        ];
        Rollout::of(&Plan { hosts, warnings: Vec::new() }, at_once)
    }

    #[rstest]
    #[case(0, 1)]
    #[case(5, 1)]
    #[case(6, 2)]
    #[case(50, 10)]
    fn batches(#[case] workers: usize, #[case] at_once: usize) {
        assert_eq!(batch(workers), at_once);
    }

    #[test]
    fn everybody_waits_for_those_before_and_control_planes_go_alone() {
        let rollout = rollout(None);
        let turn = |role| rollout.turn(role).now_or_never();
        assert!(turn(Role::ControlPlane).is_none() && turn(Role::Worker).is_none());
        rollout.done("cp1");
        assert!(turn(Role::Worker).is_none());
        let first = turn(Role::ControlPlane).unwrap().unwrap();
        assert!(turn(Role::ControlPlane).is_none());
        drop(first);
        rollout.done("cp2");
        let second = turn(Role::ControlPlane).unwrap().unwrap();
        rollout.done("cp3");
        drop(second);
        let worker = turn(Role::Worker).unwrap().unwrap();
        // Two workers: one at a time.
        assert!(turn(Role::Worker).is_none());
        drop(worker);
        assert!(turn(Role::Worker).unwrap().is_ok());
    }

    #[rstest]
    #[case(None, 1)]
    #[case(Some(0), 1)]
    #[case(Some(2), 2)]
    #[case(Some(usize::MAX), 2)]
    fn a_person_may_say_how_many_workers_change_at_a_time(#[case] at_once: Option<usize>, #[case] expected: usize) {
        let rollout = rollout(at_once);
        ["cp1", "cp2", "cp3"].iter().for_each(|host| rollout.done(host));
        let turns = [0, 1].map(|_| rollout.turn(Role::Worker).now_or_never());
        assert_eq!(turns.iter().flatten().count(), expected);
    }

    #[tokio::test]
    async fn who_waits_for_the_turn_of_one_that_fails_does_not_begin() {
        let rollout = rollout(Some(1));
        ["cp1", "cp2", "cp3"].iter().for_each(|host| rollout.done(host));
        let turn = rollout.turn(Role::Worker).await.unwrap();
        let waiting = rollout.turn(Role::Worker);
        let failing = async {
            tokio::task::yield_now().await;
            Err::<(), _>(Failure::new(Kind::Host, "no"))
        };
        let (failed, refused) = futures::join!(rollout.in_turn("w1", turn, failing), waiting);
        assert_eq!(failed.unwrap_err().sentence, "no");
        assert!(refused.map(drop).unwrap_err().sentence.ends_with("because w1 did not get through"));
    }

    #[test]
    fn nobody_changes_after_a_failure() {
        let rollout = rollout(None);
        rollout.done("cp1");
        rollout.failed("cp2");
        let refused = rollout.turn(Role::ControlPlane).now_or_never().unwrap().map(drop).unwrap_err();
        assert!(refused.sentence.ends_with("because cp2 did not get through"), "{refused}");
        rollout.failed("cp3");
        let refused = rollout.turn(Role::Worker).now_or_never().unwrap().map(drop).unwrap_err();
        assert!(refused.sentence.ends_with("because cp2 did not get through"), "{refused}");
    }
}
