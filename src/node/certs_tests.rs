use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::host::fake::FakeHost;
use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey};
use crate::node::init::credentials;
use crate::node::init::plan::Plan;
use crate::node::init::tests::{facts, order};

const DIRECTORY: &str = "/etc/kubernetes";

/// A control plane with its certificates and kubeconfigs.
async fn control_plane() -> (FakeHost, ClusterConfiguration) {
    let host = FakeHost::new().file("/k.yaml", order("").configuration.expose());
    init(&host).await.unwrap();
    let cluster = cluster(&host, &source(Some("/k.yaml")), &Events::nowhere()).await.unwrap();
    (host, cluster)
}

/// Phases certs and kubeconfig of init.
async fn init(host: &FakeHost) -> Result<u32> {
    let plan = Plan::load(host, &facts(), &order(""), &Events::nowhere())?;
    credentials(host, &plan, &Events::nowhere()).await
}

fn source(file: Option<&'static str>) -> Source<'static> {
    Source { file: file.map(Path::new), kubeconfig: Path::new("/nowhere"), certificates_directory: None }
}

#[tokio::test]
async fn all_are_renewed_at_once_and_the_rest_is_left_alone() {
    let (host, cluster) = control_plane().await;
    let before = host.listing();
    let outcomes = renew(&host, &cluster, Path::new(DIRECTORY), None).await.unwrap();
    assert_eq!(outcomes.len(), 11);
    assert!(outcomes.iter().all(|outcome| outcome.state == State::Renewed));
    let changed: Vec<_> = host
        .listing()
        .into_iter()
        .filter(|(path, now)| before.get(path) != Some(now))
        .map(|(path, (_, mode, _))| format!("{} {mode:o}", path.display()))
        .collect();
    assert_eq!(changed.len(), 7 * 2 + 4, "{changed:?}");
    assert!(changed.contains(&"/etc/kubernetes/pki/etcd/peer.key 600".to_owned()), "{changed:?}");
    assert!(!changed.iter().any(|path| path.contains("ca.") || path.contains("kubelet.conf") || path.contains("/sa.")));
}

#[tokio::test]
async fn one_is_renewed_by_name() {
    let (host, cluster) = control_plane().await;
    host.remove(Path::new("/etc/kubernetes/super-admin.conf")).unwrap();
    let renewed = |name: &'static str| {
        let (host, cluster) = (host.clone(), cluster.clone());
        async move { renew(&host, &cluster, Path::new(DIRECTORY), Some(name)).await }
    };
    assert_eq!(renewed("etcd-server").await.unwrap()[0].state, State::Renewed);
    assert_eq!(renewed("super-admin.conf").await.unwrap()[0].state, State::Missing);
    host.remove(Path::new("/etc/kubernetes/pki/front-proxy-ca.key")).unwrap();
    assert_eq!(renewed("front-proxy-client").await.unwrap()[0].state, State::External("front-proxy-ca".into()));
    let failure = renewed("kubelet.conf").await.unwrap_err();
    assert_eq!(failure.kind, Kind::Usage);
    assert!(failure.advice.unwrap().starts_with("choose all, or one of admin.conf, apiserver, "));
}

#[tokio::test]
async fn without_file_and_cluster_there_are_defaults_and_a_warning() {
    let (events, mut happened) = Events::channel();
    let host = FakeHost::new();
    let settings = Source { certificates_directory: Some("/pki"), ..source(None) };
    let cluster = cluster(&host, &settings, &events).await.unwrap();
    assert_eq!((cluster.certificates_dir.as_str(), cluster.encryption_algorithm.as_str()), ("/pki", "RSA-2048"));
    drop(events);
    assert!(format!("{:?}", happened.recv().await).contains("there is no /nowhere"));
    let missing = expirations(&host, &cluster, Path::new(DIRECTORY)).unwrap();
    assert!(missing.certificates.iter().chain(&missing.authorities).all(|one| one.until_seconds.is_none()));
    let failure = super::cluster(&host, &source(Some("/k.yaml")), &Events::nowhere()).await.unwrap_err();
    assert_eq!(failure.sentence, "there is no file /k.yaml");
}

/// What a person does with requests at an authority elsewhere: openssl signs them; authorities and certificates are put
/// beside the keys and into the kubeconfigs.
fn sign(host: &FakeHost, written: &[PathBuf]) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let openssl = |arguments: &str| {
        #[expect(clippy::disallowed_methods, reason = "openssl is the authority of this test")]
        let mut command = std::process::Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(at("extensions"), "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n").unwrap();
    for (name, file) in [("ca", "ca"), ("front-proxy-ca", "front-proxy-ca"), ("etcd-ca", "etcd/ca")] {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let now_seconds = defaults::now_seconds().unwrap();
        let authority = Authority::fresh(name, key, now_seconds, 9999 * 86_400).unwrap();
        std::fs::write(at(&format!("{name}.crt")), authority.pem()).unwrap();
        std::fs::write(at(&format!("{name}.key")), authority.key().unwrap().pem().expose()).unwrap();
        host.put(&Path::new("/etc/kubernetes/pki").join(format!("{file}.crt")), authority.pem().as_bytes(), 0o644);
    }
    for path in written.iter().filter(|path| path.extension().is_some_and(|end| end == "csr")) {
        std::fs::write(at("csr"), host.text(path).unwrap()).unwrap();
        openssl("req -in csr -noout -verify");
        let name = path.to_string_lossy();
        let authority = match &name {
            name if name.contains("front-proxy") => "front-proxy-ca",
            name if name.contains("etcd") => "etcd-ca",
            _ => "ca",
        };
        openssl(&format!(
            "x509 -req -in csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 99 -copy_extensions copy \
             -extfile extensions -out crt"
        ));
        let certificate = std::fs::read_to_string(at("crt")).unwrap();
        let holder = path.with_extension("");
        match host.text(&holder) {
            None => host.put(&path.with_extension("crt"), certificate.as_bytes(), 0o644),
            Some(text) => {
                let mut kubeconfig = Kubeconfig::parse(&text).unwrap();
                let ca = std::fs::read(at("ca.crt")).unwrap();
                kubeconfig.clusters[0].cluster.certificate_authority_data = Some(STANDARD.encode(ca));
                kubeconfig.users[0].user.client_certificate_data = Some(STANDARD.encode(certificate));
                host.put(&holder, kubeconfig.to_text().expose().as_bytes(), 0o600);
            }
        }
    }
}

/// generate-csr, an authority that somebody else runs, and init in external CA mode: the whole way.
#[tokio::test]
async fn what_an_authority_elsewhere_signs_is_taken_by_init() {
    let host = FakeHost::new().file("/k.yaml", order("").configuration.expose());
    let wanted = Requested::load(&host, &facts(), Some(Path::new("/k.yaml")), None, &Events::nowhere()).unwrap();
    let written = request(&host, &wanted, Path::new(DIRECTORY)).await.unwrap();
    assert_eq!(written.len(), 2 * (7 + 5));
    let kubeconfig = host.text("/etc/kubernetes/admin.conf").unwrap();
    assert!(kubeconfig.contains("client-key-data") && !kubeconfig.contains("certificate-authority-data"));
    let again = request(&host, &wanted, Path::new(DIRECTORY)).await.unwrap_err();
    assert_eq!(again.sentence, "24 of the files to write are there already");

    sign(&host, &written);
    let init = || init(&host);
    assert_eq!(init().await.map(|changes| changes > 0), Ok(true), "sa is made here");
    assert_eq!(init().await, Ok(0));
    assert!(host.text("/etc/kubernetes/pki/ca.key").is_none());

    host.remove(Path::new("/etc/kubernetes/scheduler.conf")).unwrap();
    host.remove(Path::new("/etc/kubernetes/pki/apiserver.crt")).unwrap();
    let failure = init().await.unwrap_err();
    let detail = failure.detail.unwrap();
    assert!(detail.contains("pki/apiserver.crt cannot be used") || detail.contains("pki/apiserver.key"), "{detail}");
    assert!(detail.contains("/etc/kubernetes/scheduler.conf is missing"), "{detail}");
}
