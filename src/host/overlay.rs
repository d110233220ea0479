//! A host for dry runs: what is read comes from the real one, what would be altered is kept in memory, shown to later
//! reads, and told at the end: in lines ([`Overlay::told`]) and by comparison with the real one ([`Overlay::changes`]).
//! With a folder, written files are also put below it, for a person to look at; without one the host is not touched.

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;

use super::systemd::DELETED;
use super::{Command, Entry, EntryKind, Host, Input, Output, Space, sha256_hex, systemd};
use crate::change::Change;
use crate::failure::{Failure, Kind, Result};

/// Programs that are run all the same, because with one of these words they only look; no word stands for any.
const LOOKS: &[(&str, &[&str])] = &[
    ("bridge", &["show"]),
    ("containerd", &["--version", "config"]),
    ("ctr", &["ls", "version", "--help"]),
    ("getent", &[]),
    ("ip", &["show"]),
    ("ip6tables", &["-C", "-L"]),
    ("ip6tables-legacy-save", &[]),
    ("ip6tables-nft-save", &[]),
    ("ip6tables-save", &[]),
    ("ipset", &["list"]),
    ("iptables", &["-C", "-L"]),
    ("iptables-legacy-save", &[]),
    ("iptables-nft-save", &[]),
    ("iptables-save", &[]),
    ("journalctl", &[]),
    ("kubelet", &["--version"]),
    ("nft", &["list"]),
    ("systemctl", &["show"]),
    ("tail", &[]),
];

/// What a path would be.
#[derive(Clone)]
enum Fate {
    File {
        content: Vec<u8>,
        mode: u32,
    },
    Directory {
        mode: u32,
    },
    Link(PathBuf),
    /// The content of another file, which may be long.
    Copy {
        of: PathBuf,
        mode: u32,
    },
    /// A file of the bundle that would have been received.
    Blob {
        sha256: String,
        size: u64,
        mode: u32,
    },
    /// With everything below it.
    Gone,
}

impl Fate {
    /// With other permission bits; what has none stays.
    fn with_mode(self, mode: u32) -> Self {
        match self {
            Self::File { content, .. } => Self::File { content, mode },
            Self::Directory { .. } => Self::Directory { mode },
            Self::Copy { of, .. } => Self::Copy { of, mode },
            Self::Blob { sha256, size, .. } => Self::Blob { sha256, size, mode },
            other @ (Self::Link(_) | Self::Gone) => other,
        }
    }
}

/// What was noted, in order.
#[derive(Clone, PartialEq)]
enum Noted {
    /// A path that was touched; what became of it is found out at the end.
    Path(PathBuf),
    /// Something that was done.
    Done(Change),
}

#[derive(Default)]
struct State {
    fates: BTreeMap<PathBuf, Fate>,
    /// Programs that would have altered something: what they say afterwards is not known.
    altered_by: BTreeSet<String>,
    told: Vec<String>,
    noted: Vec<Noted>,
}

/// The overlay.
pub struct Overlay<'a> {
    below: &'a dyn Host,
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

impl<'a> Overlay<'a> {
    /// Over `below`; written files are put below `folder`, a real directory that only root may enter.
    pub fn new(below: &'a dyn Host, folder: impl Into<PathBuf>) -> Self {
        Self { below, folder: Some(folder.into()), state: Mutex::default() }
    }

    /// Over `below`, which is not touched at all.
    pub fn in_memory(below: &'a dyn Host) -> Self {
        Self { below, folder: None, state: Mutex::default() }
    }

    /// A file of the bundle is taken as received and put in place.
    pub fn place(&self, path: &Path, sha256: &str, size: u64, mode: u32) {
        self.settle(path, Fate::Blob { sha256: sha256.to_owned(), size, mode });
    }

    /// What would have been altered, in order, one line each.
    pub fn told(&self) -> Vec<String> {
        self.state().told.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, line: String) {
        self.state().told.push(line);
    }

    /// What the kernel would say of the program of a process (proc(5), `exe`) whose file a placed one replaces.
    fn as_it_would_be(&self, path: &Path, entry: Entry) -> Entry {
        match &entry.kind {
            EntryKind::Link(program)
                if path.starts_with("/proc")
                    && path.ends_with("exe")
                    && matches!(self.fate(program), Some(Fate::Blob { .. })) =>
            {
                let mut program = program.clone().into_os_string();
                program.push(DELETED);
                Entry { kind: EntryKind::Link(program.into()), ..entry }
            }
            _ => entry,
        }
    }

    /// What would be at a path, if that was altered: by itself or with a directory above it.
    fn fate(&self, path: &Path) -> Option<Fate> {
        let state = self.state();
        if let Some(fate) = state.fates.get(path) {
            return Some(fate.clone());
        }
        // A directory that is gone, or was made here, has nothing of the real one in it.
        let above = path.ancestors().skip(1).find_map(|ancestor| state.fates.get(ancestor));
        above.filter(|fate| matches!(fate, Fate::Gone | Fate::Directory { .. })).map(|_| Fate::Gone)
    }

    fn settle(&self, path: &Path, fate: Fate) {
        self.note(Noted::Path(path.to_owned()));
        self.state().fates.insert(path.to_owned(), fate);
    }

    /// Notes something once, where it came first.
    fn note(&self, noted: Noted) {
        let mut state = self.state();
        if !state.noted.contains(&noted) {
            state.noted.push(noted);
        }
    }

    /// Where a copy of a written file lies, if they are wanted.
    fn copy_of(&self, path: &Path) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(path.strip_prefix("/").unwrap_or(path)))
    }

    fn is_there(&self, path: &Path) -> Result<bool> {
        Ok(self.entry(path)?.is_some())
    }

    async fn perform(&self, command: &Command) -> Output {
        let program = base(&command.program).to_owned();
        let arguments: Vec<&str> = command.arguments.iter().map(String::as_str).collect();
        self.tell(format!("run {program} {}", arguments.join(" ")).trim_end().to_owned());
        match (program.as_str(), arguments.as_slice()) {
            ("kill", words) => {
                let processes = words.iter().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
                processes.for_each(|id| {
                    self.state().fates.insert(Path::new("/proc").join(id), Fate::Gone);
                });
            }
            ("cp", ["--force", from, to]) => {
                self.settle(Path::new(to), Fate::Copy { of: PathBuf::from(from), mode: 0o600 });
            }
            _ => {}
        }
        if let Some(change) = changes::of_program(&program, &arguments) {
            let disrupts = match changes::interrupted(&program, &arguments) {
                Some(unit) => systemd::is_active(self.below, unit).await.unwrap_or(false),
                None => change.disrupts,
            };
            self.note(Noted::Done(change.disrupting(disrupts)));
        }
        self.state().altered_by.insert(program);
        Output::default()
    }

    /// Whether a program only looks, and can know what it looks at.
    fn looks(&self, command: &Command) -> bool {
        let program = base(&command.program);
        let words = LOOKS.iter().find(|(name, _)| *name == program).map(|(_, words)| words);
        words.is_some_and(|words| {
            words.is_empty() || command.arguments.iter().any(|word| words.contains(&word.as_str()))
        })
    }

    /// What a program that only looks would say; after it altered something in this rehearsal: nothing.
    fn unknown(&self, command: &Command) -> bool {
        let program = base(&command.program);
        program != "systemctl" && self.state().altered_by.contains(program)
    }
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn nothing(doing: &str, path: &Path) -> Failure {
    Failure::new(Kind::Host, format!("cannot {doing} {}", path.display()))
        .caused_by("No such file or directory (os error 2)")
}

impl Host for Overlay<'_> {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.fate(path) {
            Some(Fate::File { content, .. }) => Ok(Some(content)),
            Some(Fate::Link(target)) => self.read(&path.parent().unwrap_or(path).join(target)),
            Some(Fate::Copy { of, .. }) => self.below.read(&of),
            // What would have been received is not here.
            Some(Fate::Blob { .. }) => Ok(Some(Vec::new())),
            Some(Fate::Directory { .. } | Fate::Gone) => Ok(None),
            None => self.below.read(path),
        }
    }

    fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        let (kind, mode, size) = match self.fate(path) {
            None => return Ok(self.below.entry(path)?.map(|entry| self.as_it_would_be(path, entry))),
            Some(Fate::Gone) => return Ok(None),
            Some(Fate::File { content, mode }) => (EntryKind::File, mode, content.len() as u64),
            Some(Fate::Directory { mode }) => (EntryKind::Directory, mode, 0),
            Some(Fate::Copy { of, mode }) => {
                (EntryKind::File, mode, self.below.entry(&of)?.map_or(0, |entry| entry.size))
            }
            Some(Fate::Blob { size, mode, .. }) => (EntryKind::File, mode, size),
            Some(Fate::Link(target)) => (EntryKind::Link(target), 0o777, 0),
        };
        Ok(Some(Entry { kind, mode, uid: 0, gid: 0, size }))
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>> {
        let mut names: BTreeSet<String> = match self.fate(directory) {
            Some(_) => BTreeSet::new(),
            None => self.below.list(directory)?.into_iter().collect(),
        };
        let state = self.state();
        for (path, fate) in state.fates.iter().filter(|(path, _)| path.parent() == Some(directory)) {
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            match fate {
                Fate::Gone => {
                    names.remove(&name);
                }
                _ => {
                    names.insert(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    fn sha256(&self, path: &Path) -> Result<Option<String>> {
        match self.fate(path) {
            None => self.below.sha256(path),
            Some(Fate::Copy { of, .. }) => self.below.sha256(&of),
            Some(Fate::Blob { sha256, .. }) => Ok(Some(sha256)),
            Some(_) => Ok(self.read(path)?.map(|content| sha256_hex(&content))),
        }
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        if let Some(parent) = path.parent()
            && !self.is_there(parent)?
        {
            return Err(nothing("write", path));
        }
        match self.copy_of(path) {
            Some(copy) => {
                if let Some(parent) = copy.parent() {
                    self.below.create_directory(parent, 0o700)?;
                }
                self.below.write(&copy, content, mode)?;
                self.tell(format!("write {} ({mode:04o}): see {}", path.display(), copy.display()));
            }
            None => self.tell(format!("write {} ({mode:04o})", path.display())),
        }
        self.settle(path, Fate::File { content: content.to_vec(), mode });
        Ok(())
    }

    fn poke(&self, path: &Path, content: &[u8]) -> Result<()> {
        let mode = self.entry(path)?.ok_or_else(|| nothing("write", path))?.mode;
        self.tell(format!("set {} to {}", path.display(), String::from_utf8_lossy(content).trim_end()));
        self.settle(path, Fate::File { content: content.to_vec(), mode });
        Ok(())
    }

    fn append(&self, path: &Path, content: &[u8]) -> Result<()> {
        let mode = self.entry(path)?.map_or(0o600, |entry| entry.mode);
        let mut whole = self.read(path)?.unwrap_or_default();
        whole.extend_from_slice(content);
        self.tell(format!("add to {}", path.display()));
        self.settle(path, Fate::File { content: whole, mode });
        Ok(())
    }

    fn space(&self, path: &Path) -> Result<Option<Space>> {
        self.below.space(path)
    }

    fn create_directory(&self, path: &Path, mode: u32) -> Result<()> {
        if self.is_there(path)? {
            return Ok(());
        }
        let missing: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in missing.into_iter().rev() {
            if !self.is_there(parent)? {
                self.settle(parent, Fate::Directory { mode: 0o755 });
            }
        }
        self.tell(format!("make the directory {} ({mode:04o})", path.display()));
        self.settle(path, Fate::Directory { mode });
        Ok(())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        let entry = self.entry(path)?.ok_or_else(|| nothing("set the permissions of", path))?;
        self.tell(format!("set the permissions of {} to {mode:04o}", path.display()));
        match (entry.kind, self.fate(path)) {
            (EntryKind::File, None) => self.settle(path, Fate::Copy { of: path.to_owned(), mode }),
            (EntryKind::File | EntryKind::Directory, Some(fate)) => self.settle(path, fate.with_mode(mode)),
            (EntryKind::Directory, None) if entry.mode != mode => {
                self.note(Noted::Done(changes::of_mode(path, entry.mode, mode)));
            }
            _ => {}
        }
        Ok(())
    }

    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        self.tell(format!("link {} to {}", path.display(), target.display()));
        self.settle(path, Fate::Link(target.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mode = self.entry(from)?.ok_or_else(|| nothing("move", from))?.mode;
        let fate = match self.fate(from) {
            Some(fate) => fate,
            None => Fate::File { content: self.read(from)?.unwrap_or_default(), mode },
        };
        self.tell(format!("move {} to {}", from.display(), to.display()));
        self.settle(to, fate);
        self.settle(from, Fate::Gone);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if self.is_there(path)? {
            self.tell(format!("remove {}", path.display()));
            self.settle(path, Fate::Gone);
        }
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> Result<()> {
        if self.is_there(path)? {
            self.tell(format!("remove {} and everything below it", path.display()));
            self.state().fates.retain(|other, _| !other.starts_with(path));
            self.settle(path, Fate::Gone);
        }
        Ok(())
    }

    fn empty_tree(&self, path: &Path) -> Result<()> {
        let names = self.list(path)?;
        if !names.is_empty() {
            self.tell(format!("remove everything below {}", path.display()));
        }
        for name in names {
            let child = path.join(name);
            self.state().fates.retain(|other, _| !other.starts_with(&child));
            self.settle(&child, Fate::Gone);
        }
        Ok(())
    }

    fn unmount(&self, path: &Path) -> Result<()> {
        self.tell(format!("unmount {}", path.display()));
        self.note(Noted::Done(changes::of_unmounting(path)));
        Ok(())
    }

    fn run(&self, command: Command) -> BoxFuture<'_, Result<Output>> {
        match (self.looks(&command), self.unknown(&command)) {
            (true, false) => self.below.run(command),
            (true, true) => Box::pin(std::future::ready(Ok(Output::default()))),
            (false, _) => Box::pin(async move { Ok(self.perform(&command).await) }),
        }
    }

    fn run_fed<'b>(&'b self, command: Command, _: Input<'b>) -> BoxFuture<'b, Result<Output>> {
        Box::pin(async move { Ok(self.perform(&command).await) })
    }
}

#[cfg(test)]
mod tests;
