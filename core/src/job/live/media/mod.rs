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
//! Which output answers which input is found in the time stamps, if the output carries the input's clock
//! ([`Matching::Clock`]), and by counting segments if not ([`Matching::Count`]). A segment that has no output when a
//! later one has, or when the job ends, is missing: that is counted, and told by [`OutputEvent::Gap`]. Everything
//! that is said of losses is said by [`Media::figures`].

mod log;
pub mod stamps;
mod types;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

pub use self::log::{
    AHEAD, DROPPED_TAIL, EARLY, FIRST_OPEN_BYTES, FIRST_OPEN_WITHIN, JOIN_AFTER, MAX_UNANSWERED,
};
use self::log::{Log, Next};
pub use self::types::{Config, Event, Figures, Limits, Matching, News, OutputEvent, Owed};
use crate::error::{Failure, Misuse};
use crate::http::Url;
use crate::machine::{Child, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use crate::trickle::{Ending, Publisher, Seq, publisher, subscriber};
use crate::wire::RunnerEvent;

/// How long the input's channel outlives its last delivery and the last byte of output, while output is owed.
/// Orchestrators of the reference delete the output's channel with the input's.
pub const TAIL_WITHIN: Duration = Duration::from_secs(2);

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
    log: Log,
    /// Where input goes, once somebody works.
    channel: Option<Url>,
    /// The number of the orchestrator that works or did last, and how many there were.
    session: u32,
    sessions: u32,
    input: Option<Child<Publisher>>,
    /// Publishers of orchestrators that were left, closing their channels.
    leaving: Vec<Child<Publisher>>,
    children: u32,
    /// The application has opened the input, has said all, and the job has ended.
    opened: bool,
    closing: bool,
    over: bool,
    /// [`Event::Delivered`] was told of this channel; the channel is being closed; it was closed by us.
    delivered: bool,
    ending: bool,
    closed: bool,
    /// The state that the job was told last.
    waits: bool,
    owed: Owed,
    /// The readiness when [`Event::Ready`] was told last.
    ready: Readiness,
    /// Segments given up, and why.
    lost: BTreeMap<u64, Failure>,
    again: u64,
    resumed: u64,
    matching: Option<Matching>,
    /// When something moved last: a delivery, or output.
    moved: Time,
    told_seen: Option<Time>,
    /// When the log has something to hand over again.
    due: Option<Time>,
    /// The number of the next output segment, and how much there was of it if it is open.
    next_output: Seq,
    open_output: Option<u64>,
    told: VecDeque<OutputEvent>,
    out: Outbox<News>,
}

impl Media {
    /// Media of a job that nobody works on yet.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        Self {
            now,
            log: Log::new(now, config.limits, config.ahead.unwrap_or(AHEAD)),
            config,
            channel: None,
            session: 0,
            sessions: 0,
            input: None,
            leaving: Vec::new(),
            children: 0,
            opened: false,
            closing: false,
            over: false,
            delivered: false,
            ending: false,
            closed: false,
            waits: false,
            owed: Owed::Unknown,
            ready: Readiness::default(),
            lost: BTreeMap::new(),
            again: 0,
            resumed: 0,
            matching: None,
            moved: now,
            told_seen: None,
            due: None,
            next_output: Seq::ZERO,
            open_output: None,
            told: VecDeque::new(),
            out: Outbox::default(),
        }
    }

    // ---- who works -------------------------------------------------------------------------------------------

    /// An orchestrator works, the first or another: input goes to its channel from now on, beginning with what is
    /// not answered. Returns how many segments it gets again.
    pub fn go_to(&mut self, now: Time, channel: &Url) -> usize {
        self.advance(now);
        self.leave_channel();
        self.session = self.sessions;
        self.sessions += 1;
        self.channel = Some(channel.clone());
        let (first, again) = self.log.restart();
        // Those given up have another chance.
        self.lost.retain(|number, _| *number < first);
        self.again += again as u64;
        if let Some(bytes) = self.open_output.take() {
            self.told
                .push_back(OutputEvent::Anew(self.next_output, bytes));
        }
        (self.delivered, self.ending, self.closed) = (false, false, false);
        (self.waits, self.told_seen) = (false, None);
        self.open_channel();
        self.settle();
        again
    }

    /// The orchestrator at work is lost: nothing more is given to it. Output that it has made still counts until
    /// another one works.
    pub fn leave(&mut self, now: Time) {
        self.advance(now);
        self.leave_channel();
        self.channel = None;
        self.settle();
    }

    /// The job has ended: what is not answered is missing.
    pub fn end(&mut self, now: Time) {
        self.advance(now);
        self.over = true;
        if let Some(input) = &mut self.input {
            input.get_mut().close(self.now);
        }
        self.log.finish();
        self.settle();
    }

    /// The runner said something: a status that knows of input shows that the model reads.
    pub fn runner_said(&mut self, now: Time, event: &RunnerEvent) {
        self.advance(now);
        if event.has_input() {
            self.log.model_reads();
            self.settle();
        }
    }

    /// How many orchestrators worked before the one that does: [`Media::output`] wants to know whose output it is.
    #[must_use]
    pub const fn session(&self) -> u32 {
        self.session
    }

    // ---- the application's input -----------------------------------------------------------------------------

    /// Opens the input.
    pub fn open(&mut self, now: Time, config: publisher::Config) {
        self.advance(now);
        self.config.publisher = config;
        if !core::mem::replace(&mut self.opened, true) {
            self.open_channel();
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
        let number = self.log.begin();
        self.settle();
        Ok(Seq::new(number))
    }

    /// Adds to the open segment; without one the bytes go nowhere.
    pub fn write(&mut self, now: Time, data: Bytes) {
        self.advance(now);
        if !self.is_over() {
            self.log.write(data);
            self.settle();
        }
    }

    /// The open segment is complete.
    pub fn end_segment(&mut self, now: Time) {
        self.advance(now);
        self.log.end();
        self.settle();
    }

    /// The input is complete. Segments whose output is lost after that with its orchestrator are still done again by
    /// another.
    pub fn close(&mut self, now: Time) {
        self.advance(now);
        self.closing = true;
        self.log.end();
        self.settle();
    }

    /// The job knows of [`Event::Delivered`], and takes no offence at what the orchestrator closes from now on.
    pub fn close_channel(&mut self, now: Time) {
        self.advance(now);
        if self.delivered
            && !self.ending
            && let Some(input) = &mut self.input
        {
            self.ending = true;
            input.get_mut().close(self.now);
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
        self.input.is_some() && self.log.is_handed_over()
    }

    /// Whether every segment is delivered or given up.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.closed || self.over || (self.input.is_some() && self.log.is_settled())
    }

    /// Whether the channel of the input was closed in order, or the job has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed || self.over
    }

    /// Whether no channel is open any more.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.input.is_none() && self.leaving.is_empty()
    }

    /// Counts what became of input and output so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            begun: self.log.begun_in_all(),
            delivered: self
                .log
                .handed()
                .saturating_sub(self.log.awaited() + self.lost.len() as u64),
            answered: self.log.answered,
            missing: self.log.missing,
            again: self.again,
            resumed: self.resumed,
            matching: self.matching,
        }
    }

    /// Segments that the publisher gave up, and why. The output may bring them all the same.
    #[must_use]
    pub const fn lost(&self) -> &BTreeMap<u64, Failure> {
        &self.lost
    }

    // ---- the output ------------------------------------------------------------------------------------------

    /// Whether output is read from now on. While it is not, a segment is answered by its delivery.
    pub fn expect_output(&mut self, now: Time, read: bool) {
        self.advance(now);
        // The end of a job is no time to lose interest: what is missing then is missing.
        if read || !self.over {
            self.log.expect_answers(read);
        }
        self.settle();
    }

    /// An event of the subscriber of the output's channel, which was opened at its first segment for that
    /// [`session`](Media::session). Events of earlier ones are ignored.
    pub fn output(&mut self, now: Time, session: u32, event: subscriber::Event) {
        self.advance(now);
        if session != self.session {
            return;
        }
        let number = self.next_output;
        match event {
            subscriber::Event::Begin(_, content) => {
                self.open_output = Some(0);
                self.log.drop_output();
                self.told.push_back(OutputEvent::Begin(number, content));
            }
            subscriber::Event::Data(_, data) => {
                if let Some(bytes) = &mut self.open_output {
                    *bytes += data.len() as u64;
                }
                self.log.output(&data);
                self.log.model_reads();
                self.moved = self.now;
                let due = self
                    .told_seen
                    .is_none_or(|told| told + TELL_EVERY <= self.now);
                if due {
                    self.told_seen = Some(self.now);
                    self.tell(Event::Seen);
                }
                self.told.push_back(OutputEvent::Data(number, data));
            }
            subscriber::Event::End(_) => {
                self.log.output_ended();
                self.end_output(OutputEvent::End(number));
            }
            subscriber::Event::Truncated(_, bytes) => {
                self.log.output_cut();
                self.end_output(OutputEvent::Truncated(number, bytes));
            }
            subscriber::Event::Gap(range) => {
                let missed = range.end.get().saturating_sub(range.start.get());
                self.log.output_missed(missed);
            }
            subscriber::Event::Discontinuity => self.told.push_back(OutputEvent::Discontinuity),
            subscriber::Event::Closed(ending) => self.tell(Event::Ended(failure_of(ending))),
        }
        self.matching = self.log.matching().or(self.matching);
        self.settle();
    }

    fn end_output(&mut self, event: OutputEvent) {
        self.open_output = None;
        self.next_output = self.next_output.next();
        self.moved = self.now;
        self.told.push_back(event);
    }

    /// The next event of the output for the application. Take all of them after every call of [`Media::output`].
    pub fn next_output(&mut self) -> Option<OutputEvent> {
        self.told.pop_front()
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn tell(&mut self, event: Event) {
        self.out.event(News {
            session: self.session,
            event,
        });
    }

    fn open_channel(&mut self) {
        let Some(channel) = self.channel.clone().filter(|_| self.opened && !self.over) else {
            return;
        };
        let config = publisher::Config {
            first: self.config.publisher.first.or(Some(Seq::ZERO)),
            ..self.config.publisher.clone()
        };
        self.children += 1;
        let publisher = Publisher::new(self.now, config, channel);
        self.input = Some(Child::new(self.children, publisher));
    }

    fn leave_channel(&mut self) {
        if let Some(mut input) = self.input.take() {
            input.get_mut().abandon(self.now);
            self.leaving.push(input);
        }
    }

    /// Does what follows from everything else: hands over, closes, tells.
    fn settle(&mut self) {
        while let Some(mut input) = self.input.take() {
            let (moved, blocked) = self.hand_over(&mut input);
            let mut told = Vec::new();
            input.drain(&mut self.out, |event| told.push(event));
            self.input = Some(input);
            if moved {
                // What moves does not stand still, though there may be more.
                self.set_waits(false);
            }
            if told.is_empty() {
                self.set_waits(blocked);
                break;
            }
            for event in told {
                self.on_publisher(event);
            }
        }
        self.leaving.retain_mut(|input| {
            input.drain(&mut self.out, |_| ());
            !input.get().has_ended()
        });
        self.tell_delivered();
        while let Some(gap) = self.log.next_gap() {
            let gap = Seq::new(gap.start)..Seq::new(gap.end);
            self.told.push_back(OutputEvent::Gap(gap));
        }
        let owed = self.log.owed();
        if owed != self.owed {
            self.owed = owed;
            self.tell(Event::Owed(owed));
        }
        let ready = Readiness {
            handed_over: self.is_handed_over(),
            settled: self.is_settled(),
            closed: self.is_closed(),
            idle: self.is_idle(),
        };
        if ready != core::mem::replace(&mut self.ready, ready) {
            self.tell(Event::Ready);
        }
    }

    /// Hands over what the publisher takes. Returns whether it took anything, and whether less than there is.
    fn hand_over(&mut self, input: &mut Child<Publisher>) -> (bool, bool) {
        let (now, publisher) = (self.now, input.get_mut());
        self.due = None;
        if self.ending || self.over {
            return (false, false);
        }
        let mut moved = false;
        loop {
            let taken = match self.log.next(now) {
                Next::Begin => match publisher.begin(now) {
                    Ok(seq) => {
                        self.log.took_begin(now, seq);
                        self.tell(Event::Begun);
                        true
                    }
                    // It says when to try again, or that it has ended.
                    Err(_) => false,
                },
                Next::Join => {
                    self.log.took_join(now);
                    true
                }
                Next::Data(data) => {
                    match publisher.write(now, data) {
                        Ok(()) => {
                            self.log.took_data();
                            true
                        }
                        // It was silent for too long, and is over.
                        Err(publisher::Unwritten::Misuse(Misuse::NotOpen)) => {
                            self.log.took_end();
                            true
                        }
                        Err(_) => false,
                    }
                }
                Next::End => {
                    let taken = matches!(publisher.end(now), Ok(()) | Err(Misuse::NotOpen));
                    if taken {
                        self.log.took_end();
                    }
                    taken
                }
                Next::Wait(until) => {
                    self.due = Some(until);
                    return (moved, false);
                }
                Next::Nothing => return (moved, false),
            };
            if !taken {
                return (moved, true);
            }
            moved = true;
        }
    }

    fn set_waits(&mut self, waits: bool) {
        if core::mem::replace(&mut self.waits, waits) != waits {
            self.tell(Event::Waits(waits));
        }
    }

    fn on_publisher(&mut self, event: publisher::Event) {
        match event {
            publisher::Event::Delivered(seq) => {
                self.log.settled(seq, false);
                self.moved = self.now;
                self.tell(Event::Done);
            }
            publisher::Event::Lost(seq, failure) => {
                for number in self.log.settled(seq, true) {
                    self.lost.insert(number, failure.clone());
                }
                self.tell(Event::Done);
            }
            publisher::Event::Resumed(..) => self.resumed += 1,
            publisher::Event::Cut(_) => self.log.took_end(),
            publisher::Event::Closed(ending) => {
                self.input = None;
                if self.ending || self.over {
                    self.closed = true;
                } else {
                    self.tell(Event::Ended(failure_of(ending)));
                }
            }
            publisher::Event::Ready(_) | publisher::Event::Writable => {}
        }
    }

    /// When the channel of the input may be closed, if all is delivered.
    fn closes_at(&self) -> Option<Time> {
        let complete = self.closing && !self.delivered && !self.over;
        if !complete {
            return None;
        }
        match (&self.input, self.log.owed()) {
            // Whoever works or not, there is nothing left to do.
            (_, Owed::Nothing) => Some(self.now),
            (Some(_), Owed::Something) if self.log.is_settled() => Some(self.moved + TAIL_WITHIN),
            (Some(_), Owed::Unknown) if self.log.is_settled() => Some(self.now),
            _ => None,
        }
    }

    fn tell_delivered(&mut self) {
        if self.closes_at().is_some_and(|at| at <= self.now) {
            self.delivered = true;
            self.tell(Event::Delivered);
        }
    }
}

fn failure_of(ending: Ending) -> Option<Failure> {
    match ending {
        Ending::Failed(failure) => Some(failure),
        _ => None,
    }
}

impl Machine for Media {
    type Event = News;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Tick => {
                for child in self.input.iter_mut().chain(&mut self.leaving) {
                    child.handle_input(self.now, Input::Tick);
                }
            }
            Input::Http(id, step) => {
                let mut children = self.input.iter_mut().chain(&mut self.leaving);
                if let Some(child) = children.find(|child| child.owns(id)) {
                    child.handle_input(self.now, Input::Http(id, step));
                }
            }
            Input::Signed(..) | Input::Stored(..) => {}
        }
        self.settle();
    }

    fn poll_output(&mut self) -> Output<News> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let children = self.input.iter().chain(&self.leaving).map(Child::wake);
        let own = earlier(self.due.filter(|_| self.input.is_some()), self.closes_at());
        let wake = children.fold(own, earlier);
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}
