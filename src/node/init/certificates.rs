//! Phase certs: what is in certificatesDir already is judged and used, the rest is made (kubeadm.md section 2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::{Host, NewFile};
use crate::kubernetes::certificates::{
    Authority, CATALOGUE, CertificateOrder, KeyAlgorithm, KeyPool, PkiFile, Signer, all_at_once, issue, pki_paths,
};
use crate::node::phase::Changes;
use crate::node::{defaults, files};
use crate::secret::Secret;

/// Names the files that are being written: a certificate without its key would later pass for one whose key is kept
/// elsewhere, so after a broken run they are all made anew. Upstream's folder for what is under way.
const UNDER_WAY: &str = "/etc/kubernetes/tmp/clusterctl-certificates";

/// Where kubeconfigs lie, and by default certificates below.
const KUBECONFIGS: &str = "/etc/kubernetes";

/// Makes the certificates; answers with the cluster's CA and with keys for the kubeconfigs, which are made along with
/// the others because it takes all cores.
pub(in crate::node) async fn make(
    host: &dyn Host,
    plan: &Plan,
    events: &Events,
) -> Result<(Changes, (Authority, KeyPool))> {
    forget_half_written(host)?;
    let mut existing = BTreeMap::new();
    for path in pki_paths(&plan.cluster) {
        if let Some(text) = files::text(host, &plan.pki(&path))? {
            existing.insert(path, Secret::new(text));
        }
    }
    let mut kubeconfigs = 0;
    for entry in super::kubeconfigs::wanted(plan) {
        kubeconfigs += usize::from(host.entry(&super::kubeconfigs::path_of(plan, entry))?.is_none());
    }
    let mut problems = super::kubeconfigs::wrong_with_external(host, plan, &existing)?;
    let now_seconds = defaults::now_seconds()?;
    let algorithm: KeyAlgorithm = plan.cluster.key_algorithm().parse()?;
    let owned = plan.clone();
    // Keys are seconds of processor time: other work of the agent goes on meanwhile.
    let work = tokio::task::spawn_blocking(move || {
        let mut keys = KeyPool::new(algorithm);
        let wanted = pki_paths(&owned.cluster);
        let missing = wanted.iter().filter(|path| path.ends_with(".key") && !existing.contains_key(*path));
        keys.fill(missing.count() + kubeconfigs)?;
        let order = CertificateOrder {
            cluster: &owned.cluster,
            node_name: owned.node_name(),
            local: &owned.init.local_api_endpoint,
            now_seconds,
            joining: owned.joining,
        };
        issue(&order, &existing, &mut keys).map(|issued| (issued, keys))
    });
    let made = work.await;
    let made = made.map_err(|error| Failure::new(Kind::Internal, "making certificates broke off").because(&error))?;
    let (issued, keys) = match made {
        Ok(made) => all_at_once(problems, KUBECONFIGS).map(|()| made)?,
        // Without a list of files that are wrong there is nothing to add them to.
        Err(failure) if problems.is_empty() => return Err(failure),
        Err(failure) => {
            problems.insert(0, failure.clone());
            all_at_once(problems, KUBECONFIGS)?;
            return Err(failure);
        }
    };
    for warning in issued.warnings {
        events.warn(warning);
    }
    let missing = issued.files.iter().filter(|file| !plan.phases.wants(&phase_path(&file.path)));
    let missing: Vec<&str> = missing.map(|file| file.path.as_str()).collect();
    let files: Vec<&PkiFile> = issued.files.iter().filter(|file| !missing.contains(&file.path.as_str())).collect();
    if let Some(authority) = unsigned(&missing, &files, kubeconfigs > 0) {
        let path = plan.pki(&format!("{authority}.crt"));
        let phase = phase_path(&format!("{authority}.crt")).replace('/', " ");
        return Err(Failure::new(Kind::Configuration, format!("there is no {} to sign with", path.display()))
            .advise(format!("run `clusterctl node init phase {phase}` first, or put the authority's files there")));
    }

    let mut changes = Vec::new();
    let paths: Vec<String> = files.iter().map(|file| plan.pki(&file.path).to_string_lossy().into_owned()).collect();
    if !paths.is_empty() {
        files::ensure(host, Path::new(UNDER_WAY), paths.join("\n").as_bytes(), 0o600)?;
    }
    let places: Vec<PathBuf> = files.iter().map(|file| plan.pki(&file.path)).collect();
    let new = files.iter().zip(&places);
    let new = new.map(|(file, path)| NewFile { path, content: file.content.expose().as_bytes(), mode: file.mode });
    files::ensure_together(host, &new.collect::<Vec<_>>())?;
    let made = places.iter().filter(|path| path.extension().is_none_or(|extension| extension != "key"));
    changes.extend(made.map(|path| format!("{} made", path.display())));
    host.remove(Path::new(UNDER_WAY))?;
    Ok((changes, (issued.authority, keys)))
}

/// Path of the phase that makes a file below certificatesDir: `certs/etcd-ca` for `etcd/ca.key`.
fn phase_path(file: &str) -> String {
    let base_name = file.rsplit_once('.').map_or(file, |(base_name, _)| base_name);
    format!("certs/{}", base_name.replace('/', "-"))
}

/// The authority that is not there, is not to be made in this run, and has something to sign in it.
fn unsigned(missing: &[&str], files: &[&PkiFile], kubeconfigs: bool) -> Option<&'static str> {
    let is_missing = |base_name: &str| missing.iter().any(|path| path.strip_suffix(".crt") == Some(base_name));
    let signers = CATALOGUE.iter().filter_map(|entry| match entry.signer {
        Signer::Authority(signer) => Some((entry.base_name, signer)),
        Signer::Itself => None,
    });
    let mut needed = signers.filter(|(base_name, _)| files.iter().any(|file| file.path == format!("{base_name}.crt")));
    let for_certificates = needed.find(|(_, signer)| is_missing(signer)).map(|(_, signer)| signer);
    for_certificates.or((kubeconfigs && is_missing("ca")).then_some("ca"))
}

/// Removes what a broken run was writing; nothing was built on it yet.
fn forget_half_written(host: &dyn Host) -> Result<()> {
    let list = Path::new(UNDER_WAY);
    let Some(text) = files::text(host, list)? else { return Ok(()) };
    for path in text.lines().map(Path::new).filter(|path| path.is_absolute()) {
        host.remove(path)?;
    }
    host.remove(list)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{UNDER_WAY, make};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::node::init::plan::tests::plan;

    #[tokio::test]
    async fn a_second_time_makes_nothing() {
        let host = FakeHost::new();
        let plan = plan("");
        let (changes, _) = make(&host, &plan, &Events::nowhere()).await.unwrap();
        assert_eq!(changes.len(), 11, "{changes:?}");
        assert!(host.text("/etc/kubernetes/pki/etcd/healthcheck-client.key").unwrap().contains("PRIVATE KEY"));
        let before = host.listing();
        let (changes, _) = make(&host, &plan, &Events::nowhere()).await.unwrap();
        assert!(changes.is_empty());
        assert_eq!(host.listing(), before);
    }

    #[tokio::test]
    async fn a_run_that_broke_while_writing_is_finished_by_the_next() {
        let host = FakeHost::new();
        let plan = plan("");
        let full = FakeHost::new().unwritable("/etc/kubernetes/pki/ca.key");
        assert!(make(&full, &plan, &Events::nowhere()).await.is_err());
        // The state that run left: the certificate of a CA without its key, and the list of what was under way.
        for path in ["/etc/kubernetes/pki/ca.crt", UNDER_WAY] {
            host.put(Path::new(path), full.text(path).unwrap().as_bytes(), 0o600);
        }
        make(&host, &plan, &Events::nowhere()).await.unwrap();
        assert_ne!(host.text("/etc/kubernetes/pki/ca.crt"), full.text("/etc/kubernetes/pki/ca.crt"));
        assert!(host.text(UNDER_WAY).is_none());
    }

    #[tokio::test]
    async fn an_authority_that_a_person_brought_is_used() {
        let (host, other) = (FakeHost::new(), FakeHost::new());
        let plan = plan("");
        make(&other, &plan, &Events::nowhere()).await.unwrap();
        for path in ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key"] {
            host.put(Path::new(path), other.text(path).unwrap().as_bytes(), 0o600);
        }
        let (_, (authority, _)) = make(&host, &plan, &Events::nowhere()).await.unwrap();
        assert_eq!(Some(authority.pem().to_owned()), other.text("/etc/kubernetes/pki/ca.crt"));
    }
}
