//! What a playbook says: the types that cross to a host.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::host::journal::Contents;

/// A play: tasks in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Play {
    /// Its id among the steps of a run; does not change between runs: `prepare`.
    pub id: String,
    /// What it is for, in one line.
    pub name: String,
    /// The tasks.
    pub tasks: Vec<Task>,
}

impl Play {
    /// Names of the files beside the playbook that its tasks refer to.
    pub fn sources(&self) -> BTreeSet<&str> {
        self.tasks.iter().filter_map(|task| task.action.source()).collect()
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What it is for, in one line; `restart_on` refers to it.
    pub name: Option<String>,
    /// Line of the playbook it starts at, counted from 1; for messages.
    pub line: usize,
    /// An expression; the task is passed over where it is false.
    pub when: Option<String>,
    /// The task is done once for each item, which templates see as `item`.
    pub repeat: Option<Repeat>,
    /// What to do.
    pub action: Action,
}

impl Task {
    /// How messages call it: its name, or its kind.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.action.kind())
    }
}

/// What `loop` goes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// Values as they are written.
    Items(Vec<serde_json::Value>),
    /// An expression that gives a list.
    Expression(String),
}

/// What a task does. All texts are templates, apart from the content of `file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Action {
    /// A file with this content.
    File(File),
    /// A file made of a template.
    Template(Template),
    /// A directory.
    Directory(Directory),
    /// A symbolic link.
    Link(Link),
    /// An archive unpacked into a directory.
    Unpack(Unpack),
    /// Kernel modules.
    Module(Module),
    /// Kernel parameters.
    Sysctl(Sysctl),
    /// Swap.
    Swap(Swap),
    /// A unit of systemd.
    Unit(Unit),
    /// Images in the container runtime.
    Image(Image),
    /// A program.
    Command(Command),
    /// A condition without which the play does not go on.
    Require(Require),
}

impl Action {
    /// The word a playbook has for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::File(_) => "file",
            Action::Template(_) => "template",
            Action::Directory(_) => "directory",
            Action::Link(_) => "link",
            Action::Unpack(_) => "unpack",
            Action::Module(_) => "module",
            Action::Sysctl(_) => "sysctl",
            Action::Swap(_) => "swap",
            Action::Unit(_) => "unit",
            Action::Image(_) => "image",
            Action::Command(_) => "command",
            Action::Require(_) => "require",
        }
    }

    /// The file beside the playbook that it needs.
    pub fn source(&self) -> Option<&str> {
        match self {
            Action::File(File { source, .. })
            | Action::Template(Template { source, .. })
            | Action::Unit(Unit { source, .. })
            | Action::Unpack(Unpack { source, .. }) => source.as_deref(),
            _ => None,
        }
    }
}

/// Permission bits, written as `0644`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(pub u32);

impl Mode {
    fn file() -> Self {
        Self(0o644)
    }

    fn directory() -> Self {
        Self(0o755)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bits = u32::from_str_radix(&text, 8).ok().filter(|bits| *bits <= 0o7777 && text.starts_with('0'));
        bits.map(Self).ok_or_else(|| "permission bits are octal and begin with 0, such as 0644".to_owned())
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// `file`: content as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Where.
    pub path: String,
    /// The content itself; not a template.
    pub content: Option<String>,
    /// Or the file beside the playbook that has it.
    pub source: Option<String>,
    /// Permission bits.
    #[serde(default = "Mode::file")]
    pub mode: Mode,
}

/// `template`: content from a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Where.
    pub path: String,
    /// The template itself.
    pub content: Option<String>,
    /// Or the file beside the playbook that has it.
    pub source: Option<String>,
    /// Permission bits.
    #[serde(default = "Mode::file")]
    pub mode: Mode,
}

/// `directory`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// Where.
    pub path: String,
    /// Permission bits.
    #[serde(default = "Mode::directory")]
    pub mode: Mode,
    /// Whether what comes into it is ours and goes with it.
    #[serde(default)]
    pub contents: Contents,
}

/// `link`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Where.
    pub path: String,
    /// What it points to.
    pub target: String,
}

/// `unpack`: a tar archive, plain or compressed with gzip or zstd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unpack {
    /// The archive beside the playbook.
    pub source: Option<String>,
    /// Or one that is on the host already.
    pub archive: Option<String>,
    /// The directory it is unpacked into.
    pub into: String,
    /// How many leading components of each name are dropped.
    #[serde(default)]
    pub strip: u32,
}

/// `module`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// Names of modules.
    pub names: Vec<String>,
    /// The file that has them loaded at boot: `/etc/modules-load.d/kubernetes.conf`.
    pub persist: Option<String>,
}

/// `sysctl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Values by dotted name.
    pub values: BTreeMap<String, String>,
    /// The file that sets them at boot: `/etc/sysctl.d/99-kubernetes.conf`.
    pub file: Option<String>,
    /// Leave out what this kernel does not have, instead of failing.
    #[serde(default)]
    pub existing: bool,
}

/// `swap`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    /// Only `off`.
    pub state: StateOfSwap,
}

/// What swap shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateOfSwap {
    /// Not used now nor after a boot.
    Off,
}

/// `unit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name with its kind: `containerd.service`.
    pub name: String,
    /// The unit file, a template; it is put into /etc/systemd/system.
    pub content: Option<String>,
    /// Or the file beside the playbook that has it.
    pub source: Option<String>,
    /// Whether it starts at boot.
    pub enabled: Option<bool>,
    /// Whether it runs.
    pub state: Option<StateOfUnit>,
    /// Names of tasks; if one of them altered something, a unit that runs is restarted.
    #[serde(default)]
    pub restart_on: Vec<String>,
}

/// What a unit shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateOfUnit {
    /// Run.
    Started,
    /// Not run.
    Stopped,
    /// Start again, each time the play runs.
    Restarted,
}

/// `image`: images are there, fetched if they are not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Full references: `registry.k8s.io/pause:3.10`.
    pub references: Vec<String>,
}

/// `command`: a program, without a shell. It runs each time unless `creates` or `unless` says that it is not needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A path; if something is there, the program is not needed.
    pub creates: Option<String>,
    /// A program that must alter nothing; if it ends with 0, the other is not needed.
    pub unless: Option<Vec<String>>,
    /// The program that undoes it when the host is put back.
    pub undo: Option<Vec<String>>,
    /// Longest time, in seconds.
    #[serde(default = "Command::limit")]
    pub limit_seconds: u64,
}

impl Command {
    fn limit() -> u64 {
        60
    }
}

/// `require`: a condition that the play needs. Where it is false, the play ends before anything further is altered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Require {
    /// The condition, an expression.
    pub that: String,
    /// What is wrong when it is false, in one sentence.
    pub sentence: String,
    /// What to do then.
    pub advice: Option<String>,
}
