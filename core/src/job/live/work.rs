//! A job at work: its control and events channels, and the watch over silence.

use core::time::Duration;

use bytes::Bytes;

use super::{Event, LiveVideoJob, Message, Running, State};
use crate::error::Cause;
use crate::time::Time;
use crate::trickle::{self, Ending as ChannelEnding};
use crate::wire::{EventContext, KEEP_ALIVE, RunnerEvent, cut};

/// What the channel on which a runner speaks is called in errors.
const EVENTS: &str = "the events channel";

/// For so long after a channel was closed the runner may still say why.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(250);

/// An error that the runner told of this long before a channel was closed may be why.
const RECENT: Duration = Duration::from_secs(2);

impl Running {
    /// What the runner complained of just now.
    fn last_error(&self, now: Time) -> Option<&str> {
        let (at, text) = self.last_error.as_ref()?;
        (now.since(*at) <= RECENT).then_some(text.as_str())
    }

    /// When the input will have stood still for too long. What is over does not stand still.
    pub(super) fn stalls_at(&self, after: Duration) -> Option<Time> {
        let since = self.input_waits.filter(|_| self.drain_until.is_none())?;
        Some(since + after)
    }

    /// Sends the next control message once the one before it is delivered.
    pub(super) fn send_next(&mut self, now: Time) {
        if self.on_its_way.is_some() || (self.backlog.is_empty() && !self.keep_alive_due) {
            return;
        }
        let control = self.control.get_mut();
        if control.begin(now).is_err() {
            // Not ready yet, or ended; it will say which.
            return;
        }
        let (kind, message) = match self.backlog.pop_front() {
            Some(message) => (Message::Params, message),
            None => (
                Message::KeepAlive,
                Bytes::from_static(KEEP_ALIVE.as_bytes()),
            ),
        };
        // Parameters keep a channel as much alive.
        self.keep_alive_due = false;
        // One small message into an empty queue: there is room, or the channel has ended and says so.
        let _ = control.write(now, message.clone());
        let _ = control.end(now);
        self.on_its_way = Some((kind, message));
    }
}

impl LiveVideoJob {
    pub(super) fn on_control(&mut self, event: trickle::publisher::Event) {
        match (&mut self.state, event) {
            (State::Running(running), trickle::publisher::Event::Delivered(_)) => {
                if let Some((Message::Params, _)) = running.on_its_way.take() {
                    self.out.event(Event::Updated);
                }
            }
            (State::Running(running), trickle::publisher::Event::Lost(..)) => {
                // The publisher bounds how often; then it closes.
                if let Some((Message::Params, message)) = running.on_its_way.take() {
                    running.backlog.push_front(message);
                }
            }
            (State::Running(_), trickle::publisher::Event::Closed(ending)) => {
                self.channel_gone("the control channel", ending)
            }
            _ => {}
        }
    }

    pub(super) fn on_events(&mut self, event: trickle::subscriber::Event) {
        use trickle::subscriber::Event as Read;
        let State::Running(running) = &mut self.state else {
            return;
        };
        let message = match event {
            Read::Begin(..) => {
                running.message.begin();
                return;
            }
            Read::Data(_, data) => {
                running.message.data(&data);
                return;
            }
            Read::End(_) => running.message.end(),
            Read::Truncated(..) => {
                let _ = running.message.truncated();
                return;
            }
            Read::Closed(ending) => {
                self.channel_gone(EVENTS, ending);
                return;
            }
            _ => return,
        };
        // Garbage and empty segments are skipped, and are no sign of life (jobs spec 13).
        let Ok(Some(message)) = message else { return };
        let context = self.context();
        let Ok(event) = RunnerEvent::parse(&message, &context) else {
            return;
        };
        let State::Running(running) = &mut self.state else {
            return;
        };
        running.last_event = self.now;
        if let Some(text) = event.error() {
            running.last_error = Some((self.now, cut(text).into()));
        }
        let its_last = running.gone.is_some();
        let event = if event.is_status() {
            let merged = event.merged_over(self.status.as_ref());
            self.status = Some(merged.clone());
            merged
        } else {
            event
        };
        self.out.event(Event::Runner(event));
        if its_last {
            self.lose_ended();
        }
    }

    /// What is added to every event of the runner.
    pub(super) fn context(&self) -> EventContext {
        let mut context = EventContext::default();
        if let Some(id) = &self.request.stream_id {
            context.add("stream_id", id);
        }
        if let Some(id) = &self.request.request_id {
            context.add("request_id", id);
        }
        if let Some(serving) = &self.serving {
            context.add_orchestrator(serving.lease.info.address, serving.lease.url());
        }
        context
    }

    /// A channel of the job ended. Once the input is over that is how it should be.
    pub(super) fn channel_gone(&mut self, what: &'static str, ending: ChannelEnding) {
        if matches!(&self.state, State::Running(running) if running.drain_until.is_some()) {
            return;
        }
        match ending {
            ChannelEnding::Failed(failure) => self.lose(failure.cause),
            _ => self.gone(what),
        }
    }

    /// The orchestrator has closed a channel. Why comes on another connection, if it comes.
    pub(super) fn gone(&mut self, what: &'static str) {
        let State::Running(running) = &mut self.state else {
            return;
        };
        let no_more_words = what == EVENTS || running.last_error(self.now).is_some();
        let (_, until) = *running.gone.get_or_insert((what, self.now + LAST_WORDS));
        if no_more_words || until <= self.now {
            self.lose_ended();
        }
    }

    /// Nothing more will be said of why the orchestrator closed a channel.
    pub(super) fn lose_ended(&mut self) {
        let State::Running(running) = &self.state else {
            return;
        };
        let cause = match (running.last_error(self.now), running.gone) {
            (Some(text), _) => Cause::Ended(text.into()),
            (None, Some((what, _))) => Cause::Gone(what),
            (None, None) => return,
        };
        self.lose(cause);
    }

    /// Looks for silence.
    pub(super) fn watch(&mut self) {
        let State::Running(running) = &self.state else {
            return;
        };
        if running.drain_until.is_some() {
            return;
        }
        let limit = self.config.output_silence;
        if self.now.since(running.last_event) > self.config.event_silence {
            self.lose(Cause::Silent {
                what: "events",
                after: self.config.event_silence,
            });
        } else if self.now.since(running.last_output) > limit
            && self.now.since(running.last_input) < limit / 2
        {
            self.lose(Cause::Silent {
                what: "output",
                after: limit,
            });
        }
    }
}
