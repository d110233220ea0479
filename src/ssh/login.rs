//! Logs in: keys in the order that `authentication` decides, then the password, each network wait inside the deadline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{
    Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyBase64 as _,
};
use russh::{AgentAuthError, MethodKind, MethodSet};
use tokio::net::UnixStream;

use crate::failure::{Failure, Kind};
use crate::secret::Secret;

use super::authentication::{Attempts, Choice, FileKey, KEYS, arrange, refused};
use super::config::assemble;
use super::deadline::Deadline;
use super::dial::{Dialled, Refusal};
use super::identity::{self, KeyFile, Private};
use super::known_hosts::HostKey;
use super::signer::{Asked, BareAgent, FileSigner, Question, Unsigned};
use super::target::{Prompt, Target};
use super::watcher::{LostReceiver, NOTHING_ALLOWED, Watcher, lost};

/// The reason follows the end of a connection at once.
const REASON_LIMIT: Duration = Duration::from_secs(1);
/// An agent that does not answer must not stop a login.
const AGENT_LIMIT: Duration = Duration::from_secs(5);
/// Rounds of questions in one keyboard-interactive login.
const ROUNDS: usize = 8;
/// Questions in one round.
const QUESTIONS: usize = 16;

/// Where keys may come from besides the target.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// The agent's socket.
    pub(super) agent: Option<PathBuf>,
    /// The folder with `.ssh`.
    pub(super) home: Option<PathBuf>,
}

impl Sources {
    /// Those of this process: `SSH_AUTH_SOCK` and the home folder.
    pub(super) fn of_environment() -> Self {
        let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()).map(PathBuf::from);
        Self { agent, home: std::env::home_dir() }
    }
}

type Agent = AgentClient<UnixStream>;

/// The end of a login that cannot go on.
enum End {
    /// The connection ended.
    Lost,
    /// The deadline passed.
    Late,
}

/// What the host said to one attempt.
enum Answer {
    In,
    No,
}

struct Login<'a> {
    handle: &'a mut Handle<Watcher>,
    lost: &'a LostReceiver,
    target: &'a Target,
    prompts: &'a dyn Prompt,
    deadline: &'a mut Deadline,
    attempts: Attempts,
    rsa: Option<Option<HashAlg>>,
    asked: bool,
    /// Keys and certificates that the host refused.
    refusals: usize,
}

/// Logs in on a dialled connection.
pub(super) async fn log_in(
    dialled: &mut Dialled,
    target: &Target,
    prompts: &dyn Prompt,
    deadline: &mut Deadline,
    sources: &Sources,
) -> Result<(), Refusal> {
    let (handle, lost) = (&mut dialled.handle, &dialled.lost);
    let attempts = Attempts::default();
    let mut login = Login { handle, lost, target, prompts, deadline, attempts, rsa: None, asked: false, refusals: 0 };
    let result = login.run(sources).await;
    login.attempts.banner = dialled.banner.text();
    match result {
        Ok(Answer::In) => Ok(()),
        Ok(Answer::No) => Err(Refusal::Final(refused(target, &login.attempts))),
        Err(End::Late) => Err(Refusal::Final(
            login
                .broken(format!(
                    "logging in to {} took longer than {} s",
                    target.place(),
                    login.deadline.limit().as_secs()
                ))
                .advise("check the load of the host and its name service, or raise the connect limit"),
        )),
        Err(End::Lost) => Err(login.lost_connection()),
    }
}

impl Login<'_> {
    async fn run(&mut self, sources: &Sources) -> Result<Answer, End> {
        let (files, mut agent, held) = self.gather(sources).await;
        let file_keys: Vec<FileKey> = files
            .iter()
            .map(|file| FileKey { blob: file.blob(), private: !matches!(file.private, Private::Absent) })
            .collect();
        let blobs: Vec<Vec<u8>> = held.iter().map(blob).collect();
        let by_key = self.target.ways.iter().any(|way| way == "publickey");
        let order = if by_key {
            arrange(&file_keys, &blobs, !self.target.identities.is_empty(), self.target.identities_only)
        } else {
            Vec::new()
        };
        if order.is_empty() {
            // Says what the host allows; costs no attempt (RFC 4252 section 5.2).
            let asked = self.deadline.within(self.handle.authenticate_none(self.target.user.as_str())).await;
            if let Answer::In = self.note(asked, None).await? {
                return Ok(Answer::In);
            }
        }
        let mut asked_for_password = false;
        for way in &self.target.ways {
            let answer = match way.as_str() {
                "publickey" => self.offer_keys(&order, &files, agent.as_mut(), &held).await?,
                // One password is offered once: the way that comes first and that the host allows.
                "password" | "keyboard-interactive" if !asked_for_password => {
                    let method = if way == "password" { MethodKind::Password } else { MethodKind::KeyboardInteractive };
                    asked_for_password = self.allows(method);
                    match method {
                        MethodKind::Password => self.offer_password().await?,
                        _ => self.offer_interactively().await?,
                    }
                }
                _ => Answer::No,
            };
            if let Answer::In = answer {
                return Ok(Answer::In);
            }
            // A second proof may be wanted in the way that the first was tried.
            asked_for_password &= !self.attempts.partly;
        }
        Ok(Answer::No)
    }

    async fn offer_keys(
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

    /// Reads the key files and asks the agent what it holds; what fails is noted and left out.
    async fn gather(&mut self, sources: &Sources) -> (Vec<KeyFile>, Option<Agent>, Vec<AgentIdentity>) {
        let named = !self.target.identities.is_empty();
        let (paths, home) = (self.target.identities.clone(), sources.home.clone());
        let certificates = self.target.certificates.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let paths = if named { paths } else { home.map(|home| identity::usual_files(&home)).unwrap_or_default() };
            let keys = paths.into_iter().map(|path| identity::load(&path).map_err(|why| (path, why)));
            let certificates =
                certificates.into_iter().map(|path| identity::load_certificate(&path).map_err(|why| (path, why)));
            (keys.collect::<Vec<_>>(), certificates.collect::<Vec<_>>())
        });
        let mut files = Vec::new();
        let (keys, certificates) = loading.await.unwrap_or_default();
        for loaded in keys {
            match loaded {
                Ok(file) => files.push(file),
                Err((path, why)) => self.attempts.tried.push(format!("key {}: {why}", path.display())),
            }
        }
        for loaded in certificates {
            match loaded {
                Ok(certificate) => files.iter_mut().for_each(|file| file.add(&certificate)),
                Err((path, why)) => self.attempts.tried.push(format!("certificate {}: {why}", path.display())),
            }
        }
        let (mut agent, mut held) = (None, Vec::new());
        let socket = self.target.agent_socket.as_deref().or(sources.agent.as_deref());
        if let Some(socket) = socket.filter(|_| self.target.agent) {
            match tokio::time::timeout(AGENT_LIMIT, open_agent(socket, self.handle)).await {
                Ok(Ok((client, keys))) => (agent, held) = (Some(client), keys),
                Ok(Err(error)) => self.attempts.tried.push(format!("agent at {}: {error}", socket.display())),
                Err(_) => self.attempts.tried.push(format!("agent at {}: no answer", socket.display())),
            }
        }
        for file in files.iter().filter(|file| matches!(file.private, Private::Absent)) {
            if !held.iter().any(|key| Some(blob(key)) == file.blob()) {
                self.attempts.tried.push(format!("key {}: a public key that no agent holds", file.path.display()));
            }
        }
        (files, agent, held)
    }

    fn allows(&self, method: MethodKind) -> bool {
        self.attempts.allowed.as_ref().is_none_or(|allowed| allowed.contains(&method))
    }

    /// Takes the host's answer in; a refusal of `what` is noted.
    async fn note(
        &mut self,
        answered: Option<Result<AuthResult, russh::Error>>,
        what: Option<&str>,
    ) -> Result<Answer, End> {
        let (remaining, partly) = match answered.ok_or(End::Late)? {
            Ok(AuthResult::Success) => return Ok(Answer::In),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => (remaining_methods, partial_success),
            Err(_) => return Err(End::Lost),
        };
        if let Some(what) = what {
            self.refusals += 1;
            let said = if partly { "accepted, but it is not enough" } else { "refused" };
            self.attempts.tried.push(format!("{what}: {said}"));
        }
        // russh answers with an empty list both when the connection has ended and when the host allows nothing more,
        // and then ends the connection itself: the reason tells the two apart.
        if remaining.is_empty() {
            let reason = tokio::time::timeout(REASON_LIMIT, lost(self.lost)).await;
            if reason.is_ok_and(|reason| reason.0 != NOTHING_ALLOWED) {
                return Err(End::Lost);
            }
        }
        self.update(&remaining, partly);
        Ok(Answer::No)
    }

    fn update(&mut self, remaining: &MethodSet, partly: bool) {
        self.attempts.partly |= partly;
        self.attempts.allowed = Some(remaining.to_vec());
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

    /// Asks a person, where that is allowed.
    fn ask(&mut self, question: impl FnOnce(&dyn Prompt) -> Option<Secret>) -> Option<Secret> {
        if !self.target.ask {
            return None;
        }
        self.asked = true;
        self.deadline.ask(self.prompts, question)
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

    /// The login password: known, or asked for.
    fn password(&mut self) -> Option<Secret> {
        let known = self.target.password.clone();
        let (user, host) = (&self.target.user, &self.target.name);
        known.or_else(|| self.ask(|prompts| prompts.password(user, host)))
    }

    async fn offer_password(&mut self) -> Result<Answer, End> {
        if !self.allows(MethodKind::Password) {
            return Ok(Answer::No);
        }
        let Some(password) = self.password() else { return Ok(Answer::No) };
        let offering = self.handle.authenticate_password(self.target.user.as_str(), password.expose());
        let answered = self.deadline.within(offering).await;
        self.note(answered, Some("password")).await
    }

    /// Answers the host's questions: the first hidden one with the password, unless its words say that it wants something
    /// else; the others are put to a person.
    async fn offer_interactively(&mut self) -> Result<Answer, End> {
        if !self.allows(MethodKind::KeyboardInteractive) {
            return Ok(Answer::No);
        }
        let user = self.target.user.as_str();
        let starting = self.handle.authenticate_keyboard_interactive_start(user, None::<String>);
        let mut response = self.deadline.within(starting).await.ok_or(End::Late)?.map_err(|_| End::Lost)?;
        let mut given = false;
        for _ in 0..ROUNDS {
            let questions = match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(Answer::In),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    let result = AuthResult::Failure { remaining_methods, partial_success };
                    return self.note(Some(Ok(result)), Some("password (keyboard-interactive)")).await;
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
            };
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions.iter().take(QUESTIONS) {
                let text = printable(question.prompt.trim().trim_end_matches(':'));
                let answer = if !question.echo && !given && !wants_code(&text) {
                    given = true;
                    self.password()
                } else {
                    let (user, host) = (&self.target.user, &self.target.name);
                    self.ask(|prompts| prompts.answer(user, host, &text))
                };
                match answer {
                    Some(answer) => answers.push(answer.expose().to_owned()),
                    None => {
                        self.attempts.tried.push(format!("keyboard-interactive: no answer to \"{text}\""));
                        return Ok(Answer::No);
                    }
                }
            }
            let answering = self.handle.authenticate_keyboard_interactive_respond(answers);
            response = self.deadline.within(answering).await.ok_or(End::Late)?.map_err(|_| End::Lost)?;
        }
        self.attempts.tried.push("password (keyboard-interactive): the host does not stop asking".to_owned());
        Ok(Answer::No)
    }

    fn lost_connection(&self) -> Refusal {
        let place = self.target.place();
        let reason =
            self.lost.borrow().as_ref().map_or_else(|| "the connection was closed".to_owned(), |lost| lost.0.clone());
        if reason.contains("Too many authentication failures") || reason.contains("No supported authentication") {
            return Refusal::Final(refused(self.target, &self.attempts).caused_by(reason));
        }
        let failure = self
            .broken(format!("the connection to {place} broke while logging in"))
            .caused_by(reason)
            .advise("read sshd's log on the host (journalctl -u ssh)");
        // sshd's LoginGraceTime runs while a person types; the answer is remembered by whoever asked.
        if self.asked { Refusal::Busy(failure) } else { Refusal::Final(failure) }
    }

    fn broken(&self, sentence: String) -> Failure {
        let failure = Failure::new(Kind::Connection, sentence).on(&self.target.name).may_pass();
        self.attempts.tried.iter().fold(failure, Failure::caused_by)
    }
}

async fn open_agent(
    socket: &Path,
    handle: &Handle<Watcher>,
) -> Result<(Agent, Vec<AgentIdentity>), russh::keys::Error> {
    let mut agent = Agent::connect_uds(socket).await?;
    if let Some(binding) = handle.agent_session_binding() {
        // Needed only for keys that are bound to destinations; agents before OpenSSH 8.9 refuse it.
        let _ = agent.bind_session(binding, false).await;
    }
    let keys = agent.request_identities().await?;
    Ok((agent, keys))
}

/// `key /home/ops/.ssh/id_ed25519 (ssh-ed25519 SHA256:...)`.
fn describe(name: &str, key: &PublicKey) -> String {
    match HostKey::from_blob(key.public_key_bytes()) {
        Some(key) => format!("{name} ({} {})", key.algorithm, key.fingerprint()),
        None => name.to_owned(),
    }
}

fn printable(comment: &str) -> String {
    comment.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// `key /home/ops/.ssh/id_ed25519 with the certificate "ops" (ssh-ed25519 SHA256:...)`.
fn describe_certificate(name: &str, certificate: &Certificate) -> String {
    let key = PublicKey::new(certificate.public_key().clone(), "");
    describe(&format!("{name} with the certificate \"{}\"", printable(certificate.key_id())), &key)
}

/// The public key in SSH's encoding.
fn blob(identity: &AgentIdentity) -> Vec<u8> {
    identity.public_key().public_key_bytes()
}

/// Whether the words of a question ask for something else than the password.
fn wants_code(question: &str) -> bool {
    let question = question.to_lowercase();
    !question.contains("password")
        && ["code", "otp", "token", "passcode", "verification", "factor"].iter().any(|word| question.contains(word))
}
