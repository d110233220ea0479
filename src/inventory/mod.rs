//! The inventory: which machines there are and what cluster they shall be.
//!
//! [`load`] reads a file, [`parse`] judges a text. Both report every mistake at once, each at its line and column: the
//! text becomes a tree that knows its places ([`crate::yaml`]), `cluster`, `ssh` and `hosts` read their parts of it,
//! and `whole` checks what only shows when all parts are known.

mod cluster;
mod grammar;
mod hosts;
mod mask;
pub use self::mask::mask as masked;
mod model;
mod schema;
mod selector;
mod ssh;
mod surroundings;
mod transfer;
mod walk;
mod whole;

use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

pub use model::*;
pub use schema::schema;
pub use selector::Selector;

use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::version::RELEASES;
use crate::yaml::{self, Content, Finding, Node, Severity, Span};
use surroundings::Surroundings;
use walk::Walk;

/// An inventory with every key and what it means; loading it is a test.
pub const EXAMPLE: &str = include_str!("../../inventory.example.yaml");

/// The minor releases of Kubernetes 1 that are supported.
pub const SUPPORTED_MINORS: RangeInclusive<u64> = RELEASES[0].minor..=RELEASES[RELEASES.len() - 1].minor;

/// The version taken when `cluster.kubernetes` is not written.
pub const DEFAULT_KUBERNETES: semver::Version = semver::Version::new(1, 36, 3);

/// The keys of the whole.
const KEYS: [&str; 4] = ["cluster", "ssh", "transfer", "hosts"];

/// What judging a text came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The inventory, unless there is an error among the findings.
    pub inventory: Option<Inventory>,
    /// Everything found, errors and warnings, in the order of the text.
    pub findings: Vec<Finding>,
}

/// A loaded inventory with what is worth knowing about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The inventory.
    pub inventory: Inventory,
    /// The warnings, for those who look at places.
    pub warnings: Vec<Finding>,
    /// The warnings as text with the lines they are about; `None` if there are none. Untrusted text.
    pub rendered_warnings: Option<String>,
}

/// Reads the inventory at `path`.
///
/// # Errors
/// A failure of kind Configuration; its detail shows every finding under its source line.
pub fn load(path: &Path) -> Result<Inventory> {
    load_with_warnings(path).map(|loaded| loaded.inventory)
}

/// Reads the inventory at `path` and keeps the warnings.
///
/// # Errors
/// As [`load`].
pub fn load_with_warnings(path: &Path) -> Result<Loaded> {
    let home = etcetera::home_dir().map_err(|error| {
        Failure::new(Kind::Configuration, "cannot find your home folder").because(&error).advise("set HOME")
    })?;
    let text = read(path)?;
    let Judged { inventory, findings } = judge(&text, path, &home);
    let rendered = || yaml::render(&findings, &mask::mask(&text), path);
    match inventory {
        Some(inventory) => {
            let rendered_warnings = (!findings.is_empty()).then(rendered);
            Ok(Loaded { inventory, warnings: findings, rendered_warnings })
        }
        None => Err(Failure::new(Kind::Configuration, sentence(&findings, path))
            .detailed(rendered())
            .advise("correct it; `clusterctl inventory example` shows what can be written")),
    }
}

/// An inventory that was put together out of what was typed; `typed` names it in failures.
///
/// # Errors
/// Kind `Usage`, with every finding.
pub fn of_text(text: &str, typed: &str) -> Result<Inventory> {
    let home = etcetera::home_dir().map_err(|error| {
        Failure::new(Kind::Configuration, "cannot find your home folder").because(&error).advise("set HOME")
    })?;
    parse(text, Path::new(typed), &home).map_err(|findings| {
        let messages: Vec<String> = findings.into_iter().map(|finding| finding.message).collect();
        Failure::new(Kind::Usage, format!("{typed}: {}", messages.join("; "))).advise("write [USER@]HOST[:PORT]")
    })
}

/// Judges a text as the inventory at `path`, with `home` for `~`. It looks at the files that the text names, and
/// changes nothing.
///
/// # Errors
/// All findings, warnings included, if one of them is an error.
pub fn parse(text: &str, path: &Path, home: &Path) -> Result<Inventory, Vec<Finding>> {
    let Judged { inventory, findings } = judge(text, path, home);
    inventory.ok_or(findings)
}

/// As [`parse`], but the findings come in any case: an inventory may be good and have warnings.
pub fn judge(text: &str, path: &Path, home: &Path) -> Judged {
    let (tree, findings) = match yaml::tree(text) {
        Ok(tree) => tree,
        Err(finding) => return Judged { inventory: None, findings: vec![finding] },
    };
    let mut walk = Walk { findings };
    let surroundings = Surroundings::of(path, home);
    let read = walk.fields(&tree, "the inventory", &KEYS).map(|fields| {
        let cluster = cluster::read(&mut walk, fields.get("cluster"), path, &surroundings);
        let all = fields.get("ssh").map(|node| ssh::read(&mut walk, node, "ssh", &surroundings)).unwrap_or_default();
        let hosts = fields.get("hosts").map(|node| hosts::read(&mut walk, node, &all, &surroundings));
        let transfer = transfer::read(&mut walk, fields.get("transfer"));
        let hosts_key = key(&tree, "hosts").unwrap_or(Span::new(1, 1, 1));
        if fields.get("hosts").is_none_or(is_empty) && !misspelt(&tree, "hosts") {
            let help = "name the machines: `hosts: {cp1: {address: 10.0.0.11}}`";
            walk.find(Finding::error(hosts_key, "there are no hosts").help(help));
        }
        let hosts = hosts.unwrap_or_default();
        if let Some(host) = hosts.iter().find(|draft| draft.host.ssh.user.is_empty()) {
            let message = "nothing says whom to log in as: there is no `ssh.user`, and you have no login name here";
            walk.find(Finding::error(host.name, message).help("set `ssh.user`"));
        }
        whole::check(&mut walk, &cluster, &hosts, hosts_key);
        Inventory {
            path: path.to_owned(),
            cluster: cluster.cluster,
            hosts: hosts.into_iter().map(|draft| draft.host).collect(),
            transfer,
        }
    });
    let mut findings = walk.findings;
    findings.sort_by_key(|finding| (finding.line, finding.column, finding.severity));
    // A value behind an alias is judged at each place it is used, and found where it stands.
    findings.dedup();
    let good = findings.iter().all(|finding| finding.severity == Severity::Warning);
    Judged { inventory: read.filter(|_| good), findings }
}

/// Where a key of the whole stands, whatever is behind it.
fn key(tree: &Node, key: &str) -> Option<Span> {
    let Content::Map(entries) = &tree.content else { return None };
    entries.iter().find(|entry| entry.key.text == key).map(|entry| entry.key.span)
}

fn is_empty(node: &Node) -> bool {
    match &node.content {
        Content::Map(entries) => entries.is_empty(),
        Content::List(items) => items.is_empty(),
        Content::Scalar { .. } => node.is_null(),
    }
}

/// Whether an unknown key was meant to be this one; then saying that it is missing helps nobody.
fn misspelt(tree: &Node, key: &str) -> bool {
    let Content::Map(entries) = &tree.content else { return false };
    let unknown = entries.iter().filter(|entry| !KEYS.contains(&entry.key.text.as_str()));
    unknown.map(|entry| yaml::nearest(&entry.key.text, KEYS)).any(|nearest| nearest == Some(key))
}

/// `inventory.yaml has 2 errors and 1 warning`.
fn sentence(findings: &[Finding], path: &Path) -> String {
    let count = |severity: Severity, word: &str| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        (count > 0).then(|| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
    };
    let counts: Vec<String> =
        [count(Severity::Error, "error"), count(Severity::Warning, "warning")].into_iter().flatten().collect();
    format!("{} has {}", path.display(), counts.join(" and "))
}

fn read(path: &Path) -> Result<String> {
    const ADVICE: &str = "name a file that you may read with `-i`";
    let refused =
        |sentence: &str| Failure::new(Kind::Configuration, format!("{} {sentence}", path.display())).advise(ADVICE);
    let failed = |error: std::io::Error| {
        let failure =
            Failure::new(Kind::Configuration, format!("cannot read the inventory {}", path.display())).because(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.advise("name it with `-i`, or start one with `clusterctl inventory example > inventory.yaml`")
            }
            _ => failure.advise(ADVICE),
        }
    };
    let mut bytes = Vec::new();
    let limit = yaml::MAXIMUM_BYTES as u64 + 1;
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() > yaml::MAXIMUM_BYTES {
        return Err(refused(&format!("has more than {} bytes and is no inventory", yaml::MAXIMUM_BYTES)));
    }
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text and is no inventory"))
}

#[cfg(test)]
mod tests;
