//! `join`: a host becomes a node of a cluster, by kubeadm's phases under kubeadm's names (kubeadm.md section 10).
//!
//! Workers take the phases preflight, kubelet-start and kubelet-wait-bootstrap; control planes those between, too. Every
//! phase may be run again: one that broke off is finished by the next run, and a host that is a node of this cluster
//! already is left as it is.

mod by_hand;
mod checks;
mod cluster;
mod control_plane;
mod discovery;
mod download_certs;
mod ready;
mod worker;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

pub use self::by_hand::{join_by_hand, rehearse_join};
use self::control_plane::Join;
use self::discovery::{Found, same_authority};
use super::init::SOCKET_ANNOTATION;
use super::phase::{Changes, phase};
use super::phases::{self, Selection};
use super::{defaults, diagnosis, files, kubelet, patches};
use crate::api::wait::{Look, Wait};
use crate::api::{Access, Client, Identity, NodeStatus, Trust};
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::configuration::{self, JoinConfiguration};
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::message::{JoinOrder, Joined};
use crate::secret::Secret;

/// The kubeconfig a kubelet asks for its certificate with.
const BOOTSTRAP_KUBECONFIG: &str = "/etc/kubernetes/bootstrap-kubelet.conf";

/// The kubeconfig the kubelet writes when it has its certificate.
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// Makes this host a node of the cluster the order names; answers with the Node's name.
///
/// # Errors
/// Kind `Configuration` for what the documents say; `Preflight` for a host that does not fit; `Cluster` for a cluster
/// that does not answer, does not prove itself or does not take the node, with the kubelet's last lines.
pub async fn join(host: &dyn Host, facts: &Facts, order: &JoinOrder, events: &Events) -> Result<Joined> {
    let configuration = load(host, facts, order, events)?;
    if configuration.dry_run {
        return Err(Failure::new(Kind::Configuration, "JoinConfiguration asks for a dry run, and `up` does for real")
            .advise("take dryRun out; `clusterctl node join --dry-run` on the host says what would be done"));
    }
    let phases = phases::JOIN.select(None, &configuration.skip_phases)?;
    run(host, facts, configuration, &phases, Images::FromBundle, events).await
}

/// Where the images of a control plane come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Images {
    /// They are on the host already.
    FromBundle,
    /// What lacks is fetched, as imagePullPolicy says.
    Fetched,
}

/// [`join`] by a configuration that is completed and valid, in these phases.
async fn run(
    host: &dyn Host,
    facts: &Facts,
    mut configuration: JoinConfiguration,
    phases: &Selection,
    images: Images,
    events: &Events,
) -> Result<Joined> {
    // `up` has just made a token, and looks for the cluster where the inventory says.
    let by_hand = images == Images::Fetched && configuration.control_plane.is_some();
    let known = if by_hand { discovery::administrator(host, &configuration.discovery)? } else { None };
    let found = match known {
        Some(found) => {
            // The administrator needs no token, and that of an earlier try may have expired.
            configuration.discovery.tls_bootstrap_token = None;
            found
        }
        None => phase(events, "discovery", "Find the cluster", discover(host, &configuration, events)).await?.1,
    };
    let bootstrap = bootstrap_client(&configuration, &found).await?;
    let limit = configuration.timeouts.kubernetes_api_call.0;
    let (settings, member) = tokio::try_join!(
        cluster::read(&bootstrap, limit, events),
        membership(host, facts, &configuration, &bootstrap, &found)
    )?;

    let node = &configuration.node_registration;
    if phases.wants("preflight") {
        checks::check(host, &configuration, &settings, images, events).await?;
    }

    let patches = patches::read(host, configuration.patches.as_ref(), settings.release, events)?;
    if let Some(control_plane) = &configuration.control_plane {
        let (configuration, settings, found, bootstrap) = (&configuration, &settings, &found, &bootstrap);
        let patches = &patches;
        let join =
            Join { host, facts, events, configuration, settings, found, bootstrap, member, patches, phases, images };
        let changes = join.control_plane(control_plane).await?;
        return Ok(joined(bootstrap, &node.name, changes).await);
    }

    let kubelet_settings = kubelet::Settings {
        cluster: &settings.cluster,
        release: settings.release,
        node,
        hostname: &facts.hostname,
        shared: &settings.kubelet,
        joining_worker: true,
        patches: &patches,
    };
    let started = worker::start(host, &configuration, &kubelet_settings, &found, member);
    let started = match phases.wants("kubelet-start") {
        true => phase(events, "kubelet-start", "Start the kubelet", started).await?.0,
        false => 0,
    };
    if !phases.wants("kubelet-wait-bootstrap") {
        return Ok(joined(&bootstrap, &node.name, started).await);
    }

    let waited = async {
        let waited = wait_bootstrap(host, &configuration, &settings, &bootstrap).await;
        // In every case (kubeadm.md section 10.3): the token in it must not stay on the disk.
        let removed = host.remove(Path::new(BOOTSTRAP_KUBECONFIG));
        let changes = waited?;
        removed.map(|()| (changes, ()))
    };
    let (registered, ()) =
        phase(events, "kubelet-wait-bootstrap", "Wait for the kubelet's certificate and its Node", waited).await?;
    Ok(joined(&bootstrap, &node.name, started + registered).await)
}

/// The node that the host became; with its pod network, so that the laptop, which may be far, need not ask for it.
async fn joined(bootstrap: &Client, name: &str, changes: u32) -> Joined {
    let node = bootstrap.get("Node", None, name).await.ok().flatten();
    let pod_network = node.and_then(|node| NodeStatus::of(&node).pod_network());
    Joined { node: name.to_owned(), changes, pod_network }
}

pub(super) fn load(host: &dyn Host, facts: &Facts, order: &JoinOrder, events: &Events) -> Result<JoinConfiguration> {
    let documents = configuration::load(order.configuration.expose())?;
    for warning in &documents.warnings {
        events.warn(warning.clone());
    }
    let mut configuration =
        documents.join.ok_or_else(|| Failure::new(Kind::Configuration, "there is no JoinConfiguration"))?;
    configuration.complete(&defaults::of(host, facts)?)?;
    configuration.validate()?;
    Ok(configuration)
}

async fn discover(host: &dyn Host, configuration: &JoinConfiguration, events: &Events) -> Result<(Changes, Found)> {
    let limit = configuration.timeouts.discovery.0;
    Ok((Vec::new(), discovery::discover(host, &configuration.discovery, limit, events).await?))
}

/// A client with what the kubelet gets its certificate with.
async fn bootstrap_client(configuration: &JoinConfiguration, found: &Found) -> Result<Client> {
    match bootstrap_identity(configuration, found)? {
        Bootstrap::Token(token) => {
            let (trust, identity) = (Trust::Authority(found.ca_pem.clone()), Identity::Token(token.clone()));
            Client::new(&Access { server: found.server.clone(), trust, identity }).await
        }
        Bootstrap::Kubeconfig(kubeconfig) => Client::from_kubeconfig(kubeconfig).await,
    }
}

/// What a kubelet gets its certificate with (kubeadm.md section 9.3).
enum Bootstrap<'a> {
    /// A token.
    Token(&'a Secret),
    /// The credentials of the discovery file.
    Kubeconfig(&'a Secret),
}

fn bootstrap_identity<'a>(configuration: &'a JoinConfiguration, found: &'a Found) -> Result<Bootstrap<'a>> {
    let token = configuration.discovery.tls_bootstrap_token.as_ref().map(Bootstrap::Token);
    token.or(found.credentials.as_ref().map(Bootstrap::Kubeconfig)).ok_or_else(|| {
        Failure::new(Kind::Configuration, "there is nothing that the kubelet could get its certificate with")
            .advise("set discovery.tlsBootstrapToken, or put credentials into the discovery file")
    })
}

/// What this host is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// Nothing yet, or a join broke off before the kubelet had its certificate.
    None,
    /// Its kubelet has a certificate of this cluster.
    Member,
}

/// Looks whether the host is a node of this cluster already, and refuses one of another cluster or a name that is taken.
async fn membership(
    host: &dyn Host,
    facts: &Facts,
    configuration: &JoinConfiguration,
    bootstrap: &Client,
    found: &Found,
) -> Result<Membership> {
    if let Some(text) = files::text(host, Path::new(KUBECONFIG))? {
        let kubeconfig = Kubeconfig::parse(&text).unwrap_or_default();
        let there =
            kubeconfig.current_cluster().map(|cluster| (cluster.server.clone(), cluster.ca_pem().unwrap_or_default()));
        return match there {
            Some((_, ca)) if same_authority(&ca, &found.ca_pem) => match has_certificate(host, &kubeconfig)? {
                true => Ok(Membership::Member),
                // The kubelet writes the file before it has the certificate it names.
                false => Ok(Membership::None),
            },
            there => {
                let server = there.map(|(server, _)| server).unwrap_or_default();
                Err(Failure::new(
                    Kind::Preflight,
                    format!(
                        "FileAvailable--etc-kubernetes-kubelet.conf: the host is a node of another cluster ({server})"
                    ),
                )
                .advise(
                    "take the host out of that cluster first: `clusterctl down` with its inventory, or `kubeadm reset`",
                ))
            }
        };
    }
    let name = &configuration.node_registration.name;
    let node = bootstrap.get("Node", None, name).await;
    let node = node.map_err(|problem| match problem.is_unauthorized() {
        // The cluster's configuration is asked for at the same time: one of the two is refused first.
        true => cluster::token_refused(problem),
        false => problem.failure(format!("the cluster does not say whether there is a Node {name}")),
    })?;
    match node {
        // A machine that was replaced a moment ago still looks alive to the cluster; at this address nobody else can be.
        Some(node) if is_ready(&node) && !is_here(&node, facts) => Err(Failure::new(
            Kind::Preflight,
            format!("the cluster has a Node {name} that is ready: two hosts cannot have one name"),
        )
        .advise("give the host another name in the inventory, or remove the Node")),
        _ => Ok(Membership::None),
    }
}

/// Whether what a kubeconfig proves itself with is there.
fn has_certificate(host: &dyn Host, kubeconfig: &Kubeconfig) -> Result<bool> {
    let user = kubeconfig.current_user().map(|named| &named.user);
    match user.and_then(|user| user.client_certificate.as_deref()) {
        Some(path) => Ok(host.entry(Path::new(path))?.is_some()),
        None => Ok(true),
    }
}

/// Whether a Node has an address of this host.
fn is_here(node: &serde_json::Value, facts: &Facts) -> bool {
    let addresses = node.pointer("/status/addresses").and_then(|addresses| addresses.as_array());
    let mut addresses = addresses.into_iter().flatten().filter_map(|address| address["address"].as_str()?.parse().ok());
    addresses.any(|address: std::net::IpAddr| facts.addresses.iter().any(|link| link.address.addr() == address))
}

fn is_ready(node: &serde_json::Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(|conditions| conditions.as_array());
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Writes what the kubelet trusts and, unless it has its certificate, what it asks for it with.
fn trust(
    host: &dyn Host,
    configuration: &JoinConfiguration,
    cluster_name: &str,
    found: &Found,
    member: Membership,
) -> Result<Changes> {
    let mut changes = Vec::new();
    if member == Membership::None {
        let kubeconfig = match bootstrap_identity(configuration, found)? {
            Bootstrap::Token(token) => {
                Kubeconfig::bootstrap(&found.server, cluster_name, &found.ca_pem, token).to_text()
            }
            Bootstrap::Kubeconfig(kubeconfig) => kubeconfig.clone(),
        };
        if files::ensure(host, Path::new(BOOTSTRAP_KUBECONFIG), kubeconfig.expose().as_bytes(), 0o600)? {
            changes.push(format!("{BOOTSTRAP_KUBECONFIG} written"));
        }
    }
    let ca = Path::new(&configuration.ca_cert_path);
    match files::text(host, ca)? {
        Some(there) if same_authority(&there, &found.ca_pem) => {}
        Some(_) => {
            return Err(Failure::new(
                Kind::Preflight,
                format!("FileAvailable-{}: it is of another cluster", configuration.ca_cert_path.replace('/', "-")),
            )
            .advise(format!("remove {} if the cluster it belongs to is gone", ca.display())));
        }
        None => {
            files::ensure(host, ca, found.ca_pem.as_bytes(), 0o644)?;
            changes.push(format!("{} written", ca.display()));
        }
    }
    Ok(changes)
}

/// Waits for the kubelet, its certificate and its Node.
async fn wait_bootstrap(
    host: &dyn Host,
    configuration: &JoinConfiguration,
    settings: &cluster::Settings,
    bootstrap: &Client,
) -> Result<Changes> {
    let timeouts = &configuration.timeouts;
    let bootstrapped = async {
        let kubeconfig = kubeconfig(host, timeouts.tls_bootstrap.0).await?;
        registered(configuration, settings, bootstrap, &kubeconfig).await
    };
    let healthy = kubelet::wait(host, timeouts.kubelet_health_check.0);
    match tokio::try_join!(bootstrapped, healthy) {
        Ok((changes, ())) => Ok(changes),
        Err(failure) if failure.detail.is_some() => Err(failure),
        Err(failure) => Err(diagnosis::explain(host, failure, &[]).await),
    }
}

/// Waits until the kubelet has written a kubeconfig that can be used.
async fn kubeconfig(host: &dyn Host, limit: Duration) -> Result<Secret> {
    let wait = Wait::new("the kubelet", "get its certificate", limit);
    wait.until(async || {
        let Some(text) = files::text(host, Path::new(KUBECONFIG))? else {
            return Ok(Look::NotYet("the cluster has not signed its request".to_owned()));
        };
        let text = Secret::new(text);
        match Client::from_kubeconfig(&text).await {
            Ok(_) => Ok(Look::There(text)),
            Err(failure) => Ok(Look::NotYet(failure.to_string())),
        }
    })
    .await
}

/// Waits until the Node is there; where the release wants it, the socket of the runtime is noted on it.
async fn registered(
    configuration: &JoinConfiguration,
    settings: &cluster::Settings,
    bootstrap: &Client,
    kubeconfig: &Secret,
) -> Result<Changes> {
    let node = &configuration.node_registration;
    let wait = Wait::new(format!("Node {}", node.name), "appear", configuration.timeouts.tls_bootstrap.0);
    let there = wait
        .until(async || match bootstrap.get("Node", None, &node.name).await {
            Ok(Some(node)) => Ok(Look::There(node)),
            Ok(None) => Ok(Look::NotYet("the kubelet has not registered it".to_owned())),
            Err(problem) => Ok(Look::NotYet(problem.to_string())),
        })
        .await?;
    if settings.release.uses_instance_config(&settings.cluster)
        || there["metadata"]["annotations"][SOCKET_ANNOTATION] == node.cri_socket.as_str()
    {
        return Ok(Vec::new());
    }
    let own = Client::from_kubeconfig(kubeconfig).await?;
    let annotation = json!({ "metadata": { "annotations": { SOCKET_ANNOTATION: node.cri_socket } } });
    let annotated = own.merge("Node", None, &node.name, &annotation).await;
    annotated.map_err(|problem| problem.failure(format!("Node {} cannot be annotated", node.name)))?;
    Ok(vec![format!("Node {} annotated", node.name)])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{Found, Membership, join, load, membership, trust};
    use crate::api::fake::FakeApi;
    use crate::event::Events;
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::JoinConfiguration;
    use crate::kubernetes::kubeconfig::Kubeconfig;
    use crate::message::JoinOrder;
    use crate::node::init::tests::facts;
    use crate::secret::Secret;

    pub(super) fn order(more: &str) -> JoinOrder {
        let text = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken:\n    \
             token: abcdef.0123456789abcdef\n    apiServerEndpoint: 10.0.0.11:6443\n    \
             caCertHashes: ['sha256:{}']\n{more}",
            "0".repeat(64)
        );
        JoinOrder { configuration: Secret::new(text) }
    }

    fn configuration() -> JoinConfiguration {
        load(&FakeHost::new(), &facts(), &order(""), &Events::nowhere()).unwrap()
    }

    pub(super) fn found() -> Found {
        Found { server: "https://10.0.0.11:6443".into(), ca_pem: "CA\n".into(), credentials: None }
    }

    fn kubelet_conf(ca: &str) -> FakeHost {
        let text = Kubeconfig::bootstrap("https://x:6443", "c", ca, &Secret::new("t")).to_text();
        FakeHost::new().file("/etc/kubernetes/kubelet.conf", text.expose())
    }

    #[rstest]
    #[case("dryRun: true\n", "JoinConfiguration asks for a dry run")]
    #[case("skipPhases: [kubelet]\n", "invalid phase name")]
    #[tokio::test]
    async fn orders_that_cannot_be_followed(#[case] more: &str, #[case] sentence: &str) {
        let failure = join(&FakeHost::new(), &facts(), &order(more), &Events::nowhere()).await.unwrap_err();
        assert!(failure.sentence.starts_with(sentence), "{failure}");
    }

    #[tokio::test]
    async fn a_member_stays_and_a_stranger_is_refused() {
        let client = FakeApi::start().await.client().await;
        let configuration = configuration();
        let member = membership(&kubelet_conf("CA\n"), &facts(), &configuration, &client, &found()).await;
        assert_eq!(member, Ok(Membership::Member));
        let stranger =
            membership(&kubelet_conf("OTHER\n"), &facts(), &configuration, &client, &found()).await.unwrap_err();
        assert!(stranger.sentence.contains("node of another cluster (https://x:6443)"), "{stranger}");
        assert_eq!(
            membership(&FakeHost::new(), &facts(), &configuration, &client, &found()).await,
            Ok(Membership::None)
        );
    }

    #[tokio::test]
    async fn a_kubelet_that_has_no_certificate_yet_is_no_member() {
        let client = FakeApi::start().await.client().await;
        let mut kubeconfig = Kubeconfig::bootstrap("https://x:6443", "c", "CA\n", &Secret::new("t"));
        kubeconfig.users[0].user.client_certificate = Some("/var/lib/kubelet/pki/kubelet-client-current.pem".into());
        let host = FakeHost::new().file("/etc/kubernetes/kubelet.conf", kubeconfig.to_text().expose());
        let member = async |host: &FakeHost| membership(host, &facts(), &configuration(), &client, &found()).await;
        assert_eq!(member(&host).await, Ok(Membership::None));
        let host = host.file("/var/lib/kubelet/pki/kubelet-client-current.pem", "");
        assert_eq!(member(&host).await, Ok(Membership::Member));
    }

    #[rstest]
    #[case("True", "10.0.0.77", false)]
    #[case("False", "10.0.0.77", true)]
    // The host's own address: it was this machine, or the one it replaces.
    #[case("True", "10.0.0.11", true)]
    #[tokio::test]
    async fn a_name_that_is_taken_by_a_living_node_is_refused(
        #[case] ready: &str,
        #[case] address: &str,
        #[case] free: bool,
    ) {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "Node", "metadata": {"name": "cp1"}, "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": address}],
        }}));
        let member = membership(&FakeHost::new(), &facts(), &configuration(), &api.client().await, &found()).await;
        assert_eq!(member.is_ok(), free);
    }

    #[test]
    fn what_a_kubelet_trusts_is_written_once() {
        let host = FakeHost::new();
        let configuration = configuration();
        assert_eq!(trust(&host, &configuration, "kubernetes", &found(), Membership::None).unwrap().len(), 2);
        assert_eq!(trust(&host, &configuration, "kubernetes", &found(), Membership::None).unwrap().len(), 0);
        assert!(
            host.text("/etc/kubernetes/bootstrap-kubelet.conf").unwrap().contains("token: abcdef.0123456789abcdef")
        );
        let mut by_file = configuration.clone();
        by_file.discovery.tls_bootstrap_token = None;
        let host = FakeHost::new();
        assert!(trust(&host, &by_file, "c", &found(), Membership::None).is_err());
        let with_credentials = Found { credentials: Some(Secret::new("whole: file\n")), ..found() };
        trust(&host, &by_file, "c", &with_credentials, Membership::None).unwrap();
        assert_eq!(host.text("/etc/kubernetes/bootstrap-kubelet.conf").as_deref(), Some("whole: file\n"));
        let other = FakeHost::new().file("/etc/kubernetes/pki/ca.crt", "OTHER\n");
        assert_eq!(trust(&other, &configuration, "c", &found(), Membership::Member).unwrap_err().kind, Kind::Preflight);
    }
}
