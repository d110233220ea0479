//! A command of a person on a host, over a plain channel: no agent, nothing is left behind.

use std::time::Duration;

use bytes::Bytes;

use super::privilege::{Privilege, SKIP_HELLO};
use super::quote::quote;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Channel, Chunk, Connection};

/// What a command as root says on standard error once it is root.
const BEGUN: &str = "clusterctl-command-begins\n";

/// sudo and doas may say this much before, in bytes.
const MAXIMUM_TALK_BYTES: usize = 64 << 10;

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
        if !self.root || privilege.way == crate::inventory::Become::None {
            return Ok(Begun { channel: connection.exec(&self.line()).await?, first: Vec::new() });
        }
        let script = format!("{SKIP_HELLO}unset LC_ALL; printf {} >&2; exec \"$@\"", BEGUN.replace('\n', "\\\\n"));
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
        let mut channel = privilege.start(connection, script, &self.arguments()).await?;
        let mut talk = Vec::new();
        let mut first = Vec::new();
        loop {
            let refused = |talk: &[u8]| privilege.refused(talk).map(|failure| failure.on(connection.host()));
            match channel.recv().await? {
                // A greeting of the login shell.
                Some(chunk @ Chunk::Stdout(_)) if talk.len() < MAXIMUM_TALK_BYTES => first.push(chunk),
                Some(Chunk::Stderr(bytes)) if talk.len() < MAXIMUM_TALK_BYTES => talk.extend_from_slice(&bytes),
                Some(Chunk::Stdout(_) | Chunk::Stderr(_)) => {
                    return Err(Failure::new(Kind::Host, "its login shell prints without end").on(connection.host()));
                }
                Some(Chunk::Exit(_)) | None if privilege.turns_to_terminal(&talk) => return Ok(None),
                Some(Chunk::Exit(_)) | None => {
                    let said = String::from_utf8_lossy(&talk).trim().to_owned();
                    return Err(refused(&talk)
                        .or_else(|| privilege.missing(&said))
                        .unwrap_or_else(|| {
                            Failure::new(Kind::Privilege, "the login user could not become root").detailed(said)
                        })
                        .on(connection.host()));
                }
            }
            if let Some(at) = find(&talk, BEGUN.as_bytes()) {
                let rest = talk.split_off(at + BEGUN.len());
                if !rest.is_empty() {
                    first.push(Chunk::Stderr(Bytes::from(rest)));
                }
                return Ok(Some(Begun { channel, first }));
            }
            if let Some(failure) = refused(&talk) {
                return Err(failure);
            }
        }
    }
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

/// Ends what a connection has started on its host: first as Ctrl-C does, then for good.
///
/// # Errors
/// [`Kind::Connection`] when the host cannot be told.
pub async fn interrupt(connection: &Connection, command: &Command, privilege: &Privilege, signal: &str) -> Result<()> {
    let script = SIGNAL.replace("SIGNAL", signal);
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

    use super::Command;

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
}
