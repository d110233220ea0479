//! How a program on a host becomes root: what is run there, what is sent first, what a refusal looks like.
//!
//! sudo's password goes to standard input, on a line of its own before [`BEGIN`]; a sudo that asked for none leaves the line
//! to the script, which drops it. sudo takes each line for another password until one is right, and each wrong one is a
//! failed login in the host's record (pam_faillock): so nothing follows a password until the script says that it is root,
//! and where there is no password sudo is told to ask for none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::quote::quote;
use super::terminal::{self, ROOT};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Become;
use crate::secret::Secret;
use crate::ssh::{Channel, Chunk, Connection};

/// What sudo prints on standard error when it wants a password.
const PROMPT: &str = "clusterctl-sudo-password:";

/// The line that follows a password.
const BEGIN: &str = "clusterctl-messages-begin";

/// A login shell and sudo may say this much before the script does, in bytes.
const MAXIMUM_TALK_BYTES: usize = 1 << 20;

/// The beginning of a script before which a password is sent: drops what comes before [`BEGIN`]. (Where none is sent, nothing is
/// waited for: that would be one more round trip.)
const SKIP_HELLO: &str = r#"while IFS= read -r line; do [ "$line" = clusterctl-messages-begin ] && break; done; "#;

/// How to become root on a host.
#[derive(Debug, Clone)]
pub struct Privilege {
    /// The way.
    pub way: Become,
    /// The password for it, if it is known.
    pub password: Option<Secret>,
    /// Whether the host has shown that it takes a terminal.
    by_terminal: Arc<AtomicBool>,
}

impl Privilege {
    /// A way and the password for it, if it is known.
    pub fn new(way: Become, password: Option<Secret>) -> Self {
        Self { way, password, by_terminal: Arc::default() }
    }

    /// Starts a POSIX script as root, which has yet to say so; see [`Privilege::refused`].
    ///
    /// # Errors
    /// [`Kind::Connection`]; where the host takes a terminal also [`Kind::Privilege`].
    pub(super) async fn start(&self, connection: &Connection, script: &str, words: &[&str]) -> Result<Channel> {
        if self.by_terminal.load(Ordering::Acquire) {
            return terminal::start(connection, self, script, words).await;
        }
        let mut channel = connection.exec(&self.command(script, words)).await?;
        if let Some(password) = self.answer().filter(|_| self.sends_password()) {
            channel.send(password).await?;
            if self.becomes_root(&mut channel).await.map_err(|failure| failure.on(connection.host()))? {
                channel.send(Bytes::from(format!("{BEGIN}\n"))).await?;
            }
        }
        Ok(channel)
    }

    /// Whether the script says that it is root before its command ends. What was said on standard output, and why it
    /// ended, is left to the next reader.
    async fn becomes_root(&self, channel: &mut Channel) -> Result<bool> {
        let (mut read, mut talk) = (Vec::new(), Vec::new());
        let mut said = 0;
        let is_root = loop {
            let chunk = channel.recv().await?;
            said += match &chunk {
                Some(Chunk::Stdout(bytes) | Chunk::Stderr(bytes)) => bytes.len(),
                Some(Chunk::Exit(_)) | None => 0,
            };
            if said > MAXIMUM_TALK_BYTES {
                return Err(Failure::new(Kind::Host, "its login shell prints without end"));
            }
            match chunk {
                Some(Chunk::Stderr(bytes)) => talk.extend_from_slice(&bytes),
                Some(Chunk::Stdout(bytes)) => read.push(Chunk::Stdout(bytes)),
                ended => {
                    read.push(Chunk::Stderr(Bytes::from(talk)));
                    read.extend(ended);
                    break false;
                }
            }
            if let Some(rest) = after_root(&talk) {
                read.push(Chunk::Stderr(Bytes::copy_from_slice(rest)));
                break true;
            }
            if let Some(failure) = self.refused(&talk) {
                // At the end of its input sudo fails once more before it gives up; at its question it is still the user's.
                channel.kill().await;
                return Err(failure);
            }
        };
        channel.give_back(read);
        Ok(is_root)
    }

    /// Whether to start again because what was said on standard error asks for a terminal, which is given from now on.
    pub(super) fn turns_to_terminal(&self, stderr: &[u8]) -> bool {
        self.wants_terminal(stderr) && !self.by_terminal.swap(true, Ordering::AcqRel)
    }

    /// Whether the end of what stands on a terminal is a question for the password.
    pub(super) fn asks(screen: &str) -> bool {
        let end = screen.trim_end();
        end.ends_with(PROMPT) || (end.ends_with(':') && end.to_ascii_lowercase().ends_with("password:"))
    }

    /// What to type then.
    pub(super) fn answer(&self) -> Option<Bytes> {
        self.password.as_ref().map(|password| Bytes::from(format!("{}\n", password.expose())))
    }

    /// What was said, without the password: a terminal may show what is typed.
    pub(super) fn said(&self, talk: &[u8]) -> String {
        let text = String::from_utf8_lossy(talk).trim().to_owned();
        match self.password.as_ref().map(Secret::expose).filter(|password| !password.is_empty()) {
            Some(password) => text.replace(password, "***"),
            None => text,
        }
    }

    /// The failure of a question that cannot be answered.
    pub(super) fn nothing_to_answer(&self) -> Failure {
        Failure::new(Kind::Privilege, format!("{} asks for a password and there is none", self.name()))
            .advise("set `ssh.become_password` (ask, file or command), or run with --ask-become-password")
    }

    /// The command for a login shell that runs a POSIX script as root, with these words as its arguments. Messages of
    /// programs come in English.
    fn command(&self, script: &str, words: &[&str]) -> String {
        match self.sends_password() {
            true => self.command_reading("-S ", &format!("echo {ROOT} >&2; {SKIP_HELLO}{script}"), words),
            false => self.command_reading("", script, words),
        }
    }

    /// Whether a script is started in one go, without any talk before it. Of doas nobody knows before it has refused, which the
    /// host may count as a failed login.
    pub(super) fn starts_at_once(&self) -> bool {
        !self.sends_password() && self.way != Become::Doas && !self.by_terminal.load(Ordering::Acquire)
    }

    /// Whether a password is sent on standard input. doas asks on a terminal alone.
    fn sends_password(&self) -> bool {
        self.way == Become::Sudo && self.password.is_some()
    }

    /// As [`Privilege::command`], for the user who logged in and in the user's own language.
    pub(super) fn bare_command(script: &str, words: &[&str]) -> String {
        let words: Vec<String> = [script, "sh"].iter().chain(words).map(|word| quote(word)).collect();
        format!("sh -c {}", words.join(" "))
    }

    /// As [`Privilege::command`], where the password is typed on a terminal.
    pub(super) fn command_on_terminal(&self, script: &str, words: &[&str]) -> String {
        self.command_reading("", script, words)
    }

    fn command_reading(&self, input: &str, script: &str, words: &[&str]) -> String {
        let mut command = match (self.way, &self.password) {
            (Become::None, _) => "env LC_ALL=C sh -c ".to_owned(),
            (Become::Sudo, Some(_)) => format!("env LC_ALL=C sudo {input}-p {PROMPT} sh -c "),
            (Become::Sudo, None) => "env LC_ALL=C sudo -n sh -c ".to_owned(),
            (Become::Doas, _) => "env LC_ALL=C doas sh -c ".to_owned(),
        };
        command.push_str(&quote(script));
        if !words.is_empty() {
            command.push_str(" sh");
        }
        for word in words {
            command.push(' ');
            command.push_str(&quote(word));
        }
        command
    }

    /// Whether what was said on standard error is a refusal, and why.
    pub(super) fn refused(&self, stderr: &[u8]) -> Option<Failure> {
        let said = String::from_utf8_lossy(stderr);
        let has = |words: &str| said.contains(words);
        let name = self.name();
        if has("is not in the sudoers file") || has("is not allowed to execute") || has("may not run sudo") {
            return Some(
                Failure::new(Kind::Privilege, "the login user has no right to use sudo")
                    .advise("give the user sudo rights on the host, or set another `ssh.user`"),
            );
        }
        if has("doas: Operation not permitted") {
            return Some(
                Failure::new(Kind::Privilege, "the login user has no right to use doas")
                    .advise("permit the user in the host's doas.conf, or set another `ssh.user`"),
            );
        }
        let asked = said.matches(PROMPT).count();
        // Without a terminal doas says the same of a password that it could not ask for.
        let failed_on_terminal = has("doas: Authentication failed") && self.by_terminal.load(Ordering::Acquire);
        if self.password.is_none() && (asked > 0 || has("sudo: a password is required")) {
            return Some(self.nothing_to_answer());
        }
        if asked > 1 || has("Sorry, try again") || has("incorrect password") || failed_on_terminal {
            return Some(
                Failure::new(Kind::Privilege, format!("{name} does not accept the password"))
                    .advise("check `ssh.become_password`; nothing was changed on the host"),
            );
        }
        None
    }

    /// Whether what was said means that sudo or doas is not there.
    pub(super) fn missing(&self, said: &str) -> Option<Failure> {
        let name = self.name();
        let marks = [": not found", ": command not found", "’: No such file", "': No such file"];
        let missing = self.way != Become::None && marks.iter().any(|mark| said.contains(&format!("{name}{mark}")));
        missing.then(|| {
            Failure::new(Kind::Privilege, format!("{name} is not installed there"))
                .advise(format!("install {name}, set another `ssh.become`, or log in as root with `become: none`"))
        })
    }

    /// Whether what was said means that the program wants to talk on a terminal.
    fn wants_terminal(&self, stderr: &[u8]) -> bool {
        let said = String::from_utf8_lossy(stderr);
        match self.way {
            Become::None => false,
            Become::Sudo => said.contains("you must have a tty"),
            Become::Doas => ["a tty is required", "Authentication required", "Authentication failed"]
                .iter()
                .any(|words| said.contains(words)),
        }
    }

    fn name(&self) -> &'static str {
        match self.way {
            Become::None => "sh",
            Become::Sudo => "sudo",
            Become::Doas => "doas",
        }
    }
}

/// What was said after the line in which the script says that it is root.
fn after_root(talk: &[u8]) -> Option<&[u8]> {
    let line = format!("{ROOT}\n");
    let at = talk.windows(line.len()).position(|window| window == line.as_bytes())?;
    Some(&talk[at + line.len()..])
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, PROMPT, Privilege, SKIP_HELLO, after_root, quote};
    use crate::inventory::Become;
    use crate::secret::Secret;

    fn sudo(password: Option<&str>) -> Privilege {
        Privilege::new(Become::Sudo, password.map(Secret::new))
    }

    #[test]
    fn the_script_looks_for_the_line_that_is_sent() {
        assert!(SKIP_HELLO.contains(BEGIN));
    }

    #[test]
    fn a_script_says_that_it_is_root() {
        assert_eq!(after_root(b"clusterctl-sudo-password:clusterctl-is-root\nmore"), Some(&b"more"[..]));
        assert_eq!(after_root(b"clusterctl-sudo-password:clusterctl-is-root"), None);
    }

    #[rstest::rstest]
    #[case("doas (ops@w1) password: ", true)]
    #[case("clusterctl-sudo-password:", true)]
    #[case("[sudo] password for ops: ", false)]
    #[case("Welcome. Change your password: soon\r\n", false)]
    #[case("", false)]
    fn a_question_is_the_end_of_a_screen(#[case] screen: &str, #[case] asks: bool) {
        assert_eq!(Privilege::asks(screen), asks);
    }

    #[test]
    fn words_become_arguments() {
        assert_eq!(sudo(None).command("id", &["a b"]), "env LC_ALL=C sudo -n sh -c id sh 'a b'");
        assert_eq!(sudo(None).command_on_terminal("id", &[]), "env LC_ALL=C sudo -n sh -c id");
        let command = sudo(Some("x")).command("id", &["a b"]);
        let script = quote(&format!("echo clusterctl-is-root >&2; {SKIP_HELLO}id"));
        assert_eq!(command, format!("env LC_ALL=C sudo -S -p {PROMPT} sh -c {script} sh 'a b'"));
        // Nobody asks a root login: a password that is known for other hosts stays here.
        let root = Privilege::new(Become::None, Some(Secret::new("x")));
        assert_eq!(root.command("id", &[]), "env LC_ALL=C sh -c id");
        let doas = Privilege::new(Become::Doas, None);
        assert_eq!(doas.command("id -u", &[]), "env LC_ALL=C doas sh -c 'id -u'");
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |text: &str, password: Option<&str>| {
            sudo(password).refused(text.as_bytes()).map(|failure| failure.sentence)
        };
        assert_eq!(refused("", Some("x")), None);
        assert_eq!(refused(PROMPT, Some("x")), None);
        let none = "sudo asks for a password and there is none";
        assert_eq!(refused(PROMPT, None).unwrap(), none);
        assert_eq!(refused("sudo: a password is required\n", None).unwrap(), none);
        assert_eq!(
            refused(&format!("{PROMPT}Sorry, try again.\n{PROMPT}"), Some("x")).unwrap(),
            "sudo does not accept the password"
        );
        assert_eq!(
            refused("plain is not in the sudoers file.\n", Some("x")).unwrap(),
            "the login user has no right to use sudo"
        );
        let doas = Privilege::new(Become::Doas, None);
        assert!(doas.refused(b"doas: Operation not permitted\n").unwrap().sentence.ends_with("no right to use doas"));
        assert!(doas.wants_terminal(b"doas: a tty is required\n"));
        assert!(sudo(None).wants_terminal(b"sudo: sorry, you must have a tty to run sudo\n"));
        assert!(sudo(None).missing("sh: 1: sudo: not found").is_some());
    }
}
