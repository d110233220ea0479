//! `bundle push`: a bundle's blobs on the hosts ahead of the run that needs them. Nothing else is altered there.

use std::sync::Arc;
use std::time::Instant;

use super::connect::{Access, Session, Settings, connect};
use super::plan;
use super::spread::Spreading;
use crate::agent::Purpose;
use crate::bundle::{Blob, Bundle};
use crate::event::{Unit, What, elapsed_milliseconds};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Inventory;
use crate::message::Request;
use crate::remote::{Delivery, Receiving, is_far, wanted};

/// The verb, for messages and locks.
const VERB: &str = "bundle push";

/// So often a transfer is gone on with after a lost link.
const REPEATS: u32 = 3;

/// What a push came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// Hosts that have everything, with the bytes of blobs they lacked, in inventory order.
    pub done: Vec<(String, u64)>,
    /// Bytes of blobs that left this machine.
    pub sent: u64,
    /// Hosts that have not, and why.
    pub failures: Vec<Failure>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Brings every host the blobs of the bundle that its role needs and that it lacks.
///
/// # Errors
/// Only what prevents the attempt; hosts that cannot be reached or fail are part of [`Pushed`].
pub async fn push(inventory: &Inventory, bundle: &Arc<Bundle>, settings: &Settings) -> Result<Pushed> {
    let started = Instant::now();
    settings.events.send(What::RunStarted {
        verb: VERB.to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let (sessions, mut failures) = connect(inventory, settings, Access::Alter(VERB)).await?;
    let root = sessions.first().map(|session| session.host.name.as_str());
    let spreading = Spreading::new(&inventory.transfer, sessions.len(), root, false)?;
    let lanes = sessions.iter().enumerate().map(|(at, session)| {
        let spreading = &spreading;
        async move {
            let result = lane(session, bundle, spreading, at == 0, settings).await;
            if at == 0 {
                // Whoever waits goes on, whatever became of this one.
                spreading.first_is_done();
            }
            if result.is_err() {
                spreading.leave(session).await;
            }
            result.map(|bytes| (session.host.name.clone(), bytes)).map_err(|failure| failure.on(&session.host.name))
        }
    });
    let mut done = Vec::new();
    for result in futures::future::join_all(lanes).await {
        match result {
            Ok(host) => done.push(host),
            Err(failure) => failures.push(failure),
        }
    }
    futures::future::join_all(sessions.iter().map(|session| spreading.leave(session))).await;
    let milliseconds = elapsed_milliseconds(started.elapsed());
    let changes = u32::try_from(done.iter().filter(|(_, bytes)| *bytes > 0).count()).unwrap_or(u32::MAX);
    settings.events.send(What::RunFinished { milliseconds, changes, failed: failures.clone() });
    Ok(Pushed { done, sent: spreading.uplink.sent(), failures, milliseconds })
}

/// One host; returns how many bytes it lacked.
async fn lane(
    session: &Session,
    bundle: &Arc<Bundle>,
    spreading: &Spreading,
    first: bool,
    settings: &Settings,
) -> Result<u64> {
    settings.cancel.check()?;
    let blobs = plan::blobs(&session.host, &session.facts, bundle.manifest());
    let lacking: Vec<String> =
        session.agent.ask(Request::Lacking { blobs: blobs.iter().map(wanted).collect() }).await?;
    let lacking: Vec<Blob> = blobs.into_iter().filter(|blob| lacking.contains(&blob.sha256)).collect();
    spreading.lacks(session, &lacking);
    if !first {
        spreading.others.wait().await?;
    }
    let total: u64 = lacking.iter().map(|blob| blob.stored_size).sum();
    if total > 0 {
        let mut step = session.events.step("push", "send blobs");
        let began = Instant::now();
        let report = |sent: u64, name: &str| {
            step.progress(sent, total, Unit::Bytes, Some(name));
            if first {
                spreading.measured(&session.host.name, is_far(session.start.connection.shortest()), sent, false, began);
            }
        };
        let sending = async {
            let address = plan::node_address(&session.host, &session.facts)?.address;
            let lasting = async {
                let delivery = || Delivery { purpose: Purpose::Stage, ..spreading.delivery(session, bundle, first) };
                let mut receiving = Receiving::default();
                let mut result = receiving.send(delivery(), &lacking, total, &report).await;
                // A lost link: it is made again, with the agent and its lock, and the transfer goes on at the byte.
                for _ in 0..REPEATS {
                    let Err(failure) = &result else { break };
                    if failure.kind != Kind::Connection || settings.cancel.requested() {
                        break;
                    }
                    let wanted = lacking.iter().map(wanted).collect();
                    session.agent.ask::<Vec<String>>(Request::Lacking { blobs: wanted }).await?;
                    result = receiving.send(delivery(), &lacking, total, &report).await;
                }
                receiving.end();
                result
            };
            spreading.open_beside(session, address, bundle, lasting).await
        };
        let result = sending.await;
        for blob in lacking.iter().filter(|_| result.is_ok()) {
            step.changed(&blob.name);
        }
        step.end(result)?;
    }
    session.events.send(What::HostFinished { state: "supplied".to_owned() });
    Ok(total)
}
