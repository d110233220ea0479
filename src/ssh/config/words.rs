//! One line of ssh_config: its keyword and its words. Pure; the quoting rules are those of OpenSSH's `strdelim` and
//! `argv_split` (misc.c).

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The keyword in lower case.
    pub(super) keyword: String,
    /// What follows it, as written; not empty.
    pub(super) rest: &'a str,
}

/// Takes a line apart: `keyword value`, `keyword=value`, `keyword = value`; `None` for a comment or an empty line.
///
/// # Errors
/// In words, when there is no value.
pub(super) fn line(text: &str) -> Result<Option<Line<'_>>, String> {
    let text = text.trim_end_matches(|letter| BLANKS.contains(&letter) || letter == '\u{c}').trim_start_matches(BLANKS);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (keyword, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or("the keyword has a quote that does not end")?,
        None => {
            let end = text.find(|letter| BLANKS.contains(&letter) || letter == '=' || letter == '"');
            text.split_at(end.unwrap_or(text.len()))
        }
    };
    // One `=` may stand between, with or without blanks around it.
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start_matches(BLANKS);
    let keyword = keyword.to_ascii_lowercase();
    if rest.is_empty() {
        return Err(format!("there is nothing after the keyword {keyword}"));
    }
    Ok(Some(Line { keyword, rest }))
}

/// The words of a text: separated by blanks, with `"..."` or `'...'` around what has blanks in it, up to a `#` that
/// begins a word.
///
/// # Errors
/// In words, when a quote does not end.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| matches!(letter, ' ' | '\t')).is_some() {}
        if letters.peek().is_none_or(|letter| *letter == '#') {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(letter) = letters.next_if(|letter| quote.is_some() || !matches!(letter, ' ' | '\t')) {
            match (letter, quote) {
                ('\\', _) => {
                    let escaped =
                        letters.next_if(|next| matches!(next, '\'' | '"' | '\\') || (quote.is_none() && *next == ' '));
                    word.push(escaped.unwrap_or('\\'));
                }
                ('"' | '\'', None) => quote = Some(letter),
                (letter, Some(end)) if letter == end => quote = None,
                (letter, _) => word.push(letter),
            }
        }
        if quote.is_some() {
            return Err("a quote does not end".to_owned());
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{line, words};

    #[rstest]
    #[case("", None)]
    #[case("  # comment", None)]
    #[case("User ops", Some(("user", "ops")))]
    #[case("\tUSER=ops \t\r", Some(("user", "ops")))]
    #[case("user = ops", Some(("user", "ops")))]
    #[case("user  =ops", Some(("user", "ops")))]
    #[case("\"user\" ops", Some(("user", "ops")))]
    #[case("user ==ops", Some(("user", "=ops")))]
    #[case("user\"ops\"", Some(("user", "\"ops\"")))]
    fn lines_are_taken_apart(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let found = line(text).expect("a good line");
        assert_eq!(found.as_ref().map(|line| (line.keyword.as_str(), line.rest)), expected);
    }

    #[rstest]
    #[case("User")]
    #[case("User =")]
    #[case("\"User")]
    fn a_keyword_needs_a_value(#[case] text: &str) {
        assert!(line(text).is_err());
    }

    #[rstest]
    #[case("a b", &["a", "b"])]
    #[case("  a\t b # c", &["a", "b"])]
    #[case("a#b", &["a#b"])]
    #[case("\"a b\" c", &["a b", "c"])]
    #[case("'a b'c", &["a bc"])]
    #[case("a\\ b", &["a b"])]
    #[case("\"a\\\"b\"", &["a\"b"])]
    #[case("a\\nb", &["a\\nb"])]
    #[case("\"\"", &[""])]
    #[case("", &[])]
    fn words_are_split(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(words(text).expect("good quotes"), expected);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,100}") {
            let _ = line(&text);
            let _ = words(&text);
        }
    }
}
