//! A command of a person on a host, over a plain channel: no agent, nothing is left behind.

use std::time::Duration;

use bytes::Bytes;

use super::privilege::Privilege;
use super::quote::quote;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Become;
use crate::ssh::{Channel, Chunk, Connection};

/// What a script says on standard error, with its process and what the kernel says of that, before it becomes the command.
const BEGUN: &str = "clusterctl-command-begins ";
/// Says so. Where nobody listens any more, the command does not begin: its run was ended while it became root.
const BEGIN: &str = r#"read -r stat </proc/$$/stat; echo clusterctl-command-begins $$ ${stat##*) } >&2 && exec "$@""#;

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
    /// Whether nothing else runs over its connection: then its processes are found by that, and need not tell.
    pub alone: bool,
}

/// A command under way.
#[derive(Debug)]
pub struct Begun {
    /// Its channel.
    pub channel: Channel,
    /// What was read of its output already.
    pub first: Vec<Chunk>,
    /// Its session on the host, where it told.
    pub session: Option<u32>,
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
            if self.alone && connection.finds_its_commands() {
                let channel = connection.exec(&self.line()).await?;
                return Ok(Begun { channel, first: Vec::new(), session: None });
            }
            let user = Privilege::new(Become::None, None);
            let channel = connection.exec(&Privilege::bare_command(BEGIN, &self.arguments())).await?;
            return begun(channel, connection, &user)
                .await?
                .ok_or_else(|| could_not(String::new()).on(connection.host()));
        }
        let script = format!("unset LC_ALL; {BEGIN}");
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
        if let Some((session, rest)) = session(&talk) {
            if !rest.is_empty() {
                first.push(Chunk::Stderr(Bytes::copy_from_slice(rest)));
            }
            return Ok(Some(Begun { channel, first, session: Some(session) }));
        }
        if let Some(failure) = refused(&talk) {
            return Err(failure);
        }
    }
}

/// The session of the process that said that it becomes the command, and what was said after. Where the kernel says nothing,
/// the process leads its session, as sshd starts it.
fn session(talk: &[u8]) -> Option<(u32, &[u8])> {
    let after = talk.get(find(talk, BEGUN.as_bytes())? + BEGUN.len()..)?;
    let end = after.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&after[..end]).ok()?.split_whitespace();
    let process = words.next()?.parse().ok()?;
    // State, parent, process group, session.
    let session = words.nth(3).and_then(|word| word.parse().ok()).unwrap_or(process);
    Some((session, &after[end + 1..]))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Sends a signal (`0`: none) to every process in some sessions, and says how many there are and which sessions these were.
///
/// Where none is named they are looked for: sshd puts each command into a session of its own whose leader is its child, and
/// the script knows sshd as the parent of its own leader. Of a leader that has ended its processes tell by the connection in
/// their environment. A whole session it is, not the leader's process group: what a shell sends into the background ignores
/// SIGINT and outlives its shell, and `timeout` makes a group of its own. (A signal asked for by the SSH protocol reaches no
/// process of another user, and is refused by sshd before 9.8 where the login user is root.)
const SIGNAL: &str = concat!(
    r#"signal=$1; shift; wanted=" $* "; "#,
    r#"look() { read -r stat 2>/dev/null <"$1" || return 1; stat=${stat##*) }; }; "#,
    r#"look /proc/$$/stat; set -- $stat; own=$4; "#,
    r#"if [ "$wanted" = "  " ]; then "#,
    r#"wanted=" "; look /proc/$own/stat; set -- $stat; sshd=$2; "#,
    r#"for file in /proc/[0-9]*/stat; do "#,
    r#"look $file || continue; set -- $stat; process=${file#/proc/}; process=${process%/stat}; "#,
    r#"[ "$2" = "$sshd" ] && [ "$4" = "$process" ] && [ "$process" != "$own" ] && wanted="$wanted$process "; "#,
    r#"done; "#,
    r#"if [ "$wanted" = " " ] && [ -n "$SSH_CONNECTION" ]; then "#,
    r#"for file in $(grep -lsF "SSH_CONNECTION=$SSH_CONNECTION" /proc/[0-9]*/environ); do "#,
    r#"look ${file%environ}stat || continue; set -- $stat; "#,
    r#"[ "$4" != "$own" ] && [ ! -e "/proc/$4" ] && wanted="$wanted$4 "; "#,
    r#"done; "#,
    r#"fi; "#,
    r#"fi; "#,
    r#"count=0; "#,
    r#"for file in /proc/[0-9]*/stat; do "#,
    r#"look $file || continue; set -- $stat; "#,
    r#"case $1 in Z|X) continue;; esac; "#,
    r#"case $wanted in *" $4 "*) ;; *) continue;; esac; "#,
    r#"process=${file#/proc/}; process=${process%/stat}; count=$((count+1)); "#,
    r#"[ "$signal" = 0 ] || kill -s "$signal" "$process" 2>/dev/null; "#,
    r#"done; "#,
    r#"echo "clusterctl-signalled $count$wanted""#,
);

/// Begins what [`SIGNAL`] says.
const SIGNALLED: &str = "clusterctl-signalled ";

/// What a command has started on its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The sessions its processes are in; none as long as nobody looked.
    pub sessions: Vec<u32>,
    /// How many processes there were in them.
    pub processes: usize,
}

/// What [`SIGNAL`] said, among greetings of the login shell.
fn started(said: &[u8]) -> Option<Started> {
    let text = String::from_utf8_lossy(said);
    let mut words = text.lines().find_map(|line| line.trim().strip_prefix(SIGNALLED))?.split_whitespace();
    let processes = words.next()?.parse().ok()?;
    Some(Started { sessions: words.map(str::parse).collect::<std::result::Result<_, _>>().ok()?, processes })
}

/// Sends a signal to all that a command has started on its host, or only counts it where the signal is `0`. Where no
/// session is known yet it is looked for which there are.
///
/// # Errors
/// [`Kind::Connection`] when the host cannot be told.
pub async fn interrupt(
    connection: &Connection,
    root: bool,
    sessions: &[u32],
    privilege: &Privilege,
    signal: &str,
) -> Result<Started> {
    let mut words: Vec<String> = ["sh", "-c", SIGNAL, "sh", signal].map(str::to_owned).to_vec();
    words.extend(sessions.iter().map(u32::to_string));
    let order = Command { words, root, alone: true };
    let work = async {
        let mut begun = order.start(connection, privilege).await?;
        begun.channel.finish().await?;
        let mut said = Vec::new();
        let mut hear = |chunk: &Chunk| match chunk {
            Chunk::Stdout(bytes) if said.len() < MAXIMUM_GREETING_BYTES => said.extend_from_slice(bytes),
            _ => {}
        };
        begun.first.iter().for_each(&mut hear);
        while let Some(chunk) = begun.channel.recv().await? {
            hear(&chunk);
        }
        started(&said).ok_or_else(|| {
            Failure::new(Kind::Host, "it does not say which processes the command has started").on(connection.host())
        })
    };
    tokio::time::timeout(END_LIMIT, work).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Connection, "the host cannot be told to end the command").on(connection.host()))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Command, Started, session, started};

    fn command(words: &[&str]) -> Command {
        Command { words: words.iter().map(|word| (*word).to_owned()).collect(), root: false, alone: true }
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
    fn a_command_tells_its_session_before_it_says_anything_else() {
        let said = b"greeting\nclusterctl-command-begins 42 S 7 42 40 0 -1\noops";
        assert_eq!(session(said), Some((40, &b"oops"[..])));
        assert_eq!(session(b"clusterctl-command-begins 42\n"), Some((42, &b""[..])));
        assert_eq!(session(b"clusterctl-command-begins 4"), None);
        assert_eq!(session(b"clusterctl-command-begins x\n"), None);
    }

    #[test]
    fn what_was_signalled_is_read_among_greetings() {
        let expected = Started { sessions: vec![12, 13], processes: 3 };
        assert_eq!(started(b"hello\nclusterctl-signalled 3 12 13 \r\n"), Some(expected));
        assert_eq!(started(b"clusterctl-signalled 0 \n"), Some(Started { sessions: vec![], processes: 0 }));
        assert_eq!(started(b"hello\n"), None);
    }

    /// The script itself, on this machine: children that ignore SIGINT or have a process group of their own are found by
    /// their session, and those of other sessions are left alone.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the script is judged by a shell itself")]
    fn a_signal_reaches_all_of_a_session_and_nothing_else() {
        let ran = |words: &[&str]| {
            let words: Vec<&str> = ["-c", super::SIGNAL, "sh"].iter().chain(words).copied().collect();
            let ran = std::process::Command::new("sh").args(words).output().unwrap();
            started(&ran.stdout).expect("it says what it did")
        };
        let line = "trap '' INT; tail -f /dev/null & timeout 60 tail -f /dev/null & echo; wait";
        let mut session = std::process::Command::new("setsid")
            .args(["sh", "-c", line])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let leader = session.id().to_string();
        let mut line = [0];
        std::io::Read::read_exact(session.stdout.as_mut().unwrap(), &mut line).unwrap();
        let mut seen = ran(&["0", &leader]);
        while seen.processes < 4 {
            seen = ran(&["0", &leader]);
        }
        assert_eq!(seen.sessions, [session.id()]);
        assert_eq!(ran(&["0", "1999999999"]).processes, 0);
        ran(&["KILL", &leader]);
        session.wait().unwrap();
        while ran(&["0", &leader]).processes > 0 {}
    }
}
