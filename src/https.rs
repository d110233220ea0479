//! The only user of reqwest: small requests to servers that are no API servers, such as etcd's JSON gateway, and downloads
//! ([`Downloads`]).
//!
//! kube's own client speaks to API servers alone (see `api`). No client but that of
//! downloads and [`Https::public`] follows a redirect or asks a proxy, every
//! request has a time limit and every answer a size limit.

mod download;
mod proxies;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

pub use self::download::{Answered, Ask, Downloads, encoded, shown};
pub use self::proxies::Proxies;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Longest time for a connection: whoever listens answers within a round trip, and a host that is gone is not waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// A client of servers that belong to one authority. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Https {
    client: reqwest::Client,
    limit: Duration,
    limit_bytes: usize,
}

impl Https {
    /// A client that trusts the certificate authorities in `ca_pem` and shows this certificate; `limit` is for one request,
    /// `limit_bytes` for one answer.
    ///
    /// # Errors
    /// Kind `Configuration` when a certificate or the key cannot be used.
    pub fn new(ca_pem: &str, certificate_pem: &str, key: &Secret, limit: Duration, limit_bytes: usize) -> Result<Self> {
        let wrong = |what: &str, error: &(dyn std::error::Error + 'static)| {
            Failure::new(Kind::Configuration, format!("{what} cannot be used")).because(error)
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong("a CA certificate", &error))?;
            roots.add(certificate).map_err(|error| wrong("a CA certificate", &error))?;
        }
        let chain: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
        let chain = chain.map_err(|error| wrong("a client certificate", &error))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
        let key = key.map_err(|error| wrong("a client's private key", &error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS", &error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| wrong("a client certificate", &error))?;
        Self::of(settings, limit, limit_bytes)
    }

    /// A client of servers that prove themselves to the authorities this host trusts: it asks the proxies of the environment
    /// and follows redirects as long as they stay with https.
    ///
    /// # Errors
    /// Kind `Host` when this host trusts no authority.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn public(limit: Duration, limit_bytes: usize) -> Result<Self> {
        // An error only means that a provider is there already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::limited(5))
            .connect_timeout(CONNECT_LIMIT)
            .timeout(limit)
            .build()
            .map_err(|error| {
                Failure::new(Kind::Host, "this host cannot verify servers of the internet")
                    .because(&error)
                    .advise("install the package ca-certificates")
            })?;
        Ok(Self { client, limit, limit_bytes })
    }

    /// A client that trusts the certificate authorities in `ca_pem` and shows no certificate; as [`Self::new`].
    ///
    /// # Errors
    /// Kind `Configuration` when a certificate cannot be used.
    pub fn anonymous(ca_pem: &str, limit: Duration, limit_bytes: usize) -> Result<Self> {
        let wrong = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(Kind::Configuration, "a CA certificate cannot be used").because(error)
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::of(settings, limit, limit_bytes)
    }

    /// A client that shows no certificate and trusts nobody: for plain HTTP on loopback, in tests.
    #[cfg(test)]
    pub(crate) fn plain(limit: Duration, limit_bytes: usize) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let settings = settings.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        Self::of(settings, limit, limit_bytes).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn of(settings: ClientConfig, limit: Duration, limit_bytes: usize) -> Result<Self> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(settings)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(limit)
            .build()
            .map_err(|error| Failure::new(Kind::Internal, "there can be no HTTPS client").because(&error))?;
        Ok(Self { client, limit, limit_bytes })
    }

    /// Sends a JSON document; what the server answers is returned whatever its status.
    ///
    /// # Errors
    /// Why there is no answer, in words: nobody listens, TLS failed, the time limit passed, the answer is too long.
    pub async fn post(&self, url: &str, body: &Value) -> std::result::Result<Answer, String> {
        self.send(self.client.post(url).header("content-type", "application/json").body(body.to_string())).await
    }

    /// Gets what lies at a URL; what the server answers is returned whatever its status.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn get(&self, url: &str) -> std::result::Result<Answer, String> {
        self.send(self.client.get(url)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> std::result::Result<Answer, String> {
        let mut response = request.send().await.map_err(|error| self.reason(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.reason(&error))? {
            if body.len() + chunk.len() > self.limit_bytes {
                return Err(format!("the answer is longer than {} bytes", self.limit_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// The innermost source says it best: "Connection refused", "certificate has expired".
    fn reason(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("no answer within {:?}", if error.is_connect() { CONNECT_LIMIT } else { self.limit });
        }
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        innermost.to_string()
    }
}
