//! From a task and what was seen to the changes that are missing. Pure; no change means it is so already.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::action::{Action, Directory, File, Link, Module, Presence, Swap, Sysctl, Template, Unit, UnitState};
use super::observe::{FSTAB, Observation, Seen, unit_path};
use super::run::Contents;
use crate::bundle::digest::sha256;
use crate::host::journal;

/// Permission bits of a file that names none.
const FILE_MODE: u32 = 0o644;

/// Permission bits of a directory that names none.
const DIRECTORY_MODE: u32 = 0o755;

/// One thing a task alters. Its text is one line for a person.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Write a file.
    Write {
        /// Where.
        path: PathBuf,
        /// What.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Whether there was one.
        replaces: bool,
    },
    /// Set permission bits.
    SetMode {
        /// Of what.
        path: PathBuf,
        /// To what.
        mode: u32,
    },
    /// Remove a file or link.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Make a directory.
    MakeDirectory {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whose what comes into it is.
        contents: journal::Contents,
    },
    /// Take note of a directory that is there, because what comes into it is ours. Alters nothing and counts for nothing.
    Claim {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Make or turn a link.
    MakeLink {
        /// Where.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// Unpack one file or link of an archive.
    Unpack {
        /// Where it goes.
        path: PathBuf,
    },
    /// Load a module.
    LoadModule {
        /// Its name.
        name: String,
    },
    /// Set a kernel parameter.
    SetParameter {
        /// Dotted name.
        key: String,
        /// What it was.
        from: String,
        /// What it gets.
        to: String,
    },
    /// Take note of a kernel parameter that a program may alter. Alters nothing and counts for nothing.
    Remember {
        /// Dotted name.
        key: String,
        /// What it is.
        value: String,
    },
    /// Stop using a swap device.
    SwapOff {
        /// Which.
        device: String,
    },
    /// Take swap out of /etc/fstab.
    CommentFstab,
    /// Have systemd read its files again.
    Reload {
        /// Because of this unit.
        unit: String,
    },
    /// Start at boot, or not.
    Enable {
        /// The unit.
        unit: String,
        /// Whether.
        enabled: bool,
        /// As it was: enabled, active.
        before: (bool, bool),
    },
    /// Start, stop or restart.
    Turn {
        /// The unit.
        unit: String,
        /// How.
        how: Turn,
        /// As it was: enabled, active.
        before: (bool, bool),
    },
    /// Fetch an image.
    Pull {
        /// Its reference.
        reference: String,
    },
    /// Run a program.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// What undoes it.
        undo: Option<Vec<String>>,
        /// Longest time in seconds.
        limit_seconds: u64,
    },
}

/// What is done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Restart it.
    Restart,
}

impl Change {
    /// Whether it alters something: what is only taken note of is no change.
    pub fn counts(&self) -> bool {
        !matches!(self, Self::Claim { .. } | Self::Remember { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, replaces: false, .. } => write!(formatter, "create {}", path.display()),
            Self::Write { path, replaces: true, .. } => write!(formatter, "replace {}", path.display()),
            Self::SetMode { path, mode } => write!(formatter, "set mode of {} to {mode:04o}", path.display()),
            Self::Remove { path } => write!(formatter, "remove {}", path.display()),
            Self::MakeDirectory { path, .. } => write!(formatter, "make directory {}", path.display()),
            Self::Claim { path, .. } => write!(formatter, "take note of {}", path.display()),
            Self::MakeLink { path, target } => write!(formatter, "link {} to {}", path.display(), target.display()),
            Self::Unpack { path, .. } => write!(formatter, "unpack {}", path.display()),
            Self::LoadModule { name } => write!(formatter, "load module {name}"),
            Self::SetParameter { key, from, to } => write!(formatter, "set {key} from {from} to {to}"),
            Self::Remember { key, value } => write!(formatter, "take note of {key}, which is {value}"),
            Self::SwapOff { device } => write!(formatter, "turn off swap on {device}"),
            Self::CommentFstab => write!(formatter, "take swap out of {FSTAB}"),
            Self::Reload { unit } => write!(formatter, "have systemd read {unit}"),
            Self::Enable { unit, enabled: true, .. } => write!(formatter, "enable {unit}"),
            Self::Enable { unit, enabled: false, .. } => write!(formatter, "disable {unit}"),
            Self::Turn { unit, how: Turn::Start, .. } => write!(formatter, "start {unit}"),
            Self::Turn { unit, how: Turn::Stop, .. } => write!(formatter, "stop {unit}"),
            Self::Turn { unit, how: Turn::Restart, .. } => write!(formatter, "restart {unit}"),
            Self::Pull { reference } => write!(formatter, "fetch image {reference}"),
            Self::Run { argv, .. } => write!(formatter, "run {}", argv.join(" ")),
        }
    }
}

/// What is missing. `restart` says that a task named in `restart_on` changed something in this run.
pub fn plan(action: &Action, seen: &Observation, contents: &Contents, restart: bool) -> Vec<Change> {
    match action {
        Action::File(file) => plan_file(file, seen, contents),
        Action::Template(Template { path, mode, .. }) => {
            let mode = mode.map_or(FILE_MODE, |mode| mode.0);
            plan_content(path, contents.file.as_deref().unwrap_or_default(), mode, seen)
        }
        Action::Directory(directory) => plan_directory(directory, seen),
        Action::Link(link) => plan_link(link, seen),
        Action::Unpack(_) => seen.lacking.keys().map(|path| Change::Unpack { path: path.clone() }).collect(),
        Action::Module(module) => plan_module(module, seen),
        Action::Sysctl(sysctl) => plan_sysctl(sysctl, seen),
        Action::Swap(Swap { .. }) => {
            let off = seen.swap.iter().map(|device| Change::SwapOff { device: device.clone() });
            off.chain(seen.fstab_swap.then_some(Change::CommentFstab)).collect()
        }
        Action::Unit(unit) => plan_unit(unit, seen, contents, restart),
        Action::Image(image) => {
            let lacking = image.references.iter().filter(|reference| !seen.images.contains(*reference));
            lacking.map(|reference| Change::Pull { reference: reference.clone() }).collect()
        }
        Action::Command(command) if seen.done => {
            let _ = command;
            Vec::new()
        }
        Action::Command(command) => vec![Change::Run {
            argv: command.argv.clone(),
            undo: command.undo.clone(),
            limit_seconds: command.limit_seconds.unwrap_or(60),
        }],
    }
}

fn plan_file(file: &File, seen: &Observation, contents: &Contents) -> Vec<Change> {
    match file.state {
        Presence::Present => {
            let mode = file.mode.map_or(FILE_MODE, |mode| mode.0);
            plan_content(&file.path, contents.file.as_deref().unwrap_or_default(), mode, seen)
        }
        Presence::Absent if seen.paths.contains_key(&file.path) => vec![Change::Remove { path: file.path.clone() }],
        Presence::Absent => Vec::new(),
    }
}

fn plan_content(path: &Path, content: &[u8], mode: u32, seen: &Observation) -> Vec<Change> {
    match seen.paths.get(path) {
        Some(Seen::File { sha256: there, mode: bits }) if *there == sha256(content) => {
            if *bits == mode {
                Vec::new()
            } else {
                vec![Change::SetMode { path: path.to_owned(), mode }]
            }
        }
        there => {
            vec![Change::Write { path: path.to_owned(), content: content.to_owned(), mode, replaces: there.is_some() }]
        }
    }
}

fn plan_directory(directory: &Directory, seen: &Observation) -> Vec<Change> {
    let path = directory.path.clone();
    let wanted = directory.mode.map(|mode| mode.0);
    match seen.paths.get(&path) {
        Some(Seen::Directory { mode }) => {
            // A directory that is there keeps its mode unless the task names one.
            let mode = *mode;
            let differs = wanted.filter(|wanted| *wanted != mode);
            let set = differs.map(|mode| Change::SetMode { path: path.clone(), mode });
            let mode = wanted.unwrap_or(mode);
            let ours = directory.contents == journal::Contents::Ours;
            set.into_iter().chain(ours.then(|| Change::Claim { path: path.clone(), mode })).collect()
        }
        // Where a link leads is the administrator's choice; making the directory fails if it leads to none.
        _ => {
            let mode = wanted.unwrap_or(DIRECTORY_MODE);
            vec![Change::MakeDirectory { path, mode, contents: directory.contents }]
        }
    }
}

fn plan_link(link: &Link, seen: &Observation) -> Vec<Change> {
    match seen.paths.get(&link.path) {
        Some(Seen::Link(target)) if *target == link.target => Vec::new(),
        _ => vec![Change::MakeLink { path: link.path.clone(), target: link.target.clone() }],
    }
}

fn plan_module(module: &Module, seen: &Observation) -> Vec<Change> {
    let mut text = String::from(MARK);
    module.names.iter().for_each(|name| text.push_str(&format!("{name}\n")));
    let mut changes = plan_content(&module.file, text.as_bytes(), FILE_MODE, seen);
    let lacking = module.names.iter().filter(|name| !seen.modules.contains(*name));
    changes.extend(lacking.map(|name| Change::LoadModule { name: name.clone() }));
    changes
}

/// The first line of files that a task makes up itself.
const MARK: &str = "# Written by clusterctl.\n";

fn plan_sysctl(sysctl: &Sysctl, seen: &Observation) -> Vec<Change> {
    let wanted: BTreeMap<&String, String> = sysctl
        .values
        .iter()
        .filter(|(key, _)| !sysctl.optional || seen.sysctls.contains_key(*key))
        .map(|(key, value)| (key, value.as_str().map_or_else(|| value_text(value), str::to_owned)))
        .collect();
    let mut text = String::from(MARK);
    wanted.iter().for_each(|(key, value)| text.push_str(&format!("{key} = {value}\n")));
    let mut changes = plan_content(&sysctl.file, text.as_bytes(), FILE_MODE, seen);
    for (key, to) in wanted {
        let from = seen.sysctls.get(key).cloned();
        if from.as_ref() != Some(&to) {
            let from = from.unwrap_or_else(|| "nothing".to_owned());
            changes.push(Change::SetParameter { key: key.clone(), from, to });
        }
    }
    let known = sysctl.remember.iter().filter_map(|key| Some((key.clone(), seen.sysctls.get(key)?.clone())));
    changes.extend(known.map(|(key, value)| Change::Remember { key, value }));
    changes
}

fn value_text(value: &Value) -> String {
    value.to_string()
}

fn plan_unit(unit: &Unit, seen: &Observation, contents: &Contents, restart: bool) -> Vec<Change> {
    let state = seen.units.get(&unit.name).cloned().unwrap_or_default();
    let before = (state.enabled, state.active);
    let name = unit.name.clone();
    let mut changes = Vec::new();
    if let Some(content) = &contents.unit {
        changes.extend(plan_content(&unit_path(&name, unit.drop_in.as_deref()), content, FILE_MODE, seen));
    }
    // A file of ours that systemd has not read was written by a run that was broken off.
    let rewritten = !changes.is_empty() || (contents.unit.is_some() && state.needs_reload);
    let enable = unit.enabled.filter(|enabled| *enabled != state.enabled);
    // While something was enabled or disabled that systemd has not read, it says of every unit that it needs to be read.
    if rewritten || state.needs_reload || enable.is_some() {
        changes.push(Change::Reload { unit: name.clone() });
    }
    if let Some(enabled) = enable {
        changes.push(Change::Enable { unit: name.clone(), enabled, before });
    }
    let turn = match unit.state {
        Some(UnitState::Started) if !state.works() => Some(Turn::Start),
        Some(UnitState::Started) | None if state.active && (restart || rewritten) => Some(Turn::Restart),
        // Of a program that somebody else keeps up to date they decide themselves when the new one runs.
        Some(UnitState::Started) if state.outdated && contents.unit.is_some() => Some(Turn::Restart),
        Some(UnitState::Stopped) if state.active => Some(Turn::Stop),
        _ => None,
    };
    changes.extend(turn.map(|how| Change::Turn { unit: name, how, before }));
    changes
}
