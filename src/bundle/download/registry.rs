//! A registry by the OCI distribution protocol: manifests by tag or digest, blobs by digest, logging in by token.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::digest::sha256;
use super::cache::{Origin, text};
use super::credentials::Credential;
use crate::failure::{Failure, Kind, Result};
use crate::https::{Answered, Ask, Downloads, encoded, shown};
use crate::secret::Secret;

/// A manifest may be this large, in bytes (the protocol's own advice).
const MAXIMUM_MANIFEST_BYTES: usize = 4 << 20;

/// An answer to a login is small.
const MAXIMUM_TOKEN_BYTES: usize = 1 << 20;

/// A layer of an image of Kubernetes is far smaller.
const MAXIMUM_BLOB_BYTES: u64 = 4 << 30;

/// What manifests we read.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A reference, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `registry.k8s.io`.
    pub(super) registry: String,
    /// `coredns/coredns`.
    pub(super) repository: String,
    /// A tag, or `sha256:...`.
    pub(super) version: String,
}

impl Reference {
    /// # Errors
    /// Kind `Bundle` when it names no registry, or neither tag nor digest.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Failure::new(Kind::Bundle, format!("the image {text} {what}"))
                .advise("write it whole, as in registry.k8s.io/pause:3.10.2")
        };
        let (registry, rest) = text.split_once('/').ok_or_else(|| wrong("names no registry"))?;
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return Err(wrong("names no registry"));
        }
        let (repository, version) = match rest.split_once('@') {
            Some((repository, digest)) => {
                (repository.rsplit_once(':').map_or(repository, |(repository, _)| repository), digest)
            }
            None => rest.rsplit_once(':').ok_or_else(|| wrong("has no tag"))?,
        };
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one) || more.contains(one))
        };
        if !plain(repository, "/") || repository.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(wrong("has a name that no registry has"));
        }
        if !plain(version, ":") {
            return Err(wrong("has a tag that no registry has"));
        }
        if version.contains(':') && hex(version).is_err() {
            return Err(wrong("has a digest that is no sha256, the only one that is checked"));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), version: version.to_owned() })
    }
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlobOf {
    /// Its sha256, hex.
    pub(super) sha256: String,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// A manifest of one image for one architecture.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    /// The text, whose hash is the image's digest.
    pub(super) text: Vec<u8>,
    /// Its media type.
    pub(super) media_type: String,
    /// Whether an index says which architecture it is for; else only its configuration does.
    pub(super) indexed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

fn damaged(what: &str) -> Failure {
    Failure::new(Kind::Bundle, format!("the registry gives a manifest {what}"))
        .advise("check the version, and that the mirror holds the official images")
}

fn hex(digest: &str) -> Result<String> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    hex.map(str::to_owned).ok_or_else(|| damaged("with a digest that is no sha256"))
}

impl Manifest {
    /// Configuration first, then layers, each once.
    pub(super) fn blobs(&self) -> Result<Vec<BlobOf>> {
        let document = document(&self.text)?;
        let mut blobs: Vec<BlobOf> = Vec::new();
        let config = document.config.ok_or_else(|| damaged("without a configuration"))?;
        for descriptor in std::iter::once(&config).chain(&document.layers) {
            let blob = BlobOf { sha256: hex(&descriptor.digest)?, size: descriptor.size };
            if blob.size > MAXIMUM_BLOB_BYTES {
                return Err(damaged("with a layer of a size that cannot be"));
            }
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
        Ok(blobs)
    }
}

fn document(text: &[u8]) -> Result<Document> {
    serde_json::from_slice(text).map_err(|error| damaged("that cannot be read").because(&error))
}

/// The digest of the image for an architecture in an index.
fn choose(document: &Document, architecture: &str) -> Result<String> {
    let is_wanted = |descriptor: &&Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
    };
    let found = document.manifests.iter().find(is_wanted);
    found.map(|descriptor| descriptor.digest.clone()).ok_or_else(|| {
        Failure::new(Kind::Bundle, format!("the registry has no image for linux/{architecture}"))
            .advise("choose another version, or another architecture")
    })
}

/// Compares the configuration of an image that no index speaks of with what is wanted.
///
/// # Errors
/// Kind `Bundle`: it is for another architecture, or cannot be read.
pub(super) fn check_platform(configuration: &[u8], reference: &str, architecture: &str) -> Result<()> {
    let platform: Platform = serde_json::from_slice(configuration).map_err(|error| {
        Failure::new(Kind::Bundle, format!("the configuration of {reference} cannot be read")).because(&error)
    })?;
    if platform.os == "linux" && platform.architecture == architecture {
        return Ok(());
    }
    let Platform { architecture: found, os } = platform;
    Err(Failure::new(
        Kind::Bundle,
        format!("the registry has {reference} for {os}/{found} only, and linux/{architecture} is wanted"),
    )
    .advise("choose another version, or a mirror that holds the images of all architectures"))
}

/// What a registry wants before it gives anything: `Bearer realm="...",service="...",scope="..."`, or `Basic`.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

fn challenge(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"')?;
        let value = Some(value.to_owned());
        match name.trim_matches([' ', ',']) {
            "realm" => realm = value,
            "service" => service = value,
            "scope" => scope = value,
            _ => {}
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// One repository of a registry.
pub(super) struct Registry<'a> {
    downloads: &'a Downloads,
    base: String,
    repository: String,
    credential: Option<Credential>,
    /// The `Authorization` that was accepted last.
    authorization: Mutex<Option<Secret>>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        downloads: &'a Downloads,
        base: String,
        repository: &str,
        credential: Option<Credential>,
    ) -> Self {
        Self { downloads, base, repository: repository.to_owned(), credential, authorization: Mutex::default() }
    }

    /// `https://host/prefix` becomes `https://host/v2/prefix/repository`: the API begins at the root, and a mirror's path is
    /// part of the repository's name.
    fn url(&self, what: &str) -> String {
        let after_scheme = self.base.find("://").map_or(0, |at| at + 3);
        let (host, prefix) = match self.base[after_scheme..].find('/') {
            Some(slash) => self.base.split_at(after_scheme + slash),
            None => (self.base.as_str(), ""),
        };
        format!("{host}/v2{prefix}/{}/{what}", self.repository)
    }

    pub(super) fn blob_url(&self, sha256: &str) -> String {
        self.url(&format!("blobs/sha256:{sha256}"))
    }

    /// The manifest for an architecture.
    ///
    /// # Errors
    /// Kind `Bundle`: it is not there, not for that architecture, or not what its digest says.
    pub(super) async fn manifest(&self, version: &str, architecture: &str) -> Result<Manifest> {
        let found = self.manifest_of(version).await?;
        let read = document(&found.text)?;
        if read.manifests.is_empty() {
            return Ok(found);
        }
        let digest = choose(&read, architecture)?;
        hex(&digest)?;
        let chosen = self.manifest_of(&digest).await?;
        Ok(Manifest { indexed: true, ..chosen })
    }

    async fn manifest_of(&self, version: &str) -> Result<Manifest> {
        let url = self.url(&format!("manifests/{version}"));
        let text = text(&Origin::Registry(self), &url, Some(MANIFESTS), MAXIMUM_MANIFEST_BYTES).await?;
        if let Some(expected) = version.strip_prefix("sha256:")
            && sha256(&text) != expected
        {
            return Err(damaged("that is not what its digest says").caused_by(shown(&url)));
        }
        let media_type =
            document(&text)?.media_type.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".into());
        Ok(Manifest { text, media_type, indexed: false })
    }

    /// Asks, and logs in where the registry wants that.
    pub(super) async fn open(
        &self,
        url: &str,
        accept: Option<&str>,
        from: u64,
    ) -> std::result::Result<Answered, String> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ask = Ask { url, accept, authorization: known.as_ref(), from };
        let answered = self.downloads.open(&ask).await?;
        if answered.status != 401 {
            return Ok(answered);
        }
        let Some(challenge) = answered.challenge.as_deref().and_then(challenge) else { return Ok(answered) };
        let Some(authorization) = self.log_in(&challenge).await? else { return Ok(answered) };
        let again = self.downloads.open(&Ask { authorization: Some(&authorization), ..ask }).await?;
        if again.status != 401 {
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        }
        Ok(again)
    }

    /// The `Authorization` that answers a challenge; `None` where nothing can.
    async fn log_in(&self, challenge: &Challenge) -> std::result::Result<Option<Secret>, String> {
        let basic = match &self.credential {
            Some(Credential::Password { user, password }) => {
                let pair = Secret::new(format!("{user}:{}", password.expose()));
                Some(Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
            }
            _ => None,
        };
        let Challenge::Bearer { realm, service, scope } = challenge else { return Ok(basic) };
        if self.base.starts_with("https://") && !realm.starts_with("https://") {
            return Err("the registry wants a login over a line that is not encrypted".to_owned());
        }
        let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let service = service.clone().unwrap_or_default();
        let answered = if let Some(Credential::Token(token)) = &self.credential {
            let fields = [
                ("grant_type", "refresh_token"),
                ("service", &service),
                ("scope", &scope),
                ("client_id", "clusterctl"),
                ("refresh_token", token.expose()),
            ];
            self.downloads.form(realm, &fields).await?
        } else {
            let mark = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{mark}service={}&scope={}", encoded(&service), encoded(&scope));
            self.downloads.open(&Ask { url: &url, authorization: basic.as_ref(), ..Ask::default() }).await?
        };
        match answered.status {
            200 => {}
            // It says nothing of the credentials: another try may do.
            status @ (408 | 425 | 429 | 500..=599) => {
                return Err(format!("the server for logins answers with status {status}"));
            }
            _ => return Ok(None),
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<Secret>,
            access_token: Option<Secret>,
        }
        let body = answered.body(MAXIMUM_TOKEN_BYTES).await?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|_| "the answer to the login cannot be read".to_owned())?;
        Ok(token.token.or(token.access_token).map(|token| Secret::new(format!("Bearer {}", token.expose()))))
    }
}

/// The descriptor of a manifest, for an index.
pub(super) fn descriptor(manifest: &Manifest, reference: &str) -> serde_json::Value {
    let tag = reference.rsplit(':').next().unwrap_or_default();
    serde_json::json!({
        "mediaType": manifest.media_type,
        "digest": format!("sha256:{}", sha256(&manifest.text)),
        "size": manifest.text.len(),
        "annotations": {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag},
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Challenge, Reference, Registry, challenge};
    use crate::https::Downloads;

    #[rstest]
    #[case("registry.k8s.io/pause:3.10", Some(("registry.k8s.io", "pause", "3.10")))]
    #[case("registry.k8s.io/coredns/coredns:v1.14.2", Some(("registry.k8s.io", "coredns/coredns", "v1.14.2")))]
    #[case("10.0.0.5:5000/k8s/etcd:3.6.8-0", Some(("10.0.0.5:5000", "k8s/etcd", "3.6.8-0")))]
    #[case("a.b/c:1@sha256:0000000000000000000000000000000000000000000000000000000000000000", Some(("a.b", "c", "sha256:0000000000000000000000000000000000000000000000000000000000000000")))]
    #[case("a.b/c:1@sha256:00", None)]
    #[case(
        "a.b/c:1@sha512:00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        None
    )]
    #[case("pause:3.10", None)]
    #[case("library/pause:3.10", None)]
    #[case("registry.k8s.io/pause", None)]
    #[case("registry.k8s.io/../../x:1", None)]
    #[case("registry.k8s.io/a//b:1", None)]
    #[case("registry.k8s.io/a:1?x=y", None)]
    fn references_are_whole(#[case] text: &str, #[case] expected: Option<(&str, &str, &str)>) {
        let parsed = Reference::parse(text).ok();
        let parsed = parsed
            .as_ref()
            .map(|parsed| (parsed.registry.as_str(), parsed.repository.as_str(), parsed.version.as_str()));
        assert_eq!(parsed, expected);
    }

    #[test]
    fn challenges_are_read() {
        let bearer =
            challenge(r#"Bearer realm="https://auth.lan/token",service="lan", scope="repository:a/b:pull,push""#);
        let expected = Challenge::Bearer {
            realm: "https://auth.lan/token".into(),
            service: Some("lan".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(bearer, Some(expected));
        assert_eq!(challenge(r#"Basic realm="lan""#), Some(Challenge::Basic));
        assert_eq!(challenge(r#"Bearer service="lan""#), None);
        assert_eq!(challenge(r#"Bearer realm="open"#), None);
        assert_eq!(challenge("Negotiate"), None);
    }

    #[rstest]
    #[case("https://registry.k8s.io", "https://registry.k8s.io/v2/coredns/coredns/blobs/x")]
    #[case("http://10.0.0.5:5000/proxy/k8s", "http://10.0.0.5:5000/v2/proxy/k8s/coredns/coredns/blobs/x")]
    fn a_mirrors_path_is_part_of_the_name(#[case] base: &str, #[case] expected: &str) {
        let downloads = Downloads::new().unwrap();
        let registry = Registry::new(&downloads, base.to_owned(), "coredns/coredns", None);
        assert_eq!(registry.url("blobs/x"), expected);
    }
}
