//! What Kubernetes is on a host already.

use std::path::Path;

use crate::fact::{EtcdOrigin, KubernetesState};
use crate::failure::Result;
use crate::host::{Host, journal};

/// Everything that files tell; the kubelet's version comes from itself.
pub(super) fn state(host: &dyn Host) -> Result<KubernetesState> {
    let there = |path: &str| -> Result<bool> { Ok(host.entry(Path::new(path))?.is_some()) };
    let certificate = host.read(Path::new("/etc/kubernetes/pki/ca.crt"))?;
    let kubelet_conf = super::text(host, "/etc/kubernetes/kubelet.conf")?;
    Ok(KubernetesState {
        manifests: host.list(Path::new("/etc/kubernetes/manifests"))?,
        kubelet_conf: !kubelet_conf.is_empty(),
        bootstrap_kubelet_conf: there("/etc/kubernetes/bootstrap-kubelet.conf")?,
        admin_conf: there("/etc/kubernetes/admin.conf")?,
        admin_server: server(&super::text(host, "/etc/kubernetes/admin.conf")?),
        etcd: etcd(&super::text(host, "/etc/kubernetes/manifests/etcd.yaml")?),
        serves: false,
        ca_hash: certificate.as_deref().and_then(super::public_key_hash),
        ca_key: there("/etc/kubernetes/pki/ca.key")?,
        server: server(&kubelet_conf),
        api_server_version: tag(&super::text(host, "/etc/kubernetes/manifests/kube-apiserver.yaml")?, "kube-apiserver"),
        kubelet_version: None,
        etcd_data: !host.list(Path::new("/var/lib/etcd"))?.is_empty(),
        journal_cluster: journal::cluster_of(host)?,
    })
}

/// The first `server:` of a kubeconfig, in either style of YAML.
fn server(kubeconfig: &str) -> Option<String> {
    let value = kubeconfig.split_once("server:")?.1.trim_start();
    let end = value.find(['\n', '\r', ' ', ',', '}']).unwrap_or(value.len());
    Some(value[..end].trim_matches(['"', '\'']).to_owned())
}

/// The version in the tag of a component's image, in whose manifest it stands.
fn tag(manifest: &str, component: &str) -> Option<String> {
    let tag = manifest.split_once(&format!("/{component}:v"))?.1;
    let end = tag.find(|character: char| !character.is_ascii_alphanumeric() && !".-_".contains(character));
    Some(tag[..end.unwrap_or(tag.len())].to_owned())
}

/// What the manifest of etcd says of its origin.
fn etcd(manifest: &str) -> Option<EtcdOrigin> {
    let joined = manifest.contains("--initial-cluster-state=existing");
    (!manifest.trim().is_empty()).then_some(if joined { EtcdOrigin::Joined } else { EtcdOrigin::Made })
}

/// `Kubernetes v1.36.3` without the words.
pub(super) fn kubelet_version(text: &str) -> Option<String> {
    text.trim().strip_prefix("Kubernetes v").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{EtcdOrigin, etcd, kubelet_version, server, tag};

    #[rstest]
    #[case("    image: registry.k8s.io/kube-apiserver:v1.36.3\n    name: kube-apiserver\n", Some("1.36.3"))]
    #[case("    image: \"mine:5000/k8s/kube-apiserver:v1.37.0-rc.1\"\n", Some("1.37.0-rc.1"))]
    #[case("    image: registry.k8s.io/kube-apiserver@sha256:f00\n", None)]
    #[case("", None)]
    fn the_version_of_an_api_server(#[case] manifest: &str, #[case] version: Option<&str>) {
        assert_eq!(tag(manifest, "kube-apiserver").as_deref(), version);
    }

    #[test]
    fn the_origin_of_etcd() {
        assert_eq!(etcd(""), None);
        assert_eq!(etcd("    - --initial-cluster=cp1=https://10.0.0.11:2380\n"), Some(EtcdOrigin::Made));
        assert_eq!(etcd("    - --initial-cluster-state=existing\n"), Some(EtcdOrigin::Joined));
    }

    #[test]
    fn the_server_of_a_kubeconfig() {
        let text = "apiVersion: v1\nclusters:\n- cluster:\n    server: https://10.0.0.11:6443\n  name: demo\n";
        assert_eq!(server(text).as_deref(), Some("https://10.0.0.11:6443"));
        assert_eq!(server("- cluster: {server: \"https://cp:6443\", x: y}").as_deref(), Some("https://cp:6443"));
        assert_eq!(server("kind: Config\n"), None);
    }

    #[test]
    fn the_version_of_a_kubelet() {
        assert_eq!(kubelet_version("Kubernetes v1.36.3\n").as_deref(), Some("1.36.3"));
        assert_eq!(kubelet_version("error"), None);
    }
}
