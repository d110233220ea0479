//! The fault suite: runs are disturbed at a moment, then the same command must end green with nothing lost and nothing
//! doubled, and `down` must leave no trace.
//!
//! `make test-faults` goes through the whole list of a seed, on from where it was stopped (`SEED=7`, `COUNT=2` series at
//! most, `SECONDS=600` to begin another one at most, `ONLY=12,200` or `ONLY=disk-full` to choose cases); `make test` takes the
//! beginning of a series.

mod book;
mod boundary;
mod case;
mod chance;
pub mod delay;
mod ground;
mod inject;
mod verdict;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use self::book::{Book, Entry};
use self::boundary::Second;
use self::case::{Case, Fault, Verb, series};
use self::ground::{Ground, end, tail};
use self::inject::{Lasting, lasting};
use self::verdict::Identity;
use crate::program::{call, clusterctl};

/// The seed where none is given.
const SEED: u64 = 1;

/// The cases that `make test` takes: kills while a cluster is made, on the whole one, and while it is taken away.
const SAMPLE: [(Verb, usize); 3] = [(Verb::Up, 3), (Verb::Mend, 1), (Verb::Leave, 1)];

/// So many clusters live side by side: much of a disturbed run is waiting.
const AT_ONCE: usize = 3;

/// One direction of the way that takes 300 ms more.
const DELAY: Duration = Duration::from_millis(150);

/// What a person breaks on a worker, for `up` to have something to mend.
const DRIFT: &str = "rm /etc/cni/net.d/*; systemctl stop kubelet containerd; ip route flush 10.244.0.0/24";

/// Exit codes that no fault may lead to: a defect, a panic, a mistake of configuration.
const NEVER: &[i32] = &[70, 101, 2, 3];

/// The code of a run that SIGKILL ended.
const KILLED: i32 = 128 + 9;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn faults_are_survived() {
    let seed = setting("FAULTS_SEED").map_or(SEED, |seed| seed.parse().expect("FAULTS_SEED is a number"));
    println!("seed {seed}");
    let all = series(seed);
    let Some(count) = setting("FAULTS_COUNT") else {
        let failures = Life::of(&sample(&all[0])).entries.into_iter().filter_map(|entry| entry.failure);
        let failures: Vec<String> = failures.collect();
        assert!(failures.is_empty(), "not survived:\n\n{}", failures.join("\n\n"));
        return;
    };
    let count = if count == "all" { usize::MAX } else { count.parse().expect("FAULTS_COUNT is a number, or `all`") };
    let seconds = setting("FAULTS_SECONDS").map(|seconds| seconds.parse().expect("FAULTS_SECONDS is a number"));
    let book = Book::open();
    let todo: Vec<Vec<Case>> = match setting("FAULTS_ONLY") {
        // Each by itself.
        Some(only) => {
            let chosen = |case: &Case| {
                only.split(',').any(|only| match only.parse::<usize>() {
                    Ok(number) => number == case.number,
                    Err(_) => case.to_string().contains(only),
                })
            };
            all.into_iter().flatten().filter(chosen).map(|case| vec![case]).collect()
        }
        None => {
            let mut todo: Vec<_> =
                all.into_iter().filter(|cases| !cases.iter().all(|case| book.has(seed, case))).collect();
            // What was never tried comes before what was not survived.
            todo.sort_by_key(|cases| cases.iter().any(|case| book.was_tried(seed, case)));
            todo
        }
    };
    let began = Instant::now();
    let program = sum_of_program();
    let todo = Mutex::new(todo.into_iter().take(count));
    let found = Mutex::new((book, Vec::new()));
    let one_after_another = || {
        while seconds.is_none_or(|seconds| began.elapsed() < Duration::from_secs(seconds)) {
            let Some(cases) = todo.lock().unwrap().next() else { return };
            let life = Life::of(&cases);
            let (book, failures) = &mut *found.lock().unwrap();
            for entry in life.entries {
                if let Some(failure) = &entry.failure {
                    failures.push(format!("seed {seed} case {} ({}): {failure}", entry.number, entry.case));
                }
                book.enter(Entry { seed, program: program.clone(), ..entry }).expect("the book can be written");
            }
            book.write_table(seed).expect("the table can be written");
        }
    };
    std::thread::scope(|scope| {
        (0..AT_ONCE).for_each(|_| drop(scope.spawn(one_after_another)));
    });
    let failures = found.into_inner().unwrap().1;
    assert!(failures.is_empty(), "not survived (again with SEED and ONLY=number):\n\n{}", failures.join("\n\n"));
}

/// The beginning of the program's SHA-256.
fn sum_of_program() -> String {
    let sum = call(Path::new("sha256sum"), &[clusterctl().to_str().unwrap()], &[]);
    sum.stdout.chars().take(12).collect()
}

/// The first kills of a series.
fn sample(cases: &[Case]) -> Vec<Case> {
    let kills = |verb: Verb| {
        let kinds = [Fault::KillController, Fault::KillAgent];
        cases.iter().filter(move |case| case.verb == verb && kinds.contains(&case.fault))
    };
    SAMPLE.into_iter().flat_map(|(verb, count)| kills(verb).take(count)).cloned().collect()
}

/// The life of a cluster, from bare hosts to bare hosts.
struct Life {
    /// Its series.
    number: usize,
    ground: Ground,
    /// What came of the cases so far.
    entries: Vec<Entry>,
    /// How many of them, the last ones, wait for their verdict.
    open: usize,
    /// What the cluster is known by, where it was judged and is expected to last.
    known: Option<Identity>,
    /// The authority of the cluster, where it is expected to last.
    authority: String,
    /// Whether nothing disturbed the cluster since it was judged.
    is_whole: bool,
    /// What lasts until the next verdict, and the host it was done to.
    lingering: Vec<(Fault, usize)>,
}

impl Life {
    /// Lives through a series. The cases after one that failed are not tried.
    fn of(cases: &[Case]) -> Self {
        let (number, second) = cases.first().map_or((0, Second::Worker), |case| (case.series, case.second));
        let mut life = Self {
            number,
            ground: Ground::new(number, second),
            entries: Vec::new(),
            open: 0,
            known: None,
            authority: String::new(),
            is_whole: false,
            lingering: Vec::new(),
        };
        let lived = catch_unwind(AssertUnwindSafe(|| life.live(cases)));
        let failure = match lived {
            Ok(Ok(())) => return life,
            Ok(Err(failure)) => failure,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned()),
        };
        println!("series {number}: {failure}");
        life.ground.autopsy();
        let first = life.entries.len() - life.open;
        for entry in &mut life.entries[first..] {
            entry.failure = Some(failure.clone());
        }
        if life.open == 0 {
            // Nobody's fault in particular: the last case stands for all.
            if let Some(last) = life.entries.last_mut() {
                last.failure = Some(failure);
            }
        }
        life
    }

    fn live(&mut self, cases: &[Case]) -> Result<(), String> {
        let host_of = |case: &Case| self.ground.host(case.host).to_owned();
        let prepared: BTreeSet<(Fault, String)> = cases.iter().map(|case| (case.fault, host_of(case))).collect();
        prepared.iter().for_each(|(fault, host)| inject::prepare(*fault, &self.ground.bed, host));
        let mut before = None;
        for case in cases {
            // Every kind of disturbance but that of `up` begins with a whole cluster.
            if case.verb == Verb::Mend || (case.verb != Verb::Up && before != Some(case.verb)) {
                self.judge()?;
            }
            before = Some(case.verb);
            self.disturb(case)?;
            if case.verb == Verb::Mend {
                self.judge()?;
            }
        }
        if before != Some(Verb::Leave) {
            self.judge()?;
        }
        let down = self.ground.run("down");
        if down.code != 0 {
            return Err(format!("down: {}", tail(&down)));
        }
        self.lift_lingering();
        prepared.iter().for_each(|(fault, host)| inject::clear(*fault, &self.ground.bed, host));
        self.ground.nothing_is_left()?;
        self.settle(None);
        Ok(())
    }

    fn lift_lingering(&mut self) {
        for (fault, host) in self.lingering.drain(..) {
            inject::lift(fault, &self.ground.bed, self.ground.host(host));
        }
    }

    /// The cases that waited are survived.
    fn settle(&mut self, again: Option<f64>) {
        let first = self.entries.len() - self.open;
        for entry in &mut self.entries[first..] {
            (entry.chain, entry.again) = (self.open, again);
        }
        self.open = 0;
    }

    /// `up` to its end, unless nothing happened since the last time; everything is there once, and what is known of the
    /// cluster is as it was.
    fn judge(&mut self) -> Result<(), String> {
        if self.is_whole {
            return Ok(());
        }
        let whole = verdict::whole(&self.ground)?;
        println!("series {}: up again in {:.1} s, whole", self.number, whole.again);
        self.check_authority()?;
        if let Some(known) = self.known.take().filter(|known| *known != whole.identity) {
            return Err(format!("it was {known:?} and is {:?}", whole.identity));
        }
        self.known = Some(whole.identity);
        self.is_whole = true;
        self.lift_lingering();
        self.settle(Some(whole.again));
        Ok(())
    }

    /// Keys that were there are there.
    fn check_authority(&mut self) -> Result<(), String> {
        let now = verdict::authority(&self.ground);
        if let Some(lost) = self.authority.lines().find(|line| !now.contains(*line)) {
            return Err(format!("made again: {lost}"));
        }
        self.authority = now;
        Ok(())
    }

    /// The cluster may be taken away.
    fn expect_nothing(&mut self) {
        self.known = None;
        self.authority.clear();
    }

    /// A run with its fault, to its end; then the fault is taken away.
    fn disturb(&mut self, case: &Case) -> Result<(), String> {
        self.entries.push(Entry {
            seed: 0,
            number: case.number,
            program: String::new(),
            fault: case.fault.name().to_owned(),
            case: case.to_string(),
            injected: false,
            disturbed: String::new(),
            again: None,
            chain: 0,
            failure: None,
        });
        self.open += 1;
        self.is_whole = false;
        let is_down = matches!(case.verb, Verb::Down | Verb::Leave);
        if is_down {
            self.expect_nothing();
        }
        if case.needs_drift() {
            self.ground.bed.try_sh(self.ground.host(1), DRIFT);
        }
        let Disturbed { injected, how, finished, meanwhile } = disturb(case, &self.ground, is_down)?;
        if injected && lasting(case.fault) == Lasting::Verdict {
            self.lingering.push((case.fault, case.host));
        }
        let moment = if injected { "" } else { ", missed" };
        println!("series {} case {}: {case}: {how} with {}{moment}", self.number, case.number, finished.code);
        if let Some(entry) = self.entries.last_mut() {
            (entry.injected, entry.disturbed) = (injected, format!("{how} with {}", finished.code));
        }
        if case.fault == Fault::DownMeanwhile && meanwhile.as_ref().is_some_and(|other| other.code != 12) {
            self.expect_nothing();
        }
        if how == ground::HUNG {
            return Err(format!("two Ctrl-C did not end the disturbed run: {}", tail(&finished)));
        }
        if NEVER.contains(&finished.code) {
            return Err(format!("the disturbed run: {}", tail(&finished)));
        }
        match meanwhile {
            // The first may have ended just before.
            Some(other) if ![0, 12].contains(&other.code) => return Err(format!("the other run: {}", tail(&other))),
            Some(other) if other.code == 12 && finished.code != 0 => {
                return Err(format!("the run that another one met: {}", tail(&finished)));
            }
            _ => {}
        }
        if is_down { Ok(()) } else { self.check_authority() }
    }
}

/// What came of a disturbed run.
struct Disturbed {
    injected: bool,
    how: &'static str,
    finished: crate::program::Finished,
    /// The run that was typed meanwhile.
    meanwhile: Option<crate::program::Finished>,
}

fn disturb(case: &Case, ground: &Ground, is_down: bool) -> Result<Disturbed, String> {
    let host = ground.host(case.host);
    if case.fault == Fault::Latency {
        ground.detour(case.host, DELAY);
    }
    let (mut run, lines) = ground.start(if is_down { "down" } else { "up" });
    let mut injected = false;
    let mut meanwhile = None;
    if ground.reach(&lines, &case.boundary)? && !run.ends_within(Duration::from_millis(case.delay)) {
        injected = inject::inject(case.fault, &ground.bed, host, &run);
        match (lasting(case.fault), case.fault) {
            (Lasting::For(time), _) => {
                std::thread::park_timeout(time);
                inject::lift(case.fault, &ground.bed, host);
            }
            (_, Fault::SecondUp) => meanwhile = Some(ground.run("up")),
            (_, Fault::DownMeanwhile) => meanwhile = Some(ground.run("down")),
            _ => {}
        }
    }
    let (finished, how) = end(&mut run);
    // One that ended in the same moment was not killed.
    injected &= !matches!(case.fault, Fault::KillController | Fault::LaptopVanishes) || finished.code == KILLED;
    ground.keep("disturbed", &format!("{case}\n{}", finished.stdout));
    if injected && lasting(case.fault) == Lasting::Run {
        inject::lift(case.fault, &ground.bed, host);
    }
    if case.fault == Fault::Latency {
        ground.straight();
    }
    Ok(Disturbed { injected, how, finished, meanwhile })
}
