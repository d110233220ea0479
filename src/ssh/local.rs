//! Commands that ssh_config names, run on this machine: the only place of this module that starts one.
//!
//! They run by the user's shell with the user's environment, as `ssh` runs them.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

/// A command of `Match exec` or KnownHostsCommand may take this long.
const LIMIT: Duration = Duration::from_secs(30);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// What KnownHostsCommand may print; as much as a known_hosts file may hold.
const PRINTED: u64 = 8 << 20;
/// What is kept of what a command writes to standard error.
const KEPT: usize = 2048;
/// How long a command that has failed may take to say why.
const MOMENT: Duration = Duration::from_millis(500);

fn shell() -> String {
    std::env::var("SHELL").ok().filter(|shell| shell.starts_with('/')).unwrap_or_else(|| "/bin/sh".to_owned())
}

/// Whether a command ends with 0; blocks.
///
/// # Errors
/// In words that end a sentence.
pub(super) fn succeeds(command: &str) -> Result<bool, String> {
    #[expect(clippy::disallowed_methods, reason = "ssh_config names commands that decide which settings apply")]
    let started = std::process::Command::new(shell())
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| format!("cannot be run: {error}"))?;
    match awaited(&mut child, Instant::now() + LIMIT)? {
        Some(status) => Ok(status.success()),
        None => Err(format!("did not end within {} seconds: {command}", LIMIT.as_secs())),
    }
}

/// What a program prints, started with its arguments and without a shell; blocks.
///
/// # Errors
/// In words that end a sentence: it cannot be run, does not end in time, does not end with 0, prints too much.
pub(super) fn output(words: &[String]) -> Result<String, String> {
    use std::io::Read as _;
    let (program, arguments) = words.split_first().ok_or("names no program")?;
    #[expect(clippy::disallowed_methods, reason = "ssh_config names a command that prints the keys of hosts")]
    let started = std::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| format!("cannot be run: {error}"))?;
    let stdout = child.stdout.take();
    let (sender, printed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(PRINTED + 1).read_to_end(&mut bytes));
        // Whoever waited may have given up.
        let _ = sender.send(read.map(|_| bytes));
    });
    let limit = Instant::now() + LIMIT;
    let ended = printed.recv_timeout(LIMIT).map_err(|_| format!("did not end within {} seconds", LIMIT.as_secs()));
    let result = ended.and_then(|read| match read {
        Ok(bytes) if bytes.len() as u64 > PRINTED => Err(format!("printed more than {PRINTED} bytes")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("cannot be read: {error}")),
    });
    if result.is_err() {
        // Gone already is fine.
        let _ = child.kill();
    }
    let status = awaited(&mut child, limit)?;
    match (result, status) {
        (Ok(bytes), Some(status)) if status.success() => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        (Ok(_), Some(status)) => Err(format!("ended with {status}")),
        (Ok(_), None) => Err(format!("did not end within {} seconds", LIMIT.as_secs())),
        (Err(why), _) => Err(why),
    }
}

/// The end of a process, `None` for one that had to be killed.
fn awaited(child: &mut std::process::Child, limit: Instant) -> Result<Option<std::process::ExitStatus>, String> {
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if Instant::now() < limit => _ = never.recv_timeout(LOOK),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
            Err(error) => return Err(format!("cannot be awaited: {error}")),
        }
    }
}

/// The command of a ProxyCommand: what is written goes to its standard input, what is read is its standard output. It is
/// ended, with all it has started, when this is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Option<Child>,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// What a command has written to standard error so far.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Dropped by the other side when nothing more comes.
    whole: watch::Receiver<()>,
}

impl Complaint {
    /// The end of it as text, once it is whole or has had a moment to become so; untrusted.
    pub(super) async fn text(&self) -> String {
        let mut whole = self.whole.clone();
        let _ = tokio::time::timeout(MOMENT, async { while whole.changed().await.is_ok() {} }).await;
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).trim().to_owned()
    }
}

impl Proxy {
    /// Starts the command.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub(super) fn start(command: &str) -> io::Result<(Self, Complaint)> {
        let mut child = Command::new(shell())
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in our terminal is ours: we end the connection in good order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (sender, whole) = watch::channel(());
        let complaint = Complaint { kept: Arc::default(), whole };
        let missing = || io::Error::other("a pipe is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        if let Some(mut stderr) = child.stderr.take() {
            let kept = Arc::clone(&complaint.kept);
            tokio::spawn(async move {
                let mut buffer = [0; 512];
                while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend_from_slice(&buffer[..length]);
                    let excess = kept.len().saturating_sub(KEPT);
                    kept.drain(..excess);
                }
                drop(sender);
            });
        }
        Ok((Self { child: Some(child), stdin, stdout }, complaint))
    }
}

impl Drop for Proxy {
    /// A command whose pipes are closed ends by itself, and may want to say why first: it is given a moment.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return end(&child) };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(MOMENT, child.wait()).await;
            end(&child);
        });
    }
}

/// Ends a command that still runs, with all it has started.
fn end(child: &Child) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = id {
        // Gone already is fine.
        let _ = kill_process_group(group, Signal::TERM);
    }
}

impl AsyncRead for Proxy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

impl AsyncWrite for Proxy {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{Proxy, output, succeeds};

    #[test]
    fn a_command_decides() {
        assert_eq!((succeeds("true"), succeeds("exit 3")), (Ok(true), Ok(false)));
        assert_eq!(succeeds("no-such-program-here"), Ok(false));
    }

    #[test]
    fn a_program_prints() {
        let run = |words: &[&str]| output(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(run(&["/bin/echo", "a b", "$HOME"]).as_deref(), Ok("a b $HOME\n"));
        assert_eq!(run(&["/bin/sh", "-c", "echo x; exit 3"]), Err("ended with exit status: 3".to_owned()));
        assert!(run(&["/no/such/program"]).expect_err("missing").starts_with("cannot be run"));
        let flood = run(&["/bin/sh", "-c", "exec yes"]);
        assert_eq!(flood, Err("printed more than 8388608 bytes".to_owned()));
    }

    #[tokio::test]
    async fn a_command_carries_bytes() {
        let (mut proxy, complaint) = Proxy::start("sh -c 'echo oops >&2; exec cat'").expect("started");
        proxy.write_all(b"hello").await.expect("written");
        let mut answer = [0; 5];
        proxy.read_exact(&mut answer).await.expect("read");
        drop(proxy);
        assert_eq!((&answer, complaint.text().await.as_str()), (b"hello", "oops"));
    }
}
