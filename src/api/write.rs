//! Create or update, as kubeadm does it: try to create; what is there already is brought to what is wanted.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use serde_json::Value;

use super::client::Client;
use super::problem::Problem;
use super::resource::Resource;
use super::wait::{Look, Wait};
use crate::failure::Result;

/// How many objects are written at once: enough to hide the round trips, few enough not to be throttled.
const CONCURRENT_WRITES: usize = 8;

/// What writing an object did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It was there and said something else.
    Updated,
    /// It was there as wanted.
    Unchanged,
}

/// Writes one object: creates it or, where it is there and differs in what `object` says, merges `object` into it.
/// Whatever passes by itself (no answer, throttling, roles that the API server has not made yet) is tried again until
/// `limit`.
///
/// # Errors
/// Kind `Cluster`, naming the object.
pub async fn create_or_update(client: &Client, object: &Value, limit: Duration) -> Result<Outcome> {
    let object = &comparable(object);
    let resource = Resource::of(object).map_err(|problem| problem.failure("an object cannot be written"))?;
    let wait = Wait::new(format!("writing {resource} to {}", client.server()), "succeed", limit);
    wait.until(async || match write_once(client, object, &resource).await {
        Ok(outcome) => Ok(Look::There(outcome)),
        Err(problem) if problem.may_pass() || problem.is_forbidden() || problem.is_not_found() => {
            Ok(Look::NotYet(problem.to_string()))
        }
        Err(problem) => Err(problem.failure(format!("{resource} cannot be written"))),
    })
    .await
}

/// Writes many objects side by side; returns a line for each that was altered: `ConfigMap kube-system/x created`.
///
/// # Errors
/// The first failure, when all have been tried.
pub async fn create_or_update_all(client: &Client, objects: &[Value], limit: Duration) -> Result<Vec<String>> {
    let writes: Vec<_> = objects.iter().map(|object| write_and_tell(client, object, limit)).collect();
    let results: Vec<Result<Option<String>>> =
        futures::stream::iter(writes).buffered(CONCURRENT_WRITES).collect().await;
    let told: Result<Vec<Option<String>>> = results.into_iter().collect();
    Ok(told?.into_iter().flatten().collect())
}

async fn write_and_tell(client: &Client, object: &Value, limit: Duration) -> Result<Option<String>> {
    let outcome = create_or_update(client, object, limit).await?;
    let resource = Resource::of(object).map_err(|problem| problem.failure("an object cannot be written"))?;
    Ok(match outcome {
        Outcome::Created => Some(format!("{resource} created")),
        Outcome::Updated => Some(format!("{resource} updated")),
        Outcome::Unchanged => None,
    })
}

async fn write_once(client: &Client, object: &Value, resource: &Resource) -> Result<Outcome, Problem> {
    let refused = match client.create(object).await {
        Ok(_) => return Ok(Outcome::Created),
        // A Service whose address is taken is "invalid" even where it is the Service itself that took it
        // (kubeadm.md section 11.2).
        Err(problem) if problem.is_already_there() || (resource.kind == "Service" && problem.is_invalid()) => problem,
        Err(problem) => return Err(problem),
    };
    let namespace = resource.namespace.as_deref();
    match client.get(&resource.kind, namespace, &resource.name).await? {
        Some(existing) if covers(&existing, object) => Ok(Outcome::Unchanged),
        Some(_) => {
            client.merge(&resource.kind, namespace, &resource.name, object).await?;
            Ok(Outcome::Updated)
        }
        None => Err(refused),
    }
}

/// The object as the server will show it: the texts of a Secret come back as base64 under another key.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Secret"
        && let Some(Value::Object(texts)) = object.as_object_mut().and_then(|fields| fields.remove("stringData"))
    {
        let encoded = texts.iter().map(|(key, text)| {
            let text = text.as_str().unwrap_or_default();
            (key.clone(), Value::String(STANDARD.encode(text)))
        });
        let encoded: Vec<(String, Value)> = encoded.collect();
        if let Value::Object(data) = &mut object["data"] {
            data.extend(encoded);
        } else {
            object["data"] = Value::Object(encoded.into_iter().collect());
        }
    }
    object
}

/// Whether `existing` says everything `wanted` says; the server adds defaults, so it may say more. Lists must agree item
/// by item.
fn covers(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => wanted.iter().all(|(key, value)| match existing.get(key) {
            Some(there) => covers(there, value),
            None => is_empty(value),
        }),
        (Value::Array(existing), Value::Array(wanted)) => {
            existing.len() == wanted.len() && existing.iter().zip(wanted).all(|(there, value)| covers(there, value))
        }
        (there, value) => there == value,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Outcome, covers, create_or_update, create_or_update_all};
    use crate::api::fake::FakeApi;

    #[rstest]
    #[case(json!({"data": {"a": "1"}, "metadata": {"uid": "x"}}), json!({"data": {"a": "1"}}), true)]
    #[case(json!({"data": {"a": "1"}}), json!({"data": {"a": "2"}}), false)]
    #[case(json!({"data": {"a": "1", "jws": "z"}}), json!({"data": {"a": "1"}}), true)]
    #[case(json!({}), json!({"users": [], "contexts": null, "x": {}}), true)]
    #[case(json!({"rules": [{"verbs": ["get"], "more": 1}]}), json!({"rules": [{"verbs": ["get"]}]}), true)]
    #[case(json!({"rules": [1, 2]}), json!({"rules": [1]}), false)]
    fn an_object_covers_what_is_wanted(#[case] existing: Value, #[case] wanted: Value, #[case] covered: bool) {
        assert_eq!(covers(&existing, &wanted), covered);
    }

    fn config_map(value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": value}})
    }

    #[tokio::test]
    async fn an_object_is_created_then_left_alone_then_updated() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let limit = Duration::from_secs(1);
        assert_eq!(create_or_update(&client, &config_map("1"), limit).await, Ok(Outcome::Created));
        assert_eq!(create_or_update(&client, &config_map("1"), limit).await, Ok(Outcome::Unchanged));
        assert_eq!(create_or_update(&client, &config_map("2"), limit).await, Ok(Outcome::Updated));
        assert_eq!(api.object("/api/v1/namespaces/n/configmaps/a").unwrap()["data"]["k"], "2");
    }

    #[tokio::test]
    async fn a_secret_is_compared_as_the_server_shows_it() {
        let api = FakeApi::start().await;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"},
            "stringData": {"k": "text"}});
        let limit = Duration::from_secs(1);
        assert_eq!(create_or_update(&api.client().await, &secret, limit).await, Ok(Outcome::Created));
        assert_eq!(create_or_update(&api.client().await, &secret, limit).await, Ok(Outcome::Unchanged));
        assert_eq!(api.object("/api/v1/namespaces/n/secrets/s").unwrap()["data"]["k"], "dGV4dA==");
    }

    #[tokio::test]
    async fn rights_that_come_late_are_waited_for() {
        let api = FakeApi::start().await;
        api.refuse_next(2, 403, "Forbidden");
        let told = create_or_update_all(&api.client().await, &[config_map("1")], Duration::from_secs(5)).await;
        assert_eq!(told, Ok(vec!["ConfigMap n/a created".to_owned()]));
    }

    #[tokio::test]
    async fn an_object_the_server_calls_invalid_fails_at_once_with_its_name() {
        let api = FakeApi::start().await;
        api.refuse_next(1, 422, "Invalid");
        let failure =
            create_or_update(&api.client().await, &config_map("1"), Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(failure.to_string(), "ConfigMap n/a cannot be written: the API server answered 422: Invalid");
    }
}
