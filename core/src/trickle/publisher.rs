//! The publisher: writes one channel, segment after segment, and loses none that it was not told to lose.
//!
//! ```text
//!              GET next                200, head L: seq L, else seq 0 after bounded tries
//!   Probing ──────────────▶ (answer) ─────────────────────────────────────────────────▶ Ready
//!      │ 404, may create                                                                 │ close
//!      ▼                       200                                                       ▼
//!   Creating ─────────────────────────────────────────────────────────▶ Ready         Draining
//!      │ refused                                                                         │ all answered, or late
//!      ▼                                                                                 ▼
//!   Ended ◀── 404, Closed, failure budget ── Ready, Draining, Lingering               Lingering
//!                                                                                        │ linger since the last
//!                                                                                        ▼ answer is over
//!                                                                                     Deleting ──▶ Ended
//! ```
//!
//! A segment: `Warm` (POST out, no byte) ─▶ `Posting` ─▶ `Ending` ─▶ *Delivered*; a broken connection leads back to
//! a new POST if no byte left, else to a recovery ([how](self#recovery)) and on; anything else is *Lost*.
//!
//! # Recovery
//!
//! A segment stays in memory until it is answered. When its connection breaks after bytes went out, the publisher
//! reads back what the server holds, compares it with what was sent, and continues there with a second POST to the
//! same seq. It goes on reading along, so that bytes of the broken request which arrive late after all are reported
//! and not papered over. Meanwhile later segments wait. Servers need no extension for this.

mod compare;
mod control;
mod idle;
mod recovery;
mod upload;

use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::{ContentType, Ending, Seq, WINDOW};
use crate::error::{Cause, Failure, Misuse};
use crate::http::{Method, Protocol, Request, Trust, Url};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
pub use idle::Idle;
use upload::Upload;

/// Exchanges of which nothing but the end is awaited, at a time: DELETEs of given-up segments, and answers that their
/// head told all of. More DELETEs are not sent, more answers are not read to their end.
pub const MAX_ERRANDS: usize = 16;

/// How long an answer that its head told all of may take to end. Servers answer segments with a few bytes at most.
pub const ANSWER_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long a channel outlives its last delivery. DELETE ends it for readers too: one that is a segment behind and
/// asks for the last one after that gets a 404. The Go gateway's subscriber is, whenever the disk or the decoder
/// behind it holds it up; it catches up within a few round trips.
pub const LINGER: Duration = Duration::from_millis(500);

/// Names what was refused when a server makes no channel for us, in [`Cause::Refused`].
pub const CREATING: &str = "to create the channel";

/// How a publisher behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The media type sent with every POST, and asked for when creating.
    pub content: ContentType,
    /// Where to begin, for a channel that is known to be new: then it is not asked, which saves a round trip.
    pub first: Option<Seq>,
    /// Whether to create the channel if it does not exist.
    pub create: bool,
    /// Whether [`Publisher::close`] deletes the channel.
    pub delete: bool,
    /// Certificates that are good enough for an `https` channel: the first one seen, as orchestrators sign their own. With
    /// [`Trust::Public`] a channel at one ends at once.
    pub trust: Trust,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// The rule for what to give up when the server takes less than the owner gives.
    pub policy: Policy,
    /// Segments begun and unanswered at a time, at least 1. The Go gateway calls a server slow at 3.
    pub max_in_flight: usize,
    /// Bytes taken and not yet handed to the transport, over all segments. One larger write is taken if none wait.
    pub max_unsent_bytes: usize,
    /// At most this many bytes of each segment are kept after they were sent. A longer segment can be continued but not
    /// repeated, since its beginning is only recognised.
    pub replay_bytes: usize,
    /// How long to wait for an answer to the question where to begin.
    pub probe_within: Duration,
    /// How many times the head is asked for before it is taken to be zero.
    pub probes: u32,
    /// A connection that takes no byte for this long is dead.
    pub stall_within: Duration,
    /// How long to wait for the answer to a complete segment; servers answer at once.
    pub answer_within: Duration,
    /// A segment that has moved nowhere for this long is lost.
    pub recover_within: Duration,
    /// How long a server has to be silent about a segment's bytes to be believed that it has no more.
    pub quiet: Duration,
    /// How to react to silence, on channels whose readers or servers give up on it; `None`: not at all.
    pub idle: Option<Idle>,
    /// How many segments in a row may be lost before the publisher gives up.
    pub max_failures: u32,
    /// How long closing waits for segments' answers.
    pub drain_within: Duration,
    /// How long closing leaves the channel to its readers before it deletes it, counted from the last delivery; an
    /// idle publisher closes at once. Zero is for channels whose last segment nobody needs.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            content: ContentType::new(ContentType::MPEG_TS),
            first: None,
            create: false,
            delete: true,
            trust: Trust::FirstUse,
            protocol: Protocol::Http1,
            policy: Policy::Block,
            max_in_flight: 3,
            max_unsent_bytes: 4 << 20,
            replay_bytes: 16 << 20,
            probe_within: Duration::from_secs(5),
            probes: 3,
            stall_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(10),
            recover_within: Duration::from_secs(10),
            quiet: Duration::from_millis(100),
            idle: None,
            max_failures: 3,
            drain_within: Duration::from_secs(5),
            linger: LINGER,
        }
    }
}

/// The choice of what gives way when there is too much in flight or unsent. Every loss is told by [`Event::Lost`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing gives way: the owner has to wait.
    #[default]
    Block,
    /// The segment that the owner is writing or about to write. One that is dropped before its first byte gives its
    /// number to the next.
    DropNewest,
    /// The oldest unanswered segment.
    DropOldest,
    /// Every unanswered segment but the one being written.
    SkipToLive,
}

/// An event of a publisher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server is known, and the first segment will have this seq.
    Ready(Seq),
    /// After [`Unwritten::Full`] or [`Unbegun::Busy`]: try again.
    Writable,
    /// The server has all of the segment.
    Delivered(Seq),
    /// The connection of a segment broke; the server was found to hold this many bytes of it, and the rest follows.
    Resumed(Seq, u64),
    /// The segment being written was silent for too long and was ended ([`Idle`]): [`Publisher::begin`] another one for
    /// what comes next. What becomes of this one is told as of any other.
    Cut(Seq),
    /// The segment is given up; readers may have seen some of it.
    Lost(Seq, Failure),
    /// The last event.
    Closed(Ending),
}

/// Why [`Publisher::begin`] began nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unbegun {
    /// The first seq is not known yet, or too many segments are unanswered; [`Event::Writable`] follows.
    #[error("not now; wait until it is writable")]
    Busy,
    /// The call does not fit what was called before.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// Why [`Publisher::write`] took nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwritten {
    /// Too much is unsent. Here are the bytes; [`Event::Writable`] follows.
    #[error("too much is unsent; wait until it is writable")]
    Full(Bytes),
    /// The call does not fit what was called before.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// State that the parts of a publisher share.
#[derive(Debug)]
struct Shared {
    out: Outbox<Event>,
    channel: Url,
    config: Config,
    /// Exchanges of which nothing but the end is awaited, and for how long.
    errands: Vec<(EffectId, Time)>,
}

impl Shared {
    /// Lets an exchange end of which nothing more is wanted. Its answer may come to its end, so that the connection can
    /// be used again; one that does not is aborted.
    fn let_end(&mut self, now: Time, id: EffectId) {
        if self.errands.len() < MAX_ERRANDS {
            self.errands.push((id, now + ANSWER_ENDS_WITHIN));
        } else {
            self.out.abort(id);
        }
    }

    fn end_errands(&mut self, now: Time) {
        let out = &mut self.out;
        self.errands.retain(|(id, until)| {
            let wait = *until > now;
            if !wait {
                out.abort(*id);
            }
            wait
        });
    }

    fn base(&self, method: Method, url: Url) -> Request {
        Request::new(method, url)
            .trust(self.config.trust)
            .protocol(self.config.protocol)
    }

    fn request(&self, method: Method, seq: Seq) -> Request {
        self.base(method, self.channel.child(&seq.to_string()))
    }

    fn next_request(&self) -> Request {
        self.base(Method::Get, self.channel.child("next"))
    }

    fn resumed(&mut self, seq: Seq, held: u64) {
        self.out.event(Event::Resumed(seq, held));
    }
}

#[derive(Debug)]
enum State {
    Probing {
        id: Option<EffectId>,
        /// Without a request: when to ask again. With one: when to stop waiting.
        until: Time,
        tries: u32,
    },
    Creating {
        id: EffectId,
        until: Time,
    },
    Ready,
    Draining {
        until: Time,
    },
    /// Everything is answered; readers may be behind.
    Lingering {
        until: Time,
    },
    Deleting {
        id: EffectId,
        until: Time,
    },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    None,
    Writing(Seq),
    /// The segment being written is lost; what is still written of it goes nowhere.
    Discarding,
}

/// Writes one channel. See the [module](self).
#[doc(alias = "TricklePublisher")]
#[derive(Debug)]
pub struct Publisher {
    now: Time,
    shared: Shared,
    state: State,
    /// The seq of the next segment to begin.
    next: Seq,
    /// The next POST begins a run.
    reset: bool,
    /// The uploads in order of seq; the last may be a warm one that nobody has taken.
    uploads: VecDeque<Upload>,
    current: Current,
    /// Asks for the head after the numbering turned out stale.
    reprobe: Option<(EffectId, Time)>,
    failures: u32,
    /// When the owner last began, wrote or ended something, or a keep-alive stood in.
    spoke: Time,
    /// When the server last had all of a segment.
    delivered: Option<Time>,
    /// The channel was seen to exist.
    met: bool,
    wants_begin: bool,
    wants_write: bool,
}

impl Publisher {
    /// A publisher of the channel at that URL; it asks for the head at once. A trailing slash is ignored.
    #[must_use]
    pub fn new(now: Time, config: Config, channel: Url) -> Self {
        let path = channel.path().split('?').next().unwrap_or("/");
        let channel = channel.with_path(match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        });
        let mut publisher = Self {
            now,
            shared: Shared {
                out: Outbox::default(),
                channel,
                config,
                errands: Vec::new(),
            },
            state: State::Ended,
            next: Seq::ZERO,
            reset: true,
            uploads: VecDeque::new(),
            current: Current::None,
            reprobe: None,
            failures: 0,
            spoke: now,
            delivered: None,
            met: false,
            wants_begin: false,
            wants_write: false,
        };
        match publisher.shared.config.first {
            Some(first) => publisher.ready(first),
            None => publisher.probe(1),
        }
        publisher
    }

    /// Begins the next segment. [`Publisher::write`] and [`Publisher::end`] follow.
    ///
    /// # Errors
    /// [`Unbegun::Busy`] until [`Event::Ready`], and under [`Policy::Block`] while too many segments are unanswered;
    /// misuse if the last segment has not ended, or the publisher has.
    pub fn begin(&mut self, now: Time) -> Result<Seq, Unbegun> {
        self.tick(now);
        match self.state {
            State::Ready => {}
            State::Probing { .. } | State::Creating { .. } => {
                self.wants_begin = true;
                return Err(Unbegun::Busy);
            }
            State::Draining { .. }
            | State::Lingering { .. }
            | State::Deleting { .. }
            | State::Ended => return Err(Misuse::Ended.into()),
        }
        if self.current != Current::None {
            return Err(Misuse::StillOpen.into());
        }
        if self.reprobe.is_some() {
            self.wants_begin = true;
            return Err(Unbegun::Busy);
        }
        if self.next == Seq::MAX {
            self.fail(control::numbers_used_up());
            return Err(Misuse::Ended.into());
        }
        let limit = self.shared.config.max_in_flight.max(1);
        if self.is_crowded() {
            match self.shared.config.policy {
                Policy::Block => {
                    self.wants_begin = true;
                    return Err(Unbegun::Busy);
                }
                Policy::DropNewest => {
                    // It never had a byte, so its number is for the next one: a hole would only cost readers a
                    // slot of the window.
                    let failure = self.failure(too_many(limit));
                    self.shared.out.event(Event::Lost(self.next, failure));
                    self.current = Current::Discarding;
                    return Ok(self.next);
                }
                Policy::DropOldest => {
                    while self.is_crowded() {
                        self.drop_first(limit);
                    }
                }
                Policy::SkipToLive => {
                    while self.in_flight() > 0 {
                        self.drop_first(limit);
                    }
                }
            }
        }
        let seq = self.take_warm();
        self.current = Current::Writing(seq);
        Ok(seq)
    }

    /// Begins the segment that the warm request is for, and opens the next one.
    fn take_warm(&mut self) -> Seq {
        self.spoke = self.now;
        self.warm_up();
        let seq = self.next;
        self.next = seq.next();
        if let Some(upload) = self.uploads.back_mut() {
            upload.begin(self.now, &mut self.shared);
        }
        self.warm_up();
        seq
    }

    /// Adds bytes to the segment; readers see them as soon as they arrive. Bytes of a segment that was lost
    /// meanwhile are dropped, as [`Event::Lost`] has told.
    ///
    /// # Errors
    /// [`Unwritten::Full`] under [`Policy::Block`] while too much is unsent; misuse if no segment is begun, as after
    /// [`Event::Cut`].
    pub fn write(&mut self, now: Time, data: Bytes) -> Result<(), Unwritten> {
        self.tick(now);
        let seq = match self.current {
            Current::None => return Err(self.nothing_open().into()),
            Current::Discarding => return Ok(()),
            Current::Writing(seq) => seq,
        };
        if data.is_empty() {
            return Ok(());
        }
        self.spoke = self.now;
        let limit = self.shared.config.max_unsent_bytes;
        while let unsent = self.unsent()
            && unsent > 0
            && unsent + data.len() as u64 > limit as u64
        {
            let too_much = Cause::TooMuch {
                what: "unsent bytes",
                limit,
            };
            match self.shared.config.policy {
                Policy::Block => {
                    self.wants_write = true;
                    return Err(Unwritten::Full(data));
                }
                Policy::DropOldest | Policy::SkipToLive if self.in_flight() > 1 => {
                    self.drop_at(0, too_much);
                }
                Policy::DropNewest | Policy::DropOldest | Policy::SkipToLive => {
                    if let Some(at) = self.uploads.iter().position(|upload| upload.seq == seq) {
                        self.drop_at(at, too_much);
                    }
                    return Ok(());
                }
            }
        }
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.seq == seq) {
            upload.push(data);
        }
        self.feed();
        Ok(())
    }

    /// Ends the segment; [`Event::Delivered`] or [`Event::Lost`] follows, if it was not lost before.
    ///
    /// # Errors
    /// Misuse if no segment is begun, as after [`Event::Cut`].
    pub fn end(&mut self, now: Time) -> Result<(), Misuse> {
        self.tick(now);
        let current = core::mem::replace(&mut self.current, Current::None);
        match current {
            Current::None => return Err(self.nothing_open()),
            Current::Discarding => {}
            Current::Writing(seq) => {
                self.spoke = self.now;
                self.end_segment(seq);
                self.feed();
            }
        }
        Ok(())
    }

    fn end_segment(&mut self, seq: Seq) {
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.seq == seq) {
            upload.ended = true;
        }
    }

    /// Ends the segment being written, waits a bounded time for answers, leaves readers [`Config::linger`] to catch
    /// up and deletes the channel, if so configured, and tells [`Event::Closed`]. Harmless if it was called before.
    pub fn close(&mut self, now: Time) {
        self.tick(now);
        match self.state {
            State::Draining { .. }
            | State::Lingering { .. }
            | State::Deleting { .. }
            | State::Ended => return,
            State::Probing { id: Some(id), .. } | State::Creating { id, .. } => {
                self.shared.out.abort(id);
            }
            State::Probing { id: None, .. } | State::Ready => {}
        }
        if let Current::Writing(seq) = self.current {
            self.end_segment(seq);
        }
        self.current = Current::None;
        self.state = State::Draining {
            until: self.now + self.shared.config.drain_within,
        };
        self.feed();
        self.settle();
    }

    /// Ends it without regard to what is unanswered, which is lost: for a server that was left for another. The
    /// channel is deleted, if so configured.
    pub fn abandon(&mut self, now: Time) {
        self.tick(now);
        match self.state {
            State::Deleting { .. } | State::Ended => return,
            State::Probing { id: Some(id), .. } | State::Creating { id, .. } => {
                self.shared.out.abort(id);
            }
            _ => {}
        }
        self.current = Current::None;
        let begun = |upload: &Upload| upload.begun;
        while let Some(at) = self.uploads.iter().position(begun) {
            self.lose(at, Cause::Gone("the channel"), false);
        }
        if self.shared.config.delete {
            self.state = State::Lingering { until: self.now };
        } else {
            self.finish(Ending::Closed);
        }
        self.settle();
    }

    /// Segments begun and unanswered: three of them mean that the server is slow (trickle spec 6.2-9).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.uploads.iter().filter(|upload| upload.begun).count()
    }

    /// Whether the next segment has to wait: there are too many, or its successor's slot is still needed for the
    /// oldest one.
    fn is_crowded(&self) -> bool {
        let oldest = self.uploads.iter().find(|upload| upload.begun);
        self.in_flight() >= self.shared.config.max_in_flight.max(1)
            || oldest.is_some_and(|oldest| self.next >= oldest.seq.plus(WINDOW as u64 - 1))
    }

    /// Whether [`Event::Closed`] was told, or is what comes next.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes of an unanswered segment that were handed to the transport on a connection that did not break since, or
    /// that the server was found to hold after one broke.
    #[must_use]
    pub fn sent(&self, seq: Seq) -> u64 {
        let upload = self.uploads.iter().find(|upload| upload.seq == seq);
        upload.map_or(0, Upload::sent)
    }

    /// Bytes taken and not yet handed to the transport.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.uploads.iter().map(Upload::unsent).sum()
    }
}

impl Machine for Publisher {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.tick(now);
        if let Input::Http(id, step) = input
            && !id.is_by_peer()
        {
            self.handle_http(id, step);
            self.settle();
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.shared.out.pop() {
            return output;
        }
        let mut wake = match self.state {
            State::Probing { until, .. }
            | State::Creating { until, .. }
            | State::Draining { until }
            | State::Lingering { until }
            | State::Deleting { until, .. } => Some(until),
            State::Ready => None,
            State::Ended => return Output::Idle(None),
        };
        for upload in &self.uploads {
            wake = earlier(wake, upload.wake(&self.shared));
        }
        wake = earlier(wake, self.silent_at());
        wake = earlier(wake, self.reprobe.map(|(_, until)| until));
        for (_, until) in &self.shared.errands {
            wake = earlier(wake, Some(*until));
        }
        // Whatever the configuration's durations are, a driver must not spin.
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}

fn too_many(limit: usize) -> Cause {
    Cause::TooMuch {
        what: "unanswered segments",
        limit,
    }
}
