//! What `up` would do on the control plane that the cluster is made on, or where it is: the same steps over a host that
//! only notes and an API server that is played over the real one.

use super::plan::Plan;
use super::{administrator, bring_up, control_plane, finish};
use crate::api::{Rehearsal, Written};
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::Result;
use crate::host::overlay::Overlay;
use crate::message::InitOrder;
use crate::node::init::control_plane::Part;
use crate::node::rehearse::{self, Door};
use crate::node::serves;

/// Phases that write to the cluster.
const IN_CLUSTER: &[&str] = &["upload-config", "upload-certs", "mark-control-plane", "bootstrap-token", "addon"];

/// Says on an overlay what `begin`, `init` and `complete` would do together: objects that would be written, and what is not
/// known before it is done.
///
/// # Errors
/// As [`super::init`], as far as it shows before anything runs.
pub(in crate::node) async fn rehearse_up(
    host: &Overlay<'_>,
    facts: &Facts,
    order: &InitOrder,
    events: &Events,
) -> Result<(Vec<Written>, Vec<String>)> {
    let mut plan = Plan::load(host, facts, order, events)?.waiting_for_nothing();
    let mut unknown = Vec::new();
    let server = if serves(host, facts).await {
        Rehearsal::over(administrator(host, &plan).await?)
    } else {
        if control_plane::there(host, Part::ApiServer)? {
            plan.phases = plan.phases.without(IN_CLUSTER);
            unknown.push("the API server does not serve: what would be written to the cluster is not known".to_owned());
        }
        Rehearsal::default().with(rehearse::node(plan.node_name()))
    };
    plan.door = Door::Rehearsed(server.clone());
    bring_up(host, &plan, events).await?;
    finish(host, &plan, None, events).await?;
    Ok((server.changes(), unknown))
}
