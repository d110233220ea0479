//! containerd's images and configuration, through its own `ctr`. Kubernetes' images live in the namespace `k8s.io`.

use std::collections::{BTreeMap, BTreeSet};
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

/// Longest time for containerd to answer at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Longest time for containerd to list its images, also while it unpacks others.
const LIST_LIMIT: Duration = Duration::from_secs(30);

/// Longest time to import one archive: disks of small machines write a few MB/s.
const IMPORT_LIMIT: Duration = Duration::from_secs(1800);

/// `ctr` in the namespace of the kubelet, with the containerd that listens where it does everywhere.
fn ctr(arguments: &[&str]) -> Command {
    ctr_at(SOCKET, arguments)
}

/// `ctr` in the namespace of the kubelet, with the containerd behind a socket.
fn ctr_at(socket: &str, arguments: &[&str]) -> Command {
    let mut words = vec!["--address", socket, "--namespace", "k8s.io"];
    words.extend(arguments);
    Command::new("ctr", &words)
}

fn refused(sentence: String, output: &Output) -> Failure {
    Failure::new(Kind::Host, sentence).caused_by(output.complaint("ctr"))
}

/// An image as `ctr images ls` lists it.
#[derive(Debug, Default, PartialEq)]
struct Listed {
    /// Digest of its manifest or index.
    digest: String,
    labels: BTreeMap<String, String>,
}

/// Parses `ctr images ls`: images by reference. Columns are REF, TYPE, DIGEST, SIZE (two words), PLATFORMS, LABELS.
fn parse_images(text: &str) -> BTreeMap<String, Listed> {
    let mut images = BTreeMap::new();
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [reference, _, digest, .., labels] = words.as_slice() else { continue };
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        images.insert((*reference).to_owned(), Listed { digest: (*digest).to_owned(), labels });
    }
    images
}

/// All images by reference.
async fn images(host: &dyn Host) -> Result<BTreeMap<String, Listed>> {
    images_at(host, SOCKET).await
}

async fn images_at(host: &dyn Host, socket: &str) -> Result<BTreeMap<String, Listed>> {
    let output = host.run(ctr_at(socket, &["images", "ls"]).limit(LIST_LIMIT)).await?;
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
    Ok(images.into_iter().map(|(reference, mut listed)| (reference, listed.labels.remove(BLOB_LABEL))).collect())
}

/// References of all images that the containerd behind `socket`, a path, has.
///
/// # Errors
/// When it does not answer.
pub async fn references_at(host: &dyn Host, socket: &str) -> Result<BTreeSet<String>> {
    Ok(images_at(host, socket).await?.into_keys().collect())
}

/// As [`image_blobs`]; a containerd that does not answer has no images.
///
/// # Errors
/// When containerd answers and does not list its images.
pub async fn image_blobs_if_any(host: &dyn Host) -> Result<BTreeMap<String, Option<String>>> {
    let failure = match image_blobs(host).await {
        Ok(images) => return Ok(images),
        Err(failure) => failure,
    };
    if answers(host).await { Err(failure) } else { Ok(BTreeMap::new()) }
}

/// Whether containerd answers.
async fn answers(host: &dyn Host) -> bool {
    let version = ctr(&["version"]).limit(ANSWER_LIMIT);
    host.run(version).await.is_ok_and(|output| output.success())
}

/// What has to be known of a host before images are imported; asked once for all archives of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Whether `ctr images import` can be told `--local`.
    local: bool,
    /// Digests of the images that were there, by reference.
    there: BTreeMap<String, String>,
}

impl ImportOptions {
    /// Asks `ctr`.
    ///
    /// # Errors
    /// When there is no `ctr`, or containerd does not list its images.
    pub async fn of(host: &dyn Host) -> Result<Self> {
        let help = host.run(Command::new("ctr", &["images", "import", "--help"])).await?.text();
        let local = help.lines().any(|line| line.trim_start().starts_with("--local"));
        let there = images(host).await?.into_iter().map(|(reference, listed)| (reference, listed.digest)).collect();
        Ok(Self { local, there })
    }
}

/// Imports an archive of images while it arrives, and unpacks them, so that pods start from them at once. They carry no
/// label yet: that says that the archive was what it should be (see [`label`]).
///
/// `--local` has `ctr` itself read the archive into containerd's store, instead of sending it through the transfer service
/// first.
///
/// # Errors
/// When containerd refuses the archive, or the stream breaks; then references of the archive may or may not be there.
pub async fn import(host: &dyn Host, options: &ImportOptions, archive: Input<'_>) -> Result<()> {
    let mut arguments = vec!["images", "import"];
    if options.local {
        arguments.push("--local");
    }
    arguments.push("-");
    let output = host.run_fed(ctr(&arguments).limit(IMPORT_LIMIT), archive).await?;
    if output.success() {
        return Ok(());
    }
    Err(refused("containerd does not import the images".to_owned(), &output).may_pass())
}

/// Labels images with the blob they came from.
///
/// # Errors
/// When containerd refuses: an image is not there.
pub async fn label(host: &dyn Host, references: &[String], sha256: &str) -> Result<()> {
    let label = format!("{BLOB_LABEL}={sha256}");
    for reference in references {
        let output = host.run(ctr(&["images", "label", reference, &label])).await?;
        if !output.success() {
            return Err(refused(format!("image {reference} cannot be labelled"), &output));
        }
    }
    Ok(())
}

/// Removes those of some images that an import has brought or replaced; those that are as they were before stay.
///
/// # Errors
/// When containerd refuses.
pub async fn remove_imported(host: &dyn Host, options: &ImportOptions, references: &[String]) -> Result<()> {
    let there = images(host).await?;
    for reference in references {
        let before = options.there.get(reference);
        if there.get(reference).is_some_and(|listed| Some(&listed.digest) != before) {
            remove_image(host, reference).await?;
        }
    }
    Ok(())
}

/// Fetches an image from its registry.
///
/// # Errors
/// When it cannot be had.
pub async fn pull(host: &dyn Host, reference: &str) -> Result<()> {
    pull_at(host, SOCKET, reference).await
}

/// As [`pull`], with the containerd behind `socket`, a path.
///
/// # Errors
/// When the image cannot be had.
pub async fn pull_at(host: &dyn Host, socket: &str, reference: &str) -> Result<()> {
    let output = host.run(ctr_at(socket, &["images", "pull", reference]).limit(IMPORT_LIMIT)).await?;
    if output.success() {
        return Ok(());
    }
    let failure = refused(format!("image {reference} cannot be fetched"), &output);
    Err(failure.advise("check the reference and whether the host reaches the registry").may_pass())
}

/// What has to go so that an image is gone: its reference and, when no other name is left for it, what the CRI plugin
/// keeps of it under its id; as long as that is there, its layers stay.
fn names_to_remove(images: &BTreeMap<String, Listed>, reference: &str) -> Vec<String> {
    let Some(image) = images.get(reference) else { return Vec::new() };
    let same = images.iter().filter(|(name, other)| *name != reference && other.digest == image.digest);
    let (ids, names): (Vec<_>, Vec<_>) =
        same.map(|(name, _)| name.clone()).partition(|name| name.starts_with("sha256:"));
    let ids = if names.is_empty() { ids } else { Vec::new() };
    std::iter::once(reference.to_owned()).chain(ids).collect()
}

/// Removes an image with its layers; whether there was one. Where containerd does not run there is nothing to remove from.
///
/// # Errors
/// When containerd refuses.
pub async fn remove_image(host: &dyn Host, reference: &str) -> Result<bool> {
    if !answers(host).await {
        return Ok(false);
    }
    let names = names_to_remove(&images(host).await?, reference);
    if names.is_empty() {
        return Ok(false);
    }
    // --sync: the layers are gone when it returns, not whenever containerd collects them.
    let mut arguments = vec!["images", "rm", "--sync"];
    arguments.extend(names.iter().map(String::as_str));
    let output = host.run(ctr(&arguments)).await?;
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{
        ImportOptions, cri_is_disabled, image_blobs, import, label, name_sandbox_image, names_to_remove, parse_images,
        remove_imported, sandbox_image,
    };
    use crate::host::fake::FakeHost;
    use crate::host::journal::{JOURNAL, Journal};

    const LISTED: &str = "REF                      TYPE   DIGEST      SIZE      PLATFORMS   LABELS\n\
        registry.k8s.io/pause:3.10 app/v1 sha256:aaa 670.8 KiB linux/amd64 clusterctl.io/blob=f00,io.cri-containerd.image=managed\n\
        registry.k8s.io/etcd:3.6.8 app/v1 sha256:bbb 42.0 MiB linux/amd64,linux/arm64 - \n\
        sha256:0123 app/v1 sha256:aaa 670.8 KiB linux/amd64 io.cri-containerd.image=managed\n";

    #[tokio::test]
    async fn images_have_the_blob_they_came_from() {
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED);
        let blobs = image_blobs(&host).await.unwrap();
        assert_eq!(blobs["registry.k8s.io/pause:3.10"].as_deref(), Some("f00"));
        assert_eq!(blobs["registry.k8s.io/etcd:3.6.8"], None);
        assert!(parse_images("REF TYPE\nnonsense\n").is_empty());
    }

    #[test]
    fn an_image_goes_with_its_id_unless_another_name_needs_it() {
        let images = parse_images(LISTED);
        assert_eq!(
            names_to_remove(&images, "registry.k8s.io/pause:3.10"),
            ["registry.k8s.io/pause:3.10", "sha256:0123"]
        );
        assert_eq!(names_to_remove(&images, "registry.k8s.io/etcd:3.6.8"), ["registry.k8s.io/etcd:3.6.8"]);
        assert!(names_to_remove(&images, "other").is_empty());
        let two = parse_images(&format!("{LISTED}mirror/pause:3.8 app/v1 sha256:aaa 670.8 KiB linux/amd64 -\n"));
        assert_eq!(names_to_remove(&two, "registry.k8s.io/pause:3.10"), ["registry.k8s.io/pause:3.10"]);
    }

    #[rstest]
    #[case("", false)]
    #[case("disabled_plugins = [\"cri\"]\n", true)]
    #[case("version = 2\ndisabled_plugins = [\n  'io.containerd.grpc.v1.cri', # kubelet\n]\n", true)]
    #[case("disabled_plugins = []\n[plugins]\n  disabled_plugins = [\"cri\"]\n", false)]
    #[case("#disabled_plugins = [\"cri\"]\n", false)]
    #[case("disabled_plugins = [\"aufs\"]\nrequired_plugins = [\"cri\"]\n", false)]
    fn a_cri_plugin_that_is_turned_off(#[case] configuration: &str, #[case] disabled: bool) {
        assert_eq!(cri_is_disabled(configuration), disabled);
    }

    #[rstest]
    #[case(
        "    sandbox_image = \"registry.k8s.io/pause:3.8\"\n    sandbox_mode = \"\"\n",
        Some("registry.k8s.io/pause:3.8")
    )]
    #[case("      sandbox = 'registry.k8s.io/pause:3.10.1'\n", Some("registry.k8s.io/pause:3.10.1"))]
    #[case("sandboxer = 'podsandbox'\n", None)]
    fn the_sandbox_image_of_a_configuration(#[case] dump: &str, #[case] image: Option<&str>) {
        assert_eq!(sandbox_image(dump).as_deref(), image);
    }

    #[tokio::test]
    async fn an_import_tells_nothing_of_the_blob_until_that_is_known_to_be_whole() {
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED).answer(
            &["ctr", "images", "import", "--help"],
            0,
            "   --local  Run import locally\n",
        );
        let archive: &[u8] = b"archive";
        let options = ImportOptions::of(&host).await.unwrap();
        host.forget();
        import(&host, &options, Box::new(archive)).await.unwrap();
        label(&host, &["a/b:1".to_owned()], "f00").await.unwrap();
        let ran: Vec<String> = host.ran().iter().map(|command| command.arguments.join(" ")).collect();
        assert!(ran[0].ends_with("images import --local -"), "{ran:?}");
        assert!(ran[1].ends_with("images label a/b:1 clusterctl.io/blob=f00"), "{ran:?}");
        assert_eq!(host.ran()[0].input, b"archive");
    }

    #[tokio::test]
    async fn only_what_an_import_brought_is_removed_again() {
        let after = LISTED.replace("sha256:bbb", "sha256:ccc");
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED).answer(&["ctr", "images", "import", "--help"], 0, "");
        let options = ImportOptions::of(&host).await.unwrap();
        let host = host.answer(&["ctr"], 0, after);
        host.forget();
        let references = ["registry.k8s.io/pause:3.10", "registry.k8s.io/etcd:3.6.8", "never:1"].map(str::to_owned);
        remove_imported(&host, &options, &references).await.unwrap();
        let done = host.done();
        let removed: Vec<_> = done.iter().filter(|line| line.contains("images rm")).collect();
        assert!(removed.len() == 1 && removed[0].ends_with("rm --sync registry.k8s.io/etcd:3.6.8"), "{removed:?}");
    }

    #[tokio::test]
    async fn a_containerd_of_the_hosts_own_finds_its_sandbox_image_under_its_name() {
        let host = FakeHost::new()
            .directory("/var/lib")
            .answer(&["containerd"], 0, "sandbox_image = \"registry.k8s.io/pause:3.8\"\n")
            .answer(&["ctr"], 0, LISTED);
        let journal = Journal::open(&host, "demo").unwrap();
        assert!(name_sandbox_image(&host, &journal, "registry.k8s.io/pause:3.10").await.unwrap());
        assert!(host.text(JOURNAL).unwrap().contains("registry.k8s.io/pause:3.8"));
        assert!(
            host.done().last().unwrap().ends_with("images tag registry.k8s.io/pause:3.10 registry.k8s.io/pause:3.8")
        );
        assert!(!name_sandbox_image(&host, &journal, "registry.k8s.io/pause:3.8").await.unwrap());
    }
}
