//! An API server that is only played, for dry runs: it takes objects, shows them again, and tells what it was given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::problem::Problem;
use super::resource::Resource;

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Paths in the order in which they were first written.
    written: Vec<String>,
}

/// The played server; clones are one server.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal {
    state: Arc<Mutex<State>>,
}

impl Rehearsal {
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
            "DELETE" => state.objects.remove(path).ok_or_else(missing),
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
}
