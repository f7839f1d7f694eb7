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
use super::connect::connect;
use super::io::{Heard, Rewound};
use super::pool::{Http1, Http2, Key, Pool};
use super::timer::Timer;
use super::tunnel::{self, Side};
use super::{
    CLIENT_BUF_BYTES, CONNECTION_WINDOW, Executor, MAX_HEAD_BYTES, MAX_HEADERS, PING_EVERY,
    PING_WITHIN, STREAM_WINDOW, convert,
};
use crate::lane::{Exchange, Order};
use crate::lock;
use crate::rt::Runtime;
use crate::signal::{Signal, Stop};
use crate::tls::{Connectors, Opened, Pins};

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
        let body = match std::mem::take(&mut request.body) {
            Body::Empty => OutBody::Empty,
            Body::Full(data) => OutBody::full(vec![data], Some(exchange.clone())),
            Body::Pieces(pieces) => OutBody::full(pieces, Some(exchange.clone())),
            Body::Stream => OutBody::Sending(Sending(exchange.clone())),
        };
        let head = convert::request_head(&request, body)?;
        match request.protocol {
            Protocol::Http1 => self.run_http1(exchange, &request, key, head).await,
            Protocol::Http2 => self.run_http2(exchange, &request, key, head).await,
        }
    }

    async fn connect(
        &self,
        request: &Request,
        heard: Heard,
    ) -> Result<(super::ClientIo<R>, Option<Arc<Opened>>), Fault> {
        connect(
            &self.runtime,
            &self.connectors,
            &request.url,
            request.trust,
            Some(request.protocol),
            heard,
        )
        .await
    }

    /// Connects for another protocol than HTTP, with TLS if the URL says so.
    #[cfg(feature = "ingest")]
    pub(crate) async fn open(&self, url: &Url) -> Result<super::ClientIo<R>, Fault> {
        let (trust, heard) = (Trust::Public, Heard::default());
        let opened = connect(&self.runtime, &self.connectors, url, trust, None, heard);
        opened.await.map(|(stream, _)| stream)
    }

    async fn run_http1(
        &self,
        exchange: &Exchange,
        request: &Request,
        key: Key,
        mut head: hyper::Request<OutBody>,
    ) -> Result<(), Fault> {
        loop {
            let (connection, reused) = match self.pool.take_http1(&key) {
                Some(connection) => (connection, true),
                // In a box of its own, which is gone when the connection stands.
                None => (Box::pin(self.open_http1(request)).await?, false),
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
        let (io, opened) = self.connect(request, heard.clone()).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(CLIENT_BUF_BYTES)
            .max_header_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(io)
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
            let talk = pin!(self.talk_http2(exchange, &key, connection, end, head));
            match self.while_trusted(request, opened.as_deref(), talk).await? {
                None => return Ok(()),
                // As with HTTP/1.1. The next round opens a connection of its own.
                Some(unsent) => head = unsent,
            }
        }
    }

    /// Performs a request on a shared connection; the request, if nothing of it was sent on one that others had opened.
    async fn talk_http2(
        &self,
        exchange: &Exchange,
        key: &Key,
        mut connection: Http2,
        end: Option<Arc<End>>,
        head: hyper::Request<OutBody>,
    ) -> Result<Option<hyper::Request<OutBody>>, Fault> {
        let doubt = Doubt::new(&self.pool, key, connection.heard.clone());
        let mut talk = Talk::<R>::new(exchange, Protocol::Http2, None);
        let reply = connection.sender.try_send_request(head);
        let reply = talk.head(reply).await;
        drop(doubt);
        match reply {
            Ok(reply) => {
                let ending = talk.body(reply).await?;
                exchange.feed_last(ending);
                Ok(None)
            }
            Err(mut error) => match (error.take_message(), end) {
                (Some(unsent), None) => Ok(Some(unsent)),
                // The connection was of no use from the start, and knows why.
                (Some(_), Some(end)) => Err(end.why().await),
                (None, _) => Err(convert::fault(error.error(), Protocol::Http2)),
            },
        }
    }

    async fn open_http2(&self, request: &Request, key: &Key) -> Result<(Http2, Arc<End>), Fault> {
        let heard = Heard::default();
        let (io, opened) = self.connect(request, heard.clone()).await?;
        let (sender, connection) = http2::Builder::new(Executor(self.runtime.clone()))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .timer(Timer::new(self.runtime.clone()))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true)
            .handshake(io)
            .await
            .map_err(|error| convert::fault(&error, Protocol::Http2))?;
        let end = Arc::new(End::default());
        let told = Arc::clone(&end);
        // Ends with its last stream, once nobody can open another.
        self.runtime.spawn(async move {
            if let Err(error) = connection.await {
                *lock(&told.fault) = Some(convert::fault(&error, Protocol::Http2));
            }
            told.ended.raise(Stop::Now);
        });
        let connection = Http2 {
            sender,
            opened,
            heard,
        };
        self.pool.share_http2(key.clone(), connection.clone());
        Ok((connection, end))
    }
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
