//! One run at a time on a host: a flock that dies with the agent, and a note of who holds it.
//!
//! A laptop that loses power or network leaves its agent waiting: TCP says nothing of that for hours. So the holder's note
//! carries a time that signs of life move on, and a run that finds it standing still ends the agent that holds the lock and
//! what else came by its connection.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::evict::evict;
use crate::failure::{Failure, Kind, Result};
use crate::message::Holder;

/// The lock file. In /run, so that a reboot clears it; it is only a note, the lock itself is the kernel's.
const PATH: &str = "/run/clusterctl.lock";

/// How long the end of another run is waited for where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How often a laptop that holds locks shows that it lives.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// A holder that was silent for this long is gone.
const VANISHED: Duration = Duration::from_secs(15);

/// A holder that was ended has let go of the lock after this long, or is none that we can end.
const ENDING: Duration = Duration::from_secs(1);

/// How often the lock is tried meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);

/// A note may be this long, in bytes.
const MAXIMUM_NOTE_BYTES: u64 = 4096;

/// A note is filled up to this length, in bytes: one that got shorter would leave the end of a longer one behind it.
const NOTE_BYTES: usize = 1024;

/// So much of a step's title stands in the note, in letters.
const LONGEST_TITLE: usize = 100;

/// What the lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    holder: Holder,
    /// The agent that holds the lock for a laptop; absent where a person works on the host itself.
    agent: Option<Heart>,
    /// The title of the step in hand.
    #[serde(default)]
    step: Option<String>,
}

/// An agent and the last sign of life of its laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Heart {
    process: i32,
    /// Milliseconds since the host's start: a clock that nobody sets.
    alive_milliseconds: u64,
}

impl Heart {
    fn now() -> Self {
        let process = i32::try_from(std::process::id()).unwrap_or(0);
        Self { process, alive_milliseconds: uptime_milliseconds() }
    }

    fn silent(self) -> Duration {
        Duration::from_millis(uptime_milliseconds().saturating_sub(self.alive_milliseconds))
    }
}

/// Milliseconds since the start of the machine; 0 where it does not say.
fn uptime_milliseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
    (seconds * 1000.0) as u64
}

/// The lock, held until dropped. Dropping removes the note.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

/// A lock that was taken, and whether another run ended only now.
#[derive(Debug)]
pub struct Taken {
    /// The lock.
    pub lock: Lock,
    /// Another run held it at first.
    pub waited: bool,
}

/// Signs of life of the laptop, kept by whoever reads what it says: the work itself may block for longer than a holder may
/// be silent.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    heard: Arc<AtomicU64>,
    note: Arc<Mutex<Option<(PathBuf, Note)>>>,
}

impl Pulse {
    /// The laptop said something.
    pub fn beat(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.note_down(|note| note.agent = Some(Heart::now()));
    }

    /// What is being done on the host from now on, for whoever finds the lock taken.
    pub fn doing(&self, title: &str) {
        self.note_down(|note| note.step = Some(title.chars().take(LONGEST_TITLE).collect()));
    }

    fn note_down(&self, alter: impl FnOnce(&mut Note)) {
        let mut held = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, note)) = held.as_mut() {
            alter(note);
            // A note that cannot be written only makes us look more silent than we are.
            let _ = File::options().write(true).open(path).and_then(|mut file| write_note(&mut file, note));
        }
    }

    /// A number that grows with everything the laptop says.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn keep(&self, path: &Path, note: &Note) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some((path.to_owned(), note.clone()));
    }
}

/// What to do about a lock that somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Try again.
    Wait,
    /// End its holder, whose laptop is gone.
    End,
    /// Tell who holds it.
    Leave,
}

/// The course after having waited for a holder that was silent for some time (`None` where the note does not say). One that
/// has shown no sign of life since we wait may be gone: it is waited for until that is known.
fn course(waited: Duration, patience: Duration, silent: Option<Duration>) -> Course {
    match silent {
        Some(silent) if silent >= VANISHED => Course::End,
        _ if waited < patience => Course::Wait,
        Some(silent) if silent >= waited => Course::Wait,
        _ => Course::Leave,
    }
}

impl Lock {
    /// Takes the lock for a person on this host. A run that was killed a moment ago may still hold it until its agent
    /// notices, so that is waited for a little.
    ///
    /// # Errors
    /// Kind `Busy`, saying who holds it, since when and what they do.
    pub async fn take(holder: &Holder) -> Result<Self> {
        let note = Note { holder: holder.clone(), agent: None, step: None };
        Self::take_within(Path::new(PATH), &note, PATIENCE, &|_| {}).await.map(|taken| taken.lock)
    }

    /// Takes the lock for a laptop, whose signs of life go into the note from now on. Another run's end is waited
    /// for as long as `patience` says; `tell` is called once when that begins to take long. The agent of a laptop that has
    /// vanished is ended.
    ///
    /// # Errors
    /// Kind `Busy`, saying who holds it, since when and what they do.
    pub async fn take_alive(
        holder: &Holder,
        patience: Duration,
        pulse: &Pulse,
        tell: &(dyn Fn(&Failure) + Send + Sync),
    ) -> Result<Taken> {
        let note = Note { holder: holder.clone(), agent: Some(Heart::now()), step: None };
        let taken = Self::take_within(Path::new(PATH), &note, patience, tell).await?;
        pulse.keep(Path::new(PATH), &note);
        pulse.beat();
        Ok(taken)
    }

    /// Whether nobody holds the lock.
    pub fn is_free() -> bool {
        File::open(PATH).map_or(true, |file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
    }

    async fn take_within(
        path: &Path,
        note: &Note,
        patience: Duration,
        tell: &(dyn Fn(&Failure) + Send + Sync),
    ) -> Result<Taken> {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(INTERVAL);
        let (mut waited, mut told) = (false, false);
        let mut ended = None;
        loop {
            ticks.tick().await;
            let held_by = match Self::take_at(path, note)? {
                Ok(lock) => return Ok(Taken { lock, waited }),
                Err(held_by) => held_by,
            };
            waited = true;
            let former = held_by.as_ref().and_then(|held_by| former_self(held_by, note));
            let patience = if former.is_some() { patience.max(PATIENCE) } else { patience };
            let heart = held_by.as_ref().and_then(|note| note.agent);
            match course(began.elapsed(), patience, heart.map(Heart::silent)) {
                Course::Leave => return Err(busy(held_by.as_ref())),
                Course::End if ended.is_some_and(|since: Instant| since.elapsed() >= ENDING) => {
                    return Err(busy(held_by.as_ref()));
                }
                Course::End => {
                    end(heart);
                    ended.get_or_insert_with(Instant::now);
                }
                Course::Wait => {}
            }
            if let Some(former) = former {
                evict(former);
            }
            if !told && began.elapsed() >= PATIENCE {
                tell(&busy(held_by.as_ref()));
                told = true;
            }
        }
    }

    /// The lock, or the note of who holds it.
    fn take_at(path: &Path, note: &Note) -> Result<std::result::Result<Self, Option<Note>>> {
        let failed =
            |error: std::io::Error| Failure::new(Kind::Host, format!("cannot lock {}", path.display())).because(&error);
        loop {
            let mut file =
                File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(Err(read_note(&mut file)));
            }
            // The file may have been removed by the run that held it between our open and our lock.
            if !is_current(&file, path) {
                continue;
            }
            file.set_len(0).map_err(failed)?;
            write_note(&mut file, note).map_err(failed)?;
            return Ok(Ok(Self { _file: file, path: path.to_owned() }));
        }
    }
}

/// Over the former note, so that a reader finds a whole one.
fn write_note(file: &mut File, note: &Note) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(note).unwrap_or_default();
    // Blanks behind it mean nothing.
    text.resize(text.len().max(NOTE_BYTES), b' ');
    file.rewind()?;
    file.write_all(&text)
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_current(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

/// The process that holds the lock, if it is another agent of this very run: its connection was lost, or nobody would ask
/// again.
fn former_self(held_by: &Note, note: &Note) -> Option<i32> {
    let same = !note.holder.run.is_empty() && held_by.holder.run == note.holder.run;
    let process = held_by.agent?.process;
    (same && Some(process) != note.agent.map(|heart| heart.process)).then_some(process)
}

fn read_note(file: &mut File) -> Option<Note> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(MAXIMUM_NOTE_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Ends an agent whose laptop is gone, with all of its connection: the kernel frees its lock, and no receiver waits for bytes
/// any more whose image containerd would let nobody else bring meanwhile. Only a process that is an agent is ended.
fn end(heart: Option<Heart>) {
    let Some(process) = heart.map(|heart| heart.process).filter(|process| *process > 0) else { return };
    let arguments = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    if arguments.split(|byte| *byte == 0).any(|word| word == b"agent") {
        evict(process);
    }
}

/// Who holds the lock, from where, since when, and what they do.
fn busy(note: Option<&Note>) -> Failure {
    let sentence = match note.map(|note| &note.holder) {
        Some(holder) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            let minutes = now.saturating_sub(holder.since_seconds) / 60;
            let cluster = match holder.cluster.as_str() {
                "" => String::new(),
                cluster => format!(" for the cluster {cluster}"),
            };
            let step = note.and_then(|note| note.step.as_deref());
            let step = step.map(|title| format!(", at \"{title}\"")).unwrap_or_default();
            format!("{} is running `clusterctl {}`{cluster} here, since {minutes} min{step}", holder.who, holder.verb)
        }
        None => "another clusterctl is at work here".to_owned(),
    };
    Failure::new(Kind::Busy, sentence)
        .advise("wait until it is done, then run the same command again; --wait-lock 10m waits for that")
        .may_pass()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rstest::rstest;

    use super::{Course, Heart, Lock, Note, Pulse, busy, course, former_self, read_note, uptime_milliseconds};
    use crate::failure::Kind;
    use crate::message::Holder;

    fn note(agent: Option<Heart>) -> Note {
        let holder = Holder {
            who: "ann@desk".into(),
            verb: "up".into(),
            since_seconds: 0,
            cluster: "demo".into(),
            run: String::new(),
        };
        Note { holder, agent, step: None }
    }

    #[rstest]
    #[case::an_agent_before_this_one("ab", Some(7), "ab", Some(7))]
    #[case::this_one("ab", Some(9), "ab", None)]
    #[case::another_run("cd", Some(7), "ab", None)]
    #[case::runs_without_a_number("", Some(7), "", None)]
    #[case::a_person_on_the_host("ab", None, "ab", None)]
    fn the_agent_of_a_lost_connection_is_told_by_its_run(
        #[case] held_by: &str,
        #[case] process: Option<i32>,
        #[case] run: &str,
        #[case] expected: Option<i32>,
    ) {
        let heart = |process| Heart { process, alive_milliseconds: 0 };
        let (mut there, mut here) = (note(process.map(heart)), note(Some(heart(9))));
        (there.holder.run, here.holder.run) = (held_by.to_owned(), run.to_owned());
        assert_eq!(former_self(&there, &here), expected);
    }

    async fn take(path: &Path, patience: Duration) -> crate::failure::Result<super::Taken> {
        Lock::take_within(path, &note(Some(Heart::now())), patience, &|_| {}).await
    }

    #[tokio::test]
    async fn the_second_run_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::take_within(&path, &note(None), Duration::ZERO, &|_| {}).await.unwrap();
        assert!(!held.waited);
        let failure = take(&path, Duration::ZERO).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Busy);
        assert!(failure.sentence.starts_with("ann@desk is running `clusterctl up` for the cluster demo"), "{failure}");
        drop(held);
        take(&path, Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn a_run_that_ends_in_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = take(&path, Duration::ZERO).await.unwrap();
        let ends = async {
            let _ = tokio::time::timeout(Duration::from_millis(150), std::future::pending::<()>()).await;
            drop(held);
        };
        let (taken, ()) = tokio::join!(take(&path, Duration::from_secs(30)), ends);
        assert!(taken.unwrap().waited);
    }

    #[tokio::test]
    async fn a_silent_holder_that_is_no_agent_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let silent = Heart { process: i32::try_from(std::process::id()).unwrap(), alive_milliseconds: 0 };
        let _held = Lock::take_within(&path, &note(Some(silent)), Duration::ZERO, &|_| {}).await.unwrap();
        assert_eq!(take(&path, Duration::ZERO).await.unwrap_err().kind, Kind::Busy);
    }

    #[rstest]
    #[case::at_once(0, 3, Some(1), Course::Wait)]
    #[case::too_long(3, 3, Some(1), Course::Leave)]
    #[case::as_long_as_asked(3, 600, Some(1), Course::Wait)]
    #[case::no_sign_since_we_wait(4, 3, Some(5), Course::Wait)]
    #[case::a_sign_since_we_wait(4, 3, Some(2), Course::Leave)]
    #[case::gone(9, 3, Some(15), Course::End)]
    #[case::gone_already(0, 3, Some(4000), Course::End)]
    #[case::a_person_on_the_host(3, 3, None, Course::Leave)]
    fn a_holder_that_vanished_blocks_nobody(
        #[case] waited: u64,
        #[case] patience: u64,
        #[case] silent: Option<u64>,
        #[case] expected: Course,
    ) {
        let seconds = Duration::from_secs;
        assert_eq!(course(seconds(waited), seconds(patience), silent.map(seconds)), expected);
    }

    #[test]
    fn signs_of_life_stand_in_the_note() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let old = Heart { process: 1, alive_milliseconds: 0 };
        let _lock = Lock::take_at(&path, &note(Some(old))).unwrap().unwrap();
        let read = |path: &Path| read_note(&mut std::fs::File::open(path).unwrap()).unwrap().agent.unwrap();
        assert_eq!(read(&path), old);
        let pulse = Pulse::default();
        pulse.beat();
        assert_eq!((pulse.heard(), read(&path)), (1, old));
        pulse.keep(&path, &note(None));
        pulse.beat();
        assert!(read(&path).silent() < Duration::from_secs(60));
        assert!(uptime_milliseconds() > 0);
        // And what is being done, whatever was there before.
        let step = || read_note(&mut std::fs::File::open(&path).unwrap()).and_then(|note| note.step);
        pulse.doing("Wait for the kubelet's certificate and its Node");
        pulse.doing("Write \"x\"");
        assert_eq!(step().as_deref(), Some("Write \"x\""));
        let sentence = busy(read_note(&mut std::fs::File::open(&path).unwrap()).as_ref()).sentence;
        assert!(sentence.ends_with("min, at \"Write \"x\"\""), "{sentence}");
        pulse.doing(&"long ".repeat(5000));
        assert_eq!(step().map(|step| step.len()), Some(super::LONGEST_TITLE));
    }

    #[test]
    fn a_note_that_cannot_be_read_is_no_reason_to_go_on() {
        assert_eq!(busy(None).kind, Kind::Busy);
    }
}
