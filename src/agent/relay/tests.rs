//! Givers and askers over loopback, with the certificates of a run.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Asker, Giver, Giving, Identity, Pull, RelayOrder, ask_for_program, server_name};
use crate::agent::store::{Keep, Store};
use crate::remote::Relay;

const SIZE: u64 = 3 << 20;

fn sha256() -> String {
    "0f".repeat(32)
}

fn identities() -> (Identity, Identity) {
    let relay = Relay::new(None).unwrap();
    (relay.identity("giver").unwrap(), relay.identity("asker").unwrap())
}

async fn giving(identity: Identity, store: &Store) -> Giving {
    giving_for(identity, store, Duration::from_secs(60)).await
}

async fn giving_for(identity: Identity, store: &Store, standstill: Duration) -> Giving {
    let order = RelayOrder {
        identity,
        address: [127, 0, 0, 1].into(),
        streams: BTreeMap::from([(sha256(), SIZE)]),
        program: None,
    };
    Giving::open_for(&order, store.clone(), Path::new("/nowhere"), standstill).await.unwrap()
}

fn giver(giving: &Giving, identity: &Identity) -> Giver {
    Giver { host: "giver".to_owned(), address: giving.address(), identity: identity.clone() }
}

/// Asks in a thread of its own, as the receiver does.
async fn ask(giver: Giver, sha256: String, from: u64) -> io::Result<Vec<u8>> {
    let asking = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        Pull::open(&mut Asker::default(), &giver, &sha256, from, SIZE)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    asking.await.unwrap()
}

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_host_hands_on_while_it_still_receives() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().to_owned());
    let (own, other) = identities();
    let giving = giving(own, &store).await;
    // Asked before the first byte is there.
    let early = tokio::spawn(ask(giver(&giving, &other), sha256(), 0));
    let mut arriving = store.open(&sha256(), 0).unwrap();
    for piece in content().chunks(100_000) {
        arriving.keep(piece);
        tokio::task::yield_now().await;
    }
    let late = tokio::spawn(ask(giver(&giving, &other), sha256(), SIZE - 10));
    store.finish(&sha256(), Keep::Held);
    assert!(early.await.unwrap().unwrap() == content());
    assert_eq!(late.await.unwrap().unwrap(), content()[content().len() - 10..]);
}

#[tokio::test]
async fn only_hosts_of_the_run_get_only_blobs_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().to_owned());
    let (own, other) = identities();
    let giving = giving(own, &store).await;
    store.open(&sha256(), 0).unwrap().keep(&content());
    std::fs::write(folder.path().join(format!("{}.zst", "aa".repeat(32))), "another run's").unwrap();
    // Another run's certificate, a certificate for another host, another blob, no blob.
    let stranger = identities().1;
    assert!(ask(giver(&giving, &stranger), sha256(), 0).await.is_err());
    let wrong_host = Giver { host: "asker".to_owned(), ..giver(&giving, &other) };
    assert!(ask(wrong_host, sha256(), 0).await.is_err());
    assert!(ask(giver(&giving, &other), "aa".repeat(32), 0).await.is_err());
    assert!(ask(giver(&giving, &other), "../../../../etc/shadow".to_owned(), 0).await.is_err());
    // And without TLS nothing at all.
    let address = giving.address();
    let plain = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address)?;
        writeln!(stream, "{{\"sha256\":\"{}\",\"from\":0}}", sha256())?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        io::Result::Ok(answer)
    });
    assert!(plain.await.unwrap().unwrap().len() < 100);
    assert!(ask(giver(&giving, &other), sha256(), 0).await.unwrap() == content());
    let closed = giver(&giving, &other);
    drop(giving);
    assert!(ask(closed, sha256(), 0).await.is_err());
}

#[tokio::test]
async fn an_asker_gives_up_when_the_blob_was_discarded_or_the_giver_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().to_owned());
    let (own, other) = identities();
    let giving = giving(own, &store).await;
    store.open(&sha256(), 0).unwrap().keep(&content()[..1000]);
    let asking = tokio::spawn(ask(giver(&giving, &other), sha256(), 0));
    tokio::task::yield_now().await;
    store.discard(&sha256());
    // Whether the giver had opened the file before or never finds it again: there are no more bytes.
    let ended = tokio::time::timeout(Duration::from_secs(3), asking).await;
    assert!(ended.is_err() || ended.unwrap().unwrap().is_err());

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let began = Instant::now();
    let mute = Giver { address, ..giver(&giving, &other) };
    assert!(ask(mute, sha256(), 0).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    drop(silent);
}

/// Whoever got the blob in a former life of its agent, or could not keep it, says that it waits and would for ever.
#[tokio::test]
async fn an_asker_is_let_go_when_nothing_comes_to_the_giver_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().to_owned());
    let (own, other) = identities();
    let giving = giving_for(own, &store, Duration::from_secs(2)).await;
    let began = Instant::now();
    let never = tokio::spawn(ask(giver(&giving, &other), sha256(), 0));
    // What comes meanwhile is another blob, but it comes: the one that is asked for may be next.
    let mut arriving = store.open(&"aa".repeat(32), 0).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..8 {
        ticks.tick().await;
        arriving.keep(b"some");
    }
    assert!(!never.is_finished());
    assert!(never.await.unwrap().is_err());
    assert!(began.elapsed() >= Duration::from_millis(5_000), "{:?}", began.elapsed());
    // Nor is one that has begun to come waited for then.
    store.open(&sha256(), 0).unwrap().keep(&content()[..1000]);
    assert!(ask(giver(&giving, &other), sha256(), 0).await.is_err());
}

/// As a host does that has no clusterctl yet; what comes.
fn by_openssl(asker: &Identity, name: &str, address: SocketAddr, line: &str) -> Vec<u8> {
    openssl(asker, &["-cert", "-key", "-CAfile"], name, address, line)
}

/// As somebody who knows the run's authority and has no certificate of it.
fn by_openssl_without_a_certificate(asker: &Identity, name: &str, address: SocketAddr, line: &str) -> Vec<u8> {
    openssl(asker, &["-CAfile"], name, address, line)
}

/// What comes when openssl asks; `options` name what it takes from the asker's file.
#[expect(clippy::disallowed_methods, reason = "another TLS implementation is the judge, and tests have no host")]
fn openssl(asker: &Identity, options: &[&str], name: &str, address: SocketAddr, line: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    std::fs::write(&file, asker.in_one_file().expose()).unwrap();
    let mut child = std::process::Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", name, "-servername", name, "-connect"])
        .arg(address.to_string())
        .args(options.iter().flat_map(|option| [Path::new(option), &file]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Where the greeting fails, it may be gone already.
    let _ = writeln!(child.stdin.take().unwrap(), "{line}");
    child.wait_with_output().unwrap().stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_given_to_openssl_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("incoming"));
    let program = folder.path().join("program");
    std::fs::write(&program, content()).unwrap();
    let (own, other) = identities();
    let order =
        RelayOrder { identity: own, address: [127, 0, 0, 1].into(), streams: BTreeMap::new(), program: Some(sha256()) };
    let giving = Giving::open(&order, store, &program).await.unwrap();
    let (address, line, name) = (giving.address(), ask_for_program(&sha256()), server_name("giver"));
    let asked = tokio::task::spawn_blocking(move || {
        assert!(by_openssl(&other, &name, address, &line) == content());
        // Another program, another host's name, another run's certificate.
        assert_eq!(by_openssl(&other, &name, address, &ask_for_program(&"aa".repeat(32))), b"");
        assert_eq!(by_openssl(&other, &server_name("asker"), address, &line), b"");
        assert_eq!(by_openssl(&identities().1, &name, address, &line), b"");
    });
    asked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_without_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("incoming"));
    let program = folder.path().join("program");
    std::fs::write(&program, content()).unwrap();
    store.open(&sha256(), 0).unwrap().keep(&content());
    let (own, other) = identities();
    let order = RelayOrder {
        identity: own,
        address: [127, 0, 0, 1].into(),
        streams: BTreeMap::from([(sha256(), SIZE)]),
        program: Some(sha256()),
    };
    let giving = Giving::open(&order, store, &program).await.unwrap();
    let (address, name) = (giving.address(), server_name("giver"));
    let blob = format!("{{\"sha256\":\"{}\",\"from\":0}}", sha256());
    let asked = tokio::task::spawn_blocking(move || {
        for line in [ask_for_program(&sha256()), blob] {
            // The same question is answered to whoever shows one.
            let given = by_openssl(&other, &name, address, &line);
            assert!(given.len() as u64 >= SIZE, "{line}: {} bytes", given.len());
            let given = by_openssl_without_a_certificate(&other, &name, address, &line);
            assert_eq!(given.len(), 0, "{line}");
        }
    });
    asked.await.unwrap();
}
