//! Configurations of components as upstream writes them: a program that knows their types writes many fields that nobody
//! set, and every duration in one notation. kubelet-config, kube-proxy's ConfigMap and the kubelet's file are compared and
//! hashed as text, so ours say the same. The types are the same in Kubernetes 1.33 to 1.37 as far as this goes.

use serde_json::{Map, Value, json};

use super::configuration::Duration;

/// What is written of a field that nobody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unset {
    /// `0s`; what is set is a duration.
    ZeroDuration,
    /// `null`; what is set is a duration.
    NoDuration,
    /// Nothing; what is set is a duration.
    Absent,
    /// `false`.
    False,
    /// `0`.
    Zero,
    /// `"0"`: a quantity.
    ZeroText,
    /// `""`.
    Empty,
    /// `null`.
    Null,
    /// `{}`.
    Object,
}

use Unset::{Absent, Empty, False, NoDuration, Null, Object, Zero, ZeroDuration, ZeroText};

/// Path of a field, and what stands there when nobody set it.
type Field = (&'static str, Unset);

const KUBELET: &[Field] = &[
    ("authentication.webhook.cacheTTL", ZeroDuration),
    ("authorization.webhook.cacheAuthorizedTTL", ZeroDuration),
    ("authorization.webhook.cacheUnauthorizedTTL", ZeroDuration),
    ("containerLogMonitorInterval", Absent),
    ("containerRuntimeEndpoint", Empty),
    ("cpuCFSQuotaPeriod", Absent),
    ("cpuManagerReconcilePeriod", ZeroDuration),
    ("crashLoopBackOff", Object),
    ("evictionPressureTransitionPeriod", ZeroDuration),
    ("fileCheckFrequency", ZeroDuration),
    ("httpCheckFrequency", ZeroDuration),
    ("imageMaximumGCAge", ZeroDuration),
    ("imageMinimumGCAge", ZeroDuration),
    ("logging.flushFrequency", Zero),
    ("logging.options.json.infoBufferSize", ZeroText),
    ("logging.options.text.infoBufferSize", ZeroText),
    ("logging.verbosity", Zero),
    ("memorySwap", Object),
    ("nodeStatusReportFrequency", ZeroDuration),
    ("nodeStatusUpdateFrequency", ZeroDuration),
    ("runtimeRequestTimeout", ZeroDuration),
    ("shutdownGracePeriod", ZeroDuration),
    ("shutdownGracePeriodCriticalPods", ZeroDuration),
    ("streamingConnectionIdleTimeout", ZeroDuration),
    ("syncFrequency", ZeroDuration),
    ("volumeStatsAggPeriod", ZeroDuration),
];

const KUBE_PROXY: &[Field] = &[
    ("bindAddress", Empty),
    ("bindAddressHardFail", False),
    ("clientConnection.acceptContentTypes", Empty),
    ("clientConnection.burst", Zero),
    ("clientConnection.contentType", Empty),
    ("clientConnection.kubeconfig", Empty),
    ("clientConnection.qps", Zero),
    ("clusterCIDR", Empty),
    ("configSyncPeriod", ZeroDuration),
    ("conntrack.maxPerCore", Null),
    ("conntrack.min", Null),
    ("conntrack.tcpBeLiberal", False),
    ("conntrack.tcpCloseWaitTimeout", NoDuration),
    ("conntrack.tcpEstablishedTimeout", NoDuration),
    ("conntrack.udpStreamTimeout", ZeroDuration),
    ("conntrack.udpTimeout", ZeroDuration),
    ("detectLocal.bridgeInterface", Empty),
    ("detectLocal.interfaceNamePrefix", Empty),
    ("detectLocalMode", Empty),
    ("enableProfiling", False),
    ("healthzBindAddress", Empty),
    ("hostnameOverride", Empty),
    ("iptables.localhostNodePorts", Null),
    ("iptables.masqueradeAll", False),
    ("iptables.masqueradeBit", Null),
    ("iptables.minSyncPeriod", ZeroDuration),
    ("iptables.syncPeriod", ZeroDuration),
    ("ipvs.excludeCIDRs", Null),
    ("ipvs.minSyncPeriod", ZeroDuration),
    ("ipvs.scheduler", Empty),
    ("ipvs.strictARP", False),
    ("ipvs.syncPeriod", ZeroDuration),
    ("ipvs.tcpFinTimeout", ZeroDuration),
    ("ipvs.tcpTimeout", ZeroDuration),
    ("ipvs.udpTimeout", ZeroDuration),
    ("logging.flushFrequency", Zero),
    ("logging.options.json.infoBufferSize", ZeroText),
    ("logging.options.text.infoBufferSize", ZeroText),
    ("logging.verbosity", Zero),
    ("metricsBindAddress", Empty),
    ("mode", Empty),
    ("nftables.masqueradeAll", False),
    ("nftables.masqueradeBit", Null),
    ("nftables.minSyncPeriod", ZeroDuration),
    ("nftables.syncPeriod", ZeroDuration),
    ("nodePortAddresses", Null),
    ("oomScoreAdj", Null),
    ("portRange", Empty),
    ("showHiddenMetricsForVersion", Empty),
    ("winkernel.enableDSR", False),
    ("winkernel.forwardHealthCheckVip", False),
    ("winkernel.networkName", Empty),
    ("winkernel.rootHnsEndpointName", Empty),
    ("winkernel.sourceVip", Empty),
];

/// Writes out a KubeletConfiguration.
pub fn write_out_kubelet(document: &mut Value) {
    write_out(document, KUBELET);
}

/// Writes out a KubeProxyConfiguration.
pub fn write_out_kube_proxy(document: &mut Value) {
    write_out(document, KUBE_PROXY);
}

/// Writes out a patched pod: containers a patch adds, or takes the resources from, have empty ones.
pub fn write_out_pod(document: &mut Value) {
    for list in ["containers", "initContainers"] {
        let containers = document.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.entry("resources").or_insert_with(|| json!({}));
        }
    }
}

fn write_out(document: &mut Value, fields: &[Field]) {
    for (path, unset) in fields {
        if *unset == Absent && find(document, path).is_none() {
            continue;
        }
        let place = place(document, path);
        match unset {
            Object if place.is_object() => {}
            ZeroDuration | NoDuration | Absent if place.is_string() => {
                // What is no duration is the component's to refuse.
                let parsed = place.as_str().and_then(|text| text.parse::<Duration>().ok());
                if let Some(duration) = parsed {
                    *place = json!(duration.to_string());
                }
            }
            _ if place.is_null() => *place = unset.value(),
            _ => {}
        }
    }
}

impl Unset {
    fn value(self) -> Value {
        match self {
            ZeroDuration => json!("0s"),
            False => json!(false),
            Zero => json!(0),
            ZeroText => json!("0"),
            Empty => json!(""),
            Object => json!({}),
            NoDuration | Absent | Null => Value::Null,
        }
    }
}

fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, name| value.get(name))
}

/// The field at `path`, with objects made on the way; something else that stands there is replaced, since no component
/// could read it.
pub(super) fn place<'a>(document: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(document, |value, name| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[name]
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{find, write_out_kube_proxy, write_out_kubelet, write_out_pod};

    #[rstest]
    #[case("syncFrequency", json!("1m30s"))]
    #[case("httpCheckFrequency", json!("0s"))]
    #[case("authentication.webhook.cacheTTL", json!("0s"))]
    #[case("authentication.webhook.enabled", json!(true))]
    #[case("cpuCFSQuotaPeriod", json!("100ms"))]
    #[case("logging.verbosity", json!(3))]
    #[case("logging.options.text.infoBufferSize", json!("0"))]
    #[case("memorySwap", json!({"swapBehavior": "LimitedSwap"}))]
    #[case("crashLoopBackOff", json!({}))]
    #[case("fileCheckFrequency", json!("soon"))]
    #[case("unknown", json!("90s"))]
    fn a_kubelet_configuration_is_written_out(#[case] path: &str, #[case] expected: Value) {
        let mut document = json!({"syncFrequency": "90s", "authentication": {"webhook": {"enabled": true}},
            "cpuCFSQuotaPeriod": "0.1s", "logging": {"verbosity": 3}, "memorySwap": {"swapBehavior": "LimitedSwap"},
            "fileCheckFrequency": "soon", "unknown": "90s", "httpCheckFrequency": null});
        write_out_kubelet(&mut document);
        assert_eq!(find(&document, path), Some(&expected));
        assert_eq!(document.get("containerLogMonitorInterval"), None);
    }

    #[rstest]
    #[case("conntrack.tcpEstablishedTimeout", json!("1h0m0s"))]
    #[case("conntrack.tcpCloseWaitTimeout", Value::Null)]
    #[case("conntrack.maxPerCore", json!(0))]
    #[case("clusterCIDR", json!(""))]
    #[case("winkernel.enableDSR", json!(false))]
    fn a_kube_proxy_configuration_is_written_out(#[case] path: &str, #[case] expected: Value) {
        let mut document = json!({"conntrack": {"tcpEstablishedTimeout": "60m", "maxPerCore": 0}});
        write_out_kube_proxy(&mut document);
        assert_eq!(find(&document, path), Some(&expected));
    }

    #[test]
    fn containers_have_resources() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {}}}]}});
        write_out_pod(&mut pod);
        let expected = json!([{"name": "a", "resources": {}}, {"name": "b", "resources": {"limits": {}}}]);
        assert_eq!(pod["spec"]["containers"], expected);
        write_out_pod(&mut Value::Null);
    }
}
