//! Becoming root where sudo or doas insists on a terminal (`requiretty`, a doas that asks for a password).
//!
//! Bytes do not survive a terminal, and it knows no end of input. So the terminal is for the talk alone: the program
//! that became root there meets us at three named pipes, and what we send and receive goes through them and a plain
//! channel, as it does everywhere else.

use super::privilege::Privilege;
use super::quote::quote;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Channel, Chunk, Connection, Exit, Reader, Terminal, Writer};

/// Begins the line that names the folder with the pipes.
const MEETS: &str = "clusterctl-meets ";
/// What the program says on the terminal once it is root.
pub(super) const ROOT: &str = "clusterctl-is-root";
/// What may be said before, in bytes.
const MAXIMUM_TALK_BYTES: usize = 64 << 10;

/// Makes the pipes in the first folder that takes them and stands in between: standard input, output and error here are
/// those of the program there, and so is the status at the end.
const MEET: &str = r#"umask 077; d=; for p in "$XDG_RUNTIME_DIR" /dev/shm /tmp /var/tmp "$HOME"; do if [ -n "$p" ]; then d=$(mktemp -d "$p/clusterctl-XXXXXXXXXX" 2>/dev/null) && mkfifo "$d/in" "$d/out" "$d/err" 2>/dev/null && break; d=; fi; done; [ -n "$d" ] || { echo no folder takes named pipes >&2; exit 75; }; echo "clusterctl-meets $d"; exec 3<&0; cat "$d/err" >&2 3<&- & e=$!; cat "$d/out" 3<&- & o=$!; cat <&3 >"$d/in" & i=$!; exec 3<&-; wait $o $e; kill $i 2>/dev/null; s=1; read -r s 2>/dev/null <"$d/status"; rm -rf "$d"; exit $s"#;

/// Frees whoever waits at the pipes, and takes them away.
const PART: &str = r#"exec 3<>"$1/in" 4<>"$1/out" 5<>"$1/err"; echo 1 >"$1/status"; exec 3<&- 4<&- 5<&-; rm -f "$1/in" "$1/out" "$1/err""#;

/// What was said on standard output until now, up to a line that is wanted.
async fn meeting_place(connection: &Connection, reader: &mut Reader) -> Result<String> {
    let mut text = String::new();
    loop {
        let named = text.lines().find_map(|line| line.trim_end().strip_prefix(MEETS));
        if let Some(folder) = named.filter(|_| text.ends_with('\n')) {
            // It goes into a command.
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
            if folder.starts_with('/') && folder.chars().all(plain) {
                return Ok(folder.to_owned());
            }
            return Err(Failure::new(Kind::Host, "its folder for named pipes has an odd name").on(connection.host()));
        }
        match reader.recv().await? {
            Some(Chunk::Stdout(bytes)) if text.len() < MAXIMUM_TALK_BYTES => {
                text.push_str(&String::from_utf8_lossy(&bytes))
            }
            Some(Chunk::Stderr(_)) => {}
            Some(Chunk::Stdout(_)) => {
                return Err(Failure::new(Kind::Host, "its login shell prints without end").on(connection.host()));
            }
            Some(Chunk::Exit(_)) | None => {
                return Err(Failure::new(
                    Kind::Host,
                    "it has no folder for named pipes, which a terminal needs beside it",
                )
                .on(connection.host())
                .detailed(reader.stderr_tail())
                .advise("free some space in /tmp or in the login user's home folder"));
            }
        }
    }
}

/// Runs a script as root by way of a terminal; its plain channel, once it is root.
///
/// # Errors
/// [`Kind::Privilege`] when the user may not become root or the password is wrong; [`Kind::Host`] where no folder takes
/// named pipes; [`Kind::Connection`].
pub(super) async fn start(
    connection: &Connection,
    privilege: &Privilege,
    script: &str,
    words: &[&str],
) -> Result<Channel> {
    let channel = connection.exec(&format!("sh -c {}", quote(MEET))).await?;
    let (writer, mut reader) = channel.split();
    let folder = meeting_place(connection, &mut reader).await?;
    let script = format!(
        r#"echo {ROOT}; {{ ( {script} ); echo $? >{folder}/status; }} <{folder}/in >{folder}/out 2>{folder}/err"#
    );
    let command = privilege.command_on_terminal(&script, words);
    let talked = async {
        let terminal = connection.terminal(&Terminal::default(), Some(&command)).await?;
        let (mut keys, mut screen) = terminal.split();
        talk(&mut keys, &mut screen, privilege).await?;
        Ok((keys, screen))
    };
    match talked.await {
        Ok((keys, screen)) => {
            let channel = Channel::join(writer, reader);
            channel.keep_open(Channel::join(keys, screen));
            Ok(channel)
        }
        Err(failure) => {
            let failure: Failure = failure;
            let parting = format!("sh -c {} sh {}", quote(PART), quote(&folder));
            let _ = connection.run(&parting, bytes::Bytes::new(), std::time::Duration::from_secs(10)).await;
            Err(failure.on(connection.host()))
        }
    }
}

/// Answers the one question that may be asked, until the program is root.
async fn talk(keys: &mut Writer, screen: &mut Reader, privilege: &Privilege) -> Result<()> {
    let mut said = Vec::new();
    let mut answered = false;
    loop {
        let text = String::from_utf8_lossy(&said);
        if text.contains(ROOT) {
            return Ok(());
        }
        if let Some(failure) = privilege.refused(&said) {
            return Err(failure);
        }
        if !answered && Privilege::asks(&text) {
            let Some(answer) = privilege.answer() else { return Err(privilege.nothing_to_answer()) };
            keys.send(answer).await?;
            answered = true;
        }
        match screen.recv().await? {
            Some(Chunk::Stdout(bytes) | Chunk::Stderr(bytes)) if said.len() < MAXIMUM_TALK_BYTES => {
                said.extend_from_slice(&bytes);
            }
            Some(Chunk::Exit(Exit::Status(_) | Exit::Signal(_))) | None => {
                let text = privilege.said(&said);
                return Err(privilege.missing(&text).unwrap_or_else(|| {
                    Failure::new(Kind::Privilege, "the login user could not become root on a terminal").detailed(text)
                }));
            }
            Some(_) => return Err(Failure::new(Kind::Host, "its login shell prints without end")),
        }
    }
}
