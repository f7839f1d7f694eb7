//! Connections as they are kept, and whom they lead to.

use std::sync::Arc;

use hyper::client::conn::{http1, http2};
use livepeer_core::Time;
use livepeer_core::http::{Reach, Request, Trust, Url};

use super::body::OutBody;
use super::io::{Heard, Io, Wire};
use crate::rt::Runtime;
use crate::tls::Opened;

/// How many connections wait at most in all.
pub(crate) const MAX_IDLE_CONNECTIONS: usize = 1024;

/// A connection with one exchange at a time, which also polls it. It is handed on in a box: an exchange has to remember
/// each place that it passes through, and a thousand streams are a thousand exchanges.
pub(super) struct Http1<R: Runtime> {
    pub(super) sender: http1::SendRequest<OutBody>,
    pub(super) connection: http1::Connection<Io<Wire<R::Stream>>, OutBody>,
    /// The remembered certificate that opened the connection, if one did: the connection closes when that is replaced.
    pub(super) opened: Option<Arc<Opened>>,
    pub(super) heard: Heard,
}

/// A connection with many exchanges at a time. A task of its own polls it.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<OutBody>,
    /// As with HTTP/1.1: the calls under way are cut.
    pub(super) opened: Option<Arc<Opened>>,
    pub(super) heard: Heard,
}

/// The properties of an exchange that decide which connections it may share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    secure: bool,
    authority: String,
    pinned: bool,
    /// A connection to an address that our user named is none for whom a peer named.
    reach: Reach,
}

impl Key {
    pub(super) fn new(request: &Request) -> Self {
        Self::of(&request.url, request.trust)
    }

    /// Whether both lead to the same peer, whoever named it.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (self.secure, &self.authority, self.pinned)
            == (other.secure, &other.authority, other.pinned)
    }

    fn of(url: &Url, trust: Trust) -> Self {
        Self {
            secure: url.is_secure(),
            authority: url.authority(),
            // In cleartext there is nothing to trust.
            pinned: url.is_secure() && trust != Trust::Public,
            reach: url.reach(),
        }
    }
}

/// A connection that waits for its next exchange, or for another one.
pub(super) struct Idle<T> {
    pub(super) since: Time,
    pub(super) connection: T,
}
