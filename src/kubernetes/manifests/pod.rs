//! What all static pods have in common (kubeadm.md sections 4.1 and 4.6).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::volumes::Volume;
use super::{Manifest, ManifestOrder};
use crate::failure::Result;
use crate::kubernetes::configuration::EnvVar;

/// Where a component says how it is.
pub(super) struct Probes {
    pub(super) scheme: &'static str,
    /// Empty: the pod's own address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) startup: &'static str,
    pub(super) liveness: &'static str,
    pub(super) readiness: Option<&'static str>,
}

/// What differs between the static pods.
pub(super) struct Component {
    pub(super) name: &'static str,
    pub(super) image: String,
    /// The program, then its arguments.
    pub(super) command: Vec<String>,
    pub(super) requests: Value,
    /// In the order in which they are mounted; the pod lists them by name.
    pub(super) volumes: Vec<Volume>,
    pub(super) environment: Vec<Value>,
    pub(super) annotation: Option<(&'static str, String)>,
    pub(super) probes: Probes,
}

impl Component {
    pub(super) fn manifest(self, order: &ManifestOrder<'_>) -> Result<Manifest> {
        let release = order.release()?;
        let name = self.name;
        let probe = |path: &str, initial_delay: u64, period: u64, failures: u64| {
            let port = if release.named_probe_port { json!("probe-port") } else { json!(self.probes.port) };
            let mut get = json!({ "path": path, "port": port, "scheme": self.probes.scheme });
            if !self.probes.host.is_empty() {
                get["host"] = json!(self.probes.host);
            }
            let mut probe =
                json!({ "failureThreshold": failures, "httpGet": get, "periodSeconds": period, "timeoutSeconds": 15 });
            if initial_delay > 0 {
                probe["initialDelaySeconds"] = json!(initial_delay);
            }
            probe
        };
        let startup_failures = order.health_check.0.as_millis().div_ceil(10_000) as u64;
        let mut container = json!({
            "command": self.command,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "livenessProbe": probe(self.probes.liveness, 10, 10, 8),
            "name": name,
            "resources": { "requests": self.requests },
            "startupProbe": probe(self.probes.startup, 10, 10, startup_failures),
            "volumeMounts": self.volumes.iter().map(Volume::mount).collect::<Vec<_>>(),
        });
        if let Some(path) = self.probes.readiness {
            container["readinessProbe"] = probe(path, 0, 1, 3);
        }
        if release.named_probe_port {
            container["ports"] =
                json!([{ "containerPort": self.probes.port, "name": "probe-port", "protocol": "TCP" }]);
        }
        if !self.environment.is_empty() {
            container["env"] = Value::Array(self.environment);
        }

        let mut metadata = json!({
            "labels": { "component": name, "tier": "control-plane" },
            "name": name,
            "namespace": "kube-system",
        });
        if let Some((key, value)) = self.annotation {
            metadata["annotations"] = json!({ key: value });
        }
        if release.empty_fields_written {
            metadata["creationTimestamp"] = Value::Null;
        }
        let mut volumes: Vec<&Volume> = self.volumes.iter().collect();
        volumes.sort_by_key(|volume| volume.name.as_str());
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "containers": [container],
                "hostNetwork": true,
                "priority": 2_000_001_000,
                "priorityClassName": "system-node-critical",
                "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
                "volumes": volumes.into_iter().map(Volume::source).collect::<Vec<_>>(),
            },
            "status": {},
        });
        Ok(Manifest { name, pod })
    }
}

/// The environment of a component: `first` and `second` by name, `second` wins; sorted, as kubeadm writes it.
pub(super) fn environment(first: &[EnvVar], second: &[EnvVar]) -> Vec<Value> {
    let by_name: BTreeMap<&str, &EnvVar> =
        first.iter().chain(second).map(|variable| (variable.name.as_str(), variable)).collect();
    by_name
        .into_values()
        .map(|variable| {
            let mut value = Value::Object(Map::new());
            value["name"] = json!(variable.name);
            if !variable.value.is_empty() {
                value["value"] = json!(variable.value);
            }
            let mut variable = variable.clone();
            variable.complete();
            if let Some(source) = variable.value_from {
                value["valueFrom"] = source;
            }
            value
        })
        .collect()
}

/// A probe reaches a component that listens everywhere by the pod's own address.
pub(super) fn probe_host(address: &str) -> String {
    let everywhere = address.parse().is_ok_and(|address: std::net::IpAddr| address.is_unspecified());
    if everywhere { String::new() } else { address.to_owned() }
}
