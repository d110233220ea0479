//! The laptop as a receiver sees it: lines and bytes that come, reports that go.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;

use serde::Deserialize;

use super::{CHUNK_BYTES, Incoming, Instead, Report};
use crate::agent::relay::Asker;
use crate::failure::{Failure, Kind, Result};
use crate::message::MAXIMUM_LINE_BYTES;

/// A line of the laptop. Blobs that other hosts give are announced ahead, so that an [`Instead`] may stand behind them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Incoming(Box<Incoming>),
    Instead(Instead),
}

pub(super) fn broke(error: io::Error) -> Failure {
    Failure::new(Kind::Connection, "the connection broke").because(&error).may_pass()
}

/// The laptop's side of the channel: lines and bytes in, lines out.
pub(super) struct Laptop<I, O> {
    pub(super) input: BufReader<I>,
    output: O,
    /// What was announced while an [`Instead`] was waited for.
    ahead: VecDeque<Incoming>,
    /// Hosts that gave nothing (more). What was announced before the laptop knew is not tried with them.
    pub(super) silent: BTreeSet<SocketAddr>,
    /// Who asks the others.
    pub(super) asker: Asker,
}

impl<I: Read, O: Write> Laptop<I, O> {
    pub(super) fn new(input: I, output: O) -> Self {
        let input = BufReader::with_capacity(CHUNK_BYTES, input);
        Self { input, output, ahead: VecDeque::new(), silent: BTreeSet::new(), asker: Asker::default() }
    }

    pub(super) fn tell(&mut self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.output.write_all(&line)?;
        self.output.flush()
    }

    /// The next line; empty at the end of the input.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.input).take(MAXIMUM_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        Ok(line)
    }

    /// The next announcement; none at the end of the input.
    pub(super) fn announcement(&mut self) -> Result<Option<Incoming>> {
        if let Some(incoming) = self.ahead.pop_front() {
            return Ok(Some(incoming));
        }
        let line = self.line().map_err(broke)?;
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| Failure::new(Kind::Internal, "what arrived is no announcement of a blob").because(&error))
    }

    /// Who gives the rest of the blob under way; none at the end of the input.
    pub(super) fn instead(&mut self) -> io::Result<Option<Instead>> {
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(None);
            }
            match serde_json::from_slice::<Word>(&line)? {
                Word::Incoming(incoming) => self.ahead.push_back(*incoming),
                Word::Instead(instead) => return Ok(Some(instead)),
            }
        }
    }
}
