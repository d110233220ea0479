//! Certificates, questions and the order of ways to log in, against real sshds and false servers.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rstest::rstest;

use super::{connect, refused};
use crate::failure::Kind;
use crate::ssh::config::Algorithms;
use crate::ssh::connection::connect_with;
use crate::ssh::login::Sources;
use crate::ssh::target::Target;
use crate::ssh::testing::{Agent, Answers, Sshd, Ways, false_server, make_key, no_sources, program};

/// An authority, an sshd that trusts it, and a folder for keys.
struct Certified {
    folder: tempfile::TempDir,
    sshd: Sshd,
}

impl Certified {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = make_key(folder.path(), "authority", "ed25519", "");
        let sshd = Sshd::start(&format!("TrustedUserCAKeys {}.pub", authority.display()));
        Self { folder, sshd }
    }

    /// A key with a certificate beside it.
    fn key(&self, name: &str, kind: &str, passphrase: &str, validity: &str) -> PathBuf {
        let key = make_key(self.folder.path(), name, kind, passphrase);
        let authority = self.folder.path().join("authority").display().to_string();
        let user = program("id", &["-un"]);
        let public = key.with_extension("pub").display().to_string();
        let arguments = ["-q", "-s", &authority, "-I", name, "-n", user.trim(), "-V", validity, &public];
        program("ssh-keygen", &arguments);
        assert!(self.folder.path().join(format!("{name}-cert.pub")).is_file());
        key
    }

    fn target(&self, key: &Path) -> Target {
        self.sshd.target(Some(key))
    }
}

#[rstest]
#[case::ed25519("ed25519")]
#[case::ecdsa("ecdsa")]
#[case::rsa("rsa")]
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_logs_in(#[case] kind: &str) {
    let certified = Certified::start();
    let key = certified.key("user", kind, "", "always:forever");
    connect(&certified.target(&key)).await.expect("logged in by the certificate beside the key");

    // The same named by CertificateFile, far from its key.
    let (beside, away) = (certified.folder.path().join("user-cert.pub"), certified.folder.path().join("away"));
    std::fs::rename(&beside, &away).expect("moved");
    refused(&certified.target(&key)).await;
    let named = Target { certificates: vec![away.clone()], ..certified.target(&key) };
    connect(&named).await.expect("logged in by the named certificate");

    // The agent holds the bare key, the certificate is a file.
    let agent = Agent::start(&[&key]);
    let public = key.with_extension("pub");
    let target = Target { agent: true, certificates: vec![away], ..certified.target(&public) };
    connect_with(&target, &Answers::default(), &agent.sources()).await.expect("the agent signs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_key_with_a_certificate_is_unlocked_once_it_is_accepted() {
    let certified = Certified::start();
    let key = certified.key("user", "rsa", "open sesame", "always:forever");
    let answers = Answers::with("open sesame");
    connect_with(&certified.target(&key), &answers, &no_sources()).await.expect("logged in");
    assert_eq!(answers.passphrases.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_named_in_the_failure() {
    let certified = Certified::start();
    let key = certified.key("user", "ed25519", "", "20200101:20210101");
    let failure = refused(&certified.target(&key)).await;
    assert_eq!(failure.kind, Kind::Authentication);
    let text = failure.to_string();
    for part in ["user with the certificate \"user\" (ssh-ed25519 SHA256:", "): refused", "the host allows publickey"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_keys_are_offered_when_that_is_wanted() {
    let sshd = Sshd::start("");
    let held = sshd.user_key("held", "ed25519", "");
    let named = make_key(sshd.folder.path(), "named", "ed25519", "");
    let agent = Agent::start(&[&held]);
    let target = Target { agent: true, ..sshd.target(Some(&named)) };
    connect_with(&target, &Answers::default(), &agent.sources()).await.expect("the agent's other key");
    let only = Target { identities_only: true, ..target.clone() };
    let failure = connect_with(&only, &Answers::default(), &agent.sources()).await.expect_err("it is not named");
    assert!(!failure.to_string().contains("agent key"), "{failure}");
    // An agent named by IdentityAgent, instead of that of the environment.
    let socket = Target { agent_socket: Some(agent.socket.clone()), ..target };
    connect_with(&socket, &Answers::default(), &Sources::default()).await.expect("the named agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_config_chooses_the_ways() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "rsa", "");
    let target = sshd.target(Some(&key));
    let algorithms = |list: &str| Algorithms { public_keys: Some(list.to_owned()), ..Algorithms::default() };
    connect(&Target { algorithms: algorithms("rsa-sha2-256"), ..target.clone() }).await.expect("logged in");
    let failure = refused(&Target { algorithms: algorithms("ssh-ed25519"), ..target.clone() }).await;
    assert!(failure.to_string().contains("not offered, PubkeyAcceptedAlgorithms"), "{failure}");
    let failure = refused(&Target { ways: vec!["password".to_owned()], ..target.clone() }).await;
    assert_eq!(failure.kind, Kind::Authentication);

    let chosen = Algorithms {
        ciphers: Some("aes128-ctr".to_owned()),
        key_exchanges: Some("curve25519-sha256".to_owned()),
        macs: Some("hmac-sha2-512".to_owned()),
        host_keys: Some("rsa-sha2-512".to_owned()),
        public_keys: None,
    };
    connect(&Target { algorithms: chosen, ..target }).await.expect("logged in");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_in_batch_mode() {
    let server = false_server(Ways::Interactive, 0).await;
    let answers = Answers::with("secret");
    let target = Target { ask: false, ..server.target(None) };
    let failure = connect_with(&target, &answers, &no_sources()).await.expect_err("nobody is asked");
    assert_eq!(failure.kind, Kind::Authentication);
    assert_eq!(answers.passwords.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_asked_for_besides_the_password() {
    let server = false_server(Ways::Code, 0).await;
    let answers = Answers::with("secret");
    connect_with(&server.target(None), &answers, &no_sources()).await.expect("logged in");
    assert_eq!((answers.passwords.load(Ordering::Relaxed), answers.others.load(Ordering::Relaxed)), (1, 1));
}
