//! Files and folders of a person to and from a host, over a plain channel: no agent. POSIX tools and tar on the host.
//!
//! A file is written beside its place and renamed when all of it is there. What comes from a host comes in portions that
//! we ask for one by one: sshd would send faster than a disk of ours may write.

use std::collections::VecDeque;

use bytes::Bytes;

use super::command::{Begun, Command};
use super::privilege::Privilege;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Chunk, Connection, Exit, Reader, Writer};

/// Begins the line that describes what a host sends.
const HEADER: &str = "clusterctl-sends";
/// What a login shell may print before, in bytes.
const MAXIMUM_GREETING_BYTES: usize = 64 << 10;
/// A portion in bytes: 64 pieces of 64 KiB, as the script says.
const PORTION: u64 = 4 << 20;
/// Portions on the way at once: enough for 100 MB/s over 150 ms.
const AHEAD: u64 = 4;

/// `$1` place, `$2` name to use inside of a folder, `$3` size, `$4` mode.
const WRITE_FILE: &str = r#"if [ -d "$1" ]; then set -- "${1%/}/$2" "$2" "$3" "$4"; fi; t=$1.partial-$$; trap 'rm -f "$t"' EXIT; trap 'exit 1' HUP INT TERM PIPE; umask 077; cat >"$t" || exit 1; n=$(wc -c <"$t"); [ $n -eq $3 ] || { echo "only $n of $3 bytes arrived" >&2; exit 1; }; chmod $4 "$t" && mv -f "$t" "$1""#;

/// `$1` place, `$2` name to use inside of a folder.
const WRITE_FOLDER: &str = r#"if [ -d "$1" ]; then set -- "${1%/}/$2"; fi; mkdir -p "$1" && exec tar -C "$1" -xof -"#;

/// `$1` what to send. Each line of input asks for a portion.
const SEND: &str = r#"portions() { while read -r more <&4; do dd bs=65536 count=64 iflag=fullblock 2>/dev/null; done; }; exec 4<&0; if [ -d "$1" ]; then cd "$1" && echo clusterctl-sends folder && tar -cf - . | portions; elif [ -r "$1" ]; then exec <"$1" && echo clusterctl-sends file $(wc -c <"$1") $(stat -c %a "$1") && portions; else ls -d "$1" >/dev/null; exit 1; fi"#;

/// What a host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A file of this many bytes with these permission bits.
    File {
        /// Bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// A folder as a tar archive.
    Folder,
}

/// A path as it is understood on a host: `~/` and relative ones begin at the home folder, where commands start.
fn place(path: &str) -> String {
    let path = path.strip_prefix("~/").unwrap_or(path);
    match path {
        "" | "~" => ".".to_owned(),
        // No option.
        dashed if dashed.starts_with('-') => format!("./{dashed}"),
        other => other.to_owned(),
    }
}

fn script(script: &str, words: &[&str], root: bool) -> Command {
    let mut all = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned(), "sh".to_owned()];
    all.extend(words.iter().map(|word| (*word).to_owned()));
    Command { words: all, root, alone: true }
}

/// A host that takes a file or a folder.
pub struct Upload {
    begun: Begun,
    what: String,
}

impl Upload {
    /// Prepares a host to take a file of this size and these permission bits at `path`; inside of it as `name` if it is
    /// a folder.
    ///
    /// # Errors
    /// As [`Command::start`].
    pub async fn file(
        connection: &Connection,
        privilege: &Privilege,
        root: bool,
        (path, name): (&str, &str),
        (size, mode): (u64, u32),
    ) -> Result<Self> {
        let (size, mode) = (size.to_string(), format!("{mode:o}"));
        let command = script(WRITE_FILE, &[&place(path), name, &size, &mode], root);
        Ok(Self { begun: command.start(connection, privilege).await?, what: format!("cannot write {path}") })
    }

    /// Prepares a host to take a folder as a tar archive.
    ///
    /// # Errors
    /// As [`Command::start`].
    pub async fn folder(
        connection: &Connection,
        privilege: &Privilege,
        root: bool,
        (path, name): (&str, &str),
    ) -> Result<Self> {
        let command = script(WRITE_FOLDER, &[&place(path), name], root);
        Ok(Self { begun: command.start(connection, privilege).await?, what: format!("cannot write below {path}") })
    }

    /// Sends pieces until `next` has no more, and waits until the host has all of them.
    ///
    /// # Errors
    /// [`Kind::Host`] with what the host says; [`Kind::Connection`]; whatever `next` fails with.
    pub async fn send(self, mut next: impl AsyncFnMut() -> Option<Result<Bytes>>) -> Result<()> {
        let (mut writer, mut reader) = self.begun.channel.split();
        let sending = async {
            while let Some(piece) = next().await {
                if !writer.offer(piece?).await? {
                    return Ok(());
                }
            }
            writer.finish().await
        };
        let (sent, ended) = futures::join!(sending, reader.exit());
        let ended = ended?;
        sent?;
        match ended {
            Some(Exit::Status(0)) => Ok(()),
            _ => Err(refused(&self.what, &reader)),
        }
    }
}

/// What a host says itself, without the talk about becoming root.
fn said(reader: &Reader) -> String {
    let tail = reader.stderr_tail();
    tail.lines().filter(|line| !line.contains("clusterctl-")).collect::<Vec<_>>().join("\n")
}

/// What a host says when it cannot do it.
fn refused(what: &str, reader: &Reader) -> Failure {
    let said = said(reader);
    let failure = Failure::new(Kind::Host, what);
    let failure = match said.contains("No space left on device") {
        true => failure
            .caused_by("No space left on device")
            .advise("free some space there, then run the same command again"),
        false => failure.advise("see what the host says; `--sudo` does it with root's rights"),
    };
    if said.trim().is_empty() { failure } else { failure.detailed(said.trim()) }
}

/// A host that sends a file or a folder.
pub struct Download {
    writer: Writer,
    reader: Reader,
    first: VecDeque<Bytes>,
    /// What it sends.
    pub kept: Kept,
    what: String,
    asked: u64,
    taken: u64,
}

impl Download {
    /// Asks a host for what lies at `path`.
    ///
    /// # Errors
    /// [`Kind::Host`] when there is nothing, or nothing that the user may read; else as [`Command::start`].
    pub async fn start(connection: &Connection, privilege: &Privilege, root: bool, path: &str) -> Result<Self> {
        let what = format!("cannot read {path}");
        let begun = script(SEND, &[&place(path)], root).start(connection, privilege).await?;
        let (writer, mut reader) = begun.channel.split();
        let mut text = Vec::new();
        let mut first = VecDeque::from(begun.first);
        loop {
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(described) = line.trim().strip_prefix(HEADER) {
                    let kept = described_as(described).ok_or_else(|| {
                        Failure::new(Kind::Host, "it describes a file in an unknown way").on(connection.host())
                    })?;
                    let first = VecDeque::from([Bytes::from(text)]);
                    return Ok(Self { writer, reader, first, kept, what, asked: 0, taken: 0 });
                }
            }
            if text.len() > MAXIMUM_GREETING_BYTES {
                return Err(Failure::new(Kind::Host, "its login shell prints without end").on(connection.host()));
            }
            let chunk = match first.pop_front() {
                Some(chunk) => Some(chunk),
                None => reader.recv().await?,
            };
            match chunk {
                Some(Chunk::Stdout(bytes)) => text.extend_from_slice(&bytes),
                Some(Chunk::Stderr(_)) => {}
                Some(Chunk::Exit(_)) | None => return Err(refused(&what, &reader).on(connection.host())),
            }
        }
    }

    /// The next piece; `None` when the host sends no more.
    ///
    /// # Errors
    /// [`Kind::Connection`]; [`Kind::Host`] when the host fails in between.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(piece) = self.first.pop_front().filter(|piece| !piece.is_empty()) {
            self.taken += piece.len() as u64;
            return Ok(Some(piece));
        }
        while self.asked < self.taken / PORTION + AHEAD {
            self.asked += 1;
            if !self.writer.offer(Bytes::from_static(b"\n")).await? {
                break;
            }
        }
        loop {
            match self.reader.recv().await? {
                Some(Chunk::Stdout(bytes)) => {
                    self.taken += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Chunk::Stderr(_)) => {}
                Some(Chunk::Exit(exit)) if !exit.success() => return Err(refused(&self.what, &self.reader)),
                Some(Chunk::Exit(_)) | None => return Ok(None),
            }
        }
    }

    /// Ends it well: the host stops sending. A tar archive ends by itself, what follows is padding.
    ///
    /// # Errors
    /// [`Kind::Host`] when the host says that it could not read everything.
    pub async fn finish(mut self) -> Result<()> {
        self.writer.finish().await?;
        match self.reader.exit().await? {
            Some(Exit::Status(0)) => {}
            _ => return Err(refused(&self.what, &self.reader)),
        }
        // tar is not the last of its pipeline: what it could not read shows in its words only.
        let said = said(&self.reader);
        match said.trim().is_empty() {
            true => Ok(()),
            false => Err(Failure::new(Kind::Host, format!("{}: not all of it", self.what)).detailed(said.trim())),
        }
    }
}

/// Reads `file 12 644` or `folder`.
fn described_as(text: &str) -> Option<Kept> {
    let mut words = text.split_whitespace();
    match words.next()? {
        "folder" => Some(Kept::Folder),
        "file" => {
            let size = words.next()?.parse().ok()?;
            let mode = u32::from_str_radix(words.next()?, 8).ok()? & 0o777;
            Some(Kept::File { size, mode })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Kept, described_as, place};

    #[rstest]
    #[case("/etc/hosts", "/etc/hosts")]
    #[case("~/x", "x")]
    #[case("~", ".")]
    #[case("", ".")]
    #[case("-rf", "./-rf")]
    fn a_path_begins_at_home(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(place(path), expected);
    }

    #[rstest]
    #[case(" file 12 644", Some(Kept::File { size: 12, mode: 0o644 }))]
    #[case(" file 12 4755", Some(Kept::File { size: 12, mode: 0o755 }))]
    #[case(" folder", Some(Kept::Folder))]
    #[case(" file x 644", None)]
    #[case(" socket", None)]
    fn a_host_says_what_it_sends(#[case] text: &str, #[case] expected: Option<Kept>) {
        assert_eq!(described_as(text), expected);
    }
}
