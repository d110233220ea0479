//! `join` as a person types it on the host: kubeadm's checks of the host first, one phase alone, dry runs.

use std::path::Path;

use super::{Images, load, run};
use crate::api::Rehearsal;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::Result;
use crate::host::Host;
use crate::host::overlay::Overlay;
use crate::kubernetes::configuration::JoinConfiguration;
use crate::kubernetes::version::{self, Release};
use crate::message::{JoinOrder, Joined};
use crate::node::phases::{self, Selection};
use crate::node::preflight::{self, Finding, Purpose};
use crate::node::rehearse::Rehearsed;

/// Phases that alter the cluster or wait for it, which a dry run does not.
const WAITS: &[&str] =
    &["check-etcd", "etcd-join", "kubelet-wait-bootstrap", "control-plane-join", "wait-control-plane"];

/// kubeadm's name of the check of the kubelet's port.
const KUBELET_PORT: &str = "Port-10250";

/// Does the whole workflow, or with `only` one phase of it; the cluster is found and read in any case.
///
/// # Errors
/// As [`super::join`]; kind `Usage` for a phase there is not.
pub async fn join_by_hand(
    host: &dyn Host,
    facts: &Facts,
    order: &JoinOrder,
    only: Option<&str>,
    events: &Events,
) -> Result<Joined> {
    let (configuration, phases) = prepare(host, facts, order, only, events)?;
    run(host, facts, configuration, &phases, Images::Fetched, events).await
}

/// Says what [`join_by_hand`] would do on the host; the cluster is found and read, and not altered. Files that would be
/// written lie below `folder` afterwards.
///
/// # Errors
/// As [`join_by_hand`], as far as it shows before anything runs.
pub async fn rehearse_join(
    host: &dyn Host,
    facts: &Facts,
    order: &JoinOrder,
    only: Option<&str>,
    folder: &Path,
    events: &Events,
) -> Result<Rehearsed> {
    let (configuration, phases) = prepare(host, facts, order, only, events)?;
    let control_plane = configuration.control_plane.is_some();
    let concerns = |phase: &&str| control_plane || *phase == "kubelet-wait-bootstrap";
    let left_out: Vec<&str> = WAITS.iter().copied().filter(|phase| phases.wants(phase)).filter(concerns).collect();
    let overlay = Overlay::new(host, folder);
    run(&overlay, facts, configuration, &phases.without(WAITS), Images::Fetched, events).await?;
    Ok(Rehearsed::of(&overlay, &Rehearsal::default(), &left_out))
}

fn prepare(
    host: &dyn Host,
    facts: &Facts,
    order: &JoinOrder,
    only: Option<&str>,
    events: &Events,
) -> Result<(JoinConfiguration, Selection)> {
    let configuration = load(host, facts, order, events)?;
    let phases = phases::JOIN.select(only, &configuration.skip_phases)?;
    if phases.wants("preflight") {
        check(facts, &configuration, events)?;
    }
    Ok((configuration, phases))
}

/// Checks of the host that need no cluster. What lies on it of an earlier join is judged later, beside the cluster: its
/// own member may run this again.
fn check(facts: &Facts, configuration: &JoinConfiguration, events: &Events) -> Result<()> {
    let control_plane = configuration.control_plane.as_ref();
    let kubelet = facts.kubernetes.kubelet_version.as_deref().and_then(|text| version::parse(text).ok());
    let Some(kubernetes) = kubelet.or_else(|| version::parse(version::DEFAULT_VERSION).ok()) else { return Ok(()) };
    let checks = preflight::Plan {
        purpose: if control_plane.is_some() { Purpose::JoinControlPlane } else { Purpose::JoinWorker },
        cluster: "",
        kubernetes: &kubernetes,
        bind_port: control_plane.map_or(6443, |control_plane| control_plane.local_api_endpoint.bind_port),
        listen: preflight::ListenAddresses::default(),
        // Where etcd is only the cluster tells; its ports and folder are judged with that.
        etcd_data: None,
        ignore: &configuration.node_registration.ignore_preflight_errors,
    };
    let mut findings = preflight::preflight(facts, &checks);
    findings.retain(|finding| !may_be_ours(finding, facts));
    if Release::nearest(&kubernetes).port_checks_follow_address {
        // What a control plane's components listen on only the cluster tells, too.
        findings.retain(|finding| !finding.name.starts_with("Port-") || finding.name == KUBELET_PORT);
    }
    preflight::judge(&findings, events)
}

/// What an earlier run of the same join leaves on the host: files, and where there are some, ports.
fn may_be_ours(finding: &Finding, facts: &Facts) -> bool {
    let there = &facts.kubernetes;
    let begun = there.kubelet_conf || there.bootstrap_kubelet_conf || !there.manifests.is_empty();
    let of_files = ["FileAvailable-", "DirAvailable-"].iter().any(|beginning| finding.name.starts_with(beginning));
    of_files || (begun && finding.name.starts_with("Port-"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{check, join_by_hand, may_be_ours};
    use crate::event::Events;
    use crate::fact::Listening;
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::message::JoinOrder;
    use crate::node::init::tests::{able, facts};
    use crate::node::join::load;
    use crate::node::join::tests::order;
    use crate::node::preflight::{Finding, Severity};
    use crate::secret::Secret;

    #[rstest]
    #[case(Some("kubelet-stat"), Kind::Usage)]
    #[case(None, Kind::Preflight)]
    #[tokio::test]
    async fn what_is_wrong_here_is_said_before_any_cluster_is_asked(#[case] only: Option<&str>, #[case] kind: Kind) {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n\
                    discovery: {file: {kubeConfigPath: /none}}\n";
        let order = JoinOrder { configuration: Secret::new(text) };
        let failed = join_by_hand(&FakeHost::new(), &facts(), &order, only, &Events::nowhere()).await.unwrap_err();
        assert_eq!(failed.kind, kind, "{failed}");
    }

    #[test]
    fn somebody_elses_etcd_on_the_host_is_not_in_the_way() {
        let mut facts = able();
        facts.listening.push(Listening { address: "10.0.0.11".parse().unwrap(), port: 2379, process: None });
        facts.kubernetes.etcd_data = true;
        let configuration = load(&FakeHost::new(), &facts, &order("controlPlane: {}\n"), &Events::nowhere()).unwrap();
        assert_eq!(check(&facts, &configuration, &Events::nowhere()), Ok(()));
        facts.listening.push(Listening { address: "10.0.0.11".parse().unwrap(), port: 10257, process: None });
        let failure = check(&facts, &configuration, &Events::nowhere()).unwrap_err();
        assert!(failure.sentence.starts_with("Port-10257: "), "{failure}");
    }

    #[rstest]
    #[case("Port-10250", true, true)]
    #[case("Port-10250", false, false)]
    #[case("FileAvailable--etc-kubernetes-pki-ca.crt", false, true)]
    #[case("FileExisting-mount", true, false)]
    #[case("SystemVerification", true, false)]
    fn traces_of_an_earlier_run(#[case] name: &str, #[case] begun: bool, #[case] ours: bool) {
        let mut facts = facts();
        facts.kubernetes.kubelet_conf = begun;
        let finding = Finding { name: name.into(), severity: Severity::Error, message: String::new() };
        assert_eq!(may_be_ours(&finding, &facts), ours);
    }
}
