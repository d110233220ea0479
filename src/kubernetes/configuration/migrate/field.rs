//! Fields of a tree by path: `apiServer.extraArgs`, and `extraVolumes[].readOnly` for all items of a list.

use crate::yaml::{Content, Entry, Key, Node, Span, Style};

/// The fields of a mapping.
pub(super) fn fields_mut(node: &mut Node) -> Option<&mut Vec<Entry>> {
    match &mut node.content {
        Content::Map(entries) => Some(entries),
        _ => None,
    }
}

fn fields(node: &Node) -> &[Entry] {
    match &node.content {
        Content::Map(entries) => entries,
        _ => &[],
    }
}

/// The value at a path.
pub(super) fn get<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.')
        .try_fold(node, |node, name| fields(node).iter().find(|entry| entry.key.text == name).map(|entry| &entry.value))
}

/// The value at a path, to alter.
pub(super) fn get_mut<'a>(node: &'a mut Node, path: &str) -> Option<&'a mut Node> {
    path.split('.').try_fold(node, |node, name| {
        fields_mut(node)?.iter_mut().find(|entry| entry.key.text == name).map(|entry| &mut entry.value)
    })
}

/// Takes a field out.
pub(super) fn take(node: &mut Node, path: &str) -> Option<Entry> {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (get_mut(node, parent)?, name),
        None => (node, path),
    };
    let entries = fields_mut(parent)?;
    let position = entries.iter().position(|entry| entry.key.text == name)?;
    Some(entries.remove(position))
}

/// Puts a value at a path, whose parents are made; `span` is where its key stood.
pub(super) fn put(node: &mut Node, path: &str, span: Span, value: Node) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Some(entries) = fields_mut(node) else {
        // A parent that says nothing gives way; one that says something else is refused later, by its type.
        if node.is_null() {
            *node = Node { span, content: Content::Map(Vec::new()) };
            put(node, path, span, value);
        }
        return;
    };
    let position = entries.iter().position(|entry| entry.key.text == name).unwrap_or_else(|| {
        let nothing = Node { span, content: Content::Map(Vec::new()) };
        entries.push(Entry { key: Key { span, text: name.to_owned() }, value: nothing });
        entries.len() - 1
    });
    match rest {
        Some(rest) => put(&mut entries[position].value, rest, span, value),
        None => entries[position].value = value,
    }
}

/// Sets a text, in place where the field is there.
pub(super) fn set_text(node: &mut Node, path: &str, text: &str) {
    let span = get(node, path).map_or(node.span, |there| there.span);
    put(node, path, span, Node { span, content: Content::Scalar { text: text.to_owned(), style: Style::Quoted } });
}

/// The text of a scalar.
pub(super) fn scalar(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => None,
    }
}

/// The text of a scalar; empty for anything else.
pub(super) fn text_of(node: &Node) -> String {
    scalar(node).unwrap_or_default().to_owned()
}

/// Removes every field a path matches; where their keys stood.
pub(super) fn remove_matches(node: &mut Node, path: &str) -> Vec<Span> {
    if let Some((list, rest)) = path.split_once("[].") {
        let Some(Node { content: Content::List(items), .. }) = get_mut(node, list) else { return Vec::new() };
        return items.iter_mut().flat_map(|item| remove_matches(item, rest)).collect();
    }
    take(node, path).map(|entry| entry.key.span).into_iter().collect()
}

/// Turns a mapping of arguments into a list sorted by name, as v1beta4 has them. With `texts` values become texts, whatever
/// they were written as.
pub(super) fn list_arguments(node: &mut Node, path: &str, texts: bool) {
    let Some(arguments) = get_mut(node, path) else { return };
    let span = arguments.span;
    let Some(entries) = fields_mut(arguments) else { return };
    let mut entries = std::mem::take(entries);
    entries.sort_by(|one, other| one.key.text.cmp(&other.key.text));
    let text = |span, text| Node { span, content: Content::Scalar { text, style: Style::Quoted } };
    let field = |name: &str, span, value| Entry { key: Key { span, text: name.to_owned() }, value };
    let items = entries.into_iter().map(|Entry { key, value }| {
        let value = match scalar(&value) {
            Some(plain) if texts => text(value.span, plain.to_owned()),
            None if texts && value.is_null() => text(value.span, String::new()),
            _ => value,
        };
        let name = text(key.span, key.text);
        Node {
            span: key.span,
            content: Content::Map(vec![field("name", key.span, name), field("value", value.span, value)]),
        }
    });
    let items = items.collect();
    *arguments = Node { span, content: Content::List(items) };
}
