//! What went wrong, as a person needs it: one sentence, whose fault, whether trying again helps, what to do now.
//!
//! Every layer returns [`Failure`]; it crosses from a host to the laptop inside messages. `ui` is the only place that
//! prints one and `cli` the only place that turns its [`Kind`] into an exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of failure; each has an exit code of its own (README, "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The inventory, a playbook or a kubeadm configuration is wrong.
    Configuration,
    /// A host cannot be reached, or the connection to it broke.
    Connection,
    /// A host does not accept the keys or the password.
    Authentication,
    /// A host's key is unknown, changed or revoked.
    HostKey,
    /// The user on the host cannot become root.
    Privilege,
    /// A host does not fulfil a condition; nothing was changed.
    Preflight,
    /// The bundle is missing, incomplete or damaged.
    Bundle,
    /// A step on a host failed (disk full, unit does not start, command failed).
    Host,
    /// Kubernetes itself did not come up or answered with an error.
    Cluster,
    /// Another run holds the lock.
    Busy,
    /// A person interrupted the run.
    Interrupted,
    /// A defect of clusterctl.
    Internal,
}

impl Kind {
    /// The exit code of the process when this is the worst that happened.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Configuration => 3,
            Kind::Connection => 4,
            Kind::Authentication => 5,
            Kind::HostKey => 6,
            Kind::Privilege => 7,
            Kind::Preflight => 8,
            Kind::Bundle => 9,
            Kind::Host => 10,
            Kind::Cluster => 11,
            Kind::Busy => 12,
            Kind::Interrupted => 130,
            Kind::Internal => 70,
        }
    }
}

/// Whether typing the same command again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// The cause may pass by itself (a timeout, a dropped link).
    MayHelp,
    /// Nothing changes until somebody changes something.
    Useless,
}

/// A failure with everything a person needs to act on it.
///
/// `sentence` is one sentence without a full stop that names the file, address or unit concerned; the host is kept
/// apart in `host`, because the same failure on ten hosts is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, which decides the exit code.
    pub kind: Kind,
    /// The inventory name of the host concerned, if it is one host's failure.
    pub host: Option<String>,
    /// What happened.
    pub sentence: String,
    /// What lay below it, outermost first.
    pub causes: Vec<String>,
    /// What to do now, in the imperative.
    pub advice: Option<String>,
    /// Whether the same command again can help.
    pub retry: Retry,
    /// More lines worth reading: the tail of a log, a rendered source excerpt. Untrusted text.
    pub detail: Option<String>,
}

impl Failure {
    /// A failure of `kind`; trying again is taken to be useless until said otherwise.
    pub fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self {
            kind,
            host: None,
            sentence: sentence.into(),
            causes: Vec::new(),
            advice: None,
            retry: Retry::Useless,
            detail: None,
        }
    }

    /// Names the host.
    pub fn on(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Adds what lay below, with the whole chain of its sources.
    pub fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds a cause in words.
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Says what to do now.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Says that the same command again may succeed.
    pub fn may_pass(mut self) -> Self {
        self.retry = Retry::MayHelp;
        self
    }

    /// Attaches longer text: a log tail, an excerpt of a file.
    pub fn detailed(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for Failure {
    /// One line, for logs and tests; people see what `ui` makes of it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(formatter, "{host}: ")?;
        }
        formatter.write_str(&self.sentence)?;
        for cause in &self.causes {
            write!(formatter, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The result of everything that can go wrong outside of us.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::{Failure, Kind, Retry};

    #[test]
    fn a_failure_carries_host_cause_and_advice() {
        let source = std::io::Error::other("No space left on device");
        let failure = Failure::new(Kind::Host, "cannot write /etc/kubernetes/pki/ca.crt")
            .on("cp1")
            .because(&source)
            .advise("free some space and run the same command again")
            .may_pass();
        assert_eq!(failure.to_string(), "cp1: cannot write /etc/kubernetes/pki/ca.crt: No space left on device");
        assert_eq!(failure.retry, Retry::MayHelp);
        assert_eq!(failure.kind.exit_code(), 10);
    }
}
