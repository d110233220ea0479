//! The consumer of events: one task that follows a run from its first event to its end.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc::UnboundedReceiver, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::experience::Experience;
use super::run::Run;
use super::screen::Screen;
use super::{Output, json, plain};
use crate::event::{Event, StepId, What};

/// How often the moving lines are drawn.
const FRAME: Duration = Duration::from_millis(100);
/// How often the progress of one step is written as JSON.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// How many events are taken in between two looks at the clock.
const BATCH: usize = 1024;

/// A run being shown. End it with [`Display::finish`]; when dropped, it ends by itself.
#[derive(Debug)]
pub struct Display {
    end: oneshot::Sender<()>,
    task: JoinHandle<Run>,
}

impl Screen {
    /// Begins to show a run. Must be called inside the tokio runtime.
    pub fn start(&self, events: UnboundedReceiver<Event>) -> Display {
        let (end, ended) = oneshot::channel();
        let screen = self.clone();
        let runtime = tokio::runtime::Handle::current();
        // On a thread where blocking is allowed: a terminal or pipe that nobody reads must not hold up the work.
        let task = tokio::task::spawn_blocking(move || runtime.block_on(follow(screen, events, ended)));
        Display { end, task }
    }
}

impl Display {
    /// Shows what has been sent until now, takes the moving lines away and tells what is known of the run. Senders may
    /// still be alive; what they send later is not shown.
    pub async fn finish(self) -> Run {
        let _ = self.end.send(());
        self.task.await.unwrap_or_default()
    }
}

async fn follow(screen: Screen, mut events: UnboundedReceiver<Event>, mut ended: oneshot::Receiver<()>) -> Run {
    let run = Run { experience: Experience::load(), ..Run::default() };
    let mut shown = Shown { screen, run, started: Instant::now(), told: Duration::ZERO, written: HashMap::new() };
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            received = events.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    break;
                }
                batch.drain(..).for_each(|event| shown.take(&event));
            }
            _ = frames.tick() => shown.frame(),
            _ = &mut ended => {
                while let Ok(event) = events.try_recv() {
                    shown.take(&event);
                }
                break;
            }
        }
    }
    shown.screen.clear();
    let mut experience = shown.run.experience.clone();
    experience.learn(&shown.run);
    if experience != shown.run.experience {
        experience.keep();
    }
    shown.run
}

struct Shown {
    screen: Screen,
    run: Run,
    started: Instant,
    /// When steps that take long were last spoken of.
    told: Duration,
    /// When the progress of a step was last written as JSON, by host and step.
    written: HashMap<(Option<String>, StepId), Duration>,
}

impl Shown {
    /// Whether a program wants to know: of progress only what is new since a while, and the end of it.
    fn is_worth_a_line(&mut self, event: &Event) -> bool {
        let What::StepProgressed { step, done, total, .. } = &event.what else { return true };
        let at = self.started.elapsed();
        let key = (event.host.clone(), step.clone());
        let before = self.written.get(&key);
        if done < total && before.is_some_and(|before| at.saturating_sub(*before) < PROGRESS_PERIOD) {
            return false;
        }
        self.written.insert(key, at);
        true
    }

    fn take(&mut self, event: &Event) {
        let worth_a_line = self.is_worth_a_line(event);
        if worth_a_line {
            self.screen.log(|| json::event(event, SystemTime::now()));
        }
        if self.screen.settings().output == Output::Json {
            if !worth_a_line {
                return;
            }
            self.screen.emit(&json::event(event, SystemTime::now()));
        } else if let Some(line) = plain::line(event, &self.run, self.screen.settings(), self.screen.look()) {
            self.screen.line(&line);
        }
        self.run.record(event, self.started.elapsed());
    }

    fn frame(&mut self) {
        let at = self.started.elapsed();
        let (settings, look) = (self.screen.settings(), self.screen.look());
        if look.live && self.run.ended.is_none() {
            self.screen.draw(&self.run, at);
        } else if settings.output == Output::Human && !settings.quiet && !look.live {
            for line in plain::patience(&self.run, self.told, at, look) {
                self.screen.line(&line);
            }
            self.told = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Events, What};
    use crate::ui::{Screen, Settings};

    #[tokio::test]
    async fn finish_returns_when_senders_are_still_alive() {
        let screen = Screen::new(Settings { quiet: true, ..Settings::default() });
        let (events, receiver) = Events::channel();
        let display = screen.start(receiver);
        let hosts = vec!["cp1".to_owned()];
        events.send(What::RunStarted { verb: "up".to_owned(), cluster: "demo".to_owned(), hosts });
        events.of_host("cp1").step("prepare", "Prepare the host").finish();
        let run = display.finish().await;
        assert_eq!(run.hosts.len(), 1);
        assert_eq!(run.hosts[0].done.len(), 1);
        drop(events);
    }
}
