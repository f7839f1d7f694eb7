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
//!   Ended ◀── 404, Closed, failure budget ── Ready, Draining                          Deleting ──▶ Ended
//! ```
//!
//! One segment: `Warm` (POST out, no byte) ─▶ `Posting` ─▶ `Ending` ─▶ *Delivered*; a broken connection leads back to
//! a new POST if no byte left, else to a recovery ([how](self#recovery)) and on; anything else is *Lost*.
//!
//! # Recovery
//!
//! A segment stays in memory until it is answered. When its connection breaks after bytes went out, the publisher
//! reads back what the server holds, compares it with what was sent, and continues there with a second POST to the
//! same seq. It goes on reading along, so that bytes of the broken request which arrive late after all are reported
//! and not papered over. Meanwhile later segments wait. Servers need no extension for this.

mod recovery;
mod upload;

use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::{ContentType, DELETE_WITHIN, Ending, PAUSE, Seq, headers};
use crate::error::{Cause, Failure, Misuse, Party, Reason};
use crate::http::{Body, Fault, In, Method, Protocol, Request, Response, Trust, Url};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use upload::{Upload, Verdict};

/// DELETEs of given-up segments that may be unanswered at a time; more are not sent.
pub const MAX_ERRANDS: usize = 16;

/// How a publisher behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The media type sent with every POST, and asked for when creating.
    pub content: ContentType,
    /// Whether to create the channel if it does not exist.
    pub create: bool,
    /// Whether [`Publisher::close`] deletes the channel.
    pub delete: bool,
    /// Which certificate is good enough for an `https` channel.
    pub trust: Trust,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// What to give up when the server takes less than the owner gives.
    pub policy: Policy,
    /// Segments begun and unanswered at a time, at least 1. The Go gateway calls a server slow at 3.
    pub max_in_flight: usize,
    /// Bytes taken and not yet handed to the transport, over all segments. One larger write is taken if none wait.
    pub max_unsent_bytes: usize,
    /// Bytes of each segment kept after they were sent. Of a longer one the beginning is only recognised, so that
    /// it can be continued but not repeated.
    pub replay_bytes: usize,
    /// How long to wait for an answer to the question where to begin, and how often to ask.
    pub probe_within: Duration,
    /// See there.
    pub probes: u32,
    /// A connection that takes no byte for this long is dead.
    pub stall_within: Duration,
    /// The same for the answer to a complete segment; servers answer at once.
    pub answer_within: Duration,
    /// A segment that has moved nowhere for this long is lost.
    pub recover_within: Duration,
    /// How long a server has to be silent about a segment's bytes to be believed that it has no more.
    pub quiet: Duration,
    /// How many segments in a row may be lost before the publisher gives up.
    pub max_failures: u32,
    /// How long closing waits for segments' answers.
    pub drain_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            content: ContentType::new(ContentType::MPEG_TS),
            create: false,
            delete: true,
            trust: Trust::Public,
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
            max_failures: 3,
            drain_within: Duration::from_secs(5),
        }
    }
}

/// What gives way when there is too much in flight or unsent. Every loss is told by [`Event::Lost`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: the owner has to wait. Loses nothing.
    #[default]
    Block,
    /// The segment that the owner is writing or about to write.
    DropNewest,
    /// The oldest unanswered segment.
    DropOldest,
    /// Every unanswered segment but the one being written.
    SkipToLive,
}

/// What a publisher tells.
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

#[derive(Debug)]
struct Desk {
    out: Outbox<Event>,
    channel: Url,
    config: Config,
}

impl Desk {
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
#[derive(Debug)]
pub struct Publisher {
    now: Time,
    desk: Desk,
    state: State,
    /// The seq of the next segment to begin.
    next: Seq,
    /// The next POST begins a run.
    reset: bool,
    /// In order of seq; the last may be a warm one that nobody has taken.
    uploads: VecDeque<Upload>,
    current: Current,
    /// Asks for the head after the numbering turned out stale.
    reprobe: Option<(EffectId, Time)>,
    errands: Vec<(EffectId, Time)>,
    failures: u32,
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
            desk: Desk {
                out: Outbox::default(),
                channel,
                config,
            },
            state: State::Ended,
            next: Seq::ZERO,
            reset: true,
            uploads: VecDeque::new(),
            current: Current::None,
            reprobe: None,
            errands: Vec::new(),
            failures: 0,
            met: false,
            wants_begin: false,
            wants_write: false,
        };
        publisher.probe(1);
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
            State::Draining { .. } | State::Deleting { .. } | State::Ended => {
                return Err(Misuse::Ended.into());
            }
        }
        if self.current != Current::None {
            return Err(Misuse::StillOpen.into());
        }
        if self.reprobe.is_some() {
            self.wants_begin = true;
            return Err(Unbegun::Busy);
        }
        let limit = self.desk.config.max_in_flight.max(1);
        let mut discard = false;
        if self.in_flight() >= limit {
            match self.desk.config.policy {
                Policy::Block => {
                    self.wants_begin = true;
                    return Err(Unbegun::Busy);
                }
                Policy::DropNewest => discard = true,
                Policy::DropOldest => self.drop_first(limit),
                Policy::SkipToLive => {
                    while self.in_flight() > 0 {
                        self.drop_first(limit);
                    }
                }
            }
        }
        let now = self.now;
        self.warm_up();
        let seq = self.next;
        self.next = seq.next();
        if let Some(upload) = self.uploads.back_mut() {
            upload.begin(now, &mut self.desk);
        }
        self.current = Current::Writing(seq);
        if discard {
            self.drop_at(self.uploads.len() - 1, too_many(limit));
        }
        self.warm_up();
        Ok(seq)
    }

    /// Adds bytes to the segment; readers see them as soon as they arrive. Bytes of a segment that was lost
    /// meanwhile are dropped, as [`Event::Lost`] has told.
    ///
    /// # Errors
    /// [`Unwritten::Full`] under [`Policy::Block`] while too much is unsent; misuse if no segment is begun.
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
        let limit = self.desk.config.max_unsent_bytes;
        while let unsent = self.unsent()
            && unsent > 0
            && unsent + data.len() as u64 > limit as u64
        {
            let too_much = Cause::TooMuch {
                what: "unsent bytes",
                limit,
            };
            match self.desk.config.policy {
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
    /// Misuse if no segment is begun.
    pub fn end(&mut self, now: Time) -> Result<(), Misuse> {
        self.tick(now);
        let current = core::mem::replace(&mut self.current, Current::None);
        match current {
            Current::None => return Err(self.nothing_open()),
            Current::Discarding => {}
            Current::Writing(seq) => {
                if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.seq == seq) {
                    upload.ended = true;
                }
                self.feed();
            }
        }
        Ok(())
    }

    /// Ends the segment being written, waits a bounded time for answers, deletes the channel if so configured, and
    /// tells [`Event::Closed`]. Harmless if it was called before.
    pub fn close(&mut self, now: Time) {
        self.tick(now);
        match self.state {
            State::Draining { .. } | State::Deleting { .. } | State::Ended => return,
            State::Probing { id: Some(id), .. } | State::Creating { id, .. } => {
                self.desk.out.abort(id);
            }
            State::Probing { id: None, .. } | State::Ready => {}
        }
        if let Current::Writing(seq) = self.current
            && let Some(upload) = self.uploads.iter_mut().find(|upload| upload.seq == seq)
        {
            upload.ended = true;
        }
        self.current = Current::None;
        self.state = State::Draining {
            until: self.now + self.desk.config.drain_within,
        };
        self.feed();
        self.settle();
    }

    /// Segments begun and unanswered: three of them mean that the server is slow (trickle spec 6.2-9).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.uploads.iter().filter(|upload| upload.begun).count()
    }

    /// Bytes taken and not yet handed to the transport.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.uploads.iter().map(Upload::unsent).sum()
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    const fn nothing_open(&self) -> Misuse {
        match self.state {
            State::Draining { .. } | State::Deleting { .. } | State::Ended => Misuse::Ended,
            _ => Misuse::NotOpen,
        }
    }

    fn failure(&self, cause: Cause) -> Failure {
        Failure::new(Party::Channel(self.desk.channel.clone()), cause)
    }

    fn probe(&mut self, tries: u32) {
        let request = self.desk.next_request();
        let id = self.desk.out.request(request);
        self.state = State::Probing {
            id: Some(id),
            until: self.now + self.desk.config.probe_within,
            tries,
        };
    }

    fn probed(&mut self, reply: &Response, tries: u32) {
        match (reply.status, headers::latest(&reply.headers)) {
            (200, Some(latest)) => {
                self.met = true;
                self.ready(latest);
            }
            (404, _) if self.desk.config.create => {
                let mut request = self.desk.base(Method::Post, self.desk.channel.clone());
                if !self.desk.config.content.as_str().is_empty() {
                    request =
                        request.header(headers::EXPECT_CONTENT, self.desk.config.content.as_str());
                }
                let id = self.desk.out.request(request.body(Body::Empty));
                self.state = State::Creating {
                    id,
                    until: self.now + self.desk.config.probe_within,
                };
            }
            (404, _) => self.fail(Cause::Gone("the channel")),
            _ => self.probe_failed(tries),
        }
    }

    fn probe_failed(&mut self, tries: u32) {
        if tries >= self.desk.config.probes {
            // An old server, or none yet: the first segment will tell (trickle spec 6.2-1).
            self.ready(Seq::ZERO);
        } else {
            self.state = State::Probing {
                id: None,
                until: self.now + PAUSE * tries,
                tries: tries + 1,
            };
        }
    }

    fn ready(&mut self, first: Seq) {
        self.state = State::Ready;
        self.next = first;
        self.desk.out.event(Event::Ready(first));
        self.warm_up();
    }

    /// Sees to it that the request for the next segment is out (trickle spec 6.2-3).
    fn warm_up(&mut self) {
        if !matches!(self.state, State::Ready)
            || self.uploads.back().is_some_and(|last| !last.begun)
        {
            return;
        }
        let reset = core::mem::take(&mut self.reset);
        let mut upload = Upload::new(self.now, self.next, reset);
        upload.open(self.now, &mut self.desk);
        self.uploads.push_back(upload);
    }

    /// Hands on what may go: a segment in recovery holds back the later ones.
    fn feed(&mut self) {
        for upload in &mut self.uploads {
            upload.feed(self.now, &mut self.desk);
            if upload.begun && upload.is_recovering() {
                break;
            }
        }
    }

    fn judge(&mut self, seq: Seq, verdict: Verdict) {
        let Some(at) = self.uploads.iter().position(|upload| upload.seq == seq) else {
            return;
        };
        let begun = self.uploads[at].begun;
        match verdict {
            Verdict::Delivered => {
                if let Some(mut upload) = self.uploads.remove(at) {
                    upload.abort(&mut self.desk);
                }
                self.failures = 0;
                self.met = true;
                self.desk.out.event(Event::Delivered(seq));
            }
            Verdict::Gone if matches!(self.state, State::Deleting { .. }) => {
                // Our own DELETE ended the warm POST; its answer is still to come.
                self.uploads.remove(at);
            }
            Verdict::Gone if self.met => self.finish(Ending::EndOfStream),
            Verdict::Gone => self.fail(Cause::Gone("the channel")),
            Verdict::Fatal(cause) => self.fail(cause),
            Verdict::Stale if !begun => {
                // Somebody closed the seq that is next; it is used up. Not at once: a server may do so for ever.
                if let Some(mut upload) = self.uploads.remove(at) {
                    upload.abort(&mut self.desk);
                }
                self.next = seq.next();
                if matches!(self.state, State::Ready) {
                    let mut upload = Upload::new(self.now, self.next, false);
                    upload.rest(self.now);
                    self.uploads.push_back(upload);
                }
            }
            Verdict::Stale => {
                self.lose(at, Cause::Gone("the segment"), false);
                self.ask_anew();
                self.count_failure(Cause::Gone("the segment"));
            }
            Verdict::Lost(cause) => {
                self.lose(at, cause.clone(), true);
                self.count_failure(cause);
            }
        }
    }

    fn count_failure(&mut self, last: Cause) {
        self.failures += 1;
        if self.failures >= self.desk.config.max_failures.max(1) {
            self.fail(Cause::GaveUp {
                what: "a segment",
                times: self.failures,
                last: last.to_string(),
            });
        }
    }

    fn ask_anew(&mut self) {
        if self.reprobe.is_none() && matches!(self.state, State::Ready) {
            let request = self.desk.next_request();
            let id = self.desk.out.request(request);
            self.reprobe = Some((id, self.now + self.desk.config.probe_within));
        }
    }

    fn drop_first(&mut self, limit: usize) {
        self.drop_at(0, too_many(limit));
    }

    /// Gives up a segment by policy: not a failure of the server's.
    fn drop_at(&mut self, at: usize, cause: Cause) {
        self.lose(at, cause, true);
    }

    fn lose(&mut self, at: usize, cause: Cause, close: bool) {
        let Some(mut upload) = self.uploads.remove(at) else {
            return;
        };
        upload.abort(&mut self.desk);
        if self.current == Current::Writing(upload.seq) {
            self.current = Current::Discarding;
        }
        if close && upload.opened && self.errands.len() < MAX_ERRANDS {
            // Readers would hang until the slot is used again (trickle spec 6.2-8).
            let request = self.desk.request(Method::Delete, upload.seq);
            let id = self.desk.out.request(request);
            self.errands.push((id, self.now + DELETE_WITHIN));
        }
        let failure = self.failure(cause);
        self.desk.out.event(Event::Lost(upload.seq, failure));
    }

    fn fail(&mut self, cause: Cause) {
        let failure = self.failure(cause);
        self.finish(Ending::Failed(failure));
    }

    /// The end: everything is aborted, segments without an answer are lost.
    fn finish(&mut self, ending: Ending) {
        if matches!(self.state, State::Ended) {
            return;
        }
        match self.state {
            State::Probing { id: Some(id), .. }
            | State::Creating { id, .. }
            | State::Deleting { id, .. } => self.desk.out.abort(id),
            _ => {}
        }
        self.state = State::Ended;
        while let Some(mut upload) = self.uploads.pop_front() {
            upload.abort(&mut self.desk);
            if upload.begun {
                let cause = match &ending {
                    Ending::Failed(failure) => failure.cause.clone(),
                    Ending::EndOfStream => Cause::Gone("the channel"),
                    Ending::Closed => Cause::TimedOut {
                        doing: "the last segments",
                        after: self.desk.config.drain_within,
                    },
                };
                let failure = self.failure(cause);
                self.desk.out.event(Event::Lost(upload.seq, failure));
            }
        }
        if let Some((id, _)) = self.reprobe.take() {
            self.desk.out.abort(id);
        }
        for (id, _) in core::mem::take(&mut self.errands) {
            self.desk.out.abort(id);
        }
        self.current = Current::None;
        self.desk.out.event(Event::Closed(ending));
    }

    fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.run_timers();
        self.settle();
    }

    fn run_timers(&mut self) {
        let now = self.now;
        match self.state {
            State::Probing { id, until, tries } if until <= now => match id {
                Some(id) => {
                    self.desk.out.abort(id);
                    self.probe_failed(tries);
                }
                None => self.probe(tries),
            },
            State::Creating { id, until } if until <= now => {
                self.desk.out.abort(id);
                self.fail(Cause::TimedOut {
                    doing: "creating the channel",
                    after: self.desk.config.probe_within,
                });
            }
            State::Deleting { until, .. } if until <= now => self.finish(Ending::Closed),
            _ => {}
        }
        let mut verdicts = Vec::new();
        for upload in &mut self.uploads {
            if let Some(verdict) = upload.tick(now, &mut self.desk) {
                verdicts.push((upload.seq, verdict));
            }
        }
        for (seq, verdict) in verdicts {
            self.judge(seq, verdict);
        }
        if let Some((id, until)) = self.reprobe
            && until <= now
        {
            self.desk.out.abort(id);
            self.reprobe = None;
        }
        let out = &mut self.desk.out;
        self.errands.retain(|(id, until)| {
            let wait = *until > now;
            if !wait {
                out.abort(*id);
            }
            wait
        });
    }

    /// What follows from everything else.
    fn settle(&mut self) {
        self.feed();
        if let State::Draining { until } = self.state
            && (self.in_flight() == 0 || until <= self.now)
        {
            if self.desk.config.delete {
                // Before the warm POST ends, or there would be one more empty segment (trickle spec 6.2-11).
                let request = self.desk.base(Method::Delete, self.desk.channel.clone());
                let id = self.desk.out.request(request);
                self.state = State::Deleting {
                    id,
                    until: self.now + DELETE_WITHIN,
                };
            } else {
                self.finish(Ending::Closed);
            }
        }
        if matches!(self.state, State::Ended) {
            return;
        }
        let may_begin = self.wants_begin
            && matches!(self.state, State::Ready)
            && self.reprobe.is_none()
            && self.in_flight() < self.desk.config.max_in_flight.max(1);
        let may_write =
            self.wants_write && self.unsent() <= self.desk.config.max_unsent_bytes as u64 / 2;
        if may_begin || may_write {
            self.wants_begin &= !may_begin;
            self.wants_write &= !may_write;
            self.desk.out.event(Event::Writable);
        }
    }

    fn handle_http(&mut self, id: EffectId, step: In) {
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.owns(id)) {
            let seq = upload.seq;
            if let Some(verdict) = upload.handle(self.now, id, step, &mut self.desk) {
                self.judge(seq, verdict);
            }
            return;
        }
        if let In::Failed(fault @ Fault::CertificateChanged { .. }) = step {
            let ours = match self.state {
                State::Probing { id: own, .. } => own == Some(id),
                State::Creating { id: own, .. } => own == id,
                _ => false,
            };
            if ours {
                self.fail(Cause::Link(fault));
            }
            return;
        }
        match (&self.state, &step) {
            (
                State::Probing {
                    id: Some(own),
                    tries,
                    ..
                },
                In::Reply(reply),
            ) if *own == id => {
                let tries = *tries;
                return self.probed(reply, tries);
            }
            (
                State::Probing {
                    id: Some(own),
                    tries,
                    ..
                },
                In::Failed(_),
            ) if *own == id => {
                let tries = *tries;
                return self.probe_failed(tries);
            }
            (State::Creating { id: own, .. }, In::Reply(reply)) if *own == id => {
                return match reply.status {
                    200 => {
                        self.met = true;
                        self.ready(Seq::ZERO);
                    }
                    status => self.fail(Cause::Refused {
                        doing: "to create the channel",
                        status,
                        reason: Reason::Other,
                        text: "".to_string(),
                    }),
                };
            }
            (State::Creating { id: own, .. }, In::Failed(fault)) if *own == id => {
                let cause = Cause::Link(fault.clone());
                return self.fail(cause);
            }
            (State::Deleting { id: own, .. }, In::Reply(_) | In::Failed(_)) if *own == id => {
                return self.finish(Ending::Closed);
            }
            _ => {}
        }
        if let Some((own, _)) = self.reprobe
            && own == id
        {
            match step {
                In::Reply(reply) => {
                    self.reprobe = None;
                    if headers::closed(&reply.headers) || reply.status == 404 {
                        self.finish(Ending::EndOfStream);
                    } else if let Some(latest) = headers::latest(&reply.headers) {
                        self.skip_to(latest);
                    }
                }
                In::Failed(_) => self.reprobe = None,
                _ => {}
            }
            return;
        }
        if matches!(step, In::Reply(_) | In::Failed(_)) {
            self.errands.retain(|(own, _)| *own != id);
        }
    }

    /// The server's head is beyond ours: what we would write next is taken (trickle spec 6.2-5).
    fn skip_to(&mut self, latest: Seq) {
        if latest <= self.next {
            return;
        }
        self.next = latest;
        if self.uploads.back().is_some_and(|last| !last.begun)
            && let Some(mut warm) = self.uploads.pop_back()
        {
            warm.abort(&mut self.desk);
        }
        self.warm_up();
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
        if let Some(output) = self.desk.out.pop() {
            return output;
        }
        let mut wake = match self.state {
            State::Probing { until, .. }
            | State::Creating { until, .. }
            | State::Draining { until }
            | State::Deleting { until, .. } => Some(until),
            State::Ready => None,
            State::Ended => return Output::Idle(None),
        };
        for upload in &self.uploads {
            wake = earlier(wake, upload.wake(&self.desk));
        }
        wake = earlier(wake, self.reprobe.map(|(_, until)| until));
        for (_, until) in &self.errands {
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
