//! `inventory from-cluster`: the inventory of a cluster that is there, also of one that kubeadm made. With it `up` takes the
//! cluster over.

mod draft;

use std::collections::BTreeMap;

use serde_json::Value;

use self::draft::{Found, draft};
use super::access::Api;
use super::connect::{Session, Settings, connect_to_control_plane};
use crate::api;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Inventory;
use crate::kubernetes::podnetwork::CNI_FILE;
use crate::message::{Ran, Request, RunOrder};
use crate::yaml;

/// By this annotation kubeadm marks a component's configuration that no person gave.
const GENERATED: &str = "/metadata/annotations/kubeadm.kubernetes.io~1component-config.hash";

/// The facts of all hosts. Nodes of a cluster that the inventory takes over count as its own: they have its CA.
pub(super) fn facts_of(inventory: &Inventory, sessions: &[Session]) -> BTreeMap<String, Facts> {
    let of = |session: &Session| (session.host.name.clone(), adopted(inventory, session.facts.clone()));
    sessions.iter().map(of).collect()
}

fn adopted(inventory: &Inventory, mut facts: Facts) -> Facts {
    let state = &mut facts.kubernetes;
    if inventory.cluster.adopt.is_some() && state.journal_cluster.is_none() && state.ca_hash == inventory.cluster.adopt
    {
        state.journal_cluster = Some(inventory.cluster.name.clone());
    }
    facts
}

/// The inventory of the cluster that the control plane in `inventory` belongs to, as text, and sentences about what it
/// cannot say. `user` and `port` were typed.
///
/// # Errors
/// When the host cannot be reached or is no control plane, and kind `Cluster` for a cluster that does not answer or that
/// an inventory cannot describe.
pub async fn from_cluster(
    inventory: &Inventory,
    user: Option<String>,
    port: Option<u16>,
    settings: &Settings,
) -> Result<(String, Vec<String>)> {
    let session = connect_to_control_plane(inventory, settings).await?;
    let api = Api::open(&session).await?;
    let (cluster, _) = document(&api, "kubeadm-config", "ClusterConfiguration").await?.ok_or_else(|| {
        Failure::new(Kind::Cluster, "there is no ConfigMap kube-system/kubeadm-config")
            .advise("only clusters that kubeadm or clusterctl made can be described")
    })?;
    let given = |read: Option<(Value, bool)>| read.filter(|(_, generated)| !generated).map(|(document, _)| document);
    let kubelet = given(document(&api, "kubelet-config", "kubelet").await?);
    let kube_proxy = given(document(&api, "kube-proxy", "config.conf").await?);
    let state = &session.facts.kubernetes;
    draft(&Found {
        cluster,
        kubelet,
        kube_proxy,
        nodes: api::nodes(&api).await?,
        adopt: if state.journal_cluster.is_none() { state.ca_hash.clone() } else { None },
        bridge: has_bridge(&session).await?,
        user,
        port,
    })
}

/// A document in a ConfigMap of kube-system, and whether kubeadm made it up.
async fn document(api: &Api, name: &str, key: &str) -> Result<Option<(Value, bool)>> {
    let unreadable = || Failure::new(Kind::Cluster, format!("the ConfigMap kube-system/{name} cannot be read"));
    let map = api.get("ConfigMap", Some("kube-system"), name).await;
    let Some(map) = map.map_err(|problem| unreadable().caused_by(problem.to_string()))? else { return Ok(None) };
    let generated = map.pointer(GENERATED).is_some();
    let Some(text) = map["data"][key].as_str() else { return Ok(None) };
    let documents = yaml::documents(text).map_err(|finding| unreadable().caused_by(finding.message))?;
    Ok(documents.into_iter().next().map(|(_, document)| (document, generated)))
}

/// Whether the host's pod network is ours.
async fn has_bridge(session: &Session) -> Result<bool> {
    let path = format!("/etc/cni/net.d/{CNI_FILE}");
    let order = RunOrder {
        arguments: vec!["test".to_owned(), "-e".to_owned(), path],
        environment: BTreeMap::new(),
        input: Vec::new(),
        limit_seconds: 10,
    };
    let ran: Ran = session.agent.ask(Request::Run(order)).await?;
    Ok(ran.status == 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::adopted;
    use crate::fact::Facts;
    use crate::inventory;

    #[rstest]
    #[case(Some('0'), None, Some("demo"))]
    #[case(Some('1'), None, None)]
    #[case(None, None, None)]
    #[case(Some('0'), Some("other"), Some("other"))]
    fn nodes_with_the_ca_that_is_taken_over_count_as_ours(
        #[case] ca: Option<char>,
        #[case] journal: Option<&str>,
        #[case] expected: Option<&str>,
    ) {
        let hash = |digit: char| format!("sha256:{}", digit.to_string().repeat(64));
        let text = format!("cluster: {{name: demo, adopt: '{}'}}\nssh: {{user: root}}\nhosts: [cp1]\n", hash('0'));
        let inventory = inventory::parse(&text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"));
        let mut facts = Facts::default();
        facts.kubernetes.ca_hash = ca.map(hash);
        facts.kubernetes.journal_cluster = journal.map(str::to_owned);
        assert_eq!(adopted(&inventory, facts).kubernetes.journal_cluster.as_deref(), expected);
    }
}
