//! Settings of a port, what it asks for and what it tells.

use std::net::{IpAddr, SocketAddr};

use livepeer_core::http::Response;
use livepeer_core::{EffectId, Time};

use super::{Datagram, End, Frame, SessionId};
use crate::whip::Patience;

/// The settings of a port.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses at which peers reach the port, the best first: each that it is bound to, and each public one that
    /// leads there.
    pub addresses: Vec<SocketAddr>,
    /// Servers for `Link` headers, each as `stun:host:port`. Peers need none to reach us.
    pub ice_servers: Vec<String>,
    /// At most this many sessions, senders and viewers together.
    pub max_sessions: usize,
    /// At most this many viewers of a stream.
    pub max_viewers: usize,
    /// The waiting times of senders.
    pub patience: Patience,
    /// Whether viewers may hold pictures back until sound is in step with them. Otherwise they show pictures at once, and
    /// browsers, which have to buffer sound, play it up to 130 ms later.
    pub in_step: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            ice_servers: Vec::new(),
            max_sessions: 1_000,
            max_viewers: 5,
            patience: Patience::default(),
            in_step: false,
        }
    }
}

/// An output of a port.
#[derive(Debug)]
pub enum Output {
    /// Answer this request.
    Reply(EffectId, Response),
    /// Send this datagram.
    Send(Datagram),
    /// Know this.
    Event(Event),
    /// Drained. Call [`Port::tick`](super::Port::tick) at that time, if nothing else comes before it.
    Idle(Option<Time>),
}

/// The news of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Somebody wants to send under a name. Answer with [`Port::admit`](super::Port::admit) within [`ADMISSION`](crate::whip::ADMISSION).
    Asked {
        /// The session.
        session: SessionId,
        /// The name of the stream.
        stream: String,
        /// The bearer token, if there is one.
        bearer: Option<String>,
        /// The query of the request.
        query: String,
        /// The address that the request came from, if that is known.
        peer: Option<IpAddr>,
    },
    /// DTLS with a sender is done: a job may be started.
    Connected(SessionId),
    /// A sender's stream begins; whether it offered sound. Sound that was not offered never comes, and sound that was may
    /// not. Pictures come as they are: the first ones may refer to what was sent before.
    Opened(SessionId, bool),
    /// A frame of a sender, which has just arrived.
    Frame(SessionId, Frame),
    /// No picture came for a second and a half.
    Stalled(SessionId),
    /// Pictures come again.
    Resumed(SessionId),
    /// A sender that was admitted is gone.
    Ended(SessionId, End),
    /// A viewer was answered.
    Watching(SessionId, String),
    /// A viewer is gone.
    Left(SessionId, End),
}

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Datagrams of nobody's: of an unknown source, or with a checksum that is wrong.
    pub dropped: u64,
    /// STUN messages that were not checked, since their host sends too many.
    pub unchecked: u64,
}
