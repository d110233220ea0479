//! kubeconfig files (kubeadm.md section 3): the model, the catalogue of what a control plane has, making and judging.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::certificates::{Authority, Certificate, KeyPool, PrivateKey, Subject, Usage};
use super::configuration::{ApiEndpoint, ClusterConfiguration, documents};
use super::text;
use super::version::{self, Release};
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

    /// What its certificate says of its holder on a node.
    pub fn subject(&self, node_name: &str) -> Subject {
        Subject {
            common_name: self.user_name(node_name),
            organizations: self.organization.map(str::to_owned).into_iter().collect(),
            usages: vec![Usage::Client],
            ..Default::default()
        }
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
        let subject = self.subject(order.node_name);
        let period = order.cluster.certificate_validity_period.map_or(8760 * 3600, |period| period.0.as_secs());
        let key = keys.take()?;
        let certificate = order.authority.sign_since_own_beginning(&subject, &key, order.now_seconds, period)?;
        Ok(Kubeconfig::with_certificate(
            &self.server_url(order.cluster, order.local)?,
            &order.cluster.cluster_name,
            &subject.common_name,
            &order.authority.first_pem(),
            &certificate.pem(),
            key.pem(),
        )
        .written_by(Release::of(&version::parse(&order.cluster.kubernetes_version)?)?))
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
    /// Always empty; older upstreams write it nevertheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<BTreeMap<String, Value>>,
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
    /// The name that its certificate must have, where that is not the URL's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
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

    /// One cluster without a CA, one user with a key alone, one context: what `certs generate-csr` writes, for a person to
    /// add the CA and the certificate (kubeadm.md section 2.5).
    pub fn with_key_alone(server: &str, cluster_name: &str, user_name: &str, key_pem: &Secret) -> Self {
        let client_key_data = Some(Secret::new(STANDARD.encode(key_pem.expose())));
        let mut made =
            Self::with_user(server, cluster_name, user_name, "", User { client_key_data, ..Default::default() });
        made.clusters.iter_mut().for_each(|named| named.cluster.certificate_authority_data = None);
        made
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

    /// With the empty fields that upstream's writer of a minor has.
    pub fn written_by(self, release: &Release) -> Self {
        Self { preferences: release.empty_fields_written.then(BTreeMap::new), ..self }
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
            preferences: None,
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

    /// The certificate that is embedded for the user of the current context; those that lead to its CA may follow.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if there is none or it cannot be read; the caller names the file.
    pub fn client_certificates(&self) -> Result<Vec<Certificate>> {
        let none = || Failure::new(Kind::Configuration, "the user of its current context has no embedded certificate");
        let data = self.current_user().and_then(|named| named.user.client_certificate_data.as_deref());
        let data: String = data.ok_or_else(none)?.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(data).map_err(|error| none().because(&error))?;
        Certificate::parse_pem(&String::from_utf8_lossy(&bytes))
    }

    /// The same with nothing by which a user proves who they are.
    pub fn without_credentials(mut self) -> Self {
        self.users.iter_mut().for_each(|named| named.user = User::default());
        self
    }

    /// Points every cluster to another URL: a joining control plane's kubelet talks to its own API server
    /// (kubeadm.md section 10.4).
    pub fn point_to(&mut self, server: &str) {
        for named in &mut self.clusters {
            server.clone_into(&mut named.cluster.server);
        }
    }

    /// Has the certificate of every cluster checked against this name instead of the URL's.
    pub fn expect_name(&mut self, name: &str) {
        for named in &mut self.clusters {
            named.cluster.tls_server_name = Some(name.to_owned());
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

/// Judges the user of a kubeconfig that is there already: an embedded certificate must lead to one of `authorities` and fit
/// its key; a warning if its time is over or has not come.
///
/// # Errors
/// [`Kind::Configuration`] if it does not, or there is a key without a certificate; the caller names the file.
pub fn judge_holder(text: &str, authorities: &[Certificate], now_seconds: u64) -> Result<Option<String>> {
    let kubeconfig = Kubeconfig::parse(text)?;
    let Some(user) = kubeconfig.current_user().map(|named| &named.user) else {
        return Err(Failure::new(Kind::Configuration, "its current context names no user"));
    };
    if user.client_certificate_data.is_none() {
        let unsigned = user.client_key_data.is_some() && user.client_certificate.is_none();
        let sentence = "it holds a key without a certificate";
        let advice = "have the request beside it (.csr) signed, and add the certificate and the authority's";
        return if unsigned { Err(Failure::new(Kind::Configuration, sentence).advise(advice)) } else { Ok(None) };
    }
    let chain = kubeconfig.client_certificates()?;
    let certificate = &chain[0];
    if !certificate.leads_to(authorities, &chain[1..]) {
        let sentence = "its client certificate is not signed by the certificate authority";
        return Err(Failure::new(Kind::Configuration, sentence));
    }
    if let Some(data) = &user.client_key_data {
        let bytes = STANDARD.decode(data.expose().split_ascii_whitespace().collect::<String>()).unwrap_or_default();
        let key = PrivateKey::from_pem(&Secret::new(String::from_utf8_lossy(&bytes)))?;
        if key.public_der() != certificate.public_key {
            let sentence = "its private key does not belong to its client certificate";
            return Err(Failure::new(Kind::Configuration, sentence));
        }
    }
    Ok(certificate.out_of_time(now_seconds).map(|why| format!("its client certificate {}", why.words())))
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
