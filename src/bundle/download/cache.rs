//! Downloads under their sha256: there, or gone on with, or begun; never used before they are checked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::digest::Hashing;
use super::registry::Registry;
use super::{in_thread, unwritable};
use crate::failure::{Failure, Kind, Result};
use crate::https::{Answered, Ask, Downloads, shown};

/// How often a download that breaks off is gone on with, without having got any further in between.
const TRIES: u32 = 5;

/// The pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// No file is larger, in bytes.
const MAXIMUM_BYTES: u64 = 4 << 30;

/// The folder of downloads.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// One download of a file at a time: images share layers.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Who is asked.
pub(super) enum Origin<'a> {
    /// A server that wants no login.
    Server(&'a Downloads),
    /// A registry.
    Registry(&'a Registry<'a>),
}

impl Origin<'_> {
    async fn open(&self, url: &str, accept: Option<&str>, from: u64) -> std::result::Result<Answered, String> {
        match self {
            Self::Server(downloads) => downloads.open(&Ask { url, accept, from, authorization: None }).await,
            Self::Registry(registry) => registry.open(url, accept, from).await,
        }
    }
}

/// Why a try failed.
enum Missed {
    /// Another try may do.
    Passing(String),
    /// It is of no use.
    Final(Failure),
}

fn refused(url: &str, why: &str) -> Failure {
    Failure::new(Kind::Bundle, format!("cannot download {}", shown(url)))
        .caused_by(why)
        .advise("check the version and the network; HTTPS_PROXY names a proxy, --mirror another server")
}

/// What a status other than success means.
fn judge(origin: &Origin<'_>, url: &str, status: u16) -> Missed {
    let why = format!("the server answers with status {status}");
    match status {
        408 | 425 | 429 | 500..=599 => Missed::Passing(why),
        401 | 403 => Missed::Final(refused(url, &why).advise(match origin {
            Origin::Registry(_) => "log in with `docker login`, which leaves credentials in ~/.docker/config.json",
            Origin::Server(_) => "see whom that server lets in; a mirror is another server",
        })),
        _ => Missed::Final(refused(url, &why)),
    }
}

/// A small text, such as a file of checksums.
pub(super) async fn text(origin: &Origin<'_>, url: &str, accept: Option<&str>, limit: usize) -> Result<Vec<u8>> {
    let mut tries = Tries::default();
    loop {
        let attempt = async {
            let answered = origin.open(url, accept, 0).await.map_err(Missed::Passing)?;
            match answered.status {
                200 => answered.body(limit).await.map_err(Missed::Passing),
                status => Err(judge(origin, url, status)),
            }
        };
        match attempt.await {
            Ok(body) => return Ok(body),
            Err(Missed::Final(failure)) => return Err(failure),
            Err(Missed::Passing(why)) => tries.again(url, &why, 0).await?,
        }
    }
}

/// How often it was tried since the last byte.
#[derive(Default)]
struct Tries {
    count: u32,
    at: u64,
}

impl Tries {
    /// Waits before the next try; an error when there have been enough.
    async fn again(&mut self, url: &str, why: &str, at: u64) -> Result<()> {
        if at > self.at {
            *self = Self { count: 0, at };
        }
        self.count += 1;
        if self.count >= TRIES {
            return Err(refused(url, why).may_pass());
        }
        let mut pause = tokio::time::interval(PAUSE * 2_u32.pow(self.count - 1));
        pause.tick().await;
        pause.tick().await;
        Ok(())
    }
}

impl Cache {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        Ok(Self { folder: folder.to_owned(), turns: Mutex::default() })
    }

    /// The file of this sha256, downloaded from `url` if it is not there; `size` is known of what registries have.
    ///
    /// # Errors
    /// Kind `Bundle`: it cannot be had, or is not what its checksum says.
    pub(super) async fn file(
        &self,
        origin: &Origin<'_>,
        url: &str,
        sha256: &str,
        size: Option<u64>,
    ) -> Result<PathBuf> {
        let path = self.folder.join(sha256);
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(sha256.to_owned()).or_default())
        };
        let _turn = turn.lock().await;
        if hash(path.clone()).await?.as_deref() == Some(sha256) {
            return Ok(path);
        }
        let part = Part::open(&self.folder, sha256)?;
        // A second program may have finished it while this one waited for the lock.
        if hash(path.clone()).await?.as_deref() == Some(sha256) {
            return Ok(path);
        }
        let mut resumed = part.len()? > 0;
        let mut tries = Tries::default();
        loop {
            match fill(origin, url, &part, size).await {
                Ok(()) if hash(part.path.clone()).await?.as_deref() == Some(sha256) => {
                    fs::rename(&part.path, &path).map_err(|error| unwritable(&path, &error))?;
                    return Ok(path);
                }
                // What was there of it may have been damaged: once more from the beginning.
                Ok(()) if resumed => {
                    resumed = false;
                    part.cut(0)?;
                }
                Ok(()) => {
                    part.cut(0)?;
                    return Err(Failure::new(Kind::Bundle, format!("{} is not what its checksum says", shown(url)))
                        .caused_by(format!("its sha256 has to be {sha256}"))
                        .advise("try again; if it stays so, do not trust that server"));
                }
                Err(Missed::Final(failure)) => return Err(failure),
                Err(Missed::Passing(why)) => tries.again(url, &why, part.len()?).await?,
            }
        }
    }
}

/// Brings the part to its end.
async fn fill(origin: &Origin<'_>, url: &str, part: &Part, size: Option<u64>) -> std::result::Result<(), Missed> {
    let mut at = part.len().map_err(Missed::Final)?;
    if size.is_some_and(|size| at >= size) {
        return Ok(());
    }
    let mut answered = origin.open(url, None, at).await.map_err(Missed::Passing)?;
    match answered.status {
        206 if answered.from == Some(at) => {}
        // It does not go on in the middle, or not where it was asked to.
        200 | 206 => {
            part.cut(0).map_err(Missed::Final)?;
            if answered.status == 206 {
                return Err(Missed::Passing("the server gives another part than it was asked for".to_owned()));
            }
            at = 0;
        }
        // There is nothing after the last byte: it is whole, or not the same file any more. The checksum tells.
        416 if at > 0 => return Ok(()),
        status => return Err(judge(origin, url, status)),
    }
    let limit = size.unwrap_or(MAXIMUM_BYTES);
    let end = answered.length.map(|length| at + length);
    while let Some(chunk) = answered.chunk().await.map_err(Missed::Passing)? {
        at += chunk.len() as u64;
        if at > limit {
            part.cut(0).map_err(Missed::Final)?;
            return Err(Missed::Final(refused(url, &format!("it is longer than {limit} bytes"))));
        }
        part.append(&chunk).map_err(Missed::Final)?;
    }
    match end {
        Some(end) if at < end => Err(Missed::Passing("the connection ended early".to_owned())),
        _ => Ok(()),
    }
}

/// A file that grows; locked, so that two programs do not write into it.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn open(folder: &Path, sha256: &str) -> Result<Self> {
        let path = folder.join(format!("{sha256}.part"));
        let failed = |error: std::io::Error| unwritable(&path, &error);
        let file = File::options().create(true).append(true).read(true).open(&path).map_err(failed)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            Failure::new(Kind::Busy, format!("another clusterctl downloads into {}", path.display()))
                .because(&error)
                .advise("wait until it is done, then run the same command again")
                .may_pass()
        })?;
        Ok(Self { file, path })
    }

    fn len(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| unwritable(&self.path, &error))
    }

    fn cut(&self, length: u64) -> Result<()> {
        let cut = self.file.set_len(length).and_then(|()| (&self.file).seek(SeekFrom::Start(length)));
        cut.map(|_| ()).map_err(|error| unwritable(&self.path, &error))
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        (&self.file).write_all(bytes).map_err(|error| unwritable(&self.path, &error))
    }
}

/// The sha256 of a file; `None` where there is none.
async fn hash(path: PathBuf) -> Result<Option<String>> {
    in_thread(move || {
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let mut content = Hashing::new(file.take(MAXIMUM_BYTES));
        let read = std::io::copy(&mut content, &mut std::io::sink());
        read.map_err(|error| Failure::new(Kind::Bundle, format!("cannot read {}", path.display())).because(&error))?;
        Ok(Some(content.finish().sha256))
    })
    .await
}
