//! `fetch: on-host`: the host downloads the official releases itself and lays them into the store, as if they had been sent.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DIRECTORY;
use super::store::{Store, is_stale};
use crate::bundle::download::{self, CNI_PLUGINS, CONTAINERD, Credentials, Order, RUNC, Sources};
use crate::bundle::{self, Blob, Manifest};
use crate::event::{Events, Unit};
use crate::failure::{Failure, Kind, Result};
use crate::host::machine::Machine;
use crate::host::{self, Host};
use crate::https::Proxies;
use crate::message::Wanted;

/// zstd's fastest usual level: the stream goes nowhere but to this host's own disk.
const COMPRESSION_LEVEL: i32 = 1;

/// What the host is to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchOrder {
    /// Kubernetes' version.
    pub kubernetes: semver::Version,
    /// Go's name of the host's architecture.
    pub architecture: String,
    /// References of the images.
    pub images: Vec<String>,
    /// Whether it becomes a control plane, and gets kubectl.
    pub control_plane: bool,
    /// Where from.
    pub sources: Sources,
}

impl FetchOrder {
    /// As an order to download, without a folder for what is downloaded.
    pub fn downloads(&self, credentials: Credentials) -> Order {
        Order {
            kubernetes: self.kubernetes.clone(),
            architecture: self.architecture.clone(),
            images: self.images.clone(),
            kubectl: self.control_plane,
            containerd: CONTAINERD,
            runc: RUNC,
            cni_plugins: CNI_PLUGINS,
            sources: self.sources.clone(),
            credentials,
            proxies: Proxies::default(),
            cache: PathBuf::new(),
        }
    }
}

/// The host's own proxies: those of this program's environment, else those of /etc/environment, which whoever becomes root
/// by sudo may not have got.
fn proxies(host: &dyn Host, are_in_the_environment: bool) -> Result<Proxies> {
    if are_in_the_environment {
        return Ok(Proxies::default());
    }
    let text = host.read(Path::new("/etc/environment"))?.unwrap_or_default();
    Ok(Proxies::of(&String::from_utf8_lossy(&text)))
}

/// Where the host keeps what it downloads until all of it is there.
pub fn downloads() -> PathBuf {
    Path::new(DIRECTORY).join("downloads")
}

/// Whether a run that broke off has left downloads to go on with; what is old is removed.
pub fn has_begun(folder: &Path) -> bool {
    let mut begun = false;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && is_stale(&metadata) {
            let _ = std::fs::remove_file(entry.path());
        } else {
            begun |= metadata.is_file();
        }
    }
    begun
}

/// Everything that this host cannot download, and why.
///
/// # Errors
/// Kind `Bundle` when the credentials on the host cannot be read.
pub async fn unavailable(order: &FetchOrder) -> Result<Vec<Failure>> {
    let order = Order {
        proxies: proxies(&Machine, Proxies::are_in_the_environment())?,
        ..order.downloads(Credentials::of_this_user()?)
    };
    download::unavailable(&order).await
}

/// Downloads what the host lacks, and answers with what it has then: in the store, or in its place from a former run.
///
/// # Errors
/// Kind `Bundle` when something cannot be had, kind `Host` when it cannot be kept.
pub async fn fetch(host: &dyn Host, store: &Store, order: &FetchOrder, events: &Events) -> Result<Manifest> {
    if let Some(manifest) = fetched(host, store, order).await? {
        return Ok(manifest);
    }
    let step = events.step("fetch", "download releases");
    step.end(fetch_anew(host, store, order, events).await)
}

/// What a former run downloaded, if it is what is wanted now and all of it is still there.
///
/// # Errors
/// Kind `Host` when the host cannot be looked at.
pub async fn fetched(host: &dyn Host, store: &Store, order: &FetchOrder) -> Result<Option<Manifest>> {
    let Some(manifest) = recorded(host, order)? else { return Ok(None) };
    let there = is_there(host, store, &manifest.blobs).await?;
    Ok(Some(manifest).filter(|_| there))
}

fn record() -> PathBuf {
    Path::new(DIRECTORY).join("fetched.json")
}

async fn fetch_anew(host: &dyn Host, store: &Store, order: &FetchOrder, events: &Events) -> Result<Manifest> {
    let folder = downloads();
    let layout = folder.join("layout");
    host.remove_tree(&layout)?;
    host.create_directory(&layout, 0o700)?;
    host.create_directory(store.folder(), 0o700)?;
    let downloads = order.downloads(Credentials::of_this_user()?);
    let proxies = proxies(host, Proxies::are_in_the_environment())?;
    let wanted = Order { cache: folder.clone(), proxies, ..downloads };
    let told = events.clone();
    let progress = move |done, total, name: &str| {
        let item = Some(name.to_owned()).filter(|name| !name.is_empty());
        told.send(crate::event::What::StepProgressed { step: "fetch".into(), done, total, unit: Unit::Items, item });
    };
    download::download(&wanted, &layout, &progress).await?;
    let laying = bundle::Order {
        from: layout,
        kubernetes: order.kubernetes.clone(),
        architecture: Some(order.architecture.clone()),
        output: store.folder().to_owned(),
        level: COMPRESSION_LEVEL,
    };
    let working = tokio::task::spawn_blocking(move || bundle::stage(&laying));
    let manifest = working
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the work on what was downloaded ended early")))?;
    let text = serde_json::to_vec(&manifest)
        .map_err(|error| Failure::new(Kind::Internal, "cannot write the manifest").because(&error))?;
    host.write(&record(), &text, 0o600)?;
    // It lies in the store now.
    host.remove_tree(&folder)?;
    Ok(manifest)
}

/// What a former run downloaded, if it is what is wanted now.
fn recorded(host: &dyn Host, order: &FetchOrder) -> Result<Option<Manifest>> {
    let Some(text) = host.read(&record())? else { return Ok(None) };
    // What cannot be read is downloaded again.
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(None) };
    let has_images = order.images.iter().all(|image| manifest.references().any(|reference| reference == image));
    Ok(Some(manifest).filter(|manifest| {
        manifest.kubernetes == order.kubernetes && manifest.has_architecture(&order.architecture) && has_images
    }))
}

/// Whether every blob is in its place or in the store.
async fn is_there(host: &dyn Host, store: &Store, blobs: &[Blob]) -> Result<bool> {
    let wanted: Vec<Wanted> = blobs
        .iter()
        .map(|blob| Wanted { sha256: blob.sha256.clone(), size: blob.size, place: blob.place.clone() })
        .collect();
    let lacking = host::blobs::lacking(host, &wanted).await?;
    let there = store.there();
    Ok(blobs
        .iter()
        .filter(|blob| lacking.contains(&blob.sha256))
        .all(|blob| there.get(&blob.stored_sha256) == Some(&blob.stored_size)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::{has_begun, proxies};
    use crate::host::fake::FakeHost;
    use crate::https::Proxies;

    #[test]
    fn downloads_of_a_run_that_was_killed_are_gone_on_with_until_they_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = folder.path().join("downloads");
        assert!(!has_begun(&downloads));
        std::fs::create_dir_all(downloads.join("layout")).unwrap();
        assert!(!has_begun(&downloads));
        let part = downloads.join(format!("{}.part", "ab".repeat(32)));
        File::create(&part).unwrap();
        assert!(has_begun(&downloads));
        let old = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
        File::options().append(true).open(&part).unwrap().set_modified(old).unwrap();
        assert!(!has_begun(&downloads) && !part.exists());
    }

    #[test]
    fn the_hosts_own_proxy_settings_are_those_of_all_its_users() {
        let host = FakeHost::new().file("/etc/environment", "PATH=\"/bin\"\nHTTPS_PROXY=http://p:3128\n");
        assert_eq!(proxies(&host, false).unwrap(), Proxies::of("https_proxy=http://p:3128"));
        assert_eq!(proxies(&host, true).unwrap(), Proxies::default());
        assert_eq!(proxies(&FakeHost::new(), false).unwrap(), Proxies::default());
    }
}
