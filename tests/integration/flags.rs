//! Every command, phase and flag of upstream's kubeadm beside ours: `kubeadm X --help` of each command, read as a person
//! reads it. What is missing here is a failure, or a row of [`INTENDED`] with its reason; a row that is not needed fails,
//! too. And what both print without a cluster is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};
use clusterctl::cli::CommandLine;
use clusterctl::kubernetes::configuration::documents;
use clusterctl::node::phases::{self, Workflow};
use serde_json::{Value, json};

use crate::bed::bed;
use crate::program::{call, clusterctl};

/// What of kubeadm is not here: command (with everything below it), flag (or empty for the command), and why.
const INTENDED: &[(&str, &str, &str)] = &[
    (
        "upgrade",
        "",
        "versions of a running cluster are changed by upstream's own `kubeadm upgrade`, which works on our nodes",
    ),
    ("completion", "", "`clusterctl completion` is for all verbs"),
    ("version", "", "`clusterctl version` is for all verbs"),
    ("help", "", "clap's"),
    ("", "allow-missing-template-keys", "there are no templates to print with: -o json, and jq"),
    ("", "show-managed-fields", "there are no templates to print with, and nothing printed has managed fields"),
];

/// A flag as a help text names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    long: String,
    short: Option<char>,
    takes_value: bool,
}

/// The flags of a help text, and the commands below it.
fn read(help: &str) -> (Vec<Flag>, Vec<String>) {
    let section = |title: &'static str| {
        help.lines().skip_while(move |line| *line != title).skip(1).take_while(|line| !line.trim().is_empty())
    };
    let flags = section("Flags:").chain(section("Global Flags:")).filter_map(|line| {
        let (short, rest) = line.trim_start().split_once("--")?;
        let short = short.strip_prefix('-').and_then(|short| short.chars().next());
        (line.trim_start().starts_with('-')).then_some(())?;
        let mut words = rest.splitn(2, ' ');
        let long = words.next()?.to_owned();
        // The type stands beside the name; what follows two blanks is the explanation.
        let takes_value = words.next().is_some_and(|rest| !rest.starts_with(' '));
        Some(Flag { long, short, takes_value })
    });
    let commands = section("Available Commands:").filter_map(|line| line.split_whitespace().next());
    (flags.collect(), commands.map(str::to_owned).collect())
}

fn upstream(kubeadm: &Path, path: &[String], found: &mut Vec<(Vec<String>, Vec<Flag>)>) {
    if path.first().is_some_and(|first| is_intended(first, "")) {
        return;
    }
    let mut words: Vec<&str> = path.iter().map(String::as_str).collect();
    words.push("--help");
    let help = call(kubeadm, &words, &[]);
    assert_eq!(help.code, 0, "{words:?}: {}", help.stderr);
    let (flags, commands) = read(&help.stdout);
    found.push((path.to_vec(), flags));
    for command in commands {
        upstream(kubeadm, &[path, &[command]].concat(), found);
    }
}

fn is_intended(command: &str, flag: &str) -> bool {
    let under = |row: &str| row.is_empty() || command == row || command.starts_with(&format!("{row} "));
    INTENDED.iter().any(|(row, of, _)| *of == flag && (!row.is_empty() || !flag.is_empty()) && under(row))
}

/// Our command for kubeadm's, with the flags it takes: a phase is a word behind its verb here, and so is what `certs
/// renew` is to renew.
fn ours(path: &[String]) -> Result<Vec<Arg>, String> {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let (words, phase) = match words.as_slice() {
        [verb, "phase", phase @ ..] => (vec![*verb], Some(phase.join("/"))),
        ["certs", "renew", _] => (vec!["certs", "renew"], None),
        words => (words.to_vec(), None),
    };
    if let Some(phase) = phase.filter(|phase| !phase.is_empty()) {
        let workflow: Workflow = match words.first() {
            Some(&"init") => phases::INIT,
            Some(&"join") => phases::JOIN,
            _ => phases::RESET,
        };
        workflow.select(Some(&phase), &[]).map_err(|failure| failure.to_string())?;
    }
    let whole = CommandLine::command();
    let mut arguments: Vec<Arg> = whole.get_arguments().filter(|one| one.is_global_set()).cloned().collect();
    let mut command: &Command = &whole;
    for word in std::iter::once("node").chain(words) {
        command = command.find_subcommand(word).ok_or_else(|| format!("there is no {word}"))?;
        arguments.extend(command.get_arguments().filter(|one| one.is_global_set()).cloned());
    }
    arguments.extend(command.get_arguments().cloned());
    Ok(arguments)
}

/// kubeadm's own flags of every command that are understood before clap sees them, see `cli::node::understood`.
fn is_understood(flag: &Flag) -> bool {
    flag.long == "v" || flag.long == "help"
}

fn lacks(arguments: &[Arg], flag: &Flag) -> Option<String> {
    // `--output` of all verbs has json, ours of `node` the rest of it.
    let long = flag.long.as_str();
    let same = |argument: &&Arg| {
        argument.get_long() == Some(long) || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
    };
    let Some(ours) = arguments.iter().find(same) else { return Some(format!("--{long}")) };
    if ours.get_action().takes_values() != flag.takes_value {
        return Some(format!(
            "--{long}: it {} a value there",
            if flag.takes_value { "takes" } else { "does not take" }
        ));
    }
    let short = flag.short?;
    let has_short = arguments.iter().any(|argument| argument.get_short() == Some(short));
    (!has_short).then(|| format!("-{short}"))
}

#[test]
fn no_command_phase_or_flag_of_kubeadm_is_missing() {
    let kubeadm = bed(&["kubeadm", "1.36.3"]);
    let mut commands = Vec::new();
    upstream(Path::new(kubeadm.trim()), &[], &mut commands);
    assert!(commands.len() > 90, "{} commands were found", commands.len());
    let (mut missing, mut flags, mut needed) = (Vec::new(), 0, BTreeSet::new());
    for (path, theirs) in commands.iter().filter(|(path, _)| !path.is_empty()) {
        let name = path.join(" ");
        let arguments = match ours(path) {
            Ok(arguments) => arguments,
            Err(why) => {
                missing.push(format!("{name}: {why}"));
                continue;
            }
        };
        for flag in theirs.iter().filter(|flag| !is_understood(flag)) {
            flags += 1;
            match lacks(&arguments, flag) {
                Some(_) if is_intended(&name, &flag.long) => {
                    needed.insert(flag.long.clone());
                }
                Some(what) => missing.push(format!("{name}: {what}")),
                None => {}
            }
        }
    }
    eprintln!("{} commands and {flags} flags of kubeadm compared", commands.len());
    assert!(missing.is_empty(), "{missing:#?}");
    let idle: Vec<_> = INTENDED.iter().filter(|(_, flag, _)| !flag.is_empty() && !needed.contains(*flag)).collect();
    assert!(idle.is_empty(), "not needed any more: {idle:?}");
    assert!(INTENDED.iter().all(|(_, _, reason)| !reason.is_empty()));
}

/// What a program prints; it must succeed.
fn printed(program: &Path, words: &[&str]) -> String {
    let finished = call(program, words, &[]);
    assert_eq!(finished.code, 0, "{words:?}: {}", finished.stderr);
    finished.stdout
}

#[test]
fn defaults_are_printed_as_kubeadm_prints_them() {
    let kubeadm = bed(&["kubeadm", "1.36.3"]);
    // Which patch release is the default is each program's own.
    let of_any_version = |text: String| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("kubernetesVersion: ")).map(str::to_owned).collect()
    };
    for kind in ["init-defaults", "join-defaults", "reset-defaults", "upgrade-defaults"] {
        let theirs = printed(Path::new(kubeadm.trim()), &["config", "print", kind]);
        let ours = printed(&clusterctl(), &["node", "config", "print", kind]);
        assert_eq!(of_any_version(ours), of_any_version(theirs), "{kind}");
    }
}

/// The objects of a text by kind and name, without what only one side writes and means nothing: the first is an empty
/// field, the second an API server fills in, the third tells a later upgrade that nobody wrote the configuration.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let read = documents(text).unwrap_or_else(|failure| panic!("{failure}: {text}"));
    let named = read.into_iter().map(|mut object| {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.retain(|key, value| key != "resourceVersion" || *value != json!("0"));
        metadata.retain(|key, value| {
            key != "annotations" || value.get("kubeadm.kubernetes.io/component-config.hash").is_none()
        });
        for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            subject.as_object_mut().unwrap().remove("apiGroup");
        }
        (name, object)
    });
    named.collect()
}

#[test]
fn add_ons_are_printed_as_kubeadm_prints_them() {
    let kubeadm = bed(&["kubeadm", "1.36.3"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeadm.yaml");
    let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: 10.0.0.11}\n\
                nodeRegistration: {name: cp1, criSocket: unix:///run/containerd/containerd.sock}\n---\n\
                apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
                networking: {podSubnet: 10.244.0.0/16}\n";
    std::fs::write(&file, text).unwrap();
    for part in ["coredns", "kube-proxy"] {
        let words = ["init", "phase", "addon", part, "--print-manifest", "--config", file.to_str().unwrap()];
        let theirs = printed(Path::new(kubeadm.trim()), &words);
        let ours = printed(&clusterctl(), &[&["node"], &words[..]].concat());
        assert_eq!(objects(&ours), objects(&theirs), "{part}");
    }
}

#[test]
fn images_are_listed_as_kubeadm_lists_them() {
    let kubeadm = bed(&["kubeadm", "1.36.3"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeadm.yaml");
    let text = format!("{CLUSTER}imageRepository: mirror.example:5000/k8s\ndns: {{imageTag: v1.0.0}}\n");
    std::fs::write(&file, text).unwrap();
    for more in [["--kubernetes-version", "v1.36.3"], ["--config", file.to_str().unwrap()]] {
        let words = [&["config", "images", "list", "-o", "json"], &more[..]].concat();
        let theirs: Value = serde_json::from_str(&printed(Path::new(kubeadm.trim()), &words)).unwrap();
        let ours: Value = serde_json::from_str(&printed(&clusterctl(), &[&["node"], &words[..]].concat())).unwrap();
        assert_eq!(ours, theirs, "{more:?}");
        assert_eq!(theirs["images"].as_array().map(Vec::len), Some(7), "{theirs}");
    }
}

const CLUSTER: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n";
const INIT: &str = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n";
const KUBELET: &str = "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
const KUBE_PROXY: &str = "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// Documents that both judge, the header of the last one, its fields, and whether they are taken. Behind a ClusterConfiguration
/// of a version, so that nobody asks the internet for one.
const JUDGED: &[(&str, &str, bool)] = &[
    ("", "", true),
    ("", "scheduler: null\nnetworking: {podSubnet: null}\n", true),
    ("", "clusterName: a\nclusterName: b\n", false),
    ("", "clusterName: 5\n", false),
    ("", "imageRepository: localhost:5000/k8s\n", true),
    ("", "imageRepository: https://mirror.example/k8s\n", false),
    ("", "dns: {imageRepository: mirror.example/K8s}\n", false),
    ("", "etcd: {local: {imageRepository: mirror.example/}}\n", false),
    ("", "certificateValidityPeriod: 9000h\ncaCertificateValidityPeriod: 10h\n", true),
    ("", "certificateValidityPeriod: soon\n", false),
    ("", "apiServer: {extraArgs: [{value: a}]}\n", false),
    ("", "apiServer: {extraEnvs: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}\n", true),
    ("", "apiServer: {extraEnvs: [{name: A, valueFrom: {fieldRef: {fieldPat: status.podIP}}}]}\n", false),
    ("", "apiServer: {extraEnvs: [{name: A, valueFrom: {resourceFieldRef: {resource: a, divisor: 1Mi}}}]}\n", true),
    (INIT, "bootstrapTokens: [{ttl: 1h}]\n", true),
    (INIT, "bootstrapTokens: [{expires: tomorrow}]\n", false),
    (INIT, "bootstrapTokens: [{expires: 2030-01-01T00:00:00Z, ttl: 1h}]\n", false),
    (INIT, "nodeRegistration: {taints: [{key: a, effect: NoSchedule, timeAdded: now}]}\n", false),
    (INIT, "timeouts: {discovery: 5}\n", false),
    (INIT, "localAPIEndpoint: {bindPort: many}\n", false),
    (INIT, "localAPIEndpoint: {advertiseAddress: ten}\n", false),
    (KUBELET, "maxPods: 42\nevictionHard: {memory.available: 100Mi}\nimageMaximumGCAge: 1h\n", true),
    (KUBELET, "maxPod: 42\n", false),
    (KUBELET, "maxPods: many\n", false),
    (KUBELET, "maxPods: 3000000000\n", false),
    (KUBELET, "evictionHard: {memory.available: 5}\n", false),
    (KUBELET, "syncFrequency: 60\n", false),
    (KUBELET, "featureGates: {A: 'true'}\n", false),
    (KUBELET, "tlsCurvePreferences: [29]\nmemoryThrottlingFactor: 0.9\n", true),
    (KUBELET, "logging: {flushFrequency: 5000000000, verbosity: 2}\n", true),
    (KUBELET, "logging: {flushFrequency: 5s, verbosity: -1}\n", false),
    (KUBELET, "reservedMemory: [{numaNode: 0, limits: {memory: 1Gi, hugepages-2Mi: 5}}]\n", true),
    (KUBELET, "reservedMemory: [{numaNode: 0, limits: {memory: much}}]\n", false),
    (KUBELET, "registerWithTaints: [{key: a, effct: NoSchedule}]\n", false),
    (KUBE_PROXY, "mode: nftables\nconntrack: {maxPerCore: 0, tcpEstablishedTimeout: 1h}\n", true),
    (KUBE_PROXY, "ipvs: {strictArp: true}\n", false),
    (KUBE_PROXY, "iptables: {syncPeriod: 30}\n", false),
    (KUBE_PROXY, "clientConnection: {qps: 1.5}\n", true),
    (KUBE_PROXY, "clientConnection: {burst: 1.5}\n", false),
    ("---\napiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n", "", false),
    ("---\napiVersion: example.com/v1\nkind: Thing\n", "", false),
    ("---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\n", "", true),
    ("---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n", "", false),
];

#[test]
fn documents_are_judged_as_kubeadm_judges_them() {
    let kubeadm = bed(&["kubeadm", "1.36.3"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeadm.yaml");
    let words = ["config", "validate", "--config", file.to_str().unwrap()];
    let mut different = Vec::new();
    for (header, fields, taken) in JUDGED {
        let text = if header.is_empty() { format!("{CLUSTER}{fields}") } else { format!("{CLUSTER}{header}{fields}") };
        std::fs::write(&file, &text).unwrap();
        let theirs = call(Path::new(kubeadm.trim()), &words, &[]);
        let ours = call(&clusterctl(), &[&["node"], &words[..]].concat(), &[]);
        if (theirs.code == 0, ours.code == 0) != (*taken, *taken) {
            different.push(format!("{text}kubeadm: {}ours: {}", theirs.stderr, ours.stderr));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
