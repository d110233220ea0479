//! OpenSSH's client is the judge: with the same known_hosts file both must go on, or both must refuse.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{connect, refused};
use crate::failure::Kind;
use crate::inventory::HostKeys;
use crate::ssh::configuration::Configuration;
use crate::ssh::scan::{Known, Shown, pin, scan_with};
use crate::ssh::target::Target;
use crate::ssh::testing::{Answers, Sshd, command, make_key, no_sources, program};

/// A server with the kinds of keys it has, and what it shows.
struct Server {
    sshd: Sshd,
    key: PathBuf,
}

impl Server {
    fn start(settings: &str) -> Self {
        let sshd = Sshd::start(settings);
        let key = sshd.user_key("user", "ed25519", "");
        Self { sshd, key }
    }

    fn public(&self, kind: &str) -> String {
        public(&self.sshd.folder.path().join(format!("host_{kind}")))
    }
}

/// `ssh-ed25519 AAAA...` without the comment.
fn public(private: &Path) -> String {
    let mut beside = private.to_owned().into_os_string();
    beside.push(".pub");
    let text = std::fs::read_to_string(beside).expect("a public key");
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn hashed(name: &str) -> String {
    let salt = b"twenty bytes of salt";
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hmac::sign(&key, name.as_bytes())))
}

/// A certificate authority and a server that shows a certificate of it, made with more arguments of ssh-keygen.
fn certified(folder: &Path, authority: &Path, name: &str, arguments: &[&str]) -> Server {
    let key = make_key(folder, name, "ed25519", "");
    let (authority, public) = (authority.display().to_string(), key.with_extension("pub").display().to_string());
    let first = ["-q", "-s", &authority, "-I", name];
    program("ssh-keygen", &[&first[..], arguments, &[&public]].concat());
    let certificate = folder.join(format!("{name}-cert.pub"));
    assert!(certificate.is_file(), "no certificate {name}");
    let server = Server::start(&format!("HostKey {}\nHostCertificate {}", key.display(), certificate.display()));
    // Its plain key of that kind is the one of the certificate; the one that Sshd made is shadowed by it.
    std::fs::copy(key.with_extension("pub"), server.sshd.folder.path().join("certified.pub")).expect("copied");
    server
}

/// Whether OpenSSH's client goes on.
fn openssh(server: &Server, file: &Path, alias: Option<&str>) -> bool {
    openssh_with(server, file, alias, &[])
}

fn openssh_with(server: &Server, file: &Path, alias: Option<&str>, settings: &[String]) -> bool {
    let mut ssh = command("ssh");
    settings.iter().for_each(|setting| _ = ssh.args(["-o", setting]));
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "GlobalKnownHostsFile=none", "-o", "CheckHostIP=no"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", file.display()));
    if let Some(alias) = alias {
        ssh.arg("-o").arg(format!("HostKeyAlias={alias}"));
    }
    ssh.args(["-p", &server.sshd.port.to_string(), "-i"]).arg(&server.key);
    ssh.arg(format!("{}@127.0.0.1", program("id", &["-un"]).trim())).arg("true");
    let output = ssh.stdin(std::process::Stdio::null()).output().expect("ssh starts");
    output.status.success()
}

/// Lines for the plain server: `{NAME}` is its name with the port, `{HASH}` that name hashed; `{ED}`, `{EC}`, `{RSA}` are
/// its keys, `{OTHER}` and `{OTHERRSA}` are not.
const PLAIN: &[(&str, Option<&str>)] = &[
    ("{NAME} {ED}\n", None),
    ("{NAME} {EC}\n", None),
    ("{NAME} {RSA}\n", None),
    ("{NAME} {OTHER}\n", None),
    ("{NAME} {OTHERRSA}\n", None),
    ("{NAME} {OTHER}\n{NAME} {ED}\n", None),
    ("{NAME} {ED}\n{NAME} {OTHER}\n", None),
    ("{NAME} {RSA}\n{NAME} {OTHER}\n", None),
    ("{NAME} {OTHERRSA}\n{NAME} {ED}\n", None),
    ("{NAME} {OTHERRSA}\n{NAME} {EC}\n", None),
    ("@revoked {NAME} {ED}\n{NAME} {ED}\n", None),
    ("{NAME} {ED}\n@revoked * {ED}\n", None),
    ("@revoked {NAME} {OTHER}\n{NAME} {ED}\n", None),
    ("@revoked other {ED}\n{NAME} {ED}\n", None),
    ("[127.0.0.*]:* {ED}\n", None),
    ("[127.0.0.?]:* {ED}\n", None),
    ("* {ED}\n", None),
    ("*,!{NAME} {ED}\n", None),
    ("!{NAME},* {ED}\n{NAME} {ED}\n", None),
    ("other,{NAME},more {ED}\n", None),
    ("{HASH} {ED}\n", None),
    ("{HASH} {OTHER}\n", None),
    ("127.0.0.1 {ED}\n", None),
    ("127.0.0.1 {OTHER}\n", None),
    ("127.0.0.1 {ED}\n{NAME} {OTHER}\n", None),
    ("[127.0.0.1]:1 {ED}\n", None),
    ("{NAME}\t{ED}\n", None),
    ("  {NAME}   {ED} comment\r\n", None),
    ("# {NAME} {ED}\n", None),
    ("{NAME} ssh-ed25519 %%%\n{NAME} {ED}\n", None),
    ("{NAME} ssh-ed25519 AAAA\n", None),
    ("{NAME} ssh-rsa {BODY}\n", None),
    ("@unknown {NAME} {ED}\n", None),
    ("@cert-authority {NAME} {ED}\n", None),
    ("{NAME} {ED}", None),
    ("", None),
    ("pool {ED}\n", Some("pool")),
    ("pool {ED}\n", Some("POOL")),
    ("Pool {ED}\n", Some("pool")),
    ("[pool]:{PORT} {ED}\n", Some("pool")),
    ("{NAME} {ED}\n", Some("pool")),
    ("pool {OTHER}\n{NAME} {ED}\n", Some("pool")),
];

#[tokio::test(flavor = "multi_thread")]
async fn plain_keys_are_judged_as_openssh_does() {
    let server = Server::start("");
    let folder = tempfile::tempdir().expect("a folder");
    let other = public(&make_key(folder.path(), "other", "ed25519", ""));
    let other_rsa = public(&make_key(folder.path(), "other_rsa", "rsa", ""));
    let mut goes_on = 0;
    for (index, (text, alias)) in PLAIN.iter().enumerate() {
        let text = filled(text, &server, &other, &other_rsa);
        goes_on += usize::from(compare(&server, folder.path(), index, &text, *alias).await);
    }
    assert!((10..30).contains(&goes_on), "{goes_on} of {} go on", PLAIN.len());
}

/// The text of a known_hosts file for the plain server.
fn filled(text: &str, server: &Server, other: &str, other_rsa: &str) -> String {
    let (name, ed) = (format!("[127.0.0.1]:{}", server.sshd.port), server.public("ed25519"));
    text.replace("{OTHERRSA}", other_rsa)
        .replace("{OTHER}", other)
        .replace("{RSA}", &server.public("rsa"))
        .replace("{BODY}", ed.split(' ').next_back().expect("a key"))
        .replace("{ED}", &ed)
        .replace("{EC}", &server.public("ecdsa"))
        .replace("{HASH}", &hashed(&name))
        .replace("{NAME}", &name)
        .replace("{PORT}", &server.sshd.port.to_string())
}

async fn compare(server: &Server, folder: &Path, index: usize, text: &str, alias: Option<&str>) -> bool {
    let file = folder.join(format!("known_{index}"));
    std::fs::write(&file, text).expect("written");
    let expected = tokio::task::block_in_place(|| openssh(server, &file, alias));
    let target = Target {
        known_hosts: vec![file],
        host_key_alias: alias.map(str::to_lowercase),
        ..server.sshd.target(Some(&server.key))
    };
    let ours = connect(&target).await;
    let shown = ours.as_ref().map(|_| ()).map_err(ToString::to_string);
    assert_eq!(ours.is_ok(), expected, "case {index}: {text:?} with {alias:?}: we say {shown:?}");
    if let Err(failure) = &ours {
        assert_eq!(failure.kind, Kind::HostKey, "{failure}");
    }
    ours.is_ok()
}

/// As [`PLAIN`], where new keys are accepted; `{EC384}` is a key of a kind that the server does not have.
const ACCEPTING: &[&str] = &[
    "",
    "# mine\n",
    "{NAME} {ED}\n",
    "{HASH} {ED}\n",
    "{NAME} {OTHER}\n{NAME} {ED}\n",
    "{NAME} {EC384}\n{NAME} {ED}\n",
    "other {ED}\n",
    "*,!{NAME} {OTHER}\n",
    "127.0.0.1 {ED}\n",
    "127.0.0.1 {OTHER}\n",
    "{NAME} ssh-ed25519 %%%\n",
    "@cert-authority {NAME} {OTHER}\n",
    "@revoked {NAME} {OTHER}\n",
    "@revoked {NAME} {ED}\n",
    "{NAME} {ED}\n@revoked * {ED}\n",
    "{NAME} {OTHER}\n",
    "{HASH} {OTHER}\n",
    "{NAME} {OTHERRSA}\n",
    "[127.0.0.*]:* {OTHER}\n",
    // For a host that is known already no new key is taken, of whatever kind: whoever stands between only had to leave out
    // the kinds that are known.
    "{NAME} {EC384}\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_accepted_and_remembered_as_openssh_does() {
    let server = Server::start("");
    let folder = tempfile::tempdir().expect("a folder");
    let other = public(&make_key(folder.path(), "other", "ed25519", ""));
    let other_rsa = public(&make_key(folder.path(), "other_rsa", "rsa", ""));
    let large = folder.path().join("large");
    program("ssh-keygen", &["-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", &large.display().to_string()]);
    let large = public(&large);
    let (mut goes_on, mut remembered) = (0, 0);
    for (index, text) in ACCEPTING.iter().enumerate() {
        let text = filled(text, &server, &other, &other_rsa).replace("{EC384}", &large);
        let [ours, theirs] = ["ours", "theirs"].map(|judge| folder.path().join(format!("{judge}_{index}")));
        [&ours, &theirs].into_iter().for_each(|file| std::fs::write(file, &text).expect("written"));
        let setting = "StrictHostKeyChecking=accept-new".to_owned();
        let expected = tokio::task::block_in_place(|| openssh_with(&server, &theirs, None, &[setting]));
        let target = Target {
            known_hosts: vec![ours.clone()],
            host_keys: HostKeys::AcceptNew,
            ..server.sshd.target(Some(&server.key))
        };
        let result = connect(&target).await.map(|_| ());
        let [ours, theirs] = [&ours, &theirs].map(|file| std::fs::read_to_string(file).expect("readable"));
        assert_eq!(result.is_ok(), expected, "case {index}: {text:?}: we say {result:?}");
        assert_eq!(ours, theirs, "case {index}: {text:?}: not the same is remembered");
        if let Err(failure) = &result {
            assert_eq!((failure.kind, &ours), (Kind::HostKey, &text), "{failure}");
        }
        remembered += usize::from(ours != text);
        goes_on += usize::from(expected);
    }
    assert!((10..16).contains(&goes_on) && (5..12).contains(&remembered), "{goes_on} go on, {remembered} new");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_judged_as_openssh_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, n) = (folder.path(), "127.0.0.1");
    let authority = make_key(path, "authority", "ed25519", "");
    let rsa = make_key(path, "authority_rsa", "rsa", "");
    let other = public(&make_key(path, "other", "ed25519", ""));
    let good = certified(path, &authority, "good", &["-h", "-n", n]);
    let by_rsa = certified(path, &rsa, "by_rsa", &["-h", "-n", n]);
    let elsewhere = certified(path, &authority, "elsewhere", &["-h", "-n", "elsewhere"]);
    let nobody = certified(path, &authority, "nobody", &["-h"]);
    let expired = certified(path, &authority, "expired", &["-h", "-n", n, "-V", "20200101:20210101"]);
    let later = certified(path, &authority, "later", &["-h", "-n", n, "-V", "20990101:21000101"]);
    let (ca, ca_rsa) = (public(&authority), public(&rsa));
    let name = |server: &Server| format!("[{n}]:{}", server.sshd.port);
    let own = |server: &Server| {
        let text = std::fs::read_to_string(server.sshd.folder.path().join("certified.pub")).expect("readable");
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    let cases = [
        (&good, format!("@cert-authority {} {ca}\n", name(&good)), None),
        (&good, format!("@cert-authority * {ca}\n"), None),
        (&good, format!("@cert-authority {n} {ca}\n"), None),
        (&good, format!("@cert-authority *.example {ca}\n"), None),
        (&good, format!("@cert-authority * {other}\n"), None),
        (&good, format!("@cert-authority * {ca}\n@revoked * {ca}\n"), None),
        (&good, format!("@cert-authority * {ca}\n@revoked * {}\n", own(&good)), None),
        (&good, format!("@cert-authority * {ca}\n@revoked * {other}\n"), None),
        (&good, format!("* {ca}\n"), None),
        (&good, format!("@cert-authority *,!{} {ca}\n", name(&good)), None),
        (&good, format!("@cert-authority pool {ca}\n"), Some("pool")),
        (&by_rsa, format!("@cert-authority * {ca_rsa}\n"), None),
        (&elsewhere, format!("@cert-authority * {ca}\n"), None),
        (&elsewhere, format!("@cert-authority elsewhere {ca}\n"), Some("elsewhere")),
        (&nobody, format!("@cert-authority * {ca}\n"), None),
        (&expired, format!("@cert-authority * {ca}\n"), None),
        (&later, format!("@cert-authority * {ca}\n"), None),
    ];
    let mut goes_on = 0;
    for (index, (server, text, alias)) in cases.iter().enumerate() {
        goes_on += usize::from(compare(server, path, index, text, *alias).await);
    }
    assert!(goes_on >= 5, "{goes_on} go on");
    let file = path.join("known_expired");
    std::fs::write(&file, format!("@cert-authority * {ca}\n")).expect("written");
    let target = Target { known_hosts: vec![file], ..expired.sshd.target(Some(&expired.key)) };
    let failure = refused(&target).await;
    assert!(failure.to_string().contains("its certificate is not taken: it has expired"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_revoked_keys_and_a_command_for_keys_are_asked_as_openssh_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let authority = make_key(path, "authority", "ed25519", "");
    let server = certified(path, &authority, "good", &["-h", "-n", "127.0.0.1", "-z", "7"]);
    let name = format!("[127.0.0.1]:{}", server.sshd.port);
    let certified = std::fs::read_to_string(server.sshd.folder.path().join("certified.pub")).expect("readable");
    let (plain, ca) = (path.join("plain"), path.join("ca"));
    std::fs::write(&plain, format!("{name} {certified}")).expect("written");
    std::fs::write(&ca, format!("@cert-authority * {}\n", public(&authority))).expect("written");
    let list = |name: &str, text: &str| {
        let file = path.join(name);
        std::fs::write(&file, text).expect("written");
        file
    };
    let other = public(&make_key(path, "other", "ed25519", ""));
    let (numbers, serial) = (path.join("numbers").display().to_string(), list("serial", "serial: 7\n"));
    let signer = authority.with_extension("pub").display().to_string();
    program("ssh-keygen", &["-q", "-k", "-f", &numbers, "-s", &signer, &serial.display().to_string()]);
    let lists = [
        list("key", &certified),
        list("others", &format!("# a list\n{other}\n")),
        list("signer", &public(&authority)),
        list("damaged", "nonsense\n"),
        PathBuf::from(&numbers),
        path.join("missing"),
    ];
    let mut goes_on = 0;
    for (known, shows_certificate) in [(&plain, false), (&ca, true)] {
        // OpenSSH asks for a certificate even where nobody is named who could have signed it.
        for revoked in lists.iter().filter(|list| shows_certificate || ![&lists[2], &lists[4]].contains(list)) {
            let setting = format!("RevokedHostKeys={}", revoked.display());
            let expected = tokio::task::block_in_place(|| openssh_with(&server, known, None, &[setting]));
            let target = Target {
                known_hosts: vec![known.clone()],
                revoked_host_keys: Some(revoked.clone()),
                ..server.sshd.target(Some(&server.key))
            };
            let ours = connect(&target).await.map(|_| ());
            assert_eq!(ours.is_ok(), expected, "{known:?} with {revoked:?}: {ours:?}");
            goes_on += usize::from(expected);
        }
    }
    assert_eq!(goes_on, 2, "only the list of others lets the host pass");

    let empty = path.join("empty");
    let script = path.join("keys");
    let text = format!("#!/bin/sh\ncase $1 in 127.0.0.1|'{name}') cat {};; *) exit 1;; esac\n", plain.display());
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    for arguments in ["%H", "elsewhere"] {
        let setting = format!("KnownHostsCommand={} {arguments}", script.display());
        let expected = tokio::task::block_in_place(|| openssh_with(&server, &empty, None, &[setting]));
        let target = Target {
            known_hosts: vec![empty.clone()],
            known_hosts_command: Some(vec![script.display().to_string(), arguments.to_owned()]),
            ..server.sshd.target(Some(&server.key))
        };
        let ours = connect(&target).await.map(|_| ());
        assert_eq!((ours.is_ok(), expected), (arguments == "%H", arguments == "%H"), "{arguments}: {ours:?}");
        assert!(ours.err().is_none_or(|failure| failure.to_string().contains("ended with exit status: 1")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_decides_whatever_kind_of_key_it_is_of() {
    let server = Server::start("");
    let empty = server.sshd.folder.path().join("empty");
    let fingerprint = |kind: &str| {
        let file = server.sshd.folder.path().join(format!("host_{kind}.pub")).display().to_string();
        program("ssh-keygen", &["-lf", &file]).split(' ').nth(1).expect("a fingerprint").to_owned()
    };
    let pinned = |pins: Vec<String>| Target {
        known_hosts: vec![empty.clone()],
        host_key_pins: pins,
        ..server.sshd.target(Some(&server.key))
    };
    for kind in ["ed25519", "ecdsa", "rsa"] {
        connect(&pinned(vec![fingerprint(kind)])).await.unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    }
    let wrong = "SHA256:uNiVztksCsDhcc0u9e8BrwE2tdUJCSVbXIE4h5zRj2o".to_owned();
    let failure = refused(&pinned(vec![wrong.clone()])).await;
    assert_eq!(failure.kind, Kind::HostKey);
    assert!(failure.sentence.contains("shows another host key than the inventory pins: ssh-ed25519"), "{failure}");
    connect(&pinned(vec![wrong, fingerprint("ed25519")])).await.expect("one of two");
    std::fs::write(&empty, format!("@revoked {}", server.sshd.known_line("ed25519"))).expect("written");
    let failure = refused(&pinned(vec![fingerprint("ed25519")])).await;
    assert!(failure.sentence.contains("is revoked by"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_shows_all_keys_and_pins_them() {
    let server = Server::start("");
    let known = server.sshd.folder.path().join("mine/known_hosts");
    let target =
        Target { known_hosts: vec![known.clone()], hash_known_hosts: true, ..server.sshd.target(Some(&server.key)) };
    let mut shown = scan_with(&target, &Answers::default(), &no_sources()).await.expect("scanned");
    let kinds: Vec<(&str, Known)> = shown.iter().map(|shown| (shown.algorithm(), shown.known)).collect();
    let new = Known::New;
    assert_eq!(kinds, [("ssh-ed25519", new), ("ecdsa-sha2-nistp256", new), ("ssh-rsa", new)]);
    let listed = program("ssh-keygen", &["-lf", &server.sshd.folder.path().join("host_rsa.pub").display().to_string()]);
    assert_eq!(listed.split(' ').nth(1), Some(shown[2].fingerprint().as_str()));
    assert_eq!(pin(&target, &shown).expect("pinned"), known);
    connect(&target).await.expect("known now");
    assert!(openssh(&server, &known, None));
    assert!(std::fs::read_to_string(&known).expect("readable").lines().all(|line| line.starts_with("|1|")));
    shown = scan_with(&target, &Answers::default(), &no_sources()).await.expect("scanned");
    assert!(shown.iter().all(|shown| shown.known == Known::Yes), "{shown:?}");

    // Nothing is remembered where the user has no file.
    let none = Target { remembers: false, host_keys: HostKeys::AcceptNew, known_hosts: Vec::new(), ..target };
    connect(&none).await.expect("accepted");
    assert_eq!(pin(&none, &shown).expect_err("no file").kind, Kind::HostKey);
}

/// What an inventory says as YAML, down to a connection that is refused or made.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_of_an_inventory_lets_one_key_in() {
    let server = Server::start("");
    let folder = server.sshd.folder.path();
    let line = |pin: &str| {
        let (user, key) = (program("id", &["-un"]), server.key.display());
        let ssh = format!("user: {}, port: {}, identity: {key}, agent: false", user.trim(), server.sshd.port);
        format!("hosts: {{cp1: {{address: 127.0.0.1, ssh: {{{ssh}, host_key: {pin}}}}}}}")
    };
    let configuration = Configuration::new(Vec::new(), folder.to_owned());
    let target = |pin: &str| {
        let inventory = crate::inventory::parse(&line(pin), &folder.join("i.yaml"), folder).expect("a good inventory");
        configuration.target(&inventory.hosts[0], None).expect("settings")
    };
    connect(&target(&server.public("ecdsa"))).await.expect("the whole key is pinned");
    let other = public(&make_key(folder, "other", "ed25519", ""));
    let failure = refused(&target(&other)).await;
    assert_eq!((failure.kind, failure.host.as_deref()), (Kind::HostKey, Some("cp1")));
    assert!(failure.sentence.contains("shows another host key than the inventory pins: ssh-ed25519"), "{failure}");
}

/// A stranger's key is never written, whatever is known of the host is in a file or in the inventory.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_shows_what_is_known_instead_and_pins_no_stranger() {
    let server = Server::start("");
    let folder = server.sshd.folder.path();
    let other = make_key(folder, "other", "ed25519", "");
    let listed = program("ssh-keygen", &["-lf", &other.with_extension("pub").display().to_string()]);
    let fingerprint = listed.split(' ').nth(1).expect("a fingerprint").to_owned();
    let known = folder.join("mine");
    let name = format!("[127.0.0.1]:{}", server.sshd.port);
    std::fs::write(&known, format!("# mine\n{name} {}\n", public(&other))).expect("written");
    let by_file = Target { known_hosts: vec![known.clone()], ..server.sshd.target(Some(&server.key)) };
    let scanned = async |target: &Target| scan_with(target, &Answers::default(), &no_sources()).await.expect("scanned");
    let states = |shown: &[Shown]| shown.iter().map(|shown| shown.known).collect::<Vec<_>>();
    let shown = scanned(&by_file).await;
    assert_eq!(states(&shown), [Known::Changed, Known::New, Known::New]);
    assert_eq!(shown[0].instead, [format!("{}:2 {fingerprint}", known.display())]);
    assert_ne!(shown[0].fingerprint(), fingerprint);

    let empty = folder.join("nothing");
    let pinned = |pins: &[&str]| Target {
        known_hosts: vec![empty.clone()],
        host_key_pins: pins.iter().map(|pin| (*pin).to_owned()).collect(),
        ..by_file.clone()
    };
    let strange = scanned(&pinned(&[&fingerprint])).await;
    assert_eq!(states(&strange), [Known::Changed; 3]);
    assert!(strange.iter().all(|shown| shown.instead == [format!("ssh.host_key {fingerprint}")]), "{strange:?}");
    // A pin is for the host, of whatever kind it is.
    let right = pinned(&[&fingerprint, &shown[2].fingerprint()]);
    let found = scanned(&right).await;
    assert_eq!(states(&found), [Known::Beside, Known::Beside, Known::Yes]);
    for keys in [&strange, &found] {
        pin(&right, keys).expect("nothing to write");
        assert!(!empty.exists());
    }
}
