//! Where known keys come from: known_hosts files, and the command that KnownHostsCommand names (ssh_config(5)).

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::failure::{Failure, Kind, Result};

use super::config::percent;
use super::known_hosts::{self, HostKey, KnownHosts, name_of};
use super::local;
use super::target::Target;

/// What stands in place of a file for what the command has printed.
pub(super) const COMMAND: &str = "KnownHostsCommand";

/// Why keys are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason<'a> {
    /// To ask for those kinds of key first that the host is known by.
    Order,
    /// To judge a key that a host shows.
    Judge(&'a HostKey),
}

/// The lines that may speak about a target; blocks on files and the command.
///
/// # Errors
/// [`Kind::HostKey`] for a file that is there and cannot be read, and for a command that fails: either may hold revoked
/// keys.
pub(super) fn known_lines(target: &Target, reason: Reason<'_>) -> Result<Vec<KnownHosts>> {
    let mut all = known_hosts::read(&target.known_hosts).map_err(|(path, error)| {
        Failure::new(Kind::HostKey, format!("cannot read {}", path.display()))
            .on(&target.name)
            .because(&error)
            .advise("make the file readable, because it may hold revoked keys")
    })?;
    if let Some(command) = &target.known_hosts_command {
        let printed = words(command, target, reason).and_then(|words| local::output(&words)).map_err(|why| {
            Failure::new(Kind::HostKey, format!("KnownHostsCommand in ssh_config {why}"))
                .on(&target.name)
                .advise("correct the command; `ssh` to this host must work, too")
        })?;
        all.push(KnownHosts { path: PathBuf::from(COMMAND), text: printed });
    }
    Ok(all)
}

/// The command with its last tokens replaced.
fn words(command: &[String], target: &Target, reason: Reason<'_>) -> std::result::Result<Vec<String>, String> {
    let none = || "NONE".to_owned();
    let (why, kind, fingerprint, body) = match reason {
        Reason::Order => ("ORDER", none(), none(), none()),
        Reason::Judge(key) => ("HOSTNAME", key.algorithm.clone(), key.fingerprint(), STANDARD.encode(&key.blob)),
    };
    let (name, port) = target.known_as();
    // OpenSSH asks for the order by the bare address, whatever the port and the alias.
    let name = if matches!(reason, Reason::Order) { target.address.clone() } else { name_of(name, port) };
    let value = |token| match token {
        '%' => Some("%".to_owned()),
        'H' => Some(name.clone()),
        'I' => Some(why.to_owned()),
        't' => Some(kind.clone()),
        'f' => Some(fingerprint.clone()),
        'K' => Some(body.clone()),
        _ => None,
    };
    command.iter().map(|word| percent(word, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Reason, words};
    use crate::ssh::known_hosts::HostKey;
    use crate::ssh::target::Target;

    #[test]
    fn the_command_is_told_what_is_asked() {
        let command = ["/bin/keys", "%H %I", "%t,%f", "%K%%"].map(str::to_owned);
        let target = Target { port: 2222, ..Target::plain("cp1", "10.0.0.1") };
        let order = words(&command, &target, Reason::Order).expect("known tokens");
        assert_eq!(order, ["/bin/keys", "10.0.0.1 ORDER", "NONE,NONE", "NONE%"]);
        let key = HostKey { algorithm: "ssh-ed25519".to_owned(), blob: b"abc".to_vec() };
        let judge = words(&command, &target, Reason::Judge(&key)).expect("known tokens");
        assert_eq!(judge[1], "[10.0.0.1]:2222 HOSTNAME");
        assert_eq!(judge[2], format!("ssh-ed25519,{}", key.fingerprint()));
        assert_eq!(judge[3], "YWJj%");
    }
}
