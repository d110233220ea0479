//! How to reach an API server and who to be there.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Which certificate a server must show.
#[derive(Debug, Clone)]
pub enum Trust {
    /// One that chains to these authorities (PEM, one or more certificates).
    Authority(String),
    /// One that chains to an authority this host trusts.
    System,
    /// Any: only for the first look at cluster-info, whose content proves itself (kubeadm.md section 9.1).
    Unverified,
}

/// Who a client is.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Nobody.
    Anonymous,
    /// The bearer of a token.
    Token(Secret),
    /// The holder of a client certificate.
    Certificate {
        /// Certificate, PEM.
        certificate: String,
        /// Its private key, PEM.
        key: Secret,
    },
}

/// One way to reach an API server.
#[derive(Debug, Clone)]
pub struct Access {
    /// `https://host:port`.
    pub server: String,
    /// What the server must prove.
    pub trust: Trust,
    /// Who we are.
    pub identity: Identity,
}

impl Access {
    /// This access as a kubeconfig document.
    fn kubeconfig(&self) -> Value {
        let mut cluster = Map::from_iter([("server".to_owned(), json!(self.server))]);
        match &self.trust {
            Trust::Authority(pem) => {
                cluster.insert("certificate-authority-data".to_owned(), json!(STANDARD.encode(pem)));
            }
            Trust::System => {}
            Trust::Unverified => {
                cluster.insert("insecure-skip-tls-verify".to_owned(), json!(true));
            }
        }
        let user = match &self.identity {
            Identity::Anonymous => json!({}),
            Identity::Token(token) => json!({ "token": token.expose() }),
            Identity::Certificate { certificate, key } => json!({
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key.expose()),
            }),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "here", "cluster": cluster }],
            "users": [{ "name": "me", "user": user }],
            "contexts": [{ "name": "now", "context": { "cluster": "here", "user": "me" } }],
            "current-context": "now",
        })
    }

    /// This access as kube's configuration.
    pub(super) async fn configuration(&self) -> Result<Config> {
        configuration(&self.kubeconfig().to_string(), None).await
    }
}

/// kube's configuration for the current context of a kubeconfig; with `address`, connections go there while the server
/// must still prove the name in the kubeconfig (a tunnel).
pub(super) async fn configuration(kubeconfig: &str, address: Option<SocketAddr>) -> Result<Config> {
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Kind::Cluster, "a kubeconfig cannot be used").because(error)
    };
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).map_err(|error| wrong(&error))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| wrong(&error))?;
    // A proxy between nodes and their own API server is what kubeadm's HTTPProxy check warns of.
    config.proxy_url = None;
    // We know better than a generic policy what is worth trying again, and how soon.
    config.default_retry = false;
    if config.accept_invalid_certs {
        // Without roots kube would ask the system for its own, which a bare host may not have.
        config.root_cert = Some(Vec::new());
    }
    if let Some(address) = address {
        let name = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        config.tls_server_name.get_or_insert(name);
        config.cluster_url = format!("https://{address}").parse().map_err(|error| {
            Failure::new(Kind::Internal, format!("{address} cannot stand in a URL"))
                .because(&error as &(dyn std::error::Error + 'static))
        })?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{Access, Identity, Trust, configuration};
    use crate::secret::Secret;

    #[tokio::test]
    async fn a_tunnel_keeps_the_name_the_server_must_prove() {
        let access = Access {
            server: "https://[fd00::1]:6443".into(),
            trust: Trust::Unverified,
            identity: Identity::Token(Secret::new("abcdef.0123456789abcdef")),
        };
        let text = access.kubeconfig().to_string();
        let config = configuration(&text, Some("127.0.0.1:4711".parse().unwrap())).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://127.0.0.1:4711/");
        assert_eq!(config.tls_server_name.as_deref(), Some("fd00::1"));
    }

    #[tokio::test]
    async fn a_kubeconfig_without_a_context_is_refused_with_the_reason() {
        let failure = configuration("apiVersion: v1\nkind: Config\n", None).await.unwrap_err();
        assert!(failure.to_string().starts_with("a kubeconfig cannot be used: "), "{failure}");
    }
}
