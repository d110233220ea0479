//! The kinds of task and their arguments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Kinds and the keys of their arguments; the order is that of the documentation.
pub const KINDS: &[(&str, &[&str])] = &[
    ("file", &["path", "content", "source", "mode", "state"]),
    ("template", &["path", "source", "mode"]),
    ("directory", &["path", "mode", "contents"]),
    ("link", &["path", "target"]),
    ("unpack", &["archive", "into", "strip"]),
    ("module", &["names", "file"]),
    ("sysctl", &["values", "file", "optional", "remember"]),
    ("swap", &["state"]),
    ("unit", &["name", "content", "source", "drop_in", "enabled", "state", "restart_on"]),
    ("image", &["references"]),
    ("command", &["argv", "creates", "unless", "undo", "limit_seconds"]),
];

/// A task's kind with its arguments, expressions evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A file with a content.
    File(File),
    /// A file whose content is a template.
    Template(Template),
    /// A directory.
    Directory(Directory),
    /// A symbolic link.
    Link(Link),
    /// What is in an archive on the host.
    Unpack(Unpack),
    /// Kernel modules, now and after the next boot.
    Module(Module),
    /// Kernel parameters, now and after the next boot.
    Sysctl(Sysctl),
    /// Swap.
    Swap(Swap),
    /// A systemd unit.
    Unit(Unit),
    /// Images in the container runtime.
    Image(Image),
    /// A program.
    Command(Command),
}

impl Action {
    /// Reads the arguments of a kind.
    ///
    /// # Errors
    /// In words: an unknown kind, a missing or unknown argument, one of the wrong type.
    pub fn read(kind: &str, arguments: Value) -> Result<Self, String> {
        let document = Value::Object([(kind.to_owned(), arguments)].into_iter().collect());
        serde_json::from_value(document).map_err(|error| error.to_string())
    }

    /// What the task is about, for its name: `/etc/motd`.
    pub fn subject(&self) -> String {
        match self {
            Self::File(file) => file.path.display().to_string(),
            Self::Template(template) => template.path.display().to_string(),
            Self::Directory(directory) => directory.path.display().to_string(),
            Self::Link(link) => link.path.display().to_string(),
            Self::Unpack(unpack) => unpack.archive.display().to_string(),
            Self::Module(module) => module.names.join(" "),
            Self::Sysctl(sysctl) => sysctl.values.keys().cloned().collect::<Vec<_>>().join(" "),
            Self::Swap(_) => "swap".to_owned(),
            Self::Unit(unit) => unit.name.clone(),
            Self::Image(image) => image.references.join(" "),
            Self::Command(command) => command.argv.join(" "),
        }
    }
}

/// Permission bits, written as octal text: `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mode(pub u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => return Err(D::Error::custom(format!("a mode is written in quotes, like \"0644\", not {other}"))),
        };
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            _ => Err(D::Error::custom(format!("{text:?} is no mode; write it like \"0644\""))),
        }
    }
}

/// An absolute path without `..`.
fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    // An expression is judged when it has been evaluated.
    let plain = text.contains("{{");
    let clean = text.starts_with('/') && !text.split('/').any(|part| part == "..");
    if plain || clean {
        Ok(PathBuf::from(text))
    } else {
        Err(D::Error::custom(format!("{text:?} is not an absolute path without ..")))
    }
}

/// Arguments of `file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// The content.
    pub content: Option<String>,
    /// A file beside the playbook whose content it gets, byte by byte.
    pub source: Option<String>,
    /// Permission bits; default 0644.
    pub mode: Option<Mode>,
    /// Whether it shall be there; default `present`.
    #[serde(default)]
    pub state: Presence,
}

/// Whether something shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It shall.
    #[default]
    Present,
    /// It shall not.
    Absent,
}

/// Arguments of `template`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Where.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// A file beside the playbook, evaluated as a template.
    pub source: String,
    /// Permission bits; default 0644.
    pub mode: Option<Mode>,
}

/// Arguments of `directory`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Where; missing parents are made too.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// Permission bits; default 0755.
    pub mode: Option<Mode>,
    /// Whose what comes into it is: `ours` goes with the directory on `down`. Default `shared`.
    #[serde(default)]
    pub contents: crate::host::journal::Contents,
}

/// Arguments of `link`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// What it points to.
    pub target: PathBuf,
}

/// Arguments of `unpack`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpack {
    /// An archive on the host: tar, plain or compressed by gzip or zstd.
    #[serde(deserialize_with = "absolute")]
    pub archive: PathBuf,
    /// The directory to unpack into.
    #[serde(deserialize_with = "absolute")]
    pub into: PathBuf,
    /// How many leading parts of the names in the archive are dropped; default 0.
    #[serde(default)]
    pub strip: usize,
}

/// Arguments of `module`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Names.
    pub names: Vec<String>,
    /// File that loads them at boot.
    #[serde(deserialize_with = "absolute")]
    pub file: PathBuf,
}

/// Arguments of `sysctl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// Values by dotted name.
    pub values: BTreeMap<String, Value>,
    /// File that sets them at boot.
    #[serde(deserialize_with = "absolute")]
    pub file: PathBuf,
    /// A parameter that this kernel does not have is left out; default false.
    #[serde(default)]
    pub optional: bool,
    /// Parameters that a program alters later; they are taken note of, so that `down` puts them back.
    #[serde(default)]
    pub remember: Vec<String>,
}

/// Arguments of `swap`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// What it shall be.
    pub state: SwapState,
}

/// What swap shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapState {
    /// Not in use, now and after the next boot.
    Off,
}

/// Arguments of `unit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// `containerd.service`.
    pub name: String,
    /// Content of its file in /etc/systemd/system; without content and source the unit is there already.
    pub content: Option<String>,
    /// A file beside the playbook, evaluated as a template.
    pub source: Option<String>,
    /// Name of the drop-in that the content is for: `10-kubeadm.conf`; the unit's own file when absent.
    pub drop_in: Option<String>,
    /// Whether it starts at boot; not touched when absent.
    pub enabled: Option<bool>,
    /// Whether it runs; not touched when absent.
    pub state: Option<UnitState>,
    /// Names of tasks; if one of them changed something in this run, a running unit is restarted.
    #[serde(default)]
    pub restart_on: Vec<String>,
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    /// It runs.
    Started,
    /// It does not.
    Stopped,
}

/// Arguments of `image`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// References that the runtime shall have; those it lacks are fetched from their registries.
    pub references: Vec<String>,
}

/// Arguments of `command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments; no shell is involved.
    pub argv: Vec<String>,
    /// It is done when this path is there.
    pub creates: Option<PathBuf>,
    /// It is done when this program succeeds.
    pub unless: Option<Vec<String>>,
    /// What undoes it on `down`.
    pub undo: Option<Vec<String>>,
    /// Longest time in seconds; default 60.
    pub limit_seconds: Option<u64>,
}
