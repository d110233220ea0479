//! Files that make a host a node.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::plugins::Plugins;
use super::sweep::Sweep;
use super::{Traces, directories};
use crate::failure::Result;
use crate::host::{Command, Host};
use crate::kubernetes::podnetwork::{self, UNIT};
use crate::message::ResetOrder;
use crate::node::etcd::Trace;
use crate::node::manifest::flag;
use crate::node::network;
use crate::secret::Secret;

/// kubeconfigs of a node (kubeadm.md section 12).
const KUBECONFIGS: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
];

/// Upstream's folder for copies and for what is under way.
const TEMPORARY: &str = "/etc/kubernetes/tmp";

/// Directories that kubeadm empties, besides those of certificates and of etcd's data.
const OF_KUBEADM: &[&str] = &["/etc/kubernetes/manifests", TEMPORARY, "/var/lib/kubelet"];

/// More directories that only Kubernetes fills.
const DIRECTORIES: &[&str] = &["/var/lib/cni", "/var/log/pods", "/var/log/containers", "/run/kubernetes"];

/// Directories that are removed when nothing else is in them, the inner ones first.
const DIRECTORIES_IF_EMPTY: &[&str] = &[
    TEMPORARY,
    "/etc/kubernetes",
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec",
    "/usr/libexec/kubernetes/kubelet-plugins/volume",
    "/usr/libexec/kubernetes/kubelet-plugins",
    "/usr/libexec/kubernetes",
];

/// Reads where the parts of this node lie.
pub(super) fn traces(host: &dyn Host) -> Result<Traces> {
    let text = |path: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&host.read(Path::new(path))?.unwrap_or_default()).into_owned())
    };
    let api_server = text("/etc/kubernetes/manifests/kube-apiserver.yaml")?;
    let etcd = text("/etc/kubernetes/manifests/etcd.yaml")?;
    let absolute = |found: Option<String>, default: &str| {
        found.map(PathBuf::from).filter(|path| safe_to_empty(path)).unwrap_or_else(|| PathBuf::from(default))
    };
    let certificates =
        flag(&api_server, "client-ca-file").and_then(|file| Some(file.strip_suffix("/ca.crt")?.to_owned()));
    let certificates = absolute(certificates, "/etc/kubernetes/pki");
    let admin = text("/etc/kubernetes/admin.conf")?;
    // A static pod that says nothing of data is of an etcd that kubeadm did not make (kubeadm.md section 12).
    let data = flag(&etcd, "data-dir");
    let etcd_data = (data.is_some() || etcd.is_empty()).then(|| absolute(data, "/var/lib/etcd"));
    Ok(Traces {
        etcd: Trace::read(host, &etcd, &certificates)?,
        admin: Some(admin).filter(|text| !text.is_empty()).map(Secret::new),
        certificates,
        etcd_data,
        bridge: bridge(host)?,
        plugins: Plugins::read(host)?,
    })
}

/// Whether a directory named by a file may be emptied: at least two levels deep and without tricks.
fn safe_to_empty(path: &Path) -> bool {
    use std::path::Component;
    let mut components = path.components();
    let absolute = components.next() == Some(Component::RootDir);
    let rest: Vec<Component> = components.collect();
    absolute && rest.len() >= 2 && rest.iter().all(|component| matches!(component, Component::Normal(_)))
}

/// The bridge our CNI configuration names.
fn bridge(host: &dyn Host) -> Result<Option<String>> {
    let Some(content) = host.read(&network::cni_file())? else { return Ok(None) };
    let configuration: Value = serde_json::from_slice(&content).unwrap_or_default();
    let plugins = configuration["plugins"].as_array().into_iter().flatten();
    Ok(plugins.filter_map(|plugin| plugin["bridge"].as_str()).next().map(str::to_owned))
}

/// Removes them.
pub(super) async fn remove(host: &dyn Host, traces: &Traces, order: &ResetOrder, sweep: &mut Sweep) {
    remove_unit(host, sweep).await;
    for path in KUBECONFIGS.iter().map(PathBuf::from).chain([network::cni_file()]) {
        sweep.changes_of(remove_file(host, &path), &format!("{} removed", path.display()));
    }
    remove_of_plugins(host, &traces.plugins, sweep);
    let kept = |directory: &&&str| !order.keep_temporary || **directory != TEMPORARY;
    let mut of_kubeadm: Vec<PathBuf> = OF_KUBEADM.iter().filter(kept).map(PathBuf::from).collect();
    of_kubeadm.push(traces.certificates.clone());
    let named = order.certificates.as_ref().map(PathBuf::from).filter(|named| *named != traces.certificates);
    of_kubeadm.extend(named.filter(|named| safe_to_empty(named)));
    for directory in of_kubeadm {
        directories::clean(host, &directory, sweep);
    }
    for directory in DIRECTORIES {
        sweep.changes_of(directories::remove(host, Path::new(directory)), &format!("{directory} removed"));
    }
    if order.keep_temporary {
        remove_own_notes(host, sweep);
    }
    for directory in DIRECTORIES_IF_EMPTY {
        let removed = directories::remove_if_empty(host, Path::new(directory));
        sweep.changes_of(removed, &format!("{directory} removed"));
    }
}

/// Removes etcd's data with their directory.
pub(super) fn remove_data(host: &dyn Host, traces: &Traces, sweep: &mut Sweep) {
    if let Some(directory) = of_data(traces, sweep) {
        directories::clean(host, directory, sweep);
    }
}

/// Removes etcd's data; the directory stays, for its static pod may have it mounted.
pub(super) fn empty_data(host: &dyn Host, traces: &Traces, sweep: &mut Sweep) {
    if let Some(directory) = of_data(traces, sweep) {
        directories::empty(host, directory, sweep);
    }
}

/// Where the data are that go; where nobody says, that is said.
fn of_data<'a>(traces: &'a Traces, sweep: &mut Sweep) -> Option<&'a Path> {
    if traces.etcd_data.is_none() {
        sweep.leave(
            "etcd's data stay: its static pod does not say where they are; remove them, too, if they are of no use",
        );
    }
    traces.etcd_data.as_deref()
}

/// Removes what plugins of others left in files. Those that nobody knows stay, for another runtime or another cluster may
/// need them.
fn remove_of_plugins(host: &dyn Host, plugins: &Plugins, sweep: &mut Sweep) {
    let files = match plugins.files(host) {
        Ok(files) => files,
        Err(failure) => return sweep.resisted(failure),
    };
    for path in &files.files {
        sweep.changes_of(remove_file(host, Path::new(path)), &format!("{path} removed"));
    }
    for path in &files.directories {
        sweep.changes_of(directories::remove(host, Path::new(path)), &format!("{path} removed"));
    }
    for path in &files.left {
        sweep.leave(format!("{path} stays: remove it, too, if the plugin it configures is of no use any more"));
    }
}

/// Removes what we noted among what others put there: it speaks of a node that is no more.
fn remove_own_notes(host: &dyn Host, sweep: &mut Sweep) {
    match host.list(Path::new(TEMPORARY)) {
        Ok(names) => {
            for name in names.iter().filter(|name| name.starts_with("clusterctl-")) {
                let path = Path::new(TEMPORARY).join(name);
                sweep.changes_of(remove_file(host, &path), &format!("{} removed", path.display()));
            }
        }
        Err(failure) => sweep.resisted(failure),
    }
}

/// Stops and removes our unit with its scripts. What it undoes when it is stopped is done here too: it may have failed to
/// start.
async fn remove_unit(host: &dyn Host, sweep: &mut Sweep) {
    let unit = network::unit_file();
    match host.entry(&unit) {
        Ok(None) => return,
        Ok(Some(_)) => {}
        Err(failure) => return sweep.resisted(failure),
    }
    let script = match host.read(&network::teardown_file()) {
        Ok(content) => String::from_utf8_lossy(&content.unwrap_or_default()).into_owned(),
        Err(failure) => return sweep.resisted(failure),
    };
    let mut commands = vec![Command::new("systemctl", &["disable", "--now", "--quiet", UNIT])];
    for arguments in podnetwork::teardown_commands(&script) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        commands.extend(words.split_first().map(|(program, rest)| Command::new(*program, rest)));
    }
    for command in commands {
        // What is gone already makes them end with another status than 0.
        if let Err(failure) = host.run(command).await {
            sweep.resisted(failure);
        }
    }
    let scripts = Path::new(network::SCRIPT_DIRECTORY);
    sweep.changes_of(directories::remove(host, scripts), &format!("{} removed", scripts.display()));
    // Last: where this is broken off before, the next run finds it and goes on.
    sweep.changes_of(remove_file(host, &unit), &format!("{} removed", unit.display()));
    if let Err(failure) = host.run(Command::new("systemctl", &["daemon-reload"])).await {
        sweep.resisted(failure);
    }
}

fn remove_file(host: &dyn Host, path: &Path) -> Result<bool> {
    let there = host.entry(path)?.is_some();
    host.remove(path)?;
    Ok(there)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rstest::rstest;

    use super::{remove, remove_data, safe_to_empty, traces};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::message::ResetOrder;
    use crate::node::reset::sweep::Sweep;

    #[rstest]
    #[case("/var/lib/etcd", true)]
    #[case("/etc", false)]
    #[case("/", false)]
    #[case("/var/lib/../..", false)]
    #[case("var/lib/etcd", false)]
    fn only_a_proper_directory_is_emptied(#[case] path: &str, #[case] safe: bool) {
        assert_eq!(safe_to_empty(Path::new(path)), safe);
    }

    fn node() -> FakeHost {
        FakeHost::new()
            .file("/etc/kubernetes/manifests/etcd.yaml", "    - --data-dir=/data/etcd/member\n")
            .file(
                "/etc/kubernetes/manifests/kube-apiserver.yaml",
                "    - --client-ca-file=/etc/kubernetes/certs/ca.crt\n",
            )
            .file("/etc/kubernetes/certs/ca.crt", "")
            .file("/etc/kubernetes/admin.conf", "")
            .file("/etc/kubernetes/audit-policy.yaml", "mine")
            .file("/data/etcd/member/db", "")
            .file("/var/lib/kubelet/config.yaml", "")
            .file("/etc/cni/net.d/10-flannel.conflist", "{}")
            .file(super::network::cni_file(), r#"{"plugins": [{"type": "bridge", "bridge": "cni0"}]}"#)
    }

    #[tokio::test]
    async fn a_node_leaves_nothing_but_what_a_person_put_there() {
        let host = node();
        let traces = traces(&host).unwrap();
        assert_eq!(traces.etcd_data, Some(PathBuf::from("/data/etcd/member")));
        assert_eq!(traces.certificates, PathBuf::from("/etc/kubernetes/certs"));
        assert_eq!(traces.bridge.as_deref(), Some("cni0"));
        let mut sweep = Sweep::new(&Events::nowhere());
        remove(&host, &traces, &ResetOrder::default(), &mut sweep).await;
        assert!(host.text("/data/etcd/member/db").is_some());
        remove_data(&host, &traces, &mut sweep);
        assert!(sweep.finish().unwrap() > 4);
        let files: Vec<_> =
            host.listing().into_iter().filter(|(_, entry)| entry.0 == crate::host::EntryKind::File).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(host.text("/etc/kubernetes/audit-policy.yaml").as_deref(), Some("mine"));
        let mut again = Sweep::new(&Events::nowhere());
        remove(&host, &traces, &ResetOrder::default(), &mut again).await;
        remove_data(&host, &traces, &mut again);
        assert_eq!(again.finish(), Ok(0));
    }

    #[rstest]
    #[case::named(Some("    - --data-dir=/data/etcd\n"), Some("/data/etcd"))]
    #[case::no_static_pod(None, Some("/var/lib/etcd"))]
    #[case::not_to_be_emptied(Some("    - --data-dir=/\n"), Some("/var/lib/etcd"))]
    #[case::of_somebody_else(Some("kind: Pod\n"), None)]
    fn where_data_are(#[case] manifest: Option<&str>, #[case] expected: Option<&str>) {
        let host = FakeHost::new();
        let host = match manifest {
            Some(text) => host.file("/etc/kubernetes/manifests/etcd.yaml", text),
            None => host,
        };
        let traces = traces(&host).unwrap();
        assert_eq!(traces.etcd_data.as_deref(), expected.map(Path::new));
        let mut sweep = Sweep::new(&Events::nowhere());
        remove_data(&host, &traces, &mut sweep);
        assert_eq!(sweep.left().len(), usize::from(expected.is_none()));
    }
}
