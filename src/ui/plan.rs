//! What a run would do, as a person reads it.

use super::look::{Look, Paint};
use super::text::{clean, clean_lines, count};
use crate::change::{Action, Change, Kind, Preview, Section};

/// So many lines of the text of a new file are shown unless everything is wanted.
const LINES: usize = 12;

/// The preview as text that ends with a line break. With `verbose`, new texts are shown in full and new objects with theirs.
pub fn plan(preview: &Preview, look: Look, verbose: bool) -> String {
    let cluster = clean(&preview.cluster);
    let changes = preview.changes();
    let mut text = String::new();
    for warning in &preview.warnings {
        text.push_str(&format!("{} {}\n", look.paint(Paint::Attention, "warning:"), clean(warning)));
    }
    for failure in &preview.missing {
        text.push_str(&format!("{} {}\n", look.paint(Paint::Bad, "left out:"), clean(&failure.to_string())));
    }
    if changes == 0 && preview.missing.is_empty() {
        text.push_str(&format!("Cluster {cluster} is as the inventory wants it: nothing is to do\n"));
    } else if changes == 0 {
        text.push_str(&format!("Cluster {cluster}: nothing is to do on the other hosts\n"));
    }
    for step in preview.grouped() {
        for (names, section) in step.groups {
            let names: Vec<String> = names.into_iter().map(clean).collect();
            let title = look.paint(Paint::Active, &clean(step.title));
            text.push_str(&format!("\n{title}: {}\n", names.join(", ")));
            text.push_str(&lines(section, look, verbose));
        }
    }
    for section in &preview.whole {
        text.push_str(&format!("\n{}\n", look.paint(Paint::Active, &clean(&section.title))));
        text.push_str(&lines(section, look, verbose));
    }
    if changes > 0 {
        let hosts = preview.hosts.iter().filter(|host| host.steps.iter().any(|step| !step.changes.is_empty())).count();
        let interrupts = if preview.disrupts() { "; those marked with ! interrupt something that runs" } else { "" };
        text.push_str(&format!(
            "\nCluster {cluster}: {} on {}{interrupts}\n",
            count(changes as u64, "change"),
            count(hosts as u64, "host")
        ));
    }
    text
}

fn lines(section: &Section, look: Look, verbose: bool) -> String {
    let mut text = String::new();
    for change in &section.changes {
        text.push_str(&line(change, look));
        let new_object = change.kind == Kind::Object && change.action == Action::Create;
        if let Some(diff) = change.diff.as_deref().filter(|_| verbose || !new_object) {
            let shorten = !verbose && change.action != Action::Update;
            text.push_str(&diff_lines(diff, look, shorten));
        }
    }
    for sentence in &section.unknown {
        text.push_str(&format!("  {} {}\n", look.paint(Paint::Faint, "?"), clean(sentence)));
    }
    text
}

fn line(change: &Change, look: Look) -> String {
    let (sign, paint) = match change.action {
        Action::Create => ("+", Paint::Good),
        Action::Update => ("~", Paint::Attention),
        Action::Remove => ("-", Paint::Bad),
        Action::Run => (">", Paint::Active),
    };
    let mark = if change.disrupts { look.paint(Paint::Bad, " !") } else { String::new() };
    let detail = if change.detail.is_empty() { String::new() } else { format!("  {}", clean(&change.detail)) };
    format!(
        "  {} {} {}{}{mark}\n",
        look.paint(paint, sign),
        word(change.kind),
        clean(&change.subject),
        look.paint(Paint::Faint, &detail)
    )
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Phase => "phase",
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Sysctl => "sysctl",
        Kind::Module => "module",
        Kind::Unit => "unit",
        Kind::Package => "package",
        Kind::Image => "images",
        Kind::Command => "run",
        Kind::Object => "object",
        Kind::Node => "node",
    }
}

fn diff_lines(diff: &str, look: Look, shorten: bool) -> String {
    let all: Vec<&str> = diff.lines().collect();
    let shown = if shorten { all.len().min(LINES) } else { all.len() };
    let mut text = String::new();
    for line in clean_lines(&all[..shown].join("\n")) {
        let paint = match line.as_bytes().first() {
            Some(b'+') => Paint::Good,
            Some(b'-') => Paint::Bad,
            Some(b'@') => Paint::Active,
            _ => Paint::Faint,
        };
        text.push_str(&format!("      {}\n", look.paint(paint, &line)));
    }
    if shown < all.len() {
        text.push_str(&format!("      ({} more, with --verbose)\n", count((all.len() - shown) as u64, "line")));
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::plan;
    use crate::change::{Action, Change, HostPreview, Kind, Preview, Section};
    use crate::failure::{self, Failure};
    use crate::ui::Look;

    fn look() -> Look {
        Look { live: false, color: false, unicode: true }
    }

    fn host(name: &str, changes: Vec<Change>) -> HostPreview {
        let steps = vec![Section::new("prepare", "prepare host").with(changes, Vec::new())];
        HostPreview { name: name.into(), steps, ..HostPreview::default() }
    }

    #[test]
    fn a_person_sees_who_gets_what() {
        let file = Change {
            diff: Some("@@ -1 +1,2 @@\n a\n+b\x1b[2J".into()),
            ..Change::new(Kind::File, Action::Update, "/etc/a").detailed("0644")
        };
        let sysctl = Change::new(Kind::Sysctl, Action::Update, "net.ipv4.ip_forward").detailed("from 0 to 1");
        let unit = Change::new(Kind::Unit, Action::Update, "kubelet.service").detailed("restart").disrupting(true);
        let object = Change {
            diff: Some("+kind: ConfigMap".into()),
            ..Change::new(Kind::Object, Action::Create, "ConfigMap kube-system/x")
        };
        let preview = Preview {
            cluster: "demo".into(),
            hosts: vec![
                host("cp1", vec![file.clone(), sysctl.clone()]),
                host("w1", vec![file, sysctl]),
                host("w2", vec![unit]),
            ],
            whole: vec![Section::new("nodes", "nodes of the cluster").with(vec![object], vec!["nobody knows".into()])],
            missing: vec![Failure::new(failure::Kind::Connection, "it does not answer").on("w3")],
            warnings: vec!["w1 is slow".into()],
        };
        assert_snapshot!(plan(&preview, look(), false), @r"
        warning: w1 is slow
        left out: w3: it does not answer

        prepare host: cp1, w1
          ~ file /etc/a  0644
              @@ -1 +1,2 @@
               a
              +b\x1b[2J
          ~ sysctl net.ipv4.ip_forward  from 0 to 1

        prepare host: w2
          ~ unit kubelet.service  restart !

        nodes of the cluster
          + object ConfigMap kube-system/x
          ? nobody knows

        Cluster demo: 6 changes on 3 hosts; those marked with ! interrupt something that runs
        ");
        assert!(plan(&preview, look(), true).contains("+kind: ConfigMap"));
    }

    #[test]
    fn nothing_to_do_is_said() {
        let mut preview = Preview { cluster: "demo".into(), ..Preview::default() };
        assert_eq!(plan(&preview, look(), false), "Cluster demo is as the inventory wants it: nothing is to do\n");
        preview.missing = vec![Failure::new(failure::Kind::Preflight, "no systemd").on("w1")];
        let text = "left out: w1: no systemd\nCluster demo: nothing is to do on the other hosts\n";
        assert_eq!(plan(&preview, look(), false), text);
    }

    #[test]
    fn the_text_of_a_new_file_is_shortened() {
        let diff = (0..40).map(|line| format!("+{line}")).collect::<Vec<_>>().join("\n");
        let change = Change { diff: Some(diff), ..Change::new(Kind::File, Action::Create, "/etc/a") };
        let preview = Preview { hosts: vec![host("cp1", vec![change])], ..Preview::default() };
        let text = plan(&preview, look(), false);
        assert!(
            text.contains("+11\n") && !text.contains("+12\n") && text.contains("(28 lines more, with --verbose)"),
            "{text}"
        );
    }
}
