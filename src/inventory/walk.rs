//! Going through a document's tree: every mistake becomes a finding, and the walk goes on.

use crate::yaml::{Content, Entry, Finding, Node, Span, Style, did_you_mean};

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub findings: Vec<Finding>,
}

/// A mapping whose keys were checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'node> {
    entries: &'node [Entry],
}

impl<'node> Fields<'node> {
    /// The value of a key; a key with nothing behind it counts as absent.
    pub fn get(self, key: &str) -> Option<&'node Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its value, unless nothing is written behind it.
    pub fn entry(self, key: &str) -> Option<&'node Entry> {
        self.entries.iter().find(|entry| entry.key.text == key && !entry.value.is_null())
    }
}

impl Walk {
    /// Records a finding.
    pub fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// A mapping with none but these keys. `what` names it for a person: `` `hosts.cp1` ``. Nothing counts as empty.
    pub fn fields<'node>(&mut self, node: &'node Node, what: &str, keys: &[&str]) -> Option<Fields<'node>> {
        let entries = self.entries(node, what)?;
        for Entry { key, .. } in entries {
            if !keys.contains(&key.text.as_str()) {
                let message = format!("`{}` is no key of {what}", key.text);
                let help = did_you_mean(&key.text, keys.iter().copied());
                self.find(Finding::error(key.span, message).label("unknown key").help(help));
            }
        }
        Some(Fields { entries })
    }

    /// A mapping with any keys. Nothing counts as empty.
    pub fn entries<'node>(&mut self, node: &'node Node, what: &str) -> Option<&'node [Entry]> {
        match &node.content {
            Content::Map(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => self.wrong(node, what, "a mapping"),
        }
    }

    /// A text. A number is taken as it is written, so that `1.30` keeps its zero.
    pub fn text<'node>(&mut self, node: &'node Node, what: &str) -> Option<&'node str> {
        match &node.content {
            Content::Scalar { text, .. } if matches!(node.what(), "a text" | "a number") => Some(text),
            Content::Scalar { style: Style::Plain, .. } if !node.is_null() => {
                self.find(wrong(node, what, "a text").help("put quotes around it if it is meant as a text"));
                None
            }
            _ => self.wrong(node, what, "a text"),
        }
    }

    /// A text or a list of texts, each with its place.
    pub fn texts<'node>(&mut self, node: &'node Node, what: &str) -> Option<Vec<(Span, &'node str)>> {
        match &node.content {
            Content::List(items) => {
                let texts: Vec<_> =
                    items.iter().map(|item| self.text(item, what).map(|text| (item.span, text))).collect();
                texts.into_iter().collect()
            }
            Content::Map(_) => self.wrong(node, what, "a text or a list of texts"),
            Content::Scalar { .. } => self.text(node, what).map(|text| vec![(node.span, text)]),
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, node: &Node, what: &str) -> Option<bool> {
        match node.to_value() {
            serde_json::Value::Bool(flag) => Some(flag),
            serde_json::Value::String(text) => {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "true" => Some("write `true`"),
                    "no" | "off" | "n" | "false" => Some("write `false`"),
                    _ => None,
                };
                let finding = wrong(node, what, "`true` or `false`");
                self.find(Finding { help: meant.map(str::to_owned), ..finding });
                None
            }
            _ => self.wrong(node, what, "`true` or `false`"),
        }
    }

    /// A whole number inside of limits, both included.
    pub fn number(&mut self, node: &Node, what: &str, least: u64, most: u64) -> Option<u64> {
        match node.to_value() {
            serde_json::Value::Number(number) => match number.as_u64().filter(|number| (least..=most).contains(number))
            {
                Some(number) => Some(number),
                None => {
                    self.find(Finding::error(node.span, format!("{what} has to be a number from {least} to {most}")));
                    None
                }
            },
            _ => self.wrong(node, what, &format!("a number from {least} to {most}")),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        // Plain `none` and the like are texts; `null` was taken as absent before.
        let word = self.text(node, what)?;
        let found = choices.iter().find(|(choice, _)| *choice == word);
        if found.is_none() {
            let help = did_you_mean(word, choices.iter().map(|(choice, _)| *choice));
            let names: Vec<String> = choices.iter().map(|(choice, _)| format!("`{choice}`")).collect();
            let message = format!("{what} has to be {}, but this is `{word}`", names.join(" or "));
            self.find(Finding::error(node.span, message).help(help));
        }
        found.map(|(_, value)| *value)
    }

    /// A text that a rule of [`super::grammar`] turns into a value.
    pub fn ruled<T>(&mut self, node: &Node, what: &str, rule: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(node, what)?;
        match rule(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.find(Finding::error(node.span, format!("{what}: `{text}` {reason}")));
                None
            }
        }
    }

    /// Records that something else is expected here.
    pub fn wrong<T>(&mut self, node: &Node, what: &str, expected: &str) -> Option<T> {
        self.find(wrong(node, what, expected));
        None
    }
}

fn wrong(node: &Node, what: &str, expected: &str) -> Finding {
    let message = format!("{what} has to be {expected}, but this is {}", node.what());
    Finding::error(node.span, message).label(format!("expected {expected}"))
}
