//! Patterns with `*` and `?`, which known_hosts, ssh_config and selectors of hosts share: pure, in OpenSSH's words
//! (ssh_config(5), PATTERNS).

/// `*` is any text, `?` any one byte; linear in time for any pattern (one place to come back to).
pub fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Whether one pattern of a list separated by commas matches and no negated one (`!`) does.
pub fn matches_list(list: &str, text: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        if matches_pattern(pattern.as_bytes(), text.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// As [`matches_list`] for names of hosts: upper and lower case are the same.
pub fn matches_host(list: &str, host: &str) -> bool {
    matches_list(&list.to_lowercase(), &host.to_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{matches_host, matches_list, matches_pattern};

    /// The plain recursive meaning of a pattern.
    fn means(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                means(rest, text) || text.split_first().is_some_and(|(_, text)| means(pattern, text))
            }
            (Some((p, pattern)), Some((t, text))) => (*p == b'?' || p == t) && means(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_mean_what_they_say(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let found = matches_pattern(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(found, means(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_negated_pattern_wins() {
        assert!(matches_list("w*,!w2", "w1") && !matches_list("w*,!w2", "w2") && !matches_list("!w2", "w1"));
        assert!(matches_host("Web*", "wEB1") && !matches_list("Web*", "web1"));
    }
}
