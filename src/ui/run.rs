//! What is known of a run from its events so far: the state behind every screen, without a clock of its own.

use std::collections::VecDeque;
use std::time::Duration;

use super::experience::Experience;
use crate::event::{Event, StepId, Unit, What};
use crate::failure::{Failure, Kind};

/// How far back the rate of progress looks.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// A run as its events tell it. Times are counted from the run's start.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The verb: `up`.
    pub verb: String,
    /// The cluster's name.
    pub cluster: String,
    /// One lane per host, in inventory order.
    pub hosts: Vec<Lane>,
    /// What concerns no single host.
    pub whole: Lane,
    /// Set by the last event of the run.
    pub ended: Option<Ended>,
    /// What past runs of this verb teach about the time that is left.
    pub experience: Experience,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How long it took.
    pub took: Duration,
    /// How many things were altered on all hosts.
    pub changes: u32,
    /// Why hosts did not finish.
    pub failed: Vec<Failure>,
}

/// One host's way through the run.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// The host's inventory name; empty for the whole run.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Steps under way, oldest first.
    pub open: Vec<Open>,
    /// Steps that ended well.
    pub done: Vec<Done>,
    /// How many things were altered.
    pub changes: u32,
    /// When the first step began.
    pub began: Option<Duration>,
    /// When the lane came to its end.
    pub ended: Option<Duration>,
}

/// Where a host stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing happened yet.
    #[default]
    Waiting,
    /// Steps are under way, or between two.
    Working,
    /// At its end, in a word: `ready`.
    Finished(String),
    /// At a bad end, in a sentence.
    Failed(String),
}

/// A step under way.
#[derive(Debug, Clone)]
pub struct Open {
    /// Its id.
    pub id: StepId,
    /// What a person reads.
    pub title: String,
    /// When it began.
    pub began: Duration,
    /// How far it is, if that is known.
    pub progress: Option<Progress>,
}

/// How far a step is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// Of what.
    pub unit: Unit,
    /// What is in hand.
    pub item: Option<String>,
    /// Earlier values, oldest first, to measure the rate by.
    samples: VecDeque<(Duration, u64)>,
}

/// A step that ended well.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its id.
    pub id: StepId,
    /// What a person reads.
    pub title: String,
    /// How many things it altered.
    pub changes: u32,
    /// When it ended.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
}

impl Progress {
    /// Units per second over the last seconds, or `None` before there is something to go by.
    pub fn rate(&self, at: Duration) -> Option<f64> {
        let (oldest_at, oldest) = *self.samples.front()?;
        let seconds = at.saturating_sub(oldest_at).as_secs_f64();
        (seconds >= 0.5).then(|| self.done.saturating_sub(oldest) as f64 / seconds)
    }

    /// How long the rest takes at the present rate.
    pub fn left(&self, at: Duration) -> Option<Duration> {
        let rate = self.rate(at).filter(|rate| *rate > 0.0)?;
        let seconds = self.total.saturating_sub(self.done) as f64 / rate;
        (seconds < 360_000.0).then(|| Duration::from_secs_f64(seconds))
    }

    /// The part done, from 0 to 1.
    pub fn part(&self) -> f64 {
        if self.total == 0 { 1.0 } else { (self.done as f64 / self.total as f64).min(1.0) }
    }

    fn sample(&mut self, at: Duration) {
        while self.samples.len() > 1
            && self.samples.get(1).is_some_and(|(next, _)| at.saturating_sub(*next) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        let fresh = self.samples.back().is_some_and(|(last, _)| at.saturating_sub(*last) < Duration::from_millis(200));
        if !fresh {
            self.samples.push_back((at, self.done));
        }
    }
}

impl Lane {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The step a person should see: the youngest that shows progress, else the youngest.
    pub fn shown(&self) -> Option<&Open> {
        self.open.iter().rev().find(|step| step.progress.is_some()).or(self.open.last())
    }

    /// How long the lane has been going, or went.
    pub fn took(&self, at: Duration) -> Duration {
        self.began.map_or(Duration::ZERO, |began| self.ended.unwrap_or(at).saturating_sub(began))
    }

    fn record(&mut self, what: &What, at: Duration) {
        match what {
            What::StepStarted { step, title } => {
                self.began.get_or_insert(at);
                self.ended = None;
                self.state = State::Working;
                self.open.retain(|open| open.id != *step);
                self.open.push(Open { id: step.clone(), title: title.clone(), began: at, progress: None });
            }
            What::StepProgressed { step, done, total, unit, item } => {
                if let Some(open) = self.open.iter_mut().find(|open| open.id == *step) {
                    let mut progress = match open.progress.take() {
                        // A new total is a new job inside the step: its rate begins anew.
                        Some(before) if before.total == *total && before.done <= *done => before,
                        _ => Progress { done: *done, total: *total, unit: *unit, item: None, samples: VecDeque::new() },
                    };
                    progress.done = *done;
                    progress.item.clone_from(item);
                    progress.sample(at);
                    open.progress = Some(progress);
                }
            }
            What::StepFinished { step, changes, milliseconds } => {
                self.changes = self.changes.saturating_add(*changes);
                let title = match self.open.iter().position(|open| open.id == *step) {
                    Some(position) => self.open.remove(position).title,
                    None => step.0.clone(),
                };
                let took = Duration::from_millis(*milliseconds);
                self.done.push(Done { id: step.clone(), title, changes: *changes, at, took });
            }
            What::StepFailed { step, failure } => {
                self.open.retain(|open| open.id != *step);
                self.state = State::Failed(failure.sentence.clone());
                self.ended = Some(at);
            }
            What::HostFinished { state } => {
                self.open.clear();
                self.state = State::Finished(state.clone());
                self.began.get_or_insert(at);
                self.ended = Some(at);
            }
            What::RunStarted { .. }
            | What::Changed { .. }
            | What::Warned { .. }
            | What::Differs { .. }
            | What::Said { .. }
            | What::RunFinished { .. } => {}
        }
    }
}

impl Run {
    /// Takes one event in.
    pub fn record(&mut self, event: &Event, at: Duration) {
        match &event.what {
            What::RunStarted { verb, cluster, hosts } => {
                self.verb.clone_from(verb);
                self.cluster.clone_from(cluster);
                self.hosts = hosts.iter().map(|host| Lane::named(host)).collect();
            }
            What::RunFinished { milliseconds, changes, failed } => {
                self.end(failed, at);
                let took = Duration::from_millis(*milliseconds);
                self.ended = Some(Ended { took, changes: *changes, failed: failed.clone() });
            }
            what => self.lane(event.host.as_deref()).record(what, at),
        }
    }

    fn lane(&mut self, host: Option<&str>) -> &mut Lane {
        let Some(name) = host else { return &mut self.whole };
        let position = self.hosts.iter().position(|lane| lane.name == name).unwrap_or_else(|| {
            self.hosts.push(Lane::named(name));
            self.hosts.len() - 1
        });
        &mut self.hosts[position]
    }

    /// At the end every host is somewhere: failed, or where the verb wants it if nothing failed as a whole.
    fn end(&mut self, failed: &[Failure], at: Duration) {
        let word = match self.verb.as_str() {
            _ if failed.iter().any(|failure| failure.host.is_none()) => "done",
            "up" => "ready",
            "down" => "given back",
            _ => "done",
        };
        for lane in &mut self.hosts {
            if let Some(failure) = failed.iter().find(|failure| failure.host.as_deref() == Some(&lane.name)) {
                lane.state = State::Failed(failure.sentence.clone());
            } else if lane.state == State::Working {
                lane.state = State::Finished(word.to_owned());
            }
            lane.open.clear();
            lane.ended.get_or_insert(at);
        }
    }

    /// How many hosts are finished, failed and waiting.
    pub fn counts(&self) -> Counts {
        let count = |of: fn(&State) -> bool| self.hosts.iter().filter(|lane| of(&lane.state)).count();
        Counts {
            finished: count(|state| matches!(state, State::Finished(_))),
            failed: count(|state| matches!(state, State::Failed(_))),
            waiting: count(|state| *state == State::Waiting),
            working: count(|state| *state == State::Working),
        }
    }

    /// The title of a step of a host: what it was called when it began.
    pub fn title(&self, host: Option<&str>, step: &StepId) -> String {
        let lane = match host {
            Some(name) => self.hosts.iter().find(|lane| lane.name == name),
            None => Some(&self.whole),
        };
        let open = lane.and_then(|lane| lane.open.iter().find(|open| open.id == *step));
        open.map_or_else(|| step.0.clone(), |open| open.title.clone())
    }

    /// The kind of the worst failure, which decides the exit code.
    pub fn worst(&self) -> Option<Kind> {
        self.ended.as_ref()?.failed.iter().map(|failure| failure.kind).max()
    }
}

/// How many hosts are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// At a good end.
    pub finished: usize,
    /// At a bad end.
    pub failed: usize,
    /// Nothing happened yet.
    pub waiting: usize,
    /// Steps under way.
    pub working: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::rehearsal;

    fn after(seconds: f64) -> Run {
        let mut run = Run::default();
        let at = Duration::from_secs_f64(seconds);
        for (when, event) in rehearsal::small().iter().filter(|(when, _)| *when <= at) {
            run.record(event, *when);
        }
        run
    }

    #[test]
    fn lanes_follow_their_events() {
        assert_eq!(after(0.0).counts(), Counts { waiting: 3, ..Counts::default() });
        let run = after(5.0);
        assert_eq!(run.counts(), Counts { working: 2, failed: 1, ..Counts::default() });
        let run = after(60.0);
        assert_eq!(run.counts(), Counts { finished: 2, failed: 1, ..Counts::default() });
        assert_eq!(run.worst(), Some(Kind::Connection));
    }

    #[test]
    fn the_rate_looks_back_a_few_seconds_and_falls_when_nothing_moves() {
        let mut lane = Lane::named("w1");
        let seconds = Duration::from_secs;
        lane.record(&What::StepStarted { step: "images".into(), title: "Import images".to_owned() }, seconds(0));
        for second in 0..=20_u64 {
            let what = What::StepProgressed {
                step: "images".into(),
                done: second * 10_000_000,
                total: 400_000_000,
                unit: Unit::Bytes,
                item: None,
            };
            lane.record(&what, seconds(second));
        }
        let progress = lane.shown().and_then(|open| open.progress.clone()).expect("progress is known");
        assert_eq!(progress.rate(seconds(20)).map(f64::round), Some(10_000_000.0));
        assert_eq!(progress.left(seconds(20)), Some(seconds(20)));
        assert!(progress.rate(seconds(40)).is_some_and(|rate| rate < 3_000_000.0));
        assert!(progress.samples.len() < 10);
    }
}
