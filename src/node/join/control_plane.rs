//! A host becomes another control plane (kubeadm.md section 10.4).
//!
//! The phases are kubeadm's, with two differences in when files are written, none in what is written: the API server's
//! static pod comes when the host's etcd has a vote, because until then it would only end and be started again ever more
//! slowly; controller manager and scheduler come when the API server answers.

use std::path::{Path, PathBuf};

use super::discovery::{Found, pointed_to};
use super::{BOOTSTRAP_KUBECONFIG, Images, Membership, cluster, download_certs, ready, trust, wait_bootstrap};
use crate::api::{Client, create_or_update_all};
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::configuration::{JoinConfiguration, JoinControlPlane};
use crate::kubernetes::kubeconfig::{ADMIN, Kubeconfig};
use crate::kubernetes::manifests::EtcdMember;
use crate::kubernetes::patches::Patches;
use crate::kubernetes::tag::is_newer_etcd;
use crate::kubernetes::{rbac, version};
use crate::node::etcd::{self, Entrant, Limits};
use crate::node::init::control_plane::{Part, write};
use crate::node::init::mark_control_plane::{ROTATED, mark};
use crate::node::init::plan::Plan;
use crate::node::init::{credentials, kubeconfigs, wait_control_plane};
use crate::node::phase::{Changes, phase};
use crate::node::phases::Selection;
use crate::node::{diagnosis, files, images, kubelet, unit};

/// Where the kubelet looks for static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// etcd's.
const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// A join under way: the host, and what is known of the cluster.
#[derive(Clone, Copy)]
pub(super) struct Join<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) facts: &'a Facts,
    pub(super) events: &'a Events,
    pub(super) configuration: &'a JoinConfiguration,
    pub(super) settings: &'a cluster::Settings,
    pub(super) found: &'a Found,
    pub(super) bootstrap: &'a Client,
    pub(super) member: Membership,
    pub(super) patches: &'a Patches,
    pub(super) phases: &'a Selection,
    pub(super) images: Images,
}

impl Join<'_> {
    /// Makes the host a control plane; how many things were altered.
    ///
    /// # Errors
    /// As [`super::join`]. What was done stays and is taken up by the next run; `reset` undoes it.
    pub(super) async fn control_plane(&self, control_plane: &JoinControlPlane) -> Result<u32> {
        let Self { host, events, settings, configuration, .. } = *self;
        let plan = Plan::joining(
            configuration,
            control_plane,
            settings.cluster.clone(),
            settings.version.clone(),
            settings.release,
            &self.facts.hostname,
        )
        .laid_out(self.patches, self.phases);
        let key = control_plane.certificate_key.as_ref();
        self.is_no_worker(&plan)?;
        if self.phases.wants("preflight") {
            ready::check(host, self.facts, &plan, key.is_some(), events)?;
            if self.images == Images::Fetched {
                let wanted = version::images(&plan.cluster)?;
                let node = &plan.init.node_registration;
                images::judge_sandbox(host, node, &wanted.pause, events).await;
                images::fetch(host, node, &wanted.wanted(&plan.cluster, true), events).await?;
            }
        }

        let mut changes = 0;
        if let Some(key) = key.filter(|_| self.phases.wants("control-plane-prepare/download-certs")) {
            let limit = plan.init.timeouts.kubernetes_api_call.0;
            let download = download_certs::download(host, self.bootstrap, &plan.cluster, key, self.found, limit);
            changes += phase(events, "download-certs", "Download what control planes share", download).await?.0;
        }
        changes += credentials(host, &plan, events).await?;
        let started = self.start(&plan).await;
        if started.is_err() {
            // In every case (kubeadm.md section 10.3): the token in it must not stay on the disk.
            host.remove(Path::new(BOOTSTRAP_KUBECONFIG))?;
        }
        Ok(changes + started?)
    }

    /// A worker has nothing of a control plane, and its kubelet talks to the cluster's endpoint.
    fn is_no_worker(&self, plan: &Plan) -> Result<()> {
        if self.member == Membership::None || self.host.entry(&plan.pki("apiserver.crt"))?.is_some() {
            return Ok(());
        }
        let name = plan.node_name();
        Err(Failure::new(
            Kind::Preflight,
            format!("FileAvailable--etc-kubernetes-kubelet.conf: the host is the worker {name} of this cluster"),
        )
        .advise(format!("take {name} out of the cluster first (reset the host, remove its Node), then join it again")))
    }

    async fn start(&self, plan: &Plan) -> Result<u32> {
        let Self { host, configuration, .. } = *self;
        // The kubelet starts while etcd makes room for the member.
        let (kubelet, entered) = tokio::join!(
            self.step("kubelet-start", "kubelet-start", "Start the kubelet", self.start_kubelet(plan)),
            self.join_etcd(plan),
        );
        let ((kubelet, ()), member) = (kubelet?, entered?);

        let manifest = async { Ok((write(host, plan, Part::ApiServer)?, ())) };
        let title = "Write the static pod of the API server";
        let path = "control-plane-prepare/control-plane";
        let (server, ()) = self.step(path, "control-plane", title, manifest).await?;
        let answers = async {
            let limit = configuration.timeouts.kubelet_health_check.0;
            let healthy = kubelet::wait(host, limit);
            tokio::try_join!(wait_control_plane::api_server(host, plan), healthy).map(|(answers, ())| answers)
        };
        let answers = async { answers.await.map(|(changes, admin)| (changes, Some(admin))) };
        let step = "wait-control-plane";
        let (bound, admin) = self.step(step, step, "Wait for the API server", answers).await?;

        let components = async {
            let mut changes = write(host, plan, Part::ControllerManager)?;
            changes.extend(write(host, plan, Part::Scheduler)?);
            if self.phases.wants("wait-control-plane") {
                wait_control_plane::components(host, plan).await?;
            }
            Ok((changes, ()))
        };
        let node = async {
            let step = "kubelet-wait-bootstrap";
            let title = "Wait for the kubelet's certificate and its Node";
            let (waited, ()) = self.step(step, step, title, self.wait_kubelet()).await?;
            let marked = async {
                let admin = match admin {
                    Some(admin) => admin,
                    None => self.admin().await?,
                };
                let (mut changes, ()) = mark(&admin, plan).await?;
                changes.extend(kubelet_client(&admin, plan).await?);
                Ok((changes, ()))
            };
            let title = "Mark the node as control plane";
            let (marked, ()) = self.step("control-plane-join", "mark-control-plane", title, marked).await?;
            Ok(waited + marked)
        };
        let title = "Start controller manager and scheduler";
        let (components, node) = tokio::join!(self.step(path, "components", title, components), node);
        let ((components, ()), node) = (components?, node?);
        Ok([kubelet, member, server, bound, components, node].iter().sum())
    }

    /// A phase that is left out unless any of `path` is wanted; `id` is that of the step a person sees.
    async fn step<T: Default>(
        &self,
        path: &str,
        id: &str,
        title: &str,
        work: impl Future<Output = Result<(Changes, T)>>,
    ) -> Result<(u32, T)> {
        if !self.phases.wants(path) {
            return Ok((0, T::default()));
        }
        phase(self.events, id, title, work).await
    }

    /// Writes what the kubelet asks for its certificate with, and starts it. Where the release wants it, it asks its own
    /// API server and talks to that for ever.
    async fn start_kubelet(&self, plan: &Plan) -> Result<(Changes, ())> {
        let Self { host, settings, configuration, .. } = *self;
        let server = match settings.release.kubelet_uses_local_server(&settings.cluster) {
            true => plan.init.local_api_endpoint.url(),
            false => self.found.server.clone(),
        };
        // A kubelet that starts before there is the folder looks into it only every 20 s.
        host.create_directory(Path::new(MANIFESTS), 0o700)?;
        let credentials = self.found.credentials.as_ref().map(|text| pointed_to(text, &server)).transpose()?;
        let own = Found { server, ca_pem: self.found.ca_pem.clone(), credentials };
        let kubelet = kubelet::Settings {
            cluster: &settings.cluster,
            release: settings.release,
            node: &configuration.node_registration,
            hostname: &self.facts.hostname,
            shared: &settings.kubelet,
            joining_worker: false,
            patches: self.patches,
        };
        let prepared = kubelet::prepare(host, &kubelet).await?;
        let mut changes = trust(host, configuration, &settings.cluster.cluster_name, &own, self.member)?;
        let restart = !changes.is_empty();
        changes.extend(kubelet::begin(host, prepared, restart).await?);
        Ok((changes, ()))
    }

    /// Waits for the kubelet's certificate and Node. A kubelet that asked before its API server answered asks again after
    /// ever longer times; one that begins anew asks at once, and its pods go on.
    async fn wait_kubelet(&self) -> Result<(Changes, ())> {
        let host = self.host;
        if self.member == Membership::None && host.entry(Path::new(ROTATED))?.is_none() {
            unit::restart(host, kubelet::UNIT).await?;
        }
        let waited = wait_bootstrap(host, self.configuration, self.settings, self.bootstrap).await;
        let removed = host.remove(Path::new(BOOTSTRAP_KUBECONFIG));
        let changes = waited?;
        removed.map(|()| (changes, ()))
    }

    /// Phases check-etcd and etcd-join: the host's etcd becomes a member with a vote; how many things were altered. With an
    /// external etcd there is nothing to do.
    async fn join_etcd(&self, plan: &Plan) -> Result<u32> {
        let Self { host, events, .. } = *self;
        let Some(local) = plan.cluster.etcd.local.as_ref() else { return Ok(0) };
        let timeouts = &plan.init.timeouts;
        let limits = Limits {
            api: timeouts.kubernetes_api_call.0,
            etcd: timeouts.etcd_api_call.0,
            start: timeouts.control_plane_component_health_check.0,
        };
        let certificates = Path::new(&plan.cluster.certificates_dir);
        let checks = self.phases.wants("check-etcd");
        if !self.phases.wants("etcd-join") {
            let check = async {
                etcd::check(host, &self.admin().await?, certificates, limits).await?;
                Ok((Vec::new(), ()))
            };
            return Ok(self.step("check-etcd", "check-etcd", "Check that etcd is healthy", check).await?.0);
        }
        let data = PathBuf::from(&local.data_dir);
        let given = |name: &str| {
            let argument = local.extra_args.iter().rev().find(|argument| argument.name == name);
            argument.map(|argument| argument.value.as_str())
        };
        let log = given("wal-dir").map_or_else(|| data.join("member/wal"), PathBuf::from);
        let learners = given("max-learners").or_else(|| given("experimental-max-learners"));
        let peer_url = etcd::peer_url(&plan.init.local_api_endpoint);
        let entrant = Entrant {
            node_name: plan.node_name(),
            peer_url: &peer_url,
            data: &data,
            log: &log,
            manifest: Path::new(ETCD_MANIFEST),
            learners: learners.and_then(|count| count.parse().ok()).unwrap_or(1),
            wants_quorum: checks,
        };
        let enter = async {
            let entry = etcd::enter(host, &self.admin().await?, certificates, &entrant, limits).await?;
            Ok((entry.changes.clone(), entry))
        };
        let id = if checks { "check-etcd" } else { "enter-etcd" };
        let (entered, entry) = phase(events, id, "Have etcd take a new member", enter).await?;
        let own = plan.release.etcd_tag(&plan.version);
        let plan = &Plan { etcd_tag: tag_to_run(own, entry.tag.as_deref(), self.images), ..plan.clone() };
        let promote = async {
            let with = |members: &[EtcdMember]| Plan { etcd_members: members.to_vec(), ..plan.clone() };
            let mut changes = write(host, &with(entry.initial_cluster.as_deref().unwrap_or_default()), Part::Etcd)?;
            let promoted =
                etcd::promote(&entry, &entrant, limits, |members| write(host, &with(members), Part::Etcd).map(drop));
            match promoted.await {
                Ok(promoted) => changes.extend(promoted),
                Err(failure) => return Err(diagnosis::explain(host, failure, &["etcd"]).await),
            }
            Ok((changes, ()))
        };
        let (promoted, ()) = phase(events, "etcd-join", "Start etcd and give it its vote", promote).await?;
        Ok(entered + promoted)
    }

    /// The administrator, at an API server that runs: the host's own does not yet.
    async fn admin(&self) -> Result<Client> {
        let path = kubeconfigs::path(&ADMIN);
        let text = files::text(self.host, &path)?
            .ok_or_else(|| Failure::new(Kind::Host, format!("there is no {}", path.display())))?;
        let mut kubeconfig = Kubeconfig::parse(&text).map_err(|failure| {
            Failure::new(Kind::Configuration, format!("{} cannot be used", path.display())).because(&failure)
        })?;
        kubeconfig.point_to(&self.found.server);
        Client::from_kubeconfig(&kubeconfig.to_text()).await
    }
}

/// The tag of etcd's image on a host that joins, where it is not the release's own: that of the members that run
/// ('1.37 and corrections', A). An older one is no bundle's, and a host that was given one may have no way to a registry; a
/// newer member among older ones works.
fn tag_to_run(own: &str, running: Option<&str>, images: Images) -> Option<String> {
    let running = running.filter(|running| *running != own)?;
    (images == Images::Fetched || is_newer_etcd(running, own)).then(|| running.to_owned())
}

/// Gives the certificate of the API server's kubelet client its rights, where it has none by its group: a cluster that was
/// made by an older kubeadm lacks the binding ('1.37 and corrections', C).
async fn kubelet_client(admin: &Client, plan: &Plan) -> Result<Changes> {
    if plan.release.kubelet_client_organization(&plan.version).is_some() {
        return Ok(Vec::new());
    }
    create_or_update_all(admin, &[rbac::kubelet_client()], plan.init.timeouts.kubernetes_api_call.0).await
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Images, tag_to_run};

    #[rstest]
    #[case::alike("3.6.8-0", Some("3.6.8-0"), Images::Fetched, None)]
    #[case::a_newer_one_runs("3.6.8-0", Some("3.7.0-0"), Images::FromBundle, Some("3.7.0-0"))]
    #[case::an_older_one_runs("3.6.8-0", Some("3.6.5-0"), Images::Fetched, Some("3.6.5-0"))]
    #[case::it_is_in_no_bundle("3.6.8-0", Some("3.6.5-0"), Images::FromBundle, None)]
    #[case::nobody_says("3.6.8-0", None, Images::Fetched, None)]
    fn a_member_runs_what_the_others_run(
        #[case] own: &str,
        #[case] running: Option<&str>,
        #[case] images: Images,
        #[case] tag: Option<&str>,
    ) {
        assert_eq!(tag_to_run(own, running, images).as_deref(), tag);
    }
}
