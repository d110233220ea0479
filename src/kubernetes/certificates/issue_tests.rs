use std::collections::BTreeMap;

use rstest::rstest;

use super::*;
use crate::kubernetes::certificates::{KeyAlgorithm, public_key_hash};

const NOW: u64 = 1_795_435_200;

fn cluster() -> ClusterConfiguration {
    let mut cluster = ClusterConfiguration {
        kubernetes_version: "1.36.3".into(),
        control_plane_endpoint: "api.demo.example".into(),
        encryption_algorithm: "ECDSA-P256".into(),
        ..Default::default()
    };
    cluster.api_server.cert_sans = vec!["*.demo.example".into(), "10.0.0.11".into(), "192.0.2.7".into()];
    cluster.complete(6443).unwrap();
    cluster
}

fn endpoint() -> ApiEndpoint {
    ApiEndpoint { advertise_address: "10.0.0.11".into(), bind_port: 6443 }
}

fn run(cluster: &ClusterConfiguration, existing: &BTreeMap<String, Secret>, joining: bool) -> Result<Issued> {
    run_at(NOW, cluster, existing, joining)
}

fn run_at(
    now_seconds: u64,
    cluster: &ClusterConfiguration,
    existing: &BTreeMap<String, Secret>,
    joining: bool,
) -> Result<Issued> {
    let order = CertificateOrder { cluster, node_name: "cp1", local: &endpoint(), now_seconds, joining };
    issue(&order, existing, &mut KeyPool::new(cluster.encryption_algorithm.parse().unwrap()))
}

fn as_map(issued: &Issued) -> BTreeMap<String, Secret> {
    issued.files.iter().map(|file| (file.path.clone(), file.content.clone())).collect()
}

fn certificate(files: &BTreeMap<String, Secret>, path: &str) -> Certificate {
    Certificate::parse_pem(files[path].expose()).unwrap().remove(0)
}

#[test]
fn everything_is_made_where_nothing_is() {
    let issued = run(&cluster(), &BTreeMap::new(), false).unwrap();
    let files = as_map(&issued);
    let mut paths = pki_paths(&cluster());
    paths.sort();
    assert_eq!(files.keys().cloned().collect::<Vec<_>>(), paths);
    assert!(issued.kept.is_empty() && issued.warnings.is_empty());
    for file in &issued.files {
        assert_eq!(file.mode, if file.path.ends_with(".crt") { 0o644 } else { 0o600 }, "{}", file.path);
    }
    let api_server = certificate(&files, "apiserver.crt");
    assert_eq!(
        api_server.dns_names,
        [
            "*.demo.example",
            "api.demo.example",
            "cp1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local"
        ]
    );
    let addresses: Vec<_> = api_server.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.96.0.1", "10.0.0.11", "192.0.2.7"]);
    assert_eq!((api_server.not_before, api_server.not_after), (NOW as i64 - 300, NOW as i64 + 8760 * 3600));
    assert!(!api_server.is_authority && api_server.key_identifier.is_none());
    assert!(api_server.covers("anything.demo.example") && !api_server.covers("a.b.demo.example"));

    let peer = certificate(&files, "etcd/peer.crt");
    assert_eq!(peer.dns_names, ["cp1", "localhost"]);
    let addresses: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.11", "127.0.0.1", "::1"]);

    let ca = certificate(&files, "ca.crt");
    assert!(ca.is_authority && ca.is_signed_by(&ca));
    assert_eq!(ca.not_after, NOW as i64 + 87_600 * 3600);
    assert!(api_server.is_signed_by(&ca) && !peer.is_signed_by(&ca));
    assert_eq!(public_key_hash(files["ca.crt"].expose()).unwrap(), [ca.public_key_hash()]);
    assert!(certificate(&files, "apiserver-kubelet-client.crt").organizations.is_empty());
}

#[test]
fn what_is_there_is_kept() {
    let first = as_map(&run(&cluster(), &BTreeMap::new(), false).unwrap());
    let second = run(&cluster(), &first, false).unwrap();
    assert!(second.files.is_empty() && second.warnings.is_empty());
    assert_eq!(second.kept.len(), 11);
}

#[test]
fn a_joining_node_makes_only_its_own() {
    let cluster = cluster();
    let first = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    let joined = run(&cluster, &only_authorities(&first), true).unwrap();
    assert_eq!(joined.kept, ["ca", "front-proxy-ca", "etcd/ca", "sa"]);
    assert_eq!(joined.files.len(), 14);
    let failure = run(&cluster, &BTreeMap::new(), true).unwrap_err();
    assert_eq!(failure.sentence, "4 things are missing or do not fit in /etc/kubernetes/pki");
    let detail = failure.detail.unwrap();
    assert!(detail.contains("/etc/kubernetes/pki/ca.crt, which all control planes share"), "{detail}");
}

#[test]
fn external_etcd_needs_no_etcd_certificates() {
    let mut cluster = cluster();
    cluster.etcd.local = None;
    cluster.etcd.external = Some(Default::default());
    let files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    assert!(files.keys().all(|path| !path.contains("etcd")));
    assert_eq!(files.len(), 12);
}

#[test]
fn an_authority_without_a_key_wants_all_its_leaves() {
    let cluster = cluster();
    let mut files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    files.remove("ca.key");
    let issued = run(&cluster, &files, false).unwrap();
    assert!(issued.authority.is_external() && issued.files.is_empty());
    files.remove("apiserver.crt");
    files.remove("apiserver.key");
    let failure = run(&cluster, &files, false).unwrap_err();
    assert_eq!(failure.sentence, "/etc/kubernetes/pki/apiserver.crt is missing, and its authority has no key here");
}

/// All authorities without keys, three things wrong: a person hears of all at once.
#[test]
fn an_external_authority_is_judged_as_a_whole() {
    let cluster = cluster();
    let mut files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    for authority in ["ca", "front-proxy-ca", "etcd/ca"] {
        files.remove(&format!("{authority}.key"));
    }
    assert!(run(&cluster, &files, false).unwrap().files.is_empty());
    for end in ["crt", "key"] {
        files.remove(&format!("front-proxy-client.{end}"));
        files.insert(format!("apiserver.{end}"), files[&format!("apiserver-kubelet-client.{end}")].clone());
    }
    files.remove("etcd/peer.key");
    let failure = run(&cluster, &files, false).unwrap_err();
    assert_eq!(failure.sentence, "3 things are missing or do not fit in /etc/kubernetes/pki");
    let detail = failure.detail.unwrap();
    let lines: Vec<_> = detail.lines().collect();
    assert!(lines[0].starts_with("/etc/kubernetes/pki/apiserver.crt cannot be used: it is not valid for cp1"));
    assert!(
        lines[1].starts_with("/etc/kubernetes/pki/front-proxy-client.crt is missing, and its authority has no key")
    );
    assert!(lines[2].starts_with("/etc/kubernetes/pki/etcd/peer.crt cannot be used: its .key file is missing"));
}

#[rstest]
#[case(NOW + 88_000 * 3600, "has expired: it was valid until 2036-11-20T12:00:00Z", "put a certificate authority there")]
#[case(
    NOW - 7200,
    "is not valid before 2026-11-23T11:55:00Z, and the clock of this host says 2026-11-23T10:00:00Z",
    "set the clock of this host"
)]
fn an_authority_out_of_its_time_is_refused(#[case] now_seconds: u64, #[case] words: &str, #[case] advice: &str) {
    let cluster = cluster();
    let files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    let files = files.into_iter().filter(|(path, _)| path.starts_with("ca.")).collect();
    let local = endpoint();
    let order = CertificateOrder { cluster: &cluster, node_name: "cp1", local: &local, now_seconds, joining: false };
    let failure = issue(&order, &files, &mut KeyPool::new(KeyAlgorithm::EcdsaP256)).unwrap_err();
    assert_eq!(failure.sentence, format!("the certificate authority /etc/kubernetes/pki/ca.crt {words}"));
    assert!(failure.advice.unwrap().starts_with(advice));
}

#[rstest]
#[case("apiserver.crt", "front-proxy-client.crt", "the private key does not belong to the certificate")]
#[case("apiserver.key", "ca.crt", "there is no private key in it")]
#[case("ca.crt", "apiserver.crt", "its certificate is not that of a certificate authority")]
#[case("ca.key", "front-proxy-ca.key", "the private key does not belong to the certificate")]
#[case("sa.pub", "sa.key", "")]
fn a_file_that_does_not_fit_is_named(#[case] place: &str, #[case] taken_from: &str, #[case] cause: &str) {
    let cluster = cluster();
    let mut files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    files.insert(place.to_owned(), files[taken_from].clone());
    let result = run(&cluster, &files, false);
    if cause.is_empty() {
        assert!(result.is_ok(), "forms other than PKIX are left to the API server");
        return;
    }
    let failure = result.unwrap_err();
    let base = place.split('.').next().unwrap();
    assert!(failure.sentence.starts_with(&format!("/etc/kubernetes/pki/{base}.")), "{failure}");
    assert_eq!(failure.causes, [cause]);
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let cluster = cluster();
    let mut files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    for end in ["crt", "key"] {
        files.insert(format!("apiserver.{end}"), files[&format!("etcd/server.{end}")].clone());
    }
    let failure = run(&cluster, &files, false).unwrap_err();
    assert_eq!(failure.causes, ["it is not signed by the certificate authority kubernetes"]);
}

#[test]
fn a_certificate_without_a_wanted_name_is_refused() {
    let mut cluster = cluster();
    let files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    cluster.api_server.cert_sans.push("new.example".into());
    let failure = run(&cluster, &files, false).unwrap_err();
    assert_eq!(failure.causes, ["it is not valid for new.example"]);
}

/// As upstream, to whom its chain does not verify any more.
#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let cluster = cluster();
    let files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    let later = NOW + 9000 * 3600;
    let failure = run_at(later, &cluster, &files, false).unwrap_err();
    assert_eq!(failure.sentence, "7 things are missing or do not fit in /etc/kubernetes/pki");
    let detail = failure.detail.unwrap();
    let first = detail.lines().next().unwrap();
    let words = "/etc/kubernetes/pki/apiserver.crt has expired: it was valid until 2027-11-23T12:00:00Z";
    assert_eq!(first, format!("{words}; make a new one: `clusterctl node certs renew apiserver`"));
    assert!(detail.contains("`clusterctl node certs renew etcd-healthcheck-client`"), "{detail}");

    // One alone, made by the same authority in a time to come.
    let anew = as_map(&run_at(later, &cluster, &only_authorities(&files), false).unwrap());
    let mut future = files.clone();
    future.extend(anew.into_iter().filter(|(path, _)| path.starts_with("front-proxy-client.")));
    let failure = run(&cluster, &future, false).unwrap_err();
    assert!(
        failure.sentence.starts_with("/etc/kubernetes/pki/front-proxy-client.crt is not valid before"),
        "{failure}"
    );
    assert!(failure.advice.unwrap().starts_with("set the clock of this host"));

    // Without the authority's key nothing can be renewed here.
    let mut external = files.clone();
    external.remove("front-proxy-ca.key");
    let detail = run_at(later, &cluster, &external, false).unwrap_err().detail.unwrap();
    let line = detail.lines().find(|line| line.contains("front-proxy-client.crt")).unwrap();
    assert!(line.ends_with("have its certificate authority sign a new one, and put that there"), "{line}");
}

#[test]
fn an_authority_that_ends_before_what_it_signs_is_warned_about() {
    let mut cluster = cluster();
    cluster.ca_certificate_validity_period = Some("8761h".parse().unwrap());
    let files = only_authorities(&as_map(&run(&cluster, &BTreeMap::new(), false).unwrap()));
    assert!(run_at(NOW + 3600, &cluster, &files, false).unwrap().warnings.is_empty());
    let warnings = run_at(NOW + 3601, &cluster, &files, false).unwrap().warnings;
    assert_eq!(warnings.len(), 3);
    assert_eq!(
        warnings[0],
        "the certificate authority /etc/kubernetes/pki/ca.crt is valid until 2027-11-23T13:00:00Z, and certificates that are \
         made now until 2027-11-23T13:00:01Z: they are worth nothing once it has expired"
    );
}

fn only_authorities(files: &BTreeMap<String, Secret>) -> BTreeMap<String, Secret> {
    let of_authority = |path: &str| path.contains("ca.") || path.starts_with("sa.");
    files.iter().filter(|(path, _)| of_authority(path)).map(|(path, text)| (path.clone(), text.clone())).collect()
}

#[test]
fn the_kubelet_client_of_older_releases_is_an_administrator() {
    let mut cluster = cluster();
    cluster.kubernetes_version = "v1.35.4".into();
    let files = as_map(&run(&cluster, &BTreeMap::new(), false).unwrap());
    assert_eq!(certificate(&files, "apiserver-kubelet-client.crt").organizations, ["kubeadm:cluster-admins"]);
}

/// A CA as companies have them: an intermediate whose name has one attribute twice, with its own CA in the bundle. What
/// we sign must name its issuer byte by byte, or nobody finds the way up.
#[test]
fn a_persons_own_authority_signs() {
    let directory = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        #[expect(clippy::disallowed_methods, reason = "the test makes a foreign authority with openssl")]
        let mut command = std::process::Command::new("openssl");
        // Arguments hold no blanks but in names, which are written with '+' for them.
        let words = arguments.split(' ').map(|word| word.replace('+', " "));
        let output = command.args(words).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("extensions"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n").unwrap();
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 9999 -subj /CN=Root");
    openssl(
        "req -newkey rsa:2048 -nodes -keyout ca.key -out ca.csr -subj /DC=example/DC=corp/OU=One/OU=Two/CN=Käse+CA -utf8",
    );
    openssl(
        "x509 -req -in ca.csr -CA root.crt -CAkey root.key -CAcreateserial -days 9999 -extfile extensions -out own.crt",
    );
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    let bundle = format!("{}{}", read("own.crt"), read("root.crt"));
    let existing = BTreeMap::from([
        ("ca.crt".to_owned(), Secret::new(bundle.clone())),
        ("ca.key".to_owned(), Secret::new(read("ca.key"))),
    ]);
    // openssl makes certificates of the machine's time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let issued = run_at(now, &cluster(), &existing, false).unwrap();
    assert_eq!(issued.kept, ["ca"]);
    assert_eq!(issued.authority.pem(), bundle);
    let files = as_map(&issued);
    std::fs::write(at("apiserver.crt"), files["apiserver.crt"].expose()).unwrap();
    std::fs::write(at("bundle.crt"), bundle).unwrap();
    openssl("verify -no_check_time -CAfile bundle.crt apiserver.crt");
    // What was made by it is recognised in the next run.
    let all: BTreeMap<_, _> = existing.into_iter().chain(files).collect();
    assert!(run_at(now, &cluster(), &all, false).unwrap().files.is_empty());
}

/// The judge that is not ours: openssl reads every file, verifies every chain and finds the properties of
/// kubeadm.md section 2.3.
#[rstest]
#[case("RSA-2048", "sha256WithRSAEncryption")]
#[case("ECDSA-P256", "ecdsa-with-SHA256")]
#[case("ECDSA-P384", "ecdsa-with-SHA384")]
#[case("RSA-3072", "Public-Key: (3072 bit)")]
#[case("RSA-4096", "Public-Key: (4096 bit)")]
fn openssl_agrees(#[case] algorithm: &str, #[case] signature: &str) {
    let mut cluster = cluster();
    cluster.encryption_algorithm = algorithm.into();
    let issued = run(&cluster, &BTreeMap::new(), false).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("etcd")).unwrap();
    for file in &issued.files {
        std::fs::write(directory.path().join(&file.path), file.content.expose()).unwrap();
    }
    let openssl = |arguments: &[&str]| {
        #[expect(clippy::disallowed_methods, reason = "the test asks openssl itself")]
        let output = std::process::Command::new("openssl").args(arguments).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for entry in CATALOGUE {
        let (certificate, key) = (format!("{}.crt", entry.base_name), format!("{}.key", entry.base_name));
        let text = openssl(&["x509", "-noout", "-text", "-in", &certificate]);
        assert!(text.contains(signature), "{text}");
        let public = openssl(&["pkey", "-in", &key, "-pubout"]);
        assert_eq!(openssl(&["x509", "-noout", "-pubkey", "-in", &certificate]), public);
        let authority = match entry.signer {
            Signer::Itself => entry.base_name,
            Signer::Authority(name) => name,
        };
        // The time is NOW, wherever the machine's clock stands.
        let now = NOW.to_string();
        let authority = format!("{authority}.crt");
        openssl(&["verify", "-x509_strict", "-attime", &now, "-CAfile", &authority, &certificate]);
        if entry.signer == Signer::Itself {
            assert!(text.contains("CA:TRUE") && text.contains("Digital Signature, Key Encipherment, Certificate Sign"));
            assert!(text.contains("Subject Key Identifier") && !text.contains("Authority Key Identifier"));
        } else {
            assert!(text.contains("CA:FALSE") && text.contains("Digital Signature, Key Encipherment\n"));
            assert!(!text.contains("Subject Key Identifier") && text.contains("Authority Key Identifier"));
            assert!(text.contains("TLS Web"));
        }
    }
    assert_eq!(
        openssl(&["pkey", "-in", "sa.key", "-pubout"]),
        std::fs::read_to_string(directory.path().join("sa.pub")).unwrap()
    );
    let hash = openssl(&["x509", "-noout", "-subject", "-in", "etcd/peer.crt"]);
    assert!(hash.contains("CN = cp1") || hash.contains("CN=cp1"), "{hash}");
}
