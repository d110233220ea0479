use std::time::Duration;

use rstest::rstest;
use serde_json::json;

use super::tls_server::{self, Fault, authority};
use super::{ClusterInfo, Found, YOUNG_SECONDS, discover, fetch, pins, pointed_to, verified};
use crate::api::Trust;
use crate::api::fake::FakeApi;
use crate::event::Events;
use crate::failure::{Failure, Result};
use crate::host::fake::FakeHost;
use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey};
use crate::kubernetes::configuration::{BootstrapTokenDiscovery, Discovery, FileDiscovery};
use crate::kubernetes::jws;
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::kubernetes::moment::rfc3339;
use crate::kubernetes::token::Token;
use crate::node::defaults;
use crate::secret::Secret;

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

fn signed() -> (ClusterInfo, Token, String) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let authority = Authority::fresh("kubernetes", key, 1_800_000_000, 3600).unwrap();
    let kubeconfig = Kubeconfig::cluster_info("https://10.0.0.11:6443", authority.pem()).to_text().expose().to_owned();
    let token = token("abcdef.0123456789abcdef");
    let signature = jws::sign(&kubeconfig, &token);
    (ClusterInfo { kubeconfig, signature }, token, authority.certificates()[0].public_key_hash())
}

#[test]
fn a_signed_and_pinned_cluster_is_trusted() {
    let (info, token, pin) = signed();
    assert_eq!(verified(&info, &token, &[pin]).unwrap().server, "https://10.0.0.11:6443");
}

#[test]
fn an_altered_text_is_not() {
    let (mut info, token, pin) = signed();
    info.kubeconfig = info.kubeconfig.replace("10.0.0.11", "10.6.6.6");
    let failure = verified(&info, &token, &[pin]).unwrap_err();
    assert_eq!(failure.sentence, "its cluster-info is not signed with our bootstrap token");
}

#[test]
fn another_authority_is_not() {
    let (info, token, _) = signed();
    let failure = verified(&info, &token, &[format!("sha256:{}", "0".repeat(64))]).unwrap_err();
    assert_eq!(failure.sentence, "its CA certificate has none of the hashes we were given");
}

#[rstest]
#[case("sha256:", false)]
#[case("md5:0123", false)]
#[case("SHA256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff", true)]
fn a_pin_has_one_form(#[case] text: &str, #[case] good: bool) {
    assert_eq!(pins(&[text.to_owned()]).is_ok(), good);
}

#[tokio::test]
async fn a_token_the_cluster_does_not_know_is_named_without_its_secret() {
    let api = FakeApi::start().await;
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": "x", "jws-kubeconfig-zzzzzz": "y"}}));
    let token = token("abcdef.0123456789abcdef");
    let failure = fetch(&api.server(), Trust::Unverified, &token, Duration::from_millis(400)).await.unwrap_err();
    assert!(failure.to_string().ends_with("does not know the bootstrap token abcdef"), "{failure}");
    assert!(!failure.to_string().contains("0123456789"));
    assert!(failure.advice.unwrap().contains("fresh token"));
}

#[tokio::test]
async fn a_cluster_info_that_nobody_has_signed_yet_is_waited_for() {
    let api = FakeApi::start().await;
    let info = cluster_info("https://10.0.0.11:6443", "x");
    let mut unsigned = info.clone();
    unsigned["data"].as_object_mut().unwrap().remove("jws-kubeconfig-abcdef");
    api.put(unsigned);
    let (token, server) = (token(TOKEN), api.server());
    let fetching = |limit| fetch(&server, Trust::Unverified, &token, limit);
    let failure = fetching(Duration::from_millis(250)).await.unwrap_err();
    assert!(failure.to_string().ends_with("has not signed it yet"), "{failure}");
    assert!(failure.advice.unwrap().contains("controller manager"));
    let looks = api.requests().len();
    let (found, ()) = futures::join!(fetching(Duration::from_secs(60)), async {
        while api.requests().len() < looks + 2 {
            tokio::task::yield_now().await;
        }
        api.put(info.clone());
    });
    assert_eq!(found.unwrap().kubeconfig, info["data"]["kubeconfig"].as_str().unwrap());
}

#[tokio::test]
async fn in_a_cluster_that_is_not_young_a_token_that_nothing_is_signed_with_is_wrong() {
    let api = FakeApi::start().await;
    api.put(json!({"kind": "ConfigMap", "data": {"kubeconfig": "x"}, "metadata": {"name": "cluster-info",
        "namespace": "kube-public", "creationTimestamp": rfc3339(now() - YOUNG_SECONDS)}}));
    let fetched = fetch(&api.server(), Trust::Unverified, &token(TOKEN), Duration::from_millis(250)).await;
    let failure = fetched.unwrap_err();
    assert!(failure.to_string().ends_with("does not know the bootstrap token abcdef"), "{failure}");
    assert!(failure.advice.unwrap().contains("fresh token"));
}

#[tokio::test]
async fn a_server_without_its_etcd_is_told_from_one_that_is_not_there() {
    let api = FakeApi::start().await;
    api.refuse_next(1000, 500, "InternalError");
    let token = token("abcdef.0123456789abcdef");
    let failure = fetch(&api.server(), Trust::Unverified, &token, Duration::from_millis(400)).await.unwrap_err();
    assert!(failure.advice.as_ref().is_some_and(|advice| advice.contains("quorum")), "{failure:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let api = FakeApi::start().await;
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": "x".repeat(1 << 20)}}));
    let token = token("abcdef.0123456789abcdef");
    let failure = fetch(&api.server(), Trust::Unverified, &token, Duration::from_secs(60)).await.unwrap_err();
    assert!(failure.sentence.ends_with("is no API server of a cluster"), "{failure}");
}

const TOKEN: &str = "abcdef.0123456789abcdef";

fn now() -> u64 {
    defaults::now_seconds().unwrap()
}

/// cluster-info as a cluster with this CA has it, under the server's own URL.
fn cluster_info(url: &str, ca_pem: &str) -> serde_json::Value {
    let kubeconfig = Kubeconfig::cluster_info(url, ca_pem).to_text().expose().to_owned();
    let signature = jws::sign(&kubeconfig, &token(TOKEN));
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": kubeconfig, "jws-kubeconfig-abcdef": signature}})
}

/// A cluster whose server serves with a certificate that has this fault, and its pin.
fn cluster(authority: Authority, fault: Fault) -> (String, String) {
    let pin = authority.certificates()[0].public_key_hash();
    let ca_pem = authority.pem().to_owned();
    let made = u64::try_from(authority.certificates()[0].not_before + 300).unwrap();
    let url = tls_server::start(&authority, if fault == Fault::None { made.max(now()) } else { now() }, fault, {
        move |url, _| (200, cluster_info(url, &ca_pem))
    });
    (url, pin)
}

async fn by_token(url: &str, pins: &[&str], unsafe_skip: bool) -> Result<Found> {
    let discovery = BootstrapTokenDiscovery {
        token: Some(Secret::new(TOKEN)),
        api_server_endpoint: url.trim_start_matches("https://").to_owned(),
        ca_cert_hashes: pins.iter().map(|pin| (*pin).to_owned()).collect(),
        unsafe_skip_ca_verification: unsafe_skip,
    };
    let discovery = Discovery { bootstrap_token: Some(discovery), ..Default::default() };
    discover(&FakeHost::new(), &discovery, Duration::from_secs(5), &Events::nowhere()).await
}

async fn by_file(host: &FakeHost, path: &str) -> Result<Found> {
    let file = Some(FileDiscovery { kube_config_path: path.to_owned() });
    let discovery = Discovery { file, ..Default::default() };
    discover(host, &discovery, Duration::from_secs(5), &Events::nowhere()).await
}

#[tokio::test]
async fn one_of_several_pins_is_enough_and_none_if_asked_for() {
    let (url, pin) = cluster(authority(now()), Fault::None);
    let other = format!("sha256:{}", "0".repeat(64));
    let found = by_token(&url, &[&other, &pin], false).await.unwrap();
    assert_eq!((found.server.as_str(), found.credentials.is_some()), (url.as_str(), false));
    assert_eq!(by_token(&url, &[], true).await.unwrap().ca_pem, found.ca_pem);
    let failure = by_token(&url, &[&other], false).await.unwrap_err();
    assert!(failure.sentence.ends_with("its CA certificate has none of the hashes we were given"), "{failure}");
    assert!(failure.causes[0].contains(&pin));
}

/// What is wrong with clocks and certificates is said at once, not after the limit.
#[rstest]
#[case(0, Fault::Ahead, "is not valid before", "set the clock of this host")]
#[case(0, Fault::Expired, "has expired: it was valid until", "renew it there")]
#[case(0, Fault::OtherName, "is not valid for that name or address", "see who answers at that address")]
#[case(7200, Fault::None, "the cluster's CA certificate is not valid before", "set the clock of this host")]
#[case(-36_100_000, Fault::None, "the cluster's CA certificate has expired", "set the clock of this host if it is wrong")]
#[tokio::test]
async fn certificates_out_of_place_or_time_are_told(
    #[case] made: i64,
    #[case] fault: Fault,
    #[case] sentence: &str,
    #[case] advice: &str,
) {
    let (url, pin) = cluster(authority(now().saturating_add_signed(made)), fault);
    let failure = by_token(&url, &[&pin], false).await.unwrap_err();
    assert!(failure.sentence.contains(sentence), "{failure}");
    assert!(failure.advice.unwrap().starts_with(advice));
    if sentence.contains("before") {
        assert!(failure.sentence.contains("and the clock of this host says 20"), "{}", failure.sentence);
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_the_ca_it_told_of_is_refused() {
    let (real, liar) = (authority(now()), authority(now()));
    let (pin, ca_pem) = (real.certificates()[0].public_key_hash(), real.pem().to_owned());
    let url = tls_server::start(&liar, now(), Fault::None, move |url, _| (200, cluster_info(url, &ca_pem)));
    let failure = by_token(&url, &[&pin], false).await.unwrap_err();
    assert!(failure.sentence.ends_with("is signed by an authority that is not trusted here"), "{failure}");
}

/// Signed with our token and pinned, and yet not what the cluster itself says.
#[tokio::test]
async fn a_cluster_info_that_was_altered_on_the_way_is_refused() {
    let authority = authority(now());
    let (pin, ca_pem) = (authority.certificates()[0].public_key_hash(), authority.pem().to_owned());
    let asked = std::sync::atomic::AtomicU32::new(0);
    let url = tls_server::start(&authority, now(), Fault::None, move |url, _| {
        let elsewhere = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        (200, cluster_info(if elsewhere { "https://10.6.6.6:6443" } else { url }, &ca_pem))
    });
    let failure = by_token(&url, &[&pin], false).await.unwrap_err();
    assert!(failure.sentence.ends_with("gave another cluster-info over a verified connection"), "{failure}");
    assert!(failure.advice.unwrap().contains("somebody may stand between"));
}

/// A kubeconfig with these lines below its user.
fn kubeconfig(url: &str, ca: Option<&str>, user: &str) -> String {
    let ca = ca.map(|ca| format!(", certificate-authority: {ca}")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: c, cluster: {{server: '{url}'{ca}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    )
}

#[rstest]
#[case("", false)]
#[case("token: t0ken", true)]
#[case("tokenFile: sub/token", true)]
#[case("username: me, password: it", true)]
#[case("username: me", false)]
#[tokio::test]
async fn a_file_is_trusted_with_all_it_names_inside(#[case] user: &str, #[case] credentials: bool) {
    let authority = authority(now());
    let ca_pem = authority.pem().to_owned();
    let url = tls_server::start(&authority, now(), Fault::None, move |url, _| (200, cluster_info(url, &ca_pem)));
    let host = FakeHost::new()
        .file("/d/ca.crt", authority.pem())
        .file("/d/sub/token", "t0ken\n")
        .file("/d/file.conf", kubeconfig(&url, Some("ca.crt"), user));
    let found = by_file(&host, "/d/file.conf").await.unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem.as_str()), (url.as_str(), authority.pem()));
    assert_eq!(found.credentials.is_some(), credentials);
    if let Some(text) = found.credentials {
        let text = text.expose();
        assert!(!text.contains("ca.crt") && !text.contains("sub/token"), "{text}");
        assert!(text.contains("t0ken") || text.contains("password: it"), "{text}");
        assert_eq!(Kubeconfig::parse(text).unwrap().current_cluster().unwrap().ca_pem().unwrap(), ca_of(&host));
        let own = pointed_to(&Secret::new(text), "https://10.0.0.12:6443").unwrap();
        assert!(own.expose().contains("server: https://10.0.0.12:6443") && !own.expose().contains(&url));
    }
}

fn ca_of(host: &FakeHost) -> String {
    host.text("/d/ca.crt").unwrap()
}

#[rstest]
#[case(403, "", true, "")]
#[case(401, "", true, "")]
#[case(401, "token: old", false, "does not accept the credentials of the discovery file")]
#[tokio::test]
async fn a_cluster_that_shows_nothing_is_trusted_by_the_file(
    #[case] status: u16,
    #[case] user: &str,
    #[case] good: bool,
    #[case] sentence: &str,
) {
    let authority = authority(now());
    let url = tls_server::start(&authority, now(), Fault::None, move |_, _| {
        (
            status,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "no", "reason": "No"}),
        )
    });
    let host = FakeHost::new().file("/d/ca.crt", authority.pem()).file("/d/f", kubeconfig(&url, Some("ca.crt"), user));
    let found = by_file(&host, "/d/f").await;
    assert_eq!(found.is_ok(), good, "{found:?}");
    if let Err(failure) = found {
        assert!(failure.sentence.ends_with(sentence), "{failure}");
    }
}

#[rstest]
#[case("/d/none", "there is no discovery file /d/none")]
#[case("/d/broken", "/d/broken cannot be used for discovery: it is not YAML")]
#[case("/d/two", "/d/two cannot be used for discovery: it is not one kubeconfig")]
#[case("/d/nobody", "/d/nobody cannot be used for discovery: its current context names no cluster")]
#[case("/d/plain", "/d/plain cannot be used for discovery: the server of its cluster is no https URL")]
#[case("/d/careless", "/d/careless cannot be used for discovery: it asks not to verify the cluster")]
#[case("/d/lost", "/d/lost cannot be used for discovery: there is no /d/gone.crt, which it names")]
#[case("/d/badca", "the cluster's CA certificate cannot be read")]
#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_the_reason(#[case] path: &str, #[case] expected: &str) {
    let url = "https://10.0.0.1:6443";
    let host = FakeHost::new()
        .file("/d/broken", "a: {b")
        .file("/d/two", "a: 1\n---\nb: 2\n")
        .file("/d/nobody", "apiVersion: v1\nkind: Config\n")
        .file("/d/plain", kubeconfig("http://10.0.0.1:6443", None, ""))
        .file("/d/careless", kubeconfig(url, None, "").replace("server:", "insecure-skip-tls-verify: true, server:"))
        .file("/d/lost", kubeconfig(url, Some("gone.crt"), ""))
        .file("/d/bad.crt", "nothing")
        .file("/d/badca", kubeconfig(url, Some("bad.crt"), ""));
    let failure: Failure = by_file(&host, path).await.unwrap_err();
    assert!(failure.to_string().starts_with(expected), "{failure}");
}

#[tokio::test]
async fn a_url_that_does_not_answer_is_named() {
    let failure = by_file(&FakeHost::new(), "https://127.0.0.1:1/discovery.conf").await.unwrap_err();
    assert!(failure.sentence.ends_with("cannot be fetched from https://127.0.0.1:1/discovery.conf"), "{failure}");
}
