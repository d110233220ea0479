//! Phase kubelet-start, for init and join alike (kubeadm.md sections 5 and 5.6): the kubelet's files, then the kubelet.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::health::Probe;
use super::phase::Changes;
use super::{diagnosis, files, sysctls, unit};
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host, systemd};
use crate::kubernetes::configuration::{ClusterConfiguration, NodeRegistrationOptions, documents};
use crate::kubernetes::kubelet;
use crate::kubernetes::patches::{Patches, Target};
use crate::kubernetes::version::Release;

/// The kubelet's unit.
pub(super) const UNIT: &str = "kubelet";

/// The change that it was started.
const STARTED: &str = "kubelet started";

/// The unit of the host's resolver, where it is systemd's.
const RESOLVED: &str = "systemd-resolved";

/// What a kubelet is started with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) cluster: &'a ClusterConfiguration,
    pub(super) release: &'static Release,
    pub(super) node: &'a NodeRegistrationOptions,
    /// The host's own name, lower case.
    pub(super) hostname: &'a str,
    /// The KubeletConfiguration that all nodes of the cluster share.
    pub(super) shared: &'a Value,
    /// Whether it joins as a worker, which registers its taints itself.
    pub(super) joining_worker: bool,
    /// What a person lays over the configuration on this node.
    pub(super) patches: &'a Patches,
}

/// The kubelet's files as they are to be, and whether it works, by the program that is there now: nothing is altered yet.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// Paths and texts, in the order in which they are written.
    files: Vec<(&'static str, String)>,
    works: bool,
}

/// Writes the kubelet's files and (re)starts it; a kubelet that runs with these files already goes on undisturbed.
pub(super) async fn start(host: &dyn Host, settings: &Settings<'_>, other_changes: bool) -> Result<Changes> {
    begin(host, prepare(host, settings).await?, other_changes).await
}

/// Makes the texts of the kubelet's files.
///
/// # Errors
/// Kind `Configuration` for patches that do not fit.
pub(super) async fn prepare(host: &dyn Host, settings: &Settings<'_>) -> Result<Prepared> {
    // Asked of both at once; what the kubelet is matters only where none of its files is written.
    let [resolved, kubelet] = systemd::show_each(host, [RESOLVED, UNIT]).await?;
    Ok(Prepared { files: texts(settings, resolved.active)?, works: kubelet.works() && !kubelet.outdated })
}

/// Writes what [`prepare`] made, and (re)starts the kubelet if anything changed or it does not work.
pub(super) async fn begin(host: &dyn Host, prepared: Prepared, other_changes: bool) -> Result<Changes> {
    sysctls::note(host)?;
    host.create_directory(Path::new(kubelet::DIRECTORY), 0o700)?;
    let mut changes = Vec::new();
    for (path, text) in prepared.files {
        if files::ensure(host, Path::new(path), text.as_bytes(), 0o644)? {
            changes.push(format!("{path} written"));
        }
    }
    if !changes.is_empty() || other_changes || !prepared.works {
        unit::restart(host, UNIT).await?;
        changes.push(STARTED.to_owned());
    }
    Ok(changes)
}

/// Whether the kubelet was started (anew) among these changes.
pub(super) fn is_started(changes: &[String]) -> bool {
    changes.iter().any(|change| change == STARTED)
}

/// `resolved` says whether systemd-resolved runs: then the kubelet reads the servers it knows.
fn texts(settings: &Settings<'_>, resolved: bool) -> Result<Vec<(&'static str, String)>> {
    let socket =
        Some(settings.node.cri_socket.as_str()).filter(|_| settings.release.uses_instance_config(settings.cluster));
    let document = kubelet::node_configuration(settings.shared, resolved, socket);
    let document = settings.patches.apply(Target::KubeletConfiguration, document)?;
    let flags = kubelet::flags_text(settings.cluster, settings.node, settings.hostname, settings.joining_worker)?;
    let mut wanted = vec![(kubelet::FLAGS_PATH, flags)];
    // Before config.yaml (kubeadm.md section 5.3).
    wanted.extend(
        socket.map(|socket| (kubelet::INSTANCE_CONFIGURATION_PATH, kubelet::instance_configuration_text(socket))),
    );
    wanted.push((kubelet::CONFIGURATION_PATH, kubelet::configuration_text(&document)));
    Ok(wanted)
}

/// The kubelet's health path by its configuration; `None` where a person turned it off.
fn probe(configuration: &Value) -> Option<Probe> {
    let port = configuration["healthzPort"].as_u64().unwrap_or(10248);
    let address = match configuration["healthzBindAddress"].as_str().unwrap_or_default() {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        address if address.contains(':') => format!("[{address}]"),
        address => address.to_owned(),
    };
    let server = format!("http://{address}:{port}");
    (port != 0).then(|| Probe { component: "the kubelet".to_owned(), server, path: "/healthz".to_owned() })
}

/// How often a kubelet may end by itself before waiting is given up: it is started again every 10 s, so a passing cause
/// has had its chance.
const RESTARTS: u32 = 2;

/// Time between two looks at that.
const WATCH: Duration = Duration::from_secs(1);

/// Waits until the kubelet is healthy, where the configuration on this host puts its health path: a person's patches are in
/// it. Gives up early on one that ends again and again.
///
/// # Errors
/// Kind `Cluster`, with the kubelet's last lines.
pub(super) async fn wait(host: &dyn Host, limit: Duration) -> Result<()> {
    let text = files::text(host, Path::new(kubelet::CONFIGURATION_PATH))?.unwrap_or_default();
    // What cannot be read the kubelet cannot read either, and says so in its log.
    let configuration = documents(&text).ok().and_then(|read| read.into_iter().next()).unwrap_or_default();
    let Some(probe) = probe(&configuration) else { return Ok(()) };
    let waited = tokio::select! {
        waited = probe.wait(limit) => waited,
        failure = keeps_ending(host, limit, WATCH) => Err(failure),
    };
    match waited {
        Ok(()) => Ok(()),
        Err(failure) => Err(diagnosis::explain(host, failure, &[]).await),
    }
}

/// Watches how often systemd had to start the kubelet again; ends only with the failure that it was too often.
async fn keeps_ending(host: &dyn Host, limit: Duration, every: Duration) -> Failure {
    let first = OnceLock::new();
    let wait = Wait::new("the kubelet", "become healthy", limit).every(every);
    let watched = wait
        .until(async || {
            let shown = host.run(Command::new("systemctl", &["show", "-p", "NRestarts", "--value", UNIT])).await?;
            let Ok(count) = shown.text().trim().parse::<u32>() else { return Ok(Look::NotYet(String::new())) };
            if count.saturating_sub(*first.get_or_init(|| count)) < RESTARTS {
                return Ok(Look::NotYet(String::new()));
            }
            Err(Failure::new(Kind::Cluster, "the kubelet ends again and again right after it is started"))
        })
        .await;
    match watched {
        Ok(()) => Failure::new(Kind::Internal, "watching the kubelet ended"),
        Err(failure) => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::json;

    use super::{Settings, keeps_ending, probe, start, wait};
    use crate::host::Output;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::{ClusterConfiguration, NodeRegistrationOptions};
    use crate::kubernetes::patches::Patches;
    use crate::kubernetes::version::Release;

    #[rstest]
    #[case(json!({}), Some("http://127.0.0.1:10248"))]
    #[case(json!({"healthzBindAddress": "::", "healthzPort": 1}), Some("http://[::1]:1"))]
    #[case(json!({"healthzPort": 0}), None)]
    fn the_health_path_follows_the_configuration(#[case] shared: serde_json::Value, #[case] server: Option<&str>) {
        assert_eq!(probe(&shared).map(|probe| probe.server).as_deref(), server);
    }

    #[tokio::test]
    async fn a_kubelet_with_these_files_goes_on() {
        let cluster = ClusterConfiguration { kubernetes_version: "v1.36.3".into(), ..Default::default() };
        let node = NodeRegistrationOptions {
            name: "w1".into(),
            cri_socket: "unix:///run/containerd/containerd.sock".into(),
            ..Default::default()
        };
        let release = Release::of(&semver::Version::new(1, 36, 3)).unwrap();
        let shared = json!({"kind": "KubeletConfiguration", "healthzPort": 10248});
        let patch = ("/p/kubeletconfiguration+merge.yaml".to_owned(), "healthzPort: 0\n".to_owned());
        let (patches, _) = Patches::read(&[patch], release).unwrap();
        let settings = Settings {
            cluster: &cluster,
            release,
            node: &node,
            hostname: "w1",
            shared: &shared,
            joining_worker: true,
            patches: &patches,
        };
        let host = FakeHost::new()
            .answer(&["systemctl"], 0, "")
            .every_unit("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n");
        assert_eq!(start(&host, &settings, false).await.unwrap().len(), 4);
        assert!(host.done().contains(&"run systemctl restart kubelet".to_owned()));
        assert!(host.text("/var/lib/kubelet/config.yaml").unwrap().contains("containerRuntimeEndpoint"));
        // A patch took its health path away: there is nothing to wait for.
        assert_eq!(wait(&host, Duration::from_secs(60)).await, Ok(()));
        host.forget();
        assert!(start(&host, &settings, false).await.unwrap().is_empty());
        assert!(!host.done().contains(&"run systemctl restart kubelet".to_owned()));
    }

    #[tokio::test]
    async fn a_kubelet_that_keeps_ending_is_given_up_early() {
        let starts = std::sync::atomic::AtomicU32::new(3);
        let host = FakeHost::new().answer_with(&["systemctl", "show", "-p", "NRestarts"], move |_, _| {
            let count = starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Output { stdout: count.to_string().into_bytes(), ..Output::default() })
        });
        let failure = keeps_ending(&host, Duration::from_secs(240), Duration::from_millis(1)).await;
        assert!(failure.sentence.starts_with("the kubelet ends again and again"), "{failure}");
    }
}
