//! Static pods that are replaced: the kubelet takes a changed manifest a moment after it is written, and until then the
//! old pod answers as if it were the new one. What the API shows of a static pod tells which of the two runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::diagnosis;
use crate::api::wait::{Look, Wait};
use crate::api::{Client, Problem};
use crate::failure::Result;
use crate::host::Host;

/// The annotation by which the kubelet marks of which content of the manifest a pod is.
const HASH: &str = "/metadata/annotations/kubernetes.io~1config.hash";

/// Components of this node and the hash of the manifest that each runs by.
pub(super) type Generation = BTreeMap<String, String>;

/// What runs on a node now.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn generation(client: &Client, node: &str) -> Result<Generation, Problem> {
    let pods = client.list("Pod", Some("kube-system"), "tier=control-plane").await?;
    Ok(pods.iter().filter_map(|pod| component(pod, node)).collect())
}

/// Component and hash of a static pod of this node that runs.
fn component(pod: &Value, node: &str) -> Option<(String, String)> {
    let hash = pod.pointer(HASH)?.as_str()?;
    let name = pod["metadata"]["name"].as_str()?.strip_suffix(node)?.strip_suffix('-')?;
    (pod["status"]["phase"] == "Running").then(|| (name.to_owned(), hash.to_owned()))
}

/// Names of the components whose manifests these changes wrote.
pub(super) fn written(changes: &[String]) -> Vec<String> {
    let path = |change: &String| change.strip_suffix(" written").map(str::to_owned);
    let name = |path: String| Some(Path::new(&path).file_stem()?.to_string_lossy().into_owned());
    changes.iter().filter_map(path).filter_map(name).collect()
}

/// Waits until these components run by other manifests than before. One that ends again and again will not, and while the
/// API server or its etcd does, nobody can say of the others whether they do.
///
/// # Errors
/// Kind `Cluster`, naming the components that do not, with their last lines.
pub(super) async fn replaced(
    host: &dyn Host,
    client: &Client,
    node: &str,
    components: &[String],
    before: &Generation,
    limit: Duration,
) -> Result<()> {
    let wait = Wait::new(format!("the changed static pods of {node}"), "start anew", limit);
    let started = wait.until(async || {
        let now = match generation(client, node).await {
            Ok(now) => now,
            Err(problem) => return Ok(Look::NotYet(problem.to_string())),
        };
        let old = outdated(components, before, &now);
        Ok(if old.is_empty() { Look::There(()) } else { Look::NotYet(format!("waiting for {}", old.join(", "))) })
    });
    let mut looked_at = vec!["kube-apiserver", "etcd"];
    looked_at.extend(components.iter().map(String::as_str).filter(|name| !["kube-apiserver", "etcd"].contains(name)));
    let done = tokio::select! {
        done = started => done,
        failure = diagnosis::crash_loop(host, &looked_at) => Err(failure),
    };
    match done {
        Ok(()) => Ok(()),
        Err(failure) => Err(diagnosis::explain(host, failure, &looked_at).await),
    }
}

/// Components that do not run, or run by the manifest of before.
fn outdated<'a>(components: &'a [String], before: &Generation, now: &Generation) -> Vec<&'a str> {
    let is_new = |name: &&String| now.get(*name).is_some_and(|hash| before.get(*name) != Some(hash));
    components.iter().filter(|name| !is_new(name)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::json;

    use super::{generation, outdated, replaced, written};
    use crate::api::fake::FakeApi;
    use crate::host::fake::FakeHost;

    fn pod(component: &str, hash: &str, phase: &str) -> serde_json::Value {
        json!({
            "kind": "Pod",
            "metadata": {
                "name": format!("{component}-cp1"),
                "namespace": "kube-system",
                "labels": {"tier": "control-plane"},
                "annotations": {"kubernetes.io/config.hash": hash},
            },
            "status": {"phase": phase},
        })
    }

    #[rstest]
    #[case(&[("etcd", "1")], &[("etcd", "1")], &["etcd"])]
    #[case(&[("etcd", "1")], &[("etcd", "2")], &[])]
    #[case(&[], &[("etcd", "2")], &[])]
    #[case(&[("etcd", "1")], &[], &["etcd"])]
    fn who_is_old(#[case] before: &[(&str, &str)], #[case] now: &[(&str, &str)], #[case] old: &[&str]) {
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
        };
        assert_eq!(outdated(&["etcd".to_owned()], &of(before), &of(now)), old);
    }

    #[test]
    fn components_by_the_files_that_were_written() {
        let changes =
            ["/etc/kubernetes/manifests/kube-apiserver.yaml written".to_owned(), "kubelet started".to_owned()];
        assert_eq!(written(&changes), ["kube-apiserver"]);
    }

    #[tokio::test]
    async fn a_pod_that_was_replaced_is_seen() {
        let api = FakeApi::start().await;
        api.put(pod("etcd", "1", "Running"));
        api.put(pod("kube-apiserver", "1", "Pending"));
        let client = api.client().await;
        let before = generation(&client, "cp1").await.unwrap();
        assert_eq!(before.len(), 1);
        let components = ["etcd".to_owned()];
        let log = "/var/log/pods/kube-system_etcd-cp1_1/etcd/0.log";
        let host = FakeHost::new().file(log, "").answer(
            &["tail", "-n", "200", "--", log],
            0,
            "2026-01-01 stderr F unknown flag: --x\n",
        );
        let wait =
            async |limit| replaced(&host, &client, "cp1", &components, &before, Duration::from_millis(limit)).await;
        let failure = wait(50).await.unwrap_err();
        assert!(failure.detail.is_some_and(|detail| detail.contains("last lines of etcd:\nunknown flag")));
        assert!(failure.advice.is_some_and(|advice| advice.starts_with("correct extraArgs")));
        api.put(pod("etcd", "2", "Running"));
        wait(5000).await.unwrap();
    }
}
