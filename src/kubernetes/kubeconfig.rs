//! kubeconfig files (kubeadm.md section 3): the model, the catalogue of what a control plane has, making and judging.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::certificates::{Authority, Certificate, KeyPool, Subject, Usage};
use super::configuration::{ApiEndpoint, ClusterConfiguration, documents};
use super::text;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Which URL a kubeconfig points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The control plane endpoint.
    Cluster,
    /// This node's own API server.
    Local,
}

/// A kubeconfig that a control plane has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// File name in /etc/kubernetes.
    pub file: &'static str,
    /// The user, also the common name of its certificate; the kubelet's is followed by the node's name.
    pub user: &'static str,
    /// Organization of its certificate.
    pub organization: Option<&'static str>,
    /// Where it points to.
    pub server: Server,
    /// Whether it is made when a control plane joins.
    pub on_join: bool,
}

/// admin.conf.
pub const ADMIN: Entry = Entry {
    file: "admin.conf",
    user: "kubernetes-admin",
    organization: Some("kubeadm:cluster-admins"),
    server: Server::Cluster,
    on_join: true,
};
/// super-admin.conf, which needs no RBAC object to be powerful.
pub const SUPER_ADMIN: Entry = Entry {
    file: "super-admin.conf",
    user: "kubernetes-super-admin",
    organization: Some("system:masters"),
    server: Server::Cluster,
    on_join: false,
};
/// kubelet.conf of the first control plane; joining kubelets write their own.
pub const KUBELET: Entry = Entry {
    file: "kubelet.conf",
    user: "system:node:",
    organization: Some("system:nodes"),
    server: Server::Local,
    on_join: false,
};
/// controller-manager.conf.
pub const CONTROLLER_MANAGER: Entry = Entry {
    file: "controller-manager.conf",
    user: "system:kube-controller-manager",
    organization: None,
    server: Server::Local,
    on_join: true,
};
/// scheduler.conf.
pub const SCHEDULER: Entry = Entry {
    file: "scheduler.conf",
    user: "system:kube-scheduler",
    organization: None,
    server: Server::Local,
    on_join: true,
};

/// All kubeconfigs in the order of kubeadm's phases (section 3.1).
pub const CATALOGUE: [Entry; 5] = [ADMIN, SUPER_ADMIN, KUBELET, CONTROLLER_MANAGER, SCHEDULER];

/// User of bootstrap-kubelet.conf.
const BOOTSTRAP_USER: &str = "tls-bootstrap-token-user";

impl Entry {
    /// The user's name on a node.
    pub fn user_name(&self, node_name: &str) -> String {
        if self.user.ends_with(':') { format!("{}{node_name}", self.user) } else { self.user.to_owned() }
    }

    /// The URL it points to.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if controlPlaneEndpoint cannot be read.
    pub fn server_url(&self, cluster: &ClusterConfiguration, local: &ApiEndpoint) -> Result<String> {
        match self.server {
            Server::Cluster => cluster.control_plane_url(local),
            Server::Local => Ok(local.url()),
        }
    }

    /// Makes the kubeconfig with a new certificate.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if the CA has no key here; [`Kind::Internal`] if the cryptography library fails.
    pub fn issue(&self, order: &KubeconfigOrder<'_>, keys: &mut KeyPool) -> Result<Kubeconfig> {
        let user = self.user_name(order.node_name);
        let subject = Subject {
            common_name: user.clone(),
            organizations: self.organization.map(str::to_owned).into_iter().collect(),
            usages: vec![Usage::Client],
            ..Default::default()
        };
        let period = order.cluster.certificate_validity_period.map_or(8760 * 3600, |period| period.0.as_secs());
        let key = keys.take()?;
        let certificate = order.authority.sign(&subject, &key, order.now_seconds, period)?;
        Ok(Kubeconfig::with_certificate(
            &self.server_url(order.cluster, order.local)?,
            &order.cluster.cluster_name,
            &user,
            &order.authority.first_pem(),
            &certificate.pem(),
            key.pem(),
        ))
    }
}

/// What to make kubeconfigs for.
#[derive(Debug, Clone, Copy)]
pub struct KubeconfigOrder<'a> {
    /// The completed configuration.
    pub cluster: &'a ClusterConfiguration,
    /// Name of the Node.
    pub node_name: &'a str,
    /// Where its API server listens.
    pub local: &'a ApiEndpoint,
    /// The cluster's CA.
    pub authority: &'a Authority,
    /// The time, seconds since the epoch.
    pub now_seconds: u64,
}

/// A kubeconfig. Fields that we do not know are dropped when one is read; none that upstream writes is among them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    /// Clusters by name.
    #[serde(deserialize_with = "null_as_empty")]
    pub clusters: Vec<NamedCluster>,
    /// Contexts by name.
    #[serde(deserialize_with = "null_as_empty")]
    pub contexts: Vec<NamedContext>,
    /// Name of the context in use.
    pub current_context: String,
    /// Users by name.
    #[serde(deserialize_with = "null_as_empty")]
    pub users: Vec<NamedUser>,
}

/// A cluster with its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamedCluster {
    /// The cluster.
    #[serde(default)]
    pub cluster: Cluster,
    /// Its name; empty in cluster-info.
    #[serde(default)]
    pub name: String,
}

/// How to reach a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    /// File with its CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// Its CA, PEM in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    /// Its URL.
    pub server: String,
}

/// A context with its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamedContext {
    /// The context.
    #[serde(default)]
    pub context: Context,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// Who in which cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Name of the cluster.
    pub cluster: String,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the user.
    pub user: String,
}

/// A user with its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamedUser {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The user.
    #[serde(default)]
    pub user: User,
}

/// How somebody proves who they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    /// File with the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The certificate, PEM in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    /// File with the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// The key, PEM in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<Secret>,
    /// A token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// File with a token.
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Kubeconfig {
    /// One cluster, one user with a certificate, one context `<user>@<cluster>`.
    pub fn with_certificate(
        server: &str,
        cluster_name: &str,
        user_name: &str,
        ca_pem: &str,
        certificate_pem: &str,
        key_pem: &Secret,
    ) -> Self {
        let user = User {
            client_certificate_data: Some(STANDARD.encode(certificate_pem)),
            client_key_data: Some(Secret::new(STANDARD.encode(key_pem.expose()))),
            ..Default::default()
        };
        Self::with_user(server, cluster_name, user_name, ca_pem, user)
    }

    /// One cluster, one user with a token, one context.
    pub fn with_token(server: &str, cluster_name: &str, user_name: &str, ca_pem: &str, token: &Secret) -> Self {
        let user = User { token: Some(token.clone()), ..Default::default() };
        Self::with_user(server, cluster_name, user_name, ca_pem, user)
    }

    /// bootstrap-kubelet.conf: what a kubelet gets its certificate with (kubeadm.md section 9.3).
    pub fn bootstrap(server: &str, cluster_name: &str, ca_pem: &str, token: &Secret) -> Self {
        Self::with_token(server, cluster_name, BOOTSTRAP_USER, ca_pem, token)
    }

    /// The kubeconfig inside the ConfigMap cluster-info: one cluster without a name, no user
    /// (kubeadm.md section 8.2).
    pub fn cluster_info(server: &str, ca_pem: &str) -> Self {
        Self { clusters: vec![NamedCluster::new("", server, ca_pem)], ..Default::default() }
    }

    fn with_user(server: &str, cluster_name: &str, user_name: &str, ca_pem: &str, user: User) -> Self {
        let context = format!("{user_name}@{cluster_name}");
        Self {
            clusters: vec![NamedCluster::new(cluster_name, server, ca_pem)],
            contexts: vec![NamedContext {
                context: Context { cluster: cluster_name.to_owned(), namespace: None, user: user_name.to_owned() },
                name: context.clone(),
            }],
            current_context: context,
            users: vec![NamedUser { name: user_name.to_owned(), user }],
        }
    }

    /// Reads a kubeconfig.
    ///
    /// # Errors
    /// [`Kind::Configuration`]; the caller names the file.
    pub fn parse(text: &str) -> Result<Self> {
        let broken = |sentence: &str| Failure::new(Kind::Configuration, sentence);
        let mut read = documents(text).map_err(|failure| broken("it is not YAML").caused_by(failure.to_string()))?;
        if read.len() != 1 {
            return Err(broken("it is not one kubeconfig"));
        }
        serde_json::from_value(read.remove(0)).map_err(|error| broken("it is not a kubeconfig").because(&error))
    }

    /// The text of the file: the same bytes for the same content.
    pub fn to_text(&self) -> Secret {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut document {
            fields.insert("apiVersion".into(), "v1".into());
            fields.insert("kind".into(), "Config".into());
            // Upstream's writer has null for empty lists; cluster-info has both.
            for list in ["contexts", "users"] {
                if fields.get(list) == Some(&json!([])) {
                    fields.insert(list.into(), Value::Null);
                }
            }
        }
        Secret::new(text::yaml(&document))
    }

    /// The cluster in use: that of the current context, else the only one there is.
    pub fn current_cluster(&self) -> Option<&Cluster> {
        let context = self.contexts.iter().find(|context| context.name == self.current_context);
        let name = context.map(|context| context.context.cluster.as_str());
        match (name, self.clusters.as_slice()) {
            (Some(name), clusters) => clusters.iter().find(|cluster| cluster.name == name).map(|named| &named.cluster),
            (None, [only]) => Some(&only.cluster),
            _ => None,
        }
    }

    /// The user of the current context.
    pub fn current_user(&self) -> Option<&NamedUser> {
        let context = self.contexts.iter().find(|context| context.name == self.current_context)?;
        self.users.iter().find(|user| user.name == context.context.user)
    }

    /// Points every cluster to another URL: a joining control plane's kubelet talks to its own API server
    /// (kubeadm.md section 10.4).
    pub fn point_to(&mut self, server: &str) {
        for named in &mut self.clusters {
            server.clone_into(&mut named.cluster.server);
        }
    }

    /// Points the user `system:node:...` to the certificate that the kubelet rotates, and forgets the embedded one
    /// (kubeadm.md section 3.2). Whether anything changed.
    pub fn follow_rotation(&mut self, certificate_path: &str) -> bool {
        let before = self.clone();
        for named in self.users.iter_mut().filter(|named| named.name.starts_with(KUBELET.user)) {
            named.user = User {
                client_certificate: Some(certificate_path.to_owned()),
                client_key: Some(certificate_path.to_owned()),
                ..Default::default()
            };
        }
        *self != before
    }
}

impl NamedCluster {
    fn new(name: &str, server: &str, ca_pem: &str) -> Self {
        let data = STANDARD.encode(ca_pem);
        let cluster =
            Cluster { certificate_authority_data: Some(data), server: server.to_owned(), ..Default::default() };
        Self { cluster, name: name.to_owned() }
    }
}

impl Cluster {
    /// The embedded CA as PEM.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if there is none or it is not base64 of a text; the caller names the file.
    pub fn ca_pem(&self) -> Result<String> {
        let data = self.certificate_authority_data.as_deref().unwrap_or_default();
        let bytes = STANDARD.decode(data.split_ascii_whitespace().collect::<String>()).unwrap_or_default();
        match String::from_utf8(bytes) {
            Ok(text) if !text.is_empty() => Ok(text),
            _ => Err(Failure::new(Kind::Configuration, "it holds no readable certificate-authority-data")),
        }
    }
}

/// Judges a kubeconfig that is there already: it stays if it trusts a CA of `authorities`; a warning if it points
/// elsewhere than to `server` (kubeadm.md section 3.1).
///
/// # Errors
/// [`Kind::Configuration`] if it cannot be read or trusts another CA; the caller names the file.
pub fn judge(text: &str, authorities: &[Certificate], server: &str) -> Result<Option<String>> {
    let kubeconfig = Kubeconfig::parse(text)?;
    let cluster = kubeconfig
        .current_cluster()
        .ok_or_else(|| Failure::new(Kind::Configuration, "its current context names no cluster"))?;
    let trusted = Certificate::parse_pem(&cluster.ca_pem()?)?;
    if !authorities.iter().any(|authority| authority.der == trusted[0].der) {
        return Err(Failure::new(Kind::Configuration, "it trusts another certificate authority")
            .advise("remove it to have it made anew"));
    }
    Ok((cluster.server != server).then(|| format!("it points to {}, not to {server}", cluster.server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::certificates::{KeyAlgorithm, PrivateKey};

    fn authority() -> Authority {
        Authority::fresh("kubernetes", PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap(), 1_800_000_000, 3600)
            .unwrap()
    }

    fn order<'a>(
        cluster: &'a ClusterConfiguration,
        local: &'a ApiEndpoint,
        authority: &'a Authority,
    ) -> KubeconfigOrder<'a> {
        KubeconfigOrder { cluster, node_name: "cp1", local, authority, now_seconds: 1_800_000_000 }
    }

    fn setting() -> (ClusterConfiguration, ApiEndpoint) {
        let mut cluster =
            ClusterConfiguration { control_plane_endpoint: "api.demo.example".into(), ..Default::default() };
        cluster.complete(6443).unwrap();
        (cluster, ApiEndpoint { advertise_address: "fd00::11".into(), bind_port: 6443 })
    }

    #[test]
    fn the_catalogue_is_that_of_kubeadm() {
        let (cluster, local) = setting();
        let authority = authority();
        let mut keys = KeyPool::new(KeyAlgorithm::EcdsaP256);
        let mut rows = Vec::new();
        for entry in CATALOGUE {
            let made = entry.issue(&order(&cluster, &local, &authority), &mut keys).unwrap();
            let named = made.current_user().unwrap();
            let data = STANDARD.decode(named.user.client_certificate_data.as_ref().unwrap()).unwrap();
            let certificate = Certificate::parse_pem(std::str::from_utf8(&data).unwrap()).unwrap().remove(0);
            assert!(certificate.is_signed_by(&authority.certificates()[0]));
            assert_eq!(certificate.common_name, named.name);
            assert_eq!(made.current_context, format!("{}@kubernetes", named.name));
            let server = &made.current_cluster().unwrap().server;
            rows.push(format!("{} {} {:?} {server}", entry.file, named.name, certificate.organizations));
        }
        insta::assert_snapshot!(rows.join("\n"), @r#"
        admin.conf kubernetes-admin ["kubeadm:cluster-admins"] https://api.demo.example:6443
        super-admin.conf kubernetes-super-admin ["system:masters"] https://api.demo.example:6443
        kubelet.conf system:node:cp1 ["system:nodes"] https://[fd00::11]:6443
        controller-manager.conf system:kube-controller-manager [] https://[fd00::11]:6443
        scheduler.conf system:kube-scheduler [] https://[fd00::11]:6443
        "#);
    }

    #[test]
    fn a_kubeconfig_is_read_back() {
        let (cluster, local) = setting();
        let authority = authority();
        let mut keys = KeyPool::new(KeyAlgorithm::EcdsaP256);
        let mut made = KUBELET.issue(&order(&cluster, &local, &authority), &mut keys).unwrap();
        assert_eq!(Kubeconfig::parse(made.to_text().expose()).unwrap(), made);
        assert!(!format!("{made:?}").contains(made.users[0].user.client_key_data.as_ref().unwrap().expose()));
        assert!(made.follow_rotation("/var/lib/kubelet/pki/kubelet-client-current.pem"));
        assert!(!made.follow_rotation("/var/lib/kubelet/pki/kubelet-client-current.pem"));
        assert_eq!(made.users[0].user.client_key_data, None);
    }

    #[test]
    fn cluster_info_has_a_nameless_cluster_and_nobody() {
        let made = Kubeconfig::cluster_info("https://10.0.0.11:6443", "PEM");
        insta::assert_snapshot!(made.to_text().expose(), @r#"
        apiVersion: v1
        clusters:
        - cluster:
            certificate-authority-data: UEVN
            server: https://10.0.0.11:6443
          name: ""
        contexts: null
        current-context: ""
        kind: Config
        users: null
        "#);
        let read = Kubeconfig::parse(made.to_text().expose()).unwrap();
        assert_eq!(read.current_cluster().unwrap().ca_pem().unwrap(), "PEM");
    }

    #[test]
    fn what_is_there_is_judged() {
        let (ours, other) = (authority(), authority());
        let made = Kubeconfig::bootstrap("https://a:6443", "kubernetes", &ours.first_pem(), &Secret::new("t"));
        let text = made.to_text();
        assert_eq!(judge(text.expose(), ours.certificates(), "https://a:6443").unwrap(), None);
        let warning = judge(text.expose(), ours.certificates(), "https://b:6443").unwrap();
        assert_eq!(warning.unwrap(), "it points to https://a:6443, not to https://b:6443");
        assert!(judge(text.expose(), other.certificates(), "https://a:6443").is_err());
        assert!(judge("clusters: 5", ours.certificates(), "").is_err());
    }
}
