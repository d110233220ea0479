//! What is done to which run and when: a list that a seed makes, always the same.

use std::fmt;

use crate::faults::boundary::{self, Boundary};
use crate::faults::chance::Chance;

/// The verb that is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `up` on bare hosts.
    Up,
    /// `up` on a cluster whose worker has drifted.
    Mend,
    /// `down` on a whole cluster.
    Down,
}

/// A kind of fault. `Host` in a comment is the case's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The program on the laptop gets SIGKILL.
    KillController,
    /// The agents on the host get SIGKILL.
    KillAgent,
    /// The host stands still for some seconds.
    PauseHost,
    /// The host loses its power and is started again after the run.
    KillHost,
    /// No packet reaches or leaves the host for some seconds.
    CutShortly,
    /// No packet reaches or leaves the host until the run has ended.
    Cut,
    /// No packet reaches the host until the run has ended.
    CutInwards,
    /// No packet leaves the host until the run has ended.
    CutOutwards,
    /// The laptop vanishes: no packet, and no end of a connection, reaches the host any more.
    LaptopVanishes,
    /// Every tenth packet is lost, both ways.
    Loss,
    /// The way to the host takes 300 ms more there and back.
    Latency,
    /// /var/lib of the host has no room left.
    DiskFull,
    /// The file systems of the host can only be read.
    ReadOnly,
    /// sshd is restarted and its connections end.
    RestartSshd,
    /// containerd gets SIGKILL.
    CrashContainerd,
    /// The kubelet gets SIGKILL.
    CrashKubelet,
    /// The API server gets SIGKILL.
    CrashApiServer,
    /// etcd gets SIGKILL.
    CrashEtcd,
    /// etcd stands still for some seconds.
    SlowEtcd,
    /// A second `up` is typed meanwhile.
    SecondUp,
    /// A `down` is typed meanwhile.
    DownMeanwhile,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 21] = [
        Self::KillController,
        Self::KillAgent,
        Self::PauseHost,
        Self::KillHost,
        Self::CutShortly,
        Self::Cut,
        Self::CutInwards,
        Self::CutOutwards,
        Self::LaptopVanishes,
        Self::Loss,
        Self::Latency,
        Self::DiskFull,
        Self::ReadOnly,
        Self::RestartSshd,
        Self::CrashContainerd,
        Self::CrashKubelet,
        Self::CrashApiServer,
        Self::CrashEtcd,
        Self::SlowEtcd,
        Self::SecondUp,
        Self::DownMeanwhile,
    ];

    /// For tables and for choosing.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillController => "kill-controller",
            Self::KillAgent => "kill-agent",
            Self::PauseHost => "pause-host",
            Self::KillHost => "kill-host",
            Self::CutShortly => "cut-shortly",
            Self::Cut => "cut",
            Self::CutInwards => "cut-inwards",
            Self::CutOutwards => "cut-outwards",
            Self::LaptopVanishes => "laptop-vanishes",
            Self::Loss => "loss-10-percent",
            Self::Latency => "latency-300-ms",
            Self::DiskFull => "disk-full",
            Self::ReadOnly => "read-only",
            Self::RestartSshd => "restart-sshd",
            Self::CrashContainerd => "crash-containerd",
            Self::CrashKubelet => "crash-kubelet",
            Self::CrashApiServer => "crash-api-server",
            Self::CrashEtcd => "crash-etcd",
            Self::SlowEtcd => "slow-etcd",
            Self::SecondUp => "second-up",
            Self::DownMeanwhile => "down-meanwhile",
        }
    }

    /// Whether it is a matter of the control plane alone.
    fn of_control_plane(self) -> bool {
        matches!(self, Self::CrashApiServer | Self::CrashEtcd | Self::SlowEtcd)
    }
}

/// One injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its place in the list, from 0.
    pub number: usize,
    /// What is disturbed.
    pub verb: Verb,
    /// How.
    pub fault: Fault,
    /// Which host: 0 is the control plane.
    pub host: usize,
    /// When.
    pub boundary: Boundary,
    /// And how long after that, in milliseconds.
    pub delay: u64,
}

impl fmt::Display for Case {
    /// `kill-agent of w at "up c prepare ends" + 120 ms`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Up => "up",
            Verb::Mend => "mend",
            Verb::Down => "down",
        };
        let host = if self.host == 0 { "c" } else { "w" };
        write!(formatter, "{} of {host} at \"{verb} {}\"", self.fault.name(), self.boundary)?;
        if self.delay > 0 {
            write!(formatter, " + {} ms", self.delay)?;
        }
        Ok(())
    }
}

/// After so many kills at boundaries stands one of the other faults.
const KILLS_BETWEEN: usize = 2;

/// The cases of a seed. Every boundary of `up` and `down` gets a SIGKILL of the controller and one of the agent whose step
/// it is; between these stand all other faults in turn, at any boundary and at any moment after it.
pub fn cases(seed: u64) -> Vec<Case> {
    let mut chance = Chance::of(seed);
    let mut kills = Vec::new();
    for (verb, boundaries) in [(Verb::Up, boundary::up()), (Verb::Down, boundary::down())] {
        for boundary in boundaries {
            for fault in [Fault::KillController, Fault::KillAgent] {
                let host = boundary.host.unwrap_or_else(|| chance.below(2));
                kills.push(Case { number: 0, verb, fault, host, boundary, delay: 0 });
            }
        }
    }
    chance.shuffle(&mut kills);
    let mut cases = Vec::new();
    let mut turn = Vec::new();
    for (at, kill) in kills.into_iter().enumerate() {
        cases.push(kill);
        if turn.is_empty() {
            turn.extend(Fault::ALL);
            chance.shuffle(&mut turn);
        }
        if at % KILLS_BETWEEN == 0
            && let Some(fault) = turn.pop()
        {
            cases.push(anywhere(fault, &mut chance));
        }
    }
    for (number, case) in cases.iter_mut().enumerate() {
        case.number = number;
    }
    cases
}

/// A fault at any moment of any run.
fn anywhere(fault: Fault, chance: &mut Chance) -> Case {
    let verb = match chance.below(10) {
        0..6 => Verb::Up,
        6..8 => Verb::Mend,
        _ => Verb::Down,
    };
    let verb = match fault {
        // They are about what runs while others join.
        Fault::CrashApiServer | Fault::CrashEtcd | Fault::SlowEtcd if verb == Verb::Down => Verb::Up,
        _ => verb,
    };
    let boundaries = match verb {
        Verb::Up => boundary::up(),
        Verb::Mend => boundary::mend(),
        Verb::Down => boundary::down(),
    };
    let boundary = boundaries[chance.below(boundaries.len())];
    let host = if fault.of_control_plane() { 0 } else { boundary.host.unwrap_or_else(|| chance.below(2)) };
    Case { number: 0, verb, fault, host, boundary, delay: chance.next() % 1500 }
}
