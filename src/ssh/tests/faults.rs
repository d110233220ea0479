//! What goes wrong between a laptop and its hosts, and the test of each. A row is a fault; what must come of it is a
//! failure with a sentence, the host's name and advice within a limit, or a run that goes on.
//!
//! | fault | test |
//! |---|---|
//! | the host does not know the key | `a_refused_login_says_what_was_tried` |
//! | the passphrase is wrong, or none is given | `a_passphrase_is_asked_only_for_a_key_that_is_accepted` |
//! | ssh-agent is gone | `an_agent_signs` |
//! | ssh-agent accepts and says nothing | `an_agent_that_says_nothing_is_left_out` |
//! | nobody touches the device, or takes long to | `a_device_that_nobody_touched_is_refused_by_the_host`, `a_person_may_take_time_to_touch_the_device_for_each_host` |
//! | the agent holds more keys than sshd takes | `an_agent_signs`, `sshd_loses_patience_with_a_login` |
//! | the password is wrong | `a_password_logs_in` |
//! | the host key is unknown | `an_unknown_host_is_refused_or_remembered` |
//! | the host key has changed, or is revoked | `a_changed_or_revoked_host_key_is_refused_always` |
//! | another host answers after the link broke | `another_host_at_the_end_of_a_new_link_is_refused` |
//! | the bastion is down, refuses the login, forbids forwarding | `what_is_wrong_with_a_bastion_is_said_of_the_bastion` |
//! | the bastion says nothing | `a_bastion_that_is_silent_is_waited_for_once` |
//! | the bastion's link drops under many hosts | `a_bastion_that_is_lost_is_logged_in_to_once_more_for_all` |
//! | the bastion leads to itself | `a_bastion_that_leads_to_itself_is_refused` |
//! | the ProxyCommand fails | `a_command_leads_to_a_host` |
//! | the port is closed, the name is not found | `a_wrong_address_is_explained` |
//! | the host never answers | `hosts_that_cannot_be_reached_are_all_named_and_the_others_left_alone` |
//! | sshd accepts and says nothing | `a_false_greeting_is_explained` |
//! | sshd stops in the middle of its greeting | `a_false_greeting_is_explained` |
//! | a web server answers, garbage answers | `a_false_greeting_is_explained` |
//! | 10 MB without a line end answer | `ten_megabytes_of_greeting_are_not_read` |
//! | a banner of 10 MB before the login | `a_banner_of_ten_megabytes_is_no_login` |
//! | sshd is too busy (MaxStartups) | `a_busy_server_is_tried_again_within_the_limit` |
//! | many logins at once | `many_get_through_a_small_max_startups` |
//! | sshd opens no channel (MaxSessions) | `a_refused_channel_is_explained` |
//! | sshd starts no command | `a_command_that_may_not_start_is_a_failure` |
//! | forwarding is forbidden | `a_tunnel_reaches_what_the_host_sees` |
//! | the host hangs: a half-open connection | `a_host_that_hangs_is_given_up` |
//! | the link drops at 1 %, 50 %, 99 % of a transfer, of a blob | `a_link_that_drops_is_made_again`, `a_link_that_breaks_in_the_middle_of_a_blob_is_made_again_and_nothing_is_sent_twice` |
//! | sshd drops the connection in a transfer | `a_link_that_breaks_in_a_transfer_is_a_failure_everywhere` |
//! | sshd's process for the connection is killed | `a_killed_connection_is_made_again` |
//! | the keys are changed again and again in a transfer | `a_transfer_outlives_new_keys` |
//! | terminal escapes from a host | `pieces_become_harmless_lines`, `commands_and_files_reach_many_hosts` |
//! | an endless line | `a_line_without_end_is_shown_in_pieces_and_not_kept` |
//! | output without end that nobody reads | `channels_do_not_wait_for_each_other` |
//! | a login shell that prints without end | `login_shells_of_every_kind_and_homes_of_every_state` |
//! | a home that is full or read-only, a /tmp that runs nothing | `login_shells_of_every_kind_and_homes_of_every_state` |
//! | an archive that leaves its folder | `a_hostile_archive_stays_in_its_folder` |
//! | a file is cut on its way | `a_file_that_is_cut_is_not_there` |
//! | the disk fills up at 50 % | `commands_and_files_reach_many_hosts`, `a_disk_that_fills_up_while_bytes_arrive_is_a_sentence_and_the_next_run_goes_on` |
//! | a blob is changed on its way | `a_corrupt_blob_is_noticed_on_the_host_before_it_is_used`, `damage_is_noticed_leaves_nothing_and_stops_nothing` |
//! | the agent is killed in a run | `whatever_ends_a_run_the_same_command_finishes` |
//! | the links of hosts are cut in an `up` | `a_lost_link_is_made_again_and_the_run_goes_on` |
//! | the lost agent still holds the lock | `the_lost_connection_goes_with_all_that_came_of_it` |
//! | sudo: wrong password, no password, what the host records of it | `a_host_records_few_failures_of_a_wrong_password_and_none_without` |
//! | sudo: wrong password, no password, no right | `a_wrong_sudo_password_a_missing_one_and_a_missing_right_are_told_apart` |
//! | sudo wants a terminal; doas asks for a password | `sudo_that_wants_a_terminal_and_doas` |
//! | no Linux, or an unknown architecture | `a_host_that_runs_no_linux_or_an_unknown_architecture_is_refused` |
//! | the clock of the host is wrong | `certificates_out_of_place_or_time_are_told`, `a_slow_answer_is_no_skew` |

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rstest::rstest;

use super::super::connection::{connect_lasting_with, connect_with};
use super::super::target::{Family, Target};
use super::super::testing::{Answers, Sshd, Way, Ways, false_server, make_key, no_sources, target};
use super::{Connection, MINUTE, connect, refused, says};
use crate::cancel::Cancel;
use crate::failure::{Kind, Result, Retry};

async fn lasting(target: &Target) -> Result<Connection> {
    lasting_until(target, &Cancel::new()).await
}

async fn lasting_until(target: &Target, cancel: &Cancel) -> Result<Connection> {
    connect_lasting_with(target, Arc::new(Answers::default()), &no_sources(), cancel).await
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
    assert!(failure.to_string().contains("the host has not answered for 0.6 seconds"), "{failure}");
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
async fn nobody_who_asked_for_the_end_waits_for_a_host_to_come_back() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let (way, cancel) = (Way::to(sshd.port).await, Cancel::new());
    let connection = lasting_until(&way.target(&sshd, &key), &cancel).await.expect("logged in");
    // Nobody listens where the way leads now: each attempt is refused.
    way.server.store(1, Ordering::Relaxed);
    way.cut();
    connection.closed().await;
    let began = Instant::now();
    let ask = async {
        let _ = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
        cancel.request();
    };
    let (waited, ()) = futures::join!(connection.exec("true"), ask);
    let failure = waited.expect_err("the end was asked for");
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Interrupted, Some("cp1")), "{failure}");
    assert!(failure.to_string().contains("the connection broke before"), "{failure}");
    // What is in hand is tried once more, not for a minute.
    assert_eq!(connection.exec("true").await.expect_err("nobody is there").kind, Kind::Connection);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    way.server.store(sshd.port, Ordering::Relaxed);
    assert!(connection.run("true", Bytes::new(), MINUTE).await.is_ok_and(|output| output.success()));
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
    std::net::TcpListener::bind("[::1]:0").expect("this test needs IPv6 on loopback");
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

#[rstest]
#[case::address("127.0.0.2", Ok("127.0.0.2 "))]
#[case::name("localhost", Ok("127.0.0.1 "))]
#[case::other_family("::1", Err("BindAddress ::1 has no address of the host's family"))]
#[case::nobody("no-such-host.invalid", Err("BindAddress no-such-host.invalid "))]
#[case::elsewhere("192.0.2.1", Err("cannot connect to 127.0.0.1"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_comes_from_where_it_is_told(
    #[case] from: &str,
    #[case] expected: std::result::Result<&str, &str>,
) {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let target = Target { bind_address: Some(from.to_owned()), ..sshd.target(Some(&key)) };
    match (connect(&target).await, expected) {
        (Ok(connection), Ok(expected)) => {
            let output = connection.run("echo $SSH_CONNECTION", Bytes::new(), MINUTE).await.expect("ran");
            assert!(output.stdout.starts_with(expected.as_bytes()), "{output:?}");
        }
        (Err(failure), Err(expected)) => assert!(failure.to_string().contains(expected), "{failure}"),
        (found, _) => panic!("{found:?} from {from}"),
    }
}

#[rstest]
#[case::four(Family::Four, true)]
#[case::six(Family::Six, false)]
#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_one_family_are_dialled(#[case] family: Family, #[case] reached: bool) {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let target = Target { family: Some(family), ..sshd.target(Some(&key)) };
    match connect(&target).await {
        Ok(_) => assert!(reached),
        Err(failure) => {
            assert!(!reached && failure.to_string().contains("AddressFamily leaves none of those"), "{failure}");
        }
    }
}

#[test]
fn every_row_of_the_table_names_a_test() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => sources(&path, text),
                path if path.extension().is_some_and(|extension| extension == "rs") => {
                    text.push_str(&std::fs::read_to_string(path).expect("a source"));
                }
                _ => {}
            }
        }
    }
    let mut all = String::new();
    ["src", "tests"].iter().for_each(|folder| sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all));
    let rows: Vec<&str> = include_str!("faults.rs").lines().filter_map(|line| line.strip_prefix("//! | ")).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows.iter().skip(1) {
        let tests: Vec<&str> =
            row.rsplit_once("| `").map(|(_, tests)| tests.split('`').step_by(2).collect()).unwrap_or_default();
        assert!(!tests.is_empty(), "{row}");
        for test in tests.iter().filter(|test| !test.contains('|')) {
            assert!(all.contains(&format!("fn {test}(")), "there is no test {test}: {row}");
        }
    }
}
