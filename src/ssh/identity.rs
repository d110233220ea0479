//! Private key files: read, and unlocked only when a host has said that it accepts the key.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::{
    Algorithm, Certificate, PrivateKey, PublicKey, PublicKeyBase64 as _, decode_secret_key, load_public_key,
};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Larger files are no keys.
const LARGEST: u64 = 64 << 10;

/// A key file.
#[derive(Debug)]
pub(super) struct KeyFile {
    /// Where it was read from.
    pub(super) path: PathBuf,
    /// The public key; unknown for a locked key in an old format without a `.pub` file beside it.
    pub(super) public: Option<PublicKey>,
    /// The private key.
    pub(super) private: Private,
    /// Certificates for it: the one beside the file, and others that are named.
    pub(super) certificates: Vec<Certificate>,
    /// Whether the key itself is named, and not a certificate for it alone.
    pub(super) is_named: bool,
}

/// The private half of a key file.
#[derive(Clone)]
pub(super) enum Private {
    /// Readable.
    Open(Arc<PrivateKey>),
    /// Locked by a passphrase; the file's text.
    Locked(Arc<Zeroizing<String>>),
    /// The file holds a public key only, or one that works with a device: an agent must have the private one.
    Absent,
}

impl std::fmt::Debug for Private {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Open(_) => "Open(***)",
            Self::Locked(_) => "Locked(***)",
            Self::Absent => "Absent",
        })
    }
}

impl KeyFile {
    /// The public key in SSH's encoding, to compare keys without their comments.
    pub(super) fn blob(&self) -> Option<Vec<u8>> {
        self.public.as_ref().map(|key| key.public_key_bytes())
    }

    /// Takes a certificate, if it is for this key and not there yet; whether it is for this key.
    pub(super) fn add(&mut self, certificate: &Certificate) -> bool {
        let its_key = PublicKey::new(certificate.public_key().clone(), "").public_key_bytes();
        let is_for_it = self.blob() == Some(its_key);
        if is_for_it && !self.certificates.contains(certificate) {
            self.certificates.push(certificate.clone());
        }
        is_for_it
    }

    /// A certificate whose key is named by no file.
    pub(super) fn of_certificate(path: PathBuf, key: PublicKey, certificate: Certificate) -> Self {
        let certificates = vec![certificate];
        Self { path, public: Some(key), private: Private::Absent, certificates, is_named: false }
    }
}

/// Reads a key file with the certificate beside it (`KEY-cert.pub`); blocks. A certificate that cannot be read is left out,
/// as OpenSSH does.
///
/// # Errors
/// In words, why the file holds no usable key.
pub(super) fn load(path: &Path) -> Result<KeyFile, String> {
    let mut file = load_key(path)?;
    // `KEY.pub` names the key too; its certificate is the same.
    let key = match path.extension().is_some_and(|extension| extension == "pub") {
        true => path.with_extension(""),
        false => path.to_owned(),
    };
    if let Ok(certificate) = load_certificate(&beside(&key, "-cert.pub")) {
        file.add(&certificate);
    }
    Ok(file)
}

/// `/home/ops/.ssh/id` and `.pub` are `/home/ops/.ssh/id.pub`.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.to_owned().into_os_string();
    beside.push(end);
    beside.into()
}

/// Reads a certificate; blocks.
///
/// # Errors
/// In words, why the file holds none.
pub(super) fn load_certificate(path: &Path) -> Result<Certificate, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    Certificate::from_openssh(text.trim()).map_err(|error| format!("the file holds no certificate: {error}"))
}

fn load_key(path: &Path) -> Result<KeyFile, String> {
    let certificates = Vec::new();
    let text = match read(path) {
        Ok(text) => text,
        // As OpenSSH does: `KEY.pub` alone names a key that an agent or a device holds.
        Err(error) => match load_public_key(beside(path, ".pub")) {
            Ok(public) => {
                let path = path.to_owned();
                return Ok(KeyFile {
                    path,
                    public: Some(public),
                    private: Private::Absent,
                    certificates,
                    is_named: true,
                });
            }
            Err(_) => return Err(error.to_string()),
        },
    };
    let path = path.to_owned();
    if !text.contains("-----BEGIN ") && !text.starts_with("PuTTY-User-Key-File-") {
        let public = load_public_key(&path).map_err(|_| "the file holds no key".to_owned())?;
        return Ok(KeyFile { path, public: Some(public), private: Private::Absent, certificates, is_named: true });
    }
    if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
        // This format shows the public key of a locked one, so that the host can be asked first.
        let key = PrivateKey::from_openssh(text.trim_start()).map_err(|error| error.to_string())?;
        let public = Some(key.public_key().clone());
        let on_device = matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
        let private = match key.is_encrypted() {
            // What signs is the device; an agent knows how to ask it.
            _ if on_device => Private::Absent,
            true => Private::Locked(Arc::new(text)),
            false => Private::Open(Arc::new(key)),
        };
        return Ok(KeyFile { path, public, private, certificates, is_named: true });
    }
    if is_locked(&text) {
        let (public, private) = (load_public_key(beside(&path, ".pub")).ok(), Private::Locked(Arc::new(text)));
        return Ok(KeyFile { path, public, private, certificates, is_named: true });
    }
    let key = decode_secret_key(&text, None).map_err(|error| error.to_string())?;
    let public = Some(key.public_key().clone());
    Ok(KeyFile { path, public, private: Private::Open(Arc::new(key)), certificates, is_named: true })
}

/// Unlocks the text of a key file; blocks, since the key derivation is slow on purpose.
///
/// # Errors
/// In words; a wrong passphrase cannot be told from a damaged file.
pub(super) fn unlock(text: &str, passphrase: &Secret) -> Result<PrivateKey, String> {
    decode_secret_key(text, Some(passphrase.expose())).map_err(|_| "the passphrase is wrong".to_owned())
}

/// Keys that a person has unlocked, each once for all hosts. Clones share them.
#[derive(Clone, Default)]
pub struct Unlocked(Arc<Mutex<HashMap<PathBuf, Slot>>>);

/// What became of a locked file; held while a person types its passphrase.
type Slot = Arc<tokio::sync::Mutex<Option<Result<Arc<PrivateKey>, String>>>>;

impl Unlocked {
    pub(super) fn slot(&self, file: &Path) -> Slot {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(file.to_owned()).or_default())
    }
}

impl std::fmt::Debug for Unlocked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Unlocked(***)")
    }
}

/// Formats older than OpenSSH's own: PKCS#8, PEM's `Proc-Type` header, PuTTY.
fn is_locked(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
        || text.lines().any(|line| line.strip_prefix("Encryption: ").is_some_and(|cipher| cipher.trim() != "none"))
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// The files OpenSSH tries when none is named, in our order of preference; those that exist, be it as a public key only.
pub(super) fn usual_files(home: &Path) -> Vec<PathBuf> {
    ["id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa"]
        .iter()
        .map(|name| home.join(".ssh").join(name))
        .filter(|path| path.is_file() || beside(path, ".pub").is_file())
        .collect()
}
