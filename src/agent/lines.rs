//! What an agent reads and writes: a message a line.

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::mpsc;

use super::lock::Pulse;
use crate::failure::{Failure, Kind, Result};
use crate::message::{MAXIMUM_LINE_BYTES, Reply};

/// How a sign of life begins: a request without a number, to which nobody waits for an answer.
const SIGN_OF_LIFE_LINE: &[u8] = b"{\"id\":0,";

/// Reads lines in a task of its own: a line that is half read must not be lost when an answer is ready.
/// A sign of life counts here, however long the work before it takes.
pub(super) fn read_ahead(
    input: impl AsyncRead + Unpin + Send + 'static,
    pulse: Pulse,
) -> mpsc::Receiver<Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut input = BufReader::new(input);
        while let Some(line) = read_line(&mut input).await.transpose() {
            let broken = line.is_err();
            pulse.beat();
            if line.as_ref().is_ok_and(|line| line.starts_with(SIGN_OF_LIFE_LINE)) {
                continue;
            }
            if sender.send(line).await.is_err() || broken {
                return;
            }
        }
    });
    receiver
}

pub(super) async fn write_replies(mut output: impl AsyncWrite + Unpin, mut pending: mpsc::UnboundedReceiver<Reply>) {
    while let Some(reply) = pending.recv().await {
        let Ok(mut line) = serde_json::to_vec(&reply) else { continue };
        line.push(b'\n');
        while let Ok(more) = pending.try_recv() {
            if serde_json::to_writer(&mut line, &more).is_ok() {
                line.push(b'\n');
            }
        }
        if output.write_all(&line).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

/// One line without its end; `None` at the end of the input.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = MAXIMUM_LINE_BYTES as u64;
    let read = input.take(limit).read_until(b'\n', &mut line).await;
    match read {
        Ok(0) => Ok(None),
        Ok(_) if line.last() == Some(&b'\n') => {
            line.pop();
            Ok(Some(line))
        }
        Ok(count) if count as u64 == limit => {
            Err(Failure::new(Kind::Internal, format!("a message is longer than {limit} bytes")))
        }
        Ok(_) => Ok(None),
        Err(error) => Err(Failure::new(Kind::Connection, "the connection broke").because(&error).may_pass()),
    }
}
