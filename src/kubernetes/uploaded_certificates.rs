//! What all control planes share, on its way to a new one: the Secret kubeadm-certs, encrypted under the certificate key
//! (kubeadm.md section 7.3), in upstream's format, so that each reads what the other wrote.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use zeroize::Zeroize as _;

use super::configuration::{BootstrapToken, ClusterConfiguration, Duration};
use super::objects;
use super::token::Token;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Name of the Secret in kube-system.
pub const SECRET: &str = "kubeadm-certs";

/// How long uploaded certificates can be read, in seconds.
const LIFE_SECONDS: u64 = 2 * 3600;

/// What the token that ends them is described with, upstream's words.
const TOKEN_DESCRIPTION: &str = "Proxy for managing TTL for the kubeadm-certs secret";

/// A file that control planes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Its key in the Secret's data: `etcd-ca.key`.
    pub key: String,
    /// Where it lies on every control plane.
    pub path: String,
    /// Permission bits it is written with: keys 0600, certificates and public keys 0644.
    pub mode: u32,
}

/// The files that all control planes of a cluster share, in the order of kubeadm's phases. Those of an external etcd that
/// is reached without TLS have an empty path: upstream wants their keys in the Secret all the same.
pub fn shared(cluster: &ClusterConfiguration) -> Vec<Shared> {
    let below = |name: &str| (name.replace('/', "-"), format!("{}/{name}", cluster.certificates_dir));
    let mut files: Vec<(String, String)> =
        ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"].map(below).into();
    match &cluster.etcd.external {
        None => files.extend(["etcd/ca.crt", "etcd/ca.key"].map(below)),
        Some(external) => {
            let named = |key: &str, path: &String| (key.to_owned(), path.clone());
            files.push(named("external-etcd-ca.crt", &external.ca_file));
            files.push(named("external-etcd.crt", &external.cert_file));
            files.push(named("external-etcd.key", &external.key_file));
        }
    }
    files
        .into_iter()
        .map(|(key, path)| Shared { mode: if key.ends_with(".key") { 0o600 } else { 0o644 }, key, path })
        .collect()
}

/// A certificate key that can be used.
pub struct CertificateKey([u8; 32]);

impl CertificateKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`Kind::Configuration`]; the text itself is not repeated.
    pub fn parse(text: &Secret) -> Result<Self> {
        let digits = text.expose().trim().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut key = Self([0; 32]);
        let wrong = || {
            Failure::new(Kind::Configuration, "the certificate key is not 64 hexadecimal digits")
                .advise("give it as `init --upload-certs` printed it")
        };
        if digits.len() != 64 {
            return Err(wrong());
        }
        for (place, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong()) };
            *place = high << 4 | low;
        }
        Ok(key)
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, &self.0)
            .map(LessSafeKey::new)
            .map_err(|_| Failure::new(Kind::Internal, "a certificate key cannot be used"))
    }

    /// A random nonce, the content under AES-256-GCM, and its tag.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the system gives no random bytes.
    pub fn encrypt(&self, content: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
        let mut sealed = content.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .map_err(|_| Failure::new(Kind::Internal, "a certificate cannot be encrypted"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The content of what [`Self::encrypt`] or upstream made; `None` if it was made under another key or altered.
    pub fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let mut content = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.cipher().ok()?.open_in_place(nonce, Aad::empty(), &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

impl Drop for CertificateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

/// The Secret of a bootstrap token that nobody can use: when the cluster removes it after its life, what it owns goes
/// with it.
pub fn life_token(token: &Token, now_seconds: u64) -> Value {
    let life = std::time::Duration::from_secs(LIFE_SECONDS);
    let settings = BootstrapToken {
        description: TOKEN_DESCRIPTION.to_owned(),
        ttl: Some(Duration(life)),
        ..BootstrapToken::default()
    };
    objects::bootstrap_token(token, &settings, settings.expiration(now_seconds).as_deref())
}

/// The Secret with the encrypted files. `files` has the content by key of [`Shared`], `None` for a file that is not on
/// this host, as with an external CA; `owner` is name and uid of the Secret of [`life_token`].
///
/// # Errors
/// [`Kind::Internal`] if the cryptography library fails.
pub fn secret(files: &BTreeMap<String, Option<Secret>>, key: &CertificateKey, owner: (&str, &str)) -> Result<Value> {
    let mut data = Map::new();
    for (name, content) in files {
        let sealed = match content {
            Some(content) => key.encrypt(content.expose().as_bytes())?,
            None => Vec::new(),
        };
        data.insert(name.clone(), json!(STANDARD.encode(sealed)));
    }
    let (owner_name, owner_uid) = owner;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": SECRET,
            "namespace": "kube-system",
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Secret", "name": owner_name, "uid": owner_uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "data": data,
    }))
}

/// The files in the Secret that [`secret`] or upstream made, by key of [`Shared`]; those that the uploading host did not
/// have are left out.
///
/// # Errors
/// [`Kind::Configuration`] if the key is another one; [`Kind::Cluster`] if the Secret lacks one of `wanted` or cannot be
/// read.
pub fn open(secret: &Value, key: &CertificateKey, wanted: &[Shared]) -> Result<BTreeMap<String, Secret>> {
    let unreadable = |name: &str| Failure::new(Kind::Cluster, format!("the Secret kube-system/{SECRET} has no {name}"));
    let mut files = BTreeMap::new();
    for shared in wanted.iter().filter(|shared| !shared.path.is_empty()) {
        let name = &shared.key;
        let encoded = secret["data"][name].as_str().ok_or_else(|| {
            unreadable(name).advise("upload the certificates again from a control plane of this cluster")
        })?;
        let sealed =
            STANDARD.decode(encoded).map_err(|error| unreadable(name).because(&error).caused_by("it is not base64"))?;
        if sealed.is_empty() {
            continue;
        }
        let content = key.decrypt(&sealed).ok_or_else(wrong_key)?;
        let text = String::from_utf8(content).map_err(|_| unreadable(name).caused_by("what it holds is not text"))?;
        if !text.contains("-----BEGIN ") {
            return Err(unreadable(name).caused_by("what it holds is neither a certificate nor a key"));
        }
        files.insert(name.clone(), Secret::new(text));
    }
    Ok(files)
}

fn wrong_key() -> Failure {
    Failure::new(Kind::Configuration, "the certificate key does not open the uploaded certificates")
        .caused_by("they were uploaded again under a fresh key since, or the key was mistyped")
        .advise(
            "run `clusterctl up` again, or upload them anew on a control plane with `kubeadm init phase upload-certs \
             --upload-certs` and use the key it prints",
        )
}

#[cfg(test)]
#[path = "uploaded_certificates_tests.rs"]
mod tests;
