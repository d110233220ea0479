//! A host that is to leave and cannot be reached: the cluster forgets it, from a control plane that stays.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::access::Api;
use super::connect::Session;
use crate::api::wait::{Look, Wait};
use crate::api::{self, Client, NodeStatus};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Host, Role};
use crate::message::{LostMember, Request};

/// How long a Node may look alive after its machine died: the cluster gives a kubelet 40 to 50 s.
const LOST_LIMIT: Duration = Duration::from_secs(90);

/// Time between two looks at it.
const EVERY: Duration = Duration::from_secs(1);

/// Takes the host's etcd member out and removes its Node object; how many changes. `unreachable` is why it cannot be asked
/// itself.
///
/// # Errors
/// `unreachable`, when the host answers after all, or its Node stays ready: then it lives, and only the way to it is
/// broken. Kind `Cluster` when etcd would lose its quorum.
pub async fn forget(host: &Host, unreachable: Failure, staying: &Session, api: &Api) -> Result<u32> {
    if unreachable.kind != Kind::Connection {
        return Err(unreachable);
    }
    let events = staying.events.of_host(&host.name);
    let step = events.step("lost", "See whether the cluster has lost the node, too");
    let node = step.end(until_lost(host, unreachable, api, LOST_LIMIT).await)?;
    let mut changes = 0;
    if host.role == Role::ControlPlane {
        let addresses = addresses(host, node.as_ref());
        let lost = LostMember { node: host.name.clone(), addresses };
        changes += staying.agent.ask::<u32>(Request::RemoveLostMember(lost)).await?;
    }
    changes += u32::from(api::delete_node(api, &host.name).await?);
    events.warn(
        "it was not reached, so what is on the machine stays there: should it come back, its kubelet makes it a node \
         again; install it anew, or run `clusterctl node reset --force` on it first",
    );
    Ok(changes)
}

/// The Node when it is not ready any more; `None` where there is none. A kubelet that renews its lease meanwhile lives, and
/// that is known within seconds.
async fn until_lost(host: &Host, unreachable: Failure, api: &Client, limit: Duration) -> Result<Option<NodeStatus>> {
    let first_lease = OnceLock::new();
    let answers = AtomicBool::new(false);
    let wait = Wait::new(format!("Node {}", host.name), "be lost to the cluster", limit).every(EVERY);
    let waited = wait
        .until(async || {
            let nodes = api::nodes(api).await;
            answers.store(nodes.is_ok(), Ordering::Relaxed);
            let nodes = match nodes {
                Ok(nodes) => nodes,
                Err(failure) => return Ok(Look::NotYet(failure.to_string())),
            };
            match nodes.into_iter().find(|node| node.name == host.name) {
                Some(node) if node.ready => {}
                node => return Ok(Look::There(node)),
            }
            let lease = api.get("Lease", Some("kube-node-lease"), &host.name).await.ok().flatten();
            let renewed = lease.and_then(|lease| lease["spec"]["renewTime"].as_str().map(str::to_owned));
            match renewed {
                Some(renewed) if *first_lease.get_or_init(|| renewed.clone()) != renewed => {
                    Err(Failure::new(Kind::Cluster, format!("the kubelet of Node {} lives: it reports", host.name)))
                }
                _ => Ok(Look::NotYet("it is ready".to_owned())),
            }
        })
        .await;
    waited.map_err(|seen| {
        if !answers.into_inner() {
            let sentence = "the cluster does not say whether it has lost the node";
            return Failure::new(Kind::Cluster, sentence).because(&seen).may_pass().advise(
                "bring other control planes back first: without a majority of them etcd stands still, and nothing can be \
                 taken out of the cluster",
            );
        }
        unreachable.because(&seen).advise(
            "make the host reachable again, or switch it off: a node that lives is not taken out behind its back",
        )
    })
}

/// Where its member was: where its Node was; else where the inventory has it.
fn addresses(host: &Host, node: Option<&NodeStatus>) -> Vec<std::net::IpAddr> {
    match node {
        Some(node) if !node.addresses.is_empty() => node.addresses.clone(),
        _ => host.address.parse().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{addresses, until_lost};
    use crate::api::fake::FakeApi;
    use crate::failure::{Failure, Kind};
    use crate::inventory::{self, Host};

    fn host() -> Host {
        let text = "ssh: {user: root}\nhosts: {cp1: {address: 10.0.0.11}}\n";
        let inventory = inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"));
        inventory.unwrap_or_else(|findings| panic!("{findings:?}")).hosts.remove(0)
    }

    fn node(ready: &str) -> Value {
        json!({"kind": "Node", "metadata": {"name": "cp1"}, "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": "172.16.0.11"}],
        }})
    }

    fn unreachable() -> Failure {
        Failure::new(Kind::Connection, "10.0.0.11 does not answer")
    }

    #[tokio::test]
    async fn a_node_that_the_cluster_has_lost_tells_where_it_was() {
        let api = FakeApi::start().await;
        assert_eq!(until_lost(&host(), unreachable(), &api.client().await, super::LOST_LIMIT).await, Ok(None));
        assert_eq!(addresses(&host(), None), ["10.0.0.11".parse::<std::net::IpAddr>().unwrap()]);
        api.put(node("Unknown"));
        let lost = until_lost(&host(), unreachable(), &api.client().await, super::LOST_LIMIT).await.unwrap();
        assert_eq!(addresses(&host(), lost.as_ref()), ["172.16.0.11".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn a_cluster_that_stands_still_says_so() {
        let api = FakeApi::start().await;
        api.refuse_next(9, 500, "etcdserver: request timed out");
        let limit = std::time::Duration::from_millis(300);
        let failure = until_lost(&host(), unreachable(), &api.client().await, limit).await.unwrap_err();
        assert_eq!(failure.sentence, "the cluster does not say whether it has lost the node");
        assert!(failure.to_string().contains("request timed out"), "{failure}");
        assert!(failure.advice.unwrap().contains("majority"));
    }

    #[tokio::test]
    async fn a_node_whose_kubelet_reports_stays() {
        let api = FakeApi::start().await;
        api.put(node("True"));
        let (client, renewing) = (api.client().await, api.clone());
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(super::EVERY / 4);
            for second in 0.. {
                interval.tick().await;
                renewing.put(json!({"kind": "Lease", "metadata": {"name": "cp1", "namespace": "kube-node-lease"},
                    "spec": {"renewTime": format!("2026-11-23T18:00:{second:02}.000000Z")}}));
            }
        });
        let failure = until_lost(&host(), unreachable(), &client, super::LOST_LIMIT).await.unwrap_err();
        assert_eq!((failure.kind, failure.sentence.as_str()), (Kind::Connection, "10.0.0.11 does not answer"));
        assert_eq!(failure.causes, ["the kubelet of Node cp1 lives: it reports"]);
        assert!(failure.advice.unwrap().contains("switch it off"));
    }
}
