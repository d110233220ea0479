//! Tables of lines and verdicts; real known_hosts files are compared with what `ssh-keygen -F` finds.

use std::path::PathBuf;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rstest::rstest;

use super::{HostKey, KnownHosts, Verdict, algorithms, matches, unreadable, verdict};
use crate::ssh::testing::program;

fn key(algorithm: &str, fill: u8) -> HostKey {
    let mut blob = u32::try_from(algorithm.len()).expect("short").to_be_bytes().to_vec();
    blob.extend(algorithm.as_bytes());
    blob.extend([0, 0, 0, 32]);
    blob.extend([fill; 32]);
    HostKey::from_blob(blob).expect("a whole key")
}

fn base64(key: &HostKey) -> String {
    STANDARD.encode(&key.blob)
}

/// `MINE`, `OTHER`, `RSA` in a text stand for keys.
fn file(text: &str) -> KnownHosts {
    let text = text
        .replace("MINE", &format!("ssh-ed25519 {}", base64(&key("ssh-ed25519", 1))))
        .replace("OTHER", &format!("ssh-ed25519 {}", base64(&key("ssh-ed25519", 2))))
        .replace("RSA", &format!("ssh-rsa {}", base64(&key("ssh-rsa", 3))));
    KnownHosts { path: PathBuf::from("/k"), text }
}

fn hashed(name: &str) -> String {
    let salt = b"twenty bytes of salt";
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hmac::sign(&key, name.as_bytes())))
}

/// The verdict in short, with the line it stands on.
fn short(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Trusted => "trusted".to_owned(),
        Verdict::Unknown { authority: None } => "unknown".to_owned(),
        Verdict::Unknown { authority: Some(place) } => format!("unknown, authority {}", place.line),
        Verdict::OtherAlgorithm(places) => format!("other algorithm {}", places[0].line),
        Verdict::Changed(places) => format!("changed {}", places[0].line),
        Verdict::Revoked(place) => format!("revoked {}", place.line),
    }
}

// The first seven are the rows of crates.md section 3, in which russh's own check is wrong.
#[rstest]
#[case::revoked("@revoked node1 MINE\nnode1 MINE\n", "revoked 1")]
#[case::revoked_after("node1 MINE\n@revoked node1 MINE\n", "revoked 2")]
#[case::pattern("node* MINE\n", "trusted")]
#[case::upper_case("Node1 MINE\n", "trusted")]
#[case::tabs("node1\tMINE\n", "trusted")]
#[case::authority("@cert-authority node1 MINE\n", "unknown, authority 1")]
#[case::second_of_two("node1 OTHER\nnode1 MINE\n", "trusted")]
#[case::line_number("# one\n# two\nnode1 OTHER\n", "changed 3")]
#[case::bad_line_beside("node1 ssh-ed25519 %%%\nnode1 MINE\n", "trusted")]
#[case::only_a_bad_line("node1 ssh-ed25519 AAAA\nnode1 ssh-ed25519\nnode1\n@\n", "unknown")]
#[case::algorithm_that_is_not_the_keys("node1 ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==\n", "unknown")]
#[case::nothing("", "unknown")]
#[case::other_host("node2 MINE\n", "unknown")]
#[case::revoked_for_another_host("@revoked node2 MINE\nnode1 MINE\n", "trusted")]
#[case::revoked_everywhere("@revoked * MINE\nnode1 MINE\n", "revoked 1")]
#[case::another_key_revoked("@revoked * OTHER\nnode1 MINE\n", "trusted")]
#[case::revoked_is_not_known("@revoked * OTHER\n", "unknown")]
#[case::list("a,node1,b MINE\n", "trusted")]
#[case::negation("!node1,node* MINE\n", "unknown")]
#[case::negation_after("node*,!node1 MINE\n", "unknown")]
#[case::question_mark("node? MINE\n", "trusted")]
#[case::comment_after("node1 MINE ops@laptop # mine\n", "trusted")]
#[case::blanks_before("  \t node1   MINE\r\n", "trusted")]
#[case::commented("#node1 OTHER\n", "unknown")]
#[case::unknown_marker("@trusted node1 OTHER\n", "unknown")]
#[case::other_algorithm("node1 RSA\n", "other algorithm 1")]
#[case::other_algorithm_and_mine("node1 RSA\nnode1 MINE\n", "trusted")]
#[case::changed_beside_other_algorithm("node1 RSA\nnode1 OTHER\n", "changed 2")]
#[case::another_port("[node1]:2222 MINE\n", "unknown")]
fn files_are_judged(#[case] text: &str, #[case] expected: &str) {
    let found = verdict(&[file(text)], "node1", 22, &key("ssh-ed25519", 1));
    assert_eq!(short(&found), expected);
}

#[rstest]
#[case::with_port("[node1]:2222 MINE\n", "trusted")]
#[case::wrong_port("[node1]:2200 MINE\n", "unknown")]
#[case::same_key_without_port("node1 MINE\n", "trusted")]
#[case::other_key_without_port("node1 OTHER\n", "unknown")]
#[case::changed_with_port("node1 MINE\n[node1]:2222 OTHER\n", "changed 2")]
#[case::revoked_without_port("@revoked node1 MINE\n[node1]:2222 MINE\n", "revoked 1")]
#[case::pattern("[node*]:2222 MINE\n", "trusted")]
fn another_port_is_another_name(#[case] text: &str, #[case] expected: &str) {
    let found = verdict(&[file(text)], "node1", 2222, &key("ssh-ed25519", 1));
    assert_eq!(short(&found), expected);
}

#[test]
fn lines_that_cannot_be_read_are_found() {
    let text = "# comment\n\nnode1 MINE\nnode1 ssh-ed25519 %%%\n  # more\n@unknown node1 MINE\nnode1\n\t\n";
    assert_eq!(unreadable(&file(text).text), [4, 6, 7]);
}

#[test]
fn hashed_names_are_found() {
    let text = format!("{} MINE\n{} OTHER\n", hashed("node1"), hashed("[node2]:2222"));
    assert_eq!(verdict(&[file(&text)], "NODE1", 22, &key("ssh-ed25519", 1)), Verdict::Trusted);
    assert_eq!(short(&verdict(&[file(&text)], "node2", 2222, &key("ssh-ed25519", 1))), "changed 2");
    assert_eq!(short(&verdict(&[file(&text)], "node3", 22, &key("ssh-ed25519", 1))), "unknown");
}

#[test]
fn a_second_file_can_trust_and_revoke() {
    let (mine, theirs) = (file("node1 OTHER\n"), file("node1 MINE\n"));
    assert_eq!(verdict(&[mine.clone(), theirs], "node1", 22, &key("ssh-ed25519", 1)), Verdict::Trusted);
    let revoking = file("@revoked * MINE\n");
    assert_eq!(short(&verdict(&[mine, revoking], "node1", 22, &key("ssh-ed25519", 1))), "revoked 1");
}

#[test]
fn the_algorithms_of_a_host_are_found_once() {
    let text = "node1 RSA\nnode1 MINE\n[node1]:2222 OTHER\n@revoked node1 MINE\n";
    assert_eq!(algorithms(&[file(text)], "node1", 22), ["ssh-rsa", "ssh-ed25519"]);
    assert_eq!(algorithms(&[file(text)], "node1", 2222), ["ssh-ed25519", "ssh-rsa"]);
    assert_eq!(algorithms(&[file("@revoked node1 MINE\n")], "node1", 22), Vec::<String>::new());
}

#[test]
fn a_fingerprint_and_a_line_are_those_of_ssh_keygen() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    program("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path.display().to_string()]);
    let public = std::fs::read_to_string(path.with_extension("pub")).expect("readable");
    let blob = STANDARD.decode(public.split(' ').nth(1).expect("a key")).expect("base64");
    let key = HostKey::from_blob(blob).expect("a key");
    let listed = program("ssh-keygen", &["-lf", &path.with_extension("pub").display().to_string()]);
    assert_eq!(listed.split(' ').nth(1), Some(key.fingerprint().as_str()));
    assert!(public.starts_with(key.line("h", 22).strip_prefix("h ").expect("the name first")));
}

/// Names and hosts fields for which `ssh-keygen -F` is the judge; ssh makes the name lower case before it asks.
#[test]
fn hosts_are_matched_as_ssh_keygen_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("known_hosts");
    let (hash, hash_with_port) = (hashed("node1"), hashed("[node1]:2222"));
    let fields = [
        "node1",
        "Node1",
        "node?",
        "n*1",
        "*",
        "!node1,*",
        "*,!node2",
        "node2",
        "a,b,node1",
        "[node1]:2222",
        "[*]:2222",
        "10.0.0.*",
        "10.0.?.1",
        "node1,",
        ",node1",
        "**1",
        "node1*",
        "?node1",
        &hash,
        &hash_with_port,
    ];
    let public = format!("ssh-ed25519 {}", base64(&key("ssh-ed25519", 1)));
    for field in fields {
        std::fs::write(&path, format!("{field} {public}\n")).expect("written");
        for name in ["node1", "node2", "[node1]:2222", "10.0.0.1"] {
            let found = program("ssh-keygen", &["-F", name, "-f", &path.display().to_string()]);
            assert_eq!(matches(field, name), !found.is_empty(), "{field} for {name}: {found:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_reading(text in "\\PC{0,200}") {
        let _ = verdict(&[KnownHosts { path: PathBuf::new(), text }], "h", 22, &key("ssh-ed25519", 1));
    }
}
