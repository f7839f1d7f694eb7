//! Connections that wait for the next exchange.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use livepeer_core::Time;

use super::connection::{Http1, Http2, Idle, Key, MAX_IDLE_CONNECTIONS};
use super::io::Heard;
use super::seats::{Found, Seats};
use crate::lock;
use crate::rt::Runtime;
use crate::signal::{Signal, Stop};

/// How long a connection may wait for its next exchange. Shorter than the usual servers keep theirs.
pub(crate) const MAX_IDLE: Duration = Duration::from_secs(55);
/// How many HTTP/1.1 connections to one host and port wait at most.
pub(crate) const MAX_IDLE_PER_PEER: usize = 256;

/// The waiting connections of one client.
pub(super) struct Pool<R: Runtime> {
    me: Weak<Self>,
    runtime: R,
    state: Mutex<State<R>>,
    seats: Arc<Seats>,
    /// Stops the sweeper.
    gone: Arc<Signal>,
}

struct State<R: Runtime> {
    http1: BTreeMap<Key, Vec<Idle<Box<Http1<R>>>>>,
    http2: BTreeMap<Key, Idle<Http2>>,
    waiting: usize,
    sweeping: bool,
}

impl<R: Runtime> Pool<R> {
    pub(super) fn new(runtime: R) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            runtime,
            state: Mutex::new(State {
                http1: BTreeMap::new(),
                http2: BTreeMap::new(),
                waiting: 0,
                sweeping: false,
            }),
            seats: Arc::default(),
            gone: Arc::default(),
        })
    }

    /// A seat on a shared connection, or another way to go on.
    pub(super) fn seat(&self, key: &Key) -> Found {
        let found = self.seats.find(key, self.now());
        self.sweep_later(&mut lock(&self.state));
        found
    }

    pub(super) fn now(&self) -> Time {
        self.runtime.now()
    }

    /// The connection that waited least, if any. It may be dead by now.
    pub(super) fn take_http1(&self, key: &Key) -> Option<Box<Http1<R>>> {
        let mut state = lock(&self.state);
        let idle = state.http1.get_mut(key)?.pop()?;
        state.waiting -= 1;
        Some(idle.connection)
    }

    pub(super) fn put_http1(&self, key: Key, connection: Box<Http1<R>>) {
        let since = self.runtime.now();
        let mut state = lock(&self.state);
        if state.waiting >= MAX_IDLE_CONNECTIONS {
            return;
        }
        let idle = state.http1.entry(key).or_default();
        let oldest = (idle.len() >= MAX_IDLE_PER_PEER).then(|| idle.remove(0));
        idle.push(Idle { since, connection });
        if oldest.is_none() {
            state.waiting += 1;
        }
        self.sweep_later(&mut state);
        drop(state);
    }

    /// The shared connection, if there is one that lives.
    pub(super) fn get_http2(&self, key: &Key) -> Option<Http2> {
        let now = self.runtime.now();
        let mut state = lock(&self.state);
        let shared = state.http2.get_mut(key)?;
        if shared.connection.sender.is_closed() {
            state.http2.remove(key);
            return None;
        }
        shared.since = now;
        Some(shared.connection.clone())
    }

    pub(super) fn share_http2(&self, key: Key, connection: Http2) {
        let since = self.runtime.now();
        let mut state = lock(&self.state);
        if state.http2.len() < MAX_IDLE_CONNECTIONS {
            state.http2.insert(key, Idle { since, connection });
        }
        self.sweep_later(&mut state);
    }

    /// Closes what waits for a peer, whoever named it.
    pub(super) fn evict(&self, key: &Key) {
        let mut state = lock(&self.state);
        let keys = state.http1.keys().chain(state.http2.keys());
        let keys: Vec<Key> = keys.filter(|other| key.is_of(other)).cloned().collect();
        let (mut idle, mut shared) = (Vec::new(), Vec::new());
        for key in &keys {
            idle.extend(state.http1.remove(key).unwrap_or_default());
            shared.extend(state.http2.remove(key));
        }
        state.waiting -= idle.len();
        drop(state);
        drop((idle, shared));
        self.seats.evict(key);
    }

    /// Closes what has given no sign of life since a time at which the peer was asked in vain: the connection that it
    /// was asked on, and those that had waited before.
    pub(super) fn doubt(&self, key: &Key, since: Time, asked: &Heard) {
        let mut state = lock(&self.state);
        let mut old = Vec::new();
        if let Some(idle) = state.http1.get_mut(key) {
            let before = idle.partition_point(|idle| idle.since <= since);
            old.extend(idle.drain(..before));
        }
        state.waiting -= old.len();
        let shared = state.http2.get(key);
        let shared = shared.is_some_and(|shared| shared.connection.heard.is_of(asked));
        let shared = shared.then(|| state.http2.remove(key));
        drop(state);
        drop((old, shared));
        self.seats.doubt(key, asked);
    }

    /// Starts the task that closes connections that waited too long, unless it runs; it lives while any wait.
    fn sweep_later(&self, state: &mut State<R>) {
        if std::mem::replace(&mut state.sweeping, true) {
            return;
        }
        let pool = self.me.clone();
        let runtime = self.runtime.clone();
        let gone = Arc::clone(&self.gone);
        self.runtime.spawn(async move {
            loop {
                let at = runtime.now() + MAX_IDLE / 2;
                if gone
                    .unless_stopped(pin!(runtime.sleep_until(at)))
                    .await
                    .is_none()
                {
                    return;
                }
                match pool.upgrade() {
                    Some(pool) if pool.sweep() => {}
                    _ => return,
                }
            }
        });
    }

    /// Closes connections that waited too long; whether any are left.
    fn sweep(&self) -> bool {
        let now = self.runtime.now();
        let fresh = |since: Time| now.since(since) < MAX_IDLE;
        let mut old = Vec::new();
        let mut state = lock(&self.state);
        for idle in state.http1.values_mut() {
            let stay = idle.partition_point(|idle| !fresh(idle.since));
            old.extend(idle.drain(..stay));
        }
        state.http1.retain(|_, idle| !idle.is_empty());
        // Streams of an evicted connection run on to their end.
        state
            .http2
            .retain(|_, shared| fresh(shared.since) && !shared.connection.sender.is_closed());
        state.waiting -= old.len();
        let left = !(state.http1.is_empty() && state.http2.is_empty());
        state.sweeping = self.seats.sweep(fresh) || left;
        state.sweeping
    }
}

impl<R: Runtime> Drop for Pool<R> {
    fn drop(&mut self) {
        self.gone.raise(Stop::Now);
    }
}
