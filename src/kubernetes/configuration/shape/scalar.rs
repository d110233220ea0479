//! Whether a value is of the type a field wants, as strictly as Kubernetes' own decoder: a number is no text, nor a text a
//! number.

use serde_json::Value;

use super::Shape;
use crate::kubernetes::configuration::Duration;
use crate::kubernetes::moment;
use crate::yaml::Node;

/// The suffixes of a quantity; `e` and `E` with a number are exponents.
const SUFFIXES: &[&str] = &["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What is wrong with a value, for a sentence that begins with its field; `None` when it fits.
pub(super) fn misfit(node: &Node, shape: &Shape) -> Option<String> {
    let value = node.to_value();
    let text = value.as_str();
    let fits = match shape {
        Shape::Text => text.is_some(),
        Shape::Truth => value.is_boolean(),
        Shape::Whole(least, most) => value.as_i64().is_some_and(|number| (*least..=*most).contains(&number)),
        Shape::Number => value.is_number(),
        Shape::Duration => text.is_some_and(is_duration),
        Shape::DurationOrNumber => value.as_i64().is_some() || text.is_some_and(is_duration),
        Shape::Moment => text.is_some_and(|text| moment::from_rfc3339(text).is_some()),
        Shape::Quantity => value.is_number() || text.is_some_and(is_quantity),
        Shape::Fields(_) | Shape::Map(_) => value.is_object(),
        Shape::List(_) => value.is_array(),
    };
    (!fits).then(|| format!("must be {}, and is {}", wanted(shape), found(node, &value, shape)))
}

fn is_duration(text: &str) -> bool {
    text.parse::<Duration>().is_ok()
}

/// Whether a text is a quantity of Kubernetes: `100Mi`, `0.5`, `1e3`.
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i8>().is_ok());
    number.bytes().any(|one| one.is_ascii_digit())
        && number.matches('.').count() <= 1
        && (exponent || SUFFIXES.contains(&suffix))
}

fn wanted(shape: &Shape) -> String {
    let wanted = match shape {
        Shape::Text => "a text",
        Shape::Truth => "true or false",
        Shape::Whole(least, most) if (*least, *most) == (i32::MIN.into(), i32::MAX.into()) => "a whole number",
        Shape::Whole(i64::MIN, i64::MAX) => "a whole number",
        Shape::Whole(least, most) => return format!("a whole number from {least} to {most}"),
        Shape::Number => "a number",
        Shape::Duration | Shape::DurationOrNumber => "a duration such as 4m0s",
        Shape::Moment => "a moment such as 2030-01-31T12:00:00Z",
        Shape::Quantity => "a quantity such as 100Mi",
        Shape::Fields(_) | Shape::Map(_) => "a mapping",
        Shape::List(_) => "a list",
    };
    wanted.to_owned()
}

/// What stands there. Of texts only those are shown that stand for a number of some kind: others may be secret.
fn found(node: &Node, value: &Value, shape: &Shape) -> String {
    match (shape, value) {
        (Shape::Whole(..) | Shape::Number, Value::Number(number)) => number.to_string(),
        (
            Shape::Duration | Shape::DurationOrNumber | Shape::Moment | Shape::Quantity | Shape::Truth,
            Value::String(text),
        ) if text.len() <= 40 => format!("{text:?}"),
        (Shape::Text, Value::Number(_) | Value::Bool(_)) => format!("{}; write it in quotes", node.what()),
        _ => node.what().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{is_quantity, misfit};
    use crate::kubernetes::configuration::shape::Shape;
    use crate::yaml;

    #[rstest]
    #[case("a", Shape::Text, None)]
    #[case("yes", Shape::Text, None)]
    #[case("1.36", Shape::Text, Some("must be a text, and is a number; write it in quotes"))]
    #[case("true", Shape::Truth, None)]
    // To YAML 1.2 a text; upstream's parser is one of YAML 1.1.
    #[case("yes", Shape::Truth, Some("must be true or false, and is \"yes\""))]
    #[case("0", Shape::Whole(0, 65535), None)]
    #[case("65536", Shape::Whole(0, 65535), Some("must be a whole number from 0 to 65535, and is 65536"))]
    #[case("1.5", Shape::Whole(i64::MIN, i64::MAX), Some("must be a whole number, and is 1.5"))]
    #[case("1.5", Shape::Number, None)]
    #[case("4m", Shape::Duration, None)]
    #[case("5", Shape::Duration, Some("must be a duration such as 4m0s, and is a number"))]
    #[case("soon", Shape::Duration, Some("must be a duration such as 4m0s, and is \"soon\""))]
    #[case("5000000000", Shape::DurationOrNumber, None)]
    #[case("2030-01-31T12:00:00+02:00", Shape::Moment, None)]
    #[case("tomorrow", Shape::Moment, Some("must be a moment such as 2030-01-31T12:00:00Z, and is \"tomorrow\""))]
    #[case("100Mi", Shape::Quantity, None)]
    #[case("100", Shape::Quantity, None)]
    #[case("[a]", Shape::Text, Some("must be a text, and is a list"))]
    #[case("a", Shape::List(&Shape::Text), Some("must be a list, and is a text"))]
    #[case("a", Shape::Map(&Shape::Text), Some("must be a mapping, and is a text"))]
    fn values_are_of_their_types(#[case] text: &str, #[case] shape: Shape, #[case] expected: Option<&str>) {
        let (node, _) = yaml::tree(text).unwrap();
        assert_eq!(misfit(&node, &shape).as_deref(), expected);
    }

    #[rstest]
    #[case("0", true)]
    #[case("-1.5Gi", true)]
    #[case(".5", true)]
    #[case("12e6", true)]
    #[case("1E", true)]
    #[case("12e", false)]
    #[case("1.2.3", false)]
    #[case("Mi", false)]
    #[case("5 Mi", false)]
    #[case("5MB", false)]
    #[case("", false)]
    fn quantities_are_those_of_kubernetes(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(is_quantity(text), expected);
    }
}
