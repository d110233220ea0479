//! `down`: the hosts as they were. Works on half-made clusters, without the dead ones, and twice in a row.

use std::time::Instant;

use super::connect::{Access, Session, Settings, connect};
use super::finish::kubeconfig_path;
use crate::event::{What, elapsed_milliseconds};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host as _;
use crate::host::machine::Machine;
use crate::inventory::{Inventory, Role};
use crate::message::{Request, ResetOrder};

/// What a `down` came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Down {
    /// Hosts that are as they were, with the number of things altered, in inventory order.
    pub done: Vec<(String, u32)>,
    /// Hosts that are not, and why.
    pub failures: Vec<Failure>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Takes the cluster of an inventory away: workers first, then control planes.
///
/// # Errors
/// Only what prevents the attempt; hosts that cannot be reached or fail are part of [`Down`].
pub async fn down(inventory: &Inventory, settings: &Settings) -> Result<Down> {
    let started = Instant::now();
    settings.events.send(What::RunStarted {
        verb: "down".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let (sessions, mut failures) = connect(inventory, settings, Access::Alter("down")).await?;
    let (sessions, foreign): (Vec<_>, Vec<_>) =
        sessions.into_iter().map(|session| is_ours(inventory, session)).partition(Result::is_ok);
    failures.extend(foreign.into_iter().filter_map(Result::err));
    let sessions: Vec<Session> = sessions.into_iter().filter_map(Result::ok).collect();
    let mut done = Vec::new();
    for role in [Role::Worker, Role::ControlPlane] {
        let lanes = sessions.iter().filter(|session| session.host.role == role).map(|session| async move {
            let result = give_back(session, settings).await;
            result.map(|changes| (session.host.name.clone(), changes)).map_err(|failure| failure.on(&session.host.name))
        });
        for result in futures::future::join_all(lanes).await {
            match result {
                Ok(host) => done.push(host),
                Err(failure) => failures.push(failure),
            }
        }
    }
    if failures.is_empty() {
        // The credentials are of no use any more, and they are ours.
        Machine.remove(&kubeconfig_path(inventory))?;
    }
    let order = |name: &str| inventory.hosts.iter().position(|host| host.name == name);
    done.sort_by_key(|(name, _)| order(name));
    let milliseconds = elapsed_milliseconds(started.elapsed());
    let changes = done.iter().map(|(_, changes)| changes).sum();
    settings.events.send(What::RunFinished { milliseconds, changes, failed: failures.clone() });
    Ok(Down { done, failures, milliseconds })
}

/// A node of a cluster that clusterctl did not make under this name is not touched.
fn is_ours(inventory: &Inventory, session: Session) -> Result<Session> {
    let state = &session.facts.kubernetes;
    let has_state = state.kubelet_conf || state.admin_conf || !state.manifests.is_empty();
    match &state.journal_cluster {
        Some(cluster) if *cluster != inventory.cluster.name => Err(Failure::new(
            Kind::Preflight,
            format!("it belongs to the cluster {cluster}, not to {}", inventory.cluster.name),
        )
        .on(&session.host.name)
        .advise("use that cluster's inventory")),
        None if has_state => Err(Failure::new(Kind::Preflight, "it is a node that clusterctl did not make")
            .on(&session.host.name)
            .advise("reset it with the tool that made it, for example `kubeadm reset`")),
        _ => Ok(session),
    }
}

async fn give_back(session: &Session, settings: &Settings) -> Result<u32> {
    settings.cancel.check()?;
    let reset =
        session.agent.ask::<u32>(Request::Reset(ResetOrder { whole_cluster: true, ..ResetOrder::default() })).await?;
    let restored = session.agent.ask::<u32>(Request::Restore).await?;
    session.events.send(What::HostFinished { state: "given back".to_owned() });
    Ok(reset + restored)
}
