//! Text made fit for a screen: cleaned of control characters, measured, cut, padded; amounts in words.

use std::time::Duration;

/// The longest line shown of untrusted text, in columns.
const MAXIMUM_COLUMNS: usize = 500;
/// How many lines of one block of untrusted text are shown; more are left out in the middle.
const MAXIMUM_LINES: usize = 240;

/// One line out of untrusted text: line breaks become blanks, control characters are shown as `\x1b`, and what would
/// reorder or hide the neighbouring text (bidirectional marks, zero-width characters) is shown as `\u{202e}`.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for (column, character) in text.trim_end().chars().enumerate() {
        if column >= MAXIMUM_COLUMNS {
            cleaned.push_str("...");
            break;
        }
        push_clean(&mut cleaned, character);
    }
    cleaned
}

/// As [`clean`], but nothing is cut: for output that a person asked for.
pub fn clean_whole(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    text.chars().for_each(|character| push_clean(&mut cleaned, character));
    cleaned
}

fn push_clean(cleaned: &mut String, character: char) {
    match character {
        '\n' | '\r' => cleaned.push(' '),
        '\t' => cleaned.push_str("    "),
        control if control.is_control() => cleaned.push_str(&format!("\\x{:02x}", u32::from(control))),
        hidden if is_hidden(hidden) => cleaned.push_str(&format!("\\u{{{:x}}}", u32::from(hidden))),
        shown => cleaned.push(shown),
    }
}

/// The lines of a block of untrusted text, each cleaned; the middle of a very long block is left out, and said so.
pub fn clean_lines(text: &str) -> Vec<String> {
    let text = text.trim_end();
    let total = text.lines().count();
    let line = |line: &str| clean(line.trim_end_matches('\r'));
    if total <= MAXIMUM_LINES {
        return text.lines().map(line).collect();
    }
    let half = MAXIMUM_LINES / 2;
    let mut lines: Vec<String> = text.lines().take(half).map(line).collect();
    lines.push(format!("({} lines left out)", total - 2 * half));
    lines.extend(text.lines().skip(total - half).map(line));
    lines
}

/// Characters that take no room or turn the direction of what follows.
fn is_hidden(character: char) -> bool {
    matches!(u32::from(character),
        0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb
        | 0xe0000..=0xe007f)
}

/// Columns a character takes: two for East Asian wide ones and pictures, none for combining marks.
fn columns(character: char) -> usize {
    match u32::from(character) {
        0x300..=0x36f
        | 0x483..=0x489
        | 0x591..=0x5bd
        | 0x610..=0x61a
        | 0x64b..=0x65f
        | 0x1ab0..=0x1aff
        | 0x1dc0..=0x1dff
        | 0x20d0..=0x20ff
        | 0xfe00..=0xfe0f
        | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115f
        | 0x231a..=0x231b
        | 0x23e9..=0x23ec
        | 0x2614..=0x2615
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Columns a cleaned text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// The text cut to at most `limit` columns, the cut marked by two dots if there is room for them.
pub fn fit(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mark = if limit > 4 { ".." } else { "" };
    let room = limit - mark.len();
    let mut cut = String::new();
    let mut taken = 0;
    for character in text.chars() {
        taken += columns(character);
        if taken > room {
            break;
        }
        cut.push(character);
    }
    cut.push_str(mark);
    cut
}

/// The text with blanks after it up to `target` columns.
pub fn pad(text: &str, target: usize) -> String {
    format!("{text}{}", " ".repeat(target.saturating_sub(width(text))))
}

/// The text with blanks before it up to `target` columns.
pub fn pad_left(text: &str, target: usize) -> String {
    format!("{}{text}", " ".repeat(target.saturating_sub(width(text))))
}

/// The text in lines of at most `limit` columns, broken at blanks; every line but the first begins with `indent`
/// blanks, which count; blanks at the beginning stay. A word longer than a line stays whole: it is a path or an address to be copied.
pub fn wrap(text: &str, limit: usize, indent: usize) -> String {
    let lead = text.len() - text.trim_start_matches(' ').len();
    let mut wrapped = " ".repeat(lead);
    let mut column = lead;
    for (number, word) in text[lead..].split(' ').enumerate() {
        let size = width(word);
        if number > 0 && column + 1 + size > limit.max(indent + 20) {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        } else if number > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += size;
    }
    wrapped
}

/// An amount of bytes in decimal units: `812 B`, `45.1 MB`, `268 MB`.
pub fn bytes(amount: u64) -> String {
    let mut value = amount as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A time a person can read: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", time.as_millis() as f64 / 1000.0),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A time as on a stopwatch, for what is drawn again and again: `9 s`, `59 s`, `3:05`, `1:02:07`.
pub fn stopwatch(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

/// A number with its noun: `1 change`, `3 changes`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::escape("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07")]
    #[case::breaks("one\r\ntwo\n", "one  two")]
    #[case::tab("a\tb", "a    b")]
    #[case::second_control_set("\u{9b}31m", "\\x9b31m")]
    #[case::direction("abc\u{202e}def", "abc\\u{202e}def")]
    #[case::words("größer 漢字", "größer 漢字")]
    fn untrusted_text_is_cleaned(#[case] text: &str, #[case] cleaned: &str) {
        assert_eq!(clean(text), cleaned);
    }

    #[test]
    fn long_blocks_lose_their_middle() {
        let block: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let lines = clean_lines(&block);
        assert_eq!(lines.len(), MAXIMUM_LINES + 1);
        assert_eq!(lines[MAXIMUM_LINES / 2], "(760 lines left out)");
        assert_eq!(lines.last().map(String::as_str), Some("line 999"));
        assert!(clean(&"x".repeat(100_000)).len() < 600);
    }

    #[rstest]
    #[case("registry.example/kube-proxy", 12, "registry.e..")]
    #[case("short", 12, "short")]
    #[case("漢字漢字", 6, "漢字..")]
    #[case("abcdef", 3, "abc")]
    fn texts_are_cut_to_columns(#[case] text: &str, #[case] limit: usize, #[case] cut: &str) {
        assert_eq!(fit(text, limit), cut);
    }

    #[rstest]
    #[case(0, "0 B")]
    #[case(999, "999 B")]
    #[case(1000, "1.0 kB")]
    #[case(45_123_000, "45.1 MB")]
    #[case(999_960_000, "1.0 GB")]
    #[case(268_000_000, "268 MB")]
    fn bytes_are_decimal(#[case] amount: u64, #[case] text: &str) {
        assert_eq!(bytes(amount), text);
    }

    #[rstest]
    #[case(400, "0.4 s")]
    #[case(12_900, "12 s")]
    #[case(185_000, "3 min 05 s")]
    #[case(3_720_000, "1 h 02 min")]
    fn times_are_words(#[case] milliseconds: u64, #[case] text: &str) {
        assert_eq!(duration(Duration::from_millis(milliseconds)), text);
    }

    #[rstest]
    #[case(9_900, "9 s")]
    #[case(185_000, "3:05")]
    #[case(3_727_000, "1:02:07")]
    fn running_times_are_short(#[case] milliseconds: u64, #[case] text: &str) {
        assert_eq!(stopwatch(Duration::from_millis(milliseconds)), text);
    }

    #[test]
    fn long_sentences_break_at_blanks() {
        assert_eq!(
            wrap("error: one two three four five six seven", 24, 2),
            "error: one two three\n  four five six seven"
        );
        assert_eq!(
            wrap("a/very/long/path/that/must/stay/whole ok", 10, 2),
            "a/very/long/path/that/must/stay/whole\n  ok"
        );
    }

    proptest! {
        #[test]
        fn no_control_character_survives(text in any::<String>(), limit in 0_usize..60) {
            let cleaned = clean(&text);
            prop_assert!(!cleaned.chars().any(char::is_control));
            prop_assert!(width(&fit(&cleaned, limit)) <= limit);
        }
    }
}
