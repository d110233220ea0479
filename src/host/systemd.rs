//! Units of systemd, through `systemctl`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{Command, Entry, EntryKind, Host, Output, causes};
use crate::failure::{Failure, Kind, Result};

/// Longest time for a unit to start, stop or restart; above systemd's own default of 90 s.
const CHANGE_LIMIT: Duration = Duration::from_secs(120);

/// How often a state is looked at while it is waited for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How many lines of its log come with the failure of a unit.
const TAIL_LINES: u32 = 30;

/// What systemd says of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unit {
    /// There is a unit file.
    pub loaded: bool,
    /// Runs, or is starting (kubeadm counts both, kubeadm.md section 5.6).
    pub active: bool,
    /// Ended by itself, and systemd will start it again in a while: it is called active and does not run.
    pub restarting: bool,
    /// Gave up.
    pub failed: bool,
    /// Starts at boot.
    pub enabled: bool,
    /// The file or a drop-in changed since systemd read it.
    pub needs_reload: bool,
    /// Its main process runs a program whose file was replaced since.
    pub outdated: bool,
}

impl Unit {
    /// Whether it runs or is starting now. One that crashed a moment ago is better started than waited for.
    pub fn works(&self) -> bool {
        self.active && !self.restarting
    }
}

/// Parses what `systemctl show` prints: one block of `Key=value` lines a unit, in the order they were asked for. With each comes the
/// number of its main process, 0 where there is none.
fn parse_show(text: &str) -> Vec<(Unit, u32)> {
    let mut units = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let fields: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or_default();
        let unit = Unit {
            loaded: field("LoadState") == "loaded",
            active: matches!(field("ActiveState"), "active" | "activating" | "reloading"),
            restarting: field("SubState").starts_with("auto-restart"),
            failed: field("ActiveState") == "failed",
            enabled: matches!(field("UnitFileState"), "enabled" | "enabled-runtime"),
            needs_reload: field("NeedDaemonReload") == "yes",
            outdated: false,
        };
        units.push((unit, field("MainPID").parse().unwrap_or(0)));
    }
    units
}

/// States of several units, in one call; a unit that is not there is not `loaded`.
///
/// # Errors
/// When systemd does not answer.
pub async fn show(host: &dyn Host, units: &[&str]) -> Result<Vec<Unit>> {
    let properties = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,MainPID";
    let mut arguments = vec!["show", "-p", properties, "--"];
    arguments.extend(units);
    let output = host.run(Command::new("systemctl", &arguments)).await?;
    let mut states = parse_show(&output.text());
    if !output.success() || states.len() != units.len() {
        return Err(refused("systemd does not tell the state of units", &output));
    }
    states.truncate(units.len());
    Ok(states.into_iter().map(|(unit, process)| Unit { outdated: runs_what_is_gone(host, process), ..unit }).collect())
}

/// How the kernel ends the name of a program whose file is not there any more.
pub(super) const DELETED: &str = " (deleted)";

/// Whether the kernel says of a process that the file of its program is not there any more (proc(5), `exe`).
fn runs_what_is_gone(host: &dyn Host, process: u32) -> bool {
    let program = (process != 0).then(|| host.entry(Path::new(&format!("/proc/{process}/exe"))));
    // A process that ended meanwhile has none.
    match program {
        Some(Ok(Some(Entry { kind: EntryKind::Link(program), .. }))) => program.to_string_lossy().ends_with(DELETED),
        _ => false,
    }
}

/// As [`show`], for units that are known by name.
///
/// # Errors
/// As [`show`].
pub async fn show_each<const COUNT: usize>(host: &dyn Host, units: [&str; COUNT]) -> Result<[Unit; COUNT]> {
    let mut states = show(host, &units).await?.into_iter();
    Ok(units.map(|_| states.next().unwrap_or_default()))
}

/// State of one unit.
///
/// # Errors
/// When systemd does not answer.
pub async fn state(host: &dyn Host, unit: &str) -> Result<Unit> {
    Ok(show(host, &[unit]).await?.pop().unwrap_or_default())
}

/// Whether a unit runs or is starting.
///
/// # Errors
/// When systemd does not answer.
pub async fn is_active(host: &dyn Host, unit: &str) -> Result<bool> {
    Ok(state(host, unit).await?.active)
}

/// Makes systemd read its unit files again.
///
/// # Errors
/// When systemd refuses.
pub async fn daemon_reload(host: &dyn Host) -> Result<()> {
    systemctl(host, &["daemon-reload"], "systemd does not read its unit files again").await
}

/// Makes a unit start at boot. systemd need not read its files again for that.
///
/// # Errors
/// When there is no such unit, or it cannot be enabled.
pub async fn enable(host: &dyn Host, unit: &str) -> Result<()> {
    systemctl(host, &["enable", "--quiet", "--no-reload", unit], &format!("unit {unit} cannot be enabled")).await
}

/// Makes a unit not start at boot; one that is not there is fine.
///
/// # Errors
/// When systemd refuses.
pub async fn disable(host: &dyn Host, unit: &str) -> Result<()> {
    let mut now = state(host, unit).await?;
    if now.enabled && now.needs_reload {
        // What systemd remembers may be a unit whose file and links have gone: what took them was killed before it said so.
        daemon_reload(host).await?;
        now = state(host, unit).await?;
    }
    if !now.enabled {
        return Ok(());
    }
    systemctl(host, &["disable", "--quiet", "--no-reload", unit], &format!("unit {unit} cannot be disabled")).await
}

/// Starts a unit and waits until systemd calls it started.
///
/// # Errors
/// When it does not start; the end of its log is attached.
pub async fn start(host: &dyn Host, unit: &str) -> Result<()> {
    change(host, "start", unit, "does not start").await
}

/// Stops a unit; one that is not there or does not run is fine.
///
/// # Errors
/// When it does not stop.
pub async fn stop(host: &dyn Host, unit: &str) -> Result<()> {
    let before = state(host, unit).await?;
    if !before.loaded && !before.active {
        return Ok(());
    }
    change(host, "stop", unit, "does not stop").await
}

/// Restarts a unit, or starts it if it does not run.
///
/// # Errors
/// When it does not start again; the end of its log is attached.
pub async fn restart(host: &dyn Host, unit: &str) -> Result<()> {
    change(host, "restart", unit, "does not start again").await
}

/// Waits until a unit is active.
///
/// # Errors
/// When it fails or is not active within `limit`; the end of its log is attached.
pub async fn wait_active(host: &dyn Host, unit: &str, limit: Duration) -> Result<()> {
    let watching = async {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        loop {
            ticks.tick().await;
            let now = state(host, unit).await?;
            if now.active || now.failed {
                return Ok::<_, Failure>(now);
            }
        }
    };
    let sentence = match tokio::time::timeout(limit, watching).await {
        Ok(state) if state.as_ref().is_ok_and(|unit| unit.active) => return Ok(()),
        Ok(Err(failure)) => return Err(failure),
        Ok(Ok(_)) => format!("unit {unit} failed"),
        Err(_) => format!("unit {unit} is not active after {} s", limit.as_secs_f32()),
    };
    Err(with_log(host, unit, Failure::new(Kind::Host, sentence)).await)
}

/// The last lines of a unit's log; empty if there are none. Untrusted text.
pub async fn log_tail(host: &dyn Host, unit: &str, lines: u32) -> String {
    let lines = lines.to_string();
    let arguments = ["--unit", unit, "--lines", &lines, "--no-pager", "--quiet", "--output", "short-iso"];
    let command = Command::new("journalctl", &arguments).limit(Duration::from_secs(10));
    // The log explains another failure; where it cannot be had, that failure must still be told.
    host.run(command).await.map(|output| output.text()).unwrap_or_default()
}

async fn change(host: &dyn Host, verb: &str, unit: &str, complaint: &str) -> Result<()> {
    let outcome = host.run(Command::new("systemctl", &[verb, unit]).limit(CHANGE_LIMIT)).await;
    let failure = match outcome {
        Ok(output) if output.success() => return Ok(()),
        Ok(output) => refused(&format!("unit {unit} {complaint}"), &output),
        Err(failure) => failure,
    };
    Err(with_log(host, unit, failure).await)
}

async fn with_log(host: &dyn Host, unit: &str, failure: Failure) -> Failure {
    let log = log_tail(host, unit, TAIL_LINES).await;
    let failure = match causes::advice(&log) {
        Some(advice) => failure.advise(advice),
        None => failure.advise(format!("read `journalctl --unit {unit}` on the host")),
    };
    if log.is_empty() { failure } else { failure.detailed(log) }
}

async fn systemctl(host: &dyn Host, arguments: &[&str], complaint: &str) -> Result<()> {
    let output = host.run(Command::new("systemctl", arguments)).await?;
    if output.success() { Ok(()) } else { Err(refused(complaint, &output)) }
}

fn refused(sentence: &str, output: &Output) -> Failure {
    Failure::new(Kind::Host, sentence).caused_by(output.complaint("systemctl"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rstest::rstest;

    use super::{Unit, disable, parse_show, start, state, stop, wait_active};
    use crate::host::Output;
    use crate::host::fake::FakeHost;

    const SHOWN: &str = "Id=containerd.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\
                         NeedDaemonReload=no\nMainPID=7\n\nId=kubelet.service\nLoadState=not-found\nActiveState=inactive\n\
                         UnitFileState=\nNeedDaemonReload=no\n\nId=a.service\nLoadState=loaded\nActiveState=failed\n\
                         UnitFileState=disabled\nNeedDaemonReload=yes\n\nId=c.service\nLoadState=loaded\n\
                         ActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\nNeedDaemonReload=no\n";

    #[test]
    fn blocks_are_units_in_order() {
        let on = Unit { loaded: true, active: true, enabled: true, ..Unit::default() };
        let broken = Unit { loaded: true, failed: true, needs_reload: true, ..Unit::default() };
        let crashed = Unit { loaded: true, active: true, restarting: true, enabled: true, ..Unit::default() };
        assert!(on.works() && !broken.works() && !crashed.works());
        assert_eq!(parse_show(SHOWN), [(on, 7), (Unit::default(), 0), (broken, 0), (crashed, 0)]);
        assert!(parse_show("").is_empty());
    }

    #[rstest]
    #[case("/usr/local/bin/containerd", false)]
    #[case("/usr/local/bin/containerd (deleted)", true)]
    #[tokio::test]
    async fn a_program_that_was_replaced_under_its_process_is_seen(#[case] program: &str, #[case] outdated: bool) {
        let host = FakeHost::new().answer(&["systemctl", "show"], 0, SHOWN.split("\n\n").next().unwrap_or_default());
        let host = host.symlink(Path::new("/proc/7/exe"), Path::new(program));
        assert_eq!(state(&host, "containerd.service").await.unwrap().outdated, outdated);
    }

    #[tokio::test]
    async fn a_unit_that_does_not_start_is_explained_by_its_log() {
        let host =
            FakeHost::new().answer(&["systemctl", "start"], 1, "").answer(&["journalctl"], 0, "panic: no disk\n");
        let failure = start(&host, "kubelet.service").await.unwrap_err();
        assert_eq!(failure.sentence, "unit kubelet.service does not start");
        assert_eq!(failure.detail.as_deref(), Some("panic: no disk\n"));
        assert_eq!(failure.advice.as_deref(), Some("read `journalctl --unit kubelet.service` on the host"));
    }

    #[tokio::test]
    async fn a_known_cause_in_its_log_has_its_own_advice() {
        let log = "containerd: listen tcp 127.0.0.1:1338: bind: address already in use\n";
        let host = FakeHost::new().answer(&["systemctl", "start"], 1, "").answer(&["journalctl"], 0, log);
        let failure = start(&host, "containerd.service").await.unwrap_err();
        assert!(failure.advice.is_some_and(|advice| advice.starts_with("stop what listens")));
    }

    #[tokio::test]
    async fn a_unit_that_is_not_there_is_stopped_already() {
        let host = FakeHost::new().answer(&["systemctl", "show"], 0, "LoadState=not-found\nActiveState=inactive\n");
        stop(&host, "kubelet.service").await.unwrap();
        assert_eq!(host.ran().len(), 1);
    }

    #[tokio::test]
    async fn a_unit_whose_file_has_gone_is_not_disabled_by_what_systemd_remembers_of_it() {
        let said = |text: &str| Output { status: 0, stdout: text.as_bytes().to_vec(), stderr: Vec::new() };
        let host = FakeHost::new()
            .answer_with(&["systemctl", "daemon-reload"], move |host, _| {
                host.put(Path::new("/reloaded"), b"", 0o644);
                Ok(said(""))
            })
            .answer_with(&["systemctl", "show"], move |host, _| match host.text("/reloaded") {
                Some(_) => Ok(said("LoadState=not-found\nActiveState=inactive\n")),
                None => {
                    Ok(said("LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nNeedDaemonReload=yes\n"))
                }
            })
            .answer(&["systemctl", "disable"], 1, "");
        disable(&host, "a.service").await.unwrap();
    }

    #[tokio::test]
    async fn waiting_ends_when_the_unit_failed_or_the_limit_is_over() {
        let failed = FakeHost::new()
            .answer(&["systemctl", "show"], 0, "LoadState=loaded\nActiveState=failed\n")
            .answer(&["journalctl"], 0, "");
        let failure = wait_active(&failed, "a.service", Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(failure.sentence, "unit a.service failed");
        let idle = FakeHost::new()
            .answer(&["systemctl", "show"], 0, "LoadState=loaded\nActiveState=inactive\n")
            .answer(&["journalctl"], 0, "");
        let failure = wait_active(&idle, "a.service", Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(failure.sentence, "unit a.service is not active after 0.05 s");
    }
}
