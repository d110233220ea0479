//! An API server that is only played, for dry runs: it takes objects, shows them again, and tells what it was given. It
//! may be played over a real one: what is not written is read from there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::client::Client;
use super::problem::Problem;
use super::resource::Resource;

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Objects as the real server has them, by path; `None` where it has none. Each is read once.
    real: BTreeMap<String, Option<Value>>,
    /// Paths in the order in which they were first written.
    written: Vec<String>,
}

/// The played server; clones are one server.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal {
    state: Arc<Mutex<State>>,
    below: Option<Box<Client>>,
}

/// One object that was written: as it was, and as it would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// `ConfigMap kube-system/kubeadm-config`.
    pub object: String,
    /// As the real server has it; `None` where it has none.
    pub before: Option<Value>,
    /// As it would be; `None` where it would be removed.
    pub after: Option<Value>,
}

impl Rehearsal {
    /// Played over a real server, which is only read.
    pub fn over(client: Client) -> Self {
        Self { below: Some(Box::new(client)), ..Self::default() }
    }

    /// With an object that is there already and is not told of; one that has no place is left out.
    pub fn with(self, object: Value) -> Self {
        if let Ok(place) = Resource::of(&object) {
            self.state().objects.insert(place.item(), object);
        }
        self
    }

    /// Every object that was written, as it would be then, in the order of the first write.
    pub fn written(&self) -> Vec<Value> {
        let state = self.state();
        state.written.iter().filter_map(|path| state.objects.get(path).cloned()).collect()
    }

    /// Every object that would be other than it is, in the order of the first write.
    pub fn changes(&self) -> Vec<Written> {
        let state = self.state();
        let change = |path: &String| {
            let (before, after) = (state.real.get(path).cloned().flatten(), state.objects.get(path).cloned());
            let object = after.as_ref().or(before.as_ref())?;
            let object = Resource::of(object).map_or_else(|_| path.clone(), |resource| resource.to_string());
            (before != after).then_some(Written { object, before, after })
        };
        state.written.iter().filter_map(change).collect()
    }

    /// Reads from the real server what a request is about, unless that is known already.
    ///
    /// # Errors
    /// When the real server does not answer.
    pub(super) async fn look(&self, method: &http::Method, path: &str, body: Option<&Value>) -> Result<(), Problem> {
        let Some(below) = &self.below else { return Ok(()) };
        let plain = path.split('?').next().unwrap_or_default();
        if method == http::Method::GET && Resource::is_collection(plain) {
            return self.look_at_all(below, path, plain).await;
        }
        let item = match (method == http::Method::POST, body) {
            (true, Some(object)) => format!("{plain}/{}", object["metadata"]["name"].as_str().unwrap_or_default()),
            _ => plain.to_owned(),
        };
        if !item.starts_with("/api") || self.state().real.contains_key(&item) {
            return Ok(());
        }
        let there = match Box::pin(below.text(http::Method::GET, &item, None)).await {
            Ok(text) => Some(parsed(&text)?),
            Err(problem) if problem.is_not_found() => None,
            Err(problem) => return Err(problem),
        };
        self.learn(item, there);
        Ok(())
    }

    async fn look_at_all(&self, below: &Client, path: &str, plain: &str) -> Result<(), Problem> {
        let text = Box::pin(below.text(http::Method::GET, path, None)).await?;
        let mut answer = parsed(&text)?;
        // Items of a list do not say what they are.
        let kind = answer["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).map(str::to_owned);
        let version = answer["apiVersion"].clone();
        let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) else { return Ok(()) };
        for mut item in items {
            if let (Some(kind), Value::Object(fields)) = (&kind, &mut item) {
                fields.insert("kind".to_owned(), json!(kind));
                fields.insert("apiVersion".to_owned(), version.clone());
            }
            let path = Resource::of(&item).map_or_else(
                |_| format!("{plain}/{}", item["metadata"]["name"].as_str().unwrap_or_default()),
                |resource| resource.item(),
            );
            self.learn(path, Some(item));
        }
        Ok(())
    }

    /// Takes note of what the real server has; what was written here since stays.
    fn learn(&self, path: String, there: Option<Value>) {
        let mut state = self.state();
        if state.real.contains_key(&path) {
            return;
        }
        if let Some(object) = &there
            && !state.written.contains(&path)
        {
            state.objects.insert(path.clone(), object.clone());
        }
        state.real.insert(path, there);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request as an API server does.
    pub(super) fn answer(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Problem> {
        let path = path.split('?').next().unwrap_or_default();
        let mut state = self.state();
        let missing = || refused(404, "NotFound", format!("there is nothing at {path}"));
        match method {
            "POST" => {
                let mut object = body.cloned().unwrap_or_default();
                let item = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
                if state.objects.contains_key(&item) {
                    return Err(refused(409, "AlreadyExists", format!("{item} exists already")));
                }
                let uid = format!("rehearsed-{}", state.written.len());
                object["metadata"]["uid"] = json!(uid);
                state.written.push(item.clone());
                state.objects.insert(item, object.clone());
                Ok(object)
            }
            "PATCH" => {
                let object = state.objects.get_mut(path).ok_or_else(missing)?;
                merge(object, body.unwrap_or(&Value::Null));
                let object = object.clone();
                if !state.written.iter().any(|written| written == path) {
                    state.written.push(path.to_owned());
                }
                Ok(object)
            }
            "DELETE" => {
                let removed = state.objects.remove(path).ok_or_else(missing)?;
                if !state.written.iter().any(|written| written == path) {
                    state.written.push(path.to_owned());
                }
                Ok(removed)
            }
            _ if ["/readyz", "/livez", "/healthz"].iter().any(|health| path.starts_with(health)) => Ok(json!("ok")),
            _ => match state.objects.get(path) {
                Some(object) => Ok(object.clone()),
                None if Resource::is_collection(path) => {
                    let below = format!("{path}/");
                    let items = state.objects.iter().filter(|(key, _)| key.starts_with(&below));
                    Ok(json!({ "items": items.map(|(_, object)| object).collect::<Vec<_>>() }))
                }
                None => Err(missing()),
            },
        }
    }
}

fn parsed(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text).map_err(|error| Problem::Unreadable(format!("the answer is not JSON: {error}")))
}

fn refused(code: u16, reason: &str, message: String) -> Problem {
    Problem::Refused { code, reason: reason.to_owned(), message }
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    object.shift_remove(key);
                } else {
                    merge(object.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::Rehearsal;
    use crate::api::fake::FakeApi;
    use crate::api::{Client, Outcome, create_or_update};

    #[tokio::test]
    async fn objects_are_taken_shown_and_told() {
        let rehearsal = Rehearsal::default().with(json!({"kind": "Node", "metadata": {"name": "cp1"}}));
        let client = Client::rehearsed(&rehearsal);
        let map =
            json!({"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "kube-system"}, "data": {"k": "v"}});
        let limit = Duration::from_secs(1);
        assert_eq!(create_or_update(&client, &map, limit).await, Ok(Outcome::Created));
        assert_eq!(create_or_update(&client, &map, limit).await, Ok(Outcome::Unchanged));
        client.merge("Node", None, "cp1", &json!({"metadata": {"labels": {"x": ""}}})).await.unwrap();
        assert_eq!(client.list("ConfigMap", Some("kube-system"), "").await.unwrap().len(), 1);
        assert_eq!(client.get("Secret", Some("kube-system"), "none").await, Ok(None));
        client.healthy("/readyz").await.unwrap();
        let written = rehearsal.written();
        assert_eq!(written.len(), 2);
        assert_eq!(written[1]["metadata"]["labels"], json!({"x": ""}));
    }

    #[tokio::test]
    async fn over_a_real_server_only_what_differs_is_told_and_nothing_is_written() {
        let map = |value: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": "n"}, "data": {"k": value}})
        };
        let api = FakeApi::start().await;
        api.put(map("1"));
        api.put(json!({"kind": "Node", "metadata": {"name": "cp1", "labels": {"a": "1"}}}));
        let rehearsal = Rehearsal::over(api.client().await);
        let client = Client::rehearsed(&rehearsal);
        let limit = Duration::from_secs(1);
        assert_eq!(create_or_update(&client, &map("1"), limit).await, Ok(Outcome::Unchanged));
        assert!(rehearsal.changes().is_empty());
        assert_eq!(create_or_update(&client, &map("2"), limit).await, Ok(Outcome::Updated));
        client.merge("Node", None, "cp1", &json!({"metadata": {"labels": {"a": "1"}}})).await.unwrap();
        let new = json!({"kind": "ConfigMap", "metadata": {"name": "b", "namespace": "n"}});
        assert_eq!(create_or_update(&client, &new, limit).await, Ok(Outcome::Created));
        assert_eq!(client.list("ConfigMap", Some("n"), "").await.unwrap().len(), 2);
        let changes = rehearsal.changes();
        assert_eq!(
            changes.iter().map(|written| written.object.as_str()).collect::<Vec<_>>(),
            ["ConfigMap n/a", "ConfigMap n/b"]
        );
        assert_eq!(changes[0].before.as_ref().unwrap()["data"]["k"], "1");
        assert_eq!(changes[0].after.as_ref().unwrap()["data"]["k"], "2");
        assert_eq!(changes[1].before, None);
        assert_eq!(api.object("/api/v1/namespaces/n/configmaps/a").unwrap()["data"]["k"], "1");
    }
}
