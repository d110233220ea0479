//! How a program on a host becomes root: what is run there, what is sent first, what a refusal looks like.
//!
//! The password goes to standard input, on a line of its own before [`BEGIN`]; whatever asked for none leaves the line
//! to the script, which drops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::quote::quote;
use super::terminal;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Become;
use crate::message::BEGIN;
use crate::secret::Secret;
use crate::ssh::{Channel, Connection};

/// What sudo prints on standard error when it wants a password.
const PROMPT: &str = "clusterctl-sudo-password:";

/// The beginning of every script: drops what was sent before [`BEGIN`].
pub(super) const SKIP_HELLO: &str =
    r#"while IFS= read -r line; do [ "$line" = clusterctl-messages-begin ] && break; done; "#;

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
            let mut channel = terminal::start(connection, self, script, words).await?;
            channel.send(Bytes::from(format!("{BEGIN}\n"))).await?;
            return Ok(channel);
        }
        let mut channel = connection.exec(&self.command(script, words)).await?;
        channel.send(self.hello()).await?;
        Ok(channel)
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
        self.command_reading("-S ", script, words)
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
        let mut command = match self.way {
            Become::None => "env LC_ALL=C sh -c ".to_owned(),
            Become::Sudo => format!("env LC_ALL=C sudo {input}-p {PROMPT} sh -c "),
            Become::Doas => "env LC_ALL=C doas sh -c ".to_owned(),
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

    /// What the command is sent first.
    fn hello(&self) -> Bytes {
        let mut hello = Vec::new();
        if self.way == Become::Sudo
            && let Some(password) = &self.password
        {
            hello.extend_from_slice(password.expose().as_bytes());
            hello.push(b'\n');
        }
        hello.extend_from_slice(BEGIN.as_bytes());
        hello.push(b'\n');
        Bytes::from(hello)
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
        if asked > 0 && self.password.is_none() {
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

#[cfg(test)]
mod tests {
    use super::{BEGIN, PROMPT, Privilege, SKIP_HELLO};
    use crate::inventory::Become;
    use crate::secret::Secret;

    fn sudo(password: Option<&str>) -> Privilege {
        Privilege::new(Become::Sudo, password.map(Secret::new))
    }

    #[test]
    fn the_script_looks_for_the_line_that_is_sent() {
        assert!(SKIP_HELLO.contains(BEGIN));
        assert_eq!(sudo(Some("x")).hello(), format!("x\n{BEGIN}\n"));
        // Nobody asks a root login: a password that is known for other hosts stays here.
        let root = Privilege::new(Become::None, Some(Secret::new("x")));
        assert_eq!(root.hello(), format!("{BEGIN}\n"));
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
        assert_eq!(sudo(None).command("id", &["a b"]), format!("env LC_ALL=C sudo -S -p {PROMPT} sh -c id sh 'a b'"));
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
        assert_eq!(refused(PROMPT, None).unwrap(), "sudo asks for a password and there is none");
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
