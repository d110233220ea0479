//! A bundle: what one Kubernetes version needs, as blobs by their sha256, in one file.
//!
//! The file is a tar archive: `manifest.json` first, then `blobs/<sha256 of the content>.zst`, each member a zstd stream.

mod create;
pub mod digest;
pub mod download;
mod image;
mod open;

use serde::{Deserialize, Serialize};

pub use self::create::{Order, create, create_of_all, stage};
pub use self::open::Bundle;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Role;
use crate::message::Place;

/// The version of the format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// No blob is larger, in bytes: what is added to a size must not overflow.
const MAXIMUM_BLOB_BYTES: u64 = 1 << 40;

/// Name of a blob's member in the archive.
fn member(sha256: &str) -> String {
    format!("blobs/{sha256}.zst")
}

/// `manifest.json` of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format: 1.
    pub format: u32,
    /// Kubernetes version without `v`.
    pub kubernetes: semver::Version,
    /// The blobs, in the order hosts should receive them: the runtime first, then kubelet, then images.
    pub blobs: Vec<Blob>,
}

/// One blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blob {
    /// A short name: `kubelet`, `containerd`, `cni/bridge`, `images/kube-proxy`.
    pub name: String,
    /// SHA-256 of the content, hex.
    pub sha256: String,
    /// Size of the content in bytes.
    pub size: u64,
    /// SHA-256 of the zstd stream as stored, hex.
    pub stored_sha256: String,
    /// Size of the zstd stream as stored, in bytes.
    pub stored_size: u64,
    /// Go's name of the architecture it is for.
    pub architecture: String,
    /// Which hosts need it.
    pub roles: Vec<Role>,
    /// Where it goes.
    pub place: Place,
}

impl Blob {
    /// Whether a blob is one that this program would write; a manifest comes from a file or a host that nobody vouches for.
    ///
    /// # Errors
    /// What is wrong with it, to stand after its name.
    pub fn check(&self) -> std::result::Result<(), String> {
        for hash in [&self.sha256, &self.stored_sha256] {
            let digits = hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            if hash.len() != 64 || !digits {
                return Err("has a sha256 that is none".to_owned());
            }
        }
        if self.size > MAXIMUM_BLOB_BYTES || self.stored_size > MAXIMUM_BLOB_BYTES {
            return Err(format!("is larger than {MAXIMUM_BLOB_BYTES} bytes"));
        }
        match &self.place {
            Place::File { path, mode } => {
                let is_plain = path.starts_with('/')
                    && !path.contains('\0')
                    && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
                match (is_plain, *mode <= 0o777) {
                    (false, _) => Err(format!("belongs into {path:?}, which is no whole path")),
                    (_, false) => Err(format!("has the mode {mode:o}, which is no usual one")),
                    _ => Ok(()),
                }
            }
            Place::Images { references } => {
                // They become arguments of a program.
                let odd = |reference: &&String| {
                    reference.starts_with('-') || reference.chars().any(|one| one.is_whitespace() || one.is_control())
                };
                references.iter().find(odd).map_or(Ok(()), |odd| Err(format!("names the image {odd:?}")))
            }
        }
    }
}

impl Manifest {
    /// Nothing, of a version.
    pub fn empty(kubernetes: &semver::Version) -> Self {
        Self { format: FORMAT, kubernetes: kubernetes.clone(), blobs: Vec::new() }
    }

    /// The blobs a host of this role and architecture needs, in sending order.
    pub fn for_host<'a>(&'a self, role: Role, architecture: &'a str) -> impl Iterator<Item = &'a Blob> {
        self.blobs.iter().filter(move |blob| blob.architecture == architecture && blob.roles.contains(&role))
    }

    /// Whether the bundle holds anything for an architecture.
    pub fn has_architecture(&self, architecture: &str) -> bool {
        self.blobs.iter().any(|blob| blob.architecture == architecture)
    }

    /// All image references in the bundle.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.blobs
            .iter()
            .flat_map(|blob| match &blob.place {
                Place::Images { references } => references.as_slice(),
                Place::File { .. } => &[],
            })
            .map(String::as_str)
    }

    /// Checks that everything a cluster of this version needs is there.
    ///
    /// # Errors
    /// Kind `Bundle`, naming all that is missing.
    pub fn complete(&self) -> Result<()> {
        let programs =
            ["bin/kubelet", "bin/kubectl", "bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/runc"];
        let plugins = ["cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap"];
        let tag = format!(":v{}", self.kubernetes);
        let images = ["/kube-apiserver", "/kube-controller-manager", "/kube-scheduler", "/kube-proxy"];
        let others = ["/etcd:", "/coredns:", "/pause:"];
        let has = |name: &str| self.blobs.iter().any(|blob| blob.name == name);
        let mut missing: Vec<String> =
            programs.iter().chain(&plugins).filter(|name| !has(name)).map(|name| (*name).to_owned()).collect();
        missing.extend(
            images
                .iter()
                .map(|image| format!("{image}{tag}"))
                .filter(|end| !self.references().any(|reference| reference.ends_with(end.as_str())))
                .map(|end| format!("image {}", &end[1..])),
        );
        missing.extend(
            others
                .iter()
                .filter(|part| !self.references().any(|reference| reference.contains(*part)))
                .map(|part| format!("image {}", part.trim_matches(|letter| letter == '/' || letter == ':'))),
        );
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Bundle,
            format!("for Kubernetes {} there is no {}", self.kubernetes, missing.join(", no ")),
        )
        .advise("put what is missing into the folder's bin/, cni/ or images/ and create the bundle again"))
    }
}

#[cfg(test)]
mod tests;
