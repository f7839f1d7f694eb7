//! An exchange as client, from the request to its end.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::UPGRADE;
use livepeer_core::Time;
#[cfg(feature = "ingest")]
use livepeer_core::http::Url;
use livepeer_core::http::{Body, Fault, Headers, In, Protocol, Request, Trust};
use rustls::RootCertStore;

use super::body::{OutBody, Sending, piece};
use super::connect::{Connected, connect};
use super::connection::{Http1, Http2, Key};
use super::io::{Heard, Rewound};
use super::pool::Pool;
use super::seats::{Found, MAX_SEATS, Opener, Seat, Streams};
use super::timer::Timer;
use super::tunnel::{self, Side};
use super::{
    CLIENT_BUF_BYTES, CONNECTION_WINDOW, Executor, MAX_HEAD_BYTES, MAX_HEADERS, PING_EVERY,
    PING_WITHIN, SHARED_STREAM_WINDOW, STREAM_WINDOW, convert,
};
use crate::lane::{Exchange, Order};
use crate::lock;
use crate::rt::Runtime;
use crate::signal::{Signal, Stop};
use crate::tls::{Connectors, Opened, Pins};

/// How much of all bodies may be on its way to us on a shared connection: none waits for another's reader.
const SHARED_WINDOW: u32 = SHARED_STREAM_WINDOW * MAX_SEATS as u32;
/// How many frames an exchange takes before it lets other tasks run.
const FRAMES_PER_TURN: usize = 32;
/// A connection that was used before is doubted when an exchange is given up that heard nothing for so long.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// Opens exchanges. Clones share connections and remembered certificates.
pub(crate) struct Client<R: Runtime> {
    runtime: R,
    pool: Arc<Pool<R>>,
    connectors: Arc<Connectors>,
}

impl<R: Runtime> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            pool: Arc::clone(&self.pool),
            connectors: Arc::clone(&self.connectors),
        }
    }
}

impl<R: Runtime> Client<R> {
    pub(crate) fn new(runtime: R) -> Self {
        Self::with(runtime, Connectors::default())
    }

    fn with(runtime: R, connectors: Connectors) -> Self {
        Self {
            pool: Pool::new(runtime.clone()),
            runtime,
            connectors: Arc::new(connectors),
        }
    }

    pub(crate) fn with_pins(self, pins: Pins) -> Self {
        let roots = self.connectors.roots().cloned();
        Self::with(self.runtime, Connectors::new(pins, roots))
    }

    pub(crate) fn with_roots(self, roots: RootCertStore) -> Self {
        let pins = self.connectors.pins().clone();
        Self::with(self.runtime, Connectors::new(pins, Some(Arc::new(roots))))
    }

    pub(crate) fn pins(&self) -> &Pins {
        self.connectors.pins()
    }

    /// Performs `request` and feeds whatever comes of it.
    pub(crate) fn exchange(
        &self,
        exchange: Exchange,
        request: Request,
    ) -> impl Future<Output = ()> + Send + 'static {
        let client = self.clone();
        async move {
            let mut run = pin!(client.run(&exchange, request));
            // Given up, nothing more is told; what hangs on the exchange goes with the future.
            let end = std::future::poll_fn(|cx| match exchange.lane.order(cx) {
                Order::Abort => Poll::Ready(None),
                _ => run.as_mut().poll(cx).map(Some),
            })
            .await;
            if let Some(Err(fault)) = end {
                exchange.feed_last(In::Failed(fault));
            }
        }
    }

    async fn run(&self, exchange: &Exchange, mut request: Request) -> Result<(), Fault> {
        let key = Key::new(&request);
        if request.trust == Trust::Afresh && request.url.is_secure() {
            self.pool.evict(&key);
        }
        let body = std::mem::take(&mut request.body);
        // What is streamed cannot be sent once more, and in cleartext nobody says what it speaks.
        let either =
            request.protocol == Protocol::Either && request.url.is_secure() && body != Body::Stream;
        if either {
            return Box::pin(self.run_either(exchange, &request, key, body)).await;
        }
        let http2 = request.protocol == Protocol::Http2;
        let body = match body {
            Body::Stream => OutBody::Sending(Sending(exchange.clone())),
            whole => OutBody::whole(whole, Some(exchange.clone())),
        };
        let head = convert::request_head(&request, http2, body)?;
        // Each in a box of its own: a thousand streams are to take the room of one way each, and not of the largest.
        match http2 {
            false => Box::pin(self.run_http1(exchange, &request, key, head, None)).await,
            true => Box::pin(self.run_http2(exchange, &request, key, head)).await,
        }
    }

    async fn connect(
        &self,
        request: &Request,
        protocol: Protocol,
        heard: Heard,
    ) -> Result<Connected<R>, Fault> {
        connect(
            &self.runtime,
            &self.connectors,
            &request.url,
            request.trust,
            Some(protocol),
            heard,
        )
        .await
    }

    /// Connects for another protocol than HTTP, with TLS if the URL says so.
    #[cfg(feature = "ingest")]
    pub(crate) async fn open(&self, url: &Url) -> Result<super::ClientIo<R>, Fault> {
        let (trust, heard) = (Trust::Public, Heard::default());
        let opened = connect(&self.runtime, &self.connectors, url, trust, None, heard);
        opened.await.map(|connected| connected.stream)
    }

    async fn run_http1(
        &self,
        exchange: &Exchange,
        request: &Request,
        key: Key,
        mut head: hyper::Request<OutBody>,
        mut fresh: Option<Box<Http1<R>>>,
    ) -> Result<(), Fault> {
        loop {
            let (connection, reused) = match fresh.take() {
                Some(connection) => (connection, false),
                None => match self.pool.take_http1(&key) {
                    Some(connection) => (connection, true),
                    // In a box of its own, which is gone when the connection stands.
                    None => (Box::pin(self.open_http1(request)).await?, false),
                },
            };
            let opened = connection.opened.clone();
            let talk = pin!(self.talk_http1(exchange, &key, connection, reused, head));
            match self.while_trusted(request, opened.as_deref(), talk).await? {
                None => return Ok(()),
                Some(unsent) => head = unsent,
            }
        }
    }

    /// Runs `talk` on a connection until another certificate is accepted in place of the one that opened it.
    async fn while_trusted<T>(
        &self,
        request: &Request,
        opened: Option<&Opened>,
        talk: Pin<&mut impl Future<Output = Result<T, Fault>>>,
    ) -> Result<T, Fault> {
        match opened {
            None => talk.await,
            Some(opened) => {
                let outcome = opened.closed.unless_stopped(talk).await;
                outcome.unwrap_or_else(|| Err(opened.fault(self.pins(), &request.url.authority())))
            }
        }
    }

    /// Performs a request on a connection; the request, if nothing of it was sent on one that had waited.
    async fn talk_http1(
        &self,
        exchange: &Exchange,
        key: &Key,
        connection: Box<Http1<R>>,
        reused: bool,
        head: hyper::Request<OutBody>,
    ) -> Result<Option<hyper::Request<OutBody>>, Fault> {
        let doubt = reused.then(|| Doubt::new(&self.pool, key, connection.heard.clone()));
        let mut talk = Talk::new(exchange, Protocol::Http1, Some(connection));
        if reused && !talk.is_alive().await {
            return Ok(Some(head));
        }
        let asks = head.headers().contains_key(UPGRADE);
        let http1 = talk.http1.as_mut().expect("it was just put there");
        let reply = http1.sender.try_send_request(head);
        let reply = talk.head(reply).await;
        drop(doubt);
        match reply {
            Ok(reply) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => {
                if !asks {
                    let why = "it leaves HTTP for another protocol, unasked";
                    return Err(Fault::Protocol(why.into()));
                }
                exchange.feed(In::Reply(convert::reply(&reply.into_parts().0)));
                let stream = talk.leave_http().await?;
                // In a box of its own: few exchanges leave HTTP.
                let passed = Box::pin(tunnel::pass(exchange, stream, Side::Asked));
                let broke = |error: io::Error| Fault::Broken(error.to_string());
                passed.await.map_err(broke)?;
                exchange.feed_last(In::End(Headers::new()));
                Ok(None)
            }
            Ok(reply) => {
                let ending = talk.body(reply).await?;
                if let Some(connection) = talk.reusable().await {
                    self.pool.put_http1(key.clone(), connection);
                }
                exchange.feed_last(ending);
                Ok(None)
            }
            // hyper gives the request back if nothing of it was sent: the connection closed while it waited.
            Err(mut error) => match error.take_message() {
                Some(unsent) if reused => Ok(Some(unsent)),
                _ => Err(convert::fault(error.error(), Protocol::Http1)),
            },
        }
    }

    async fn open_http1(&self, request: &Request) -> Result<Box<Http1<R>>, Fault> {
        let heard = Heard::default();
        let connected = self.connect(request, Protocol::Http1, heard.clone());
        let connected = connected.await?;
        Self::begin_http1(connected, heard).await
    }

    async fn begin_http1(connected: Connected<R>, heard: Heard) -> Result<Box<Http1<R>>, Fault> {
        let Connected { stream, opened, .. } = connected;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(CLIENT_BUF_BYTES)
            .max_header_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(stream)
            .await
            .map_err(|error| convert::fault(&error, Protocol::Http1))?;
        Ok(Box::new(Http1 {
            sender,
            connection,
            opened,
            heard,
        }))
    }

    async fn run_http2(
        &self,
        exchange: &Exchange,
        request: &Request,
        key: Key,
        mut head: hyper::Request<OutBody>,
    ) -> Result<(), Fault> {
        let mut shared = self.pool.get_http2(&key);
        loop {
            let (connection, end) = match shared.take() {
                Some(connection) => (connection, None),
                None => {
                    let (connection, end) = Box::pin(self.open_http2(request, &key)).await?;
                    (connection, Some(end))
                }
            };
            let opened = connection.opened.clone();
            let ask = pin!(self.ask_http2(exchange, &key, connection, end, head));
            match self.while_trusted(request, opened.as_deref(), ask).await? {
                Asked::Reply(reply) => {
                    return self.hear_http2(exchange, request, opened, reply).await;
                }
                // As with HTTP/1.1. The next round opens a connection of its own.
                Asked::Unsent(unsent) => head = unsent,
                Asked::Unseen(fault) => return Err(fault),
            }
        }
    }

    /// Performs a request on a connection that many share if the peer speaks HTTP/2, and over HTTP/1.1 if not.
    async fn run_either(
        &self,
        exchange: &Exchange,
        request: &Request,
        key: Key,
        body: Body,
    ) -> Result<(), Fault> {
        // In a box of its own, which is gone when the answer begins.
        let asked = Box::pin(self.ask_either(exchange, request, &key, body));
        match asked.await? {
            Either::Http2(seat, reply) => {
                let opened = seat.connection().opened.clone();
                self.hear_http2(exchange, request, opened, reply).await
            }
            Either::Http1(head, fresh) => {
                Box::pin(self.run_http1(exchange, request, key, head, fresh)).await
            }
        }
    }

    /// Sends a request over HTTP/2 and waits for the head of its answer, or says how it is sent over HTTP/1.1.
    async fn ask_either(
        &self,
        exchange: &Exchange,
        request: &Request,
        key: &Key,
        body: Body,
    ) -> Result<Either<R>, Fault> {
        let head = |http2, told| {
            let body = OutBody::whole(body.clone(), told);
            convert::request_head(request, http2, body)
        };
        let told = Some(exchange.clone());
        loop {
            let (seat, end) = match self.pool.seat(key) {
                Found::Seat(seat) => (seat, None),
                Found::Opening(opening) => match opening.over().await {
                    Some(fault) => return Err(fault),
                    None => continue,
                },
                Found::Open(opener) => match Box::pin(self.open_shared(request, opener)).await? {
                    Chosen::Http2(seat, end) => (seat, Some(end)),
                    Chosen::Http1(connection) => {
                        return Ok(Either::Http1(head(false, told)?, Some(connection)));
                    }
                },
                Found::Http1 => return Ok(Either::Http1(head(false, told)?, None)),
            };
            let connection = seat.connection().clone();
            let opened = connection.opened.clone();
            let head_now = head(true, told.clone())?;
            let ask = pin!(self.ask_http2(exchange, key, connection, end, head_now));
            match self.while_trusted(request, opened.as_deref(), ask).await? {
                Asked::Reply(reply) => return Ok(Either::Http2(seat, reply)),
                Asked::Unsent(_) => {}
                // Another connection might be as full, or as near its end. What was said of the body's leaving holds.
                Asked::Unseen(_) => return Ok(Either::Http1(head(false, None)?, None)),
            }
        }
    }

    /// Opens a connection for others, too; or for this exchange alone, if the peer chooses HTTP/1.1.
    async fn open_shared(&self, request: &Request, opener: Opener) -> Result<Chosen<R>, Fault> {
        let heard = Heard::default();
        let connected = self.connect(request, Protocol::Either, heard.clone());
        let opened = match connected.await {
            Ok(connected) if connected.http2 => {
                let begun = self.begin_http2(connected, heard, SHARED_STREAM_WINDOW, SHARED_WINDOW);
                begun.await
            }
            Ok(connected) => {
                opener.chose_http1();
                let connection = Self::begin_http1(connected, heard).await?;
                return Ok(Chosen::Http1(connection));
            }
            Err(fault) => Err(fault),
        };
        match opened {
            Ok((connection, end, streams)) => {
                let seat = opener.opened(self.pool.now(), connection, streams);
                Ok(Chosen::Http2(seat, end))
            }
            Err(fault) => {
                opener.failed(&fault);
                Err(fault)
            }
        }
    }

    /// Sends a request on a shared connection, and waits for the head of its answer.
    async fn ask_http2(
        &self,
        exchange: &Exchange,
        key: &Key,
        mut connection: Http2,
        end: Option<Arc<End>>,
        head: hyper::Request<OutBody>,
    ) -> Result<Asked, Fault> {
        let doubt = Doubt::new(&self.pool, key, connection.heard.clone());
        let mut talk = Talk::<R>::new(exchange, Protocol::Http2, None);
        let reply = connection.sender.try_send_request(head);
        let reply = talk.head(reply).await;
        drop(doubt);
        match reply {
            Ok(reply) => Ok(Asked::Reply(reply)),
            Err(mut error) => match (error.take_message(), end) {
                (Some(unsent), None) => Ok(Asked::Unsent(unsent)),
                // The connection was of no use from the start, and knows why.
                (Some(_), Some(end)) => Err(end.why().await),
                (None, _) => {
                    let fault = convert::fault(error.error(), Protocol::Http2);
                    match convert::is_unseen(error.error()) {
                        true => Ok(Asked::Unseen(fault)),
                        false => Err(fault),
                    }
                }
            },
        }
    }

    /// Hears an answer to its end.
    async fn hear_http2(
        &self,
        exchange: &Exchange,
        request: &Request,
        opened: Option<Arc<Opened>>,
        reply: hyper::Response<Incoming>,
    ) -> Result<(), Fault> {
        let mut talk = Talk::<R>::new(exchange, Protocol::Http2, None);
        let body = pin!(talk.body(reply));
        let body = self.while_trusted(request, opened.as_deref(), body);
        exchange.feed_last(body.await?);
        Ok(())
    }

    async fn open_http2(&self, request: &Request, key: &Key) -> Result<(Http2, Arc<End>), Fault> {
        let heard = Heard::default();
        let connected = self.connect(request, Protocol::Http2, heard.clone());
        let connected = connected.await?;
        let begun = self.begin_http2(connected, heard, STREAM_WINDOW, CONNECTION_WINDOW);
        let (connection, end, _) = begun.await?;
        self.pool.share_http2(key.clone(), connection.clone());
        Ok((connection, end))
    }

    /// Begins to speak HTTP/2, with these windows for each body and for all.
    async fn begin_http2(
        &self,
        connected: Connected<R>,
        heard: Heard,
        stream: u32,
        all: u32,
    ) -> Result<(Http2, Arc<End>, Streams), Fault> {
        let (sender, connection) = http2::Builder::new(Executor(self.runtime.clone()))
            .initial_stream_window_size(stream)
            .initial_connection_window_size(all)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .timer(Timer::new(self.runtime.clone()))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true)
            .handshake(connected.stream)
            .await
            .map_err(|error| convert::fault(&error, Protocol::Http2))?;
        let end = Arc::new(End::default());
        let told = Arc::clone(&end);
        let connection = Arc::new(Mutex::new(connection));
        let polled = Arc::downgrade(&connection);
        // Ends with its last stream, once nobody can open another.
        self.runtime.spawn(async move {
            let ended = std::future::poll_fn(|cx| Pin::new(&mut *lock(&connection)).poll(cx)).await;
            drop(connection);
            if let Err(error) = ended {
                *lock(&told.fault) = Some(convert::fault(&error, Protocol::Http2));
            }
            told.ended.raise(Stop::Now);
        });
        let connection = Http2 {
            sender,
            opened: connected.opened,
            heard,
        };
        let streams = move || {
            let streams = |connection: Arc<Mutex<http2::Connection<_, _, _>>>| {
                lock(&connection).current_max_send_streams()
            };
            polled.upgrade().map_or(0, streams)
        };
        Ok((connection, end, Box::new(streams)))
    }
}

/// How asking over HTTP/2 went.
enum Asked {
    Reply(hyper::Response<Incoming>),
    /// Nothing of the request was sent on a connection that others had opened.
    Unsent(hyper::Request<OutBody>),
    /// The peer says that it did not look at the request.
    Unseen(Fault),
}

/// A connection to a peer that had the choice.
enum Chosen<R: Runtime> {
    Http1(Box<Http1<R>>),
    Http2(Seat, Arc<End>),
}

/// The way of a request to a peer that may speak HTTP/2: an answer that has begun, or a request for HTTP/1.1, and a
/// connection for it if one was just opened.
enum Either<R: Runtime> {
    Http1(hyper::Request<OutBody>, Option<Box<Http1<R>>>),
    Http2(Seat, hyper::Response<Incoming>),
}

/// Waits with an exchange for the head of its answer. Dropped after a silence, which is how an exchange ends that its
/// machine gave up, it has the pool let go of connections that may be as dead.
struct Doubt<'a, R: Runtime> {
    pool: &'a Pool<R>,
    key: &'a Key,
    heard: Heard,
    count: usize,
    since: Time,
}

impl<'a, R: Runtime> Doubt<'a, R> {
    fn new(pool: &'a Pool<R>, key: &'a Key, heard: Heard) -> Self {
        Self {
            pool,
            key,
            count: heard.count(),
            heard,
            since: pool.now(),
        }
    }
}

impl<R: Runtime> Drop for Doubt<'_, R> {
    fn drop(&mut self) {
        let silent = self.heard.count() == self.count;
        if silent && self.pool.now().since(self.since) >= DOUBT_AFTER {
            self.pool.doubt(self.key, self.since, &self.heard);
        }
    }
}

/// How an HTTP/2 connection ended, for the exchange that opened it.
#[derive(Default)]
struct End {
    ended: Signal,
    fault: Mutex<Option<Fault>>,
}

impl End {
    async fn why(&self) -> Fault {
        self.ended
            .unless_stopped(pin!(std::future::pending::<()>()))
            .await;
        let fault = lock(&self.fault).take();
        fault.unwrap_or_else(|| Fault::Broken("it closed the connection at once".into()))
    }
}

/// A request on its connection. An HTTP/1.1 connection is polled by the exchange that has it, so that bytes
/// pass from the socket to the machine within one task.
struct Talk<'a, R: Runtime> {
    exchange: &'a Exchange,
    protocol: Protocol,
    http1: Option<Box<Http1<R>>>,
    closed: bool,
}

impl<'a, R: Runtime> Talk<'a, R> {
    fn new(exchange: &'a Exchange, protocol: Protocol, http1: Option<Box<Http1<R>>>) -> Self {
        Self {
            exchange,
            protocol,
            http1,
            closed: false,
        }
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        // What goes wrong is also told to whoever waits for the head or the body.
        if let Some(http1) = &mut self.http1
            && !self.closed
            && Pin::new(&mut http1.connection).poll(cx).is_ready()
        {
            self.closed = true;
        }
    }

    fn is_ready(&self) -> bool {
        !self.closed
            && self
                .http1
                .as_ref()
                .is_some_and(|http1| http1.sender.is_ready())
    }

    /// Whether a connection that waited can still be used, as far as one can see.
    async fn is_alive(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            self.poll_connection(cx);
            Poll::Ready(self.is_ready())
        })
        .await
    }

    /// The stream of a connection whose peer has left HTTP.
    async fn leave_http(mut self) -> Result<Rewound<super::ClientIo<R>>, Fault> {
        std::future::poll_fn(|cx| {
            self.poll_connection(cx);
            match self.closed {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let lost = || Fault::Broken("it closed the connection".into());
        let parts = self.http1.ok_or_else(lost)?.connection.into_parts();
        Ok(Rewound::new(parts.read_buf, parts.io))
    }

    /// The connection, if the exchange left it in a state for another.
    async fn reusable(mut self) -> Option<Box<Http1<R>>> {
        // What was left unsent when the answer was complete, nobody wants any more.
        let ready = self.is_ready() || self.is_alive().await;
        if ready { self.http1 } else { None }
    }

    async fn head(
        &mut self,
        reply: impl Future<
            Output = Result<hyper::Response<Incoming>, TrySendError<hyper::Request<OutBody>>>,
        >,
    ) -> Result<hyper::Response<Incoming>, TrySendError<hyper::Request<OutBody>>> {
        let mut reply = pin!(reply);
        std::future::poll_fn(|cx| {
            self.poll_connection(cx);
            reply.as_mut().poll(cx)
        })
        .await
    }

    /// Feeds the reply and its body, and answers with what is to be fed last.
    async fn body(&mut self, reply: hyper::Response<Incoming>) -> Result<In, Fault> {
        let (head, mut body) = reply.into_parts();
        self.exchange.feed(In::Reply(convert::reply(&head)));
        let mut trailers = Headers::new();
        std::future::poll_fn(|cx| {
            for _ in 0..FRAMES_PER_TURN {
                self.poll_connection(cx);
                let Exchange { lane, sink, .. } = self.exchange;
                if !matches!(lane.order(cx), Order::Read) || !sink.has_room(lane) {
                    return Poll::Pending;
                }
                match std::task::ready!(Pin::new(&mut body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => self.exchange.feed(In::Data(piece(data))),
                        Err(frame) => {
                            if let Ok(fields) = frame.into_trailers() {
                                trailers = convert::headers(&fields);
                            }
                        }
                    },
                    Some(Err(error)) => {
                        return Poll::Ready(Err(convert::fault(&error, self.protocol)));
                    }
                    None => return Poll::Ready(Ok(In::End(std::mem::take(&mut trailers)))),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }
}
