//! The etcd member of a host that nobody can reach any more, taken out on a control plane that stays.

use super::files;
use crate::event::Events;
use crate::failure::Result;
use crate::host::Host;
use crate::message::LostMember;
use crate::node::etcd::{Left, Owner, expel};
use crate::node::phase::phase;

/// Takes it out; how many changes. Where this host runs no etcd, there is nothing to take out.
///
/// # Errors
/// Kind `Cluster` when the members that are left would be no quorum, or etcd does not answer here.
pub async fn remove_lost_member(host: &dyn Host, lost: &LostMember, events: &Events) -> Result<u32> {
    let traces = files::traces(host)?;
    if traces.etcd.is_none() {
        return Ok(0);
    }
    let removed = async {
        Ok(match expel(host, &traces.certificates, &owner(lost)).await? {
            Left::Removed(change) => (vec![format!("{change}: it was of {}", lost.node)], ()),
            Left::Nothing | Left::GivenUp(_) => (Vec::new(), ()),
        })
    };
    let title = format!("Take the member of {} out of etcd", lost.node);
    Ok(phase(events, "remove-etcd-member", &title, removed).await?.0)
}

/// By its addresses; by its name where there is none.
fn owner(lost: &LostMember) -> Owner {
    match lost.addresses.is_empty() {
        false => Owner::Addresses(lost.addresses.clone()),
        true => Owner::Name(lost.node.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::{owner, remove_lost_member};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::message::LostMember;
    use crate::node::etcd::Owner;

    fn lost(addresses: &[&str]) -> LostMember {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        LostMember { node: "cp2".into(), addresses }
    }

    #[test]
    fn it_is_told_by_what_is_known() {
        assert_eq!(owner(&lost(&["10.0.0.2"])), Owner::Addresses(vec!["10.0.0.2".parse().unwrap()]));
        assert_eq!(owner(&lost(&[])), Owner::Name("cp2".into()));
    }

    #[tokio::test]
    async fn without_etcd_here_there_is_nothing_to_do() {
        assert_eq!(remove_lost_member(&FakeHost::new(), &lost(&[]), &Events::nowhere()).await, Ok(0));
    }
}
