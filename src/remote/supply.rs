//! How this program gets to the hosts of a run that lack it: from the laptop to the first that asks; to the others from that
//! one, where the laptop's line is slow and they have something to ask with, else from the laptop as well.
//!
//! The first host hands its own file on at the port that blobs are handed on at (see [`Relay`]): the asker is no clusterctl
//! yet, but `openssl s_client`, with a certificate for this run in a file that only root can read, and what came is used only
//! when its sha256 is that of the program.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::agent::Agent;
use super::relay::Relay;
use crate::agent::relay::Giver;

/// From whom hosts other than the first get the program, decided by the rate at which the first one got it, in bytes a
/// second, and by what all others lack at most; `true` for from the first one.
pub type Worth = fn(rate: u64, lacking: u64) -> bool;

/// Who waits for the first host hears of it at least so often, where nothing else was said, or turns to the laptop.
const SILENCE: Duration = Duration::from_secs(15);

/// So many hosts ask at a time: each is to have it long before its limit (see `start`).
const ASKERS: usize = 8;

/// The rate counts from so many bytes on; russh and sshd take as many at once, before any has arrived.
const AT_ONCE: u64 = 2 << 20;

/// What is sent to the first host says something of the line from so many bytes on.
const SAMPLE: u64 = 2 * AT_ONCE;

/// So many times slower than a sample shows it a line may be.
const DOUBT: u64 = 2;

/// Among more hosts than these the laptop's line is shared by so many that each has little of it.
const FEW: u64 = 16;

/// So many hosts may find that they cannot take the program from the first one, before nobody tries any more.
const MAXIMUM_TROUBLE: usize = 2;

/// The supply of one run.
pub struct Supply {
    hosts: u64,
    worth: Worth,
    state: watch::Sender<State>,
    trouble: Mutex<usize>,
    askers: Semaphore,
    expected: AtomicBool,
}

#[derive(Debug, Clone, Default)]
enum State {
    /// No host asked yet.
    #[default]
    Nobody,
    /// A host is getting it, or has it and is not known to hand it on yet.
    First { host: String, sha256: String, sent: u64, patience: Duration },
    /// A host hands it on.
    Host { sha256: String, giver: Giver },
    /// Everybody gets it from the laptop.
    Laptop,
}

/// Where a host gets the program from.
pub enum From<'a> {
    /// The laptop; how that goes is to be told.
    LaptopFirst,
    /// The laptop.
    Laptop,
    /// Another host, and the place among those that ask it.
    Host(Box<Giver>, SemaphorePermit<'a>),
}

impl Supply {
    /// For a run on so many hosts.
    pub fn new(hosts: usize, worth: Worth) -> Self {
        let state = if hosts < 2 { State::Laptop } else { State::Nobody };
        Self {
            hosts: hosts as u64,
            worth,
            state: watch::Sender::new(state),
            trouble: Mutex::default(),
            askers: Semaphore::new(ASKERS),
            expected: AtomicBool::new(false),
        }
    }

    /// For hosts that most likely lack the program: what it takes to send it is made ready before they say so.
    pub fn expected(self) -> Self {
        self.expected.store(true, Ordering::Relaxed);
        self
    }

    /// Whether hosts most likely lack the program, and are so few that each may take as much of the laptop's line as it can.
    pub(super) fn is_expected_by_few(&self) -> bool {
        self.hosts <= FEW && self.expected.load(Ordering::Relaxed)
    }

    /// From the laptop to everybody.
    pub fn of_the_laptop() -> Self {
        Self::new(1, |_, _| false)
    }

    /// Where this host gets the program `sha256` from. Waits for the first one, if the host can ask it (`asks`).
    pub(super) async fn from(&self, host: &str, sha256: &str, asks: bool) -> From<'_> {
        let mut changes = self.state.subscribe();
        let first = self.state.send_if_modified(|state| {
            let is_first = match state {
                State::Nobody => true,
                // It asks once more: the program did not come in the first way.
                State::First { host: first, sha256: given, .. } => first == host && given == sha256,
                State::Host { .. } | State::Laptop => false,
            };
            if is_first {
                *state = State::First { host: host.to_owned(), sha256: sha256.to_owned(), sent: 0, patience: SILENCE };
            }
            is_first
        });
        if first {
            return From::LaptopFirst;
        }
        if !asks {
            return From::Laptop;
        }
        loop {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Host { sha256: given, giver } if given == sha256 && !self.troubled() => {
                    let Ok(place) = self.askers.acquire().await else { return From::Laptop };
                    // Those before it may have found that it is of no use.
                    if self.troubled() {
                        return From::Laptop;
                    }
                    return From::Host(Box::new(giver), place);
                }
                State::First { host: ref first, patience, .. } if first != host => {
                    if !matches!(tokio::time::timeout(patience, changes.changed()).await, Ok(Ok(()))) {
                        return From::Laptop;
                    }
                }
                _ => return From::Laptop,
            }
        }
    }

    /// A share of the program, so many bytes of `all`, has arrived at the first host and so has its word of it. Where that alone
    /// shows that the line is fast enough for everybody, the others need not wait for the rest.
    pub(super) fn arrived(&self, bytes: u64, all: u64, elapsed: Duration) {
        let rate = rate(bytes, elapsed) / DOUBT;
        if self.is_worth(rate, all) {
            // The shares are under way side by side: perhaps none arrives before all have.
            self.is_sent(bytes, SILENCE.max(Duration::from_secs(all / rate.max(1))));
        } else {
            self.leave_to_laptop();
        }
    }

    /// The first host is being sent `bytes` of `all` for so long now. Where that shows that the line is fast enough for
    /// everybody, the others need not wait for the end of it.
    pub(super) fn moved(&self, bytes: u64, all: u64, elapsed: Duration) {
        if bytes >= SAMPLE && !self.is_worth(rate(bytes - AT_ONCE, elapsed) / DOUBT, all) {
            self.leave_to_laptop();
        } else {
            self.is_sent(bytes, SILENCE);
        }
    }

    /// The first host is being sent the program: who waits for it hears of it, and hears more within `silence`.
    fn is_sent(&self, bytes: u64, silence: Duration) {
        self.state.send_if_modified(|state| {
            let State::First { sent, patience, .. } = state else { return false };
            (*sent, *patience) = (bytes, silence);
            true
        });
    }

    /// The first host has got all `bytes` in that time: whether others get it from there.
    pub(super) fn measured(&self, bytes: u64, elapsed: Duration) {
        if !self.is_worth(rate(bytes, elapsed), bytes) {
            self.leave_to_laptop();
        }
    }

    fn is_worth(&self, rate: u64, bytes: u64) -> bool {
        (self.worth)(rate, bytes.saturating_mul(self.hosts.saturating_sub(1)))
    }

    /// A host's agent runs, and others reach the host at `address`. If it is the one that others wait for, it opens a port.
    pub async fn runs(&self, agent: &Agent, address: Option<IpAddr>) {
        let sha256 = match &*self.state.borrow() {
            State::First { host, sha256, .. } if host == agent.host() => sha256.clone(),
            _ => return,
        };
        let opened = async {
            let relay = Relay::new(None).ok()?;
            let listens = relay.open_for_program(agent, address?, &sha256).await.ok()?;
            let identity = relay.identity("asker").ok()?;
            Some(Giver { host: agent.host().to_owned(), address: listens, identity })
        };
        // Why not is of no interest: the laptop does it.
        match tokio::time::timeout(SILENCE, opened).await.ok().flatten() {
            Some(giver) => {
                self.state.send_replace(State::Host { sha256, giver });
            }
            None => {
                self.leave_to_laptop();
            }
        }
    }

    /// A host is reached or has failed: nobody waits for it any more.
    pub fn done(&self, host: &str) {
        if self.is_first(host) {
            self.leave_to_laptop();
        }
    }

    /// A host could not take the program from the first one.
    pub(super) fn unreachable(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn troubled(&self) -> bool {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) >= MAXIMUM_TROUBLE
    }

    fn is_first(&self, name: &str) -> bool {
        matches!(&*self.state.borrow(), State::First { host, .. } if host == name)
    }

    /// All hosts are reached: the host that handed the program on, if one did.
    pub fn end(&self) -> Option<String> {
        self.expected.store(false, Ordering::Relaxed);
        self.leave_to_laptop()
    }

    /// From now on everybody is supplied by the laptop. The host that handed the program on, if one did.
    fn leave_to_laptop(&self) -> Option<String> {
        match self.state.send_replace(State::Laptop) {
            State::Host { giver, .. } => Some(giver.host),
            _ => None,
        }
    }
}

/// Bytes a second.
fn rate(bytes: u64, elapsed: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rstest::rstest;

    use super::{From, SILENCE, State, Supply};
    use crate::agent::relay::Giver;
    use crate::remote::Relay;

    fn slow(rate: u64, lacking: u64) -> bool {
        rate < 1000 && lacking > 0
    }

    fn giver() -> Giver {
        let identity = Relay::new(None).unwrap().identity("asker").unwrap();
        Giver { host: "a".to_owned(), address: "10.0.0.1:1".parse().unwrap(), identity }
    }

    fn name(from: &From<'_>) -> &'static str {
        match from {
            From::LaptopFirst => "first",
            From::Laptop => "laptop",
            From::Host(..) => "host",
        }
    }

    #[tokio::test]
    async fn others_wait_for_the_first_one_only_if_they_can_ask_it() {
        let supply = Arc::new(Supply::new(3, slow));
        assert_eq!(name(&supply.from("a", "f00", true).await), "first");
        // It asks once more: another architecture; the same.
        assert_eq!(name(&supply.from("a", "bar", true).await), "laptop");
        assert_eq!(name(&supply.from("a", "f00", false).await), "first");
        assert_eq!(name(&supply.from("b", "f00", false).await), "laptop");
        let waiting = tokio::spawn({
            let supply = supply.clone();
            async move { name(&supply.from("c", "f00", true).await) }
        });
        tokio::task::yield_now().await;
        supply.moved(10, 100, Duration::from_secs(1));
        assert!(!waiting.is_finished());
        supply.state.send_replace(State::Host { sha256: "f00".to_owned(), giver: giver() });
        assert_eq!(waiting.await.unwrap(), "host");
        // One of another architecture, and all once two had trouble, or when the run has reached its hosts.
        assert_eq!(name(&supply.from("d", "bar", true).await), "laptop");
        supply.unreachable();
        assert_eq!(name(&supply.from("d", "f00", true).await), "host");
        supply.unreachable();
        assert_eq!(name(&supply.from("d", "f00", true).await), "laptop");
        assert_eq!(supply.end().as_deref(), Some("a"));
        assert_eq!(supply.end(), None);
    }

    #[rstest]
    #[case::fast(100_000, true)]
    #[case::slow(10, false)]
    #[tokio::test]
    async fn a_fast_line_is_not_waited_for(#[case] bytes: u64, #[case] ended: bool) {
        let supply = Supply::new(3, slow);
        assert_eq!(name(&supply.from("a", "f00", true).await), "first");
        supply.measured(bytes, Duration::from_secs(1));
        let other = tokio::time::timeout(Duration::from_millis(20), supply.from("b", "f00", true)).await;
        assert_eq!(other.is_ok(), ended);
        // Whatever becomes of the first one, the others go on.
        supply.done("b");
        supply.done("a");
        assert_eq!(name(&supply.from("b", "f00", true).await), "laptop");
    }

    #[rstest]
    // What russh and sshd take at once says nothing.
    #[case::nothing_arrived_yet(2 << 20, 1, false)]
    #[case::fast(4 << 20, 1_000, true)]
    #[case::perhaps_not_fast_enough(4 << 20, 1_500_000, false)]
    #[case::slow(8 << 20, 10_000_000, false)]
    #[tokio::test]
    async fn a_line_may_show_before_the_end_that_it_is_fast(
        #[case] bytes: u64,
        #[case] milliseconds: u64,
        #[case] ended: bool,
    ) {
        let supply = Supply::new(3, slow);
        assert_eq!(name(&supply.from("a", "f00", true).await), "first");
        supply.moved(bytes, 9 << 20, Duration::from_millis(milliseconds));
        assert_eq!(matches!(&*supply.state.borrow(), State::Laptop), ended);
    }

    #[rstest]
    #[case::fast(1 << 20, 100, None)]
    #[case::perhaps_not_fast_enough(1_900, 1_000, Some(SILENCE))]
    #[case::slow(100, 1_000, Some(Duration::from_secs(200)))]
    #[tokio::test]
    async fn a_share_tells_how_long_the_others_take(
        #[case] bytes: u64,
        #[case] milliseconds: u64,
        #[case] waits: Option<Duration>,
    ) {
        let supply = Supply::new(3, slow);
        assert_eq!(name(&supply.from("a", "f00", true).await), "first");
        supply.arrived(bytes, 10_000, Duration::from_millis(milliseconds));
        let patience = match &*supply.state.borrow() {
            State::First { patience, .. } => Some(*patience),
            _ => None,
        };
        assert_eq!(patience, waits);
    }

    #[tokio::test]
    async fn one_host_has_nobody_to_ask() {
        assert_eq!(name(&Supply::new(1, slow).from("a", "f00", true).await), "laptop");
        assert_eq!(name(&Supply::of_the_laptop().from("a", "f00", true).await), "laptop");
    }
}
