//! Lanes between the engine and one HTTP exchange: commands, and body bytes of our side.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, Version};
use livepeer_core::EffectId;
use livepeer_core::http::{self, Fault, Headers, In};

use crate::http::convert;
use crate::lock;

/// The engine as an exchange sees it.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Feeds the machine, after telling it how many bytes of our body went out.
    fn feed(&self, id: EffectId, lane: &Lane, step: In);

    /// Feeds as [`Sink::feed`] does; the exchange is over.
    fn feed_last(&self, id: EffectId, lane: &Lane, step: In);

    /// Tells the machine how many bytes of our body went out, if any.
    fn report(&self, id: EffectId, lane: &Lane);

    /// Reports as [`Sink::report`] does, but not while another task is at the machine: with more to send, the report
    /// can wait.
    fn report_early(&self, id: EffectId, lane: &Lane);

    /// The exchange is over, and the machine knows.
    fn forget(&self, id: EffectId, lane: &Lane);

    /// Whether body bytes may be read from the network now. If not, the lane's task is woken when they may.
    fn has_room(&self, lane: &Arc<Lane>) -> bool;
}

/// Sinks that take exchanges of peers.
pub(crate) trait PeerSink: Sink {
    /// A peer opened an exchange; `bare` says that it has no body. `None` if the engine is closed.
    fn open(&self, request: http::Request, bare: bool) -> Option<Exchange>;
}

/// The engine's end of one exchange.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    body: VecDeque<Bytes>,
    ended: bool,
    /// The trailers that follow the body, until they are taken.
    trailers: Option<Headers>,
    aborted: bool,
    paused: bool,
    stalled: bool,
    reply: Option<http::Response>,
    /// Body bytes that were taken but not yet reported.
    unreported: usize,
    /// The machine waits for the report.
    awaited: bool,
    task: Option<Waker>,
    writer: Option<Waker>,
}

/// A command to an exchange.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read on.
    Read,
    /// Leave what the peer sends where it is.
    Pause,
    /// Give up.
    Abort,
    /// Answer the peer; told once.
    Reply(http::Response),
}

impl Lane {
    // The engine's side. Each answers with the waker of whoever waits for the change, to be woken when the
    // engine's own lock is released.

    pub(crate) fn push(&self, data: Bytes) -> Option<Waker> {
        let mut state = lock(&self.state);
        if data.is_empty() || state.ended || state.aborted {
            return None;
        }
        state.body.push_back(data);
        state.writer.take()
    }

    pub(crate) fn end(&self, trailers: Option<Headers>) -> Option<Waker> {
        let mut state = lock(&self.state);
        if !state.ended {
            state.ended = true;
            state.trailers = trailers;
        }
        state.writer.take()
    }

    /// Has what goes out reported as soon as it is out.
    pub(crate) fn await_report(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.awaited = true;
        state.writer.take()
    }

    pub(crate) fn reply(&self, reply: http::Response) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.reply = Some(reply);
        state.task.take()
    }

    pub(crate) fn set_paused(&self, paused: bool) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.paused = paused;
        if paused { None } else { state.task.take() }
    }

    pub(crate) fn abort(&self) -> [Option<Waker>; 2] {
        let mut state = lock(&self.state);
        state.aborted = true;
        state.body.clear();
        [state.task.take(), state.writer.take()]
    }

    /// Notes that the exchange waits for room; false if that was known.
    pub(crate) fn stall(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).stalled, true)
    }

    pub(crate) fn unstall(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.stalled = false;
        state.task.take()
    }

    /// How many body bytes went out since the last call.
    pub(crate) fn take_unreported(&self) -> usize {
        let mut state = lock(&self.state);
        // What still waits in the queue goes on being awaited.
        state.awaited &= !state.body.is_empty();
        std::mem::take(&mut state.unreported)
    }

    pub(crate) fn has_unreported(&self) -> bool {
        lock(&self.state).unreported > 0
    }

    // The exchange's side.

    /// The command for the exchange; the task is woken when that changes.
    pub(crate) fn order(&self, cx: &Context<'_>) -> Order {
        let mut state = lock(&self.state);
        wait(&mut state.task, cx);
        if state.aborted {
            return Order::Abort;
        }
        match (state.reply.take(), state.paused) {
            (Some(reply), _) => Order::Reply(reply),
            (None, true) => Order::Pause,
            (None, false) => Order::Read,
        }
    }

    /// Counts body bytes that did not go through the queue.
    fn note(&self, taken: usize) {
        lock(&self.state).unreported += taken;
    }

    /// Whether all of our body was taken.
    pub(crate) fn is_drained(&self) -> bool {
        let state = lock(&self.state);
        state.ended && state.body.is_empty() && state.trailers.is_none() && !state.aborted
    }

    pub(crate) fn is_aborted(&self) -> bool {
        lock(&self.state).aborted
    }

    /// The next step of our side of the body. `eager` says to report whatever is out, awaited or not.
    fn pop(&self, cx: &Context<'_>, eager: bool) -> Popped {
        let mut state = lock(&self.state);
        if state.aborted {
            return Popped::Aborted;
        }
        if let Some(data) = state.body.pop_front() {
            state.unreported += data.len();
            return Popped::Data(data, state.unreported);
        }
        if state.ended {
            return state.trailers.take().map_or(Popped::End, Popped::Trailers);
        }
        if state.unreported > 0 && (eager || state.awaited) {
            return Popped::Report;
        }
        wait(&mut state.writer, cx);
        Popped::Nothing
    }
}

enum Popped {
    Data(Bytes, usize),
    Trailers(Headers),
    End,
    /// Nothing more to send, but sent bytes to report first, which may bring more.
    Report,
    Nothing,
    Aborted,
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

/// An exchange: its name, its lane and its engine.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) id: EffectId,
    pub(crate) lane: Arc<Lane>,
    pub(crate) sink: Arc<dyn Sink>,
}

impl Exchange {
    pub(crate) fn feed(&self, step: In) {
        self.sink.feed(self.id, &self.lane, step);
    }

    pub(crate) fn feed_last(&self, step: In) {
        self.sink.feed_last(self.id, &self.lane, step);
    }

    fn report(&self) {
        self.sink.report(self.id, &self.lane);
    }

    fn report_early(&self) {
        self.sink.report_early(self.id, &self.lane);
    }
}

/// An exchange that a peer opened. Dropped before its end, it tells the machine that the peer is gone.
pub(crate) struct Serving(Option<Exchange>);

impl Serving {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self(Some(exchange))
    }

    pub(crate) fn get(&self) -> &Exchange {
        self.0
            .as_ref()
            .expect("it is only taken by value and on drop")
    }

    /// The machine has said its last word, and nothing is left to send.
    pub(crate) fn finish(mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.sink.forget(exchange.id, &exchange.lane);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            if exchange.lane.is_aborted() || exchange.lane.is_drained() {
                exchange.sink.forget(exchange.id, &exchange.lane);
            } else {
                exchange.feed_last(In::Failed(Fault::Broken(
                    "the peer went away before the answer was complete".into(),
                )));
            }
        }
    }
}

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
    Full(Option<Bytes>, Option<Exchange>),
    /// Streamed by a client.
    Sending(Sending),
    /// Streamed by a server.
    Serving(Serving),
}

/// Bytes that hyper may take before the machine hears of it, if more are at hand.
const REPORT_BYTES: usize = 64 << 10;

impl Body for OutBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let (exchange, eager) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Full(data, exchange) => {
                let Some(data) = data.take().filter(|data| !data.is_empty()) else {
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
                    if unreported >= REPORT_BYTES {
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
            Self::Full(data, _) => data.as_ref().is_none_or(Bytes::is_empty),
            Self::Sending(Sending(exchange)) => exchange.lane.is_drained(),
            Self::Serving(serving) => serving.get().lane.is_drained(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data, _) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
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
