//! `check`: every condition on every host in one report, before anything is changed. `up` judges by the same: what facts tell
//! on all hosts, and what takes time (clocks, disks, names, and the ways between hosts) where hosts are to join.

pub(super) mod fleet;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use self::fleet::Clock;
use self::ways::{Need, Place};
use super::adopt::facts_of;
use super::connect::{Access, Session, Settings, connect};
use super::documents::Documents;
use super::fetch;
use super::findings::{Finding, turn_down};
use super::plan::{Assessment, HostPlan, Way, assess};
use crate::bundle::Manifest;
use crate::event::{Step, What, elapsed_milliseconds};
use crate::fact::Facts;
use crate::failure::{Failure, Result};
use crate::host::measure::{Measure, Measured};
use crate::host::reach::{Dial, Dialled, Listen, Transport};
use crate::inventory::{Endpoint, Fetch, Inventory, Role};
use crate::message::Request;
use crate::node::Severity;

/// Name of the check that every host can be reached by SSH.
const CONNECTION: &str = "Connection";

/// Name of the check that hosts can download what they need.
const DOWNLOADS: &str = "Downloads";

/// What all checks came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Names of all hosts, in inventory order.
    pub hosts: Vec<String>,
    /// What was found, errors first, then in inventory order.
    pub findings: Vec<Finding>,
    /// How many ways between hosts were tried.
    pub ways: usize,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

impl Verdict {
    /// Failures that stop an `up`.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }
}

/// Checks all hosts of an inventory; without a bundle, what depends on it is left out. Hosts that are not nodes are as they
/// were afterwards.
///
/// # Errors
/// Only what prevents the attempt; a host that cannot be reached is a finding.
pub async fn check(inventory: &Inventory, manifest: Option<&Manifest>, settings: &Settings) -> Result<Verdict> {
    let started = std::time::Instant::now();
    settings.events.send(What::RunStarted {
        verb: "check".to_owned(),
        cluster: inventory.cluster.name.clone(),
        hosts: inventory.hosts.iter().map(|host| host.name.clone()).collect(),
    });
    let documents = Documents::read(inventory)?;
    let (sessions, unreachable) = connect(inventory, settings, Access::Look).await?;
    let facts = facts_of(inventory, &sessions);
    let Assessment { hosts: plans, mut findings } = assess(inventory, &documents, &facts, manifest);
    findings.extend(unreachable.into_iter().map(|failure| Finding::error(CONNECTION, failure)));
    // That of hosts that are to join is judged with their facts.
    let is_member = |session: &&Session| !plans.iter().any(|plan| plan.name == session.host.name && !plan.member);
    for session in sessions.iter().filter(is_member) {
        findings.extend(fleet::room(&session.host, &session.facts));
    }
    let everybody = |_: &str| true;
    let (measured, tried, missing) = futures::join!(
        measure(inventory, &documents, &sessions, &plans, everybody),
        try_ways(inventory, &documents, &sessions, &plans, None),
        try_downloads(inventory, &sessions)
    );
    findings.extend(measured.into_iter().chain(missing));
    let Ways { tried: ways, closed, listening } = tried;
    be_quiet(&sessions, &listening).await;
    findings.extend(closed);
    turn_down(&mut findings, &inventory.cluster.ignore_checks);
    sort(&mut findings, inventory);
    let milliseconds = elapsed_milliseconds(started.elapsed());
    for session in &sessions {
        session.events.send(What::HostFinished { state: state(&findings, &session.host.name).to_owned() });
    }
    let failed = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let failed = failed.map(|finding| finding.failure.clone()).collect();
    settings.events.send(What::RunFinished { milliseconds, changes: 0, failed });
    let hosts = inventory.hosts.iter().map(|host| host.name.clone()).collect();
    Ok(Verdict { hosts, findings, ways, milliseconds })
}

/// What was tried before hosts join.
pub(super) struct Tried {
    /// What was found.
    pub(super) findings: Vec<Finding>,
    /// The hosts that still listen in the place of what is to come; see [`be_quiet`].
    pub(super) listening: BTreeSet<String>,
}

/// What is measured and tried before hosts join: on them, on the ways between them and all others, and on everybody's clock.
/// Without a host that is to join nobody is asked anything. A host on which a former run has begun was judged by that run.
pub(super) async fn of_newcomers(
    inventory: &Inventory,
    documents: &Documents,
    facts: &BTreeMap<String, Facts>,
    sessions: &[Session],
) -> Tried {
    let new: BTreeSet<&str> = facts.iter().filter(|(_, facts)| is_new(facts)).map(|(name, _)| name.as_str()).collect();
    if new.is_empty() {
        return Tried { findings: Vec::new(), listening: BTreeSet::new() };
    }
    let plans = assess(inventory, documents, facts, None).hosts;
    let is_new = |name: &str| new.contains(name);
    let (measured, Ways { closed, listening, .. }) = futures::join!(
        measure(inventory, documents, sessions, &plans, is_new),
        try_ways(inventory, documents, sessions, &plans, Some(&is_new))
    );
    let measured = measured.into_iter().filter_map(|finding| for_newcomers(finding, is_new));
    Tried { findings: measured.chain(closed).collect(), listening }
}

/// Whether nothing of a cluster is on a host, ours or another. Kubeconfigs alone make no control plane: a person brings them
/// where the authority's key is elsewhere.
pub(super) fn is_new(facts: &Facts) -> bool {
    let state = &facts.kubernetes;
    let worker = state.kubelet_conf && !state.admin_conf;
    state.journal_cluster.is_none() && state.manifests.is_empty() && !worker
}

/// What a finding on any host means where hosts are to join: a member works as it is, but its clock is worth a word.
fn for_newcomers(finding: Finding, is_new: impl Fn(&str) -> bool) -> Option<Finding> {
    match finding.failure.host.as_deref() {
        Some(host) if !is_new(host) => {
            (finding.check == fleet::CLOCK).then_some(Finding { severity: Severity::Warning, ..finding })
        }
        _ => Some(finding),
    }
}

fn state(findings: &[Finding], host: &str) -> &'static str {
    let of_host = findings.iter().filter(|finding| finding.failure.host.as_deref() == Some(host));
    match of_host.map(|finding| finding.severity).max() {
        None => "fit",
        Some(Severity::Warning) => "fit, with warnings",
        Some(Severity::Error) => "unfit",
    }
}

/// Errors first, each kind in inventory order; each thing once.
fn sort(findings: &mut Vec<Finding>, inventory: &Inventory) {
    let place = |finding: &Finding| {
        let host = finding.failure.host.as_deref();
        inventory.hosts.iter().position(|there| Some(there.name.as_str()) == host)
    };
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), place(finding)));
    findings.dedup();
}

/// A check that could not be made.
fn unmade(check: &str, session: &Session, failure: Failure) -> Finding {
    Finding::error(check, failure).on(&session.host.name)
}

/// Clocks, disks and names, on all hosts at once; of those that are not `judged` the clock alone.
async fn measure(
    inventory: &Inventory,
    documents: &Documents,
    sessions: &[Session],
    plans: &[HostPlan],
    judged: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let judged = &judged;
    let asked = sessions.iter().map(|session| async move {
        let control_plane = session.host.role == Role::ControlPlane;
        let member = plans.iter().any(|plan| plan.name == session.host.name && plan.member);
        let text = |kind: &str, path: &[&str]| documents.field(kind, path).and_then(|value| value.as_str());
        let order = match judged(&session.host.name) {
            true => Measure {
                // etcd of a member is at work there: measuring would disturb it and say little.
                disk: control_plane && !member && has_local_etcd(documents),
                etcd_directory: text("ClusterConfiguration", &["etcd", "local", "dataDir"])
                    .unwrap_or("/var/lib/etcd")
                    .to_owned(),
                names: names(inventory),
                resolv_conf: text("KubeletConfiguration", &["resolvConf"]).map(str::to_owned),
            },
            false => Measure::clock(),
        };
        let step = session.events.step("measure", "measure clock, disk and names");
        let before = now();
        let measured: Result<Measured> = session.agent.ask(Request::Measure(order)).await;
        let after = now();
        (session, before, after, step.end(measured))
    });
    let (mut findings, mut clocks) = (Vec::new(), BTreeMap::new());
    for (session, before, after, measured) in futures::future::join_all(asked).await {
        match measured {
            Ok(measured) => {
                let name = &session.host.name;
                clocks.insert(name.clone(), Clock::of(measured.clock_milliseconds, before, after));
                findings.extend(fleet::measured(name, &measured));
            }
            Err(failure) => findings.push(unmade("Measurement", session, failure)),
        }
    }
    findings.extend(fleet::clocks(&clocks));
    findings
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn has_local_etcd(documents: &Documents) -> bool {
    documents.field("ClusterConfiguration", &["etcd", "external"]).is_none()
}

/// Names that every host must know: that of the endpoint, if it is one.
fn names(inventory: &Inventory) -> Vec<String> {
    let Some(Endpoint::Address(address)) = &inventory.cluster.endpoint else { return Vec::new() };
    let is_address = address.parse::<SocketAddr>().is_ok();
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    if is_address || host.parse::<std::net::IpAddr>().is_ok() { Vec::new() } else { vec![host.to_owned()] }
}

/// Where hosts download themselves: what they cannot get.
async fn try_downloads(inventory: &Inventory, sessions: &[Session]) -> Vec<Finding> {
    if inventory.transfer.fetch != Fetch::OnHost {
        return Vec::new();
    }
    let asked = sessions.iter().map(|session| async move {
        let step = session.events.step("downloads", "ask for the releases");
        match step.end(fetch::unavailable(inventory, session).await) {
            Ok(failures) => {
                failures.into_iter().map(|failure| Finding::error(DOWNLOADS, failure).on(&session.host.name)).collect()
            }
            Err(failure) => vec![unmade(DOWNLOADS, session, failure)],
        }
    });
    let found: Vec<Vec<Finding>> = futures::future::join_all(asked).await;
    found.into_iter().flatten().collect()
}

/// What trying the ways came to.
#[derive(Default)]
struct Ways {
    /// How many were tried.
    tried: usize,
    /// Those that are not open.
    closed: Vec<Finding>,
    /// The hosts that listen for it.
    listening: BTreeSet<String>,
}

/// Tries every way that must be open. With `is_new` only those from and to new hosts.
async fn try_ways(
    inventory: &Inventory,
    documents: &Documents,
    sessions: &[Session],
    plans: &[HostPlan],
    is_new: Option<&dyn Fn(&str) -> bool>,
) -> Ways {
    let known: Vec<(&Session, &HostPlan)> = sessions
        .iter()
        .filter_map(|session| Some((session, plans.iter().find(|plan| plan.name == session.host.name)?)))
        .collect();
    let places: Vec<Place> = known.iter().map(|(session, plan)| place(session, plan)).collect();
    let settings = ways::Settings {
        api: documents.bind_port(),
        local_etcd: has_local_etcd(documents),
        plugin: inventory.cluster.network.plugin,
    };
    let mut needs = ways::needs(&places, settings);
    if let Some(is_new) = is_new {
        needs = ways::of_new(needs, &places, |host| is_new(&places[host].name));
    }
    if needs.is_empty() {
        return Ways::default();
    }
    let word = format!("clusterctl {} {}", inventory.cluster.name, now());
    let asked: Vec<BTreeSet<(Transport, u16)>> =
        (0..places.len()).map(|host| ways::listened(&needs, &places, host).into_iter().collect()).collect();
    // Both at once, which saves a round trip: who listens is told first.
    let listening = listen(&known, &asked, &word);
    let dialling = futures::future::join_all(known.iter().enumerate().map(|(host, (session, _))| {
        let expected = |to: usize, transport, port| asked[to].contains(&(transport, port));
        let (needs, targets) = ways::dials(&needs, &places, host, &word, expected).into_iter().unzip();
        async move {
            let step = session.events.step("ways", "try the ways to the other hosts");
            let answered = session.agent.ask::<Vec<Dialled>>(Request::Dial { targets: Vec::clone(&targets) }).await;
            Dialling { session, needs, targets, step, answered }
        }
    }));
    let (listening, dialling) = futures::join!(listening, dialling);
    let is_listening = |to: usize, transport, port| listening[to].contains(&(transport, port));
    let again = dialling.into_iter().map(|dialling| dialling.conclude(&places, is_listening));
    let (mut tried, mut closed) = (0, Vec::new());
    for (session, judged) in futures::future::join_all(again).await {
        match judged {
            Ok(judged) => {
                tried += judged.len();
                closed.extend(judged.into_iter().filter_map(|(need, dialled)| ways::judge(&need, &places, dialled)));
            }
            Err(failure) => closed.push(unmade("Measurement", session, failure)),
        }
    }
    let listening = known.iter().zip(&listening).filter(|(_, ports)| !ports.is_empty());
    let listening = listening.map(|((session, _), _)| session.host.name.clone()).collect();
    Ways { tried, closed, listening }
}

/// A host that was asked to dial while others were asked to listen.
struct Dialling<'a> {
    session: &'a Session,
    needs: Vec<Need>,
    targets: Vec<Dial>,
    step: Step,
    answered: Result<Vec<Dialled>>,
}

impl<'a> Dialling<'a> {
    /// What came of it, without the ports that could not be taken. What was not reached is dialled once more, now that all who
    /// were asked do listen: a listener that was not there yet, one of another run, or a lost packet, is no closed port.
    async fn conclude(
        self,
        places: &[Place],
        is_listening: impl Fn(usize, Transport, u16) -> bool,
    ) -> (&'a Session, Result<Vec<(Need, Dialled)>>) {
        let Self { session, needs, targets, step, answered } = self;
        let judged = async {
            let told = needs.into_iter().zip(targets).zip(answered?);
            let told = told.filter(|((need, _), _)| ways::can_be_learned(need, places, &is_listening));
            let (open, other): (Vec<_>, Vec<_>) = told.partition(|(_, dialled)| *dialled == Dialled::Reached);
            let mut judged: Vec<(Need, Dialled)> =
                open.into_iter().map(|((need, _), dialled)| (need, dialled)).collect();
            if !other.is_empty() {
                let (needs, targets): (Vec<Need>, Vec<Dial>) = other.into_iter().map(|(asked, _)| asked).unzip();
                let again: Vec<Dialled> = session.agent.ask(Request::Dial { targets }).await?;
                judged.extend(needs.into_iter().zip(again));
            }
            Ok(judged)
        };
        (session, step.end(judged.await))
    }
}

/// Ends what hosts listen on for a try. It would end with their agents as well.
pub(super) async fn be_quiet(sessions: &[Session], listening: &BTreeSet<String>) {
    let listening = sessions.iter().filter(|session| listening.contains(&session.host.name));
    let quiet = listening.map(|session| async move {
        let none = Listen { ports: Vec::new(), word: String::new(), ipv6: false };
        let _: Result<Vec<(Transport, u16)>> = session.agent.ask(Request::Listen(none)).await;
    });
    futures::future::join_all(quiet).await;
}

/// Has all hosts listen on the ports they are asked to take; which each could take.
async fn listen(
    known: &[(&Session, &HostPlan)],
    asked: &[BTreeSet<(Transport, u16)>],
    word: &str,
) -> Vec<BTreeSet<(Transport, u16)>> {
    let orders = known.iter().zip(asked).map(|((session, plan), ports)| {
        let ports = ports.iter().copied().collect();
        let order = Listen { ports, word: word.to_owned(), ipv6: plan.node.address.is_ipv6() };
        async move {
            match order.ports.is_empty() {
                true => Vec::new(),
                false => session.agent.ask::<Vec<(Transport, u16)>>(Request::Listen(order)).await.unwrap_or_default(),
            }
        }
    });
    futures::future::join_all(orders).await.into_iter().map(|taken| taken.into_iter().collect()).collect()
}

fn place(session: &Session, plan: &HostPlan) -> Place {
    let facts = &session.facts;
    let reachable = |address: std::net::IpAddr| address.is_unspecified() || address == plan.node.address;
    Place {
        name: session.host.name.clone(),
        address: plan.node.address,
        networks: facts.addresses.iter().map(|link| link.address).collect(),
        control_plane: plan.way != Way::Worker,
        taken: facts.listening.iter().filter(|it| reachable(it.address)).map(|it| it.port).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{Finding, for_newcomers, is_new, names, sort, state};
    use crate::cluster::findings::unmet;
    use crate::fact::Facts;
    use crate::inventory::{self, Inventory};
    use crate::node::Severity;

    fn inventory(endpoint: &str) -> Inventory {
        let text = format!("cluster: {{name: demo, endpoint: '{endpoint}'}}\nssh: {{user: root}}\nhosts: [b, a]\n");
        inventory::parse(&text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"))
    }

    #[rstest]
    #[case("built-in", &[])]
    #[case("10.0.0.9:6443", &[])]
    #[case("[fd00::1]:6443", &[])]
    #[case("api.demo.example:6443", &["api.demo.example"])]
    fn the_name_of_the_endpoint_must_be_known(#[case] endpoint: &str, #[case] expected: &[&str]) {
        assert_eq!(names(&inventory(endpoint)), expected);
    }

    #[rstest]
    #[case("w1", "Resolver", Some(Severity::Error))]
    #[case("w1", "ClockSkew", Some(Severity::Error))]
    #[case("member", "ClockSkew", Some(Severity::Warning))]
    #[case("member", "Resolver", None)]
    fn members_are_only_told_of_their_clocks(
        #[case] host: &str,
        #[case] check: &str,
        #[case] expected: Option<Severity>,
    ) {
        let found = for_newcomers(Finding::error(check, unmet("no")).on(host), |host| host == "w1");
        assert_eq!(found.map(|finding| finding.severity), expected);
    }

    #[test]
    fn a_host_that_a_run_has_begun_with_is_not_new() {
        let mut facts = Facts::default();
        assert!(is_new(&facts));
        (facts.kubernetes.kubelet_conf, facts.kubernetes.admin_conf) = (true, true);
        assert!(is_new(&facts));
        facts.kubernetes.admin_conf = false;
        assert!(!is_new(&facts));
        facts.kubernetes.kubelet_conf = false;
        facts.kubernetes.journal_cluster = Some("demo".into());
        assert!(!is_new(&facts));
    }

    #[test]
    fn errors_come_first_then_hosts_as_in_the_inventory() {
        let mut findings = vec![
            Finding::warning("X", unmet("x")).on("b"),
            Finding::error("Y", unmet("y")).on("a"),
            Finding::error("Z", unmet("z")).on("b"),
            Finding::error("Z", unmet("z")).on("b"),
        ];
        sort(&mut findings, &inventory("built-in"));
        let order: Vec<&str> = findings.iter().map(|finding| finding.check.as_str()).collect();
        assert_eq!(order, ["Z", "Y", "X"]);
        assert_eq!(["a", "b", "c"].map(|host| state(&findings, host)), ["unfit", "unfit", "fit"]);
    }
}
