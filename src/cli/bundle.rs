//! `clusterctl bundle`: the files of one Kubernetes version in one file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum, ValueHint};

use super::up::{Login, bundle_path};
use super::{Context, login};
use crate::bundle::{Bundle, Manifest, Order};
use crate::cluster;
use crate::event::{Events, Unit};
use crate::failure::{Failure, Kind, Result};
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
    /// Make a bundle out of a folder of binaries and image archives
    Create(Create),
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
    /// The folder with the binaries and image archives
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub from: PathBuf,
    /// The Kubernetes version of what is in the folder: 1.36.3
    #[arg(long, value_name = "VERSION", value_parser = kubernetes_version)]
    pub kubernetes: semver::Version,
    /// The architecture of the hosts
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Architecture::of_this_machine())]
    pub arch: Architecture,
    /// The bundle to write
    #[arg(short = 'o', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// An architecture by Go's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
    let order = Order {
        from: create.from.clone(),
        kubernetes: create.kubernetes.clone(),
        architecture: Some(create.arch.name().to_owned()),
        output: create.file.clone(),
        level: COMPRESSION_LEVEL,
    };
    let manifest =
        with_progress(context, "create", "create bundle", move |progress| crate::bundle::create(&order, progress))
            .await?;
    context.screen.say(&format!(
        "{} holds Kubernetes {}: {}",
        create.file.display(),
        manifest.kubernetes,
        contents(&manifest)
    ));
    Ok(ExitCode::SUCCESS)
}

/// zstd's default: twice the level costs four times the time and saves a tenth.
const COMPRESSION_LEVEL: i32 = 3;

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
                blob.sha256[..12.min(blob.sha256.len())].to_owned(),
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
