//! What nodes reach the API by: the built-in balancer of each host, and that an endpoint is never changed. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::cluster::documents::{Documents, NodeAddress};
use crate::fact::Facts;
use crate::failure::{Failure, Kind};
use crate::inventory::{BUILT_IN_ENDPOINT, Endpoint, Host, Inventory, Role};
use crate::message::{ApiServer, BalancerOrder};

/// Whether every node has a balancer of ours.
pub(super) fn is_built_in(inventory: &Inventory) -> bool {
    inventory.cluster.endpoint == Some(Endpoint::BuiltIn)
}

/// The balancer of a host, in front of the API servers of all control planes whose addresses are known.
pub(super) fn balancer(
    inventory: &Inventory,
    documents: &Documents,
    nodes: &BTreeMap<String, NodeAddress>,
    own: &str,
) -> Option<BalancerOrder> {
    let server = |host: &Host| {
        let address = SocketAddr::new(nodes.get(&host.name)?.address, documents.bind_port());
        Some(ApiServer { address, local: host.name == own })
    };
    is_built_in(inventory).then(|| BalancerOrder {
        listen: BUILT_IN_ENDPOINT,
        servers: inventory.control_planes().filter_map(server).collect(),
    })
}

/// What the balancer cannot do with on any host.
pub(super) fn port_of_api_servers(inventory: &Inventory, documents: &Documents) -> Option<Failure> {
    let port = BUILT_IN_ENDPOINT.port();
    (is_built_in(inventory) && documents.bind_port() == port).then(|| {
        let sentence = format!("the API servers' bindPort is {port}, where the built-in endpoint listens");
        Failure::new(Kind::Configuration, sentence)
            .advise("choose another localAPIEndpoint.bindPort in cluster.kubeadm, or leave it out")
    })
}

/// Why a host cannot have the balancer.
pub(super) fn port_taken(inventory: &Inventory, facts: &Facts) -> Option<Failure> {
    if !is_built_in(inventory) || facts.kubernetes.journal_cluster.as_deref() == Some(&inventory.cluster.name) {
        return None;
    }
    let taken = facts.listening.iter().find(|listening| {
        let address = listening.address;
        listening.port == BUILT_IN_ENDPOINT.port()
            && (address.is_unspecified() || address == BUILT_IN_ENDPOINT.ip() || address.to_canonical().is_loopback())
    })?;
    let who = taken.process.as_deref().unwrap_or("another program");
    let sentence = format!("{who} listens on {} port {}, which the built-in endpoint needs", taken.address, taken.port);
    Some(Failure::new(Kind::Preflight, sentence).advise("stop that program"))
}

/// Why a control plane of this cluster does not fit to the inventory's endpoint: it stands in certificates and
/// kubeconfigs of all nodes.
pub(super) fn changed(inventory: &Inventory, host: &Host, facts: &Facts) -> Option<Failure> {
    let state = &facts.kubernetes;
    if host.role != Role::ControlPlane || state.journal_cluster.as_deref() != Some(&inventory.cluster.name) {
        return None;
    }
    let there = state.admin_server.as_deref()?;
    let built_in = format!("https://{BUILT_IN_ENDPOINT}");
    let (wanted, fits) = match &inventory.cluster.endpoint {
        Some(endpoint) => (format!("{endpoint}"), there == format!("https://{}", endpoint.address())),
        None => ("not written".to_owned(), there != built_in),
    };
    if fits {
        return None;
    }
    let was = if there == built_in { "built-in" } else { there.trim_start_matches("https://") };
    let sentence = format!("the cluster was made with the endpoint {was}, and cluster.endpoint is {wanted}");
    Some(Failure::new(Kind::Preflight, sentence).advise(
        "an endpoint cannot be changed: write the former one, or run `clusterctl down` and `clusterctl up` with the new one",
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{changed, port_taken};
    use crate::fact::{Facts, Listening};
    use crate::inventory::{self, Inventory};

    fn inventory(endpoint: &str) -> Inventory {
        let endpoint = if endpoint.is_empty() { String::new() } else { format!(", endpoint: '{endpoint}'") };
        let text = format!("cluster: {{name: demo{endpoint}}}\nssh: {{user: root}}\nhosts: [cp1, w1]\n");
        inventory::parse(&text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"))
    }

    #[rstest]
    #[case("built-in", "https://127.0.0.1:6444", None)]
    #[case("api.demo:6443", "https://api.demo:6443", None)]
    #[case("fd00::10", "https://[fd00::10]:6443", None)]
    #[case("", "https://10.0.0.11:6443", None)]
    #[case("built-in", "https://10.0.0.11:6443", Some("endpoint 10.0.0.11:6443, and cluster.endpoint is built-in"))]
    #[case("api.demo", "https://127.0.0.1:6444", Some("endpoint built-in, and cluster.endpoint is api.demo:6443"))]
    #[case("", "https://127.0.0.1:6444", Some("endpoint built-in, and cluster.endpoint is not written"))]
    fn an_endpoint_is_never_changed(#[case] wanted: &str, #[case] there: &str, #[case] words: Option<&str>) {
        let inventory = inventory(wanted);
        let mut facts = Facts::default();
        facts.kubernetes.admin_server = Some(there.to_owned());
        // Another cluster's kubeconfig is another check's affair.
        assert_eq!(changed(&inventory, &inventory.hosts[0], &facts), None);
        facts.kubernetes.journal_cluster = Some("demo".to_owned());
        let failure = changed(&inventory, &inventory.hosts[0], &facts);
        assert_eq!(failure.is_some(), words.is_some(), "{failure:?}");
        assert!(failure.is_none_or(|failure| failure.sentence.ends_with(words.unwrap_or_default())));
        assert_eq!(changed(&inventory, &inventory.hosts[1], &facts), None);
    }

    #[rstest]
    #[case("127.0.0.1", 6444, true)]
    #[case("0.0.0.0", 6444, true)]
    #[case("::", 6444, true)]
    #[case("10.0.0.11", 6444, false)]
    #[case("0.0.0.0", 6443, false)]
    fn a_port_that_is_taken_is_found_before_anything_is_touched(
        #[case] address: &str,
        #[case] port: u16,
        #[case] taken: bool,
    ) {
        let mut facts = Facts::default();
        facts.listening.push(Listening { address: address.parse().unwrap(), port, process: Some("java".into()) });
        assert_eq!(port_taken(&inventory("built-in"), &facts).is_some(), taken);
        assert_eq!(port_taken(&inventory(""), &facts), None);
        facts.kubernetes.journal_cluster = Some("demo".to_owned());
        assert_eq!(port_taken(&inventory("built-in"), &facts), None);
    }
}
