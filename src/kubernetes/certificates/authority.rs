//! Certificate authorities: made, or read from what is there.

use super::certificate::Certificate;
use super::key::PrivateKey;
use super::sign::{self, Issuer, Subject, Validity};
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// A certificate authority. Its file may be a bundle: the first certificate signs, all are trusted.
#[derive(Debug)]
pub struct Authority {
    certificates: Vec<Certificate>,
    pem: String,
    key: Option<PrivateKey>,
}

/// How much earlier than now certificates begin, for clocks that are behind.
const BACKDATED_SECONDS: u64 = 300;

impl Authority {
    /// A new CA that signs itself.
    ///
    /// # Errors
    /// [`Kind::Internal`] if signing fails.
    pub fn fresh(common_name: &str, key: PrivateKey, now_seconds: u64, valid_seconds: u64) -> Result<Self> {
        let subject = Subject {
            common_name: common_name.to_owned(),
            dns_names: vec![common_name.to_owned()],
            ..Default::default()
        };
        let issuer = Issuer { name: None, key_identifier: None, key: &key };
        let der = sign::certificate(&subject, &key.public_der(), validity(now_seconds, valid_seconds), &issuer, true)?;
        let certificate = Certificate::parse(&der)?;
        Ok(Self { pem: certificate.pem(), certificates: vec![certificate], key: Some(key) })
    }

    /// A CA from the texts of its files; without a key it is an external CA, which signs nothing here.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if a text cannot be read, the certificate is not that of a CA, or the key is not its
    /// key. The caller names the files.
    pub fn from_pem(certificate: &str, key: Option<&Secret>) -> Result<Self> {
        let certificates = Certificate::parse_pem(certificate)?;
        if !certificates[0].is_authority {
            return Err(Failure::new(Kind::Configuration, "its certificate is not that of a certificate authority"));
        }
        let key = key.map(PrivateKey::from_pem).transpose()?;
        if key.as_ref().is_some_and(|key| key.public_der() != certificates[0].public_key) {
            return Err(Failure::new(Kind::Configuration, "the private key does not belong to the certificate"));
        }
        Ok(Self { certificates, pem: certificate.to_owned(), key })
    }

    /// The text of its certificate file, as it was read.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificates; the first one signs.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The text of its first certificate alone.
    pub fn first_pem(&self) -> String {
        self.certificates[0].pem()
    }

    /// Its key; an external CA has none.
    pub fn key(&self) -> Option<&PrivateKey> {
        self.key.as_ref()
    }

    /// Whether it cannot sign here.
    pub fn is_external(&self) -> bool {
        self.key.is_none()
    }

    /// Signs a certificate for `key`, valid from five minutes ago.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if it is an external CA; [`Kind::Internal`] if signing fails.
    pub fn sign(
        &self,
        subject: &Subject,
        key: &PrivateKey,
        now_seconds: u64,
        valid_seconds: u64,
    ) -> Result<Certificate> {
        self.sign_valid(subject, key, validity(now_seconds, valid_seconds))
    }

    /// Signs a certificate for `key` that is valid since the authority itself is, as kubeadm does for kubeconfigs.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign_since_own_beginning(
        &self,
        subject: &Subject,
        key: &PrivateKey,
        now_seconds: u64,
        valid_seconds: u64,
    ) -> Result<Certificate> {
        let not_before = u64::try_from(self.certificates[0].not_before).unwrap_or_default();
        self.sign_valid(subject, key, Validity { not_before, ..validity(now_seconds, valid_seconds) })
    }

    fn sign_valid(&self, subject: &Subject, key: &PrivateKey, validity: Validity) -> Result<Certificate> {
        let signing_key = self.key.as_ref().ok_or_else(|| {
            let sentence = format!("the certificate authority {} has no key here", self.certificates[0].common_name);
            Failure::new(Kind::Configuration, sentence)
        })?;
        let issuer = Issuer {
            name: Some(&self.certificates[0].subject_name),
            key_identifier: self.certificates[0].key_identifier.as_deref(),
            key: signing_key,
        };
        Certificate::parse(&sign::certificate(subject, &key.public_der(), validity, &issuer, false)?)
    }
}

/// From five minutes ago until `valid_seconds` from now.
fn validity(now_seconds: u64, valid_seconds: u64) -> Validity {
    Validity {
        not_before: now_seconds.saturating_sub(BACKDATED_SECONDS),
        not_after: now_seconds.saturating_add(valid_seconds),
    }
}
