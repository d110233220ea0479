//! The ConfigMaps and Secrets that init writes (kubeadm.md sections 7 and 8). Names and keys are what upstream looks up.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::configuration::{BootstrapToken, ClusterConfiguration};
use super::moment::from_rfc3339;
use super::rbac::NODE_BOOTSTRAP_GROUP;
use super::text::yaml;
use super::token::Token;

/// Annotation of component configurations that kubeadm generated (section 7.2).
pub const HASH_ANNOTATION: &str = "kubeadm.kubernetes.io/component-config.hash";

/// A ConfigMap with these texts.
pub fn config_map(name: &str, namespace: &str, data: &[(&str, &str)]) -> Value {
    let data: Map<String, Value> = data.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": namespace }, "data": data })
}

/// `sha256:` and the hex SHA-256 over all values of a ConfigMap's data in the order of their keys (section 7.2).
pub fn component_hash(config_map: &Value) -> String {
    let mut values: Vec<(&String, &str)> = config_map["data"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
        .collect();
    values.sort_unstable();
    let mut context = digest::Context::new(&digest::SHA256);
    values.iter().for_each(|(_, text)| context.update(text.as_bytes()));
    let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Marks a ConfigMap as generated: upgrade may then generate it anew.
pub fn mark_generated(config_map: &mut Value) {
    let hash = component_hash(config_map);
    config_map["metadata"]["annotations"] = json!({ HASH_ANNOTATION: hash });
}

/// ConfigMap kubeadm-config of a completed configuration.
pub fn kubeadm_config(cluster: &ClusterConfiguration) -> Value {
    config_map("kubeadm-config", "kube-system", &[("ClusterConfiguration", &cluster.stored())])
}

/// ConfigMap kubelet-config. `generated` says that no KubeletConfiguration was given by a person.
pub fn kubelet_config(configuration: &Value, generated: bool) -> Value {
    let mut object = config_map("kubelet-config", "kube-system", &[("kubelet", &yaml(configuration))]);
    if generated {
        mark_generated(&mut object);
    }
    object
}

/// ConfigMap cluster-info in kube-public; the controller manager adds the signatures. `kubeconfig` is the text of
/// section 8.2, and must not change afterwards by a single byte.
pub fn cluster_info(kubeconfig: &str) -> Value {
    config_map("cluster-info", "kube-public", &[("kubeconfig", kubeconfig)])
}

/// Secret of a bootstrap token (section 8.1). `expiration` is RFC 3339 in UTC, `None` for a token that never expires.
pub fn bootstrap_token(token: &Token, settings: &BootstrapToken, expiration: Option<&str>) -> Value {
    let mut data = Map::new();
    data.insert("token-id".into(), json!(token.id));
    data.insert("token-secret".into(), json!(token.secret.expose()));
    if !settings.description.is_empty() {
        data.insert("description".into(), json!(settings.description));
    }
    if let Some(expiration) = expiration {
        data.insert("expiration".into(), json!(expiration));
    }
    for usage in &settings.usages {
        data.insert(format!("usage-bootstrap-{usage}"), json!("true"));
    }
    if !settings.groups.is_empty() {
        data.insert("auth-extra-groups".into(), json!(settings.groups.join(",")));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": TOKEN_TYPE,
        "metadata": { "name": token.secret_name(), "namespace": "kube-system" },
        "stringData": data,
    })
}

/// Type of the Secrets that are bootstrap tokens.
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";

/// The bootstrap token that a Secret is, or why it is none that works; `None` for a Secret of another type
/// (kubeadm.md section 8.1).
pub fn read_bootstrap_token(secret: &Value) -> Option<Result<BootstrapToken, String>> {
    if secret["type"] != TOKEN_TYPE {
        return None;
    }
    let name = secret["metadata"]["name"].as_str().unwrap_or_default();
    Some(bootstrap_token_of(secret, name).map_err(|reason| format!("Secret {name} is no usable token: {reason}")))
}

fn bootstrap_token_of(secret: &Value, name: &str) -> Result<BootstrapToken, String> {
    let field = |key: &str| -> Result<String, String> {
        let encoded = secret["data"][key].as_str().unwrap_or_default();
        let bytes = STANDARD.decode(encoded).map_err(|_| format!("{key} is not base64"))?;
        String::from_utf8(bytes).map_err(|_| format!("{key} is not text"))
    };
    let id = field("token-id")?;
    if name != format!("bootstrap-token-{id}") {
        return Err(format!("its token-id is {id:?}"));
    }
    let token = Token::parse(&format!("{id}.{}", field("token-secret")?)).map_err(|failure| failure.sentence)?;
    let expires = Some(field("expiration")?).filter(|expires| !expires.is_empty());
    if expires.as_deref().is_some_and(|expires| from_rfc3339(expires).is_none()) {
        return Err("its expiration is no time in RFC 3339".to_owned());
    }
    let keys = secret["data"].as_object().into_iter().flat_map(Map::keys);
    let mut usages: Vec<String> = keys
        .filter(|key| field(key).is_ok_and(|value| value == "true"))
        .filter_map(|key| key.strip_prefix("usage-bootstrap-").map(str::to_owned))
        .collect();
    usages.sort();
    let groups = field("auth-extra-groups")?;
    let mut groups: Vec<String> = groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    groups.sort();
    let description = field("description")?;
    Ok(BootstrapToken { token: Some(token.text()), description, ttl: None, expires, usages, groups })
}

/// What kubeadm's command line describes its first token with (section 8.1).
pub const INIT_TOKEN_DESCRIPTION: &str = "The default bootstrap token generated by 'kubeadm init'.";

/// The group that tokens get by default.
pub fn default_groups() -> Vec<String> {
    vec![NODE_BOOTSTRAP_GROUP.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_all_values_in_key_order() {
        let object = config_map("kube-proxy", "kube-system", &[("kubeconfig.conf", "b"), ("config.conf", "a")]);
        // SHA-256 of "ab".
        assert_eq!(component_hash(&object), "sha256:fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603");
    }

    #[test]
    fn only_generated_configurations_carry_the_hash() {
        let configuration = json!({ "kind": "KubeletConfiguration" });
        assert!(kubelet_config(&configuration, false)["metadata"].get("annotations").is_none());
        let generated = kubelet_config(&configuration, true);
        assert!(generated["metadata"]["annotations"][HASH_ANNOTATION].as_str().unwrap().starts_with("sha256:"));
    }

    #[test]
    fn a_token_secret_has_upstreams_keys() {
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let settings = BootstrapToken {
            description: "for tests".into(),
            usages: vec!["signing".into(), "authentication".into()],
            groups: default_groups(),
            ..BootstrapToken::default()
        };
        let object = bootstrap_token(&token, &settings, Some("2026-11-24T00:00:00Z"));
        assert_eq!(object["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(object["type"], "bootstrap.kubernetes.io/token");
        assert_eq!(
            object["stringData"],
            json!({
                "token-id": "abcdef",
                "token-secret": "0123456789abcdef",
                "description": "for tests",
                "expiration": "2026-11-24T00:00:00Z",
                "usage-bootstrap-signing": "true",
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
            })
        );
        assert!(bootstrap_token(&token, &settings, None)["stringData"].get("expiration").is_none());
    }
}
