//! `copy`: files and folders of a person to many hosts, or from them.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::connect::{Settings, open, privilege};
use super::headers::Headers;
use crate::event::{Step, Unit, What, elapsed_milliseconds};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Host, Inventory};
use crate::remote::{Download, Kept, Upload};
use crate::ssh::{self, Connection};

/// Bytes read from a file at a time (crates.md section 2e).
const PIECE: usize = 256 << 10;
/// A folder of a host may have this many names.
const MAXIMUM_NAMES: usize = 1_000_000;

/// What is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// From here to the hosts.
    There {
        /// A file or folder here.
        from: PathBuf,
        /// A place on the hosts.
        to: String,
    },
    /// From the hosts to here.
    Here {
        /// A file or folder on the hosts.
        from: String,
        /// A place here; with several hosts a folder that gets one for each of them.
        to: PathBuf,
    },
}

/// Copies, on all hosts of the inventory at once; returns the failures.
///
/// # Errors
/// [`Kind::Usage`] for a file or folder here that cannot be used, before any host is reached.
pub async fn copy(inventory: &Inventory, order: &Order, root: bool, settings: &Settings) -> Result<Vec<Failure>> {
    let started = Instant::now();
    let configuration = ssh::Configuration::of_this_machine()?;
    let several = inventory.hosts.len() > 1;
    if let Order::There { from, .. } = order {
        std::fs::metadata(from).map_err(|error| unusable(from, &error))?;
    }
    settings.events.send(What::RunStarted {
        verb: "copy".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let lanes = inventory.hosts.iter().map(|host| {
        let configuration = configuration.clone();
        async move {
            let work = one(host, order, root, several, &configuration, settings);
            let result = tokio::select! {
                result = work => result,
                () = settings.cancel.cancelled() => Err(crate::cancel::Cancel::failure()),
            };
            result.map_err(|failure| failure.on(&host.name))
        }
    });
    let results: Vec<Result<()>> = futures::stream::iter(lanes).buffered(settings.parallel.max(1)).collect().await;
    let changes = results.iter().filter(|result| result.is_ok()).count();
    let failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
    settings.events.send(What::RunFinished {
        milliseconds: elapsed_milliseconds(started.elapsed()),
        changes: u32::try_from(changes).unwrap_or(u32::MAX),
        failed: failures.clone(),
    });
    Ok(failures)
}

async fn one(
    host: &Host,
    order: &Order,
    root: bool,
    several: bool,
    configuration: &ssh::Configuration,
    settings: &Settings,
) -> Result<()> {
    let events = settings.events.of_host(&host.name);
    let step = events.step("connect", "connect");
    let connection = step.end(open(host, configuration, settings).await)?;
    let mut step = events.step("copy", "copy");
    let result = match order {
        Order::There { from, to } => there(&connection, host, root, from, to, &step).await,
        Order::Here { from, to } => here(&connection, host, root, several, from, to, &step).await,
    };
    if result.is_ok() {
        step.changed(match order {
            Order::There { from, to } => format!("{} to {to}", from.display()),
            Order::Here { from, .. } => format!("{from} from {}", host.name),
        });
    }
    step.end(result)?;
    events.send(What::HostFinished { state: "copied".to_owned() });
    Ok(())
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(Kind::Usage, format!("cannot read {}", path.display()))
        .caused_by(error.to_string())
        .advise("name a file or folder that you may read")
}

fn unwritable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(Kind::Host, format!("cannot write {} on this machine", path.display()))
        .caused_by(error.to_string())
        .advise("check the folder and its free space")
}

/// The last part of a path, for use inside of a folder.
fn name_of(path: &Path) -> Option<String> {
    let whole = std::path::absolute(path).ok()?;
    whole.file_name().map(|name| name.to_string_lossy().into_owned())
}

async fn there(connection: &Connection, host: &Host, root: bool, from: &Path, to: &str, step: &Step) -> Result<()> {
    let name = name_of(from).unwrap_or_else(|| "root".to_owned());
    let metadata = std::fs::metadata(from).map_err(|error| unusable(from, &error))?;
    let privilege = privilege(host);
    let (upload, mut pieces, total) = if metadata.is_dir() {
        let upload = Upload::folder(connection, &privilege, root, (to, &name)).await?;
        (upload, read_folder(from.to_owned()), 0)
    } else {
        let (size, mode) = (metadata.len(), metadata.permissions().mode() & 0o777);
        let upload = Upload::file(connection, &privilege, root, (to, &name), (size, mode)).await?;
        (upload, read_file(from.to_owned(), size), size)
    };
    let mut sent = 0;
    let next = async || {
        let piece = pieces.recv().await?;
        sent += piece.as_ref().map_or(0, Bytes::len) as u64;
        step.progress(sent, total.max(sent), Unit::Bytes, None);
        Some(piece)
    };
    upload.send(next).await
}

/// Reads a file in a thread of its own, a few pieces ahead.
fn read_file(path: PathBuf, size: u64) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let read = || -> io::Result<()> {
            let mut file = File::open(&path)?.take(size);
            loop {
                let mut piece = vec![0; PIECE];
                let length = file.read(&mut piece)?;
                piece.truncate(length);
                if length == 0 || sender.blocking_send(Ok(Bytes::from(piece))).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            let _ = sender.blocking_send(Err(unusable(&path, &error)));
        }
    });
    receiver
}

/// Packs a folder in a thread of its own.
fn read_folder(path: PathBuf) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let pack = || -> io::Result<()> {
            let pieces = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
            let mut archive = tar::Builder::new(pieces);
            archive.follow_symlinks(false);
            archive.mode(tar::HeaderMode::Complete);
            archive.append_dir_all(".", &path)?;
            archive.into_inner()?.flush()
        };
        match pack() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = sender.blocking_send(Err(unusable(&path, &error)));
            }
            Ok(()) | Err(_) => {}
        }
    });
    receiver
}

struct Pieces(mpsc::Sender<Result<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where something goes on this machine. What it is called here never comes from a host.
fn destination(to: &Path, from: &str, host: &str, several: bool) -> PathBuf {
    let name = Path::new(from).file_name().map_or_else(|| host.to_owned(), |name| name.to_string_lossy().into_owned());
    match several {
        true => to.join(host).join(name),
        false if to.is_dir() => to.join(name),
        false => to.to_owned(),
    }
}

async fn here(
    connection: &Connection,
    host: &Host,
    root: bool,
    several: bool,
    from: &str,
    to: &Path,
    step: &Step,
) -> Result<()> {
    let path = destination(to, from, &host.name, several);
    let mut download = Download::start(connection, &privilege(host), root, from).await?;
    if let Some(folder) = path.parent().filter(|folder| several && !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    let kept = download.kept;
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let writing = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || match kept {
            Kept::File { size, mode } => write_file(&path, size, mode, receiver),
            Kept::Folder => write_folder(&path, receiver),
        })
    };
    let mut taken = 0;
    let total = if let Kept::File { size, .. } = kept { size } else { 0 };
    // A file ends with its size, a folder when the writer has seen the archive's end.
    let reading = async {
        while total > taken || kept == Kept::Folder {
            let piece = tokio::select! {
                piece = download.next() => piece?,
                // The archive has ended, or cannot be written: the host would wait to be asked for more.
                () = sender.closed() => break,
            };
            let Some(piece) = piece else { break };
            taken += piece.len() as u64;
            step.progress(taken, total.max(taken), Unit::Bytes, None);
            if sender.send(piece).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok(download)
    };
    let (read, written) = futures::join!(reading, writing);
    let written = written.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "writing a file ended early")));
    // What broke the connection is the better reason for a file that is cut.
    let download = read?;
    written?;
    download.finish().await
}

fn write_file(path: &Path, size: u64, mode: u32, mut pieces: mpsc::Receiver<Bytes>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: &io::Error| unwritable(path, error);
    let mut file =
        tempfile::Builder::new().prefix(".clusterctl-").tempfile_in(folder).map_err(|error| failed(&error))?;
    let mut left = size;
    while let Some(piece) = pieces.blocking_recv() {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        file.write_all(&piece[..wanted]).map_err(|error| failed(&error))?;
        left -= wanted as u64;
        if left == 0 {
            break;
        }
    }
    if left > 0 {
        return Err(Failure::new(Kind::Connection, "the file did not arrive whole").may_pass());
    }
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(|error| failed(&error))?;
    file.persist(path).map_err(|error| failed(&error.error))?;
    Ok(())
}

/// Pieces as a reader.
struct Arriving {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        Ok(length)
    }
}

/// Unpacks what a host sends, which nobody vouches for: nothing may leave the folder, and only files, folders and links
/// are made.
fn write_folder(path: &Path, pieces: mpsc::Receiver<Bytes>) -> Result<()> {
    let failed = |error: &io::Error| unwritable(path, error);
    std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
    let mut archive = tar::Archive::new(Headers::of(Arriving { pieces, rest: Bytes::new() }));
    archive.set_preserve_permissions(false);
    archive.set_unpack_xattrs(false);
    let mut names = 0;
    for entry in archive.entries().map_err(|error| failed(&error))? {
        let mut entry = entry.map_err(|error| failed(&error))?;
        names += 1;
        if names > MAXIMUM_NAMES {
            return Err(Failure::new(Kind::Host, format!("the folder has more than {MAXIMUM_NAMES} names")));
        }
        let kind = entry.header().entry_type();
        let known = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link() || kind.is_contiguous();
        if !known {
            continue;
        }
        entry.unpack_in(path).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use bytes::Bytes;
    use rstest::rstest;
    use tokio::sync::mpsc;

    use super::{destination, read_folder, write_file, write_folder};
    use crate::failure::Kind;

    #[rstest]
    #[case("out", "/etc/hosts", false, "out")]
    #[case("/", "/etc/hosts", false, "/hosts")]
    #[case("out", "/etc/hosts", true, "out/w1/hosts")]
    #[case("out", "/", true, "out/w1/w1")]
    #[case("out", "a/..", true, "out/w1/w1")]
    fn names_here_come_from_the_person(
        #[case] to: &str,
        #[case] from: &str,
        #[case] several: bool,
        #[case] expected: &str,
    ) {
        assert_eq!(destination(Path::new(to), from, "w1", several), PathBuf::from(expected));
    }

    fn pieces(bytes: &[u8]) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(1024);
        for piece in bytes.chunks(1000) {
            sender.try_send(Bytes::copy_from_slice(piece)).expect("room");
        }
        receiver
    }

    #[test]
    fn a_file_that_is_cut_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let failure = write_file(&path, 2000, 0o644, pieces(&[1; 1999])).expect_err("cut");
        assert_eq!(failure.kind, Kind::Connection);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        write_file(&path, 2000, 0o640, pieces(&[1; 2000])).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [1; 2000]);
    }

    #[tokio::test]
    async fn a_folder_comes_out_as_it_went_in() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("a")).unwrap();
        std::fs::write(from.path().join("a/file"), "content").unwrap();
        std::os::unix::fs::symlink("file", from.path().join("a/link")).unwrap();
        let mut packed = read_folder(from.path().to_owned());
        let mut bytes = Vec::new();
        while let Some(piece) = packed.recv().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let path = to.path().join("new");
        let there = path.clone();
        tokio::task::spawn_blocking(move || write_folder(&there, pieces(&bytes))).await.unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(path.join("a/link")).unwrap(), "content");
    }

    #[test]
    fn a_hostile_archive_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &[u8], kind: tar::EntryType, link: Option<&str>, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o4755);
            header.set_size(content.len() as u64);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name);
            if let Some(link) = link {
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            archive.append(&header, content).unwrap();
        };
        add(b"../escaped", tar::EntryType::Regular, None, b"x");
        add(b"out", tar::EntryType::Symlink, Some(".."), b"");
        add(b"null", tar::EntryType::Char, None, b"");
        add(b"good", tar::EntryType::Regular, None, b"x");
        add(b"out/through", tar::EntryType::Regular, None, b"x");
        let bytes = archive.into_inner().unwrap();
        write_folder(&path, pieces(&bytes)).expect_err("it leads through a link");
        // A name as long as a disk would be kept in memory.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(100 << 30);
        header.set_cksum();
        let endless = [header.as_bytes().as_slice(), &[b'x'; 100_000]].concat();
        let failure = write_folder(&path, pieces(&endless)).expect_err("its name is too long");
        assert!(failure.causes.iter().any(|cause| cause.contains("longer than")), "{failure:?}");
        assert!(path.join("good").is_file() && !path.join("null").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
