//! The YAML that Kubernetes files are written in: keys sorted, as upstream's writer does, and no scalar left to a
//! reader's guess: parsers of YAML 1.1 (Kubernetes) and 1.2 must both read back the same string.

use std::fmt::Write;

use serde_json::{Map, Value};

/// `value` as a YAML document with sorted keys and a newline at its end, in the layout of upstream's writer (lists are
/// not indented under their key, texts of several lines are literal blocks).
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        scalar => {
            write_scalar(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_str());
    entries
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn write_map(out: &mut String, map: &Map<String, Value>, depth: usize) {
    for (position, (key, value)) in sorted(map).into_iter().enumerate() {
        // The first key of a map inside a list stands behind the dash.
        if position > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        write_string(out, key, None);
        out.push(':');
        write_under_key(out, value, depth);
    }
}

fn write_under_key(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(out, map, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_list(out, items, depth);
        }
        scalar => {
            out.push(' ');
            write_scalar(out, scalar, depth + 1);
            out.push('\n');
        }
    }
}

fn write_list(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(out, depth);
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(out, map, depth + 1),
            // A list inside a list does not occur in Kubernetes' files; the flow form is right for every content.
            Value::Array(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{item}");
            }
            scalar => {
                write_scalar(out, scalar, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn write_scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(text) => write_string(out, text, Some(depth)),
        // Numbers, booleans, null, {} and [] read alike in JSON and YAML.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Writes a string; with `block_depth` it may become a literal block whose lines are indented by that depth. The
/// caller adds the newline at the end.
fn write_string(out: &mut String, text: &str, block_depth: Option<usize>) {
    match block_depth {
        Some(depth) if suits_block(text) => write_block(out, text, depth),
        _ if is_plain(text) && !has_other_meaning(text) => out.push_str(text),
        // As upstream's writer: single quotes around what would break the syntax, double quotes around what would be
        // read as another type. A JSON string is a double-quoted YAML scalar.
        _ if !has_other_meaning(text) && text.chars().all(|one| one.is_ascii() && !one.is_control()) => {
            let _ = write!(out, "'{}'", text.replace('\'', "''"));
        }
        _ => {
            let _ = write!(out, "{}", Value::String(text.to_owned()));
        }
    }
}

fn suits_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n'])
        && text.chars().all(|character| character == '\n' || !character.is_control())
}

fn write_block(out: &mut String, text: &str, depth: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n').chain((1..text.len() - body.len()).map(|_| "")) {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}

/// Whether a reader would take the bare text for something other than a string.
fn has_other_meaning(text: &str) -> bool {
    text.is_empty() || is_word_with_meaning(text) || looks_like_number_or_time(text)
}

/// Whether the bare text is a scalar to every reader.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let second = text.chars().nth(1);
    let opens_badly = match first {
        '-' | '?' | ':' => second.is_none_or(|next| next == ' '),
        ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' | '=' => true,
        other => other.is_whitespace(),
    };
    !opens_badly
        && text.chars().all(|character| character.is_ascii() && !character.is_control())
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
}

fn is_word_with_meaning(text: &str) -> bool {
    const WORDS: [&str; 16] =
        ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<", ".nan", ".inf", "nan", "inf", "="];
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) || text.starts_with("---") && text.len() == 3
}

fn looks_like_number_or_time(text: &str) -> bool {
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return false;
    }
    let digits = text.trim_start_matches(['+', '-']).replace('_', "");
    if digits.parse::<f64>().is_ok() || [".inf", ".nan"].iter().any(|word| digits.eq_ignore_ascii_case(word)) {
        return true;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.to_ascii_lowercase().strip_prefix(prefix)
            && u128::from_str_radix(rest, radix).is_ok()
        {
            return true;
        }
    }
    // Numbers to the base of 60 (12:30:45) and dates (2026-01-31T...) of YAML 1.1.
    let sixties = digits.contains(':')
        && digits.chars().all(|one| one.is_ascii_digit() || matches!(one, ':' | '.'))
        && digits.split('.').next().is_some_and(|whole| whole.contains(':'));
    let mut date = text.splitn(3, '-');
    let year = date.next().is_some_and(|part| part.len() == 4 && part.bytes().all(|one| one.is_ascii_digit()));
    let month = date.next().is_some_and(|part| part.bytes().all(|one| one.is_ascii_digit()) && !part.is_empty());
    sixties || year && month && date.next().is_some_and(|part| part.starts_with(|one: char| one.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::yaml;

    #[rstest]
    #[case("--controllers=*,bootstrapsigner", "--controllers=*,bootstrapsigner")]
    #[case("10.0.0.11:6443", "10.0.0.11:6443")]
    #[case("10.96.0.0/12", "10.96.0.0/12")]
    #[case("::1", "::1")]
    #[case(": 1", "': 1'")]
    #[case("[fd00::1]:6443", "'[fd00::1]:6443'")]
    #[case("it's: so", "'it''s: so'")]
    #[case("=", "\"=\"")]
    #[case("1.36", "\"1.36\"")]
    #[case("0755", "\"0755\"")]
    #[case("0x1f", "\"0x1f\"")]
    #[case("1e3", "\"1e3\"")]
    #[case("12:30", "\"12:30\"")]
    #[case("2026-01-31", "\"2026-01-31\"")]
    #[case("on", "\"on\"")]
    #[case("", "\"\"")]
    #[case("a: b", "'a: b'")]
    #[case("-", "'-'")]
    #[case("v1.36.3", "v1.36.3")]
    #[case("250m", "250m")]
    #[case("3m0s", "3m0s")]
    #[case("123456.abcdef", "123456.abcdef")]
    fn a_scalar_is_quoted_where_a_reader_could_guess(#[case] text: &str, #[case] written: &str) {
        assert_eq!(yaml(&json!({ "k": text })), format!("k: {written}\n"));
    }

    #[test]
    fn maps_are_sorted_and_lists_stand_under_their_key() {
        let value =
            json!({"b": [{"z": 1, "a": {"x": []}}, "s"], "a": {}, "t": "one\ntwo\n", "u": "one\n\ntwo", "n": null});
        insta::assert_snapshot!(yaml(&value), @r#"
        a: {}
        b:
        - a:
            x: []
          z: 1
        - s
        "n": null
        t: |
          one
          two
        u: |-
          one

          two
        "#);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({
            "text": "line\n  indented: yes # no\n\ttab\n", "trailing": "a\nb\n\n", "quote": "say \"hi\" \\ 'there'",
            "unicode": "käse", "colon:key": "x", "list": ["- x", "~", "1_000", "+1", ".5", "0b11", "<<", "#", "a #b"],
            "number": 2000001000, "float": 0.5, "flag": true
        });
        let read: serde_json::Value = super::super::configuration::documents(&yaml(&value)).unwrap().remove(0);
        assert_eq!(read, value);
    }
}
