//! Blobs on this host: which are lacking, putting files in place, importing images.

use std::path::Path;

use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

use super::containerd::ImportOptions;
use super::journal::{self, Entry, Journal};
use super::seen::Seen;
use super::{EntryKind, Host, containerd};
use crate::failure::{Failure, Kind, Result};
use crate::message::{Place, Wanted};

/// Which of these blobs the host lacks, by sha256, in the order asked. A file is there if its content and its permission
/// bits are as wanted, where a content that nobody touched since it was looked at last is not looked at again; images are
/// there if every reference carries the label of its blob.
///
/// # Errors
/// When a file cannot be read. A container runtime that does not answer has no images.
pub async fn lacking(host: &dyn Host, wanted: &[Wanted]) -> Result<Vec<String>> {
    let images = match wanted.iter().any(|blob| matches!(blob.place, Place::Images { .. })) {
        true => containerd::image_blobs_if_any(host).await?,
        false => Default::default(),
    };
    let mut lacking = Vec::new();
    let mut seen = Seen::on(host);
    for blob in wanted {
        let there = match &blob.place {
            Place::File { path, mode } => {
                let path = Path::new(path);
                looks_right(host, path, *mode, blob)?
                    && seen.sha256(host, path)?.as_deref() == Some(blob.sha256.as_str())
            }
            Place::Images { references } => references
                .iter()
                .all(|reference| images.get(reference).is_some_and(|label| label.as_deref() == Some(&blob.sha256))),
        };
        if !there {
            lacking.push(blob.sha256.clone());
        }
    }
    seen.keep(host);
    Ok(lacking)
}

/// Whether a file is there that differs in its content at most.
fn looks_right(host: &dyn Host, path: &Path, mode: u32, blob: &Wanted) -> Result<bool> {
    let entry = host.entry(path)?;
    Ok(entry.is_some_and(|entry| entry.kind == EntryKind::File && entry.mode == mode && entry.size == blob.size))
}

/// Moves a received file into place, its missing parents too, after recording what was there. Whether it did: a laptop whose
/// link broke before it heard the answer asks again, and finds the file in place already.
///
/// # Errors
/// When it was never received, or cannot be moved.
pub fn install_file(host: &dyn Host, journal: &Journal, received: &Path, wanted: &Wanted) -> Result<bool> {
    let Place::File { path, mode } = &wanted.place else { return Ok(false) };
    let path = Path::new(path);
    if host.entry(received)?.is_some() {
        journal.place_file(host, received, path, *mode)?;
        return Ok(true);
    }
    if looks_right(host, path, *mode, wanted)? && host.sha256(path)?.as_deref() == Some(wanted.sha256.as_str()) {
        return Ok(false);
    }
    let sentence = format!("{} is to be put in place but did not arrive", path.display());
    Err(Failure::new(Kind::Host, sentence).advise("run the same command again").may_pass())
}

/// Imports an archive of images while it arrives; in a containerd that is the host's own it is recorded first which of them
/// are new. Whoever has seen that the archive was what it should be accepts them ([`accept_images`]), or discards them
/// ([`discard_images`]). `options` is filled by the first archive and serves for the next.
///
/// # Errors
/// When the runtime refuses the archive, or the stream breaks.
pub async fn import_images(
    host: &dyn Host,
    options: &OnceCell<ImportOptions>,
    archive: impl AsyncRead + Send + Unpin,
    references: &[String],
) -> Result<()> {
    if let Some(journal) = &journal_of_foreign_runtime(host)? {
        record_images(host, journal, references).await?;
    }
    let options = options.get_or_try_init(|| ImportOptions::of(host)).await?;
    containerd::import(host, options, Box::new(archive)).await
}

/// Labels images that were imported with the blob they came from. In a containerd that is the host's own the pause image
/// gets the name that containerd's own configuration has for it.
///
/// # Errors
/// When the runtime refuses.
pub async fn accept_images(host: &dyn Host, references: &[String], sha256: &str) -> Result<()> {
    containerd::label(host, references, sha256).await?;
    if let Some(journal) = &journal_of_foreign_runtime(host)? {
        let pause = references
            .iter()
            .find(|reference| reference.rsplit('/').next().is_some_and(|name| name.starts_with("pause:")));
        if let Some(pause) = pause {
            containerd::name_sandbox_image(host, journal, pause).await?;
        }
    }
    Ok(())
}

/// The journal, if there is one and the container runtime is not of ours: what is imported then has to be taken away one
/// by one. Another process of ours may have the journal open, too: lines are appended whole, and one more record of the
/// same thing does no harm.
fn journal_of_foreign_runtime(host: &dyn Host) -> Result<Option<Journal>> {
    if journal::is_ours(host, Path::new(containerd::OUR_PROGRAM))? {
        return Ok(None);
    }
    journal::cluster_of(host)?.map(|cluster| Journal::open(host, &cluster)).transpose()
}

/// Removes images that were imported from a damaged archive; those that are not there are fine, and those that were there
/// before stay. Where nothing was imported there is nothing to remove.
///
/// # Errors
/// When the runtime refuses.
pub async fn discard_images(host: &dyn Host, options: &OnceCell<ImportOptions>, references: &[String]) -> Result<()> {
    match options.get() {
        Some(options) => containerd::remove_imported(host, options, references).await,
        None => Ok(()),
    }
}

/// Records images that are about to be imported into a runtime that is the host's own, so that `down` takes only those
/// away that were not there before. Images in a runtime of ours go with it.
///
/// # Errors
/// When the runtime does not answer, or the record cannot be written.
pub async fn record_images(host: &dyn Host, journal: &Journal, references: &[String]) -> Result<()> {
    let there = containerd::image_blobs(host).await?;
    let entries = references
        .iter()
        .filter(|reference| !there.contains_key(*reference))
        .map(|reference| Entry::Image { reference: reference.clone() });
    journal.record_all(host, entries)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::OnceCell;

    use super::{accept_images, import_images, install_file, lacking};
    use crate::host::fake::FakeHost;
    use crate::host::journal::{JOURNAL, Journal};
    use crate::host::{Host, sha256_hex};
    use crate::message::{Place, Wanted};

    fn file(path: &str, content: &str) -> Wanted {
        let place = Place::File { path: path.to_owned(), mode: 0o755 };
        Wanted { sha256: sha256_hex(content.as_bytes()), size: content.len() as u64, place }
    }

    fn images(sha256: &str, references: &[&str]) -> Wanted {
        let references = references.iter().map(|reference| (*reference).to_owned()).collect();
        Wanted { sha256: sha256.to_owned(), size: 1, place: Place::Images { references } }
    }

    const LISTED: &str = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
        a:1 t sha256:1 1.0 MiB linux/amd64 clusterctl.io/blob=f00\nb:1 t sha256:2 1.0 MiB linux/amd64 -\n";

    #[tokio::test]
    async fn lacking_is_what_differs_in_content_mode_or_label() {
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED);
        for path in ["/bin/same", "/bin/other", "/bin/mode"] {
            host.put(Path::new(path), b"x", 0o755);
        }
        host.set_mode(Path::new("/bin/mode"), 0o644).unwrap();
        let wanted =
            [file("/bin/same", "x"), file("/bin/other", "y"), file("/bin/mode", "x"), file("/bin/missing", "x")];
        let lacked = lacking(&host, &wanted).await.unwrap();
        assert_eq!(lacked, [&wanted[1], &wanted[2], &wanted[3]].map(|blob| blob.sha256.clone()));
        let wanted = [
            images("f00", &["a:1"]),
            images("other", &["a:1"]),
            images("f00", &["a:1", "b:1"]),
            images("f00", &["c:1"]),
        ];
        assert_eq!(lacking(&host, &wanted).await.unwrap(), ["other", "f00", "f00"]);
    }

    #[tokio::test]
    async fn a_runtime_that_does_not_answer_lacks_all_images() {
        let host = FakeHost::new().answer(&["ctr"], 1, "");
        assert_eq!(lacking(&host, &[images("f00", &["a:1"])]).await.unwrap(), ["f00"]);
    }

    #[test]
    fn a_file_goes_into_place_with_its_mode_and_one_that_did_not_arrive_is_told() {
        let host = FakeHost::new().directory("/var/lib").file("/incoming/x", "x");
        let journal = Journal::open(&host, "demo").unwrap();
        let (received, wanted) = (Path::new("/incoming/x"), file("/opt/cni/bin/x", "x"));
        assert!(install_file(&host, &journal, received, &wanted).unwrap());
        assert_eq!(host.entry(Path::new("/opt/cni/bin/x")).unwrap().unwrap().mode, 0o755);
        assert!(host.text(JOURNAL).unwrap().contains("/opt/cni/bin/x"));
        // Asked once more, by a laptop that did not hear the answer.
        assert!(!install_file(&host, &journal, received, &wanted).unwrap());
        let failure = install_file(&host, &journal, received, &file("/opt/cni/bin/x", "y")).unwrap_err();
        assert!(failure.sentence.contains("did not arrive"), "{failure}");
    }

    #[tokio::test]
    async fn images_are_recorded_only_in_a_runtime_of_the_hosts_own() {
        let begun = || {
            let host = FakeHost::new().directory("/var/lib").answer(&["ctr"], 0, LISTED).answer(
                &["ctr", "images", "import", "--help"],
                0,
                "   --local\n   --label value\n",
            );
            (host.clone(), Journal::open(&host, "demo").unwrap())
        };
        let references = ["a:1".to_owned(), "new:1".to_owned()];
        let (host, journal) = begun();
        journal.write_file(&host, Path::new("/etc/any"), b"", 0o644).unwrap();
        let archive: &[u8] = b"";
        import_images(&host, &OnceCell::new(), archive, &references).await.unwrap();
        let text = host.text(JOURNAL).unwrap();
        assert!(text.contains("new:1") && !text.contains("a:1"), "{text}");

        let (host, journal) = begun();
        journal.write_file(&host, Path::new("/usr/local/bin/containerd"), b"", 0o755).unwrap();
        import_images(&host, &OnceCell::new(), archive, &references).await.unwrap();
        accept_images(&host, &references, "f00").await.unwrap();
        assert!(!host.text(JOURNAL).unwrap().contains("new:1"));
        assert!(host.ran().last().unwrap().arguments.contains(&"clusterctl.io/blob=f00".to_owned()));
    }
}
