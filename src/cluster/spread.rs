//! How blobs get to many hosts: from the laptop to each, or from host to host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::board::Promise;
use super::connect::Session;
use crate::agent::Purpose;
use crate::bundle::{Blob, Bundle};
use crate::failure::Result;
use crate::inventory::{RelayUse, Transfer};
use crate::remote::{Delivery, Relay, Uplink, Worth};

/// From this rate on, in bytes a second, the laptop's uplink is not what a first control plane waits for, and the other
/// hosts receive beside it. Below, everything goes to the host that all others wait for, or from host to host.
const FAST: u64 = 40 << 20;

/// Handing on takes a port and a handshake for each host; below this the laptop does as well.
const WORTH_RELAYING: Duration = Duration::from_secs(6);

/// A fast uplink is relieved only of this.
const WORTH_RELAYING_WHEN_FAST: Duration = Duration::from_secs(20);

/// The same where hosts are far from the laptop: they are nearer to each other, and nothing waits for round trips there.
const WORTH_RELAYING_WHEN_FAR: Duration = Duration::from_secs(2);

/// The rate counts from so many bytes on: russh and sshd take the first 2 MiB at once.
const SAMPLE: u64 = 12 << 20;

/// Less than this says nothing about the line.
const LEAST_SAMPLE: u64 = 4 << 20;

/// How the hosts that wait for the first one get their blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// From the laptop, beside the first one.
    Direct,
    /// From host to host.
    Relay,
}

/// What the uplink's rate means for the others, who lack `lacking` bytes together; `None` as long as they better wait. `far`:
/// the hosts are far from the laptop.
fn decide(rate: u64, lacking: u64, far: bool) -> Option<Spread> {
    let time = Duration::from_millis(lacking.saturating_mul(1000) / rate.max(1));
    let worth = if far { WORTH_RELAYING_WHEN_FAR } else { WORTH_RELAYING_WHEN_FAST };
    match rate >= FAST {
        true if time < worth => Some(Spread::Direct),
        false if time < WORTH_RELAYING => None,
        _ => Some(Spread::Relay),
    }
}

/// Whether the program itself goes from host to host, at this rate of the uplink and so many bytes that hosts lack.
pub fn relays_program(wish: RelayUse) -> Worth {
    match wish {
        RelayUse::Off => |_, _| false,
        RelayUse::On => |_, _| true,
        RelayUse::Auto => |rate, lacking| decide(rate, lacking, false) == Some(Spread::Relay),
    }
}

fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// How many of so many hosts take blobs from the laptop at the same time.
pub fn sharers(transfer: &Transfer, hosts: usize) -> usize {
    match wish(transfer, hosts) {
        RelayUse::Off => Uplink::new(hosts, transfer.uploads, transfer.bandwidth).receivers(),
        RelayUse::On | RelayUse::Auto => 1,
    }
}

/// Whether hosts are to hand on; a single one has nobody to hand on to.
fn wish(transfer: &Transfer, hosts: usize) -> RelayUse {
    if hosts < 2 { RelayUse::Off } else { transfer.relay }
}

/// What the transfers of one run share.
pub struct Spreading {
    /// The laptop's way out.
    pub uplink: Uplink,
    /// There is room on the uplink for other hosts than the first one, or they get their blobs from each other.
    pub others: Promise<Spread>,
    relay: Option<Relay>,
    /// The others need something of the first one, so that they better wait for it on a line that both would share.
    first_matters: bool,
    wish: RelayUse,
    lacking: Mutex<BTreeMap<String, u64>>,
}

impl Spreading {
    /// For a run on so many hosts. Where hosts hand on, `first` is the root: while it receives, no other host takes anything
    /// from the laptop. Whether the others wait for it anyway, `first_matters` says.
    ///
    /// # Errors
    /// Kind `Internal` when there can be no certificates for the run.
    pub fn new(transfer: &Transfer, hosts: usize, first: Option<&str>, first_matters: bool) -> Result<Self> {
        let wish = wish(transfer, hosts);
        let relay = (wish != RelayUse::Off).then(|| Relay::new(first)).transpose()?;
        let others = Promise::new();
        match wish {
            RelayUse::On => others.keep(Ok(Spread::Relay)),
            RelayUse::Off if !first_matters => others.keep(Ok(Spread::Direct)),
            RelayUse::Off | RelayUse::Auto => {}
        }
        let uplink = Uplink::new(hosts, transfer.uploads, transfer.bandwidth);
        Ok(Self { uplink, others, relay, first_matters, wish, lacking: Mutex::default() })
    }

    /// A host lacks these blobs: it takes part.
    pub fn lacks(&self, session: &Session, blobs: &[Blob]) {
        if let Some(relay) = &self.relay {
            relay.follow(&session.agent);
        }
        let host = &session.host.name;
        let bytes = blobs.iter().map(|blob| blob.stored_size).sum();
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), bytes);
    }

    /// How many bytes a host was said to lack.
    pub fn lacking(&self, host: &str) -> u64 {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied().unwrap_or(0)
    }

    fn lacking_besides(&self, host: &str) -> u64 {
        let lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        lacking.iter().filter(|(name, _)| *name != host).map(|(_, bytes)| bytes).sum()
    }

    /// The first host, `far` from the laptop or not, has got so many bytes since `began`; `all` of those that are sent first.
    pub fn measured(&self, host: &str, far: bool, bytes: u64, all: bool, began: Instant) {
        if self.others.is_kept() || (bytes < SAMPLE && !all) {
            return;
        }
        if bytes < LEAST_SAMPLE {
            // It tells nothing; nor has the first one much to wait for.
            self.others.keep(Ok(Spread::Direct));
            return;
        }
        match decide(rate(bytes, began.elapsed()), self.lacking_besides(host), far) {
            // Beside the first part the others would only be in its way.
            Some(Spread::Direct) if !all && self.first_matters => {}
            Some(Spread::Relay) if self.wish == RelayUse::Off => {}
            Some(spread) => {
                if let Some(relay) = self.relay.as_ref().filter(|_| spread == Spread::Relay) {
                    // The others ask at once; they are not to take from the laptop what this one is about to hand on.
                    relay.expect(host);
                }
                self.others.keep(Ok(spread));
            }
            None if !self.first_matters => self.others.keep(Ok(Spread::Direct)),
            None => {}
        }
    }

    /// The first host has everything: whoever still waits gets its blobs from the laptop.
    pub fn first_is_done(&self) {
        self.others.keep(Ok(Spread::Direct));
        self.first_share_is_done();
    }

    /// The first host has what all others wait for.
    pub fn first_share_is_done(&self) {
        if let Some(relay) = &self.relay {
            relay.first_is_done();
        }
    }

    /// Whether hosts hand blobs on, as far as that is decided.
    fn relays(&self) -> bool {
        matches!(self.others.kept(), Some(Ok(Spread::Relay)))
    }

    /// Lets a host hand on what it has, if hosts do. Where it cannot, it receives all the same.
    pub async fn join(&self, session: &Session, address: IpAddr, bundle: &Bundle) {
        let Some(relay) = self.relay.as_ref().filter(|_| self.relays()) else { return };
        if relay.is_open(&session.host.name) {
            return;
        }
        let blobs = &bundle.manifest().blobs;
        let streams = blobs.iter().map(|blob| (blob.stored_sha256.clone(), blob.stored_size)).collect();
        if let Err(failure) = relay.open(&session.agent, address, streams).await {
            session.events.warn(format!("it hands no blobs on to other hosts: {}", failure.sentence));
        }
    }

    /// Receives, and hands on as soon as it is decided that hosts do.
    pub async fn open_beside<T>(
        &self,
        session: &Session,
        address: IpAddr,
        bundle: &Bundle,
        receiving: impl Future<Output = T>,
    ) -> T {
        if let Some(relay) = self.relay.as_ref().filter(|_| self.relays()) {
            relay.expect(&session.host.name);
        }
        let opening = async {
            if self.others.wait().await.is_ok() {
                self.join(session, address, bundle).await;
            }
            std::future::pending::<std::convert::Infallible>().await
        };
        let received = tokio::select! {
            received = receiving => received,
            never = opening => match never {},
        };
        if let Some(relay) = &self.relay {
            relay.give_up(&session.host.name);
        }
        received
    }

    /// How one host gets blobs now. The first one keeps them as long as it may have to hand them on.
    pub fn delivery<'a>(
        &'a self,
        session: &'a Session,
        bundle: &'a std::sync::Arc<Bundle>,
        first: bool,
    ) -> Delivery<'a> {
        let relay = self.relay.as_ref().filter(|_| self.relays() || (first && !self.others.is_kept()));
        let purpose = if relay.is_some() { Purpose::HandOn } else { Purpose::Unpack };
        Delivery { start: &session.start, bundle, uplink: &self.uplink, relay, purpose }
    }

    /// A host takes no part any more: it failed, or all are done.
    pub async fn leave(&self, session: &Session) {
        if let Some(relay) = &self.relay {
            relay.close(&session.agent).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rstest::rstest;

    use super::{Spread, Spreading, decide, relays_program};
    use crate::inventory::{RelayUse, Transfer};

    #[rstest]
    // A fast line: hosts receive side by side, unless there are very many.
    #[case(100, 180, false, Some(Spread::Direct))]
    #[case(100, 0, false, Some(Spread::Direct))]
    #[case(100, 1_000, false, Some(Spread::Direct))]
    #[case(100, 5_000, false, Some(Spread::Relay))]
    // Far away it pays sooner.
    #[case(100, 180, true, Some(Spread::Direct))]
    #[case(100, 1_000, true, Some(Spread::Relay))]
    // A slow one: little is waited for, much is handed on.
    #[case(12, 40, false, None)]
    #[case(12, 40, true, None)]
    #[case(12, 180, false, Some(Spread::Relay))]
    #[case(0, 180, false, Some(Spread::Relay))]
    fn handing_on_has_to_pay(
        #[case] rate: u64,
        #[case] lacking: u64,
        #[case] far: bool,
        #[case] expected: Option<Spread>,
    ) {
        assert_eq!(decide(rate << 20, lacking << 20, far), expected);
    }

    #[rstest]
    #[case(RelayUse::Auto, 12, 400, true)]
    #[case(RelayUse::Auto, 12, 40, false)]
    #[case(RelayUse::Auto, 100, 400, false)]
    #[case(RelayUse::On, 100, 1, true)]
    #[case(RelayUse::Off, 0, 400, false)]
    fn the_program_is_handed_on_where_blobs_would_be(
        #[case] wish: RelayUse,
        #[case] rate: u64,
        #[case] lacking: u64,
        #[case] expected: bool,
    ) {
        assert_eq!(relays_program(wish)(rate << 20, lacking << 20), expected);
    }

    fn spreading(relay: RelayUse, hosts: usize) -> Spreading {
        Spreading::new(&Transfer { relay, ..Transfer::default() }, hosts, Some("first"), true).unwrap()
    }

    #[test]
    fn what_the_inventory_says_wins_and_one_host_has_nobody_to_hand_on_to() {
        let kept = |spreading: &Spreading| spreading.others.kept().map(|kept| kept.unwrap());
        assert_eq!(kept(&spreading(RelayUse::On, 3)), Some(Spread::Relay));
        assert_eq!(kept(&spreading(RelayUse::On, 1)), None);
        let off = spreading(RelayUse::Off, 3);
        off.lacking.lock().unwrap().insert("w".to_owned(), 1 << 30);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        off.measured("first", false, 20 << 20, true, long_ago);
        assert_eq!(kept(&off), None);
        off.first_is_done();
        assert_eq!(kept(&off), Some(Spread::Direct));
    }

    #[test]
    fn a_slow_line_shows_before_everything_is_sent_and_a_fast_one_only_then() {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let slow = spreading(RelayUse::Auto, 3);
        slow.lacking.lock().unwrap().insert("w".to_owned(), 1 << 30);
        slow.measured("first", false, 1 << 20, false, long_ago);
        assert!(!slow.others.is_kept());
        slow.measured("first", false, 13 << 20, false, long_ago);
        assert_eq!(slow.others.kept().unwrap().unwrap(), Spread::Relay);
        let fast = spreading(RelayUse::Auto, 3);
        fast.measured("first", false, 13 << 30, false, long_ago);
        assert!(!fast.others.is_kept());
        fast.measured("first", false, 13 << 30, true, long_ago);
        assert_eq!(fast.others.kept().unwrap().unwrap(), Spread::Direct);
    }

    #[test]
    fn where_nobody_needs_the_first_one_nobody_waits_longer_than_it_takes_to_know() {
        let alike =
            |relay| Spreading::new(&Transfer { relay, ..Transfer::default() }, 3, Some("first"), false).unwrap();
        assert_eq!(alike(RelayUse::Off).others.kept().unwrap().unwrap(), Spread::Direct);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        for (bytes, lacking, expected) in [
            (13 << 30, 1 << 30, Spread::Direct),
            (13 << 20, 1 << 20, Spread::Direct),
            (13 << 20, 1 << 30, Spread::Relay),
        ] {
            let auto = alike(RelayUse::Auto);
            auto.lacking.lock().unwrap().insert("w".to_owned(), lacking);
            assert!(!auto.others.is_kept());
            auto.measured("first", false, bytes, false, long_ago);
            assert_eq!(auto.others.kept().unwrap().unwrap(), expected, "{bytes} {lacking}");
        }
    }
}
