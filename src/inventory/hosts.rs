//! `hosts:`: names with what is special about each, or names alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::cluster::is_reachable;
use super::surroundings::Surroundings;
use super::walk::Walk;
use super::{Host, Role, Taint, grammar, ssh};
use crate::yaml::{Content, Entry, Finding, Node, Span};

/// The keys of a host.
pub(super) const KEYS: [&str; 7] = ["address", "node_address", "role", "labels", "groups", "taints", "ssh"];

/// How `role` is written.
pub(super) const ROLES: [(&str, Role); 2] = [("control-plane", Role::ControlPlane), ("worker", Role::Worker)];

/// A host with the places that the checks of the whole need.
#[derive(Debug)]
pub(super) struct Draft {
    /// The host; where something was bad, its default.
    pub host: Host,
    /// Where its name stands.
    pub name: Span,
    /// Where its address stands: the name if that is the address.
    pub address: Span,
    /// Where the address of the node stands.
    pub node_address: Span,
    /// Where its role stands: the name if none is written.
    pub role: Span,
    /// Whether a role is written, even a bad one.
    role_written: bool,
    /// Whether the written role was no role.
    pub role_unknown: bool,
}

/// Reads `hosts:`.
pub(super) fn read(walk: &mut Walk, node: &Node, all: &ssh::Written, surroundings: &Surroundings) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    match &node.content {
        Content::List(items) => {
            for item in items {
                // A list is for names that need nothing more.
                if let Content::Map(entries) = &item.content {
                    let name = entries.first().map_or("cp1", |entry| match entry.key.text.as_str() {
                        "name" | "host" | "hostname" => "cp1",
                        name => name,
                    });
                    let help = format!("write `hosts` as a mapping: `{name}: {{address: ...}}`, without the `-`");
                    walk.find(Finding::error(item.span, "a list of hosts takes names only").help(help));
                    continue;
                }
                let Some(name) = walk.text(item, "the name of a host") else { continue };
                if let Some(first) = drafts.iter().find(|draft| draft.host.name == name) {
                    let finding = Finding::error(item.span, format!("two hosts are named `{name}`")).label("again");
                    walk.find(finding.related(first.name, "first here").help("give each host a name of its own"));
                    continue;
                }
                let nothing = Node { span: item.span, content: Content::Map(Vec::new()) };
                drafts.push(host(walk, name, item.span, &nothing, all, surroundings));
            }
        }
        Content::Map(entries) => {
            for Entry { key, value } in entries {
                drafts.push(host(walk, &key.text, key.span, value, all, surroundings));
            }
        }
        Content::Scalar { .. } if node.is_null() => {}
        Content::Scalar { .. } => {
            walk.wrong::<()>(node, "`hosts`", "a mapping of names or a list of names");
            return drafts;
        }
    }
    // Only names: somebody who has not heard of roles yet gets the one arrangement that can be meant.
    if drafts.iter().all(|draft| !draft.role_written)
        && let Some(first) = drafts.first_mut()
    {
        first.host.role = Role::ControlPlane;
    }
    drafts
}

fn host(
    walk: &mut Walk,
    name: &str,
    place: Span,
    node: &Node,
    all: &ssh::Written,
    surroundings: &Surroundings,
) -> Draft {
    if let Err(reason) = grammar::dns_subdomain(name) {
        walk.find(Finding::error(place, format!("the name of the host, `{name}`, {reason}")));
    }
    let mut draft = Draft {
        host: Host {
            name: name.to_owned(),
            address: name.to_owned(),
            node_address: None,
            role: Role::Worker,
            labels: BTreeMap::new(),
            groups: BTreeSet::new(),
            taints: None,
            ssh: ssh::merge(ssh::Written::default(), all, surroundings),
            line: place.line,
        },
        name: place,
        address: place,
        node_address: place,
        role: place,
        role_written: false,
        role_unknown: false,
    };
    let what = format!("hosts.{name}");
    // `cp1: 10.0.0.11` is what everybody tries first.
    if let Content::Scalar { text, .. } = &node.content
        && !node.is_null()
        && grammar::address(text).is_ok()
    {
        let finding = Finding::error(node.span, format!("`{what}` has to be a mapping, but this is a text"));
        walk.find(finding.label("expected a mapping").help(format!("write `{name}: {{address: {text}}}`")));
        return draft;
    }
    let Some(fields) = walk.fields(node, &format!("`{what}`"), &KEYS) else { return draft };
    let mut port = None;
    if let Some(node) = fields.get("address") {
        draft.address = node.span;
        if let Some((address, written)) = walk.ruled(node, &format!("`{what}.address`"), grammar::address) {
            draft.host.address = address;
            port = written;
        }
    }
    draft.node_address = draft.address;
    draft.host.node_address = draft.host.address.parse().ok().filter(|address| is_reachable(*address));
    if let Some(node) = fields.get("node_address") {
        draft.node_address = node.span;
        draft.host.node_address = walk.ruled(node, &format!("`{what}.node_address`"), node_address);
    }
    if let Some(node) = fields.get("role") {
        (draft.role, draft.role_written) = (node.span, true);
        match walk.choice(node, &format!("`{what}.role`"), &ROLES) {
            Some(role) => draft.host.role = role,
            None => draft.role_unknown = true,
        }
    }
    if let Some(node) = fields.get("labels") {
        draft.host.labels = labels(walk, node, &format!("`{what}.labels`"));
    }
    if let Some(node) = fields.get("groups") {
        draft.host.groups = groups(walk, node, &format!("`{what}.groups`"));
    }
    draft.host.taints = fields.get("taints").and_then(|node| taints(walk, node, &format!("`{what}.taints`")));
    let mut own = match fields.get("ssh") {
        Some(node) => ssh::read(walk, node, &format!("{what}.ssh"), surroundings),
        None => ssh::Written::default(),
    };
    if let (Some(in_address), Some(in_ssh)) = (port, own.port)
        && in_address != in_ssh
    {
        let message = format!("the address says port {in_address}, `{what}.ssh.port` says {in_ssh}");
        walk.find(Finding::error(draft.address, message).help("keep one of them"));
    }
    own.port = port.or(own.port);
    draft.host.ssh = ssh::merge(own, all, surroundings);
    draft
}

fn node_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "is no IP address".to_owned())?;
    match is_reachable(address) {
        true => Ok(address),
        false => Err("is no address that other nodes can reach".to_owned()),
    }
}

fn labels(walk: &mut Walk, node: &Node, what: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for Entry { key, value } in walk.entries(node, what).unwrap_or_default() {
        if let Err(reason) = grammar::label_key(&key.text) {
            walk.find(Finding::error(key.span, format!("the label `{}` {reason}", key.text)));
        }
        // Labels are texts to Kubernetes whatever they look like to YAML: `true` and `1.0` are kept as written.
        let Content::Scalar { text, .. } = &value.content else {
            walk.wrong::<()>(value, &format!("the value of the label `{}`", key.text), "a text");
            continue;
        };
        let text = if value.is_null() { "" } else { text };
        match grammar::label_value(text) {
            Ok(()) => _ = labels.insert(key.text.clone(), text.to_owned()),
            Err(reason) => {
                let message = format!("the value of the label `{}`, `{text}`, {reason}", key.text);
                walk.find(Finding::error(value.span, message));
            }
        }
    }
    labels
}

fn groups(walk: &mut Walk, node: &Node, what: &str) -> BTreeSet<String> {
    let mut groups = BTreeSet::new();
    for (span, text) in walk.texts(node, what).unwrap_or_default() {
        match grammar::dns_subdomain(text) {
            Ok(()) => _ = groups.insert(text.to_owned()),
            Err(reason) => walk.find(Finding::error(span, format!("the group `{text}` {reason}"))),
        }
    }
    groups
}

fn taints(walk: &mut Walk, node: &Node, what: &str) -> Option<Vec<Taint>> {
    let mut taints: Vec<(Span, Taint)> = Vec::new();
    for (span, text) in walk.texts(node, what)? {
        match grammar::taint(text) {
            Ok(taint) => {
                let same = |other: &&(Span, Taint)| other.1.key == taint.key && other.1.effect == taint.effect;
                if let Some((first, _)) = taints.iter().find(same) {
                    let message = format!("two taints have the key `{}` and the effect {}", taint.key, taint.effect);
                    walk.find(Finding::error(span, message).label("again").related(*first, "first here"));
                }
                taints.push((span, taint));
            }
            Err(reason) => walk.find(Finding::error(span, format!("the taint `{text}` {reason}"))),
        }
    }
    Some(taints.into_iter().map(|(_, taint)| taint).collect())
}
