//! Archives on the host: tar, plain or compressed by gzip or zstd. Names that would leave the directory are refused.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::action::Unpack;
use crate::bundle::digest::sha256;
use crate::failure::{Failure, Kind, Result};
use crate::host::{EntryKind, Host};

/// One file of an archive may be this large, in bytes; larger ones belong into a bundle.
const MAXIMUM_FILE_BYTES: u64 = 512 << 20;

fn damaged(archive: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Host, format!("the archive {} cannot be read", archive.display()))
        .caused_by(error.to_string())
        .advise("check the archive")
}

/// Calls `visit` for each regular file: where it goes, permission bits, content.
fn each(host: &dyn Host, unpack: &Unpack, visit: &mut dyn FnMut(PathBuf, u32, Vec<u8>) -> Result<()>) -> Result<()> {
    let content = host.read(&unpack.archive)?.ok_or_else(|| {
        Failure::new(Kind::Host, format!("there is no archive {}", unpack.archive.display()))
            .advise("put it there with a task before this one")
    })?;
    let wrong = |error: std::io::Error| damaged(&unpack.archive, &error);
    let reader: Box<dyn Read> = match content.get(..4) {
        Some([0x1f, 0x8b, ..]) => Box::new(flate2::read::GzDecoder::new(content.as_slice())),
        Some([0x28, 0xb5, 0x2f, 0xfd]) => Box::new(zstd::Decoder::new(content.as_slice()).map_err(wrong)?),
        _ => Box::new(content.as_slice()),
    };
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(wrong)?.into_owned();
        let mode = entry.header().mode().map_err(wrong)? & 0o777;
        let Some(path) = destination(&name, unpack)? else { continue };
        let size = entry.size();
        if size > MAXIMUM_FILE_BYTES {
            return Err(damaged(
                &unpack.archive,
                &format!("{} is larger than {MAXIMUM_FILE_BYTES} bytes", name.display()),
            ));
        }
        let mut content = Vec::new();
        entry.take(size).read_to_end(&mut content).map_err(wrong)?;
        visit(path, mode, content)?;
    }
    Ok(())
}

/// Where a file of the archive goes; `None` for one that `strip` leaves nothing of.
fn destination(name: &Path, unpack: &Unpack) -> Result<Option<PathBuf>> {
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return Err(damaged(&unpack.archive, &format!("{} leads out of its directory", name.display()))),
        }
    }
    let rest: PathBuf = parts.into_iter().skip(unpack.strip).collect();
    Ok((!rest.as_os_str().is_empty()).then(|| unpack.into.join(rest)))
}

/// Files that are not there as they are in the archive, with their permission bits.
pub fn lacking(host: &dyn Host, unpack: &Unpack) -> Result<BTreeMap<PathBuf, u32>> {
    let mut lacking = BTreeMap::new();
    // An archive that an earlier task will bring is not there yet in a dry run: then all of it is lacking.
    if host.entry(&unpack.archive)?.is_none() {
        return Ok(BTreeMap::from([(unpack.into.clone(), 0o755)]));
    }
    each(host, unpack, &mut |path, mode, content| {
        let entry = host.entry(&path)?;
        let same = entry.is_some_and(|entry| {
            entry.kind == EntryKind::File && entry.mode == mode && entry.size == content.len() as u64
        });
        if !same || host.sha256(&path)?.as_deref() != Some(sha256(&content).as_str()) {
            lacking.insert(path, mode);
        }
        Ok(())
    })?;
    Ok(lacking)
}

/// Content of the files at these paths.
pub fn contents(host: &dyn Host, unpack: &Unpack, wanted: &Path) -> Result<Vec<u8>> {
    let mut found = None;
    each(host, unpack, &mut |path, _, content| {
        if path == wanted {
            found = Some(content);
        }
        Ok(())
    })?;
    found.ok_or_else(|| damaged(&unpack.archive, &format!("{} is not in it", wanted.display())))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::destination;
    use crate::playbook::action::Unpack;

    fn unpack(strip: usize) -> Unpack {
        Unpack { archive: "/a.tar".into(), into: "/opt/x".into(), strip }
    }

    #[test]
    fn names_stay_inside() {
        assert_eq!(destination(Path::new("bin/tool"), &unpack(0)).unwrap(), Some(PathBuf::from("/opt/x/bin/tool")));
        assert_eq!(
            destination(Path::new("./v1/bin/tool"), &unpack(1)).unwrap(),
            Some(PathBuf::from("/opt/x/bin/tool"))
        );
        assert_eq!(destination(Path::new("README"), &unpack(1)).unwrap(), None);
        assert!(destination(Path::new("../../etc/passwd"), &unpack(0)).is_err());
        assert!(destination(Path::new("/etc/passwd"), &unpack(0)).is_err());
    }
}
