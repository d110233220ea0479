//! Putting a host back: the journal read backwards.
//!
//! Every entry may be undone twice, because a run may be broken off: what could be undone is forgotten only when all of it
//! is done, and what could not is kept for the next time.

use std::collections::BTreeSet;
use std::path::Path;

use super::{BACKUPS, Contents, Entry, FSTAB_MARK, JOURNAL, STATE_DIRECTORY, load, parse};
use crate::event::{Events, Step};
use crate::failure::{Failure, Kind, Result};
use crate::host::listing::AWAITED;
use crate::host::machine::is_beside;
use crate::host::{Command, EntryKind, Host, containerd, sysctl_path, systemd};

/// Undoes everything the journal has, latest first, and removes the journal, the backups and what else lies in
/// /var/lib/clusterctl, apart from the program that is running and a listing that is still to be compared. Returns how many things were altered.
///
/// A single thing that cannot be undone does not stop the rest.
///
/// # Errors
/// When something could not be undone; it stays in the journal, so that the same command tries it again.
pub async fn restore(host: &dyn Host, events: &Events) -> Result<u32> {
    let mut step = events.step("restore", "Put back what was changed");
    let result = undo_all(host, &mut step).await;
    let changes = step.changes();
    step.end(result)?;
    Ok(changes)
}

async fn undo_all(host: &dyn Host, step: &mut Step) -> Result<()> {
    let text = load(host)?.unwrap_or_default();
    let parsed = parse(&text);
    let mut failures = Vec::new();
    let mut kept = Vec::new();
    let mut later = Later::default();
    for entry in parsed.entries.iter().rev() {
        match undo(host, entry, &mut later).await {
            Ok(Some(change)) => step.changed(change),
            Ok(None) => {}
            Err(failure) => {
                kept.push(entry);
                failures.push(failure);
            }
        }
    }
    later.finish(host, step, &mut failures).await;
    if failures.is_empty() {
        return clean(host, parsed.damaged.len());
    }
    if let Some(header) = &parsed.header {
        kept.reverse();
        let mut lines = super::line(header)?;
        for entry in kept {
            lines.push_str(&super::line(entry)?);
        }
        host.write(Path::new(JOURNAL), lines.as_bytes(), 0o600)?;
    }
    Err(summary(&failures))
}

/// One failure for all of them: the first says most, the rest are attached.
fn summary(failures: &[Failure]) -> Failure {
    let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let sentence = match failures.len() {
        1 => "one thing could not be put back".to_owned(),
        count => format!("{count} things could not be put back"),
    };
    Failure::new(Kind::Host, sentence)
        .caused_by(all[0].clone())
        .advise(
            "remove the cause and run the same command again; what was put back is forgotten, the rest is tried again",
        )
        .detailed(all.join("\n"))
        .may_pass()
}

/// Removes the journal last, so that a run broken off here begins with it again.
fn clean(host: &dyn Host, damaged: usize) -> Result<()> {
    host.remove_tree(Path::new(BACKUPS))?;
    let running = std::env::current_exe().unwrap_or_default();
    let state = Path::new(STATE_DIRECTORY);
    for name in host.list(state)? {
        let path = state.join(name);
        if path != Path::new(JOURNAL) && path != Path::new(AWAITED) && !running.starts_with(&path) {
            host.remove_tree(&path)?;
        }
    }
    host.remove(Path::new(JOURNAL))?;
    if host.list(state)?.is_empty() {
        host.remove(state)?;
    }
    if damaged > 0 {
        let sentence = format!("{damaged} lines of {JOURNAL} could not be read; what they were about is not put back");
        return Err(Failure::new(Kind::Host, sentence));
    }
    Ok(())
}

/// What can only be done when all files are back.
#[derive(Default)]
struct Later {
    reload: bool,
    start: Vec<String>,
    restart: BTreeSet<String>,
    /// Units that did not run before us.
    stopped: BTreeSet<String>,
}

impl Later {
    async fn finish(&self, host: &dyn Host, step: &mut Step, failures: &mut Vec<Failure>) {
        if self.reload
            && let Err(failure) = systemd::daemon_reload(host).await
        {
            failures.push(failure);
        }
        // A unit that did not run before us was stopped, whatever restarted it in between.
        for name in self.restart.difference(&self.stopped) {
            match systemd::restart(host, name).await {
                Ok(()) => step.changed(format!("unit {name} restarted")),
                Err(failure) => failures.push(failure),
            }
        }
        for name in self.start.iter().filter(|name| !self.restart.contains(*name)) {
            match systemd::start(host, name).await {
                Ok(()) => step.changed(format!("unit {name} started")),
                Err(failure) => failures.push(failure),
            }
        }
    }
}

/// Undoes one entry and says what was altered, or nothing where it is so already.
async fn undo(host: &dyn Host, entry: &Entry, later: &mut Later) -> Result<Option<String>> {
    if let Entry::Created { path } | Entry::Replaced { path, .. } | Entry::Relinked { path, .. } = entry {
        remove_unfinished(host, path)?;
    }
    match entry {
        Entry::Created { path } => remove_file(host, path),
        Entry::Replaced { path, backup, mode } => put_back(host, path, backup, *mode),
        Entry::Relinked { path, target } => {
            let there = host.entry(path)?.map(|entry| entry.kind);
            if there == Some(EntryKind::Link(target.clone())) || parent_is_missing(host, path)? {
                return Ok(None);
            }
            host.link(path, target)?;
            Ok(Some(format!("link {} put back", path.display())))
        }
        Entry::Mode { path, mode } => match host.entry(path)? {
            Some(entry) if entry.mode != *mode => {
                host.set_mode(path, *mode)?;
                Ok(Some(format!("mode of {} put back to {mode:04o}", path.display())))
            }
            _ => Ok(None),
        },
        Entry::Directory { path } => {
            // What others put there since is not ours to take away.
            if host.entry(path)?.is_none_or(|entry| entry.kind != EntryKind::Directory) || !host.list(path)?.is_empty()
            {
                return Ok(None);
            }
            match host.remove(path) {
                Ok(()) => Ok(Some(format!("directory {} removed", path.display()))),
                // Somebody uses it by now, as `ip netns` does with /run/netns.
                Err(_) if is_mount_point(host, path)? => Ok(None),
                Err(failure) => Err(failure),
            }
        }
        Entry::Tree { path } => remove_directory(host, path, Contents::Ours),
        Entry::Filled { path } => remove_directory(host, path, Contents::Shared),
        Entry::Sysctl { key, value } => put_sysctl_back(host, key, value),
        Entry::Module { name } => {
            let outcome = host.run(Command::new("modprobe", &["-r", name])).await?;
            // A module somebody else uses by now stays.
            Ok(outcome.success().then(|| format!("module {name} unloaded")))
        }
        Entry::SwapOff { device } => {
            let swaps = host.read(Path::new("/proc/swaps"))?.unwrap_or_default();
            if String::from_utf8_lossy(&swaps).lines().any(|line| line.split_whitespace().next() == Some(device)) {
                return Ok(None);
            }
            run_undo(host, &["swapon".to_owned(), device.clone()]).await?;
            Ok(Some(format!("swap {device} turned on")))
        }
        Entry::FstabCommented => put_fstab_back(host),
        Entry::Unit { name, enabled, active } => put_unit_back(host, name, *enabled, *active, later).await,
        Entry::Restarted { name } => {
            later.reload = true;
            later.restart.insert(name.clone());
            Ok(None)
        }
        Entry::Image { reference } => {
            let removed = containerd::remove_image(host, reference).await?;
            Ok(removed.then(|| format!("image {reference} removed")))
        }
        Entry::Command { undo } => {
            run_undo(host, undo).await?;
            Ok(Some(format!("ran {}", undo.join(" "))))
        }
    }
}

/// Removes what agents that were killed had only begun to write in place of a file.
fn remove_unfinished(host: &dyn Host, path: &Path) -> Result<()> {
    let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else { return Ok(()) };
    if parent_is_missing(host, path)? {
        return Ok(());
    }
    let file = file.to_string_lossy();
    for name in host.list(parent)?.iter().filter(|name| is_beside(name, &file)) {
        host.remove(&parent.join(name))?;
    }
    Ok(())
}

fn is_mount_point(host: &dyn Host, path: &Path) -> Result<bool> {
    let table = host.read(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&table).lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(path)))
}

fn remove_file(host: &dyn Host, path: &Path) -> Result<Option<String>> {
    match host.entry(path)? {
        None => Ok(None),
        Some(entry) if entry.kind == EntryKind::Directory => {
            Err(Failure::new(Kind::Host, format!("{} was a file of ours and is a directory now", path.display())))
        }
        Some(_) => {
            host.remove(path)?;
            Ok(Some(format!("file {} removed", path.display())))
        }
    }
}

fn put_back(host: &dyn Host, path: &Path, backup: &Path, mode: u32) -> Result<Option<String>> {
    let Some(content) = host.read(backup)? else {
        return Err(Failure::new(Kind::Host, format!("the copy of {} is gone", path.display()))
            .caused_by(format!("there is no {}", backup.display())));
    };
    let same = host.entry(path)?.is_some_and(|entry| entry.kind == EntryKind::File && entry.mode == mode)
        && host.read(path)?.as_deref() == Some(&content);
    if same {
        return Ok(None);
    }
    if parent_is_missing(host, path)? {
        host.create_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    }
    host.write(path, &content, mode)?;
    Ok(Some(format!("file {} put back", path.display())))
}

fn parent_is_missing(host: &dyn Host, path: &Path) -> Result<bool> {
    match path.parent() {
        Some(parent) => Ok(host.entry(parent)?.is_none()),
        None => Ok(false),
    }
}

/// Removes a directory's content and, if it is ours as a whole, itself.
fn remove_directory(host: &dyn Host, path: &Path, whose: Contents) -> Result<Option<String>> {
    if host.entry(path)?.is_none() {
        return Ok(None);
    }
    let names = host.list(path)?;
    if whose == Contents::Ours {
        host.remove_tree(path)?;
        return Ok(Some(format!("directory {} removed", path.display())));
    }
    for name in &names {
        host.remove_tree(&path.join(name))?;
    }
    Ok((!names.is_empty()).then(|| format!("directory {} emptied", path.display())))
}

fn put_sysctl_back(host: &dyn Host, key: &str, value: &str) -> Result<Option<String>> {
    let path = sysctl_path(key);
    match host.read(&path)? {
        // Its module is gone, and the parameter with it.
        None => Ok(None),
        Some(now) if String::from_utf8_lossy(&now).trim_end() == value => Ok(None),
        Some(_) => {
            host.poke(&path, value.as_bytes())?;
            Ok(Some(format!("sysctl {key} put back to {value}")))
        }
    }
}

fn put_fstab_back(host: &dyn Host) -> Result<Option<String>> {
    let path = Path::new("/etc/fstab");
    let (Some(content), Some(entry)) = (host.read(path)?, host.entry(path)?) else { return Ok(None) };
    let text = String::from_utf8_lossy(&content);
    if !text.lines().any(|line| line.starts_with(FSTAB_MARK)) {
        return Ok(None);
    }
    let lines = text.split_inclusive('\n').map(|line| line.strip_prefix(FSTAB_MARK).unwrap_or(line));
    host.write(path, lines.collect::<String>().as_bytes(), entry.mode)?;
    Ok(Some("swap lines of /etc/fstab put back".to_owned()))
}

async fn put_unit_back(
    host: &dyn Host,
    name: &str,
    enabled: bool,
    active: bool,
    later: &mut Later,
) -> Result<Option<String>> {
    later.reload = true;
    if !active {
        later.stopped.insert(name.to_owned());
    }
    let now = systemd::state(host, name).await?;
    let mut done = Vec::new();
    if now.active && !active {
        systemd::stop(host, name).await?;
        done.push("stopped");
    }
    if now.enabled && !enabled {
        systemd::disable(host, name).await?;
        done.push("disabled");
    }
    if now.loaded && !now.enabled && enabled {
        systemd::enable(host, name).await?;
        done.push("enabled");
    }
    if !now.active && active {
        later.start.push(name.to_owned());
    }
    Ok((!done.is_empty()).then(|| format!("unit {name} {}", done.join(" and "))))
}

async fn run_undo(host: &dyn Host, undo: &[String]) -> Result<()> {
    let Some((program, arguments)) = undo.split_first() else { return Ok(()) };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = host.run(Command::new(program, &arguments)).await?;
    if output.success() {
        return Ok(());
    }
    Err(Failure::new(Kind::Host, format!("`{}` failed", undo.join(" "))).caused_by(output.complaint(program)))
}
