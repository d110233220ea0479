//! `down --host`: some hosts leave a cluster that goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::access::Api;
use super::connect::{Access, Session, Settings, connect_to, connect_to_control_plane, hold};
use super::down::{Down, compare, is_ours};
use super::lost::forget;
use crate::api;
use crate::event::{What, elapsed_milliseconds};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Inventory, Role};
use crate::message::{Request, ResetOrder};
use crate::yaml::nearest;

/// Takes hosts out of the cluster: their pods first, then their etcd members, while the others keep their quorum, then the
/// node itself and its Node object; the machines are given back as [`super::down`] does it. Workers go side by side,
/// control planes one after the other, and before them those that are lost: the cluster forgets them.
///
/// `drain` is how long pods may take to leave; without it they end with the node.
///
/// # Errors
/// Kind `Usage` for a name that is no host, and for all control planes at once; and whatever prevents the attempt. Hosts
/// that cannot be reached or fail are part of [`Down`].
pub async fn remove(
    inventory: &Inventory,
    names: &[String],
    drain: Option<Duration>,
    settings: &Settings,
) -> Result<Down> {
    let started = Instant::now();
    let rest = without(inventory, names)?;
    let leaving: Vec<_> = inventory.hosts.iter().filter(|host| names.contains(&host.name)).collect();
    settings.events.send(What::RunStarted {
        verb: "down".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: leaving.iter().map(|host| host.name.clone()).collect(),
    });
    let staying = connect_to_control_plane(&rest, settings).await?;
    // Another run may know nothing of the hosts that leave: it would find no lock of this one on those that it has.
    hold(&staying, "down", inventory, settings).await?;
    let api = Api::open(&staying).await?;
    let (sessions, unreachable) = connect_to(inventory, leaving.clone(), settings, Access::Alter("down")).await?;
    let (mut failures, mut done) = (Vec::new(), Vec::new());
    let (mut residue, mut uncompared) = (0, Vec::new());
    for failure in unreachable {
        settings.cancel.check()?;
        let Some(host) = leaving.iter().find(|host| failure.host.as_ref() == Some(&host.name)) else {
            failures.push(failure);
            continue;
        };
        match forget(host, failure, &staying, &api).await {
            Ok(changes) => done.push((host.name.clone(), changes)),
            Err(failure) => failures.push(failure.on(&host.name)),
        }
    }
    let mut ours = Vec::new();
    for session in sessions {
        match is_ours(inventory, session) {
            Ok(session) => ours.push(session),
            Err(failure) => failures.push(failure),
        }
    }
    let (workers, control_planes): (Vec<_>, Vec<_>) =
        ours.iter().partition(|session| session.host.role == Role::Worker);
    let mut results =
        futures::future::join_all(workers.iter().map(|session| leave(session, &api, drain, settings))).await;
    for session in control_planes {
        results.push(leave(session, &api, drain, settings).await);
    }
    for result in results {
        match result {
            Ok(Left { host, changes, different }) => {
                residue += different.unwrap_or(0);
                if different.is_none() {
                    uncompared.push(host.clone());
                }
                done.push((host, changes));
            }
            Err(failure) => failures.push(failure),
        }
    }
    let milliseconds = elapsed_milliseconds(started.elapsed());
    let changes = done.iter().map(|(_, changes)| changes).sum();
    settings.events.send(What::RunFinished { milliseconds, changes, failed: failures.clone() });
    Ok(Down { done, residue, uncompared, failures, milliseconds })
}

/// The inventory of what stays.
fn without(inventory: &Inventory, names: &[String]) -> Result<Inventory> {
    let known: BTreeSet<&str> = inventory.hosts.iter().map(|host| host.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) {
        let failure = Failure::new(Kind::Usage, format!("the inventory has no host {unknown}"));
        return Err(match nearest(unknown, known.iter().copied()) {
            Some(meant) => failure.advise(format!("did you mean {meant}?")),
            None => failure.advise(format!("name one of {}", Vec::from_iter(known).join(", "))),
        });
    }
    let mut rest = inventory.clone();
    rest.hosts.retain(|host| !names.contains(&host.name));
    if rest.control_planes().next().is_none() {
        return Err(Failure::new(Kind::Usage, "no control plane would be left")
            .advise("run `clusterctl down` without --host to take the whole cluster away"));
    }
    Ok(rest)
}

/// A host that has left the cluster.
struct Left {
    host: String,
    changes: u32,
    /// How much differs from what it was; `None` where that is not known.
    different: Option<usize>,
}

async fn leave(session: &Session, api: &Api, drain: Option<Duration>, settings: &Settings) -> Result<Left> {
    let name = &session.host.name;
    let work = async {
        settings.cancel.check()?;
        let drained = match drain {
            Some(limit) => empty(session, api, limit).await?,
            None => 0,
        };
        settings.cancel.check()?;
        let reset = session.agent.ask::<u32>(Request::Reset(ResetOrder::default())).await?;
        let deleted = api::delete_node(api, name).await?;
        let restored = session.agent.ask::<u32>(Request::Restore).await?;
        let different = compare(session, false).await?;
        session.events.send(What::HostFinished { state: "given back".to_owned() });
        Ok(Left { host: name.clone(), changes: drained + reset + u32::from(deleted) + restored, different })
    };
    work.await.map_err(|failure: Failure| failure.on(name))
}

/// Has the pods leave; how many changes. Where the kubelet does not answer, nobody can end them in good order.
async fn empty(session: &Session, api: &Api, limit: Duration) -> Result<u32> {
    let name = &session.host.name;
    let nodes = api::nodes(api).await?;
    match nodes.iter().find(|node| node.name == *name) {
        None => return Ok(0),
        Some(node) if !node.ready => {
            session.events.warn(format!("its pods are not asked to leave: the node is not ready ({})", node.reason));
            return Ok(0);
        }
        Some(_) => {}
    }
    let mut step = session.events.step("drain", "Let the pods leave");
    match api::drain(api, name, limit).await {
        Ok(changes) => {
            changes.into_iter().for_each(|change| step.changed(change));
            let count = step.changes();
            step.finish();
            Ok(count)
        }
        Err(failure) => Err(step.fail(failure)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::without;
    use crate::inventory;

    #[rstest]
    #[case(&["w1"], Ok("cp1 cp2"))]
    #[case(&["cp1", "w1"], Ok("cp2"))]
    #[case(&["cp3"], Err("the inventory has no host cp3"))]
    #[case(&["cp1", "cp2"], Err("no control plane would be left"))]
    fn what_stays(#[case] names: &[&str], #[case] expected: Result<&str, &str>) {
        let text = "cluster: {endpoint: built-in}\nssh: {user: root}\nhosts: {cp1: {role: control-plane}, cp2: {role: control-plane}, w1: }\n";
        let inventory = inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"));
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let rest = without(&inventory, &names);
        let hosts = rest.as_ref().map(|rest| rest.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>());
        match expected {
            Ok(hosts_left) => assert_eq!(hosts.unwrap().join(" "), hosts_left),
            Err(sentence) => assert_eq!(rest.unwrap_err().sentence, sentence),
        }
    }
}
