//! `certs`: how long this control plane's certificates are valid, new ones in their place, and what an external
//! authority is to sign (kubeadm.md sections 2.5 and 14.4).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{defaults, files};
use crate::api::Client;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::{CATALOGUE, KeyPool, Signer, signing_request};
use crate::kubernetes::configuration::{self, ClusterConfiguration, InitConfiguration};
use crate::kubernetes::kubeconfig::{self, Kubeconfig};
use crate::kubernetes::renewal::{self, Expirations, Place, Present, Renewal};
use crate::secret::Secret;

/// Where the kubeconfigs of a control plane lie.
pub const KUBECONFIG_DIRECTORY: &str = "/etc/kubernetes";

/// Longest time for asking the cluster for its configuration: certificates must also be renewed where nothing answers
/// any more.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Where the configuration comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// A file of kubeadm documents; then nobody else is asked.
    pub file: Option<&'a Path>,
    /// The kubeconfig to ask the cluster with.
    pub kubeconfig: &'a Path,
    /// A directory of certificates in place of the configuration's.
    pub certificates_directory: Option<&'a str>,
}

/// The configuration: that of the file, else the cluster's, else kubeadm's defaults with a warning.
///
/// # Errors
/// Kind `Configuration` for a file that is not there or cannot be read.
pub async fn cluster(host: &dyn Host, source: &Source<'_>, events: &Events) -> Result<ClusterConfiguration> {
    let mut cluster = match source.file {
        Some(path) => documents(host, path, events)?.cluster.unwrap_or_default(),
        None => match stored(host, source.kubeconfig).await {
            Ok((cluster, warnings)) => {
                warnings.into_iter().for_each(|warning| events.warn(warning));
                cluster
            }
            Err(failure) => {
                events.warn(format!("the cluster does not tell its configuration, so defaults are used: {failure}"));
                ClusterConfiguration::default()
            }
        },
    };
    if let Some(directory) = source.certificates_directory {
        directory.clone_into(&mut cluster.certificates_dir);
    }
    // A stored configuration may be of any version; nothing here depends on it.
    if source.file.is_none() {
        cluster.kubernetes_version.clear();
    }
    cluster.complete(6443)?;
    Ok(cluster)
}

fn documents(host: &dyn Host, path: &Path, events: &Events) -> Result<configuration::Documents> {
    let text = files::text(host, path)?
        .ok_or_else(|| Failure::new(Kind::Configuration, format!("there is no file {}", path.display())))?;
    let documents = configuration::load(&text).map_err(|failure| {
        let advice = failure.advice.clone();
        let named = Failure::new(failure.kind, format!("{} cannot be used", path.display())).because(&failure);
        Failure { advice, detail: failure.detail, ..named }
    })?;
    documents.warnings.iter().for_each(|warning| events.warn(warning));
    Ok(documents)
}

async fn stored(host: &dyn Host, kubeconfig: &Path) -> Result<(ClusterConfiguration, Vec<String>)> {
    let text = files::text(host, kubeconfig)?
        .ok_or_else(|| Failure::new(Kind::Host, format!("there is no {}", kubeconfig.display())))?;
    let client = Client::from_kubeconfig(&Secret::new(text)).await?.hurried(ASK_LIMIT);
    let object = client.get("ConfigMap", Some("kube-system"), "kubeadm-config").await;
    let object = object.map_err(|problem| problem.failure("the ConfigMap kubeadm-config cannot be had"))?;
    let object = object.ok_or_else(|| Failure::new(Kind::Cluster, "there is no ConfigMap kubeadm-config"))?;
    ClusterConfiguration::from_stored(object["data"]["ClusterConfiguration"].as_str().unwrap_or_default())
}

/// Reads the certificates, keys and kubeconfigs that are there.
fn present(host: &dyn Host, cluster: &ClusterConfiguration, kubeconfigs: &Path) -> Result<Present> {
    let mut present = Present::default();
    let directory = Path::new(&cluster.certificates_dir);
    for path in CATALOGUE.iter().flat_map(|entry| ["crt", "key"].map(|end| format!("{}.{end}", entry.base_name))) {
        if let Some(text) = files::text(host, &directory.join(&path))? {
            present.pki.insert(path, Secret::new(text));
        }
    }
    for entry in &kubeconfig::CATALOGUE {
        if let Some(text) = files::text(host, &kubeconfigs.join(entry.file))? {
            present.kubeconfigs.insert(entry.file.to_owned(), Secret::new(text));
        }
    }
    Ok(present)
}

/// Until when this control plane's certificates are valid; its kubeconfigs lie in `kubeconfigs`.
///
/// # Errors
/// Kind `Configuration` naming a file that cannot be read as what it should be.
pub fn expirations(host: &dyn Host, cluster: &ClusterConfiguration, kubeconfigs: &Path) -> Result<Expirations> {
    renewal::expirations(cluster, &present(host, cluster, kubeconfigs)?)
}

/// What became of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// kubeadm's name.
    pub name: String,
    /// What it is, in kubeadm's words.
    pub title: &'static str,
    /// What became of it.
    pub state: State,
}

/// What became of a certificate that was to be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is none; on control planes that joined, super-admin.conf is missing by right.
    Missing,
    /// The authority of this name has no key here.
    External(String),
    /// There is a new one.
    Renewed,
}

/// Renews the certificate of that name, or with `None` all of them; keys are made on all cores. A run that broke off may
/// be repeated.
///
/// # Errors
/// Kind `Usage` for a name that this cluster has no certificate of; `Configuration` for a file that cannot be used;
/// `Host` for one that cannot be written.
pub async fn renew(
    host: &dyn Host,
    cluster: &ClusterConfiguration,
    kubeconfigs: &Path,
    name: Option<&str>,
) -> Result<Vec<Outcome>> {
    let all = renewal::renewables(cluster);
    let wanted: Vec<_> = all.iter().copied().filter(|one| name.is_none_or(|name| one.name() == name)).collect();
    if wanted.is_empty() {
        let names: Vec<_> = all.iter().map(renewal::Renewable::name).collect();
        let sentence = format!("this cluster has no certificate {:?} to renew", name.unwrap_or_default());
        return Err(Failure::new(Kind::Usage, sentence).advise(format!("choose all, or one of {}", names.join(", "))));
    }
    let present = present(host, cluster, kubeconfigs)?;
    let now_seconds = defaults::now_seconds()?;
    let (owned, settings) = (wanted.clone(), cluster.clone());
    let renewals = off_the_asynchronous_threads(move || {
        let mut keys = KeyPool::new(settings.key_algorithm().parse()?);
        keys.fill(owned.len())?;
        let renew = |one| renewal::renew(one, &settings, &present, now_seconds, &mut keys);
        owned.iter().map(renew).collect::<Result<Vec<_>>>()
    });
    let mut outcomes = Vec::new();
    for (one, renewal) in wanted.iter().zip(renewals.await?) {
        let state = match renewal {
            Renewal::Missing => State::Missing,
            Renewal::External => State::External(one.authority_name()),
            Renewal::Renewed(made) => {
                let directory = match one.place {
                    Place::Pki(_) => Path::new(&cluster.certificates_dir),
                    Place::Kubeconfig(_) => kubeconfigs,
                };
                for file in made {
                    files::ensure(host, &directory.join(&file.path), file.content.expose().as_bytes(), file.mode)?;
                }
                State::Renewed
            }
        };
        outcomes.push(Outcome { name: one.name(), title: one.title, state });
    }
    Ok(outcomes)
}

async fn off_the_asynchronous_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::new(Kind::Internal, "making certificates broke off").because(&error)))
}

/// What `generate-csr` makes requests for.
#[derive(Debug, Clone, PartialEq)]
pub struct Requested {
    /// Completed.
    pub init: InitConfiguration,
    /// Completed.
    pub cluster: ClusterConfiguration,
}

impl Requested {
    /// Reads a file of kubeadm documents, or takes kubeadm's defaults for this host.
    ///
    /// # Errors
    /// Kind `Configuration` for what the file says; `Preflight` when the host has no address to announce.
    pub fn load(
        host: &dyn Host,
        facts: &Facts,
        file: Option<&Path>,
        certificates_directory: Option<&str>,
        events: &Events,
    ) -> Result<Self> {
        let documents = file.map(|path| documents(host, path, events)).transpose()?.unwrap_or_default();
        let (mut init, mut cluster) = (documents.init.unwrap_or_default(), documents.cluster.unwrap_or_default());
        if let Some(directory) = certificates_directory {
            directory.clone_into(&mut cluster.certificates_dir);
        }
        init.complete(&defaults::without_runtime(facts))?;
        cluster.complete(init.local_api_endpoint.bind_port)?;
        init.validate()?;
        cluster.validate()?;
        Ok(Self { init, cluster })
    }
}

/// A key with what is to be signed for it.
struct Request {
    /// The file that holds the key, its path and content: a key, or a kubeconfig around it.
    holder: (PathBuf, Secret),
    /// The request, PEM.
    request: (PathBuf, String),
}

/// Makes keys and certificate signing requests for every certificate and kubeconfig of this control plane; answers with
/// the files written.
///
/// # Errors
/// Kind `Configuration`, before anything is written, naming all files that are there already; `Host` for what cannot be
/// written.
pub async fn request(host: &dyn Host, wanted: &Requested, kubeconfigs: &Path) -> Result<Vec<PathBuf>> {
    let pki = Path::new(&wanted.cluster.certificates_dir);
    let leaves = || CATALOGUE.iter().filter(|entry| entry.signer != Signer::Itself);
    let mut there = Vec::new();
    let pki_files = leaves().flat_map(|entry| ["key", "csr"].map(|end| pki.join(format!("{}.{end}", entry.base_name))));
    let kubeconfig_files = kubeconfig::CATALOGUE
        .iter()
        .flat_map(|entry| ["", ".csr"].map(|end| kubeconfigs.join(format!("{}{end}", entry.file))));
    for path in pki_files.chain(kubeconfig_files) {
        if host.entry(&path)?.is_some() {
            there.push(path.display().to_string());
        }
    }
    if !there.is_empty() {
        let sentence = format!("{} of the files to write are there already", there.len());
        return Err(Failure::new(Kind::Configuration, sentence)
            .detailed(there.join("\n"))
            .advise("choose other directories with --cert-dir and --kubeconfig-dir, or remove these files"));
    }
    let (owned, directory) = (wanted.clone(), kubeconfigs.to_owned());
    let made = off_the_asynchronous_threads(move || requests(&owned, &directory)).await?;
    let mut written = Vec::new();
    for Request { holder: (path, content), request: (request_path, request) } in made {
        files::ensure(host, &path, content.expose().as_bytes(), 0o600)?;
        files::ensure(host, &request_path, request.as_bytes(), 0o600)?;
        written.extend([path, request_path]);
    }
    Ok(written)
}

fn requests(wanted: &Requested, kubeconfigs: &Path) -> Result<Vec<Request>> {
    let Requested { init, cluster } = wanted;
    let (node_name, local) = (&init.node_registration.name, &init.local_api_endpoint);
    let pki = Path::new(&cluster.certificates_dir);
    let leaves: Vec<_> = CATALOGUE.iter().filter(|entry| entry.signer != Signer::Itself).collect();
    let mut keys = KeyPool::new(cluster.key_algorithm().parse()?);
    keys.fill(leaves.len() + kubeconfig::CATALOGUE.len())?;
    let mut made = Vec::new();
    for entry in leaves {
        let key = keys.take()?;
        // Who signs decides on the organization too, but the request should ask for the right one.
        let organization = (entry.base_name == "apiserver-kubelet-client")
            .then(|| kubelet_client_organization(cluster))
            .transpose()?
            .flatten();
        let subject = entry.subject(cluster, node_name, local, organization)?;
        let at = |end: &str| pki.join(format!("{}.{end}", entry.base_name));
        made.push(Request {
            request: (at("csr"), signing_request(&subject, &key)?),
            holder: (at("key"), key.pem().clone()),
        });
    }
    for entry in &kubeconfig::CATALOGUE {
        let key = keys.take()?;
        let server = entry.server_url(cluster, local)?;
        let subject = entry.subject(node_name);
        let holder = Kubeconfig::with_key_alone(&server, &cluster.cluster_name, &subject.common_name, key.pem());
        made.push(Request {
            request: (kubeconfigs.join(format!("{}.csr", entry.file)), signing_request(&subject, &key)?),
            holder: (kubeconfigs.join(entry.file), holder.to_text()),
        });
    }
    Ok(made)
}

fn kubelet_client_organization(cluster: &ClusterConfiguration) -> Result<Option<&'static str>> {
    let version = crate::kubernetes::version::parse(&cluster.kubernetes_version)?;
    Ok(crate::kubernetes::version::Release::of(&version)?.kubelet_client_organization(&version))
}

#[cfg(test)]
#[path = "certs_tests.rs"]
mod tests;
