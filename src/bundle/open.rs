//! Opens a bundle and reads its blobs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::digest::Hashing;
use super::{Blob, FORMAT, Manifest, member};
use crate::failure::{Failure, Kind, Result};

/// A manifest may be this large, in bytes.
const MAXIMUM_MANIFEST_BYTES: u64 = 16 << 20;

/// An open bundle: its manifest, and where each blob lies in the file.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    manifest: Manifest,
    pub(super) offsets: BTreeMap<String, u64>,
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Bundle, format!("the bundle {} is damaged: {what}", path.display()))
        .advise("make or copy it again, then `clusterctl bundle verify` it")
}

impl Bundle {
    /// Opens a bundle, reads its manifest and finds its blobs; the content is not hashed here.
    ///
    /// # Errors
    /// Kind `Bundle`: not there, no bundle, of another format, or cut off.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Failure::new(Kind::Bundle, format!("cannot read the bundle {}", path.display()))
                .because(&error)
                .advise("make one with `clusterctl bundle create`, or name it with --bundle or `cluster.bundle`")
        };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut archive = tar::Archive::new(BufReader::new(file));
        let mut manifest = None;
        let mut members = BTreeMap::new();
        // Raw: names here are short, and an extension of a header may not be read into memory, however long it says it is.
        for entry in archive.entries_with_seek().map_err(|error| damaged(path, error))?.raw(true) {
            let entry = entry.map_err(|error| damaged(path, error))?;
            let name = entry.path().map_err(|error| damaged(path, error))?.to_string_lossy().into_owned();
            if manifest.is_none() {
                if name != "manifest.json" {
                    return Err(damaged(path, "it does not begin with manifest.json"));
                }
                let mut text = Vec::new();
                entry.take(MAXIMUM_MANIFEST_BYTES).read_to_end(&mut text).map_err(|error| damaged(path, error))?;
                manifest = Some(serde_json::from_slice::<Manifest>(&text).map_err(|error| damaged(path, error))?);
                continue;
            }
            members.insert(name, (entry.raw_file_position(), entry.size()));
        }
        let manifest = manifest.ok_or_else(|| damaged(path, "it is empty"))?;
        if manifest.format != FORMAT {
            return Err(damaged(path, format!("its format is {}, this clusterctl reads {FORMAT}", manifest.format)));
        }
        let mut offsets = BTreeMap::new();
        for blob in &manifest.blobs {
            blob.check().map_err(|what| damaged(path, format!("{} {what}", blob.name)))?;
            match members.get(&member(&blob.sha256)) {
                Some((offset, size)) if *size == blob.stored_size && offset.saturating_add(*size) <= length => {
                    offsets.insert(blob.sha256.clone(), *offset);
                }
                Some(_) => return Err(damaged(path, format!("{} is cut off", blob.name))),
                None => return Err(damaged(path, format!("{} is missing", blob.name))),
            }
        }
        Ok(Self { path: path.to_owned(), manifest, offsets })
    }

    /// Blobs that lie on hosts already, and not here.
    pub fn on_hosts(manifest: Manifest) -> Self {
        Self { path: PathBuf::from("that hosts downloaded"), manifest, offsets: BTreeMap::new() }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader of a blob's zstd stream, as stored.
    pub fn stored(&self, blob: &Blob) -> Result<impl Read + Send + use<>> {
        self.stored_from(blob, 0)
    }

    /// A reader of a blob's zstd stream, as stored, from a byte of it on.
    pub fn stored_from(&self, blob: &Blob, from: u64) -> Result<impl Read + Send + use<>> {
        let offset =
            self.offsets.get(&blob.sha256).ok_or_else(|| damaged(&self.path, format!("{} is missing", blob.name)))?;
        let mut file = File::open(&self.path).map_err(|error| damaged(&self.path, error))?;
        file.seek(SeekFrom::Start(offset + from)).map_err(|error| damaged(&self.path, error))?;
        Ok(file.take(blob.stored_size.saturating_sub(from)))
    }

    /// Hashes every blob, stored and unpacked, and returns the names of those that are wrong.
    pub fn verify(&self, progress: &dyn Fn(u64, u64, &str)) -> Result<Vec<String>> {
        let total = self.manifest.blobs.len() as u64;
        let mut wrong = Vec::new();
        for (done, blob) in (0_u64..).zip(&self.manifest.blobs) {
            progress(done, total, &blob.name);
            if !self.intact(blob)? {
                wrong.push(blob.name.clone());
            }
        }
        progress(total, total, "");
        Ok(wrong)
    }

    fn intact(&self, blob: &Blob) -> Result<bool> {
        let mut stored = Hashing::new(self.stored(blob)?);
        let content = {
            let Ok(decoder) = zstd::Decoder::new(&mut stored) else { return Ok(false) };
            let mut content = Hashing::new(decoder.take(blob.size + 1));
            if std::io::copy(&mut content, &mut std::io::sink()).is_err() {
                return Ok(false);
            }
            content.finish()
        };
        if std::io::copy(&mut stored, &mut std::io::sink()).is_err() {
            return Ok(false);
        }
        let stored = stored.finish();
        Ok(content.sha256 == blob.sha256 && content.size == blob.size && stored.sha256 == blob.stored_sha256)
    }
}
