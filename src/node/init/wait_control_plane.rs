//! Phase wait-control-plane: from a started kubelet to an API server that takes our objects (kubeadm.md sections 3.3
//! and 6.1).

use std::path::Path;
use std::time::Duration;

use super::control_plane::DIRECTORY;
use super::kubeconfigs;
use super::plan::Plan;
use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::kubeconfig::{ADMIN, SUPER_ADMIN};
use crate::kubernetes::rbac;
use crate::node::health::Probe;
use crate::node::manifest::flag;
use crate::node::phase::Changes;
use crate::node::{diagnosis, files};

/// Waits until the API server takes objects from the administrator, whose rights are made on the way: the binding that
/// gives them is written with admin.conf where it is there already, else with super-admin.conf. The client returned is
/// the one that could write: a new API server knows the administrator's rights only when it has made its roles, a second
/// later.
///
/// Writing the first object is the test: it succeeds earlier than the health path, which waits for work in the
/// background to end.
///
/// # Errors
/// Kind `Cluster` with the last lines of API server, etcd and kubelet.
pub(in crate::node) async fn api_server(host: &dyn Host, plan: &Plan) -> Result<(Changes, Client)> {
    let admin = Client::from_kubeconfig(&kubeconfigs::local(host, plan, &ADMIN)?).await?;
    let super_admin = match kubeconfigs::local(host, plan, &SUPER_ADMIN) {
        Ok(text) => Some(Client::from_kubeconfig(&text).await?),
        Err(_) => None,
    };
    let limit = plan.init.timeouts.control_plane_component_health_check.0;
    let administrators = async {
        match plan.joining {
            true => joined_administrators(&admin, limit).await.map(|()| (false, admin.clone())),
            false => administrators(&admin, super_admin.as_ref(), limit).await,
        }
    };
    // What ends again and again will not come up by being waited for.
    let administrators = tokio::select! {
        done = administrators => done,
        failure = diagnosis::crash_loop(host, &["kube-apiserver", "etcd"]) => Err(failure),
    };
    match administrators {
        Ok((created, client)) => {
            let change = created.then(|| format!("ClusterRoleBinding {} created", rbac::ADMINISTRATORS));
            Ok((change.into_iter().collect(), client))
        }
        Err(failure) => Err(diagnosis::explain(host, failure, &["kube-apiserver", "etcd"]).await),
    }
}

/// Waits until a joined control plane's API server takes objects: the binding of the administrators, which is there. Their
/// rights come a moment later than its first answer, when it has read the roles.
async fn joined_administrators(admin: &Client, limit: Duration) -> Result<()> {
    let binding = rbac::cluster_admins();
    let admin = admin.clone().hurried(Duration::from_secs(5));
    let wait = Wait::new("the API server", "take objects", limit).every(Duration::from_millis(50));
    wait.until(async || match admin.create(&binding).await {
        Ok(_) => Ok(Look::There(())),
        Err(problem) if problem.is_already_there() => Ok(Look::There(())),
        Err(problem) if problem.is_unauthorized() => {
            Err(problem.failure(format!("{} does not accept admin.conf", admin.server())))
        }
        Err(problem) => Ok(Look::NotYet(problem.to_string())),
    })
    .await
}

/// Makes the binding of the administrators: `true` when it was not there, and the client that may write.
async fn administrators(admin: &Client, super_admin: Option<&Client>, limit: Duration) -> Result<(bool, Client)> {
    let binding = rbac::cluster_admins();
    let hurried = admin.clone().hurried(Duration::from_secs(5));
    let wait = Wait::new("the API server", "take objects", limit).every(Duration::from_millis(50));
    wait.until(async || {
        let refused = match hurried.create(&binding).await {
            Ok(_) => return Ok(Look::There((true, admin.clone()))),
            Err(problem) if problem.is_already_there() => return Ok(Look::There((false, admin.clone()))),
            Err(problem) => problem,
        };
        if !refused.is_forbidden() {
            return if refused.is_unauthorized() {
                Err(refused.failure(format!("{} does not accept admin.conf", admin.server())))
            } else {
                Ok(Look::NotYet(refused.to_string()))
            };
        }
        let Some(super_admin) = super_admin else {
            let failure = Failure::new(Kind::Cluster, "the administrator of admin.conf has no rights yet");
            return Err(failure.advise("put super-admin.conf back into /etc/kubernetes: it is needed to give them"));
        };
        match super_admin.create(&binding).await {
            Ok(_) => Ok(Look::There((true, super_admin.clone()))),
            Err(problem) if problem.is_already_there() => Ok(Look::There((false, super_admin.clone()))),
            Err(problem) => Ok(Look::NotYet(problem.to_string())),
        }
    })
    .await
}

/// Waits until controller manager and scheduler are healthy. The API server is not asked again: it takes objects, and its
/// own health path says no for seconds more, until its last work in the background is done.
///
/// # Errors
/// Kind `Cluster` with the last lines of the component that is not.
pub(in crate::node) async fn components(host: &dyn Host, plan: &Plan) -> Result<()> {
    let limit = plan.init.timeouts.control_plane_component_health_check.0;
    let waits = probes(host)?.into_iter().map(|probe| async move {
        match probe.wait(limit).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(diagnosis::explain(host, failure, &[&probe.component]).await),
        }
    });
    futures::future::join_all(waits).await.into_iter().collect()
}

/// The health paths of the components, where their static pods put them: a person's patches are in those.
fn probes(host: &dyn Host) -> Result<[Probe; 2]> {
    let probe = |component: &str, path: &str, default_port: u16| -> Result<Probe> {
        let manifest = Path::new(DIRECTORY).join(format!("{component}.yaml"));
        let manifest = files::text(host, &manifest)?.unwrap_or_default();
        let address = match flag(&manifest, "bind-address").unwrap_or_default().as_str() {
            "0.0.0.0" | "" => "127.0.0.1".to_owned(),
            "::" => "[::1]".to_owned(),
            address if address.contains(':') => format!("[{address}]"),
            address => address.to_owned(),
        };
        let port = flag(&manifest, "secure-port").and_then(|port| port.parse().ok()).unwrap_or(default_port);
        let server = format!("https://{address}:{port}");
        Ok(Probe { component: component.to_owned(), server, path: path.to_owned() })
    };
    Ok([probe("kube-controller-manager", "/healthz", 10257)?, probe("kube-scheduler", "/livez", 10259)?])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{administrators, joined_administrators, probes};
    use crate::api::fake::FakeApi;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::patches::Patches;
    use crate::node::init::control_plane::{Part, write};
    use crate::node::init::plan::Plan;
    use crate::node::init::plan::tests::plan;

    #[tokio::test]
    async fn rights_are_made_once() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        let made = async || administrators(&client, None, Duration::from_secs(1)).await.unwrap().0;
        assert!(made().await);
        assert!(!made().await);
    }

    #[tokio::test]
    async fn the_super_administrator_gives_rights_to_an_administrator_who_has_none() {
        let api = FakeApi::start().await;
        api.refuse_next(1, 403, "Forbidden");
        let client = api.client().await;
        assert!(administrators(&client, Some(&client), Duration::from_secs(1)).await.unwrap().0);
        assert_eq!(api.requests().len(), 2);
    }

    #[tokio::test]
    async fn without_the_super_administrator_it_fails_at_once() {
        let api = FakeApi::start().await;
        api.refuse_next(1, 403, "Forbidden");
        let failed = administrators(&api.client().await, None, Duration::from_secs(60)).await.map(|(made, _)| made);
        let failure = failed.unwrap_err();
        assert!(failure.advice.unwrap().contains("super-admin.conf"));
    }

    #[tokio::test]
    async fn a_joined_api_server_is_given_time_to_read_its_roles() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        administrators(&client, None, Duration::from_secs(1)).await.unwrap();
        api.refuse_next(3, 403, "Forbidden");
        assert_eq!(joined_administrators(&client, Duration::from_secs(5)).await, Ok(()));
    }

    #[test]
    fn health_is_looked_for_where_the_static_pods_put_it() {
        let servers = |host: &FakeHost| probes(host).unwrap().map(|probe| probe.server);
        assert_eq!(servers(&FakeHost::new()), ["https://127.0.0.1:10257", "https://127.0.0.1:10259"]);
        let host = FakeHost::new();
        let patch = ("/p/kube-scheduler+json.yaml".to_owned(), PATCH.to_owned());
        let plan = plan("controllerManager: {extraArgs: [{name: bind-address, value: '::'}]}\n");
        let (patches, _) = Patches::read(&[patch], plan.release).unwrap();
        let plan = Plan { patches, ..plan };
        for part in [Part::ControllerManager, Part::Scheduler] {
            write(&host, &plan, part).unwrap();
        }
        assert_eq!(servers(&host), ["https://[::1]:10257", "https://10.0.0.11:10359"]);
    }

    const PATCH: &str = "- {op: add, path: /spec/containers/0/command/-, value: --bind-address=10.0.0.11}\n\
                         - {op: add, path: /spec/containers/0/command/-, value: --secure-port=10359}\n";
}
