//! `init` as a person types it on the host: kubeadm's checks of an untouched host first, then everything in one go.

use std::path::Path;

use serde_json::Value;

use super::plan::Plan;
use super::{bring_up, finish, prepared};
use crate::api::Rehearsal;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::overlay::Overlay;
use crate::kubernetes::version;
use crate::message::{InitOrder, Initialised};
use crate::node::preflight::{self, Finding, Purpose};
use crate::node::rehearse::{self, Door, Rehearsed};
use crate::node::{files, images};

/// There from the first change of a whole `init` to its end: with it, what lies on the host is our own unfinished work,
/// and not in the way.
const UNDER_WAY: &str = "/etc/kubernetes/tmp/clusterctl-init";

/// What an earlier run leaves on a host when it breaks off.
const LEFT_BEHIND: &[&str] = &["Port-", "FileAvailable-", "DirAvailable-"];

/// What a person who types may want besides the documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByHand<'a> {
    /// One phase alone: `certs/ca`.
    pub only: Option<&'a str>,
    /// Where the phase kubeconfig writes; /etc/kubernetes without it.
    pub kubeconfig_directory: Option<&'a Path>,
    /// The kubeconfig that phases in the cluster work with; admin.conf without it.
    pub kubeconfig: Option<&'a Path>,
}

impl ByHand<'_> {
    fn lay_over(self, plan: &mut Plan) {
        if let Some(directory) = self.kubeconfig_directory {
            plan.kubeconfigs = directory.to_owned();
        }
        plan.administrator = self.kubeconfig.map(Path::to_owned);
    }
}

/// Does the whole workflow, or one phase of it.
///
/// # Errors
/// As [`super::init`]; kind `Usage` for a phase there is not.
pub async fn init_by_hand(
    host: &dyn Host,
    facts: &Facts,
    order: &InitOrder,
    by_hand: ByHand<'_>,
    events: &Events,
) -> Result<Initialised> {
    let plan = load(host, facts, order, by_hand, events)?;
    run(host, facts, &plan, events).await
}

/// The objects of the phase addon, or of one part of it, for a person to apply. Nothing is asked and nothing is altered.
///
/// # Errors
/// Kind `Configuration` for what the documents say; kind `Usage` for a phase there is not.
pub fn addon_manifests(
    host: &dyn Host,
    facts: &Facts,
    order: &InitOrder,
    only: &str,
    events: &Events,
) -> Result<Vec<Value>> {
    let plan = load(host, facts, order, ByHand { only: Some(only), ..ByHand::default() }, events)?;
    super::addons::of(&plan)
}

/// Says what [`init_by_hand`] would do: the same steps over a host that only notes and a server that is only played. Files
/// that would be written lie below `folder` afterwards.
///
/// # Errors
/// As [`init_by_hand`], as far as a host shows it before anything runs.
pub async fn rehearse_init(
    host: &dyn Host,
    facts: &Facts,
    order: &InitOrder,
    by_hand: ByHand<'_>,
    folder: &Path,
    events: &Events,
) -> Result<(Initialised, Rehearsed)> {
    let mut plan = load(host, facts, order, by_hand, events)?;
    let server = Rehearsal::default().with(rehearse::node(plan.node_name()));
    plan.door = Door::Rehearsed(server.clone());
    let left_out: Vec<&str> = WAITS.iter().filter(|phase| plan.phases.wants(phase)).copied().collect();
    plan.phases = plan.phases.without(WAITS);
    let overlay = Overlay::new(host, folder);
    let done = run(&overlay, facts, &plan, events).await?;
    Ok((done, Rehearsed::of(&overlay, &server, &left_out)))
}

/// The phase that only prints.
const SHOW: &str = "show-join-command";

/// Phases that wait for pods, which a dry run does not start.
const WAITS: &[&str] = &["wait-control-plane"];

fn load(host: &dyn Host, facts: &Facts, order: &InitOrder, by_hand: ByHand<'_>, events: &Events) -> Result<Plan> {
    if by_hand.only == Some(SHOW) {
        return Err(Failure::new(Kind::Usage, format!("{SHOW} has nothing to show without a token of the same run"))
            .advise("use `clusterctl node token create --print-join-command`"));
    }
    let mut plan = Plan::load_phases(host, facts, order, by_hand.only, events)?;
    by_hand.lay_over(&mut plan);
    // As kubeadm does: every run makes a token of its own.
    plan.tokens_given = true;
    // Preflight has looked for them.
    plan.images_there = true;
    Ok(plan)
}

async fn run(host: &dyn Host, facts: &Facts, plan: &Plan, events: &Events) -> Result<Initialised> {
    if plan.phases.wants("preflight") {
        check(host, facts, plan, events).await?;
    }
    let whole = plan.phases.is_whole();
    if whole {
        files::ensure(host, Path::new(UNDER_WAY), b"", 0o600)?;
    }
    let (mut done, client) = bring_up(host, plan, events).await?;
    done.joined.changes += finish(host, plan, client, events).await?;
    if whole {
        host.remove(Path::new(UNDER_WAY))?;
        done.ticket = done.ticket.filter(|_| plan.phases.wants(SHOW));
    }
    Ok(done)
}

/// Phase preflight: the host, what was prepared on it, and its images.
async fn check(host: &dyn Host, facts: &Facts, plan: &Plan, events: &Events) -> Result<()> {
    let node = &plan.init.node_registration;
    let unfinished = host.entry(Path::new(UNDER_WAY))?.is_some();
    let checks = preflight::Plan {
        purpose: Purpose::Init,
        cluster: "",
        kubernetes: &plan.version,
        bind_port: plan.init.local_api_endpoint.bind_port,
        listen: plan.listen(),
        etcd_data: plan.etcd_data(),
        ignore: &node.ignore_preflight_errors,
    };
    let mut findings = preflight::preflight(facts, &checks);
    if unfinished {
        findings.retain(|finding| !left_behind(finding));
    }
    let ignore = &node.ignore_preflight_errors;
    let by_hand = preflight::by_hand(host, plan.release, &node.cri_socket, ignore);
    let (prepared, by_hand) = tokio::join!(prepared(host, plan), by_hand);
    findings.extend(prepared?);
    findings.extend(by_hand);
    preflight::judge(&findings, events)?;
    let wanted = version::images(&plan.cluster)?;
    images::judge_sandbox(host, node, &wanted.pause, events).await;
    images::fetch(host, node, &wanted.wanted(&plan.cluster, true), events).await.map(drop)
}

fn left_behind(finding: &Finding) -> bool {
    LEFT_BEHIND.iter().any(|beginning| finding.name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{ByHand, addon_manifests, init_by_hand, rehearse_init};
    use crate::event::Events;
    use crate::failure::Kind;
    use crate::host::Host as _;
    use crate::host::fake::FakeHost;
    use crate::message::InitOrder;
    use crate::node::init::plan::tests::{able, facts, order};

    /// A host on which everything is prepared.
    fn prepared() -> FakeHost {
        let unit = "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nNeedDaemonReload=no\n";
        FakeHost::new()
            .directory("/tmp/dry")
            .file("/proc/sys/net/ipv4/ip_forward", "1\n")
            .file("/var/run/containerd/containerd.sock", "")
            .answer(&["kubelet", "--version"], 0, "Kubernetes v1.36.3\n")
            .answer(&["ctr"], 0, "REF TYPE DIGEST SIZE PLATFORMS LABELS\n")
            .answer(&["systemctl"], 0, "")
            .every_unit(unit)
    }

    fn one(phase: &str) -> ByHand<'_> {
        ByHand { only: Some(phase), ..ByHand::default() }
    }

    #[tokio::test]
    async fn kubeconfigs_go_where_a_person_wants_them() {
        let host = FakeHost::new();
        for phase in ["certs/ca", "kubeconfig/admin"] {
            let by_hand = ByHand { kubeconfig_directory: Some(Path::new("/srv/kubeconfigs")), ..one(phase) };
            init_by_hand(&host, &facts(), &order(""), by_hand, &Events::nowhere()).await.unwrap();
        }
        assert_eq!(host.list(Path::new("/srv/kubeconfigs")).unwrap(), ["admin.conf"]);
        assert!(host.text("/etc/kubernetes/admin.conf").is_none());
    }

    #[rstest]
    #[case("bootstrap-token")]
    #[case("addon")]
    #[case("upload-config")]
    #[tokio::test]
    async fn phases_in_the_cluster_take_the_kubeconfig_that_is_named(#[case] phase: &str) {
        let by_hand = ByHand { kubeconfig: Some(Path::new("/root/mine")), ..one(phase) };
        let failed = init_by_hand(&FakeHost::new(), &facts(), &order(""), by_hand, &Events::nowhere()).await;
        assert_eq!(failed.unwrap_err().sentence, "there is no /root/mine");
    }

    #[rstest]
    #[case("addon", &["ClusterRole", "Deployment", "DaemonSet"], 2)]
    #[case("addon/coredns", &["Deployment"], 1)]
    #[case("addon/kube-proxy", &["DaemonSet"], 1)]
    fn add_ons_can_be_printed_on_a_bare_host(#[case] phase: &str, #[case] kinds: &[&str], #[case] config_maps: usize) {
        let printed = addon_manifests(&FakeHost::new(), &facts(), &order(""), phase, &Events::nowhere()).unwrap();
        let there: Vec<&str> = printed.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert!(kinds.iter().all(|kind| there.contains(kind)), "{there:?}");
        assert_eq!(there.iter().filter(|kind| **kind == "ConfigMap").count(), config_maps);
    }

    fn with(more: &str) -> InitOrder {
        order(&format!("---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n{more}"))
    }

    #[rstest]
    #[case("certs/ca", &["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key"])]
    #[case("certs/sa", &["/etc/kubernetes/pki/sa.key", "/etc/kubernetes/pki/sa.pub"])]
    #[case("etcd", &["/etc/kubernetes/manifests/etcd.yaml"])]
    #[case("control-plane/scheduler", &["/etc/kubernetes/manifests/kube-scheduler.yaml"])]
    #[tokio::test]
    async fn one_phase_writes_its_files_and_no_others(#[case] phase: &str, #[case] files: &[&str]) {
        let host = FakeHost::new();
        init_by_hand(&host, &facts(), &order(""), one(phase), &Events::nowhere()).await.unwrap();
        let written: Vec<String> = host
            .listing()
            .into_iter()
            .filter(|(_, (kind, ..))| *kind == crate::host::EntryKind::File)
            .map(|(path, _)| path.display().to_string())
            .collect();
        assert_eq!(written, files);
    }

    #[rstest]
    #[case("certs/apiserver", "there is no /etc/kubernetes/pki/ca.crt to sign with", "phase certs ca`")]
    #[case("certs/etcd-peer", "there is no /etc/kubernetes/pki/etcd/ca.crt to sign with", "phase certs etcd-ca`")]
    #[case("kubeconfig/admin", "there is no /etc/kubernetes/pki/ca.crt to sign with", "phase certs ca`")]
    #[tokio::test]
    async fn a_phase_that_needs_another_names_it(#[case] phase: &str, #[case] sentence: &str, #[case] advice: &str) {
        let host = FakeHost::new();
        let failed = init_by_hand(&host, &facts(), &order(""), one(phase), &Events::nowhere()).await.unwrap_err();
        assert_eq!(failed.sentence, sentence);
        assert!(failed.advice.unwrap().contains(advice));
        assert!(host.list(Path::new("/etc/kubernetes")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_dry_run_plays_everything_and_alters_nothing() {
        let host = prepared();
        let before: Vec<_> = host.listing().into_keys().filter(|path| !path.starts_with("/tmp/dry")).collect();
        let order = with("patches: {directory: /tmp/patches}\n");
        let host = host.file("/tmp/patches/etcd+merge.yaml", "metadata: {labels: {mine: 'yes'}}\n");
        let (done, told) =
            rehearse_init(&host, &able(), &order, ByHand::default(), Path::new("/tmp/dry"), &Events::nowhere())
                .await
                .unwrap();
        assert!(done.ticket.is_some());
        let after: Vec<_> = host.listing().into_keys().filter(|path| !path.starts_with("/tmp")).collect();
        assert!(after.iter().all(|path| before.contains(path)), "{after:?}");
        assert!(host.text("/tmp/dry/etc/kubernetes/manifests/etcd.yaml").unwrap().contains("    mine: \"yes\"\n"));
        assert!(told.host.contains(&"run systemctl restart kubelet".to_owned()), "{:?}", told.host);
        assert!(told.host.iter().any(|line| line.contains("images pull registry.k8s.io/kube-apiserver:v1.36.3")));
        let kinds: Vec<&str> = told.objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        for kind in ["ConfigMap", "Secret", "Deployment", "DaemonSet", "Node"] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        assert_eq!(told.left_out, ["wait-control-plane"]);
    }

    #[tokio::test]
    async fn what_is_left_out_is_not_done() {
        let order = with("skipPhases: [addon/kube-proxy, bootstrap-token, preflight, certs/sa]\n");
        let (done, told) =
            rehearse_init(&prepared(), &facts(), &order, ByHand::default(), Path::new("/tmp/dry"), &Events::nowhere())
                .await
                .unwrap();
        assert!(done.ticket.is_none());
        assert!(told.objects.iter().all(|object| object["kind"] != "DaemonSet" && object["kind"] != "Secret"));
        assert!(!told.host.iter().any(|line| line.contains("/sa.key")), "{:?}", told.host);
    }

    #[tokio::test]
    async fn a_host_that_does_not_fit_is_told_by_kubeadms_names() {
        let host = prepared();
        let failed =
            init_by_hand(&host, &facts(), &order(""), ByHand::default(), &Events::nowhere()).await.unwrap_err();
        assert_eq!(failed.kind, Kind::Preflight);
        let detail = failed.detail.unwrap();
        assert!(detail.contains("NumCPU: ") && detail.contains("Mem: "), "{detail}");
        assert!(host.list(Path::new("/etc/kubernetes")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_unfinished_run_is_not_in_its_own_way() {
        let host = prepared().answer_with(&["ctr", "--address"], |_, command| {
            // It lists its plugins, and not its images.
            let status = i32::from(command.arguments.iter().any(|word| word == "images"));
            Ok(crate::host::Output { status, ..Default::default() })
        });
        let mut facts = able();
        facts.kubernetes.manifests = vec!["etcd.yaml".into()];
        let run = async |host: &FakeHost| {
            init_by_hand(host, &facts, &with(""), ByHand::default(), &Events::nowhere()).await.unwrap_err().sentence
        };
        assert!(run(&host).await.starts_with("FileAvailable--etc-kubernetes-manifests-etcd.yaml"));
        let host = host.file("/etc/kubernetes/tmp/clusterctl-init", "");
        // The next thing that is wrong: containerd does not answer.
        assert!(run(&host).await.starts_with("containerd does not list its images"));
    }
}
