//! Lanes between the engine and one HTTP exchange: commands, and body bytes of our side.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use bytes::Bytes;
use livepeer_core::EffectId;
use livepeer_core::http::{self, Fault, Headers, In};

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

    pub(crate) fn end(&self, trailers: Headers) -> Option<Waker> {
        let mut state = lock(&self.state);
        if !state.ended {
            state.ended = true;
            state.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
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
    pub(crate) fn note(&self, taken: usize) {
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
    pub(crate) fn pop(&self, cx: &Context<'_>, eager: bool) -> Popped {
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

/// The next step of our side of a body.
pub(crate) enum Popped {
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

    pub(crate) fn report(&self) {
        self.sink.report(self.id, &self.lane);
    }

    pub(crate) fn report_early(&self) {
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
