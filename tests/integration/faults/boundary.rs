//! The step boundaries of `up` and `down` with one control plane and one worker: written down, so that a seed means the
//! same injections on every machine. A run that shows a step which is not here fails its case.

use std::fmt;

/// The beginning or the end of a step of a host, in the stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// 0 for the control plane, 1 for the worker, nothing for a step of the whole run.
    pub host: Option<usize>,
    /// The step's id.
    pub step: &'static str,
    /// Whether it is the end of the step.
    pub ends: bool,
}

impl fmt::Display for Boundary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.host {
            Some(0) => "c ",
            Some(_) => "w ",
            None => "",
        };
        write!(formatter, "{host}{} {}", self.step, if self.ends { "ends" } else { "begins" })
    }
}

/// Steps of the control plane, of the worker and of the whole run, where a verb has them.
type Steps = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// `up` on bare hosts.
const UP: Steps = (
    &[
        "connect",
        "files",
        "prepare",
        "runtime",
        "images",
        "certs",
        "kubeconfig",
        "kubelet-start",
        "control-plane",
        "wait-control-plane",
        "addon-images",
        "controller-manager",
        "upload-config",
        "bootstrap-token",
        "mark-control-plane",
        "addons",
        "scheduler",
        "network",
    ],
    &[
        "connect",
        "wait",
        "files",
        "prepare",
        "runtime",
        "images",
        "discovery",
        "kubelet-start",
        "kubelet-wait-bootstrap",
        "network",
    ],
    &["ready"],
);

/// `up` on a cluster that is there.
const MEND: Steps = (
    &[
        "connect",
        "prepare",
        "runtime",
        "certs",
        "control-plane",
        "wait-control-plane",
        "controller-manager",
        "addons",
        "scheduler",
        "network",
    ],
    &["connect", "prepare", "runtime", "network"],
    &["ready"],
);

/// `down` of a whole cluster.
const DOWN: Steps = (
    &["connect", "kubelet-stop", "pods", "mounts", "pod-network", "sysctls", "files", "restore", "compare"],
    &["connect", "kubelet-stop", "pods", "mounts", "pod-network", "sysctls", "files", "restore", "compare"],
    &[],
);

fn boundaries((control_plane, worker, whole): Steps) -> Vec<Boundary> {
    let of = |host: Option<usize>, steps: &'static [&'static str]| {
        steps.iter().flat_map(move |step| [false, true].map(|ends| Boundary { host, step, ends }))
    };
    of(Some(0), control_plane).chain(of(Some(1), worker)).chain(of(None, whole)).collect()
}

/// Every boundary of an `up` on bare hosts.
pub fn up() -> Vec<Boundary> {
    boundaries(UP)
}

/// Every boundary of an `up` on a cluster that is there.
pub fn mend() -> Vec<Boundary> {
    boundaries(MEND)
}

/// Every boundary of a `down`.
pub fn down() -> Vec<Boundary> {
    boundaries(DOWN)
}

/// Whether a step of this id is known.
pub fn is_known(step: &str) -> bool {
    let all = [UP, MEND, DOWN];
    all.iter().flat_map(|(one, other, whole)| [one, other, whole]).any(|steps| steps.contains(&step))
}
