//! What a joining node reads of its cluster (kubeadm.md section 10.2).

use std::time::Duration;

use semver::Version;
use serde_json::Value;

use crate::api::wait::{Look, Wait};
use crate::api::{Client, Problem};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::{ClusterConfiguration, documents};
use crate::kubernetes::version::{self, Release};

/// The cluster's own settings: values here are never our defaults.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) cluster: ClusterConfiguration,
    pub(super) version: Version,
    pub(super) release: &'static Release,
    /// The KubeletConfiguration of all nodes, with fields that we do not know.
    pub(super) kubelet: Value,
}

/// Reads kubeadm-config and kubelet-config, both at once.
///
/// # Errors
/// Kind `Cluster` when they are not given or cannot be read; `Configuration` for a version we cannot make nodes of.
pub(super) async fn read(client: &Client, limit: Duration, events: &Events) -> Result<Settings> {
    let (cluster, kubelet) = tokio::try_join!(
        text(client, "kubeadm-config", "ClusterConfiguration", limit),
        text(client, "kubelet-config", "kubelet", limit)
    )?;
    let (mut cluster, warnings) = ClusterConfiguration::from_stored(&cluster)?;
    for warning in warnings {
        events.warn(format!("kubeadm-config: {warning}"));
    }
    let version = version::parse(&cluster.kubernetes_version)?;
    let release = Release::of(&version).map_err(|_| unsupported(&version))?;
    // Fields that an older tool left out have the defaults of kubeadm; nothing of it is written back.
    cluster.complete(6443)?;
    let unreadable = || Failure::new(Kind::Cluster, "the ConfigMap kube-system/kubelet-config cannot be read");
    let mut read = documents(&kubelet).map_err(|failure| unreadable().because(&failure))?;
    if read.len() != 1 || !read[0].is_object() {
        return Err(unreadable().caused_by("it does not hold one KubeletConfiguration"));
    }
    Ok(Settings { release, version, cluster, kubelet: read.remove(0) })
}

fn unsupported(version: &Version) -> Failure {
    let range = version::supported();
    let sentence = format!("the cluster runs Kubernetes {version}, and nodes can be made for {range}");
    let is_old = (version.major, version.minor) < (1, version::RELEASES[0].minor);
    Failure::new(Kind::Configuration, sentence).advise(match is_old {
        true => format!("upgrade the cluster to one of {range} first, or join with the kubeadm of its minor"),
        false => "take a newer clusterctl, or join with the kubeadm of the cluster's minor".to_owned(),
    })
}

/// A text of a ConfigMap in kube-system. The rights of a token reach all API servers a moment after it is made, and an
/// API server may be restarting: both are waited for.
async fn text(client: &Client, name: &str, key: &str, limit: Duration) -> Result<String> {
    let object = format!("ConfigMap kube-system/{name}");
    let wait = Wait::new(format!("{} and its {object}", client.server()), "answer", limit);
    wait.until(async || match client.get("ConfigMap", Some("kube-system"), name).await {
        Ok(Some(map)) => match map["data"][key].as_str() {
            Some(text) => Ok(Look::There(text.to_owned())),
            None => Err(Failure::new(Kind::Cluster, format!("the {object} has no key {key}"))),
        },
        Ok(None) => Ok(Look::NotYet(format!("there is no {object}"))),
        Err(problem @ Problem::Unreadable(_)) => Err(problem.failure(format!("the {object} cannot be read"))),
        Err(problem) if problem.is_unauthorized() => Err(token_refused(problem)),
        Err(problem) => Ok(Look::NotYet(problem.to_string())),
    })
    .await
}

/// The failure of whatever is asked first with a token that the API server does not accept.
pub(super) fn token_refused(problem: Problem) -> Failure {
    problem
        .failure("the API server does not accept the bootstrap token")
        .advise("run `clusterctl up` again for a fresh token")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::json;

    use super::read;
    use crate::api::fake::FakeApi;
    use crate::event::Events;

    fn map(name: &str, key: &str, text: &str) -> serde_json::Value {
        json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"}, "data": {key: text}})
    }

    #[tokio::test]
    async fn the_clusters_settings_are_read_with_what_we_do_not_know() {
        let api = FakeApi::start().await;
        let stored = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
            certificatesDir: /etc/kubernetes/certs\nfeatureGates: {Unknown: true}\n";
        api.put(map("kubeadm-config", "ClusterConfiguration", stored));
        api.put(map("kubelet-config", "kubelet", "kind: KubeletConfiguration\nfromTheFuture: {a: 1}\n"));
        api.refuse_next(2, 403, "Forbidden");
        let settings = read(&api.client().await, Duration::from_secs(5), &Events::nowhere()).await.unwrap();
        assert_eq!(settings.cluster.certificates_dir, "/etc/kubernetes/certs");
        assert_eq!(settings.kubelet["fromTheFuture"]["a"], 1);
        assert_eq!(settings.version.to_string(), "1.36.3");
    }

    #[rstest]
    #[case("v1.29.3", "upgrade the cluster to one of 1.33 to 1.37 first")]
    #[case("v1.99.0", "take a newer clusterctl")]
    #[tokio::test]
    async fn a_cluster_of_a_version_we_do_not_know_is_left_alone(#[case] version: &str, #[case] advice: &str) {
        let api = FakeApi::start().await;
        let stored =
            format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {version}\n");
        api.put(map("kubeadm-config", "ClusterConfiguration", &stored));
        api.put(map("kubelet-config", "kubelet", "kind: KubeletConfiguration\n"));
        let failure = read(&api.client().await, Duration::from_secs(5), &Events::nowhere()).await.unwrap_err();
        let bare = version.trim_start_matches('v');
        let sentence = format!("the cluster runs Kubernetes {bare}, and nodes can be made for 1.33 to 1.37");
        assert_eq!(failure.sentence, sentence);
        assert!(failure.advice.unwrap().starts_with(advice));
    }

    #[tokio::test]
    async fn a_token_that_is_not_accepted_fails_at_once() {
        let api = FakeApi::start().await;
        api.refuse_next(2, 401, "Unauthorized");
        let failure = read(&api.client().await, Duration::from_secs(60), &Events::nowhere()).await.unwrap_err();
        assert_eq!(failure.sentence, "the API server does not accept the bootstrap token");
    }
}
