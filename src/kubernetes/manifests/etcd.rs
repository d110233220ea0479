//! etcd (kubeadm.md section 4.5).

use serde_json::json;

use super::arguments::{command_line, given};
use super::pod::{Component, Probes, environment};
use super::volumes::Volume;
use super::{Manifest, ManifestOrder};
use crate::failure::Result;
use crate::kubernetes::configuration::join_host_port;
use crate::kubernetes::version::EtcdFlags;

/// A member as `--initial-cluster` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its name; that of its node, or its hexadecimal identifier while it has none.
    pub name: String,
    /// The URL its peers use: `https://10.0.0.11:2380`.
    pub peer_url: String,
}

/// Port of etcd's metrics and health.
const METRICS_PORT: u16 = 2381;

/// An etcd member: the first of its cluster, or one that joins those in `order.etcd_members`. Not for external etcd.
///
/// # Errors
/// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not supported.
pub fn etcd(order: &ManifestOrder<'_>) -> Result<Manifest> {
    let cluster = order.cluster;
    let settings = cluster.etcd.local.clone().unwrap_or_default();
    let data_directory = if settings.data_dir.is_empty() { "/var/lib/etcd" } else { &settings.data_dir };
    let mut image = order.images()?.etcd;
    if let (Some(tag), true) = (order.etcd_tag, settings.image_tag.is_empty())
        && let Some((repository, _)) = image.rsplit_once(':')
    {
        image = format!("{repository}:{tag}");
    }
    let arguments = arguments(order, data_directory, &image)?;
    let arguments = command_line(&arguments, &settings.extra_args, order.argument_order()?);
    let component = Component {
        name: "etcd",
        image,
        command: [vec!["etcd".to_owned()], arguments].concat(),
        requests: json!({ "cpu": "100m", "memory": "100Mi" }),
        volumes: vec![
            Volume::same("etcd-data", data_directory, false, "DirectoryOrCreate"),
            // Joined without a look at a slash at the end, as upstream does.
            Volume::same("etcd-certs", &format!("{}/etcd", cluster.certificates_dir), false, "DirectoryOrCreate"),
        ],
        environment: environment(&[], &settings.extra_envs),
        annotation: Some((
            "kubeadm.kubernetes.io/etcd.advertise-client-urls",
            url("https", &order.local.advertise_address, 2379),
        )),
        probes: probes(order, given(&settings.extra_args, "listen-metrics-urls")),
    };
    component.manifest(order)
}

fn url(scheme: &str, host: &str, port: u16) -> String {
    format!("{scheme}://{}", join_host_port(host, port))
}

fn loopback(order: &ManifestOrder<'_>) -> &'static str {
    if order.local.is_ipv6() { "::1" } else { "127.0.0.1" }
}

fn arguments(order: &ManifestOrder<'_>, data_directory: &str, image: &str) -> Result<Vec<(&'static str, String)>> {
    let address = order.local.advertise_address.as_str();
    let (client, peer) = (url("https", address, 2379), url("https", address, 2380));
    let initial_cluster = if order.etcd_members.is_empty() {
        format!("{}={peer}", order.node_name)
    } else {
        let members = order.etcd_members.iter().map(|member| format!("{}={}", member.name, member.peer_url));
        members.collect::<Vec<_>>().join(",")
    };
    let mut arguments = vec![
        ("advertise-client-urls", client.clone()),
        ("cert-file", order.pki("etcd/server.crt")),
        ("client-cert-auth", "true".into()),
        ("data-dir", data_directory.to_owned()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", initial_cluster),
        ("key-file", order.pki("etcd/server.key")),
        ("listen-client-urls", format!("{},{client}", url("https", loopback(order), 2379))),
        ("listen-metrics-urls", url("http", loopback(order), METRICS_PORT)),
        ("listen-peer-urls", peer),
        ("name", order.node_name.to_owned()),
        ("peer-cert-file", order.pki("etcd/peer.crt")),
        ("peer-client-cert-auth", "true".into()),
        ("peer-key-file", order.pki("etcd/peer.key")),
        ("peer-trusted-ca-file", order.pki("etcd/ca.crt")),
        ("snapshot-count", "10000".into()),
        ("trusted-ca-file", order.pki("etcd/ca.crt")),
    ];
    if !order.etcd_members.is_empty() {
        arguments.push(("initial-cluster-state", "existing".into()));
    }
    let old = match order.release()?.etcd_flags {
        EtcdFlags::Experimental => true,
        EtcdFlags::ByImage => is_before_3_6(image),
        EtcdFlags::New => false,
    };
    arguments.extend(if old {
        [
            ("experimental-initial-corrupt-check", "true".to_owned()),
            ("experimental-watch-progress-notify-interval", "5s".into()),
        ]
    } else {
        [("feature-gates", "InitialCorruptCheck=true".into()), ("watch-progress-notify-interval", "5s".into())]
    });
    Ok(arguments)
}

/// Whether the tag of an image says etcd older than 3.6; a tag that is no version is taken to be newer.
fn is_before_3_6(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let mut numbers = tag.trim_start_matches('v').split(['.', '-']).map(str::parse::<u64>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (3, 6))
}

/// The probes follow the first URL of `--listen-metrics-urls`, if a person gave it.
fn probes(order: &ManifestOrder<'_>, metrics_urls: Option<&str>) -> Probes {
    let mut probes = Probes {
        scheme: "HTTP",
        host: loopback(order).to_owned(),
        port: METRICS_PORT,
        startup: "/readyz",
        liveness: "/livez",
        readiness: Some("/readyz"),
    };
    let first = metrics_urls.and_then(|urls| urls.split(',').next()).and_then(|url| url.split_once("://"));
    if let Some((scheme, rest)) = first {
        if scheme == "https" {
            probes.scheme = "HTTPS";
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if !host.is_empty() {
            host.clone_into(&mut probes.host);
        }
        if let Some(port) = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0) {
            probes.port = port;
        }
    }
    probes
}
