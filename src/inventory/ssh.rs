//! `ssh:`, at the top for all hosts and at a host for that one.

use std::path::PathBuf;

use super::surroundings::{Surroundings, not_private};
use super::walk::{Fields, Walk};
use super::{Become, HostKeys, SecretSource, Ssh};
use crate::yaml::{Content, Entry, Finding, Node};

/// The keys of `ssh:`.
pub(super) const KEYS: [&str; 11] = [
    "user",
    "port",
    "identity",
    "identities",
    "agent",
    "password",
    "become",
    "become_password",
    "known_hosts",
    "host_keys",
    "connect_limit_seconds",
];

/// How `become` is written.
pub(super) const BECOME: [(&str, Become); 2] = [("sudo", Become::Sudo), ("none", Become::None)];

/// How `host_keys` is written.
pub(super) const HOST_KEYS: [(&str, HostKeys); 2] = [("strict", HostKeys::Strict), ("accept-new", HostKeys::AcceptNew)];

const DEFAULT_PORT: u16 = 22;
const DEFAULT_CONNECT_LIMIT_SECONDS: u64 = 20;

/// What one `ssh:` says.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    user: Option<String>,
    /// The port; a host's `address` may bring one, too.
    pub port: Option<u16>,
    identities: Option<Vec<PathBuf>>,
    agent: Option<bool>,
    password: Option<SecretSource>,
    become_root: Option<Become>,
    become_password: Option<SecretSource>,
    known_hosts: Option<Vec<PathBuf>>,
    host_keys: Option<HostKeys>,
    connect_limit_seconds: Option<u64>,
}

/// Reads an `ssh:`; `what` is `` `ssh` `` or `` `hosts.cp1.ssh` `` without the quotes.
pub(super) fn read(walk: &mut Walk, node: &Node, what: &str, surroundings: &Surroundings) -> Written {
    let Some(fields) = walk.fields(node, &format!("`{what}`"), &KEYS) else { return Written::default() };
    let named = |key: &str| format!("`{what}.{key}`");
    Written {
        user: fields.get("user").and_then(|node| walk.ruled(node, &named("user"), login_name)),
        port: fields.get("port").and_then(|node| {
            walk.number(node, &named("port"), 1, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
        }),
        identities: identities(walk, fields, what, surroundings),
        agent: fields.get("agent").and_then(|node| walk.flag(node, &named("agent"))),
        password: fields.entry("password").and_then(|entry| secret(walk, entry, what, surroundings)),
        become_root: fields.get("become").and_then(|node| walk.choice(node, &named("become"), &BECOME)),
        become_password: fields.entry("become_password").and_then(|entry| secret(walk, entry, what, surroundings)),
        known_hosts: fields.get("known_hosts").and_then(|node| {
            let paths = paths(walk, node, &named("known_hosts"), surroundings)?;
            Some(paths.into_iter().map(|(_, path)| path).collect())
        }),
        host_keys: fields.get("host_keys").and_then(|node| walk.choice(node, &named("host_keys"), &HOST_KEYS)),
        connect_limit_seconds: fields
            .get("connect_limit_seconds")
            .and_then(|node| walk.number(node, &named("connect_limit_seconds"), 1, 3600)),
    }
}

/// A host's own settings over those for all, defaults below both.
pub(super) fn merge(own: Written, all: &Written, surroundings: &Surroundings) -> Ssh {
    let all = all.clone();
    let user = own.user.or(all.user).unwrap_or_else(|| surroundings.user.clone());
    let password = own.password.or(all.password);
    let default_become = if user == "root" { Become::None } else { Become::Sudo };
    Ssh {
        port: own.port.or(all.port).unwrap_or(DEFAULT_PORT),
        identities: own.identities.or(all.identities).unwrap_or_default(),
        agent: own.agent.or(all.agent).unwrap_or(true),
        become_root: own.become_root.or(all.become_root).unwrap_or(default_become),
        become_password: own.become_password.or(all.become_password).or_else(|| password.clone()),
        password,
        known_hosts: own.known_hosts.or(all.known_hosts).unwrap_or_else(|| {
            vec![surroundings.home.join(".ssh/known_hosts"), PathBuf::from("/etc/ssh/ssh_known_hosts")]
        }),
        host_keys: own.host_keys.or(all.host_keys).unwrap_or(HostKeys::Strict),
        connect_limit_seconds: own
            .connect_limit_seconds
            .or(all.connect_limit_seconds)
            .unwrap_or(DEFAULT_CONNECT_LIMIT_SECONDS),
        user,
    }
}

/// sshd takes any text; this keeps out what can only be a mistake.
fn login_name(text: &str) -> Result<String, String> {
    let plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && !matches!(letter, ':' | '/');
    match !text.is_empty() && text.len() <= 256 && !text.starts_with('-') && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("is no login name".to_owned()),
    }
}

fn identities(walk: &mut Walk, fields: Fields<'_>, what: &str, surroundings: &Surroundings) -> Option<Vec<PathBuf>> {
    let key = match (fields.entry("identity"), fields.entry("identities")) {
        (Some(one), Some(many)) => {
            let finding = Finding::error(many.key.span, "`identity` and `identities` are the same setting");
            walk.find(finding.related(one.key.span, "also written here").help("keep one of them; both take a list"));
            return None;
        }
        (one, many) => one.or(many)?,
    };
    let found = paths(walk, &key.value, &format!("`{what}.{}`", key.key.text), surroundings)?;
    for (node, path) in &found {
        if path.extension().is_some_and(|extension| extension == "pub") {
            let finding = Finding::error(node.span, format!("{} is a public key", path.display()));
            walk.find(finding.help("name the private key, without `.pub`"));
        } else if let Some(finding) = not_private(node, &format!("`{what}.{}`", key.key.text), path) {
            walk.find(finding);
        }
    }
    Some(found.into_iter().map(|(_, path)| path).collect())
}

/// A path or a list of paths, resolved.
fn paths<'node>(
    walk: &mut Walk,
    node: &'node Node,
    what: &str,
    surroundings: &Surroundings,
) -> Option<Vec<(&'node Node, PathBuf)>> {
    let items: &[Node] = match &node.content {
        Content::List(items) => items,
        Content::Scalar { .. } => std::slice::from_ref(node),
        Content::Map(_) => return walk.wrong(node, what, "a path or a list of paths"),
    };
    let paths: Vec<_> = items
        .iter()
        .map(|item| walk.ruled(item, what, |text| surroundings.resolve(text)).map(|path| (item, path)))
        .collect();
    paths.into_iter().collect()
}

/// The keys that say where a password comes from.
pub(super) const SECRET_KEYS: [&str; 3] = ["ask", "file", "command"];

/// Where a password comes from. The password itself is refused, and its text appears in no finding.
fn secret(walk: &mut Walk, entry: &Entry, what: &str, surroundings: &Surroundings) -> Option<SecretSource> {
    const WAYS: &str = "write `{ask: true}`, `{file: PATH}` or `{command: \"...\"}`";
    let what = format!("`{what}.{}`", entry.key.text);
    if !matches!(entry.value.content, Content::Map(_)) {
        let message = format!(
            "{what} has to say where the password comes from: an inventory is shared and kept, passwords are not"
        );
        walk.find(Finding::error(entry.key.span, message).help(WAYS));
        return None;
    }
    let fields = walk.fields(&entry.value, &what, &SECRET_KEYS)?;
    let written: Vec<&Entry> = SECRET_KEYS.iter().filter_map(|key| fields.entry(key)).collect();
    let [way] = written.as_slice() else {
        let message = format!("{what} has to name one source of the password, but names {}", written.len());
        walk.find(Finding::error(entry.value.span, message).help(WAYS));
        return None;
    };
    let node = &way.value;
    let what = format!("{}.{}`", what.trim_end_matches('`'), way.key.text);
    match way.key.text.as_str() {
        "ask" => match walk.flag(node, &what)? {
            true => Some(SecretSource::Ask),
            // Written out, this can only mean that a host wants no password where all others have one.
            false => {
                walk.find(Finding::error(node.span, format!("{what}: `false` says nothing")).help(WAYS));
                None
            }
        },
        "file" => {
            let path = walk.ruled(node, &what, |text| surroundings.resolve(text))?;
            if let Some(finding) = not_private(node, &what, &path) {
                walk.find(finding);
            }
            Some(SecretSource::File(path))
        }
        _ => walk.ruled(node, &what, command).map(SecretSource::Command),
    }
}

fn command(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("is empty".to_owned()),
        false => Ok(text.to_owned()),
    }
}
