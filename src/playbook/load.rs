//! A playbook's text becomes a play; every mistake is found at once, at its line and column.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde_json::Value;

use super::action::{Action, KINDS};
use super::{Play, Repeat, Task};
use crate::failure::{Failure, Kind, Result};
use crate::yaml::{self, Content, Finding, Node, did_you_mean};

/// Keys of a play.
const PLAY_KEYS: &[&str] = &["name", "tasks"];

/// Keys of a task besides its kind.
const TASK_KEYS: &[&str] = &["name", "when", "loop"];

/// Kinds whose `source` is a file beside the playbook.
const SOURCE: &str = "source";

/// A file that a play sends along may be this large, in bytes; larger things belong into a bundle.
const MAXIMUM_SOURCE_BYTES: u64 = 2 << 20;

/// A playbook may be this large, in bytes.
const MAXIMUM_PLAYBOOK_BYTES: u64 = 4 << 20;

/// A play with the files it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The play.
    pub play: Play,
    /// Contents of the files its tasks name as `source`, by the name used.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Reads a playbook from a file, with the files it names from the same folder or below.
///
/// # Errors
/// Kind `Configuration` with every finding; nothing has been done then.
pub fn load_file(path: &Path) -> Result<Loaded> {
    let content = read(path, MAXIMUM_PLAYBOOK_BYTES).map_err(|reason| {
        Failure::new(Kind::Configuration, format!("cannot read the playbook {}: {reason}", path.display()))
            .advise("name a playbook that is there")
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    load(&String::from_utf8_lossy(&content), path, &|name| {
        let relative = Path::new(name);
        if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err("it has to lie beside the playbook or below".to_owned());
        }
        read(&folder.join(relative), MAXIMUM_SOURCE_BYTES)
    })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() as u64 > limit { Err(format!("it is larger than {limit} bytes")) } else { Ok(content) }
}

/// Reads a playbook's text; `source` gives the content of a file that a task names.
///
/// # Errors
/// Kind `Configuration` with every finding under its source line.
pub fn load(text: &str, path: &Path, source: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Loaded> {
    let (loaded, findings) = match yaml::tree(text) {
        Ok((tree, findings)) => {
            let mut reader = Reader { path, source, findings, files: BTreeMap::new() };
            let play = reader.play(&tree);
            (play.map(|play| Loaded { play, files: std::mem::take(&mut reader.files) }), reader.findings)
        }
        Err(finding) => (None, vec![finding]),
    };
    match loaded {
        Some(loaded) if findings.is_empty() => Ok(loaded),
        _ => {
            let first = findings.first().map(|finding| finding.one_line(path)).unwrap_or_default();
            let more = match findings.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            Err(Failure::new(Kind::Configuration, format!("{first}{more}"))
                .detailed(yaml::render(&findings, text, path))
                .advise("correct the playbook; nothing was done"))
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    source: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    findings: Vec<Finding>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Reader<'_> {
    fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        if let Content::Scalar { text, .. } = &node.content
            && !node.is_null()
        {
            return Some(text.clone());
        }
        self.find(Finding::error(node.span, format!("{what} has to be a text, but this is {}", node.what())));
        None
    }

    fn play(&mut self, tree: &Node) -> Option<Play> {
        let Content::Map(entries) = &tree.content else {
            self.find(Finding::error(tree.span, "a playbook is a mapping with `name` and `tasks`"));
            return None;
        };
        let (mut name, mut tasks) = (None, None);
        for entry in entries {
            match entry.key.text.as_str() {
                "name" => name = self.text(&entry.value, "`name`"),
                "tasks" => tasks = self.tasks(&entry.value),
                other => {
                    let message = format!("`{other}` is no key of a playbook");
                    let help = did_you_mean(other, PLAY_KEYS.iter().copied());
                    self.find(Finding::error(entry.key.span, message).label("unknown key").help(help));
                }
            }
        }
        if tasks.is_none() && self.findings.is_empty() {
            self.find(Finding::error(tree.span, "the playbook has no `tasks`"));
        }
        let unnamed = || self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Some(Play { name: name.unwrap_or_else(unnamed), tasks: tasks? })
    }

    fn tasks(&mut self, node: &Node) -> Option<Vec<Task>> {
        let Content::List(items) = &node.content else {
            self.find(Finding::error(node.span, format!("`tasks` has to be a list, but this is {}", node.what())));
            return None;
        };
        let tasks: Vec<Option<Task>> = items.iter().map(|item| self.task(item)).collect();
        let tasks: Option<Vec<Task>> = tasks.into_iter().collect();
        if let Some(tasks) = &tasks {
            self.check_names(items, tasks);
        }
        tasks
    }

    fn task(&mut self, node: &Node) -> Option<Task> {
        let Content::Map(entries) = &node.content else {
            self.find(Finding::error(node.span, format!("a task has to be a mapping, but this is {}", node.what())));
            return None;
        };
        let (mut name, mut when, mut repeat, mut action) = (None, None, None, None);
        for entry in entries {
            match entry.key.text.as_str() {
                "name" => name = self.text(&entry.value, "`name`"),
                "when" => when = self.text(&entry.value, "`when`"),
                "loop" => {
                    repeat = Some(match entry.value.to_value() {
                        Value::Array(items) => Repeat::Items(items),
                        Value::String(expression) => Repeat::Expression(expression),
                        _ => {
                            let message = "`loop` has to be a list or an expression";
                            self.find(Finding::error(entry.value.span, message));
                            continue;
                        }
                    });
                }
                kind => match KINDS.iter().find(|(known, _)| *known == kind) {
                    Some((kind, keys)) if action.is_none() => action = Some(self.action(kind, keys, &entry.value)?),
                    Some(_) => {
                        let message = format!("a task does one thing: `{kind}` needs a task of its own");
                        self.find(Finding::error(entry.key.span, message));
                    }
                    None => {
                        let known = KINDS.iter().map(|(kind, _)| *kind).chain(TASK_KEYS.iter().copied());
                        let help = did_you_mean(kind, known);
                        let message = format!("`{kind}` is no kind of task");
                        self.find(Finding::error(entry.key.span, message).label("unknown").help(help));
                        return None;
                    }
                },
            }
        }
        let Some((kind, arguments)) = action else {
            let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            let help = format!("one of {}", kinds.join(", "));
            self.find(Finding::error(node.span, "the task does nothing").help(help));
            return None;
        };
        let place = format!("{}:{}", self.path.display(), node.span.line);
        Some(Task { name, when, repeat, kind, arguments, place })
    }

    fn action(&mut self, kind: &str, keys: &[&str], node: &Node) -> Option<(String, Value)> {
        let Content::Map(entries) = &node.content else {
            let message = format!("`{kind}` has to be a mapping, but this is {}", node.what());
            self.find(Finding::error(node.span, message).help(format!("its keys are {}", keys.join(", "))));
            return None;
        };
        let before = self.findings.len();
        for entry in entries {
            let key = entry.key.text.as_str();
            if !keys.contains(&key) {
                let help = did_you_mean(key, keys.iter().copied());
                let message = format!("`{key}` is no key of `{kind}`");
                self.find(Finding::error(entry.key.span, message).label("unknown key").help(help));
            } else if key == SOURCE
                && let Some(name) = self.text(&entry.value, "`source`")
            {
                match (self.source)(&name) {
                    Ok(content) => {
                        self.files.insert(name, content);
                    }
                    Err(reason) => {
                        self.find(Finding::error(entry.value.span, format!("cannot read {name}: {reason}")));
                    }
                }
            }
        }
        let arguments = node.to_value();
        // What an expression will give is not known yet: such arguments are judged when the task runs.
        if self.findings.len() == before && !has_expression(&arguments) {
            let judged = Action::read(kind, arguments.clone()).and_then(|action| contradiction(&action));
            if let Err(reason) = judged {
                self.find(Finding::error(node.span, format!("`{kind}`: {reason}")));
            }
        }
        Some((kind.to_owned(), arguments))
    }

    /// `restart_on` names tasks of the same play.
    fn check_names(&mut self, items: &[Node], tasks: &[Task]) {
        let names: Vec<&str> = tasks.iter().filter_map(|task| task.name.as_deref()).collect();
        for (node, task) in items.iter().zip(tasks) {
            let wanted = task.arguments.get("restart_on").and_then(Value::as_array);
            for name in wanted.into_iter().flatten().filter_map(Value::as_str) {
                if !names.contains(&name) {
                    let help = did_you_mean(name, names.iter().copied());
                    let message = format!("`restart_on` names `{name}`, and no task has that name");
                    self.findings.push(Finding::error(node.span, message).help(help));
                }
            }
        }
    }
}

fn has_expression(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{") || text.contains("{%"),
        Value::Array(items) => items.iter().any(has_expression),
        Value::Object(fields) => fields.values().any(has_expression),
        _ => false,
    }
}

/// Arguments that do not go together.
fn contradiction(action: &Action) -> Result<(), String> {
    use super::action::Presence;
    match action {
        Action::File(file) => match (file.state, file.content.is_some(), file.source.is_some()) {
            (Presence::Present, false, false) => Err("it needs `content` or `source`".to_owned()),
            (Presence::Present, true, true) => Err("`content` and `source` exclude each other".to_owned()),
            (Presence::Absent, false, false) | (Presence::Present, ..) => Ok(()),
            (Presence::Absent, ..) => Err("a file that shall be absent has no content".to_owned()),
        },
        Action::Unit(unit) if unit.content.is_some() && unit.source.is_some() => {
            Err("`content` and `source` exclude each other".to_owned())
        }
        Action::Unit(unit) if unit.drop_in.is_some() && unit.content.is_none() && unit.source.is_none() => {
            Err("a `drop_in` needs `content` or `source`".to_owned())
        }
        Action::Command(command) if command.argv.is_empty() => Err("`argv` is empty".to_owned()),
        Action::Command(command) if command.creates.is_none() && command.unless.is_none() => {
            Err("say how to see that it is done: `creates` or `unless`".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::load;

    fn judge(text: &str) -> Result<super::Loaded, String> {
        let source = |name: &str| if name == "there" { Ok(b"x".to_vec()) } else { Err("not there".to_owned()) };
        load(text, Path::new("play.yaml"), &source)
            .map_err(|failure| format!("{}\n{}", failure.sentence, failure.detail.unwrap_or_default()))
    }

    #[test]
    fn a_play_keeps_its_tasks_and_their_files() {
        let loaded = judge(
            "name: demo\ntasks:\n- name: greet\n  when: facts.cpus > 1\n  loop: [a, b]\n  file: {path: /etc/x, source: there, mode: \"0600\"}\n",
        )
        .unwrap();
        assert_eq!(loaded.play.name, "demo");
        assert_eq!(loaded.play.tasks[0].kind, "file");
        assert_eq!(loaded.play.tasks[0].place, "play.yaml:3");
        assert_eq!(loaded.files["there"], b"x");
    }

    #[rstest]
    #[case("tasks:\n- fiel: {path: /x}\n", "play.yaml:2:3: `fiel` is no kind of task")]
    #[case("tasks:\n- file: {pth: /x, content: a}\n", "`pth` is no key of `file`")]
    #[case("tasks:\n- file: {path: x, content: a}\n", "not an absolute path")]
    #[case("tasks:\n- file: {path: /a/../b, content: a}\n", "not an absolute path")]
    #[case("tasks:\n- file: {path: /x, content: a, mode: 644}\n", "a mode is written in quotes")]
    #[case("tasks:\n- file: {path: /x}\n", "needs `content` or `source`")]
    #[case("tasks:\n- file: {path: /x, source: elsewhere}\n", "cannot read elsewhere: not there")]
    #[case("tasks:\n- command: {argv: [true]}\n", "`command`")]
    #[case("tasks:\n- command: {argv: [touch, /x]}\n", "`creates` or `unless`")]
    #[case("tasks:\n- name: nothing\n", "the task does nothing")]
    #[case("tasks:\n- unit: {name: a.service, restart_on: [gone]}\n", "no task has that name")]
    #[case("name: empty\n", "no `tasks`")]
    #[case("tasks: {}\n", "has to be a list")]
    fn mistakes_have_a_place(#[case] text: &str, #[case] words: &str) {
        let said = judge(text).unwrap_err();
        assert!(said.contains(words), "no «{words}» in:\n{said}");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let said = judge("tasks:\n- file: {pth: /x}\n- unt: {}\n- swap: {state: on}\n").unwrap_err();
        assert!(said.contains("(and 2 more)"), "{said}");
    }
}
