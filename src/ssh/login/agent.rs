//! The agent that holds keys. It answers one question after the other, and a signature may wait for a person who touches
//! a device: so one login at a time asks it, and the others wait for their turn and not for its answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::Handle;
use russh::keys::HashAlg;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::{AgentAuthError, Signer as _};
use tokio::net::UnixStream;

use super::super::signer::Unsigned;
use super::super::watcher::Watcher;

/// An agent that does not say what it holds must not stop a login.
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// A person may look for the device first; sshd waits no longer for a login by default (LoginGraceTime).
const SIGN_LIMIT: Duration = Duration::from_secs(120);
/// An agent that gave no answer is not asked again for this long: hundreds of hosts would wait for it in turn.
const SILENT: Duration = Duration::from_secs(30);

/// The turn to ask an agent, and when it was last found silent.
type Turn = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// The turns by socket: of all logins of this process.
static TURNS: LazyLock<Mutex<HashMap<PathBuf, Turn>>> = LazyLock::new(Mutex::default);

/// A connection to an agent.
pub(in crate::ssh) struct Agent {
    client: AgentClient<UnixStream>,
    turn: Turn,
}

fn is_silent(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() < SILENT)
}

impl Agent {
    /// Connects to an agent and asks what it holds. Also returns how long others were waited for.
    ///
    /// # Errors
    /// In words, why it is of no use.
    pub(super) async fn open(
        socket: &Path,
        handle: &Handle<Watcher>,
    ) -> (Duration, Result<(Self, Vec<AgentIdentity>), String>) {
        let turn = {
            let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(socket.to_owned()).or_default())
        };
        let began = Instant::now();
        let mut since = turn.lock().await;
        let waited = began.elapsed();
        if is_silent(*since) {
            return (waited, Err("no answer to another login a moment ago".to_owned()));
        }
        let asking = async {
            let mut client = AgentClient::connect_uds(socket).await?;
            if let Some(binding) = handle.agent_session_binding() {
                // Needed only for keys that are bound to destinations; agents before OpenSSH 8.9 refuse it.
                let _ = client.bind_session(binding, false).await;
            }
            let keys = client.request_identities().await?;
            Ok::<_, russh::keys::Error>((client, keys))
        };
        let opened = match tokio::time::timeout(LIST_LIMIT, asking).await {
            Ok(Ok((client, keys))) => {
                *since = None;
                Ok((Self { client, turn: Arc::clone(&turn) }, keys))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                *since = Some(Instant::now());
                Err(format!("no answer within {} seconds", LIST_LIMIT.as_secs()))
            }
        };
        (waited, opened)
    }

    /// A signature, when it is our turn.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::ssh) async fn sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        let turn = Arc::clone(&self.turn);
        let mut since = turn.lock().await;
        if is_silent(*since) {
            return Err(Unsigned::Why("the agent gave no answer a moment ago".to_owned()));
        }
        match tokio::time::timeout(SIGN_LIMIT, self.client.auth_sign(key, hash, to_sign)).await {
            Ok(Ok(signed)) => Ok(signed),
            Ok(Err(AgentAuthError::Send(_))) => Err(Unsigned::Lost),
            Ok(Err(AgentAuthError::Key(error))) => Err(Unsigned::Why(format!("the agent did not sign: {error}"))),
            Err(_) => {
                *since = Some(Instant::now());
                let seconds = SIGN_LIMIT.as_secs();
                Err(Unsigned::Why(format!("the agent did not sign within {seconds} seconds")))
            }
        }
    }
}
