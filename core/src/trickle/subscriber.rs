//! The subscriber: reads one channel in order, resumes what breaks, and says what it missed.
//!
//! ```text
//!                      answer with bytes               end of body
//!   Fetch(w) ────────────────────────────▶ Reading(s) ────────────▶ Fetch(s + 1), already under way
//!    ▲   │ 470, failure, other status         │ body breaks: GET s again, skip what is known
//!    │   ▼                                    │ too often, or it is gone: Truncated(s)
//!    └ pause                                  ▼
//!                                       Fetch(s + 1)
//!   any ── Lp-Trickle-Closed, 404, budgets, close() ──▶ Ended
//! ```
//!
//! While a segment is read, the request for the next is under way (the *successor*). What comes of it early is
//! held: up to [`Config::ahead_bytes`], then the driver is asked to pause. A request without an answer, or with a
//! head and no byte after it, is asked again after [`Config::refresh`] on a new connection; the old one lives on for
//! [`OVERLAP`], and the first to answer, or to go on, wins.

mod fetch;
mod follow;
mod reading;

use alloc::string::ToString;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use super::{ContentType, Ending, REFRESH, Seq, Start};
use crate::error::{Cause, Misuse};
use crate::http::{Fault, In, Method, Protocol, Request, Trust, Url};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use fetch::{Answer, Fetch};
use reading::Reading;

/// How long the old of two equal requests may still answer.
pub const OVERLAP: Duration = Duration::from_secs(1);

/// How often in a row the question after something ahead of the head may be answered "lower" before the publisher
/// is taken for restarted: for this long (trickle spec 7.3-c).
pub const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How often in a row a subscriber that fell behind goes on without a pause, although nothing came of it.
const SKIPS_AT_ONCE: u32 = 2;

/// How a subscriber behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates that are good enough for an `https` channel: the first one seen, as orchestrators sign their own. With
    /// [`Trust::Public`] a channel at one ends at once.
    pub trust: Trust,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// Where to go on after falling behind. If that is gone before the question arrives, at the head.
    pub lag: Lag,
    /// How many segments behind the head is too far, although they may still be there. `None`: only what has left
    /// the server's window is.
    pub max_lag: Option<u64>,
    /// A request is asked again after this long without an answer, or without a byte after its head.
    pub refresh: Duration,
    /// Failures in a row before giving up.
    pub max_failures: u32,
    /// Ends as soon as no connection comes about, and tries one that broke again at once: for readers who have
    /// somewhere else to go.
    pub leave_dead: bool,
    /// How often one segment may be resumed.
    pub max_resumes: u32,
    /// How long a channel may be missing before it is first seen; it is made by another party.
    pub start_within: Duration,
    /// How long to wait for a segment that the server never had although later ones have begun: its connection may
    /// have broken, and its publisher may continue it.
    pub late_within: Duration,
    /// How long the server may answer that what is wanted is ahead of its head.
    pub ahead_within: Duration,
    /// End after this long without a byte or a new segment. `None`: a silent channel is normal.
    pub idle_within: Option<Duration>,
    /// A segment that is silent for this long while a later one has bytes is given up.
    pub stall_within: Duration,
    /// Bytes of the next segment held while one is read.
    pub ahead_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::FirstUse,
            protocol: Protocol::Http1,
            lag: Lag::Live,
            max_lag: None,
            refresh: REFRESH,
            max_failures: 6,
            leave_dead: false,
            max_resumes: 3,
            start_within: Duration::from_secs(10),
            late_within: Duration::from_secs(2),
            ahead_within: Duration::from_secs(30),
            idle_within: None,
            stall_within: Duration::from_secs(10),
            ahead_bytes: 1 << 20,
        }
    }
}

/// Where to go on after falling behind (trickle spec 7.3-a).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lag {
    /// The segment that begins next.
    #[default]
    Live,
    /// The segment that began last.
    Current,
    /// The oldest segment that is surely there.
    Earliest,
    /// Nowhere: it ends with a failure.
    Fail,
}

/// An event of a subscriber.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A segment begins.
    Begin(Seq, ContentType),
    /// The next bytes of the segment.
    Data(Seq, Bytes),
    /// The segment is complete, as far as the protocol can tell: readers cannot see a cut by the server (D19).
    End(Seq),
    /// The rest of it is lost after that many bytes.
    Truncated(Seq, u64),
    /// The segments that were missed.
    Gap(Range<Seq>),
    /// The publisher began anew or the owner jumped: the next seq may be anything.
    Discontinuity,
    /// The last event.
    Closed(Ending),
}

/// State that the parts of a subscriber share.
#[derive(Debug)]
struct Shared {
    out: Outbox<Event>,
    channel: Url,
    config: Config,
    /// Requests that brought nothing new, in a row, and when the last left: no storm, whatever the answers
    /// (trickle spec 12-7).
    barren: u32,
    last_request: Time,
}

impl Shared {
    fn get(&mut self, now: Time, at: Start) -> EffectId {
        self.barren = self.barren.saturating_add(1);
        self.last_request = now;
        let request = Request::new(Method::Get, self.channel.child(&at.to_string()))
            .trust(self.config.trust)
            .protocol(self.config.protocol);
        self.out.request(request)
    }

    fn next(&mut self) -> EffectId {
        let request = Request::new(Method::Get, self.channel.child("next"))
            .trust(self.config.trust)
            .protocol(self.config.protocol);
        self.out.request(request)
    }
}

/// Reads one channel. See the [module](self).
#[doc(alias = "TrickleSubscriber")]
#[derive(Debug)]
pub struct Subscriber {
    now: Time,
    shared: Shared,
    reading: Option<Reading>,
    /// The request for what comes next: the successor while reading, else the segment that is waited for.
    fetch: Fetch,
    /// The channel has answered once.
    met: bool,
    began: Time,
    failures: u32,
    /// The highest head ever learned.
    highest: Seq,
    /// Since when every answer said that we are ahead, and that the head is far below.
    ahead_since: Option<Time>,
    /// How often in a row it fell behind.
    skips: u32,
    /// Since when what is wanted is missing from inside the window.
    late_since: Option<Time>,
    low_since: Option<Time>,
    /// A question for the head, after a 470 that did not tell it.
    asking: Option<(EffectId, Time)>,
    last_news: Time,
    ended: bool,
}

impl Subscriber {
    /// A subscriber of the channel at that URL; it asks at once. A trailing slash is ignored.
    #[must_use]
    pub fn new(now: Time, config: Config, channel: Url, start: Start) -> Self {
        let mut shared = Shared {
            out: Outbox::default(),
            channel,
            config,
            barren: 0,
            last_request: now,
        };
        let mut fetch = Fetch::new(start);
        fetch.send(now, &mut shared);
        Self {
            now,
            shared,
            reading: None,
            fetch,
            met: false,
            began: now,
            failures: 0,
            highest: Seq::ZERO,
            ahead_since: None,
            skips: 0,
            late_since: None,
            low_since: None,
            asking: None,
            last_news: now,
            ended: false,
        }
    }

    /// Goes on from somewhere else, after [`Event::Discontinuity`].
    ///
    /// # Errors
    /// Misuse if it has ended.
    pub fn jump(&mut self, now: Time, to: Start) -> Result<(), Misuse> {
        self.tick(now);
        if self.ended {
            return Err(Misuse::Ended);
        }
        self.drop_reading();
        self.shared.out.event(Event::Discontinuity);
        self.failures = 0;
        self.highest = Seq::ZERO;
        self.go(to, None);
        Ok(())
    }

    /// Ends it. Harmless if it was called before.
    pub fn close(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.finish(Ending::Closed);
    }

    /// The segment being told, if one is.
    #[must_use]
    pub fn position(&self) -> Option<Seq> {
        self.reading.as_ref().map(|reading| reading.seq)
    }

    // ---- time and input --------------------------------------------------------------------------------------

    fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.ended {
            return;
        }
        let now = self.now;
        // One request at a time may have a second of its kind (trickle spec 12-5), and first the one that is read.
        let others = self.fetch.legs();
        if let Some(reading) = &mut self.reading {
            reading.tick(now, others < 2, &mut self.shared);
        }
        let others = self.reading.as_ref().map_or(0, Reading::legs);
        self.fetch.tick(now, others < 2, &mut self.shared);
        if let Some(reading) = &self.reading
            && self.fetch.has_bytes()
            && now.since(reading.heard.max(self.fetch.held_since))
                >= self.shared.config.stall_within
        {
            self.truncate();
        }
        if let Some((id, until)) = self.asking
            && until <= now
        {
            self.shared.out.abort(id);
            self.asking_failed("no answer");
        }
        if let Some(idle) = self.shared.config.idle_within
            && now.since(self.last_news) >= idle
        {
            self.fail(Cause::TimedOut {
                doing: "the channel",
                after: idle,
            });
        }
    }

    fn asking_failed(&mut self, why: &'static str) {
        self.asking = None;
        if let Some(pause) = self.count_failure(&why) {
            self.again(pause);
        }
    }

    fn handle_http(&mut self, id: EffectId, step: In) {
        if let In::Failed(fault) = &step
            && fault.is_final()
            && (self.fetch.owns(id) || self.reading.as_ref().is_some_and(|r| r.owns(id)))
        {
            return self.fail(Cause::Link(fault.clone()));
        }
        if let In::Failed(fault @ (Fault::Connect(_) | Fault::Resolve(_))) = &step
            && self.shared.config.leave_dead
            && (self.fetch.owns(id) || self.reading.as_ref().is_some_and(|r| r.owns(id)))
        {
            return self.fail(Cause::Link(fault.clone()));
        }
        if self.fetch.owns(id) {
            self.fetch.handle(self.now, id, step, &mut self.shared);
            return self.act();
        }
        if let Some(reading) = &mut self.reading {
            if reading.leg == Some(id) {
                match step {
                    In::Data(bytes) => {
                        reading.hear(self.now, self.shared.config.refresh);
                        self.last_news = self.now;
                        if !reading.tell(bytes, &mut self.shared) {
                            self.another();
                        }
                    }
                    In::End(_) => {
                        reading.leg = None;
                        self.read_to_end();
                    }
                    In::Failed(_) => self.broken(),
                    In::Reply(_) | In::Sent(_) | In::Request(_) => {}
                }
                return;
            }
            if let Some(again) = &mut reading.again
                && again.owns(id)
            {
                again.handle(self.now, id, step, &mut self.shared);
                return self.reread_answered();
            }
        }
        if let Some((own, _)) = self.asking
            && own == id
        {
            if matches!(step, In::Reply(_)) {
                // The head of the answer tells all.
                self.shared.out.abort(id);
            }
            match step {
                In::Reply(reply)
                    if super::headers::closed(&reply.headers) || reply.status == 404 =>
                {
                    self.asking = None;
                    self.fetch.answer = Some(Answer::Over);
                    self.act();
                }
                In::Reply(reply) => match super::headers::latest(&reply.headers) {
                    Some(latest) if reply.status == 200 => {
                        self.asking = None;
                        self.fetch.answer = Some(Answer::NotInWindow(Some(latest)));
                        self.act();
                    }
                    _ => self.asking_failed("the head is not to be had"),
                },
                In::Failed(_) => self.asking_failed("the head is not to be had"),
                _ => {}
            }
        }
    }
}

impl Machine for Subscriber {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.tick(now);
        if self.ended {
            return;
        }
        if let Input::Http(id, step) = input
            && !id.is_by_peer()
        {
            self.handle_http(id, step);
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.shared.out.pop() {
            return output;
        }
        if self.ended {
            return Output::Idle(None);
        }
        let config = &self.shared.config;
        let mut wake = self.fetch.wake();
        if let Some(reading) = &self.reading {
            wake = earlier(
                wake,
                match &reading.again {
                    Some(again) => again.wake(),
                    None => Some(reading.reread_at),
                },
            );
            if self.fetch.has_bytes() {
                let since = reading.heard.max(self.fetch.held_since);
                wake = earlier(wake, Some(since + config.stall_within));
            }
        }
        wake = earlier(wake, self.asking.map(|(_, until)| until));
        wake = earlier(wake, config.idle_within.map(|idle| self.last_news + idle));
        // Whatever the configuration's durations are, a driver must not spin.
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}
