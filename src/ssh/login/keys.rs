//! Offering keys: from files, from agents, with and without certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::MethodKind;
use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;
use russh::keys::{
    Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyBase64 as _,
};
use zeroize::Zeroizing;

use super::super::authentication::{Choice, KEYS, accepts, of_certificates};
use super::super::deadline::Pause;
use super::super::identity::{self, KeyFile, Private};
use super::super::known_hosts::HostKey;
use super::super::signer::{AgentSigner, Asked, FileSigner, Question, Unsigned};
use super::{Agent, Answer, End, Login, blob, printable};

/// What takes longer is waited for by a person or for one, during which sshd may lose patience.
const PERSON: Duration = Duration::from_secs(1);

impl Login<'_> {
    /// Offers keys in this order until one lets us in or the host has had enough.
    pub(super) async fn offer_keys(
        &mut self,
        order: &[Choice],
        files: &[KeyFile],
        mut agent: Option<&mut Agent>,
        held: &[AgentIdentity],
    ) -> Result<Answer, End> {
        for (at, choice) in order.iter().enumerate() {
            if !self.allows(MethodKind::PublicKey) {
                break;
            }
            if self.refusals >= KEYS {
                self.note_rest(&order[at..], files, held);
                break;
            }
            let answer = match (*choice, agent.as_deref_mut()) {
                (Choice::File(index), _) => self.offer_file(&files[index]).await?,
                (Choice::Agent(index), Some(agent)) => {
                    let file = files.iter().find(|file| file.blob() == Some(blob(&held[index])));
                    self.offer_agent(agent, &held[index], file).await?
                }
                (Choice::Agent(_), None) => Answer::No,
            };
            if let Answer::In = answer {
                return Ok(Answer::In);
            }
        }
        Ok(Answer::No)
    }

    /// Notes how many keys sshd has no patience for.
    fn note_rest(&mut self, rest: &[Choice], files: &[KeyFile], held: &[AgentIdentity]) {
        let may = |choice: &&Choice| match **choice {
            Choice::File(index) => files[index].public.as_ref().is_none_or(|key| self.accepts(&key.algorithm())),
            Choice::Agent(index) => match &held[index] {
                AgentIdentity::PublicKey { key, .. } => self.accepts(&key.algorithm()),
                AgentIdentity::Certificate { certificate, .. } => self.accepts_certificate(certificate),
            },
        };
        let sentence = match rest.iter().filter(may).count() {
            0 => return,
            1 => "1 more key was not offered; name the right one with identity".to_owned(),
            count => format!("{count} more keys were not offered; name the right one with identity"),
        };
        self.attempts.tried.push(sentence);
    }

    /// The hash to sign with for an RSA key; none for other keys.
    async fn hash(&mut self, algorithm: &Algorithm) -> Result<Option<HashAlg>, End> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        if let Some(known) = self.rsa {
            return Ok(known);
        }
        let asked = self.deadline.within(self.handle.best_supported_rsa_hash()).await.ok_or(End::Late)?;
        // A server that does not tell: every one since 2016 takes SHA-512.
        let hash = asked.map_err(|_| End::Lost)?.unwrap_or(Some(HashAlg::Sha512));
        let hash = match self.accepts_name("rsa-sha2-512") {
            true => hash,
            // ssh_config may leave only one of the two.
            false if self.accepts_name("rsa-sha2-256") => Some(HashAlg::Sha256),
            false => None,
        };
        self.rsa = Some(hash);
        Ok(hash)
    }

    fn accepts_name(&self, name: &str) -> bool {
        accepts(self.target.algorithms.public_keys.as_deref(), name)
    }

    /// Whether PubkeyAcceptedAlgorithms lets a key of this algorithm be offered.
    fn accepts(&self, algorithm: &Algorithm) -> bool {
        match algorithm {
            Algorithm::Rsa { .. } => {
                ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"].iter().any(|name| self.accepts_name(name))
            }
            other => self.accepts_name(other.as_str()),
        }
    }

    /// As [`Login::accepts`], for a certificate; with RSA we sign by SHA-512.
    fn accepts_certificate(&self, certificate: &Certificate) -> bool {
        self.accepts_name(&of_certificates(match certificate.algorithm() {
            Algorithm::Rsa { .. } => "rsa-sha2-512",
            ref other => other.as_str(),
        }))
    }

    /// Whether what was accepted may be offered at all; noted if not.
    fn may_offer(&mut self, accepted: bool, name: &str) -> bool {
        if !accepted {
            self.attempts.tried.push(format!("{name}: not offered, PubkeyAcceptedAlgorithms in ssh_config forbids it"));
        }
        accepted
    }

    /// Whether a certificate is still to be offered; noted if it must not be.
    fn is_to_be_offered(&mut self, certificate: &Certificate, what: &str) -> bool {
        if self.offered.contains(certificate) || !self.may_offer(self.accepts_certificate(certificate), what) {
            return false;
        }
        self.offered.push(certificate.clone());
        true
    }

    async fn offer_file(&mut self, file: &KeyFile) -> Result<Answer, End> {
        let name = format!("key {}", file.path.display());
        // A certificate first: whoever has one is let in by it.
        for certificate in &file.certificates {
            if !self.allows(MethodKind::PublicKey) || self.refusals >= KEYS {
                return Ok(Answer::No);
            }
            let what = describe_certificate(&name, certificate);
            if !self.is_to_be_offered(certificate, &what) || !self.would_accept_certificate(certificate, &what).await? {
                continue;
            }
            let Some(key) = self.open(file, &name).await? else { return Ok(Answer::No) };
            let hash = matches!(key.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
            let mut signer = FileSigner(key);
            let user = self.target.user.as_str();
            let offering = self.handle.authenticate_certificate_with(user, certificate.clone(), hash, &mut signer);
            let answered = match self.deadline.within(offering).await {
                Some(Err(Unsigned::Lost)) => return Err(End::Lost),
                Some(Err(Unsigned::Why(why))) => {
                    self.attempts.tried.push(format!("{what}: {why}"));
                    continue;
                }
                Some(Ok(result)) => Some(Ok(result)),
                None => None,
            };
            if let Answer::In = self.note(answered, Some(&what)).await? {
                return Ok(Answer::In);
            }
        }
        if !self.allows(MethodKind::PublicKey) || self.refusals >= KEYS {
            return Ok(Answer::No);
        }
        if let Some(public) = &file.public
            && !self.may_offer(self.accepts(&public.algorithm()), &name)
        {
            return Ok(Answer::No);
        }
        if let (Private::Locked(_), Some(public)) = (&file.private, &file.public)
            && !self.would_accept(public, &describe(&name, public)).await?
        {
            return Ok(Answer::No);
        }
        match self.open(file, &name).await? {
            Some(key) => self.offer_key(key, &name).await,
            None => Ok(Answer::No),
        }
    }

    /// The private key of a file, unlocked by a person if it must be; `None` is noted.
    async fn open(&mut self, file: &KeyFile, name: &str) -> Result<Option<Arc<PrivateKey>>, End> {
        let text = match &file.private {
            Private::Open(key) => return Ok(Some(Arc::clone(key))),
            Private::Absent => return Ok(None),
            Private::Locked(text) => Arc::clone(text),
        };
        // Ten hosts with one key wait for one person, and for one derivation of the key, which is slow on purpose.
        let began = Instant::now();
        let slot = self.prompts.unlocked().slot(&file.path);
        let mut slot = slot.lock().await;
        self.deadline.extend(began.elapsed());
        self.asked |= began.elapsed() > PERSON;
        if slot.is_none() {
            *slot = self.unlock(&file.path, &text).await;
        }
        match slot.as_ref() {
            Some(Ok(key)) => return Ok(Some(Arc::clone(key))),
            Some(Err(why)) => self.attempts.tried.push(format!("{name}: {why}")),
            None => self.attempts.tried.push(format!("{name}: locked, and no passphrase was given")),
        }
        Ok(None)
    }

    /// A key unlocked with what a person types, who may mistype it once; `None` where nothing is typed.
    async fn unlock(&mut self, path: &Path, text: &Arc<Zeroizing<String>>) -> Option<Result<Arc<PrivateKey>, String>> {
        let mut wrong = None;
        for again in [false, true] {
            let Some(passphrase) = self.ask(|prompts| prompts.passphrase(path, again)) else { break };
            let text = Arc::clone(text);
            let unlocking = tokio::task::spawn_blocking(move || identity::unlock(&text, &passphrase)).await;
            match unlocking.unwrap_or_else(|defect| Err(defect.to_string())) {
                Ok(key) => return Some(Ok(Arc::new(key))),
                Err(why) => wrong = Some(Err(why)),
            }
        }
        wrong
    }

    async fn offer_key(&mut self, key: Arc<PrivateKey>, name: &str) -> Result<Answer, End> {
        let what = describe(name, key.public_key());
        let hash = self.hash(&key.algorithm()).await?;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let offering = self.handle.authenticate_publickey(self.target.user.as_str(), key);
        let answered = self.deadline.within(offering).await;
        self.note(answered, Some(&what)).await
    }

    /// Asks the host whether it would accept a key, without the private half.
    async fn would_accept(&mut self, public: &PublicKey, what: &str) -> Result<bool, End> {
        let hash = self.hash(&public.algorithm()).await?;
        let user = self.target.user.as_str();
        let mut question = Question;
        let asking = self.handle.authenticate_publickey_with(user, public.clone(), hash, &mut question);
        let answered = match self.deadline.within(asking).await {
            Some(Err(Asked::Yes)) => return Ok(true),
            Some(Err(Asked::Lost)) => return Err(End::Lost),
            Some(Ok(result)) => Some(Ok(result)),
            None => None,
        };
        self.note(answered, Some(what)).await?;
        Ok(false)
    }

    async fn would_accept_certificate(&mut self, certificate: &Certificate, what: &str) -> Result<bool, End> {
        let hash = matches!(certificate.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
        let user = self.target.user.as_str();
        let mut question = Question;
        let asking = self.handle.authenticate_certificate_with(user, certificate.clone(), hash, &mut question);
        let answered = match self.deadline.within(asking).await {
            Some(Err(Asked::Yes)) => return Ok(true),
            Some(Err(Asked::Lost)) => return Err(End::Lost),
            Some(Ok(result)) => Some(Ok(result)),
            None => None,
        };
        self.note(answered, Some(what)).await?;
        Ok(false)
    }

    /// Offers a key that the agent holds, with the certificates of its file first, if it has one.
    async fn offer_agent(
        &mut self,
        agent: &mut Agent,
        identity: &AgentIdentity,
        file: Option<&KeyFile>,
    ) -> Result<Answer, End> {
        let name = format!("agent key {}", printable(identity.comment()));
        let key = match identity {
            AgentIdentity::PublicKey { key, .. } => key,
            AgentIdentity::Certificate { certificate, .. } => {
                return self.offer_certificate(agent, certificate, false, &name).await;
            }
        };
        for certificate in file.map(|file| file.certificates.as_slice()).unwrap_or_default() {
            if let Answer::In = self.offer_certificate(agent, certificate, true, &name).await? {
                return Ok(Answer::In);
            }
            if !self.allows(MethodKind::PublicKey) || self.refusals >= KEYS {
                return Ok(Answer::No);
            }
        }
        let is_named = file.is_none_or(|file| file.is_named);
        if !is_named && self.target.identities_only || !self.may_offer(self.accepts(&key.algorithm()), &name) {
            return Ok(Answer::No);
        }
        let hash = self.hash(&key.algorithm()).await?;
        let what = describe(&name, key);
        let (mut signer, pause) = self.signer(agent, false);
        let offering = self.handle.authenticate_publickey_with(&self.target.user, key.clone(), hash, &mut signer);
        let answered = self.deadline.within_but_for(&pause, offering).await;
        self.note_signed(answered, &pause, &what).await
    }

    /// Offers a certificate whose key, with it or `bare`, the agent holds.
    async fn offer_certificate(
        &mut self,
        agent: &mut Agent,
        certificate: &Certificate,
        bare: bool,
        name: &str,
    ) -> Result<Answer, End> {
        let what = describe_certificate(name, certificate);
        if !self.is_to_be_offered(certificate, &what) {
            return Ok(Answer::No);
        }
        let hash = matches!(certificate.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
        let (mut signer, pause) = self.signer(agent, bare);
        let user = &self.target.user;
        let offering = self.handle.authenticate_certificate_with(user, certificate.clone(), hash, &mut signer);
        let answered = self.deadline.within_but_for(&pause, offering).await;
        self.note_signed(answered, &pause, &what).await
    }

    fn signer<'a>(&self, agent: &'a mut Agent, bare: bool) -> (AgentSigner<'a>, Pause) {
        let pause = Pause::default();
        (AgentSigner { agent, bare, pause: pause.clone(), lost: self.lost.clone() }, pause)
    }

    async fn note_signed(
        &mut self,
        answered: Option<Result<AuthResult, Unsigned>>,
        pause: &Pause,
        what: &str,
    ) -> Result<Answer, End> {
        self.asked |= pause.spent() > PERSON;
        match answered {
            Some(Err(Unsigned::Lost)) => Err(End::Lost),
            Some(Err(Unsigned::Why(why))) => {
                self.attempts.tried.push(format!("{what}: {why}"));
                Ok(Answer::No)
            }
            Some(Ok(result)) => self.note(Some(Ok(result)), Some(what)).await,
            None => Err(End::Late),
        }
    }
}

/// `key /home/ops/.ssh/id_ed25519 (ssh-ed25519 SHA256:...)`.
fn describe(name: &str, key: &PublicKey) -> String {
    match HostKey::from_blob(key.public_key_bytes()) {
        Some(key) => format!("{name} ({} {})", key.algorithm, key.fingerprint()),
        None => name.to_owned(),
    }
}

/// `key /home/ops/.ssh/id_ed25519 with the certificate "ops" (ssh-ed25519 SHA256:...)`.
fn describe_certificate(name: &str, certificate: &Certificate) -> String {
    let key = PublicKey::new(certificate.public_key().clone(), "");
    describe(&format!("{name} with the certificate \"{}\"", printable(certificate.key_id())), &key)
}
