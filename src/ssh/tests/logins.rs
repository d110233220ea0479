//! Certificates, questions and the order of ways to log in, against real sshds and false servers.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rstest::rstest;

use super::{connect, refused};
use crate::failure::Kind;
use crate::secret::Secret;
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

/// The key is in the agent alone: no file names it but the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_key_only_the_agent_has_logs_in() {
    let certified = Certified::start();
    let key = certified.key("user", "ed25519", "", "always:forever");
    let away = certified.folder.path().join("away");
    std::fs::rename(certified.folder.path().join("user-cert.pub"), &away).expect("moved");
    let agent = Agent::start(&[&key]);
    for identities_only in [false, true] {
        let certificates = vec![away.clone()];
        let target = Target { agent: true, certificates, identities_only, ..certified.sshd.target(None) };
        connect_with(&target, &Answers::default(), &agent.sources()).await.expect("the agent signs");
        let failure = refused(&Target { agent: false, ..target }).await;
        let sentence = format!("certificate {}: no key file and no agent has its key", away.display());
        assert!(failure.causes.contains(&sentence), "{failure}");
    }
}

/// ssh-add takes the certificate beside the key: the agent holds the key twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_the_agent_belongs_to_the_key_that_is_named() {
    let certified = Certified::start();
    let key = certified.key("user", "ed25519", "", "always:forever");
    let agent = Agent::start(&[&key]);
    std::fs::remove_file(certified.folder.path().join("user-cert.pub")).expect("removed");
    let public = key.with_extension("pub");
    let target = Target { agent: true, identities_only: true, ..certified.target(&public) };
    connect_with(&target, &Answers::default(), &agent.sources()).await.expect("by the certificate");
    let public_keys = Some("-*-cert-v01@openssh.com".to_owned());
    let target = Target { algorithms: Algorithms { public_keys, ..Algorithms::default() }, ..target };
    let failure = connect_with(&target, &Answers::default(), &agent.sources()).await.expect_err("no certificate");
    assert!(failure.to_string().contains("with the certificate \"user\" (ssh-ed25519 SHA256:"), "{failure}");
    assert!(failure.to_string().contains("): not offered, PubkeyAcceptedAlgorithms"), "{failure}");
}

/// As `ssh` takes it: the private half is in the agent, and the name without `.pub` is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_file_alone_names_a_key_of_the_agent() {
    let sshd = Sshd::start("");
    let folder = sshd.folder.path().join(".ssh");
    std::fs::create_dir(&folder).expect("made");
    let (held, usual) =
        (sshd.user_key("held", "ed25519", ""), sshd.authorize(&make_key(&folder, "id_ecdsa", "ecdsa", "")));
    let agent = Agent::start(&[&held, &usual]);
    [&held, &usual].into_iter().for_each(|key| std::fs::remove_file(key).expect("removed"));
    let target = Target { agent: true, identities_only: true, ..sshd.target(Some(&held)) };
    connect_with(&target, &Answers::default(), &agent.sources()).await.expect("the named key");
    let sources = Sources { home: Some(sshd.folder.path().to_owned()), ..agent.sources() };
    let target = Target { identities: Vec::new(), ..target };
    connect_with(&target, &Answers::default(), &sources).await.expect("the usual key");
    let failure = connect_with(&target, &Answers::default(), &agent.sources()).await.expect_err("no key is usual");
    assert!(failure.sentence.ends_with("there is no key or password to try"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_offered_takes_nobodys_place() {
    let sshd = Sshd::start("");
    let strangers: Vec<PathBuf> =
        (0..6).map(|n| make_key(sshd.folder.path(), &format!("stranger{n}"), "ecdsa", "")).collect();
    let held = sshd.user_key("held", "ed25519", "");
    let keys: Vec<&Path> = strangers.iter().chain([&held]).map(PathBuf::as_path).collect();
    let agent = Agent::start(&keys);
    let public_keys = Some("ssh-ed25519".to_owned());
    let algorithms = Algorithms { public_keys, ..Algorithms::default() };
    let target = Target { agent: true, algorithms, ..sshd.target(None) };
    connect_with(&target, &Answers::default(), &agent.sources()).await.expect("the seventh key");
}

/// Ten hosts, one locked key, one person who mistypes: a key is unlocked once for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_unlocked_once_for_all_hosts_and_may_be_mistyped_once() {
    let sshd = Sshd::start("MaxStartups 100");
    let key = sshd.user_key("user", "ed25519", "open sesame");
    let target = sshd.target(Some(&key));
    let rows = [
        (Some("open sesame"), None, 1, true),
        (Some("sesame"), Some("open sesame"), 2, true),
        (Some("no"), None, 2, false),
    ];
    for (answer, second, asked, lets_in) in rows {
        let answers = Answers { answer, second, ..Answers::default() };
        let sources = no_sources();
        let logins = (0..10).map(|_| connect_with(&target, &answers, &sources));
        for login in futures::future::join_all(logins).await {
            assert_eq!(login.is_ok(), lets_in, "{login:?}");
        }
        assert_eq!(answers.passphrases.load(Ordering::Relaxed), asked, "{answer:?}");
    }
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

/// PAM with a second factor beside plain passwords, which are not enough.
#[rstest]
#[case::as_openssh_has_it(&["publickey", "keyboard-interactive", "password"])]
#[case::passwords_first(&["password", "keyboard-interactive"])]
#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_where_a_password_alone_does_not_do(#[case] ways: &[&str]) {
    let server = false_server(Ways::Both, 0).await;
    let plain = server.target(Some("secret"));
    assert_eq!(Target::plain("w1", "w1").ways, ["publickey", "keyboard-interactive", "password"]);
    let target = Target { ways: ways.iter().map(|way| (*way).to_owned()).collect(), ..plain };
    let answers = Answers::with("secret");
    connect_with(&target, &answers, &no_sources()).await.expect("logged in");
    assert_eq!(answers.others.load(Ordering::Relaxed), 1);
}

/// `AuthenticationMethods password,keyboard-interactive`: the way that comes first here is the second there.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_wants_one_way_after_another_gets_them() {
    let server = false_server(Ways::InTurn, 0).await;
    let ways = ["keyboard-interactive", "password"].map(str::to_owned).to_vec();
    let target = Target { ways, ..server.target(Some("secret")) };
    connect_with(&target, &Answers::with("secret"), &no_sources()).await.expect("logged in");
    let failure = refused(&Target { password: Some(Secret::new("wrong")), ..target }).await;
    assert_eq!(failure.causes.iter().filter(|cause| cause.starts_with("password")).count(), 1, "{failure}");
}

/// Where the host asks for the password only, it hears it once: each refusal counts (pam_faillock).
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_not_said_twice() {
    let server = false_server(Ways::Both, 0).await;
    let failure = refused(&server.target(Some("wrong"))).await;
    assert_eq!(failure.causes.iter().filter(|cause| cause.starts_with("password")).count(), 1, "{failure}");
}
