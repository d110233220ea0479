//! This machine, behind a trait: files, commands, units. The only place that touches it.
//!
//! Steps of the node engine and tasks of a playbook are written against [`Host`]. [`Machine`](machine::Machine) is the
//! real one; a recording fake for tests lives beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::AsyncRead;

use crate::failure::Result;

pub mod blobs;
pub mod causes;
pub mod containerd;
pub mod fake;
pub mod journal;
pub mod listing;
pub mod machine;
pub mod measure;
pub mod observe;
pub mod overlay;
mod process;
pub mod reach;
pub mod seen;
pub mod systemd;
mod tree;

/// What an entry of the filesystem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Link(PathBuf),
    /// A socket, device or pipe.
    Other,
}

/// What is known of a path without following a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits (lower 12).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
}

/// Room on the filesystem behind a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free for root, in bytes.
    pub free_bytes: u64,
}

/// Where a program's standard input is streamed from.
pub type Input<'a> = Box<dyn AsyncRead + Send + Unpin + 'a>;

/// A program to run, without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Name (looked up in PATH plus /usr/local/sbin:/usr/sbin:/sbin) or absolute path.
    pub program: String,
    /// Arguments. Never a secret: other users can read them.
    pub arguments: Vec<String>,
    /// Environment to add to a small fixed one.
    pub environment: Vec<(String, String)>,
    /// What it reads from standard input.
    pub input: Vec<u8>,
    /// Longest time; after it the process group is killed and the result is a failure.
    pub limit: Duration,
}

impl Command {
    /// A command with a limit of 60 s and nothing on standard input.
    pub fn new(program: impl Into<String>, arguments: &[&str]) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: Vec::new(),
            input: Vec::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// With another limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// With something on standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }
}

/// What a command left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + signal when it was killed.
    pub status: i32,
    /// Standard output, cut at 4 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, cut at 4 MiB.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Why a program failed, in one line: its exit status and the last line it wrote.
    pub fn complaint(&self, program: &str) -> String {
        let said = if self.stderr.trim_ascii().is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(&said[said.len().saturating_sub(4096)..]);
        match text.trim().lines().last() {
            Some(line) => format!("{program} ended with {}: {}", self.status, line.trim()),
            None => format!("{program} ended with {}", self.status),
        }
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A file to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    /// Where.
    pub path: &'a Path,
    /// What is in it.
    pub content: &'a [u8],
    /// Its permission bits.
    pub mode: u32,
}

/// A machine to observe and alter. File operations are short and blocking; commands are awaited.
///
/// Every failure names the path or the program and has kind [`Kind::Host`](crate::failure::Kind::Host).
pub trait Host: Send + Sync {
    /// Content of a file, or `None` where there is none. More than 64 MiB is a failure.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
    /// What a path is, links not followed; `None` where there is nothing.
    fn entry(&self, path: &Path) -> Result<Option<Entry>>;
    /// Names in a directory, sorted; empty where there is none.
    fn list(&self, directory: &Path) -> Result<Vec<String>>;
    /// SHA-256 of a file's content as hex, streamed; `None` where there is no file.
    fn sha256(&self, path: &Path) -> Result<Option<String>>;
    /// What tells that a file was touched since; `None` where there is no file or nothing tells.
    fn stamp(&self, _path: &Path) -> Result<Option<seen::Stamp>> {
        Ok(None)
    }
    /// Replaces or makes a file: temporary file beside it, fsync, rename. Parents must exist. Owner root.
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()>;
    /// [`Host::write`] of several files that belong together, in this order; none is in its place before all are on the
    /// disk, which is waited for once and not for each. What is in place when one fails stays.
    fn write_together(&self, files: &[NewFile<'_>]) -> Result<()> {
        files.iter().try_for_each(|file| self.write(file.path, file.content, file.mode))
    }
    /// Writes into an existing file without replacing it (for /proc/sys and the like).
    fn poke(&self, path: &Path, content: &[u8]) -> Result<()>;
    /// Adds to the end of a file and waits until it is on the disk; a missing file is made with mode 0600.
    fn append(&self, path: &Path, content: &[u8]) -> Result<()>;
    /// Room on the filesystem that holds a path; `None` where there is nothing.
    fn space(&self, path: &Path) -> Result<Option<Space>>;
    /// Makes a directory and its missing parents (those with mode 0755); an existing one keeps its mode.
    fn create_directory(&self, path: &Path, mode: u32) -> Result<()>;
    /// Sets permission bits.
    fn set_mode(&self, path: &Path, mode: u32) -> Result<()>;
    /// Makes or atomically replaces a symbolic link.
    fn link(&self, path: &Path, target: &Path) -> Result<()>;
    /// Moves a file, across filesystems if it must be (copy, fsync, rename).
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file, link or empty directory; nothing there is fine.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes a directory with everything below it, never crossing into a mount or following a link; nothing there is
    /// fine.
    fn remove_tree(&self, path: &Path) -> Result<()>;
    /// Removes everything below a directory, which stays, as does a link that leads to it; never crossing into a mount or
    /// following a link below it. Nothing there is fine.
    fn empty_tree(&self, path: &Path) -> Result<()>;
    /// Unmounts a mount point (lazily); not mounted is fine.
    fn unmount(&self, path: &Path) -> Result<()>;
    /// Runs a program to its end. A program that is not there or runs past its limit is a failure; another exit status
    /// than 0 is not.
    fn run(&self, command: Command) -> BoxFuture<'_, Result<Output>>;
    /// As [`Host::run`], with standard input streamed from `input` (and [`Command::input`] ignored). The program ending
    /// before it read everything is not a failure by itself; a failing `input` is.
    fn run_fed<'a>(&'a self, command: Command, input: Input<'a>) -> BoxFuture<'a, Result<Output>>;
}

/// Bytes as lower case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of something in memory, as lower case hex.
pub fn sha256_hex(content: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content).as_ref())
}

/// The file of a kernel parameter: dots separate, and a slash stands for a dot inside a name (`net.ipv4.conf.eth0/1.mtu`).
pub fn sysctl_path(key: &str) -> PathBuf {
    let relative: String = key
        .chars()
        .map(|character| match character {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    Path::new("/proc/sys").join(relative)
}
