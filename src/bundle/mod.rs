//! A bundle: what one Kubernetes version needs, as blobs by their sha256, in one file.
//!
//! The file is a tar archive: `manifest.json` first, then `blobs/<sha256 of the content>.zst`, each member a zstd stream.

use serde::{Deserialize, Serialize};

use crate::inventory::Role;
use crate::message::Place;

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
