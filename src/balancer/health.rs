//! What is known of an API server, from what was tried on it. Pure.
//!
//! Two things are tried apart: whether its host takes a connection, which even an overloaded host does at once and a dead
//! one never, and what the server says of itself. The first tells a dead host within seconds; the second tells a server
//! that starts, stops, lost its etcd or hangs.

/// Connections that fail in a row until a server counts as dead: one may be lost.
const FAILED_CONNECTIONS: u8 = 2;

/// Questions without an answer in a row until a server counts as dead although its host takes connections.
const SILENCES: u8 = 3;

/// Refusals in a row until they count as serving. An API server that starts refuses everybody until it has read its roles,
/// for seconds on a small machine; one whose cluster lets nobody ask refuses for ever.
const REFUSALS: u8 = 20;

/// How far a server can be relied on, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It says that it serves.
    Ready,
    /// Nothing is known yet.
    Unknown,
    /// It is there, and does not serve (yet, or any more).
    Unready,
    /// It is gone: what is connected to it waits in vain.
    Dead,
}

/// What a server answered when it was asked whether it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes.
    Ready,
    /// No.
    Unready,
    /// That we have no right to know: it has no roles yet, or a person has taken this right from everybody.
    Refused,
    /// Nothing in time, or nothing that is an answer.
    Silence,
}

/// The memory of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    failed_connections: u8,
    silences: u8,
    refusals: u8,
    answer: Option<bool>,
}

impl Health {
    /// A connection was tried.
    pub(super) fn connected(&mut self, works: bool) {
        if !works {
            self.failed_connections = self.failed_connections.saturating_add(1);
            return;
        }
        if self.is_unreachable() {
            // It is another process now, which has not said anything yet.
            *self = Self::default();
        }
        self.failed_connections = 0;
    }

    /// It was asked whether it serves.
    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Silence => self.silences = self.silences.saturating_add(1),
            said => {
                self.silences = 0;
                self.failed_connections = 0;
                self.refusals = if said == Answer::Refused { self.refusals.saturating_add(1) } else { 0 };
                self.answer = Some(said == Answer::Ready || self.refusals >= REFUSALS);
            }
        }
    }

    /// Whether the last connection was taken, or none was tried yet.
    pub(super) fn is_reachable(&self) -> bool {
        self.failed_connections == 0
    }

    fn is_unreachable(&self) -> bool {
        self.failed_connections >= FAILED_CONNECTIONS
    }

    /// What follows from it.
    pub(super) fn state(&self) -> State {
        match (self.is_unreachable() || self.silences >= SILENCES, self.silences, self.answer) {
            (true, ..) => State::Dead,
            (false, 0, Some(true)) => State::Ready,
            (false, _, None) => State::Unknown,
            (false, ..) => State::Unready,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Answer, Health, State};

    /// `+` connection taken, `-` not; `R` ready, `U` unready, `F` refused, `S` silence.
    #[rstest]
    #[case("", State::Unknown)]
    #[case("+", State::Unknown)]
    // It may be starting: nobody has listened when it was asked.
    #[case("S-", State::Unknown)]
    #[case("SSS", State::Dead)]
    #[case("+R", State::Ready)]
    #[case("+U", State::Unready)]
    #[case("+R-", State::Ready)]
    #[case("+R--", State::Dead)]
    #[case("--", State::Dead)]
    #[case("+R-+-", State::Ready)]
    // One that comes back is asked before it is relied on.
    #[case("+R--+", State::Unknown)]
    #[case("+R--+U", State::Unready)]
    #[case("+R--+R", State::Ready)]
    // An answer is as good as a connection.
    #[case("-R-", State::Ready)]
    // It has no roles yet.
    #[case("+FFF", State::Unready)]
    #[case("+FFFR", State::Ready)]
    // It never tells anybody.
    #[case("+FFFFFFFFFFFFFFFFFFFF", State::Ready)]
    #[case("+FFFFFFFFFFFFFFFFFFFF--+F", State::Unready)]
    // Slow once: others are taken. Silent for long: it hangs.
    #[case("+RS", State::Unready)]
    #[case("+RSR", State::Ready)]
    #[case("+RSSS", State::Dead)]
    #[case("+RSSS+", State::Dead)]
    #[case("+RSSSR", State::Ready)]
    fn what_follows_from_what_was_tried(#[case] tried: &str, #[case] state: State) {
        let mut health = Health::default();
        for one in tried.chars() {
            match one {
                '+' => health.connected(true),
                '-' => health.connected(false),
                'R' => health.answered(Answer::Ready),
                'U' => health.answered(Answer::Unready),
                'F' => health.answered(Answer::Refused),
                _ => health.answered(Answer::Silence),
            }
        }
        assert_eq!(health.state(), state);
    }
}
