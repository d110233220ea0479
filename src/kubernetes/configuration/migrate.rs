//! `config migrate`: kubeadm's documents of every published version, rewritten to v1beta4 step by step, as the releases
//! between converted them. Every field that has no place any more is named with its line.
//!
//! What changed from version to version is data ([`steps`]); the documents are trees that know their places, so that a
//! value that moved five times is still found in the file a person wrote.

mod field;
mod special;
mod steps;

use super::load::load;
use super::shape::{self, Fault, Shape};
use crate::kubernetes::text;
use crate::kubernetes::version;
use crate::secret::Secret;
use crate::yaml::{self, Content, Finding, Node, Span, did_you_mean, nearest};
use field::{fields_mut, remove_matches, scalar, set_text, take, text_of};
use steps::{LATER_FIELDS, Rule, STEPS, VERSIONS};

/// Documents in v1beta4.
#[derive(Debug, Clone, PartialEq)]
pub struct Migrated {
    /// The documents; secret because they hold tokens.
    pub text: Secret,
    /// What has no place any more or means something else now, at its place in the old text.
    pub warnings: Vec<Finding>,
    /// Whether anything was written in an older version.
    pub changed: bool,
}

/// One document on its way.
struct Document {
    /// Index into [`VERSIONS`]; `None` for a document that is not kubeadm's and stays as it is.
    version: Option<usize>,
    kind: String,
    root: Node,
    /// Whether it was written in an older version.
    older: bool,
}

/// A value that moves to a document of another kind.
struct Gift {
    kind: &'static str,
    path: &'static str,
    span: Span,
    value: Node,
}

struct Work {
    documents: Vec<Document>,
    warnings: Vec<Finding>,
    /// Whether arguments become texts, whatever they were written as; else a number stays one, and is refused by its type.
    texts: bool,
}

/// The last version that upstream still reads, up to Kubernetes 1.36 (kubeadm.md section 13.7). Clusters last touched by
/// kubeadm 1.30 or older store their configuration in it.
const STILL_READ: &str = "v1beta3";

/// Documents of which those in v1beta3 are lifted to v1beta4, as upstream does when it reads them; all others stay.
pub(super) fn lifted(nodes: Vec<Node>, warnings: &mut Vec<String>) -> Vec<Node> {
    let from = VERSIONS.iter().position(|version| *version == STILL_READ).unwrap_or_default();
    let is_read = |node: &Node| {
        field::get(node, "apiVersion").and_then(scalar) == Some(&format!("kubeadm.k8s.io/{STILL_READ}"))
            && field::get(node, "kind").and_then(scalar).is_some_and(|kind| steps::kinds(from).contains(&kind))
    };
    let documents = nodes.into_iter().map(|root| {
        let (older, kind) = (is_read(&root), field::get(&root, "kind").map(text_of).unwrap_or_default());
        if older {
            warnings.push(format!(
                "{kind} is written in kubeadm.k8s.io/{STILL_READ}, which Kubernetes 1.37 no longer accepts"
            ));
        }
        Document { version: older.then_some(from), kind, root, older }
    });
    let mut work = Work { documents: documents.collect(), warnings: Vec::new(), texts: false };
    work.drop_later_fields();
    work.step(from, STEPS[from]);
    warnings.extend(work.warnings.iter().map(|finding| {
        let span = finding.span();
        format!("{} (line {}, column {})", finding.message, span.line, span.column)
    }));
    work.documents.into_iter().map(|document| document.root).collect()
}

/// Rewrites documents to v1beta4. Values are not judged beyond their type: that is `config validate`'s.
///
/// # Errors
/// What makes the text unreadable, each at its place: syntax, a key that stands twice, an unknown version or kind, a
/// value of a wrong type.
pub fn migrate(text: &str) -> Result<Migrated, Vec<Finding>> {
    let (nodes, mut errors) = yaml::trees(text).map_err(|finding| vec![finding])?;
    let mut work = Work { documents: Vec::new(), warnings: Vec::new(), texts: true };
    for root in nodes.into_iter().filter(|node| !node.is_null()) {
        match Document::read(root) {
            Ok(document) => work.documents.push(document),
            Err(finding) => errors.push(finding),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let newest = VERSIONS.len() - 1;
    let changed = work.documents.iter().any(|document| document.version.is_some_and(|version| version < newest));
    work.drop_later_fields();
    for (version, rules) in STEPS.iter().enumerate() {
        work.step(version, rules);
    }
    work.look_at_values();
    work.drop_unknown_fields();
    work.finish(changed)
}

impl Document {
    fn read(root: Node) -> Result<Self, Finding> {
        let header = |name: &str| field::get(&root, name).and_then(scalar).map(str::to_owned);
        let (Some(api_version), Some(kind)) = (header("apiVersion"), header("kind")) else {
            let finding = Finding::error(root.span, "this document has no apiVersion or no kind");
            return Err(finding.help("begin it with apiVersion: kubeadm.k8s.io/v1beta3 and its kind, for example"));
        };
        let Some(name) = api_version.strip_prefix("kubeadm.k8s.io/") else {
            return Ok(Self { version: None, kind, root, older: false });
        };
        let span = |name: &str| field::get(&root, name).map_or(root.span, |node| node.span);
        let Some(version) = VERSIONS.iter().position(|known| *known == name) else {
            let finding =
                Finding::error(span("apiVersion"), format!("{api_version} is not a version that can be read"));
            return Err(finding.help(format!("versions are {}", VERSIONS.join(", "))));
        };
        let kinds = steps::kinds(version);
        if !kinds.contains(&kind.as_str()) {
            let finding = Finding::error(span("kind"), format!("{api_version} has no kind {kind}"));
            return Err(finding.help(did_you_mean(&kind, kinds.iter().copied())));
        }
        Ok(Self { version: Some(version), kind, root, older: version < VERSIONS.len() - 1 })
    }
}

impl Document {
    /// Values of wrong types, each where it stands in the old text. Unknown fields of a component are only warned about: they
    /// stay, because the component may be newer than we are.
    fn misfits(&self, warnings: &mut Vec<Finding>) -> Vec<Finding> {
        let component = || shape::of_component(&self.kind).map(|(_, _, shape)| shape);
        let shape = if self.version.is_some() { shape::of(&self.kind) } else { component() };
        let mut wrong = Vec::new();
        for found in shape.map(|shape| shape::findings(&self.root, shape)).unwrap_or_default() {
            let message = found.words(&self.kind);
            match found.fault {
                Fault::Unknown => warnings.push(Finding::warning(found.span, message)),
                Fault::Wrong(_) => wrong.push(Finding::error(found.span, message)),
            }
        }
        wrong
    }
}

impl Work {
    /// A field that a later version brought is no field of an older document: the kubeadm of that time ignored it, and to
    /// heed it now would change what the document means.
    fn drop_later_fields(&mut self) {
        for document in &mut self.documents {
            let Some(version) = document.version else { continue };
            for (since, kind, paths) in LATER_FIELDS {
                let since = VERSIONS.iter().position(|known| known == since).unwrap_or_default();
                if version >= since || *kind != steps::newest_kind(&document.kind) {
                    continue;
                }
                for path in *paths {
                    for span in remove_matches(&mut document.root, path) {
                        let message = format!("{} has no field {path}, and so it is left out", VERSIONS[version]);
                        self.warnings.push(
                            Finding::warning(span, message)
                                .help(format!("add it to the new file if it is meant: {} brought it", VERSIONS[since])),
                        );
                    }
                }
            }
        }
    }

    /// Lifts the documents of one version to the next.
    fn step(&mut self, version: usize, rules: &[(&str, &[Rule])]) {
        let mut gifts = Vec::new();
        for document in std::mem::take(&mut self.documents) {
            if document.version != Some(version) {
                self.documents.push(document);
                continue;
            }
            let mut document = document;
            let of_kind = rules.iter().find(|(kind, _)| *kind == document.kind);
            let mut stays = true;
            for rule in of_kind.map_or(&[][..], |(_, rules)| *rules) {
                stays &= self.apply(rule, &mut document, &mut gifts);
            }
            document.version = Some(version + 1);
            set_text(&mut document.root, "apiVersion", &format!("kubeadm.k8s.io/{}", VERSIONS[version + 1]));
            set_text(&mut document.root, "kind", &document.kind);
            if stays {
                self.documents.push(document);
            }
        }
        for gift in gifts {
            self.deliver(gift, version + 1);
        }
    }

    /// Applies a rule; `false` when the whole document goes.
    fn apply(&mut self, rule: &Rule, document: &mut Document, gifts: &mut Vec<Gift>) -> bool {
        let root = &mut document.root;
        match *rule {
            Rule::Becomes(kind) => kind.clone_into(&mut document.kind),
            Rule::Move(from, to) => {
                if let Some(entry) = take(root, from) {
                    field::put(root, to, entry.key.span, entry.value);
                }
            }
            Rule::Give(from, kind, path) => {
                let taken = take(root, from).filter(|entry| !entry.value.is_null());
                gifts.extend(taken.map(|entry| Gift { kind, path, span: entry.key.span, value: entry.value }));
            }
            Rule::Gone(path, why) => {
                if let Some(entry) = take(root, path).filter(|entry| !is_empty(&entry.value)) {
                    let message = format!("{path} has no place any more: {why}");
                    self.warnings.push(Finding::warning(entry.key.span, message));
                }
            }
            Rule::Arguments(path) => field::list_arguments(root, path, self.texts),
            Rule::Special(function) => function(root, &mut self.warnings),
            Rule::GoneDocument(why) => {
                let message = format!("{} has no place any more: {why}", document.kind);
                self.warnings.push(Finding::warning(root.span, message));
                return false;
            }
        }
        true
    }

    /// Puts a value into the document of its kind, which is made where there is none.
    fn deliver(&mut self, gift: Gift, version: usize) {
        let position = self.documents.iter().position(|document| document.kind == gift.kind);
        if gift.path.is_empty() {
            // A whole document of a component.
            if position.is_some() {
                let message = format!("this {} is left out, because there is a document of that kind", gift.kind);
                self.warnings.push(Finding::warning(gift.span, message));
                return;
            }
            let mut root = gift.value;
            let version = match gift.kind {
                "KubeletConfiguration" => "kubelet.config.k8s.io/v1beta1",
                _ => "kubeproxy.config.k8s.io/v1alpha1",
            };
            set_text(&mut root, "apiVersion", version);
            set_text(&mut root, "kind", gift.kind);
            self.documents.push(Document { version: None, kind: gift.kind.to_owned(), root, older: true });
            return;
        }
        let position = position.unwrap_or_else(|| {
            let mut root = Node { span: gift.span, content: Content::Map(Vec::new()) };
            set_text(&mut root, "apiVersion", &format!("kubeadm.k8s.io/{}", VERSIONS[version]));
            set_text(&mut root, "kind", gift.kind);
            self.documents.push(Document { version: Some(version), kind: gift.kind.to_owned(), root, older: true });
            self.documents.len() - 1
        });
        field::put(&mut self.documents[position].root, gift.path, gift.span, gift.value);
    }

    /// Values that are read as before and do not do any more what they did.
    fn look_at_values(&mut self) {
        for document in self.documents.iter_mut().filter(|document| document.version.is_some()) {
            special::look_at_values(&mut document.root, &mut self.warnings);
            if document.older {
                special::known_gates(&mut document.root, &mut self.warnings);
            }
            let Some(node) = field::get(&document.root, "kubernetesVersion") else { continue };
            let known = version::parse(&text_of(node)).and_then(|parsed| version::Release::of(&parsed).map(|_| ()));
            if let Err(failure) = known
                && document.kind == "ClusterConfiguration"
            {
                let help = failure.advice.unwrap_or_else(|| "write the version the cluster is to have".to_owned());
                self.warnings.push(Finding::warning(node.span, failure.sentence).help(help));
            }
        }
    }

    fn drop_unknown_fields(&mut self) {
        for document in self.documents.iter_mut().filter(|document| document.version.is_some()) {
            if let Some(shape) = shape::of(&document.kind) {
                drop_unknown(&mut document.root, shape, "", &mut self.warnings);
            }
        }
    }

    fn finish(mut self, changed: bool) -> Result<Migrated, Vec<Finding>> {
        let order = |document: &Document| match document.kind.as_str() {
            "InitConfiguration" => 0,
            "ClusterConfiguration" => 1,
            "JoinConfiguration" => 2,
            _ => 3,
        };
        self.documents.sort_by_key(order);
        let mut errors = Vec::new();
        let mut texts = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for document in &self.documents {
            let text = text::yaml(&document.root.to_value());
            let wrong = document.misfits(&mut self.warnings);
            if !wrong.is_empty() {
                errors.extend(wrong);
            } else if seen.contains(&document.kind.as_str()) {
                let message = format!("{} occurs more than once", document.kind);
                errors.push(Finding::error(document.root.span, message));
            } else if let Err(failure) = load(&text) {
                errors.push(Finding::error(document.root.span, failure.to_string()));
            }
            seen.push(&document.kind);
            texts.push(text);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.warnings.sort_by_key(|finding| (finding.line, finding.column));
        Ok(Migrated { text: Secret::new(texts.join("---\n")), warnings: self.warnings, changed })
    }
}

/// Whether a node says nothing: null, or a mapping or list of nothing.
fn is_empty(node: &Node) -> bool {
    match &node.content {
        Content::Map(entries) => entries.iter().all(|entry| is_empty(&entry.value)),
        Content::List(items) => items.is_empty(),
        Content::Scalar { text, .. } => node.is_null() || text.is_empty(),
    }
}

/// Removes what the shape does not have, each with a warning unless it says nothing.
fn drop_unknown(node: &mut Node, shape: &Shape, path: &str, warnings: &mut Vec<Finding>) {
    match (shape, &mut node.content) {
        (Shape::Fields(known), Content::Map(_)) => {
            let Some(fields) = fields_mut(node) else { return };
            fields.retain_mut(|entry| {
                let path = if path.is_empty() { entry.key.text.clone() } else { format!("{path}.{}", entry.key.text) };
                match known.iter().find(|(name, _)| *name == entry.key.text) {
                    Some((_, shape)) => {
                        drop_unknown(&mut entry.value, shape, &path, warnings);
                        true
                    }
                    None => {
                        if !is_empty(&entry.value) {
                            let message = format!("{path} is not known and is left out");
                            let near = nearest(&entry.key.text, known.iter().map(|(name, _)| *name));
                            let finding = Finding::warning(entry.key.span, message);
                            warnings.push(match near {
                                Some(near) => finding.help(format!("did you mean `{near}`?")),
                                None => finding,
                            });
                        }
                        false
                    }
                }
            });
        }
        (Shape::List(shape), Content::List(items)) => {
            for (position, item) in items.iter_mut().enumerate() {
                drop_unknown(item, shape, &format!("{path}[{position}]"), warnings);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
