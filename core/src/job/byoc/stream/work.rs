//! A stream at work: its channels, the news of its media, and the watch over silence.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::ask::What;
use super::pay::Bill;
use super::{Begun, State, StreamEvent};
use crate::error::{Cause, Failure, Party};
use crate::http::Url;
use crate::job::byoc::job::Engaged;
use crate::job::byoc::{Byoc, Failed, JobId};
use crate::job::live::media;
use crate::machine::{Child, Input, earlier};
use crate::payment::session::Delivered;
use crate::time::Time;
use crate::trickle::message::Messages;
use crate::trickle::{self, ContentType, Ending, Publisher, Seq, Start, Subscriber};
use crate::wire::byoc::Token;
use crate::wire::byoc::stream::StreamChannels;
use crate::wire::{EventContext, KEEP_ALIVE, MAX_MESSAGE_BYTES, RunnerEvent, cut};

/// How often a control channel is written to.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);

/// A container whose events channel is silent for this long is gone.
const EVENT_SILENCE: Duration = Duration::from_secs(30);

/// Input that an orchestrator does not take for this long, while nothing is delivered either, means that it is stuck.
const INPUT_STALL: Duration = Duration::from_secs(5);

/// How long the output may stand still after the input has ended.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// A complaint of the container this long before a channel was closed may be why.
const RECENT: Duration = Duration::from_secs(2);

/// A stream at an orchestrator.
pub(super) struct Running {
    session: u32,
    pub(super) url: Url,
    pub(super) token: Token,
    /// The signed header of every request about the stream.
    pub(super) header: String,
    channels: StreamChannels,
    pub(super) control: Child<Publisher>,
    /// Whether a keep-alive is due, and whether one is on its way.
    keep_alive_due: bool,
    keep_alive_flies: bool,
    keep_alive_at: Time,
    pub(super) events: Child<Subscriber>,
    message: Messages,
    last_event: Time,
    last_error: Option<(Time, String)>,
    in_flight: usize,
    /// Since when the owner has input that is not taken.
    input_waits: Option<Time>,
    /// Set once the input has ended.
    drain_until: Option<Time>,
    pub(super) bill: Bill,
}

impl Running {
    /// Where the orchestrator takes requests.
    pub(super) const fn service(&self) -> &Url {
        &self.token.service
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let own = self.keep_alive_at.min(self.last_event + EVENT_SILENCE);
        let own = own.min(self.drain_until.unwrap_or(Time::MAX));
        let own = own.min(
            self.input_waits
                .map_or(Time::MAX, |since| since + INPUT_STALL),
        );
        let channels = earlier(self.control.wake(), self.events.wake());
        earlier(earlier(Some(own), self.bill.wake()), channels)
    }

    /// Sends the keep-alive that is due, once the one before it is delivered.
    fn keep_alive(&mut self, now: Time) {
        if !self.keep_alive_due || self.keep_alive_flies {
            return;
        }
        let control = self.control.get_mut();
        if control.begin(now).is_ok() {
            // One small message into an empty queue: there is room, or the channel has ended and says so.
            let _ = control.write(now, Bytes::from_static(KEEP_ALIVE.as_bytes()));
            let _ = control.end(now);
            (self.keep_alive_due, self.keep_alive_flies) = (false, true);
        }
    }

    fn last_error(&self, now: Time) -> Option<&str> {
        let (at, text) = self.last_error.as_ref()?;
        (now.since(*at) <= RECENT).then_some(text)
    }
}

/// News of a channel, to be acted on once no stream is borrowed.
enum Told {
    Control(trickle::publisher::Event),
    Events(trickle::subscriber::Event),
}

impl Byoc {
    /// An orchestrator runs a stream from now on.
    pub(super) fn run_stream(
        &mut self,
        id: JobId,
        engaged: Engaged,
        header: String,
        channels: StreamChannels,
    ) {
        let now = self.now;
        let Some((control, events)) = self.open_channels(&channels) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let session = stream.sessions;
        stream.sessions += 1;
        let running = Running {
            session,
            url: engaged.url,
            token: engaged.token,
            header,
            channels,
            control,
            keep_alive_due: false,
            keep_alive_flies: false,
            keep_alive_at: now + KEEP_ALIVE_EVERY,
            events,
            message: Messages::new(MAX_MESSAGE_BYTES),
            last_event: now,
            last_error: None,
            in_flight: 0,
            input_waits: None,
            drain_until: (!stream.input_open).then_some(now + DRAIN_WITHIN),
            bill: Bill::new(now, engaged.payment),
        };
        stream.state = State::Running(Box::new(running));
        self.tell_begun(id);
    }

    fn open_channels(
        &mut self,
        channels: &StreamChannels,
    ) -> Option<(Child<Publisher>, Child<Subscriber>)> {
        let trust = self.config.trust;
        let control = trickle::publisher::Config {
            content: ContentType::new(ContentType::JSON),
            // It was made for us just now.
            first: Some(Seq::ZERO),
            trust,
            linger: Duration::ZERO,
            ..Default::default()
        };
        let events = trickle::subscriber::Config {
            trust,
            ..Default::default()
        };
        let control = Publisher::new(self.now, control, channels.control.clone()?);
        let events = Subscriber::new(self.now, events, channels.events.clone()?, Start::Current);
        Some((self.ids.adopt(control), self.ids.adopt(events)))
    }

    /// Does what is due for a stream at work.
    pub(super) fn tick_work(&mut self, id: JobId) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        for control in &mut stream.leaving {
            control.handle_input(now, Input::Tick);
        }
        let Some(running) = stream.running() else {
            return;
        };
        running.control.handle_input(now, Input::Tick);
        running.events.handle_input(now, Input::Tick);
        if running.drain_until.is_some_and(|until| until <= now) {
            return self.finish_stream(id, Bytes::new());
        }
        if running.keep_alive_at <= now {
            running.keep_alive_at = now + KEEP_ALIVE_EVERY;
            running.keep_alive_due = true;
        }
        let stalls = { running.input_waits }.is_some_and(|since| since + INPUT_STALL <= now);
        let silent = |what, after| Cause::Silent { what, after };
        if running.last_event + EVENT_SILENCE <= now {
            return self.lose_session(id, silent("events", EVENT_SILENCE));
        }
        if stalls && running.drain_until.is_none() {
            return self.lose_session(id, silent("progress of the input", INPUT_STALL));
        }
        running.input_waits.take_if(|_| stalls);
        self.bill_is_due(id);
    }

    /// Takes in what the channels of a stream tell. Says whether that was anything.
    pub(super) fn drain_stream(&mut self, id: JobId) -> bool {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let mut told = Vec::new();
        let out = &mut self.out;
        stream.leaving.retain_mut(|control| {
            control.drain(out, |_| ());
            !control.get().has_ended()
        });
        if let State::Running(running) = &mut stream.state {
            running.keep_alive(now);
            running
                .control
                .drain(out, |event| told.push(Told::Control(event)));
            running
                .events
                .drain(out, |event| told.push(Told::Events(event)));
        }
        let session = stream.sessions;
        let moved = !told.is_empty();
        for told in told {
            // The others may be of an orchestrator that was left just now.
            let Some(stream) = self.streams.get(&id) else {
                break;
            };
            if stream.sessions != session || !matches!(stream.state, State::Running(_)) {
                break;
            }
            match told {
                Told::Control(event) => self.on_control(id, event),
                Told::Events(event) => self.on_events(id, event),
            }
        }
        moved
    }

    fn on_control(&mut self, id: JobId, event: trickle::publisher::Event) {
        use trickle::publisher::Event as Write;
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        match event {
            Write::Delivered(_) => running.keep_alive_flies = false,
            Write::Lost(..) => {
                (running.keep_alive_flies, running.keep_alive_due) = (false, true);
            }
            Write::Closed(ending) => self.channel_ended(id, "the control channel", ending),
            _ => {}
        }
    }

    fn on_events(&mut self, id: JobId, event: trickle::subscriber::Event) {
        use trickle::subscriber::Event as Read;
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let State::Running(running) = &mut stream.state else {
            return;
        };
        let message = match event {
            Read::Begin(..) => return running.message.begin(),
            Read::Data(_, data) => return running.message.data(&data),
            Read::End(_) => running.message.end(),
            Read::Truncated(..) => {
                let _ = running.message.truncated();
                return;
            }
            Read::Closed(ending) => return self.channel_ended(id, "the events channel", ending),
            _ => return,
        };
        // Garbage and empty segments are skipped, and are no sign of life.
        let Ok(Some(message)) = message else { return };
        let Ok(event) = RunnerEvent::parse(&message, &EventContext::default()) else {
            return;
        };
        running.last_event = now;
        if let Some(text) = event.error() {
            running.last_error = Some((now, cut(text).into()));
        }
        let event = match event.is_status() {
            true => event.merged_over(stream.status.as_ref()),
            false => event,
        };
        if event.is_status() {
            stream.status = Some(event.clone());
        }
        self.tell_stream(id, StreamEvent::Runner(event));
    }

    /// A channel of a stream has ended. Once the input is over that is how it should be.
    fn channel_ended(&mut self, id: JobId, channel: &'static str, ending: Ending) {
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        if running.drain_until.is_some() {
            return;
        }
        let cause = match ending {
            Ending::Failed(failure) => failure.cause,
            _ => Cause::Gone(channel),
        };
        if let Cause::Link(fault) = &cause
            && fault.is_before_request()
            && self.go_home(id)
        {
            return;
        }
        self.lose_session(id, cause);
    }

    /// Tries the channels at the orchestrator's own host: the one that it named may be for its runners alone. False if they
    /// are there already.
    fn go_home(&mut self, id: JobId) -> bool {
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return false;
        };
        let home = running.channels.at_home(running.service());
        if home == running.channels {
            return false;
        }
        let Some((control, events)) = self.open_channels(&home) else {
            return false;
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let State::Running(running) = &mut stream.state else {
            return false;
        };
        let mut control = core::mem::replace(&mut running.control, control);
        control.get_mut().abandon(self.now);
        stream.leaving.push(control);
        let mut events = core::mem::replace(&mut running.events, events);
        events.get_mut().close(self.now);
        events.drain(&mut self.out, |_| ());
        running.channels = home;
        (running.keep_alive_flies, running.in_flight) = (false, 0);
        let left = core::mem::replace(&mut running.session, stream.sessions);
        stream.sessions += 1;
        self.tell_stream(id, StreamEvent::Left(left));
        self.tell_begun(id);
        true
    }

    /// Tells where a stream runs now.
    fn tell_begun(&mut self, id: JobId) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let State::Running(running) = &stream.state else {
            return;
        };
        let begun = Begun {
            url: running.url.clone(),
            session: running.session,
            channels: running.channels.clone(),
            price: running.token.price,
            swaps: stream.swaps,
            attempts: stream.attempts.clone(),
        };
        self.tell_stream(id, StreamEvent::Begun(Box::new(begun)));
    }

    /// Takes in what a stream's [`Media`](media::Media) told. After [`media::Event::Delivered`] call
    /// [`Media::close_channel`](media::Media::close_channel).
    pub fn on_stream_media(&mut self, now: Time, id: JobId, news: &media::News) {
        self.advance(now);
        self.stream_media(id, news);
        self.run();
    }

    fn stream_media(&mut self, id: JobId, news: &media::News) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if matches!(news.event, media::Event::Delivered) {
            stream.input_open = false;
            if let Some(running) = stream.running() {
                running.drain_until.get_or_insert(now + DRAIN_WITHIN);
            }
            return;
        }
        let Some(running) = { stream.running() }.filter(|one| one.session == news.session) else {
            return;
        };
        match &news.event {
            media::Event::Begun => {
                running.input_waits = None;
                if running.in_flight < self.config.max_in_flight {
                    running.in_flight += 1;
                } else {
                    let what = "the number of input segments in flight";
                    let limit = self.config.max_in_flight;
                    self.lose_session(id, Cause::TooMuch { what, limit });
                }
            }
            media::Event::Done => {
                running.in_flight = running.in_flight.saturating_sub(1);
                running.input_waits = None;
            }
            media::Event::Waits(waits) => {
                running.input_waits = waits.then(|| running.input_waits.unwrap_or(now));
            }
            media::Event::Seen => {
                if let Some(until) = &mut running.drain_until {
                    *until = now + DRAIN_WITHIN;
                }
            }
            media::Event::Ended(_) if running.drain_until.is_some() => {
                self.finish_stream(id, Bytes::new());
            }
            media::Event::Ended(failure) => {
                let ending = match failure {
                    Some(failure) => Ending::Failed(failure.clone()),
                    None => Ending::EndOfStream,
                };
                self.channel_ended(id, "a media channel", ending);
            }
            _ => {}
        }
    }

    /// The orchestrator at work is given up: another one starts the stream, if it may.
    pub(super) fn lose_session(&mut self, id: JobId, cause: Cause) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let State::Running(running) = &stream.state else {
            return;
        };
        let cause = match running.last_error(now) {
            Some(text) => Cause::Ended(text.to_string()),
            None => cause,
        };
        let url = running.url.clone();
        let goes_on = stream.input_open && stream.limit.allow(now);
        stream.swaps += u32::from(goes_on);
        self.note(&url, false);
        let failure = Failure::new(Party::Orchestrator(url.clone()), cause.clone());
        self.leave_session(id, Some(What::Farewell));
        self.tell_stream(id, StreamEvent::Lost(url.clone(), failure));
        match goes_on {
            true => self.start_stream(id),
            false => self.end_stream(id, Err(Box::new(Failed::Broken { url, cause }))),
        }
    }

    /// Leaves the orchestrator at work: its channels are closed, what it did is paid, and it is asked to stop if `what` says
    /// so.
    pub(super) fn leave_session(&mut self, id: JobId, what: Option<What>) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !matches!(stream.state, State::Running(_)) {
            return;
        }
        let State::Running(running) = core::mem::replace(&mut stream.state, State::Undoing) else {
            return;
        };
        let Running {
            session,
            url,
            token,
            header,
            mut control,
            mut events,
            mut bill,
            ..
        } = *running;
        events.get_mut().close(now);
        events.drain(&mut self.out, |_| ());
        control.get_mut().close(now);
        stream.leaving.push(control);
        bill.abort(&mut self.out);
        if let Some((payment, since)) = bill.held() {
            let took = now.since(since).as_nanos().div_ceil(1_000_000_000);
            let seconds = u64::try_from(took).unwrap_or(u64::MAX);
            self.settle(&url, payment, Delivered::Used(seconds));
        }
        if let Some(payment) = bill.open() {
            self.settle(&url, payment, Delivered::Unknown);
        }
        self.tell_stream(id, StreamEvent::Left(session));
        if let Some(what) = what {
            self.ask_stop(id, &token.service, header, what);
        }
    }
}
