//! network
pub(super) const CNI_FILE: &str = "/etc/cni/net.d/10-clusterctl.conflist";
pub(super) const UNIT: &str = "clusterctl-network.service";
pub(super) const UNIT_FILE: &str = "/etc/systemd/system/clusterctl-network.service";
