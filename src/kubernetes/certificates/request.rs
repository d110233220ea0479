//! Certificate signing requests, as kubeadm, that is Go, makes them (kubeadm.md section 2.5).

use super::der::{self, tag};
use super::key::{PrivateKey, pem_block};
use super::sign::{self, Subject};
use crate::failure::Result;

/// extensionRequest of PKCS#9.
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

/// The request for a certificate of `key`, PEM. Usages are not part of it: as with upstream, whoever signs decides on
/// them.
///
/// # Errors
/// [`crate::failure::Kind::Internal`] if signing fails.
pub fn signing_request(subject: &Subject, key: &PrivateKey) -> Result<String> {
    let attributes = sign::names_extension(subject).map(|names| {
        let extensions = der::constructed(tag::SEQUENCE, &[names]);
        der::constructed(
            tag::SEQUENCE,
            &[der::identifier(EXTENSION_REQUEST), der::constructed(tag::SET, &[extensions])],
        )
    });
    let contents = der::constructed(
        tag::SEQUENCE,
        &[der::integer(0), sign::name(subject), key.public_der(), der::element(0xa0, &attributes.unwrap_or_default())],
    );
    let signature = key.sign(&contents)?;
    let request = der::constructed(tag::SEQUENCE, &[contents, key.signature_algorithm(), der::bit_string(&signature)]);
    Ok(pem_block("CERTIFICATE REQUEST", &request))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::{Subject, signing_request};
    use crate::kubernetes::certificates::{KeyAlgorithm, PrivateKey};

    #[rstest]
    #[case(&["cp1", "localhost"], 1)]
    #[case(&[], 0)]
    fn a_request_holds_names_and_is_signed(#[case] names: &[&str], #[case] extensions: usize) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let subject = Subject {
            common_name: "cp1".into(),
            organizations: vec!["system:nodes".into()],
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let text = signing_request(&subject, &key).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        assert_eq!(pem.label, "CERTIFICATE REQUEST");
        let (rest, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        assert!(rest.is_empty());
        let information = &request.certification_request_info;
        assert_eq!(information.subject.to_string(), "O=system:nodes, CN=cp1");
        assert_eq!(request.requested_extensions().map_or(0, Iterator::count), extensions);
        assert_eq!(information.subject_pki.raw, key.public_der());
    }
}
