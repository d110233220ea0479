//! What ssh_config and an inventory say, down to the fields of a target that connections are made with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::inventory;
use crate::ssh::config::Source;
use crate::ssh::configuration::Configuration;
use crate::ssh::target::Target;

/// A field of a target, as text.
type Field = fn(&Target) -> String;

/// A home folder with both files of ssh_config, which `DIR` in a text stands for.
struct Home(TempDir);

impl Home {
    /// Both files, the person's own and the system's.
    fn with(own: &str, system: &str) -> Self {
        let home = Self(tempfile::tempdir().expect("a folder"));
        for (name, text) in [("own", own), ("system", system), ("mine", "a key\n")] {
            let path = home.0.path().join(name);
            std::fs::write(&path, text.replace("DIR", &home.folder())).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        }
        home
    }

    fn folder(&self) -> String {
        self.0.path().display().to_string()
    }

    /// The target of the only host of an inventory.
    fn target(&self, hosts: &str) -> Target {
        let source = |name: &str, own| Source { file: self.0.path().join(name), own, guarded: own };
        let configuration =
            Configuration::new(vec![source("own", true), source("system", false)], self.0.path().to_owned());
        let text = format!("hosts: {{{}}}", hosts.replace("DIR", &self.folder()));
        let inventory = inventory::parse(&text, Path::new("/i.yaml"), self.0.path()).expect("a good inventory");
        configuration.target(&inventory.hosts[0], None).unwrap_or_else(|failure| panic!("{hosts}: {failure}"))
    }

    /// What a field holds, with `DIR` for the folder.
    fn shows(&self, field: Field, target: &Target) -> String {
        field(target).replace(&self.folder(), "DIR")
    }
}

/// What stands in a `Host web1` of ~/.ssh/config, and the field that it decides about.
const WRITTEN: &[(&str, Field, &str)] = &[
    ("HostName 10.0.0.9", |target| target.address.clone(), "10.0.0.9"),
    ("User ann", |target| target.user.clone(), "ann"),
    ("Port 2200", |target| target.port.to_string(), "2200"),
    (
        "IdentityFile DIR/one\n  IdentityFile DIR/two",
        |target| format!("{:?}", target.identities),
        r#"["DIR/one", "DIR/two"]"#,
    ),
    ("IdentitiesOnly yes", |target| target.identities_only.to_string(), "true"),
    ("IdentityAgent DIR/agent", |target| format!("{:?}", target.agent_socket), r#"Some("DIR/agent")"#),
    ("IdentityAgent none", |target| target.agent.to_string(), "false"),
    ("CertificateFile DIR/one-cert.pub", |target| format!("{:?}", target.certificates), r#"["DIR/one-cert.pub"]"#),
    ("HostKeyAlias pool", |target| format!("{:?}", target.host_key_alias), r#"Some("pool")"#),
    ("HashKnownHosts yes", |target| target.hash_known_hosts.to_string(), "true"),
    (
        "UserKnownHostsFile DIR/known",
        |target| format!("{:?}", target.known_hosts),
        r#"["DIR/known", "/etc/ssh/ssh_known_hosts"]"#,
    ),
    ("UserKnownHostsFile none", |target| target.remembers.to_string(), "false"),
    (
        "GlobalKnownHostsFile DIR/all",
        |target| format!("{:?}", target.known_hosts),
        r#"["DIR/.ssh/known_hosts", "DIR/all"]"#,
    ),
    (
        "KnownHostsCommand /bin/keys %H",
        |target| format!("{:?}", target.known_hosts_command),
        r#"Some(["/bin/keys", "%H"])"#,
    ),
    ("RevokedHostKeys DIR/revoked", |target| format!("{:?}", target.revoked_host_keys), r#"Some("DIR/revoked")"#),
    ("StrictHostKeyChecking accept-new", |target| format!("{:?}", target.host_keys), "AcceptNew"),
    ("ServerAliveInterval 7", |target| format!("{:?}", target.keepalive.0), "7s"),
    ("ServerAliveCountMax 5", |target| target.keepalive.1.to_string(), "5"),
    ("ConnectTimeout 7", |target| format!("{:?}", target.dial_limit), "Some(7s)"),
    ("ConnectTimeout 30", |target| format!("{:?}", target.connect_limit), "45s"),
    ("Ciphers aes128-ctr", |target| format!("{:?}", target.algorithms.ciphers), r#"Some("aes128-ctr")"#),
    ("KexAlgorithms -ecdh*", |target| format!("{:?}", target.algorithms.key_exchanges), r#"Some("-ecdh*")"#),
    ("MACs hmac-sha2-256", |target| format!("{:?}", target.algorithms.macs), r#"Some("hmac-sha2-256")"#),
    ("HostKeyAlgorithms ^ssh-rsa", |target| format!("{:?}", target.algorithms.host_keys), r#"Some("^ssh-rsa")"#),
    (
        "PubkeyAcceptedAlgorithms +ssh-rsa",
        |target| format!("{:?}", target.algorithms.public_keys),
        r#"Some("+ssh-rsa")"#,
    ),
    ("PreferredAuthentications password,publickey", |target| target.ways.join(" "), "password publickey"),
    ("PubkeyAuthentication no", |target| target.ways.join(" "), "keyboard-interactive password"),
    ("PasswordAuthentication no", |target| target.ways.join(" "), "publickey keyboard-interactive"),
    ("KbdInteractiveAuthentication no", |target| target.ways.join(" "), "publickey password"),
    ("BatchMode yes", |target| target.ask.to_string(), "false"),
    ("AddressFamily inet", |target| format!("{:?}", target.family), "Some(Four)"),
    ("AddressFamily inet6", |target| format!("{:?}", target.family), "Some(Six)"),
    ("BindAddress 127.0.0.2", |target| format!("{:?}", target.bind_address), r#"Some("127.0.0.2")"#),
    ("SetEnv LANG=C", |target| format!("{:?}", target.environment), r#"[("LANG", "C")]"#),
    ("ProxyJump far", |target| target.bastions().iter().map(|bastion| bastion.name.clone()).collect(), "far"),
    ("ProxyCommand nc %h %p", |target| format!("{:?}", target.route), r#"Command("nc web1 22")"#),
];

#[test]
fn what_ssh_config_says_of_a_host_or_a_bastion_reaches_the_target() {
    let silent = Home::with("", "");
    for (line, field, expected) in WRITTEN {
        let home = Home::with(&format!("Host web1\n  {line}\n"), "");
        let host = home.target("web1: {}");
        assert_eq!(home.shows(*field, &host), *expected, "{line}");
        let behind = home.target("other: {ssh: {jump: web1}}");
        assert_eq!(home.shows(*field, &behind.bastions()[0]), *expected, "{line}, of a bastion");
        // Else it would say the same of any file.
        assert_ne!(silent.shows(*field, &silent.target("web1: {}")), *expected, "{line} is the default");
    }
}

#[test]
fn the_persons_own_file_wins_over_that_of_the_system() {
    let own = "Host web1\n  User ann\n  Port 2200\n  IdentitiesOnly no\n  ConnectTimeout 7\n  UserKnownHostsFile \
               DIR/known\n  Ciphers aes128-ctr\n  IdentityFile DIR/own\n  ServerAliveInterval 7\n";
    let system = "Host *\n  User everybody\n  Port 2222\n  IdentitiesOnly yes\n  ConnectTimeout 9\n  \
                  UserKnownHostsFile DIR/all\n  Ciphers aes256-ctr\n  IdentityFile DIR/system\n  ServerAliveInterval 9\n  \
                  BindAddress 127.0.0.2\n";
    let home = Home::with(own, system);
    let target = home.target("web1: {}");
    let known = home.0.path().join("known");
    assert_eq!((target.user.as_str(), target.port, target.identities_only), ("ann", 2200, false));
    assert_eq!((target.dial_limit, target.keepalive.0), (Some(SEVEN), SEVEN));
    assert_eq!((target.known_hosts.first(), target.algorithms.ciphers.as_deref()), (Some(&known), Some("aes128-ctr")));
    // What the person does not say the system says, and keys come from both, the person's first.
    assert_eq!(target.bind_address.as_deref(), Some("127.0.0.2"));
    assert_eq!(target.identities, ["own", "system"].map(|name| home.0.path().join(name)));
    let other = home.target("web2: {}");
    assert_eq!((other.user.as_str(), other.port, other.identities_only), ("everybody", 2222, true));
}

const SEVEN: std::time::Duration = std::time::Duration::from_secs(7);

/// `ssh:` of a host, what ssh_config says against it, and the field that the inventory decides about.
const AGAINST: &[(&str, &str, Field, &str)] = &[
    ("user: mine", "User ann", |target| target.user.clone(), "mine"),
    ("port: 2222", "Port 2200", |target| target.port.to_string(), "2222"),
    ("identity: DIR/mine", "IdentityFile DIR/one", |target| format!("{:?}", target.identities), r#"["DIR/mine"]"#),
    ("agent: false", "IdentityAgent DIR/agent", |target| target.agent.to_string(), "false"),
    ("agent: true", "IdentityAgent none", |target| target.agent.to_string(), "true"),
    (
        "known_hosts: DIR/mine",
        "UserKnownHostsFile DIR/known\n  GlobalKnownHostsFile DIR/all\n  KnownHostsCommand /bin/keys",
        |target| format!("{:?} {:?}", target.known_hosts, target.known_hosts_command),
        r#"["DIR/mine"] None"#,
    ),
    ("known_hosts: DIR/mine", "UserKnownHostsFile none", |target| target.remembers.to_string(), "true"),
    ("host_keys: strict", "StrictHostKeyChecking no", |target| format!("{:?}", target.host_keys), "Strict"),
    ("host_keys: accept-new", "StrictHostKeyChecking yes", |target| format!("{:?}", target.host_keys), "AcceptNew"),
    (
        "host_key: SHA256:uNiVztksCsDhcc0u9e8BrwE2tdUJCSVbXIE4h5zRj2o",
        "UserKnownHostsFile DIR/known\n  StrictHostKeyChecking no",
        |target| target.host_key_pins.join(" "),
        "SHA256:uNiVztksCsDhcc0u9e8BrwE2tdUJCSVbXIE4h5zRj2o",
    ),
    (
        "connect_limit_seconds: 9",
        "ConnectTimeout 30",
        |target| format!("{:?} {:?}", target.connect_limit, target.dial_limit),
        "9s None",
    ),
    ("jump: near", "ProxyJump far", |target| target.bastions().iter().map(|it| it.name.clone()).collect(), "near"),
    ("jump: none", "ProxyCommand nc %h %p", |target| format!("{:?}", target.route), "Direct"),
];

#[test]
fn what_the_inventory_says_wins_over_ssh_config() {
    for (written, line, field, expected) in AGAINST {
        let home = Home::with(&format!("Host web1\n  {line}\n"), "");
        let target = home.target(&format!("web1: {{ssh: {{{written}}}}}"));
        assert_eq!(home.shows(*field, &target), *expected, "{written} against {line}");
        assert_ne!(home.shows(*field, &home.target("web1: {}")), *expected, "{line} does not contradict {written}");
    }
}

/// Whichever agent ssh_config names is the one that `agent: true` asks.
#[test]
fn an_agent_that_the_inventory_wants_is_the_one_of_ssh_config() {
    let home = Home::with("IdentityAgent DIR/agent\n", "");
    let target = home.target("web1: {ssh: {agent: true}}");
    assert_eq!((target.agent, target.agent_socket), (true, Some(home.0.path().join("agent"))));
}
