//! Running a program: its own process group, a fixed environment, a limit, bounded output.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{Command, Input, Output};
use crate::failure::{Failure, Kind, Result};

/// Where programs are looked for, and the PATH they see. Fixed, because what sudo or a login shell leaves in PATH often
/// lacks the sbin directories; /opt/bin is where image based systems keep programs of their own.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin";

/// More of standard output or standard error than this is read and dropped.
const MAXIMUM_OUTPUT_BYTES: usize = 4 << 20;

/// How long to go on reading after the program ended: a process it left in the background may hold the pipe open.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The file behind a program's name, or `None` if no directory of [`PATH`] has it.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    PATH.split(':').map(|directory| Path::new(directory).join(program)).find(|path| path.is_file())
}

/// Kills the whole process group when dropped, unless the program has ended by itself.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // The group may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When the program is not there, cannot be started, runs past its limit, or when `input` fails.
pub(super) async fn run(command: Command, input: Option<Input<'_>>) -> Result<Output> {
    let name = command.program.clone();
    let path = find(&name).ok_or_else(|| {
        Failure::new(Kind::Host, format!("the program {name} is not installed"))
            .advise(format!("install the package that brings {name}"))
    })?;
    let mut child = tokio::process::Command::new(&path)
        .args(&command.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .env("HOME", "/root")
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::new(Kind::Host, format!("cannot start {name}")).because(&error))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw));

    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let work = async {
        let feeding = async {
            let Some(stdin) = stdin else { return Ok(()) };
            match input {
                Some(input) => feed(input, stdin).await,
                None => feed(command.input.as_slice(), stdin).await,
            }
        };
        let waiting = async {
            // A pipe somebody in the background still holds must not hold us: read on only for a moment after the end.
            let reading = async { tokio::join!(collect(stdout, &mut output), collect(stderr, &mut errors)) };
            tokio::pin!(reading);
            tokio::select! {
                _ = &mut reading => child.wait().await,
                status = child.wait() => {
                    let _ = tokio::time::timeout(DRAIN_LIMIT, reading).await;
                    status
                }
            }
        };
        // A program that ends without reading all its input must not leave us feeding for ever.
        tokio::pin!(feeding, waiting);
        tokio::select! {
            fed = &mut feeding => match fed {
                Ok(()) => waiting.await,
                Err(error) => Err(error),
            },
            status = &mut waiting => status,
        }
    };
    let status = match tokio::time::timeout(command.limit, work).await {
        Err(_) => {
            group.kill();
            let seconds = command.limit.as_secs_f32();
            return Err(Failure::new(Kind::Host, format!("{name} did not end within {seconds} s and was killed"))
                .detailed(String::from_utf8_lossy(&tail(&output, &errors)).into_owned())
                .may_pass());
        }
        Ok(Err(error)) => {
            return Err(Failure::new(Kind::Host, format!("cannot feed or await {name}")).because(&error).may_pass());
        }
        Ok(Ok(status)) => status,
    };
    // It ended by itself; what it left in the background on purpose may live.
    group.0 = None;
    Ok(Output { status: status_number(status), stdout: output, stderr: errors })
}

/// Copies everything into a program's standard input and closes it. A program that no longer reads ends the copying.
async fn feed(mut from: impl AsyncRead + Unpin, mut to: tokio::process::ChildStdin) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        match to.write_all(&buffer[..length]).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Reads to the end, keeping the first [`MAXIMUM_OUTPUT_BYTES`].
async fn collect(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let room = MAXIMUM_OUTPUT_BYTES.saturating_sub(into.len()).min(length);
        into.extend_from_slice(&buffer[..room]);
    }
}

/// The last 2 KiB of what a program said, standard error preferred.
fn tail(output: &[u8], errors: &[u8]) -> Vec<u8> {
    let said = if errors.is_empty() { output } else { errors };
    said[said.len().saturating_sub(2048)..].to_vec()
}

/// The exit status as a shell would show it.
fn status_number(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
