//! Phase kubeconfig: the five files of a first control plane, the three of one that joins (kubeadm.md section 3).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::{Authority, Certificate, EXTERNAL, KeyPool, all_at_once};
use crate::kubernetes::kubeconfig::{self, Entry, KUBELET, Kubeconfig, KubeconfigOrder};
use crate::node::phase::Changes;
use crate::node::{defaults, files};
use crate::secret::Secret;

/// Where kubeconfigs lie.
pub(super) const DIRECTORY: &str = "/etc/kubernetes";

/// Path of a kubeconfig.
pub(in crate::node) fn path(entry: &Entry) -> PathBuf {
    Path::new(DIRECTORY).join(entry.file)
}

/// Path of a kubeconfig that this run writes.
pub(super) fn path_of(plan: &Plan, entry: &Entry) -> PathBuf {
    plan.kubeconfigs.join(entry.file)
}

/// Path of the phase that writes a kubeconfig: `kubeconfig/super-admin`.
pub(super) fn phase_path(entry: &Entry) -> String {
    format!("kubeconfig/{}", entry.file.trim_end_matches(".conf"))
}

/// Those that this run writes: on a host that joins, or did, without super-admin.conf and kubelet.conf.
pub(super) fn wanted(plan: &Plan) -> impl Iterator<Item = &'static Entry> {
    of_role(plan).filter(|entry| plan.phases.wants(&phase_path(entry)))
}

fn of_role(plan: &Plan) -> impl Iterator<Item = &'static Entry> {
    kubeconfig::CATALOGUE.iter().filter(|entry| entry.on_join || !(plan.joining || plan.joined_before))
}

/// Writes those that are missing; those that are there are judged and stay.
pub(in crate::node) fn write(
    host: &dyn Host,
    plan: &Plan,
    authority: &Authority,
    mut keys: KeyPool,
    events: &Events,
) -> Result<(Changes, ())> {
    let order = KubeconfigOrder {
        cluster: &plan.cluster,
        node_name: plan.node_name(),
        local: &plan.init.local_api_endpoint,
        authority,
        now_seconds: defaults::now_seconds()?,
    };
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    for entry in wanted(plan) {
        let path = path_of(plan, entry);
        match files::text(host, &path)? {
            Some(text) => match judge(plan, entry, &text, authority.certificates(), order.now_seconds) {
                Ok(warnings) => warnings.into_iter().for_each(|warning| events.warn(warning)),
                Err(failure) => problems.push(failure),
            },
            None if authority.is_external() => problems.push(missing(plan, entry)),
            None => {
                let made = entry.issue(&order, &mut keys)?;
                files::ensure(host, &path, made.to_text().expose().as_bytes(), 0o600)?;
                changes.push(format!("{} written", path.display()));
            }
        }
    }
    all_at_once(problems, &plan.kubeconfigs.display().to_string())?;
    Ok((changes, ()))
}

fn missing(plan: &Plan, entry: &Entry) -> Failure {
    let sentence =
        format!("{} is missing, and the certificate authority has no key here", path_of(plan, entry).display());
    Failure::new(Kind::Configuration, sentence).advise(EXTERNAL)
}

/// Judges a kubeconfig that is there; answers with warnings.
fn judge(plan: &Plan, entry: &Entry, text: &str, authorities: &[Certificate], now_seconds: u64) -> Result<Vec<String>> {
    let path = path_of(plan, entry);
    let named = |failure: Failure| {
        let advice = failure.advice.clone().unwrap_or_else(|| "remove it to have it made anew".to_owned());
        Failure::new(Kind::Configuration, format!("{} cannot be used", path.display())).because(&failure).advise(advice)
    };
    let local = &plan.init.local_api_endpoint;
    let server = entry.server_url(&plan.cluster, local)?;
    let mut elsewhere = kubeconfig::judge(text, authorities, &server).map_err(named)?;
    if *entry == KUBELET && elsewhere.is_some() {
        // Upstream makes it for its own API server, but wants the cluster's endpoint where it judges: both are right.
        let server = plan.cluster.control_plane_url(local)?;
        elsewhere = elsewhere.and(kubeconfig::judge(text, authorities, &server).map_err(named)?);
    }
    let holder = kubeconfig::judge_holder(text, authorities, now_seconds).map_err(named)?;
    Ok(elsewhere.into_iter().chain(holder).map(|warning| format!("{}: {warning}", path.display())).collect())
}

/// What is wrong with the kubeconfigs where the certificate authority, among the texts of certificates and keys that are
/// there, has no key: nothing can be made then, so all must be there and fit. Upstream judges them first too.
pub(super) fn wrong_with_external(
    host: &dyn Host,
    plan: &Plan,
    there: &BTreeMap<String, Secret>,
) -> Result<Vec<Failure>> {
    let (Some(certificate), None) = (there.get("ca.crt"), there.get("ca.key")) else { return Ok(Vec::new()) };
    // A certificate that cannot be read is told by who judges the certificates.
    let Ok(authorities) = Certificate::parse_pem(certificate.expose()) else { return Ok(Vec::new()) };
    let now_seconds = defaults::now_seconds()?;
    let mut problems = Vec::new();
    for entry in of_role(plan) {
        match files::text(host, &path_of(plan, entry))? {
            None => problems.push(missing(plan, entry)),
            Some(text) => problems.extend(judge(plan, entry, &text, &authorities, now_seconds).err()),
        }
    }
    Ok(problems)
}

/// A kubeconfig of this node, pointed to its own API server: a load balancer that comes up later is no matter then
/// (kubeadm.md section 17).
///
/// # Errors
/// Kind `Host` when it is not there, `Configuration` when it cannot be read.
pub(in crate::node) fn local(host: &dyn Host, plan: &Plan, entry: &Entry) -> Result<Secret> {
    let path = path(entry);
    let text =
        files::text(host, &path)?.ok_or_else(|| Failure::new(Kind::Host, format!("there is no {}", path.display())))?;
    let mut kubeconfig = Kubeconfig::parse(&text).map_err(|failure| {
        Failure::new(Kind::Configuration, format!("{} cannot be used", path.display())).because(&failure)
    })?;
    kubeconfig.point_to(&plan.init.local_api_endpoint.url());
    Ok(kubeconfig.to_text())
}

#[cfg(test)]
mod tests {
    use super::{Plan, local, path, write};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::kubeconfig::{ADMIN, CATALOGUE};
    use crate::node::init::certificates;
    use crate::node::init::plan::tests::plan;

    #[tokio::test]
    async fn five_files_once() {
        let host = FakeHost::new();
        let plan = plan("controlPlaneEndpoint: api.demo.example\n");
        for expected in [5, 0] {
            let (_, (authority, keys)) = certificates::make(&host, &plan, &Events::nowhere()).await.unwrap();
            let (changes, ()) = write(&host, &plan, &authority, keys, &Events::nowhere()).unwrap();
            assert_eq!(changes.len(), expected);
        }
        assert!(CATALOGUE.iter().all(|entry| host.text(path(entry)).is_some()));
        assert!(host.text(path(&ADMIN)).unwrap().contains("server: https://api.demo.example:6443"));
        assert!(local(&host, &plan, &ADMIN).unwrap().expose().contains("server: https://10.0.0.11:6443"));
    }

    #[tokio::test]
    async fn three_files_on_a_host_that_joins() {
        let (host, other) = (FakeHost::new(), FakeHost::new());
        let first = plan("");
        certificates::make(&host, &first, &Events::nowhere()).await.unwrap();
        for shared in crate::kubernetes::uploaded_certificates::shared(&first.cluster) {
            other.put(std::path::Path::new(&shared.path), host.text(&shared.path).unwrap().as_bytes(), shared.mode);
        }
        let joining = Plan { joining: true, ..first };
        let (changes, (authority, keys)) = certificates::make(&other, &joining, &Events::nowhere()).await.unwrap();
        assert_eq!(changes.len(), 7, "{changes:?}");
        let (changes, ()) = write(&other, &joining, &authority, keys, &Events::nowhere()).unwrap();
        let names = ["admin", "controller-manager", "scheduler"];
        assert_eq!(changes, names.map(|name| format!("/etc/kubernetes/{name}.conf written")));
        // Nothing that is shared is made, whatever is missing.
        let refused = certificates::make(&FakeHost::new(), &joining, &Events::nowhere()).await.unwrap_err();
        assert_eq!(refused.sentence, "4 things are missing or do not fit in /etc/kubernetes/pki");
        assert!(refused.detail.unwrap().starts_with("/etc/kubernetes/pki/ca.crt, which all control planes share"));
    }

    #[tokio::test]
    async fn a_file_of_another_cluster_is_refused_by_name() {
        let host = FakeHost::new();
        let plan = plan("");
        let (_, (authority, keys)) = certificates::make(&host, &plan, &Events::nowhere()).await.unwrap();
        write(&host, &plan, &authority, keys, &Events::nowhere()).unwrap();
        let other = FakeHost::new().file(path(&ADMIN), host.text(path(&ADMIN)).unwrap());
        let (_, (authority, keys)) = certificates::make(&other, &plan, &Events::nowhere()).await.unwrap();
        let failure = write(&other, &plan, &authority, keys, &Events::nowhere()).unwrap_err();
        assert_eq!(failure.sentence, "/etc/kubernetes/admin.conf cannot be used");
    }
}
