//! An HTTPS server that is reached through a proxy only, both on loopback.

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Ask, Downloads};
use crate::https::Proxies;
use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey, Subject, Usage};
use crate::secret::Secret;

/// A name that nobody but the proxy finds.
const SERVER: &str = "releases.invalid";

/// The lines of a request up to the empty one.
async fn head(stream: impl tokio::io::AsyncRead + Unpin) -> Vec<String> {
    let mut lines = BufReader::with_capacity(1, stream).lines();
    let mut head = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await
        && !line.is_empty()
    {
        head.push(line);
    }
    head
}

/// A TLS server that gives `hello` to whoever asks, with a certificate of this authority; what was asked goes to `asked`.
async fn server(authority: &Authority, asked: Arc<Mutex<Vec<Vec<String>>>>) -> u16 {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let subject = Subject {
        common_name: SERVER.to_owned(),
        usages: vec![Usage::Server],
        dns_names: vec![SERVER.to_owned()],
        ..Subject::default()
    };
    let certificate = authority.sign(&subject, &key, since(), DAY).unwrap().pem();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.pem().expose().as_bytes()).unwrap();
    let settings = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let head = head(&mut stream).await;
            asked.lock().unwrap().push(head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello").await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

/// A proxy that leads each `CONNECT` to this port, or refuses it.
async fn proxy(leads_to: Option<u16>, asked: Arc<Mutex<Vec<Vec<String>>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let head = head(&mut near).await;
            asked.lock().unwrap().push(head);
            let Some(port) = leads_to else {
                let _ = near.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
                // Not closed over what the other side still says.
                let _ = near.read_to_end(&mut Vec::new()).await;
                continue;
            };
            let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    port
}

const DAY: u64 = 24 * 3600;

fn since() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() - 3600
}

async fn got(downloads: &Downloads) -> Result<Vec<u8>, String> {
    let credentials = Secret::new("Bearer of-the-server");
    let url = format!("https://{SERVER}/kubelet");
    let ask = Ask { url: &url, authorization: Some(&credentials), ..Ask::default() };
    downloads.open(&ask).await?.body(100).await
}

#[tokio::test]
async fn https_goes_through_a_proxy_that_learns_no_more_than_the_name() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let authority = Authority::fresh("releases", key, since(), DAY).unwrap();
    let (of_server, of_proxy) = (Arc::default(), Arc::default());
    let server = server(&authority, Arc::clone(&of_server)).await;
    let port = proxy(Some(server), Arc::clone(&of_proxy)).await;
    let proxies = Proxies::of(&format!("https_proxy=http://ann:hunter2@127.0.0.1:{port}"));
    let trusted = || vec![reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap()];
    assert_eq!(got(&Downloads::trusting(&proxies, trusted()).unwrap()).await.unwrap(), b"hello");

    let asked: Vec<String> = std::mem::take(&mut *of_proxy.lock().unwrap()).concat();
    assert_eq!(asked[0], format!("CONNECT {SERVER}:443 HTTP/1.1"));
    let text = asked.join("\n");
    assert!(text.to_lowercase().contains("proxy-authorization: basic") && text.contains("YW5uOmh1bnRlcjI="), "{text}");
    assert!(!text.contains("kubelet") && !text.contains("of-the-server"), "{text}");
    let asked: Vec<String> = of_server.lock().unwrap().concat();
    assert_eq!(asked[0], "GET /kubelet HTTP/1.1");
    let text = asked.join("\n");
    assert!(text.contains("Bearer of-the-server") && !text.contains("YW5uOmh1bnRlcjI="), "{text}");

    // The proxy leads there, and no more: who answers is proven as without it.
    let reason = got(&Downloads::through(&proxies).unwrap()).await.unwrap_err();
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(of_server.lock().unwrap().len(), 1);

    let refusing = proxy(None, Arc::clone(&of_proxy)).await;
    let proxies = Proxies::of(&format!("https_proxy=http://127.0.0.1:{refusing}"));
    assert!(got(&Downloads::trusting(&proxies, trusted()).unwrap()).await.is_err());
    assert_eq!(of_server.lock().unwrap().len(), 1);
}
