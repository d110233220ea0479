//! Discovery: from a token and a pin, or a file, to a cluster that can be trusted (kubeadm.md section 9).

mod administrator;
mod file;
#[cfg(test)]
mod tls_server;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use self::administrator::administrator;
use crate::api::wait::{Look, Wait};
use crate::api::{Access, Client, Identity, Problem, Trust};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::{Certificate, OutOfTime, public_key_hash};
use crate::kubernetes::configuration::{BootstrapTokenDiscovery, Discovery, documents};
use crate::kubernetes::jws;
use crate::kubernetes::kubeconfig::{Cluster, Kubeconfig};
use crate::kubernetes::moment::from_rfc3339;
use crate::kubernetes::text;
use crate::kubernetes::token::Token;
use crate::node::defaults;
use crate::secret::Secret;

/// cluster-info is a few KiB; whoever answers before we trust it gets no more of our memory than this.
const CLUSTER_INFO_BYTES: u64 = 256 << 10;

/// Time between two looks at cluster-info.
const EVERY: Duration = Duration::from_millis(100);

/// How long a token that the cluster does not know yet is waited for: the controller manager signs within seconds, and
/// after that a token is wrong, not late.
const SIGNATURE_LIMIT: Duration = Duration::from_secs(30);

/// In a cluster that is younger, in seconds, the controller manager may not be at work yet, and has signed nothing at all.
const YOUNG_SECONDS: u64 = 600;

/// Beginning of the names of signatures in cluster-info; the id of the token follows.
const SIGNATURE: &str = "jws-kubeconfig-";

/// A cluster that proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// `https://host:port` for nodes; not always where it was discovered.
    pub(super) server: String,
    /// The cluster's CA, PEM.
    pub(super) ca_pem: String,
    /// A kubeconfig with credentials, where the discovery file had some; everything it needs is inside of it.
    pub(super) credentials: Option<Secret>,
}

/// Whether two PEM texts name the same authority: a file may hold more certificates than the one that signs.
pub(super) fn same_authority(one: &str, other: &str) -> bool {
    let read = |text: &str| Certificate::parse_pem(text).unwrap_or_default();
    let (first, second) = (read(one), read(other));
    one.trim() == other.trim() || first.iter().any(|certificate| second.contains(certificate))
}

/// A kubeconfig that leads to another server; everything else in it stays, also what we do not know.
pub(super) fn pointed_to(kubeconfig: &Secret, server: &str) -> Result<Secret> {
    let mut document = documents(kubeconfig.expose())?.into_iter().next().unwrap_or_default();
    for named in document["clusters"].as_array_mut().into_iter().flatten() {
        named["cluster"]["server"] = server.into();
    }
    Ok(Secret::new(text::yaml(&document)))
}

/// Finds the cluster.
///
/// # Errors
/// Kind `Configuration` for a wrong token, pin or file; kind `Cluster` for a cluster that does not answer or does not
/// prove itself.
pub(super) async fn discover(
    host: &dyn Host,
    discovery: &Discovery,
    limit: Duration,
    events: &Events,
) -> Result<Found> {
    match (&discovery.bootstrap_token, &discovery.file) {
        (Some(by_token), _) => with_token(by_token, limit).await,
        (None, Some(by_file)) => file::discover(host, &by_file.kube_config_path, limit, events).await,
        (None, None) => Err(Failure::new(Kind::Configuration, "the JoinConfiguration says nothing about discovery")),
    }
}

async fn with_token(settings: &BootstrapTokenDiscovery, limit: Duration) -> Result<Found> {
    let text = settings.token.as_ref().map(Secret::expose).unwrap_or_default();
    let token = Token::parse(text)?;
    let pins = pins(&settings.ca_cert_hashes)?;
    if pins.is_empty() && !settings.unsafe_skip_ca_verification {
        return Err(Failure::new(Kind::Configuration, "discovery has no caCertHashes to know the cluster by")
            .advise("give discovery.bootstrapToken.caCertHashes, as the ticket of `init` has them"));
    }
    let endpoint = &settings.api_server_endpoint;
    let server = format!("https://{endpoint}");
    let first = fetch(&server, Trust::Unverified, &token, limit).await?;
    let cluster = verified(&first, &token, &pins)
        .map_err(|failure| Failure { sentence: format!("{}: {}", endpoint, failure.sentence), ..failure })?;
    let ca_pem = ca_of(&cluster)?;
    in_time(&ca_pem, defaults::now_seconds()?)?;
    if pins.is_empty() {
        return Ok(Found { server: cluster.server, ca_pem, credentials: None });
    }
    let second = fetch(&server, Trust::Authority(ca_pem.clone()), &token, limit).await?;
    if second.kubeconfig != first.kubeconfig {
        return Err(Failure::new(
            Kind::Cluster,
            format!("{endpoint} gave another cluster-info over a verified connection"),
        )
        .advise("see who answers at that address: somebody may stand between this host and the API server"));
    }
    Ok(Found { server: cluster.server, ca_pem, credentials: None })
}

/// A cluster whose CA is out of its time cannot be joined: nobody's certificate would be accepted. Of several CAs one must
/// be in its time.
fn in_time(ca_pem: &str, now_seconds: u64) -> Result<()> {
    let unreadable =
        |failure: Failure| Failure::new(Kind::Cluster, "the cluster's CA certificate cannot be read").because(&failure);
    let authorities = Certificate::parse_pem(ca_pem).map_err(unreadable)?;
    let mut out: Vec<_> = authorities.iter().filter_map(|one| one.out_of_time(now_seconds)).collect();
    if out.len() < authorities.len() {
        return Ok(());
    }
    let why = out.swap_remove(0);
    Err(Failure::new(Kind::Cluster, format!("the cluster's CA certificate {}", why.words())).advise(match why {
        OutOfTime::Expired(_) => "set the clock of this host if it is wrong; else the cluster needs a new CA first",
        OutOfTime::NotYet(_) => CLOCK,
    }))
}

/// What to do about a certificate whose time has not come.
const CLOCK: &str = "set the clock of this host, and see that its time is kept (chrony, systemd-timesyncd)";

/// How long a server that did not answer is asked how it is.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);

/// What to do about an API server that runs and can answer nothing.
const NO_QUORUM: &str = "see that etcd has its quorum: bring back the control planes that are gone, then run the same \
                         command again";

/// What to do about a server whose certificate is not accepted.
fn advice_on(untrusted: &str) -> &'static str {
    if untrusted.contains("has expired") {
        "renew it there with `clusterctl node certs renew apiserver`, or set the clock of this host if it is wrong"
    } else if untrusted.contains("clock") {
        CLOCK
    } else {
        "see who answers at that address: it is not the cluster that is looked for, or it has new certificates"
    }
}

/// What the ConfigMap cluster-info says, as far as we read it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ClusterInfo {
    /// The signed text.
    kubeconfig: String,
    /// Its signature with our token.
    signature: String,
}

/// Gets cluster-info as nobody; waits for a server that does not answer yet and for the signature with our token.
async fn fetch(server: &str, trust: Trust, token: &Token, limit: Duration) -> Result<ClusterInfo> {
    let access = Access { server: server.to_owned(), trust, identity: Identity::Anonymous };
    let client = Client::new(&access).await?.limited(CLUSTER_INFO_BYTES);
    // Since when our token is not known; and whether nobody had signed at all at the last look.
    let (unknown_since, unsigned) = (OnceLock::new(), AtomicBool::new(false));
    let wait = Wait::new(server, "give its cluster-info", limit).every(EVERY);
    let fetched = wait
        .until(async || {
            unsigned.store(false, Ordering::Relaxed);
            let object = match client.get("ConfigMap", Some("kube-public"), "cluster-info").await {
                Ok(Some(object)) => object,
                Ok(None) => return Ok(Look::NotYet("there is no ConfigMap kube-public/cluster-info".to_owned())),
                Err(Problem::Untrusted(why)) => {
                    return Err(Failure::new(Kind::Cluster, why.clone()).advise(advice_on(&why)));
                }
                Err(problem @ Problem::Unreadable(_)) => {
                    return Err(problem.failure(format!("{server} is no API server of a cluster")));
                }
                Err(problem) => return Ok(Look::NotYet(problem.to_string())),
            };
            let text = |key: &str| object["data"][key].as_str().map(str::to_owned);
            let Some(kubeconfig) = text("kubeconfig") else {
                return Ok(Look::NotYet("the ConfigMap kube-public/cluster-info holds no kubeconfig".to_owned()));
            };
            if let Some(signature) = text(&format!("{SIGNATURE}{}", token.id)) {
                return Ok(Look::There(ClusterInfo { kubeconfig, signature }));
            }
            let is_signed =
                object["data"].as_object().is_some_and(|data| data.keys().any(|key| key.starts_with(SIGNATURE)));
            if !is_signed && is_young(&object) {
                unsigned.store(true, Ordering::Relaxed);
                return Ok(Look::NotYet(format!(
                    "the controller manager of the cluster at {server} has not signed it yet"
                )));
            }
            let sentence = format!("the cluster at {server} does not know the bootstrap token {}", token.id);
            if unknown_since.get_or_init(std::time::Instant::now).elapsed() < SIGNATURE_LIMIT {
                return Ok(Look::NotYet(sentence));
            }
            Err(Failure::new(Kind::Cluster, sentence)
                .caused_by("the token is invalid, has expired, or belongs to another cluster"))
        })
        .await;
    let failure = match fetched {
        Ok(info) => return Ok(info),
        Err(failure) if failure.advice.is_some() => return Err(failure),
        Err(failure) => failure,
    };
    if unknown_since.get().is_some() {
        let advice = "run `clusterctl up` again for a fresh token, or make one with `kubeadm token create`";
        return Err(failure.advise(advice));
    }
    if unsigned.load(Ordering::Relaxed) {
        let advice = "see that the controller manager runs on a control plane, then run the same command again";
        return Err(failure.advise(advice));
    }
    // Without etcd's quorum it answers no question, but says at once that it is not well.
    Err(match client.hurried(HEALTH_LIMIT).healthy("/readyz").await {
        Err(Problem::Refused { code: code @ 500.., .. }) => failure
            .caused_by(format!("an API server runs there and is not ready: /readyz answers {code}"))
            .advise(NO_QUORUM),
        _ => failure
            .advise("see that an API server listens there and that this host reaches it: address, routes, firewalls"),
    })
}

/// Whether an object was made a short time ago, by this host's clock, or nobody says when.
fn is_young(object: &serde_json::Value) -> bool {
    let made = object.pointer("/metadata/creationTimestamp").and_then(|moment| from_rfc3339(moment.as_str()?));
    let now = defaults::now_seconds().unwrap_or_default();
    made.is_none_or(|made| now.saturating_sub(made) < YOUNG_SECONDS)
}

/// Reads pins: `sha256:` and 64 hex digits, in lower case afterwards.
fn pins(texts: &[String]) -> Result<Vec<String>> {
    let pin = |text: &String| {
        let (format, digits) = text.split_once(':')?;
        let fits = format.eq_ignore_ascii_case("sha256")
            && digits.len() == 64
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        fits.then(|| format!("sha256:{}", digits.to_lowercase()))
    };
    let read = |text: &String| {
        pin(text).ok_or_else(|| {
            Failure::new(Kind::Configuration, format!("{text:?} is no hash of a CA certificate"))
                .advise("write sha256: and 64 hexadecimal digits")
        })
    };
    texts.iter().map(read).collect()
}

/// Judges a cluster-info from a connection nobody verified: signed with our token, and of a CA that is pinned.
fn verified(info: &ClusterInfo, token: &Token, pins: &[String]) -> Result<Cluster> {
    if !jws::verify(&info.kubeconfig, token, &info.signature) {
        return Err(Failure::new(Kind::Cluster, "its cluster-info is not signed with our bootstrap token")
            .caused_by("it was altered on the way, or the secret part of the token is another one")
            .advise("compare the token with `kubeadm token list` on a control plane"));
    }
    let kubeconfig = Kubeconfig::parse(&info.kubeconfig)
        .map_err(|failure| Failure::new(Kind::Cluster, "its cluster-info cannot be read").because(&failure))?;
    let cluster = kubeconfig.current_cluster().cloned();
    let cluster = cluster.ok_or_else(|| Failure::new(Kind::Cluster, "its cluster-info names no cluster"))?;
    let hashes = public_key_hash(&ca_of(&cluster)?)
        .map_err(|failure| Failure::new(Kind::Cluster, "its cluster-info holds no CA certificate").because(&failure))?;
    if !pins.is_empty() && !hashes.iter().any(|hash| pins.contains(hash)) {
        return Err(Failure::new(Kind::Cluster, "its CA certificate has none of the hashes we were given")
            .caused_by(format!("it has {}", hashes.join(", ")))
            .advise("see who answers at that address: it is not the cluster the ticket came from"));
    }
    Ok(cluster)
}

fn ca_of(cluster: &Cluster) -> Result<String> {
    cluster.ca_pem().map_err(|failure| Failure::new(Kind::Cluster, "its cluster-info holds no CA").because(&failure))
}

#[cfg(test)]
mod tests;
