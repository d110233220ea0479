//! All pods of this host, with the runtime's help or, where it is dead, without.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::sweep::Sweep;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host};

/// containerd's own client, which comes with it everywhere. Ours first.
const CLIENTS: &[&str] = &["/usr/local/bin/ctr", "/usr/bin/ctr"];

/// containerd's name for what Kubernetes runs.
const NAMESPACE: &str = "k8s.io";

/// Where containerd keeps the containers of Kubernetes; it does not tidy up after containers that ended without it.
const LEFT: &[&str] = &[
    "/run/containerd/runc/k8s.io",
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
    "/run/containerd/io.containerd.grpc.v1.cri/containers",
    "/run/containerd/io.containerd.grpc.v1.cri/sandboxes",
    "/var/lib/containerd/io.containerd.runtime.v2.task/k8s.io",
    "/var/lib/containerd/io.containerd.grpc.v1.cri/containers",
    "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
];

/// How many names go into one command line.
const NAMES_AT_ONCE: usize = 100;

/// Stops and removes all containers of Kubernetes. A runtime that does not answer is passed by: processes are found by
/// their control group and killed.
///
/// `socket` is the one of the runtime, where it is not containerd's usual one; another runtime than containerd finds out
/// by itself that its containers ended.
///
/// Answers whether a living runtime had containers.
pub(super) async fn stop(host: &dyn Host, socket: Option<&str>, sweep: &mut Sweep) -> bool {
    kill(host, sweep).await;
    let address = socket.map(|socket| socket.strip_prefix("unix://").unwrap_or(socket));
    if address.is_some_and(|address| !address.contains("containerd")) {
        return false;
    }
    for program in CLIENTS {
        match host.entry(Path::new(program)) {
            Ok(Some(_)) => return forget(host, Client { program, address }, sweep).await,
            Ok(None) => {}
            Err(failure) => {
                sweep.resisted(failure);
                return false;
            }
        }
    }
    false
}

/// Removes what containerd keeps on disk of them, once nothing of it is mounted any more, and has it notice: it holds
/// the names of pods, which the pods of the next cluster may have too. `had_containers` is what [`stop`] answered.
pub(super) async fn remove_state(host: &dyn Host, had_containers: bool, sweep: &mut Sweep) {
    let mut removed = had_containers;
    for directory in LEFT.iter().map(Path::new) {
        match host.list(directory) {
            Ok(names) if names.is_empty() => continue,
            Ok(_) => {}
            Err(failure) => {
                sweep.resisted(failure);
                continue;
            }
        }
        removed = true;
        sweep.changes_of(host.remove_tree(directory).map(|()| true), &format!("{} removed", directory.display()));
    }
    if removed {
        let restarted = host.run(Command::new("systemctl", &["try-restart", "containerd"])).await;
        sweep.changes_of(restarted.map(|_| false), "");
    }
}

/// containerd's client, and where it finds containerd.
#[derive(Debug, Clone, Copy)]
struct Client<'a> {
    program: &'a str,
    address: Option<&'a str>,
}

impl Client<'_> {
    fn command(self, arguments: &[&str]) -> Command {
        let mut words = self.address.map_or_else(Vec::new, |address| vec!["--address", address]);
        words.extend(["--connect-timeout", "2s", "-n", NAMESPACE]);
        words.extend(arguments);
        Command::new(self.program, &words)
    }
}

/// A process as far as we must know it.
struct Process {
    id: String,
    command: String,
}

/// Kills every process of a pod and the runtime's keepers of them, until none is left.
async fn kill(host: &dyn Host, sweep: &mut Sweep) {
    let killed = AtomicBool::new(false);
    // A container that is being started may appear while the others are killed: look again until there is none.
    let wait = Wait::new("the pods' processes", "end", Duration::from_secs(20));
    let ended = wait
        .until(async || {
            let processes = of_pods(host)?;
            if processes.is_empty() {
                return Ok(Look::There(()));
            }
            killed.store(true, Ordering::Relaxed);
            for chunk in processes.chunks(NAMES_AT_ONCE) {
                let mut arguments = vec!["-KILL"];
                arguments.extend(chunk.iter().map(|process| process.id.as_str()));
                // One that ended meanwhile makes the status 1; the next look tells.
                host.run(Command::new("kill", &arguments)).await?;
            }
            Ok(Look::NotYet(format!("{} ({}) is still there", processes[0].command, processes[0].id)))
        })
        .await;
    if killed.load(Ordering::Relaxed) {
        sweep.changed("all pods' processes ended");
    }
    if let Err(failure) = ended {
        sweep.resisted(Failure { kind: Kind::Host, ..failure });
    }
}

/// Processes in a pod's control group, and the shims of Kubernetes' containers.
fn of_pods(host: &dyn Host) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for id in host.list(Path::new("/proc"))? {
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let directory = Path::new("/proc").join(&id);
        // A process that ends while it is looked at is no failure.
        let read = |name: &str| host.read(&directory.join(name)).ok().flatten().unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ").trim().to_owned();
        let in_pod = String::from_utf8_lossy(&read("cgroup")).contains("/kubepods");
        // A process that ended and waits to be collected has no command line and cannot be killed again.
        if (in_pod && !command.is_empty()) || is_shim(&command) {
            found.push(Process { id, command });
        }
    }
    Ok(found)
}

fn is_shim(command: &str) -> bool {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    program.starts_with("containerd-shim")
        && command.split(' ').zip(words).any(|(flag, value)| flag == "-namespace" && value == NAMESPACE)
}

/// Has a living containerd forget its containers of Kubernetes; a dead one has nothing to say. Answers whether there were
/// any.
async fn forget(host: &dyn Host, client: Client<'_>, sweep: &mut Sweep) -> bool {
    let mut any = false;
    // Order matters: a container with a task stays, a sandbox with containers stays.
    let kinds: [(&str, &[&str]); 3] =
        [("tasks", &["rm", "--force"]), ("containers", &["rm"]), ("sandboxes", &["rm", "--force"])];
    for (kind, removal) in kinds {
        let Some(names) = names(host, client, kind).await else { continue };
        any |= !names.is_empty();
        for chunk in names.chunks(NAMES_AT_ONCE) {
            let mut arguments = vec![kind];
            arguments.extend(removal);
            arguments.extend(chunk.iter().map(String::as_str));
            // What could not be removed shows in the list that follows.
            if let Err(failure) = host.run(client.command(&arguments)).await {
                sweep.resisted(failure);
            }
        }
        let left = self::names(host, client, kind).await.unwrap_or_default();
        if names.len() > left.len() {
            sweep.changed(format!("{} {kind} of Kubernetes removed from containerd", names.len() - left.len()));
        }
        if let Some(first) = left.first() {
            sweep.resisted(Failure::new(
                Kind::Host,
                format!("containerd keeps {} {kind} of Kubernetes, {first} among them", left.len()),
            ));
        }
    }
    any
}

/// Names of all objects of a kind in Kubernetes' namespace; `None` where containerd does not answer or does not know
/// the kind.
async fn names(host: &dyn Host, client: Client<'_>, kind: &str) -> Option<Vec<String>> {
    let mut arguments = vec![kind, "ls"];
    if kind != "sandboxes" {
        arguments.push("-q");
    }
    let listed = host.run(client.command(&arguments).limit(Duration::from_secs(20))).await.ok()?;
    let text = listed.success().then(|| listed.text())?;
    // Sandboxes have no short form: the first column, without its heading.
    let lines = text.lines().skip(usize::from(kind == "sandboxes"));
    Some(lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{is_shim, remove_state, stop};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::host::{Host as _, Output};
    use crate::node::reset::sweep::Sweep;

    #[test]
    fn a_shim_is_known_by_its_namespace() {
        assert!(is_shim("/usr/local/bin/containerd-shim-runc-v2 -namespace k8s.io -id 1 -address /run/x"));
        assert!(!is_shim("/usr/local/bin/containerd-shim-runc-v2 -namespace moby -id 1"));
        assert!(!is_shim("grep -namespace k8s.io"));
    }

    #[tokio::test]
    async fn pods_go_even_where_the_runtime_is_dead() {
        let host = FakeHost::new()
            .file("/usr/local/bin/ctr", "")
            .file("/proc/1/cmdline", "/sbin/init\0")
            .file("/proc/1/cgroup", "0::/init.scope\n")
            .file("/proc/77/cmdline", "etcd\0--name\0")
            .file("/proc/77/cgroup", "4:memory:/kubepods/burstable/pod1/x\n")
            .file("/proc/78/cmdline", "/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0")
            .file("/proc/78/cgroup", "0::/system.slice/containerd.service\n")
            .answer(&["/usr/local/bin/ctr"], 1, "")
            .answer_with(&["kill", "-KILL"], |host, command| {
                for id in &command.arguments[1..] {
                    host.remove_tree(&Path::new("/proc").join(id))?;
                }
                Ok(Output::default())
            });
        let mut sweep = Sweep::new(&Events::nowhere());
        assert!(!stop(&host, None, &mut sweep).await);
        assert_eq!(sweep.finish(), Ok(1));
        assert!(host.done().contains(&"run kill -KILL 77 78".to_owned()));
    }

    #[rstest]
    #[case(None, Some("ctr --connect-timeout 2s -n k8s.io"))]
    #[case(
        Some("unix:///run/k3s/containerd/containerd.sock"),
        Some("--address /run/k3s/containerd/containerd.sock --connect-timeout 2s -n k8s.io")
    )]
    #[case(Some("unix:///run/crio/crio.sock"), None)]
    #[tokio::test]
    async fn the_runtime_is_asked_at_its_socket(#[case] socket: Option<&str>, #[case] asked: Option<&str>) {
        let host = FakeHost::new().file("/usr/local/bin/ctr", "").answer(&["/usr/local/bin/ctr"], 0, "");
        let mut sweep = Sweep::new(&Events::nowhere());
        stop(&host, socket, &mut sweep).await;
        let commands: Vec<String> = host.done().into_iter().filter(|line| line.contains("/ctr ")).collect();
        match asked {
            Some(words) => {
                assert!(!commands.is_empty() && commands.iter().all(|line| line.contains(words)), "{commands:?}")
            }
            None => assert!(commands.is_empty(), "{commands:?}"),
        }
    }

    #[tokio::test]
    async fn what_the_runtime_keeps_goes_and_the_runtime_notices() {
        let host = FakeHost::new()
            .file("/var/lib/containerd/io.containerd.grpc.v1.cri/containers/a/status", "")
            .directory("/var/lib/containerd/io.containerd.runtime.v2.task/moby/b")
            .answer(&["systemctl", "try-restart", "containerd"], 0, "");
        let mut sweep = Sweep::new(&Events::nowhere());
        remove_state(&host, false, &mut sweep).await;
        remove_state(&host, false, &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(1));
        assert_eq!(
            host.done(),
            [
                "remove-tree /var/lib/containerd/io.containerd.grpc.v1.cri/containers",
                "run systemctl try-restart containerd",
            ]
        );
    }
}
