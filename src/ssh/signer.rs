//! Who signs a login: a key file, an agent, or nobody, to ask whether a host would accept the key at all.

use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::{HashAlg, PrivateKey};
use russh::{SendError, Signer};

use super::deadline::Pause;
use super::login::Agent;
use super::watcher::{LostReceiver, lost};

/// A signer that never signs: when russh asks it to, the host has accepted the public key. The attempt is abandoned
/// then, which the host does not count, and repeated with the unlocked key.
pub(super) struct Question;

/// How the question ended.
pub(super) enum Asked {
    /// The host accepts the key.
    Yes,
    /// The connection ended.
    Lost,
}

impl From<SendError> for Asked {
    fn from(_: SendError) -> Self {
        Self::Lost
    }
}

impl Signer for Question {
    type Error = Asked;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        _to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Asked> {
        Err(Asked::Yes)
    }
}

/// Signs with a private key from a file; RSA with SHA-512. russh's own way of offering a certificate names SHA-1 for RSA,
/// which servers refuse.
pub(super) struct FileSigner(pub(super) Arc<PrivateKey>);

/// Why a key did not sign.
pub(super) enum Unsigned {
    /// The connection ended.
    Lost,
    /// In words.
    Why(String),
}

impl From<SendError> for Unsigned {
    fn from(_: SendError) -> Self {
        Self::Lost
    }
}

impl Signer for FileSigner {
    type Error = Unsigned;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        let signature = self.0.try_sign(&to_sign).map_err(|error| Unsigned::Why(error.to_string()))?;
        let why = |error: russh::keys::ssh_encoding::Error| Unsigned::Why(error.to_string());
        let mut encoded = Vec::new();
        signature.encode(&mut encoded).map_err(why)?;
        encoded.encode(&mut to_sign).map_err(why)?;
        Ok(to_sign)
    }
}

/// An agent that signs with a key that it holds.
pub(super) struct AgentSigner<'a> {
    /// The agent.
    pub(super) agent: &'a mut Agent,
    /// Whether it holds the bare key of a certificate that we have as a file.
    pub(super) bare: bool,
    /// Stops the clock meanwhile: a person may have to touch a device or to say yes.
    pub(super) pause: Pause,
    /// Ends the wait for a signature that nobody needs any more.
    pub(super) lost: LostReceiver,
}

impl Signer for AgentSigner<'_> {
    type Error = Unsigned;

    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        let bare = self.bare.then(|| AgentIdentity::from(key.public_key().into_owned()));
        let _waiting = self.pause.begin();
        tokio::select! {
            biased;
            _ = lost(&self.lost) => Err(Unsigned::Lost),
            signed = self.agent.sign(bare.as_ref().unwrap_or(key), hash, to_sign) => signed,
        }
    }
}
