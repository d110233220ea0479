//! The two streams and the terminal: everything that is printed passes here, so that moving lines and other text do not
//! disturb each other.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::termios::{OptionalActions, Termios, tcgetwinsize, tcsetattr};

use super::look::{Look, Surroundings};
use super::run::Run;
use super::summary::Summary;
use super::{Output, Settings, failure, json, lines, summary};
use crate::event::{Event, What};
use crate::failure::{Failure, Kind, Result};

/// Where things are shown: stdout for data, stderr for talk. Cheap to clone; all clones are one screen.
#[derive(Clone)]
pub struct Screen {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    look: Look,
    surroundings: Surroundings,
    state: Mutex<State>,
    /// What happens is written there as well.
    log: OnceLock<std::fs::File>,
    /// Standard output is for one JSON document and nothing else.
    document: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The moving lines, all in one bar: they change together.
    bar: Option<ProgressBar>,
    /// A question stands on the terminal: nothing else may be drawn.
    asking: bool,
    /// The program ends: no moving line comes back.
    stopped: bool,
    /// What was to be said meanwhile.
    held: Vec<String>,
    /// Settings of the terminal to go back to.
    terminal: Option<(std::fs::File, Termios)>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Screen").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Screen {
    /// The screen of this process.
    pub fn new(settings: Settings) -> Self {
        let surroundings = Surroundings::observe();
        let look = Look::decide(&settings, &surroundings);
        Self {
            shared: Arc::new(Shared {
                settings,
                look,
                surroundings,
                state: Mutex::default(),
                log: OnceLock::new(),
                document: AtomicBool::new(false),
            }),
        }
    }

    /// What was asked for.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// How things are shown on standard error.
    pub fn look(&self) -> Look {
        self.shared.look
    }

    /// Whether standard output is a terminal.
    pub fn stdout_is_terminal(&self) -> bool {
        self.shared.surroundings.stdout_terminal
    }

    /// Whether standard error is a terminal.
    pub fn stderr_is_terminal(&self) -> bool {
        self.shared.surroundings.stderr_terminal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints data on standard output. A reader that has gone (`| head`) is fine; anything else is a failure.
    pub fn print(&self, text: &str) -> Result<()> {
        print_bytes(text.as_bytes())
    }

    /// From now on standard output is for one document alone, for programs: what is said and warned of besides goes to standard
    /// error, as lines for people.
    pub fn one_document(&self) {
        self.shared.document.store(true, Ordering::Relaxed);
    }

    /// Says a line on standard error, above the moving lines; as a `said` event in JSON.
    pub fn say(&self, sentence: &str) {
        self.tell(What::Said { sentence: sentence.to_owned() });
    }

    /// Warns; as a `warned` event in JSON.
    pub fn warn(&self, sentence: &str) {
        self.tell(What::Warned { sentence: sentence.to_owned() });
    }

    /// Shows a block of untrusted text on standard error: rendered warnings. Not for programs: nothing in JSON.
    pub fn block(&self, text: &str) {
        if self.shared.settings.output == Output::Human {
            self.line(&super::text::clean_lines(text).join("\n"));
        }
    }

    /// Shows a block of untrusted text on standard error, whoever reads standard output: what a person is about to be asked
    /// about.
    pub fn lay_out(&self, text: &str) {
        self.line(&super::text::clean_lines(text).join("\n"));
    }

    /// How things are shown on standard output, where they are for a person.
    pub fn look_of_data(&self) -> Look {
        Look { color: self.look().color && self.stdout_is_terminal(), live: false, ..self.look() }
    }

    /// Passes on what another program wrote, byte by byte, to the stream it wrote it to.
    ///
    /// # Errors
    /// As [`Screen::print`].
    pub fn pass(&self, stdout: &[u8], stderr: &[u8]) -> Result<()> {
        let _ = std::io::stderr().lock().write_all(stderr);
        print_bytes(stdout)
    }

    /// From now on adds every event, failure and summary to the end of a file, as JSON lines. A new file is for its owner
    /// only; the first file counts.
    ///
    /// # Errors
    /// Kind `Usage` when the file cannot be opened.
    pub fn log_to(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::File::options().create(true).append(true).mode(0o600).open(path).map_err(|error| {
            Failure::new(Kind::Usage, format!("cannot write the log {}", path.display())).because(&error)
        })?;
        let _ = self.shared.log.set(file);
        Ok(())
    }

    /// A line of JSON for the log, where there is one. A log that cannot be written (a full disk) does not stop the run.
    pub(super) fn log(&self, line: impl FnOnce() -> String) {
        if let Some(mut log) = self.shared.log.get() {
            let _ = log.write_all(line().as_bytes());
        }
    }

    fn tell(&self, what: What) {
        let event = Event { host: None, what };
        self.log(|| json::event(&event, SystemTime::now()));
        if self.shared.settings.output == Output::Json && !self.shared.document.load(Ordering::Relaxed) {
            self.emit(&json::event(&event, SystemTime::now()));
        } else if let Some(line) = super::plain::line(&event, &Run::default(), self.settings(), self.look()) {
            self.line(&line);
        }
    }

    /// Shows why the program ends.
    pub fn failure(&self, failure: &Failure) {
        self.log(|| json::failure(failure, SystemTime::now()));
        if self.shared.settings.output == Output::Json {
            self.emit(&json::failure(failure, SystemTime::now()));
        } else {
            self.line(failure::failure(failure, self.columns(), self.look().color).trim_end());
        }
    }

    /// Shows several failures, those of many hosts that are the same as one; in JSON each as a line.
    pub fn failures(&self, failures: &[Failure]) {
        if self.shared.settings.output == Output::Json {
            failures.iter().for_each(|failure| self.failure(failure));
            return;
        }
        self.log(|| failures.iter().map(|failure| json::failure(failure, SystemTime::now())).collect());
        if !failures.is_empty() {
            self.line(failure::failures(failures, self.columns(), self.look().color).trim_end());
        }
    }

    /// Shows how a run ended: the summary, then its failures. In JSON the failures are part of the summary.
    pub fn summary(&self, run: &Summary) {
        self.log(|| json::summary(run, SystemTime::now()));
        if self.shared.settings.output == Output::Json {
            self.emit(&json::summary(run, SystemTime::now()));
            return;
        }
        if !self.shared.settings.quiet {
            self.line(summary::summary(run, self.look(), self.columns()).trim_end());
        }
        if !run.failed.is_empty() {
            self.line("");
            self.line(failure::failures(&run.failed, self.columns(), self.look().color).trim_end());
        }
    }

    /// Says why the program stops at once: the moving lines go away first and do not come back.
    pub fn stop(&self, sentence: &str) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        drop(state);
        self.restore();
        self.warn(sentence);
    }

    /// A line of JSON on standard output. What cannot be written is lost: the run itself must not stop for it.
    pub(super) fn emit(&self, line: &str) {
        let _ = self.print(line);
    }

    /// A line on standard error, above the moving lines, held back while a question stands.
    pub(super) fn line(&self, line: &str) {
        let mut state = self.state();
        if state.asking {
            state.held.push(line.to_owned());
            return;
        }
        match &state.bar {
            Some(bar) => bar.suspend(|| write_error(line)),
            None => write_error(line),
        }
    }

    /// Draws the moving lines anew.
    pub(super) fn draw(&self, run: &Run, at: Duration) {
        if !self.look().live {
            return;
        }
        let (columns, rows) = self.size();
        let lines = lines::lines(run, at, self.look(), columns, rows);
        let mut state = self.state();
        if state.asking || state.stopped || (lines.is_empty() && state.bar.is_none()) {
            return;
        }
        let bar = state.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        bar.set_message(lines.join("\n"));
        bar.tick();
    }

    /// Takes the moving lines away.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Columns and rows of the terminal behind standard error; 80 and 24 if it does not say.
    fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(std::io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Columns to break sentences at: those of the terminal, at most 120; without one 100, for logs.
    fn columns(&self) -> usize {
        if self.shared.surroundings.stderr_terminal { self.size().0.clamp(40, 120) } else { 100 }
    }

    /// Begins a question: the moving lines go away, other text is held back, and the terminal's settings are kept so
    /// that [`Screen::restore`] can go back to them at any moment.
    pub(super) fn begin_question(&self, terminal: std::fs::File, settings: Termios) {
        let mut state = self.state();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        state.asking = true;
        state.terminal = Some((terminal, settings));
    }

    /// Ends a question, or the program: the terminal is as it was, and what was held back is said.
    pub fn restore(&self) {
        let mut state = self.state();
        if let Some((terminal, settings)) = state.terminal.take() {
            let _ = tcsetattr(&terminal, OptionalActions::Flush, &settings);
        }
        state.asking = false;
        for line in std::mem::take(&mut state.held) {
            write_error(&line);
        }
    }
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let failure = Failure::new(Kind::Host, "cannot write to standard output");
            Err(failure.because(&error).advise("free some space, or send the output elsewhere"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A line on standard error. Nobody to read it is no reason to stop.
fn write_error(line: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(format!("{line}\n").as_bytes());
}
