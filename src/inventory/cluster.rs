//! `cluster:`: version, endpoint, networks, kubeadm's documents.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::surroundings::{Surroundings, missing};
use super::walk::Walk;
use super::{Cluster, Containerd, DEFAULT_KUBERNETES, KubeadmDocuments, Network, NetworkPlugin, grammar};
use crate::yaml::{self, Content, Finding, Node, Span, Style};

/// The keys of `cluster:`.
pub(super) const KEYS: [&str; 9] =
    ["name", "kubernetes", "endpoint", "network", "kubeadm", "bundle", "containerd", "ignore_checks", "adopt"];

/// The keys of `cluster.network:`.
pub(super) const NETWORK_KEYS: [&str; 4] = ["pods", "services", "plugin", "domain"];

/// The keys of `cluster.containerd:`.
pub(super) const CONTAINERD_KEYS: [&str; 1] = ["restrict_oom_score_adj"];

/// How `cluster.network.plugin` is written.
pub(super) const PLUGINS: [(&str, NetworkPlugin); 2] =
    [("bridge", NetworkPlugin::Bridge), ("none", NetworkPlugin::None)];

/// A kubeadm file is a few KiB; more than this is another file.
const MAXIMUM_KUBEADM_BYTES: u64 = 1 << 20;

/// `cluster:` with the places that the checks of the whole need.
#[derive(Debug)]
pub(super) struct Draft {
    /// The values; where one was bad, its default.
    pub cluster: Cluster,
    /// Whether anything was written.
    pub endpoint: Option<Span>,
    /// Where the pod network stands, if it is written and good.
    pub pods: Option<Span>,
    /// Where the service network stands, if it is written and good.
    pub services: Option<Span>,
    /// Networks are compared only if none was bad: a default in its place would accuse the wrong one.
    pub networks_known: bool,
}

/// Reads `cluster:`, absent or not.
pub(super) fn read(walk: &mut Walk, node: Option<&Node>, path: &Path, surroundings: &Surroundings) -> Draft {
    let mut draft = Draft {
        cluster: Cluster {
            name: "kubernetes".to_owned(),
            kubernetes: DEFAULT_KUBERNETES,
            endpoint: None,
            network: Network {
                pods: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16)),
                services: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12)),
                plugin: NetworkPlugin::Bridge,
                domain: "cluster.local".to_owned(),
            },
            kubeadm: None,
            bundle: None,
            containerd: Containerd::default(),
            ignore_checks: Vec::new(),
            adopt: None,
        },
        endpoint: None,
        pods: None,
        services: None,
        networks_known: true,
    };
    let Some(fields) = node.and_then(|node| walk.fields(node, "`cluster`", &KEYS)) else { return draft };
    let cluster = &mut draft.cluster;
    let label = |text: &str| grammar::dns_label(text).map(|()| text.to_owned()).map_err(str::to_owned);
    if let Some(name) = fields.get("name").and_then(|node| walk.ruled(node, "`cluster.name`", label)) {
        cluster.name = name;
    }
    if let Some(version) = fields.get("kubernetes").and_then(|node| version(walk, node)) {
        cluster.kubernetes = version;
    }
    if let Some(node) = fields.get("endpoint") {
        draft.endpoint = Some(node.span);
        cluster.endpoint = walk.ruled(node, "`cluster.endpoint`", grammar::endpoint);
    }
    if let Some(path) = fields.get("bundle").and_then(|node| bundle(walk, node, surroundings)) {
        cluster.bundle = Some(path);
    }
    if let Some(documents) = fields.get("kubeadm").and_then(|node| kubeadm(walk, node, path, surroundings)) {
        cluster.kubeadm = Some(documents);
    }
    let containerd = fields
        .get("containerd")
        .and_then(|node| walk.fields(node, "`cluster.containerd`", &CONTAINERD_KEYS))
        .and_then(|fields| fields.get("restrict_oom_score_adj"));
    if let Some(node) = containerd {
        let what = "`cluster.containerd.restrict_oom_score_adj`";
        cluster.containerd.restrict_oom_score_adj = walk.flag(node, what).unwrap_or_default();
    }
    if let Some(names) = fields.get("ignore_checks").and_then(|node| walk.texts(node, "`cluster.ignore_checks`")) {
        cluster.ignore_checks = names.into_iter().map(|(_, name)| name.to_owned()).collect();
    }
    cluster.adopt = fields.get("adopt").and_then(|node| walk.ruled(node, "`cluster.adopt`", grammar::ca_hash));
    if let Some(node) = fields.get("network") {
        network(walk, node, &mut draft);
    }
    draft
}

fn version(walk: &mut Walk, node: &Node) -> Option<semver::Version> {
    let text = walk.text(node, "`cluster.kubernetes`")?;
    match grammar::kubernetes_version(text) {
        Ok(version) => Some(version),
        Err((reason, help)) => {
            walk.find(Finding::error(node.span, format!("Kubernetes version `{text}` {reason}")).help(help));
            None
        }
    }
}

fn network(walk: &mut Walk, node: &Node, draft: &mut Draft) {
    let Some(fields) = walk.fields(node, "`cluster.network`", &NETWORK_KEYS) else {
        draft.networks_known = false;
        return;
    };
    let network = &mut draft.cluster.network;
    if let Some(node) = fields.get("pods") {
        match walk.ruled(node, "`cluster.network.pods`", grammar::network) {
            Some(pods) => (network.pods, draft.pods) = (pods, Some(node.span)),
            None => draft.networks_known = false,
        }
    }
    if let Some(node) = fields.get("services") {
        match walk.ruled(node, "`cluster.network.services`", grammar::network) {
            Some(services) => (network.services, draft.services) = (services, Some(node.span)),
            None => draft.networks_known = false,
        }
    }
    if let Some(plugin) = fields.get("plugin").and_then(|node| walk.choice(node, "`cluster.network.plugin`", &PLUGINS))
    {
        network.plugin = plugin;
    }
    let subdomain = |text: &str| grammar::dns_subdomain(text).map(|()| text.to_owned()).map_err(str::to_owned);
    if let Some(domain) = fields.get("domain").and_then(|node| walk.ruled(node, "`cluster.network.domain`", subdomain))
    {
        network.domain = domain;
    }
}

fn bundle(walk: &mut Walk, node: &Node, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = walk.ruled(node, "`cluster.bundle`", |text| surroundings.resolve(text))?;
    if let Err(error) = std::fs::metadata(&path) {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("`cluster.bundle`: there is no {} yet", path.display()),
            _ => format!("`cluster.bundle`: cannot look at {}: {error}", path.display()),
        };
        // Not an error: `down` and `status` need no bundle, and it may be made after the inventory.
        walk.find(Finding::warning(node.span, message).help("make one with `clusterctl bundle create`"));
    }
    Some(path)
}

/// A path, a block of text, a mapping or a list of mappings.
fn kubeadm(walk: &mut Walk, node: &Node, path: &Path, surroundings: &Surroundings) -> Option<KubeadmDocuments> {
    const WHAT: &str = "`cluster.kubeadm`";
    let inline = |text: String, line: usize| KubeadmDocuments { text, path: path.to_owned(), line };
    let documents: Vec<&Node> = match &node.content {
        Content::Scalar { text, style } if *style == Style::Block || text.contains('\n') => {
            // A block's place is its first line that is not empty, but the text starts at the empty ones.
            let (line, indentation) = match style {
                Style::Block => {
                    let empty = text.len() - text.trim_start_matches('\n').len();
                    (node.span.line.saturating_sub(empty).max(1), node.span.column - 1)
                }
                _ => (node.span.line, 0),
            };
            if let Err(finding) = yaml::documents(text) {
                walk.find(moved(finding, line, indentation));
            }
            return Some(inline(text.clone(), line));
        }
        Content::Scalar { .. } => return kubeadm_file(walk, node, surroundings),
        Content::Map(_) => vec![node],
        Content::List(items) => items.iter().collect(),
    };
    let mut texts = Vec::new();
    for document in documents {
        match document.content {
            Content::Map(_) => texts.push(yaml::to_text(&document.to_value())),
            _ => return walk.wrong(document, WHAT, "a path, a text, a mapping or a list of mappings"),
        }
    }
    Some(inline(texts.join("---\n"), node.span.line))
}

fn kubeadm_file(walk: &mut Walk, node: &Node, surroundings: &Surroundings) -> Option<KubeadmDocuments> {
    const WHAT: &str = "`cluster.kubeadm`";
    let path = walk.ruled(node, WHAT, |text| surroundings.resolve(text))?;
    if let Some(finding) = missing(node, WHAT, &path) {
        walk.find(finding);
        return None;
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(MAXIMUM_KUBEADM_BYTES + 1).read_to_end(&mut bytes));
    let refused = match (read, bytes.len() as u64 > MAXIMUM_KUBEADM_BYTES) {
        (Err(error), _) => Some(format!("{WHAT}: cannot read {}: {error}", path.display())),
        (Ok(_), true) => Some(format!(
            "{WHAT}: {} has more than {MAXIMUM_KUBEADM_BYTES} bytes, which is no kubeadm file",
            path.display()
        )),
        (Ok(_), false) => None,
    };
    if let Some(message) = refused {
        walk.find(Finding::error(node.span, message));
        return None;
    }
    let Ok(text) = String::from_utf8(bytes) else {
        walk.find(Finding::error(node.span, format!("{WHAT}: {} is not UTF-8 text", path.display())));
        return None;
    };
    if let Err(finding) = yaml::documents(&text) {
        walk.find(Finding::error(node.span, format!("{WHAT}: {}", finding.one_line(&path))));
    }
    Some(KubeadmDocuments { text, path, line: 1 })
}

/// A finding in an inline block, as a finding in the inventory: `line` is the line the block's text starts at.
fn moved(finding: Finding, line: usize, indentation: usize) -> Finding {
    let place = |span: Span| Span::new(span.line + line - 1, span.column + indentation, span.length);
    let span = place(finding.span());
    let related = finding.related.map(|related| yaml::Related { span: place(related.span), ..related });
    Finding { line: span.line, column: span.column, related, ..finding }
}

/// Whether an address can be how other nodes reach a host.
pub(super) fn is_reachable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}
