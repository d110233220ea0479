//! `reset`: takes a node apart (kubeadm.md section 12), and also what kubeadm leaves to the reader of its last lines:
//! interfaces, firewall chains, IPVS, what CNI plugins that are known left, logs.
//!
//! It works by what is there, never by what should be: on half-made nodes, with a dead API server, with a dead runtime,
//! twice in a row. What resists is remembered, everything else goes on, and the end names what is left. Only one thing
//! stops it, before it begins: etcd that would lose its quorum.

mod control_groups;
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
    /// etcd's data.
    etcd_data: PathBuf,
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
    let phases = phases::RESET.select(order.only.as_deref(), &order.skip_phases)?;
    let mut traces = files::traces(host)?;
    if let Some(path) = &order.kubeconfig {
        traces.admin = Some(named_kubeconfig(host, path)?);
    }
    let mut sweep = Sweep::new(events);
    if phases.wants(ETCD_MEMBER) {
        etcd_member::remove(host, &traces, order, events, &mut sweep).await?;
    }
    if phases.wants("cleanup-node") {
        clean(host, &traces, order, &mut sweep).await;
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
    let mut order = order.clone();
    order.skip_phases.push(ETCD_MEMBER.to_owned());
    let overlay = Overlay::new(host, folder);
    reset(&overlay, &order, events).await?;
    let left_out: &[&str] = if phases.wants(ETCD_MEMBER) { &[ETCD_MEMBER] } else { &[] };
    Ok(Rehearsed::of(&overlay, &Rehearsal::default(), left_out))
}

/// The phase that talks to other hosts.
const ETCD_MEMBER: &str = "remove-etcd-member";

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
