//! A head start for controller manager and scheduler, right after a new API server takes its first object.
//!
//! What is written here is what Kubernetes writes by itself some seconds later, name for name and field for field. Its own
//! way is slow on the first start of a cluster: the two ask for their leases before the API server has given them the
//! right to, and then wait 2 seconds and more; the controller manager makes an account for each of its forty controllers,
//! at 20 requests a second. Joining nodes wait for all of that. Nothing here may fail a run: what is missing comes anyway.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::plan::Plan;
use crate::api::wait::{Look, Wait};
use crate::api::{Client, create_or_update_all};
use crate::failure::Result;
use crate::kubernetes::configuration::{ClusterConfiguration, subnets};

/// Users that need their rights early; the API server's role has the same name.
const USERS: [&str; 2] = ["system:kube-controller-manager", "system:kube-scheduler"];

/// The classes that every cluster has: name, value, description.
const PRIORITIES: [(&str, u32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// Beginning of the names of the roles that the API server makes for controllers; the rest is the account's name.
const CONTROLLER_ROLE: &str = "system:controller:";

/// Controllers that have a role and do not run, so that they have no account.
const WITHOUT_ACCOUNT: &[&str] = &["route-controller", "selinux-warning-controller", "service-controller"];

/// Where the API server says whether it has made its roles.
const ROLES: &str = "/readyz/poststarthook/rbac/bootstrap-roles";

/// How long writing one of these is tried, and how long roles are looked for.
const LIMIT: Duration = Duration::from_secs(10);

/// Binds the users of controller manager and scheduler to their roles, as the API server does a second later.
pub(super) async fn rights(client: &Client) -> Result<()> {
    let bindings: Vec<Value> = USERS.iter().map(|user| binding(user)).collect();
    create_or_update_all(client, &bindings, LIMIT).await.map(drop)
}

/// Makes the priority classes that the API server makes a second later. Without them it refuses the kubelet's pods of the
/// control plane, and the kubelet tries again when its next look is due: 10 to 90 seconds later.
pub(super) async fn priorities(client: &Client) -> Result<()> {
    create_or_update_all(client, &classes(), LIMIT).await.map(drop)
}

/// The same of an API server that is about to come up, from the first moment on in which it takes an object: the kubelet shows its
/// pods a tenth of a second after it has registered its node, which may be the first that the API server takes.
pub(super) async fn priorities_at_once(client: &Client, limit: Duration) -> Result<()> {
    let client = client.clone().hurried(Duration::from_secs(5));
    for class in classes() {
        let wait = Wait::new("the API server", "take the priority classes", limit).every(Duration::from_millis(25));
        wait.until(async || match client.create(&class).await {
            Ok(_) => Ok(Look::There(())),
            Err(problem) if problem.is_already_there() => Ok(Look::There(())),
            Err(problem) => Ok(Look::NotYet(problem.to_string())),
        })
        .await?;
    }
    Ok(())
}

fn classes() -> [Value; 2] {
    PRIORITIES.map(|(name, value, description)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "description": description,
        })
    })
}

/// Waits until the API server has made the roles of controller manager and scheduler; it makes dozens, one by one.
pub(super) async fn own_roles(client: &Client) -> Result<()> {
    let wait = Wait::new("the API server", "make the roles of its own users", LIMIT).every(Duration::from_millis(50));
    wait.until(async || {
        for user in USERS {
            match client.get("ClusterRole", None, user).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Look::NotYet(format!("there is no ClusterRole {user}"))),
                Err(problem) => return Ok(Look::NotYet(problem.to_string())),
            }
        }
        Ok(Look::There(()))
    })
    .await
}

/// The binding that the API server makes for its own user of this name.
fn binding(user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {
            "name": user,
            "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
            "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    })
}

/// Arguments of the controller manager by which nodes get other pod networks than the ordinary ones, or none.
const POD_NETWORK_ARGUMENTS: &[&str] = &[
    "allocate-node-cidrs",
    "cidr-allocator-type",
    "cluster-cidr",
    "node-cidr-mask-size",
    "node-cidr-mask-size-ipv4",
    "node-cidr-mask-size-ipv6",
];

/// The controller manager's sizes of a node's pod network.
const POD_NETWORK_BITS_V4: u8 = 24;
const POD_NETWORK_BITS_V6: u8 = 64;

/// Gives the first node the pod network that the controller manager would give it: the first of each family.
///
/// Only before the controller manager starts: it reads which networks are taken when it starts, and gives them out alone.
pub(super) async fn pod_network(client: &Client, plan: &Plan) -> Result<()> {
    let networks = first_pod_networks(&plan.cluster);
    let Some(first) = networks.first() else { return Ok(()) };
    let name = plan.node_name();
    let wait = Wait::new(format!("Node {name}"), "take its pod network", LIMIT);
    wait.until(async || {
        match client.get("Node", None, name).await {
            Ok(Some(node)) if node.pointer("/spec/podCIDR").is_some() => return Ok(Look::There(())),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Look::NotYet("the kubelet has not registered it".to_owned())),
            Err(problem) => return Ok(Look::NotYet(problem.to_string())),
        }
        let patch = json!({ "spec": { "podCIDR": first, "podCIDRs": networks } });
        Ok(match client.merge("Node", None, name, &patch).await {
            Ok(_) => Look::There(()),
            Err(problem) => Look::NotYet(problem.to_string()),
        })
    })
    .await
}

/// The first node's pod networks; none where the controller manager is told how to give them out, or has none.
fn first_pod_networks(cluster: &ClusterConfiguration) -> Vec<IpNet> {
    let told = cluster.controller_manager.extra_args.iter();
    if told.map(|argument| argument.name.as_str()).any(|name| POD_NETWORK_ARGUMENTS.contains(&name)) {
        return Vec::new();
    }
    let networks = subnets(&cluster.networking.pod_subnet).unwrap_or_default();
    let first: Option<Vec<IpNet>> = networks.into_iter().map(first_of).collect();
    first.unwrap_or_default()
}

/// The first node-sized part of a network; `None` where it is smaller than one.
fn first_of(network: IpNet) -> Option<IpNet> {
    let bits = if network.addr().is_ipv4() { POD_NETWORK_BITS_V4 } else { POD_NETWORK_BITS_V6 };
    if network.prefix_len() > bits {
        return None;
    }
    match network.network() {
        std::net::IpAddr::V4(address) => Ipv4Net::new(address, bits).ok().map(IpNet::V4),
        std::net::IpAddr::V6(address) => Ipv6Net::new(address, bits).ok().map(IpNet::V6),
    }
}

/// Waits until the API server has made all its roles and bindings.
pub(super) async fn roles(client: &Client) -> Result<()> {
    let wait = Wait::new("the API server", "make its roles", LIMIT);
    wait.until(async || match client.healthy(ROLES).await {
        Ok(()) => Ok(Look::There(())),
        Err(problem) => Ok(Look::NotYet(problem.to_string())),
    })
    .await
}

/// Makes the controllers' accounts, as the API server makes their roles.
pub(super) async fn accounts(client: &Client) -> Result<()> {
    let made = Mutex::new(BTreeSet::new());
    let wait = Wait::new("the API server", "make its roles", LIMIT);
    wait.until(async || {
        // Asked first: roles made before it said yes are in the list that follows.
        let complete = client.healthy(ROLES).await.is_ok();
        let roles = match client.list("ClusterRole", None, "").await {
            Ok(roles) => roles,
            Err(problem) => return Ok(Look::NotYet(problem.to_string())),
        };
        let new: Vec<String> = {
            let mut made = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            controllers(&roles).into_iter().filter(|name| made.insert(name.clone())).collect()
        };
        let accounts: Vec<Value> = new.iter().map(|name| account(name)).collect();
        create_or_update_all(client, &accounts, LIMIT).await?;
        Ok(if complete { Look::There(()) } else { Look::NotYet("it is still at it".to_owned()) })
    })
    .await
}

/// Names of the controllers that have a role and run.
fn controllers(roles: &[Value]) -> Vec<String> {
    let names = roles.iter().filter_map(|role| role["metadata"]["name"].as_str()?.strip_prefix(CONTROLLER_ROLE));
    names.filter(|name| !WITHOUT_ACCOUNT.contains(name)).map(str::to_owned).collect()
}

fn account(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": "kube-system" } })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{LIMIT, accounts, first_pod_networks, own_roles, pod_network, priorities, priorities_at_once, rights};
    use crate::api::fake::FakeApi;
    use crate::kubernetes::configuration::Arg;
    use crate::node::init::plan::tests::plan;

    #[rstest]
    #[case("10.244.0.0/16", "", &["10.244.0.0/24"])]
    #[case("10.244.0.0/16,fd00:10::/56", "", &["10.244.0.0/24", "fd00:10::/64"])]
    #[case("10.244.7.0/25", "", &[])]
    #[case("", "", &[])]
    #[case("10.244.0.0/16", "node-cidr-mask-size", &[])]
    fn the_first_node_gets_the_first_networks(#[case] pods: &str, #[case] argument: &str, #[case] networks: &[&str]) {
        let mut cluster = plan("").cluster;
        cluster.networking.pod_subnet = pods.to_owned();
        cluster.controller_manager.extra_args = vec![Arg { name: argument.to_owned(), value: "26".to_owned() }];
        let found: Vec<String> = first_pod_networks(&cluster).iter().map(ToString::to_string).collect();
        assert_eq!(found, networks);
    }

    #[tokio::test]
    async fn a_pod_network_that_is_there_is_kept() {
        let api = FakeApi::start().await;
        let plan = plan("");
        let path = format!("/api/v1/nodes/{}", plan.node_name());
        api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": plan.node_name()}}));
        let client = api.client().await;
        pod_network(&client, &plan).await.unwrap();
        assert_eq!(api.object(&path).unwrap()["spec"]["podCIDRs"], json!(["10.244.0.0/24"]));
        api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": plan.node_name()},
            "spec": {"podCIDR": "10.244.9.0/24"}}));
        pod_network(&client, &plan).await.unwrap();
        assert_eq!(api.object(&path).unwrap()["spec"]["podCIDR"], "10.244.9.0/24");
    }

    #[tokio::test]
    async fn every_controller_that_runs_gets_its_account_once() {
        let api = FakeApi::start().await;
        for name in ["system:controller:job-controller", "system:controller:route-controller", "cluster-admin"] {
            api.put(json!({"kind": "ClusterRole", "metadata": {"name": name}}));
        }
        let client = api.client().await;
        accounts(&client).await.unwrap();
        let accounts: Vec<String> = api.paths().into_iter().filter(|path| path.contains("serviceaccounts")).collect();
        assert_eq!(accounts, ["/api/v1/namespaces/kube-system/serviceaccounts/job-controller"]);
    }

    #[tokio::test]
    async fn the_priority_classes_are_the_api_servers_own() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        // It does not take anything yet.
        api.refuse_next(3, 503, "ServiceUnavailable");
        priorities_at_once(&client, LIMIT).await.unwrap();
        let first = api.paths().len();
        priorities_at_once(&client, LIMIT).await.unwrap();
        priorities(&client).await.unwrap();
        assert_eq!((first, api.paths().len()), (2, 2));
        let altered = |request: &String| request.starts_with("PUT") || request.starts_with("PATCH");
        assert!(!api.requests().iter().any(altered), "those that are there are left alone");
        let made = |name: &str| api.object(&format!("/apis/scheduling.k8s.io/v1/priorityclasses/{name}")).unwrap();
        assert_eq!(made("system-node-critical")["value"], 2_000_001_000);
        assert_eq!(made("system-cluster-critical")["value"], 2_000_000_000);
    }

    #[tokio::test]
    async fn both_roles_are_waited_for() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let role = |name: &str| json!({"kind": "ClusterRole", "metadata": {"name": name}});
        api.put(role("system:kube-controller-manager"));
        let soon = tokio::time::timeout(std::time::Duration::from_millis(300), own_roles(&client)).await;
        assert!(soon.is_err(), "{soon:?}");
        api.put(role("system:kube-scheduler"));
        own_roles(&client).await.unwrap();
    }

    #[tokio::test]
    async fn the_bindings_are_the_api_servers_own() {
        let api = FakeApi::start().await;
        rights(&api.client().await).await.unwrap();
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:kube-scheduler";
        assert_eq!(api.object(path).unwrap()["roleRef"]["name"], "system:kube-scheduler");
    }
}
