//! `shell`: a person's session on a host.

use super::connect::{Settings, open};
use crate::failure::Result;
use crate::inventory::{Become, Host};
use crate::remote::quote;
use crate::ssh::{self, Channel, Terminal};

/// Opens the login shell, or runs a command, on a terminal on the host. Whatever asks for root's password asks the person.
///
/// # Errors
/// As connecting; kind `Connection` when the link is lost.
pub async fn shell(
    host: &Host,
    command: &[String],
    root: bool,
    terminal: &Terminal,
    settings: &Settings,
) -> Result<Channel> {
    let configuration = ssh::Configuration::of_this_machine()?;
    let connection = open(host, &configuration, settings).await?;
    let command = line(command, if root { host.ssh.become_root } else { Become::None });
    connection.terminal(terminal, command.as_deref()).await
}

/// What is typed for the host's login shell; `None` for that shell itself.
pub(super) fn line(command: &[String], way: Become) -> Option<String> {
    let words = match command {
        [] => String::new(),
        [line] => line.clone(),
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    };
    match (way, command) {
        (Become::None, []) => None,
        (Become::None, _) => Some(words),
        (Become::Sudo, []) => Some("exec sudo -i".to_owned()),
        (Become::Doas, []) => Some("exec doas -s".to_owned()),
        (Become::Sudo, [line]) => Some(format!("exec sudo sh -c {}", quote(line))),
        (Become::Doas, [line]) => Some(format!("exec doas sh -c {}", quote(line))),
        (Become::Sudo, _) => Some(format!("exec sudo -- {words}")),
        (Become::Doas, _) => Some(format!("exec doas -- {words}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::line;
    use crate::inventory::Become;

    #[rstest]
    #[case(&[], Become::None, None)]
    #[case(&["top"], Become::None, Some("top"))]
    #[case(&["ls", "a b"], Become::None, Some("ls 'a b'"))]
    #[case(&[], Become::Sudo, Some("exec sudo -i"))]
    #[case(&["id | cat"], Become::Sudo, Some("exec sudo sh -c 'id | cat'"))]
    #[case(&["id", "-u"], Become::Doas, Some("exec doas -- id -u"))]
    fn the_login_shell_gets_one_line(#[case] words: &[&str], #[case] way: Become, #[case] expected: Option<&str>) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(line(&words, way).as_deref(), expected);
    }
}
