//! Bodies of our side, as hyper takes them.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, Version};
use livepeer_core::http;

use super::convert;
use crate::lane::{Exchange, Popped, Serving};

/// The streamed body of a request. hyper drops it with the last byte; the machine hears of that byte then.
pub(crate) struct Sending(pub(crate) Exchange);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.report();
    }
}

/// Our side's body, as hyper takes it.
pub(crate) enum OutBody {
    Empty,
    /// All of it, in pieces; a client's exchange hears how it gets on.
    Full(std::vec::IntoIter<Bytes>, Option<Exchange>),
    /// Streamed by a client.
    Sending(Sending),
    /// Streamed by a server.
    Serving(Serving),
}

/// Bytes that hyper may take before the machine hears of it, if more are at hand and the machine is free.
const REPORT_BYTES: usize = 64 << 10;
/// Bytes that hyper may take before the machine hears of it in any case: a socket that is full takes no more for long,
/// and what it took is not to be unknown meanwhile.
const OVERDUE_BYTES: usize = 256 << 10;

impl OutBody {
    /// All of a body, for an exchange of ours if there is one.
    pub(crate) fn full(pieces: Vec<Bytes>, exchange: Option<Exchange>) -> Self {
        Self::Full(pieces.into_iter(), exchange)
    }

    /// A body that is there, for an exchange of ours if there is one.
    pub(crate) fn whole(body: http::Body, exchange: Option<Exchange>) -> Self {
        match body {
            http::Body::Empty | http::Body::Stream => Self::Empty,
            http::Body::Full(data) => Self::full(vec![data], exchange),
            http::Body::Pieces(pieces) => Self::full(pieces, exchange),
        }
    }
}

/// At most this many bytes are copied out of the buffer that they were read into.
const SMALL: usize = 2 << 10;

/// A piece of a peer's body as a machine may keep it. A small one is copied, or it would hold the whole buffer that it
/// came in, and its connection would take another to go on reading.
pub(super) fn piece(data: Bytes) -> Bytes {
    match data.len() <= SMALL {
        true => Bytes::copy_from_slice(&data),
        false => data,
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let (exchange, eager) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Full(pieces, exchange) => {
                let Some(data) = pieces.find(|data| !data.is_empty()) else {
                    return Poll::Ready(None);
                };
                if let Some(exchange) = exchange {
                    exchange.lane.note(data.len());
                    exchange.report();
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            // An upload is watched for whether it gets on.
            Self::Sending(Sending(exchange)) => (&*exchange, true),
            Self::Serving(serving) => (serving.get(), false),
        };
        loop {
            match exchange.lane.pop(cx, eager) {
                Popped::Data(data, unreported) => {
                    if unreported >= OVERDUE_BYTES {
                        exchange.report();
                    } else if unreported >= REPORT_BYTES {
                        exchange.report_early();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Popped::Report => exchange.report(),
                Popped::Trailers(trailers) => {
                    exchange.report();
                    let mut fields = HeaderMap::new();
                    convert::fields(&trailers, &mut fields, Version::HTTP_2);
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Popped::End => {
                    exchange.report();
                    return Poll::Ready(None);
                }
                Popped::Nothing => return Poll::Pending,
                Popped::Aborted => return Poll::Ready(Some(Err(Aborted))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(pieces, _) => pieces.as_slice().iter().all(Bytes::is_empty),
            Self::Sending(Sending(exchange)) => exchange.lane.is_drained(),
            Self::Serving(serving) => serving.get().lane.is_drained(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(pieces, _) => {
                let lengths = pieces.as_slice().iter().map(|data| data.len() as u64);
                SizeHint::with_exact(lengths.sum())
            }
            Self::Sending(_) | Self::Serving(_) => SizeHint::default(),
        }
    }
}

/// The exchange was given up; hyper ends the message without its proper end.
#[derive(Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the exchange was given up")
    }
}

impl Error for Aborted {}
