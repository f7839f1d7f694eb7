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
//! held: up to [`Config::ahead_bytes`], then the driver is asked to pause. An unanswered request is asked again
//! after [`Config::refresh`] on a new connection; the old one lives on for [`OVERLAP`], and who answers first wins.

mod fetch;

use alloc::string::ToString;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use super::{ContentType, Ending, PAUSE, PAUSE_MAX, REFRESH, Seq, Start, WINDOW};
use crate::error::{Cause, Failure, Misuse, Party};
use crate::http::{Fault, In, Method, Out, Protocol, Request, Trust, Url};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use fetch::{Answer, Fetch, Tail};

/// How long the old of two equal requests may still answer.
pub const OVERLAP: Duration = Duration::from_secs(1);

/// How often in a row the question after something ahead of the head may be answered "lower" before the publisher
/// is taken for restarted: for this long (trickle spec 7.3-c).
pub const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How a subscriber behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which certificate is good enough for an `https` channel.
    pub trust: Trust,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// Where to go on after falling behind.
    pub lag: Lag,
    /// How many segments behind the head is too far, although they may still be there. `None`: only what has left
    /// the server's window is.
    pub max_lag: Option<u64>,
    /// An unanswered request is asked again after this long.
    pub refresh: Duration,
    /// Failures in a row before giving up.
    pub max_failures: u32,
    /// How often one segment may be resumed.
    pub max_resumes: u32,
    /// How long a channel may be missing before it is first seen; it is made by another party.
    pub start_within: Duration,
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
            trust: Trust::Public,
            protocol: Protocol::Http1,
            lag: Lag::Live,
            max_lag: None,
            refresh: REFRESH,
            max_failures: 6,
            max_resumes: 3,
            start_within: Duration::from_secs(10),
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
    /// At the segment that begins next.
    #[default]
    Live,
    /// At the one that began last.
    Current,
    /// At the oldest that is surely there.
    Earliest,
    /// Nowhere: it ends with a failure.
    Fail,
}

/// What a subscriber tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A segment begins.
    Begin(Seq, ContentType),
    /// Its next bytes.
    Data(Seq, Bytes),
    /// It is complete, as far as the protocol can tell: readers cannot see a cut by the server (D19).
    End(Seq),
    /// The rest of it is lost after that many bytes.
    Truncated(Seq, u64),
    /// These segments were missed.
    Gap(Range<Seq>),
    /// The publisher began anew or the owner jumped: the next seq may be anything.
    Discontinuity,
    /// The last event.
    Closed(Ending),
}

#[derive(Debug)]
struct Desk {
    out: Outbox<Event>,
    channel: Url,
    config: Config,
    /// Requests that brought nothing new, in a row, and when the last left: no storm, whatever the answers
    /// (trickle spec 12-7).
    barren: u32,
    last_request: Time,
}

impl Desk {
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

/// The segment being told.
#[derive(Debug)]
struct Reading {
    seq: Seq,
    /// The connection it comes on, while there is one.
    leg: Option<EffectId>,
    /// Another for the same, after silence or a break; it has to skip what is known.
    again: Option<Fetch>,
    told: u64,
    skip: u64,
    resumes: u32,
    heard: Time,
}

/// Reads one channel. See the [module](self).
#[derive(Debug)]
pub struct Subscriber {
    now: Time,
    desk: Desk,
    reading: Option<Reading>,
    /// What comes next: the successor while reading, else what is waited for.
    fetch: Fetch,
    /// The channel has answered once.
    met: bool,
    began: Time,
    failures: u32,
    /// The highest head ever learned.
    highest: Seq,
    /// Since when every answer said that we are ahead, and that the head is far below.
    ahead_since: Option<Time>,
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
        let mut desk = Desk {
            out: Outbox::default(),
            channel,
            config,
            barren: 0,
            last_request: now,
        };
        let mut fetch = Fetch::new(start);
        fetch.send(now, &mut desk);
        Self {
            now,
            desk,
            reading: None,
            fetch,
            met: false,
            began: now,
            failures: 0,
            highest: Seq::ZERO,
            ahead_since: None,
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
        self.desk.out.event(Event::Discontinuity);
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

    // ---- movement --------------------------------------------------------------------------------------------

    /// Wants something else next, at once or after a pause.
    fn go(&mut self, to: Start, pause: Option<Duration>) {
        self.fetch.abort(&mut self.desk);
        self.fetch = Fetch::new(to);
        if let Some((id, _)) = self.asking.take() {
            self.desk.out.abort(id);
        }
        self.ahead_since = None;
        self.low_since = None;
        self.send_after(pause.unwrap_or(Duration::ZERO));
    }

    /// The same again, after a pause.
    fn again(&mut self, pause: Duration) {
        self.fetch.abort(&mut self.desk);
        self.fetch = Fetch::new(self.fetch.want);
        self.send_after(pause);
    }

    fn send_after(&mut self, pause: Duration) {
        let mut at = self.now + pause;
        if self.desk.barren >= 2 {
            at = at.max(self.desk.last_request + PAUSE);
        }
        if at <= self.now {
            self.fetch.send(self.now, &mut self.desk);
        } else {
            self.fetch.pause(at);
        }
    }

    /// Something new came: the next questions need no pause.
    fn news(&mut self) {
        self.desk.barren = 0;
        self.last_news = self.now;
        self.ahead_since = None;
        self.low_since = None;
    }

    fn count_failure(&mut self, last: &dyn core::fmt::Display) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.desk.config.max_failures.max(1) {
            let last = last.to_string();
            self.fail(Cause::GaveUp {
                what: "reading the channel",
                times: self.failures,
                last,
            });
            return None;
        }
        let doubled = PAUSE * 2_u32.saturating_pow(self.failures - 1);
        Some(doubled.min(PAUSE_MAX))
    }

    fn fail(&mut self, cause: Cause) {
        let who = Party::Channel(self.desk.channel.clone());
        self.finish(Ending::Failed(Failure::new(who, cause)));
    }

    fn finish(&mut self, ending: Ending) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.drop_reading();
        self.fetch.abort(&mut self.desk);
        if let Some((id, _)) = self.asking.take() {
            self.desk.out.abort(id);
        }
        self.desk.out.event(Event::Closed(ending));
    }

    /// What is being told ends here, unfinished.
    fn drop_reading(&mut self) {
        if let Some(mut reading) = self.reading.take() {
            reading.hang_up(&mut self.desk);
            let (seq, told) = (reading.seq, reading.told);
            self.desk.out.event(Event::Truncated(seq, told));
        }
    }

    // ---- answers ---------------------------------------------------------------------------------------------

    /// Acts on what the fetch has, as far as the segment being told allows.
    fn act(&mut self) {
        while !self.ended {
            let Some(answer) = self.fetch.answer.as_ref() else {
                return;
            };
            match answer {
                Answer::Head => return,
                Answer::Body { .. } | Answer::Empty { .. } | Answer::Over
                    if self.reading.is_some() =>
                {
                    return;
                }
                _ => {}
            }
            let Some(answer) = self.fetch.answer.take() else {
                return;
            };
            match answer {
                Answer::Head => return,
                Answer::Over => return self.finish(Ending::EndOfStream),
                Answer::Missing => self.missing(),
                Answer::NotInWindow(Some(latest)) => {
                    self.met = true;
                    if !self.not_in_window(latest) {
                        // It changes the position; that waits for the end of the segment being told.
                        self.fetch.answer = Some(Answer::NotInWindow(Some(latest)));
                        return;
                    }
                }
                Answer::NotInWindow(None) => {
                    if self.asking.is_none() {
                        let id = self.desk.next();
                        self.asking = Some((id, self.now + PAUSE_MAX));
                    }
                    return;
                }
                Answer::Failed(why) => {
                    if self.reading.is_some() {
                        // What is being told may go on for long; the budget is for those who wait.
                        let most = self.desk.config.max_failures.max(2) - 2;
                        self.failures = self.failures.min(most);
                    }
                    if let Some(pause) = self.count_failure(&why) {
                        self.again(pause);
                    }
                }
                Answer::Empty { seq, latest } => {
                    self.arrive(seq, latest, ContentType::default());
                    self.desk.out.event(Event::End(seq));
                    // Closed by hand at the head: the next is ahead until somebody posts (trickle spec 7.2-4).
                    let by_hand = latest.is_some_and(|latest| latest <= seq);
                    self.go(Start::At(seq.next()), by_hand.then_some(PAUSE));
                }
                Answer::Body {
                    seq,
                    latest,
                    content,
                } => self.begin(seq, latest, content),
            }
        }
    }

    fn arrive(&mut self, seq: Seq, latest: Option<Seq>, content: ContentType) {
        self.met = true;
        self.failures = 0;
        self.highest = self.highest.max(seq.next());
        if let Some(latest) = latest {
            self.highest = self.highest.max(latest);
        }
        self.news();
        self.desk.out.event(Event::Begin(seq, content));
    }

    fn begin(&mut self, seq: Seq, latest: Option<Seq>, content: ContentType) {
        if let (Some(most), Some(latest)) = (self.desk.config.max_lag, latest)
            && latest > seq.plus(most).next()
        {
            // Still there, but further behind than the owner wants to be.
            self.news();
            return self.skip(seq, latest);
        }
        self.arrive(seq, latest, content);
        let mut fetch = core::mem::replace(&mut self.fetch, Fetch::new(Start::At(seq.next())));
        let leg = fetch.take_leg(&mut self.desk);
        self.send_after(Duration::ZERO);
        let mut reading = Reading {
            seq,
            leg,
            again: None,
            told: 0,
            skip: 0,
            resumes: 0,
            heard: self.now,
        };
        for bytes in fetch.held.drain(..) {
            reading.tell(bytes, &mut self.desk);
        }
        self.reading = Some(reading);
        if fetch.paused
            && let Some(id) = leg
        {
            self.desk.out.http(id, Out::Resume);
        }
        match fetch.tail {
            Tail::Open => {}
            Tail::Ended => self.read_to_end(),
            Tail::Broken => self.broken(),
        }
    }

    fn missing(&mut self) {
        if self.met {
            if self.reading.is_some() {
                // The segment being told may still have bytes on the way.
                self.fetch.answer = Some(Answer::Over);
                return;
            }
            return self.finish(Ending::EndOfStream);
        }
        if self.now.since(self.began) >= self.desk.config.start_within {
            return self.fail(Cause::Gone("the channel"));
        }
        self.again(PAUSE);
    }

    /// The decision of trickle spec 7.3. False if it has to wait.
    fn not_in_window(&mut self, latest: Seq) -> bool {
        let Start::At(want) = self.fetch.want else {
            // The segment before the head is gone: take the head.
            self.go(Start::At(latest), None);
            return true;
        };
        self.failures = 0;
        if latest > want {
            if self.reading.is_some() {
                return false;
            }
            self.highest = self.highest.max(latest);
            self.skip(want, latest);
            return true;
        }
        let since = *self.ahead_since.get_or_insert(self.now);
        if latest == want {
            self.low_since = None;
            let first = since == self.now;
            let pause = if first {
                Duration::from_millis(50)
            } else {
                PAUSE
            };
            self.again(pause);
        } else {
            let restarted = latest.next() < self.highest && {
                let low = *self.low_since.get_or_insert(self.now);
                self.now.since(low) >= RESTART_AFTER
            };
            if latest.next() >= self.highest {
                self.low_since = None;
            }
            if restarted {
                if self.reading.is_some() {
                    return false;
                }
                self.highest = latest;
                self.desk.out.event(Event::Discontinuity);
                self.go(Start::At(latest), None);
                return true;
            }
            self.again(PAUSE);
        }
        if self.now.since(since) >= self.desk.config.ahead_within {
            self.fail(Cause::TimedOut {
                doing: "a segment ahead of the head",
                after: self.desk.config.ahead_within,
            });
        }
        true
    }

    /// Falls behind: from `want` to wherever the policy says.
    fn skip(&mut self, want: Seq, latest: Seq) {
        let target = match self.desk.config.lag {
            Lag::Live => latest,
            Lag::Current => latest.minus(1),
            Lag::Earliest => latest.minus(WINDOW as u64 - 1),
            Lag::Fail => {
                let cause = Cause::TooMuch {
                    what: "the lag behind the channel's head",
                    limit: self
                        .desk
                        .config
                        .max_lag
                        .map_or(WINDOW, |most| usize::try_from(most).unwrap_or(usize::MAX)),
                };
                return self.fail(cause);
            }
        };
        let target = target.max(want.next());
        self.desk.out.event(Event::Gap(want..target));
        self.go(Start::At(target), None);
    }

    // ---- the segment being told ------------------------------------------------------------------------------

    fn read_to_end(&mut self) {
        let Some(mut reading) = self.reading.take() else {
            return;
        };
        reading.hang_up(&mut self.desk);
        if reading.skip > 0 {
            // The server has less of it than it had.
            let (seq, told) = (reading.seq, reading.told);
            self.desk.out.event(Event::Truncated(seq, told));
        } else {
            self.desk.out.event(Event::End(reading.seq));
        }
        self.act();
    }

    fn truncate(&mut self) {
        self.drop_reading();
        self.act();
    }

    fn broken(&mut self) {
        let config_limit = self.desk.config.max_resumes;
        let Some(reading) = &mut self.reading else {
            return;
        };
        reading.leg = None;
        if reading.again.is_some() {
            return;
        }
        reading.resumes += 1;
        if reading.resumes > config_limit {
            return self.truncate();
        }
        reading.reread(self.now, &mut self.desk);
    }

    /// What came of reading the same segment again.
    fn reread_answered(&mut self) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        let Some(fetch) = &mut reading.again else {
            return;
        };
        let Some(answer) = fetch.answer.take() else {
            return;
        };
        match answer {
            Answer::Head => fetch.answer = Some(Answer::Head),
            Answer::Body { seq, .. } if seq == reading.seq => {
                let leg = fetch.take_leg(&mut self.desk);
                let held = core::mem::take(&mut fetch.held);
                let (tail, paused) = (fetch.tail, fetch.paused);
                reading.again = None;
                if let Some(old) = core::mem::replace(&mut reading.leg, leg) {
                    self.desk.out.abort(old);
                }
                if paused && let Some(id) = leg {
                    self.desk.out.http(id, Out::Resume);
                }
                reading.skip = reading.told;
                self.failures = 0;
                for bytes in held {
                    reading.tell(bytes, &mut self.desk);
                }
                reading.heard = self.now;
                match tail {
                    Tail::Open => {}
                    Tail::Ended => self.read_to_end(),
                    Tail::Broken => self.broken(),
                }
            }
            Answer::Failed(why) if reading.leg.is_none() => {
                reading.again = None;
                if let Some(pause) = self.count_failure(&why)
                    && let Some(reading) = &mut self.reading
                {
                    let mut fetch = Fetch::new(Start::At(reading.seq));
                    fetch.pause(self.now + pause);
                    reading.again = Some(fetch);
                }
            }
            Answer::Failed(_) => reading.again = None,
            // Gone, moved, or empty where there were bytes.
            _ => {
                if reading.leg.is_none() {
                    if matches!(answer, Answer::Over | Answer::Missing) {
                        self.drop_reading();
                        return self.finish(Ending::EndOfStream);
                    }
                    self.truncate();
                } else {
                    reading.again = None;
                }
            }
        }
    }

    // ---- time and input --------------------------------------------------------------------------------------

    fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.ended {
            return;
        }
        let now = self.now;
        self.fetch.tick(now, &mut self.desk);
        if let Some(reading) = &mut self.reading {
            if let Some(again) = &mut reading.again {
                again.tick(now, &mut self.desk);
            } else if now.since(reading.heard) >= self.desk.config.refresh {
                // Its connection may be dead without telling.
                reading.heard = now;
                reading.reread(now, &mut self.desk);
            }
        }
        if let Some(reading) = &self.reading
            && self.fetch.has_bytes()
            && now.since(reading.heard.max(self.fetch.held_since)) >= self.desk.config.stall_within
        {
            self.truncate();
        }
        if let Some((id, until)) = self.asking
            && until <= now
        {
            self.desk.out.abort(id);
            self.asking_failed("no answer");
        }
        if let Some(idle) = self.desk.config.idle_within
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
        if let In::Failed(fault @ Fault::CertificateChanged { .. }) = &step
            && (self.fetch.owns(id) || self.reading.as_ref().is_some_and(|r| r.owns(id)))
        {
            return self.fail(Cause::Link(fault.clone()));
        }
        if self.fetch.owns(id) {
            self.fetch.handle(self.now, id, step, &mut self.desk);
            return self.act();
        }
        if let Some(reading) = &mut self.reading {
            if reading.leg == Some(id) {
                match step {
                    In::Data(bytes) => {
                        reading.heard = self.now;
                        self.last_news = self.now;
                        reading.tell(bytes, &mut self.desk);
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
                again.handle(self.now, id, step, &mut self.desk);
                return self.reread_answered();
            }
        }
        if let Some((own, _)) = self.asking
            && own == id
        {
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
                    _ => {
                        self.desk.out.abort(id);
                        self.asking_failed("the head is not to be had");
                    }
                },
                In::Failed(_) => self.asking_failed("the head is not to be had"),
                _ => {}
            }
        }
    }
}

impl Reading {
    fn owns(&self, id: EffectId) -> bool {
        self.leg == Some(id) || self.again.as_ref().is_some_and(|again| again.owns(id))
    }

    /// Hands on bytes, less what was told before the connection broke (the prefix property).
    fn tell(&mut self, mut bytes: Bytes, desk: &mut Desk) {
        if self.skip > 0 {
            let known =
                usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
            self.skip -= known as u64;
            bytes = bytes.slice(known..);
        }
        if bytes.is_empty() {
            return;
        }
        self.told += bytes.len() as u64;
        desk.barren = 0;
        desk.out.event(Event::Data(self.seq, bytes));
    }

    fn reread(&mut self, now: Time, desk: &mut Desk) {
        let mut fetch = Fetch::new(Start::At(self.seq));
        fetch.send(now, desk);
        self.again = Some(fetch);
    }

    fn hang_up(&mut self, desk: &mut Desk) {
        if let Some(id) = self.leg.take() {
            desk.out.abort(id);
        }
        if let Some(mut again) = self.again.take() {
            again.abort(desk);
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
        if let Some(output) = self.desk.out.pop() {
            return output;
        }
        if self.ended {
            return Output::Idle(None);
        }
        let config = &self.desk.config;
        let mut wake = self.fetch.wake(config);
        if let Some(reading) = &self.reading {
            wake = earlier(
                wake,
                match &reading.again {
                    Some(again) => again.wake(config),
                    None => Some(reading.heard + config.refresh),
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
