//! `reset`: takes a node apart (kubeadm.md section 12), and also what kubeadm leaves to the reader of its last lines:
//! interfaces, firewall chains, IPVS, what CNI plugins that are known left, logs.
//!
//! It works by what is there, never by what should be: on half-made nodes, with a dead API server, with a dead runtime,
//! twice in a row. What resists is remembered, everything else goes on, and the end names what is left. Only one thing
//! stops it, before it begins: etcd that would lose its quorum.

mod control_groups;
mod directories;
mod etcd_member;
mod files;
mod firewall;
mod ipvs;
mod links;
mod lost_member;
mod mounts;
mod plugins;
mod pods;
mod sweep;

use std::path::{Path, PathBuf};

pub use self::lost_member::remove_lost_member;
use self::plugins::Plugins;
use self::sweep::Sweep;
use super::rehearse::Rehearsed;
use super::{etcd, files as node_files, phases, sysctls, unit};
use crate::api::Rehearsal;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::overlay::Overlay;
use crate::message::ResetOrder;
use crate::secret::Secret;

/// What the node's own files say about where its parts lie; read before anything is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traces {
    /// Directory of certificates and keys.
    certificates: PathBuf,
    /// Directory of etcd's data; `None` where its static pod does not say.
    etcd_data: Option<PathBuf>,
    /// The member of etcd, if there is one.
    etcd: Option<etcd::Trace>,
    /// The administrator's kubeconfig.
    admin: Option<Secret>,
    /// Bridge of our pod network, if it was set up here.
    bridge: Option<String>,
    /// CNI plugins of others.
    plugins: Plugins,
}

/// Takes the node apart; returns how many things were altered.
///
/// # Errors
/// Kind `Host`, naming all that could not be removed, when everything else is done; `Cluster`, and nothing was touched, when
/// etcd would lose its quorum and the order does not force it.
pub async fn reset(host: &dyn Host, order: &ResetOrder, events: &Events) -> Result<u32> {
    take_apart(host, order, Member::TakenOut, events).await
}

/// What becomes of the host's member of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    /// The others have it no more.
    TakenOut,
    /// Nobody is asked to take it out.
    LeftAlone,
}

async fn take_apart(host: &dyn Host, order: &ResetOrder, member: Member, events: &Events) -> Result<u32> {
    let phases = phases::RESET.select(order.only.as_deref(), &order.skip_phases)?;
    let mut traces = files::traces(host)?;
    if let Some(path) = &order.kubeconfig {
        traces.admin = Some(named_kubeconfig(host, path)?);
    }
    let mut sweep = Sweep::new(events);
    if phases.wants(ETCD_MEMBER) && member == Member::TakenOut {
        etcd_member::remove(host, &traces, order, events, &mut sweep).await?;
    }
    if phases.wants(CLEANUP) {
        clean(host, &traces, order, &mut sweep).await;
    }
    // Data belong to the member's phase, and go when nothing writes to them any more, where that is stopped here.
    if phases.wants(ETCD_MEMBER) && !order.keep_data {
        if phases.wants(CLEANUP) {
            files::remove_data(host, &traces, &mut sweep);
        } else {
            sweep.begin("etcd-data", "Empty the directory of etcd's data");
            files::empty_data(host, &traces, &mut sweep);
        }
    }
    sweep.finish()
}

/// The kubeconfig that a person named: where it is not there, nothing has been touched yet.
fn named_kubeconfig(host: &dyn Host, path: &str) -> Result<Secret> {
    let text = node_files::text(host, Path::new(path))?.map(Secret::new);
    text.ok_or_else(|| {
        Failure::new(Kind::Configuration, format!("there is no kubeconfig {path}"))
            .advise("name one that is there with --kubeconfig, or leave it out")
    })
}

/// Says what [`reset`] would do, by the same steps over a host that only notes. etcd keeps its member: taking that out is
/// nothing that could be played.
///
/// # Errors
/// As [`reset`], as far as a host shows it before anything runs.
pub async fn rehearse(host: &dyn Host, order: &ResetOrder, folder: &Path, events: &Events) -> Result<Rehearsed> {
    let phases = phases::RESET.select(order.only.as_deref(), &order.skip_phases)?;
    let overlay = Overlay::new(host, folder);
    take_apart(&overlay, order, Member::LeftAlone, events).await?;
    let left_out: &[&str] = if phases.wants(ETCD_MEMBER) { &[ETCD_MEMBER] } else { &[] };
    Ok(Rehearsed::of(&overlay, &Rehearsal::default(), left_out))
}

/// The phase that talks to other hosts, and removes etcd's data.
const ETCD_MEMBER: &str = "remove-etcd-member";

/// The phase that stops everything and removes files.
const CLEANUP: &str = "cleanup-node";

/// Phase cleanup-node.
async fn clean(host: &dyn Host, traces: &Traces, order: &ResetOrder, sweep: &mut Sweep) {
    sweep.begin("kubelet-stop", "Stop the kubelet");
    sweep.changes_of(unit::stop(host, "kubelet").await, "kubelet stopped");

    sweep.begin("pods", "Stop all pods");
    let had_containers = pods::stop(host, order.cri_socket.as_deref(), sweep).await;

    sweep.begin("mounts", "Unmount the pods' volumes");
    mounts::remove(host, sweep);
    pods::remove_state(host, had_containers, sweep).await;
    control_groups::remove(host, sweep);

    sweep.begin("pod-network", "Remove the pod network");
    let was_ipvs = ipvs::remove_servers(host, sweep).await;
    links::remove(host, traces.bridge.as_deref(), &traces.plugins, sweep).await;
    traces.plugins.remove_routes(host, sweep).await;
    firewall::remove(host, &traces.plugins, sweep).await;
    ipvs::remove_sets(host, &traces.plugins, was_ipvs, sweep).await;

    sweep.begin("sysctls", "Put kernel settings back");
    match sysctls::restore(host) {
        Ok(changes) => changes.into_iter().for_each(|change| sweep.changed(change)),
        Err(failure) => sweep.resisted(failure),
    }

    sweep.begin("files", "Remove Kubernetes' files");
    files::remove(host, traces, order, sweep).await;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{rehearse, reset};
    use crate::event::Events;
    use crate::failure::{Kind, Result};
    use crate::host::Host as _;
    use crate::host::fake::FakeHost;
    use crate::host::journal::{Contents, Journal, restore};
    use crate::message::ResetOrder;

    const DATA: &str = "/var/lib/etcd/member/snap/db";

    /// A host on which every program does what it is asked, no unit runs and there are no links of a pod network.
    fn able() -> FakeHost {
        let unit = "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nNeedDaemonReload=no\n";
        FakeHost::new().answer(&[], 0, "").answer(&["ip", "-json"], 0, "[]").every_unit(unit)
    }

    /// A control plane.
    fn node() -> FakeHost {
        able()
            .file("/etc/kubernetes/manifests/etcd.yaml", "    - --data-dir=/var/lib/etcd\n")
            .file("/etc/kubernetes/manifests/kube-apiserver.yaml", "")
            .file("/etc/kubernetes/pki/ca.crt", "")
            .file("/etc/kubernetes/kubelet.conf", "")
            .file("/var/lib/kubelet/config.yaml", "")
            .file(DATA, "data")
    }

    /// The same, whose member has another beside it.
    fn joined() -> FakeHost {
        node().file(
            "/etc/kubernetes/manifests/etcd.yaml",
            "    - --data-dir=/var/lib/etcd\n    - --initial-advertise-peer-urls=https://10.0.0.12:2380\n    \
             - --initial-cluster=cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380\n",
        )
    }

    fn order(only: Option<&str>, skip: &[&str]) -> ResetOrder {
        let skip_phases = skip.iter().map(|phase| (*phase).to_owned()).collect();
        ResetOrder { only: only.map(str::to_owned), skip_phases, ..ResetOrder::default() }
    }

    /// Whether etcd's data are there, and the node's other files.
    fn there(host: &FakeHost) -> (bool, bool) {
        let files =
            ["/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/config.yaml"]
                .map(|path| host.text(path).is_some());
        assert!(files.iter().all(|there| *there == files[0]), "{files:?}");
        (host.text(DATA).is_some(), files[0])
    }

    #[rstest]
    #[case::whole(order(None, &[]), (false, false))]
    #[case::without_the_member(order(None, &["remove-etcd-member"]), (true, false))]
    #[case::without_cleaning(order(None, &["cleanup-node"]), (false, true))]
    #[case::cleaning_alone(order(Some("cleanup-node"), &[]), (true, false))]
    #[case::cleaning_by_its_other_name(order(Some("cleanupnode"), &[]), (true, false))]
    #[case::the_member_alone(order(Some("remove-etcd-member"), &[]), (false, true))]
    #[case::checks_alone(order(Some("preflight"), &[]), (true, true))]
    #[case::nothing(order(None, &["remove-etcd-member", "cleanup-node"]), (true, true))]
    #[case::down(ResetOrder { whole_cluster: true, ..order(None, &[]) }, (false, false))]
    #[case::down_that_keeps_data(ResetOrder { whole_cluster: true, keep_data: true, ..order(None, &[]) }, (true, false))]
    #[tokio::test]
    async fn a_phase_removes_what_is_its_own(#[case] order: ResetOrder, #[case] left: (bool, bool)) -> Result<()> {
        let host = node();
        reset(&host, &order, &Events::nowhere()).await?;
        assert_eq!(there(&host), left, "{order:?}");
        assert_eq!(reset(&host, &order, &Events::nowhere()).await, Ok(0), "{:?}", host.done());
        Ok(())
    }

    #[tokio::test]
    async fn a_phase_alone_empties_the_directory_of_data_and_a_whole_reset_removes_it() -> Result<()> {
        for (order, stays) in [(order(Some("remove-etcd-member"), &[]), true), (order(None, &[]), false)] {
            let host = node();
            reset(&host, &order, &Events::nowhere()).await?;
            assert_eq!(host.listing().contains_key(Path::new("/var/lib/etcd")), stays, "{order:?}");
        }
        Ok(())
    }

    /// Directories that a person keeps elsewhere, with links in their places.
    fn elsewhere() -> FakeHost {
        able()
            .directory("/etc/kubernetes")
            .symlink("/var/lib/kubelet", "/data/kubelet")
            .symlink("/var/lib/etcd", "../../data/etcd")
            .symlink("/etc/kubernetes/pki", "/data/pki")
            .directory("/data/kubelet")
            .directory("/data/etcd")
            .directory("/data/pki")
    }

    #[rstest]
    #[case::by_hand(order(None, &[]))]
    #[case::down(ResetOrder { whole_cluster: true, ..order(None, &[]) })]
    #[tokio::test]
    async fn directories_that_lie_elsewhere_are_emptied_and_stay_with_their_links(
        #[case] order: ResetOrder,
    ) -> Result<()> {
        let host = elsewhere();
        let before = host.listing();
        let journal = Journal::open(&host, "demo")?;
        for (path, mode) in [("/var/lib/kubelet", 0o700), ("/var/lib/etcd", 0o700), ("/etc/kubernetes/pki", 0o755)] {
            journal.make_directory(&host, Path::new(path), mode, Contents::Ours)?;
        }
        for path in
            ["/data/kubelet/config.yaml", "/data/kubelet/pki/a", "/data/etcd/member/db", "/data/pki/etcd/ca.key"]
        {
            host.put(Path::new(path), b"", 0o600);
        }
        let mount = "9 1 0:9 / /data/kubelet/pods/1/volumes/a rw - tmpfs tmpfs rw\n";
        host.put(Path::new("/proc/self/mountinfo"), mount.as_bytes(), 0o444);
        reset(&host, &order, &Events::nowhere()).await?;
        assert!(host.done().contains(&"unmount /data/kubelet/pods/1/volumes/a".to_owned()), "{:?}", host.done());
        restore(&host, &Events::nowhere()).await?;
        host.remove_tree(Path::new("/proc"))?;
        assert_eq!(host.listing(), before);
        Ok(())
    }

    #[rstest]
    #[case::whole(order(None, &[]), (true, true), true)]
    #[case::without_the_member(order(None, &["remove-etcd-member"]), (false, true), false)]
    #[case::the_member_alone(order(Some("remove-etcd-member"), &[]), (true, false), true)]
    #[case::cleaning_alone(order(Some("cleanup-node"), &[]), (false, true), false)]
    #[case::nothing(order(None, &["remove-etcd-member", "cleanup-node"]), (false, false), false)]
    #[tokio::test]
    async fn a_dry_run_alters_nothing_and_says_what_a_reset_would_do(
        #[case] order: ResetOrder,
        #[case] told: (bool, bool),
        #[case] left_out: bool,
    ) -> Result<()> {
        // etcd could not be asked here: nobody does in a dry run.
        let host = joined().directory("/tmp/dry");
        let before = host.listing();
        let rehearsed = rehearse(&host, &order, Path::new("/tmp/dry"), &Events::nowhere()).await?;
        assert_eq!(host.listing(), before);
        let altering = |line: &&String| !line.starts_with("run ") || line.contains(" stop ") || line.contains("kill");
        assert_eq!(host.done().iter().find(altering), None);
        let about = |path: &str| rehearsed.host.iter().any(|line| line.split(' ').any(|word| word == path));
        assert_eq!((about("/var/lib/etcd"), about("/var/lib/kubelet")), told, "{:?}", rehearsed.host);
        assert_eq!(rehearsed.left_out, if left_out { vec!["remove-etcd-member"] } else { Vec::new() });
        Ok(())
    }

    #[tokio::test]
    async fn data_go_after_whatever_may_write_to_them() -> Result<()> {
        let host = node().answer(&["systemctl", "show"], 0, "LoadState=loaded\nActiveState=active\n");
        reset(&host, &order(None, &[]), &Events::nowhere()).await?;
        let done = host.done();
        let place = |line: &str| done.iter().position(|done| done == line).unwrap_or(usize::MAX);
        assert!(place("run systemctl stop kubelet") < place("remove-tree /var/lib/etcd"), "{done:?}");
        assert!(place("remove-tree /etc/kubernetes/manifests") < place("remove-tree /var/lib/etcd"), "{done:?}");
        Ok(())
    }

    #[rstest]
    #[case::refused(false, (true, true))]
    #[case::given_up(true, (false, true))]
    #[tokio::test]
    async fn data_go_where_the_member_is_given_up_and_stay_where_that_is_refused(
        #[case] force: bool,
        #[case] left: (bool, bool),
    ) {
        let host = joined();
        let order = ResetOrder { force, ..order(Some("remove-etcd-member"), &[]) };
        let outcome = reset(&host, &order, &Events::nowhere()).await;
        assert_eq!(outcome.map_err(|failure| failure.kind), if force { Ok(1) } else { Err(Kind::Configuration) });
        assert_eq!(there(&host), left);
    }
}
