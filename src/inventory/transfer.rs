//! `transfer:`: how bytes get to the hosts.

use super::walk::Walk;
use super::{Fetch, RelayUse, Transfer, grammar};
use crate::yaml::{Finding, Node};

/// The keys of `transfer:`.
pub(super) const KEYS: [&str; 5] = ["relay", "bandwidth", "uploads", "fetch", "mirrors"];

/// How `transfer.relay` is written.
pub(super) const RELAY: [(&str, RelayUse); 3] =
    [("auto", RelayUse::Auto), ("on", RelayUse::On), ("off", RelayUse::Off)];

/// How `transfer.fetch` is written.
pub(super) const FETCH: [(&str, Fetch); 2] = [("bundle", Fetch::Bundle), ("on-host", Fetch::OnHost)];

/// The most uploads at a time that make sense.
pub(super) const MAXIMUM_UPLOADS: u64 = 1000;

/// Reads `transfer:`, absent or not.
pub(super) fn read(walk: &mut Walk, node: Option<&Node>) -> Transfer {
    let mut transfer = Transfer::default();
    let Some(fields) = node.and_then(|node| walk.fields(node, "`transfer`", &KEYS)) else { return transfer };
    if let Some(relay) = fields.get("relay").and_then(|node| walk.choice(node, "`transfer.relay`", &RELAY)) {
        transfer.relay = relay;
    }
    if let Some(node) = fields.get("bandwidth") {
        transfer.bandwidth = walk.ruled(node, "`transfer.bandwidth`", grammar::bandwidth);
    }
    let uploads = fields.get("uploads").and_then(|node| walk.number(node, "`transfer.uploads`", 1, MAXIMUM_UPLOADS));
    if let Some(uploads) = uploads.and_then(|uploads| usize::try_from(uploads).ok()) {
        transfer.uploads = uploads;
    }
    if let Some(fetch) = fields.get("fetch").and_then(|node| walk.choice(node, "`transfer.fetch`", &FETCH)) {
        transfer.fetch = fetch;
    }
    if let Some(mirrors) = fields.get("mirrors").and_then(|node| walk.texts(node, "`transfer.mirrors`")) {
        for (span, text) in mirrors {
            match grammar::mirror(text) {
                Ok(()) => transfer.mirrors.push(text.to_owned()),
                Err(reason) => walk.find(Finding::error(span, format!("`transfer.mirrors`: `{text}` {reason}"))),
            }
        }
    }
    transfer
}
