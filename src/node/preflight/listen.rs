//! Which addresses the components of a control plane are told to listen on, and what else listens there ('1.37 and
//! corrections', D).

use std::net::IpAddr;

use crate::kubernetes::configuration::{Arg, ClusterConfiguration};

/// Addresses that components listen on; without one it is all of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenAddresses {
    /// The API server's.
    pub api_server: Option<IpAddr>,
    /// The controller manager's.
    pub controller_manager: Option<IpAddr>,
    /// The scheduler's.
    pub scheduler: Option<IpAddr>,
    /// etcd's, for clients and peers alike.
    pub etcd: Option<IpAddr>,
}

impl ListenAddresses {
    /// What a cluster's configuration tells the components of the host that announces `advertise_address`. By the rule,
    /// etcd listens on what the API server announces.
    pub fn of(cluster: &ClusterConfiguration, advertise_address: &str) -> Self {
        let bound = |arguments: &[Arg]| given(arguments, "bind-address");
        Self {
            api_server: bound(&cluster.api_server.extra_args),
            controller_manager: bound(&cluster.controller_manager.extra_args),
            scheduler: bound(&cluster.scheduler.extra_args),
            etcd: given(&cluster.api_server.extra_args, "advertise-address").or(advertise_address.parse().ok()),
        }
    }
}

fn given(arguments: &[Arg], name: &str) -> Option<IpAddr> {
    arguments.iter().rev().find(|argument| argument.name == name)?.value.parse().ok()
}

/// Whether somebody who listens on `there` is in the way of whoever wants to listen on `wanted`, on the same port; `None`
/// and `::` are all addresses.
pub(super) fn meets(there: IpAddr, wanted: Option<IpAddr>) -> bool {
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    wanted.is_none_or(|wanted| there == wanted || covers(there, wanted) || covers(wanted, there))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{ListenAddresses, meets};
    use crate::kubernetes::configuration::{Arg, ClusterConfiguration};

    #[rstest]
    #[case("127.0.0.1", None, true)]
    #[case("127.0.0.1", Some("10.0.0.11"), false)]
    #[case("10.0.0.11", Some("10.0.0.11"), true)]
    #[case("0.0.0.0", Some("10.0.0.11"), true)]
    #[case("::", Some("10.0.0.11"), true)]
    #[case("0.0.0.0", Some("fd00::1"), false)]
    #[case("10.0.0.11", Some("0.0.0.0"), true)]
    #[case("fd00::1", Some("0.0.0.0"), false)]
    #[case("10.0.0.11", Some("::"), true)]
    fn who_is_in_the_way(#[case] there: &str, #[case] wanted: Option<&str>, #[case] expected: bool) {
        assert_eq!(meets(there.parse().unwrap(), wanted.map(|wanted| wanted.parse().unwrap())), expected);
    }

    #[test]
    fn addresses_are_those_of_the_arguments() {
        let mut cluster = ClusterConfiguration::default();
        let address = |text: &str| Some(text.parse().unwrap());
        let none = ListenAddresses { etcd: address("10.0.0.11"), ..ListenAddresses::default() };
        assert_eq!(ListenAddresses::of(&cluster, "10.0.0.11"), none);
        let argument = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
        cluster.api_server.extra_args =
            vec![argument("bind-address", "10.0.0.12"), argument("advertise-address", "10.0.0.13")];
        cluster.scheduler.extra_args = vec![argument("bind-address", "::1")];
        let told = ListenAddresses {
            api_server: address("10.0.0.12"),
            controller_manager: None,
            scheduler: address("::1"),
            etcd: address("10.0.0.13"),
        };
        assert_eq!(ListenAddresses::of(&cluster, "10.0.0.11"), told);
    }
}
