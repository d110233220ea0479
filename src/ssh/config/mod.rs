//! ssh_config as its users have it: ~/.ssh/config and /etc/ssh/ssh_config, in OpenSSH's meaning (ssh_config(5)).
//!
//! ```text
//! words       a line: its keyword, its words
//! keywords    what keywords there are, and what they mean to us
//! values      a value, checked
//! read        Host, Match and Include over all lines: what applies to one host
//! tokens      %h, ~ and ${HOME} in values
//! algorithms  lists with + - ^
//! machine     the files, commands and names of this machine
//! ```
//!
//! All but `machine` is pure. Tests compare with `ssh -G`.

mod algorithms;
mod keywords;
mod machine;
mod read;
mod tokens;
mod values;
mod words;

use std::path::PathBuf;

use crate::inventory::Hop;
use crate::pattern::matches_pattern;

pub(super) use algorithms::assemble;
pub(super) use machine::Machine;
pub(super) use read::{Source, Typed};
pub(super) use tokens::percent;

use keywords::Regard;
use read::{Settings, World, tokens};
use tokens::Tokens;
use values::hop;
use words::words;

/// The tokens of KnownHostsCommand that are known when a key is looked up.
const LATER: &str = "fHIKt";

/// What ssh_config says about one host; `None` and empty lists where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resolved {
    /// What is dialled.
    pub(super) host: String,
    /// The login name.
    pub(super) user: Option<String>,
    /// The TCP port.
    pub(super) port: Option<u16>,
    /// Key files; `None` means the usual ones.
    pub(super) identities: Option<Vec<PathBuf>>,
    /// Certificate files besides those beside the keys.
    pub(super) certificates: Vec<PathBuf>,
    /// Whether only the key files are offered, even if an agent holds more.
    pub(super) identities_only: bool,
    /// Which agent is asked.
    pub(super) agent: Option<AgentChoice>,
    /// How the host is reached.
    pub(super) way: Option<Way>,
    /// known_hosts files of the user.
    pub(super) user_known_hosts: Option<Vec<PathBuf>>,
    /// known_hosts files of the system.
    pub(super) global_known_hosts: Option<Vec<PathBuf>>,
    /// The words of a command that prints more lines of known_hosts; `%f`, `%H`, `%I`, `%K`, `%t` and `%%` still stand
    /// in them.
    pub(super) known_hosts_command: Option<Vec<String>>,
    /// A list of keys that no host may have.
    pub(super) revoked_host_keys: Option<PathBuf>,
    /// The name looked up in known_hosts.
    pub(super) host_key_alias: Option<String>,
    /// `true`, `false`, `ask` or `accept-new`.
    pub(super) strict_host_key_checking: Option<String>,
    /// Whether names are hashed when a key is remembered.
    pub(super) hash_known_hosts: bool,
    /// In seconds; zero means none.
    pub(super) connect_timeout: Option<u64>,
    /// In seconds; zero means never.
    pub(super) alive_interval: Option<u64>,
    /// Questions without an answer.
    pub(super) alive_count: Option<usize>,
    /// Lists of algorithms as written.
    pub(super) algorithms: Algorithms,
    /// The ways to log in, most wanted first.
    pub(super) preferred: Option<Vec<String>>,
    /// Ways to log in that are switched off: `publickey`, `password`, `keyboard-interactive`.
    pub(super) switched_off: Vec<&'static str>,
    /// Whether nobody is asked for anything.
    pub(super) batch: bool,
    /// `any`, `inet` or `inet6`.
    pub(super) family: Option<String>,
    /// The address here that connections come from.
    pub(super) bind_address: Option<String>,
    /// Variables for commands on the host.
    pub(super) environment: Vec<(String, String)>,
    /// Where and why no connection is wanted: `/home/me/.ssh/config:3: RefuseConnection set up anew tonight`.
    pub(super) refusal: Option<String>,
    /// What we cannot do, in words that begin a sentence: `/home/me/.ssh/config:3: GSSAPIAuthentication yes`.
    pub(super) unsupported: Vec<String>,
}

/// Lists of algorithms as written, with `+`, `-` or `^` before them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Algorithms {
    /// Ciphers.
    pub(super) ciphers: Option<String>,
    /// KexAlgorithms.
    pub(super) key_exchanges: Option<String>,
    /// MACs.
    pub(super) macs: Option<String>,
    /// HostKeyAlgorithms.
    pub(super) host_keys: Option<String>,
    /// PubkeyAcceptedAlgorithms.
    pub(super) public_keys: Option<String>,
}

/// Which agent is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AgentChoice {
    /// None.
    None,
    /// That of the environment.
    Environment,
    /// The one at this socket.
    Socket(PathBuf),
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By TCP from here.
    Direct,
    /// Through these, the first of which is reached from here.
    Jump(Vec<Hop>),
    /// Through the input and output of this command.
    Command(String),
}

/// What the files say about a host.
///
/// # Errors
/// All that is wrong, each with its file and line.
pub(super) fn resolve(sources: &[Source], typed: &Typed, world: &dyn World) -> Result<Resolved, Vec<String>> {
    let settings = read::read(sources, typed, world)?;
    let tokens = tokens(&settings, typed, world.local(), settings.host.clone());
    let one = |name: &str| settings.one(name).map(str::to_owned);
    let yes = |name: &str| settings.one(name) == Some("yes");
    let number = |name: &str| settings.one(name).map(|text| text.parse::<u64>().unwrap_or(0));
    let mut faults = Vec::new();
    let mut files = |name: &str| files(&settings, name, &tokens, world, &mut faults);
    let resolved = Resolved {
        identities: files("IdentityFile"),
        certificates: files("CertificateFile").unwrap_or_default(),
        user_known_hosts: files("UserKnownHostsFile"),
        global_known_hosts: files("GlobalKnownHostsFile"),
        revoked_host_keys: files("RevokedHostKeys").and_then(|mut files| files.pop()),
        known_hosts_command: found(known_hosts_command(&settings, &tokens), &mut faults),
        user: one("User"),
        port: settings.one("Port").and_then(|port| port.parse().ok()),
        identities_only: yes("IdentitiesOnly"),
        agent: found(agent(&settings, &tokens, world), &mut faults),
        way: found(way(&settings, &tokens), &mut faults),
        host_key_alias: one("HostKeyAlias").map(|alias| alias.to_lowercase()),
        strict_host_key_checking: one("StrictHostKeyChecking"),
        hash_known_hosts: yes("HashKnownHosts"),
        connect_timeout: number("ConnectTimeout"),
        alive_interval: number("ServerAliveInterval"),
        alive_count: number("ServerAliveCountMax").map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        algorithms: Algorithms {
            ciphers: one("Ciphers"),
            key_exchanges: one("KexAlgorithms"),
            macs: one("MACs"),
            host_keys: one("HostKeyAlgorithms"),
            public_keys: one("PubkeyAcceptedAlgorithms"),
        },
        preferred: settings
            .one("PreferredAuthentications")
            .map(|list| list.split(',').map(|way| way.trim().to_owned()).collect()),
        switched_off: [
            ("PubkeyAuthentication", "false", "publickey"),
            ("PasswordAuthentication", "no", "password"),
            ("KbdInteractiveAuthentication", "no", "keyboard-interactive"),
        ]
        .into_iter()
        .filter(|(name, off, _)| settings.one(name) == Some(off))
        .map(|(_, _, way)| way)
        .collect(),
        batch: yes("BatchMode"),
        family: one("AddressFamily"),
        bind_address: one("BindAddress"),
        environment: environment(&settings, world),
        refusal: settings.one("RefuseConnection").map(|why| misread(&settings, "RefuseConnection", why)),
        unsupported: unsupported(&settings),
        host: settings.host.clone(),
    };
    if faults.is_empty() { Ok(resolved) } else { Err(faults) }
}

/// What SendEnv lets through of the environment here, in order of names, then what SetEnv says: sshd takes the last.
fn environment(settings: &Settings, world: &dyn World) -> Vec<(String, String)> {
    let mut patterns: Vec<&str> = Vec::new();
    for pattern in settings.several("SendEnv").unwrap_or_default() {
        match pattern.strip_prefix('-') {
            Some(taken) => patterns.retain(|known| !matches_pattern(taken.as_bytes(), known.as_bytes())),
            None => patterns.push(pattern),
        }
    }
    let is_sent = |name: &str| patterns.iter().any(|pattern| matches_pattern(pattern.as_bytes(), name.as_bytes()));
    let mut all: Vec<(String, String)> = match patterns.is_empty() {
        true => Vec::new(),
        false => world.variables().into_iter().filter(|(name, _)| is_sent(name)).collect(),
    };
    all.sort();
    let set = settings.several("SetEnv").unwrap_or_default().iter().filter_map(|word| word.split_once('='));
    all.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
    all
}

fn found<T>(result: Result<Option<T>, String>, faults: &mut Vec<String>) -> Option<T> {
    result.unwrap_or_else(|why| {
        faults.push(why);
        None
    })
}

/// Where a keyword stands and what is wrong with it.
fn misread(settings: &Settings, name: &str, why: &str) -> String {
    match settings.place(name) {
        Some(place) => format!("{place}: {name} {why}"),
        None => format!("{name} {why}"),
    }
}

fn files(
    settings: &Settings,
    name: &str,
    tokens: &Tokens,
    world: &dyn World,
    faults: &mut Vec<String>,
) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    for text in settings.several(name)?.iter().filter(|text| !text.eq_ignore_ascii_case("none")) {
        match tokens.file(text, &|variable| world.variable(variable)) {
            Ok(file) => files.push(file),
            Err(why) => faults.push(misread(settings, name, &why)),
        }
    }
    Some(files)
}

fn agent(settings: &Settings, tokens: &Tokens, world: &dyn World) -> Result<Option<AgentChoice>, String> {
    let Some(text) = settings.one("IdentityAgent") else { return Ok(None) };
    Ok(Some(match text {
        "SSH_AUTH_SOCK" => AgentChoice::Environment,
        none if none.eq_ignore_ascii_case("none") => AgentChoice::None,
        text => match text.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(name) => world.variable(name).map_or(AgentChoice::None, |path| AgentChoice::Socket(path.into())),
            None => {
                let file = tokens.file(text, &|variable| world.variable(variable));
                AgentChoice::Socket(file.map_err(|why| misread(settings, "IdentityAgent", &why))?)
            }
        },
    }))
}

/// OpenSSH starts this command without a shell, and only by its whole path.
fn known_hosts_command(settings: &Settings, tokens: &Tokens) -> Result<Option<Vec<String>>, String> {
    let name = "KnownHostsCommand";
    let Some(line) = settings.one(name).filter(|line| !line.eq_ignore_ascii_case("none")) else { return Ok(None) };
    let expanded = words(line).and_then(|words| {
        words.iter().map(|word| tokens.expand_all_but(LATER, word)).collect::<Result<Vec<String>, String>>()
    });
    match expanded.map_err(|why| misread(settings, name, &why))? {
        command if command.first().is_some_and(|program| program.starts_with('/')) => Ok(Some(command)),
        _ => Err(misread(settings, name, "names no program by its whole path")),
    }
}

fn way(settings: &Settings, tokens: &Tokens) -> Result<Option<Way>, String> {
    if let Some(jump) = settings.one("ProxyJump") {
        if jump == "none" {
            return Ok(Some(Way::Direct));
        }
        let expanded = tokens.expand(jump).map_err(|why| misread(settings, "ProxyJump", &why))?;
        let hops: Result<Vec<Hop>, String> = expanded.split(',').map(hop).collect();
        return hops.map(|hops| Some(Way::Jump(hops))).map_err(|why| misread(settings, "ProxyJump", &why));
    }
    match settings.one("ProxyCommand") {
        None => Ok(None),
        Some(none) if none.eq_ignore_ascii_case("none") => Ok(Some(Way::Direct)),
        Some(command) => {
            let command = tokens.expand(command).map_err(|why| misread(settings, "ProxyCommand", &why))?;
            Ok(Some(Way::Command(command)))
        }
    }
}

/// What is written and cannot be done. GSSAPIAuthentication in the system's file is left out: distributions switch it on
/// for everybody, and a login that needs it fails with what was tried.
fn unsupported(settings: &Settings) -> Vec<String> {
    let mut found: Vec<String> = settings.unjudged.iter().cloned().collect();
    for setting in settings.all() {
        let (Regard::Unsupported(harmless), Some(place)) = (setting.keyword.regard, setting.place.as_ref()) else {
            continue;
        };
        let value = setting.values.join(" ");
        let value = value.split(" #").next().unwrap_or_default().trim();
        let is_usual = setting.keyword.name == "GSSAPIAuthentication" && !place.own;
        if !is_usual && !harmless.iter().any(|harmless| harmless.eq_ignore_ascii_case(value)) {
            found.push(format!("{place}: {} {value}", setting.keyword.name));
        }
    }
    found
}

#[cfg(test)]
mod tests;
