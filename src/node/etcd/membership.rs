//! What is to be done with a host's member, decided from the list of members. Pure.

use super::gateway::Member;
use crate::kubernetes::manifests::EtcdMember;

/// What is on the host of an etcd member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct There {
    /// Whether the data directory holds a member's data.
    pub(super) data: bool,
    /// Whether the static pod is there.
    pub(super) manifest: bool,
}

/// What a joining host does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nobody has its URL: add it as learner.
    Add,
    /// It was added (by this run or one that broke off) and has never had data: start it with the members of now.
    Start(u64),
    /// It has its data: what it was started with first is of no matter any more.
    GoOn(u64),
    /// The member with its URL has lost its data, as on a machine that was replaced: take it out, then add anew. A member
    /// that forgets what it voted for must never vote again under its old identifier.
    Replace(u64),
    /// The data on the host belongs to a member that is not there any more.
    Stale,
}

/// Whose member it is tells its peer URL: names can be given twice, and a member has none before it starts.
fn of<'a>(members: &'a [Member], peer_url: &str) -> Option<&'a Member> {
    members.iter().find(|member| member.peer_urls.iter().any(|url| same_url(url, peer_url)))
}

fn same_url(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Decides what the host at `peer_url` does next.
pub(super) fn arrival(members: &[Member], peer_url: &str, there: There) -> Arrival {
    match (of(members, peer_url), there) {
        (None, There { data: false, .. }) => Arrival::Add,
        (None, There { data: true, .. }) => Arrival::Stale,
        // It may be starting right now, and has not said its name yet.
        (Some(member), There { data: true, manifest: true }) => Arrival::GoOn(member.id),
        (Some(member), There { data: true, manifest: false }) if member.has_started() => Arrival::GoOn(member.id),
        // Added, and never started by us: the data is of somebody before.
        (Some(_), There { data: true, manifest: false }) => Arrival::Stale,
        (Some(member), There { data: false, .. }) if member.has_started() => Arrival::Replace(member.id),
        (Some(member), There { data: false, .. }) => Arrival::Start(member.id),
    }
}

/// The members as `--initial-cluster` names them: the host's own by the name of its node, one without a name by its
/// identifier.
pub(super) fn initial_cluster(members: &[Member], peer_url: &str, node_name: &str) -> Vec<EtcdMember> {
    let named = |member: &Member| {
        let url = member.peer_urls.first()?;
        let own = same_url(url, peer_url);
        let name = if own { node_name.to_owned() } else { member.label() };
        Some(EtcdMember { name, peer_url: url.clone() })
    };
    members.iter().filter_map(named).collect()
}

/// Whether the members that answer are enough for etcd to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quorum {
    /// How many have a vote.
    pub(super) voters: usize,
    /// How many of those answer.
    pub(super) healthy: usize,
}

impl Quorum {
    /// Of these members, without the one `leaving`; `healthy` are the identifiers of those that answer.
    pub(super) fn of(members: &[Member], healthy: &[u64], leaving: Option<u64>) -> Self {
        let voters = members.iter().filter(|member| !member.is_learner && Some(member.id) != leaving);
        let (voters, answering) = voters
            .fold((0, 0), |(all, answering), member| (all + 1, answering + usize::from(healthy.contains(&member.id))));
        Self { voters, healthy: answering }
    }

    /// Whether there is a majority.
    pub(super) fn is_there(&self) -> bool {
        self.healthy > self.voters / 2
    }
}

/// What a leaving host does with its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Departure {
    /// It has none any more.
    Gone,
    /// It is the only one: it goes, and etcd with it.
    Last,
    /// The others go on without it.
    Remove(u64),
    /// The others would not be enough.
    Breaks(u64, Quorum),
}

/// Whose member is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) enum Owner {
    /// The one with this peer URL.
    PeerUrl(String),
    /// The one whose peer URL has one of these addresses as its host.
    Addresses(Vec<std::net::IpAddr>),
    /// The one with this name, where nothing better is known: kubeadm gives members the names of their nodes.
    Name(String),
}

impl Owner {
    /// Whether a member is the leaving one.
    pub(super) fn owns(&self, member: &Member) -> bool {
        member.peer_urls.iter().any(|url| match self {
            Owner::PeerUrl(own) => same_url(url, own),
            Owner::Addresses(addresses) => host(url).is_some_and(|host| addresses.contains(&host)),
            Owner::Name(name) => member.name == *name,
        })
    }

    /// Whether a client URL is that of the leaving member itself.
    pub(super) fn owns_endpoint(&self, client_url: &str) -> bool {
        let Some(host) = host(client_url) else { return false };
        host.is_loopback()
            || match self {
                Owner::PeerUrl(own) => self::host(own) == Some(host),
                Owner::Addresses(addresses) => addresses.contains(&host),
                Owner::Name(_) => false,
            }
    }
}

/// The address in a URL.
fn host(url: &str) -> Option<std::net::IpAddr> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']']).parse().ok()
}

/// Decides what the member of `owner` does; `healthy` are the identifiers of those that answer.
pub(super) fn departure(members: &[Member], owner: &Owner, healthy: &[u64]) -> Departure {
    let Some(own) = members.iter().find(|member| owner.owns(member)) else { return Departure::Gone };
    if members.len() == 1 {
        return Departure::Last;
    }
    // Without a vote it is nobody's majority.
    if own.is_learner {
        return Departure::Remove(own.id);
    }
    let rest = Quorum::of(members, healthy, Some(own.id));
    match rest.is_there() {
        true => Departure::Remove(own.id),
        // Only learners are left: they cannot go on alone.
        false => Departure::Breaks(own.id, rest),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::gateway::Member;
    use super::{Arrival, Departure, Owner, Quorum, There, arrival, departure, initial_cluster};

    /// `cp1` is a voter that has started, `-2` was added and never started, `cp3?` is a learner; the digit is identifier and
    /// end of the address.
    fn members(texts: &[&str]) -> Vec<Member> {
        let member = |text: &&str| {
            let digit = text.trim_end_matches('?').chars().last().unwrap();
            let started = text.starts_with("cp");
            Member {
                id: u64::from(digit.to_digit(10).unwrap()),
                name: if started { format!("cp{digit}") } else { String::new() },
                peer_urls: vec![format!("https://10.0.0.{digit}:2380")],
                client_urls: if started { vec![format!("https://10.0.0.{digit}:2379")] } else { vec![] },
                is_learner: text.ends_with('?'),
            }
        };
        texts.iter().map(member).collect()
    }

    #[rstest]
    #[case::first_time(&["cp1"], false, false, Arrival::Add)]
    #[case::manifest_of_an_earlier_try(&["cp1"], false, true, Arrival::Add)]
    #[case::taken_out_with_data_left(&["cp1"], true, true, Arrival::Stale)]
    #[case::killed_after_adding(&["cp1", "-2?"], false, false, Arrival::Start(2))]
    #[case::killed_after_the_manifest(&["cp1", "-2?"], false, true, Arrival::Start(2))]
    #[case::killed_while_starting(&["cp1", "-2?"], true, true, Arrival::GoOn(2))]
    #[case::data_of_somebody_before(&["cp1", "-2?"], true, false, Arrival::Stale)]
    #[case::learner(&["cp1", "cp2?"], true, true, Arrival::GoOn(2))]
    #[case::finished(&["cp1", "cp2"], true, true, Arrival::GoOn(2))]
    #[case::manifest_lost(&["cp1", "cp2"], true, false, Arrival::GoOn(2))]
    #[case::machine_replaced(&["cp1", "cp2"], false, false, Arrival::Replace(2))]
    #[case::disk_replaced(&["cp1", "cp2?"], false, true, Arrival::Replace(2))]
    fn a_joining_host_goes_on_where_it_stopped(
        #[case] there: &[&str],
        #[case] data: bool,
        #[case] manifest: bool,
        #[case] next: Arrival,
    ) {
        let host = There { data, manifest };
        assert_eq!(arrival(&members(there), "https://10.0.0.2:2380", host), next);
    }

    #[test]
    fn the_initial_cluster_names_everybody() {
        let cluster = initial_cluster(&members(&["cp1", "-2?", "-3?"]), "https://10.0.0.2:2380", "node-2");
        let texts: Vec<String> =
            cluster.into_iter().map(|member| format!("{}={}", member.name, member.peer_url)).collect();
        assert_eq!(texts, ["cp1=https://10.0.0.1:2380", "node-2=https://10.0.0.2:2380", "3=https://10.0.0.3:2380"]);
    }

    fn breaks(voters: usize, healthy: usize) -> Departure {
        Departure::Breaks(1, Quorum { voters, healthy })
    }

    #[rstest]
    #[case::alone(&["cp1"], &[1], Departure::Last)]
    #[case::alone_and_dead(&["cp1"], &[], Departure::Last)]
    #[case::not_there(&["cp2", "cp3"], &[2, 3], Departure::Gone)]
    #[case::two_to_one(&["cp1", "cp2"], &[1, 2], Departure::Remove(1))]
    #[case::two_with_the_other_dead(&["cp1", "cp2"], &[1], breaks(1, 0))]
    #[case::three_to_two(&["cp1", "cp2", "cp3"], &[1, 2, 3], Departure::Remove(1))]
    #[case::own_one_dead(&["cp1", "cp2", "cp3"], &[2, 3], Departure::Remove(1))]
    #[case::another_dead(&["cp1", "cp2", "cp3"], &[1, 2], breaks(2, 1))]
    #[case::five_with_one_dead(&["cp1", "cp2", "cp3", "cp4", "cp5"], &[1, 2, 3, 4], Departure::Remove(1))]
    #[case::five_with_two_dead(&["cp1", "cp2", "cp3", "cp4", "cp5"], &[1, 2, 3], breaks(4, 2))]
    #[case::learner(&["cp1?", "cp2"], &[2], Departure::Remove(1))]
    #[case::never_started(&["-1?", "cp2", "cp3"], &[2], Departure::Remove(1))]
    #[case::only_a_learner_stays(&["cp1", "cp2?"], &[1, 2], breaks(0, 0))]
    fn a_leaving_host_leaves_a_quorum(#[case] there: &[&str], #[case] healthy: &[u64], #[case] decided: Departure) {
        let members = members(there);
        assert_eq!(departure(&members, &Owner::PeerUrl("https://10.0.0.1:2380/".into()), healthy), decided);
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(departure(&members, &Owner::Addresses(vec![address]), healthy), decided);
        if members.iter().any(|member| member.name == "cp1") {
            assert_eq!(departure(&members, &Owner::Name("cp1".into()), healthy), decided);
        }
    }

    #[rstest]
    #[case("https://127.0.0.1:2379", true)]
    #[case("https://[::1]:2379", true)]
    #[case("https://10.0.0.1:2379", true)]
    #[case("https://10.0.0.2:2379", false)]
    #[case("https://etcd.example:2379", false)]
    fn the_other_members_are_told_apart(#[case] url: &str, #[case] own: bool) {
        assert_eq!(Owner::PeerUrl("https://10.0.0.1:2380".into()).owns_endpoint(url), own);
    }
}
