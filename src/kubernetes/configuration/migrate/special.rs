//! Changes between versions that are more than a field under another name.

use super::field::{get, get_mut, put, scalar, set_text, take, text_of};
use super::is_empty;
use crate::yaml::{Content, Finding, Node, Style};

/// A boolean or text as it stands in a document.
fn plain(like: &Node, text: &str) -> Node {
    Node { span: like.span, content: Content::Scalar { text: text.to_owned(), style: Style::Plain } }
}

fn items<'a>(root: &'a mut Node, path: &str) -> &'a mut [Node] {
    match get_mut(root, path).map(|node| &mut node.content) {
        Some(Content::List(items)) => items,
        _ => &mut [],
    }
}

/// Up to v1alpha3 a volume said that it is writable, and was read-only by default; since then it says that it is
/// read-only.
pub(super) fn writable_volumes(root: &mut Node, _: &mut Vec<Finding>) {
    for component in ["apiServer", "controllerManager", "scheduler"] {
        for volume in items(root, &format!("{component}.extraVolumes")) {
            let writable = take(volume, "writable").is_some_and(|entry| text_of(&entry.value) == "true");
            if !writable {
                let (span, read_only) = (volume.span, plain(volume, "true"));
                put(volume, "readOnly", span, read_only);
            }
        }
    }
}

/// Up to v1alpha3 etcd's image was one reference; its name is fixed since.
pub(super) fn etcd_image(root: &mut Node, warnings: &mut Vec<Finding>) {
    let Some(entry) = take(root, "etcd.local.image").filter(|entry| !is_empty(&entry.value)) else { return };
    let image = text_of(&entry.value);
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image.as_str(), ""),
    };
    match name.rsplit_once('/') {
        Some((repository, "etcd")) if !name.contains('@') => {
            set_text(root, "etcd.local.imageRepository", repository);
            if !tag.is_empty() {
                set_text(root, "etcd.local.imageTag", tag);
            }
        }
        _ => warnings.push(
            Finding::warning(entry.key.span, "etcd.local.image has no place any more: the image is always called etcd")
                .help("set etcd.local.imageRepository and imageTag if it must be another than the release's"),
        ),
    }
}

/// Up to v1alpha3 several API servers could be named for discovery; the first was taken.
pub(super) fn one_api_server(root: &mut Node, warnings: &mut Vec<Finding>) {
    let Some(entry) = take(root, "discoveryTokenAPIServers") else { return };
    let Content::List(servers) = entry.value.content else { return };
    let mut servers = servers.into_iter();
    if let Some(first) = servers.next() {
        put(root, "discovery.bootstrapToken.apiServerEndpoint", entry.key.span, first);
    }
    for more in servers {
        let message = "only one API server is asked for discovery, and the first one is taken";
        warnings.push(
            Finding::warning(more.span, message).help("name an address that leads to all of them, if there is one"),
        );
    }
}

/// Up to v1alpha3 `token` stood for both tokens that were not given.
pub(super) fn shared_token(root: &mut Node, _: &mut Vec<Finding>) {
    let Some(entry) = take(root, "token").filter(|entry| !is_empty(&entry.value)) else { return };
    let missing = |root: &Node, path: &str| get(root, path).is_none_or(is_empty);
    if missing(root, "tlsBootstrapToken") {
        put(root, "tlsBootstrapToken", entry.key.span, entry.value.clone());
    }
    if missing(root, "discoveryToken") && missing(root, "discoveryFile") {
        put(root, "discoveryToken", entry.key.span, entry.value);
    }
}

/// Of discovery with a token and with a file only the one that was given is kept, the token where both were.
pub(super) fn one_discovery(root: &mut Node, warnings: &mut Vec<Finding>) {
    let given = |root: &Node, path: &str| get(root, path).is_some_and(|node| !is_empty(node));
    if !given(root, "discovery.bootstrapToken.token") {
        // What is left of it are defaults that stood there without a token.
        if given(root, "discovery.file.kubeConfigPath") {
            take(root, "discovery.bootstrapToken");
        }
        return;
    }
    if let Some(entry) = take(root, "discovery.file").filter(|entry| !is_empty(&entry.value)) {
        let message = "there is one way of discovery, and the token is it";
        warnings.push(Finding::warning(entry.key.span, message));
    }
}

/// Up to v1alpha3 a boolean made a joining node a control plane.
pub(super) fn joins_as_control_plane(root: &mut Node, _: &mut Vec<Finding>) {
    let endpoint = take(root, "apiEndpoint");
    let Some(entry) = take(root, "controlPlane").filter(|entry| text_of(&entry.value) == "true") else { return };
    let span = entry.key.span;
    put(root, "controlPlane", span, Node { span, content: Content::Map(Vec::new()) });
    if let Some(endpoint) = endpoint {
        put(root, "controlPlane.localAPIEndpoint", endpoint.key.span, endpoint.value);
    }
}

/// Up to v1beta2 there was a choice between CoreDNS and kube-dns.
pub(super) fn dns_type(root: &mut Node, warnings: &mut Vec<Finding>) {
    let Some(entry) = take(root, "dns.type").filter(|entry| !is_empty(&entry.value)) else { return };
    let chosen = text_of(&entry.value);
    if chosen != "CoreDNS" {
        let message = format!("dns.type {chosen} has no place any more: the cluster's DNS is CoreDNS");
        warnings.push(Finding::warning(entry.key.span, message));
        // They are those of another program.
        for path in ["dns.imageRepository", "dns.imageTag"] {
            if let Some(entry) = take(root, path) {
                let message = format!("{path} is left out: it is that of {chosen}");
                warnings.push(Finding::warning(entry.key.span, message));
            }
        }
    }
}

/// Gates that a release we make may have (kubeadm.md section 0.2).
const GATES: [&str; 4] =
    ["RootlessControlPlane", "NodeLocalCRISocket", "ControlPlaneKubeletLocalMode", "WaitForAllControlPlaneComponents"];

/// The gate PublicKeysECDSA was the only way to choose such keys; it became encryptionAlgorithm.
pub(super) fn ecdsa_gate(root: &mut Node, _: &mut Vec<Finding>) {
    if let Some(entry) = take(root, "featureGates.PublicKeysECDSA")
        && text_of(&entry.value) == "true"
    {
        set_text(root, "encryptionAlgorithm", "ECDSA-P256");
    }
}

/// Gates that nothing knows any more would be refused.
pub(super) fn known_gates(root: &mut Node, warnings: &mut Vec<Finding>) {
    let Some(Content::Map(gates)) = get_mut(root, "featureGates").map(|node| &mut node.content) else { return };
    gates.retain(|gate| {
        let known = GATES.contains(&gate.key.text.as_str());
        if !known {
            let message = format!("the feature gate {} is none any more and is left out", gate.key.text);
            warnings.push(Finding::warning(gate.key.span, message));
        }
        known
    });
    if gates.is_empty() {
        take(root, "featureGates");
    }
}

/// Values that are read as before and do not do any more what they did.
pub(super) fn look_at_values(root: &mut Node, warnings: &mut Vec<Finding>) {
    let dockershim =
        get(root, "nodeRegistration.criSocket").and_then(scalar).is_some_and(|it| it.contains("dockershim"));
    if dockershim && let Some(entry) = take(root, "nodeRegistration.criSocket") {
        let message = "the socket of dockershim, which Kubernetes 1.24 removed, is left out";
        let help = "without it the container runtime of the host is found";
        warnings.push(Finding::warning(entry.value.span, message).help(help));
    }
    for taint in items(root, "nodeRegistration.taints") {
        if let Some(key) = get(taint, "key").filter(|key| scalar(key) == Some("node-role.kubernetes.io/master")) {
            let message = "this taint is of old: add-ons of today tolerate node-role.kubernetes.io/control-plane";
            warnings.push(Finding::warning(key.span, message).help("leave taints out to get that one"));
        }
    }
    for path in ["imageRepository", "dns.imageRepository", "etcd.local.imageRepository"] {
        let old = |text: &str| text.starts_with("k8s.gcr.io") || text.starts_with("gcr.io/google_containers");
        if let Some(node) = get(root, path).filter(|node| scalar(node).is_some_and(old)) {
            let message = format!("{path} names a registry that gets no new images since 2023");
            warnings.push(Finding::warning(node.span, message).help("leave it out, or write registry.k8s.io"));
        }
    }
}
