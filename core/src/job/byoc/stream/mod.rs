//! Streams of media and data through a container (jobs spec 5, 11.3).
//!
//! A stream is started, changed, paid for and stopped by requests of its own, and has the channels of a live job. It is
//! control only: whoever owns it gives the addresses of the media channels to a [`Media`](crate::job::live::media::Media),
//! hands its news to [`Byoc::on_stream_media`], and reads the channel of data.
//!
//! | state | input | next | output |
//! |---|---|---|---|
//! | starting | an orchestrator has started it | running | [`StreamEvent::Begun`]; control and events channels are opened |
//! | starting | nobody would | end | [`StreamEvent::Ended`] |
//! | starting | the answer was lost | undoing | the orchestrator is asked to stop what it may have started; with leave to repeat the next one is asked |
//! | undoing | stopped | starting | the next orchestrator |
//! | undoing | no answer | end | [`Failed::Undecided`] |
//! | running | time | running | a fresh token, and a payment for what the balance lacks |
//! | running | two payments refused, a channel gone, silence | starting | [`StreamEvent::Lost`]; the orchestrator is asked to stop |
//! | running | the same, too often, or after the input's end | end | [`StreamEvent::Ended`] |
//! | any | stop, or the input is over and the output followed | stopping | the orchestrator is asked to stop |
//! | stopping | answered, or late | end | [`StreamEvent::Ended`] |
//!
//! Towards orchestrators a stream has a name that is drawn for each start: who knows it may stop or replace the stream, and
//! may read its channels. An orchestrator that was lost, or that refused, is not asked again.

mod ask;
mod begin;
mod pay;
mod table;
mod work;

pub(super) use pay::SECONDS_AHEAD;
pub(super) use table::Streams;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use self::ask::{Ask, What};
use self::table::Name;
use self::work::Running;
use super::Byoc;
use super::types::{Attempt, Event, Failed, JobId};
pub use super::types::{Begun, StreamAnswer, StreamEvent, StreamOrder, UpdateId};
use crate::error::Misuse;
use crate::http::Url;
use crate::job::SwapLimit;
use crate::machine::{Child, EffectId, Input, earlier};
use crate::time::Time;
use crate::trickle::Publisher;
use crate::wire::RunnerEvent;
use crate::wire::byoc::Wishes;

/// At most this many changes of a stream's parameters wait for their answers.
pub const MAX_UPDATES: usize = 32;

/// Orchestrators that may be lost in a row, each less than a minute after the one before.
const MAX_LOST: u32 = 3;
const LOST_SPACING: Duration = Duration::from_secs(60);

/// A stream from its order to its last event.
pub(super) struct Stream {
    order: StreamOrder,
    wishes: Wishes,
    state: State,
    /// Sessions begun, and orchestrators that were lost.
    sessions: u32,
    swaps: u32,
    limit: SwapLimit,
    /// Orchestrators that were asked to start it.
    tried: BTreeSet<Url>,
    attempts: Vec<Attempt>,
    /// The last report of the container.
    status: Option<RunnerEvent>,
    input_open: bool,
    updates: u64,
    asks: BTreeMap<EffectId, Ask>,
    /// Control channels of orchestrators that were left, being closed.
    leaving: Vec<Child<Publisher>>,
}

enum State {
    /// A job of ours asks orchestrators to start it.
    Starting(JobId),
    /// An orchestrator that may have started it is asked to stop it.
    Undoing,
    Running(Box<Running>),
    /// Over, but for farewells that are not answered; how it ended, unless that was told.
    Closing(Option<Result<Bytes, Box<Failed>>>),
}

impl Stream {
    fn wake(&self) -> Option<Time> {
        let asks = self.asks.values().map(|ask| ask.exchange.wake());
        let leaving = self.leaving.iter().map(Child::wake);
        let own = match &self.state {
            State::Running(running) => running.wake(),
            _ => None,
        };
        asks.chain(leaving).fold(own, earlier)
    }

    fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }
}

impl Byoc {
    /// Begins a stream. Its events come as [`Event::Stream`]; it is ended by [`stop_stream`](Self::stop_stream), or by
    /// [`cancel`](Self::cancel) without an event.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn open_stream(&mut self, now: Time, mut order: StreamOrder) -> Result<JobId, Misuse> {
        self.advance(now);
        self.accept(&order.job)?;
        let wishes = order.job.wishes().map_err(|_| Misuse::NotOpen)?;
        order.job = order.job.to_send();
        let id = self.draw_id();
        let stream = Stream {
            order,
            wishes,
            state: State::Undoing,
            sessions: 0,
            swaps: 0,
            limit: SwapLimit::new(MAX_LOST, LOST_SPACING),
            tried: BTreeSet::new(),
            attempts: Vec::new(),
            status: None,
            input_open: true,
            updates: 0,
            asks: BTreeMap::new(),
            leaving: Vec::new(),
        };
        self.streams.insert(id, stream);
        self.start_stream(id);
        self.run();
        Ok(id)
    }

    /// How many streams are not over.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The container's last report of a stream.
    #[must_use]
    pub fn stream_status(&self, id: JobId) -> Option<&RunnerEvent> {
        self.streams.get(&id)?.status.as_ref()
    }

    /// Hands a change of its parameters to a stream's container, as it is: the answer is [`StreamEvent::Updated`].
    ///
    /// # Errors
    /// [`Misuse::Ended`] for a stream that is over, [`Misuse::NotOpen`] while it does not run, [`Misuse::StillOpen`] while
    /// [`MAX_UPDATES`] are under way.
    pub fn update_stream(&mut self, now: Time, id: JobId, body: Bytes) -> Result<UpdateId, Misuse> {
        self.advance(now);
        let stream = self.streams.get_mut(&id).ok_or(Misuse::Ended)?;
        let asked = stream.asks.values();
        let open = asked.filter(|ask| matches!(ask.what, What::Update(..)));
        match &stream.state {
            State::Running(_) if open.count() >= MAX_UPDATES => return Err(Misuse::StillOpen),
            State::Running(_) => {}
            State::Closing(_) => return Err(Misuse::Ended),
            State::Starting(_) | State::Undoing => return Err(Misuse::NotOpen),
        }
        let update = UpdateId(stream.updates);
        stream.updates += 1;
        self.ask_update(id, update, body);
        self.run();
        Ok(update)
    }

    /// Ends a stream in order: the container is told, with a body of the caller's, and its answer is in the last event.
    /// Streams that are unknown, or over, are ignored.
    pub fn stop_stream(&mut self, now: Time, id: JobId, body: Bytes) {
        self.advance(now);
        self.finish_stream(id, body);
        self.run();
    }

    /// Whether a stream with that name is known.
    pub(super) fn has_stream(&self, id: JobId) -> bool {
        self.streams.contains_key(&id)
    }

    pub(super) fn tell_stream(&mut self, id: JobId, event: StreamEvent) {
        self.out.event(Event::Stream(id, Box::new(event)));
    }

    /// Ends all streams at once. Their control channels are still deleted.
    pub(super) fn close_streams(&mut self) {
        for id in self.stream_ids() {
            self.leave_session(id, None);
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            for (_, mut ask) in core::mem::take(&mut stream.asks) {
                ask.exchange.abort(&mut self.out);
            }
            for control in &mut stream.leaving {
                control.get_mut().abandon(self.now);
            }
            let closed = Some(Err(Box::new(Failed::Closed)));
            let end = match core::mem::replace(&mut stream.state, State::Closing(None)) {
                State::Closing(end) => end,
                _ => closed,
            };
            if let Some(end) = end {
                self.tell_stream(id, StreamEvent::Ended(end));
            }
        }
    }

    fn stream_ids(&self) -> Vec<JobId> {
        self.streams.keys().copied().collect()
    }

    pub(super) fn streams_wake(&self) -> Option<Time> {
        self.streams.wake()
    }

    /// Does what is due for streams.
    pub(super) fn tick_streams(&mut self) {
        for id in self.streams.due(self.now) {
            self.late_asks(id);
            self.tick_work(id);
            self.run();
        }
    }

    /// Takes an input of a stream's own; hands back one that is nobody's.
    pub(super) fn feed_stream(&mut self, input: Input) -> Option<Input> {
        let id = input.id()?;
        let Some(owner) = self.streams.owner(id) else {
            return Some(input);
        };
        let stream = self.streams.get_mut(&owner)?;
        let now = self.now;
        if let Some(control) = stream.leaving.iter_mut().find(|one| one.owns(id)) {
            control.handle_input(now, input);
            return None;
        }
        if let Some(running) = stream.running() {
            if running.control.owns(id) {
                running.control.handle_input(now, input);
                return None;
            }
            if running.events.owns(id) {
                running.events.handle_input(now, input);
                return None;
            }
        }
        if let Input::Http(id, step) = input {
            match stream.asks.contains_key(&id) {
                true => self.on_ask(owner, id, step),
                false => self.on_bill(owner, step),
            }
        }
        None
    }

    /// Takes in what the channels of streams tell, until they tell nothing more.
    pub(super) fn drain_streams(&mut self) {
        while let Some(id) = self.streams.touched() {
            while self.drain_stream(id) {}
            self.end_if_closed(id);
            self.streams.settle(id);
        }
    }
}

impl Stream {
    /// Names of all that its inputs are for.
    fn names(&self) -> Vec<Name> {
        let asks = self.asks.keys().map(|id| Name::Exchange(*id));
        let leaving = self.leaving.iter().map(|one| Name::Child(one.owner()));
        let mut names: Vec<_> = asks.chain(leaving).collect();
        if let State::Running(running) = &self.state {
            names.push(Name::Child(running.control.owner()));
            names.push(Name::Child(running.events.owner()));
            names.extend(running.bill.exchange().map(Name::Exchange));
        }
        names
    }
}
