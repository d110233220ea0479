//! Phase addon: CoreDNS and kube-proxy (kubeadm.md section 11).

use serde_json::Value;

use super::control_plane::proxy_environment;
use super::plan::Plan;
use crate::api::{Client, create_or_update_all};
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::addons::{self, Coredns, KubeProxy};
use crate::kubernetes::patches::Target;
use crate::kubernetes::{kubelet, version};
use crate::node::phase::Changes;

/// kubeadm's number of CoreDNS pods.
const REPLICAS: u32 = 2;

/// What is not disabled, as it is on a new cluster.
pub(super) fn of(plan: &Plan) -> Result<Vec<Value>> {
    wanted(plan, REPLICAS)
}

/// Writes what is not disabled.
pub(super) async fn deploy(client: &Client, plan: &Plan) -> Result<(Changes, ())> {
    let replicas = match client.get("Deployment", Some("kube-system"), "coredns").await {
        // A number that a person chose is kept (kubeadm.md section 11.2).
        Ok(Some(there)) => {
            there["spec"]["replicas"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(REPLICAS)
        }
        _ => REPLICAS,
    };
    let changes =
        create_or_update_all(client, &wanted(plan, replicas)?, plan.init.timeouts.kubernetes_api_call.0).await?;
    Ok((changes, ()))
}

fn wanted(plan: &Plan, replicas: u32) -> Result<Vec<Value>> {
    let cluster = &plan.cluster;
    let images = version::images(cluster)?;
    let mut wanted = Vec::new();
    if !cluster.dns.disabled && plan.phases.wants("addon/coredns") {
        let address = kubelet::dns_address(cluster);
        wanted.extend(addons::coredns(&Coredns {
            image: &images.coredns,
            domain: &cluster.networking.dns_domain,
            address: address.parse().map_err(|error: std::net::AddrParseError| {
                Failure::new(Kind::Internal, format!("{address} is no address for the cluster's DNS")).because(&error)
            })?,
            replicas,
            named_probe_ports: plan.release.coredns_named_probe_ports,
        }));
        patch(plan, &mut wanted, "Deployment", Target::CorednsDeployment)?;
    }
    if !cluster.proxy.disabled && plan.phases.wants("addon/kube-proxy") {
        let local = &plan.init.local_api_endpoint;
        let configuration = addons::configuration(
            plan.kube_proxy.as_ref(),
            &cluster.networking.pod_subnet,
            local.is_ipv6(),
            !plan.release.kube_proxy_mode.is_empty(),
        );
        wanted.extend(addons::kube_proxy(&KubeProxy {
            image: &images.proxy,
            server: &cluster.control_plane_url(local)?,
            configuration: &configuration,
            generated: plan.kube_proxy.is_none(),
            proxy_environment: &proxy_environment(),
        }));
        patch(plan, &mut wanted, "DaemonSet", Target::KubeProxyDaemonSet)?;
    }
    Ok(wanted)
}

/// Lays a person's patches over the object of a kind.
fn patch(plan: &Plan, objects: &mut [Value], kind: &str, target: Target) -> Result<()> {
    for object in objects.iter_mut().filter(|object| object["kind"] == kind) {
        *object = plan.patches.apply(target, object.take())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::deploy;
    use crate::api::fake::FakeApi;
    use crate::node::init::plan::tests::plan;

    #[tokio::test]
    async fn a_number_of_pods_that_a_person_chose_is_kept() {
        let api = FakeApi::start().await;
        let client = api.client().await;
        deploy(&client, &plan("")).await.unwrap();
        let path = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
        let mut deployment = api.object(path).unwrap();
        deployment["spec"]["replicas"] = 5.into();
        api.put(deployment);
        assert!(deploy(&client, &plan("")).await.unwrap().0.is_empty());
        assert_eq!(api.object(path).unwrap()["spec"]["replicas"], 5);
    }

    #[tokio::test]
    async fn a_disabled_add_on_is_not_written() {
        let api = FakeApi::start().await;
        deploy(&api.client().await, &plan("proxy: {disabled: true}\ndns: {disabled: true}\n")).await.unwrap();
        assert!(api.paths().is_empty());
    }
}
