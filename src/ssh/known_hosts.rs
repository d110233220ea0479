//! What known_hosts files say about a host's key: pure, in OpenSSH's words (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! All lines of all files are read before anything is decided: `@revoked` wins wherever it stands, then any line with
//! the key trusts it. `@cert-authority` lines trust certificates (see `certificate`) and no plain key. Lines that cannot be
//! read are skipped, as OpenSSH does.

use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::pattern::matches_host;

/// A host's public key as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`...
    pub(super) algorithm: String,
    /// The key in SSH's encoding; the algorithm's name is its first field.
    pub(super) blob: Vec<u8>,
}

impl HostKey {
    /// A key from its encoding; `None` if that does not begin with a name.
    pub(super) fn from_blob(blob: Vec<u8>) -> Option<Self> {
        let length = u32::from_be_bytes(blob.get(..4)?.try_into().ok()?);
        let name = blob.get(4..usize::try_from(length).ok()?.checked_add(4)?)?;
        let algorithm = std::str::from_utf8(name).ok()?.to_owned();
        Some(Self { algorithm, blob })
    }

    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub(super) fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash.as_ref()))
    }

    /// The line that makes a host known by this key, without an end of line.
    pub(super) fn line(&self, host: &str, port: u16) -> String {
        self.line_for(&name_of(host, port))
    }

    /// As [`HostKey::line`], with the host's name hashed (HashKnownHosts).
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub(super) fn hashed_line(&self, host: &str, port: u16) -> std::io::Result<String> {
        let mut salt = [0_u8; 20];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| std::io::Error::other("no random numbers"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        let hash = hmac::sign(&key, name_of(host, port).as_bytes());
        Ok(self.line_for(&format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hash))))
    }

    fn line_for(&self, name: &str) -> String {
        format!("{name} {} {}", self.algorithm, STANDARD.encode(&self.blob))
    }
}

/// A known_hosts file that was read.
#[derive(Debug, Clone)]
pub(super) struct KnownHosts {
    /// Where it was read from.
    pub(super) path: PathBuf,
    /// What stands in it.
    pub(super) text: String,
}

/// A line that speaks about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The file.
    pub(super) file: PathBuf,
    /// The line, counted from 1.
    pub(super) line: usize,
    /// The key that stands there.
    pub(super) key: HostKey,
}

/// What the files say about a key of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A line has this key for the host.
    Trusted,
    /// No line speaks about the host, except perhaps a certificate authority's.
    Unknown {
        /// The `@cert-authority` line that matches the host.
        authority: Option<Place>,
    },
    /// The host is known, but only by keys of other algorithms. OpenSSH calls that changed, too: no new key is taken for a
    /// host that is known already.
    OtherAlgorithm(Vec<Place>),
    /// The host is known by other keys of the same algorithm.
    Changed(Vec<Place>),
    /// A line says that this key must not be trusted.
    Revoked(Place),
}

/// How known_hosts writes a host: the bare name for port 22, else `[name]:port`; lower case.
pub(super) fn name_of(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Judges the key that `host` showed on `port`.
///
/// A host on another port than 22 is looked up as `[host]:port`; if that is not known, a line for the bare name with
/// just this key is taken too, as OpenSSH does.
pub(super) fn verdict(files: &[KnownHosts], host: &str, port: u16, key: &HostKey) -> Verdict {
    let first = verdict_for_name(files, &name_of(host, port), key);
    if port == 22 {
        return first;
    }
    match (verdict_for_name(files, &name_of(host, 22), key), first) {
        (Verdict::Revoked(place), _) => Verdict::Revoked(place),
        (Verdict::Trusted, Verdict::Unknown { .. }) => Verdict::Trusted,
        (_, first) => first,
    }
}

/// The algorithms of the keys that the files have for a host, without repetition.
pub(super) fn algorithms(files: &[KnownHosts], host: &str, port: u16) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut names = vec![name_of(host, port)];
    if port != 22 {
        names.push(name_of(host, 22));
    }
    for (name, file) in names.iter().flat_map(|name| files.iter().map(move |file| (name, file))) {
        for (_, line) in lines(&file.text, &[name]) {
            if line.marker == Marker::None && !found.contains(&line.key.algorithm) {
                found.push(line.key.algorithm);
            }
        }
    }
    found
}

/// The lines that name a certificate authority for a host.
pub(super) fn authorities(files: &[KnownHosts], host: &str, port: u16) -> Vec<Place> {
    marked(files, host, port, Marker::CertificateAuthority)
}

/// The lines that revoke a key for a host.
pub(super) fn revoked(files: &[KnownHosts], host: &str, port: u16) -> Vec<Place> {
    marked(files, host, port, Marker::Revoked)
}

fn marked(files: &[KnownHosts], host: &str, port: u16, marker: Marker) -> Vec<Place> {
    let (name, bare) = (name_of(host, port), name_of(host, 22));
    let mut found = Vec::new();
    for file in files {
        for (number, line) in lines(&file.text, &[&name, &bare]) {
            if line.marker == marker {
                found.push(Place { file: file.path.clone(), line: number, key: line.key });
            }
        }
    }
    found
}

fn verdict_for_name(files: &[KnownHosts], name: &str, key: &HostKey) -> Verdict {
    let (mut trusted, mut authority) = (false, None);
    let (mut same_algorithm, mut other_algorithm) = (Vec::new(), Vec::new());
    for file in files {
        for (number, line) in lines(&file.text, &[name]) {
            let place = |key| Place { file: file.path.clone(), line: number, key };
            match line.marker {
                Marker::Revoked if line.key.blob == key.blob => return Verdict::Revoked(place(line.key)),
                Marker::Revoked => {}
                Marker::CertificateAuthority => authority = authority.or_else(|| Some(place(line.key))),
                Marker::None if line.key.blob == key.blob => trusted = true,
                Marker::None if line.key.algorithm == key.algorithm => same_algorithm.push(place(line.key)),
                Marker::None => other_algorithm.push(place(line.key)),
            }
        }
    }
    if trusted {
        Verdict::Trusted
    } else if !same_algorithm.is_empty() {
        Verdict::Changed(same_algorithm)
    } else if !other_algorithm.is_empty() {
        Verdict::OtherAlgorithm(other_algorithm)
    } else {
        Verdict::Unknown { authority }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    CertificateAuthority,
    Revoked,
}

#[derive(Debug)]
struct Line {
    marker: Marker,
    key: HostKey,
}

/// The readable lines that mean one of these names (lower case), with their numbers, counted from 1 over all lines. Keys
/// of other hosts are not decoded: a file with a line for each of many hosts is read for each of them.
fn lines(text: &str, names: &[&str]) -> impl Iterator<Item = (usize, Line)> {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let (marker, hosts, rest) = head(line)?;
        let meant = names.iter().any(|name| matches(hosts, name));
        meant.then(|| Some((index + 1, Line { marker, key: key(rest)? }))).flatten()
    })
}

/// The numbers of the lines that say something and cannot be read, counted from 1.
pub(super) fn unreadable(text: &str) -> Vec<usize> {
    let says_something = |line: &str| {
        let line = line.trim_start_matches([' ', '\t']);
        !line.trim().is_empty() && !line.starts_with('#')
    };
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| says_something(line) && !is_readable(line)).map(|(number, _)| number).collect()
}

/// Whether a line is one that OpenSSH does not skip.
fn is_readable(line: &str) -> bool {
    head(line).is_some_and(|(_, _, rest)| key(rest).is_some())
}

/// The beginning of `[@marker] hosts algorithm base64 [comment]`, separated by blanks or tabs, and the rest from the
/// algorithm on; `None` for what OpenSSH skips.
fn head(line: &str) -> Option<(Marker, &str, &str)> {
    let (first, rest) = field(line).filter(|(first, _)| !first.starts_with('#'))?;
    let marker = match first {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::CertificateAuthority,
        unknown if unknown.starts_with('@') => return None,
        hosts => return Some((Marker::None, hosts, rest)),
    };
    let (hosts, rest) = field(rest)?;
    Some((marker, hosts, rest))
}

/// The first field of a line and what follows it.
fn field(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches([' ', '\t']);
    let end = line.find([' ', '\t']).unwrap_or(line.len());
    (end > 0).then(|| line.split_at(end))
}

/// The key of `algorithm base64 [comment]`.
pub(super) fn key(text: &str) -> Option<HostKey> {
    let (algorithm, rest) = field(text)?;
    let (blob, _) = field(rest)?;
    let key = HostKey::from_blob(STANDARD.decode(blob.trim_end()).ok()?)?;
    (key.algorithm == algorithm).then_some(key)
}

/// Whether the hosts field of a line means `name` (lower case): a hashed name, or patterns separated by commas of which
/// one matches and no negated one does.
fn matches(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return matches_hash(hashed, name).unwrap_or(false);
    }
    // One plain name is the usual case.
    if hosts.is_ascii() && !hosts.contains(['*', '?', '!', ',']) {
        return hosts.eq_ignore_ascii_case(name);
    }
    matches_host(hosts, name)
}

/// `SALT|HASH`: HMAC-SHA1 of the name with the salt as key, both in base64.
fn matches_hash(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    Some(hmac::verify(&key, name.as_bytes(), &hash).is_ok())
}

/// Reads the files that exist, at most 8 MiB of each; a file that is missing is empty.
///
/// # Errors
/// A file that is there but cannot be read: trusting without it could overlook a revoked key.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<KnownHosts>, (PathBuf, std::io::Error)> {
    let mut files = Vec::new();
    for path in paths {
        match read_file(path) {
            Ok(text) => files.push(KnownHosts { path: path.clone(), text }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err((path.clone(), error)),
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    const LARGEST: u64 = 8 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(std::io::Error::other("the file is larger than 8 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
