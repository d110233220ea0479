//! Discovery by a kubeconfig that a person brings, as a file or from an https URL (kubeadm.md section 9.2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{CLUSTER_INFO_BYTES, EVERY, Found, advice_on, in_time};
use crate::api::wait::{Look, Wait};
use crate::api::{Access, Client, Identity, Problem, Trust};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::https::Https;
use crate::kubernetes::configuration::documents;
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::kubernetes::text;
use crate::node::{defaults, files};
use crate::secret::Secret;

/// Longest time for fetching a discovery file.
const FETCH_LIMIT: Duration = Duration::from_secs(30);

/// Finds the cluster a kubeconfig leads to. Who brought it is trusted; the cluster is only asked whether it is there and,
/// for a file without a CA, for its CA.
///
/// # Errors
/// Kind `Configuration` for what the file says, `Cluster` for a cluster that does not answer or is another one.
pub(super) async fn discover(host: &dyn Host, place: &str, limit: Duration, events: &Events) -> Result<Found> {
    let unusable = |cause: Failure| {
        let named = Failure::new(Kind::Configuration, format!("{place} cannot be used for discovery")).because(&cause);
        Failure { advice: cause.advice, ..named }
    };
    let (text, folder) = if place.starts_with("https://") {
        (fetch(place).await?, None)
    } else {
        let path = Path::new(place);
        let text = files::text(host, path).map_err(unusable)?;
        let none = || Failure::new(Kind::Configuration, format!("there is no discovery file {place}"));
        (text.ok_or_else(none)?, path.parent().map(Path::to_owned))
    };
    let file = DiscoveryFile::read(host, &text, folder).map_err(unusable)?;
    if let Some(ca_pem) = &file.ca_pem {
        in_time(ca_pem, defaults::now_seconds()?)?;
    }
    let stored = cluster_info(&file, limit, events).await?;
    if let Some(server) = stored.as_ref().map(|(server, _)| server).filter(|server| **server != file.server) {
        let server_here = &file.server;
        events.warn(format!("the discovery file leads to {server_here}, and the cluster calls itself {server}"));
    }
    let ca_pem = file.ca_pem.clone().or_else(|| stored.and_then(|(_, ca_pem)| ca_pem)).ok_or_else(|| {
        unusable(
            Failure::new(Kind::Configuration, "it holds no CA, and the cluster tells none")
                .advise("add certificate-authority-data to its cluster"),
        )
    })?;
    in_time(&ca_pem, defaults::now_seconds()?)?;
    let credentials = file.credentials(&ca_pem);
    Ok(Found { server: file.server, ca_pem, credentials })
}

async fn fetch(url: &str) -> Result<String> {
    let failed = |cause: String| {
        Failure::new(Kind::Configuration, format!("the discovery file cannot be fetched from {url}")).caused_by(cause)
    };
    let limit_bytes = usize::try_from(CLUSTER_INFO_BYTES).unwrap_or(usize::MAX);
    let answer = Https::public(FETCH_LIMIT, limit_bytes)?.get(url).await.map_err(|cause| {
        failed(cause).may_pass().advise(
            "see that this host reaches that server and trusts its certificate: what is trusted lies in \
             /etc/ssl/certs, a proxy in HTTPS_PROXY and NO_PROXY",
        )
    })?;
    if answer.status != 200 {
        return Err(failed(format!("the server answered {}", answer.status)));
    }
    String::from_utf8(answer.body).map_err(|_| failed("it is not text".to_owned()))
}

/// What the ConfigMap cluster-info says: server and CA. `None` where it may not be read: then whoever brought the file is
/// trusted alone.
async fn cluster_info(
    file: &DiscoveryFile,
    limit: Duration,
    events: &Events,
) -> Result<Option<(String, Option<String>)>> {
    let server = &file.server;
    let trust = file.ca_pem.clone().map_or(Trust::System, Trust::Authority);
    let client = match file.credentials(file.ca_pem.as_deref().unwrap_or_default()) {
        Some(kubeconfig) => Client::from_kubeconfig(&kubeconfig).await?,
        None => Client::new(&Access { server: server.clone(), trust, identity: Identity::Anonymous }).await?,
    };
    let client = client.limited(CLUSTER_INFO_BYTES);
    let wait = Wait::new(server, "give its cluster-info", limit).every(EVERY);
    let answer = wait.until(async || match client.get("ConfigMap", Some("kube-public"), "cluster-info").await {
        Ok(object) => Ok(Look::There(object)),
        Err(problem) if problem.is_forbidden() || problem.is_unauthorized() && !file.has_credentials() => {
            events.warn(format!("{server} does not show its cluster-info to us; the discovery file is trusted alone"));
            Ok(Look::There(None))
        }
        Err(problem) if problem.is_unauthorized() => {
            Err(problem.failure(format!("{server} does not accept the credentials of the discovery file")))
        }
        Err(Problem::Untrusted(why)) => Err(Failure::new(Kind::Cluster, why.clone()).advise(advice_on(&why))),
        Err(problem @ Problem::Unreadable(_)) => {
            Err(problem.failure(format!("{server} is no API server of a cluster")))
        }
        Err(problem) => Ok(Look::NotYet(problem.to_string())),
    });
    let answer = answer.await.map_err(|failure| match failure.advice {
        Some(_) => failure,
        None => failure
            .advise("see that an API server listens there and that this host reaches it: address, routes, firewalls"),
    })?;
    // One that says nothing useful is passed over, as upstream does.
    let text = answer.as_ref().and_then(|object| object["data"]["kubeconfig"].as_str());
    let cluster = text.and_then(|text| Kubeconfig::parse(text).ok()).and_then(|told| told.current_cluster().cloned());
    Ok(cluster.map(|cluster| (cluster.server.clone(), cluster.ca_pem().ok())))
}

/// A kubeconfig with every file it names inside of it.
#[derive(Debug, Clone)]
struct DiscoveryFile {
    document: Secret,
    server: String,
    ca_pem: Option<String>,
    user: Option<String>,
    cluster: String,
}

impl DiscoveryFile {
    /// Reads a kubeconfig; files it names are looked for from `folder` on, and refused where there is none.
    fn read(host: &dyn Host, text: &str, folder: Option<PathBuf>) -> Result<Self> {
        let wrong = |sentence: &str| Failure::new(Kind::Configuration, sentence);
        let kubeconfig = Kubeconfig::parse(text)?;
        let cluster = kubeconfig.current_cluster().ok_or_else(|| wrong("its current context names no cluster"))?;
        if !cluster.server.starts_with("https://") {
            return Err(wrong("the server of its cluster is no https URL"));
        }
        let mut document = documents(text)?.into_iter().next().unwrap_or_default();
        let named = |list: &str, entry: &str, name: &str| -> Option<usize> {
            let items = document[list].as_array()?;
            items.iter().position(|item| item["name"].as_str().unwrap_or_default() == name && item[entry].is_object())
        };
        let cluster_name = kubeconfig.clusters.iter().find(|named| named.cluster == *cluster);
        let cluster_name = cluster_name.map(|named| named.name.clone()).unwrap_or_default();
        let user_name = kubeconfig.current_user().map(|user| user.name.clone());
        let place = named("clusters", "cluster", &cluster_name).ok_or_else(|| wrong("it names no cluster"))?;
        let user_place = user_name.as_deref().and_then(|name| named("users", "user", name));
        let embed = Embed { host, folder };
        let cluster_fields = document["clusters"][place]["cluster"].as_object_mut();
        let cluster_fields = cluster_fields.ok_or_else(|| wrong("it names no cluster"))?;
        if cluster_fields.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)) {
            return Err(wrong("it asks not to verify the cluster, so anybody could pose as it")
                .advise("take insecure-skip-tls-verify out and add certificate-authority-data"));
        }
        embed.base64(cluster_fields, "certificate-authority")?;
        let user = user_place.and_then(|place| document["users"][place]["user"].as_object_mut());
        let has_credentials = user.as_ref().is_some_and(|user| has_credentials(user));
        if let Some(user) = user {
            embed.base64(user, "client-certificate")?;
            embed.base64(user, "client-key")?;
            embed.token(user)?;
        }
        let document = Secret::new(text::yaml(&document));
        let embedded = Kubeconfig::parse(document.expose())?;
        let cluster = embedded.clusters.get(place).map(|named| named.cluster.clone()).unwrap_or_default();
        let ca_pem = cluster.certificate_authority_data.as_ref().map(|_| cluster.ca_pem()).transpose()?;
        let user = user_name.filter(|_| has_credentials);
        Ok(Self { document, server: cluster.server, ca_pem, user, cluster: cluster_name })
    }

    fn has_credentials(&self) -> bool {
        self.user.is_some()
    }

    /// The kubeconfig, if it has credentials, with this CA where it has none.
    fn credentials(&self, ca_pem: &str) -> Option<Secret> {
        self.user.as_ref()?;
        if self.ca_pem.is_some() || ca_pem.is_empty() {
            return Some(self.document.clone());
        }
        let mut document = documents(self.document.expose()).ok()?.into_iter().next()?;
        let clusters = document["clusters"].as_array_mut()?;
        let cluster = clusters.iter_mut().find(|item| item["name"].as_str().unwrap_or_default() == self.cluster)?;
        cluster["cluster"]["certificate-authority-data"] = json!(STANDARD.encode(ca_pem));
        Some(Secret::new(text::yaml(&document)))
    }
}

/// Whether a user of a kubeconfig can prove who they are in one of the ways a kubelet knows.
fn has_credentials(user: &Map<String, Value>) -> bool {
    let given = |name: &str| user.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let within = |name: &str, field: &str| user.get(name).and_then(|value| value[field].as_str()).is_some();
    given("token")
        || given("tokenFile")
        || given("username") && given("password")
        || (given("client-certificate") || given("client-certificate-data"))
            && (given("client-key") || given("client-key-data"))
        || within("exec", "command")
        || within("auth-provider", "name")
}

/// Puts files that a kubeconfig names into it: the kubelet reads it from another place.
struct Embed<'a> {
    host: &'a dyn Host,
    folder: Option<PathBuf>,
}

impl Embed<'_> {
    fn text(&self, path: &str) -> Result<String> {
        let Some(folder) = &self.folder else {
            let sentence = format!("it names the file {path}, which a file from elsewhere must not");
            return Err(Failure::new(Kind::Configuration, sentence).advise("put the content into it instead"));
        };
        let path = folder.join(path);
        let text = files::text(self.host, &path)?;
        text.ok_or_else(|| Failure::new(Kind::Configuration, format!("there is no {}, which it names", path.display())))
    }

    /// `name` gives way to `name-data`.
    fn base64(&self, fields: &mut Map<String, Value>, name: &str) -> Result<()> {
        let data = format!("{name}-data");
        let there = fields.get(&data).and_then(Value::as_str).is_some_and(|data| !data.is_empty());
        if let Some(path) = fields.remove(name).as_ref().and_then(Value::as_str).filter(|path| !path.is_empty())
            && !there
        {
            fields.insert(data, json!(STANDARD.encode(self.text(path)?)));
        }
        Ok(())
    }

    /// `tokenFile` gives way to `token`.
    fn token(&self, fields: &mut Map<String, Value>) -> Result<()> {
        let there = fields.get("token").and_then(Value::as_str).is_some_and(|token| !token.is_empty());
        if let Some(path) = fields.remove("tokenFile").as_ref().and_then(Value::as_str).filter(|path| !path.is_empty())
            && !there
        {
            fields.insert("token".to_owned(), json!(self.text(path)?.trim()));
        }
        Ok(())
    }
}
