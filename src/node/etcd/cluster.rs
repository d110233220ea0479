//! The members of a running etcd: each request goes to whichever of them answers.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::gateway::{Gateway, Member, Refusal};
use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::tag::{etcd_numbers, repository_and_tag};
use crate::node::files;
use crate::secret::Secret;

/// What kubeadm notes on etcd's pods: where clients reach the member.
const ENDPOINT_ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";

/// Labels of etcd's pods.
const LABELS: &str = "component=etcd,tier=control-plane";

/// A running etcd.
#[derive(Debug, Clone)]
pub(in crate::node) struct Cluster {
    pub(super) gateway: Gateway,
    /// Client URLs, those to be asked first in front.
    pub(super) endpoints: Vec<String>,
}

impl Cluster {
    /// An etcd behind these client URLs, asked with the client certificate in this host's certificatesDir.
    ///
    /// # Errors
    /// Kind `Configuration` when the certificates are not there or cannot be used.
    pub(in crate::node) fn new(host: &dyn Host, certificates: &Path, endpoints: Vec<String>) -> Result<Self> {
        let text = |name: &str| {
            let path = certificates.join(name);
            let unusable = |cause: &str| {
                Failure::new(Kind::Configuration, format!("etcd cannot be asked without {}", path.display()))
                    .caused_by(cause)
            };
            files::text(host, &path)?.ok_or_else(|| unusable("there is no such file"))
        };
        let key = Secret::new(text("etcd/healthcheck-client.key")?);
        let gateway =
            Gateway::new(&text("etcd/ca.crt")?, &text("etcd/healthcheck-client.crt")?, &key).map_err(|failure| {
                let folder = certificates.join("etcd");
                Failure::new(Kind::Configuration, format!("etcd cannot be asked with what is in {}", folder.display()))
                    .because(&failure)
            })?;
        Ok(Self { gateway, endpoints })
    }

    /// All members, by the first endpoint that can tell.
    pub(super) async fn members(&self) -> std::result::Result<Vec<Member>, Refusal> {
        // A learner refuses to tell, so another is asked whatever the reason.
        let mut refused = Refusal::Unreachable("no endpoint of etcd is known".to_owned());
        for endpoint in &self.endpoints {
            match self.gateway.members(endpoint).await {
                Ok(members) => return Ok(members),
                Err(refusal) => refused = refusal,
            }
        }
        Err(refused)
    }

    /// The members that the first endpoint which answers knew last; none where nobody answers. Without a quorum nobody can
    /// tell who they are now.
    pub(super) async fn remembered(&self) -> Vec<Member> {
        for endpoint in &self.endpoints {
            if let Ok(members) = self.gateway.remembered(endpoint).await {
                return members;
            }
        }
        Vec::new()
    }

    /// Has one member make a change: the first that answers.
    pub(super) async fn change<F>(&self, request: impl Fn(String) -> F) -> std::result::Result<(), Refusal>
    where
        F: Future<Output = std::result::Result<(), Refusal>>,
    {
        let mut refused = Refusal::Unreachable("no endpoint of etcd is known".to_owned());
        for endpoint in &self.endpoints {
            match request(endpoint.clone()).await {
                Err(refusal @ Refusal::Unreachable(_)) => refused = refusal,
                done => return done,
            }
        }
        Err(refused)
    }

    /// Identifiers of the members with a vote that answer and are well; all are asked at once.
    pub(super) async fn healthy(&self, members: &[Member]) -> Vec<u64> {
        let asked = members.iter().filter(|member| !member.is_learner).map(|member| async move {
            for url in &member.client_urls {
                if self.gateway.status(url).await.is_ok_and(|status| status.is_healthy()) {
                    return Some(member.id);
                }
            }
            None
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Asks the members with a vote from now on, by the URLs that they announce; whatever `last` says of goes to the end.
    pub(super) fn follow(&mut self, members: &[Member], last: impl Fn(&str) -> bool) {
        let voters = members.iter().filter(|member| !member.is_learner);
        let mut endpoints: Vec<String> = voters.flat_map(|member| member.client_urls.iter().cloned()).collect();
        if endpoints.is_empty() {
            return;
        }
        endpoints.sort_by_key(|endpoint| last(endpoint));
        self.endpoints = endpoints;
    }
}

/// What the last look for etcd's pods came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// The API server did not answer, or with an error.
    Unanswered,
    /// The administrator has no rights.
    Forbidden,
    /// There is no pod of etcd.
    NoPod,
    /// No pod says where its member is.
    NoNote,
}

impl Silence {
    /// What a person is to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Unanswered => {
                "see that etcd has its quorum: without it an API server answers nothing, so bring the other control planes \
                 back first"
            }
            Self::Forbidden => {
                "make the ClusterRoleBinding kubeadm:cluster-admins on another control plane: without it admin.conf has no \
                 rights"
            }
            Self::NoPod => {
                "see /etc/kubernetes/manifests/etcd.yaml and `systemctl status kubelet` on the other control planes: the \
                 kubelet there has not told the cluster of its etcd; `systemctl restart kubelet` has it do so"
            }
            Self::NoNote => {
                "write the annotation kubeadm.kubernetes.io/etcd.advertise-client-urls, with the client URL of the member \
                 (https://ADDRESS:2379), into /etc/kubernetes/manifests/etcd.yaml on the other control planes"
            }
        }
    }
}

/// What etcd's pods tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pods {
    /// Client URLs of the members, as kubeadm notes them on their pods.
    pub(super) endpoints: Vec<String>,
    /// Tag of the newest image among them; `None` where none has the tag of a version.
    pub(super) tag: Option<String>,
}

/// The tag of the newest etcd among pods.
fn newest_tag(pods: &[serde_json::Value]) -> Option<String> {
    let images = pods.iter().filter_map(|pod| pod["spec"]["containers"][0]["image"].as_str());
    let tags = images.filter_map(repository_and_tag).map(|(_, tag)| tag).filter(|tag| etcd_numbers(tag).is_some());
    tags.max_by_key(|tag| etcd_numbers(tag)).map(str::to_owned)
}

/// What the pods of a running etcd tell; waits until one says where its member is.
///
/// # Errors
/// Kind `Cluster` after `limit`, with what to do about the last answer.
pub(super) async fn pods(admin: &Client, limit: Duration) -> Result<Pods> {
    let wait = Wait::new(format!("{} and its etcd pods", admin.server()), "say where etcd is", limit);
    let silence = Mutex::new(Silence::Unanswered);
    let not_yet = |why: Silence, sentence: String| {
        *silence.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Ok(Look::NotYet(sentence))
    };
    let found = wait
        .until(async || {
            let pods = match admin.list("Pod", Some("kube-system"), LABELS).await {
                Ok(pods) => pods,
                Err(problem) if problem.is_forbidden() => return not_yet(Silence::Forbidden, problem.to_string()),
                Err(problem) => return not_yet(Silence::Unanswered, problem.to_string()),
            };
            let noted = |pod: &serde_json::Value| {
                pod["metadata"]["annotations"][ENDPOINT_ANNOTATION].as_str().map(str::to_owned)
            };
            let endpoints: Vec<String> = pods.iter().filter_map(noted).collect();
            match (endpoints.is_empty(), pods.len()) {
                (false, _) => Ok(Look::There(Pods { endpoints, tag: newest_tag(&pods) })),
                (true, 0) => not_yet(Silence::NoPod, "the cluster has no pod of etcd".to_owned()),
                (true, count) => {
                    not_yet(Silence::NoNote, format!("none of {count} etcd pods notes {ENDPOINT_ANNOTATION}"))
                }
            }
        })
        .await;
    let silence = silence.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.map_err(|failure| failure.advise(silence.advice()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::json;

    use super::{Pods, pods};
    use crate::api::fake::FakeApi;
    use crate::node::etcd::fake::FakeEtcd;

    #[tokio::test]
    async fn endpoints_are_those_that_pods_note() {
        let api = FakeApi::start().await;
        for (name, annotations, image) in [
            ("etcd-cp1", json!({super::ENDPOINT_ANNOTATION: "https://10.0.0.11:2379"}), "registry.k8s.io/etcd:3.6.8-0"),
            ("etcd-cp2", json!({}), "registry.k8s.io/etcd:3.7.0-0"),
            ("etcd-cp3", json!({}), "mine/etcd:latest"),
        ] {
            let metadata = json!({"name": name, "namespace": "kube-system", "annotations": annotations});
            let spec = json!({"containers": [{"name": "etcd", "image": image}]});
            api.put(json!({"kind": "Pod", "metadata": metadata, "spec": spec}));
        }
        let found = pods(&api.client().await, Duration::from_secs(1)).await.unwrap();
        let (endpoints, tag) = (vec!["https://10.0.0.11:2379".to_owned()], Some("3.7.0-0".to_owned()));
        assert_eq!(found, Pods { endpoints, tag });
    }

    #[rstest]
    #[case::no_rights(Some(403), None, "kubeadm:cluster-admins")]
    #[case::no_quorum(Some(500), None, "quorum")]
    #[case::no_pod(None, None, "systemctl restart kubelet")]
    #[case::no_note(None, Some(json!({})), "kubeadm.kubernetes.io/etcd.advertise-client-urls")]
    #[tokio::test]
    async fn whoever_does_not_hear_of_etcd_is_told_what_to_do(
        #[case] refused: Option<u16>,
        #[case] annotations: Option<serde_json::Value>,
        #[case] words: &str,
    ) {
        let api = FakeApi::start().await;
        if let Some(code) = refused {
            api.refuse_next(1000, code, "Forbidden");
        }
        if let Some(annotations) = annotations {
            let metadata = json!({"name": "etcd-cp1", "namespace": "kube-system", "annotations": annotations});
            api.put(json!({"kind": "Pod", "metadata": metadata}));
        }
        let failure = pods(&api.client().await, Duration::from_millis(200)).await.unwrap_err();
        assert!(failure.advice.as_ref().is_some_and(|advice| advice.contains(words)), "{failure:?}");
    }

    #[tokio::test]
    async fn whoever_answers_is_asked() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp1");
        let mut cluster = etcd.cluster();
        let members = cluster.members().await.unwrap();
        assert_eq!(members.len(), 3);
        assert_eq!(cluster.healthy(&members).await, [2, 3]);
        cluster.follow(&members, |url| url.ends_with("/cp1"));
        assert!(cluster.endpoints[0].ends_with("/cp2"), "{:?}", cluster.endpoints);
        etcd.kill("cp2");
        assert!(cluster.members().await.is_err());
        assert_eq!(cluster.remembered().await.len(), 3);
        etcd.kill("cp3");
        assert!(cluster.remembered().await.is_empty());
    }
}
