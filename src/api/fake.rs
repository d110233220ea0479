//! An API server in memory, for tests: stores objects by their path, answers as the real one does, over plain HTTP on
//! loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::access::{Access, Identity, Trust};
use super::client::Client;
use super::resource::Resource;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    refusals: Vec<(u16, String)>,
    requests: Vec<String>,
}

/// The server; clones share their objects. It lives as long as the test's runtime.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

impl FakeApi {
    /// Starts to listen.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self { state: Arc::default(), address: listener.local_addr().unwrap() };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        api
    }

    /// Its URL.
    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of this server.
    pub(crate) async fn client(&self) -> Client {
        let server = self.server();
        Client::new(&Access { server, trust: Trust::Unverified, identity: Identity::Anonymous }).await.unwrap()
    }

    /// Serves one connection: one request after the other.
    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                let line = line.trim_end().to_owned();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push(line);
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let mut words = head[0].split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let path = path.split('?').next().unwrap();
            let (code, answer) = self.answer(method, path, serde_json::from_slice(&body).unwrap_or(Value::Null));
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// Refuses the next `count` requests.
    pub(crate) fn refuse_next(&self, count: usize, code: u16, reason: &str) {
        self.state.lock().unwrap().refusals.extend(std::iter::repeat_n((code, reason.to_owned()), count));
    }

    /// Stores an object without a request.
    pub(crate) fn put(&self, object: Value) {
        let path = Resource::of(&object).unwrap().item();
        self.state.lock().unwrap().objects.insert(path, object);
    }

    /// The object at a path.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Paths of all objects.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// `METHOD path` of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    fn answer(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut state = self.state.lock().unwrap();
        state.requests.push(format!("{method} {path}"));
        if !state.refusals.is_empty() {
            let (code, reason) = state.refusals.remove(0);
            return refusal(code, &reason);
        }
        match method {
            // A pod leaves at once, unless its test says that a budget holds it.
            "POST" if path.ends_with("/eviction") => {
                let pod = path.trim_end_matches("/eviction");
                match state.objects.get(pod).map(|pod| pod["metadata"]["annotations"]["budget"] == "exhausted") {
                    None => refusal(404, "NotFound"),
                    Some(true) => refusal(429, "TooManyRequests"),
                    Some(false) => (201, state.objects.remove(pod).unwrap_or_default()),
                }
            }
            "POST" => {
                let mut body = body;
                if body["metadata"]["uid"].is_null() {
                    body["metadata"]["uid"] = json!(format!("uid-{}", state.requests.len()));
                }
                let item = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if state.objects.contains_key(&item) {
                    return refusal(409, "AlreadyExists");
                }
                state.objects.insert(item, body.clone());
                (201, body)
            }
            "PATCH" => match state.objects.get_mut(path) {
                Some(object) => {
                    merge(object, &body);
                    (200, object.clone())
                }
                None => refusal(404, "NotFound"),
            },
            "DELETE" => state.objects.remove(path).map_or_else(|| refusal(404, "NotFound"), |object| (200, object)),
            _ if path.starts_with("/readyz") || path == "/livez" => (200, json!("ok")),
            _ => match state.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if is_collection(path) => {
                    let below = format!("{path}/");
                    // Of a kind that lives in namespaces, those of all of them.
                    let (group, plural) = path.rsplit_once('/').unwrap_or(("", path));
                    let (namespaces, kind) = (format!("{group}/namespaces/"), format!("/{plural}/"));
                    let everywhere = |key: &str| key.starts_with(&namespaces) && key.contains(&kind);
                    let items = state.objects.iter().filter(|(key, _)| key.starts_with(&below) || everywhere(key));
                    (200, json!({ "items": items.map(|(_, value)| value).collect::<Vec<_>>() }))
                }
                None => refusal(404, "NotFound"),
            },
        }
    }
}

fn is_collection(path: &str) -> bool {
    let below_version = path.split('/').skip_while(|part| !part.starts_with("v1")).skip(1).count();
    if path.contains("/namespaces/") { below_version == 3 } else { below_version == 1 }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    object.remove(key);
                } else {
                    merge(object.entry(key.clone()).or_insert(json!({})), value);
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": reason
    });
    (code, status)
}
