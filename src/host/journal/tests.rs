use std::path::Path;

use rstest::rstest;

use super::{Contents, Entry, FSTAB_MARK, JOURNAL, Journal, cluster_of, is_ours, restore};
use crate::event::Events;
use crate::failure::Kind;
use crate::host::Host;
use crate::host::fake::FakeHost;

fn host() -> FakeHost {
    FakeHost::new().directory("/var/lib").directory("/etc").answer(&["systemctl"], 0, "")
}

async fn put_back(host: &FakeHost) -> u32 {
    restore(host, &Events::nowhere()).await.unwrap()
}

#[tokio::test]
async fn files_links_and_directories_are_as_they_were() {
    let host = host().file("/etc/there", "old").symlink("/etc/link", "/old").directory("/var/volume");
    host.set_mode(Path::new("/etc/there"), 0o640).unwrap();
    let before = host.listing();
    let journal = Journal::open(&host, "demo").unwrap();
    journal.write_file(&host, Path::new("/etc/there"), b"new", 0o600).unwrap();
    journal.write_file(&host, Path::new("/etc/there"), b"newer", 0o600).unwrap();
    journal.write_file(&host, Path::new("/etc/a/b/new"), b"new", 0o600).unwrap();
    journal.make_link(&host, Path::new("/etc/link"), Path::new("/new")).unwrap();
    journal.make_directory(&host, Path::new("/opt/tree"), 0o700, Contents::Ours).unwrap();
    journal.make_directory(&host, Path::new("/var/volume"), 0o755, Contents::Ours).unwrap();
    journal.remove_file(&host, Path::new("/etc/there")).unwrap();
    host.put(Path::new("/opt/tree/a/b"), b"made by others in our tree", 0o644);
    host.put(Path::new("/var/volume/data"), b"made by others in what was empty", 0o644);
    assert!(put_back(&host).await > 0);
    assert_eq!(host.listing(), before);
    assert_eq!(put_back(&host).await, 0);
}

/// Killed while it wrote: beside the file lies one that was never renamed into place.
#[tokio::test]
async fn what_was_only_begun_to_be_written_goes_too() {
    let host = host().file("/etc/there", "old").file("/etc/.there.clusterctl-rc", "mine").directory("/opt");
    let before = host.listing();
    let journal = Journal::open(&host, "demo").unwrap();
    journal.write_file(&host, Path::new("/etc/there"), b"new", 0o600).unwrap();
    journal.write_file(&host, Path::new("/opt/a/new"), b"new", 0o600).unwrap();
    host.remove(Path::new("/opt/a/new")).unwrap();
    for path in ["/etc/.there.clusterctl-277", "/etc/.there.clusterctl-9", "/opt/a/.new.clusterctl-277"] {
        host.put(Path::new(path), b"ne", 0o600);
    }
    put_back(&host).await;
    assert_eq!(host.listing(), before);
}

#[tokio::test]
async fn what_others_put_into_a_shared_directory_stays() {
    let host = host();
    let journal = Journal::open(&host, "demo").unwrap();
    journal.make_directory(&host, Path::new("/etc/cni"), 0o755, Contents::Shared).unwrap();
    host.put(Path::new("/etc/cni/theirs"), b"", 0o644);
    put_back(&host).await;
    assert!(host.text("/etc/cni/theirs").is_some());
}

#[tokio::test]
async fn a_directory_that_is_in_use_already_is_never_ours() {
    let host = host().file("/var/lib/containerd/theirs", "data");
    let journal = Journal::open(&host, "demo").unwrap();
    journal.make_directory(&host, Path::new("/var/lib/containerd"), 0o755, Contents::Ours).unwrap();
    put_back(&host).await;
    assert_eq!(host.text("/var/lib/containerd/theirs").as_deref(), Some("data"));
}

#[tokio::test]
async fn the_first_record_wins_also_in_a_second_run() {
    let host = host().file("/proc/sys/kernel/panic", "0\n");
    let sysctl = |value: &str| Entry::Sysctl { key: "kernel.panic".into(), value: value.into() };
    Journal::open(&host, "demo").unwrap().record(&host, sysctl("0")).unwrap();
    host.poke(Path::new("/proc/sys/kernel/panic"), b"10").unwrap();
    let lines = host.text(JOURNAL).unwrap().lines().count();
    Journal::open(&host, "demo").unwrap().record(&host, sysctl("10")).unwrap();
    assert_eq!(host.text(JOURNAL).unwrap().lines().count(), lines);
    put_back(&host).await;
    assert_eq!(host.text("/proc/sys/kernel/panic").as_deref(), Some("0"));
}

#[test]
fn nothing_is_written_before_the_first_record_and_the_record_comes_before_the_change() {
    let host = host();
    let journal = Journal::open(&host, "demo").unwrap();
    assert!(host.done().is_empty());
    journal.write_file(&host, Path::new("/etc/a"), b"", 0o644).unwrap();
    let expected = ["directory /var/lib/clusterctl 0700", "append /var/lib/clusterctl/journal", "write /etc/a 0644"];
    assert_eq!(host.done(), expected);
    assert_eq!(host.entry(Path::new(JOURNAL)).unwrap().unwrap().mode, 0o600);
    assert_eq!(cluster_of(&host).unwrap().as_deref(), Some("demo"));
}

#[test]
fn a_change_that_cannot_be_recorded_is_not_made() {
    let host = host().directory("/var/lib/clusterctl").unwritable(JOURNAL);
    let journal = Journal::open(&host, "demo").unwrap();
    assert!(journal.write_file(&host, Path::new("/etc/a"), b"", 0o644).is_err());
    assert_eq!(host.text("/etc/a"), None);
}

#[test]
fn another_cluster_is_refused() {
    let host = host();
    Journal::open(&host, "one").unwrap().record(&host, Entry::FstabCommented).unwrap();
    let failure = Journal::open(&host, "two").unwrap_err();
    assert_eq!((failure.kind, failure.sentence.as_str()), (Kind::Preflight, "the host belongs to cluster one already"));
}

const HEADER: &str = "{\"format\":1,\"cluster\":\"demo\",\"since_seconds\":1}\n";

#[rstest]
#[case::torn_entry(&format!("{HEADER}{{\"entry\":\"crea"), Some("demo"))]
#[case::torn_header("{\"format\":1,\"clu", None)]
#[case::empty("", None)]
fn a_line_that_was_being_written_when_the_host_went_down_counts_for_nothing(
    #[case] text: &str,
    #[case] cluster: Option<&str>,
) {
    let host = host().file(JOURNAL, text);
    assert_eq!(cluster_of(&host).unwrap().as_deref(), cluster);
    let journal = Journal::open(&host, "demo").unwrap();
    journal.record(&host, Entry::FstabCommented).unwrap();
    let text = host.text(JOURNAL).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[1], r#"{"entry":"fstab-commented"}"#);
    assert_eq!(cluster_of(&host).unwrap().as_deref(), Some("demo"));
}

#[tokio::test]
async fn a_damaged_line_is_refused_by_up_and_passed_over_by_down() {
    let host = host().file("/etc/made", "");
    host.put(
        Path::new(JOURNAL),
        format!("{HEADER}nonsense\n{}", "{\"entry\":\"created\",\"path\":\"/etc/made\"}\n").as_bytes(),
        0o600,
    );
    let failure = Journal::open(&host, "demo").unwrap_err();
    assert!(failure.sentence.contains("journal line 2"), "{failure}");
    let failure = restore(&host, &Events::nowhere()).await.unwrap_err();
    assert!(failure.sentence.starts_with("1 lines of"), "{failure}");
    assert_eq!((host.text("/etc/made"), host.text(JOURNAL)), (None, None));
}

#[tokio::test]
async fn what_cannot_be_undone_is_told_kept_and_tried_again_while_the_rest_is_undone() {
    let host = host().answer(&["undo"], 1, "no\n");
    let journal = Journal::open(&host, "demo").unwrap();
    journal.write_file(&host, Path::new("/etc/a"), b"", 0o644).unwrap();
    journal.record(&host, Entry::Command { undo: vec!["undo".into(), "it".into()] }).unwrap();
    let failure = restore(&host, &Events::nowhere()).await.unwrap_err();
    assert_eq!(failure.sentence, "one thing could not be put back");
    assert!(failure.causes[0].contains("`undo it` failed"), "{failure}");
    assert_eq!(host.text("/etc/a"), None);
    let left = host.text(JOURNAL).unwrap();
    assert!(left.contains("undo") && !left.contains("/etc/a"), "{left}");
    let host = host.answer(&["undo"], 0, "");
    assert_eq!(put_back(&host).await, 1);
    assert_eq!(host.entry(Path::new("/var/lib/clusterctl")).unwrap(), None);
}

#[tokio::test]
async fn fstab_gets_its_swap_lines_back_and_keeps_what_was_added_since() {
    let host = host().file("/etc/fstab", format!("/dev/a / ext4\n{FSTAB_MARK}/dev/b none swap\n/dev/new /srv ext4\n"));
    Journal::open(&host, "demo").unwrap().record(&host, Entry::FstabCommented).unwrap();
    put_back(&host).await;
    assert_eq!(host.text("/etc/fstab").unwrap(), "/dev/a / ext4\n/dev/b none swap\n/dev/new /srv ext4\n");
}

#[tokio::test]
async fn units_are_as_they_were_and_those_of_the_host_are_restarted_with_their_own_files() {
    let shown = |state: &str| format!("LoadState=loaded\n{state}\nNeedDaemonReload=no\n");
    let host = host()
        .answer(&["systemctl", "show"], 0, shown("ActiveState=active\nUnitFileState=enabled"))
        .file("/etc/theirs.conf", "old");
    let journal = Journal::open(&host, "demo").unwrap();
    journal.write_file(&host, Path::new("/etc/theirs.conf"), b"new", 0o644).unwrap();
    let unit = |name: &str, enabled, active| Entry::Unit { name: name.into(), enabled, active };
    journal
        .record_all(&host, [unit("theirs.service", true, true), Entry::Restarted { name: "theirs.service".into() }])
        .unwrap();
    journal
        .record_all(&host, [unit("ours.service", false, false), Entry::Restarted { name: "ours.service".into() }])
        .unwrap();
    host.forget();
    put_back(&host).await;
    let done: Vec<String> =
        host.done().into_iter().filter(|done| !done.contains("show") && !done.contains("clusterctl")).collect();
    let expected = [
        "run systemctl stop ours.service",
        "run systemctl disable --quiet --no-reload ours.service",
        "write /etc/theirs.conf 0644",
        "run systemctl daemon-reload",
        "run systemctl restart theirs.service",
    ];
    assert_eq!(done, expected);
}

#[test]
fn ours_is_what_was_created_or_lies_in_a_tree_of_ours() {
    let host = host();
    let journal = Journal::open(&host, "demo").unwrap();
    journal.write_file(&host, Path::new("/usr/local/bin/containerd"), b"", 0o755).unwrap();
    journal.make_directory(&host, Path::new("/opt/tree"), 0o755, Contents::Ours).unwrap();
    let ours = |path: &str| is_ours(&host, Path::new(path)).unwrap();
    assert!(ours("/usr/local/bin/containerd") && ours("/opt/tree/any"));
    assert!(!ours("/usr/bin/containerd") && !ours("/usr/local/bin"));
}
