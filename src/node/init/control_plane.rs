//! Phases etcd and control-plane: the four static pods (kubeadm.md section 4).

use std::path::Path;

use super::plan::Plan;
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::configuration::EnvVar;
use crate::kubernetes::manifests::{self, CA_DIRECTORIES, EtcdMember, Manifest, ManifestOrder};
use crate::kubernetes::patches::Target;
use crate::kubernetes::tag::{is_newer_etcd, repository_and_tag};
use crate::kubernetes::version;
use crate::node::files;
use crate::node::manifest::{flag, image};
use crate::node::phase::Changes;

/// The kubelet runs what lies here; files under way are made elsewhere and renamed into it.
pub(super) const DIRECTORY: &str = "/etc/kubernetes/manifests";

/// Which static pods are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Part {
    /// etcd and the API server, which need nobody.
    Server,
    /// etcd alone: where its member joins others, the API server has to wait until that has a vote.
    Etcd,
    /// The API server alone.
    ApiServer,
    /// The controller manager. Started before the API server takes requests it only takes processor time from it, and is
    /// refused its lease for seconds.
    ControllerManager,
    /// The scheduler, likewise. It is needed later, and asks more slowly again for all that it was refused.
    Scheduler,
}

/// Whether the last manifest of a part is there.
pub(in crate::node) fn there(host: &dyn Host, part: Part) -> Result<bool> {
    let name = match part {
        Part::Server | Part::ApiServer => "kube-apiserver",
        Part::Etcd => "etcd",
        Part::ControllerManager => "kube-controller-manager",
        Part::Scheduler => "kube-scheduler",
    };
    Ok(host.entry(&Path::new(DIRECTORY).join(format!("{name}.yaml")))?.is_some())
}

/// Makes the folder that the kubelet watches.
pub(super) fn make_room(host: &dyn Host) -> Result<()> {
    host.create_directory(Path::new(DIRECTORY), 0o700).map(drop)
}

/// Writes the manifests of a part that are missing or differ.
pub(in crate::node) fn write(host: &dyn Host, plan: &Plan, part: Part) -> Result<Changes> {
    let mut ca_directories = Vec::new();
    for directory in CA_DIRECTORIES {
        if host.entry(Path::new(directory))?.is_some() {
            ca_directories.push(directory.to_owned());
        }
    }
    let proxy_environment: Vec<EnvVar> =
        proxy_environment().into_iter().map(|(name, value)| EnvVar { name, value, value_from: None }).collect();
    // A member that has started never looks at them again, and rewriting them would only restart it.
    let etcd_members = match plan.etcd_members.as_slice() {
        [] => joined_members(host)?,
        members => members.to_vec(),
    };
    let etcd_tag = etcd_tag(host, plan)?;
    let order = ManifestOrder {
        cluster: &plan.cluster,
        local: &plan.init.local_api_endpoint,
        node_name: plan.node_name(),
        health_check: plan.init.timeouts.control_plane_component_health_check,
        ca_directories: &ca_directories,
        external_ca: host.entry(&plan.pki("ca.crt"))?.is_some() && host.entry(&plan.pki("ca.key"))?.is_none(),
        proxy_environment: &proxy_environment,
        etcd_members: &etcd_members,
        etcd_tag: etcd_tag.as_deref(),
    };
    let mut wanted = Vec::new();
    if let (Part::Server | Part::Etcd, true, Some(etcd)) = (part, plan.phases.wants("etcd"), &plan.cluster.etcd.local) {
        host.create_directory(Path::new(&etcd.data_dir), 0o700)?;
        wanted.push((Target::Etcd, manifests::etcd(&order)?));
    }
    let component = match part {
        Part::Etcd => None,
        Part::Server | Part::ApiServer => {
            Some(("control-plane/apiserver", Target::ApiServer, manifests::api_server(&order)?))
        }
        Part::ControllerManager => {
            let manifest = manifests::controller_manager(&order)?;
            Some(("control-plane/controller-manager", Target::ControllerManager, manifest))
        }
        Part::Scheduler => Some(("control-plane/scheduler", Target::Scheduler, manifests::scheduler(&order)?)),
    };
    let component = component.filter(|(path, ..)| plan.phases.wants(path));
    wanted.extend(component.map(|(_, target, manifest)| (target, manifest)));
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    make_room(host)?;
    let mut changes = Vec::new();
    for (target, manifest) in wanted {
        let manifest = Manifest { pod: plan.patches.apply(target, manifest.pod)?, ..manifest };
        let path = Path::new(DIRECTORY).join(manifest.file_name());
        if files::ensure(host, &path, manifest.to_text().as_bytes(), 0o600)? {
            changes.push(format!("{} written", path.display()));
        }
    }
    Ok(changes)
}

/// The members that the host's etcd joined, as its static pod names them; none on the first control plane.
pub(in crate::node) fn joined_members(host: &dyn Host) -> Result<Vec<EtcdMember>> {
    let text = files::text(host, &Path::new(DIRECTORY).join("etcd.yaml"))?.unwrap_or_default();
    if flag(&text, "initial-cluster-state").as_deref() != Some("existing") {
        return Ok(Vec::new());
    }
    let members = flag(&text, "initial-cluster").unwrap_or_default();
    let members = members.split(',').filter_map(|member| {
        let (name, peer_url) = member.split_once('=')?;
        Some(EtcdMember { name: name.to_owned(), peer_url: peer_url.to_owned() })
    });
    Ok(members.collect())
}

/// The tag of etcd's image, where it is not the release's: that of the etcd the host joins, or of its own member if that is
/// newer, since no member goes back ('1.37 and corrections', A).
fn etcd_tag(host: &dyn Host, plan: &Plan) -> Result<Option<String>> {
    let text = files::text(host, &Path::new(DIRECTORY).join("etcd.yaml"))?.unwrap_or_default();
    let wanted = plan.etcd_tag.as_deref().unwrap_or_else(|| plan.release.etcd_tag(&plan.version));
    let images = version::images(&plan.cluster)?;
    let repository = repository_and_tag(&images.etcd).map(|(repository, _)| repository);
    // An image from elsewhere is a patch's, which is laid over again.
    let own = image(&text).and_then(repository_and_tag);
    let newer = own.filter(|(from, tag)| Some(*from) == repository && is_newer_etcd(tag, wanted));
    Ok(newer.map(|(_, tag)| tag.to_owned()).or_else(|| plan.etcd_tag.clone()))
}

/// The proxy variables of our environment (kubeadm.md section 4.1), sorted by name.
pub(super) fn proxy_environment() -> Vec<(String, String)> {
    let is_proxy = |name: &str, value: &str| name.to_lowercase().ends_with("_proxy") && !value.is_empty();
    let mut found: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| is_proxy(name, value))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Part, Plan, write};
    use crate::host::fake::FakeHost;
    use crate::kubernetes::manifests::EtcdMember;
    use crate::node::init::plan::tests::plan;

    const PARTS: [Part; 3] = [Part::Server, Part::ControllerManager, Part::Scheduler];

    #[test]
    fn four_pods_once_etcd_first() {
        let host = FakeHost::new();
        let plan = plan("");
        let changes = PARTS.map(|part| write(&host, &plan, part).unwrap()).concat();
        let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        assert_eq!(changes, names.map(|name| format!("/etc/kubernetes/manifests/{name}.yaml written")));
        for part in PARTS {
            assert!(write(&host, &plan, part).unwrap().is_empty());
        }
    }

    #[rstest]
    #[case::key_and_certificate(&["ca.crt", "ca.key"], false)]
    #[case::certificate_alone(&["ca.crt"], true)]
    // As in a rehearsal, or where certs is left to a person.
    #[case::neither(&[], false)]
    fn a_ca_without_its_key_signs_nothing(#[case] there: &[&str], #[case] external: bool) {
        let host = FakeHost::new();
        for name in there {
            host.put(format!("/etc/kubernetes/pki/{name}").as_ref(), b"", 0o600);
        }
        write(&host, &plan(""), Part::ControllerManager).unwrap();
        let text = host.text("/etc/kubernetes/manifests/kube-controller-manager.yaml").unwrap();
        assert_eq!(text.contains("- --cluster-signing-key-file=\n"), external, "{text}");
    }

    #[test]
    fn a_member_that_joined_keeps_the_members_it_was_started_with() {
        let host = FakeHost::new();
        let member =
            |name: &str, address: &str| EtcdMember { name: name.into(), peer_url: format!("https://{address}:2380") };
        let joining = Plan { etcd_members: vec![member("cp0", "10.0.0.10"), member("cp1", "10.0.0.11")], ..plan("") };
        assert_eq!(write(&host, &joining, Part::Etcd).unwrap().len(), 1);
        let text = host.text("/etc/kubernetes/manifests/etcd.yaml").unwrap();
        assert!(text.contains("- --initial-cluster=cp0=https://10.0.0.10:2380,cp1=https://10.0.0.11:2380\n"), "{text}");
        assert!(write(&host, &plan(""), Part::Etcd).unwrap().is_empty());
        assert_eq!(write(&host, &plan(""), Part::ApiServer).unwrap().len(), 1);
        assert!(write(&host, &plan(""), Part::Server).unwrap().is_empty());
    }

    #[rstest]
    #[case::of_the_release(None, None, "registry.k8s.io/etcd:3.6.8-0")]
    #[case::of_the_etcd_it_joins(Some("3.6.5-0"), None, "registry.k8s.io/etcd:3.6.5-0")]
    #[case::its_own_is_newer(None, Some("registry.k8s.io/etcd:3.7.0-0"), "registry.k8s.io/etcd:3.7.0-0")]
    #[case::its_own_is_older(None, Some("registry.k8s.io/etcd:3.5.24-0"), "registry.k8s.io/etcd:3.6.8-0")]
    #[case::a_patch_took_it_from_elsewhere(None, Some("mine/etcd:9.9.9"), "registry.k8s.io/etcd:3.6.8-0")]
    fn etcd_does_not_go_back(#[case] joined: Option<&str>, #[case] own: Option<&str>, #[case] image: &str) {
        let host = FakeHost::new();
        if let Some(own) = own {
            host.put("/etc/kubernetes/manifests/etcd.yaml".as_ref(), format!("    image: {own}\n").as_bytes(), 0o600);
        }
        let plan = Plan { etcd_tag: joined.map(str::to_owned), ..plan("") };
        write(&host, &plan, Part::Etcd).unwrap();
        let text = host.text("/etc/kubernetes/manifests/etcd.yaml").unwrap();
        assert!(text.contains(&format!("    image: {image}\n")), "{text}");
    }
}
