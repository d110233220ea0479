//! Whether a host's certificate is to be trusted (PROTOCOL.certkeys; ssh-keygen(1), CERTIFICATES): pure.

use russh::keys::Certificate;
use russh::keys::PublicKey;
use russh::keys::PublicKeyBase64 as _;
use russh::keys::ssh_key::certificate::CertType;

use super::known_hosts::{HostKey, KnownHosts, authorities, revoked};

/// Judges a certificate that `host` showed on `port`, at `now` in seconds since 1970.
///
/// # Errors
/// In words, why it is not taken.
pub(super) fn judge(
    certificate: &Certificate,
    files: &[KnownHosts],
    host: &str,
    port: u16,
    now: u64,
) -> Result<(), String> {
    let signer = PublicKey::new(certificate.signature_key().clone(), "").public_key_bytes();
    let signer = HostKey::from_blob(signer).ok_or("its authority has a key that cannot be read")?;
    let shown = signer.fingerprint();
    let is_signer = |key: &HostKey| key.blob == signer.blob;
    if let Some(place) = revoked(files, host, port).iter().find(|place| is_signer(&place.key)) {
        return Err(format!("the authority {shown} is revoked by {}:{}", place.file.display(), place.line));
    }
    if !authorities(files, host, port).iter().any(|place| is_signer(&place.key)) {
        return Err(format!("no file names the authority {shown} for this host"));
    }
    if certificate.verify_signature().is_err() {
        return Err(format!("the signature of the authority {shown} is wrong"));
    }
    if certificate.cert_type() != CertType::Host {
        return Err("it is a user's certificate".to_owned());
    }
    if now < certificate.valid_after() {
        return Err("it is not valid yet; is this machine's clock right?".to_owned());
    }
    if now >= certificate.valid_before() {
        return Err("it has expired".to_owned());
    }
    if !certificate.critical_options().is_empty() {
        return Err("it has critical options, of which none is known for hosts".to_owned());
    }
    // A certificate without names is for every host of the authority (PROTOCOL.certkeys, "valid principals").
    let principals = certificate.valid_principals();
    match principals.is_empty() || principals.iter().any(|principal| *principal == host.to_lowercase()) {
        true => Ok(()),
        false => Err(format!("it is for {}, not for {host}", principals.join(", "))),
    }
}
