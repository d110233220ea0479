//! Hosts hand blobs on to each other, so that bytes leave the laptop once.
//!
//! Each host that has blobs, or receives them, listens on a port that the system chose; only hosts of the same run get in,
//! by certificates that were made for the run and that nobody keeps. One connection is one blob: the asker sends a line
//! ([`Ask`]), the giver answers with frames, a length of four bytes (big-endian) and as many bytes; a frame of length 0 says
//! that the giver is well and waits for more itself. A host that has no clusterctl yet asks for that ([`ask_for_program`]).

mod pull;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

pub use self::pull::{Asker, Pull};
pub use self::serve::Giving;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// The longest frame, in bytes.
const FRAME_BYTES: usize = 1 << 20;

/// How often a giver that waits says that it is well.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Who a host is during one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name in the inventory, which its certificate is for.
    pub name: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: Secret,
    /// The authority of the run, PEM.
    pub authority: String,
}

/// What a host is to hand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOrder {
    /// Who it is.
    pub identity: Identity,
    /// The address that the other hosts reach it by.
    pub address: IpAddr,
    /// The streams of this run by their sha256, with their sizes in bytes; nothing else is given.
    pub streams: BTreeMap<String, u64>,
    /// The sha256 of the program that the host runs, if it hands that on as well.
    pub program: Option<String>,
}

/// A host to take a blob from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Giver {
    /// Its name in the inventory.
    pub host: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who the asker is.
    pub identity: Identity,
}

/// What an asker wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ask {
    /// SHA-256 of the stream.
    sha256: String,
    /// The first byte that is wanted.
    from: u64,
}

/// The line that asks for the program: by a shell, which reads no frames, so that what comes is the file and nothing else.
pub fn ask_for_program(sha256: &str) -> String {
    format!("program {sha256}")
}

/// The DNS name in a host's certificate. Inventory names are RFC 1123 names already.
pub fn server_name(host: &str) -> String {
    format!("{host}.relay.clusterctl.internal")
}

impl Identity {
    /// Certificate, key and authority, PEM, as `openssl` takes them from one file.
    pub fn in_one_file(&self) -> Secret {
        Secret::new(
            [&self.certificate, self.key.expose(), &self.authority].map(|part| format!("{}\n", part.trim())).concat(),
        )
    }

    fn parts(&self) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
        }
        let chain: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes());
        Ok((Arc::new(roots), chain.map_err(|error| unusable(&error))?, key.map_err(|error| unusable(&error))?))
    }

    /// TLS for a giver: whoever asks shows a certificate of this run.
    fn server(&self) -> Result<Arc<ServerConfig>> {
        let (roots, chain, key) = self.parts()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let askers = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| unusable(&error))?;
        let settings = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(askers)
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        Ok(Arc::new(settings))
    }

    /// TLS for an asker: the giver is the host it is taken for.
    fn client(&self) -> Result<Arc<ClientConfig>> {
        let (roots, chain, key) = self.parts()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        Ok(Arc::new(settings))
    }
}

fn unusable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Kind::Internal, "the certificates for handing blobs on cannot be used").because(error)
}
