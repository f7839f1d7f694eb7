//! The media of a live job across its orchestrators: the input that it publishes, and what the output answers of it.
//!
//! [`LiveVideoJob`](super::LiveVideoJob) decides who works; this machine sees to it that no segment is lost when that
//! changes. It owns the publisher of the input's channel. The subscriber of the output's channel is its owner's, who
//! may stop reading; every event of it goes through [`Media::output`].
//!
//! ```text
//!   begin, write, end ──▶ log ──▶ Publisher ──▶ channel of whoever works ──▶ model
//!                          ▲                                                  │
//!                   answered, missing                                         ▼
//!   OutputEvent ◀── Media::output ◀── Subscriber ◀────────────────────────── channel
//! ```
//!
//! When another orchestrator takes over ([`Media::go_to`]), it gets the segments again that are not answered, the
//! open one included, in one segment of its channel (see `log.rs`). Output of the one before that has not ended is
//! told to begin anew: pictures of two encoders cannot be joined in the middle.
//!
//! A runner whose input breaks off in the middle of a segment ends its output in order, and a model may cut its output
//! where it likes. If the orchestrator is lost before the rest has come, the next one answers the segment whole, so that
//! its beginning comes twice: that is told by [`OutputEvent::Repeated`].
//!
//! Time stamps tell frames, not bytes: an upload may break off inside the last frame of a segment. So output is an
//! answer only if all of the segment had left when that output ended, on a connection that had not broken
//! (`output_of_an_upload_that_has_not_left_whole_is_an_answer_only_once_more_output_follows`). Nobody waits for the
//! server's word that it has the segment, or each loss of an orchestrator would repeat output. So a limit is left: what
//! left may be on its way still, when a connection breaks of which we hear only after the output. Where no output follows
//! that could be the rest, since later input has output or the job ends, the segment is missing.
//!
//! A standby ([`Media::stand_by`]) gets the same beside the one at work, which is silent and goes on to get input. The
//! first of the two whose output comes goes on; the channel of the other is closed. All that is known of the input is
//! kept twice meanwhile (see `feed.rs`), so that nothing of the other is seen, whichever that is.
//!
//! Which output answers which input is found in the time stamps, if the output carries the input's clock
//! ([`Matching::Clock`]), and by counting segments if not ([`Matching::Count`]). A segment that has no output when a
//! later one has, or when the job ends, is missing: that is counted, and told by [`OutputEvent::Gap`]. Everything
//! that is said of losses is said by [`Media::figures`].

mod feed;
mod log;
pub mod stamps;
mod types;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use self::feed::Feed;
use self::log::Log;
pub use self::log::{
    AHEAD, DROPPED_TAIL, EARLY, FIRST_OPEN_BYTES, FIRST_OPEN_WITHIN, JOIN_AFTER, MAX_UNANSWERED,
};
pub use self::types::{Config, Event, Figures, Limits, Matching, News, OutputEvent, Owed};
use crate::error::{Cause, Failure, Misuse, Party};
use crate::http::Url;
use crate::machine::{Child, ChildIds, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use crate::trickle::{ContentType, Publisher, Seq, publisher, subscriber};
use crate::wire::{Channels, RunnerEvent};

/// How long the input's channel outlives its last delivery and the last byte of output, while output is owed.
/// Orchestrators of the reference delete the output's channel with the input's.
pub const TAIL_WITHIN: Duration = Duration::from_secs(2);

/// How long the first segment of a standby's channel stays open, unless its model is seen reading before. A model that
/// loads meanwhile misses nothing of it; nobody waits for this one yet.
pub const STANDBY_OPEN_WITHIN: Duration = Duration::from_secs(5);

/// How far a standby may be behind with its input, as a multiple of [`Limits::bytes`].
const STANDBY_BEHIND: usize = 2;

/// Output is told to the job at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// States that somebody may wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Readiness {
    handed_over: bool,
    settled: bool,
    closed: bool,
    idle: bool,
}

/// The media of a live job. See the [module](self).
#[derive(Debug)]
pub struct Media {
    now: Time,
    config: Config,
    at_work: Feed,
    standby: Option<Box<Feed>>,
    /// How many sessions were heard of, and which of them the job said last to be at work.
    sessions: u32,
    named: u32,
    /// Publishers of orchestrators that were left, closing their channels.
    leaving: Vec<Child<Publisher>>,
    children: ChildIds,
    /// The application has opened the input, has said all, and the job has ended.
    opened: bool,
    closing: bool,
    over: bool,
    /// The state that the job was told last.
    owed: Owed,
    /// The readiness when [`Event::Ready`] was told last.
    ready: Readiness,
    again: u64,
    /// Segments whose beginning will come twice, once the orchestrator at work gives output, and how many did.
    repeats: Option<Range<u64>>,
    repeated: u64,
    matching: Option<Matching>,
    told_seen: Option<Time>,
    /// The number of the next output segment, and how much there was of it if it is open.
    next_output: Seq,
    open_output: Option<u64>,
    /// No more output is handed over.
    output_over: bool,
    told: VecDeque<OutputEvent>,
    out: Outbox<News>,
}

impl Media {
    /// Media of a job that nobody works on yet.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let log = Log::new(now, config.limits, config.ahead.unwrap_or(AHEAD));
        Self {
            now,
            config,
            at_work: Feed::new(now, log),
            standby: None,
            sessions: 0,
            named: 0,
            leaving: Vec::new(),
            children: ChildIds::default(),
            opened: false,
            closing: false,
            over: false,
            owed: Owed::Unknown,
            ready: Readiness::default(),
            again: 0,
            repeats: None,
            repeated: 0,
            matching: None,
            told_seen: None,
            next_output: Seq::ZERO,
            open_output: None,
            output_over: false,
            told: VecDeque::new(),
            out: Outbox::default(),
        }
    }

    // ---- who works -------------------------------------------------------------------------------------------

    /// An orchestrator works in that [session](super::Started::session), the first or another: input goes to its
    /// channel from now on, beginning with what is not answered.
    pub fn go_to(&mut self, now: Time, session: u32, channels: &Channels) {
        let input = Some(channels.publish.clone());
        self.go_by(now, session, input, Some(channels.subscribe.clone()));
    }

    /// As [`go_to`](Self::go_to), for work that may lack one of the two channels.
    pub fn go_by(&mut self, now: Time, session: u32, input: Option<Url>, output: Option<Url>) {
        self.advance(now);
        self.named = session;
        if self.standby_is(session) {
            self.promote();
        } else if session >= self.sessions {
            self.end_standby();
            let next = self.enter(session, input, output);
            self.replace(next);
        } else if session != self.at_work.session {
            // Its channel was closed a moment ago, for the one before gave output at last.
            self.leave_channel();
            (self.at_work.session, self.at_work.output) = (session, None);
            self.decline(session);
        }
        self.settle();
    }

    /// How many segments the orchestrator at work gets although another had them.
    #[must_use]
    pub const fn given_again(&self) -> usize {
        self.at_work.again
    }

    /// A standby was started in that session: it gets what is not answered too. If its output comes before that of the
    /// orchestrator at work, it is the one at work from then on.
    pub fn stand_by(&mut self, now: Time, session: u32, channels: &Channels) {
        self.advance(now);
        if session >= self.sessions && !self.over {
            self.end_standby();
            let input = Some(channels.publish.clone());
            let mut next = self.enter(session, input, Some(channels.subscribe.clone()));
            next.log.stay_open(STANDBY_OPEN_WITHIN);
            self.standby = Some(Box::new(next));
            self.settle();
        }
    }

    /// The orchestrator of that session is left: nothing more is given to it. Output that the one at work has made
    /// still counts until another works, unless a standby makes it too.
    pub fn leave(&mut self, now: Time, session: u32) {
        self.advance(now);
        if self.standby_is(session) {
            self.end_standby();
        } else if session == self.at_work.session {
            self.leave_channel();
            if session != self.named {
                // It was a standby that gave output a moment ago, so that the channel of the other was closed.
                self.decline(self.named);
            }
        }
        self.settle();
    }

    /// The job has ended. Output that came before is still handed over; what it does not answer is missing.
    pub fn end(&mut self, now: Time) {
        self.advance(now);
        self.over = true;
        self.end_standby();
        self.at_work.close(self.now);
        self.settle();
    }

    /// The runner said something: a status that knows of input shows that the model reads.
    pub fn runner_said(&mut self, now: Time, event: &RunnerEvent) {
        self.advance(now);
        if event.has_input() {
            self.at_work.log.model_reads();
            self.settle();
        }
    }

    /// The channels of output that are to be read, each with the session that [`Media::output`] wants to know: that of
    /// whoever works or did last, and that of a standby.
    pub fn outputs(&self) -> impl Iterator<Item = (u32, &Url)> {
        let feeds = core::iter::once(&self.at_work).chain(self.standby.as_deref());
        feeds.filter_map(|feed| Some((feed.session, feed.output.as_ref()?)))
    }

    // ---- the application's input -----------------------------------------------------------------------------

    /// Opens the input.
    pub fn open(&mut self, now: Time, config: publisher::Config) {
        self.advance(now);
        self.config.publisher = config;
        if !core::mem::replace(&mut self.opened, true) {
            let channel = self.at_work.channel.clone();
            self.at_work.input = self.publisher(channel);
            let channel = self.standby.as_ref().and_then(|feed| feed.channel.clone());
            let input = self.publisher(channel);
            if let Some(standby) = &mut self.standby {
                standby.input = input;
            }
            self.settle();
        }
    }

    /// Begins a segment, and ends the one before it if that is open. Returns its number.
    ///
    /// # Errors
    /// After the end.
    pub fn begin(&mut self, now: Time) -> Result<Seq, Misuse> {
        self.advance(now);
        if self.is_over() {
            return Err(Misuse::Ended);
        }
        let number = self.at_work.log.begin();
        if let Some(standby) = &mut self.standby {
            standby.log.begin();
        }
        self.settle();
        Ok(Seq::new(number))
    }

    /// Adds to the open segment; without one the bytes go nowhere.
    pub fn write(&mut self, now: Time, data: Bytes) {
        self.advance(now);
        if !self.is_over() {
            self.each_log(|log| log.write(data.clone()));
            self.settle();
        }
    }

    /// The open segment is complete.
    pub fn end_segment(&mut self, now: Time) {
        self.advance(now);
        self.each_log(Log::end);
        self.settle();
    }

    /// The input is complete. Segments whose output is lost after that with its orchestrator are still done again by
    /// another.
    pub fn close(&mut self, now: Time) {
        self.advance(now);
        self.closing = true;
        self.each_log(Log::end);
        self.settle();
    }

    /// The job knows of [`Event::Delivered`], and takes no offence at what the orchestrator closes from now on.
    pub fn close_channel(&mut self, now: Time) {
        self.advance(now);
        if self.at_work.is_delivered() {
            self.at_work.close(self.now);
        }
        self.settle();
    }

    /// Whether nothing can be written any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.closing || self.over
    }

    /// Whether the orchestrator at work has been handed everything written so far: wait for it before more is
    /// written, or memory is the only bound.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.at_work.input.is_some() && self.at_work.log.is_handed_over()
    }

    /// Whether every segment is delivered or given up.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_closed() || (self.at_work.input.is_some() && self.at_work.log.is_settled())
    }

    /// Whether the channel of the input was closed in order, or the job has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.at_work.closed || self.over
    }

    /// Whether no channel is open any more.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.at_work.input.is_none() && self.leaving.is_empty()
    }

    /// Counts what became of input and output so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let feed = &self.at_work;
        let undelivered = feed.log.awaited() + feed.lost.len() as u64;
        Figures {
            begun: feed.log.begun_in_all(),
            delivered: feed.log.handed().saturating_sub(undelivered),
            answered: feed.log.answered,
            missing: feed.log.missing,
            again: self.again,
            repeated: self.repeated,
            resumed: feed.resumed,
            matching: self.matching,
        }
    }

    /// Segments that the publisher gave up, and why. The output may bring them all the same.
    #[must_use]
    pub const fn lost(&self) -> &BTreeMap<u64, Failure> {
        &self.at_work.lost
    }

    // ---- the output ------------------------------------------------------------------------------------------

    /// Whether output is read from now on. While it is not, a segment is answered by its delivery.
    pub fn expect_output(&mut self, now: Time, read: bool) {
        self.advance(now);
        if self.over && !read {
            // The end of a job is no time to lose interest: what is missing then is missing.
            self.output_over = true;
        } else {
            self.each_log(|log| log.expect_answers(read));
        }
        self.settle();
    }

    /// An event of the subscriber of an output's channel, which was opened at its first segment for that session, one
    /// of [`Media::outputs`]. Events of others are ignored.
    pub fn output(&mut self, now: Time, session: u32, event: subscriber::Event) {
        self.advance(now);
        if self.output_over {
            return;
        }
        let gives = matches!(&event, subscriber::Event::Data(_, data) if !data.is_empty());
        if gives && self.standby_is(session) {
            self.promote();
        }
        if session == self.at_work.session {
            let is_late = self.at_work.is_left() && self.standby.is_some();
            if !is_late {
                if gives {
                    self.end_standby();
                }
                self.output_at_work(event);
            }
        } else if let Some(standby) = self.standby.as_mut().filter(|feed| feed.session == session) {
            match event {
                subscriber::Event::Begin(_, content) => standby.begun = Some(content),
                subscriber::Event::Closed(ending) => standby.ended(ending, &mut self.out),
                event => {
                    standby.begun = None;
                    standby.log.on_output(&event);
                }
            }
        }
        self.settle();
    }

    fn output_at_work(&mut self, event: subscriber::Event) {
        let number = self.next_output;
        self.at_work.log.on_output(&event);
        match event {
            subscriber::Event::Begin(_, content) => self.begin_output(content),
            subscriber::Event::Data(_, data) => {
                if let Some(bytes) = &mut self.open_output {
                    *bytes += data.len() as u64;
                }
                self.at_work.moved = self.now;
                let due = self
                    .told_seen
                    .is_none_or(|told| told + TELL_EVERY <= self.now);
                if due {
                    self.told_seen = Some(self.now);
                    self.at_work.tell(Event::Seen, &mut self.out);
                }
                self.told.push_back(OutputEvent::Data(number, data));
            }
            subscriber::Event::End(_) => self.end_output(OutputEvent::End(number)),
            subscriber::Event::Truncated(_, bytes) => {
                self.end_output(OutputEvent::Truncated(number, bytes));
            }
            // Which of the input it was is for later output to show.
            subscriber::Event::Gap(_) => {}
            subscriber::Event::Discontinuity => self.told.push_back(OutputEvent::Discontinuity),
            subscriber::Event::Closed(ending) => self.at_work.ended(ending, &mut self.out),
        }
        self.matching = self.at_work.log.matching().or(self.matching);
    }

    fn begin_output(&mut self, content: ContentType) {
        self.open_output = Some(0);
        if let Some(numbers) = self.repeats.take() {
            self.repeated += numbers.end - numbers.start;
            let numbers = Seq::new(numbers.start)..Seq::new(numbers.end);
            self.told.push_back(OutputEvent::Repeated(numbers));
        }
        self.told
            .push_back(OutputEvent::Begin(self.next_output, content));
    }

    fn end_output(&mut self, event: OutputEvent) {
        self.open_output = None;
        self.next_output = self.next_output.next();
        self.at_work.moved = self.now;
        self.told.push_back(event);
    }

    /// All output that came before the job ended was handed over: a segment of the output that is still open is cut
    /// short, and later output counts no more.
    pub fn output_over(&mut self, now: Time) {
        self.advance(now);
        self.output_over = true;
        if let Some(bytes) = self.open_output {
            self.end_output(OutputEvent::Truncated(self.next_output, bytes));
        }
        self.settle();
    }

    /// The next event of the output for the application. Take all of them after every call of [`Media::output`].
    pub fn next_output(&mut self) -> Option<OutputEvent> {
        self.told.pop_front()
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn each_log(&mut self, mut act: impl FnMut(&mut Log)) {
        act(&mut self.at_work.log);
        if let Some(standby) = &mut self.standby {
            act(&mut standby.log);
        }
    }

    fn standby_is(&self, session: u32) -> bool {
        let is = |feed: &Feed| feed.session == session;
        self.standby.as_deref().is_some_and(is)
    }

    /// A feed for another orchestrator, in a session that was not heard of before.
    fn enter(&mut self, session: u32, input: Option<Url>, output: Option<Url>) -> Feed {
        self.sessions = session + 1;
        let mut feed = self.at_work.fork(self.now);
        feed.session = session;
        feed.input = self.publisher(input.clone());
        (feed.channel, feed.output) = (input, output);
        feed
    }

    fn publisher(&mut self, channel: Option<Url>) -> Option<Child<Publisher>> {
        let channel = channel.filter(|_| self.opened && !self.over)?;
        let config = publisher::Config {
            first: self.config.publisher.first.or(Some(Seq::ZERO)),
            ..self.config.publisher.clone()
        };
        Some(
            self.children
                .adopt(Publisher::new(self.now, config, channel)),
        )
    }

    fn publishers(&mut self) -> impl Iterator<Item = &mut Child<Publisher>> {
        let standby = self.standby.as_mut().and_then(|feed| feed.input.as_mut());
        let open = self.at_work.input.iter_mut().chain(standby);
        open.chain(&mut self.leaving)
    }

    /// The standby is the one at work from now on.
    fn promote(&mut self) {
        if let Some(standby) = self.standby.take() {
            self.replace(*standby);
            if let Some(content) = self.at_work.begun.take() {
                self.begin_output(content);
            }
        }
    }

    fn decline(&mut self, session: u32) {
        let event = Event::Declined;
        self.out.event(News { session, event });
    }

    /// Goes on with another feed.
    fn replace(&mut self, next: Feed) {
        self.leave_channel();
        let left = core::mem::replace(&mut self.at_work, next);
        self.at_work.follow(&left);
        self.repeats = left.log.answered_in_part().or(self.repeats.take());
        self.again += self.at_work.again as u64;
        if let Some(bytes) = self.open_output.take() {
            self.told
                .push_back(OutputEvent::Anew(self.next_output, bytes));
        }
        self.told_seen = None;
    }

    fn end_standby(&mut self) {
        let input = self.standby.take().and_then(|standby| standby.input);
        self.abandon(input);
    }

    fn leave_channel(&mut self) {
        self.at_work.channel = None;
        let input = self.at_work.input.take();
        self.abandon(input);
    }

    fn abandon(&mut self, input: Option<Child<Publisher>>) {
        if let Some(mut input) = input {
            input.get_mut().abandon(self.now);
            self.leaving.push(input);
        }
    }

    /// Does what follows from everything else: hands over, closes, tells.
    fn settle(&mut self) {
        self.at_work.settle(self.now, &mut self.out);
        self.settle_standby();
        self.leaving.retain_mut(|input| {
            input.drain(&mut self.out, |_| ());
            !input.get().has_ended()
        });
        if self.closes_at().is_some_and(|at| at <= self.now) {
            self.at_work.tell_delivered(&mut self.out);
        }
        if self.over && (self.output_over || !self.at_work.log.expects_answers()) {
            self.at_work.log.finish();
        }
        while let Some(gap) = self.at_work.log.next_gap() {
            let gap = Seq::new(gap.start)..Seq::new(gap.end);
            self.told.push_back(OutputEvent::Gap(gap));
        }
        let owed = self.at_work.log.owed();
        if owed != self.owed {
            self.owed = owed;
            self.at_work.tell(Event::Owed(owed), &mut self.out);
        }
        let ready = Readiness {
            handed_over: self.is_handed_over(),
            settled: self.is_settled(),
            closed: self.is_closed(),
            idle: self.is_idle(),
        };
        if ready != core::mem::replace(&mut self.ready, ready) {
            self.at_work.tell(Event::Ready, &mut self.out);
        }
    }

    /// Hands over to the standby. The application waits for the one at work alone, so what the standby does not take
    /// has a bound of its own.
    fn settle_standby(&mut self) {
        let limit = STANDBY_BEHIND * self.config.limits.bytes;
        let Some(standby) = &mut self.standby else {
            return;
        };
        standby.settle(self.now, &mut self.out);
        if standby.log.bytes() > limit
            && let Some(channel) = standby.channel.clone()
        {
            let cause = Cause::TooMuch {
                what: "the input that it does not take",
                limit,
            };
            let failure = Failure::new(Party::Channel(channel), cause);
            standby.tell(Event::Ended(Some(failure)), &mut self.out);
            self.end_standby();
        }
    }

    /// When the channel of the input may be closed, if all is delivered.
    fn closes_at(&self) -> Option<Time> {
        let complete = self.closing && !self.over;
        self.at_work.closes_at(self.now).filter(|_| complete)
    }
}

impl Machine for Media {
    type Event = News;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        let now = self.now;
        match input {
            Input::Tick => {
                for child in self.publishers() {
                    child.handle_input(now, Input::Tick);
                }
            }
            Input::Http(id, step) => {
                if let Some(child) = self.publishers().find(|child| child.owns(id)) {
                    child.handle_input(now, Input::Http(id, step));
                }
            }
            Input::Signed(..) | Input::Stored(..) | Input::Spent(..) => {}
        }
        self.settle();
    }

    fn poll_output(&mut self) -> Output<News> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let feeds = core::iter::once(&self.at_work).chain(self.standby.as_deref());
        let wake = feeds.map(Feed::wake).fold(self.closes_at(), earlier);
        let wake = self.leaving.iter().map(Child::wake).fold(wake, earlier);
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}
