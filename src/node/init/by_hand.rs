//! `init` as a person types it on the host: kubeadm's checks of an untouched host first, then everything in one go.

use std::path::Path;

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

/// Does the whole workflow, or with `only` one phase of it.
///
/// # Errors
/// As [`super::init`]; kind `Usage` for a phase there is not.
pub async fn init_by_hand(
    host: &dyn Host,
    facts: &Facts,
    order: &InitOrder,
    only: Option<&str>,
    events: &Events,
) -> Result<Initialised> {
    let plan = load(host, facts, order, only, events)?;
    run(host, facts, &plan, events).await
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
    only: Option<&str>,
    folder: &Path,
    events: &Events,
) -> Result<(Initialised, Rehearsed)> {
    let mut plan = load(host, facts, order, only, events)?;
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

fn load(host: &dyn Host, facts: &Facts, order: &InitOrder, only: Option<&str>, events: &Events) -> Result<Plan> {
    if only == Some(SHOW) {
        return Err(Failure::new(Kind::Usage, format!("{SHOW} has nothing to show without a token of the same run"))
            .advise("use `clusterctl node token create --print-join-command`"));
    }
    let mut plan = Plan::load_phases(host, facts, order, only, events)?;
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
        local_etcd: plan.cluster.etcd.external.is_none(),
        ignore: &node.ignore_preflight_errors,
    };
    let mut findings = preflight::preflight(facts, &checks);
    if unfinished {
        findings.retain(|finding| !left_behind(finding));
    }
    findings.extend(prepared(host, plan).await?);
    preflight::judge(&findings, events)?;
    let wanted = version::images(&plan.cluster)?;
    images::fetch(host, node, &wanted.wanted(&plan.cluster, true), events).await.map(drop)
}

fn left_behind(finding: &Finding) -> bool {
    LEFT_BEHIND.iter().any(|beginning| finding.name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{init_by_hand, rehearse_init};
    use crate::event::Events;
    use crate::fact::Facts;
    use crate::failure::Kind;
    use crate::host::Host as _;
    use crate::host::fake::FakeHost;
    use crate::message::InitOrder;
    use crate::node::init::plan::tests::{facts, order};

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
            .answer(&["systemctl", "show"], 0, unit)
    }

    fn able() -> Facts {
        let programs = ["mount", "losetup", "cp"].map(str::to_owned).to_vec();
        Facts {
            cpus: 2,
            memory_bytes: 4 << 30,
            cgroup_version: 2,
            cgroup_controllers: ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].map(str::to_owned).to_vec(),
            kernel: "6.12.0".into(),
            kernel_options: Some(crate::node::kernel_options().map(str::to_owned).collect()),
            programs,
            ..facts()
        }
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
        init_by_hand(&host, &facts(), &order(""), Some(phase), &Events::nowhere()).await.unwrap();
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
        let failed = init_by_hand(&host, &facts(), &order(""), Some(phase), &Events::nowhere()).await.unwrap_err();
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
            rehearse_init(&host, &able(), &order, None, Path::new("/tmp/dry"), &Events::nowhere()).await.unwrap();
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
            rehearse_init(&prepared(), &facts(), &order, None, Path::new("/tmp/dry"), &Events::nowhere())
                .await
                .unwrap();
        assert!(done.ticket.is_none());
        assert!(told.objects.iter().all(|object| object["kind"] != "DaemonSet" && object["kind"] != "Secret"));
        assert!(!told.host.iter().any(|line| line.contains("/sa.key")), "{:?}", told.host);
    }

    #[tokio::test]
    async fn a_host_that_does_not_fit_is_told_by_kubeadms_names() {
        let host = prepared();
        let failed = init_by_hand(&host, &facts(), &order(""), None, &Events::nowhere()).await.unwrap_err();
        assert_eq!(failed.kind, Kind::Preflight);
        let detail = failed.detail.unwrap();
        assert!(detail.contains("NumCPU: ") && detail.contains("Mem: "), "{detail}");
        assert!(host.list(Path::new("/etc/kubernetes")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_unfinished_run_is_not_in_its_own_way() {
        let host = prepared().answer(&["ctr", "--address"], 1, "");
        let mut facts = able();
        facts.kubernetes.manifests = vec!["etcd.yaml".into()];
        let run = async |host: &FakeHost| {
            init_by_hand(host, &facts, &with(""), None, &Events::nowhere()).await.unwrap_err().sentence
        };
        assert!(run(&host).await.starts_with("FileAvailable--etc-kubernetes-manifests-etcd.yaml"));
        let host = host.file("/etc/kubernetes/tmp/clusterctl-init", "");
        // The next thing that is wrong: containerd does not answer.
        assert!(run(&host).await.starts_with("containerd does not list its images"));
    }
}
