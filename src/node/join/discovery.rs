//! Discovery: from a token and a pin to a cluster that can be trusted (kubeadm.md section 9).

use std::sync::OnceLock;
use std::time::Duration;

use crate::api::wait::{Look, Wait};
use crate::api::{Access, Client, Identity, Problem, Trust};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::{Certificate, public_key_hash};
use crate::kubernetes::configuration::{BootstrapTokenDiscovery, Discovery};
use crate::kubernetes::jws;
use crate::kubernetes::kubeconfig::{Cluster, Kubeconfig};
use crate::kubernetes::token::Token;
use crate::node::files;
use crate::secret::Secret;

/// cluster-info is a few KiB; whoever answers before we trust it gets no more of our memory than this.
const CLUSTER_INFO_BYTES: u64 = 256 << 10;

/// Time between two looks at cluster-info.
const EVERY: Duration = Duration::from_millis(150);

/// How long a token that the cluster does not know yet is waited for: the controller manager signs within seconds, and
/// after that a token is wrong, not late.
const SIGNATURE_LIMIT: Duration = Duration::from_secs(30);

/// A cluster that proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// `https://host:port` for nodes; not always where it was discovered.
    pub(super) server: String,
    /// The cluster's CA, PEM.
    pub(super) ca_pem: String,
}

/// Whether two PEM texts name the same authority: a file may hold more certificates than the one that signs.
pub(super) fn same_authority(one: &str, other: &str) -> bool {
    let read = |text: &str| Certificate::parse_pem(text).unwrap_or_default();
    let (first, second) = (read(one), read(other));
    one.trim() == other.trim() || first.iter().any(|certificate| second.contains(certificate))
}

/// Finds the cluster.
///
/// # Errors
/// Kind `Configuration` for a wrong token or pin; kind `Cluster` for one that does not answer or does not prove itself.
pub(super) async fn discover(host: &dyn Host, discovery: &Discovery, limit: Duration) -> Result<Found> {
    match (&discovery.bootstrap_token, &discovery.file) {
        (Some(by_token), _) => with_token(by_token, limit).await,
        (None, Some(by_file)) => with_file(host, &by_file.kube_config_path),
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
    if pins.is_empty() {
        return Ok(Found { server: cluster.server, ca_pem });
    }
    let second = fetch(&server, Trust::Authority(ca_pem.clone()), &token, limit).await?;
    if second.kubeconfig != first.kubeconfig {
        return Err(Failure::new(
            Kind::Cluster,
            format!("{endpoint} gave another cluster-info over a verified connection"),
        )
        .advise("see who answers at that address: somebody may stand between this host and the API server"));
    }
    Ok(Found { server: cluster.server, ca_pem })
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
    let unsigned_since = OnceLock::new();
    let wait = Wait::new(server, "give its cluster-info", limit).every(EVERY);
    let fetched = wait
        .until(async || {
            let object = match client.get("ConfigMap", Some("kube-public"), "cluster-info").await {
                Ok(Some(object)) => object,
                Ok(None) => return Ok(Look::NotYet("there is no ConfigMap kube-public/cluster-info".to_owned())),
                Err(problem @ Problem::Unreadable(_)) => {
                    return Err(problem.failure(format!("{server} is no API server of a cluster")));
                }
                Err(problem) => return Ok(Look::NotYet(problem.to_string())),
            };
            let text = |key: &str| object["data"][key].as_str().map(str::to_owned);
            let Some(kubeconfig) = text("kubeconfig") else {
                return Ok(Look::NotYet("the ConfigMap kube-public/cluster-info holds no kubeconfig".to_owned()));
            };
            match text(&format!("jws-kubeconfig-{}", token.id)) {
                Some(signature) => Ok(Look::There(ClusterInfo { kubeconfig, signature })),
                None => {
                    let since = unsigned_since.get_or_init(std::time::Instant::now);
                    let sentence = format!("the cluster at {server} does not know the bootstrap token {}", token.id);
                    if since.elapsed() < SIGNATURE_LIMIT {
                        return Ok(Look::NotYet(sentence));
                    }
                    Err(Failure::new(Kind::Cluster, sentence)
                        .caused_by("the token is invalid, has expired, or belongs to another cluster"))
                }
            }
        })
        .await;
    fetched.map_err(|failure| match (&failure.advice, unsigned_since.get()) {
        (Some(_), _) => failure,
        (None, Some(_)) => {
            failure.advise("run `clusterctl up` again for a fresh token, or make one with `kubeadm token create`")
        }
        (None, None) => failure
            .advise("see that an API server listens there and that this host reaches it: address, routes, firewalls"),
    })
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

/// A kubeconfig that a person brought is trusted as it is (kubeadm.md section 9.2).
fn with_file(host: &dyn Host, path: &str) -> Result<Found> {
    if path.starts_with("https://") || path.starts_with("http://") {
        return Err(Failure::new(Kind::Configuration, format!("a discovery file is not fetched from {path}"))
            .advise("put the file on the host and name its path"));
    }
    let unusable = |cause: Failure| {
        Failure::new(Kind::Configuration, format!("{path} cannot be used for discovery")).because(&cause)
    };
    let text = files::text(host, std::path::Path::new(path))?
        .ok_or_else(|| Failure::new(Kind::Configuration, format!("there is no discovery file {path}")))?;
    let kubeconfig = Kubeconfig::parse(&text).map_err(unusable)?;
    let cluster = kubeconfig
        .current_cluster()
        .ok_or_else(|| unusable(Failure::new(Kind::Configuration, "its current context names no cluster")))?;
    let ca_pem = match &cluster.certificate_authority {
        Some(file) if cluster.certificate_authority_data.is_none() => files::text(host, std::path::Path::new(file))?
            .ok_or_else(|| unusable(Failure::new(Kind::Configuration, format!("its CA file {file} is not there"))))?,
        _ => cluster.ca_pem().map_err(unusable)?,
    };
    Ok(Found { server: cluster.server.clone(), ca_pem })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::json;

    use super::{ClusterInfo, fetch, pins, verified};
    use crate::api::Trust;
    use crate::api::fake::FakeApi;
    use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey};
    use crate::kubernetes::jws;
    use crate::kubernetes::kubeconfig::Kubeconfig;
    use crate::kubernetes::token::Token;

    fn token(text: &str) -> Token {
        Token::parse(text).unwrap()
    }

    fn signed() -> (ClusterInfo, Token, String) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let authority = Authority::fresh("kubernetes", key, 1_800_000_000, 3600).unwrap();
        let kubeconfig =
            Kubeconfig::cluster_info("https://10.0.0.11:6443", authority.pem()).to_text().expose().to_owned();
        let token = token("abcdef.0123456789abcdef");
        let signature = jws::sign(&kubeconfig, &token);
        (ClusterInfo { kubeconfig, signature }, token, authority.certificates()[0].public_key_hash())
    }

    #[test]
    fn a_signed_and_pinned_cluster_is_trusted() {
        let (info, token, pin) = signed();
        assert_eq!(verified(&info, &token, &[pin]).unwrap().server, "https://10.0.0.11:6443");
    }

    #[test]
    fn an_altered_text_is_not() {
        let (mut info, token, pin) = signed();
        info.kubeconfig = info.kubeconfig.replace("10.0.0.11", "10.6.6.6");
        let failure = verified(&info, &token, &[pin]).unwrap_err();
        assert_eq!(failure.sentence, "its cluster-info is not signed with our bootstrap token");
    }

    #[test]
    fn another_authority_is_not() {
        let (info, token, _) = signed();
        let failure = verified(&info, &token, &[format!("sha256:{}", "0".repeat(64))]).unwrap_err();
        assert_eq!(failure.sentence, "its CA certificate has none of the hashes we were given");
    }

    #[rstest]
    #[case("sha256:", false)]
    #[case("md5:0123", false)]
    #[case("SHA256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff", true)]
    fn a_pin_has_one_form(#[case] text: &str, #[case] good: bool) {
        assert_eq!(pins(&[text.to_owned()]).is_ok(), good);
    }

    #[tokio::test]
    async fn a_token_the_cluster_does_not_know_is_named_without_its_secret() {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": "x", "jws-kubeconfig-zzzzzz": "y"}}));
        let token = token("abcdef.0123456789abcdef");
        let failure = fetch(&api.server(), Trust::Unverified, &token, Duration::from_millis(400)).await.unwrap_err();
        assert!(failure.to_string().ends_with("does not know the bootstrap token abcdef"), "{failure}");
        assert!(!failure.to_string().contains("0123456789"));
        assert!(failure.advice.unwrap().contains("fresh token"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let api = FakeApi::start().await;
        api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": "x".repeat(1 << 20)}}));
        let token = token("abcdef.0123456789abcdef");
        let failure = fetch(&api.server(), Trust::Unverified, &token, Duration::from_secs(60)).await.unwrap_err();
        assert!(failure.sentence.ends_with("is no API server of a cluster"), "{failure}");
    }
}
