//! Official releases, downloaded: Kubernetes' programs with their published checksums, images from a registry by digest,
//! containerd, runc and the CNI plugins likewise. What was downloaded is kept in a cache under its sha256, and a broken
//! download goes on where it stopped.

mod archive;
mod cache;
mod credentials;
mod foresee;
mod registry;
mod releases;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};

use self::cache::{Cache, Origin};
pub use self::credentials::Credentials;
pub use self::foresee::{foresee, unavailable};
use self::registry::{Manifest, Reference, Registry};
pub use self::releases::{CNI_PLUGINS, CONTAINERD, RUNC, Sources};
use self::releases::{Form, Release};
use super::digest::sha256;
use crate::failure::{Failure, Kind, Result};
use crate::https::{Downloads, Proxies, shown};

/// So many downloads run side by side.
const SIDE_BY_SIDE: usize = 4;

/// The configuration of an image may be this large, in bytes.
const MAXIMUM_CONFIGURATION_BYTES: u64 = 4 << 20;

/// A file of checksums is a few lines.
const MAXIMUM_CHECKSUMS_BYTES: usize = 1 << 20;

/// What is to be downloaded.
#[derive(Debug, Clone)]
pub struct Order {
    /// Kubernetes' version.
    pub kubernetes: semver::Version,
    /// Go's name of the architecture.
    pub architecture: String,
    /// References of the images.
    pub images: Vec<String>,
    /// Whether kubectl is wanted.
    pub kubectl: bool,
    /// containerd's version.
    pub containerd: semver::Version,
    /// runc's version.
    pub runc: semver::Version,
    /// The version of the CNI plugins.
    pub cni_plugins: semver::Version,
    /// Where releases and images come from.
    pub sources: Sources,
    /// What to log in to registries with.
    pub credentials: Credentials,
    /// The machine's proxies, where they are not in the environment.
    pub proxies: Proxies,
    /// The folder where downloads are kept.
    pub cache: PathBuf,
}

/// Downloads what is not in the cache and lays it out in `folder` as [`super::create`] wants it. `progress` is told (things
/// done, things in all, name); returns the digest of each image's manifest by its reference.
///
/// # Errors
/// Kind `Bundle`: a server cannot be reached or does not have it, or what comes is not what the checksum says. The sentence
/// names the address.
pub async fn download(
    order: &Order,
    folder: &Path,
    progress: &(dyn Fn(u64, u64, &str) + Sync),
) -> Result<BTreeMap<String, String>> {
    let downloads = Downloads::through(&order.proxies)?;
    let cache = Cache::open(&order.cache)?;
    for part in ["bin", "cni", "images"] {
        let path = folder.join(part);
        std::fs::create_dir_all(&path).map_err(|error| unwritable(&path, &error))?;
    }
    let releases = releases::releases(order);
    let total = (releases.len() + order.images.len()) as u64;
    let done = std::sync::atomic::AtomicU64::new(0);
    let tell = |name: &str| progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total, name);
    progress(0, total, "");
    let files = releases.iter().map(|release| {
        let (downloads, cache, tell) = (&downloads, &cache, &tell);
        async move {
            self::release(downloads, cache, release, folder).await?;
            tell(&release.name);
            Ok::<_, Failure>(None)
        }
    });
    let images = order.images.iter().map(|reference| {
        let (downloads, cache, tell) = (&downloads, &cache, &tell);
        async move {
            let image = image(downloads, cache, order, reference).await?;
            tell(reference);
            Ok(Some(image))
        }
    });
    let work = files.map(futures::future::Either::Left).chain(images.map(futures::future::Either::Right));
    let images: Vec<Option<Image>> = futures::stream::iter(work).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    let images: Vec<Image> = images.into_iter().flatten().collect();
    let digests =
        images.iter().map(|image| (image.reference.clone(), format!("sha256:{}", sha256(&image.manifest.text))));
    let digests = digests.collect();
    let folder = folder.join("images");
    in_thread(move || lay_out(images, &folder)).await?;
    Ok(digests)
}

/// Images that go into one archive: they are sent to the same hosts, and share layers.
const TOGETHER: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The name of the archive that an image goes into.
fn archive_of(reference: &str) -> &str {
    let repository = reference.rsplit_once(':').map_or(reference, |(repository, _)| repository);
    let name = repository.rsplit('/').next().unwrap_or(repository);
    if TOGETHER.contains(&name) { "control-plane" } else { name }
}

/// The archives of images: those of the control plane in one, the others one each.
fn lay_out(images: Vec<Image>, folder: &Path) -> Result<()> {
    let mut archives: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for image in images {
        archives.entry(archive_of(&image.reference).to_owned()).or_default().push(image);
    }
    archives.iter_mut().try_for_each(|(name, images)| {
        // The same downloads make the same archive.
        images.sort_by(|one, other| one.reference.cmp(&other.reference));
        archive::layout(&folder.join(format!("{name}.tar")), images)
    })
}

/// An image that was downloaded.
struct Image {
    reference: String,
    manifest: Manifest,
    /// Its blobs by their sha256, and where they are.
    blobs: Vec<(String, PathBuf)>,
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Kind::Bundle, format!("cannot write {}", path.display())).because(error)
}

/// A release: its checksum, its bytes, its files.
async fn release(downloads: &Downloads, cache: &Cache, release: &Release, folder: &Path) -> Result<()> {
    let origin = Origin::Server(downloads);
    let checksums = cache::text(&origin, &release.checksums, None, MAXIMUM_CHECKSUMS_BYTES).await?;
    let file = release.url.rsplit('/').next().unwrap_or_default();
    let sha256 = releases::checksum(&String::from_utf8_lossy(&checksums), file).ok_or_else(|| {
        Failure::new(Kind::Bundle, format!("{} has no checksum of {file}", shown(&release.checksums)))
            .advise("check the version, and that the mirror is one of the official releases")
    })?;
    let path = cache.file(&origin, &release.url, &sha256, None).await?;
    let form = release.form.clone();
    let folder = folder.to_owned();
    let url = shown(&release.url);
    in_thread(move || match form {
        Form::Program { name } => {
            let target = folder.join("bin").join(name);
            std::fs::copy(&path, &target).map(|_| ()).map_err(|error| unwritable(&target, &error))
        }
        Form::Archive { into, files } => archive::unpack(&path, &folder.join(into), files, &url),
    })
    .await
}

/// An image: manifest, configuration and layers by their digests.
async fn image(downloads: &Downloads, cache: &Cache, order: &Order, reference: &str) -> Result<Image> {
    let parsed = Reference::parse(reference)?;
    let base = order.sources.registry(&parsed.registry);
    let credential = order.credentials.of(&parsed.registry, &base).await?;
    let registry = Registry::new(downloads, base, &parsed.repository, credential);
    let manifest = registry.manifest(&parsed.version, &order.architecture).await?;
    let origin = Origin::Registry(&registry);
    let mut blobs: Vec<(String, PathBuf)> = Vec::new();
    for blob in manifest.blobs()? {
        let url = registry.blob_url(&blob.sha256);
        let path = cache.file(&origin, &url, &blob.sha256, Some(blob.size)).await?;
        // The configuration comes before the layers, which need not be downloaded for nothing.
        if blobs.is_empty() && !manifest.indexed {
            let mut configuration = Vec::new();
            std::fs::File::open(&path)
                .and_then(|file| file.take(MAXIMUM_CONFIGURATION_BYTES).read_to_end(&mut configuration))
                .map_err(|error| unwritable(&path, &error))?;
            registry::check_platform(&configuration, reference, &order.architecture)?;
        }
        blobs.push((blob.sha256, path));
    }
    Ok(Image { reference: reference.to_owned(), manifest, blobs })
}

async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let working = tokio::task::spawn_blocking(work);
    working.await.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the work on a download ended early")))
}
