//! Differences from upstream that are meant, each with its reason. All others are failures, and so is a row that nothing
//! needs any more.
//!
//! What is never compared, since it would differ between two clusters of upstream's, too:
//!
//! | left out | where | why |
//! |---|---|---|
//! | keys, serial numbers, the moment a certificate ends (its lifetime is compared) | [`super::certificate`] | random, or of the run |
//! | the moment in the names of the kubelet's own certificates | [`super::certificate`], [`super::snapshot`] | of the run |
//! | `status` of every object | [`super::object`] | kubelet and controllers report there; kubeadm writes none |
//! | uid, resourceVersion, creationTimestamp, managedFields | [`super::object`] | the API server gives them |
//! | a creationTimestamp of null in a pod template | [`super::object`] | up to 1.33 kubeadm prints it; the API server keeps none |
//! | taints `node.kubernetes.io/*` | [`super::object`] | the node controller sets and lifts them with the node's readiness |
//! | the signature of cluster-info (`jws-kubeconfig-*`) | [`super::object`] | over the cluster's own certificate; every join judges it |
//! | when a token ends, id and secret of the token that keeps the uploaded certificates | [`super::object`] | of the run, random |
//! | bytes of the uploaded certificates (their length is compared) | [`super::object`] | encrypted; joins on the other side read them |
//! | the order of members in etcd's `--initial-cluster` | [`super::snapshot`] | etcd lists them by their numbers, which are random |
//! | pods and sockets below /var/lib/kubelet, and what it notes of running pods | `whole.sh` | the kubelet's own, other for each pod |
//! | values of Secrets and annotations of a Node in a dry run | [`super::rehearsal`] | one of the sides does not tell them; whole control planes are compared with them |

use super::snapshot::Difference;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The files of `init` on a host where nothing runs.
    Files,
    /// The objects that dry runs of `init` name.
    Rehearsals,
    /// Whole control planes: files and objects.
    Objects,
    /// Hosts that joined: files and objects.
    Joins,
}

/// A difference that is meant.
pub struct Intended {
    /// In which comparisons; in all others it is a failure.
    parts: &'static [Part],
    /// Whether each of them has to need it: not where the moment or the minor decides.
    needed: bool,
    /// The file or object; a `*` at the end stands for the rest.
    name: &'static str,
    /// What the line begins with, `-` or `+` included.
    line: &'static str,
    /// Why we do it otherwise.
    reason: &'static str,
}

/// The API server adds it where it is missing.
const DEFAULT: &str = "what the API server adds by itself is written by one side and left to it by the other";

/// All of them.
pub const TABLE: &[Intended] = &[
    Intended {
        parts: &[Part::Files, Part::Objects, Part::Joins],
        needed: true,
        name: "/etc/kubernetes/tmp*",
        line: "+(only we have it)",
        reason: "reset puts back the sysctls that the kubelet and kube-proxy set",
    },
    Intended {
        parts: &[Part::Objects],
        needed: false,
        name: "/var/lib/kubelet/pki/kubelet-client-*",
        line: "",
        reason: "a kubelet that starts with kubeadm's certificate asks for one of its own at once, unless it is started anew before \
                 an API server answers: ours answers sooner. Hosts that join have one from the cluster alone, which is compared",
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: false,
        name: "ClusterRoleBinding /kubeadm:apiserver-kubelet-client",
        line: "+(only we have it)",
        reason: "1.36.1 and later take the group from this client's certificate; with the binding an upgrade to them loses nothing",
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: true,
        name: "ConfigMap kube-public/cluster-info",
        line: "+.data.jws-kubeconfig-",
        reason: "it is signed at once: nodes join before the controller manager runs",
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: true,
        name: "ClusterRoleBinding *",
        line: "+.subjects[0].apiGroup: \"rbac.authorization.k8s.io\"",
        reason: DEFAULT,
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: true,
        name: "RoleBinding *",
        line: "+.subjects[0].apiGroup: \"rbac.authorization.k8s.io\"",
        reason: DEFAULT,
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: true,
        name: "RoleBinding *",
        line: "+.subjects[1].apiGroup: \"rbac.authorization.k8s.io\"",
        reason: DEFAULT,
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: true,
        name: "DaemonSet kube-system/kube-proxy",
        line: "-.spec.template.spec.containers[0].resources: {}",
        reason: DEFAULT,
    },
    Intended {
        parts: &[Part::Rehearsals],
        needed: true,
        name: "DaemonSet kube-system/kube-proxy",
        line: "+.spec.template.spec.containers[0].volumeMounts[1].readOnly: false",
        reason: DEFAULT,
    },
];

impl Intended {
    fn covers(&self, part: Part, difference: &Difference) -> bool {
        let named = match self.name.strip_suffix('*') {
            Some(start) => difference.name.starts_with(start),
            None => difference.name == self.name,
        };
        self.parts.contains(&part) && named && difference.line.starts_with(self.line)
    }
}

/// What was found in one comparison, configuration by configuration.
#[derive(Debug)]
pub struct Verdicts {
    part: Part,
    unintended: Vec<String>,
    intended: Vec<Difference>,
    judged: usize,
}

impl Verdicts {
    /// Of a comparison that begins.
    pub fn of(part: Part) -> Self {
        Self { part, unintended: Vec::new(), intended: Vec::new(), judged: 0 }
    }

    /// Takes the differences of one configuration.
    pub fn judge(&mut self, configuration: &str, differences: Vec<Difference>) {
        self.judged += 1;
        for difference in differences {
            match TABLE.iter().any(|row| row.covers(self.part, &difference)) {
                true => self.intended.push(difference),
                false => self.unintended.push(format!("{configuration}: {difference}")),
            }
        }
    }

    /// A configuration that could not be compared.
    pub fn fail(&mut self, configuration: &str, why: &str) {
        self.judged += 1;
        self.unintended.push(format!("{configuration}: {why}"));
    }

    /// What was found and not meant; with `complete`, also rows that were meant and not found.
    fn problems(&self, complete: bool) -> Vec<String> {
        let asked = TABLE.iter().filter(|row| complete && row.needed && row.parts.contains(&self.part));
        let stale = asked.filter(|row| !self.intended.iter().any(|seen| row.covers(self.part, seen)));
        let stale = stale.map(|row| format!("nothing needs the row {} {} ({})", row.name, row.line, row.reason));
        self.unintended.iter().cloned().chain(stale).collect()
    }

    /// Ends the comparison for a version, of at least this many configurations; `complete` says that all of them were there,
    /// so that every row must have been needed.
    pub fn finish(self, version: &str, least: usize, complete: bool) {
        let (part, judged, all) = (self.part, self.judged, self.problems(complete));
        assert!(all.is_empty(), "Kubernetes {version}, {part:?}, {judged} configurations:\n{}", all.join("\n"));
        assert!(judged >= least, "Kubernetes {version}, {part:?}: {judged} configurations were judged, not {least}");
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Difference, Part, TABLE, Verdicts};

    const KUBELET: &str = "/var/lib/kubelet/pki/kubelet-client-(2).pem";
    const NOTE: &str = "/etc/kubernetes/tmp/clusterctl-sysctls.json";
    const BINDING: &str = "RoleBinding kube-system/kubeadm:nodes-kubeadm-config";
    const GROUP: &str = "+.subjects[0].apiGroup: \"rbac.authorization.k8s.io\"";

    fn judged(part: Part, differences: &[(&str, &str)]) -> Verdicts {
        let mut verdicts = Verdicts::of(part);
        let differences =
            differences.iter().map(|(name, line)| Difference { name: (*name).into(), line: (*line).into() });
        verdicts.judge("defaults", differences.collect());
        verdicts
    }

    #[rstest]
    #[case::a_certificate_of_a_race(Part::Objects, KUBELET, "-(only upstream has it)", true)]
    #[case::the_same_where_it_is_compared(Part::Joins, KUBELET, "-(only upstream has it)", false)]
    #[case::the_same_where_no_kubelet_runs(Part::Files, KUBELET, "+(only we have it)", false)]
    #[case::what_a_dry_run_leaves_to_the_server(Part::Rehearsals, BINDING, GROUP, true)]
    #[case::the_same_of_the_server(Part::Objects, BINDING, GROUP, false)]
    #[case::the_same_taken_away(
        Part::Rehearsals,
        BINDING,
        "-.subjects[0].apiGroup: \"rbac.authorization.k8s.io\"",
        false
    )]
    #[case::a_note_of_ours(Part::Joins, NOTE, "+(only we have it)", true)]
    #[case::a_note_of_upstreams(Part::Joins, NOTE, "-(only upstream has it)", false)]
    #[case::a_note_elsewhere(Part::Files, "/etc/kubernetes/clusterctl-sysctls.json", "+(only we have it)", false)]
    fn a_row_is_for_its_own_comparisons(
        #[case] part: Part,
        #[case] name: &str,
        #[case] line: &str,
        #[case] intended: bool,
    ) {
        let problems = judged(part, &[(name, line)]).problems(false);
        assert_eq!(problems.is_empty(), intended, "{problems:?}");
    }

    #[test]
    fn a_row_that_nothing_needs_is_told_where_it_belongs() {
        let note = (NOTE, "+(only we have it)");
        assert!(judged(Part::Joins, &[note]).problems(true).is_empty());
        assert!(judged(Part::Joins, &[]).problems(false).is_empty());
        // Not the row of what the moment decides.
        let stale = judged(Part::Objects, &[]).problems(true);
        assert!(stale.len() == 1 && stale[0].contains("/etc/kubernetes/tmp*"), "{stale:?}");
        let rows = TABLE.iter().filter(|row| row.needed && row.parts.contains(&Part::Rehearsals)).count();
        assert_eq!(judged(Part::Rehearsals, &[note]).problems(true).len(), rows + 1);
    }

    #[test]
    #[should_panic(expected = "1 configurations were judged, not 2")]
    fn fewer_configurations_than_there_must_be_are_no_comparison() {
        judged(Part::Joins, &[]).finish("1.36.3", 2, false);
    }
}
