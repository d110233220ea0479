//! Phase upload-certs: what all control planes share, encrypted into the cluster for those that will join
//! (kubeadm.md section 7.3).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::plan::Plan;
use crate::api::wait::{Look, Wait};
use crate::api::{Client, create_or_update_all};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::rbac;
use crate::kubernetes::token::{Token, generate_certificate_key};
use crate::kubernetes::uploaded_certificates::{self as uploaded, CertificateKey};
use crate::node::phase::Changes;
use crate::node::{defaults, files};
use crate::secret::Secret;

/// Uploads them; answers with the key they are encrypted under: that of the configuration, or a fresh one.
pub(super) async fn upload(host: &dyn Host, client: &Client, plan: &Plan) -> Result<(Changes, Secret)> {
    let text = match &plan.init.certificate_key {
        Some(given) => given.clone(),
        None => generate_certificate_key()?,
    };
    let key = CertificateKey::parse(&text)?;
    let mut contents = BTreeMap::new();
    for shared in uploaded::shared(&plan.cluster) {
        let content = match shared.path.as_str() {
            "" => None,
            path => files::text(host, Path::new(path))?.map(Secret::new),
        };
        contents.insert(shared.key, content);
    }
    let limit = plan.init.timeouts.kubernetes_api_call.0;
    let (owner, uid) = life_token(client, limit).await?;
    let mut wanted = vec![uploaded::secret(&contents, &key, (&owner, &uid))?];
    wanted.extend(rbac::kubeadm_certs());
    Ok((create_or_update_all(client, &wanted, limit).await?, text))
}

/// Makes the token whose end is the end of what was uploaded; name and uid of its Secret.
async fn life_token(client: &Client, limit: std::time::Duration) -> Result<(String, String)> {
    // A name that is taken, also by an earlier try whose answer was lost, is not taken again.
    let token = Mutex::new(Token::generate()?);
    let now_seconds = defaults::now_seconds()?;
    let wait = Wait::new(format!("writing a token to {}", client.server()), "succeed", limit);
    wait.until(async || {
        let object = {
            let token = token.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            uploaded::life_token(&token, now_seconds)
        };
        match client.create(&object).await {
            Ok(created) => {
                let text = |key: &str| created["metadata"][key].as_str().map(str::to_owned);
                match (text("name"), text("uid")) {
                    (Some(name), Some(uid)) => Ok(Look::There((name, uid))),
                    _ => Err(Failure::new(Kind::Cluster, "the API server made a Secret without name and uid")),
                }
            }
            Err(problem) if problem.is_already_there() => {
                *token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Token::generate()?;
                Ok(Look::NotYet(problem.to_string()))
            }
            Err(problem) if problem.may_pass() || problem.is_forbidden() || problem.is_not_found() => {
                Ok(Look::NotYet(problem.to_string()))
            }
            Err(problem) => Err(problem.failure("the token that ends uploaded certificates cannot be written")),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::upload;
    use crate::api::fake::FakeApi;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::uploaded_certificates::{CertificateKey, open, shared};
    use crate::node::init::certificates;
    use crate::node::init::plan::tests::plan;

    #[tokio::test]
    async fn what_is_uploaded_opens_with_the_key_and_ends_with_its_token() {
        let (host, plan) = (FakeHost::new(), plan(""));
        certificates::make(&host, &plan, &Events::nowhere()).await.unwrap();
        let api = FakeApi::start().await;
        let client = api.client().await;
        let (changes, first) = upload(&host, &client, &plan).await.unwrap();
        assert_eq!(changes.len(), 3, "{changes:?}");
        // Again: under a fresh key, in place of the first.
        let (_, key) = upload(&host, &client, &plan).await.unwrap();
        assert_ne!(first, key);
        let secret = api.object("/api/v1/namespaces/kube-system/secrets/kubeadm-certs").unwrap();
        let wanted = shared(&plan.cluster);
        assert!(open(&secret, &CertificateKey::parse(&first).unwrap(), &wanted).is_err());
        let files = open(&secret, &CertificateKey::parse(&key).unwrap(), &wanted).unwrap();
        for shared in wanted {
            assert_eq!(host.text(&shared.path).as_deref(), Some(files[&shared.key].expose()), "{}", shared.path);
        }
        let owner = &secret["metadata"]["ownerReferences"][0];
        let token = api.object(&format!("/api/v1/namespaces/kube-system/secrets/{}", owner["name"].as_str().unwrap()));
        assert_eq!(token.unwrap()["metadata"]["uid"], owner["uid"]);
    }

    #[tokio::test]
    async fn a_key_that_a_person_gave_is_used_and_a_missing_file_is_an_empty_value() {
        let given = format!(
            "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\ncertificateKey: '{}'\n",
            "ab".repeat(32)
        );
        let api = FakeApi::start().await;
        let (_, key) = upload(&FakeHost::new(), &api.client().await, &plan(&given)).await.unwrap();
        assert_eq!(key.expose(), "ab".repeat(32));
        let secret = api.object("/api/v1/namespaces/kube-system/secrets/kubeadm-certs").unwrap();
        assert_eq!(secret["data"]["ca.key"], "");
    }
}
