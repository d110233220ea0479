//! CoreDNS (kubeadm.md section 11.2).

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::kubernetes::objects::config_map;
use crate::kubernetes::rbac;

/// What CoreDNS is deployed with.
#[derive(Debug, Clone)]
pub struct Coredns<'a> {
    /// Full image reference.
    pub image: &'a str,
    /// `cluster.local`.
    pub domain: &'a str,
    /// The 10th address of the first service network.
    pub address: IpAddr,
    /// Pods; kubeadm's default is 2, and a number that is there already is kept.
    pub replicas: u32,
    /// Whether containers name their probe ports (from 1.34).
    pub named_probe_ports: bool,
}

/// The Corefile, to the letter.
fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

/// All objects of CoreDNS: Corefile, rights, ServiceAccount, Deployment, Service.
pub fn coredns(settings: &Coredns<'_>) -> Vec<Value> {
    let mut objects = vec![config_map("coredns", "kube-system", &[("Corefile", &corefile(settings.domain))])];
    objects.extend(rbac::coredns());
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": "coredns", "namespace": "kube-system" },
    }));
    objects.push(deployment(settings));
    objects.push(service(settings.address));
    objects
}

fn deployment(settings: &Coredns<'_>) -> Value {
    let mut ports = vec![
        json!({ "containerPort": 53, "name": "dns", "protocol": "UDP" }),
        json!({ "containerPort": 53, "name": "dns-tcp", "protocol": "TCP" }),
        json!({ "containerPort": 9153, "name": "metrics", "protocol": "TCP" }),
    ];
    let (mut liveness, mut readiness) = (json!(8080), json!(8181));
    if settings.named_probe_ports {
        ports.push(json!({ "containerPort": 8080, "name": "liveness-probe", "protocol": "TCP" }));
        ports.push(json!({ "containerPort": 8181, "name": "readiness-probe", "protocol": "TCP" }));
        (liveness, readiness) = (json!("liveness-probe"), json!("readiness-probe"));
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "coredns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
        "spec": {
            "replicas": settings.replicas,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "selector": { "matchLabels": { "k8s-app": "kube-dns" } },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-dns" } },
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": { "matchExpressions": [
                                { "key": "k8s-app", "operator": "In", "values": ["kube-dns"] },
                            ] },
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }] } },
                    "tolerations": [
                        { "key": "CriticalAddonsOnly", "operator": "Exists" },
                        { "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" },
                    ],
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "dnsPolicy": "Default",
                    "containers": [{
                        "name": "coredns",
                        "image": settings.image,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": {
                            "limits": { "memory": "170Mi" },
                            "requests": { "cpu": "100m", "memory": "70Mi" },
                        },
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "volumeMounts": [{ "name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true }],
                        "ports": ports,
                        "livenessProbe": {
                            "httpGet": { "path": "/health", "port": liveness, "scheme": "HTTP" },
                            "initialDelaySeconds": 60,
                            "timeoutSeconds": 5,
                            "successThreshold": 1,
                            "failureThreshold": 5,
                        },
                        "readinessProbe": { "httpGet": { "path": "/ready", "port": readiness, "scheme": "HTTP" } },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": { "name": "coredns", "items": [{ "key": "Corefile", "path": "Corefile" }] },
                    }],
                },
            },
        },
    })
}

fn service(address: IpAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
            "annotations": { "prometheus.io/port": "9153", "prometheus.io/scrape": "true" },
        },
        "spec": {
            "clusterIP": address.to_string(),
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
                { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 },
            ],
            "selector": { "k8s-app": "kube-dns" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Coredns<'static> {
        Coredns {
            image: "registry.k8s.io/coredns/coredns:v1.14.2",
            domain: "demo.example",
            address: "10.96.0.10".parse().unwrap(),
            replicas: 2,
            named_probe_ports: true,
        }
    }

    #[test]
    fn the_corefile_names_the_domain_where_kubeadm_does() {
        let objects = coredns(&settings());
        let text = objects[0]["data"]["Corefile"].as_str().unwrap().to_owned();
        assert_eq!(text.matches("demo.example").count(), 3);
        assert!(text.starts_with(".:53 {\n    errors\n    health {\n       lameduck 5s\n"));
    }

    #[test]
    fn objects_come_in_the_order_of_writing() {
        let kinds: Vec<String> =
            coredns(&settings()).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
        assert_eq!(
            kinds,
            ["ConfigMap", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "Deployment", "Service"]
        );
    }

    #[test]
    fn probe_ports_are_numbers_before_1_34() {
        let probe = |named_probe_ports| {
            let deployment = deployment(&Coredns { named_probe_ports, ..settings() });
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            (container["livenessProbe"]["httpGet"]["port"].clone(), container["ports"].as_array().unwrap().len())
        };
        assert_eq!(probe(true), (json!("liveness-probe"), 5));
        assert_eq!(probe(false), (json!(8080), 3));
    }
}
