//! ClusterConfiguration (kubeadm.md section 13.2): what all control planes share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Duration, is_default};
use crate::failure::Result;
use crate::kubernetes::version::{self, Release};

/// The feature gate that chose ECDSA-P256 before there was encryptionAlgorithm.
const GATE: &str = "PublicKeysECDSA";

/// An argument of a component; a name may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arg {
    /// Name of the flag without dashes.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An environment variable, as core/v1 EnvVar.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// The variable's name.
    pub name: String,
    /// Its value.
    #[serde(skip_serializing_if = "is_default")]
    pub value: String,
    /// Where the value comes from instead.
    #[serde(skip_serializing_if = "is_default")]
    pub value_from: Option<Value>,
}

/// A directory or file of the host, mounted into a static pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostPathMount {
    /// Name of the volume; a default volume of the same name is replaced.
    pub name: String,
    /// Path on the host.
    pub host_path: String,
    /// Path in the container.
    pub mount_path: String,
    /// Whether the container can only read it.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// HostPathType: `DirectoryOrCreate`, `File`...; empty checks nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub path_type: String,
}

/// What a person can set for the controller manager and the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlaneComponent {
    /// Arguments that replace or join the default ones.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_args: Vec<Arg>,
    /// Volumes that replace or join the default ones.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_volumes: Vec<HostPathMount>,
    /// Environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_envs: Vec<EnvVar>,
}

/// What a person can set for the API server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServer {
    /// Arguments that replace or join the default ones.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_args: Vec<Arg>,
    /// Volumes that replace or join the default ones.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_volumes: Vec<HostPathMount>,
    /// Environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_envs: Vec<EnvVar>,
    /// More names and addresses for the serving certificate.
    #[serde(rename = "certSANs", skip_serializing_if = "is_default")]
    pub cert_sans: Vec<String>,
}

/// CoreDNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Repository in place of the cluster's.
    #[serde(skip_serializing_if = "is_default")]
    pub image_repository: String,
    /// Tag in place of the release's.
    #[serde(skip_serializing_if = "is_default")]
    pub image_tag: String,
    /// Not deployed.
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
}

/// kube-proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Not deployed.
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
}

/// Networks and domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    /// One or two networks of services, separated by a comma.
    #[serde(skip_serializing_if = "is_default")]
    pub service_subnet: String,
    /// One or two networks of pods, separated by a comma; empty: nodes get none from the cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub pod_subnet: String,
    /// Domain of services: `cluster.local`.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_domain: String,
}

/// An etcd member on each control plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalEtcd {
    /// Repository in place of the cluster's.
    #[serde(skip_serializing_if = "is_default")]
    pub image_repository: String,
    /// Tag in place of the release's.
    #[serde(skip_serializing_if = "is_default")]
    pub image_tag: String,
    /// Where the data lies.
    pub data_dir: String,
    /// Arguments that replace or join the default ones.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_args: Vec<Arg>,
    /// Environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_envs: Vec<EnvVar>,
    /// More names and addresses for the serving certificate.
    #[serde(rename = "serverCertSANs", skip_serializing_if = "is_default")]
    pub server_cert_sans: Vec<String>,
    /// More names and addresses for the peer certificate.
    #[serde(rename = "peerCertSANs", skip_serializing_if = "is_default")]
    pub peer_cert_sans: Vec<String>,
}

/// An etcd cluster that somebody else runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalEtcd {
    /// Client URLs.
    pub endpoints: Vec<String>,
    /// URLs for plain HTTP traffic (from 1.35); the endpoints when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub http_endpoints: Vec<String>,
    /// CA of the members.
    pub ca_file: String,
    /// Client certificate.
    pub cert_file: String,
    /// Client key.
    pub key_file: String,
}

/// Where the cluster's state lies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Etcd {
    /// Members on the control planes; excludes `external`.
    #[serde(skip_serializing_if = "is_default")]
    pub local: Option<LocalEtcd>,
    /// Somebody else's cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub external: Option<ExternalEtcd>,
}

/// What all control planes of a cluster share; stored in the ConfigMap kubeadm-config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterConfiguration {
    /// The API server.
    pub api_server: ApiServer,
    /// How long CA certificates are valid.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_certificate_validity_period: Option<Duration>,
    /// How long other certificates are valid.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate_validity_period: Option<Duration>,
    /// Directory of certificates and keys.
    #[serde(skip_serializing_if = "is_default")]
    pub certificates_dir: String,
    /// Name in kubeconfigs and of the controller manager.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster_name: String,
    /// `host:port` that clients and nodes reach the API servers by; empty: the first control plane's own address.
    #[serde(skip_serializing_if = "is_default")]
    pub control_plane_endpoint: String,
    /// The controller manager.
    pub controller_manager: ControlPlaneComponent,
    /// CoreDNS.
    pub dns: Dns,
    /// Algorithm of all keys made: `RSA-2048`...
    #[serde(skip_serializing_if = "is_default")]
    pub encryption_algorithm: String,
    /// Where the state lies.
    pub etcd: Etcd,
    /// kubeadm's feature gates.
    #[serde(skip_serializing_if = "is_default")]
    pub feature_gates: BTreeMap<String, bool>,
    /// Where images come from.
    #[serde(skip_serializing_if = "is_default")]
    pub image_repository: String,
    /// Version of the control plane, with `v`.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes_version: String,
    /// Networks and domain.
    pub networking: Networking,
    /// kube-proxy.
    pub proxy: Proxy,
    /// The scheduler.
    pub scheduler: ControlPlaneComponent,
}

impl ClusterConfiguration {
    /// What is special about the minor that is deployed.
    ///
    /// # Errors
    /// [`crate::failure::Kind::Configuration`] if kubernetesVersion is not a version or not supported.
    pub fn release(&self) -> Result<&'static Release> {
        Release::of(&version::parse(&self.kubernetes_version)?)
    }

    /// The algorithm of keys: the gate PublicKeysECDSA, where it is set and the release knows it, wins over
    /// encryptionAlgorithm, as upstream has it. Old clusters keep the gate ('1.37 and corrections', A).
    pub fn key_algorithm(&self) -> &str {
        let known = self.release().map_or(true, |release| release.feature_gates.contains(&GATE));
        match self.feature_gates.get(GATE).filter(|_| known) {
            Some(true) => "ECDSA-P256",
            Some(false) => "RSA-2048",
            None => &self.encryption_algorithm,
        }
    }

    /// The text that is stored under the key ClusterConfiguration of the ConfigMap kubeadm-config
    /// (kubeadm.md section 7.1); call it on a completed configuration.
    pub fn stored(&self) -> String {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut document {
            fields.insert("apiVersion".into(), "kubeadm.k8s.io/v1beta4".into());
            fields.insert("kind".into(), "ClusterConfiguration".into());
        }
        crate::kubernetes::text::yaml(&document)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::ClusterConfiguration;

    #[rstest]
    #[case("v1.36.3", Some(true), "ECDSA-P256")]
    #[case("v1.36.3", Some(false), "RSA-2048")]
    #[case("v1.36.3", None, "RSA-4096")]
    #[case("v1.37.2", Some(true), "RSA-4096")]
    fn the_old_gate_counts_where_it_is_known(
        #[case] version: &str,
        #[case] gate: Option<bool>,
        #[case] algorithm: &str,
    ) {
        let cluster = ClusterConfiguration {
            kubernetes_version: version.into(),
            encryption_algorithm: "RSA-4096".into(),
            feature_gates: gate.map(|wanted| ("PublicKeysECDSA".to_owned(), wanted)).into_iter().collect(),
            ..ClusterConfiguration::default()
        };
        assert_eq!(cluster.key_algorithm(), algorithm);
    }
}
