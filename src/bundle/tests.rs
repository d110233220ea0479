//! A bundle made from a folder, opened, read back, and damaged.

use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Blob, Bundle, Order, create, create_of_all};
use crate::failure::Kind;
use crate::inventory::Role;
use crate::message::Place;

fn elf(content: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF".to_vec();
    bytes.resize(18, 0);
    bytes.extend([62, 0]);
    bytes.extend(content.as_bytes());
    bytes
}

fn image(folder: &Path, name: &str, references: &[&str]) {
    let mut archive = tar::Builder::new(std::fs::File::create(folder.join("images").join(name)).unwrap());
    let text = serde_json::json!([{ "RepoTags": references }]).to_string();
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    archive.append_data(&mut header, "manifest.json", text.as_bytes()).unwrap();
    archive.finish().unwrap();
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bin", "cni", "images"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in ["kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr", "runc"] {
        std::fs::write(folder.path().join("bin").join(name), elf(name)).unwrap();
    }
    for name in ["bridge", "host-local", "loopback", "portmap"] {
        std::fs::write(folder.path().join("cni").join(name), elf(name)).unwrap();
    }
    let control_plane = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let references: Vec<String> = control_plane.iter().map(|name| format!("registry.k8s.io/{name}:v1.36.3")).collect();
    image(folder.path(), "control-plane.tar", &references.iter().map(String::as_str).collect::<Vec<_>>());
    image(folder.path(), "kube-proxy.tar", &["registry.k8s.io/kube-proxy:v1.36.3"]);
    image(folder.path(), "etcd.tar", &["registry.k8s.io/etcd:3.6.8-0"]);
    image(folder.path(), "coredns.tar", &["registry.k8s.io/coredns/coredns:v1.14.2"]);
    image(folder.path(), "pause.tar", &["registry.k8s.io/pause:3.10.2"]);
    folder
}

fn order(folder: &Path) -> Order {
    Order {
        from: folder.to_owned(),
        kubernetes: semver::Version::new(1, 36, 3),
        architecture: None,
        output: folder.join("demo.bundle"),
        level: 3,
    }
}

#[test]
fn what_goes_in_comes_out() {
    let folder = folder();
    let order = order(folder.path());
    let manifest = create(&order, &|_, _, _| {}).unwrap();
    let bundle = Bundle::open(&order.output).unwrap();
    assert_eq!(bundle.manifest(), &manifest);
    assert_eq!(bundle.verify(&|_, _, _| {}).unwrap(), Vec::<String>::new());
    let kubelet = manifest.blobs.iter().find(|blob| blob.name == "bin/kubelet").unwrap();
    let mut content = Vec::new();
    zstd::Decoder::new(bundle.stored(kubelet).unwrap()).unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, elf("kubelet"));
    assert_eq!(kubelet.place, Place::File { path: "/usr/local/bin/kubelet".into(), mode: 0o755 });
}

#[test]
fn a_bundle_of_two_architectures_has_for_each_what_one_of_its_own_has() {
    let (one, other) = (folder(), folder());
    let second = Order { architecture: Some("arm64".into()), ..order(other.path()) };
    for entry in
        std::fs::read_dir(other.path().join("bin")).unwrap().chain(std::fs::read_dir(other.path().join("cni")).unwrap())
    {
        let path = entry.unwrap().path();
        let mut program = std::fs::read(&path).unwrap();
        program[18] = 183;
        std::fs::write(&path, program).unwrap();
    }
    let alone = [create(&order(one.path()), &|_, _, _| {}).unwrap(), create(&second, &|_, _, _| {}).unwrap()];
    let orders = [order(one.path()), second];
    create_of_all(&orders, &|_, _, _| {}).unwrap();
    let bundle = Bundle::open(&orders[0].output).unwrap();
    assert_eq!(bundle.verify(&|_, _, _| {}).unwrap(), Vec::<String>::new());
    for (architecture, alone) in ["amd64", "arm64"].iter().zip(&alone) {
        for role in [Role::ControlPlane, Role::Worker] {
            let names = |manifest: &crate::bundle::Manifest| {
                manifest.for_host(role, architecture).map(|blob| blob.sha256.clone()).collect::<Vec<_>>()
            };
            assert_eq!(names(bundle.manifest()), names(alone), "{architecture} {role:?}");
            assert!(!names(alone).is_empty());
        }
    }
    let twice = [order(one.path()), order(one.path())];
    assert!(create_of_all(&twice, &|_, _, _| {}).unwrap_err().sentence.contains("two folders for amd64"));
}

#[test]
fn blobs_of_a_manifest_that_nobody_wrote_are_refused() {
    let folder = folder();
    let manifest = create(&order(folder.path()), &|_, _, _| {}).unwrap();
    let good = &manifest.blobs[0];
    good.check().unwrap();
    let file = |path: &str, mode| Blob { place: Place::File { path: path.to_owned(), mode }, ..good.clone() };
    let image = |name: &str| Blob { place: Place::Images { references: vec![name.to_owned()] }, ..good.clone() };
    image("registry.k8s.io/pause:3.10").check().unwrap();
    for (blob, what) in [
        (Blob { sha256: "ü".repeat(32), ..good.clone() }, "sha256"),
        (Blob { stored_sha256: "AB".repeat(32), ..good.clone() }, "sha256"),
        (Blob { size: u64::MAX, ..good.clone() }, "larger"),
        (Blob { stored_size: u64::MAX, ..good.clone() }, "larger"),
        (file("usr/bin/x", 0o755), "no whole path"),
        (file("/usr/../etc/shadow", 0o755), "no whole path"),
        (file("/usr//x", 0o755), "no whole path"),
        (file("/usr/bin/x", 0o4755), "mode 4755"),
        (image("--all"), "names the image"),
        (image("a b"), "names the image"),
    ] {
        assert!(blob.check().unwrap_err().contains(what), "{blob:?}");
    }
    // A file that says so is damaged, and says where.
    let path = folder.path().join("demo.bundle");
    let mut text = std::fs::read(&path).unwrap();
    let at = text.windows(8).position(|words| words == b"\"sha256\"").unwrap() + 12;
    text[at] = b'Z';
    std::fs::write(&path, text).unwrap();
    let failure = Bundle::open(&path).unwrap_err();
    assert!(failure.sentence.contains("has a sha256 that is none"), "{failure}");
}

#[test]
fn a_worker_gets_less_than_a_control_plane() {
    let folder = folder();
    let manifest = create(&order(folder.path()), &|_, _, _| {}).unwrap();
    let names = |role| manifest.for_host(role, "amd64").map(|blob| blob.name.as_str()).collect::<Vec<_>>();
    assert!(names(Role::ControlPlane).contains(&"images/control-plane"));
    assert!(!names(Role::Worker).contains(&"images/control-plane"));
    assert!(!names(Role::Worker).contains(&"images/etcd"));
    assert!(!names(Role::Worker).contains(&"bin/kubectl"));
    assert!(names(Role::Worker).contains(&"images/kube-proxy"));
    assert_eq!(names(Role::Worker)[0], "bin/runc");
    assert_eq!(manifest.for_host(Role::Worker, "arm64").count(), 0);
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let folder = folder();
    std::fs::remove_file(folder.path().join("bin/kubelet")).unwrap();
    std::fs::remove_file(folder.path().join("images/etcd.tar")).unwrap();
    let failure = create(&order(folder.path()), &|_, _, _| {}).unwrap_err();
    assert_eq!(failure.kind, Kind::Bundle);
    assert_eq!(failure.sentence, "for Kubernetes 1.36.3 there is no bin/kubelet, no image etcd");
    assert!(!folder.path().join("demo.bundle").exists());
}

#[test]
fn another_version_or_architecture_is_refused() {
    let folder = folder();
    let mut other = order(folder.path());
    other.kubernetes = semver::Version::new(1, 35, 0);
    assert!(create(&other, &|_, _, _| {}).unwrap_err().sentence.contains("no image kube-apiserver:v1.35.0"));
    let mut other = order(folder.path());
    other.architecture = Some("arm64".into());
    assert!(create(&other, &|_, _, _| {}).unwrap_err().sentence.contains("is a program for amd64"));
}

#[test]
fn a_flipped_byte_and_a_cut_file_are_found() {
    let folder = folder();
    let order = order(folder.path());
    let manifest = create(&order, &|_, _, _| {}).unwrap();
    let victim = &manifest.blobs[0];
    let bundle = Bundle::open(&order.output).unwrap();
    let offset = bundle.offsets[&victim.sha256];
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&order.output).unwrap();
    let mut byte = [0_u8];
    file.read_exact_at(&mut byte, offset + victim.stored_size - 1).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], offset + victim.stored_size - 1).unwrap();
    assert_eq!(bundle.verify(&|_, _, _| {}).unwrap(), std::slice::from_ref(&victim.name));
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    assert_eq!(Bundle::open(&order.output).unwrap_err().kind, Kind::Bundle);
    std::fs::write(&order.output, b"not a bundle at all").unwrap();
    assert_eq!(Bundle::open(&order.output).unwrap_err().kind, Kind::Bundle);
    assert_eq!(Bundle::open(&folder.path().join("absent")).unwrap_err().kind, Kind::Bundle);
}
