//! A password that somebody wrote into the inventory is refused; it must not be shown while saying so.

/// The text with every literal behind `password:` or `become_password:` replaced by asterisks, line by line and
/// character by character, so that places stay what they are. Works on texts that are no YAML, too.
pub(super) fn mask(text: &str) -> String {
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

/// Byte range of a literal behind a `password` key on a line; empty if the value may start on the next line.
fn literal(line: &str) -> Option<(usize, usize)> {
    let code = if line.trim_start().starts_with('#') { return None } else { line };
    let mut searched = 0;
    while let Some(found) = code[searched..].find("password") {
        let after_word = searched + found + "password".len();
        searched = after_word;
        let rest = code[after_word..].trim_start_matches(['"', '\'', ' ']);
        let Some(value) = rest.strip_prefix(':') else { continue };
        let value = value.trim_start_matches([' ', '\t']);
        let from = code.len() - value.len();
        let end = code.trim_end().len().max(from);
        if value.starts_with('{') {
            continue;
        }
        // Inside of `{...}` a plain text ends at the comma; a quoted one at its quote.
        let flow = code[..after_word].contains('{');
        let length = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map(|end| end + 2),
            _ if flow => value.find([',', '}']),
            _ => None,
        };
        return Some((from, length.map_or(end, |length| from + length)));
    }
    None
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
    #[case("passwörd: ü", "passwörd: ü")]
    #[case("password: ü", "password: *")]
    fn literals_disappear(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask(text), expected);
    }
}
