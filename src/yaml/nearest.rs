//! "Did you mean": the candidate a person most likely meant.

/// The candidate nearest to `word`, if one is near enough to be what was meant: at most a third of the letters differ,
/// a swap of two neighbours counting once. Case, `_` and `-` do not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = plain(candidate);
            let length = word.len().max(other.len());
            let distance = distance(&word, &other);
            // A word of one or two letters is near to everything; a beginning that was cut short is near, too.
            let near =
                distance * 3 <= length || (word.len() >= 4 && (other.starts_with(&word) || word.starts_with(&other)));
            near.then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "x"?` or, if nothing is near, the list of what is possible.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("possible here: {}", candidates.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// Longer words are no misspelling of ours, and the distance costs the product of both lengths.
const LONGEST: usize = 64;

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|letter| !matches!(letter, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Letters to insert, drop, change or swap with a neighbour (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let changed = last[column] + usize::from(letter != other);
            let mut best = changed.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && left[row - 1] == *other && right[column - 1] == *letter {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{did_you_mean, nearest};

    #[rstest::rstest]
    #[case("hots", Some("hosts"))]
    #[case("cluser", Some("cluster"))]
    #[case("adress", Some("address"))]
    #[case("kubernets", Some("kubernetes"))]
    #[case("control_plane", Some("control-plane"))]
    #[case("KnownHosts", Some("known_hosts"))]
    #[case("identit", Some("identity"))]
    #[case("colour", None)]
    #[case("x", None)]
    #[case("", None)]
    fn the_word_that_was_meant(#[case] word: &str, #[case] expected: Option<&str>) {
        let words = ["hosts", "cluster", "address", "kubernetes", "control-plane", "known_hosts", "identity"];
        assert_eq!(nearest(word, words), expected);
    }

    #[test]
    fn with_nothing_near_all_are_named() {
        assert_eq!(did_you_mean("colour", ["sudo", "none"]), "possible here: sudo, none");
        assert_eq!(did_you_mean("sudoo", ["sudo", "none"]), "did you mean `sudo`?");
    }
}
