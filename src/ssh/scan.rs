//! The host keys that a host shows, without logging in: for a person to compare and to pin.

use std::sync::Arc;

use russh::client::{self, Handler};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyBase64 as _, PublicKeyOrCertificate};
use russh::{Disconnect, Preferred};
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use crate::failure::{Failure, Kind, Result};

use super::backoff::Backoff;
use super::deadline::Deadline;
use super::dial::{Refusal, WRITE_STALL, config, explain, silent};
use super::host_key;
use super::known_hosts::{self, HostKey, Verdict};
use super::link::Link;
use super::login::Sources;
use super::lookup::{Reason, known_lines};
use super::proposal::proposal;
use super::remember::{Manner, remember};
use super::target::{Prompt, Target};
use super::wire::{Opened, Wire, open};

/// A host key that a host showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    key: HostKey,
    /// What the files, or the pins of the inventory, say about it.
    pub known: Known,
    /// What is known instead of a key that has changed: `/home/ops/.ssh/known_hosts:3 SHA256:...`.
    pub instead: Vec<String>,
}

/// What is known about a host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is the known one.
    Yes,
    /// The host is not known, or only by keys of other kinds.
    New,
    /// The host is known by another key of this kind, or the inventory pins none of those that it shows.
    Changed,
    /// The inventory pins another key that the host shows; this one is not asked for.
    Beside,
    /// It must not be trusted.
    Revoked,
}

impl Shown {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`.
    pub fn algorithm(&self) -> &str {
        &self.key.algorithm
    }

    /// `SHA256:...`, as `ssh-keygen -lf` prints it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint()
    }
}

/// Notes the key and ends the connection.
#[derive(Debug, Clone, Default)]
struct Looker(Arc<Mutex<Option<HostKey>>>);

impl Handler for Looker {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> std::result::Result<bool, russh::Error> {
        let key = HostKey::from_blob(shown.public_key().public_key_bytes());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(false)
    }
}

/// The keys of a host, one of each kind that it has. The bastions on the way are logged in to, so their keys must be
/// known.
///
/// # Errors
/// As [`connect`](super::connect), but for what concerns the login and the key itself.
pub async fn scan(target: &Target, prompts: &dyn Prompt) -> Result<Vec<Shown>> {
    scan_with(target, prompts, &Sources::of_environment()).await
}

pub(super) async fn scan_with(target: &Target, prompts: &dyn Prompt, sources: &Sources) -> Result<Vec<Shown>> {
    let target = Arc::new(target.clone());
    let kinds = [
        vec![Algorithm::Ed25519],
        [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521]
            .map(|curve| Algorithm::Ecdsa { curve })
            .to_vec(),
        [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }).to_vec(),
    ];
    let mut found = Vec::new();
    let mut deadline = Deadline::new(target.connect_limit);
    for kind in kinds {
        let mut backoff = Backoff::default();
        let key = loop {
            match look(&target, kind.clone(), &mut deadline, prompts, sources).await {
                Ok(key) => break key,
                Err(Refusal::Final(failure)) => return Err(failure),
                Err(Refusal::Busy(failure)) if !backoff.wait(deadline.remaining()).await => return Err(failure),
                Err(Refusal::Busy(_)) => {}
            }
        };
        found.extend(key);
    }
    let judging = tokio::task::spawn_blocking(move || judge(&target, found)).await;
    judging.unwrap_or_else(|defect| {
        Err(Failure::new(Kind::Internal, "the check of the host keys did not finish").because(&defect))
    })
}

/// The key of one kind; `None` if the host has none.
async fn look(
    target: &Arc<Target>,
    kind: Vec<Algorithm>,
    deadline: &mut Deadline,
    prompts: &dyn Prompt,
    sources: &Sources,
) -> std::result::Result<Option<HostKey>, Refusal> {
    let mut proposal = proposal(target).await.map_err(Refusal::Final)?;
    proposal.0 = Preferred { key: Cow::Owned(kind), host_key_certificates: Cow::Borrowed(&[]), ..proposal.0 };
    let Opened { wire, bastion, .. } = open(target, deadline, prompts, sources).await?;
    let link = Link::new(wire, WRITE_STALL, Wire::acknowledge);
    let beginning = link.beginning();
    let looker = Looker::default();
    let connecting = client::connect_stream(Arc::new(config(target, proposal)), link, looker.clone());
    let ended = deadline.within(connecting).await;
    drop(bastion);
    if let Some(key) = looker.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Ok(Some(key));
    }
    match ended {
        Some(Ok(handle)) => {
            let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
            Ok(None)
        }
        Some(Err(russh::Error::NoCommonAlgo { .. })) => Ok(None),
        Some(Err(error)) => Err(explain(target, &beginning.greeting(), &error)),
        None => Err(Refusal::Final(silent(target, &beginning.greeting(), deadline.limit()))),
    }
}

fn judge(target: &Target, keys: Vec<HostKey>) -> Result<Vec<Shown>> {
    let (name, port) = target.known_as();
    let pins = &target.host_key_pins;
    let is_pinned = |key: &HostKey| pins.contains(&key.fingerprint());
    let shows_a_pinned_one = keys.iter().any(is_pinned);
    let known = |key: &HostKey| -> Result<(Known, Vec<String>)> {
        let shown = host_key::Shown { key: key.clone(), certificate: None };
        if host_key::is_in_list(target, &shown)?.is_some() {
            return Ok((Known::Revoked, Vec::new()));
        }
        let files = known_lines(target, Reason::Judge(key))?;
        Ok(match known_hosts::verdict(&files, name, port, key) {
            Verdict::Revoked(_) => (Known::Revoked, Vec::new()),
            _ if is_pinned(key) => (Known::Yes, Vec::new()),
            // A pin does not say of what kind it is: it is good for the whole host.
            _ if shows_a_pinned_one => (Known::Beside, Vec::new()),
            _ if !pins.is_empty() => (Known::Changed, pins.iter().map(|pin| format!("ssh.host_key {pin}")).collect()),
            Verdict::Trusted => (Known::Yes, Vec::new()),
            Verdict::Unknown { .. } | Verdict::OtherAlgorithm(_) => (Known::New, Vec::new()),
            Verdict::Changed(places) => {
                let one = |place: &known_hosts::Place| format!("{} {}", host_key::at(place), place.key.fingerprint());
                (Known::Changed, places.iter().map(one).collect())
            }
        })
    };
    let judged = |key: &HostKey| known(key).map(|(known, instead)| Shown { key: key.clone(), known, instead });
    keys.iter().map(judged).collect()
}

/// Writes new keys of a host into the first of its known_hosts files and returns that file; blocks. Changed and revoked
/// keys are not written.
///
/// # Errors
/// [`Kind::HostKey`] when there is no file for it or it cannot be written.
pub fn pin(target: &Target, keys: &[Shown]) -> Result<std::path::PathBuf> {
    let failure = |sentence: String| Failure::new(Kind::HostKey, sentence).on(&target.name);
    let path = target.known_hosts.first().filter(|_| target.remembers).ok_or_else(|| {
        failure("there is no known_hosts file of yours to write to".to_owned())
            .advise("name one with `ssh.known_hosts` in the inventory, or with UserKnownHostsFile")
    })?;
    let (name, port) = target.known_as();
    let manner = Manner { hashed: target.hash_known_hosts, compared: true };
    for shown in keys.iter().filter(|shown| shown.known == Known::New) {
        remember(path, name, port, &shown.key, manner)
            .map_err(|error| failure(format!("cannot write {}", path.display())).because(&error))?;
    }
    Ok(path.clone())
}
