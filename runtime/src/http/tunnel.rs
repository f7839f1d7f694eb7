//! Connections that have left HTTP: bytes both ways between a peer and a machine.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBuf, Write};
use livepeer_core::http::{Headers, In};

use crate::lane::{Exchange, Order, Popped};

/// At most this many bytes are read at a time.
const READ_BYTES: usize = 16 << 10;

/// How many pieces pass before other tasks run.
const PIECES_PER_TURN: usize = 32;

/// The side of an exchange that is ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The side that asked to leave HTTP: it is over when the peer ends.
    Asked,
    /// The side that granted it: it is over when the machine ends.
    Granted,
}

/// Passes bytes until the side that granted it ends; whatever the other one still sends is not waited for. The end of
/// the peer is told to the machine here only while the exchange goes on.
///
/// # Errors
/// If the connection breaks, or the machine gives the exchange up.
pub(super) async fn pass<S>(exchange: &Exchange, stream: S, side: Side) -> io::Result<()>
where
    S: Read + Write + Unpin,
{
    let mut tunnel = Tunnel {
        exchange,
        stream,
        side,
        sending: Sending::Piece(Bytes::new()),
        heard_all: false,
    };
    std::future::poll_fn(|cx| tunnel.poll(cx)).await
}

struct Tunnel<'a, S> {
    exchange: &'a Exchange,
    stream: S,
    side: Side,
    sending: Sending,
    heard_all: bool,
}

enum Sending {
    /// The rest of a piece; empty when the next one is due.
    Piece(Bytes),
    Closing,
    Closed,
}

impl<S: Read + Write + Unpin> Tunnel<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..PIECES_PER_TURN {
            let sent = self.poll_send(cx)?;
            let heard = self.poll_hear(cx)?;
            let over = match self.side {
                Side::Asked => self.heard_all,
                Side::Granted => matches!(self.sending, Sending::Closed),
            };
            if over {
                return Poll::Ready(Ok(()));
            }
            if sent.is_pending() && heard.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends a little of what the machine says; pending if there is nothing to be done.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.sending {
            Sending::Piece(piece) if !piece.is_empty() => {
                let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, piece))?;
                if taken == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                piece.advance(taken);
                // Told before the next piece is taken, which counts at once.
                if piece.is_empty() {
                    self.exchange.report();
                }
            }
            Sending::Piece(piece) => match self.exchange.lane.pop(cx, false) {
                Popped::Data(data, _) => *piece = data,
                Popped::Report => self.exchange.report(),
                Popped::End | Popped::Trailers(_) => self.sending = Sending::Closing,
                Popped::Nothing | Popped::Aborted => {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    return Poll::Pending;
                }
            },
            Sending::Closing => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                self.sending = Sending::Closed;
            }
            Sending::Closed => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a little of what the peer says to the machine; pending if there is nothing, or no room.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Exchange { lane, sink, .. } = self.exchange;
        match lane.order(cx) {
            Order::Abort => {
                let why = io::Error::new(io::ErrorKind::ConnectionAborted, "it was given up");
                return Poll::Ready(Err(why));
            }
            Order::Pause => return Poll::Pending,
            Order::Read | Order::Reply(_) if self.heard_all || !sink.has_room(lane) => {
                return Poll::Pending;
            }
            Order::Read | Order::Reply(_) => {}
        }
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, read.unfilled()))?;
        let data = read.filled();
        if !data.is_empty() {
            self.exchange.feed(In::Data(Bytes::copy_from_slice(data)));
            return Poll::Ready(Ok(()));
        }
        self.heard_all = true;
        if self.side == Side::Granted {
            self.exchange.feed(In::End(Headers::new()));
        }
        Poll::Ready(Ok(()))
    }
}
