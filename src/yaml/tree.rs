//! A document as a tree whose every node knows its place.

use std::collections::HashMap;

use serde_json::Value;
use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, StrInput, Tag};

use super::finding::{Finding, Span};
use super::scalar;

/// Longest text that is read, in bytes. An inventory of 10 000 hosts is about 1 MiB.
pub const MAXIMUM_BYTES: usize = 4 << 20;

/// Most nodes of all documents of a text together, aliases expanded; 64 characters of a scalar count as one node.
pub const MAXIMUM_NODES: usize = 250_000;

/// Deepest nesting, aliases expanded.
pub const MAXIMUM_DEPTH: usize = 64;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it starts; the first line of it is what gets underlined.
    pub span: Span,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A scalar: its text after escapes, and how it was written.
    Scalar {
        /// The text.
        text: String,
        /// How it was written.
        style: Style,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// How a scalar was written, which decides whether it can be anything but a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: may be null, a boolean or a number.
    Plain,
    /// In quotes or tagged `!!str`: a text.
    Quoted,
    /// `|` or `>`: a text on lines of its own; its span is at the first line that is not empty, at its indentation.
    Block,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Node,
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// Its text.
    pub text: String,
}

impl Node {
    /// Whether nothing is written here: empty, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, style: Style::Plain } if scalar::is_null(text))
    }

    /// What stands here, in words for a person: `a list`, `a number`.
    pub fn what(&self) -> &'static str {
        match &self.content {
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Scalar { style: Style::Quoted | Style::Block, .. } => "a text",
            Content::Scalar { text, style: Style::Plain } => match scalar::resolve(text) {
                Value::Null => "nothing",
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                _ => "a text",
            },
        }
    }

    /// The value without places. Keys become texts as they are written.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar { text, style: Style::Plain } => scalar::resolve(text),
            Content::Scalar { text, .. } => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.text.clone(), entry.value.to_value())).collect())
            }
        }
    }
}

/// The single document of a text, and what is wrong with its keys. An empty text is a null.
///
/// # Errors
/// A syntax error, an exceeded bound, a second document.
pub fn tree(text: &str) -> Result<(Node, Vec<Finding>), Finding> {
    let (mut nodes, findings) = trees(text)?;
    if let Some(second) = nodes.get(1) {
        return Err(Finding::error(second.span, "a second document starts here, but there can be only one")
            .help("remove the `---` line and what follows it"));
    }
    let nothing =
        || Node { span: Span::new(1, 1, 1), content: Content::Scalar { text: String::new(), style: Style::Plain } };
    Ok((nodes.pop().unwrap_or_else(nothing), findings))
}

/// All documents of a text, and what is wrong with their keys: duplicates, tags, merges of what is no mapping.
///
/// # Errors
/// A syntax error or an exceeded bound, after which nothing more can be said about the text.
pub fn trees(text: &str) -> Result<(Vec<Node>, Vec<Finding>), Finding> {
    if text.len() > MAXIMUM_BYTES {
        let message = format!("the text has {} bytes, more than the {MAXIMUM_BYTES} that are read", text.len());
        return Err(Finding::error(Span::new(1, 1, 1), message));
    }
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder {
        events: Parser::new_from_str_with_options(text, options),
        lines: text.lines().collect(),
        anchors: HashMap::new(),
        nodes: 0,
        findings: Vec::new(),
    };
    let mut documents = Vec::new();
    while let Some((event, place)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            Event::DocumentStart(..) => builder.anchors.clear(),
            event => documents.push(builder.node(event, place, 0)?),
        }
    }
    Ok((documents, builder.findings))
}

struct Builder<'text> {
    events: Parser<'text, StrInput<'text>>,
    lines: Vec<&'text str>,
    anchors: HashMap<usize, Node>,
    /// Nodes made so far, see [`MAXIMUM_NODES`].
    nodes: usize,
    findings: Vec<Finding>,
}

impl<'text> Builder<'text> {
    fn next(&mut self) -> Result<Option<(Event<'text>, granit_parser::Span)>, Finding> {
        match self.events.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(self.syntax(&error)),
        }
    }

    fn syntax(&self, error: &granit_parser::ScanError) -> Finding {
        let span = self.at(error.marker().line(), error.marker().col() + 1);
        let reason = error.info();
        let reason = reason.lines().next().unwrap_or_default().trim_end_matches('.');
        let finding = Finding::error(span, format!("this is not YAML: {reason}"));
        if !reason.contains("tab") {
            return finding;
        }
        // The parser names the end of what came before the tab; a person looks for the tab.
        let tab = self.lines.iter().enumerate().skip(span.line - 1).take(2).find_map(|(index, line)| {
            let blanks = line.len() - line.trim_start_matches(' ').len();
            line[blanks..].starts_with('\t').then(|| Span::new(index + 1, blanks + 1, 1))
        });
        let span = tab.unwrap_or(span);
        Finding { line: span.line, column: span.column, ..finding }.help("indent with blanks, YAML does not allow tabs")
    }

    /// The node that starts with `event`, at nesting `depth`.
    fn node(&mut self, event: Event<'text>, place: granit_parser::Span, depth: usize) -> Result<Node, Finding> {
        let mut span = self.span(&place);
        if depth >= MAXIMUM_DEPTH {
            return Err(Finding::error(span, format!("nested deeper than {MAXIMUM_DEPTH} levels")));
        }
        let (content, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Finding::error(span, "this alias stands inside of what it refers to"));
                };
                // The clone is made only when it fits.
                let (size, height) = measure(node);
                if depth + height > MAXIMUM_DEPTH {
                    let message = format!("nested deeper than {MAXIMUM_DEPTH} levels once this alias is expanded");
                    return Err(Finding::error(span, message));
                }
                let content = node.content.clone();
                self.charge(size, span)?;
                return Ok(Node { span, content });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(1 + text.len() / 64, span)?;
                let style = self.style(style, tag.as_deref(), span);
                (Content::Scalar { text: text.into_owned(), style }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.charge(1, span)?;
                self.refuse_tag(tag.as_deref(), "seq", span);
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        None | Some((Event::SequenceEnd, _)) => break,
                        Some((event, place)) => items.push(self.node(event, place, depth + 1)?),
                    }
                }
                (Content::List(items), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.charge(1, span)?;
                self.refuse_tag(tag.as_deref(), "map", span);
                let entries = self.entries(depth)?;
                if let Some(first) = entries
                    .first()
                    .filter(|first| (first.key.span.line, first.key.span.column) == (span.line, span.column))
                {
                    span = first.key.span;
                }
                (Content::Map(entries), anchor)
            }
            // The parser promises nodes here; anything else would be its defect, and is said rather than guessed.
            _ => return Err(Finding::error(span, "this is not YAML: a value is expected here")),
        };
        let node = Node { span, content };
        if anchor != 0 {
            let (size, _) = measure(&node);
            self.charge(size, span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Finding> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, place) = match self.next()? {
                None | Some((Event::MappingEnd, _)) => break,
                Some(next) => next,
            };
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.node(event, place, depth + 1)?;
            let value = match self.next()? {
                Some((event, place)) => self.node(event, place, depth + 1)?,
                None => break,
            };
            if merge {
                merged.push(value);
                continue;
            }
            let Content::Scalar { text, .. } = key.content else {
                let finding = Finding::error(key.span, "a key has to be a text");
                // Templates are the usual way to get here: `{{ name }}` reads as a mapping with a mapping as key.
                self.findings.push(finding.help("put quotes around a value that starts with `{` or `[`"));
                continue;
            };
            if let Some(first) = seen.get(&text) {
                let finding = Finding::error(key.span, format!("the key `{text}` stands here twice"));
                self.findings.push(finding.label("again").related(*first, "first here").help("remove one of them"));
                continue;
            }
            seen.insert(text.clone(), key.span);
            entries.push(Entry { key: Key { span: key.span, text }, value });
        }
        for node in merged {
            let sources = match node.content {
                Content::List(items) => items,
                content => vec![Node { span: node.span, content }],
            };
            for source in sources {
                let Content::Map(merged) = source.content else {
                    self.findings.push(Finding::error(source.span, "`<<` merges mappings, and this is none"));
                    continue;
                };
                for entry in merged {
                    if !seen.contains_key(&entry.key.text) {
                        seen.insert(entry.key.text.clone(), entry.key.span);
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(entries)
    }

    /// Counts what is about to be kept.
    fn charge(&mut self, nodes: usize, span: Span) -> Result<(), Finding> {
        self.nodes = self.nodes.saturating_add(nodes);
        match self.nodes > MAXIMUM_NODES {
            false => Ok(()),
            true => {
                Err(Finding::error(span, format!("more than {MAXIMUM_NODES} values, counting what aliases stand for")))
            }
        }
    }

    fn style(&mut self, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Style {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
            _ => Style::Quoted,
        };
        let Some(tag) = tag else { return style };
        match tag.core_suffix() {
            Some("str") if style == Style::Plain => Style::Quoted,
            Some("str") => style,
            Some("int" | "float" | "bool" | "null") => Style::Plain,
            _ => {
                self.refuse(tag, span);
                style
            }
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, own: &str, span: Span) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(own)) {
            self.refuse(tag, span);
        }
    }

    fn refuse(&mut self, tag: &Tag, span: Span) {
        let message = format!("the tag `{}` means nothing here", tag.original());
        self.findings
            .push(Finding::error(span, message).help("remove it, or put quotes around a text that starts with `!`"));
    }

    /// The first line of what the parser spans.
    fn span(&self, place: &granit_parser::Span) -> Span {
        let (start, end) = (place.start, place.end);
        let mut span = self.at(start.line(), start.col() + 1);
        if end.line() == start.line() {
            span.length = end.col().saturating_sub(start.col()).max(1);
        } else {
            let length = self.lines.get(span.line - 1).map_or(0, |line| line.trim_end().chars().count());
            span.length = length.saturating_sub(start.col()).max(1);
        }
        span
    }

    /// One character, inside the text.
    fn at(&self, line: usize, column: usize) -> Span {
        Span::new(line.clamp(1, self.lines.len().max(1)), column.max(1), 1)
    }
}

/// How many nodes, and how many levels.
fn measure(node: &Node) -> (usize, usize) {
    match &node.content {
        Content::Scalar { text, .. } => (1 + text.len() / 64, 1),
        Content::List(items) => items
            .iter()
            .map(measure)
            .fold((1, 1), |(size, height), (more, levels)| (size + more, height.max(levels + 1))),
        Content::Map(entries) => entries
            .iter()
            .map(|entry| (measure(&entry.value), 2 + entry.key.text.len() / 64))
            .fold((1, 1), |(size, height), ((more, levels), key)| (size + more + key, height.max(levels + 1))),
    }
}
