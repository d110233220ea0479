//! `down`: the hosts as they were. Works on half-made clusters, without the dead ones, and twice in a row.

use std::path::Path;
use std::time::Instant;

use super::connect::{Access, Session, Settings, connect};
use super::kubeconfig;
use crate::event::{What, elapsed_milliseconds};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host as _;
use crate::host::machine::Machine;
use crate::inventory::{Inventory, Role};
use crate::message::{Request, ResetOrder};

/// Where etcd's data lie.
const ETCD_DATA: &str = "/var/lib/etcd";

/// So many differences of a host are said one by one.
const SHOWN_LINES: usize = 20;

/// What a `down` came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Down {
    /// Hosts that were given back, with the number of things altered, in inventory order.
    pub done: Vec<(String, u32)>,
    /// How many things differ from what was on these hosts before the first `up`.
    pub residue: usize,
    /// Those of them of which nobody knows what they were, in inventory order: they were not compared.
    pub uncompared: Vec<String>,
    /// Hosts that are not, and why.
    pub failures: Vec<Failure>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Takes the cluster of an inventory away: workers first, then control planes, the first of them last. Each host is compared
/// with what it was. With `keep_data` etcd's data stay in /var/lib/etcd.
///
/// # Errors
/// Only what prevents the attempt; hosts that cannot be reached or fail are part of [`Down`].
pub async fn down(inventory: &Inventory, keep_data: bool, settings: &Settings) -> Result<Down> {
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
    let (mut residue, mut uncompared) = (0, Vec::new());
    for turn in [Turn::Workers, Turn::ControlPlanes, Turn::First] {
        let lanes = sessions.iter().filter(|session| Turn::of(inventory, session) == turn).map(|session| async move {
            let result = give_back(session, keep_data, settings).await;
            result.map(|done| (session.host.name.clone(), done)).map_err(|failure| failure.on(&session.host.name))
        });
        for result in futures::future::join_all(lanes).await {
            match result {
                Ok((host, (changes, different))) => {
                    residue += different.unwrap_or(0);
                    if different.is_none() {
                        uncompared.push(host.clone());
                    }
                    done.push((host, changes));
                }
                Err(failure) => failures.push(failure),
            }
        }
    }
    if failures.is_empty() {
        // The credentials are of no use any more, and they are ours.
        Machine.remove(&kubeconfig::path(inventory))?;
    }
    let order = |name: &str| inventory.hosts.iter().position(|host| host.name == name);
    done.sort_by_key(|(name, _)| order(name));
    uncompared.sort_by_key(|name| order(name));
    let milliseconds = elapsed_milliseconds(started.elapsed());
    let changes = done.iter().map(|(_, changes)| changes).sum();
    settings.events.send(What::RunFinished { milliseconds, changes, failed: failures.clone() });
    Ok(Down { done, residue, uncompared, failures, milliseconds })
}

/// When a host has its turn: workers before what serves them, and the first control plane last, so that a run that breaks
/// off leaves the cluster where it is looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Workers,
    ControlPlanes,
    First,
}

impl Turn {
    fn of(inventory: &Inventory, session: &Session) -> Self {
        let is_first = inventory.control_planes().next().is_some_and(|first| first.name == session.host.name);
        match session.host.role {
            Role::Worker => Self::Workers,
            Role::ControlPlane if is_first => Self::First,
            Role::ControlPlane => Self::ControlPlanes,
        }
    }
}

/// A node of a cluster that clusterctl did not make under this name is not touched.
pub(super) fn is_ours(inventory: &Inventory, session: Session) -> Result<Session> {
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

async fn give_back(session: &Session, keep_data: bool, settings: &Settings) -> Result<(u32, Option<usize>)> {
    settings.cancel.check()?;
    let order = ResetOrder { whole_cluster: true, keep_data, ..ResetOrder::default() };
    let reset = session.agent.ask::<u32>(Request::Reset(order)).await?;
    let restored = session.agent.ask::<u32>(Request::Restore).await?;
    let residue = compare(session, keep_data).await?;
    session.events.send(What::HostFinished { state: "given back".to_owned() });
    Ok((reset + restored, residue))
}

/// Compares a host that was given back with what it was before the first `up`, says what is different, and returns how much
/// that is; `None` where nobody knows what it was. (A host without a journal was not altered.)
pub(super) async fn compare(session: &Session, keep_data: bool) -> Result<Option<usize>> {
    let step = session.events.step("compare", "compare with what was there before");
    let residue: Option<Vec<String>> = step.end(session.agent.ask(Request::Residue).await)?;
    let Some(residue) = residue else {
        if session.facts.kubernetes.journal_cluster.is_none() {
            return Ok(Some(0));
        }
        session.events.warn("not compared with what was there before the first up: nobody has looked at it then");
        return Ok(None);
    };
    let residue: Vec<String> = residue.into_iter().filter(|line| !(keep_data && is_etcds(line))).collect();
    for line in residue.iter().take(SHOWN_LINES) {
        session.events.warn(format!("different from before the first up: {line}"));
    }
    if let Some(more @ 1..) = residue.len().checked_sub(SHOWN_LINES) {
        session.events.warn(format!("and {more} more differences, which only --log FILE and --output json tell"));
    }
    if !residue.is_empty() {
        session.events.send(What::Differs { differences: residue.clone() });
    }
    Ok(Some(residue.len()))
}

/// Whether a difference is about etcd's data, and not about what only begins like them.
fn is_etcds(line: &str) -> bool {
    line.split_whitespace().any(|word| Path::new(word).starts_with(ETCD_DATA))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::is_etcds;

    #[rstest]
    #[case("+ directory /var/lib/etcd 0700 0:0", true)]
    #[case("+ mount /var/lib/etcd ext4", true)]
    #[case("+ file /var/lib/etcd/member 0600 0:0 12 bytes", true)]
    #[case("+ directory /var/lib/etcd-backup 0700 0:0", false)]
    #[case("- file /etc/etcd 0600 0:0 0123456789abcdef", false)]
    fn data_that_were_to_stay_are_no_difference(#[case] line: &str, #[case] expected: bool) {
        assert_eq!(is_etcds(line), expected);
    }
}
