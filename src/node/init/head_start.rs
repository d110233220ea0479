//! A head start for controller manager and scheduler, right after a new API server takes its first object.
//!
//! What is written here is what Kubernetes writes by itself some seconds later, name for name and field for field. Its own
//! way is slow on the first start of a cluster: the two ask for their leases before the API server has given them the
//! right to, and then wait 2 seconds and more; the controller manager makes an account for each of its forty controllers,
//! at 20 requests a second. Joining nodes wait for all of that. Nothing here may fail a run: what is missing comes anyway.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::wait::{Look, Wait};
use crate::api::{Client, create_or_update_all};
use crate::failure::Result;

/// Users that need their rights early; the API server's role has the same name.
const USERS: [&str; 2] = ["system:kube-controller-manager", "system:kube-scheduler"];

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
    use serde_json::json;

    use super::{accounts, rights};
    use crate::api::fake::FakeApi;

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
    async fn the_bindings_are_the_api_servers_own() {
        let api = FakeApi::start().await;
        rights(&api.client().await).await.unwrap();
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:kube-scheduler";
        assert_eq!(api.object(path).unwrap()["roleRef"]["name"], "system:kube-scheduler");
    }
}
