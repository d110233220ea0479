//! The playbooks that `up` runs on every host, and the files they name; the same files as in `playbooks/`.

use std::path::Path;
use std::sync::LazyLock;

use super::{Loaded, load};
use crate::failure::{Failure, Kind, Result};

/// Name and text.
const PLAYS: &[(&str, &str)] = &[
    ("prepare", include_str!("../../playbooks/prepare.yaml")),
    ("runtime", include_str!("../../playbooks/runtime.yaml")),
];

/// Files that the plays name, by the name they use.
const FILES: &[(&str, &str)] = &[
    ("templates/containerd.toml", include_str!("../../playbooks/templates/containerd.toml")),
    ("templates/containerd.service", include_str!("../../playbooks/templates/containerd.service")),
    ("templates/kubelet.service", include_str!("../../playbooks/templates/kubelet.service")),
    ("templates/10-kubeadm.conf", include_str!("../../playbooks/templates/10-kubeadm.conf")),
];

/// The plays, read once for all hosts.
static READ: LazyLock<Vec<(&str, Result<Loaded>)>> =
    LazyLock::new(|| PLAYS.iter().map(|(name, text)| (*name, read(name, text))).collect());

/// A play of ours by its name: `prepare`, `runtime`.
///
/// # Errors
/// Kind `Internal` where there is none of that name.
pub fn builtin(name: &str) -> Result<Loaded> {
    let found = READ.iter().find(|(known, _)| *known == name).map(|(_, loaded)| loaded.clone());
    found.unwrap_or_else(|| Err(Failure::new(Kind::Internal, format!("there is no play {name}"))))
}

fn read(name: &str, text: &str) -> Result<Loaded> {
    let path = format!("playbooks/{name}.yaml");
    load(text, Path::new(&path), &|source| {
        let found = FILES.iter().find(|(known, _)| *known == source);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| "there is no such file".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{PLAYS, builtin};

    #[test]
    fn our_own_plays_are_without_mistakes() {
        for (name, _) in PLAYS {
            builtin(name).unwrap_or_else(|failure| panic!("{failure}\n{:?}", failure.detail));
        }
    }
}
