//! For this module's tests: targets, and servers to connect to.

use std::time::Duration;

use crate::inventory::HostKeys;

use super::target::Target;

/// A target on loopback.
pub(super) fn target(name: &str, port: u16) -> Target {
    Target {
        name: name.to_owned(),
        address: "127.0.0.1".to_owned(),
        port,
        user: "ops".to_owned(),
        identities: Vec::new(),
        agent: false,
        password: None,
        known_hosts: Vec::new(),
        host_keys: HostKeys::Strict,
        connect_limit: Duration::from_secs(20),
    }
}
