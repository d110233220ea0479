//! Lists of algorithms with `+`, `-` and `^` and patterns, as OpenSSH's `kex_assemble_names` makes them: pure.

use crate::pattern::{matches_list, matches_pattern};

/// The names that `written` leaves of `all`, most wanted first; `default` is what would be taken without it.
///
/// Empty when nothing is left that we know.
pub(crate) fn assemble(written: &str, default: &[&str], all: &[&str]) -> Vec<String> {
    let names = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<String>>();
    let default: Vec<String> = default.iter().map(ToString::to_string).collect();
    let patterns = match (written.chars().next(), written.get(1..)) {
        (Some('-'), Some(list)) => {
            return default.into_iter().filter(|name| !matches_list(list, name)).collect();
        }
        (Some('+'), Some(list)) => [default, names(list)].concat(),
        (Some('^'), Some(list)) => [names(list), default].concat(),
        _ => names(written),
    };
    let mut found: Vec<String> = Vec::new();
    for pattern in &patterns {
        for name in all {
            if matches_pattern(pattern.as_bytes(), name.as_bytes()) && !found.iter().any(|known| known == name) {
                found.push((*name).to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::assemble;

    #[rstest]
    #[case("c,a", "c,a")]
    #[case("+c", "a,b,c")]
    #[case("-a", "b")]
    #[case("-*", "")]
    #[case("^c,b", "c,b,a")]
    #[case("*", "a,b,c,d")]
    #[case("unknown", "")]
    #[case("unknown,d", "d")]
    fn lists_are_assembled(#[case] written: &str, #[case] expected: &str) {
        assert_eq!(assemble(written, &["a", "b"], &["a", "b", "c", "d"]).join(","), expected);
    }
}
