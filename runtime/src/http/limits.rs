//! Limits of a listening socket: on connections, and on what is taken in before a machine hears of it.

use std::time::Duration;

use super::{MAX_HEAD_BYTES, MAX_HEADERS, SERVER_BUF_BYTES};

/// How many connections a server holds; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 16_384;

/// How long the head of a request may take from its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may be without a request. Some publishers open theirs long before they need it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Limits of a [`Server`](super::Server). The default suits peers of the network, whose heads carry payments and whose
/// connections wait for their turn; [`Limits::front_door`] suits applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most this many bytes are in the head of a request.
    pub max_head: usize,
    /// At most this many fields are in it.
    pub max_fields: usize,
    /// At most this many connections are open; further ones wait to be accepted.
    pub max_connections: usize,
    /// At most this many of them come from one address; further ones are told so and closed.
    pub max_per_address: usize,
    /// How long a head may take from its first byte.
    pub head_within: Duration,
    /// How long a new connection may take to send the first byte.
    pub first_within: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long a peer may take nothing of what is being written to it; `None` for as long as it likes.
    pub write_stall: Option<Duration>,
    /// At most this many bytes wait in a connection to be written.
    pub buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head: MAX_HEAD_BYTES,
            max_fields: MAX_HEADERS,
            max_connections: MAX_CONNECTIONS,
            max_per_address: MAX_CONNECTIONS,
            head_within: HEADER_TIMEOUT,
            first_within: IDLE_TIMEOUT,
            idle: IDLE_TIMEOUT,
            write_stall: None,
            buffer: SERVER_BUF_BYTES,
        }
    }
}

impl Limits {
    /// The limits of a front door (front-door spec 1.12).
    #[must_use]
    pub fn front_door() -> Self {
        Self {
            max_head: 32 << 10,
            max_fields: 100,
            max_connections: 10_000,
            max_per_address: 1_000,
            head_within: Duration::from_secs(10),
            first_within: Duration::from_secs(10),
            write_stall: Some(Duration::from_secs(60)),
            buffer: 64 << 10,
            ..Self::default()
        }
    }
}
