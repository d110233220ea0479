use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::json;

use super::{CertificateKey, life_token, open, secret, shared};
use crate::kubernetes::configuration::{ClusterConfiguration, Etcd, ExternalEtcd};
use crate::kubernetes::token::Token;
use crate::secret::Secret;

fn cluster() -> ClusterConfiguration {
    ClusterConfiguration { certificates_dir: "/etc/kubernetes/pki".into(), ..Default::default() }
}

fn key(digit: &str) -> CertificateKey {
    CertificateKey::parse(&Secret::new(digit.repeat(64))).unwrap()
}

#[test]
fn the_files_are_upstreams() {
    let keys: Vec<String> = shared(&cluster()).into_iter().map(|file| file.key).collect();
    assert_eq!(
        keys,
        [
            "ca.crt",
            "ca.key",
            "front-proxy-ca.crt",
            "front-proxy-ca.key",
            "sa.pub",
            "sa.key",
            "etcd-ca.crt",
            "etcd-ca.key"
        ]
    );
    let last = shared(&cluster()).pop().unwrap();
    assert_eq!((last.path.as_str(), last.mode), ("/etc/kubernetes/pki/etcd/ca.key", 0o600));
}

#[test]
fn an_external_etcd_brings_its_client_certificate() {
    let external = ExternalEtcd { ca_file: "/x/ca.pem".into(), cert_file: "/x/c.pem".into(), ..Default::default() };
    let cluster = ClusterConfiguration { etcd: Etcd { local: None, external: Some(external) }, ..cluster() };
    let files: Vec<(String, String)> = shared(&cluster).into_iter().skip(6).map(|file| (file.key, file.path)).collect();
    let wanted = [("external-etcd-ca.crt", "/x/ca.pem"), ("external-etcd.crt", "/x/c.pem"), ("external-etcd.key", "")];
    assert_eq!(files, wanted.map(|(key, path)| (key.to_owned(), path.to_owned())));
}

/// Made with Go's `cipher.NewGCM`, as upstream's `EncryptBytes` does, under the key 00 01 02 ... 1f.
#[test]
fn what_upstream_encrypted_can_be_read() {
    let digits: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let key = CertificateKey::parse(&Secret::new(digits)).unwrap();
    let sealed = bytes(UPSTREAM);
    assert_eq!(key.decrypt(&sealed).as_deref(), Some(b"-----BEGIN CERTIFICATE-----\n".as_slice()));
}

const UPSTREAM: &str =
    "756e697175652d6e6f6e63655d1eeb295c2ec5ef663694a5b46e519ea4d5a1aa623fa537c36cbab4bf1f49b6145610a97d55df011b173481";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap()).collect()
}

#[rstest]
#[case(b"")]
#[case(b"-----BEGIN CERTIFICATE-----\n")]
fn what_was_encrypted_is_opened_with_the_same_key_alone(#[case] content: &[u8]) {
    let sealed = key("a").encrypt(content).unwrap();
    assert_eq!(sealed.len(), 12 + content.len() + 16);
    assert_eq!(key("A").decrypt(&sealed).as_deref(), Some(content));
    assert_eq!(key("b").decrypt(&sealed), None);
    assert_ne!(key("a").encrypt(content).unwrap(), sealed);
    assert_eq!(key("a").decrypt(&sealed[..11]), None);
}

#[rstest]
#[case("")]
#[case("abc")]
#[case("zz")]
fn a_key_has_64_digits(#[case] text: &str) {
    assert!(CertificateKey::parse(&Secret::new(text)).is_err());
    assert!(CertificateKey::parse(&Secret::new("g".repeat(64))).is_err());
}

fn uploaded() -> serde_json::Value {
    let mut files: BTreeMap<String, Option<Secret>> = shared(&cluster())
        .into_iter()
        .map(|file| (file.key.clone(), Some(Secret::new(format!("-----BEGIN {}-----\n", file.key)))))
        .collect();
    files.insert("ca.key".into(), None);
    secret(&files, &key("a"), ("bootstrap-token-abcdef", "u-1")).unwrap()
}

#[test]
fn a_secret_is_opened_without_what_the_host_did_not_have() {
    let uploaded = uploaded();
    assert_eq!(uploaded["metadata"]["ownerReferences"][0]["uid"], "u-1");
    assert_eq!(uploaded["data"]["ca.key"], "");
    let files = open(&uploaded, &key("a"), &shared(&cluster())).unwrap();
    assert_eq!(files.len(), 7);
    assert_eq!(files["etcd-ca.crt"].expose(), "-----BEGIN etcd-ca.crt-----\n");
}

#[test]
fn another_key_and_a_missing_file_are_sentences_of_their_own() {
    let mut uploaded = uploaded();
    let failure = open(&uploaded, &key("b"), &shared(&cluster())).unwrap_err();
    assert_eq!(failure.sentence, "the certificate key does not open the uploaded certificates");
    assert!(failure.advice.is_some());
    uploaded["data"].as_object_mut().unwrap().remove("sa.pub");
    let failure = open(&uploaded, &key("a"), &shared(&cluster())).unwrap_err();
    assert_eq!(failure.sentence, "the Secret kube-system/kubeadm-certs has no sa.pub");
}

#[test]
fn the_token_that_ends_them_is_of_no_other_use() {
    let token = Token::parse("abcdef.0123456789abcdef").unwrap();
    let object = life_token(&token, 1_795_435_199);
    assert_eq!(
        object["stringData"],
        json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "description": "Proxy for managing TTL for the kubeadm-certs secret",
            "expiration": "2026-11-23T13:59:59Z",
        })
    );
}
