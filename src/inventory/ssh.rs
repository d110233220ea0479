//! `ssh:`, at the top for all hosts and at a host for that one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::surroundings::{Surroundings, missing, not_private};
use super::walk::{Fields, Walk};
use super::{Become, Hop, HostKeys, SecretSource, Ssh, grammar};
use crate::yaml::{Content, Entry, Finding, Node};

/// The keys of `ssh:`.
pub(super) const KEYS: [&str; 13] = [
    "user",
    "port",
    "jump",
    "identity",
    "identities",
    "agent",
    "password",
    "become",
    "become_password",
    "known_hosts",
    "host_keys",
    "host_key",
    "connect_limit_seconds",
];

/// How `become` is written.
pub(super) const BECOME: [(&str, Become); 3] = [("sudo", Become::Sudo), ("doas", Become::Doas), ("none", Become::None)];

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
    jump: Option<Vec<Hop>>,
    host_key: Option<Vec<String>>,
    identities: Option<Vec<PathBuf>>,
    agent: Option<bool>,
    password: Option<SecretSource>,
    become_root: Option<Become>,
    become_password: Option<SecretSource>,
    known_hosts: Option<Vec<PathBuf>>,
    host_keys: Option<HostKeys>,
    connect_limit_seconds: Option<u64>,
}

impl Written {
    /// The keys that are written.
    fn keys(&self) -> BTreeSet<&'static str> {
        let all = [
            ("user", self.user.is_some()),
            ("port", self.port.is_some()),
            ("jump", self.jump.is_some()),
            ("identities", self.identities.is_some()),
            ("agent", self.agent.is_some()),
            ("password", self.password.is_some()),
            ("become", self.become_root.is_some()),
            ("become_password", self.become_password.is_some()),
            ("known_hosts", self.known_hosts.is_some()),
            ("host_keys", self.host_keys.is_some()),
            ("host_key", self.host_key.is_some()),
            ("connect_limit_seconds", self.connect_limit_seconds.is_some()),
        ];
        all.into_iter().filter(|(_, is_written)| *is_written).map(|(key, _)| key).collect()
    }
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
        jump: fields.get("jump").and_then(|node| hops(walk, node, &named("jump"))),
        host_key: fields.get("host_key").and_then(|node| {
            let texts = walk.texts(node, &named("host_key"))?;
            let found: Vec<Option<String>> = texts
                .into_iter()
                .map(|(span, text)| match fingerprint(text) {
                    Ok(fingerprint) => Some(fingerprint),
                    Err(reason) => {
                        walk.find(Finding::error(span, format!("{}: `{text}` {reason}", named("host_key"))));
                        None
                    }
                })
                .collect();
            found.into_iter().collect()
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
    let written = [&own, &all].into_iter().flat_map(Written::keys).collect();
    let user = own.user.or(all.user).unwrap_or_else(|| surroundings.user.clone());
    let password = own.password.or(all.password);
    let default_become = if user == "root" { Become::None } else { Become::Sudo };
    Ssh {
        written,
        jump: own.jump.or(all.jump).unwrap_or_default(),
        host_key: own.host_key.or(all.host_key).unwrap_or_default(),
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

/// The bastions; `none` and an empty list say that there are none whatever ~/.ssh/config says.
fn hops(walk: &mut Walk, node: &Node, what: &str) -> Option<Vec<Hop>> {
    let texts = walk.texts(node, what)?;
    if let [(_, "none")] = texts.as_slice() {
        return Some(Vec::new());
    }
    let mut hops = Vec::new();
    for (span, text) in texts.iter().flat_map(|(span, text)| text.split(',').map(move |text| (*span, text.trim()))) {
        match hop(text) {
            Ok(hop) => hops.push(hop),
            Err(reason) => {
                walk.find(Finding::error(span, format!("{what}: `{text}` {reason}")).help("write `user@host:port`"));
                return None;
            }
        }
    }
    Some(hops)
}

fn hop(text: &str) -> Result<Hop, String> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(login_name(user).map_err(|reason| format!("has a user that {reason}"))?), place),
        None => (None, text),
    };
    let (host, port) = grammar::address(place)?;
    Ok(Hop { user, host, port })
}

/// `SHA256:...`, or the fingerprint of a public key as it stands in a `.pub` file.
fn fingerprint(text: &str) -> Result<String, String> {
    if let Some(hash) = text.strip_prefix("SHA256:") {
        let hash = hash.trim_end_matches('=');
        return match STANDARD_NO_PAD.decode(hash) {
            Ok(bytes) if bytes.len() == 32 => Ok(format!("SHA256:{hash}")),
            _ => Err("is no fingerprint: 43 letters follow after `SHA256:`".to_owned()),
        };
    }
    let mut words = text.split_whitespace();
    let (Some(algorithm), Some(encoded)) = (words.next(), words.next()) else {
        return Err("is neither a fingerprint, `SHA256:...`, nor a public key, `ssh-ed25519 AAAA...`".to_owned());
    };
    let key = STANDARD.decode(encoded).map_err(|_| "has a public key that is no base64".to_owned())?;
    let name = u32::try_from(algorithm.len()).map(u32::to_be_bytes).unwrap_or_default();
    match key.strip_prefix(&name).is_some_and(|rest| rest.starts_with(algorithm.as_bytes())) {
        true => {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key);
            Ok(format!("SHA256:{}", STANDARD_NO_PAD.encode(hash.as_ref())))
        }
        false => Err(format!("is no public key of the kind {algorithm}")),
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
        let what = format!("`{what}.{}`", key.key.text);
        // A public key names one that an agent or a device holds, with or without its `.pub`.
        let mut public = path.clone().into_os_string();
        public.push(".pub");
        let wrong = match path.extension().is_some_and(|extension| extension == "pub") {
            true => missing(node, &what, path),
            false if !path.exists() && Path::new(&public).is_file() => None,
            false => not_private(node, &what, path),
        };
        wrong.into_iter().for_each(|finding| walk.find(finding));
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{fingerprint, hop};

    #[rstest]
    #[case("bastion", "bastion")]
    #[case("ops@bastion:2222", "ops@bastion:2222")]
    #[case("ops@[fd00::1]:22", "ops@[fd00::1]:22")]
    fn hops_are_read(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(hop(text).map(|hop| hop.to_string()), Ok(shown.to_owned()));
    }

    #[rstest]
    #[case("")]
    #[case("@bastion")]
    #[case("-o@bastion")]
    #[case("ops@-bastion")]
    #[case("bastion:x")]
    fn bad_hops_are_refused(#[case] text: &str) {
        assert!(hop(text).is_err());
    }

    #[test]
    fn a_public_key_names_one_that_an_agent_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("work.pub"), "ssh-ed25519 AAAA work\n").expect("written");
        let text = "ssh: {identities: [work, work.pub]}\nhosts: [a]";
        let inventory = crate::inventory::parse(text, &folder.path().join("i.yaml"), folder.path()).expect("good");
        let expected = ["work", "work.pub"].map(|name| folder.path().join(name));
        assert_eq!(inventory.hosts[0].ssh.identities, expected);
    }

    #[test]
    fn a_key_and_its_fingerprint_are_the_same_pin() {
        // `ssh-keygen -lf` says this of the key.
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f comment";
        let found = fingerprint(key).expect("a key");
        assert!(found.starts_with("SHA256:") && found.len() == 50, "{found}");
        assert_eq!(fingerprint(&found), Ok(found.clone()));
        assert_eq!(fingerprint(&format!("{found}=")), Ok(found));
        for bad in ["", "MD5:00", "SHA256:short", "ssh-ed25519", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAAB", "ssh-rsa %"] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
