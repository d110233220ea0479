//! The fields kubeadm knows, so that a misspelt one is named: upstream only warns about those, and so do we.

use serde_json::Value;

use crate::yaml::{Content, Node, Span};

/// What may stand below a field.
pub(super) enum Shape {
    /// A scalar, or a value that is not looked into (EnvVar.valueFrom, feature gates).
    Leaf,
    /// An object with these fields.
    Fields(&'static [(&'static str, &'static Shape)]),
    /// A list of such values.
    List(&'static Shape),
}

use Shape::{Fields, Leaf, List};

const ARG: Shape = Fields(&[("name", &Leaf), ("value", &Leaf)]);
const ARGS: Shape = List(&ARG);
const ENVS: Shape = List(&Fields(&[("name", &Leaf), ("value", &Leaf), ("valueFrom", &Leaf)]));
const VOLUMES: Shape = List(&Fields(&[
    ("name", &Leaf),
    ("hostPath", &Leaf),
    ("mountPath", &Leaf),
    ("readOnly", &Leaf),
    ("pathType", &Leaf),
]));
const COMPONENT: Shape = Fields(&[("extraArgs", &ARGS), ("extraVolumes", &VOLUMES), ("extraEnvs", &ENVS)]);
const TIMEOUTS: Shape = Fields(&[
    ("controlPlaneComponentHealthCheck", &Leaf),
    ("kubeletHealthCheck", &Leaf),
    ("kubernetesAPICall", &Leaf),
    ("etcdAPICall", &Leaf),
    ("tlsBootstrap", &Leaf),
    ("discovery", &Leaf),
    ("upgradeManifests", &Leaf),
]);
const PATCHES: Shape = Fields(&[("directory", &Leaf)]);
const NODE_REGISTRATION: Shape = Fields(&[
    ("name", &Leaf),
    ("criSocket", &Leaf),
    ("taints", &List(&Fields(&[("key", &Leaf), ("value", &Leaf), ("effect", &Leaf), ("timeAdded", &Leaf)]))),
    ("kubeletExtraArgs", &ARGS),
    ("ignorePreflightErrors", &Leaf),
    ("imagePullPolicy", &Leaf),
    ("imagePullSerial", &Leaf),
]);
const API_ENDPOINT: Shape = Fields(&[("advertiseAddress", &Leaf), ("bindPort", &Leaf)]);

/// ClusterConfiguration.
pub(super) const CLUSTER: Shape = Fields(&[
    ("apiVersion", &Leaf),
    ("kind", &Leaf),
    (
        "etcd",
        &Fields(&[
            (
                "local",
                &Fields(&[
                    ("imageRepository", &Leaf),
                    ("imageTag", &Leaf),
                    ("dataDir", &Leaf),
                    ("extraArgs", &ARGS),
                    ("extraEnvs", &ENVS),
                    ("serverCertSANs", &Leaf),
                    ("peerCertSANs", &Leaf),
                ]),
            ),
            (
                "external",
                &Fields(&[
                    ("endpoints", &Leaf),
                    ("httpEndpoints", &Leaf),
                    ("caFile", &Leaf),
                    ("certFile", &Leaf),
                    ("keyFile", &Leaf),
                ]),
            ),
        ]),
    ),
    ("networking", &Fields(&[("serviceSubnet", &Leaf), ("podSubnet", &Leaf), ("dnsDomain", &Leaf)])),
    ("kubernetesVersion", &Leaf),
    ("controlPlaneEndpoint", &Leaf),
    (
        "apiServer",
        &Fields(&[("extraArgs", &ARGS), ("extraVolumes", &VOLUMES), ("extraEnvs", &ENVS), ("certSANs", &Leaf)]),
    ),
    ("controllerManager", &COMPONENT),
    ("scheduler", &COMPONENT),
    ("dns", &Fields(&[("imageRepository", &Leaf), ("imageTag", &Leaf), ("disabled", &Leaf)])),
    ("proxy", &Fields(&[("disabled", &Leaf)])),
    ("certificatesDir", &Leaf),
    ("imageRepository", &Leaf),
    ("featureGates", &Leaf),
    ("clusterName", &Leaf),
    ("encryptionAlgorithm", &Leaf),
    ("certificateValidityPeriod", &Leaf),
    ("caCertificateValidityPeriod", &Leaf),
]);

/// InitConfiguration.
pub(super) const INIT: Shape = Fields(&[
    ("apiVersion", &Leaf),
    ("kind", &Leaf),
    (
        "bootstrapTokens",
        &List(&Fields(&[
            ("token", &Leaf),
            ("description", &Leaf),
            ("ttl", &Leaf),
            ("expires", &Leaf),
            ("usages", &Leaf),
            ("groups", &Leaf),
        ])),
    ),
    ("dryRun", &Leaf),
    ("nodeRegistration", &NODE_REGISTRATION),
    ("localAPIEndpoint", &API_ENDPOINT),
    ("certificateKey", &Leaf),
    ("skipPhases", &Leaf),
    ("patches", &PATCHES),
    ("timeouts", &TIMEOUTS),
]);

/// JoinConfiguration.
pub(super) const JOIN: Shape = Fields(&[
    ("apiVersion", &Leaf),
    ("kind", &Leaf),
    ("dryRun", &Leaf),
    ("nodeRegistration", &NODE_REGISTRATION),
    ("caCertPath", &Leaf),
    (
        "discovery",
        &Fields(&[
            (
                "bootstrapToken",
                &Fields(&[
                    ("token", &Leaf),
                    ("apiServerEndpoint", &Leaf),
                    ("caCertHashes", &Leaf),
                    ("unsafeSkipCAVerification", &Leaf),
                ]),
            ),
            ("file", &Fields(&[("kubeConfigPath", &Leaf)])),
            ("tlsBootstrapToken", &Leaf),
        ]),
    ),
    ("controlPlane", &Fields(&[("localAPIEndpoint", &API_ENDPOINT), ("certificateKey", &Leaf)])),
    ("skipPhases", &Leaf),
    ("patches", &PATCHES),
    ("timeouts", &TIMEOUTS),
]);

/// ResetConfiguration.
pub(super) const RESET: Shape = Fields(&[
    ("apiVersion", &Leaf),
    ("kind", &Leaf),
    ("cleanupTmpDir", &Leaf),
    ("certificatesDir", &Leaf),
    ("criSocket", &Leaf),
    ("dryRun", &Leaf),
    ("force", &Leaf),
    ("ignorePreflightErrors", &Leaf),
    ("skipPhases", &Leaf),
    ("unmountFlags", &Leaf),
    ("timeouts", &TIMEOUTS),
]);

/// UpgradeConfiguration.
pub(super) const UPGRADE: Shape = Fields(&[
    ("apiVersion", &Leaf),
    ("kind", &Leaf),
    (
        "apply",
        &Fields(&[
            ("kubernetesVersion", &Leaf),
            ("allowExperimentalUpgrades", &Leaf),
            ("allowRCUpgrades", &Leaf),
            ("certificateRenewal", &Leaf),
            ("dryRun", &Leaf),
            ("etcdUpgrade", &Leaf),
            ("forceUpgrade", &Leaf),
            ("ignorePreflightErrors", &Leaf),
            ("patches", &PATCHES),
            ("printConfig", &Leaf),
            ("skipPhases", &Leaf),
            ("imagePullPolicy", &Leaf),
            ("imagePullSerial", &Leaf),
        ]),
    ),
    (
        "node",
        &Fields(&[
            ("certificateRenewal", &Leaf),
            ("dryRun", &Leaf),
            ("etcdUpgrade", &Leaf),
            ("ignorePreflightErrors", &Leaf),
            ("skipPhases", &Leaf),
            ("patches", &PATCHES),
            ("imagePullPolicy", &Leaf),
            ("imagePullSerial", &Leaf),
        ]),
    ),
    (
        "plan",
        &Fields(&[
            ("kubernetesVersion", &Leaf),
            ("allowExperimentalUpgrades", &Leaf),
            ("allowRCUpgrades", &Leaf),
            ("dryRun", &Leaf),
            ("etcdUpgrade", &Leaf),
            ("ignorePreflightErrors", &Leaf),
            ("printConfig", &Leaf),
        ]),
    ),
    ("diff", &Fields(&[("kubernetesVersion", &Leaf), ("contextLines", &Leaf)])),
    ("timeouts", &TIMEOUTS),
]);

/// The shape of a kind of kubeadm's.
pub(super) fn of(kind: &str) -> Option<&'static Shape> {
    match kind {
        "InitConfiguration" => Some(&INIT),
        "ClusterConfiguration" => Some(&CLUSTER),
        "JoinConfiguration" => Some(&JOIN),
        "ResetConfiguration" => Some(&RESET),
        "UpgradeConfiguration" => Some(&UPGRADE),
        _ => None,
    }
}

/// Where the key of a path such as `apiServer.extraArgs[0].nam` stands.
pub(super) fn locate(node: &Node, path: &str) -> Option<Span> {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let (name, indexes) = step.split_once('[').map_or((step, ""), |(name, indexes)| (name, indexes));
    let Content::Map(entries) = &node.content else { return None };
    let entry = entries.iter().find(|entry| entry.key.text == name)?;
    let mut below = &entry.value;
    for index in indexes.split('[').filter(|index| !index.is_empty()) {
        let Content::List(items) = &below.content else { return None };
        below = items.get(index.trim_end_matches(']').parse::<usize>().ok()?)?;
    }
    match rest {
        Some(rest) => locate(below, rest),
        None => Some(entry.key.span),
    }
}

/// Paths of all fields of a shape: `apiServer.extraArgs[].name`.
#[cfg(test)]
pub(super) fn paths(shape: &Shape) -> Vec<String> {
    match shape {
        Leaf => Vec::new(),
        List(items) => paths(items).into_iter().map(|below| format!("[].{below}")).collect(),
        Fields(fields) => fields
            .iter()
            .flat_map(|(name, below)| {
                let nested = paths(below).into_iter().map(move |below| match below.starts_with('[') {
                    true => format!("{name}{below}"),
                    false => format!("{name}.{below}"),
                });
                std::iter::once((*name).to_owned()).chain(nested)
            })
            .collect(),
    }
}

/// Paths of the fields in `value` that `shape` does not have, as `apiServer.extraArg`.
pub(super) fn unknown_fields(value: &Value, shape: &Shape) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, shape, "", &mut found);
    found
}

fn collect(value: &Value, shape: &Shape, path: &str, found: &mut Vec<String>) {
    match (shape, value) {
        (Fields(known), Value::Object(fields)) => {
            for (name, below) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => collect(below, shape, &path, found),
                    None => found.push(path),
                }
            }
        }
        (List(shape), Value::Array(items)) => {
            for (position, item) in items.iter().enumerate() {
                collect(item, shape, &format!("{path}[{position}]"), found);
            }
        }
        _ => {}
    }
}
