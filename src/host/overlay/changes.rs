//! What a dry run comes to: each path it touched, as it is and as it would be, and the programs it would have run.

use std::path::Path;

use super::{Fate, Noted, Overlay};
use crate::change::{Action, Change, Difference, Kind, difference};
use crate::failure::Result;
use crate::host::journal::STATE_DIRECTORY;
use crate::host::{Entry, EntryKind};

/// What clusterctl and kubeadm keep for themselves.
const OWN: &[&str] = &[STATE_DIRECTORY, "/etc/kubernetes/tmp"];

/// Where kernel parameters are.
const PARAMETERS: &str = "/proc/sys";

/// Where the kubelet finds static pods: one that is altered is started anew.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The folder of kubeconfigs.
const KUBECONFIGS: &str = "/etc/kubernetes";

/// File name extensions of keys and certificates: what a dry run makes of them is not what a real run makes.
const CREDENTIALS: &[&str] = &["crt", "csr", "key", "pem", "pub"];

/// What a program alters by its words; `None` for what a person need not know.
pub(super) fn of_program(program: &str, arguments: &[&str]) -> Option<Change> {
    let whole = || Change::new(Kind::Command, Action::Run, format!("{program} {}", arguments.join(" ")).trim_end());
    let named = arguments.iter().skip(1).rfind(|word| !word.starts_with('-'));
    match (program, arguments.first().copied(), named) {
        ("systemctl", Some("daemon-reload" | "reset-failed"), _) | ("cp" | "sync", ..) => None,
        ("systemctl", Some(verb @ ("enable" | "disable" | "start" | "stop" | "restart")), Some(unit)) => {
            Some(Change::new(Kind::Unit, Action::Update, with_suffix(unit)).detailed(verb))
        }
        ("modprobe", Some(module), None) => Some(Change::new(Kind::Module, Action::Create, module).detailed("load")),
        ("swapoff", ..) => Some(whole().disrupting(true)),
        _ => Some(whole()),
    }
}

/// The unit that a program would interrupt if it runs.
pub(super) fn interrupted<'a>(program: &str, arguments: &[&'a str]) -> Option<&'a str> {
    match (program, arguments) {
        ("systemctl", ["restart" | "stop", .., unit]) => Some(unit),
        _ => None,
    }
}

/// systemd's full name of a unit.
fn with_suffix(unit: &str) -> String {
    if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }
}

/// A directory gets other permission bits.
pub(super) fn of_mode(path: &Path, from: u32, to: u32) -> Change {
    Change::new(Kind::Directory, Action::Update, path.display().to_string())
        .detailed(format!("mode {from:04o} to {to:04o}"))
}

/// A mount goes.
pub(super) fn of_unmounting(path: &Path) -> Change {
    Change::new(Kind::Command, Action::Run, format!("umount {}", path.display())).disrupting(true)
}

impl Overlay<'_> {
    /// What would be other than it is on the host below, in the order in which it was first touched. What clusterctl keeps
    /// for itself is left out; so is what was touched and comes to the same.
    ///
    /// # Errors
    /// When the host below cannot be read.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let noted = self.state().noted.clone();
        let mut changes = Vec::new();
        for noted in noted {
            match noted {
                Noted::Done(change) => changes.push(change),
                Noted::Path(path) if OWN.iter().any(|own| path.starts_with(own)) => {}
                Noted::Path(path) => changes.extend(self.change_of(&path)?),
            }
        }
        Ok(changes)
    }

    fn change_of(&self, path: &Path) -> Result<Option<Change>> {
        let Some(fate) = self.state().fates.get(path).cloned() else { return Ok(None) };
        let before = self.below.entry(path)?;
        let shown = path.display().to_string();
        if let (Ok(key), Fate::File { content, .. }) = (path.strip_prefix(PARAMETERS), &fate) {
            let was = self.below.read(path)?.unwrap_or_default();
            return Ok(parameter(key, &was, content));
        }
        let action = if before.is_some() { Action::Update } else { Action::Create };
        Ok(match fate {
            Fate::Gone => match before {
                None => None,
                Some(entry) => Some(self.removal(path, &entry)?),
            },
            Fate::Directory { mode } => match before {
                Some(Entry { kind: EntryKind::Directory, .. }) => None,
                _ => Some(Change::new(Kind::Directory, action, shown).detailed(format!("{mode:04o}"))),
            },
            Fate::Link(target) => match before {
                Some(Entry { kind: EntryKind::Link(there), .. }) if there == target => None,
                _ => Some(Change::new(Kind::Link, action, shown).detailed(format!("to {}", target.display()))),
            },
            Fate::Blob { sha256, size, mode } => {
                let there = before.as_ref().filter(|entry| entry.kind == EntryKind::File);
                if there.is_some() && self.below.sha256(path)?.as_deref() == Some(&sha256) {
                    there.and_then(|entry| mode_change(&shown, entry, mode))
                } else {
                    let detail = match size {
                        // It is not known before it is downloaded.
                        0 => format!("{mode:04o}"),
                        size => format!("{mode:04o}, {}", megabytes(size)),
                    };
                    Some(Change::new(Kind::Package, action, shown).detailed(detail))
                }
            }
            Fate::Copy { of, mode } => {
                let same = before.is_some() && self.below.sha256(path)? == self.below.sha256(&of)?;
                match before.as_ref().filter(|_| same) {
                    Some(entry) => mode_change(&shown, entry, mode),
                    None => Some(
                        Change::new(Kind::File, action, shown)
                            .detailed(format!("{mode:04o}, copy of {}", of.display())),
                    ),
                }
            }
            Fate::File { content, mode } => self.file(path, before.as_ref(), &content, mode)?,
        })
    }

    fn file(&self, path: &Path, before: Option<&Entry>, content: &[u8], mode: u32) -> Result<Option<Change>> {
        let shown = path.display().to_string();
        let is_file = before.is_some_and(|entry| entry.kind == EntryKind::File);
        let was = if is_file { self.below.read(path)? } else { None };
        if let (Some(entry), true) = (before, was.as_deref() == Some(content)) {
            return Ok(mode_change(&shown, entry, mode));
        }
        let action = if before.is_some() { Action::Update } else { Action::Create };
        let detail = match before.filter(|entry| is_file && entry.mode != mode) {
            Some(entry) => format!("mode {:04o} to {mode:04o}", entry.mode),
            None => format!("{mode:04o}"),
        };
        let change = Change::new(Kind::File, action, shown).detailed(detail);
        let restarts_pod = path.starts_with(MANIFESTS) && before.is_some();
        let difference = match is_credential(path) {
            true => Difference::None,
            false => difference(was.as_deref(), Some(content)),
        };
        Ok(Some(change.with(difference).disrupting(restarts_pod)))
    }

    fn removal(&self, path: &Path, entry: &Entry) -> Result<Change> {
        let kind = match entry.kind {
            EntryKind::Directory => Kind::Directory,
            EntryKind::Link(_) => Kind::Link,
            EntryKind::File | EntryKind::Other => Kind::File,
        };
        let change = Change::new(kind, Action::Remove, path.display().to_string());
        if entry.kind != EntryKind::File || is_credential(path) {
            return Ok(change);
        }
        let was = self.below.read(path)?;
        Ok(change.with(difference(was.as_deref(), None)).disrupting(path.starts_with(MANIFESTS)))
    }
}

/// A size in words.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Whether a dry run makes something else of a file than a real run: keys, certificates, kubeconfigs with either.
fn is_credential(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    CREDENTIALS.contains(&extension) || (extension == "conf" && path.parent() == Some(Path::new(KUBECONFIGS)))
}

fn mode_change(path: &str, entry: &Entry, mode: u32) -> Option<Change> {
    let detail = || format!("mode {:04o} to {mode:04o}", entry.mode);
    (entry.mode != mode).then(|| Change::new(Kind::File, Action::Update, path).detailed(detail()))
}

/// A kernel parameter by its path below /proc/sys.
fn parameter(key: &Path, was: &[u8], content: &[u8]) -> Option<Change> {
    let words = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).split_whitespace().map(str::to_owned).collect::<Vec<String>>().join(" ")
    };
    // A dot inside a link's name is written as a slash.
    let parts = key.iter().map(|part| part.to_string_lossy().replace('.', "/"));
    let name = parts.collect::<Vec<String>>().join(".");
    let (from, to) = (words(was), words(content));
    (from != to).then(|| Change::new(Kind::Sysctl, Action::Update, name).detailed(format!("from {from} to {to}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{Overlay, of_program};
    use crate::change::{Action, Change, Kind};
    use crate::host::fake::FakeHost;
    use crate::host::journal::Journal;
    use crate::host::{Command, Host};

    fn line(change: &Change) -> String {
        let disrupts = if change.disrupts { " !" } else { "" };
        format!("{:?} {:?} {} [{}]{disrupts}", change.kind, change.action, change.subject, change.detail)
    }

    #[rstest]
    #[case("systemctl", &["daemon-reload"], None)]
    #[case("systemctl", &["enable", "--quiet", "--no-reload", "kubelet"], Some("Unit Update kubelet.service [enable]"))]
    #[case("systemctl", &["restart", "a.socket"], Some("Unit Update a.socket [restart]"))]
    #[case("modprobe", &["overlay"], Some("Module Create overlay [load]"))]
    #[case("swapoff", &["/dev/sda2"], Some("Command Run swapoff /dev/sda2 [] !"))]
    #[case("ip", &["route", "replace", "10.244.1.0/24"], Some("Command Run ip route replace 10.244.1.0/24 []"))]
    #[case("sync", &["/a"], None)]
    fn programs(#[case] program: &str, #[case] arguments: &[&str], #[case] expected: Option<&str>) {
        assert_eq!(of_program(program, arguments).as_ref().map(line).as_deref(), expected);
    }

    #[tokio::test]
    async fn what_differs_is_told_once_and_the_host_is_not_touched() {
        let host = FakeHost::new()
            .file("/etc/a/one", "1\n")
            .file("/etc/a/same", "same")
            .file("/etc/a/gone", "old\n")
            .file("/etc/kubernetes/manifests/etcd.yaml", "a: 1\n")
            .file("/proc/sys/net/ipv4/ip_forward", "0\n")
            .file("/bin/clusterctl", "program")
            .directory("/var/lib")
            .answer(&["systemctl", "show"], 0, "LoadState=loaded\nActiveState=active\n");
        let before = host.listing();
        let overlay = Overlay::in_memory(&host);
        let write = |path: &str, content: &str, mode| overlay.write(Path::new(path), content.as_bytes(), mode).unwrap();
        write("/etc/a/one", "1\n2\n", 0o600);
        write("/etc/a/one", "1\n2\n3\n", 0o644);
        write("/etc/a/same", "same", 0o644);
        overlay.remove(Path::new("/etc/a/gone")).unwrap();
        write("/etc/kubernetes/manifests/etcd.yaml", "a: 2\n", 0o644);
        write("/etc/kubernetes/admin.conf", "client-key-data: abc\n", 0o600);
        overlay.poke(Path::new("/proc/sys/net/ipv4/ip_forward"), b"1\n").unwrap();
        // Made and moved: only the end is told.
        let run = async |words: &[&str]| overlay.run(Command::new(words[0], &words[1..])).await.unwrap();
        run(&["cp", "--force", "/bin/clusterctl", "/bin/.part"]).await;
        overlay.set_mode(Path::new("/bin/.part"), 0o755).unwrap();
        overlay.rename(Path::new("/bin/.part"), Path::new("/bin/balancer")).unwrap();
        assert_eq!(overlay.sha256(Path::new("/bin/balancer")), host.sha256(Path::new("/bin/clusterctl")));
        overlay.place(Path::new("/bin/kubelet"), "f00", 7, 0o755);
        for _ in 0..2 {
            run(&["systemctl", "restart", "kubelet"]).await;
        }
        // What clusterctl keeps for itself.
        Journal::open(&overlay, "demo").unwrap().write_file(&overlay, Path::new("/etc/b/x"), b"", 0o644).unwrap();
        let changes = overlay.changes().unwrap();
        assert_eq!(
            changes.iter().map(line).collect::<Vec<_>>(),
            [
                "File Update /etc/a/one [0644]",
                "File Remove /etc/a/gone []",
                "File Update /etc/kubernetes/manifests/etcd.yaml [0644] !",
                "File Create /etc/kubernetes/admin.conf [0600]",
                "Sysctl Update net.ipv4.ip_forward [from 0 to 1]",
                "File Create /bin/balancer [0755, copy of /bin/clusterctl]",
                "Package Create /bin/kubelet [0755, 0.0 MB]",
                "Unit Update kubelet.service [restart] !",
                "Directory Create /etc/b [0755]",
                "File Create /etc/b/x [0644, empty]",
            ]
        );
        assert_eq!(changes[0].diff.as_deref(), Some("@@ -1 +1,3 @@\n 1\n+2\n+3"));
        assert_eq!(changes[1].diff.as_deref(), Some("@@ -1 +0,0 @@\n-old"));
        assert_eq!(changes[3].diff, None);
        assert_eq!(host.listing(), before);
    }

    #[test]
    fn permission_bits_alone() {
        let host = FakeHost::new().file("/etc/a", "1").directory("/etc/d");
        let overlay = Overlay::in_memory(&host);
        overlay.set_mode(Path::new("/etc/a"), 0o600).unwrap();
        overlay.set_mode(Path::new("/etc/d"), 0o700).unwrap();
        overlay.set_mode(Path::new("/etc/d"), 0o755).unwrap();
        let changes = overlay.changes().unwrap();
        assert_eq!(
            changes.iter().map(line).collect::<Vec<_>>(),
            ["File Update /etc/a [mode 0644 to 0600]", "Directory Update /etc/d [mode 0755 to 0700]"]
        );
        assert_eq!((changes[0].kind, changes[0].action), (Kind::File, Action::Update));
    }
}
