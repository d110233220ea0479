//! Whether the version that is wanted is the one that the cluster has. Another one is no configuration like any other: minors come
//! one after the other, add-ons and etcd with them, and nothing goes back.

use semver::Version;

use crate::fact::Facts;
use crate::failure::{Failure, Kind};
use crate::inventory::Inventory;

/// What is wrong with the API server of a host: it is of another version than wanted.
pub(super) fn of_api_server(inventory: &Inventory, facts: &Facts) -> Option<Failure> {
    let wanted = &inventory.cluster.kubernetes;
    let there = Version::parse(facts.kubernetes.api_server_version.as_ref()?).ok().filter(|there| there != wanted)?;
    Some(
        Failure::new(Kind::Preflight, format!("its control plane is of Kubernetes {there}, the inventory wants {wanted}"))
            .advise(format!(
                "clusterctl does not upgrade a cluster: set `kubernetes: {there}` under cluster and take a bundle of that version; \
                 after `kubeadm upgrade` on the nodes, one minor at a time, set the new one"
            )),
    )
}

/// What is wrong with the kubelet of a member: it is newer than wanted.
pub(super) fn of_kubelet(inventory: &Inventory, facts: &Facts) -> Option<Failure> {
    let wanted = &inventory.cluster.kubernetes;
    let there = Version::parse(facts.kubernetes.kubelet_version.as_ref()?).ok()?;
    (there > *wanted).then(|| {
        Failure::new(Kind::Preflight, format!("its kubelet is of Kubernetes {there}, newer than the {wanted} that is wanted"))
            .advise(format!(
                "a kubelet does not go back: take a bundle of {there} when the control plane has it, or take the host out and join it anew"
            ))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{of_api_server, of_kubelet};
    use crate::cluster::plan::tests::{facts, inventory};

    #[rstest]
    #[case::the_same(Some("1.36.3"), Some("1.36.3"), false, false)]
    #[case::nothing_is_there(None, None, false, false)]
    #[case::an_upgrade(Some("1.35.7"), Some("1.35.7"), true, false)]
    #[case::a_way_back(Some("1.37.2"), Some("1.37.2"), true, true)]
    #[case::a_kubelet_that_is_left_behind(Some("1.36.3"), Some("1.35.7"), false, false)]
    #[case::a_kubelet_that_went_ahead(Some("1.36.3"), Some("1.36.4"), false, true)]
    #[case::another_patch(Some("1.36.2"), Some("1.36.2"), true, false)]
    fn another_version_than_the_clusters_is_refused(
        #[case] api_server: Option<&str>,
        #[case] kubelet: Option<&str>,
        #[case] of_all: bool,
        #[case] of_one: bool,
    ) {
        let (inventory, mut facts) = (inventory(), facts().remove("cp1").unwrap());
        assert_eq!(inventory.cluster.kubernetes.to_string(), "1.36.3");
        facts.kubernetes.api_server_version = api_server.map(str::to_owned);
        facts.kubernetes.kubelet_version = kubelet.map(str::to_owned);
        assert_eq!(of_api_server(&inventory, &facts).is_some(), of_all);
        assert_eq!(of_kubelet(&inventory, &facts).is_some(), of_one);
    }
}
