//! The step boundaries of `up` and `down` with one control plane and one worker: written down, so that a seed means the
//! same injections on every machine. A run that shows a step which is not here fails its case.

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

/// What the second host of a cluster is; the first is a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// A worker.
    Worker,
    /// Another control plane.
    ControlPlane,
}

impl Second {
    /// A host in the table: `c`, and `w` or `c2`.
    pub fn called(self, host: usize) -> &'static str {
        match (host, self) {
            (0, _) => "c",
            (_, Self::Worker) => "w",
            (_, Self::ControlPlane) => "c2",
        }
    }
}

impl Boundary {
    /// In words, beside such a second host: `c prepare ends`.
    pub fn words(&self, second: Second) -> String {
        let host = self.host.map(|host| format!("{} ", second.called(host))).unwrap_or_default();
        format!("{host}{} {}", self.step, if self.ends { "ends" } else { "begins" })
    }
}

/// Steps of a run with their hosts, as time goes: both hosts have steps side by side, so the order between them is about
/// that of a run.
type Steps = &'static [(Option<usize>, &'static str)];

const C: Option<usize> = Some(0);
/// The worker, or the second control plane.
const W: Option<usize> = Some(1);

/// `up` on bare hosts.
const UP: Steps = &[
    (C, "connect"),
    (W, "connect"),
    (W, "wait"),
    (C, "files"),
    (W, "files"),
    (C, "prepare"),
    (W, "prepare"),
    (C, "runtime"),
    (W, "runtime"),
    (C, "images"),
    (W, "images"),
    (C, "certs"),
    (C, "kubeconfig"),
    (C, "kubelet-start"),
    (C, "control-plane"),
    (C, "addon-images"),
    (C, "wait-control-plane"),
    (C, "controller-manager"),
    (C, "upload-config"),
    (C, "bootstrap-token"),
    (W, "discovery"),
    (C, "mark-control-plane"),
    (C, "addons"),
    (W, "kubelet-start"),
    (C, "scheduler"),
    (W, "kubelet-wait-bootstrap"),
    (C, "network"),
    (W, "network"),
    (None, "ready"),
];

/// What hosts that are to join are judged by before anything is altered. It stands apart: it came after a seed had its
/// numbers.
const TRIAL: Steps = &[(C, "measure"), (W, "measure"), (C, "ways"), (W, "ways")];

/// What a node that changes waits for; it came after a seed had its numbers, too.
const RETURN: Steps = &[(C, "ready-again"), (W, "ready-again")];

/// What a second control plane adds to an `up` on bare hosts.
const TWIN: Steps = &[
    (C, "balancer"),
    (W, "balancer"),
    (C, "upload-certs"),
    (W, "discovery"),
    (W, "download-certs"),
    (W, "certs"),
    (W, "kubeconfig"),
    (W, "kubelet-start"),
    (W, "check-etcd"),
    (W, "etcd-join"),
    (W, "control-plane"),
    (W, "wait-control-plane"),
    (W, "components"),
    (W, "kubelet-wait-bootstrap"),
    (W, "mark-control-plane"),
    (W, "network"),
];

/// `up` on a cluster that is there.
const MEND: Steps = &[
    (C, "connect"),
    (W, "connect"),
    (C, "prepare"),
    (C, "runtime"),
    (C, "certs"),
    (C, "control-plane"),
    (C, "wait-control-plane"),
    (C, "controller-manager"),
    (C, "addons"),
    (W, "turn"),
    (W, "prepare"),
    (W, "runtime"),
    (W, "kubelet-start"),
    (C, "scheduler"),
    (C, "network"),
    (W, "network"),
    (None, "ready"),
];

/// `down` of a whole cluster.
const DOWN: Steps = &[
    (C, "connect"),
    (W, "connect"),
    (W, "kubelet-stop"),
    (W, "pods"),
    (W, "mounts"),
    (W, "pod-network"),
    (W, "sysctls"),
    (W, "files"),
    (W, "restore"),
    (W, "compare"),
    (C, "kubelet-stop"),
    (C, "pods"),
    (C, "mounts"),
    (C, "pod-network"),
    (C, "sysctls"),
    (C, "files"),
    (C, "restore"),
    (C, "compare"),
];

fn boundaries(steps: Steps) -> Vec<Boundary> {
    steps.iter().flat_map(|&(host, step)| [false, true].map(|ends| Boundary { host, step, ends })).collect()
}

/// Every boundary of an `up` on bare hosts, as time goes.
pub fn up() -> Vec<Boundary> {
    boundaries(UP)
}

/// Every boundary of what hosts are judged by before they join, as time goes.
pub fn trial() -> Vec<Boundary> {
    boundaries(TRIAL)
}

/// Every boundary that an `up` on bare hosts has for a second control plane, as time goes.
pub fn twin() -> Vec<Boundary> {
    boundaries(TWIN)
}

/// Every boundary of an `up` on a cluster that is there, as time goes.
pub fn mend() -> Vec<Boundary> {
    boundaries(MEND)
}

/// Every boundary of a `down`, as time goes.
pub fn down() -> Vec<Boundary> {
    boundaries(DOWN)
}

/// Whether a step of this id is known.
pub fn is_known(step: &str) -> bool {
    [UP, TRIAL, RETURN, TWIN, MEND, DOWN].iter().any(|steps| steps.iter().any(|(_, known)| *known == step))
}
