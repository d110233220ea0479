//! Hundreds of hosts: servers in this process that play sshd and agent, and the real program in front of them. Printed is
//! the curve of seconds and of the program's memory.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clusterctl::fact::Facts;
use clusterctl::message::{BEGIN, Envelope, Reply, Request};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId};

use crate::program::{Running, clusterctl};

const COUNTS: [usize; 4] = [10, 50, 200, 500];
/// The memory that is asked for, in KiB.
const MEMORY: u64 = 150 << 10;

/// An agent that knows its facts and nothing else.
#[derive(Default)]
struct Simulated {
    pending: Vec<u8>,
    number: u32,
}

impl Simulated {
    fn facts(&self) -> Facts {
        Facts { hostname: format!("h{}", self.number), ..Facts::default() }
    }

    fn answer(&mut self, data: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(data);
        let mut said = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let reply = match serde_json::from_slice::<Envelope>(&line) {
                Ok(Envelope { id, request: Request::Facts }) => {
                    Reply::Answer { id, result: Ok(serde_json::to_value(self.facts()).unwrap()) }
                }
                Ok(Envelope { id, .. }) => Reply::Answer { id, result: Ok(serde_json::Value::Null) },
                Err(_) if line.starts_with(BEGIN.as_bytes()) => Reply::Ready,
                Err(_) => continue,
            };
            said.extend(serde_json::to_vec(&reply).unwrap());
            said.push(b'\n');
        }
        said
    }
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

/// Runs the program to its end; seconds and its largest resident size in KiB.
fn measure(arguments: &[&str], code: i32) -> (f64, u64) {
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
    (began.elapsed().as_secs_f64(), most)
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
        "cluster: {{name: curve}}\nssh: {{user: root, identity: {}, known_hosts: {}, agent: false, become: none}}\nhosts:\n{}",
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
    println!("{:>6} {:>12} {:>12} {:>12} {:>12}", "hosts", "exec s", "exec MiB", "status s", "status MiB");
    for count in COUNTS {
        let path = inventory(folder.path(), count, port, &key);
        let path = path.to_str().unwrap();
        let (exec, exec_memory) = measure(&["exec", "-i", path, "--quiet", "--no-stdin", "--", "true"], 0);
        let (status, status_memory) = measure(&["status", "-i", path, "--quiet"], 0);
        println!("{count:>6} {exec:>12.2} {:>12} {status:>12.2} {:>12}", exec_memory >> 10, status_memory >> 10);
        assert!(exec_memory.max(status_memory) <= MEMORY, "{count} hosts take {} KiB", exec_memory.max(status_memory));
    }
}
