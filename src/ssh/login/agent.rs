//! The agent that holds keys. It answers one question after the other, and a signature may wait for a person who touches
//! a device: so one login at a time asks for one, and the others wait for their turn and not for its answer.

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

async fn list(
    socket: &Path,
    handle: &Handle<Watcher>,
) -> Result<(AgentClient<UnixStream>, Vec<AgentIdentity>), russh::keys::Error> {
    let mut client = AgentClient::connect_uds(socket).await?;
    if let Some(binding) = handle.agent_session_binding() {
        // Needed only for keys that are bound to destinations; agents before OpenSSH 8.9 refuse it.
        let _ = client.bind_session(binding, false).await;
    }
    let keys = client.request_identities().await?;
    Ok((client, keys))
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
        let mut waited = Duration::ZERO;
        loop {
            let began = Instant::now();
            let silent = is_silent(*turn.lock().await);
            waited += began.elapsed();
            if silent {
                return (waited, Err("no answer to another login a moment ago".to_owned()));
            }
            // Side by side with others: an agent may be far away.
            match tokio::time::timeout(LIST_LIMIT, list(socket, handle)).await {
                Ok(Ok((client, keys))) => return (waited, Ok((Self { client, turn }, keys))),
                Ok(Err(error)) => return (waited, Err(error.to_string())),
                Err(_) => {}
            }
            let Ok(mut since) = turn.try_lock() else {
                // It waits for a person who touches a device for another login.
                waited += LIST_LIMIT;
                continue;
            };
            *since = Some(Instant::now());
            return (waited, Err(format!("no answer within {} seconds", LIST_LIMIT.as_secs())));
        }
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
