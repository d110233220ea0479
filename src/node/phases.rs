//! The phases of each workflow under kubeadm's names, as literal tables, and which of them one run takes
//! (kubeadm.md section 16.3).

use std::collections::BTreeSet;

use crate::failure::{Failure, Kind, Result};
use crate::yaml;

/// A phase, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// kubeadm's name.
    pub name: &'static str,
    /// Other names kubeadm accepts.
    pub aliases: &'static [&'static str],
    /// What it does, in the imperative.
    pub does: &'static str,
    /// Its parts, in order; none for a phase that is done as a whole.
    pub parts: &'static [Phase],
}

const fn one(name: &'static str, does: &'static str) -> Phase {
    Phase { name, aliases: &[], does, parts: &[] }
}

const fn group(name: &'static str, does: &'static str, parts: &'static [Phase]) -> Phase {
    Phase { name, aliases: &[], does, parts }
}

const fn also(phase: Phase, aliases: &'static [&'static str]) -> Phase {
    Phase { aliases, ..phase }
}

/// The phases of a verb, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workflow {
    /// The verb: `init`.
    pub verb: &'static str,
    /// Its phases.
    pub phases: &'static [Phase],
}

/// `init`.
pub const INIT: Workflow = Workflow {
    verb: "init",
    phases: &[
        one("preflight", "Check that the host fits, and fetch the images it lacks"),
        group(
            "certs",
            "Make certificates and keys",
            &[
                one("ca", "Make the CA of the cluster"),
                one("apiserver", "Make the certificate the API server serves with"),
                one("apiserver-kubelet-client", "Make the certificate the API server reaches kubelets with"),
                one("front-proxy-ca", "Make the CA of the front proxy"),
                one("front-proxy-client", "Make the certificate of the front proxy's client"),
                one("etcd-ca", "Make the CA of etcd"),
                one("etcd-server", "Make the certificate etcd serves with"),
                one("etcd-peer", "Make the certificate etcd's members know each other by"),
                one("etcd-healthcheck-client", "Make the certificate etcd's health is asked with"),
                one("apiserver-etcd-client", "Make the certificate the API server reaches etcd with"),
                one("sa", "Make the keys that sign the tokens of service accounts"),
            ],
        ),
        group(
            "kubeconfig",
            "Write kubeconfigs",
            &[
                one("admin", "Write admin.conf, for administrators"),
                one("super-admin", "Write super-admin.conf, whose power needs no RBAC"),
                one("kubelet", "Write kubelet.conf, with which the kubelet begins"),
                one("controller-manager", "Write controller-manager.conf"),
                one("scheduler", "Write scheduler.conf"),
            ],
        ),
        group("etcd", "Write the static pod of etcd", &[one("local", "Write etcd.yaml, a member on this host")]),
        group(
            "control-plane",
            "Write the static pods of the control plane",
            &[
                one("apiserver", "Write kube-apiserver.yaml"),
                one("controller-manager", "Write kube-controller-manager.yaml"),
                one("scheduler", "Write kube-scheduler.yaml"),
            ],
        ),
        one("kubelet-start", "Write the kubelet's settings and (re)start it"),
        one("wait-control-plane", "Wait until the control plane is healthy"),
        also(
            group(
                "upload-config",
                "Store the configuration in the cluster",
                &[
                    one("kubeadm", "Store the ClusterConfiguration in the ConfigMap kubeadm-config"),
                    one("kubelet", "Store the KubeletConfiguration in the ConfigMap kubelet-config"),
                ],
            ),
            &["uploadconfig"],
        ),
        one("upload-certs", "Store the shared certificates in the cluster, encrypted"),
        one("mark-control-plane", "Label and taint the Node as a control plane"),
        also(one("bootstrap-token", "Make the tokens nodes join with, and what they allow"), &["bootstraptoken"]),
        group(
            "kubelet-finalize",
            "Settle the kubelet after it has its certificate",
            &[one("enable-client-cert-rotation", "Point kubelet.conf to the certificate the kubelet rotates")],
        ),
        group(
            "addon",
            "Deploy the add-ons every cluster has",
            &[one("coredns", "Deploy CoreDNS"), one("kube-proxy", "Deploy kube-proxy")],
        ),
        one("show-join-command", "Print the commands other hosts join with"),
    ],
};

/// `join`.
pub const JOIN: Workflow = Workflow {
    verb: "join",
    phases: &[
        one("preflight", "Check that the host fits"),
        group(
            "control-plane-prepare",
            "Prepare the host to be a control plane",
            &[
                one("download-certs", "Fetch the shared certificates from the Secret kubeadm-certs"),
                one("certs", "Make the host's own certificates"),
                one("kubeconfig", "Write the kubeconfigs of the control plane"),
                one("control-plane", "Write the static pods of the control plane"),
            ],
        ),
        one("check-etcd", "Check that etcd is healthy"),
        one("kubelet-start", "Write the kubelet's settings and (re)start it"),
        // Up to 1.35 it was a part of control-plane-join.
        also(one("etcd-join", "Add the host's member to etcd"), &["control-plane-join/etcd"]),
        one("kubelet-wait-bootstrap", "Wait for the kubelet's certificate and its Node"),
        group(
            "control-plane-join",
            "Make the node a control plane",
            &[one("mark-control-plane", "Label and taint the Node as a control plane")],
        ),
        one("wait-control-plane", "Wait until the control plane is healthy"),
    ],
};

/// `reset`.
pub const RESET: Workflow = Workflow {
    verb: "reset",
    phases: &[
        also(one("preflight", "Check that the host can be reset"), &["pre-flight"]),
        one("remove-etcd-member", "Take the host's member out of etcd and remove its data"),
        also(one("cleanup-node", "Stop everything and remove Kubernetes' files"), &["cleanupnode"]),
    ],
};

/// The name that stands for all parts of a phase.
const ALL: &str = "all";

impl Phase {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Paths of what it consists of: itself, or its parts.
    fn leaves(&self) -> Vec<String> {
        match self.parts {
            [] => vec![self.name.to_owned()],
            parts => parts.iter().map(|part| format!("{}/{}", self.name, part.name)).collect(),
        }
    }
}

impl Workflow {
    /// Every phase and every part: `certs`, `certs/ca`.
    pub fn paths(&self) -> Vec<String> {
        self.phases
            .iter()
            .flat_map(|phase| {
                let parts = phase.parts.iter().map(|part| format!("{}/{}", phase.name, part.name));
                std::iter::once(phase.name.to_owned()).chain(parts)
            })
            .collect()
    }

    /// What `path` stands for: `certs/ca` for itself, `certs` and `certs/all` for all parts.
    fn leaves(&self, path: &str) -> Result<Vec<String>> {
        if let Some(phase) = self.phases.iter().find(|phase| phase.is(path)) {
            return Ok(phase.leaves());
        }
        let (name, part) = path.split_once('/').map_or((path, None), |(name, part)| (name, Some(part)));
        let phase = self.phases.iter().find(|phase| phase.is(name));
        match (phase, part) {
            (Some(phase), None) => return Ok(phase.leaves()),
            (Some(phase), Some(ALL)) if !phase.parts.is_empty() => return Ok(phase.leaves()),
            (Some(phase), Some(part)) => {
                if let Some(part) = phase.parts.iter().find(|known| known.is(part)) {
                    return Ok(vec![format!("{}/{}", phase.name, part.name)]);
                }
            }
            (None, _) => {}
        }
        let paths = self.paths();
        let failure = Failure::new(Kind::Usage, format!("invalid phase name: {} has no phase {path}", self.verb));
        Err(match yaml::nearest(path, paths.iter().map(String::as_str)) {
            Some(nearest) => failure.advise(format!("did you mean {nearest}?")),
            None => failure.advise(format!("see `clusterctl node {} --help` for the phases there are", self.verb)),
        })
    }

    /// The phases of a run: those below `only`, or all, without those below `skip`.
    ///
    /// # Errors
    /// Kind `Usage` for a name the workflow does not have.
    pub fn select(&self, only: Option<&str>, skip: &[String]) -> Result<Selection> {
        let mut wanted: BTreeSet<String> = match only {
            Some(path) => self.leaves(path)?.into_iter().collect(),
            None => self.phases.iter().flat_map(Phase::leaves).collect(),
        };
        for path in skip {
            for leaf in self.leaves(path)? {
                wanted.remove(&leaf);
            }
        }
        Ok(Selection { wanted, whole: only.is_none() })
    }

    /// The phases with what they do, for a verb's help.
    pub fn help(&self) -> String {
        let lines: Vec<(String, &str)> = self
            .phases
            .iter()
            .flat_map(|phase| {
                let parts = phase.parts.iter().map(|part| (format!("    {}", part.name), part.does));
                std::iter::once((format!("  {}", phase.name), phase.does)).chain(parts)
            })
            .collect();
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: Vec<String> = lines.iter().map(|(name, does)| format!("{name:width$}  {does}")).collect();
        format!("Phases, in order:\n{}", lines.join("\n"))
    }
}

/// The phases that one run takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    wanted: BTreeSet<String>,
    whole: bool,
}

impl Selection {
    /// Everything a workflow has.
    pub fn whole(workflow: &Workflow) -> Self {
        Self { wanted: workflow.phases.iter().flat_map(Phase::leaves).collect(), whole: true }
    }

    /// Whether any of what `path` stands for is wanted.
    pub fn wants(&self, path: &str) -> bool {
        self.wanted
            .iter()
            .any(|leaf| leaf.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Whether the whole workflow runs, apart from what is left out, and not one phase by itself.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Without these, whatever they stand for.
    pub fn without(mut self, paths: &[&str]) -> Self {
        self.wanted.retain(|leaf| {
            !paths
                .iter()
                .any(|path| leaf.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{INIT, JOIN, RESET, Workflow};
    use crate::failure::Kind;

    #[rstest]
    #[case(None, &[], &["preflight", "certs", "certs/ca", "addon/coredns", "show-join-command"], &[])]
    #[case(Some("certs/apiserver"), &[], &["certs/apiserver", "certs"], &["certs/ca", "preflight", "certs/api"])]
    #[case(Some("certs"), &[], &["certs/ca", "certs/sa"], &["kubeconfig"])]
    #[case(Some("certs/all"), &[], &["certs/ca", "certs/sa"], &["kubeconfig"])]
    #[case(Some("uploadconfig/kubelet"), &[], &["upload-config/kubelet"], &["upload-config/kubeadm"])]
    #[case(None, &["addon"], &["certs"], &["addon", "addon/coredns", "addon/kube-proxy"])]
    #[case(None, &["addon/kube-proxy", "bootstraptoken"], &["addon/coredns"], &["addon/kube-proxy", "bootstrap-token"])]
    fn a_run_takes_what_was_asked(
        #[case] only: Option<&str>,
        #[case] skip: &[&str],
        #[case] wanted: &[&str],
        #[case] unwanted: &[&str],
    ) {
        let skip: Vec<String> = skip.iter().map(|path| (*path).to_owned()).collect();
        let selection = INIT.select(only, &skip).unwrap();
        assert!(wanted.iter().all(|path| selection.wants(path)), "{selection:?}");
        assert!(!unwanted.iter().any(|path| selection.wants(path)), "{selection:?}");
        assert_eq!(selection.is_whole(), only.is_none());
    }

    #[rstest]
    #[case(INIT, "cert", Some("certs"))]
    #[case(INIT, "addons/coredns", Some("addon/coredns"))]
    #[case(INIT, "preflight/all", None)]
    #[case(JOIN, "control-plane-join/etcds", None)]
    #[case(RESET, "cleanup", None)]
    fn other_names_are_refused_with_the_nearest(
        #[case] workflow: Workflow,
        #[case] name: &str,
        #[case] nearest: Option<&str>,
    ) {
        let failure = workflow.select(Some(name), &[]).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.sentence.starts_with("invalid phase name"), "{failure}");
        if let Some(nearest) = nearest {
            assert_eq!(failure.advice.unwrap(), format!("did you mean {nearest}?"));
        }
    }

    #[rstest]
    #[case(Some("control-plane-join/etcd"), &[], &["etcd-join"], &["control-plane-join"])]
    #[case(None, &["control-plane-join/etcd"], &["control-plane-join/mark-control-plane"], &["etcd-join"])]
    fn the_old_name_of_etcd_join_is_known(
        #[case] only: Option<&str>,
        #[case] skip: &[&str],
        #[case] wanted: &[&str],
        #[case] unwanted: &[&str],
    ) {
        let skip: Vec<String> = skip.iter().map(|path| (*path).to_owned()).collect();
        let selection = JOIN.select(only, &skip).unwrap();
        assert!(wanted.iter().all(|path| selection.wants(path)), "{selection:?}");
        assert!(!unwanted.iter().any(|path| selection.wants(path)), "{selection:?}");
    }

    #[test]
    fn phases_can_be_taken_away_afterwards() {
        let selection = JOIN.select(None, &[]).unwrap().without(&["control-plane-prepare", "preflight"]);
        assert!(!selection.wants("control-plane-prepare/certs") && !selection.wants("preflight"));
        assert!(selection.wants("kubelet-start"));
    }

    #[test]
    fn help_lists_every_phase() {
        let help = INIT.help();
        assert!(help.lines().any(|line| line.starts_with("  certs ")), "{help}");
        assert!(help.lines().any(|line| line.starts_with("    etcd-ca ")), "{help}");
    }
}
