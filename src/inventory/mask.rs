//! A password that somebody wrote into the inventory is refused; it must not be shown while saying so.

/// The text with every literal behind `password:`, `become_password:` and what looks like them replaced by asterisks, line by line and
/// character by character, so that places stay what they are. Works on texts that are no YAML, too.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    // Indentation of a key whose value may go on in the lines below.
    let mut below: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let indentation = line.len() - line.trim_start_matches(' ').len();
        if let Some(key) = below {
            if line.trim().is_empty() || (indentation > key && !names_a_source(line)) {
                masked.extend(line.chars().map(star));
                continue;
            }
            below = None;
        }
        let Some((from, to)) = literal(line) else {
            masked.push_str(line);
            continue;
        };
        let (before, rest) = line.split_at(from);
        let (secret, after) = rest.split_at(to - from);
        masked.push_str(before);
        masked.extend(secret.chars().map(star));
        masked.push_str(after);
        below = Some(indentation);
    }
    masked
}

fn star(letter: char) -> char {
    if letter.is_whitespace() { letter } else { '*' }
}

/// `ask: true` and its like on a line of their own.
fn names_a_source(line: &str) -> bool {
    super::ssh::SECRET_KEYS
        .iter()
        .any(|key| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
}

/// Byte range of a literal behind a key for passwords on a line; empty if the value may start on the next line.
fn literal(line: &str) -> Option<(usize, usize)> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let end_of_line = line.trim_end().len();
    for (colon, _) in line.match_indices(':') {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
        let key = &before[before.trim_end_matches(word).len()..];
        if !is_secret(key) {
            continue;
        }
        let value = line[colon + 1..].trim_start_matches([' ', '\t']);
        let from = line.len() - value.len();
        if value.starts_with('{') {
            continue;
        }
        // Inside of `{...}` a plain text ends at the comma; a quoted one at its quote.
        let flow = before.contains('{');
        let length = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map(|end| end + 2),
            _ if flow => value.find([',', '}']),
            _ => None,
        };
        return Some((from, length.map_or(end_of_line.max(from), |length| from + length)));
    }
    None
}

/// Whether a key is meant for a password: ours, misspelt ones, and those of other tools.
fn is_secret(key: &str) -> bool {
    let lower = key.to_lowercase();
    if ["pass", "secret", "token"].iter().any(|word| lower.contains(word)) {
        return true;
    }
    let harmless = super::ssh::KEYS.contains(&key) || super::hosts::KEYS.contains(&key);
    !harmless && crate::yaml::nearest(key, ["password", "become_password"]).is_some()
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[rstest::rstest]
    #[case("  password: hunter2\n", "  password: *******\n")]
    #[case("ssh: {user: a, password: hunter2, port: 22}", "ssh: {user: a, password: *******, port: 22}")]
    #[case("ssh: {password: \"a,b}\", port: 22}", "ssh: {password: ******, port: 22}")]
    #[case("become_password: 'x y'\nport: 1", "become_password: ** **\nport: 1")]
    #[case("password: \"not closed\nuser: a", "password: **** ******\nuser: a")]
    #[case("password: |\n  hunter2\n  more\nuser: a", "password: *\n  *******\n  ****\nuser: a")]
    #[case("password:\n  hunter2\nuser: a", "password:\n  *******\nuser: a")]
    #[case("password:\n  ask: true\nuser: a", "password:\n  ask: true\nuser: a")]
    #[case("password: {file: ~/x}", "password: {file: ~/x}")]
    #[case("become_password: {ask: true}, password: x", "become_password: {ask: true}, password: *")]
    #[case("# password: example", "# password: example")]
    #[case("passwörd: ü", "passwörd: *")]
    #[case("password: ü", "password: *")]
    #[case("ssh: {pasword: hunter2, user: a}", "ssh: {pasword: *******, user: a}")]
    #[case("ansible_ssh_pass: hunter2", "ansible_ssh_pass: *******")]
    #[case("\"password\" : hunter2", "\"password\" : *******")]
    #[case("password:hunter2", "password:*******")]
    #[case("become: sudo\naddress: a:22", "become: sudo\naddress: a:22")]
    #[case("x: {command: 'pass show y'}", "x: {command: 'pass show y'}")]
    fn literals_disappear(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask(text), expected);
    }
}
