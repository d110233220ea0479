//! What is there of what a task is about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::archive::{self, Packed};
use super::run::Contents;
use super::units::Units;
use crate::failure::{Failure, Kind, Result};
use crate::host::observe::{Kernel, swap};
use crate::host::systemd::Unit;
use crate::host::{Command, EntryKind, Host, containerd};

/// What was seen; only what the task's kind asks about is filled in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Observation {
    /// What is at the paths that matter.
    pub paths: BTreeMap<PathBuf, Seen>,
    /// Kernel modules that are loaded or built in.
    pub modules: BTreeSet<String>,
    /// Kernel parameters that this kernel has, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Swap devices in use.
    pub swap: Vec<String>,
    /// Whether /etc/fstab names swap.
    pub fstab_swap: bool,
    /// Units by name.
    pub units: BTreeMap<String, Unit>,
    /// Images the runtime has.
    pub images: BTreeSet<String>,
    /// Whether a `command` is done already.
    pub done: bool,
    /// What of an archive is not unpacked as it is in it.
    pub lacking: BTreeMap<PathBuf, Packed>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Seen {
    /// A file with this SHA-256 and these permission bits.
    File {
        /// Hex.
        sha256: String,
        /// Bits.
        mode: u32,
    },
    /// A directory with these permission bits.
    Directory {
        /// Bits.
        mode: u32,
    },
    /// A link to this target.
    Link(PathBuf),
    /// Something else: a socket, a device.
    Other,
}

/// Looks at what a task is about.
pub async fn observe(host: &dyn Host, action: &Action, contents: &Contents, units: &Units) -> Result<Observation> {
    let mut seen = Observation::default();
    let look = |path: &Path, seen: &mut Observation| -> Result<()> {
        if let Some(found) = at(host, path)? {
            seen.paths.insert(path.to_owned(), found);
        }
        Ok(())
    };
    match action {
        Action::File(file) => look(&file.path, &mut seen)?,
        Action::Template(template) => look(&template.path, &mut seen)?,
        Action::Directory(directory) => look(&directory.path, &mut seen)?,
        Action::Link(link) => look(&link.path, &mut seen)?,
        Action::Unpack(unpack) => seen.lacking = archive::lacking(host, unpack)?,
        Action::Module(module) => {
            look(&module.file, &mut seen)?;
            seen.modules = modules(host, &module.names)?;
        }
        Action::Sysctl(sysctl) => {
            look(&sysctl.file, &mut seen)?;
            for key in sysctl.values.keys().chain(&sysctl.remember) {
                if let Some(value) = host.read(&parameter(key)?)? {
                    let value = String::from_utf8_lossy(&value).split_whitespace().collect::<Vec<_>>().join(" ");
                    seen.sysctls.insert(key.clone(), value);
                }
            }
        }
        Action::Swap(_) => {
            seen.swap = swap(&text(host, "/proc/swaps")?);
            seen.fstab_swap = text(host, FSTAB)?.lines().any(is_swap_line);
        }
        Action::Unit(unit) => {
            if contents.unit.is_some() {
                look(&unit_path(&unit.name, unit.drop_in.as_deref()), &mut seen)?;
            }
            seen.units.insert(unit.name.clone(), units.state(host, &unit.name).await?);
        }
        Action::Image(_) => seen.images = containerd::image_blobs(host).await?.into_keys().collect(),
        Action::Command(command) => {
            seen.done = match (&command.creates, &command.unless) {
                (Some(path), _) => host.entry(path)?.is_some(),
                (None, Some(unless)) => succeeds(host, unless).await?,
                (None, None) => false,
            };
        }
    }
    Ok(seen)
}

async fn succeeds(host: &dyn Host, argv: &[String]) -> Result<bool> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(false) };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ok(host.run(Command::new(program, &arguments)).await?.success())
}

fn at(host: &dyn Host, path: &Path) -> Result<Option<Seen>> {
    let Some(entry) = host.entry(path)? else { return Ok(None) };
    Ok(Some(match entry.kind {
        EntryKind::File => Seen::File { sha256: host.sha256(path)?.unwrap_or_default(), mode: entry.mode },
        EntryKind::Directory => Seen::Directory { mode: entry.mode },
        EntryKind::Link(target) => Seen::Link(target),
        EntryKind::Other => Seen::Other,
    }))
}

/// Where filesystems and swap to use at boot are named.
pub const FSTAB: &str = "/etc/fstab";

/// The file of a unit, or of a drop-in of it.
pub fn unit_path(name: &str, drop_in: Option<&str>) -> PathBuf {
    let folder = Path::new("/etc/systemd/system");
    match drop_in {
        None => folder.join(name),
        Some(drop_in) => folder.join(format!("{name}.d")).join(drop_in),
    }
}

/// The file of a kernel parameter: `net.ipv4.ip_forward`. A dot inside of a link's name is written as a slash.
pub fn parameter(key: &str) -> Result<PathBuf> {
    let path = key.replace('/', "\0").replace('.', "/").replace('\0', ".");
    let clean = !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "..");
    if clean {
        Ok(Path::new("/proc/sys").join(path))
    } else {
        Err(Failure::new(Kind::Configuration, format!("{key:?} is no name of a kernel parameter")))
    }
}

fn text(host: &dyn Host, path: &str) -> Result<String> {
    Ok(host.read(Path::new(path))?.map(|content| String::from_utf8_lossy(&content).into_owned()).unwrap_or_default())
}

/// Whether a line of /etc/fstab is in use and about swap.
pub fn is_swap_line(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with('#') && line.split_whitespace().nth(2) == Some("swap")
}

/// Which of these modules are there: loaded, built into the kernel, or their feature is.
fn modules(host: &dyn Host, names: &[String]) -> Result<BTreeSet<String>> {
    let kernel = Kernel::read(host)?;
    let mut there = BTreeSet::new();
    for name in names {
        if kernel.has(host, name)? {
            there.insert(name.clone());
        }
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{is_swap_line, parameter};

    #[rstest]
    #[case("net.ipv4.ip_forward", Some("/proc/sys/net/ipv4/ip_forward"))]
    #[case("net.ipv4.conf.eth0/1.forwarding", Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding"))]
    #[case("net..x", None)]
    #[case("", None)]
    fn parameters_have_files(#[case] key: &str, #[case] path: Option<&str>) {
        assert_eq!(parameter(key).ok().as_deref(), path.map(std::path::Path::new));
    }

    #[rstest]
    #[case("UUID=1 none swap sw 0 0", true)]
    #[case("  /swapfile\tswap\tswap\tdefaults 0 0", true)]
    #[case("#/swapfile swap swap defaults 0 0", false)]
    #[case("/dev/sda1 / ext4 defaults 0 1", false)]
    #[case("", false)]
    fn swap_lines(#[case] line: &str, #[case] is: bool) {
        assert_eq!(is_swap_line(line), is);
    }
}
