//! Ending what a lost connection left on a host: sshd may take hours to notice that nobody is there any more, and until then
//! the agent it serves holds the lock and may be in the middle of a step, and a receiver holds back what it brings.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    session: i32,
    name: String,
}

/// Reads `/proc/ID/stat` (proc_pid_stat(5)): the name is in brackets and may hold anything.
fn read(stat: &str) -> Option<Process> {
    let (id, rest) = stat.split_once('(')?;
    let (name, after) = rest.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let (_, parent, _, session) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let (id, parent, session) = (id.trim().parse().ok()?, parent.parse().ok()?, session.parse().ok()?);
    Some(Process { id, parent, session, name: name.to_owned() })
}

fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir(Path::new("/proc")) else { return Vec::new() };
    let ids = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    ids.filter_map(|entry| read(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

/// How processes of ours are called, behind which the kernel may have cut something off.
const OURS: &str = "clusterctl";

/// Whom to end: the sshd that serves the old agent's connection with all that came of it; without one the agent's
/// session. Never this process or what it hangs on. A connection that a person has sessions of their own in (ssh's
/// ControlMaster) stays, without ours.
fn victims(processes: &[Process], old: i32, own: i32) -> BTreeSet<i32> {
    let find = |id: i32| processes.iter().find(|process| process.id == id);
    let line = |id: i32| std::iter::successors(find(id), |process| find(process.parent)).take(processes.len());
    let ours: BTreeSet<i32> = line(own).map(|process| process.id).collect();
    let Some(agent) = find(old).filter(|agent| !ours.contains(&agent.id)) else { return BTreeSet::new() };
    let serving = line(old).find(|process| process.name.starts_with("sshd")).filter(|sshd| !ours.contains(&sshd.id));
    let has_ours = |session: i32| {
        let mut ours = processes.iter().filter(|process| process.name.starts_with(OURS));
        ours.any(|process| line(process.id).any(|ancestor| ancestor.id == session))
    };
    let sessions = |sshd: i32| processes.iter().filter(move |process| process.parent == sshd);
    let is_shared = serving.is_some_and(|sshd| !sessions(sshd.id).all(|session| has_ours(session.id)));
    let meant = |process: &&Process| match serving {
        Some(sshd) if is_shared => {
            sessions(sshd.id).any(|session| has_ours(session.id) && line(process.id).any(|it| it.id == session.id))
        }
        Some(sshd) => line(process.id).any(|ancestor| ancestor.id == sshd.id),
        None => process.session == agent.session || line(process.id).any(|ancestor| ancestor.id == agent.id),
    };
    processes.iter().filter(meant).map(|process| process.id).filter(|id| !ours.contains(id)).collect()
}

/// Ends the agent with this process id and everything of its connection.
pub(super) fn evict(old: i32) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for victim in victims(&processes(), old, own) {
        if let Some(id) = Pid::from_raw(victim) {
            // Gone already is what is wanted.
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Process, read, victims};

    #[rstest]
    #[case("42 (sh) S 7 42 40 0 -1 4194560", Some((42, 7, 40, "sh")))]
    #[case("42 (a) b (c)) S 7 42 40 0", Some((42, 7, 40, "a) b (c)")))]
    #[case("42 sh S 7", None)]
    #[case("", None)]
    fn a_process_is_read(#[case] stat: &str, #[case] expected: Option<(i32, i32, i32, &str)>) {
        let read = read(stat);
        assert_eq!(read.as_ref().map(|p| (p.id, p.parent, p.session, p.name.as_str())), expected);
    }

    fn tree() -> Vec<Process> {
        let process = |id, parent, session, name: &str| Process { id, parent, session, name: name.to_owned() };
        vec![
            process(1, 0, 1, "systemd"),
            process(10, 1, 10, "sshd"),
            // The lost connection: an agent by sudo, with a child, and a receiver.
            process(20, 10, 20, "sshd-session"),
            process(21, 20, 21, "sudo"),
            process(22, 21, 21, "clusterctl"),
            process(23, 22, 21, "ctr"),
            process(24, 20, 24, "clusterctl"),
            // The new one.
            process(30, 10, 30, "sshd-session"),
            process(31, 30, 31, "clusterctl"),
            // Started by the old one, and none of its business any more.
            process(40, 1, 40, "containerd"),
        ]
    }

    #[test]
    fn the_lost_connection_goes_with_all_that_came_of_it() {
        assert_eq!(victims(&tree(), 22, 31).into_iter().collect::<Vec<_>>(), [20, 21, 22, 23, 24]);
        // Another agent in the same connection: only that one.
        assert_eq!(victims(&tree(), 22, 24).into_iter().collect::<Vec<_>>(), [21, 22, 23]);
        // A person's own shell beside it, through the same master.
        let mut shared = tree();
        shared.push(Process { id: 50, parent: 20, session: 50, name: "bash".to_owned() });
        assert_eq!(victims(&shared, 22, 31).into_iter().collect::<Vec<_>>(), [21, 22, 23, 24]);
        assert!(victims(&tree(), 31, 31).is_empty() && victims(&tree(), 99, 31).is_empty());
    }
}
