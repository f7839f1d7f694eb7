//! A live session: its channels, its pipeline, its runner's messages and its clock.
//!
//! ```text
//!             input channel gone, unpaid, owner              readers of the output have it all,
//!  Running ───────────────────────────────────▶ Draining ─── or LINGER, or MAX_LINGER ──▶ (gone)
//!     │  pipeline flushed, place given back        output still readable, then events and control go
//!     └── unpaid, output deleted ──────────────────────────────────────────────────────▶ (gone)
//! ```
//!
//! The reference deletes the output together with the input; a reader that is one segment behind then loses the
//! tail of the stream. Draining is ours.

use std::time::Duration;

use livepeer_core::trickle::message::Messages;
use livepeer_core::trickle::server::{Read, ReaderId, Refused};
use livepeer_core::trickle::{ContentType, Seq, Server, Start};
use livepeer_core::wire::Params;
use livepeer_core::{Address, Time};

use super::config::Quirks;
use super::event::EndReason;
use super::pipeline::Pipeline;
use super::wire::{self, Names, Status};

/// The runner tells its status this often, and half-way between that it is alive.
pub const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Without readers the output goes this long after the last segment.
pub const LINGER: Duration = Duration::from_secs(2);

/// Readers who wait for more than there will be have all of it. A reader who has just got a segment needs about a
/// round trip to ask for the next one, so everybody has to wait for this long.
pub const DRAINED_AFTER: Duration = Duration::from_millis(300);

/// However slowly somebody reads, the output goes after this.
pub const MAX_LINGER: Duration = Duration::from_secs(30);

/// How often a draining output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Session {
    pub(super) manifest_id: String,
    pub(super) payer: Address,
    pub(super) model: String,
    names: Names,
    pipeline: Box<dyn Pipeline>,
    /// `None` until the runner has joined.
    input: Option<ReaderId>,
    /// When the runner joins, and at which segment, while it has not.
    joins: Option<(Time, Start)>,
    control: ReaderId,
    /// The input segment that is read, or comes next.
    at: Seq,
    /// Whether later ones had begun already when the runner last spoke.
    overtaken: bool,
    messages: Messages,
    output: Segment,
    status: Status,
    next_status: Time,
    next_heartbeat: Time,
    drain: Option<Drain>,
}

/// State of the output segment that belongs to the input's.
///
/// The output segment begins with its first byte: publishers end with a segment without any, and readers should not
/// see one more than there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Segment {
    #[default]
    None,
    Due,
    Open,
    Dropped,
}

/// The event that says why a session is cut off may follow another at once: a reader that is one behind would lose it
/// to the channel's end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A finished session whose output may still be read.
#[derive(Debug)]
struct Drain {
    until: Time,
    /// Since when nobody has been reading, and since when nobody but waiters.
    deserted: Option<Time>,
    drained: Option<Time>,
    output_gone: Option<Time>,
    /// How much longer than the output events and control last.
    words: Duration,
    next_look: Time,
}

/// Everything that a session needs to begin.
pub(super) struct Plan {
    pub(super) manifest_id: String,
    pub(super) payer: Address,
    pub(super) model: String,
    pub(super) params: Option<Params>,
    pub(super) pipeline: Box<dyn Pipeline>,
    /// When the runner joins, and at which segment.
    pub(super) joins: (Time, Start),
}

impl Session {
    /// Makes the channels.
    pub(super) fn begin(now: Time, mut plan: Plan, server: &mut Server) -> Result<Self, Refused> {
        let names = Names::of(&plan.manifest_id);
        for (name, content) in [
            (&names.input, ContentType::MPEG_TS),
            (&names.output, ContentType::MPEG_TS),
            (&names.control, ContentType::JSON),
            (&names.events, ContentType::JSON),
        ] {
            server.create_channel(now, name, content.into())?;
        }
        let control = server.subscribe(now, &names.control, Start::Next)?;
        if let Some(params) = &plan.params {
            plan.pipeline.update(params);
        }
        Ok(Self {
            status: Status {
                model: plan.model.clone(),
                started: now,
                params_updated: plan.params.as_ref().map(|_| now),
                last_params: plan.params,
                ..Status::default()
            },
            manifest_id: plan.manifest_id,
            payer: plan.payer,
            model: plan.model,
            names,
            pipeline: plan.pipeline,
            input: None,
            joins: Some(plan.joins),
            control,
            at: Seq::ZERO,
            overtaken: false,
            messages: Messages::default(),
            output: Segment::None,
            next_status: now,
            next_heartbeat: now + STATUS_EVERY / 2,
            drain: None,
        })
    }

    pub(super) const fn names(&self) -> &Names {
        &self.names
    }

    pub(super) const fn is_running(&self) -> bool {
        self.drain.is_none()
    }

    /// Whether any input came yet.
    pub(super) const fn is_fed(&self) -> bool {
        self.status.last_input.is_some()
    }

    /// Whether that reader is one of its own.
    pub(super) fn reads(&self, reader: ReaderId) -> bool {
        self.input == Some(reader) || reader == self.control
    }

    /// The time at which the session wants to be looked at.
    pub(super) fn wake(&self) -> Time {
        match &self.drain {
            Some(drain) => drain.next_look,
            None => {
                let joins = self.joins.map_or(Time::MAX, |(at, _)| at);
                self.next_status.min(self.next_heartbeat).min(joins)
            }
        }
    }

    /// Takes in what the input channel has, and puts out what comes of it. True once the channel is over.
    pub(super) fn pump(&mut self, now: Time, server: &mut Server, quirks: &Quirks) -> bool {
        let Some(input) = self.input.filter(|_| self.is_running()) else {
            return false;
        };
        loop {
            match server.read(now, input) {
                Read::Begin(seq, _) => {
                    self.at = seq;
                    self.overtaken = false;
                    self.pipeline.begin(seq.get());
                    self.output = if quirks.no_output {
                        Segment::Dropped
                    } else {
                        Segment::Due
                    };
                }
                Read::Data(_, bytes) => {
                    self.status.last_input = Some(now);
                    let bytes = self.pipeline.data(&bytes);
                    self.put(now, server, bytes);
                }
                Read::End(seq) => {
                    self.at = seq.next();
                    self.end_segment(now, server);
                }
                Read::Pending => return false,
                Read::Ended => return true,
                // Segments that the publisher skipped, or a publisher that began anew: the output goes on.
                _ => {}
            }
        }
    }

    fn put(&mut self, now: Time, server: &mut Server, bytes: bytes::Bytes) {
        if bytes.is_empty() || matches!(self.output, Segment::None | Segment::Dropped) {
            return;
        }
        let output = &self.names.output;
        let open = self.output == Segment::Open || server.begin(now, output).is_ok();
        // A reader may delete a segment, which closes it; the rest of it is dropped then.
        self.output = if open && server.write(now, output, bytes).is_ok() {
            Segment::Open
        } else {
            Segment::Dropped
        };
        self.status.last_output = Some(now);
    }

    fn end_segment(&mut self, now: Time, server: &mut Server) {
        let rest = self.pipeline.end();
        self.put(now, server, rest);
        if std::mem::take(&mut self.output) == Segment::Open {
            // The only error is a channel that is gone, and then there is nothing to end.
            let _ = server.end(now, &self.names.output);
        }
    }

    /// Goes on where the input is, if it waits for a segment that the publisher left out: later ones have begun
    /// for longer than a heartbeat. True if it did.
    fn catch_up(&mut self, now: Time, server: &mut Server) -> bool {
        if self.input.is_none() {
            return false;
        }
        let head = server
            .stats(&self.names.input)
            .map_or(Seq::ZERO, |stats| stats.head);
        let overtaken = self.output == Segment::None && head > self.at.next();
        if !overtaken || !std::mem::replace(&mut self.overtaken, overtaken) {
            self.overtaken = overtaken;
            return false;
        }
        let Ok(reader) = server.subscribe(now, &self.names.input, Start::Current) else {
            return false;
        };
        if let Some(before) = self.input.replace(reader) {
            server.unsubscribe(before);
        }
        self.at = head.minus(1);
        self.overtaken = false;
        true
    }

    /// Takes in what the gateway says.
    pub(super) fn listen(&mut self, now: Time, server: &mut Server, quirks: &Quirks) {
        loop {
            match server.read(now, self.control) {
                Read::Begin(..) => self.messages.begin(),
                Read::Data(_, bytes) => self.messages.data(&bytes),
                Read::End(_) => {
                    let said = match self.messages.end() {
                        Ok(None) => continue,
                        Ok(Some(said)) => std::str::from_utf8(&said)
                            .map_err(|_| "model parameters: not UTF-8".to_owned())
                            .and_then(|text| Params::parse(text).map_err(|err| err.to_string())),
                        Err(err) => Err(err.to_string()),
                    };
                    match said {
                        Ok(params) => {
                            self.pipeline.update(&params);
                            self.status.last_params = Some(params);
                            self.status.params_updated = Some(now);
                            let event = self.status.params_event(now);
                            self.tell(now, server, quirks, event);
                        }
                        Err(text) => {
                            let event = wire::error_event(now, &self.model, &text);
                            self.status.last_error = Some((now, text));
                            self.tell(now, server, quirks, event);
                        }
                    }
                }
                Read::Pending | Read::Ended => return,
                _ => {}
            }
        }
    }

    fn tell(&self, now: Time, server: &mut Server, quirks: &Quirks, event: bytes::Bytes) {
        if !quirks.no_events {
            // A gateway that deleted the channel does not want to know.
            let _ = server.publish(now, &self.names.events, event);
        }
    }

    /// Lets the runner read the input, if it is time to. True if it does from now on.
    pub(super) fn join(&mut self, now: Time, server: &mut Server) -> bool {
        let Some((_, from)) = self.joins.take_if(|(at, _)| *at <= now) else {
            return false;
        };
        let head = server
            .stats(&self.names.input)
            .map_or(Seq::ZERO, |stats| stats.head);
        self.at = match from {
            Start::Next => head,
            Start::Current => head.minus(1),
            Start::At(seq) => seq,
        };
        // The only error is a channel that is gone, and then there is nothing to read.
        self.input = server.subscribe(now, &self.names.input, from).ok();
        self.input.is_some()
    }

    /// Speaks if it is time to. True if there is input to take in again.
    pub(super) fn speak(&mut self, now: Time, server: &mut Server, quirks: &Quirks) -> bool {
        let due = self.next_status.min(self.next_heartbeat) <= now;
        if self.next_status <= now {
            let event = self.status.event(now, STATUS_EVERY);
            self.tell(now, server, quirks, event);
            self.status.last_status = Some(now);
            self.next_status = now + STATUS_EVERY;
        }
        if self.next_heartbeat <= now {
            self.tell(now, server, quirks, wire::heartbeat_event(now));
            self.next_heartbeat = now + STATUS_EVERY;
        }
        due && self.is_running() && self.catch_up(now, server)
    }

    /// Stops working. The output drains, unless the reason is one that nobody waits for the end of.
    pub(super) fn end(&mut self, now: Time, why: &EndReason, server: &mut Server, quirks: &Quirks) {
        if !self.is_running() {
            return;
        }
        if let EndReason::Unpaid(text) = why {
            let event = wire::error_event(now, &self.model, text);
            self.tell(now, server, quirks, event);
        }
        if self.output != Segment::None {
            self.end_segment(now, server);
        }
        if let Some(input) = self.input.take() {
            server.unsubscribe(input);
        }
        server.unsubscribe(self.control);
        server.delete_channel(now, &self.names.input);
        let (linger, words) = match why {
            EndReason::Unpaid(_) => (Duration::ZERO, LAST_WORDS),
            EndReason::OutputClosed => (Duration::ZERO, Duration::ZERO),
            _ => (MAX_LINGER, DRAINED_AFTER),
        };
        self.drain = Some(Drain {
            until: now + linger,
            deserted: None,
            drained: None,
            output_gone: None,
            words,
            next_look: now,
        });
    }

    /// Looks whether somebody still wants the output, and deletes it if not. Events and control follow a little
    /// later: gateways take their end for the end of the session. True once all are gone.
    pub(super) fn drained(&mut self, now: Time, server: &mut Server) -> bool {
        let Some(drain) = &mut self.drain else {
            return false;
        };
        drain.next_look = now + LOOK_EVERY;
        if drain.output_gone.is_none() {
            if let Some(stats) = server.stats(&self.names.output) {
                let all_wait = stats.guests > 0 && stats.guests == stats.waiting;
                drain.deserted = (stats.guests == 0).then(|| drain.deserted.unwrap_or(now));
                drain.drained = all_wait.then(|| drain.drained.unwrap_or(now));
                let wanted = drain.until > now
                    && drain.deserted.is_none_or(|since| since + LINGER > now)
                    && drain
                        .drained
                        .is_none_or(|since| since + DRAINED_AFTER > now);
                if wanted {
                    return false;
                }
                server.delete_channel(now, &self.names.output);
            }
            drain.output_gone = Some(now);
        }
        let over = drain
            .output_gone
            .is_some_and(|since| since + drain.words <= now);
        if over {
            server.delete_channel(now, &self.names.control);
            server.delete_channel(now, &self.names.events);
        }
        over
    }
}
