//! One API server's client.

use std::net::SocketAddr;
use std::time::Duration;

use futures::AsyncReadExt as _;
use rustls::CertificateError;
use serde_json::{Value, json};

use super::access::{self, Access};
use super::problem::Problem;
use super::rehearsal::Rehearsal;
use super::resource::Resource;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::moment;
use crate::secret::Secret;

/// Longest time for one request (kubeadm.md section 6.2).
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// No answer may be longer, in bytes. A list of a few thousand pods is some tens of MB; more is not for us.
const MAXIMUM_ANSWER_BYTES: u64 = 64 << 20;

/// A client of one API server under one identity. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Inner,
    server: String,
    request_limit: Duration,
    answer_limit: u64,
    dry: bool,
}

/// Where requests go.
#[derive(Clone)]
enum Inner {
    /// To a server.
    Real(kube::Client),
    /// Nowhere: a dry run.
    Rehearsed(Rehearsal),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// A client by server, trust and identity.
    ///
    /// # Errors
    /// Kind `Cluster` when the certificates or the key cannot be used.
    pub async fn new(access: &Access) -> Result<Self> {
        Self::of(access.configuration().await?, &access.server)
    }

    /// A client for the current context of a kubeconfig (YAML text).
    ///
    /// # Errors
    /// Kind `Cluster` when the kubeconfig cannot be used.
    pub async fn from_kubeconfig(kubeconfig: &Secret) -> Result<Self> {
        let config = access::configuration(kubeconfig.expose(), None).await?;
        let server = config.cluster_url.to_string();
        Self::of(config, server.trim_end_matches('/'))
    }

    /// A client for the current context of a kubeconfig whose connections go to `address`, the near end of a tunnel; the
    /// server must still prove the name the kubeconfig gives it.
    ///
    /// # Errors
    /// Kind `Cluster` when the kubeconfig cannot be used.
    pub async fn through(kubeconfig: &Secret, address: SocketAddr) -> Result<Self> {
        let config = access::configuration(kubeconfig.expose(), Some(address)).await?;
        Self::of(config, &format!("the tunnel at {address}"))
    }

    fn of(config: kube::Config, server: &str) -> Result<Self> {
        let inner = kube::Client::try_from(config).map_err(|error| {
            Failure::new(Kind::Cluster, format!("there can be no client for {server}")).because(&error)
        })?;
        Ok(Self::around(inner, server))
    }

    /// A client of a server that is only played.
    pub fn rehearsed(rehearsal: &Rehearsal) -> Self {
        Self {
            inner: Inner::Rehearsed(rehearsal.clone()),
            server: "the rehearsed API server".to_owned(),
            request_limit: REQUEST_LIMIT,
            answer_limit: MAXIMUM_ANSWER_BYTES,
            dry: false,
        }
    }

    /// A client around one of kube's, for tests.
    pub(super) fn around(inner: kube::Client, server: &str) -> Self {
        let inner = Inner::Real(inner);
        let (request_limit, answer_limit) = (REQUEST_LIMIT, MAXIMUM_ANSWER_BYTES);
        Self { inner, server: server.to_owned(), request_limit, answer_limit, dry: false }
    }

    /// The same client with another limit for the size of an answer, in bytes.
    pub fn limited(mut self, answer_limit: u64) -> Self {
        self.answer_limit = answer_limit;
        self
    }

    /// The same client with another time limit for one request.
    pub fn hurried(mut self, request_limit: Duration) -> Self {
        self.request_limit = request_limit;
        self
    }

    /// The same client for a dry run: the server judges and answers what would be, and stores nothing.
    pub fn dry(mut self) -> Self {
        self.dry = true;
        self
    }

    /// `https://host:port` of the server, or the tunnel's address, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends one request; `path` begins with a slash. The body is JSON, `content_type` says of what sort.
    pub(super) async fn text(
        &self,
        method: http::Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<String, Problem> {
        let inner = match &self.inner {
            Inner::Real(inner) => inner,
            Inner::Rehearsed(rehearsal) => {
                let body = body.map(|(_, value)| value);
                rehearsal.look(&method, path, body).await?;
                let answer = rehearsal.answer(method.as_str(), path, body)?;
                return Ok(answer.to_string());
            }
        };
        let alters = method != http::Method::GET;
        let dry = if self.dry && alters { dry_run(path) } else { path.to_owned() };
        let mut request = http::Request::builder().method(method).uri(dry).header("accept", "application/json");
        let content = match body {
            Some((content_type, value)) => {
                request = request.header("content-type", content_type);
                value.to_string().into_bytes()
            }
            None => Vec::new(),
        };
        let request = request.body(content).map_err(|error| Problem::Unreadable(error.to_string()))?;
        let answer = async {
            let stream = inner.request_stream(request).await.map_err(|error| self.problem(error))?;
            let mut bytes = Vec::new();
            let mut stream = std::pin::pin!(stream.take(self.answer_limit + 1));
            stream.read_to_end(&mut bytes).await.map_err(|error| Problem::Unreachable(error.to_string()))?;
            if bytes.len() as u64 > self.answer_limit {
                return Err(Problem::Unreadable(format!("the answer is longer than {} bytes", self.answer_limit)));
            }
            String::from_utf8(bytes).map_err(|_| Problem::Unreadable("the answer is not text".to_owned()))
        };
        tokio::time::timeout(self.request_limit, answer).await.unwrap_or_else(|_| {
            Err(Problem::Unreachable(format!("{} did not answer within {:?}", self.server, self.request_limit)))
        })
    }

    async fn json(&self, method: http::Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, Problem> {
        let text = self.text(method, path, body).await?;
        serde_json::from_str(&text).map_err(|error| Problem::Unreadable(format!("the answer is not JSON: {error}")))
    }

    fn problem(&self, error: kube::Error) -> Problem {
        match error {
            kube::Error::Api(status) => {
                Problem::Refused { code: status.code, reason: status.reason.clone(), message: telling(&status.message) }
            }
            other => {
                if let Some(refused) = certificate_error(&other) {
                    return Problem::Untrusted(certificate_words(&self.server, refused));
                }
                // The innermost source says it best: "Connection refused", "certificate has expired".
                let mut innermost: &dyn std::error::Error = &other;
                while let Some(source) = innermost.source() {
                    innermost = source;
                }
                Problem::Unreachable(format!("{}: {innermost}", self.server))
            }
        }
    }

    /// Whether the server answers 200 on a health path (`/readyz`, `/livez`); else why not.
    pub async fn healthy(&self, path: &str) -> Result<(), Problem> {
        self.text(http::Method::GET, path, None).await.map(drop)
    }

    /// An object, or `None` where there is none of that name.
    pub async fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Option<Value>, Problem> {
        let path = Resource::named(kind, namespace, name)?.item();
        match self.json(http::Method::GET, &path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(problem) if problem.is_not_found() => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// All objects of a kind, in a namespace or (with `None`) everywhere; `labels` is a label selector, empty for all.
    pub async fn list(&self, kind: &str, namespace: Option<&str>, labels: &str) -> Result<Vec<Value>, Problem> {
        let mut path = Resource::named(kind, namespace, "")?.collection();
        if !labels.is_empty() {
            let encoded: String = labels.bytes().map(percent_encoded).collect();
            path.push_str(&format!("?labelSelector={encoded}"));
        }
        let mut answer = self.json(http::Method::GET, &path, None).await?;
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            Some(Value::Null) => Ok(Vec::new()),
            _ => Err(Problem::Unreadable(format!("the list of {kind}s has no items"))),
        }
    }

    /// All pods that are bound to a node, in every namespace.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Value>, Problem> {
        let encoded: String = node.bytes().map(percent_encoded).collect();
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{encoded}");
        let mut answer = self.json(http::Method::GET, &path, None).await?;
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(mut items)) => {
                items.retain(|pod| pod["spec"]["nodeName"] == node);
                Ok(items)
            }
            Some(Value::Null) => Ok(Vec::new()),
            _ => Err(Problem::Unreadable(format!("the list of pods on {node} has no items"))),
        }
    }

    /// Asks that a pod leaves its node, as far as its disruption budget allows: 429 when it does not. `uid` keeps a pod of
    /// the same name that came after it from being meant.
    pub async fn evict(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Problem> {
        let path = format!("{}/eviction", Resource::named("Pod", Some(namespace), name)?.item());
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": name, "namespace": namespace },
            "deleteOptions": { "preconditions": { "uid": uid } },
        });
        self.json(http::Method::POST, &path, Some(("application/json", &eviction))).await.map(drop)
    }

    /// Makes an object; it carries apiVersion, kind and its names itself.
    pub async fn create(&self, object: &Value) -> Result<Value, Problem> {
        let path = Resource::of(object)?.collection();
        self.json(http::Method::POST, &path, Some(("application/json", object))).await
    }

    /// Merges `patch` into an object (RFC 7386: `null` removes a key, lists are replaced).
    pub async fn merge(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Value, Problem> {
        let path = Resource::named(kind, namespace, name)?.item();
        self.json(http::Method::PATCH, &path, Some(("application/merge-patch+json", patch))).await
    }

    /// Removes an object; `false` when there was none.
    pub async fn delete(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<bool, Problem> {
        let path = Resource::named(kind, namespace, name)?.item();
        match self.json(http::Method::DELETE, &path, None).await {
            Ok(_) => Ok(true),
            Err(problem) if problem.is_not_found() => Ok(false),
            Err(problem) => Err(problem),
        }
    }
}

/// A path that asks for what would be done.
fn dry_run(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}dryRun=All")
}

/// Why a server's certificate was not accepted, if that is what went wrong.
fn certificate_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(refused)) = error.downcast_ref::<rustls::Error>() {
            return Some(refused);
        }
        // An I/O error gives the source of what it wraps as its own, and so hides that itself.
        if let Some(wrapped) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(refused) = certificate_error(wrapped)
        {
            return Some(refused);
        }
        next = error.source();
    }
    None
}

/// The sentence about it; both times are named where a clock may be wrong.
fn certificate_words(server: &str, refused: &CertificateError) -> String {
    let time = |time: &rustls::pki_types::UnixTime| moment::rfc3339(time.as_secs());
    match refused {
        CertificateError::NotValidYetContext { time: now, not_before } => format!(
            "the certificate of {server} is not valid before {}, and the clock of this host says {}",
            time(not_before),
            time(now)
        ),
        CertificateError::ExpiredContext { time: now, not_after } => format!(
            "the certificate of {server} has expired: it was valid until {}, and the clock of this host says {}",
            time(not_after),
            time(now)
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate of {server} is not valid for that name or address")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("the certificate of {server} is signed by an authority that is not trusted here")
        }
        other => format!("the certificate of {server} is not accepted: {other}"),
    }
}

/// The part of an answer that tells why: of a health path's long list only what fails.
fn telling(message: &str) -> String {
    let failing: Vec<&str> = message.lines().filter(|line| line.starts_with("[-]")).collect();
    let text = if failing.is_empty() { message.trim().to_owned() } else { failing.join(", ") };
    text.chars().take(2000).collect()
}

fn percent_encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{dry_run, telling};

    #[test]
    fn a_dry_run_is_asked_for_in_the_path() {
        assert_eq!(dry_run("/api/v1/nodes/n"), "/api/v1/nodes/n?dryRun=All");
        assert_eq!(dry_run("/api/v1/nodes?limit=1"), "/api/v1/nodes?limit=1&dryRun=All");
    }

    #[test]
    fn of_a_health_list_only_what_fails_is_told() {
        let list = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nlivez check failed";
        assert_eq!(telling(list), "[-]etcd failed: reason withheld");
        assert_eq!(telling("plain\n"), "plain");
    }
}
