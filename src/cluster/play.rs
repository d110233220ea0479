//! `run`: a person's own playbook on all hosts.

use std::collections::BTreeMap;
use std::path::Path;

use super::connect::{Access, Session, Settings, connect};
use super::down::Down;
use super::lane::is_of_no_cluster;
use crate::event::{What, elapsed_milliseconds};
use crate::fact::KubernetesState;
use crate::failure::{Failure, Result};
use crate::inventory::Inventory;
use crate::message::{PlayOrder, PlayReport, Request};
use crate::playbook::{self, Loaded};

/// Runs the playbook in a file on all hosts of the inventory at once. With `dry_run` nothing is altered and the changes
/// are those that would be made.
///
/// # Errors
/// What is wrong with the playbook, before any host is reached.
pub async fn run(inventory: &Inventory, file: &Path, dry_run: bool, settings: &Settings) -> Result<Down> {
    let started = std::time::Instant::now();
    let loaded = playbook::load_file(file)?;
    settings.events.send(What::RunStarted {
        verb: "run".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let (sessions, mut failures) = connect(inventory, settings, Access::Alter("run")).await?;
    let lanes = sessions.iter().map(|session| play(session, &loaded, dry_run, settings));
    let mut done = Vec::new();
    for (session, result) in sessions.iter().zip(futures::future::join_all(lanes).await) {
        match result {
            Ok(changes) => done.push((session.host.name.clone(), changes)),
            Err(failure) => failures.push(failure.on(&session.host.name)),
        }
    }
    let milliseconds = elapsed_milliseconds(started.elapsed());
    let changes = done.iter().map(|(_, changes)| changes).sum();
    settings.events.send(What::RunFinished { milliseconds, changes, failed: failures.clone() });
    Ok(Down { done, residue: 0, uncompared: Vec::new(), failures, milliseconds })
}

/// Whether nothing of a cluster is on a host and nothing of ours: kubeconfigs alone a person brings for a control plane, with an
/// authority whose key is elsewhere.
fn is_bare(state: &KubernetesState) -> bool {
    let is_worker = state.kubelet_conf && !state.admin_conf;
    is_of_no_cluster(state, is_worker)
}

async fn play(session: &Session, loaded: &Loaded, dry_run: bool, settings: &Settings) -> Result<u32, Failure> {
    settings.cancel.check()?;
    if !dry_run && is_bare(&session.facts.kubernetes) {
        // What `down` compares with: an `up` to come finds the journal of this play, and no machine as it was.
        session.agent.ask::<bool>(Request::Remember).await?;
    }
    let mut step = session.events.step("play", &loaded.play.name);
    let order = PlayOrder {
        play: loaded.play.clone(),
        variables: BTreeMap::from([("host".to_owned(), serde_json::json!(session.host.name))]),
        files: loaded.files.clone(),
        dry_run,
        step: None,
    };
    let result = session.agent.ask::<PlayReport>(Request::Play(order)).await;
    for change in result.iter().flat_map(|report| &report.changes) {
        step.changed(change);
    }
    let changes = step.changes();
    step.end(result.map(|_| changes))
}

#[cfg(test)]
mod tests {
    use super::is_bare;
    use crate::fact::KubernetesState;

    #[test]
    fn a_host_is_looked_at_before_the_first_change_unless_a_cluster_is_on_it() {
        let bare = KubernetesState::default();
        assert!(is_bare(&bare));
        assert!(is_bare(&KubernetesState { kubelet_conf: true, admin_conf: true, ..bare.clone() }));
        assert!(!is_bare(&KubernetesState { kubelet_conf: true, ..bare.clone() }));
        assert!(!is_bare(&KubernetesState { manifests: vec!["etcd.yaml".into()], ..bare.clone() }));
        assert!(!is_bare(&KubernetesState { journal_cluster: Some("demo".into()), ..bare }));
    }
}
