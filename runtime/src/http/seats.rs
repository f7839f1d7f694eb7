//! Connections over HTTP/2 that exchanges share, to peers that offer it. An exchange has a seat on one of them, and of
//! those that find none one opens another connection, while the others wait for it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use livepeer_core::Time;
use livepeer_core::http::Fault;

use super::connection::{Http2, Idle, Key, MAX_IDLE_CONNECTIONS};
use super::io::Heard;
use crate::lock;
use crate::signal::{Signal, Stop};

/// At most this many exchanges share a connection, and fewer if its peer says so. Usual servers let as many be.
pub const MAX_SEATS: usize = 100;

/// The shared connections of one client, by peer.
#[derive(Default)]
pub(super) struct Seats(Mutex<BTreeMap<Key, Peer>>);

/// A peer, as far as it is known.
struct Peer {
    since: Time,
    connections: Vec<Idle<Arc<Shared>>>,
    /// The connection that is being opened.
    opening: Option<Arc<Opening>>,
    /// The peer did not choose HTTP/2 when it was asked last.
    is_http1: bool,
}

/// A connection that exchanges share.
struct Shared {
    connection: Http2,
    taken: AtomicUsize,
    streams: Streams,
}

/// How many streams the peer of a connection lets be at a time, as far as it has said so by now.
pub(super) type Streams = Box<dyn Fn() -> usize + Send + Sync>;

/// A connection that one exchange opens and others wait for.
#[derive(Default)]
pub(super) struct Opening {
    over: Signal,
    fault: Mutex<Option<Fault>>,
}

impl Opening {
    /// Waits until it stands, or is not to be had: why.
    pub(super) async fn over(&self) -> Option<Fault> {
        let never = std::future::pending::<()>();
        self.over.unless_stopped(pin!(never)).await;
        lock(&self.fault).clone()
    }
}

/// The place of an exchange on a shared connection, which is free again when this is dropped.
pub(super) struct Seat(Arc<Shared>);

impl Seat {
    pub(super) fn connection(&self) -> &Http2 {
        &self.0.connection
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    /// Takes a seat, if one is free. Called with the pool locked.
    fn sit(self: &Arc<Self>) -> Option<Seat> {
        let taken = self.taken.load(Relaxed);
        let free = taken < MAX_SEATS && taken < (self.streams)();
        free.then(|| {
            self.taken.fetch_add(1, Relaxed);
            Seat(Arc::clone(self))
        })
    }
}

/// How an exchange with a peer goes on that may speak HTTP/2.
pub(super) enum Found {
    /// On a shared connection.
    Seat(Seat),
    /// Another exchange opens one.
    Opening(Arc<Opening>),
    /// The task of opening one, for this exchange.
    Open(Opener),
    /// Over HTTP/1.1.
    Http1,
}

/// The task of opening a connection that others wait for. Dropped, it leaves the task to one of those.
pub(super) struct Opener {
    seats: Arc<Seats>,
    key: Key,
    opening: Arc<Opening>,
}

impl Opener {
    /// The connection stands.
    pub(super) fn opened(self, now: Time, connection: Http2, streams: Streams) -> Seat {
        let shared = Arc::new(Shared {
            connection,
            taken: AtomicUsize::new(1),
            streams,
        });
        let idle = Idle {
            since: now,
            connection: Arc::clone(&shared),
        };
        self.tell(|peer| peer.connections.push(idle));
        Seat(shared)
    }

    /// The peer chose HTTP/1.1.
    pub(super) fn chose_http1(self) {
        self.tell(|peer| peer.is_http1 = true);
    }

    /// There is no connection to be had.
    pub(super) fn failed(self, fault: &Fault) {
        *lock(&self.opening.fault) = Some(fault.clone());
    }

    fn tell(&self, what: impl FnOnce(&mut Peer)) {
        lock(&self.seats.0).get_mut(&self.key).map(what);
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.tell(|peer| {
            let is_this = |other: &Arc<Opening>| Arc::ptr_eq(other, &self.opening);
            if peer.opening.as_ref().is_some_and(is_this) {
                peer.opening = None;
            }
        });
        self.opening.over.raise(Stop::Now);
    }
}

impl Peer {
    fn new(since: Time) -> Self {
        Self {
            since,
            connections: Vec::new(),
            opening: None,
            is_http1: false,
        }
    }

    fn sit(&mut self, now: Time) -> Option<Seat> {
        self.since = now;
        self.connections
            .retain(|idle| !idle.connection.connection.sender.is_closed());
        let mut all = self.connections.iter_mut();
        all.find_map(|idle| {
            let seat = idle.connection.sit()?;
            idle.since = now;
            Some(seat)
        })
    }

    /// Lets go of the connection whose peer was asked in vain.
    fn doubt(&mut self, asked: &Heard) {
        self.connections
            .retain(|idle| !idle.connection.connection.heard.is_of(asked));
    }

    /// Lets go of connections that nobody has used for long; whether anything is left to know.
    fn sweep(&mut self, fresh: impl Fn(Time) -> bool) -> bool {
        self.connections
            .retain(|idle| fresh(idle.since) || idle.connection.taken.load(Relaxed) > 0);
        fresh(self.since) || !self.connections.is_empty() || self.opening.is_some()
    }
}

impl Seats {
    /// A seat, or another way to go on.
    pub(super) fn find(self: &Arc<Self>, key: &Key, now: Time) -> Found {
        let mut peers = lock(&self.0);
        if !peers.contains_key(key) {
            if peers.len() >= MAX_IDLE_CONNECTIONS {
                return Found::Http1;
            }
            peers.insert(key.clone(), Peer::new(now));
        }
        let peer = peers.get_mut(key).expect("it was just seen to");
        if peer.is_http1 {
            return Found::Http1;
        }
        if let Some(seat) = peer.sit(now) {
            return Found::Seat(seat);
        }
        if let Some(opening) = &peer.opening {
            return Found::Opening(Arc::clone(opening));
        }
        let opening = Arc::default();
        peer.opening = Some(Arc::clone(&opening));
        Found::Open(Opener {
            seats: Arc::clone(self),
            key: key.clone(),
            opening,
        })
    }

    /// Forgets a peer, whoever named it. Exchanges that have a seat go on.
    pub(super) fn evict(&self, key: &Key) {
        let mut peers = lock(&self.0);
        let keys: Vec<Key> = { peers.keys().filter(|other| key.is_of(other)) }
            .cloned()
            .collect();
        let gone: Vec<_> = keys.iter().map(|key| peers.remove(key)).collect();
        drop(peers);
        drop(gone);
    }

    /// Lets go of the connection whose peer was asked in vain.
    pub(super) fn doubt(&self, key: &Key, asked: &Heard) {
        if let Some(peer) = lock(&self.0).get_mut(key) {
            peer.doubt(asked);
        }
    }

    /// Lets go of what nobody has used for long; whether anything is left.
    pub(super) fn sweep(&self, fresh: impl Fn(Time) -> bool) -> bool {
        let mut peers = lock(&self.0);
        peers.retain(|_, peer| peer.sweep(&fresh));
        !peers.is_empty()
    }
}
