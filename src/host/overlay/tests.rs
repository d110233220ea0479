//! What an overlay shows and keeps from the host below it.

use std::path::Path;

use super::Overlay;
use crate::host::fake::FakeHost;
use crate::host::{Command, EntryKind, Host};

fn real() -> FakeHost {
    FakeHost::new()
        .file("/etc/a/one", "1")
        .file("/etc/a/two", "2")
        .directory("/proc/42")
        .directory("/dry")
        .answer(&["systemctl", "show"], 0, "shown")
        .answer(&["/usr/bin/ctr"], 0, "listed")
}

#[test]
fn what_would_be_altered_is_seen_and_nothing_is() {
    let host = real();
    let overlay = Overlay::new(&host, "/dry");
    let before = host.text("/etc/a/one");
    overlay.write(Path::new("/etc/a/one"), b"new", 0o600).unwrap();
    overlay.remove(Path::new("/etc/a/two")).unwrap();
    overlay.create_directory(Path::new("/etc/b/c"), 0o700).unwrap();
    overlay.write(Path::new("/etc/b/c/three"), b"3", 0o644).unwrap();
    assert_eq!(overlay.read(Path::new("/etc/a/one")).unwrap().unwrap(), b"new");
    assert_eq!(overlay.list(Path::new("/etc/a")).unwrap(), ["one"]);
    assert_eq!(overlay.list(Path::new("/etc/b")).unwrap(), ["c"]);
    assert_eq!(overlay.entry(Path::new("/etc/b/c")).unwrap().unwrap().mode, 0o700);
    assert!(overlay.write(Path::new("/none/file"), b"", 0o600).is_err());
    assert_eq!(host.text("/etc/a/one"), before);
    assert_eq!(host.text("/etc/a/two").as_deref(), Some("2"));
    assert_eq!(host.text("/dry/etc/b/c/three").as_deref(), Some("3"));
    assert_eq!(overlay.told().len(), 4, "{:?}", overlay.told());
}

#[test]
fn a_tree_that_would_be_gone_is_empty() {
    let host = real();
    let overlay = Overlay::new(&host, "/dry");
    overlay.remove_tree(Path::new("/etc/a")).unwrap();
    assert_eq!(overlay.read(Path::new("/etc/a/one")).unwrap(), None);
    assert!(overlay.list(Path::new("/etc/a")).unwrap().is_empty());
    overlay.create_directory(Path::new("/etc/a"), 0o755).unwrap();
    assert!(overlay.entry(Path::new("/etc/a")).unwrap().is_some());
    assert!(overlay.list(Path::new("/etc/a")).unwrap().is_empty());
    let emptied = Overlay::new(&host, "/dry");
    emptied.empty_tree(Path::new("/etc/a")).unwrap();
    emptied.empty_tree(Path::new("/etc/a")).unwrap();
    assert!(emptied.entry(Path::new("/etc/a")).unwrap().is_some());
    assert_eq!(emptied.read(Path::new("/etc/a/one")).unwrap(), None);
    assert_eq!(emptied.told(), ["remove everything below /etc/a"]);
}

#[test]
fn a_process_would_run_what_is_gone_where_its_program_would_be_replaced() {
    let host = real();
    host.link(Path::new("/proc/42/exe"), Path::new("/usr/local/bin/kubelet")).unwrap();
    let overlay = Overlay::new(&host, "/dry");
    let runs = || match overlay.entry(Path::new("/proc/42/exe")).unwrap().unwrap().kind {
        EntryKind::Link(program) => program.display().to_string(),
        kind => panic!("{kind:?}"),
    };
    assert_eq!(runs(), "/usr/local/bin/kubelet");
    overlay.place(Path::new("/usr/local/bin/kubelet"), "f00", 1, 0o755);
    assert_eq!(runs(), "/usr/local/bin/kubelet (deleted)");
}

#[tokio::test]
async fn programs_that_only_look_are_run_and_others_told() {
    let host = real();
    let overlay = Overlay::new(&host, "/dry");
    let run = async |words: &[&str]| overlay.run(Command::new(words[0], &words[1..])).await.unwrap().text();
    assert_eq!(run(&["/usr/bin/ctr", "tasks", "ls"]).await, "listed");
    assert_eq!(run(&["systemctl", "restart", "kubelet"]).await, "");
    assert_eq!(run(&["systemctl", "show", "kubelet"]).await, "shown");
    assert_eq!(run(&["/usr/bin/ctr", "tasks", "rm", "a"]).await, "");
    assert_eq!(run(&["/usr/bin/ctr", "tasks", "ls"]).await, "");
    run(&["kill", "-KILL", "42"]).await;
    assert!(overlay.list(Path::new("/proc")).unwrap().is_empty());
    assert_eq!(overlay.told(), ["run systemctl restart kubelet", "run ctr tasks rm a", "run kill -KILL 42"]);
}
