//! Phase bootstrap-token: the token that nodes join with, what it allows, and cluster-info (kubeadm.md section 8).

use serde_json::Value;

use super::kubeconfigs;
use super::plan::Plan;
use crate::api::{Client, Outcome, create_or_update, create_or_update_all};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::kubeconfig::{ADMIN, Kubeconfig};
use crate::kubernetes::moment::rfc3339;
use crate::kubernetes::patches::Target;
use crate::kubernetes::token::Token;
use crate::kubernetes::{jws, objects, rbac};
use crate::node::phase::Changes;
use crate::node::{defaults, files};

/// A token that is there already serves again when it lives at least this long, in seconds: long enough for a run.
const LEAST_LIFE_SECONDS: u64 = 3600;

/// Makes what joining needs; answers with the token to join with, if hosts are waiting to.
pub(super) async fn make(host: &dyn Host, client: &Client, plan: &Plan) -> Result<(Changes, Option<Token>)> {
    let limit = plan.init.timeouts.kubernetes_api_call.0;
    let now_seconds = defaults::now_seconds()?;
    let rights = [rbac::bootstrap_token(), rbac::cluster_info()].concat();
    let (written, tokens) =
        tokio::join!(create_or_update_all(client, &rights, limit), tokens(client, plan, now_seconds));
    let (mut changes, (tokens_changed, tokens)) = (written?, tokens?);
    changes.extend(tokens_changed);
    let text = cluster_info_text(host, client, plan).await?;
    // On a new cluster the controller manager signs it when its controllers are at work. Nobody who joins is faster before that: a
    // kubelet that waits for its certificate asks for it, and for all else, at longer and longer intervals.
    let others_sign = text.is_new && controllers_sign(plan);
    let object = signed_cluster_info(&text.kubeconfig, if others_sign { &[] } else { &tokens });
    changes.extend(create_or_update_all(client, &[object], limit).await?);
    Ok((changes, tokens.into_iter().next()))
}

/// Writes the tokens of the configuration. Where a person gave none, one of an earlier run serves, so that running twice
/// changes nothing.
async fn tokens(client: &Client, plan: &Plan, now_seconds: u64) -> Result<(Changes, Vec<Token>)> {
    if !plan.issue_ticket {
        return Ok((Vec::new(), Vec::new()));
    }
    let there = client.list("Secret", Some("kube-system"), "").await;
    // A server that has just begun may not list yet; then there can be no token either.
    let there: Vec<Value> = there.unwrap_or_default();
    let alive = rfc3339(now_seconds + LEAST_LIFE_SECONDS);
    if !plan.tokens_given
        && let Some(token) = there.iter().find_map(|secret| reusable(secret, &alive))
    {
        return Ok((Vec::new(), vec![token]));
    }
    let mut changes = Vec::new();
    let mut tokens = Vec::new();
    for settings in &plan.init.bootstrap_tokens {
        let mut settings = settings.clone();
        if !plan.tokens_given {
            // By this the next run knows the token as one of ours.
            objects::INIT_TOKEN_DESCRIPTION.clone_into(&mut settings.description);
        }
        let text = settings.token.as_ref().map(|token| token.expose()).unwrap_or_default();
        let token = Token::parse(text)?;
        let lives = there.iter().any(|secret| reusable_as(secret, &token, &alive));
        if !lives {
            let object = objects::bootstrap_token(&token, &settings, settings.expiration(now_seconds).as_deref());
            match create_or_update(client, &object, plan.init.timeouts.kubernetes_api_call.0).await? {
                Outcome::Unchanged => {}
                Outcome::Created => changes.push(format!("bootstrap token {} created", token.id)),
                Outcome::Updated => changes.push(format!("bootstrap token {} updated", token.id)),
            }
        }
        tokens.push(token);
    }
    Ok((changes, tokens))
}

/// A field of a Secret as text.
fn field(secret: &Value, name: &str) -> Option<String> {
    use base64::Engine as _;
    let encoded = secret["data"][name].as_str()?;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()
}

/// The token of a Secret that `init` made by itself, can sign and authenticate, and is still valid at `alive` (RFC 3339
/// in UTC, which sorts like time).
fn reusable(secret: &Value, alive: &str) -> Option<Token> {
    let is_ours = field(secret, "description").as_deref() == Some(objects::INIT_TOKEN_DESCRIPTION);
    let groups = field(secret, "auth-extra-groups").unwrap_or_default();
    let usable = ["signing", "authentication"]
        .iter()
        .all(|usage| field(secret, &format!("usage-bootstrap-{usage}")).as_deref() == Some("true"));
    let joins = groups.split(',').any(|group| group == rbac::NODE_BOOTSTRAP_GROUP);
    let text = format!("{}.{}", field(secret, "token-id")?, field(secret, "token-secret")?);
    let token = Token::parse(&text).ok()?;
    (is_ours && usable && joins && lives(secret, alive)).then_some(token)
}

/// Whether a Secret is this very token and still valid at `alive`.
fn reusable_as(secret: &Value, token: &Token, alive: &str) -> bool {
    field(secret, "token-id").as_ref() == Some(&token.id)
        && field(secret, "token-secret").as_deref() == Some(token.secret.expose())
        && lives(secret, alive)
}

fn lives(secret: &Value, alive: &str) -> bool {
    secret["type"] == "bootstrap.kubernetes.io/token"
        && field(secret, "expiration").is_none_or(|end| end.ends_with('Z') && end.as_str() > alive)
}

/// Whether the controller manager signs with the tokens: unless a person said otherwise of which controllers it runs, or of what a
/// token is for.
fn controllers_sign(plan: &Plan) -> bool {
    let arguments = &plan.cluster.controller_manager.extra_args;
    let is_told = arguments.iter().any(|argument| argument.name == "controllers");
    let signing = plan.init.bootstrap_tokens.iter().all(|token| token.usages.iter().any(|usage| usage == "signing"));
    let is_ours = plan.phases.wants("control-plane/controller-manager");
    signing && is_ours && !is_told && !plan.patches.touch(Target::ControllerManager)
}

/// What cluster-info is to hold.
struct ClusterInfo {
    kubeconfig: String,
    /// Whether there is none yet.
    is_new: bool,
}

/// The kubeconfig inside cluster-info. One that is there and says the same stays to the byte, because signatures are
/// made over its bytes.
async fn cluster_info_text(host: &dyn Host, client: &Client, plan: &Plan) -> Result<ClusterInfo> {
    let path = plan.administrator.clone().unwrap_or_else(|| kubeconfigs::path(&ADMIN));
    let admin = files::text(host, &path)?.unwrap_or_default();
    let unusable = |failure: Failure| {
        Failure::new(Kind::Configuration, format!("{} cannot be used", path.display())).because(&failure)
    };
    let admin = Kubeconfig::parse(&admin).map_err(unusable)?;
    let cluster = admin.current_cluster().cloned().unwrap_or_default();
    let wanted =
        Kubeconfig::cluster_info(&cluster.server, &cluster.ca_pem().map_err(unusable)?).written_by(plan.release);
    let there = client.get("ConfigMap", Some("kube-public"), "cluster-info").await;
    if let Ok(Some(there)) = &there
        && let Some(text) = there["data"]["kubeconfig"].as_str()
        && Kubeconfig::parse(text).is_ok_and(|kubeconfig| kubeconfig == wanted)
    {
        return Ok(ClusterInfo { kubeconfig: text.to_owned(), is_new: false });
    }
    Ok(ClusterInfo { kubeconfig: wanted.to_text().expose().to_owned(), is_new: matches!(there, Ok(None)) })
}

/// cluster-info with the signatures that the controller manager would add in its time: the same bytes.
fn signed_cluster_info(text: &str, tokens: &[Token]) -> Value {
    let mut object = objects::cluster_info(text);
    for token in tokens {
        object["data"][format!("jws-kubeconfig-{}", token.id)] = jws::sign(text, token).into();
    }
    object
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::make;
    use crate::api::fake::FakeApi;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::Arg;
    use crate::kubernetes::jws;
    use crate::kubernetes::patches::Patches;
    use crate::kubernetes::token::Token;
    use crate::node::init::plan::Plan;
    use crate::node::init::plan::tests::plan;
    use crate::node::init::{certificates, kubeconfigs};

    async fn host(plan: &Plan) -> FakeHost {
        let host = FakeHost::new();
        let (_, (authority, keys)) = certificates::make(&host, plan, &Events::nowhere()).await.unwrap();
        kubeconfigs::write(&host, plan, &authority, keys, &Events::nowhere()).unwrap();
        host
    }

    const INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

    /// What the controller manager does when it is at work.
    fn sign(api: &FakeApi, token: &Token) {
        let mut info = api.object(INFO).unwrap();
        let signature = jws::sign(info["data"]["kubeconfig"].as_str().unwrap(), token);
        info["data"][format!("jws-kubeconfig-{}", token.id)] = signature.into();
        api.put(info);
    }

    #[tokio::test]
    async fn a_second_time_reuses_the_token_and_writes_nothing() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let first = plan("");
        let host = host(&first).await;
        let (changes, token) = make(&host, &client, &first).await.unwrap();
        let token = token.unwrap();
        assert!(changes.contains(&format!("bootstrap token {} created", token.id)), "{changes:?}");
        let info = api.object(INFO).unwrap();
        assert_eq!(info["data"].as_object().unwrap().len(), 1, "the controller manager has not signed it");
        sign(&api, &token);
        let signed = api.object(INFO);

        let (changes, again) = make(&host, &client, &plan("")).await.unwrap();
        assert_eq!((changes, again), (vec![], Some(token)));
        assert_eq!(api.object(INFO), signed);
    }

    #[tokio::test]
    async fn a_cluster_info_that_was_there_is_signed_at_once_and_one_that_nobody_else_may_sign() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let is_signed = |token: &Token| {
            let info = api.object(INFO).unwrap();
            let signature =
                info["data"][format!("jws-kubeconfig-{}", token.id)].as_str().unwrap_or_default().to_owned();
            jws::verify(info["data"]["kubeconfig"].as_str().unwrap(), token, &signature)
        };
        let quiet = Plan { issue_ticket: false, ..plan("") };
        let host = host(&quiet).await;
        make(&host, &client, &quiet).await.unwrap();
        let (_, token) = make(&host, &client, &plan("")).await.unwrap();
        assert!(is_signed(&token.unwrap()));

        let mut told = plan("");
        let argument = Arg { name: "controllers".to_owned(), value: "*".to_owned() };
        told.cluster.controller_manager.extra_args = vec![argument];
        let mut other_use = plan("");
        other_use.init.bootstrap_tokens[0].usages = vec!["authentication".to_owned()];
        let mut patched = plan("");
        let file = ("kube-controller-manager.yaml".to_owned(), "metadata: {labels: {a: b}}\n".to_owned());
        patched.patches = Patches::read(&[file], patched.release).unwrap().0;
        let mut left_out = plan("");
        left_out.phases = left_out.phases.without(&["control-plane/controller-manager"]);
        for plan in [told, other_use, patched, left_out] {
            let api = FakeApi::start().await;
            let (_, token) = make(&host, &api.client().await, &plan).await.unwrap();
            let info = api.object(INFO).unwrap();
            assert!(info["data"].get(format!("jws-kubeconfig-{}", token.unwrap().id)).is_some());
        }
    }

    #[tokio::test]
    async fn no_token_is_made_when_nobody_waits_for_one() {
        let api = FakeApi::start().await;
        let plan = Plan { issue_ticket: false, ..plan("") };
        let host = host(&plan).await;
        let (changes, token) = make(&host, &api.client().await, &plan).await.unwrap();
        assert_eq!(token, None);
        assert!(changes.iter().all(|change| !change.contains("token ")), "{changes:?}");
        assert!(api.object(INFO).is_some());
    }

    /// Other programs compare the ends of tokens as texts, so they are all in UTC.
    #[tokio::test]
    async fn the_end_of_a_token_is_written_in_utc() {
        let given = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
            bootstrapTokens: [{token: abcdef.0123456789abcdef, expires: 2099-01-01T00:00:00+02:00}]\n";
        let api = FakeApi::start().await;
        let plan = plan(given);
        let host = host(&plan).await;
        make(&host, &api.client().await, &plan).await.unwrap();
        let secret = api.object("/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef").unwrap();
        let end = STANDARD.decode(secret["data"]["expiration"].as_str().unwrap()).unwrap();
        assert_eq!(end, b"2098-12-31T22:00:00Z");
    }

    #[tokio::test]
    async fn a_token_that_a_person_gave_is_the_one_to_join_with() {
        let given = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
            bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 2h}]\n";
        let api = FakeApi::start().await;
        let client = api.client().await;
        let plan = plan(given);
        let host = host(&plan).await;
        let (_, token) = make(&host, &client, &plan).await.unwrap();
        let token = token.unwrap();
        assert_eq!(token.id, "abcdef");
        sign(&api, &token);
        let (changes, _) = make(&host, &client, &plan).await.unwrap();
        assert!(changes.is_empty(), "{changes:?}");
        // One that is about to end is renewed.
        let mut secret = api.object("/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef").unwrap();
        secret["data"]["expiration"] = STANDARD.encode("2020-01-01T00:00:00Z").into();
        api.put(secret);
        let (changes, _) = make(&host, &client, &plan).await.unwrap();
        assert_eq!(changes, ["bootstrap token abcdef updated"]);
    }
}
