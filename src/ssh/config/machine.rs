//! This machine as ssh_config sees it: files with their owners, commands, variables, names. Files are read once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::pattern::matches_pattern;
use crate::ssh::local;

use super::read::{Local, World};

/// A larger file is no configuration.
const LARGEST: u64 = 4 << 20;
/// Files that one pattern may name.
const MOST_FILES: usize = 1000;

/// The real machine. Answers are kept: a run sees one state of the files, and a command of `Match exec` runs once.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    local: Local,
    files: Mutex<HashMap<PathBuf, Option<Arc<str>>>>,
    commands: Mutex<HashMap<String, bool>>,
    names: Mutex<HashMap<String, bool>>,
}

impl Machine {
    /// This machine, for the person who runs this process and has this home folder.
    pub(crate) fn new(home: PathBuf) -> Self {
        let id = rustix::process::getuid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let users: Vec<Vec<&str>> = passwd.lines().map(|line| line.split(':').collect()).collect();
        let ours = users.iter().find(|fields| fields.get(2).is_some_and(|number| number.parse() == Ok(id)));
        let listed = ours.and_then(|fields| fields.first()).map(|name| (*name).to_owned());
        let homes = users.iter().filter_map(|fields| Some(((*fields.first()?).to_owned(), fields.get(5)?.into())));
        let homes = Arc::new(homes.collect());
        // OpenSSH asks the user database only; what that does not say, the environment may.
        let named = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let user = listed.or_else(named).unwrap_or_default();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { local: Local { user, id, home, homes, host }, ..Self::default() }
    }

    fn text(&self, file: &Path, guarded: bool) -> Result<Option<Arc<str>>, String> {
        let opened = match std::fs::File::open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let metadata = opened.metadata().map_err(|error| format!("cannot be read: {error}"))?;
        if metadata.is_dir() {
            return Err("is a folder".to_owned());
        }
        if guarded && (metadata.uid() != 0 && metadata.uid() != self.local.id) {
            return Err(format!("belongs to user {}: whoever writes it decides where we connect", metadata.uid()));
        }
        if guarded && metadata.mode() & 0o022 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(format!("can be written by others (mode {mode:04o}); take that right away"));
        }
        let mut bytes = Vec::new();
        let read = opened.take(LARGEST + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > LARGEST {
            return Err(format!("has more than {LARGEST} bytes"));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into()))
    }
}

impl World for Machine {
    fn read(&self, file: &Path, guarded: bool) -> Result<Option<Arc<str>>, String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = files.get(file) {
            return Ok(text.clone());
        }
        let text = self.text(file, guarded)?;
        files.insert(file.to_owned(), text.clone());
        Ok(text)
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        glob(pattern)
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        // Held while it runs: ten hosts with one command run it once.
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended_well) = commands.get(command) {
            return Ok(*ended_well);
        }
        let ended_well = local::succeeds(command)?;
        commands.insert(command.to_owned(), ended_well);
        Ok(ended_well)
    }

    fn resolves(&self, name: &str) -> bool {
        use std::net::ToSocketAddrs as _;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        *names
            .entry(name.to_owned())
            .or_insert_with(|| (name, 0).to_socket_addrs().is_ok_and(|mut addresses| addresses.next().is_some()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn variables(&self) -> Vec<(String, String)> {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        std::env::vars_os().filter_map(text).collect()
    }

    fn local(&self) -> &Local {
        &self.local
    }
}

/// The files that a pattern names, sorted: each part of the path by itself; a leading dot must be written.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = component.as_os_str().to_string_lossy();
        let Component::Normal(_) = component else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        if !text.contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let shown = |name: &String| !name.starts_with('.') || text.starts_with('.');
            next.extend(names.filter(shown).filter(|name| matches_part(&text, name)).map(|name| folder.join(name)));
            if next.len() > MOST_FILES {
                break;
            }
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    found.truncate(MOST_FILES);
    found
}

/// `*`, `?` and `[abc]`, `[a-z]`, `[!a]` in one part of a path.
fn matches_part(pattern: &str, name: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('[') else {
        return matches_pattern(pattern.as_bytes(), name.as_bytes());
    };
    let Some((set, after)) = rest.split_once(']').filter(|(set, _)| !set.is_empty()) else {
        return matches_pattern(pattern.as_bytes(), name.as_bytes());
    };
    let (negated, set) = match set.strip_prefix(['!', '^']) {
        Some(set) => (true, set),
        None => (false, set),
    };
    let letters: Vec<char> = set.chars().collect();
    let is_in = |letter: char| {
        let ranges = letters.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(&letter));
        (ranges || letters.contains(&letter)) != negated
    };
    name.char_indices().any(|(at, letter)| {
        is_in(letter)
            && matches_pattern(before.as_bytes(), &name.as_bytes()[..at])
            && matches_part(after, &name[at + letter.len_utf8()..])
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rstest::rstest;

    use super::{Machine, glob, matches_part};
    use crate::ssh::config::read::World as _;

    #[rstest]
    #[case("*.conf", "a.conf", true)]
    #[case("[ab]*.conf", "b1.conf", true)]
    #[case("[ab]*.conf", "c1.conf", false)]
    #[case("[0-9][0-9]-x", "07-x", true)]
    #[case("[!a]x", "bx", true)]
    #[case("[!a]x", "ax", false)]
    #[case("[x", "[x", true)]
    fn parts_are_matched(#[case] pattern: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(matches_part(pattern, name), expected);
    }

    #[test]
    fn files_are_found_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b/2.conf", "a/1.conf", "a/.hidden.conf", "a/other"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let found = glob(&folder.path().join("*/*.conf"));
        assert_eq!(found, ["a/1.conf", "b/2.conf"].map(|name| folder.path().join(name)));
        assert_eq!(glob(&folder.path().join("a/other")), [folder.path().join("a/other")]);
        assert!(glob(&folder.path().join("missing")).is_empty());
    }

    #[test]
    fn a_file_that_others_write_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "User ops\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).expect("set");
        let machine = Machine::new(folder.path().to_owned());
        assert!(machine.read(&path, true).expect_err("open to others").contains("mode 0664"));
        assert_eq!(machine.read(&path, false).expect("read").as_deref(), Some("User ops\n"));
        assert_eq!(machine.read(&folder.path().join("missing"), true), Ok(None));
    }
}
