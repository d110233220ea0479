//! `ssh -G` is the judge: the same text and host must come to the same settings, or be refused by both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use rstest::rstest;

use super::machine::Machine;
use super::read::{Local, Settings, World, read, tokens};
use super::values::hop;
use super::{AgentChoice, Resolved, Source, Typed, Way, assemble, resolve};
use crate::ssh::testing::{command, program};

/// What is compared, as `ssh -G` prints it, and our name of it.
const COMPARED: &[(&str, &str)] = &[
    ("user", "User"),
    ("port", "Port"),
    ("identityfile", "IdentityFile"),
    ("certificatefile", "CertificateFile"),
    ("identitiesonly", "IdentitiesOnly"),
    ("identityagent", "IdentityAgent"),
    ("proxycommand", "ProxyCommand"),
    ("userknownhostsfile", "UserKnownHostsFile"),
    ("globalknownhostsfile", "GlobalKnownHostsFile"),
    ("hostkeyalias", "HostKeyAlias"),
    ("stricthostkeychecking", "StrictHostKeyChecking"),
    ("hashknownhosts", "HashKnownHosts"),
    ("connecttimeout", "ConnectTimeout"),
    ("serveraliveinterval", "ServerAliveInterval"),
    ("serveralivecountmax", "ServerAliveCountMax"),
    ("preferredauthentications", "PreferredAuthentications"),
    ("pubkeyauthentication", "PubkeyAuthentication"),
    ("passwordauthentication", "PasswordAuthentication"),
    ("kbdinteractiveauthentication", "KbdInteractiveAuthentication"),
    ("batchmode", "BatchMode"),
    ("addressfamily", "AddressFamily"),
    ("bindaddress", "BindAddress"),
    ("setenv", "SetEnv"),
    ("sendenv", "SendEnv"),
    ("forwardagent", "ForwardAgent"),
    ("checkhostip", "CheckHostIP"),
    ("gssapiauthentication", "GSSAPIAuthentication"),
    ("hostbasedauthentication", "HostbasedAuthentication"),
    ("proxyusefdpass", "ProxyUseFdpass"),
    ("nohostauthenticationforlocalhost", "NoHostAuthenticationForLocalhost"),
    ("requiredrsasize", "RequiredRSASize"),
    ("revokedhostkeys", "RevokedHostKeys"),
    ("knownhostscommand", "KnownHostsCommand"),
    ("canonicalizehostname", "CanonicalizeHostname"),
    ("canonicalizemaxdots", "CanonicalizeMaxDots"),
    ("canonicalizefallbacklocal", "CanonicalizeFallbackLocal"),
    ("pkcs11provider", "PKCS11Provider"),
    ("remotecommand", "RemoteCommand"),
    ("bindinterface", "BindInterface"),
    ("ciphers", "Ciphers"),
    ("kexalgorithms", "KexAlgorithms"),
    ("macs", "MACs"),
    ("hostkeyalgorithms", "HostKeyAlgorithms"),
    ("pubkeyacceptedalgorithms", "PubkeyAcceptedAlgorithms"),
];

type Printed = BTreeMap<String, Vec<String>>;

fn printed(file: &Path, host: &str) -> Option<Printed> {
    let mut ssh = command("ssh");
    let output = ssh.arg("-G").arg("-F").arg(file).arg(host).stdin(std::process::Stdio::null()).output();
    let output = output.expect("ssh is needed by this test: install openssh-client");
    let mut printed = Printed::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        printed.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    output.status.success().then_some(printed)
}

static DEFAULTS: LazyLock<Printed> =
    LazyLock::new(|| printed(Path::new("/dev/null"), "nowhere").expect("ssh prints its defaults"));

/// All algorithms that ssh knows of a kind.
static ALGORITHMS: LazyLock<BTreeMap<&str, Vec<String>>> = LazyLock::new(|| {
    let kinds = ["Ciphers", "KexAlgorithms", "MACs", "HostKeyAlgorithms", "PubkeyAcceptedAlgorithms"];
    let list = |kind: &str| program("ssh", &["-Q", kind]).lines().map(str::to_owned).collect();
    kinds.into_iter().map(|kind| (kind, list(kind))).collect()
});

fn home() -> std::path::PathBuf {
    // ssh asks the user database, not the environment.
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = rustix::process::getuid().as_raw().to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(id.as_str()));
    line.and_then(|line| line.split(':').nth(5)).map_or_else(|| "/root".into(), Into::into)
}

/// What we would print for a name.
fn ours(settings: &Settings, machine: &Machine, typed: &Typed, name: &str, printed_name: &str) -> Vec<String> {
    let default = DEFAULTS.get(printed_name).cloned().unwrap_or_default();
    let Some(values) = settings.several(name) else { return default };
    let tokens = tokens(settings, typed, machine.local(), settings.host.clone());
    let file = |text: &String| {
        let path = tokens.file(text, &|variable| machine.variable(variable)).expect("expands");
        path.display().to_string()
    };
    match name {
        "UserKnownHostsFile" => vec![values.iter().map(file).collect::<Vec<_>>().join(" ")],
        "GlobalKnownHostsFile" => vec![values.join(" ")],
        "IdentityAgent" if !values[0].starts_with('$') && values[0] != "SSH_AUTH_SOCK" => vec![file(&values[0])],
        "HostKeyAlias" => vec![values[0].to_lowercase()],
        "Ciphers" | "KexAlgorithms" | "MACs" | "HostKeyAlgorithms" | "PubkeyAcceptedAlgorithms" => {
            let default: Vec<&str> = default[0].split(',').collect();
            let all: Vec<&str> = ALGORITHMS[name].iter().map(String::as_str).collect();
            vec![assemble(&values[0], &default, &all).join(",")]
        }
        _ => values.to_vec(),
    }
}

/// `DIR` in a text is a folder with the files `one.conf` (User one) and `two.conf` (a Host block for web1).
fn compare(text: &str, host: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().display().to_string();
    std::fs::write(folder.path().join("one.conf"), "User one\n").expect("written");
    std::fs::write(folder.path().join("two.conf"), "Host web1\n  Port 2002\nHost *\n  BindAddress 127.0.0.2\n")
        .expect("written");
    std::fs::write(folder.path().join("deep"), format!("Include {here}/deep\n")).expect("written");
    let file = folder.path().join("config");
    let text = text.replace("DIR", &here);
    std::fs::write(&file, &text).expect("written");

    let machine = Machine::new(home());
    let (user, name) = host.split_once('@').map_or((None, host), |(user, name)| (Some(user.to_owned()), name));
    let typed = Typed { host: name.to_owned(), user, port: None };
    let source = Source { file: file.clone(), own: true, guarded: false };
    let settings = read(std::slice::from_ref(&source), &typed, &machine);
    let resolved = resolve(&[source], &typed, &machine);
    let Some(theirs) = printed(&file, host) else {
        assert!(settings.is_err() || resolved.is_err(), "ssh refuses {text:?}, we read {settings:?}");
        return;
    };
    let settings = settings.unwrap_or_else(|faults| panic!("{text:?} is refused: {faults:?}"));
    resolved.unwrap_or_else(|faults| panic!("{text:?} is refused: {faults:?}"));
    assert_eq!(Some(&vec![settings.host.clone()]), theirs.get("hostname"), "hostname of {host} in {text:?}");
    for (printed_name, name) in COMPARED {
        let mut expected = theirs.get(*printed_name).cloned().unwrap_or_default();
        if matches!(*name, "SetEnv" | "SendEnv") {
            expected.retain(|value| !value.is_empty());
        }
        let mut found = ours(&settings, &machine, &typed, name, printed_name);
        match *name {
            // Not printed, because it is what holds without it.
            "ProxyCommand" => found.retain(|command| command != "none"),
            // Debian's ssh has another default then.
            "ServerAliveInterval" if settings.one("BatchMode").is_some() => continue,
            _ => {}
        }
        assert_eq!(found, expected, "{name} of {host} in {text:?}");
    }
    let hops = |text: &str| text.split(',').map(hop).collect::<Vec<_>>();
    let expected = theirs.get("proxyjump").map(|jump| hops(&jump[0]));
    let found = settings.one("ProxyJump").filter(|jump| *jump != "none").map(hops);
    assert_eq!(found, expected.filter(|hops| *hops != [hop("none")]), "ProxyJump of {host} in {text:?}");
}

#[rstest]
#[case::nothing("", "web1")]
#[case::simple("User ops\nPort 2222\n", "web1")]
#[case::case_and_equals("USER=ops\nport = 2222\nHostName =10.0.0.1\n", "web1")]
#[case::quotes("User \"ops\"\nIdentityFile \"/a b/key\"\n", "web1")]
#[case::single_quotes("IdentityFile '/a b/key'\n", "web1")]
#[case::escapes("IdentityFile /a\\ b/key\nIdentityFile \"/a\\\"b\"\n", "web1")]
#[case::comments("# one\n  # two\nUser ops # three\nPort 22 #four\n", "web1")]
#[case::windows_lines("User ops\r\nPort 2222\r\n", "web1")]
#[case::tabs("\tUser\tops\n\tPort\t=\t2222\n", "web1")]
#[case::first_wins("User one\nUser two\nPort 1\nPort 2\n", "web1")]
#[case::block("Host web1\n User ops\nHost web2\n User other\n", "web1")]
#[case::other_block("Host web1\n User ops\nHost web2\n User other\n", "web2")]
#[case::no_block("Host web1\n User ops\nHost web2\n User other\n", "web3")]
#[case::several_patterns("Host db* web? !web9\n User ops\n", "web1")]
#[case::negated("Host db* web? !web9\n User ops\n", "web9")]
#[case::only_negated("Host !web9\n User ops\n", "web1")]
#[case::negated_first("Host !web1 web*\n User ops\n", "web1")]
#[case::star("Host *.example\n User ops\nHost *\n User rest\n", "a.b.example")]
#[case::case_of_host("Host WEB1\n User upper\nHost web1\n User lower\n", "WEB1")]
#[case::block_equals("Host=web1\n User ops\n", "web1")]
#[case::specific_then_general("Host web1\n Port 1\nHost *\n Port 2\n User all\n", "web1")]
#[case::general_first("Host *\n Port 2\nHost web1\n Port 1\n User ops\n", "web1")]
#[case::user_typed("Host *\n User config\n", "ops@web1")]
#[case::host_name("HostName 10.0.0.7\n", "web1")]
#[case::host_name_token("HostName %h.internal.example\n", "web1")]
#[case::host_name_upper("HostName Web1.Example\n", "x")]
#[case::host_name_percent("HostName %%h\n", "x")]
#[case::host_name_bad_token("HostName %q\n", "x")]
#[case::ipv6("HostName fd00::7\n", "web1")]
#[case::identities("IdentityFile ~/.ssh/a\nIdentityFile /b\nIdentityFile ~/.ssh/a\n", "web1")]
#[case::identities_over_blocks("Host web1\n IdentityFile /one\nHost *\n IdentityFile /two\n", "web1")]
#[case::identity_none("IdentityFile none\n", "web1")]
#[case::identity_tokens("IdentityFile %d/.ssh/%h-%r-%p-%n\nUser ops\n", "web1")]
#[case::identities_only("IdentitiesOnly yes\nIdentityFile /b\n", "web1")]
#[case::flag_true("IdentitiesOnly true\nHashKnownHosts false\n", "web1")]
#[case::bad_flag("IdentitiesOnly maybe\n", "web1")]
#[case::certificates("CertificateFile ~/.ssh/a-cert.pub\nCertificateFile /b-cert.pub\n", "web1")]
#[case::agent("IdentityAgent ~/.agent/%h\n", "web1")]
#[case::agent_none("IdentityAgent none\n", "web1")]
#[case::agent_variable_word("IdentityAgent SSH_AUTH_SOCK\n", "web1")]
#[case::agent_bad_variable("IdentityAgent ${NO_SUCH_VARIABLE_HERE}\n", "web1")]
#[case::jump("ProxyJump bastion\n", "web1")]
#[case::jump_user_port("ProxyJump ops@bastion:2222\n", "web1")]
#[case::jump_several("ProxyJump a,ops@b:22,c\n", "web1")]
#[case::jump_uri("ProxyJump ssh://ops@bastion:2222\n", "web1")]
#[case::jump_ipv6("ProxyJump ops@[fd00::1]:2222\n", "web1")]
#[case::jump_none("Host web1\n ProxyJump none\nHost *\n ProxyJump bastion\n", "web1")]
#[case::jump_comment("ProxyJump bastion # through it\n", "web1")]
#[case::jump_bad_port("ProxyJump bastion:x\n", "web1")]
#[case::jump_before_command("ProxyJump b\nProxyCommand nc %h %p\n", "web1")]
#[case::command_before_jump("ProxyCommand nc %h %p\nProxyJump b\n", "web1")]
#[case::command_quotes("ProxyCommand ssh -W '[%h]:%p' \"b c\" # not a comment\n", "web1")]
#[case::command_none("ProxyCommand none\n", "web1")]
#[case::known_hosts("UserKnownHostsFile ~/.ssh/a /b ~/c-%h\nGlobalKnownHostsFile /g\n", "web1")]
#[case::known_hosts_null("UserKnownHostsFile /dev/null\nStrictHostKeyChecking no\n", "web1")]
#[case::known_hosts_mixed_none("UserKnownHostsFile /a none\n", "web1")]
#[case::known_hosts_first_wins("UserKnownHostsFile /a\nUserKnownHostsFile /b\n", "web1")]
#[case::alias("HostKeyAlias Web.Pool\n", "web1")]
#[case::strict_yes("StrictHostKeyChecking yes\n", "web1")]
#[case::strict_off("StrictHostKeyChecking off\n", "web1")]
#[case::strict_accept_new("StrictHostKeyChecking accept-new\n", "web1")]
#[case::strict_bad("StrictHostKeyChecking perhaps\n", "web1")]
#[case::timeouts("ConnectTimeout 10\nServerAliveInterval 1m\nServerAliveCountMax 5\n", "web1")]
#[case::timeout_format("ConnectTimeout 1m30s\n", "web1")]
#[case::timeout_none("ConnectTimeout none\n", "web1")]
#[case::timeout_bad("ConnectTimeout soon\n", "web1")]
#[case::ciphers("Ciphers aes256-ctr,aes128-ctr\n", "web1")]
#[case::ciphers_plus("Ciphers +aes128-cbc\n", "web1")]
#[case::ciphers_minus("Ciphers -*-ctr\n", "web1")]
#[case::ciphers_head("Ciphers ^aes256-gcm@openssh.com\n", "web1")]
#[case::kex("KexAlgorithms +diffie-hellman-group14-sha1\n", "web1")]
#[case::macs("MACs hmac-sha2-512,hmac-sha2-256\n", "web1")]
#[case::macs_minus("MACs -hmac-sha1*,umac-64*\n", "web1")]
#[case::host_key_algorithms("HostKeyAlgorithms +ssh-rsa\nPubkeyAcceptedAlgorithms +ssh-rsa\n", "web1")]
#[case::old_names("PubkeyAcceptedKeyTypes ^ssh-rsa\nChallengeResponseAuthentication no\n", "web1")]
#[case::ways("PreferredAuthentications publickey,password\nPubkeyAuthentication no\n", "web1")]
#[case::passwords("PasswordAuthentication no\nKbdInteractiveAuthentication no\nBatchMode yes\n", "web1")]
#[case::family("AddressFamily inet6\nBindAddress ::1\n", "web1")]
#[case::family_bad("AddressFamily inet7\n", "web1")]
#[case::environment("SetEnv A=1 B=\"two words\"\nSetEnv C=3\n", "web1")]
#[case::environment_sent("SendEnv LANG LC_*\nSendEnv EDITOR\nSendEnv LANG\n", "web1")]
#[case::environment_sent_nothing("SendEnv\n", "web1")]
#[case::port_by_name("Port ssh\n", "web1")]
#[case::port_by_unknown_name("Port no-such-service\n", "web1")]
#[case::home_of_somebody("IdentityFile ~root/.ssh/id\nUserKnownHostsFile ~root/known\n", "web1")]
#[case::environment_bad("SetEnv A\n", "web1")]
#[case::unsupported("GSSAPIAuthentication yes\nForwardAgent yes\nCheckHostIP yes\nPKCS11Provider /lib/p\n", "web1")]
#[case::quiet("LocalForward 8080 localhost:80\nSendEnv LANG LC_*\nControlMaster auto\nRekeyLimit 1G\n", "web1")]
#[case::deprecated("Protocol 2\nCipher 3des\nUseRoaming no\n", "web1")]
#[case::unknown("Nonsense yes\n", "web1")]
#[case::unknown_in_other_block("Host other\n Nonsense yes\n", "web1")]
#[case::ignored("IgnoreUnknown Non*,Use*Chain\nNonsense yes\nUseKeychain yes\nUser ops\n", "web1")]
#[case::ignored_too_late("Nonsense yes\nIgnoreUnknown Nonsense\n", "web1")]
#[case::no_value("User\n", "web1")]
#[case::too_many_values("User one two\n", "web1")]
#[case::open_quote("User \"ops\n", "web1")]
#[case::bad_port("Port 70000\n", "web1")]
#[case::port_zero("Port 0\n", "web1")]
#[case::match_all("Match all\n User ops\n", "web1")]
#[case::match_host("Match host web1\n User ops\nMatch host web2\n Port 1\n", "web1")]
#[case::match_host_list("Match host db*,web*,!web9\n User ops\n", "WEB1")]
#[case::match_host_negated("Match !host web1\n User ops\n", "web2")]
#[case::match_host_name("HostName 10.0.0.1\nMatch host 10.*\n User inside\nMatch host web1\n User typed\n", "web1")]
#[case::match_originalhost("HostName 10.0.0.1\nMatch originalhost web1\n User typed\n", "web1")]
#[case::match_user("User ops\nMatch user ops\n Port 1\nMatch user root\n Port 2\n", "web1")]
#[case::match_user_typed("Match user ops\n Port 1\n", "ops@web1")]
#[case::match_localuser("Match localuser no-such-user\n Port 1\nMatch !localuser no-such-user\n Port 2\n", "web1")]
#[case::match_exec("Match exec \"test %h = web1\"\n User ops\n", "web1")]
#[case::match_exec_fails("Match exec \"test %h = web2\"\n User ops\n", "web1")]
#[case::match_exec_negated("Match host web* !exec false\n User ops\n", "web1")]
#[case::match_exec_skipped("Match host db* exec \"touch DIR/ran\"\n User ops\n", "web1")]
#[case::match_final("Match final\n User late\nMatch all\n User early\n", "web1")]
#[case::match_final_host("Host web1\n HostName web1.example\nMatch final host web1.example\n Port 7\n", "web1")]
#[case::match_final_block("HostName web1.example\nMatch final all\n Port 7\nHost web1.example\n User second\n", "web1")]
#[case::match_canonical("Match canonical\n User ops\n", "web1")]
#[case::canonical_dots("CanonicalizeHostname yes\nCanonicalizeMaxDots 0\nHost a.b\n User late\n", "a.b")]
#[case::canonical_address("CanonicalizeHostname always\nMatch canonical\n User late\n", "127.0.0.1")]
#[case::canonical_proxied("CanonicalizeHostname yes\nProxyJump b\nMatch canonical\n User late\n", "web1")]
#[case::canonical_none("CanonicalizeHostname yes\nCanonicalDomains none\nMatch canonical\n User late\n", "WEB1")]
#[case::canonical_no_fallback("CanonicalizeHostname yes\nCanonicalizeFallbackLocal no\n", "web1")]
#[case::canonical_bad("CanonicalizeHostname perhaps\n", "web1")]
#[case::revoked("RevokedHostKeys /etc/ssh/revoked\n", "web1")]
#[case::keys_command("KnownHostsCommand /usr/bin/keys %H %t\n", "web1")]
#[case::match_not_final("Match !final\n User first\n", "web1")]
#[case::match_all_not_alone("Match host web1 all\n User ops\nMatch host x user y all\n Port 2\n", "web1")]
#[case::match_nothing("Match host\n User ops\n", "web1")]
#[case::match_unknown("Match planet mars\n User ops\n", "web1")]
#[case::match_comment("Match host web1 # here\n User ops\n", "web1")]
#[case::include("Include DIR/one.conf\nPort 7\n", "web1")]
#[case::include_glob("Include DIR/*.conf\nUser ops\n", "web1")]
#[case::include_missing("Include DIR/none/*.conf\nUser ops\n", "web1")]
#[case::include_in_block("Host web1\n Include DIR/one.conf\n Port 8\n", "web1")]
#[case::include_in_other_block("Host web2\n Include DIR/one.conf DIR/two.conf\n Port 8\nHost *\n User rest\n", "web1")]
#[case::include_with_blocks("Include DIR/two.conf\nUser ops\n", "web1")]
#[case::include_with_blocks_elsewhere("Include DIR/two.conf\nUser ops\n", "web2")]
#[case::include_in_match("Match host web1\n Include DIR/two.conf\n User here\n", "web1")]
#[case::include_itself("Include DIR/deep\n", "web1")]
#[case::hashed_control_path("ControlPath ~/.ssh/%C\nIdentityAgent /run/%C\n", "web1")]
#[case::local_tokens("UserKnownHostsFile /k/%l-%L-%u-%i-%k\nHostKeyAlias pool\n", "web1")]
#[case::star_question("Host w?b*1\n User ops\n", "web11")]
fn ssh_reads_it_the_same(#[case] text: &str, #[case] host: &str) {
    compare(text, host);
}

fn resolved(text: &str, host: &str) -> Result<Resolved, Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    std::fs::write(&file, text).expect("written");
    let source = Source { file, own: true, guarded: false };
    let typed = Typed { host: host.to_owned(), ..Typed::default() };
    resolve(&[source], &typed, &Machine::new("/home/me".into()))
}

#[test]
fn settings_have_types() {
    let text = "User ops\nPort 2222\nIdentityFile ~/.ssh/%h\nIdentityFile none\nProxyJump a,ops@b:2200\n\
                IdentityAgent none\nServerAliveInterval 1m\nSetEnv A=1\nPasswordAuthentication no\n";
    let found = resolved(text, "web1").expect("good");
    assert_eq!((found.user.as_deref(), found.port), (Some("ops"), Some(2222)));
    assert_eq!(found.identities, Some(vec!["/home/me/.ssh/web1".into()]));
    assert_eq!((found.agent, found.alive_interval), (Some(AgentChoice::None), Some(60)));
    assert_eq!(found.environment, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(found.switched_off, ["password"]);
    let Some(Way::Jump(hops)) = found.way else { panic!("{:?}", found.way) };
    assert_eq!(hops, [hop("a"), hop("ops@b:2200")].map(Result::unwrap));
    let command = resolved("ProxyCommand nc -X %h:%p %r\nUser ops\n", "web1").expect("good").way;
    assert_eq!(command, Some(Way::Command("nc -X web1:22 ops".to_owned())));
}

/// This machine, with a name service and an environment of its own.
struct Named(Machine, &'static [&'static str]);

impl World for Named {
    fn read(&self, file: &Path, guarded: bool) -> Result<Option<std::sync::Arc<str>>, String> {
        self.0.read(file, guarded)
    }

    fn glob(&self, pattern: &Path) -> Vec<std::path::PathBuf> {
        self.0.glob(pattern)
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        self.0.succeeds(command)
    }

    fn resolves(&self, name: &str) -> bool {
        self.1.contains(&name)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name)
    }

    fn variables(&self) -> Vec<(String, String)> {
        [("LC_ALL", "C"), ("LANG", "de"), ("HOME", "/home/me")].map(|(name, text)| (name.into(), text.into())).into()
    }

    fn local(&self) -> &Local {
        self.0.local()
    }
}

#[rstest]
#[case::first_domain("", "web1", Ok("web1.b.example"))]
#[case::typed_in_capitals("", "Web1", Ok("web1.b.example"))]
#[case::no_address("", "web2", Ok("web2"))]
#[case::no_address_and_no_fallback("CanonicalizeFallbackLocal no\n", "web2", Err(()))]
#[case::one_dot_is_allowed("", "x.web1", Ok("x.web1.b.example"))]
#[case::too_many_dots("", "y.x.web1", Ok("y.x.web1"))]
#[case::more_dots_allowed("CanonicalizeMaxDots 2\n", "y.x.web1", Ok("y.x.web1.b.example"))]
#[case::whole_already("", "web1.b.example.", Ok("web1.b.example"))]
#[case::behind_a_jump("ProxyJump gate\n", "web1", Ok("web1"))]
#[case::behind_none("ProxyJump none\n", "web1", Ok("web1.b.example"))]
#[case::host_name_first("HostName web1\n", "short", Ok("web1.b.example"))]
fn names_become_whole(#[case] more: &str, #[case] host: &str, #[case] expected: Result<&str, ()>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    let text = format!(
        "CanonicalizeHostname yes\nCanonicalDomains a.example B.example\n{more}Host web1.b.example\n User late\n"
    );
    std::fs::write(&file, text).expect("written");
    let source = Source { file, own: true, guarded: false };
    let names = &["web1.b.example.", "x.web1.b.example.", "y.x.web1.b.example."];
    let world = Named(Machine::new("/home/me".into()), names);
    let found = resolve(&[source], &Typed { host: host.to_owned(), ..Typed::default() }, &world);
    assert_eq!(found.as_ref().map(|found| found.host.as_str()).map_err(|_| ()), expected, "{found:?}");
    if let Ok(found) = found {
        assert!(found.unsupported.is_empty(), "{found:?}");
        assert_eq!(found.user.as_deref() == Some("late"), found.host == "web1.b.example");
    }
}

#[test]
fn a_command_for_keys_keeps_the_tokens_of_a_look_up() {
    let found = resolved("KnownHostsCommand /usr/bin/keys '%H of' %n %%\n", "web1").expect("good");
    assert_eq!(found.known_hosts_command.expect("some"), ["/usr/bin/keys", "%H of", "web1", "%%"]);
    assert_eq!(resolved("KnownHostsCommand none\n", "web1").expect("good").known_hosts_command, None);
    assert!(resolved("KnownHostsCommand keys %H\n", "web1").expect_err("bad")[0].contains("whole path"));
    let list = resolved("RevokedHostKeys ~/revoked\n", "web1").expect("good").revoked_host_keys;
    assert_eq!(list, Some("/home/me/revoked".into()));
}

#[test]
fn what_cannot_be_done_is_named_with_its_place() {
    let found = resolved("ForwardAgent no\nHost web1\n  VerifyHostKeyDNS yes\nGSSAPIAuthentication yes\n", "web1");
    let unsupported = found.expect("good").unsupported;
    assert!(unsupported[0].ends_with("config:4: GSSAPIAuthentication yes"), "{unsupported:?}");
    assert!(unsupported[1].ends_with("config:3: VerifyHostKeyDNS true"), "{unsupported:?}");
    assert_eq!(unsupported.len(), 2);
}

/// What changes how a host is reached is done or named; what is as it would be without is neither.
#[rstest]
#[case::rekey("RekeyLimit 1G 1h", true)]
#[case::rekey_default("RekeyLimit default none", false)]
#[case::attempts("ConnectionAttempts 3", true)]
#[case::one_attempt("ConnectionAttempts 1", false)]
#[case::agent("AddKeysToAgent yes", true)]
#[case::agent_for_a_time("AddKeysToAgent confirm 1h", true)]
#[case::agent_not("AddKeysToAgent no # never", false)]
#[case::prompts("NumberOfPasswordPrompts 5", true)]
#[case::prompts_default("NumberOfPasswordPrompts 3", false)]
#[case::local("PermitLocalCommand yes", true)]
#[case::local_not("PermitLocalCommand no", false)]
#[case::local_without("LocalCommand touch /x", false)]
#[case::keepalive("TCPKeepAlive no", true)]
#[case::keepalive_default("TCPKeepAlive yes", false)]
#[case::quality("IPQoS throughput", true)]
#[case::quality_none("IPQoS none", false)]
#[case::sent("SendEnv LANG LC_*", false)]
#[case::refused("RefuseConnection gone", false)]
#[case::forwarded("LocalForward 8080 localhost:80", false)]
fn what_changes_something_is_not_passed_over(#[case] line: &str, #[case] named: bool) {
    let found = resolved(&format!("{line}\n"), "web1").expect("good");
    assert_eq!(found.unsupported.len(), usize::from(named), "{:?}", found.unsupported);
    let words = line.split_whitespace().next().expect("a word");
    assert!(found.unsupported.iter().all(|what| what.contains(&format!("config:1: {words}"))), "{found:?}");
}

#[rstest]
#[case("SendEnv LANG LC_*\nSetEnv LANG=en\n", &["LANG=de", "LC_ALL=C", "LANG=en"])]
#[case("SendEnv LC_* LANG\nSendEnv -LANG\n", &["LC_ALL=C"])]
#[case("SendEnv LC_*\nHost other\n SendEnv LANG\n", &["LC_ALL=C"])]
#[case("SendEnv NO_SUCH\n", &[])]
fn variables_go_where_they_are_let_through(#[case] text: &str, #[case] expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    std::fs::write(&file, text).expect("written");
    let world = Named(Machine::new("/home/me".into()), &[]);
    let typed = Typed { host: "web1".to_owned(), ..Typed::default() };
    let found = resolve(&[Source { file, own: true, guarded: false }], &typed, &world).expect("good").environment;
    assert_eq!(found.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(), expected);
}

#[test]
fn every_fault_is_told_with_its_line() {
    let faults = resolved("User ops\nNonsense 1\nPort x\n\nHost\n", "web1").expect_err("bad");
    let ends: Vec<&str> = faults.iter().map(|fault| fault.rsplit_once("config:").expect("a place").1).collect();
    assert_eq!(
        ends,
        [
            "2: the keyword nonsense is unknown",
            "3: Port has x, which is no port",
            "5: there is nothing after the keyword host"
        ]
    );
}

#[test]
fn tags_choose_blocks() {
    let found = resolved("Host web1\n Tag prod\nMatch tagged prod\n User deploy\n", "web1").expect("good");
    assert_eq!(found.user.as_deref(), Some("deploy"));
}

#[test]
fn a_block_that_cannot_be_judged_does_not_apply_and_is_named_where_it_could() {
    let text = "Match !version OpenSSH_9* host web1\n User nobody\nMatch sessiontype exec\n Port 2\n\
                Match localnetwork 10.0.0.0/8 host db1\n User nobody\nMatch host db1\n Include never\n\
                Match host db1 localnetwork 10.0.0.0/8\n User nobody\n";
    let found = resolved(text, "web1").expect("good");
    assert_eq!(found.unsupported.len(), 1, "{:?}", found.unsupported);
    assert_eq!((found.user, found.port), (None, Some(2)));
    assert!(found.unsupported[0].ends_with("config:1: Match version OpenSSH_9*"), "{:?}", found.unsupported);
}
