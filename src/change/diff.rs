//! The difference of two contents as a unified diff in which nothing secret is shown. Pure.

use similar::TextDiff;

use crate::mask::mask;

/// Contents longer than this are not compared line by line, in bytes.
const MAXIMUM_BYTES: usize = 256 << 10;

/// A diff is cut after this many lines.
const MAXIMUM_LINES: usize = 400;

/// Lines of context around what differs.
const CONTEXT: usize = 3;

/// How two contents differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In lines: a unified diff without the lines that name the files.
    Text(String),
    /// In a way that cannot be shown; why, in words.
    Words(String),
}

/// The difference between what is there (`None`: nothing) and what would be.
pub fn difference(before: Option<&[u8]>, after: Option<&[u8]>) -> Difference {
    if before == after {
        return Difference::None;
    }
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
        return Difference::Words(format!("{} bytes", new.len()));
    };
    let (masked_old, masked_new) = (mask(old_text), mask(new_text));
    if masked_old == masked_new {
        let words = if old.is_empty() && new.is_empty() { "empty" } else { "in what is secret" };
        return Difference::Words(words.to_owned());
    }
    // A secret whole has no line worth showing.
    if masked_new.lines().all(|line| line.trim() == "***") && masked_old.lines().all(|line| line.trim() == "***") {
        return Difference::Words("secret".to_owned());
    }
    let diff = TextDiff::from_lines(&masked_old, &masked_new);
    let whole = diff.unified_diff().context_radius(CONTEXT).missing_newline_hint(false).to_string();
    let lines: Vec<&str> = whole.lines().collect();
    if lines.len() <= MAXIMUM_LINES {
        return Difference::Text(lines.join("\n"));
    }
    let left_out = lines.len() - MAXIMUM_LINES;
    Difference::Text(format!("{}\n({left_out} more lines)", lines[..MAXIMUM_LINES].join("\n")))
}

fn text(content: &[u8]) -> Option<&str> {
    (content.len() <= MAXIMUM_BYTES && !content.contains(&0)).then(|| std::str::from_utf8(content).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Difference, difference};

    fn of(before: Option<&str>, after: Option<&str>) -> Difference {
        difference(before.map(str::as_bytes), after.map(str::as_bytes))
    }

    #[rstest]
    #[case(Some("a\n"), Some("a\n"), "")]
    #[case(None, Some("a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b")]
    #[case(Some("a\n"), None, "@@ -1 +0,0 @@\n-a")]
    #[case(Some("a\nb\nc\n"), Some("a\nB\nc\n"), "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c")]
    #[case(Some("token: one\nx: 1\n"), Some("token: two\nx: 2\n"), "@@ -1,2 +1,2 @@\n token: ***\n-x: 1\n+x: 2")]
    fn contents_that_are_shown(#[case] before: Option<&str>, #[case] after: Option<&str>, #[case] diff: &str) {
        let expected = if diff.is_empty() { Difference::None } else { Difference::Text(diff.to_owned()) };
        assert_eq!(of(before, after), expected);
    }

    #[rstest]
    #[case(Some("token: one\n"), Some("token: two\n"), "in what is secret")]
    #[case(None, Some(""), "empty")]
    #[case(None, Some("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n"), "secret")]
    #[case(Some("a"), Some("\0\u{1}"), "2 bytes")]
    fn contents_that_are_not_shown(#[case] before: Option<&str>, #[case] after: Option<&str>, #[case] words: &str) {
        assert_eq!(of(before, after), Difference::Words(words.to_owned()));
    }

    #[test]
    fn a_long_diff_is_cut() {
        let text: String = (0..1000).map(|line| format!("{line}\n")).collect();
        let Difference::Text(diff) = of(None, Some(&text)) else { panic!("a diff") };
        assert_eq!(diff.lines().count(), 401);
        assert!(diff.ends_with("(601 more lines)"), "{diff}");
    }
}
