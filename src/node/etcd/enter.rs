//! A joining control plane's member: added as learner, started, promoted (kubeadm.md section 10.4).
//!
//! Several hosts join at once, and etcd has room for one learner and refuses changes for seconds after each: everybody
//! looks again and again, and whoever finds room goes in. Nothing here is undone on failure: a member that was added is
//! taken up by the next run, and until it is promoted it has no vote that could be missed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cluster::{Cluster, Pods, pods};
use super::gateway::Member;
use super::membership::{Arrival, Quorum, There, arrival, initial_cluster};
use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::manifests::EtcdMember;

/// Time between two looks while there is no room.
const EVERY: Duration = Duration::from_millis(250);

/// Hosts that joined at the same moment look at different ones: a part of this is added, by the host's name.
const JITTER_MILLISECONDS: u64 = 150;

/// Time between two tries to promote the own member.
const EVERY_OWN: Duration = Duration::from_millis(150);

/// How long etcd may be without a quorum before joining is given up: members that come and go leave it for seconds.
const QUORUM_LIMIT: Duration = Duration::from_secs(45);

/// A pod of etcd that the API server refused comes when the kubelet's next look is due, within 90 seconds.
const NEXT_LOOK: Duration = Duration::from_secs(150);

/// Who enters.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Entrant<'a> {
    /// Name of the Node, and of the member.
    pub(in crate::node) node_name: &'a str,
    /// Where the other members will reach it.
    pub(in crate::node) peer_url: &'a str,
    /// Where its data will be.
    pub(in crate::node) data: &'a Path,
    /// Where its write-ahead log will be; what tells whether it has ever started.
    pub(in crate::node) log: &'a Path,
    /// Its static pod.
    pub(in crate::node) manifest: &'a Path,
    /// How many learners etcd takes at a time.
    pub(in crate::node) learners: usize,
    /// Whether it only enters an etcd that has its quorum (phase check-etcd).
    pub(in crate::node) wants_quorum: bool,
}

/// Limits of waiting.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Limits {
    /// For a call of the API, retries included.
    pub(in crate::node) api: Duration,
    /// For an operation on etcd's members, retries included.
    pub(in crate::node) etcd: Duration,
    /// For a member to start.
    pub(in crate::node) start: Duration,
}

/// A member that is to be started, or goes on.
#[derive(Debug, Clone)]
pub(in crate::node) struct Entry {
    /// The etcd it belongs to.
    pub(in crate::node) cluster: Cluster,
    /// Its identifier.
    pub(in crate::node) id: u64,
    /// What its static pod names as initial cluster; `None` for one that has its data already.
    pub(in crate::node) initial_cluster: Option<Vec<EtcdMember>>,
    /// Tag of the image that the other members run; `None` where that is no version.
    pub(in crate::node) tag: Option<String>,
    /// What was altered, one line each.
    pub(in crate::node) changes: Vec<String>,
}

impl Entrant<'_> {
    /// What is on the host of a member.
    fn there(&self, host: &dyn Host) -> Result<There> {
        let manifest = host.entry(self.manifest)?.is_some();
        Ok(There { data: !host.list(self.log)?.is_empty(), manifest })
    }

    /// Time between two looks of this host.
    fn every(&self) -> Duration {
        let sum = self.peer_url.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        EVERY + Duration::from_millis(sum % JITTER_MILLISECONDS)
    }
}

/// Finds etcd through the API and sees that it has a quorum.
///
/// # Errors
/// Kind `Cluster` when etcd does not answer or has no quorum within the limits.
pub(in crate::node) async fn check(host: &dyn Host, admin: &Client, certificates: &Path, limits: Limits) -> Result<()> {
    let pods = pods(admin, limits.api.max(NEXT_LOOK)).await?;
    let cluster = Cluster::new(host, certificates, pods.endpoints)?;
    answering(&cluster, true, limits.etcd.min(QUORUM_LIMIT)).await.map(drop)
}

/// Finds etcd through the API, sees that it has a quorum, and has this host's member added unless it is there.
///
/// # Errors
/// Kind `Cluster` when etcd does not answer, has no quorum or has no room for a learner within the limits; `Preflight`
/// when the host holds data of another member.
pub(in crate::node) async fn enter(
    host: &dyn Host,
    admin: &Client,
    certificates: &Path,
    entrant: &Entrant<'_>,
    limits: Limits,
) -> Result<Entry> {
    let Pods { endpoints, tag } = pods(admin, limits.api.max(NEXT_LOOK)).await?;
    let cluster = Cluster::new(host, certificates, endpoints)?;
    Ok(Entry { tag, ..enter_cluster(host, cluster, entrant, limits).await? })
}

async fn enter_cluster(host: &dyn Host, mut cluster: Cluster, entrant: &Entrant<'_>, limits: Limits) -> Result<Entry> {
    let members = answering(&cluster, entrant.wants_quorum, limits.etcd.min(QUORUM_LIMIT)).await?;
    let own = own_host(entrant.peer_url);
    cluster.follow(&members, |url| url.contains(own));
    let changes = std::sync::Mutex::new(Vec::new());
    let note = |change: String| changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(change);
    // Others may be in front, and each needs its time to start.
    let limit = limits.etcd + limits.start;
    let wait = Wait::new("etcd", "take this host as a member", limit).every(entrant.every());
    let entered = wait
        .until(async || {
            let mut members = match cluster.members().await {
                Ok(members) => members,
                Err(refusal) => return Ok(Look::NotYet(refusal.to_string())),
            };
            let mut next = arrival(&members, entrant.peer_url, entrant.there(host)?);
            if next == Arrival::Add {
                // Every try is a change that all members agree on, even one that is refused.
                if members.iter().filter(|member| member.is_learner).count() >= entrant.learners {
                    return Ok(Look::NotYet(no_room(&members, "etcd takes no other learner meanwhile")));
                }
                let added = cluster
                    .change(async |endpoint| cluster.gateway.add_learner(&endpoint, entrant.peer_url).await)
                    .await;
                match added {
                    Ok(()) => note(format!("etcd member {} added as learner", entrant.peer_url)),
                    Err(refusal) if refusal.peer_is_there() => {}
                    Err(refusal) => return Ok(Look::NotYet(no_room(&members, &refusal.to_string()))),
                }
                members = match cluster.members().await {
                    Ok(members) => members,
                    Err(refusal) => return Ok(Look::NotYet(refusal.to_string())),
                };
                next = arrival(&members, entrant.peer_url, entrant.there(host)?);
            }
            match next {
                Arrival::Add => Ok(Look::NotYet("it was added and is not there".to_owned())),
                Arrival::Start(id) => {
                    let named = initial_cluster(&members, entrant.peer_url, entrant.node_name);
                    Ok(Look::There((id, Some(named))))
                }
                Arrival::GoOn(id) => Ok(Look::There((id, None))),
                Arrival::Replace(id) => {
                    let healthy = cluster.healthy(&members).await;
                    // It runs, so its data is somewhere: a patch may have moved it.
                    if healthy.contains(&id) {
                        return Ok(Look::There((id, None)));
                    }
                    replace(&cluster, &members, &healthy, id, entrant).await?;
                    note(format!("etcd member {id:x} removed: its data is gone"));
                    Ok(Look::NotYet("the member that this host was before is taken out".to_owned()))
                }
                Arrival::Stale => Err(stale(entrant)),
            }
        })
        .await;
    let (id, initial_cluster) = entered.map_err(|failure| {
        failure.advise(
            "see `etcdctl member list` on another control plane: a learner that will never start holds the place, and \
             `etcdctl member remove` frees it; then run the same command again",
        )
    })?;
    let changes = changes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Entry { cluster, id, initial_cluster, tag: None, changes })
}

/// The host in a URL, for telling whether another URL is of the same host.
fn own_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}

/// Why there is no room, with whoever is in front.
fn no_room(members: &[Member], refusal: &str) -> String {
    let learner = members.iter().find(|member| member.is_learner);
    match learner {
        Some(member) => {
            format!("{refusal}; the learner {} at {} is in front", member.label(), member.peer_urls.join(", "))
        }
        None => refusal.to_owned(),
    }
}

fn stale(entrant: &Entrant<'_>) -> Failure {
    let data = entrant.data.display();
    Failure::new(
        Kind::Preflight,
        format!(
            "DirAvailable-{}: it holds the data of a member that etcd does not know",
            data.to_string().replace('/', "-")
        ),
    )
    .advise(format!("reset the host, or remove {data} if nothing in it is needed; then run the same command again"))
}

/// Waits until etcd answers, and where it is wanted has a quorum that does; returns its members.
async fn answering(cluster: &Cluster, wants_quorum: bool, limit: Duration) -> Result<Vec<Member>> {
    let wait = Wait::new("etcd", "have a quorum of members that answer", limit);
    let served = wait
        .until(async || {
            let members = match cluster.members().await {
                Ok(members) => members,
                Err(refusal) => return Ok(Look::NotYet(refusal.to_string())),
            };
            if !wants_quorum {
                return Ok(Look::There(members));
            }
            let healthy = cluster.healthy(&members).await;
            let quorum = Quorum::of(&members, &healthy, None);
            Ok(match quorum.is_there() {
                true => Look::There(members),
                false => Look::NotYet(format!("{} of {} members answer and are well", quorum.healthy, quorum.voters)),
            })
        })
        .await;
    served.map_err(|failure| {
        failure.advise(
            "bring the other control planes back first, or take those that are gone out of etcd (`etcdctl member \
             remove` on one that runs)",
        )
    })
}

/// Takes out the member that this host was before its data was lost, if the others are a quorum without it.
async fn replace(cluster: &Cluster, members: &[Member], healthy: &[u64], id: u64, entrant: &Entrant<'_>) -> Result<()> {
    let rest = Quorum::of(members, healthy, Some(id));
    let votes = members.iter().any(|member| member.id == id && !member.is_learner);
    if votes && !rest.is_there() {
        return Err(Failure::new(
            Kind::Cluster,
            format!(
                "the etcd member at {} has lost its data, and only {} of the {} others are well: etcd cannot do without it",
                entrant.peer_url, rest.healthy, rest.voters
            ),
        )
        .advise("bring the other control planes back first, then run the same command again"));
    }
    match cluster.change(async |endpoint| cluster.gateway.remove(&endpoint, id).await).await {
        Ok(()) => Ok(()),
        Err(refusal) if refusal.member_is_gone() => Ok(()),
        // Looked at again with everything else.
        Err(_) => Ok(()),
    }
}

/// Waits until the member of `entry` is in sync with the others, and gives it its vote. Clients it serves up to 7 s later, when it has said
/// its name a second time: what the first saying leads to may come to it in a snapshot, unseen. `renew` is called with the
/// members while it has not started and those it was told of are not those of now: others come and go meanwhile, and etcd
/// only starts with the right ones.
///
/// # Errors
/// Kind `Cluster` when it does not start or get in sync within the limits, or was taken out by somebody.
pub(in crate::node) async fn promote(
    entry: &Entry,
    entrant: &Entrant<'_>,
    limits: Limits,
    renew: impl Fn(&[EtcdMember]) -> Result<()>,
) -> Result<Vec<String>> {
    let (cluster, id) = (&entry.cluster, entry.id);
    let own = async || -> Result<Option<(Member, Vec<Member>)>> {
        let Ok(members) = cluster.members().await else { return Ok(None) };
        match members.iter().find(|member| member.id == id).cloned() {
            Some(own) => Ok(Some((own, members))),
            None => Err(Failure::new(Kind::Cluster, format!("etcd's member {id:x}, this host's, was taken out again"))
                .advise("reset the host and join it again")),
        }
    };
    let urls =
        |members: &[EtcdMember]| -> BTreeSet<String> { members.iter().map(|member| member.peer_url.clone()).collect() };
    let promoted = AtomicBool::new(false);
    let limit = limits.start + limits.etcd;
    let wait = Wait::new("etcd on this host", "start, get in sync and be given its vote", limit).every(EVERY_OWN);
    wait.until(async || {
        let Some((own, members)) = own().await? else {
            return Ok(Look::NotYet("the other members do not answer".to_owned()));
        };
        // Also when an answer was lost, or somebody else promoted it.
        if !own.is_learner {
            return Ok(Look::There(()));
        }
        if let Some(told) = entry.initial_cluster.as_ref().filter(|_| !own.has_started()) {
            let now = initial_cluster(&members, entrant.peer_url, entrant.node_name);
            if urls(told) != urls(&now) {
                renew(&now)?;
            }
        }
        // It is in sync often before the others know its name; one that does not run is never in sync.
        match cluster.change(async |endpoint| cluster.gateway.promote(&endpoint, id).await).await {
            Ok(()) => {
                promoted.store(true, Ordering::Relaxed);
                Ok(Look::There(()))
            }
            Err(refusal) => Ok(Look::NotYet(refusal.to_string())),
        }
    })
    .await?;
    Ok(promoted.into_inner().then(|| format!("etcd member {id:x} promoted")).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Entrant, Limits, enter_cluster, promote};
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::node::etcd::fake::FakeEtcd;

    const LIMITS: Limits =
        Limits { api: Duration::from_secs(2), etcd: Duration::from_secs(3), start: Duration::from_secs(3) };

    fn entrant<'a>(name: &'a str, peer_url: &'a str) -> Entrant<'a> {
        Entrant {
            node_name: name,
            peer_url,
            data: Path::new("/var/lib/etcd"),
            log: Path::new("/var/lib/etcd/member/wal"),
            manifest: Path::new("/etc/kubernetes/manifests/etcd.yaml"),
            learners: 1,
            wants_quorum: true,
        }
    }

    #[tokio::test]
    async fn whoever_skips_the_check_enters_an_etcd_of_whose_members_most_cannot_be_asked() {
        // Two that announce no URL to ask them by.
        let etcd = FakeEtcd::start(&["cp1", "", ""]).await;
        let own = entrant("cp4", "https://10.0.0.4:2380");
        let limits = Limits { etcd: Duration::from_millis(300), ..LIMITS };
        let failure = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, limits).await.unwrap_err();
        assert!(failure.sentence.contains("have a quorum"), "{failure}");
        let own = Entrant { wants_quorum: false, ..own };
        let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, limits).await.unwrap();
        assert_eq!(entry.changes, ["etcd member https://10.0.0.4:2380 added as learner"]);
    }

    #[tokio::test]
    async fn a_new_member_is_added_started_and_promoted() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        let own = entrant("cp2", "https://10.0.0.2:2380");
        let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, LIMITS).await.unwrap();
        assert_eq!(entry.changes, ["etcd member https://10.0.0.2:2380 added as learner"]);
        let named: Vec<&str> =
            entry.initial_cluster.as_ref().unwrap().iter().map(|member| member.name.as_str()).collect();
        assert_eq!(named, ["cp1", "cp2"]);
        etcd.is_late(2);
        etcd.starts(entry.id, "cp2");
        assert_eq!(promote(&entry, &own, LIMITS, |_| Ok(())).await.unwrap(), ["etcd member 2 promoted"]);
        assert_eq!(etcd.members(), ["cp1", "cp2"]);
        assert!(promote(&entry, &own, LIMITS, |_| Ok(())).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_member_that_was_added_and_never_started_is_taken_up_again() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        let id = etcd.add("10.0.0.2");
        let own = entrant("cp2", "https://10.0.0.2:2380");
        let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, LIMITS).await.unwrap();
        assert_eq!((entry.id, entry.changes.len()), (id, 0));
        assert!(entry.initial_cluster.is_some());
        assert!(etcd.changes().is_empty());
    }

    #[tokio::test]
    async fn two_at_once_wait_for_each_other() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        etcd.refuse_next(3, "etcdserver: unhealthy cluster");
        let join = async |name: &'static str, peer_url: &'static str| {
            let own = entrant(name, peer_url);
            let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, LIMITS).await?;
            etcd.starts(entry.id, name);
            promote(&entry, &own, LIMITS, |_| Ok(())).await
        };
        let (one, other) = tokio::join!(join("cp2", "https://10.0.0.2:2380"), join("cp3", "https://10.0.0.3:2380"));
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let mut members = etcd.members();
        members.sort();
        assert_eq!(members, ["cp1", "cp2", "cp3"]);
    }

    #[tokio::test]
    async fn a_place_that_is_never_free_is_named() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        etcd.add("10.0.0.9");
        let limits = Limits { etcd: Duration::from_millis(300), start: Duration::from_millis(300), ..LIMITS };
        let own = entrant("cp2", "https://10.0.0.2:2380");
        let failure = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, limits).await.unwrap_err();
        assert!(failure.to_string().contains("the learner 2 at https://10.0.0.9:2380 is in front"), "{failure}");
        assert!(failure.advice.unwrap().contains("etcdctl member remove"));
    }

    #[tokio::test]
    async fn without_a_quorum_nothing_is_added() {
        let etcd = FakeEtcd::start(&["cp1", "cp2"]).await;
        etcd.kill("cp2");
        let limits = Limits { etcd: Duration::from_millis(300), ..LIMITS };
        let own = entrant("cp3", "https://10.0.0.3:2380");
        let failure = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, limits).await.unwrap_err();
        assert!(failure.sentence.starts_with("etcd did not have a quorum"), "{failure}");
        assert!(etcd.changes().is_empty());
    }

    #[tokio::test]
    async fn a_machine_that_lost_its_data_becomes_a_new_member() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp3");
        let own = entrant("cp3", "https://10.0.0.3:2380");
        let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, LIMITS).await.unwrap();
        assert_eq!(etcd.changes(), ["remove 3", "add 10.0.0.3"]);
        assert_eq!(entry.initial_cluster.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_member_that_runs_is_never_replaced() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        let own = entrant("cp3", "https://10.0.0.3:2380");
        let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, LIMITS).await.unwrap();
        assert_eq!((entry.id, entry.initial_cluster), (3, None));
        assert!(etcd.changes().is_empty());
    }

    #[tokio::test]
    async fn data_of_a_member_that_is_gone_is_not_touched() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        let host = FakeHost::new().file("/var/lib/etcd/member/wal/0.wal", "");
        let own = entrant("cp2", "https://10.0.0.2:2380");
        let failure = enter_cluster(&host, etcd.cluster(), &own, LIMITS).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Preflight);
        assert!(failure.sentence.starts_with("DirAvailable--var-lib-etcd: "), "{failure}");
    }

    #[tokio::test]
    async fn a_member_that_waits_is_told_of_others_that_came() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        let own = entrant("cp2", "https://10.0.0.2:2380");
        let entry = enter_cluster(&FakeHost::new(), etcd.cluster(), &own, LIMITS).await.unwrap();
        etcd.add("10.0.0.3");
        let id = entry.id;
        let renewed = std::sync::Mutex::new(0);
        promote(&entry, &own, LIMITS, |members| {
            *renewed.lock().unwrap() = members.len();
            etcd.starts(id, "cp2");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*renewed.lock().unwrap(), 3);
    }
}
