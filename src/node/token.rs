//! Bootstrap tokens of a running cluster: made, listed, removed, and put into what others join with
//! (kubeadm.md section 8.1).

use std::path::Path;

use super::{defaults, files};
use crate::api::Client;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::public_key_hash;
use crate::kubernetes::configuration::BootstrapToken;
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::kubernetes::token::Token;
use crate::kubernetes::{moment, objects};
use crate::message::Ticket;
use crate::secret::Secret;

/// Where the Secrets of tokens lie.
const NAMESPACE: &str = "kube-system";

/// Makes a token that is completed and valid.
///
/// # Errors
/// Kind `Cluster` when there is a token of that id already, or the cluster does not take it.
pub async fn create(client: &Client, settings: &BootstrapToken) -> Result<Token> {
    let token = Token::parse(settings.token.as_ref().map(Secret::expose).unwrap_or_default())?;
    let expiration = settings.expiration(defaults::now_seconds()?);
    let object = objects::bootstrap_token(&token, settings, expiration.as_deref());
    match client.create(&object).await {
        Ok(_) => Ok(token),
        Err(problem) if problem.is_already_there() => {
            Err(Failure::new(Kind::Cluster, format!("a bootstrap token with the id {} exists already", token.id))
                .advise("choose another, or let one be made: leave the token out"))
        }
        Err(problem) => Err(problem.failure(format!("{} does not take the bootstrap token", client.server()))),
    }
}

/// All tokens, and a sentence for each Secret that should be one and is not.
///
/// # Errors
/// Kind `Cluster` when the cluster does not list them.
pub async fn list(client: &Client) -> Result<(Vec<BootstrapToken>, Vec<String>)> {
    let secrets = client.list("Secret", Some(NAMESPACE), "").await;
    let secrets =
        secrets.map_err(|problem| problem.failure(format!("{} does not list its tokens", client.server())))?;
    let (mut tokens, mut unusable) = (Vec::new(), Vec::new());
    for read in secrets.iter().filter_map(objects::read_bootstrap_token) {
        match read {
            Ok(token) => tokens.push(token),
            Err(sentence) => unusable.push(sentence),
        }
    }
    Ok((tokens, unusable))
}

/// Removes a token by its id or its whole text; answers with the id.
///
/// # Errors
/// Kind `Usage` for what is neither; kind `Cluster` when there is no such token or the cluster refuses.
pub async fn delete(client: &Client, text: &str) -> Result<String> {
    let id = id_of(text)?;
    let deleted = client.delete("Secret", Some(NAMESPACE), &format!("bootstrap-token-{id}")).await;
    match deleted.map_err(|problem| problem.failure(format!("bootstrap token {id} cannot be removed")))? {
        true => Ok(id),
        false => Err(Failure::new(Kind::Cluster, format!("there is no bootstrap token {id}"))
            .advise("see `clusterctl node token list`")),
    }
}

/// The id in `abcdef` or `abcdef.0123456789abcdef`.
fn id_of(text: &str) -> Result<String> {
    let is_id = text.len() == 6 && text.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit());
    match Token::parse(text) {
        Ok(token) => Ok(token.id),
        Err(_) if is_id => Ok(text.to_owned()),
        Err(_) => Err(Failure::new(Kind::Usage, "a token to remove is given by its 6 characters of id, or as a whole")
            .advise("see `clusterctl node token list`")),
    }
}

/// Seconds until a token ends, by this host's clock: negative when it has ended, `None` for one that does not.
///
/// # Errors
/// Kind `Host` when the host's clock cannot be.
pub fn seconds_left(token: &BootstrapToken) -> Result<Option<i64>> {
    let now = i64::try_from(defaults::now_seconds()?).unwrap_or(i64::MAX);
    let end = token.expires.as_deref().and_then(moment::from_rfc3339);
    Ok(end.map(|end| i64::try_from(end).unwrap_or(i64::MAX) - now))
}

/// What others join the cluster of a kubeconfig with.
///
/// # Errors
/// Kind `Configuration` for a kubeconfig that names no server or no CA.
pub fn ticket(host: &dyn Host, kubeconfig: &Path, token: &Token, certificate_key: Option<Secret>) -> Result<Ticket> {
    let unusable = |cause: Failure| {
        Failure::new(Kind::Configuration, format!("{} cannot be used", kubeconfig.display())).because(&cause)
    };
    let parsed = Kubeconfig::parse(read(host, kubeconfig)?.expose()).map_err(unusable)?;
    let cluster = parsed
        .current_cluster()
        .ok_or_else(|| unusable(Failure::new(Kind::Configuration, "its current context names no cluster")))?;
    let ca = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (None, Some(file)) => files::text(host, Path::new(file))?.unwrap_or_default(),
        _ => cluster.ca_pem().map_err(unusable)?,
    };
    let ca_hashes = public_key_hash(&ca).map_err(unusable)?;
    let endpoint = cluster.server.trim_start_matches("https://").trim_end_matches('/').to_owned();
    Ok(Ticket { endpoint, token: token.text(), ca_hashes, certificate_key })
}

/// A client by a kubeconfig of this host.
///
/// # Errors
/// Kind `Configuration` when it is not there; kind `Cluster` when it cannot be used.
pub async fn client(host: &dyn Host, kubeconfig: &Path) -> Result<Client> {
    Client::from_kubeconfig(&read(host, kubeconfig)?).await
}

fn read(host: &dyn Host, kubeconfig: &Path) -> Result<Secret> {
    files::text(host, kubeconfig)?.map(Secret::new).ok_or_else(|| {
        Failure::new(Kind::Configuration, format!("there is no kubeconfig {}", kubeconfig.display()))
            .advise("run this on a control plane, or name a kubeconfig with --kubeconfig")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;
    use serde_json::json;

    use super::{create, delete, id_of, list, ticket};
    use crate::api::fake::FakeApi;
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::BootstrapToken;
    use crate::kubernetes::kubeconfig::Kubeconfig;
    use crate::kubernetes::token::Token;
    use crate::secret::Secret;

    #[tokio::test]
    async fn a_token_is_made_listed_and_removed() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let mut settings =
            BootstrapToken { token: Some(Secret::new("abcdef.0123456789abcdef")), ..BootstrapToken::default() };
        settings.complete().unwrap();
        create(&client, &settings).await.unwrap();
        let again = create(&client, &settings).await.unwrap_err();
        assert!(again.sentence.contains("abcdef exists already"), "{again}");
        // The real server shows texts as base64.
        let path = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
        let mut secret = api.object(path).unwrap();
        use base64::Engine as _;
        let texts = secret["stringData"].as_object().unwrap().clone();
        for (key, text) in texts {
            secret["data"][key] = json!(base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap()));
        }
        api.put(secret);
        api.put(json!({"kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-xxxxxx", "namespace": "kube-system"}, "data": {}}));
        let (tokens, unusable) = list(&client).await.unwrap();
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens[0].token, settings.token);
        assert_eq!(tokens[0].usages, ["authentication", "signing"]);
        assert_eq!(tokens[0].groups, ["system:bootstrappers:kubeadm:default-node-token"]);
        assert!(tokens[0].expires.is_some());
        assert_eq!(unusable.len(), 1, "{unusable:?}");
        assert_eq!(delete(&client, "abcdef").await.unwrap(), "abcdef");
        assert_eq!(delete(&client, "abcdef").await.unwrap_err().kind, Kind::Cluster);
    }

    #[rstest]
    #[case("abcdef", Some("abcdef"))]
    #[case("abcdef.0123456789abcdef", Some("abcdef"))]
    #[case("ABCDEF", None)]
    #[case("abcdef.0123", None)]
    fn tokens_are_removed_by_id(#[case] text: &str, #[case] id: Option<&str>) {
        assert_eq!(id_of(text).ok().as_deref(), id);
    }

    #[test]
    fn a_kubeconfig_without_a_ca_makes_no_ticket() {
        let text = Kubeconfig::bootstrap("https://x:6443", "c", "no certificate", &Secret::new("t")).to_text();
        let host = FakeHost::new().file("/etc/kubernetes/admin.conf", text.expose());
        let token = Token::generate().unwrap();
        let path = Path::new("/etc/kubernetes/admin.conf");
        assert!(ticket(&host, path, &token, None).unwrap_err().sentence.starts_with("/etc/kubernetes/admin.conf"));
        assert!(ticket(&FakeHost::new(), path, &token, None).is_err());
    }
}
