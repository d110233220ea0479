//! Preflight of a control plane that joins: what the cluster must have, and what the host must not (kubeadm.md section
//! 1.4).

use std::path::Path;

use super::download_certs::missing;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::configuration::ClusterConfiguration;
use crate::kubernetes::uploaded_certificates::shared;
use crate::node::init::plan::Plan;
use crate::node::preflight::{self, Purpose, Severity};

/// Where a host has something once joining has begun.
const BEGINNINGS: &[&str] = &["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/admin.conf"];

/// Judges cluster and host. A host on which joining has begun is not asked again for free ports and empty folders: what is
/// there is its own, or is refused where it is met.
///
/// # Errors
/// Kind `Cluster` for a cluster that cannot have another control plane; `Configuration` when neither a certificate key nor
/// the shared files are there; `Preflight` for a host that does not fit.
pub(super) fn check(host: &dyn Host, facts: &Facts, plan: &Plan, with_key: bool, events: &Events) -> Result<()> {
    has_endpoint(&plan.cluster)?;
    if !with_key {
        let missing = missing(host, &shared(&plan.cluster))?;
        if !missing.is_empty() {
            return Err(Failure::new(
                Kind::Configuration,
                format!("there is no certificate key, and {} is not on this host", missing.join(", ")),
            )
            .advise(
                "give controlPlane.certificateKey, as upload-certs prints it, or copy what control planes share to this \
                 host",
            ));
        }
    }
    for path in BEGINNINGS {
        if host.entry(Path::new(path))?.is_some() {
            return Ok(());
        }
    }
    let mut findings = preflight::preflight(
        facts,
        &preflight::Plan {
            purpose: Purpose::JoinControlPlane,
            cluster: "",
            kubernetes: &plan.version,
            bind_port: plan.init.local_api_endpoint.bind_port,
            listen: plan.listen(),
            etcd_data: plan.etcd_data(),
            ignore: &plan.init.node_registration.ignore_preflight_errors,
        },
    );
    findings.extend(preflight::chosen_etcd_data(
        host,
        plan.etcd_data(),
        &plan.init.node_registration.ignore_preflight_errors,
    )?);
    findings.retain(|finding| finding.severity == Severity::Error);
    preflight::judge(&findings, events)
}

fn has_endpoint(cluster: &ClusterConfiguration) -> Result<()> {
    if !cluster.control_plane_endpoint.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Cluster,
        "the cluster has no controlPlaneEndpoint, so its nodes would not find a second control plane",
    )
    .advise(
        "make the cluster with an endpoint that all control planes stand behind: `endpoint` in the inventory, \
         controlPlaneEndpoint in the ClusterConfiguration",
    ))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::check;
    use crate::event::Events;
    use crate::fact::Facts;
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::node::init::plan::Plan;
    use crate::node::init::tests::{able, facts, order};

    fn plan(more: &str) -> Plan {
        Plan::load(&FakeHost::new(), &facts(), &order(more), &Events::nowhere()).unwrap()
    }

    #[rstest]
    #[case::no_endpoint("", true, Kind::Cluster, "the cluster has no controlPlaneEndpoint")]
    #[case::no_key("controlPlaneEndpoint: api:6443\n", false, Kind::Configuration, "there is no certificate key")]
    fn a_cluster_that_is_not_ready(
        #[case] more: &str,
        #[case] with_key: bool,
        #[case] kind: Kind,
        #[case] sentence: &str,
    ) {
        let failure = check(&FakeHost::new(), &able(), &plan(more), with_key, &Events::nowhere()).unwrap_err();
        assert_eq!(failure.kind, kind);
        assert!(failure.sentence.starts_with(sentence), "{failure}");
        assert!(failure.advice.is_some());
    }

    #[test]
    fn a_host_is_judged_before_joining_has_begun() {
        let plan = plan("controlPlaneEndpoint: api:6443\n");
        let check = |host: &FakeHost, facts: &Facts| check(host, facts, &plan, true, &Events::nowhere());
        assert_eq!(check(&FakeHost::new(), &able()), Ok(()));
        let mut taken = able();
        taken.listening.push(crate::fact::Listening { address: "0.0.0.0".parse().unwrap(), port: 2379, process: None });
        assert_eq!(check(&FakeHost::new(), &taken).unwrap_err().kind, Kind::Preflight);
        let begun = FakeHost::new().file("/etc/kubernetes/admin.conf", "");
        assert_eq!(check(&begun, &taken), Ok(()));
    }
}
