//! `init`: the first control plane of a cluster, by kubeadm's phases under kubeadm's names.
//!
//! Every phase may be run again: what is there and fits is used, what is missing is made. So a run that broke off is
//! finished by the next one, and a run on a finished node changes nothing.

mod addons;
mod bootstrap_token;
mod by_hand;
mod certificates;
pub(super) mod control_plane;
mod head_start;
pub(super) mod kubeconfigs;
pub(super) mod mark_control_plane;
pub(super) mod plan;
mod planned;
mod upload_certs;
mod upload_config;
pub(super) mod wait_control_plane;

use std::convert::Infallible;

pub use self::by_hand::{ByHand, addon_manifests, init_by_hand, rehearse_init};
use self::control_plane::Part;
pub(super) use self::mark_control_plane::SOCKET_ANNOTATION;
use self::plan::Plan;
pub(super) use self::planned::rehearse_up;
use super::phase::{Changes, phase};
use super::preflight::{Finding, Surroundings};
use super::static_pods::{self, Generation};
use super::{defaults, files, kubelet, preflight, refresh};
use crate::api::Client;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::public_key_hash;
use crate::kubernetes::kubeconfig::{ADMIN, SUPER_ADMIN};
use crate::kubernetes::kubelet as kubelet_files;
use crate::kubernetes::token::Token;
use crate::message::{Begun, InitOrder, Initialised, Joined, Ticket};
use crate::secret::Secret;

#[cfg(test)]
pub(super) use self::plan::tests;

/// Phases that need a client of the API server.
const IN_CLUSTER: &[&str] = &["upload-config", "upload-certs", "mark-control-plane", "bootstrap-token"];

/// What of `init` needs no image: certificates, kubeconfigs, and a kubelet that has nothing to run yet. `init` does the
/// same first; asked for before, it goes on while images still arrive.
///
/// # Errors
/// As [`init`].
pub async fn begin(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<Begun> {
    let plan = Plan::load(host, facts, order, events)?;
    if plan.phases.wants("preflight") {
        // The world around is looked at by `init`, once.
        preflight::judge(&of_preparation(host, &plan).await?, events)?;
    }
    let credentials = credentials(host, &plan, events).await?;
    // A kubelet looks for a folder that is not there once in a while; one that is there it watches.
    control_plane::make_room(host)?;
    let (started, kubelet_started) = kubelet_start(host, &plan, events).await?;
    Ok(Begun { changes: credentials + started, kubelet_started })
}

/// kubeadm's checks of a host that is prepared.
async fn check(host: &dyn Host, plan: &Plan, events: &Events) -> Result<()> {
    if !plan.phases.wants("preflight") {
        return Ok(());
    }
    preflight::judge(&prepared(host, plan).await?, events)
}

/// Phase kubelet-start: how many changes, and when the kubelet was started, where it was.
async fn kubelet_start(host: &dyn Host, plan: &Plan, events: &Events) -> Result<(u32, Option<u64>)> {
    let shared = kubelet_files::configuration(plan.kubelet.as_ref(), &plan.cluster);
    let settings = kubelet::Settings {
        cluster: &plan.cluster,
        release: plan.release,
        node: &plan.init.node_registration,
        hostname: &plan.hostname,
        shared: &shared.document,
        joining_worker: false,
        patches: &plan.patches,
    };
    let started = async {
        let now_seconds = defaults::now_seconds()?;
        let changes = kubelet::start(host, &settings, false).await?;
        let anew = kubelet::is_started(&changes).then_some(now_seconds);
        Ok((changes, anew))
    };
    plan.phase(events, ("kubelet-start", "kubelet-start"), "Start the kubelet", started).await
}

/// Phases certs and kubeconfig: how many changes.
pub(super) async fn credentials(host: &dyn Host, plan: &Plan, events: &Events) -> Result<u32> {
    if !plan.phases.wants("certs") && !plan.phases.wants("kubeconfig") {
        return Ok(0);
    }
    let certificates = certificates::make(host, plan, events);
    let (certificates, (authority, keys)) = phase(events, "certs", "Make certificates", certificates).await?;
    let kubeconfigs = async { kubeconfigs::write(host, plan, &authority, keys, events) };
    let step = ("kubeconfig", "kubeconfig");
    let (kubeconfigs, ()) = plan.phase(events, step, "Write kubeconfigs", kubeconfigs).await?;
    Ok(certificates + kubeconfigs)
}

/// What is left when the API server runs and all images are there: the scheduler, the add-ons, and the health of all
/// components.
///
/// # Errors
/// As [`init`].
pub async fn complete(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<u32> {
    let plan = Plan::load(host, facts, order, events)?;
    finish(host, &plan, None, events).await
}

/// [`complete`] by a plan, with the client that [`bring_up`] had if there was one.
async fn finish(host: &dyn Host, plan: &Plan, client: Option<Client>, events: &Events) -> Result<u32> {
    let scheduler = async {
        if plan.phases.is_whole() && !control_plane::there(host, Part::Scheduler)? {
            // Whatever happens to it, the scheduler gets its rights, only later.
            let _ = head_start::roles(&administrator(host, plan).await?).await;
        }
        let changes = control_plane::write(host, plan, Part::Scheduler)?;
        if plan.phases.wants("wait-control-plane") {
            wait_control_plane::components(host, plan).await?;
        }
        Ok((changes, ()))
    };
    let scheduled = async {
        // The components' health belongs to another phase, but is waited for here.
        let started = plan.phases.wants("control-plane/scheduler");
        let path = if started { "control-plane/scheduler" } else { "wait-control-plane" };
        plan.phase(events, (path, "scheduler"), "Start the scheduler", scheduler).await
    };
    let deploy = async {
        let client = match client {
            Some(client) => client,
            None => administrator(host, plan).await?,
        };
        addons::deploy(&client, plan).await
    };
    let deploy = plan.phase(events, ("addon", "addons"), "Deploy CoreDNS and kube-proxy", deploy);
    let (deployed, healthy) = tokio::join!(deploy, scheduled);
    // The component that is not healthy explains the others.
    let ((started, ()), (deployed, ())) = (healthy?, deployed?);
    Ok(started + deployed)
}

/// A client with admin.conf, to this host's own API server; or with the kubeconfig a person named, as it stands.
async fn administrator(host: &dyn Host, plan: &Plan) -> Result<Client> {
    if let Some(path) = &plan.administrator {
        let missing = || Failure::new(Kind::Configuration, format!("there is no {}", path.display()));
        let text = files::text(host, path)?.map(Secret::new).ok_or_else(missing)?;
        return plan.door.client(&text).await;
    }
    plan.door.client(&kubeconfigs::local(host, plan, &ADMIN)?).await
}

/// A client with super-admin.conf, whose power needs no roles, to this host's own API server.
async fn super_administrator(host: &dyn Host, plan: &Plan) -> Result<Client> {
    Client::from_kubeconfig(&kubeconfigs::local(host, plan, &SUPER_ADMIN)?).await
}

/// Makes this host the first control plane, until others can join it; [`complete`] does the rest.
///
/// # Errors
/// Kind `Configuration` for what the documents say or files that are there already; `Preflight` for a host that does not
/// fit; `Host` for what cannot be written or started; `Cluster`, with log lines, when Kubernetes does not come up.
pub async fn init(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<Initialised> {
    let plan = Plan::load(host, facts, order, events)?;
    check(host, &plan, events).await?;
    Ok(bring_up(host, &plan, events).await?.0)
}

/// What preflight finds of what host preparation brings.
async fn of_preparation(host: &dyn Host, plan: &Plan) -> Result<Vec<Finding>> {
    let node = &plan.init.node_registration;
    let (addresses, ignore) = (plan.addresses(), &node.ignore_preflight_errors);
    preflight::prepared(host, Some(&plan.version), &node.cri_socket, &addresses, ignore).await
}

/// The same, and what it finds of the world around.
async fn prepared(host: &dyn Host, plan: &Plan) -> Result<Vec<Finding>> {
    let around = Surroundings {
        node_name: plan.node_name(),
        direct_hosts: vec![&plan.init.local_api_endpoint.advertise_address],
        direct_networks: vec![&plan.cluster.networking.service_subnet, &plan.cluster.networking.pod_subnet],
        external_etcd: plan.cluster.etcd.external.as_ref().map(|etcd| (etcd, &plan.version)),
    };
    let ignore = &plan.init.node_registration.ignore_preflight_errors;
    let (mut prepared, around) =
        tokio::try_join!(of_preparation(host, plan), preflight::surroundings(host, &around, ignore))?;
    prepared.extend(around);
    prepared.extend(preflight::chosen_etcd_data(host, plan.etcd_data(), ignore)?);
    Ok(prepared)
}

/// [`init`] by a plan, after preflight; and the client that wrote to the cluster, if one did.
async fn bring_up(host: &dyn Host, plan: &Plan, events: &Events) -> Result<(Initialised, Option<Client>)> {
    let kubelet = kubelet_files::configuration(plan.kubelet.as_ref(), &plan.cluster);
    if plan.phases.wants("kubelet-start") || plan.phases.wants("upload-config/kubelet") {
        kubelet.warnings.iter().for_each(|warning| events.warn(warning));
    }

    let credentials = credentials(host, plan, events).await?;
    let waits = plan.phases.wants("wait-control-plane");
    // A pod that runs by an older manifest answers until the kubelet replaces it.
    let runs = waits && control_plane::there(host, Part::ApiServer)?;
    let before = if runs { refresh::generation(host, plan).await } else { Generation::default() };
    let manifests = async {
        let changes = control_plane::write(host, plan, Part::Server)?;
        let written = static_pods::written(&changes);
        Ok((changes, written))
    };
    let title = "Write static pods of etcd and the API server";
    let path = if plan.phases.wants("etcd") { "etcd" } else { "control-plane/apiserver" };
    let (manifests, replaced) = plan.phase(events, (path, "control-plane"), title, manifests).await?;
    let replaced: Vec<String> = replaced.into_iter().filter(|name| before.contains_key(name)).collect();
    let (started, kubelet_started) = kubelet_start(host, plan, events).await?;

    let api_server = async {
        if !replaced.is_empty() {
            let limit = plan.init.timeouts.control_plane_component_health_check.0;
            let client = administrator(host, plan).await?;
            static_pods::replaced(host, &client, plan.node_name(), &replaced, &before, limit).await?;
        }
        let healthy = kubelet::wait(host, plan.init.timeouts.kubelet_health_check.0);
        let up = async { tokio::try_join!(wait_control_plane::api_server(host, plan), healthy) };
        let ahead = async {
            // Nothing is lost where it does not succeed.
            if !runs && let Ok(client) = super_administrator(host, plan).await {
                let limit = plan.init.timeouts.control_plane_component_health_check.0;
                let _ = head_start::priorities_at_once(&client, limit).await;
            }
            std::future::pending::<Infallible>().await
        };
        let up = tokio::select! {
            up = up => up,
            never = ahead => match never {},
        };
        up.map(|((changes, client), ())| (changes, Some(client)))
    };
    let step = ("wait-control-plane", "wait-control-plane");
    let (bound, client) = plan.phase(events, step, "Wait for the API server", api_server).await?;

    if let Some(client) = client.clone().filter(|_| bound > 0) {
        // The API server is new. Nobody waits for this: what it does not get done, Kubernetes does by itself.
        drop(tokio::spawn(async move { tokio::join!(head_start::priorities(&client), head_start::accounts(&client)) }));
    }
    let client = match client {
        None if IN_CLUSTER.iter().any(|path| plan.phases.wants(path)) => Some(administrator(host, plan).await?),
        client => client,
    };
    // What follows needs the API server alone and nothing of each other.
    let controllers = async {
        if let Some(client) = client.as_ref().filter(|_| bound > 0) {
            // Its node is Ready a few seconds earlier with a pod network; else the controller manager gives it one.
            let network = head_start::pod_network(client, plan);
            // With rights the controller manager leads at once; refused, it asks again seconds later.
            let rights = async {
                if !plan.images_there {
                    let _ = tokio::join!(head_start::rights(client), head_start::own_roles(client));
                }
            };
            let _ = tokio::join!(network, rights);
        }
        let mut changes = control_plane::write(host, plan, Part::ControllerManager)?;
        if plan.images_there {
            changes.extend(control_plane::write(host, plan, Part::Scheduler)?);
        }
        if let Some(client) = client.as_ref().filter(|_| bound > 0 && plan.images_there) {
            // While the containers are made; without it they get their rights a little later.
            let _ = head_start::rights(client).await;
        }
        Ok((changes, ()))
    };
    let step = ("control-plane/controller-manager", "controller-manager");
    let controllers = plan.phase(events, step, "Start the controller manager", controllers);
    let stored = in_cluster(host, client.as_ref(), plan, &kubelet, events);
    let (controllers, stored) = tokio::join!(controllers, stored);
    let ((controllers, ()), (stored, Stored { token, certificate_key })) = (controllers?, stored?);
    let changes = [credentials, manifests, started, bound, controllers, stored].iter().sum();
    let ticket = token.map(|token| ticket(host, plan, &token, certificate_key.clone())).transpose()?;
    let joined = Joined { node: plan.node_name().to_owned(), changes, pod_network: None };
    Ok((Initialised { joined, kubelet_started, ticket, certificate_key }, client))
}

/// What hosts join with, of what was stored in the cluster.
#[derive(Default)]
struct Stored {
    token: Option<Token>,
    certificate_key: Option<Secret>,
}

/// What is stored in the cluster for its nodes, side by side: how many changes, and what they join with.
async fn in_cluster(
    host: &dyn Host,
    client: Option<&Client>,
    plan: &Plan,
    kubelet: &kubelet_files::KubeletConfiguration,
    events: &Events,
) -> Result<(u32, Stored)> {
    let marked = mark(host, client, plan);
    let path = if client.is_some() && plan.phases.wants("mark-control-plane") {
        "mark-control-plane"
    } else {
        "kubelet-finalize"
    };
    let marked = plan.phase(events, (path, "mark-control-plane"), "Mark the node as control plane", marked);
    let Some(client) = client else {
        return Ok((marked.await?.0, Stored::default()));
    };
    let uploaded = upload_config::upload(client, plan, kubelet);
    let issued = bootstrap_token::make(host, client, plan);
    let shared = async {
        if !plan.upload_certificates {
            return Ok((0, None));
        }
        let upload = async {
            let (changes, key) = upload_certs::upload(host, client, plan).await?;
            Ok((changes, Some(key)))
        };
        plan.phase(events, ("upload-certs", "upload-certs"), "Upload what control planes share", upload).await
    };
    let (uploaded, shared, issued, marked) = tokio::join!(
        plan.phase(events, ("upload-config", "upload-config"), "Store the cluster's configuration", uploaded),
        shared,
        plan.phase(events, ("bootstrap-token", "bootstrap-token"), "Let nodes join", issued),
        marked,
    );
    let ((uploaded, ()), (shared, certificate_key)) = (uploaded?, shared?);
    let ((issued, token), (marked, ())) = (issued?, marked?);
    Ok((uploaded + shared + issued + marked, Stored { token, certificate_key }))
}

/// Phases mark-control-plane and kubelet-finalize; the Node first, because the kubelet has its certificate by then.
async fn mark(host: &dyn Host, client: Option<&Client>, plan: &Plan) -> Result<(Changes, ())> {
    let mut changes = Vec::new();
    if let (Some(client), true) = (client, plan.phases.wants("mark-control-plane")) {
        changes = mark_control_plane::mark(client, plan).await?.0;
    }
    if plan.phases.wants("kubelet-finalize") {
        changes.extend(mark_control_plane::follow_rotation(host)?);
    }
    Ok((changes, ()))
}

/// What others join with.
fn ticket(host: &dyn Host, plan: &Plan, token: &Token, certificate_key: Option<Secret>) -> Result<Ticket> {
    let endpoint = match plan.cluster.control_plane_endpoint.as_str() {
        "" => plan.init.local_api_endpoint.host_and_port(),
        endpoint => endpoint.to_owned(),
    };
    let ca = plan.pki("ca.crt");
    let text =
        files::text(host, &ca)?.ok_or_else(|| Failure::new(Kind::Host, format!("there is no {}", ca.display())))?;
    Ok(Ticket { endpoint, token: token.text(), ca_hashes: public_key_hash(&text)?, certificate_key })
}
