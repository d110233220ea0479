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
    let ignore = &plan.init.node_registration.ignore_preflight_errors;
    let mut of_etcd = Vec::new();
    if !with_key {
        let mut shared = shared(&plan.cluster);
        if let Some(etcd) = &plan.cluster.etcd.external {
            of_etcd = preflight::external_etcd_files(host, etcd, ignore)?;
            // Their lack is the finding of that check.
            shared.retain(|file| ![&etcd.ca_file, &etcd.cert_file, &etcd.key_file].contains(&&file.path));
        }
        let missing = missing(host, &shared)?;
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
            return preflight::judge(&of_etcd, events);
        }
    }
    let mut of_host = preflight::preflight(
        facts,
        &preflight::Plan {
            purpose: Purpose::JoinControlPlane,
            cluster: "",
            kubernetes: &plan.version,
            bind_port: plan.init.local_api_endpoint.bind_port,
            listen: plan.listen(),
            etcd_data: plan.etcd_data(),
            ignore,
        },
    );
    of_host.extend(preflight::chosen_etcd_data(host, plan.etcd_data(), ignore)?);
    of_host.retain(|finding| finding.severity == Severity::Error);
    of_host.extend(of_etcd);
    preflight::judge(&of_host, events)
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
    use std::path::Path;

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

    const EXTERNAL: &str = "controlPlaneEndpoint: api:6443\netcd: {external: {endpoints: ['https://10.0.0.9:2379'], \
                            caFile: /etc/etcd/ca.crt, certFile: /etc/etcd/client.crt, keyFile: /etc/etcd/client.key}}\n";

    #[rstest]
    #[case::nobody_brings_them(EXTERNAL, false, Some(3))]
    #[case::they_are_downloaded(EXTERNAL, true, None)]
    #[case::etcd_without_tls(
        "controlPlaneEndpoint: api:6443\netcd: {external: {endpoints: ['http://10.0.0.9:2379']}}\n",
        false,
        None
    )]
    #[tokio::test]
    async fn files_of_an_external_etcd_are_kubeadms_finding(
        #[case] more: &str,
        #[case] with_key: bool,
        #[case] lacking: Option<usize>,
    ) {
        let pki = ["ca.crt", "front-proxy-ca.crt", "sa.pub", "sa.key"];
        let shared = |host: FakeHost, name: &&str| host.file(format!("/etc/kubernetes/pki/{name}"), "");
        let host = pki.iter().fold(FakeHost::new(), shared);
        for begun in [false, true] {
            if begun {
                host.put(Path::new("/etc/kubernetes/admin.conf"), b"", 0o600);
            }
            let mut plan = plan(more);
            let outcome = check(&host, &able(), &plan, with_key, &Events::nowhere());
            let failure = outcome.err();
            assert_eq!(failure.is_some(), lacking.is_some(), "{failure:?}");
            if let Some(failure) = failure {
                assert_eq!(failure.kind, Kind::Preflight);
                let lines = failure.detail.unwrap_or_default();
                let named = lines.lines().filter(|line| line.starts_with("ExternalEtcdClientCertificates: "));
                assert_eq!(Some(named.count()), lacking, "{lines}");
            }
            plan.init.node_registration.ignore_preflight_errors = vec!["ExternalEtcdClientCertificates".into()];
            let (events, mut heard) = Events::channel();
            assert_eq!(check(&host, &able(), &plan, with_key, &events), Ok(()));
            drop(events);
            let mut warnings = 0;
            while heard.recv().await.is_some() {
                warnings += 1;
            }
            assert_eq!(warnings, lacking.unwrap_or(0));
        }
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
