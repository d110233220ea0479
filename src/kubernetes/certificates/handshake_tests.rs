//! The judge that is not ours: rustls and webpki, in both roles, over a connection in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rstest::rstest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::{CertificateOrder, KeyPool, issue};
use crate::kubernetes::configuration::{ApiEndpoint, ClusterConfiguration};
use crate::secret::Secret;

type Files = BTreeMap<String, Secret>;

fn certificates(algorithm: &str) -> Files {
    let mut cluster = ClusterConfiguration { encryption_algorithm: algorithm.into(), ..Default::default() };
    cluster.api_server.cert_sans = vec!["api.demo.example".into()];
    cluster.complete(6443).unwrap();
    let local = ApiEndpoint { advertise_address: "10.0.0.11".into(), bind_port: 6443 };
    let order = CertificateOrder {
        cluster: &cluster,
        node_name: "cp1",
        local: &local,
        now_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        joining: false,
    };
    let issued = issue(&order, &BTreeMap::new(), &mut KeyPool::new(algorithm.parse().unwrap())).unwrap();
    issued.files.into_iter().map(|file| (file.path, file.content)).collect()
}

fn chain(files: &Files, name: &str) -> Vec<CertificateDer<'static>> {
    let text = files[&format!("{name}.crt")].expose();
    CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect()
}

fn key(files: &Files, name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(files[&format!("{name}.key")].expose().as_bytes()).unwrap()
}

fn roots(files: &Files, authority: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    chain(files, authority).into_iter().for_each(|certificate| roots.add(certificate).unwrap());
    Arc::new(roots)
}

/// A handshake of a client and a server that know each other by one authority.
fn handshake(files: &Files, authority: &str, server: &str, client: &str, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(files, authority), provider.clone());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain(files, server), key(files, server))?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(files, authority))
        .with_client_auth_cert(chain(files, client), key(files, client))?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name.to_owned()).unwrap())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[rstest]
#[case("RSA-2048")]
#[case("ECDSA-P256")]
#[case("ECDSA-P384")]
fn every_pair_that_talks_knows_each_other(#[case] algorithm: &str) {
    let files = certificates(algorithm);
    for (authority, server, client, name) in [
        ("ca", "apiserver", "apiserver-kubelet-client", "kubernetes.default.svc.cluster.local"),
        ("ca", "apiserver", "apiserver-kubelet-client", "api.demo.example"),
        ("ca", "apiserver", "apiserver-kubelet-client", "10.96.0.1"),
        ("etcd/ca", "etcd/server", "apiserver-etcd-client", "10.0.0.11"),
        ("etcd/ca", "etcd/server", "etcd/healthcheck-client", "127.0.0.1"),
        ("etcd/ca", "etcd/peer", "etcd/peer", "cp1"),
        // etcd dials itself with the certificate it serves with.
        ("etcd/ca", "etcd/server", "etcd/server", "::1"),
    ] {
        let met = handshake(&files, authority, server, client, name);
        assert_eq!(met, Ok(()), "{client} and {server} as {name}");
    }
}

#[test]
fn those_that_must_not_talk_do_not() {
    let files = certificates("ECDSA-P256");
    let refused = |authority: &str, server: &str, client: &str, name: &str| {
        assert!(handshake(&files, authority, server, client, name).is_err(), "{client} and {server} as {name}");
    };
    // A name that is not in it; a client's certificate that serves; a server's that asks; another authority.
    refused("ca", "apiserver", "apiserver-kubelet-client", "other.example");
    refused("ca", "apiserver-kubelet-client", "apiserver-kubelet-client", "10.0.0.11");
    refused("ca", "apiserver", "apiserver", "10.0.0.11");
    refused("ca", "apiserver", "front-proxy-client", "10.0.0.11");
}
