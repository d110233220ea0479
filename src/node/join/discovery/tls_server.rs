//! An API server that speaks TLS with a certificate of our making, for tests of discovery.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey, Subject, Usage};

/// How its certificate differs from a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Its time is over.
    Expired,
    /// Its time comes hours from now.
    Ahead,
    /// It is for another address.
    OtherName,
}

/// A certificate authority in its time.
pub(super) fn authority(now_seconds: u64) -> Authority {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    Authority::fresh("kubernetes", key, now_seconds, 9999 * 3600).unwrap()
}

/// Starts it and answers with its URL; every request gets the answer that `answer` makes of that URL and of whether there
/// was a token. It lives as long as the process.
pub(super) fn start(
    authority: &Authority,
    now_seconds: u64,
    fault: Fault,
    answer: impl Fn(&str, bool) -> (u16, Value) + Send + 'static,
) -> String {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let address = if fault == Fault::OtherName { [192, 0, 2, 1] } else { [127, 0, 0, 1] };
    let subject = Subject {
        common_name: "kube-apiserver".into(),
        usages: vec![Usage::Server],
        addresses: vec![address.into()],
        ..Default::default()
    };
    let made_seconds = match fault {
        Fault::Expired => now_seconds - 7200,
        Fault::Ahead => now_seconds + 7200,
        _ => now_seconds,
    };
    let certificate = authority.sign(&subject, &key, made_seconds, 3600).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der)],
            PrivateKeyDer::from_pem_slice(key.pem().expose().as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (settings, own_url) = (Arc::new(settings), url.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(connection) = ServerConnection::new(settings.clone()) else { return };
            let mut stream = StreamOwned::new(connection, stream);
            let mut request = Vec::new();
            let mut chunk = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut chunk) {
                    Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
                    _ => break,
                }
            }
            let token = String::from_utf8_lossy(&request).to_lowercase().contains("authorization: bearer");
            let (status, body) = answer(&own_url, token);
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    url
}
