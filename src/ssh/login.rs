//! Logs in: keys in the order that `authentication` decides, then the password, each network wait inside the deadline.

mod agent;
mod keys;
mod password;

use std::path::PathBuf;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::{Certificate, HashAlg, PublicKey, PublicKeyBase64 as _};
use russh::{MethodKind, MethodSet};

use crate::failure::{Failure, Kind};
use crate::secret::Secret;

pub(super) use self::agent::Agent;
use super::authentication::{Attempts, FileKey, HeldKey, arrange, refused};
use super::deadline::Deadline;
use super::dial::{Dialled, Refusal};
use super::identity::{self, KeyFile, Private};
use super::target::{Prompt, Target};
use super::watcher::{LostReceiver, NOTHING_ALLOWED, Watcher, lost};

/// The reason follows the end of a connection at once.
const REASON_LIMIT: Duration = Duration::from_secs(1);

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
    /// Whether a person was waited for.
    asked: bool,
    /// Keys and certificates that the host refused.
    refusals: usize,
    /// Certificates that were offered; an agent and a file may have the same.
    offered: Vec<Certificate>,
    /// Whether the host refused the password as an answer to its only question.
    password_refused: bool,
    /// How often the host accepted what it was offered and wants more (RFC 4252 section 5.1, partial success).
    steps: usize,
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
    let mut login = Login {
        handle,
        lost,
        target,
        prompts,
        deadline,
        attempts,
        rsa: None,
        asked: false,
        refusals: 0,
        offered: Vec::new(),
        password_refused: false,
        steps: 0,
    };
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
        let certified = |key: &AgentIdentity| matches!(key, AgentIdentity::Certificate { .. });
        let held_keys: Vec<HeldKey> =
            held.iter().map(|key| HeldKey { blob: blob(key), certified: certified(key) }).collect();
        let by_key = self.target.ways.iter().any(|way| way == "publickey");
        let order = if by_key {
            arrange(&file_keys, &held_keys, !self.target.identities.is_empty(), self.target.identities_only)
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
        // A host that wants one way and then another asks for the second when it has seen the first: begun anew, as ssh does.
        'again: for _ in 0..=self.target.ways.len() {
            let before = self.steps;
            for way in &self.target.ways {
                let answer = match way.as_str() {
                    "publickey" => self.offer_keys(&order, &files, agent.as_mut(), &held).await?,
                    "keyboard-interactive" => self.offer_interactively().await?,
                    // Asked in the other way, the host would say the same of it, and count twice.
                    "password" if !self.password_refused => self.offer_password().await?,
                    _ => Answer::No,
                };
                if let Answer::In = answer {
                    return Ok(Answer::In);
                }
                if self.steps > before {
                    self.offered.clear();
                    continue 'again;
                }
            }
            break;
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
            let certificates = certificates.into_iter().map(|path| match identity::load_certificate(&path) {
                Ok(certificate) => Ok((path, certificate)),
                Err(why) => Err((path, why)),
            });
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
        let mut alone = Vec::new();
        for loaded in certificates {
            match loaded {
                Ok((path, certificate)) => {
                    if !add_to_each(&mut files, &certificate) {
                        alone.push((path, certificate));
                    }
                }
                Err((path, why)) => self.attempts.tried.push(format!("certificate {}: {why}", path.display())),
            }
        }
        let (mut agent, mut held) = (None, Vec::new());
        let socket = self.target.agent_socket.as_deref().or(sources.agent.as_deref());
        if let Some(socket) = socket.filter(|_| self.target.agent) {
            let (waited, opened) = Agent::open(socket, self.handle).await;
            self.deadline.extend(waited);
            match opened {
                Ok((client, keys)) => (agent, held) = (Some(client), keys),
                Err(why) => self.attempts.tried.push(format!("agent at {}: {why}", socket.display())),
            }
        }
        for file in files.iter().filter(|file| matches!(file.private, Private::Absent)) {
            if !held.iter().any(|key| Some(blob(key)) == file.blob()) {
                self.attempts.tried.push(format!("key {}: a public key that no agent holds", file.path.display()));
            }
        }
        for (path, certificate) in alone {
            // Two certificates may be for one key.
            if add_to_each(&mut files, &certificate) {
                continue;
            }
            let key = PublicKey::new(certificate.public_key().clone(), "");
            if held.iter().any(|held| blob(held) == key.public_key_bytes()) {
                files.insert(0, KeyFile::of_certificate(path, key, certificate));
            } else if files.iter().all(|file| file.public.is_some()) {
                let sentence = format!("certificate {}: no key file and no agent has its key", path.display());
                self.attempts.tried.push(sentence);
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
        self.steps += usize::from(partly);
        self.attempts.allowed = Some(remaining.to_vec());
    }

    /// Asks a person, where that is allowed.
    fn ask(&mut self, question: impl FnOnce(&dyn Prompt) -> Option<Secret>) -> Option<Secret> {
        if !self.target.ask {
            return None;
        }
        self.asked = true;
        self.deadline.ask(self.prompts, question)
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

fn printable(comment: &str) -> String {
    comment.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// The public key in SSH's encoding.
fn blob(identity: &AgentIdentity) -> Vec<u8> {
    identity.public_key().public_key_bytes()
}

/// Adds a certificate to every key file whose key it is for; whether there was one.
fn add_to_each(files: &mut [KeyFile], certificate: &Certificate) -> bool {
    let mut taken = false;
    for file in files {
        taken |= file.add(certificate);
    }
    taken
}
