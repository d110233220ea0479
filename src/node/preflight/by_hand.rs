//! Checks of a host that somebody else prepared; what `up` prepares has just been made, and is not asked again.

use super::{Finding, Found, runtime_serves};
use crate::host::{Host, systemd};
use crate::kubernetes::version::Release;
use crate::node::kubelet::UNIT;

/// Whether the runtime serves kubelets, and the kubelet's unit is there and starts at boot.
pub(in crate::node) async fn by_hand(
    host: &dyn Host,
    release: &Release,
    socket: &str,
    ignore: &[String],
) -> Vec<Finding> {
    let mut found = Found::default();
    let (serves, ()) = tokio::join!(runtime_serves(host, socket, ignore), kubelet_unit(host, release, &mut found));
    found.0.extend(serves);
    found.downgrade(ignore)
}

/// kubeadm's check Service-kubelet, which never is an error. Whether it runs does not matter: it is started later.
async fn kubelet_unit(host: &dyn Host, release: &Release, found: &mut Found) {
    let message = match systemd::state(host, UNIT).await {
        Ok(unit) if !unit.loaded => {
            "systemd has no unit kubelet; install the package kubelet, or bring kubelet.service and its drop-in"
                .to_owned()
        }
        Ok(unit) if !unit.enabled => {
            "the unit kubelet does not start at boot; run `systemctl enable kubelet`".to_owned()
        }
        Ok(_) => return,
        Err(failure) => failure.to_string(),
    };
    found.warning(release.kubelet_unit_check, message);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use semver::Version;

    use super::by_hand;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::version::Release;

    #[rstest]
    #[case(36, "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\n", None)]
    #[case(36, "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n", Some("does not start at boot"))]
    #[case(34, "LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", Some("has no unit kubelet"))]
    #[tokio::test]
    async fn the_unit_of_the_kubelet_is_looked_at(
        #[case] minor: u64,
        #[case] unit: &str,
        #[case] message: Option<&str>,
    ) {
        let host = FakeHost::new().answer(&["systemctl"], 0, "").every_unit(unit);
        let release = Release::of(&Version::new(1, minor, 0)).unwrap();
        let found = by_hand(&host, release, "unix:///run/crio/crio.sock", &[]).await;
        let name = if minor < 35 { "Service-Kubelet" } else { "Service-kubelet" };
        match message {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(message) => assert!(found[0].name == name && found[0].message.contains(message), "{found:?}"),
        }
    }
}
