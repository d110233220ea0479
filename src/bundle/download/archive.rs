//! Files out of archives of releases, and archives of images in the OCI layout.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::Path;

use super::super::digest::sha256;
use super::registry::descriptor;
use super::{Image, unwritable};
use crate::failure::{Failure, Kind, Result};

/// No program is larger, in bytes.
const MAXIMUM_FILE_BYTES: u64 = 1 << 30;

/// Takes these files out of a gzipped tar archive, wherever they lie in it; `url` is where it came from.
///
/// # Errors
/// Kind `Bundle`: it is no such archive, lacks one of them, or they cannot be written.
pub(super) fn unpack(archive: &Path, folder: &Path, files: &[&str], url: &str) -> Result<()> {
    let damaged =
        |error: io::Error| Failure::new(Kind::Bundle, format!("{url} is no archive that can be read")).because(&error);
    let file = File::open(archive).map_err(damaged)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::with_capacity(1 << 20, file)));
    let mut missing: Vec<&str> = files.to_vec();
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(damaged)?.into_owned();
        // Only the last part of a name counts: nothing is written anywhere else.
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(at) = missing.iter().position(|wanted| *wanted == name) else { continue };
        let target = folder.join(missing.remove(at));
        let mut output = File::create(&target).map_err(|error| unwritable(&target, &error))?;
        io::copy(&mut entry.take(MAXIMUM_FILE_BYTES), &mut output).map_err(damaged)?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Kind::Bundle, format!("{url} holds no {}", missing.join(", no ")))
        .advise("check the version, and that the mirror is one of the official releases"))
}

/// Writes an archive of images that `ctr images import` reads: manifests and their blobs, each once, under the references.
///
/// # Errors
/// Kind `Bundle` when a file cannot be read or written.
pub(super) fn layout(target: &Path, images: &[Image]) -> Result<()> {
    let failed = |error: io::Error| unwritable(target, &error);
    let file = File::create(target).map_err(failed)?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    let manifests: Vec<_> = images.iter().map(|image| descriptor(&image.manifest, &image.reference)).collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
    append(&mut archive, "index.json", index.as_bytes()).map_err(failed)?;
    let mut written = BTreeSet::new();
    for image in images {
        let digest = sha256(&image.manifest.text);
        if written.insert(digest.clone()) {
            append(&mut archive, &format!("blobs/sha256/{digest}"), &image.manifest.text).map_err(failed)?;
        }
        for (digest, path) in &image.blobs {
            if written.insert(digest.clone()) {
                let content = File::open(path).map_err(failed)?;
                let size = content.metadata().map_err(failed)?.len();
                append_sized(&mut archive, &format!("blobs/sha256/{digest}"), size, content).map_err(failed)?;
            }
        }
    }
    archive.into_inner().and_then(|mut writer| writer.flush()).map_err(failed)
}

fn append(archive: &mut tar::Builder<impl io::Write>, name: &str, content: &[u8]) -> io::Result<()> {
    append_sized(archive, name, content.len() as u64, content)
}

fn append_sized(
    archive: &mut tar::Builder<impl io::Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}
