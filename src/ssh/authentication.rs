//! In which order keys are offered, and what a login that was refused means: pure.

use russh::MethodKind;

use crate::failure::{Failure, Kind};

use super::target::Target;

/// How many keys are offered. sshd breaks off at the sixth refused attempt (MaxAuthTries 6), and one is left for the
/// password.
pub(super) const KEYS: usize = 5;

/// A key to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The key file with this index.
    File(usize),
    /// The agent's key with this index.
    Agent(usize),
}

/// What is known of a key file when the order is decided.
#[derive(Debug, Clone)]
pub(super) struct FileKey {
    /// The public key, if it is known.
    pub(super) blob: Option<Vec<u8>>,
    /// Whether the file has the private key, too.
    pub(super) private: bool,
}

/// The keys in the order to offer them.
///
/// Files that were named come first, each through the agent when that holds the same key (no passphrase is needed
/// then), after them what else the agent holds. Without named files the agent comes first and the usual files last. With
/// `only` nothing but the files is offered (IdentitiesOnly).
pub(super) fn arrange(files: &[FileKey], agent: &[Vec<u8>], named: bool, only: bool) -> Vec<Choice> {
    let held = |file: &FileKey| agent.iter().position(|blob| Some(blob) == file.blob.as_ref());
    let of_files = files.iter().enumerate().filter_map(|(index, file)| match held(file) {
        Some(key) => Some(Choice::Agent(key)),
        None => file.private.then_some(Choice::File(index)),
    });
    let of_agent = (0..if only { 0 } else { agent.len() }).map(Choice::Agent);
    let all: Vec<Choice> = if named { of_files.chain(of_agent).collect() } else { of_agent.chain(of_files).collect() };
    let mut order: Vec<Choice> = Vec::new();
    for choice in all {
        if !order.contains(&choice) {
            order.push(choice);
        }
    }
    order.truncate(KEYS);
    order
}

/// What happened before a login was given up.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts {
    /// One line for each thing tried: `key /home/ops/.ssh/id_ed25519 (ssh-ed25519 SHA256:...): refused`.
    pub(super) tried: Vec<String>,
    /// What the host allows now; `None` if it never said.
    pub(super) allowed: Option<Vec<MethodKind>>,
    /// Whether the host took one thing and wants another one besides.
    pub(super) partly: bool,
    /// What the host showed before the login.
    pub(super) banner: String,
}

/// The failure of a login that was refused.
pub(super) fn refused(target: &Target, attempts: &Attempts) -> Failure {
    let (place, user) = (target.place(), &target.user);
    let sentence = if attempts.tried.is_empty() {
        format!("cannot log in to {place} as {user}: there is no key or password to try")
    } else if attempts.partly {
        format!("cannot log in to {place} as {user}: the host wants more than one proof")
    } else {
        format!("cannot log in to {place} as {user}: the host refused all that was tried")
    };
    let mut failure = Failure::new(Kind::Authentication, sentence).on(&target.name);
    for tried in &attempts.tried {
        failure = failure.caused_by(tried);
    }
    let allowed = attempts.allowed.as_deref().unwrap_or_default();
    if !allowed.is_empty() {
        let names: Vec<&str> = allowed.iter().map(Into::into).collect();
        failure = failure.caused_by(format!("the host allows {}", names.join(", ")));
    }
    if !attempts.banner.trim().is_empty() {
        failure = failure.detailed(attempts.banner.trim());
    }
    let copy = format!("`ssh-copy-id {}`", target.ssh_arguments());
    failure.advise(if attempts.tried.is_empty() {
        format!(
            "make a key with `ssh-keygen -t ed25519` and give it to the host with {copy}, or name one as identity under ssh \
             in the inventory"
        )
    } else if allowed.is_empty() || allowed.contains(&MethodKind::PublicKey) {
        format!("give the host your key with {copy}, or correct user, identity or password under ssh in the inventory")
    } else {
        "correct user or password under ssh in the inventory, or allow public keys in the host's sshd_config".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use russh::MethodKind;

    use super::{Attempts, Choice, FileKey, arrange, refused};
    use crate::failure::Kind;
    use crate::ssh::testing::target;

    fn file(blob: u8) -> FileKey {
        FileKey { blob: Some(vec![blob]), private: true }
    }

    #[rstest]
    #[case::named_before_agent(&[file(1)], &[2, 3], true, &[Choice::File(0), Choice::Agent(0), Choice::Agent(1)])]
    #[case::agent_signs_for_a_named_file(&[file(1), file(3)], &[2, 3], true, &[Choice::File(0), Choice::Agent(1), Choice::Agent(0)])]
    #[case::usual_files_last(&[file(1)], &[2], false, &[Choice::Agent(0), Choice::File(0)])]
    #[case::no_key_twice(&[file(2)], &[2], false, &[Choice::Agent(0)])]
    #[case::a_public_file_needs_the_agent(&[FileKey { blob: Some(vec![9]), private: false }], &[], true, &[])]
    #[case::unknown_public_key(&[FileKey { blob: None, private: true }], &[1], true, &[Choice::File(0), Choice::Agent(0)])]
    #[case::nothing(&[], &[], false, &[])]
    fn keys_are_offered_in_order(
        #[case] files: &[FileKey],
        #[case] agent: &[u8],
        #[case] named: bool,
        #[case] expected: &[Choice],
    ) {
        let agent: Vec<Vec<u8>> = agent.iter().map(|&blob| vec![blob]).collect();
        assert_eq!(arrange(files, &agent, named, false), expected);
        let of_files = |choice: &Choice| match *choice {
            Choice::File(_) => true,
            Choice::Agent(key) => files.iter().any(|file| file.blob.as_ref() == Some(&agent[key])),
        };
        assert!(arrange(files, &agent, named, true).iter().all(of_files));
    }

    #[test]
    fn a_full_agent_does_not_use_up_the_attempts() {
        let agent: Vec<Vec<u8>> = (0..30).map(|blob| vec![blob]).collect();
        assert_eq!(arrange(&[file(29)], &agent, true, false).len(), super::KEYS);
        assert_eq!(arrange(&[file(29)], &agent, true, true), [Choice::Agent(29)]);
    }

    #[test]
    fn the_failure_names_what_was_tried_and_what_is_allowed() {
        let attempts = Attempts {
            tried: vec!["key /k: refused".to_owned()],
            allowed: Some(vec![MethodKind::PublicKey, MethodKind::Password]),
            ..Attempts::default()
        };
        let failure = refused(&target("cp1", 2222), &attempts);
        assert_eq!(failure.kind, Kind::Authentication);
        assert_eq!(
            failure.to_string(),
            "cp1: cannot log in to 127.0.0.1 port 2222 as ops: the host refused all that was tried: key /k: refused: the \
             host allows publickey, password"
        );
        assert!(failure.advice.is_some_and(|advice| advice.contains("ssh-copy-id -p 2222 ops@127.0.0.1")));
    }
}
