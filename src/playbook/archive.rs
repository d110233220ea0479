//! Archives on the host: tar, plain or compressed by gzip or zstd. Names that would leave the directory are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::action::Unpack;
use crate::bundle::digest::sha256;
use crate::failure::{Failure, Kind, Result};
use crate::host::journal::Journal;
use crate::host::{EntryKind, Host};

/// One file of an archive may be this large, in bytes; larger ones belong into a bundle.
const MAXIMUM_FILE_BYTES: u64 = 512 << 20;

/// How many names an archive may have.
const MAXIMUM_NAMES: usize = 50_000;

/// What a name of an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packed {
    /// A file with these permission bits.
    File(u32),
    /// A symbolic link and where it points.
    Link(PathBuf),
}

fn damaged(archive: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Host, format!("the archive {} cannot be read", archive.display()))
        .caused_by(error.to_string())
        .advise("check the archive")
}

/// Calls `visit` for each file and link: where it goes, what it is, a file's content.
fn each(
    host: &dyn Host,
    unpack: &Unpack,
    visit: &mut dyn FnMut(PathBuf, Packed, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let content = host.read(&unpack.archive)?.ok_or_else(|| {
        Failure::new(Kind::Host, format!("there is no archive {}", unpack.archive.display()))
            .advise("put it there with a task before this one")
    })?;
    let wrong = |error: std::io::Error| damaged(&unpack.archive, &error);
    let reader: Box<dyn Read> = match content.get(..4) {
        Some([0x1f, 0x8b, ..]) => Box::new(flate2::read::MultiGzDecoder::new(content.as_slice())),
        Some([0x28, 0xb5, 0x2f, 0xfd]) => Box::new(zstd::Decoder::new(content.as_slice()).map_err(wrong)?),
        _ => Box::new(content.as_slice()),
    };
    let mut archive = tar::Archive::new(reader);
    let mut links: BTreeSet<PathBuf> = BTreeSet::new();
    for (index, entry) in archive.entries().map_err(wrong)?.enumerate() {
        let mut entry = entry.map_err(wrong)?;
        if index >= MAXIMUM_NAMES {
            return Err(damaged(&unpack.archive, &format!("it has more than {MAXIMUM_NAMES} names")));
        }
        let name = entry.path().map_err(wrong)?.into_owned();
        let packed = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                Packed::File(entry.header().mode().map_err(wrong)? & 0o777)
            }
            tar::EntryType::Symlink => {
                Packed::Link(entry.link_name().map_err(wrong)?.map(|target| target.into_owned()).unwrap_or_default())
            }
            // Directories come with what is in them.
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            // Leaving one out in silence would make half of what the archive is.
            kind => return Err(damaged(&unpack.archive, &format!("{} is a {kind:?}", name.display()))),
        };
        let Some(path) = destination(&name, unpack)? else { continue };
        if path.ancestors().skip(1).any(|parent| links.contains(parent)) {
            return Err(damaged(&unpack.archive, &format!("{} leads through a link", name.display())));
        }
        if matches!(packed, Packed::Link(_)) {
            links.insert(path.clone());
        }
        if entry.size() > MAXIMUM_FILE_BYTES {
            return Err(damaged(
                &unpack.archive,
                &format!("{} is larger than {MAXIMUM_FILE_BYTES} bytes", name.display()),
            ));
        }
        visit(path, packed, &mut entry)?;
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

fn content_of(unpack: &Unpack, file: &mut dyn Read) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|error| damaged(&unpack.archive, &error))?;
    Ok(content)
}

/// What is not there as it is in the archive.
pub fn lacking(host: &dyn Host, unpack: &Unpack) -> Result<BTreeMap<PathBuf, Packed>> {
    let mut lacking = BTreeMap::new();
    // An archive that an earlier task will bring is not there yet in a dry run: then all of it is lacking.
    if host.entry(&unpack.archive)?.is_none() {
        return Ok(BTreeMap::from([(unpack.into.clone(), Packed::File(0o755))]));
    }
    each(host, unpack, &mut |path, packed, file| {
        let there = host.entry(&path)?;
        let same = match &packed {
            Packed::Link(target) => there.is_some_and(|entry| entry.kind == EntryKind::Link(target.clone())),
            Packed::File(mode) => {
                there.is_some_and(|entry| entry.kind == EntryKind::File && entry.mode == *mode)
                    && host.sha256(&path)?.as_deref() == Some(sha256(&content_of(unpack, file)?).as_str())
            }
        };
        if !same {
            lacking.insert(path, packed);
        }
        Ok(())
    })?;
    Ok(lacking)
}

/// Unpacks what is lacking, in one pass over the archive.
pub fn install(host: &dyn Host, journal: &Journal, unpack: &Unpack, lacking: &BTreeMap<PathBuf, Packed>) -> Result<()> {
    if lacking.is_empty() {
        return Ok(());
    }
    each(host, unpack, &mut |path, packed, file| match packed {
        _ if !lacking.contains_key(&path) => Ok(()),
        Packed::Link(target) => journal.make_link(host, &path, &target),
        Packed::File(mode) => journal.write_file(host, &path, &content_of(unpack, file)?, mode),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use super::{Packed, destination, install, lacking};
    use crate::host::fake::FakeHost;
    use crate::host::journal::Journal;
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

    fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_size(0);
            if *kind == tar::EntryType::Symlink {
                builder.append_link(&mut header, name, text).unwrap();
            } else {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, name, text.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn all_compressions_unpack_alike_and_the_second_time_nothing_is_lacking() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let plain = tar_of(&[("top/", Directory, ""), ("top/a", Regular, "text"), ("top/b", Symlink, "a")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        for archive in [plain, gzip.finish().unwrap(), zstd] {
            let host = FakeHost::new().file("/a.tar", archive).directory("/var/lib");
            let journal = Journal::open(&host, "demo").unwrap();
            let wanted = lacking(&host, &unpack(1)).unwrap();
            let expected = [("/opt/x/a".into(), Packed::File(0o755)), ("/opt/x/b".into(), Packed::Link("a".into()))];
            assert_eq!(wanted, BTreeMap::from(expected));
            install(&host, &journal, &unpack(1), &wanted).unwrap();
            assert_eq!(host.text("/opt/x/a").as_deref(), Some("text"));
            assert!(lacking(&host, &unpack(1)).unwrap().is_empty());
        }
    }

    #[test]
    fn what_cannot_be_unpacked_whole_is_refused() {
        use tar::EntryType::{Fifo, Regular, Symlink};
        for hostile in [tar_of(&[("a", Symlink, "/etc"), ("a/passwd", Regular, "x")]), tar_of(&[("a", Fifo, "")])] {
            let host = FakeHost::new().file("/a.tar", hostile);
            let failure = lacking(&host, &unpack(0)).unwrap_err();
            assert_eq!(failure.sentence, "the archive /a.tar cannot be read");
        }
        let host = FakeHost::new().file("/a.tar", [0x1f, 0x8b, 0, 0]);
        assert!(lacking(&host, &unpack(0)).is_err());
    }
}
