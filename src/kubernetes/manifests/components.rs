//! kube-apiserver, kube-controller-manager, kube-scheduler (kubeadm.md sections 4.2 to 4.4).

use serde_json::json;

use super::arguments::{command_line, given};
use super::pod::{Component, Probes, environment, probe_host};
use super::volumes::{self, Volume};
use super::{Manifest, ManifestOrder};
use crate::failure::Result;

const CONTROLLER_MANAGER_CONF: &str = "/etc/kubernetes/controller-manager.conf";
const SCHEDULER_CONF: &str = "/etc/kubernetes/scheduler.conf";
const FLEXVOLUME_DIRECTORY: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// The API server.
///
/// # Errors
/// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not supported.
pub fn api_server(order: &ManifestOrder<'_>) -> Result<Manifest> {
    let settings = &order.cluster.api_server;
    let arguments = api_server_arguments(order);
    let arguments = command_line(&arguments, &settings.extra_args, order.argument_order()?);
    let mut volumes = volumes::certificates(order);
    volumes.extend(volumes::external_etcd(order));
    let component = Component {
        name: "kube-apiserver",
        image: order.images()?.api_server,
        command: [vec!["kube-apiserver".to_owned()], arguments].concat(),
        requests: json!({ "cpu": "250m" }),
        volumes: volumes::merged(volumes, &settings.extra_volumes),
        environment: environment(order.proxy_environment, &settings.extra_envs),
        annotation: Some((
            "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint",
            order.local.host_and_port(),
        )),
        probes: Probes {
            scheme: "HTTPS",
            host: probe_host(&order.local.advertise_address),
            port: order.local.bind_port,
            startup: "/livez",
            liveness: "/livez",
            readiness: Some("/readyz"),
        },
    };
    component.manifest(order)
}

fn api_server_arguments(order: &ManifestOrder<'_>) -> Vec<(&'static str, String)> {
    let (cluster, local) = (order.cluster, order.local);
    let mut arguments = vec![
        ("advertise-address", local.advertise_address.clone()),
        ("allow-privileged", "true".into()),
        ("client-ca-file", order.pki("ca.crt")),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("enable-bootstrap-token-auth", "true".into()),
        ("kubelet-client-certificate", order.pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", order.pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname".into()),
        ("proxy-client-cert-file", order.pki("front-proxy-client.crt")),
        ("proxy-client-key-file", order.pki("front-proxy-client.key")),
        ("requestheader-allowed-names", "front-proxy-client".into()),
        ("requestheader-client-ca-file", order.pki("front-proxy-ca.crt")),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("secure-port", local.bind_port.to_string()),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.networking.dns_domain)),
        ("service-account-key-file", order.pki("sa.pub")),
        ("service-account-signing-key-file", order.pki("sa.key")),
        ("service-cluster-ip-range", cluster.networking.service_subnet.clone()),
        ("tls-cert-file", order.pki("apiserver.crt")),
        ("tls-private-key-file", order.pki("apiserver.key")),
    ];
    if given(&cluster.api_server.extra_args, "authorization-config").is_none() {
        arguments.push(("authorization-mode", "Node,RBAC".into()));
    }
    match &cluster.etcd.external {
        Some(external) => {
            arguments.push(("etcd-servers", external.endpoints.join(",")));
            if !external.ca_file.is_empty() {
                arguments.push(("etcd-cafile", external.ca_file.clone()));
            }
            if !external.cert_file.is_empty() && !external.key_file.is_empty() {
                arguments.push(("etcd-certfile", external.cert_file.clone()));
                arguments.push(("etcd-keyfile", external.key_file.clone()));
            }
        }
        None => {
            let own = cluster.etcd.local.as_ref().and_then(|etcd| given(&etcd.extra_args, "advertise-client-urls"));
            let loopback = if local.is_ipv6() { "https://[::1]:2379" } else { "https://127.0.0.1:2379" };
            arguments.push(("etcd-servers", own.unwrap_or(loopback).to_owned()));
            arguments.push(("etcd-cafile", order.pki("etcd/ca.crt")));
            arguments.push(("etcd-certfile", order.pki("apiserver-etcd-client.crt")));
            arguments.push(("etcd-keyfile", order.pki("apiserver-etcd-client.key")));
        }
    }
    arguments
}

/// The controller manager.
///
/// # Errors
/// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not supported.
pub fn controller_manager(order: &ManifestOrder<'_>) -> Result<Manifest> {
    let (cluster, release) = (order.cluster, order.release()?);
    let settings = &cluster.controller_manager;
    // Without the CA's key the signing controller must not start: it is given nothing to sign with.
    let signing = |name: &str| if order.external_ca { String::new() } else { order.pki(name) };
    let mut arguments = vec![
        ("authentication-kubeconfig", CONTROLLER_MANAGER_CONF.to_owned()),
        ("authorization-kubeconfig", CONTROLLER_MANAGER_CONF.into()),
        ("bind-address", "127.0.0.1".into()),
        ("client-ca-file", order.pki("ca.crt")),
        ("cluster-name", cluster.cluster_name.clone()),
        ("cluster-signing-cert-file", signing("ca.crt")),
        ("cluster-signing-key-file", signing("ca.key")),
        ("controllers", "*,bootstrapsigner,tokencleaner".into()),
        ("kubeconfig", CONTROLLER_MANAGER_CONF.into()),
        ("leader-elect", "true".into()),
        ("requestheader-client-ca-file", order.pki("front-proxy-ca.crt")),
        ("root-ca-file", order.pki("ca.crt")),
        ("service-account-private-key-file", order.pki("sa.key")),
        ("use-service-account-credentials", "true".into()),
    ];
    let networking = &cluster.networking;
    if !networking.pod_subnet.is_empty() {
        arguments.push(("allocate-node-cidrs", "true".into()));
        arguments.push(("cluster-cidr", networking.pod_subnet.clone()));
        arguments.push(("service-cluster-ip-range", networking.service_subnet.clone()));
    }
    let mut volumes = volumes::certificates(order);
    volumes.push(Volume::same("kubeconfig", CONTROLLER_MANAGER_CONF, true, "FileOrCreate"));
    if release.flexvolume_mount {
        let path = given(&settings.extra_args, "flex-volume-plugin-dir").unwrap_or(FLEXVOLUME_DIRECTORY);
        volumes.push(Volume::same("flexvolume-dir", path, false, "DirectoryOrCreate"));
    }
    let arguments = command_line(&arguments, &settings.extra_args, order.argument_order()?);
    let component = Component {
        name: "kube-controller-manager",
        image: order.images()?.controller_manager,
        command: [vec!["kube-controller-manager".to_owned()], arguments].concat(),
        requests: json!({ "cpu": "200m" }),
        volumes: volumes::merged(volumes, &settings.extra_volumes),
        environment: environment(order.proxy_environment, &settings.extra_envs),
        annotation: None,
        probes: Probes {
            scheme: "HTTPS",
            host: probe_host(given(&settings.extra_args, "bind-address").unwrap_or("127.0.0.1")),
            port: 10257,
            startup: "/healthz",
            liveness: "/healthz",
            readiness: None,
        },
    };
    component.manifest(order)
}

/// The scheduler.
///
/// # Errors
/// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not supported.
pub fn scheduler(order: &ManifestOrder<'_>) -> Result<Manifest> {
    let settings = &order.cluster.scheduler;
    let arguments = [
        ("authentication-kubeconfig", SCHEDULER_CONF.to_owned()),
        ("authorization-kubeconfig", SCHEDULER_CONF.into()),
        ("bind-address", "127.0.0.1".into()),
        ("kubeconfig", SCHEDULER_CONF.into()),
        ("leader-elect", "true".into()),
    ];
    let arguments = command_line(&arguments, &settings.extra_args, order.argument_order()?);
    let volumes = vec![Volume::same("kubeconfig", SCHEDULER_CONF, true, "FileOrCreate")];
    let component = Component {
        name: "kube-scheduler",
        image: order.images()?.scheduler,
        command: [vec!["kube-scheduler".to_owned()], arguments].concat(),
        requests: json!({ "cpu": "100m" }),
        volumes: volumes::merged(volumes, &settings.extra_volumes),
        environment: environment(order.proxy_environment, &settings.extra_envs),
        annotation: None,
        probes: Probes {
            scheme: "HTTPS",
            host: probe_host(given(&settings.extra_args, "bind-address").unwrap_or("127.0.0.1")),
            port: 10259,
            startup: "/livez",
            liveness: "/livez",
            readiness: Some("/readyz"),
        },
    };
    component.manifest(order)
}
