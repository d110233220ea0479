//! Phase remove-etcd-member: before anything of the node is touched, so that a refusal leaves it as it was.

use std::path::Path;
use std::time::Duration;

use super::Traces;
use super::sweep::Sweep;
use crate::event::Events;
use crate::failure::Result;
use crate::host::Host;
use crate::message::ResetOrder;
use crate::node::etcd::{Left, Manner, leave};

/// Takes the host's member out of etcd.
///
/// # Errors
/// Kind `Cluster` when etcd would have no quorum without it, or cannot be asked, and the order does not force it.
pub(super) async fn remove(
    host: &dyn Host,
    traces: &Traces,
    order: &ResetOrder,
    events: &Events,
    sweep: &mut Sweep,
) -> Result<()> {
    let Some(trace) = traces.etcd.as_ref().filter(|_| !order.whole_cluster) else { return Ok(()) };
    sweep.begin("remove-etcd-member", "Take the member out of etcd");
    let certificates: &Path = &traces.certificates;
    let manner = Manner { force: order.force, limit: order.etcd_limit_seconds.map(Duration::from_secs) };
    match leave(host, trace, certificates, traces.admin.as_ref(), manner).await {
        Ok(Left::Nothing) => {}
        Ok(Left::Removed(change)) => sweep.changed(change),
        Ok(Left::GivenUp(reason)) => events.warn(format!(
            "this host's member was not taken out of etcd ({reason}); if etcd runs elsewhere, take it out there: \
             `etcdctl member list`, `etcdctl member remove`"
        )),
        Err(failure) => return Err(sweep.stop(failure)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::remove;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::message::ResetOrder;
    use crate::node::reset::files;
    use crate::node::reset::sweep::Sweep;

    fn joined() -> FakeHost {
        FakeHost::new().file(
            "/etc/kubernetes/manifests/etcd.yaml",
            "    - --initial-advertise-peer-urls=https://10.0.0.12:2380\n    \
             - --initial-cluster=cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380\n",
        )
    }

    async fn outcome(host: &FakeHost, order: &ResetOrder) -> crate::failure::Result<u32> {
        let events = Events::nowhere();
        let mut sweep = Sweep::new(&events);
        let traces = files::traces(host).unwrap();
        remove(host, &traces, order, &events, &mut sweep).await?;
        sweep.finish()
    }

    #[tokio::test]
    async fn a_member_that_cannot_be_taken_out_stops_the_reset_unless_forced() {
        let host = joined();
        let before = host.listing();
        let failure = outcome(&host, &ResetOrder::default()).await.unwrap_err();
        assert!(failure.to_string().contains("etcd cannot be asked without"), "{failure}");
        assert_eq!(host.listing(), before);
        assert_eq!(outcome(&host, &ResetOrder { force: true, ..ResetOrder::default() }).await, Ok(0));
    }

    #[tokio::test]
    async fn nobody_is_asked_when_the_whole_cluster_goes_or_the_host_is_a_worker() {
        let order = ResetOrder { whole_cluster: true, ..ResetOrder::default() };
        assert_eq!(outcome(&joined(), &order).await, Ok(0));
        assert_eq!(outcome(&FakeHost::new(), &ResetOrder::default()).await, Ok(0));
    }
}
