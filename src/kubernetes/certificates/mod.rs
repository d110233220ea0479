//! The cluster's PKI (kubeadm.md section 2): which certificates there are, making them, judging what is there already.

mod authority;
mod catalogue;
mod certificate;
mod der;
mod issue;
mod key;
mod sign;

pub use authority::Authority;
pub use catalogue::{CATALOGUE, Entry, Signer, SubjectNames, Usage, alternative_names};
pub use certificate::{Certificate, public_key_hash};
pub use issue::{CertificateOrder, Issued, PkiFile, issue, pki_paths};
pub use key::{KeyAlgorithm, KeyPool, PrivateKey};
pub use sign::Subject;
