//! Runs machines: performs their effects, feeds back what comes of them, and keeps their time.
//!
//! There is no loop. A machine sits behind a lock; whoever brings something, a command of its owner, bytes from
//! the network or the timer, takes the lock, feeds the machine and drains it to `Idle` on the spot. What the
//! machine asks for goes into the queues of its exchanges, and the tasks that wait there are woken once the lock
//! is free. So a chunk that arrives at a server is in the queues of all its readers before the call that brought
//! it returns, with no task in between.
//!
//! | task | lives | waits for |
//! |---|---|---|
//! | timer, one per machine | until the last handle is dropped | the machine's wake time |
//! | client exchange | until its last input, or `Abort` | connection, body queue, reply |
//! | server connection | until it closes | requests, body queues |
//! | signature, record | until it is answered | the key holder, the store |

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use livepeer_core::signers::Standing;
use livepeer_core::{SignerHealth, Time};

use crate::engine::{Drivable, Engine};
use crate::http::Client;
use crate::keys::{NoSigner, Signer};
use crate::lane::PeerSink;
use crate::lock;
use crate::rt::Runtime;
use crate::signal::Signal;
use crate::store::{MemoryStore, Store};
use crate::tls::Pins;

/// While this many events wait for the owner, no exchange of the machine reads body bytes from the network.
pub const MAX_EVENTS: usize = 64;

/// At most this many records of a machine wait for the store; further ones fail at once, so that a store that hangs
/// holds no more.
pub const MAX_RECORDS: usize = 1 << 16;

/// Reading starts again when so few events are left.
pub(crate) const FEW_EVENTS: usize = MAX_EVENTS / 2;

/// Services for machines to run on: a runtime, an HTTP client with its connections and pins, a key holder and a store.
///
/// Cheap to clone; clones share everything, so one driver for all machines of a program makes them share
/// connections, remembered certificates, and what is known of remote signers.
#[derive(Clone)]
pub struct Driver<R: Runtime> {
    runtime: R,
    client: Client<R>,
    signer: Arc<dyn Signer>,
    store: Arc<dyn Store>,
    /// How remote signers have been.
    signers: Arc<Mutex<SignerHealth>>,
}

impl<R: Runtime> Driver<R> {
    /// A driver without a key, with a store in memory, that remembers no certificates yet.
    pub fn new(runtime: R) -> Self {
        Self {
            client: Client::new(runtime.clone()),
            runtime,
            signer: Arc::new(NoSigner),
            store: Arc::new(MemoryStore::default()),
            signers: Arc::default(),
        }
    }

    /// Signs with `signer`.
    #[must_use]
    pub fn with_signer(mut self, signer: impl Signer) -> Self {
        self.signer = Arc::new(signer);
        self
    }

    /// Keeps records in `store`.
    #[must_use]
    pub fn with_store(mut self, store: impl Store) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Trusts and remembers certificates in `pins`, with connections of its own.
    #[must_use]
    pub fn with_pins(mut self, pins: Pins) -> Self {
        self.client = self.client.with_pins(pins);
        self
    }

    /// Trusts these roots in place of the system's, with connections of its own.
    #[must_use]
    pub fn with_roots(mut self, roots: rustls::RootCertStore) -> Self {
        self.client = self.client.with_roots(roots);
        self
    }

    /// The certificates remembered so far.
    pub fn pins(&self) -> &Pins {
        self.client.pins()
    }

    /// The runtime.
    pub const fn runtime(&self) -> &R {
        &self.runtime
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.runtime.now()
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The key holder.
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// How remote signers have been, in all jobs together: who rests, and until when. A new job asks accordingly.
    pub fn signer_health(&self) -> SignerHealth {
        lock(&self.signers).clone()
    }

    /// Takes over what a machine saw of remote signers, so that the next one need not find out again.
    pub fn learn_signers(&self, seen: &SignerHealth) {
        let mut known = lock(&self.signers);
        let (now, before) = (self.now(), known.clone());
        known.merge(seen);
        for (url, until) in known.resting(now) {
            if before.standing(now, url) == Standing::Healthy {
                let seconds = until.since(now).as_secs();
                tracing::warn!(signer = %url, seconds, "a signer failed and rests: the others are asked first");
            }
        }
    }

    /// Starts `machine`: what it has queued is performed before this returns.
    pub fn drive<M: Drivable>(&self, machine: M) -> Handle<M, R> {
        Handle {
            owner: Arc::new(Owner(Engine::start(self.clone(), machine))),
        }
    }

    pub(crate) const fn client(&self) -> &Client<R> {
        &self.client
    }
}

/// The owner's end of a running machine.
///
/// Clones share the machine. When the last one is dropped, all exchanges are aborted, servers stop, and the
/// tasks end.
pub struct Handle<M: Drivable, R: Runtime> {
    owner: Arc<Owner<M, R>>,
}

impl<M: Drivable, R: Runtime> Clone for Handle<M, R> {
    fn clone(&self) -> Self {
        Self {
            owner: Arc::clone(&self.owner),
        }
    }
}

struct Owner<M: Drivable, R: Runtime>(Arc<Engine<M, R>>);

impl<M: Drivable, R: Runtime> Drop for Owner<M, R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<M: Drivable, R: Runtime> Handle<M, R> {
    /// Runs a command, or asks a question, and performs what follows from it.
    ///
    /// The machine is locked meanwhile: `f` should be brief and must not use the handle.
    pub fn with<T>(&self, f: impl FnOnce(&mut M, Time) -> T) -> T {
        self.owner.0.run(f)
    }

    /// The next event; `None` after [`Handle::close`].
    ///
    /// Somebody has to take the events: while [`MAX_EVENTS`] of them wait, the machine's exchanges stop reading
    /// from the network. Whether a machine has ended is for its events to tell.
    pub async fn next(&self) -> Option<M::Event> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for an event as [`Handle::next`] does, by hand.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<M::Event>> {
        self.owner.0.poll_event(Some(cx))
    }

    /// An event, if there is one.
    pub fn try_next(&self) -> Option<M::Event> {
        match self.owner.0.poll_event(None) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Ends everything now, as dropping the last handle does. Commands still reach the machine, but nothing is
    /// performed.
    pub fn close(&self) {
        self.owner.0.close();
    }

    /// The driver that the machine runs on.
    pub fn driver(&self) -> &Driver<R> {
        &self.owner.0.driver
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.driver().now()
    }

    pub(crate) fn peers(&self) -> Arc<dyn PeerSink> {
        Arc::clone(&self.owner.0) as Arc<dyn PeerSink>
    }

    /// Has `signal` raised when the machine is closed.
    pub(crate) fn stop_with(&self, signal: &Arc<Signal>) {
        self.owner.0.stop_with(signal);
    }
}
