//! An exchange that a peer opened: from hyper to the machine, and its reply back.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{EXPECT, UPGRADE};
use hyper::rt::{Read, Write};
use hyper::{StatusCode, Version};
use livepeer_core::http::{self, Body, Fault, Headers, In, SWITCHING};
use tracing::{debug, warn};

use super::accept::{Pulse, Running};
use super::body::{Aborted, OutBody, piece};
use super::convert;
use super::tunnel::{self, Side};
use super::unread::Unread;
use crate::lane::{Order, PeerSink, Serving};
use crate::lock;
use crate::rt::Runtime;

/// How many frames of a body are read before other tasks run.
const FRAMES_PER_TURN: usize = 32;

/// Takes requests from hyper to the machine.
#[derive(Clone)]
pub(super) struct Front<R> {
    pub(super) runtime: R,
    pub(super) peers: Arc<dyn PeerSink>,
    pub(super) secure: bool,
    pub(super) from: IpAddr,
    pub(super) pulse: Arc<Pulse>,
    pub(super) granted: Granting,
}

/// Room for the exchange that has a connection leave HTTP.
#[derive(Clone, Default)]
pub(super) struct Granting(Arc<Mutex<Option<Granted>>>);

/// An exchange that leaves HTTP, once its head is out.
pub(super) struct Granted {
    serving: Serving,
    running: Option<Running>,
}

impl Granting {
    pub(super) fn take(&self) -> Option<Granted> {
        lock(&self.0).take()
    }
}

impl Granted {
    /// Passes bytes both ways until the machine ends its side, or the connection breaks.
    pub(super) async fn pass(self, stream: impl Read + Write + Unpin) {
        // The peer is not to lose our last word by what it says itself meanwhile.
        if let Some(running) = &self.running {
            running.leave_unread();
        }
        let passed = tunnel::pass(self.serving.get(), stream, Side::Granted).await;
        match passed {
            Ok(()) => self.serving.finish(),
            Err(error) => debug!(%error, "a connection broke that had left HTTP"),
        }
    }
}

impl<R: Runtime> hyper::service::Service<hyper::Request<Incoming>> for Front<R> {
    type Response = hyper::Response<ReplyBody<R>>;
    type Error = Aborted;
    type Future = Serve<R>;

    fn call(&self, request: hyper::Request<Incoming>) -> Serve<R> {
        let mut running = Running::new(&self.pulse);
        let version = request.version();
        let bare = request.body().is_end_stream();
        let opened = convert::request(&request, self.secure).and_then(|mut head| {
            head.peer = Some(self.from);
            let exchange = self.peers.open(head, bare);
            exchange.ok_or(StatusCode::SERVICE_UNAVAILABLE)
        });
        let state = match opened {
            Ok(exchange) => {
                running.watch(&exchange.lane);
                Answer::Awaiting(Serving::new(exchange))
            }
            Err(status) => Answer::Refused(status),
        };
        Serve {
            runtime: self.runtime.clone(),
            state,
            waits_for_leave: request.headers().contains_key(EXPECT),
            granting: request
                .headers()
                .contains_key(UPGRADE)
                .then(|| self.granted.clone()),
            body: (!bare).then(|| request.into_body()),
            trailers: Headers::new(),
            version,
            running: Some(running),
        }
    }
}

/// An exchange that a peer opened, until its reply begins.
pub(super) struct Serve<R: Runtime> {
    runtime: R,
    state: Answer<R>,
    /// The request's body, until its end.
    body: Option<Incoming>,
    /// The peer sends its body only if it is told to.
    waits_for_leave: bool,
    /// If the peer asks to leave HTTP.
    granting: Option<Granting>,
    trailers: Headers,
    version: Version,
    running: Option<Running>,
}

enum Answer<R: Runtime> {
    Awaiting(Serving),
    Refused(StatusCode),
    /// The reply is ready, and leaves when the rest of the request's body was read.
    Held(Box<(hyper::Response<ReplyBody<R>>, Unread<R>)>),
    Given,
}

impl<R: Runtime> Future for Serve<R> {
    type Output = Result<hyper::Response<ReplyBody<R>>, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for _ in 0..FRAMES_PER_TURN {
            let serving = match std::mem::replace(&mut this.state, Answer::Given) {
                Answer::Awaiting(serving) => serving,
                Answer::Refused(status) => {
                    let mut reply = http::Response::new(status.as_u16());
                    if status == StatusCode::URI_TOO_LONG {
                        reply
                            .headers
                            .push("content-type", "text/plain; charset=utf-8");
                        reply.body = Body::Full(Bytes::from_static(b"URI too long\n"));
                    }
                    return this.refuse(reply, cx).map(Ok);
                }
                Answer::Held(mut held) => {
                    let Poll::Ready(all) = held.1.poll_end_in_time(cx) else {
                        this.state = Answer::Held(held);
                        return Poll::Pending;
                    };
                    let (reply, _) = *held;
                    if let (false, Some(running)) = (all, &reply.body().running) {
                        running.leave_unread();
                    }
                    return Poll::Ready(Ok(reply));
                }
                Answer::Given => return Poll::Ready(Err(Aborted)),
            };
            let exchange = serving.get();
            let read = match exchange.lane.order(cx) {
                Order::Abort => return Poll::Ready(Err(Aborted)),
                Order::Reply(reply) => return this.reply(serving, reply, cx).map(Ok),
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
                    Ok(data) => exchange.feed(In::Data(piece(data))),
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
                    // Nothing can be read of it, but the peer may go on sending.
                    this.body = None;
                    this.leave_unread();
                    let fault = Fault::Broken(format!("the request broke off: {error}"));
                    exchange.feed(In::Failed(fault));
                    // If it was not the connection that broke, the peer may still hear of it (trickle spec 5.4-5).
                    let answer = match exchange.lane.order(cx) {
                        Order::Reply(reply) => reply,
                        _ => http::Response::new(500),
                    };
                    serving.finish();
                    return this.refuse(answer, cx).map(Ok);
                }
            }
            this.state = Answer::Awaiting(serving);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<R: Runtime> Serve<R> {
    /// Notes that part of the request will not be read.
    fn leave_unread(&self) {
        if let Some(running) = &self.running {
            running.leave_unread();
        }
    }

    fn reply(
        &mut self,
        serving: Serving,
        mut reply: http::Response,
        cx: &mut Context<'_>,
    ) -> Poll<hyper::Response<ReplyBody<R>>> {
        if reply.status == SWITCHING {
            return self.leave_http(serving, &reply, cx);
        }
        let body = match std::mem::take(&mut reply.body) {
            Body::Stream => OutBody::Serving(serving),
            Body::Full(data) => {
                serving.finish();
                OutBody::full(vec![data], None)
            }
            Body::Pieces(pieces) => {
                serving.finish();
                OutBody::full(pieces, None)
            }
            Body::Empty => {
                serving.finish();
                OutBody::Empty
            }
        };
        self.answer(&reply, body, cx)
    }

    /// Grants that HTTP is left: the task of the connection goes on with the exchange when the head is out.
    fn leave_http(
        &mut self,
        serving: Serving,
        reply: &http::Response,
        cx: &mut Context<'_>,
    ) -> Poll<hyper::Response<ReplyBody<R>>> {
        let Some(Granting(granted)) = self.granting.take().filter(|_| self.body.is_none()) else {
            warn!("a reply leaves HTTP for a request that did not ask for it");
            return self.refuse(http::Response::new(500), cx);
        };
        let head = convert::response_head(reply, self.version);
        let running = self.running.take();
        *lock(&granted) = Some(Granted { serving, running });
        Poll::Ready(head.map(|()| ReplyBody {
            body: OutBody::Empty,
            unread: None,
            running: None,
        }))
    }

    /// Answers a request that cannot go on, and closes the connection.
    fn refuse(
        &mut self,
        mut reply: http::Response,
        cx: &mut Context<'_>,
    ) -> Poll<hyper::Response<ReplyBody<R>>> {
        if reply.headers.get("connection").is_none() {
            reply.headers.push("connection", "close");
        }
        let body = match std::mem::take(&mut reply.body) {
            Body::Full(data) => OutBody::full(vec![data], None),
            Body::Pieces(pieces) => OutBody::full(pieces, None),
            Body::Empty | Body::Stream => OutBody::Empty,
        };
        self.answer(&reply, body, cx)
    }

    /// Makes the answer, and sees to what is unread of the request: over HTTP/2 the answer ends when that was read,
    /// over HTTP/1.1 it begins then, if the request is known to be small.
    fn answer(
        &mut self,
        reply: &http::Response,
        body: OutBody,
        cx: &mut Context<'_>,
    ) -> Poll<hyper::Response<ReplyBody<R>>> {
        let streams = matches!(body, OutBody::Serving(_));
        let mut unread = self
            .body
            .take()
            .map(|body| Unread::new(&self.runtime, body));
        let mut held = None;
        if self.version != Version::HTTP_2
            && let Some(mut rest) = unread.take()
        {
            let all = if self.waits_for_leave || streams {
                Poll::Ready(false)
            } else {
                rest.poll_end(cx)
            };
            match all {
                Poll::Ready(true) => {}
                Poll::Pending if rest.is_small() => held = Some(rest),
                _ => self.leave_unread(),
            }
        }
        let answer = convert::response_head(reply, self.version).map(|()| ReplyBody {
            body,
            unread,
            running: self.running.take(),
        });
        let Some(rest) = held else {
            return Poll::Ready(answer);
        };
        self.state = Answer::Held(Box::new((answer, rest)));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The body of a reply.
pub(super) struct ReplyBody<R: Runtime> {
    body: OutBody,
    /// The rest of the request's body, read before the reply ends.
    unread: Option<Unread<R>>,
    running: Option<Running>,
}

impl<R: Runtime> hyper::body::Body for ReplyBody<R> {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none()
            && let Some(unread) = &mut self.unread
        {
            ready!(unread.poll_end_in_time(cx));
            self.unread = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.unread.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
