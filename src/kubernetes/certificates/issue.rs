//! Completing a node's certificates: what is there is judged and kept, what is missing is made
//! (kubeadm.md sections 2.4 and 2.5).

use std::collections::BTreeMap;

use super::authority::Authority;
use super::catalogue::{CATALOGUE, Entry, Signer};
use super::certificate::{Certificate, OutOfTime};
use super::key::{KeyPool, PrivateKey};
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::{ApiEndpoint, ClusterConfiguration};
use crate::kubernetes::moment;
use crate::kubernetes::version::{self, Release};
use crate::secret::Secret;

/// What to do where an authority has no key.
pub const EXTERNAL: &str = "with an external certificate authority, put everything it signs there with its keys: \
                            `clusterctl node certs generate-csr` makes the keys and the requests";

/// What to do where a certificate is one of the future.
const SET_CLOCK: &str = "set the clock of this host, and run the same command again";

/// What to make certificates for.
#[derive(Debug, Clone, Copy)]
pub struct CertificateOrder<'a> {
    /// The completed configuration.
    pub cluster: &'a ClusterConfiguration,
    /// Name of the Node.
    pub node_name: &'a str,
    /// Where its API server listens.
    pub local: &'a ApiEndpoint,
    /// The time, seconds since the epoch.
    pub now_seconds: u64,
    /// Whether this node joins: what all control planes share must then be there already and is never made.
    pub joining: bool,
}

/// A file below certificatesDir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiFile {
    /// Path below certificatesDir: `etcd/ca.crt`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The text; certificates too, so that one type serves.
    pub content: Secret,
}

/// The result of [`issue`].
#[derive(Debug)]
pub struct Issued {
    /// Files to write, in order.
    pub files: Vec<PkiFile>,
    /// Base names of what was there and stays: `ca`, `apiserver`, `sa`.
    pub kept: Vec<String>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
    /// The cluster's CA, which also signs kubeconfigs.
    pub authority: Authority,
}

/// Paths below certificatesDir of everything [`issue`] wants to see if it is there.
pub fn pki_paths(cluster: &ClusterConfiguration) -> Vec<String> {
    let certificates = wanted(cluster).flat_map(|entry| ["crt", "key"].map(|end| format!("{}.{end}", entry.base_name)));
    certificates.chain(["sa.key".into(), "sa.pub".into()]).collect()
}

fn wanted(cluster: &ClusterConfiguration) -> impl Iterator<Item = &'static Entry> {
    let external = cluster.etcd.external.is_some();
    CATALOGUE.iter().filter(move |entry| !(entry.local_etcd && external))
}

/// Judges the files of `existing` (paths below certificatesDir) and makes the rest; keys come from `keys`.
///
/// # Errors
/// [`Kind::Configuration`] with everything that is wrong at once: a file that cannot be read, does not belong to its CA
/// or lacks a name; one that is expired or not valid yet; a CA without a key and something missing that it must sign;
/// if `joining`, something shared that is missing.
pub fn issue(order: &CertificateOrder<'_>, existing: &BTreeMap<String, Secret>, keys: &mut KeyPool) -> Result<Issued> {
    let missing = wanted(order.cluster).filter(|entry| !has_either(existing, entry.base_name)).count();
    keys.fill(missing + usize::from(!existing.contains_key("sa.key")))?;

    let mut work = Work { order, existing, keys, files: Vec::new(), kept: Vec::new(), warnings: Vec::new() };
    let mut authorities: BTreeMap<&str, Authority> = BTreeMap::new();
    let mut problems = Vec::new();
    for entry in wanted(order.cluster) {
        let judged = match entry.signer {
            Signer::Itself => work.authority(entry).map(|authority| {
                authorities.insert(entry.base_name, authority);
            }),
            // Without its authority nothing can be said of a certificate that was not said of the authority.
            Signer::Authority(name) => authorities.get(name).map_or(Ok(()), |authority| work.leaf(entry, authority)),
        };
        problems.extend(judged.err());
    }
    problems.extend(work.service_account_keys().err());
    all_at_once(problems, &order.cluster.certificates_dir)?;
    let Work { files, kept, warnings, .. } = work;
    let authority = authorities.remove("ca");
    let authority =
        authority.ok_or_else(|| Failure::new(Kind::Internal, "the catalogue lists no cluster authority"))?;
    Ok(Issued { files, kept, warnings, authority })
}

/// One failure of many: a person who brings certificates wants to hear once what is wrong with them. `place` names where
/// they lie.
///
/// # Errors
/// The only problem as it is; several as one of the kind of the first, with a line for each.
pub fn all_at_once(problems: Vec<Failure>, place: &str) -> Result<()> {
    // A defect of ours explains more than what came of it.
    let only = problems.len() == 1;
    if let Some(problem) = problems.iter().find(|problem| only || problem.kind == Kind::Internal) {
        return Err(problem.clone());
    }
    let Some(first) = problems.first() else { return Ok(()) };
    let same_advice = problems.iter().all(|problem| problem.advice == first.advice);
    let lines: Vec<String> = problems
        .iter()
        .flat_map(|problem| match (&problem.detail, &problem.advice) {
            // Several already.
            (Some(detail), _) => detail.lines().map(str::to_owned).collect(),
            (None, Some(advice)) if !same_advice => vec![format!("{problem}; {advice}")],
            (None, _) => vec![problem.to_string()],
        })
        .collect();
    let sentence = format!("{} things are missing or do not fit in {place}", lines.len());
    let failure = Failure::new(first.kind, sentence).detailed(lines.join("\n"));
    Err(match &first.advice {
        Some(advice) if same_advice => failure.advise(advice.clone()),
        _ => failure,
    })
}

fn has_either(existing: &BTreeMap<String, Secret>, base_name: &str) -> bool {
    ["crt", "key"].iter().any(|end| existing.contains_key(&format!("{base_name}.{end}")))
}

struct Work<'a> {
    order: &'a CertificateOrder<'a>,
    existing: &'a BTreeMap<String, Secret>,
    keys: &'a mut KeyPool,
    files: Vec<PkiFile>,
    kept: Vec<String>,
    warnings: Vec<String>,
}

impl Work<'_> {
    fn text(&self, base_name: &str, end: &str) -> Option<&Secret> {
        self.existing.get(&format!("{base_name}.{end}"))
    }

    fn path(&self, base_name: &str, end: &str) -> String {
        format!("{}/{base_name}.{end}", self.order.cluster.certificates_dir)
    }

    /// Names the file in a failure that could not know it.
    fn at(&self, base_name: &str, end: &str, failure: Failure) -> Failure {
        let mut named = Failure::new(Kind::Configuration, format!("{} cannot be used", self.path(base_name, end)))
            .caused_by(failure.sentence)
            .advise("put a fitting file there, or remove it and its partner (.crt and .key) to have both made");
        named.causes.extend(failure.causes);
        named
    }

    fn write(&mut self, base_name: &str, certificate: &str, key: &Secret) {
        let file = |end: &str, mode, content| PkiFile { path: format!("{base_name}.{end}"), mode, content };
        self.files.push(file("crt", 0o644, Secret::new(certificate)));
        self.files.push(file("key", 0o600, key.clone()));
    }

    /// A certificate out of its time is refused, as upstream does: its chain does not verify at the time it is.
    fn leaf_in_time(&self, entry: &Entry, certificate: &Certificate, authority: &Authority) -> Result<()> {
        let Some(why) = certificate.out_of_time(self.order.now_seconds) else { return Ok(()) };
        let sentence = format!("{} {}", self.path(entry.base_name, "crt"), why.words());
        Err(Failure::new(Kind::Configuration, sentence).advise(match why {
            OutOfTime::NotYet(_) => SET_CLOCK.to_owned(),
            OutOfTime::Expired(_) if authority.is_external() => {
                "have its certificate authority sign a new one, and put that there".to_owned()
            }
            OutOfTime::Expired(_) => format!("make a new one: `clusterctl node certs renew {}`", entry.name()),
        }))
    }

    /// An authority out of its time is refused, where upstream warns and then waits in vain for an API server whom nobody
    /// trusts.
    fn in_time(&self, base_name: &str, authority: &Authority) -> Result<()> {
        let Some(why) = authority.certificates()[0].out_of_time(self.order.now_seconds) else { return Ok(()) };
        let sentence = format!("the certificate authority {} {}", self.path(base_name, "crt"), why.words());
        Err(Failure::new(Kind::Configuration, sentence).advise(match why {
            OutOfTime::Expired(_) => {
                "put a certificate authority there that is valid, and have its certificates made anew"
            }
            OutOfTime::NotYet(_) => SET_CLOCK,
        }))
    }

    /// What an authority signs now may be valid for longer than itself, and is worth nothing then.
    fn warn_if_outlived(&mut self, base_name: &str, authority: &Authority) {
        let until = authority.certificates()[0].not_after;
        let wanted = self.order.now_seconds.saturating_add(self.leaf_period_seconds());
        if !authority.is_external() && i64::try_from(wanted).is_ok_and(|wanted| until < wanted) {
            let (path, until) = (self.path(base_name, "crt"), moment::rfc3339(u64::try_from(until).unwrap_or(0)));
            let wanted = moment::rfc3339(wanted);
            self.warnings.push(format!(
                "the certificate authority {path} is valid until {until}, and certificates that are made now until {wanted}: \
                 they are worth nothing once it has expired"
            ));
        }
    }

    fn leaf_period_seconds(&self) -> u64 {
        self.order.cluster.certificate_validity_period.map_or(8760 * 3600, |period| period.0.as_secs())
    }

    fn authority(&mut self, entry: &Entry) -> Result<Authority> {
        let base_name = entry.base_name;
        match (self.text(base_name, "crt"), self.text(base_name, "key")) {
            (Some(certificate), key) => {
                let authority = Authority::from_pem(certificate.expose(), key)
                    .map_err(|failure| self.at(base_name, "crt", failure))?;
                self.in_time(base_name, &authority)?;
                self.warn_if_outlived(base_name, &authority);
                self.kept.push(base_name.to_owned());
                Ok(authority)
            }
            (None, Some(_)) => {
                let missing = Failure::new(Kind::Configuration, "the certificate beside it is missing");
                Err(self.at(base_name, "key", missing))
            }
            (None, None) if self.order.joining => Err(self.not_shared(&self.path(base_name, "crt"))),
            (None, None) => {
                let period =
                    self.order.cluster.ca_certificate_validity_period.map_or(87_600 * 3600, |it| it.0.as_secs());
                let name = entry.common_name.unwrap_or(self.order.node_name);
                let authority = Authority::fresh(name, self.keys.take()?, self.order.now_seconds, period)?;
                let key = authority.key().map(|key| key.pem().clone());
                if let Some(key) = key {
                    self.write(base_name, authority.pem(), &key);
                }
                Ok(authority)
            }
        }
    }

    fn not_shared(&self, path: &str) -> Failure {
        Failure::new(Kind::Configuration, format!("{path}, which all control planes share, is not on this host"))
            .advise("give a certificate key, or copy the shared certificates and keys from another control plane")
    }

    fn leaf(&mut self, entry: &Entry, authority: &Authority) -> Result<()> {
        let organization =
            if entry.base_name == "apiserver-kubelet-client" { self.kubelet_organization()? } else { None };
        let order = self.order;
        let subject = entry.subject(order.cluster, order.node_name, order.local, organization)?;
        let base_name = entry.base_name;
        if has_either(self.existing, base_name) {
            return self.judge(entry, authority, &subject);
        }
        if authority.is_external() {
            let sentence = format!("{} is missing, and its authority has no key here", self.path(base_name, "crt"));
            return Err(Failure::new(Kind::Configuration, sentence).advise(EXTERNAL));
        }
        let key = self.keys.take()?;
        let certificate = authority.sign(&subject, &key, order.now_seconds, self.leaf_period_seconds())?;
        self.write(base_name, &certificate.pem(), key.pem());
        Ok(())
    }

    fn kubelet_organization(&self) -> Result<Option<&'static str>> {
        let version = version::parse(&self.order.cluster.kubernetes_version)?;
        Ok(Release::of(&version)?.kubelet_client_organization(&version))
    }

    fn judge(&mut self, entry: &Entry, authority: &Authority, subject: &super::Subject) -> Result<()> {
        let base_name = entry.base_name;
        let missing = |end: &str| Failure::new(Kind::Configuration, format!("its .{end} file is missing"));
        let text = self.text(base_name, "crt").ok_or_else(|| self.at(base_name, "key", missing("crt")))?;
        let chain = Certificate::parse_pem(text.expose()).map_err(|failure| self.at(base_name, "crt", failure))?;
        let refuse = |sentence: String| self.at(base_name, "crt", Failure::new(Kind::Configuration, sentence));
        // An external CA may keep even the keys of its leaves elsewhere only if nothing here uses them; all of these
        // are used by a component on this host.
        let key = self.text(base_name, "key").ok_or_else(|| self.at(base_name, "crt", missing("key")))?;
        let key = PrivateKey::from_pem(key).map_err(|failure| self.at(base_name, "key", failure))?;
        if key.public_der() != chain[0].public_key {
            return Err(refuse("the private key does not belong to the certificate".into()));
        }
        if !chain[0].leads_to(authority.certificates(), &chain[1..]) {
            let name = &authority.certificates()[0].common_name;
            return Err(refuse(format!("it is not signed by the certificate authority {name}")));
        }
        let addresses = subject.addresses.iter().map(ToString::to_string);
        for name in subject.dns_names.iter().cloned().chain(addresses) {
            if !chain[0].covers(&name) {
                return Err(refuse(format!("it is not valid for {name}")));
            }
        }
        self.leaf_in_time(entry, &chain[0], authority)?;
        self.kept.push(base_name.to_owned());
        Ok(())
    }

    /// sa.key and sa.pub: a pair without a certificate. A key that is there is kept, and sa.pub then not made anew.
    fn service_account_keys(&mut self) -> Result<()> {
        if let Some(text) = self.text("sa", "key") {
            let key = PrivateKey::from_pem(text).map_err(|failure| self.at("sa", "key", failure))?;
            match self.text("sa", "pub") {
                Some(public) if !same_public_key(public.expose(), &key) => {
                    let other = Failure::new(Kind::Configuration, "it is not the public key of sa.key");
                    return Err(self.at("sa", "pub", other));
                }
                Some(_) => {}
                // Without it the API server would not start; upstream leaves it missing.
                None => self.push_public(&key),
            }
            self.kept.push("sa".to_owned());
            return Ok(());
        }
        if self.order.joining {
            return Err(self.not_shared(&self.path("sa", "key")));
        }
        let key = self.keys.take()?;
        self.files.push(PkiFile { path: "sa.key".into(), mode: 0o600, content: key.pem().clone() });
        self.push_public(&key);
        Ok(())
    }

    fn push_public(&mut self, key: &PrivateKey) {
        self.files.push(PkiFile { path: "sa.pub".into(), mode: 0o600, content: Secret::new(key.public_pem()) });
    }
}

fn same_public_key(text: &str, key: &PrivateKey) -> bool {
    // A file with several keys (during a rotation) is fine as long as ours is among them. Forms other than PKIX are
    // left to the API server to judge.
    let mut blocks = x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok).peekable();
    blocks.peek().is_some() && blocks.any(|block| block.label != "PUBLIC KEY" || block.contents == key.public_der())
}

#[cfg(test)]
#[path = "issue_tests.rs"]
mod tests;
