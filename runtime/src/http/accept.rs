//! One connection of a server: its stream, its idleness, and its exchanges.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper::{StatusCode, Version};
use livepeer_core::Time;
use livepeer_core::http::{self, Body, Fault, Headers, In};

use super::convert;
use crate::lane::{Aborted, Order, OutBody, PeerSink, Serving};

/// How long a TLS handshake may take. These times are looked at every `LOOK_EVERY`, and kept as exactly as that.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may take from its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may be without a request. Some publishers open theirs long before they need it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a closed connection listens to a peer that still sends what nobody wants.
const LINGER: Duration = Duration::from_secs(1);
/// How often a server looks at these times.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many bytes a connection listens to that nobody wants; see [`Listening`].
const LINGER_BYTES: usize = 1 << 20;
/// How many frames of a body are read before other tasks run.
const FRAMES_PER_TURN: usize = 32;
/// What an HTTP/2 client says first.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection's stream and exchanges tell the server that watches over it.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Its TLS handshake goes on.
    pub(super) shakes_hands: AtomicBool,
    /// It speaks HTTP/2.
    pub(super) http2: AtomicBool,
    /// Exchanges that run.
    running: AtomicUsize,
    /// Exchanges that ever began.
    begun: AtomicUsize,
    /// Something was read since the last look.
    heard: AtomicBool,
    /// A request was answered before all of it was read.
    unread: AtomicBool,
    /// The connection is closed but for what the peer still sends.
    lingers: AtomicBool,
}

/// How long a connection has been idle, looked at from time to time.
#[derive(Debug)]
pub(super) struct Idle {
    quiet_since: Time,
    head_since: Option<Time>,
    lingers_since: Option<Time>,
    begun: usize,
}

impl Idle {
    pub(super) const fn new(now: Time) -> Self {
        Self {
            quiet_since: now,
            head_since: None,
            lingers_since: None,
            begun: 0,
        }
    }

    /// Whether it has been idle for too long.
    pub(super) fn is_over(&mut self, now: Time, pulse: &Pulse) -> bool {
        let since = |since: Time, limit| now.since(since) >= limit;
        if pulse.lingers.load(Ordering::Relaxed) {
            return since(*self.lingers_since.get_or_insert(now), LINGER);
        }
        if pulse.shakes_hands.load(Ordering::Relaxed) {
            return since(self.quiet_since, HANDSHAKE_TIMEOUT);
        }
        let heard = pulse.heard.swap(false, Ordering::Relaxed);
        let begun = pulse.begun.load(Ordering::Relaxed);
        if begun != self.begun || pulse.running.load(Ordering::Relaxed) > 0 {
            self.begun = begun;
            self.quiet_since = now;
            self.head_since = None;
            return false;
        }
        // HTTP/2 connections have something to say between requests.
        if heard && !pulse.http2.load(Ordering::Relaxed) {
            self.head_since.get_or_insert(now);
        }
        self.head_since
            .is_some_and(|head| since(head, HEADER_TIMEOUT))
            || since(self.quiet_since, IDLE_TIMEOUT)
    }
}

/// A server's stream. When it is shut down with part of a request unread, it listens on for a while: closing at
/// once would reset the connection, and the reset could overtake the answer (trickle spec 6.2-5).
#[derive(Debug)]
pub(super) struct Listening<S> {
    stream: S,
    pulse: Arc<Pulse>,
    unwanted: usize,
}

impl<S> Listening<S> {
    pub(super) const fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            pulse,
            unwanted: 0,
        }
    }
}

impl<S: Read + Unpin> Read for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.pulse.heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: Read + Write + Unpin> Write for Listening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.pulse.lingers.load(Ordering::Relaxed) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.pulse.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.pulse.lingers.store(true, Ordering::Relaxed);
        }
        let mut unwanted = [0; 8 << 10];
        while self.unwanted < LINGER_BYTES {
            let mut buf = ReadBuf::new(&mut unwanted);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, buf.unfilled())) {
                Ok(()) if !buf.filled().is_empty() => self.unwanted += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a client speaks HTTP/2, and the bytes that told.
pub(super) async fn sniff<S: Read + Unpin>(stream: &mut S) -> io::Result<(bool, Bytes)> {
    let mut bytes = [0; PREFACE.len()];
    let mut have = 0;
    while have < PREFACE.len() {
        let read = std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes[have..]);
            ready!(Pin::new(&mut *stream).poll_read(cx, buf.unfilled()))?;
            Poll::Ready(io::Result::Ok(buf.filled().len()))
        });
        have += match read.await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => n,
        };
        if bytes[..have] != PREFACE[..have] {
            return Ok((false, Bytes::copy_from_slice(&bytes[..have])));
        }
    }
    Ok((true, Bytes::copy_from_slice(&bytes)))
}

/// Takes requests from hyper to the machine.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) peers: Arc<dyn PeerSink>,
    pub(super) secure: bool,
    pub(super) from: IpAddr,
    pub(super) pulse: Arc<Pulse>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Front {
    type Response = hyper::Response<ReplyBody>;
    type Error = Aborted;
    type Future = Serve;

    fn call(&self, request: hyper::Request<Incoming>) -> Serve {
        let running = Running::new(&self.pulse);
        let version = request.version();
        let bare = request.body().is_end_stream();
        let opened = convert::request(&request, self.secure).and_then(|mut head| {
            head.peer = Some(self.from);
            let exchange = self.peers.open(head, bare);
            exchange.ok_or(StatusCode::SERVICE_UNAVAILABLE)
        });
        Serve {
            state: match opened {
                Ok(exchange) => Answer::Awaiting(Serving::new(exchange)),
                Err(status) => Answer::Refused(status),
            },
            body: (!bare).then(|| request.into_body()),
            trailers: Headers::new(),
            version,
            running: Some(running),
        }
    }
}

/// One exchange until its reply.
pub(super) struct Serve {
    state: Answer,
    /// The request's body, until its end.
    body: Option<Incoming>,
    trailers: Headers,
    version: Version,
    running: Option<Running>,
}

enum Answer {
    Awaiting(Serving),
    Refused(StatusCode),
    Given,
}

impl Future for Serve {
    type Output = Result<hyper::Response<ReplyBody>, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for _ in 0..FRAMES_PER_TURN {
            let serving = match std::mem::replace(&mut this.state, Answer::Given) {
                Answer::Awaiting(serving) => serving,
                Answer::Refused(status) => {
                    let reply = http::Response::new(status.as_u16());
                    return Poll::Ready(Ok(this.refuse(reply)));
                }
                Answer::Given => return Poll::Ready(Err(Aborted)),
            };
            let exchange = serving.get();
            let read = match exchange.lane.order(cx) {
                Order::Abort => return Poll::Ready(Err(Aborted)),
                Order::Reply(reply) => return Poll::Ready(Ok(this.reply(serving, reply))),
                Order::Read => exchange.sink.has_room(&exchange.lane),
                Order::Pause => false,
            };
            let frame = match &mut this.body {
                Some(body) if read => Pin::new(body).poll_frame(cx),
                _ => Poll::Pending,
            };
            match frame {
                Poll::Pending => {
                    this.state = Answer::Awaiting(serving);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => exchange.feed(In::Data(data)),
                    Err(frame) => {
                        if let Ok(fields) = frame.into_trailers() {
                            this.trailers = convert::headers(&fields);
                        }
                    }
                },
                Poll::Ready(None) => {
                    this.body = None;
                    exchange.feed(In::End(std::mem::take(&mut this.trailers)));
                }
                Poll::Ready(Some(Err(error))) => {
                    let fault = Fault::Broken(format!("the request broke off: {error}"));
                    exchange.feed(In::Failed(fault));
                    // If it was not the connection that broke, the peer may still hear of it (trickle spec 5.4-5).
                    let answer = match exchange.lane.order(cx) {
                        Order::Reply(reply) => reply,
                        _ => http::Response::new(500),
                    };
                    serving.finish();
                    return Poll::Ready(Ok(this.refuse(answer)));
                }
            }
            this.state = Answer::Awaiting(serving);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Serve {
    fn reply(&mut self, serving: Serving, mut reply: http::Response) -> hyper::Response<ReplyBody> {
        let body = match std::mem::take(&mut reply.body) {
            Body::Stream => OutBody::Serving(serving),
            Body::Full(data) => {
                serving.finish();
                OutBody::Full(Some(data), None)
            }
            Body::Empty => {
                serving.finish();
                OutBody::Empty
            }
        };
        self.answer(&reply, body)
    }

    /// Answers a request that cannot go on, and closes the connection.
    fn refuse(&mut self, mut reply: http::Response) -> hyper::Response<ReplyBody> {
        if reply.headers.get("connection").is_none() {
            reply.headers.push("connection", "close");
        }
        let body = match std::mem::take(&mut reply.body) {
            Body::Full(data) => OutBody::Full(Some(data), None),
            Body::Empty | Body::Stream => OutBody::Empty,
        };
        self.answer(&reply, body)
    }

    fn answer(&mut self, reply: &http::Response, body: OutBody) -> hyper::Response<ReplyBody> {
        let running = self.running.take();
        if self.body.take().is_some()
            && self.version != Version::HTTP_2
            && let Some(Running(pulse)) = &running
        {
            pulse.unread.store(true, Ordering::Relaxed);
        }
        convert::response_head(reply, self.version).map(|()| ReplyBody {
            body,
            _running: running,
        })
    }
}

/// Counts an exchange of a connection while it lives.
struct Running(Arc<Pulse>);

impl Running {
    fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.running.fetch_add(1, Ordering::Relaxed);
        pulse.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a reply.
pub(super) struct ReplyBody {
    body: OutBody,
    _running: Option<Running>,
}

impl hyper::body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_secs(1000 + secs)
    }

    #[test]
    fn a_silent_connection_may_wait_for_its_first_request() {
        let pulse = Pulse::default();
        let mut idle = Idle::new(at(0));
        assert!(!idle.is_over(at(599), &pulse));
        assert!(idle.is_over(at(600), &pulse));
    }

    #[test]
    fn a_handshake_may_not_take_long_whatever_is_heard() {
        let pulse = Pulse::default();
        pulse.shakes_hands.store(true, Ordering::Relaxed);
        let mut idle = Idle::new(at(0));
        assert!(!idle.is_over(at(9), &pulse));
        assert!(idle.is_over(at(10), &pulse));
        pulse.shakes_hands.store(false, Ordering::Relaxed);
        assert!(!idle.is_over(at(10), &pulse), "it is done in time");
    }

    #[test]
    fn the_head_of_a_request_may_not_dribble_in() {
        let pulse = Pulse::default();
        let mut idle = Idle::new(at(0));
        for second in 1..16 {
            pulse.heard.store(true, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse), "{second}");
        }
        pulse.heard.store(true, Ordering::Relaxed);
        assert!(
            idle.is_over(at(16), &pulse),
            "15 s after the first look that heard it"
        );
        // HTTP/2 is never quite silent.
        pulse.http2.store(true, Ordering::Relaxed);
        let mut idle = Idle::new(at(0));
        for second in 1..600 {
            pulse.heard.store(true, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse));
        }
    }

    #[test]
    fn a_running_exchange_keeps_its_connection() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0));
        let running = Running::new(&pulse);
        for second in 0..10_000 {
            pulse.heard.store(true, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse));
        }
        drop(running);
        assert!(!idle.is_over(at(10_000), &pulse));
        assert!(!idle.is_over(at(10_590), &pulse));
        assert!(idle.is_over(at(10_600), &pulse));
    }

    #[test]
    fn a_closed_connection_listens_for_a_second() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0));
        let _running = Running::new(&pulse);
        pulse.lingers.store(true, Ordering::Relaxed);
        assert!(!idle.is_over(at(7), &pulse));
        assert!(idle.is_over(at(8), &pulse));
    }
}
