//! What an inventory means depends on a little of the machine it is read on: the home folder, the user, and the files
//! it names.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::yaml::{Finding, Node};

/// The machine, as far as the inventory needs it.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// Folder of the inventory, absolute: relative paths start here.
    pub folder: PathBuf,
    /// What `~` stands for.
    pub home: PathBuf,
    /// The local user's login name: what SSH logs in as when nothing is said.
    pub user: String,
}

impl Surroundings {
    /// Of an inventory at `path`, for the person who runs this process.
    pub fn of(path: &Path, home: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new(""));
        // `absolute` refuses the empty path, which means the current folder here.
        let folder = std::path::absolute(Path::new(".").join(folder)).unwrap_or_else(|_| folder.to_owned());
        Self { folder, home: home.to_owned(), user: local_user() }
    }

    /// A path as written: `~` is the home folder, relative paths start at the inventory's folder.
    pub fn resolve(&self, written: &str) -> Result<PathBuf, String> {
        if written.is_empty() {
            return Err("is empty".to_owned());
        }
        if written == "~" {
            return Ok(self.home.clone());
        }
        if let Some(rest) = written.strip_prefix("~/") {
            return Ok(self.home.join(rest));
        }
        if written.starts_with('~') {
            return Err("names another user's home folder, which is not looked up; write the whole path".to_owned());
        }
        // Collected again to drop the `.` components, which only confuse in messages.
        Ok(self.folder.join(written).components().collect())
    }
}

/// What is wrong with a file that has to be there, if anything is.
pub(super) fn missing(node: &Node, what: &str, path: &Path) -> Option<Finding> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Some(Finding::error(node.span, format!("{what}: {} is a folder, not a file", path.display())))
        }
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(Finding::error(node.span, format!("{what}: there is no file {}", path.display())))
        }
        Err(error) => Some(Finding::error(node.span, format!("{what}: cannot look at {}: {error}", path.display()))),
    }
}

/// What is wrong with a file that only its owner should read, if anything is: it has to be there and private.
///
/// As OpenSSH does it, a file of somebody else is left to its owner's judgement.
pub(super) fn not_private(node: &Node, what: &str, path: &Path) -> Option<Finding> {
    if let Some(finding) = missing(node, what, path) {
        return Some(finding);
    }
    let open =
        |metadata: &Metadata| metadata.uid() == rustix::process::getuid().as_raw() && metadata.mode() & 0o077 != 0;
    std::fs::metadata(path).ok().filter(open).map(|metadata| {
        let message = format!("{what}: others may read {} (mode {:04o})", path.display(), metadata.mode() & 0o7777);
        Finding::error(node.span, message).help(format!("chmod 600 {}", path.display()))
    })
}

/// The login name of the person who runs this process; empty if nothing tells.
fn local_user() -> String {
    let named = ["USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok()).find(|name| !name.is_empty());
    // Timers and bare containers set neither.
    let listed =
        || user_of(&std::fs::read_to_string("/etc/passwd").unwrap_or_default(), rustix::process::getuid().as_raw());
    named.or_else(listed).unwrap_or_default()
}

/// The name of a user id in the text of /etc/passwd.
fn user_of(passwd: &str, wanted: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(wanted)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Surroundings, user_of};

    #[test]
    fn paths_are_resolved() {
        let surroundings = Surroundings::of(Path::new("/work/demo/inventory.yaml"), Path::new("/home/ops"));
        assert_eq!(surroundings.resolve("~/.ssh/id"), Ok(PathBuf::from("/home/ops/.ssh/id")));
        assert_eq!(surroundings.resolve("./keys/id"), Ok(PathBuf::from("/work/demo/keys/id")));
        assert_eq!(surroundings.resolve("/etc/id"), Ok(PathBuf::from("/etc/id")));
        assert!(surroundings.resolve("~root/id").is_err() && surroundings.resolve("").is_err());
    }

    #[test]
    fn users_are_found_by_id() {
        let passwd = "# comment\nroot:x:0:0:root:/root:/bin/sh\nops:x:1000:1000::/home/ops:/bin/sh\n";
        assert_eq!(user_of(passwd, 1000).as_deref(), Some("ops"));
        assert_eq!(user_of(passwd, 5), None);
    }

    #[test]
    fn an_inventory_beside_us_has_a_folder() {
        let surroundings = Surroundings::of(Path::new("inventory.yaml"), Path::new("/home/ops"));
        assert_eq!(surroundings.folder, std::env::current_dir().unwrap());
    }
}
