//! A unit as the phases of a node handle it: stopped if it runs, started with what its files say now.

use crate::failure::Result;
use crate::host::{Host, systemd};

/// Stops a unit; `false` when it did not run or there is none.
pub(super) async fn stop(host: &dyn Host, unit: &str) -> Result<bool> {
    if !systemd::is_active(host, unit).await? {
        return Ok(false);
    }
    systemd::stop(host, unit).await?;
    Ok(true)
}

/// Starts or restarts a unit and has it started at boot. systemd reads its files again only where it must: that takes
/// longer than the start itself. It must after a unit was enabled: until then it says of every unit that its files are not
/// read yet, and the next run would restart what runs.
pub(super) async fn restart(host: &dyn Host, unit: &str) -> Result<()> {
    let state = systemd::state(host, unit).await?;
    if !state.enabled {
        systemd::enable(host, unit).await?;
    }
    if state.needs_reload || !state.loaded || !state.enabled {
        systemd::daemon_reload(host).await?;
    }
    systemd::restart(host, unit).await
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{restart, stop};
    use crate::host::fake::FakeHost;

    fn host(state: &str) -> FakeHost {
        FakeHost::new().answer(&["systemctl"], 0, "").answer(&["systemctl", "show"], 0, state)
    }

    #[rstest]
    #[case("LoadState=loaded\nActiveState=active\n", true)]
    #[case("LoadState=loaded\nActiveState=activating\n", true)]
    #[case("LoadState=loaded\nActiveState=inactive\n", false)]
    #[case("LoadState=not-found\nActiveState=inactive\n", false)]
    #[tokio::test]
    async fn only_a_unit_that_runs_is_stopped(#[case] state: &str, #[case] stopped: bool) {
        assert_eq!(stop(&host(state), "kubelet").await, Ok(stopped));
    }

    #[rstest]
    #[case("LoadState=loaded\nUnitFileState=enabled\nNeedDaemonReload=no\n", &["restart kubelet"])]
    #[case("LoadState=loaded\nUnitFileState=disabled\nNeedDaemonReload=yes\n",
           &["enable --quiet --no-reload kubelet", "daemon-reload", "restart kubelet"])]
    #[case("LoadState=loaded\nUnitFileState=disabled\nNeedDaemonReload=no\n",
           &["enable --quiet --no-reload kubelet", "daemon-reload", "restart kubelet"])]
    #[case("LoadState=loaded\nUnitFileState=enabled\nNeedDaemonReload=yes\n", &["daemon-reload", "restart kubelet"])]
    #[tokio::test]
    async fn systemd_is_asked_only_for_what_is_needed(#[case] state: &str, #[case] asked: &[&str]) {
        let host = host(state);
        restart(&host, "kubelet").await.unwrap();
        let done: Vec<String> = host.done().into_iter().skip(1).collect();
        assert_eq!(done, asked.iter().map(|words| format!("run systemctl {words}")).collect::<Vec<_>>());
    }
}
