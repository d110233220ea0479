//! The fields kubeadm knows and what may stand in each: a misspelt one is named (upstream only warns about those, and so
//! do we), and so is a value of a wrong type, which is an error.

mod finding;
mod kube_proxy;
mod kubelet;
mod scalar;

pub(super) use finding::{Fault, findings};

/// What may stand below a field.
pub(super) enum Shape {
    /// A text.
    Text,
    /// `true` or `false`.
    Truth,
    /// A whole number, at least and at most.
    Whole(i64, i64),
    /// A number, with or without a fraction.
    Number,
    /// A duration in Go's notation.
    Duration,
    /// A duration in Go's notation, or nanoseconds as a number.
    DurationOrNumber,
    /// A moment in RFC 3339.
    Moment,
    /// A quantity: `100Mi`, or a number.
    Quantity,
    /// An object with these fields.
    Fields(&'static [(&'static str, &'static Shape)]),
    /// A list of such values.
    List(&'static Shape),
    /// An object whose fields a person names.
    Map(&'static Shape),
}

use Shape::{Duration, Fields, List, Map, Moment, Quantity, Text, Truth, Whole};

const TEXTS: Shape = List(&Text);
/// Go's int32.
const INT32: Shape = Whole(i32::MIN as i64, i32::MAX as i64);
const PORT: Shape = Whole(0, u16::MAX as i64);

const ARG: Shape = Fields(&[("name", &Text), ("value", &Text)]);
const ARGS: Shape = List(&ARG);
/// core/v1 EnvVarSource.
const VALUE_FROM: Shape = Fields(&[
    ("fieldRef", &Fields(&[("apiVersion", &Text), ("fieldPath", &Text)])),
    ("resourceFieldRef", &Fields(&[("containerName", &Text), ("resource", &Text), ("divisor", &Quantity)])),
    ("configMapKeyRef", &KEY_OF_OBJECT),
    ("secretKeyRef", &KEY_OF_OBJECT),
    ("fileKeyRef", &Fields(&[("volumeName", &Text), ("path", &Text), ("key", &Text), ("optional", &Truth)])),
]);
const KEY_OF_OBJECT: Shape = Fields(&[("name", &Text), ("key", &Text), ("optional", &Truth)]);
const ENVS: Shape = List(&Fields(&[("name", &Text), ("value", &Text), ("valueFrom", &VALUE_FROM)]));
const VOLUMES: Shape = List(&Fields(&[
    ("name", &Text),
    ("hostPath", &Text),
    ("mountPath", &Text),
    ("readOnly", &Truth),
    ("pathType", &Text),
]));
const COMPONENT: Shape = Fields(&[("extraArgs", &ARGS), ("extraVolumes", &VOLUMES), ("extraEnvs", &ENVS)]);
const TIMEOUTS: Shape = Fields(&[
    ("controlPlaneComponentHealthCheck", &Duration),
    ("kubeletHealthCheck", &Duration),
    ("kubernetesAPICall", &Duration),
    ("etcdAPICall", &Duration),
    ("tlsBootstrap", &Duration),
    ("discovery", &Duration),
    ("upgradeManifests", &Duration),
]);
/// core/v1 Taint.
const TAINTS: Shape = List(&Fields(&[("key", &Text), ("value", &Text), ("effect", &Text), ("timeAdded", &Moment)]));
const PATCHES: Shape = Fields(&[("directory", &Text)]);
const NODE_REGISTRATION: Shape = Fields(&[
    ("name", &Text),
    ("criSocket", &Text),
    ("taints", &TAINTS),
    ("kubeletExtraArgs", &ARGS),
    ("ignorePreflightErrors", &TEXTS),
    ("imagePullPolicy", &Text),
    ("imagePullSerial", &Truth),
]);
const API_ENDPOINT: Shape = Fields(&[("advertiseAddress", &Text), ("bindPort", &PORT)]);

/// ClusterConfiguration.
pub(super) const CLUSTER: Shape = Fields(&[
    ("apiVersion", &Text),
    ("kind", &Text),
    (
        "etcd",
        &Fields(&[
            (
                "local",
                &Fields(&[
                    ("imageRepository", &Text),
                    ("imageTag", &Text),
                    ("dataDir", &Text),
                    ("extraArgs", &ARGS),
                    ("extraEnvs", &ENVS),
                    ("serverCertSANs", &TEXTS),
                    ("peerCertSANs", &TEXTS),
                ]),
            ),
            (
                "external",
                &Fields(&[
                    ("endpoints", &TEXTS),
                    ("httpEndpoints", &TEXTS),
                    ("caFile", &Text),
                    ("certFile", &Text),
                    ("keyFile", &Text),
                ]),
            ),
        ]),
    ),
    ("networking", &Fields(&[("serviceSubnet", &Text), ("podSubnet", &Text), ("dnsDomain", &Text)])),
    ("kubernetesVersion", &Text),
    ("controlPlaneEndpoint", &Text),
    (
        "apiServer",
        &Fields(&[("extraArgs", &ARGS), ("extraVolumes", &VOLUMES), ("extraEnvs", &ENVS), ("certSANs", &TEXTS)]),
    ),
    ("controllerManager", &COMPONENT),
    ("scheduler", &COMPONENT),
    ("dns", &Fields(&[("imageRepository", &Text), ("imageTag", &Text), ("disabled", &Truth)])),
    ("proxy", &Fields(&[("disabled", &Truth)])),
    ("certificatesDir", &Text),
    ("imageRepository", &Text),
    ("featureGates", &Map(&Truth)),
    ("clusterName", &Text),
    ("encryptionAlgorithm", &Text),
    ("certificateValidityPeriod", &Duration),
    ("caCertificateValidityPeriod", &Duration),
]);

/// InitConfiguration.
pub(super) const INIT: Shape = Fields(&[
    ("apiVersion", &Text),
    ("kind", &Text),
    (
        "bootstrapTokens",
        &List(&Fields(&[
            ("token", &Text),
            ("description", &Text),
            ("ttl", &Duration),
            ("expires", &Moment),
            ("usages", &TEXTS),
            ("groups", &TEXTS),
        ])),
    ),
    ("dryRun", &Truth),
    ("nodeRegistration", &NODE_REGISTRATION),
    ("localAPIEndpoint", &API_ENDPOINT),
    ("certificateKey", &Text),
    ("skipPhases", &TEXTS),
    ("patches", &PATCHES),
    ("timeouts", &TIMEOUTS),
]);

/// JoinConfiguration.
pub(super) const JOIN: Shape = Fields(&[
    ("apiVersion", &Text),
    ("kind", &Text),
    ("dryRun", &Truth),
    ("nodeRegistration", &NODE_REGISTRATION),
    ("caCertPath", &Text),
    (
        "discovery",
        &Fields(&[
            (
                "bootstrapToken",
                &Fields(&[
                    ("token", &Text),
                    ("apiServerEndpoint", &Text),
                    ("caCertHashes", &TEXTS),
                    ("unsafeSkipCAVerification", &Truth),
                ]),
            ),
            ("file", &Fields(&[("kubeConfigPath", &Text)])),
            ("tlsBootstrapToken", &Text),
        ]),
    ),
    ("controlPlane", &Fields(&[("localAPIEndpoint", &API_ENDPOINT), ("certificateKey", &Text)])),
    ("skipPhases", &TEXTS),
    ("patches", &PATCHES),
    ("timeouts", &TIMEOUTS),
]);

/// ResetConfiguration.
pub(super) const RESET: Shape = Fields(&[
    ("apiVersion", &Text),
    ("kind", &Text),
    ("cleanupTmpDir", &Truth),
    ("certificatesDir", &Text),
    ("criSocket", &Text),
    ("dryRun", &Truth),
    ("force", &Truth),
    ("ignorePreflightErrors", &TEXTS),
    ("skipPhases", &TEXTS),
    ("unmountFlags", &TEXTS),
    ("timeouts", &TIMEOUTS),
]);

/// UpgradeConfiguration.
pub(super) const UPGRADE: Shape = Fields(&[
    ("apiVersion", &Text),
    ("kind", &Text),
    (
        "apply",
        &Fields(&[
            ("kubernetesVersion", &Text),
            ("allowExperimentalUpgrades", &Truth),
            ("allowRCUpgrades", &Truth),
            ("certificateRenewal", &Truth),
            ("dryRun", &Truth),
            ("etcdUpgrade", &Truth),
            ("forceUpgrade", &Truth),
            ("ignorePreflightErrors", &TEXTS),
            ("patches", &PATCHES),
            ("printConfig", &Truth),
            ("skipPhases", &TEXTS),
            ("imagePullPolicy", &Text),
            ("imagePullSerial", &Truth),
        ]),
    ),
    (
        "node",
        &Fields(&[
            ("certificateRenewal", &Truth),
            ("dryRun", &Truth),
            ("etcdUpgrade", &Truth),
            ("ignorePreflightErrors", &TEXTS),
            ("skipPhases", &TEXTS),
            ("patches", &PATCHES),
            ("imagePullPolicy", &Text),
            ("imagePullSerial", &Truth),
        ]),
    ),
    (
        "plan",
        &Fields(&[
            ("kubernetesVersion", &Text),
            ("allowExperimentalUpgrades", &Truth),
            ("allowRCUpgrades", &Truth),
            ("dryRun", &Truth),
            ("etcdUpgrade", &Truth),
            ("ignorePreflightErrors", &TEXTS),
            ("printConfig", &Truth),
        ]),
    ),
    ("diff", &Fields(&[("kubernetesVersion", &Text), ("contextLines", &Whole(0, u32::MAX as i64))])),
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

/// The shape of a component's kind, with its group and version.
pub(super) fn of_component(kind: &str) -> Option<(&'static str, &'static str, &'static Shape)> {
    match kind {
        "KubeletConfiguration" => Some(("kubelet.config.k8s.io", "v1beta1", &kubelet::KUBELET)),
        "KubeProxyConfiguration" => Some(("kubeproxy.config.k8s.io", "v1alpha1", &kube_proxy::KUBE_PROXY)),
        _ => None,
    }
}

/// Paths of all fields of a shape: `apiServer.extraArgs[].name`.
#[cfg(test)]
pub(super) fn paths(shape: &Shape) -> Vec<String> {
    match shape {
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
        _ => Vec::new(),
    }
}
