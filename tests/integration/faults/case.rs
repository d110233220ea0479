//! What is done to which run and when: a list that a seed makes, always the same.

use std::fmt;

use crate::faults::boundary::{self, Boundary, Second};
use crate::faults::chance::Chance;

/// The run that is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `up` on bare hosts, or on what a run left that was disturbed before; `up` goes on from there.
    Up,
    /// `up` on a whole cluster, or on one whose worker has drifted; `up` is judged after each.
    Mend,
    /// `down` of a whole cluster, or of what a disturbed one left; `up` goes on from there.
    Down,
    /// The same; `down` goes on from there.
    Leave,
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
    /// The host's clock jumps three minutes ahead, and back when the run has ended.
    ClockForward,
    /// The host's clock jumps an hour back, and ahead again when the run has ended.
    ClockBack,
}

impl Fault {
    /// The kinds that every series of [`ROUNDS`] may get.
    const ALL: [Self; 21] = [
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

    /// The kinds that have series of their own.
    const CLOCKS: [Self; 2] = [Self::ClockForward, Self::ClockBack];

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
            Self::ClockForward => "clock-forward",
            Self::ClockBack => "clock-back",
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
    /// The series that it is part of, from 0.
    pub series: usize,
    /// What is disturbed.
    pub verb: Verb,
    /// How.
    pub fault: Fault,
    /// What the second host is.
    pub second: Second,
    /// Which host: 0 is the control plane.
    pub host: usize,
    /// When.
    pub boundary: Boundary,
    /// And how long after that, in milliseconds.
    pub delay: u64,
}

impl Case {
    /// Whether the worker drifts before: an `up` that has nothing to do is over before a fault at any moment can meet it, and
    /// has no steps of the worker. Of the kills at a boundary half.
    pub fn needs_drift(&self) -> bool {
        let of_worker = self.boundary.host == Some(1);
        self.verb == Verb::Mend && (self.delay > 0 || of_worker || self.number.is_multiple_of(2))
    }
}

impl fmt::Display for Case {
    /// `kill-agent of w at "up c prepare ends" + 120 ms`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Up => "up",
            Verb::Mend => "mend",
            Verb::Down => "down",
            Verb::Leave => "leave",
        };
        let (host, boundary) = (self.second.called(self.host), self.boundary.words(self.second));
        write!(formatter, "{} of {host} at \"{verb} {boundary}\"", self.fault.name())?;
        if self.delay > 0 {
            write!(formatter, " + {} ms", self.delay)?;
        }
        Ok(())
    }
}

/// How many rounds of all kinds of fault there are beside the kills at boundaries, and what each round disturbs. (Half of the
/// last round's cases are followed by `up`, half by `down`.)
const ROUNDS: [Verb; 4] = [Verb::Up, Verb::Mend, Verb::Mend, Verb::Down];

/// What is disturbed in each series about clocks.
const CLOCK_ROUNDS: [Verb; 4] = [Verb::Up, Verb::Mend, Verb::Down, Verb::Leave];

/// What a cluster's own parts do while the worker joins it, and at which step of the worker.
const WHILE_JOINING: [(Fault, &str); 3] = [
    (Fault::CrashApiServer, "discovery"),
    (Fault::CrashApiServer, "kubelet-wait-bootstrap"),
    (Fault::SlowEtcd, "kubelet-wait-bootstrap"),
];

/// Faults that chance rarely has hit a run where they hurt: of which host, and at the beginning of which step of that host. Each
/// line is the life of one cluster.
const AIMED: [&[(Verb, Fault, usize, &str)]; 4] = [
    &[
        (Verb::Up, Fault::CrashContainerd, 0, "wait-control-plane"),
        (Verb::Up, Fault::KillHost, 1, "kubelet-wait-bootstrap"),
        (Verb::Mend, Fault::KillHost, 1, "prepare"),
        (Verb::Leave, Fault::KillHost, 1, "pods"),
    ],
    &[
        (Verb::Up, Fault::CrashContainerd, 1, "images"),
        (Verb::Up, Fault::SecondUp, 0, "controller-manager"),
        (Verb::Mend, Fault::KillController, 1, "ready-again"),
        (Verb::Mend, Fault::KillAgent, 1, "ready-again"),
        (Verb::Leave, Fault::CrashContainerd, 0, "pods"),
    ],
    &[
        (Verb::Up, Fault::LaptopVanishes, 1, "images"),
        (Verb::Up, Fault::DownMeanwhile, 0, "addons"),
        (Verb::Down, Fault::KillHost, 1, "restore"),
    ],
    &[
        (Verb::Up, Fault::CrashEtcd, 0, "upload-config"),
        (Verb::Up, Fault::CrashKubelet, 1, "kubelet-wait-bootstrap"),
        (Verb::Mend, Fault::SecondUp, 1, "turn"),
        (Verb::Leave, Fault::LaptopVanishes, 0, "restore"),
    ],
];

/// Over so many clusters the kills while a second control plane joins are spread: a step that was gone through does not come
/// again in the next run.
const TWINS: usize = 8;

/// One series for each kind of fault: every round gives each series one of them.
const SERIES: usize = Fault::ALL.len();

/// The cases of a seed, series by series. A series is the life of one cluster: runs of `up` from bare hosts on, each disturbed
/// further on than the one before; runs of `up` on the whole cluster; runs of `down` and back `up`; and runs of `down` to
/// the end. Over all series every boundary of `up` and `down` gets a SIGKILL of the controller and one of the agent whose
/// step it is, every boundary of an `up` on a whole cluster one of the two; and in each series stand four of the other
/// faults, at any boundary and at any moment after it. Behind these stands a series for each host and each way a clock can jump;
/// one for each host with the kills while it is judged before it joins; and one for each of [`WHILE_JOINING`]. [`TWINS`] are
/// clusters of two control planes, where every boundary that the second one adds gets both kills. The last are [`AIMED`].
pub fn series(seed: u64) -> Vec<Vec<Case>> {
    let mut chance = Chance::of(seed);
    let mut all: Vec<Vec<Case>> = vec![Vec::new(); SERIES];
    let kills = [
        // The control plane goes on when the worker's agent is killed, and the other way round. So half of the series are
        // about the steps of the one, half about those of the other.
        (Verb::Up, Fault::KillController, Some(1), 0..SERIES / 2),
        (Verb::Up, Fault::KillAgent, Some(1), 0..SERIES / 2),
        (Verb::Up, Fault::KillController, Some(0), SERIES / 2..SERIES),
        (Verb::Up, Fault::KillAgent, Some(0), SERIES / 2..SERIES),
        (Verb::Down, Fault::KillController, None, 0..SERIES),
        (Verb::Leave, Fault::KillAgent, Some(1), 0..SERIES / 2),
        (Verb::Leave, Fault::KillAgent, Some(0), SERIES / 2..SERIES),
    ];
    for (verb, fault, host, places) in kills {
        let boundaries = boundaries(verb).into_iter();
        let cases = boundaries.filter_map(|boundary| kill(verb, fault, host, boundary, &mut chance));
        let mut cases: Vec<Case> = cases.collect();
        deal(&mut cases, places, &mut all, &mut chance);
    }
    let mut mends: Vec<Case> = boundary::mend()
        .into_iter()
        .map(|boundary| {
            let fault = [Fault::KillController, Fault::KillAgent][chance.below(2)];
            let host = boundary.host.unwrap_or_else(|| chance.below(2));
            at(Verb::Mend, fault, host, boundary, 0)
        })
        .collect();
    deal(&mut mends, 0..SERIES, &mut all, &mut chance);
    for verb in ROUNDS {
        for (at, fault) in round(&all, &mut chance).into_iter().enumerate() {
            let verb = if verb == Verb::Down && at.is_multiple_of(2) { Verb::Leave } else { verb };
            all[at].push(anywhere(verb, fault, &mut chance));
        }
    }
    for (host, fault) in [0, 1].into_iter().flat_map(|host| Fault::CLOCKS.map(|fault| (host, fault))) {
        all.push(CLOCK_ROUNDS.into_iter().map(|verb| at_host(verb, fault, host, &mut chance)).collect());
    }
    for own in [0, 1] {
        let of_host = boundary::trial().into_iter().filter(|boundary| boundary.host == Some(own));
        let kills = of_host.flat_map(|boundary| {
            [Fault::KillController, Fault::KillAgent].map(|fault| at(Verb::Up, fault, own, boundary, 0))
        });
        all.push(kills.collect());
    }
    for (fault, step) in WHILE_JOINING {
        let boundary = Boundary { host: Some(1), step, ends: false };
        all.push(vec![at(Verb::Up, fault, 0, boundary, chance.next() % 500)]);
    }
    all.extend(twins(&mut chance));
    all.extend(AIMED.map(|life| {
        let aimed = life.iter().map(|&(verb, fault, host, step)| {
            at(verb, fault, host, Boundary { host: Some(host), step, ends: false }, 0)
        });
        aimed.collect()
    }));
    let mut number = 0;
    for (series, cases) in all.iter_mut().enumerate() {
        cases.sort_by_key(place);
        for case in cases {
            (case.number, case.series) = (number, series);
            number += 1;
        }
    }
    all
}

/// The kills while a second control plane joins, series by series.
fn twins(chance: &mut Chance) -> Vec<Vec<Case>> {
    let mut all = vec![Vec::new(); TWINS];
    let kills = boundary::twin().into_iter().flat_map(|boundary| {
        [Fault::KillController, Fault::KillAgent].map(|fault| Case {
            second: Second::ControlPlane,
            ..at(Verb::Up, fault, boundary.host.unwrap_or(0), boundary, 0)
        })
    });
    deal(&mut kills.collect::<Vec<_>>(), 0..TWINS, &mut all, chance);
    all
}

/// A fault of a host at a boundary, so many milliseconds later.
fn at(verb: Verb, fault: Fault, host: usize, boundary: Boundary, delay: u64) -> Case {
    Case { number: 0, series: 0, verb, fault, second: Second::Worker, host, boundary, delay }
}

/// The cases of a seed in order.
pub fn cases(seed: u64) -> Vec<Case> {
    series(seed).into_iter().flatten().collect()
}

fn boundaries(verb: Verb) -> Vec<Boundary> {
    match verb {
        Verb::Up => boundary::up(),
        Verb::Mend => boundary::mend(),
        Verb::Down | Verb::Leave => boundary::down(),
    }
}

/// A kill at a boundary, where it belongs to the host (of the whole run's steps the host is chosen).
fn kill(verb: Verb, fault: Fault, host: Option<usize>, boundary: Boundary, chance: &mut Chance) -> Option<Case> {
    let own = match (host, boundary.host) {
        (None, own) => own.unwrap_or_else(|| chance.below(2)),
        (Some(host), None) => host,
        (Some(host), Some(own)) if host == own => own,
        _ => return None,
    };
    Some(at(verb, fault, own, boundary, 0))
}

/// Gives the series of a range their shares.
fn deal(cases: &mut [Case], places: std::ops::Range<usize>, all: &mut [Vec<Case>], chance: &mut Chance) {
    chance.shuffle(cases);
    for (at, case) in cases.iter().enumerate() {
        all[places.start + at % places.len()].push(case.clone());
    }
}

/// All kinds of fault in an order in which no series gets both a full disk and a loss of power: the disk that can be full
/// lies in memory.
fn round(all: &[Vec<Case>], chance: &mut Chance) -> Vec<Fault> {
    let mut faults = Fault::ALL.to_vec();
    loop {
        chance.shuffle(&mut faults);
        let clash = |(at, fault): (usize, &Fault)| {
            let has = |other: Fault| all[at].iter().any(|case| case.fault == other);
            *fault == Fault::DiskFull && has(Fault::KillHost) || *fault == Fault::KillHost && has(Fault::DiskFull)
        };
        if !faults.iter().enumerate().any(clash) {
            return faults;
        }
    }
}

/// Where a case stands in its series: kills as time goes (while a cluster is taken away first those that stop the whole run),
/// then a fault that lets the run go on.
fn place(case: &Case) -> (usize, usize, usize) {
    let verb = [Verb::Up, Verb::Mend, Verb::Down, Verb::Leave].iter().position(|verb| *verb == case.verb);
    let part = match (case.fault, case.verb) {
        (Fault::KillController, _) | (Fault::KillAgent, Verb::Up) => 0,
        (Fault::KillAgent, _) => 1,
        _ => 2,
    };
    let steps = if case.second == Second::ControlPlane { boundary::twin() } else { boundaries(case.verb) };
    let time = steps.iter().position(|boundary| *boundary == case.boundary);
    (verb.unwrap_or(0), part, time.unwrap_or(0))
}

/// A fault of a certain host at any moment that is about this host, or about the whole run.
fn at_host(verb: Verb, fault: Fault, host: usize, chance: &mut Chance) -> Case {
    let mut boundaries = boundaries(verb);
    boundaries.retain(|boundary| boundary.host.is_none_or(|own| own == host));
    let boundary = boundaries[chance.below(boundaries.len())];
    at(verb, fault, host, boundary, chance.next() % 1500)
}

/// A fault at any moment of a run.
fn anywhere(verb: Verb, fault: Fault, chance: &mut Chance) -> Case {
    let verb = match (fault, verb) {
        // They are about what runs while others join.
        (Fault::CrashApiServer | Fault::CrashEtcd | Fault::SlowEtcd, Verb::Down | Verb::Leave) => Verb::Mend,
        _ => verb,
    };
    let boundaries = boundaries(verb);
    let boundary = boundaries[chance.below(boundaries.len())];
    let host = if fault.of_control_plane() { 0 } else { boundary.host.unwrap_or_else(|| chance.below(2)) };
    at(verb, fault, host, boundary, chance.next() % 1500)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the first seed stand in tests/faults.md: what is added comes behind them.
    #[test]
    fn what_is_added_comes_behind_the_cases_of_a_seed() {
        let all = cases(1);
        let text = |number: usize| all[number].to_string();
        assert_eq!(all.len(), 425);
        assert_eq!(text(0), "kill-agent of w at \"up w files ends\"");
        assert_eq!(text(6), "cut-shortly of c at \"up c bootstrap-token ends\" + 309 ms");
        assert_eq!(text(15), "cut-inwards of w at \"leave w files begins\" + 1173 ms");
        assert_eq!(text(309), "loss-10-percent of c at \"leave c files begins\" + 761 ms");
        assert!(text(345).contains(" of c") && all[345..409].iter().all(|case| case.second == Second::ControlPlane));
        assert_eq!(text(409), "crash-containerd of c at \"up c wait-control-plane begins\"");
        assert!(all[..345].iter().chain(&all[409..]).all(|case| case.second == Second::Worker));
        assert!(all.iter().enumerate().all(|(at, case)| case.number == at));
    }

    /// Both hosts get both jumps, in every kind of run, at moments of their own.
    #[test]
    fn clocks_of_both_hosts_jump_both_ways() {
        for seed in [1, 7] {
            let about_clocks: Vec<Case> = series(seed).into_iter().skip(SERIES).take(4).flatten().collect();
            assert_eq!(about_clocks.len(), 16);
            for (host, fault) in
                [(0, Fault::ClockForward), (0, Fault::ClockBack), (1, Fault::ClockForward), (1, Fault::ClockBack)]
            {
                let own = about_clocks.iter().filter(|case| (case.host, case.fault) == (host, fault));
                let verbs: Vec<Verb> = own.map(|case| case.verb).collect();
                assert_eq!(verbs, CLOCK_ROUNDS);
            }
            assert!(about_clocks.iter().all(|case| case.boundary.host.is_none_or(|own| own == case.host)));
            let others = cases(seed).into_iter().take(310);
            assert!(others.into_iter().all(|case| !Fault::CLOCKS.contains(&case.fault)));
        }
    }
}
