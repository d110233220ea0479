//! Reads ssh_config files in OpenSSH's order and keeps what applies to one host: the first value of a keyword wins.
//!
//! What stands in a block that does not apply is checked too, as OpenSSH does. Files are asked for through [`World`], so
//! that this is a pure function of their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pattern::{matches_host, matches_list, matches_pattern};

use super::keywords::{Keyword, Shape, keyword};
use super::tokens::{Homes, Tokens, host_name, tilde};
use super::values::values;
use super::words::{line, words};

/// Files may include files this deep; OpenSSH's READCONF_MAX_DEPTH.
const DEEPEST: usize = 16;
/// Values that are kept of one keyword; OpenSSH's SSH_MAX_IDENTITY_FILES.
const MOST_VALUES: usize = 100;
/// Faults that are kept; the rest of a file that is no ssh_config helps nobody.
const MOST_FAULTS: usize = 20;
/// Lines read for one host: includes of includes can repeat files without end.
const MOST_LINES: usize = 1_000_000;

/// The machine, as far as a configuration depends on it.
pub(crate) trait World {
    /// The text of a file, `None` if there is none. `guarded` files must belong to root or to us, and nobody else may
    /// write them.
    ///
    /// # Errors
    /// In words that end a sentence.
    fn read(&self, file: &Path, guarded: bool) -> Result<Option<Arc<str>>, String>;

    /// The files that a pattern with `*`, `?` and `[...]` names, sorted.
    fn glob(&self, pattern: &Path) -> Vec<PathBuf>;

    /// Whether a command of `Match exec` ends with 0.
    ///
    /// # Errors
    /// In words that end a sentence, when it cannot be run.
    fn succeeds(&self, command: &str) -> Result<bool, String>;

    /// Whether the name service has an address for a name.
    fn resolves(&self, name: &str) -> bool;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// All variables of the environment that are text.
    fn variables(&self) -> Vec<(String, String)>;

    /// The user, the home folder and the name of this machine.
    fn local(&self) -> &Local;
}

/// Who and where we are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Local {
    /// Our login name.
    pub(crate) user: String,
    /// Our number.
    pub(crate) id: u32,
    /// Our home folder.
    pub(crate) home: PathBuf,
    /// The home folders of all users.
    pub(super) homes: Homes,
    /// This machine's name.
    pub(crate) host: String,
}

/// A file to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it is.
    pub(crate) file: PathBuf,
    /// The user's own: includes start at ~/.ssh and `~` means something.
    pub(crate) own: bool,
    /// Whether others must not be able to write it.
    pub(crate) guarded: bool,
}

/// What would be typed after `ssh`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Typed {
    /// The host.
    pub(crate) host: String,
    /// `-l`, or what stands before the `@`.
    pub(crate) user: Option<String>,
    /// `-p`.
    pub(crate) port: Option<u16>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The file.
    pub(super) file: Arc<Path>,
    /// The line, counted from 1.
    pub(super) line: usize,
    /// Whether the file is the user's own, or included by it.
    pub(super) own: bool,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// The values of one keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The keyword.
    pub(super) keyword: &'static Keyword,
    /// The values, in order; one, unless the keyword takes several.
    pub(super) values: Vec<String>,
    /// Where the first one stands; `None` if it was typed.
    pub(super) place: Option<Place>,
}

/// What applies to one host, by the keyword's name.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    all: BTreeMap<&'static str, Setting>,
    /// The host that is dialled.
    pub(super) host: String,
    /// Blocks that we cannot judge and that do not apply, each with its place.
    pub(super) unjudged: BTreeSet<String>,
}

impl Settings {
    /// The first value.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(|setting| setting.values.first()).map(String::as_str)
    }

    /// All values; `None` if the keyword was not written.
    pub(super) fn several(&self, name: &str) -> Option<&[String]> {
        self.all.get(name).map(|setting| setting.values.as_slice())
    }

    /// Where the first value stands.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.all.get(name).and_then(|setting| setting.place.as_ref())
    }

    /// All that is set.
    pub(super) fn all(&self) -> impl Iterator<Item = &Setting> {
        self.all.values()
    }

    fn set(&mut self, keyword: &'static Keyword, values: Vec<String>, place: Option<Place>) {
        // Only one of the two ways to go is taken: the first one written.
        let other_way = match keyword.name {
            "ProxyJump" => self.all.contains_key("ProxyCommand"),
            "ProxyCommand" => self.all.contains_key("ProxyJump"),
            _ => false,
        };
        if other_way {
            return;
        }
        match self.all.get_mut(keyword.name) {
            None => _ = self.all.insert(keyword.name, Setting { keyword, values, place }),
            Some(known) if matches!(keyword.shape, Shape::Several | Shape::Words) => {
                for value in values {
                    // What SendEnv takes away may be given again.
                    let is_new = keyword.shape == Shape::Words || !known.values.contains(&value);
                    if is_new && known.values.len() < MOST_VALUES {
                        known.values.push(value);
                    }
                }
            }
            Some(_) => {}
        }
    }

    fn type_in(&mut self, name: &str, value: Option<String>) {
        if let (Some(keyword), Some(value)) = (keyword(name), value) {
            self.set(keyword, vec![value], None);
        }
    }
}

/// What stands in the files for a host.
///
/// # Errors
/// All that is wrong with the files, each with its file and line.
pub(super) fn read(sources: &[Source], typed: &Typed, world: &dyn World) -> Result<Settings, Vec<String>> {
    let mut settings = Settings::default();
    settings.type_in("User", typed.user.clone());
    settings.type_in("Port", typed.port.map(|port| port.to_string()));
    let mut reader = Reader {
        world,
        typed,
        settings,
        host: typed.host.clone(),
        final_pass: false,
        wants_final: false,
        ignored: None,
        faults: Vec::new(),
        lines: 0,
    };
    reader.pass(sources)?;
    let name = reader.host_name().map_err(|why| vec![why])?;
    let canonical = reader.settings.one("CanonicalizeHostname").is_some_and(|value| value != "no");
    let name = if canonical { whole_name(&reader.settings, name, world).map_err(|why| vec![why])? } else { name };
    let is_address = name.parse::<IpAddr>().is_ok();
    let name = if is_address { name } else { name.to_lowercase() };
    if reader.wants_final || canonical {
        reader.settings.all.remove("HostName");
        reader.settings.type_in("HostName", Some(name.replace('%', "%%")));
        (reader.host, reader.final_pass) = (name.clone(), true);
        reader.pass(sources)?;
    }
    reader.settings.host = name;
    Ok(reader.settings)
}

/// The name with the first of CanonicalDomains under which it has an address (ssh_config(5), CanonicalizeHostname).
fn whole_name(settings: &Settings, name: String, world: &dyn World) -> Result<String, String> {
    let is_set = |keyword: &str| settings.one(keyword).is_some_and(|value| !value.eq_ignore_ascii_case("none"));
    let is_direct = !is_set("ProxyCommand") && !is_set("ProxyJump");
    let always = settings.one("CanonicalizeHostname") == Some("always");
    // What a proxy is told is the proxy's to understand.
    if name.parse::<IpAddr>().is_ok() || !(is_direct || always) {
        return Ok(name);
    }
    let name = name.to_lowercase();
    let dots = name.matches('.').count();
    let most_dots = settings.one("CanonicalizeMaxDots").and_then(|dots| dots.parse::<i32>().ok()).unwrap_or(1);
    let candidates: Vec<String> = if name.ends_with('.') {
        vec![name.clone()]
    } else if usize::try_from(most_dots).is_ok_and(|most| dots > most) {
        Vec::new()
    } else {
        let domains = settings.several("CanonicalDomains").unwrap_or_default().iter();
        let domains = domains.take_while(|domain| !domain.eq_ignore_ascii_case("none"));
        domains.map(|domain| format!("{name}.{}.", domain.to_lowercase())).collect()
    };
    match candidates.iter().find(|candidate| world.resolves(candidate)) {
        Some(found) => Ok(found.trim_end_matches('.').to_owned()),
        None if settings.one("CanonicalizeFallbackLocal") == Some("no") => {
            Err(format!("{name} has an address in none of CanonicalDomains, and CanonicalizeFallbackLocal is no"))
        }
        None => Ok(name),
    }
}

struct Reader<'a> {
    world: &'a dyn World,
    typed: &'a Typed,
    settings: Settings,
    /// What `Host` is compared with.
    host: String,
    final_pass: bool,
    wants_final: bool,
    ignored: Option<String>,
    faults: Vec<String>,
    lines: usize,
}

/// How a file is read.
#[derive(Clone, Copy)]
struct Way {
    own: bool,
    guarded: bool,
    /// Included by a block that does not apply: no block in it applies.
    never: bool,
    depth: usize,
}

impl Reader<'_> {
    fn pass(&mut self, sources: &[Source]) -> Result<(), Vec<String>> {
        for source in sources {
            let way = Way { own: source.own, guarded: source.guarded, never: false, depth: 0 };
            self.file(&source.file, way, true);
        }
        if self.faults.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.faults)) }
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(text);
        }
    }

    /// Reads a file. `active` is whether what stands before its first block applies.
    fn file(&mut self, file: &Path, way: Way, mut active: bool) {
        let text = match self.world.read(file, way.guarded) {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(why) => return self.fault(format!("{} {why}", file.display())),
        };
        let name: Arc<Path> = Arc::from(file);
        for (index, text) in text.lines().enumerate() {
            self.lines += 1;
            if self.lines > MOST_LINES {
                return self.fault(format!("{}: the files include each other without end", file.display()));
            }
            let place = Place { file: Arc::clone(&name), line: index + 1, own: way.own };
            if let Err(why) = self.line(text, &place, way, &mut active) {
                self.fault(format!("{place}: {why}"));
            }
        }
    }

    fn line(&mut self, text: &str, place: &Place, way: Way, active: &mut bool) -> Result<(), String> {
        let Some(line) = line(text)? else { return Ok(()) };
        let words = words(line.rest)?;
        match line.keyword.as_str() {
            "host" => *active = self.host_block(&words, way)?,
            "match" => {
                let matched = self.match_block(&words, way, place)?;
                *active = matched && !way.never;
            }
            "include" => self.include(&words, way, *active)?,
            "ignoreunknown" => {
                if *active && self.ignored.is_none() {
                    self.ignored = words.first().cloned();
                }
            }
            name => match keyword(name) {
                Some(keyword) => {
                    let values =
                        values(keyword.shape, line.rest, words).map_err(|why| format!("{} {why}", keyword.name))?;
                    if *active {
                        self.settings.set(keyword, values, Some(place.clone()));
                    }
                }
                None if self.ignored.as_ref().is_some_and(|list| matches_list(&list.to_lowercase(), name)) => {}
                None => return Err(format!("the keyword {name} is unknown")),
            },
        }
        Ok(())
    }

    fn host_block(&self, patterns: &[String], way: Way) -> Result<bool, String> {
        let mut active = false;
        for pattern in patterns {
            if pattern.is_empty() {
                return Err("Host has an empty pattern".to_owned());
            }
            let (negated, pattern) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            if matches_pattern(pattern.as_bytes(), self.host.as_bytes()) {
                if negated {
                    return Ok(false);
                }
                active = true;
            }
        }
        Ok(active && !way.never)
    }

    fn match_block(&mut self, words: &[String], way: Way, place: &Place) -> Result<bool, String> {
        let mut words = words.iter();
        let (mut result, mut attributes) = (true, 0);
        let mut unjudged = None;
        while let Some(word) = words.next() {
            let (negated, name) = match word.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, word.as_str()),
            };
            let name = name.to_ascii_lowercase();
            if name == "all" {
                if attributes > 1 || words.next().is_some() {
                    return Err("Match all takes no other attribute beside it".to_owned());
                }
                return Ok(self.judged(result && !negated && !way.never, unjudged));
            }
            attributes += 1;
            let matched = match name.as_str() {
                "canonical" => self.final_pass,
                "final" => {
                    self.wants_final = true;
                    self.final_pass
                }
                _ => {
                    let value = words.next().filter(|value| !value.is_empty());
                    let value = value.ok_or_else(|| format!("Match {name} has no value"))?;
                    match name.as_str() {
                        "host" => matches_host(value, &self.host_name()?),
                        "originalhost" => matches_host(value, &self.typed.host),
                        "user" => matches_list(value, &self.user()),
                        "localuser" => matches_list(value, &self.world.local().user),
                        "tagged" => matches_list(value, self.settings.one("Tag").unwrap_or_default()),
                        "exec" if result && !way.never => self.succeeds(value)?,
                        "exec" => false,
                        "sessiontype" => matches_list(value, "exec"),
                        "localnetwork" | "version" | "command" => {
                            // The block does not apply, negated or not; what follows may say that it never could.
                            unjudged = Some(format!("{place}: Match {name} {value}"));
                            !negated
                        }
                        _ => return Err(format!("Match {name} is not supported")),
                    }
                }
            };
            result &= matched != negated;
        }
        match attributes {
            0 => Err("Match has no attribute".to_owned()),
            _ => Ok(self.judged(result && !way.never, unjudged)),
        }
    }

    /// Whether a block applies; one that might, but for what we cannot judge, is named.
    fn judged(&mut self, result: bool, unjudged: Option<String>) -> bool {
        match unjudged {
            None => result,
            Some(what) => {
                if result {
                    self.settings.unjudged.insert(what);
                }
                false
            }
        }
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        let command = self.tokens()?.expand(command).map_err(|why| format!("Match exec {why}"))?;
        self.world.succeeds(&command).map_err(|why| format!("the command of Match exec {why}"))
    }

    fn include(&mut self, patterns: &[String], way: Way, active: bool) -> Result<(), String> {
        if way.depth >= DEEPEST {
            return Err(format!("files are included more than {DEEPEST} deep"));
        }
        let Local { home, homes, .. } = self.world.local().clone();
        for pattern in patterns {
            if pattern.is_empty() || (pattern.starts_with('~') && !way.own) {
                return Err(format!("Include cannot name `{pattern}` here"));
            }
            let pattern = PathBuf::from(tilde(pattern, &home, &homes).map_err(|why| format!("Include {why}"))?);
            let folder = if way.own { home.join(".ssh") } else { PathBuf::from("/etc/ssh") };
            for file in self.world.glob(&folder.join(pattern)) {
                let way = Way { guarded: true, never: way.never || !active, depth: way.depth + 1, ..way };
                self.file(&file, way, active);
            }
        }
        Ok(())
    }

    /// The host as far as it is known at this line.
    fn host_name(&self) -> Result<String, String> {
        match self.settings.one("HostName") {
            Some(name) => host_name(name, &self.typed.host).map_err(|why| format!("HostName {why}")),
            None => Ok(self.typed.host.clone()),
        }
    }

    fn user(&self) -> String {
        self.settings.one("User").unwrap_or(&self.world.local().user).to_owned()
    }

    fn tokens(&self) -> Result<Tokens, String> {
        Ok(tokens(&self.settings, self.typed, self.world.local(), self.host_name()?))
    }
}

/// What the tokens stand for, with the defaults for what is not set.
pub(super) fn tokens(settings: &Settings, typed: &Typed, local: &Local, host: String) -> Tokens {
    Tokens {
        host,
        typed: typed.host.clone(),
        port: settings.one("Port").and_then(|port| port.parse().ok()).unwrap_or(22),
        user: settings.one("User").unwrap_or(&local.user).to_owned(),
        local_user: local.user.clone(),
        local_id: local.id,
        home: local.home.clone(),
        homes: local.homes.clone(),
        local_host: local.host.clone(),
        alias: settings.one("HostKeyAlias").map_or_else(|| typed.host.clone(), str::to_lowercase),
        jump: settings.one("ProxyJump").filter(|jump| *jump != "none").unwrap_or_default().to_owned(),
    }
}
