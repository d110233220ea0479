//! How long certificates are valid, and new ones in their place (kubeadm.md section 14.4). Names are kubeadm's.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::certificates::{Authority, CATALOGUE, Certificate, Entry, KeyPool, PkiFile, Signer, Subject};
use super::configuration::{ClusterConfiguration, documents};
use super::kubeconfig::{self, Kubeconfig};
use super::text;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Where a certificate lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a pair of files below certificatesDir, whose common path this is.
    Pki(&'static str),
    /// In a kubeconfig, whose file name this is.
    Kubeconfig(&'static str),
}

/// A certificate that can be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewable {
    /// Where it lies.
    pub place: Place,
    /// What it is, in kubeadm's words.
    pub title: &'static str,
    /// Common path of the files of its authority, below certificatesDir.
    pub authority: &'static str,
}

/// The kubeconfigs whose certificates are renewed; kubelets renew their own.
const KUBECONFIGS: [(kubeconfig::Entry, &str); 4] = [
    (kubeconfig::ADMIN, "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself"),
    (kubeconfig::SUPER_ADMIN, "certificate embedded in the kubeconfig file for the super-admin"),
    (kubeconfig::CONTROLLER_MANAGER, "certificate embedded in the kubeconfig file for the controller manager to use"),
    (kubeconfig::SCHEDULER, "certificate embedded in the kubeconfig file for the scheduler manager to use"),
];

impl Renewable {
    /// kubeadm's name: `etcd-server`, `admin.conf`.
    pub fn name(&self) -> String {
        match self.place {
            Place::Pki(base_name) => base_name.replace('/', "-"),
            Place::Kubeconfig(file) => file.to_owned(),
        }
    }

    /// kubeadm's name of its authority: `etcd-ca`.
    pub fn authority_name(&self) -> String {
        self.authority.replace('/', "-")
    }
}

/// Everything that can be renewed in a cluster, sorted by name as kubeadm does.
pub fn renewables(cluster: &ClusterConfiguration) -> Vec<Renewable> {
    let pki = wanted(cluster).filter_map(|entry| match entry.signer {
        Signer::Itself => None,
        Signer::Authority(authority) => {
            Some(Renewable { place: Place::Pki(entry.base_name), title: entry.title, authority })
        }
    });
    let kubeconfigs = KUBECONFIGS.iter().map(|(entry, title)| Renewable {
        place: Place::Kubeconfig(entry.file),
        title,
        authority: "ca",
    });
    let mut all: Vec<_> = pki.chain(kubeconfigs).collect();
    all.sort_by_key(Renewable::name);
    all
}

/// The authorities of a cluster, sorted by name.
fn authorities(cluster: &ClusterConfiguration) -> Vec<&'static Entry> {
    let mut all: Vec<_> = wanted(cluster).filter(|entry| entry.signer == Signer::Itself).collect();
    all.sort_by_key(|entry| entry.name());
    all
}

fn wanted(cluster: &ClusterConfiguration) -> impl Iterator<Item = &'static Entry> {
    let external = cluster.etcd.external.is_some();
    CATALOGUE.iter().filter(move |entry| !(entry.local_etcd && external))
}

/// Texts of the files that are there.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// By path below certificatesDir: `etcd/ca.crt`.
    pub pki: BTreeMap<String, Secret>,
    /// By file name: `admin.conf`.
    pub kubeconfigs: BTreeMap<String, Secret>,
}

impl Present {
    fn pki(&self, base_name: &str, end: &str) -> Option<&Secret> {
        self.pki.get(&format!("{base_name}.{end}"))
    }

    /// Whether the certificate of an authority is there without its key.
    fn is_external(&self, authority: &str) -> bool {
        self.pki(authority, "crt").is_some() && self.pki(authority, "key").is_none()
    }

    /// The certificate at a place, with the name of its file in failures.
    fn certificate(&self, place: Place) -> Result<Option<Certificate>> {
        let (name, read) = match place {
            Place::Pki(base_name) => {
                let Some(text) = self.pki(base_name, "crt") else { return Ok(None) };
                (format!("{base_name}.crt"), Certificate::parse_pem(text.expose()).map(|mut all| all.swap_remove(0)))
            }
            Place::Kubeconfig(file) => {
                let Some(text) = self.kubeconfigs.get(file) else { return Ok(None) };
                let read = Kubeconfig::parse(text.expose()).and_then(|kubeconfig| kubeconfig.client_certificates());
                (file.to_owned(), read.map(|mut all| all.swap_remove(0)))
            }
        };
        read.map(Some).map_err(|failure| unusable(&name, &failure))
    }
}

fn unusable(name: &str, cause: &Failure) -> Failure {
    Failure::new(Kind::Configuration, format!("{name} cannot be used")).because(cause)
}

/// Until when a certificate is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// kubeadm's name.
    pub name: String,
    /// Seconds since the epoch; `None` when the certificate is missing.
    pub until_seconds: Option<i64>,
    /// kubeadm's name of the authority that signed it; `None` for an authority.
    pub authority: Option<String>,
    /// Whether its authority, or it as one, has no key here.
    pub externally_managed: bool,
}

/// Until when the certificates of a control plane are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expirations {
    /// Those that can be renewed.
    pub certificates: Vec<Expiration>,
    /// The authorities.
    pub authorities: Vec<Expiration>,
}

/// Until when each certificate is valid.
///
/// # Errors
/// [`Kind::Configuration`] naming a file that cannot be read.
pub fn expirations(cluster: &ClusterConfiguration, present: &Present) -> Result<Expirations> {
    let mut found = Expirations { certificates: Vec::new(), authorities: Vec::new() };
    for renewable in renewables(cluster) {
        let until_seconds = present.certificate(renewable.place)?.map(|certificate| certificate.not_after);
        found.certificates.push(Expiration {
            name: renewable.name(),
            until_seconds,
            authority: until_seconds.map(|_| renewable.authority_name()),
            externally_managed: until_seconds.is_some() && present.is_external(renewable.authority),
        });
    }
    for entry in authorities(cluster) {
        let certificate = present.certificate(Place::Pki(entry.base_name))?;
        found.authorities.push(Expiration {
            name: entry.name(),
            until_seconds: certificate.map(|certificate| certificate.not_after),
            authority: None,
            externally_managed: present.is_external(entry.base_name),
        });
    }
    Ok(found)
}

/// What came of renewing one certificate.
#[derive(Debug)]
pub enum Renewal {
    /// There was none, and so there is none now.
    Missing,
    /// Its authority has no key here.
    External,
    /// Files to write, in this order: a key, then its certificate; or a kubeconfig. Paths are as those of [`Present`].
    Renewed(Vec<PkiFile>),
}

/// A new certificate, with a new key, for what the present one says of its holder.
///
/// # Errors
/// [`Kind::Configuration`] naming a file that cannot be read, a certificate without usages, or an authority that is
/// missing or does not fit its key; [`Kind::Internal`] if the cryptography library fails.
pub fn renew(
    renewable: &Renewable,
    cluster: &ClusterConfiguration,
    present: &Present,
    now_seconds: u64,
    keys: &mut KeyPool,
) -> Result<Renewal> {
    let Some(before) = present.certificate(renewable.place)? else { return Ok(Renewal::Missing) };
    let crt = format!("{}.crt", renewable.authority);
    let text = present.pki(renewable.authority, "crt").ok_or_else(|| {
        let sentence = format!("{} cannot be renewed: {crt} is missing", renewable.name());
        Failure::new(Kind::Configuration, sentence).advise("put the certificate authority back, with its key")
    })?;
    let authority = Authority::from_pem(text.expose(), present.pki(renewable.authority, "key"))
        .map_err(|failure| unusable(&crt, &failure))?;
    if authority.is_external() {
        return Ok(Renewal::External);
    }
    if let Some(why) = authority.certificates()[0].out_of_time(now_seconds) {
        return Err(Failure::new(Kind::Configuration, format!("the certificate authority {crt} {}", why.words())));
    }
    if before.usages.is_empty() {
        let sentence = format!("the certificate {} has no extended key usage that is known", renewable.name());
        return Err(Failure::new(Kind::Configuration, sentence));
    }
    let subject = Subject {
        common_name: before.common_name,
        organizations: before.organizations,
        usages: before.usages,
        dns_names: before.dns_names,
        addresses: before.addresses,
    };
    let key = keys.take()?;
    let period = cluster.certificate_validity_period.map_or(8760 * 3600, |period| period.0.as_secs());
    let certificate = authority.sign(&subject, &key, now_seconds, period)?;
    let file = |path: String, mode, content| PkiFile { path, mode, content };
    Ok(Renewal::Renewed(match renewable.place {
        Place::Pki(base_name) => vec![
            file(format!("{base_name}.key"), 0o600, key.pem().clone()),
            file(format!("{base_name}.crt"), 0o644, Secret::new(certificate.pem())),
        ],
        Place::Kubeconfig(name) => {
            let before = present.kubeconfigs.get(name).map(Secret::expose).unwrap_or_default();
            let content = with_certificate(before, &authority.first_pem(), &certificate.pem(), key.pem())
                .map_err(|failure| unusable(name, &failure))?;
            vec![file(name.to_owned(), 0o600, content)]
        }
    }))
}

/// A kubeconfig with another CA, certificate and key in its current context; everything else in it stays, also what we do
/// not know.
fn with_certificate(text: &str, ca_pem: &str, certificate_pem: &str, key_pem: &Secret) -> Result<Secret> {
    let mut document = documents(text)?.into_iter().next().unwrap_or_default();
    let current = document["current-context"].as_str().unwrap_or_default().to_owned();
    let context = named(&mut document, "contexts", &current)?["context"].take();
    let name = |key: &str| context[key].as_str().unwrap_or_default().to_owned();
    let cluster = &mut named(&mut document, "clusters", &name("cluster"))?["cluster"];
    cluster["certificate-authority-data"] = json!(STANDARD.encode(ca_pem));
    if let Value::Object(fields) = cluster {
        fields.remove("certificate-authority");
    }
    let user = &mut named(&mut document, "users", &name("user"))?["user"];
    user["client-certificate-data"] = json!(STANDARD.encode(certificate_pem));
    user["client-key-data"] = json!(STANDARD.encode(key_pem.expose()));
    named(&mut document, "contexts", &current)?["context"] = context;
    Ok(Secret::new(text::yaml(&document)))
}

/// The item of that name in a list of a kubeconfig, with its value a mapping.
fn named<'a>(document: &'a mut Value, list: &str, name: &str) -> Result<&'a mut Value> {
    let item = document
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .and_then(|items| items.iter_mut().find(|item| item["name"].as_str().unwrap_or_default() == name));
    let value = list.trim_end_matches('s');
    item.filter(|item| item[value].is_object() || item[value].is_null())
        .ok_or_else(|| Failure::new(Kind::Configuration, format!("it has no {value} {name:?}")))
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
