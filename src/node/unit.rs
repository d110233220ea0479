//! The kubelet's unit, as kubeadm handles it (kubeadm.md section 5.6).

use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host};

async fn systemctl(host: &dyn Host, arguments: &[&str]) -> Result<crate::host::Output> {
    host.run(Command::new("systemctl", arguments)).await
}

/// Whether a unit is active or activating.
pub(super) async fn active(host: &dyn Host, unit: &str) -> Result<bool> {
    let state = systemctl(host, &["is-active", unit]).await?.text();
    Ok(matches!(state.trim(), "active" | "activating" | "reloading"))
}

/// Stops a unit; `false` when it did not run or there is none.
pub(super) async fn stop(host: &dyn Host, unit: &str) -> Result<bool> {
    if !active(host, unit).await? {
        return Ok(false);
    }
    succeed(systemctl(host, &["stop", unit]).await?, unit, "stop")?;
    Ok(true)
}

/// Starts or restarts a unit after reading its files again, and has it started at boot.
pub(super) async fn restart(host: &dyn Host, unit: &str) -> Result<()> {
    succeed(systemctl(host, &["daemon-reload"]).await?, "systemd", "reload")?;
    succeed(systemctl(host, &["enable", "--quiet", unit]).await?, unit, "enable")?;
    succeed(systemctl(host, &["restart", unit]).await?, unit, "start")
}

fn succeed(output: crate::host::Output, unit: &str, verb: &str) -> Result<()> {
    if output.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(Kind::Host, format!("unit {unit} does not {verb}"))
        .caused_by(words.trim())
        .advise(format!("look at `systemctl status {unit}` and `journalctl -u {unit}` on the host")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{restart, stop};
    use crate::host::fake::FakeHost;

    #[rstest]
    #[case("active\n", true)]
    #[case("activating\n", true)]
    #[case("inactive\n", false)]
    #[case("failed\n", false)]
    #[tokio::test]
    async fn only_a_unit_that_runs_is_stopped(#[case] state: &str, #[case] stopped: bool) {
        let host = FakeHost::new().answer(&["systemctl", "is-active", "kubelet"], 0, state).answer(
            &["systemctl", "stop", "kubelet"],
            0,
            "",
        );
        assert_eq!(stop(&host, "kubelet").await, Ok(stopped));
        assert_eq!(host.done().len(), if stopped { 2 } else { 1 });
    }

    #[tokio::test]
    async fn a_unit_that_does_not_start_is_named() {
        let host = FakeHost::new().answer(&["systemctl"], 0, "").answer(&["systemctl", "restart"], 1, "");
        let failure = restart(&host, "kubelet").await.unwrap_err();
        assert_eq!(failure.sentence, "unit kubelet does not start");
    }
}
