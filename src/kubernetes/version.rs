//! What differs between Kubernetes minors, as data (kubeadm.md sections 0.1, 0.3 and '1.37 and corrections'), and the
//! names of images (section 4.7).
//!
//! We act as the kubeadm of the very minor that is deployed, so one table serves for what upstream splits into
//! constants of the tool and maps of the deployed version.

use semver::Version;

use super::configuration::ClusterConfiguration;
use crate::failure::{Failure, Kind, Result};

/// How `extraArgs` join the default arguments of a component (kubeadm.md section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentOrder {
    /// Everything sorted together by name and value (older patch releases).
    AllSorted,
    /// Defaults sorted, then `extraArgs` as given.
    DefaultsThenExtras,
}

/// A value that holds from a patch release on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since<T> {
    /// First patch release with the value.
    pub patch: u64,
    /// The value.
    pub value: T,
}

/// How a minor names etcd's check at start and its progress notifications (kubeadm.md section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdFlags {
    /// Always `--experimental-initial-corrupt-check` and its like, whatever image a person names.
    Experimental,
    /// Those for an image older than 3.6.0, else the new ones.
    ByImage,
    /// Always `--feature-gates=InitialCorruptCheck=true` and its like.
    New,
}

/// Which kernels kubeadm's check SystemVerification takes (kubeadm.md section 1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelRule {
    /// 4.19 and all after it; another is an error.
    AtLeast,
    /// 5.4, 5.10, 5.15, and all from 6 on; another is a warning.
    LongTerm,
}

/// One Kubernetes minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The minor version: 36 for 1.36.
    pub minor: u64,
    /// Tags of the etcd image, oldest first.
    pub etcd_tags: &'static [Since<&'static str>],
    /// The oldest etcd that may be somebody else's, as major, minor and patch; oldest rule first.
    pub least_external_etcd: &'static [Since<(u64, u64, u64)>],
    /// Tag of the CoreDNS image.
    pub coredns_tag: &'static str,
    /// Tag of the pause image.
    pub pause_tag: &'static str,
    /// Whether kubeadm-flags.env carries `--pod-infra-container-image` (rejected by the kubelet from 1.35 on).
    pub pod_infra_container_image_flag: bool,
    /// Whether the CRI socket goes into instance-config.yaml unless the feature gate NodeLocalCRISocket says
    /// otherwise; if not, it goes into kubeadm-flags.env and into the Node's annotation.
    pub instance_config: bool,
    /// Whether the feature gate NodeLocalCRISocket can still change that.
    pub instance_config_gate: bool,
    /// Whether probes use the named port `probe-port` and containers list it.
    pub named_probe_port: bool,
    /// First patch release that leaves extraArgs in their order, behind the sorted defaults; before it, everything is
    /// sorted together.
    pub extra_arguments_keep_order: Since<()>,
    /// `mode` that kubeadm writes into the kube-proxy configuration when it is empty.
    pub kube_proxy_mode: &'static str,
    /// First patch release whose apiserver-kubelet-client certificate has no organization; before it, the
    /// organization is kubeadm:cluster-admins.
    pub kubelet_client_without_organization: Since<()>,
    /// Whether the controller manager mounts the flexvolume directory.
    pub flexvolume_mount: bool,
    /// Which flags turn on etcd's check at start and its progress notifications.
    pub etcd_flags: EtcdFlags,
    /// Whether kubeconfig files carry `preferences: {}` and pods `creationTimestamp: null`.
    pub empty_fields_written: bool,
    /// Whether the CoreDNS container names its probe ports.
    pub coredns_named_probe_ports: bool,
    /// Whether the DaemonSet of kube-proxy can be patched.
    pub kube_proxy_patches: bool,
    /// Whether the feature gate ControlPlaneKubeletLocalMode can have the kubelet of a control plane that joins talk to the
    /// control plane endpoint; if not, it talks to its own API server.
    pub kubelet_local_mode_gate: bool,
    /// Whether the kubelet refuses control groups of version 1 unless failCgroupV1 is false.
    pub kubelet_fails_on_cgroup_v1: bool,
    /// The feature gates that kubeadm knows (section 0.2).
    pub feature_gates: &'static [&'static str],
    /// Which kernels the check SystemVerification takes.
    pub kernel_rule: KernelRule,
    /// Whether SystemVerification wants options of control groups besides CGROUPS.
    pub control_group_options: bool,
    /// Whether runtimes are checked for the call RuntimeConfig, which came with containerd 2 (check
    /// ContainerRuntimeVersion).
    pub runtime_config_check: bool,
    /// Whether the checks Port-* look at the address that a component is told to listen on, instead of at all.
    pub port_checks_follow_address: bool,
    /// Whether keys can be ECDSA-P384.
    pub ecdsa_p384: bool,
    /// kubeadm's name of the check of the kubelet's unit.
    pub kubelet_unit_check: &'static str,
    /// Whether `etcd.external.httpEndpoints` exists; an older kubeadm reading it would only warn, but never wrote it.
    pub etcd_http_endpoints: bool,
}

/// From the first patch release of a minor on.
const ALWAYS: Since<()> = Since { patch: 0, value: () };

const V1_36: Release = Release {
    minor: 36,
    etcd_tags: &[Since { patch: 0, value: "3.6.8-0" }],
    coredns_tag: "v1.14.2",
    pause_tag: "3.10.2",
    pod_infra_container_image_flag: false,
    instance_config: true,
    instance_config_gate: true,
    named_probe_port: true,
    extra_arguments_keep_order: ALWAYS,
    kube_proxy_mode: "",
    kubelet_client_without_organization: Since { patch: 1, value: () },
    flexvolume_mount: false,
    etcd_flags: EtcdFlags::New,
    empty_fields_written: false,
    coredns_named_probe_ports: true,
    kubelet_local_mode_gate: false,
    kubelet_fails_on_cgroup_v1: true,
    feature_gates: &["NodeLocalCRISocket", "PublicKeysECDSA", "RootlessControlPlane"],
    etcd_http_endpoints: true,
    kube_proxy_patches: false,
    kubelet_unit_check: "Service-kubelet",
    least_external_etcd: &[Since { patch: 0, value: (3, 5, 24) }],
    kernel_rule: KernelRule::LongTerm,
    control_group_options: true,
    runtime_config_check: true,
    port_checks_follow_address: false,
    ecdsa_p384: true,
};

const V1_35: Release = Release {
    minor: 35,
    etcd_tags: &[Since { patch: 0, value: "3.6.6-0" }],
    coredns_tag: "v1.13.1",
    pause_tag: "3.10.1",
    extra_arguments_keep_order: Since { patch: 1, value: () },
    kubelet_client_without_organization: Since { patch: 5, value: () },
    flexvolume_mount: true,
    kubelet_local_mode_gate: true,
    etcd_flags: EtcdFlags::ByImage,
    feature_gates: &["ControlPlaneKubeletLocalMode", "NodeLocalCRISocket", "PublicKeysECDSA", "RootlessControlPlane"],
    ..V1_36
};

const V1_34: Release = Release {
    minor: 34,
    etcd_tags: &[Since { patch: 0, value: "3.6.4-0" }, Since { patch: 2, value: "3.6.5-0" }],
    coredns_tag: "v1.12.1",
    extra_arguments_keep_order: Since { patch: 4, value: () },
    kubelet_client_without_organization: Since { patch: 8, value: () },
    pod_infra_container_image_flag: true,
    kubelet_fails_on_cgroup_v1: false,
    feature_gates: &[
        "ControlPlaneKubeletLocalMode",
        "NodeLocalCRISocket",
        "PublicKeysECDSA",
        "RootlessControlPlane",
        "WaitForAllControlPlaneComponents",
    ],
    etcd_http_endpoints: false,
    kubelet_unit_check: "Service-Kubelet",
    // The patch releases that take etcd 3.5.24 for the minor before, too.
    least_external_etcd: &[Since { patch: 0, value: (3, 5, 21) }, Since { patch: 2, value: (3, 5, 24) }],
    control_group_options: false,
    runtime_config_check: false,
    ..V1_35
};

const V1_33: Release = Release {
    minor: 33,
    etcd_tags: &[Since { patch: 0, value: "3.5.21-0" }, Since { patch: 6, value: "3.5.24-0" }],
    coredns_tag: "v1.12.0",
    extra_arguments_keep_order: Since { patch: 8, value: () },
    kubelet_client_without_organization: Since { patch: 12, value: () },
    pause_tag: "3.10",
    instance_config: false,
    named_probe_port: false,
    etcd_flags: EtcdFlags::Experimental,
    empty_fields_written: true,
    coredns_named_probe_ports: false,
    least_external_etcd: &[Since { patch: 0, value: (3, 5, 11) }],
    kernel_rule: KernelRule::AtLeast,
    ecdsa_p384: false,
    ..V1_34
};

const V1_37: Release = Release {
    minor: 37,
    etcd_tags: &[Since { patch: 0, value: "3.7.0-0" }],
    coredns_tag: "v1.14.6",
    instance_config_gate: false,
    kube_proxy_mode: "iptables",
    kube_proxy_patches: true,
    kubelet_client_without_organization: ALWAYS,
    feature_gates: &["RootlessControlPlane"],
    port_checks_follow_address: true,
    ..V1_36
};

/// The minors we deploy, oldest first.
pub const RELEASES: [Release; 5] = [V1_33, V1_34, V1_35, V1_36, V1_37];

/// The version deployed when a configuration names none.
pub const DEFAULT_VERSION: &str = "v1.36.3";

/// Registry that kubeadm takes images from unless told otherwise.
pub const DEFAULT_IMAGE_REPOSITORY: &str = "registry.k8s.io";

/// Parses a Kubernetes version with or without its leading `v`.
///
/// # Errors
/// [`Kind::Configuration`] if it is not `major.minor.patch` with optional pre-release and build parts.
pub fn parse(text: &str) -> Result<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).map_err(|error| {
        Failure::new(Kind::Configuration, format!("kubernetesVersion {text:?} is not a version"))
            .because(&error)
            .advise("write an exact version, for example 1.36.3")
    })
}

/// The minors we deploy, in words: `1.33 to 1.37`.
pub fn supported() -> String {
    format!("1.{} to 1.{}", RELEASES[0].minor, RELEASES[RELEASES.len() - 1].minor)
}

/// What holds in `version`, of values in the order of their patch releases.
fn since<T: Copy>(values: &[Since<T>], version: &Version) -> T {
    let newest = values.iter().rev().find(|since| since.patch <= version.patch);
    newest.unwrap_or(&values[0]).value
}

impl Release {
    /// The row of `version`'s minor.
    ///
    /// # Errors
    /// [`Kind::Configuration`] for a minor outside of [`RELEASES`].
    pub fn of(version: &Version) -> Result<&'static Release> {
        RELEASES.iter().find(|release| version.major == 1 && release.minor == version.minor).ok_or_else(|| {
            let range = supported();
            Failure::new(Kind::Configuration, format!("Kubernetes {version} is not supported, only {range}"))
                .advise(format!("choose a version from {range}"))
        })
    }

    /// The row of `version`'s minor, or the nearest: for judging a host whose cluster is not known yet.
    pub fn nearest(version: &Version) -> &'static Release {
        RELEASES.iter().find(|release| release.minor >= version.minor).or(RELEASES.last()).unwrap_or(&V1_36)
    }

    /// Tag of the etcd image for `version`, which must be of this minor.
    pub fn etcd_tag(&self, version: &Version) -> &'static str {
        since(self.etcd_tags, version)
    }

    /// The oldest etcd of somebody else's that will do for `version`, which must be of this minor (kubeadm.md section 0.1).
    pub fn least_external_etcd(&self, version: &Version) -> Version {
        let (major, minor, patch) = since(self.least_external_etcd, version);
        Version::new(major, minor, patch)
    }

    /// How extraArgs join the defaults in `version`, which must be of this minor.
    pub fn argument_order(&self, version: &Version) -> ArgumentOrder {
        match version.patch < self.extra_arguments_keep_order.patch {
            true => ArgumentOrder::AllSorted,
            false => ArgumentOrder::DefaultsThenExtras,
        }
    }

    /// Organization of the apiserver-kubelet-client certificate (kubeadm.md section 2.1).
    pub fn kubelet_client_organization(&self, version: &Version) -> Option<&'static str> {
        (version.patch < self.kubelet_client_without_organization.patch).then_some("kubeadm:cluster-admins")
    }

    /// Whether the kubelet of a control plane that joins talks to its own API server, given the cluster's feature gates
    /// (kubeadm.md sections 0.2 and 10.4).
    pub fn kubelet_uses_local_server(&self, cluster: &ClusterConfiguration) -> bool {
        match cluster.feature_gates.get("ControlPlaneKubeletLocalMode") {
            Some(wanted) if self.kubelet_local_mode_gate => *wanted,
            _ => true,
        }
    }

    /// Whether the CRI socket goes into instance-config.yaml, given the cluster's feature gates
    /// (kubeadm.md section 5.3).
    pub fn uses_instance_config(&self, cluster: &ClusterConfiguration) -> bool {
        match cluster.feature_gates.get("NodeLocalCRISocket") {
            Some(wanted) if self.instance_config_gate => *wanted,
            _ => self.instance_config,
        }
    }
}

/// The images of a cluster, as full references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// kube-apiserver.
    pub api_server: String,
    /// kube-controller-manager.
    pub controller_manager: String,
    /// kube-scheduler.
    pub scheduler: String,
    /// kube-proxy.
    pub proxy: String,
    /// CoreDNS.
    pub coredns: String,
    /// The sandbox image.
    pub pause: String,
    /// etcd.
    pub etcd: String,
}

impl Images {
    /// What a node of `cluster` needs, in kubeadm's order: control planes everything that is deployed, workers
    /// kube-proxy, CoreDNS and pause.
    pub fn wanted(&self, cluster: &ClusterConfiguration, control_plane: bool) -> Vec<&str> {
        let mut wanted = Vec::new();
        if control_plane {
            wanted.extend([self.api_server.as_str(), &self.controller_manager, &self.scheduler]);
        }
        if !cluster.proxy.disabled {
            wanted.push(&self.proxy);
        }
        if !cluster.dns.disabled {
            wanted.push(&self.coredns);
        }
        wanted.push(&self.pause);
        if control_plane && cluster.etcd.external.is_none() {
            wanted.push(&self.etcd);
        }
        wanted
    }
}

/// The images `cluster` asks for (kubeadm.md section 4.7).
///
/// # Errors
/// [`Kind::Configuration`] if kubernetesVersion is not a version or not supported.
pub fn images(cluster: &ClusterConfiguration) -> Result<Images> {
    let version = parse(&cluster.kubernetes_version)?;
    let release = Release::of(&version)?;
    let repository = match cluster.image_repository.as_str() {
        "" => DEFAULT_IMAGE_REPOSITORY,
        given => given,
    };
    let tag: String = format!("v{version}")
        .chars()
        .map(|one| if one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.') { one } else { '_' })
        .collect();
    let kubernetes = |name: &str| format!("{repository}/{name}:{tag}");
    let or = |given: &str, default: &str| if given.is_empty() { default.to_owned() } else { given.to_owned() };

    let mut dns_repository = or(&cluster.dns.image_repository, repository);
    if dns_repository == DEFAULT_IMAGE_REPOSITORY {
        dns_repository.push_str("/coredns");
    }
    let local = cluster.etcd.local.as_ref();
    let etcd_repository = or(local.map_or("", |etcd| &etcd.image_repository), repository);
    let etcd_tag = or(local.map_or("", |etcd| &etcd.image_tag), release.etcd_tag(&version));
    Ok(Images {
        api_server: kubernetes("kube-apiserver"),
        controller_manager: kubernetes("kube-controller-manager"),
        scheduler: kubernetes("kube-scheduler"),
        proxy: kubernetes("kube-proxy"),
        coredns: format!("{dns_repository}/coredns:{}", or(&cluster.dns.image_tag, release.coredns_tag)),
        pause: format!("{repository}/pause:{}", release.pause_tag),
        etcd: format!("{etcd_repository}/etcd:{etcd_tag}"),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{ArgumentOrder, Release, images, parse};
    use crate::kubernetes::configuration::ClusterConfiguration;

    #[rstest]
    #[case("v1.33.5", "3.5.21-0", Some("kubeadm:cluster-admins"))]
    #[case("1.33.6", "3.5.24-0", Some("kubeadm:cluster-admins"))]
    #[case("1.33.13", "3.5.24-0", None)]
    #[case("1.34.1", "3.6.4-0", Some("kubeadm:cluster-admins"))]
    #[case("1.34.4", "3.6.5-0", Some("kubeadm:cluster-admins"))]
    #[case("1.35.4", "3.6.6-0", Some("kubeadm:cluster-admins"))]
    #[case("1.36.0", "3.6.8-0", Some("kubeadm:cluster-admins"))]
    #[case("1.36.1", "3.6.8-0", None)]
    #[case("v1.36.3", "3.6.8-0", None)]
    #[case("v1.37.2", "3.7.0-0", None)]
    fn patch_releases_differ(#[case] version: &str, #[case] etcd: &str, #[case] organization: Option<&str>) {
        let version = parse(version).unwrap();
        let release = Release::of(&version).unwrap();
        assert_eq!(release.etcd_tag(&version), etcd);
        assert_eq!(release.kubelet_client_organization(&version), organization);
    }

    #[rstest]
    #[case("1.33.2", None, true)]
    #[case("1.35.2", Some(false), false)]
    #[case("1.36.2", Some(false), true)]
    fn a_gate_can_send_the_kubelet_to_the_endpoint(
        #[case] version: &str,
        #[case] gate: Option<bool>,
        #[case] local: bool,
    ) {
        let release = Release::of(&parse(version).unwrap()).unwrap();
        let gates = gate.map(|wanted| ("ControlPlaneKubeletLocalMode".to_owned(), wanted)).into_iter().collect();
        let cluster = ClusterConfiguration { feature_gates: gates, ..ClusterConfiguration::default() };
        assert_eq!(release.kubelet_uses_local_server(&cluster), local);
    }

    #[rstest]
    #[case("1.33.6", ArgumentOrder::AllSorted)]
    #[case("1.33.13", ArgumentOrder::DefaultsThenExtras)]
    #[case("1.34.3", ArgumentOrder::AllSorted)]
    #[case("1.34.4", ArgumentOrder::DefaultsThenExtras)]
    #[case("1.35.0", ArgumentOrder::AllSorted)]
    #[case("1.35.4", ArgumentOrder::DefaultsThenExtras)]
    #[case("1.36.0", ArgumentOrder::DefaultsThenExtras)]
    fn the_order_of_arguments_changed_in_patch_releases(#[case] version: &str, #[case] order: ArgumentOrder) {
        let version = parse(version).unwrap();
        assert_eq!(Release::of(&version).unwrap().argument_order(&version), order);
    }

    #[rstest]
    #[case("1.33.12", "3.5.11")]
    #[case("1.34.0", "3.5.21")]
    #[case("1.34.4", "3.5.24")]
    #[case("1.36.3", "3.5.24")]
    fn somebody_elses_etcd_must_not_be_too_old(#[case] version: &str, #[case] least: &str) {
        let version = parse(version).unwrap();
        assert_eq!(Release::of(&version).unwrap().least_external_etcd(&version).to_string(), least);
    }

    #[rstest]
    #[case("1.32.9", 33)]
    #[case("1.35.0", 35)]
    #[case("1.38.0", 37)]
    fn a_host_is_judged_by_the_nearest_release(#[case] version: &str, #[case] minor: u64) {
        assert_eq!(Release::nearest(&parse(version).unwrap()).minor, minor);
    }

    #[rstest]
    #[case("1.32.9")]
    #[case("1.38.0")]
    #[case("2.36.0")]
    fn other_minors_are_refused(#[case] version: &str) {
        let failure = Release::of(&parse(version).unwrap()).unwrap_err();
        assert_eq!(failure.sentence, format!("Kubernetes {version} is not supported, only 1.33 to 1.37"));
    }

    #[test]
    fn the_default_images_of_1_36_3() {
        let cluster = ClusterConfiguration { kubernetes_version: "1.36.3".into(), ..Default::default() };
        assert_eq!(
            images(&cluster).unwrap().wanted(&cluster, true),
            [
                "registry.k8s.io/kube-apiserver:v1.36.3",
                "registry.k8s.io/kube-controller-manager:v1.36.3",
                "registry.k8s.io/kube-scheduler:v1.36.3",
                "registry.k8s.io/kube-proxy:v1.36.3",
                "registry.k8s.io/coredns/coredns:v1.14.2",
                "registry.k8s.io/pause:3.10.2",
                "registry.k8s.io/etcd:3.6.8-0",
            ]
        );
    }

    #[test]
    fn own_repositories_are_used_as_they_are() {
        let mut cluster = ClusterConfiguration { kubernetes_version: "v1.36.3+k1".into(), ..Default::default() };
        cluster.image_repository = "mirror.example/k8s".into();
        cluster.dns.image_tag = "v9".into();
        let images = images(&cluster).unwrap();
        assert_eq!(images.coredns, "mirror.example/k8s/coredns:v9");
        assert_eq!(images.proxy, "mirror.example/k8s/kube-proxy:v1.36.3_k1");
    }
}
