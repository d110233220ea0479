//! RSA keys. Looking for their primes is most of the processor time of `init`, so it is done by the quicker of two libraries:
//! graviola, where the processor has what its assembly needs (about x86-64-v3 with ADX and AES; AArch64 with AES and SHA-2),
//! takes 0.6 of the time of aws-lc, which does it everywhere else and signs with every key.

use graviola::signing::rsa::{KeySize, SigningKey};
use rcgen::{KeyPair, RsaKeySize};
use zeroize::Zeroize as _;

use crate::failure::{Failure, Kind, Result};

/// Room for a key of 4096 bits in PKCS#8: its parts are 4.5 times as long as its modulus.
const MAXIMUM_DER_BYTES: usize = 4096;

/// Makes a key. What graviola made is read by aws-lc, which refuses a key whose parts do not fit together.
///
/// Like math/big, with which upstream made its keys for years, graviola looks for primes in a time that depends on them:
/// who shares the host's processor caches at that moment could learn of it. A host that becomes a control plane has no
/// guests yet.
///
/// # Errors
/// [`Kind::Internal`] if the library fails.
pub(super) fn generate(size: RsaKeySize) -> Result<KeyPair> {
    if graviola::util::is_cpu_supported() { quickly(size) } else { everywhere(size) }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Kind::Internal, "cannot make a key").because(error)
}

fn quickly(size: RsaKeySize) -> Result<KeyPair> {
    let ours = match size {
        RsaKeySize::_2048 => KeySize::Rsa2048,
        RsaKeySize::_3072 => KeySize::Rsa3072,
        RsaKeySize::_4096 => KeySize::Rsa4096,
        _ => return everywhere(size),
    };
    let mut room = [0_u8; MAXIMUM_DER_BYTES];
    let key = SigningKey::generate(ours).map_err(|error| failed(&error))?;
    let pair = key
        .to_pkcs8_der(&mut room)
        .map_err(|error| failed(&error))
        .and_then(|der| KeyPair::try_from(der).map_err(|error| failed(&error)));
    room.zeroize();
    pair
}

fn everywhere(size: RsaKeySize) -> Result<KeyPair> {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use rcgen::RsaKeySize;
    use rstest::rstest;

    use super::{everywhere, quickly};

    /// What OpenSSL says of a key: that its primes are primes, and how long its modulus is.
    #[expect(clippy::disallowed_methods, reason = "an outside judge is asked as a person would")]
    fn judged(der: &[u8]) -> String {
        let mut openssl = Command::new("openssl")
            .args(["rsa", "-inform", "DER", "-check", "-noout", "-text"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        openssl.stdin.take().unwrap().write_all(der).unwrap();
        let said = openssl.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }

    #[rstest]
    #[case(RsaKeySize::_2048, "(2048 bit, 2 primes)")]
    #[case(RsaKeySize::_3072, "(3072 bit, 2 primes)")]
    #[case(RsaKeySize::_4096, "(4096 bit, 2 primes)")]
    fn openssl_takes_the_keys_of_both(#[case] size: RsaKeySize, #[case] length: &str) {
        let mut makers: Vec<fn(RsaKeySize) -> crate::failure::Result<rcgen::KeyPair>> = vec![everywhere];
        if graviola::util::is_cpu_supported() {
            makers.push(quickly);
        }
        for make in makers {
            let said = judged(make(size).unwrap().serialized_der());
            assert!(said.contains("RSA key ok") && said.contains(length) && said.contains("65537"), "{said}");
        }
    }

    #[test]
    fn no_two_keys_are_the_same() {
        let [one, two] = [(), ()].map(|()| super::generate(RsaKeySize::_2048).unwrap());
        assert_ne!(one.public_key_pem(), two.public_key_pem());
    }
}
