//! A leaving control plane's member: taken out through the others, while they keep their quorum (kubeadm.md section 12).

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::CLIENT_PORT;
use super::cluster::{Cluster, pods};
use super::gateway::Member;
use super::membership::{Departure, Owner, Quorum, departure};
use crate::api::Client;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::kubernetes::certificates::Certificate;
use crate::kubernetes::configuration::join_host_port;
use crate::node::files;
use crate::node::manifest::flag;
use crate::secret::Secret;

/// How long etcd is asked for its members where others are known; whoever answers does so at once.
const MEMBERS_LIMIT: Duration = Duration::from_secs(20);

/// How long where none is known: on the only control plane, and on one that was never finished.
const ALONE_LIMIT: Duration = Duration::from_secs(3);

/// How long the API server is asked where etcd is.
const API_LIMIT: Duration = Duration::from_secs(6);

/// How long the removal is tried where nobody said: etcd refuses changes for 5 s after a member came or went.
const REMOVE_LIMIT: Duration = Duration::from_secs(60);

/// How long it is tried where it may as well be given up.
const FORCED_LIMIT: Duration = Duration::from_secs(10);

/// What a host says of its member of etcd; read before anything is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Trace {
    owner: Owner,
    /// Client URLs of the other members, as far as this one was told when it started.
    others: Vec<String>,
}

impl Trace {
    /// Reads the text of etcd's static pod and, where there is none, the certificate that its peers know it by. `None`
    /// when neither is there: a worker, or an external etcd.
    ///
    /// # Errors
    /// Kind `Host` when the host cannot be read.
    pub(in crate::node) fn read(host: &dyn Host, manifest: &str, certificates: &Path) -> Result<Option<Self>> {
        let initial = flag(manifest, "initial-cluster").unwrap_or_default();
        let hosts = initial.split(',').filter_map(|member| {
            let (_, url) = member.split_once('=')?;
            let (_, authority) = url.split_once("://")?;
            authority.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']))
        });
        let others = hosts.map(|host| format!("https://{}", join_host_port(host, CLIENT_PORT)));
        let owner = match flag(manifest, "initial-advertise-peer-urls") {
            Some(urls) => Owner::PeerUrl(urls.split(',').next().unwrap_or_default().to_owned()),
            None => match files::text(host, &certificates.join("etcd/peer.crt"))? {
                Some(text) => Owner::Addresses(addresses(&text)),
                None => return Ok(None),
            },
        };
        let others = others.filter(|url| !owner.owns_endpoint(url)).collect();
        Ok(Some(Self { owner, others }))
    }
}

/// The addresses in a peer's certificate that are not the loopback's.
fn addresses(certificate: &str) -> Vec<IpAddr> {
    let chain = Certificate::parse_pem(certificate).unwrap_or_default();
    let of_first = chain.into_iter().next().map(|certificate| certificate.addresses).unwrap_or_default();
    of_first.into_iter().filter(|address| !address.is_loopback()).collect()
}

/// What became of the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) enum Left {
    /// There was nothing to take out.
    Nothing,
    /// It was taken out.
    Removed(String),
    /// It stays in the list of the others; why.
    GivenUp(String),
}

/// How the member is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Manner {
    /// What cannot be done is given up instead.
    pub(in crate::node) force: bool,
    /// How long the removal is tried; a minute where nobody said.
    pub(in crate::node) limit: Option<Duration>,
}

impl Manner {
    fn limit(self) -> Duration {
        let limit = self.limit.unwrap_or(REMOVE_LIMIT);
        if self.force { limit.min(FORCED_LIMIT) } else { limit }
    }
}

/// Takes this host's member out of etcd.
///
/// # Errors
/// Kind `Cluster` when the others would have no quorum without it, or cannot be asked.
pub(in crate::node) async fn leave(
    host: &dyn Host,
    trace: &Trace,
    certificates: &Path,
    admin: Option<&Secret>,
    manner: Manner,
) -> Result<Left> {
    let force = manner.force;
    let local = format!("https://{}", join_host_port("127.0.0.1", CLIENT_PORT));
    let local_v6 = format!("https://{}", join_host_port("::1", CLIENT_PORT));
    // The own member first: dead it says so at once, while a host that is gone says nothing.
    let known = [vec![local, local_v6], trace.others.clone()].concat();
    let left = async {
        let mut others_known = !trace.others.is_empty();
        let mut cluster = match Cluster::new(host, certificates, known) {
            Ok(cluster) => cluster,
            Err(failure) => return silent(failure, others_known),
        };
        let limit = if others_known { MEMBERS_LIMIT } else { ALONE_LIMIT };
        let members = match members(&cluster, limit).await {
            Ok(members) => members,
            Err(failure) => {
                // The first control plane was told of no others when it started; its member knows who came since.
                others_known |= knows_others(&cluster, &trace.owner).await;
                match through_api(admin).await {
                    Some(endpoints) => {
                        others_known |= endpoints.iter().any(|endpoint| !trace.owner.owns_endpoint(endpoint));
                        cluster.endpoints = endpoints;
                        match self::members(&cluster, MEMBERS_LIMIT).await {
                            Ok(members) => members,
                            Err(failure) => return silent(failure, others_known),
                        }
                    }
                    None => return silent(failure, others_known),
                }
            }
        };
        remove(cluster, &members, &trace.owner, Whose::Own { force }, manner.limit()).await
    };
    match left.await {
        Err(failure) if force => Ok(Left::GivenUp(failure.to_string())),
        done => done,
    }
}

/// Whether a member that answers knew any but the leaving one.
async fn knows_others(cluster: &Cluster, own: &Owner) -> bool {
    cluster.remembered().await.iter().any(|member| !own.owns(member))
}

/// Nobody answers. Where others are known they may be served again, with this host's member missing for ever; where none
/// is known it is the only one, as far as can be told.
fn silent(failure: Failure, others_known: bool) -> Result<Left> {
    match others_known {
        true => Err(failure.advise(
            "bring etcd back on the other control planes first; or reset by force, and take this host's member out there \
             with `etcdctl member remove`",
        )),
        false => Ok(Left::GivenUp(failure.to_string())),
    }
}

/// Takes the member of a host that is lost out, from this one, which stays. `owner` is the lost one's.
///
/// # Errors
/// Kind `Cluster` when the members that are left would be no quorum, or cannot be asked.
pub(in crate::node) async fn expel(host: &dyn Host, certificates: &Path, owner: &Owner) -> Result<Left> {
    let local = ["127.0.0.1", "::1"].map(|address| format!("https://{}", join_host_port(address, CLIENT_PORT)));
    let cluster = Cluster::new(host, certificates, local.to_vec())?;
    let members = members(&cluster, MEMBERS_LIMIT).await?;
    remove(cluster, &members, owner, Whose::Lost, REMOVE_LIMIT).await
}

async fn through_api(admin: Option<&Secret>) -> Option<Vec<String>> {
    let client = Client::from_kubeconfig(admin?).await.ok()?.hurried(Duration::from_secs(4));
    pods(&client, API_LIMIT).await.ok().map(|pods| pods.endpoints)
}

async fn members(cluster: &Cluster, limit: Duration) -> Result<Vec<Member>> {
    let wait = Wait::new("etcd", "say who its members are", limit).every(Duration::from_millis(500));
    wait.until(async || match cluster.members().await {
        Ok(members) => Ok(Look::There(members)),
        Err(refusal) => Ok(Look::NotYet(refusal.to_string())),
    })
    .await
}

/// Whose member goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The host's own; with force whatever becomes of the others.
    Own { force: bool },
    /// That of a host which is lost.
    Lost,
}

async fn remove(
    mut cluster: Cluster,
    members: &[Member],
    owner: &Owner,
    whose: Whose,
    limit: Duration,
) -> Result<Left> {
    let force = whose == Whose::Own { force: true };
    let healthy = cluster.healthy(members).await;
    let id = match departure(members, owner, &healthy) {
        Departure::Gone | Departure::Last => return Ok(Left::Nothing),
        Departure::Remove(id) => id,
        Departure::Breaks(id, rest) if !force => return Err(breaks(id, &rest, whose)),
        Departure::Breaks(id, _) => id,
    };
    // Whoever stays is asked, not the one that leaves.
    cluster.follow(members, |url| owner.owns_endpoint(url));
    let verb = if whose == Whose::Lost { "let the lost member go" } else { "let this host's member go" };
    let wait = Wait::new("etcd", verb, limit).every(Duration::from_millis(500));
    wait.until(async || {
        match cluster.change(async |endpoint| cluster.gateway.remove(&endpoint, id).await).await {
            Ok(()) => Ok(Look::There(())),
            Err(refusal) if refusal.member_is_gone() => Ok(Look::There(())),
            Err(refusal) => Ok(Look::NotYet(refusal.to_string())),
        }
    })
    .await
    .map_err(|failure| {
        failure.advise(format!(
            "run the same command again when etcd is well; or reset by force, and take the member {id:x} out later with \
             `etcdctl member remove`"
        ))
    })?;
    Ok(Left::Removed(format!("etcd member {id:x} removed")))
}

fn breaks(id: u64, rest: &Quorum, whose: Whose) -> Failure {
    let of = if whose == Whose::Lost { "the lost" } else { "this host's" };
    let sentence = match rest.voters {
        0 => format!("without {of} member {id:x} etcd would have none that votes"),
        voters => format!(
            "without {of} member {id:x} etcd would have no quorum: of the other {voters}, {} are well",
            rest.healthy
        ),
    };
    Failure::new(Kind::Cluster, sentence).advise(match whose {
        Whose::Lost => "bring the other control planes back first",
        Whose::Own { .. } => {
            "bring the other control planes back first, or take those that are gone out with `etcdctl member remove`; by \
             force the host is reset all the same, and the cluster stops"
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;
    use std::time::Duration;

    use rstest::rstest;

    use super::{Left, Manner, Owner, Trace, Whose, knows_others, remove};
    use crate::host::fake::FakeHost;
    use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey, Subject};
    use crate::node::etcd::fake::FakeEtcd;

    const PKI: &str = "/etc/kubernetes/pki";
    const LIMIT: Duration = Duration::from_millis(700);

    const OWN: Whose = Whose::Own { force: false };

    fn owner(number: u8) -> Owner {
        Owner::PeerUrl(format!("https://10.0.0.{number}:2380"))
    }

    #[test]
    fn a_member_is_told_by_its_static_pod() {
        let manifest = "    - etcd\n    - --initial-advertise-peer-urls=https://10.0.0.12:2380\n    \
            - --initial-cluster=cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380\n";
        let trace = Trace::read(&FakeHost::new(), manifest, Path::new(PKI)).unwrap().unwrap();
        assert_eq!(trace.owner, Owner::PeerUrl("https://10.0.0.12:2380".into()));
        assert_eq!(trace.others, ["https://10.0.0.11:2379"]);
    }

    #[test]
    fn a_member_without_a_static_pod_is_told_by_its_certificate() {
        let algorithm = KeyAlgorithm::EcdsaP256;
        let authority = Authority::fresh("etcd-ca", PrivateKey::generate(algorithm).unwrap(), 9000, 9000).unwrap();
        let addresses: Vec<IpAddr> = ["10.0.0.12", "127.0.0.1", "::1"].map(|text| text.parse().unwrap()).into();
        let subject = Subject { common_name: "cp2".into(), addresses, ..Subject::default() };
        let peer = authority.sign(&subject, &PrivateKey::generate(algorithm).unwrap(), 9000, 9000).unwrap();
        let host = FakeHost::new().file(format!("{PKI}/etcd/peer.crt"), peer.pem());
        let trace = Trace::read(&host, "", Path::new(PKI)).unwrap().unwrap();
        assert_eq!(trace.owner, Owner::Addresses(vec!["10.0.0.12".parse().unwrap()]));
        assert_eq!(Trace::read(&FakeHost::new(), "", Path::new(PKI)), Ok(None));
    }

    #[tokio::test]
    async fn a_member_is_taken_out_through_the_others_also_when_it_is_dead() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp3");
        let cluster = etcd.cluster();
        let members = cluster.members().await.unwrap();
        let left = remove(cluster.clone(), &members, &owner(3), OWN, LIMIT).await;
        assert_eq!(left, Ok(Left::Removed("etcd member 3 removed".into())));
        assert_eq!(etcd.members(), ["cp1", "cp2"]);
        let members = cluster.members().await.unwrap();
        assert_eq!(remove(cluster, &members, &owner(3), OWN, LIMIT).await, Ok(Left::Nothing));
    }

    #[tokio::test]
    async fn a_quorum_is_not_broken_unless_told() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp3");
        let members = etcd.cluster().members().await.unwrap();
        let failure = remove(etcd.cluster(), &members, &owner(1), OWN, LIMIT).await.unwrap_err();
        assert_eq!(
            failure.sentence,
            "without this host's member 1 etcd would have no quorum: of the other 2, 1 are well"
        );
        assert!(etcd.changes().is_empty());
        assert!(remove(etcd.cluster(), &members, &owner(1), Whose::Own { force: true }, LIMIT).await.is_ok());
    }

    /// On the first control plane: its static pod was told of no others.
    #[tokio::test]
    async fn others_are_remembered_while_there_is_no_quorum() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp2");
        etcd.kill("cp3");
        assert!(etcd.cluster().members().await.is_err());
        assert!(knows_others(&etcd.cluster(), &owner(1)).await);
        let alone = FakeEtcd::start(&["cp1"]).await;
        assert!(!knows_others(&alone.cluster(), &owner(1)).await);
    }

    #[tokio::test]
    async fn a_lost_member_is_taken_out_by_another_while_there_is_a_quorum() {
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp2");
        let members = etcd.cluster().members().await.unwrap();
        let left = remove(etcd.cluster(), &members, &Owner::Name("cp2".into()), Whose::Lost, LIMIT).await;
        assert_eq!(left, Ok(Left::Removed("etcd member 2 removed".into())));
        let etcd = FakeEtcd::start(&["cp1", "cp2", "cp3"]).await;
        etcd.kill("cp3");
        let members = etcd.cluster().members().await.unwrap();
        let address = Owner::Addresses(vec!["10.0.0.1".parse().unwrap()]);
        let failure = remove(etcd.cluster(), &members, &address, Whose::Lost, LIMIT).await.unwrap_err();
        assert_eq!(failure.sentence, "without the lost member 1 etcd would have no quorum: of the other 2, 1 are well");
    }

    #[rstest]
    #[case(false, None, 60)]
    #[case(false, Some(120), 120)]
    #[case(false, Some(5), 5)]
    #[case(true, None, 10)]
    #[case(true, Some(120), 10)]
    #[case(true, Some(5), 5)]
    fn the_removal_is_tried_as_long_as_was_said(#[case] force: bool, #[case] said: Option<u64>, #[case] limit: u64) {
        let manner = Manner { force, limit: said.map(Duration::from_secs) };
        assert_eq!(manner.limit(), Duration::from_secs(limit));
    }

    #[tokio::test]
    async fn the_last_member_just_goes() {
        let etcd = FakeEtcd::start(&["cp1"]).await;
        let members = etcd.cluster().members().await.unwrap();
        assert_eq!(remove(etcd.cluster(), &members, &owner(1), OWN, LIMIT).await, Ok(Left::Nothing));
        assert!(etcd.changes().is_empty());
    }

    #[tokio::test]
    async fn a_change_that_etcd_refuses_for_a_while_is_tried_again() {
        let etcd = FakeEtcd::start(&["cp1", "cp2"]).await;
        etcd.refuse_next(1, "etcdserver: unhealthy cluster");
        let members = etcd.cluster().members().await.unwrap();
        let limit = Duration::from_secs(5);
        assert!(matches!(remove(etcd.cluster(), &members, &owner(2), OWN, limit).await, Ok(Left::Removed(_))));
        etcd.refuse_next(100, "etcdserver: unhealthy cluster");
        let members = etcd.cluster().members().await.unwrap();
        assert_eq!(remove(etcd.cluster(), &members, &owner(1), OWN, LIMIT).await, Ok(Left::Nothing));
    }
}
