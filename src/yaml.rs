//! The only user of the YAML parser: strict reading, positions, findings.
//!
//! Text becomes a tree of [`Node`]s that know where they stand, so that whoever judges a document can report every
//! mistake at once instead of the first one, each at its line and column. Rules, the same for all documents:
//!
//! - YAML 1.2: `no`, `on` and `yes` are texts, only `true` and `false` are booleans; `0644` is the text `0644`;
//! - a key stands once in a mapping; keys are scalars; `<<` merges; tags other than YAML's own are refused;
//! - nesting, size and what aliases expand to are bounded, so a hostile text costs milliseconds.

mod finding;
mod nearest;
mod scalar;
mod tree;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use finding::{Finding, Related, Severity, Span, render};
pub use nearest::{did_you_mean, nearest};
pub use tree::{Content, Entry, Key, MAXIMUM_BYTES, MAXIMUM_DEPTH, MAXIMUM_NODES, Node, Style, tree, trees};

/// All documents of a text, each with the line it starts at (counted from 1). Empty documents are left out.
///
/// # Errors
/// The first syntax error, duplicate key or exceeded bound.
pub fn documents(text: &str) -> Result<Vec<(usize, Value)>, Finding> {
    let (nodes, findings) = trees(text)?;
    match findings.into_iter().next() {
        Some(finding) => Err(finding),
        None => Ok(nodes.iter().filter(|node| !node.is_null()).map(|node| (node.span.line, node.to_value())).collect()),
    }
}

/// One document as a type of ours; the first mistake as a finding. Where all mistakes are wanted, walk a [`tree`].
///
/// # Errors
/// Syntax errors, exceeded bounds, duplicate keys, and whatever `T` refuses (an unknown key, a wrong type).
pub fn typed<T: DeserializeOwned>(text: &str) -> Result<T, Finding> {
    // The tree first: its messages are ours, and it bounds what the deserializer is given.
    let (_, findings) = trees(text)?;
    if let Some(finding) = findings.into_iter().next() {
        return Err(finding);
    }
    let options = serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
        budget: serde_yaml::budget! { max_depth: MAXIMUM_DEPTH, max_nodes: MAXIMUM_NODES },
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |location| {
            (usize::try_from(location.line()).unwrap_or(1), usize::try_from(location.column()).unwrap_or(1))
        });
        let options = serde_yaml::RenderOptions::new(&serde_yaml::UserMessageFormatter);
        let message = error.without_snippet().render_with_options(options);
        let first = message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
        Finding::error(Span::new(line.max(1), column.max(1), 1), first)
    })
}

/// A value as YAML text with a line feed at the end; read again it is the same value.
pub fn to_text(value: &Value) -> String {
    // JSON values have no shape that YAML lacks; should the serializer ever refuse one, JSON is YAML too.
    to_string(value).unwrap_or_else(|_| format!("{value}\n"))
}

/// Anything serialisable as YAML text with a line feed at the end.
///
/// # Errors
/// What the type's own `Serialize` refuses.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    // Long texts stay on one line: folded ones are hard to compare and to grep.
    let options = serde_yaml::ser_options! { folded_wrap_chars: 1 << 20 };
    let mut text =
        serde_yaml::to_string_with_options(value, options).map_err(<serde_json::Error as serde::ser::Error>::custom)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
