//! The cluster's PKI (kubeadm.md section 2): which certificates there are, making them, judging what is there already.

mod ahead;
mod authority;
mod catalogue;
mod certificate;
mod der;
mod issue;
mod key;
mod request;
mod rsa;
mod sign;

pub use ahead::make_ahead;
pub use authority::Authority;
pub use catalogue::{CATALOGUE, Entry, Signer, SubjectNames, Usage, alternative_names};
pub use certificate::{Certificate, OutOfTime, public_key_hash};
pub use issue::{CertificateOrder, EXTERNAL, Issued, PkiFile, all_at_once, issue, pki_paths};
pub use key::{KeyAlgorithm, KeyPool, PrivateKey};
pub use request::signing_request;
pub use sign::Subject;

#[cfg(test)]
mod handshake_tests;
