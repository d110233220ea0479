//! What an order would download, for who wants to know before: what it comes to on a host, and whether it is to be had.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::cache::{self, Origin};
use super::registry::{Reference, Registry};
use super::releases::{Form, releases};
use super::{MAXIMUM_CHECKSUMS_BYTES, Order, SIDE_BY_SIDE, archive_of};
use crate::bundle::create::{PROGRAMS, in_order, program, roles_of_images};
use crate::bundle::{Blob, FORMAT, Manifest};
use crate::failure::{Failure, Result};
use crate::https::Downloads;
use crate::message::Place;

/// The manifest of what [`super::download`] lays out for an order. Hashes and sizes are not known yet: empty and 0.
pub fn foresee(order: &Order) -> Manifest {
    let blob = |name: String, place, roles: &[_]| Blob {
        name,
        sha256: String::new(),
        size: 0,
        stored_sha256: String::new(),
        stored_size: 0,
        architecture: order.architecture.clone(),
        roles: roles.to_vec(),
        place,
    };
    let mut blobs: Vec<Blob> = Vec::new();
    for release in releases(order) {
        let (folder, names) = match release.form {
            Form::Program { name } => ("bin", vec![name]),
            Form::Archive { into, files } => (into, files.to_vec()),
        };
        let target = PROGRAMS.iter().find(|(name, _)| *name == folder).map_or("", |(_, target)| target);
        blobs.extend(names.into_iter().map(|name| {
            let name = format!("{folder}/{name}");
            let (place, roles) = program(target, &name);
            blob(name, place, roles)
        }));
    }
    let mut archives: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for reference in &order.images {
        archives.entry(archive_of(reference)).or_default().push(reference.clone());
    }
    blobs.extend(archives.into_iter().map(|(name, mut references)| {
        references.sort();
        let roles = roles_of_images(&references, &order.images);
        blob(format!("images/{name}"), Place::Images { references }, roles)
    }));
    blobs.sort_by(|left, right| in_order(&left.name, &right.name));
    Manifest { format: FORMAT, kubernetes: order.kubernetes.clone(), blobs }
}

/// Everything of an order that is not to be had from here, and why: checksums and manifests are asked for, nothing large.
///
/// # Errors
/// Kind `Internal` when nothing can be asked at all.
pub async fn unavailable(order: &Order) -> Result<Vec<Failure>> {
    let downloads = Downloads::through(&order.proxies)?;
    let downloads = &downloads;
    let files = releases(order).into_iter().map(|release| async move {
        let origin = Origin::Server(downloads);
        cache::text(&origin, &release.checksums, None, MAXIMUM_CHECKSUMS_BYTES).await.map(|_| ())
    });
    let images = order.images.iter().map(|reference| async move {
        let parsed = Reference::parse(reference)?;
        let base = order.sources.registry(&parsed.registry);
        let credential = order.credentials.of(&parsed.registry, &base).await?;
        let registry = Registry::new(downloads, base, &parsed.repository, credential);
        registry.manifest(&parsed.version, &order.architecture).await.map(|_| ())
    });
    let asked = files.map(futures::future::Either::Left).chain(images.map(futures::future::Either::Right));
    let answers: Vec<Result<()>> = futures::stream::iter(asked).buffered(SIDE_BY_SIDE).collect().await;
    Ok(answers.into_iter().filter_map(Result::err).collect())
}
