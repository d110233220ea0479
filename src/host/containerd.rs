//! containerd's images and configuration, through its own `ctr`. Kubernetes' images live in the namespace `k8s.io`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::journal::{Entry, Journal};
use super::{Command, Host, Input, Output};
use crate::failure::{Failure, Kind, Result};

/// Label of an image that names the blob it came from, by sha256.
pub const BLOB_LABEL: &str = "clusterctl.io/blob";

/// containerd's own configuration file.
pub const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// Where the bundle puts containerd.
pub const OUR_PROGRAM: &str = "/usr/local/bin/containerd";

/// Where containerd listens.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// Longest time to import one archive: disks of small machines write a few MB/s.
const IMPORT_LIMIT: Duration = Duration::from_secs(1800);

/// `ctr` in the namespace of the kubelet.
fn ctr(arguments: &[&str]) -> Command {
    let mut words = vec!["--address", SOCKET, "--namespace", "k8s.io"];
    words.extend(arguments);
    Command::new("ctr", &words)
}

fn refused(sentence: String, output: &Output) -> Failure {
    Failure::new(Kind::Host, sentence).caused_by(output.complaint("ctr"))
}

/// Parses `ctr images ls`: the references with their labels, without those of the runtime's own digests.
fn parse_images(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut images = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(reference), Some(labels)) = (words.next(), words.next_back()) else { continue };
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        images.insert(reference.to_owned(), labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
    }
    images
}

/// All images by reference, with their labels.
async fn images(host: &dyn Host) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let output = host.run(ctr(&["images", "ls"])).await?;
    if !output.success() {
        return Err(refused("containerd does not list its images".to_owned(), &output).may_pass());
    }
    Ok(parse_images(&output.text()))
}

/// References of all images that are there, each with the sha256 of the blob it came from, if it came from one.
///
/// # Errors
/// When containerd does not answer.
pub async fn image_blobs(host: &dyn Host) -> Result<BTreeMap<String, Option<String>>> {
    let images = images(host).await?;
    Ok(images.into_iter().map(|(reference, mut labels)| (reference, labels.remove(BLOB_LABEL))).collect())
}

/// Whether containerd answers.
pub async fn answers(host: &dyn Host) -> bool {
    let version = ctr(&["version"]).limit(Duration::from_secs(10));
    host.run(version).await.is_ok_and(|output| output.success())
}

/// Imports an archive of images while it arrives, unpacks them, so that pods start from them at once, and labels them with
/// the blob they came from.
///
/// `--local` has `ctr` itself read the archive into containerd's store, instead of sending it through the transfer service
/// first. Where `ctr` cannot label while it imports, as before containerd 2, that is done afterwards.
///
/// # Errors
/// When containerd refuses the archive, or the stream breaks; then references of the archive may or may not be there.
pub async fn import(host: &dyn Host, archive: Input<'_>, references: &[String], sha256: &str) -> Result<()> {
    let help = host.run(Command::new("ctr", &["images", "import", "--help"])).await?.text();
    let knows = |option: &str| help.lines().any(|line| line.trim_start().starts_with(option));
    let label = format!("{BLOB_LABEL}={sha256}");
    let mut arguments = vec!["images", "import"];
    if knows("--local") {
        arguments.push("--local");
    }
    if knows("--label") {
        arguments.extend(["--label", &label]);
    }
    arguments.push("-");
    let output = host.run_fed(ctr(&arguments).limit(IMPORT_LIMIT), archive).await?;
    if !output.success() {
        return Err(refused("containerd does not import the images".to_owned(), &output).may_pass());
    }
    if knows("--label") {
        return Ok(());
    }
    for reference in references {
        let output = host.run(ctr(&["images", "label", reference, &label])).await?;
        if !output.success() {
            return Err(refused(format!("image {reference} cannot be labelled"), &output));
        }
    }
    Ok(())
}

/// Fetches an image from its registry.
///
/// # Errors
/// When it cannot be had.
pub async fn pull(host: &dyn Host, reference: &str) -> Result<()> {
    let output = host.run(ctr(&["images", "pull", reference]).limit(IMPORT_LIMIT)).await?;
    if output.success() {
        return Ok(());
    }
    let failure = refused(format!("image {reference} cannot be fetched"), &output);
    Err(failure.advise("check the reference and whether the host reaches the registry").may_pass())
}

/// Removes an image; whether there was one. Where containerd does not run there is nothing to remove from.
///
/// # Errors
/// When containerd refuses.
pub async fn remove_image(host: &dyn Host, reference: &str) -> Result<bool> {
    if !answers(host).await || !images(host).await?.contains_key(reference) {
        return Ok(false);
    }
    let output = host.run(ctr(&["images", "rm", reference])).await?;
    if output.success() { Ok(true) } else { Err(refused(format!("image {reference} cannot be removed"), &output)) }
}

/// Whether a configuration of containerd turns its CRI plugin off, as the packages Docker publishes do; the kubelet cannot
/// work with such a containerd.
pub fn cri_is_disabled(configuration: &str) -> bool {
    let mut inside = false;
    for line in configuration.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') && !inside {
            // Tables come after all keys of the top level.
            return false;
        }
        let value = match line.strip_prefix("disabled_plugins") {
            Some(rest) => rest,
            None if inside => line,
            None => continue,
        };
        if value.contains("\"cri\"") || value.contains("'cri'") || value.contains("io.containerd.grpc.v1.cri") {
            return true;
        }
        inside = !value.contains(']');
    }
    false
}

/// The sandbox image that a dumped configuration names: `sandbox_image` of containerd 1.x, `sandbox` of 2.x.
fn sandbox_image(dump: &str) -> Option<String> {
    dump.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        let wanted = matches!(key.trim(), "sandbox_image" | "sandbox") && value.contains('/');
        wanted.then(|| value.to_owned())
    })
}

/// Gives the cluster's pause image the name under which a containerd that is the host's own looks for its sandbox image, so
/// that its configuration need not be touched and nothing is fetched for it. Whether anything was altered.
///
/// # Errors
/// When containerd does not tell its configuration, or refuses the name.
pub async fn name_sandbox_image(host: &dyn Host, journal: &Journal, pause_image: &str) -> Result<bool> {
    let output = host.run(Command::new("containerd", &["config", "dump"])).await?;
    if !output.success() {
        let failure = Failure::new(Kind::Host, "containerd does not tell its configuration");
        return Err(failure.caused_by(output.complaint("containerd")));
    }
    let Some(wanted) = sandbox_image(&output.text()).filter(|wanted| wanted != pause_image) else { return Ok(false) };
    let there = images(host).await?;
    if there.contains_key(&wanted) || !there.contains_key(pause_image) {
        return Ok(false);
    }
    journal.record(host, Entry::Image { reference: wanted.clone() })?;
    let output = host.run(ctr(&["images", "tag", pause_image, &wanted])).await?;
    if output.success() {
        Ok(true)
    } else {
        Err(refused(format!("image {pause_image} cannot be named {wanted}"), &output))
    }
}

/// Whether the containerd that runs has the CRI plugin on; a configuration that is not there leaves it on.
///
/// # Errors
/// When the configuration cannot be read.
pub fn has_cri(host: &dyn Host) -> Result<bool> {
    let configuration = host.read(Path::new(CONFIGURATION))?.unwrap_or_default();
    Ok(!cri_is_disabled(&String::from_utf8_lossy(&configuration)))
}
