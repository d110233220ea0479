//! The fault suite: a run is disturbed at a moment, then the same command must end green with nothing lost and nothing
//! doubled, and `down` must leave no trace.
//!
//! `make test-faults` goes through the whole list of a seed, on from where it was stopped (`SEED=7`, `COUNT=20` cases at
//! most, `SECONDS=600` at most, `ONLY=12` or `ONLY=disk-full` to choose); `make test` takes a few of it.

mod book;
mod boundary;
mod case;
mod chance;
mod delay;
mod ground;
mod inject;
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::book::{Book, Entry};
use self::case::{Case, Fault, Verb, cases};
use self::ground::{Ground, end, tail};
use self::inject::{Lasting, lasting};

/// The seed where none is given.
const SEED: u64 = 1;

/// How many cases `make test` takes.
const SAMPLE: usize = 3;

/// One direction of the way that takes 300 ms more.
const DELAY: Duration = Duration::from_millis(150);

/// What a person breaks on a worker, for `up` to have something to mend.
const DRIFT: &str = "rm /etc/cni/net.d/*; systemctl stop kubelet containerd; ip route flush 10.244.0.0/24";

/// Exit codes that no fault may lead to: a defect, a panic, a mistake of configuration.
const NEVER: &[i32] = &[70, 101, 2, 3];

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn faults_are_survived() {
    let seed = setting("FAULTS_SEED").map_or(SEED, |seed| seed.parse().expect("FAULTS_SEED is a number"));
    let count = match setting("FAULTS_COUNT").as_deref() {
        None => SAMPLE,
        Some("all") => usize::MAX,
        Some(count) => count.parse().expect("FAULTS_COUNT is a number, or `all`"),
    };
    let seconds = setting("FAULTS_SECONDS").map(|seconds| seconds.parse().expect("FAULTS_SECONDS is a number"));
    let only = setting("FAULTS_ONLY");
    let chosen = |case: &Case| match &only {
        None => true,
        Some(only) => match only.parse::<usize>() {
            Ok(number) => number == case.number,
            Err(_) => case.to_string().contains(only.as_str()),
        },
    };
    // A sample is taken anew each time, and leaves no table.
    let whole = setting("FAULTS_COUNT").is_some();
    let mut book = Book::open();
    let began = Instant::now();
    let mut ground = None;
    let mut failures = Vec::new();
    let todo = cases(seed).into_iter().filter(chosen);
    let todo = todo.filter(|case| !whole || only.is_some() || !book.has(seed, case)).take(count);
    for case in todo.collect::<Vec<_>>() {
        if seconds.is_some_and(|seconds| began.elapsed() > Duration::from_secs(seconds)) {
            break;
        }
        println!("seed {seed} case {}: {case}", case.number);
        let entry = try_out(seed, &case, &mut ground);
        println!("  {}, up again {:?} s, {:?}", entry.disturbed, entry.again, entry.failure);
        if let Some(failure) = &entry.failure {
            failures.push(format!("seed {seed} case {} ({case}): {failure}", case.number));
        }
        if whole {
            book.enter(entry).expect("the book can be written");
        }
    }
    if whole {
        book.write_table(seed).expect("the table can be written");
    }
    assert!(failures.is_empty(), "not survived (again with SEED and ONLY=number):\n\n{}", failures.join("\n\n"));
}

/// Tries a case on the ground, which is made where there is none and given up where a case failed.
fn try_out(seed: u64, case: &Case, ground: &mut Option<Ground>) -> Entry {
    let mut entry = Entry {
        seed,
        number: case.number,
        fault: case.fault.name().to_owned(),
        case: case.to_string(),
        injected: false,
        disturbed: String::new(),
        again: None,
        failure: None,
    };
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let ground = ground.get_or_insert_with(Ground::new);
        survive(case, ground, &mut entry)
    }));
    let failure = match tried {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())),
    };
    if failure.is_some() && setting("FAULTS_KEEP").is_none() {
        *ground = None;
    }
    entry.failure = failure;
    entry
}

fn survive(case: &Case, ground: &Ground, entry: &mut Entry) -> Result<(), String> {
    ground.begin();
    let host = ground.host(case.host);
    inject::prepare(case.fault, &ground.bed, host);
    let mut known = None;
    if case.verb != Verb::Up {
        let up = ground.run("up");
        if up.code != 0 {
            return Err(format!("the first up: {}", tail(&up)));
        }
        known = Some(verdict::mark(ground)?);
    }
    if case.verb == Verb::Mend {
        ground.bed.try_sh(ground.host(1), DRIFT);
    }
    disturb(case, ground, entry)?;
    let authority = verdict::authority(ground);
    entry.again = Some(verdict::whole(ground)?);
    if case.verb != Verb::Down {
        let now = verdict::authority(ground);
        if let Some(lost) = authority.lines().find(|line| !now.contains(*line)) {
            return Err(format!("made again: {lost}"));
        }
    }
    if let Some(known) = known.filter(|_| case.verb == Verb::Mend) {
        let now = verdict::identity(ground)?;
        if now != known {
            return Err(format!("it was {known:?} and is {now:?}"));
        }
    }
    let down = ground.run("down");
    if down.code != 0 {
        return Err(format!("down: {}", tail(&down)));
    }
    inject::clear(case.fault, &ground.bed, host);
    ground.nothing_is_left()
}

/// The run with its fault, to its end; then the fault is taken away.
fn disturb(case: &Case, ground: &Ground, entry: &mut Entry) -> Result<(), String> {
    let host = ground.host(case.host);
    if case.fault == Fault::Latency {
        ground.detour(case.host, DELAY);
    }
    let (mut run, lines) = ground.start(if case.verb == Verb::Down { "down" } else { "up" });
    entry.injected = ground.reach(&lines, &case.boundary)?;
    let mut meanwhile = None;
    if entry.injected {
        std::thread::park_timeout(Duration::from_millis(case.delay));
        inject::inject(case.fault, &ground.bed, host, &run);
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
    ground.keep("disturbed", &finished);
    entry.disturbed = format!("{how} with {}", finished.code);
    if entry.injected && lasting(case.fault) == Lasting::Run {
        inject::lift(case.fault, &ground.bed, host);
    }
    if case.fault == Fault::Latency {
        ground.straight();
    }
    if NEVER.contains(&finished.code) {
        return Err(format!("the disturbed run: {}", tail(&finished)));
    }
    match meanwhile {
        // The first may have ended just before.
        Some(other) if ![0, 12].contains(&other.code) => Err(format!("the other run: {}", tail(&other))),
        Some(other) if other.code == 12 && finished.code != 0 => {
            Err(format!("the run that another one met: {}", tail(&finished)))
        }
        _ => Ok(()),
    }
}
