//! Finding out all the time which API servers serve.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::health::{Answer, State};
use super::upstream::{Upstream, Upstreams};
use crate::api::{Access, Client, Identity, Problem, Trust};
use crate::failure::Result;

/// How soon something is tried again while it is not clear what is wrong. All other times are multiples of it.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two connections to a server that takes them. With [`CONNECTION_LIMIT`] a host that went without a word
/// is noticed within 3 seconds: 1 s of rest and two connections that are not taken.
const CONNECTION_REST: u32 = 4;

/// Longest time for a connection to be taken.
pub(super) const CONNECTION_LIMIT: Duration = Duration::from_millis(800);

/// Ticks between two questions to a server that serves, and to one that does not.
const READY_REST: u32 = 8;
const UNREADY_REST: u32 = 2;

/// Longest time for an answer; servers that start on small machines are slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// No answer may be longer, in bytes: it is a few lines.
const MAXIMUM_ANSWER_BYTES: u64 = 64 << 10;

/// Asked without credentials; Kubernetes lets everybody ask this.
const PATH: &str = "/readyz";

/// Watches one server without end.
pub(super) async fn watch(upstreams: &Upstreams, upstream: &Upstream, url: &str) {
    tokio::join!(connect(upstreams, upstream), ask(upstreams, upstream, url));
}

/// Ticks that can be counted.
struct Ticks(Interval);

impl Ticks {
    fn new() -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }

    async fn pass(&mut self, count: u32) {
        for _ in 0..count {
            self.0.tick().await;
        }
    }
}

/// Whether a host takes a connection at a port in time.
pub(super) async fn connection(address: SocketAddr) -> Option<TcpStream> {
    timeout(CONNECTION_LIMIT, TcpStream::connect(address)).await.ok()?.ok()
}

async fn connect(upstreams: &Upstreams, upstream: &Upstream) {
    let mut ticks = Ticks::new();
    loop {
        let works = connection(upstream.server.address).await.is_some();
        upstreams.note(upstream, |health| health.connected(works));
        ticks.pass(if works { CONNECTION_REST } else { 1 }).await;
    }
}

async fn ask(upstreams: &Upstreams, upstream: &Upstream, url: &str) {
    let mut ticks = Ticks::new();
    let mut client = None;
    loop {
        // A server that hangs is dead and is asked again; one whose host takes no connections answers nothing.
        if upstream.is_reachable() {
            let answer = question(&mut client, url).await;
            upstreams.note(upstream, |health| health.answered(answer));
        }
        ticks.pass(if upstream.state() == State::Ready { READY_REST } else { UNREADY_REST }).await;
    }
}

/// Asks by a connection that is kept as long as it answers.
async fn question(client: &mut Option<Client>, url: &str) -> Answer {
    let asking = match client.take() {
        Some(client) => client,
        None => match new_client(url).await {
            Ok(client) => client,
            Err(_) => return Answer::Silence,
        },
    };
    let answer = answer(asking.healthy(PATH).await);
    if answer != Answer::Silence {
        *client = Some(asking);
    }
    answer
}

async fn new_client(url: &str) -> Result<Client> {
    // Nothing is told to the server and nothing that matters is believed: clients prove it themselves.
    let access = Access { server: url.to_owned(), trust: Trust::Unverified, identity: Identity::Anonymous };
    Ok(Client::new(&access).await?.hurried(ANSWER_LIMIT).limited(MAXIMUM_ANSWER_BYTES))
}

fn answer(result: std::result::Result<(), Problem>) -> Answer {
    match result {
        Ok(()) => Answer::Ready,
        Err(problem) if problem.is_unauthorized() || problem.is_forbidden() => Answer::Refused,
        Err(Problem::Refused { .. }) => Answer::Unready,
        Err(Problem::Unreachable(_) | Problem::Untrusted(_) | Problem::Unreadable(_)) => Answer::Silence,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Answer, answer, question};
    use crate::api::Problem;
    use crate::api::fake::FakeApi;

    fn refused(code: u16) -> Result<(), Problem> {
        Err(Problem::Refused { code, reason: String::new(), message: String::new() })
    }

    #[rstest]
    #[case(Ok(()), Answer::Ready)]
    #[case(refused(401), Answer::Refused)]
    #[case(refused(403), Answer::Refused)]
    #[case(refused(500), Answer::Unready)]
    #[case(refused(429), Answer::Unready)]
    #[case(Err(Problem::Unreachable(String::new())), Answer::Silence)]
    fn what_an_answer_says(#[case] result: Result<(), Problem>, #[case] expected: Answer) {
        assert_eq!(answer(result), expected);
    }

    #[tokio::test]
    async fn a_connection_is_kept_while_it_answers() {
        let api = FakeApi::start().await;
        let mut client = None;
        assert_eq!(question(&mut client, &api.server()).await, Answer::Ready);
        api.refuse_next(1, 500, "InternalError");
        assert_eq!(question(&mut client, &api.server()).await, Answer::Unready);
        assert!(client.is_some());
        assert_eq!(question(&mut None, "https://127.0.0.1:1").await, Answer::Silence);
    }
}
