//! The receiver between two pipes, with a laptop that is a test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::net::TcpListener;

use rstest::rstest;

use super::{Incoming, Instead, Purpose, Report, receive};
use crate::agent::Store;
use crate::agent::relay::{Giver, Giving, RelayOrder};
use crate::failure::{Failure, Kind};
use crate::host::fake::FakeHost;
use crate::host::machine::Machine;
use crate::host::{Output, sha256_hex};
use crate::message::{Place, Wanted};
use crate::remote::Relay;

struct Laptop {
    input: Option<PipeWriter>,
    output: BufReader<PipeReader>,
    receiver: std::thread::JoinHandle<Result<(), Failure>>,
    there: BTreeMap<String, u64>,
}

impl Laptop {
    fn start(store: &Store) -> Self {
        Self::start_on(store, Machine)
    }

    fn start_on(store: &Store, host: impl crate::host::Host + 'static) -> Self {
        let (far_input, input) = std::io::pipe().unwrap();
        let (output, far_output) = std::io::pipe().unwrap();
        let store = store.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let receiver = std::thread::spawn(move || {
            let _entered = runtime.enter();
            receive(far_input, far_output, &host, &store)
        });
        let mut laptop = Self { input: Some(input), output: BufReader::new(output), receiver, there: BTreeMap::new() };
        let Some(Report::Ready { there }) = laptop.report() else { panic!("it is not ready") };
        laptop.there = there;
        laptop
    }

    fn send(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn line(&mut self, what: &impl serde::Serialize) {
        let text = serde_json::to_string(what).unwrap();
        self.send(format!("{text}\n").as_bytes());
    }

    fn report(&mut self) -> Option<Report> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).ok()
    }

    fn received(&mut self) -> Result<(), Failure> {
        loop {
            match self.report() {
                Some(Report::Received { result, .. }) => return result,
                Some(Report::Moved { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn end(mut self) -> Result<(), Failure> {
        self.input.take();
        self.receiver.join().unwrap()
    }
}

fn content() -> Vec<u8> {
    // Nothing that compresses.
    let mut state = 88_172_645_463_325_252_u64;
    let next = move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..200_000).map(next).collect()
}

fn stream() -> Vec<u8> {
    zstd::encode_all(content().as_slice(), 1).unwrap()
}

fn incoming(purpose: Purpose, from: usize) -> Incoming {
    let place = Place::File { path: "/usr/local/bin/any".to_owned(), mode: 0o755 };
    Incoming {
        name: "bin/any".to_owned(),
        wanted: Wanted { sha256: sha256_hex(&content()), size: content().len() as u64, place },
        stored_sha256: sha256_hex(&stream()),
        stored_size: stream().len() as u64,
        from: from as u64,
        purpose,
        giver: None,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("incoming"));
    (folder, store)
}

fn kept(store: &Store) -> Vec<String> {
    let entries = std::fs::read_dir(store.folder()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.into_iter().map(|name| name.get(64..).unwrap_or(&name).to_owned()).collect()
}

#[rstest]
// The unpacked file waits under its own hash; the stream goes, or stays under the name of its purpose.
#[case(Purpose::Unpack, &[""])]
#[case(Purpose::HandOn, &["", ".held"])]
#[case(Purpose::Stage, &[".zst"])]
fn a_stream_that_broke_is_gone_on_with(#[case] purpose: Purpose, #[case] names: &[&str]) {
    let (_folder, store) = store();
    let mut laptop = Laptop::start(&store);
    assert!(laptop.there.is_empty());
    laptop.line(&incoming(purpose, 0));
    laptop.send(&stream()[..60_000]);
    assert_eq!(laptop.end().unwrap_err().kind, Kind::Connection);
    let mut laptop = Laptop::start(&store);
    assert_eq!(laptop.there, BTreeMap::from([(sha256_hex(&stream()), 60_000)]));
    laptop.line(&incoming(purpose, 60_000));
    laptop.send(&stream()[60_000..]);
    laptop.received().unwrap();
    laptop.end().unwrap();
    let mut found = kept(&store);
    found.sort();
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(found, names);
    // What is staged needs no bytes any more.
    if purpose == Purpose::Stage {
        let mut laptop = Laptop::start(&store);
        laptop.line(&incoming(Purpose::Unpack, stream().len()));
        laptop.received().unwrap();
        laptop.end().unwrap();
        assert!(std::fs::read(store.folder().join(sha256_hex(&content()))).unwrap() == content());
    }
}

#[rstest]
#[case(Purpose::Unpack)]
#[case(Purpose::Stage)]
fn damage_is_noticed_leaves_nothing_and_stops_nothing(#[case] purpose: Purpose) {
    let (_folder, store) = store();
    let mut laptop = Laptop::start(&store);
    let mut damaged = stream();
    damaged[100_000] ^= 1;
    laptop.line(&incoming(purpose, 0));
    laptop.send(&damaged);
    assert_eq!(laptop.received().unwrap_err().kind, Kind::Bundle);
    assert!(kept(&store).is_empty(), "{:?}", kept(&store));
    laptop.line(&incoming(purpose, 0));
    laptop.send(&stream());
    laptop.received().unwrap();
    laptop.end().unwrap();
}

/// A host with a containerd that has one image, takes every archive, and then has the image of the archive.
fn with_containerd() -> FakeHost {
    const BEFORE: &str = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n";
    let listing = |digest: &str| format!("{BEFORE}a.b/c:1 t sha256:{digest} 1.0 MiB linux/amd64 -\n");
    FakeHost::new()
        .file("/usr/local/bin/containerd", "")
        .answer(&["ctr"], 0, listing("before"))
        .answer(&["ctr", "images", "import", "--help"], 0, "--local\n")
        .answer_with(&ctr(&["images", "import"]), move |host, _| {
            let listed = Output { stdout: listing("imported").into_bytes(), ..Output::default() };
            host.clone().answer_with(&ctr(&["images", "ls"]), move |_, _| Ok(listed.clone()));
            Ok(Output::default())
        })
}

fn ctr<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["ctr", "--address", crate::host::containerd::SOCKET, "--namespace", "k8s.io"][..], words].concat()
}

fn image(from: usize) -> Incoming {
    let mut incoming = incoming(Purpose::Unpack, from);
    incoming.wanted.place = Place::Images { references: vec!["a.b/c:1".to_owned()] };
    incoming
}

/// What was done with containerd, besides looking at it.
fn with_images(host: &FakeHost) -> Vec<String> {
    let all = host.ran().into_iter().filter(|command| command.program == "ctr").map(|command| command.arguments);
    let words = all.map(|arguments| arguments.join(" ").replace("--address /run/containerd/containerd.sock ", ""));
    let words = words.map(|words| words.replace("--namespace k8s.io images ", ""));
    words.filter(|words| !words.ends_with("ls") && !words.contains("help") && !words.contains("version")).collect()
}

#[test]
fn an_image_counts_only_when_its_archive_was_whole() {
    let (_folder, store) = store();
    let host = with_containerd();
    let mut laptop = Laptop::start_on(&store, host.clone());
    // The stream is whole and the content is not what the bundle promised: containerd takes it, and it is removed.
    let mut wrong = image(0);
    wrong.wanted.sha256 = "ab".repeat(32);
    laptop.line(&wrong);
    laptop.send(&stream());
    assert_eq!(laptop.received().unwrap_err().kind, Kind::Bundle);
    assert_eq!(with_images(&host), ["import --local -", "rm --sync a.b/c:1"]);
    host.forget();
    laptop.line(&image(0));
    laptop.send(&stream());
    laptop.received().unwrap();
    let label = format!("label a.b/c:1 clusterctl.io/blob={}", sha256_hex(&content()));
    assert_eq!(with_images(&host), ["import --local -".to_owned(), label]);
    laptop.end().unwrap();
}

#[test]
fn an_archive_that_came_in_parts_is_checked_before_containerd_sees_it() {
    let (_folder, store) = store();
    let mut begun = stream()[..60_000].to_vec();
    begun[30_000] ^= 1;
    store.open(&sha256_hex(&stream()), 0).unwrap().keep(&begun);
    let host = with_containerd();
    let mut laptop = Laptop::start_on(&store, host.clone());
    laptop.line(&image(60_000));
    laptop.send(&stream()[60_000..]);
    assert_eq!(laptop.received().unwrap_err().kind, Kind::Bundle);
    assert!(with_images(&host).is_empty(), "{:?}", with_images(&host));
    // What was there of it is gone; whole, it is imported from what was kept.
    assert!(kept(&store).is_empty(), "{:?}", kept(&store));
    store.open(&sha256_hex(&stream()), 0).unwrap().keep(&stream()[..60_000]);
    laptop.line(&image(60_000));
    laptop.send(&stream()[60_000..]);
    laptop.received().unwrap();
    laptop.end().unwrap();
    assert_eq!(with_images(&host).len(), 2, "{:?}", with_images(&host));
    let imported = host.ran().into_iter().find(|command| command.arguments.contains(&"-".to_owned())).unwrap();
    assert!(imported.input == content(), "{} bytes", imported.input.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_another_host_gives_is_checked_before_containerd_sees_it() {
    let (_folder, own) = store();
    let (_other_folder, other) = store();
    let mut damaged = stream();
    damaged[100_000] ^= 1;
    other.open(&sha256_hex(&stream()), 0).unwrap().keep(&damaged);
    other.finish(&sha256_hex(&stream()), crate::agent::store::Keep::Held);
    let relay = Relay::new(None).unwrap();
    let order = RelayOrder {
        identity: relay.identity("giver").unwrap(),
        address: [127, 0, 0, 1].into(),
        streams: BTreeMap::from([(sha256_hex(&stream()), stream().len() as u64)]),
        program: None,
    };
    let giving = Giving::open(&order, other, std::path::Path::new("/nowhere")).await.unwrap();
    let giver =
        Giver { host: "giver".to_owned(), address: giving.address(), identity: relay.identity("asker").unwrap() };
    tokio::task::spawn_blocking(move || {
        let host = with_containerd();
        let mut laptop = Laptop::start_on(&own, host.clone());
        laptop.line(&Incoming { giver: Some(giver), ..image(0) });
        assert_eq!(laptop.received().unwrap_err().kind, Kind::Bundle);
        assert!(with_images(&host).is_empty(), "{:?}", with_images(&host));
        laptop.end().unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_gives_nothing_is_replaced_by_another_and_then_by_the_laptop() {
    let (_folder, own) = store();
    let (_other_folder, other) = store();
    let relay = Relay::new(None).unwrap();
    // A host that has the first half only, and closes: another one takes over, and dies; the laptop gives the rest.
    let half = stream().len() / 2;
    other.open(&sha256_hex(&stream()), 0).unwrap().keep(&stream()[..half]);
    let order = RelayOrder {
        identity: relay.identity("half").unwrap(),
        address: [127, 0, 0, 1].into(),
        streams: BTreeMap::from([(sha256_hex(&stream()), stream().len() as u64)]),
        program: None,
    };
    let giving = Giving::open(&order, other, std::path::Path::new("/nowhere")).await.unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let giver =
        |host: &str, address| Giver { host: host.to_owned(), address, identity: relay.identity("asker").unwrap() };
    let (refuser, half_giver) = (giver("refuser", refusing), giver("half", giving.address()));
    let driving = tokio::task::spawn_blocking(move || {
        let mut laptop = Laptop::start(&own);
        laptop.line(&Incoming { giver: Some(refuser), ..incoming(Purpose::Stage, 0) });
        let Some(Report::Need { from: 0, .. }) = laptop.report() else { panic!("it does not ask") };
        laptop.line(&Instead { giver: Some(half_giver) });
        (laptop, own)
    });
    let (mut laptop, own) = driving.await.unwrap();
    // As soon as the half has arrived.
    let arrived = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(5));
        while own.there().values().sum::<u64>() < half as u64 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), arrived).await.unwrap();
    drop(giving);
    tokio::task::spawn_blocking(move || {
        let from = loop {
            match laptop.report() {
                Some(Report::Need { from, .. }) => break from,
                Some(Report::Moved { .. }) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(from, half as u64);
        laptop.line(&Instead { giver: None });
        laptop.send(&stream()[half..]);
        laptop.received().unwrap();
        laptop.end().unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_other_hosts_are_announced_ahead_of_an_answer() {
    let (_folder, own) = store();
    let relay = Relay::new(None).unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let giver = Giver { host: "refuser".to_owned(), address: refusing, identity: relay.identity("asker").unwrap() };
    let second: Vec<u8> = content().into_iter().rev().collect();
    let second_stream = zstd::encode_all(second.as_slice(), 1).unwrap();
    let other = Incoming {
        name: "bin/other".to_owned(),
        wanted: Wanted {
            sha256: sha256_hex(&second),
            size: second.len() as u64,
            place: Place::File { path: "/usr/local/bin/other".to_owned(), mode: 0o755 },
        },
        stored_sha256: sha256_hex(&second_stream),
        stored_size: second_stream.len() as u64,
        giver: Some(giver.clone()),
        ..incoming(Purpose::Unpack, 0)
    };
    tokio::task::spawn_blocking(move || {
        let mut laptop = Laptop::start(&own);
        // Both stand in the line before the receiver asks who gives the first one instead.
        laptop.line(&Incoming { giver: Some(giver), ..incoming(Purpose::Unpack, 0) });
        laptop.line(&other);
        let Some(Report::Need { from: 0, .. }) = laptop.report() else { panic!("it does not ask") };
        laptop.line(&Instead { giver: None });
        laptop.send(&stream());
        laptop.received().unwrap();
        let Some(Report::Need { from: 0, .. }) = laptop.report() else { panic!("it does not ask again") };
        laptop.line(&Instead { giver: None });
        laptop.send(&second_stream);
        laptop.received().unwrap();
        laptop.end().unwrap();
        for content in [content(), second] {
            assert!(std::fs::read(own.folder().join(sha256_hex(&content))).unwrap() == content);
        }
    })
    .await
    .unwrap();
}

#[test]
fn content_that_two_files_have_is_kept_for_the_second() {
    let file = |path: &str, sha256: &str| Wanted {
        sha256: sha256.to_owned(),
        size: 1,
        place: Place::File { path: path.to_owned(), mode: 0o755 },
    };
    let blobs = [file("/opt/a", "f00"), file("/opt/b", "bar"), file("/opt/c", "f00")];
    assert_eq!([0, 1, 2].map(|at| super::is_wanted_again(&blobs, at)), [true, false, false]);
    let folder = tempfile::tempdir().unwrap();
    let received = folder.path().join("f00");
    std::fs::write(&received, "content").unwrap();
    assert_eq!(std::fs::read(super::copy(&received).unwrap()).unwrap(), b"content");
    assert!(received.exists());
}

#[test]
fn what_is_no_announcement_ends_the_channel() {
    let (_folder, store) = store();
    let mut laptop = Laptop::start(&store);
    laptop.send(b"{\"name\": 1}\n");
    assert_eq!(laptop.end().unwrap_err().kind, Kind::Internal);
    let mut laptop = Laptop::start(&store);
    let elsewhere = Incoming { stored_sha256: "../../etc/passwd".to_owned(), ..incoming(Purpose::Stage, 0) };
    laptop.line(&elsewhere);
    assert_eq!(laptop.end().unwrap_err().kind, Kind::Internal);
}
