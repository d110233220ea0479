//! A host in memory for tests: files, scripted answers of programs, and a record of everything that was done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;

use super::seen::Stamp;
use super::{Command, Entry, EntryKind, Host, Input, Output, Space, sha256_hex};
use crate::failure::{Failure, Kind, Result};

/// What a scripted program does: it may look at its command and alter the host.
type Answer = Arc<dyn Fn(&FakeHost, &Command) -> Result<Output> + Send + Sync>;

/// A host in memory.
///
/// Programs answer by the longest prefix of their words that was scripted with [`FakeHost::answer`]; one that was not
/// scripted is a failure, so that a test notices every program that runs. Clones share one state.
#[derive(Clone, Default)]
pub struct FakeHost {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<PathBuf, Node>,
    answers: Vec<(Vec<String>, Answer)>,
    done: Vec<String>,
    ran: Vec<Command>,
    unwritable: Vec<PathBuf>,
    stamps: BTreeMap<PathBuf, Stamp>,
}

#[derive(Clone)]
struct Node {
    kind: EntryKind,
    mode: u32,
    content: Vec<u8>,
}

impl FakeHost {
    /// An empty host: only the root directory.
    pub fn new() -> Self {
        let host = Self::default();
        host.insert(Path::new("/"), Node { kind: EntryKind::Directory, mode: 0o755, content: Vec::new() });
        host
    }

    /// With a file of mode 0644, its parents made.
    pub fn file(self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Self {
        self.put(path.as_ref(), content.as_ref(), 0o644);
        self
    }

    /// With a directory of mode 0755, its parents made.
    pub fn directory(self, path: impl AsRef<Path>) -> Self {
        self.parents(&path.as_ref().join("any"));
        self
    }

    /// With a symbolic link, its parents made.
    pub fn symlink(self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.parents(path.as_ref());
        let kind = EntryKind::Link(target.as_ref().to_owned());
        self.insert(path.as_ref(), Node { kind, mode: 0o777, content: Vec::new() });
        self
    }

    /// With an answer for every command that begins with these words.
    pub fn answer(self, words: &[&str], status: i32, stdout: impl AsRef<[u8]>) -> Self {
        let output = Output { status, stdout: stdout.as_ref().to_vec(), stderr: Vec::new() };
        self.answer_with(words, move |_, _| Ok(output.clone()))
    }

    /// With a function for every command that begins with these words; it may alter the host.
    pub fn answer_with(
        self,
        words: &[&str],
        answer: impl Fn(&FakeHost, &Command) -> Result<Output> + Send + Sync + 'static,
    ) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.state().answers.push((words, Arc::new(answer)));
        self
    }

    /// With what systemd says of every unit it is asked for.
    pub fn every_unit(self, block: &str) -> Self {
        let block = block.to_owned();
        self.answer_with(&["systemctl", "show"], move |_, command| {
            let units = command.arguments.iter().skip_while(|word| *word != "--").skip(1);
            let blocks: Vec<&str> = units.map(|_| block.as_str()).collect();
            Ok(Output { stdout: blocks.join("\n").into_bytes(), ..Output::default() })
        })
    }

    /// With a path whose writing fails: the disk is full there.
    pub fn unwritable(self, path: impl AsRef<Path>) -> Self {
        self.state().unwritable.push(path.as_ref().to_owned());
        self
    }

    /// Puts a file without recording it as done; for answers that alter the host.
    pub fn put(&self, path: &Path, content: &[u8], mode: u32) {
        self.parents(path);
        self.insert(path, Node { kind: EntryKind::File, mode, content: content.to_vec() });
    }

    /// Says when a file was touched; otherwise nothing tells.
    pub fn stamped(&self, path: &Path, stamp: Option<Stamp>) {
        let stamps = &mut self.state().stamps;
        match stamp {
            Some(stamp) => stamps.insert(path.to_owned(), stamp),
            None => stamps.remove(path),
        };
    }

    /// Text of a file, or `None` if there is none.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let state = self.state();
        let node = state.nodes.get(path.as_ref())?;
        (node.kind == EntryKind::File).then(|| String::from_utf8_lossy(&node.content).into_owned())
    }

    /// Every path with what it is, for comparing two states of a host.
    pub fn listing(&self) -> BTreeMap<PathBuf, (EntryKind, u32, Vec<u8>)> {
        let state = self.state();
        state
            .nodes
            .iter()
            .map(|(path, node)| (path.clone(), (node.kind.clone(), node.mode, node.content.clone())))
            .collect()
    }

    /// What was altered, in order, one line each: `write /etc/a 0644`, `run modprobe overlay`.
    pub fn done(&self) -> Vec<String> {
        self.state().done.clone()
    }

    /// The commands that were run, in order, with their standard input.
    pub fn ran(&self) -> Vec<Command> {
        self.state().ran.clone()
    }

    /// Forgets what was done so far.
    pub fn forget(&self) {
        let mut state = self.state();
        state.done.clear();
        state.ran.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, path: &Path, node: Node) {
        self.state().nodes.insert(path.to_owned(), node);
    }

    fn parents(&self, path: &Path) {
        let mut state = self.state();
        for parent in path.ancestors().skip(1) {
            let directory = Node { kind: EntryKind::Directory, mode: 0o755, content: Vec::new() };
            state.nodes.entry(parent.to_owned()).or_insert(directory);
        }
    }

    fn did(&self, what: String) {
        self.state().done.push(what);
    }

    fn may_write(&self, path: &Path) -> Result<()> {
        let state = self.state();
        let cannot = Failure::new(Kind::Host, format!("cannot write {}", path.display()));
        if state.unwritable.iter().any(|unwritable| path.starts_with(unwritable)) {
            return Err(cannot.caused_by("No space left on device (os error 28)"));
        }
        match path.parent().map(|parent| resolve(&state.nodes, parent)) {
            Some(parent) if !state.nodes.contains_key(&parent) => {
                Err(cannot.caused_by("No such file or directory (os error 2)"))
            }
            _ => Ok(()),
        }
    }

    fn node(&self, path: &Path) -> Option<Node> {
        let state = self.state();
        let resolved = resolve(&state.nodes, path);
        state.nodes.get(&resolved).cloned()
    }

    /// Where a path leads with the links of its directories followed, but not the last component.
    fn place(&self, path: &Path) -> PathBuf {
        let state = self.state();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => resolve(&state.nodes, parent).join(name),
            _ => path.to_owned(),
        }
    }

    fn perform(&self, command: Command) -> Result<Output> {
        let mut words = vec![command.program.clone()];
        words.extend(command.arguments.iter().cloned());
        self.did(format!("run {}", words.join(" ")));
        let answer = {
            let mut state = self.state();
            state.ran.push(command.clone());
            let fitting = state.answers.iter().filter(|(prefix, _)| words.starts_with(prefix));
            // The later of two equally long ones: a test may override what a helper scripted.
            fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, answer)| answer.clone())
        };
        match answer {
            Some(answer) => answer(self, &command),
            None => Err(Failure::new(Kind::Host, format!("no answer is scripted for `{}`", words.join(" ")))),
        }
    }
}

/// Follows links, at most 16 of them.
fn resolve(nodes: &BTreeMap<PathBuf, Node>, path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    let mut rest: Vec<PathBuf> = path.components().rev().map(|component| component.as_os_str().into()).collect();
    let mut followed = 0;
    while let Some(component) = rest.pop() {
        if component == Path::new("..") {
            place.pop();
            continue;
        }
        // Pushing an absolute component, as a link's target may begin with one, starts over from the root.
        place.push(component);
        if let Some(Node { kind: EntryKind::Link(target), .. }) = nodes.get(&place)
            && followed < 16
        {
            followed += 1;
            rest.extend(target.components().rev().map(|component| PathBuf::from(component.as_os_str())));
            place.pop();
        }
    }
    place
}

impl Host for FakeHost {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.node(path) {
            Some(Node { kind: EntryKind::Directory, .. }) => {
                Err(Failure::new(Kind::Host, format!("cannot read {}", path.display()))
                    .caused_by("Is a directory (os error 21)"))
            }
            node => Ok(node.map(|node| node.content)),
        }
    }

    fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        let place = self.place(path);
        Ok(self.state().nodes.get(&place).map(|node| Entry {
            kind: node.kind.clone(),
            mode: node.mode,
            uid: 0,
            gid: 0,
            size: node.content.len() as u64,
        }))
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>> {
        let state = self.state();
        let directory = resolve(&state.nodes, directory);
        let children = state.nodes.keys().filter(|path| path.parent() == Some(directory.as_path()));
        Ok(children.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn sha256(&self, path: &Path) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|content| sha256_hex(&content)))
    }

    fn stamp(&self, path: &Path) -> Result<Option<Stamp>> {
        Ok(self.state().stamps.get(path).copied())
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        self.may_write(path)?;
        self.did(format!("write {} {mode:04o}", path.display()));
        self.insert(&self.place(path), Node { kind: EntryKind::File, mode, content: content.to_vec() });
        Ok(())
    }

    fn poke(&self, path: &Path, content: &[u8]) -> Result<()> {
        let Some(node) = self.node(path) else {
            return Err(Failure::new(Kind::Host, format!("cannot write {}", path.display()))
                .caused_by("No such file or directory (os error 2)"));
        };
        self.did(format!("poke {} {}", path.display(), String::from_utf8_lossy(content).trim_end()));
        self.insert(path, Node { content: content.to_vec(), ..node });
        Ok(())
    }

    fn append(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.may_write(path)?;
        self.did(format!("append {}", path.display()));
        let mut node = self.node(path).unwrap_or(Node { kind: EntryKind::File, mode: 0o600, content: Vec::new() });
        node.content.extend_from_slice(content);
        self.insert(path, node);
        Ok(())
    }

    fn space(&self, path: &Path) -> Result<Option<Space>> {
        Ok(self.node(path).map(|_| Space { total_bytes: 100 << 30, free_bytes: 50 << 30 }))
    }

    fn create_directory(&self, path: &Path, mode: u32) -> Result<()> {
        match self.node(path) {
            Some(Node { kind: EntryKind::Directory, .. }) => return Ok(()),
            Some(_) => {
                return Err(Failure::new(Kind::Host, format!("cannot make the directory {}", path.display()))
                    .caused_by("File exists (os error 17)"));
            }
            None => {}
        }
        self.did(format!("directory {} {mode:04o}", path.display()));
        self.parents(path);
        self.insert(&self.place(path), Node { kind: EntryKind::Directory, mode, content: Vec::new() });
        Ok(())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        let Some(node) = self.node(path) else {
            return Err(Failure::new(Kind::Host, format!("cannot set the permissions of {}", path.display()))
                .caused_by("No such file or directory (os error 2)"));
        };
        self.did(format!("mode {} {mode:04o}", path.display()));
        self.insert(path, Node { mode, ..node });
        Ok(())
    }

    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        self.may_write(path)?;
        self.did(format!("link {} {}", path.display(), target.display()));
        let kind = EntryKind::Link(target.to_owned());
        self.insert(&self.place(path), Node { kind, mode: 0o777, content: Vec::new() });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.may_write(to)?;
        let node = self.state().nodes.remove(from);
        let Some(node) = node else {
            return Err(Failure::new(Kind::Host, format!("cannot move {} to {}", from.display(), to.display()))
                .caused_by("No such file or directory (os error 2)"));
        };
        self.did(format!("rename {} {}", from.display(), to.display()));
        self.insert(&self.place(to), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let place = self.place(path);
        if !self.list(&place)?.is_empty()
            && self.state().nodes.get(&place).is_some_and(|node| node.kind == EntryKind::Directory)
        {
            return Err(Failure::new(Kind::Host, format!("cannot remove {}", path.display()))
                .caused_by("Directory not empty (os error 39)"));
        }
        if self.state().nodes.remove(&place).is_some() {
            self.did(format!("remove {}", path.display()));
        }
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> Result<()> {
        let place = self.place(path);
        let mut state = self.state();
        let before = state.nodes.len();
        state.nodes.retain(|other, _| !other.starts_with(&place));
        let removed = before != state.nodes.len();
        drop(state);
        if removed {
            self.did(format!("remove-tree {}", path.display()));
        }
        Ok(())
    }

    fn empty_tree(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let place = resolve(&state.nodes, path);
        let before = state.nodes.len();
        state.nodes.retain(|other, _| !other.starts_with(&place) || *other == place);
        let removed = before != state.nodes.len();
        drop(state);
        if removed {
            self.did(format!("empty-tree {}", path.display()));
        }
        Ok(())
    }

    fn unmount(&self, path: &Path) -> Result<()> {
        self.did(format!("unmount {}", path.display()));
        Ok(())
    }

    fn run(&self, command: Command) -> BoxFuture<'_, Result<Output>> {
        Box::pin(async move { self.perform(command) })
    }

    fn run_fed<'a>(&'a self, mut command: Command, mut input: Input<'a>) -> BoxFuture<'a, Result<Output>> {
        Box::pin(async move {
            let mut content = Vec::new();
            input.read_to_end(&mut content).await.map_err(|error| {
                Failure::new(Kind::Host, format!("cannot feed or await {}", command.program)).because(&error)
            })?;
            command.input = content;
            self.perform(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::FakeHost;
    use crate::host::{Command, Host};

    #[test]
    fn links_lead_to_their_files() {
        let host = FakeHost::new().file("/run/a", "text").symlink("/var/run", "/run").symlink("/var/b", "../run/a");
        assert_eq!(host.read(Path::new("/var/run/a")).unwrap().unwrap(), b"text");
        assert_eq!(host.read(Path::new("/var/b")).unwrap().unwrap(), b"text");
        assert_eq!(host.list(Path::new("/var/run")).unwrap(), ["a"]);
    }

    #[tokio::test]
    async fn the_longest_scripted_prefix_answers_and_an_unscripted_program_fails() {
        let host =
            FakeHost::new().answer(&["systemctl"], 1, "").answer_with(&["systemctl", "start"], |host, command| {
                host.put(Path::new("/run/started"), command.arguments[1].as_bytes(), 0o644);
                Ok(crate::host::Output::default())
            });
        assert_eq!(host.run(Command::new("systemctl", &["stop", "a"])).await.unwrap().status, 1);
        assert!(host.run(Command::new("systemctl", &["start", "a.service"])).await.unwrap().success());
        assert_eq!(host.text("/run/started").unwrap(), "a.service");
        assert!(host.run(Command::new("true", &[])).await.is_err());
        assert_eq!(host.done(), ["run systemctl stop a", "run systemctl start a.service", "run true"]);
    }
}
