//! KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1: the fields of Kubernetes 1.33 to 1.37, which are the same.

use super::Shape::{self, Duration, DurationOrNumber, Fields, List, Map, Number, Quantity, Text, Truth, Whole};
use super::{INT32, TEXTS};

/// Go's uint32.
const VERBOSITY: Shape = Whole(0, u32::MAX as i64);
const STREAMS: Shape = Fields(&[("splitStream", &Truth), ("infoBufferSize", &Quantity)]);

/// LoggingConfiguration, which the kubelet has, too.
pub(super) const LOGGING: Shape = Fields(&[
    ("format", &Text),
    ("flushFrequency", &DurationOrNumber),
    ("verbosity", &VERBOSITY),
    ("vmodule", &List(&Fields(&[("filePattern", &Text), ("verbosity", &VERBOSITY)]))),
    ("options", &Fields(&[("text", &STREAMS), ("json", &STREAMS)])),
]);

const CLIENT_CONNECTION: Shape = Fields(&[
    ("kubeconfig", &Text),
    ("acceptContentTypes", &Text),
    ("contentType", &Text),
    ("qps", &Number),
    ("burst", &INT32),
]);

pub(super) const KUBE_PROXY: Shape = Fields(&[
    ("apiVersion", &Text),
    ("kind", &Text),
    ("featureGates", &Map(&Truth)),
    ("clientConnection", &CLIENT_CONNECTION),
    ("logging", &LOGGING),
    ("hostnameOverride", &Text),
    ("bindAddress", &Text),
    ("healthzBindAddress", &Text),
    ("metricsBindAddress", &Text),
    ("bindAddressHardFail", &Truth),
    ("enableProfiling", &Truth),
    ("showHiddenMetricsForVersion", &Text),
    ("mode", &Text),
    (
        "iptables",
        &Fields(&[
            ("masqueradeBit", &INT32),
            ("masqueradeAll", &Truth),
            ("localhostNodePorts", &Truth),
            ("syncPeriod", &Duration),
            ("minSyncPeriod", &Duration),
        ]),
    ),
    (
        "ipvs",
        &Fields(&[
            ("syncPeriod", &Duration),
            ("minSyncPeriod", &Duration),
            ("scheduler", &Text),
            ("excludeCIDRs", &TEXTS),
            ("strictARP", &Truth),
            ("tcpTimeout", &Duration),
            ("tcpFinTimeout", &Duration),
            ("udpTimeout", &Duration),
        ]),
    ),
    (
        "nftables",
        &Fields(&[
            ("masqueradeBit", &INT32),
            ("masqueradeAll", &Truth),
            ("syncPeriod", &Duration),
            ("minSyncPeriod", &Duration),
        ]),
    ),
    (
        "winkernel",
        &Fields(&[
            ("networkName", &Text),
            ("sourceVip", &Text),
            ("enableDSR", &Truth),
            ("rootHnsEndpointName", &Text),
            ("forwardHealthCheckVip", &Truth),
        ]),
    ),
    ("detectLocalMode", &Text),
    ("detectLocal", &Fields(&[("bridgeInterface", &Text), ("interfaceNamePrefix", &Text)])),
    ("clusterCIDR", &Text),
    ("nodePortAddresses", &TEXTS),
    ("oomScoreAdj", &INT32),
    (
        "conntrack",
        &Fields(&[
            ("maxPerCore", &INT32),
            ("min", &INT32),
            ("tcpEstablishedTimeout", &Duration),
            ("tcpCloseWaitTimeout", &Duration),
            ("tcpBeLiberal", &Truth),
            ("udpTimeout", &Duration),
            ("udpStreamTimeout", &Duration),
        ]),
    ),
    ("configSyncPeriod", &Duration),
    ("portRange", &Text),
    ("windowsRunAsService", &Truth),
]);
