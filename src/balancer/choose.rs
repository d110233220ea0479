//! Which API server a new connection goes to. Pure.

use super::health::State;

/// One API server, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// How far it can be relied on.
    pub(super) state: State,
    /// Whether it runs on this host.
    pub(super) local: bool,
    /// How many connections lead to it from here.
    pub(super) connections: usize,
}

/// The indexes of all candidates in the order they are tried: those that serve first, among them this host's own, then
/// the one with the fewest connections; `turn` breaks what is left of a tie, so that not all nodes take the first. Even
/// dead ones are tried in the end: nothing is lost by it.
pub(super) fn order(candidates: &[Candidate], turn: usize) -> Vec<usize> {
    let count = candidates.len().max(1);
    let mut indexes: Vec<usize> = (0..candidates.len()).collect();
    indexes.sort_by_key(|index| {
        let candidate = &candidates[*index];
        (candidate.state, !candidate.local, candidate.connections, (index + count - turn % count) % count)
    });
    indexes
}

/// Which candidates are to lose their connections: the dead, where another one serves.
pub(super) fn severed(states: &[State]) -> Vec<bool> {
    let another_serves = states.contains(&State::Ready);
    states.iter().map(|state| another_serves && *state == State::Dead).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Candidate, State, order, severed};

    /// `R3` ready with three connections, `U` unready, `?` unknown, `D` dead; `*` behind it: this host's own.
    fn candidates(text: &str) -> Vec<Candidate> {
        let one = |word: &str| {
            let state = match &word[..1] {
                "R" => State::Ready,
                "U" => State::Unready,
                "?" => State::Unknown,
                _ => State::Dead,
            };
            let connections = word[1..].trim_end_matches('*').parse().unwrap_or(0);
            Candidate { state, local: word.ends_with('*'), connections }
        };
        text.split_whitespace().map(one).collect()
    }

    #[rstest]
    #[case("", 5, &[])]
    // Equal ones take turns.
    #[case("R R R", 0, &[0, 1, 2])]
    #[case("R R R", 1, &[1, 2, 0])]
    #[case("R R R", 5, &[2, 0, 1])]
    // The host's own, however many connections it has.
    #[case("R R9* R", 0, &[1, 0, 2])]
    // Unless it does not serve.
    #[case("R U* R", 0, &[0, 2, 1])]
    #[case("R2 R1 R3", 0, &[1, 0, 2])]
    #[case("D ? U R", 0, &[3, 1, 2, 0])]
    // Nothing serves: all are tried.
    #[case("D D* D", 0, &[1, 0, 2])]
    fn the_order_of_trying(#[case] text: &str, #[case] turn: usize, #[case] expected: &[usize]) {
        assert_eq!(order(&candidates(text), turn), expected);
    }

    #[rstest]
    #[case(&[State::Ready, State::Dead], &[false, true])]
    #[case(&[State::Unready, State::Dead], &[false, false])]
    #[case(&[State::Ready, State::Unready, State::Unknown], &[false, false, false])]
    fn connections_to_the_dead_are_closed_where_others_serve(#[case] states: &[State], #[case] expected: &[bool]) {
        assert_eq!(severed(states), expected);
    }
}
