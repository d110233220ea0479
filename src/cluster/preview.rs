//! `plan`: what `up` would do, on every host and in the cluster, before the first change is made. No host is altered: each
//! agent rehearses the requests that `up` would send it.

use std::collections::{BTreeMap, BTreeSet};

use super::access::Api;
use super::adopt::facts_of;
use super::check::{self, Tried};
use super::connect::{Access, Session, Settings, connect};
use super::documents::Documents;
use super::fetch::{Foresight, foresee};
use super::finish;
use super::kubeconfig;
use super::lane::{PREPARATION, peers, preparation, split};
use super::muster::{Absent, Muster};
use super::plan::{HostPlan, Plan, Way};
use super::prune::strangers;
use super::tolerance::Tolerance;
use crate::api::{self, NodeStatus};
use crate::bundle::{Blob, Bundle};
use crate::change::{Action, Change, HostPreview, Kind, Preview, Section};
use crate::event::{What, elapsed_milliseconds};
use crate::failure::{Failure, Result};
use crate::inventory::{Inventory, NetworkPlugin, Role};
use crate::message::{Foreseen, InitOrder, NetworkOrder, Place, RehearseOrder, Request};
use crate::remote::wanted;
use crate::secret::Secret;

/// What a preview is made of.
pub(super) struct Sight<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) documents: &'a Documents,
    pub(super) sessions: &'a [Session],
    pub(super) plan: &'a Plan,
    /// Hosts that would be left out, and why.
    pub(super) missing: &'a [Failure],
    /// Whether nodes that are not in the inventory would be removed.
    pub(super) prune: bool,
    /// Hosts that would download first.
    pub(super) downloading: &'a BTreeSet<String>,
}

/// What `up` would be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// How many hosts may be missing.
    pub tolerance: Tolerance,
    /// Whether nodes that the inventory does not name would be removed.
    pub prune: bool,
}

/// Says what `up` would do; `bundle` is what hosts get, where they do not download themselves. Hosts that `up` would leave
/// out, for they cannot be reached or are not fit, are left out here by the same rule, and named.
///
/// # Errors
/// Every reason why `up` would not begin: more hosts that cannot be reached or are not fit than are borne; and hosts on
/// which the rehearsal itself fails.
pub async fn preview(
    inventory: &Inventory,
    bundle: Option<&Bundle>,
    wish: Wish,
    settings: &Settings,
) -> Result<Preview, Vec<Failure>> {
    let started = std::time::Instant::now();
    settings.events.send(What::RunStarted {
        verb: "plan".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let result = look(inventory, bundle, wish, settings).await;
    let failed = match &result {
        Ok(preview) => preview.missing.clone(),
        Err(failures) => failures.clone(),
    };
    let milliseconds = elapsed_milliseconds(started.elapsed());
    settings.events.send(What::RunFinished { milliseconds, changes: 0, failed });
    result
}

async fn look(
    inventory: &Inventory,
    bundle: Option<&Bundle>,
    wish: Wish,
    settings: &Settings,
) -> Result<Preview, Vec<Failure>> {
    let Wish { tolerance, prune } = wish;
    let documents = Documents::read(inventory).map_err(|failure| vec![failure])?;
    let (sessions, unreachable) = connect(inventory, settings, Access::Look).await.map_err(|failure| vec![failure])?;
    let facts = facts_of(inventory, &sessions);
    let absent = Absent::of(inventory, tolerance, &facts, unreachable);
    let Tried { findings: tried, listening } = check::of_newcomers(inventory, &documents, &facts, &sessions).await;
    check::be_quiet(&sessions, &listening).await;
    let Foresight { manifest, downloading } = match bundle {
        Some(bundle) => Foresight { manifest: bundle.manifest().clone(), downloading: BTreeSet::new() },
        None if absent.borne => foresee(inventory, &sessions).await?,
        None => return Err(absent.failures),
    };
    let muster = Muster::of(inventory, tolerance, &documents, &facts, &manifest, tried, absent)?;
    let sessions = &muster.take(sessions);
    let (plan, missing) = (&muster.plan, &muster.missing);
    Sight { inventory, documents: &documents, sessions, plan, missing, prune, downloading: &downloading }
        .preview()
        .await
}

impl Sight<'_> {
    /// All hosts at once.
    pub(super) async fn preview(&self) -> Result<Preview, Vec<Failure>> {
        let asked = match self.api().await {
            Some(Ok(api)) => api::nodes(&api).await,
            Some(Err(failure)) => Err(failure),
            None => Ok(Vec::new()),
        };
        let (nodes, untold) = told(asked, self.prune);
        let lanes = self.sessions.iter().zip(&self.plan.hosts).map(|(session, plan)| {
            let nodes = &nodes;
            async move {
                let step = session.events.step("rehearse", "look what would be done");
                let steps = self.host(session, plan, nodes).await;
                step.end(steps.map_err(|failure| failure.on(&session.host.name))).map(|steps| HostPreview {
                    name: session.host.name.clone(),
                    address: session.host.address.clone(),
                    role: role(session.host.role).to_owned(),
                    steps,
                })
            }
        });
        let (mut hosts, mut failures) = (Vec::new(), Vec::new());
        for result in futures::future::join_all(lanes).await {
            match result {
                Ok(host) => hosts.push(host),
                Err(failure) => failures.push(failure),
            }
        }
        if !failures.is_empty() {
            return Err(failures);
        }
        let mut warnings = self.plan.warnings.clone();
        warnings.extend(untold);
        let whole = self.whole(&nodes).await.map_err(|failure| vec![failure])?;
        let (cluster, missing) = (self.inventory.cluster.name.clone(), self.missing.to_vec());
        Ok(Preview { cluster, hosts, whole, missing, warnings })
    }

    /// The cluster's API, where there is a cluster.
    async fn api(&self) -> Option<Result<Api>> {
        let source = self.source()?;
        if !source.facts.kubernetes.admin_conf {
            return None;
        }
        Some(Api::open(source).await)
    }

    fn source(&self) -> Option<&Session> {
        let name = self.plan.source()?;
        self.sessions.iter().find(|session| session.host.name == name)
    }

    async fn host(&self, session: &Session, plan: &HostPlan, nodes: &[NodeStatus]) -> Result<Vec<Section>> {
        let blobs = plan.blobs.iter().map(wanted).collect();
        let lacking: Vec<String> = session.agent.ask(Request::Lacking { blobs }).await?;
        let lacking = plan.blobs.iter().filter(|blob| lacking.contains(&blob.sha256)).cloned().collect();
        let (files, images) = split(lacking);
        let mut asked =
            vec![(Section::new("files", "send files"), Request::Place { blobs: files.iter().map(wanted).collect() })];
        for step in PREPARATION {
            let (name, title) = *step;
            asked.push((Section::new(name, title), Request::Play(preparation(step, plan)?)));
        }
        if let Some(order) = &plan.balancer {
            asked.push((Section::new("balancer", "balance API servers"), Request::Balancer(order.clone())));
        }
        asked.push(self.node(session, plan)?);
        let network = network(self.inventory, self.plan, plan, nodes);
        asked.extend(
            network.order.map(|order| (Section::new("network", "set up the pod network"), Request::Network(order))),
        );
        let (sections, requests): (Vec<Section>, Vec<Request>) = asked.into_iter().unzip();
        let order = RehearseOrder { cluster: self.inventory.cluster.name.clone(), requests };
        let foreseen: Vec<Foreseen> = session.agent.ask(Request::Rehearse(order)).await?;
        let mut steps: Vec<Section> = sections
            .into_iter()
            .zip(foreseen)
            .map(|(section, foreseen)| section.with(foreseen.changes, foreseen.unknown))
            .collect();
        // As in a real run: when the runtime is there.
        let place = steps.iter().position(|section| section.step == "runtime").map_or(steps.len(), |at| at + 1);
        let images = images.iter().map(of_images).collect();
        steps.insert(place, Section::new("images", "import images").with(images, Vec::new()));
        if !network.unknown.is_empty() {
            match steps.iter_mut().find(|section| section.step == "network") {
                Some(section) => section.unknown.extend(network.unknown),
                None => steps.push(Section::new("network", "set up the pod network").with(Vec::new(), network.unknown)),
            }
        }
        if self.downloading.contains(&plan.name) {
            let version = &self.inventory.cluster.kubernetes;
            let unknown = format!(
                "the host downloads the releases of Kubernetes {version}; what is there already and the same is left as it is"
            );
            steps.insert(0, Section::new("fetch", "download releases").with(Vec::new(), vec![unknown]));
        }
        steps.retain(|section| !section.is_empty());
        Ok(steps)
    }

    /// The node engine's part.
    fn node(&self, session: &Session, plan: &HostPlan) -> Result<(Section, Request)> {
        let host = &session.host;
        if plan.way == Way::Source {
            let configuration = self.documents.for_init(self.inventory, host, &plan.node)?;
            let order = InitOrder {
                configuration,
                issue_ticket: self.plan.joins(),
                upload_certificates: self.plan.control_planes_join(),
            };
            let title = if plan.member { "bring the control plane up to date" } else { "make the control plane" };
            return Ok((Section::new("init", title), Request::Init(order)));
        }
        let order = self.documents.for_refresh(self.inventory, host, &plan.node)?;
        let section = match plan.member {
            true => Section::new("refresh", "bring the node up to date"),
            false => Section::new("join", "join the cluster"),
        };
        Ok((section, Request::Refresh(order)))
    }

    /// What is done when the hosts are: nodes, labels, the kubeconfig.
    async fn whole(&self, nodes: &[NodeStatus]) -> Result<Vec<Section>> {
        let mut sections = vec![of_nodes(self.inventory, self.plan, nodes, self.prune)];
        let path = kubeconfig::path(self.inventory).display().to_string();
        let action = match self.source().filter(|source| source.facts.kubernetes.admin_conf) {
            None => Some(Action::Create),
            Some(source) => {
                let there: BTreeSet<String> = self.plan.hosts.iter().map(|host| host.name.clone()).collect();
                let port = self.documents.bind_port();
                let server = kubeconfig::server_for_laptop(self.inventory, self.plan, &there, port);
                let kubeconfig: Secret = source.agent.ask(Request::AdminKubeconfig).await?;
                let differs = kubeconfig::differs(self.inventory, &kubeconfig, server.as_deref())?;
                differs.then_some(Action::Update)
            }
        };
        let written = action.map(|action| Change::new(Kind::File, action, path).detailed("on this machine"));
        sections
            .push(Section::new("kubeconfig", "write the kubeconfig").with(written.into_iter().collect(), Vec::new()));
        sections.retain(|section| !section.is_empty());
        Ok(sections)
    }
}

/// The nodes, as far as the cluster tells of them; where it does not, the sentence that says so.
fn told(asked: Result<Vec<NodeStatus>>, prune: bool) -> (Vec<NodeStatus>, Option<String>) {
    let failure = match asked {
        Ok(nodes) => return (nodes, None),
        Err(failure) => failure,
    };
    let unnamed = if prune { "; nodes that are not in the inventory are named when it can be" } else { "" };
    (Vec::new(), Some(format!("the cluster cannot be asked{unnamed}: {failure}")))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
    }
}

fn of_images(blob: &Blob) -> Change {
    let references = match &blob.place {
        Place::Images { references } => references.join(", "),
        Place::File { path, .. } => path.clone(),
    };
    let detail = match blob.stored_size {
        0 => references,
        size => format!("{:.1} MB: {references}", size as f64 / 1e6),
    };
    Change::new(Kind::Image, Action::Create, &blob.name).detailed(detail)
}

/// The nodes that come, change and would go.
fn of_nodes(inventory: &Inventory, plan: &Plan, nodes: &[NodeStatus], prune: bool) -> Section {
    let mut section = Section::new("nodes", "nodes of the cluster");
    for host in &inventory.hosts {
        // Those that are left out are not altered.
        let Some(planned) = plan.hosts.iter().find(|planned| planned.name == host.name) else { continue };
        if !planned.member {
            let change = Change::new(Kind::Node, Action::Create, &host.name).detailed(role(host.role));
            section.changes.push(change);
        }
        let node = nodes.iter().find(|node| node.name == host.name);
        let labels = match node {
            Some(node) => finish::lacking_labels(host, node),
            None => host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        if !labels.is_empty() {
            let change = Change::new(Kind::Node, Action::Update, &host.name);
            section.changes.push(change.detailed(format!("label {}", labels.join(" "))));
        }
    }
    for node in strangers(inventory, nodes) {
        if prune {
            let change = Change::new(Kind::Node, Action::Remove, &node.name);
            section.changes.push(change.detailed("not in the inventory").disrupting(true));
        } else {
            section.unknown.push(format!("the node {} is not in the inventory; `up --prune` removes it", node.name));
        }
    }
    section
}

/// The pod network of a host, as far as it is known.
struct Network {
    order: Option<NetworkOrder>,
    unknown: Vec<String>,
}

fn network(inventory: &Inventory, plan: &Plan, host: &HostPlan, nodes: &[NodeStatus]) -> Network {
    let none = Network { order: None, unknown: Vec::new() };
    if inventory.cluster.network.plugin == NetworkPlugin::None {
        return none;
    }
    let own = nodes.iter().find(|node| node.name == host.name).and_then(NodeStatus::pod_network);
    let Some(pod_network) = own.filter(|_| host.member) else {
        let unknown = "CNI configuration and routes are written when the cluster has given the node its pod network";
        return Network { unknown: vec![unknown.to_owned()], ..none };
    };
    let order = NetworkOrder {
        pod_network,
        cluster_network: inventory.cluster.network.pods,
        address: host.node.address,
        peers: peers(nodes, &host.name, &BTreeMap::new()),
    };
    let newcomers = plan.hosts.iter().filter(|other| !other.member && other.name != host.name);
    let unknown = newcomers.map(|other| format!("a route to the pods of {} is added when it has joined", other.name));
    Network { order: Some(order), unknown: unknown.collect() }
}

#[cfg(test)]
mod tests;
