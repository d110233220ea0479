//! What we change on this host, recorded on its disk before it is changed, so that `down` can put it back.
//!
//! The file is /var/lib/clusterctl/journal: a header line and one JSON line an entry, brought to the disk before the change
//! it is about. The first record of a thing wins: it holds the state before clusterctl came, whatever happens later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{EntryKind, Host};
use crate::failure::{Failure, Kind, Result};

mod restore;

pub use restore::restore;

/// Everything of ours that is no part of Kubernetes lives here.
pub const STATE_DIRECTORY: &str = "/var/lib/clusterctl";

/// The journal itself.
pub const JOURNAL: &str = "/var/lib/clusterctl/journal";

/// Files that were replaced, by number.
pub const BACKUPS: &str = "/var/lib/clusterctl/backup";

/// What is put before a line of /etc/fstab to take it out of use.
pub const FSTAB_MARK: &str = "#clusterctl# ";

/// The first line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this format: 1.
    pub format: u32,
    /// The cluster the host belongs to.
    pub cluster: String,
    /// Since when, seconds since the epoch by the host's clock.
    pub since_seconds: u64,
}

/// One thing as it was before we changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// A file or link that was not there.
    Created {
        /// Its path.
        path: PathBuf,
    },
    /// A file that was there; its content is kept.
    Replaced {
        /// Its path.
        path: PathBuf,
        /// Where its content is kept.
        backup: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A link that was there.
    Relinked {
        /// Its path.
        path: PathBuf,
        /// Where it pointed.
        target: PathBuf,
    },
    /// A file or directory whose permission bits were others.
    Mode {
        /// Its path.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// A directory that was not there; it goes when it is empty.
    Directory {
        /// Its path.
        path: PathBuf,
    },
    /// A directory that was not there; it goes with everything in it.
    Tree {
        /// Its path.
        path: PathBuf,
    },
    /// A directory that was there and empty; everything in it goes, the directory stays.
    Filled {
        /// Its path.
        path: PathBuf,
    },
    /// A kernel parameter.
    Sysctl {
        /// Dotted name.
        key: String,
        /// Its value.
        value: String,
    },
    /// A kernel module that was not loaded.
    Module {
        /// Its name.
        name: String,
    },
    /// Swap that was in use.
    SwapOff {
        /// The device or file.
        device: String,
    },
    /// /etc/fstab had lines that are commented out with [`FSTAB_MARK`].
    FstabCommented,
    /// A unit as it was.
    Unit {
        /// Its name.
        name: String,
        /// Started at boot.
        enabled: bool,
        /// Ran.
        active: bool,
    },
    /// A unit that ran and was restarted because its files changed; it is restarted again when they are back.
    Restarted {
        /// Its name.
        name: String,
    },
    /// An image that the container runtime, which is the host's own, did not have.
    Image {
        /// Its reference.
        reference: String,
    },
    /// Something a program did that another undoes.
    Command {
        /// The program that undoes it, with its arguments.
        undo: Vec<String>,
    },
}

impl Entry {
    /// What the entry is about; a thing is recorded once.
    fn subject(&self) -> String {
        match self {
            Entry::Created { path } | Entry::Replaced { path, .. } | Entry::Relinked { path, .. } => path_subject(path),
            Entry::Mode { path, .. } => format!("mode {}", path.display()),
            Entry::Directory { path } => directory_subject(path),
            Entry::Tree { path } | Entry::Filled { path } => tree_subject(path),
            Entry::Sysctl { key, .. } => format!("sysctl {key}"),
            Entry::Module { name } => format!("module {name}"),
            Entry::SwapOff { device } => format!("swap {device}"),
            Entry::FstabCommented => "fstab".to_owned(),
            Entry::Unit { name, .. } => format!("unit {name}"),
            Entry::Restarted { name } => format!("restarted {name}"),
            Entry::Image { reference } => format!("image {reference}"),
            Entry::Command { undo } => format!("command {}", undo.join("\0")),
        }
    }
}

fn path_subject(path: &Path) -> String {
    format!("path {}", path.display())
}

fn directory_subject(path: &Path) -> String {
    format!("directory {}", path.display())
}

fn tree_subject(path: &Path) -> String {
    format!("tree {}", path.display())
}

/// Whose what is in a directory shall be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// Only what is recorded by itself is ours.
    #[default]
    Shared,
    /// If the directory is not there yet or empty, then everything that comes into it is ours and goes with it.
    Ours,
}

/// The journal of this host, open for recording. Recording is short and may happen from several tasks at once.
#[derive(Debug)]
pub struct Journal {
    cluster: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the file is there, with its header.
    begun: bool,
    subjects: BTreeSet<String>,
    backups: u32,
}

/// What a journal's text says.
struct Parsed {
    header: Option<Header>,
    entries: Vec<Entry>,
    /// Numbers of lines that could not be read, counted from 1.
    damaged: Vec<usize>,
    /// Length of the text up to the last complete line.
    complete: usize,
}

/// Reads a journal. A last line without an end was being written when the host went down: the change it announces did not
/// happen, so it counts for nothing.
fn parse(text: &str) -> Parsed {
    let complete = text.rfind('\n').map_or(0, |end| end + 1);
    let mut parsed = Parsed { header: None, entries: Vec::new(), damaged: Vec::new(), complete };
    for (index, line) in text[..complete].lines().enumerate() {
        if index == 0 {
            parsed.header = serde_json::from_str(line).ok();
            if parsed.header.is_none() {
                parsed.damaged.push(1);
            }
        } else {
            match serde_json::from_str(line) {
                Ok(entry) => parsed.entries.push(entry),
                Err(_) => parsed.damaged.push(index + 1),
            }
        }
    }
    parsed
}

fn load(host: &dyn Host) -> Result<Option<String>> {
    Ok(host.read(Path::new(JOURNAL))?.map(|content| String::from_utf8_lossy(&content).into_owned()))
}

/// The cluster this host's journal was written for, if there is one.
///
/// # Errors
/// When the journal cannot be read.
pub fn cluster_of(host: &dyn Host) -> Result<Option<String>> {
    Ok(load(host)?.and_then(|text| parse(&text).header).map(|header| header.cluster))
}

/// Whether the journal says that a path is ours: made by us, or below a directory that is.
///
/// # Errors
/// When the journal cannot be read.
pub fn is_ours(host: &dyn Host, path: &Path) -> Result<bool> {
    let entries = load(host)?.map(|text| parse(&text).entries).unwrap_or_default();
    Ok(entries.iter().any(|entry| match entry {
        Entry::Created { path: made } => made == path,
        Entry::Tree { path: tree } | Entry::Filled { path: tree } => path.starts_with(tree),
        _ => false,
    }))
}

impl Journal {
    /// Opens the journal of this host for a cluster. Nothing is written before the first record.
    ///
    /// # Errors
    /// When the host's journal belongs to another cluster, or cannot be read.
    pub fn open(host: &dyn Host, cluster: &str) -> Result<Self> {
        let mut state = State::default();
        if let Some(text) = load(host)? {
            let parsed = parse(&text);
            if let Some(line) = parsed.damaged.first() {
                return Err(Failure::new(Kind::Host, format!("{JOURNAL} line {line} cannot be read"))
                    .advise("run `clusterctl down`, which puts back what can be read, and then `clusterctl up`"));
            }
            if parsed.complete < text.len() {
                host.write(Path::new(JOURNAL), &text.as_bytes()[..parsed.complete], 0o600)?;
            }
            if let Some(header) = parsed.header {
                if header.cluster != cluster {
                    let sentence = format!("the host belongs to cluster {} already", header.cluster);
                    return Err(Failure::new(Kind::Preflight, sentence)
                        .advise("run `clusterctl down` with that cluster's inventory first"));
                }
                state.begun = true;
            }
            state.subjects = parsed.entries.iter().map(Entry::subject).collect();
            state.backups = highest_backup(host)?;
        }
        Ok(Self { cluster: cluster.to_owned(), state: Mutex::new(state) })
    }

    /// Records one thing as it is now; what is recorded already stays as it was recorded first.
    ///
    /// # Errors
    /// When the record does not reach the disk; then the change must not be made.
    pub fn record(&self, host: &dyn Host, entry: Entry) -> Result<()> {
        self.record_all(host, [entry])
    }

    /// Records several things with one write.
    ///
    /// # Errors
    /// When the records do not reach the disk; then the changes must not be made.
    pub fn record_all(&self, host: &dyn Host, entries: impl IntoIterator<Item = Entry>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = BTreeSet::new();
        let mut lines = String::new();
        for entry in entries {
            let subject = entry.subject();
            if !state.subjects.contains(&subject) && fresh.insert(subject) {
                lines.push_str(&line(&entry)?);
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        if !state.begun {
            host.create_directory(Path::new(STATE_DIRECTORY), 0o700)?;
            let since_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let header = Header { format: 1, cluster: self.cluster.clone(), since_seconds };
            lines.insert_str(0, &line(&header)?);
        }
        host.append(Path::new(JOURNAL), lines.as_bytes())?;
        state.begun = true;
        state.subjects.append(&mut fresh);
        Ok(())
    }

    /// Makes or replaces a file, its missing parents too (mode 0755), after recording what was there.
    ///
    /// # Errors
    /// When the record or the file cannot be written.
    pub fn write_file(&self, host: &dyn Host, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        self.before_file(host, path)?;
        host.write(path, content, mode)
    }

    /// Moves a file that is ready into place with these permission bits, after recording what was there.
    ///
    /// # Errors
    /// When the record cannot be written or the file cannot be moved.
    pub fn place_file(&self, host: &dyn Host, ready: &Path, path: &Path, mode: u32) -> Result<()> {
        self.before_file(host, path)?;
        host.set_mode(ready, mode)?;
        host.rename(ready, path)
    }

    /// Removes a file or link after recording what it was; nothing there is fine.
    ///
    /// # Errors
    /// When the record cannot be written or the file cannot be removed.
    pub fn remove_file(&self, host: &dyn Host, path: &Path) -> Result<()> {
        if host.entry(path)?.is_none() {
            return Ok(());
        }
        self.before_file(host, path)?;
        host.remove(path)
    }

    /// Makes or replaces a symbolic link, its missing parents too, after recording what was there.
    ///
    /// # Errors
    /// When the record cannot be written or the link cannot be made.
    pub fn make_link(&self, host: &dyn Host, path: &Path, target: &Path) -> Result<()> {
        self.before_file(host, path)?;
        host.link(path, target)
    }

    /// Makes a directory and its missing parents, or sets the mode of one that is there, after recording what was there.
    ///
    /// # Errors
    /// When the record cannot be written or the directory cannot be made.
    pub fn make_directory(&self, host: &dyn Host, path: &Path, mode: u32, contents: Contents) -> Result<()> {
        let mut entries = self.missing_parents(host, path)?;
        let entry = host.entry(path)?;
        match &entry {
            None => entries.push(Entry::Directory { path: path.to_owned() }),
            Some(entry) if entry.kind == EntryKind::Directory && entry.mode != mode && !self.covers(path) => {
                entries.push(Entry::Mode { path: path.to_owned(), mode: entry.mode });
            }
            Some(_) => {}
        }
        if contents == Contents::Ours {
            if entry.is_none() || self.has(&directory_subject(path)) {
                entries.push(Entry::Tree { path: path.to_owned() });
            } else if host.list(path)?.is_empty() {
                entries.push(Entry::Filled { path: path.to_owned() });
            }
        }
        self.record_all(host, entries)?;
        host.create_directory(path, mode)?;
        if entry.is_some_and(|entry| entry.kind == EntryKind::Directory && entry.mode != mode) {
            host.set_mode(path, mode)?;
        }
        Ok(())
    }

    /// Sets permission bits after recording what they were.
    ///
    /// # Errors
    /// When the record cannot be written or the path is not there.
    pub fn set_mode(&self, host: &dyn Host, path: &Path, mode: u32) -> Result<()> {
        if let Some(entry) = host.entry(path)?
            && !self.covers(path)
        {
            self.record(host, Entry::Mode { path: path.to_owned(), mode: entry.mode })?;
        }
        host.set_mode(path, mode)
    }

    /// Records what a path is before a file or link comes there, and makes its missing parents.
    fn before_file(&self, host: &dyn Host, path: &Path) -> Result<()> {
        let mut entries = self.missing_parents(host, path)?;
        if !self.covers(path) {
            let found = host.entry(path)?;
            entries.push(match found.map(|found| (found.kind, found.mode)) {
                None => Entry::Created { path: path.to_owned() },
                Some((EntryKind::File, mode)) => {
                    let backup = self.back_up(host, path)?;
                    Entry::Replaced { path: path.to_owned(), backup, mode }
                }
                Some((EntryKind::Link(target), _)) => Entry::Relinked { path: path.to_owned(), target },
                Some((EntryKind::Directory | EntryKind::Other, _)) => {
                    let sentence = format!("{} is in the way: it is neither a file nor a link", path.display());
                    return Err(Failure::new(Kind::Host, sentence).advise("move it away"));
                }
            });
        }
        self.record_all(host, entries)?;
        match path.parent() {
            Some(parent) => host.create_directory(parent, 0o755),
            None => Ok(()),
        }
    }

    /// Entries for the parents that making a path makes too.
    fn missing_parents(&self, host: &dyn Host, path: &Path) -> Result<Vec<Entry>> {
        let mut missing = Vec::new();
        for parent in path.ancestors().skip(1) {
            if host.entry(parent)?.is_some() {
                break;
            }
            missing.push(Entry::Directory { path: parent.to_owned() });
        }
        missing.reverse();
        missing.retain(|entry| !matches!(entry, Entry::Directory { path } if self.covers(path)));
        Ok(missing)
    }

    /// Keeps the content of a file and tells where.
    fn back_up(&self, host: &dyn Host, path: &Path) -> Result<PathBuf> {
        let content = host.read(path)?.unwrap_or_default();
        let number = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.backups += 1;
            state.backups
        };
        let backup = Path::new(BACKUPS).join(number.to_string());
        host.create_directory(Path::new(STATE_DIRECTORY), 0o700)?;
        host.create_directory(Path::new(BACKUPS), 0o700)?;
        host.write(&backup, &content, 0o600)?;
        Ok(backup)
    }

    /// Whether a path is recorded, or below a directory that goes as a whole.
    fn covers(&self, path: &Path) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.subjects.contains(&path_subject(path))
            || state.subjects.contains(&directory_subject(path))
            || path.ancestors().any(|ancestor| state.subjects.contains(&tree_subject(ancestor)))
    }

    fn has(&self, subject: &str) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).subjects.contains(subject)
    }
}

fn highest_backup(host: &dyn Host) -> Result<u32> {
    Ok(host.list(Path::new(BACKUPS))?.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0))
}

fn line(value: &impl Serialize) -> Result<String> {
    let mut line = serde_json::to_string(value)
        .map_err(|error| Failure::new(Kind::Internal, "a record of the journal cannot be written").because(&error))?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests;
