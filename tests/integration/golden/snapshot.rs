//! What a run left behind, as lines of text: files with mode and owner, or objects of the API. Two snapshots are compared
//! line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::certificate;

/// Names of files or objects, and the lines of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, String>);

/// One line that only one side has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The file or object.
    pub name: String,
    /// The line, with `-` before it if upstream alone has it and `+` if we do.
    pub line: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.name, self.line)
    }
}

impl Snapshot {
    /// All files of a tar archive; times are left out.
    pub fn of_archive(archive: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        let mut paths = tar::Archive::new(archive);
        let paths = paths.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        let moments = paths.filter_map(|path| Some(path.rsplit_once(KUBELET_CLIENT)?.1.to_owned())).collect();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            let kind = header.entry_type();
            let path = without_moment(&entry.path().unwrap().display().to_string(), &moments);
            let mode = header.mode().unwrap() & 0o7777;
            let (user, group) = (header.uid().unwrap(), header.gid().unwrap());
            let link = entry
                .link_name()
                .unwrap()
                .map(|link| format!(" to {}", without_moment(&link.display().to_string(), &moments)))
                .unwrap_or_default();
            let mut lines = format!("{kind:?}{link} {mode:04o} {user}:{group}\n");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            lines.push_str(&lines_of(&String::from_utf8_lossy(&content)));
            files.insert(format!("/{}", path.trim_end_matches('/')), lines);
        }
        Self(files)
    }

    /// The objects of a List in JSON, without what every cluster has its own of.
    pub fn of_objects(list: &Value) -> Self {
        let objects = list["items"].as_array().into_iter().flatten();
        Self(objects.filter_map(super::object::lines).collect())
    }

    /// Both of them.
    pub fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Names of what it holds.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every line in which `ours` is not as this one, upstream's.
    pub fn differences(&self, ours: &Self) -> Vec<Difference> {
        let names: BTreeSet<&String> = self.0.keys().chain(ours.0.keys()).collect();
        names.into_iter().flat_map(|name| compare(name, self.0.get(name), ours.0.get(name))).collect()
    }
}

/// What stands before the moment in names of the kubelet's certificates: `kubelet-client-2026-11-29-23-59-01.pem`.
const KUBELET_CLIENT: &str = "/kubelet-client-2";

/// A path with the moment of a kubelet's certificate replaced by its place among all of them: the first, the second...
fn without_moment(path: &str, moments: &BTreeSet<String>) -> String {
    match path.rsplit_once(KUBELET_CLIENT) {
        Some((folder, moment)) => {
            let place = moments.iter().take_while(|other| other.as_str() <= moment).count();
            format!("{folder}/kubelet-client-({place}).pem")
        }
        None => path.to_owned(),
    }
}

fn compare(name: &str, upstream: Option<&String>, ours: Option<&String>) -> Vec<Difference> {
    let difference = |line: String| Difference { name: name.to_owned(), line };
    match (upstream, ours) {
        (Some(upstream), Some(ours)) => TextDiff::from_lines(upstream.as_str(), ours.as_str())
            .iter_all_changes()
            .filter_map(|change| {
                let sign = match change.tag() {
                    ChangeTag::Equal => return None,
                    ChangeTag::Delete => '-',
                    ChangeTag::Insert => '+',
                };
                Some(difference(format!("{sign}{}", change.value().trim_end_matches('\n'))))
            })
            .collect(),
        (Some(_), None) => vec![difference("-(only upstream has it)".to_owned())],
        (None, _) => vec![difference("+(only we have it)".to_owned())],
    }
}

/// The members of etcd that a joining one is told of come in the order of their numbers, which are random.
fn members_sorted(line: &str) -> String {
    const FLAG: &str = "--initial-cluster=";
    let Some((start, members)) = line.split_once(FLAG) else { return line.to_owned() };
    let mut members: Vec<&str> = members.split(',').collect();
    members.sort_unstable();
    format!("{start}{FLAG}{}", members.join(","))
}

/// A text, with certificates and keys in it, also inside of kubeconfigs, replaced by what is to be the same of them.
pub fn lines_of(text: &str) -> String {
    if let Some(blocks) = certificate::blocks(text) {
        return blocks.iter().map(|line| format!("{line}\n")).collect();
    }
    let mut lines = String::new();
    for line in text.lines() {
        lines.push_str(&members_sorted(line));
        lines.push('\n');
        let decoded = line.split_once("-data: ").and_then(|(_, value)| STANDARD.decode(value.trim()).ok());
        let blocks = decoded.and_then(|bytes| certificate::blocks(&String::from_utf8_lossy(&bytes)));
        if let Some(blocks) = blocks {
            let end = lines.rfind("-data: ").unwrap() + "-data:".len();
            lines.truncate(end);
            lines.push('\n');
            lines.extend(blocks.iter().map(|block| format!("    {block}\n")));
        }
    }
    // A newline at the end is part of a file.
    if !text.is_empty() && !text.ends_with('\n') {
        lines.push_str("(no newline at the end)\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Snapshot;

    fn archive(files: &[(&str, u32, &str)]) -> Snapshot {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, mode, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            header.set_size(text.len() as u64);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        Snapshot::of_archive(&builder.into_inner().unwrap())
    }

    #[rstest]
    #[case::same(&[("etc/a", 0o600, "one\ntwo\n")], &[])]
    #[case::content(&[("etc/a", 0o600, "one\n2\n")], &["/etc/a: -two", "/etc/a: +2"])]
    #[case::order(&[("etc/a", 0o600, "two\none\n")], &["/etc/a: +two", "/etc/a: -two"])]
    #[case::mode(&[("etc/a", 0o644, "one\ntwo\n")], &["/etc/a: -Regular 0600 0:0", "/etc/a: +Regular 0644 0:0"])]
    #[case::newline(&[("etc/a", 0o600, "one\ntwo")], &["/etc/a: +(no newline at the end)"])]
    #[case::gone(&[], &["/etc/a: -(only upstream has it)"])]
    #[case::more(&[("etc/a", 0o600, "one\ntwo\n"), ("b", 0, "")], &["/b: +(only we have it)"])]
    fn every_difference_has_a_line(#[case] ours: &[(&str, u32, &str)], #[case] expected: &[&str]) {
        let upstream = archive(&[("etc/a", 0o600, "one\ntwo\n")]);
        let found: Vec<String> = upstream.differences(&archive(ours)).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_moment_of_a_kubelets_certificate_is_left_out() {
        let made = |first: &str, second: &str| {
            let path = |moment: &str| format!("pki/kubelet-client-{moment}.pem");
            archive(&[(&path(second), 0o600, "two\n"), (&path(first), 0o600, "one\n"), (&path("current"), 0o600, "")])
        };
        let one = made("2026-11-29-23-59-01", "2026-11-30-00-00-02");
        assert_eq!(one, made("2026-11-30-10-00-00", "2026-11-30-10-00-01"));
        let names = ["/pki/kubelet-client-(1).pem", "/pki/kubelet-client-(2).pem", "/pki/kubelet-client-current.pem"];
        assert_eq!(one.names().collect::<Vec<_>>(), names);
    }

    #[rstest]
    #[case(
        "    - --initial-cluster=b=https://b:2380,a=https://a:2380",
        "    - --initial-cluster=a=https://a:2380,b=https://b:2380"
    )]
    #[case("    - --initial-cluster-state=b,a", "    - --initial-cluster-state=b,a")]
    fn members_of_etcd_have_no_order(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(super::lines_of(&format!("{line}\n")), format!("{expected}\n"));
    }

    #[test]
    fn random_data_of_a_kubeconfig_is_left_out() {
        use base64::Engine as _;
        let key = "-----BEGIN EC PRIVATE KEY-----\nMAAA\n-----END EC PRIVATE KEY-----\n";
        let encoded = base64::engine::general_purpose::STANDARD.encode(key);
        let lines = super::lines_of(&format!("users:\n- client-key-data: {encoded}\n  name: x\n"));
        assert_eq!(lines, "users:\n- client-key-data:\n    EC PRIVATE KEY of 0 bytes\n  name: x\n");
    }
}
