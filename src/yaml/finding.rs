//! What is wrong with a document a person wrote, where, and how it is shown.

use std::path::Path;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A place in a text: lines and columns count from 1, columns and lengths in characters. It never crosses a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// How many characters, at least 1.
    pub length: usize,
}

impl Span {
    /// `length` characters from a place on.
    pub fn new(line: usize, column: usize, length: usize) -> Self {
        Self { line, column, length }
    }
}

/// Whether a finding stops the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is done until it is corrected.
    Error,
    /// Worth knowing.
    Warning,
}

/// Another place that belongs to a finding: where the name was used first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub span: Span,
    /// What stands there.
    pub label: String,
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub length: usize,
    /// What is wrong: one sentence without a full stop.
    pub message: String,
    /// What stands at the place, for the underline; may be empty.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// A second place, if two belong together.
    pub related: Option<Related>,
}

impl Finding {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            line: span.line,
            column: span.column,
            length: span.length.max(1),
            message: message.into(),
            label: String::new(),
            help: None,
            related: None,
        }
    }

    /// A warning at a place.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// Says what stands at the place.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to write instead.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some(Related { span, label: label.into() });
        self
    }

    /// The place as a span.
    pub fn span(&self) -> Span {
        Span::new(self.line, self.column, self.length)
    }

    /// One line: `path:line:column: message`.
    pub fn one_line(&self, path: &Path) -> String {
        format!("{}:{}:{}: {}", path.display(), self.line, self.column, self.message)
    }
}

/// More findings than this are counted, not shown: the first ones explain the rest.
const MAXIMUM_SHOWN: usize = 50;

/// Findings as text, in the order of the document: `path:line:column`, the source line underlined, help.
///
/// Plain characters without colours; the text comes from a file and has to be cleaned before a terminal sees it.
pub fn render(findings: &[Finding], source: &str, path: &Path) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut ordered: Vec<&Finding> = findings.iter().collect();
    ordered.sort_by_key(|finding| (finding.line, finding.column, finding.severity));
    let mut parts: Vec<String> = ordered
        .iter()
        .take(MAXIMUM_SHOWN)
        .map(|finding| render_one(finding, &lines, &path.to_string_lossy()))
        .collect();
    if let Some(more) = ordered.len().checked_sub(MAXIMUM_SHOWN).filter(|more| *more > 0) {
        parts.push(format!("... and {more} more"));
    }
    parts.join("\n\n")
}

fn render_one(finding: &Finding, lines: &[&str], path: &str) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    // Only the lines needed go to the renderer; what is between two places is folded by it.
    let related_line = finding.related.as_ref().map_or(finding.line, |related| related.span.line);
    let first = finding.line.min(related_line).max(1);
    let last = finding.line.max(related_line).clamp(first, lines.len().max(first));
    let excerpt: Vec<&str> = (first..=last).map(|line| lines.get(line - 1).copied().unwrap_or_default()).collect();
    let source = excerpt.join("\n");
    let bytes = |span: Span| bytes_of(span, &excerpt, first);
    let mut primary = AnnotationKind::Primary.span(bytes(finding.span()));
    if !finding.label.is_empty() {
        primary = primary.label(finding.label.as_str());
    }
    let mut snippet = Snippet::source(source.as_str()).path(path).line_start(first).annotation(primary);
    if let Some(related) = &finding.related {
        snippet = snippet.annotation(AnnotationKind::Context.span(bytes(related.span)).label(related.label.as_str()));
    }
    let mut group = level.primary_title(finding.message.as_str()).element(snippet);
    if let Some(help) = &finding.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let text = Renderer::plain().decor_style(DecorStyle::Ascii).render(&[group]);
    // The renderer pads; lines compared in tests and pasted into mails should not end in blanks.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Byte range of a span in the excerpt's lines joined by line feeds.
fn bytes_of(span: Span, excerpt: &[&str], first: usize) -> std::ops::Range<usize> {
    let index = span.line.saturating_sub(first).min(excerpt.len().saturating_sub(1));
    let start_of_line: usize = excerpt.iter().take(index).map(|line| line.len() + 1).sum();
    let line = excerpt.get(index).copied().unwrap_or_default();
    let byte = |character: usize| line.char_indices().nth(character).map_or(line.len(), |(byte, _)| byte);
    let from = byte(span.column.saturating_sub(1));
    let to = byte(span.column.saturating_sub(1).saturating_add(span.length)).max(from);
    start_of_line + from..start_of_line + to
}
