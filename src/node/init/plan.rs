//! What `init` is to make: the documents of the order, completed by what the host is, judged before anything is touched.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use semver::Version;
use serde_json::Value;

use super::control_plane::joined_members;
use super::kubeconfigs;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::configuration::{
    self, ClusterConfiguration, InitConfiguration, JoinConfiguration, JoinControlPlane, subnets,
};
use crate::kubernetes::manifests::EtcdMember;
use crate::kubernetes::patches::Patches;
use crate::kubernetes::version::{self, Release};
use crate::message::InitOrder;
use crate::node::phases::{self, Selection};
use crate::node::preflight::ListenAddresses;
use crate::node::rehearse::Door;
use crate::node::{defaults, patches, phase};

/// Phases of `join` by what they are in `init`.
const JOINING: &[(&str, &str)] = &[
    ("control-plane-prepare/certs", "certs"),
    ("control-plane-prepare/kubeconfig", "kubeconfig"),
    ("control-plane-prepare/control-plane", "control-plane"),
    ("etcd-join", "etcd"),
    ("wait-control-plane", "wait-control-plane"),
];

/// The plan of one `init`.
#[derive(Debug, Clone)]
pub(in crate::node) struct Plan {
    /// Completed and valid.
    pub(in crate::node) init: InitConfiguration,
    /// Completed and valid.
    pub(in crate::node) cluster: ClusterConfiguration,
    /// What a person wants of the kubelets.
    pub(in crate::node) kubelet: Option<Value>,
    /// What a person wants of kube-proxy.
    pub(in crate::node) kube_proxy: Option<Value>,
    /// Whether a person gave bootstrap tokens; else one that is there may serve.
    pub(in crate::node) tokens_given: bool,
    /// Whether all images are on the host, so that the scheduler starts beside the controller manager.
    pub(in crate::node) images_there: bool,
    /// Whether hosts are waiting to join.
    pub(in crate::node) issue_ticket: bool,
    /// What a person lays over what is made.
    pub(in crate::node) patches: Patches,
    /// How the API server is reached.
    pub(in crate::node) door: Door,
    /// Where kubeconfigs are written.
    pub(in crate::node) kubeconfigs: PathBuf,
    /// The kubeconfig of the administrator, where it is another than the one that is written here.
    pub(in crate::node) administrator: Option<PathBuf>,
    /// Whether control planes are waiting to join.
    pub(in crate::node) upload_certificates: bool,
    /// Whether the host joins a cluster that is there: what all control planes share is never made then.
    pub(in crate::node) joining: bool,
    /// Whether the host has joined its cluster some time before.
    pub(in crate::node) joined_before: bool,
    /// etcd's members, the host's own included, when it has just been added to them; empty on the first control plane, and
    /// on one whose member has started.
    pub(in crate::node) etcd_members: Vec<EtcdMember>,
    /// Tag of the etcd that the host joins, where that is not the one of the release.
    pub(in crate::node) etcd_tag: Option<String>,
    /// Which phases are done.
    pub(in crate::node) phases: Selection,
    /// The host's own name, lower case.
    pub(in crate::node) hostname: String,
    /// The version that is made.
    pub(in crate::node) version: Version,
    /// What is special about it.
    pub(in crate::node) release: &'static Release,
}

impl Plan {
    /// Reads an order.
    ///
    /// # Errors
    /// Kind `Configuration` for what the documents say; kind `Preflight` when the host has no address to announce.
    pub(in crate::node) fn load(host: &dyn Host, facts: &Facts, order: &InitOrder, events: &Events) -> Result<Self> {
        let plan = Self::load_phases(host, facts, order, None, events)?;
        if plan.init.dry_run {
            return Err(Failure::new(
                Kind::Configuration,
                "InitConfiguration asks for a dry run, and `up` does for real",
            )
            .advise("take dryRun out; `clusterctl node init --dry-run` on the host says what would be done"));
        }
        if plan.issue_ticket && !plan.phases.wants("bootstrap-token") {
            return Err(Failure::new(
                Kind::Configuration,
                "skipPhases leaves out bootstrap-token, without which no other host can join",
            )
            .advise("take bootstrap-token out of skipPhases, or the other hosts out of the inventory"));
        }
        Ok(plan)
    }

    /// Reads an order of which only one phase is wanted, or all.
    ///
    /// # Errors
    /// As [`Plan::load`]; kind `Usage` for a phase there is not.
    pub(in crate::node) fn load_phases(
        host: &dyn Host,
        facts: &Facts,
        order: &InitOrder,
        only: Option<&str>,
        events: &Events,
    ) -> Result<Self> {
        let documents = configuration::load(order.configuration.expose())?;
        for warning in &documents.warnings {
            events.warn(warning.clone());
        }
        if documents.init.is_none() && documents.cluster.is_none() {
            return Err(Failure::new(
                Kind::Configuration,
                "there is neither an InitConfiguration nor a ClusterConfiguration",
            ));
        }
        let mut init = documents.init.unwrap_or_default();
        let mut cluster = documents.cluster.unwrap_or_default();
        let tokens_given = !init.bootstrap_tokens.is_empty();
        init.complete(&defaults::of(host, facts)?)?;
        cluster.complete(init.local_api_endpoint.bind_port)?;
        let phases = phases::INIT.select(only, &init.skip_phases)?;
        // A cluster remembers that add-ons were left out (kubeadm.md section 16.3).
        let left_out = phases::INIT.select(None, &init.skip_phases)?;
        cluster.dns.disabled |= !left_out.wants("addon/coredns");
        cluster.proxy.disabled |= !left_out.wants("addon/kube-proxy");
        init.validate()?;
        cluster.validate()?;
        let version = version::parse(&cluster.kubernetes_version)?;
        let release = Release::of(&version)?;
        let patches = patches::read(host, init.patches.as_ref(), release, events)?;
        Ok(Self {
            init,
            cluster,
            kubelet: documents.kubelet,
            kube_proxy: documents.kube_proxy,
            tokens_given,
            images_there: false,
            issue_ticket: order.issue_ticket,
            patches,
            door: Door::Real,
            kubeconfigs: PathBuf::from(kubeconfigs::DIRECTORY),
            administrator: None,
            upload_certificates: order.upload_certificates,
            joining: false,
            joined_before: !joined_members(host)?.is_empty(),
            etcd_members: Vec::new(),
            etcd_tag: None,
            phases,
            hostname: facts.hostname.clone(),
            version,
            release,
        })
    }

    /// The plan of a control plane that joins: the cluster's own configuration with this node's on top, as kubeadm lays it
    /// (kubeadm.md section 10.2).
    pub(in crate::node) fn joining(
        join: &JoinConfiguration,
        control_plane: &JoinControlPlane,
        cluster: ClusterConfiguration,
        version: Version,
        release: &'static Release,
        hostname: &str,
    ) -> Self {
        let init = InitConfiguration {
            node_registration: join.node_registration.clone(),
            local_api_endpoint: control_plane.local_api_endpoint.clone(),
            patches: join.patches.clone(),
            timeouts: join.timeouts,
            ..InitConfiguration::default()
        };
        Self {
            init,
            cluster,
            kubelet: None,
            kube_proxy: None,
            tokens_given: false,
            images_there: false,
            issue_ticket: false,
            upload_certificates: false,
            joining: true,
            joined_before: false,
            etcd_members: Vec::new(),
            etcd_tag: None,
            patches: Patches::default(),
            door: Door::Real,
            kubeconfigs: PathBuf::from(kubeconfigs::DIRECTORY),
            administrator: None,
            phases: Selection::whole(&phases::INIT),
            hostname: hostname.to_owned(),
            version,
            release,
        }
    }

    /// The plan with a person's patches, and without what these phases of `join` leave out.
    pub(in crate::node) fn laid_out(mut self, patches: &Patches, joining: &Selection) -> Self {
        let left_out: Vec<&str> =
            JOINING.iter().filter(|(phase, _)| !joining.wants(phase)).map(|(_, path)| *path).collect();
        self.phases = self.phases.without(&left_out);
        self.patches = patches.clone();
        self
    }

    /// The plan without waiting for what a dry run does not start.
    pub(in crate::node) fn waiting_for_nothing(mut self) -> Self {
        self.phases = self.phases.without(&["preflight", "wait-control-plane"]);
        self
    }

    /// A phase that is left out unless any of `path` is wanted; `id` is that of the step a person sees.
    pub(super) async fn phase<T: Default>(
        &self,
        events: &Events,
        (path, id): (&str, &str),
        title: &str,
        work: impl Future<Output = Result<(phase::Changes, T)>>,
    ) -> Result<(u32, T)> {
        if !self.phases.wants(path) {
            return Ok((0, T::default()));
        }
        phase::phase(events, id, title, work).await
    }

    /// Name of the Node.
    pub(in crate::node) fn node_name(&self) -> &str {
        &self.init.node_registration.name
    }

    /// Where the etcd on this host keeps its data; `None` where etcd is elsewhere.
    pub(in crate::node) fn etcd_data(&self) -> Option<&str> {
        self.cluster.etcd.local.as_ref().map(|local| local.data_dir.as_str())
    }

    /// What the components on this host are told to listen on.
    pub(in crate::node) fn listen(&self) -> ListenAddresses {
        ListenAddresses::of(&self.cluster, &self.init.local_api_endpoint.advertise_address)
    }

    /// A path below certificatesDir.
    pub(in crate::node) fn pki(&self, path: &str) -> PathBuf {
        Path::new(&self.cluster.certificates_dir).join(path)
    }

    /// Addresses whose families this node must forward: its own, and those of pods and services.
    pub(in crate::node) fn addresses(&self) -> Vec<IpAddr> {
        let networks = [&self.cluster.networking.service_subnet, &self.cluster.networking.pod_subnet];
        let networks =
            networks.into_iter().filter_map(|list| subnets(list).ok()).flat_map(|networks| networks.into_iter());
        let own = self.init.local_api_endpoint.advertise_address.parse().ok();
        networks.map(|network| network.addr()).chain(own).collect()
    }
}

#[cfg(test)]
pub(in crate::node) mod tests {
    use rstest::rstest;

    use super::Plan;
    use crate::event::Events;
    use crate::fact::{Facts, LinkAddress, Route};
    use crate::host::fake::FakeHost;
    use crate::message::InitOrder;
    use crate::secret::Secret;

    pub(in crate::node) fn facts() -> Facts {
        Facts {
            hostname: "cp1".into(),
            addresses: vec![LinkAddress { link: "eth0".into(), address: "10.0.0.11/24".parse().unwrap() }],
            routes: vec![Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                via: Some("10.0.0.1".parse().unwrap()),
                link: "eth0".into(),
            }],
            ..Facts::default()
        }
    }

    /// Those of a host that is fit for a control plane.
    pub(in crate::node) fn able() -> Facts {
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

    pub(in crate::node) fn order(more: &str) -> InitOrder {
        let configuration = Secret::new(format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: 1.36.3\n\
             encryptionAlgorithm: ECDSA-P256\nnetworking: {{podSubnet: 10.244.0.0/16}}\n{more}"
        ));
        InitOrder { configuration, issue_ticket: true, upload_certificates: false }
    }

    /// A plan with quick keys for the host cp1.
    pub(in crate::node::init) fn plan(more: &str) -> Plan {
        Plan::load(&FakeHost::new(), &facts(), &order(more), &Events::nowhere()).unwrap()
    }

    #[test]
    fn an_order_is_completed_by_what_the_host_is() {
        let plan = plan("");
        assert_eq!(plan.node_name(), "cp1");
        assert_eq!(plan.init.local_api_endpoint.url(), "https://10.0.0.11:6443");
        assert!(!plan.tokens_given);
        assert_eq!(plan.pki("ca.crt").to_str(), Some("/etc/kubernetes/pki/ca.crt"));
    }

    #[test]
    fn add_ons_that_are_left_out_are_remembered_in_the_cluster() {
        let skip = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nskipPhases: [addon/kube-proxy]\n";
        let plan = plan(skip);
        assert!(plan.cluster.proxy.disabled && !plan.cluster.dns.disabled);
    }

    #[rstest]
    #[case("dryRun: true", "InitConfiguration asks for a dry run")]
    #[case("skipPhases: [bootstrap-token]", "skipPhases leaves out bootstrap-token")]
    #[case("skipPhases: [bootstrap]", "invalid phase name")]
    #[case("patches: {directory: /none}", "there is no folder of patches /none")]
    fn orders_that_cannot_be_followed(#[case] more: &str, #[case] sentence: &str) {
        let order = order(&format!("---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n{more}\n"));
        let failure = Plan::load(&FakeHost::new(), &facts(), &order, &Events::nowhere()).unwrap_err();
        assert!(failure.sentence.starts_with(sentence), "{failure}");
    }

    #[test]
    fn an_order_without_documents_is_refused() {
        let order = InitOrder { configuration: Secret::new(""), issue_ticket: true, upload_certificates: false };
        let failure = Plan::load(&FakeHost::new(), &facts(), &order, &Events::nowhere()).unwrap_err();
        assert!(failure.sentence.starts_with("there is neither"), "{failure}");
    }
}
