//! Commands on a terminal of their own on the host, which sshd makes (RFC 4254 sections 6.2 and 6.7).

use crate::failure::Result;

use super::channel::{Channel, Reader, Writer};

/// A terminal as a host is to believe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its kind, as in `TERM`.
    pub kind: String,
    /// Its width in characters.
    pub columns: u32,
    /// Its height in lines.
    pub rows: u32,
}

impl Default for Terminal {
    /// One that nobody looks at.
    fn default() -> Self {
        Self { kind: "dumb".to_owned(), columns: 80, rows: 24 }
    }
}

impl Channel {
    /// Asks the host for a terminal and to start the command, or the login shell, on it; a refusal comes out of the
    /// [`Reader`](super::Reader).
    pub(super) async fn start_on(
        &self,
        terminal: &Terminal,
        environment: &[(String, String)],
        command: Option<&str>,
    ) -> Result<()> {
        let Terminal { kind, columns, rows } = terminal;
        let Some(half) = self.writer.shared.half.ours() else { return Ok(()) };
        // Modes are the host's own defaults: ours belong to a terminal that is set to pass everything on.
        self.writer.hand_over(half.request_pty(true, kind, *columns, *rows, 0, 0, &[])).await?;
        for (name, value) in environment {
            self.writer.hand_over(half.set_env(false, name.as_str(), value.as_str())).await?;
        }
        match command {
            Some(command) => self.writer.hand_over(half.exec(true, command)).await,
            None => self.writer.hand_over(half.request_shell(true)).await,
        }
    }
}

impl Channel {
    /// The two directions of one channel together again.
    pub fn join(writer: Writer, reader: Reader) -> Self {
        Self { writer, reader }
    }

    /// Keeps another channel open until this one has ended; what comes out of it is passed over.
    pub fn keep_open(&self, mut other: Channel) {
        let mut ended = self.writer.shared.ended.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = ended.wait_for(|ended| *ended) => break,
                    chunk = other.recv() => if !matches!(chunk, Ok(Some(_))) {
                        break;
                    }
                }
            }
        });
    }
}

impl Writer {
    /// Tells the host that its terminal has another size.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub async fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        match self.shared.half.ours() {
            Some(half) => self.hand_over(half.window_change(columns, rows, 0, 0)).await,
            // The user's own ssh looks at its own terminal, and has none.
            None => Ok(()),
        }
    }
}
