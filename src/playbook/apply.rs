//! Makes one change, after the journal has what was there before.

use std::path::Path;
use std::time::Duration;

use super::observe::{FSTAB, is_swap_line, parameter};
use super::plan::{Change, Turn};
use crate::failure::{Failure, Kind, Result};
use crate::host::journal::{Contents, Entry, FSTAB_MARK, Journal};
use crate::host::observe::Kernel;
use crate::host::{Command, Host, containerd, systemd};

/// Makes a change of a task.
pub async fn apply(host: &dyn Host, journal: &Journal, change: &Change) -> Result<()> {
    match change {
        Change::Write { path, content, mode, .. } => journal.write_file(host, path, content, *mode),
        Change::SetMode { path, mode } => journal.set_mode(host, path, *mode),
        Change::Remove { path } => journal.remove_file(host, path),
        Change::MakeDirectory { path, mode, contents } => journal.make_directory(host, path, *mode, *contents),
        Change::Claim { path, mode } => journal.make_directory(host, path, *mode, Contents::Ours),
        Change::MakeLink { path, target } => journal.make_link(host, path, target),
        // All of an archive is unpacked in one pass over it, and systemd reads all files at once: see `run`.
        Change::Unpack { .. } | Change::Reload { .. } => Err(mismatch()),
        Change::LoadModule { name } => load_module(host, journal, name).await,
        Change::SetParameter { key, from, to } => {
            let path = parameter(key)?;
            if host.entry(&path)?.is_none() {
                return Err(Failure::new(Kind::Host, format!("this kernel has no parameter {key}"))
                    .advise("load the module it belongs to, or write `optional: true`"));
            }
            journal.record(host, Entry::Sysctl { key: key.clone(), value: from.clone() })?;
            host.poke(&path, format!("{to}\n").as_bytes())
        }
        Change::Remember { key, value } => {
            journal.record(host, Entry::Sysctl { key: key.clone(), value: value.clone() })
        }
        Change::SwapOff { device } => {
            journal.record(host, Entry::SwapOff { device: device.clone() })?;
            run(host, "swapoff", &[device], Duration::from_secs(300)).await
        }
        Change::CommentFstab => {
            journal.record(host, Entry::FstabCommented)?;
            let text = host.read(Path::new(FSTAB))?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let mark = |line: &str| if is_swap_line(line) { format!("{FSTAB_MARK}{line}") } else { line.to_owned() };
            let mode = host.entry(Path::new(FSTAB))?.map_or(0o644, |entry| entry.mode);
            host.write(Path::new(FSTAB), text.split_inclusive('\n').map(mark).collect::<String>().as_bytes(), mode)
        }
        Change::Enable { unit, enabled, before } => {
            record_unit(host, journal, unit, *before)?;
            if *enabled { systemd::enable(host, unit).await } else { systemd::disable(host, unit).await }
        }
        Change::Turn { unit, how, before } => {
            record_unit(host, journal, unit, *before)?;
            if *how == Turn::Restart {
                journal.record(host, Entry::Restarted { name: unit.clone() })?;
            }
            match how {
                Turn::Start => systemd::start(host, unit).await,
                Turn::Stop => systemd::stop(host, unit).await,
                Turn::Restart => systemd::restart(host, unit).await,
            }
        }
        Change::Pull { reference } => {
            journal.record(host, Entry::Image { reference: reference.clone() })?;
            containerd::pull(host, reference).await
        }
        Change::Run { argv, undo, limit_seconds } => {
            if let Some(undo) = undo {
                journal.record(host, Entry::Command { undo: undo.clone() })?;
            }
            let Some((program, arguments)) = argv.split_first() else { return Err(mismatch()) };
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            run(host, program, &arguments, Duration::from_secs(*limit_seconds)).await
        }
    }
}

fn mismatch() -> Failure {
    Failure::new(Kind::Internal, "a change does not belong to its task")
}

fn record_unit(host: &dyn Host, journal: &Journal, unit: &str, before: (bool, bool)) -> Result<()> {
    journal.record(host, Entry::Unit { name: unit.to_owned(), enabled: before.0, active: before.1 })
}

/// Loads a module. A kernel that has its feature built in has no such module to load, which is fine.
async fn load_module(host: &dyn Host, journal: &Journal, name: &str) -> Result<()> {
    journal.record(host, Entry::Module { name: name.to_owned() })?;
    let Err(failure) = run(host, "modprobe", &[name], Duration::from_secs(60)).await else { return Ok(()) };
    if Kernel::read(host)?.has(host, name)? {
        return Ok(());
    }
    Err(failure.advise(format!("install the kernel's module {name}, or boot the kernel whose modules are installed")))
}

async fn run<Text: AsRef<str>>(host: &dyn Host, program: &str, arguments: &[Text], limit: Duration) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let output = host.run(Command::new(program, &arguments).limit(limit)).await?;
    if output.success() {
        return Ok(());
    }
    let line = [&[program], arguments.as_slice()].concat().join(" ");
    let failure = Failure::new(Kind::Host, format!("`{line}` failed with status {}", output.status));
    let said = [String::from_utf8_lossy(&output.stderr).into_owned(), output.text()].concat();
    let said = said.trim();
    Err(if said.is_empty() { failure } else { failure.detailed(said) })
}
