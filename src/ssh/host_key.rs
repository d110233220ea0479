//! From the verdict of the known_hosts files to a connection that goes on or a refusal a person can act on.

use crate::failure::{Failure, Kind, Result};
use crate::inventory::HostKeys;

use super::known_hosts::{self, HostKey, Place, Verdict};
use super::remember::remember;
use super::target::Target;

/// Decides whether to go on with a host that showed `key`; blocks on files.
///
/// # Errors
/// [`Kind::HostKey`] for a key that is unknown, changed or revoked, or when the files cannot be read or written.
pub(super) fn check(target: &Target, key: &HostKey) -> Result<()> {
    let files = known_hosts::read(&target.known_hosts).map_err(|(path, error)| {
        Failure::new(Kind::HostKey, format!("cannot read {}", path.display()))
            .on(&target.name)
            .because(&error)
            .advise("make the file readable, because it may hold revoked keys")
    })?;
    let verdict = known_hosts::verdict(&files, &target.address, target.port, key);
    let (Verdict::Unknown { .. }, HostKeys::AcceptNew) = (&verdict, target.host_keys) else {
        return judge(target, key, verdict);
    };
    let Some(path) = target.known_hosts.first() else {
        return judge(target, key, verdict);
    };
    let verdict = remember(path, &target.address, target.port, key).map_err(|error| {
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
                "compare the fingerprint with `ssh-keygen -lf` of the key in /etc/ssh on the host's console, then connect \
                 once with `ssh {}`, or let clusterctl accept new keys (host_keys: accept-new)",
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
            let forget = places.first().map_or_else(String::new, |known| {
                format!(
                    "`ssh-keygen -R '{}' -f {}`",
                    known_hosts::name_of(&target.address, target.port),
                    known.file.display()
                )
            });
            let changed = failure(format!("the host key of {place} has changed: it shows {shown}"));
            Err(known_by(changed, &places).advise(format!(
                "find out why before anything else, since somebody may stand between; if the machine was set up anew, forget \
                 the old key with {forget} and connect again"
            )))
        }
        Verdict::Revoked(revoked) => {
            let revoked = at(&revoked);
            Err(failure(format!("the host key of {place} is revoked by {revoked}: {shown}"))
                .advise("give the host a new key; a revoked key is never accepted"))
        }
    }
}

fn known_by(failure: Failure, places: &[Place]) -> Failure {
    places.iter().fold(failure, |failure, known| {
        failure.caused_by(format!("{} has {} {}", at(known), known.key.algorithm, known.key.fingerprint()))
    })
}

fn at(place: &Place) -> String {
    format!("{}:{}", place.file.display(), place.line)
}
