//! `fetch: on-host`: hosts download the official releases themselves, side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::connect::Session;
use crate::agent::FetchOrder;
use crate::bundle::download::{self, Credentials, Sources};
use crate::bundle::{Blob, Bundle, FORMAT, Manifest};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Inventory, Role};
use crate::kubernetes::configuration::ClusterConfiguration;
use crate::kubernetes::version::images;
use crate::message::Request;

/// Lets every host download what its role needs; the bundle knows what there is on which hosts, and holds nothing itself.
/// Beside it all hosts that could not, each with its reason.
pub async fn fetch(inventory: &Inventory, sessions: &[Session], events: &Events) -> (Arc<Bundle>, Vec<Failure>) {
    sources(inventory).iter().flat_map(Sources::warnings).for_each(|warning| events.warn(&warning));
    let work = sessions.iter().map(|session| async move {
        let asked = async {
            let manifest: Manifest = session.agent.ask(Request::Fetch(order(inventory, session)?)).await?;
            let wrong = |blob: &Blob| Some(format!("it says that {} {}", blob.name, blob.check().err()?));
            match manifest.blobs.iter().find_map(wrong) {
                Some(sentence) => Err(Failure::new(Kind::Host, sentence)),
                None => Ok(manifest),
            }
        };
        asked.await.map_err(|failure: Failure| failure.on(&session.host.name))
    });
    let (mut manifests, mut failures) = (Vec::new(), Vec::new());
    for result in futures::future::join_all(work).await {
        match result {
            Ok(manifest) => manifests.push(manifest),
            Err(failure) => failures.push(failure),
        }
    }
    (Arc::new(Bundle::on_hosts(union(&inventory.cluster.kubernetes, manifests))), failures)
}

/// What hosts would have after [`fetch`], as far as it is known before.
pub struct Foresight {
    /// Blobs that hosts have of former downloads, and in their place those that would be downloaded, without hashes.
    pub manifest: Manifest,
    /// Hosts that would download.
    pub downloading: BTreeSet<String>,
}

/// Looks what hosts have of a former download, and foresees the rest; nothing is downloaded.
///
/// # Errors
/// All hosts that could not be asked, each with its reason.
pub async fn foresee(inventory: &Inventory, sessions: &[Session]) -> Result<Foresight, Vec<Failure>> {
    let work = sessions.iter().map(|session| async move {
        let asked = async {
            let order = order(inventory, session)?;
            let fetched: Option<Manifest> = session.agent.ask(Request::Fetched(order.clone())).await?;
            Ok((fetched, order))
        };
        asked.await.map_err(|failure: Failure| failure.on(&session.host.name))
    });
    let (mut manifests, mut expected, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let mut downloading = BTreeSet::new();
    for (session, result) in sessions.iter().zip(futures::future::join_all(work).await) {
        match result {
            Ok((Some(manifest), _)) => manifests.push(manifest),
            Ok((None, order)) => {
                downloading.insert(session.host.name.clone());
                expected.push(download::foresee(&order.downloads(Credentials::default())));
            }
            Err(failure) => failures.push(failure),
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let kubernetes = &inventory.cluster.kubernetes;
    // What a host has tells more of another one than what is expected of it.
    let manifest = first_of_each(kubernetes, in_order(manifests).into_iter().chain(in_order(expected)));
    Ok(Foresight { manifest, downloading })
}

/// What a host could not download.
///
/// # Errors
/// When it cannot be asked.
pub async fn unavailable(inventory: &Inventory, session: &Session) -> Result<Vec<Failure>> {
    session.agent.ask(Request::Unavailable(order(inventory, session)?)).await
}

fn order(inventory: &Inventory, session: &Session) -> Result<FetchOrder> {
    let control_plane = session.host.role == Role::ControlPlane;
    let cluster = ClusterConfiguration {
        kubernetes_version: format!("v{}", inventory.cluster.kubernetes),
        ..ClusterConfiguration::default()
    };
    let images = images(&cluster)?.wanted(&cluster, control_plane).into_iter().map(str::to_owned).collect();
    let sources = sources(inventory)?;
    Ok(FetchOrder {
        kubernetes: inventory.cluster.kubernetes.clone(),
        architecture: session.facts.architecture.clone(),
        images,
        control_plane,
        sources,
    })
}

fn sources(inventory: &Inventory) -> Result<Sources> {
    let mut sources = Sources::default();
    for mirror in &inventory.transfer.mirrors {
        sources
            .mirror(mirror)
            .map_err(|reason| Failure::new(Kind::Configuration, format!("`transfer.mirrors`: {mirror} {reason}")))?;
    }
    Ok(sources)
}

/// All blobs of all hosts.
fn union(kubernetes: &semver::Version, manifests: Vec<Manifest>) -> Manifest {
    first_of_each(kubernetes, in_order(manifests).into_iter())
}

/// Those of control planes first: they have the whole order.
fn in_order(mut manifests: Vec<Manifest>) -> Vec<Manifest> {
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.blobs.len()));
    manifests
}

fn first_of_each(kubernetes: &semver::Version, manifests: impl Iterator<Item = Manifest>) -> Manifest {
    let mut seen = BTreeSet::new();
    let all = manifests.flat_map(|manifest| manifest.blobs);
    let blobs: Vec<Blob> = all.filter(|blob| seen.insert((blob.architecture.clone(), blob.name.clone()))).collect();
    Manifest { format: FORMAT, kubernetes: kubernetes.clone(), blobs }
}

#[cfg(test)]
mod tests {
    use super::union;
    use crate::bundle::{Blob, FORMAT, Manifest};
    use crate::message::Place;

    fn manifest(names: &[(&str, &str)]) -> Manifest {
        let blobs = names.iter().map(|(name, architecture)| Blob {
            name: (*name).to_owned(),
            sha256: String::new(),
            size: 0,
            stored_sha256: String::new(),
            stored_size: 0,
            architecture: (*architecture).to_owned(),
            roles: Vec::new(),
            place: Place::Images { references: Vec::new() },
        });
        Manifest { format: FORMAT, kubernetes: semver::Version::new(1, 36, 3), blobs: blobs.collect() }
    }

    #[test]
    fn every_blob_is_there_once_for_each_architecture_in_the_order_of_a_control_plane() {
        let worker = manifest(&[("runc", "amd64"), ("proxy", "amd64")]);
        let control_plane = manifest(&[("runc", "amd64"), ("etcd", "amd64"), ("proxy", "amd64")]);
        let other = manifest(&[("runc", "arm64")]);
        let all = union(&semver::Version::new(1, 36, 3), vec![other, worker, control_plane]);
        let names: Vec<_> = all.blobs.iter().map(|blob| format!("{} {}", blob.name, blob.architecture)).collect();
        assert_eq!(names, ["runc amd64", "etcd amd64", "proxy amd64", "runc arm64"]);
    }
}
