//! What the arguments of kubectl mean where kubectl runs on another machine than the person who types them: which files are
//! here, whether it reads what is piped in, and whether it wants a terminal.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Kind, Result};

/// Options of every verb that take the next argument as their value (`kubectl options`).
const TAKE_A_VALUE: &[&str] = &[
    "-n",
    "--namespace",
    "-s",
    "--server",
    "-v",
    "--v",
    "--as",
    "--as-group",
    "--as-uid",
    "--as-user-extra",
    "--cache-dir",
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--cluster",
    "--context",
    "--kubeconfig",
    "--kuberc",
    "--log-flush-frequency",
    "--password",
    "--profile",
    "--profile-output",
    "--request-timeout",
    "--tls-server-name",
    "--token",
    "--user",
    "--username",
    "--vmodule",
];

/// Verbs that talk with a person or a program in a container.
const TALK: &[&str] = &["exec", "run", "attach", "debug"];

/// Verbs that open a port, or read and write files, on the machine they run on.
const BELONG_HERE: &[&str] = &["port-forward", "proxy", "cp"];

/// Other options that name files.
const NAME_FILES: &[&str] = &[
    "-k",
    "--kustomize",
    "--from-file",
    "--from-env-file",
    "--patch-file",
    "--cert",
    "--key",
    "--kubeconfig",
    "--client-certificate",
    "--client-key",
    "--certificate-authority",
];

/// What kubectl reads from standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    None,
    /// What this program reads from its own.
    Standard,
    /// A file of this machine.
    File(PathBuf),
}

/// A call of kubectl on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The arguments there.
    pub arguments: Vec<String>,
    /// What it reads.
    pub input: Input,
    /// Whether it asks for a terminal, where the person has one.
    pub terminal: bool,
}

impl Invocation {
    /// Reads arguments. A file that is on this machine, as `is_here` tells, is meant where one is named; its content goes
    /// there as standard input.
    ///
    /// # Errors
    /// Kind `Usage` for what only works on the machine kubectl runs on, and for files that cannot go as one input.
    pub fn of(arguments: &[String], is_here: &dyn Fn(&Path) -> Option<FileHere>) -> Result<Self> {
        let verb = verb(arguments).unwrap_or_default();
        if BELONG_HERE.contains(&verb) {
            return Err(Failure::new(Kind::Usage, format!("kubectl {verb} would work with the control plane's own ports and files"))
                .advise("open the way to the API with `clusterctl tunnel`, and run your own kubectl with the kubeconfig it writes"));
        }
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        let (ours, rest) = arguments.split_at(end);
        let mut invocation = Self { arguments: Vec::new(), input: Input::None, terminal: terminal(verb, ours) };
        let mut words = ours.iter();
        while let Some(word) = words.next() {
            let Some((option, value)) = file_option(verb, word) else {
                invocation.note_input(verb, word);
                invocation.arguments.push(word.clone());
                continue;
            };
            let apart = value.is_none();
            let Some(value) = value.or_else(|| words.next().map(String::as_str)) else {
                invocation.arguments.push(word.clone());
                continue;
            };
            let value = invocation.file(option, value, is_here)?;
            if apart {
                invocation.arguments.extend([word.clone(), value]);
            } else {
                invocation
                    .arguments
                    .push(format!("{option}{}{value}", if option.starts_with("--") { "=" } else { "" }));
            }
        }
        invocation.arguments.extend_from_slice(rest);
        Ok(invocation)
    }

    /// What an option that names a file gets as its value there.
    fn file(&mut self, option: &str, value: &str, is_here: &dyn Fn(&Path) -> Option<FileHere>) -> Result<String> {
        let is_filename = matches!(option, "-f" | "--filename");
        if value == "-" || value.ends_with("=-") || value.ends_with("/dev/stdin") {
            self.input = Input::Standard;
            return Ok(value.to_owned());
        }
        // --from-file takes NAME=FILE, --filename several with commas.
        let path = |part: &str| PathBuf::from(part.split_once('=').map_or(part, |(_, path)| path));
        let here = value.split(',').find_map(|part| is_here(&path(part)).map(|kind| (path(part), kind)));
        let Some((path, kind)) = here else { return Ok(value.to_owned()) };
        let shown = path.display();
        if !is_filename {
            return Err(Failure::new(
                Kind::Usage,
                format!("{option} names {shown}, which is on this machine; kubectl runs on a control plane"),
            )
            .advise("run your own kubectl through `clusterctl tunnel`, or put the file there with `clusterctl copy`"));
        }
        let one = "send all as one: `cat FILES | clusterctl kubectl -- apply -f -`, with a line of --- between them";
        match kind {
            FileHere::Folder => Err(Failure::new(
                Kind::Usage,
                format!("{shown} is a folder on this machine; kubectl runs on a control plane"),
            )
            .advise(one)),
            FileHere::File if self.input != Input::None || value.contains(',') => Err(Failure::new(
                Kind::Usage,
                format!("{shown} is on this machine, and only one file of it reaches the control plane"),
            )
            .advise(one)),
            FileHere::File => {
                self.input = Input::File(path);
                Ok("-".to_owned())
            }
        }
    }

    /// Whether a word makes kubectl read standard input.
    fn note_input(&mut self, verb: &str, word: &str) {
        let keeps_it_open =
            matches!(word, "--stdin" | "--stdin=true") || short(word).is_some_and(|all| all.contains('i'));
        if word == "-" || (TALK.contains(&verb) && keeps_it_open) {
            self.input = Input::Standard;
        }
    }
}

/// What a name is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileHere {
    /// Something that can be read.
    File,
    /// A folder.
    Folder,
}

/// The verb: the first argument that is no option, nor the value of one.
fn verb(arguments: &[String]) -> Option<&str> {
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if TAKE_A_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        } else if word == "--" {
            return None;
        }
    }
    None
}

/// The letters of `-it`.
fn short(word: &str) -> Option<&str> {
    word.strip_prefix('-').filter(|letters| !letters.is_empty() && letters.chars().all(|letter| "itq".contains(letter)))
}

fn terminal(verb: &str, arguments: &[String]) -> bool {
    let asks = |word: &String| {
        matches!(word.as_str(), "--tty" | "--tty=true") || short(word).is_some_and(|letters| letters.contains('t'))
    };
    match verb {
        "edit" => true,
        verb => TALK.contains(&verb) && arguments.iter().any(asks),
    }
}

/// An option that names a file, and its value where that stands in the same word. The `-f` of `logs` is another one.
fn file_option<'a>(verb: &str, word: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    if let Some((option, value)) = word.split_once('=').filter(|(option, _)| option.starts_with("--")) {
        return (option == "--filename" || NAME_FILES.contains(&option)).then_some((option, Some(value)));
    }
    if word == "--filename" || NAME_FILES.contains(&word) {
        return Some((word, None));
    }
    let rest = word.strip_prefix("-f").filter(|_| verb != "logs")?;
    match rest {
        "" => Some((word, None)),
        value => Some((&word[..2], Some(value.strip_prefix('=').unwrap_or(value)))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{FileHere, Input, Invocation, verb};
    use crate::failure::Kind;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn here(path: &Path) -> Option<FileHere> {
        match path.to_str()? {
            "app.yaml" | "/srv/other.yaml" | "token" => Some(FileHere::File),
            "manifests" => Some(FileHere::Folder),
            _ => None,
        }
    }

    #[rstest]
    #[case("get nodes", "get nodes", Input::None, false)]
    #[case("apply -f app.yaml", "apply -f -", Input::File("app.yaml".into()), false)]
    #[case("apply -fapp.yaml", "apply -f-", Input::File("app.yaml".into()), false)]
    #[case("apply -f=app.yaml", "apply -f-", Input::File("app.yaml".into()), false)]
    #[case("delete --filename=/srv/other.yaml", "delete --filename=-", Input::File("/srv/other.yaml".into()), false)]
    #[case("apply --filename app.yaml -n x", "apply --filename - -n x", Input::File("app.yaml".into()), false)]
    #[case("apply -f /etc/there.yaml", "apply -f /etc/there.yaml", Input::None, false)]
    #[case("apply -f https://a.b/c.yaml", "apply -f https://a.b/c.yaml", Input::None, false)]
    #[case("apply -f -", "apply -f -", Input::Standard, false)]
    #[case(
        "create configmap c --from-file=k=/dev/stdin",
        "create configmap c --from-file=k=/dev/stdin",
        Input::Standard,
        false
    )]
    #[case("-n x logs -f app.yaml", "-n x logs -f app.yaml", Input::None, false)]
    #[case("exec -it pod -- cat -f app.yaml", "exec -it pod -- cat -f app.yaml", Input::Standard, true)]
    #[case("exec -i pod -- sh", "exec -i pod -- sh", Input::Standard, false)]
    #[case("exec pod -- sh -it", "exec pod -- sh -it", Input::None, false)]
    #[case("-n a run x --stdin --tty --image=b", "-n a run x --stdin --tty --image=b", Input::Standard, true)]
    #[case("edit deployment x", "edit deployment x", Input::None, true)]
    #[case("get pods -t", "get pods -t", Input::None, false)]
    fn files_of_this_machine_go_as_input(
        #[case] typed: &str,
        #[case] there: &str,
        #[case] input: Input,
        #[case] terminal: bool,
    ) {
        let invocation = Invocation::of(&split(typed), &here).unwrap();
        assert_eq!(invocation, Invocation { arguments: split(there), input, terminal });
    }

    #[rstest]
    #[case("apply -f manifests", "is a folder")]
    #[case("apply -f app.yaml -f /srv/other.yaml", "only one file")]
    #[case("apply -f app.yaml,/srv/other.yaml", "only one file")]
    #[case("apply -f - -f app.yaml", "only one file")]
    #[case("apply -k manifests", "-k names manifests")]
    #[case("create secret generic s --from-file=token", "--from-file names token")]
    #[case("create secret generic s --from-file key=token", "--from-file names token")]
    #[case("port-forward pod/x 8080", "own ports and files")]
    #[case("-n cp cp a x:/b", "own ports and files")]
    fn what_cannot_work_there_is_refused(#[case] typed: &str, #[case] expected: &str) {
        let failure = Invocation::of(&split(typed), &here).unwrap_err();
        assert!(failure.kind == Kind::Usage && failure.sentence.contains(expected), "{failure}");
        assert!(failure.advice.is_some());
    }

    #[rstest]
    #[case("get nodes", Some("get"))]
    #[case("-n exec get pods", Some("get"))]
    #[case("--context=x -v 6 logs x", Some("logs"))]
    #[case("--help", None)]
    #[case("-- x", None)]
    fn the_verb_is_no_option_nor_a_value_of_one(#[case] line: &str, #[case] expected: Option<&str>) {
        assert_eq!(verb(&split(line)), expected);
    }
}
