//! What goes wrong between a laptop and its hosts, and the test of each. A row is a fault; what must come of it is a
//! failure with a sentence, the host's name and advice within a limit, or a run that goes on.
//!
//! | fault | test |
//! |---|---|
//! | the host does not know the key | `tests::a_refused_login_says_what_was_tried` |
//! | the passphrase is wrong, or none is given | `tests::a_passphrase_is_asked_only_for_a_key_that_is_accepted` |
//! | ssh-agent is gone | `tests::an_agent_signs` |
//! | the agent holds more keys than sshd takes | `tests::an_agent_signs`, [`sshd_loses_patience_with_a_login`] |
//! | the password is wrong | `tests::a_password_logs_in` |
//! | the host key is unknown | `tests::an_unknown_host_is_refused_or_remembered` |
//! | the host key has changed, or is revoked | `tests::a_changed_or_revoked_host_key_is_refused_always` |
//! | another host answers after the link broke | [`another_host_at_the_end_of_a_new_link_is_refused`] |
//! | the bastion is down | `tests::bastions` |
//! | the bastion forbids forwarding | `tests::bastions` |
//! | the ProxyCommand fails | `tests::bastions` |
//! | the port is closed | `tests::a_wrong_address_is_explained` |
//! | the name is not found | `tests::a_wrong_address_is_explained` |
//! | a host never answers | integration `bad_input::hosts_that_cannot_be_reached...` |
//! | sshd accepts and says nothing | `tests::a_false_greeting_is_explained` (silence) |
//! | sshd stops in the middle of its greeting | `tests::a_false_greeting_is_explained` (half_a_greeting) |
//! | a web server answers | `tests::a_false_greeting_is_explained` (not_ssh) |
//! | garbage answers | `tests::a_false_greeting_is_explained` (garbage) |
//! | 10 MB without a line end answer | [`ten_megabytes_of_greeting_are_not_read`] |
//! | a banner of 10 MB before the login | [`a_banner_of_ten_megabytes_is_no_login`] |
//! | sshd is too busy (MaxStartups) | `tests::a_busy_server_is_tried_again_within_the_limit` |
//! | many logins at once | `tests::many_get_through_a_small_max_startups` |
//! | sshd opens no channel (MaxSessions) | [`a_refused_channel_is_explained`] |
//! | sshd starts no command | `tests::a_command_that_may_not_start_is_a_failure` |
//! | forwarding is forbidden | `tests::a_tunnel_reaches_what_the_host_sees` |
//! | the host hangs: half-open connection | [`a_host_that_hangs_is_given_up`] |
//! | the link drops at 1 %, 50 %, 99 % of a transfer | [`a_link_that_drops_is_made_again`] |
//! | sshd drops the connection in a transfer | `tests::a_link_that_breaks_in_a_transfer_is_a_failure_everywhere` |
//! | sshd's process for the connection is killed | [`a_killed_connection_is_made_again`] |
//! | the keys are changed again and again in a transfer | [`a_transfer_outlives_new_keys`] |
//! | an endless line, terminal escapes | `ui::outputs::tests`, integration `fleet` |
//! | output without end that nobody reads | `tests::channels_do_not_wait_for_each_other` |
//! | a login shell that prints without end | integration `privileges::login_shells_of_every_kind...` |
//! | the agent says something that is no message | `remote::agent` |
//! | a host sends an archive that leaves its folder | `cluster::copy::tests::a_hostile_archive_stays_in_its_folder` |
//! | a file is cut on its way | `cluster::copy::tests::a_file_that_is_cut_is_not_there` |
//! | the disk fills up at 50 % | integration `fleet`, `bad_input::a_disk_that_fills_up...` |
//! | a blob is changed on its way | integration `bad_input::a_corrupt_blob_is_noticed...` |
//! | the agent is killed in a run | integration `interruption` |
//! | the link of a host is cut in an `up` | integration `interruption::a_lost_link_is_made_again...` |
//! | sudo: wrong password, no password, no right | integration `privileges` |
//! | sudo wants a terminal; doas with a password | integration `privileges` |
//! | no Linux, or an unknown architecture | integration `bad_input` |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rstest::rstest;

use super::super::connection::{connect_lasting_with, connect_with};
use super::super::target::Target;
use super::super::testing::{Answers, Sshd, Way, Ways, false_server, make_key, no_sources, target};
use super::{Connection, MINUTE, connect, refused, says};
use crate::failure::{Kind, Result, Retry};

async fn lasting(target: &Target) -> Result<Connection> {
    connect_lasting_with(target, Arc::new(Answers::default()), &no_sources()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_greeting_are_not_read() {
    let port = says(Box::leak(vec![b'x'; 10 << 20].into_boxed_slice()), true).await;
    let began = Instant::now();
    let failure = refused(&Target { connect_limit: Duration::from_secs(5), ..target("w1", port) }).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Connection, Some("w1")));
    assert!(failure.to_string().len() < 1000 && failure.advice.is_some(), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banner_of_ten_megabytes_is_no_login() {
    let server = false_server(Ways::HugeBanner, 0).await;
    let began = Instant::now();
    let failure = refused(&Target { connect_limit: Duration::from_secs(10), ..server.target(Some("secret")) }).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Connection, Some("w1")));
    assert!(failure.detail.as_deref().unwrap_or_default().len() < 10_000, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sshd_loses_patience_with_a_login() {
    let sshd = Sshd::start("MaxAuthTries 1");
    let strangers = (0..3).map(|n| make_key(sshd.folder.path(), &format!("stranger{n}"), "ed25519", "")).collect();
    let failure = refused(&Target { identities: strangers, ..sshd.target(None) }).await;
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Authentication, Some("cp1")));
    assert!(failure.to_string().contains("stranger0") && failure.advice.is_some(), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_channel_is_explained() {
    let sshd = Sshd::start("MaxSessions 1");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");
    let _first = connection.exec("cat").await.expect("the one that is allowed");
    let failure = connection.exec("true").await.expect_err("one too many");
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Connection, Some("cp1")));
    assert!(failure.sentence.contains("opens no channel for the command \"true\""), "{failure}");
    assert!(failure.advice.is_some_and(|advice| advice.contains("MaxSessions")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_is_given_up() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let target = Target { keepalive: (Duration::from_millis(200), 2), ..sshd.target(Some(&key)) };
    let connection = connect(&target).await.expect("logged in");
    let mut channel = connection.exec("cat").await.expect("started");
    sshd.signal_connections("STOP");
    let began = Instant::now();
    let failure = tokio::time::timeout(MINUTE, channel.recv()).await.expect("in time").expect_err("it hangs");
    sshd.signal_connections("KILL");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((failure.kind, failure.host.as_deref(), failure.retry), (Kind::Connection, Some("cp1"), Retry::MayHelp));
    assert!(failure.to_string().contains("has not answered"), "{failure}");
}

const SIZE: usize = 8 << 20;

#[rstest]
#[case::at_once(1)]
#[case::half_way(50)]
#[case::at_the_end(99)]
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_drops_is_made_again(#[case] percent: u64) {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let way = Way::to(sshd.port).await;
    let target = way.target(&sshd, &key);
    let (once, again) = (connect(&target).await.expect("logged in"), lasting(&target).await.expect("logged in"));
    for (connection, lasts) in [(&once, false), (&again, true)] {
        let input = Bytes::from(vec![7; SIZE]);
        way.allowance.store(SIZE as u64 * percent / 100, Ordering::Relaxed);
        let failure = connection.run("cat | wc -c", input.clone(), MINUTE).await.expect_err("the link dropped");
        assert_eq!((failure.kind, failure.retry), (Kind::Connection, Retry::MayHelp), "{failure}");
        way.allowance.store(u64::MAX, Ordering::Relaxed);
        let repeated = connection.run("cat | wc -c", input, MINUTE).await;
        match lasts {
            true => assert_eq!(repeated.expect("made again").stdout.trim_ascii(), SIZE.to_string().as_bytes()),
            false => assert_eq!(repeated.expect_err("it stays lost").kind, Kind::Connection),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_is_made_again() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = lasting(&sshd.target(Some(&key))).await.expect("logged in");
    for _ in 0..3 {
        let mut channel = connection.exec("cat").await.expect("started");
        sshd.signal_connections("KILL");
        let failure = tokio::time::timeout(MINUTE, channel.recv()).await.expect("in time").expect_err("killed");
        assert_eq!(failure.kind, Kind::Connection);
        // All who need it at the same time share the new link.
        let runs = (0..5).map(|_| connection.run("echo here", Bytes::new(), MINUTE));
        for output in futures::future::join_all(runs).await {
            assert_eq!(output.expect("made again").stdout.as_ref(), b"here\n");
        }
    }
    connection.close().await;
    assert_eq!(connection.exec("true").await.expect_err("closed on purpose").kind, Kind::Connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_at_the_end_of_a_new_link_is_refused() {
    let (sshd, other) = (Sshd::start(""), Sshd::start(""));
    let key = sshd.user_key("user", "ed25519", "");
    other.authorize(&key);
    let way = Way::to(sshd.port).await;
    let connection = lasting(&way.target(&sshd, &key)).await.expect("logged in");
    way.server.store(other.port, Ordering::Relaxed);
    way.cut();
    connection.closed().await;
    let failure = connection.exec("true").await.expect_err("another host");
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::HostKey, Some("cp1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_outlives_new_keys() {
    let sshd = Sshd::start("RekeyLimit 1M");
    let key = sshd.user_key("user", "ed25519", "");
    let connection = connect(&sshd.target(Some(&key))).await.expect("logged in");
    let input = Bytes::from((0..12_000_000_u32).map(|i| u8::try_from(i / 3 % 251).unwrap_or(0)).collect::<Vec<u8>>());
    let output = connection.run("cat", input.clone(), MINUTE).await.expect("ran");
    assert!(output.success() && output.stdout == input, "{} bytes came back", output.stdout.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn version_six_of_ip_works() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let sshd = Sshd::start("ListenAddress ::1");
    let key = sshd.user_key("user", "ed25519", "");
    let known = sshd.folder.path().join("known_six");
    std::fs::write(&known, sshd.known_line("ed25519").replace("127.0.0.1", "::1")).expect("written");
    let target = Target { address: "::1".to_owned(), known_hosts: vec![known], ..sshd.target(Some(&key)) };
    let connection = connect_with(&target, &Answers::default(), &no_sources()).await.expect("logged in");
    let output = connection.run("echo $SSH_CONNECTION", Bytes::new(), MINUTE).await.expect("ran");
    assert!(output.stdout.starts_with(b"::1 "), "{output:?}");
    let failure = refused(&Target { port: 1, ..target }).await;
    assert!(failure.sentence.contains("::1 port 1 refuses connections"), "{failure}");
}
