//! The fields kubeadm knows, so that a misspelt one is named: upstream only warns about those, and so do we.

use serde_json::Value;

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
