//! Questions on the terminal, and passwords from wherever the inventory says.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt;

use super::screen::Screen;
use super::text::clean;
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::SecretSource;
use crate::secret::Secret;

/// The longest password, in bytes, typed or in a file; a file that is longer is surely not a password file.
const MAXIMUM_BYTES: usize = 64 << 10;
/// The longest time a password command may take: a person may have to touch a key.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Asks for passwords and passphrases, each once per run, and for codes. Cheap to clone; all clones share the answers.
#[derive(Debug, Clone)]
pub struct Prompts {
    screen: Screen,
    cancel: Cancel,
    /// Answers by what was asked; `None` if there was none. Held while a question stands: one at a time.
    answers: Arc<Mutex<HashMap<String, Option<Secret>>>>,
    /// Secrets from files and commands, by source.
    resolved: Arc<tokio::sync::Mutex<HashMap<String, Secret>>>,
}

impl Prompts {
    /// Asks on the terminal of `screen`; Ctrl-C at a question requests `cancel`.
    pub fn new(screen: &Screen, cancel: &Cancel) -> Self {
        Self { screen: screen.clone(), cancel: cancel.clone(), answers: Arc::default(), resolved: Arc::default() }
    }

    /// The passphrase of a private key file, asked anew only where the last answer was wrong (`again`). Blocks; `None`
    /// without a terminal, or if the answer is empty.
    pub fn passphrase(&self, file: &Path, again: bool) -> Option<Secret> {
        let what = format!("passphrase of {}", file.display());
        if !again {
            return self.ask(&what);
        }
        in_place(|| {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = self.put(&format!("that was wrong; {what}"));
            answers.insert(what, answer.clone());
            answer
        })
    }

    /// Asks for what is good only once, such as a code. Blocks; `None` without a terminal, or if the answer is empty.
    pub fn ask_each_time(&self, what: &str) -> Option<Secret> {
        in_place(|| {
            let _one_at_a_time = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            self.put(what)
        })
    }

    /// The login password of `user`, asked once for all hosts; `host` is the one that asks first. Blocks; `None` without
    /// a terminal, or if the answer is empty.
    pub fn password(&self, user: &str, host: &str) -> Option<Secret> {
        self.once(
            &format!("login password of {user}"),
            &format!("login password of {user} (for {host} and all others)"),
        )
    }

    /// Asks for `what` once. Blocks until there is an answer; `None` without a terminal, or if the answer is empty.
    pub fn ask(&self, what: &str) -> Option<Secret> {
        self.once(what, what)
    }

    fn once(&self, key: &str, question: &str) -> Option<Secret> {
        in_place(|| self.once_blocking(key, question))
    }

    fn once_blocking(&self, key: &str, question: &str) -> Option<Secret> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(key) {
            return answer.clone();
        }
        let answer = self.put(question);
        answers.insert(key.to_owned(), answer.clone());
        answer
    }

    fn put(&self, question: &str) -> Option<Secret> {
        let mut question = clean(question);
        if let Some(first) = question.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let answer = read_terminal(&self.screen, &self.cancel, &format!("{question}: "), Echo::Hidden);
        answer.filter(|answer| !answer.expose().is_empty())
    }

    /// Whether there is a terminal to ask on.
    pub fn has_terminal(&self) -> bool {
        OpenOptions::new().read(true).write(true).open("/dev/tty").is_ok()
    }

    /// A question to be answered by `y` or `n`; no answer is no. `None` without a terminal.
    pub async fn confirm(&self, question: &str) -> Option<bool> {
        let prompts = self.clone();
        let question = format!("{} [y/N] ", clean(question));
        let asked = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = prompts.answers.lock().unwrap_or_else(PoisonError::into_inner);
            read_terminal(&prompts.screen, &prompts.cancel, &question, Echo::Shown)
        });
        let answer = asked.await.ok().flatten()?;
        Some(matches!(answer.expose().trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// The secret behind a source; `what` names it in questions and failures: `sudo password of ops`. A file is read and
    /// a command run once per run.
    ///
    /// # Errors
    /// Kind [`Kind::Authentication`] if there is no terminal to ask on or the answer is empty; kind
    /// [`Kind::Configuration`] if the file cannot be read, is open to others or empty, or the command fails, prints
    /// nothing or runs longer than two minutes.
    pub async fn resolve(&self, source: &SecretSource, what: &str) -> Result<Secret> {
        let key = match source {
            SecretSource::Known(secret) => return Ok(secret.clone()),
            SecretSource::Ask => return self.resolve_by_asking(what).await,
            SecretSource::File(path) => format!("file {}", path.display()),
            SecretSource::Command(command) => format!("command {command}"),
        };
        let mut resolved = self.resolved.lock().await;
        if let Some(secret) = resolved.get(&key) {
            return Ok(secret.clone());
        }
        let secret = match source {
            SecretSource::File(path) => from_file(path, what)?,
            SecretSource::Command(command) => from_command(command, what, &self.cancel).await?,
            SecretSource::Known(_) | SecretSource::Ask => return Err(Failure::new(Kind::Internal, "handled above")),
        };
        resolved.insert(key, secret.clone());
        Ok(secret)
    }

    async fn resolve_by_asking(&self, what: &str) -> Result<Secret> {
        let (prompts, asked_for) = (self.clone(), what.to_owned());
        let asked = tokio::task::spawn_blocking(move || prompts.ask(&asked_for));
        if let Some(secret) = asked.await.ok().flatten() {
            return Ok(secret);
        }
        self.cancel.check()?;
        Err(Failure::new(Kind::Authentication, format!("no {what} was given"))
            .advise("type it on a terminal, or name a file or a command for it in the inventory"))
    }
}

/// Blocks without holding up other work: a worker thread of the runtime hands its tasks over first.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The first line of a file that only its owner may read (and that belongs to us, or to root).
fn from_file(path: &Path, what: &str) -> Result<Secret> {
    let shown = path.display();
    let refuse = |sentence: String| Failure::new(Kind::Configuration, sentence);
    let unreadable = |error: std::io::Error| refuse(format!("cannot read {shown} for the {what}")).because(&error);
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refuse(format!("{shown}, named for the {what}, is not a file")));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!(
            "{shown} holds the {what} and is open to others (mode {:04o})",
            metadata.mode() & 0o7777
        ))
        .advise(format!("run `chmod 600 {shown}`")));
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(refuse(format!("{shown} holds the {what} and belongs to user {}", metadata.uid()))
            .advise(format!("run `sudo chown {us} {shown}` if you trust what it holds")));
    }
    let mut content = Vec::new();
    file.take(MAXIMUM_BYTES as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
    first_line(content).ok_or_else(|| {
        refuse(format!("{shown} does not begin with the {what}")).advise("put it on the first line, in UTF-8")
    })
}

/// The first line that a command prints. It gets the environment, but not the terminal's input.
async fn from_command(command: &str, what: &str, cancel: &Cancel) -> Result<Secret> {
    let shown = clean(command);
    let refuse = |sentence: String| Failure::new(Kind::Configuration, sentence);
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| refuse(format!("cannot run `{shown}` for the {what}")).because(&error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, complaint) = futures::join!(read_all(stdout), read_all(stderr));
        (output, complaint, child.wait().await)
    };
    let (output, complaint, status) = tokio::select! {
        ended = work => ended,
        () = cancel.cancelled() => return Err(Cancel::failure()),
        () = tokio::time::sleep_until(tokio::time::Instant::now() + COMMAND_LIMIT) => {
            let seconds = COMMAND_LIMIT.as_secs();
            return Err(refuse(format!("`{shown}` did not give the {what} within {seconds} s")).may_pass());
        }
    };
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    let detailed = |failure: Failure| if complaint.is_empty() { failure } else { failure.detailed(complaint.clone()) };
    let status = status.map_err(|error| refuse(format!("cannot await `{shown}`")).because(&error))?;
    if !status.success() {
        return Err(detailed(refuse(format!("`{shown}`, which gives the {what}, ended with {status}")))
            .advise("run it by hand and see that it prints the password on its first line"));
    }
    first_line(output).ok_or_else(|| {
        detailed(refuse(format!("`{shown}` printed nothing for the {what}")))
            .advise("run it by hand and see that it prints the password on its first line")
    })
}

/// What a pipe holds, as far as a password can be long; the rest is read and dropped, so that the writer can end.
async fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut content = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(MAXIMUM_BYTES as u64).read_to_end(&mut content).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    content
}

/// The first line as a secret, without its line break; `None` if it is empty, too long or not text.
fn first_line(mut content: Vec<u8>) -> Option<Secret> {
    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    let line = std::str::from_utf8(&content[..end]).ok().map(|line| line.trim_end_matches('\r'));
    let secret = line.filter(|line| !line.is_empty() && line.len() < MAXIMUM_BYTES).map(Secret::new);
    zeroize::Zeroize::zeroize(&mut content);
    secret
}

/// Whether what is typed is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

/// Asks on the controlling terminal. The terminal hands over each key by itself, Ctrl-C too, so that it can be put back
/// to its settings in every case. `None` without a terminal, or when the question is broken off.
fn read_terminal(screen: &Screen, cancel: &Cancel, question: &str, echo: Echo) -> Option<Secret> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let before = tcgetattr(&terminal).ok()?;
    let mut raw = before.clone();
    raw.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
    // A read returns after a fifth of a second even without a key, to see whether the run was cancelled.
    raw.special_codes[SpecialCodeIndex::VMIN] = 0;
    raw.special_codes[SpecialCodeIndex::VTIME] = 2;
    let kept = terminal.try_clone().ok()?;
    screen.begin_question(kept, before);
    let answer = tcsetattr(&terminal, OptionalActions::Flush, &raw)
        .ok()
        .and_then(|()| terminal.write_all(question.as_bytes()).ok())
        .and_then(|()| read_line(&mut terminal, cancel, echo));
    let _ = terminal.write_all(b"\r\n");
    screen.restore();
    answer
}

fn read_line(terminal: &mut (impl Read + Write), cancel: &Cancel, echo: Echo) -> Option<Secret> {
    let mut typed = Typed::default();
    let mut byte = [0_u8; 1];
    while !cancel.requested() {
        if terminal.read(&mut byte).ok()? == 0 {
            continue;
        }
        match typed.key(byte[0]) {
            Key::Taken if echo == Echo::Shown => {
                let _ = terminal.write_all(&byte);
            }
            Key::Erased(columns) if echo == Echo::Shown => {
                let _ = terminal.write_all("\x08 \x08".repeat(columns).as_bytes());
            }
            Key::Taken | Key::Erased(_) => {}
            Key::Done => return typed.secret(),
            Key::Interrupt => cancel.request(),
        }
    }
    None
}

/// What a key did to the line.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Taken,
    Erased(usize),
    Done,
    Interrupt,
}

/// A line being typed; wiped when dropped.
#[derive(Default)]
struct Typed(zeroize::Zeroizing<Vec<u8>>);

impl Typed {
    fn key(&mut self, byte: u8) -> Key {
        const INTERRUPT: u8 = 0x03;
        const END: u8 = 0x04;
        const ERASE_LINE: u8 = 0x15;
        const QUIT: u8 = 0x1c;
        match byte {
            b'\r' | b'\n' | END => Key::Done,
            INTERRUPT | QUIT => Key::Interrupt,
            0x7f | 0x08 => Key::Erased(usize::from(self.erase())),
            ERASE_LINE => {
                let mut erased = 0;
                while self.erase() {
                    erased += 1;
                }
                Key::Erased(erased)
            }
            control if control < 0x20 => Key::Erased(0),
            byte => {
                if self.0.len() < 4096 {
                    // Reserved at once: a vector that grows leaves copies behind.
                    let room = 4096 - self.0.len();
                    self.0.reserve(room);
                    self.0.push(byte);
                }
                Key::Taken
            }
        }
    }

    /// Takes the last character away, all of its bytes.
    fn erase(&mut self) -> bool {
        while let Some(byte) = self.0.pop() {
            if byte & 0xc0 != 0x80 {
                return true;
            }
        }
        false
    }

    fn secret(&self) -> Option<Secret> {
        std::str::from_utf8(&self.0).ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rstest::rstest;

    use super::*;
    use crate::ui::Settings;

    fn prompts() -> Prompts {
        Prompts::new(&Screen::new(Settings::default()), &Cancel::new())
    }

    #[rstest]
    #[case::plain(b"hunter2\r", "hunter2")]
    #[case::corrected(b"huntex\x7fr2\n", "hunter2")]
    #[case::begun_anew(b"wrong\x15right\n", "right")]
    #[case::wide("pässwörd\x7f\x7f\x7fx\n".as_bytes(), "pässwx")]
    #[case::erased_beyond(b"\x7f\x08a\n", "a")]
    #[case::arrows_are_ignored(b"a\x1bb\n", "ab")]
    fn a_line_is_typed(#[case] keys: &[u8], #[case] expected: &str) {
        let mut typed = Typed::default();
        let last = keys.iter().map(|byte| typed.key(*byte)).last();
        assert_eq!(last, Some(Key::Done));
        assert_eq!(typed.secret().as_ref().map(Secret::expose), Some(expected));
    }

    #[test]
    fn ctrl_c_at_a_question_cancels_the_run() {
        let cancel = Cancel::new();
        let mut keys = std::io::Cursor::new(b"secret\x03more\n".to_vec());
        assert_eq!(read_line(&mut keys, &cancel, Echo::Hidden), None);
        assert!(cancel.requested());
    }

    #[tokio::test]
    async fn a_file_must_be_the_owners_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter2\r\nsecond line\n").expect("a file can be written");
        let source = SecretSource::File(path.clone());
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        mode(0o640).expect("the mode can be set");
        let refused = prompts().resolve(&source, "sudo password of ops").await.expect_err("the file is open to others");
        assert_eq!(refused.kind, Kind::Configuration);
        assert!(refused.sentence.ends_with("is open to others (mode 0640)"), "{refused}");
        mode(0o600).expect("the mode can be set");
        let secret = prompts().resolve(&source, "sudo password of ops").await;
        assert_eq!(secret.map(|secret| secret.expose().to_owned()).as_deref(), Ok("hunter2"));
    }

    #[rstest]
    #[case::first_line("echo hunter2; echo more", Ok("hunter2"))]
    #[case::fails("echo hunter2; echo no such entry >&2; exit 3", Err("ended with exit status: 3"))]
    #[case::nothing("true", Err("printed nothing for the login password"))]
    #[tokio::test]
    async fn a_command_gives_its_first_line(#[case] command: &str, #[case] expected: Result<&str, &str>) {
        let result = prompts().resolve(&SecretSource::Command(command.to_owned()), "login password").await;
        match (result, expected) {
            (Ok(secret), Ok(expected)) => assert_eq!(secret.expose(), expected),
            (Err(failure), Err(expected)) => assert!(failure.sentence.ends_with(expected), "{failure}"),
            (result, expected) => panic!("{result:?} is not {expected:?}"),
        }
    }

    #[tokio::test]
    async fn a_command_is_run_once() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let log = directory.path().join("log");
        let source = SecretSource::Command(format!("echo run >> {}; echo hunter2", log.display()));
        let prompts = prompts();
        for _ in 0..3 {
            let secret = prompts.resolve(&source, "login password").await;
            assert_eq!(secret.map(|secret| secret.expose().to_owned()).as_deref(), Ok("hunter2"));
        }
        assert_eq!(std::fs::read_to_string(&log).ok().as_deref(), Some("run\n"));
    }
}
