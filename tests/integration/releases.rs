//! Official releases, from a server on this machine that has what the test bed built, at the paths of the real servers and
//! behind the registry protocol.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clusterctl::bundle::Bundle;
use clusterctl::bundle::digest::sha256;
use clusterctl::bundle::download::{CNI_PLUGINS, CONTAINERD, RUNC};
use serde_json::Value;

use crate::bed::{Bed, bed};
use crate::program::{bundle, call, clusterctl, down, kubectl, refused, succeeds, up};

const VERSION: &str = "1.36.3";

/// A server that is reached through a proxy only.
const BEHIND: &str = "http://releases.invalid";

/// The server: what lies where, and what was asked for.
struct Releases {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    /// Who gets nothing.
    turned_away: Arc<Mutex<Option<IpAddr>>>,
    _folder: tempfile::TempDir,
}

fn write(files: &mut BTreeMap<String, PathBuf>, folder: &Path, path: String, content: &[u8]) {
    let file = folder.join(format!("{}-{}", files.len(), sha256(path.as_bytes())));
    std::fs::write(&file, content).unwrap();
    files.insert(path, file);
}

/// A gzipped tar archive of a folder's files.
fn tarball(folder: &Path, names: &[&str]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in names {
        // Plugins that the bed does not build are there all the same.
        let path = if folder.join(name).exists() { folder.join(name) } else { folder.join("bridge") };
        archive.append_path_with_name(path, format!("./{name}")).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

impl Releases {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let built = PathBuf::from(bed(&["kubernetes", VERSION]).trim().lines().last().unwrap());
        let mut files = BTreeMap::new();
        let sum = |content: &[u8], name: &str| format!("{}  {name}\n", sha256(content)).into_bytes();
        for name in ["kubelet", "kubectl"] {
            let path = format!("/release/v{VERSION}/bin/linux/amd64/{name}");
            let content = std::fs::read(built.join("bin").join(name)).unwrap();
            write(&mut files, folder.path(), format!("{path}.sha256"), sha256(&content).as_bytes());
            files.insert(path, built.join("bin").join(name));
        }
        let archives = [
            (
                format!("/v{CONTAINERD}/containerd-{CONTAINERD}-linux-amd64.tar.gz"),
                "sha256sum",
                tarball(&built.join("bin"), &["containerd", "containerd-shim-runc-v2", "ctr"]),
            ),
            (
                format!("/v{CNI_PLUGINS}/cni-plugins-linux-amd64-v{CNI_PLUGINS}.tgz"),
                "sha256",
                tarball(
                    &built.join("cni"),
                    &["bridge", "host-local", "loopback", "portmap", "ptp", "bandwidth", "firewall", "tuning"],
                ),
            ),
        ];
        for (path, end, content) in archives {
            let name = path.rsplit('/').next().unwrap().to_owned();
            write(&mut files, folder.path(), format!("{path}.{end}"), &sum(&content, &name));
            write(&mut files, folder.path(), path, &content);
        }
        let runc = std::fs::read(built.join("bin/runc")).unwrap();
        write(&mut files, folder.path(), format!("/v{RUNC}/runc.sha256sum"), &sum(&runc, "runc.amd64"));
        files.insert(format!("/v{RUNC}/runc.amd64"), built.join("bin/runc"));
        for archive in std::fs::read_dir(built.join("images")).unwrap() {
            images(&mut files, &archive.unwrap().path(), folder.path());
        }
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let turned_away = Arc::new(Mutex::new(None));
        let (files, log, away) = (Arc::new(files), asked.clone(), turned_away.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log, away) = (files.clone(), log.clone(), away.clone());
                std::thread::spawn(move || serve(stream, &files, &log, &away));
            }
        });
        Self { port, asked, turned_away, _folder: folder }
    }

    /// From now on this address gets nothing.
    fn turn_away(&self, address: Option<&str>) {
        *self.turned_away.lock().unwrap() = address.map(|address| address.parse().unwrap());
    }

    /// The mirrors as hosts (or this machine) name them.
    fn mirrors(&self, address: &str) -> Vec<String> {
        let url = format!("http://{address}:{}", self.port);
        let names = ["kubernetes", "containerd", "runc", "cni"];
        let releases = names.iter().map(|name| format!("{name}={url}"));
        releases.chain([format!("registry.k8s.io={url}/k8s")]).collect()
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

/// Manifests by tag and digest, and blobs, out of an archive in the OCI layout.
fn images(files: &mut BTreeMap<String, PathBuf>, archive: &Path, folder: &Path) {
    let unpacked = folder.join(archive.file_stem().unwrap());
    tar::Archive::new(File::open(archive).unwrap()).unpack(&unpacked).unwrap();
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let of =
        |digest: &Value| unpacked.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"));
    let index = read(&unpacked.join("index.json"));
    for manifest in index["manifests"].as_array().unwrap() {
        let annotations = &manifest["annotations"];
        let reference = annotations["io.containerd.image.name"].as_str().unwrap();
        let (repository, tag) = reference.strip_prefix("registry.k8s.io/").unwrap().rsplit_once(':').unwrap();
        let document = read(&of(&manifest["digest"]));
        files.insert(format!("/v2/k8s/{repository}/manifests/{tag}"), of(&manifest["digest"]));
        for blob in document["layers"].as_array().unwrap().iter().chain([&document["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            files.insert(format!("/v2/k8s/{repository}/blobs/{digest}"), of(&blob["digest"]));
        }
    }
}

fn serve(
    mut stream: TcpStream,
    files: &BTreeMap<String, PathBuf>,
    log: &Mutex<Vec<String>>,
    away: &Mutex<Option<IpAddr>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else { return };
    let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let from = range.and_then(|range| range.trim_end_matches('-').parse::<u64>().ok()).unwrap_or(0);
    let refuse = |stream: &mut TcpStream, status: &str| {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
    };
    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
    if peer.is_some() && peer == *away.lock().unwrap() {
        return refuse(&mut stream, "403 Forbidden");
    }
    log.lock().unwrap().push(path.clone());
    // A proxy is asked for the whole URL.
    let path = path.strip_prefix(BEHIND).unwrap_or(&path);
    let Some(mut file) = files.get(path).and_then(|file| File::open(file).ok()) else {
        return refuse(&mut stream, "404 Not Found");
    };
    let size = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(from)).unwrap();
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let part = if from > 0 { format!("content-range: bytes {from}-{}/{size}\r\n", size - 1) } else { String::new() };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{part}content-length: {}\r\n\r\n", size - from);
    let _ = stream.write_all(head.as_bytes()).and_then(|()| std::io::copy(&mut file.take(size - from), &mut stream));
}

#[test]
fn a_bundle_of_official_releases_makes_a_cluster() {
    let releases = Releases::start();
    let folder = tempfile::tempdir().unwrap();
    let (bundle, cache) = (folder.path().join("bundle"), folder.path().join("cache"));
    let mirrors = releases.mirrors("127.0.0.1");
    let mut words = vec!["bundle", "create", "--kubernetes", VERSION, "--arch", "amd64"];
    words.extend(["-o", bundle.to_str().unwrap(), "--cache", cache.to_str().unwrap()]);
    mirrors.iter().for_each(|mirror| words.extend(["--mirror", mirror]));
    let created = call(&clusterctl(), &words, &[]);
    succeeds(&created);
    assert!(created.stderr.contains("not encrypted"), "{}", created.stderr);
    succeeds(&call(&clusterctl(), &["bundle", "verify", bundle.to_str().unwrap()], &[]));
    let inspected = call(&clusterctl(), &["bundle", "inspect", bundle.to_str().unwrap()], &[]);
    assert!(inspected.stdout.contains("registry.k8s.io/kube-apiserver:v1.36.3"), "{}", inspected.stdout);
    // Nothing but checksums and manifests is asked for a second time.
    let blobs = releases.asked("/blobs/");
    succeeds(&call(&clusterctl(), &words, &[]));
    assert_eq!(releases.asked("/blobs/"), blobs);
    let bed = Bed::bare(1);
    let inventory = bed.inventory();
    let words = ["up", "-i", inventory.to_str().unwrap(), "--yes", "--bundle", bundle.to_str().unwrap()];
    succeeds(&call(&clusterctl(), &words, &[]));
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 1);
}

#[test]
fn a_bundle_comes_through_the_proxy_of_the_environment() {
    let releases = Releases::start();
    let folder = tempfile::tempdir().unwrap();
    let (bundle, cache) = (folder.path().join("bundle"), folder.path().join("cache"));
    let mut words = vec!["bundle", "create", "--kubernetes", VERSION, "--arch", "amd64"];
    words.extend(["-o", bundle.to_str().unwrap(), "--cache", cache.to_str().unwrap()]);
    let mut mirrors: Vec<String> =
        ["kubernetes", "containerd", "runc", "cni"].iter().map(|name| format!("{name}={BEHIND}")).collect();
    mirrors.push(format!("registry.k8s.io={BEHIND}/k8s"));
    mirrors.iter().for_each(|mirror| words.extend(["--mirror", mirror]));
    let proxy = format!("http://127.0.0.1:{}", releases.port);
    // What is excepted is asked for directly, and there is nothing.
    let excepted = call(&clusterctl(), &words, &[("HTTP_PROXY", &proxy), ("NO_PROXY", "releases.invalid")]);
    assert!(excepted.code != 0 && excepted.stderr.contains("cannot download"), "{}", excepted.stderr);
    assert_eq!(releases.asked(""), 0);
    succeeds(&call(&clusterctl(), &words, &[("HTTP_PROXY", &proxy)]));
    assert_eq!(releases.asked(""), releases.asked(BEHIND));
    succeeds(&call(&clusterctl(), &["bundle", "verify", bundle.to_str().unwrap()], &[]));
}

#[test]
fn hosts_download_themselves() {
    let releases = Releases::start();
    let bed = Bed::bare(2);
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    // This machine, as the hosts see it.
    let gateway = bed.sh(&bed.hosts[0].name, "ip -4 route show default | awk '{print $3}'");
    let mirrors: Vec<String> = releases.mirrors(gateway.trim()).iter().map(|mirror| format!("\"{mirror}\"")).collect();
    let text = bed.inventory_text("root");
    let transfer = format!("transfer: {{fetch: on-host, bandwidth: 50K, mirrors: [{}]}}", mirrors.join(", "));
    let inventory = bed.write_inventory(&format!("{transfer}\n{text}"));
    let looked = |verb: &str| call(&clusterctl(), &[verb, "-i", inventory.to_str().unwrap()], &[]);
    let planned = looked("plan");
    assert_eq!(planned.code, 20, "{}\n{}", planned.stdout, planned.stderr);
    for words in ["the host downloads the releases", "/usr/local/bin/kubelet", "registry.k8s.io/etcd:"] {
        assert!(planned.stdout.contains(words), "{words}:\n{}", planned.stdout);
    }
    let checked = looked("check");
    assert!(!checked.stdout.contains("Downloads"), "{}", checked.stdout);
    assert_eq!(releases.asked("/blobs/"), 0);
    for (host, before) in bed.hosts.iter().zip(&before) {
        assert_eq!(*before, bed.listing(&host.name));
    }
    // A worker that gets nothing is told of and left out, and the control plane is made without it.
    let worker = &bed.hosts[1];
    releases.turn_away(Some(&worker.address));
    let partly = looked("up");
    assert_eq!(partly.code, 9, "{}\n{}", partly.stdout, partly.stderr);
    assert!(partly.stderr.contains(&worker.name) && partly.stderr.contains("403"), "{}", partly.stderr);
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert!(nodes.lines().count() == 1 && nodes.contains(" Ready "), "{nodes}");
    releases.turn_away(None);
    succeeds(&looked("up"));
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
    assert_eq!(looked("plan").code, 0);
    // The worker has no use for kubectl and etcd; of both the check asked for a little.
    assert_eq!((releases.asked("/kubectl"), releases.asked("/etcd/manifests/")), (3, 2));
    let asked = releases.asked("");
    // What was typed beside it would say something else.
    assert_eq!(up(&inventory).code, 2);
    let again = looked("up");
    succeeds(&again);
    assert!(again.stderr.contains("nothing was to do") || again.stdout.contains("nothing was to do"), "{again:?}");
    assert_eq!(releases.asked(""), asked);
    succeeds(&down(&inventory));
    for (host, before) in bed.hosts.iter().zip(&before) {
        assert_eq!(*before, bed.listing(&host.name));
    }
}

/// A byte in the middle of kubelet, and a file that was cut: both are said before a host is asked for anything.
#[test]
fn a_damaged_bundle_is_said_with_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let verify = |file: &Path| call(&clusterctl(), &["bundle", "verify", file.to_str().unwrap()], &[]);
    let damaged = folder.path().join("damaged.bundle");
    std::fs::copy(bundle(), &damaged).unwrap();
    let whole = verify(&damaged);
    succeeds(&whole);
    assert!(format!("{}{}", whole.stdout, whole.stderr).contains("damaged.bundle is whole"), "{whole:?}");

    let opened = Bundle::open(&damaged).unwrap();
    let kubelet = opened.manifest().blobs.iter().find(|blob| blob.name == "bin/kubelet").unwrap();
    let mut archive = tar::Archive::new(File::open(&damaged).unwrap());
    let mut members = archive.entries_with_seek().unwrap().map(Result::unwrap);
    let is_kubelet = |member: &tar::Entry<'_, File>| member.path().unwrap().to_string_lossy().contains(&kubelet.sha256);
    let at = members.find(is_kubelet).unwrap().raw_file_position() + kubelet.stored_size / 2;
    let file = File::options().read(true).write(true).open(&damaged).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&byte.map(|byte| !byte), at).unwrap();
    let said = verify(&damaged);
    refused(&said, 9, &[damaged.to_str().unwrap(), "is damaged: wrong content in bin/kubelet"]);
    // The others are read, too, and are whole.
    assert!(!said.stderr.contains("bin/kubectl") && !said.stderr.contains("images/"), "{}", said.stderr);

    file.set_len(at).unwrap();
    refused(&verify(&damaged), 9, &[damaged.to_str().unwrap(), "is damaged: bin/kubelet is cut off"]);
    std::fs::write(&damaged, "no bundle").unwrap();
    refused(&verify(&damaged), 9, &[damaged.to_str().unwrap()]);
}
