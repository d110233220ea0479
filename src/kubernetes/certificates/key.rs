//! Private keys: made in parallel, read in every usual form, written as kubeadm writes them (PKCS#1 and SEC1).

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SigningKey};
use zeroize::Zeroize;

use super::ahead::{self, Batch};
use super::der::{self, tag};
use super::rsa;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Algorithms of new keys (ClusterConfiguration.encryptionAlgorithm, kubeadm.md section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// RSA with 2048 bits, kubeadm's default.
    #[default]
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// ECDSA on the curve P-256: made a thousand times faster than RSA keys.
    EcdsaP256,
    /// ECDSA on the curve P-384 (kubeadm from 1.34).
    EcdsaP384,
}

impl FromStr for KeyAlgorithm {
    type Err = Failure;

    /// Reads kubeadm's names; an empty text is the default.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "RSA-2048" => Ok(Self::Rsa2048),
            "RSA-3072" => Ok(Self::Rsa3072),
            "RSA-4096" => Ok(Self::Rsa4096),
            "ECDSA-P256" => Ok(Self::EcdsaP256),
            "ECDSA-P384" => Ok(Self::EcdsaP384),
            other => Err(Failure::new(Kind::Configuration, format!("{other:?} is not an algorithm of keys"))
                .advise("choose RSA-2048, RSA-3072, RSA-4096, ECDSA-P256 or ECDSA-P384")),
        }
    }
}

/// Content of the object identifiers of the curves.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// A private key with its public part.
pub struct PrivateKey {
    pair: KeyPair,
    pem: Secret,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrivateKey(***)")
    }
}

impl PrivateKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the cryptography library fails.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self> {
        let ecdsa = |algorithm| {
            KeyPair::generate_for(algorithm)
                .map_err(|error| Failure::new(Kind::Internal, "cannot make a key").because(&error))
        };
        let pair = match algorithm {
            KeyAlgorithm::Rsa2048 => rsa::generate(RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => rsa::generate(RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => rsa::generate(RsaKeySize::_4096),
            KeyAlgorithm::EcdsaP256 => ecdsa(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => ecdsa(&rcgen::PKCS_ECDSA_P384_SHA384),
        }?;
        let pem = traditional_pem(pair.serialized_der(), algorithm)
            .ok_or_else(|| Failure::new(Kind::Internal, "cannot write a key that was just made"))?;
        Ok(Self { pair, pem })
    }

    /// Reads a key in PKCS#1, SEC1 or PKCS#8 PEM; other blocks around it (EC PARAMETERS) are skipped.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if there is no key, or it is neither RSA nor ECDSA. The caller names the file.
    pub fn from_pem(text: &Secret) -> Result<Self> {
        let broken = |sentence: &str| Failure::new(Kind::Configuration, sentence);
        let block = x509_parser::pem::Pem::iter_from_buffer(text.expose().as_bytes())
            .filter_map(Result::ok)
            .find(|block| ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"].contains(&block.label.as_str()));
        let mut block = block.ok_or_else(|| broken("there is no private key in it"))?;
        let pair = KeyPair::try_from(block.contents.as_slice());
        block.contents.zeroize();
        let pair = pair.map_err(|error| broken("its private key cannot be read").because(&error))?;
        if *pair.algorithm() == rcgen::PKCS_ED25519 {
            return Err(broken("its private key is neither RSA nor ECDSA"));
        }
        Ok(Self { pair, pem: text.clone() })
    }

    /// The key as kubeadm writes it: `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1); a key that was read keeps
    /// its form.
    pub fn pem(&self) -> &Secret {
        &self.pem
    }

    /// The public key as `PUBLIC KEY` (PKIX), the form of sa.pub.
    pub fn public_pem(&self) -> String {
        pem_block("PUBLIC KEY", &self.public_der())
    }

    /// The SubjectPublicKeyInfo.
    pub fn public_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// Signs with the digest that fits the key: SHA-256; SHA-384 on P-384, SHA-512 on P-521.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        SigningKey::sign(&self.pair, message)
            .map_err(|error| Failure::new(Kind::Internal, "cannot sign with a private key").because(&error))
    }

    /// The AlgorithmIdentifier of [`Self::sign`].
    pub(super) fn signature_algorithm(&self) -> Vec<u8> {
        // ecdsa-with-SHA256, -SHA384 and -SHA512 differ in the last byte and have no parameters.
        let ecdsa =
            |last| der::constructed(tag::SEQUENCE, &[der::identifier(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, last])]);
        let algorithm = self.pair.algorithm();
        if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
            ecdsa(2)
        } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
            ecdsa(3)
        } else if *algorithm == rcgen::PKCS_ECDSA_P521_SHA512 {
            ecdsa(4)
        } else {
            let sha256_with_rsa = der::identifier(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]);
            der::constructed(tag::SEQUENCE, &[sha256_with_rsa, der::element(5, &[])])
        }
    }
}

/// Unwraps PKCS#8 into the form older than it: the content is PKCS#1 for RSA; for ECDSA, Go also writes the curve,
/// which PKCS#8 keeps outside.
fn traditional_pem(pkcs8: &[u8], algorithm: KeyAlgorithm) -> Option<Secret> {
    let (outer, _) = der::expect(pkcs8, tag::SEQUENCE)?;
    let (_, rest) = der::expect(outer, tag::INTEGER)?;
    let (_, rest) = der::expect(rest, tag::SEQUENCE)?;
    let (inner, _) = der::expect(rest, tag::OCTET_STRING)?;
    let curve = match algorithm {
        KeyAlgorithm::EcdsaP256 => P256,
        KeyAlgorithm::EcdsaP384 => P384,
        _ => return Some(Secret::new(pem_block("RSA PRIVATE KEY", inner))),
    };
    let (mut fields, _) = der::expect(inner, tag::SEQUENCE)?;
    let (_, rest) = der::expect(fields, tag::INTEGER)?;
    let (scalar, rest) = der::expect(rest, tag::OCTET_STRING)?;
    fields = rest;
    let mut public = None;
    while let Some((tag, content, rest)) = der::take(fields) {
        if tag == 0xa1 {
            public = Some(der::element(0xa1, content));
        }
        fields = rest;
    }
    let mut parts = vec![
        der::integer(1),
        der::element(tag::OCTET_STRING, scalar),
        der::constructed(0xa0, &[der::identifier(curve)]),
        public?,
    ];
    let mut encoded = der::constructed(tag::SEQUENCE, &parts);
    let pem = Secret::new(pem_block("EC PRIVATE KEY", &encoded));
    parts.iter_mut().for_each(Zeroize::zeroize);
    encoded.zeroize();
    Some(pem)
}

/// A PEM block with lines of 64 characters, as Go writes it.
pub(super) fn pem_block(label: &str, content: &[u8]) -> String {
    let mut encoded = STANDARD.encode(content);
    let mut text = String::with_capacity(encoded.len() + encoded.len() / 64 + 2 * label.len() + 40);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    encoded.zeroize();
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Keys made ahead of their use. Sixteen RSA keys are most of the time that `init` computes, so they are made on all
/// cores at once, and can be made while the host is still busy with something else.
#[derive(Debug)]
pub struct KeyPool {
    algorithm: KeyAlgorithm,
    keys: Vec<PrivateKey>,
}

impl KeyPool {
    /// An empty pool.
    pub fn new(algorithm: KeyAlgorithm) -> Self {
        Self { algorithm, keys: Vec::new() }
    }

    /// Makes keys on all cores until the pool holds `count`. Takes seconds of processor time with RSA: call it off the
    /// asynchronous threads.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the cryptography library fails.
    pub fn fill(&mut self, count: usize) -> Result<()> {
        if self.keys.len() < count {
            self.keys.extend(ahead::take(self.algorithm)?);
        }
        let missing = count.saturating_sub(self.keys.len());
        self.keys.extend(Batch::begin(self.algorithm, missing).wait()?);
        while self.keys.len() < count {
            self.keys.push(PrivateKey::generate(self.algorithm)?);
        }
        Ok(())
    }

    /// Takes a key out, or makes one.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the cryptography library fails.
    pub fn take(&mut self) -> Result<PrivateKey> {
        self.keys.pop().map_or_else(|| PrivateKey::generate(self.algorithm), Ok)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{KeyAlgorithm, KeyPool, PrivateKey, Secret};

    #[rstest]
    #[case(KeyAlgorithm::Rsa2048, "-----BEGIN RSA PRIVATE KEY-----\nMII")]
    #[case(KeyAlgorithm::EcdsaP256, "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEI")]
    #[case(KeyAlgorithm::EcdsaP384, "-----BEGIN EC PRIVATE KEY-----\nMIGkAgEBBD")]
    fn keys_are_written_in_the_traditional_form_and_read_back(#[case] algorithm: KeyAlgorithm, #[case] begin: &str) {
        let key = PrivateKey::generate(algorithm).unwrap();
        assert!(key.pem().expose().starts_with(begin));
        let read = PrivateKey::from_pem(key.pem()).unwrap();
        assert_eq!(read.public_pem(), key.public_pem());
        assert!(read.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
        assert!(!format!("{key:?}").contains("BEGIN"));
    }

    #[test]
    fn a_pool_makes_what_it_lacks() {
        let mut pool = KeyPool::new(KeyAlgorithm::EcdsaP256);
        pool.fill(5).unwrap();
        pool.fill(3).unwrap();
        let mut keys: Vec<_> = (0..6).map(|_| pool.take().unwrap().public_pem()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn a_text_without_a_key_is_refused() {
        assert!(PrivateKey::from_pem(&Secret::new("nothing")).is_err());
    }
}
