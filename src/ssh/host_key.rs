//! From the verdict of the known_hosts files to a connection that goes on or a refusal a person can act on.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::Certificate;

use crate::failure::{Failure, Kind, Result};
use crate::inventory::HostKeys;

use super::certificate;
use super::known_hosts::{self, HostKey, Place, Verdict};
use super::lookup::{COMMAND, Reason, known_lines};
use super::remember::{Manner, remember};
use super::revocation;
use super::target::Target;

/// What a host showed.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// Its key.
    pub(super) key: HostKey,
    /// The certificate that the key came in.
    pub(super) certificate: Option<Certificate>,
}

/// Decides whether to go on with a host that showed a key or a certificate; blocks on files.
///
/// A pin in the inventory decides alone, but never for a revoked key. A certificate is good when an authority in the files
/// has signed it for this host; else its key is judged as if it had come alone, as OpenSSH does.
///
/// # Errors
/// [`Kind::HostKey`] for a key that is unknown, changed or revoked, or when the files cannot be read or written.
pub(super) fn check(target: &Target, shown: &Shown) -> Result<()> {
    let key = &shown.key;
    if let Some(list) = is_in_list(target, shown)? {
        return Err(revoked(target, key, &list.display().to_string()));
    }
    let files = known_lines(target, Reason::Judge(key))?;
    let (name, port) = target.known_as();
    let verdict = known_hosts::verdict(&files, name, port, key);
    if !target.host_key_pins.is_empty() && !matches!(verdict, Verdict::Revoked(_)) {
        return pinned(target, key);
    }
    let mut refused = None;
    if let (Some(certificate), false) = (&shown.certificate, matches!(verdict, Verdict::Revoked(_))) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        match certificate::judge(certificate, &files, name, port, now) {
            Ok(()) => return Ok(()),
            Err(why) => refused = Some(why),
        }
    }
    let with_reason = |failure: Failure| match &refused {
        Some(why) => failure.caused_by(format!("its certificate is not taken: {why}")),
        None => failure,
    };
    let verdict = match (verdict, &refused) {
        // What is wrong with the certificate says more than that there is an authority.
        (Verdict::Unknown { .. }, Some(_)) => Verdict::Unknown { authority: None },
        (verdict, _) => verdict,
    };
    decide(target, key, verdict).map_err(with_reason)
}

/// The list of revoked keys that has what a host showed; blocks.
///
/// # Errors
/// [`Kind::HostKey`] when a list is named and cannot be read.
pub(super) fn is_in_list<'a>(target: &'a Target, shown: &Shown) -> Result<Option<&'a Path>> {
    let Some(list) = &target.revoked_host_keys else { return Ok(None) };
    let is_revoked = revocation::is_revoked(list, shown).map_err(|why| {
        Failure::new(Kind::HostKey, format!("cannot read {}, which RevokedHostKeys names", list.display()))
            .on(&target.name)
            .caused_by(why)
            .advise("make the list readable, because it may hold the host's key")
    })?;
    Ok(is_revoked.then_some(list.as_path()))
}

fn revoked(target: &Target, key: &HostKey, by: &str) -> Failure {
    let (place, shown) = (target.place(), format!("{} {}", key.algorithm, key.fingerprint()));
    Failure::new(Kind::HostKey, format!("the host key of {place} is revoked by {by}: {shown}"))
        .on(&target.name)
        .advise("give the host a new key; a revoked key is never accepted")
}

/// A host with a pin must show a key with one of its fingerprints.
fn pinned(target: &Target, key: &HostKey) -> Result<()> {
    let shown = key.fingerprint();
    if target.host_key_pins.contains(&shown) {
        return Ok(());
    }
    let sentence =
        format!("{} shows another host key than the inventory pins: {} {shown}", target.place(), key.algorithm);
    Err(Failure::new(Kind::HostKey, sentence)
        .on(&target.name)
        .caused_by(format!("ssh.host_key is {}", target.host_key_pins.join(", ")))
        .advise(
            "find out why before anything else, since somebody may stand between; correct ssh.host_key if it is right",
        ))
}

/// Judges a plain key, and remembers a new one where that is wanted.
fn decide(target: &Target, key: &HostKey, verdict: Verdict) -> Result<()> {
    let (Verdict::Unknown { .. }, HostKeys::AcceptNew) = (&verdict, target.host_keys) else {
        return judge(target, key, verdict);
    };
    // Whoever has no file of his own wants nothing remembered.
    let Some(path) = target.known_hosts.first().filter(|_| target.remembers) else {
        return Ok(());
    };
    let (name, port) = target.known_as();
    let manner = Manner { hashed: target.hash_known_hosts, compared: false };
    let verdict = remember(path, name, port, key, manner).map_err(|error| {
        Failure::new(Kind::HostKey, format!("cannot remember the host key in {}", path.display()))
            .on(&target.name)
            .because(&error)
            .advise("make the file writable, or add the host's key to it by hand")
    })?;
    judge(target, key, verdict)
}

/// The failure of a verdict; pure.
fn judge(target: &Target, key: &HostKey, verdict: Verdict) -> Result<()> {
    let (place, shown) = (target.place(), format!("{} {}", key.algorithm, key.fingerprint()));
    let failure = |sentence: String| Failure::new(Kind::HostKey, sentence).on(&target.name);
    match verdict {
        Verdict::Trusted => Ok(()),
        Verdict::Unknown { authority } => {
            let mut unknown = failure(format!("the host key of {place} is not known: it shows {shown}"));
            if let Some(authority) = authority {
                unknown = unknown.caused_by(format!(
                    "{} trusts a certificate authority for it, but the host showed a plain key",
                    at(&authority)
                ));
            }
            Err(unknown.advise(format!(
                "compare the fingerprint with `ssh-keygen -lf` of the key in /etc/ssh on the host's console, then pin it \
                 with `clusterctl hosts scan --pin`, or connect once with `ssh {}`, or let clusterctl accept new keys \
                 (host_keys: accept-new)",
                target.ssh_arguments()
            )))
        }
        Verdict::OtherAlgorithm(places) => Err(known_by(
            failure(format!("{place} shows a host key of another kind than the known ones: {shown}")),
            &places,
        )
        .advise(format!(
            "compare the fingerprint with `ssh-keygen -lf` of the key in /etc/ssh on the host's console; if it is right, add \
             it with `ssh {}`",
            target.ssh_arguments()
        ))),
        Verdict::Changed(places) => {
            let (name, port) = target.known_as();
            let forget = places.first().map_or_else(String::new, |known| match known.file.display().to_string() {
                file if file == COMMAND => "whoever answers KnownHostsCommand".to_owned(),
                file => format!("`ssh-keygen -R '{}' -f {file}`", known_hosts::name_of(name, port)),
            });
            let changed = failure(format!("the host key of {place} has changed: it shows {shown}"));
            Err(known_by(changed, &places).advise(format!(
                "find out why before anything else, since somebody may stand between; if the machine was set up anew, forget \
                 the old key with {forget} and connect again"
            )))
        }
        Verdict::Revoked(by) => Err(revoked(target, key, &at(&by))),
    }
}

fn known_by(failure: Failure, places: &[Place]) -> Failure {
    places.iter().fold(failure, |failure, known| {
        failure.caused_by(format!("{} has {} {}", at(known), known.key.algorithm, known.key.fingerprint()))
    })
}

/// `/home/ops/.ssh/known_hosts:3`.
pub(super) fn at(place: &Place) -> String {
    format!("{}:{}", place.file.display(), place.line)
}
