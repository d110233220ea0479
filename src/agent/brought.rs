//! The program, while a command that starts an agent receives it (see `remote::start`).

use std::path::Path;

use super::{DIRECTORY, SHARES};
use crate::host::Host;

/// Whether another run's command to start an agent is receiving the program: its part, and the folder of its shares, are named
/// after the shell that writes them. A folder without a share is that of a shell which waits, perhaps for ever.
pub(super) fn is_being_brought(host: &dyn Host) -> bool {
    let directory = Path::new(DIRECTORY);
    let there = |folder: &Path| host.list(folder).unwrap_or_default();
    let parts = there(&directory.join("bin"));
    let parts = parts.iter().filter_map(|name| Some(name.rsplit_once(".part.")?.1.to_owned()));
    let shares = there(directory).into_iter().filter_map(|name| {
        let shell = name.strip_prefix(SHARES)?.strip_prefix('.')?.to_owned();
        there(&directory.join(&name)).iter().any(|name| name.starts_with("share-")).then_some(shell)
    });
    let mut shells = parts.chain(shares).filter_map(|shell| shell.parse::<u32>().ok());
    shells.any(|shell| matches!(host.entry(Path::new(&format!("/proc/{shell}"))), Ok(Some(_))))
}
