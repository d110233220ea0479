//! Hundreds of hosts: servers in this process that play sshd and agent, and the real program in front of them. Printed is
//! the curve of seconds and of the program's memory.
//!
//! The hosts are nodes of a cluster with nothing to do: `plan` asks each for its facts, for the blobs that it lacks (none) and
//! for a rehearsal of all that `up` would do (nothing). The cluster's API is not played.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clusterctl::fact::{EtcdOrigin, Facts, KubernetesState};
use clusterctl::message::{Envelope, Foreseen, Reply, Request};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId};

use crate::program::{Running, clusterctl};

const COUNTS: [usize; 4] = [10, 50, 200, 500];
/// The memory that is asked for, in KiB.
const MEMORY: u64 = 150 << 10;

/// Of Kubernetes, in the inventory and in the bundle.
const VERSION: &str = "1.36.3";

/// The agent of a node that is as it should be.
#[derive(Default)]
struct Simulated {
    pending: Vec<u8>,
    number: u32,
}

impl Simulated {
    fn facts(&self) -> Facts {
        let made = KubernetesState {
            kubelet_conf: true,
            ca_hash: Some(format!("sha256:{}", "ab".repeat(32))),
            kubelet_version: Some(VERSION.to_owned()),
            journal_cluster: Some("curve".to_owned()),
            ..KubernetesState::default()
        };
        let kubernetes = match self.number {
            0 => KubernetesState {
                manifests: ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
                    .map(|name| format!("{name}.yaml"))
                    .to_vec(),
                etcd: Some(EtcdOrigin::Made),
                serves: true,
                etcd_data: true,
                ..made
            },
            _ => made,
        };
        Facts {
            hostname: format!("h{}", self.number),
            architecture: "amd64".to_owned(),
            systemd: true,
            kubernetes,
            ..Facts::default()
        }
    }

    fn result(&self, request: &Request) -> serde_json::Value {
        match request {
            Request::Facts => serde_json::to_value(self.facts()).unwrap(),
            Request::Lacking { .. } => serde_json::json!([]),
            Request::Rehearse(order) => serde_json::to_value(vec![Foreseen::default(); order.requests.len()]).unwrap(),
            _ => serde_json::Value::Null,
        }
    }

    fn answer(&mut self, data: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(data);
        let mut said = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let asked: Vec<u8> = self.pending.drain(..=end).collect();
            let reply = match serde_json::from_slice::<Envelope>(&asked) {
                Ok(Envelope { id, request }) => Reply::Answer { id, result: Ok(self.result(&request)) },
                Err(_) => continue,
            };
            said.extend(line(&reply));
        }
        said
    }
}

fn line(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap();
    line.push(b'\n');
    line
}

impl server::Handler for Simulated {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        if command == b"true" {
            session.exit_status_request(channel, 0)?;
            session.eof(channel)?;
            session.close(channel)?;
        } else {
            session.data(channel, line(&Reply::Ready))?;
        }
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let said = self.answer(data);
        if !said.is_empty() {
            session.data(channel, said)?;
        }
        Ok(())
    }
}

fn address(number: u32) -> Ipv4Addr {
    let [_, _, high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// Starts the servers, each at an address of its own; returns the port of all and the line of their key.
async fn servers(count: usize) -> (u16, String) {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let public = key.public_key().to_openssh().unwrap();
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        nodelay: true,
        ..server::Config::default()
    });
    let first = tokio::net::TcpListener::bind((address(0), 0)).await.unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    for number in 1..u32::try_from(count).unwrap() {
        listeners.push(tokio::net::TcpListener::bind((address(number), port)).await.unwrap());
    }
    for (number, listener) in (0..).zip(listeners) {
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving =
                    server::run_stream(Arc::clone(&config), stream, Simulated { number, ..Simulated::default() });
                tokio::spawn(async move {
                    if let Ok(session) = serving.await {
                        let _ = session.await;
                    }
                });
            }
        });
    }
    (port, public)
}

/// What one run took.
struct Taken {
    seconds: f64,
    /// Its largest resident size in KiB.
    memory: u64,
    stdout: String,
}

/// Runs the program to its end.
fn measure(arguments: &[&str], code: i32) -> Taken {
    let began = Instant::now();
    let mut running = Running::start(&clusterctl(), arguments, &[]);
    let status = format!("/proc/{}/status", running.id());
    let mut most = 0;
    // The file of a process that has ended names no memory.
    while let Some(size) = std::fs::read_to_string(&status).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    }) {
        most = most.max(size);
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let finished = running.finish();
    assert_eq!(finished.code, code, "{}\n{}", finished.stdout, finished.stderr);
    Taken { seconds: began.elapsed().as_secs_f64(), memory: most, stdout: finished.stdout }
}

/// A bundle with the names that one has, and nothing in them: no host gets any of it.
fn bundle(folder: &Path) -> std::path::PathBuf {
    let content = folder.join("content");
    for path in [
        "bin/kubelet bin/kubectl bin/containerd bin/containerd-shim-runc-v2 bin/ctr bin/runc",
        "cni/bridge cni/host-local cni/loopback cni/portmap",
    ]
    .iter()
    .flat_map(|paths| paths.split(' '))
    {
        let path = content.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, path.to_str().unwrap()).unwrap();
    }
    std::fs::create_dir_all(content.join("images")).unwrap();
    for image in [
        "kube-apiserver:v1.36.3",
        "kube-controller-manager:v1.36.3",
        "kube-scheduler:v1.36.3",
        "kube-proxy:v1.36.3",
        "etcd:3.6.8-0",
        "coredns/coredns:v1.14.2",
        "pause:3.10.2",
    ] {
        let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["registry.k8s.io/{image}"],"Layers":[]}}]"#);
        std::fs::write(folder.join("manifest.json"), manifest).unwrap();
        let name = image.split(':').next().unwrap().rsplit('/').next().unwrap();
        let archive = content.join(format!("images/{name}.tar"));
        let packed = crate::program::call(
            Path::new("tar"),
            &["-C", folder.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "manifest.json"],
            &[],
        );
        assert_eq!(packed.code, 0, "{}", packed.stderr);
    }
    let bundle = folder.join("bundle");
    let [from, to] = [&content, &bundle].map(|path| path.to_str().unwrap());
    let arguments =
        ["bundle", "create", "--from", from, "--kubernetes", VERSION, "--arch", "amd64", "-o", to, "--quiet"];
    measure(&arguments, 0);
    bundle
}

fn inventory(folder: &Path, count: usize, port: u16, key: &str) -> std::path::PathBuf {
    let (identity, known) = (folder.join("key"), folder.join(format!("known{count}")));
    let hosts = (0..u32::try_from(count).unwrap()).map(|number| {
        let role = if number == 0 { "control-plane" } else { "worker" };
        let [_, _, high, low] = (number + 1).to_be_bytes();
        let address = address(number);
        format!("  h{number}: {{address: \"{address}:{port}\", node_address: 10.77.{high}.{low}, role: {role}}}\n")
    });
    let text = format!(
        "cluster: {{name: curve, kubernetes: {VERSION}, network: {{plugin: none}}}}\nssh: {{user: root, identity: {}, known_hosts: {}, agent: false, become: none}}\nhosts:\n{}",
        identity.display(),
        known.display(),
        hosts.collect::<String>()
    );
    let lines = (0..u32::try_from(count).unwrap()).map(|number| format!("[{}]:{port} {key}\n", address(number)));
    std::fs::write(known, lines.collect::<String>()).unwrap();
    let path = folder.join(format!("inventory{count}.yaml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Long; `benches/ssh-exec.sh` runs it with the program of a release.
#[test]
#[ignore = "a measurement"]
fn the_curve_of_many_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let made = crate::program::call(
        Path::new("ssh-keygen"),
        &["-q", "-t", "ed25519", "-N", "", "-f", folder.path().join("key").to_str().unwrap()],
        &[],
    );
    assert_eq!(made.code, 0, "{}", made.stderr);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (port, key) = runtime.block_on(servers(COUNTS[COUNTS.len() - 1]));
    let bundle = bundle(folder.path());
    let heads = ["exec s", "exec MiB", "status s", "status MiB", "plan s", "plan MiB"];
    println!("{:>6}{}", "hosts", heads.map(|head| format!(" {head:>10}")).concat());
    for count in COUNTS {
        let path = inventory(folder.path(), count, port, &key);
        let path = path.to_str().unwrap();
        let exec = measure(&["exec", "-i", path, "--quiet", "--no-stdin", "--", "true"], 0);
        let status = measure(&["status", "-i", path, "--quiet"], 0);
        let arguments = ["plan", "-i", path, "--bundle", bundle.to_str().unwrap(), "--output", "json"];
        // What is to do: the kubeconfig on this machine is to be written.
        let plan = measure(&arguments, 20);
        let preview: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        let hosts = preview["hosts"].as_array().unwrap();
        assert_eq!(hosts.len(), count);
        assert!(hosts.iter().all(|host| host["steps"].as_array().is_some_and(Vec::is_empty)), "{preview}");
        assert_eq!(preview["changes"], 1, "{preview}");
        let cells = [&exec, &status, &plan]
            .map(|taken| format!(" {:>10.2} {:>10}", taken.seconds, taken.memory >> 10))
            .concat();
        println!("{count:>6}{cells}");
        let most = exec.memory.max(status.memory).max(plan.memory);
        assert!(most <= MEMORY, "{count} hosts take {most} KiB");
    }
}
