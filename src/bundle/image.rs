//! Reads the image references out of an image archive, in Docker's or the OCI layout.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use crate::failure::{Failure, Kind, Result};

/// An index or manifest inside an archive may be this large, in bytes.
const MAXIMUM_INDEX_BYTES: u64 = 4 << 20;

#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<OciManifest>,
}

#[derive(Deserialize)]
struct OciManifest {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The references (`registry.k8s.io/pause:3.10.2`) that an archive brings, sorted.
///
/// # Errors
/// Kind `Bundle`: the file is no image archive or names no image.
pub fn references(path: &Path) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| {
        Failure::new(Kind::Bundle, format!("cannot read the image archive {}", path.display())).because(&error)
    };
    let file = File::open(path).map_err(failed)?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut found = BTreeSet::new();
    // Raw: the two names that are looked for are short, and an extension of a header may be of any length.
    for entry in archive.entries_with_seek().map_err(failed)?.raw(true) {
        let entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        if name != "manifest.json" && name != "index.json" {
            continue;
        }
        let mut text = String::new();
        entry.take(MAXIMUM_INDEX_BYTES).read_to_string(&mut text).map_err(failed)?;
        found.extend(if name == "manifest.json" { docker_references(&text) } else { oci_references(&text) });
    }
    if found.is_empty() {
        return Err(Failure::new(Kind::Bundle, format!("{} names no image", path.display()))
            .advise("write it with `docker save NAME:TAG` or `ctr images export FILE NAME:TAG`"));
    }
    Ok(found.into_iter().collect())
}

fn docker_references(text: &str) -> Vec<String> {
    let images: Vec<DockerImage> = serde_json::from_str(text).unwrap_or_default();
    images.into_iter().flat_map(|image| image.tags.unwrap_or_default()).collect()
}

fn oci_references(text: &str) -> Vec<String> {
    let Ok(index) = serde_json::from_str::<OciIndex>(text) else { return Vec::new() };
    let name = |manifest: OciManifest| manifest.annotations.get("io.containerd.image.name").cloned();
    index.manifests.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::{docker_references, oci_references};

    #[test]
    fn both_layouts_name_their_images() {
        assert_eq!(
            docker_references(r#"[{"Config":"a.json","RepoTags":["registry.k8s.io/pause:3.10.2"],"Layers":[]}]"#),
            ["registry.k8s.io/pause:3.10.2"]
        );
        assert_eq!(
            oci_references(
                r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:0","annotations":{"io.containerd.image.name":"registry.k8s.io/etcd:3.6.8-0"}}]}"#
            ),
            ["registry.k8s.io/etcd:3.6.8-0"]
        );
        assert!(docker_references("no json").is_empty());
        assert!(oci_references("[]").is_empty());
    }
}
