//! Phase download-certs: what all control planes share, out of the cluster onto this host (kubeadm.md sections 7.3 and
//! 10.4).

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::discovery::{Found, same_authority};
use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::configuration::ClusterConfiguration;
use crate::kubernetes::uploaded_certificates::{self as uploaded, CertificateKey, SECRET, Shared};
use crate::node::files;
use crate::node::phase::Changes;
use crate::secret::Secret;

/// How long the right to read the Secret is waited for: API servers learn of it within a second.
const RIGHTS_LIMIT: Duration = Duration::from_secs(20);

const UPLOAD: &str = "run `clusterctl up` again, or upload them on a control plane with `kubeadm init phase upload-certs \
                      --upload-certs` and use the key it prints";

/// Writes the shared files that are missing here. What is there and the same stays; what is there and differs is never
/// overwritten.
///
/// # Errors
/// Kind `Configuration` for a key that does not fit; `Cluster` when nothing was uploaded, or it has expired, and a file is
/// missing; `Preflight` for a file that differs.
pub(super) async fn download(
    host: &dyn Host,
    bootstrap: &Client,
    cluster: &ClusterConfiguration,
    key: &Secret,
    found: &Found,
    limit: Duration,
) -> Result<(Changes, ())> {
    let key = CertificateKey::parse(key)?;
    let shared = uploaded::shared(cluster);
    let Some(secret) = secret(bootstrap, limit).await? else {
        // A run that goes on where another stopped may come after they have expired.
        return match missing(host, &shared)?.first() {
            None => Ok((Vec::new(), ())),
            Some(path) => Err(absent().caused_by(format!("{path} is missing here"))),
        };
    };
    let files = uploaded::open(&secret, &key, &shared)?;
    if files.get("ca.crt").is_some_and(|ca| !same_authority(ca.expose(), &found.ca_pem)) {
        let sentence = "the uploaded certificates are those of another cluster than the one that was discovered";
        return Err(Failure::new(Kind::Cluster, sentence).advise(UPLOAD));
    }
    let mut wanted = Vec::new();
    // All are judged before one is written.
    for file in &shared {
        let (Some(content), path) = (files.get(&file.key), Path::new(&file.path)) else { continue };
        match files::text(host, path)? {
            Some(there) if there.trim() == content.expose().trim() => {}
            Some(_) => return Err(differs(file)),
            None => wanted.push((file, path, content)),
        }
    }
    let mut changes = Vec::new();
    for (file, path, content) in wanted {
        files::ensure(host, path, content.expose().as_bytes(), file.mode)?;
        changes.push(format!("{} downloaded", file.path));
    }
    Ok((changes, ()))
}

/// The shared files that are not on the host; keys of CAs are not among them, because an external CA keeps its key.
///
/// # Errors
/// Kind `Host` when the host cannot be read.
pub(super) fn missing(host: &dyn Host, shared: &[Shared]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let needed = shared.iter().filter(|file| !file.key.ends_with("ca.key") && !file.path.is_empty());
    for file in needed {
        if host.entry(Path::new(&file.path))?.is_none() {
            missing.push(file.path.clone());
        }
    }
    Ok(missing)
}

fn differs(file: &Shared) -> Failure {
    Failure::new(
        Kind::Preflight,
        format!(
            "FileAvailable-{}: it is not the one that the cluster's control planes share",
            file.path.replace('/', "-")
        ),
    )
    .advise(format!("remove {} if the cluster it belongs to is gone, or reset the host", file.path))
}

fn absent() -> Failure {
    Failure::new(Kind::Cluster, format!("there are no uploaded certificates (Secret kube-system/{SECRET})"))
        .caused_by("they expire 2 hours after they were uploaded")
        .advise(UPLOAD)
}

/// The Secret, `None` when there is none.
async fn secret(bootstrap: &Client, limit: Duration) -> Result<Option<Value>> {
    let object = format!("Secret kube-system/{SECRET}");
    let wait = Wait::new(format!("{} and its {object}", bootstrap.server()), "answer", limit);
    let began = std::time::Instant::now();
    wait.until(async || match bootstrap.get("Secret", Some("kube-system"), SECRET).await {
        Ok(secret) => Ok(Look::There(secret)),
        // Whoever never uploaded them never gave the right to read them.
        Err(problem) if problem.is_forbidden() && began.elapsed() > RIGHTS_LIMIT => {
            Err(absent().caused_by(problem.to_string()))
        }
        Err(problem) if problem.is_unauthorized() => Err(super::cluster::token_refused(problem)),
        Err(problem) => Ok(Look::NotYet(problem.to_string())),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use super::{Found, download};
    use crate::api::fake::FakeApi;
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::ClusterConfiguration;
    use crate::kubernetes::uploaded_certificates::{CertificateKey, secret, shared};
    use crate::secret::Secret;

    const LIMIT: Duration = Duration::from_secs(2);

    fn cluster() -> ClusterConfiguration {
        ClusterConfiguration { certificates_dir: "/etc/kubernetes/pki".into(), ..Default::default() }
    }

    fn key(digit: &str) -> Secret {
        Secret::new(digit.repeat(64))
    }

    fn content(name: &str) -> String {
        format!("-----BEGIN {name}-----\n")
    }

    fn found(name: &str) -> Found {
        Found { server: "https://10.0.0.11:6443".into(), ca_pem: content(name), credentials: None }
    }

    async fn uploaded() -> FakeApi {
        let api = FakeApi::start().await;
        let files: BTreeMap<String, Option<Secret>> = shared(&cluster())
            .into_iter()
            .map(|file| (file.key.clone(), Some(Secret::new(content(&file.key)))))
            .collect();
        api.put(secret(&files, &CertificateKey::parse(&key("a")).unwrap(), ("owner", "1")).unwrap());
        api
    }

    #[tokio::test]
    async fn what_is_missing_is_written_once() {
        let (api, host) = (uploaded().await, FakeHost::new().file("/etc/kubernetes/pki/ca.crt", content("ca.crt")));
        let client = api.client().await;
        let (changes, ()) = download(&host, &client, &cluster(), &key("a"), &found("ca.crt"), LIMIT).await.unwrap();
        assert_eq!(changes.len(), 7);
        assert_eq!(host.text("/etc/kubernetes/pki/etcd/ca.key"), Some(content("etcd-ca.key")));
        assert_eq!(host.listing()[Path::new("/etc/kubernetes/pki/etcd/ca.key")].1, 0o600);
        let (changes, ()) = download(&host, &client, &cluster(), &key("a"), &found("ca.crt"), LIMIT).await.unwrap();
        assert!(changes.is_empty());
        // All is there: it no longer matters that they have expired.
        let client = FakeApi::start().await.client().await;
        assert!(download(&host, &client, &cluster(), &key("a"), &found("ca.crt"), LIMIT).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_written_by_halves_and_nothing_overwritten() {
        let (api, host) = (uploaded().await, FakeHost::new().file("/etc/kubernetes/pki/sa.key", "MINE"));
        let client = api.client().await;
        let before = host.listing();
        let refused = download(&host, &client, &cluster(), &key("a"), &found("ca.crt"), LIMIT).await.unwrap_err();
        assert!(refused.sentence.starts_with("FileAvailable--etc-kubernetes-pki-sa.key: "), "{refused}");
        let refused = download(&host, &client, &cluster(), &key("b"), &found("ca.crt"), LIMIT).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Configuration);
        let refused = download(&host, &client, &cluster(), &key("a"), &found("other"), LIMIT).await.unwrap_err();
        assert!(refused.sentence.contains("another cluster"), "{refused}");
        assert_eq!(host.listing(), before);
    }

    #[tokio::test]
    async fn certificates_that_have_expired_are_a_sentence_with_advice() {
        let client = FakeApi::start().await.client().await;
        let refused = download(&FakeHost::new(), &client, &cluster(), &key("a"), &found("ca.crt"), LIMIT).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.sentence, "there are no uploaded certificates (Secret kube-system/kubeadm-certs)");
        assert!(refused.advice.unwrap().contains("upload-certs"));
    }
}
