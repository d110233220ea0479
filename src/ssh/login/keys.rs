//! Offering keys: from files, from agents, with and without certificates.

use std::sync::Arc;

use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;
use russh::keys::{
    Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyBase64 as _,
};
use russh::{AgentAuthError, MethodKind};

use super::super::authentication::{Choice, KEYS};
use super::super::config::assemble;
use super::super::identity::{self, KeyFile, Private};
use super::super::known_hosts::HostKey;
use super::super::signer::{Asked, BareAgent, FileSigner, Question, Unsigned};
use super::{Agent, Answer, End, Login, blob, printable};

impl Login<'_> {
    /// Offers keys in this order until one lets us in or the host has had enough.
    pub(super) async fn offer_keys(
        &mut self,
        order: &[Choice],
        files: &[KeyFile],
        mut agent: Option<&mut Agent>,
        held: &[AgentIdentity],
    ) -> Result<Answer, End> {
        for choice in order {
            if !self.allows(MethodKind::PublicKey) || self.refusals >= KEYS {
                break;
            }
            let answer = match (*choice, agent.as_deref_mut()) {
                (Choice::File(index), _) => self.offer_file(&files[index]).await?,
                (Choice::Agent(index), Some(agent)) => {
                    let certificates = files.iter().find(|file| file.blob() == Some(blob(&held[index])));
                    let certificates = certificates.map(|file| file.certificates.as_slice()).unwrap_or_default();
                    self.offer_agent(agent, &held[index], certificates).await?
                }
                (Choice::Agent(_), None) => Answer::No,
            };
            if let Answer::In = answer {
                return Ok(Answer::In);
            }
        }
        Ok(Answer::No)
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
        let hash = match self.accepts("rsa-sha2-512") {
            true => hash,
            // ssh_config may leave only one of the two.
            false if self.accepts("rsa-sha2-256") => Some(HashAlg::Sha256),
            false => None,
        };
        self.rsa = Some(hash);
        Ok(hash)
    }

    /// Whether PubkeyAcceptedAlgorithms lets a signature of this kind be offered.
    fn accepts(&self, algorithm: &str) -> bool {
        let Some(written) = &self.target.algorithms.public_keys else { return algorithm != "ssh-rsa" };
        let default = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
        let sk = ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"];
        let default = [&default[..], &sk, &["rsa-sha2-512", "rsa-sha2-256"]].concat();
        let all = [&default[..], &["ssh-rsa"]].concat();
        assemble(written, &default, &all).iter().any(|name| name == algorithm)
    }

    /// Whether a key of this algorithm may be offered at all; noted if not.
    fn may_offer(&mut self, algorithm: &Algorithm, name: &str) -> bool {
        let accepted = match algorithm {
            Algorithm::Rsa { .. } => ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"].iter().any(|name| self.accepts(name)),
            other => self.accepts(other.as_str()),
        };
        if !accepted {
            self.attempts.tried.push(format!("{name}: not offered, PubkeyAcceptedAlgorithms in ssh_config forbids it"));
        }
        accepted
    }

    async fn offer_file(&mut self, file: &KeyFile) -> Result<Answer, End> {
        let name = format!("key {}", file.path.display());
        if let Some(public) = &file.public
            && !self.may_offer(&public.algorithm(), &name)
        {
            return Ok(Answer::No);
        }
        // A certificate first: whoever has one is let in by it.
        for certificate in &file.certificates {
            if !self.allows(MethodKind::PublicKey) || self.refusals >= KEYS {
                return Ok(Answer::No);
            }
            let what = describe_certificate(&name, certificate);
            if !self.would_accept_certificate(certificate, &what).await? {
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
        let Some(passphrase) = self.ask(|prompts| prompts.passphrase(&file.path)) else {
            self.attempts.tried.push(format!("{name}: locked, and no passphrase was given"));
            return Ok(None);
        };
        let unlocking = tokio::task::spawn_blocking(move || identity::unlock(&text, &passphrase)).await;
        match unlocking.unwrap_or_else(|defect| Err(defect.to_string())) {
            Ok(key) => Ok(Some(Arc::new(key))),
            Err(why) => {
                self.attempts.tried.push(format!("{name}: {why}"));
                Ok(None)
            }
        }
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

    /// Offers a key that the agent holds; `certificates` are those of its file, if it has one.
    async fn offer_agent(
        &mut self,
        agent: &mut Agent,
        identity: &AgentIdentity,
        certificates: &[Certificate],
    ) -> Result<Answer, End> {
        let public = identity.public_key().into_owned();
        let name = format!("agent key {}", printable(identity.comment()));
        if !self.may_offer(&public.algorithm(), &name) {
            return Ok(Answer::No);
        }
        let hash = self.hash(&public.algorithm()).await?;
        let user = self.target.user.as_str();
        for certificate in certificates {
            let what = describe_certificate(&name, certificate);
            let mut bare = BareAgent(agent);
            let offering = self.handle.authenticate_certificate_with(user, certificate.clone(), hash, &mut bare);
            let answered = self.deadline.within(offering).await;
            if let Answer::In = self.note_agent(answered, &what).await? {
                return Ok(Answer::In);
            }
            if !self.allows(MethodKind::PublicKey) || self.refusals >= KEYS {
                return Ok(Answer::No);
            }
        }
        let (what, answered) = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                let offering = self.handle.authenticate_publickey_with(user, key.clone(), hash, agent);
                (describe(&name, &public), self.deadline.within(offering).await)
            }
            AgentIdentity::Certificate { certificate, .. } => {
                let offering = self.handle.authenticate_certificate_with(user, certificate.clone(), hash, agent);
                (describe_certificate(&name, certificate), self.deadline.within(offering).await)
            }
        };
        self.note_agent(answered, &what).await
    }

    async fn note_agent(
        &mut self,
        answered: Option<Result<AuthResult, AgentAuthError>>,
        what: &str,
    ) -> Result<Answer, End> {
        match answered {
            Some(Err(AgentAuthError::Key(error))) => {
                self.attempts.tried.push(format!("{what}: the agent did not sign: {error}"));
                Ok(Answer::No)
            }
            Some(Err(AgentAuthError::Send(_))) => Err(End::Lost),
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
