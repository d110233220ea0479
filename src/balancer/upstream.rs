//! The API servers behind the balancer: what is known of each, and the connections that lead to it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::choose::{self, Candidate};
use super::health::{Health, State};
use super::probe;
use crate::event::{Events, What};
use crate::message::ApiServer;

/// One API server.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Where it is.
    pub(super) server: ApiServer,
    health: Mutex<Health>,
    connections: AtomicUsize,
    /// Ends the connections that lead to it; another takes its place for those that follow.
    severing: Mutex<CancellationToken>,
    /// It stands in the list no longer.
    gone: CancellationToken,
}

/// A connection that counts for its server as long as it is kept.
#[derive(Debug)]
pub(super) struct Counted {
    upstream: Arc<Upstream>,
    /// Resolves when the connection is to be closed.
    pub(super) severed: CancellationToken,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.upstream.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    fn new(server: ApiServer) -> Self {
        Self {
            server,
            health: Mutex::default(),
            connections: AtomicUsize::new(0),
            severing: Mutex::new(CancellationToken::new()),
            gone: CancellationToken::new(),
        }
    }

    /// How far it can be relied on.
    pub(super) fn state(&self) -> State {
        locked(&self.health).state()
    }

    /// Whether its host took the last connection.
    pub(super) fn is_reachable(&self) -> bool {
        locked(&self.health).is_reachable()
    }

    /// Counts one connection more. To be called before it is made: if the server is found dead meanwhile, it is severed.
    pub(super) fn count(self: &Arc<Self>) -> Counted {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Counted { upstream: Arc::clone(self), severed: locked(&self.severing).clone() }
    }

    /// Closes all connections that lead to it.
    fn sever(&self) {
        std::mem::replace(&mut *locked(&self.severing), CancellationToken::new()).cancel();
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Upstreams {
    list: Mutex<Vec<Arc<Upstream>>>,
    turn: AtomicUsize,
    scheme: &'static str,
    events: Events,
}

impl Upstreams {
    /// None yet; they are asked whether they serve by this scheme, and what happens to them is said on `events`.
    pub(super) fn new(scheme: &'static str, events: &Events) -> Arc<Self> {
        // Nodes start at different places, so that they do not all take the first server.
        let start = usize::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default();
        let (turn, events) = (AtomicUsize::new(start), events.clone());
        Arc::new(Self { list: Mutex::default(), turn, scheme, events })
    }

    /// Takes over a new list. Servers that stay keep their connections and what is known of them; those that are new are
    /// watched from now on; connections to those that left are closed.
    pub(super) fn replace(self: &Arc<Self>, servers: &[ApiServer]) {
        let mut list = locked(&self.list);
        let old = std::mem::take(&mut *list);
        for server in servers {
            if let Some(there) = old.iter().find(|upstream| upstream.server == *server) {
                list.push(Arc::clone(there));
                continue;
            }
            let upstream = Arc::new(Upstream::new(*server));
            list.push(Arc::clone(&upstream));
            let all = Arc::clone(self);
            tokio::spawn(async move {
                let gone = upstream.gone.clone();
                let url = format!("{}://{}", all.scheme, upstream.server.address);
                gone.run_until_cancelled(probe::watch(&all, &upstream, &url)).await;
            });
        }
        for upstream in old.iter().filter(|upstream| !servers.contains(&upstream.server)) {
            upstream.gone.cancel();
            upstream.sever();
        }
        let names: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
        self.events.send(What::Said { sentence: format!("API servers: {}", names.join(", ")) });
    }

    /// The servers in the order in which a new connection tries them.
    pub(super) fn in_order(&self) -> Vec<Arc<Upstream>> {
        let list = locked(&self.list);
        let candidates: Vec<Candidate> = list
            .iter()
            .map(|upstream| Candidate {
                state: upstream.state(),
                local: upstream.server.local,
                connections: upstream.connections.load(Ordering::Relaxed),
            })
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        choose::order(&candidates, turn).into_iter().map(|index| Arc::clone(&list[index])).collect()
    }

    /// Takes note of what was found out about a server, and closes the connections to those that are dead by now.
    pub(super) fn note(&self, upstream: &Upstream, learn: impl FnOnce(&mut Health)) {
        let (before, after) = {
            let mut health = locked(&upstream.health);
            let before = health.state();
            learn(&mut health);
            (before, health.state())
        };
        if before == after {
            return;
        }
        let address = upstream.server.address;
        match after {
            State::Ready => self.events.send(What::Said { sentence: format!("{address} serves") }),
            State::Unready => self.events.warn(format!("{address} is there and does not serve")),
            State::Dead => self.events.warn(format!("{address} is dead")),
            State::Unknown => {}
        }
        let list = locked(&self.list);
        let states: Vec<State> = list.iter().map(|upstream| upstream.state()).collect();
        for (upstream, _) in list.iter().zip(choose::severed(&states)).filter(|(_, severed)| *severed) {
            upstream.sever();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{State, Upstreams};
    use crate::balancer::health::Answer;
    use crate::event::Events;
    use crate::message::ApiServer;

    fn servers(ports: &[u16]) -> Vec<ApiServer> {
        ports.iter().map(|port| ApiServer { address: ([127, 0, 0, 1], *port).into(), local: false }).collect()
    }

    #[tokio::test]
    async fn a_new_list_disturbs_only_what_left() {
        let upstreams = Upstreams::new("http", &Events::nowhere());
        // Nothing listens on these ports.
        upstreams.replace(&servers(&[1, 2]));
        let find = |port: u16| {
            upstreams.in_order().into_iter().find(|upstream| upstream.server.address.port() == port).unwrap()
        };
        let (stays, leaves) = (find(1).count(), find(2).count());
        upstreams.replace(&servers(&[3, 1]));
        assert!(!stays.severed.is_cancelled() && leaves.severed.is_cancelled());
        assert_eq!(upstreams.in_order().len(), 2);
    }

    #[tokio::test]
    async fn connections_to_a_dead_server_end_as_soon_as_another_serves() {
        let upstreams = Upstreams::new("http", &Events::nowhere());
        upstreams.replace(&servers(&[1, 2]));
        let find = |port: u16| {
            upstreams.in_order().into_iter().find(|upstream| upstream.server.address.port() == port).unwrap()
        };
        let (dead, other) = (find(1), find(2));
        let connection = dead.count();
        for _ in 0..2 {
            upstreams.note(&dead, |health| health.connected(false));
        }
        assert_eq!(dead.state(), State::Dead);
        assert!(!connection.severed.is_cancelled());
        upstreams.note(&other, |health| health.answered(Answer::Ready));
        assert!(connection.severed.is_cancelled());
        // What is connected later has a life of its own.
        assert!(!dead.count().severed.is_cancelled());
        assert_eq!(upstreams.in_order()[0].server.address.port(), 2);
    }
}
