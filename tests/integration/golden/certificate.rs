//! Certificates and keys as lines of text that can be compared: everything that two runs must have in common, byte for
//! byte where it is encoded, and nothing that is random.

use x509_parser::prelude::*;

/// Every PEM block of a text as lines; `None` for a text without any.
pub fn blocks(text: &str) -> Option<Vec<String>> {
    let found: Vec<Pem> = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok).collect();
    (!found.is_empty()).then(|| found.iter().flat_map(block).collect())
}

fn block(pem: &Pem) -> Vec<String> {
    match pem.label.as_str() {
        "CERTIFICATE" => certificate(&pem.contents),
        // The encoded length tells the kind and the size of a key, not the key.
        label => vec![format!("{label} of {} bytes", rounded(pem.contents.len()))],
    }
}

/// Integers of keys lose leading zero bytes now and then, so lengths of one kind differ by a few bytes.
fn rounded(length: usize) -> usize {
    (length + 32) / 64 * 64
}

fn certificate(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return vec!["a broken certificate".to_owned()] };
    let key = certificate.public_key();
    let validity = certificate.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    let mut lines = vec![
        format!("certificate version {}", certificate.version()),
        format!("serial number of {} bytes or less", certificate.raw_serial().len().div_ceil(9) * 9),
        format!("signature {}", certificate.signature_algorithm.algorithm.to_id_string()),
        format!("issuer {}", name(certificate.issuer())),
        format!("subject {}", name(certificate.subject())),
        // All of one authority begin with it and end a lifetime after they were made, be it by a join minutes later.
        format!("valid for {} half hours", (seconds + 30) / 1800),
        format!("key {} of {} bytes", key.algorithm.algorithm.to_id_string(), rounded(key.raw.len())),
    ];
    lines.extend(certificate.extensions().iter().map(extension));
    lines
}

/// A name with its bytes. The kubelet's own authority has the second of its making in its name: `host-ca@1795996800`.
fn name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    match text.rsplit_once('@') {
        Some((start, second)) if second.len() == 10 && second.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{start}@(second)")
        }
        _ => format!("{text} {}", hexadecimal(name.as_raw())),
    }
}

fn extension(extension: &X509Extension<'_>) -> String {
    let critical = if extension.critical { "critical" } else { "not critical" };
    let value = match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => {
            format!("subject key identifier of {} bytes", identifier.0.len())
        }
        ParsedExtension::AuthorityKeyIdentifier(identifier) => {
            let length = identifier.key_identifier.as_ref().map_or(0, |identifier| identifier.0.len());
            format!("authority key identifier of {length} bytes, {} in all", extension.value.len())
        }
        ParsedExtension::SubjectAlternativeName(names) => {
            let names: Vec<String> = names.general_names.iter().map(ToString::to_string).collect();
            format!("{} {}", names.join(" "), hexadecimal(extension.value))
        }
        _ => hexadecimal(extension.value),
    };
    format!("extension {} {critical}: {value}", extension.oid.to_id_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::blocks;
    use clusterctl::kubernetes::certificates::{Authority, KeyAlgorithm, PrivateKey};

    fn authority(name: &str, algorithm: KeyAlgorithm, now: u64, lifetime: u64) -> Vec<String> {
        let key = PrivateKey::generate(algorithm).unwrap();
        let private = blocks(key.pem().expose()).unwrap();
        let authority = Authority::fresh(name, key, now, lifetime).unwrap();
        [private, blocks(authority.pem()).unwrap()].concat()
    }

    #[test]
    fn what_is_random_is_left_out_and_all_else_is_there() {
        let one = authority("kubernetes", KeyAlgorithm::EcdsaP256, 1_000_000, 3600);
        assert_eq!(one, authority("kubernetes", KeyAlgorithm::EcdsaP256, 1_000_300, 3600));
        for other in [
            authority("etcd-ca", KeyAlgorithm::EcdsaP256, 1_000_000, 3600),
            authority("kubernetes", KeyAlgorithm::Rsa2048, 1_000_000, 3600),
            authority("kubernetes", KeyAlgorithm::EcdsaP256, 1_000_000, 7200),
        ] {
            assert_ne!(one, other);
        }
        assert!(one.iter().any(|line| line.starts_with("extension 2.5.29.15 critical")), "{one:#?}");
        assert!(one.iter().any(|line| line.starts_with("subject CN=kubernetes 3015")), "{one:#?}");
        let of_second = |name| {
            let lines = authority(name, KeyAlgorithm::EcdsaP256, 1_000_000, 3600);
            lines.into_iter().filter(|line| line.starts_with("issuer ")).collect::<Vec<_>>()
        };
        assert_eq!(of_second("cp1-ca@1795996800"), of_second("cp1-ca@1795996801"));
        assert_ne!(of_second("cp1-ca@1795996800"), of_second("cp2-ca@1795996800"));
    }

    #[test]
    fn texts_without_pem_have_no_blocks() {
        assert_eq!(blocks("apiVersion: v1\n"), None);
    }
}
