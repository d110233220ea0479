//! Makes a bundle out of a folder of binaries and image archives.
//!
//! The folder's layout is its meaning: `bin/NAME` goes to /usr/local/bin/NAME, `cni/NAME` to /opt/cni/bin/NAME, and each
//! `images/*.tar` is an image archive (as `docker save` or `ctr images export` write it) that is imported.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::digest::{Digest, Hashing, HashingWriter};
use super::image::references;
use super::{Blob, FORMAT, Manifest};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Role;
use crate::message::Place;

const BOTH: &[Role] = &[Role::ControlPlane, Role::Worker];
const CONTROL_PLANE: &[Role] = &[Role::ControlPlane];

/// The order in which hosts should receive what is in the folder: the runtime first, so that it runs when the images
/// arrive; unnamed things come last.
const ORDER: &[&str] = &[
    "bin/runc",
    "bin/containerd",
    "bin/containerd-shim-runc-v2",
    "bin/ctr",
    "cni/",
    "bin/kubelet",
    "images/pause",
    "images/etcd",
    "images/control-plane",
    "images/kube-apiserver",
    "images/kube-controller-manager",
    "images/kube-scheduler",
    "images/kube-proxy",
    "images/coredns",
    "bin/kubectl",
];

/// Images that only control planes run, by the last part of their repository. Others have an etcd of their own, too: see
/// [`is_control_plane_image`].
const CONTROL_PLANE_IMAGES: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Programs that only control planes need.
const CONTROL_PLANE_PROGRAMS: &[&str] = &["bin/kubectl"];

/// What `create` is asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The folder to read.
    pub from: PathBuf,
    /// Kubernetes version without `v`.
    pub kubernetes: semver::Version,
    /// Go's name of the architecture; taken from the kubelet's ELF header when absent.
    pub architecture: Option<String>,
    /// The bundle to write; replaced atomically.
    pub output: PathBuf,
    /// zstd level, 1 to 19.
    pub level: i32,
}

/// Makes the bundle and returns its manifest. `progress` is told (blobs done, blobs in all, name).
///
/// # Errors
/// Kind `Bundle`: the folder lacks what a cluster of this version needs, holds binaries of another architecture, or a
/// file cannot be read or written.
pub fn create(order: &Order, progress: &(dyn Fn(u64, u64, &str) + Sync)) -> Result<Manifest> {
    create_of_all(std::slice::from_ref(order), progress)
}

/// As [`create`], of several folders that differ in their architecture, for clusters that do. The bundle is written where
/// the first order says, of its version.
///
/// # Errors
/// As [`create`], for each of them; two of one architecture.
pub fn create_of_all(orders: &[Order], progress: &(dyn Fn(u64, u64, &str) + Sync)) -> Result<Manifest> {
    let first = orders.first().ok_or_else(|| Failure::new(Kind::Internal, "a bundle of nothing is to be made"))?;
    let parent = first.output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new()
        .prefix(".clusterctl-bundle-")
        .tempdir_in(parent)
        .map_err(|error| broken(parent, "cannot write to", &error))?;
    let mut manifest = Manifest::empty(&first.kubernetes);
    for order in orders {
        let sources = sources(order)?;
        let architecture = architecture(order, &sources)?;
        if manifest.has_architecture(&architecture) {
            return Err(Failure::new(Kind::Bundle, format!("there are two folders for {architecture}")));
        }
        let blobs = compress_all(&sources, &architecture, scratch.path(), order.level, progress)?;
        let of_one = Manifest { format: FORMAT, kubernetes: order.kubernetes.clone(), blobs };
        of_one.complete()?;
        manifest.blobs.extend(of_one.blobs);
    }
    write_archive(&manifest, scratch.path(), &first.output)?;
    Ok(manifest)
}

/// As [`create`], but the blobs' streams are laid into the folder `output`, as `<sha256 of the stream>.zst`.
///
/// # Errors
/// As [`create`].
pub fn stage(order: &Order) -> Result<Manifest> {
    let sources = sources(order)?;
    let architecture = architecture(order, &sources)?;
    let blobs = compress_all(&sources, &architecture, &order.output, order.level, &|_, _, _| ())?;
    for blob in &blobs {
        let (from, to) = (order.output.join(&blob.sha256), order.output.join(format!("{}.zst", blob.stored_sha256)));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            // Two blobs of one content.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.exists() => {}
            Err(error) => return Err(broken(&to, "cannot write", &error)),
        }
    }
    Ok(Manifest { format: FORMAT, kubernetes: order.kubernetes.clone(), blobs })
}

/// A file of the folder on its way to becoming a blob.
#[derive(Debug)]
struct Source {
    name: String,
    path: PathBuf,
    place: Place,
    roles: &'static [Role],
}

fn broken(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Kind::Bundle, format!("{what} {}", path.display())).because(error)
}

/// The order of sending.
pub(super) fn in_order(left: &str, right: &str) -> std::cmp::Ordering {
    (rank(left), left).cmp(&(rank(right), right))
}

fn rank(name: &str) -> usize {
    ORDER.iter().position(|prefix| name.starts_with(prefix)).unwrap_or(ORDER.len())
}

/// A program's blob by its name, `bin/kubelet`: where it goes and who needs it. `target` is the folder on the host.
pub(super) fn program(target: &str, key: &str) -> (Place, &'static [Role]) {
    let name = key.rsplit('/').next().unwrap_or(key);
    let roles = if CONTROL_PLANE_PROGRAMS.contains(&key) { CONTROL_PLANE } else { BOTH };
    (Place::File { path: format!("{target}/{name}"), mode: 0o755 }, roles)
}

/// Who needs an archive of these images, among all images there are.
pub(super) fn roles_of_images(references: &[String], all: &[String]) -> &'static [Role] {
    match references.iter().all(|reference| is_control_plane_image(reference, all)) {
        true => CONTROL_PLANE,
        false => BOTH,
    }
}

/// The folders of programs, and where what is in them goes on a host.
pub(super) const PROGRAMS: [(&str, &str); 2] = [("bin", "/usr/local/bin"), ("cni", "/opt/cni/bin")];

/// Finds what is in the folder, in the order of sending.
fn sources(order: &Order) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for (folder, target) in PROGRAMS {
        for (name, path) in files(&order.from.join(folder))? {
            let name = format!("{folder}/{name}");
            let (place, roles) = program(target, &name);
            found.push(Source { name, path, place, roles });
        }
    }
    let mut archives = Vec::new();
    for (name, path) in files(&order.from.join("images"))? {
        let Some(stem) = name.strip_suffix(".tar") else { continue };
        archives.push((stem.to_owned(), references(&path)?, path));
    }
    let all: Vec<String> = archives.iter().flat_map(|(_, references, _)| references.clone()).collect();
    for (stem, references, path) in archives {
        let roles = roles_of_images(&references, &all);
        found.push(Source { name: format!("images/{stem}"), path, place: Place::Images { references }, roles });
    }
    if found.is_empty() {
        return Err(Failure::new(Kind::Bundle, format!("{} holds no bin, cni or images folder", order.from.display()))
            .advise("name the folder with the binaries (bin/, cni/) and image archives (images/*.tar)"));
    }
    found.sort_by(|left, right| in_order(&left.name, &right.name));
    Ok(found)
}

/// Whether only control planes run an image. An etcd is Kubernetes' own where its API server lies beside it in the
/// registry; any other one may be a workload's.
fn is_control_plane_image(reference: &str, all: &[String]) -> bool {
    let repository = |reference: &'_ str| reference.rsplit_once(':').map_or(reference, |(name, _)| name).to_owned();
    let own = repository(reference);
    let (folder, last) = own.rsplit_once('/').unwrap_or(("", own.as_str()));
    let beside = format!("{folder}/kube-apiserver");
    CONTROL_PLANE_IMAGES.contains(&last) || (last == "etcd" && all.iter().any(|other| repository(other) == beside))
}

fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(broken(folder, "cannot read", &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| broken(folder, "cannot read", &error))?.path();
        if path.is_file()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            found.push((name.to_owned(), path.clone()));
        }
    }
    Ok(found)
}

/// Go's name of the machine in an ELF header, or `None` for what is no ELF file.
fn elf_architecture(header: &[u8]) -> Option<&'static str> {
    if header.len() < 20 || header[..4] != *b"\x7fELF" {
        return None;
    }
    match u16::from_le_bytes([header[18], header[19]]) {
        62 => Some("amd64"),
        183 => Some("arm64"),
        _ => Some("unsupported"),
    }
}

/// The architecture of all programs in the folder, which must be one and the one asked for.
fn architecture(order: &Order, sources: &[Source]) -> Result<String> {
    let mut decided = order.architecture.clone();
    for source in sources.iter().filter(|source| matches!(source.place, Place::File { .. })) {
        let mut header = [0_u8; 20];
        let read = File::open(&source.path).and_then(|mut file| file.read(&mut header));
        read.map_err(|error| broken(&source.path, "cannot read", &error))?;
        let Some(found) = elf_architecture(&header) else { continue };
        match &decided {
            Some(wanted) if wanted != found => {
                return Err(Failure::new(
                    Kind::Bundle,
                    format!("{} is a program for {found}, the bundle is for {wanted}", source.path.display()),
                )
                .advise("make one bundle for each architecture"));
            }
            Some(_) => {}
            None => decided = Some(found.to_owned()),
        }
    }
    decided.ok_or_else(|| {
        Failure::new(Kind::Bundle, "no program in the folder tells the architecture").advise("name it with --arch")
    })
}

fn compress_all(
    sources: &[Source],
    architecture: &str,
    scratch: &Path,
    level: i32,
    progress: &(dyn Fn(u64, u64, &str) + Sync),
) -> Result<Vec<Blob>> {
    let results: Mutex<Vec<Option<Result<Blob>>>> = Mutex::new(sources.iter().map(|_| None).collect());
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(sources.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(source) = sources.get(index) else { return };
                    let result = compress(source, architecture, scratch, level);
                    let finished = done.fetch_add(1, Ordering::Relaxed) + 1;
                    progress(finished as u64, sources.len() as u64, &source.name);
                    if let Ok(mut results) = results.lock() {
                        results[index] = Some(result);
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.into_iter().flatten().collect()
}

fn compress(source: &Source, architecture: &str, scratch: &Path, level: i32) -> Result<Blob> {
    let read = |error: std::io::Error| broken(&source.path, "cannot read", &error);
    let input = File::open(&source.path).map_err(read)?;
    let temporary =
        tempfile::NamedTempFile::new_in(scratch).map_err(|error| broken(scratch, "cannot write to", &error))?;
    let mut reader = Hashing::new(BufReader::with_capacity(1 << 20, input));
    let writer = HashingWriter::new(BufWriter::with_capacity(1 << 20, temporary.as_file()));
    let mut encoder =
        zstd::Encoder::new(writer, level).map_err(|error| broken(scratch, "cannot compress into", &error))?;
    std::io::copy(&mut reader, &mut encoder).map_err(read)?;
    let mut writer = encoder.finish().map_err(|error| broken(scratch, "cannot write to", &error))?;
    writer.flush().map_err(|error| broken(scratch, "cannot write to", &error))?;
    let Digest { sha256: stored_sha256, size: stored_size } = writer.finish();
    let Digest { sha256, size } = reader.finish();
    temporary.persist(scratch.join(&sha256)).map_err(|error| broken(scratch, "cannot write to", &error.error))?;
    Ok(Blob {
        name: source.name.clone(),
        sha256,
        size,
        stored_sha256,
        stored_size,
        architecture: architecture.to_owned(),
        roles: source.roles.to_vec(),
        place: source.place.clone(),
    })
}

fn write_archive(manifest: &Manifest, scratch: &Path, output: &Path) -> Result<()> {
    let failed = |error: std::io::Error| broken(output, "cannot write", &error);
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    {
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, temporary.as_file_mut()));
        let text = serde_json::to_vec_pretty(manifest)
            .map_err(|error| Failure::new(Kind::Internal, "cannot write the manifest").because(&error))?;
        append(&mut archive, "manifest.json", text.len() as u64, text.as_slice()).map_err(failed)?;
        let mut written = std::collections::HashSet::new();
        for blob in manifest.blobs.iter().filter(|blob| written.insert(blob.sha256.as_str())) {
            let file = File::open(scratch.join(&blob.sha256)).map_err(failed)?;
            append(&mut archive, &super::member(&blob.sha256), blob.stored_size, file).map_err(failed)?;
        }
        archive.into_inner().and_then(|mut writer| writer.flush()).map_err(failed)?;
    }
    temporary.as_file_mut().seek(SeekFrom::Start(0)).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    let file = temporary.persist(output).map_err(|error| failed(error.error))?;
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

#[cfg(test)]
mod tests {
    use super::{elf_architecture, is_control_plane_image, rank};

    #[test]
    fn images_know_their_role() {
        let all = ["registry.k8s.io:443/kube-apiserver:v1.36.3".to_owned(), "quay.io/app/etcd:3.5".to_owned()];
        assert!(is_control_plane_image("registry.k8s.io/kube-apiserver:v1.36.3", &all));
        assert!(is_control_plane_image("registry.k8s.io:443/etcd:3.6.8-0", &all));
        assert!(!is_control_plane_image("quay.io/app/etcd:3.5", &all));
        assert!(!is_control_plane_image("registry.k8s.io/kube-proxy:v1.36.3", &all));
        assert!(!is_control_plane_image("registry.k8s.io/coredns/coredns:v1.14.2", &all));
    }

    #[test]
    fn the_runtime_goes_before_what_runs_in_it() {
        assert!(rank("bin/runc") < rank("cni/bridge"));
        assert!(rank("bin/ctr") < rank("images/pause"));
        assert!(rank("images/coredns") < rank("bin/something-else"));
    }

    #[test]
    fn elf_headers_tell_the_architecture() {
        let mut header = [0_u8; 20];
        header[..4].copy_from_slice(b"\x7fELF");
        header[18] = 183;
        assert_eq!(elf_architecture(&header), Some("arm64"));
        header[18] = 62;
        assert_eq!(elf_architecture(&header), Some("amd64"));
        assert_eq!(elf_architecture(b"#!/bin/sh"), None);
    }
}
