//! What is wrong with a document by its shape: all of it, each at its place.

use super::{Shape, scalar};
use crate::yaml::{Content, Node, Span};

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes::configuration) enum Fault {
    /// There is no such field.
    Unknown,
    /// Its value is of a wrong type: completes a sentence that begins with the field.
    Wrong(String),
}

/// A field that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes::configuration) struct Finding {
    /// `apiServer.extraArgs[0].valu`.
    pub(in crate::kubernetes::configuration) path: String,
    /// Where it stands: an unknown field at its name, a wrong value at the value.
    pub(in crate::kubernetes::configuration) span: Span,
    /// What is wrong.
    pub(in crate::kubernetes::configuration) fault: Fault,
}

impl Finding {
    /// The sentence about it, with line and column, in a document of this kind.
    pub(in crate::kubernetes::configuration) fn sentence(&self, kind: &str) -> String {
        format!("{} (line {}, column {})", self.words(kind), self.span.line, self.span.column)
    }

    /// The sentence without the place.
    pub(in crate::kubernetes::configuration) fn words(&self, kind: &str) -> String {
        match &self.fault {
            Fault::Unknown => format!("{kind} has no field {}", self.path),
            Fault::Wrong(misfit) => format!("{kind} has a wrong value: {} {misfit}", self.path),
        }
    }
}

/// Everything in `node` that the shape does not have or has otherwise. What is null counts as not given, as upstream has
/// it, but for an item of a list.
pub(in crate::kubernetes::configuration) fn findings(node: &Node, shape: &Shape) -> Vec<Finding> {
    let mut found = Vec::new();
    collect(node, shape, "", &mut found);
    found
}

fn collect(node: &Node, shape: &Shape, path: &str, found: &mut Vec<Finding>) {
    if let Some(misfit) = scalar::misfit(node, shape) {
        found.push(Finding { path: path.to_owned(), span: node.span, fault: Fault::Wrong(misfit) });
        return;
    }
    match (shape, &node.content) {
        (Shape::Fields(_) | Shape::Map(_), Content::Map(entries)) => {
            for entry in entries {
                let name = &entry.key.text;
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let below = match shape {
                    Shape::Fields(known) => known.iter().find(|(known, _)| known == name).map(|(_, below)| *below),
                    Shape::Map(below) => Some(*below),
                    _ => None,
                };
                match below {
                    None => found.push(Finding { path, span: entry.key.span, fault: Fault::Unknown }),
                    Some(_) if entry.value.is_null() => {}
                    Some(below) => collect(&entry.value, below, &path, found),
                }
            }
        }
        (Shape::List(below), Content::List(items)) => {
            for (position, item) in items.iter().enumerate() {
                collect(item, below, &format!("{path}[{position}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::findings;
    use crate::kubernetes::configuration::shape;
    use crate::yaml;

    #[rstest]
    #[case("ClusterConfiguration", "apiServer:\n  extraArgs:\n  - {name: a, valu: b}", &[
        "ClusterConfiguration has no field apiServer.extraArgs[0].valu (line 3, column 15)",
    ])]
    #[case("ClusterConfiguration", "clusterName: [1]\nfeatureGates: {A: 1}\nscheduler: null\ndns:", &[
        "ClusterConfiguration has a wrong value: clusterName must be a text, and is a list (line 1, column 14)",
        "ClusterConfiguration has a wrong value: featureGates.A must be true or false, and is a number (line 2, column 19)",
    ])]
    #[case(
        "ClusterConfiguration",
        "etcd: {local: {extraEnvs: [{name: A, valueFrom: {fieldRef: {fieldPat: a}, other: 1}}]}}",
        &[
            "ClusterConfiguration has no field etcd.local.extraEnvs[0].valueFrom.fieldRef.fieldPat (line 1, column 61)",
            "ClusterConfiguration has no field etcd.local.extraEnvs[0].valueFrom.other (line 1, column 75)",
        ],
    )]
    #[case("KubeletConfiguration", "maxPod: 42\nevictionHard: {memory.available: 5}\nkubeReserved: {cpu: 100m}", &[
        "KubeletConfiguration has no field maxPod (line 1, column 1)",
        "KubeletConfiguration has a wrong value: evictionHard.memory.available must be a text, and is a number; write it in \
         quotes (line 2, column 34)",
    ])]
    #[case("KubeletConfiguration", "reservedMemory:\n- numaNode: 0\n  limits: {memory: 1Gi, hugepages-2Mi: many}", &[
        "KubeletConfiguration has a wrong value: reservedMemory[0].limits.hugepages-2Mi must be a quantity such as 100Mi, and \
         is \"many\" (line 3, column 40)",
    ])]
    #[case("KubeProxyConfiguration", "mode: ipvs\nconntrack: {max: 1}\niptables: {syncPeriod: 30}", &[
        "KubeProxyConfiguration has no field conntrack.max (line 2, column 13)",
        "KubeProxyConfiguration has a wrong value: iptables.syncPeriod must be a duration such as 4m0s, and is a number \
         (line 3, column 24)",
    ])]
    fn all_is_found_at_its_place(#[case] kind: &str, #[case] text: &str, #[case] expected: &[&str]) {
        let (node, _) = yaml::tree(text).unwrap();
        let shape = shape::of(kind).or_else(|| shape::of_component(kind).map(|(_, _, shape)| shape)).unwrap();
        let found: Vec<String> = findings(&node, shape).iter().map(|finding| finding.sentence(kind)).collect();
        assert_eq!(found, expected);
    }
}
