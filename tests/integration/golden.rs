//! Upstream's kubeadm and our engine with the same configuration on the same host, one after the other: every file they
//! write and every object they make is compared. A difference is a failure, or a row of [`intended::TABLE`].

mod certificate;
mod intended;
mod join;
mod object;
mod rehearsal;
mod snapshot;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;

use self::intended::{Part, Verdicts};
use self::snapshot::Snapshot;
use crate::bed::{Bed, bed};
use crate::program::clusterctl;

/// A folder of this module.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/golden")
}

/// A configuration of kubeadm's.
struct Configuration {
    name: String,
    text: String,
}

fn minor(version: &str) -> u64 {
    version.split('.').nth(1).unwrap().parse().unwrap()
}

/// What upstream's dry run can play: up to 1.35 it ends with an error where authorities lie on the host already.
fn is_playable(name: &str, minor: u64) -> bool {
    minor > 35 || !["own-authorities", "external-authority"].contains(&name)
}

/// What a minor of kubeadm does not know any more.
fn is_known(name: &str, minor: u64) -> bool {
    name != "v1beta3" || minor <= 36
}

/// Feature gates with a value that is not the default, where the minor has any.
fn gates(minor: u64) -> &'static str {
    match minor {
        37.. => "RootlessControlPlane: false",
        36 => "NodeLocalCRISocket: false, PublicKeysECDSA: true",
        34 | 35 => "NodeLocalCRISocket: false, ControlPlaneKubeletLocalMode: false",
        _ => "NodeLocalCRISocket: true, ControlPlaneKubeletLocalMode: false",
    }
}

/// All configurations of the folder for a version.
fn configurations(version: &str) -> Vec<Configuration> {
    let minor = minor(version);
    let mut found: Vec<Configuration> = std::fs::read_dir(folder().join("configurations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| Configuration {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: std::fs::read_to_string(&path)
                .unwrap()
                .replace("kubernetesVersion: VERSION", &format!("kubernetesVersion: v{version}"))
                .replace("{GATES}", &format!("{{{}}}", gates(minor))),
        })
        .filter(|configuration| is_known(&configuration.name, minor))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// Upstream's kubeadm, and nothing else of that version.
fn kubeadm(version: &str) -> PathBuf {
    PathBuf::from(bed(&["kubeadm", version]).trim())
}

/// Runs a script of this module on a host; its output is an archive in base64, whose files are the answer.
fn run_script(bed: &Bed, host: &str, script: &str, arguments: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let output = bed.sh(host, &format!("bash /root/golden/{script} {}", arguments.join(" ")));
    let packed = STANDARD.decode(output.trim()).unwrap_or_else(|error| panic!("{script} on {host}: {error}: {output}"));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string().trim_start_matches("./").to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(name, content);
    }
    files
}

/// What a run said, for a message a person can act on.
fn text<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> std::borrow::Cow<'a, str> {
    files.get(name).map(|content| String::from_utf8_lossy(content)).unwrap_or_else(|| panic!("there is no {name}"))
}

/// Both sides of one configuration out of what a script answered with.
fn judge(verdicts: &mut Verdicts, name: &str, files: &BTreeMap<String, Vec<u8>>) {
    let sides = ["upstream", "ours"];
    for side in sides {
        if text(files, &format!("{name}.{side}.code")).trim() != "0" {
            verdicts.fail(name, &format!("{side} failed:\n{}", text(files, &format!("{name}.{side}.log"))));
            return;
        }
    }
    let [upstream, ours] = sides.map(|side| {
        let objects = files.get(&format!("{name}.{side}.json"));
        let objects = objects.map(|text| Snapshot::of_objects(&serde_json::from_slice(text).unwrap()));
        Snapshot::of_archive(&files[&format!("{name}.{side}.tar")]).join(objects.unwrap_or_default())
    });
    // A comparison of nothing with nothing is no comparison.
    assert!(upstream.names().any(|name| name == "/etc/kubernetes/manifests/kube-apiserver.yaml"));
    let objects = ["ConfigMap kube-system/kubeadm-config", "Role kube-system/kubeadm:kubelet-config"];
    let is_there = |object: &str| upstream.names().any(|name| name == object);
    assert!(
        files.get(&format!("{name}.ours.json")).is_none() || objects.into_iter().all(is_there),
        "{name}: no objects"
    );
    verdicts.judge(name, upstream.differences(&ours));
}

/// What both sides of one configuration would write to the API server, by their dry runs.
fn judge_rehearsals(verdicts: &mut Verdicts, name: &str, files: &BTreeMap<String, Vec<u8>>) {
    for side in ["upstream", "ours"] {
        if text(files, &format!("{name}.{side}.rehearsal-code")).trim() != "0" {
            let log = text(files, &format!("{name}.{side}.rehearsal-log"));
            verdicts.fail(name, &format!("{side}'s dry run failed:\n{log}"));
            return;
        }
    }
    let upstream = rehearsal::of_upstream(&text(files, &format!("{name}.upstream.rehearsal")));
    let ours = rehearsal::of_ours(&text(files, &format!("{name}.ours.rehearsal")));
    // A comparison of nothing with nothing is no comparison.
    for object in ["ConfigMap kube-system/kubeadm-config", "DaemonSet kube-system/kube-proxy", "Node /"] {
        assert!(upstream.names().any(|name| name.starts_with(object)), "{name}: upstream says nothing of {object}");
    }
    verdicts.judge(name, upstream.differences(&ours));
}

/// So many configurations are judged, whatever a minor does not know or cannot play.
const LEAST: usize = 15;

/// The files that every configuration leads to, and the objects that it would: nothing of Kubernetes has to run for them.
#[rstest]
#[case::minor_36("1.36.3")]
#[ignore = "takes minutes: make test-all"]
#[case::minor_37("1.37.2")]
#[ignore = "takes minutes: make test-all"]
#[case::minor_35("1.35.4")]
#[ignore = "takes minutes: make test-all"]
#[case::minor_34("1.34.4")]
#[ignore = "takes minutes: make test-all"]
#[case::minor_33("1.33.13")]
fn files_and_objects_are_as_kubeadms(#[case] version: &str) {
    let bed = Bed::bare(2);
    let configurations = configurations(version);
    let written = bed.folder.path().join("configurations");
    std::fs::create_dir(&written).unwrap();
    for configuration in &configurations {
        std::fs::write(written.join(format!("{}.yaml", configuration.name)), &configuration.text).unwrap();
    }
    let (program, kubeadm, script) = (clusterctl(), kubeadm(version), folder().join("files.sh"));
    // Two hosts, so that two processors have work.
    let mut halves = [Vec::new(), Vec::new()];
    for (at, configuration) in configurations.iter().enumerate() {
        halves[at % 2].push(configuration.name.as_str());
    }
    let answers: Vec<_> = std::thread::scope(|scope| {
        let runs = bed.hosts.iter().zip(&halves).map(|(host, names)| {
            let files = [program.as_path(), &kubeadm, &written, &script];
            let bed = &bed;
            scope.spawn(move || {
                bed.send(&host.name, &files, "/root/golden");
                run_script(bed, &host.name, "files.sh", names)
            })
        });
        // All are started before the first is waited for.
        runs.collect::<Vec<_>>().into_iter().map(|run| run.join().unwrap()).collect()
    });
    let [mut written, mut rehearsed] = [Part::Files, Part::Rehearsals].map(Verdicts::of);
    for (names, files) in halves.iter().zip(&answers) {
        names.iter().for_each(|name| judge(&mut written, name, files));
        let playable = names.iter().filter(|name| is_playable(name, minor(version)));
        playable.for_each(|name| judge_rehearsals(&mut rehearsed, name, files));
    }
    written.finish(version, LEAST, true);
    rehearsed.finish(version, LEAST, true);
}

/// Whole control planes, with every object that is in them.
#[rstest]
#[ignore = "takes minutes: make test-all"]
fn control_planes_are_as_kubeadms(
    #[values("1.36.3", "1.37.2")] version: &str,
    #[values("defaults", "everything", "lean")] name: &str,
) {
    let bed = Bed::prepared(1, version);
    let host = &bed.hosts[0];
    let written = bed.folder.path().join("whole");
    std::fs::create_dir(&written).unwrap();
    let text = std::fs::read_to_string(folder().join(format!("whole/{name}.yaml"))).unwrap();
    let wanted = format!("kubernetesVersion: v{version}");
    let text = text.replace("kubernetesVersion: VERSION", &wanted).replace("ADDRESS", &host.address);
    std::fs::write(written.join(format!("{name}.yaml")), text).unwrap();
    bed.send(&host.name, &[&clusterctl(), &written, &folder().join("whole.sh")], "/root/golden");
    let files = run_script(&bed, &host.name, "whole.sh", &[object::KINDS, name]);
    let mut verdicts = Verdicts::of(Part::Objects);
    judge(&mut verdicts, name, &files);
    // This one has something of everything.
    verdicts.finish(version, 1, name == "everything");
}
