//! `clusterctl bundle`: the files of one Kubernetes version in one file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum, ValueHint};

use super::up::{Login, bundle_path};
use super::{Context, login};
use crate::bundle::{Bundle, Manifest, Order, download};
use crate::cluster;
use crate::event::{Events, Unit};
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::ClusterConfiguration;
use crate::kubernetes::version::images;
use crate::message::Place;
use crate::ui;

/// Arguments of `bundle`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with a bundle.
    #[command(subcommand)]
    pub verb: BundleVerb,
}

/// What can be done with a bundle.
#[derive(Debug, Clone, Subcommand)]
pub enum BundleVerb {
    /// Make a bundle of the official releases, or of a folder of binaries and image archives
    Create(Box<Create>),
    /// List what a bundle holds
    Inspect {
        /// The bundle
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Read a whole bundle and compare every checksum
    Verify {
        /// The bundle
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Bring a bundle's blobs to the hosts ahead of `up`, which then sends nothing
    Push(Push),
}

/// Arguments of `bundle push`.
#[derive(Debug, Clone, clap::Args)]
pub struct Push {
    /// The bundle; instead of the one the inventory names
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Arguments of `bundle create`.
#[derive(Debug, Clone, clap::Args)]
pub struct Create {
    /// A folder with the binaries and image archives; without it the official releases are downloaded
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,
    /// The Kubernetes version: 1.36.3
    #[arg(long, value_name = "VERSION", value_parser = kubernetes_version)]
    pub kubernetes: semver::Version,
    /// The architecture of the hosts; given several times, the bundle is for hosts of each [default: that of this machine]
    #[arg(long = "arch", value_enum, value_name = "NAME")]
    pub architectures: Vec<Architecture>,
    /// The bundle to write
    #[arg(short = 'o', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Where releases are downloaded from.
    #[command(flatten)]
    pub downloads: DownloadOptions,
}

/// Where releases are downloaded from, and which.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options for downloads")]
pub struct DownloadOptions {
    /// Take releases from here instead of the official server: kubernetes, containerd, runc, cni or a registry such as
    /// registry.k8s.io; may be given several times
    #[arg(long = "mirror", value_name = "NAME=URL", conflicts_with = "from")]
    pub mirrors: Vec<String>,
    /// containerd's version
    #[arg(long, value_name = "VERSION", default_value_t = download::CONTAINERD, value_parser = kubernetes_version)]
    pub containerd: semver::Version,
    /// runc's version
    #[arg(long, value_name = "VERSION", default_value_t = download::RUNC, value_parser = kubernetes_version)]
    pub runc: semver::Version,
    /// The version of the CNI plugins
    #[arg(long, value_name = "VERSION", default_value_t = download::CNI_PLUGINS, value_parser = kubernetes_version)]
    pub cni_plugins: semver::Version,
    /// One more image, for example of your own workload; may be given several times
    #[arg(long = "image", value_name = "REFERENCE", conflicts_with = "from")]
    pub images: Vec<String>,
    /// Where downloads are kept [default: clusterctl/downloads in your cache folder]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub cache: Option<PathBuf>,
}

/// An architecture by Go's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Architecture {
    /// x86_64
    Amd64,
    /// aarch64
    Arm64,
}

impl Architecture {
    /// Go's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }

    /// The architecture of the machine we run on.
    pub fn of_this_machine() -> Self {
        if std::env::consts::ARCH == "aarch64" { Architecture::Arm64 } else { Architecture::Amd64 }
    }
}

/// A version with or without `v`.
fn kubernetes_version(text: &str) -> Result<semver::Version, String> {
    semver::Version::parse(text.strip_prefix('v').unwrap_or(text))
        .map_err(|error| format!("{error}; a version looks like 1.36.3"))
}

/// Does what was asked with a bundle.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        BundleVerb::Create(create) => make(create, context).await,
        BundleVerb::Inspect { file } => inspect(file, context),
        BundleVerb::Verify { file } => verify(file, context).await,
        BundleVerb::Push(arguments) => push(arguments, context).await,
    }
}

async fn make(create: &Create, context: &Context) -> Result<ExitCode> {
    let mut architectures = create.architectures.clone();
    if architectures.is_empty() {
        architectures.push(Architecture::of_this_machine());
    }
    architectures.sort();
    architectures.dedup();
    let order = |from: &Path, architecture: Architecture| Order {
        from: from.to_owned(),
        kubernetes: create.kubernetes.clone(),
        architecture: Some(architecture.name().to_owned()),
        output: create.file.clone(),
        level: COMPRESSION_LEVEL,
    };
    // They go when the bundle is written; what was downloaded stays in the cache.
    let mut downloaded = Vec::new();
    let mut orders = Vec::new();
    match (&create.from, architectures.as_slice()) {
        (Some(from), [one]) => orders.push(order(from, *one)),
        (Some(_), _) => {
            return Err(Failure::new(Kind::Usage, "a folder is of one architecture, and --arch names several")
                .advise("name one, or leave --from out and have the releases downloaded"));
        }
        (None, all) => {
            for architecture in all {
                let folder = fetch(create, *architecture, context).await?;
                orders.push(order(folder.path(), *architecture));
                downloaded.push(folder);
            }
        }
    }
    let manifest = with_progress(context, "create", "create bundle", move |progress| {
        crate::bundle::create_of_all(&orders, progress)
    })
    .await?;
    drop(downloaded);
    context.screen.say(&format!(
        "{} holds Kubernetes {}: {}",
        create.file.display(),
        manifest.kubernetes,
        contents(&manifest)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Downloads the releases into a folder.
async fn fetch(create: &Create, architecture: Architecture, context: &Context) -> Result<tempfile::TempDir> {
    let options = &create.downloads;
    let mut sources = download::Sources::default();
    for text in &options.mirrors {
        sources.mirror(text).map_err(|reason| Failure::new(Kind::Usage, format!("--mirror {text} {reason}")))?;
    }
    for warning in sources.warnings() {
        context.screen.warn(&warning);
    }
    let cluster = ClusterConfiguration {
        kubernetes_version: format!("v{}", create.kubernetes),
        ..ClusterConfiguration::default()
    };
    let of_kubernetes = images(&cluster)?;
    let wanted = of_kubernetes.wanted(&cluster, true).into_iter().map(str::to_owned);
    let order = download::Order {
        kubernetes: create.kubernetes.clone(),
        architecture: architecture.name().to_owned(),
        images: wanted.chain(options.images.iter().cloned()).collect(),
        kubectl: true,
        containerd: options.containerd.clone(),
        runc: options.runc.clone(),
        cni_plugins: options.cni_plugins.clone(),
        sources,
        credentials: download::Credentials::of_this_user()?,
        proxies: crate::https::Proxies::default(),
        cache: cache(options.cache.as_deref())?,
    };
    let folder = std::fs::create_dir_all(&order.cache)
        .and_then(|()| tempfile::Builder::new().prefix("layout-").tempdir_in(&order.cache))
        .map_err(|error| {
            Failure::new(Kind::Bundle, format!("cannot write {}", order.cache.display()))
                .because(&error)
                .advise("name another folder with --cache")
        })?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let step = events.step("download", "download releases");
    let progress = |done, total, name: &str| step.progress(done, total, Unit::Items, Some(name));
    let result = download::download(&order, folder.path(), &progress).await;
    let result = step.end(result);
    drop(events);
    display.finish().await;
    result.map(|_| folder)
}

/// The folder of downloads.
fn cache(typed: Option<&Path>) -> Result<PathBuf> {
    use etcetera::BaseStrategy as _;
    match typed {
        Some(path) => Ok(path.to_owned()),
        None => etcetera::choose_base_strategy()
            .map(|folders| folders.cache_dir().join("clusterctl").join("downloads"))
            .map_err(|error| {
                Failure::new(Kind::Usage, "cannot find your cache folder")
                    .because(&error)
                    .advise("name one with --cache")
            }),
    }
}

/// A bundle is made once and sent to every host: five times the time of zstd's default (seconds) saves a tenth of the bytes;
/// what saves more takes minutes.
const COMPRESSION_LEVEL: i32 = 9;

/// Runs blocking work with progress in a step of its own.
async fn with_progress<T: Send + 'static>(
    context: &Context,
    id: &str,
    title: &str,
    work: impl FnOnce(&(dyn Fn(u64, u64, &str) + Sync)) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let step = events.step(id, title);
    let working = tokio::task::spawn_blocking(move || {
        let result = work(&|done, total, name| step.progress(done, total, Unit::Items, Some(name)));
        step.end(result)
    });
    let result =
        working.await.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the work on the bundle ended early")));
    drop(events);
    display.finish().await;
    result
}

fn contents(manifest: &Manifest) -> String {
    let (content, stored) =
        manifest.blobs.iter().fold((0, 0), |(content, stored), blob| (content + blob.size, stored + blob.stored_size));
    format!("{} blobs, {} ({} compressed)", manifest.blobs.len(), ui::text::bytes(content), ui::text::bytes(stored))
}

fn inspect(file: &Path, context: &Context) -> Result<ExitCode> {
    let bundle = Bundle::open(file)?;
    let manifest = bundle.manifest();
    if context.screen.settings().output == ui::Output::Json {
        let text = serde_json::to_string(manifest)
            .map_err(|error| Failure::new(Kind::Internal, "cannot write the manifest").because(&error))?;
        context.screen.print(&format!("{text}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = manifest
        .blobs
        .iter()
        .map(|blob| {
            let place = match &blob.place {
                Place::File { path, .. } => path.clone(),
                Place::Images { references } => references.join(", "),
            };
            let role = if blob.roles.len() > 1 { "all" } else { "control-plane" };
            vec![
                blob.name.clone(),
                blob.architecture.clone(),
                role.to_owned(),
                ui::text::bytes(blob.size),
                ui::text::bytes(blob.stored_size),
                blob.sha256.chars().take(12).collect(),
                place,
            ]
        })
        .collect();
    let table = ui::table(&["BLOB", "ARCH", "HOSTS", "SIZE", "STORED", "SHA256", "PLACE"], &rows);
    context.screen.print(&format!("Kubernetes {}: {}\n\n{table}", manifest.kubernetes, contents(manifest)))?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(file: &Path, context: &Context) -> Result<ExitCode> {
    let bundle = Bundle::open(file)?;
    let manifest = bundle.manifest().clone();
    manifest.complete()?;
    let wrong = with_progress(context, "verify", "verify bundle", move |progress| bundle.verify(progress)).await?;
    if !wrong.is_empty() {
        return Err(Failure::new(
            Kind::Bundle,
            format!("{} is damaged: wrong content in {}", file.display(), wrong.join(", ")),
        )
        .advise("make or copy the bundle again"));
    }
    context.screen.say(&format!("{} is whole: {}", file.display(), contents(&manifest)));
    Ok(ExitCode::SUCCESS)
}

async fn push(arguments: &Push, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let bundle = Arc::new(Bundle::open(&bundle_path(arguments.bundle.as_deref(), &inventory)?)?);
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let settings = login::settings(context, &arguments.login, &events);
    let result = cluster::push(&inventory, &bundle, &settings).await;
    drop((events, settings));
    let run = display.finish().await;
    let pushed = result?;
    let mut summary = ui::Summary::of(&run, &inventory);
    let lacked: u64 = pushed.done.iter().map(|(_, bytes)| bytes).sum();
    let amounts = format!("{} arrived, {} left this machine", ui::text::bytes(lacked), ui::text::bytes(pushed.sent));
    summary.headline = match (pushed.failures.is_empty(), lacked) {
        (true, 0) => "The hosts have all blobs: nothing was to do".to_owned(),
        (true, _) => format!("The hosts have all blobs: {amounts}"),
        (false, _) => format!("Not all hosts have their blobs: {amounts}"),
    };
    summary.failed = pushed.failures;
    context.screen.summary(&summary);
    Ok(summary.exit_code())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::kubernetes_version;

    #[rstest]
    #[case("1.36.3", Some("1.36.3"))]
    #[case("v1.36.3", Some("1.36.3"))]
    #[case("1.36", None)]
    #[case("latest", None)]
    fn versions_are_whole(#[case] text: &str, #[case] version: Option<&str>) {
        assert_eq!(kubernetes_version(text).ok().map(|version| version.to_string()).as_deref(), version);
    }
}
