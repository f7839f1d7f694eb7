//! Answers of programs that are built in.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::Response;
use serde_json::Value;

use super::socket::Socket;

/// How fast a program works that is built in. The default takes no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tempo {
    /// How long it takes before an answer begins.
    pub takes: Duration,
    /// How long it takes from one event of a stream to the next.
    pub pace: Duration,
}

/// An answer of a program that is built in.
pub(crate) struct Made {
    /// `None` once it has left, or if it never does.
    pub(crate) head: Option<Response>,
    pub(crate) pieces: VecDeque<Bytes>,
    pub(crate) tempo: Tempo,
    /// Whether it is silent for ever.
    pub(crate) silent: bool,
    /// Whether it goes on when the transport has taken some.
    pub(crate) waits: bool,
    /// A piece that comes again and again behind the others.
    pub(crate) again: Option<Bytes>,
    /// The socket that it is, once it has left HTTP.
    pub(crate) socket: Option<Socket>,
}

impl Made {
    pub(super) fn new(status: u16, content: &str, pieces: VecDeque<Bytes>, tempo: Tempo) -> Self {
        Self {
            head: Some(Response::new(status).header("content-type", content)),
            pieces,
            tempo,
            silent: false,
            waits: false,
            again: None,
            socket: None,
        }
    }

    /// A stream of events.
    pub(super) fn events(events: VecDeque<Bytes>, tempo: Tempo) -> Self {
        Self::new(200, livepeer_core::wire::sse::CONTENT_TYPE, events, tempo)
    }

    /// An answer in JSON.
    pub(crate) fn json(status: u16, value: &Value, tempo: Tempo) -> Self {
        let body = Bytes::from(value.to_string());
        Self::new(status, "application/json", [body].into(), tempo)
    }
}
