//! An etcd in memory, for tests: its JSON gateway over plain HTTP on loopback, one path for each member.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::cluster::Cluster;
use super::gateway::Gateway;

#[derive(Clone)]
struct Member {
    id: u64,
    name: String,
    host: String,
    learner: bool,
    alive: bool,
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    next: u64,
    /// How often a promotion is refused because the learner is not in sync.
    late: u32,
    /// What the next changes are refused with.
    refusals: Vec<String>,
    changes: Vec<String>,
}

/// The members; clones share them. They live as long as the test's runtime.
#[derive(Clone)]
pub(in crate::node) struct FakeEtcd {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

impl FakeEtcd {
    /// Voters of these names; that of position N has the identifier N and the peer URL `https://10.0.0.N:2380`.
    pub(in crate::node) async fn start(names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let etcd = Self { state: Arc::default(), address: listener.local_addr().unwrap() };
        for name in names {
            let mut state = etcd.state.lock().unwrap();
            state.next += 1;
            let (id, host) = (state.next, format!("10.0.0.{}", state.next));
            state.members.push(Member { id, name: (*name).to_owned(), host, learner: false, alive: true });
        }
        let serving = etcd.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        etcd
    }

    /// Client URL of a member.
    pub(in crate::node) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// A client that knows all members with a name.
    pub(in crate::node) fn cluster(&self) -> Cluster {
        let names: Vec<String> = self.state.lock().unwrap().members.iter().map(|member| member.name.clone()).collect();
        let endpoints = names.iter().filter(|name| !name.is_empty()).map(|name| self.url(name)).collect();
        Cluster { gateway: Gateway::plain(), endpoints }
    }

    /// A member that does not answer from now on.
    pub(in crate::node) fn kill(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.members.iter_mut().filter(|member| member.name == name).for_each(|member| member.alive = false);
    }

    /// A learner that was added and never started.
    pub(in crate::node) fn add(&self, host: &str) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let id = state.next;
        state.members.push(Member { id, name: String::new(), host: host.into(), learner: true, alive: false });
        id
    }

    /// A member that was added starts under this name.
    pub(in crate::node) fn starts(&self, id: u64, name: &str) {
        let mut state = self.state.lock().unwrap();
        for member in state.members.iter_mut().filter(|member| member.id == id) {
            (member.name, member.alive) = (name.to_owned(), true);
        }
    }

    /// The next promotions find the learner not in sync.
    pub(in crate::node) fn is_late(&self, count: u32) {
        self.state.lock().unwrap().late = count;
    }

    /// The next changes are refused with this sentence.
    pub(in crate::node) fn refuse_next(&self, count: usize, message: &str) {
        self.state.lock().unwrap().refusals.extend(std::iter::repeat_n(message.to_owned(), count));
    }

    /// `name` or `-` for none, then `?` for a learner, of all members.
    pub(in crate::node) fn members(&self) -> Vec<String> {
        let text = |member: &Member| {
            let name = if member.name.is_empty() { "-" } else { member.name.as_str() };
            format!("{name}{}", if member.learner { "?" } else { "" })
        };
        self.state.lock().unwrap().members.iter().map(text).collect()
    }

    /// The changes that were made, in order: `add 10.0.0.2`, `promote 2`, `remove 2`.
    pub(in crate::node) fn changes(&self) -> Vec<String> {
        self.state.lock().unwrap().changes.clone()
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut first, mut length) = (None, 0);
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                first.get_or_insert_with(|| line.to_owned());
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let path = first.unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            let Some((status, answer)) = self.answer(&path, &serde_json::from_slice(&body).unwrap_or_default()) else {
                return;
            };
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
            if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// The answer of the member in the path; `None` for one that is dead.
    fn answer(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let url = |name: &str| self.url(name);
        let mut state = self.state.lock().unwrap();
        let (name, call) = path.trim_start_matches('/').split_once("/v3/")?;
        let asked = state.members.iter().find(|member| member.name == name && member.alive)?.clone();
        let voters = state.members.iter().filter(|member| !member.learner);
        let has_quorum = voters.clone().filter(|member| member.alive).count() > voters.count() / 2;
        if call == "maintenance/status" {
            let leader = if has_quorum { "1" } else { "0" };
            return Some((200, json!({ "leader": leader, "isLearner": asked.learner })));
        }
        if asked.learner {
            return Some(refused("etcdserver: rpc not supported for learner"));
        }
        let remembers = call == "cluster/member/list" && body["linearizable"] != true;
        if !has_quorum && !remembers {
            return Some((503, json!({ "message": "etcdserver: no leader", "code": 14 })));
        }
        if call == "cluster/member/list" {
            let members = state.members.iter().map(|member| {
                let mut document =
                    json!({ "ID": member.id.to_string(), "peerURLs": [format!("https://{}:2380", member.host)] });
                if !member.name.is_empty() {
                    document["name"] = json!(member.name);
                    document["clientURLs"] = json!([url(&member.name)]);
                }
                if member.learner {
                    document["isLearner"] = json!(true);
                }
                document
            });
            return Some((200, json!({ "members": members.collect::<Vec<_>>() })));
        }
        if !state.refusals.is_empty() {
            return Some(refused(&state.refusals.remove(0)));
        }
        let id: u64 = body["ID"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        Some(state.change(call, id, body["peerURLs"][0].as_str().unwrap_or_default()))
    }
}

impl State {
    fn change(&mut self, call: &str, id: u64, peer_url: &str) -> (u16, Value) {
        let known = self.members.iter().any(|member| member.id == id);
        match call {
            "cluster/member/add" => {
                let host = peer_url.trim_start_matches("https://").trim_end_matches(":2380").to_owned();
                if self.members.iter().any(|member| member.host == host) {
                    return refused("etcdserver: Peer URLs already exists");
                }
                if self.members.iter().any(|member| member.learner) {
                    return refused("etcdserver: too many learner members in cluster");
                }
                self.next += 1;
                self.changes.push(format!("add {host}"));
                self.members.push(Member { id: self.next, name: String::new(), host, learner: true, alive: false });
            }
            "cluster/member/promote"
                if self.late > 0 || self.members.iter().any(|member| member.id == id && !member.alive) =>
            {
                self.late = self.late.saturating_sub(1);
                return refused("etcdserver: can only promote a learner member which is in sync with leader");
            }
            "cluster/member/promote" if known => {
                self.changes.push(format!("promote {id}"));
                self.members.iter_mut().filter(|member| member.id == id).for_each(|member| member.learner = false);
            }
            "cluster/member/remove" if known => {
                self.changes.push(format!("remove {id}"));
                self.members.retain(|member| member.id != id);
            }
            _ => return refused("etcdserver: member not found"),
        }
        (200, json!({}))
    }
}

fn refused(message: &str) -> (u16, Value) {
    (400, json!({ "error": message, "message": message, "code": 9 }))
}
