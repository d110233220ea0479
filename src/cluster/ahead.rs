//! What the first control plane of a new cluster is asked, and what is started on it, while hosts are still being judged: all
//! others will wait for it, and on a long way each question is a round trip.

use super::check::is_new;
use super::connect::Session;
use super::plan;
use super::spread::sharers;
use crate::bundle::Manifest;
use crate::inventory::{Fetch, Inventory, Role};
use crate::message::Request;
use crate::remote::{Receiving, wanted};

/// What is known and there when the lanes begin. Nothing on the host was altered for it.
pub struct Ahead {
    /// The host's name.
    pub host: String,
    /// SHA-256 of the blobs that it lacks.
    pub lacking: Vec<String>,
    /// What receives them.
    pub receiving: Receiving,
}

/// Looks ahead for the control plane that a new cluster will be made on. Where that does not succeed, or another host is chosen,
/// nothing is lost: a lane that takes blobs does the same itself.
pub async fn look_ahead(inventory: &Inventory, sessions: &[Session], manifest: &Manifest) -> Option<Ahead> {
    let session = sessions.iter().find(|session| session.host.role == Role::ControlPlane)?;
    if inventory.transfer.fetch == Fetch::OnHost || !is_new(&session.facts) {
        return None;
    }
    let blobs = plan::blobs(&session.host, &session.facts, manifest);
    let asked = session.agent.ask::<Vec<String>>(Request::Lacking { blobs: blobs.iter().map(wanted).collect() });
    // Started before it is known how much it gets: most often that is all, and on a long way it takes several round trips.
    let bytes = blobs.iter().map(|blob| blob.stored_size).sum();
    let started = Receiving::ahead(&session.start, bytes, sharers(&inventory.transfer, sessions.len()), true);
    let (lacking, receiving) = futures::join!(asked, started);
    Some(Ahead { host: session.host.name.clone(), lacking: lacking.ok()?, receiving: receiving.unwrap_or_default() })
}
