//! Requests rehearsed: the same work over a host that only notes. This host is not touched.

use super::Agent;
use crate::change::Change;
use crate::failure::{Failure, Kind, Result};
use crate::host::journal::Journal;
use crate::host::overlay::Overlay;
use crate::message::{Foreseen, Place, RehearseOrder, Request, Wanted};
use crate::{balancer, node, playbook};

impl Agent {
    /// What each of the requests would alter, those before it done.
    ///
    /// # Errors
    /// As the requests themselves, as far as it shows before anything runs.
    pub(super) async fn rehearse(&self, order: &RehearseOrder) -> Result<Vec<Foreseen>> {
        let facts = self.facts().await?;
        let overlay = Overlay::in_memory(&self.machine);
        let journal = Journal::open(&overlay, &order.cluster)?;
        let mut foreseen = Vec::new();
        let mut known: Vec<Change> = Vec::new();
        for request in &order.requests {
            let mut of_request = match request {
                Request::Place { blobs } => {
                    place(&overlay, blobs);
                    Foreseen::default()
                }
                Request::Play(play) => {
                    playbook::run(&overlay, &facts, play, &journal, &self.events).await?;
                    Foreseen::default()
                }
                Request::Balancer(balancer) => {
                    let program = std::env::current_exe().map_err(|error| {
                        Failure::new(Kind::Internal, "cannot find the agent's own file").because(&error)
                    })?;
                    balancer::install(&overlay, &journal, balancer, &program, &crate::event::Events::nowhere()).await?;
                    Foreseen::default()
                }
                request => node::rehearse(&overlay, &facts, request, &self.events).await?,
            };
            // A path that two requests touch is told with the first of them, as it is in the end.
            let now = overlay.changes()?;
            of_request.changes.extend(now.iter().filter(|change| !known.contains(change)).cloned());
            known = now;
            foreseen.push(of_request);
        }
        Ok(foreseen)
    }
}

/// Takes files as received and put in place.
fn place(overlay: &Overlay<'_>, blobs: &[Wanted]) {
    for blob in blobs {
        if let Place::File { path, mode } = &blob.place {
            overlay.place(std::path::Path::new(path), &blob.sha256, blob.size, *mode);
        }
    }
}
