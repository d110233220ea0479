//! What commands on many hosts print: live with the host's name before each line, or gathered where hosts agree, or as
//! JSON. Texts of hosts are untrusted: on a terminal, and beside those of other hosts, they are made harmless.

use std::collections::BTreeMap;

use serde_json::json;

use super::screen::Screen;
use super::text::{clean, clean_whole, pad};
use crate::failure::{Failure, Result};
use crate::ssh::{Chunk, Exit};

/// A line that is longer is shown in pieces, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// What is kept of one host's output where it is shown at the end, in bytes for each stream.
const KEPT: usize = 4 << 20;
/// What is kept of all hosts together, in bytes.
const KEPT_OF_ALL: usize = 256 << 20;
/// How many hosts are named before the rest is counted.
const NAMED_HOSTS: usize = 12;

/// How output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Byte by byte as it comes: one host, and no terminal to protect. Where only standard error is one, that is shown line
    /// by line.
    Raw,
    /// Line by line as it comes, with the host's name where there are several.
    Live,
    /// At the end, once for all hosts that agree.
    Grouped,
    /// One JSON object a host, when its command has ended.
    Json,
}

/// What is done with each line.
type Each<'a> = dyn FnMut(&str) + 'a;

/// Lines out of pieces of a stream.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a piece in and hands out the lines that are whole now, harmless. A lone carriage return ends a line, too.
    fn take(&mut self, bytes: &[u8], each: &mut Each<'_>) {
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let end = from + length;
            // What follows a carriage return at the very end is not known yet.
            if self.rest[end] == b'\r' && end + 1 == self.rest.len() && length < LONGEST_LINE {
                break;
            }
            show(&self.rest[from..end], each);
            from = end + if self.rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        }
        self.rest.drain(..from);
        while self.rest.len() > LONGEST_LINE {
            let piece: Vec<u8> = self.rest.drain(..LONGEST_LINE).collect();
            show(&piece, each);
        }
    }

    /// Hands out a last line without an end.
    fn finish(&mut self, each: &mut Each<'_>) {
        let rest = std::mem::take(&mut self.rest);
        let line = rest.strip_suffix(b"\r").unwrap_or(&rest);
        if !line.is_empty() {
            show(line, each);
        }
    }
}

fn show(line: &[u8], each: &mut Each<'_>) {
    each(&clean_whole(&String::from_utf8_lossy(line)));
}

/// All lines of a text.
fn lines(text: &[u8]) -> Vec<String> {
    let (mut all, mut lines) = (Vec::new(), Lines::default());
    let mut add = |line: &str| all.push(line.to_owned());
    lines.take(text, &mut add);
    lines.finish(&mut add);
    all
}

/// What one host has printed.
#[derive(Debug, Default)]
struct Host {
    name: String,
    stdout: Lines,
    stderr: Lines,
    kept: Kept,
}

/// What is shown at the end.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    cut: bool,
}

impl Kept {
    /// Keeps a piece as far as there is room for it; how many bytes it kept.
    fn add(&mut self, chunk: &Chunk, room: usize) -> usize {
        let (kept, bytes) = match chunk {
            Chunk::Stdout(bytes) => (&mut self.stdout, bytes),
            Chunk::Stderr(bytes) => (&mut self.stderr, bytes),
            Chunk::Exit(_) => return 0,
        };
        let room = KEPT.saturating_sub(kept.len()).min(bytes.len()).min(room);
        kept.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
        room
    }
}

/// The outputs of one command on several hosts.
#[derive(Debug)]
pub struct Outputs {
    screen: Screen,
    arrangement: Arrangement,
    width: usize,
    hosts: Vec<Host>,
    /// Bytes that are kept of all hosts.
    kept: usize,
    /// Ends of hosts whose output is shown at the end.
    ended: Vec<(usize, Option<Exit>)>,
}

impl Outputs {
    /// Nothing printed yet by these hosts.
    pub fn new(screen: &Screen, arrangement: Arrangement, names: impl IntoIterator<Item = String>) -> Self {
        let hosts: Vec<Host> = names.into_iter().map(|name| Host { name, ..Host::default() }).collect();
        let width = if hosts.len() > 1 { hosts.iter().map(|host| host.name.len()).max().unwrap_or(0) } else { 0 };
        Self { screen: screen.clone(), arrangement, width, hosts, kept: 0, ended: Vec::new() }
    }

    /// What stands before a line of this host.
    fn prefix(&self, host: usize) -> String {
        if self.width == 0 { String::new() } else { format!("{} | ", pad(&self.hosts[host].name, self.width)) }
    }

    /// A host has printed something.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn take(&mut self, host: usize, chunk: &Chunk) -> Result<()> {
        let bare = !self.screen.stderr_is_terminal();
        match (self.arrangement, chunk) {
            (_, Chunk::Exit(_)) => Ok(()),
            (Arrangement::Raw, Chunk::Stdout(bytes)) => self.screen.pass(bytes, b""),
            (Arrangement::Raw, Chunk::Stderr(bytes)) if bare => self.screen.pass(b"", bytes),
            (Arrangement::Live, Chunk::Stdout(bytes)) => {
                let text = gathered(&self.prefix(host), |each| self.hosts[host].stdout.take(bytes, each));
                if text.is_empty() { Ok(()) } else { self.screen.print(&text) }
            }
            (Arrangement::Live | Arrangement::Raw, Chunk::Stderr(bytes)) => {
                let text = gathered(&self.prefix(host), |each| self.hosts[host].stderr.take(bytes, each));
                if !text.is_empty() {
                    self.screen.line(text.trim_end_matches('\n'));
                }
                Ok(())
            }
            (Arrangement::Grouped | Arrangement::Json, chunk) => {
                self.kept += self.hosts[host].kept.add(chunk, KEPT_OF_ALL.saturating_sub(self.kept));
                Ok(())
            }
        }
    }

    /// A host's command has ended, or never ran.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn end(&mut self, host: usize, result: &Result<Exit>, milliseconds: u64) -> Result<()> {
        match self.arrangement {
            Arrangement::Raw | Arrangement::Live => {
                let prefix = self.prefix(host);
                let rest = gathered(&prefix, |each| self.hosts[host].stdout.finish(each));
                let errors = gathered(&prefix, |each| self.hosts[host].stderr.finish(each));
                if !errors.is_empty() {
                    self.screen.line(errors.trim_end_matches('\n'));
                }
                if rest.is_empty() { Ok(()) } else { self.screen.print(&rest) }
            }
            Arrangement::Grouped => {
                self.ended.push((host, result.as_ref().ok().cloned()));
                Ok(())
            }
            Arrangement::Json => {
                let Host { name, kept, .. } = &mut self.hosts[host];
                let kept = std::mem::take(kept);
                self.kept = self.kept.saturating_sub(kept.stdout.len() + kept.stderr.len());
                let line = document(name, &kept, result.as_ref(), milliseconds);
                self.screen.print(&format!("{line}\n"))
            }
        }
    }

    /// Shows what waits for the end.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn finish(self) -> Result<()> {
        for group in groups(&self.hosts, &self.ended) {
            if !group.stdout.is_empty() || group.stderr.is_empty() {
                self.screen.print(&block(&group.heading, &group.stdout))?;
            }
            if !group.stderr.is_empty() {
                self.screen.line(block(&group.heading, &group.stderr).trim_end_matches('\n'));
            }
        }
        Ok(())
    }
}

fn gathered(prefix: &str, lines: impl FnOnce(&mut Each<'_>)) -> String {
    let mut text = String::new();
    lines(&mut |line| {
        text.push_str(prefix);
        text.push_str(line);
        text.push('\n');
    });
    text
}

/// One host as JSON: what it printed as text (bytes that are none are replaced).
fn document(name: &str, kept: &Kept, result: Result<&Exit, &Failure>, milliseconds: u64) -> serde_json::Value {
    let (status, signal) = match result {
        Ok(Exit::Status(status)) => (Some(*status), None),
        Ok(Exit::Signal(signal)) => (None, Some(signal.as_str())),
        Err(_) => (None, None),
    };
    json!({
        "host": name,
        "status": status,
        "signal": signal,
        "stdout": String::from_utf8_lossy(&kept.stdout),
        "stderr": String::from_utf8_lossy(&kept.stderr),
        "cut": kept.cut,
        "milliseconds": milliseconds,
        "failure": result.err(),
    })
}

/// Hosts that agree, and on what.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    heading: String,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

/// The groups in the order of their first hosts. Hosts whose command never ended are no part of any.
fn groups(hosts: &[Host], ended: &[(usize, Option<Exit>)]) -> Vec<Group> {
    let mut agreeing: BTreeMap<(Option<String>, &Kept), Vec<usize>> = BTreeMap::new();
    for (host, exit) in ended {
        let Some(exit) = exit else { continue };
        let told = (!exit.success()).then(|| exit.to_string());
        agreeing.entry((told, &hosts[*host].kept)).or_default().push(*host);
    }
    let mut groups: Vec<(usize, Group)> = agreeing
        .into_iter()
        .map(|((exit, kept), mut members)| {
            members.sort_unstable();
            let names: Vec<&str> = members.iter().map(|host| hosts[*host].name.as_str()).collect();
            let cut = if kept.cut { ", only the beginning of its output was kept" } else { "" };
            let exit = exit.map(|exit| format!(" ({exit})")).unwrap_or_default();
            let heading = format!("{}{exit}{cut}:", named(&names));
            let first = members.first().copied().unwrap_or_default();
            (first, Group { heading, stdout: lines(&kept.stdout), stderr: lines(&kept.stderr) })
        })
        .collect();
    groups.sort_by_key(|(first, _)| *first);
    groups.into_iter().map(|(_, group)| group).collect()
}

/// `w1, w2, w3`; of very many hosts the first, and how many more there are.
pub fn named(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMED_HOSTS).map(|name| clean(name)).collect();
    let more = names.len().saturating_sub(NAMED_HOSTS);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

fn block(heading: &str, lines: &[String]) -> String {
    let mut text = format!("{heading}\n");
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["one\ntwo\n"], &["one", "two"])]
    #[case(&["o", "ne\r", "\ntwo"], &["one", "two"])]
    #[case(&["10%\r", "20%\r", "done\n"], &["10%", "20%", "done"])]
    #[case(&["\x1b[2Jgone\x07\n"], &["\\x1b[2Jgone\\x07"])]
    #[case(&["\u{202e}abc\n"], &["\\u{202e}abc"])]
    #[case(&["\n\n"], &["", ""])]
    fn pieces_become_harmless_lines(#[case] pieces: &[&str], #[case] expected: &[&str]) {
        let (mut all, mut lines) = (Vec::new(), Lines::default());
        for piece in pieces {
            lines.take(piece.as_bytes(), &mut |line| all.push(line.to_owned()));
        }
        lines.finish(&mut |line| all.push(line.to_owned()));
        assert_eq!(all, expected);
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces_and_not_kept() {
        let (mut count, mut lines) = (0, Lines::default());
        for _ in 0..100 {
            lines.take(&[b'x'; 10_000], &mut |line| count += line.len());
        }
        assert!(count > 900_000 && lines.rest.len() <= LONGEST_LINE, "{count}");
    }

    proptest! {
        #[test]
        fn no_control_character_reaches_the_screen(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!lines(&text).iter().any(|line| line.chars().any(char::is_control)));
        }
    }

    fn host(name: &str, stdout: &str, stderr: &str) -> Host {
        let kept = Kept { stdout: stdout.into(), stderr: stderr.into(), cut: false };
        Host { name: name.to_owned(), kept, ..Host::default() }
    }

    #[test]
    fn what_is_kept_is_bounded_for_one_host_and_for_all() {
        let piece = Chunk::Stdout(vec![b'x'; KEPT + 1].into());
        let mut kept = Kept::default();
        assert_eq!((kept.add(&piece, usize::MAX), kept.cut), (KEPT, true));
        let mut other = Kept::default();
        assert_eq!((other.add(&piece, 10), other.cut), (10, true));
        assert_eq!((other.add(&Chunk::Stderr(b"oops".to_vec().into()), 10), other.stderr.len()), (4, 4));
    }

    #[test]
    fn hosts_that_agree_are_shown_once() {
        let hosts =
            [host("w1", "a\nb\n", ""), host("w2", "c\n", "oops\n"), host("w3", "a\nb\n", ""), host("w4", "a\nb\n", "")];
        let ended = [(2, Some(Exit::Status(0))), (0, Some(Exit::Status(0))), (1, Some(Exit::Status(3))), (3, None)];
        let expected = [
            Group { heading: "w1, w3:".to_owned(), stdout: vec!["a".to_owned(), "b".to_owned()], stderr: vec![] },
            Group {
                heading: "w2 (status 3):".to_owned(),
                stdout: vec!["c".to_owned()],
                stderr: vec!["oops".to_owned()],
            },
        ];
        assert_eq!(groups(&hosts, &ended), expected);
    }

    #[test]
    fn a_host_as_json_tells_how_it_ended() {
        let kept = Kept { stdout: b"\xffok\n".to_vec(), stderr: Vec::new(), cut: true };
        let line = document("w1", &kept, Ok(&Exit::Signal("KILL".to_owned())), 12);
        assert_eq!((&line["status"], &line["signal"], &line["cut"]), (&json!(null), &json!("KILL"), &json!(true)));
        assert_eq!(line["stdout"], "\u{fffd}ok\n");
        let failure = Failure::new(crate::failure::Kind::Connection, "it is gone");
        assert_eq!(document("w1", &kept, Err(&failure), 1)["failure"]["kind"], "connection");
    }
}
