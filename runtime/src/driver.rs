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

mod limit;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use livepeer_core::payment::nonce::{NONCE_KEY, SpentNonces};
use livepeer_core::payment::{Budget, Spending};
use livepeer_core::signers::Standing;
use livepeer_core::{SignerHealth, Time};
use rustls::ServerConfig;

use self::limit::Limit;
use crate::engine::{Drivable, Engine};
pub use crate::engine::{MAX_EVENTS, MAX_RECORDS};
#[cfg(unix)]
use crate::http::LocalSocket;
use crate::http::{Client, Limits, Listener, Server};
use crate::keys::{KeyHolder, NoKey};
use crate::lane::PeerSink;
use crate::lock;
use crate::rt::Runtime;
use crate::services::Services;
use crate::store::{MemoryStore, Store};
use crate::tls::Pins;

/// Services for machines to run on: a runtime, an HTTP client with its connections and pins, a key holder and a store.
///
/// Cheap to clone; clones share everything, so one driver for all machines of a program makes them share
/// connections, remembered certificates, and what is known of remote signers.
#[derive(Clone)]
pub struct Driver<R: Runtime> {
    services: Services<R>,
    limit: Option<Arc<Limit<R>>>,
    /// How remote signers have been.
    signers: Arc<Mutex<SignerHealth>>,
}

impl<R: Runtime> std::fmt::Debug for Driver<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("pins", &self.pins())
            .field("signers", &self.signer_health())
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Driver<R> {
    /// A driver without a key, with a store in memory, that remembers no certificates yet.
    pub fn new(runtime: R) -> Self {
        Self {
            services: Services {
                client: Client::new(runtime.clone()),
                runtime,
                key_holder: Arc::new(NoKey),
                store: Arc::new(MemoryStore::default()),
                limit: None,
            },
            limit: None,
            signers: Arc::default(),
        }
    }

    /// Signs with the key of `holder`.
    #[must_use]
    pub fn with_key(mut self, holder: impl KeyHolder) -> Self {
        self.services.key_holder = Arc::new(holder);
        self
    }

    /// Keeps records in `store`.
    #[must_use]
    pub fn with_store(mut self, store: impl Store) -> Self {
        self.services.store = Arc::new(store);
        self
    }

    /// Limits what all jobs on this driver and its clones spend together. With a key, what was spent is made durable
    /// in records whose keys begin with it, in the store of the driver, before a payment leaves; give the budget what was
    /// stored before a restart ([`Budget::restore`]).
    #[must_use]
    pub fn with_limit(mut self, budget: Budget, key: Option<String>) -> Self {
        self.services.limit = None;
        let spending = self.drive(Spending::new(self.now(), budget, key));
        let limit = Arc::new(Limit::new(spending));
        self.limit = Some(Arc::clone(&limit));
        self.services.limit = Some(limit);
        self
    }

    /// The spending that [`Driver::with_limit`] limits.
    pub fn limit(&self) -> Option<&Handle<Spending, R>> {
        Some(self.limit.as_ref()?.spending())
    }

    /// Trusts and remembers certificates in `pins`, with connections of its own.
    #[must_use]
    pub fn with_pins(mut self, pins: Pins) -> Self {
        self.services.client = self.services.client.with_pins(pins);
        self
    }

    /// Trusts these roots in place of the system's, with connections of its own.
    #[must_use]
    pub fn with_roots(mut self, roots: rustls::RootCertStore) -> Self {
        self.services.client = self.services.client.with_roots(roots);
        self
    }

    /// The certificates remembered so far.
    pub fn pins(&self) -> &Pins {
        self.services.client.pins()
    }

    /// The runtime.
    pub const fn runtime(&self) -> &R {
        &self.services.runtime
    }

    /// Connects for another protocol than HTTP, with TLS if the URL says so.
    #[cfg(feature = "ingest")]
    pub(crate) async fn connect(
        &self,
        url: &livepeer_core::http::Url,
    ) -> Result<impl hyper::rt::Read + hyper::rt::Write + Unpin + use<R>, livepeer_core::http::Fault>
    {
        self.services.client.open(url).await
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.services.now()
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.services.store
    }

    /// The holder of the key that signs here; [`NoKey`] if there is none.
    pub fn key_holder(&self) -> &Arc<dyn KeyHolder> {
        &self.services.key_holder
    }

    /// How remote signers have been, in all jobs together: who rests, and until when. A new job asks accordingly.
    pub fn signer_health(&self) -> SignerHealth {
        lock(&self.signers).clone()
    }

    /// The nonces that own keys have used, as the store has them.
    ///
    /// # Errors
    /// If the store, or a record of it, cannot be read.
    pub fn spent_nonces(&self) -> io::Result<SpentNonces> {
        let mut spent = SpentNonces::default();
        for record in self.store().load(NONCE_KEY)? {
            if !spent.restore(&record) {
                let why = format!("{} is no record of a nonce", record.key);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        Ok(spent)
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
            owner: Arc::new(Owner {
                engine: Engine::start(self.services.clone(), machine),
                driver: self.clone(),
            }),
        }
    }
}

/// The owner's end of a running machine.
///
/// Clones share the machine. When the last one is dropped, all exchanges are aborted, servers stop, and the
/// tasks end.
pub struct Handle<M: Drivable, R: Runtime> {
    owner: Arc<Owner<M, R>>,
}

impl<M: Drivable, R: Runtime> std::fmt::Debug for Handle<M, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("driver", &self.driver())
            .finish_non_exhaustive()
    }
}

impl<M: Drivable, R: Runtime> Clone for Handle<M, R> {
    fn clone(&self) -> Self {
        Self {
            owner: Arc::clone(&self.owner),
        }
    }
}

struct Owner<M: Drivable, R: Runtime> {
    engine: Arc<Engine<M, R>>,
    driver: Driver<R>,
}

impl<M: Drivable, R: Runtime> Drop for Owner<M, R> {
    fn drop(&mut self) {
        self.engine.close();
    }
}

impl<M: Drivable, R: Runtime> Handle<M, R> {
    /// Runs a command, or asks a question, and performs what follows from it.
    ///
    /// The machine is locked meanwhile: `f` should be brief and must not use the handle.
    pub fn with<T>(&self, f: impl FnOnce(&mut M, Time) -> T) -> T {
        self.owner.engine.run(f)
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
        self.owner.engine.poll_event(Some(cx))
    }

    /// An event, if there is one.
    pub fn try_next(&self) -> Option<M::Event> {
        match self.owner.engine.poll_event(None) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Hands every event to `taker` instead, at once and without a task in between: it runs in whichever task brought
    /// the input that the event came of. Events come in order and one at a time. The machine is free meanwhile, so
    /// `taker` may use handles of it; it should be brief, and must not keep one, or the machine lives for ever. Only the
    /// first call counts.
    pub fn take_in_place(&self, taker: impl Fn(M::Event) + Send + Sync + 'static) {
        self.owner.engine.take_in_place(Box::new(taker));
    }

    /// Ends everything now, as dropping the last handle does. Commands still reach the machine, but nothing is
    /// performed.
    pub fn close(&self) {
        self.owner.engine.close();
    }

    /// The driver that the machine runs on.
    pub fn driver(&self) -> &Driver<R> {
        &self.owner.driver
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.driver().now()
    }
}

impl<R: Runtime> Server<R> {
    /// Listens on `at`, with TLS if `tls` says how (see [`crate::tls::server_config`]), for HTTP/1.1 and HTTP/2
    /// alike. Every request goes to the machine behind `handle`.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn bind<M: Drivable>(
        handle: &Handle<M, R>,
        at: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let listener = handle.driver().runtime().bind(at).await?;
        Self::serve(handle, listener, tls)
    }

    /// Serves as [`Server::bind`] does, with a socket that listens already.
    ///
    /// # Errors
    /// If the system does not tell its address.
    pub fn serve<M: Drivable>(
        handle: &Handle<M, R>,
        listener: R::Listener,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        Self::serve_within(handle, listener, tls, Limits::default())
    }

    /// Serves as [`Server::serve`] does, within other limits.
    ///
    /// # Errors
    /// If the system does not tell its address.
    pub fn serve_within<M: Drivable>(
        handle: &Handle<M, R>,
        listener: R::Listener,
        tls: Option<Arc<ServerConfig>>,
        limits: Limits,
    ) -> io::Result<Self> {
        Self::take(handle, Listener::Tcp(listener), tls, limits)
    }

    /// Serves as [`Server::serve_within`] does, at a unix socket and without TLS. Peers count as those of 127.0.0.1.
    ///
    /// # Errors
    /// If the system does not let the runtime watch it.
    #[cfg(unix)]
    pub fn serve_local<M: Drivable>(
        handle: &Handle<M, R>,
        socket: LocalSocket,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = Listener::local(handle.driver().runtime(), socket)?;
        let limits = Limits {
            // All peers are of one address there.
            max_per_address: usize::MAX,
            ..limits
        };
        Self::take(handle, listener, None, limits)
    }

    fn take<M: Drivable>(
        handle: &Handle<M, R>,
        listener: Listener<R>,
        tls: Option<Arc<ServerConfig>>,
        limits: Limits,
    ) -> io::Result<Self> {
        let runtime = handle.driver().runtime().clone();
        let engine = &handle.owner.engine;
        let stop = Arc::default();
        engine.stop_with(&stop);
        Self::open(
            runtime,
            listener,
            tls,
            Arc::clone(engine) as Arc<dyn PeerSink>,
            stop,
            limits,
        )
    }
}
