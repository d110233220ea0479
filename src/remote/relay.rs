//! Who gets which blob from whom, so that bytes leave the laptop once: for each blob a tree that grows while it is asked
//! for, with the first host that asks at its root. A host hands on while it still receives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::agent::{Agent, Lives};
use crate::agent::relay::{Giver, Identity, RelayOrder, server_name};
use crate::failure::Result;
use crate::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey, Subject, Usage};
use crate::message::Request;

/// So many hosts are given the same blob by one host at a time, as long as there are others to ask.
const FAN_OUT: usize = 2;

/// A host that found so many others unreachable asks no more of them.
const MAXIMUM_TROUBLE: usize = 2;

/// A host that is about to listen does so in a round trip or two, which may stand behind bytes on a slow line.
const OPENING: Duration = Duration::from_secs(3);

/// Closing a port takes a round trip.
const CLOSE: Duration = Duration::from_secs(3);

/// Certificates are for one run, but clocks of hosts may be wrong: valid so much before and after now, in seconds.
const VALID_SECONDS: u64 = 2 * 24 * 3600;

/// Hosts of one run that hand blobs on.
pub struct Relay {
    authority: Authority,
    now_seconds: u64,
    /// Who hosts are, as far as they were asked about.
    identities: Mutex<BTreeMap<String, Identity>>,
    state: watch::Sender<State>,
}

/// A host that has a blob or is receiving it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    host: String,
    /// The host it has the blob from; the laptop if absent.
    parent: Option<String>,
    /// The life of its agent in which it got it.
    life: u64,
}

/// Where a host listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Port {
    address: SocketAddr,
    /// The life of its agent that listens.
    life: u64,
}

/// What is known of all hosts and blobs.
#[derive(Debug, Clone, Default)]
struct State {
    /// The host that all others wait for: while its share is under way, nobody else takes anything from the laptop.
    first: Option<String>,
    /// Where hosts listen.
    open: BTreeMap<String, Port>,
    /// Hosts that are about to listen: what they have is waited for rather than taken from the laptop once more.
    opening: BTreeSet<String>,
    /// Who holds what, by the sha256 of the stream.
    holders: BTreeMap<String, Vec<Holder>>,
    /// Whom a host found unreachable.
    trouble: BTreeMap<String, BTreeSet<String>>,
    /// Agents that may be started anew.
    lives: BTreeMap<String, Lives>,
}

/// Where a host takes a blob from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Laptop,
    From(String, SocketAddr),
    Wait,
    /// A host that has it is about to listen.
    WaitForPort(String),
}

impl State {
    fn life(&self, host: &str) -> u64 {
        self.lives.get(host).map_or(0, Lives::now)
    }

    /// Where a host listens now.
    fn port(&self, host: &str) -> Option<SocketAddr> {
        self.open.get(host).filter(|port| port.life == self.life(host)).map(|port| port.address)
    }

    /// The decision for one host and one blob.
    fn decide(&self, host: &str, sha256: &str) -> Decision {
        let nobody = BTreeSet::new();
        let trouble = self.trouble.get(host).unwrap_or(&nobody);
        let holders = self.holders.get(sha256).map(Vec::as_slice).unwrap_or_default();
        let reachable = |holder: &&Holder| trouble.len() < MAXIMUM_TROUBLE && !trouble.contains(&holder.host);
        let has_it = |holder: &&Holder| holder.life == self.life(&holder.host);
        let givers =
            || holders.iter().filter(has_it).filter(reachable).filter(|holder| !is_below(holders, &holder.host, host));
        let candidates = givers().filter_map(|holder| Some((holder, self.port(&holder.host)?)));
        let best = candidates.min_by_key(|(holder, _)| {
            let children = holders.iter().filter(|other| other.parent.as_ref() == Some(&holder.host)).count();
            (children >= FAN_OUT, depth(holders, holder), children)
        });
        match (best, &self.first) {
            (Some((holder, address)), _) => Decision::From(holder.host.clone(), address),
            (None, Some(first)) if first != host && trouble.is_empty() => Decision::Wait,
            (None, _) => match givers().find(|holder| self.opening.contains(&holder.host)) {
                Some(holder) => Decision::WaitForPort(holder.host.clone()),
                None => Decision::Laptop,
            },
        }
    }

    fn record(&mut self, host: &str, sha256: &str, parent: Option<String>) {
        let life = self.life(host);
        let holders = self.holders.entry(sha256.to_owned()).or_default();
        holders.retain(|holder| holder.host != host);
        holders.push(Holder { host: host.to_owned(), parent, life });
    }
}

/// How many hosts are between a holder and the laptop.
fn depth(holders: &[Holder], holder: &Holder) -> usize {
    let mut depth = 0;
    let mut at = holder;
    while let Some(parent) = at.parent.as_ref().and_then(|name| holders.iter().find(|other| other.host == *name)) {
        depth += 1;
        at = parent;
        if depth > holders.len() {
            break;
        }
    }
    depth
}

/// Whether `host` is `top` or has the blob from it, through however many others: it cannot give it to `top`.
fn is_below(holders: &[Holder], host: &str, top: &str) -> bool {
    let mut at = Some(host);
    for _ in 0..=holders.len() {
        match at {
            Some(name) if name == top => return true,
            Some(name) => {
                at = holders.iter().find(|holder| holder.host == name).and_then(|holder| holder.parent.as_deref());
            }
            None => return false,
        }
    }
    true
}

impl Relay {
    /// For one run. While `first` has its share under way, no other host takes anything from the laptop.
    ///
    /// # Errors
    /// Kind `Internal` when there can be no certificates.
    pub fn new(first: Option<&str>) -> Result<Self> {
        let now_seconds =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let since = now_seconds.saturating_sub(VALID_SECONDS);
        let authority = Authority::fresh("clusterctl relay", key, since, 2 * VALID_SECONDS)?;
        let state = State { first: first.map(str::to_owned), ..State::default() };
        Ok(Self { authority, now_seconds, identities: Mutex::default(), state: watch::Sender::new(state) })
    }

    /// Who a host is during this run.
    ///
    /// # Errors
    /// Kind `Internal` when there can be no certificate.
    pub fn identity(&self, host: &str) -> Result<Identity> {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = identities.get(host) {
            return Ok(known.clone());
        }
        let identity = self.make_identity(host)?;
        identities.insert(host.to_owned(), identity.clone());
        Ok(identity)
    }

    fn make_identity(&self, host: &str) -> Result<Identity> {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let subject = Subject {
            common_name: host.chars().take(64).collect(),
            usages: vec![Usage::Server, Usage::Client],
            dns_names: vec![server_name(host)],
            ..Subject::default()
        };
        let since = self.now_seconds.saturating_sub(VALID_SECONDS);
        let certificate = self.authority.sign(&subject, &key, since, 2 * VALID_SECONDS)?;
        Ok(Identity {
            name: host.to_owned(),
            certificate: certificate.pem(),
            key: key.pem().clone(),
            authority: self.authority.pem().to_owned(),
        })
    }

    /// Lets a host hand on what it has and receives: it opens a port on `address`.
    ///
    /// # Errors
    /// When it cannot; then it only receives.
    pub async fn open(&self, agent: &Agent, address: IpAddr, streams: BTreeMap<String, u64>) -> Result<()> {
        self.expect(agent.host());
        let life = agent.lives().now();
        let listens = async {
            let order = RelayOrder { identity: self.identity(agent.host())?, address, streams, program: None };
            agent.ask::<SocketAddr>(Request::Relay(order)).await
        };
        let listens = listens.await;
        self.state.send_modify(|state| {
            state.opening.remove(agent.host());
            if let Ok(listens) = &listens {
                // The port is what the host says; where it is, is what the plan says.
                let address = SocketAddr::new(address, listens.port());
                state.open.insert(agent.host().to_owned(), Port { address, life });
            }
        });
        listens.map(|_| ())
    }

    /// Lets a host hand on the program that it runs, whose sha256 this is: where it listens.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn open_for_program(&self, agent: &Agent, address: IpAddr, sha256: &str) -> Result<SocketAddr> {
        let identity = self.identity(agent.host())?;
        let order = RelayOrder { identity, address, streams: BTreeMap::new(), program: Some(sha256.to_owned()) };
        let listens: SocketAddr = agent.ask(Request::Relay(order)).await?;
        Ok(SocketAddr::new(address, listens.port()))
    }

    /// Closes the port of a host.
    pub async fn end(agent: &Agent) {
        // An agent that is gone has closed it already, and one that cannot be reached is not waited for.
        let _ = tokio::time::timeout(CLOSE, agent.ask::<()>(Request::EndRelay)).await;
    }

    /// An agent takes part. What it holds and where it listens counts until it is started anew: then it may have nothing any more
    /// of what its host was sent before.
    pub fn follow(&self, agent: &Agent) {
        self.state.send_modify(|state| {
            state.lives.insert(agent.host().to_owned(), agent.lives());
        });
    }

    /// A host is about to listen: whoever wants what it has waits a little for that.
    pub fn expect(&self, host: &str) {
        self.state.send_if_modified(|state| state.port(host).is_none() && state.opening.insert(host.to_owned()));
    }

    /// A host that was to listen is not waited for any more.
    pub fn give_up(&self, host: &str) {
        self.state.send_if_modified(|state| state.opening.remove(host));
    }

    /// Whom a host takes a stream from, `None` for the laptop; from now on it counts as one that can give it. May wait for
    /// the host that all others wait for.
    ///
    /// # Errors
    /// Kind `Internal` when there can be no certificate.
    pub async fn giver(&self, host: &str, sha256: &str) -> Result<Option<Giver>> {
        let mut changes = self.state.subscribe();
        let patience = tokio::time::Instant::now() + OPENING;
        loop {
            changes.mark_unchanged();
            let mut decision = Decision::Wait;
            self.state.send_if_modified(|state| {
                decision = state.decide(host, sha256);
                match &decision {
                    Decision::Wait | Decision::WaitForPort(_) => return false,
                    Decision::Laptop => state.record(host, sha256, None),
                    Decision::From(giver, _) => state.record(host, sha256, Some(giver.clone())),
                }
                true
            });
            match decision {
                Decision::Laptop => return Ok(None),
                Decision::From(giver, address) => {
                    return Ok(Some(Giver { host: giver, address, identity: self.identity(host)? }));
                }
                Decision::WaitForPort(late) => match tokio::time::timeout_at(patience, changes.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(None),
                    // Nobody else waits for it either.
                    Err(_) => self.give_up(&late),
                },
                Decision::Wait if changes.changed().await.is_err() => return Ok(None),
                Decision::Wait => {}
            }
        }
    }

    /// A host could not take anything from another one.
    pub fn unreachable(&self, host: &str, giver: &str) {
        self.state.send_modify(|state| {
            state.trouble.entry(host.to_owned()).or_default().insert(giver.to_owned());
        });
    }

    /// What a host has of a stream is of no use.
    pub fn damaged(&self, host: &str, sha256: &str) {
        self.state.send_modify(|state| {
            if let Some(holders) = state.holders.get_mut(sha256) {
                holders.retain(|holder| holder.host != host);
            }
        });
    }

    /// The host that all others wait for has its share.
    pub fn first_is_done(&self) {
        self.state.send_modify(|state| state.first = None);
    }

    /// A host failed: nobody is sent to it any more.
    fn left(&self, host: &str) {
        self.state.send_modify(|state| {
            state.open.remove(host);
            state.opening.remove(host);
            if state.first.as_deref() == Some(host) {
                state.first = None;
            }
        });
    }

    /// Whether a host takes what all others wait for, from the laptop.
    pub fn is_first(&self, host: &str) -> bool {
        self.state.borrow().first.as_deref() == Some(host)
    }

    /// Whether a host hands blobs on.
    pub fn is_open(&self, host: &str) -> bool {
        self.state.borrow().port(host).is_some()
    }

    /// A host takes no part any more; its port is closed.
    pub async fn close(&self, agent: &Agent) {
        let was_open = self.is_open(agent.host());
        self.left(agent.host());
        if was_open {
            Self::end(agent).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::{Decision, Lives, Port, Relay, State};

    const BLOB: &str = "b";

    fn port(life: u64) -> Port {
        Port { address: "10.0.0.1:1".parse().unwrap(), life }
    }

    fn state(open: &[&str], holders: &[(&str, &str)]) -> State {
        let mut state = State::default();
        for name in open {
            state.open.insert((*name).to_owned(), port(0));
        }
        for (host, parent) in holders {
            state.record(host, BLOB, Some((*parent).to_owned()).filter(|parent| !parent.is_empty()));
        }
        state
    }

    fn decided(state: &State, host: &str) -> String {
        match state.decide(host, BLOB) {
            Decision::Laptop => "laptop".to_owned(),
            Decision::From(giver, _) => giver,
            Decision::Wait => "wait".to_owned(),
            Decision::WaitForPort(host) => format!("wait for {host}"),
        }
    }

    #[rstest]
    // Nobody has it, or nobody who has it listens.
    #[case(&[], &[], "laptop")]
    #[case(&[], &[("a", "")], "laptop")]
    // The nearest to the laptop, until it has two to give to.
    #[case(&["a"], &[("a", "")], "a")]
    #[case(&["a", "b"], &[("a", ""), ("b", "a")], "a")]
    #[case(&["a", "b", "c"], &[("a", ""), ("b", "a"), ("c", "a")], "b")]
    #[case(&["a", "b", "c", "d"], &[("a", ""), ("b", "a"), ("c", "a"), ("d", "b")], "c")]
    #[case(&["a", "b", "c", "d", "e"], &[("a", ""), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "c")], "b")]
    // Rather a third than none.
    #[case(&["a"], &[("a", ""), ("b", "a"), ("c", "a")], "a")]
    // Its own copy, and what came through itself, is nothing it can be given.
    #[case(&["x"], &[("x", "")], "laptop")]
    #[case(&["x", "a", "b"], &[("x", ""), ("a", "x"), ("b", "a")], "laptop")]
    #[case(&["x", "a", "b"], &[("x", ""), ("a", "x"), ("b", "")], "b")]
    fn a_tree_grows_from_the_first_who_asks(
        #[case] open: &[&str],
        #[case] holders: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        assert_eq!(decided(&state(open, holders), "x"), expected);
    }

    #[rstest]
    // Who has it and is about to listen is waited for, but not where another one listens already, nor by itself or whoever
    // gives it the blob, nor by those that found it unreachable.
    #[case(&[], &["a"], &[("a", "")], "wait for a")]
    #[case(&["b"], &["a"], &[("a", ""), ("b", "a")], "b")]
    #[case(&[], &["b"], &[("a", "")], "laptop")]
    #[case(&[], &["x"], &[("x", "")], "laptop")]
    #[case(&[], &["a"], &[("x", ""), ("a", "x")], "laptop")]
    #[case(&[], &["shunned", "a"], &[("shunned", ""), ("a", "shunned")], "wait for a")]
    #[case(&[], &["shunned"], &[("shunned", "")], "laptop")]
    fn a_port_that_is_about_to_open_is_waited_for(
        #[case] open: &[&str],
        #[case] opening: &[&str],
        #[case] holders: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        let mut state = state(open, holders);
        state.opening = opening.iter().map(|host| (*host).to_owned()).collect();
        state.trouble.entry("x".to_owned()).or_default().insert("shunned".to_owned());
        assert_eq!(decided(&state, "x"), expected);
    }

    #[tokio::test]
    async fn a_port_that_never_opens_holds_nobody_up() {
        let relay = Relay::new(None).unwrap();
        relay.expect("first");
        assert_eq!(relay.giver("first", BLOB).await.unwrap(), None);
        let began = std::time::Instant::now();
        let asks = ["x", "y"].map(|host| relay.giver(host, BLOB));
        assert_eq!(futures::future::try_join_all(asks).await.unwrap(), [None, None]);
        assert!(began.elapsed() >= super::OPENING);
        // Whoever asks later does not wait again.
        let late = tokio::time::timeout(super::OPENING / 2, relay.giver("z", BLOB));
        assert_eq!(late.await.unwrap().unwrap(), None);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_port_takes_the_blob_from_it_once_it_is_open() {
        let relay = Relay::new(None).unwrap();
        relay.expect("first");
        assert_eq!(relay.giver("first", BLOB).await.unwrap(), None);
        let waiting = relay.giver("x", BLOB);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        relay.state.send_modify(|state| {
            state.opening.clear();
            state.open.insert("first".to_owned(), port(0));
        });
        assert_eq!(waiting.await.unwrap().map(|giver| giver.host).as_deref(), Some("first"));
        // One that leaves is not waited for.
        relay.expect("late");
        assert_eq!(relay.giver("late", "other").await.unwrap(), None);
        relay.left("late");
        assert_eq!(relay.giver("x", "other").await.unwrap(), None);
    }

    #[test]
    fn whoever_was_unreachable_is_not_asked_again_and_two_are_enough() {
        let mut state = state(&["a", "b", "c"], &[("a", ""), ("b", ""), ("c", "")]);
        assert_eq!(decided(&state, "x"), "a");
        state.trouble.entry("x".to_owned()).or_default().insert("a".to_owned());
        assert_eq!(decided(&state, "x"), "b");
        state.trouble.entry("x".to_owned()).or_default().insert("b".to_owned());
        assert_eq!(decided(&state, "x"), "laptop");
        assert_eq!(decided(&state, "y"), "a");
    }

    #[test]
    fn an_agent_that_is_started_anew_has_nothing_of_before() {
        let mut state = state(&["a"], &[("a", "")]);
        let lives = Lives::default();
        state.lives.insert("a".to_owned(), lives.clone());
        assert_eq!(decided(&state, "x"), "a");
        lives.begin_another();
        assert_eq!(decided(&state, "x"), "laptop");
        // A port alone gives nothing, nor is it waited for; what it is sent from now on it has.
        state.open.insert("a".to_owned(), port(1));
        assert_eq!(decided(&state, "x"), "laptop");
        state.open.remove("a");
        state.opening.insert("a".to_owned());
        assert_eq!(decided(&state, "x"), "laptop");
        state.record("a", BLOB, None);
        assert_eq!(decided(&state, "x"), "wait for a");
        state.opening.clear();
        state.open.insert("a".to_owned(), port(1));
        assert_eq!(decided(&state, "x"), "a");
        // Its port of before is closed.
        lives.begin_another();
        state.record("a", BLOB, None);
        assert_eq!(decided(&state, "x"), "laptop");
    }

    #[test]
    fn nobody_takes_the_uplink_from_the_host_that_all_wait_for() {
        let mut state = state(&[], &[]);
        state.first = Some("first".to_owned());
        assert_eq!(decided(&state, "x"), "wait");
        assert_eq!(decided(&state, "first"), "laptop");
        // Who was left alone by another host does not wait on top of it.
        state.trouble.entry("x".to_owned()).or_default().insert("a".to_owned());
        assert_eq!(decided(&state, "x"), "laptop");
    }

    #[test]
    fn eight_hosts_make_a_tree_of_depth_three() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let mut state = state(&names, &[]);
        for name in names {
            match state.decide(name, BLOB) {
                Decision::From(giver, _) => state.record(name, BLOB, Some(giver)),
                _ => state.record(name, BLOB, None),
            }
        }
        let holders = &state.holders[BLOB];
        assert_eq!(holders.iter().filter(|holder| holder.parent.is_none()).count(), 1);
        assert_eq!(holders.iter().map(|holder| super::depth(holders, holder)).max(), Some(3));
    }

    #[tokio::test]
    async fn waiting_ends_when_the_first_host_has_its_share() {
        let relay = Relay::new(Some("first")).unwrap();
        assert_eq!(relay.giver("first", BLOB).await.unwrap(), None);
        let waiting = relay.giver("x", "other");
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        relay.first_is_done();
        assert_eq!(waiting.await.unwrap(), None);
    }
}
