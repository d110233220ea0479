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

/// A difference that is meant.
pub struct Intended {
    /// Which comparison: `files`, `rehearsals` or `objects`; `any` for what the moment or the minor decides, which none has to
    /// need.
    part: &'static str,
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
        part: "files",
        name: "/etc/kubernetes/tmp*",
        line: "+(only we have it)",
        reason: "reset puts back the sysctls that the kubelet and kube-proxy set",
    },
    Intended {
        part: "any",
        name: "/var/lib/kubelet/pki/kubelet-client-*",
        line: "",
        reason: "a kubelet that starts with kubeadm's certificate asks for one of its own at once, unless it is started anew before \
                 an API server answers: ours answers sooner. Hosts that join have one from the cluster alone, which is compared",
    },
    Intended {
        part: "any",
        name: "ClusterRoleBinding /kubeadm:apiserver-kubelet-client",
        line: "+(only we have it)",
        reason: "1.36.1 and later take the group from this client's certificate; with the binding an upgrade to them loses nothing",
    },
    Intended {
        part: "rehearsals",
        name: "ConfigMap kube-public/cluster-info",
        line: "+.data.jws-kubeconfig-",
        reason: "it is signed at once: nodes join before the controller manager runs",
    },
    Intended {
        part: "rehearsals",
        name: "ClusterRoleBinding *",
        line: "+.subjects[0].apiGroup: \"rbac.authorization.k8s.io\"",
        reason: DEFAULT,
    },
    Intended {
        part: "rehearsals",
        name: "RoleBinding *",
        line: "+.subjects[0].apiGroup: \"rbac.authorization.k8s.io\"",
        reason: DEFAULT,
    },
    Intended {
        part: "rehearsals",
        name: "RoleBinding *",
        line: "+.subjects[1].apiGroup: \"rbac.authorization.k8s.io\"",
        reason: DEFAULT,
    },
    Intended {
        part: "rehearsals",
        name: "DaemonSet kube-system/kube-proxy",
        line: "-.spec.template.spec.containers[0].resources: {}",
        reason: DEFAULT,
    },
    Intended {
        part: "rehearsals",
        name: "DaemonSet kube-system/kube-proxy",
        line: "+.spec.template.spec.containers[0].volumeMounts[1].readOnly: false",
        reason: DEFAULT,
    },
];

impl Intended {
    fn covers(&self, difference: &Difference) -> bool {
        let named = match self.name.strip_suffix('*') {
            Some(start) => difference.name.starts_with(start),
            None => difference.name == self.name,
        };
        named && difference.line.starts_with(self.line)
    }
}

/// What was found, configuration by configuration.
#[derive(Debug, Default)]
pub struct Verdicts {
    unintended: Vec<String>,
    intended: Vec<Difference>,
    judged: usize,
}

impl Verdicts {
    /// Takes the differences of one configuration.
    pub fn judge(&mut self, configuration: &str, differences: Vec<Difference>) {
        self.judged += 1;
        for difference in differences {
            match TABLE.iter().any(|row| row.covers(&difference)) {
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

    /// Ends the comparison `part` of a version; `complete` says that all its configurations were there, so that every
    /// row must have been needed.
    pub fn finish(self, version: &str, part: &str, complete: bool) {
        let stale = TABLE
            .iter()
            .filter(|row| complete && row.part == part && !self.intended.iter().any(|seen| row.covers(seen)));
        let stale: Vec<String> =
            stale.map(|row| format!("nothing needs the row {} {} ({})", row.name, row.line, row.reason)).collect();
        let all = [self.unintended.as_slice(), &stale].concat();
        assert!(all.is_empty(), "Kubernetes {version}, {} configurations:\n{}", self.judged, all.join("\n"));
    }
}
