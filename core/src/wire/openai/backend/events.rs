//! Streams of events of backends, on their way to clients.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;

use crate::wire::byoc::{Relay, Relayed};
use crate::wire::sse::{BadStream, DONE};

/// The events of a backend on their way to a client: line by line as they come, and `[DONE]` at a good end also where the
/// backend forgets it. An orchestrator adds events of its own to those of a container, about money, which clients would
/// take for the model's: they stay here.
#[derive(Debug, Default)]
pub struct Events {
    lines: Relay,
    of_container: bool,
    /// Whether the last line was one of an orchestrator's own event.
    dropped: bool,
    /// Whether `[DONE]` went out.
    done: bool,
}

/// Why a stream of events is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEvents {
    /// A line is too long.
    #[error("{0}")]
    Line(#[from] BadStream),
    /// The orchestrator cut it short, since it counts less money than the work costs.
    #[error("the orchestrator counts less money than the work costs")]
    Unpaid,
}

impl Events {
    /// The events of a container, or of an app.
    #[must_use]
    pub fn new(of_container: bool) -> Self {
        Self {
            of_container,
            ..Self::default()
        }
    }

    /// Takes the next bytes. After the end nothing more comes out.
    ///
    /// # Errors
    /// If nothing more comes of the stream.
    pub fn data(&mut self, bytes: &[u8]) -> Result<Relayed, BadEvents> {
        let mut relayed = self.lines.data(bytes)?;
        relayed.bytes = self.of_backend(relayed.bytes)?;
        if relayed.ended && !self.done {
            relayed.bytes = self.with_end(relayed.bytes);
        }
        Ok(relayed)
    }

    /// The stream has come to a good end.
    ///
    /// # Errors
    /// If its last line says that it is none.
    pub fn end(&mut self) -> Result<Bytes, BadEvents> {
        let rest = self.lines.end();
        let rest = self.of_backend(rest)?;
        if self.done {
            return Ok(rest);
        }
        Ok(self.with_end(rest))
    }

    /// The lines that are the backend's own.
    fn of_backend(&mut self, lines: Bytes) -> Result<Bytes, BadEvents> {
        if !self.of_container {
            return Ok(lines);
        }
        let mut own = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let said = line.trim_ascii();
            if said == UNPAID {
                return Err(BadEvents::Unpaid);
            }
            let ends_dropped = core::mem::take(&mut self.dropped) && said.is_empty();
            self.dropped = is_balance(said);
            if !ends_dropped && !self.dropped {
                own.extend_from_slice(line);
            }
        }
        Ok(own.into())
    }

    fn with_end(&mut self, bytes: Bytes) -> Bytes {
        self.done = true;
        let last = bytes.trim_ascii_end().rsplit(|b| *b == b'\n').next();
        let data = last.and_then(|line| line.strip_prefix(b"data:"));
        if data.is_some_and(|data| data.trim_ascii() == DONE) {
            return bytes;
        }
        [&bytes[..], b"data: [DONE]\n\n"].concat().into()
    }
}

/// The line by which an orchestrator says that a payer has run dry.
const UNPAID: &[u8] = b"event: insufficient balance";

/// Whether a line is an orchestrator's word about what the payer has left.
fn is_balance(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Balance {
        #[serde(rename = "balance")]
        _balance: serde_json::Number,
    }
    { line.strip_prefix(b"data:") }
        .is_some_and(|data| serde_json::from_slice::<Balance>(data).is_ok())
}
