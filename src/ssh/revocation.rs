//! RevokedHostKeys: keys as text, one a line, or OpenSSH's key revocation list (PROTOCOL.krl, ssh-keygen(1)).
//!
//! As with OpenSSH, a list that is named and cannot be read stops every host: it might have said no.

use std::io::Read as _;
use std::path::Path;

use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use russh::keys::{Certificate, PublicKey, PublicKeyBase64 as _};

use super::host_key::Shown;
use super::known_hosts::{self, HostKey};

/// A larger list is none.
const LARGEST: u64 = 64 << 20;
/// How a revocation list begins.
const MAGIC: &[u8] = b"SSHKRL\n\0";
/// The one version of its format.
const VERSION: u32 = 1;

/// The sections of a revocation list.
mod section {
    pub(super) const CERTIFICATES: u8 = 1;
    pub(super) const KEYS: u8 = 2;
    pub(super) const SHA1: u8 = 3;
    pub(super) const SIGNATURE: u8 = 4;
    pub(super) const SHA256: u8 = 5;
    pub(super) const EXTENSION: u8 = 255;
}

/// What the section about certificates of one authority consists of.
mod certificates {
    pub(super) const SERIALS: u8 = 0x20;
    pub(super) const RANGE: u8 = 0x21;
    pub(super) const BITMAP: u8 = 0x22;
    pub(super) const NAMES: u8 = 0x23;
    pub(super) const EXTENSION: u8 = 0x39;
}

/// Whether the list in a file revokes what a host showed: its key, its certificate, or the authority of that; blocks.
///
/// # Errors
/// In words that end a sentence, when the list cannot be read.
pub(super) fn is_revoked(path: &Path, shown: &Shown) -> Result<bool, String> {
    let mut list = Vec::new();
    let opened = std::fs::File::open(path).map_err(|error| error.to_string())?;
    opened.take(LARGEST + 1).read_to_end(&mut list).map_err(|error| error.to_string())?;
    if list.len() as u64 > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes"));
    }
    judge(&list, shown)
}

/// The decision; pure.
fn judge(list: &[u8], shown: &Shown) -> Result<bool, String> {
    let signer = shown.certificate.as_ref().map(signer);
    if list.starts_with(MAGIC) {
        let by_key = revokes(list, &shown.key.blob, shown.certificate.as_ref())?;
        return match signer {
            Some(signer) if !by_key => revokes(list, &signer, None),
            _ => Ok(by_key),
        };
    }
    let text = String::from_utf8_lossy(list);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let HostKey { blob, .. } =
            known_hosts::key(line).ok_or_else(|| format!("its line {} holds no key", index + 1))?;
        if blob == shown.key.blob || signer.as_ref() == Some(&blob) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The key of the authority that signed a certificate, in SSH's encoding.
fn signer(certificate: &Certificate) -> Vec<u8> {
    PublicKey::new(certificate.signature_key().clone(), "").public_key_bytes()
}

/// Whether a revocation list has this key, or this certificate of it.
fn revokes(list: &[u8], key: &[u8], certificate: Option<&Certificate>) -> Result<bool, String> {
    let mut rest = Fields(&list[MAGIC.len()..]);
    if rest.number()? != VERSION {
        return Err("it has a format of another version".to_owned());
    }
    // Its own version, its date, flags, a reserved field, a comment.
    for _ in 0..3 {
        rest.long()?;
    }
    rest.string()?;
    rest.string()?;
    let is_hash = |algorithm: &'static Algorithm, hash: &[u8]| digest::digest(algorithm, key).as_ref() == hash;
    let mut found = false;
    while !rest.is_empty() {
        let kind = rest.byte()?;
        // Nothing but signatures follows the first one, and nobody but the file's owner vouches for it.
        if kind == section::SIGNATURE {
            break;
        }
        let mut section = Fields(rest.string()?);
        match kind {
            section::CERTIFICATES => found |= revokes_certificate(section, certificate)?,
            section::KEYS | section::SHA1 | section::SHA256 => {
                while !section.is_empty() {
                    let entry = section.string()?;
                    found |= match kind {
                        section::KEYS => entry == key,
                        section::SHA1 => is_hash(&SHA1_FOR_LEGACY_USE_ONLY, entry),
                        _ => is_hash(&SHA256, entry),
                    };
                }
            }
            section::EXTENSION => section.extension()?,
            unknown => return Err(format!("it has a section of the unknown kind {unknown}")),
        }
    }
    Ok(found)
}

/// Whether the section about an authority's certificates means this one. One without a number is meant by its name alone.
fn revokes_certificate(mut section: Fields<'_>, certificate: Option<&Certificate>) -> Result<bool, String> {
    let authority = section.string()?;
    section.string()?;
    let of_authority = |certificate: &&Certificate| authority.is_empty() || signer(certificate) == authority;
    let certificate = certificate.filter(of_authority);
    let serial = certificate.map(Certificate::serial).filter(|serial| *serial != 0);
    let mut found = false;
    while !section.is_empty() {
        let kind = section.byte()?;
        let mut part = Fields(section.string()?);
        match kind {
            certificates::SERIALS => {
                while !part.is_empty() {
                    let revoked = part.long()?;
                    found |= serial == Some(revoked);
                }
            }
            certificates::RANGE => {
                let range = part.long()?..=part.long()?;
                found |= serial.is_some_and(|serial| range.contains(&serial));
            }
            certificates::BITMAP => {
                let first = part.long()?;
                let bits = part.string()?;
                found |= serial.and_then(|serial| serial.checked_sub(first)).is_some_and(|bit| is_set(bits, bit));
            }
            certificates::NAMES => {
                while !part.is_empty() {
                    let name = part.string()?;
                    found |= certificate.is_some_and(|certificate| certificate.key_id().as_bytes() == name);
                }
            }
            certificates::EXTENSION => part.extension()?,
            unknown => return Err(format!("it names certificates in the unknown way {unknown}")),
        }
    }
    Ok(found)
}

/// Whether a bit of a large number is set; bit 0 is the last one of the last byte.
fn is_set(number: &[u8], bit: u64) -> bool {
    let byte = usize::try_from(bit / 8).ok().and_then(|from_end| number.len().checked_sub(from_end + 1));
    byte.is_some_and(|byte| (number[byte] >> (bit % 8)) & 1 == 1)
}

/// The fields of a list that are not read yet (RFC 4251 section 5).
#[derive(Debug, Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], String> {
        self.take(SIZE)?.try_into().map_err(|_| "it is cut off".to_owned())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| "it is cut off")?)
    }

    /// An extension that need not be understood is passed over.
    fn extension(&mut self) -> Result<(), String> {
        let name = String::from_utf8_lossy(self.string()?).into_owned();
        match self.byte()? {
            0 => Ok(()),
            _ => Err(format!("it wants the extension {name:?} to be understood")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use russh::keys::{Certificate, load_public_key};

    use super::{is_revoked, is_set, judge};
    use crate::ssh::host_key::Shown;
    use crate::ssh::known_hosts::HostKey;
    use crate::ssh::testing::{command, make_key, program};

    /// What a host with this key shows, and with the certificate beside it.
    fn shown(private: &Path, with_certificate: bool) -> Shown {
        use russh::keys::PublicKeyBase64 as _;
        let public = load_public_key(private.with_extension("pub")).expect("a key");
        let key = HostKey::from_blob(public.public_key_bytes()).expect("a key");
        let certificate = with_certificate.then(|| {
            let beside = format!("{}-cert.pub", private.display());
            Certificate::from_openssh(std::fs::read_to_string(beside).expect("readable").trim()).expect("a certificate")
        });
        Shown { key, certificate }
    }

    /// `ssh-keygen` is the judge: `-Q` says what its list revokes.
    fn by_openssh(list: &Path, file: &Path) -> bool {
        let asked = command("ssh-keygen").args(["-Q", "-f"]).arg(list).arg(file).output().expect("ssh-keygen starts");
        !asked.status.success()
    }

    #[test]
    fn lists_are_read_as_openssh_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let authority = make_key(path, "authority", "ed25519", "");
        let other_authority = make_key(path, "other_authority", "ed25519", "");
        let ca = authority.with_extension("pub").display().to_string();
        let keys: Vec<PathBuf> =
            ["one", "two", "three"].iter().map(|name| make_key(path, name, "ed25519", "")).collect();
        for (key, (serial, signer)) in keys.iter().zip([("7", &authority), ("70", &authority), ("0", &other_authority)])
        {
            let (signer, public) = (signer.display().to_string(), key.with_extension("pub").display().to_string());
            let name = key.file_name().expect("a name").to_string_lossy().into_owned();
            program("ssh-keygen", &["-q", "-s", &signer, "-I", &name, "-z", serial, "-h", &public]);
        }
        let public = std::fs::read_to_string(keys[0].with_extension("pub")).expect("readable");
        let hash = |kind: &str| {
            let line = program("ssh-keygen", &["-l", "-E", "sha256", "-f", &keys[1].display().to_string()]);
            format!("{kind}: {}\n", line.split(' ').nth(1).expect("a fingerprint"))
        };
        // "none" means whoever signed.
        let lists = [
            public.clone(),
            format!("sha1: {public}"),
            format!("sha256: {public}"),
            hash("hash"),
            "serial: 7\n".to_owned(),
            "serial: 1-69\n".to_owned(),
            "serial: 1\nserial: 3\nserial: 7\nserial: 9\nserial: 11\nserial: 14-16\nserial: 70\n".to_owned(),
            "id: two\nid: nobody\n".to_owned(),
            std::fs::read_to_string(&ca).expect("readable"),
        ];
        let (mut revoked, mut asked) = (0, 0);
        for (index, specification) in lists.iter().enumerate() {
            let (list, text) = (path.join(format!("list{index}")), path.join(format!("specification{index}")));
            std::fs::write(&text, specification).expect("written");
            for of_authority in [ca.as_str(), "none"] {
                let (list_file, text_file) = (list.display().to_string(), text.display().to_string());
                program("ssh-keygen", &["-q", "-k", "-f", &list_file, "-s", of_authority, &text_file]);
                for key in &keys {
                    let certificate = PathBuf::from(format!("{}-cert.pub", key.display()));
                    for (file, with_certificate) in [(key.with_extension("pub"), false), (certificate, true)] {
                        let ours = is_revoked(&list, &shown(key, with_certificate)).expect("readable");
                        assert_eq!(ours, by_openssh(&list, &file), "{file:?} by {specification:?}");
                        revoked += usize::from(ours);
                        asked += 1;
                    }
                }
            }
        }
        assert!(revoked > 10 && asked > revoked + 20, "{revoked} of {asked}");
        let whole = std::fs::read(path.join("list4")).expect("readable");
        let key = shown(&keys[0], true);
        for length in super::MAGIC.len()..whole.len() {
            assert!(!judge(&whole[..length], &key).unwrap_or(false), "revoked by {length} bytes");
        }
    }

    #[test]
    fn a_text_has_a_key_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = make_key(folder.path(), "key", "ed25519", "");
        let public = std::fs::read_to_string(key.with_extension("pub")).expect("readable");
        let list = format!("# gone\n\n  {public}");
        assert_eq!(judge(list.as_bytes(), &shown(&key, false)), Ok(true));
        assert_eq!(judge(b"# gone\n", &shown(&key, false)), Ok(false));
        assert_eq!(judge(b"\nnonsense\n", &shown(&key, false)), Err("its line 2 holds no key".to_owned()));
        assert!(is_revoked(&folder.path().join("missing"), &shown(&key, false)).is_err());
    }

    #[test]
    fn bits_are_counted_from_the_end() {
        assert!(is_set(&[1, 0b100], 2) && is_set(&[1, 0b100], 8));
        assert!(!is_set(&[1, 0b100], 0) && !is_set(&[1, 0b100], 16) && !is_set(&[], u64::MAX));
    }
}
