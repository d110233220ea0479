//! Hosts behind bastions and commands: real sshds on loopback, steered by ssh_config and by the inventory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rstest::rstest;

use super::{MINUTE, connect};
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::inventory;
use crate::ssh::config::Source;
use crate::ssh::configuration::Configuration;
use crate::ssh::connection::{Connection, connect_lasting_with, connect_with};
use crate::ssh::target::{Prompt, Target};
use crate::ssh::testing::{Answers, Sshd, Ways, false_server, free_port, make_key, no_sources, program};

/// A folder with a key, an ssh_config and a known_hosts file.
struct Laptop {
    folder: tempfile::TempDir,
    blocks: String,
    known: String,
}

impl Laptop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        make_key(folder.path(), "key", "ed25519", "");
        Self { folder, blocks: String::new(), known: String::new() }
    }

    fn key(&self) -> std::path::PathBuf {
        self.folder.path().join("key")
    }

    /// A real sshd that lets the key in, as `name` in ssh_config.
    fn sshd(&mut self, name: &str, settings: &str, more: &str) -> Sshd {
        let sshd = Sshd::start(settings);
        sshd.authorize(&self.key());
        self.known.push_str(&sshd.known_line("ed25519"));
        self.block(name, sshd.port, more);
        sshd
    }

    fn block(&mut self, name: &str, port: u16, more: &str) {
        self.blocks.push_str(&format!("Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  {more}\n"));
    }

    /// What was set up, as files.
    fn configuration(&self) -> Configuration {
        let folder = self.folder.path();
        let user = program("id", &["-un"]);
        let common = format!(
            "{}Host *\n  User {}\n  IdentityFile {}\n  IdentityAgent none\n  UserKnownHostsFile {}\n  \
             GlobalKnownHostsFile none\n",
            self.blocks,
            user.trim(),
            self.key().display(),
            folder.join("known").display(),
        );
        std::fs::write(folder.join("config"), common).expect("written");
        std::fs::write(folder.join("known"), &self.known).expect("written");
        let source = Source { file: folder.join("config"), own: true, guarded: true };
        Configuration::new(vec![source], folder.to_owned())
    }

    fn target(&self, configuration: &Configuration, name: &str, ssh: &str) -> Result<Target, Failure> {
        let text = format!("hosts: {{{name}: {{ssh: {{{ssh}}}}}}}");
        let path = self.folder.path().join("inventory.yaml");
        let inventory = inventory::parse(&text, &path, self.folder.path()).expect("a good inventory");
        configuration.target(&inventory.hosts[0], None)
    }
}

/// How many logins a server has seen.
fn logins(sshd: &Sshd) -> usize {
    let log = std::fs::read_to_string(sshd.folder.path().join("log")).expect("a log");
    log.matches("Accepted publickey").count()
}

async fn runs(target: &Target) {
    let connection = connect(target).await.unwrap_or_else(|failure| panic!("{failure}"));
    let output = connection.run("echo $((6 * 7))", Bytes::new(), MINUTE).await.expect("ran");
    assert_eq!(output.stdout.as_ref(), b"42\n");
    assert!(connection.round_trip() > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_and_two_bastions_lead_to_a_host() {
    let mut laptop = Laptop::new();
    let near = laptop.sshd("near", "", "");
    let far = laptop.sshd("far", "", "ProxyJump near");
    let _host = laptop.sshd("web1", "", "ProxyJump far");
    let _other = laptop.sshd("web2", "", "ProxyJump near");
    let configuration = laptop.configuration();
    let target = laptop.target(&configuration, "web1", "").expect("settings");
    assert_eq!(target.bastions().iter().map(|bastion| bastion.name.clone()).collect::<Vec<_>>(), ["far", "near"]);
    runs(&target).await;
    runs(&laptop.target(&configuration, "web2", "").expect("settings")).await;
    runs(&laptop.target(&configuration, "far", "").expect("settings")).await;
    // The inventory wins, hop by hop as it is written, and may say that there is none.
    runs(&laptop.target(&configuration, "web1", "jump: [near, far]").expect("settings")).await;
    let direct = laptop.target(&configuration, "web1", "jump: none").expect("settings");
    assert!(direct.bastions().is_empty());
    runs(&direct).await;
    let user = program("id", &["-un"]);
    let literal = format!("jump: '{}@127.0.0.1:{}'", user.trim(), near.port);
    let target = laptop.target(&configuration, "far", &literal).expect("settings");
    assert_eq!((target.bastions()[0].port, target.port), (near.port, far.port));
    runs(&target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_bastion_is_said_of_the_bastion() {
    let mut laptop = Laptop::new();
    let _host = laptop.sshd("host", "", "");
    let locked = Sshd::start("");
    laptop.known.push_str(&locked.known_line("ed25519"));
    laptop.block("locked", locked.port, "");
    let down = free_port();
    laptop.block("down", down, "");
    let stranger = Sshd::start("");
    stranger.authorize(&laptop.key());
    laptop.block("stranger", stranger.port, "");
    let _closed = laptop.sshd("closed", "AllowTcpForwarding no", "");
    let _good = laptop.sshd("good", "", "");
    laptop.block("gone", free_port(), "ProxyJump good");
    let configuration = laptop.configuration();
    let rows = [
        ("host", "locked", Kind::Authentication, "the bastion locked on the way: cannot log in to 127.0.0.1 port"),
        ("host", "down", Kind::Connection, "the bastion down on the way: 127.0.0.1 port"),
        ("host", "stranger", Kind::HostKey, "the bastion stranger on the way: the host key of 127.0.0.1 port"),
        ("host", "closed", Kind::Connection, "the bastion closed cannot open a connection to 127.0.0.1 port"),
        ("gone", "good", Kind::Connection, "the bastion good cannot open a connection to 127.0.0.1 port"),
        ("host", "good, down", Kind::Connection, "the bastion down on the way: the bastion good cannot open"),
    ];
    for (host, jump, kind, sentence) in rows {
        let target = laptop.target(&configuration, host, &format!("jump: [{jump}]")).expect("settings");
        let failure = connect(&target).await.map(|_| ()).expect_err(jump);
        assert_eq!((failure.kind, failure.host.as_deref()), (kind, Some(host)), "{failure}");
        assert!(failure.advice.is_some(), "{failure}");
        let sentence = sentence.replace("the bastion down on the way: the bastion good", "the bastion good");
        assert!(failure.sentence.starts_with(&sentence), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_leads_to_itself_is_refused() {
    let mut laptop = Laptop::new();
    laptop.block("web1", 22, "ProxyJump bastion");
    laptop.block("bastion", 22, "ProxyJump bastion");
    let failure = laptop.target(&laptop.configuration(), "web1", "").map(|_| ()).expect_err("a circle");
    assert_eq!(failure.kind, Kind::Configuration);
    assert!(failure.sentence.starts_with("more than 8 bastions are on the way"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_hosts_share_one_login_at_a_bastion_with_its_defaults() {
    const HOSTS: usize = 200;
    let mut laptop = Laptop::new();
    let bastion = laptop.sshd("bastion", "", "");
    let mut servers = Vec::new();
    for index in 0..HOSTS {
        let server = false_server(Ways::Password, 0).await;
        let target = server.target(None);
        laptop.block(&format!("w{index}"), target.port, "ProxyJump bastion");
        laptop.known.push_str(&std::fs::read_to_string(&target.known_hosts[0]).expect("readable"));
        servers.push(server);
    }
    let configuration = laptop.configuration();
    let targets: Vec<Target> = (0..HOSTS)
        .map(|index| {
            let target = laptop.target(&configuration, &format!("w{index}"), "").expect("settings");
            Target { password: Some(crate::secret::Secret::new("secret")), ..target }
        })
        .collect();
    let began = Instant::now();
    let connections = futures::future::join_all(targets.iter().map(connect)).await;
    let elapsed = began.elapsed();
    for connection in &connections {
        connection.as_ref().unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert_eq!(logins(&bastion), 1);
    println!("{HOSTS} hosts through one bastion in {elapsed:?}");

    // The bastion's connection outlives the hosts', and one that has ended is made anew.
    drop(connections);
    connect(&targets[0]).await.expect("again");
    assert_eq!(logins(&bastion), 1);
    drop(configuration);
    connect(&targets[0]).await.expect("by itself");
    assert_eq!(logins(&bastion), 2);
}

/// The configuration is gone when a run is at work: hosts that lose their bastion still share its next connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_is_lost_is_logged_in_to_once_more_for_all() {
    const HOSTS: usize = 12;
    let mut laptop = Laptop::new();
    let bastion = laptop.sshd("bastion", "", "");
    let hosts = laptop.sshd("web*", "MaxStartups 100", "ProxyJump bastion");
    let configuration = laptop.configuration();
    let targets: Vec<Target> =
        (0..HOSTS).map(|index| laptop.target(&configuration, &format!("web{index}"), "").expect("settings")).collect();
    let (sources, cancel) = (no_sources(), Cancel::new());
    let prompts: Arc<dyn Prompt> = Arc::new(Answers::default());
    let connecting = targets.iter().map(|target| connect_lasting_with(target, Arc::clone(&prompts), &sources, &cancel));
    let connections = futures::future::try_join_all(connecting).await.expect("logged in");
    drop((configuration, targets));
    assert_eq!((logins(&bastion), logins(&hosts)), (1, HOSTS));
    for round in 2..4 {
        bastion.signal_connections("KILL");
        futures::future::join_all(connections.iter().map(Connection::closed)).await;
        let runs = connections.iter().map(|connection| connection.run("echo here", Bytes::new(), MINUTE));
        for output in futures::future::join_all(runs).await {
            assert_eq!(output.expect("made again").stdout.as_ref(), b"here\n");
        }
        assert_eq!((logins(&bastion), logins(&hosts)), (round, round * HOSTS));
    }
}

/// All hosts behind a bastion that is down learn so from one attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_is_silent_is_waited_for_once() {
    let mut laptop = Laptop::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    laptop.block("silent", listener.local_addr().expect("an address").port(), "ConnectTimeout 1");
    for index in 0..8 {
        laptop.block(&format!("w{index}"), 22, "ProxyJump silent");
    }
    let configuration = laptop.configuration();
    let targets: Vec<Target> =
        (0..8).map(|index| laptop.target(&configuration, &format!("w{index}"), "").expect("settings")).collect();
    let began = Instant::now();
    for result in futures::future::join_all(targets.iter().map(connect)).await {
        let failure = result.map(|_| ()).expect_err("silent");
        assert!(failure.sentence.starts_with("the bastion silent on the way: 127.0.0.1 port"), "{failure}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_leads_to_a_host() {
    let mut laptop = Laptop::new();
    let _bastion = laptop.sshd("bastion", "", "");
    let config = laptop.folder.path().join("config");
    let command = format!("ProxyCommand ssh -F {} -o BatchMode=yes -W %h:%p bastion", config.display());
    let _host = laptop.sshd("web1", "AcceptEnv GREETING", &format!("{command}\n  SetEnv GREETING=hello"));
    laptop.block("web2", 22, "ProxyCommand echo no way there >&2; exit 1");
    laptop.block("web3", 22, "ProxyCommand /no/such/program");
    let configuration = laptop.configuration();
    let target = laptop.target(&configuration, "web1", "").expect("settings");
    runs(&target).await;
    let connection = connect(&target).await.expect("logged in");
    let output = connection.run("echo $GREETING", Bytes::new(), MINUTE).await.expect("ran");
    assert_eq!(output.stdout.as_ref(), b"hello\n");

    for (name, said) in [("web2", "no way there"), ("web3", "/no/such/program")] {
        let target = laptop.target(&configuration, name, "connect_limit_seconds: 2").expect("settings");
        let failure = connect(&target).await.map(|_| ()).expect_err("no way");
        assert!(failure.sentence.contains("through its ProxyCommand"), "{failure}");
        assert!(failure.detail.as_deref().is_some_and(|detail| detail.contains(said)), "{failure:?}");
    }
}

#[rstest]
#[case::user_and_port("", "config-user", 2200, "/home/key")]
#[case::inventory_user("user: ops", "ops", 2200, "/home/key")]
#[case::inventory_port("port: 22", "config-user", 22, "/home/key")]
fn the_inventory_wins_over_ssh_config(
    #[case] ssh: &str,
    #[case] user: &str,
    #[case] port: u16,
    #[case] identity: &str,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    std::fs::write(
        &file,
        "Host web1\n  HostName 10.0.0.9\n  User config-user\n  Port 2200\n  IdentityFile /home/key\n",
    )
    .expect("written");
    let configuration = Configuration::new(vec![Source { file, own: true, guarded: true }], folder.path().to_owned());
    let text = format!("hosts: {{web1: {{ssh: {{{ssh}}}}}}}");
    let inventory = inventory::parse(&text, Path::new("/i.yaml"), folder.path()).expect("good");
    let mut host = inventory.hosts[0].clone();
    let target = configuration.target(&host, None).expect("settings");
    assert_eq!((target.user.as_str(), target.port, target.address.as_str()), (user, port, "10.0.0.9"));
    assert_eq!(target.identities, [Path::new(identity)]);
    configuration.settle(&mut host).expect("settled");
    assert_eq!((host.ssh.user.as_str(), host.ssh.port), (user, port));
    assert_eq!(host.ssh.become_root, inventory::Become::Sudo);
}

#[test]
fn what_ssh_config_says_of_root_decides_about_sudo() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    std::fs::write(&file, "User root\nStrictHostKeyChecking no\nForwardAgent yes\n").expect("written");
    let configuration = Configuration::new(vec![Source { file, own: true, guarded: true }], folder.path().to_owned());
    let inventory = inventory::parse("hosts: [web1]", Path::new("/i.yaml"), folder.path()).expect("good");
    let mut host = inventory.hosts[0].clone();
    let said = configuration.settle(&mut host).expect("settled");
    assert_eq!((host.ssh.user.as_str(), host.ssh.become_root), ("root", inventory::Become::None));
    assert!(said[0].contains("config:3: ForwardAgent yes: clusterctl cannot do this"), "{said:?}");
    assert!(said[1].contains("is taken as accept-new"), "{said:?}");
    std::fs::create_dir(folder.path().join(".ssh")).expect("made");
    std::fs::write(folder.path().join(".ssh/known_hosts"), "# mine\nweb1 ssh-rsa %\n").expect("written");
    let again = Configuration::new(Vec::new(), folder.path().to_owned());
    let said = again.settle(&mut host.clone()).expect("settled");
    assert!(said[0].ends_with(".ssh/known_hosts: cannot read line 2, which is skipped"), "{said:?}");
    assert!(again.settle(&mut host.clone()).expect("settled").is_empty());
    let target = Arc::new(configuration.target(&host, None).expect("settings"));
    assert_eq!(target.host_keys, inventory::HostKeys::AcceptNew);
}

#[test]
fn what_ssh_config_says_of_a_bastion_is_told_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    let text = "Host web*\n  ProxyJump far\nHost far\n  ProxyJump near\n  ForwardAgent yes\nHost near\n  \
                StrictHostKeyChecking no\n  VerifyHostKeyDNS yes\n  UserKnownHostsFile DIR/known\n";
    std::fs::write(&file, text.replace("DIR", &folder.path().display().to_string())).expect("written");
    std::fs::write(folder.path().join("known"), "near ssh-rsa %\n").expect("written");
    let configuration = Configuration::new(vec![Source { file, own: true, guarded: true }], folder.path().to_owned());
    let inventory = inventory::parse("hosts: [web1, web2]", Path::new("/i.yaml"), folder.path()).expect("good");
    let (target, said) = configuration.find_with_remarks(&inventory.hosts[0]).expect("settings");
    assert_eq!(target.bastions().len(), 2);
    assert_eq!(said.len(), 4, "{said:?}");
    for (said, part) in said.iter().zip([
        "config:5: ForwardAgent yes: clusterctl cannot do this",
        "config:8: VerifyHostKeyDNS true: clusterctl cannot do this",
        "StrictHostKeyChecking no in ssh_config is taken as accept-new",
        "known: cannot read line 1, which is skipped",
    ]) {
        assert!(said.contains(part), "{said} has no {part}");
    }
    assert_eq!(configuration.settle(&mut inventory.hosts[1].clone()).expect("settled"), said[..3]);
}

#[test]
fn a_host_that_ssh_config_refuses_is_not_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    std::fs::write(&file, "Host web1\n  RefuseConnection \"set up anew tonight\"\n").expect("written");
    let configuration = Configuration::new(vec![Source { file, own: true, guarded: true }], folder.path().to_owned());
    for text in ["hosts: [web1]", "hosts: {w2: {ssh: {jump: web1}}}"] {
        let inventory = inventory::parse(text, Path::new("/i.yaml"), folder.path()).expect("good");
        let failure = configuration.target(&inventory.hosts[0], None).map(|_| ()).expect_err("refused");
        assert_eq!((failure.kind, failure.host.as_ref()), (Kind::Configuration, Some(&inventory.hosts[0].name)));
        assert!(failure.sentence.starts_with("ssh_config refuses connections to web1: "), "{failure}");
        assert!(failure.sentence.ends_with("config:2: RefuseConnection set up anew tonight"), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_for_bastion_and_host_is_asked_of_the_same_prompt() {
    let mut laptop = Laptop::new();
    std::fs::remove_file(laptop.key()).expect("removed");
    std::fs::remove_file(laptop.key().with_extension("pub")).expect("removed");
    make_key(laptop.folder.path(), "key", "ed25519", "open sesame");
    let _bastion = laptop.sshd("bastion", "", "");
    let _host = laptop.sshd("web1", "", "ProxyJump bastion");
    let configuration = laptop.configuration();
    let target = laptop.target(&configuration, "web1", "").expect("settings");
    let answers = Answers::with("open sesame");
    connect_with(&target, &answers, &no_sources()).await.expect("logged in");
}
