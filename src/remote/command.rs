//! A command of a person on a host, over a plain channel: no agent, nothing is left behind.

use std::time::Duration;

use bytes::Bytes;

use super::privilege::{Privilege, SKIP_HELLO};
use super::quote::quote;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Become;
use crate::ssh::{Channel, Chunk, Connection};

/// What a script says on standard error, with its process id, before it becomes the command.
const BEGUN: &str = "clusterctl-command-begins ";
/// Says so.
const BEGIN: &str = "echo clusterctl-command-begins $$ >&2; exec \"$@\"";

/// sudo and doas may say this much before, in bytes.
const MAXIMUM_TALK_BYTES: usize = 64 << 10;

/// A login shell may greet with this much, in bytes.
const MAXIMUM_GREETING_BYTES: usize = 1 << 20;

/// How long the processes of a command may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// One word is a line for the user's login shell, as `ssh` hands it over; several are a program with its arguments,
    /// which it gets as they are.
    pub words: Vec<String>,
    /// Whether it runs as root.
    pub root: bool,
}

/// A command under way.
#[derive(Debug)]
pub struct Begun {
    /// Its channel.
    pub channel: Channel,
    /// What was read of its output already.
    pub first: Vec<Chunk>,
    /// Its process on the host, where it told.
    pub process: Option<u32>,
}

impl Command {
    /// The line for the login shell of a user who need not become anybody else.
    fn line(&self) -> String {
        match self.words.as_slice() {
            [line] => line.clone(),
            words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
        }
    }

    /// The words for `exec` of a shell that is root already.
    fn arguments(&self) -> Vec<&str> {
        match self.words.as_slice() {
            [line] => vec!["sh", "-c", line],
            words => words.iter().map(String::as_str).collect(),
        }
    }

    /// Starts it; as root it returns when it is root.
    ///
    /// # Errors
    /// [`Kind::Connection`]; [`Kind::Privilege`] where the user may not become root. Both name the host.
    pub async fn start(&self, connection: &Connection, privilege: &Privilege) -> Result<Begun> {
        if !self.root || privilege.way == Become::None {
            if connection.finds_its_commands() {
                let channel = connection.exec(&self.line()).await?;
                return Ok(Begun { channel, first: Vec::new(), process: None });
            }
            let user = Privilege::new(Become::None, None);
            let channel = connection.exec(&Privilege::bare_command(BEGIN, &self.arguments())).await?;
            return begun(channel, connection, &user)
                .await?
                .ok_or_else(|| could_not(String::new()).on(connection.host()));
        }
        let script = format!("{SKIP_HELLO}unset LC_ALL; {BEGIN}");
        match self.become_root(connection, privilege, &script).await? {
            Some(begun) => Ok(begun),
            // It takes a terminal.
            None => self.become_root(connection, privilege, &script).await?.ok_or_else(|| {
                Failure::new(Kind::Privilege, "it asks for a terminal on the terminal").on(connection.host())
            }),
        }
    }

    /// Starts a script as root; `None` when it has to be tried again, on a terminal.
    async fn become_root(&self, connection: &Connection, privilege: &Privilege, script: &str) -> Result<Option<Begun>> {
        let channel = privilege.start(connection, script, &self.arguments()).await?;
        begun(channel, connection, privilege).await
    }
}

fn could_not(said: String) -> Failure {
    let failure = Failure::new(Kind::Privilege, "the login user could not become root");
    if said.is_empty() { failure } else { failure.detailed(said) }
}

/// Waits until a script says that it becomes the command; `None` where it wants a terminal first.
async fn begun(mut channel: Channel, connection: &Connection, privilege: &Privilege) -> Result<Option<Begun>> {
    let mut talk = Vec::new();
    let (mut first, mut greeted) = (Vec::new(), 0);
    loop {
        let refused = |talk: &[u8]| privilege.refused(talk).map(|failure| failure.on(connection.host()));
        match channel.recv().await? {
            // A greeting of the login shell.
            Some(Chunk::Stdout(bytes)) if greeted < MAXIMUM_GREETING_BYTES => {
                greeted += bytes.len();
                first.push(Chunk::Stdout(bytes));
            }
            Some(Chunk::Stderr(bytes)) if talk.len() < MAXIMUM_TALK_BYTES => talk.extend_from_slice(&bytes),
            Some(Chunk::Stdout(_) | Chunk::Stderr(_)) => {
                return Err(Failure::new(Kind::Host, "its login shell prints without end").on(connection.host()));
            }
            Some(Chunk::Exit(_)) | None if privilege.turns_to_terminal(&talk) => return Ok(None),
            Some(Chunk::Exit(_)) | None => {
                let said = privilege.said(&talk);
                let failure = refused(&talk).or_else(|| privilege.missing(&said));
                return Err(failure.unwrap_or_else(|| could_not(said)).on(connection.host()));
            }
        }
        if let Some((process, rest)) = process(&talk) {
            if !rest.is_empty() {
                first.push(Chunk::Stderr(Bytes::copy_from_slice(rest)));
            }
            return Ok(Some(Begun { channel, first, process: Some(process) }));
        }
        if let Some(failure) = refused(&talk) {
            return Err(failure);
        }
    }
}

/// The process that said that it becomes the command, and what was said after.
fn process(talk: &[u8]) -> Option<(u32, &[u8])> {
    let after = talk.get(find(talk, BEGUN.as_bytes())? + BEGUN.len()..)?;
    let end = after.iter().position(|byte| *byte == b'\n')?;
    let process = std::str::from_utf8(&after[..end]).ok()?.trim().parse().ok()?;
    Some((process, &after[end + 1..]))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Sends a signal to every process that this connection has started on the host and that is still there.
///
/// sshd puts each command into a session of its own whose leader is its child; the script looks for the leaders whose
/// parent is that of its own leader. (A signal asked for by the SSH protocol reaches no process of another user, and is
/// refused by sshd before 9.8 where the login user is root.)
const SIGNAL: &str = r#"read -r s </proc/$$/stat; set -- ${s##*) }; mine=$4; read -r s </proc/$mine/stat; set -- ${s##*) }; sshd=$2; for f in /proc/[0-9]*/stat; do read -r s 2>/dev/null <$f || continue; set -- ${s##*) }; [ "$2" = $sshd ] && [ "$4" != $mine ] && kill -s SIGNAL -- -$3 2>/dev/null; done; exit 0"#;

/// Sends a signal to the processes of the command that told its process.
const SIGNAL_ONE: &str =
    r#"read -r s </proc/PROCESS/stat && set -- ${s##*) } && kill -s SIGNAL -- -$3 2>/dev/null; exit 0"#;

/// Sends a signal to what a command has started on its host.
///
/// # Errors
/// [`Kind::Connection`] when the host cannot be told.
pub async fn interrupt(
    connection: &Connection,
    command: &Command,
    process: Option<u32>,
    privilege: &Privilege,
    signal: &str,
) -> Result<()> {
    let script = match process {
        Some(process) => SIGNAL_ONE.replace("PROCESS", &process.to_string()).replace("SIGNAL", signal),
        None => SIGNAL.replace("SIGNAL", signal),
    };
    let words = vec!["sh".to_owned(), "-c".to_owned(), script];
    let order = Command { words, root: command.root };
    let work = async {
        let mut begun = order.start(connection, privilege).await?;
        begun.channel.finish().await?;
        while begun.channel.recv().await?.is_some() {}
        Ok(())
    };
    tokio::time::timeout(END_LIMIT, work).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Connection, "the host cannot be told to end the command").on(connection.host()))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Command, process};

    fn command(words: &[&str]) -> Command {
        Command { words: words.iter().map(|word| (*word).to_owned()).collect(), root: false }
    }

    #[rstest]
    #[case(&["ps ax | wc -l"], "ps ax | wc -l")]
    #[case(&["echo", "a b", "$HOME"], "echo 'a b' '$HOME'")]
    fn one_word_is_a_line_and_several_are_arguments(#[case] words: &[&str], #[case] line: &str) {
        assert_eq!(command(words).line(), line);
    }

    #[test]
    fn root_gets_a_shell_for_a_line() {
        assert_eq!(command(&["id | cat"]).arguments(), ["sh", "-c", "id | cat"]);
        assert_eq!(command(&["id", "-u"]).arguments(), ["id", "-u"]);
    }

    #[test]
    fn a_command_tells_its_process_before_it_says_anything_else() {
        assert_eq!(process(b"greeting\nclusterctl-command-begins 42\noops"), Some((42, &b"oops"[..])));
        assert_eq!(process(b"clusterctl-command-begins 4"), None);
        assert_eq!(process(b"clusterctl-command-begins x\n"), None);
    }
}
