//! What a plain scalar means: YAML 1.2's core schema, with `0644` left a text as file modes want it.

use serde_json::{Number, Value};

/// The value of an unquoted scalar.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// Whether an unquoted scalar means nothing at all.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A number that JSON can hold; infinities and what starts with a needless zero stay texts.
fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(unsigned(digits)?, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(unsigned(digits)?, 8).ok().map(Number::from);
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let bytes = digits.as_bytes();
    if bytes.len() > 1 && bytes[0] == b'0' && bytes[1].is_ascii_digit() {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // What no 64 bits hold stays a text rather than lose digits.
        return match negative {
            true => text.parse::<i64>().ok().map(Number::from),
            false => digits.parse::<u64>().ok().map(Number::from),
        };
    }
    let allowed = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !allowed || !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

/// `from_str_radix` takes a sign, which YAML does not.
fn unsigned(digits: &str) -> Option<&str> {
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::resolve;

    #[rstest::rstest]
    #[case("", Value::Null)]
    #[case("~", Value::Null)]
    #[case("true", json!(true))]
    #[case("no", json!("no"))]
    #[case("on", json!("on"))]
    #[case("0", json!(0))]
    #[case("42", json!(42))]
    #[case("-7", json!(-7))]
    #[case("+7", json!(7))]
    #[case("0644", json!("0644"))]
    #[case("0o644", json!(420))]
    #[case("0x1F", json!(31))]
    #[case("0x+1", json!("0x+1"))]
    #[case("1.5", json!(1.5))]
    #[case(".5", json!(0.5))]
    #[case("1e3", json!(1000.0))]
    #[case("1.36.3", json!("1.36.3"))]
    #[case("10.0.0.1", json!("10.0.0.1"))]
    #[case(".inf", json!(".inf"))]
    #[case(".", json!("."))]
    #[case("-", json!("-"))]
    #[case("1_000", json!("1_000"))]
    #[case("12:30", json!("12:30"))]
    #[case("18446744073709551615", json!(18_446_744_073_709_551_615_u64))]
    #[case("18446744073709551616", json!("18446744073709551616"))]
    fn a_plain_scalar(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(resolve(text), expected);
    }
}
