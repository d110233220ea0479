//! Reading and judging certificates that are there already (kubeadm.md section 2.4).

use std::net::IpAddr;

use aws_lc_rs::{digest, signature};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::catalogue::Usage;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::moment;
use crate::kubernetes::token::hex;

/// A certificate, with what is asked about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The whole certificate.
    pub der: Vec<u8>,
    /// Common name of its holder.
    pub common_name: String,
    /// Organizations of its holder.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// What its key may be used for, of the usages that Kubernetes knows.
    pub usages: Vec<Usage>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// From when it is valid, seconds since the epoch.
    pub not_before: i64,
    /// Until when it is valid, seconds since the epoch.
    pub not_after: i64,
    /// The SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    pub(super) subject_name: Vec<u8>,
    pub(super) issuer_name: Vec<u8>,
    pub(super) key_identifier: Option<Vec<u8>>,
    key_bits: Vec<u8>,
    signed_part: Vec<u8>,
    signature_algorithm: String,
    signature: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`Kind::Configuration`]; the caller names the file.
    pub fn parse(der: &[u8]) -> Result<Self> {
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|error| Failure::new(Kind::Configuration, "it holds no readable certificate").because(&error))?;
        let mut certificate = Self {
            der: der.to_vec(),
            common_name: texts(parsed.subject().iter_common_name()).pop().unwrap_or_default(),
            organizations: texts(parsed.subject().iter_organization()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usages: Vec::new(),
            is_authority: false,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            public_key: parsed.public_key().raw.to_vec(),
            subject_name: parsed.subject().as_raw().to_vec(),
            issuer_name: parsed.issuer().as_raw().to_vec(),
            key_identifier: None,
            key_bits: parsed.public_key().subject_public_key.data.to_vec(),
            signed_part: parsed.tbs_certificate.as_ref().to_vec(),
            signature_algorithm: parsed.signature_algorithm.algorithm.to_id_string(),
            signature: parsed.signature_value.data.to_vec(),
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => certificate.is_authority = constraints.ca,
                ParsedExtension::SubjectKeyIdentifier(id) => certificate.key_identifier = Some(id.0.to_vec()),
                ParsedExtension::SubjectAlternativeName(names) => certificate.take_names(&names.general_names),
                ParsedExtension::ExtendedKeyUsage(usages) => {
                    certificate.usages.extend(usages.server_auth.then_some(Usage::Server));
                    certificate.usages.extend(usages.client_auth.then_some(Usage::Client));
                }
                _ => {}
            }
        }
        Ok(certificate)
    }

    fn take_names(&mut self, names: &[GeneralName<'_>]) {
        for name in names {
            match name {
                GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                    self.addresses.extend(v4.or(v6));
                }
                _ => {}
            }
        }
    }

    /// Reads the certificates of a PEM text: the holder's first, then those that lead to its CA; or a bundle of CAs.
    ///
    /// # Errors
    /// [`Kind::Configuration`] if there is none or one cannot be read; the caller names the file.
    pub fn parse_pem(text: &str) -> Result<Vec<Self>> {
        let mut certificates = Vec::new();
        for block in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
            let block = block
                .map_err(|error| Failure::new(Kind::Configuration, "it holds no readable PEM block").because(&error))?;
            if block.label == "CERTIFICATE" {
                certificates.push(Self::parse(&block.contents)?);
            }
        }
        if certificates.is_empty() {
            return Err(Failure::new(Kind::Configuration, "it holds no certificate"));
        }
        Ok(certificates)
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        super::key::pem_block("CERTIFICATE", &self.der)
    }

    /// Why it is not valid at a time (seconds since the epoch), both times named; `None` when it is.
    pub fn out_of_time(&self, now_seconds: u64) -> Option<OutOfTime> {
        let time = |seconds: i64| moment::rfc3339(u64::try_from(seconds).unwrap_or(0));
        let now = i64::try_from(now_seconds).unwrap_or(i64::MAX);
        if self.not_after < now {
            return Some(OutOfTime::Expired(format!("has expired: it was valid until {}", time(self.not_after))));
        }
        (self.not_before > now).then(|| {
            let (begin, clock) = (time(self.not_before), moment::rfc3339(now_seconds));
            OutOfTime::NotYet(format!("is not valid before {begin}, and the clock of this host says {clock}"))
        })
    }

    /// Whether `authority` signed it.
    pub fn is_signed_by(&self, authority: &Certificate) -> bool {
        if self.issuer_name != authority.subject_name || !authority.is_authority {
            return false;
        }
        let algorithms: &[&dyn signature::VerificationAlgorithm] = match self.signature_algorithm.as_str() {
            "1.2.840.113549.1.1.11" => &[&signature::RSA_PKCS1_2048_8192_SHA256],
            "1.2.840.113549.1.1.12" => &[&signature::RSA_PKCS1_2048_8192_SHA384],
            "1.2.840.113549.1.1.13" => &[&signature::RSA_PKCS1_2048_8192_SHA512],
            "1.2.840.10045.4.3.2" => &[&signature::ECDSA_P256_SHA256_ASN1, &signature::ECDSA_P384_SHA256_ASN1],
            "1.2.840.10045.4.3.3" => &[&signature::ECDSA_P384_SHA384_ASN1, &signature::ECDSA_P256_SHA384_ASN1],
            "1.2.840.10045.4.3.4" => &[&signature::ECDSA_P521_SHA512_ASN1],
            _ => &[],
        };
        algorithms.iter().any(|algorithm| {
            let key = signature::UnparsedPublicKey::new(*algorithm, &authority.key_bits);
            key.verify(&self.signed_part, &self.signature).is_ok()
        })
    }

    /// Whether it leads to one of `authorities`, over the `intermediates` that came with it. Times are not looked at: see
    /// [`Self::out_of_time`], which says more.
    pub fn leads_to(&self, authorities: &[Certificate], intermediates: &[Certificate]) -> bool {
        let mut current = self;
        for _ in 0..=intermediates.len() {
            if authorities.iter().any(|authority| current.is_signed_by(authority)) {
                return true;
            }
            match intermediates.iter().find(|candidate| current.is_signed_by(candidate)) {
                Some(next) => current = next,
                None => return false,
            }
        }
        false
    }

    /// Whether a client that asks for this name or address accepts the certificate; a wildcard stands for one label.
    pub fn covers(&self, name: &str) -> bool {
        if let Ok(address) = name.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.dns_names.iter().any(|given| {
            let wildcard = given
                .strip_prefix("*.")
                .zip(name.split_once('.'))
                .is_some_and(|(domain, (_, parent))| parent.eq_ignore_ascii_case(domain));
            given.eq_ignore_ascii_case(name) || wildcard
        })
    }

    /// `sha256:<hex>` over the SubjectPublicKeyInfo: the form in which CAs are pinned (kubeadm.md section 9.1).
    pub fn public_key_hash(&self) -> String {
        format!("sha256:{}", hex(digest::digest(&digest::SHA256, &self.public_key).as_ref()))
    }
}

/// Why a certificate is not valid at a time: completes a sentence that begins with what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfTime {
    /// Its time is over.
    Expired(String),
    /// Its time has not come: most often a clock is wrong.
    NotYet(String),
}

impl OutOfTime {
    /// The rest of the sentence.
    pub fn words(&self) -> &str {
        match self {
            Self::Expired(words) | Self::NotYet(words) => words,
        }
    }
}

fn texts<'a>(attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> Vec<String> {
    attributes.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}

/// The pins of all CAs in a PEM text.
///
/// # Errors
/// [`Kind::Configuration`] if it holds no certificate.
pub fn public_key_hash(ca_pem: &str) -> Result<Vec<String>> {
    Ok(Certificate::parse_pem(ca_pem)?.iter().map(Certificate::public_key_hash).collect())
}
