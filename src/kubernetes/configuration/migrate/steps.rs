//! What changed from version to version of kubeadm.k8s.io, as data.

use super::special;
use crate::yaml::{Finding, Node};

/// The published versions, oldest first: of Kubernetes 1.11, 1.12, 1.13, 1.15, 1.22 and 1.31.
pub(super) const VERSIONS: [&str; 6] = ["v1alpha2", "v1alpha3", "v1beta1", "v1beta2", "v1beta3", "v1beta4"];

/// What happens to a field when a document is lifted to the next version.
pub(super) enum Rule {
    /// The kind has another name.
    Becomes(&'static str),
    /// A field stands elsewhere in the document.
    Move(&'static str, &'static str),
    /// A field stands in a document of another kind: from, kind, to; to `""` when it is that document.
    Give(&'static str, &'static str, &'static str),
    /// A field has no place any more, and why.
    Gone(&'static str, &'static str),
    /// A mapping of arguments becomes a list.
    Arguments(&'static str),
    /// What only a function can say.
    Special(fn(&mut Node, &mut Vec<Finding>)),
    /// The whole document has no place any more, and why.
    GoneDocument(&'static str),
}

use Rule::{Arguments, Becomes, Give, Gone, GoneDocument, Move, Special};

/// What is applied to the documents of each version but the last, by kind.
pub(super) const STEPS: [&[(&str, &[Rule])]; 5] =
    [FROM_V1ALPHA2, FROM_V1ALPHA3, FROM_V1BETA1, FROM_V1BETA2, FROM_V1BETA3];

const INIT: &str = "InitConfiguration";

const FROM_V1ALPHA2: &[(&str, &[Rule])] = &[
    (
        "MasterConfiguration",
        &[
            Becomes("ClusterConfiguration"),
            Give("bootstrapTokens", INIT, "bootstrapTokens"),
            Give("nodeRegistration", INIT, "nodeRegistration"),
            Give("api.advertiseAddress", INIT, "apiEndpoint.advertiseAddress"),
            Give("api.bindPort", INIT, "apiEndpoint.bindPort"),
            Move("api.controlPlaneEndpoint", "controlPlaneEndpoint"),
            Give("kubeletConfiguration.baseConfig", "KubeletConfiguration", ""),
            Give("kubeProxy.config", "KubeProxyConfiguration", ""),
        ],
    ),
    ("NodeConfiguration", &[Becomes("JoinConfiguration")]),
];

const AUDIT: &str = "kubeadm sets up no audit log; give the API server extraArgs audit-policy-file and audit-log-path, and \
                     extraVolumes for both";

const FROM_V1ALPHA3: &[(&str, &[Rule])] = &[
    (INIT, &[Move("apiEndpoint", "localAPIEndpoint")]),
    (
        "ClusterConfiguration",
        &[
            Move("apiServerExtraArgs", "apiServer.extraArgs"),
            Move("apiServerExtraVolumes", "apiServer.extraVolumes"),
            Move("apiServerCertSANs", "apiServer.certSANs"),
            Move("controllerManagerExtraArgs", "controllerManager.extraArgs"),
            Move("controllerManagerExtraVolumes", "controllerManager.extraVolumes"),
            Move("schedulerExtraArgs", "scheduler.extraArgs"),
            Move("schedulerExtraVolumes", "scheduler.extraVolumes"),
            Special(special::writable_volumes),
            Special(special::etcd_image),
            Gone("unifiedControlPlaneImage", "there are no images any more that hold all components"),
            Gone("auditPolicy", AUDIT),
        ],
    ),
    (
        "JoinConfiguration",
        &[
            Special(special::one_api_server),
            Special(special::shared_token),
            Move("discoveryFile", "discovery.file.kubeConfigPath"),
            Move("discoveryToken", "discovery.bootstrapToken.token"),
            Move("discoveryTokenCACertHashes", "discovery.bootstrapToken.caCertHashes"),
            Move("discoveryTokenUnsafeSkipCAVerification", "discovery.bootstrapToken.unsafeSkipCAVerification"),
            Move("tlsBootstrapToken", "discovery.tlsBootstrapToken"),
            Move("discoveryTimeout", "discovery.timeout"),
            Special(special::one_discovery),
            Special(special::joins_as_control_plane),
            Gone("clusterName", "the name comes from the cluster that is joined"),
            Gone("featureGates", "gates are those of the cluster that is joined"),
        ],
    ),
    ("ClusterStatus", &[GoneDocument(STATUS)]),
];

const STATUS: &str = "the addresses of API servers are kept at their Pods";

const FROM_V1BETA1: &[(&str, &[Rule])] = &[("ClusterStatus", &[GoneDocument(STATUS)])];

const FROM_V1BETA2: &[(&str, &[Rule])] = &[
    (
        "ClusterConfiguration",
        &[
            Gone("useHyperKubeImage", "there are no images any more that hold all components"),
            Special(special::dns_type),
        ],
    ),
    ("ClusterStatus", &[GoneDocument(STATUS)]),
];

const FROM_V1BETA3: &[(&str, &[Rule])] = &[
    (INIT, &[Arguments("nodeRegistration.kubeletExtraArgs")]),
    (
        "ClusterConfiguration",
        &[
            Arguments("apiServer.extraArgs"),
            Arguments("controllerManager.extraArgs"),
            Arguments("scheduler.extraArgs"),
            Arguments("etcd.local.extraArgs"),
            Give("apiServer.timeoutForControlPlane", INIT, "timeouts.controlPlaneComponentHealthCheck"),
            Special(special::ecdsa_gate),
        ],
    ),
    (
        "JoinConfiguration",
        &[Arguments("nodeRegistration.kubeletExtraArgs"), Move("discovery.timeout", "timeouts.discovery")],
    ),
];

/// The kinds of a version.
pub(super) fn kinds(version: usize) -> &'static [&'static str] {
    match VERSIONS[version] {
        "v1alpha2" => &["MasterConfiguration", "NodeConfiguration"],
        "v1alpha3" | "v1beta1" | "v1beta2" => &[INIT, "ClusterConfiguration", "JoinConfiguration", "ClusterStatus"],
        "v1beta3" => &[INIT, "ClusterConfiguration", "JoinConfiguration"],
        _ => &[INIT, "ClusterConfiguration", "JoinConfiguration", "ResetConfiguration", "UpgradeConfiguration"],
    }
}

/// The name of a kind in the newest version.
pub(super) fn newest_kind(kind: &str) -> &str {
    match kind {
        "MasterConfiguration" => "ClusterConfiguration",
        "NodeConfiguration" => "JoinConfiguration",
        other => other,
    }
}

/// Fields that a version brought: since when, in which kind, and where.
pub(super) const LATER_FIELDS: &[(&str, &str, &[&str])] = &[
    ("v1beta1", INIT, &["localAPIEndpoint"]),
    (
        "v1beta1",
        "ClusterConfiguration",
        &["apiServer", "controllerManager", "scheduler", "dns", "etcd.local.imageRepository", "etcd.local.imageTag"],
    ),
    ("v1beta1", "JoinConfiguration", &["discovery"]),
    // Of a MasterConfiguration, which had the node's part inside of it.
    (
        "v1beta2",
        "ClusterConfiguration",
        &[
            "nodeRegistration.ignorePreflightErrors",
            "nodeRegistration.imagePullPolicy",
            "nodeRegistration.imagePullSerial",
        ],
    ),
    ("v1beta2", INIT, &["certificateKey", "nodeRegistration.ignorePreflightErrors"]),
    ("v1beta2", "JoinConfiguration", &["controlPlane.certificateKey", "nodeRegistration.ignorePreflightErrors"]),
    ("v1beta3", INIT, &["skipPhases", "patches", "nodeRegistration.imagePullPolicy"]),
    ("v1beta3", "JoinConfiguration", &["skipPhases", "patches", "nodeRegistration.imagePullPolicy"]),
    ("v1beta4", INIT, &["dryRun", "timeouts", "nodeRegistration.imagePullSerial"]),
    ("v1beta4", "JoinConfiguration", &["dryRun", "timeouts", "nodeRegistration.imagePullSerial"]),
    (
        "v1beta4",
        "ClusterConfiguration",
        &[
            "proxy",
            "dns.disabled",
            "apiServer.extraEnvs",
            "controllerManager.extraEnvs",
            "scheduler.extraEnvs",
            "etcd.local.extraEnvs",
            "etcd.external.httpEndpoints",
            "encryptionAlgorithm",
            "certificateValidityPeriod",
            "caCertificateValidityPeriod",
        ],
    ),
];
