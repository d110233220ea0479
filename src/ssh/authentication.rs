//! In which order keys are offered, and what a login that was refused means: pure.

use russh::MethodKind;

use crate::failure::{Failure, Kind};

use super::config::assemble;
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

/// What is known of a key of the agent when the order is decided.
#[derive(Debug, Clone)]
pub(super) struct HeldKey {
    /// The public key; that of its certificate is the same.
    pub(super) blob: Vec<u8>,
    /// Whether the agent holds it with a certificate.
    pub(super) certified: bool,
}

/// The keys in the order to offer them; how many of them a host is bothered with is decided when it answers.
///
/// Files that were named come first, each through the agent when that holds the same key (no passphrase is needed
/// then), after them what else the agent holds. Without named files what only a file holds comes last. With `only`
/// nothing but the files is offered (IdentitiesOnly). A certificate comes before its bare key.
pub(super) fn arrange(files: &[FileKey], agent: &[HeldKey], named: bool, only: bool) -> Vec<Choice> {
    let held = |file: &FileKey, certified: bool| -> Vec<Choice> {
        let is_it = |key: &HeldKey| Some(&key.blob) == file.blob.as_ref() && key.certified == certified;
        (0..agent.len()).filter(|index| is_it(&agent[*index])).map(Choice::Agent).collect()
    };
    let (mut of_files, mut last) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        of_files.extend(held(file, true));
        match held(file, false) {
            bare if !bare.is_empty() => of_files.extend(bare),
            _ if !file.private => {}
            _ if named => of_files.push(Choice::File(index)),
            _ => last.push(Choice::File(index)),
        }
    }
    let of_agent = (0..if only { 0 } else { agent.len() }).map(Choice::Agent);
    let mut order: Vec<Choice> = Vec::new();
    for choice in of_files.into_iter().chain(of_agent).chain(last) {
        if !order.contains(&choice) {
            order.push(choice);
        }
    }
    order
}

/// What OpenSSH signs logins with by default, certificates first, and what it signs with where it is told to.
const SIGNATURES: [&str; 9] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
];

/// The name of certificates for keys of this kind: `sk-ssh-ed25519-cert-v01@openssh.com`.
pub(super) fn of_certificates(name: &str) -> String {
    format!("{}-cert-v01@openssh.com", name.trim_end_matches("@openssh.com"))
}

/// Whether PubkeyAcceptedAlgorithms, as written, lets a signature of this kind be offered.
pub(super) fn accepts(written: Option<&str>, name: &str) -> bool {
    let certified: Vec<String> = SIGNATURES.iter().map(|name| of_certificates(name)).collect();
    let all: Vec<&str> = certified.iter().map(String::as_str).chain(SIGNATURES).collect();
    let default: Vec<&str> = all.iter().copied().filter(|name| !name.starts_with("ssh-rsa")).collect();
    match written {
        None => default.contains(&name),
        Some(written) => assemble(written, &default, &all).iter().any(|left| left == name),
    }
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

    use super::{Attempts, Choice, FileKey, HeldKey, accepts, arrange, of_certificates, refused};
    use crate::failure::Kind;
    use crate::ssh::testing::target;

    fn file(blob: u8) -> FileKey {
        FileKey { blob: Some(vec![blob]), private: true }
    }

    fn held(blobs: &[u8]) -> Vec<HeldKey> {
        blobs.iter().map(|&blob| HeldKey { blob: vec![blob % 100], certified: blob >= 100 }).collect()
    }

    /// Keys of the agent from 100 on are those with a certificate.
    #[rstest]
    #[case::named_before_agent(&[file(1)], &[2, 3], true, &[Choice::File(0), Choice::Agent(0), Choice::Agent(1)])]
    #[case::agent_signs_for_a_named_file(&[file(1), file(3)], &[2, 3], true, &[Choice::File(0), Choice::Agent(1), Choice::Agent(0)])]
    #[case::usual_files_last(&[file(1)], &[2], false, &[Choice::Agent(0), Choice::File(0)])]
    #[case::usual_files_that_are_held_first(&[file(1), file(3)], &[2, 3], false, &[Choice::Agent(1), Choice::Agent(0), Choice::File(0)])]
    #[case::no_key_twice(&[file(2)], &[2], false, &[Choice::Agent(0)])]
    #[case::a_public_file_needs_the_agent(&[FileKey { blob: Some(vec![9]), private: false }], &[], true, &[])]
    #[case::unknown_public_key(&[FileKey { blob: None, private: true }], &[1], true, &[Choice::File(0), Choice::Agent(0)])]
    #[case::held_with_its_certificate(&[file(2)], &[2, 102], true, &[Choice::Agent(1), Choice::Agent(0)])]
    #[case::only_its_certificate_is_held(&[file(2)], &[102], true, &[Choice::Agent(0), Choice::File(0)])]
    #[case::nothing(&[], &[], false, &[])]
    fn keys_are_offered_in_order(
        #[case] files: &[FileKey],
        #[case] agent: &[u8],
        #[case] named: bool,
        #[case] expected: &[Choice],
    ) {
        let agent = held(agent);
        assert_eq!(arrange(files, &agent, named, false), expected);
        let of_files = |choice: &Choice| match *choice {
            Choice::File(_) => true,
            Choice::Agent(key) => files.iter().any(|file| file.blob.as_ref() == Some(&agent[key].blob)),
        };
        let expected: Vec<Choice> = expected.iter().copied().filter(of_files).collect();
        assert_eq!(arrange(files, &agent, named, true), expected);
    }

    #[rstest]
    #[case(None, "ssh-ed25519", true)]
    #[case(None, "ssh-ed25519-cert-v01@openssh.com", true)]
    #[case(None, "ssh-rsa", false)]
    #[case(None, "ssh-rsa-cert-v01@openssh.com", false)]
    #[case(Some("+ssh-rsa"), "ssh-rsa", true)]
    #[case(Some("ssh-ed25519"), "ssh-ed25519-cert-v01@openssh.com", false)]
    #[case(Some("ssh-ed25519-cert-v01@openssh.com"), "ssh-ed25519-cert-v01@openssh.com", true)]
    #[case(Some("ssh-ed25519-cert-v01@openssh.com"), "ssh-ed25519", false)]
    #[case(Some("*-cert-v01@openssh.com"), "rsa-sha2-512-cert-v01@openssh.com", true)]
    #[case(Some("-*-cert-v01@openssh.com"), "rsa-sha2-512-cert-v01@openssh.com", false)]
    #[case(Some("-*-cert-v01@openssh.com"), "rsa-sha2-512", true)]
    fn lists_of_signatures_are_kept_to(#[case] written: Option<&str>, #[case] name: &str, #[case] accepted: bool) {
        assert_eq!(accepts(written, name), accepted);
    }

    /// OpenSSH knows each of our names.
    #[test]
    fn names_of_signatures_are_those_of_openssh() {
        let known = crate::ssh::testing::program("ssh", &["-Q", "PubkeyAcceptedAlgorithms"]);
        for name in super::SIGNATURES {
            for name in [name.to_owned(), of_certificates(name)] {
                assert!(known.lines().any(|line| line == name), "{name} in {known}");
            }
        }
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
