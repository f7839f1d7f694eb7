//! A listening socket whose exchanges all go to one machine.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_rustls::TlsAcceptor;
use hyper::rt::Write;
use hyper::server::conn::{http1, http2};
use livepeer_core::Time;
use rustls::ServerConfig;
use tracing::{debug, warn};

use super::accept::{Idle, LOOK_EVERY, Listening, Pulse, sniff};
use super::io::{Accepted, HyperIo, Io, Rewound};
#[cfg(unix)]
use super::local::{LocalSocket, SocketFile};
use super::serve::{Front, Granting};
use super::timer::Timer;
use super::turns::Turns;
use super::{CONNECTION_WINDOW, Executor, Limits, PING_EVERY, PING_WITHIN, STREAM_WINDOW};
use crate::lane::PeerSink;
use crate::lock;
use crate::rt::Runtime;
use crate::signal::{Signal, Stop, enlist};
use crate::tls::H2;

/// How many exchanges of one HTTP/2 connection run at a time (trickle spec 5.13).
pub const MAX_STREAMS: u32 = 250;
/// How long accepting rests when the system has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a peer may take to read why it is not talked to.
const EXPLAIN_WITHIN: Duration = Duration::from_secs(1);

/// A listening socket. Dropping it closes the socket and all its connections; so does closing the machine.
pub struct Server<R: Runtime> {
    shared: Arc<Shared<R>>,
    address: SocketAddr,
}

impl<R: Runtime> std::fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

struct Shared<R: Runtime> {
    runtime: R,
    peers: Arc<dyn PeerSink>,
    tls: Option<TlsAcceptor>,
    /// Tells the accepting task to end.
    stop: Arc<Signal>,
    limits: Limits,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    open: BTreeMap<u64, Connection>,
    /// How many come from each address.
    from: BTreeMap<IpAddr, usize>,
    count: u64,
    /// At most this many are open.
    most: usize,
    level: Option<Stop>,
    /// Waits for a connection to close: the accepting task when there are too many, or a shutdown.
    waiting: Vec<Waker>,
    listening: bool,
}

/// An open connection, as its server sees it.
struct Connection {
    signal: Arc<Signal>,
    pulse: Arc<Pulse>,
    idle: Idle,
}

impl<R: Runtime> Server<R> {
    /// Has requests go to `peers` until `stop` is raised.
    ///
    /// # Errors
    /// If the system does not tell the address of the socket.
    pub(crate) fn open(
        runtime: R,
        listener: Listener<R>,
        tls: Option<Arc<ServerConfig>>,
        peers: Arc<dyn PeerSink>,
        stop: Arc<Signal>,
        limits: Limits,
    ) -> io::Result<Self> {
        let address = match &listener {
            Listener::Tcp(listener) => runtime.local_addr(listener)?,
            #[cfg(unix)]
            Listener::Local { .. } => SocketAddr::new(THIS_MACHINE, 0),
        };
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            peers,
            tls: tls.map(TlsAcceptor::from),
            stop,
            limits,
            connections: Mutex::new(Connections {
                listening: true,
                most: limits.max_connections,
                ..Connections::default()
            }),
        });
        runtime.spawn(Arc::clone(&shared).accept(listener));
        runtime.spawn(Arc::clone(&shared).look_after());
        Ok(Self { shared, address })
    }

    /// The address that the server listens on. A unix socket has none, and says port 0.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Sets how many connections may be open; further ones wait to be accepted. Those that are open stay.
    pub fn set_max_connections(&self, most: usize) {
        let waiting = {
            let mut connections = lock(&self.shared.connections);
            connections.most = most;
            std::mem::take(&mut connections.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        lock(&self.shared.connections).open.len()
    }

    /// Stops listening, lets running exchanges end until `deadline`, then closes what is left.
    ///
    /// Readers that wait for a machine to say something wait on, so have the machine end them first.
    pub async fn shutdown(self, deadline: Time) {
        self.shared.stop(Stop::Finish);
        let mut alarm = Box::pin(self.shared.runtime.sleep_until(deadline));
        std::future::poll_fn(|cx| {
            if self.shared.poll_closed(cx).is_ready() {
                return Poll::Ready(());
            }
            while alarm.as_mut().poll(cx).is_ready() {
                if self.shared.runtime.now() >= deadline {
                    return Poll::Ready(());
                }
                alarm.set(self.shared.runtime.sleep_until(deadline));
            }
            Poll::Pending
        })
        .await;
    }
}

impl<R: Runtime> Drop for Server<R> {
    fn drop(&mut self) {
        self.shared.stop(Stop::Now);
    }
}

impl<R: Runtime> Shared<R> {
    fn stop(&self, how: Stop) {
        self.stop.raise(how);
        self.stop_connections(how);
    }

    fn stop_connections(&self, how: Stop) {
        let open: Vec<_> = {
            let mut connections = lock(&self.connections);
            connections.level = connections.level.max(Some(how));
            let open = connections.open.values();
            open.map(|connection| Arc::clone(&connection.signal))
                .collect()
        };
        for connection in open {
            connection.raise(how);
        }
    }

    /// Ends connections that are idle for too long, until all are closed.
    async fn look_after(self: Arc<Self>) {
        loop {
            self.runtime
                .sleep_until(self.runtime.now() + LOOK_EVERY)
                .await;
            let now = self.runtime.now();
            let over: Vec<_> = {
                let mut connections = lock(&self.connections);
                if connections.open.is_empty() && !connections.listening {
                    return;
                }
                let open = connections.open.values_mut();
                open.filter_map(|connection| {
                    let over = connection.idle.is_over(now, &connection.pulse);
                    over.then(|| Arc::clone(&connection.signal))
                })
                .collect()
            };
            for connection in over {
                connection.raise(Stop::Now);
            }
        }
    }

    /// Whether the socket and all connections are closed.
    fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut connections = lock(&self.connections);
        if connections.open.is_empty() && !connections.listening {
            return Poll::Ready(());
        }
        enlist(&mut connections.waiting, cx);
        Poll::Pending
    }

    async fn accept(self: Arc<Self>, listener: Listener<R>) {
        loop {
            let next = async {
                self.room().await;
                listener.accept(&self.runtime).await
            };
            match self.stop.unless_asked(pin!(next)).await {
                Some(Ok((stream, from))) => self.take(stream, from),
                // The peer was gone before we looked.
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Some(Err(error)) => {
                    warn!(%error, "cannot accept a connection");
                    let at = self.runtime.now() + ACCEPT_PAUSE;
                    self.runtime.sleep_until(at).await;
                }
                None => break,
            }
        }
        drop(listener);
        // Closing the machine raises only the signal that ends this task.
        if self.stop.level() == Stop::Now {
            self.stop_connections(Stop::Now);
        }
        let waiting = {
            let mut connections = lock(&self.connections);
            connections.listening = false;
            std::mem::take(&mut connections.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until another connection is allowed.
    async fn room(&self) {
        std::future::poll_fn(|cx| {
            let mut connections = lock(&self.connections);
            if connections.open.len() < connections.most {
                return Poll::Ready(());
            }
            enlist(&mut connections.waiting, cx);
            Poll::Pending
        })
        .await;
    }

    fn take(self: &Arc<Self>, stream: Accepted<R>, from: IpAddr) {
        let signal = Arc::<Signal>::default();
        let pulse = Arc::<Pulse>::default();
        pulse.shakes_hands.store(self.tls.is_some(), Relaxed);
        let connection = Connection {
            signal: Arc::clone(&signal),
            pulse: Arc::clone(&pulse),
            idle: Idle::new(self.runtime.now(), self.limits),
        };
        let (number, many) = {
            let mut connections = lock(&self.connections);
            connections.count += 1;
            let number = connections.count;
            connections.open.insert(number, connection);
            let count = connections.from.entry(from).or_default();
            *count += 1;
            let many = *count > self.limits.max_per_address;
            if let Some(level) = connections.level {
                signal.raise(level);
            }
            (number, many)
        };
        let counted = Counted {
            shared: Arc::clone(self),
            number,
            from,
        };
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let _counted = counted;
            if many {
                pulse.leave_unread();
                let stream = Listening::new(stream, pulse);
                return shared.explain(stream, TOO_MANY).await;
            }
            let talk = pin!(shared.talk(stream, from, &signal, pulse));
            signal.unless_stopped(talk).await;
        });
    }

    /// Tells a peer in plain words why it is not talked to.
    async fn explain<S: Write + Unpin>(&self, mut stream: S, (status, words): (&str, &str)) {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{words}\n",
            words.len() + 1
        );
        let mut rest = answer.as_bytes();
        let mut alarm = pin!(
            self.runtime
                .sleep_until(self.runtime.now() + EXPLAIN_WITHIN)
        );
        std::future::poll_fn(|cx| {
            while !rest.is_empty() {
                match Pin::new(&mut stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(written)) if written > 0 => rest = &rest[written..],
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return alarm.as_mut().poll(cx),
                }
            }
            match Pin::new(&mut stream).poll_shutdown(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => alarm.as_mut().poll(cx),
            }
        })
        .await;
    }

    async fn talk(&self, stream: Accepted<R>, from: IpAddr, signal: &Signal, pulse: Arc<Pulse>) {
        let mut stream = Listening::new(stream, Arc::clone(&pulse));
        // The first bytes tell what is spoken.
        let Some(Ok((http2, ahead))) = signal.unless_asked(pin!(sniff(&mut stream))).await else {
            return;
        };
        let wrong = match (&self.tls, ahead.first() == Some(&TLS_RECORD)) {
            (None, true) => Some(SPEAKS_HTTP),
            (Some(_), false) => Some(SPEAKS_HTTPS),
            _ => None,
        };
        if let Some(words) = wrong {
            pulse.leave_unread();
            return self.explain(stream, words).await;
        }
        let stream = Rewound::new(ahead, stream);
        let (mut stream, http2) = match &self.tls {
            None => (Io::Plain(stream), Some(http2)),
            Some(acceptor) => {
                let handshake = acceptor.accept(HyperIo(stream));
                match signal.unless_asked(Box::pin(handshake).as_mut()).await {
                    Some(Ok(stream)) => {
                        pulse.shakes_hands.store(false, Relaxed);
                        let alpn = stream.get_ref().1.alpn_protocol().map(|name| name == H2);
                        (Io::tls(stream.into()), alpn)
                    }
                    Some(Err(error)) => return debug!(%error, "a TLS handshake failed"),
                    None => return,
                }
            }
        };
        let (http2, ahead) = match http2 {
            Some(http2) => (http2, Bytes::new()),
            // TLS said nothing, so the first bytes within have to tell.
            None => match signal.unless_asked(pin!(sniff(&mut stream))).await {
                Some(Ok(told)) => told,
                _ => return,
            },
        };
        pulse.http2.store(http2, Relaxed);
        let stream = Rewound::new(ahead, stream);
        let granted = Granting::default();
        let service = Front {
            runtime: self.runtime.clone(),
            peers: Arc::clone(&self.peers),
            secure: self.tls.is_some(),
            from,
            pulse,
            granted: granted.clone(),
        };
        if http2 {
            let connection = http2::Builder::new(Executor(self.runtime.clone()))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(u32::try_from(self.limits.max_head).unwrap_or(u32::MAX))
                .max_send_buf_size(self.limits.buffer)
                .timer(Timer::new(self.runtime.clone()))
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WITHIN)
                .serve_connection(stream, service);
            // It is larger than the other, and must not make the task of every connection as large.
            let mut connection = Box::pin(connection);
            let finish = http2::Connection::graceful_shutdown;
            run(connection.as_mut(), finish, signal).await;
        } else {
            // Of a request with both a length and chunks hyper drops the length before anybody sees it, so that it cannot
            // be refused here. hyper reads the chunks and closes the connection after the answer, so that nothing is taken
            // for a next request: `conformance::a_request_with_two_lengths_ends_its_connection`.
            let mut connection = http1::Builder::new()
                .max_buf_size(self.limits.buffer.max(MIN_BUF_BYTES))
                .max_header_size(self.limits.max_head)
                .max_headers(self.limits.max_fields)
                .header_read_timeout(None)
                .serve_connection(stream, service);
            let finish = http1::Connection::graceful_shutdown;
            run(Pin::new(&mut connection), finish, signal).await;
            if let Some(granted) = granted.take() {
                let parts = connection.into_parts();
                let stream = Rewound::new(parts.read_buf, parts.io);
                // In a box of its own: few connections leave HTTP.
                Box::pin(granted.pass(stream)).await;
            }
        }
    }
}

/// The first byte of a TLS handshake.
const TLS_RECORD: u8 = 22;
/// hyper takes no smaller buffer.
const MIN_BUF_BYTES: usize = 8 << 10;

/// The answer to an address that has too many connections.
const TOO_MANY: (&str, &str) = (
    "429 Too Many Requests",
    "too many connections from this address",
);
/// The answer to a peer that speaks TLS where none is spoken.
const SPEAKS_HTTP: (&str, &str) = ("400 Bad Request", "this port speaks http");
/// The answer to a peer that speaks no TLS where it is spoken.
const SPEAKS_HTTPS: (&str, &str) = ("400 Bad Request", "this port speaks https");

/// The address of peers that connect to a unix socket.
#[cfg(unix)]
const THIS_MACHINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A socket that listens.
pub(crate) enum Listener<R: Runtime> {
    Tcp(R::Listener),
    #[cfg(unix)]
    Local {
        listener: R::LocalListener,
        /// Removed when the socket closes.
        _file: SocketFile,
    },
}

impl<R: Runtime> Listener<R> {
    /// Takes over a unix socket.
    #[cfg(unix)]
    pub(crate) fn local(runtime: &R, socket: LocalSocket) -> io::Result<Self> {
        let (socket, file) = socket.into_parts();
        Ok(Self::Local {
            listener: runtime.take_local(socket)?,
            _file: file,
        })
    }

    async fn accept(&self, runtime: &R) -> io::Result<(Accepted<R>, IpAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = runtime.accept(listener).await?;
                Ok((Accepted::Tcp(stream), from.ip()))
            }
            #[cfg(unix)]
            Self::Local { listener, .. } => {
                let stream = runtime.accept_local(listener).await?;
                Ok((Accepted::Local(stream), THIS_MACHINE))
            }
        }
    }
}

/// Polls a connection to its end, which comes sooner when it is asked to finish.
async fn run<C>(mut connection: Pin<&mut C>, finish: impl Fn(Pin<&mut C>), signal: &Signal)
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut finishing = false;
    let mut turns = Turns::new();
    let ended = std::future::poll_fn(|cx| {
        if signal.level() == Stop::Finish && !finishing {
            finishing = true;
            finish(connection.as_mut());
            turns.ring();
        }
        turns.poll(connection.as_mut(), cx)
    })
    .await;
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

/// An open connection that its server counts until this is dropped.
struct Counted<R: Runtime> {
    shared: Arc<Shared<R>>,
    number: u64,
    from: IpAddr,
}

impl<R: Runtime> Drop for Counted<R> {
    fn drop(&mut self) {
        let waiting = {
            let mut connections = lock(&self.shared.connections);
            connections.open.remove(&self.number);
            if let Some(count) = connections.from.get_mut(&self.from) {
                *count -= 1;
                if *count == 0 {
                    connections.from.remove(&self.from);
                }
            }
            std::mem::take(&mut connections.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}
