//! `reset`: takes a node apart (kubeadm.md section 12), and also what kubeadm leaves to the reader of its last lines:
//! interfaces, firewall chains, CNI state, logs.
//!
//! It works by what is there, never by what should be: on half-made nodes, with a dead API server, with a dead runtime,
//! twice in a row. What resists is remembered, everything else goes on, and the end names what is left. Only one thing
//! stops it, before it begins: etcd that would lose its quorum.

mod control_groups;
mod etcd_member;
mod files;
mod firewall;
mod links;
mod mounts;
mod pods;
mod sweep;

use std::path::PathBuf;

use self::sweep::Sweep;
use super::{etcd, sysctls, unit};
use crate::event::Events;
use crate::failure::Result;
use crate::host::Host;
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
}

/// Takes the node apart; returns how many things were altered.
///
/// # Errors
/// Kind `Host`, naming all that could not be removed, when everything else is done; `Cluster`, and nothing was touched, when
/// etcd would lose its quorum and the order does not force it.
pub async fn reset(host: &dyn Host, order: &ResetOrder, events: &Events) -> Result<u32> {
    let traces = files::traces(host)?;
    let mut sweep = Sweep::new(events);

    etcd_member::remove(host, &traces, order, events, &mut sweep).await?;

    sweep.begin("kubelet-stop", "Stop the kubelet");
    sweep.changes_of(unit::stop(host, "kubelet").await, "kubelet stopped");

    sweep.begin("pods", "Stop all pods");
    let had_containers = pods::stop(host, &mut sweep).await;

    sweep.begin("mounts", "Unmount the pods' volumes");
    mounts::remove(host, &mut sweep);
    pods::remove_state(host, had_containers, &mut sweep).await;
    control_groups::remove(host, &mut sweep);

    sweep.begin("pod-network", "Remove the pod network");
    links::remove(host, traces.bridge.as_deref(), &mut sweep).await;
    firewall::remove(host, &mut sweep).await;

    sweep.begin("sysctls", "Put kernel settings back");
    match sysctls::restore(host) {
        Ok(changes) => changes.into_iter().for_each(|change| sweep.changed(change)),
        Err(failure) => sweep.resisted(failure),
    }

    sweep.begin("files", "Remove Kubernetes' files");
    files::remove(host, &traces, order, &mut sweep).await;

    sweep.finish()
}
