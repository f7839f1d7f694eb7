//! A job at work: its control and events channels, and the watch over silence.

use core::time::Duration;

use bytes::Bytes;

use super::media::Owed;
use super::{Ending, Event, LiveVideoJob, Running, State};
use crate::error::Cause;
use crate::time::Time;
use crate::trickle::{self, Ending as ChannelEnding};
use crate::wire::{EventContext, KEEP_ALIVE, RunnerEvent, cut};

/// How long after a channel was closed the runner may still say why, and other channels may follow.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// An error that the runner told of this long before a channel was closed may be why.
const RECENT: Duration = Duration::from_secs(2);

/// A wake-up that comes this much too late tells of a busy machine: what peers said meanwhile is still to be read.
pub(super) const LATE: Duration = Duration::from_millis(100);

/// A kind of channel of a job; the one whose end tells most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Media,
    Control,
    Events,
}

impl Channel {
    const ALL: [Self; 3] = [Self::Media, Self::Control, Self::Events];

    /// The channel's name in errors.
    const fn name(self) -> &'static str {
        match self {
            Self::Media => "a media channel",
            Self::Control => "the control channel",
            Self::Events => "the events channel",
        }
    }
}

/// The end of a session at the orchestrator, as far as it was seen.
///
/// An orchestrator closes all channels of a session, and says why on one of them. Which of these signs arrives first
/// is chance, so they are judged together: when all are there, when the runner has said why, or when [`LAST_WORDS`]
/// have passed.
#[derive(Debug)]
pub(super) struct Closing {
    closed: [bool; Channel::ALL.len()],
    until: Time,
    prolonged: bool,
}

impl Closing {
    const fn new(until: Time) -> Self {
        Self {
            closed: [false; Channel::ALL.len()],
            until,
            prolonged: false,
        }
    }

    /// When it is judged, at the latest.
    pub(super) const fn until(&self) -> Time {
        self.until
    }

    fn is_complete(&self) -> bool {
        self.closed.iter().all(|closed| *closed)
    }

    /// The end that tells most.
    fn telling(&self) -> Option<Channel> {
        let closed = |channel: &Channel| self.closed[*channel as usize];
        Channel::ALL.into_iter().find(closed)
    }

    /// Whether it is time to judge. Time that passed while this side was held up does not count.
    pub(super) fn is_over(&mut self, now: Time) -> bool {
        if now < self.until {
            return false;
        }
        if self.prolonged || now.since(self.until) < LATE {
            return true;
        }
        self.prolonged = true;
        self.until = now + LAST_WORDS;
        false
    }
}

impl Running {
    /// The last complaint of the runner, if it is recent.
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
        let update = self.backlog.pop_front();
        let keep_alive = || Bytes::from_static(KEEP_ALIVE.as_bytes());
        let message = update
            .as_ref()
            .map_or_else(keep_alive, |update| update.message.clone());
        // Parameters keep a channel as much alive.
        self.keep_alive_due = false;
        // One small message into an empty queue: there is room, or the channel has ended and says so.
        let _ = control.write(now, message);
        let _ = control.end(now);
        self.on_its_way = Some(update);
    }
}

impl LiveVideoJob {
    pub(super) fn on_control(&mut self, event: trickle::publisher::Event) {
        match (&mut self.seat.state, event) {
            (State::Running(running), trickle::publisher::Event::Delivered(_)) => {
                if let Some(Some(update)) = running.on_its_way.take() {
                    running.updated = update.number;
                    self.out.event(Event::Updated);
                }
            }
            (State::Running(running), trickle::publisher::Event::Lost(..)) => {
                // The publisher bounds how often; then it closes.
                if let Some(Some(update)) = running.on_its_way.take() {
                    running.backlog.push_front(update);
                }
            }
            (State::Running(_), trickle::publisher::Event::Closed(ending)) => {
                self.channel_ended(Channel::Control, ending);
            }
            _ => {}
        }
    }

    pub(super) fn on_events(&mut self, event: trickle::subscriber::Event) {
        use trickle::subscriber::Event as Read;
        let State::Running(running) = &mut self.seat.state else {
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
                self.channel_ended(Channel::Events, ending);
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
        let State::Running(running) = &mut self.seat.state else {
            return;
        };
        running.last_event = self.now;
        if let Some(text) = event.error() {
            running.last_error = Some((self.now, cut(text).into()));
        }
        let says_why = event.error().is_some() && running.closing.is_some();
        if event.is_loading() {
            running.last_loading = Some(self.now);
        }
        if self.is_beside {
            // Its words are its own until it works.
            return;
        }
        let event = if event.is_status() {
            let merged = event.merged_over(self.status.as_ref());
            self.status = Some(merged.clone());
            merged
        } else {
            event
        };
        self.out.event(Event::Runner(event));
        if says_why {
            self.judge_end();
        }
    }

    /// The context that is added to every event of the runner.
    pub(super) fn context(&self) -> EventContext {
        let mut context = EventContext::default();
        if let Some(id) = &self.request.stream_id {
            context.add("stream_id", id);
        }
        if let Some(id) = &self.request.request_id {
            context.add("request_id", id);
        }
        if let Some(hire) = &self.seat.hire {
            let lease = hire.lease();
            context.add_orchestrator(lease.info.address, lease.url());
        }
        context
    }

    /// A channel beside the stream ended. Once the input is over that is how it should be.
    fn channel_ended(&mut self, channel: Channel, ending: ChannelEnding) {
        if matches!(&self.seat.state, State::Running(running) if running.drain_until.is_some()) {
            return;
        }
        match ending {
            ChannelEnding::Failed(failure) => self.channel_failed(channel, failure.cause),
            _ => self.channel_closed(channel),
        }
    }

    /// A channel cannot be used any more. What the orchestrator said or closed before tells more than a link that
    /// broke after it.
    pub(super) fn channel_failed(&mut self, channel: Channel, cause: Cause) {
        let State::Running(running) = &self.seat.state else {
            return;
        };
        if let Cause::Gone(_) = cause {
            self.channel_closed(channel);
        } else if running.closing.is_some() || running.last_error(self.now).is_some() {
            self.judge_end();
        } else {
            self.lose(cause);
        }
    }

    /// The orchestrator has closed a channel. Why comes on another connection, if it comes.
    pub(super) fn channel_closed(&mut self, channel: Channel) {
        let State::Running(running) = &mut self.seat.state else {
            return;
        };
        if self.is_beside {
            return self.lose(Cause::Gone(channel.name()));
        }
        let until = self.now + LAST_WORDS;
        let closing = running.closing.get_or_insert(Closing::new(until));
        closing.closed[channel as usize] = true;
        if closing.is_complete() || running.last_error(self.now).is_some() {
            self.judge_end();
        }
    }

    /// The session has ended at the orchestrator: says why as well as that is known.
    pub(super) fn judge_end(&mut self) {
        let State::Running(running) = &self.seat.state else {
            return;
        };
        let closed = running.closing.as_ref().and_then(Closing::telling);
        let cause = match (running.last_error(self.now), closed) {
            (Some(text), _) => Cause::Ended(text.into()),
            (None, Some(channel)) => Cause::Gone(channel.name()),
            (None, None) => return,
        };
        self.lose(cause);
    }

    /// The output stands still after the input has ended. A model that still speaks returns no more than it did; an
    /// orchestrator without any sign of life is left, and what it owes is made by another.
    pub(super) fn end_drain(&mut self) {
        let State::Running(running) = &self.seat.state else {
            return;
        };
        let after = self.config.drain_within;
        if self.owed == Owed::Something && self.now.since(running.last_event) >= after {
            self.lose(Cause::Silent {
                what: "output",
                after,
            });
        } else {
            self.finish(Ending::Finished);
        }
    }

    /// Looks for silence.
    pub(super) fn watch(&mut self) {
        let State::Running(running) = &self.seat.state else {
            return;
        };
        if running.drain_until.is_some() {
            return;
        }
        if self.now.since(running.last_event) > self.config.event_silence {
            self.lose(Cause::Silent {
                what: "events",
                after: self.config.event_silence,
            });
        } else if self.output_read
            && self.now.since(running.last_input) < self.config.output_silence / 2
            && let Some(after) = self.hangs(running)
        {
            self.lose(Cause::Silent {
                what: "output",
                after,
            });
        }
    }

    /// The limit that silence of the output has passed, if it has. A model that is loading is given more time.
    fn hangs(&self, running: &Running) -> Option<Duration> {
        let plain = self.config.output_silence;
        let silent = self.now.since(running.last_output);
        let Some(loading) = running.last_loading else {
            return (silent > plain).then_some(plain);
        };
        let most = self.config.loading_silence.max(plain);
        let unexcused = self.now.since(loading.max(running.last_output));
        (silent > most)
            .then_some(most)
            .or((unexcused > plain).then_some(plain))
    }
}
