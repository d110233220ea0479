//! Certificates as kubeadm, that is Go, makes them (kubeadm.md section 2.3).
//!
//! The DER is written here, not by a library, for three things that one could not do: a leaf without a subject key
//! identifier, the issuer's name copied byte by byte (a CA that a person brings may have attributes twice), and Go's
//! identifiers of CA keys.

use std::net::IpAddr;

use aws_lc_rs::{digest, rand};

use super::catalogue::Usage;
use super::der::{self, tag};
use super::key::PrivateKey;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::moment;

/// What a certificate says of its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Common name; must not be empty.
    pub common_name: String,
    /// Organizations: groups, to Kubernetes.
    pub organizations: Vec<String>,
    /// What the key may be used for; a CA has none.
    pub usages: Vec<Usage>,
    /// DNS names; they are sorted and freed of duplicates before signing.
    pub dns_names: Vec<String>,
    /// Addresses; they are freed of duplicates before signing.
    pub addresses: Vec<IpAddr>,
}

/// Who signs.
pub(super) struct Issuer<'a> {
    /// The encoded name; `None` when the certificate signs itself.
    pub(super) name: Option<&'a [u8]>,
    /// The subject key identifier of its certificate.
    pub(super) key_identifier: Option<&'a [u8]>,
    /// Its key.
    pub(super) key: &'a PrivateKey,
}

/// From when until when, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

/// The encoded certificate of `public_key` (a SubjectPublicKeyInfo).
pub(super) fn certificate(
    subject: &Subject,
    public_key: &[u8],
    validity: Validity,
    issuer: &Issuer<'_>,
    is_authority: bool,
) -> Result<Vec<u8>> {
    let subject_name = name(subject);
    let algorithm = issuer.key.signature_algorithm();
    let time = |seconds| {
        let (tag, text) = moment::x509_time(seconds);
        der::element(tag, text.as_bytes())
    };
    let contents = der::constructed(
        tag::SEQUENCE,
        &[
            der::constructed(0xa0, &[der::integer(2)]),
            der::integer(serial_number()?),
            algorithm.clone(),
            issuer.name.map_or_else(|| subject_name.clone(), <[u8]>::to_vec),
            der::constructed(tag::SEQUENCE, &[time(validity.not_before), time(validity.not_after)]),
            subject_name,
            public_key.to_vec(),
            der::constructed(0xa3, &[extensions(subject, public_key, issuer, is_authority)?]),
        ],
    );
    let signature = issuer.key.sign(&contents)?;
    Ok(der::constructed(tag::SEQUENCE, &[contents, algorithm, der::bit_string(&signature)]))
}

/// Random, 1 to 2^63 - 2.
fn serial_number() -> Result<u64> {
    loop {
        let mut bytes = [0; 8];
        rand::fill(&mut bytes).map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
        let number = u64::from_be_bytes(bytes) >> 1;
        if (1..=(1 << 63) - 2).contains(&number) {
            return Ok(number);
        }
    }
}

/// The encoded name: organizations, then the common name.
pub(super) fn name(subject: &Subject) -> Vec<u8> {
    let attribute = |last: u8, text: &str| {
        let printable = text.chars().all(|one| one.is_ascii_alphanumeric() || " '()+,-./:=?".contains(one));
        let string = der::element(if printable { tag::PRINTABLE_STRING } else { tag::UTF8_STRING }, text.as_bytes());
        der::constructed(tag::SEQUENCE, &[der::identifier(&[0x55, 4, last]), string])
    };
    let mut sets = Vec::new();
    if !subject.organizations.is_empty() {
        // All organizations share one set, as Go puts them; members of a set are sorted.
        let mut members: Vec<_> = subject.organizations.iter().map(|group| attribute(10, group)).collect();
        members.sort();
        sets.push(der::constructed(tag::SET, &members));
    }
    sets.push(der::constructed(tag::SET, &[attribute(3, &subject.common_name)]));
    der::constructed(tag::SEQUENCE, &sets)
}

/// Go's identifier of a key: the first 160 bits of the SHA-256 of its bits.
fn key_identifier(public_key: &[u8]) -> Option<Vec<u8>> {
    let (fields, _) = der::expect(public_key, tag::SEQUENCE)?;
    let (_, rest) = der::expect(fields, tag::SEQUENCE)?;
    let (bits, _) = der::expect(rest, tag::BIT_STRING)?;
    Some(digest::digest(&digest::SHA256, bits.get(1..)?).as_ref()[..20].to_vec())
}

/// The extensions in Go's order.
fn extensions(subject: &Subject, public_key: &[u8], issuer: &Issuer<'_>, is_authority: bool) -> Result<Vec<u8>> {
    // digitalSignature, keyEncipherment and, for a CA, keyCertSign: bits 0, 2 and 5.
    let key_usage: &[u8] = if is_authority { &[2, 0b1010_0100] } else { &[5, 0b1010_0000] };
    let mut list = vec![extension(&[0x55, 0x1d, 15], true, der::element(tag::BIT_STRING, key_usage))];
    if !subject.usages.is_empty() {
        let usages: Vec<_> = subject.usages.iter().map(|usage| der::identifier(usage.identifier())).collect();
        list.push(extension(&[0x55, 0x1d, 37], false, der::constructed(tag::SEQUENCE, &usages)));
    }
    let constraints = if is_authority { vec![der::element(tag::BOOLEAN, &[0xff])] } else { vec![] };
    list.push(extension(&[0x55, 0x1d, 19], true, der::constructed(tag::SEQUENCE, &constraints)));
    if is_authority {
        let identifier = key_identifier(public_key)
            .ok_or_else(|| Failure::new(Kind::Internal, "cannot read the public key of a key that was just made"))?;
        list.push(extension(&[0x55, 0x1d, 14], false, der::element(tag::OCTET_STRING, &identifier)));
    }
    if let (Some(_), Some(identifier)) = (issuer.name, issuer.key_identifier) {
        let value = der::constructed(tag::SEQUENCE, &[der::element(0x80, identifier)]);
        list.push(extension(&[0x55, 0x1d, 35], false, value));
    }
    list.extend(names_extension(subject));
    Ok(der::constructed(tag::SEQUENCE, &list))
}

fn extension(id: &[u8], critical: bool, value: Vec<u8>) -> Vec<u8> {
    let mut parts = vec![der::identifier(id)];
    if critical {
        parts.push(der::element(tag::BOOLEAN, &[0xff]));
    }
    parts.push(der::element(tag::OCTET_STRING, &value));
    der::constructed(tag::SEQUENCE, &parts)
}

/// The extension that holds names and addresses, if there are any.
pub(super) fn names_extension(subject: &Subject) -> Option<Vec<u8>> {
    let names = alternative_names(subject);
    (!names.is_empty()).then(|| extension(&[0x55, 0x1d, 17], false, der::constructed(tag::SEQUENCE, &names)))
}

fn alternative_names(subject: &Subject) -> Vec<Vec<u8>> {
    let mut dns_names: Vec<_> = subject.dns_names.iter().collect();
    dns_names.sort();
    dns_names.dedup();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in &subject.addresses {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    let dns_names = dns_names.into_iter().map(|name| der::element(0x82, name.as_bytes()));
    let addresses = addresses.into_iter().map(|address| match address {
        IpAddr::V4(address) => der::element(0x87, &address.octets()),
        IpAddr::V6(address) => der::element(0x87, &address.octets()),
    });
    dns_names.chain(addresses).collect()
}
