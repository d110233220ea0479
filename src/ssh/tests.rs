//! Against a real sshd: what people have. Against false servers: what goes wrong.

mod bastions;
mod device;
mod faults;
mod host_keys;
mod logins;
mod parallel;
mod settings;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::{Connection, connect_with};
use super::login::Sources;
use super::output::{Chunk, Exit};
use super::target::Target;
use super::testing::{Agent, Answers, Sshd, Ways, command, false_server, free_port, make_key, no_sources, target};
use crate::failure::{Failure, Kind, Result, Retry};
use crate::inventory::HostKeys;
use crate::secret::Secret;

const MINUTE: Duration = Duration::from_secs(60);

async fn connect(target: &Target) -> Result<Connection> {
    connect_with(target, &Answers::default(), &no_sources()).await
}

async fn refused(target: &Target) -> Failure {
    connect(target).await.map(|connection| format!("{connection:?}")).expect_err("must not connect")
}

/// Connecting and all that follows happens in tasks of a runtime with several threads.
#[test]
fn the_public_futures_can_be_spawned() {
    fn sendable<T: Send>(_: &T) {}
    fn shareable<T: Send + Sync>() {}
    let (target, answers) = (target("cp1", 22), Answers::default());
    sendable(&super::connect(&target, &answers));
    shareable::<Connection>();
    shareable::<super::Writer>();
    shareable::<super::Reader>();
    shareable::<super::Tunnel>();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_opened_ahead_is_that_of_the_next_command() {
    let sshd = Sshd::start("MaxSessions 1");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");
    connection.open_ahead().await;
    // One is enough.
    connection.open_ahead().await;
    let (mut writer, mut reader) = connection.exec("cat").await.expect("the one that is open").split();
    // Another one is refused; where it is opened ahead, nobody is told.
    connection.open_ahead().await;
    assert_eq!(connection.exec("true").await.expect_err("no room").kind, Kind::Connection);
    writer.send(Bytes::from_static(b"said")).await.expect("read");
    writer.finish().await.expect("ended");
    assert!(matches!(reader.recv().await, Ok(Some(Chunk::Stdout(said))) if said.as_ref() == b"said"));
    assert_eq!(reader.exit().await.expect("ended"), Some(Exit::Status(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_on_a_real_sshd() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");
    assert!(connection.server_version().starts_with("OpenSSH_"), "{}", connection.server_version());
    assert!(connection.round_trip() > Duration::ZERO && connection.round_trip() < Duration::from_secs(5));
    let run = async |command: &str, input: Bytes| connection.run(command, input, MINUTE).await.expect("ran");

    let output = run("echo out; echo err >&2; exit 3", Bytes::new()).await;
    assert_eq!(
        (output.stdout.as_ref(), output.stderr.as_str(), output.status),
        (&b"out\n"[..], "err\n", Exit::Status(3))
    );

    let output = run("kill -KILL $$", Bytes::new()).await;
    assert_eq!(output.status, Exit::Signal("KILL".to_owned()));

    let input = Bytes::from((0..3_000_000_u32).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect::<Vec<u8>>());
    let output = run("cat", input.clone()).await;
    assert!(output.success() && output.stdout == input, "{} bytes came back", output.stdout.len());

    // A command that does not want its input is no failure.
    assert!(run("true", input.clone()).await.success());

    // The tail of standard error is bounded, its end is kept.
    let output = run("yes 0123456789abcdef | head -c 400000 >&2; echo the end >&2", Bytes::new()).await;
    assert!(output.stderr.len() <= 64 << 10 && output.stderr.ends_with("the end\n"), "{}", output.stderr.len());

    let failure = connection.run("head -c 17000000 /dev/zero", Bytes::new(), MINUTE).await.expect_err("too much");
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Host, Some("cp1")));

    let began = Instant::now();
    let failure = connection.run("cat", Bytes::new(), Duration::from_millis(1)).await;
    assert!(failure.is_err() || began.elapsed() < Duration::from_secs(1));
    let failure = connection.run("exec tail -f --pid=$PPID /dev/null", Bytes::new(), Duration::from_millis(300)).await;
    assert!(failure.expect_err("it never ends").sentence.contains("did not end within 0.3 seconds"));

    connection.close().await;
    assert!(connection.is_closed());
    assert!(connection.closed().await.sentence.ends_with("was closed by clusterctl"));
    assert_eq!(connection.exec("true").await.expect_err("closed").kind, Kind::Connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_do_not_wait_for_each_other() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");

    // Nobody reads this one; many small packets are what froze a connection (crates.md section 2e.6).
    let chatty = connection.exec("dd if=/dev/zero bs=64 count=200000 2>/dev/null; echo done").await.expect("started");
    for _ in 0..5 {
        let output = connection.run("echo here", Bytes::new(), Duration::from_secs(10)).await.expect("answered");
        assert_eq!(output.stdout.as_ref(), b"here\n");
    }
    let (_, mut reader) = chatty.split();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.expect("read");
    assert_eq!(all.len(), 64 * 200_000 + 5);
    assert_eq!(reader.exit().await.expect("ended"), Some(Exit::Status(0)));

    // More than can be kept ends that channel only; its pump ends then, which the writer notices.
    let mut flood = connection.exec("cat /dev/zero").await.expect("started");
    let mut other = connection.exec("cat").await.expect("started");
    while flood.send(Bytes::from_static(b"x")).await.is_ok() {
        connection.run("true", Bytes::new(), MINUTE).await.expect("ran");
    }
    let failure = loop {
        match flood.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("zeros do not end"),
            Err(failure) => break failure,
        }
    };
    assert!(failure.sentence.contains("sends more than can be taken"), "{failure}");
    other.send(Bytes::from_static(b"still here")).await.expect("sent");
    other.finish().await.expect("finished");
    let mut text = Vec::new();
    while let Some(chunk) = other.recv().await.expect("read") {
        if let Chunk::Stdout(bytes) = chunk {
            text.extend_from_slice(&bytes);
        }
    }
    assert!(text.ends_with(b"still here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_channel() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");
    let fifo = sshd.folder.path().join("ended");
    let made = command("mkfifo").arg(&fifo).status().expect("mkfifo starts");
    assert!(made.success());
    // It reads its input to the end, then says so through the fifo.
    let channel = connection.exec(&format!("cat >/dev/null; echo ended >{}", fifo.display())).await.expect("started");
    drop(channel);
    let told = tokio::time::timeout(MINUTE, tokio::fs::read_to_string(&fifo)).await.expect("in time");
    assert_eq!(told.expect("readable"), "ended\n");

    let mut channel = connection.exec("exec 0<&-; exit 1").await.expect("started");
    let failure = loop {
        if let Err(failure) = channel.send(Bytes::from(vec![0; 1 << 20])).await {
            break failure;
        }
    };
    assert_eq!(failure.kind, Kind::Host);
    assert!(failure.sentence.contains("ended before it took all of its input"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_reaches_what_the_host_sees() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("read");
            stream.write_all(text.to_uppercase().as_bytes()).await.expect("written");
        }
    });
    let mut tunnel = connection.direct_tcpip("127.0.0.1", port).await.expect("opened");
    tunnel.write_all(b"hello").await.expect("written");
    tunnel.shutdown().await.expect("half closed");
    let mut text = String::new();
    tunnel.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "HELLO");

    let failure = connection.direct_tcpip("127.0.0.1", free_port()).await.expect_err("nothing there");
    assert!(failure.sentence.starts_with("nothing answers at 127.0.0.1 port"), "{failure}");

    let strict = Sshd::start("AllowTcpForwarding no");
    let key = strict.user_key("user", "ed25519", "");
    let connection = connect(&strict.target(Some(&key))).await.expect("logged in");
    let failure = connection.direct_tcpip("127.0.0.1", port).await.expect_err("not allowed");
    assert!(failure.advice.is_some_and(|advice| advice.contains("AllowTcpForwarding")), "{}", failure.sentence);
}

#[rstest]
#[case::ecdsa("ecdsa")]
#[case::rsa("rsa")]
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_log_in(#[case] kind: &str) {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", kind, "");
    connect(&sshd.target(Some(&key))).await.expect("logged in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_is_asked_only_for_a_key_that_is_accepted() {
    let sshd = Sshd::start("");
    let good = sshd.user_key("good", "ed25519", "open sesame");
    let other = make_key(sshd.folder.path(), "other", "ed25519", "something else");
    let target = Target { identities: vec![other, good], ..sshd.target(None) };

    let answers = Answers::with("open sesame");
    connect_with(&target, &answers, &no_sources()).await.expect("logged in");
    assert_eq!((answers.passphrases.load(Ordering::Relaxed), answers.passwords.load(Ordering::Relaxed)), (1, 0));

    let wrong = Answers::with("wrong");
    let failure = connect_with(&target, &wrong, &no_sources()).await.expect_err("wrong passphrase");
    assert_eq!((failure.kind, wrong.passphrases.load(Ordering::Relaxed)), (Kind::Authentication, 2));
    assert!(failure.to_string().contains("the passphrase is wrong"), "{failure}");
    let failure = refused(&target).await;
    assert!(failure.to_string().contains("no passphrase was given"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_signs() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("held", "rsa", "");
    let strangers: Vec<PathBuf> =
        (0..6).map(|n| make_key(sshd.folder.path(), &format!("stranger{n}"), "ed25519", "")).collect();
    let mut keys: Vec<_> = strangers.iter().map(PathBuf::as_path).collect();
    keys.push(&key);
    let agent = Agent::start(&keys);

    // The named key comes first although the agent holds it last: a public file is enough to name it.
    let public = key.with_extension("pub");
    let target = Target { agent: true, identities: vec![public.clone()], ..sshd.target(None) };
    connect_with(&target, &Answers::default(), &agent.sources()).await.expect("logged in");

    // Without a name the strangers use up the attempts, and we stop before sshd does.
    let unnamed = Target { identities: Vec::new(), ..target.clone() };
    let failure = connect_with(&unnamed, &Answers::default(), &agent.sources()).await.expect_err("too many");
    assert_eq!((failure.kind, failure.causes.len()), (Kind::Authentication, super::authentication::KEYS + 2));
    let rest = &failure.causes[super::authentication::KEYS];
    assert_eq!(rest, "2 more keys were not offered; name the right one with identity");
    assert!(failure.causes[0].starts_with("agent key stranger0 (ssh-ed25519 SHA256:"), "{failure}");

    let without = Target { agent: false, ..target };
    let failure = connect_with(&without, &Answers::default(), &agent.sources()).await.expect_err("no agent");
    assert!(failure.to_string().contains("a public key that no agent holds"), "{failure}");

    let gone = Sources { agent: Some(sshd.folder.path().join("no agent")), home: None };
    let target = Target { agent: true, ..sshd.target(Some(&key)) };
    connect_with(&target, &Answers::default(), &gone).await.expect("a dead agent does not matter");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_files_are_tried_when_none_is_named() {
    let sshd = Sshd::start("");
    let folder = sshd.folder.path().join(".ssh");
    std::fs::create_dir(&folder).expect("made");
    sshd.authorize(&make_key(&folder, "id_ecdsa", "ecdsa", ""));
    make_key(&folder, "id_ed25519", "ed25519", "");
    let sources = Sources { agent: None, home: Some(sshd.folder.path().to_owned()) };
    connect_with(&sshd.target(None), &Answers::default(), &sources).await.expect("logged in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_what_was_tried() {
    let sshd = Sshd::start("");
    let stranger = make_key(sshd.folder.path(), "stranger", "ed25519", "");
    let missing = sshd.folder.path().join("missing");
    let failure = refused(&Target { identities: vec![missing, stranger], ..sshd.target(None) }).await;
    assert_eq!(
        (failure.kind, failure.host.as_deref(), failure.retry),
        (Kind::Authentication, Some("cp1"), Retry::Useless)
    );
    let text = failure.to_string();
    for part in ["missing: No such file", "stranger (ssh-ed25519 SHA256:", "): refused", "the host allows publickey"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let failure = refused(&sshd.target(None)).await;
    assert!(failure.sentence.ends_with("there is no key or password to try"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_refused_or_remembered() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let known = sshd.folder.path().join("new/known_hosts");
    let strict = Target { known_hosts: vec![known.clone()], ..sshd.target(Some(&key)) };
    let failure = refused(&strict).await;
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::HostKey, Some("cp1")));
    assert!(failure.sentence.contains("is not known: it shows ssh-ed25519 SHA256:"), "{failure}");
    assert!(!known.exists());

    let accepting = Target { host_keys: HostKeys::AcceptNew, ..strict.clone() };
    connect(&accepting).await.expect("accepted");
    let line = std::fs::read_to_string(&known).expect("written");
    assert!(sshd.known_line("ed25519").starts_with(line.trim_end()), "{line}");
    connect(&strict).await.expect("known now");

    // OpenSSH's own client reads what we wrote.
    let mut ssh = command("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "GlobalKnownHostsFile=none",
    ])
    .arg("-o")
    .arg(format!("UserKnownHostsFile={}", known.display()))
    .args(["-p", &sshd.port.to_string(), "-i"])
    .arg(&key)
    .args([&format!("{}@127.0.0.1", strict.user), "true"]);
    let status = tokio::task::spawn_blocking(move || ssh.status()).await.expect("waited").expect("ssh starts");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_or_revoked_host_key_is_refused_always() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let other = make_key(sshd.folder.path(), "other_host", "ed25519", "");
    let public = std::fs::read_to_string(other.with_extension("pub")).expect("readable");
    let known = sshd.folder.path().join("known");
    std::fs::write(&known, format!("# a comment\n[127.0.0.1]:{} {public}", sshd.port)).expect("written");
    let target = Target { known_hosts: vec![known.clone()], ..sshd.target(Some(&key)) };
    for host_keys in [HostKeys::Strict, HostKeys::AcceptNew] {
        let failure = refused(&Target { host_keys, ..target.clone() }).await;
        assert_eq!(failure.kind, Kind::HostKey);
        assert!(failure.sentence.contains("has changed: it shows ssh-ed25519 SHA256:"), "{failure}");
        assert!(failure.causes[0].starts_with(&format!("{}:2 has ssh-ed25519 SHA256:", known.display())), "{failure}");
        let forget = format!("ssh-keygen -R '[127.0.0.1]:{}' -f {}", sshd.port, known.display());
        assert!(failure.advice.is_some_and(|advice| advice.contains(&forget)));
    }

    let line = sshd.known_line("ed25519");
    std::fs::write(&known, format!("{line}@revoked {line}")).expect("written");
    for host_keys in [HostKeys::Strict, HostKeys::AcceptNew] {
        let failure = refused(&Target { host_keys, ..target.clone() }).await;
        assert_eq!(failure.kind, Kind::HostKey);
        assert!(failure.sentence.contains(&format!("is revoked by {}:2", known.display())), "{failure}");
    }
}

/// The server prefers its ed25519 key; the client must ask for the one it knows.
#[rstest]
#[case::rsa(&["rsa"])]
#[case::ecdsa(&["ecdsa"])]
#[case::two(&["rsa", "ecdsa"])]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_known_by_another_kind_of_key_shows_that_one(#[case] kinds: &[&str]) {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let target = Target { known_hosts: vec![sshd.known_hosts(kinds)], ..sshd.target(Some(&key)) };
    connect(&target).await.expect("known");
}

#[rstest]
#[case::plain(Ways::Password)]
#[case::interactive(Ways::Interactive)]
#[tokio::test(flavor = "multi_thread")]
async fn a_password_logs_in(#[case] ways: Ways) {
    let server = false_server(ways, 0).await;
    let target = server.target(None);
    connect(&Target { password: Some(Secret::new("secret")), ..target.clone() }).await.expect("logged in");

    let answers = Answers::with("secret");
    connect_with(&target, &answers, &no_sources()).await.expect("logged in");
    assert_eq!(answers.passwords.load(Ordering::Relaxed), 1);

    let failure = refused(&Target { password: Some(Secret::new("wrong")), ..target.clone() }).await;
    assert_eq!(failure.kind, Kind::Authentication);
    assert!(failure.causes[0].starts_with("password") && !failure.to_string().contains("wrong"), "{failure}");
    assert_eq!(failure.detail.as_deref(), Some("Property of the tests"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_tried_again_within_the_limit() {
    let server = false_server(Ways::Password, 3).await;
    let target = server.target(Some("secret"));
    connect(&target).await.expect("the fourth attempt");

    let server = false_server(Ways::Password, 1000).await;
    let target = Target { connect_limit: Duration::from_secs(1), ..server.target(None) };
    let began = Instant::now();
    let failure = refused(&target).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(failure.sentence.contains("closes the connection before sshd's greeting"), "{failure}");
    assert!(failure.causes.iter().any(|cause| cause.contains("times within 1 seconds")), "{failure}");
    assert_eq!((failure.kind, failure.retry), (Kind::Connection, Retry::MayHelp));
}

/// Ten at once where sshd takes two at a time: it drops the others before its greeting.
#[tokio::test(flavor = "multi_thread")]
async fn many_get_through_a_small_max_startups() {
    let sshd = Sshd::start("MaxStartups 2:100:2");
    let key = sshd.user_key("user", "ed25519", "");
    let target = sshd.target(Some(&key));
    let attempts = (0..10).map(|_| connect(&target));
    for connection in futures::future::join_all(attempts).await {
        connection.expect("logged in at last");
    }
}

/// Says something to whoever connects and waits, or closes.
async fn says(greeting: &'static [u8], closes: bool) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(greeting).await;
            if !closes {
                held.push(stream);
            }
        }
    });
    port
}

#[rstest]
#[case::not_ssh(
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    true,
    "what answers at 127.0.0.1 port PORT is not SSH: it says \"HTTP/1.1 400 Bad Request\""
)]
#[case::garbage(&[0xff; 600], true, "what answers at 127.0.0.1 port PORT is not SSH")]
#[case::silence(b"", false, "127.0.0.1 port PORT took the connection but sent no SSH greeting within 1 seconds")]
#[case::half_a_greeting(
    b"SSH-2.0-half\r\n",
    false,
    "the key exchange with 127.0.0.1 port PORT did not end within 1 seconds"
)]
#[case::busy(b"Exceeded MaxStartups\r\n", true, "sshd at 127.0.0.1 port PORT takes no connection now")]
#[tokio::test(flavor = "multi_thread")]
async fn a_false_greeting_is_explained(#[case] greeting: &'static [u8], #[case] closes: bool, #[case] sentence: &str) {
    let port = says(greeting, closes).await;
    let target = Target { connect_limit: Duration::from_secs(1), ..target("w1", port) };
    let began = Instant::now();
    let failure = refused(&target).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Connection, Some("w1")));
    assert!(failure.sentence.starts_with(&sentence.replace("PORT", &port.to_string())), "{failure}");
    assert!(failure.advice.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_explained() {
    let failure = refused(&target("w1", free_port())).await;
    assert!(failure.sentence.ends_with("refuses connections"), "{failure}");
    let nowhere = Target { address: "no-such-host.invalid".to_owned(), ..target("w1", 22) };
    let failure = refused(&nowhere).await;
    assert!(failure.sentence.contains("cannot find the address of no-such-host.invalid"), "{failure}");
    assert_eq!((failure.kind, failure.retry), (Kind::Connection, Retry::MayHelp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_in_a_transfer_is_a_failure_everywhere() {
    let server = false_server(Ways::DropsInTransfer, 0).await;
    let target = server.target(Some("secret"));
    let connection = connect(&target).await.expect("logged in");
    let watched = connection.clone();
    let closed = tokio::spawn(async move { watched.closed().await });
    let (mut writer, mut reader) = connection.exec("cat").await.expect("started").split();
    let sending = async {
        loop {
            if let Err(failure) = writer.send(Bytes::from(vec![7; 256 << 10])).await {
                return failure;
            }
        }
    };
    let failure = tokio::time::timeout(MINUTE, sending).await.expect("in time");
    assert_eq!((failure.kind, failure.host.as_deref(), failure.retry), (Kind::Connection, Some("w1"), Retry::MayHelp));
    assert_eq!(reader.recv().await.expect_err("lost").kind, Kind::Connection);
    let failure = tokio::time::timeout(MINUTE, closed).await.expect("in time").expect("told");
    assert!(failure.sentence.ends_with("broke"), "{failure}");
    assert!(connection.is_closed());
    assert_eq!(connection.exec("true").await.expect_err("lost").kind, Kind::Connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_may_not_start_is_a_failure() {
    let server = false_server(Ways::RefusesCommands, 0).await;
    let target = server.target(Some("secret"));
    let connection = connect(&target).await.expect("logged in");
    let failure = connection.run("true", Bytes::new(), MINUTE).await.expect_err("refused");
    assert!(failure.sentence.starts_with("sshd refused to start the command \"true\""), "{failure}");
}
