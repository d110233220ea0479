//! The kubeadm documents of each host: what a person passed through, with the inventory's part filled in. Pure.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Host, Inventory, Role, Taint};
use crate::kubernetes::configuration::{Arg, ClusterConfiguration};
use crate::message::{RefreshOrder, Ticket};
use crate::node::{ListenAddresses, phases};
use crate::secret::Secret;
use crate::yaml;

const KUBEADM: &str = "kubeadm.k8s.io/v1beta4";

/// Static pods of a control plane, and the phase of `init` by which there is one.
const STATIC_PODS: &[(&str, &str)] = &[
    ("etcd", "etcd"),
    ("kube-apiserver", "control-plane/apiserver"),
    ("kube-controller-manager", "control-plane/controller-manager"),
    ("kube-scheduler", "control-plane/scheduler"),
];

/// The documents a person passed through, by kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    by_kind: Map<String, Value>,
}

/// A value that stands in the inventory and may stand in the documents too; it must then be the same.
struct Shared {
    path: &'static [&'static str],
    inventory_key: &'static str,
    value: Value,
}

impl Documents {
    /// Reads the documents of an inventory.
    ///
    /// # Errors
    /// Kind `Configuration`: no YAML, one kind twice, or a value that contradicts the inventory; all of them at once.
    pub fn read(inventory: &Inventory) -> Result<Self> {
        let Some(source) = &inventory.cluster.kubeadm else { return Ok(Self::default()) };
        let place = |line: usize| format!("{}:{}", source.path.display(), source.line + line.saturating_sub(1));
        let documents = yaml::documents(&source.text).map_err(|finding| {
            Failure::new(Kind::Configuration, format!("{}: {}", place(finding.line), finding.message))
                .advise("correct the kubeadm documents")
        })?;
        let mut by_kind = Map::new();
        let mut wrong = Vec::new();
        for (line, document) in documents {
            let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            if kind.is_empty() {
                wrong.push(format!("{}: a kubeadm document has no `kind`", place(line)));
            } else if by_kind.contains_key(&kind) {
                wrong.push(format!("{}: there are two documents of kind {kind}", place(line)));
            } else {
                by_kind.insert(kind, document);
            }
        }
        let documents = Self { by_kind };
        wrong.extend(documents.contradictions(inventory));
        wrong.extend(documents.two_ports());
        if wrong.is_empty() {
            return Ok(documents);
        }
        Err(Failure::new(Kind::Configuration, wrong.join("; ")).advise("say each thing in one place: the inventory"))
    }

    fn contradictions(&self, inventory: &Inventory) -> Vec<String> {
        let Some(cluster) = self.by_kind.get("ClusterConfiguration") else { return Vec::new() };
        shared(inventory)
            .into_iter()
            .filter_map(|shared| {
                let written = shared.path.iter().try_fold(cluster, |value, key| value.get(key))?;
                let same = text(written).trim_start_matches('v') == text(&shared.value).trim_start_matches('v');
                (!same).then(|| {
                    format!(
                        "ClusterConfiguration.{} is {}, and {} of the inventory is {}",
                        shared.path.join("."),
                        text(written),
                        shared.inventory_key,
                        text(&shared.value)
                    )
                })
            })
            .collect()
    }

    /// All API servers listen on one port: the balancer and a person's kubeconfig are told one.
    fn two_ports(&self) -> Option<String> {
        let port = self.field("JoinConfiguration", &["controlPlane", "localAPIEndpoint", "bindPort"])?.as_u64()?;
        (port != u64::from(self.bind_port())).then(|| {
            format!(
                "JoinConfiguration.controlPlane.localAPIEndpoint.bindPort is {port}, and \
                 InitConfiguration.localAPIEndpoint.bindPort is {}",
                self.bind_port()
            )
        })
    }

    /// A field of the passed-through documents: `field("KubeletConfiguration", &["cgroupDriver"])`.
    pub fn field(&self, kind: &str, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self.by_kind.get(kind)?, |value, key| value.get(key))
    }

    /// The cgroup driver the kubelet will use: kubeadm's default is systemd.
    pub fn cgroup_driver(&self) -> &str {
        self.field("KubeletConfiguration", &["cgroupDriver"]).and_then(Value::as_str).unwrap_or("systemd")
    }

    /// Whether the kubelet refuses to run with swap; its default is yes.
    pub fn fails_on_swap(&self) -> bool {
        self.field("KubeletConfiguration", &["failSwapOn"]).and_then(Value::as_bool).unwrap_or(true)
    }

    /// The API server's port on control planes.
    pub fn bind_port(&self) -> u16 {
        let port = self.field("InitConfiguration", &["localAPIEndpoint", "bindPort"]).and_then(Value::as_u64);
        port.and_then(|port| u16::try_from(port).ok()).unwrap_or(6443)
    }

    /// Which addresses the components of the control plane at `address` are told to listen on.
    pub fn listen(&self, address: IpAddr) -> ListenAddresses {
        let arguments = |component: &str| -> Vec<Arg> {
            let given = self.field("ClusterConfiguration", &[component, "extraArgs"]).and_then(Value::as_array);
            given.into_iter().flatten().filter_map(|argument| serde_json::from_value(argument.clone()).ok()).collect()
        };
        let mut cluster = ClusterConfiguration::default();
        cluster.api_server.extra_args = arguments("apiServer");
        cluster.controller_manager.extra_args = arguments("controllerManager");
        cluster.scheduler.extra_args = arguments("scheduler");
        ListenAddresses::of(&cluster, &address.to_string())
    }

    /// Where the control planes' own etcd keeps its data; `None` where etcd is elsewhere.
    pub fn etcd_data(&self) -> Option<&str> {
        let etcd = |path: &[&str]| self.field("ClusterConfiguration", path);
        match etcd(&["etcd", "external"]) {
            Some(_) => None,
            None => Some(etcd(&["etcd", "local", "dataDir"]).and_then(Value::as_str).unwrap_or("/var/lib/etcd")),
        }
    }

    /// The static pods of a control plane, apart from what a person leaves out of `init`.
    pub fn static_pods(&self) -> Vec<&'static str> {
        let skipped = self.field("InitConfiguration", &["skipPhases"]).and_then(Value::as_array);
        let skipped = skipped.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        // A name that is none is said where the document is judged.
        let phases = phases::INIT.select(None, &skipped.collect::<Vec<String>>()).ok();
        let is_made = |phase: &str| phases.as_ref().is_none_or(|phases| phases.wants(phase));
        let pods = STATIC_PODS.iter().filter(|(_, phase)| is_made(phase)).map(|(pod, _)| *pod);
        pods.filter(|pod| *pod != "etcd" || self.etcd_data().is_some()).collect()
    }

    /// Where images come from.
    pub fn image_repository(&self) -> &str {
        self.field("ClusterConfiguration", &["imageRepository"]).and_then(Value::as_str).unwrap_or("registry.k8s.io")
    }

    /// Names of preflight checks that a person turned down, for `InitConfiguration` or `JoinConfiguration`.
    pub fn ignored_checks(&self, kind: &str) -> Vec<String> {
        let names = self.field(kind, &["nodeRegistration", "ignorePreflightErrors"]).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// What `init` gets on the first control plane.
    pub fn for_init(&self, inventory: &Inventory, host: &Host, node: &NodeAddress) -> Result<Secret> {
        let mut init = self.document("InitConfiguration", KUBEADM);
        fill(&mut init, &["localAPIEndpoint", "advertiseAddress"], json!(node.address.to_string()));
        register(&mut init, host, node);
        let mut documents = vec![init, self.cluster(inventory)];
        documents.extend(
            ["KubeletConfiguration", "KubeProxyConfiguration"]
                .iter()
                .filter_map(|kind| self.by_kind.get(*kind).cloned()),
        );
        write(&documents)
    }

    /// What `join` gets on a worker.
    pub fn for_worker(&self, host: &Host, node: &NodeAddress, ticket: &Ticket) -> Result<Secret> {
        let mut join = self.for_join(host, node, ticket);
        // What a person wrote there is for those that become control planes.
        if let Some(fields) = join.as_object_mut() {
            fields.shift_remove("controlPlane");
        }
        write(&[join])
    }

    /// What `join` gets on a further control plane.
    ///
    /// # Errors
    /// Kind `Internal` for a ticket without certificate key.
    pub fn for_control_plane(&self, host: &Host, node: &NodeAddress, ticket: &Ticket) -> Result<Secret> {
        let key = ticket.certificate_key.as_ref().ok_or_else(|| {
            Failure::new(Kind::Internal, "the ticket has no key of the certificates that control planes share")
        })?;
        let mut join = self.for_join(host, node, ticket);
        let endpoint = json!({ "advertiseAddress": node.address.to_string(), "bindPort": self.bind_port() });
        fill(&mut join, &["controlPlane", "localAPIEndpoint"], endpoint);
        fill(&mut join, &["controlPlane", "certificateKey"], json!(key.expose()));
        write(&[join])
    }

    /// What a member, or a host that will be one, is brought to.
    ///
    /// # Errors
    /// As the documents for joining.
    pub fn for_refresh(&self, inventory: &Inventory, host: &Host, node: &NodeAddress) -> Result<RefreshOrder> {
        // Nothing of it is used: it stands where a JoinConfiguration must have something.
        let nobody = Ticket {
            endpoint: format!("127.0.0.1:{}", self.bind_port()),
            token: Secret::new("abcdef.0123456789abcdef"),
            ca_hashes: vec![format!("sha256:{}", "0".repeat(64))],
            certificate_key: Some(Secret::new("0".repeat(64))),
        };
        let own = match host.role {
            Role::ControlPlane => self.for_control_plane(host, node, &nobody)?,
            Role::Worker => self.for_worker(host, node, &nobody)?,
        };
        let mut init = json!({ "apiVersion": KUBEADM, "kind": "InitConfiguration" });
        let endpoint = json!({ "advertiseAddress": node.address.to_string(), "bindPort": self.bind_port() });
        fill(&mut init, &["localAPIEndpoint"], endpoint);
        fill(&mut init, &["nodeRegistration", "name"], json!(host.name));
        let mut documents = vec![init, self.cluster(inventory)];
        documents.extend(self.by_kind.get("KubeletConfiguration").cloned());
        Ok(RefreshOrder { node: own, cluster: write(&documents)? })
    }

    fn cluster(&self, inventory: &Inventory) -> Value {
        let mut cluster = self.document("ClusterConfiguration", KUBEADM);
        for shared in shared(inventory) {
            fill(&mut cluster, shared.path, shared.value);
        }
        cluster
    }

    fn for_join(&self, host: &Host, node: &NodeAddress, ticket: &Ticket) -> Value {
        let mut join = self.document("JoinConfiguration", KUBEADM);
        let discovery = json!({
            "token": ticket.token.expose(),
            "apiServerEndpoint": ticket.endpoint,
            "caCertHashes": ticket.ca_hashes,
        });
        fill(&mut join, &["discovery", "bootstrapToken"], discovery);
        register(&mut join, host, node);
        join
    }

    fn document(&self, kind: &str, version: &str) -> Value {
        self.by_kind.get(kind).cloned().unwrap_or_else(|| json!({ "apiVersion": version, "kind": kind }))
    }
}

/// The address of a node, and whether the kubelet must be told because it would choose another by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address.
    pub address: IpAddr,
    /// Whether the host's default route leads from another address.
    pub must_be_told: bool,
}

fn shared(inventory: &Inventory) -> Vec<Shared> {
    let cluster = &inventory.cluster;
    let mut shared = vec![
        Shared {
            path: &["kubernetesVersion"],
            inventory_key: "cluster.kubernetes",
            value: json!(format!("v{}", cluster.kubernetes)),
        },
        Shared { path: &["clusterName"], inventory_key: "cluster.name", value: json!(cluster.name) },
        Shared {
            path: &["networking", "podSubnet"],
            inventory_key: "cluster.network.pods",
            value: json!(cluster.network.pods.to_string()),
        },
        Shared {
            path: &["networking", "serviceSubnet"],
            inventory_key: "cluster.network.services",
            value: json!(cluster.network.services.to_string()),
        },
        Shared {
            path: &["networking", "dnsDomain"],
            inventory_key: "cluster.network.domain",
            value: json!(cluster.network.domain),
        },
    ];
    if let Some(endpoint) = &cluster.endpoint {
        shared.push(Shared {
            path: &["controlPlaneEndpoint"],
            inventory_key: "cluster.endpoint",
            value: json!(endpoint.address()),
        });
    }
    shared
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Sets a field, making the objects above it.
fn fill(document: &mut Value, path: &[&str], value: Value) {
    let Some((last, above)) = path.split_last() else { return };
    let mut place = document;
    for key in above {
        if !place.get(*key).is_some_and(Value::is_object) {
            place[*key] = json!({});
        }
        place = &mut place[*key];
    }
    place[*last] = value;
}

/// The host's part of `nodeRegistration`: name, taints, node-ip.
fn register(document: &mut Value, host: &Host, node: &NodeAddress) {
    fill(document, &["nodeRegistration", "name"], json!(host.name));
    if let Some(taints) = &host.taints {
        fill(document, &["nodeRegistration", "taints"], taints.iter().map(taint).collect());
    }
    if node.must_be_told {
        let registration = &mut document["nodeRegistration"];
        if !registration.get("kubeletExtraArgs").is_some_and(Value::is_array) {
            registration["kubeletExtraArgs"] = json!([]);
        }
        let named = |argument: &Value| argument.get("name").and_then(Value::as_str) == Some("node-ip");
        if let Some(arguments) = registration["kubeletExtraArgs"].as_array_mut()
            && !arguments.iter().any(named)
        {
            arguments.push(json!({ "name": "node-ip", "value": node.address.to_string() }));
        }
    }
}

fn taint(taint: &Taint) -> Value {
    json!({ "key": taint.key, "value": taint.value, "effect": taint.effect })
}

fn write(documents: &[Value]) -> Result<Secret> {
    let texts: Vec<String> = documents.iter().map(yaml::to_text).collect();
    Ok(Secret::new(texts.join("---\n")))
}

#[cfg(test)]
mod tests;
