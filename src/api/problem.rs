//! Why a request to an API server has no answer we can use.

use crate::failure::{Failure, Kind};

/// Why a request failed, as far as the caller must tell cases apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No answer: nobody listens, the connection broke, TLS failed, or the time limit passed.
    Unreachable(String),
    /// The server's certificate is not accepted: it is of another authority or name, or out of its time.
    Untrusted(String),
    /// An answer that refuses.
    Refused {
        /// HTTP status.
        code: u16,
        /// Kubernetes' word for it: `AlreadyExists`, `NotFound`, `Forbidden`, `Invalid`...
        reason: String,
        /// Its sentence. Untrusted text.
        message: String,
    },
    /// An answer that is too long or not what it should be.
    Unreadable(String),
}

impl Problem {
    /// Whether the object asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Problem::Refused { code: 404, .. })
    }

    /// Whether the object to create is there already.
    pub fn is_already_there(&self) -> bool {
        matches!(self, Problem::Refused { code: 409, reason, .. } if reason == "AlreadyExists")
    }

    /// Whether somebody else altered the object in between.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Problem::Refused { code: 409, reason, .. } if reason != "AlreadyExists")
    }

    /// Whether the rights do not suffice (yet: the API server makes its own roles while it starts).
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Problem::Refused { code: 403, .. })
    }

    /// Whether the credentials are not accepted.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Problem::Refused { code: 401, .. })
    }

    /// Whether the object breaks a rule of its kind.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Problem::Refused { code: 422, .. })
    }

    /// Whether the same request can succeed a moment later without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Problem::Unreachable(_) => true,
            Problem::Refused { code, .. } => self.is_conflict() || matches!(code, 429 | 500..=599),
            Problem::Unreadable(_) | Problem::Untrusted(_) => false,
        }
    }

    /// The failure a person sees: `what` is the sentence, this the cause.
    pub fn failure(self, what: impl Into<String>) -> Failure {
        let failure = Failure::new(Kind::Cluster, what).caused_by(self.to_string());
        if self.may_pass() { failure.may_pass() } else { failure }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::Unreachable(text) | Problem::Unreadable(text) | Problem::Untrusted(text) => {
                formatter.write_str(text)
            }
            Problem::Refused { code, message, .. } if message.is_empty() => {
                write!(formatter, "the API server answered {code}")
            }
            Problem::Refused { code, message, .. } => write!(formatter, "the API server answered {code}: {message}"),
        }
    }
}

impl std::error::Error for Problem {}
