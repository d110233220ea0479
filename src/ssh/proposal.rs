//! The algorithms we propose to a host: our own choice, what ssh_config says about it, and the kinds of key that the
//! host is known by.

use std::borrow::Cow;
use std::sync::Arc;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, kex, mac};

use crate::failure::{Failure, Kind};

use super::config::assemble;
use super::known_hosts::{self, KnownHosts};
use super::lookup::{Reason, known_lines};
use super::target::Target;

/// What russh proposes.
#[derive(Debug, Clone)]
pub(super) struct Proposal(pub(super) Preferred);

impl Proposal {
    /// Leaves out the first `count` kinds of host key: ed25519, ECDSA.
    pub(super) fn without(mut self, count: usize) -> Self {
        let kind = |algorithm: &Algorithm| match algorithm {
            Algorithm::Ed25519 => 0,
            Algorithm::Ecdsa { .. } => 1,
            _ => 2,
        };
        if count > 0 {
            self.0.key.to_mut().retain(|algorithm| kind(algorithm) >= count);
            self.0.host_key_certificates = Cow::Borrowed(&[]);
        }
        self
    }
}

/// The end of the name of a certificate's algorithm.
const CERTIFICATE: &str = "-cert-v01@openssh.com";

/// The proposal to a target.
///
/// # Errors
/// [`Kind::Configuration`] when a list of ssh_config leaves nothing that we have.
pub(super) async fn proposal(target: &Arc<Target>) -> Result<Proposal, Failure> {
    let reading = {
        let target = Arc::clone(target);
        // A file that cannot be read is reported by the check of the key itself.
        tokio::task::spawn_blocking(move || known_lines(&target, Reason::Order).unwrap_or_default())
    };
    let files = reading.await.unwrap_or_default();
    propose(target, &files, has_aes())
}

/// The decision; pure.
fn propose(target: &Target, files: &[KnownHosts], aes: bool) -> Result<Proposal, Failure> {
    let lists = &target.algorithms;
    let none = |keyword: &str| {
        Failure::new(Kind::Configuration, format!("{keyword} in ssh_config leaves no algorithm that clusterctl has"))
            .on(&target.name)
            .advise(format!("add another one to {keyword} for this host"))
    };
    let ciphers = match &lists.ciphers {
        None => Cow::Borrowed(ciphers(aes)),
        Some(written) => {
            let all: Vec<&str> = ALL_CIPHERS.iter().map(AsRef::as_ref).collect();
            let default: Vec<&str> = self::ciphers(aes).iter().map(AsRef::as_ref).collect();
            Cow::Owned(chosen(written, &default, &all, |name| cipher::Name::try_from(name).ok()))
        }
    };
    let macs = match &lists.macs {
        None => Preferred::DEFAULT.mac,
        Some(written) => {
            let all: Vec<&str> =
                mac::ALL_MAC_ALGORITHMS.iter().map(|name| (**name).as_ref()).filter(|name| *name != "none").collect();
            let default: Vec<&str> = Preferred::DEFAULT.mac.iter().map(AsRef::as_ref).collect::<Vec<&'static str>>();
            Cow::Owned(chosen(written, &default, &all, |name| mac::Name::try_from(name).ok()))
        }
    };
    let exchanges = match &lists.key_exchanges {
        None => Preferred::DEFAULT.kex,
        Some(written) => Cow::Owned(key_exchanges(written)),
    };
    let (keys, certificates) = host_keys(target, files);
    for (keyword, is_empty) in [
        ("Ciphers", ciphers.is_empty()),
        ("MACs", macs.is_empty()),
        ("KexAlgorithms", exchanges.iter().all(is_extension)),
        ("HostKeyAlgorithms", keys.is_empty() && certificates.is_empty()),
    ] {
        if is_empty {
            return Err(none(keyword));
        }
    }
    Ok(Proposal(Preferred {
        kex: exchanges,
        key: Cow::Owned(keys),
        host_key_certificates: Cow::Owned(certificates),
        cipher: ciphers,
        mac: macs,
        ..Preferred::DEFAULT
    }))
}

fn chosen<T>(written: &str, default: &[&str], all: &[&str], name: impl Fn(&str) -> Option<T>) -> Vec<T> {
    assemble(written, default, all).iter().filter_map(|found| name(found)).collect()
}

/// Names that carry a promise of the protocol instead of an exchange.
fn is_extension(name: &kex::Name) -> bool {
    let name: &str = name.as_ref();
    name.starts_with("ext-info-") || name.starts_with("kex-strict-")
}

fn key_exchanges(written: &str) -> Vec<kex::Name> {
    let usual = Preferred::DEFAULT.kex;
    let (extensions, default): (Vec<kex::Name>, Vec<kex::Name>) = usual.iter().copied().partition(is_extension);
    let all: Vec<&str> = kex::ALL_KEX_ALGORITHMS
        .iter()
        .filter(|name| !is_extension(name))
        .map(|name| (**name).as_ref())
        .filter(|name| *name != "none")
        .collect();
    let default: Vec<&str> = default.iter().map(AsRef::as_ref).collect();
    let mut names = chosen(written, &default, &all, |name| kex::Name::try_from(name).ok());
    names.extend(extensions);
    names
}

/// The host key algorithms we take, and those of them we take as certificates.
///
/// Those of the keys we know the host by come first: a host known by its RSA key only must not show another one, which
/// would look unknown. `ssh-rsa` with SHA-1 signatures is taken only where ssh_config names it. Certificates are asked
/// for where a file names an authority for the host.
fn host_keys(target: &Target, files: &[KnownHosts]) -> (Vec<Algorithm>, Vec<Algorithm>) {
    let (name, port) = target.known_as();
    let known = known_hosts::algorithms(files, name, port);
    let has_authority = !known_hosts::authorities(files, name, port).is_empty();
    let usual = usual_host_keys();
    let is_known = |algorithm: &Algorithm| match algorithm {
        Algorithm::Rsa { .. } => known.iter().any(|name| name == "ssh-rsa"),
        other => known.iter().any(|name| name == other.as_str()),
    };
    let ordered = |mut algorithms: Vec<Algorithm>| {
        algorithms.sort_by_key(|algorithm| !is_known(algorithm));
        algorithms
    };
    let Some(written) = &target.algorithms.host_keys else {
        let certificates = if has_authority { usual.clone() } else { Vec::new() };
        return (ordered(usual), certificates);
    };
    let mut all = usual.clone();
    all.push(Algorithm::Rsa { hash: None });
    let plain: Vec<&str> = all.iter().map(Algorithm::as_str).collect();
    let certified: Vec<String> = plain.iter().map(|name| format!("{name}{CERTIFICATE}")).collect();
    let every: Vec<&str> = certified.iter().map(String::as_str).chain(plain.iter().copied()).collect();
    // Of both lists the last is ssh-rsa, which is not among what is taken without being named.
    let count = usual.len();
    let default: Vec<&str> =
        certified[..count].iter().map(String::as_str).chain(plain[..count].iter().copied()).collect();
    let names = assemble(written, &default, &every);
    let of = |name: &str| all.iter().find(|algorithm| algorithm.as_str() == name).cloned();
    let keys: Vec<Algorithm> = names.iter().filter_map(|name| of(name)).collect();
    let certificates = names.iter().filter_map(|name| of(name.strip_suffix(CERTIFICATE)?)).collect();
    let explicit = !written.starts_with(['+', '-', '^']);
    let keys = if explicit { keys } else { ordered(keys) };
    (keys, if has_authority { certificates } else { Vec::new() })
}

fn usual_host_keys() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// All that russh has and ssh_config may ask for.
const ALL_CIPHERS: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::AES_128_CBC,
    cipher::AES_192_CBC,
    cipher::AES_256_CBC,
];

/// AES-GCM first where the processor has instructions for it, else ChaCha20 (crates.md section 2b).
fn ciphers(aes: bool) -> &'static [cipher::Name] {
    const AES: &[cipher::Name] = &[
        cipher::AES_256_GCM,
        cipher::AES_128_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ];
    const NO_AES: &[cipher::Name] = &[
        cipher::CHACHA20_POLY1305,
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::AES_128_CTR,
        cipher::AES_192_CTR,
        cipher::AES_256_CTR,
    ];
    if aes { AES } else { NO_AES }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rstest::rstest;
    use russh::cipher;

    use super::{ciphers, propose};
    use crate::ssh::config::Algorithms;
    use crate::ssh::known_hosts::KnownHosts;
    use crate::ssh::target::Target;

    fn target(algorithms: Algorithms) -> Target {
        Target { algorithms, ..Target::plain("cp1", "h") }
    }

    /// A known_hosts file with keys of these kinds (their bodies do not matter here).
    fn known(kinds: &[&str], marker: &str) -> Vec<KnownHosts> {
        use base64::Engine as _;
        let line = |kind: &&str| {
            let mut blob = u32::try_from(kind.len()).expect("short").to_be_bytes().to_vec();
            blob.extend(kind.as_bytes());
            format!("{marker}h {kind} {}\n", base64::engine::general_purpose::STANDARD.encode(blob))
        };
        vec![KnownHosts { path: PathBuf::from("/k"), text: kinds.iter().map(line).collect() }]
    }

    #[rstest]
    #[case(&[], "ssh-ed25519")]
    #[case(&["ssh-rsa"], "rsa-sha2-512")]
    #[case(&["ecdsa-sha2-nistp384"], "ecdsa-sha2-nistp384")]
    #[case(&["ssh-rsa", "ecdsa-sha2-nistp256"], "ecdsa-sha2-nistp256")]
    #[case(&["ssh-dss"], "ssh-ed25519")]
    fn what_is_known_is_asked_for_first(#[case] kinds: &[&str], #[case] first: &str) {
        let proposal = propose(&target(Algorithms::default()), &known(kinds, ""), true).expect("some").0;
        assert_eq!(proposal.key[0].as_str(), first);
        assert_eq!((proposal.key.len(), proposal.host_key_certificates.len()), (6, 0));
    }

    #[test]
    fn certificates_are_asked_for_where_there_is_an_authority() {
        let files = known(&["ssh-ed25519"], "@cert-authority ");
        let proposal = propose(&target(Algorithms::default()), &files, true).expect("some").0;
        assert_eq!(proposal.host_key_certificates.len(), 6);
    }

    #[test]
    fn gcm_comes_first_where_the_processor_helps() {
        assert_eq!(ciphers(true)[0], cipher::AES_256_GCM);
        assert_eq!(ciphers(false)[0], cipher::CHACHA20_POLY1305);
    }

    #[test]
    fn ssh_config_chooses() {
        let algorithms = Algorithms {
            ciphers: Some("aes128-ctr,unknown".to_owned()),
            key_exchanges: Some("-mlkem*,diffie*".to_owned()),
            macs: Some("hmac-sha2-256".to_owned()),
            host_keys: Some("+ssh-rsa".to_owned()),
            public_keys: None,
        };
        let found = propose(&target(algorithms), &known(&["ssh-rsa"], ""), true).expect("some").0;
        assert_eq!(*found.cipher, [cipher::AES_128_CTR]);
        assert_eq!((found.mac.len(), found.key.len(), found.key[2].as_str()), (1, 7, "ssh-rsa"));
        let exchanges: Vec<&str> = found.kex.iter().map(AsRef::as_ref).collect();
        assert_eq!(exchanges[..2], ["curve25519-sha256", "curve25519-sha256@libssh.org"]);
        assert!(exchanges.contains(&"kex-strict-c-v00@openssh.com"));
        let none = Algorithms { ciphers: Some("unknown".to_owned()), ..Algorithms::default() };
        let failure = propose(&target(none), &[], true).expect_err("nothing left");
        assert!(failure.sentence.starts_with("Ciphers in ssh_config leaves no algorithm"), "{failure}");
    }
}
