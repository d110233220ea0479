//! What past runs teach about the time that is left: from the end of a step to the end of its run, for each verb.
//!
//! Kept in a small file of the user's cache folder. A file that cannot be read or written costs the estimate alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::run::{Lane, Run, State};
use crate::event::elapsed_milliseconds;
use crate::host::Host as _;
use crate::host::machine::Machine;

/// The file below the cache folder.
const FILE: &str = "clusterctl/experience.json";

/// No file is longer, in bytes.
const MAXIMUM_BYTES: u64 = 256 << 10;

/// How much a new run weighs beside what was known: half, so that a faster machine is believed after a few runs.
const NEW_PART: u64 = 2;

/// Milliseconds from the end of a step to the end of its run, by verb and step. A step that altered something is another one
/// than the same step that found nothing to do: a second `up` is over in a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experience {
    /// The verbs.
    pub verbs: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The name under which a step's time is kept.
fn key(step: &str, changes: u32) -> String {
    if changes == 0 { step.to_owned() } else { format!("{step}+") }
}

impl Experience {
    /// Takes in a run that ended well. Of hosts with the same step the one with most before it counts.
    pub fn learn(&mut self, run: &Run) {
        let Some(ended) = run.ended.as_ref().filter(|ended| ended.failed.is_empty()) else { return };
        let mut longest: BTreeMap<String, u64> = BTreeMap::new();
        for done in run.hosts.iter().flat_map(|lane| &lane.done) {
            let left = elapsed_milliseconds(ended.took.saturating_sub(done.at));
            let known = longest.entry(key(&done.id.0, done.changes)).or_default();
            *known = left.max(*known);
        }
        let verb = self.verbs.entry(run.verb.clone()).or_default();
        for (step, left) in longest {
            let known = verb.entry(step).or_insert(left);
            *known = (*known * (NEW_PART - 1) + left) / NEW_PART;
        }
    }

    /// How long a run will still take: by the host that has most before it.
    pub fn left(&self, run: &Run, at: Duration) -> Option<Duration> {
        let verb = self.verbs.get(&run.verb)?;
        let of = |lane: &Lane| {
            let last = lane.done.last().filter(|_| !matches!(lane.state, State::Failed(_)))?;
            let left = Duration::from_millis(*verb.get(&key(&last.id.0, last.changes))?);
            Some(left.saturating_sub(at.saturating_sub(last.at)))
        };
        run.hosts.iter().filter_map(of).max()
    }

    /// What is known from the file of this user.
    pub fn load() -> Self {
        path().map(|path| Self::read(&path)).unwrap_or_default()
    }

    fn read(path: &Path) -> Self {
        let small = std::fs::metadata(path).is_ok_and(|entry| entry.len() <= MAXIMUM_BYTES);
        let content = if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
        serde_json::from_slice(&content).unwrap_or_default()
    }

    /// Keeps it for the next run.
    pub fn keep(&self) {
        if let Some(path) = path() {
            self.write(&path);
        }
    }

    fn write(&self, path: &Path) {
        let Ok(text) = serde_json::to_vec(self) else { return };
        let folder = path.parent().unwrap_or(Path::new("/"));
        // Worth nothing more than a try: the run itself has ended.
        let _ = Machine.create_directory(folder, 0o700).and_then(|()| Machine.write(path, &text, 0o600));
    }
}

/// `$XDG_CACHE_HOME/clusterctl/experience.json`, else below `~/.cache`.
fn path() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(".cache"));
    Some(folder.or_else(home)?.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Experience;
    use crate::event::{Event, What};
    use crate::ui::Run;

    fn event(host: Option<&str>, what: What) -> Event {
        Event { host: host.map(str::to_owned), what }
    }

    /// A run of two hosts until `seconds`: connect until 1 s, images until 11 s, join until 20 s; the end at 25 s.
    fn run(changes: u32, seconds: u64) -> Run {
        let mut run = Run::default();
        let hosts = vec!["cp1".to_owned(), "w1".to_owned()];
        let start = What::RunStarted { verb: "up".to_owned(), cluster: "demo".to_owned(), hosts };
        run.record(&event(None, start), Duration::ZERO);
        for (step, at, changes) in [("connect", 1, 0), ("images", 11, changes), ("join", 20, changes)] {
            for host in ["cp1", "w1"] {
                if at <= seconds {
                    let what = What::StepFinished { step: step.into(), changes, milliseconds: 1 };
                    run.record(&event(Some(host), what), Duration::from_secs(at));
                }
            }
        }
        if seconds >= 25 {
            let end = What::RunFinished { milliseconds: 25_000, changes, failed: Vec::new() };
            run.record(&event(None, end), Duration::from_secs(25));
        }
        run
    }

    #[test]
    fn the_time_left_is_that_of_past_runs() {
        let mut experience = Experience::default();
        assert_eq!(experience.left(&run(3, 12), Duration::from_secs(12)), None);
        experience.learn(&run(3, 25));
        let left = |changes, at| experience.left(&run(changes, at), Duration::from_secs(at));
        assert_eq!(left(3, 2), Some(Duration::from_secs(23)));
        assert_eq!(left(3, 12), Some(Duration::from_secs(13)));
        assert_eq!(left(3, 21), Some(Duration::from_secs(4)));
        // Nothing is known of a run that finds nothing to do.
        assert_eq!(left(0, 12), None);
        // It takes longer than ever: nothing is promised any more.
        assert_eq!(experience.left(&run(3, 21), Duration::from_secs(90)), Some(Duration::ZERO));
    }

    #[test]
    fn newer_runs_weigh_more_and_broken_ones_nothing() {
        let mut experience = Experience::default();
        experience.learn(&run(3, 20));
        assert_eq!(experience, Experience::default());
        experience.learn(&run(3, 25));
        let mut slower = run(3, 25);
        slower.ended.as_mut().unwrap().took = Duration::from_secs(35);
        experience.learn(&slower);
        assert_eq!(experience.verbs["up"]["join+"], 10_000);
    }

    #[test]
    fn it_is_kept_in_a_file_and_a_damaged_one_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/experience.json");
        let mut experience = Experience::default();
        experience.learn(&run(3, 25));
        experience.write(&path);
        assert_eq!(Experience::read(&path), experience);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Experience::read(&path), Experience::default());
    }
}
