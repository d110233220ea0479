//! A member is brought to what the cluster's configuration says now: kubelet, static pods, missing kubeconfigs. `init` and
//! `join` make a node what it is; this mends and changes it, and says of a host that is no member yet what it would get.

use super::init::control_plane::{Part, write};
use super::init::plan::Plan;
use super::init::{credentials, kubeconfigs, wait_control_plane};
use super::phase::phase;
use super::phases::{self, Selection};
use super::static_pods::{self, Generation};
use super::{join, kubelet, patches};
use crate::api::Client;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::Result;
use crate::host::Host;
use crate::host::overlay::Overlay;
use crate::kubernetes::configuration::JoinConfiguration;
use crate::kubernetes::kubeconfig::ADMIN;
use crate::kubernetes::kubelet as kubelet_files;
use crate::kubernetes::patches::Patches;
use crate::message::{InitOrder, JoinOrder, RefreshOrder};

/// What an order comes to on this host.
struct Wanted {
    node: JoinConfiguration,
    cluster: Plan,
    /// That of a control plane; absent on a worker.
    control_plane: Option<Plan>,
    patches: Patches,
    /// Whether what was altered is waited for.
    waits: bool,
}

impl Wanted {
    fn of(host: &dyn Host, facts: &Facts, order: &RefreshOrder, events: &Events) -> Result<Self> {
        let node = join::load(host, facts, &JoinOrder { configuration: order.node.clone() }, events)?;
        let configuration = order.cluster.clone();
        let cluster = InitOrder { configuration, issue_ticket: false, upload_certificates: false };
        let cluster = Plan::load(host, facts, &cluster, events)?;
        let patches = patches::read(host, node.patches.as_ref(), cluster.release, events)?;
        let phases = phases::JOIN.select(None, &node.skip_phases)?;
        let control_plane = node.control_plane.as_ref().map(|control_plane| {
            let (version, release) = (cluster.version.clone(), cluster.release);
            Plan::joining(&node, control_plane, cluster.cluster.clone(), version, release, &facts.hostname)
                .laid_out(&patches, &phases)
        });
        Ok(Self { node, cluster, control_plane, patches, waits: true })
    }

    fn phases(&self) -> Result<Selection> {
        phases::JOIN.select(None, &self.node.skip_phases)
    }

    /// Phase kubelet-start: how many changes.
    async fn kubelet(&self, host: &dyn Host, facts: &Facts, events: &Events) -> Result<u32> {
        let shared = kubelet_files::configuration(self.cluster.kubelet.as_ref(), &self.cluster.cluster);
        let settings = kubelet::Settings {
            cluster: &self.cluster.cluster,
            release: self.cluster.release,
            node: &self.node.node_registration,
            hostname: &facts.hostname,
            shared: &shared.document,
            joining_worker: self.control_plane.is_none(),
            patches: &self.patches,
        };
        let started = async {
            let changes = kubelet::start(host, &settings, false).await?;
            Ok((changes, ()))
        };
        Ok(phase(events, "kubelet-start", "Start the kubelet", started).await?.0)
    }

    /// Static pods, all of them: the components that changed.
    async fn static_pods(&self, host: &dyn Host, plan: &Plan, events: &Events) -> Result<Vec<String>> {
        let written = async {
            let mut changes = Vec::new();
            for part in [Part::Server, Part::ControllerManager, Part::Scheduler] {
                changes.extend(write(host, plan, part)?);
            }
            let components = static_pods::written(&changes);
            Ok((changes, components))
        };
        Ok(phase(events, "control-plane", "Write the static pods of the control plane", written).await?.1)
    }
}

/// Brings a member to what the order says; returns how many things were altered. Returns when what was altered works
/// again: the kubelet healthy, new static pods in place of the old ones and ready.
///
/// # Errors
/// Kind `Configuration` for what the documents say; `Host` for what cannot be written or started; `Cluster`, with log
/// lines, for what does not come up again.
pub async fn refresh(host: &dyn Host, facts: &Facts, order: &RefreshOrder, events: &Events) -> Result<u32> {
    let wanted = Wanted::of(host, facts, order, events)?;
    bring(host, facts, &wanted, events).await
}

/// Says on an overlay what [`refresh`] would do: nothing is waited for.
///
/// # Errors
/// As [`refresh`].
pub(super) async fn rehearse_refresh(
    host: &Overlay<'_>,
    facts: &Facts,
    order: &RefreshOrder,
    events: &Events,
) -> Result<u32> {
    let mut wanted = Wanted::of(host, facts, order, events)?;
    wanted.waits = false;
    wanted.control_plane = wanted.control_plane.map(|plan| plan.waiting_for_nothing());
    bring(host, facts, &wanted, events).await
}

/// The new static pods are there before the kubelet is started anew: one that has just begun with a pod, and loses its file
/// then, waits two minutes for that pod's volumes before it takes the new one.
async fn bring(host: &dyn Host, facts: &Facts, wanted: &Wanted, events: &Events) -> Result<u32> {
    let mut changes = 0;
    let mut written = None;
    if let Some(plan) = &wanted.control_plane {
        changes += credentials(host, plan, events).await?;
        let before = if wanted.waits { generation(host, plan).await } else { Generation::default() };
        let components = wanted.static_pods(host, plan, events).await?;
        changes += components.len() as u32;
        written = (!components.is_empty()).then_some((plan, components, before));
    }
    let kubelet = match wanted.phases()?.wants("kubelet-start") {
        true => wanted.kubelet(host, facts, events).await?,
        false => 0,
    };
    changes += kubelet;
    if kubelet > 0 && wanted.waits {
        kubelet::wait(host, wanted.node.timeouts.kubelet_health_check.0).await?;
    }
    if let Some((plan, components, before)) = written {
        settle(host, plan, &components, &before, events).await?;
    }
    Ok(changes)
}

/// Says on an overlay what a host gets that is no member yet, as far as it is known before the cluster is.
///
/// # Errors
/// As [`refresh`].
pub(super) async fn rehearse_newcomer(
    host: &Overlay<'_>,
    facts: &Facts,
    order: &RefreshOrder,
    events: &Events,
) -> Result<()> {
    let wanted = Wanted::of(host, facts, order, events)?;
    if wanted.phases()?.wants("kubelet-start") {
        wanted.kubelet(host, facts, events).await?;
    }
    if let Some(plan) = &wanted.control_plane {
        wanted.static_pods(host, plan, events).await?;
    }
    Ok(())
}

/// The phases a host takes that joins with this configuration, as name and what it does.
///
/// # Errors
/// Kind `Configuration` for phases to skip that there are not.
pub(super) fn phases_of_joining(
    host: &Overlay<'_>,
    facts: &Facts,
    order: &RefreshOrder,
) -> Result<Vec<(String, String)>> {
    // What is worth a warning was said already.
    let wanted = Wanted::of(host, facts, order, &Events::nowhere())?;
    let selected = wanted.phases()?;
    let worker = wanted.control_plane.is_none();
    let of_worker = ["preflight", "kubelet-start", "kubelet-wait-bootstrap"];
    let taken = phases::JOIN.phases.iter().filter(|phase| selected.wants(phase.name));
    let taken = taken.filter(|phase| !worker || of_worker.contains(&phase.name));
    Ok(taken.map(|phase| (phase.name.to_owned(), phase.does.to_owned())).collect())
}

/// Which static pods run here, by the host's own API server; nothing where that does not answer.
pub(super) async fn generation(host: &dyn Host, plan: &Plan) -> Generation {
    match client(host, plan).await {
        Ok(client) => static_pods::generation(&client, plan.node_name()).await.unwrap_or_default(),
        Err(_) => Generation::default(),
    }
}

async fn client(host: &dyn Host, plan: &Plan) -> Result<Client> {
    Client::from_kubeconfig(&kubeconfigs::local(host, plan, &ADMIN)?).await
}

/// Waits until the kubelet has taken the new static pods and all of them work.
async fn settle(
    host: &dyn Host,
    plan: &Plan,
    components: &[String],
    before: &Generation,
    events: &Events,
) -> Result<()> {
    if !plan.phases.wants("wait-control-plane") {
        return Ok(());
    }
    let limit = plan.init.timeouts.control_plane_component_health_check.0;
    let waited = async {
        static_pods::replaced(host, &client(host, plan).await?, plan.node_name(), components, before, limit).await?;
        wait_control_plane::api_server(host, plan).await?;
        wait_control_plane::components(host, plan).await?;
        Ok((Vec::new(), ()))
    };
    phase(events, "wait-control-plane", "Wait for the new control plane", waited).await.map(drop)
}
