//! The folder of patches that a person named (kubeadm.md section 4.8).

use std::path::Path;

use super::files;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::{EntryKind, Host};
use crate::kubernetes::configuration;
use crate::kubernetes::patches::Patches;
use crate::kubernetes::version::Release;

/// Reads it; without a folder there are no patches. Files that are passed over are said.
///
/// # Errors
/// Kind `Configuration` for a folder that is not there, and for files as [`Patches::read`] judges them.
pub(super) fn read(
    host: &dyn Host,
    named: Option<&configuration::Patches>,
    release: &Release,
    events: &Events,
) -> Result<Patches> {
    let Some(directory) = named.map(|named| named.directory.as_str()).filter(|directory| !directory.is_empty()) else {
        return Ok(Patches::default());
    };
    let folder = Path::new(directory);
    if host.entry(folder)?.is_none_or(|entry| entry.kind != EntryKind::Directory) {
        return Err(Failure::new(Kind::Configuration, format!("there is no folder of patches {directory}"))
            .advise("name a folder of this host in --patches or patches.directory"));
    }
    let mut texts = Vec::new();
    for name in host.list(folder)? {
        let path = folder.join(&name);
        let is_directory = host.entry(&path)?.is_some_and(|entry| entry.kind == EntryKind::Directory);
        if let Some(text) = if is_directory { None } else { files::text(host, &path)? } {
            texts.push((path.display().to_string(), text));
        }
    }
    let (patches, passed_over) = Patches::read(&texts, release)?;
    passed_over.into_iter().for_each(|sentence| events.warn(sentence));
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;
    use crate::event::Events;
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::Patches;
    use crate::kubernetes::patches::Target;
    use crate::kubernetes::version::RELEASES;

    #[test]
    fn the_files_of_a_folder_are_read() {
        let host = FakeHost::new().file("/p/etcd+merge.yaml", "a: 1\n").file("/p/more/etcd.yaml", "b: 1\n");
        let named = Patches { directory: "/p".into() };
        let patches = read(&host, Some(&named), &RELEASES[0], &Events::nowhere()).unwrap();
        assert_eq!(patches.apply(Target::Etcd, json!({})).unwrap(), json!({"a": 1}));
        let none = Patches { directory: "/none".into() };
        let failure = read(&host, Some(&none), &RELEASES[0], &Events::nowhere()).unwrap_err();
        assert_eq!(failure.kind, Kind::Configuration);
    }
}
