//! Patches that a person brings for what is made here (kubeadm.md section 4.8): files
//! `<target>[suffix][+type].{json,yaml}` of one folder, laid over static pods, the kubelet's configuration and add-ons.

use serde_json::Value;

use super::component::write_out_pod;
use super::version::Release;
use crate::failure::{Failure, Kind, Result};
use crate::yaml::{self, Finding, Node};

mod operations;
mod strategic;

/// What can be patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The static pod of etcd.
    Etcd,
    /// The static pod of the API server.
    ApiServer,
    /// The static pod of the controller manager.
    ControllerManager,
    /// The static pod of the scheduler.
    Scheduler,
    /// /var/lib/kubelet/config.yaml of this node.
    KubeletConfiguration,
    /// The Deployment of CoreDNS.
    CorednsDeployment,
    /// The DaemonSet of kube-proxy (from 1.37).
    KubeProxyDaemonSet,
}

/// Targets by the name their files begin with. None is the beginning of another.
const TARGETS: [(&str, Target); 7] = [
    ("etcd", Target::Etcd),
    ("kube-apiserver", Target::ApiServer),
    ("kube-controller-manager", Target::ControllerManager),
    ("kube-scheduler", Target::Scheduler),
    ("kubeletconfiguration", Target::KubeletConfiguration),
    ("corednsdeployment", Target::CorednsDeployment),
    ("kubeproxydaemonset", Target::KubeProxyDaemonSet),
];

/// How a patch says what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// Kubernetes' strategic merge patch: lists by merge key, `$patch` directives.
    Strategic,
    /// JSON Merge Patch, RFC 7386.
    Merge,
    /// JSON Patch, RFC 6902.
    Json,
}

const TYPES: [(&str, Type); 3] = [("json", Type::Json), ("merge", Type::Merge), ("strategic", Type::Strategic)];

/// One document of a patch file.
#[derive(Debug, Clone, PartialEq)]
struct Patch {
    target: Target,
    kind: Type,
    /// File and line it begins at, for failures.
    place: String,
    content: Value,
}

/// The patches of a folder, in the order in which they are applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    patches: Vec<Patch>,
}

impl Patches {
    /// Reads files (name and text, in the order of their names). Answers also with a sentence for each file that is
    /// passed over, as upstream passes it over: another ending, another target, nothing in it.
    ///
    /// # Errors
    /// Kind `Configuration`, with file and line: a type that is not known, a text that is not YAML, content that is no
    /// patch of its type.
    pub fn read(files: &[(String, String)], release: &Release) -> Result<(Self, Vec<String>)> {
        let mut patches = Vec::new();
        let mut passed_over = Vec::new();
        for (path, text) in files {
            let name = path.rsplit('/').next().unwrap_or(path);
            match parse_name(name, release) {
                Ok((target, kind)) if !text.trim().is_empty() => patches.extend(documents(path, text, target, kind)?),
                Ok(_) => passed_over.push(format!("{path} is empty and is passed over")),
                Err(Name::Other(reason)) => passed_over.push(format!("{path} is passed over: {reason}")),
                Err(Name::UnknownType) => {
                    let sentence = format!("{path} does not name a known patch type after the +");
                    return Err(Failure::new(Kind::Configuration, sentence)
                        .advise(format!("name it one of {}", listed(&TYPES.map(|(name, _)| name)))));
                }
            }
        }
        Ok((Self { patches }, passed_over))
    }

    /// Whether any is of this target.
    pub fn touch(&self, target: Target) -> bool {
        self.patches.iter().any(|patch| patch.target == target)
    }

    /// Lays the patches of a target over its document, in order.
    ///
    /// # Errors
    /// Kind `Configuration`, with file and line, when a patch does not fit the document.
    pub fn apply(&self, target: Target, document: Value) -> Result<Value> {
        let mut of_target = self.patches.iter().filter(|patch| patch.target == target).peekable();
        let is_patched = of_target.peek().is_some();
        let mut document = of_target.try_fold(document, |document, patch| {
            let patched = match patch.kind {
                Type::Strategic => strategic::apply(document, &patch.content, schema(target)),
                Type::Merge => Ok(merge(document, &patch.content)),
                Type::Json => operations::apply(document, &patch.content),
            };
            patched.map_err(|reason| {
                Failure::new(Kind::Configuration, format!("{}: the patch does not fit: {reason}", patch.place))
                    .advise("correct the patch; a --dry-run without it shows what it is laid over")
            })
        })?;
        // Upstream reads the pod that comes out into its types and writes it again.
        match target {
            Target::Etcd | Target::ApiServer | Target::ControllerManager | Target::Scheduler if is_patched => {
                write_out_pod(&mut document);
            }
            _ => {}
        }
        Ok(document)
    }
}

/// What lists a strategic merge patch of a target finds by their keys.
fn schema(target: Target) -> &'static strategic::Schema {
    match target {
        Target::Etcd | Target::ApiServer | Target::ControllerManager | Target::Scheduler => &strategic::POD,
        Target::KubeletConfiguration => &strategic::PLAIN,
        Target::CorednsDeployment => &strategic::DEPLOYMENT,
        Target::KubeProxyDaemonSet => &strategic::DAEMON_SET,
    }
}

/// Why a file's name is not that of a patch.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// Not meant for us.
    Other(String),
    /// Meant for us, and wrong.
    UnknownType,
}

/// Target and type by a file's name.
fn parse_name(name: &str, release: &Release) -> Result<(Target, Type), Name> {
    let Some((stem, _)) =
        name.rsplit_once('.').filter(|(stem, end)| !stem.is_empty() && ["json", "yaml"].contains(end))
    else {
        return Err(Name::Other("its name does not end in .json or .yaml".to_owned()));
    };
    let known = |target: Target| target != Target::KubeProxyDaemonSet || release.kube_proxy_patches;
    let targets: Vec<_> = TARGETS.iter().filter(|(_, target)| known(*target)).collect();
    let Some((beginning, target)) = targets.iter().find(|(beginning, _)| stem.starts_with(beginning)) else {
        let names: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
        return Err(Name::Other(format!("its name begins with none of {}", listed(&names))));
    };
    // The suffix, which only sorts, ends at a dot or a plus; the rest behind a type counts for nothing.
    let rest = &stem[beginning.len()..];
    let Some(kind) = rest.find(['.', '+']).map(|at| &rest[at..]).and_then(|rest| rest.strip_prefix('+')) else {
        return Ok((*target, Type::Strategic));
    };
    let kind = TYPES.iter().find(|(name, _)| kind.starts_with(name));
    kind.map(|(_, kind)| (*target, *kind)).ok_or(Name::UnknownType)
}

fn listed(names: &[&str]) -> String {
    names.join(", ")
}

/// The patches of a file.
fn documents(path: &str, text: &str, target: Target, kind: Type) -> Result<Vec<Patch>> {
    let wrong = |finding: &Finding| {
        let sentence = format!("{path}:{}:{}: {}", finding.line, finding.column, finding.message);
        let failure = Failure::new(Kind::Configuration, sentence);
        match &finding.help {
            Some(help) => failure.advise(help.clone()),
            None => {
                failure.advise("correct the patch at that place; what its name says of its type decides how it is read")
            }
        }
    };
    let (nodes, findings) = yaml::trees(text).map_err(|finding| wrong(&finding))?;
    if let Some(finding) = findings.first() {
        return Err(wrong(finding));
    }
    let patch = |node: &Node| {
        let content = node.to_value();
        let fits = if kind == Type::Json { content.is_array() } else { content.is_object() };
        if !fits {
            let wanted = if kind == Type::Json { "a list of operations" } else { "a mapping" };
            let message = format!("a patch of this type is {wanted}, and here is {}", node.what());
            return Err(wrong(&Finding::error(node.span, message)));
        }
        if kind == Type::Json {
            operations::check(node).map_err(|finding| wrong(&finding))?;
        }
        Ok(Patch { target, kind, place: format!("{path}:{}", node.span.line), content })
    };
    nodes.iter().filter(|node| !node.is_null()).map(patch).collect()
}

/// JSON Merge Patch (RFC 7386).
fn merge(document: Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut fields = match document {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.shift_remove(name);
        } else {
            let before = fields.get_mut(name).map(Value::take).unwrap_or_default();
            fields.insert(name.clone(), merge(before, change));
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{Name, Patches, Target, Type, merge, parse_name};
    use crate::kubernetes::version::Release;

    fn release(minor: u64) -> &'static Release {
        Release::of(&semver::Version::new(1, minor, 0)).unwrap()
    }

    fn read(files: &[(&str, &str)]) -> crate::failure::Result<(Patches, Vec<String>)> {
        let files: Vec<_> = files.iter().map(|(name, text)| (format!("/p/{name}"), (*text).to_owned())).collect();
        Patches::read(&files, release(36))
    }

    #[rstest]
    #[case("etcd.yaml", Target::Etcd, Type::Strategic)]
    #[case("kube-apiserver0+merge.yaml", Target::ApiServer, Type::Merge)]
    #[case("kube-apiserver+json.json", Target::ApiServer, Type::Json)]
    #[case("kubeletconfiguration-x+strategic.yaml", Target::KubeletConfiguration, Type::Strategic)]
    #[case("corednsdeployment.old+json.yaml", Target::CorednsDeployment, Type::Strategic)]
    fn names_tell_target_and_type(#[case] name: &str, #[case] target: Target, #[case] kind: Type) {
        assert_eq!(parse_name(name, release(36)), Ok((target, kind)));
    }

    #[rstest]
    #[case("README.md")]
    #[case(".yaml")]
    #[case("kubelet.yaml")]
    #[case("kubeproxydaemonset.yaml")]
    fn other_files_are_passed_over(#[case] name: &str) {
        assert!(matches!(parse_name(name, release(36)), Err(Name::Other(_))));
    }

    #[test]
    fn kube_proxy_can_be_patched_from_1_37_on() {
        let target = parse_name("kubeproxydaemonset+merge.yaml", release(37));
        assert_eq!(target, Ok((Target::KubeProxyDaemonSet, Type::Merge)));
    }

    #[rstest]
    #[case("etcd+merg.yaml", "a: 1", "/p/etcd+merg.yaml does not name a known patch type after the +")]
    #[case("etcd.yaml", "a: 1\nb: [\n", "/p/etcd.yaml:")]
    #[case("etcd.yaml", "\n- a\n", "/p/etcd.yaml:2:1: a patch of this type is a mapping, and here is a list")]
    #[case("etcd+json.yaml", "a: 1\n", "/p/etcd+json.yaml:1:1: a patch of this type is a list of operations")]
    #[case("etcd+json.yaml", "- op: add\n- {op: ad, path: /a}\n", "/p/etcd+json.yaml:1:3: ")]
    fn what_does_not_parse_is_named_with_its_line(#[case] name: &str, #[case] text: &str, #[case] sentence: &str) {
        let failure = read(&[(name, text)]).unwrap_err();
        assert!(failure.sentence.starts_with(sentence), "{failure}");
    }

    #[test]
    fn patches_of_all_types_are_applied_in_order() {
        let (patches, passed_over) = read(&[
            ("etcd0+merge.yaml", "metadata: {labels: {a: null, b: two}}\n"),
            ("etcd1+json.yaml", "- {op: add, path: /metadata/labels/c, value: three}\n"),
            ("etcd2.yaml", "spec: {containers: [{name: etcd, image: mine}]}\n---\nspec: {hostNetwork: null}\n"),
            ("kube-scheduler.yaml", "spec: {other: true}\n"),
            ("notes.txt", "hello"),
            ("etcd3.yaml", "\n"),
        ])
        .unwrap();
        let pod = json!({"metadata": {"labels": {"a": "one"}},
            "spec": {"containers": [{"name": "etcd", "image": "theirs", "command": ["etcd"]}], "hostNetwork": true}});
        assert_eq!(
            patches.apply(Target::Etcd, pod).unwrap(),
            json!({"metadata": {"labels": {"b": "two", "c": "three"}},
                "spec": {"containers": [{"name": "etcd", "image": "mine", "command": ["etcd"], "resources": {}}]}})
        );
        assert_eq!(passed_over.len(), 2, "{passed_over:?}");
    }

    #[test]
    fn a_patch_that_does_not_fit_is_named_with_its_line() {
        let (patches, _) = read(&[("etcd+json.yaml", "- {op: remove, path: /spec/none}\n")]).unwrap();
        let failure = patches.apply(Target::Etcd, json!({"spec": {}})).unwrap_err();
        assert!(failure.sentence.starts_with("/p/etcd+json.yaml:1: the patch does not fit: "), "{failure}");
    }

    #[rstest]
    #[case(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}))]
    #[case(json!({"a": "b"}), json!({"a": null}), json!({}))]
    #[case(json!({"a": ["b"]}), json!({"a": ["c", "d"]}), json!({"a": ["c", "d"]}))]
    #[case(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}}))]
    #[case(json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}))]
    #[case(json!({"a": [1]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}))]
    fn examples_of_rfc_7386(
        #[case] document: serde_json::Value,
        #[case] patch: serde_json::Value,
        #[case] patched: serde_json::Value,
    ) {
        assert_eq!(merge(document, &patch), patched);
    }
}
