//! Runs the real program, with a limit, and keeps what it printed.
#![expect(clippy::disallowed_methods, reason = "tests start the program as a person would")]

use std::borrow::Borrow;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// No run of the program takes longer; one that does is ended and fails its test.
const LIMIT: Duration = Duration::from_secs(600);

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// The program under test.
pub fn clusterctl() -> PathBuf {
    from_environment("CLUSTERCTL")
}

/// The bundle of the test bed.
pub fn bundle() -> PathBuf {
    from_environment("CLUSTERCTL_BUNDLE")
}

/// The bundle of another version, beside the usual one.
pub fn bundle_of(version: &str) -> PathBuf {
    bundle().with_file_name(format!("kubernetes-{version}.bundle"))
}

fn from_environment(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `make test-hosts`")))
}

/// Runs a verb of the program with an inventory; nothing on standard input, no terminal.
pub fn run(verb: &str, inventory: &Path, arguments: &[&str]) -> Finished {
    run_with(verb, inventory, arguments, &[])
}

/// Runs a verb with variables in its environment.
pub fn run_with(verb: &str, inventory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let inventory = inventory.to_str().unwrap();
    let mut words = vec![verb, "-i", inventory];
    words.extend_from_slice(arguments);
    call(&clusterctl(), &words, environment)
}

/// `up` with the bed's bundle.
pub fn up(inventory: &Path) -> Finished {
    let bundle = bundle();
    run("up", inventory, &["--yes", "--bundle", bundle.to_str().unwrap()])
}

/// `down` without a question.
pub fn down(inventory: &Path) -> Finished {
    run("down", inventory, &["--yes"])
}

/// kubectl of the cluster; it must succeed.
pub fn kubectl(inventory: &Path, arguments: &[&str]) -> String {
    let mut words = vec!["--"];
    words.extend_from_slice(arguments);
    let finished = run("kubectl", inventory, &words);
    assert_eq!(finished.code, 0, "kubectl {arguments:?}:\n{}\n{}", finished.stdout, finished.stderr);
    finished.stdout
}

/// Runs any program to its end.
pub fn call(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut running = Running::start(program, arguments, environment);
    running.finish()
}

/// A program under way.
pub struct Running {
    child: Child,
    started: Instant,
    stdout: Option<std::thread::JoinHandle<String>>,
    stderr: Option<std::thread::JoinHandle<String>>,
}

/// A test that fails leaves no run behind. (A program that was awaited is not signalled.)
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The same, and each line at once to whoever watches.
fn collect_lines(
    pipe: impl std::io::Read + Send + 'static,
    watcher: Sender<String>,
) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            text.push_str(&line);
            text.push('\n');
            let _ = watcher.send(line);
        }
        text
    })
}

impl Running {
    /// Starts a program.
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(program, arguments, environment, None)
    }

    /// Starts a program whose standard output is watched line by line.
    pub fn start_watched(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Self, Receiver<String>) {
        let (sender, lines) = mpsc::channel();
        (Self::spawn(program, arguments, environment, Some(sender)), lines)
    }

    fn spawn(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        watcher: Option<Sender<String>>,
    ) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let stdout = child.stdout.take().map(|pipe| match watcher {
            Some(watcher) => collect_lines(pipe, watcher),
            None => collect(pipe),
        });
        let stderr = child.stderr.take().map(collect);
        Self { child, started: Instant::now(), stdout, stderr }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        assert!(self.try_signal(name), "kill -s {name} {}", self.id());
    }

    /// Sends it a signal, unless it has ended.
    pub fn try_signal(&self, name: &str) -> bool {
        let id = self.id().to_string();
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &id]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Whether it ends within a time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        true
    }

    /// Waits for its end.
    pub fn finish(&mut self) -> Finished {
        use std::os::unix::process::ExitStatusExt as _;
        let text = |thread: &mut Option<std::thread::JoinHandle<String>>| {
            thread.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default()
        };
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > LIMIT {
                let _ = self.child.kill();
                let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
                panic!("it ran longer than {LIMIT:?}\n{stdout}\n{stderr}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Finished {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
            elapsed: self.started.elapsed(),
        }
    }
}

/// The run, which must have ended well.
#[track_caller]
pub fn succeeds<F: Borrow<Finished>>(run: F) -> F {
    let finished = run.borrow();
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    run
}

/// Fails unless the run ended with this code, said all of these words to the person, and what to do now.
#[track_caller]
pub fn refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, code, "{}\n{}", finished.stdout, finished.stderr);
    for word in words {
        assert!(finished.stderr.contains(word), "no «{word}» in:\n{}", finished.stderr);
    }
    assert!(finished.stderr.contains("hint:"), "no advice in:\n{}", finished.stderr);
}

/// Looks again and again until it holds; the test fails after `limit`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(300));
    }
}
