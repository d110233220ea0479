//! `init`: the first control plane of a cluster, by kubeadm's phases under kubeadm's names.
//!
//! Every phase may be run again: what is there and fits is used, what is missing is made. So a run that broke off is
//! finished by the next one, and a run on a finished node changes nothing.

mod addons;
mod bootstrap_token;
mod certificates;
mod control_plane;
mod head_start;
mod kubeconfigs;
mod mark_control_plane;
mod plan;
mod upload_config;
mod wait_control_plane;

use self::control_plane::Part;
pub(super) use self::mark_control_plane::SOCKET_ANNOTATION;
use self::plan::Plan;
use super::phase::phase;
use super::{kubelet, preflight};
use crate::api::Client;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::certificates::{Authority, public_key_hash};
use crate::kubernetes::kubeconfig::ADMIN;
use crate::kubernetes::kubelet as kubelet_files;
use crate::message::{InitOrder, Initialised, Joined, Ticket};

#[cfg(test)]
pub(super) use self::plan::tests;

/// What of `init` needs no image: certificates, kubeconfigs, and a kubelet that has nothing to run yet. `init` does the
/// same first; asked for before, it goes on while images still arrive.
///
/// # Errors
/// As [`init`].
pub async fn begin(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<u32> {
    let plan = Plan::load(host, facts, order, events)?;
    check(host, &plan, events).await?;
    let (credentials, _) = credentials(host, &plan, events).await?;
    // A kubelet looks for a folder that is not there once in a while; one that is there it watches.
    control_plane::make_room(host)?;
    Ok(credentials + kubelet_start(host, &plan, events).await?)
}

/// kubeadm's checks of a host that is prepared.
async fn check(host: &dyn Host, plan: &Plan, events: &Events) -> Result<()> {
    let node = &plan.init.node_registration;
    let (addresses, ignore) = (plan.addresses(), &node.ignore_preflight_errors);
    let findings = preflight::prepared(host, Some(&plan.version), &node.cri_socket, &addresses, ignore).await?;
    preflight::judge(&findings, events)
}

/// Phase kubelet-start: how many changes.
async fn kubelet_start(host: &dyn Host, plan: &Plan, events: &Events) -> Result<u32> {
    let shared = kubelet_files::configuration(plan.kubelet.as_ref(), &plan.cluster);
    let settings = kubelet::Settings {
        cluster: &plan.cluster,
        release: plan.release,
        node: &plan.init.node_registration,
        hostname: &plan.hostname,
        shared: &shared.document,
        joining_worker: false,
    };
    let started = async { Ok((kubelet::start(host, &settings, false).await?, ())) };
    Ok(phase(events, "kubelet-start", "Start the kubelet", started).await?.0)
}

/// Phases certs and kubeconfig: how many changes, and the cluster's CA.
async fn credentials(host: &dyn Host, plan: &Plan, events: &Events) -> Result<(u32, Authority)> {
    let certificates = certificates::make(host, plan, events);
    let (certificates, (authority, keys)) = phase(events, "certs", "Make certificates", certificates).await?;
    let kubeconfigs = async { kubeconfigs::write(host, plan, &authority, keys, events) };
    let (kubeconfigs, ()) = phase(events, "kubeconfig", "Write kubeconfigs", kubeconfigs).await?;
    Ok((certificates + kubeconfigs, authority))
}

/// What is left when the API server runs and all images are there: the scheduler, the add-ons, and the health of all
/// components.
///
/// # Errors
/// As [`init`].
pub async fn complete(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<u32> {
    let plan = Plan::load(host, facts, order, events)?;
    let client = Client::from_kubeconfig(&kubeconfigs::local(host, &plan, &ADMIN)?).await?;
    let scheduler = async {
        if !control_plane::there(host, Part::Scheduler)? {
            // Whatever happens to it, the scheduler gets its rights, only later.
            let _ = head_start::roles(&client).await;
        }
        let changes = control_plane::write(host, &plan, Part::Scheduler)?;
        wait_control_plane::components(host, &plan).await?;
        Ok((changes, ()))
    };
    let (deployed, healthy) = tokio::join!(
        phase(events, "addons", "Deploy CoreDNS and kube-proxy", addons::deploy(&client, &plan)),
        phase(events, "scheduler", "Start the scheduler", scheduler),
    );
    // The component that is not healthy explains the others.
    let ((started, ()), (deployed, ())) = (healthy?, deployed?);
    Ok(started + deployed)
}

/// Makes this host the first control plane, until others can join it; [`complete`] does the rest.
///
/// # Errors
/// Kind `Configuration` for what the documents say or files that are there already; `Preflight` for a host that does not
/// fit; `Host` for what cannot be written or started; `Cluster`, with log lines, when Kubernetes does not come up.
pub async fn init(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<Initialised> {
    let plan = Plan::load(host, facts, order, events)?;
    check(host, &plan, events).await?;
    let kubelet = kubelet_files::configuration(plan.kubelet.as_ref(), &plan.cluster);
    kubelet.warnings.iter().for_each(|warning| events.warn(warning));

    let (credentials, authority) = credentials(host, &plan, events).await?;
    let ca_hashes = public_key_hash(authority.pem())?;
    let manifests = async { Ok((control_plane::write(host, &plan, Part::Server)?, ())) };
    let title = "Write static pods of etcd and the API server";
    let (manifests, ()) = phase(events, "control-plane", title, manifests).await?;
    let started = kubelet_start(host, &plan, events).await?;

    let api_server = async {
        let healthy = kubelet::wait(host, &kubelet.document, plan.init.timeouts.kubelet_health_check.0);
        tokio::try_join!(wait_control_plane::api_server(host, &plan), healthy).map(|(answers, ())| answers)
    };
    let (bound, client) = phase(events, "wait-control-plane", "Wait for the API server", api_server).await?;

    if bound > 0 {
        // The API server is new. Nobody waits for this: what it does not get done, Kubernetes does by itself.
        let client = client.clone();
        drop(tokio::spawn(async move { head_start::accounts(&client).await }));
    }
    // What follows needs the API server alone and nothing of each other.
    let controllers = async {
        if bound > 0 {
            // Its node is Ready a few seconds earlier with a pod network; else the controller manager gives it one.
            let _ = head_start::pod_network(&client, &plan).await;
        }
        let changes = control_plane::write(host, &plan, Part::ControllerManager)?;
        if bound > 0 {
            // While the container is made; without it the controller manager gets its rights a little later.
            let _ = head_start::rights(&client).await;
        }
        Ok((changes, ()))
    };
    let marked = async {
        // The Node first: the kubelet has its certificate by then.
        let (mut changes, ()) = mark_control_plane::mark(&client, &plan).await?;
        changes.extend(mark_control_plane::follow_rotation(host)?);
        Ok((changes, ()))
    };
    let (controllers, uploaded, token, marked) = tokio::join!(
        phase(events, "controller-manager", "Start the controller manager", controllers),
        phase(
            events,
            "upload-config",
            "Store the cluster's configuration",
            upload_config::upload(&client, &plan, &kubelet)
        ),
        phase(events, "bootstrap-token", "Let nodes join", bootstrap_token::make(host, &client, &plan)),
        phase(events, "mark-control-plane", "Mark the node as control plane", marked),
    );
    let ((controllers, ()), (uploaded, ()), (marked, ())) = (controllers?, uploaded?, marked?);
    let (issued, token) = token?;
    let endpoint = match plan.cluster.control_plane_endpoint.as_str() {
        "" => plan.init.local_api_endpoint.host_and_port(),
        endpoint => endpoint.to_owned(),
    };
    let changes = [credentials, manifests, started, bound, controllers, uploaded, marked, issued].iter().sum();
    Ok(Initialised {
        joined: Joined { node: plan.node_name().to_owned(), changes },
        ticket: token.map(|token| Ticket { endpoint, token: token.text(), ca_hashes, certificate_key: None }),
    })
}
