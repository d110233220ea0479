//! Words for the login shell of a host, whichever it is.

/// The word as every usual login shell (POSIX ones, fish, csh) reads it back unchanged.
///
/// Inside single quotes fish knows backslashes and csh no line end, so both stand outside of them, escaped. A csh keeps
/// no line end in an argument at all: there it is the next command.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '%' | '+' | ',');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("'");
    for character in word.chars() {
        match character {
            '\'' => quoted.push_str(r"'\''"),
            '\\' => quoted.push_str(r"'\\'"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::quote;

    #[rstest]
    #[case("ls", "ls")]
    #[case("/etc/os-release", "/etc/os-release")]
    #[case("", "''")]
    #[case("a b", "'a b'")]
    #[case("~", "'~'")]
    #[case("it's", r"'it'\''s'")]
    #[case(r"a\b", r"'a'\\'b'")]
    fn words_are_quoted(#[case] word: &str, #[case] quoted: &str) {
        assert_eq!(quote(word), quoted);
    }

    #[expect(clippy::disallowed_methods, reason = "the shell judges how it reads a word")]
    fn read_by_sh(words: &[String]) -> Vec<u8> {
        let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let output = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\0' {line}")]).output();
        output.expect("sh is there").stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn a_shell_reads_words_as_they_were(words in proptest::collection::vec("[^\0]{0,12}", 1..4)) {
            let expected: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
            prop_assert_eq!(read_by_sh(&words), expected);
        }
    }
}
