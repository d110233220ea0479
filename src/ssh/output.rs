//! What comes out of a command, and how it ended.

use bytes::Bytes;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By this signal, without `SIG`: `KILL`.
    Signal(String),
}

impl Exit {
    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        *self == Self::Status(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "status {status}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// What came out of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// From its standard output.
    Stdout(Bytes),
    /// From its standard error.
    Stderr(Bytes),
    /// It ended; always the last chunk.
    Exit(Exit),
}

/// All of a command that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Exit,
    /// Its standard output, whole.
    pub stdout: Bytes,
    /// The last 64 KiB of its standard error; untrusted.
    pub stderr: String,
}

impl Output {
    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}
