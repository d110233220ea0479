//! Whole downloads against servers on loopback which speak the paths of the real ones.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rstest::rstest;

use super::server::{Behaviour, start};
use super::{CNI_PLUGINS, CONTAINERD, Credentials, Order, RUNC, Sources, download, foresee, unavailable};
use crate::bundle::digest::sha256;
use crate::bundle::{Bundle, create};
use crate::failure::{Failure, Kind};
use crate::https::{Ask, Downloads, Proxies};

const IMAGES: [&str; 7] = [
    "registry.k8s.io/kube-apiserver:v1.36.3",
    "registry.k8s.io/kube-controller-manager:v1.36.3",
    "registry.k8s.io/kube-scheduler:v1.36.3",
    "registry.k8s.io/kube-proxy:v1.36.3",
    "registry.k8s.io/coredns/coredns:v1.14.2",
    "registry.k8s.io/pause:3.10.2",
    "registry.k8s.io/etcd:3.6.8-0",
];

const KUBELET: &str = "/k8s/release/v1.36.3/bin/linux/amd64/kubelet";

fn tarball(files: &[&str]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(name.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// Everything that an order wants, where the real servers have it.
fn releases() -> Behaviour {
    let mut behaviour = Behaviour::default();
    let mut file = |path: String, content: Vec<u8>| behaviour.files.insert(path, content);
    for name in ["kubelet", "kubectl"] {
        let content = name.repeat(50_000).into_bytes();
        let path = format!("/k8s/release/v1.36.3/bin/linux/amd64/{name}");
        file(format!("{path}.sha256"), sha256(&content).into_bytes());
        file(path, content);
    }
    let containerd = tarball(&["bin/containerd", "bin/containerd-stress", "bin/containerd-shim-runc-v2", "bin/ctr"]);
    let name = format!("containerd-{CONTAINERD}-linux-amd64.tar.gz");
    let path = format!("/containerd/v{CONTAINERD}/{name}");
    file(format!("{path}.sha256sum"), format!("{}  {name}\n", sha256(&containerd)).into_bytes());
    file(path, containerd);
    let runc = b"runc itself".to_vec();
    let sums = format!("{}  runc.arm64\n{}  runc.amd64\n", "0".repeat(64), sha256(&runc));
    file(format!("/runc/v{RUNC}/runc.sha256sum"), sums.into_bytes());
    file(format!("/runc/v{RUNC}/runc.amd64"), runc);
    let plugins = tarball(&[
        "./bridge",
        "./host-local",
        "./loopback",
        "./portmap",
        "./ptp",
        "./bandwidth",
        "./firewall",
        "./tuning",
        "./vlan",
    ]);
    let name = format!("cni-plugins-linux-amd64-v{CNI_PLUGINS}.tgz");
    let path = format!("/cni/v{CNI_PLUGINS}/{name}");
    file(format!("{path}.sha256"), format!("{}  {name}\n", sha256(&plugins)).into_bytes());
    file(path, plugins);
    for reference in IMAGES {
        image(&mut behaviour, reference);
    }
    behaviour
}

/// An image with an index of two architectures.
fn image(behaviour: &mut Behaviour, reference: &str) {
    let (repository, tag) = reference.strip_prefix("registry.k8s.io/").unwrap().rsplit_once(':').unwrap();
    let mut manifests = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let config = format!("{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"of\":\"{repository}\"}}");
        let layer = format!("the layer of {repository} for {architecture}").repeat(1000);
        // All images share it.
        let base = "the base of all images".repeat(10_000);
        let descriptor = |kind: &str, text: &str| serde_json::json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(text.as_bytes())), "size": text.len()});
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &base),
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer),
            ],
        })
        .to_string();
        for text in [&config, &base, &layer] {
            let path = format!("/v2/mirror/{repository}/blobs/sha256:{}", sha256(text.as_bytes()));
            behaviour.files.insert(path, text.clone().into_bytes());
        }
        let digest = format!("sha256:{}", sha256(manifest.as_bytes()));
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
        manifests.push(entry);
        behaviour.files.insert(format!("/v2/mirror/{repository}/manifests/{digest}"), manifest.into_bytes());
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    behaviour.files.insert(format!("/v2/mirror/{repository}/manifests/{tag}"), index.into_bytes());
}

fn order(url: &str, cache: &Path) -> Order {
    let mut sources = Sources::default();
    for (name, path) in [("kubernetes", "k8s"), ("containerd", "containerd"), ("runc", "runc"), ("cni", "cni")] {
        sources.mirror(&format!("{name}={url}/{path}")).unwrap();
    }
    sources.mirror(&format!("registry.k8s.io={url}/mirror")).unwrap();
    Order {
        kubernetes: semver::Version::new(1, 36, 3),
        architecture: "amd64".to_owned(),
        images: IMAGES.map(str::to_owned).to_vec(),
        kubectl: true,
        containerd: CONTAINERD,
        runc: RUNC,
        cni_plugins: CNI_PLUGINS,
        sources,
        credentials: Credentials::default(),
        proxies: Proxies::default(),
        cache: cache.to_owned(),
    }
}

struct Trial {
    folder: tempfile::TempDir,
    url: String,
    server: Arc<Mutex<Behaviour>>,
}

impl Trial {
    fn new(behaviour: Behaviour) -> Self {
        let (url, server) = start(behaviour);
        Self { folder: tempfile::tempdir().unwrap(), url, server }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    async fn run(&self) -> Result<PathBuf, Failure> {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        download(&order(&self.url, &self.cache()), &target, &|_, _, _| ()).await.map(|_| target)
    }

    fn asked(&self, what: &str) -> usize {
        self.server.lock().unwrap().asked.iter().filter(|line| line.contains(what)).count()
    }
}

#[tokio::test]
async fn what_was_downloaded_is_a_bundle() {
    let trial = Trial::new(releases());
    let folder = trial.run().await.unwrap();
    assert_eq!(std::fs::read(folder.join("bin/ctr")).unwrap(), b"bin/ctr");
    assert_eq!(std::fs::read(folder.join("bin/runc")).unwrap(), b"runc itself");
    assert!(!folder.join("bin/containerd-stress").exists() && !folder.join("cni/vlan").exists());
    let output = trial.folder.path().join("bundle");
    let order = crate::bundle::Order {
        from: folder,
        kubernetes: semver::Version::new(1, 36, 3),
        architecture: Some("amd64".to_owned()),
        output: output.clone(),
        level: 1,
    };
    let manifest = create(&order, &|_, _, _| ()).unwrap();
    let references: Vec<&str> = manifest.references().collect();
    assert!(IMAGES.iter().all(|image| references.contains(image)), "{references:?}");
    assert!(Bundle::open(&output).unwrap().verify(&|_, _, _| ()).unwrap().is_empty());
    // What is in the cache is not asked for again, but for checksums and manifests.
    let blobs = trial.asked("/blobs/");
    trial.run().await.unwrap();
    assert_eq!((trial.asked("/blobs/"), trial.asked("kubelet ")), (blobs, 0));
    assert_eq!(trial.asked(&format!("{KUBELET}.sha256")), 2);
}

#[tokio::test]
async fn what_is_foreseen_is_what_comes() {
    let trial = Trial::new(releases());
    let folder = trial.run().await.unwrap();
    let staging = crate::bundle::Order {
        from: folder,
        kubernetes: semver::Version::new(1, 36, 3),
        architecture: Some("amd64".to_owned()),
        output: trial.folder.path().to_owned(),
        level: 1,
    };
    let shape = |manifest: crate::bundle::Manifest| -> Vec<_> {
        manifest.blobs.into_iter().map(|blob| (blob.name, blob.place, blob.roles)).collect()
    };
    let came = shape(crate::bundle::stage(&staging).unwrap());
    assert_eq!(shape(foresee(&order(&trial.url, &trial.cache()))), came);
}

#[tokio::test]
async fn what_is_not_to_be_had_is_told_before() {
    let mut behaviour = releases();
    assert!(unavailable(&order(&Trial::new(releases()).url, Path::new(""))).await.unwrap().is_empty());
    behaviour.files.remove(&format!("{KUBELET}.sha256"));
    behaviour.files.retain(|path, _| !path.contains("/etcd/"));
    let trial = Trial::new(behaviour);
    let failures = unavailable(&order(&trial.url, Path::new(""))).await.unwrap();
    let sentences: Vec<&str> = failures.iter().map(|failure| failure.sentence.as_str()).collect();
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    assert!(sentences[0].contains("kubelet.sha256") && sentences[1].contains("etcd"), "{sentences:?}");
    assert_eq!(trial.asked("/blobs/"), 0);
}

#[rstest]
// Broken twice and gone on with; refused for a moment; a server that knows no parts.
#[case(vec![150_000, 100_000], vec![], false, 2)]
#[case(vec![], vec![503, 429], false, 0)]
#[case(vec![100_000], vec![], true, 1)]
#[tokio::test]
async fn a_broken_download_goes_on_at_the_byte(
    #[case] breaks: Vec<usize>,
    #[case] statuses: Vec<u16>,
    #[case] no_ranges: bool,
    #[case] parts: usize,
) {
    let mut behaviour = Behaviour { no_ranges, ..releases() };
    behaviour.breaks.insert(KUBELET.to_owned(), breaks);
    behaviour.statuses.insert(KUBELET.to_owned(), statuses);
    let trial = Trial::new(behaviour);
    let folder = trial.run().await.unwrap();
    assert_eq!(std::fs::read(folder.join("bin/kubelet")).unwrap(), "kubelet".repeat(50_000).into_bytes());
    assert_eq!(trial.asked(&format!("{KUBELET} from ")), parts);
}

#[tokio::test]
async fn what_a_killed_run_left_is_gone_on_with_and_damage_is_noticed() {
    let trial = Trial::new(releases());
    let content = "kubelet".repeat(50_000).into_bytes();
    std::fs::create_dir_all(trial.cache()).unwrap();
    let part = trial.cache().join(format!("{}.part", sha256(&content)));
    std::fs::write(&part, &content[..123_456]).unwrap();
    trial.run().await.unwrap();
    assert_eq!(trial.asked(&format!("{KUBELET} from 123456")), 1);
    // Damaged in the cache: what was there is thrown away and asked for anew.
    std::fs::remove_file(trial.cache().join(sha256(&content))).unwrap();
    std::fs::write(&part, vec![b'x'; 1000]).unwrap();
    let folder = trial.run().await.unwrap();
    assert!(std::fs::read(folder.join("bin/kubelet")).unwrap() == content);
    let kept = trial.cache().join(sha256(&content));
    std::fs::OpenOptions::new().append(true).open(&kept).unwrap().write_all(b"more").unwrap();
    trial.run().await.unwrap();
    assert!(std::fs::read(kept).unwrap() == content);
}

/// A private registry, and what its user is known by there.
async fn private(change: impl FnOnce(&mut Behaviour), entry: &str) -> (Trial, crate::failure::Result<usize>) {
    let trial = Trial::new(changed(|server| {
        server.login = Some(("ann".to_owned(), "hunter2".to_owned()));
        change(server);
    }));
    let server = trial.url.strip_prefix("http://").unwrap();
    let config = trial.folder.path().join("config.json");
    std::fs::write(&config, format!("{{\"auths\":{{\"{server}\":{entry}}}}}")).unwrap();
    let credentials = Credentials::read(&config).unwrap();
    let order = Order { credentials, ..order(&trial.url, &trial.cache()) };
    let folder = tempfile::tempdir().unwrap();
    let digests = download(&order, folder.path(), &|_, _, _| ()).await;
    (trial, digests.map(|digests| digests.len()))
}

/// A mirror of releases is no registry: nobody logs in to it with docker.
#[tokio::test]
async fn a_server_that_lets_nobody_in_is_told_apart_from_a_registry() {
    let mut behaviour = releases();
    behaviour.statuses.insert(KUBELET.to_owned(), vec![403]);
    let failure = Trial::new(behaviour).run().await.unwrap_err();
    assert!(failure.advice.is_some_and(|advice| advice.starts_with("see whom that server lets in")));
}

const ANN: &str = "{\"auth\":\"YW5uOmh1bnRlcjI=\"}";

#[tokio::test]
async fn a_private_registry_is_logged_in_to_once_for_each_image() {
    let (_, refused) = private(|_| (), "{}").await;
    assert!(refused.unwrap_err().advice.unwrap().contains("docker login"));
    let (trial, images) = private(|_| (), ANN).await;
    assert_eq!(images, Ok(IMAGES.len()));
    assert_eq!(trial.asked("/token?"), IMAGES.len());
}

#[tokio::test]
async fn a_registry_may_want_name_and_password_or_an_identity_token() {
    let (trial, images) = private(|server| server.basic = true, ANN).await;
    assert_eq!((images, trial.asked("/token")), (Ok(IMAGES.len()), 0));
    let identity = |server: &mut Behaviour| server.identity = Some("refresh".to_owned());
    let (trial, images) = private(identity, "{\"identitytoken\":\"refresh\"}").await;
    assert_eq!((images, trial.asked("/token")), (Ok(IMAGES.len()), IMAGES.len()));
    let (_, refused) = private(identity, "{\"identitytoken\":\"another\"}").await;
    assert!(refused.unwrap_err().advice.unwrap().contains("docker login"));
}

#[tokio::test]
async fn a_server_for_logins_that_is_ill_is_asked_again() {
    let ill = |server: &mut Behaviour| _ = server.statuses.insert("/token".to_owned(), vec![503, 500]);
    let (trial, images) = private(ill, ANN).await;
    assert_eq!((images, trial.asked("/token?")), (Ok(IMAGES.len()), IMAGES.len() + 2));
}

/// A manifest that no index speaks of, with a configuration for this architecture.
fn without_index(behaviour: &mut Behaviour, architecture: &str) {
    let config = format!("{{\"architecture\":\"{architecture}\",\"os\":\"linux\"}}");
    let digest = format!("sha256:{}", sha256(config.as_bytes()));
    let manifest =
        serde_json::json!({"schemaVersion": 2, "config": {"digest": digest, "size": config.len()}, "layers": []});
    behaviour.files.insert("/v2/mirror/pause/manifests/3.10.2".to_owned(), manifest.to_string().into_bytes());
    behaviour.files.insert(format!("/v2/mirror/pause/blobs/{digest}"), config.into_bytes());
}

#[tokio::test]
async fn an_image_without_an_index_may_be_for_the_right_architecture() {
    Trial::new(changed(|server| without_index(server, "amd64"))).run().await.unwrap();
}

/// A proxy is asked for the whole URL; names that are excepted are reached without it.
#[tokio::test]
async fn proxies_of_a_machine_are_used_apart_from_what_is_excepted() {
    let file = |path: &str, content: &str| {
        let files = std::iter::once((path.to_owned(), content.as_bytes().to_vec())).collect();
        start(Behaviour { files, ..Behaviour::default() })
    };
    let (proxy, _) = file("http://releases.invalid/file", "through the proxy");
    let (direct, _) = file("/file", "directly");
    let settings = format!("http_proxy={proxy}\nno_proxy=10.0.0.0/8,127.0.0.1\n");
    let downloads = Downloads::through(&Proxies::of(&settings)).unwrap();
    let get = async |url: &str| {
        let answered = downloads.open(&Ask { url, ..Ask::default() }).await?;
        answered.body(1000).await
    };
    assert_eq!(get("http://releases.invalid/file").await.unwrap(), b"through the proxy");
    assert_eq!(get(&format!("{direct}/file")).await.unwrap(), b"directly");
}

fn changed(change: impl FnOnce(&mut Behaviour)) -> Behaviour {
    let mut behaviour = releases();
    change(&mut behaviour);
    behaviour
}

#[rstest]
#[case(changed(|server| { server.files.insert(KUBELET.into(), b"something else".to_vec()); }), "not what its checksum says")]
#[case(changed(|server| { server.files.remove(KUBELET); }), "cannot download")]
#[case(changed(|server| { server.files.insert(format!("{KUBELET}.sha256"), b"<html>".to_vec()); }), "has no checksum")]
#[case(changed(|server| {
    for (_, content) in server.files.iter_mut().filter(|(path, _)| path.contains("/pause/blobs/")) {
        *content = vec![b'x'; content.len()];
    }
}), "not what its checksum says")]
#[case(changed(|server| {
    let path = "/v2/mirror/pause/manifests/3.10.2".to_owned();
    server.files.insert(path, b"{\"manifests\":[{\"digest\":\"sha256:00\",\"size\":1,\"platform\":{\"architecture\":\"s390x\",\"os\":\"linux\"}}]}".to_vec());
}), "no image for linux/amd64")]
#[case(changed(|server| { server.files.insert("/v2/mirror/pause/manifests/3.10.2".into(), b"hello".to_vec()); }), "manifest that cannot be read")]
#[case(changed(|server| {
    let name = format!("/cni/v{CNI_PLUGINS}/cni-plugins-linux-amd64-v{CNI_PLUGINS}.tgz");
    let archive = tarball(&["./bridge"]);
    server.files.insert(format!("{name}.sha256"), sha256(&archive).into_bytes());
    server.files.insert(name, archive);
}), "holds no host-local")]
#[case(changed(|server| without_index(server, "arm64")), "for linux/arm64 only, and linux/amd64 is wanted")]
#[case(changed(|server| { server.redirects.insert(KUBELET.into(), KUBELET.into()); }), "cannot download")]
#[tokio::test]
async fn what_a_server_does_wrong_is_a_sentence(#[case] behaviour: Behaviour, #[case] sentence: &str) {
    let trial = Trial::new(behaviour);
    let failure = trial.run().await.unwrap_err();
    assert!(failure.sentence.contains(sentence), "{failure:?}");
    assert_eq!(failure.kind, Kind::Bundle);
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let trial = Trial::new(changed(|server| {
        let content = server.files.remove(KUBELET).unwrap();
        server.files.insert("/elsewhere/kubelet".to_owned(), content);
        server.redirects.insert(KUBELET.to_owned(), "/elsewhere/kubelet".to_owned());
    }));
    trial.run().await.unwrap();
    assert_eq!(trial.asked("/elsewhere/kubelet"), 1);
}
